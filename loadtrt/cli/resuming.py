"""Results of many runs that are written after each: where an unfinished one goes on, and what must not be lost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from loadtrt.cli.delivery import json_of, undisturbed, write_text
from loadtrt.errors import EngineError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import BaseModel

    from loadtrt.report.documents import Document, Kind


class Resumable(Protocol):
    """What a sweep and a search for capacity have in common."""

    @property
    def outcome(self) -> str: ...


_Result = TypeVar("_Result", bound=Resumable)


def unfinished(target: str | None, kind: Kind, read: Callable[[Document], _Result], *, resume: bool) -> _Result | None:
    """What the target's file holds of an unfinished result, to go on with; None for a fresh start.

    Without `resume` a file that holds one is left alone: it would be written over. Raises UsageError."""
    from loadtrt.report.documents import read_document

    if target is None or target == "-":
        if resume:
            raise UsageError("--resume goes on with the file of --json: name one")
        return None
    file = Path(target)
    if not file.is_file():
        return None
    try:
        document = read_document(file)
        before = read(document) if document.kind is kind else None
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
    """Writes a result over and over, whole each time. `failure`: why that went wrong last, None if it did not."""

    def __init__(self, target: str | None) -> None:
        self._target = target
        self.failure: str | None = None

    def __call__(self, result: BaseModel) -> None:
        """Keep what there is so far; stdout gets it at the end alone."""
        if self._target not in (None, "-"):
            self._write(result)

    def finish(self, result: BaseModel) -> None:
        """The last time."""
        if self._target is not None:
            self._write(result)

    def require_kept(self) -> None:
        """Raises EngineError where the result could not be written."""
        if self.failure is not None:
            raise EngineError(self.failure)

    def _write(self, result: BaseModel) -> None:
        assert self._target is not None  # noqa: S101  # the callers looked
        with undisturbed():
            try:
                write_text(self._target, json_of(result))
                self.failure = None
            except EngineError as error:
                self.failure = str(error)
