"""Makes runs: opens an engine, keeps it open while only the load changes, and measures on it."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Self, cast

import anyio

from loadtrt.asked.reading import keys_of
from loadtrt.engines.engine import Submits
from loadtrt.engines.open import open_engine
from loadtrt.environment import busy_host, core_times, environment
from loadtrt.errors import EngineError, LoadtrtError, shortage_of
from loadtrt.lanes.input_sets import inputs_for
from loadtrt.lanes.scheduler import Stop
from loadtrt.lanes.session import Session, run_session
from loadtrt.printing import command_line
from loadtrt.records.records import FAILED, OK
from loadtrt.runs.narrowed import Narrowed, Part
from loadtrt.runs.room import require_files, require_host_room
from loadtrt.runs.watched import Silence, Watched
from loadtrt.signals import Signals
from loadtrt.units import MILLISECOND_NS, SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from loadtrt.asked.config import RunConfig
    from loadtrt.asked.model import Model
    from loadtrt.engines.engine import Engine
    from loadtrt.engines.reference import Reference
    from loadtrt.lanes.session import OnTick
    from loadtrt.live.observer import Point
    from loadtrt.load.inputs import InputSets
    from loadtrt.results.capacity_result import CapacityResult, SweepResult
    from loadtrt.results.engine_info import MemoryBill
    from loadtrt.results.precisions import Deviation
    from loadtrt.results.run_result import RunResult
    from loadtrt.runs.watched import Talks

# The seed is not among them: it draws the inputs once, and then arrivals.
_OF_ENGINE = keys_of("Engine", "Lanes", "Requests") - {"seed", "verify"}
_WARM_NS = 200 * MILLISECOND_NS  # warm-up of an engine that ran a moment ago, whose GPU has not lowered its clocks
_numbers = count(1)  # of this process' runs: a program may make several in the same second, or at once
_EMPTY_PATIENCE_NS, _CLOSE_PATIENCE_S = 10 * SECOND_NS, 10.0


@dataclass(slots=True)
class Opened:
    """An engine that is open for one model.

    options: those that it was opened and is allocated with.
    inputs: those of all parts.
    reference: what outputs are compared with; deviation: what came of it, once a run has compared them.
    load_ns, allocate_ns: duration of loading and of allocating; None while no lanes are allocated.
    ways: how each part's earlier runs submitted, and the rates by which that was chosen: the best way depends on how
        many lanes there are.
    hangs: whether requests of the last run may still be in flight.
    broken: whether the last run failed or left the engine hanging, so that it is not used again.
    """

    engine: Engine
    options: dict[str, Any]
    inputs: InputSets
    bill: MemoryBill
    load_ns: int
    reference: Reference | None = None
    deviation: Deviation | None = None
    allocate_ns: int | None = None
    runs: int = 0
    verified: bool = False
    ways: dict[Part | None, tuple[int, Mapping[str, float | None]]] = field(default_factory=dict)
    hangs: bool = False
    broken: bool = False

    def allocate(self) -> None:
        """Make the lanes. Raises EngineError."""
        began = perf_counter_ns()
        self.engine.allocate(self.inputs.sets)
        self.allocate_ns = perf_counter_ns() - began

    def submit_as_before(self, part: Part | None) -> None:
        """As in the part's earlier runs, or in the usual way where there were none."""
        if isinstance(self.engine, Submits) and self.allocate_ns is not None:
            self.engine.use(*self.ways.get(part, (None, {})))

    def keep_way(self, part: Part | None) -> None:
        """For later runs of the part."""
        if isinstance(self.engine, Submits) and self.engine.way is not None:
            self.ways[part] = self.engine.way, self.engine.info.submit_rates


def open_model(model: Model, options: dict[str, Any], talks: Talks, also: Collection[str]) -> Opened:
    """Load an engine, make its inputs and count its memory; no lanes yet. also: as for `open_engine`. Raises
    LoadtrtError."""
    began = perf_counter_ns()
    engine = open_engine(model, talks.say, talks.status, also)
    try:
        inputs = inputs_for(engine, model)
        bill = engine.memory(inputs.sets)
        require_host_room(bill, inputs.sets)
        return Opened(engine, options, inputs, bill, perf_counter_ns() - began)
    except BaseException:
        engine.close()
        raise


