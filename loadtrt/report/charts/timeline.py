"""Charts over the time of a run: rates and latencies by intervals, a heat map of them, and the GPU's readings."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from loadtrt.records.histogram import BUCKETS, CELL, bounds_of, bucket_of
from loadtrt.report.charts.plot import Key, Plot
from loadtrt.report.charts.shares import near
from loadtrt.report.charts.svg import Axis, counts, duration_text, durations, elapsed, log_ticks
from loadtrt.report.formatting import every
from loadtrt.units import SECOND_NS, format_count, format_duration, plural

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadtrt.asked.objective import Objective
    from loadtrt.load.arrivals import Course
    from loadtrt.results.steadiness import Interval

_MOST_POINTS = 250
_MOST_HINTS = 120
_COLUMNS = 150  # of a heat map
_ROWS = 72
SHADES = 8
_RANKS = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
_CLASSES = {"p50": "s1", "p90": "s3", "p99": "s2"}
SHORTEST_NS = SECOND_NS // 5  # a last second that is shorter tells nothing below that
_ROOM = 0.17  # of the axis: a phase as wide has room for its name


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of the time axis. kind: a class of the style sheet; from 0 the run was measured."""

    name: str
    kind: str
    start_ns: float
    end_ns: float


@dataclass(frozen=True, slots=True)
class Timeline:
    """What all charts over time have in common.

    end_ns: of the last request.
    sent_ns: when the last one was sent.
    """

    end_ns: int
    sent_ns: int
    phases: tuple[Phase, ...]
    each_ns: int = SECOND_NS

    @property
    def start_ns(self) -> float:
        """Where the axis begins: before 0 where a phase does."""
        return min([0.0, *(phase.start_ns for phase in self.phases)])

    def plot(self, y: Axis, keys: Sequence[Key], height: float = 230) -> Plot:
        """A plot over this time, with its phases marked: named in it where there is room, in the legend else."""
        share = {phase.name: (phase.end_ns - phase.start_ns) / (self.end_ns - self.start_ns) for phase in self.phases}
        small = {phase.name: phase.kind for phase in self.phases if share[phase.name] < _ROOM or phase.kind == "slow"}
        keys = [*keys, *(Key(name, f"span {kind}", "box") for name, kind in small.items())]
        plot = Plot(elapsed(self.start_ns, self.end_ns), y, height=height, keys=keys)
        for phase in self.phases:
            plot.span(phase.start_ns, phase.end_ns, phase.kind, "" if phase.name in small else phase.name)
        return plot


def slow_phases(intervals: Sequence[Interval], each_ns: int) -> Iterator[Phase]:
    """The points of charts in which the GPU was slowed down, those that adjoin as one."""
    each = grouped(len(intervals))
    places = range(0, len(intervals), each)
    slow = [any(one.throttled for one in intervals[place : place + each]) for place in places]
    for held, group in groupby(zip(slow, places, strict=True), lambda point: point[0]):
        if held:
            starts = [place for _, place in group]
            yield Phase("GPU slowed down", "slow", starts[0] * each_ns, (starts[-1] + each) * each_ns)


class _Second(NamedTuple):
    """One or several intervals of a run, mostly seconds: rates are means; times, which are p50, p90, p99 and largest,
    the greatest of their intervals."""

    start_ns: int
    end_ns: int
    per_s: float | None
    failed: int
    times: dict[str, float | None]

    @property
    def middle(self) -> float:
        return (self.start_ns + self.end_ns) / 2


def throughput(intervals: Sequence[Interval], timeline: Timeline, course: Course | None) -> str:
    """Requests served a second, and those due where the load has a course: means of the same seconds."""
    seconds = _seconds(intervals, timeline)
    each_ns = grouped(len(intervals)) * timeline.each_ns
    due = []
    for second in seconds:
        if course is not None and second.start_ns < timeline.sent_ns:
            requests = course.requests(second.start_ns + each_ns) - course.requests(second.start_ns)
            due.append((second.middle, requests * SECOND_NS / each_ns))
    rates = [second.per_s for second in seconds if second.per_s is not None]
    highest = max([*rates, *(rate for _, rate in due)], default=1.0)
    failed = sum(second.failed for second in seconds)
    keys = [Key("served", "s1")]
    keys += [Key("due", "s2")] if due else []
    keys += [Key("failed", "bad rule")] if failed else []
    plot = timeline.plot(counts("requests/s", highest), keys)
    plot.line(due, "s2")
    plot.line([(second.middle, second.per_s) for second in seconds], "s1")
    if failed:
        plot.line([(s.middle, s.failed * SECOND_NS / (s.end_ns - s.start_ns)) for s in seconds], "bad rule")
    _hints(plot, seconds, times=False)
    told = f"between {format_count(min(rates))} and {format_count(max(rates))} requests/s" if rates else "no requests"
    return plot.svg("Throughput over time", f"{every(each_ns).capitalize()}, {told}.")


