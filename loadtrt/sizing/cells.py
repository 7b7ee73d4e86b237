"""The cells of the matrix of interference: which there are, their rounds summed up, and when there are enough."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import permutations
from statistics import fmean
from typing import TYPE_CHECKING, Any

from loadtrt.asked.ways_to_share import PLAIN
from loadtrt.report.run_verdict import time_of
from loadtrt.results.interference_result import CLOSED, IDLE, LATENCIES, OWN, Cell, Measured
from loadtrt.stats.paired import ENOUGH, MARGIN, Pair, enough, paired_ratio
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadtrt.asked.config import RunConfig
    from loadtrt.asked.model import Model
    from loadtrt.asked.ways_to_share import Way
    from loadtrt.results.engine_info import Verification
    from loadtrt.results.interference_result import Alone, PairedRatio, Round
    from loadtrt.results.run_result import RunResult

STRESS = 0.3  # of the throughput of a stressor's closed loop
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
    longest_ns: how long the runs of a cell may be made where those of --duration are too short for p99; 0 where they
        stay as they are.
    """

    config: RunConfig
    ways: tuple[Way, ...]
    levels: tuple[str, ...]
    load: str
    arrivals: str
    rounds: int
    precision: float
    stressors: Mapping[str, Model]
    longest_ns: int = 0

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


def place_of(cell: Cell) -> tuple[str, ...]:
    """What makes two cells the same one, in two results."""
    return cell.share, cell.model, cell.neighbour, cell.level, cell.neighbour_level


def finished(cell: Cell, number: int, precision: float) -> bool:
    """Whether the cell has a round of this number, needs none, or can have none. A ratio decides: of p99; in a closed
    loop, of throughput."""
    if len(cell.rounds) > number or cell.failure is not None or cell.problems:
        return True
    if cell.rate_per_s is None:
        return enough("kept", _rates(cell.rounds), precision)
    return enough("latency.p99", _times("p99", cell.rounds), precision)


def takes_ns(cell: Cell, length_ns: int, longest_ns: int) -> float:
    """How long runs are that are worth as many requests as the interval of p99 takes; 0 where those of `length_ns` are,
    or where that is not known. longest_ns: where that suffices without a margin, it is the answer."""
    ratio = cell.ratio()
    if ratio is None or ratio.longer is None or ratio.longer <= ENOUGH or cell.overloaded or not cell.valid:
        return 0.0
    takes = ratio.longer * length_ns
    return min(takes, longest_ns) if takes <= MARGIN * longest_ns else takes


def measured_of(run: RunResult, name: str) -> Measured:
    """What a run shows of a model as long as requests were sent: later, its neighbours may have ended."""
    model, window = run.models[name], run.models[name].window
    due, served = model.submitted + model.dropped, model.ok
    span_ns = max(map(run.config.least_ns, run.config.models.values()))
    if window is not None:
        due, served, span_ns = window.due, window.served, window.span_ns
    latency = model.metrics.get("latency")
    intervals = {} if latency is None else latency.confidence
    return Measured(
        due=served if run.config.models[name].load.closed else due,
        served=served,
        per_s=served * SECOND_NS / span_ns,
        latency_ns={which: time_of(model.metrics, which) for which in LATENCIES},
        effective={which: intervals[which].effective for which in LATENCIES if which in intervals},
    )


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
        "weighted_speedup": _speedup(cell, rounds, alone),
        "jain": None if neighbour is None else _jain(rounds),
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
    pairs = [
        Pair(by_itself, one.neighbour.per_s)
        for one in rounds
        if one.neighbour is not None and (by_itself := _neighbour_alone(one)) is not None
    ]
    return paired_ratio("kept", pairs) if pairs else None


def _neighbour_alone(one: Round) -> float | None:
    """The throughput that the neighbour has by itself; None where it is idle."""
    if one.neighbour is None or one.neighbour_alone is not None:
        return None if one.neighbour_alone is None else one.neighbour_alone.per_s
    served = one.neighbour.served
    return one.neighbour.per_s * one.neighbour.due / served if served else float(one.neighbour.due)


def _speedup(cell: Cell, rounds: Sequence[Round], alone: Mapping[str, Alone]) -> PairedRatio:
    """Throughput of both, each over that of its closed loop, summed. A neighbour's closed loop is that of the round;
    the others were measured once, before, so that their error is that of all rounds:

        (half of ln S)² = (half over the rounds)² + Σ (x_i · half of ln c_i)²

    with x_i the part of S that the throughput over closed loop c_i is, and halves those of 95 % intervals.
    """
    once: dict[str, list[float]] = {}
    sums = []
    for one in rounds:
        parts = [(cell.model, one.beside)] + ([] if one.neighbour is None else [(cell.neighbour, one.neighbour)])
        total = 0.0
        for name, measured in parts:
            in_round = one.neighbour_alone if name == cell.neighbour else None
            in_round = in_round if in_round is not None and in_round.per_s else None
            part = measured.per_s / (alone[name].closed if in_round is None else in_round).per_s
            total += part
            if in_round is None:
                once.setdefault(name, []).append(part)
        sums.append(total)
    found = paired_ratio("speedup", [Pair(1.0, total) for total in sums])
    if found.ratio is None or found.low is None or found.high is None:
        return found
    half = math.log(found.high / found.low) / 2
    for name, parts_of in once.items():
        low, high = alone[name].closed_low_per_s, alone[name].closed_high_per_s
        if not low or not high:
            reason = f"the closed loop of {name} alone was too short for an interval"
            return found.model_copy(update={"low": None, "high": None, "reason": reason})
        half = math.hypot(half, fmean(parts_of) / fmean(sums) * math.log(high / low) / 2)
    return found.model_copy(update={"low": found.ratio * math.exp(-half), "high": found.ratio * math.exp(half)})


def _jain(rounds: Sequence[Round]) -> PairedRatio:
    """Jain's index of what both kept: of q, what one kept over what the other did, it is (1 + q)² / (2 + 2q²), the less
    the further ln q is from 0. Its interval is that of q."""
    pairs = []
    for one in rounds:
        by_itself = _neighbour_alone(one)
        kept = one.beside.per_s / one.alone.per_s if one.alone.per_s else None
        pairs.append(Pair(one.neighbour.per_s / by_itself if one.neighbour and by_itself else None, kept))
    found = paired_ratio("jain", pairs)
    if found.ratio is None:
        return found
    low = high = None
    if found.low is not None and found.high is not None:
        ends = [_index(found.low), _index(found.high)]
        low, high = min(ends), 1.0 if found.low <= 1 <= found.high else max(ends)
    return found.model_copy(update={"ratio": _index(found.ratio), "low": low, "high": high})


def _index(q: float) -> float:
    return (1 + q) ** 2 / (2 + 2 * q * q)
