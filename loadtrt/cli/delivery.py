"""Writing results: files first, each whole or not at all, then the text; a failure loses nothing that was measured."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, TextIO, TypeVar

from loadtrt.errors import EXIT_INVALID, EXIT_MISSED, EXIT_UNDECIDED, EngineError, LoadtrtError
from loadtrt.files import write_file
from loadtrt.printing import SENTENCE, lines, printable, say
from loadtrt.signals import SIGNALS

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtrt.asked.config import RunConfig
    from loadtrt.engines.plan_profile import Profiled
    from loadtrt.report import result_files
    from loadtrt.results import Result
    from loadtrt.results.profile_result import ProfileResult
    from loadtrt.sizing.keeping import Many

_Result = TypeVar("_Result", bound="result_files.Result")


class Delivery:
    """Writes outputs, each even if another failed.

    measured: whether outputs cannot be made again, and are saved elsewhere where their files cannot be written.
    failure: the error of the first that could not be written.
    """

    def __init__(self, *, measured: bool = True) -> None:
        self._measured = measured
        self.failure: LoadtrtError | None = None

    def make(self, target: str | None, text: Callable[[], str]) -> None:
        """Write `text()` to a file, or to stdout for "-"; do nothing for None."""
        if target is None:
            return
        try:
            write_file(target, text(), measured=self._measured)
        except LoadtrtError as error:
            self.failure = self.failure or error

    def finish(self) -> None:
        """Raise the failure, if any."""
        if self.failure is not None:
            raise self.failure


def json_of(result: Result) -> str:
    """The content of a result's file."""
    return result.to_json()


def carry_out_and_tell(
    config: RunConfig,
    schema: type[_Result],
    work_on: Callable[..., Many[_Result]],
    code_of: Callable[[_Result], int],
    *,
    resume: bool,
    force: bool,
) -> int:
    """Carry out the runs, show the result whatever ends them, and report it to GitHub with --github.

    code_of: exit code of a result. Returns the exit code of the command.
    """
    from loadtrt.cli.github import tell_result
    from loadtrt.cli.voice import Voice
    from loadtrt.report.plain import terminal_text
    from loadtrt.sizing.keeping import carry_out

    def show(result: _Result) -> None:
        if not config.quiet:
            show_beside(config.json_file, terminal_text(result))

    voice = Voice(quiet=config.quiet)
    result = carry_out(
        config, schema, work_on, voice, SIGNALS,
        resume=resume, force=force, show=show, insist=voice.insist, leave=leave,
    )  # fmt: skip
    code = say_verdict(result, code_of(result), quiet=config.quiet)
    if config.github:
        tell_result(result, code, config.json_file)
    return code


def show(text: str, stream: TextIO) -> None:
    """Write lines of text, with "?" for what the stream's encoding does not have."""
    encoding = stream.encoding or "utf-8"
    stream.write(lines(text).encode(encoding, "replace").decode(encoding))
    stream.flush()


def show_beside(target: str | None, text: str) -> None:
    """Write lines of text to stdout, or to stderr where stdout is the `target` of the result."""
    show(text, sys.stderr if target == "-" else sys.stdout)


def show_line(line: str = "") -> None:
    """Write a line to stdout, cut in the middle where it is long."""
    show(f"{printable(line, SENTENCE)}\n", sys.stdout)


def say_verdict(result: result_files.Result, code: int, *, quiet: bool) -> int:
    """Say on stderr, where --quiet leaves the summary out, why the exit code is that of a verdict. Returns the code."""
    if quiet and code in (EXIT_INVALID, EXIT_MISSED, EXIT_UNDECIDED):
        from loadtrt.report.plain import verdict_line

        say(verdict_line(result))
    return code


def deliver_exports(config: RunConfig, result: ProfileResult, profiled: Profiled, delivery: Delivery) -> None:
    """trtexec's files of a profile, as far as they are asked for."""
    from loadtrt.report.trtexec import layer_info_json, profile_json

    delivery.make(config.export_profile, lambda: profile_json(result.passes[0]))

    def layer_info() -> str:
        if profiled.layer_info is None:
            raise EngineError(
                f"there is no layer information to write to {config.export_layer_info}: {result.engine.flavour} has no "
                "engine inspector (full TensorRT and RTX have)"
            )
        return layer_info_json(profiled.layer_info)

    delivery.make(config.export_layer_info, layer_info)


def leave(deliver: Callable[[], None]) -> None:
    """End the process without waiting for a device that hangs, as the CUDA driver's clean-up would. deliver: writes
    what is not written yet."""
    deliver()
    sys.stdout.flush()
    sys.stderr.flush()
    print("loadtrt: the device still hangs; leaving without waiting for it", file=sys.stderr)
    os._exit(EngineError.exit_code)
