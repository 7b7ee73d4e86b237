"""The scheduler, the recorder and the simulated engine together obey queueing theory.

On asyncio the engine has its virtual clock, on trio the mock clock of the loop. Instants start at 0 on both.
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
from loadtrt.lanes.recorder import Recorder
from loadtrt.lanes.scheduler import Driven, Load, Stop, drive
from loadtrt.load.arrivals import Constant, Poisson, due_instants
from loadtrt.records.records import COLUMNS, METRICS, OK, UNSERVED, Records
from loadtrt.units import MILLISECOND_NS, SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from loadtrt.engines.engine import Completion

    Instants = npt.NDArray[np.int64]

pytestmark = pytest.mark.anyio

INPUTS = [{"x": np.zeros((1, 16), np.float32)}]
MS = MILLISECOND_NS


@pytest.fixture
def clock(anyio_backend_name: str) -> ClockName:
    return "virtual" if anyio_backend_name == "asyncio" else "loop"


class Watched(SimulatedEngine):
    """A simulated engine that keeps its submits and completions, apart from any record."""

    def __init__(self, simulation: Simulation, contexts: int, buffers: int) -> None:
        super().__init__(simulation, contexts=contexts, buffers=buffers)
        self.submits = 0
        self.completions: list[Completion] = []
        self.allocate(INPUTS)

    def submit(self, lane: int, inputs: int) -> None:
        super().submit(lane, inputs)
        self.submits += 1

    async def wait(self, until_ns: int, *, soon: bool = True) -> Sequence[Completion]:
        completions = await super().wait(until_ns, soon=soon)
        self.completions.extend(completions)
        return completions


async def run(
    due: Instants | None,
    contexts: int = 1,
    buffers: int = 1,
    least_ns: int = 0,
    drain_ns: int = 10 * SECOND_NS,
    **simulation: Any,
) -> tuple[Records, Recorder, Driven, Watched]:
    """Drive a schedule (None: a closed loop) to its end; records in the order of submission."""
    engine = Watched(Simulation(**simulation), contexts, buffers)
    recorder = Recorder(contexts, engine.now_ns())
    driven = await drive(engine, recorder, Load(due, least_ns=least_ns, drain_ns=drain_ns), Stop())
    rows = recorder.records.rows - np.array([recorder.start_ns] * 4 + [0] * (len(COLUMNS) - 4))
    return Records(rows[np.lexsort((rows[:, 1], rows[:, 0]))]), recorder, driven, engine


def poisson(rate: float, count: int, seed: int = 1) -> Instants:
    return due_instants(Poisson(), rate, 0, count, seed)


# --- exact laws


def kiefer_wolfowitz(due: Sequence[int], service: Iterator[int], servers: int) -> list[int]:
    """Waits of a first-come-first-served queue with c servers, ns, from the vector w of work before each server.

    wait_k = w_1; w ← sort((w + S_k·e_1 − (due_{k+1} − due_k)·1)⁺), e_1 = (1, 0, ..., 0), all in ns.
    Kiefer and Wolfowitz, On the theory of queues with many servers, 1955.
    """
    work, waits = [0] * servers, []
    for instant, following in itertools.pairwise([*due, due[-1]]):
        waits.append(work[0])
        work[0] += next(service)
        work = sorted(max(0, remaining - (following - instant)) for remaining in work)
    return waits


@pytest.mark.parametrize("servers", [1, 3])
@pytest.mark.parametrize(
    ("load", "law"),
    [
        (0.7, {"distribution": "exponential"}),
        (0.95, {"cv": 2.0}),
        (1.1, {}),
        (0.9, {"h2d_ns": 3 * MS, "d2h_ns": 2 * MS}),
    ],
)
async def test_queue_is_the_kiefer_wolfowitz_recursion(
    clock: ClockName, servers: int, load: float, law: dict[str, Any]
) -> None:
    """With one buffer set a lane, submitted − due of every request equals the recursion to the ns; so does the rest.

    latency = queue + service, service = h2d + S_k + d2h, and a generator that takes no time adds no lateness.
    """
    copies = law.get("h2d_ns", 0) + law.get("d2h_ns", 0)
    due = poisson(load * servers * 1000 / (5 + copies / MS), 1000, seed=servers)
    records, _, driven, _ = await run(due, contexts=servers, clock=clock, service_ns=5 * MS, seed=4, **law)

    def service() -> Iterator[int]:
        return (copies + time for time in Simulation(service_ns=5 * MS, seed=4, **law).service_times(1))

    waits = kiefer_wolfowitz(due.tolist(), service(), servers)
    times = list(itertools.islice(service(), len(due)))
    assert driven.submitted == len(records) == 1000
    assert records.due.tolist() == due.tolist()
    assert (records.submitted - records.due).tolist() == waits
    assert (records.completed - records.submitted).tolist() == times
    assert (records.completed - records.due).tolist() == [wait + time for wait, time in zip(waits, times, strict=True)]
    assert (records.h2d + records.compute + records.d2h).tolist() == times
    assert max(waits) > 0
    assert not records.lateness.any()


async def test_more_buffer_sets_move_waiting_into_service_and_change_no_latency(clock: ClockName) -> None:
    """One lane is first come, first served however many requests wait inside it: latencies stay, queue shrinks."""
    due = poisson(180, 800)
    single, double = [
        (await run(due, buffers=buffers, clock=clock, service_ns=5 * MS, cv=1.0))[0] for buffers in (1, 2)
    ]
    assert (single.completed == double.completed).all()
    assert (single.compute == double.compute).all()
    waits = single.submitted - single.due
    assert (double.submitted - double.due <= waits).all()
    assert (double.submitted - double.due).sum() < waits.sum()


@pytest.mark.parametrize("contention", [0.0, 0.25, 1.0])
async def test_closed_loops_scale_as_the_contention_says(clock: ClockName, contention: float) -> None:
    """X(n) = n / (S·(1 + contention·(n − 1))): n lanes' worth at contention 0, one lane's at 1."""
    records, _, driven, _ = await run(
        None, contexts=4, clock=clock, service_ns=5 * MS, contention=contention, least_ns=2 * SECOND_NS
    )
    assert set((records.completed - records.due).tolist()) == {round(5 * MS * (1 + 3 * contention))}
    throughput = len(records) / int(records.completed.max()) * SECOND_NS
    assert throughput == pytest.approx(4 / (0.005 * (1 + 3 * contention)))
    assert driven.submitted == len(records)


async def test_little_holds_in_every_interval(clock: ClockName) -> None:
    """∫N(t)dt over an interval = Σ latency of those completed in it + ages in the system at its end − at its start.

    N(t): requests due by t and not completed, counted from the schedule and the engine's answers, apart from records.
    Over the whole run the ages vanish: L = λ·W (Little, 1961), L = ∫N dt / T, λ = n / T, W = mean latency.
    """
    due = poisson(180, 1000)
    records, recorder, driven, engine = await run(
        due, contexts=2, buffers=2, clock=clock, service_ns=8 * MS, cv=1.0, contention=0.3
    )
    ends = np.sort([completion.completed_ns for completion in engine.completions]) - driven.start_ns

    def area(until: int) -> int:  # ∫N from 0
        return int(np.clip(until - due, 0, None).sum() - np.clip(until - ends, 0, None).sum())

    def ages(at: int) -> int:
        waiting = (records.due < at) & (records.completed >= at)
        return int((at - records.due[waiting]).sum())

    assert len(recorder.intervals) >= 5
    for interval in recorder.intervals:
        start, end = interval.start_ns, interval.start_ns + SECOND_NS
        assert interval.latency_mean_ns is not None
        latencies = interval.requests * interval.latency_mean_ns
        assert area(end) - area(start) == pytest.approx(latencies + ages(end) - ages(start), abs=1)
    assert area(int(ends[-1])) == recorder.histograms["latency"].sum


# --- means of queues that are solved in closed form


def erlang_c(servers: int, offered: float) -> float:
    """P(wait > 0) in M/M/c, a = λ·S erlangs: x / (Σ_{k<c} a^k/k! + x), x = (a^c/c!)·c/(c−a) (Erlang, 1917)."""
    waiting = offered**servers / math.factorial(servers) * servers / (servers - offered)
    return waiting / (sum(offered**k / math.factorial(k) for k in range(servers)) + waiting)


def batch_means(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """(mean, half-width) of a 99.9 % interval from 20 batch means: ȳ ± t·s/√20, t = 3.883 (Student, 19 degrees).

    Batches are long against the queue's relaxation time, so that their means are nearly independent (Law, 1977).
    """
    means = values[: len(values) // 20 * 20].reshape(20, -1).mean(axis=1)
    return float(means.mean()), float(3.883 * means.std(ddof=1) / math.sqrt(20))


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(
    ("servers", "distribution", "wait"),
    [
        (1, "exponential", lambda rho: rho / (1 - rho)),  # M/M/1
        (1, "constant", lambda rho: rho / (1 - rho) / 2),  # M/D/1 (Pollaczek and Khinchine)
        (3, "exponential", lambda rho: erlang_c(3, 3 * rho) / (3 * (1 - rho))),  # M/M/3
    ],
)
async def test_mean_waits_are_those_of_theory(servers: int, distribution: Any, wait: Any) -> None:
    """The mean queueing delay, in units of S, is within the batch-means interval, which is narrow."""
    rho = 0.7
    due = poisson(rho * servers * 1000, 100_000, seed=11)
    records, _, _, _ = await run(due, contexts=servers, clock="virtual", service_ns=MS, distribution=distribution)
    mean, half = batch_means((records.submitted - records.due) / MS)
    assert abs(mean - wait(rho)) < half < 0.15 * mean


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("law", [{}, {"distribution": "exponential"}, {"cv": 2.0}])
async def test_processor_sharing_is_insensitive_to_the_distribution(law: dict[str, Any]) -> None:
    """M/G/1-PS: mean latency = S / (1 − ρ) for any distribution (Kleinrock, 1967); at ρ = 0.5 32 lanes are many."""
    due = poisson(500, 60_000, seed=12)
    records, _, _, _ = await run(due, contexts=32, clock="virtual", service_ns=MS, contention=1.0, **law)
    mean, half = batch_means((records.completed - records.due) / MS)
    assert abs(mean - 2.0) < half < 0.3


# --- a stall


async def test_all_requests_due_in_a_stall_are_late(clock: ClockName) -> None:
    """At λ = 200/s a stall of 1 s makes λ·1 s = 200 requests late, by up to the whole second.

    The request due as it begins has latency 1 s + S; those due later wait for less. None of it is lateness.
    """
    due = due_instants(Constant(), 200, 10 * SECOND_NS, 0, 1)
    stall = (SECOND_NS, 5 * SECOND_NS)
    records, recorder, _, _ = await run(due, contexts=2, buffers=2, clock=clock, service_ns=MS // 10, stall=stall)
    latency = records.completed - records.due
    assert len(records) == 2000
    assert 200 <= np.count_nonzero(latency > MS) <= 204  # a few more come before those are served
    assert latency.max() == recorder.histograms["latency"].max == SECOND_NS + MS // 10
    assert (latency[due < 5 * SECOND_NS] == MS // 10).all()
    assert not records.lateness.any()


async def test_a_closed_loop_sees_a_stall_once(clock: ClockName) -> None:
    """Coordinated omission: a client that waits for an answer before it sends again sees one late request a lane."""
    stall = (SECOND_NS, 5 * SECOND_NS + 1)
    records, _, _, _ = await run(None, contexts=2, clock=clock, service_ns=5 * MS, stall=stall, least_ns=10 * SECOND_NS)
    latency = records.completed - records.due
    assert sorted(set(latency.tolist())) == [5 * MS, SECOND_NS + 5 * MS]
    assert np.count_nonzero(latency > 5 * MS) == 2


# --- bookkeeping


async def test_same_seed_same_records_on_every_clock(clock: ClockName) -> None:
    """Records depend on the seed alone: not on the event loop, its clock or the hour."""
    law: dict[str, Any] = {"service_ns": 5 * MS, "cv": 0.5, "contention": 0.4, "error": 0.05, "h2d_ns": MS}
    first = (await run(poisson(300, 1000), 3, 2, clock=clock, **law))[0]
    again = (await run(poisson(300, 1000), 3, 2, clock="virtual", **law))[0]
    other = (await run(poisson(300, 1000), 3, 2, clock="virtual", seed=2, **law))[0]
    assert (first.rows == again.rows).all()
    assert (first.compute != other.compute).any()


async def test_every_request_is_counted_once_everywhere(clock: ClockName) -> None:
    """due = ok + failed + unserved; histograms, lanes and intervals count what the engine answered; parts add up."""
    due = poisson(500, 1500)
    records, recorder, driven, engine = await run(
        due, 2, 2, clock=clock, service_ns=5 * MS, cv=1.0, error=0.1, drain_ns=MS * 50
    )
    failed = sum(completion.error is not None for completion in engine.completions)
    ok = len(engine.completions) - failed
    assert recorder.by_status.tolist() == [ok, failed, driven.unserved, 0]
    assert failed > 0 < driven.unserved
    assert ok + failed + driven.unserved == len(records) == len(due)
    assert engine.submits == driven.submitted < len(due)
    lanes = np.bincount([completion.lane for completion in engine.completions if completion.error is None])
    assert recorder.by_lane.tolist() == lanes.tolist()
    assert sum(interval.requests for interval in recorder.intervals) == ok
    assert sum(interval.failed for interval in recorder.intervals) == failed
    for metric in METRICS:
        expected = metric.of(records.counted if metric.of_unserved else records.ok)
        histogram = recorder.histograms[metric.name]
        assert (histogram.count, histogram.sum, histogram.max) == (len(expected), expected.sum(), expected.max())
    latency, queue, service = (metric.of(records) for metric in METRICS[:3])
    assert (latency == queue + service).all()


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("turns", range(10))
async def test_cancelling_at_any_await_leaks_nothing(
    clock: ClockName, closed: bool, turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever it is cancelled: every request sent or owed is recorded once, and every buffer set is usable again."""
    monkeypatch.setattr(clock_module, "TURN_EVERY", 1)
    engine = Watched(Simulation(clock=clock, service_ns=5 * MS, cv=1.0), 2, 2)
    recorder = Recorder(2, engine.now_ns())
    due = None if closed else poisson(2000, 1000)

    async def go(scope: anyio.CancelScope) -> None:
        with scope:
            await drive(engine, recorder, Load(due, least_ns=10 * SECOND_NS), Stop())

    async with anyio.create_task_group() as tasks:
        scope = anyio.CancelScope()
        tasks.start_soon(go, scope)
        for _ in range(turns):
            await anyio.lowlevel.checkpoint()
        scope.cancel()
    owed = 0 if due is None else int(np.count_nonzero(due <= engine.now_ns() - recorder.start_ns))
    answered = len(engine.completions)
    assert np.count_nonzero(recorder.records.status == OK) == answered
    assert np.count_nonzero(recorder.records.status == UNSERVED) == max(owed, engine.submits) - answered
    while len(engine.completions) < engine.submits:
        await engine.wait(engine.now_ns() + SECOND_NS)
    for lane in (0, 0, 1, 1):
        engine.submit(lane, 0)
    engine.close()
