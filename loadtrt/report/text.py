"""How results are written as text: numbers that may not be known, lines that keep to a width, columns."""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING

from loadtrt.units import format_bytes, format_count, format_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from loadtrt.measure.facts import MemoryBill

UNKNOWN = "–"
_WITHIN = re.compile(r"(?<=\d) (?=\d{3}\b|(?:[nµm]?s|m?J|W|MHz|[KMGT]?i?B|%)(?!\w))|(?<=[<±×]) | (?=<)")


def time_or(ns: float | None) -> str:
    """A time, or the sign for one that is not known."""
    return UNKNOWN if ns is None else format_duration(ns)


def count_or(count: float | None) -> str:
    """A number, or the sign for one that is not known."""
    return UNKNOWN if count is None else format_count(count)


def rate_or(per_s: float | None) -> str:
    """A rate, or the sign for one that is not known."""
    return UNKNOWN if per_s is None else f"{format_count(per_s)}/s"


def share_or(share: float | None) -> str:
    """A share in %, or the sign for one that is not known."""
    return UNKNOWN if share is None else percent_text(share)


def between(low: float | None, high: float | None, shown: Callable[[float], str] = format_duration) -> str:
    """An interval, of times where nothing else is said, as far as it is bounded."""
    if low is None:
        return UNKNOWN if high is None else f"at most {shown(high)}"
    return f"at least {shown(low)}" if high is None else f"{shown(low)} .. {shown(high)}"


def percent_text(share: float) -> str:
    """Three digits: "1.23 %", "1 450 %"."""
    if share >= 9.995:
        return f"{format_count(100 * share)} %"
    return f"{100 * share:.3g} %" if share >= 1e-6 else "0 %"


def joules_text(energy: float | None) -> str:
    """Energy in the unit that fits."""
    if energy is None:
        return UNKNOWN
    return f"{format_count(energy)} J" if energy >= 1 else f"{format_count(1000 * energy)} mJ"


def unbroken(text: str) -> str:
    """With no-break spaces within a number, between a number and its unit, and around the < of an objective."""
    return _WITHIN.sub("\u00a0", text)


def wrapped(text: str, indent: str = "", more: str = "  ", width: int = 80) -> list[str]:
    """Lines of at most `width` columns, broken between words: the first behind `indent`, the others behind that and
    `more`. Longer words, such as names, stay whole, to be copied and searched for, and so do numbers with units."""
    lines = textwrap.wrap(
        unbroken(text),
        width,
        initial_indent=indent,
        subsequent_indent=indent + more,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace("\u00a0", " ") for line in lines]


def shortened(text: str, most: int) -> str:
    """At most so many characters: the middle is left out."""
    tail = (most - 1) // 2
    return text if len(text) <= most else f"{text[: most - 1 - tail]}…{text[len(text) - tail :]}"


def aligned(rows: Sequence[Sequence[str]], words: Collection[int] = (0,)) -> Iterator[str]:
    """A line for each row: the columns in `words` to the left, the others, of numbers, to the right. An empty row is an
    empty line."""
    return (line.rstrip() for line in padded(rows, words))


def padded(rows: Sequence[Sequence[str]], words: Collection[int]) -> Iterator[str]:
    """The same, with blanks up to the end of the last column."""
    widths = [max(len(row[column]) for row in rows if row) for column in range(len(rows[0]))]
    for row in rows:
        cells = enumerate(zip(row, widths, strict=False))  # an empty row has no cells
        yield "  ".join(cell.ljust(width) if at in words else cell.rjust(width) for at, (cell, width) in cells)


def memory_text(memory: MemoryBill) -> str:
    """The memory bill in one line."""
    contexts, buffers = memory.contexts, memory.buffers

    def known(count: int | None) -> str:
        return "?" if count is None else format_bytes(count)

    free = f", {format_bytes(memory.free_bytes)} free" if memory.free_bytes is not None else ""
    return (
        f"memory: {known(memory.weights_bytes)} weights + {contexts} × ({known(memory.context_bytes)} context + "
        f"{buffers} × {format_bytes(memory.device_io_bytes)} I/O) = {format_bytes(memory.device_bytes)}{free}; "
        f"host {format_bytes(memory.host_bytes)}"
    )
