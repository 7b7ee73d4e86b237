"""Profiles as text: the layers of one engine, hottest first, and of two beside each other. Pure functions of results.

Hottest first, though layers run in another order: a profile is read to find the few layers that take most of the time,
and a running sum, which says how few they are, needs this order. Column "#" is the order they ran in; the exports in
trtexec's format keep it too.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from loadtrt.measure.layer_kinds import kind_of
from loadtrt.measure.sampling import least_samples
from loadtrt.report.layer_columns import NamedRow, named_table, printable, table, wide
from loadtrt.report.layer_comparison_tables import comparison_text
from loadtrt.report.text import time_or
from loadtrt.units import format_count, format_duration, plural

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadtrt.measure.profile import LayerTimes, ProfilePass, ProfileResult

__all__ = ["comparison_text", "profile_text"]

_ALIKE = 0.01  # of an inference: a difference that nobody needs explained


def profile_text(result: ProfileResult, *, nodes: bool = False, top: int | None = None) -> str:
    """The first pass as tables, every pass as a line, and what ended the profile early. nodes: with the model's nodes
    and the tactic of each layer; top: only that many layers. Ends with a newline."""
    return "\n".join(map(printable, _profile(result, nodes, top))) + "\n"


def _profile(result: ProfileResult, nodes: bool, top: int | None) -> Iterator[str]:
    engine = result.engine
    yield ""
    yield f"{engine.name} on {engine.device} ({engine.flavour} {engine.version})"
    yield from wide(" · ".join([f"batch {engine.batch}", *(" ".join(item) for item in engine.mode.items())]), "  ")
    for profile in result.passes:
        yield from pass_lines(profile)
    for first in result.passes[:1]:
        if not first.layers:
            yield "no layer was timed"
            continue
        yield ""
        yield from _layers(first, nodes, top)
        yield ""
        yield from _kinds(first)
    notes = list(dict.fromkeys((*engine.notes, *result.notes)))
    if notes:
        yield ""
    for note in notes:
        yield from wide(f"note: {note}")
    if result.outcome != "completed":
        yield ""
        yield from wide(_ending(result))


def _ending(result: ProfileResult) -> str:
    if result.outcome == "interrupted":
        return "INTERRUPTED, shown as far as it went"
    return f"FAILED: {result.failure}" + ("; what was timed until then is above" if result.passes else "")


def pass_lines(profile: ProfilePass) -> Iterator[str]:
    """The sum over layers against the whole inference, each a mean of its own inferences, and what is between them."""
    line = f"{profile.mode or 'mode not told'}: layers {format_duration(profile.layers_ns)} in sum"
    line += f" ({plural(profile.inferences, 'inference')})"
    whole = profile.inference_ns
    if whole is not None:
        line += f", inference {format_duration(whole)} without profiler"
        line += f" ({plural(profile.whole, 'inference')})" if profile.whole else ""  # not told by older files
    yield line
    if not whole or not profile.layers:
        return
    outside = whole - profile.layers_ns
    share = f"{format_duration(abs(outside))} ({_percent(abs(outside) / whole)})"
    if abs(outside) < _ALIKE * whole:
        yield f"  the layers' sum is an inference, but for {share}"
    elif outside > 0:
        yield f"  at least {share} of an inference is outside its layers: starting them, and gaps between them"
    else:
        yield f"  the layers' sum is {share} more: what the profiler adds, unless layers ran side by side"


def _layers(profile: ProfilePass, nodes: bool, top: int | None) -> Iterator[str]:
    timed = profile.hottest
    shown = timed[:top]
    rows = []
    running = 0.0
    for place, times in shown:
        running += times.share
        cells = (
            str(place),
            kind_of(times.layer),
            times.layer.precision,
            format_duration(times.average_ns),
            time_or(times.median_ns),
            time_or(times.p99_ns),
            _percent(times.share),
            f"{100 * running:.0f} %",
        )
        rows.append(NamedRow(cells, times.layer.name))
    if rows:
        lines = named_table(("#", "type", "", "average", "median", "p99", "share", "sum", "layer"), rows)
        yield next(lines)
        for line, (_, times) in zip(lines, shown, strict=True):
            yield line
            if nodes:
                yield from _inside(times)
    rest = timed[len(shown) :]
    if rest:
        share = math.fsum(times.share for _, times in rest)
        yield f"{plural(len(rest), 'more layer')}: {format_duration(share * profile.layers_ns)}, {_percent(share)}"
    idle = Counter(kind_of(times.layer) or "not told" for times in profile.layers if not times.total_ns)
    if idle:
        kinds = ", ".join(f"{format_count(count)} {kind}" for kind, count in idle.most_common())
        yield f"{plural(idle.total(), 'layer')} took no time: {kinds}"
    if shown and all(times.p99_ns is None for _, times in shown):
        yield f"no p99: it takes {least_samples(0.99)} inferences"


def _inside(times: LayerTimes) -> Iterator[str]:
    """What a layer's line has no room for: the model's nodes where its name does not say them, and the tactic."""
    layer = times.layer
    if layer.nodes and layer.nodes != (layer.name,):
        yield from wide(f"nodes: {', '.join(layer.nodes)}", " " * 6)
    if layer.tactic:
        yield f"      tactic: {layer.tactic}"


def _kinds(profile: ProfilePass) -> Iterator[str]:
    rows = [
        (kind, str(layers), format_duration(share * profile.layers_ns), _percent(share))
        for kind, layers, share in profile.kinds
    ]
    yield from table(("type", "layers", "time", "share"), rows)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
