"""How TensorRT's engine waits, by spinning and by sleeping, with fake lanes and a fake clock.

Lanes are first come, first served and independent. A look at the clock takes 0.5 µs, an enqueue 10 µs, and a sleep is
3 µs too long.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import anyio
import numpy as np
import pytest

from loadtrt.engines import cuda_engine
from loadtrt.engines.engine import Completion
from loadtrt.engines.plan_engine import TensorRTEngine
from loadtrt.engines.waiting import LEAST_NS, PollTimes
from loadtrt.lanes.recorder import Recorder
from loadtrt.lanes.scheduler import Driven, Load, Stop, drive
from loadtrt.records.records import DROPPED, OK, UNSERVED
from loadtrt.units import MILLISECOND_NS as MS
from loadtrt.units import NEVER

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.anyio


class Device:
    """The clock."""

    def __init__(self) -> None:
        self.time_ns = 10**9
        self.sleeps = 0
        self.look_ns = 500

    def now_ns(self) -> int:
        self.time_ns += self.look_ns
        return self.time_ns

    def sleep(self, seconds: float) -> None:
        assert 0 <= seconds <= 0.05  # the event loop's turn
        self.sleeps += 1
        self.time_ns += round(seconds * 1e9) + 3_000


class FifoLane:
    """service_ns: by input set."""

    def __init__(self, device: Device, service_ns: Sequence[int], buffers: int) -> None:
        self._device, self._service_ns, self._buffers = device, service_ns, buffers
        self._queue: list[tuple[int, int, int]] = []
        self._end_ns = self._sent = 0
        self.ends_ns: list[int] = []

    def submit(self, inputs: int) -> None:
        assert len(self._queue) < self._buffers
        self._device.time_ns += 10_000
        start = max(self._device.time_ns, self._end_ns)
        self._end_ns = start + self._service_ns[inputs]
        self.ends_ns.append(self._end_ns)
        self._queue.append((start, self._end_ns, self._sent % self._buffers))
        self._sent += 1

    def poll(self, lane: int) -> Completion | None:
        if not self._queue or self._queue[0][1] > self._device.time_ns:
            return None
        start, end, buffer = self._queue.pop(0)
        return Completion(lane, buffer, end, 0, end - start, 0)


class FifoQueue:
    """Lanes as a completion queue, which only Python drives."""

    arrays = None

    def __init__(self, lanes: Sequence[FifoLane]) -> None:
        self._lanes = lanes

    def submit(self, lane: int, inputs: int) -> None:
        self._lanes[lane].submit(inputs)

    def poll(self, *, several: bool) -> list[Completion]:
        found = []
        for number, lane in enumerate(self._lanes):
            while (completion := lane.poll(number)) is not None:
                found.append(completion)
                if not several:
                    break
        return sorted(found, key=lambda completion: completion.completed_ns)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    made = Device()
    monkeypatch.setattr(cuda_engine, "perf_counter_ns", made.now_ns)
    monkeypatch.setattr(cuda_engine, "time", SimpleNamespace(sleep=made.sleep))
    return made


def _engine(device: Device, wait: str, contexts: int, buffers: int, service_ns: Sequence[int]) -> Any:
    engine: Any = TensorRTEngine.__new__(TensorRTEngine)  # without a plan
    engine.contexts, engine.buffers, engine.per_launch = contexts, buffers, 1
    engine._lanes = [FifoLane(device, service_ns, buffers) for _ in range(contexts)]
    engine._queue = FifoQueue(engine._lanes)
    engine._clock = SimpleNamespace(due_ns=1 << 62)
    engine._looks = PollTimes(contexts) if wait == "block" else None
    engine._turn_ns = 0
    engine.now_ns = device.now_ns
    return engine


async def _run(engine: Any, device: Device, load: Load) -> tuple[Recorder, Driven]:
    recorder = Recorder(engine.contexts, device.now_ns())
    return recorder, await drive(engine, recorder, load, Stop())


def _poisson(rate_per_s: float, requests: int) -> Any:
    return np.random.default_rng(1).exponential(1e9 / rate_per_s, requests).cumsum().astype(np.int64)


@pytest.mark.parametrize("service_ns", [MS // 3, MS, 5 * MS])
async def test_a_sleeping_wait_is_not_late(device: Device, service_ns: int) -> None:
    """Poisson arrivals at 80 % of two lanes with two buffer sets: p99 of lateness within the limits of VALID (250 µs),
    and little more than one sleep a request, that for the request that is due."""
    engine = _engine(device, "block", 2, 2, [service_ns])
    recorder, driven = await _run(engine, device, Load(due=_poisson(1.6e9 / service_ns, 4000)))
    assert driven.unserved == 0
    assert np.percentile(recorder.records.lateness, 99) < 250_000
    assert device.sleeps < 1.3 * 4000


async def test_where_there_is_room_it_wakes_once_a_request(device: Device) -> None:
    """Poisson arrivals at a tenth of what two lanes with two buffer sets serve: what has finished is seen when the next
    is due, so one sleep a request, give or take the few that find all sets taken; and each completion is the lane's own
    instant, however late it was seen."""
    engine = _engine(device, "block", 2, 2, [MS])
    recorder, driven = await _run(engine, device, Load(due=_poisson(200, 4000)))
    assert driven.unserved == 0
    assert device.sleeps < 1.1 * 4000
    assert sorted(recorder.records.completed) == sorted(end for lane in engine._lanes for end in lane.ends_ns)


@pytest.mark.parametrize("wait", ["spin", "block"])
@pytest.mark.parametrize("rate_per_s", [15, 30, 100])
async def test_the_event_loop_gets_its_turn(
    device: Device, monkeypatch: pytest.MonkeyPatch, wait: str, rate_per_s: int
) -> None:
    """Every 50 ms, and the little that a look takes, however long nothing is due."""
    turns, checkpoint = [device.time_ns], anyio.lowlevel.checkpoint

    async def watched() -> None:
        turns.append(device.time_ns)
        await checkpoint()

    monkeypatch.setattr(cuda_engine, "anyio", SimpleNamespace(lowlevel=SimpleNamespace(checkpoint=watched)))
    device.look_ns = 20_000  # so that spinning ends within the test's patience
    await _run(_engine(device, wait, 2, 2, [MS]), device, Load(due=_poisson(rate_per_s, 60)))
    assert max(np.diff(turns)) < 50.5 * MS


@pytest.mark.parametrize("due", [None, np.arange(0, 1500 * MS, MS)])
async def test_what_telling_takes_is_lateness_and_no_enqueue(device: Device, due: Any) -> None:
    """Whoever is told each second keeps the generator for 5 ms: what is sent next is late, and takes no longer to
    submit than any other."""
    engine = _engine(device, "block", 2, 2, [MS])
    recorder = Recorder(engine.contexts, device.now_ns())
    told: list[int] = []

    def tell(*_: int) -> None:
        told.append(device.time_ns)
        device.time_ns += 5 * MS

    await drive(engine, recorder, Load(due, least_requests=3000), Stop(), on_tick=tell)
    assert told
    records = recorder.records
    assert max(records.enqueued - records.submitted) < 12_000
    assert 4 * MS < max(records.lateness) < 6 * MS


@pytest.mark.parametrize(("contexts", "buffers"), [(1, 1), (2, 1), (2, 2)])
async def test_a_sleeping_closed_loop_serves_what_a_spinning_one_does(
    device: Device, contexts: int, buffers: int
) -> None:
    """Within 3 % at 1 ms a request, also with fewer in flight than there is room for: a rung of capacity's ladder."""
    engine = _engine(device, "block", contexts, 2, [MS])
    engine.buffers = buffers
    _, driven = await _run(engine, device, Load(None, least_requests=1000))
    span_s = (driven.end_ns - driven.start_ns) / 1e9
    assert 1000 / span_s == pytest.approx(contexts * 1000, rel=0.03)


