"""The cells of the matrix of interference: which there are, their rounds summed up, and when there are enough."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, permutations
from statistics import fmean
from typing import TYPE_CHECKING, Any

from loadtrt.asked.ways_to_share import PLAIN
from loadtrt.results.interference_result import CLOSED, IDLE, LATENCIES, Cell
from loadtrt.stats.paired import Pair, enough, paired_ratio
from loadtrt.stats.summary import fairness

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadtrt.asked.config import RunConfig
    from loadtrt.asked.model import Model
    from loadtrt.asked.ways_to_share import Way
    from loadtrt.results.engine_info import Verification
    from loadtrt.results.interference_result import Alone, PairedRatio, Round
    from loadtrt.results.run_result import RunResult

STRESS = 0.3  # of the throughput of a stressor's closed loop
OWN = "own"  # a model under a load of its own
# What an overloaded model has: it is what a cell may show.
_OF_OVERLOAD = ("overloaded", "unserved")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to measure.

    config: the configuration that all runs share, with all models.
    ways: to share.
    levels: of neighbours: IDLE, "50%", CLOSED.
    load: of the model that is judged and has no load of its own.
    arrivals: word of an arrival process without parameters.
    rounds: of a cell, at most.
    precision: of p99's ratio, at which a cell has enough rounds.
    stressors: models, by name.
    """

    config: RunConfig
    ways: tuple[Way, ...]
    levels: tuple[str, ...]
    load: str
    arrivals: str
    rounds: int
    precision: float
    stressors: Mapping[str, Model]

    def groups(self) -> list[list[Cell]]:
        """The cells, those of one pair and way together. The matrix comes first, then the stressors' cells."""
        groups = [
            [self._cell(way.text, model, neighbour, self.level(model), level) for level in self.levels]
            for way in self.ways
            for model, neighbour in permutations(self.config.models, 2)
        ]
        stress, loaded = f"{100 * STRESS:g}%", [level for level in self.levels if level != IDLE]
        for model in self.config.models:
            for stressor in self.stressors:
                groups.append([self._cell(PLAIN, model, stressor, self.level(model), stress)])
                groups.append([self._cell(PLAIN, stressor, model, CLOSED, level) for level in loaded])
        return groups

    def level(self, model: str) -> str:
        """The load under which a model is judged."""
        return self.load if self.config.models[model].load.closed else OWN

    @staticmethod
    def _cell(share: str, model: str, neighbour: str, level: str, neighbour_level: str) -> Cell:
        return Cell(share=share, model=model, neighbour=neighbour, level=level, neighbour_level=neighbour_level)


def finished(cell: Cell, number: int, precision: float) -> bool:
    """Whether the cell has a round of this number, needs none, or can have none. A ratio decides: of p99; in a closed
    loop, of throughput."""
    if len(cell.rounds) > number or cell.failure is not None or cell.problems:
        return True
    if cell.rate_per_s is None:
        return enough("kept", _rates(cell.rounds), precision)
    return enough("latency.p99", _times("p99", cell.rounds), precision)


def summed_up(
    cell: Cell,
    round_: Round,
    runs: Mapping[str, RunResult],
    verified: Mapping[str, Verification],
    alone: Mapping[str, Alone],
) -> Cell:
    """The cell with one round more.

    runs: of the round: "alone", "beside" and perhaps "neighbour_alone".
    verified: outputs of both beside each other, compared.
    alone: closed loops of all models.
    """
    rounds, models = (*cell.rounds, round_), runs["beside"].models
    problems = list(cell.problems)
    for kind, run in runs.items():
        for name, model in run.models.items():
            found = [problem.evidence for problem in model.problems if problem.kind not in _OF_OVERLOAD]
            problems += [f"{name}{'' if kind == 'beside' else ' alone'}: {text}" for text in found]
    for name, checked in verified.items():
        if checked.different:
            problems.append(f"{name}: {checked.different} of {checked.outputs} outputs differ from a quiet run's")
    overloaded = {name for name, model in models.items() if model.steadiness and model.steadiness.overloaded}
    kept, neighbour = _kept(rounds), _neighbour_kept(rounds)
    changes: dict[str, Any] = {
        "rounds": rounds,
        "ratios": tuple(_latency(which, rounds) for which in LATENCIES),
        "kept": kept,
        "neighbour_kept": neighbour,
        "weighted_speedup": fmean(_speedup(cell, one, alone) for one in rounds),
        "jain": None if neighbour is None else fairness([kept.ratio or 0.0, neighbour.ratio or 0.0]),
        "modes": {name: dict(model.engine.mode) for name, model in models.items()},
        "verified": dict(verified),
        "overloaded": cell.overloaded or cell.model in overloaded,
        "neighbour_overloaded": cell.neighbour_overloaded or cell.neighbour in overloaded,
        "problems": tuple(dict.fromkeys(problems)),
    }
    return cell.model_copy(update=changes)


def _times(which: str, rounds: Sequence[Round]) -> list[Pair]:
    return [
        Pair(
            one.alone.latency_ns[which],
            one.beside.latency_ns[which],
            (one.alone.effective.get(which, 0.0), one.beside.effective.get(which, 0.0)),
        )
        for one in rounds
    ]


def _rates(rounds: Sequence[Round]) -> list[Pair]:
    return [Pair(one.alone.per_s, one.beside.per_s) for one in rounds]


def _latency(which: str, rounds: Sequence[Round]) -> PairedRatio:
    return paired_ratio(f"latency.{which}", _times(which, rounds))


def _kept(rounds: Sequence[Round]) -> PairedRatio:
    return paired_ratio("kept", _rates(rounds))


def _neighbour_kept(rounds: Sequence[Round]) -> PairedRatio | None:
    """Of a closed loop against one alone, of an open loop against what was due."""
    pairs: list[Pair] = []
    for one in rounds:
        if one.neighbour is None:
            return None
        by_itself = one.neighbour_alone
        served = float(one.neighbour.served)
        pairs.append(
            Pair(one.neighbour.due, served) if by_itself is None else Pair(by_itself.per_s, one.neighbour.per_s)
        )
    return paired_ratio("kept", pairs)


def _speedup(cell: Cell, one: Round, alone: Mapping[str, Alone]) -> float:
    both = chain([(cell.model, one.beside)], [(cell.neighbour, one.neighbour)] if one.neighbour is not None else [])
    return sum(measured.per_s / alone[name].closed.per_s for name, measured in both)
