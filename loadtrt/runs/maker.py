"""The one maker of runs: opens an engine, measures with it, and sums up, for every command and for `loadtrt.run`."""

from __future__ import annotations

import os
import signal
import sys
import threading
from datetime import UTC, datetime
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Protocol

import anyio

from loadtrt.asked.reading import keys_of
from loadtrt.engines.open import open_engine
from loadtrt.errors import EngineError, LoadtrtError
from loadtrt.lanes.scheduler import Stop
from loadtrt.lanes.session import Session, inputs_for, run_session
from loadtrt.records.records import FAILED, OK, UNSERVED
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from anyio.abc import TaskStatus

    from loadtrt.asked.config import RunConfig
    from loadtrt.engines.engine import Engine
    from loadtrt.lanes.session import OnTick, Phase
    from loadtrt.live.observer import Watch
    from loadtrt.load.tensors import Arrays
    from loadtrt.records.board import Board
    from loadtrt.results.engine_info import EngineInfo, MemoryBill
    from loadtrt.results.gpu_telemetry import GpuTelemetry
    from loadtrt.results.run_result import RunResult

# The seed is not among them: it draws the inputs once, and then arrivals.
_OF_ENGINE = keys_of("Engine", "Lanes", "Requests") - {"seed", "verify"}
_PATIENCE_NS = 10 * SECOND_NS
_CLOSE_PATIENCE_S = 10.0


class Talks(Protocol):
    """Somewhere to write what goes on: a line of its own, or one that the next replaces."""

    def say(self, sentence: str) -> None: ...

    def status(self, line: str) -> None: ...


class Silence:
    """Writes nothing."""

    def say(self, sentence: str) -> None:
        pass

    def status(self, line: str) -> None:
        pass


