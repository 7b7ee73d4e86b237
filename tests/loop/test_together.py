"""Several engines that spin, beside each other and beside engines that are waited for: each has the rows of its own."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from callback_device import CallbackDevice
from loadtrt.engines.simulated import NullEngine
from loadtrt.errors import EngineError
from loadtrt.lanes.recorder import Recorder
from loadtrt.lanes.scheduler import Driver, Load, Stop
from loadtrt.lanes.together import Drive, drive_all
from loadtrt.loop.compiled import is_compiled
from loadtrt.units import MILLISECOND_NS as MS
from spinning_engine import SpinningEngine, use

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtrt.records.board import Board
    from spinning_engine import Way

pytestmark = pytest.mark.anyio

spinning = pytest.mark.parametrize("way", ("compiled", "python") if is_compiled() else ("python",))
SERVICES = tuple(int(took) for took in np.random.default_rng(1).exponential(300_000, 997) + 1)
DUE = np.cumsum(np.random.default_rng(2).exponential(110_000, 3000)).astype(np.int64)
CLOSED = (CallbackDevice(lanes=3, service_ns=SERVICES), Load(None, least_requests=3000))
OPEN = (CallbackDevice(lanes=3, slots=2, service_ns=SERVICES), Load(DUE))


def spin_of(
    simulated: CallbackDevice,
    load: Load,
    way: Way,
    on_turn: Callable[[], None] = lambda: None,
    board: Board | None = None,
) -> Drive:
    due = [] if load.due is None else load.due.tolist()
    engine: Any = SpinningEngine(replace(simulated, calls=[], launches=[], due_ns=due), way, on_turn)
    return Drive(Driver(engine, Recorder(simulated.lanes, 0, board=board), load, Stop()), engine)


def rows_of(drive: Drive) -> list[list[int]]:
    assert drive.error is None
    return sorted(drive.driver.recorder.records.rows.tolist())


@spinning
async def test_rows_are_those_that_each_has_alone(monkeypatch: pytest.MonkeyPatch, way: Way) -> None:
    """Cell by cell: rounds take turns, and each device has a clock of its own here."""
    use(monkeypatch, way)
    alone = []
    for device, load in (CLOSED, OPEN):
        drive = spin_of(device, load, way)
        await drive_all([drive], 0)
        alone.append(rows_of(drive))
    together = [spin_of(device, load, way) for device, load in (CLOSED, OPEN)]
    await drive_all(together, 0)
    assert [rows_of(drive) for drive in together] == alone


@spinning
@pytest.mark.parametrize("models", [2, 3])
async def test_no_model_waits_for_longer_than_a_round(monkeypatch: pytest.MonkeyPatch, way: Way, models: int) -> None:
    """While all have work, there is at most one round of each other between two launches of one: a launch of each
    lane."""
    use(monkeypatch, way)
    order: list[int] = []

    class Noted(list[int]):
        def append(self, graph: int) -> None:
            super().append(graph)
            order.append(id(self))

    drives = [spin_of(*CLOSED, way) for _ in range(models)]
    for drive in drives:
        drive.engine._simulated.launches = Noted()  # type: ignore[attr-defined]
    await drive_all(drives, 0)
    assert [len(rows_of(drive)) for drive in drives] == [3000] * models
    first_ends = min(max(at for at, one in enumerate(order) if one == model) for model in set(order))
    together = order[:first_ends]
    assert len(together) > 2000 * models
    assert max(len(list(same)) for _, same in groupby(together)) <= CLOSED[0].lanes


@spinning
async def test_rounds_of_all_do_not_pass_through_python(monkeypatch: pytest.MonkeyPatch, way: Way) -> None:
    """A turn of Python takes 50 µs a model, in which requests come due: there is one where an engine wants it, or a
    driver, and none for each request. The devices have one clock."""
    use(monkeypatch, way)
    time = [0]

    class OneClock(CallbackDevice):
        now = property(lambda _: time[0], lambda _, now: time.__setitem__(0, now))

    drives = [spin_of(device, load, way) for device, load in (CLOSED, OPEN)]
    for drive in drives:
        drive.engine._simulated.__class__ = OneClock  # type: ignore[attr-defined]
    looked = Drive.look
    looks: list[int] = []

    async def counted(self: Drive) -> int | None:
        looks.append(1)
        return await looked(self)

    monkeypatch.setattr(Drive, "look", counted)
    await drive_all(drives, 0)
    assert sum(len(rows_of(drive)) for drive in drives) == 6000
    assert len(looks) < 1000


@spinning
async def test_engines_that_spin_beside_one_that_is_waited_for(monkeypatch: pytest.MonkeyPatch, way: Way) -> None:
    """Both are served, and the event loop has its turns."""
    use(monkeypatch, way)
    turns: list[int] = []
    null = NullEngine(contexts=2)
    null.allocate([{"x": np.zeros((1, 16), np.float32)}])
    waited = Drive(Driver(null, Recorder(2, 0), Load(None, least_requests=500), Stop()), null)
    spun = spin_of(*CLOSED, way, on_turn=lambda: turns.append(1))
    for drive in (waited, spun):
        drive.driver.recorder.begin(drive.engine.now_ns())
    await drive_all([waited, spun])
    assert len(rows_of(waited)) == 500
    assert len(rows_of(spun)) == 3000
    assert turns


@spinning
async def test_a_call_that_fails_ends_its_own_load(monkeypatch: pytest.MonkeyPatch, way: Way) -> None:
    use(monkeypatch, way)
    broken = replace(CLOSED[0], fault_at=("query", 200))
    drives = [spin_of(broken, CLOSED[1], way), spin_of(*CLOSED, way)]
    await drive_all(drives, 0)
    assert isinstance(drives[0].error, EngineError)
    assert drives[0].driven is not None
    assert drives[0].driven.unserved > 0
    assert len(rows_of(drives[1])) == 3000


@spinning
async def test_a_stop_ends_all(monkeypatch: pytest.MonkeyPatch, way: Way) -> None:
    use(monkeypatch, way)
    device, _ = CLOSED
    drives = [spin_of(device, Load(None, least_ns=1000 * MS, most_ns=most), way) for most in (20 * MS, 50 * MS)]
    await drive_all(drives, 0)
    sent = [drive.driven.sent_ns for drive in drives if drive.driven is not None]
    assert 20 * MS <= sent[0] < 50 * MS <= sent[1]
