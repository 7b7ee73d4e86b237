"""What a shared library is, known without loading it, which would run its code."""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import TYPE_CHECKING

from loadtrt.errors import UsageError
from loadtrt.reading_files import open_file

if TYPE_CHECKING:
    from typing import BinaryIO

_MAGIC = b"\x7fELF\x02\x01"  # 64 bits, little-endian, as all that CUDA runs on
_LOAD, _DYNAMIC = 1, 2  # types of segments
_STRINGS, _SONAME = 5, 14  # tags of the dynamic section
_MOST_DYNAMIC_BYTES, _MOST_NAME_BYTES = 1 << 16, 256


def soname(name: str, option: str, remedy: str) -> str:
    """The name that a library has for the loader (DT_SONAME), such as libnvinfer_lean.so.11, whatever its file is
    called; "" where it has none.

    option, remedy: for errors. Raises UsageError for a file that cannot be read or is not a shared library.
    """
    with open_file(name, option) as file:
        if not file.peek(4).startswith(_MAGIC[:4]):
            raise UsageError(f"{option} {name} is not a shared library: {remedy}")
        with suppress(struct.error, ValueError, OverflowError):  # a file that is cut short
            return _soname(file)
    return ""


def _soname(file: BinaryIO) -> str:
    header = file.read(64)
    if not header.startswith(_MAGIC):
        return ""
    (start,), (size, count) = struct.unpack_from("<Q", header, 32), struct.unpack_from("<HH", header, 54)
    file.seek(start)
    table = file.read(size * count)
    segments = [struct.unpack_from("<IIQQQQ", table, size * number) for number in range(count)]
    entries: dict[int, int] = {}
    for kind, _, offset, *_, length in segments:
        if kind == _DYNAMIC:
            file.seek(offset)
            section = file.read(min(length, _MOST_DYNAMIC_BYTES))
            entries |= dict(struct.iter_unpack("<qQ", section[: len(section) // 16 * 16]))
    if _SONAME not in entries or _STRINGS not in entries:
        return ""
    for kind, _, offset, address, _, length in segments:
        if kind == _LOAD and address <= entries[_STRINGS] < address + length:
            file.seek(offset + entries[_STRINGS] - address + entries[_SONAME])
            return file.read(_MOST_NAME_BYTES).partition(b"\0")[0].decode("utf-8", "replace")
    return ""
