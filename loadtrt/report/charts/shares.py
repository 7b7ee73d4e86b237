"""Bars that lie, one value each or several one after the other; and how latencies are distributed: their spectrum, and
the shares of requests within a latency."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from loadtrt.records.histogram import bounds_of
from loadtrt.report.charts.plot import SERIES, WIDTH, Key, Plot, drawing, key_marks, legend_rows
from loadtrt.report.charts.svg import cut, durations, element, hint, label, linear, ranks, width_of
from loadtrt.units import format_count, format_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadtrt.asked.objective import Objective
    from loadtrt.records.histogram import Histogram
    from loadtrt.results.run_result import ObjectiveShare

_ROW, _GAP = 20, 4  # px of a row of bars, and between two
_MOST_NAME = 0.42  # of the width
_BARS = 110  # of a spectrum
_FAR = 30.0
_PERCENT = 0.01
_SHORTEST = 0.001  # share of requests
_LEAST = 0.02  # the rank at which the axis of times begins


class Bar(NamedTuple):
    """One row.

    name: at the row's beginning.
    value: length of the bar, in any unit; neither 0 nor None, which is not known, has a bar.
    text: at the bar's end.
    hint: shown when the pointer is on the bar; by default name and text.
    """

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
    """One row of parts.

    name: at the row's beginning.
    parts: lengths of the parts, in any one unit, in the order of the chart's names.
    text: at the row's end, their sum in words.
    """

    name: str
    parts: Sequence[float]
    text: str


def stacks(
    title: str, description: str, names: Sequence[str], rows: Sequence[Stack], in_words: Callable[[float], str]
) -> str:
    """Parts one after the other on one scale, each with its value where there is room. in_words: a value in words."""
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
            text = in_words(value)
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


def near(bounds: Sequence[Objective], low: float, high: float) -> list[Objective]:
    """Those that can be drawn beside times from low to high without taking all the room."""
    return [bound for bound in bounds if low / _FAR <= bound.bound_ns <= high * _FAR]


def spectrum(histogram: Histogram, marks: Sequence[tuple[str, float]], bounds: Sequence[Objective]) -> str:
    """How many requests had which latency.

    The height of a bar is its share of requests ÷ its width in ln(latency), in % of requests a 1 % of latency: areas
    are shares, whatever the widths, which double with each octave (records/histogram.py). The shortest 1 in 1000, which
    would take most of the axis, are not drawn.

    marks: percentiles (name, ns).
    bounds: of latency.
    """
    last = int(np.flatnonzero(histogram.counts)[-1])
    first = int(np.searchsorted(np.cumsum(histogram.counts), max(_SHORTEST * histogram.count, 1)))
    each = max(1, math.ceil((last - first + 1) / _BARS))
    starts = np.arange(first, last + 1, each)
    counts = np.add.reduceat(histogram.counts[: last + 1], starts)
    low, _ = bounds_of(starts)
    end, width = bounds_of(np.array([last]))
    edges = [max(float(edge), 0.5) for edge in (*low.tolist(), int(end[0] + width[0]))]
    total = histogram.count
    bars = []
    for left, right, count in zip(edges, edges[1:], counts.tolist(), strict=False):
        if count:
            share = 100 * count / total
            text = f"{format_duration(left)} to {format_duration(right)}: {format_count(count)} of "
            text += f"{format_count(total)} ({share:.3g} %)"
            bars.append((left, right, share / math.log(right / left) * _PERCENT, text))
    highest = max(bar[2] for bar in bars)
    bounds = near(bounds, edges[0], edges[-1])
    x = durations("latency", (edges[0], edges[-1], *(bound.bound_ns for bound in bounds)), log=True, most=8)
    y = linear("% of requests a 1 % of latency", 0, highest * 1.06, most=6)
    keys = [Key("objective", "bad rule")] if bounds else []
    named = [(value, f"{name} {format_duration(value)}") for name, value in marks]
    plot = Plot(x, y, height=270, keys=keys, named=named)
    plot.bars(bars, "f1")
    for bound in bounds:
        plot.upright(bound.bound_ns, "bad rule")
    percentiles = ", ".join(f"{name} {format_duration(value)}" for name, value in marks) or "no percentile is supported"
    return plot.svg("Spectrum of latency", f"{format_count(total)} requests; {percentiles}.")


def shares(
    curves: Sequence[tuple[str, Histogram]],
    bounds: Sequence[Objective],
    metric: str,
    seen: Sequence[ObjectiveShare] = (),
) -> str:
    """Which share of requests was within which time, with 1/(1 − share) on a logarithmic axis (HdrHistogram's way): the
    further right, the rarer. A curve is dotted where its sample is too small for 99 % confidence
    (stats/sample_size.py).

    bounds: each a corner that the curve must stay out of.
    seen: how these fared: whiskers are 95 % of their quantiles.
    """
    drawn = curves[:SERIES]
    most = max(histogram.count for _, histogram in drawn)
    lines = [_steps(histogram) for _, histogram in drawn]
    # The few shortest would take the room of all others.
    lows = [histogram.quantiles((_LEAST,))[0] for _, histogram in drawn]
    bounds = near(bounds, min(lows), max(line[-1][1] for line in lines))
    y = durations(metric, (*lows, *(line[-1][1] for line in lines), *(bound.bound_ns for bound in bounds)), most=7)
    keys = [Key(name, f"s{number}") for number, (name, _) in enumerate(drawn, 1)] if len(drawn) > 1 else []
    keys += [Key("objective", "bad rule")] if bounds else []
    keys.append(Key("too few requests to tell", "few plain"))
    plot = Plot(ranks(most), y, height=270, keys=keys)
    for bound in bounds:
        plot.corner(bound.rank, bound.bound_ns)
    for number, ((_, histogram), line) in enumerate(zip(drawn, lines, strict=True), 1):
        # So many requests support q with ln 0.01 / ln q = n, as in `least_samples`.
        supported, rest = _split(line, 0.01 ** (1 / histogram.count))
        plot.steps(supported, f"s{number}")
        if rest:
            plot.steps(rest, f"s{number} few")
    for item in seen:
        low, high = item.value_low_ns, item.value_high_ns
        if item.objective in bounds and item.value_ns is not None and low is not None and high is not None:
            plot.whisker(item.objective.rank, low, high, "s1")
    largest = ", ".join(f"{name} at most {format_duration(histogram.max or 0)}" for name, histogram in drawn)
    return plot.svg(f"{metric.capitalize()} by share of requests", f"{largest}.")


def _split(
    points: list[tuple[float, float]], rank: float
) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """The steps up to that rank, and those beyond it."""
    before = [point for point in points if point[0] <= rank]
    after = [point for point in points if point[0] > rank]
    edge = (rank, before[-1][1])
    return ([*before, edge], [edge, *after]) if after else (before, [])


def _steps(histogram: Histogram) -> list[tuple[float, float]]:
    """(rank, ns): from that rank on, requests took so long; the last point is the largest at rank 1."""
    used = np.flatnonzero(histogram.counts)
    counts = histogram.counts[used]
    low, width = bounds_of(used)
    middle = np.clip(low + (width - 1) / 2, histogram.min or 0, histogram.max)
    before = (np.cumsum(counts) - counts) / counts.sum()
    points = list(zip(before.tolist(), middle.tolist(), strict=True))
    return [*points, (1.0, points[-1][1])]
