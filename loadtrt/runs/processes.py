"""Workers as processes of this host: one for each device and process that is asked for, or one for each model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from loadtrt.asked.launched import parse_devices
from loadtrt.engines.open import in_virtual_time
from loadtrt.engines.placed_together import require_apart
from loadtrt.errors import UsageError
from loadtrt.lanes.shared_router import RoutingMemory
from loadtrt.load.dealing import POOLED, parse_routing
from loadtrt.runs.started_worker import STAYS
from loadtrt.signals import pass_on, signal_name
from loadtrt.units import MILLISECOND_NS, plural

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from loadtrt.asked.config import RunConfig
    from loadtrt.runs.links import Clock

    Hear = Callable[[str | None], object]

_DEVICES = Path("/dev")
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_CLOSE_S = 10.0
MOST_HERE = 256  # workers: 32 on each of 8 GPUs


class WorkerProcess:
    """A process of `runs/worker.py`. One that stays for further runs has ended for its fleet once it has a result.

    where: what is known of its place, for the environment of its result.
    host: which host it is on, of a fleet's.
    waits: whether it stays, and waits for its next run.
    """

    host = ""
    waits = False

    def __init__(
        self,
        config: str,
        hear: Hear,
        seen: Mapping[str, str],
        where: dict[str, Any] | None = None,
        boards: str = "",
        routing: Sequence[int] = (),
        *,
        stays: bool = False,
    ) -> None:
        """config: its configuration, as JSON.

        hear: called from a thread with each line that it says, and with None once it has ended.
        seen: variables of its environment that differ from those of this process.
        boards: what it finds the memory of an observer by; "" for none.
        routing: descriptors of the memory by which workers route requests, of each model.
        stays: whether it keeps its engines open for further runs, until `leave`.
        """
        self.where, self._hear = where or {}, hear
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "loadtrt.runs.worker", *[STAYS][: int(stays)], boards, *map(str, routing)],
            pass_fds=(*((int(boards.partition(":")[0]),) if boards else ()), *routing),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **seen},
            start_new_session=True,  # a Ctrl-C comes once, from here
        )
        self._listener = Thread(target=self._listen, args=(stays,), daemon=True)
        self._listener.start()
        self.send(config)

    def _listen(self, stays: bool) -> None:
        assert self._process.stdout is not None  # noqa: S101  # it is a pipe
        with self._process.stdout as stdout:
            for line in stdout:
                self._hear(line)
                if stays and line.startswith('{"result"'):
                    self.waits = True
                    self._hear(None)
        self._process.wait()
        self.waits = False
        self._hear(None)

    def again(self, config: str, hear: Hear) -> None:
        """Have one that waits make another run: of the same engines, as a rule, and observed at the same place."""
        self._hear, self.waits = hear, False
        self.send(json.dumps({"run": config}))
        if self.code is not None:  # it has told only who heard it before
            hear(None)

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.poll()

    @property
    def end(self) -> str:
        """How it ended, in words."""
        code = self.code or 0
        return f"it was ended by {signal_name(-code)}" if code < 0 else f"it ended with code {code}"

    def send(self, line: str) -> None:
        """Send it a message."""
        assert self._process.stdin is not None  # noqa: S101  # it is a pipe
        with suppress(OSError, ValueError):  # it has ended
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def stop(self) -> None:
        """Have it end as the command does at a first signal."""
        pass_on(self._process)

    def kill(self) -> None:
        """End it at once, without a result. One that waits has given its own."""
        if not self.waits:
            self._process.kill()

    def clock(self) -> Clock | None:
        """It has this host's clock."""
        return None

    def close(self) -> None:
        """Forget it, which has ended or was killed; one that hangs in a driver ends whenever it may."""
        if not self.waits:
            self._forget()

    def leave(self) -> None:
        """End one that stays."""
        with suppress(OSError):  # it has ended
            assert self._process.stdin is not None  # noqa: S101  # it is a pipe
            self._process.stdin.close()
        self._listener.join(_CLOSE_S)
        self._process.kill()
        self._forget()

    def _forget(self) -> None:
        self._listener.join(_CLOSE_S)
        with suppress(OSError):  # what it never read
            assert self._process.stdin is not None  # noqa: S101  # it is a pipe
            self._process.stdin.close()


