"""The demand of a fleet: a rate, stages or a trace, with growth and headroom; and when it reaches each GPU."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from loadtrt.errors import UsageError
from loadtrt.load.arrivals import LEAST_CV
from loadtrt.load.trace import MINUTE_NS
from loadtrt.results.fleet_result import FleetDemand
from loadtrt.units import SECOND_NS, format_count

if TYPE_CHECKING:
    import numpy.typing as npt

    from loadtrt.load.arrivals import Course
    from loadtrt.load.trace import Trace
    from loadtrt.results.fleet_result import Routing

    Floats = npt.NDArray[np.float64]

_HOUR_NS = 60 * MINUTE_NS
_MOST_REPLAYED = 200_000  # requests of a trace: seconds of simulation for each size of the fleet
_LEAD = 10  # one in ten requests before those that count fills the queues
POOLED = ("two-choices", "least-outstanding")  # routings that look at all GPUs
_SLICES = 60  # parts of a ramp, each at a constant rate


@dataclass(frozen=True, slots=True, eq=False)
class Demand:
    """The demand of a fleet, with growth and headroom.

    summary: the demand as results keep it.
    cv: coefficient of variation of the gaps between requests.
    course: (share of the time, requests per second) of each part, for autoscaling; empty for a constant rate.
    instants: due instants of the replayed part of a trace, s; None without a trace.
    lead: number of those instants that only fill the queues.
    """

    summary: FleetDemand
    cv: float
    course: tuple[tuple[float, float], ...] = ()
    instants: Floats | None = None
    lead: int = 0

    def cv2_at_gpu(self, routing: Routing, gpus: int) -> float:
        """Squared coefficient of variation Ca² of the gaps at one GPU; at all GPUs together for the routings of POOLED.

        round-robin: gaps are sums of G, Ca²/G. random: sums of a geometric number with mean G, 1 + (Ca² − 1)/G.
        """
        cv2 = self.cv**2
        return {"random": 1 + (cv2 - 1) / gpus, "round-robin": cv2 / gpus}.get(routing, cv2)

    def due_at_gpu(self, routing: Routing, gpus: int, count: int, random: np.random.Generator) -> Floats:
        """Instants in s at which `count` requests reach one GPU of `gpus`; all GPUs together for those of POOLED.

        Independent gamma gaps of mean 1/Λ and deviation CV/Λ; k of them in a row are gamma, too. With
        round-robin k = G; with random routing, probability 1/G for each request, k is geometric: exact thinning.
        """
        gaps_each: Any = 1
        if routing == "round-robin":
            gaps_each = gpus
        elif routing == "random" and gpus > 1:
            gaps_each = random.geometric(1 / gpus, count)
        if self.cv >= LEAST_CV:
            gaps = random.standard_gamma(gaps_each / self.cv**2, count) * self.cv**2
        else:
            gaps = np.full(count, 1.0) * gaps_each
        due: Floats = np.cumsum(gaps / self.summary.planned_per_s)
        return due


def steady_demand(rate: float, *, growth: float = 0.0, headroom: float = 0.0, burstiness: float = 1.0) -> Demand:
    """A constant rate, in requests per second. burstiness: CV of the gaps, 1 for Poisson, 0 for constant ones."""
    return Demand(_summary(rate, rate, growth, headroom, burstiness), burstiness)


def staged_demand(
    course: Course, source: str, *, growth: float = 0.0, headroom: float = 0.0, burstiness: float = 1.0
) -> Demand:
    """Stages: the fleet must sustain their highest rate in a steady state."""
    grown = (1 + growth) * (1 + headroom)
    parts = []
    for stage in course.stages:
        slices = 1 if stage.first == stage.last else _SLICES
        share = stage.duration_ns / course.duration_ns / slices
        for number in range(slices):
            rate = stage.first + (stage.last - stage.first) * (number + 0.5) / slices
            parts.append((share, rate * grown))
    peak = max(max(stage.first, stage.last) for stage in course.stages)
    return Demand(_summary(peak, course.mean_per_s, growth, headroom, burstiness, source), burstiness, tuple(parts))


def traced_demand(trace: Trace, source: str, *, growth: float = 0.0, headroom: float = 0.0) -> Demand:
    """A trace: its busiest minute is the peak, and its busiest hour is replayed, or the busiest half hour, quarter, …
    that has at most 200 000 requests. Growth and headroom shorten all gaps by their factor, so that bursts keep their
    shape and come faster."""
    instants, grown = trace.instants, (1 + growth) * (1 + headroom)
    mean, minute = trace.mean_per_s, min(MINUTE_NS, trace.duration_ns)
    peak = max(trace.busiest(minute)[1] * SECOND_NS / minute, mean)
    span = min(_HOUR_NS, trace.duration_ns)
    first, count = trace.busiest(span)
    while count > _MOST_REPLAYED:
        span //= 2
        first, count = trace.busiest(span)
    if not count:
        many = f"more than {format_count(_MOST_REPLAYED)} requests have the same instant"
        raise UsageError(f"{source}: {many}: record finer instants")
    lead = min(first, count // _LEAD)
    replayed = instants[first - lead : first + count]
    minutes = np.bincount(instants // minute)[: max(trace.duration_ns // minute, 1)]
    summary, gaps = _summary(peak, mean, growth, headroom, None, source), np.diff(replayed)
    return Demand(
        summary.model_copy(update={"replayed": count, "replayed_ns": span}),
        cv=float(gaps.std() / gaps.mean()) if gaps.any() else 0.0,
        course=tuple((1 / len(minutes), float(count) * SECOND_NS / minute * grown) for count in minutes),
        instants=(replayed - replayed[0]) / (SECOND_NS * grown),
        lead=lead,
    )


def _summary(
    peak: float, mean: float, growth: float, headroom: float, burstiness: float | None, source: str = ""
) -> FleetDemand:
    kinds: dict[float | None, Any] = {None: "trace", 0.0: "constant", 1.0: "poisson"}
    return FleetDemand(
        now_per_s=peak,
        growth=growth,
        headroom=headroom,
        planned_per_s=peak * (1 + growth) * (1 + headroom),
        mean_per_s=mean * (1 + growth),
        arrivals=kinds.get(burstiness, "gamma"),
        burstiness=burstiness,
        source=source,
    )


def fewest_for(rate: float, per_gpu: float) -> int:
    """The fewest GPUs that serve `rate` at `per_gpu` each, without one more by rounding, as for 0.3 / 0.1."""
    return max(math.ceil(rate / per_gpu * (1 - 1e-12)), 1)
