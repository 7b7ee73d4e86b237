"""Writing results: files first, each whole or not at all, then the text; a failure loses nothing that was measured."""

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

_PATIENCE = 3  # times Ctrl-C is pressed; the last ends the process


class Delivery:
    """Writes outputs, each even if another failed. failure: the error of the first that could not be written."""

    def __init__(self) -> None:
        self.failure: LoadtrtError | None = None

    def make(self, target: str | None, text: Callable[[], str]) -> None:
        """Write `text()` to a file, or to stdout for "-"; do nothing for None."""
        if target is None:
            return
        try:
            write_file(target, text())
        except LoadtrtError as error:
            self.failure = self.failure or error

    def finish(self) -> None:
        """Raise the failure, if any."""
        if self.failure is not None:
            raise self.failure


def json_of(result: BaseModel) -> str:
    """The content of a result's file."""
    return result.model_dump_json(indent=1) + "\n"


def show(text: str, stream: TextIO) -> None:
    """Write text, with "?" for what the stream's encoding does not have."""
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "replace").decode(encoding))
    stream.flush()


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ignore Ctrl-C while the result is summed up and written: a second one would lose the result."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Stopper:
    """A context manager that turns Ctrl-C and SIGTERM into a request to stop, once armed; the third ends the process.

    An exception would be lost in TensorRT's callbacks. The handlers from before are restored at the end.
    """

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
        """Take over the signals."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._ask)

    def requested(self) -> bool:
        """Whether stopping was requested."""
        return self.asked > 0

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        self.asked += 1
        if self.asked >= _PATIENCE:
            signal.signal(number, signal.SIG_DFL)