@pytest.mark.parametrize("wait", ["spin", "block"])
async def test_what_has_finished_is_seen_before_what_is_due_is_judged(device: Device, wait: str) -> None:
    """No queue: a request every 5 ms, of 1 ms, alternately one and two at once in two places: none is dropped."""
    due = np.array([k * 5 * MS for k in range(300) for _ in range(1 + k % 2)], np.int64)
    engine = _engine(device, wait, 1, 2, [MS])
    recorder, _ = await _run(engine, device, Load(due=due, most_waiting=0))
    assert recorder.by_status[DROPPED] == 0
    assert recorder.by_status[OK] == len(due)


@pytest.mark.parametrize("wait", ["spin", "block"])
async def test_what_finished_by_the_end_of_the_drain_is_served(device: Device, wait: str) -> None:
    """Two requests of 1 ms each on one lane, and 3 ms for what is in flight."""
    engine = _engine(device, wait, 1, 2, [MS])
    recorder, driven = await _run(engine, device, Load(due=np.zeros(2, np.int64), drain_ns=3 * MS))
    assert (driven.unserved, recorder.by_status[OK]) == (0, 2)


@pytest.mark.parametrize("wait", ["spin", "block"])
async def test_cancelling_loses_nothing_that_was_found(device: Device, wait: str) -> None:
    """What a poll found is recorded, though the caller is cancelled and the event loop's turn is due."""
    engine = _engine(device, wait, 1, 2, [MS])
    recorder = Recorder(1, device.now_ns())
    polled, look = 0, engine._queue.poll
    with anyio.CancelScope() as scope:

        def poll(*, several: bool) -> list[Completion]:
            nonlocal polled
            found: list[Completion] = look(several=several)
            polled += len(found)
            if polled >= 60 and found:
                engine._turn_ns = 0
                scope.cancel()
            return found

        engine._queue.poll = poll
        await drive(engine, recorder, Load(None, least_requests=1000), Stop())
    assert scope.cancelled_caught
    assert recorder.by_status[OK] == polled
    assert recorder.by_status[UNSERVED] <= 2


