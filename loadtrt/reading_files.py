"""Reading the files that users name: regular files and pipes, up to a size, so that no file fills the memory."""

from __future__ import annotations

import errno
import json
import os
import stat
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loadtrt.errors import UsageError
from loadtrt.printing import shortened
from loadtrt.recognizing import HEAD_BYTES, recognized
from loadtrt.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Collection
    from io import BufferedReader

MOST_MODEL_BYTES = 2 << 30  # of a protobuf: larger weights are external data
MOST_RESULT_BYTES = 1 << 30
_ENGINES = (".onnx", ".plan", ".engine", ".trt")
_PIECE = 1 << 20
_MOST_NUMBER = 1e24  # more than any time in ns, count, rate or size; sums and squares of such are floats, too
_MOST_DIGITS = 24


def open_file(
    file: str | Path, what: str = "", *, pipes: bool = False, takes: Collection[str] | None = ()
) -> BufferedReader:
    """Open a regular file to read its bytes.

    file: the file.
    what: what the file is, for errors, such as "trace".
    pipes: whether it may be a FIFO too, such as /dev/stdin and the shell's <(…), which can be read once and in order.
    takes: kinds of `recognized` that the reader takes, such as "gzip"; None for all of them.

    Raises UsageError for a folder, a device, a socket, a file that cannot be opened, and one that is something else by
    its first bytes, such as a Git LFS pointer, a web page or an archive.
    """
    try:
        mode = Path(file).stat().st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        alternative = " or a pipe" if pipes else ""
        if not (stat.S_ISREG(mode) or (pipes and stat.S_ISFIFO(mode))):
            raise UsageError(f"cannot read {_named(file, what)}: it is not a regular file{alternative}")
        opened = Path(file).open("rb")  # noqa: SIM115  # whoever reads it closes it
        found = None if takes is None else recognized(opened.peek(HEAD_BYTES)[:HEAD_BYTES])
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have, such as one with a NUL byte
        why = getattr(error, "strerror", None) or error
        if isinstance(error, FileNotFoundError) and os.path.islink(file):
            why = f"it is a link to {os.readlink(file)}, which is missing"
        if what in ("model", "plan") and os.path.isdir(file) and (inside := _engine_in(Path(file))):
            why = f"it is a folder; name the file in it, such as {inside}"
        raise UsageError(f"cannot read {_named(file, what)}: {why}") from None
    if found and takes is not None and found[0] not in takes:
        opened.close()
        raise UsageError(f"cannot read {_named(file, what)}: it is {found[1]}")
    return opened


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


def read_text(file: str | Path, what: str, most: int) -> str:
    """The text of a file in UTF-8, with or without a byte order mark.

    file, what, most: as for `read_bytes`.

    Raises UsageError as `read_bytes` does, and UnicodeDecodeError.
    """
    return read_bytes(file, what, most).decode("utf-8-sig")


def parse_json(text: str | bytes) -> Any:
    """What JSON holds. Control characters may be bare in strings, as TensorRT 8.6 leaves them. Raises RecursionError,
    and ValueError for what is not JSON, for NaN and infinity, which Python would read, for numbers that no float
    holds, and for half of a character."""
    content = json.loads(text, strict=False, parse_constant=_no_number, parse_float=_finite, parse_int=_whole)
    return utf8(content)


def utf8(value: Any) -> Any:
    """The value. Raises ValueError where a text in it has a lone surrogate, as an escape may write it: no file that is
    made of it could hold that."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"'{shortened(value)}' has half of a character: write the character itself") from None
    elif isinstance(value, dict | list):
        for item in chain(value, value.values()) if isinstance(value, dict) else value:
            if not isinstance(item, int | float):  # histograms are thousands of them
                utf8(item)
    return value


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is not a number in JSON")


def _finite(text: str) -> float:
    number = float(text)
    if abs(number) > _MOST_NUMBER:
        raise ValueError(f"{shortened(text)} is too large")
    return number


def _whole(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"{shortened(text)} is too large")
    return int(text)


def _engine_in(folder: Path) -> Path | None:
    """An engine in a folder, such as in Triton's repository of models; None where the first thousand files are none."""
    files = (Path(path) / name for path, _, names in os.walk(folder) for name in sorted(names))
    return next((file for file in islice(files, 1000) if file.suffix in _ENGINES), None)


def _named(file: str | Path, what: str) -> str:
    return f"{what} {file}".strip()
