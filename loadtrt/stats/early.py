"""Whether a run may end early: an objective is missed, or the quantiles are known precisely enough.

The answer is the verdict's law on the records so far (stats/verdict.py). Counting a million records and applying it
takes 0.4 s (AMD EPYC), and makes requests late that come due meanwhile. So the law is applied seldom: where a cheap
estimate suggests it, and again only when the run is a quarter longer. The cheap estimate takes seconds as batches, as
requests of one second are late together: with n_i requests in second i, b_i of them bad, n and b their sums and
p = b/n,

    Var(p) = k/(k − 1) · Σ (b_i − p·n_i)² / n²        N = p(1 − p) / Var(p), at most n

over k seconds, or longer intervals in a long run (the ratio estimate by batch means), with N the effective sample size.

Several looks raise the share of false alarms: each look allows 2.5 %. They are few, and the law errs to the safe side
(benchmarks/early.py measures how often the answer is wrong).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from loadtrt.records.histogram import CELL, bucket_of
from loadtrt.records.records import METRICS, Records
from loadtrt.records.spans import MOST_SPANS
from loadtrt.stats.binomial import TAIL, at_least
from loadtrt.stats.intervals import quantile_interval
from loadtrt.stats.verdict import discounted, interval_ranks, judge
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import numpy.typing as npt

    from loadtrt.asked.objective import Objective
    from loadtrt.records.histogram import Histogram, PackedHistogram
    from loadtrt.records.spans import Span
    from loadtrt.results.run_result import ObjectiveShare

    Series = npt.NDArray[np.float64]

LEAST_SECONDS = 5
_GROWTH = 1.25
_LATENCY = next(number for number, metric in enumerate(METRICS) if metric.name == "latency")


class Misses:
    """Bad requests of each objective by seconds, and by 2, 4, 8, … seconds in a run of more than MOST_SPANS."""

    def __init__(self, objectives: Sequence[Objective]) -> None:
        self._objectives = objectives
        self._seconds, self._each = 0, 1  # seconds so far, and those of a batch
        self._requests: list[int] = []  # up to the end of each batch, the last of which may not be whole
        self._bad: list[list[int]] = [[] for _ in objectives]
        self._not_before = [0] * len(objectives)

    def add(self, pieces: Iterable[Records]) -> None:
        """Add the requests of another second."""
        requests, good = 0, [0] * len(self._objectives)
        for records in pieces:
            requests += len(records)
            for place, objective in enumerate(self._objectives):
                good[place] += int(np.count_nonzero(~objective.bad(records)))
        more = (requests, *(requests - count for count in good))
        for reached, count in zip((self._requests, *self._bad), more, strict=True):
            if self._seconds % self._each == 0:
                reached.append(reached[-1] if reached else 0)
            reached[-1] += count
        self._seconds += 1
        if self._seconds == MOST_SPANS * self._each:
            self._each *= 2
            for reached in (self._requests, *self._bad):
                del reached[::2]  # of two neighbours the second has what both have

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
    ranks = {item.rank for item in objectives if item.metric_name == "latency" and item.rank < 1}
    return sorted(ranks) or [0.99]


class Widths:
    """Precision of the latency quantiles at `ranks`.

    precision: half the width of the 95 % confidence interval over the value, which every quantile must reach.
    """

    def __init__(self, ranks: Sequence[float], precision: float) -> None:
        self._ranks = ranks
        self._precision = precision
        self._not_before = 0

    def narrow_enough(
        self, spans: Sequence[Span[PackedHistogram]], records: Records, latency: Histogram
    ) -> float | None:
        """The precision reached, None where it is not yet enough.

        spans: what completed in each interval that is over.
        records: kept records.
        latency: latencies of all requests so far.
        """
        seconds = spans[-1].start_ns // SECOND_NS + 1 if spans else 0
        if seconds < max(LEAST_SECONDS, self._not_before) or not latency.count:
            return None
        self._not_before = round(seconds * _GROWTH)
        if any(self._too_wide(_coarse_half_width(rank, spans, latency)) for rank in self._ranks):
            return None
        reached = self.reached(records, latency)
        return None if self._too_wide(reached) else reached

    def reached(self, records: Records, latency: Histogram) -> float | None:
        """The largest half width over its value; None where the sample bounds a quantile on one side only."""
        kept = METRICS[_LATENCY].values(Records(records.rows[np.argsort(records.due, kind="stable")]))
        if not latency.count:
            return None
        values = np.sort(kept) if len(kept) == latency.count else latency
        widths = []
        for rank in self._ranks:
            (value,) = latency.quantiles((rank,))
            interval = quantile_interval(rank, value, kept, values)
            if interval is None or interval.low is None or interval.high is None:
                return None
            widths.append((interval.high - interval.low) / 2 / value if value else 0.0)
        return max(widths)

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


def _coarse_half_width(rank: float, spans: Sequence[Span[PackedHistogram]], latency: Histogram) -> float | None:
    """Half width from the intervals: requests in cells above the quantile's cell are bad."""
    spans = [span for span in spans if span.requests]
    if len(spans) < LEAST_SECONDS:
        return None
    (value,) = latency.quantiles((rank,))
    cell = int(bucket_of(np.array([round(value)]))[0]) // CELL
    requests = np.array([span.requests for span in spans], np.float64)
    above = [int(span.latency.counts[span.latency.buckets // CELL > cell].sum()) for span in spans]
    return _half_width(rank, effective_requests(requests, np.array(above, np.float64)), latency)


def _half_width(rank: float, size: float, latency: Histogram) -> float | None:
    low_rank, high_rank = interval_ranks(rank, size)
    if low_rank is None or high_rank is None:
        return None
    low, value, high = latency.quantiles((low_rank, rank, high_rank))
    return (high - low) / 2 / value if value else 0.0
