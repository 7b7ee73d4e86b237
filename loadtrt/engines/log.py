"""What TensorRT says: kept for an error's sentence and handed to Python's logger "loadtrt.tensorrt". Never printed.

TensorRT's own Logger writes to stdout, where machine-readable output goes; and failures come back as None or False,
with the reason only in the log. The library keeps the first logger it gets: so one a module, for the whole process.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from typing import Any

_LEVELS = {"WARNING": logging.WARNING, "INFO": logging.INFO, "VERBOSE": logging.DEBUG}
_KEPT = 64
_QUOTED = 400  # characters of a reason

_python_logger = logging.getLogger("loadtrt.tensorrt")
_python_logger.addHandler(logging.NullHandler())  # silent unless the caller configures logging

_journals: dict[str, Journal] = {}
_lock = threading.Lock()


class Journal:
    """The recent errors of one TensorRT module, and the logger object that fills it. Any thread may log."""

    def __init__(self, module: Any) -> None:
        self._errors: deque[tuple[int, str, str]] = deque(maxlen=_KEPT)
        self._count = 0
        self.logger = _logger(module, self)

    def add(self, severity: str, message: str) -> None:
        """`severity`: TensorRT's name for it. INTERNAL_ERROR is no alarm by itself: RTX uses it for notices."""
        text = " ".join(message.split())
        if severity in ("ERROR", "INTERNAL_ERROR"):
            with _lock:
                self._count += 1
                self._errors.append((self._count, severity, text))
        _python_logger.log(_LEVELS.get(severity, logging.ERROR), "%s", text)

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
        return text if len(text) <= _QUOTED else text[: _QUOTED - 1] + "…"

    def latest(self, mark: int) -> str:
        """The last error after `mark`."""
        errors = self.errors_since(mark)
        return errors[-1][:_QUOTED] if errors else "TensorRT gave no reason"


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
            module.ILogger.__init__(self)  # pybind11 wants its own constructor, not super()

        def log(self, severity: Any, message: str) -> None:
            with contextlib.suppress(Exception):  # an exception here would end the process: C++ calls this
                journal.add(severity.name, message)

    return Log()
