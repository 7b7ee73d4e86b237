"""The simulated engine obeys its laws exactly, driven here by hand through submit and wait.

On asyncio it runs on its virtual clock; on trio it runs on the loop's clock, which conftest makes a mock one.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import numpy as np
import pytest

from loadtrt.engines import clock as clock_module
from loadtrt.engines.simulated import SimulatedEngine
from loadtrt.engines.simulation import ClockName, Simulation
from loadtrt.errors import CudaError, EngineError
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.engines.engine import Completion

pytestmark = pytest.mark.anyio

INPUTS = [{"x": np.full((1, 16), number, np.float32)} for number in range(3)]
FOREVER = 10**15


@pytest.fixture
def clock(anyio_backend_name: str) -> ClockName:
    return "virtual" if anyio_backend_name == "asyncio" else "loop"


def engine_of(clock: ClockName, contexts: int = 1, buffers: int = 1000, **parameters: Any) -> SimulatedEngine:
    engine = SimulatedEngine(Simulation(clock=clock, **parameters), contexts=contexts, buffers=buffers)
    engine.allocate(INPUTS)
    return engine


async def serve(engine: SimulatedEngine, plan: Sequence[tuple[int, int]]) -> list[list[Completion]]:
    """Submit at each (instant, lane) of the plan; what each lane completed, instants counted from the start."""
    start = engine.now_ns()
    lanes: list[list[Completion]] = [[] for _ in range(engine.contexts)]

    async def wait(until_ns: int) -> int:
        completions = await engine.wait(until_ns)
        for completion in completions:
            lanes[completion.lane].append(completion._replace(completed_ns=completion.completed_ns - start))
        return len(completions)

    for instant, lane in plan:
        while engine.now_ns() < start + instant:
            await wait(start + instant)
        engine.submit(lane, 0)
    while sum(map(len, lanes)) < len(plan):
        await wait(FOREVER)
    return lanes


def completed(lanes: list[list[Completion]]) -> list[list[int]]:
    return [[completion.completed_ns for completion in lane] for lane in lanes]


def poisson_plan(count: int, mean_gap_ns: float, lanes: int, seed: int = 7) -> list[tuple[int, int]]:
    random = np.random.default_rng(seed)
    instants = np.rint(np.cumsum(random.exponential(mean_gap_ns, count))).astype(np.int64)
    return list(zip(instants.tolist(), random.integers(0, lanes, count).tolist(), strict=True))


# --- laws


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_one_lane_is_the_lindley_recursion(clock: ClockName, seed: int) -> None:
    """end_j = max(a_j + h2d, end_{j−1}) + S_j and completed_j = end_j + d2h, equal to the ns."""
    parameters: dict[str, Any] = {
        "service_ns": 900,
        "distribution": "exponential",
        "h2d_ns": 70,
        "d2h_ns": 30,
        "seed": seed,
    }
    plan = poisson_plan(400, 1000, 1, seed)
    (lane,) = await serve(engine_of(clock, **parameters), plan)
    services = Simulation(**parameters).service_times(1)
    end, expected = 0, []
    for (arrival, _), service in zip(plan, services, strict=False):
        end = max(arrival + 70, end) + service
        expected.append((end + 30, service))
    assert [(completion.completed_ns, completion.compute_ns) for completion in lane] == expected
    assert {(completion.h2d_ns, completion.d2h_ns) for completion in lane} == {(70, 30)}


async def test_the_device_is_exact_however_late_the_host_looks(clock: ClockName) -> None:
    """Instants and phases of completions are those of the device: a host that was busy meanwhile finds the same."""
    late, prompt = (
        engine_of(clock, 2, contention=1.0, service_ns=1000),
        engine_of("virtual", 2, contention=1.0, service_ns=1000),
    )
    expected = await serve(prompt, [(0, 0), (100, 1), (100, 0)])
    start = late.now_ns()
    late.submit(0, 0)
    late.clock.spend(100)
    late.submit(1, 0)
    late.submit(0, 0)
    late.clock.spend(SECOND_NS)
    found = [c._replace(completed_ns=c.completed_ns - start) for c in await late.wait(FOREVER)]
    assert [[c for c in found if c.lane == lane] for lane in (0, 1)] == expected


async def test_processor_sharing_by_hand(clock: ClockName) -> None:
    """Two jobs of 10, one 4 after the other: the first has 6 left at half speed, the second then 4 alone: 16 and 20."""
    lanes = await serve(engine_of(clock, 2, service_ns=10, contention=1.0), [(0, 0), (4, 1)])
    assert completed(lanes) == [[16], [20]]
    assert [lane[0].compute_ns for lane in lanes] == [16, 16]


@pytest.mark.parametrize(("contention", "slowdown"), [(0.0, 1.0), (0.25, 1.75), (1.0, 4.0)])
async def test_equal_jobs_started_together_end_together(clock: ClockName, contention: float, slowdown: float) -> None:
    """n equal jobs of S at once end at S·(1 + contention·(n − 1)): n·S if the device is shared, S if it is not."""
    engine = engine_of(clock, 4, service_ns=1_000_000, contention=contention)
    lanes = await serve(engine, [(0, lane) for lane in range(4)])
    assert completed(lanes) == [[slowdown * 1_000_000]] * 4


async def test_sharing_conserves_work(clock: ClockName) -> None:
    """With contention 1 the device works at full speed while there is work: end of a busy period = start + Σ S."""
    parameters: dict[str, Any] = {"service_ns": 50_000, "distribution": "gamma", "cv": 2.0}
    plan = [(instant, lane) for instant, lane in poisson_plan(300, 1000, 5)]  # 50 times faster than served
    lanes = await serve(engine_of(clock, 5, contention=1.0, **parameters), plan)
    services = itertools.islice(Simulation(**parameters).service_times(1), len(plan))
    last = max(max(lane) for lane in completed(lanes))
    assert last == pytest.approx(plan[0][0] + sum(services), abs=len(plan))  # each event is rounded to the ns


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_vanishing_contention_is_none(clock: ClockName, seed: int) -> None:
    """As contention → 0 the shared device becomes independent lanes: two computations of one law, equal to the ns."""
    parameters: dict[str, Any] = {
        "service_ns": 3000,
        "cv": 1.5,
        "h2d_ns": 500,
        "d2h_ns": 200,
        "slow_lane": (1, 2.5),
        "stall": (5000, 90_000),
    }
    plan = poisson_plan(300, 1000, 3, seed)
    shared = await serve(engine_of(clock, 3, contention=1e-18, **parameters), plan)
    assert shared == await serve(engine_of(clock, 3, **parameters), plan)


@pytest.mark.parametrize("contention", [0.0, 0.5])
async def test_a_lane_completes_in_the_order_of_submission(clock: ClockName, contention: float) -> None:
    """Completions of a lane take its buffer sets in turn and their instants never decrease, failures among them."""
    engine = engine_of(clock, 3, service_ns=3000, cv=2.0, contention=contention, error=0.3)
    for lane in await serve(engine, poisson_plan(600, 1000, 3)):
        assert [completion.buffer for completion in lane] == list(range(len(lane)))
        instants = [completion.completed_ns for completion in lane]
        assert instants == sorted(instants)
        assert 0 < sum(completion.error is not None for completion in lane) < len(lane)


# --- faults


@pytest.mark.parametrize("contention", [0.0, 1.0])
async def test_a_stall_shifts_what_is_left_by_itself(clock: ClockName, contention: float) -> None:
    """A stall of D from T on: what completed before T is as without it, all of the rest of a burst is later by D."""
    parameters: dict[str, Any] = {"service_ns": 1000, "cv": 0.5, "d2h_ns": 10, "contention": contention}
    burst = [(0, lane) for lane in range(2)] * 20
    without = await serve(engine_of(clock, 2, **parameters), burst)
    stalled = await serve(engine_of(clock, 2, **parameters, stall=(777_777, 9500)), burst)
    for before, after in zip(completed(without), completed(stalled), strict=True):
        assert after == [instant if instant < 9500 else instant + 777_777 for instant in before]
        assert min(before) < 9500 < max(before)
    shifts = [a.compute_ns - b.compute_ns for b, a in zip(without[0], stalled[0], strict=True)]
    assert sorted(set(shifts)) == [0, 777_777]
    assert sum(map(bool, shifts)) == 1


async def test_nothing_completes_in_a_stall(clock: ClockName) -> None:
    """In [T, T + D) not even a request that takes no time completes: it does at T + D."""
    lanes = await serve(engine_of(clock, service_ns=0, stall=(100, 50)), [(0, 0), (49, 0), (50, 0), (70, 0), (150, 0)])
    assert completed(lanes) == [[0, 49, 150, 150, 150]]
    assert {completion.compute_ns for completion in lanes[0]} == {0}  # a stall before the start is no part of compute


@pytest.mark.parametrize("contention", [0.0, 1.0])
async def test_a_lost_device_fails_every_call_from_its_instant_on(clock: ClockName, contention: float) -> None:
    """What completed before is returned; then submit, wait and outputs raise CUDA's error, again and again, until the
    engine is allocated anew. Closing raises nothing."""
    engine = engine_of(clock, 2, service_ns=1000, contention=contention, lost=4500)
    start = engine.now_ns()
    for _ in range(5):
        engine.submit(0, 0)
        engine.submit(1, 1)
    expected, seen = (4 if contention else 8), 0  # a pair each 2 µs, or each µs
    while seen < expected:
        seen += len(await engine.wait(FOREVER))
    with pytest.raises(CudaError, match="wait failed with cudaErrorLaunchFailure: simulated fault: lost=4500ns"):
        await engine.wait(FOREVER)
    assert engine.now_ns() == start + 4500
    for _ in range(2):
        with pytest.raises(CudaError, match="submit failed with cudaErrorLaunchFailure"):
            engine.submit(0, 0)
        with pytest.raises(CudaError, match="wait failed"):
            await engine.wait(0)
        with pytest.raises(CudaError, match="outputs failed"):
            engine.outputs(0, 0)
    engine.allocate(INPUTS)
    engine.submit(0, 0)
    assert len(await engine.wait(FOREVER)) == 1
    engine.close()


async def test_a_device_that_hangs_completes_nothing_from_its_instant_on(clock: ClockName) -> None:
    """It takes requests, and its waits return in time. What completes at the instant is not seen, what completes the
    ns before is."""
    for hang, served in ((2000, 1), (2001, 2), (0, 0)):
        engine = engine_of(clock, service_ns=1000, d2h_ns=0, hang=hang)
        start = engine.now_ns()
        for _ in range(3):
            engine.submit(0, 0)
        seen: list[Completion] = []
        for until in (1500, 4000, 10**9):
            while engine.now_ns() < start + until:
                seen += await engine.wait(start + until)
            assert engine.now_ns() == start + until
        assert len(seen) == served
        engine.submit(0, 0)
        assert not await engine.wait(0)
        engine.close()


async def test_a_slow_lane_is_slower_by_its_factor(clock: ClockName) -> None:
    """compute on the slow lane = factor × what it would be, and nothing else differs."""
    lanes = await serve(engine_of(clock, 3, service_ns=1000, slow_lane=(2, 3.0)), [(0, lane) for lane in range(3)])
    assert completed(lanes) == [[1000], [1000], [3000]]


async def test_errors_come_with_their_probability_and_change_nothing_else(clock: ClockName) -> None:
    """Of n requests n·p ± 4·√(n·p·(1−p)) fail, with a sentence; instants are those of a run without failures."""
    plan = poisson_plan(4000, 1000, 1)
    (fine,) = await serve(engine_of(clock, buffers=4000, service_ns=500, cv=1.0), plan)
    (lane,) = await serve(engine_of(clock, buffers=4000, service_ns=500, cv=1.0, error=0.1), plan)
    failed = [completion for completion in lane if completion.error]
    assert abs(len(failed) - 400) < 4 * math.sqrt(4000 * 0.1 * 0.9)
    assert {completion.error for completion in failed} == {"simulated fault: error=0.1"}
    assert [completion._replace(error=None) for completion in lane] == fine


async def test_a_race_needs_company_and_shows_another_input_set(clock: ClockName) -> None:
    """Outputs are y = 2x of the request's own inputs, but with race = 1 another set's if it was not alone in flight."""
    engine = engine_of(clock, race=1.0)
    engine.submit(0, 2)
    (first,) = await engine.wait(FOREVER)
    assert engine.outputs(0, first.buffer)["y"].tolist() == [[4.0] * 16]
    engine.submit(0, 2)
    engine.submit(0, 1)
    while len(await engine.wait(FOREVER)) == 0:
        pass
    assert engine.outputs(0, 1)["y"].tolist() == [[4.0] * 16]
    assert engine.outputs(0, 2)["y"].tolist() == [[4.0] * 16]  # of set 2, not 1


async def test_enqueueing_takes_the_host_time(clock: ClockName) -> None:
    """Each submit moves the clock by `enqueue`, and the device has the request when that is over."""
    engine = engine_of(clock, 2, service_ns=1000, enqueue_ns=40)
    start = engine.now_ns()
    engine.submit(0, 0)
    engine.submit(1, 0)
    assert engine.now_ns() == start + 80
    instants = [(await engine.wait(FOREVER))[0].completed_ns - start for _ in range(2)]
    assert instants == [1040, 1080]


# --- random numbers


async def test_the_same_seed_gives_the_same_service_times_whatever_the_load(clock: ClockName) -> None:
    """The k-th request takes the k-th service time of its seed: lane, instant and other faults change nothing."""

    async def services(plan: list[tuple[int, int]], lanes: int, **more: Any) -> list[int]:
        engine = engine_of(clock, lanes, service_ns=1000, cv=1.0, **more)
        taken = [iter(lane) for lane in await serve(engine, plan)]
        return [next(taken[lane]).compute_ns for _, lane in plan]

    expected = await services(poisson_plan(200, 500, 1), 1)
    assert await services(poisson_plan(200, 2000, 3), 3, error=0.5, h2d_ns=40) == expected
    assert await services(poisson_plan(200, 500, 1), 1, seed=2) != expected


# --- the seam


async def test_wait_returns_at_its_instant_and_no_later(clock: ClockName) -> None:
    """wait(t) returns at t with nothing, or as soon as something completed; a t in the past asks what is there."""
    engine = engine_of(clock, service_ns=100)
    start = engine.now_ns()
    assert not await engine.wait(start + 10)
    assert engine.now_ns() == start + 10
    engine.submit(0, 0)
    assert not await engine.wait(start)
    assert not await engine.wait(start + 109)
    assert [completion.completed_ns for completion in await engine.wait(FOREVER)] == [start + 110]
    assert engine.now_ns() == start + 110


async def test_a_caller_who_breaks_the_rules_is_told(clock: ClockName) -> None:
    """More requests than buffer sets, unknown lanes, submits before allocate and after close raise EngineError."""
    engine = SimulatedEngine(Simulation(clock=clock), contexts=2, buffers=2)
    with pytest.raises(EngineError, match="no lane 0: 0 are allocated"):
        engine.submit(0, 0)
    engine.allocate(INPUTS)
    engine.submit(1, 0)
    engine.submit(1, 0)
    with pytest.raises(EngineError, match="lane 1 has 2 requests in flight"):
        engine.submit(1, 0)
    assert await engine.wait(FOREVER)
    engine.submit(1, 0)
    for lane in (-1, 2):
        with pytest.raises(EngineError, match=f"no lane {lane}"):
            engine.submit(lane, 0)
    engine.close()
    engine.close()
    assert not await engine.wait(0)
    with pytest.raises(EngineError, match="no lane 0"):
        engine.submit(0, 0)


@pytest.mark.parametrize("turns", range(12))
async def test_cancelling_at_any_await_loses_no_completion(
    clock: ClockName, turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever a driver is cancelled, what it submitted and did not get is returned to whoever waits next, once."""
    monkeypatch.setattr(clock_module, "TURN_EVERY", 1)
    engine = engine_of(clock, 2, service_ns=1000, contention=0.5)
    submitted: list[int] = []
    seen: list[Completion] = []

    async def drive(scope: anyio.CancelScope) -> None:
        with scope:
            while True:
                for lane in range(2):
                    engine.submit(lane, 0)
                    submitted.append(lane)
                seen.extend(await engine.wait(engine.now_ns() + 700))

    async with anyio.create_task_group() as tasks:
        scope = anyio.CancelScope()
        tasks.start_soon(drive, scope)
        for _ in range(turns):
            await anyio.lowlevel.checkpoint()
        scope.cancel()
    while len(seen) < len(submitted):
        seen.extend(await engine.wait(FOREVER))
    assert sorted(completion.lane for completion in seen) == sorted(submitted)
    engine.submit(0, 0)
    assert len(await engine.wait(FOREVER)) == 1
    engine.close()
