"""Sections as one HTML file without scripts, fonts or requests. All text is escaped."""

from __future__ import annotations

import re
from itertools import groupby
from typing import TYPE_CHECKING

import loadtrt
from loadtrt.printing import printable_json
from loadtrt.report.charts.svg import element, escaped
from loadtrt.report.document import Badge, Code, Data, Figure, Name, Named, Notice, Table, Tiles, Words
from loadtrt.report.formatting import unbroken
from loadtrt.report.sections import sections, title_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadtrt.report.document import Block, Cell, Section, Tile
    from loadtrt.report.result_files import Loaded

# If a name slipped through unescaped, the browser would still run no script and fetch nothing.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_HATCH = (
    '<svg width="0" height="0" aria-hidden="true" style="position:absolute"><defs>'
    '<pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<path d="M0 0V6" class="hatching"/></pattern></defs></svg>'
)
_BREAKS = re.compile("([,/=])(?=.)")  # after which a long name may be broken
_OPTION = re.compile(r"(?<!\S)(--[\w-]+)")  # at whose hyphens a browser would break a line
_GLYPHS = {"good": "✓ ", "bad": "✗ ", "open": "? ", "plain": ""}


# Light, dark and printed. Colours after Okabe and Ito, with a contrast of at least 3 : 1 with the ground. They differ
# in lightness where the colour-blind see one hue, and each comes with a dash, a place or a label.
_LIGHT = """--ground:#fff;--ink:#1b1f24;--soft:#5a6370;--line:#d8dde3;--grid:#e8ebef;--panel:#f5f7f9;--on:#fff;
--c1:#0b56af;--c2:#d67a00;--c3:#00755a;--c4:#c974ab;--c5:#4d3a52;--c6:#6d7683;--c7:#3a86c8;--c8:#7a3e1e;
--good:#00704f;--bad:#b00020;--open:#8a6100;--heat:#08306b;--slow:#e69f0055;--shade:#0000000d;--edge:#0005"""
_DARK = """--ground:#14171b;--ink:#e6e9ed;--soft:#a2abb6;--line:#3a414a;--grid:#262c33;--panel:#1c2126;--on:#101316;
--c1:#4c95f5;--c2:#e8912a;--c3:#37b38c;--c4:#f0b9de;--c5:#f7ee9a;--c6:#8b949e;--c7:#9fd3ff;--c8:#d8a08a;
--good:#4fd0a0;--bad:#ff6b6b;--open:#e8c547;--heat:#bfe0ff;--slow:#e69f0055;--shade:#ffffff12;--edge:#fff5"""
_SHADES = (0.14, 0.24, 0.35, 0.46, 0.58, 0.7, 0.84, 1.0)
_DASHES = ("", "8 3", "5 2 1 2", "12 3 3 3", "4 3", "9 2 2 2 2 2", "14 4", "3 2 1 2")

_PAGE = """
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1060px;margin:0 auto;padding:20px 20px 8px}
footer{max-width:1060px;margin:0 auto;padding:8px 20px 24px;color:var(--soft);font-size:13px}
h1{font-size:23px;line-height:1.3;margin:12px 0 4px;overflow-wrap:anywhere}
h2{font-size:17px;margin:30px 0 8px;padding-top:12px;border-top:1px solid var(--line);overflow-wrap:anywhere}
section+section>h1{margin-top:48px;padding-top:18px;border-top:3px solid var(--line)}
p{margin:6px 0;overflow-wrap:anywhere}
code,pre{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:.87em}
h1 code{font:inherit}
code{overflow-wrap:anywhere}
pre{background:var(--panel);border:1px solid var(--line);border-radius:6px;padding:10px 12px;margin:8px 0;
white-space:pre-wrap;overflow-wrap:anywhere}
pre span{white-space:nowrap}
nav ul{list-style:none;margin:0 0 12px;padding:0;columns:2 340px}
nav li{padding:3px 0;break-inside:avoid}
a{color:var(--c1)}
.badge{display:inline-block;font:600 13px/1.3 system-ui,sans-serif;padding:2px 8px;border-radius:4px;white-space:nowrap;
border:1px solid currentColor;vertical-align:2px}
h1 .badge{vertical-align:4px}
td .badge{vertical-align:0;font-size:12px;padding:0 6px}
.good{color:var(--good)}.bad{color:var(--bad)}.open{color:var(--open)}.plain{color:var(--soft)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:10px;margin:14px 0}
.tiles div{background:var(--panel);border:1px solid var(--line);border-radius:6px;padding:8px 12px}
.tiles span{display:block;color:var(--soft);font-size:13px}
.tiles b{display:block;font-size:20px;line-height:1.3;overflow-wrap:anywhere;font-variant-numeric:tabular-nums}
.tiles small{display:block;overflow-wrap:anywhere;color:var(--soft);font-size:12px;line-height:1.35}
.notice{background:var(--panel);border-left:4px solid currentColor;border-radius:0 6px 6px 0;padding:8px 12px;
margin:8px 0;break-inside:avoid}
.notice dl{display:grid;grid-template-columns:max-content 1fr;gap:0 10px;margin:4px 0 0;color:var(--ink);font-size:14px}
.notice dt{color:var(--soft)}
.notice dd{margin:0;overflow-wrap:anywhere}
.wide{overflow-x:auto;margin:8px 0;background:linear-gradient(to left,var(--ground) 40%,transparent) right/40px 100%
no-repeat local,linear-gradient(to left,var(--edge),transparent) right/16px 98% no-repeat}
table{border-collapse:collapse;font-size:13.5px;font-variant-numeric:tabular-nums}
th,td{padding:3px 12px 3px 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--grid)}
td code,th code{overflow-wrap:normal}
thead th{color:var(--soft);font-weight:500;border-bottom:1px solid var(--line);vertical-align:bottom}
tbody th{font-weight:500}
td.w{min-width:15em}
td.n,th.n{text-align:right;white-space:nowrap}
.note{color:var(--soft);font-size:13px;margin:4px 0}
details{margin:8px 0}
summary{cursor:pointer;color:var(--soft)}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(430px,100%),1fr));gap:18px 20px;margin:12px 0;
align-items:start}
figure{margin:0;min-width:0;break-inside:avoid}
figcaption{font-size:13px;line-height:1.4;color:var(--soft);margin-bottom:2px}
figcaption b{color:var(--ink);font-size:14px}
figure svg{display:block;width:100%;height:auto}
"""

