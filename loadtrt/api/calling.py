"""A call that measures: in a thread with an event loop of its own, so that it works where an event loop is running."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, TypeVar

from loadtrt.signals import Signals

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
_GIVE_UP = 3  # interrupts after which whatever hangs is left behind


class Call(Generic[T]):
    """Work in a thread of its own, which one of the two methods starts and waits for.

    What interrupts the wait asks the work to stop (Signals.ask): the first time to finish what is in flight and to
    return what was measured, the second time to give that up and raise; the third time the wait itself ends.
    """

    def __init__(self, work: Callable[[Signals], T]) -> None:
        self._work, self._signals = work, Signals()
        self._entered, self._over = threading.Event(), threading.Event()
        self._results: list[T] = []
        self._failures: list[BaseException] = []
        self._interrupts = 0

    def result(self) -> T:
        """Wait for the work. Raises what it raised, and KeyboardInterrupt after a second Ctrl-C."""
        self._start(self._over.set)
        while (
            not self._over.is_set()
        ):  # not Thread.join, which takes a thread for ended once interrupted (CPython 3.11)
            try:
                self._over.wait()
            except KeyboardInterrupt:
                if self._interrupted():
                    raise
        if self._interrupts > 1 and not self._failures:
            raise KeyboardInterrupt
        return self._outcome()

    async def awaited(self) -> T:
        """Await the work, on asyncio. A cancellation is what Ctrl-C is to `result`; the second one raises
        CancelledError."""
        loop = asyncio.get_running_loop()
        over = loop.create_future()

        def end() -> None:
            with suppress(RuntimeError):  # the loop has closed, as after a third interrupt
                loop.call_soon_threadsafe(over.set_result, None)

        self._start(end)
        while not over.done():
            try:
                await asyncio.shield(over)
            except asyncio.CancelledError:
                if self._interrupted():
                    raise
        stopped = any(isinstance(error, KeyboardInterrupt) for error in self._failures)  # which would end the loop
        if stopped or (self._interrupts > 1 and not self._failures):
            raise asyncio.CancelledError
        return self._outcome()

    def _start(self, over: Callable[[], object]) -> None:
        def work() -> None:
            try:
                with self._signals:  # in which the work's own ones change nothing
                    self._entered.set()
                    self._results.append(self._work(self._signals))
            except BaseException as error:  # the waiting side raises it
                self._failures.append(error)
            finally:
                self._entered.set()
                over()

        threading.Thread(target=work, name="loadtrt-run", daemon=True).start()

    def _interrupted(self) -> bool:
        """Ask the work to stop; whether the wait is to end, too."""
        self._entered.wait()  # what is asked before is forgotten
        self._signals.ask()
        self._interrupts += 1
        return self._interrupts >= _GIVE_UP

    def _outcome(self) -> T:
        if self._failures:
            raise self._failures[0]
        return self._results[0]
