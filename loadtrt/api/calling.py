"""A call that measures: in a thread with an event loop of its own, so that it works where an event loop is running."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, TypeVar

from loadtrt.errors import UsageError
from loadtrt.signals import Signals

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
_GIVE_UP = 3  # interrupts after which whatever hangs is left behind
_START_S = 5.0  # a thread that has not begun by then was never started
# A signal that another thread takes, or that comes just before a wait, is seen by the main thread once that wait is
# over. Each look takes the interpreter's lock for a moment, which a run that measures would rather have.
_LOOK_S = 1.0


class Call(Generic[T]):
    """Work in a thread of its own, which one of the two methods starts and waits for, once.

    What interrupts the wait asks the work to stop (Signals.ask): the first time to finish what is in flight and to
    return what was measured, the second time to give that up and raise; the third time the wait itself ends.
    """

    def __init__(self, work: Callable[[Signals], T]) -> None:
        self._work, self._signals = work, Signals()
        self._entered, self._over, self._left = threading.Event(), threading.Event(), False
        self._results: list[T] = []
        self._failures: list[BaseException] = []
        self._interrupts = 0

    def result(self) -> T:
        """Wait for the work. Raises what it raised, and KeyboardInterrupt after a second Ctrl-C."""
        thread: threading.Thread | None = None
        while not self._over.is_set():
            try:
                if thread is None:
                    thread = self._thread(self._over.set)
                    thread.start()
                # Not Thread.join, which takes a thread for ended once it is interrupted (CPython 3.11).
                while not self._over.wait(_LOOK_S):
                    pass
            except KeyboardInterrupt:
                if thread is None or self._interrupted():
                    raise
        if self._interrupts > 1 and not self._failures:
            raise KeyboardInterrupt
        return self._outcome()

    async def awaited(self) -> T:
        """Await the work, on asyncio. A cancellation is what Ctrl-C is to `result`; the second one raises
        CancelledError. Raises UsageError under another library, such as trio."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise UsageError(
                "only asyncio can await this: under trio write await trio.to_thread.run_sync(f), where f calls the "
                "function without _async"
            ) from None
        over = loop.create_future()

        def end() -> None:
            with suppress(RuntimeError):  # the loop has closed, as after a third interrupt
                loop.call_soon_threadsafe(over.set_result, None)

        self._thread(end).start()
        while not over.done():
            try:
                await asyncio.wait([over], timeout=_LOOK_S)  # which leaves it alone when it is cancelled
            except asyncio.CancelledError:
                if self._interrupted():
                    raise
        stopped = any(isinstance(error, KeyboardInterrupt) for error in self._failures)  # which would end the loop
        if stopped or (self._interrupts > 1 and not self._failures):
            raise asyncio.CancelledError
        return self._outcome()

    def _thread(self, over: Callable[[], object]) -> threading.Thread:
        def work() -> None:
            try:
                with self._signals:  # in which the work's own ones change nothing
                    self._entered.set()
                    if not self._left:
                        self._results.append(self._work(self._signals))
            except BaseException as error:  # the waiting side raises it
                self._failures.append(error)
            finally:
                over()

        return threading.Thread(target=work, name="loadtrt-run", daemon=True)

    def _interrupted(self) -> bool:
        """Ask the work to stop; whether the wait is to end, too."""
        self._interrupts += 1
        # Signals forget what is asked before they are entered.
        self._left = not self._entered.wait(_START_S) or self._interrupts >= _GIVE_UP
        self._signals.ask()
        return self._left

    def _outcome(self) -> T:
        if self._failures:
            raise self._failures[0]
        return self._results[0]