_CHART = """
svg text{font:11px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;fill:var(--ink)}
svg .tick,svg .soft,svg .title{fill:var(--soft)}
svg .inside{fill:var(--on);font-weight:600}svg .i2,svg .i4{fill:#101316}
svg .name{paint-order:stroke;stroke:var(--ground);stroke-width:4px;stroke-linejoin:round}
svg .name.bad{fill:var(--bad)}
svg path{fill:none}
.grid{stroke:var(--grid)}.axis{stroke:var(--soft)}
.rule{stroke-width:1.4;stroke:var(--ink)}
.rule.bad{stroke:var(--bad);stroke-dasharray:10 4;stroke-width:1.7}
.rule.mark{stroke-dasharray:3 2;stroke-width:1.1}
svg .corner.bad{fill:var(--bad);fill-opacity:.09}
svg .band{fill-opacity:.18;stroke:none}
.whisker{stroke-width:1.6;stroke-dasharray:none!important}
.few{stroke-dasharray:1.5 3!important;stroke-width:1.7}
.few.plain{stroke:var(--soft)}
.dot.hollow{fill:var(--ground)!important;stroke-width:1.8}
svg .dot.good,svg .good.whisker,svg .good.cross{stroke:var(--good)}svg circle.good{fill:var(--good)}
svg .dot.bad,svg .bad.whisker,svg .bad.cross{stroke:var(--bad)}svg circle.bad{fill:var(--bad)}
svg .dot.open,svg .open.whisker,svg .open.cross{stroke:var(--open)}svg circle.open{fill:var(--open)}
svg text.good{fill:var(--good)}svg text.bad{fill:var(--bad)}
.cross{stroke-width:2.2}
svg .ring{fill:none;stroke-width:1.6;stroke-dasharray:none}
.front{stroke:var(--soft);stroke-width:5;stroke-opacity:.28;stroke-linejoin:round}
svg .thin{stroke-width:1.2}
.span.region{fill:var(--good);fill-opacity:.15}
.part{stroke:var(--ground);stroke-width:1}
.hover{fill:transparent}.hover:hover{fill:var(--shade)}
.span{fill:var(--shade)}
.span.slow{fill:var(--slow)}
.span.behind{fill:var(--bad);fill-opacity:.12}.span.still{fill:var(--bad);fill-opacity:.4}
svg .span.transient,svg .span.drain{fill:url(#hatch)}
svg .hatching{stroke:var(--soft);stroke-width:1.2;stroke-opacity:.6}
svg .cells path{stroke:var(--heat);shape-rendering:crispEdges}
svg rect[class^=h]{fill:var(--heat)}svg rect.hover{fill:transparent}svg rect.hover:hover{fill:var(--shade)}
@media screen and (max-width:700px){.wide table{width:max-content}th,td{max-width:15em}td.w{max-width:30em}}
@media print{body{font-size:12px}main{max-width:none;padding:0}.charts{grid-template-columns:1fr 1fr}
.hover{display:none}h2{break-after:avoid}details:not([open])>summary::after{content:" (in the file)"}}
"""


def _series() -> str:
    lines = ""
    for number, dash in enumerate(_DASHES, 1):
        colour = f"var(--c{number})"
        dashed = f";stroke-dasharray:{dash}" if dash else ""
        lines += f"svg .s{number}{{stroke:{colour};stroke-width:1.7;stroke-linejoin:round{dashed}}}"
        lines += f"svg .f{number}{{fill:{colour};stroke:{colour};stroke-width:0}}\n"
    return lines


