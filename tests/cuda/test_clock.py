"""Clocks of the simulated engine: exact where time is simulated, never early where it is real."""

from __future__ import annotations

import itertools
import types

import anyio
import pytest

from loadtrt.engines import clock as clock_module
from loadtrt.engines.clock import TURN_EVERY, Clock, LoopClock, VirtualClock
from loadtrt.units import MILLISECOND_NS, SECOND_NS

pytestmark = pytest.mark.anyio


async def test_a_clock_stands_exactly_where_it_was_slept_to(anyio_backend_name: str) -> None:
    """now_ns() = t after sleep_until(t), in ns, up to days; sleeping to the past does not move it back."""
    time_is: Clock = VirtualClock() if anyio_backend_name == "asyncio" else LoopClock()
    assert time_is.now_ns() == 0
    for instant in (1, 999_999_999, 1_000_000_101, 600 * SECOND_NS + 1, 86_400 * SECOND_NS + 123_456_789):
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
    monkeypatch.setattr(anyio, "sleep", sleep)
    until = now + 20 * MILLISECOND_NS
    await LoopClock().sleep_until(until)
    assert until <= now <= until + 10_000
    assert timers == [pytest.approx(0.019, abs=0.0001)]
