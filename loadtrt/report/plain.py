"""Sections as plain text, 80 columns wide; long tables and layers' names may take 100. The conclusion comes last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtrt.printing import NAME, SENTENCE, printable
from loadtrt.report.document import Badge, Name, Named, Notice, Section, Table, Tiles, Words
from loadtrt.report.formatting import short_names, wrapped
from loadtrt.report.sections import sections_of
from loadtrt.results.fleet_result import FleetResult
from loadtrt.results.one_model import models_of
from loadtrt.results.run_result import RunResult

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadtrt.report.document import Block, Cell
    from loadtrt.report.result_files import Result

WIDTH = 80  # columns
TABLE_WIDTH = 100  # columns, of a table of many rows, and of one whose last column is a layer's name
_FEW = 3  # rows, which are as easily read as sentences
_LEAST_NAME = 30
_SIGNS = {"good": "✓ ", "bad": "✗ ", "open": "! ", "plain": ""}
_ALONE = {"cause": "", "remedy": "→ ", "why": "→ "}  # lines of a notice that need no label, by their names


def plain_page(_title: str, sections: Sequence[Section]) -> str:
    """A document as plain text. The title is left out: the first section has one."""
    return plain(sections)


def terminal_text(result: Result) -> str:
    """One result, as the command that made it shows it."""
    return plain(list(sections_of(result, "", "result")))


def verdict_line(result: Result) -> str:
    """What speaks against a result, and the first reason, in one line; of several models the name of the worst, too."""
    if isinstance(result, RunResult) and len(result.models) > 1:
        name, worst = min(models_of(result).items(), key=lambda item: _rank(item[1]))
        return f"{name}: {verdict_line(worst)}"
    first, *others = sections_of(result, "", "result")
    badges = " · ".join(_text(badge) for badge in first.badges if badge.tone != "good")
    blocks = [block for item in (first, *others) if item.conclusion for block in item.blocks]
    notices = [block for block in blocks if isinstance(block, Notice)]
    bad = [notice for notice in notices if notice.tone == "bad"]
    against = [notice for notice in bad if notice.lines] or bad or notices
    if isinstance(result, FleetResult):
        reason = result.doubt or "there are demands that no number of GPUs serves as the objectives want"
    elif against:
        parts = (against[0].head, *(text for name, text in against[0].lines if name in _ALONE))
        errors = (notice.head for notice in bad if not notice.lines and notice is not against[0])
        reason = "; ".join((*parts, *errors))
    else:
        reason = next(("".join(map(_text, block.pieces)) for block in blocks if isinstance(block, Words)), "")
    return ": ".join(filter(None, (badges, reason)))


def _rank(run: RunResult) -> int:
    """The place of a model in the order in which exit codes are those of the worst."""
    wrong = (run.outcome == "failed", not run.valid, run.verdict == "missed", run.verdict == "undecided")
    return next((place for place, is_so in enumerate(wrong) if is_so), len(wrong))


def plain(document: Sequence[Section]) -> str:
    """Words, tables and notices of all sections. Begins with an empty line and ends with a newline."""
    lines = [""]
    results: list[list[Section]] = []
    for item in document:
        if item.only == "page":
            continue
        if item.level == 1 or not results:
            results.append([])
        results[-1].append(item)
    for result in results:
        for line in ("", *_result(result)):
            if line or lines[-1]:  # never two empty lines
                lines.append(line)
    return "\n".join(lines).rstrip() + "\n"


def _result(parts: Sequence[Section]) -> Iterator[str]:
    for item in parts:
        if not item.conclusion:
            yield from _section(item)
    badges = parts[0].badges if parts[0].level == 1 else ()
    of_items = ((item, list(_section(item))) for item in parts if item.conclusion)
    conclusion = [(item.bare, lines) for item, lines in of_items if lines]
    if badges or conclusion:
        yield ""
    if badges:
        yield " · ".join(map(_text, badges))
    for place, (bare, lines) in enumerate(conclusion):
        yield from lines[1:] if badges and not place and bare and not lines[0] else lines


def _section(item: Section) -> Iterator[str]:
    """The lines, with an empty one before a heading, and before and after a table."""
    blocks = [lines for block in item.blocks if (lines := list(_block(block, "  " if item.level == 1 else "")))]
    if item.level == 1 or (blocks and not item.bare):
        badges = "".join(f" · {_text(badge)}" for badge in item.badges) if item.level > 1 else ""
        yield ""
        yield from wrapped("".join(map(_text, item.title)) + badges)
        if item.level > 1 and blocks and not blocks[0][0]:
            blocks[0] = blocks[0][1:]
    for lines in blocks:
        yield from lines
    if any(isinstance(block, Table | Tiles) for block in item.blocks) or (blocks and not item.bare):
        yield ""


def _block(block: Block, indent: str) -> Iterator[str]:
    match block:
        case Words(pieces, only) if only != "page":
            yield from wrapped("".join(map(_text, pieces)).strip(), indent)
        case Tiles(tiles):
            rows = tuple((tile.name, tile.value, tile.note) for tile in tiles if not tile.detail)
            if rows:
                yield from _table(Table(("", "", ""), rows, last=1))
        case Notice() if block.only != "page":
            kind = f"{block.kind}: " if block.kind else ""
            yield from wrapped(_SIGNS[block.tone] + kind + printable(block.head, SENTENCE), more="  ")
            for name, text in block.lines:
                yield from wrapped(_ALONE.get(name, f"{name}: ") + printable(text, SENTENCE), "    ")
        case Table() if block.only != "page" and block.rows:
            yield from _table(block)


def _table(table: Table) -> Iterator[str]:
    """A line for the header and one for each row, or a sentence for each row where lines would be too long."""
    width = len(table.header)
    kept = [
        place
        for place in range(width)
        if place not in table.detail and any(map(_text, (table.header[place], *(row[place] for row in table.rows))))
    ]
    hanging = table.last > 0 and kept[-1:] == [width - 1]
    columns = kept[:-1] if hanging else kept
    cells = [
        [table.header[place] for place in columns],
        *([_text(row[place]) for place in columns] for row in table.rows),
    ]
    lines = list(_aligned(cells, [table.left(place) for place in columns]))
    yield ""
    if max(map(len, lines)) > (WIDTH if len(table.rows) <= _FEW else TABLE_WIDTH):
        yield from _sentences(table, columns, hanging)
    else:
        lasts = _hanging(table, len(lines[0])) if hanging else [("", ())] * len(lines)
        for line, (last, below) in zip(lines, lasts, strict=True):
            if shown := f"{line}  {last}".rstrip() if last else line.rstrip():
                yield shown
            yield from below
    yield from wrapped(printable(table.notes(kept), SENTENCE))


def _aligned(rows: Sequence[Sequence[str]], left: Sequence[bool]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(row, widths, left, strict=True)
        yield "  ".join(cell.ljust(width) if at_left else cell.rjust(width) for cell, width, at_left in cells)


def _hanging(table: Table, taken: int) -> list[tuple[str, Sequence[str]]]:
    """(what ends the line, lines below it) of the header and of each row, for a last column of words. taken: columns
    that the others take."""
    cells = [row[-1] for row in table.rows]
    names = [cell for cell in cells if isinstance(cell, Named)]
    affixes = max((len(cell.before) + len(cell.after) for cell in names), default=0)
    short = short_names((cell.name for cell in names), max(_LEAST_NAME, TABLE_WIDTH - taken - 2 - affixes))
    endings: list[tuple[str, Sequence[str]]] = [(table.header[-1], ())]
    for cell in cells:
        if isinstance(cell, Named):
            below = [line for text in cell.below for line in wrapped(printable(text, SENTENCE), " " * 6)]
            endings.append((f"{cell.before}{short[cell.name]}{cell.after}", below))
        elif taken + 2 + len(text := _text(cell)) <= WIDTH:
            endings.append((text, ()))
        else:
            endings.append(("", wrapped(text, "    ")))
    return endings


def _sentences(table: Table, columns: Sequence[int], hanging: bool) -> Iterator[str]:
    for row in table.rows:
        first, *others = columns
        pairs = (f"{table.header[place]} {text}".strip() for place in others if (text := _text(row[place])))
        yield from wrapped(f"{_text(row[first])}: {', '.join(pairs)}")
        if hanging and (last := _text(row[-1])):
            yield from wrapped(last, "    ")


def _text(cell: Cell) -> str:
    match cell:
        case Badge(text):
            return text
        case Named(name, before, after):
            return printable(f"{before}{name}{after}", NAME)
        case Name():
            return printable(cell, NAME)
        case str():
            return printable(cell, SENTENCE)
