"""What a file of a measurement of interference may lack after someone edited it, and its readers need."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from loadtrt.asked.ways_to_share import PLAIN
from loadtrt.results.interference_result import CLOSED, IDLE, LATENCIES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadtrt.results.interference_result import Cell, InterferenceResult, Round


def faults_of(result: InterferenceResult) -> Iterator[str]:
    """What is missing or contradicts itself, each with its place in the file."""
    models, known = result.config.models, {*result.config.models, *result.stressors}
    yield from (f"alone.{name}: there is no such model" for name in result.alone if name not in known)
    places = Counter(
        (cell.share, cell.model, cell.neighbour, cell.level, cell.neighbour_level) for cell in result.cells
    )
    yield from (f"cells: that of {', '.join(place)} is there twice" for place, count in places.items() if count > 1)
    for number, cell in enumerate(result.cells):
        yield from (f"cells.{number}.{fault}" for fault in _faults_of_cell(cell, known, set(result.alone)))
    for name, found in result.fingerprints.items():
        if name not in models:
            yield f"fingerprints.{name}: there is no such model"
        for numbers in (found.slowdowns, *found.pressures.values()):
            if numbers.keys() != result.stressors.keys():
                yield f"fingerprints.{name}: its stressors are not those of the file"
    plain = {(cell.model, cell.neighbour, cell.neighbour_level) for cell in result.matrix if cell.share == PLAIN}
    for number, item in enumerate(result.predictions):
        if (item.model, item.neighbour, item.neighbour_level) not in plain:
            yield f"predictions.{number}: there is no such cell on plain streams"


def _faults_of_cell(cell: Cell, known: set[str], alone: set[str]) -> Iterator[str]:
    for key, name in (("model", cell.model), ("neighbour", cell.neighbour)):
        if name not in known:
            yield f"{key}: there is no model {name}"
        elif cell.rounds and name not in alone:
            yield f"{key}: {name} was not measured alone"
    if cell.model == cell.neighbour:
        yield f"neighbour: {cell.model} is not its own neighbour"
    if not cell.rounds and cell.failure is None:
        yield "rounds: they are missing"
    if cell.rounds and {ratio.name for ratio in cell.ratios} != {f"latency.{which}" for which in LATENCIES}:
        yield f"ratios: they are not those of {', '.join(LATENCIES)}"
    for number, one in enumerate(cell.rounds):
        yield from (f"rounds.{number}.{fault}" for fault in _faults_of_round(cell, one))


def _faults_of_round(cell: Cell, one: Round) -> Iterator[str]:
    wanted = {"neighbour": cell.neighbour_level != IDLE, "neighbour_alone": cell.neighbour_level == CLOSED}
    for key in ("alone", "beside", *wanted):
        measured = getattr(one, key)
        if (measured is not None) != wanted.get(key, True):
            yield f"{key}: it is {'missing' if measured is None else 'not of this level'}"
        if measured is not None and (missing := set(LATENCIES) - measured.latency_ns.keys()):
            yield f"{key}.latency_ns: {min(missing)} is missing"
