"""From a checked configuration to a result: opens the engine, runs the session, shows and writes what came of it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING

import anyio

from loadtrt.engines.open import open_engine
from loadtrt.environment import environment, gpu_environment
from loadtrt.errors import EXIT_INTERRUPTED, EXIT_INVALID, EngineError, LoadtrtError
from loadtrt.lanes.outcome import result_of
from loadtrt.lanes.scheduler import Stop
from loadtrt.lanes.session import Session, run_session
from loadtrt.live.telemetry import clocks_settled, open_gpu
from loadtrt.load.inputs import make_inputs
from loadtrt.measure.records import UNSERVED
from loadtrt.report.tables import memory_text, summary_text
from loadtrt.units import SECOND_NS, format_bytes, format_count, format_duration

_CLOSE_PATIENCE_S = 10.0

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from anyio.abc import TaskStatus

    from loadtrt.config import RunConfig
    from loadtrt.engines.engine import Engine
    from loadtrt.lanes.session import Phase
    from loadtrt.live.telemetry import Gpu
    from loadtrt.load.tensors import Arrays
    from loadtrt.measure.facts import MemoryBill
    from loadtrt.measure.result import RunResult


def run(config: RunConfig) -> int:
    """Run `config` to its end, show and write its result, and return the exit code.

    The result is delivered before the engine is closed, and the file is written before anything is shown: a device that
    hangs, or a reader of stdout that has gone, costs no result. An exception that nobody expected is raised after that.
    """
    started, began = datetime.now(UTC).isoformat(timespec="seconds"), perf_counter_ns()
    voice = Voice(quiet=config.quiet)
    session = Session()
    try:
        voice.status(f"loading {config.engine}")
        engine = open_engine(config)
        try:
            inputs = make_inputs(engine.info.tensors, config.inputs, config.input_sets, config.input_range, config.seed)
            if not config.copies:
                inputs = inputs[:1]  # what lies on the device does not change
            bill = engine.memory(inputs)
            load_ns = perf_counter_ns() - began
            voice.say(f"loaded {engine.info.name}: {', '.join(str(spec) for spec in engine.info.tensors)}")
            voice.say(memory_text(bill))
            _check_memory(bill)
            around = _measure(engine, config, inputs, session, voice)
            with _undisturbed():
                result = result_of(
                    session,
                    engine,
                    config,
                    bill,
                    load_ns=load_ns,
                    started=started,
                    command=sys.argv,
                    environment={**environment(), **around},
                )
                voice.end_line()
                _deliver(result, config)
        finally:
            _close(engine, hangs=session.recorder is None or bool(session.recorder.by_status[UNSERVED]))
    finally:
        voice.end_line()
    if session.fault is not None:
        raise session.fault
    if result.failure is not None:
        print(f"loadtrt: {result.failure}", file=sys.stderr)
    return _exit_code(result)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """No Ctrl-C for as long as it takes to sum up and write: an impatient second one would lose the result."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _measure(
    engine: Engine, config: RunConfig, inputs: Sequence[Arrays], session: Session, voice: Voice
) -> dict[str, object]:
    """Fill the session; returns the GPU's facts around it where there is one."""
    gpu = _gpu_of(engine, config)
    if gpu is None:
        anyio.run(_run_watched, engine, config, inputs, session, voice, None)
        return {}
    readings = [gpu.read()]

    def settled() -> bool | None:
        readings.append(gpu.read())
        return None if readings[-1].sm_clock_hertz is None else clocks_settled(readings[1:])

    with gpu:
        anyio.run(_run_watched, engine, config, inputs, session, voice, settled)
        return {"gpu": gpu_environment(gpu, readings[-1], gpu.read())}


async def _run_watched(
    engine: Engine,
    config: RunConfig,
    inputs: Sequence[Arrays],
    session: Session,
    voice: Voice,
    settled: Callable[[], bool | None] | None,
) -> None:
    """The first Ctrl-C lets requests in flight finish, the second gives them up. Either way the result is kept."""
    stop = Stop()

    async def watch(scope: anyio.CancelScope, *, task_status: TaskStatus[None]) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for _ in signals:
                if stop.requested:
                    scope.cancel()
                    return
                stop.requested = True
                voice.say("stopping: waiting for requests in flight (again to give them up)")

    wrong: LoadtrtError | None = None
    async with anyio.create_task_group() as group:
        await group.start(watch, group.cancel_scope)
        try:
            await run_session(engine, config, inputs, stop, session, voice.progress(config), settled)
        except LoadtrtError as error:  # a task group would wrap it
            wrong = error
        except Exception as error:
            session.failure, session.fault = f"a fault in loadtrt itself: {type(error).__name__}: {error}", error
        group.cancel_scope.cancel()
    if wrong is not None:
        raise wrong


