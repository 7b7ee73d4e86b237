"""The bytes of a trace's file, unpacked where gzip has packed them, as blocks of whole lines."""

from __future__ import annotations

import gzip
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from loadtrt.errors import UsageError
from loadtrt.reading_files import open_file
from loadtrt.recognizing import HEAD_BYTES, recognized

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST_LINE = 1 << 26  # bytes: a request may be logged with its prompt
_BLOCK_BYTES = 1 << 22


@contextmanager
def opened_trace(file: str) -> Iterator[BinaryIO | gzip.GzipFile]:
    """The bytes of a file, unpacked where gzip has packed them."""
    with open_file(file, "trace", takes=("gzip",)) as opened:
        if not opened.peek(2).startswith(b"\x1f\x8b"):
            yield opened
            return
        with gzip.open(opened) as unpacked:
            yield unpacked


def blocks_of(file: str, opened: BinaryIO | gzip.GzipFile) -> Iterator[tuple[int, bytes]]:
    """(number of the first line, whole lines), none of them so long that it fills the memory."""
    number, rest = 1, b""
    while piece := opened.read(min(_BLOCK_BYTES, LONGEST_LINE)):
        if number == 1 and not rest:
            piece = piece.removeprefix(b"\xef\xbb\xbf")
            if found := recognized(piece[:HEAD_BYTES]):
                raise UsageError(f"cannot read trace {file}: it is {found[1]}")
        length = len(rest) + (piece + b"\n").index(b"\n") + 1
        lines, end, after = piece.rpartition(b"\n")
        if end and length <= LONGEST_LINE:
            block = rest + lines + end
            yield number, block
            number += block.count(b"\n")
            rest = after
        else:
            rest += after
        if length > LONGEST_LINE:
            raise UsageError(
                f"{file}:{number} has more than {LONGEST_LINE} bytes, the most of a line: write one request a line, "
                "with little more than its instant"
            )
    if rest:
        yield number, rest + b"\n"


def first_line(block: bytes) -> tuple[bytes, int]:
    """(the first line that is neither blank nor a comment, how many lines are before it); empty where there is none."""
    for skipped, line in enumerate(block.split(b"\n")):
        if line.strip() and not line.startswith(b"#"):
            return line.rstrip(b"\r"), skipped
    return b"", 0


def written_lines(first: int, block: bytes, skip: int) -> tuple[list[int], list[bytes]]:
    """(numbers, lines) without the first `skip`, blank ones and comments."""
    lines = block.split(b"\n")
    numbers = [at for at, line in enumerate(lines) if line.strip() and not line.startswith(b"#")][skip:]
    return [first + at for at in numbers], [lines[at] for at in numbers]
