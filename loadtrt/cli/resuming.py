"""Commands that make many runs: what they keep after each, where an unfinished result goes on, what is never lost."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from loadtrt.cli.delivery import json_of, show, write_text
from loadtrt.cli.running import close_engine
from loadtrt.cli.voice import Voice
from loadtrt.errors import EngineError, UsageError
from loadtrt.units import plural

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import BaseModel

    from loadtrt.capacity.rig import Rig, Talks
    from loadtrt.config import RunConfig
    from loadtrt.engines.engine import Engine

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
    made: Callable[[Rig, Talks, Keeper], Many[_Result]],
    *,
    resume: bool,
) -> _Result:
    """Make all runs, and keep and show what came of them, whatever ends it. Of `config` json, quiet and objectives are
    used. Raises what ended it, and EngineError where the result could not be written."""
    from loadtrt.capacity.rig import Rig

    target = config.json_file
    before = unfinished(target, schema, resume=resume)
    voice = Voice(quiet=config.quiet)
    keeper = Keeper(target, voice.say)
    many: Many[_Result] | None = None

    def deliver() -> None:
        nonlocal many
        found, many = many, None  # once
        voice.end_line()
        if found is not None and found.measured:
            keeper.finish(found.result)
            if not config.quiet:
                show(text(found.result), sys.stderr if target == "-" else sys.stdout)

    def close(engine: Engine, hangs: bool) -> None:
        close_engine(engine, hangs, deliver)

    with Rig(voice, close) as rig:
        many = work = made(rig, voice, keeper)
        if before is not None:
            voice.say(f"going on after {plural(work.resume(before), 'run')} of {target}")
        try:
            work.make()
        finally:
            deliver()
    if keeper.failure is not None:
        raise EngineError(keeper.failure)
    return work.result


def unfinished(target: str | None, schema: type[_Result], *, resume: bool) -> _Result | None:
    """What the target's file holds of an unfinished result, to go on with; None for a fresh start.

    Without `resume` a file that holds one is left alone: it would be written over. Raises UsageError."""
    from loadtrt.report.documents import kind_of, read_document, read_result

    if target is None or target == "-":
        if resume:
            raise UsageError("--resume goes on with the file of --json: name one")
        return None
    file, kind = Path(target), kind_of(schema)
    if not file.is_file():
        return None
    try:
        document = read_document(file)
        before: Any = read_result(schema, document) if document.kind is kind else None
    except UsageError:
        if resume:
            raise
        return None  # what is in it would be written over by any command
    if before is None:
        if resume:
            raise UsageError(f"--resume: {file} is {document.kind}, and no {kind.partition(' ')[2]}: name another file")
        return None
    if not resume and before.outcome != "completed":
        raise UsageError(f"{file} holds {kind} that is not finished: add --resume to go on with it, or remove it")
    return before if resume else None


class Keeper:
    """Writes a result over and over, whole each time. `failure`: why that went wrong last, None if it did not; `say` is
    told when it begins to, for the runs go on."""

    def __init__(self, target: str | None, say: Callable[[str], None]) -> None:
        self._target, self._say = target, say
        self.failure: str | None = None

    def __call__(self, result: BaseModel) -> None:
        """Keep what there is so far; stdout gets it at the end alone."""
        if self._target != "-":
            self.finish(result)

    def finish(self, result: BaseModel) -> None:
        """The last time."""
        if self._target is None:
            return
        try:
            write_text(self._target, json_of(result))
            self.failure = None
        except EngineError as error:
            if self.failure is None:
                self._say(f"{error}; it is tried again after the next run")
            self.failure = str(error)
