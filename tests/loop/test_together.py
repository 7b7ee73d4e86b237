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
from loadtrt.lanes.together import Drive, drive_all, rounds_of_all
from loadtrt.loop import compiled
from loadtrt.loop.compiled import is_compiled
from loadtrt.loop.device import FOUND, TAKEN, spin_all
from loadtrt.records.board import STRIDE, Board
from loadtrt.units import MILLISECOND_NS as MS
from spinning_engine import TURN_NS, SpinningEngine, use

if TYPE_CHECKING:
    from collections.abc import Callable

    from spinning_engine import Way

pytestmark = pytest.mark.anyio

spinning = pytest.mark.parametrize("way", ("compiled", "python") if is_compiled() else ("python",))
REQUESTS = 1000
SERVICES = tuple(int(took) for took in np.random.default_rng(1).exponential(300_000, 997) + 1)
DUE = np.cumsum(np.random.default_rng(2).exponential(110_000, REQUESTS)).astype(np.int64)
CLOSED = (CallbackDevice(lanes=3, service_ns=SERVICES), Load(None, least_requests=REQUESTS))
OPEN = (CallbackDevice(lanes=3, slots=2, service_ns=SERVICES), Load(DUE))


def spin_of(
    simulated: CallbackDevice,
    load: Load,
    way: Way,
    on_turn: Callable[[], None] = lambda: None,
    board: Board | None = None,
    stop: Stop | None = None,
) -> Drive:
    due = [] if load.due is None else load.due.tolist()
    engine: Any = SpinningEngine(replace(simulated, calls=[], launches=[], due_ns=due), way, on_turn)
    return Drive(Driver(engine, Recorder(simulated.lanes, 0, board=board), load, stop or Stop()), engine)


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
    assert [len(rows_of(drive)) for drive in drives] == [REQUESTS] * models
    first_ends = min(max(at for at, one in enumerate(order) if one == model) for model in set(order))
    together = order[:first_ends]
    assert len(together) > REQUESTS * models * 2 // 3
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

    async def counted(self: Drive) -> tuple[int, int] | None:
        looks.append(1)
        return await looked(self)

    monkeypatch.setattr(Drive, "look", counted)
    await drive_all(drives, 0)
    assert sum(len(rows_of(drive)) for drive in drives) == 2 * REQUESTS
    assert len(looks) < REQUESTS // 3


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
    assert len(rows_of(spun)) == REQUESTS
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
    assert len(rows_of(drives[1])) == REQUESTS


@spinning
async def test_a_stop_ends_all(monkeypatch: pytest.MonkeyPatch, way: Way) -> None:
    use(monkeypatch, way)
    device, _ = CLOSED
    drives = [spin_of(device, Load(None, least_ns=1000 * MS, most_ns=most), way) for most in (20 * MS, 50 * MS)]
    await drive_all(drives, 0)
    sent = [drive.driven.sent_ns for drive in drives if drive.driven is not None]
    assert 20 * MS <= sent[0] < 50 * MS <= sent[1]


@spinning
@pytest.mark.parametrize("count", [2, 3])
async def test_a_model_that_is_over_holds_up_no_other(monkeypatch: pytest.MonkeyPatch, way: Way, count: int) -> None:
    """To count a million rows takes 0.2 s: there is time for that once all are over."""
    use(monkeypatch, way)
    drives = [spin_of(CLOSED[0], Load(None, least_requests=300 * (1 + number)), way) for number in range(count)]
    counted: list[bool] = []

    def noted(self: Recorder, until: int) -> None:
        counted.append(all(drive.over for drive in drives))
        drain(self, until)

    drain = Recorder._drain_block
    monkeypatch.setattr(Recorder, "_drain_block", noted)
    await drive_all(drives, 0)
    assert [len(rows_of(drive)) for drive in drives] == [300 * (1 + number) for number in range(count)]
    assert counted
    assert all(counted)


