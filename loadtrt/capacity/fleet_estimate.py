"""A fleet by Allen and Cunneen's formula: contexts are taken for servers, each as slow as when all are at work; for
least-outstanding routing, all GPUs' contexts are behind one queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtrt.capacity.queueing import allen_cunneen
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.asked.objective import Objective
    from loadtrt.capacity.demand import Demand
    from loadtrt.capacity.station import Station
    from loadtrt.results.fleet_result import Routing


def estimated_ns(demand: Demand, each: Station, routing: Routing, gpus: int, rank: float) -> float | None:
    """A quantile of latency; None where `gpus` of them have no steady state."""
    pooled = gpus if routing == "least-outstanding" else 1
    service_s = each.contexts / each.most_per_s
    rate, cv2 = demand.told.planned_per_s * pooled / gpus, demand.cv2_at_gpu(routing, gpus)
    waiting = allen_cunneen(each.contexts * pooled, rate, service_s, cv2, each.cv2)
    return None if waiting is None else waiting.latency_quantile(rank, each.works * service_s) * SECOND_NS


def estimated_gpus(
    demand: Demand, each: Station, routing: Routing, objectives: Sequence[Objective], least: int, most: int
) -> int | None:
    """The fewest from `least` on that meet all objectives; None where as many as `most` do not."""

    def meets(gpus: int) -> bool:
        values = [(estimated_ns(demand, each, routing, gpus, one.rank), one.bound_ns) for one in objectives]
        return all(value is not None and value <= bound for value, bound in values)

    low, high = least - 1, least
    while not meets(high):
        if high >= most:
            return None
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if meets(middle) else (middle, high)
    return high
