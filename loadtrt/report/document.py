"""The document of a result: sections of blocks, which plain text, Markdown and HTML each write in their own way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

Tone = Literal["good", "bad", "open", "plain"]
Only = Literal["", "page", "terminal"]  # "": everywhere; "page": HTML and Markdown; "terminal": plain text


class Name(str):
    """Text from a file or a user, such as an engine's name: shown as it is, in a monospaced font."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Badge:
    """A verdict in a word."""

    text: str
    tone: Tone


@dataclass(frozen=True, slots=True)
class Named:
    """The name of a layer in a table's last column. Plain text may cut the name in its middle.

    name: as the engine has it.
    below: lines about it.
    """

    name: str
    before: str = ""
    after: str = ""
    below: tuple[str, ...] = ()


Cell: TypeAlias = str | Name | Badge | Named


@dataclass(frozen=True, slots=True)
class Words:
    """A paragraph of pieces."""

    pieces: tuple[Cell, ...]
    only: Only = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows as long as the header.

    words: how many columns, from the first on, are words; the others are numbers.
    last: how many of the last columns are words, too. Plain text puts a long cell of the very last below its row.
    folded: the line on a page that unfolds the table; "" for a table that is always shown.
    detail: places of columns that plain text leaves out.
    legend: (title, meaning) of columns; only those that are shown are explained.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    words: int = 1
    last: int = 0
    note: str = ""
    folded: str = ""
    only: Only = ""
    detail: tuple[int, ...] = ()
    legend: tuple[tuple[str, str], ...] = ()

    def notes(self, places: Iterable[int] | None = None) -> str:
        """The line below: the legend of the columns that are shown, and the note. places: theirs; None for all."""
        shown = self.header if places is None else [self.header[place] for place in places]
        texts = [f"{title}: {meaning}" for title, meaning in self.legend if title in shown]
        return "; ".join((*texts, self.note) if self.note else texts)

    def left(self, place: int) -> bool:
        """Whether a column is aligned to the left."""
        return place < self.words or place >= len(self.header) - self.last


@dataclass(frozen=True, slots=True)
class Tile:
    """A number of the headline.

    note: what else is known of the number.
    detail: a table or sentence has the number, too; plain text leaves the tile out.
    """

    name: str
    value: str
    note: str = ""
    detail: bool = False


@dataclass(frozen=True, slots=True)
class Tiles:
    tiles: tuple[Tile, ...]


@dataclass(frozen=True, slots=True)
class Notice:
    """A finding.

    lines: (name, text), such as ("remedy", "lock the clocks").
    kind: a word by which programs know the finding.
    """

    tone: Tone
    head: str
    lines: tuple[tuple[str, str], ...] = ()
    kind: str = ""
    only: Only = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart, for HTML.

    note: how to read the chart.
    instead: a table that stands for the chart in Markdown.
    """

    title: str
    svg: str
    note: str = ""
    instead: Table | None = None


@dataclass(frozen=True, slots=True)
class Code:
    """Text to copy, for HTML and Markdown."""

    text: str


@dataclass(frozen=True, slots=True)
class Data:
    """A result as JSON within an HTML page."""

    key: str
    json: str
    note: str


Block: TypeAlias = Words | Table | Tiles | Notice | Figure | Code | Data


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and the blocks below it.

    level: 1 for a result, 2 for a part of a result.
    badges: verdicts beside the heading. Plain text has those of a result above its conclusion.
    file: the result's file, where the document has several results.
    bare: plain text leaves the heading out, because the blocks speak for themselves.
    conclusion: plain text has the section at the end of the result, where a terminal is read first.
    """

    title: tuple[Cell, ...]
    blocks: tuple[Block, ...]
    level: int = 2
    badges: tuple[Badge, ...] = ()
    file: str = ""
    bare: bool = False
    conclusion: bool = False
    only: Only = ""


def words(*pieces: Cell, only: Only = "") -> Words:
    """A paragraph."""
    return Words(pieces, only)


def section(title: str, *blocks: Block, bare: bool = False, conclusion: bool = False, only: Only = "") -> Section:
    """A part of a result."""
    return Section((title,), blocks, bare=bare, conclusion=conclusion, only=only)


def known_columns(
    header: tuple[str, ...], rows: list[tuple[Cell, ...]], optional: tuple[str, ...], unknown: tuple[Cell, ...]
) -> tuple[tuple[str, ...], tuple[tuple[Cell, ...], ...]]:
    """A header and rows without the optional columns in which every cell is `unknown`."""
    kept = [
        place
        for place, title in enumerate(header)
        if title not in optional or any(row[place] not in unknown for row in rows)
    ]
    return tuple(header[place] for place in kept), tuple(tuple(row[place] for place in kept) for row in rows)
