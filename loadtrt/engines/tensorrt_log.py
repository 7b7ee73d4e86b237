"""What TensorRT logs: kept for loadtrt's own sentences and for findings, and passed on where that is asked for.

TensorRT's own Logger writes to stdout, which is for results, and a failing call returns None or False with its reason
only in the log. So each module has one Journal, which keeps warnings and errors and passes every message to Python's
logger "loadtrt.tensorrt". TensorRT keeps the first logger that it gets: one for each process.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
from collections import deque
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loadtrt.errors import UsageError
from loadtrt.printing import shortened
from loadtrt.results.engine_info import LogMessage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PYTHON_LOGGER = logging.getLogger("loadtrt.tensorrt")
PYTHON_LOGGER.addHandler(logging.NullHandler())  # silent unless the caller configures logging

_LEVELS = {"WARNING": logging.WARNING, "INFO": logging.INFO, "VERBOSE": logging.DEBUG}
_KEPT = 64  # errors
_QUOTED = 400  # characters of a reason
_MOST_MESSAGES = 200  # different ones of an owner
_NUMBERS = re.compile(r"0x[0-9a-fA-F]+|\d+(?:\.\d+)?")
# What says nothing of the plan or the machine: a notice of RTX, and 8.6's on each context after the first, for which
# loadtrt then selects a profile.
_HARMLESS = ("Thread context has not been set", "Could not set default profile")

_Heard = Mapping[tuple[object, str, str], LogMessage]  # by owner (None: not known), severity, and text
_caller: ContextVar[object] = ContextVar("_caller", default=None)  # for whom this thread calls TensorRT

_journals: dict[str, Journal] = {}
_lock = threading.Lock()


class Journal:
    """What one TensorRT module logs, apart from what is information, and the logger object that fills it. Any thread
    may log."""

    def __init__(self, module: Any) -> None:
        self._errors: deque[tuple[int, str, str]] = deque(maxlen=_KEPT)
        self._count = 0
        self._messages: dict[tuple[object, str, str], LogMessage] = {}
        self._expected = False
        self.logger = _logger(module, self)

    def add(self, severity: str, message: str) -> None:
        """Keep a message of TensorRT's severity. INTERNAL_ERROR alone is not a failure: RTX uses it for notices."""
        text = " ".join(message.split())
        if severity in ("ERROR", "INTERNAL_ERROR"):
            with _lock:
                self._count += 1
                self._errors.append((self._count, severity, text))
        expected = self._expected and severity != "WARNING"
        if severity in ("ERROR", "INTERNAL_ERROR", "WARNING") and not expected and not any(map(text.count, _HARMLESS)):
            self._keep("error" if severity == "ERROR" else "warning", text)
        PYTHON_LOGGER.log(_LEVELS.get(severity, logging.ERROR), "%s", text)

    def _keep(self, severity: str, text: str) -> None:
        key = (_caller.get(), severity, _NUMBERS.sub("#", text))
        with _lock:
            known = self._messages.get(key)
            if known is not None:
                self._messages[key] = replace(known, times=known.times + 1)
            elif sum(owner is key[0] for owner, *_ in self._messages) < _MOST_MESSAGES:
                self._messages[key] = LogMessage(severity, text, 1)

    @contextlib.contextmanager
    def expecting_errors(self) -> Iterator[None]:
        """Errors in this block answer a question of loadtrt's that not every TensorRT knows, and tell users nothing."""
        before, self._expected = self._expected, True
        try:
            yield
        finally:
            self._expected = before

    @contextlib.contextmanager
    def calls_of(self, owner: object) -> Iterator[None]:
        """What this thread makes TensorRT log in this block is of `owner` alone, and not of others that log here."""
        token = _caller.set(owner)
        try:
            yield
        finally:
            _caller.reset(token)

    def heard(self) -> _Heard:
        """A point in the log, for `messages`."""
        with _lock:
            return dict(self._messages)

    def messages(self, before: _Heard, owner: object = None) -> tuple[LogMessage, ...]:
        """Warnings and errors of `owner` since `before`, and those without a known owner. Those that differ in numbers
        alone are one, in the order of the first."""
        counted: dict[tuple[str, str], LogMessage] = {}
        for key, message in self.heard().items():
            times = message.times - (before[key].times if key in before else 0)
            if times and key[0] in (None, owner):
                known = counted.get(key[1:])
                counted[key[1:]] = replace(known or message, times=times + (known.times if known else 0))
        return tuple(counted.values())

    def mark(self) -> int:
        """A point in the log, for `reason`."""
        return self._count

    def errors_since(self, mark: int) -> list[str]:
        """Errors logged after `mark`, oldest first; internal ones only where there is no other."""
        with _lock:
            recent = [(severity, text) for count, severity, text in self._errors if count > mark]
        plain = [text for severity, text in recent if severity == "ERROR"]
        return list(dict.fromkeys(plain or [text for _, text in recent]))

    def reason(self, mark: int) -> str:
        """Why an operation begun at `mark` failed: the first two errors, as TensorRT logs causes before effects."""
        errors = self.errors_since(mark)
        text = "; ".join(error.rstrip(".") for error in errors[:2]) or "nothing: TensorRT gave no reason"
        return shortened(text, _QUOTED)

    def latest(self, mark: int) -> str:
        """The last error after `mark`."""
        errors = self.errors_since(mark)
        return shortened(errors[-1], _QUOTED) if errors else "TensorRT gave no reason"


def journal_of(module: Any) -> Journal:
    """The one journal of this TensorRT module in this process."""
    with _lock:
        if module.__name__ not in _journals:
            _journals[module.__name__] = Journal(module)
        return _journals[module.__name__]


def _logger(module: Any, journal: Journal) -> Any:
    """An instance of a subclass of the module's ILogger."""

    class Log(module.ILogger):  # type: ignore[misc]  # a class that is only known at run time
        def __init__(self) -> None:
            module.ILogger.__init__(self)  # pybind11 needs its own constructor, not super()

        def log(self, severity: Any, message: str) -> None:
            with contextlib.suppress(Exception):  # an exception here would end the process: C++ calls this
                journal.add(severity.name, message)

    return Log()


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
    handler: logging.Handler = _Printer(say) if str(target) == "-" else _file(target, option)
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


class _Printer(logging.Handler):
    """Says each message with its severity."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say(f"TensorRT {record.levelname}: {record.getMessage()}")
