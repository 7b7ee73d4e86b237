"""Sections as one HTML file without scripts, fonts or requests. All text is escaped."""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import loadtrt
from loadtrt.printing import printable_json
from loadtrt.report.charts.svg import element, escaped, markup
from loadtrt.report.document import Badge, Code, Data, Figure, Name, Named, Notice, Table, Tiles, Words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadtrt.report.document import Block, Cell, Section, Tile

# If a name slipped through unescaped, the browser would still run no script and fetch nothing.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_HATCH = (
    '<svg width="0" height="0" aria-hidden="true" style="position:absolute"><defs>'
    '<pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<path d="M0 0V6" class="hatching"/></pattern></defs></svg>'
)
_BREAKS = re.compile("([,/=])(?=.)")  # after which a long name may be broken
_OPTION = re.compile(r"(?<![^\s(])(--[\w-]+)")  # at whose hyphens a browser would break a line
_GLYPHS = {"good": "✓ ", "bad": "✗ ", "open": "? ", "plain": ""}
# Light, dark and printed. Colours after Okabe and Ito, with a contrast of at least 3 : 1 with the ground. They differ
# in lightness where the colour-blind see one hue, and each comes with a dash, a place or a label. s1 … s8 are lines,
# f1 … f8 areas, h0 … h7 the shades of a heat map.
STYLE = Path(__file__).with_name("page.css").read_text(encoding="utf-8")


def html_page(title: str, sections: Sequence[Section]) -> str:
    """A document as one HTML page, with the version of loadtrt below it."""
    results = [place for place, item in enumerate(sections) if item.level == 1]
    contents = _contents([(place, sections[place]) for place in results]) if len(results) > 1 else ""
    body = "\n".join(_section(place, item) for place, item in enumerate(sections))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
        f"<title>{markup(title)}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{_HATCH}\n<main>\n"
        f"{contents}{body}\n</main>\n<footer>Made by loadtrt {loadtrt.__version__}.</footer>\n</body>\n</html>\n"
    )


def _contents(results: Sequence[tuple[int, Section]]) -> str:
    links = "".join(
        f'<li><a href="#part-{place}">{"".join(map(_inline, item.title))}</a>'
        f"{_badges(item)}{f' {markup(item.file)}' if item.file else ''}</li>"
        for place, item in results
    )
    return f'<nav aria-label="Contents"><ul>{links}</ul></nav>\n'


def _section(place: int, item: Section) -> str:
    rank, blocks = f"h{item.level}", list(_blocks(item.blocks))
    if item.level > 1 and not any(blocks):
        return ""
    heading = f'<{rank} id="part-{place}">{"".join(map(_inline, item.title))}'
    heading += f"{_badges(item)}</{rank}>"
    return "\n".join(["<section>", heading, *blocks, "</section>"])


def _badges(item: Section) -> str:
    return "".join(f" {_inline(badge)}" for badge in item.badges)


def _blocks(blocks: Sequence[Block]) -> Iterator[str]:
    """Charts that follow each other stand side by side."""
    for charts, group in groupby(blocks, lambda block: isinstance(block, Figure)):
        parts = [text for block in group if (text := _block(block))]
        yield '<div class="charts">' + "\n".join(parts) + "</div>" if charts else "\n".join(parts)


def _block(block: Block) -> str:
    match block:
        case Words(only="terminal") | Notice(only="terminal") | Table(only="terminal"):
            return ""
        case Words(pieces):
            return f"<p>{''.join(map(_inline, pieces))}</p>"
        case Tiles(tiles):
            return f'<div class="tiles">{"".join(map(_tile, tiles))}</div>'
        case Notice(tone):
            kind = f" <code>{markup(block.kind)}</code>" if block.kind else ""
            lines = "".join(f"<dt>{markup(name)}</dt><dd>{_prose(text)}</dd>" for name, text in block.lines)
            head = f"<b>{_GLYPHS[tone]}{_prose(block.head)}</b>{kind}"
            return f'<div class="notice {tone}">{head}{f"<dl>{lines}</dl>" if lines else ""}</div>'
        case Figure(title, svg, note, _):
            caption = f"<b>{markup(title)}</b>" + (f" {markup(note)}" if note else "")
            return f"<figure><figcaption>{caption}</figcaption>{svg}</figure>"
        case Table():
            return _table(block)
        case Code(text):
            return f'<pre tabindex="0">{_unbroken(escaped(text))}</pre>'
        case Data(key, json, note):
            data = f'<script type="application/json" id="{markup(key)}">{_inert(json)}</script>'
            return f'<p class="note">{markup(note)}</p>{data}'


def _inline(piece: Cell) -> str:
    match piece:
        case Badge(text, tone):
            return f'<span class="badge {tone}">{_GLYPHS[tone]}{markup(text)}</span>'
        case Named(name, before, after, below):
            lines = "".join(f"<br><small>{markup(line)}</small>" for line in below)
            return f"{markup(before)}{_inline(Name(name))}{markup(after)}{lines}"
        case Name():
            return "<code>" + _BREAKS.sub(r"\1<wbr>", escaped(piece)) + "</code>"
        case str():
            return _prose(piece)


def _prose(text: str) -> str:
    return _unbroken(markup(text))


def _unbroken(escaped_text: str) -> str:
    """With options in one piece, so that they can be read and copied."""
    return _OPTION.sub(r'<span class="o">\1</span>', escaped_text)


def _tile(tile: Tile) -> str:
    note = element("small", markup(tile.note)) if tile.note else ""
    return f"<div><span>{markup(tile.name)}</span><b>{markup(tile.value)}</b>{note}</div>"


def _table(table: Table) -> str:
    kinds = ["" if table.left(place) else ' class="n"' for place in range(len(table.header))]
    cells = zip(table.header, kinds, strict=True)
    head = "".join(f'<th scope="col"{kind}>{markup(cell)}</th>' for cell, kind in cells)
    if table.last and any(row[-1] for row in table.rows):
        kinds[-1] = ' class="w"'  # long
    rows = "".join(f"<tr>{_row(row, kinds)}</tr>\n" for row in table.rows)
    made = f'<div class="wide" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>\n{rows}</tbody></table></div>'
    if notes := table.notes():
        made += f'<p class="note">{markup(notes)}</p>'
    return f"<details><summary>{markup(table.folded)}</summary>{made}</details>" if table.folded else made


def _row(row: Sequence[Cell], kinds: Sequence[str]) -> str:
    cells = "".join(f"<td{kind}>{_inline(cell)}</td>" for cell, kind in zip(row[1:], kinds[1:], strict=True))
    return f'<th scope="row">{_inline(row[0])}</th>{cells}'


def _inert(json: str) -> str:
    """The same JSON with every character escaped that an HTML parser could take for markup."""
    json = printable_json(json)
    for sign in "<>&":
        json = json.replace(sign, f"\\u{ord(sign):04x}")
    return json
