"""Closed forms of queueing theory: estimates at once.

c: servers, each of which serves μ requests a second; λ: requests a second; a = λ/μ the offered load, ρ = a/c. Times are
seconds. A latency is a wait in the queue and a service.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt


def erlang_c(servers: int, load: float) -> float:
    """The share of requests that must wait in M/M/c, of a < c offered (Erlang, 1917); 1 where a ≥ c.

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
    """How long requests wait: not at all, or, a share `share` of them, exponentially long with this mean.

    P(wait > t) = share · exp(−t / mean_s). Exact for M/M/c and GI/M/1, an estimate elsewhere."""

    share: float
    mean_s: float

    def latency_tail(self, t: float, services: npt.NDArray[np.float64]) -> float:
        """P(wait + service > t) of service times S, float64 [n], equally likely: the mean of P(wait > t − S)."""
        left = np.maximum(t - services, 0.0)
        waits = self.share * np.exp(-left / self.mean_s) if self.mean_s else np.zeros(len(services))
        return float(np.mean(np.where(services > t, 1.0, waits)))

    def latency_quantile(self, rank: float, services: npt.NDArray[np.float64]) -> float:
        """The latency that a share 1 − rank of requests exceeds, by bisection."""
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
    """Where in [0, high] a falling function passes `level`, within a millionth of high."""
    low, width = 0.0, high
    while high - low > 1e-6 * width:
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > level else (low, middle)
    return high
