"""TensorRT's log, of which nothing is shown unless it is asked for: to a file, or as sentences."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from loadtrt.engines.flavour import PYTHON_LOGGER
from loadtrt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextlib.contextmanager
def logging_to(target: str | Path | None, say: Callable[[str], None] = print, option: str = "log") -> Iterator[None]:
    """Pass TensorRT's log in this block, without its verbose part, to a file, or as sentences to `say`.

    target: the file; "-" for `say`, None for neither.
    option: what the file is, for errors.

    Raises UsageError for a file that cannot be written.
    """
    if target is None:
        yield
        return
    handler: logging.Handler = _Said(say) if str(target) == "-" else _file(target, option)
    before = PYTHON_LOGGER.level
    PYTHON_LOGGER.addHandler(handler)
    PYTHON_LOGGER.setLevel(logging.INFO)
    try:
        yield
    finally:
        PYTHON_LOGGER.setLevel(before)
        PYTHON_LOGGER.removeHandler(handler)
        with contextlib.suppress(OSError):  # it flushes what could not be written before
            handler.close()


def _file(target: str | Path, option: str) -> _LogFile:
    try:
        handler = _LogFile(target, mode="w", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {option} {target}: {error.strerror}") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    return handler


class _LogFile(logging.FileHandler):
    """A full disk costs lines of the log: logging would print a traceback for each. A file that stays empty for that is
    removed."""

    _failed = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802  # logging's names
        self._failed = True

    def close(self) -> None:
        file = Path(self.baseFilename)
        try:
            super().close()
        finally:
            if self._failed and not file.stat().st_size:
                file.unlink()


class _Said(logging.Handler):
    """Says each message with its severity."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say(f"TensorRT {record.levelname}: {record.getMessage()}")
