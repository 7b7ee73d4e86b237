"""A cell of the matrix of interference: its rounds, summed up, and whether it has enough of them."""

from __future__ import annotations

from itertools import chain
from statistics import fmean
from typing import TYPE_CHECKING, Any

from loadtrt.results.interference_result import LATENCIES
from loadtrt.stats.paired import narrow, paired_ratio
from loadtrt.stats.summary import fairness

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadtrt.results.engine_info import Verification
    from loadtrt.results.interference_result import Alone, Cell, PairedRatio, Round
    from loadtrt.results.run_result import RunResult

_LEAST_ROUNDS = 3
# What an overloaded model has: it is what a cell may show.
_OF_OVERLOAD = ("overloaded", "unserved")


def finished(cell: Cell, number: int, precision: float) -> bool:
    """Whether the cell has a round of this number, needs none, or can have none."""
    if len(cell.rounds) > number or cell.failure is not None or cell.problems:
        return True
    # One round more than makes the interval narrow: stats/paired.py says why.
    return len(cell.rounds) >= _LEAST_ROUNDS and narrow(_decisive(cell, cell.rounds[:-1]), precision)


def _decisive(cell: Cell, rounds: Sequence[Round]) -> PairedRatio:
    """The ratio that decides whether there are enough rounds: of p99; in a closed loop, of throughput."""
    return _kept(rounds) if cell.rate_per_s is None else _latency("p99", rounds)


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
    steady = models[cell.model].steadiness
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
        "overloaded": cell.overloaded or bool(steady is not None and steady.overloaded),
        "problems": tuple(dict.fromkeys(problems)),
    }
    return cell.model_copy(update=changes)


def _latency(which: str, rounds: Sequence[Round]) -> PairedRatio:
    pairs = [(one.alone.latency_ns[which], one.beside.latency_ns[which]) for one in rounds]
    return paired_ratio(f"latency.{which}", pairs)


def _kept(rounds: Sequence[Round]) -> PairedRatio:
    return paired_ratio("kept", [(one.alone.per_s, one.beside.per_s) for one in rounds])


def _neighbour_kept(rounds: Sequence[Round]) -> PairedRatio | None:
    """Of a closed loop against one alone, of an open loop against what was due."""
    pairs: list[tuple[float | None, float | None]] = []
    for one in rounds:
        if one.neighbour is None:
            return None
        by_itself = one.neighbour_alone
        served = float(one.neighbour.served)
        pairs.append((one.neighbour.due, served) if by_itself is None else (by_itself.per_s, one.neighbour.per_s))
    return paired_ratio("kept", pairs)


def _speedup(cell: Cell, one: Round, alone: Mapping[str, Alone]) -> float:
    both = chain([(cell.model, one.beside)], [(cell.neighbour, one.neighbour)] if one.neighbour is not None else [])
    return sum(measured.per_s / alone[name].closed.per_s for name, measured in both)
