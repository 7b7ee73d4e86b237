"""Closed forms of queues whose service is exponential: what simulations and searches are held against."""

from __future__ import annotations

import math

from loadtrt.capacity.station import Waiting, falls_below


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
