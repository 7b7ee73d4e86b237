"""Whether a run that still goes on has shown enough: that an objective is missed, or its quantiles well enough known.

Both count in seconds, for requests of one second are late together: with n_i requests in second i, b_i of them bad,
n and b their sums and p = b/n,

    Var(p) = max over B of k/(k − 1) · Σ (b_j − p·n_j)² / n²        N = p(1 − p) / Var(p), at most n

over k batches j of B = 1, 2, 4, … seconds each while there are ten (the ratio estimate by batch means). N independent
requests would tell as much: the laws of measure/verdict.py do the rest. It is cheaper than the verdict on the whole run
and not as careful: it decides only when to stop, and the verdict is given on what was measured by then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from loadtrt.measure.histogram import BUCKETS, CELL
from loadtrt.measure.verdict import discounted, quantile_ranks, share_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from loadtrt.measure.histogram import Histogram
    from loadtrt.measure.objective import Objective
    from loadtrt.measure.result import Interval

    Series = npt.NDArray[np.float64]

_LEAST_SECONDS = 5  # of which batches are compared, for a miss
_BATCHES = 10
_GROWTH = 1.1  # looking is not free: again when a run is a tenth longer


class Misses:
    """Follows how many requests were bad, second by second, for each objective."""

    def __init__(self, objectives: Sequence[Objective]) -> None:
        self._objectives = objectives
        self._requests: list[int] = []
        self._bad: list[list[int]] = [[] for _ in objectives]

    def add(self, requests: int, good: Sequence[int]) -> str | None:
        """One second later: all requests so far, and how many of them were good for each objective. Returns the
        sentence of the first objective that is missed for certain (95 %)."""
        self._requests.append(requests)
        for bad, count in zip(self._bad, good, strict=True):
            bad.append(requests - count)
        if len(self._requests) < _LEAST_SECONDS or not requests:
            return None
        n = np.diff(np.array(self._requests, np.float64), prepend=0)
        for objective, bad in zip(self._objectives, self._bad, strict=True):
            b = np.diff(np.array(bad, np.float64), prepend=0)
            low, _ = share_interval(bad[-1] / requests, effective_requests(n, b))
            if low > 1 - objective.rank:
                return (
                    f"{objective.text} is missed: {100 * bad[-1] / requests:.3g} % of {requests} requests were bad "
                    f"(at least {100 * low:.2g} %, 95 %)"
                )
        return None


class Widths:
    """Follows how well quantiles of latency are known. ranks: of the quantiles; precision: half the width of their 95 %
    interval over the value, to be reached by all."""

    def __init__(self, ranks: Sequence[float], precision: float) -> None:
        self._ranks = ranks
        self._precision = precision
        self._next = _BATCHES

    def narrow_enough(self, intervals: Sequence[Interval], latency: Histogram) -> str | None:
        """The sentence that says so, or None. intervals: the closed seconds; latency: of all requests so far."""
        if len(intervals) < self._next or not latency.count:
            return None
        self._next = max(len(intervals) + 1, round(len(intervals) * _GROWTH))
        cells = np.zeros((len(intervals), BUCKETS // CELL))
        for row, interval in zip(cells, intervals, strict=True):
            row[list(interval.latency_counts)] = list(interval.latency_counts.values())
        worst = 0.0
        for rank in self._ranks:
            width = _half_width(rank, cells, latency)
            if width is None or width > self._precision:
                return None
            worst = max(worst, width)
        names = ", ".join(f"p{100 * rank:g}" for rank in self._ranks)
        return f"latency's {names} {'is' if len(self._ranks) == 1 else 'are'} known within ±{100 * worst:.2g} %"


def effective_requests(requests: Series, bad: Series) -> float:
    """N of the law above, [seconds] each."""
    n, p = float(requests.sum()), float(bad.sum() / requests.sum())
    if p in (0.0, 1.0):
        return n
    sums = np.concatenate(([0.0], np.cumsum(bad - p * requests)))
    variance, block = p * (1 - p) / n, 1
    while len(requests) // block >= (_BATCHES if block > 1 else 2):
        ends = sums[::block]
        k = len(ends) - 1
        variance = max(variance, k / (k - 1) * float(np.sum(np.diff(ends) ** 2)) / n**2)
        block *= 2
    return discounted(p * (1 - p) / variance)


def _half_width(rank: float, cells: Series, latency: Histogram) -> float | None:
    """Half of the interval's width over the value; None where the sample does not bound it."""
    counts, totals = cells.sum(axis=0), cells.sum(axis=1)
    above = np.cumsum(counts[::-1])[::-1]  # in this cell or above it
    wanted = (1 - rank) * counts.sum()
    cell = int(np.flatnonzero(above >= wanted)[-1]) if wanted > 0 else len(counts) - 1
    rest = above[cell] - counts[cell]
    part = (wanted - rest) / counts[cell] if counts[cell] else 0.0  # of the cell that holds the quantile
    bad = cells[:, cell + 1 :].sum(axis=1) + part * cells[:, cell]
    ranks = quantile_ranks(rank, effective_requests(totals, bad))
    if ranks[0] is None or ranks[1] is None:
        return None
    low, value, high = latency.quantiles((ranks[0], rank, ranks[1]))
    return (high - low) / 2 / value if value else 0.0
