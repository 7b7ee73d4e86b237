"""How an engine's wait sleeps: until a worker thread notifies it, or until requests usually have finished.

`Wakeup` is for engines whose threads notify the event loop, by a byte through a socket pair. It takes a thread that
waits for each completion, and two changes of threads for every request.

`PollTimes` is for engines whose device stamps completions, so that looking later does not change a latency. While there
is a free buffer set, completions do not matter before the next request is due, and the wait looks then. Otherwise
it looks when requests usually have finished, and a little later again where they have not.
"""

from __future__ import annotations

import ctypes
import select
import socket
from collections import deque
from contextlib import suppress
from time import perf_counter_ns
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from loadtrt.engines.engine import Shares
from loadtrt.units import NEVER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.engines.engine import Completion, Engine

LEAST_NS, MOST_NS = 50_000, 200_000  # between two looks: each costs processor time, and its absence latency
_PR_SET_TIMERSLACK = 29
_BLOCK_NS = 20_000_000  # the longest time without a turn for other tasks of the event loop
_EARLY_NS = 1_500_000  # how long before the instant the event loop's own timer fires


class PollTimes:
    """When to look for finished requests.

    The usual time u of a lane's request is an exponential mean that falls at once: u ← min(t, u + (t − u) / 8), where t
    is from when the request was sent, or the lane's one before it completed, to its completion. The first look at a
    request is u after its begin, later ones u/8 apart, within [LEAST_NS, MOST_NS].

    next_ns: when to look next; NEVER while nothing is in flight.
    usual_ns: the usual time u.
    """

    def __init__(self, lanes: int) -> None:
        self._sent: list[deque[int]] = [deque() for _ in range(lanes)]
        self._free_ns = [0] * lanes  # when the lane's last request completed
        self.usual_ns = 0
        self.next_ns = NEVER

    def sent(self, lane: int, now_ns: int, requests: int) -> None:
        """Requests were sent on a lane."""
        self._sent[lane].extend([now_ns] * requests)
        self._plan(now_ns)

    def looked(self, now_ns: int, completions: Sequence[Completion]) -> None:
        """A look has found these completions, in order within each lane."""
        for completion in completions:
            lane, done_ns = completion.lane, completion.completed_ns
            took = done_ns - max(self._sent[lane].popleft(), self._free_ns[lane])
            self._free_ns[lane] = done_ns
            self.usual_ns = min(took, self.usual_ns + (took - self.usual_ns) // 8) if self.usual_ns else took
        self._plan(now_ns + min(max(self.usual_ns // 8, LEAST_NS), MOST_NS))

    def _plan(self, least_ns: int) -> None:
        begun = [max(sent[0], free) for sent, free in zip(self._sent, self._free_ns, strict=True) if sent]
        self.next_ns = max(min(begun) + self.usual_ns, least_ns) if begun else NEVER


def wake_on_time() -> None:
    """Have Linux end this thread's sleeps within 1 µs of their time, instead of within 50 µs."""
    with suppress(OSError, AttributeError):  # not Linux
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1_000, 0, 0, 0)


class Wakeup:
    """One waiter on the event loop, notified by any number of threads.

    A notifier writes its result before it notifies, and the waiter reads results after it returns, so that none is
    missed. A notification may end one wait too many.
    """

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._turn_ns = 0  # when the event loop last had a turn

    def notify(self) -> None:
        """End the present wait, or the next one. Thread-safe; never blocks."""
        with suppress(BlockingIOError):  # full: thousands of notifications wait already
            self._writer.send(b"\0")

    async def wait(self, until_ns: int) -> None:
        """Return when notified since the last wait, and at `until_ns` (time.perf_counter_ns) at the latest.

        Passes a checkpoint every 20 ms, so that a caller in a loop can be cancelled.
        """
        while True:
            now_ns = perf_counter_ns()
            if until_ns - now_ns > _BLOCK_NS:
                with anyio.move_on_after((until_ns - now_ns - _EARLY_NS) / 1e9):
                    await anyio.wait_readable(self._reader)
                self._turn_ns = perf_counter_ns()
            elif now_ns - self._turn_ns > _BLOCK_NS:
                await anyio.lowlevel.checkpoint()
                self._turn_ns = perf_counter_ns()
            # A wake-up through the event loop costs 0.1 ms of processor time or more, and its timers count
            # milliseconds. select counts microseconds, uses no processor time, and returns on notify(), too.
            remaining_ns = until_ns - perf_counter_ns()
            if select.select([self._reader], [], [], min(max(remaining_ns, 0), _BLOCK_NS) / 1e9)[0]:
                self.drain()
                return
            if perf_counter_ns() >= until_ns:
                return

    def fileno(self) -> int:
        """The descriptor that is readable once there was a notification."""
        return self._reader.fileno()

    def drain(self) -> None:
        """Forget the notifications until now."""
        with suppress(BlockingIOError):
            while len(self._reader.recv(4096)) == 4096:
                pass

    def close(self) -> None:
        """Close both sockets, after the last notify() and wait(). Safe to call twice."""
        self._reader.close()
        self._writer.close()


class Sleeper:
    """Sleeps for several engines, which have one clock."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        shared = [engine for engine in engines if isinstance(engine, Shares)]
        clocks = [engine.clock for engine in shared]
        self._wakeups = [engine.wakeup for engine in shared if engine.wakeup is not None]
        self._clock = clocks[0] if clocks and None not in clocks else None
        self._turn_ns = 0  # when the event loop last had a turn

    async def sleep_until(self, instant_ns: int) -> None:
        """Sleep until an instant, until a thread of an engine notifies, or for 20 ms."""
        if self._clock is not None:
            await self._clock.sleep_until(instant_ns)
            return
        now_ns = perf_counter_ns()
        if now_ns - self._turn_ns > _BLOCK_NS:
            await anyio.lowlevel.checkpoint()
            self._turn_ns = now_ns = perf_counter_ns()
        for wakeup in select.select(self._wakeups, [], [], min(max(instant_ns - now_ns, 0), _BLOCK_NS) / 1e9)[0]:
            wakeup.drain()