@spinning
@pytest.mark.parametrize("count", [1, 2])
async def test_requests_that_were_found_are_written_before_anything_may_end(
    monkeypatch: pytest.MonkeyPatch, way: Way, count: int
) -> None:
    """Also where there was room for some of them: a deadline may pass before the next spin."""
    use(monkeypatch, way)
    make_room, left = Driver.make_room, []

    def noted(self: Driver) -> None:
        assert self._device is not None
        cells = self._device.n
        before = cells[FOUND] - cells[TAKEN]
        make_room(self)
        left.append((before, cells[FOUND] - cells[TAKEN]))

    monkeypatch.setattr(Driver, "make_room", noted)
    device = CallbackDevice(lanes=3)  # all lanes complete at once, and no block of rows is a multiple of three
    drives = [
        spin_of(device, Load(None, least_requests=REQUESTS), way, board=Board(keep=0, ring=2 * STRIDE))
        for _ in range(count)
    ]
    await drive_all(drives, 0)
    assert [drive.driver.recorder.seen for drive in drives] == [REQUESTS] * count
    assert any(before for before, _ in left)
    assert {after for _, after in left} == {0}


@pytest.mark.skipif(not is_compiled(), reason="without numba nothing is compiled")
async def test_fewer_models_leave_nothing_to_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    """One fails, and the others begin to be measured at once; each has the rows that it has alone."""
    await drive_all([alone := spin_of(*OPEN, "compiled")], 0)
    monkeypatch.setattr(compiled, "_counts", set())
    arrays = await models_of(3)
    code = compiled._entry(spin_all, compiled._STEPS, kept=True)
    had = len(code.overloads)
    assert await models_of(2) == arrays[:2] == [rows_of(alone)] * 2
    assert len(code.overloads) == had


async def models_of(count: int) -> list[list[list[int]]]:
    drives = [spin_of(*OPEN, "compiled") for _ in range(count)]
    await drive_all(drives, 0)
    return list(map(rows_of, drives))


@spinning
async def test_more_models_than_are_compiled_take_turns(monkeypatch: pytest.MonkeyPatch, way: Way) -> None:
    """To compile the rounds of 64 models would take minutes."""
    use(monkeypatch, way)
    monkeypatch.setattr("loadtrt.lanes.together.MOST_MODELS", 2)
    load = Load(None, least_requests=300)
    drives = [spin_of(CLOSED[0], load, way) for _ in range(3)]
    assert (rounds_of_all(drives) is None) == (way == "compiled")
    await drive_all(drives, 0)
    assert [len(rows_of(drive)) for drive in drives] == [300] * 3


@spinning
@pytest.mark.parametrize("flag", ["requested", "enough", "cut"])
async def test_a_flag_that_is_set_in_the_event_loop_ends_all(
    monkeypatch: pytest.MonkeyPatch, way: Way, flag: str
) -> None:
    """Within a turn of it, with a row for each request that was due by then and not forgotten."""
    use(monkeypatch, way)
    stop, ends, overloaded = Stop(), 50 * MS, (replace(OPEN[0], lanes=2), OPEN[1])

    def on_turn() -> None:
        setattr(stop, flag, any(drive.engine.now_ns() >= ends for drive in drives))

    drives = [spin_of(device, load, way, on_turn, stop=stop) for device, load in (CLOSED, overloaded, overloaded)]
    await drive_all(drives, 0)
    for drive in drives:
        assert drive.driven is not None
        assert drive.driven.sent_ns <= ends + 2 * TURN_NS
        assert drive.driven.unserved == 0
        assert len(rows_of(drive)) == drive.driven.submitted
    for drive in drives[1:]:
        assert drive.driven is not None
        due = int(np.searchsorted(DUE, drive.driven.sent_ns, side="right"))
        assert drive.driven.submitted < due if flag == "cut" else drive.driven.submitted == due
