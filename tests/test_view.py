"""What is drawn: rates from snapshots, what goes wrong, and a page of metrics read back."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from live_snapshots import FACTS, GPU, NAMES, START_NS, snapshot
from prometheus_client.parser import text_string_to_metric_families

from loadtrt.errors import UsageError
from loadtrt.lanes.recorder import Recorder
from loadtrt.live.alerts import SILENCE_NS
from loadtrt.live.exposition import to_text
from loadtrt.live.follower import Follower
from loadtrt.live.metrics import View as Exposed
from loadtrt.live.metrics import families
from loadtrt.live.scrape import snapshot_of, spread
from loadtrt.live.view import HISTORY_S, View, Viewer
from loadtrt.prometheus.families import BOUNDS_NS, cumulated
from loadtrt.records.board import OUTCOMES, WINDOW_RANKS, Board, Snapshot
from loadtrt.records.histogram import BUCKETS, bucket_of
from loadtrt.units import SECOND_NS


def _view(viewer: Viewer, found: Snapshot, **options: Any) -> View:
    return viewer.take(found, options.get("facts", FACTS), options.get("gpu"), found.written_ns)


def _page(found: Snapshot, now_ns: int, facts: Any = FACTS, gpu: Any = GPU) -> str:
    return to_text(families(Exposed(found, facts, gpu, now_ns)), False).decode()


def _read(page: str, now_ns: int) -> Any:
    return snapshot_of(text_string_to_metric_families(page), now_ns)


@given(
    st.lists(st.tuples(st.integers(1, 4_000), st.integers(0, 500), st.integers(0, 500)), min_size=1, max_size=25),
    st.integers(1, 3),
)
def test_rates_conserve_counts(steps: list[tuple[int, int, int]], looks: int) -> None:
    """Σ rate_history · 1 s = requests served in the seconds that are over, however often the board is looked at.

    Snapshots come dt ms after each other; the last one is at the end of a second, so that all seconds are over.
    """
    viewer, at_ms, served = Viewer(), 0, [0, 0]
    _view(viewer, snapshot(0, (0, 0)))
    for step_ms, first, second in [*steps, (1, 1, 0)]:
        at_ms += step_ms
        served = [served[0] + first, served[1] + second]
        if (step_ms, first, second) == (1, 1, 0):
            at_ms = -(-at_ms // 1000) * 1000
        for _ in range(looks):
            view = _view(viewer, snapshot(at_ms / 1000, (served[0], served[1])))
    assert len(view.rate_history) == at_ms // 1000 <= HISTORY_S
    assert None not in view.rate_history
    assert sum(rate or 0.0 for rate in view.rate_history) == pytest.approx(sum(served))


@given(st.lists(st.integers(0, 900), min_size=2, max_size=6), st.integers(900, 1100))
def test_the_rate_is_of_all_lanes(served: list[int], step_ms: int) -> None:
    """rate = Σ lane rates = requests served since the last snapshot, over the time between the two."""
    viewer, facts = Viewer(), replace(FACTS, lanes=len(served))
    _view(viewer, snapshot(1, (7,) * len(served)), facts=facts)
    after = snapshot(1 + step_ms / 1000, tuple(7 + count for count in served))
    view = _view(viewer, after, facts=facts)
    if sum(served):
        assert view.requests_per_s == pytest.approx(1000 * sum(served) / step_ms)
        assert view.inferences_per_s == pytest.approx(16_000 * sum(served) / step_ms)
        assert sum(lane.requests_per_s or 0.0 for lane in view.lanes) == pytest.approx(view.requests_per_s)
    for lane, count in zip(view.lanes, served, strict=True):
        if sum(served):
            assert lane.compute_share == pytest.approx(min(count * 1.5 / step_ms, 1.0))


def test_no_news_is_no_rate_of_zero() -> None:
    """A board that was not written meanwhile leaves the rate; one that was, 1.5 s with no request, takes it to 0."""
    viewer = Viewer()
    _view(viewer, snapshot(1, (100, 100)))
    for _ in range(3):
        assert _view(viewer, snapshot(2, (200, 200))).requests_per_s == pytest.approx(200)
    assert _view(viewer, snapshot(2.3, (200, 200))).requests_per_s == pytest.approx(200)
    assert _view(viewer, snapshot(4, (200, 200))).requests_per_s == 0


def test_who_comes_late_knows_only_what_follows() -> None:
    """Watching from the middle of a run: no rate at first, then that of the time watched; no history made up."""
    viewer = Viewer()
    first = _view(viewer, snapshot(50.4, (9000, 9000)))
    assert first.requests_per_s is None
    assert first.lanes[0].requests_per_s is None
    assert first.rate_history == ()
    assert first.ok == 18_000
    second = _view(viewer, snapshot(52.4, (9200, 9200)))
    assert second.requests_per_s == pytest.approx(200)
    assert list(second.rate_history) == pytest.approx([200])


def test_another_run_begins_anew() -> None:
    """A new start, or counts that fell, are a new run: nothing of the old one is in its rates."""
    for later in ({"started_ns": START_NS + 100 * SECOND_NS}, {}):
        viewer = Viewer()
        for at_s in (1, 2, 3):
            _view(viewer, snapshot(at_s, (1000 * at_s, 0)))
        view = _view(viewer, snapshot(101.0, (10, 0), **later))
        assert view.requests_per_s == (pytest.approx(10) if later else None)
        assert len(view.rate_history) == len(later)


def test_before_measuring_there_is_nothing_to_tell() -> None:
    """Phases before the first count: how long they take, and None for what is not known."""
    none = snapshot(
        0, (0, 0), phase="warm-up", started_ns=0, window_requests=0, counts=np.zeros((len(NAMES), BUCKETS), np.int64)
    )
    viewer = Viewer()
    viewer.take(none, FACTS, None, START_NS)
    view = viewer.take(none, FACTS, None, START_NS + 2 * SECOND_NS)
    assert (view.phase, view.elapsed_ns, view.done_share, view.left_ns) == ("warm-up", 2 * SECOND_NS, None, None)
    assert {view.requests_per_s, view.inferences_per_s, view.window, view.objectives[0].good_share} == {None}
    assert view.whole == (None,) * len(WINDOW_RANKS)
    assert [*view.histogram, *view.rate_history, *view.p99_history, *view.alerts] == []


@pytest.mark.parametrize(
    ("facts", "share", "left_s"),
    [
        ({}, 1 / 6, 50),
        ({"duration_ns": 0}, None, 0),
        ({"duration_ns": 0, "requests": 40_000}, 0.25, 30),
        ({"requests": 40_000}, 1 / 6, 50),
        ({"requests": 400_000}, 0.025, 390),
        ({"duration_ns": 5 * SECOND_NS}, 1.0, 0),
    ],
)
def test_progress(facts: dict[str, Any], share: float | None, left_s: int) -> None:
    """A duration and a number of requests: the later of the two ends measuring. 10 s of 1000/s were measured."""
    viewer = Viewer()
    for at_s in range(11):
        view = _view(viewer, snapshot(at_s, (500 * at_s, 500 * at_s)), facts=replace(FACTS, **facts))
    assert view.done_share == (None if share is None else pytest.approx(share))
    assert view.left_ns == (pytest.approx(left_s * SECOND_NS) if share is not None else None)


def test_after_measuring_the_time_stands_still() -> None:
    """What was measured is told in the phases that follow, and nothing is left."""
    viewer = Viewer()
    _view(viewer, snapshot(30))
    for phase in ("drain", "done"):
        found = snapshot(30.5, phase=phase)
        view = viewer.take(found, FACTS, None, found.written_ns + 9 * SECOND_NS)
        assert (view.elapsed_ns, view.done_share, view.left_ns) == (30 * SECOND_NS + SECOND_NS // 2, 1.0, 0)


def test_percentiles_of_the_run_need_enough_requests() -> None:
    """As in the summary: p99 needs 459 requests and p99.9 needs 4603; a second's are of the second, so all are told."""
    view = _view(Viewer(), snapshot(10, (250, 250)))
    assert [value is None for value in view.whole] == [False, False, False, False, True, False]
    assert view.window is not None
    exact = np.quantile(np.linspace(3e6, 5e6, 500), (0.5, 0.9, 0.95, 0.99))
    assert view.whole[:4] == pytest.approx(tuple(exact), rel=0.005)


