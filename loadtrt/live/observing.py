"""The observer process itself: `python -m loadtrt.live.observing FD LANES`, started by `loadtrt.live.observer`.

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
from contextlib import ExitStack
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

from loadtrt.errors import LoadtrtError
from loadtrt.live.run_facts import RunFacts
from loadtrt.measure.board import Board, board_bytes

if TYPE_CHECKING:
    from loadtrt.live.metrics import View as Exposed
    from loadtrt.live.sampler import Sampler
    from loadtrt.live.terminal import Terminal
    from loadtrt.live.view import Viewer

_FRAME_S = 0.25


class Observing:
    """What runs in the process. `handle` takes a message and returns the answer, None for none."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._facts: RunFacts | None = None
        self._owned = ExitStack()
        self._sampler: Sampler | None = None
        self._terminal: Terminal | None = None
        self._viewer: Viewer | None = None
        self._draws = False

    def handle(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """Do what the run says."""
        match message:
            case {"wishes": {"metrics": address, "native": native, "terminal": draws, "gpu": gpu}}:
                self._draws = bool(draws)
                if gpu:
                    self._watch_gpu(str(gpu))
                try:
                    return {"url": self._serve(address, native) if address else ""}
                except LoadtrtError as error:
                    return {"error": str(error)}
            case {"facts": str(text)}:
                self._facts = RunFacts.from_json(text)
                if self._draws:
                    from loadtrt.live.terminal import Terminal
                    from loadtrt.live.view import Viewer

                    self._viewer, self._terminal = Viewer(), Terminal()
            case {"gpu": str(bus_id)}:
                self._watch_gpu(bus_id)
            case {"say": str(sentence)}:
                if self._terminal is not None:
                    self._terminal.say(sentence)
            case {"telemetry": [start_ns, end_ns, inferences]}:
                if self._sampler is None:
                    return {"telemetry": None}
                found = self._sampler.telemetry(start_ns, end_ns, inferences)
                return {"telemetry": found.model_dump(mode="json")}
            case {"end_drawing": _}:
                self._end_drawing()
                return {"end_drawing": True}
        return None

    def draw(self) -> None:
        """A frame, if somebody looks."""
        if self._terminal is not None and self._viewer is not None and self._facts is not None:
            gpu = None if self._sampler is None else self._sampler.latest
            self._terminal.show(self._viewer.take(self._board.snapshot(), self._facts, gpu, time.time_ns()))

    def close(self) -> None:
        """Give everything back."""
        self._end_drawing()
        self._owned.close()

    def _end_drawing(self) -> None:
        if self._terminal is not None:
            self._terminal.close()
            self._terminal = None

    def _serve(self, address: str, native: bool) -> str:
        from loadtrt.live.exporter import Exporter

        return self._owned.enter_context(Exporter(address, self._exposed, native)).url

    def _exposed(self) -> Exposed | None:
        from loadtrt.live.metrics import View

        if self._facts is None:
            return None
        gpu = None if self._sampler is None else self._sampler.latest
        return View(self._board.snapshot(), self._facts, gpu, time.time_ns(), time.process_time())

    def _watch_gpu(self, bus_id: str) -> None:
        from loadtrt.live.sampler import Sampler
        from loadtrt.live.telemetry import open_gpu

        gpu, _ = open_gpu(bus_id)
        if gpu is not None and self._sampler is None:
            self._owned.enter_context(gpu)
            self._sampler = self._owned.enter_context(Sampler(gpu))


def main() -> None:
    """Serve the run until it ends or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the run's own end is the one to wait for
    descriptor, lanes = int(sys.argv[1]), int(sys.argv[2])
    memory = mmap.mmap(descriptor, board_bytes(lanes))
    os.close(descriptor)
    observing = Observing(Board(memory, lanes))
    messages: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
    Thread(target=_listen, args=(messages,), daemon=True).start()
    try:
        while True:
            try:
                message = messages.get(timeout=_FRAME_S)
            except Empty:
                observing.draw()
                continue
            if message is None:
                break
            answer = observing.handle(message)
            if answer is not None:
                sys.stdout.write(json.dumps(answer) + "\n")
                sys.stdout.flush()
    except BrokenPipeError:
        pass  # the run has gone
    finally:
        observing.close()


def _listen(messages: SimpleQueue[dict[str, Any] | None]) -> None:
    for line in sys.stdin:
        messages.put(json.loads(line))
    messages.put(None)


if __name__ == "__main__":
    main()
