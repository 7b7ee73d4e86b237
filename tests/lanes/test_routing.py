"""Workers of one host that route requests among them: as a router would that saw all of them, each request once."""

from __future__ import annotations

import heapq
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import anyio
import numpy as np
import pytest

from callback_device import CallbackDevice
from loadtrt.engines.clock import VirtualClock
from loadtrt.engines.simulated import SimulatedEngine
from loadtrt.engines.simulation import Simulation
from loadtrt.errors import EngineError
from loadtrt.lanes.recorder import Recorder
from loadtrt.lanes.routed import RoutedDriver
from loadtrt.lanes.scheduler import Driver, Load, Stop, drive_with
from loadtrt.lanes.shared_router import RoutingMemory, SharedRouter
from loadtrt.lanes.together import Drive, drive_all
from loadtrt.load.arrivals import Gamma, due_instants
from loadtrt.load.dealing import Deal
from loadtrt.loop.compiled import is_compiled
from loadtrt.loop.requests import COMING, COMPLETED, LAST, begin, new_state
from loadtrt.loop.routing import DRAW_BITS, LOCK_AT, NEXT, SEEN, choose, route
from loadtrt.records.records import COLUMNS, OK, UNSERVED
from loadtrt.units import MILLISECOND_NS as MS
from loadtrt.units import NEVER, SECOND_NS
from rigs import one_loop
from spinning_engine import SpinningEngine, use

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from spinning_engine import Way

    Instants = npt.NDArray[np.int64]

SEED = 5
INPUTS = [{"x": np.zeros((1, 16), np.float32)}]
WAYS: tuple[Way, ...] = ("waits", "python", "compiled") if is_compiled() else ("waits", "python")
POLICIES = [
    ("least-outstanding", ""),
    ("least-outstanding", "lowest-index"),
    ("least-outstanding", "random"),
    ("two-choices", ""),
]
policies = pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: ":".join(filter(None, policy)))


@pytest.fixture
def memory() -> Iterator[RoutingMemory]:
    made = RoutingMemory(8)
    yield made
    made.close()


def joined(
    memory: RoutingMemory,
    due: Instants,
    workers: int,
    policy: tuple[str, str],
    sets: int = 1,
    sizes: Sequence[int] = (),
) -> list[SharedRouter]:
    """The routers of all workers."""
    deals = [Deal(number, workers, *policy) for number in range(workers)]
    return [SharedRouter.join(memory.descriptor, deal, due, sets, SEED, sizes) for deal in deals]


def engine_of(number: int, lanes: int, clock: VirtualClock | None, **law: Any) -> SimulatedEngine:
    made = SimulatedEngine(Simulation(seed=Deal(number, 9).seed(SEED), **law), contexts=lanes, buffers=1)
    made.clock = clock or made.clock
    made.allocate(INPUTS)
    return made


async def measured(
    backend: str, routers: list[SharedRouter], engines: list[SimulatedEngine], due: Instants, **load: Any
) -> list[Recorder]:
    """Drive all workers in virtual time: on asyncio by one task and one clock, on trio by a task for each."""
    recorders = [Recorder(engine.contexts, 0) for engine in engines]
    drivers = [
        RoutedDriver(engine, recorder, Load(due, router=router, **load), Stop())
        for engine, recorder, router in zip(engines, recorders, routers, strict=True)
    ]
    began = engines[0].now_ns()
    if backend == "asyncio":
        await drive_all([Drive(driver, engine) for driver, engine in zip(drivers, engines, strict=True)], began)
    else:
        async with anyio.create_task_group() as group:
            for driver, engine in zip(drivers, engines, strict=True):
                driver.recorder.begin(began)
                group.start_soon(drive_with, driver, engine)
    return recorders


def rows_of(recorder: Recorder) -> Instants:
    """Its rows by due instants, which are those from the start."""
    rows = recorder.records.rows - np.array([recorder.start_ns] * 4 + [0] * (len(COLUMNS) - 4))
    by_due: Instants = rows[np.argsort(rows[:, 0], kind="stable")]
    return by_due


