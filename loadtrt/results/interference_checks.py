"""What fits together in a whole measurement of interference: a file that someone edited may not. A wrong one would be
placed by, or continued, with rates that its rounds do not have."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from loadtrt.asked.ways_to_share import PLAIN, parse_shares
from loadtrt.errors import UsageError
from loadtrt.results.interference_result import CLOSED, IDLE, LATENCIES, OWN
from loadtrt.units import parse_share

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadtrt.results.interference_result import Cell, Fingerprint, InterferenceResult, PairedRatio, Round

_DIGITS = 1e-4  # rates are kept with six digits


def faults_of(result: InterferenceResult) -> Iterator[str]:
    """What does not fit, with its place."""
    known = {*result.config.models, *result.stressors}
    if both := result.config.models.keys() & result.stressors.keys():
        yield f"stressors: {min(both)} is a model, too"
    if result.stressors and not 0 < result.stress <= 1:
        yield f"stress: {result.stress:g} is not above 0 and up to 1"
    if result.most_rounds < 1:
        yield f"most_rounds: {result.most_rounds} is below 1, the least"
    if not 0 < result.precision <= 1:
        yield f"precision: {result.precision:g} is not above 0 and up to 1"
    for place, text in enumerate(result.shares):
        if not _is_way(text):
            yield f"shares.{place}: '{text}' is not a way to share"
    for key, levels in (("load", (result.load,)), ("levels", result.levels)):
        for level in levels:
            if _share_of(level) is None and (key == "load" or level not in (CLOSED, IDLE)):
                yield f"{key}: '{level}' is not a level, such as 50%"
    for name, alone in result.alone.items():
        if name not in known:
            yield f"alone.{name}: there is no such model"
            return
        if not alone.closed.per_s:
            yield f"alone.{name}.closed.per_s: a closed loop that served nothing fixes no rate"
        if name not in result.stressors and result.config.models[name].load.closed:
            wanted = (_share_of(result.load) or 0.0) * alone.closed.per_s
            yield from _other_rate(f"alone.{name}.rate_per_s", alone.rate_per_s, wanted, result.load)
    places = Counter(
        (cell.share, cell.model, cell.neighbour, cell.level, cell.neighbour_level) for cell in result.cells
    )
    if twice := next((place for place, count in places.items() if count > 1), None):
        yield f"cells: that of {', '.join(twice)} is there twice"
    for number, cell in enumerate(result.cells):
        yield from (f"cells.{number}.{fault}" for fault in _faults_of_cell(result, cell))
    for name, found in result.fingerprints.items():
        yield from (f"fingerprints.{name}{fault}" for fault in _faults_of_fingerprint(result, name, found))
    plain = {(cell.model, cell.neighbour, cell.neighbour_level) for cell in result.matrix if cell.share == PLAIN}
    for number, item in enumerate(result.predictions):
        if (item.model, item.neighbour, item.neighbour_level) not in plain:
            yield f"predictions.{number}: there is no such cell on plain streams"


def _faults_of_cell(result: InterferenceResult, cell: Cell) -> Iterator[str]:
    for key in ("model", "neighbour"):
        if (name := getattr(cell, key)) not in result.config.models and name not in result.stressors:
            yield f"{key}: there is no model {name}"
        elif cell.rounds and name not in result.alone:
            yield f"{key}: {name} was not measured alone, which fixes its rates"
    if cell.model == cell.neighbour:
        yield f"neighbour: {cell.model} is not its own neighbour"
    if cell.share not in (*result.shares, PLAIN):
        yield f"share: '{cell.share}' is not in shares"
    for key, special in (("level", (CLOSED, OWN)), ("neighbour_level", (CLOSED, IDLE))):
        if (level := getattr(cell, key)) not in special and _share_of(level) is None:
            yield f"{key}: '{level}' is not a level: 50%, {' or '.join(special)}"
            return
    for number, one in enumerate(cell.rounds):
        yield from (f"rounds.{number}.{fault}" for fault in _faults_of_round(cell, one))
    names = Counter(ratio.name for ratio in cell.ratios)
    if not cell.rounds and (cell.ratios or cell.failure is None):
        yield "rounds: they are missing"
    if cell.rounds and names != Counter(f"latency.{which}" for which in LATENCIES):
        yield f"ratios: they are {', '.join(names) or 'missing'}, and not those of {', '.join(LATENCIES)}"
    singles = {
        **{f"ratios.{number}": ratio for number, ratio in enumerate(cell.ratios)},
        **{key: getattr(cell, key) for key in ("kept", "neighbour_kept", "weighted_speedup", "jain")},
    }
    yield from (f"{key}.{fault}" for key, ratio in singles.items() for fault in _faults_of_ratio(ratio))
    if cell.rounds:
        yield from _faults_of_rates(result, cell)


def _faults_of_round(cell: Cell, one: Round) -> Iterator[str]:
    wanted = {"neighbour": cell.neighbour_level != IDLE, "neighbour_alone": cell.neighbour_level == CLOSED}
    for key in ("alone", "beside", *wanted):
        measured = getattr(one, key)
        if (measured is not None) != wanted.get(key, True):
            yield f"{key}: it is {'missing' if measured is None else 'not of this level'}"
        missing = [] if measured is None else [which for which in LATENCIES if which not in measured.latency_ns]
        if missing:
            yield f"{key}.latency_ns: {missing[0]} is missing"


def _faults_of_rates(result: InterferenceResult, cell: Cell) -> Iterator[str]:
    for key, name, level in (
        ("rate_per_s", cell.model, cell.level),
        ("neighbour_rate_per_s", cell.neighbour, cell.neighbour_level),
    ):
        rate, share, alone = getattr(cell, key), _share_of(level), result.alone.get(name)
        if level in (CLOSED, IDLE):
            if rate is not None:
                yield f"{key}: a level of {level} has no rate"
        elif alone is not None:
            wanted = alone.rate_per_s if share is None else share * alone.closed.per_s
            yield from _other_rate(key, rate, wanted, level)


def _other_rate(key: str, rate: float | None, wanted: float | None, level: str) -> Iterator[str]:
    if rate is None or wanted is None or abs(rate - wanted) > _DIGITS * wanted:
        at = "the model's own load" if level == OWN else f"{level} of the closed loop"
        yield f"{key}: {_number(rate)} is not {_number(wanted)}, the rate at {at}"


def _faults_of_ratio(ratio: PairedRatio | None) -> Iterator[str]:
    if ratio is None:
        return
    middle = ratio.ratio
    for key, end, sign in (("low", ratio.low, 1), ("high", ratio.high, -1)):
        if end is not None and (middle is None or sign * (end - middle) > _DIGITS * middle):
            yield f"{key}: {end:g} is on the wrong side of the ratio, {_number(middle)}"


def _faults_of_fingerprint(result: InterferenceResult, name: str, found: Fingerprint) -> Iterator[str]:
    if name not in result.config.models:
        yield ": there is no such model"
    places = {".slowdowns": found.slowdowns, **{f".pressures.{level}": lost for level, lost in found.pressures.items()}}
    for where, ratios in places.items():
        if ratios.keys() != result.stressors.keys():
            yield f"{where}: it is of {', '.join(ratios) or 'nothing'}, and stressors are {', '.join(result.stressors)}"
        yield from (f"{where}.{one}.{fault}" for one, ratio in ratios.items() for fault in _faults_of_ratio(ratio))


def _is_way(text: str) -> bool:
    try:
        (way,) = parse_shares(text)
    except (UsageError, ValueError):
        return False
    return way.text == text


def _share_of(level: str) -> float | None:
    try:
        return parse_share(level) if level != IDLE else None
    except UsageError:
        return None


def _number(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.6g}"
