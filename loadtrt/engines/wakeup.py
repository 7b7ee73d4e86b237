"""How worker threads wake the event loop: a byte through a socket pair."""

from __future__ import annotations

import contextlib
import select
import socket
from time import perf_counter_ns

import anyio
import anyio.lowlevel

_BLOCK_NS = 20_000_000  # the longest blocking stretch: so long may whatever else is on the event loop have to wait
_EARLY_NS = 1_500_000  # how long before the instant the event loop's own timer is to fire


class Wakeup:
    """One waiter on the event loop, notified by any number of threads. The notifier writes first and notifies then; the
    waiter returns first and reads then, so that nothing is missed. A notification may wake one wait too many."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._turn_ns = 0  # when the event loop last had a turn

    def notify(self) -> None:
        """Wake the waiter, or the next one to come. Thread-safe; never blocks."""
        with contextlib.suppress(BlockingIOError):  # full: it is notified already, thousandfold
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
            # Through the event loop a wake-up costs 0.1 ms of processor time or more, and its timers ride on
            # epoll_wait, which counts milliseconds. select counts microseconds, burns no CPU, lets other threads run,
            # and notify() wakes it just the same.
            remaining_ns = until_ns - perf_counter_ns()
            if select.select([self._reader], [], [], min(max(remaining_ns, 0), _BLOCK_NS) / 1e9)[0]:
                self._drain()
                return
            if perf_counter_ns() >= until_ns:
                return

    def close(self) -> None:
        """Free both ends. Safe to call twice; notify() and wait() must be over."""
        self._reader.close()
        self._writer.close()

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while len(self._reader.recv(4096)) == 4096:
                pass
