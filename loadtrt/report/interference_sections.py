"""Interference as sections: who slows down whom, what protects and what that costs, and what stressors predict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtrt.asked.ways_to_share import PLAIN, words_of
from loadtrt.report.charts.matrix import Field, heat_matrix
from loadtrt.report.document import Badge, Figure, Name, Notice, Section, Table, Tile, Tiles, section, words
from loadtrt.report.formatting import UNKNOWN, percent_text, rate_or, share_or, time_or
from loadtrt.report.interference_words import (
    cell_words,
    interval_text,
    level_words,
    lost_text,
    lost_texts,
    number_texts,
    pair_words,
    ratio_text,
    times_text,
)
from loadtrt.report.run_verdict import ended, outcome_badge
from loadtrt.report.settings import about, closing, noted
from loadtrt.results.interference_result import CLOSED, IDLE
from loadtrt.units import format_count, format_duration, plural

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadtrt.report.document import Block
    from loadtrt.report.document import Cell as Shown
    from loadtrt.results.interference_result import Cell, InterferenceResult, Round

_NOTHING = 0.005  # of the throughput
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
    yield section("Alone", _alone(result))
    yield section("Latency beside a neighbour", *_matrix(result), bare=True)
    yield section("Throughput beside a neighbour", *_throughput(result), bare=True)
    yield section("Fingerprints", *_fingerprints(result))
    yield section("Predicted from fingerprints", *_predictions(result))
    yield section("Findings", *ended(result), *_problems(result), *_sentences(result), bare=True, conclusion=True)
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
        Tile(f"worst p99 {words_of(cell.share)}", ratio_text(cell.ratio()), pair_words(cell))
        for share in result.shares
        if (cell := _worst([one for one in _open(result) if one.share == share])) is not None
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
        "hatched: INVALID, failed or overloaded",
    )
    header = ("model", "neighbour", "at", "shared", "p99 alone", "beside", "ratio", "95 %", "verified", "rounds", "")
    note = (
        "ratio: p99 beside over alone, geometric mean of the rounds; verified: outputs under load that were compared "
        "with those of a quiet run"
    )
    yield Table(header, tuple(map(_row, cells)), words=4, last=1, note=note, detail=(4, 5, 8, 9))
    unbounded = [ratio.reason for cell in cells if (ratio := cell.ratio()) is not None and ratio.reason]
    if unbounded:
        yield words(f"the ratio of {plural(len(unbounded), 'cell')} is not bounded on both sides: {unbounded[0]}")


def _row(cell: Cell) -> tuple[Shown, ...]:
    ratio = cell.ratio()
    measured = [_p99(cell.rounds, "alone"), _p99(cell.rounds, "beside")]
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
        str(len(cell.rounds)),
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
    note = (
        "costs: throughput that the neighbour loses, against the same load alone; speed-up: throughput of both over "
        "their closed loops alone, summed; loses: as costs, of the model itself; Jain: index of what both kept"
    )
    named = (1,) if len(result.config.models) == 2 else ()  # the neighbour is the other one
    numbers = [text for name in ("costs", "speed-up", "loses", "Jain") for text in (name, "95 %")]
    header = ("model", "neighbour", "at", "shared", *numbers)
    yield Table(header, rows, words=4, note=note, detail=(*named, 8, 9, 10, 11))


def _level(level: str, rate: float | None) -> str:
    if level == IDLE:
        return "idle"
    text = level.replace("%", " %")
    return text if rate is None else f"{text} ({rate_or(rate)})"


def _p99(rounds: Sequence[Round], side: str) -> str:
    known = [time for one in rounds if (time := getattr(one, side).latency_ns.get("p99")) is not None]
    return format_duration(sum(known) / len(known)) if known else UNKNOWN


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


def _open(result: InterferenceResult) -> list[Cell]:
    """The cells that were measured whole, beside a neighbour at a rate: those that a service has."""
    good = [cell for cell in result.matrix if cell.valid and cell.ratio() is not None and cell.neighbour_level != IDLE]
    return [cell for cell in good if cell.neighbour_level != CLOSED] or good


def _worst(cells: Sequence[Cell]) -> Cell | None:
    """The one whose p99 rises most; of those that are overloaded without end any."""
    return max(cells, key=lambda cell: (cell.overloaded, _ratio(cell)), default=None)


def _ratio(cell: Cell) -> float:
    ratio = cell.ratio()
    return 0.0 if ratio is None else ratio.ratio or 0.0


def headline(result: InterferenceResult) -> str | None:
    """The worst pair in a sentence: how much p99 rises on plain streams, and with the way that protects best."""
    cells = _open(result)
    first = PLAIN if any(cell.share == PLAIN for cell in cells) else next((cell.share for cell in cells), PLAIN)
    plain = [cell for cell in cells if cell.share == first]
    worst = _worst([cell for cell in plain if _risen(cell)])
    if worst is None:
        most = _worst(plain)
        return None if most is None else f"no p99 rises: the most is {ratio_text(most.ratio())}, {cell_words(most)}"
    text = f"beside {worst.neighbour} {level_words(worst.neighbour_level)}, {worst.model}'s p99 {_rises(worst)}"
    same = (worst.model, worst.neighbour, worst.neighbour_level)
    others = [
        cell for cell in cells if cell.share != first and (cell.model, cell.neighbour, cell.neighbour_level) == same
    ]
    best = min(others, key=lambda cell: (cell.overloaded, _ratio(cell)), default=None)
    if best is None:
        return f"{text} {words_of(first)}"
    return f"{text} {words_of(first)} and {_rises(best, again=True)} {words_of(best.share)}, {_costs(best, worst)}"


def _risen(cell: Cell) -> bool:
    """Whether p99 rises, as far as its interval tells."""
    ratio = cell.ratio()
    least = None if ratio is None else ratio.low or ratio.ratio
    return cell.overloaded or (least or 0.0) > 1


def _rises(cell: Cell, *, again: bool = False) -> str:
    if cell.overloaded:
        return "grows without end"
    return f"{'' if again else 'rises '}{ratio_text(cell.ratio())}"


def _costs(cell: Cell, plain: Cell) -> str:
    """What the neighbour loses. plain: the cell of the same pair and load without protection."""
    what, before = lost_text(cell.neighbour_kept), lost_text(plain.neighbour_kept)
    what = what if _loses(cell) else "nothing"
    beside = f" (it loses {before} {words_of(plain.share)})" if _loses(plain) else ""
    return f"which costs {cell.neighbour} {what}{beside}"


def _loses(cell: Cell) -> bool:
    """Whether the neighbour loses throughput, as far as the interval tells."""
    kept = cell.neighbour_kept
    return kept is not None and kept.ratio is not None and 1 - kept.ratio >= _NOTHING and (kept.high or 0.0) < 1


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
    if not result.fingerprints:
        return
    stressors = list(result.stressors)
    rows: list[tuple[Shown, ...]] = []
    for name, print_ in result.fingerprints.items():
        rows.append((Name(name), "p99 beside", *(ratio_text(print_.slowdowns.get(one)) for one in stressors)))
        for level, lost in print_.pressures.items():
            shares = (share_or(lost[one].ratio if one in lost else None) for one in stressors)
            rows.append((Name(name), f"takes {level_words(level)}", *shares))
    note = (
        f"p99 beside: over p99 alone, the stressor at {100 * result.stress:g} % of its closed loop; takes: what the "
        "stressor's closed loop loses beside the model"
    )
    yield Table(("", "", *stressors), tuple(rows), words=2, note=note)


def _predictions(result: InterferenceResult) -> Iterator[Block]:
    rows: list[tuple[Shown, ...]] = []
    for item in result.predictions:
        known = item.ratio is not None and item.measured is not None
        error = percent_text(abs(item.ratio / item.measured - 1)) if known and item.ratio and item.measured else UNKNOWN
        rows.append(
            (
                Name(item.model),
                Name(item.neighbour),
                level_words(item.neighbour_level),
                "overloaded" if item.ratio is None else times_text(item.ratio),
                UNKNOWN if item.measured is None else times_text(item.measured),
                error,
            )
        )
    if rows:
        header = ("model", "neighbour", "", "predicted p99", "measured", "error")
        yield Table(header, tuple(rows), words=3, note="of p99 beside over alone, on plain streams")


def _listed(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else f"{last} and stressors"
