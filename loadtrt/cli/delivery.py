"""How results leave: files first, each whole or not at all, then what is shown; nothing measured is lost on the way."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from loadtrt.errors import LoadtrtError
from loadtrt.files import write_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from pydantic import BaseModel

_PATIENCE = 3  # Ctrl-C's that ask, before one ends the process


class Delivery:
    """Makes deliveries, each whatever became of the others. `failure`: of the first that could not be made."""

    def __init__(self) -> None:
        self.failure: LoadtrtError | None = None

    def make(self, target: str | None, text: Callable[[], str]) -> None:
        """Write `text()` to a file, or to stdout for "-"; nothing for None."""
        if target is None:
            return
        try:
            write_file(target, text())
        except LoadtrtError as error:
            self.failure = self.failure or error

    def finish(self) -> None:
        """Raise the failure, if there was one."""
        if self.failure is not None:
            raise self.failure


def json_of(result: BaseModel) -> str:
    """A result's file."""
    return result.model_dump_json(indent=1) + "\n"


def show(text: str, stream: TextIO) -> None:
    """Write what the stream's encoding can hold."""
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "replace").decode(encoding))
    stream.flush()


@contextmanager
def undisturbed() -> Iterator[None]:
    """No Ctrl-C for as long as it takes to sum up and write: an impatient second one would lose the result."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Stopper:
    """Once armed, Ctrl-C and SIGTERM ask to stop, for an exception would be lost in TensorRT's callbacks; an impatient
    user's third one ends the process after all. In a `with`, which puts back what was there."""

    def __init__(self) -> None:
        self.asked = 0
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Stopper:
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal() itself returned
        self._before.clear()

    def arm(self) -> None:
        """From now on."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._ask)

    def requested(self) -> bool:
        """Whether to stop."""
        return self.asked > 0

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        self.asked += 1
        if self.asked >= _PATIENCE:
            signal.signal(number, signal.SIG_DFL)
