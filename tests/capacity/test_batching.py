"""The model of a server that forms batches: the scheduler's completions, and a queue written down by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from loadtrt.engines.simulated import SimulatedEngine
from loadtrt.engines.simulation import Simulation
from loadtrt.lanes.recorder import Recorder
from loadtrt.lanes.scheduler import Load, Stop, drive
from loadtrt.load.arrivals import Poisson, due_instants
from loadtrt.load.request_sizes import Batcher, parse_batching
from loadtrt.records.records import DROPPED, OK
from loadtrt.sizing.batch_simulation import serve
from loadtrt.sizing.batching import Server
from loadtrt.sizing.station import station
from loadtrt.units import NEVER

if TYPE_CHECKING:
    from loadtrt.records.records import Records
    from loadtrt.sizing.station import Floats

MS = 1_000_000
SECOND = 1_000_000_000


def constant(ranks: Floats) -> Floats:
    return np.ones_like(ranks)


def server_with(text: str | None, room: int | None, contexts: int, buffers: int, contention: float = 0.0) -> Server:
    """Batches of b take 1 ms + b · 0.1 ms, on lanes that slow each other by `contention`."""
    batching = None if text is None else parse_batching(text)

    def of_size(size: int) -> Any:
        def throughput(n: int) -> float:
            lanes = min(n, contexts)
            return lanes / (1 + contention * (lanes - 1)) / (1e-3 + size * 1e-4)

        return station(contexts, buffers, throughput, constant)

    return Server({size: of_size(size) for size in (batching.sizes if batching else (1,))}, batching, room)


async def driven(
    due: Any, text: str | None, room: int | None, contexts: int, buffers: int, contention: float
) -> Records:
    """What the scheduler records of these requests on the simulated engine."""
    batching = None if text is None else parse_batching(text)
    simulation = Simulation(service_ns=MS, item_ns=MS // 10, contention=contention, clock="virtual")
    sizes = batching.sizes if batching else (1,)
    engine = SimulatedEngine(simulation, contexts=contexts, buffers=buffers, batches=sizes)
    engine.allocate([{"x": np.zeros((size, 16), np.float32)} for size in sizes])
    recorder = Recorder(contexts, engine.now_ns())
    batcher = None if batching is None else Batcher(batching, 1)
    await drive(engine, recorder, Load(due=due, most_waiting=room, batcher=batcher, order=range(len(sizes))), Stop())
    return recorder.records


@pytest.mark.anyio
@pytest.mark.parametrize(("rate", "grain_ns"), [(200.0, 1), (2000.0, MS), (8000.0, 1)])
@pytest.mark.parametrize(
    ("text", "room", "contexts", "buffers", "contention"),
    [
        ("max=16,delay=2ms", None, 1, 2, 0.0),
        ("max=16,delay=2ms,sizes=4/16", None, 2, 1, 0.0),
        ("max=8,delay=500us", 12, 3, 2, 0.5),
        ("max=8,delay=0s", None, 1, 1, 0.0),
        ("max=8,delay=0s", 2, 2, 1, 0.0),
        ("max=16,delay=5ms", 3, 2, 1, 0.0),
        (None, 3, 2, 2, 1.0),
        (None, 1, 2, 1, 0.0),
        (None, None, 2, 2, 0.0),
    ],
)
async def test_every_completion_is_that_of_the_scheduler(
    text: str | None, room: int | None, contexts: int, buffers: int, contention: float, rate: float, grain_ns: int
) -> None:
    """Which requests go together, when, on which lane, and which are dropped; but for rounding to the ns. Several come
    at one instant where instants are whole ms, and when a batch completes."""
    due = due_instants(Poisson(), rate, 0, 3_000, 7) // grain_ns * grain_ns
    completed = serve(due, np.full(len(due), 0.5), server_with(text, room, contexts, buffers, contention))
    records = await driven(due, text, room, contexts, buffers, contention)
    dropped, ok = records.status == DROPPED, records.status == OK
    assert due[completed == NEVER].tolist() == records.due[dropped].tolist()
    assert int(ok.sum()) == int((completed != NEVER).sum())
    if rate == 8000:
        assert dropped.any() == (room is not None)
    served = completed != NEVER
    order, by_due = np.lexsort((records.completed[ok], records.due[ok])), np.lexsort((completed[served], due[served]))
    assert due[served].tolist() == records.due[ok][order].tolist()
    off = np.abs(completed[served][by_due] - records.completed[ok][order])
    assert off.max() <= (0 if contention == 0 else 20)
