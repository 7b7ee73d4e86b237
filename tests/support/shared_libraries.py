"""Shared libraries that hold nothing but a name for the loader."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_HEADER, _SEGMENT = 64, 56


def library_named(path: Path, soname: str) -> Path:
    """An ELF file of 64 bits with this DT_SONAME. No loader takes it."""
    strings = b"\0" + soname.encode() + b"\0"
    begins = _HEADER + 2 * _SEGMENT
    dynamic = struct.pack("<qQqQqQ", 14, 1, 5, 0x1000 + begins + 48, 0, 0)  # DT_SONAME, DT_STRTAB, DT_NULL
    whole = begins + len(dynamic) + len(strings)
    header = (
        b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    )
    load = struct.pack("<IIQQQQQQ", 1, 4, 0, 0x1000, 0x1000, whole, whole, 0x1000)
    section = struct.pack("<IIQQQQQQ", 2, 4, begins, 0x1000 + begins, 0, len(dynamic), len(dynamic), 8)
    path.write_bytes(header + load + section + dynamic + strings)
    return path