class OneRouter:
    """A router that sees every arrival and every completion."""

    def __init__(self, workers: int, policy: tuple[str, str], count: int) -> None:
        self._policy, self._outstanding, self._since, self._changes = (
            policy,
            [0] * workers,
            list(range(workers)),
            workers,
        )
        self._draws: list[int] = Deal(0, workers, *policy).draws(count, SEED).tolist()

    def send(self, request: int) -> int:
        outstanding, (routing, ties) = self._outstanding, self._policy
        fewest = min(outstanding)
        tied = [worker for worker, count in enumerate(outstanding) if count == fewest]
        if routing == "two-choices":
            worker, other = self._draws[2 * request : 2 * request + 2]
            worker = other if outstanding[other] < outstanding[worker] else worker
        elif ties == "random":
            worker = tied[self._draws[request] * len(tied) >> DRAW_BITS]
        else:
            worker = tied[0] if ties == "lowest-index" else min(tied, key=self._since.__getitem__)
        self._change(worker, 1)
        return worker

    def done(self, worker: int) -> None:
        self._change(worker, -1)

    def _change(self, worker: int, by: int) -> None:
        self._outstanding[worker] += by
        self._since[worker] = self._changes
        self._changes += 1


def by_one_router(
    due: Instants, workers: int, lanes: int, policy: tuple[str, str], **law: Any
) -> list[list[tuple[int, int, int]]]:
    """(due, submitted, completed) of the requests of each worker, as one router deals them out that sees every arrival
    and every completion at once, to queues that are first come, first served."""
    router = OneRouter(workers, policy, len(due))
    services = [Simulation(seed=Deal(number, 9).seed(SEED), **law).service_times(1) for number in range(workers)]
    free = [[0] * lanes for _ in range(workers)]
    served: list[list[tuple[int, int, int]]] = [[] for _ in range(workers)]
    ends: list[tuple[int, int]] = []
    for request, instant in enumerate(due.tolist()):
        while ends and ends[0][0] <= instant:
            router.done(heapq.heappop(ends)[1])
        number = router.send(request)
        began = max(instant, heapq.heappop(free[number]))
        end = began + next(services[number])
        heapq.heappush(free[number], end)
        heapq.heappush(ends, (end, number))
        served[number].append((instant, began, end))
    return served


@one_loop
@policies
@pytest.mark.parametrize(("workers", "lanes", "cv"), [(2, 1, 1.0), (4, 1, 4.0), (3, 2, 1.0), (3, 2, 4.0), (1, 1, 4.0)])
@pytest.mark.anyio
async def test_workers_route_as_one_router_does(
    anyio_backend_name: str, memory: RoutingMemory, policy: tuple[str, str], workers: int, lanes: int, cv: float
) -> None:
    """To the ns: who serves each request, when it is sent and when it completes."""
    law: dict[str, Any] = {"service_ns": 5 * MS, "distribution": "exponential"}
    due = due_instants(Gamma(cv), 0.8 * workers * lanes * 200, 0, 1500, SEED)
    clock = VirtualClock() if anyio_backend_name == "asyncio" else None
    engines = [engine_of(number, lanes, clock, **law) for number in range(workers)]
    recorders = await measured(anyio_backend_name, joined(memory, due, workers, policy, lanes), engines, due)
    for recorder, expected in zip(recorders, by_one_router(due, workers, lanes, policy, **law), strict=True):
        assert sorted(map(tuple, rows_of(recorder)[:, [0, 1, 3]].tolist())) == sorted(expected)


