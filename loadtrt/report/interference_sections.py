"""Interference as sections: who slows down whom, what protects and what that costs, and what stressors predict."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from loadtrt.asked.ways_to_share import PLAIN, words_of
from loadtrt.report.charts.matrix import Field, heat_matrix
from loadtrt.report.document import Badge, Figure, Name, Notice, Section, Table, Tile, Tiles, section, words
from loadtrt.report.formatting import UNKNOWN, between, percent_text, rate_or, time_or
from loadtrt.report.interference_words import (
    cell_words,
    few_words,
    headline,
    interval_text,
    least_length,
    level_words,
    longer_words,
    lost_texts,
    number_texts,
    open_cells,
    p99_text,
    pair_words,
    ratio_text,
    times_text,
    with_interval,
    worst_of,
)
from loadtrt.report.run_verdict import ended, outcome_badge
from loadtrt.report.settings import about, closing, noted
from loadtrt.results.interference_result import CLOSED, IDLE, PairedRatio
from loadtrt.units import SECOND_NS, format_count, format_duration, plural

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadtrt.report.document import Block
    from loadtrt.report.document import Cell as Shown
    from loadtrt.results.interference_result import Cell, InterferenceResult, Round

_MOST_REASONS = 8


def interference(result: InterferenceResult, file: str, key: str) -> Iterator[Section]:
    """A matrix, its conclusion last in plain text. file, key: as in `sections_of`."""
    models = list(result.config.models)
    badges = [] if result.outcome == "completed" else [outcome_badge(result.outcome)]
    invalid = sum(bool(cell.problems) for cell in result.cells)
    badges += [Badge(f"{plural(invalid, 'cell')} INVALID", "bad")] if invalid else []
    yield Section(
        (f"Interference between {_listed(models)}",), tuple(_head(result, file)), level=1, badges=tuple(badges)
    )
    yield section("Findings", *ended(result), *_problems(result), *_sentences(result), bare=True, conclusion=True)
    yield section("Alone", _alone(result))
    yield section("Latency beside a neighbour", *_matrix(result), bare=True)
    yield section("Throughput beside a neighbour", *_throughput(result), bare=True)
    yield section("Fingerprints", *_fingerprints(result))
    yield section("Predicted from fingerprints", *_predictions(result))
    configurations = {
        (f"configuration of {name}" if len(models) > 1 else "configuration"): result.config.alone(name).options()
        for name in models
    }
    yield closing(result, file, key, **configurations, environment=result.environment)


def _head(result: InterferenceResult, file: str) -> Iterator[Block]:
    ways = ", ".join(words_of(share) for share in result.shares)
    levels = ", ".join(level_words(level) for level in result.levels)
    rounds = plural(result.most_rounds, "round")
    yield words(f"neighbours {levels} · {ways} · up to {rounds}, {result.arrivals} arrivals")
    yield words(
        "Arrival rates are fixed once, from the closed loops alone, and are the same in every cell and way to share.",
        only="page",
    )
    yield about(result, file)
    yield from noted(alone.engine for alone in result.alone.values())
    tiles = [
        Tile(f"worst p99 {words_of(cell.share)}", p99_text(cell), pair_words(cell))
        for share in result.shares
        if (cell := worst_of([one for one in open_cells(result) if one.share == share])) is not None
    ]
    yield Tiles(tuple(tiles))


def _alone(result: InterferenceResult) -> Table:
    rows: list[tuple[Shown, ...]] = [
        (
            Name(name),
            f"{alone.engine.name} on {alone.engine.device}",
            rate_or(alone.closed.per_s),
            time_or(alone.closed.latency_ns.get("p50")),
            f"judged under {alone.load}" if alone.load else "",
        )
        for name, alone in result.alone.items()
    ]
    note = "the closed loop fixes the rates of all cells: a level of N % is N % of its throughput"
    return Table(("", "engine", "closed loop", "p50 there", ""), tuple(rows), words=2, last=1, note=note)


def _matrix(result: InterferenceResult) -> Iterator[Block]:
    cells = result.matrix
    if not cells:
        return
    yield Figure(
        "p99 beside a neighbour over p99 alone",
        _heat_map(result),
        "rows: the model that is judged, and the way to share; columns: its neighbour and the neighbour's load; "
        "hatched: INVALID, failed, overloaded or not known",
    )
    header = ("model", "neighbour", "at", "shared", "p99 alone", "beside", "ratio", "95 %", "verified", "rounds", "")
    legend = (
        ("ratio", "p99 beside over alone, geometric mean of the rounds"),
        ("verified", "outputs under load that were compared with those of a quiet run"),
    )
    levels = {cell.neighbour_level for cell in cells} - {IDLE}
    notes = {
        "sms=A+B: A for the model, B for its neighbour": any("+" in cell.share for cell in cells),
        "the worst p99 is that beside neighbours at a rate, not in a closed loop": levels > {CLOSED},
    }
    note = "; ".join(words for words, needed in notes.items() if needed)
    detail = (4, 5, 8, 9)
    yield Table(header, tuple(map(_row, cells)), words=4, last=1, note=note, detail=detail, legend=legend)
    for what, reasons in _not_known(result).items():
        if reasons:
            yield words(f"the ratio of {plural(len(reasons), 'cell')} is not {what}: {reasons[0]}")


def _not_known(result: InterferenceResult) -> dict[str, list[str]]:
    """Why ratios of p99 are not known, or have no interval, that of the cell first that takes the longest run. Of what
    is overloaded a longer run knows no more."""
    reasons: dict[str, list[tuple[float, str]]] = {"known": [], "bounded on both sides": []}
    for cell in result.matrix:
        found = next((one for one in cell.ratios if one.name == "latency.p99"), None)
        if found is None or not found.reason or not cell.valid or cell.overloaded:
            continue
        length_ns = result.length_ns(cell)
        if found.ratio is None:
            few = few_words(cell.rate_per_s, length_ns)
            reasons["known"].append((least_length(cell.rate_per_s or math.inf), few or found.reason))
        else:
            takes_ns = (found.longer or 0.0) * length_ns
            remedy = f": {longer_words(takes_ns)}" if takes_ns > length_ns and len(cell.rounds) > 1 else ""
            reasons["bounded on both sides"].append((takes_ns, found.reason + remedy))
    return {what: [text for _, text in sorted(found, reverse=True)] for what, found in reasons.items()}


def _row(cell: Cell) -> tuple[Shown, ...]:
    ratio = cell.ratio()
    measured = [time_or(_p99(cell.rounds, side) or None) for side in ("alone", "beside")]
    checked = sum(item.outputs for item in cell.verified.values())
    remarks = ["failed"] if cell.failure else []
    remarks += ["INVALID"] if cell.problems else []
    remarks += ["overloaded"] if cell.overloaded else []
    return (
        Name(cell.model),
        Name(cell.neighbour),
        _level(cell.neighbour_level, cell.neighbour_rate_per_s),
        cell.share,
        *measured,
        UNKNOWN if ratio is None else times_text(ratio.ratio or 0.0),
        interval_text(ratio),
        format_count(checked) if checked else UNKNOWN,
        f"{len(cell.rounds)} of {format_duration(cell.length_ns)}" if cell.length_ns else str(len(cell.rounds)),
        ", ".join(remarks),
    )


def _throughput(result: InterferenceResult) -> Iterator[Block]:
    """What sharing costs, of cells whose neighbour has a load."""
    cells = [cell for cell in result.matrix if cell.rounds and cell.neighbour_level != IDLE]
    if not cells:
        return
    rows = tuple(
        (
            Name(cell.model),
            Name(cell.neighbour),
            _level(cell.neighbour_level, None),
            cell.share,
            *lost_texts(cell.neighbour_kept),
            *number_texts(cell.weighted_speedup),
            *lost_texts(cell.kept),
            *number_texts(cell.jain),
        )
        for cell in cells
    )
    legend = (
        ("costs", "throughput that the neighbour loses, against the same load alone"),
        ("speed-up", "throughput of both over their closed loops alone, summed"),
        ("loses", "as costs, of the model itself"),
        ("Jain", "index of what both kept"),
    )
    named = (1,) if len(result.config.models) == 2 else ()  # the neighbour is the other one
    numbers = [text for name, _ in legend for text in (name, "95 %")]
    header = ("model", "neighbour", "at", "shared", *numbers)
    yield Table(header, rows, words=4, detail=(*named, 8, 9, 10, 11), legend=legend)


def _level(level: str, rate: float | None) -> str:
    if level == IDLE:
        return "idle"
    text = level.replace("%", " %")
    return text if rate is None else f"{text} ({rate_or(rate)})"


def _p99(rounds: Sequence[Round], side: str) -> float:
    """Its mean over the rounds that have one, ns; 0 where none has."""
    known = [time for one in rounds if (time := getattr(one, side).latency_ns.get("p99")) is not None]
    return sum(known) / len(known) if known else 0.0


def _heat_map(result: InterferenceResult) -> str:
    cells = sorted(result.matrix, key=lambda cell: cell.model)
    rows = list(dict.fromkeys((cell.model, cell.share) for cell in cells))
    by_neighbour = sorted(cells, key=lambda cell: cell.neighbour)
    columns = list(dict.fromkeys((cell.neighbour, cell.neighbour_level) for cell in by_neighbour))
    fields = {}
    for cell in cells:
        ratio = cell.ratio() if cell.valid and not cell.overloaded else None
        text = times_text(ratio.ratio or 0.0) if ratio is not None else ""
        place = rows.index((cell.model, cell.share)), columns.index((cell.neighbour, cell.neighbour_level))
        fields[place] = Field(None if ratio is None else ratio.ratio, text, cell_words(cell, outcome=True))
    names = [f"{model}, {share}" if len(result.shares) > 1 else model for model, share in rows]
    heads = [(f"beside {model}", "idle" if level == IDLE else level) for model, level in columns]
    return heat_matrix("Matrix of interference", f"{plural(len(fields), 'cell')}.", names, heads, fields)


def _sentences(result: InterferenceResult) -> Iterator[Block]:
    """The headline, and what the matrix shows beside."""
    text = headline(result)
    if text is not None:
        yield Notice("plain", f"{text[0].upper()}{text[1:]}.")
    if result.prediction_error is not None:
        compared = sum(item.measured is not None and item.ratio is not None for item in result.predictions)
        yield words(
            f"fingerprints predict p99 in {plural(compared, 'cell')} of plain streams with a median error of "
            f"{percent_text(result.prediction_error)}"
        )
    wrong = [item.model for item in result.predictions if item.measured is not None and item.ratio is None]
    if wrong:
        text = f"in {plural(len(wrong), 'cell')} they predict an overload, and there was none"
        yield words("; ".join((text, *_waits(result, wrong))))


def _waits(result: InterferenceResult, models: Sequence[str]) -> Iterator[str]:
    """Why: models whose p99 alone is shorter than one launch of a stressor suffer the wait for it, at any load."""
    for name in dict.fromkeys(models):
        alone = _p99([one for cell in result.matrix if cell.model == name for one in cell.rounds], "alone")
        known = {one: result.alone[one].closed.per_s for one in result.stressors if one in result.alone}
        long = [one for one, per_s in known.items() if alone and per_s * alone < SECOND_NS]
        if long:
            launches = f"a launch of {', '.join(long)}, for which it may wait at any load"
            yield f"p99 of {name} alone, {format_duration(alone)}, is shorter than {launches}: try a shorter time="


def _problems(result: InterferenceResult) -> Iterator[Notice]:
    for name, alone in result.alone.items():
        for problem in alone.problems:
            yield Notice("bad", f"{name} alone, which fixes its rates: {problem}")
    reasons: dict[str, list[Cell]] = {}
    for cell in result.cells:
        if cell.failure is not None:
            reasons.setdefault(cell.failure, []).append(cell)
        elif cell.problems:
            more = f", and {plural(len(cell.problems) - 1, 'problem')} more" if len(cell.problems) > 1 else ""
            reasons.setdefault(f"INVALID, {cell.problems[0]}{more}", []).append(cell)
    for reason, cells in list(reasons.items())[:_MOST_REASONS]:
        more = f" and {plural(len(cells) - 1, 'cell')} more" if len(cells) > 1 else ""
        yield Notice("bad", f"{cell_words(cells[0])}{more}: {reason}")
    left = sum(len(cells) for cells in list(reasons.values())[_MOST_REASONS:])
    if left:
        yield Notice("bad", f"{plural(left, 'cell')} more failed or are INVALID: the file has the reasons")


def _fingerprints(result: InterferenceResult) -> Iterator[Block]:
    stressors = list(result.stressors)
    rows: list[tuple[Shown, ...]] = []
    for name, print_ in result.fingerprints.items():
        rows.append((Name(name), "p99 beside", *(ratio_text(print_.slowdowns.get(one)) for one in stressors)))
        for level, lost in print_.pressures.items():
            rows.append((Name(name), f"takes {level_words(level)}", *(_share(lost.get(one)) for one in stressors)))
    note = (
        f"p99 beside: over p99 alone, the stressor at {100 * result.stress:g} % of its closed loop; takes: what the "
        "stressor's closed loop loses beside the model"
    )
    if rows:
        yield Table(("", "", *stressors), tuple(rows), words=2, note=note)
    for name in [name for name in result.config.models if name not in result.fingerprints]:
        cells = (cell for cell in result.cells if cell.model == name and cell.neighbour in stressors)
        if (cell := next((cell for cell in cells if not cell.valid or cell.ratio() is None), None)) is not None:
            reason = cell.failure or (cell.problems and f"INVALID, {cell.problems[0]}")
            reason = reason or few_words(cell.rate_per_s, result.length_ns(cell)) or "its p99 is not known"
            yield words(Name(name), f" has no fingerprint: {pair_words(cell)}, {reason}")


def _share(lost: PairedRatio | None) -> str:
    if lost is None or lost.ratio is None:
        return UNKNOWN
    return with_interval(percent_text(lost.ratio), between(lost.low, lost.high, percent_text))


def _predictions(result: InterferenceResult) -> Iterator[Block]:
    rows: list[tuple[Shown, ...]] = []
    plain = {(cell.model, cell.neighbour, cell.neighbour_level): cell for cell in result.matrix if cell.share == PLAIN}
    for item in result.predictions:
        overloaded = plain[item.model, item.neighbour, item.neighbour_level].overloaded
        known = item.ratio is not None and item.measured is not None
        error = percent_text(abs(item.ratio / item.measured - 1)) if known and item.ratio and item.measured else UNKNOWN
        rows.append(
            (
                Name(item.model),
                Name(item.neighbour),
                level_words(item.neighbour_level),
                *_predicted(item.ratio, item.low, item.high, "overloaded"),
                *_predicted(
                    item.measured, item.measured_low, item.measured_high, "overloaded" if overloaded else UNKNOWN
                ),
                error,
            )
        )
    if rows:
        header = ("model", "neighbour", "", "predicted p99", "95 %", "measured", "95 %", "error")
        yield Table(header, tuple(rows), words=3, note="of p99 beside over alone, on plain streams")


def _predicted(ratio: float | None, low: float | None, high: float | None, unknown: str) -> tuple[str, str]:
    found = PairedRatio(name="latency.p99", ratio=ratio, low=low, high=high)
    return (unknown, UNKNOWN) if ratio is None else (times_text(ratio), interval_text(found))


def _listed(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else f"{last} and stressors"
