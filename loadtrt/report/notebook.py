"""A result in a notebook: what the terminal shows, as HTML without scripts and style sheets.

Styles stand in the elements themselves, as a notebook is another's page; colours are readable on light and on dark.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from loadtrt.report.charts.svg import escaped, markup
from loadtrt.report.document import Badge, Name, Named, Notice, Table, Tiles, Words
from loadtrt.report.sections import sections_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadtrt import results
    from loadtrt.report.document import Block, Cell, Section
    from loadtrt.report.result_files import Result

_COLOURS = {"good": "#0a8a58", "bad": "#dc3d44", "open": "#a06e00", "plain": "inherit"}
_SIGNS = {"good": "✓ ", "bad": "✗ ", "open": "? ", "plain": ""}
_CELL = "padding:1px 10px 1px 0;vertical-align:top;white-space:nowrap;border:0;text-align:"


def html_of(result: results.Result) -> str:
    """The result's sections as one element. All text is escaped."""
    parts = [text for item in sections_of(cast("Result", result), "", "result") if (text := _section(item))]
    style = "line-height:1.4;max-width:70em;overflow-x:auto"
    return f'<div class="loadtrt" style="{style}">{"".join(parts)}</div>'


def _section(item: Section) -> str:
    if item.only == "page":
        return ""
    blocks = [text for block in item.blocks if (text := _block(block))]
    badges = "".join(f" {_inline(badge)}" for badge in item.badges)
    if item.level == 1:
        title = f'<div style="font-size:1.15em">{"".join(map(_inline, item.title))}{badges}</div>'
        return title + "".join(blocks)
    if not blocks:
        return ""
    shown = (
        "" if item.bare else f'<div style="margin-top:.6em"><b>{"".join(map(_inline, item.title))}</b>{badges}</div>'
    )
    return shown + "".join(blocks)


def _block(block: Block) -> str:
    match block:
        case Words(only="page") | Notice(only="page") | Table(only="page"):
            return ""
        case Words(pieces):
            return f'<div style="margin:.2em 0">{"".join(map(_inline, pieces)).strip()}</div>'
        case Tiles(tiles):
            return "".join(_tile(tile.name, tile.value, tile.note) for tile in tiles if not tile.detail)
        case Notice(tone, head, lines):
            more = "".join(
                f'<div style="margin-left:1.4em">{markup(name)}: {markup(text)}</div>' for name, text in lines
            )
            kind = f" <code>{markup(block.kind)}</code>" if block.kind else ""
            return f'<div style="margin:.3em 0">{_inline(Badge(head, tone))}{kind}{more}</div>'
        case Table() if block.rows:
            return "".join(_table(block))
        case _:
            return ""  # charts, code and data


def _tile(name: str, value: str, note: str) -> str:
    said = f' <span style="opacity:.7">{markup(note)}</span>' if note else ""
    return f'<div style="margin:.1em 0">{markup(name)} <b>{markup(value)}</b>{said}</div>'


def _table(table: Table) -> Iterator[str]:
    kept = [place for place in range(len(table.header)) if place not in table.detail]
    sides = ["left" if table.left(place) else "right" for place in kept]
    if table.folded:
        yield f"<details><summary>{markup(table.folded)}</summary>"
    yield '<table style="border-collapse:collapse;margin:.4em 0;font-size:1em;color:inherit"><tr>'
    for place, side in zip(kept, sides, strict=True):
        yield f'<th style="{_CELL}{side}">{markup(table.header[place])}</th>'
    for row in table.rows:
        yield "</tr><tr>"
        for place, side in zip(kept, sides, strict=True):
            yield f'<td style="{_CELL}{side}">{_inline(row[place])}</td>'
    yield "</tr></table>"
    if notes := table.notes(kept):
        yield f'<div style="opacity:.7">{markup(notes)}</div>'
    if table.folded:
        yield "</details>"


def _inline(piece: Cell) -> str:
    match piece:
        case Badge(text, tone):
            return f'<b style="color:{_COLOURS[tone]}">{_SIGNS[tone]}{markup(text)}</b>'
        case Named(name, before, after, below):
            lines = "".join(f"<br>{markup(line)}" for line in below)
            return f"{markup(before)}<code>{markup(name)}</code>{markup(after)}{lines}"
        case Name():
            return f"<code>{escaped(piece)}</code>"
        case str():
            return markup(piece)
