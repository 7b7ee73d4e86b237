"""Makes runs: opens an engine, keeps it open while only the load changes, and measures on it."""

from __future__ import annotations

import os
import threading
import time
from datetime import UTC, datetime
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Self, cast

import anyio

from loadtrt.asked.faults import naming_model
from loadtrt.asked.reading import keys_of
from loadtrt.engines.placed_together import place_together, require_tensorrt, require_together
from loadtrt.environment import busy_host, core_times, environment
from loadtrt.errors import LoadtrtError, UsageError
from loadtrt.lanes.model_run import ModelRun, Session, tickers
from loadtrt.lanes.scheduler import Stop
from loadtrt.lanes.session import run_models
from loadtrt.printing import command_line
from loadtrt.runs.narrowed import Narrowed, Part
from loadtrt.runs.opened import Opened, emptied, open_model
from loadtrt.runs.room import require_device_room, require_files, require_host_room
from loadtrt.runs.watched import Silence, Watched
from loadtrt.signals import Signals
from loadtrt.units import MILLISECOND_NS, SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtrt.asked.config import RunConfig
    from loadtrt.asked.model import Model
    from loadtrt.engines.engine import Engine
    from loadtrt.engines.reference import Reference
    from loadtrt.lanes.model_run import OnTick
    from loadtrt.lanes.start_instant import StartAt
    from loadtrt.live.observer import Point
    from loadtrt.results.capacity_result import CapacityResult, SweepResult
    from loadtrt.results.run_result import RunResult
    from loadtrt.runs.shown import Followers
    from loadtrt.runs.watched import Talks

# The seed is not among them: it draws the inputs once, and then arrivals.
_OF_ENGINE = keys_of("Engine", "Lanes", "Requests") - {"seed", "verify"}
_WARM_NS = 200 * MILLISECOND_NS  # warm-up of an engine that ran a moment ago, whose GPU has not lowered its clocks
_numbers = count(1)  # of this process' runs: a program may make several in the same second, or at once
_EMPTY_PATIENCE_NS, _CLOSE_PATIENCE_S = 10 * SECOND_NS, 10.0


def run_name(started: datetime) -> str:
    """What to call a run that is started now."""
    return f"{started:%Y%m%d-%H%M%S}-{os.getpid()}-{next(_numbers)}"


