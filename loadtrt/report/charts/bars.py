"""Bars that lie: one value each, or several one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from loadtrt.report.charts.plot import WIDTH, Key, drawing, key_marks, legend_rows
from loadtrt.report.charts.svg import cut, element, hint, label, width_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_ROW = 20
_GAP = 4
_MOST_NAME = 0.42  # of the width


class Bar(NamedTuple):
    """One row. text: at the bar's end. Neither 0 nor None, which is not known, has a bar."""

    name: str
    value: float | None
    text: str
    class_: str = "f1"
    hint: str = ""


def bars(title: str, description: str, rows: Sequence[Bar]) -> str:
    """A bar a row from 0 on, the largest value as wide as there is room."""
    left = _names_width([row.name for row in rows])
    right = max(width_of(row.text) for row in rows) + 12
    largest = max((row.value or 0.0 for row in rows), default=0.0) or 1.0
    parts = []
    for number, row in enumerate(rows):
        top = 4 + number * _ROW
        wide = (WIDTH - left - right) * (row.value or 0.0) / largest
        inside = [hint(row.hint or f"{row.name}: {row.text}")]
        parts.append(label(cut(row.name, left - 8), left - 6, top + 12, "tick", "end"))
        if row.value:
            wide = max(wide, 1.0)  # so that none is overlooked
            parts.append(element("rect", *inside, x=left, y=top, width=wide, height=_ROW - _GAP, class_=row.class_))
        parts.append(label(row.text, left + wide + 5, top + 12, "value"))
    return drawing(8 + _ROW * len(rows), title, description, parts)


class Stack(NamedTuple):
    """One row of parts, in the order of the names; text: its sum."""

    name: str
    parts: Sequence[float]
    text: str


def stacks(
    title: str, description: str, names: Sequence[str], rows: Sequence[Stack], told: Callable[[float], str]
) -> str:
    """Parts one after the other on one scale, each with its value where there is room. told: a value in words."""
    keys = list(legend_rows([Key(name, f"f{number}", "box") for number, name in enumerate(names, 1)]))
    left = _names_width([row.name for row in rows])
    right = max(width_of(row.text) for row in rows) + 12
    largest = max((sum(row.parts) for row in rows), default=0.0) or 1.0
    above = 10 + 16 * len(keys)
    parts = [mark for place, row in enumerate(keys) for mark in key_marks(row, 14 + 16 * place)]
    tall = 30
    for number, row in enumerate(rows):
        top = above + number * (tall + 8)
        parts.append(label(cut(row.name, left - 8), left - 6, top + tall / 2 + 4, "tick", "end"))
        x = left
        for place, (name, value) in enumerate(zip(names, row.parts, strict=True), 1):
            wide = (WIDTH - left - right) * value / largest
            if wide < 0.3:
                continue
            text = told(value)
            parts.append(
                element("rect", hint(f"{name} {text}"), x=x, y=top, width=wide, height=tall, class_=f"f{place} part")
            )
            if width_of(text) + 6 < wide:
                parts.append(label(text, x + wide / 2, top + tall / 2 + 4, f"inside i{place}", "middle"))
            x += wide
        parts.append(label(row.text, x + 5, top + tall / 2 + 4, "value"))
    return drawing(above + len(rows) * (tall + 8), title, description, parts)


def _names_width(names: Sequence[str]) -> float:
    return min(max(width_of(name) for name in names) + 14, _MOST_NAME * WIDTH)
