"""Commands that make many runs: they keep the result after each run, and continue an unfinished one."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from loadtrt.cli.delivery import json_of, leave, show_beside
from loadtrt.cli.voice import Voice
from loadtrt.errors import UsageError
from loadtrt.files import locked, takes_once, write_file
from loadtrt.signals import SIGNALS
from loadtrt.units import plural

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import BaseModel

    from loadtrt.asked.config import RunConfig
    from loadtrt.capacity.rig import Rig
    from loadtrt.runs.watched import Talks

_Result = TypeVar("_Result", bound="BaseModel")


class Many(Protocol[_Result]):
    """A sweep, or a search for capacity."""

    @property
    def result(self) -> _Result: ...

    @property
    def measured(self) -> bool: ...

    def resume(self, before: _Result) -> int: ...

    def make(self) -> None: ...


def carry_out(
    config: RunConfig,
    schema: type[_Result],
    text: Callable[[_Result], str],
    work_on: Callable[[Rig, Talks, Keeper], Many[_Result]],
    *,
    resume: bool,
    force: bool,
) -> _Result:
    """Make all runs, and keep and show the result, whatever ends them.

    config: its json_file and quiet are used.
    schema: type of the result.
    text: the result as text for the terminal.
    work_on: makes the sweep or search on a rig.
    resume: whether to continue the result in the file.
    force: whether to begin anew over what the file holds.

    Raises the error that ended the runs, and UsageError if the result could not be written.
    """
    from loadtrt.capacity.rig import Rig
    from loadtrt.engines.tensorrt_log import logging_to

    with locked("--json", config.json_file):
        target = config.json_file
        before = unfinished(target, schema, resume=resume, force=force)
        voice = Voice(quiet=config.quiet)
        keeper = Keeper(target, voice.say)
        many: Many[_Result] | None = None

        def deliver() -> None:
            nonlocal many
            finished, many = many, None  # once
            voice.end_line()
            if finished is not None and finished.measured:
                keeper.finish(finished.result)
                if not config.quiet:
                    show_beside(target, text(finished.result))

        with logging_to(config.trt_log, voice.insist), Rig(voice, partial(leave, deliver), SIGNALS) as rig:
            many = work = work_on(rig, voice, keeper)
            if before is not None:
                try:
                    runs = work.resume(before)
                except UsageError as error:
                    raise UsageError(f"{target} cannot be continued: {error}") from None
                voice.say(f"continuing after {plural(runs, 'run')} of {target}")
            elif resume:
                voice.say(f"{target} has nothing to resume: starting from the beginning")
            try:
                work.make()
            finally:
                deliver()
            rig.linger(config, work.result)
        if keeper.failure is not None:
            raise UsageError(keeper.failure)
        if not work.measured:
            SIGNALS.check()
        return work.result


def unfinished(target: str | None, schema: type[_Result], *, resume: bool, force: bool) -> _Result | None:
    """The unfinished result in the target's file; None to begin anew. Raises UsageError for a result that would be
    overwritten, so that none of hours is lost."""
    from loadtrt.report.result_files import kind_of, read_result

    if target is None or target == "-":
        if resume:
            raise UsageError("--resume continues the file of --json: name one")
        return None
    if resume and force:
        raise UsageError("--resume continues what the file holds, and --force writes over it: leave one out")
    file, kind = Path(target), kind_of(schema)
    if force or not file.is_file() or not file.stat().st_size:
        return None
    before: Any = read_result(schema, file)
    if resume:
        return cast("_Result", before)
    if before.outcome != "completed":
        raise UsageError(f"{file} holds {kind} that is not finished: add --resume to continue, --force to begin anew")
    raise UsageError(f"{file} holds {kind}, which would be overwritten: name another file, or add --force")


class Keeper:
    """Writes a result after each run, whole each time. An error does not end the runs.

    failure: the error of the last attempt; None if it succeeded.
    """

    def __init__(self, target: str | None, say: Callable[[str], None]) -> None:
        self._target, self._say = target, say
        self.failure: str | None = None

    def __call__(self, result: BaseModel) -> None:
        """Write the result so far; not to stdout or a pipe, which get it once, at the end."""
        if not takes_once(self._target):
            self._write(result, last=False)

    def finish(self, result: BaseModel) -> None:
        """Write the result, elsewhere if it cannot be written to its file."""
        self._write(result, last=True)

    def _write(self, result: BaseModel, *, last: bool) -> None:
        if self._target is None:
            return
        try:
            write_file(self._target, json_of(result), measured=last)
            self.failure = None
        except UsageError as error:
            if self.failure is None and not last:
                self._say(f"{error}; writing is tried again after the next run")
            self.failure = str(error)
