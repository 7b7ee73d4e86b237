"""From a checked configuration to a result: opens the engine, runs the session, shows and writes what came of it."""

from __future__ import annotations

import os
import sys
import threading
from datetime import UTC, datetime
from time import perf_counter_ns
from typing import TYPE_CHECKING

import anyio

from loadtrt.cli.delivery import Delivery, Stopper, json_of, show, undisturbed
from loadtrt.cli.profiling import PASS_NS, deliver_exports, profile
from loadtrt.cli.voice import Voice
from loadtrt.cli.watching import Watchers
from loadtrt.engines.open import open_engine
from loadtrt.engines.plan_profile import ProfileLength
from loadtrt.environment import environment
from loadtrt.errors import (
    EXIT_INTERRUPTED,
    EXIT_INVALID,
    EXIT_MISSED,
    EXIT_UNDECIDED,
    EngineError,
    LoadtrtError,
)
from loadtrt.files import write_file
from loadtrt.lanes.scheduler import Stop
from loadtrt.lanes.session import Session, inputs_for, run_session
from loadtrt.lanes.stopping import until_stopped
from loadtrt.records.records import UNSERVED
from loadtrt.report.formatting import memory_text

_CLOSE_PATIENCE_S = 10.0

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadtrt.asked.config import RunConfig
    from loadtrt.engines.engine import Engine
    from loadtrt.lanes.session import OnTick, Phase
    from loadtrt.load.tensors import Arrays
    from loadtrt.records.board import Board
    from loadtrt.results.engine_info import EngineInfo
    from loadtrt.results.run_result import RunResult


def run(config: RunConfig) -> int:
    """Run `config` to its end, show and write its result, and return the exit code.

    The result is delivered before the engine is closed, and files are written before anything is shown: a device that
    hangs, or a reader of stdout that has gone, costs no result. An exception that nobody expected is raised after that.
    """
    late: list[RunResult] = []  # what is still to go to stdout, whatever happens, once a profile has been added to it
    try:
        return _run(config, late)
    finally:
        for result in late:
            write_file("-", json_of(result))


def _run(config: RunConfig, late: list[RunResult]) -> int:
    started, began = datetime.now(UTC), perf_counter_ns()
    name = f"{started:%Y%m%d-%H%M%S}-{os.getpid()}"
    voice = Voice(quiet=config.quiet)
    session, delivery = Session(), Delivery()
    watchers = Watchers(config, voice, name)
    try:
        voice.status(f"loading {config.model.engine}")
        engine = open_engine(config.model, voice.say, voice.status, config.given("profile", "export_layer_info"))
        try:
            inputs = inputs_for(engine, config.model)
            bill = engine.memory(inputs)
            load_ns = perf_counter_ns() - began
            voice.say(f"loaded {engine.info.name}: {', '.join(str(spec) for spec in engine.info.tensors)}")
            voice.say(memory_text(bill))
            bill.require_room(": use fewer --contexts or --buffers, or a smaller --batch")
            watchers.begin(engine, len(inputs))
            around = _measure(engine, config, inputs, session, voice, watchers)
            with undisturbed():
                from loadtrt.lanes.outcome import result_of  # what it needs is not loaded before measuring

                result = result_of(
                    session,
                    engine,
                    config,
                    bill,
                    run=name,
                    load_ns=load_ns,
                    started=started.isoformat(timespec="seconds"),
                    command=sys.argv,
                    environment={**environment(), **around},
                    telemetry=watchers.end(session),
                )
                voice.end_line()
                if config.json_file == "-" and config.profile and result.outcome == "completed":
                    late.append(result)
                else:
                    delivery.make(config.json_file, lambda: json_of(result))
                _deliver(result, session, config, delivery)
                if result.failure is not None:
                    print(f"loadtrt: {result.failure}", file=sys.stderr)
            watchers.linger(result)
        finally:
            close_engine(engine, hangs=session.recorder is None or bool(session.recorder.by_status[UNSERVED]))
    finally:
        voice.end_line()
        watchers.close()
    if session.fault is not None:
        raise session.fault
    code = _exit_code(result)
    if config.profile and result.outcome == "completed":
        code = _profile(result, engine.info, config, voice, delivery, late) or code
    delivery.finish()
    return code


