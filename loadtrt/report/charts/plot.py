"""A plot: two axes, and what is drawn between them. Colours are classes, which the page's style sheet knows:
s1 … s8 lines, f1 … f8 areas, each with a dash or a label beside its colour."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from loadtrt.report.charts.svg import element, escaped, hint, label, short, width_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from loadtrt.report.charts.svg import Axis

WIDTH = 480  # px, of every chart: two beside each other on a screen, one on a telephone
SERIES = 8  # how many lines can be told apart
_RIGHT, _BELOW = 14, 38
_ROW = 16  # px of a row of labels


@dataclass(frozen=True, slots=True)
class Key:
    """An entry of the legend. class_: of the mark."""

    name: str
    class_: str
    mark: Literal["line", "box", "dot", "cross"] = "line"


class Plot:
    """Collects marks, then draws: bands behind the grid, marks before it, labels on top."""

    def __init__(
        self,
        x: Axis,
        y: Axis,
        *,
        height: float = 250,
        keys: Sequence[Key] = (),
        named: Sequence[tuple[float, str]] = (),
    ) -> None:
        """named: values of x with their names, which stand above the plot in as many rows as that takes."""
        self.x, self.y, self.height = x, y, height
        self._keys = list(legend_rows(keys))
        self.left = 16 + max([26.0, *(width_of(text) + 8 for _, text in y.ticks)])
        self.wide = WIDTH - self.left - _RIGHT
        above = list(self._above(named))
        self.top = 8 + _ROW * (len(self._keys) + max((row + 1 for *_, row in above), default=0))
        self.high = height - self.top - _BELOW
        self._behind: list[str] = []
        self._marks: list[str] = []
        self._over: list[str] = []
        self._taken: list[tuple[float, float, float, float]] = []  # by marks: left, top, right, bottom
        self._tags: list[tuple[float, float, str]] = []
        for value, text, start, row in above:
            base = self.top - 5 - _ROW * row
            path = f"M{_pair(self.px(value), base + 3)}V{short(self.top + self.high)}"
            self._marks.append(element("path", d=path, class_="rule mark"))
            self._over.append(label(text, start, base, "name"))

    def _above(self, named: Sequence[tuple[float, str]]) -> Iterator[tuple[float, str, float, int]]:
        """(x, name, left edge, row), so that none lies on another."""
        ends: list[float] = []
        for value, text in sorted(named):
            place, wide = self.px(value), width_of(text)
            start = min(max(place - wide / 2, self.left), WIDTH - wide - 2)
            row = next((row for row, end in enumerate(ends) if start >= end), len(ends))
            ends[row : row + 1] = [start + wide + 8]
            yield value, text, start, row

    def px(self, value: float) -> float:
        """Where on the page a value of x lies."""
        return self.left + self.wide * self.x.at(value)

    def py(self, value: float) -> float:
        """Where on the page a value of y lies."""
        return self.top + self.high * (1 - self.y.at(value))

    def line(self, points: Iterable[tuple[float, float | None]], class_: str, *, dots: bool = True) -> None:
        """Straight from point to point, with gaps where y is None. dots: one alone is seen, too."""
        for run in _runs(points):
            if len(run) == 1:
                if dots:
                    self.dot(run[0][0], run[0][1], re.sub(r"^s(?=\d)", "f", class_), radius=2.2)
                continue
            places = _thinned([(self.px(x), self.py(y)) for x, y in run])
            self._marks.append(element("path", d="M" + "L".join(_pair(*place) for place in places), class_=class_))

    def steps(self, points: Sequence[tuple[float, float]], class_: str) -> None:
        """From each point level to the next one's x, then straight up or down to it."""
        places = _thinned([(self.px(x), self.py(y)) for x, y in points])
        path = f"M{_pair(*places[0])}" + "".join(f"H{short(x)}V{short(y)}" for x, y in places[1:])
        self._marks.append(element("path", d=path, class_=class_))

    def band(self, points: Iterable[tuple[float, float | None, float | None]], class_: str) -> None:
        """Between a lower and an upper y, with gaps where either is None."""
        for run in _runs(points):
            edge = [_pair(self.px(x), self.py(high)) for x, _, high in run]
            edge += [_pair(self.px(x), self.py(low)) for x, low, _ in reversed(run)]
            self._behind.append(element("path", d="M" + "L".join(edge) + "Z", class_=class_))

    def dot(
        self, x: float, y: float, class_: str, *, text: str = "", hollow: bool = False, radius: float = 3.5
    ) -> None:
        """A round mark. text: what a pointer on it shows."""
        kind = f"{class_} dot{' hollow' if hollow else ''}"
        inside = [hint(text)] if text else []
        self._taken.append(_box(self.px(x), self.py(y)))
        self._marks.append(element("circle", *inside, cx=self.px(x), cy=self.py(y), r=radius, class_=kind))

    def cross(self, x: float, y: float, text: str) -> None:
        """A mark of what failed. text: what a pointer on it shows."""
        place = _cross(self.px(x), self.py(y))
        self._taken.append(_box(self.px(x), self.py(y)))
        self._marks.append(element("path", hint(text), d=place, class_="bad cross"))

    def tag(self, x: float, y: float, text: str) -> None:
        """A few letters beside a mark, where no other mark or tag is; none where there is no room."""
        self._tags.append((x, y, text))

    def _tagged(self) -> Iterator[str]:
        taken = list(self._taken)
        for x, y, text in self._tags:
            wide = width_of(text)
            for dx, dy in ((7.0, -4.0), (-wide - 7.0, -4.0), (7.0, 13.0), (-wide - 7.0, 13.0), (-wide / 2, -9.0)):
                left, base = self.px(x) + dx, self.py(y) + dy
                inside = self.left < left and left + wide < WIDTH - 2 and self.top + 8 < base < self.top + self.high
                box = (left, base - 9, left + wide, base + 1)
                if inside and not any(_overlap(box, other) for other in taken):
                    taken.append(box)
                    yield label(text, left, base, "name soft")
                    break

    def edge(self, x: float, class_: str, text: str, *, upper: bool) -> None:
        """A sign at a value of x, at the upper edge or on the axis."""
        base = self.top + (10 if upper else self.high - 4)
        self._over.append(label(text, self.px(x), base, f"name {class_}", "middle"))

    def whisker(self, x: float, low: float, high: float, class_: str) -> None:
        """An interval of y at x."""
        place, bottom, top = self.px(x), self.py(low), self.py(high)
        path = f"M{_pair(place, bottom)}V{short(top)}M{_pair(place - 3, bottom)}h6M{_pair(place - 3, top)}h6"
        self._taken.append((place - 3, top, place + 3, bottom))
        self._marks.append(element("path", d=path, class_=f"{class_} whisker"))

    def bars(self, edges: Iterable[tuple[float, float, float, str]], class_: str) -> None:
        """(low, high, y, text) each, at least a pixel high, so that none is overlooked."""
        floor = self.top + self.high
        for low, high, value, text in edges:
            left, right = self.px(low), self.px(high)
            tall = max(floor - self.py(value), 1.5)
            self._marks.append(
                element(
                    "rect", hint(text), x=left, y=floor - tall, width=max(right - left, 1.0), height=tall, class_=class_
                )
            )

    def span(self, low: float, high: float, class_: str, text: str = "") -> None:
        """All of y between two values of x, behind everything. text: within it, where there is room."""
        left, right = self.px(low), self.px(high)
        wide = max(right - left, 1.5)  # so that none is overlooked
        self._behind.append(element("rect", x=left, y=self.top, width=wide, height=self.high, class_=f"span {class_}"))
        if text and width_of(text) + 6 < right - left:
            self._over.append(label(text, (left + right) / 2, self.top + 12, "name soft", "middle"))

    def corner(self, x: float, y: float) -> None:
        """All that lies right of x and above y: where a curve must not come."""
        left, bottom = self.px(x), self.py(y)
        if bottom <= self.top:
            return
        area = f"M{_pair(left, self.top)}V{short(bottom)}H{short(self.left + self.wide)}"
        self._behind.append(element("path", d=f"{area}V{short(self.top)}Z", class_="corner bad"))
        self._marks.append(element("path", d=area, class_="rule bad"))

    def level(self, y: float, class_: str, text: str = "") -> None:
        """A value of y, right across, with its name at the right end."""
        place = self.py(y)
        self._marks.append(element("path", d=f"M{_pair(self.left, place)}h{short(self.wide)}", class_=f"rule {class_}"))
        if text:
            above = place - 4 if place - self.top > 14 else place + 12
            self._over.append(label(text, self.left + self.wide - 3, above, f"name {class_}", "end"))

    def upright(self, x: float, class_: str) -> None:
        """A value of x, from bottom to top."""
        self._marks.append(element("path", d=f"M{_pair(self.px(x), self.top)}v{short(self.high)}", class_=class_))

    def note(self, x: float, y: float, text: str) -> None:
        """Words that end at a place of the plot, kept within it."""
        wide = width_of(text)
        left = min(max(self.px(x) - wide, self.left + 2), self.left + self.wide - wide - 2)
        self._over.append(label(text, left, min(max(self.py(y), self.top + 11), self.top + self.high - 3), "soft"))

    def cells(self, paths: Sequence[str], step: float, rows: int) -> None:
        """A grid of so many rows from the top down, and of columns that are `step` of x wide, from x = 0 on. paths: of
        each shade, strokes one row wide."""
        wide = self.wide * (self.x.place(step) - self.x.place(0))
        grid = f"translate({short(self.px(0))} {short(self.top)}) scale({wide:.4f} {self.high / rows:.4f})"
        strokes = [element("path", d=path, class_=f"h{shade}") for shade, path in enumerate(paths) if path]
        self._marks.append(element("g", *strokes, class_="cells", transform=grid))

    def hover(self, low: float, high: float, text: str) -> None:
        """What a pointer anywhere between two values of x shows."""
        left, right = self.px(low), self.px(high)
        self._over.append(
            element("rect", hint(text), x=left, y=self.top, width=right - left, height=self.high, class_="hover")
        )

    def svg(self, title: str, description: str) -> str:
        """The chart. title, description: for who cannot see it."""
        legend = [mark for row, keys in enumerate(self._keys) for mark in key_marks(keys, 14 + _ROW * row)]
        over = [*self._over, *self._tagged(), *legend]
        return drawing(self.height, title, description, [*self._behind, *self._frame(), *self._marks, *over])

    def _frame(self) -> Iterator[str]:
        bottom, right = self.top + self.high, self.left + self.wide
        path = "".join(f"M{_pair(self.left, self.py(tick))}H{short(right)}" for tick, _ in self.y.ticks)
        path += "".join(f"M{_pair(self.px(tick), bottom)}V{short(self.top)}" for tick, _ in self.x.ticks)
        yield element("path", d=path, class_="grid")
        yield element("path", d=f"M{_pair(self.left, self.top)}V{short(bottom)}H{short(right)}", class_="axis")
        for tick, text in self.y.ticks:
            yield label(text, self.left - 6, self.py(tick) + 4, "tick", "end")
        reached = 0.0
        for tick, text in self.x.ticks:
            place, half = self.px(tick), width_of(text) / 2
            start = min(max(place - half, 0), WIDTH - 2 * half)
            if start >= reached:
                yield label(text, start + half, bottom + 15, "tick", "middle")
                reached = start + 2 * half + 4
        yield label(self.x.title, self.left + self.wide / 2, self.height - 5, "title", "middle")
        middle = short(self.top + self.high / 2)
        turned = f"translate(11 {middle}) rotate(-90)"
        yield element("text", escaped(self.y.title), class_="title", text_anchor="middle", transform=turned)


