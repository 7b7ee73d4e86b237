"""Speed and work by requests in flight, from records: exact where requests are alike, else within their noise."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from loadtrt.asked.reading import load_config
from loadtrt.records.histogram import Histogram
from loadtrt.records.records import COLUMNS, FAILED, Records
from loadtrt.results.flow import WORK_UNIT, Flow
from loadtrt.runs.watched import Silence
from loadtrt.sizing.rig import Rig
from loadtrt.stats.flow_law import flow_of, throughputs

if TYPE_CHECKING:
    from collections.abc import Callable

SERVICE_S = 0.01


def flow_from(engine: str, contexts: int, buffers: int, **options: Any) -> Flow:
    """The flow of a run of the simulated engine of 10 ms, in virtual time."""
    spec = f"simulated:service=10ms,clock=virtual{engine and ','}{engine}"
    fixed = {"engine": spec, "contexts": contexts, "buffers": buffers, "warmup": 0, "seed": 7}
    config = load_config(None, {**fixed, "requests": 20_000, **options})
    with Rig(Silence()) as rig:
        rig.open(config)
        flow = rig.run(config, "a run").model.flow
    assert flow is not None
    return flow


def speeds(flow: Flow, contexts: int, cv2: float) -> dict[int, float]:
    """X by level, requests per second."""
    law = throughputs(np.array(flow.levels), np.array(flow.starts), np.array(flow.seconds), contexts, cv2)
    return dict(zip(flow.levels, law.tolist(), strict=True))


def work_of(flow: Flow) -> Histogram:
    return Histogram.from_dict(flow.work)


def servers(contexts: int, contention: float = 0.0) -> Callable[[int], float]:
    """X of the simulated engine."""

    def law(level: int) -> float:
        busy = min(level, contexts)
        return busy / (1 + contention * (busy - 1)) / SERVICE_S

    return law


@pytest.mark.parametrize(("contexts", "buffers", "rate"), [(1, 2, "80/s"), (3, 1, "120/s"), (2, 2, "110/s")])
def test_requests_that_are_alike_tell_the_law_exactly(contexts: int, buffers: int, rate: str) -> None:
    """Under any load: each request then is an equation without noise."""
    for engine, contention in (("", 0.0), ("contention=0.5", 0.5)):
        flow = flow_from(engine, contexts, buffers, rate=rate, requests=4000)
        law = servers(contexts, contention)
        assert set(flow.levels) == set(range(1, contexts * buffers + 1))
        for level, per_s in speeds(flow, contexts, 0.0).items():
            assert per_s == pytest.approx(law(level), rel=2e-3)
        work = work_of(flow)
        assert (work.min or 0) / WORK_UNIT == pytest.approx(1, abs=5e-3)
        assert (work.max or 0) / WORK_UNIT == pytest.approx(1, abs=5e-3)


@pytest.mark.parametrize(
    ("engine", "contexts", "buffers", "rate", "contention", "cv"),
    [
        ("distribution=exponential", 1, 2, "70/s", 0.0, 1.0),
        ("cv=0.5,contention=0.5", 4, 2, "120/s", 0.5, 0.5),
        ("cv=1,contention=0.2", 4, 1, "150/s", 0.2, 1.0),
        ("cv=0.5", 4, 1, "380/s", 0.0, 0.5),
    ],
)
def test_an_open_loop_tells_speed_and_work(
    engine: str, contexts: int, buffers: int, rate: str, contention: float, cv: float
) -> None:
    """X within five standard deviations of CV/√N, more where levels are hard to tell apart; work has the service's
    CV, and its mean is 1."""
    flow, law = flow_from(engine, contexts, buffers, rate=rate), servers(contexts, contention)
    found = speeds(flow, contexts, cv**2)
    for level, began in zip(flow.levels, flow.starts, strict=True):
        assert found[level] == pytest.approx(law(level), rel=0.02 + 5 * cv / began**0.5)
    work = work_of(flow)
    assert work.sum / work.count / WORK_UNIT == pytest.approx(1, abs=1e-4)
    values = np.array(work.quantiles(np.linspace(0.0005, 0.9995, 1000).tolist())) / WORK_UNIT
    assert values.std() == pytest.approx(cv, rel=0.08)
    assert flow.dispersion < 2


def test_completions_by_requests_in_flight_would_be_biased() -> None:
    """Why equations are of requests that begin at a level, and not of those that complete there."""
    flow = flow_from("", 2, 1, rate="150/s", requests=4000)
    times = np.array(flow.seconds).sum(axis=0) * np.array(flow.levels)  # time at each level × lanes busy there, twice
    naive = np.array(flow.starts) / times * np.array(flow.levels)
    assert abs(naive[0] * SERVICE_S - 1) > 0.02
    assert speeds(flow, 2, 0.0)[1] * SERVICE_S == pytest.approx(1, rel=1e-3)


def test_a_closed_loop_tells_its_throughput_alone() -> None:
    """At one level, X is requests over time."""
    flow = flow_from("cv=0.5,contention=0.5", 3, 1)
    assert flow.levels[-1] == 3
    assert flow.starts[-1] > 0.99 * flow.requests
    assert speeds(flow, 3, 0.25)[3] == pytest.approx(servers(3, 0.5)(3), rel=0.02)


def test_times_add_up_to_the_busy_time_of_the_device() -> None:
    """Each instant in which a lane is busy is divided among the busy lanes: all parts together are that time."""
    entry = np.cumsum(np.random.default_rng(3).exponential(4e6, 500)).astype(np.int64)
    rows = np.zeros((500, len(COLUMNS)), np.int64)
    free = [0, 0]
    for place, at in enumerate(entry.tolist()):
        lane = place % 2
        free[lane] = max(free[lane], at) + 5_000_000
        rows[place, :4] = (at, at, at, free[lane])
        rows[place, COLUMNS.index("lane")] = lane
    rows[7, COLUMNS.index("status")] = FAILED  # was in flight; what it took says nothing about others
    flow = flow_of(Records(rows[np.argsort(rows[:, 3], kind="stable")]), 2)
    assert flow is not None
    spans = sorted(zip(rows[:, 3] - 5_000_000, rows[:, 3], strict=True))
    union, reached = 0, 0
    for start, stop in spans:
        union += max(stop - max(start, reached), 0)
        reached = max(reached, stop)
    assert flow.requests == 499
    assert np.sum(flow.seconds) == pytest.approx(union / 1e9, abs=0.0051)  # without the failed one's part


def test_levels_above_sixteen_are_coarser() -> None:
    """Sixteen lanes that share one device, two requests each: X is constant, and all levels show it."""
    flow = flow_from("contention=1,cv=0.3", 16, 2, rate="97/s", requests=60_000)
    assert flow.levels[:16] == tuple(range(1, 17))
    assert all(after - before in (1, 2) for before, after in itertools.pairwise(flow.levels))
    found = speeds(flow, 16, 0.09)
    for level, began in zip(flow.levels, flow.starts, strict=True):
        if began > 300:
            assert found[level] == pytest.approx(100, rel=0.12)


def test_what_is_too_little_or_takes_no_time_has_no_flow() -> None:
    """Nothing is made up."""
    rows = np.zeros((100, len(COLUMNS)), np.int64)
    rows[:, 3] = np.arange(100)
    assert flow_of(Records(rows[:10]), 1) is None
    rows[:, :4] = 5
    assert flow_of(Records(rows), 1) is None
    assert flow_of(Records(np.zeros((0, len(COLUMNS)), np.int64)), 1) is None


def test_a_drift_shows_in_the_dispersion() -> None:
    """Requests that take longer and longer are not independent ones."""
    took = np.linspace(4e6, 6e6, 2000).astype(np.int64)
    rows = np.zeros((2000, len(COLUMNS)), np.int64)
    rows[:, 3] = np.cumsum(took)
    rows[1:, :3] = rows[:-1, 3][:, None]
    flow = flow_of(Records(rows), 1)
    assert flow is not None
    assert flow.dispersion > 20