@pytest.mark.anyio
async def test_every_worker_knows_how_all_requests_were_routed(anyio_backend_name: str, memory: RoutingMemory) -> None:
    """One log of owners, of which each is chosen once; and a request has the size that it has in the whole load."""
    due = due_instants(Gamma(1.0), 500, 0, 2000, SEED)
    sizes = np.random.default_rng(1).integers(2, size=777).tolist()
    clock = VirtualClock() if anyio_backend_name == "asyncio" else None
    engines = [engine_of(number, 1, clock, service_ns=5 * MS) for number in range(3)]
    for engine in engines:
        engine.allocate(INPUTS * 2)
    routers = joined(memory, due, 3, ("least-outstanding", ""), sizes=sizes)
    load = {"order": [0] * len(due), "drain_ns": 60 * SECOND_NS}
    recorders = await measured(anyio_backend_name, routers, engines, due, **load)
    owners = routers[0].arrays.owners[: len(due)]
    assert sum(router.chosen for router in routers) == len(due)
    for number, (recorder, router) in enumerate(zip(recorders, routers, strict=True)):
        rows, places = rows_of(recorder), np.flatnonzero(owners == number + 1)
        assert rows[:, 0].tolist() == due[places].tolist()
        assert rows[:, COLUMNS.index("inputs")].tolist() == [sizes[place % 777] for place in places]
        assert router.arrays.given.tolist() == np.bincount(owners - 1, minlength=3).tolist()
        assert (router.took_ns >= 0).all()
        assert len(router.took_ns) >= router.chosen


@pytest.mark.anyio
async def test_a_full_queue_drops_what_it_was_given(anyio_backend_name: str, memory: RoutingMemory) -> None:
    """A dropped request is not outstanding."""
    due = due_instants(Gamma(1.0), 1000, 0, 2000, SEED)
    clock = VirtualClock() if anyio_backend_name == "asyncio" else None
    engines = [engine_of(number, 1, clock, service_ns=5 * MS) for number in range(2)]
    routers = joined(memory, due, 2, ("least-outstanding", ""))
    recorders = await measured(anyio_backend_name, routers, engines, due, most_waiting=2)
    assert sum(int(recorder.by_status.sum()) for recorder in recorders) == len(due)
    lost = [int(recorder.by_status.sum() - recorder.by_status[OK]) for recorder in recorders]
    assert min(lost) > 0.2 * len(due)
    assert lost[0] == pytest.approx(lost[1], rel=0.1)


@pytest.mark.anyio
async def test_a_worker_that_hangs_is_given_no_more_than_others_have(
    anyio_backend_name: str, memory: RoutingMemory
) -> None:
    """Its requests stay outstanding, and the others serve the rest; all are in the records."""
    due = due_instants(Gamma(1.0), 200, 0, 1000, SEED)
    clock = VirtualClock() if anyio_backend_name == "asyncio" else None
    engines = [
        engine_of(0, 1, clock, service_ns=5 * MS, hang=100 * MS),
        engine_of(1, 1, clock, service_ns=4 * MS),
    ]
    routers = joined(memory, due, 2, ("least-outstanding", ""))
    recorders = await measured(anyio_backend_name, routers, engines, due, drain_ns=SECOND_NS)
    hung, well = (recorder.by_status for recorder in recorders)
    assert (hung.sum() + well.sum(), well[OK]) == (len(due), well.sum())
    rows = rows_of(recorders[1])
    waiting = np.arange(1, len(rows) + 1) - np.searchsorted(np.sort(rows[:, 3]), rows[:, 0])
    assert 0 < hung[UNSERVED] <= waiting.max() + 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.anyio
