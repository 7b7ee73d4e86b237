"""The search for capacity: which run comes next, and what all runs show. Without an engine, a clock or a file.

**Search.** The first run is at the capacity that the ladder predicts. Each next one is at the median of the lowest
threshold that all runs together show (capacity/threshold.py), within the bracket of the rates that met and missed, and
below those at which the generator was the bottleneck. The search ends when half the 95 % confidence interval is at most
`precision` of the estimate, or after `max_trials`.

**Confirm.** A run at the threshold itself meets and misses equally often, and decides nothing. So the confirming run,
CONFIRM_TIMES as long and with a seed of its own, is as far below as a decision needs if the estimate is right: at the
share p that differs significantly from p₀ even if p + √(p(1−p)/N) is observed, N the expected effective sample size.
Missed or undecided, the next is 2 % lower, or at the new estimate's rate if that is lower; MOST_CONFIRMS in all.

**Refute.** Once confirmed, a run as far above as a miss needs even if p − √(p(1−p)/N) is observed, or where a trial
missed, if that is nearer; it ends as soon as it is missed. Undecided, the next is twice as far above; MOST_REFUTES in
all. They do not enter the estimate: so far away the line bends. The capacity is between feasible_max and
infeasible_min; trials stand in where no such run decided, although of ten near the threshold the luckiest meets.

**Length.** A trial lasts until its expected effective sample size is _WORTH/p₀, and LEAST_MET at least, by those of the
runs before it; the first one until _BAD/p₀ requests are due. The same runs lead to the same next one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from loadtrt.asked.objective import overall
from loadtrt.capacity.threshold import Estimate, Seen, estimate, log_odds
from loadtrt.records.records import METRICS
from loadtrt.stats.verdict import LEAST_MET, discounted, share_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.asked.objective import Objective, Verdict

CONFIRM_TIMES = 5
MOST_CONFIRMS, MOST_REFUTES = 4, 3
_STEP = 0.98
_LEAST_RATE = 0.01  # lowest rate of a run, over the highest throughput
_MOST_RATE = 1.05  # highest rate of a run, over the highest throughput
_FARTHEST = 0.4  # lowest rate of a confirming run, over the estimate
_MOST_LOAD = 0.95  # utilisation above which the relaxation time of a queue is assumed constant: X is not known better
_SURE = 0.85  # share of the expected effective sample size that a run is counted on to have
_RESOLVED, _WORTH, _BAD = 100, 1.5, 30
_HOST_STEP, _MOST_HOST_BOUND = 0.85, 4
_FAR = 10.0  # factor on the allowed share of bad requests beyond which a run is far from the boundary

Answer = Literal["found", "undecided", "infeasible", "host-bound"]
Kind = Literal["search", "confirm", "refute"]


class Share(NamedTuple):
    """The result of a run for one objective. bad: share of bad requests; size: effective sample size."""

    bad: float
    size: float
    verdict: Verdict


class Step(NamedTuple):
    """A run of `seconds` at `rate` requests per second."""

    kind: Kind
    rate: float
    seconds: float


class Outcome(NamedTuple):
    """The result of a step: a share for each objective. host_bound: the load generator was the bottleneck."""

    step: Step
    shares: tuple[Share, ...]
    host_bound: bool = False

    @property
    def verdict(self) -> Verdict:
        """Missed if any objective was, met if all were."""
        return overall(share.verdict for share in self.shares) or "met"


@dataclass(slots=True)
class Search:
    """The search for the capacity of one engine: `next` is the run to make, `record` takes its result.

    start: rate of the first run, requests per second.
    throughput: highest measured throughput, requests per second.
    precision: half width of the 95 % confidence interval, over the estimate, at which searching ends.
    trial_s, longest_s: shortest and longest trial, s.
    """

    objectives: Sequence[Objective]
    start: float
    throughput: float
    precision: float
    max_trials: int
    trial_s: float
    longest_s: float
    outcomes: list[Outcome] = field(default_factory=list)
    _estimates: list[Estimate] = field(default_factory=list, init=False, repr=False, compare=False)

    def next(self) -> Step | None:
        """The run to make now; None at the end."""
        if self.answer == "found":
            rate = self._refute_rate()
            return None if rate is None else self._step("refute", rate)
        if self.answer is not None:
            return None
        if not self.outcomes:
            return self._step("search", min(max(self.start, self._least), self._ceiling))
        if self.outcomes[-1].host_bound:
            return self._step(self.outcomes[-1].step.kind, self.outcomes[-1].step.rate * _HOST_STEP)
        if self._searching:
            return self._step("search", self._probe(self.binding[1].rate))
        return self._step("confirm", self._confirm_rate())

    def record(self, outcome: Outcome) -> None:
        """Take the result of the last step."""
        self.outcomes.append(outcome)
        self._estimates = []

    @property
    def answer(self) -> Answer | None:
        """None while there is none."""
        confirms = self._of("confirm")
        if confirms and confirms[-1].verdict == "met":
            return "host-bound" if self._host_binds else "found"
        if len(self._host_bound) >= _MOST_HOST_BOUND:
            return "host-bound"
        if any(run.verdict == "missed" and run.step.rate <= 1.5 * self._least for run in self._valid):
            return "infeasible"
        if len(confirms) >= MOST_CONFIRMS or (confirms and self._hopeless(confirms[-1])):
            return "undecided"
        return None

    @property
    def known(self) -> bool:
        """Whether any run measured the engine and not the generator."""
        return bool(self._valid)

    @property
    def estimates(self) -> list[Estimate]:
        """The threshold of each objective, by all trials and confirming runs that are not host-bound; one at least."""
        if not self._estimates:
            runs = [run for run in self._valid if run.step.kind != "refute"]
            seen = [[Seen(run.step.rate, share.bad, share.size) for share in run.shares] for run in runs]
            around = (self.start, self._least, self._most, self.throughput)
            self._estimates = [
                estimate([shares[place] for shares in seen], 1 - objective.rank, *around)
                for place, objective in enumerate(self.objectives)
            ]
        return self._estimates

    @property
    def binding(self) -> tuple[int, Estimate]:
        """(place, estimate) of the objective with the lowest threshold."""
        return min(enumerate(self.estimates), key=lambda item: item[1].rate)

    @property
    def feasible_max(self) -> float | None:
        """The highest rate at which a confirming run met all objectives; where none did, at which a trial did."""
        return self.confirmed or self._highest_met("search")

    @property
    def infeasible_min(self) -> float | None:
        """The lowest rate at which a refuting run missed an objective; where none did, at which any run did."""
        runs = [run for run in self._of("refute") if run.verdict == "missed"] or self._valid
        return min((run.step.rate for run in runs if run.verdict == "missed"), default=None)

    @property
    def confirmed(self) -> float | None:
        """The highest rate at which a confirming run met all objectives."""
        return self._highest_met("confirm")

    @property
    def host_bound(self) -> float | None:
        """The lowest rate at which the generator was the bottleneck."""
        return min(self._host_bound, default=None)

    @property
    def boundary(self) -> Literal["smooth", "cliff"] | None:
        """cliff: the share goes from far below the allowed one to far above within the precision. smooth: a run with
        a large enough sample is between. None: not known."""
        if not self._valid:
            return None
        place, _ = self.binding
        allowed = 1 - self.objectives[place].rank
        few, many = allowed / _FAR, min(allowed * _FAR, 0.5)
        shares = [(run.step.rate, run.shares[place]) for run in self._valid]
        below = max((rate for rate, share in shares if share.verdict == "met" and share.bad <= few), default=None)
        above = min((rate for rate, share in shares if share.verdict == "missed" and share.bad >= many), default=None)
        if below is not None and above is not None and below < above <= below * (1 + 2 * self.precision):
            return "cliff"
        return "smooth" if any(few < share.bad < many and share.size >= LEAST_MET for _, share in shares) else None

    @property
    def _valid(self) -> list[Outcome]:
        return [run for run in self.outcomes if not run.host_bound]

    @property
    def _host_bound(self) -> list[float]:
        """Rates at which the generator was the bottleneck, without refuting runs, which are above the capacity."""
        return [run.step.rate for run in self.outcomes if run.host_bound and run.step.kind != "refute"]

    def _of(self, kind: Kind) -> list[Outcome]:
        return [run for run in self._valid if run.step.kind == kind]

    def _highest_met(self, kind: Kind) -> float | None:
        return max((run.step.rate for run in self._of(kind) if run.verdict == "met"), default=None)

    @property
    def _least(self) -> float:
        return _LEAST_RATE * self.throughput

    @property
    def _most(self) -> float:
        """The highest rate to try. Objectives that a queue does not affect cannot show a rate above the throughput."""
        waits = any(METRICS[objective.metric].of_unserved for objective in self.objectives)
        return (_MOST_RATE if waits else 1.0) * self.throughput

    @property
    def _ceiling(self) -> float:
        """The highest rate of a run: the engine's throughput, and below the rates that the generator cannot keep up."""
        return min(self._most, _HOST_STEP * (self.host_bound or math.inf))

    @property
    def _searching(self) -> bool:
        """Whether the threshold is not yet known well enough to confirm."""
        runs = self._of("search")
        confirming = any(run.step.kind == "confirm" for run in self.outcomes)
        if confirming or len(runs) >= self.max_trials:
            return False
        if self._host_binds:
            return not runs
        return len(runs) < 2 or self.binding[1].error > self.precision

    @property
    def _host_binds(self) -> bool:
        """Whether the generator, by what is known, is the bottleneck below the threshold."""
        return bool(self._host_bound) and bool(self._valid) and self.binding[1].rate > self._ceiling

    def between(self, rate: float) -> float:
        """`rate` within the bracket of what met and missed, if those two agree. Host-bound runs do not bound it."""
        low, high = self.feasible_max, self.infeasible_min
        agree = low is None or high is None or low < high
        return min(max(rate, low or rate), high or rate) if agree else rate

    def _probe(self, rate: float) -> float:
        """`rate`, or if that is already decided the middle of the bracket, or half the missed rate while nothing has
        met: so the search ends even if the law does not hold."""
        low, high = self.feasible_max, self.infeasible_min
        if high is not None and rate >= 0.99 * high and (low is None or low < high):
            rate = max(high / 2, self._least) if low is None else (low + high) / 2
        elif self._searching and low is not None and high is not None and rate <= 1.01 * low < high:
            rate = (low + high) / 2
        return min(rate, self._ceiling)

    def _confirm_rate(self) -> float:
        rate = self._decidable or max(_FARTHEST * self.binding[1].rate, self.feasible_max or 0.0)
        before = [run.step.rate for run in self._of("confirm")]
        return min(max(min([self._probe(rate), *(_STEP * rate for rate in before)]), self._least), self._ceiling)

    def _refute_rate(self) -> float | None:
        before = [run for run in self.outcomes if run.step.kind == "refute"]
        if len(before) == MOST_REFUTES or any(run.host_bound or run.verdict == "missed" for run in before):
            return None
        threshold = max(self.binding[1].rate, self.confirmed or 0.0)
        missed = [run.step.rate for run in self._of("search") if run.verdict == "missed"]
        rate = threshold + 2 * (before[-1].step.rate - threshold) if before else min([self._missable, *missed])
        rate = min(max(rate, threshold / _STEP), self._ceiling)
        return rate if rate > 1.001 * (before[-1].step.rate if before else threshold) else None

    def _hopeless(self, last: Outcome) -> bool:
        """Whether the slowest confirming run was undecided and no other is likely to decide."""
        slowest = last.step.rate <= 1.05 * _FARTHEST * self.binding[1].rate
        return last.verdict != "missed" and slowest and self._decidable is None

    @property
    def _decidable(self) -> float | None:
        """The highest rate at which a confirming run is likely to meet; None if there is none."""
        place, threshold = self.binding
        allowed = 1 - self.objectives[place].rank
        for part in range(round(100 * (1 - _FARTHEST))):
            rate = threshold.rate * (1 - part / 100)
            share, worth = self._expected(place, threshold, "confirm", rate)
            unlucky = share + math.sqrt(share * (1 - share) / max(worth, 1.0))
            if worth >= LEAST_MET and share_interval(unlucky, worth)[1] <= allowed:
                return rate
        return None

    @property
    def _missable(self) -> float:
        """The lowest rate at which a refuting run is likely to miss; otherwise the ceiling, where the queue grows."""
        place, threshold = self.binding
        allowed = 1 - self.objectives[place].rank
        for part in range(1, 100):
            rate = threshold.rate * (1 + part / 100)
            share, worth = self._expected(place, threshold, "refute", rate)
            lucky = max(share - math.sqrt(share * (1 - share) / max(worth, 1.0)), 0.0)
            if rate >= self._ceiling or share_interval(lucky, worth)[0] > allowed:
                return min(rate, self._ceiling)
        return self._ceiling

    def _expected(self, place: int, threshold: Estimate, kind: Kind, rate: float) -> tuple[float, float]:
        """(share of bad requests, effective sample size) of a run, by the estimate's line."""
        odds = log_odds(1 - self.objectives[place].rank) + threshold.slope * (rate / threshold.rate - 1)
        share = 1 / (1 + math.exp(-max(min(odds, 30.0), -30.0)))
        return share, discounted(self._single(place, rate, self._seconds(kind, rate)))

    def _single(self, place: int, rate: float, seconds: float) -> float:
        """The expected N₁ of a run (stats/verdict.py), by that of the last confirming run, or else of the nearest run:
        it grows with length and, at lower rates, with the faster relaxation of queues, (1 − √ρ)² (M/M/1: Cohen, The
        single server queue, 1982)."""
        near = self._of("confirm")[-1:] or [min(self._valid, key=lambda run: abs(run.step.rate - rate))]
        then, size = near[0].step, near[0].shares[place].size
        single = size if size >= _RESOLVED else math.sqrt(size * _RESOLVED)
        rest, rest_then = (1 - math.sqrt(min(r / self.throughput, _MOST_LOAD)) for r in (rate, then.rate))
        return _SURE * single * rate / then.rate * (rest / rest_then) ** 2 * seconds / then.seconds

    def _seconds(self, kind: Kind, rate: float) -> float:
        """The length of a run."""
        allowed = min(1 - objective.rank for objective in self.objectives)
        wanted = _BAD / allowed / rate
        if self._valid:
            worth = self._single(self.binding[0], rate, self.trial_s)
            wanted = self.trial_s * max(_WORTH / allowed, LEAST_MET) / max(worth, 1e-9)
        trial = round(min(max(self.trial_s, wanted), self.longest_s), 3)
        return trial if kind == "search" else trial * CONFIRM_TIMES

    def _step(self, kind: Kind, rate: float) -> Step:
        """A run at the rate rounded to four digits."""
        rate = float(f"{rate:.4g}")
        return Step(kind, rate, self._seconds(kind, rate))