def _profile(
    result: RunResult,
    info: EngineInfo,
    config: RunConfig,
    voice: Voice,
    delivery: Delivery,
    late: list[RunResult],
) -> int:
    """Profile the engine, loaded anew and alone on its device, and write the result again with it. Returns an exit
    code, 0 for none of its own."""
    if "threads per context" in info.mode:
        config = config.with_model(threads_per_context=int(info.mode["threads per context"]))
    with Stopper() as stopper:
        found, profiled = profile(config, voice, ProfileLength(PASS_NS, 1, config.warmup), stopper)
        result = result.with_model(profile=found)
        if late:
            late[0] = result
        else:
            delivery.make(config.json_file, lambda: json_of(result))
        deliver_exports(config, found, profiled, delivery)
        if not config.quiet:
            from loadtrt.report.plain import terminal_text

            show(terminal_text(found), sys.stderr if late else sys.stdout)
    if found.failure is not None:
        raise EngineError(found.failure)
    return EXIT_INTERRUPTED if found.outcome == "interrupted" else 0


def _measure(
    engine: Engine,
    config: RunConfig,
    inputs: Sequence[Arrays],
    session: Session,
    voice: Voice,
    watchers: Watchers,
) -> dict[str, object]:
    """Fill the session; returns the GPU's facts around it where there is one."""
    watch = watchers.watch
    watch.begin()
    anyio.run(_run_watched, engine, config, inputs, session, voice, watch.board, watch.clocks.settled)
    return watch.clocks.environment()


async def _run_watched(
    engine: Engine,
    config: RunConfig,
    inputs: Sequence[Arrays],
    session: Session,
    voice: Voice,
    board: Board | None,
    settled: Callable[[], bool | None],
) -> None:
    stop = Stop()

    async def run() -> None:
        told = _telling(voice.progress(config), board)
        try:
            await run_session(engine, config, inputs, stop, session, told, settled, board)
        except LoadtrtError:
            raise
        except Exception as error:  # the result is kept
            session.failure, session.fault = f"a fault in loadtrt itself: {type(error).__name__}: {error}", error

    await until_stopped(run, stop, voice.say)


def _telling(show: OnTick | None, board: Board | None) -> OnTick | None:
    """`show`, and each phase's beginning on the board."""
    if board is None:
        return show

    def tick(phase: Phase, elapsed_ns: int, submitted: int, completed: int) -> None:
        if not elapsed_ns:
            board.enter(phase)
        if show is not None:
            show(phase, elapsed_ns, submitted, completed)

    return tick


def close_engine(engine: Engine, hangs: bool, deliver: Callable[[], None] = lambda: None) -> None:
    """Close the engine. One that left requests unanswered may wait for them for ever: it gets some seconds, in a
    thread that does not keep the process alive. deliver: what to do before the process ends because of that."""
    if not hangs:
        engine.close()
        return
    thread = threading.Thread(target=engine.close, daemon=True)
    thread.start()
    thread.join(_CLOSE_PATIENCE_S)
    if thread.is_alive():
        deliver()
        sys.stdout.flush()
        sys.stderr.flush()
        print("loadtrt: the device still hangs; leaving without waiting for it", file=sys.stderr)
        os._exit(EngineError.exit_code)  # the CUDA driver's own clean-up would wait for it as well


def _deliver(result: RunResult, session: Session, config: RunConfig, delivery: Delivery) -> None:
    """trtexec's files and JUnit's, as far as they are asked for, then the text."""
    from loadtrt.report.junit import run_junit
    from loadtrt.report.trtexec import output_json, times_json

    recorder = session.recorder

    def times() -> str:
        if recorder is None or not result.model.ok:
            raise EngineError(f"there are no times to write to {config.export_times}: no request was served")
        if not result.model.percentiles_exact:
            print(
                f"loadtrt: {config.export_times} holds the first {len(recorder.records)} of {recorder.seen} requests: "
                "no more are kept one by one",
                file=sys.stderr,
            )
        return times_json(recorder.records, recorder.start_ns, copies=config.model.copies)

    def outputs() -> str:
        if session.outputs is None or isinstance(session.outputs, str):
            why = session.outputs or "the run ended before them"
            raise EngineError(f"there are no outputs to write to {config.export_output}: {why}")
        return output_json(session.outputs)

    if result.outcome == "completed" or result.model.ok:
        delivery.make(config.export_times, times)
        delivery.make(config.export_output, outputs)
    delivery.make(config.junit, lambda: run_junit(result))
    if not config.quiet:
        from loadtrt.report.plain import terminal_text

        show(terminal_text(result), sys.stderr if config.json_file == "-" else sys.stdout)


def _exit_code(result: RunResult) -> int:
    if result.outcome == "failed":
        return EngineError.exit_code
    if result.outcome == "interrupted":
        return EXIT_INTERRUPTED
    if not result.valid:
        return EXIT_INVALID  # numbers that cannot be trusted neither meet nor miss anything
    return EXIT_MISSED if result.verdict == "missed" else EXIT_UNDECIDED if result.verdict == "undecided" else 0
