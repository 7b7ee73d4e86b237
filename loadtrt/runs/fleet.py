"""A run of several workers: each takes its part of one load, or one of the models; all begin at one instant, and their
results make one.

What starts workers, and where, is of no matter here: see `links.Places`.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from loadtrt.errors import EngineError, UsageError
from loadtrt.lanes.model_run import tickers
from loadtrt.live.clients import namespace_pids
from loadtrt.results.run_result import LostWorker, RunResult
from loadtrt.runs.fellows import without_blame
from loadtrt.runs.fleet_watch import FleetWatch, fleets_shown
from loadtrt.runs.started_worker import LOADED, StartedWorker
from loadtrt.signals import STOPPING
from loadtrt.units import plural

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtrt.asked.config import RunConfig
    from loadtrt.lanes.model_run import OnTick
    from loadtrt.live.observer import Point
    from loadtrt.runs.links import Places
    from loadtrt.runs.processes import WorkerProcess
    from loadtrt.runs.shown import Shown
    from loadtrt.runs.watched import Talks
    from loadtrt.signals import Signals

_FILES = ("engine", "plugins", "lean_library", "verify_against", "inputs", "load")  # of a model, load for its trace
_PROC = Path("/proc")
_LOOK_S = 0.05
_PATIENCE_S = 10.0  # of a worker, to end after the second signal; and then, once it is killed


def run_fleet(
    config: RunConfig,
    talks: Talks,
    signals: Signals,
    on_tick: OnTick | None = None,
    start_at: int | None = None,
    deliver: Callable[[RunResult], None] = lambda _: None,
    *,
    draws: bool = False,
    shown: Shown | None = None,
    point: Point | None = None,
    stay: dict[int, WorkerProcess] | None = None,
) -> RunResult:
    """Make a run with the workers that `config` asks for.

    on_tick: as for `Maker.run`, of all workers together.
    start_at: when to begin to measure, Unix time in ns; None: once all workers are ready.
    deliver: takes the result while metrics are still served.
    draws: whether a live view is drawn, as `config` says.
    shown: what shows this run, among others; None: an observer of its own does, and serves its metrics for a while.
    point: as for `Maker.run`.
    stay: as for `Processes`.

    Raises UsageError, EngineError and KeyboardInterrupt where no worker has measured anything.
    """
    with signals:
        signals.hold()
        places = _places(config, talks, signals, stay)
        with ExitStack() as stack:
            stack.callback(places.close)
            own = shown is None
            if shown is None:
                shown = fleets_shown(config, places.count, talks, draws=draws)
                stack.callback(shown.close)
            watch = FleetWatch(config, places.count, shown, point)
            fleet = _Fleet(config, places, talks, signals, on_tick, watch)
            try:
                fleet.wait(start_at)
            finally:
                fleet.close()
                watch.end()
            result = fleet.result()
            deliver(result)
            shown.finish(push=not signals.hurried())
            if own:
                shown.linger(config, result.outcome, signals.sleep)
            return result


def _places(config: RunConfig, talks: Talks, signals: Signals, stay: dict[int, WorkerProcess] | None) -> Places:
    """Where the workers run. Raises LoadtrtError, and KeyboardInterrupt."""
    if config.ray is not None:
        from loadtrt.runs.ray_cluster import RayCluster

        return RayCluster(config, talks, signals)
    from loadtrt.runs.processes import Processes

    return Processes(config, stay)


class _Fleet:
    """The workers of a run."""

    def __init__(
        self,
        config: RunConfig,
        places: Places,
        talks: Talks,
        signals: Signals,
        on_tick: OnTick | None,
        watch: FleetWatch,
    ) -> None:
        self._watch = watch
        self._config, self._talks, self._signals, self._lead_ns = config, talks, signals, places.lead_ns
        self._models = tuple(config.models) if config.model_processes else ()  # of a worker each
        self._lines: SimpleQueue[tuple[int, str | None]] = SimpleQueue()
        self._workers: list[StartedWorker] = []
        self._said: set[str] = set()
        self._begun = False
        self._failed: StartedWorker | None = None  # without whose model there is no run
        signals.last_acts.append(self.kill)
        try:
            for number, ticker in enumerate(tickers(on_tick, places.count)):
                self._workers.append(self._start(places, number, ticker))
            engines = ", ".join(dict.fromkeys(model.engine for model in config.models.values()))
            where = plural(places.count, "process" if self._models else "worker")
            talks.status(f"loading {engines} {'in' if self._models else 'on'} {where}", slow=True)
        except BaseException:
            self.close()
            raise

    def _start(self, places: Places, number: int, on_tick: OnTick | None) -> StartedWorker:
        part = _part_of(self._config, number, places.count)
        link = places.start(number, part, partial(self._put, number), self._watch.boards_for(number))
        return StartedWorker(number, link, on_tick, self._models[number] if self._models else "")

    def _put(self, number: int, line: str | None) -> None:
        self._lines.put((number, line))

    def wait(self, start_at: int | None) -> None:
        """Until all workers have ended. They are given the instant to begin once all are ready that have not ended."""
        passed_on, hurried_s, looked_s = 0, 0.0, time.monotonic()
        while not all(worker.over for worker in self._workers):
            with suppress(Empty):
                number, line = self._lines.get(timeout=_LOOK_S)
                self._hear(self._workers[number], line)
            running = [worker for worker in self._workers if not worker.over]
            if self._lines.empty():  # else it is not known who has said nothing
                before_s, looked_s = looked_s, time.monotonic()
                for worker in running:
                    self._wait_for(worker, looked_s - before_s)
            if not self._begun and running and all(worker.ready for worker in running):
                self._talks.end_line()
                self._begin(running, start_at)
            asked = self._signals.requested() + self._signals.hurried()
            if asked > passed_on:
                if not passed_on:
                    self._say(STOPPING)
                    for worker in running:
                        worker.link.stop()
                if asked > 1:  # by a message, as two signals at once can arrive as one
                    for worker in running:
                        worker.link.send(json.dumps({"hurry": True}))
                passed_on, hurried_s = asked, time.monotonic()
            over_s = time.monotonic() - hurried_s if passed_on > 1 else 0.0
            if over_s > _PATIENCE_S:
                self.kill()
            for worker in running if over_s > 2 * _PATIENCE_S else ():
                self._lose(worker, "it did not end")
        for worker in self._workers:
            if worker.result is not None:
                worker.clock_after = worker.link.clock()

    def _begin(self, running: list[StartedWorker], start_at: int | None) -> None:
        """Give all workers the instant to begin, each as its host's clock will have it. Those that are lost by now are
        told: a run of hours may be given up."""
        self._begun = True
        for worker in self._workers:
            if worker.over and not self._signals.requested():
                self._say_lost(worker.lost)
        for worker in running:
            worker.clock = worker.link.clock()
        instant = time.time_ns() + self._lead_ns if start_at is None else start_at
        for worker in running:
            ahead_ns = 0 if worker.clock is None else worker.clock.ahead_ns
            worker.link.send(json.dumps({"start": instant + ahead_ns}))

    def _wait_for(self, worker: StartedWorker, passed_s: float) -> None:
        """A worker has said nothing for so long, once more."""
        match worker.hearing.wait(passed_s, ready=worker.ready):
            case "ask":
                worker.link.send(json.dumps({"ask": True}))
            case "name":
                self._say(f"{worker.name} {worker.hearing.silence(ready=worker.ready)}")
            case "lost":
                self._lose(worker, worker.hearing.loss)

    def _lose(self, worker: StartedWorker, why: str) -> None:
        """Give a worker up, which may not even end."""
        worker.error = why
        worker.link.kill()
        self._hear(worker, None)

    def _hear(self, worker: StartedWorker, line: str | None) -> None:
        if worker.over:
            return
        if line is None:
            worker.over = True
            why = None if worker.result is not None else worker.lost.why
            self._watch.over(worker.number, worker.link.where.get("device"), why)
            if self._begun and why is not None and not self._signals.requested():
                self._say_lost(worker.lost)
            if worker.model and not worker.ready and (worker.error or worker.loaded is None) and self._failed is None:
                self._failed = worker
                self.kill()  # the others would be measured without it
            return
        content: Any
        try:
            ((name, content),) = json.loads(line).items()
        except ValueError:
            return  # half a line, of a worker that was killed
        if name == "gpu":  # not said by the worker, which may stand still
            self._watch.read(worker.number, content)
            return
        if again := worker.hearing.heard():
            self._say(f"{worker.name} {again}")
        match name:
            case "say":
                if content not in self._said:  # each says the same
                    self._say(content, f"{worker.name}: ")
            case "loaded":
                worker.loaded = LOADED.validate_python(content)
            case "tick":
                worker.phase, worker.elapsed_ns, submitted, worker.completed = content
                if worker.on_tick is not None and worker.phase is not None:
                    worker.on_tick(worker.phase, worker.elapsed_ns, submitted, worker.completed)
            case "ready":
                worker.pids = tuple(content)
            case "facts":
                self._watch.hear(worker.number, worker.link.where.get("device"), content)
            case "error":
                worker.error = str(content)
            case "result":
                with suppress(ValueError):
                    worker.result = RunResult.model_validate(content)

    def _say(self, sentence: str, whose: str = "") -> None:
        self._said.add(sentence)
        self._talks.say(whose + sentence)

    def _say_lost(self, lost: LostWorker) -> None:
        sentence = f"{self._workers[lost.worker].name} is lost: {lost.why}"
        if sentence not in self._said:
            self._say(sentence)

    def kill(self) -> None:
        """End all workers that have not ended."""
        for worker in self._workers:
            worker.link.kill()

    def close(self) -> None:
        """End all workers, and forget them."""
        self.kill()
        if self.kill in self._signals.last_acts:
            self._signals.last_acts.remove(self.kill)
        for worker in self._workers:
            worker.link.close()

    def result(self) -> RunResult:
        """What all have measured. Raises the error of the first worker, where none measured anything."""
        from loadtrt.stats.merging import merge

        results = {worker.number: worker.result for worker in self._workers if worker.result is not None}
        lost = [worker.lost for worker in self._workers if worker.result is None]
        interrupted = self._signals.requested() and not any(worker.error for worker in self._workers)
        served = any(model.ok for result in results.values() for model in result.models.values())
        if interrupted and lost and not served:
            raise KeyboardInterrupt
        if not results or self._failed is not None:
            first = self._failed or self._workers[0]
            error = UsageError if first.link.code == UsageError.exit_code else EngineError
            if first.model:
                raise error(f"{first.model}: {first.error or first.lost.why}")
            none = f"none of {plural(len(lost), 'worker')} left a result" if len(lost) > 1 else "there is no result"
            raise error(first.error or f"{none}: {first.name}: {first.lost.why}")
        for item in lost:
            self._say_lost(item)
        if self._models:
            return self._apart(interrupted)
        merged = merge({f"worker {number}": self._placed(result) for number, result in results.items()}, lost)
        outcome = "interrupted" if interrupted else merged.outcome  # which may have ended workers that had not begun
        return merged.model_copy(update={"run": self._watch.run, "config": self._config, "outcome": outcome})

    def _apart(self, interrupted: bool) -> RunResult:
        """The result of models that have a worker each."""
        from loadtrt.runs.apart import result_apart

        own = {pid for worker in self._workers for pid in worker.pids or ()} | {os.getpid(), *namespace_pids(_PROC)}
        for worker in self._workers:
            worker.result = worker.result and without_blame(worker.result, own)
        result = result_apart(self._config, self._workers, own)
        outcome = "interrupted" if interrupted else result.outcome
        return result.model_copy(update={"run": self._watch.run, "outcome": outcome})

    def _placed(self, result: RunResult) -> RunResult:
        """A worker's result with where it ran, and without blame for the workers beside it. Files have their names of
        here."""
        worker = self._workers[int(result.worker)]
        environment = {**result.environment, **worker.link.where, **worker.clocks}
        here = {
            name: model.model_copy(update={key: getattr(self._config.models[name], key) for key in _FILES})
            for name, model in result.config.models.items()
        }
        config = result.config.model_copy(update={"models": here})
        result = result.model_copy(update={"environment": environment, "config": config})
        beside = [other for other in self._workers if other.link.host == worker.link.host]
        own = {pid for other in beside for pid in other.pids or ()}
        return without_blame(result, own)


def _part_of(config: RunConfig, number: int, workers: int) -> RunConfig:
    """The configuration of a worker, which writes and shows nothing."""
    worker: str | None = f"{number}/{workers}"
    if config.model_processes:
        config, worker = config.alone(list(config.models)[number]), None
    left_out = (
        *("devices", "processes", "model_processes", "ray", "workers", "gpus_per_worker", "cpus_per_worker"),
        *("json_file", "junit", "github", "live"),
        *("metrics", "metrics_linger", "metrics_native", "push"),
    )
    changes: dict[str, Any] = {name: type(config).model_fields[name].default for name in left_out}
    return config.model_copy(update={**changes, "live": False, "quiet": True, "worker": worker})
