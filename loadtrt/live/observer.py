"""The observer: a process beside the measuring one that serves metrics, draws the terminal and samples the GPU.

In the measuring process a scrape or a drawn table would make requests late by milliseconds; here it costs nothing.
The two share the board's memory. Beside it they speak in lines of JSON: what the run says goes in by stdin, answers
come out by stdout, and the end of stdin is the end of the run, even of one that was killed.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, BinaryIO

from loadtrt.errors import EngineError, UsageError
from loadtrt.records.board import Board, board_bytes

if TYPE_CHECKING:
    from loadtrt.live.run_facts import RunFacts

_START_S = 20.0  # a cold disk may take long over the imports
_ANSWER_S = 5.0
_HOUR_S = 3.0  # more, for each hour of telemetry to be summed up


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

    board: where the run writes its rows. url: where metrics are served, "" before `ready` and without them.
    """

    def __init__(self, wishes: Wishes) -> None:
        """Start the process; `ready` waits for it."""
        with _shared_file(board_bytes()) as file:
            self._memory = mmap.mmap(file.fileno(), board_bytes())
            # -P, and the path of this process: a file of the user's folder must not pass for a module there.
            command = [sys.executable, "-P", "-m", "loadtrt.live.observing", str(file.fileno())]
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=(file.fileno(),),
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                start_new_session=True,  # a Ctrl-C is for the run, which ends the observer in its own time
                text=True,
            )
        self.board = Board(self._memory)
        self.url = ""
        self._is_ready = False
        self._answers_come = True
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
        answer = self._answer("url", _START_S)
        if answer is None:
            raise EngineError("the observer process did not start: leave --metrics out and add --no-live to go without")
        if answer["error"]:
            raise UsageError(str(answer["error"]))
        self.url = str(answer["url"])
        self._is_ready = True

    def describe(self, facts: RunFacts) -> None:
        """What the run is; with it the terminal begins to draw."""
        self.tell(facts=facts.to_json())

    def say(self, sentence: str) -> None:
        """A line above what is drawn."""
        self.tell(say=sentence)

    def telemetry(self, start_ns: int, end_ns: int, inferences: int) -> dict[str, Any]:
        """The GPU between two instants of perf_counter_ns: {"telemetry": its schema's JSON or None, "why": ...}."""
        self.tell(telemetry=[start_ns, end_ns, inferences])
        hours = (end_ns - start_ns) / 3.6e12
        gone = {"telemetry": None, "why": "the observer process did not answer: there is no GPU telemetry"}
        return self._answer("telemetry", _ANSWER_S + _HOUR_S * hours) or gone

    def end_drawing(self) -> None:
        """Take the drawing off the terminal, and wait until it is off."""
        self.tell(end_drawing=True)
        self._answer("end_drawing", _ANSWER_S)

    def close(self) -> None:
        """End the process. Safe to call twice. One that hangs in the driver is left behind: it ends nobody's wait."""
        with suppress(OSError):
            assert self._process.stdin is not None  # noqa: S101  # a pipe was asked for
            self._process.stdin.close()
        if not self._is_ready:  # it has begun nothing, and would first have to finish its imports
            self._process.kill()
        try:
            self._process.wait(_ANSWER_S if self._answers_come else 0.1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_ANSWER_S)
        self._listener.join(_ANSWER_S)
        if not self._listener.is_alive():
            assert self._process.stdout is not None  # noqa: S101  # a pipe was asked for
            self._process.stdout.close()

    def tell(self, **message: Any) -> None:
        """One line for the process; one that has gone is told nothing."""
        with suppress(OSError, ValueError):
            assert self._process.stdin is not None  # noqa: S101  # a pipe was asked for
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()

    def _answer(self, key: str, patience_s: float) -> dict[str, Any] | None:
        """The answer that has this key. Whoever did not answer once is not waited for again: its terminal may stand
        still (Ctrl-S), or its GPU's driver."""
        end = time.monotonic() + (patience_s if self._answers_come else 0)
        with suppress(Empty):
            while (answer := self._answers.get(timeout=max(end - time.monotonic(), 0))) is not None:
                if key in answer:
                    return answer
        self._answers_come = False
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
    """A file of zeros that lies in memory, has no name, and takes room as it is written.

    Not one in /dev/shm, where it could be had: containers give that 64 MiB, and who writes beyond dies of a bus error.
    """
    memory = sys.platform == "linux"
    with open(os.memfd_create("loadtrt"), "w+b") if memory else tempfile.TemporaryFile() as made:
        # Above the standard streams' numbers, one of which is free where it was closed: a pipe would take its place.
        file: BinaryIO = os.fdopen(fcntl.fcntl(made.fileno(), fcntl.F_DUPFD_CLOEXEC, 3), "w+b")
    file.truncate(size)
    return file