class Maker:
    """Opens engines, one for each model of a run, and makes runs on them; use it in a `with`.

    signals: what signals have asked for.
    models: the engines that are open, by the names of their models.
    sessions: what the last run measured of each model, row by row.
    stop: ends the run that goes on.
    watched: who watches its runs; None before engines were opened.
    routing: descriptors of the memory by which workers route requests, of each model.
    """

    def __init__(
        self,
        talks: Talks | None = None,
        *,
        signals: Signals | None = None,
        many: bool = False,
        leave: Callable[[], None] = lambda: None,
        followers: Followers | None = None,
        beside: Maker | None = None,
    ) -> None:
        """talks: None to say nothing.

        signals: those of the command line; None: of this maker alone.
        many: several runs follow one another on an engine. It is allocated when it is opened and emptied after each
            run, and there is no live view.
        leave: called where an engine that hangs is not closed after 10 s; the engine is left behind.
        followers: as for `Watched`.
        beside: a maker whose observer shows the runs of this one, too; it is closed after this one.
        """
        self.talks = talks or Silence()
        self.signals = signals or Signals()
        self.models: dict[str, Opened] = {}
        self.sessions: dict[str, Session] = {"": Session()}
        self.stop = Stop()
        self.routing: dict[str, int] = {}
        self._said = set[tuple[str, str]]()
        self._many, self._leave, self._followers, self._beside = many, leave, followers, beside
        self.watched: Watched | None = None

    def __enter__(self) -> Self:
        self.signals.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.close()
        finally:
            self.signals.__exit__()

    @property
    def session(self) -> Session:
        """What the last run measured, of a run of one model."""
        (session,) = self.sessions.values()
        return session

    @property
    def fault(self) -> Exception | None:
        """The exception of the last run that nobody expected."""
        return next((session.fault for session in self.sessions.values() if session.fault is not None), None)

    def open(self, config: RunConfig) -> None:
        """Open the engines of this configuration, unless the open ones differ in their loads only.

        Raises UsageError, EngineError, and KeyboardInterrupt where it is stopped; then no engine is open.
        """
        options = {
            name: {key: value for key, value in config.alone(name).options().items() if key in _OF_ENGINE}
            for name in config.models
        }
        broken = any(opened.broken for opened in self.models.values())
        if options == {name: opened.options for name, opened in self.models.items()} and not broken:
            return
        if config.several_processes:
            raise UsageError(
                "--devices and --processes are options of 'loadtrt run', 'sweep' and 'capacity': leave them out; "
                "--device takes the number of one GPU"
            )
        self.close_engines()
        require_files()
        try:
            with self.signals.interruptible():
                if self.watched is None and self._beside is not None:
                    self.watched = self._beside.watched
                if self.watched is None:
                    self.watched = Watched(config, self.talks, draws=not self._many, followers=self._followers)
                self.watched.loading()
                alone = len(config.models) == 1
                also = config.given("profile", "export_layer_info", *(["trt_log"] if alone else ()))
                for name, model in config.models.items():
                    self.talks.status(f"loading {model.engine}", slow=True)
                    others = {other: (config.models[other], opened.engine) for other, opened in self.models.items()}
                    require_together(name, model, others)
                    with naming_model(config.models, name):
                        self.models[name] = open_model(config.drawing(model), options[name], self.talks, also)
                place_together({name: opened.engine for name, opened in self.models.items()})
                if config.trt_log and not alone:
                    require_tensorrt("--trt-log", [opened.engine for opened in self.models.values()])
                for opened in self.models.values() if len(self.models) > 1 else ():
                    opened.bill = opened.engine.memory(opened.inputs.sets)  # beside the weights of the others
                require_host_room(self.models)
                for name, opened in self.models.items():
                    opened.reference = self._reference(config.models[name], opened)
                if self._many:
                    self.require_room()
                    for opened in self.models.values():
                        opened.allocate()
            self.signals.check()  # another thread may have asked
            self.talks.end_line()
        except BaseException:
            self.close_engines()
            raise

    def require_room(self, remedy: str = "") -> None:
        """Raise EngineError where the lanes do not fit on the device. remedy: what to do, after the sentence."""
        require_device_room(self.models, remedy)

    def _reference(self, model: Model, opened: Opened) -> Reference | None:
        from loadtrt.engines.reference import reference_of

        if model.fp16 or model.verify_against:
            self.talks.status("computing the outputs in FP32", slow=True)
        return reference_of(model, opened.engine.info, opened.inputs.sets[0])

    def run(
        self,
        config: RunConfig,
        on_tick: OnTick | None = None,
        part: tuple[int, int] | Part | None = None,
        start_at: StartAt | None = None,
        point: Point | None = None,
    ) -> RunResult:
        """Make a run on the engines that are open, or on some of them, and sum it up.

        After an engine's first run warm-up is short, and outputs are verified once beside the same others. An exception
        that is not a LoadtrtError becomes the result's failure and its session's `fault`. Raises UsageError for
        arrivals that cannot be drawn.

        on_tick: as for `ModelRun`, of all models together.
        part: the part of the engine to run on, of a configuration of that size; None: all of it. Of several models,
            the first one's.
        start_at: as for `run_models`.
        point: the run's place among those of a sweep or a search.
        """
        watched, part = self.watched, part and Part(*part)
        assert watched is not None  # noqa: S101  # open() was called
        used = {name: self.models[name] for name in config.models}
        if all(opened.runs for opened in used.values()):
            config = config.model_copy(update={"warmup": min(config.warmup, _WARM_NS)})
        runs = {name: self._model_run(config, name, None if place else part) for place, name in enumerate(used)}
        config = config.model_copy(update={"models": {name: run.model for name, run in runs.items()}})
        self.sessions = {name: run.session for name, run in runs.items()}
        self.signals.hold()
        started = datetime.now(UTC)
        name = run_name(started)
        for run, ticker in zip(runs.values(), tickers(watched.ticking(on_tick), len(runs)), strict=True):
            run.engine, run.on_tick = watched.marked(run.engine, run.inputs), ticker
        watched.begin(name, config, runs, point)
        self.stop = Stop()
        before = core_times()
        work = partial(self._work, config, runs, start_at)
        anyio.run(self.signals.run, work, self.stop, self.talks.say)
        for place, (name_of, opened) in enumerate(used.items()):
            self._keep(opened, runs[name_of], None if place else part, frozenset(runs))
        virtual = any(run.engine.info.virtual_time for run in runs.values())
        busy = None if virtual else busy_host(before)  # others on the cores take nothing from a virtual clock
        watch = watched.watch
        around = watch.clocks.environment() | ({"busy_host": busy} if busy else {})
        telemetry = watched.end(self.sessions)
        if self._many:
            watched.finish(push=not self.signals.hurried())
        with self.signals.computing():
            from loadtrt.lanes.joined import result_of_models  # what it needs is not loaded before measuring

            return result_of_models(
                list(runs.values()),
                config,
                {name_of: opened.bill for name_of, opened in used.items()},
                run=name,
                load_ns=sum(opened.load_ns for opened in used.values()),
                started=started.isoformat(timespec="seconds"),
                command=command_line(),
                environment={**environment(), **around},
                telemetry=telemetry,
                sharing=watch.sharing,
            )

    def _model_run(self, config: RunConfig, name: str, part: Part | None) -> ModelRun:
        """What is to be measured of a model, on all of its engine or on a part."""
        model, opened = config.models[name], self.models[name]
        engine, inputs = opened.engine, opened.inputs.sets
        verify = model.verify and frozenset(config.models) not in opened.verified and part is None
        changes: dict[str, Any] = {"verify": verify}
        opened.submit_as_before(part)
        if part is not None:
            narrowed = Narrowed(engine, part, inputs)
            engine, inputs = cast("Engine", narrowed), narrowed.input_sets
            changes |= {"contexts": part.contexts, "buffers": part.buffers}
        session = Session(deviation=opened.deviation, origins=opened.inputs.origins, notes=opened.inputs.notes)
        same = engine.batches[0] == opened.engine.batches[0]  # else the first input set is another
        return ModelRun(
            engine,
            model.model_copy(update=changes),
            inputs,
            session,
            name,
            allocated=opened.allocate_ns is not None,
            reference=opened.reference if same and opened.deviation is None else None,
            routing=self.routing.get(name),
        )

    async def _work(self, config: RunConfig, runs: dict[str, ModelRun], start_at: StartAt | None) -> None:
        """Make the run in an event loop, and learn which engines hang."""
        used = [(run, self.models[name]) for name, run in runs.items()]
        for _, opened in used:
            opened.hangs = True  # until it is known that it does not
        assert self.watched is not None  # noqa: S101  # open() was called
        settled = self.watched.watch.clocks.settled
        try:
            await run_models(list(runs.values()), config, self.stop, settled, start_at=start_at)
            for run, opened in used:
                opened.hangs = not await emptied(run.engine, run.session, _EMPTY_PATIENCE_NS if self._many else 0)
        except Exception as error:
            for run, opened in used:
                opened.hangs = run.session.recorder is not None
                if not isinstance(error, LoadtrtError):
                    run.session.fail(error)
            if isinstance(error, LoadtrtError):
                raise

    def _keep(self, opened: Opened, run: ModelRun, part: Part | None, models: frozenset[str]) -> None:
        """What a run has shown of an engine, for later runs. models: of the run."""
        session = run.session
        opened.runs += 1
        opened.keep_way(part)
        opened.verified |= {models} if run.model.verify else set()
        if self._many and session.deviation is not None and opened.deviation is None:
            deviation = f"deviation from {session.deviation.reference or 'FP32'}: {session.deviation.text}"
            if (run.name, deviation) not in self._said:  # an engine that is opened again is compared again
                self.talks.say(f"{run.name}: {deviation}")
            self._said.add((run.name, deviation))
        opened.deviation = session.deviation
        first_ns = session.allocate_ns if opened.allocate_ns is None else opened.allocate_ns
        opened.allocate_ns = session.allocate_ns = first_ns
        opened.broken = opened.hangs or session.failure is not None

    def linger(self, config: RunConfig, result: RunResult | SweepResult | CapacityResult) -> None:
        """Push metrics, and serve them after the last run, so that its last numbers are scraped; a signal ends it."""
        if self.watched is not None:
            if not self._many:
                self.watched.finish(push=not self.signals.hurried())
            self.watched.linger(config, result.outcome, self.signals.sleep)

    def close(self) -> None:
        """Close the engines and end the observer. Safe to call twice."""
        try:
            self.close_engines()
        finally:
            self.talks.end_line()
            if self.watched is not None and self._beside is None:
                self.watched.close()
            self.watched = None

    def close_engines(self) -> None:
        """Close the engines: one that may wait for its requests for ever in a thread that ends with the process."""
        models, self.models = list(self.models.values()), {}
        if not any(opened.hangs for opened in models):
            for opened in models:
                opened.engine.close()
            return
        # Another engine of a device that hangs may hang as well.
        threads = [threading.Thread(target=opened.engine.close, daemon=True) for opened in models]
        for thread in threads:
            thread.start()
        until = time.monotonic() + _CLOSE_PATIENCE_S
        for thread in threads:
            thread.join(max(until - time.monotonic(), 0))
        if any(thread.is_alive() for thread in threads):
            self._leave()
