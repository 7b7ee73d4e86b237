"""Two profiles side by side as sections: what B saves, in sum, by type and row by row."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from loadtrt.report.charts.shares import Bar, bars
from loadtrt.report.document import Figure, Name, Named, Section, Table, known_columns, section, words
from loadtrt.report.formatting import UNKNOWN, differences
from loadtrt.units import format_count, format_duration, plural

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadtrt.report.document import Block, Cell
    from loadtrt.stats.layer_matching import MatchedBy
    from loadtrt.stats.profiles import LayerComparison, LayerRow, PassTotals, ProfiledEngine, RowLayer, RowSide

_MATCHED: dict[MatchedBy | None, str] = {
    "nodes": "by the model's nodes",
    "name": "by name",
    "served layer": "by the layer they serve",
    "signature": "only by type and shapes (≈)",
}
_BARS = 15
PAGE_ROWS = 60  # of each table


def compared_profiles(
    comparison: LayerComparison, name_a: str, name_b: str, *, top: int | None = None
) -> Iterator[Section]:
    """The verdict first.

    name_a, name_b: what to call the engines.
    top: how many rows to list of what is in both, of what is in A alone, and of what is in B alone.
    """
    names = (("A", name_a, comparison.a), ("B", name_b, comparison.b))
    head = [words(f"{letter}  ", Name(name), f": {_side(side, name)}") for letter, name, side in names]
    head += [words(line) for lines in (_verdict, _warnings, _gist) for line in lines(comparison)]
    yield Section(("Two profiles, layer by layer",), tuple(head), level=1)
    yield section("By type", *_by_type(comparison), bare=True, conclusion=True)
    yield section("In both", *_both(comparison, top), bare=True)
    for letter, rows in (
        ("A", [(row.a, row) for row in comparison.rows if not row.b.layers]),
        ("B", [(row.b, row) for row in comparison.rows if not row.a.layers]),
    ):
        timed = sorted((item for item in rows if item[0].time_ns), key=lambda item: -item[0].time_ns)
        if timed:
            total = format_duration(sum(side.time_ns for side, _ in timed))
            yield section(f"only in {letter}: {total}", *_alone(comparison, timed, top))
    idle = sum(not row.a.time_ns and not row.b.time_ns for row in comparison.rows)
    if idle:
        yield section("Idle", words(f"{plural(idle, 'row')} took no time on either side"), bare=True)


def _by_type(comparison: LayerComparison) -> Iterator[Block]:
    kinds = [kind for kind in comparison.kinds if kind.a_ns or kind.b_ns]
    if kinds:
        pairs = [
            bar
            for kind in kinds[:_BARS]
            for bar in (
                Bar(f"{kind.kind or 'unknown'} A", kind.a_ns, format_duration(kind.a_ns), "f1"),
                Bar("B", kind.b_ns, format_duration(kind.b_ns), "f2"),
            )
        ]
        yield Figure("By type", bars("Time by type of layer, A above B", "Per inference.", pairs), "A above B")
    if comparison.kinds and not _untyped(comparison):
        yield _kinds(comparison)


def _side(side: PassTotals, name: str) -> str:
    engine = side.engine
    texts = [engine.name] if engine and engine.name != name else []
    texts += [f"batch {engine.batch}"] if engine else []
    texts += [side.mode or "mode unknown", plural(side.layers, "layer"), plural(side.inferences, "inference")]
    return ", ".join(texts)


def _verdict(comparison: LayerComparison) -> Iterator[str]:
    """By whole inferences where both are known: the profiler's own time is in the sums over layers."""
    a, b, whole = comparison.a, comparison.b, comparison.inference_speedup
    if whole is not None:
        yield f"B is {_times(whole)} as fast as A: inference without profiler {_change(a.inference_ns, b.inference_ns)}"
    elif comparison.speedup is None:
        yield "the speed-up is unknown: in one of the two no layer took time"
    if comparison.speedup is not None:
        speedup = _times(comparison.speedup)
        yield f"sum of layers under the profiler: {_change(a.layers_ns, b.layers_ns)}, {speedup} as fast"
    for letter, side in (("A", a), ("B", b)):
        if whole is None and side.inference_ns is not None:
            yield f"inference of {letter}: {format_duration(side.inference_ns)} without profiler"


