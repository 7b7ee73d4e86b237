"""What a report is made of: sections of blocks, which HTML and Markdown each write in their own way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Tone = Literal["good", "bad", "open", "plain"]


class Name(str):
    """Text from a file or a user, such as an engine's name: shown as it is, in the letters of code."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Badge:
    """A verdict in a word."""

    text: str
    tone: Tone


Cell: TypeAlias = str | Name | Badge


@dataclass(frozen=True, slots=True)
class Words:
    """A paragraph of pieces."""

    pieces: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows as long as the header. words: how many columns, from the first on, are of words and not of numbers; last:
    whether the last one is, too. folded: what to click on to see it, "" for a table that is always seen."""

    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    words: int = 1
    last: bool = False
    note: str = ""
    folded: str = ""


@dataclass(frozen=True, slots=True)
class Tile:
    """A number of the headline, with what there is to know of it below."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Tiles:
    tiles: tuple[Tile, ...]


@dataclass(frozen=True, slots=True)
class Notice:
    """A finding: evidence first."""

    tone: Tone
    head: str
    lines: tuple[tuple[str, str], ...]
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart. note: how to read it; instead: where there are no charts."""

    title: str
    svg: str
    note: str = ""
    instead: Table | None = None


@dataclass(frozen=True, slots=True)
class Code:
    """Text to be copied."""

    text: str


@dataclass(frozen=True, slots=True)
class Data:
    """A result for programs, within the page. key: its id; note: what it is, in words."""

    key: str
    json: str
    note: str


Block: TypeAlias = Words | Table | Tiles | Notice | Figure | Code | Data


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands below it. level: 1 for a result, 2 for a part of one. file: the result's, where others
    stand beside it."""

    title: tuple[Cell, ...]
    blocks: tuple[Block, ...]
    level: int = 2
    badges: tuple[Badge, ...] = ()
    file: str = ""


def words(*pieces: Cell) -> Words:
    """A paragraph."""
    return Words(pieces)


def section(title: str, *blocks: Block) -> Section:
    """A part of a result."""
    return Section((title,), blocks)