class Maker:
    """Opens engines, one at a time, and makes runs on them. An engine stays open while the load alone changes.

    watch: the owner of the observer and of the GPU's clocks; None without.
    stop: of the run that goes on, or went on last. `stop.requested` may be set from any thread.
    """

    def __init__(
        self,
        talks: Talks,
        watch: Watch | None = None,
        before_exit: Callable[[], None] = lambda: None,
        *,
        run: str = "",
        many: bool = False,
    ) -> None:
        """run: an id of the run that no other has; "" to make one for each.
        before_exit: called before the process ends because a device hangs.
        many: after a run, wait for what is still in flight, so that the engine can make another run."""
        self._many, self._name = many, run
        self.watch = watch
        self.stop = Stop()
        self._talks, self._before_exit = talks, before_exit
        self._engine: Engine | None = None
        self._options: dict[str, Any] = {}
        self._allocated = self._hangs = self._doubtful = False
        self._runs = self._all_runs = 0
        self._load_ns = self._allocate_ns = 0
        self._started = datetime.now(UTC)
        self._bill: MemoryBill | None = None
        self.inputs: Sequence[Arrays] = ()

    def open(self, config: RunConfig, also: Collection[str] = (), *, allocate: bool = True) -> bool:
        """Have the engine of this configuration open. Returns whether it was opened now, rather than kept open.

        also: options of the run that depend on the kind of engine, by key.
        allocate: allocate the lanes now; else the first run does, and its result has the failure.

        Raises UsageError, EngineError and KeyboardInterrupt; no engine is open then.
        """
        if self.keeps(config):
            return False
        self.close()
        self._talks.status(f"loading {config.model.engine}")
        began = perf_counter_ns()
        try:
            self._engine = engine = open_engine(config.model, self._talks.say, self._talks.status, also)
            self.inputs = inputs_for(engine, config.model)
            self._bill = bill = engine.memory(self.inputs)
            self._load_ns = perf_counter_ns() - began
            if allocate:
                bill.require_room()
                engine.allocate(self.inputs)
                self._allocate_ns = perf_counter_ns() - began - self._load_ns
        except BaseException:
            self.close()
            raise
        self._options, self._runs, self._allocated = _engine_options(config), 0, allocate
        return True

    def keeps(self, config: RunConfig) -> bool:
        """Whether the engine that is open is that of this configuration, and can make another run."""
        return self._engine is not None and _engine_options(config) == self._options and not self._doubtful

    @property
    def engine(self) -> Engine:
        """The engine that is open."""
        assert self._engine is not None  # noqa: S101  # open() was called
        return self._engine

    @property
    def info(self) -> EngineInfo:
        """What is open."""
        return self.engine.info

    @property
    def bill(self) -> MemoryBill:
        """The memory that the engine takes with its lanes."""
        assert self._bill is not None  # noqa: S101  # open() was called
        return self._bill

    def measure(
        self,
        config: RunConfig,
        on_tick: OnTick | None = None,
        engine: Engine | None = None,
        stop: Stop | None = None,
        start_at: int | None = None,
    ) -> Session:
        """Verify, warm up and measure on the engine that is open. The session has what was measured, whatever ended it.

        on_tick: see `run_session`.
        engine: the lanes to use, where these are not all.
        stop: ends the run early; `self.stop` from then on.
        start_at: when to begin to measure, Unix time in ns; None: at once.

        Raises UsageError for a load that cannot be drawn.
        """
        engine = engine or self.engine
        session = Session()
        self._started = datetime.now(UTC)
        board = settled = None
        if self.watch is not None:
            self.watch.begin()
            board, settled = self.watch.board, self.watch.clocks.settled
        self.stop = stop or Stop()
        on_tick = _with_board(on_tick, board)

        async def run() -> None:
            self._hangs = True  # until it is known that it does not
            try:
                await run_session(
                    engine,
                    config,
                    self.inputs,
                    self.stop,
                    session,
                    on_tick,
                    settled,
                    board,
                    allocated=self._allocated,
                    start_at=start_at,
                )
                if self._many:
                    self._hangs = not await _is_empty(engine, session)
                else:
                    self._hangs = session.recorder is None or bool(session.recorder.by_status[UNSERVED])
            except LoadtrtError:
                self._hangs = session.recorder is not None
                raise
            except Exception as error:  # the result is kept
                self._hangs = session.recorder is not None
                session.failure, session.fault = f"a fault in loadtrt itself: {type(error).__name__}: {error}", error

        if threading.current_thread() is threading.main_thread():
            anyio.run(_until_stopped, run, self.stop, self._talks.say)
        else:
            anyio.run(run)
        self._runs += 1
        self._all_runs += 1
        self._doubtful = self._hangs or session.failure is not None
        if self._allocated:
            session.allocate_ns = self._allocate_ns
        self._allocated = True
        return session

    def result(self, session: Session, config: RunConfig, engine: Engine | None = None) -> RunResult:
        """Everything that is known of a run, however it ended. environment: the GPU's state around the run alone.

        engine: the lanes that were used, where these were not all.
        """
        from loadtrt.lanes.outcome import result_of  # what it needs is not loaded before measuring

        number = f"-{self._all_runs}" if self._many else ""
        return result_of(
            session,
            engine or self.engine,
            config,
            self.bill,
            run=self._name or f"{self._started:%Y%m%d-%H%M%S}-{os.getpid()}{number}",
            load_ns=self._load_ns,
            started=self._started.isoformat(timespec="seconds"),
            command=sys.argv,
            environment={} if self.watch is None else self.watch.clocks.environment(),
            telemetry=self._telemetry(session),
        )

    @property
    def runs(self) -> int:
        """How many runs the engine that is open has made."""
        return self._runs

    def close(self) -> None:
        """Close the engine that is open, if there is one.

        An engine that left requests unanswered may wait for them for ever: it gets some seconds, in a thread that does
        not keep the process alive.
        """
        if self._engine is None:
            return
        engine, self._engine = self._engine, None
        hangs, self._hangs, self._doubtful = self._hangs, False, False
        if not hangs:
            engine.close()
            return
        thread = threading.Thread(target=engine.close, daemon=True)
        thread.start()
        thread.join(_CLOSE_PATIENCE_S)
        if thread.is_alive():
            self._before_exit()
            sys.stdout.flush()
            sys.stderr.flush()
            print("loadtrt: the device still hangs; leaving without waiting for it", file=sys.stderr)
            os._exit(EngineError.exit_code)  # the CUDA driver's own clean-up would wait for it as well

    def _telemetry(self, session: Session) -> GpuTelemetry | None:
        """What the GPU did while this run measured."""
        recorder, driven = session.recorder, session.driven
        if self.watch is None or recorder is None or driven is None:
            return None
        return self.watch.end(recorder.start_ns, driven.end_ns, recorder.inferences)


def _engine_options(config: RunConfig) -> dict[str, Any]:
    """The options that an engine is opened and allocated with; the load and the seed of its draws may change."""
    return {key: value for key, value in config.options().items() if key in _OF_ENGINE}


def _with_board(show: OnTick | None, board: Board | None) -> OnTick | None:
    """`show`, and each phase's beginning on the board."""
    if board is None:
        return show

    def tick(phase: Phase, elapsed_ns: int, submitted: int, completed: int) -> None:
        if not elapsed_ns:
            board.enter(phase)
        if show is not None:
            show(phase, elapsed_ns, submitted, completed)

    return tick


async def _is_empty(engine: Engine, session: Session) -> bool:
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


async def _until_stopped(run: Callable[[], Awaitable[None]], stop: Stop, say: Callable[[str], None]) -> None:
    """Await `run()`, and raise what it raises.

    The first Ctrl-C or SIGTERM sets `stop.requested` and calls `say` with a message; the second cancels `run()`.
    """

    async def watch(scope: anyio.CancelScope, *, task_status: TaskStatus[None]) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for _ in signals:
                if stop.requested:
                    scope.cancel()
                    return
                stop.requested = True
                say("stopping: waiting for requests in flight (press Ctrl-C again to give them up)")

    failure: Exception | None = None
    async with anyio.create_task_group() as group:
        await group.start(watch, group.cancel_scope)
        try:
            await run()
        except Exception as error:  # a task group would wrap it
            failure = error
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure
