"""The binomial law, intervals by it, and Student's law, for any real number of requests: by the regularized incomplete
beta function."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

TAIL = 0.025  # probability beyond each end of an interval


def at_least(share: float, size: float, p: float) -> float:
    """P(X ≥ size·share), X binomial(size, p)."""
    return beta(size * share, size * (1 - share) + 1, p) if size * share else 1.0


def at_most(share: float, size: float, p: float) -> float:
    """P(X ≤ size·share), X binomial(size, p)."""
    return beta(size * (1 - share), size * share + 1, 1 - p) if size * (1 - share) else 1.0


def root(rising: Callable[[float], float]) -> float:
    """Where in [0, 1] a rising function passes 0, by bisection."""
    low, high = 0.0, 1.0
    while high - low > 1e-12 + 1e-6 * low:
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2


def share_interval(share: float, size: float) -> tuple[float, float]:
    """95 % confidence interval (low, high) of the true share, from the share among `size` independent requests."""
    if not size:
        return 0.0, 1.0
    low = root(lambda p: at_least(share, size, p) - TAIL) if share > 0 else 0.0
    high = root(lambda p: TAIL - at_most(share, size, p)) if share < 1 else 1.0
    return low, high


def surely_above(share: float, size: float, allowed: float) -> bool:
    """Whether the lower end of `share_interval` is above the allowed share."""
    return bool(size) and at_least(share, size, allowed) < TAIL


@lru_cache(maxsize=256)  # looks at a run that goes on, and its result, ask for the same
def quantile_ranks(rank: float, size: float) -> tuple[float | None, float | None]:
    """Ranks of the sample between which the true quantile lies, 95 %; None on a side that `size` does not bound."""
    allowed = 1 - rank
    low = high = None
    if size and at_least(1.0, size, allowed) <= TAIL:
        low = 1 - root(lambda f: TAIL - at_least(f, size, allowed))
    if size and at_most(0.0, size, allowed) <= TAIL:
        high = 1 - root(lambda f: at_most(f, size, allowed) - TAIL)
    return low, high


def beta(a: float, b: float, x: float) -> float:
    """The regularized incomplete beta function I_x(a, b), a and b > 0, by its continued fraction (Lentz's method).

    I_x(a, b) = x^a (1 − x)^b / (a B(a, b)) · 1/(1 + d₁/(1 + d₂/(1 + …))), DLMF 8.17.22; converges fast for
    x < (a + 1)/(a + b + 2), else I_x(a, b) = 1 − I_{1−x}(b, a).
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - beta(b, a, 1 - x)
    scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    c, d = 1.0, 1.0 / (1 - (a + b) * x / (a + 1))
    value, m, change = d, 0, 0.0
    while abs(change - 1) > 1e-10:
        m += 1
        place = a + 2 * m
        term = m * (b - m) * x / ((place - 1) * place)
        d = 1 / (1 + term * d)
        c = 1 + term / c
        value *= c * d
        term = -(a + m) * (a + b + m) * x / (place * (place + 1))
        d = 1 / (1 + term * d)
        c = 1 + term / c
        change = c * d
        value *= change
    return math.exp(scale) * value / a


def student_chance(t: float, freedom: float) -> float:
    """P(|T| > t) for Student's T with ν real degrees of freedom: I_x(ν/2, 1/2), x = ν/(ν + t²)."""
    return beta(freedom / 2, 0.5, freedom / (freedom + t * t))
