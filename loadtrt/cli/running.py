"""From a checked configuration to a result: opens the engine, runs the session, shows and writes what came of it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager
from datetime import UTC, datetime
from time import perf_counter_ns
from typing import TYPE_CHECKING, TextIO

import anyio

from loadtrt.cli.profiling import PASS_NS, open_device, profile, write_exports, write_text
from loadtrt.cli.voice import Voice
from loadtrt.engines.open import open_engine
from loadtrt.engines.profiling import ProfileLength
from loadtrt.environment import environment, gpu_environment
from loadtrt.errors import EXIT_INTERRUPTED, EXIT_INVALID, EngineError, LoadtrtError
from loadtrt.lanes.outcome import result_of
from loadtrt.lanes.scheduler import Stop
from loadtrt.lanes.session import Session, run_session
from loadtrt.live.telemetry import clocks_settled
from loadtrt.load.inputs import make_inputs
from loadtrt.measure.records import UNSERVED
from loadtrt.report.layer_tables import profile_text
from loadtrt.report.tables import memory_text, summary_text
from loadtrt.report.trtexec import output_json, times_json
from loadtrt.units import format_bytes

_CLOSE_PATIENCE_S = 10.0

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from anyio.abc import TaskStatus

    from loadtrt.config import RunConfig
    from loadtrt.engines.engine import Engine
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
        engine = open_engine(config, voice.say, voice.status)
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
                _export(result, session, config)
        finally:
            _close(engine, hangs=session.recorder is None or bool(session.recorder.by_status[UNSERVED]))
    finally:
        voice.end_line()
    if session.fault is not None:
        raise session.fault
    if result.failure is not None:
        print(f"loadtrt: {result.failure}", file=sys.stderr)
    code = _exit_code(result)
    if not config.profile:
        return code
    try:
        if result.outcome == "completed":
            result = _profiled(result, config, voice)
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    finally:
        if config.json_file == "-":
            write_text("-", _json(result))
    return code


def _profiled(result: RunResult, config: RunConfig, voice: Voice) -> RunResult:
    """The result with a profile, made after the run on an engine loaded anew, which is alone on its device."""
    found, profiled, failure = profile(config, voice, ProfileLength(PASS_NS, 1, config.warmup))
    result = result.model_copy(update={"profile": found})
    with _undisturbed():
        if config.json_file and config.json_file != "-":
            write_text(config.json_file, _json(result))
        if not config.quiet:
            _say(profile_text(found), sys.stderr if config.json_file == "-" else sys.stdout)
        write_exports(config, found, profiled)
    if failure is not None:
        raise EngineError(failure)
    return result


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
    gpu = open_device(engine.info.kind, config.device)
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


def _check_memory(bill: MemoryBill) -> None:
    """Raises EngineError when the lanes will not fit. The weights are loaded already: they are in no free memory."""
    needed = bill.device_bytes - (bill.weights_bytes or 0)
    if bill.free_bytes is not None and needed > bill.free_bytes:
        raise EngineError(
            f"the lanes need {format_bytes(needed)} and {format_bytes(bill.free_bytes)} is free: "
            "use fewer --contexts or --buffers, or a smaller --batch"
        )


def _json(result: RunResult) -> str:
    return result.model_dump_json(indent=1) + "\n"


def _deliver(result: RunResult, config: RunConfig) -> None:
    """The file first, then the text. What goes to stdout as JSON waits for a profile that is still to come."""
    target, failure = config.json_file, None
    if target is not None and target != "-":
        try:
            write_text(target, _json(result))
        except EngineError as error:
            failure = error
    if not config.quiet:
        _say(summary_text(result), sys.stderr if target == "-" else sys.stdout)
    if target == "-" and not config.profile:
        write_text("-", _json(result))
    if failure is not None:
        raise failure


def _say(text: str, stream: TextIO) -> None:
    """Write what the stream's encoding can hold."""
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "replace").decode(encoding))
    stream.flush()


def _export(result: RunResult, session: Session, config: RunConfig) -> None:
    """trtexec's files of a run, as far as they are asked for. Raises EngineError."""
    recorder = session.recorder
    if config.export_times:
        if recorder is None or not result.ok:
            raise EngineError(f"there are no times to write to {config.export_times}: no request was served")
        if not result.percentiles_exact:
            print(
                f"loadtrt: {config.export_times} holds the first {len(recorder.records)} of {recorder.seen} requests: "
                "no more are kept one by one",
                file=sys.stderr,
            )
        write_text(config.export_times, times_json(recorder.records, recorder.start_ns, copies=config.copies))
    if config.export_output:
        if session.outputs is None:
            raise EngineError(f"there are no outputs to write to {config.export_output}: the run ended before them")
        write_text(config.export_output, output_json(session.outputs))


def _exit_code(result: RunResult) -> int:
    if result.outcome == "failed":
        return EngineError.exit_code
    if result.outcome == "interrupted":
        return EXIT_INTERRUPTED
    return 0 if result.valid else EXIT_INVALID
