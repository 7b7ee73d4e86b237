"""The parts of the scheduler: which lane serves next, when a run is over, what observers see."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtrt.engines.simulated import SimulatedEngine
from loadtrt.engines.simulation import Simulation
from loadtrt.lanes.recorder import Recorder
from loadtrt.lanes.scheduler import Driven, Load, Stop, drive
from loadtrt.load.request_sizes import Batcher, Batching
from loadtrt.loop.requests import DUE, FREE, FREE_AT, SENT_AT, finish, lists_of, new_state, next_request, sent
from loadtrt.records.board import Board
from loadtrt.records.records import DROPPED, OK
from loadtrt.units import MILLISECOND_NS as MS
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Callable


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.lists(st.integers(0, 99), max_size=80))
def test_the_lane_with_the_fewest_launches_serves_next_of_several_the_one_idle_longest(
    contexts: int, buffers: int, per_launch: int, choices: list[int]
) -> None:
    """A search over all lanes finds the same one: fewest launches in flight, then the earliest last change. Instants at
    which buffer sets became free are used up in their order."""
    nothing = np.zeros(0, np.int64)
    state = lists_of(new_state(contexts, buffers, per_launch, None, (0,), nothing, nothing))
    launches, changed, unfinished = [0] * contexts, list(range(contexts)), [deque[int]() for _ in range(contexts)]
    free = deque([0] * (contexts * buffers))
    for now, choice in enumerate(choices, contexts):
        busy = [lane for lane in range(contexts) if unfinished[lane]]
        if free and (choice % 2 or not busy):
            expected = min(range(contexts), key=lambda lane: (launches[lane], changed[lane]))
            assert next_request(state, now) == expected
            assert state.n[DUE] == free.popleft()
            sent(state, expected, now, now, 1)
            unfinished[expected].extend([now] * per_launch)
            launches[expected] += 1
            changed[expected] = now
        else:
            lane = busy[choice % len(busy)]
            assert state.sent[finish(state, lane, now)][SENT_AT] == unfinished[lane].popleft()
            if len(unfinished[lane]) % per_launch == 0:
                launches[lane] -= 1
                changed[lane] = now
                free.append(now)
        assert [state.free[(state.n[FREE_AT] + k) % len(state.free)] for k in range(state.n[FREE])] == list(free)
        assert state.unfinished == list(map(len, unfinished))


async def run(
    load: Load, on_tick: Callable[[int, int], None] | None = None, **simulation: Any
) -> tuple[Recorder, Driven]:
    """Drive one lane with one buffer set in virtual time; instants begin at 0."""
    engine = SimulatedEngine(Simulation(clock="virtual", **simulation), buffers=1, batches=(1, 2))
    engine.allocate([{"x": np.zeros((batch, 16), np.float32)} for batch in (1, 2)])
    recorder = Recorder(1, 0)
    return recorder, await drive(engine, recorder, load, Stop(), None, on_tick)


def due(*instants: int) -> Any:
    return np.array(instants, np.int64)


@pytest.mark.anyio
async def test_a_pause_between_arrivals_is_not_taken_for_a_silent_engine() -> None:
    """A request due 30 s after the one before is served, although the engine completes nothing for so long."""
    recorder, driven = await run(Load(due(0, 30 * SECOND_NS)), service_ns=MS)
    assert recorder.records.status.tolist() == [OK, OK]
    assert driven.end_ns == 30 * SECOND_NS + MS


@pytest.mark.anyio
async def test_requests_due_at_once_are_all_sent_before_the_drain_begins() -> None:
    """Offline: twenty requests of 50 ms with a drain of 60 ms, which begins once the last one is sent."""
    recorder, driven = await run(Load(due(*[0] * 20), drain_ns=60 * MS), service_ns=50 * MS)
    assert recorder.records.status.tolist() == [OK] * 20
    assert 19 * 50 * MS <= driven.sent_ns <= driven.end_ns == 20 * 50 * MS


@pytest.mark.anyio
async def test_an_open_loop_stops_sending_when_its_last_request_is_due_and_drains() -> None:
    """Requests that wait are still sent, within `drain_ns`; those in flight after it, or not sent, are unserved."""
    instants = due(*[number * MS for number in range(10)])
    recorder, driven = await run(Load(instants, drain_ns=35 * MS), service_ns=10 * MS)
    assert driven.sent_ns == 9 * MS
    assert driven.end_ns == 44 * MS
    assert recorder.by_status.tolist() == [4, 0, 6, 0]
    assert (driven.submitted, driven.unserved) == (5, 6)


@pytest.mark.anyio
async def test_a_closed_loop_goes_on_until_both_time_and_requests_are_reached() -> None:
    """Time alone: the request that is in flight then is the last; requests alone: exactly as many."""
    for load, submitted in (
        (Load(None, least_ns=95 * MS), 10),
        (Load(None, least_requests=7), 7),
        (Load(None, least_ns=95 * MS, least_requests=7), 10),
        (Load(None, least_ns=35 * MS, least_requests=7), 7),
        (Load(None, least_ns=95 * MS, most_ns=45 * MS), 5),
    ):
        _, driven = await run(load, service_ns=10 * MS)
        assert (driven.submitted, driven.unserved) == (submitted, 0)


@pytest.mark.anyio
async def test_a_full_queue_with_a_batcher_counts_all_requests_that_wait_for_company() -> None:
    """Room for one: of two requests due together the second is dropped, though a buffer set is free, as a batch forms
    first. Without batcher the free buffer set takes the first, and the second waits."""
    batcher = Batcher(Batching((1, 2), 5 * MS), 1)
    together = due(0, 0, 20 * MS)
    batched, _ = await run(Load(together, most_waiting=1, batcher=batcher), service_ns=MS)
    single, _ = await run(Load(together, most_waiting=1), service_ns=MS)
    assert np.count_nonzero(batched.records.status == DROPPED) == 1
    assert np.count_nonzero(single.records.status == DROPPED) == 0


@pytest.mark.anyio
async def test_observers_see_one_drain_and_a_tick_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of 4.05 s ticks after about 1, 2, 3 and 4 s, and drains once."""
    phases: list[str] = []
    monkeypatch.setattr(Board, "enter", lambda _, phase: phases.append(phase))
    ticks: list[tuple[int, int]] = []
    recorder, _ = await run(
        Load(None, least_ns=4_050 * MS),
        lambda submitted, completed: ticks.append((submitted, completed)),
        service_ns=MS,
    )
    assert len(ticks) == 4
    assert phases == ["drain"]
    assert [completed for _, completed in ticks] == pytest.approx([1000, 2000, 3000, 4000], abs=310)
    assert len(recorder.records) == 4_051 or len(recorder.records) == 4_050


@pytest.mark.anyio
async def test_the_first_error_is_kept() -> None:
    """All requests fail; the message is that of the first, and all are recorded as failed."""
    recorder, _ = await run(Load(None, least_requests=5), service_ns=MS, error=1.0)
    assert recorder.first_error == "simulated fault: error=1"
    assert recorder.by_status.tolist() == [0, 5, 0, 0]