def _change(a: float | None, b: float | None) -> str:
    before, after = a or 0.0, b or 0.0
    change = "saved" if before >= after else "lost"
    return f"{format_duration(before)} → {format_duration(after)}, {format_duration(abs(before - after))} {change}"


def _warnings(comparison: LayerComparison) -> Iterator[str]:
    """What a reader must know before the numbers mean anything."""
    a, b = comparison.a, comparison.b
    if a.engine and b.engine:
        if different := differences(_settings(a.engine), _settings(b.engine)):
            yield f"different: {different}"
        if a.engine.batch != b.engine.batch:
            yield "batches differ in size, and times are of whole batches"
    strangers = [letter for letter, side in (("A", a), ("B", b)) if not side.engine]
    if strangers:
        yield f"{', '.join(strangers)}: batch, device and runtime are unknown, and may differ"
    for letter, side in (("A", a), ("B", b)):
        if side.engine and side.engine.outcome != "completed":
            failure = f" ({side.engine.failure})" if side.engine.failure else ""
            yield f"{letter}: {side.engine.outcome}{failure}, what was timed until then is shown"
    if a.mode and b.mode and a.mode != b.mode:
        yield f"A ran as {a.mode} and B as {b.mode}: that may be the difference"


def _settings(engine: ProfiledEngine) -> dict[str, tuple[str]]:
    known = {"device": engine.device, "runtime": engine.runtime, "batch": str(engine.batch), **engine.mode}
    return {key: (value,) for key, value in known.items()}


def _gist(comparison: LayerComparison) -> Iterator[str]:
    """What the tables come to."""
    slower = [row.saved_ns for row in comparison.rows if row.matched_by and row.saved_ns < 0]
    if slower:
        lost = format_duration(-sum(slower))
        yield f"slower in B: {plural(len(slower), 'row')} of what both have, by {lost} in all"
    untyped = _untyped(comparison)
    for kind in comparison.kinds:
        if kind.kind == "reformat" and kind.saved_ns < 0 < comparison.saved_ns and not untyped:
            lost = format_duration(-kind.saved_ns)
            yield (
                f"reformats take {format_duration(kind.a_ns)} in A and {format_duration(kind.b_ns)} in B: {lost} of "
                "what other layers save go there"
            )
    counts = Counter(row.matched_by for row in comparison.rows)
    matched = [f"{format_count(counts[by])} {how}" for by, how in _MATCHED.items() if counts[by]]
    if matched:
        yield f"rows matched: {', '.join(matched)}"
    for letter, side in untyped.items():
        yield (
            f"{letter} has only names of layers, so types and reformats are not compared: "
            + (
                "profile a plan of detailed verbosity in full TensorRT or RTX"
                if side.engine
                else f"`loadtrt compare --layer-info-{letter.lower()} FILE` takes its layer information"
            )
        )


def _untyped(comparison: LayerComparison) -> dict[str, PassTotals]:
    return {letter: side for letter, side in (("A", comparison.a), ("B", comparison.b)) if not side.typed}


def _both(comparison: LayerComparison, top: int | None) -> Iterator[Block]:
    """What both have, by how much it changed: what became slower is among the first where it matters."""
    changed = [row for row in comparison.rows if row.matched_by and (row.a.time_ns or row.b.time_ns)]
    changed.sort(key=lambda row: (-abs(row.saved_ns), -row.a.time_ns))
    shown = changed[:top]
    if not shown:
        return
    rows: list[tuple[Cell, ...]] = [
        (
            format_duration(row.a.time_ns),
            format_duration(row.b.time_ns),
            _saved(row.saved_ns),
            _times(row.speedup),
            _precisions(row),
            _kind(row),
            _named(comparison, row),
        )
        for row in shown
    ]
    header = ("A", "B", "saved", "speed-up", "precision", "type", "layer")
    yield _table(header, rows)
    rest = changed[len(shown) :]
    if rest:
        yield words(f"{plural(len(rest), 'more row')}: {_saved(sum(row.saved_ns for row in rest))} saved")
    if any(_counts(row) for row in shown):
        yield words("(n → m): n layers of A do what m of B do")