def _shades() -> str:
    return "".join(
        f"svg .cells .h{shade}{{stroke-opacity:{opacity}}}svg rect.h{shade}{{fill-opacity:{opacity}}}"
        for shade, opacity in enumerate(_SHADES)
    )


STYLE = (
    f":root{{color-scheme:light dark;\n{_LIGHT}}}\n"
    f"@media screen and (prefers-color-scheme:dark){{:root{{\n{_DARK}}}}}\n"
    f"{_PAGE.strip()}\n{_CHART.strip()}\n{_series()}{_shades()}\n"
)


def html_text(loaded: Sequence[Loaded]) -> str:
    """All results as one HTML page."""
    return page(title_of(loaded), list(sections(loaded)), f"Made by loadtrt {loadtrt.__version__}.")


def page(title: str, sections: Sequence[Section], footer: str) -> str:
    """A whole HTML document. footer: text below the last section."""
    results = [place for place, item in enumerate(sections) if item.level == 1]
    contents = _contents([(place, sections[place]) for place in results]) if len(results) > 1 else ""
    body = "\n".join(_section(place, item) for place, item in enumerate(sections))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
        f"<title>{_text(title)}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{_HATCH}\n<main>\n"
        f"{contents}{body}\n</main>\n<footer>{_text(footer)}</footer>\n</body>\n</html>\n"
    )


def _contents(results: Sequence[tuple[int, Section]]) -> str:
    links = "".join(
        f'<li><a href="#part-{place}">{"".join(map(_inline, item.title))}</a>'
        f"{_badges(item)}{f' {_text(item.file)}' if item.file else ''}</li>"
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
        case Notice():
            return _notice(block)
        case Figure(title, svg, note, _):
            caption = f"<b>{_text(title)}</b>" + (f" {_text(note)}" if note else "")
            return f"<figure><figcaption>{caption}</figcaption>{svg}</figure>"
        case Table():
            return _table(block)
        case Code(text):
            kept = _OPTION.sub(r"<span>\1</span>", escaped(text))
            return f'<pre tabindex="0">{kept}</pre>'
        case Data(key, json, note):
            data = f'<script type="application/json" id="{_text(key)}">{_inert(json)}</script>'
            return f'<p class="note">{_text(note)}</p>{data}'


def _inline(piece: Cell) -> str:
    match piece:
        case Badge(text, tone):
            return f'<span class="badge {tone}">{_GLYPHS[tone]}{_text(text)}</span>'
        case Named(name, before, after, below):
            lines = "".join(f"<br><small>{_text(line)}</small>" for line in below)
            return f"{_text(before)}{_inline(Name(name))}{_text(after)}{lines}"
        case Name():
            return "<code>" + _BREAKS.sub(r"\1<wbr>", escaped(piece)) + "</code>"
        case str():
            return _text(piece)


def _tile(tile: Tile) -> str:
    note = element("small", _text(tile.note)) if tile.note else ""
    return f"<div><span>{_text(tile.name)}</span><b>{_text(tile.value)}</b>{note}</div>"


def _notice(notice: Notice) -> str:
    kind = f" <code>{_text(notice.kind)}</code>" if notice.kind else ""
    lines = "".join(f"<dt>{_text(name)}</dt><dd>{_text(text)}</dd>" for name, text in notice.lines)
    head = f"<b>{_GLYPHS[notice.tone]}{_text(notice.head)}</b>{kind}"
    return f'<div class="notice {notice.tone}">{head}{f"<dl>{lines}</dl>" if lines else ""}</div>'


def _table(table: Table) -> str:
    left = list(map(table.left, range(len(table.header))))
    head = "".join(
        f'<th scope="col"{"" if at_left else _RIGHT}>{_text(cell)}</th>'
        for cell, at_left in zip(table.header, left, strict=True)
    )
    long = bool(table.last) and any(row[-1] for row in table.rows)
    rows = "".join(f"<tr>{_row(row, left, long)}</tr>\n" for row in table.rows)
    made = f'<div class="wide" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>\n{rows}</tbody></table></div>'
    if table.note:
        made += f'<p class="note">{_text(table.note)}</p>'
    return f"<details><summary>{_text(table.folded)}</summary>{made}</details>" if table.folded else made


_RIGHT = ' class="n"'
_LONG = ' class="w"'


def _row(row: Sequence[Cell], left: Sequence[bool], long: bool) -> str:
    kinds = ["" if at_left else _RIGHT for at_left in left]
    if long:
        kinds[-1] = _LONG
    cells = "".join(f"<td{kind}>{_inline(cell)}</td>" for cell, kind in zip(row[1:], kinds[1:], strict=True))
    return f'<th scope="row">{_inline(row[0])}</th>{cells}'


def _text(text: object) -> str:
    """Escaped, with no-break spaces within numbers and before units."""
    return unbroken(escaped(text))


def _inert(json: str) -> str:
    """The same JSON with every character escaped that an HTML parser could take for markup."""
    json = printable_json(json)
    for sign in "<>&":
        json = json.replace(sign, f"\\u{ord(sign):04x}")
    return json
