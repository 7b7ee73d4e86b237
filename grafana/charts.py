"""Series as small SVG charts, with a dashboard's layout, units and legends, but not Grafana's look."""

from __future__ import annotations

import html
import math
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grafana.asking import Series

COLOURS = ("#2563a8", "#d97a1f", "#3a8f5c", "#8a4fa3", "#c0518f", "#4a9fb5", "#a85a3f", "#6b7280")
RED = "#c8322b"
BOUNDS = ("objective ", "limit ")  # what names of bounds begin with
LEFT, RIGHT, TOP, BOTTOM = 52, 8, 8, 18
_SCALED = {"s": "s", "hertz": "Hz", "bytes": "B", "Bps": "B/s", "watt": "W", "joule": "J"}
_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))


def shown(value: float, unit: str) -> str:
    """A value in one of Grafana's units, with a prefix for people."""
    if not math.isfinite(value):
        return "∞" if value > 0 else "–"
    match unit:
        case "percentunit":
            return f"{100 * value:.3g} %"
        case "celsius":
            return f"{value:.3g} °C"
        case _ if unit in _SCALED:
            scale, prefix = next((prefix for prefix in _PREFIXES if abs(value) >= prefix[0]), (1, ""))
            if unit == "s" and scale > 1:
                scale, prefix = 1, ""
            return f"{value / scale:.3g} {prefix}{_SCALED[unit]}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def lines(
    named: Sequence[tuple[str, Series]],
    span: tuple[float, float],
    size: tuple[int, int],
    unit: str,
    *,
    stacked: bool = False,
    log: bool = False,
    most: float | None = None,
) -> str:
    """A line for each (name, series); those named in BOUNDS dashed and red. span: of time; size: in pixels."""
    curves = [(name, [point for point in series.points if math.isfinite(point[1])]) for name, series in named]
    if stacked:
        curves = _stack(curves)
    values = [value for _, points in curves for _, value in points if value > 0 or not log]
    if not values:
        return _empty(size)
    low, high = (min(values), max(values)) if log else (min(0.0, *values), most or max(values))
    if high <= low:
        low, high = (low / 2, low * 2) if log else (low, low + 1)
    frame = _Frame(span, (low, high), size, log)
    parts = [frame.axes(unit)]
    colours = _colours([name for name, _ in curves])
    for place in reversed(range(len(curves))):  # stacked areas: the highest first, the others over it
        name, points = curves[place]
        path = " ".join(f"{frame.x(at):.1f},{frame.y(value):.1f}" for at, value in points if value > 0 or not log)
        if not path:
            continue
        style = f'stroke="{colours[place]}" fill="none" stroke-width="1.4"'
        if name.startswith(BOUNDS):
            style += ' stroke-dasharray="6 4"'
        if stacked:
            style = f'fill="{colours[place]}" stroke="none"'
            path = f"{frame.x(points[0][0]):.1f},{frame.y(0):.1f} {path} {frame.x(points[-1][0]):.1f},{frame.y(0):.1f}"
        parts.append(f'<{"polygon" if stacked else "polyline"} points="{path}" {style}/>')
    return _svg(size, parts)


def heat(buckets: Sequence[Series], span: tuple[float, float], size: tuple[int, int], unit: str) -> str:
    """A histogram's buckets as cells: the darker the more requests a second. Classic ones are a cumulative series each,
    with the upper bound as its label; a native one is a series with cells."""
    classic = [(float(series.labels["le"]), dict(series.points)) for series in buckets if "le" in series.labels]
    classic.sort(key=lambda bucket: bucket[0])
    cells = [cell for series in buckets for cell in series.cells]  # (time, lower, upper bound, requests a second)
    for (lower, below), (upper, reached) in pairwise(classic):
        cells += [(at, lower, upper, value - below.get(at, 0)) for at, value in reached.items()]
    cells = [cell for cell in cells if cell[3] > 1e-9 and cell[1] > 0 and math.isfinite(cell[2])]
    if not cells:
        return _empty(size)
    frame = _Frame(span, (min(cell[1] for cell in cells), max(cell[2] for cell in cells)), size, log=True)
    most = max(cell[3] for cell in cells)
    instants = sorted({cell[0] for cell in cells})
    step = min((b - a for a, b in pairwise(instants)), default=1.0)
    width = frame.x(span[0] + step) - frame.x(span[0])
    parts = [
        f'<rect x="{frame.x(at):.1f}" y="{frame.y(upper):.1f}" width="{width + 0.3:.1f}" '
        f'height="{frame.y(lower) - frame.y(upper) + 0.3:.1f}" fill="#b8470b" '
        f'fill-opacity="{0.12 + 0.88 * math.sqrt(value / most):.2f}"/>'
        for at, lower, upper, value in cells
    ]
    return _svg(size, [*parts, frame.axes(unit)])


