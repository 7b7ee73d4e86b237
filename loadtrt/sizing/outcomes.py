"""The runs of a search for capacity, and what they show."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, NamedTuple

from loadtrt.asked.objective import overall
from loadtrt.findings.validity import STARVED_LIMIT, busy_of, lateness_limit_ns, lateness_of, typical_ns
from loadtrt.records.records import METRICS
from loadtrt.sizing.threshold import log_odds
from loadtrt.stats.binomial import at_least, at_most
from loadtrt.stats.verdict import LEAST_MET, verdict_by_size
from loadtrt.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.asked.objective import Objective, Verdict
    from loadtrt.results.run_result import RunResult
    from loadtrt.sizing.threshold import Estimate

_SURELY = 1e-4  # probability of a run under the law below which the two contradict each other
FAR = 10.0  # factor on the allowed share of bad requests beyond which a run is far from the boundary

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
    """The result of a step: a share for each objective.

    host_bound: the load generator was the bottleneck.
    seconds: how long the run took; None: as long as the step.
    """

    step: Step
    shares: tuple[Share, ...]
    host_bound: bool = False
    seconds: float | None = None

    @property
    def lasted(self) -> float:
        """Duration of the run, s."""
        return self.step.seconds if self.seconds is None else self.seconds


def pooled(objective: Objective, shares: Sequence[Share]) -> Share:
    """The share of bad requests of several runs together."""
    size = sum(share.size for share in shares)
    bad = sum(share.bad * share.size for share in shares) / max(size, 1e-9)
    return Share(bad, size, verdict_by_size(objective, bad, size))


def boundary_of(
    shares: Sequence[tuple[float, Share]], allowed: float, precision: float
) -> Literal["smooth", "cliff"] | None:
    """The boundary, by the shares at each rate. cliff: they go from far below the allowed one to far above within the
    precision. smooth: a run with a large enough sample is between. None: not known."""
    few, many = allowed / FAR, min(allowed * FAR, 0.5)
    below = max((rate for rate, share in shares if share.verdict == "met" and share.bad <= few), default=None)
    above = min((rate for rate, share in shares if share.verdict == "missed" and share.bad >= many), default=None)
    if below is not None and above is not None and below < above <= below * (1 + 2 * precision):
        return "cliff"
    return "smooth" if any(few < share.bad < many and share.size >= LEAST_MET for _, share in shares) else None


def interval_of(
    law: Estimate, rate: float, shares: Sequence[tuple[float, Share]], met: float | None, missed: float | None
) -> tuple[float | None, float | None]:
    """The 95 % interval of the capacity; None for an end that no run bounds.

    It is that of the law, unless a run contradicts the law, as all do beyond a cliff: then it holds also the highest
    rate that met and the lowest that missed.

    rate: the estimate.
    shares: the shares of bad requests by rate.
    met, missed: those rates.
    """
    low = min(law.low, rate) if law.bounded_below else None
    high = max(law.high, rate) if law.bounded_above else None
    if not any(_contradicts(law, at, share) for at, share in shares):
        return low, high
    return (
        None if met is None else min(met, met if low is None else low),
        None if missed is None else max(missed, missed if high is None else high),
    )


def _contradicts(law: Estimate, rate: float, share: Share) -> bool:
    """Whether a run is surely off the law, however its line may bend (two of the standard deviations that
    sizing/threshold.py assumes)."""
    distance = rate / law.rate - 1
    bend = 2 * law.slope * min(2 * distance**2, 0.5 * abs(distance))
    line = log_odds(min(max(law.share_at(rate), 1e-12), 1 - 1e-12))
    least, most = (1 / (1 + math.exp(-max(min(line + part, 30.0), -30.0))) for part in (-bend, bend))
    return at_least(share.bad, share.size, most) < _SURELY or at_most(share.bad, share.size, least) < _SURELY


def bracket(runs: Sequence[Outcome], objectives: Sequence[Objective]) -> tuple[float | None, float | None]:
    """(low, high): up to the rate `low` hardly anything was bad, in a run of enough requests for some that may be; from
    `high` on an objective was missed by far. None where no run shows it, and where the two contradict each other, as
    latencies are longer at low rates, or by luck."""
    allowed = [1 - objective.rank for objective in objectives]

    def shares(run: Outcome) -> zip[tuple[Share, float]]:
        return zip(run.shares, allowed, strict=True)

    far = (run.step.rate for run in runs if any(_missed_by_far(*pair) for pair in shares(run)))
    some_bad = (run.step.rate for run in runs if any(share.bad > part / FAR for share, part in shares(run)))
    enough = [run.step.rate for run in runs if all(share.size * part >= 1 for share, part in shares(run))]
    high, least = min(far, default=None), min(some_bad, default=math.inf)
    low = max((rate for rate in enough if rate < least), default=None)
    return (None, None) if low is not None and high is not None and low >= high else (low, high)


def _missed_by_far(share: Share, allowed: float) -> bool:
    return share.verdict == "missed" and share.bad > min(FAR / 2 * allowed, 0.5)


def verdict_of(run: Outcome) -> Verdict:
    """Missed if any objective was, met if all were."""
    return overall(share.verdict for share in run.shares) or "met"


def failure_of(run: RunResult) -> str | None:
    """Why the search ends for an engine: it failed, or its outputs under load are wrong; None otherwise."""
    checked, deviation = run.model.verification, run.model.deviation
    for fault in (checked and checked.fault_of(run.config.model.in_flight), deviation and deviation.fault):
        if run.failure is None and fault:
            return fault[0]
    return run.failure


def host_bound(run: RunResult, max_lateness_ns: int | None) -> str | None:
    """Why the load generator was the bottleneck, by the limits of VALID (findings/validity.py); None where it
    was not.

    Requests that were not served in time, or failed, count as bad and make no run host-bound. An open loop that met
    objectives on latency or queue met them: these count from the due instant, so that a late generator only adds to
    them. That does not hold with --max-lateness, nor for compute, which idle lanes make shorter."""
    closed = run.config.model.load.closed
    of_due = all(METRICS[item.objective.metric].of_unserved for item in run.model.objectives)
    if run.verdict == "met" and not closed and of_due and max_lateness_ns is None:
        return None
    late, rank = lateness_of(run.model.metrics["lateness"])
    objectives = [item.objective for item in run.model.objectives]
    limit = lateness_limit_ns(typical_ns(run.model.metrics["latency"]), closed, max_lateness_ns, objectives)
    busy = busy_of(run)
    others = f"; {busy}" if busy else ""
    if late > limit:
        return f"the generator was {format_duration(late)} late at {rank} (limit {format_duration(limit)}){others}"
    if run.model.ok and not run.model.takes_time and not closed and run.verdict != "met":
        return "compute takes no time: all latency is the load generator's"
    if run.model.takes_time and run.model.starved_fraction > STARVED_LIMIT:
        share = f"{100 * run.model.starved_fraction:.0f} %"
        return f"lanes were idle for {share} of the time because the host was late{others}"
    return None