def percentiles(intervals: Sequence[Interval], timeline: Timeline, bounds: Sequence[Objective]) -> str:
    """p50, p90, p99 and the largest latency of each interval, by completion; a percentile where requests lie beyond it:
    n·(1 − q) ≥ 1, for below that it is the largest."""
    seconds = _seconds(intervals, timeline)
    values = [time for second in seconds for time in second.times.values() if time is not None]
    drawn = near(bounds, min(values, default=0), max(values, default=0))
    y = durations("latency", [*values, *(bound.bound_ns for bound in drawn)])
    names = [name for name in _CLASSES if any(second.times[name] is not None for second in seconds)]
    keys = [Key(name, _CLASSES[name]) for name in names]
    keys += [Key("largest", "f4", "dot"), *([Key("objective", "bad rule")] if drawn else [])]
    plot = timeline.plot(y, keys)
    for second in seconds:
        if (largest := second.times["largest"]) is not None:
            plot.dot(second.middle, largest, "f4", radius=1.6)
    for name in names:
        plot.line([(second.middle, second.times[name]) for second in seconds], _CLASSES[name])
    for bound in drawn:
        plot.level(bound.bound_ns, "bad")
    _hints(plot, seconds, times=True)
    told = f"largest {format_duration(max(values))}" if values else "no requests"
    drawn_times = f"{', '.join(names)} and the largest {every(timeline.each_ns)}"
    return plot.svg("Latency over time", f"{drawn_times}; {told}.")


def side_by_side(
    workers: Sequence[tuple[Sequence[Interval], int]], end_ns: int, bounds: Sequence[Objective]
) -> list[tuple[str, str, str]]:
    """Throughput and a percentile over time of each of several workers, on the same axes: (chart of throughput, chart
    of the percentile, its name): p99, or the highest that some second of each has.

    workers: (intervals, ns of one) of each.
    """
    timelines = [Timeline(end_ns, end_ns, tuple(slow_phases(part, each)), each) for part, each in workers]
    each = [_seconds(part, timeline) for (part, _), timeline in zip(workers, timelines, strict=True)]
    known = (name for name in reversed(_RANKS) if all(any(one.times[name] for one in part) for part in each))
    rank = next(known, "largest")
    times = [time for part in each for one in part if (time := one.times[rank]) is not None]
    drawn = near(bounds, min(times, default=0), max(times, default=0))
    axes = (
        counts("requests/s", max((one.per_s or 0.0 for part in each for one in part), default=0.0), most=4),
        durations(rank, [*times, *(bound.bound_ns for bound in drawn)], most=4),
    )
    charts = []
    for seconds, timeline in zip(each, timelines, strict=True):
        rates, latencies = (timeline.plot(y, (), height=150) for y in axes)
        rates.line([(one.middle, one.per_s) for one in seconds], "s1")
        latencies.line([(one.middle, one.times[rank]) for one in seconds], "s2")
        for bound in drawn:
            latencies.level(bound.bound_ns, "bad")
        for plot, shown in ((rates, False), (latencies, True)):
            _hints(plot, seconds, times=shown)
        told = f"on the axes of all {len(workers)} workers"
        charts.append((rates.svg("Throughput over time", told), latencies.svg(f"{rank} over time", told), rank))
    return charts


def _hints(plot: Plot, seconds: Sequence[_Second], *, times: bool) -> None:
    """What a second was like, for a pointer that rests on it. times: its latencies, too."""
    if len(seconds) > _MOST_HINTS:
        return
    for second in seconds:
        words = [f"{second.start_ns / SECOND_NS:g} s"]
        words += [f"{format_count(second.per_s)} requests/s"] if second.per_s is not None else []
        words += [f"{second.failed} failed"] if second.failed else []
        if times:
            words += [f"{name} {format_duration(time)}" for name, time in second.times.items() if time is not None]
        plot.hover(second.start_ns, second.end_ns, ", ".join(words))


def _seconds(intervals: Sequence[Interval], timeline: Timeline) -> list[_Second]:
    """At most _MOST_POINTS, of as many intervals each as that takes."""
    each = grouped(len(intervals))
    groups = (intervals[place : place + each] for place in range(0, len(intervals), each))
    return [_second(group, each * timeline.each_ns, timeline.end_ns) for group in groups]


def grouped(intervals: int) -> int:
    """How many intervals a point of a chart stands for."""
    return max(1, math.ceil(intervals / _MOST_POINTS))


