"""`loadtrt run` after its options are checked: makes the run, writes its result and shows it."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

from loadtrt.cli.delivery import Delivery, deliver_exports, json_of, leave, say_verdict, show, show_beside
from loadtrt.cli.github import require_summary, tell_result
from loadtrt.cli.voice import Voice
from loadtrt.engines.tensorrt_log import logging_to
from loadtrt.errors import EXIT_INTERRUPTED, EXIT_INVALID, EXIT_MISSED, EXIT_UNDECIDED, EngineError
from loadtrt.files import locked, takes_once, write_file
from loadtrt.printing import say
from loadtrt.report.formatting import memory_text
from loadtrt.runs.fellows import found_by_fellows
from loadtrt.runs.maker import Maker
from loadtrt.signals import SIGNALS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from loadtrt.asked.config import RunConfig
    from loadtrt.lanes.model_run import Session
    from loadtrt.results.repeat_result import RepeatResult
    from loadtrt.results.run_result import RunResult


def run(config: RunConfig, start_at: int | None = None, remark: str = "") -> int:
    """Make the run of `config`, write and show its result, and return the exit code.

    start_at: when to begin to measure, Unix time in ns; None: at once.
    remark: what to say first.

    The result is written before the engine is closed, and before it is shown: neither a device that hangs nor a reader
    of stdout that has gone costs a result. An exception that is not a LoadtrtError is raised after that.
    """
    # What stdout or a pipe still gets, however the command ends, with its profile if there is one.
    late: list[RunResult] = []

    def write_late() -> None:
        while late:
            write_file(str(config.json_file), json_of(late.pop()), measured=True)

    require_summary(config.github)
    with locked("--json", config.json_file):
        if config.several_processes:
            return _run_processes(config, start_at)
        try:
            return _run(config, start_at, remark, late, partial(leave, write_late))
        finally:
            write_late()


def _run(config: RunConfig, start_at: int | None, remark: str, late: list[RunResult], leave: Callable[[], None]) -> int:
    voice, delivery = Voice(quiet=config.quiet), Delivery()
    if remark:
        voice.say(remark)
    with (
        logging_to(config.trt_log, voice.insist),
        found_by_fellows(config, start_at) as without_blame,
        Maker(voice, signals=SIGNALS, leave=leave) as maker,
    ):
        maker.open(config)
        for name, opened in maker.models.items():
            info, whose = opened.engine.info, f"{name}: " if len(maker.models) > 1 else ""
            voice.say(f"{whose}loaded {info.name}: {', '.join(map(str, info.tensors))}")
            voice.say(f"{whose}{memory_text(opened.bill)}")
        maker.require_room(": use fewer --contexts or --buffers, or a smaller --batch")
        result = without_blame(maker.run(config, voice.progress(config), start_at=start_at))
        voice.end_line()
        if takes_once(config.json_file) and config.profile and result.outcome == "completed":
            late.append(result)
        else:
            delivery.make(config.json_file, lambda: json_of(result))
        left_out = _deliver(result, maker.sessions, config, delivery)
        if result.failure is not None:
            say(result.failure)
        if config.github:
            tell_result(result, exit_code(result), config.json_file)
        maker.linger(config, result)
        maker.close()
        if maker.fault is not None:
            raise maker.fault
        code = say_verdict(result, EXIT_INTERRUPTED if left_out else exit_code(result), quiet=config.quiet)
        if config.profile and result.outcome == "completed":
            code = _profile(result, config, maker, delivery, late) or code
    delivery.finish()
    return code


def _run_processes(config: RunConfig, start_at: int | None) -> int:
    from loadtrt.report.plain import terminal_text
    from loadtrt.runs.fleet import run_fleet

    voice, delivery = Voice(quiet=config.quiet), Delivery()

    def deliver(result: RunResult) -> None:
        voice.end_line()
        delivery.make(config.json_file, lambda: json_of(result))
        delivery.make(config.junit, lambda: _junit(result))
        if not config.quiet:
            show_beside(config.json_file, terminal_text(result))
        if result.failure is not None:
            say(result.failure)
        if config.github:
            tell_result(result, exit_code(result), config.json_file)

    try:
        result = run_fleet(config, voice, SIGNALS, voice.progress(config), start_at, deliver, draws=True)
    finally:
        voice.end_line()
    delivery.finish()
    return say_verdict(result, exit_code(result), quiet=config.quiet)


def _profile(result: RunResult, config: RunConfig, maker: Maker, delivery: Delivery, late: list[RunResult]) -> int:
    """Profile the engine, loaded anew and alone on its device, and write the result again with the profile. Returns an
    exit code, 0 for none of its own."""
    from loadtrt.runs.layers import profile_after

    found, profiled = profile_after(result, config, maker)
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


def _deliver(result: RunResult, sessions: Mapping[str, Session], config: RunConfig, delivery: Delivery) -> bool:
    """Write the files of trtexec and JUnit that the configuration names, then show the summary. Returns whether files
    of trtexec, which may be large, were left out, as after a second signal."""
    session = next(iter(sessions.values()))  # the only one, where these files are asked for

    def times() -> str:
        from loadtrt.report.trtexec import times_json

        recorder = session.recorder
        if recorder is None or not result.model.ok:
            raise EngineError(f"there are no times to write to {config.export_times}: no request was served")
        if not result.model.percentiles_exact:
            say(
                f"{config.export_times} holds the first {len(recorder.records)} of {recorder.seen} requests: "
                "no more are kept one by one"
            )
        return times_json(recorder.records, recorder.start_ns, copies=config.model.copies)

    def outputs() -> str:
        from loadtrt.report.trtexec import output_json

        if session.outputs is None or isinstance(session.outputs, str):
            why = session.outputs or "the run ended before them"
            raise EngineError(f"there are no outputs to write to {config.export_output}: {why}")
        return output_json(session.outputs)

    exports = ((config.export_times, times), (config.export_output, outputs))
    left_out = []
    served = any(model.ok for model in result.models.values())
    for target, text in exports if result.outcome == "completed" or served else ():
        if target is not None and SIGNALS.hurried():
            left_out.append(target)
        else:
            delivery.make(target, text)
    delivery.make(config.junit, lambda: _junit(result))
    if not config.quiet:
        from loadtrt.report.plain import terminal_text

        show_beside(config.json_file, terminal_text(result))
    if left_out:
        say(f"interrupted twice: {' and '.join(left_out)} not written")
    return bool(left_out)


def _junit(result: RunResult) -> str:
    from loadtrt.report.junit import run_junit

    return run_junit(result)


def exit_code(result: RunResult | RepeatResult) -> int:
    """What the command exits with after this result."""
    if result.outcome == "failed":
        return EngineError.exit_code
    if result.outcome == "interrupted":
        return EXIT_INTERRUPTED
    if not result.valid:
        return EXIT_INVALID  # numbers that cannot be trusted decide on no objective
    if result.config.worker is not None:
        return 0  # 'loadtrt merge' decides, for all workers
    return EXIT_MISSED if result.verdict == "missed" else EXIT_UNDECIDED if result.verdict == "undecided" else 0
