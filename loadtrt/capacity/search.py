"""Which run to make next, and what all of them say: the search for capacity without any engine, clock or file.

**Search.** The first run is where the ladder lets expect the capacity. Each next one is at the median of what all runs
together say of the threshold (capacity/threshold.py), of the objective that has the lowest: within the bracket of the
rates that were met and missed beyond doubt, and below those at which the generator gave up. It ends when half the 95 %
interval is at most `precision` of it, or after `max_trials`.

**Confirm.** A run at the threshold itself meets and misses with equal right, and would decide nothing. So the
confirming run, CONFIRM_TIMES as long and with a seed of its own, is as far below as it must be to be decided if the
estimate is right: at the share p that is told from p₀ even where p + √(p(1−p)/N) is seen, N what such a run will be
worth. With few requests that is far below: a rate that is known to be met says more than one that is not known at all.
Missed or undecided, the next is 2 % lower, or where the estimate with it says, whichever is lower; MOST_CONFIRMS in
all, and no more where no rate can be told.

**Refute.** Once confirmed, a run as far above as it must be to be missed even where p − √(p(1−p)/N) is seen, or where a
trial missed, if that is nearer; as long at the most, for it ends when it is missed. Undecided, the next is twice as far
above; MOST_REFUTES in all. They are in no estimate: so far away the line bends. So there are two runs that the capacity
lies between: feasible_max and infeasible_min are of these, where there are any, for of ten runs near the threshold the
luckiest is met, and the unluckiest missed.

**Length.** A trial lasts until it can be expected to be worth _WORTH/p₀ independent requests, and LEAST_MET at the
least, by what the runs before it were worth; the first one until _BAD/p₀ are due. From `trial_s` to `longest_s`.

The same runs lead to the same next one, so that a search goes on from its file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from loadtrt.capacity.threshold import Estimate, Seen, estimate, log_odds
from loadtrt.records.records import METRICS
from loadtrt.stats.verdict import LEAST_MET, discounted, share_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.asked.objective import Objective, Verdict

CONFIRM_TIMES = 5
MOST_CONFIRMS = 4
MOST_REFUTES = 3
_STEP = 0.98
_LEAST_RATE = 0.01  # of the greatest throughput: nobody looks for less
_MOST_RATE = 1.05  # of it: no queue in front of an engine is shorter than none
_FARTHEST = 0.4  # of the estimate: no confirming run is farther below
_MOST_LOAD = 0.95  # up to which queues are taken to forget faster at lower rates: X is not known better than that
_SURE = 0.85  # of what a run is expected to be worth
_RESOLVED = 100
_WORTH = 1.5
_BAD = 30
_HOST_STEP = 0.85
_MOST_HOST_BOUND = 4
_FAR = 10.0  # times the allowed share, or a part of it: far missed, far from missed

Answer = Literal["found", "undecided", "infeasible", "host-bound"]
Kind = Literal["search", "confirm", "refute"]


class Share(NamedTuple):
    """How an objective fared in a run: the share of bad requests, how many independent ones they were worth."""

    bad: float
    size: float
    verdict: Verdict


class Step(NamedTuple):
    """A run: at `rate` requests a second, for so many seconds."""

    kind: Kind
    rate: float
    seconds: float


class Told(NamedTuple):
    """What came of a step: a share for each objective, in their order. host_bound: the generator was the bottleneck."""

    step: Step
    shares: tuple[Share, ...]
    host_bound: bool = False

    @property
    def verdict(self) -> Verdict:
        """Missed if any objective was, met if all were."""
        verdicts = {share.verdict for share in self.shares}
        return "missed" if "missed" in verdicts else "undecided" if "undecided" in verdicts else "met"


@dataclass(slots=True)
class Search:
    """The search for the capacity of one engine. start: where to begin; throughput: the greatest that was measured,
    both requests a second. trial_s, longest_s: how long a trial lasts, from and to. `next` is the run to make, None at
    the end; `tell` what came of it."""

    objectives: Sequence[Objective]
    start: float
    throughput: float
    precision: float
    max_trials: int
    trial_s: float
    longest_s: float
    told: list[Told] = field(default_factory=list)
    _estimates: list[Estimate] = field(default_factory=list, init=False, repr=False, compare=False)

    def next(self) -> Step | None:
        """The run to make now; None at the end."""
        match self.answer:
            case "found":
                rate = self._refute_rate()
                return None if rate is None else self._step("refute", rate)
            case "undecided" | "infeasible" | "host-bound":
                return None
        if not self.told:
            return self._step("search", min(max(self.start, self._least), self._ceiling))
        if self.told[-1].host_bound:
            return self._step(self.told[-1].step.kind, self.told[-1].step.rate * _HOST_STEP)
        if self._searching:
            return self._step("search", self._probe(self.binding[1].rate))
        return self._step("confirm", self._confirm_rate())

    def tell(self, told: Told) -> None:
        """What came of the last step."""
        self.told.append(told)
        self._estimates = []

    @property
    def answer(self) -> Answer | None:
        """None while there is none."""
        confirms = self._of("confirm")
        if confirms and confirms[-1].verdict == "met":
            return "host-bound" if self._host_binds else "found"
        if len(self._host_bound) >= _MOST_HOST_BOUND:
            return "host-bound"
        if self._too_low:
            return "infeasible"
        if len(confirms) >= MOST_CONFIRMS or (confirms and self._hopeless(confirms[-1])):
            return "undecided"
        return None

    @property
    def known(self) -> bool:
        """Whether any run said anything of the engine."""
        return bool(self._valid)

    @property
    def estimates(self) -> list[Estimate]:
        """Of each objective, by all runs up to confirming that the generator did not spoil. Needs one of these."""
        if not self._estimates:
            runs = [each for each in self._valid if each.step.kind != "refute"]
            seen = [[Seen(it.step.rate, share.bad, share.size) for share in it.shares] for it in runs]
            around = (self.start, self._least, self._most, self.throughput)
            self._estimates = [
                estimate([each[place] for each in seen], 1 - objective.rank, *around)
                for place, objective in enumerate(self.objectives)
            ]
        return self._estimates

    @property
    def binding(self) -> tuple[int, Estimate]:
        """(place, estimate) of the objective with the lowest threshold."""
        found = self.estimates
        place = min(range(len(found)), key=lambda each: found[each].rate)
        return place, found[place]

    @property
    def feasible_max(self) -> float | None:
        """The highest rate at which a confirming run met all objectives; where none did, at which a trial did."""
        return self.confirmed or max((it.step.rate for it in self._of("search") if it.verdict == "met"), default=None)

    @property
    def infeasible_min(self) -> float | None:
        """The lowest rate at which a refuting run missed an objective; where none did, at which any run did."""
        runs = [it for it in self._of("refute") if it.verdict == "missed"] or self._valid
        return min((it.step.rate for it in runs if it.verdict == "missed"), default=None)

    @property
    def confirmed(self) -> float | None:
        """The highest rate at which a confirming run met all objectives."""
        return max((each.step.rate for each in self._of("confirm") if each.verdict == "met"), default=None)

    @property
    def host_bound(self) -> float | None:
        """The lowest rate at which the generator was the bottleneck."""
        return min(self._host_bound, default=None)

    @property
    def boundary(self) -> Literal["smooth", "cliff"] | None:
        """cliff: from met, and far below the allowed share, to missed and far above it, within the precision. smooth: a
        run that is worth a verdict saw the slope between. None: no run tells."""
        if not self._valid:
            return None
        place, _ = self.binding
        allowed = 1 - self.objectives[place].rank
        few, many = allowed / _FAR, min(allowed * _FAR, 0.5)
        shares = [(each.step.rate, each.shares[place]) for each in self._valid]
        below = max((rate for rate, share in shares if share.verdict == "met" and share.bad <= few), default=None)
        above = min((rate for rate, share in shares if share.verdict == "missed" and share.bad >= many), default=None)
        if below is not None and above is not None and below < above <= below * (1 + 2 * self.precision):
            return "cliff"
        return "smooth" if any(few < share.bad < many and share.size >= LEAST_MET for _, share in shares) else None

    @property
    def _valid(self) -> list[Told]:
        return [each for each in self.told if not each.host_bound]

    @property
    def _host_bound(self) -> list[float]:
        """Rates; what becomes of the generator above the capacity bounds nothing."""
        return [each.step.rate for each in self.told if each.host_bound and each.step.kind != "refute"]

    def _of(self, kind: Kind) -> list[Told]:
        return [each for each in self._valid if each.step.kind == kind]

    @property
    def _least(self) -> float:
        return _LEAST_RATE * self.throughput

    @property
    def _most(self) -> float:
        """All the engine can. Of objectives that no queue makes longer, no run would tell that it cannot do more."""
        waits = any(METRICS[objective.metric].of_unserved for objective in self.objectives)
        return (_MOST_RATE if waits else 1.0) * self.throughput

    @property
    def _ceiling(self) -> float:
        """No run is made above: all the engine can, and less than what the generator could not."""
        return min(self._most, _HOST_STEP * min(self._host_bound, default=math.inf))

    @property
    def _searching(self) -> bool:
        """Whether the threshold is not yet known well enough to confirm."""
        runs = self._of("search")
        confirming = any(each.step.kind == "confirm" for each in self.told)
        if confirming or len(runs) >= self.max_trials:
            return False
        if self._host_binds:
            return not runs
        return len(runs) < 2 or self.binding[1].error > self.precision

    @property
    def _host_binds(self) -> bool:
        """Whether the generator gives up before the engine does, as far as is known."""
        return bool(self._host_bound) and bool(self._valid) and self.binding[1].rate > self._ceiling

    @property
    def _too_low(self) -> bool:
        """Whether a run as slow as anyone would look missed an objective."""
        return any(each.verdict == "missed" and each.step.rate <= 1.5 * self._least for each in self._valid)

    def between(self, rate: float) -> float:
        """Within what was met and missed beyond doubt, where these agree with each other: what the generator cannot do
        bounds no engine."""
        low, high = self.feasible_max, self.infeasible_min
        agree = low is None or high is None or low < high
        return min(max(rate, low or rate), high or rate) if agree else rate

    def _probe(self, rate: float) -> float:
        """Below what was missed, and not again where there was no doubt: bisection of the bracket, or half of what was
        missed while nothing was met. So a law that is not the threshold's gets an answer, too."""
        low, high = self.feasible_max, self.infeasible_min
        if high is not None and rate >= 0.99 * high and (low is None or low < high):
            rate = max(high / 2, self._least) if low is None else (low + high) / 2
        elif self._searching and low is not None and high is not None and rate <= 1.01 * low < high:
            rate = (low + high) / 2
        return min(rate, self._ceiling)

    def _confirm_rate(self) -> float:
        rate = self._decidable or max(_FARTHEST * self.binding[1].rate, self.feasible_max or 0.0)
        before = [each.step.rate for each in self._of("confirm")]
        return min(max(min([self._probe(rate), *(_STEP * each for each in before)]), self._least), self._ceiling)

    def _refute_rate(self) -> float | None:
        before = [each for each in self.told if each.step.kind == "refute"]
        if len(before) == MOST_REFUTES or any(each.host_bound or each.verdict == "missed" for each in before):
            return None
        found = max(self.binding[1].rate, self.confirmed or 0.0)
        missed = [it.step.rate for it in self._of("search") if it.verdict == "missed"]
        rate = found + 2 * (before[-1].step.rate - found) if before else min([self._missable, *missed])
        rate = min(max(rate, found / _STEP), self._ceiling)
        return rate if rate > 1.001 * (before[-1].step.rate if before else found) else None

    def _hopeless(self, last: Told) -> bool:
        """Whether not even the slowest run that is made to confirm told anything, nor is any other likely to."""
        slowest = last.step.rate <= 1.05 * _FARTHEST * self.binding[1].rate
        return last.verdict != "missed" and slowest and self._decidable is None

    @property
    def _decidable(self) -> float | None:
        """The highest rate at which a confirming run is told from the threshold; None where none is."""
        place, found = self.binding
        allowed = 1 - self.objectives[place].rank
        for part in range(round(100 * (1 - _FARTHEST))):
            rate = found.rate * (1 - part / 100)
            share, worth = self._expected(place, found, "confirm", rate)
            unlucky = share + math.sqrt(share * (1 - share) / max(worth, 1.0))
            if worth >= LEAST_MET and share_interval(unlucky, worth)[1] <= allowed:
                return rate
        return None

    @property
    def _missable(self) -> float:
        """The lowest rate at which a refuting run is told from the threshold; the ceiling where none is: a queue that
        grows without end misses in time."""
        place, found = self.binding
        allowed = 1 - self.objectives[place].rank
        for part in range(1, 100):
            rate = found.rate * (1 + part / 100)
            share, worth = self._expected(place, found, "refute", rate)
            lucky = max(share - math.sqrt(share * (1 - share) / max(worth, 1.0)), 0.0)
            if rate >= self._ceiling or share_interval(lucky, worth)[0] > allowed:
                return min(rate, self._ceiling)
        return self._ceiling

    def _expected(self, place: int, found: Estimate, kind: Kind, rate: float) -> tuple[float, float]:
        """(share of bad requests by the estimate's line, what they will be worth) of a run."""
        odds = log_odds(1 - self.objectives[place].rank) + found.slope * (rate / found.rate - 1)
        share = 1 / (1 + math.exp(-max(min(odds, 30.0), -30.0)))
        return share, discounted(self._single(place, rate, self._seconds(kind, rate)))

    def _single(self, place: int, rate: float, seconds: float) -> float:
        """N₁ of stats/verdict.py that a run can be expected to have, by that of the last confirming run, or of the
        run nearest to it: it grows with length and, at lower rates, with how much faster queues forget, (1 − √ρ)²
        (M/M/1: Cohen, The single server queue, 1982)."""
        near = self._of("confirm")[-1:] or [min(self._valid, key=lambda each: abs(each.step.rate - rate))]
        then, size = near[0].step, near[0].shares[place].size
        single = size if size >= _RESOLVED else math.sqrt(size * _RESOLVED)
        faster = rate / then.rate * (self._rest(rate) / self._rest(then.rate)) ** 2
        return _SURE * single * faster * seconds / then.seconds

    def _seconds(self, kind: Kind, rate: float) -> float:
        """How long a run lasts."""
        allowed = min(1 - objective.rank for objective in self.objectives)
        wanted = _BAD / allowed / rate
        if self._valid:
            worth = self._single(self.binding[0], rate, self.trial_s)
            wanted = self.trial_s * max(_WORTH / allowed, LEAST_MET) / max(worth, 1e-9)
        trial = round(min(max(self.trial_s, wanted), self.longest_s), 3)
        return trial if kind == "search" else trial * CONFIRM_TIMES

    def _rest(self, rate: float) -> float:
        """1 − √ρ."""
        return 1 - math.sqrt(min(rate / self.throughput, _MOST_LOAD))

    def _step(self, kind: Kind, rate: float) -> Step:
        """At a rate that is written in four digits."""
        rate = float(f"{rate:.4g}")
        return Step(kind, rate, self._seconds(kind, rate))
