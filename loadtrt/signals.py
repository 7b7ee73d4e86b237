"""SIGINT, SIGTERM and SIGHUP, which all do the same in every command, from its first line to its last.

    with SIGNALS:                 a signal raises KeyboardInterrupt, and the second one ends the process after clean-up
        SIGNALS.hold()            from now on there is something to lose: a signal only asks to stop
        with SIGNALS.interruptible():
            ...                   the first one raises, as while another engine is opened
        with SIGNALS.deferred():
            ...                   it raises at the end of the block

What is asked for twice is to end at once, with what there is summed up and written: the requests in flight of a run are
given up, and so are the steps after its result.
"""

from __future__ import annotations

import atexit
import math
import os
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol, Self

from loadtrt.errors import EXIT_INTERRUPTED

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Awaitable, Callable, Iterator
    from types import FrameType

_NUMBERS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
STOPPING = "stopping: waiting for requests in flight (again to give them up)"
PARENT = "LOADTRT_PARENT"  # environment variable
_PATIENCE_S = 10.0  # what has not ended so long after the second signal hangs, and the next one ends the process
_CLEAN_S = 1.0  # clean-up that takes longer hangs
_LOOK_S = 0.1


class _Stop(Protocol):
    """Ends a run early, with what is in flight finished."""

    requested: bool


