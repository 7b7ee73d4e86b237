"""Where the time of typical and of late requests went, and the stretch of records around the slowest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtrt.records.records import COLUMNS, DROPPED, FAILED, OK, UNSERVED, Records
from loadtrt.stats.sample_size import least_samples
from loadtrt.stats.summary import SAMPLED, cohorts_of, sample_of

START = 10**9


def _records(count: int, seed: int = 1, status: int = OK) -> Records:
    """Requests with phases, submitted in the order they were due, a µs apart at least."""
    random = np.random.default_rng(seed)
    due = START + np.cumsum(random.integers(1_000, 9_000, count))
    submitted = np.maximum.accumulate(due + random.integers(0, 5_000, count))
    phases = random.integers(0, 100_000, (count, 3))
    completed = submitted + phases.sum(axis=1) + random.integers(0, 50_000, count)
    rows = np.zeros((count, len(COLUMNS)), np.int64)
    for name, values in zip(COLUMNS, (due, submitted, submitted + 10, completed, *phases.T), strict=False):
        rows[:, COLUMNS.index(name)] = values
    rows[:, COLUMNS.index("lane")] = np.arange(count) % 3
    rows[:, COLUMNS.index("status")] = status
    return Records(rows)


def _with_status(records: Records, places: slice, status: int) -> Records:
    rows = records.rows.copy()
    rows[places, COLUMNS.index("status")] = status
    return Records(rows)


@given(st.integers(459, 3_000), st.integers(0, 100))
def test_the_parts_are_the_whole(count: int, seed: int) -> None:
    """latency = queue + h2d + compute + d2h + other, of the means as of every request; the bounds are percentiles."""
    records = _records(count, seed)
    ordered = np.sort(records.completed - records.due)
    for name, low, high in (("p50", 0.45, 0.55), ("p99", 0.99, 1.0)):
        cohort = cohorts_of(records)[name]
        device = sum(phase or 0.0 for phase in (cohort.h2d_ns, cohort.compute_ns, cohort.d2h_ns))
        parts = cohort.queue_ns + device + cohort.other_ns
        assert parts == pytest.approx(cohort.latency_ns)
        assert cohort.latency_low_ns == ordered[int(np.ceil(low * count)) - 1]
        assert cohort.latency_high_ns == ordered[int(np.ceil(high * count)) - 1]
        assert cohort.latency_low_ns <= cohort.latency_ns <= cohort.latency_high_ns
        inside = (cohort.latency_low_ns <= ordered) & (ordered <= cohort.latency_high_ns)
        assert cohort.requests == np.count_nonzero(inside) >= (high - low) * count


def test_each_cohort_has_its_own_times() -> None:
    """Means over its members alone: late requests that waited in the queue show it there, typical ones do not."""
    rows = _records(1_000).rows.copy()
    rows[500:510, COLUMNS.index("due")] -= 10**6
    cohorts = cohorts_of(Records(rows))
    assert cohorts["p99"].queue_ns > 9e5 > 1e4 > cohorts["p50"].queue_ns
    assert cohorts["p99"].requests == 11


def test_no_cohort_that_the_sample_cannot_support() -> None:
    """p99 needs 459 served requests, those to p55 eight; failed and unserved ones are no part of it."""
    assert least_samples(0.99) == 459
    assert set(cohorts_of(_records(459))) == {"p50", "p99"}
    assert set(cohorts_of(_records(458))) == {"p50"}
    assert cohorts_of(_records(7)) == cohorts_of(_records(0)) == {}
    for status in (FAILED, UNSERVED, DROPPED):
        assert set(cohorts_of(_with_status(_records(459), slice(1), status))) == {"p50"}


def test_equal_latencies_are_all_typical() -> None:
    """With ties a cohort is more than its share: whoever has such a latency belongs to it."""
    rows = np.zeros((500, len(COLUMNS)), np.int64)
    rows[:, COLUMNS.index("completed")] = rows[:, COLUMNS.index("compute")] = 5_000
    cohorts = cohorts_of(Records(rows))
    assert cohorts["p50"].requests == cohorts["p99"].requests == 500
    assert cohorts["p50"].compute_ns == cohorts["p50"].latency_ns == 5_000


@pytest.mark.parametrize(("count", "slowest"), [(5_000, 2_500), (5_000, 3), (5_000, 4_990), (400, 100)])
def test_the_sample_is_the_stretch_around_the_slowest(count: int, slowest: int) -> None:
    """Contiguous in the order of submission, the slowest in its middle or as near to it as the run's ends let it be;
    instants from the start of measuring, durations as they are."""
    records = _records(count)
    records.completed[slowest] += 10**9
    mixed = Records(records.rows[np.random.default_rng(1).permutation(count)])
    sample = sample_of(mixed, START)
    assert sample is not None
    assert tuple(sample.columns) == COLUMNS
    first = min(max(slowest - SAMPLED // 2, 0), max(count - SAMPLED, 0))
    expected = records.rows[first : first + SAMPLED]
    origin = [START] * 4 + [0] * (len(COLUMNS) - 4)
    assert [list(column) for column in sample.columns.values()] == (expected - origin).T.tolist()


def test_what_was_not_served_is_in_the_sample_but_never_its_centre() -> None:
    """A request that was given up has no latency of its own, only an age; without a served one there is no sample."""
    records = _with_status(_records(3_000), slice(2_000, None), UNSERVED)
    records.completed[2_500:] += 10**10
    sample = sample_of(records, START)
    assert sample is not None
    assert {len(column) for column in sample.columns.values()} == {SAMPLED}
    served = records.ok
    slowest = int((served.completed - served.due).max())
    latencies = np.array(sample.columns["completed"]) - np.array(sample.columns["due"])
    assert slowest in latencies[np.array(sample.columns["status"]) == OK]
    assert sample_of(_records(100, status=FAILED), START) is None
    assert sample_of(_records(0), START) is None
