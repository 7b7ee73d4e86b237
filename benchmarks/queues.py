"""Closed forms of queues: what simulations and searches are held against.

c: servers, each of which serves μ requests a second; λ: arrival rate; a = λ/μ: offered load; ρ = a/c: utilisation.
Times are seconds. Latency is queueing delay plus service time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt


def markov_tail(t: float, waiting: Waiting, service_s: float) -> float:
    """P(latency > t) where service is exponential with mean 1/μ and does not depend on the wait: M/M/c, GI/M/1.

    (1 − C)·e^{−μt} + C·(δ·e^{−μt} − μ·e^{−δt}) / (δ − μ), C: the share that waits, 1/δ: its mean wait.
    """
    mu, delta = 1 / service_s, 1 / waiting.mean_s
    if math.isclose(mu, delta, rel_tol=1e-9):
        both = math.exp(-mu * t) * (1 + mu * t)
    else:
        both = (delta * math.exp(-mu * t) - mu * math.exp(-delta * t)) / (delta - mu)
    return (1 - waiting.share) * math.exp(-mu * t) + waiting.share * both


def markov_quantile(rank: float, waiting: Waiting, service_s: float) -> float:
    """The latency that a share 1 − rank of requests exceeds, by bisection of `markov_tail`."""
    high = (service_s + waiting.mean_s) * -2 * math.log(1 - rank)
    return falls_below(lambda t: markov_tail(t, waiting, service_s), 1 - rank, high)


def gamma_m_1(rate: float, service_s: float, arrivals_cv2: float) -> Waiting:
    """Waits of GI/M/1 with gamma gaps, ρ < 1: exact. Ca² = 1/G is every G-th request of a Poisson process (E_G/M/1).

    A share σ waits, exponentially with mean 1 / (μ(1 − σ)), σ < 1 the root of σ = A*(μ(1 − σ)), the gaps' transform
    being A*(s) = (1 + s·Ca²/λ)^{−1/Ca²} (Kendall, 1953). The latency is then exponential with that mean, too.
    """
    mu, low, high = 1 / service_s, 0.0, 1 - 1e-12
    while high - low > 1e-14:
        sigma = (low + high) / 2
        gaps = -math.log1p(mu * (1 - sigma) * arrivals_cv2 / rate) / arrivals_cv2
        low, high = (sigma, high) if math.exp(gaps) > sigma else (low, sigma)
    return Waiting(low, service_s / (1 - low))


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
