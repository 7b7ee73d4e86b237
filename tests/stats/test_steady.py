"""Whether a run was one steady state: right on queues and loops that are known, and silent where nothing is wrong."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.served import LAWS, Law, served
from benchmarks.steadiness import SYSTEMS, ever_slower, lane, measure, queue, slow_middle, slow_start
from loadtrt.load.arrivals import Gamma, Poisson, bursts, due_instants, parse_stages, steady
from loadtrt.records.records import COLUMNS, DROPPED, FAILED, UNSERVED, Records
from loadtrt.results.steadiness import Interval, Steadiness
from loadtrt.stats.steady import LEAST_REQUESTS, mser5, steadiness_of
from loadtrt.units import MILLISECOND_NS, SECOND_NS

MS = MILLISECOND_NS
NAMES = [name for name, _, _ in SYSTEMS]


def _records(
    due: npt.ArrayLike, latency: npt.ArrayLike, status: npt.ArrayLike = 0, service: npt.ArrayLike | None = None
) -> Records:
    due = np.asarray(due, np.int64)
    rows = np.zeros((len(due), len(COLUMNS)), np.int64)
    rows[:, COLUMNS.index("due")] = due
    taken = latency if service is None else service
    rows[:, COLUMNS.index("submitted")] = due + np.asarray(latency, np.int64) - np.asarray(taken, np.int64)
    rows[:, COLUMNS.index("completed")] = due + np.asarray(latency, np.int64)
    rows[:, COLUMNS.index("status")] = status
    return Records(rows)


def _served(due: npt.NDArray[np.int64], service_ns: npt.ArrayLike) -> Records:
    """One lane, first come first served: Lindley's recursion, unrolled."""
    service = np.broadcast_to(service_ns, due.shape)
    walk = np.concatenate(([0], np.cumsum(service[:-1] - np.diff(due))))
    return _records(due, walk - np.minimum.accumulate(walk) + service, 0, service)


def _loop(records: Records, start_ns: int = 0, places: int = 1) -> Steadiness:
    return steadiness_of(records, start_ns, closed=True, steady=True, places=places)


def _open(records: Records, places: int = 1, steady: bool = True) -> Steadiness:
    return steadiness_of(records, 0, closed=False, steady=steady, places=places)


# --- how often it errs (benchmarks/steadiness.py does it at length)


@pytest.mark.parametrize("name", [name for name in NAMES if "load 100" in name or name in NAMES[:7]])
def test_false_alarms_are_rare(name: str) -> None:
    """Of stationary queues at 50, 85 and 95 % load, stalls and steady loops at most 5 % alarm; overload and a slow part
    are told of at most that many at exactly capacity, too, where the backlog is a random walk above zero (2 % and less
    by their laws)."""
    row = measure(NAMES.index(name), 2_000, seeds=100)
    assert row.overloaded <= 0.05
    if "100 %" not in name:
        assert row.transient <= 0.05
        assert row.drift <= 0.05
    if name.endswith("a stall"):
        assert row.stall == 1
    else:
        assert row.slow <= 0.05
        assert row.stall <= 0.05


def test_overload_is_told() -> None:
    """Of queues at 110 % and 120 % nearly all are told overloaded within 10 000 requests, at 105 % most."""
    share = {
        load: measure(NAMES.index(f"queue, load {load} %, begins empty"), 10_000, seeds=50).overloaded
        for load in (105, 110, 120)
    }
    assert share[105] >= 0.6
    assert min(share[110], share[120]) >= 0.98


@pytest.mark.parametrize(
    "name", [name for name in NAMES if name.startswith("first 10 %") or name.endswith("at the end")]
)
def test_changes_are_told(name: str) -> None:
    """A slow first tenth is a transient, latencies that grow are a drift, nearly always within 10 000 requests."""
    row = measure(NAMES.index(name), 10_000, seeds=40)
    assert (row.transient if name.startswith("first") else row.drift) >= 0.95


