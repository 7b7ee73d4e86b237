"""The observer process, as the measuring process sees it: it serves metrics, draws the terminal and samples the GPU.

In the measuring process a scrape or a drawn table would make requests late by milliseconds. The two processes share the
board's memory. Messages are lines of JSON on the observer's stdin, answers lines on its stdout; the end of stdin is the
end of the run, also of a run that was killed. `live/observing.py` is the other side.
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
from dataclasses import asdict, dataclass, field
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from loadtrt.asked.objective import Objective
from loadtrt.errors import EngineError, UsageError
from loadtrt.records.board import board_bytes, boards_in
from loadtrt.signals import SIGNALS, blocked, is_stopped
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Iterator


_START_S = 20.0  # importing may take long from a cold disk
_ANSWER_S = 5.0
_TELEMETRY_S = 5.0  # more for telemetry, which is summed up: for the most intervals that there are
PUSH_S = 10.0  # for a push to one place
_STILL_S = 1.0  # a process that is stopped by a signal, for so long, is not waited for
_LOOK_S = 0.25


class Point(NamedTuple):
    """The place of a run in a sweep, or in a search for capacity.

    text: its settings, for people.
    done, left: points, or candidates, before and after this one.
    """

    text: str
    done: int
    left: int


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What observers know of a run and what does not change while it goes on.

    run: an id that no other run has.
    model: what `--engine` says, without its folder.
    lanes: execution contexts.
    batch: items of a request.
    rate: offered requests a second; None in a closed loop, and offline.
    duration_ns, requests: how long the run will measure; 0 and None where not asked for.
    objectives: in the order of Snapshot.good.
    information: engine, precision, mode, ... for people, label by label.
    items: inferences of a request with each input set; one number where all have the same.
    closed: whether the load is a closed loop.
    max_lateness_ns: the limit set by `--max-lateness`, None for the default one.
    shared_gpu: whether others may compute on the GPU (`--shared-gpu`).
    places: requests that the lanes hold at once.
    labels: those that the user gave.
    uuid, host: of the GPU, "" without one, and of this machine, as dcgm-exporter has them.
    point: None in a run by itself.
    bus: PCI bus id of the GPU, "" without one.
    worker, device: the worker's number in a fleet, and that of its device as --devices has it; "" outside a fleet.
    """

    run: str
    model: str
    lanes: int
    batch: int
    rate: float | None
    duration_ns: int
    requests: int | None
    objectives: tuple[Objective, ...] = ()
    information: dict[str, str] = field(default_factory=dict)
    items: tuple[int, ...] = (1,)
    closed: bool = False
    max_lateness_ns: int | None = None
    shared_gpu: bool = False
    places: int = 1
    labels: dict[str, str] = field(default_factory=dict)
    uuid: str = ""
    host: str = ""
    point: Point | None = None
    bus: str = ""
    worker: str = ""
    device: str = ""

    @property
    def device_times(self) -> bool:
        """Whether requests are timed on the device."""
        return self.information.get("device times") != "off"

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> RunFacts:
        """The inverse of `to_json`."""
        fields: dict[str, Any] = json.loads(text)
        objectives = tuple(Objective(**objective) for objective in fields["objectives"])
        point = fields["point"] and Point(*fields["point"])
        return cls(**{**fields, "objectives": objectives, "items": tuple(fields["items"]), "point": point})


@dataclass(frozen=True, slots=True)
class Wishes:
    """What an observer does besides sampling a GPU.

    metrics: the address to serve metrics at; None for not at all.
    native: whether to offer native histograms.
    terminal: whether to draw on stderr.
    push: where to push metrics, as `parse_push` reads it.
    linger_ns: how long a run that has ended stays on the page while others follow.
    """

    metrics: str | None = None
    native: bool = False
    terminal: bool = False
    push: tuple[str, ...] = ()
    linger_ns: int = 0

    @property
    def follows(self) -> bool:
        """Whether the run's rows are read."""
        return bool(self.metrics or self.terminal or self.push)


