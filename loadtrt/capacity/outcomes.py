"""The runs of a search for capacity, and what they show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from loadtrt.asked.objective import overall
from loadtrt.findings.validity import STARVED_LIMIT, busy_of, lateness_limit_ns, typical_ns
from loadtrt.records.records import METRICS
from loadtrt.stats.verdict import LEAST_MET, share_interval, verdict_on
from loadtrt.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.asked.objective import Objective, Verdict
    from loadtrt.results.run_result import RunResult

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
    return Share(bad, size, verdict_on(objective, bad, size, *share_interval(bad, size)))


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


def too_much(run: Outcome, objectives: Sequence[Objective]) -> bool:
    """Whether a run missed an objective by far."""
    pairs = zip(run.shares, objectives, strict=True)
    return any(share.verdict == "missed" and share.bad > min(FAR / 2 * (1 - one.rank), 0.5) for share, one in pairs)


def nothing_bad(run: Outcome, objectives: Sequence[Objective]) -> bool:
    """Whether hardly anything was bad in a run, of enough requests for some that may be."""
    pairs = [(share, 1 - one.rank) for share, one in zip(run.shares, objectives, strict=True)]
    return all(share.bad <= allowed / FAR and share.size * allowed >= 1 for share, allowed in pairs)


def verdict_of(run: Outcome) -> Verdict:
    """Missed if any objective was, met if all were."""
    return overall(share.verdict for share in run.shares) or "met"


def failure_of(run: RunResult) -> str | None:
    """Why the search ends for an engine: it failed, or its outputs under load are wrong; None otherwise."""
    checked = run.model.verification
    if run.failure is None and checked is not None and checked.different:
        return f"{checked.different} of {checked.outputs} outputs under load differ from those of a quiet run"
    deviation = run.model.deviation
    if run.failure is None and deviation is not None and deviation.fault is not None:
        return deviation.fault[0]
    return run.failure


def host_bound(run: RunResult, max_lateness_ns: int | None) -> str | None:
    """Why the load generator was the bottleneck, by the limits of VALID (findings/validity.py) on the highest
    percentile of lateness up to p99 that the sample supports; None where it was not.

    Requests that were not served in time, or failed, count as bad and make no run host-bound. An open loop that met
    objectives on latency or queue met them: these count from the due instant, so that a late generator only adds to
    them. That does not hold with --max-lateness, nor for compute, which idle lanes make shorter."""
    closed = run.config.model.load.closed
    of_due = all(METRICS[item.objective.metric].of_unserved for item in run.model.objectives)
    if run.verdict == "met" and not closed and of_due and max_lateness_ns is None:
        return None
    lateness = run.model.metrics["lateness"].percentiles_ns.items()
    known = [(name, value) for name, value in lateness if name != "p99.9" and value is not None]
    objectives = [item.objective for item in run.model.objectives]
    limit = lateness_limit_ns(typical_ns(run.model.metrics["latency"]), closed, max_lateness_ns, objectives)
    busy = busy_of(run)
    others = f"; {busy}" if busy else ""
    if known and known[-1][1] > limit:
        name, late = known[-1]
        return f"the generator was {format_duration(late)} late at {name} (limit {format_duration(limit)}){others}"
    if run.model.metrics["compute"].max_ns == 0 and not closed and run.verdict != "met":
        return "compute takes no time: all latency is the load generator's"
    if run.model.metrics["compute"].max_ns and run.model.starved_fraction > STARVED_LIMIT:
        share = f"{100 * run.model.starved_fraction:.0f} %"
        return f"lanes were idle for {share} of the time because the host was late{others}"
    return None
