"""A run of several worker processes on this host: each takes its part of one load, all begin at one instant, and one
result is made of theirs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import IO, TYPE_CHECKING, Any

from loadtrt.asked.launched import parse_devices
from loadtrt.errors import EngineError, UsageError
from loadtrt.lanes.model_run import tickers
from loadtrt.results.run_result import LostWorker, RunResult
from loadtrt.runs.fleet_watch import FleetWatch
from loadtrt.signals import STOPPING, pass_on, signal_name
from loadtrt.units import MILLISECOND_NS, plural

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from loadtrt.asked.config import RunConfig
    from loadtrt.lanes.model_run import OnTick, Phase
    from loadtrt.runs.watched import Talks
    from loadtrt.signals import Signals

_LEAD_NS = 50 * MILLISECOND_NS  # from the instant that is told to all workers until it comes
_LOOK_S = 0.05
_PATIENCE_S = 10.0  # of a worker, to end after the second signal
_DEVICES = Path("/dev")
_VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(slots=True)
class WorkerProcess:
    """A worker process, and what it has said.

    number: of the worker.
    device: number of its GPU as --devices has it; None where that was not said.
    on_tick: as for `Maker.run`.
    pids: its ids in all namespaces, once it is ready.
    phase, completed: where it is, and requests completed in that phase.
    error: what ended it, in a sentence; None for nothing, or for a signal.
    """

    number: int
    device: int | None
    process: subprocess.Popen[str]
    stdin: IO[str]
    on_tick: OnTick | None
    pids: tuple[int, ...] | None = None
    phase: Phase | None = None
    completed: int = 0
    result: RunResult | None = None
    error: str | None = None
    over: bool = False
    listener: Thread = field(default_factory=Thread)

    @property
    def lost(self) -> LostWorker:
        """What is known of it without a result."""
        code = self.process.poll() or 0
        why = self.error or (f"it was ended by {signal_name(-code)}" if code < 0 else f"it ended with code {code}")
        where = {"measure": "while it measured"}.get(self.phase or "", "before it measured")
        counted = self.completed if self.phase == "measure" else 0
        return LostWorker(worker=self.number, why=f"{why} {where}", completed=counted)


def run_fleet(
    config: RunConfig,
    talks: Talks,
    signals: Signals,
    on_tick: OnTick | None = None,
    start_at: int | None = None,
    deliver: Callable[[RunResult], None] = lambda _: None,
    *,
    draws: bool = False,
) -> RunResult:
    """Make a run with a worker for each device and process that `config` asks for.

    on_tick: as for `Maker.run`, of all workers together.
    start_at: when to begin to measure, Unix time in ns; None: once all workers are ready.
    deliver: takes the result while metrics are still served.
    draws: whether a live view is drawn, as `config` says.

    Raises UsageError, EngineError and KeyboardInterrupt where no worker has measured anything.
    """
    places = [(device, process) for device in _devices_of(config) for process in range(config.processes)]
    with signals:
        signals.hold()
        watch = FleetWatch(config, len(places), talks, draws=draws)
        try:
            fleet = _Fleet(config, places, talks, signals, on_tick, watch)
            try:
                fleet.wait(start_at)
            finally:
                fleet.close()
                watch.end()
            result = fleet.result()
            deliver(result)
            watch.finish(push=not signals.hurried())
            watch.linger(config, result.outcome, signals.sleep)
            return result
        finally:
            watch.close()


class _Fleet:
    """The processes of a run."""

    def __init__(
        self,
        config: RunConfig,
        places: list[tuple[int | None, int]],
        talks: Talks,
        signals: Signals,
        on_tick: OnTick | None,
        watch: FleetWatch,
    ) -> None:
        self._watch = watch
        self._config, self._talks, self._signals = config, talks, signals
        self._lines: SimpleQueue[tuple[WorkerProcess, str | None]] = SimpleQueue()
        self._workers: list[WorkerProcess] = []
        self._said: set[str] = set()
        signals.last_acts.append(self.kill)
        try:
            for number, ((device, _), ticker) in enumerate(zip(places, tickers(on_tick, len(places)), strict=True)):
                part = _part_of(config, number, len(places), device)
                self._workers.append(self._start(part, number, device, ticker))
        except BaseException:
            self.close()
            raise

    def _start(self, config: RunConfig, number: int, device: int | None, on_tick: OnTick | None) -> WorkerProcess:
        boards = self._watch.boards_for(number)
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "loadtrt.runs.worker", boards],
            pass_fds=(int(boards.partition(":")[0]),) if boards else (),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **_visible(device, os.environ)},
            start_new_session=True,  # a Ctrl-C comes once, from here
        )
        assert process.stdin is not None  # noqa: S101  # both are pipes
        assert process.stdout is not None  # noqa: S101
        worker = WorkerProcess(number, device, process, process.stdin, on_tick)
        worker.listener = Thread(target=self._listen, args=(worker, process.stdout), daemon=True)
        worker.listener.start()
        _send(worker, config.model_dump_json(by_alias=True))
        return worker

    def _listen(self, worker: WorkerProcess, stdout: IO[str]) -> None:
        with stdout:
            for line in stdout:
                self._lines.put((worker, line))
        worker.process.wait()
        self._lines.put((worker, None))

    def wait(self, start_at: int | None) -> None:
        """Until all workers have ended. They are given the instant to begin once all are ready that have not ended."""
        started, passed_on, hurried_s = False, 0, 0.0
        while not all(worker.over for worker in self._workers):
            with suppress(Empty):
                self._hear(*self._lines.get(timeout=_LOOK_S))
            running = [worker for worker in self._workers if not worker.over]
            if not started and running and all(worker.pids is not None for worker in running):
                started = True
                instant = time.time_ns() + _LEAD_NS if start_at is None else start_at
                for worker in running:
                    _send(worker, json.dumps({"start": instant}))
            asked = self._signals.requested() + self._signals.hurried()
            if asked > passed_on:
                if not passed_on:
                    self._say(STOPPING)
                    for worker in running:
                        pass_on(worker.process)
                if asked > 1:  # by a message, as two signals at once can arrive as one
                    for worker in running:
                        _send(worker, json.dumps({"hurry": True}))
                passed_on, hurried_s = asked, time.monotonic()
            if passed_on > 1 and time.monotonic() > hurried_s + _PATIENCE_S:
                self.kill()

    def _hear(self, worker: WorkerProcess, line: str | None) -> None:
        if line is None:
            worker.over = True
            self._watch.over(worker.number, worker.device, None if worker.result is not None else worker.lost.why)
            return
        content: Any
        try:
            ((name, content),) = json.loads(line).items()
        except ValueError:
            return  # half a line, of a worker that was killed
        match name:
            case "say":
                if content not in self._said:  # each says the same
                    self._say(content, f"worker {worker.number}: ")
            case "tick":
                worker.phase, elapsed_ns, submitted, worker.completed = content
                if worker.on_tick is not None and worker.phase is not None:
                    worker.on_tick(worker.phase, elapsed_ns, submitted, worker.completed)
            case "ready":
                worker.pids = tuple(content)
            case "facts":
                self._watch.hear(worker.number, worker.device, content)
            case "error":
                worker.error = str(content)
            case "result":
                with suppress(ValueError):
                    worker.result = RunResult.model_validate(content)

    def _say(self, sentence: str, whose: str = "") -> None:
        self._said.add(sentence)
        self._talks.say(whose + sentence)

    def kill(self) -> None:
        """End all workers that have not ended."""
        for worker in self._workers:
            worker.process.kill()

    def close(self) -> None:
        """End all workers, and forget them."""
        self.kill()
        if self.kill in self._signals.last_acts:
            self._signals.last_acts.remove(self.kill)
        for worker in self._workers:
            worker.listener.join()
            with suppress(OSError):  # what it never read
                worker.stdin.close()

    def result(self) -> RunResult:
        """What all have measured. Raises the error of the first worker, where none measured anything."""
        from loadtrt.stats.merging import merge

        results = {worker.number: worker.result for worker in self._workers if worker.result is not None}
        lost = [worker.lost for worker in self._workers if worker.result is None]
        interrupted = self._signals.requested() and not any(worker.error for worker in self._workers)
        served = any(model.ok for result in results.values() for model in result.models.values())
        if interrupted and lost and not served:
            raise KeyboardInterrupt
        if not results:
            first = self._workers[0]
            error = UsageError if first.process.returncode == UsageError.exit_code else EngineError
            more = f" (and so did {plural(len(lost) - 1, 'other worker')})" if len(lost) > 1 else ""
            raise error(first.error or f"no worker measured anything: worker {first.number}: {first.lost.why}{more}")
        for item in lost:
            self._talks.say(f"worker {item.worker} is lost: {item.why}")
        merged = merge({f"worker {number}": self._placed(result) for number, result in results.items()}, lost)
        outcome = "interrupted" if interrupted else merged.outcome  # which may have ended workers that had not begun
        return merged.model_copy(update={"run": self._watch.run, "config": self._config, "outcome": outcome})

    def _placed(self, result: RunResult) -> RunResult:
        """A worker's result with where it ran, and without blame for the workers beside it."""
        worker = self._workers[int(result.worker)]
        device = {} if worker.device is None else {"device": worker.device}
        result = result.model_copy(update={"environment": {**result.environment, **device}})
        own = {pid for other in self._workers for pid in other.pids or ()}
        computing = result.sharing.computing if result.sharing is not None else ()
        if not computing or not own.issuperset(client.pid for client in computing):
            return result
        models: dict[str, Any] = {}
        for name, model in result.models.items():
            problems = tuple(problem for problem in model.problems if problem.kind != "gpu-shared")
            models[name] = model.model_copy(update={"problems": problems, "valid": not problems})
        valid = result.failure is None and all(model.valid for model in models.values())
        return result.model_copy(update={"models": models, "valid": valid})