def bands(named: Sequence[tuple[str, Series]], span: tuple[float, float], size: tuple[int, int]) -> str:
    """A band for each series, filled while its value is 1."""
    if not named:
        return _empty(size)
    frame = _Frame(span, (0, 1), size, log=False, left=150)
    height = (size[1] - TOP - BOTTOM) / len(named)
    parts = []
    for place, (name, series) in enumerate(named):
        y = TOP + place * height
        parts.append(f'<text x="{frame.left - 6}" y="{y + height / 2 + 4:.1f}" class="end">{html.escape(name)}</text>')
        step = series.points[1][0] - series.points[0][0] if len(series.points) > 1 else 1.0
        width = frame.x(span[0] + step) - frame.x(span[0]) + 0.3
        parts += [
            f'<rect x="{frame.x(at):.1f}" y="{y + 2:.1f}" width="{width:.1f}" height="{height - 4:.1f}" '
            f'fill="{COLOURS[0]}"/>'
            for at, value in series.points
            if value
        ]
    return _svg(size, [*parts, frame.times()])


def legend(named: Sequence[tuple[str, Series]], unit: str) -> str:
    """Names in the colours of their lines, with the latest value."""
    colours = _colours([name for name, _ in named])
    keys = [
        f'<span><i style="background:{colour}"></i>{html.escape(name)} '
        f"<b>{shown(series.points[-1][1], unit)}</b></span>"
        for (name, series), colour in zip(named, colours, strict=True)
    ]
    return f'<div class="legend">{"".join(keys)}</div>'


class _Frame:
    """The places of instants and values in the picture."""

    def __init__(
        self,
        span: tuple[float, float],
        limits: tuple[float, float],
        size: tuple[int, int],
        log: bool,
        left: int = LEFT,
    ) -> None:
        self._span, self._limits, self._size, self._log, self.left = span, limits, size, log, left

    def x(self, at: float) -> float:
        start, end = self._span
        return self.left + (at - start) / (end - start) * (self._size[0] - self.left - RIGHT)

    def y(self, value: float) -> float:
        low, high = self._limits
        if self._log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return self._size[1] - BOTTOM - (value - low) / (high - low) * (self._size[1] - TOP - BOTTOM)

    def axes(self, unit: str) -> str:
        """Lines at round values, and the seconds below."""
        parts = []
        for value in _ticks(*self._limits, log=self._log):
            y = self.y(value)
            parts.append(
                f'<line x1="{self.left}" x2="{self._size[0] - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>'
            )
            parts.append(f'<text x="{self.left - 5}" y="{y + 4:.1f}" class="end">{shown(value, unit)}</text>')
        return "".join(parts) + self.times()

    def times(self) -> str:
        """Seconds since the left edge."""
        start, end = self._span
        return "".join(
            f'<text x="{self.x(start + at):.1f}" y="{self._size[1] - 4}" class="middle">{at:g} s</text>'
            for at in _ticks(0, end - start, log=False)
            if self.x(start + at) < self._size[0] - 20  # or it would be cut off
        )


def _ticks(low: float, high: float, *, log: bool) -> list[float]:
    """Three to six round values between them."""
    if log:
        steps = [
            base * 10.0**power
            for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            for base in (1, 2, 5)
        ]
        inside = [step for step in steps if low <= step <= high]
        return inside[:: math.ceil(len(inside) / 6)] if len(inside) > 1 else _ticks(low, high, log=False)
    raw = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(base * power for base in (1, 2, 5, 10) if base * power >= raw)
    return [round(number * step, 12) for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _stack(curves: Sequence[tuple[str, list[tuple[float, float]]]]) -> list[tuple[str, list[tuple[float, float]]]]:
    """Every curve added to the sum of those before it."""
    reached: dict[float, float] = {}
    stacked = []
    for name, points in curves:
        for at, value in points:
            reached[at] = reached.get(at, 0.0) + value
        stacked.append((name, [(at, reached[at]) for at, _ in points]))
    return stacked


def _colours(names: Sequence[str]) -> list[str]:
    return [RED if name.startswith(BOUNDS) else COLOURS[place % len(COLOURS)] for place, name in enumerate(names)]


def _empty(size: tuple[int, int]) -> str:
    return _svg(size, [f'<text x="{size[0] / 2}" y="{size[1] / 2}" class="middle">no data</text>'])


def _svg(size: tuple[int, int], parts: Sequence[str]) -> str:
    return f'<svg width="{size[0]}" height="{size[1]}" viewBox="0 0 {size[0]} {size[1]}">{"".join(parts)}</svg>'
