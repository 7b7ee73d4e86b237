"""Ctrl-C and SIGTERM, for every command: they end a run, interrupt a wait, and never cost a result."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from types import FrameType

    from loadtrt.lanes.scheduler import Stop

_PATIENCE = 3  # signals in a row that only ask; the next one ends the process


class Signals:
    """Handles SIGINT and SIGTERM inside a `with`, which puts the previous handlers back.

    During a run the first one lets requests in flight finish, and the second one cancels the run. Within
    `interruptible` each is a KeyboardInterrupt. At any other time a signal only asks to stop, so that a result is
    summed up and written whole; the fourth in a row ends the process. Outside the main thread, where Python delivers no
    signals, no handler is set, and another thread calls `ask`.
    """

    def __init__(self, say: Callable[[str], None] = lambda _: None) -> None:
        """say: takes a sentence for the user."""
        self._say = say
        self._before: dict[signal.Signals, Any] = {}
        self._stopped = self._interruptible = False
        self._asked = 0
        self._stop: Stop | None = None  # of the run that goes on
        self._soon: Callable[[Callable[[], object]], object] = lambda _: None  # calls in the event loop of that run
        self._cancel: Callable[[], object] = lambda: None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def requested(self) -> bool:
        """Whether to stop."""
        return self._stopped

    def check(self) -> None:
        """Raise KeyboardInterrupt where stopping is requested."""
        if self._stopped:
            raise KeyboardInterrupt

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """A block in which a signal, or one that came before, raises KeyboardInterrupt."""
        self.check()
        self._interruptible = True
        try:
            yield
        finally:
            self._interruptible = False

    async def run(self, work: Callable[[], Awaitable[None]], stop: Stop) -> None:
        """Await `work()`, on asyncio; signals set `stop.requested`, then cancel it."""
        import asyncio

        import anyio

        stop.requested |= self._stopped
        self._asked = 0
        self._soon = asyncio.get_running_loop().call_soon_threadsafe
        with anyio.CancelScope() as scope:
            self._cancel, self._stop = scope.cancel, stop
            try:
                await work()
            finally:
                self._stop, self._asked = None, 0

    def ask(self) -> None:
        """Ask to stop, from any thread."""
        self._stopped = True
        self._asked += 1
        if self._stop is None:
            return
        with suppress(RuntimeError):  # the event loop has just closed
            if not self._stop.requested:
                self._stop.requested = True
                self._soon(lambda: self._say("stopping: waiting for requests in flight (again to give them up)"))
            else:
                self._soon(self._cancel)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self.ask()
        if self._asked >= _PATIENCE:
            signal.signal(number, signal.SIG_DFL)
        if self._interruptible:
            raise KeyboardInterrupt
