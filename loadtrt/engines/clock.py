"""Clocks of simulated engines: int nanoseconds that never go back.

`LoopClock` is real time, or the mock time of a trio test. `VirtualClock` is the instant to which its one user last
slept, so that any load is simulated as fast as Python runs.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol

import anyio
import anyio.lowlevel

from loadtrt.units import MILLISECOND_NS, SECOND_NS

if TYPE_CHECKING:
    from trio.testing import MockClock

SPIN_NS = MILLISECOND_NS  # timers of event loops are late by up to about 1 ms: so long before its end a wait polls
TURN_EVERY = 32  # virtual sleeps between two turns for other tasks: a turn costs more than to simulate a request


class Clock(Protocol):
    """The time of a simulated engine. All instants are int ns from one origin."""

    def now_ns(self) -> int:
        """The present instant. Never goes back."""
        ...

    def spend(self, duration_ns: int) -> None:
        """Keep the host busy for `duration_ns`, without a turn for other tasks."""
        ...

    async def sleep_until(self, instant_ns: int) -> None:
        """Return once now_ns() ≥ `instant_ns`; with an instant in the past, after a turn for other tasks.

        Cancelling leaves the clock as it is.
        """
        ...


async def poll_until(instant_ns: int) -> None:
    """Sleep until time.perf_counter_ns() ≥ `instant_ns`: to about 1 ms before it on a timer, then by polling."""
    early_ns = instant_ns - time.perf_counter_ns() - SPIN_NS
    if early_ns > 0:
        await anyio.sleep(early_ns / SECOND_NS)
    else:
        await anyio.lowlevel.checkpoint()
    while time.perf_counter_ns() < instant_ns:
        await anyio.lowlevel.checkpoint()


class LoopClock:
    """The time of the event loop that runs at the first call.

    Usually time.perf_counter_ns, the clock of the real engines. (A loop's own clock is a float of seconds, and counts
    milliseconds on uvloop.) Under trio's MockClock the mock time, which stands still while a task polls. There sleeping
    is exact: after sleep_until(t), now_ns() == t unless it was later already.
    """

    def __init__(self) -> None:
        self._known = False
        self._mock: MockClock | None = None

    def now_ns(self) -> int:
        if not self._known:
            self._mock, self._known = _mock_clock(), True
        if self._mock is None:
            return time.perf_counter_ns()
        return round(self._mock.current_time() * SECOND_NS)

    def spend(self, duration_ns: int) -> None:
        until = self.now_ns() + duration_ns
        if self._mock is not None:
            self._mock.jump(max(0.0, until / SECOND_NS - self._mock.current_time()))
        else:
            while time.perf_counter_ns() < until:
                pass

    async def sleep_until(self, instant_ns: int) -> None:
        if self.now_ns() >= instant_ns:
            await anyio.lowlevel.checkpoint()
        elif self._mock is None:
            await poll_until(instant_ns)
        else:
            await anyio.sleep_until(instant_ns / SECOND_NS)


class VirtualClock:
    """Virtual time: a sleep moves it to the instant at once, on any event loop.

    Only the sleeps of one task move it. Other tasks get a turn once in `TURN_EVERY` sleeps.
    """

    def __init__(self, start_ns: int = 0) -> None:
        self._now_ns = start_ns
        self._sleeps = 0

    def now_ns(self) -> int:
        return self._now_ns

    def spend(self, duration_ns: int) -> None:
        self._now_ns += duration_ns

    async def sleep_until(self, instant_ns: int) -> None:
        self._sleeps += 1
        if self._sleeps % TURN_EVERY == 0:
            await anyio.lowlevel.checkpoint()
        if instant_ns > self._now_ns:
            self._now_ns = instant_ns


def _mock_clock() -> MockClock | None:
    """trio's MockClock, or None. trio is imported only under trio, as users need not have it."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        import trio
        import trio.testing

        clock = trio.lowlevel.current_clock()
        return clock if isinstance(clock, trio.testing.MockClock) else None
    return None
