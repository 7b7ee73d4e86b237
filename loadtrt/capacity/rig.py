"""Makes many runs in one process: an engine stays open, and its lanes allocated, while the load alone changes."""

from __future__ import annotations

import os
import signal
import sys
from datetime import UTC, datetime
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Protocol, Self, cast

import anyio

from loadtrt.asked.reading import OUTPUT_KEYS, keys_of
from loadtrt.engines.open import open_engine
from loadtrt.errors import EngineError, LoadtrtError, UsageError
from loadtrt.lanes.outcome import result_of
from loadtrt.lanes.scheduler import Stop
from loadtrt.lanes.session import Session, inputs_for, run_session
from loadtrt.lanes.stopping import until_stopped
from loadtrt.records.records import FAILED, OK
from loadtrt.results.sweep_result import trimmed
from loadtrt.units import MILLISECOND_NS, SECOND_NS, format_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import FrameType

    from loadtrt.asked.config import RunConfig
    from loadtrt.engines.engine import Engine
    from loadtrt.lanes.session import OnTick, Phase
    from loadtrt.live.observer import Watch
    from loadtrt.load.tensors import Arrays
    from loadtrt.results.engine_info import EngineInfo, MemoryBill
    from loadtrt.results.gpu_telemetry import GpuTelemetry
    from loadtrt.results.run_result import RunResult

# The seed is not among them: it draws the inputs once, and then arrivals.
_OF_ENGINE = keys_of("Engine", "Lanes", "Requests") - {"seed", "verify"}
# Of an environment: what makes another machine of it. A container has a new host name each day.
MACHINE = ("cpu", "cores")
_WARM_NS = 200 * MILLISECOND_NS  # an engine that ran a moment ago, whose GPU has not lowered its clocks
_PATIENCE_NS = 10 * SECOND_NS
_MOST_ASKED = 3  # Ctrl-C's between runs, before one ends the process after all


class Talks(Protocol):
    """Somewhere to say what goes on: a line of its own, or one that the next replaces."""

    def say(self, sentence: str) -> None: ...

    def status(self, line: str) -> None: ...


def engine_options(config: RunConfig) -> dict[str, Any]:
    """The options that an engine is opened and allocated with; the load and the seed of its draws may change."""
    return {key: value for key, value in config.options().items() if key in _OF_ENGINE}


def changed(before: dict[str, Any], now: dict[str, Any]) -> str | None:
    """The first difference between two configurations in what is measured, in words; None where there is none."""
    for key in {**before, **now}:
        if key not in OUTPUT_KEYS and before.get(key) != now.get(key):
            return f"{key} was {_said(before.get(key))}, and is {_said(now.get(key))}"
    return None


def _said(value: object) -> object:
    """As a person would write it."""
    if isinstance(value, list | tuple):
        return ", ".join(map(str, map(_said, value))) or "none"
    return "none" if value is None else value


def require_same(before: Iterable[EngineInfo], now: EngineInfo) -> None:
    """Raises UsageError where the runs that an unfinished result holds were of another engine than is open now: its
    plan was built anew, or this is another GPU. An engine made of a model is another one for each batch."""
    for then in before:
        for what in ("name", "device", "flavour", "version", *(("sha256",) if then.batch == now.batch else ())):
            was, is_ = getattr(then, what), getattr(now, what)
            if was != is_:
                raise UsageError(
                    f"the runs in the file were of an engine whose {what} was {was}, and is {is_}; name another file"
                )


