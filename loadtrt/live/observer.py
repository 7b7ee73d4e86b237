"""The observer: a process beside the measuring one that serves metrics, draws the terminal and samples the GPU.

In the measuring process a scrape or a drawn table would make requests late by milliseconds; here it costs nothing.
The two share the board's memory. Beside it they speak in lines of JSON: what the run says goes in by stdin, answers
come out by stdout, and the end of stdin is the end of the run, even of one that was killed.
"""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, BinaryIO

from loadtrt.errors import EngineError, UsageError
from loadtrt.measure.board import Board, board_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.live.run_facts import RunFacts

_START_S = 20.0  # a cold disk may take long over the imports
_ANSWER_S = 5.0


@dataclass(frozen=True, slots=True)
class Wishes:
    """What an observer shall do. metrics: the address to serve them at, None for not at all; native: with native
    histograms. terminal: draw on stderr.
    gpu: the PCI bus id of the GPU to sample, None for none."""

    metrics: str | None = None
    native: bool = False
    terminal: bool = False
    gpu: str | None = None


class Observer:
    """An observer process, as the run sees it. Nothing that goes wrong with it ends the run: it is `alive` or not.

    board: to be filled. url: where metrics are served, "" before `ready` and without them.
    """

    def __init__(self, lanes: int, bounds: Sequence[tuple[int, int]], wishes: Wishes) -> None:
        """Start the process; `ready` waits for it."""
        size = board_bytes(lanes)
        with _shared_file(size) as file:
            self._memory = mmap.mmap(file.fileno(), size)
            command = [sys.executable, "-m", "loadtrt.live.observing", str(file.fileno()), str(lanes)]
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=(file.fileno(),),
                start_new_session=True,  # a Ctrl-C is for the run, which ends the observer in its own time
                text=True,
            )
        self.board = Board(self._memory, lanes, bounds)
        self.url = ""
        self._answers: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self._listener = Thread(target=self._listen, name="loadtrt-observer", daemon=True)
        self._listener.start()
        self.tell(wishes=asdict(wishes))

    @property
    def alive(self) -> bool:
        """Whether the process is still there."""
        return self._process.poll() is None

    def ready(self) -> None:
        """Wait until metrics are served. Raises UsageError for what keeps them from it, such as a port in use, and
        EngineError for a process that does not start."""
        answer = self._answer(_START_S)
        if answer is None:
            raise EngineError("the observer process did not start: leave --metrics out and add --no-live to go without")
        if "error" in answer:
            raise UsageError(str(answer["error"]))
        self.url = str(answer["url"])

    def describe(self, facts: RunFacts) -> None:
        """What the run is; with it the terminal begins to draw."""
        self.tell(facts=facts.to_json())

    def say(self, sentence: str) -> None:
        """A line above what is drawn."""
        self.tell(say=sentence)

    def telemetry(self, start_ns: int, end_ns: int, inferences: int) -> dict[str, Any] | None:
        """The GPU's telemetry between two instants of perf_counter_ns, as its schema's JSON; None: there is none."""
        self.tell(telemetry=[start_ns, end_ns, inferences])
        answer = self._answer(_ANSWER_S)
        return None if answer is None else answer.get("telemetry")

    def end_drawing(self) -> None:
        """Take the drawing off the terminal, and wait until it is off."""
        self.tell(end_drawing=True)
        self._answer(_ANSWER_S)

    def close(self) -> None:
        """End the process and let go of the memory. Safe to call twice."""
        with suppress(OSError):
            assert self._process.stdin is not None  # noqa: S101  # a pipe was asked for
            self._process.stdin.close()
        try:
            self._process.wait(_ANSWER_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._listener.join()
        with suppress(OSError):
            assert self._process.stdout is not None  # noqa: S101  # a pipe was asked for
            self._process.stdout.close()

    def tell(self, **message: Any) -> None:
        """One line for the process; one that has gone is told nothing."""
        with suppress(OSError, ValueError):
            assert self._process.stdin is not None  # noqa: S101  # a pipe was asked for
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()

    def _answer(self, patience_s: float) -> dict[str, Any] | None:
        with suppress(Empty):
            return self._answers.get(timeout=patience_s)
        return None

    def _listen(self) -> None:
        """In a thread of its own: a process that dies must not leave anyone waiting for its answer."""
        assert self._process.stdout is not None  # noqa: S101  # a pipe was asked for
        with suppress(OSError, ValueError):
            for line in self._process.stdout:
                with suppress(ValueError):
                    self._answers.put(json.loads(line))
        self._answers.put(None)


def _shared_file(size: int) -> BinaryIO:
    """A file of zeros that lies in memory and has no name."""
    if hasattr(os, "memfd_create"):
        file: BinaryIO = os.fdopen(os.memfd_create("loadtrt-board"), "w+b")
    else:  # not on Linux
        file = tempfile.TemporaryFile()  # noqa: SIM115  # the caller's
    file.truncate(size)
    return file
