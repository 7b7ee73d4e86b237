"""Tables whose last column is a layer's name: names are long, and what tells them apart may be anywhere in them."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadtrt.report.text import UNKNOWN, aligned, padded, shortened, wrapped

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

WIDTH = 100  # columns
_LEAST_NAME = 30
_STEP = 6
_LEFT = {"type", "precision", ""}  # the columns of words; numbers stand at the right
_REFORMAT = re.compile(r"Reformatting CopyNode for (?:(In|Out)put Tensor (\d+) to (.+)|Network ((?:In|Out)put .+))")


@dataclass(frozen=True, slots=True)
class NamedRow:
    """Cells, and in the last column the name with what stands before and after it."""

    cells: Sequence[str]
    name: str
    before: str = ""
    after: str = ""


def printable(text: str) -> str:
    """The text with what would break a line or steer a terminal (line feeds, escapes, ...) written as in Python."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def wide(text: str, indent: str = "", more: str = "  ") -> list[str]:
    """Lines of at most WIDTH columns."""
    return wrapped(printable(text), indent, more, WIDTH)


def named_table(header: Sequence[str], rows: Sequence[NamedRow]) -> Iterator[str]:
    """A line for the header, which names the last column too, and one for each row. Columns in which no row tells
    anything are left out. Lines keep to WIDTH unless a name must be longer to be told from others."""
    kept = [place for place in range(len(header) - 1) if any(row.cells[place] not in ("", UNKNOWN) for row in rows)]
    cells = [[cells[place] for place in kept] for cells in (header, *(row.cells for row in rows))]
    lines = list(padded(cells, _words(cells[0])))
    affixes = max((len(row.before) + len(row.after) for row in rows), default=0)
    width = max(_LEAST_NAME, WIDTH - len(lines[0]) - 2 - affixes)
    short = short_names((row.name for row in rows), width)
    yield f"{lines[0]}  {header[-1]}"
    for line, row in zip(lines[1:], rows, strict=True):
        yield f"{line}  {row.before}{short[row.name]}{row.after}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A line for the header and one for each row."""
    return aligned([header, *rows], _words(header))


def _words(header: Sequence[str]) -> list[int]:
    return [place for place, title in enumerate(header) if title in _LEFT]


def short_names(names: Iterable[str], width: int) -> dict[str, str]:
    """Each name in at most `width` columns, cut in the middle; in more where two would look the same.

    TensorRT's reformats are called by what they serve, "input 0 of conv1": the type beside it says the rest.
    """
    waiting = {name: _readable(name) for name in names}
    short: dict[str, str] = {}
    while waiting:
        cut = {name: shortened(text, width) for name, text in waiting.items()}
        alike = Counter([*cut.values(), *short.values()])
        done = {name: text for name, text in cut.items() if alike[text] == 1 or text == waiting[name]}
        short |= done
        waiting = {name: text for name, text in waiting.items() if name not in done}
        width += _STEP
    return short


def _readable(name: str) -> str:
    name = printable(name)
    match = _REFORMAT.fullmatch(name)
    if not match:
        return name or "(no name)"
    if match[4]:
        return f"network {match[4][0].lower()}{match[4][1:]}"
    return f"{match[1].lower()}put {match[2]} of {match[3]}"