def test_objectives_and_energy() -> None:
    """good_share = good / finished, failed and unserved among them; joules = watts / inferences a second."""
    viewer = Viewer()
    _view(viewer, snapshot(0, (0, 0)))
    outcomes = np.array([[300, 50, 0, 0], [500, 0, 100, 50]], np.int64)
    found = snapshot(1, (300, 500), outcomes=outcomes, inferences=800 * 16, good=np.array([750, 0, 0], np.int64))
    view = _view(viewer, found, gpu=GPU)
    assert (view.ok, view.failed, view.unserved, view.dropped) == (800, 50, 100, 50)
    assert [item.good_share for item in view.objectives] == [0.75]
    assert view.joules == pytest.approx(400 / (800 * 16))


def _late(limit_ns: int) -> Snapshot:
    found = snapshot()
    found.counts[NAMES.index("lateness")] = 0
    found.counts[NAMES.index("lateness"), bucket_of(np.array([limit_ns]))[0]] = 10_000
    return found


@pytest.mark.parametrize(
    ("found", "evidence", "remedy"),
    [
        (
            snapshot(outcomes=np.array([[9, 1, 0, 0], [9, 0, 0, 0]], np.int64)),
            "1 request failed",
            "mend the first error",
        ),
        (_late(900_000), "late at p99", "free a core"),
        (snapshot(missed=7), "7 finished requests not seen in time", "for the observer"),
    ],
)
def test_what_goes_wrong_is_told(found: Snapshot, evidence: str, remedy: str) -> None:
    """Each fault has its evidence and what helps; a run without faults has none."""
    (alert,) = _view(Viewer(), found).alerts
    assert evidence in alert.evidence
    assert remedy in alert.remedy
    assert _view(Viewer(), snapshot(), gpu=GPU).alerts == ()


