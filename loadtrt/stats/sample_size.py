"""How many samples a percentile needs before it is told, and how many samples of one weight are worth weighted ones."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt

_CONFIDENCE = 0.99


def least_samples(rank: float) -> int:
    """The fewest samples whose maximum bounds the quantile from above with 99 % confidence.

    n ≥ ln(1 − c) / ln q, since P(all n samples lie below the q-quantile) = q^n. c: confidence, q: rank in (0, 1).
    44 for p90, 459 for p99, 4603 for p99.9. Source: MLPerf LoadGen's early stopping with no sample above.
    """
    return math.ceil(math.log(1 - _CONFIDENCE) / math.log(rank))


def kish_size(weights: npt.NDArray[Any], counts: npt.NDArray[Any] | float = 1.0) -> float:
    """(Σ w)²/Σ w², how many values of equal weight are worth these (Kish, Survey Sampling, 1965).

    counts: how often each weight occurs.
    """
    return float((counts * weights).sum() ** 2 / max(float((counts * weights**2).sum()), 1e-300))
