"""SVG elements, whose text is escaped and whose numbers are as short as a pixel allows; and axes with round ticks."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadtrt.printing import printable, shortened
from loadtrt.report.formatting import unbroken
from loadtrt.units import MILLISECOND_NS, SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

CHARACTER = 6.6  # px of a character of the charts' 11 px text, on average, in a wide font
_MINUTE_NS = 60 * SECOND_NS
_UNITS = ((SECOND_NS, "s"), (MILLISECOND_NS, "ms"), (1000, "µs"), (1, "ns"))
_STEPS = (1.0, 2.0, 5.0, 10.0)
# Mantissas of a logarithmic axis, from fine to coarse.
_MANTISSAS = ((1, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,))
_LARGEST = 1e250
_LOG_FROM = 8.0  # the ratio of the ends from which an axis is logarithmic
_NARROW = 4.0  # the ratio up to which a logarithmic axis has the ticks of a linear one


def escaped(text: object) -> str:
    """Text for HTML or SVG, also within attributes. What steers a terminal or is no character stands as in Python."""
    return html.escape(printable(str(text)), quote=True)


def markup(text: object) -> str:
    """Text for HTML: escaped, with no-break spaces within numbers and before units."""
    return unbroken(escaped(text))


def element(tag: str, *children: str, **attributes: float | str | None) -> str:
    """<tag attribute="…">children</tag>. children: markup; attributes: text and numbers, with _ for -, and none for
    None; class_ is class."""
    named = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{short(value) if isinstance(value, int | float) else escaped(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    return f"<{tag}{named}>{''.join(children)}</{tag}>" if children else f"<{tag}{named}/>"


def short(number: float) -> str:
    """A coordinate to a tenth of a pixel."""
    return f"{number:.1f}".removesuffix(".0") if abs(number) >= 0.05 else "0"


def label(text: str, x: float, y: float, class_: str = "", anchor: str | None = None) -> str:
    """Text with its base line at (x, y). anchor: start (None), middle, end."""
    return element("text", escaped(text), x=x, y=y, class_=class_ or None, text_anchor=anchor)


def hint(text: str) -> str:
    """What a pointer that rests on the element around it shows, without a script."""
    return element("title", escaped(text))


def width_of(text: str) -> float:
    """About how many px a label takes."""
    return CHARACTER * len(text)


def cut(text: str, width: float) -> str:
    """The text where it fits in `width` px; else with its middle left out."""
    return shortened(text, max(int(width / CHARACTER), 3))


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis.

    title: with the unit.
    ticks: values with their labels.
    place: where a value lies, 0 to 1.
    """

    title: str
    ticks: tuple[tuple[float, str], ...]
    place: Callable[[float], float]

    def at(self, value: float) -> float:
        """0 to 1, the nearer end for what lies outside."""
        return min(max(self.place(value), 0.0), 1.0)


def linear(title: str, low: float, high: float, *, most: int = 6, whole: bool = False) -> Axis:
    """From low to high. whole: there is nothing between integers."""
    high = min(high, _LARGEST) if high > low else low + 1
    ticks = [tick for tick in linear_ticks(low, high, most) if not whole or tick == round(tick)]
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
    named = tuple((tick, count_text(tick, step)) for tick in ticks)
    return Axis(title, named, lambda value: (value - low) / (high - low))


def logarithmic(title: str, low: float, high: float, ticks: tuple[tuple[float, str], ...]) -> Axis:
    """From low to high, equal ratios equally far; what is not above 0 lies at the lower end."""
    start, span = math.log(low), math.log(high / low)
    return Axis(title, ticks, lambda value: (math.log(value) - start) / span if value > 0 else 0.0)


def counts(title: str, highest: float, *, most: int = 6) -> Axis:
    """From 0 to a little above the highest value."""
    return linear(title, 0.0, highest * 1.06 or 1.0, most=most)