def test_lateness_has_the_limits_of_the_verdict() -> None:
    """A tenth of the median latency, 250 µs at least; none in a closed loop; blocking waits have their own remedy."""
    assert _view(Viewer(), _late(390_000)).alerts == ()
    assert _view(Viewer(), _late(900_000), facts=replace(FACTS, rate=None)).alerts == ()
    blocking = replace(FACTS, information={"wait": "block"})
    assert _view(Viewer(), _late(900_000), facts=blocking).alerts[0].remedy == "use --wait spin"


def test_silence_is_told() -> None:
    """A board that is not written for 3 s while requests are sent or in flight: its process hangs. While it loads or
    reports, nobody writes."""
    found = snapshot()
    for phase, in_flight, silent_ns, told in (
        ("measure", 0, SILENCE_NS, 0),
        ("measure", 0, SILENCE_NS + 1, 1),
        ("drain", 3, SILENCE_NS + 1, 1),
        ("drain", 0, 10**12, 0),
        ("done", 0, 10**12, 0),
        ("load", 0, 10**12, 0),
    ):
        hung = replace(found, phase=phase, in_flight=in_flight)
        alerts = Viewer().take(hung, FACTS, None, found.written_ns + silent_ns).alerts
        assert len([alert for alert in alerts if "nothing heard" in alert.evidence]) == told


@pytest.mark.parametrize(
    ("reasons", "cause"),
    [
        (("sw_power_cap",), "its power limit"),
        (("sw_thermal_slowdown", "hw_thermal_slowdown"), "by heat"),
        (("hw_slowdown", "sw_power_cap"), "its power limit and its board"),
        (("gpu_idle", "applications_clocks_setting"), None),
        (None, None),
    ],
)
def test_a_slowed_gpu_is_told(reasons: tuple[str, ...] | None, cause: str | None) -> None:
    """What takes speed from a loaded GPU, in words; what is its normal life is no alert."""
    alerts = _view(Viewer(), snapshot(), gpu=replace(GPU, throttle_reasons=reasons)).alerts
    assert [(cause or "") in alert.evidence for alert in alerts] == ([True] if cause else [])


