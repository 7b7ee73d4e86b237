"""What runs on a node of a Ray cluster: an actor that starts a worker process and passes messages on.

What measures is a process of its own, as on one host: Ray's threads, its signals and its packages stay out of it.
"""

from __future__ import annotations

import json
import mmap
import os
import platform
import time
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock
from typing import TYPE_CHECKING, Any

from loadtrt.environment import FELLOWS, read_words
from loadtrt.errors import EXIT_INTERRUPTED
from loadtrt.live.nvml import open_gpu
from loadtrt.live.observer import RunFacts, shared_file
from loadtrt.records.board import RunState, board_bytes, boards_in
from loadtrt.runs.processes import WorkerProcess
from loadtrt.runs.shipping import Store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from loadtrt.live.nvml import Gpu
    from loadtrt.records.board import Board, Piece

_READ_S = 1.0  # between two readings of a GPU, which take NVML milliseconds


class RayHost:
    """The actor of a worker. Calls of it run beside each other."""

    def __init__(self) -> None:
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        self._store = Store()
        self._boards: Sequence[Board] = ()
        self._sent: list[RunState] = []
        self._telemetry = False
        self._gpu: Gpu | None = None
        self._read_s = 0.0  # when it was read
        self._starting = Lock()
        self._process: WorkerProcess | None = None
        self._ended: tuple[int, str] | None = None

    def place(self) -> tuple[str, tuple[str, int], dict[str, Any]]:
        """The node; where this process has its id, and that id; and what the environment of a result says of the
        node. Several nodes may be on one host, and containers on it have ids of their own."""
        import ray

        gpus = [int(number) for number in ray.get_gpu_ids() if str(number).isdecimal()]
        told = {"ray": ray.__version__, **({"device": gpus[0]} if gpus else {})}
        ids = f"{read_words(Path('/proc/sys/kernel/random/boot_id'))} {os.readlink('/proc/self/ns/pid')}"
        return f"{platform.node()} {ray.get_runtime_context().get_node_id()}", (ids, os.getpid()), told

    def now(self) -> int:
        """The host's wall clock, Unix time in ns."""
        return time.time_ns()

    def start(
        self,
        configuration: str,
        groups: Mapping[str, Mapping[str, Any]],
        fellows: Sequence[int],
        telemetry: bool,
        boards: int,
    ) -> None:
        """Start the worker. Raises OSError.

        groups: as `Shipment.groups`, with references to the bytes of files.
        fellows: processes of this class on the host, whose workers are no others on its cores.
        telemetry: whether the observer shows the worker's GPU, too.
        boards: how many of the worker's an observer elsewhere reads: one for each model, or none.
        """
        import ray

        self._store.keep(groups, lambda group: {name: ray.get(data) for name, data in groups[group].items()})
        with self._starting, ExitStack() as stack:
            if self._ended is not None:
                return
            found_by = ""
            if boards:
                file = stack.enter_context(shared_file(boards * board_bytes()))
                self._boards = boards_in(mmap.mmap(file.fileno(), boards * board_bytes()), boards)
                self._sent, self._telemetry = [RunState()] * boards, telemetry
                found_by = f"{file.fileno()}:0"
            seen = {FELLOWS: " ".join(map(str, fellows))}
            self._process = WorkerProcess(self._store.here(configuration), self._lines.put, seen, boards=found_by)

    def hear(self, seconds: float) -> tuple[list[str], list[Piece | None], tuple[int, str] | None]:
        """What the worker has said, waiting for it so long at most, with {"gpu"}, a reading of its GPU, each second;
        what it has written on each board since; and its exit code and end in words, once it has ended and all is told.
        """
        heard: list[str | None] = []
        with suppress(Empty):
            heard.append(self._lines.get(timeout=0 if self._ended else seconds))
            while True:
                heard.append(self._lines.get_nowait())
        if None in heard and self._process is not None:
            self._ended = self._process.code or 0, self._process.end
        pieces = [board.take(sent) for board, sent in zip(self._boards, self._sent, strict=True)]
        self._sent = [sent if piece is None else piece.state for piece, sent in zip(pieces, self._sent, strict=True)]
        lines = [line for line in heard if line is not None]
        return [*lines, *self._readings(lines)], pieces, None if any(pieces) else self._ended

    def _readings(self, lines: Sequence[str]) -> Iterator[str]:
        """A reading of the worker's GPU, where it is time for one. lines: what the worker has said."""
        for line in lines if self._telemetry else ():
            if line.startswith('{"facts"'):
                bus_id = RunFacts.from_json(json.loads(line)["facts"]["facts"][0]).bus
                self._gpu = open_gpu(bus_id)[0] if bus_id else None
        if self._gpu is not None and self._ended is None and time.monotonic() >= self._read_s + _READ_S:
            self._read_s = time.monotonic()
            yield json.dumps({"gpu": asdict(self._gpu.read())})

    def send(self, line: str) -> None:
        """Send the worker a message."""
        if self._process is not None:
            self._process.send(line)

    def stop(self) -> None:
        """As `WorkerProcess.stop`."""
        if (process := self._begun()) is not None:
            process.stop()

    def kill(self) -> None:
        """As `WorkerProcess.kill`."""
        if (process := self._begun()) is not None:
            process.kill()

    def close(self) -> None:
        """End the worker, and delete files that no other one uses."""
        if (process := self._begun()) is not None:
            process.kill()
            process.close()
        if self._gpu is not None:
            self._gpu.close()
        self._store.close()

    def _begun(self) -> WorkerProcess | None:
        """The process; where there is none, there will be none."""
        with self._starting:
            if self._process is None and self._ended is None:
                self._ended = EXIT_INTERRUPTED, "it was ended"
            return self._process
