"""Ctrl-C from inside: a signal to this process once a run measures."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

from loadtrt.runs.maker import Maker

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest


BEGIN_S = 120  # what has not begun to measure by then has failed, and says why itself


def measuring(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """An event that is set once a run has served a request."""
    began = threading.Event()
    make = Maker.run

    def watched(self: Maker, config: Any, on_tick: Any = None, *given: Any, **more: Any) -> Any:
        def tick(phase: Any, elapsed_ns: int, submitted: int, completed: int) -> None:
            if phase == "measure" and completed:
                began.set()
            if on_tick is not None:
                on_tick(phase, elapsed_ns, submitted, completed)

        return make(self, config, tick, *given, **more)

    monkeypatch.setattr(Maker, "run", watched)
    return began


def interrupting(began: threading.Event, times: int = 1, seen: Callable[[], int] = lambda: 0) -> threading.Thread:
    """A thread that sends this process Ctrl-C so many times, each once the one before was seen."""

    def interrupt() -> None:
        if not began.wait(BEGIN_S):
            return
        for number in range(times):
            while seen() < number:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    return thread