def test_a_growing_queue_is_told_and_a_long_one_is_not() -> None:
    """Growth beyond what chance does to a stable queue is overload; a queue as long as ever is none."""
    for growth, told in ((200, True), (0, False)):
        viewer = Viewer()
        for at_s in range(20, 28):
            view = _view(viewer, snapshot(at_s, (500 * at_s, 500 * at_s), waiting=500 + growth * (at_s - 20)))
        assert ["above capacity" in alert.evidence for alert in view.alerts] == [True] * told


def test_a_stable_queue_raises_no_alarm() -> None:
    """M/M/1 at 90 % load for ten minutes: its queue goes up and down by chance, and no second calls it overload."""
    random, viewer, waiting, served = np.random.default_rng(5), Viewer(), 0, 0
    for at_s in range(1, 600):
        room = random.poisson(1250 / 0.9)
        done = min(waiting + random.poisson(1250), room)
        waiting = max(waiting + random.poisson(1250) - room, 0)
        served += int(done)
        found = snapshot(at_s, (10, 0), waiting=waiting, outcomes=np.array([[served, 0, 0, 0], [0, 0, 0, 0]], np.int64))
        assert _view(viewer, found).alerts == ()


# ---- a page of metrics read back


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.sampled_from([0, 0, 0, 1, 2]), st.integers(1_000, 10**10)),
        max_size=60,
    ),
    st.sampled_from(["measure", "drain", "done"]),
    st.sampled_from([0, 7]),
)
def test_a_page_says_what_the_snapshot_said(requests: list[tuple[int, int, int]], phase: str, missed: int) -> None:
    """snapshot → page → snapshot: everything that the page tells exactly is equal, and so is what a view makes of it.

    Unserved requests have no lane on the page; histograms reach the same counts at the page's bounds.
    """
    board = Board(keep=64)
    recorder = Recorder(2, 0, board=board)
    for lane, status, time_ns in requests:
        recorder.record(0, 10, 20, time_ns, 30, time_ns // 2, 40, 5, lane, status)
    recorder.finish()
    board.enter("measure")
    recorder.show(len(requests) + 2, len(requests), 4, 2)
    board.enter(phase)
    before = replace(
        Follower(board, 2, [(0, 8_000_000)]).snapshot(),
        missed=missed,
        started_ns=START_NS,
        written_ns=START_NS + SECOND_NS,
    )
    now_ns = before.written_ns + SECOND_NS // 4
    found, facts, gpu = _read(_page(before, now_ns), now_ns)
    assert facts == FACTS
    assert gpu == GPU
    assert abs(found.written_ns - before.written_ns) < 1000
    assert abs(found.started_ns - before.started_ns) < 1000  # a float of seconds since 1970
    for name in ("phase", "submitted", "in_flight", "waiting", "busy_lanes", "missed"):
        assert getattr(found, name) == getattr(before, name)
    assert np.array_equal(found.outcomes[:, :2], before.outcomes[:, :2])
    assert found.outcomes.sum() == before.outcomes.sum()
    assert found.good[0] == before.good[0]
    assert np.array_equal(found.ratios, before.ratios)
    assert found.ratio_sum == pytest.approx(before.ratio_sum)
    for name in ("lane_service_ns", "lane_compute_ns", "sums_ns"):
        assert getattr(found, name) == pytest.approx(getattr(before, name))
    for mine, theirs in zip(found.counts, before.counts, strict=True):
        assert cumulated(mine) == cumulated(theirs)
    if found.window_requests:
        assert found.window_ns == pytest.approx(before.window_ns)
    exact, read = Viewer().take(before, FACTS, GPU, now_ns), Viewer(coarse=True).take(found, facts, gpu, now_ns)
    rough = {"coarse", "whole", "histogram", "window", "p99_history"}
    for field in fields(View):
        if field.name not in rough:
            assert getattr(read, field.name) == getattr(exact, field.name), field.name


@given(st.lists(st.integers(0, 1000), min_size=len(BOUNDS_NS) + 1, max_size=len(BOUNDS_NS) + 1))
def test_spread_counts_reach_what_they_came_from(counts: list[int]) -> None:
    """cumulated(spread(bounds, reached)) = reached, for every histogram that a page can show."""
    reached = np.cumsum(np.array(counts, np.int64))
    found = spread(np.array([*BOUNDS_NS, np.inf], np.float64), reached)
    assert (found >= 0).all()
    assert cumulated(found) == reached.tolist()


def test_scrapes_that_come_when_they_come_leave_no_holes() -> None:
    """Every 2.5 s a page: the p99 that it shows holds for the seconds since the one before."""
    viewer = Viewer(coarse=True)
    for look in range(1, 9):
        at_s = 2.5 * look
        read, facts, _ = _read(_page(snapshot(at_s, (int(500 * at_s), 0)), snapshot(at_s).written_ns), 0)
        moved = replace(read, written_ns=snapshot(at_s).written_ns, window_start_ns=int(at_s - 2) * SECOND_NS)
        view = viewer.take(moved, facts, None, moved.written_ns)
    assert view.p99_history[:-2].count(None) == 0
    assert len(view.p99_history) == len(view.rate_history)


def test_an_open_loop_without_duration_reads_back() -> None:
    """Facts with nothing optional: a closed loop of a number of requests, no objective, no GPU."""
    facts = replace(FACTS, rate=None, duration_ns=0, requests=500, objectives=(), information={})
    found = snapshot(good=np.zeros(8, np.int64), window_requests=0)
    read, theirs, gpu = _read(_page(found, found.written_ns, facts, None), found.written_ns)
    assert (theirs, gpu, read.window_requests) == (facts, None, 0)


def test_a_page_before_the_run_says_nothing_yet() -> None:
    """The exporter serves an empty page until the engine is loaded."""
    assert _read("", 0) is None


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("loadtrt_", "triton_", "something else"),
        ("loadtrt_lanes{", "loadtrt_tracks{", "there is no loadtrt_lanes"),
        ("loadtrt_waiting{", "loadtrt_w{", "there is no loadtrt_waiting"),
        ("loadtrt_requests_total{", "loadtrt_r{", "there is no loadtrt_requests_total"),
        ("loadtrt_load_ratio_bucket{", "loadtrt_r{", "there is no loadtrt_load_ratio"),
        ("loadtrt_queue_seconds_sum{", "loadtrt_q{", "there is no loadtrt_queue_seconds_sum"),
        ('phase="measure"', 'phase="coffee"', "coffee"),
        ('outcome="failed"', 'outcome="lost"', "lost"),
        ('lane="1"', 'lane="7"', "lane 7 of 2"),
        ('lane="1"', 'lane="one"', "one"),
        ('batch="16"', 'batch="many"', "many"),
        ('le="+Inf"', 'le="20.0"', "no histogram"),
        ('latency.p99 < 8ms"', 'quickly"', "quickly"),
        ('quantile="0.5"', 'quantile="0.4"', "0.5"),
        ('duration="1m"', 'duration="soon"', "soon"),
    ],
)
def test_a_broken_page_is_one_sentence(old: str, new: str, sentence: str) -> None:
    """Whatever is missing or mangled is a UsageError that names it."""
    found = snapshot()
    page = _page(found, found.written_ns)
    assert old in page
    with pytest.raises(UsageError, match=sentence) as caught:
        _read(page.replace(old, new), found.written_ns)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-1", "1e12", "0"])
def test_a_number_of_lanes_that_cannot_be(value: str) -> None:
    """No page makes its reader take memory by the terabyte."""
    found = snapshot()
    page = "\n".join(
        line.rsplit(" ", 1)[0] + f" {value}" if line.startswith("loadtrt_lanes{") else line
        for line in _page(found, found.written_ns).splitlines()
    )
    with pytest.raises(UsageError, match="broken"):
        _read(page + "\n", found.written_ns)


def test_outcomes_are_the_statuses_of_records() -> None:
    """The view takes them apart by place."""
    assert OUTCOMES == ("ok", "failed", "unserved", "dropped")
