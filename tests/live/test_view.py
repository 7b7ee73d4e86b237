"""What is drawn: rates from snapshots, and a view read back on another machine."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import loadtrt
from live_snapshots import FACTS, GPU, NAMES, START_NS, snapshot
from loadtrt.asked.objective import parse_objective
from loadtrt.errors import UsageError
from loadtrt.live.view import HISTORY_S, View, Viewer
from loadtrt.live.view_json import SCHEMA_VERSION, from_json, to_json
from loadtrt.records.board import OUTCOMES, WINDOW_RANKS, Snapshot
from loadtrt.records.histogram import BUCKETS
from loadtrt.units import SECOND_NS


def _view(viewer: Viewer, found: Snapshot, **options: Any) -> View:
    return viewer.take(found, options.get("facts", FACTS), options.get("gpu"), found.written_ns)


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
    """The measured time stays in the phases that follow, and nothing is left."""
    viewer = Viewer()
    _view(viewer, snapshot(30))
    for phase in ("drain", "done"):
        found = snapshot(30.5, phase=phase)
        view = viewer.take(found, FACTS, None, found.written_ns + 9 * SECOND_NS)
        assert (view.elapsed_ns, view.done_share, view.left_ns) == (30 * SECOND_NS + SECOND_NS // 2, 1.0, 0)


def test_percentiles_of_the_run_need_enough_requests() -> None:
    """As in the summary: p99 needs 459 requests and p99.9 needs 4603; a second's are all known."""
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


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("throughput > 90/s", 800.0),
        ("inferences > 90/s", 12_800.0),
        ("goodput(latency < 1s) > 90/s", 750.0),
        ("power < 300W", 400.0),
        ("energy < 30mJ/inference", 400 / 12_800),
    ],
)
def test_numbers_so_far(text: str, value: float) -> None:
    """Of the whole run so far, and of the GPU's last power; nothing before they are known; the same when read back."""
    facts = replace(FACTS, objectives=(parse_objective(text),))
    outcomes = np.array([[300, 0, 0, 0], [500, 0, 0, 0]], np.int64)
    found = replace(
        snapshot(1, (300, 500), outcomes=outcomes, inferences=800 * 16, good=np.array([750, 0, 0], np.int64)),
        served_per_s=800.0,
    )
    view = _view(Viewer(), found, gpu=GPU, facts=facts)
    (item,) = view.objectives
    assert item.good_share is None
    assert item.value == pytest.approx(value)
    assert from_json(to_json(view)) == view
    before = _view(Viewer(), snapshot(0, (0, 0), phase="warm-up"), facts=facts)
    assert [item.value for item in before.objectives] == [None]


def test_followed_snapshots_are_in_the_history() -> None:
    """What a Viewer follows between two views is in the second one's rates."""
    viewer = Viewer()
    for at_s in range(5):
        found = snapshot(at_s, (500 * at_s, 0))
        viewer.follow(found, found.written_ns)
    assert _view(viewer, snapshot(5, (2500, 0))).rate_history == pytest.approx((500,) * 5)


def test_who_is_not_looked_at_forgets_old_seconds() -> None:
    """A run of a day with metrics and no terminal is followed ten times a second, and nobody takes a view."""
    viewer = Viewer()
    for at_s in range(3 * HISTORY_S):
        found = replace(snapshot(at_s, (500 * at_s, 0)), window_start_ns=at_s * SECOND_NS, window_requests=500)
        viewer.follow(found, found.written_ns)
    assert len(viewer._served) <= HISTORY_S + 1
    assert len(viewer._p99) <= HISTORY_S + 1
    assert _view(viewer, snapshot(3 * HISTORY_S, (1500 * HISTORY_S, 0))).rate_history == pytest.approx(
        (500,) * HISTORY_S
    )


# ---- on another machine


@given(
    st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), max_size=6),
    st.sampled_from(["warm-up", "measure", "drain", "done"]),
    st.sampled_from([None, GPU, replace(GPU, throttle_reasons=None, power_watts=None)]),
    st.sampled_from([{}, {"rate": None, "objectives": (), "requests": 7, "closed": True}, {"max_lateness_ns": 5}]),
)
def test_a_view_is_the_same_on_another_machine(
    steps: list[tuple[int, int]], phase: str, gpu: Any, facts: dict[str, Any]
) -> None:
    """view → JSON → view changes nothing, whatever is known."""
    viewer, served = Viewer(), [0, 0]
    view = _view(viewer, snapshot(0, (0, 0), phase="warm-up"), facts=replace(FACTS, **facts))
    for at_s, step in enumerate(steps, 1):
        served = [before + more for before, more in zip(served, step, strict=True)]
        found = snapshot(at_s, (served[0], served[1]), phase=phase)
        view = _view(viewer, found, gpu=gpu, facts=replace(FACTS, **facts))
    assert from_json(to_json(view)) == view


def test_before_the_run_there_is_no_view() -> None:
    """The exporter answers while the engine is loaded, with None."""
    assert from_json(to_json(None)) is None


@pytest.mark.parametrize("text", [b"", b"# HELP up", b"[]", b"{}", b'{"view": null}', b"\xff", b"[" * 100_000])
def test_what_is_no_view_is_one_sentence(text: bytes) -> None:
    """Another program's answer."""
    with pytest.raises(UsageError, match="not the live view of a run"):
        from_json(text)


def test_another_version_is_one_sentence() -> None:
    """Both versions are named, and the remedy."""
    content = {"loadtrt": "9.1", "schema_version": SCHEMA_VERSION + 1, "view": {}}
    with pytest.raises(UsageError, match=f"loadtrt 9.1 .*loadtrt {loadtrt.__version__} .*same version"):
        from_json(json.dumps(content).encode())


@pytest.mark.parametrize("field", ["phase", "lanes", "facts", "alerts"])
def test_a_broken_view_is_one_sentence(field: str) -> None:
    """The field is named."""
    content = json.loads(to_json(_view(Viewer(), snapshot(outcomes=np.array([[9, 1, 0, 0]] * 2, np.int64)))))
    for value in ({"x": 1}, [3.5], None):
        broken = {**content, "view": {**content["view"], field: value}}
        with pytest.raises(UsageError, match=f"broken: {field}") as caught:
            from_json(json.dumps(broken).encode())
        assert "\n" not in str(caught.value)


def test_outcomes_are_the_statuses_of_records() -> None:
    """The view takes them apart by place."""
    assert OUTCOMES == ("ok", "failed", "unserved", "dropped")
