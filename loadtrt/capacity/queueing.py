"""Closed forms of queueing theory, which estimate a fleet without simulation.

c: servers, each of which serves μ requests a second; λ: arrival rate; a = λ/μ: offered load; ρ = a/c: utilisation.
Times are seconds. Latency is queueing delay plus service time. Allen and Cunneen's formula takes contexts for servers,
each as slow as when all contexts are busy; with least-outstanding routing the contexts of all GPUs share one queue.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from loadtrt.asked.objective import Objective
    from loadtrt.capacity.demand import Demand
    from loadtrt.capacity.station import Station
    from loadtrt.results.fleet_result import Routing


def erlang_c(servers: int, load: float) -> float:
    """The probability of waiting in M/M/c with offered load a < c (Erlang, 1917); 1 if a ≥ c.

    C = B / (1 − ρ(1 − B)), and Erlang's loss B by B₀ = 1, B_k = a·B_{k−1} / (k + a·B_{k−1}), which is stable for any c.
    """
    if load >= servers:
        return 1.0
    lost = 1.0
    for k in range(1, servers + 1):
        lost = load * lost / (k + load * lost)
    return lost / (1 - load / servers * (1 - lost))


@dataclass(frozen=True, slots=True)
class Waiting:
    """Distribution of the queueing delay: P(wait > t) = share · exp(−t / mean_s). Exact for M/M/c and GI/M/1, an
    approximation otherwise.

    share: probability of waiting at all.
    mean_s: mean delay of those that wait.
    """

    share: float
    mean_s: float

    def latency_tail(self, t: float, services: npt.NDArray[np.float64]) -> float:
        """P(wait + service > t) of service times S, float64 [n], equally likely: the mean of P(wait > t − S)."""
        left = np.maximum(t - services, 0.0)
        waits = self.share * np.exp(-left / self.mean_s) if self.mean_s else np.zeros(len(services))
        return float(np.mean(np.where(services > t, 1.0, waits)))

    def latency_quantile(self, rank: float, services: npt.NDArray[np.float64]) -> float:
        """A quantile of latency, by bisection."""
        high = float(services.max()) + self.mean_s * math.log(max(self.share / (1 - rank), 1.0))
        return falls_below(lambda t: self.latency_tail(t, services), 1 - rank, high)


def allen_cunneen(
    servers: int, rate: float, service_s: float, arrivals_cv2: float, service_cv2: float
) -> Waiting | None:
    """Waits of G/G/c, an approximation (Allen, Probability, statistics and queueing theory, 1978); None where ρ ≥ 1.

        E[W] = C(c, a) / (cμ − λ) · (Ca² + Cs²) / 2        P(W > t) ≈ C(c, a) · exp(−t · C(c, a) / E[W])

    Ca², Cs²: squared coefficients of variation (deviation / mean) of gaps and of service times; 1/μ: `service_s`. Exact
    for M/M/c, and for c = 1 its mean is that of M/G/1 (Pollaczek and Khinchine).
    """
    load = rate * service_s
    if load >= servers:
        return None
    share = erlang_c(servers, load)
    return Waiting(share, (arrivals_cv2 + service_cv2) / 2 * service_s / (servers - load))


def falls_below(falling: Callable[[float], float], level: float, high: float) -> float:
    """The argument in [0, high] at which a falling function reaches `level`, within a millionth of `high`."""
    low, width = 0.0, high
    while high - low > 1e-6 * width:
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > level else (low, middle)
    return high


def estimated_ns(demand: Demand, station: Station, routing: Routing, gpus: int, rank: float) -> float | None:
    """A quantile of latency with `gpus` GPUs; None without a steady state."""
    pooled = gpus if routing == "least-outstanding" else 1
    service_s = station.contexts / station.most_per_s
    rate, cv2 = demand.summary.planned_per_s * pooled / gpus, demand.cv2_at_gpu(routing, gpus)
    waiting = allen_cunneen(station.contexts * pooled, rate, service_s, cv2, station.cv2)
    return None if waiting is None else waiting.latency_quantile(rank, station.works * service_s) * SECOND_NS


def estimated_gpus(
    demand: Demand, station: Station, routing: Routing, objectives: Sequence[Objective], least: int, most: int
) -> int | None:
    """The fewest GPUs from `least` on that meet all objectives; None if `most` do not."""

    def meets(gpus: int) -> bool:
        values = [(estimated_ns(demand, station, routing, gpus, bound.rank), bound.bound_ns) for bound in objectives]
        return all(value is not None and value <= limit for value, limit in values)

    low, high = least - 1, least
    while not meets(high):
        if high >= most:
            return None
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if meets(middle) else (middle, high)
    return high
