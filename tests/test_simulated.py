"""The simulated engine obeys its laws exactly, driven here by hand through submit and wait.

On asyncio it runs on its virtual clock; on trio it runs on the loop's clock, which conftest makes a mock one.
"""

from __future__ import annotations

import itertools
import math
import time
import types
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import numpy as np
import pytest

from loadtrt.config import RunConfig
from loadtrt.engines import clock as clock_module
from loadtrt.engines import simulated
from loadtrt.engines.clock import TURN_EVERY, Clock, LoopClock, VirtualClock
from loadtrt.engines.sharing import NEVER
from loadtrt.engines.simulated import NullEngine, SimulatedEngine, load_simulated
from loadtrt.engines.simulation import ClockName, Simulation, parse_simulation
from loadtrt.errors import EngineError, UsageError
from loadtrt.load.arrivals import due_instants
from loadtrt.units import MILLISECOND_NS, SECOND_NS

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
    """Submit at each (instant, lane) of the plan; what each lane completed, with instants from the start of the plan."""
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


# --- clocks


async def test_a_clock_stands_exactly_where_it_was_slept_to(clock: ClockName) -> None:
    """now_ns() = t after sleep_until(t), in ns, up to days; sleeping to the past does not move it back."""
    time_is: Clock = LoopClock() if clock == "loop" else VirtualClock()
    assert time_is.now_ns() == 0
    for instant in (1, 999_999_999, 1_000_000_001, 600 * SECOND_NS + 1, 86_400 * SECOND_NS + 123_456_789):
        await time_is.sleep_until(instant)
        assert time_is.now_ns() == instant
        await time_is.sleep_until(instant - 1)
        assert time_is.now_ns() == instant
        time_is.spend(7)
        assert time_is.now_ns() == instant + 7


async def test_virtual_sleeps_give_turns_and_can_be_cancelled() -> None:
    """Among any TURN_EVERY sleeps one is a checkpoint, and a cancelled sleep leaves the clock where it was."""
    time_is = VirtualClock()
    with anyio.CancelScope() as scope:
        scope.cancel()
        for instant in itertools.count(1):
            await time_is.sleep_until(instant)
    assert time_is.now_ns() == TURN_EVERY - 1


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_real_loop_sleeps_to_a_millisecond_before_and_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """poll_until(t) asks the timer for t − 1 ms, then polls: it never returns early, nor trusts a timer to be exact."""
    now, timers = 5 * SECOND_NS, []

    def perf_counter_ns() -> int:
        nonlocal now
        now += 10_000
        return now

    async def sleep(seconds: float) -> None:
        nonlocal now
        timers.append(seconds)
        now += round(seconds * SECOND_NS) + 300_000

    monkeypatch.setattr(clock_module, "time", types.SimpleNamespace(perf_counter_ns=perf_counter_ns))
    monkeypatch.setattr(clock_module.anyio, "sleep", sleep)
    until = now + 20 * MILLISECOND_NS
    await LoopClock().sleep_until(until)
    assert until <= now <= until + 10_000
    assert timers == [pytest.approx(0.019, abs=0.0001)]


# --- laws


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_one_lane_is_the_lindley_recursion(clock: ClockName, seed: int) -> None:
    """end_j = max(a_j + h2d, end_{j−1}) + S_j and completed_j = end_j + d2h, equal to the ns."""
    parameters = {"service_ns": 900, "distribution": "exponential", "h2d_ns": 70, "d2h_ns": 30, "seed": seed}
    plan = poisson_plan(400, 1000, 1, seed)
    (lane,) = await serve(engine_of(clock, **parameters), plan)
    services = Simulation(**parameters).service_times(1)  # type: ignore[arg-type]
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
    """Two jobs of 10, the second 4 later: the first has 6 left at half speed, the second 4 left alone: ends 16 and 20."""
    lanes = await serve(engine_of(clock, 2, service_ns=10, contention=1.0), [(0, 0), (4, 1)])
    assert completed(lanes) == [[16], [20]]
    assert [lane[0].compute_ns for lane in lanes] == [16, 16]


@pytest.mark.parametrize(("contention", "slowdown"), [(0.0, 1.0), (0.25, 1.75), (1.0, 4.0)])
async def test_equal_jobs_started_together_end_together(clock: ClockName, contention: float, slowdown: float) -> None:
    """n equal jobs of S at once end at S·(1 + contention·(n − 1)): n·S where the device is shared, S where it is not."""
    engine = engine_of(clock, 4, service_ns=1_000_000, contention=contention)
    lanes = await serve(engine, [(0, lane) for lane in range(4)])
    assert completed(lanes) == [[slowdown * 1_000_000]] * 4


