"""Stalls: what they hold up, counted; and silence where requests only take their time, or none waits."""

from __future__ import annotations

import tracemalloc

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.served import LAWS, Law, Stops, served
from loadtrt.records.records import COLUMNS, FAILED, UNSERVED, Records
from loadtrt.stats.stalls import LEAST_SPANS, stall_of
from loadtrt.units import MILLISECOND_NS, SECOND_NS

MS = MILLISECOND_NS


def _served(due_ms: npt.ArrayLike, service_ms: npt.ArrayLike, start_ns: int = 0) -> Records:
    """One lane, first come first served."""
    due = np.asarray(due_ms, np.float64)
    service = np.broadcast_to(service_ms, due.shape).astype(np.float64)
    walk = np.concatenate(([0.0], np.cumsum(service[:-1] - np.diff(due))))
    completed = due + walk - np.minimum.accumulate(walk) + service
    rows = np.zeros((len(due), len(COLUMNS)), np.int64)
    for name, values in (("due", due), ("submitted", completed - service), ("completed", completed)):
        rows[:, COLUMNS.index(name)] = start_ns + np.rint(values * MS)
    return Records(rows)


def _standing(part: int = 2_000, stall_ms: float = 1_000, count: int = 10_000) -> Records:
    """1 ms each, every 2 ms; one takes `stall_ms` longer."""
    service = np.ones(count)
    service[part] += stall_ms
    return _served(np.arange(count) * 2, service)


@given(st.integers(100, 5_000), st.integers(60, 3_000))
def test_a_stall_makes_late_all_that_come_until_its_queue_is_gone(part: int, stall_ms: int) -> None:
    """At λ = 500/s and μ = 1000/s a stall of T makes λT/(1 − λ/μ) = T requests late, T in ms: λT come in it, and more
    before the queue is gone. Within three."""
    found = stall_of(_standing(part, stall_ms), 0, 1)
    assert found is not None
    assert found.start_ns == 2 * part * MS  # when it began to be served: nothing was before it
    assert found.longest_ns == found.total_ns == (stall_ms + 1) * MS
    assert found.late == pytest.approx(stall_ms, abs=3)
    assert (found.times, found.host, found.lane, found.period_ns) == (1, False, None, None)


def test_instants_count_from_the_start_of_measuring() -> None:
    """Whatever the engine's clock shows then."""
    records = _standing()
    moved = Records(records.rows.copy())
    for name in ("due", "submitted", "completed"):
        moved.rows[:, COLUMNS.index(name)] += 7 * SECOND_NS
    assert stall_of(moved, 7 * SECOND_NS, 1) == stall_of(records, 0, 1)


@given(st.permutations(range(8)))
def test_the_order_of_records_does_not_matter(order: list[int]) -> None:
    """Lanes complete out of order."""
    records = _standing()
    mixed = Records(records.rows.reshape(-1, 8, len(COLUMNS))[:, order].reshape(-1, len(COLUMNS)))
    assert stall_of(mixed, 0, 1) == stall_of(records, 0, 1)


def test_several_stalls() -> None:
    """The longest is told with its instant, the others with their number and time."""
    service = np.ones(10_000)
    service[[1_000, 4_000, 7_000]] += 99, 499, 199
    found = stall_of(_served(np.arange(10_000) * 2, service), 0, 1)
    assert found is not None
    assert (found.times, found.total_ns) == (3, 800 * MS)
    assert (found.start_ns, found.longest_ns) == (8 * SECOND_NS, 500 * MS)
    assert found.late == pytest.approx(800, abs=9)


def test_a_closed_loop_is_late_by_what_was_in_flight() -> None:
    """Two in flight, each due when its predecessor was answered: a stall of all makes these two late, and is told for
    the time that it took."""
    answered = np.cumsum(np.where(np.arange(4_000) == 1_500, 1_000, 1)) * MS
    rows = np.zeros((4_000, len(COLUMNS)), np.int64)
    rows[:, COLUMNS.index("completed")] = answered
    rows[2:, COLUMNS.index("due")] = rows[2:, COLUMNS.index("submitted")] = answered[:-2]
    found = stall_of(Records(rows), 0, 2)
    assert found is not None
    assert (found.late, found.longest_ns, found.start_ns) == (2, SECOND_NS, 1_500 * MS)


@pytest.mark.parametrize("lane", [0, 1])
def test_one_lane_that_stands_is_told_with_its_number(lane: int) -> None:
    """The other answers meanwhile."""
    stands, other = _standing().rows, _served(np.arange(10_000) * 2 + 1, 1.0).rows
    stands[:, COLUMNS.index("lane")], other[:, COLUMNS.index("lane")] = lane, 1 - lane
    found = stall_of(Records(np.concatenate([stands, other])), 0, 2)
    assert found is not None
    assert (found.lane, found.times, found.longest_ns) == (lane, 1, 1_001 * MS)
    assert stall_of(Records(other), 0, 2) is None


def test_no_request_no_stall() -> None:
    """A pause in which nothing waits is the load's, however long."""
    due = np.arange(10_000) * 2.0
    due[5_000:] += 60_000
    assert stall_of(_served(due, 1.0), 0, 1) is None


def test_what_mattered_little_is_not_told() -> None:
    """Less than a thousandth of the requests late, and of the time: p99.9 does not show it."""
    assert stall_of(_standing(stall_ms=9), 0, 1) is None
    assert stall_of(_standing(stall_ms=12), 0, 1) is not None
    assert stall_of(_standing(stall_ms=LEAST_SPANS - 2, count=2_000, part=100), 0, 1) is None


