"""The binomial law and Student's, for any real number of requests: by the regularized incomplete beta function."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


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
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / (1 + term * d)
            c = 1 + term / c
            change = c * d
            value *= change
    return math.exp(scale) * value / a


def student_chance(t: float, freedom: float) -> float:
    """P(|T| > t) for Student's T with ν real degrees of freedom: I_x(ν/2, 1/2), x = ν/(ν + t²)."""
    return beta(freedom / 2, 0.5, freedom / (freedom + t * t))
