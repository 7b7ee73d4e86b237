"""The scheduler over an engine that spins: the rows, the ends and the errors of one that is waited for."""

from __future__ import annotations

import heapq
import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
import numpy as np
import pytest

from callback_device import CallbackDevice
from loadtrt.asked.config import RunConfig
from loadtrt.engines.open import open_engine
from loadtrt.errors import EngineError
from loadtrt.lanes import scheduler
from loadtrt.lanes.input_sets import inputs_for
from loadtrt.lanes.recorder import Recorder
from loadtrt.lanes.scheduler import Driven, Load, Stop, drive
from loadtrt.lanes.session import Session, run_session
from loadtrt.loop import compiled
from loadtrt.loop.compiled import is_compiled
from loadtrt.records.board import Board
from loadtrt.records.records import COLUMNS, OK, UNSERVED
from loadtrt.units import MILLISECOND_NS as MS
from loadtrt.units import SECOND_NS
from spinning_engine import TURN_NS, SpinningEngine, use

if TYPE_CHECKING:
    from collections.abc import Callable

    from spinning_engine import Way

pytestmark = pytest.mark.anyio

WAYS = ("compiled", "python") if is_compiled() else ("python",)
spinning = pytest.mark.parametrize("way", WAYS)
SERVICES = tuple(int(took) for took in np.random.default_rng(1).exponential(300_000, 997) + 1)
DUE = np.cumsum(np.random.default_rng(2).exponential(110_000, 1000)).astype(np.int64)


async def run(
    simulated: CallbackDevice,
    load: Load,
    way: Way,
    stop: Stop | None = None,
    on_turn: Callable[[], None] = lambda: None,
    **recording: Any,
) -> tuple[list[list[int]], Driven, Recorder]:
    """Rows in the order of records, what was driven, and the recorder."""
    simulated = replace(simulated, calls=[], launches=[], due_ns=[] if load.due is None else load.due.tolist())
    engine: Any = SpinningEngine(simulated, way, on_turn)
    recorder = Recorder(simulated.lanes, 0, **recording)
    recorder.begin(0)
    driven = await drive(engine, recorder, load, stop or Stop())
    return recorder.records.rows.tolist(), driven, recorder


@spinning
@pytest.mark.parametrize(
    ("device", "load"),
    [
        (CallbackDevice(lanes=3), Load(None, least_requests=1000)),
        (CallbackDevice(lanes=2, slots=2), Load(None, least_ns=60 * MS)),
        (CallbackDevice(lanes=2, slots=2), Load(None, least_ns=9 * SECOND_NS, most_ns=50 * MS)),
        (CallbackDevice(slots=3, per_launch=4, copies=False), Load(None, least_requests=1000)),
        (CallbackDevice(lanes=4, sets=3), Load(None, least_requests=1000, order=(2, 0, 1, 1))),
        (CallbackDevice(lanes=3), Load(DUE)),
        (CallbackDevice(lanes=3, slots=2, sets=2), Load(DUE, order=(0, 1))),
        (CallbackDevice(lanes=2), Load(DUE, most_waiting=3)),
        (CallbackDevice(lanes=2), Load(DUE, most_waiting=0)),
        (CallbackDevice(lanes=1), Load(DUE, drain_ns=20 * MS)),
        (CallbackDevice(lanes=3), Load(np.zeros(1000, np.int64))),
        (CallbackDevice(lanes=3), Load(np.zeros(1000, np.int64), most_ns=30 * MS, drain_ns=40 * MS)),
        (CallbackDevice(), Load(np.zeros(0, np.int64))),
        (CallbackDevice(), Load(np.array([0, 3 * SECOND_NS]))),
    ],
)
async def test_rows_are_those_of_an_engine_that_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, way: Way, device: CallbackDevice, load: Load
) -> None:
    """Where calls cost nothing: cell by cell, and the counts with them."""
    device = replace(device, service_ns=SERVICES)
    waited, expected, _ = await run(device, load, "waits")
    use(monkeypatch, way)
    rows, driven, _ = await run(device, load, way)
    assert sorted(rows) == sorted(waited)
    assert (driven.submitted, driven.unserved, driven.silent_ns) == (expected.submitted, expected.unserved, 0)
    assert abs(driven.end_ns - expected.end_ns) <= MS  # the longest time that the device lets pass at once


