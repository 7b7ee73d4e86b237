"""The recorder and the summaries: what goes in comes out, however much it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtrt.lanes.recorder import Recorder
from loadtrt.records.board import RING, STRIDE, Board
from loadtrt.records.records import COLUMNS, DROPPED, FAILED, OK, UNSERVED, Records, busy_union_ns
from loadtrt.records.tally import BLOCK, Second, Tally
from loadtrt.stats.sample_size import least_samples
from loadtrt.stats.summary import fairness, lanes_of, overlap_of, summarize

SECOND = 1_000_000_000
Row = tuple[int, int, int, int, int, int, int, int, int, int, int]


def _row(due: int, queue: int = 5, service: int = 100, lane: int = 0, status: int = OK, lateness: int = 0) -> Row:
    submitted = due + queue
    return (due, submitted, submitted + 1, submitted + service, 10, service - 20, 10, lateness, lane, status, due % 3)


def _recorded(rows: list[Row], lanes: int = 2, keep: int = 1 << 20, ring: int = RING) -> Recorder:
    recorder = Recorder(lanes, 0, board=Board(keep=keep, ring=ring))
    for row in rows:
        recorder.record(*row)
    recorder.finish()
    return recorder


@pytest.mark.parametrize("keep", [0, 1000, 1024, 2500, 1 << 20])
@pytest.mark.parametrize("ring", [STRIDE, 3 * STRIDE, RING])
def test_counts_equal_what_was_recorded_however_little_is_kept(keep: int, ring: int) -> None:
    """Histogram counts, statuses, lanes and intervals add up to all rows; the kept rows are the first ones."""
    status = [FAILED if index % 10 == 0 else OK for index in range(5000)]
    rows = [_row(index * 1_000_000, lane=index % 2, status=status[index]) for index in range(5000)]
    recorder = _recorded(rows, keep=keep, ring=ring)
    assert recorder.seen == 5000
    assert recorder.by_status.tolist() == [4500, 500, 0, 0]
    assert recorder.histograms["latency"].count == 4500
    assert recorder.by_lane.sum() == 4500
    assert sum(interval.requests for interval in recorder.intervals) == 4500
    assert sum(interval.failed for interval in recorder.intervals) == 500
    assert [interval.start_ns for interval in recorder.intervals] == [second * SECOND for second in range(5)]
    kept = recorder.records.rows
    assert kept.tolist() == [list(row) for row in rows[: len(kept)]]
    assert len(kept) == min(keep, 5000)
    assert recorder.complete == (keep >= 5000)


@given(st.lists(st.integers(0, 400), max_size=20), st.sampled_from([0, 100, 1000]), st.sampled_from([1, 2, 5]))
def test_requests_without_a_lane_take_rows_as_others_do(counts: list[int], keep: int, strides: int) -> None:
    """Dropped, served and unsent in turn, in any numbers: all are counted, and the first of them kept, in order."""
    recorder = Recorder(2, 0, board=Board(keep=keep, ring=strides * STRIDE))
    expected: list[tuple[int, int]] = []
    for turn, count in enumerate(counts):
        due = np.arange(count) + 1000 * turn
        status = (DROPPED, OK, UNSERVED)[turn % 3]
        if status == DROPPED:
            recorder.record_dropped(due)
        elif status == UNSERVED:
            recorder.record_unsent(due, 10**6)
        else:
            for instant in due.tolist():
                recorder.record(*_row(instant))
        expected += [(instant, status) for instant in due.tolist()]
    recorder.finish()
    assert recorder.by_status.tolist() == [sum(status == it for _, it in expected) for status in range(4)]
    kept = recorder.records
    assert list(zip(kept.due.tolist(), kept.status.tolist(), strict=True)) == expected[:keep]


def test_nothing_is_counted_while_rows_are_kept_and_a_block_at_a_time_after_that() -> None:
    """A request waits for one block at most, and all is counted before the ring comes round."""
    recorder = Recorder(2, 0, board=Board(keep=8 * BLOCK, ring=2 * BLOCK))
    before = most = 0
    for index in range(20 * BLOCK):
        recorder.record(*_row(index * 1_000_000, lane=index % 2))
        most, before = max(most, recorder.seen - before), recorder.seen
        assert recorder.seen == 0 or index >= 8 * BLOCK - 1
        assert index - recorder.seen < (8 if index < 9 * BLOCK else 2) * BLOCK
    assert most == BLOCK
    recorder.finish()
    assert recorder.seen == 20 * BLOCK == recorder.histograms["latency"].count


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from([OK, OK, FAILED, UNSERVED]), st.integers(0, 3 * SECOND)),
        min_size=1,
        max_size=80,
    ),
    st.lists(st.integers(1, 80), max_size=10),
)
def test_rows_may_be_counted_in_any_pieces(requests: list[tuple[int, int, int]], cuts: list[int]) -> None:
    """Law: tally(a then b) = tally(a and b), in every number, where all completes within two seconds of the newest."""
    ends = np.cumsum([step // 40 for _, _, step in requests]).tolist()
    rows = np.array(
        [_row(end - 100, lane=lane, status=status) for end, (lane, status, _) in zip(ends, requests, strict=True)]
    )
    tallies = [Counted(3, 0, bounds=[(0, 100, ())], items=[3]) for _ in range(2)]
    tallies[0].absorb(rows)
    for piece in np.split(rows, sorted(cut for cut in set(cuts) if cut < len(rows))):
        tallies[1].absorb(piece)
    whole, pieces = (tally.numbers() for tally in tallies)
    assert whole == pieces


class Counted(Tally):
    """A tally that keeps what is over."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.seconds: list[Any] = []

    def _over(self, second: Second) -> None:
        latency = second.latency.to_dict()
        self.seconds.append((second.start_ns, second.requests, second.failed, latency, second.queue_sum_ns))

    def numbers(self) -> list[Any]:
        """All that it counted."""
        self.close()
        return [
            self.seen,
            self.outcomes.tolist(),
            {name: histogram.to_dict() for name, histogram in self.histograms.items()},
            (self.inferences, self.good.tolist(), self.starved_ns),
            (self.first_completed_ns, self.completed_first, self.last_completed_ns.tolist()),
            self.seconds,
        ]


