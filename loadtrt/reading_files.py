"""Reading the files that users name: regular files and pipes, up to a size, so that no file fills the memory."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from loadtrt.errors import UsageError
from loadtrt.units import format_bytes

if TYPE_CHECKING:
    from io import BufferedReader

MOST_MODEL_BYTES = 2 << 30  # of a protobuf: larger weights are external data
MOST_RESULT_BYTES = 1 << 30
_PIECE = 1 << 20


def open_file(file: str | Path, what: str = "", *, pipes: bool = False) -> BufferedReader:
    """Open a regular file to read its bytes.

    file: the file.
    what: what the file is, for errors, such as "trace".
    pipes: whether it may be a FIFO too, such as /dev/stdin and the shell's <(…), which can be read once and in order.

    Raises UsageError for a folder, a device, a socket, and a file that cannot be opened.
    """
    try:
        mode = Path(file).stat().st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        alternative = " or a pipe" if pipes else ""
        if not (stat.S_ISREG(mode) or (pipes and stat.S_ISFIFO(mode))):
            raise UsageError(f"cannot read {_named(file, what)}: it is not a regular file{alternative}")
        return Path(file).open("rb")
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have, such as one with a NUL byte
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot read {_named(file, what)}: {why}") from None


def read_bytes(file: str | Path, what: str, most: int, *, pipes: bool = True) -> bytes:
    """The bytes of a file, at most `most`.

    file, what, pipes: as for `open_file`.

    Raises UsageError as `open_file` does, and for a longer file.
    """
    with open_file(file, what, pipes=pipes) as opened:
        try:
            status = os.fstat(opened.fileno())
            data = b""
            if stat.S_ISFIFO(status.st_mode):
                pieces = bytearray()
                while len(pieces) <= most and (piece := opened.read1(_PIECE)):
                    pieces += piece
                data = bytes(pieces)
            elif status.st_size <= most:
                data = opened.read()
        except OSError as error:
            raise UsageError(f"cannot read {_named(file, what)}: {error.strerror}") from None
    if max(len(data), status.st_size) > most:
        raise UsageError(f"cannot read {_named(file, what)}: it has more than {format_bytes(most)}")
    return data


def read_text(file: str | Path, what: str, most: int, *, pipes: bool = True) -> str:
    """The text of a file in UTF-8, with or without a byte order mark.

    file, what, most, pipes: as for `read_bytes`.

    Raises UsageError as `read_bytes` does, and UnicodeDecodeError.
    """
    return read_bytes(file, what, most, pipes=pipes).decode("utf-8-sig")


def _named(file: str | Path, what: str) -> str:
    return f"{what} {file}".strip()