@spinning
@pytest.mark.parametrize("servers", [1, 3])
async def test_waits_are_the_kiefer_wolfowitz_recursion(
    monkeypatch: pytest.MonkeyPatch, way: Way, servers: int
) -> None:
    """With one buffer set a lane, submitted − due is the recursion's wait to the ns, lateness 0."""
    use(monkeypatch, way)
    due = DUE * 3 // servers
    rows, _, _ = await run(CallbackDevice(lanes=servers, service_ns=SERVICES, copies=False), Load(due), way)
    by_due = sorted(rows)
    free, waits = [0] * servers, []
    for instant, service in zip(due.tolist(), itertools.cycle(SERVICES), strict=False):
        began = max(instant, heapq.heappop(free))
        waits.append(began - instant)
        heapq.heappush(free, began + service)
    assert [row[1] - row[0] for row in by_due] == waits
    assert {row[COLUMNS.index("lateness")] for row in rows} == {0}


@spinning
async def test_the_last_request_of_an_open_loop_is_served(monkeypatch: pytest.MonkeyPatch, way: Way) -> None:
    """It comes due at the instant at which sending stops."""
    use(monkeypatch, way)
    rows, driven, _ = await run(CallbackDevice(service_ns=(1000,)), Load(np.array([0, 10 * MS, 20 * MS])), way)
    assert [row[COLUMNS.index("status")] for row in rows] == [OK] * 3
    assert driven.submitted == 3


@spinning
@pytest.mark.parametrize("keep", [0, 8, 200])
async def test_small_boards_lose_no_row(monkeypatch: pytest.MonkeyPatch, way: Way, keep: int) -> None:
    """The loop pauses for the recorder in the middle of what a poll found."""
    use(monkeypatch, way)
    board = Board(keep=keep, ring=1 << 8)
    device = CallbackDevice(lanes=4, slots=2, per_launch=3, service_ns=(1000,))
    _, driven, recorder = await run(device, Load(None, least_requests=3001), way, board=board)
    assert driven.submitted == sum(recorder.by_status.tolist()) == int(recorder.by_status[OK]) == 3003


@spinning
async def test_a_call_that_fails_where_rows_have_no_room_is_told(monkeypatch: pytest.MonkeyPatch, way: Way) -> None:
    """The error is raised, and every request is in the recorder: also where the board was full at that moment."""
    use(monkeypatch, way)
    for number in range(1, 60):
        device = CallbackDevice(lanes=3, slots=2, service_ns=SERVICES, fault_at=("launch", number))
        board, recorder = Board(keep=8, ring=1 << 8), None
        recorder = Recorder(3, 0, board=board)
        recorder.begin(0)
        engine: Any = SpinningEngine(device, way)
        with pytest.raises(EngineError, match="failed with 700"):
            await drive(engine, recorder, Load(None, least_requests=600), Stop())
        assert len(device.launches) == number - 1 == sum(recorder.by_status.tolist())
        lost = recorder.by_status[UNSERVED]
        assert lost == sum(map(len, device.waiting))


