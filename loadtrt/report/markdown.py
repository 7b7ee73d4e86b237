"""Sections as Markdown in GitHub's dialect, for pull requests: words and tables, no charts. Names are escaped."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

from loadtrt.printing import printable
from loadtrt.report.document import Badge, Code, Figure, Name, Named, Notice, Table, Tiles, Words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadtrt.report.document import Block, Cell, Section

_MARKUP = re.compile(r"([\\`*_{}\[\]<>|~&#$])")
_SIGNS = {"good": "✅", "bad": "❌", "open": "❔", "plain": ""}


def markdown_page(_title: str, sections: Sequence[Section]) -> str:
    """A document as Markdown. The title is left out: the first section has one."""
    return markdown(sections)


def markdown(sections: Sequence[Section]) -> str:
    """All sections that have words or tables. Ends with a newline."""
    parts = []
    for item in sections:
        blocks = [text for block in item.blocks if (text := _block(block))]
        if blocks or item.level == 1:
            head = "".join(map(_inline, item.title)) + "".join(f" · {_inline(badge)}" for badge in item.badges)
            parts += [f"{'#' * (item.level + 1)} {head}", *blocks]
    return "\n\n".join(parts) + "\n"


def _block(block: Block) -> str:
    match block:
        case Words(only="terminal") | Notice(only="terminal") | Table(only="terminal"):
            return ""
        case Words(pieces):
            return _paragraph("".join(map(_inline, pieces)).strip())
        case Tiles(tiles):
            notes = [f"<sub>{_escaped(tile.note)}</sub>" if tile.note else "" for tile in tiles]
            rows = [[f"**{_escaped(tile.value)}**" for tile in tiles], *([notes] if any(notes) else [])]
            return "\n".join(_lines([_escaped(tile.name) for tile in tiles], [False] * len(tiles), rows))
        case Notice():
            lines = "".join(f"  \n  {_escaped(name)}: {_escaped(text)}" for name, text in block.lines)
            kind = f" ({_inline(Name(block.kind))})" if block.kind else ""
            return f"- {_SIGNS[block.tone]} **{_escaped(block.head)}**{kind}{lines}"
        case Table():
            return _table(block)
        case Figure(instead=Table() as table):
            return _table(table)
        case Code(text):
            fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
            return f"{fence}sh\n{printable(text)}\n{fence}"
        case _:
            return ""  # charts and data


def _table(table: Table) -> str:
    left = list(map(table.left, range(len(table.header))))
    rows = [[_inline(cell) for cell in row] for row in table.rows]
    made = "\n".join(_lines([_escaped(cell) for cell in table.header], left, rows))
    made += f"\n\n<sub>{_escaped(notes)}</sub>" if (notes := table.notes()) else ""
    return (
        f"<details><summary>{html.escape(printable(table.folded))}</summary>\n\n{made}\n\n</details>"
        if table.folded
        else made
    )


def _lines(header: Sequence[str], left: Sequence[bool], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield f"|{'|'.join(' :-- ' if at_left else ' --: ' for at_left in left)}|"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _inline(piece: Cell) -> str:
    match piece:
        case Badge(text, tone):
            return f"{_SIGNS[tone]} **{_escaped(text)}**".strip()
        case Named(name, before, after, below):
            lines = "".join(f"<br>{_escaped(line)}" for line in below)
            return f"{_escaped(before)}{_inline(Name(name))}{_escaped(after)}{lines}"
        case Name():
            return _code(printable(piece))
        case str():
            return _escaped(piece)


def _code(text: str) -> str:
    """A code span. A bar would end the table's cell, so it is escaped; GitHub removes the escape."""
    if not text.strip():
        return ""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{space}{text.replace('|', chr(92) + '|')}{space}{fence}"


def _escaped(text: str) -> str:
    return _MARKUP.sub(r"\\\1", printable(text))


def _paragraph(text: str) -> str:
    """The text with a beginning escaped that Markdown would take for a list or a heading."""
    return re.sub(r"^(\s*\d*)([-+.)=])", r"\1\\\2", text)