def durations(title: str, values: Iterable[float], *, most: int = 6, log: bool | None = None) -> Axis:
    """Times in ns, so that all `values` lie within. log: whether equal ratios are equally far; None: where the values
    differ much. Zeros lie at the lower end of a logarithmic axis."""
    positive = [min(value, _LARGEST) for value in values if value > 0] or [1.0]
    low, high = min(positive), max(positive)
    if high > _LOG_FROM * low if log is None else log:
        return _log_durations(title, low, high, most)
    size, unit = unit_of(high)
    axis = linear(f"{title}, {unit}", 0.0, 1.06 * high / size, most=most)
    ticks = tuple((tick * size, text) for tick, text in axis.ticks)
    return Axis(axis.title, ticks, lambda value: axis.place(value / size))


def _log_durations(title: str, low: float, high: float, most: int) -> Axis:
    """From a little below to a little above; the unit stands in the title where all ticks have the same."""
    edge = max((high / low) ** 0.04, 1.02)
    low, high = low / edge, high * edge
    ticks = log_ticks(low, high, most)
    (size, unit), *others = {unit_of(tick) for tick in ticks} or {unit_of(high)}
    alone = not others
    named = tuple((tick, f"{tick / size:g}" if alone else duration_text(tick)) for tick in ticks)
    return logarithmic(f"{title}, {unit}" if alone else title, low, high, named)


def elapsed(low_ns: float, high_ns: float) -> Axis:
    """Time since measuring began."""
    size, unit = (SECOND_NS, "s") if high_ns <= 5 * _MINUTE_NS else (_MINUTE_NS, "min")
    if high_ns > 300 * _MINUTE_NS:
        size, unit = 60 * _MINUTE_NS, "h"
    axis = linear(f"time, {unit}", low_ns / size, max(high_ns, 1) / size, most=7)
    ticks = tuple((tick * size, text) for tick, text in axis.ticks if tick >= 0 or low_ns >= 0)
    return Axis(axis.title, ticks, lambda value: axis.place(value / size))


def ranks(count: int) -> Axis:
    """Percentiles of `count` values, equally far for each ten times fewer values above: log₁₀ 1/(1 − p). Ends beyond
    the largest value, whose rank is 1, at 1 − 1/2n."""
    span = math.log10(2 * max(count, 1))
    names = [(0.0, "0"), (0.5, "50 %"), (0.9, "90 %")]
    names += [(1 - 10.0**-nines, f"{100 * (1 - 10.0**-nines):.{nines - 2}f} %") for nines in range(2, 9)]
    shown = tuple((rank, text) for rank, text in names if math.log10(1 / (1 - rank)) <= span * 1.001)
    return Axis(
        "share of requests within it", shown, lambda rank: math.log10(1 / (1 - rank)) / span if rank < 1 else 1.0
    )


def linear_ticks(low: float, high: float, most: int) -> list[float]:
    """At most `most` multiples of 1, 2 or 5 × 10^k within [low, high], as many as that allows."""
    raw = (high - low) / max(most - 1, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    for factor in (*_STEPS, 20.0, 50.0):
        step = factor * power
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            return [number * step for number in range(first, last + 1)]
    return [low]


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """At most `most` round values within [low, high], for a logarithmic axis."""
    if high / low <= _NARROW:
        return linear_ticks(low, high, most)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for mantissas in _MANTISSAS:
        ticks = [m * 10.0**k for k in range(first, last + 1) for m in mantissas if low <= m * 10.0**k <= high]
        if len(ticks) <= most:
            return ticks
    step = math.ceil(len(ticks) / most)
    return ticks[::step]


def unit_of(ns: float) -> tuple[int, str]:
    """(size in ns, name) of the unit in which a time has digits before its point."""
    return next((unit for unit in _UNITS if ns >= unit[0] * 0.9995), _UNITS[-1])


def duration_text(ns: float) -> str:
    """A round time: "1.5 ms"."""
    size, unit = unit_of(ns)
    return f"{ns / size:g} {unit}"


def count_text(value: float, step: float = 1.0) -> str:
    """A round number, with k, M or G: "1.5k". step: between neighbours, which must not look the same."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * 10 or (abs(value) >= size and step >= size / 10):
            return f"{value / size:.10g}{letter}"
    return f"{value:.10g}" if step >= 1 else f"{value:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"