# --- when a wait that sleeps looks


def test_the_usual_time_rises_slowly_and_falls_at_once() -> None:
    """u ← min(t, u + (t − u) / 8): after 40 requests of eight times the time within a percent of that, after one again
    as short as before there."""
    looks = PollTimes(1)
    for number in range(40):
        looks.sent(0, number * 10**9, 1)
        looks.looked(number * 10**9 + 800_000, [Completion(0, 0, number * 10**9 + 800_000, 0, 0, 0)])
    assert looks.usual_ns == 800_000
    looks.sent(0, 10**12, 1)
    looks.looked(10**12 + 100_000, [Completion(0, 0, 10**12 + 100_000, 0, 0, 0)])
    assert looks.usual_ns == 100_000
    for number in range(40):
        begun = 2 * 10**12 + number * 10**9
        looks.sent(0, begun, 1)
        looks.looked(begun + 800_000, [Completion(0, 0, begun + 800_000, 0, 0, 0)])
    assert looks.usual_ns == pytest.approx(800_000, rel=0.01)


def test_what_waited_behind_another_counts_from_that_ones_end() -> None:
    """Two sent at once on a lane, 1 ms each: u stays 1 ms, and the second is looked for 1 ms after the first ended."""
    looks = PollTimes(1)
    looks.sent(0, 0, 2)
    looks.looked(1_000_000, [Completion(0, 0, 1_000_000, 0, 0, 0)])
    assert (looks.usual_ns, looks.next_ns) == (1_000_000, 2_000_000)
    looks.looked(2_000_000, [Completion(0, 1, 2_000_000, 0, 0, 0)])
    assert (looks.usual_ns, looks.next_ns) == (1_000_000, NEVER)


def test_nothing_in_flight_asks_for_no_look() -> None:
    """NEVER at first, and again after the last of a launch of several was found; the first of all is looked for at
    once, and then every LEAST_NS."""
    looks = PollTimes(2)
    assert looks.next_ns == NEVER
    looks.sent(1, 1_000, 2)
    assert looks.next_ns == 1_000
    looks.looked(1_000, [])
    assert looks.next_ns == 1_000 + LEAST_NS
    looks.looked(60_000, [Completion(1, 0, 50_000, 0, 0, 0), Completion(1, 1, 55_000, 0, 0, 0)])
    assert looks.next_ns == NEVER