class Signals:
    """What signals have asked for, and their handlers inside a `with`, which puts the previous ones back.

    Handlers are set in the main thread alone, where Python delivers signals; another thread calls `ask`. SIGHUP and
    SIGTERM stay ignored where they were, as by nohup. A `with` inside another one of the same object changes nothing.

    last_acts: called, in this order, when the command ends, also where a signal ends the process.
    """

    def __init__(self) -> None:
        self.last_acts: list[Callable[[], object]] = []
        self._before: dict[int, Any] = {}
        self._depth = 0
        self._reset()

    def _reset(self) -> None:
        self._asked = 0
        self._told_s = self._dying_s = math.inf  # since when the process is to end at once, and does
        self._held = self._interruptible = self._deferred = self._computing = False
        self._stop: _Stop | None = None  # of the run that goes on
        self._soon: Callable[[Callable[[], object]], object] = lambda _: None  # calls in the event loop of that run
        self._say: Callable[[str], object] = lambda _: None
        self._cancel: Callable[[], object] = lambda: None

    def __enter__(self) -> Self:
        self._depth += 1
        if self._depth == 1:
            self._reset()
            if threading.current_thread() is threading.main_thread():
                for number in _NUMBERS:
                    if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
                        self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            for number, handler in self._before.items():
                signal.signal(number, handler)
            self._before.clear()
            self._clean_up()
            self._reset()

    def over(self, code: int) -> None:
        """The process exits now, with this code, which signals no longer change. Where it waits for a thread, they end
        it."""
        numbers = list(self._before)
        for number in numbers:
            signal.signal(number, lambda *_: os._exit(code))
        self._before.clear()
        # A KeyboardInterrupt that came through exec(), as inside namedtuple, would have Python end by SIGINT, though it
        # was caught: an exec() that ends well makes it forget.
        exec("")  # noqa: S102
        # After the threads; later on, Python would put back the default, which kills.
        atexit.register(lambda: [signal.signal(number, signal.SIG_IGN) for number in numbers])

    def requested(self) -> bool:
        """Whether to stop."""
        return self._asked > 0

    def hurried(self) -> bool:
        """Whether to stop at once: there were two signals or more."""
        return self._asked > 1

    def check(self) -> None:
        """Raise KeyboardInterrupt where stopping is requested."""
        if self._asked:
            raise KeyboardInterrupt

    def hold(self) -> None:
        """From now on there is something to lose: a signal only asks to stop."""
        self._held = True

    @property
    def holds(self) -> bool:
        """Whether there is something to lose."""
        return self._held

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """A block in which the first signal, or one that came before, raises KeyboardInterrupt."""
        self._interruptible = True
        try:
            self.check()  # a signal from here on raises by itself
            yield
        finally:
            self._interruptible = False

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """A short block that is done as a whole: a signal that would raise KeyboardInterrupt raises it at the end."""
        if threading.current_thread() is not threading.main_thread() or self._deferred or not self._raises:
            yield
            return
        asked, self._deferred = self._asked, True
        try:
            yield
        finally:
            self._deferred = False
        if self._asked > asked:
            raise KeyboardInterrupt

    @contextmanager
    def computing(self) -> Iterator[None]:
        """A block that computes, and so comes to an end: no number of signals ends the process in it."""
        self._computing = True
        try:
            yield
        finally:
            self._computing = False
            if self.hurried():
                self._told_s = time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Sleep until stopping is requested, by a signal or from another thread, and so long at most."""
        end = time.monotonic() + seconds
        while not self._asked and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _LOOK_S))

    async def run(self, work: Callable[[], Awaitable[None]], stop: _Stop, say: Callable[[str], object]) -> None:
        """Await `work()`, on asyncio. The first signal sets `stop.requested`, the second one cancels it. say: takes a
        sentence for the user."""
        import asyncio

        import anyio

        self._say, self._soon = say, asyncio.get_running_loop().call_soon_threadsafe
        with anyio.CancelScope() as scope:
            self._cancel, self._stop = scope.cancel, stop
            try:
                if self.requested():  # a signal from here on sets it itself
                    stop.requested = True
                if self.hurried():
                    scope.cancel()
                await work()
            finally:
                self._stop = None

    def ask(self) -> None:
        """Ask to stop, from any thread."""
        self._asked += 1
        if self._asked == 2:
            self._told_s = time.monotonic()
        if self._stop is None:
            return
        with suppress(RuntimeError):  # the event loop has just closed
            if not self._stop.requested:
                self._stop.requested = True
                self._soon(lambda: self._say(STOPPING))
            else:
                self._soon(self._cancel)

    def die(self) -> None:
        """End the process, after clean-up."""
        self._dying_s = time.monotonic()
        self._clean_up()
        with suppress(OSError):
            os.write(2, b"loadtrt: interrupted\n")  # not by sys.stderr, inside which a signal may have come
        os._exit(EXIT_INTERRUPTED)

    @property
    def _raises(self) -> bool:
        return (self._interruptible or not self._held) and not self._deferred

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self._dying_s < math.inf:
            if time.monotonic() > self._dying_s + _CLEAN_S:
                os._exit(EXIT_INTERRUPTED)
            return
        self.ask()
        if self._raises and self._asked == 1:
            raise KeyboardInterrupt
        hangs = not self._computing and time.monotonic() > self._told_s + _PATIENCE_S
        if hangs if self._held else self._raises:
            self.die()

    def _clean_up(self) -> None:
        while self.last_acts:
            with suppress(Exception):
                self.last_acts.pop(0)()


SIGNALS = Signals()  # of the command line


def pass_on(process: subprocess.Popen[Any]) -> None:
    """Send a signal that came here to a process that is ended as this one is. SIGTERM, which ends one that Python has
    not started in yet without a word; SIGINT where it would be ignored, as by nohup."""
    ignored = signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    process.send_signal(signal.SIGINT if ignored else signal.SIGTERM)


def end_with_parent() -> None:
    """Have SIGTERM sent to this process when the one ends that started it and named itself in PARENT, however it ends;
    known on Linux only."""
    parent = os.environ.pop(PARENT, None)
    if parent is None or not sys.platform.startswith("linux"):
        return
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    if str(os.getppid()) != parent:  # it has ended before
        signal.raise_signal(signal.SIGTERM)


def signal_name(number: int) -> str:
    """Such as "SIGKILL"."""
    with suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


@contextmanager
def blocked() -> Iterator[None]:
    """A block whose child processes never get these signals, whoever sends them: their parent ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _NUMBERS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def is_stopped(process: int) -> bool:
    """Whether a process is stopped by a signal, as by Ctrl-Z; known on Linux only."""
    with suppress(OSError), open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:
        return file.read().rpartition(")")[2].split()[:1] == ["T"]
    return False