def _alone(comparison: LayerComparison, timed: Sequence[tuple[RowSide, LayerRow]], top: int | None) -> Iterator[Block]:
    """What one side has alone, longest first."""
    shown = timed[:top]
    rows: list[tuple[Cell, ...]] = [
        (format_duration(side.time_ns), _words(side), _kind(row), _named(comparison, row)) for side, row in shown
    ]
    yield _table(("time", "precision", "type", "layer"), rows)
    rest = timed[len(shown) :]
    if rest:
        yield words(f"{plural(len(rest), 'more row')}: {format_duration(sum(side.time_ns for side, _ in rest))}")


def _table(header: tuple[str, ...], rows: list[tuple[Cell, ...]]) -> Table:
    """Numbers, then words: precision, type and the layer's name."""
    kept, cells = known_columns(header, rows, ("precision", "type"), ("",))
    return Table(kept, cells, words=0, last=1 + ("precision" in kept) + ("type" in kept))


def _kinds(comparison: LayerComparison) -> Table:
    def row(name: str, layers: tuple[int, int], a_ns: float, b_ns: float, speedup: float | None) -> tuple[str, ...]:
        counts = f"{layers[0]} → {layers[1]}"
        return name, counts, format_duration(a_ns), format_duration(b_ns), _saved(a_ns - b_ns), _times(speedup)

    rows = [
        row(item.kind or "unknown", (item.a_layers, item.b_layers), item.a_ns, item.b_ns, item.speedup)
        for item in comparison.kinds
    ]
    a, b = comparison.a, comparison.b
    rows.append(row("all", (a.layers, b.layers), a.layers_ns, b.layers_ns, comparison.speedup))
    return Table(("type", "layers", "A", "B", "saved", "speed-up"), tuple(rows))


def _named(comparison: LayerComparison, row: LayerRow) -> Named:
    """The row by its longest layer in A, or in B where A has none; a reformat by the layer it serves."""
    before = "≈ " if row.matched_by == "signature" else ""
    named = row
    if row.serves is not None:
        before, named = "for ", comparison.rows[row.serves]
    return Named(_longest(named.a if named.a.layers else named.b).name, before, _counts(row))


def _counts(row: LayerRow) -> str:
    counts = (len(row.a.layers), len(row.b.layers))
    return f" ({counts[0]} → {counts[1]})" if row.matched_by and counts != (1, 1) else ""


def _longest(side: RowSide) -> RowLayer:
    return max(side.layers, key=lambda layer: layer.time_ns)


def _kind(row: LayerRow) -> str:
    """The type of the longest layer; B's where A's is unknown."""
    if row.serves is not None:
        return "reformat"
    kinds = (_longest(side).kind for side in (row.a, row.b) if side.layers)
    return next(filter(None, kinds), "")


def _precisions(row: LayerRow) -> str:
    """ "fp32→fp16", one of them where they are the same, "?" for one that is not known where the other is."""
    words = [_words(row.a), _words(row.b)]
    return "→".join(dict.fromkeys(word or "?" for word in words)) if any(words) else ""


def _words(side: RowSide) -> str:
    """Such as "fp16"; "fp16,?" where another layer's precision is unknown; "" where none is known."""
    known = dict.fromkeys(layer.precision for layer in side.layers if layer.precision)
    unknown = ["?"] if known and not all(layer.type or layer.precision for layer in side.layers) else []
    return ",".join([*known, *unknown])


def _saved(ns: float) -> str:
    """With a true minus, and none before a zero."""
    return f"−{format_duration(-ns)}" if ns <= -0.5 else format_duration(max(ns, 0.0))


def _times(ratio: float | None) -> str:
    return UNKNOWN if ratio is None else f"{format_count(ratio)}×"
