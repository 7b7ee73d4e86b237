"""What completed in each interval of a run, in memory that does not grow with the run's length.

Intervals are seconds as long as MOST_SPANS of them hold the run. A longer run has intervals of 2, 4, 8, … seconds:
neighbours are merged in pairs, one pair for each second that comes, as to merge all at once would make a request late.
Merging adds counts, sums and histograms, so that a merged interval is what counting the longer interval at once gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from loadtrt.records.histogram import Histogram, PackedHistogram

Latencies = TypeVar("Latencies", "Histogram", "PackedHistogram")
MOST_SPANS = 1 << 12  # 68 minutes of seconds


@dataclass(slots=True)
class Span(Generic[Latencies]):
    """What completed in one interval.

    start_ns: its start, ns since the start of measuring.
    requests: served requests.
    failed: failed requests.
    latency: latencies of the served requests, ns.
    queue_sum_ns: sum of their queueing delays.
    compute_sum_ns: sum of their times of compute.
    """

    start_ns: int
    requests: int
    failed: int
    latency: Latencies
    queue_sum_ns: int
    compute_sum_ns: int

    def merge(self: Span[PackedHistogram], later: Span[PackedHistogram]) -> None:
        """Add what completed in the interval after this one."""
        self.requests += later.requests
        self.failed += later.failed
        self.latency = self.latency.merged(later.latency)
        self.queue_sum_ns += later.queue_sum_ns
        self.compute_sum_ns += later.compute_sum_ns


class Spans:
    """The intervals of a run, in order and without gaps.

    intervals: all of them. While a run goes on, the first ones may be twice as long as the others.
    interval_ns: length of the others; of all once `finish` was called.
    """

    def __init__(self, most: int = MOST_SPANS) -> None:
        """most: intervals kept."""
        self.intervals: list[Span[PackedHistogram]] = []
        self.interval_ns = SECOND_NS
        self._most = most
        self._merged = 0  # of the first ones, which are twice as long

    def add(self, second: Span[Histogram]) -> None:
        """Add the second after the last one."""
        rest = second.queue_sum_ns, second.compute_sum_ns
        span = Span(second.start_ns, second.requests, second.failed, second.latency.packed(), *rest)
        if self.intervals and span.start_ns < self.intervals[-1].start_ns + self.interval_ns:
            self.intervals[-1].merge(span)
            return
        self.intervals.append(span)
        if len(self.intervals) > self._most:
            self._merge_pair()

    def finish(self, lasted_ns: int) -> None:
        """Make all intervals of one length: the least that holds a run so long in `most` of them."""
        while self._merged or lasted_ns > self._most * self.interval_ns:
            self._merge_pair()

    def _merge_pair(self) -> None:
        """Merge the first two that are not merged. Where none is left, all have the new length."""
        first = self._merged
        for later in self.intervals[first + 1 : first + 2]:
            self.intervals[first].merge(later)
        del self.intervals[first + 1 : first + 2]
        self._merged += 1
        if self._merged >= len(self.intervals):
            self._merged, self.interval_ns = 0, 2 * self.interval_ns