class Maker:
    """Opens engines, one at a time, and makes runs on them; use it in a `with`.

    signals: what signals have asked for.
    session: what the last run measured, row by row.
    stop: ends the run that goes on.
    """

    def __init__(
        self,
        talks: Talks | None = None,
        *,
        signals: Signals | None = None,
        many: bool = False,
        leave: Callable[[], None] = lambda: None,
    ) -> None:
        """talks: None to say nothing.

        signals: those of the command line; None: of this maker alone.
        many: several runs follow one another on an engine. It is allocated when it is opened and emptied after each
            run, and there is no live view.
        leave: called where an engine that hangs is not closed after 10 s; the engine is left behind.
        """
        self.talks = talks or Silence()
        self.signals = signals or Signals()
        self.session = Session()
        self.stop = Stop()
        self._many, self._leave = many, leave
        self._opened: Opened | None = None
        self._watched: Watched | None = None

    def __enter__(self) -> Self:
        self.signals.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.close()
        finally:
            self.signals.__exit__()

    @property
    def opened(self) -> Opened:
        """The engine that is open."""
        assert self._opened is not None  # noqa: S101  # open() was called
        return self._opened

    def open(self, config: RunConfig) -> None:
        """Open the engine of this configuration, unless the open one differs in its load only.

        Raises UsageError, EngineError, and KeyboardInterrupt where it is stopped; then no engine is open.
        """
        options = {key: value for key, value in config.options().items() if key in _OF_ENGINE}
        if self._opened is not None and options == self._opened.options and not self._opened.broken:
            return
        self._close_engine()
        require_files()
        try:
            with self.signals.interruptible():
                if self._watched is None:
                    self._watched = Watched(config, self.talks, draws=not self._many)
                self._watched.loading()
                self.talks.status(f"loading {config.model.engine}")
                also = config.given("profile", "export_layer_info", "trt_log")
                self._opened = opened = open_model(config.model, options, self.talks, also)
                opened.reference = self._reference(config.model, opened)
                if self._many:
                    opened.bill.require_room()
                    opened.allocate()
            self.signals.check()  # another thread may have asked
        except BaseException:
            self._close_engine()
            raise

    def _reference(self, model: Model, opened: Opened) -> Reference | None:
        from loadtrt.engines.reference import reference_of

        if model.fp16 or model.verify_against:
            self.talks.status("asking for the answer in FP32")
        return reference_of(model, opened.engine.info, opened.inputs.sets[0])

    def run(
        self,
        config: RunConfig,
        on_tick: OnTick | None = None,
        part: tuple[int, int] | Part | None = None,
        start_at: int | None = None,
        point: Point | None = None,
    ) -> RunResult:
        """Make a run on the engine that is open, and sum it up.

        After an engine's first run warm-up is short, and outputs are not verified again. An exception that is not a
        LoadtrtError becomes the result's failure and `session.fault`. Raises UsageError for arrivals that cannot be
        drawn.

        on_tick: as for `run_session`.
        part: the part of the engine to run on, of a configuration of that size; None: all of it.
        start_at: when to begin to measure, Unix time in ns; all else is done before. None: at once.
        point: the run's place among those of a sweep or a search.
        """
        opened, watched, engine, inputs = self.opened, self._watched, self.opened.engine, self.opened.inputs.sets
        assert watched is not None  # noqa: S101  # open() was called
        changes: dict[str, Any] = {"verify": config.model.verify and not opened.verified and part is None}
        part = part and Part(*part)
        opened.submit_as_before(part)
        if part is not None:
            narrowed = Narrowed(engine, part, inputs)
            engine, inputs = cast("Engine", narrowed), narrowed.input_sets
            changes |= {"contexts": part.contexts, "buffers": part.buffers}
        if opened.runs:
            config = config.model_copy(update={"warmup": min(config.warmup, _WARM_NS)})
        config = config.with_model(**changes)
        self.signals.hold()
        started = datetime.now(UTC)
        name = f"{started:%Y%m%d-%H%M%S}-{os.getpid()}-{next(_numbers)}"
        self.session = session = Session(
            deviation=opened.deviation, origins=opened.inputs.origins, notes=opened.inputs.notes
        )
        engine, on_tick = watched.marked(engine, on_tick, inputs)
        watched.begin(name, config, engine, len(inputs), point)
        watch = watched.watch
        self.stop = stop = Stop()
        same = engine.batches[0] == opened.engine.batches[0]  # else the first input set is another
        reference = opened.reference if same and opened.deviation is None else None

        async def work() -> None:
            opened.hangs = True  # until it is known that it does not
            try:
                await run_session(
                    engine, config, inputs, stop, session, on_tick, watch.clocks.settled, watch.board,
                    allocated=opened.allocate_ns is not None, start_at=start_at, reference=reference,
                )  # fmt: skip
                opened.hangs = not await _emptied(engine, session, _EMPTY_PATIENCE_NS if self._many else 0)
            except Exception as error:
                opened.hangs = session.recorder is not None
                if isinstance(error, LoadtrtError):
                    raise
                session.failure = shortage_of(error)
                if session.failure is None:
                    session.failure = f"a fault in loadtrt itself: {type(error).__name__}: {error}"
                    session.fault = error

        before = core_times()
        anyio.run(self.signals.run, work, stop, self.talks.say)
        opened.runs += 1
        opened.keep_way(part)
        opened.verified |= config.model.verify
        if self._many and session.deviation is not None and opened.deviation is None:
            self.talks.say(f"deviation from {session.deviation.reference or 'FP32'}: {session.deviation.text}")
        opened.deviation = session.deviation
        if opened.allocate_ns is None:
            opened.allocate_ns = session.allocate_ns
        session.allocate_ns = opened.allocate_ns
        opened.broken = opened.hangs or session.failure is not None
        busy = busy_host(before)
        around = watch.clocks.environment() | ({"busy_host": busy} if busy else {})
        telemetry = watched.end(session)
        if self._many:
            watched.finish(push=not self.signals.hurried())
        with self.signals.computing():
            from loadtrt.lanes.outcome import result_of  # what it needs is not loaded before measuring

            return result_of(
                session,
                engine,
                config,
                opened.bill,
                run=name,
                load_ns=opened.load_ns,
                started=started.isoformat(timespec="seconds"),
                command=command_line(),
                environment={**environment(), **around},
                telemetry=telemetry,
                sharing=watch.sharing,
            )

    def linger(self, config: RunConfig, result: RunResult | SweepResult | CapacityResult) -> None:
        """Push metrics, and serve them after the last run, so that its last numbers are scraped; a signal ends it."""
        if self._watched is not None:
            if not self._many:
                self._watched.finish(push=not self.signals.hurried())
            self._watched.linger(config, result.outcome, self.signals.sleep)

    def close(self) -> None:
        """Close the engine and end the observer. Safe to call twice."""
        try:
            self._close_engine()
        finally:
            self.talks.end_line()
            if self._watched is not None:
                self._watched.close()
                self._watched = None

    def _close_engine(self) -> None:
        """Close the engine: one that may wait for its requests for ever in a thread that ends with the process."""
        if self._opened is None:
            return
        opened, self._opened = self._opened, None
        if not opened.hangs:
            opened.engine.close()
            return
        thread = threading.Thread(target=opened.engine.close, daemon=True)
        thread.start()
        thread.join(_CLOSE_PATIENCE_S)
        if thread.is_alive():
            self._leave()


async def _emptied(engine: Engine, session: Session, patience_ns: int) -> bool:
    """Whether nothing is in flight: the next run would take what the engine completes for its own requests."""
    recorder = session.recorder
    if recorder is None or session.failure is not None:
        return recorder is None and session.failure is None
    left = recorder.submitted - int(recorder.by_status[OK] + recorder.by_status[FAILED])
    give_up_ns = engine.now_ns() + patience_ns
    while left > 0 and engine.now_ns() < give_up_ns:
        try:
            left -= len(await engine.wait(give_up_ns))
        except EngineError:
            return False
    return left <= 0