async def test_what_others_chose_is_a_load(
    memory: RoutingMemory, monkeypatch: pytest.MonkeyPatch, way: Way, anyio_backend_name: str
) -> None:
    """Where owners are known beforehand, rows are cell by cell those of a load of one's own requests, however an engine
    is driven."""
    use(monkeypatch, way)
    due = np.cumsum(np.random.default_rng(2).exponential(110_000, 1000)).astype(np.int64)
    routers = joined(memory, due, 3, ("least-outstanding", ""), sets=3)
    owners = np.random.default_rng(3).integers(1, 4, len(due))
    routers[0].arrays.owners[: len(due)] = owners
    own = due[owners == 1]
    services = tuple(int(took) for took in np.random.default_rng(1).exponential(300_000, 997) + 1)

    async def run(load: Load, kind: Any) -> list[list[int]]:
        device = CallbackDevice(lanes=3, service_ns=services, due_ns=due.tolist())
        recorder, engine = Recorder(3, 0), SpinningEngine(device, way)
        recorder.begin(0)
        driven = await drive_with(kind(engine, recorder, load, Stop()), engine)  # type: ignore[arg-type]
        assert (driven.submitted, driven.unserved) == (len(own), 0)
        return sorted(recorder.records.rows.tolist())

    assert await run(Load(due, router=routers[0]), RoutedDriver) == await run(Load(own), Driver)
    assert routers[0].chosen == 0


@one_loop
@policies
@pytest.mark.anyio
async def test_machine_code_chooses_as_python(
    memory: RoutingMemory, monkeypatch: pytest.MonkeyPatch, policy: tuple[str, str], anyio_backend_name: str
) -> None:
    """The same owners, beside workers that complete some of what they were given."""
    due = np.arange(0, 300 * MS, MS // 4)
    services = tuple(int(took) for took in np.random.default_rng(1).exponential(600_000, 97) + 1)
    chosen: dict[str, list[int]] = {}
    for way in WAYS:
        use(monkeypatch, way) if way != "waits" else None
        own = RoutingMemory(4)
        router, *others = joined(own, due, 4, policy, sets=2)
        state = new_state(2, 1, 1, due, (0,), np.zeros(0, np.int64), np.zeros(2, np.int64))
        completed = [other.share(state).n for other in others]
        for cells, (before, count) in zip(completed, ((-5, 3), (-2, 200), (-1, 100)), strict=True):
            cells[COMPLETED] = count + before
        device = CallbackDevice(lanes=2, service_ns=services, due_ns=due.tolist())
        recorder, engine = Recorder(2, 0), SpinningEngine(device, way)
        recorder.begin(0)
        await drive_with(RoutedDriver(engine, recorder, Load(due, router=router), Stop()), engine)  # type: ignore[arg-type]
        chosen[way] = router.arrays.owners[: len(due)].tolist()
        own.close()
        monkeypatch.undo()
    assert set(chosen[WAYS[0]]) == {1, 2, 3, 4}
    assert all(owners == chosen[WAYS[0]] for owners in chosen.values())


def test_nothing_goes_to_a_worker_that_has_left(memory: RoutingMemory) -> None:
    """By any policy; and where all have, to who asks."""
    due = np.zeros(400, np.int64)
    memory.leave(1)
    for policy in POLICIES:
        own = RoutingMemory(3)
        own.leave(1)
        router = joined(own, due, 3, policy)[2]
        owners = [choose(router.view, place) - 1 for place in range(300)]
        assert set(owners) <= {0, 2}
        for gone in (0, 2):
            own.leave(gone)
        assert choose(router.view, 399) - 1 == 2
        own.close()


WALKS = """
import json, sys, time
import numpy as np
from loadtrt.lanes.shared_router import SharedRouter
from loadtrt.load.dealing import Deal
from loadtrt.loop.requests import COMING, COMPLETED, begin, new_state, view_of
from loadtrt.loop.routing import LOCK_AT, SEEN, route
descriptor, worker, workers, count, dies_at, routing = *map(int, sys.argv[1:6]), sys.argv[6]
due = np.arange(count) * 1000
router = SharedRouter.join(descriptor, Deal(worker, workers, routing), due, 1, 1)
nothing = np.zeros(1, np.int64)
state = router.share(new_state(1, 1, 1, due, (0,), nothing, nothing))
begin(state, 10**6)
random, view = np.random.default_rng(worker), view_of(state)
print("ready", flush=True)
sys.stdin.readline()
now = 10**6
while router.view.n[SEEN] < count:
    now += int(random.integers(20_000))
    if random.random() < 0.01:
        time.sleep(0.002)
    if router.view.n[SEEN] >= dies_at:
        router.view.lock(int(router.arrays.n[LOCK_AT]), 0, 0, 0)  # while it holds the lock, or another does
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
    route(view, router.view, now)
    view.n[COMPLETED] = int(view.n[COMING] * random.random() ** 0.1)
print(json.dumps({"due": (state.due[: state.n[COMING]] // 1000).tolist(), "given": router.arrays.given.tolist(),
                  "chosen": router.chosen}))
"""


@pytest.mark.parametrize("routing", ["least-outstanding", "two-choices"])
@pytest.mark.parametrize("dies", [False, True])
def test_processes_take_the_whole_schedule(memory: RoutingMemory, routing: str, dies: bool) -> None:
    """Each request once, whatever their timing; also where one dies that holds the lock."""
    count, workers = 5000, 4
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WALKS, *map(str, (memory.descriptor, number, workers, count)),
             str(count // 3 if dies and number == 2 else count + 1), routing],
            pass_fds=[memory.descriptor], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )
        for number in range(workers)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=100)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, -signal.SIGKILL if dies else 0, 0]
    told = {number: json.loads(text) for number, text in enumerate(said) if text}
    owners = SharedRouter.join(
        memory.descriptor, Deal(0, workers, routing), np.arange(count) * 1000, 1, 1
    ).arrays.owners
    assert set(owners[:count].tolist()) == {1, 2, 3, 4}
    for number, one in told.items():
        assert one["due"] == np.flatnonzero(owners[:count] == number + 1).tolist()
        assert one["given"] == np.bincount(owners[:count] - 1, minlength=4).tolist()
    if not dies:
        assert sorted(place for one in told.values() for place in one["due"]) == list(range(count))
        assert sum(one["chosen"] for one in told.values()) == count