def _close(engine: Engine, hangs: bool) -> None:
    """Close the engine. One that left requests unanswered may wait for them for ever: it gets some seconds, in a
    thread that does not keep the process alive."""
    if not hangs:
        engine.close()
        return
    thread = threading.Thread(target=engine.close, daemon=True)
    thread.start()
    thread.join(_CLOSE_PATIENCE_S)
    if thread.is_alive():
        sys.stdout.flush()
        sys.stderr.flush()
        print("loadtrt: the device still hangs; leaving without waiting for it", file=sys.stderr)
        os._exit(EngineError.exit_code)  # the CUDA driver's own clean-up would wait for it as well


def _gpu_of(engine: Engine, config: RunConfig) -> Gpu | None:
    if engine.info.kind != "tensorrt":
        return None
    from loadtrt.cuda.runtime import device_properties

    return open_gpu(device_properties(config.device).pci_bus_id)[0]


def _check_memory(bill: MemoryBill) -> None:
    """Raises EngineError when the lanes will not fit. The weights are loaded already: they are in no free memory."""
    needed = bill.device_bytes - (bill.weights_bytes or 0)
    if bill.free_bytes is not None and needed > bill.free_bytes:
        raise EngineError(
            f"the lanes need {format_bytes(needed)} and {format_bytes(bill.free_bytes)} is free: "
            "use fewer --contexts or --buffers, or a smaller --batch"
        )


def _deliver(result: RunResult, config: RunConfig) -> None:
    target, failure = config.json_file, None
    text = result.model_dump_json(indent=1) + "\n"
    if target is not None and target != "-":
        try:
            Path(target).write_text(text, encoding="utf-8")
        except OSError as error:
            failure = f"the result could not be written to {target}: {error.strerror}"
    if not config.quiet:
        stream = sys.stderr if target == "-" else sys.stdout
        stream.write(
            summary_text(result).encode(stream.encoding or "utf-8", "replace").decode(stream.encoding or "utf-8")
        )
        stream.flush()
    if target == "-":
        sys.stdout.write(text)
    if failure is not None:
        raise EngineError(failure)


def _exit_code(result: RunResult) -> int:
    if result.outcome == "failed":
        return EngineError.exit_code
    if result.outcome == "interrupted":
        return EXIT_INTERRUPTED
    return 0 if result.valid else EXIT_INVALID


class Voice:
    """What is said on stderr while a run goes on: a rewritten line on a terminal, now and then a line elsewhere.

    One short line a second costs the measuring process 0.1 ms; a live table belongs in a process of its own.
    """

    _EVERY = 10  # ticks between two lines where there is no terminal

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._terminal = sys.stderr.isatty()
        self._width = 0
        self._ticks = 0

    def say(self, sentence: str) -> None:
        """A line of its own."""
        if not self._quiet:
            self.end_line()
            self._write(sentence + "\n")

    def progress(self, config: RunConfig) -> Callable[[Phase, int, int, int], None] | None:
        """A function for the session to call each second."""
        if self._quiet:
            return None
        whole = f" of {format_duration(config.least_duration_ns)}" if config.least_duration_ns else ""
        asked = f" and {format_count(config.requests)} requests" if config.requests and whole else ""
        asked = asked or (f" of {format_count(config.requests)} requests" if config.requests else "")

        def show(phase: Phase, elapsed_ns: int, submitted: int, completed: int) -> None:
            measuring = phase == "measure"
            goal = f"{whole}{asked}" if measuring else ""
            if not elapsed_ns:  # the phase begins
                self._ticks = 0
                self._show(f"{phase}{goal}")
                return
            self._show(
                f"{phase} {format_duration(elapsed_ns)}{goal} · {format_count(completed)} requests"
                f" · {format_count(completed * SECOND_NS / elapsed_ns)}/s · {submitted - completed} in flight"
            )

        return show

    def status(self, line: str) -> None:
        """What is being done, on a terminal alone."""
        if self._terminal and not self._quiet:
            self._show(line)

    def _show(self, line: str) -> None:
        if self._terminal:
            self._write("\r" + line.ljust(self._width))
            self._width = len(line)
        else:
            if self._ticks % self._EVERY == 0:
                self._write(line + "\n")
            self._ticks += 1

    def end_line(self) -> None:
        """Leave the rewritten line behind."""
        if self._width:
            self._write("\r" + " " * self._width + "\r")
            self._width = 0

    def _write(self, text: str) -> None:
        """A terminal that has gone is no reason to lose a measurement."""
        with suppress(OSError, ValueError):
            sys.stderr.write(text)
            sys.stderr.flush()
