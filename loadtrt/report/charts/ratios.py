"""Ratios with their intervals, one a row, on one logarithmic axis around 1."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from loadtrt.report.charts.plot import WIDTH, drawing
from loadtrt.report.charts.svg import cut, element, hint, label, log_ticks, short, width_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.report.document import Tone

_ROW, _BELOW = 20, 34  # px of a row, and of the axis
_LEFT = 104.0
_LEAST = 0.02  # half the axis at least, in the logarithm of the ratio
_MOST = math.log(10)  # half the axis at most: what lies beyond ends at the edge


class Row(NamedTuple):
    """One ratio.

    low, high: its 95 % interval, as far as it is known.
    text: the ratio and what was found, in words.
    tone: of the verdict.
    edge: the ratio that a threshold allows; None without one.
    """

    name: str
    ratio: float
    low: float | None
    high: float | None
    text: str
    tone: Tone
    edge: float | None = None


def ratios(title: str, description: str, axis: str, rows: Sequence[Row]) -> str:
    """A mark and a whisker a row; a line at 1, where both are alike, and a short one where a threshold lies."""
    known = [value for row in rows for value in (row.ratio, row.low, row.high, row.edge) if value]
    half = min(max([_LEAST, *(1.06 * abs(math.log(value)) for value in known)]), _MOST)
    right = max(width_of(row.text) for row in rows) + 12
    wide, floor = WIDTH - _LEFT - right, 6.0 + _ROW * len(rows)

    def px(ratio: float) -> float:
        return _LEFT + wide * (min(max(math.log(ratio) / half, -1.0), 1.0) + 1) / 2

    parts = []
    for tick in log_ticks(math.exp(-half), math.exp(half), 5):
        parts.append(element("path", d=f"M{short(px(tick))} {short(floor)}V4", class_="grid"))
        parts.append(label(f"{tick:g}", px(tick), floor + 14, "tick", "middle"))
    parts.append(element("path", d=f"M{short(px(1))} {short(floor)}V4", class_="axis"))
    for number, row in enumerate(rows):
        middle = 6.0 + _ROW * number + _ROW / 2
        if row.edge:
            parts.append(element("path", d=f"M{short(px(row.edge))} {short(middle - 8)}v16", class_="rule bad"))
        low, high = px(row.low or math.exp(-half)), px(row.high or math.exp(half))
        line, dot = ("s1", "f1") if row.tone == "plain" else (row.tone, row.tone)
        if row.low is not None or row.high is not None:
            ends = "".join(
                f"M{short(place)} {short(middle - 3)}v6"
                for place, end in ((low, row.low), (high, row.high))
                if end is not None
            )
            path = f"M{short(low)} {short(middle)}H{short(high)}{ends}"
            parts.append(element("path", d=path, class_=f"{line} whisker"))
        mark = hint(f"{row.name}: {row.text}")
        parts.append(element("circle", mark, cx=px(row.ratio), cy=middle, r=3.5, class_=f"{dot} dot"))
        parts.append(label(cut(row.name, _LEFT - 12), _LEFT - 8, middle + 4, "tick", "end"))
        parts.append(label(row.text, WIDTH - right + 8, middle + 4, "value"))
    parts.append(label(axis, _LEFT + wide / 2, floor + 29, "title", "middle"))
    return drawing(floor + _BELOW, title, description, parts)