def test_workers_of_another_load_are_refused(memory: RoutingMemory) -> None:
    """A trace that was changed while workers started, or a plan: their memory would have another layout. That of the
    others keeps its size: a process that reads beyond the end of a file is ended by SIGBUS."""
    due = np.arange(10, dtype=np.int64)
    joined(memory, due, 2, ("least-outstanding", ""))
    size = os.fstat(memory.descriptor).st_size
    for other, sets in ((due + 1, 1), (due[:9], 1), (due, 2), (due[:0], 1)):
        with pytest.raises(EngineError, match="another load, or other lanes, than those beside it"):
            SharedRouter.join(memory.descriptor, Deal(1, 2, "least-outstanding"), other, sets, SEED)
        assert os.fstat(memory.descriptor).st_size == size
    joined(memory, due, 2, ("least-outstanding", ""))


def test_a_lock_that_is_held_stops_nothing_else(memory: RoutingMemory) -> None:
    """A worker goes on with what is known, asks again, and then serves all; sending has not ended meanwhile."""
    due = np.arange(10, dtype=np.int64)
    router = joined(memory, due, 1, ("least-outstanding", ""))[0]
    nothing = np.zeros(1, np.int64)
    state = router.share(new_state(1, 1, 1, due, (0,), nothing, nothing))
    begin(state, 100)
    state.n[LAST] = len(due)
    view, lock_at = router.view, int(router.arrays.n[LOCK_AT])
    route(state, view, 104)
    assert (state.n[COMING], view.n[SEEN]) == (5, 5)
    assert view.lock(lock_at, 0, 0, 0) == 0
    route(state, view, 200)
    assert (state.n[COMING], view.n[NEXT], state.n[LAST]) == (5, 105, 10)
    view.unlock(lock_at, 0, 0, 0)
    route(state, view, 200)
    assert (state.n[COMING], view.n[NEXT], state.n[LAST]) == (10, NEVER, 10)
    assert len(router.took_ns) == 10