def drawing(height: float, title: str, description: str, parts: Sequence[str]) -> str:
    """A whole <svg>, which grows and shrinks with its place."""
    said = (hint(title), element("desc", escaped(description)))
    return element("svg", *said, *parts, viewBox=f"0 0 {WIDTH} {short(height)}", role="img")


def key_marks(keys: Sequence[tuple[float, Key]], base: float) -> Iterator[str]:
    """A row of the legend with its base line there. keys: each with its x."""
    for x, key in keys:
        match key.mark:
            case "line":
                yield element("path", d=f"M{_pair(x, base - 4)}h20", class_=key.class_)
            case "box":
                yield element("rect", x=x + 5, y=base - 9, width=11, height=11, class_=key.class_)
            case "cross":
                yield element("path", d=_cross(x + 10, base - 4), class_=f"{key.class_} cross")
            case "dot":
                yield element("circle", cx=x + 10, cy=base - 4, r=3.5, class_=f"{key.class_} dot")
        yield label(key.name, x + 25, base, "key")


def legend_rows(keys: Sequence[Key]) -> Iterator[list[tuple[float, Key]]]:
    """Keys with their x, as many a row as fit."""
    row: list[tuple[float, Key]] = []
    x = 8.0
    for key in keys:
        wide = 37 + width_of(key.name)
        if row and x + wide > WIDTH:
            yield row
            row, x = [], 8.0
        row.append((x, key))
        x += wide
    if row:
        yield row


def _pair(x: float, y: float) -> str:
    return f"{short(x)} {short(y)}"


def _cross(x: float, y: float) -> str:
    return f"M{_pair(x - 4, y - 4)}l8 8m-8 0l8-8"


def _box(x: float, y: float) -> tuple[float, float, float, float]:
    return x - 3, y - 3, x + 3, y + 3


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _runs(points: Iterable[tuple[float | None, ...]]) -> list[list[tuple[float, ...]]]:
    """The points between gaps, which are points that are not known in full."""
    runs: list[list[tuple[float, ...]]] = [[]]
    for point in points:
        known = tuple(value for value in point if value is not None)
        if len(known) < len(point):
            runs.append([])
        else:
            runs[-1].append(known)
    return [run for run in runs if run]


def _thinned(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Without those that nobody could see: less than half a pixel from the one before. The ends stay."""
    kept = [places[0]]
    for place in places[1:-1]:
        if abs(place[0] - kept[-1][0]) >= 0.5 or abs(place[1] - kept[-1][1]) >= 0.5:
            kept.append(place)
    return [*kept, places[-1]] if len(places) > 1 else kept
