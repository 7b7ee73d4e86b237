"""A matrix of ratios as a heat map: the darker, the more."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from loadtrt.report.charts.plot import WIDTH, drawing
from loadtrt.report.charts.svg import cut, element, hint, label, width_of
from loadtrt.report.charts.timeline import SHADES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ROW, _HEAD = 26, 16  # px
_MOST_NAME = 0.4  # of the width
_LIGHT = 3  # shades on which dark letters can be read
_MOST_SHADES = 16.0  # the ratio that is darkest, at least


class Field(NamedTuple):
    """One field.

    ratio: decides the shade; None for one without a number, which is hatched.
    text: in the field, where there is room.
    hint: shown when the pointer is on the field.
    """

    ratio: float | None
    text: str
    hint: str


def heat_matrix(
    title: str,
    description: str,
    rows: Sequence[str],
    columns: Sequence[tuple[str, str]],
    fields: Mapping[tuple[int, int], Field],
) -> str:
    """Rows with their names at the left; columns by (group, name), where a group's name stands once. fields: by (row,
    column), as far as there are any."""
    left = min(max(map(width_of, rows)) + 14, _MOST_NAME * WIDTH)
    wide, top = (WIDTH - left - 4) / len(columns), 2 * _HEAD + 6
    known = [field.ratio for field in fields.values() if field.ratio is not None]
    most = max([_MOST_SHADES, *known])
    parts = []
    groups: dict[str, list[int]] = {}
    for place, (group, name) in enumerate(columns):
        groups.setdefault(group, []).append(place)
        parts.append(label(cut(name, wide), left + (place + 0.5) * wide, top - 5, "tick", "middle"))
    for group, places in groups.items():
        middle = left + (places[0] + places[-1] + 1) / 2 * wide
        parts.append(label(cut(group, wide * len(places) - 6), middle, top - 5 - _HEAD, "title", "middle"))
    for number, name in enumerate(rows):
        parts.append(label(cut(name, left - 8), left - 6, top + number * _ROW + 17, "tick", "end"))
    for (row, column), field in fields.items():
        x, y = left + column * wide, top + row * _ROW
        shade = None if field.ratio is None else _shade(field.ratio, most)
        class_ = "span drain" if shade is None else f"h{shade}"
        box = {"x": x + 1, "y": y + 1, "width": wide - 2, "height": _ROW - 2}
        parts.append(element("rect", hint(field.hint), **box, class_=class_))
        if width_of(field.text) < wide:
            letters = "value" if shade is None or shade < _LIGHT else "inside"
            parts.append(label(field.text, x + wide / 2, y + 17, letters, "middle"))
    return drawing(top + len(rows) * _ROW + 6, title, description, parts)


def _shade(ratio: float, most: float) -> int:
    """0 for no more than alone, by the logarithm up to the darkest."""
    return min(int(SHADES * max(math.log(ratio), 0.0) / math.log(most)), SHADES - 1) if ratio > 0 else 0