def _send(worker: WorkerProcess, line: str) -> None:
    with suppress(OSError, ValueError):  # it has ended
        worker.stdin.write(line + "\n")
        worker.stdin.flush()


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


def _visible(device: int | None, environment: Mapping[str, str]) -> dict[str, str]:
    """What makes a GPU the only one that a process sees: of those that this process sees. Raises UsageError."""
    if device is None:
        return {}
    if _VISIBLE not in environment:
        return {_VISIBLE: str(device)}
    entries = _entries(environment[_VISIBLE])
    if device >= len(entries):
        raise UsageError(
            f"--devices {device}: {_VISIBLE} is '{environment[_VISIBLE]}', which leaves {plural(len(entries), 'GPU')}: "
            "devices are numbered from 0 among those"
        )
    return {_VISIBLE: entries[device]}


def _part_of(config: RunConfig, number: int, workers: int, device: int | None) -> RunConfig:
    """The configuration of a worker, which writes and shows nothing."""
    left_out = (
        *("devices", "processes", "json_file", "junit", "github", "live"),
        *("metrics", "metrics_linger", "metrics_native", "push"),
    )
    changes: dict[str, Any] = {name: type(config).model_fields[name].default for name in left_out}
    if device is not None:  # it sees no other
        changes["models"] = {name: model.model_copy(update={"device": 0}) for name, model in config.models.items()}
    return config.model_copy(update={**changes, "live": False, "quiet": True, "worker": f"{number}/{workers}"})