def _second(group: Sequence[Interval], long_ns: int, end_ns: int) -> _Second:
    start = group[0].start_ns
    end = min(start + long_ns, max(end_ns, start + 1))
    long = end - start >= SHORTEST_NS
    times: dict[str, list[float | None]] = {
        name: [getattr(one, f"latency_{name}_ns") for one in group if long and one.requests * (1 - rank) >= 1 - 1e-9]
        for name, rank in _RANKS.items()
    }
    times["largest"] = [one.latency_max_ns for one in group]
    return _Second(
        start_ns=start,
        end_ns=end,
        per_s=sum(one.requests for one in group) * SECOND_NS / (end - start) if long else None,
        failed=sum(one.failed for one in group),
        times={name: max((time for time in of if time is not None), default=None) for name, of in times.items()},
    )


def heat_map(intervals: Sequence[Interval], timeline: Timeline, bounds: Sequence[Objective]) -> str:
    """How many requests had which latency when: a column an interval (or several), a row an eighth of an octave (or a
    quarter, …), darker for more on a logarithmic scale, so that a single one is seen."""
    each = max(1, math.ceil(len(intervals) / _COLUMNS))
    used = [cell for interval in intervals for cell, count in interval.latency_counts.items() if count > 0]
    low, high = max(min(used), 0), min(max(used), BUCKETS // CELL)
    tall = max(1, math.ceil((high - low + 1) / _ROWS))
    first = low - 2 * tall
    rows = math.ceil((high - first + 1) / tall) + 2
    found: Counter[tuple[int, int]] = Counter()
    for number, interval in enumerate(intervals):
        for cell, count in interval.latency_counts.items():
            if low <= cell <= high and count > 0:
                found[number // each, (cell - first) // tall] += count
    most, step = max(found.values()), each * timeline.each_ns
    paths = [""] * SHADES
    for (column, row), count in sorted(found.items()):
        wide = min(1.0, max(timeline.end_ns / step - column, 0.1))  # the last column may be cut short
        paths[shade(count, most)] += f"M{column} {rows - row - 0.5:g}h{wide:.2g}"

    def place(ns: float) -> float:
        bucket = int(bucket_of(np.array([round(ns)]))[0])
        start, width = bounds_of(np.array([bucket]))
        return ((bucket + (ns - int(start[0])) / int(width[0])) / CELL - first) / (rows * tall)

    ends = [float(bounds_of(np.array([max(edge, 0) * CELL]))[0][0]) for edge in (first, first + rows * tall)]
    ticks = tuple((tick, duration_text(tick)) for tick in log_ticks(max(ends[0], 1.0), ends[1], 6))
    drawn = [bound for bound in bounds if 0 <= place(bound.bound_ns) <= 1]
    steps = [1, *sorted({round(most ** (share / 2)) for share in (1, 2)} - {1})]
    keys = [
        Key(f"{format_count(count)}{' requests' if count == steps[-1] else ''}", f"h{shade(count, most)}", "box")
        for count in steps
    ]
    keys += [Key("objective", "bad rule")] if drawn else []
    plot = timeline.plot(Axis("latency", ticks, place), keys)
    plot.cells(paths, step, rows)
    for bound in drawn:
        plot.level(bound.bound_ns, "bad")
    size = f"{plural(step // SECOND_NS, 'second')} × {'an eighth' if tall == 1 else f'{tall} eighths'} of an octave"
    return plot.svg("Heat map of latency", f"Requests by time and latency, at most {format_count(most)} in {size}.")


def shade(count: int, most: int) -> int:
    """0 to SHADES − 1, by the logarithm of the count."""
    return 0 if most <= 1 else min(int(SHADES * math.log(count) / math.log(most)), SHADES - 1)


class Reading(NamedTuple):
    """One line of a chart of the GPU: values at the middles of the seconds, and what lies around them."""

    name: str
    values: Sequence[float | None]
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()


def readings(
    title: str,
    unit: str,
    middles: Sequence[float],
    lines: Sequence[Reading],
    timeline: Timeline,
    limit: tuple[str, float] | None,
) -> str:
    """What NVML reported over time. limit: (name, value) that the GPU keeps to, drawn where it is not far off."""
    known = [value for line in lines for value in (*line.values, *line.high) if value is not None]
    highest = max(known)
    near = limit is not None and limit[1] <= 2 * highest
    y = counts(unit, max(highest, limit[1]) if limit is not None and near else highest, most=5)
    keys = [Key(line.name, f"s{number}") for number, line in enumerate(lines, 1)] if len(lines) > 1 else []
    plot = timeline.plot(y, keys, height=180)
    for number, line in enumerate(lines, 1):
        if line.low:
            plot.band(zip(middles, line.low, line.high, strict=True), f"band f{number}")
        plot.line(zip(middles, line.values, strict=True), f"s{number}")
    if limit is not None and near:
        plot.level(limit[1], "mark", limit[0])
    told = "; ".join(f"{line.name} {_range(line.values)} {unit}" for line in lines)
    return plot.svg(title, f"{told}.")


def _range(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "unknown"
    low, high = format_count(float(min(known))), format_count(float(max(known)))
    return low if low == high else f"{low} to {high}"