def test_failures_are_answers_and_what_was_never_served_waits_for_nothing() -> None:
    """An engine that answers with errors does not stand still; a request that hangs to the end makes no stall of every
    pause between the others."""
    service = np.ones(10_000)
    service[2_000] += 1_000
    records = _served(np.arange(10_000) * 2, service)
    rows = records.rows.copy()
    errors = _served(np.arange(4_000, 5_000), 0.5).rows
    errors[:, COLUMNS.index("status")] = FAILED
    assert stall_of(Records(np.concatenate([rows, errors])), 0, 1) is None
    hung = _served(np.arange(10_000) * 20.0, 1.0).rows
    hung[5, COLUMNS.index("status")] = UNSERVED
    hung[5, COLUMNS.index("completed")] = hung[-1, COLUMNS.index("completed")]
    assert stall_of(Records(hung), 0, 1) is None


def test_whose_stall_it_was() -> None:
    """The host's, where those that came then were sent late though a buffer set was free."""
    records = _standing()
    records.rows[2_000, COLUMNS.index("lateness")] = 900 * MS
    found = stall_of(records, 0, 1)
    assert found is not None
    assert found.host


@pytest.mark.parametrize("count", [0, 1, 49])
def test_few_requests_tell_nothing(count: int) -> None:
    """How long silences are is not known then."""
    assert stall_of(_served(np.arange(count) * 2, np.where(np.arange(count) == 20, 500.0, 1.0)), 0, 1) is None


# --- what is long by itself, and what is not


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
@pytest.mark.parametrize(("lanes", "load", "cv"), [(1, None, 1), (1, 0.6, 4), (4, None, 1), (4, 0.3, 1), (4, 0.9, 1)])
def test_services_that_differ_are_no_stalls(law: Law, lanes: int, load: float | None, cv: float) -> None:
    """However long their tail, in loops and queues, and with bursts: at most one run of 100 by the law, so none of
    these two."""
    for seed in range(2):
        assert stall_of(served(law, 3_000, seed, lanes=lanes, load=load, cv=cv), 0, lanes, int(bool(law.part))) is None


@pytest.mark.parametrize(("length_ms", "every_ms"), [(20, 1_000), (50, 2_000)])
@pytest.mark.parametrize(("lanes", "load"), [(1, None), (1, 0.6), (4, None), (4, 0.6)])
@pytest.mark.parametrize("name", ["constant", "lognormal, CV 0.2", "lognormal, CV 1", "exponential"])
def test_stalls_at_equal_distances_are_told_with_it(
    name: str, lanes: int, load: float | None, length_ms: int, every_ms: int
) -> None:
    (law,) = [law for law in LAWS if law.name == name]
    found = stall_of(served(law, 30_000, 1, lanes=lanes, load=load, stops=Stops(length_ms, every_ms)), 0, lanes)
    assert found is not None
    if name in ("constant", "lognormal, CV 0.2"):
        assert found.period_ns == pytest.approx(every_ms * MS, rel=0.02)
        assert found.lane is None


@pytest.mark.parametrize("name", ["lognormal, CV 2", "lognormal, CV 3", "bimodal 1:0.98, 64:0.02"])
@pytest.mark.parametrize("load", [None, 0.6])
def test_four_lanes_tell_a_stall_from_long_services(name: str, load: float | None) -> None:
    """Services are as long as the stall, but not of all lanes at once."""
    (law,) = [law for law in LAWS if law.name == name]
    found = stall_of(served(law, 30_000, 2, lanes=4, load=load, stops=Stops(500)), 0, 4)
    assert found is not None
    assert found.lane is None
    assert found.longest_ns >= 490 * MS


def test_a_part_of_a_mix_is_long_only_beside_its_own() -> None:
    """Two of a hundred take 64 times as long: with their parts known, a single stall of less is told."""
    (law,) = [law for law in LAWS if law.name == "mix 1:0.98, 64:0.02"]
    found = stall_of(served(law, 10_000, 3, stops=Stops(30, 1_000)), 0, 1, 1)
    assert found is not None
    assert stall_of(served(law, 10_000, 3), 0, 1, 1) is None


def test_time_outside_of_the_device_is_no_service() -> None:
    """Of services with a long tail, a tenth and fewer that waited for something else than the device."""
    records = served(LAWS[2], 5_000, 1)
    records.rows[:, COLUMNS.index("compute")] = records.completed - records.submitted
    assert stall_of(records, 0, 1) is None
    longest = np.argsort(-records.compute)[:100]
    records.rows[longest, COLUMNS.index("compute")] = MS
    assert stall_of(records, 0, 1) is not None


def test_a_load_that_pauses_is_no_stall() -> None:
    """What comes at equal distances may be the load's, where that is not steady."""
    stops = Stops(50, 500)
    assert stall_of(served(LAWS[0], 20_000, 1, stops=stops), 0, 1) is not None
    assert stall_of(served(LAWS[0], 20_000, 1, stops=stops), 0, 1, steady=False) is None


def test_thousands_of_lanes_take_no_gigabytes() -> None:
    """The silences that are looked at grow fewer, as each is looked at in every lane."""
    lanes, count = 3_000, 30_000
    rows = np.zeros((count, len(COLUMNS)), np.int64)
    rows[:, COLUMNS.index("lane")] = np.arange(count) % lanes
    rows[:, COLUMNS.index("due")] = rows[:, COLUMNS.index("submitted")] = np.arange(count) * MS
    rows[:, COLUMNS.index("completed")] = (np.arange(count) + lanes) * MS
    tracemalloc.start()
    try:
        assert stall_of(Records(rows), 0, lanes) is None
        assert tracemalloc.get_traced_memory()[1] < 2**30
    finally:
        tracemalloc.stop()
