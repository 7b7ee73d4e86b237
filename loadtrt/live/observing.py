"""The observer process itself: `python -m loadtrt.live.observing FD`, started by `loadtrt.live.observer`.

It reads one message a line from stdin and ends with it. Messages: wishes (once, first), facts, gpu, say, telemetry,
end_drawing. The first, telemetry and end_drawing are answered with one line on stdout each.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from loadtrt.errors import LoadtrtError
from loadtrt.live.follower import follower_of
from loadtrt.live.run_facts import RunFacts
from loadtrt.records.board import Board, board_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtrt.live.follower import Follower
    from loadtrt.live.metrics import View as Exposed
    from loadtrt.live.sampler import Sampler
    from loadtrt.live.telemetry import GpuReading

_FRAME_S = 0.25
_FOLLOW_S = 0.1
_CLOSE_S = 1.0


class Drawing:
    """Draws the run in a thread of its own: a terminal that stands still (Ctrl-S) holds nobody else up."""

    def __init__(self, follower: Follower, facts: RunFacts, latest: Callable[[], GpuReading | None]) -> None:
        from loadtrt.live.terminal import Terminal
        from loadtrt.live.view import Viewer

        self._follower = follower
        self._facts = facts
        self._latest = latest
        self._viewer, self._terminal = Viewer(), Terminal()
        self._sentences: SimpleQueue[str] = SimpleQueue()
        self._ended = Event()
        self._run = os.getppid()
        self._thread = Thread(target=self._draw, daemon=True)
        self._thread.start()

    def say(self, sentence: str) -> None:
        """A line above what is drawn."""
        self._sentences.put(sentence)

    def close(self) -> None:
        """Take the drawing away, if the terminal lets it."""
        self._ended.set()
        self._thread.join(_CLOSE_S)

    def _draw(self) -> None:
        while not self._ended.wait(_FRAME_S):
            self._speak()
            if not _is_stopped(self._run):  # by Ctrl-Z: then the terminal is the shell's
                view = self._viewer.take(self._follower.snapshot(), self._facts, self._latest(), time.time_ns())
                self._terminal.show(view)
        self._speak()
        self._terminal.close()

    def _speak(self) -> None:
        with suppress(Empty):
            while True:
                self._terminal.say(self._sentences.get_nowait())


class Observing:
    """What runs in the process. `handle` takes a message and returns the answer, None for none."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._run: tuple[Follower, RunFacts] | None = None
        self._ended = Event()
        self._owned = ExitStack()
        self._sampler: Sampler | None = None
        self._no_gpu = ""
        self._drawing: Drawing | None = None
        self._draws = False

    def handle(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """Do what the run says."""
        match message:
            case {"wishes": {"metrics": address, "native": native, "terminal": draws, "gpu": gpu}}:
                self._draws = bool(draws)
                if gpu:
                    self._watch_gpu(str(gpu))
                try:
                    return {"url": self._serve(address, native) if address else "", "error": ""}
                except LoadtrtError as error:
                    return {"url": "", "error": str(error)}
            case {"facts": str(text)}:
                facts = RunFacts.from_json(text)
                follower = follower_of(self._board, facts)
                self._run = follower, facts
                Thread(target=self._follow, args=(follower,), daemon=True).start()
                if self._draws:
                    self._drawing = Drawing(follower, facts, self._latest)
            case {"gpu": str(bus_id)}:
                self._watch_gpu(bus_id)
            case {"say": str(sentence)}:
                if self._drawing is not None:
                    self._drawing.say(sentence)
            case {"telemetry": [start_ns, end_ns, inferences]}:
                if self._sampler is None:
                    return {"telemetry": None, "why": self._no_gpu}
                found = self._sampler.telemetry(start_ns, end_ns, inferences)
                return {"telemetry": found.model_dump(mode="json"), "why": ""}
            case {"end_drawing": _}:
                self._end_drawing()
                return {"end_drawing": True}
        return None

    def close(self) -> None:
        """Give everything back."""
        self._ended.set()
        self._end_drawing()
        self._owned.close()

    def _follow(self, follower: Follower) -> None:
        """Often enough that no row is missed, whoever asks how seldom."""
        while not self._ended.wait(_FOLLOW_S):
            follower.follow()

    def _latest(self) -> GpuReading | None:
        return None if self._sampler is None else self._sampler.latest

    def _end_drawing(self) -> None:
        if self._drawing is not None:
            self._drawing.close()
            self._drawing = None

    def _serve(self, address: str, native: bool) -> str:
        from loadtrt.live.exporter import Exporter

        return self._owned.enter_context(Exporter(address, self._exposed, native)).url

    def _exposed(self) -> Exposed | None:
        from loadtrt.live.metrics import View

        if self._run is None:
            return None
        follower, facts = self._run
        return View(follower.snapshot(), facts, self._latest(), time.time_ns(), time.process_time())

    def _watch_gpu(self, bus_id: str) -> None:
        from loadtrt.live.sampler import Sampler
        from loadtrt.live.telemetry import open_gpu

        gpu, self._no_gpu = open_gpu(bus_id)
        if gpu is not None and self._sampler is None:
            self._owned.enter_context(gpu)
            self._sampler = self._owned.enter_context(Sampler(gpu))


def main() -> None:
    """Serve the run until it ends or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the run's own end is the one to wait for
    descriptor = int(sys.argv[1])
    memory = mmap.mmap(descriptor, board_bytes())
    os.close(descriptor)
    observing = Observing(Board(memory))
    messages: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
    Thread(target=_listen, args=(messages,), daemon=True).start()
    try:
        while (message := messages.get()) is not None:
            answer = observing.handle(message)
            if answer is not None:
                sys.stdout.write(json.dumps(answer) + "\n")
                sys.stdout.flush()
    except BrokenPipeError:
        pass  # the run has gone
    finally:
        observing.close()


def _listen(messages: SimpleQueue[dict[str, Any] | None]) -> None:
    try:
        for line in sys.stdin:
            messages.put(json.loads(line))
    finally:  # also after half a line, of a run that was killed in the middle of it
        messages.put(None)


def _is_stopped(process: int) -> bool:
    """Whether a process stands still by a signal; only Linux tells."""
    with suppress(OSError):
        state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return state[:1] == ["T"]
    return False


if __name__ == "__main__":
    main()
