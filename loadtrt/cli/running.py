"""From a checked configuration to a result: opens the engine, runs the session, shows and writes what came of it."""

from __future__ import annotations

import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING

import anyio

from loadtrt.engines.open import open_engine
from loadtrt.environment import environment, gpu_environment
from loadtrt.errors import EXIT_INTERRUPTED, EXIT_INVALID, EngineError
from loadtrt.lanes.outcome import result_of
from loadtrt.lanes.scheduler import Stop
from loadtrt.lanes.session import Session, run_session
from loadtrt.live.telemetry import clocks_settled, open_gpu
from loadtrt.load.inputs import make_inputs
from loadtrt.report.tables import memory_text, summary_text
from loadtrt.units import SECOND_NS, format_bytes, format_count, format_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anyio.abc import TaskStatus

    from loadtrt.config import RunConfig
    from loadtrt.engines.engine import Engine
    from loadtrt.lanes.session import Phase
    from loadtrt.live.telemetry import Gpu, GpuReading
    from loadtrt.load.tensors import Arrays
    from loadtrt.measure.facts import MemoryBill
    from loadtrt.measure.result import RunResult


def run(config: RunConfig) -> int:
    """Run `config` to its end, show and write its result, and return the exit code."""
    started, began = datetime.now(UTC).isoformat(timespec="seconds"), perf_counter_ns()
    voice = Voice(quiet=config.quiet)
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
        session, around = _measure(engine, config, inputs, voice)
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
    finally:
        engine.close()
    _deliver(result, config)
    return _exit_code(result)


def _measure(
    engine: Engine, config: RunConfig, inputs: Sequence[Arrays], voice: Voice
) -> tuple[Session, dict[str, object]]:
    """The session, and the GPU's facts around it where there is one."""
    session = Session()
    gpu = _gpu_of(engine, config)
    readings: list[GpuReading] = []

    def settled() -> bool:
        assert gpu is not None  # noqa: S101  # only then is this asked
        readings.append(gpu.read())
        return readings[-1].sm_clock_hertz is None or clocks_settled(readings)

    try:
        anyio.run(_run_watched, engine, config, inputs, session, voice, settled if gpu is not None else None)
        if gpu is None:
            return session, {}
        after = gpu.read()
        return session, {"gpu": gpu_environment(gpu, readings[-1] if readings else after, after)}
    finally:
        voice.end_line()
        if gpu is not None:
            gpu.close()


async def _run_watched(
    engine: Engine,
    config: RunConfig,
    inputs: Sequence[Arrays],
    session: Session,
    voice: Voice,
    settled: Callable[[], bool] | None,
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

    async with anyio.create_task_group() as group:
        await group.start(watch, group.cancel_scope)
        await run_session(engine, config, inputs, stop, session, voice.progress(config), settled)
        group.cancel_scope.cancel()


def _gpu_of(engine: Engine, config: RunConfig) -> Gpu | None:
    if engine.info.kind != "tensorrt":
        return None
    from loadtrt.cuda.runtime import device_properties

    return open_gpu(device_properties(config.device).pci_bus_id)[0]


def _check_memory(bill: MemoryBill) -> None:
    if bill.free_bytes is not None and bill.device_bytes > bill.free_bytes:
        raise EngineError(
            f"this needs {format_bytes(bill.device_bytes)} and {format_bytes(bill.free_bytes)} is free: "
            "use fewer --contexts or --buffers, or a smaller --batch"
        )


def _deliver(result: RunResult, config: RunConfig) -> None:
    target = config.json_file
    if not config.quiet:
        print(summary_text(result), end="", file=sys.stderr if target == "-" else sys.stdout, flush=True)
    if target is None:
        return
    text = result.model_dump_json(indent=1) + "\n"
    if target == "-":
        sys.stdout.write(text)
        return
    try:
        Path(target).write_text(text, encoding="utf-8")
    except OSError as error:
        raise EngineError(f"the result could not be written to {target}: {error.strerror}") from None


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
            print(sentence, file=sys.stderr, flush=True)

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
            sys.stderr.write("\r" + line.ljust(self._width))
            sys.stderr.flush()
            self._width = len(line)
        else:
            if self._ticks % self._EVERY == 0:
                print(line, file=sys.stderr, flush=True)
            self._ticks += 1

    def end_line(self) -> None:
        """Leave the rewritten line behind."""
        if self._width:
            sys.stderr.write("\r" + " " * self._width + "\r")
            sys.stderr.flush()
            self._width = 0