class Processes:
    """The workers of --devices and --processes, or of --model-processes.

    lead_ns: from the instant that is told to all workers until it comes.
    """

    lead_ns = 50 * MILLISECOND_NS

    def __init__(self, config: RunConfig, stay: dict[int, WorkerProcess] | None = None) -> None:
        """stay: those that stay, by their numbers, which take further runs and are joined by those that are started;
        None: none does.

        Raises UsageError where there is no such device, for too many workers, and where they cannot route so."""
        self._stay = stay
        each = len(config.models) if config.model_processes else config.processes
        self._devices = [device for device in _devices_of(config) for _ in range(each)]
        self.count = len(self._devices)
        if self.count > MOST_HERE:
            raise UsageError(
                f"--devices and --processes ask for {self.count} workers, and one host starts {MOST_HERE} at most: ask "
                "for fewer"
            )
        if config.model_processes:
            require_apart(config.models)
        require_one_clock(config)
        self._routed = len(config.models) if parse_routing(config.routing)[0] in POOLED else 0

    @cached_property
    def _routing(self) -> list[RoutingMemory]:
        """By which workers route the requests of each model."""
        return [RoutingMemory(self.count) for _ in range(self._routed)]

    def start(self, number: int, config: RunConfig, hear: Hear, boards: str = "") -> WorkerProcess:
        """Start a worker. boards: see WorkerProcess. Raises UsageError, and EngineError where it cannot route."""
        device = self._devices[number]
        seen: dict[str, str] = {}
        if device is not None:
            seen, config = _visible(device, os.environ), config.with_device(0)

        def heard(line: str | None) -> None:
            if line is None:  # before anybody else knows
                for memory in self._routing:
                    memory.leave(number)
            hear(line)

        text, before = config.model_dump_json(by_alias=True), (self._stay or {}).get(number)
        if before is not None and before.waits:
            before.again(text, heard)
            return before
        if before is not None:
            before.leave()
        made = WorkerProcess(
            text,
            heard,
            seen,
            None if device is None else {"device": device},
            boards,
            [memory.descriptor for memory in self._routing],
            stays=self._stay is not None,
        )
        if self._stay is not None:
            self._stay[number] = made
        return made

    def close(self) -> None:
        """Forget how requests were routed."""
        for memory in self._routing:
            memory.close()


def require_one_clock(config: RunConfig) -> None:
    """Raise UsageError for a routing by what workers have outstanding, of which each would have a clock of its own."""
    routing, _ = parse_routing(config.routing)
    if routing in POOLED and any(in_virtual_time(model.engine) for model in config.models.values()):
        raise UsageError(
            f"{routing} routing needs workers with one clock, and the virtual one of each passes by itself: leave "
            "clock=virtual out, or take --routing random or round-robin"
        )


def workers_of(config: RunConfig) -> int:
    """How many workers this configuration asks for: none for a run of this process. Raises UsageError, also where each
    is to measure a model of its own."""
    if config.model_processes:
        raise UsageError("--model-processes is an option of 'loadtrt run': leave it out")
    if config.ray is not None:
        return config.workers or 0
    return Processes(config).count if config.several_processes else 0


def _devices_of(config: RunConfig) -> list[int | None]:
    """The numbers of the GPUs that --devices means; one of no number without it. Raises UsageError."""
    if config.devices is None:
        return [None]
    named = parse_devices(config.devices)
    visible = os.environ.get(_VISIBLE)
    there = len(list(_DEVICES.glob("nvidia[0-9]*"))) if visible is None else len(_entries(visible))
    if not named and not there:
        raise UsageError("--devices all: there is no NVIDIA GPU here: name devices, or use --processes alone")
    return list(named or range(there))


def _entries(visible: str) -> list[str]:
    return [entry.strip() for entry in visible.split(",") if entry.strip()]


def _visible(device: int, environment: Mapping[str, str]) -> dict[str, str]:
    """What makes a GPU the only one that a process sees: of those that this process sees. Raises UsageError."""
    if _VISIBLE not in environment:
        return {_VISIBLE: str(device)}
    entries = _entries(environment[_VISIBLE])
    if device >= len(entries):
        raise UsageError(
            f"--devices {device}: {_VISIBLE} is '{environment[_VISIBLE]}', which leaves {plural(len(entries), 'GPU')}: "
            "devices are numbered from 0 among those"
        )
    return {_VISIBLE: entries[device]}
