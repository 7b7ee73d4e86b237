"""Sweeps and searches make many runs: they keep the result after each, and continue an unfinished one."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from loadtrt.errors import UsageError
from loadtrt.files import held_by, locked, takes_once, write_file
from loadtrt.recognizing import FAILURE
from loadtrt.units import plural

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from loadtrt.asked.config import RunConfig
    from loadtrt.results import Result
    from loadtrt.runs.watched import Talks
    from loadtrt.signals import Signals
    from loadtrt.sizing.rig import Rig

_Result = TypeVar("_Result", bound="Result")


class Many(Protocol[_Result]):
    """A sweep, or a search for capacity."""

    @property
    def result(self) -> _Result: ...

    @property
    def measured(self) -> bool: ...

    def resume(self, before: _Result) -> int: ...

    def make(self) -> None: ...


@contextmanager
def to_the_end(rig: Rig, update: Callable[..., None]) -> Iterator[None]:
    """The runs of a result, which `update` changes: its outcome says how they ended. A signal ends them quietly."""
    try:
        yield
    except KeyboardInterrupt:
        return
    except Exception as error:
        update(outcome="failed", failure=str(error) or type(error).__name__)
        raise
    if not rig.stopped:
        update(outcome="completed")


def carry_out(
    config: RunConfig,
    schema: type[_Result],
    work_on: Callable[[Rig, Talks, Keeper], Many[_Result]],
    talks: Talks,
    signals: Signals,
    *,
    resume: bool,
    force: bool,
    show: Callable[[_Result], object] = lambda _: None,
    insist: Callable[[str], None] = lambda _: None,
    leave: Callable[[Callable[[], None]], None] = lambda _: None,
) -> _Result:
    """Make all runs, and keep the result, whatever ends them.

    config: its json_file and trt_log are used.
    schema: type of the result.
    work_on: makes the sweep or search on a rig.
    talks, signals: as for `Maker`.
    resume: whether to continue the result in the file.
    force: whether to begin anew over what the file holds.
    show: gets what was measured, once, when the runs are over.
    insist: takes TensorRT's log, where trt_log is "-".
    leave: called where an engine hangs, with a function that keeps and shows what was measured.

    Raises the error that ended the runs, and UsageError if the result could not be written.
    """
    from loadtrt.engines.tensorrt_log import logging_to
    from loadtrt.sizing.rig import Rig

    with locked("--json", config.json_file):
        target = config.json_file
        before = unfinished(target, schema, resume=resume, force=force)
        keeper = Keeper(target, talks.say)
        many: Many[_Result] | None = None

        def deliver() -> None:
            nonlocal many
            finished, many = many, None  # once
            talks.end_line()
            if finished is not None and finished.measured:
                keeper.finish(finished.result)
                show(finished.result)

        with logging_to(config.trt_log, insist), Rig(talks, lambda: leave(deliver), signals) as rig:
            many = work = work_on(rig, talks, keeper)
            if before is not None:
                try:
                    runs = work.resume(before)
                except UsageError as error:
                    raise UsageError(f"{target} cannot be continued: {error}") from None
                talks.say(f"continuing after {plural(runs, 'run')} of {target}")
            elif resume:
                talks.say(f"{target} has nothing to resume: starting from the beginning")
            try:
                work.make()
            finally:
                deliver()
            rig.linger(config, work.result)
        if keeper.failure is not None:
            raise UsageError(keeper.failure)
        if not work.measured:
            signals.check()
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
    if force or not file.is_file() or held_by(file) in (None, FAILURE):
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

    def __call__(self, result: Result) -> None:
        """Write the result so far; not to stdout or a pipe, which get it once, at the end."""
        if not takes_once(self._target):
            self._write(result, last=False)

    def finish(self, result: Result) -> None:
        """Write the result, elsewhere if it cannot be written to its file."""
        self._write(result, last=True)

    def _write(self, result: Result, *, last: bool) -> None:
        if self._target is None:
            return
        try:
            write_file(self._target, result.to_json(), measured=last)
            self.failure = None
        except UsageError as error:
            if self.failure is None and not last:
                self._say(f"{error}; writing is tried again after the next run")
            self.failure = str(error)
