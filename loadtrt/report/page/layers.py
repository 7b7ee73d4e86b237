"""Profiles as sections: which layers take the time, and what kinds of them; and two profiles side by side."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from loadtrt.measure.layer_kinds import kind_of
from loadtrt.report.charts.bars import Bar, bars
from loadtrt.report.layer_columns import short_names
from loadtrt.report.layer_comparison_tables import remarks
from loadtrt.report.layer_tables import pass_lines
from loadtrt.report.page.section import Badge, Figure, Name, Section, Table, section, words
from loadtrt.report.text import UNKNOWN, time_or
from loadtrt.units import format_count, format_duration, plural

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadtrt.measure.layer_comparison import LayerComparison, LayerRow, RowSide
    from loadtrt.measure.profile import LayerTimes, ProfilePass, ProfileResult
    from loadtrt.report.page.section import Block, Cell

_TOP = 15
_MENTIONED = 10  # layers where there are no charts
_HEADER = ("#", "type", "precision", "average", "median", "p99", "share", "layer")
_MOST_ROWS = 60  # of a comparison


def profile(result: ProfileResult, file: str) -> Iterator[Section]:
    """A profile that is a result of its own."""
    engine = result.engine
    badges = (Badge(result.outcome.upper(), "bad"),) if result.outcome != "completed" else ()
    lines = [
        words(" · ".join([f"batch {engine.batch}", *(f"{key} {value}" for key, value in engine.mode.items())])),
        words(f"{engine.flavour} {engine.version} · loadtrt {result.loadtrt} · {result.started} · ", Name(file)),
        *([words(f"ended early: {result.failure}")] if result.failure else []),
        *(words(f"note: {note}") for note in result.engine.notes),
    ]
    yield Section((Name(engine.name), f" on {engine.device}: layers"), tuple(lines), level=1, badges=badges)
    yield from layers(result)


def layers(result: ProfileResult) -> Iterator[Section]:
    """All passes of a profile, the first one layer by layer."""
    notes = [words(f"note: {note}") for note in result.notes if note not in result.engine.notes]
    said = [words(line) for one in result.passes for line in pass_lines(one)]
    blocks: list[Block] = [*said, *notes] or [words("No layer was timed.")]
    for one in result.passes[:1]:
        if one.layers:
            blocks += [*_charts(one), _table(one)]
    yield section("Layers", *blocks)


def _charts(one: ProfilePass) -> Iterator[Block]:
    hottest = [times for _, times in one.hottest]
    if not hottest:
        return
    top = hottest[:_TOP]
    names = short_names((times.layer.name for times in top), 32)
    rest = math.fsum(times.share for times in hottest[_TOP:])
    rows = [
        Bar(
            names[t.layer.name], t.share, f"{format_duration(t.average_ns)} · {100 * t.share:.1f} %", "f1", t.layer.name
        )
        for t in top
    ]
    more = f"{plural(len(hottest) - _TOP, 'more layer')}: {100 * rest:.1f} %" if rest else f"all of {len(hottest)}"
    table = Table(_HEADER, tuple(_row(place, times) for place, times in one.hottest[:_MENTIONED]), words=3, last=True)
    chart = bars("Hottest layers", f"Shares of the sum over layers; {more}.", rows)
    yield Figure("Hottest layers", chart, more, instead=table)
    kinds = one.kinds
    if len(kinds) > 1:
        by_kind = [
            Bar(f"{kind} ({count})", share, f"{format_duration(share * one.layers_ns)} · {100 * share:.1f} %", "f3")
            for kind, count, share in kinds[:_TOP]
        ]
        yield Figure("By type", bars("Time by type of layer", f"{len(kinds)} types.", by_kind), "with how many layers")


def _table(one: ProfilePass) -> Table:
    rows = tuple(_row(place, times) for place, times in enumerate(one.layers, 1))
    title = f"all {plural(len(rows), 'layer')} in the order they ran in, {one.mode or 'mode not told'}"
    return Table(_HEADER, rows, words=3, last=True, folded=title)


def _row(place: int, times: LayerTimes) -> tuple[Cell, ...]:
    layer, known = times.layer, map(time_or, (times.average_ns, times.median_ns, times.p99_ns))
    return (str(place), kind_of(layer), layer.precision, *known, f"{100 * times.share:.1f} %", Name(layer.name))


def compared(comparison: LayerComparison, name_a: str, name_b: str) -> Iterator[Section]:
    """Two profiles side by side: what B saves, by type and row by row."""
    blocks: list[Block] = [words("A ", Name(name_a), " · B ", Name(name_b)), *map(words, remarks(comparison))]
    kinds = [kind for kind in comparison.kinds if kind.a_ns or kind.b_ns]
    if kinds:
        pairs = [
            bar
            for kind in kinds[:_TOP]
            for bar in (
                Bar(f"{kind.kind or 'not told'} A", kind.a_ns, format_duration(kind.a_ns), "f1"),
                Bar("B", kind.b_ns, format_duration(kind.b_ns), "f2"),
            )
        ]
        blocks.append(Figure("By type", bars("Time by type of layer, A above B", "Per inference.", pairs), "A above B"))
    changed = sorted((row for row in comparison.rows if row.saved_ns), key=lambda row: -abs(row.saved_ns))
    blocks.append(_rows_table(changed))
    yield Section(("Two profiles, layer by layer",), tuple(blocks), level=1)


def _rows_table(changed: Sequence[LayerRow]) -> Table:
    rows = tuple(
        (
            _side_name(row.a if row.a.layers else row.b),
            time_or(row.a.time_ns if row.a.layers else None),
            time_or(row.b.time_ns if row.b.layers else None),
            f"{'−' if row.saved_ns < 0 else ''}{format_duration(abs(row.saved_ns))}",
            _speedup(row),
            f"{_precision(row.a)} → {_precision(row.b)}" if row.a.layers and row.b.layers else "",
        )
        for row in changed[:_MOST_ROWS]
    )
    rest = len(changed) - len(rows)
    note = f"{plural(rest, 'more row')}, of less" if rest > 0 else ""
    return Table(("layer", "A", "B", "saved", "speed-up", "precision"), rows, last=True, note=note)


def _speedup(row: LayerRow) -> str:
    if row.speedup is not None:
        return f"{row.speedup:.2f}×"
    return UNKNOWN if row.a.layers and row.b.layers else "only A" if row.a.layers else "only B"


def _side_name(side: RowSide) -> Name:
    first = side.layers[0].name
    more = f" and {format_count(len(side.layers) - 1)} more" if len(side.layers) > 1 else ""
    return Name(first + more)


def _precision(side: RowSide) -> str:
    return "+".join(dict.fromkeys(layer.precision or UNKNOWN for layer in side.layers))
