"""95 % confidence intervals of a run's percentiles, means and rates: by the law of the verdicts (stats/verdict.py).

**Percentiles.** The quantile's interval there: order statistics at ranks that the binomial law gives for the effective
sample size at the quantile. It has no upper end where requests are worth too few independent ones: below 449 for p99.

**Means.** With N the effective size of the values themselves (`effective_mean`), m their mean, s their standard
deviation, g their skewness, M = N²/(N + 200) and h = 1.96·s/(m·√M),

    low = m / (1 + h)        high = m / (1 − h·(1 + g·(2·1.96² + 1)/(6·1.96·√M)))        none where that is not above 0

1.96: the normal quantile at 97.5 %. The term in g is Edgeworth's (Hall, The bootstrap and Edgeworth expansion, 1992,
section 2.6): of values with a long tail, a sample that saw none of the longest is the likely one, and its mean is too
low. The reciprocal has the same reason: near saturation a queue's mean varies with its square, so that 1/m has nearly
the same variance wherever m lies. N²/(N + 200): N itself is too large in such a sample, and for a mean, which the
longest queues carry, twice as much as for a percentile.

**Rates** are reciprocals of the mean gap from one completion to the next.

`benchmarks/coverage.py` measures how often intervals hold the truth, and how wide they are: the two constants were
chosen by that (M/M/1, M/M/4, M/D/1 and M/G/1, lognormal CV 2, 30 to 90 % load, 1 000 to 100 000 requests).

Requests are alike only under a steady load. Where the arrival rate changes, latency, queue and throughput differ by the
schedule, and these have no intervals. An interval of one run does not cover what varies from run to run, or more slowly
than a run lasts.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.records.histogram import QUANTILE_ERROR
from loadtrt.results.breakdown import ConfidenceInterval
from loadtrt.stats.verdict import NORMAL, effective_mean, quantile_ends

if TYPE_CHECKING:
    import numpy.typing as npt

    from loadtrt.records.histogram import Histogram
    from loadtrt.records.records import Records

    Values = npt.NDArray[np.int64]

_UNSEEN = 200  # effective requests: see the law of means


def quantile_interval(
    rank: float, value: float, ordered: Values, values: Values | Histogram
) -> ConfidenceInterval | None:
    """The interval of a percentile; None without a single end.

    rank: rank of the percentile.
    value: the percentile, ns.
    ordered: the kept values, int [n] in the order of due instants.
    values: the kept values, sorted, if they are all; otherwise the histogram of all.
    """

    def at(wanted: float) -> float:
        if isinstance(values, np.ndarray):
            return float(values[max(math.ceil(wanted * len(values)), 1) - 1])
        return values.quantiles((wanted,))[0]

    moved = np.minimum(ordered / max(value, 1.0), 1.0)
    low, high, size = quantile_ends(rank, value, ordered > value, moved, at)
    if not isinstance(values, np.ndarray):
        low, high = low and low / (1 + QUANTILE_ERROR), high and high * (1 + QUANTILE_ERROR)
    return _known(low, high, size)


def mean_interval(mean: float, ordered: Values) -> ConfidenceInterval | None:
    """The interval of a mean; None without a single end.

    mean: the mean of all values, ns.
    ordered: the kept values, int [n] in the order of due instants.
    """
    below, above, size = _spread(ordered)
    return _known(mean * below if below else None, mean * above if above else None, size)


def rate_interval(rate: float, records: Records) -> ConfidenceInterval | None:
    """The interval of a rate of served requests: by the mean gap from one completion to the next."""
    completed = np.sort(records.ok.completed)
    below, above, size = _spread(completed[1:] - completed[:-1])
    return _known(rate / above if above else None, rate / below if below else None, size)


def _spread(ordered: Values) -> tuple[float | None, float | None, float]:
    """The ends of a mean's interval over the mean, and the effective size; None for an end that is not known."""
    values = ordered.astype(np.float64)
    size = effective_mean(values)
    mean = float(values.mean()) if len(values) else 0.0
    if size < 1 or mean <= 0:
        return None, None, size
    deviation, root = float(values.std()), size / math.sqrt(size + _UNSEEN)
    half = NORMAL * deviation / (mean * root)
    skewness = float(np.mean(((values - mean) / deviation) ** 3)) if deviation else 0.0
    longer = half * (1 + max(skewness, 0.0) * (2 * NORMAL**2 + 1) / (6 * NORMAL * root))
    return 1 / (1 + half), 1 / (1 - longer) if longer < 1 else None, size


def _known(low: float | None, high: float | None, size: float) -> ConfidenceInterval | None:
    return None if low is None and high is None else ConfidenceInterval(low=low, high=high, effective=size)