async def test_sharing_conserves_work(clock: ClockName) -> None:
    """With contention 1 the device works at full speed while there is work: end of a busy period = start + Σ S."""
    parameters = {"service_ns": 50_000, "distribution": "gamma", "cv": 2.0}
    plan = [(instant, lane) for instant, lane in poisson_plan(300, 1000, 5)]  # 50 times faster than served
    lanes = await serve(engine_of(clock, 5, contention=1.0, **parameters), plan)
    services = itertools.islice(Simulation(**parameters).service_times(1), len(plan))  # type: ignore[arg-type]
    last = max(max(lane) for lane in completed(lanes))
    assert last == pytest.approx(plan[0][0] + sum(services), abs=len(plan))  # each event is rounded to the ns


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_vanishing_contention_is_none(clock: ClockName, seed: int) -> None:
    """As contention → 0 the shared device becomes independent lanes: two computations of one law, equal to the ns."""
    parameters = {
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
    parameters = {"service_ns": 1000, "cv": 0.5, "d2h_ns": 10, "contention": contention}
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


@pytest.mark.parametrize(
    ("distribution", "cv", "expected_cv"),
    [("exponential", None, 1.0), ("lognormal", 0.7, 0.7), (None, 0.7, 0.7), ("gamma", 0.5, 0.5), ("uniform", 0.5, 0.5)],
)
def test_service_times_have_their_mean_and_cv(distribution: Any, cv: float | None, expected_cv: float) -> None:
    """The mean is `service` + `item` × batch within four standard errors, standard deviation ÷ mean is `cv`."""
    simulation = Simulation(service_ns=600_000, item_ns=100_000, distribution=distribution, cv=cv)
    times = np.fromiter(itertools.islice(simulation.service_times(4), 100_000), np.float64)
    assert times.min() >= 0
    assert abs(times.mean() - MILLISECOND_NS) < 4 * MILLISECOND_NS * expected_cv / math.sqrt(len(times))
    assert times.std() / times.mean() == pytest.approx(expected_cv, rel=0.03)


async def test_the_same_seed_gives_the_same_service_times_whatever_the_load(clock: ClockName) -> None:
    """The k-th request takes the k-th service time of its seed: its lane, its instant and other faults change nothing."""

    async def services(plan: list[tuple[int, int]], lanes: int, **more: Any) -> list[int]:
        engine = engine_of(clock, lanes, service_ns=1000, cv=1.0, **more)
        taken = [iter(lane) for lane in await serve(engine, plan)]
        return [next(taken[lane]).compute_ns for _, lane in plan]

    expected = await services(poisson_plan(200, 500, 1), 1)
    assert await services(poisson_plan(200, 2000, 3), 3, error=0.5, h2d_ns=40) == expected
    assert await services(poisson_plan(200, 500, 1), 1, seed=2) != expected


def test_service_times_are_not_the_gaps_between_arrivals() -> None:
    """Streams of one seed are independent: |correlation| of exponential services and Poisson gaps < 4/√n."""
    due = due_instants("poisson", 1000, 0, 10_001, seed=5)
    services = Simulation(service_ns=MILLISECOND_NS, distribution="exponential", seed=5).service_times(1)
    drawn = np.fromiter(itertools.islice(services, 10_000), np.int64)
    for gaps in (np.diff(due), np.diff(due, prepend=0)[:-1]):
        assert abs(np.corrcoef(gaps, drawn)[0, 1]) < 4 / math.sqrt(10_000)


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
    """More requests than buffer sets, lanes that are not there, submits before allocate and after close: EngineError."""
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


# --- the null engine


async def test_the_null_engine_completes_at_the_instant_of_submission() -> None:
    """submitted ≤ completed ≤ the end of submit on perf_counter_ns, all phases 0, buffer sets in turn, no waiting."""
    engine = NullEngine(contexts=2, buffers=2)
    engine.allocate(INPUTS)
    before = time.perf_counter_ns()
    for lane, inputs in ((1, 0), (0, 2), (1, 1)):
        engine.submit(lane, inputs)
    after = engine.now_ns()
    completions = await engine.wait(NEVER)
    assert [(c.lane, c.buffer, c.h2d_ns, c.compute_ns, c.d2h_ns, c.error) for c in completions] == [
        (1, 0, 0, 0, 0, None),
        (0, 0, 0, 0, 0, None),
        (1, 1, 0, 0, 0, None),
    ]
    assert all(before <= completion.completed_ns <= after for completion in completions)
    assert [engine.outputs(c.lane, c.buffer)["y"][0, 0] for c in completions] == [0.0, 4.0, 2.0]
    assert not await engine.wait(0)
    engine.close()


async def test_the_null_engine_gives_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that submits and waits for ever lets other tasks run each millisecond, so it can be cancelled."""
    ticks = itertools.count(0, 100_000)
    monkeypatch.setattr(simulated, "time", types.SimpleNamespace(perf_counter_ns=lambda: next(ticks)))
    engine = NullEngine()
    engine.allocate(INPUTS)
    with anyio.CancelScope() as scope:
        scope.cancel()
        for _ in range(13):
            engine.submit(0, 0)
            assert await engine.wait(0)
    assert scope.cancelled_caught


# --- the specification


def config_of(engine: str, **options: Any) -> RunConfig:
    return RunConfig(engine=engine, **options)


def test_every_key_is_read() -> None:
    """simulated:key=value,... is the Simulation with these values, and the run's seed where none is given."""
    text = (
        "service=2ms, item=10us,distribution=gamma,cv=0.3,contention=0.5,h2d=5us,d2h=3us,enqueue=1us,error=0.01,"
        "stall=1s@5s,slow_lane=2:3,race=0.001,clock=virtual"
    )
    expected = Simulation(
        service_ns=2_000_000,
        item_ns=10_000,
        distribution="gamma",
        cv=0.3,
        contention=0.5,
        h2d_ns=5_000,
        d2h_ns=3_000,
        enqueue_ns=1_000,
        error=0.01,
        stall=(SECOND_NS, 5 * SECOND_NS),
        slow_lane=(2, 3.0),
        race=0.001,
        seed=9,
        clock="virtual",
    )
    assert parse_simulation(text, 9) == expected
    assert parse_simulation("", 1) == Simulation()
    assert parse_simulation("seed=4", 9).seed == 4


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("servce=5ms", "unknown key 'servce': did you mean 'service'"),
        ("nul", "unknown key 'nul': did you mean 'null'"),
        ("zzz=1", "unknown key 'zzz': choose from null, service, "),
        ("service", "'service' needs a value"),
        ("service=5ms,service=6ms", "'service' is given twice"),
        ("service=soon", "service: 'soon' is not a duration"),
        ("contention=much", "contention: 'much' is not a number"),
        ("contention=1.5", "contention must lie between 0 and 1"),
        ("error=nan", "error must lie between 0 and 1"),
        ("race=-1", "race must lie between 0 and 1"),
        ("cv=0", "cv must be above zero"),
        ("cv=inf", "cv must be above zero"),
        ("distribution=gama,cv=1", "distribution: 'gama' is unknown: did you mean 'gamma'"),
        ("distribution=gamma", "the gamma distribution needs cv"),
        ("distribution=constant,cv=1", "the constant distribution has no free cv"),
        ("distribution=uniform,cv=0.6", "a uniform distribution has cv up to 0.577"),
        ("stall=1s", "stall: '1s' is not a stall"),
        ("stall=1s@later", "stall: 'later' is not a duration"),
        ("slow_lane=2", "slow_lane: '2' is not a slow lane"),
        ("slow_lane=2:x", "slow_lane: '2:x' is not a number"),
        ("slow_lane=0:0", "slow_lane needs a lane from 0 and a factor above zero"),
        ("slow_lane=4:2", "there is no lane 4 to be slow: lanes are 0 to 3"),
        ("clock=sun", "clock: 'sun' is unknown: choose from loop, virtual"),
        ("seed=x", "seed: 'x' is not a number"),
        ("seed=-1", "seed must not be below zero"),
    ],
)
def test_a_faulty_specification_is_one_sentence(text: str, sentence: str) -> None:
    """Every bad input is a UsageError of one line that names the key, and the nearest known word."""
    with pytest.raises(UsageError) as caught:
        load_simulated(config_of(f"simulated:{text}", contexts=4))
    assert str(caught.value).startswith("simulated engine: ")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_the_configuration_makes_the_engine(clock: ClockName) -> None:
    """contexts, buffers, batch, seed and copies of the run hold; x and y are fp32[batch,16]; nothing is on a device."""
    config = config_of(
        f"simulated:service=1ms,item=1ms,h2d=1ms,clock={clock}", contexts=3, buffers=4, batch=8, copies=False
    )
    engine = load_simulated(config)
    assert (engine.contexts, engine.buffers, engine.info.batch) == (3, 4, 8)
    assert [str(tensor) for tensor in engine.info.tensors] == ["x fp32[8,16]", "y fp32[8,16]"]
    assert engine.info.mode == {"service": "9.00 ms", "contention": "0", "clock": clock}
    inputs = [{"x": np.ones((8, 16), np.float32)}]
    assert (engine.memory(inputs).device_bytes, engine.memory(inputs).host_bytes) == (0, 2 * 8 * 16 * 4)
    engine.allocate(inputs)
    start = engine.now_ns()
    engine.submit(2, 0)
    (completion,) = await engine.wait(FOREVER)
    assert (completion.completed_ns - start, completion.h2d_ns) == (9 * MILLISECOND_NS, 0)


def test_null_and_shapes() -> None:
    """simulated:null is the null engine; a shape has no meaning here and is refused rather than ignored."""
    assert isinstance(load_simulated(config_of("simulated:null")), NullEngine)
    with pytest.raises(UsageError, match="leave --shapes out"):
        load_simulated(config_of("simulated:null", shapes={"x": "2x16"}))
