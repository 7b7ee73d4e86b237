"""The search for capacity: which run comes next, and what all runs show. Without an engine, a clock or a file.

**Search.** The first run is at the capacity that the ladder predicts. Each next one is at the median of the lowest
threshold that all runs together show (sizing/threshold.py), between the rates at which nothing was bad and those at
which far too much was, so that the search does not stay where it learns nothing. It ends when half the 95 % confidence
interval is at most `precision` of the estimate, or after SEARCH_PART of the time.

**Confirm.** A run at the threshold itself meets and misses equally often, and decides nothing. So a confirming run has
a seed of its own and a rate below the estimate, the one with the largest expected gain (sizing/worth.py) in the time
left. It lasts CHUNK_PART of the time at most; its evidence counts at lower rates, too. Another follows until the
confirmed rate is within the precision of the estimate, or ENOUGH of it after ENOUGH_PART of the time, or no gain is
expected; MOST_CONFIRMS in all. Where nothing can be confirmed, trials go on.

**Refute.** Once confirmed, a run as far above as a miss needs; it ends as soon as it is missed. Undecided, the next is
twice as far above; MOST_REFUTES in all. They do not enter the estimate: so far away the line bends.

**Length.** The first trial lasts until _BAD/p₀ requests are due, others until they are worth _WORTH/p₀, at most
TRIAL_PART of the time, or `trial_s`. All runs together take `time_s`. The same runs lead to the same next one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from loadtrt.records.records import METRICS
from loadtrt.sizing.outcomes import Outcome, Step, boundary_of, bracket, pooled, verdict_of
from loadtrt.sizing.threshold import Estimate, Seen, estimate
from loadtrt.sizing.worth import Worth, expected_size
from loadtrt.stats.verdict import LEAST_MET, surely_missed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.asked.objective import Objective
    from loadtrt.sizing.outcomes import Kind, Share

SEARCH_PART, ENOUGH_PART, CONFIRM_PART = 0.1, 0.5, 0.96  # of the time, after which searching and confirming end
TRIAL_PART, QUICK_TRIAL_PART = 0.06, 0.25  # of the time: the longest trial, and where none is confirmed
_REFUTE_PART = 0.06  # longest refuting run
CHUNK_PART = 0.2  # of the time: the longest confirming run; if it does not decide, another goes on with its evidence
MOST_TRIALS, MOST_CONFIRMS, MOST_REFUTES = 12, 12, 2
_OF_USE = 0.7  # rate over the estimate below which a confirmed rate is of no use
MOST_APART = 3.0  # rate that missed over rate that met: above, the capacity is not found
ENOUGH, _STEP = 0.945, 0.98
_LEAST_RATE, _MOST_RATE = 0.01, 1.05  # rates of a run, over the highest throughput
_FARTHEST, _RATES = 0.3, 120  # lowest rate of a confirming run, over the estimate; steps down to it
_WORTH, _BAD = 20.0, 30
_MOST_SHARED = 2.0  # highest effective sample size of a run by that of others, over its own
_HOST_STEP, _MOST_HOST_BOUND = 0.85, 4
_AWAY, _FASTER = 1.25, 4  # step from a rate with nothing bad, or far too much, that no other bounds; its highest power

Answer = Literal["found", "estimated", "undecided", "infeasible", "host-bound"]


@dataclass(slots=True)
class Search:
    """The search for the capacity of one engine: `next` is the run to make, `record` takes its result.

    start: rate of the first run, requests per second: the capacity that the ladder predicts.
    spread: scale of the prior of its logarithm.
    throughput: highest measured throughput, requests per second.
    precision: half width of the 95 % confidence interval, over the estimate, at which searching ends.
    time_s: duration of all runs together, s.
    trial_s: shortest run, s.
    alone: the result with one request in flight at a time, for each objective; empty: not known.
    confirms: whether the estimate is confirmed.
    """

    objectives: Sequence[Objective]
    start: float
    spread: float
    throughput: float
    precision: float
    time_s: float
    trial_s: float
    alone: Sequence[Share] = ()
    confirms: bool = True
    outcomes: list[Outcome] = field(default_factory=list)
    _estimates: list[Estimate] = field(default_factory=list, init=False, repr=False, compare=False)

    def next(self) -> Step | None:
        """The run to make now; None at the end."""
        if self._over:
            return None
        if not self.outcomes:
            return self._step("search", min(max(self.start, self._least), self._ceiling), self._trial_s(self.start))
        last = self.outcomes[-1]
        left = self.time_s - self._spent_s
        if last.step.rate in self._host_bound and left >= self.trial_s:
            return self._step(last.step.kind, last.step.rate * _HOST_STEP, min(last.step.seconds, left))
        step = None
        if self.confirms and not self._searching:
            step = self._confirm() or (self._refute() if self.confirmed else None)
        if step is None and (self._searching or self._undecided):
            rate = self._probe(self.binding[1].rate)
            step = self._step("search", rate, self._trial_s(rate))
        return step

    def record(self, outcome: Outcome) -> None:
        """Take the result of the last step."""
        self.outcomes.append(outcome)
        self._estimates = []

    @property
    def answer(self) -> Answer | None:
        """None while there is none."""
        missed = self.infeasible_min
        if self.confirmed and (missed is None or missed <= MOST_APART * self.confirmed):
            return "host-bound" if self._host_binds else "found"
        if self._over:
            return "host-bound" if self._late else "infeasible"
        if not self._valid or self._searching or self._undecided or (self.confirms and self._confirm() is not None):
            return None
        if self._host_binds:
            return "host-bound"
        return "undecided" if self.confirms else "estimated"

    @property
    def known(self) -> bool:
        """Whether any run measured the engine and not the generator."""
        return bool(self._valid)

    @property
    def estimates(self) -> list[Estimate]:
        """The threshold of each objective, by all trials and confirming runs that are not host-bound; one at least."""
        if not self._estimates:
            runs = [run for run in self._valid if run.step.kind != "refute"]
            around = (self.start, self.spread, self._least, self._most, self.throughput)
            for place, objective in enumerate(self.objectives):
                seen = [Seen(run.step.rate, *self._share(place, run)[:2]) for run in runs]
                seen += [Seen(0.0, share.bad, share.size) for share in self.alone[place : place + 1]]
                self._estimates.append(estimate(seen, 1 - objective.rank, *around))
        return self._estimates

    @property
    def binding(self) -> tuple[int, Estimate]:
        """(place, estimate) of the objective with the lowest threshold."""
        return min(enumerate(self.estimates), key=lambda item: item[1].rate)

    @property
    def feasible_max(self) -> float | None:
        """The highest rate at which a confirming run met all objectives; where none did, at which a trial did."""
        met = (run.step.rate for run in self._of("search") if verdict_of(run) == "met")
        return self.confirmed or max(met, default=None)

    @property
    def infeasible_min(self) -> float | None:
        """The lowest rate at which a refuting run missed an objective; where none did, at which any run did."""
        runs = [run for run in self._of("refute") if verdict_of(run) == "missed"] or self._valid
        return min((run.step.rate for run in runs if verdict_of(run) == "missed"), default=None)

    @property
    def confirmed(self) -> float | None:
        """The highest rate at which confirming runs met all objectives. One that was not decided counts for lower
        rates, as at least as many requests are bad at a higher one."""
        runs = sorted(self._of("confirm"), key=lambda run: run.step.rate)
        return max((run.step.rate for place, run in enumerate(runs) if self._met(runs[place:])), default=None)

    @property
    def host_bound(self) -> float | None:
        """The lowest rate at which the generator was the bottleneck."""
        return min(self._host_bound, default=None)

    @property
    def boundary(self) -> Literal["smooth", "cliff"] | None:
        """As `boundary_of` says; None where it is not known."""
        if not self._valid:
            return None
        place, _ = self.binding
        shares = [(run.step.rate, run.shares[place]) for run in self._valid]
        return boundary_of(shares, 1 - self.objectives[place].rank, self.precision)

    def between(self, rate: float) -> float:
        """`rate` within the bracket of what met and missed, if those two agree. Host-bound runs do not bound it."""
        low, high = self.feasible_max, self.infeasible_min
        agree = low is None or high is None or low < high
        return min(max(rate, low or rate), high or rate) if agree else rate

    @property
    def _over(self) -> bool:
        """Whether no run changes the answer: the generator is always late, or the lowest rate is missed."""
        again = self._valid or self.time_s - self._spent_s >= self.trial_s
        if len(self._late) >= (max(_MOST_HOST_BOUND, len(self._valid) / 2) if again else 1):
            return self.confirmed is None
        lowest = [run for run in self._valid if run.step.rate <= 1.5 * self._least]
        return any(
            surely_missed(share.bad, share.size, 1 - objective.rank)
            for run in lowest
            for share, objective in zip(run.shares, self.objectives, strict=True)
        )

    @property
    def _valid(self) -> list[Outcome]:
        return [run for run in self.outcomes if not run.host_bound]

    @property
    def _late(self) -> list[float]:
        """Rates at which the generator was the bottleneck, without refuting runs, which are above the capacity."""
        return [run.step.rate for run in self.outcomes if run.host_bound and run.step.kind != "refute"]

    @property
    def _host_bound(self) -> list[float]:
        """Those without those by chance: more runs at or above were valid than late at or below."""

        def by_chance(rate: float) -> bool:
            return sum(run.step.rate >= rate for run in self._valid) > sum(late <= rate for late in self._late)

        return [rate for rate in self._late if not by_chance(rate)]

    def _of(self, kind: Kind) -> list[Outcome]:
        return [run for run in self._valid if run.step.kind == kind]

    def _met(self, runs: Sequence[Outcome]) -> bool:
        """Whether the first of these runs met all objectives, or several together did."""
        if len(runs) == 1 or verdict_of(runs[0]) == "met":
            return verdict_of(runs[0]) == "met"
        return all(
            pooled(objective, [self._share(place, run) for run in runs]).verdict == "met"
            for place, objective in enumerate(self.objectives)
        )

    def _share(self, place: int, run: Outcome) -> Share:
        """The share of bad requests in a run, with the effective sample size that all runs together say: that of one
        run is known less well, and depends on the share."""
        share = run.shares[place]
        size = expected_size(self._sizes(place), self.throughput, run.step.rate, run.lasted)
        return share._replace(size=min(size, _MOST_SHARED * share.size))

    def _sizes(self, place: int) -> list[tuple[float, float, float]]:
        return [(run.step.rate, run.lasted, run.shares[place].size) for run in self._valid]

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
    def _spent_s(self) -> float:
        return sum(run.lasted for run in self.outcomes)

    @property
    def _searching(self) -> bool:
        """Whether the threshold is not yet known well enough to confirm."""
        runs = self._of("search")
        if any(run.step.kind == "confirm" for run in self.outcomes) or len(runs) >= MOST_TRIALS:
            return False
        if self._host_binds or len(runs) < 2:
            return not runs or not self._host_binds
        part_s = SEARCH_PART * self.time_s if self.confirms else self.time_s - self._longest_s / 2
        return self._spent_s < part_s and self.binding[1].error > self.precision

    @property
    def _undecided(self) -> bool:
        """Whether nothing is confirmed, and time is left for another trial."""
        enough = self.confirmed is not None or not self.confirms or self._host_binds
        ends_s = min(CONFIRM_PART * self.time_s, self.time_s - self.trial_s)
        return not enough and len(self._of("search")) < MOST_TRIALS and self._spent_s < ends_s

    @property
    def _host_binds(self) -> bool:
        """Whether the generator, by what is known, is the bottleneck below the threshold."""
        return bool(self._host_bound) and bool(self._valid) and self.binding[1].rate > self._ceiling

    def _probe(self, rate: float) -> float:
        """The rate of the next trial: `rate`, but above the rates at which nothing was bad and below those at which far
        too much was, so that each trial learns something even if the law does not hold."""
        low, high = bracket(self._valid, self.objectives)
        if high is not None and rate >= 0.97 * high:
            away = _AWAY ** min(sum(verdict_of(run) == "missed" for run in self._valid), _FASTER)
            rate = math.sqrt(high * low) if low is not None else max(high / away, self._least)
        elif low is not None and rate <= 1.03 * low:
            rate = math.sqrt(high * low) if high is not None else low * _AWAY
        return min(rate, self._ceiling, _AWAY * max(run.step.rate for run in self._valid))

    def _confirm(self) -> Step | None:
        """The next confirming run; None where no time is left for one, or none is needed."""
        runs, threshold = self._of("confirm"), self.binding[1]
        left, best = CONFIRM_PART * self.time_s - self._spent_s, self.confirmed
        enough = best and best >= ENOUGH * threshold.rate and self._spent_s > ENOUGH_PART * self.time_s
        if len(runs) >= MOST_CONFIRMS or left < self.trial_s or enough or not threshold.bounded_below:
            return None
        place, objective = self.binding[0], self.objectives[self.binding[0]]
        _, high = bracket(self._valid, self.objectives)
        missed = [run.step.rate for run in runs if verdict_of(run) == "missed"]
        highest = min((1 - self.precision) * threshold.rate, self._ceiling, *(_STEP * rate for rate in missed))
        highest = min(highest, _STEP * (high or math.inf))
        lowest = max(_FARTHEST * threshold.rate, self._least, 1.005 * (best or 0.0))
        if runs and runs[-1].step.rate > (best or 0.0):  # its evidence counts at that rate or a lower one
            highest = min(highest, runs[-1].step.rate)
        rates = [highest * 0.99**step for step in range(_RATES)] + [run.step.rate for run in runs]
        shares = [self._share(place, run) for run in sorted(runs, key=lambda run: -run.step.rate)]
        of_highest = [pooled(objective, shares[:count]) for count in range(len(runs) + 1)]
        before = {
            rate: of_highest[sum(run.step.rate >= rate for run in runs)] for rate in rates if lowest <= rate <= highest
        }
        bases = (best,) if best else (_OF_USE * threshold.rate, 0.0)
        steps = (self._worth.most_gaining(before, base, self.trial_s, left) for base in bases)
        rate, seconds = next((step for step in steps if step is not None), (0.0, 0.0))
        longest = max(CHUNK_PART * self.time_s, self.trial_s)
        return self._step("confirm", rate, min(seconds, longest)) if rate else None

    def _refute(self) -> Step | None:
        before = [run for run in self.outcomes if run.step.kind == "refute"]
        left = min(self.time_s - self._spent_s, _REFUTE_PART * self.time_s)
        decided = any(run.host_bound or verdict_of(run) == "missed" for run in before)
        if decided or len(before) == MOST_REFUTES or left < self.trial_s:
            return None
        confirmed, last = self.confirmed or 0.0, before[-1].step.rate if before else 0.0
        threshold = max(self.binding[1].rate, confirmed)
        missed = [run.step.rate for run in self._of("search") if verdict_of(run) == "missed"]
        far = min([self._worth.missable(left, self._ceiling), *missed])
        rate = max(threshold + 2 * (last - threshold) if before else far, threshold / _STEP)
        rate = min(rate, self._ceiling, 0.99 * MOST_APART * confirmed)  # a rate far away bounds nothing
        return self._step("refute", rate, left) if rate > 1.001 * max(last, confirmed) else None

    @property
    def _worth(self) -> Worth:
        place, threshold = self.binding
        return Worth(threshold, self.throughput, self._sizes(place))

    @property
    def _allowed(self) -> float:
        return min(1 - objective.rank for objective in self.objectives)

    @property
    def _longest_s(self) -> float:
        """The longest trial."""
        return max((TRIAL_PART if self.confirms else QUICK_TRIAL_PART) * self.time_s, self.trial_s)

    def _trial_s(self, rate: float) -> float:
        if not self._valid:
            return min(max(self.trial_s, _BAD / self._allowed / self.start), self._longest_s)
        worth = self._worth.single(rate, self.trial_s)
        wanted = self.trial_s * max(_WORTH / self._allowed, LEAST_MET) / max(worth, 1e-9)
        return min(max(self.trial_s, wanted), self._longest_s, max(self.time_s - self._spent_s, self.trial_s))

    def _step(self, kind: Kind, rate: float, seconds: float) -> Step:
        return Step(kind, float(f"{rate:.4g}"), round(seconds, 3))