@pytest.mark.parametrize("name", [name for name in NAMES if "middle third" in name])
def test_slow_parts_are_told(name: str) -> None:
    """A queue overrun for the middle third of a run, and a loop that slows down there, nearly always within 10 000
    requests; one that is overrun by a hair (105 %) half of the time."""
    row = measure(NAMES.index(name), 10_000, seeds=40)
    assert row.slow >= (0.3 if "105 %" in name else 0.95)
    assert max(row.transient, row.drift) <= 0.05  # neither is what happened


# --- what is told


@pytest.mark.parametrize(("part", "factor"), [(0.05, 1.2), (0.3, 3.0), (0.1, 0.7)])
def test_a_transient_is_as_long_as_it_is(part: float, factor: float) -> None:
    """Its length is that of the first part, from the start of measuring on; its ratio the one of latencies."""
    records = lane(5_000, 1, course=slow_start(part, factor))
    found = _loop(Records(records.rows + np.array([7 * SECOND_NS, 0, 0, 7 * SECOND_NS] + [0] * 7)), 7 * SECOND_NS)
    assert found.transient_ns == pytest.approx(int(records.due[int(5_000 * part)]), rel=0.1)
    assert found.transient_ratio == pytest.approx(factor, rel=0.05)
    assert found.drift_ratio is None


@pytest.mark.parametrize("factor", [1.1, 1.5, 0.8])
def test_a_drift_is_the_last_quarter_over_the_first(factor: float) -> None:
    """From 1 to f in a straight line: (1 + 7/8·(f − 1)) / (1 + 1/8·(f − 1)), after what is cut as transient."""
    found = _loop(lane(20_000, 2, course=ever_slower(factor)))
    assert found.transient_ns == 0
    assert found.drift_ratio == pytest.approx((1 + 0.875 * (factor - 1)) / (1 + 0.125 * (factor - 1)), rel=0.02)


def test_mser5_cuts_what_is_different() -> None:
    """White's rule: where the first values lie apart from the rest, all of them go; nothing does where none does; and
    a change in the second half is none of the beginning."""
    noise = np.random.default_rng(1).standard_normal(1_000)
    assert mser5(noise + np.where(np.arange(1_000) < 100, 20, 0)) == 100
    assert mser5(np.zeros(1_000)) == 0
    assert mser5(noise + np.where(np.arange(1_000) < 800, 20, 0)) is None
    assert mser5(noise[:49]) is None


@given(st.integers(0, 1999), st.integers(2, 10**6))
def test_one_outlier_is_nothing(place: int, times: int) -> None:
    """One request, however slow and wherever it is, makes neither a transient nor a drift."""
    records = lane(2_000, 3)
    latency = records.completed - records.due
    latency[place] *= times
    found = _loop(_records(records.due, latency))
    assert found.model_copy(update={"stall": None}) == _loop(records)


@given(st.permutations(range(8)))
def test_the_order_of_records_does_not_matter(order: list[int]) -> None:
    """Lanes complete out of order: it is the order of due instants that counts."""
    records = lane(2_000, 4, course=slow_start(0.1, 1.5))
    mixed = Records(records.rows.reshape(-1, 8, len(COLUMNS))[:, order].reshape(-1, len(COLUMNS)))
    assert _loop(mixed) == _loop(records)


def test_equal_latencies_are_steady() -> None:
    """No noise at all is no division by zero, and a step of 9 % after the first tenth is below what is told."""
    due = np.arange(1_000) * MS
    assert _loop(_records(due, [MS] * 1_000)) == Steadiness(transient_ns=0, overloaded=False)
    assert _loop(_records(due, [109_000] * 100 + [100_000] * 900)).transient_ns == 0
    assert _loop(_records(due, [111_000] * 100 + [100_000] * 900)).transient_ns == 100 * MS


def test_what_fills_the_engine_is_no_transient() -> None:
    """The first requests of a loop find it empty, at every start: as many as it holds, and no warm-up would help."""
    records = lane(2_000, 5, course=slow_start(0.02, 0.5))
    assert _loop(records, places=16).transient_ns
    assert _loop(records, places=32).transient_ns == 0