class Rig:
    """Opens engines, one at a time, and makes runs on them. Use it in a `with`.

    stopped: by Ctrl-C or SIGTERM. They end the run that goes on gracefully, the second one at once; while an engine is
    opened they are a KeyboardInterrupt, for that may take minutes; at any other time what is being summed up or written
    comes to its end first. talks: who is told; closes: closes an engine, one that hangs without waiting for ever."""

    def __init__(self, talks: Talks, closes: Callable[[Engine, bool], None]) -> None:
        self.stopped = False
        self._talks, self._closes = talks, closes
        self._engine: Engine | None = None
        self._options: dict[str, Any] = {}
        self._inputs: Sequence[Arrays] = ()
        self._bill: MemoryBill | None = None
        self._load_ns = self._allocate_ns = self._runs = self._all_runs = self._asked = 0
        self._opening = False
        self._handlers: dict[signal.Signals, Any] = {}
        self._hangs = self._in_doubt = self._verified = self._makes_sense = False
        self._watch: Watch | None = None
        self._watched = False

    def __enter__(self) -> Self:
        self._handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.close()
            if self._watch is not None:
                self._watch.close()
        finally:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)

    def open(self, config: RunConfig) -> None:
        """Have the engine of this configuration open: the one that is, where it differs in its load alone. Raises
        UsageError, EngineError and KeyboardInterrupt; no engine is open then."""
        options = engine_options(config)
        if self._engine is not None and options == self._options and not self._in_doubt:
            return
        self.close()
        if self.stopped:
            raise KeyboardInterrupt
        self._talks.status(f"loading {config.model.engine}")
        began = perf_counter_ns()
        self._opening = True
        try:
            self._engine = engine = open_engine(config.model, self._talks.say, self._talks.status)
            self._inputs = inputs_for(engine, config.model)
            self._bill = engine.memory(self._inputs)
            self._bill.require_room()
            self._load_ns = perf_counter_ns() - began
            engine.allocate(self._inputs)
            self._allocate_ns = perf_counter_ns() - began - self._load_ns
            self._watch_gpu(engine.info.kind, config)
        except BaseException:
            self.close()
            raise
        finally:
            self._opening = False
        self._options, self._runs, self._verified = options, 0, False

    def try_open(self, config: RunConfig, others: Sequence[RunConfig]) -> str | None:
        """The same; returns the sentence of why it is not to be had, None where it is. Raises UsageError for what is
        wrong with `others` all the same, and so is no matter of these settings: a file that is missing, say."""
        try:
            self.open(config)
        except EngineError as error:
            return str(error)
        except UsageError as error:
            if not self._makes_sense and all(self._refuses(other, error) for other in others):
                raise
            self._makes_sense = True
            return str(error)
        self._makes_sense = True
        return None

    def run(self, config: RunConfig, what: str, part: tuple[int, int] | None = None) -> RunResult:
        """One run on the engine that is open, trimmed. what: in words. part: on so many lanes and buffer sets alone.

        After an engine's first run warm-up is short, and there is no verification. An engine that failed, or did not
        answer, is not used again: `open` makes another."""
        assert self._engine is not None  # noqa: S101  # open() was called
        assert self._bill is not None  # noqa: S101
        engine = self._engine
        changes: dict[str, Any] = {"verify": config.model.verify and not self._verified and part is None}
        if part is not None:
            engine = cast("Engine", _Narrowed(self._engine, *part))
            changes |= {"contexts": part[0], "buffers": part[1]}
        if self._runs:
            config = config.model_copy(update={"warmup": min(config.warmup, _WARM_NS)})
        config = config.with_model(**changes)
        session, started = Session(), datetime.now(UTC)
        if self._watch is not None:
            self._watch.begin()
        anyio.run(self._drive, engine, config, session, what)
        self._runs += 1
        self._all_runs += 1
        self._verified |= config.model.verify
        session.allocate_ns = self._allocate_ns
        result = result_of(
            session,
            engine,
            config,
            self._bill,
            run=f"{started:%Y%m%d-%H%M%S}-{os.getpid()}-{self._all_runs}",
            load_ns=self._load_ns,
            started=started.isoformat(timespec="seconds"),
            command=sys.argv,
            environment={} if self._watch is None else self._watch.clocks.environment(),
            telemetry=self._telemetry(session),
        )
        self._in_doubt = self._hangs or session.failure is not None
        return trimmed(result)

    @property
    def engine(self) -> EngineInfo:
        """What is open."""
        assert self._engine is not None  # noqa: S101  # open() was called
        return self._engine.info

    def close(self) -> None:
        """Close the engine that is open, if there is one."""
        if self._engine is not None:
            engine, self._engine = self._engine, None
            hangs, self._hangs, self._in_doubt = self._hangs, False, False
            self._closes(engine, hangs)

    def _listen(self) -> None:
        for number in self._handlers:
            signal.signal(number, self._ask)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self.stopped = True
        self._asked += 1
        if self._opening or self._asked > _MOST_ASKED:
            raise KeyboardInterrupt

    def _refuses(self, config: RunConfig, wrong: UsageError) -> bool:
        try:
            self.open(config)
        except LoadtrtError as error:
            return str(error) == str(wrong)
        return False

    async def _drive(self, engine: Engine, config: RunConfig, session: Session, what: str) -> None:
        """The session, and what a Ctrl-C does to it."""
        stop = Stop()
        told, settled = self._ticking(what, config), self._watch.clocks.settled if self._watch is not None else None

        async def run() -> None:
            stop.requested |= self.stopped  # a moment ago
            self._hangs = True  # until it is known that it does not
            try:
                await run_session(engine, config, self._inputs, stop, session, told, settled, allocated=True)
                self._hangs = not await _emptied(engine, session)
            except Exception:
                self._hangs = session.recorder is not None
                raise

        try:
            await until_stopped(run, stop, self._talks.say)
        finally:
            self.stopped |= stop.requested
            self._listen()  # what was there before all was put back

    def _ticking(self, what: str, config: RunConfig) -> OnTick:
        def tick(phase: Phase, elapsed_ns: int, submitted: int, completed: int) -> None:  # noqa: ARG001  (OnTick)
            words = [f"{what}: {phase}"]
            words += [format_duration(elapsed_ns)] if elapsed_ns else []
            words += [f"of {format_duration(config.least_ns(config.model))}"] if phase == "measure" else []
            self._talks.status(" ".join(words))

        return tick

    def _telemetry(self, session: Session) -> GpuTelemetry | None:
        """What the GPU did while this run measured."""
        recorder, driven = session.recorder, session.driven
        if self._watch is None or recorder is None or driven is None:
            return None
        return self._watch.end(recorder.start_ns, driven.end_ns, recorder.inferences)

    def _watch_gpu(self, kind: str, config: RunConfig) -> None:
        """Once, for the first engine on a GPU: all others have the same one."""
        if self._watched or kind != "tensorrt":
            return
        from loadtrt.cuda.runtime import device_properties
        from loadtrt.live.observer import Watch, Wishes

        self._watched = True
        bus_id = device_properties(config.model.device).pci_bus_id
        self._watch = Watch(Wishes() if config.telemetry else None, self._talks.say)
        self._watch.open(bus_id, telemetry=config.telemetry)


class _Narrowed:
    """The first `contexts` lanes of an engine that is open, for at most `buffers` requests in flight on each: a closed
    loop with few in flight. All else is the whole engine's."""

    def __init__(self, whole: Engine, contexts: int, buffers: int) -> None:
        self._whole = whole
        self.contexts, self.buffers = contexts, buffers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)


async def _emptied(engine: Engine, session: Session) -> bool:
    """Whether the engine has nothing in flight: the next run would take what it answers for its own requests."""
    recorder = session.recorder
    if recorder is None or session.failure is not None:
        return recorder is None and session.failure is None
    left = recorder.submitted - int(recorder.by_status[OK] + recorder.by_status[FAILED])
    patience = engine.now_ns() + _PATIENCE_NS
    while left > 0 and engine.now_ns() < patience:
        try:
            left -= len(await engine.wait(patience))
        except EngineError:
            return False
    return left <= 0
