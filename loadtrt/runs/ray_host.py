"""What runs on a node of a Ray cluster: an actor that starts a worker process and passes messages on.

What measures is a process of its own, as on one host: Ray's threads, its signals and its packages stay out of it.
"""

from __future__ import annotations

import platform
import time
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Lock
from typing import TYPE_CHECKING, Any

from loadtrt.errors import EXIT_INTERRUPTED
from loadtrt.runs.processes import WorkerProcess
from loadtrt.runs.shipping import Store

if TYPE_CHECKING:
    from collections.abc import Mapping


class RayHost:
    """The actor of a worker. Calls of it run beside each other."""

    def __init__(self) -> None:
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        self._store = Store()
        self._starting = Lock()
        self._process: WorkerProcess | None = None
        self._ended: tuple[int, str] | None = None

    def place(self) -> tuple[str, dict[str, Any]]:
        """The node, and what the environment of a result says of it."""
        import ray

        gpus = [int(number) for number in ray.get_gpu_ids() if str(number).isdecimal()]
        told = {"ray": ray.__version__, **({"device": gpus[0]} if gpus else {})}
        return f"{platform.node()} {ray.get_runtime_context().get_node_id()}", told

    def now(self) -> int:
        """The host's wall clock, Unix time in ns."""
        return time.time_ns()

    def start(self, configuration: str, groups: Mapping[str, Mapping[str, Any]]) -> None:
        """Start the worker. groups: as `Shipment.groups`, with references to the bytes of files. Raises OSError."""
        import ray

        self._store.keep(groups, lambda group: {name: ray.get(data) for name, data in groups[group].items()})
        with self._starting:
            if self._ended is None:
                self._process = WorkerProcess(self._store.here(configuration), self._lines.put, {})

    def hear(self, seconds: float) -> tuple[list[str], tuple[int, str] | None]:
        """What the worker has said, waiting for it so long at most; and its exit code and end in words, once it has
        ended."""
        heard: list[str | None] = []
        with suppress(Empty):
            heard.append(self._lines.get(timeout=seconds))
            while True:
                heard.append(self._lines.get_nowait())
        if None in heard and self._process is not None:
            self._ended = self._process.code or 0, self._process.end
        return [line for line in heard if line is not None], self._ended

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
        self._store.close()

    def _begun(self) -> WorkerProcess | None:
        """The process; where there is none, there will be none."""
        with self._starting:
            if self._process is None and self._ended is None:
                self._ended = EXIT_INTERRUPTED, "it was ended"
            return self._process