def test_too_few_tell_nothing() -> None:
    """None, not False: nobody looked."""
    records = queue(0.5, LEAST_REQUESTS, 1)
    assert _open(Records(records.rows[1:])) == Steadiness()
    assert _open(records).overloaded is False


# --- a slow part


def test_a_slow_part_of_a_loop_is_told_with_its_pace() -> None:
    """Services f times as long for the middle third: that third of the requests takes f/(2 + f) of the time, at 1/f of
    the pace."""
    factor = 1.5
    found = _loop(lane(20_000, 6, course=slow_middle(factor))).slow
    assert found is not None
    whole_ns = 20_000 * (2 + factor) / 3 * MS
    assert found.start_ns / whole_ns == pytest.approx(1 / (2 + factor), abs=0.03)
    assert found.end_ns / whole_ns == pytest.approx((1 + factor) / (2 + factor), abs=0.03)
    assert found.served_per_s == pytest.approx(1_000 / factor, rel=0.02)
    assert found.expected_per_s == pytest.approx(3_000 / (2 + factor), rel=0.02)
    assert found.over_ns is None


def test_a_slow_part_of_a_queue_is_told_with_its_end() -> None:
    """Without noise: 500/s for 10 s, of which 4 s in the middle serve 250/s: 1 000 gather, and at 1 000/s they are gone
    2 s later."""
    due = np.arange(5_000) * 2 * MS
    service = np.where((due >= 3 * SECOND_NS) & (due < 5 * SECOND_NS), 4 * MS, MS)  # 1 000 requests, which take 4 s
    found = _open(_served(due, service)).slow
    assert found is not None
    assert found.start_ns == pytest.approx(3 * SECOND_NS, abs=SECOND_NS // 4)
    assert found.end_ns == pytest.approx(7 * SECOND_NS, abs=SECOND_NS // 4)
    assert found.served_per_s == pytest.approx(250, rel=0.02)
    assert found.expected_per_s == pytest.approx(500, rel=0.02)
    assert found.over_ns == pytest.approx(9 * SECOND_NS, abs=SECOND_NS // 4)
    assert _open(_served(due, np.full(5_000, MS))).slow is None
    within = _open(_served(due, service), places=400).slow  # so many fit into the engine: its services tell it
    assert within is not None
    assert within.service_ratio == pytest.approx(4)
    assert within.over_ns is None
    assert found.service_ratio is None


def test_stages_that_overrun() -> None:
    """What is not meant to be steady is told that, too; a queue that only grows is overloaded and no more."""
    due = due_instants(Poisson(), parse_stages("500/s:8s, 2000/s:4s, 300/s:12s"), 24 * SECOND_NS, 0, 1)
    found = _open(_served(due, MS), steady=False)
    assert found.slow is not None
    assert found.slow.start_ns == pytest.approx(8 * SECOND_NS, abs=SECOND_NS)
    assert found.slow.end_ns == pytest.approx(12 * SECOND_NS, abs=SECOND_NS)
    assert found == Steadiness(overloaded=False, slow=found.slow)
    assert _open(queue(1.2, 10_000, 1)).slow is None


def test_a_slow_part_offline() -> None:
    """All wait from the start: what is served tells it."""
    took = np.cumsum(np.where((np.arange(3_000) >= 1_000) & (np.arange(3_000) < 2_000), 3, 1)) * MS
    found = _open(_records(np.zeros(3_000), took), steady=False).slow
    assert found is not None
    assert found.served_per_s == pytest.approx(333, rel=0.02)
    assert found.expected_per_s == pytest.approx(600, rel=0.02)


@pytest.mark.parametrize(("first", "last"), [(0, 1 / 3), (1 / 3, 2 / 3), (2 / 3, 1), (0.4, 0.6)])
@pytest.mark.parametrize("law", [law for law in LAWS if law.name != "lognormal, CV 3"], ids=lambda law: law.name)
def test_a_part_that_is_slower_below_capacity_is_told(law: Law, first: float, last: float) -> None:
    """No backlog shows it: services of twice the time at 30 % load, of any law, with its place and its factor."""

    def course(passed: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.where((passed >= first) & (passed < last), 2.0, 1.0)

    records = served(law, 10_000, 1, load=0.3, course=course)
    found = steadiness_of(records, 0, closed=False, steady=True, places=1, sets=1 if law.part else 0).slow
    assert found is not None
    assert found.service_ratio == pytest.approx(2, rel=0.25)
    whole_ns = int(records.due[-1])
    assert found.start_ns / whole_ns == pytest.approx(first, abs=0.06)
    assert found.end_ns / whole_ns == pytest.approx(last, abs=0.06)
    assert found.served_per_s == pytest.approx(300, rel=0.1)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
@pytest.mark.parametrize(("lanes", "load", "cv"), [(1, None, 1), (1, 0.3, 1), (4, None, 1), (4, 0.9, 1), (4, 0.6, 4)])
def test_services_that_differ_are_no_slow_part(law: Law, lanes: int, load: float | None, cv: float) -> None:
    """At most one run of 100 by the law, so none of these two."""
    for seed in range(2):
        records = served(law, 2_000, seed, lanes=lanes, load=load, cv=cv)
        sets = 1 if law.part else 0
        assert steadiness_of(records, 0, closed=load is None, steady=True, places=lanes, sets=sets).slow is None


def test_a_few_long_services_are_no_slow_part() -> None:
    """Of 600 requests in four lanes two of a hundred take 64 times as long: one of them alone slows the pace."""
    told = [
        steadiness_of(served(LAWS[6], 1_000, seed, lanes=4), 0, closed=True, steady=True, places=4, sets=1).slow
        for seed in range(25)
    ]
    assert sum(found is not None for found in told) <= 1


def test_what_is_mostly_slow_is_told_by_its_smaller_part() -> None:
    """Three quarters take twice as long: the first quarter took half as long."""
    found = steadiness_of(
        served(LAWS[0], 4_000, 1, load=0.3, course=lambda passed: np.where(passed < 0.25, 1.0, 2.0)),
        0, closed=False, steady=True, places=1,
    ).slow  # fmt: skip
    assert found is not None
    assert found.start_ns == pytest.approx(0, abs=20 * MS)
    assert found.service_ratio == pytest.approx(0.5, rel=0.05)


# --- overload


def test_a_closed_loop_is_never_overloaded() -> None:
    """It asks for no more than it gets."""
    assert _loop(lane(1_000, 1, course=ever_slower(10))).overloaded is False


def test_constant_arrivals_a_little_too_fast() -> None:
    """Without noise the backlog grows by the same in every span: 1 % above capacity is told, capacity itself is not."""
    for gap_us, overloaded in ((990, True), (1_000, False), (1_010, False)):
        assert _open(_served(np.arange(5_000) * gap_us * 1_000, MS)).overloaded is overloaded


def test_a_backlog_must_be_of_some_size() -> None:
    """What the lanes hold is no backlog: three times that is asked for."""
    records = _served(np.arange(5_000) * 990_000, MS)  # fifty wait at the end
    assert _open(records, places=16).overloaded
    assert not _open(records, places=17).overloaded


def test_a_stall_at_the_end_is_no_overload() -> None:
    """One span's growth, however large, is no trend."""
    due = np.arange(5_000) * MS
    stall = np.where(due > 4.8 * SECOND_NS, 5 * SECOND_NS - due, 0)
    assert not _open(_records(due, MS // 2 + stall)).overloaded


@pytest.mark.parametrize(("on_off_ms", "cv"), [((1_000, 4_000), 1.0), ((200, 800), 0.0), (None, 4.0)])
@pytest.mark.parametrize("load", [0.8, 1.2])
def test_bursts(on_off_ms: tuple[int, int] | None, cv: float, load: float) -> None:
    """Whatever the bursts, it is the mean rate that overloads; and of a load that varies only that is told."""
    rate = load * 1_000
    course = bursts(rate, *(MS * time for time in on_off_ms)) if on_off_ms else steady(rate)
    due = due_instants(Gamma(cv), course, 110 * SECOND_NS, 0, 1)
    assert _open(_served(due, MS), steady=False) == Steadiness(overloaded=load > 1)


def test_all_at_once_is_no_rate() -> None:
    """Offline: nothing comes, so nothing comes too fast."""
    assert _open(_records([0] * 500, np.arange(500) * MS + MS), steady=False) == Steadiness()
    assert _open(_records([0] * 500, 0), steady=False) == Steadiness()


def test_who_was_never_served_counts_in_the_backlog() -> None:
    """Given up requests are waiting to the end; failed and dropped ones are neither served nor waiting."""
    due = np.arange(2_000) * MS
    late = np.arange(2_000) % 2 == 1
    gone = np.where(late, 10 * SECOND_NS, MS // 2)
    assert _open(_records(due, gone, np.where(late, UNSERVED, 0))).overloaded
    for status in (FAILED, DROPPED):
        assert not _open(_records(due, gone, np.where(late, status, 0))).overloaded


def test_the_first_records_alone() -> None:
    """Of a run beyond what is kept, the last of the kept records are those completed, not those due: no drop of the
    backlog is seen there. The drift is told by the intervals, of the whole run."""
    records = queue(1.2, 20_000, 1)
    first = np.argsort(records.completed, kind="stable")[:10_000]
    assert _open(Records(records.rows[first])).overloaded
    assert not _open(Records(queue(0.9, 20_000, 1).rows[:10_000])).overloaded

    seconds = [_second(number, 1.0 if number < 120 else 1.3) for number in range(240)]
    kept = lane(10_000, 1)
    whole = steadiness_of(kept, 0, closed=True, steady=True, places=1, intervals=seconds)
    assert _loop(kept).drift_ratio is None
    assert whole.drift_ratio == pytest.approx(1.3, rel=0.01)
    short = steadiness_of(kept, 0, closed=True, steady=True, places=1, intervals=seconds[110:129])
    assert short.drift_ratio is None  # fewer seconds than blocks


@pytest.mark.parametrize("closed", [True, False])
def test_a_slow_part_beyond_the_kept_records(closed: bool) -> None:
    """The intervals tell the pace of the whole run; the last second is not whole, and is no slow part."""
    pace = np.where((np.arange(240) >= 120) & (np.arange(240) < 180), 700, 1_000)
    pace[-1] = 10
    seconds = [_second(number, 1.0, int(count)) for number, count in enumerate(pace)]
    found = steadiness_of(lane(10_000, 1), 0, closed=closed, steady=True, places=1, intervals=seconds).slow
    assert found is not None
    assert found.start_ns == pytest.approx(120 * SECOND_NS, abs=6 * SECOND_NS)
    assert found.end_ns == pytest.approx(180 * SECOND_NS, abs=6 * SECOND_NS)
    assert found.served_per_s == pytest.approx(700, rel=0.05)
    assert found.over_ns is None
    longer = [interval.model_copy(update={"start_ns": 32 * interval.start_ns}) for interval in seconds]
    late = steadiness_of(
        lane(10_000, 1), 0, closed=closed, steady=True, places=1, intervals=longer, interval_ns=32 * SECOND_NS
    ).slow
    assert late is not None
    assert (late.start_ns, late.end_ns) == (32 * found.start_ns, 32 * found.end_ns)
    assert late.served_per_s == pytest.approx(found.served_per_s / 32)
    even = [_second(number, 1.0, 1_000) for number in range(240)]
    assert steadiness_of(lane(10_000, 1), 0, closed=closed, steady=True, places=1, intervals=even).slow is None


def _second(number: int, mean_ms: float, requests: int = 1_000) -> Interval:
    wobble = 1 + 0.01 * (-1) ** number
    return Interval(
        start_ns=number * SECOND_NS,
        requests=requests,
        failed=0,
        latency_mean_ns=mean_ms * wobble * MS,
        latency_p50_ns=None,
        latency_p90_ns=None,
        latency_p99_ns=None,
        latency_max_ns=None,
        queue_mean_ns=None,
        compute_mean_ns=None,
    )
