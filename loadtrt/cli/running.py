"""`loadtrt run` without its options: makes one run, shows its result and writes it."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from loadtrt.cli.delivery import Delivery, Stopper, json_of, show, undisturbed
from loadtrt.cli.profiling import PASS_NS, deliver_exports, profile
from loadtrt.cli.voice import Voice
from loadtrt.cli.watching import Watchers
from loadtrt.engines.plan_profile import ProfileLength
from loadtrt.environment import environment
from loadtrt.errors import EXIT_INTERRUPTED, EXIT_INVALID, EXIT_MISSED, EXIT_UNDECIDED, EngineError
from loadtrt.files import write_file
from loadtrt.report.formatting import memory_text
from loadtrt.runs.maker import Maker

if TYPE_CHECKING:
    from loadtrt.asked.config import RunConfig
    from loadtrt.lanes.session import Session
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
    name = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}"
    voice, delivery = Voice(quiet=config.quiet), Delivery()
    watchers = Watchers(config, voice, name)
    maker = Maker(voice, watchers.watch, run=name)
    try:
        try:
            maker.open(config, config.given("profile", "export_layer_info"), allocate=False)
            info, bill = maker.info, maker.bill
            voice.say(f"loaded {info.name}: {', '.join(str(spec) for spec in info.tensors)}")
            voice.say(memory_text(bill))
            bill.require_room(": use fewer --contexts or --buffers, or a smaller --batch")
            watchers.begin(maker.engine, len(maker.inputs))
            session = maker.measure(config, voice.progress(config))
            with undisturbed():
                result = maker.result(session, config)
                result = result.model_copy(update={"environment": {**environment(), **result.environment}})
                watchers.end()
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
            maker.close()
    finally:
        voice.end_line()
        watchers.close()
    if session.fault is not None:
        raise session.fault
    code = _exit_code(result)
    if config.profile and result.outcome == "completed":
        code = _profile(result, info, config, voice, delivery, late) or code
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
