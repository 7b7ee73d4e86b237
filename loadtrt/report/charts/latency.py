"""Charts of how latencies are distributed: their spectrum, and the shares of requests within a latency."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.records.histogram import bounds_of
from loadtrt.report.charts.plot import SERIES, Key, Plot
from loadtrt.report.charts.svg import durations, linear, ranks
from loadtrt.units import format_count, format_duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.asked.objective import Objective
    from loadtrt.records.histogram import Histogram
    from loadtrt.results.run_result import ObjectiveShare

_BARS = 110
_FAR = 30.0
_PERCENT = 0.01
_SHORTEST = 0.001  # share of requests
_LEAST = 0.02  # the rank at which the axis of times begins


def near(bounds: Sequence[Objective], low: float, high: float) -> list[Objective]:
    """Those that can be drawn beside times from low to high without taking all the room."""
    return [bound for bound in bounds if low / _FAR <= bound.bound_ns <= high * _FAR]


def spectrum(histogram: Histogram, marks: Sequence[tuple[str, float]], bounds: Sequence[Objective], metric: str) -> str:
    """How many requests had which latency. marks: percentiles (name, ns); bounds: of this metric.

    The height of a bar is its share of requests ÷ its width in ln(latency), in % of requests a 1 % of latency: areas
    are shares, whatever the widths, which double with each octave (records/histogram.py). The shortest 1 in 1000, which
    would take most of the axis, are not drawn.
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
    x = durations(metric, (edges[0], edges[-1], *(bound.bound_ns for bound in bounds)), log=True, most=8)
    y = linear("% of requests a 1 % of latency", 0, highest * 1.06, most=6)
    keys = [Key("objective", "bad rule")] if bounds else []
    named = [(value, f"{name} {format_duration(value)}") for name, value in marks]
    plot = Plot(x, y, height=270, keys=keys, named=named)
    plot.bars(bars, "f1")
    for bound in bounds:
        plot.upright(bound.bound_ns, "bad rule")
    told = ", ".join(f"{name} {format_duration(value)}" for name, value in marks) or "no percentile is supported"
    return plot.svg(f"Spectrum of {metric}", f"{format_count(total)} requests; {told}.")


def shares(
    curves: Sequence[tuple[str, Histogram]],
    bounds: Sequence[Objective],
    metric: str,
    seen: Sequence[ObjectiveShare] = (),
) -> str:
    """Which share of requests was within which time, with 1/(1 − share) on a logarithmic axis (HdrHistogram's way): the
    further right, the rarer. A curve is dotted where its sample is too small for 99 % confidence (stats/margin.py).

    curves: by their names.
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
        plot.corner(bound.rank, bound.bound_ns, "bad")
    for number, ((_, histogram), line) in enumerate(zip(drawn, lines, strict=True), 1):
        # So many requests support q with ln 0.01 / ln q = n, as in `least_samples`.
        told, rest = _split(line, 0.01 ** (1 / histogram.count))
        plot.steps(told, f"s{number}")
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