class Observer:
    """An observer process.

    boards: where the run writes its rows, one for each model.
    descriptor: of the file that is their memory, for processes that write there, too.
    url: where metrics are served; "" before `ready`, and without metrics.
    alive: whether the process still runs. A process that failed raises nothing.
    """

    def __init__(self, wishes: Wishes, models: int = 1) -> None:
        """Start the process; `ready` waits for it. models: of a run."""
        self._file = shared_file(models * board_bytes())
        self.descriptor = self._file.fileno()
        self._memory = mmap.mmap(self.descriptor, models * board_bytes())
        # -P, and this process' path: a file in the user's folder must not be imported as a module.
        command = [sys.executable, "-P", "-m", "loadtrt.live.observing", str(self.descriptor)]
        try:
            with blocked():  # signals are for the run, which ends the observer later
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    pass_fds=(self.descriptor,),
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                    start_new_session=True,  # the terminal's Ctrl-Z, too
                    text=True,
                )
        except BaseException:
            self._file.close()
            raise
        self._kill = self._process.kill
        SIGNALS.last_acts.append(self._kill)
        self.boards = boards_in(self._memory, models)
        self.url = ""
        self._is_ready = False
        self._answers_come = True
        self._answers: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self._listener = Thread(target=self._listen, name="loadtrt-observer", daemon=True)
        self._listener.start()
        self._pushes = len(wishes.push)
        self.send(wishes=asdict(wishes))

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def ready(self) -> None:
        """Wait until the process has started and serves metrics. Safe to call twice. Raises UsageError for metrics that
        cannot be served, such as at a port in use, or pushed, and EngineError for a process that does not start."""
        if self._is_ready:
            return
        answer = self._answer("url", _START_S)
        if answer is None:
            raise EngineError("the observer process did not start: leave --metrics out and add --no-live to go without")
        if answer["error"]:
            raise UsageError(str(answer["error"]))
        self.url = str(answer["url"])
        self._is_ready = True

    def describe(self, *facts: RunFacts | None) -> None:
        """What the run is, model by model, board by board; the terminal starts to draw. None: nobody writes there."""
        self.send(facts=["" if of_board is None else of_board.to_json() for of_board in facts])

    def forget(self) -> None:
        """Wait until the boards are read no more, so that they can be emptied for another run."""
        self.send(forget=True)
        self._answer("forget", _ANSWER_S)

    def finish(self, *, push: bool = True) -> list[str]:
        """The run is over, with all its rows on the board: keep its last numbers, and push them. push: whether there is
        time for that. Returns sentences on what could not be pushed."""
        self.send(finish=push)
        answer = self._answer("finish", _ANSWER_S + PUSH_S * self._pushes * push)
        if answer is not None:
            return list(map(str, answer["finish"]))
        return ["the observer process did not answer: whether metrics were pushed is not known"] if self._pushes else []

    def say(self, sentence: str) -> None:
        """Write a line above the drawing."""
        self.send(say=sentence)

    def telemetry(self, start_ns: int, end_ns: int, inferences: int, each_ns: int = SECOND_NS) -> dict[str, Any]:
        """The GPU between two instants of perf_counter_ns: {"telemetry": GpuTelemetry as JSON or None, "why": ...,
        "sharing": GpuSharing as JSON or None}."""
        self.send(telemetry=[start_ns, end_ns, inferences, each_ns])
        why = "the observer process did not answer: there is no GPU telemetry"
        gone = {"telemetry": None, "why": why, "sharing": None}
        return self._answer("telemetry", _ANSWER_S + _TELEMETRY_S) or gone

    def end_drawing(self) -> None:
        """Remove the drawing from the terminal, and wait until it is removed. A process that does not answer is ended:
        it would draw again."""
        self.send(end_drawing=True)
        if self._answer("end_drawing", _ANSWER_S) is None:
            self._end()

    def close(self) -> None:
        """End the process, or leave it behind where it hangs in the driver. Safe to call twice."""
        with suppress(ValueError):
            SIGNALS.last_acts.remove(self._kill)
        self._file.close()
        with suppress(OSError):
            assert self._process.stdin is not None  # noqa: S101  # a pipe was asked for
            self._process.stdin.close()
        if not self._is_ready:  # it has started nothing, and would first finish its imports
            self._process.kill()
        for wait_s in self._waits(_ANSWER_S if self._answers_come else 0.1):
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(wait_s)
                break
        else:
            self._end()
        self._listener.join(_ANSWER_S)
        if not self._listener.is_alive():
            assert self._process.stdout is not None  # noqa: S101  # a pipe was asked for
            self._process.stdout.close()

    def send(self, **message: Any) -> None:
        """Send a message; to a process that has gone, nothing."""
        with suppress(OSError, ValueError):
            assert self._process.stdin is not None  # noqa: S101  # a pipe was asked for
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()

    def _answer(self, key: str, patience_s: float) -> dict[str, Any] | None:
        """The answer with this key; None after so long. A process that did not answer once is not waited for again: its
        terminal (Ctrl-S) or its GPU's driver may hang."""
        for wait_s in self._waits(patience_s if self._answers_come else 0):
            with suppress(Empty):
                while (answer := self._answers.get(timeout=wait_s)) is not None:
                    if key in answer:
                        return answer
                break
        self._answers_come = False
        return None

    def _waits(self, patience_s: float) -> Iterator[float]:
        """Seconds to wait, again and again, until that time is over or the process has stood still for _STILL_S."""
        now = moved = time.monotonic()
        end = now + patience_s
        while True:
            yield max(min(end - now, _LOOK_S), 0)
            now = time.monotonic()
            if not is_stopped(self._process.pid):
                moved = now
            if now >= end or now >= moved + _STILL_S:
                return

    def _end(self) -> None:
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_ANSWER_S)

    def _listen(self) -> None:
        """Read answers in a thread of its own: a process that dies ends every wait for an answer."""
        assert self._process.stdout is not None  # noqa: S101  # a pipe was asked for
        with suppress(OSError, ValueError):
            for line in self._process.stdout:
                with suppress(ValueError):
                    self._answers.put(json.loads(line))
        self._answers.put(None)


def shared_file(size: int) -> BinaryIO:
    """A file of zeros in memory, without a name, that takes room as it is written.

    It is not in /dev/shm: containers give that 64 MiB, and writing beyond it is a bus error.
    """
    memory = sys.platform == "linux"
    with open(os.memfd_create("loadtrt"), "w+b") if memory else tempfile.TemporaryFile() as whole:
        # Above the numbers of the standard streams, where a pipe may take the place of a closed one.
        file: BinaryIO = os.fdopen(fcntl.fcntl(whole.fileno(), fcntl.F_DUPFD_CLOEXEC, 3), "w+b")
    file.truncate(size)
    return file