@spinning
@pytest.mark.parametrize("how", ["requested", "enough", "cut"])
async def test_a_stop_is_seen_at_the_next_turn(monkeypatch: pytest.MonkeyPatch, way: Way, how: str) -> None:
    """Nothing comes due afterwards; what waits is served, but where the run is cut."""
    use(monkeypatch, way)
    device = CallbackDevice(service_ns=(MS,), copies=False)
    stop = Stop()
    turns = itertools.count(1)

    def on_turn() -> None:
        if next(turns) == 4:
            setattr(stop, how, True)

    due = np.arange(0, 100 * MS, MS // 2)
    rows, driven, _ = await run(device, Load(due), way, stop, on_turn)
    late = 4 * (TURN_NS + MS)
    assert len(rows) <= late // MS if how == "cut" else late // MS < len(rows) <= 2 * late // MS + 1
    assert max(row[0] for row in rows) <= driven.sent_ns <= late
    assert driven.unserved == 0


@spinning
async def test_a_turn_that_takes_long_is_known_when_sending_ends(monkeypatch: pytest.MonkeyPatch, way: Way) -> None:
    """A turn of the event loop passes the end of sending: nothing is sent after it."""
    use(monkeypatch, way)
    device = CallbackDevice(lanes=2, service_ns=(MS,))
    turns = itertools.count(1)

    def on_turn() -> None:
        if next(turns) == 2:
            device.now += 30 * MS

    recorder = Recorder(2, 0)
    recorder.begin(0)
    engine: Any = SpinningEngine(device, way, on_turn)
    driven = await drive(engine, recorder, Load(None, least_ns=SECOND_NS, most_ns=20 * MS), Stop())
    assert driven.submitted == len(recorder.records) > 8
    assert recorder.records.rows[:, COLUMNS.index("submitted")].max() < 20 * MS


@spinning
async def test_cancelling_at_a_turn_keeps_what_was_sent(monkeypatch: pytest.MonkeyPatch, way: Way) -> None:
    """The scope is left, and requests in flight are unserved."""
    use(monkeypatch, way)
    device = CallbackDevice(lanes=2, service_ns=SERVICES)
    recorder = Recorder(2, 0)
    recorder.begin(0)
    with anyio.CancelScope() as scope:
        engine: Any = SpinningEngine(device, way, scope.cancel)
        await drive(engine, recorder, Load(None, least_ns=SECOND_NS), Stop())
    assert scope.cancelled_caught
    assert recorder.submitted == len(device.launches) == sum(recorder.by_status.tolist())
    assert recorder.by_status[UNSERVED] == sum(map(len, device.waiting)) > 0
    assert device.now <= TURN_NS + MS


@spinning
async def test_an_engine_that_completes_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch, way: Way) -> None:
    """It has shown its pace, and then hangs: after ten seconds, or as long as a drain asks for."""
    use(monkeypatch, way)
    device = CallbackDevice(lanes=2, service_ns=(MS, MS, MS, 100 * SECOND_NS, MS))
    for drain_ns, patience in ((None, 10 * SECOND_NS), (15 * SECOND_NS, 15 * SECOND_NS)):
        rows, driven, _ = await run(device, Load(None, least_ns=SECOND_NS // 2, drain_ns=drain_ns), way)
        assert patience < driven.silent_ns < patience + SECOND_NS
        assert driven.unserved == sum(row[COLUMNS.index("status")] == UNSERVED for row in rows) == 2


@pytest.mark.skipif(not is_compiled(), reason="without numba nothing is compiled")
async def test_machine_code_is_made_before_the_load_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver compiles when it is made; the load begins afterwards."""
    order: list[str] = []
    made, begun = compiled.spinner, scheduler.Driver.begin

    def spinner(*given: Any) -> Any:
        order.append("compile")
        return made(*given)

    def begin(*given: Any) -> None:
        order.append("begin")
        begun(*given)

    monkeypatch.setattr(scheduler, "spinner", spinner)
    monkeypatch.setattr(scheduler.Driver, "begin", begin)
    await run(CallbackDevice(), Load(None, least_requests=10), "compiled")
    assert order == ["compile", "begin"]


@spinning
async def test_a_turn_does_not_ask_what_the_engine_is(monkeypatch: pytest.MonkeyPatch, way: Way) -> None:
    """To look through a protocol takes 0.1 ms, in which requests come due: it is done as a load begins, alone."""
    asked: list[object] = []

    class Asking(type):
        def __instancecheck__(cls, engine: object) -> bool:
            asked.append(engine)
            return True

    monkeypatch.setattr(scheduler, "Spins", Asking("Spins", (), {}))
    use(monkeypatch, way)
    turns: list[int] = []
    await run(CallbackDevice(service_ns=(MS,)), Load(None, least_requests=200), way, on_turn=lambda: turns.append(0))
    assert len(turns) > 20
    assert len(asked) <= 2


async def test_a_run_makes_its_driver_before_it_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Warm-up and measuring: first the driver, then the recorder's clock; and one before both, as the first compiles
    for seconds, in which no phase may be given up. It is told to measure when all is ready."""
    order: list[str] = []
    made, begun = scheduler.Driver.__init__, Recorder.begin

    def make(*given: Any) -> None:
        order.append("driver")
        made(*given)

    def begin(recorder: Recorder, start_ns: int) -> None:
        order.append("begin")
        begun(recorder, start_ns)

    def tick(phase: str, elapsed_ns: int, *_: int) -> None:
        order.extend([phase] if not elapsed_ns else ())

    monkeypatch.setattr(scheduler.Driver, "__init__", make)
    monkeypatch.setattr(Recorder, "begin", begin)
    config = RunConfig.of(engine="simulated:null", requests=10, warmup="1ms")
    engine = open_engine(config.model)
    await run_session(engine, config, inputs_for(engine, config.model).sets, Stop(), Session(), tick)
    loads = ["driver", "begin"]
    warmed = (len(order) - 5) // 2
    assert order == ["driver", "warm-up", *loads * warmed, "driver", "measure", "begin"]
    assert warmed >= 1
