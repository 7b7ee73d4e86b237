"""What completed in each interval of a run, in memory that does not grow with its length."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from loadtrt.lanes.recorder import Recorder
from loadtrt.records.histogram import Histogram
from loadtrt.records.records import FAILED, OK
from loadtrt.records.spans import MOST_SPANS, Span, Spans
from loadtrt.units import SECOND_NS


def second_of(number: int, *latencies: int, failed: int = 0) -> Span[Histogram]:
    """A second in which requests of these latencies were served."""
    second = Span(number * SECOND_NS, len(latencies), failed, Histogram(), sum(latencies) // 2, sum(latencies) // 3)
    second.latency.add(np.array(latencies, np.int64))
    return second


@given(
    seconds=st.lists(st.lists(st.integers(0, 10**12), max_size=4), max_size=100),
    most=st.integers(1, 12),
    idle=st.integers(0, 200),
)
@example(seconds=[[number] for number in range(30)], most=12, idle=0)  # some are merged and some are not at its end
def test_merged_intervals_are_what_counting_the_longer_ones_at_once_gives(
    seconds: list[list[int]], most: int, idle: int
) -> None:
    """Histograms and sums are equal, so that percentiles are those of the requests and not of the seconds'; intervals
    are the shortest of 1, 2, 4, … seconds of which `most` hold the run; and nothing is lost before that either."""
    spans = Spans(most)
    for number, latencies in enumerate(seconds):
        spans.add(second_of(number, *latencies, failed=number % 3))
        assert len(spans.intervals) <= most
        assert sum(span.requests for span in spans.intervals) == sum(map(len, seconds[: number + 1]))
    spans.finish((len(seconds) + idle) * SECOND_NS if idle else 0)
    long = next(2**n for n in range(20) if 2**n * most >= len(seconds) + idle)
    assert spans.interval_ns == long * SECOND_NS
    assert [span.start_ns for span in spans.intervals] == [n * SECOND_NS for n in range(0, len(seconds), long)]
    for place, span in enumerate(spans.intervals):
        here = range(place * long, min((place + 1) * long, len(seconds)))
        at_once = second_of(0, *(latency for number in here for latency in seconds[number]))
        found = span.latency.unpacked()
        assert (found.counts == at_once.latency.counts).all()
        assert (found.sum, found.min, found.max) == (at_once.latency.sum, at_once.latency.min, at_once.latency.max)
        assert span.requests == at_once.requests == found.count
        assert span.failed == sum(number % 3 for number in here)
        halves = [sum(seconds[number]) // 2 for number in here]
        assert span.queue_sum_ns == sum(halves)
        assert span.compute_sum_ns == sum(sum(seconds[number]) // 3 for number in here)


def test_an_hour_is_kept_by_seconds_and_a_day_in_no_more_intervals() -> None:
    """--duration 1h has a point a second, its drain included."""
    assert MOST_SPANS > 3600 + 60
    for hours, each in ((1, 1), (2, 2), (24, 32), (240, 256)):
        spans = Spans()
        spans.finish(hours * 3600 * SECOND_NS)
        assert spans.interval_ns == each * SECOND_NS


@pytest.mark.parametrize("keep", [0, 1 << 12])
def test_intervals_of_a_recorder_sum_up_to_its_counts(keep: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run that lasted longer than intervals of a second reach, whether its rows were counted early or late."""
    monkeypatch.setattr("loadtrt.lanes.recorder.Spans", lambda: Spans(16))
    recorder = Recorder(1, 0, keep=keep)
    random = np.random.default_rng(1)
    ends = np.sort(random.integers(0, 300 * SECOND_NS, 3000)).tolist()
    for number, end in enumerate(ends):
        status = FAILED if number % 10 == 0 else OK
        recorder.record(end - 5_000 - number, end - 5_000, end - 4_900, end, 100, 3_000, 200, 0, 0, status)
    recorder.finish(310 * SECOND_NS)
    assert recorder.spans.interval_ns == 32 * SECOND_NS
    intervals = recorder.intervals
    assert [interval.start_ns for interval in intervals] == [n * 32 * SECOND_NS for n in range(10)]
    assert sum(interval.requests for interval in intervals) == 2700
    assert sum(interval.failed for interval in intervals) == 300
    whole = recorder.histograms["latency"]
    assert sum((interval.latency_mean_ns or 0) * interval.requests for interval in intervals) == pytest.approx(
        whole.sum
    )
    cells = [interval.latency_counts for interval in intervals]
    assert {cell: sum(each.get(cell, 0) for each in cells) for cell in whole.cells()} == whole.cells()
    for place, interval in enumerate(intervals):
        latencies = np.array(
            [5_000 + number for number, end in enumerate(ends) if end // (32 * SECOND_NS) == place and number % 10]
        )
        rank = -(-99 * len(latencies) // 100) - 1
        assert interval.latency_p99_ns == pytest.approx(np.sort(latencies)[rank], rel=1 / 256)
        assert interval.latency_max_ns == latencies.max()
