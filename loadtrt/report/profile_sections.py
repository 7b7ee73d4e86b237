"""A profile as sections: which layers take the time, and what kinds of them.

Hottest first, though layers run in another order: a profile is read to find the few layers that take most of the time,
and the running sum says how few they are. Column "#" is the order in which they run, as are trtexec's exports.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from loadtrt.report.charts.shares import Bar, bars
from loadtrt.report.document import Badge, Figure, Name, Named, Notice, Section, Table, known_columns, section, words
from loadtrt.report.formatting import UNKNOWN, short_names, time_or
from loadtrt.report.settings import about, title, warned
from loadtrt.results.engine_info import kind_of
from loadtrt.stats.sample_size import least_samples
from loadtrt.units import format_count, format_duration, plural

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from loadtrt.report.document import Block, Cell
    from loadtrt.results.profile_result import LayerTimes, ProfilePass, ProfileResult

_BARS = 15
_MENTIONED = 10  # layers where there are no charts
_ALIKE = 0.01  # of an inference: a difference that needs no explanation
_HEADER = ("#", "type", "precision", "average", "median", "p99", "share", "sum", "layer")


def profile(result: ProfileResult, file: str, *, nodes: bool = False, top: int | None = None) -> Iterator[Section]:
    """A profile that is a result of its own.

    file: what to call the result's file.
    nodes: with the model's nodes and the tactic of each layer.
    top: how many layers plain text lists.
    """
    engine = result.engine
    badges = (Badge(result.outcome.upper(), "bad"),) if result.outcome != "completed" else ()
    mode = " · ".join([f"batch {engine.batch}", *(f"{key} {value}" for key, value in engine.mode.items())])
    yield Section((*title(engine), ": layers"), (words(mode), about(result, file)), level=1, badges=badges)
    yield from layers(result, nodes=nodes, top=top)
    ended: list[Block] = []
    if result.outcome == "failed":
        shown = (("shown", "what was timed until then"),) if result.passes else ()
        ended.append(Notice("bad", result.failure or "the profile failed", shown))
    yield section("Findings", *ended, bare=True, conclusion=True)


def layers(
    result: ProfileResult, *, nodes: bool = False, top: int | None = None, told: Collection[str] = ()
) -> Iterator[Section]:
    """All passes of a profile, the first one layer by layer. told: notes that the page shows elsewhere."""
    became = () if result.engine.conversion is None else result.engine.conversion.sentences()
    every = dict.fromkeys((*result.engine.notes, *became, *result.notes))
    notes = [words(f"note: {note}") for note in every if note not in told]
    sums = [words(line) for timed in result.passes for line in _sums(timed)]
    blocks: list[Block] = [*sums]
    for first in result.passes[:1]:
        if first.layers:
            blocks += [*_charts(first), *_hottest(first, nodes, top), _all(first), _kinds(first)]
        else:
            blocks.append(words("no layer was timed"))
    yield section("Layers", *blocks, bare=True)
    yield section("Notes", *notes, *warned(result.engine), bare=True)


def _sums(timed: ProfilePass) -> Iterator[str]:
    """The sum over layers against the whole inference, each a mean of its own inferences, and what is between them."""
    line = f"{timed.mode or 'mode unknown'}: layers {format_duration(timed.layers_ns)} in sum"
    line += f" ({plural(timed.inferences, 'inference')})"
    whole = timed.inference_ns
    if whole is not None:
        line += f", inference {format_duration(whole)} without profiler ({plural(timed.whole, 'inference')})"
    yield line
    if not whole or not timed.layers:
        return
    outside = whole - timed.layers_ns
    share = f"{format_duration(abs(outside))} ({_percent(abs(outside) / whole)})"
    if abs(outside) < _ALIKE * whole:
        yield f"the layers' sum is an inference, but for {share}"
    elif outside > 0:
        yield f"at least {share} of an inference is outside its layers: starting them, and gaps between them"
    else:
        yield f"the layers' sum is {share} more: what the profiler adds, unless layers ran side by side"


def _charts(timed: ProfilePass) -> Iterator[Block]:
    hottest = [times for _, times in timed.hottest]
    if not hottest:
        return
    top = hottest[:_BARS]
    names = short_names((times.layer.name for times in top), 32)
    rest = math.fsum(times.share for times in hottest[_BARS:])
    rows = [
        Bar(names[t.layer.name], t.share, f"{format_duration(t.average_ns)} · {_percent(t.share)}", "f1", t.layer.name)
        for t in top
    ]
    more = f"{plural(len(hottest) - _BARS, 'more layer')}: {_percent(rest)}" if rest else f"all of {len(hottest)}"
    chart = bars("Hottest layers", f"Shares of the sum over layers; {more}.", rows)
    yield Figure("Hottest layers", chart, more, instead=_table(timed.hottest[:_MENTIONED]))
    kinds = timed.kinds
    if len(kinds) > 1:
        by_kind = [
            Bar(f"{kind} ({count})", share, f"{format_duration(share * timed.layers_ns)} · {_percent(share)}", "f3")
            for kind, count, share in kinds[:_BARS]
        ]
        yield Figure("By type", bars("Time by type of layer", f"{len(kinds)} types.", by_kind), "with how many layers")


def _hottest(timed: ProfilePass, nodes: bool, top: int | None) -> Iterator[Block]:
    """The layers that take time, for a terminal, and the others in a line each."""
    shown = timed.hottest[:top]
    if shown:
        yield _table(shown, nodes=nodes)
    rest = timed.hottest[len(shown) :]
    if rest:
        share = math.fsum(times.share for _, times in rest)
        time = format_duration(share * timed.layers_ns)
        yield words(f"{plural(len(rest), 'more layer')}: {time}, {_percent(share)}", only="terminal")
    idle = Counter(kind_of(times.layer) or "unknown type" for times in timed.layers if not times.total_ns)
    if idle:
        kinds = ", ".join(f"{format_count(count)} {kind}" for kind, count in idle.most_common())
        yield words(f"{plural(idle.total(), 'layer')} took no time: {kinds}")
    if shown and all(times.p99_ns is None for _, times in shown):
        yield words(f"no p99: it takes {least_samples(0.99)} inferences")


def _table(shown: Sequence[tuple[int, LayerTimes]], *, nodes: bool = False) -> Table:
    rows: list[tuple[Cell, ...]] = []
    running = 0.0
    for place, times in shown:
        running += times.share
        rows.append((*_cells(place, times), f"{100 * running:.0f} %", _named(times, nodes)))
    header, kept = known_columns(_HEADER, rows, ("type", "precision", "median", "p99"), (UNKNOWN, ""))
    return Table(header, kept, words=1 + ("type" in header) + ("precision" in header), last=1, only="terminal")


def _all(timed: ProfilePass) -> Table:
    """Every layer, for a page."""
    rows = tuple((*_cells(place, times), Name(times.layer.name)) for place, times in enumerate(timed.layers, 1))
    folded = f"all {plural(len(rows), 'layer')} in the order they ran in, {timed.mode or 'mode unknown'}"
    header = tuple(title for title in _HEADER if title != "sum")
    return Table(header, rows, words=3, last=1, folded=folded, only="page")


def _cells(place: int, times: LayerTimes) -> tuple[str, ...]:
    layer, known = times.layer, map(time_or, (times.average_ns, times.median_ns, times.p99_ns))
    return (str(place), kind_of(layer), layer.precision, *known, _percent(times.share))


def _named(times: LayerTimes, nodes: bool) -> Named:
    """The layer's name; with the model's nodes, where the name does not say them, and the tactic."""
    layer, below = times.layer, []
    if nodes and layer.nodes and layer.nodes != (layer.name,):
        below.append(f"nodes: {', '.join(layer.nodes)}")
    if nodes and layer.tactic:
        below.append(f"tactic: {layer.tactic}")
    return Named(layer.name, below=tuple(below))


def _kinds(timed: ProfilePass) -> Table:
    rows = tuple(
        (kind, str(count), format_duration(share * timed.layers_ns), _percent(share))
        for kind, count, share in timed.kinds
    )
    return Table(("type", "layers", "time", "share"), rows, only="terminal")


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