def test_lanes_complete_out_of_order_by_less_than_a_second() -> None:
    """What is counted later and completed up to a second earlier is of its own second."""
    tally = Counted(2, 0)
    for end, lane in ((2_100, 0), (1_900, 1), (3_100, 0), (2_200, 1)):
        tally.absorb(np.array([_row(end * SECOND // 1000 - 105, lane=lane)]))
    tally.close()
    assert [(start // SECOND, requests) for start, requests, *_ in tally.seconds] == [(0, 0), (1, 1), (2, 2), (3, 1)]


def test_a_second_has_its_percentiles() -> None:
    """p50, p90 and p99 of latencies of 1 to 1000 µs, and the largest; within the histogram's 0.4 %."""
    recorder = _recorded([_row(place * 900_000, queue=0, service=1000 * (place + 1)) for place in range(1000)])
    (second,) = recorder.intervals
    found = (second.latency_p50_ns, second.latency_p90_ns, second.latency_p99_ns, second.latency_max_ns)
    assert found == pytest.approx((500_000, 900_000, 990_000, 1_000_000), rel=0.004)


def test_every_metric_is_what_its_law_says() -> None:
    """latency = completed − due, queue = submitted − due, service = completed − submitted, and the first is the sum."""
    recorder = _recorded([_row(1000, queue=7, service=333)])
    sums = {name: histogram.sum for name, histogram in recorder.histograms.items()}
    assert sums["latency"] == 340 == sums["queue"] + sums["service"]
    assert (sums["enqueue"], sums["h2d"], sums["compute"], sums["d2h"]) == (1, 10, 313, 10)


def test_the_unserved_count_in_latency_and_queue_alone() -> None:
    """Their age is a lower bound of their latency; they have no phases."""
    recorder = _recorded([_row(0), _row(0, queue=900, service=0, status=UNSERVED)])
    assert recorder.histograms["latency"].max == 900
    assert recorder.histograms["service"].count == 1


def test_a_lane_starves_only_while_it_is_idle_and_a_request_is_owed() -> None:
    """starved = Σ max(0, begun − max(previous completion of the lane, submitted − lateness)), across drains."""
    rows = [
        _row(0, queue=40, lateness=40),  # idle since the start, at 0, and 40 late
        _row(100, queue=200, lateness=50, lane=1),  # lane 1 idle since 0; 50 late
        _row(130, queue=5, lateness=5),  # begun at 135, before its lane's completion at 140: not idle
    ]
    assert _recorded(rows).starved_ns == 40 + 50
    many = [_row(index * 200, queue=30, lateness=30) for index in range(3000)]
    assert _recorded(many).starved_ns == 30 * 3000


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(1, 100)), min_size=1, max_size=30))
def test_the_busy_union_counts_each_instant_once(spans: list[tuple[int, int]]) -> None:
    """union = measure of ∪ [start, end), sum = Σ (end − start), by counting instants one by one."""
    rows = np.array(
        [[0, 0, 0, start + length, 0, length, 0, 0, lane, OK, 0] for lane, (start, length) in enumerate(spans)],
        np.int64,
    )
    instants = {instant for start, length in spans for instant in range(start, start + length)}
    assert busy_union_ns(Records(rows)) == (len(instants), sum(length for _, length in spans))


def test_overlap_tells_lanes_in_turn_from_lanes_at_once() -> None:
    """Two lanes in turn compute one at a time; two at once, two at a time."""
    turns = [[0, 0, 0, 100 * n + 100, 0, 100, 0, 0, n % 2, OK, 0] for n in range(10)]
    together = [[0, 0, 0, 100 * (n // 2) + 100, 0, 100, 0, 0, n % 2, OK, 0] for n in range(10)]
    for rows, at_once in ((turns, 1.0), (together, 2.0)):
        overlap = overlap_of(Records(np.array(rows, np.int64)))
        assert overlap is not None
        assert (overlap.busy_fraction, overlap.lanes_computing) == (1.0, at_once)
    assert overlap_of(Records(np.empty((0, len(COLUMNS)), np.int64))) is None


def test_a_percentile_needs_its_samples() -> None:
    """n ≥ ln 0.01 / ln q: 459 for p99, 4603 for p99.9 (MLPerf LoadGen's table); below that it is None."""
    assert [least_samples(rank) for rank in (0.5, 0.9, 0.95, 0.99, 0.999)] == [7, 44, 90, 459, 4603]
    recorder = _recorded([_row(index, service=100 + index) for index in range(458)])
    latency = summarize(recorder.records, recorder.histograms, recorder.complete)["latency"]
    assert latency.percentiles_ns["p99"] is None
    assert latency.percentiles_ns["p95"] == 105 + 435  # the ⌈0.95 · 458⌉ = 436th smallest
    assert (latency.min_ns, latency.max_ns) == (105, 562)


def test_percentiles_from_histograms_agree_with_exact_ones() -> None:
    """Within 0.4 %, once not all records are kept."""
    services = np.random.default_rng(1).lognormal(15, 0.4, 20_000).astype(int)
    rows = [_row(index, service=int(service)) for index, service in enumerate(services)]
    whole, partial = _recorded(rows), _recorded(rows, keep=100)
    exact = summarize(whole.records, whole.histograms, whole.complete)["service"].percentiles_ns
    rough = summarize(partial.records, partial.histograms, partial.complete)["service"].percentiles_ns
    for name, value in exact.items():
        assert value == pytest.approx(rough[name], rel=0.004)


def test_lanes_and_fairness() -> None:
    """Jain's index: 1 for equal shares, 1/n for one lane having all, None for no work."""
    recorder = _recorded([_row(0, service=50), _row(10, service=70), _row(20, service=90, lane=1)])
    first, second = lanes_of(recorder.records, [2, 1])
    assert (first.requests, first.service_p50_ns, second.requests, second.service_p50_ns) == (2, 60, 1, 90)
    assert fairness([5, 5, 5]) == 1.0
    assert fairness([9, 0, 0]) == pytest.approx(1 / 3)
    assert fairness([0, 0]) is None


@given(st.lists(st.integers(0, 700), max_size=12), st.integers(0, 500), st.integers(2, 5))
def test_recent_rows_are_given_once_and_in_order(counts: list[int], keep: int, strides: int) -> None:
    """All since the last time, whether kept or in the ring; of a ring that came round, the newest."""
    recorder = Recorder(1, 0, board=Board(keep=keep, ring=strides * STRIDE))
    number, taken = 0, 0
    for count in counts:
        for _ in range(count):
            recorder.record(*_row(number))
            number += 1
        found = np.concatenate([np.empty(0, np.int64), *(records.due.copy() for records in recorder.recent())]).tolist()
        assert found == sorted(set(found))
        assert set(found) <= set(range(taken, number))
        lost = set(range(taken, number)) - set(found)
        assert all(keep <= it < number - (strides - 2) * STRIDE for it in lost)
        assert number == taken or found[-1] == number - 1
        taken = number
        assert not list(recorder.recent())


def test_who_asks_early_has_a_block_counted_now_and_then() -> None:
    """At most a block at a look, none while there are few rows, and nothing at all where nobody asks; in the end all
    of it."""
    for early in (False, True):
        recorder = Recorder(1, 0)
        recorder.counts_early = early
        for number in range(BLOCK + 10):
            recorder.record(0, 0, 0, number + 1, 0, 1, 0, 0, 0, OK)
        seen = []
        for _ in range(3):
            recorder.show(BLOCK + 10, BLOCK + 10, 0, 0)
            seen.append(recorder.seen)
        assert seen == ([BLOCK, BLOCK, BLOCK] if early else [0, 0, 0])
        recorder.finish()
        assert recorder.seen == recorder.histograms["latency"].count == BLOCK + 10


def test_processor_time_is_that_of_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    """From `begin` to the last row: neither the recorder's making nor the count at the end are in it."""
    spent = 0
    monkeypatch.setattr("loadtrt.lanes.recorder.time.process_time_ns", lambda: spent)
    recorder, count = Recorder(1, 0, board=Board(keep=1000)), Tally.absorb

    def absorb(tally: Tally, rows: Any) -> None:
        nonlocal spent
        spent += 10_000
        count(tally, rows)

    monkeypatch.setattr(Tally, "absorb", absorb)
    spent += 100
    recorder.begin(0)
    spent += 20
    recorder.record(*_row(0))
    recorder.finish()
    assert spent == 10_120
    assert recorder.cpu_ns == 20
