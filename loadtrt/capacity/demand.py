"""What a fleet is to serve: a rate, stages or a trace, grown and with headroom; and when it reaches each GPU."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from loadtrt.errors import UsageError
from loadtrt.results.fleet_result import FleetDemand
from loadtrt.units import SECOND_NS, format_count

if TYPE_CHECKING:
    import numpy.typing as npt

    from loadtrt.load.stages import Course
    from loadtrt.load.trace import Trace
    from loadtrt.results.fleet_result import Routing

    Floats = npt.NDArray[np.float64]

_MINUTE_NS = 60 * SECOND_NS
_HOUR_NS = 60 * _MINUTE_NS
_MOST_REPLAYED = 200_000  # requests of a trace: seconds of simulation for each size of the fleet
_LEAD = 10  # before them, a tenth as many fill the queues
_SLICES = 60  # of a ramp, taken as steady


@dataclass(frozen=True, slots=True, eq=False)
class Demand:
    """told: as results tell it. cv: deviation / mean of gaps between requests. course: (share of the time, requests a
    second, with growth and headroom) of all there is, for autoscaling; empty for a rate that does not change. instants:
    of the part of a trace that is replayed, s, planned; the first `lead` of them only fill the queues."""

    told: FleetDemand
    cv: float
    course: tuple[tuple[float, float], ...] = ()
    instants: Floats | None = None
    lead: int = 0

    def cv2_at_gpu(self, routing: Routing, gpus: int) -> float:
        """(deviation / mean)² of the gaps that one GPU sees, Ca²; of all of them in one queue for least-outstanding.

        round-robin: gaps are sums of G, Ca²/G. random: sums of a geometric number with mean G, 1 + (Ca² − 1)/G.
        """
        cv2 = self.cv**2
        return {"random": 1 + (cv2 - 1) / gpus, "round-robin": cv2 / gpus, "least-outstanding": cv2}[routing]

    def due_at_gpu(self, routing: Routing, gpus: int, count: int, random: np.random.Generator) -> Floats:
        """Instants in s at which `count` requests reach one GPU of `gpus`; all of them for least-outstanding.

        Independent gamma gaps of mean 1/Λ and deviation CV/Λ; k of them in a row are gamma, too. Every G-th request is
        k = G; each request with probability 1/G, whatever became of others, is k geometric: exact thinning.
        """
        gaps_each: Any = 1
        if routing == "round-robin":
            gaps_each = gpus
        elif routing == "random" and gpus > 1:
            gaps_each = random.geometric(1 / gpus, count)
        if self.cv:
            gaps = random.standard_gamma(gaps_each / self.cv**2, count) * self.cv**2
        else:
            gaps = np.full(count, 1.0) * gaps_each
        due: Floats = np.cumsum(gaps / self.told.planned_per_s)
        return due


def steady_demand(rate: float, *, growth: float = 0.0, headroom: float = 0.0, burstiness: float = 1.0) -> Demand:
    """`rate` requests a second, all the time. burstiness: CV of gaps, 1 for Poisson, 0 for constant ones."""
    return Demand(_told(rate, rate, growth, headroom, burstiness), burstiness)


def staged_demand(
    course: Course, source: str, *, growth: float = 0.0, headroom: float = 0.0, burstiness: float = 1.0
) -> Demand:
    """Stages, of which the highest rate must be carried as if it went on for ever."""
    grown = (1 + growth) * (1 + headroom)
    parts = []
    for stage in course.stages:
        slices = 1 if stage.first == stage.last else _SLICES
        share = stage.duration_ns / course.duration_ns / slices
        for number in range(slices):
            rate = stage.first + (stage.last - stage.first) * (number + 0.5) / slices
            parts.append((share, rate * grown))
    peak = max(max(stage.first, stage.last) for stage in course.stages)
    mean = course.requests(course.duration_ns) * SECOND_NS / course.duration_ns
    return Demand(_told(peak, mean, growth, headroom, burstiness, source), burstiness, tuple(parts))


def traced_demand(trace: Trace, source: str, *, growth: float = 0.0, headroom: float = 0.0) -> Demand:
    """A trace: its busiest minute is the rate to carry, and its busiest hour is replayed, or the busiest half of that,
    quarter, …, that has no more than 200 000 requests. Growth and headroom shorten all gaps by their factor, so that
    bursts keep their shape and come faster."""
    instants, grown = trace.instants, (1 + growth) * (1 + headroom)
    mean = len(instants) * SECOND_NS / trace.duration_ns
    minute = min(_MINUTE_NS, trace.duration_ns)
    peak = max(_busiest(instants, minute)[1] * SECOND_NS / minute, mean)
    span = min(_HOUR_NS, trace.duration_ns)
    first, count = _busiest(instants, span)
    while count > _MOST_REPLAYED:
        span //= 2
        first, count = _busiest(instants, span)
    if not count:
        raise UsageError(
            f"{source}: more than {format_count(_MOST_REPLAYED)} requests have the same instant: record finer instants"
        )
    lead = min(first, count // _LEAD)
    replayed = instants[first - lead : first + count]
    minutes = np.bincount(instants // minute)[: max(trace.duration_ns // minute, 1)]
    told, gaps = _told(peak, mean, growth, headroom, None, source), np.diff(replayed)
    return Demand(
        told.model_copy(update={"replayed": count, "replayed_ns": span}),
        cv=float(gaps.std() / gaps.mean()) if gaps.any() else 0.0,
        course=tuple((1 / len(minutes), float(each) * SECOND_NS / minute * grown) for each in minutes),
        instants=(replayed - replayed[0]) / (SECOND_NS * grown),
        lead=lead,
    )


def _told(
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


def _busiest(instants: npt.NDArray[np.int64], span_ns: int) -> tuple[int, int]:
    """(the place of the first, how many): of the stretch of that length with the most requests."""
    counts = np.searchsorted(instants, instants + span_ns) - np.arange(len(instants))
    first = int(np.argmax(counts))
    return first, int(counts[first])


def fewest_for(rate: float, each: float) -> int:
    """The fewest GPUs that carry `rate` at `each` a GPU: rounding must not ask for one more, as 0.3 / 0.1 would."""
    return max(math.ceil(rate / each * (1 - 1e-12)), 1)
