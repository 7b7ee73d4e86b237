"""The standard streams of the process, made safe for whatever they are: closed, full, ASCII, or a reader that left."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TYPE_CHECKING

from loadtrt import files
from loadtrt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

# Nobody reads any longer: the pipe's reader has left, the terminal is gone, the stream was closed from the beginning.
_GONE = (errno.EPIPE, errno.EIO, errno.EBADF)


class _Stream(io.TextIOWrapper):
    """A stream that drops what has no reader, and raises UsageError where it is full.

    every: whether to ignore every failure, as on stderr.
    """

    every = False

    def write(self, text: str) -> int:
        if text == "":  # click tries whether this is a text stream; a full device refuses no bytes, too
            return 0
        return self._tolerating(lambda: super(_Stream, self).write(text)) or 0

    def flush(self) -> None:
        self._tolerating(super().flush)

    def _tolerating(self, work: Callable[[], int | None]) -> int | None:
        try:
            return work()
        except OSError as error:
            if self.every or error.errno in _GONE:
                discard(self.fileno())
                return None
            raise UsageError(f"cannot write to stdout: {error.strerror}") from error


def prepare() -> None:
    """Make stdout and stderr of the process safe: what has no reader is dropped, characters that the encoding lacks are
    replaced, and a descriptor that is closed is not given to the next file that is opened."""
    files.inherited = frozenset(number for number in map(int, os.listdir("/proc/self/fd")) if _is_open(number))
    for descriptor in (0, 1, 2):
        if not _is_open(descriptor):
            os.open(os.devnull, os.O_RDONLY)  # takes the lowest free descriptor; writing to it fails as to a closed one
    for name, descriptor, errors in (("stdout", 1, "replace"), ("stderr", 2, "backslashreplace")):
        before = getattr(sys, name)
        if before is None:
            stream = _Stream(io.BufferedWriter(io.FileIO(descriptor, "w", closefd=False)), "utf-8", errors)
        else:
            buffering = {"line_buffering": before.line_buffering, "write_through": before.write_through}
            stream = _Stream(before.detach(), before.encoding, errors, **buffering)
        stream.every = descriptor == 2
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def discard(descriptor: int) -> None:
    """Drop what will be written to a descriptor, and what a stream still holds for it."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)
