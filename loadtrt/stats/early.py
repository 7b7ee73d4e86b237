"""Whether a run may end early: an objective is missed, or the quantiles are known precisely enough.

The answer is the verdict's law on the records so far (stats/verdict.py). Counting a million records and applying it
takes 0.4 s (AMD EPYC), and makes requests late that come due meanwhile. So the law is applied seldom: where a cheap
estimate suggests it, and again only when the run is a quarter longer. The cheap estimate takes seconds as batches, as
requests of one second are late together: with n_i requests in second i, b_i of them bad, n and b their sums and
p = b/n,

    Var(p) = k/(k − 1) · Σ (b_i − p·n_i)² / n²        N = p(1 − p) / Var(p), at most n

over k seconds (the ratio estimate by batch means), with N the effective sample size.

Several looks raise the share of false alarms: each look allows 2.5 %. They are few, and the law errs to the safe side
(benchmarks/early.py measures how often the answer is wrong).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from loadtrt.asked.objective import Objective
from loadtrt.records.histogram import CELL, bucket_of
from loadtrt.records.records import METRICS, OK
from loadtrt.stats.verdict import TAIL, at_least, discounted, effective_size, judge, quantile_ranks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import numpy.typing as npt

    from loadtrt.records.histogram import Histogram
    from loadtrt.records.records import Records
    from loadtrt.results.interval import Interval
    from loadtrt.results.run_result import ObjectiveShare

    Series = npt.NDArray[np.float64]

LEAST_SECONDS = 5
_GROWTH = 1.25
_LATENCY = next(number for number, metric in enumerate(METRICS) if metric.name == "latency")


class Misses:
    """Bad requests of each objective, second by second."""

    def __init__(self, objectives: Sequence[Objective]) -> None:
        self._objectives = objectives
        self._requests: list[int] = []
        self._bad: list[list[int]] = [[] for _ in objectives]
        self._not_before = [0] * len(objectives)

    def add(self, pieces: Iterable[Records]) -> None:
        """Add the requests of another second."""
        requests, good = 0, [0] * len(self._objectives)
        for records in pieces:
            served = records.status == OK
            requests += len(records)
            for place, objective in enumerate(self._objectives):
                within = METRICS[objective.metric].of(records) <= objective.limit_ns
                good[place] += int(np.count_nonzero(within & served))
        self._requests.append(requests + (self._requests[-1] if self._requests else 0))
        for bad, count in zip(self._bad, good, strict=True):
            bad.append(requests - count + (bad[-1] if bad else 0))

    def missed(self, count: Callable[[], Records], histograms: Sequence[Histogram]) -> ObjectiveShare | None:
        """The share of the first objective that is missed by now; None where none is.

        count: counts the records so far and returns the kept ones. Called only where the estimate suggests a miss.
        histograms: values of all requests after `count`, by metric.
        """
        if len(self._requests) < LEAST_SECONDS:
            return None
        requests = self._requests[-1]
        for place, (objective, bad) in enumerate(zip(self._objectives, self._bad, strict=True)):
            if requests >= self._not_before[place] and self._looks_missed(objective, bad):
                self._not_before[place] = round(requests * _GROWTH)
                share = judge(objective, count(), histograms[objective.metric], requests - bad[-1], requests)
                if share.verdict == "missed":
                    return share
        return None

    def _looks_missed(self, objective: Objective, bad: Sequence[int]) -> bool:
        requests, allowed = self._requests[-1], 1 - objective.rank
        if not requests or bad[-1] / requests <= allowed:
            return False
        n = np.diff(np.array(self._requests, np.float64), prepend=0)
        size = effective_requests(n, np.diff(np.array(bad, np.float64), prepend=0))
        return at_least(bad[-1] / requests, size, allowed) <= TAIL


def ranks_of(objectives: Sequence[Objective]) -> list[float]:
    """Ranks of the latency quantiles that --precision is about: those of the objectives, else p99."""
    ranks = {objective.rank for objective in objectives if objective.metric == _LATENCY and objective.rank < 1}
    return sorted(ranks) or [0.99]


class Widths:
    """Precision of the latency quantiles at `ranks`.

    precision: half the width of the 95 % confidence interval over the value, which every quantile must reach.
    """

    def __init__(self, ranks: Sequence[float], precision: float) -> None:
        self._ranks = ranks
        self._precision = precision
        self._not_before = 0

    def narrow_enough(self, intervals: Sequence[Interval], records: Records, latency: Histogram) -> float | None:
        """The precision reached, None where it is not yet enough.

        intervals: closed seconds.
        latency: latencies of all requests so far.
        """
        if len(intervals) < max(LEAST_SECONDS, self._not_before) or not latency.count:
            return None
        self._not_before = round(len(intervals) * _GROWTH)
        if any(self._too_wide(_coarse_half_width(rank, intervals, latency)) for rank in self._ranks):
            return None
        reached = self.reached(records, latency)
        return None if self._too_wide(reached) else reached

    def reached(self, records: Records, latency: Histogram) -> float | None:
        """The largest half width over its value; None where the sample bounds a quantile on one side only."""
        widths = []
        for rank in self._ranks:
            (value,) = latency.quantiles((rank,)) if latency.count else (0.0,)
            objective = Objective("", _LATENCY, rank, max(round(value), 1))
            widths.append(_half_width(rank, effective_size(objective, records), latency))
        known = [width for width in widths if width is not None]
        return max(known) if len(known) == len(widths) else None

    def _too_wide(self, width: float | None) -> bool:
        return width is None or width > self._precision


def effective_requests(requests: Series, bad: Series) -> float:
    """Effective sample size N (see above). requests, bad: float64 [seconds], of at least two seconds."""
    n, p = float(requests.sum()), float(bad.sum() / requests.sum())
    if p in (0.0, 1.0):
        return discounted(n)
    k = len(requests)
    variance = k / (k - 1) * float(np.sum((bad - p * requests) ** 2)) / n**2
    return discounted(p * (1 - p) / max(variance, p * (1 - p) / n))


def _coarse_half_width(rank: float, intervals: Sequence[Interval], latency: Histogram) -> float | None:
    """Half width from the seconds whose latencies are kept: requests in cells above the quantile's cell are bad."""
    intervals = [interval for interval in intervals if interval.latency_counts]
    if len(intervals) < LEAST_SECONDS:
        return None
    (value,) = latency.quantiles((rank,))
    cell = int(bucket_of(np.array([round(value)]))[0]) // CELL
    requests = np.array([interval.requests for interval in intervals], np.float64)
    above = [sum(count for at, count in second.latency_counts.items() if at > cell) for second in intervals]
    return _half_width(rank, effective_requests(requests, np.array(above, np.float64)), latency)


def _half_width(rank: float, size: float, latency: Histogram) -> float | None:
    low_rank, high_rank = quantile_ranks(rank, size)
    if low_rank is None or high_rank is None:
        return None
    low, value, high = latency.quantiles((low_rank, rank, high_rank))
    return (high - low) / 2 / value if value else 0.0
