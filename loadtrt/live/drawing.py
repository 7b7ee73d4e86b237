"""Charts and tables of the live view, as characters: rates, latencies and their histogram, lanes; Unicode or ASCII."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from rich.text import Text

from loadtrt.records.board import WINDOW_RANKS
from loadtrt.records.histogram import bounds_of
from loadtrt.units import format_count, format_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadtrt.live.view import View, WorkerView

GOOD, BAD, FAINT, STRONG = "#76b900", "bold red", "bright_black", "bold"
P50, P99 = WINDOW_RANKS.index(0.5), WINDOW_RANKS.index(0.99)
_RANKS = tuple("max" if rank == 1 else f"p{100 * rank:g}" for rank in WINDOW_RANKS)
_RANKS_BY_WORTH = ("p99", "p50", "max", "p90", "p99.9", "p95")
_AWAY = ("lost", "silent")  # phases of workers that are not heard of
_TAIL = 0.001  # of the latencies at either end, not drawn in the histogram
_LEAST_CHART = 10  # columns
_LABELS = 25  # columns before a chart: name and number
_NOTE = 11  # columns after it: its highest value, with the space before
_EIGHTHS = 8
_UPWARDS = {True: " ▁▂▃▄▅▆▇█", False: " _.-=+*##"}
_TRANSLATED = str.maketrans("·→…×≈°µ–✓✗▴━─▕", "|>~x~ u-+x^=-|")  # one for one: styles keep their places
_LEAST_SPREAD = 0.1  # of the middle: a narrow histogram stays a peak


class Charts:
    """Draws the charts of one View, `width` columns wide. Each takes a number of lines and returns no more."""

    def __init__(self, view: View, width: int, unicode: bool) -> None:
        self._view = view
        self._width = width
        self._unicode = unicode
        self._bounds = [bound for bound in view.facts.objectives if bound.metric_name == "latency"]
        self._bound_ns = min((bound.bound_ns for bound in self._bounds), default=math.inf)
        self._p99_bound_ns = min((bound.bound_ns for bound in self._bounds if bound.rank >= 0.99), default=math.inf)

    def rates(self, rows: int) -> list[Text]:
        """Requests a second above, latencies below: now, and over the last seconds."""
        view = self._view
        heights = rows - rows // 2, rows // 2
        rates = [("requests/s", view.requests_per_s), ("inferences/s", view.inferences_per_s)]
        rates += [("offered/s", view.facts.rate)]
        rates = rates if view.facts.batch > 1 else [rates[0], rates[2]]
        numbers = [(name, "–" if rate is None else format_count(rate)) for name, rate in rates]
        lines = self._chart(numbers, view.rate_history, heights[0], format_count, math.inf)
        window = view.window
        times = [("p99", P99), ("p50", P50)]
        numbers = [(name, "–" if window is None else format_duration(window[place])) for name, place in times]
        return lines + self._chart(numbers, view.p99_history, heights[1], format_duration, self._p99_bound_ns)

    def _chart(
        self,
        numbers: Sequence[tuple[str, str]],
        history: Sequence[float | None],
        height: int,
        words: Callable[[float], str],
        bound: float,
    ) -> list[Text]:
        """Numbers on the left, their history on the right with its highest value. Red above `bound`."""
        room = self._width - _LABELS - _NOTE
        label = min(13, max(self._width - 10, 0))
        shown = history[-room:] if room >= _LEAST_CHART else ()
        top = max((value for value in shown if value is not None), default=0.0)
        rows = columns(shown, height, top, unicode=self._unicode)
        styles = [BAD if value is not None and value > bound else GOOD for value in shown]
        lines = []
        for number in range(height):
            name, value = numbers[number] if number < len(numbers) else ("", "")
            line = Text.styled(f"{name:<{label}}"[:label], FAINT).append(f"{value:>9}  ", STRONG if number == 0 else "")
            if shown:
                line.append(" " * (room - len(shown)))
                _paint(line, rows[number], styles)
                note = words(top) if number == 0 and top else f"{len(shown)} s" if number == height - 1 else ""
                line.append(f" {note}", FAINT)
            lines.append(line)
        return lines

    def latency(self, _: int) -> list[Text]:
        """A table of percentiles, as many columns as fit; red above an objective's bound."""
        view = self._view
        names = ("last second", "run") if self._width >= 40 else ("1 s", "run")
        first = len(names[0]) + 2
        room = min(max((self._width - first) // len(_RANKS), 9), 14)
        kept = _RANKS_BY_WORTH[: max((self._width - first) // room, 1)]
        places = [place for place, name in enumerate(_RANKS) if name in kept]
        header = "".join(f"{_RANKS[place]:>{room}}" for place in places)
        title = "latency" if self._width >= 40 else ""
        lines = [Text.styled(f"{title:<{first}}{header}", FAINT)]
        for name, values in zip(names, (view.window, view.whole), strict=True):
            line = Text.styled(f"{name:<{first}}", FAINT)
            for place in places:
                value = None if values is None else values[place]
                text = "–" if value is None else format_duration(value)
                over = value is not None and any(
                    WINDOW_RANKS[place] == objective.rank and value > objective.bound_ns for objective in self._bounds
                )
                line.append(f"{text:>{room}}", BAD if over else STRONG if _RANKS[place] == "p99" else "")
            lines.append(line)
        return lines

    def histogram(self, rows: int) -> list[Text]:
        """Latencies of the whole run, from left to right, with an axis below; red above an objective's bound."""
        low, high = span_of(self._view.histogram, _TAIL)
        heights = binned(self._view.histogram, low, high, self._width)
        step = (high - low) / self._width
        styles = [BAD if low + place * step >= self._bound_ns else GOOD for place in range(self._width)]
        lines = []
        for row in columns(heights, rows - 1, max(heights), unicode=self._unicode):
            line = Text()
            _paint(line, row, styles)
            lines.append(line)
        return [*lines, self._axis(low, high)]

    def _axis(self, low: float, high: float) -> Text:
        """Where the histogram begins and ends, and where its p50 and p99 are, as far as there is room."""
        axis = [" "] * self._width
        marks = [(0, format_duration(low)), (self._width - len(format_duration(high)), format_duration(high))]
        for place, name in ((P99, "p99"), (P50, "p50")):
            value = self._view.whole[place]
            if value is not None:
                marks.append((int((value - low) / (high - low) * self._width), f"▴{name}"))
        for start, text in marks:
            end = start + len(text)
            if start >= 0 and end <= self._width and all(char == " " for char in axis[max(start - 1, 0) : end + 1]):
                axis[start:end] = text
        return Text.styled("".join(axis), FAINT)

    def lanes(self, rows: int) -> list[Text]:
        """A line a lane, or several lanes in a line, or all of them as one row of columns, as of a fleet."""
        lanes = self._view.lanes
        if self._view.workers:
            return [self._lane_strip()]
        abreast = -(-len(lanes) // rows)
        room = self._width // abreast
        digits = len(str(len(lanes) - 1))
        if room < 30 + digits and len(lanes) > 1:
            return [self._lane_strip()]
        lines = []
        for first in range(0, len(lanes), abreast):
            line = Text()
            for number in range(first, min(first + abreast, len(lanes))):
                rate, share = lanes[number].requests_per_s, lanes[number].compute_share
                words = " computing" if room >= 60 else ""
                busy = "–" if share is None else f"{100 * share:.0f} %{words}"
                work = "–" if rate is None else f"{busy}{format_count(rate):>8}/s"
                line.append(f"lane {number:<{digits}} ", FAINT)
                length = room - digits - 6 - len(work) - 4
                done, rest = bar(share or 0.0, max(length, 0))
                line.append(done, GOOD).append(rest, FAINT)
                line.append(f" {work}   ")
            lines.append(line)
        return lines

    def workers(self, rows: int) -> list[Text]:
        """A table of the workers of a fleet, as many columns as fit; where there is no room for all, of those that are
        lost or silent and of those with the highest p99, and how many more there are."""
        workers = self._view.workers
        shown, more = workers, 0
        if len(workers) > rows - 1:
            worst = sorted(workers, key=lambda worker: (worker.phase not in _AWAY, -(worker.p99_ns or 0)))
            shown = tuple(worker for worker in workers if worker in worst[: max(rows - 2, 0)])
            more = len(workers) - len(shown)
        cells: list[tuple[str, ...]] = [
            ("worker", "device", "phase", "requests/s", "p99, last s", "in flight", "served", "SM clock")
        ]
        cells += [_cells_of(worker) for worker in shown]
        columns = [column for column in zip(*cells, strict=True) if any(column[1:])]
        widths = [max(map(len, column)) for column in columns]
        while len(widths) > 1 and sum(widths) + 3 * (len(widths) - 1) > self._width:
            del columns[-1], widths[-1]
        lines = []
        for worker, row in zip((None, *shown), zip(*columns, strict=True), strict=True):
            line = Text()
            for cell, width, (name, *_) in zip(row, widths, columns, strict=True):
                over = worker is not None and name.startswith("p99") and (worker.p99_ns or 0) > self._p99_bound_ns
                style = FAINT if worker is None else BAD if over or cell in _AWAY else ""
                line.append(f"{cell:<{width}}   " if name in ("worker", "phase") else f"{cell:>{width}}   ", style)
            lines.append(line)
        return [*lines, Text.styled(f"and {more} more", FAINT)] if more else lines

    def _lane_strip(self) -> Text:
        shares = [lane.compute_share for lane in self._view.lanes]
        known = [share for share in shares if share is not None]
        mean = f" computing {100 * sum(known) / len(known):.0f} % of the time" if known else ""
        line = Text.styled("lanes ", FAINT).append(columns(shares, 1, 1.0, unicode=self._unicode)[0], GOOD)
        return line.append(mean)


def _cells_of(worker: WorkerView) -> tuple[str, ...]:
    gpu = worker.gpu
    clock = "" if gpu is None or gpu.sm_clock_hertz is None else f"{gpu.sm_clock_hertz / 1e6:.0f} MHz"
    return (
        worker.worker,
        worker.device,
        worker.phase,
        "–" if worker.requests_per_s is None else format_count(worker.requests_per_s),
        "–" if worker.p99_ns is None else format_duration(worker.p99_ns),
        format_count(worker.in_flight),
        format_count(worker.ok),
        f"{clock}, slowed" if gpu is not None and gpu.slowdowns else clock,
    )


def _paint(line: Text, glyphs: str, styles: Sequence[str]) -> None:
    """Append glyphs in their styles, a run of one style at a time."""
    start = 0
    for place in range(1, len(glyphs) + 1):
        if place == len(glyphs) or styles[place] != styles[start]:
            line.append(glyphs[start:place], styles[start])
            start = place


def ascii_of(text: str) -> str:
    """The text in ASCII; a character without an ASCII likeness becomes a question mark."""
    return text.translate(_TRANSLATED).encode("ascii", "replace").decode("ascii")


def columns(values: Sequence[float | None], height: int, top: float, *, unicode: bool = True) -> list[str]:
    """`height` lines, the uppermost first, with a column for each value from 0 to `top`; None is left blank.

    A value above 0 takes at least an eighth of a line, so that it shows.
    """
    glyphs, scale = _UPWARDS[unicode], height * _EIGHTHS
    filled = [0 if not value or top <= 0 else min(max(round(value / top * scale), 1), scale) for value in values]
    return [
        "".join(glyphs[min(max(eighths - base, 0), _EIGHTHS)] for eighths in filled)
        for base in range((height - 1) * _EIGHTHS, -1, -_EIGHTHS)
    ]


def bar(share: float, width: int) -> tuple[str, str]:
    """A bar of `width` characters: the part of it that is `share`, in [0, 1], and the rest."""
    done = round(min(max(share, 0.0), 1.0) * width)
    return "━" * done, "─" * (width - done)


def span_of(histogram: Sequence[tuple[int, int]], tail: float) -> tuple[float, float]:
    """(low, high) in ns that hold all but a `tail` of the counts at either end, and are wide enough to show a peak.

    histogram: (bucket, count) pairs of a Histogram in order, at least one."""
    buckets, counts = np.array(histogram, np.int64).T
    lows, widths = bounds_of(buckets)
    reached = np.cumsum(counts)
    first = int(np.searchsorted(reached, tail * reached[-1], side="right"))
    last = int(np.searchsorted(reached, (1 - tail) * reached[-1]))
    low, high = float(lows[first]), float(lows[last] + widths[last])
    lacking = max(_LEAST_SPREAD * (low + high) / 2 - (high - low), 0.0)
    return max(low - lacking / 2, 0.0), high + lacking / 2


def binned(histogram: Sequence[tuple[int, int]], low: float, high: float, count: int) -> list[float]:
    """How many values fall into each of `count` equal parts of [low, high) ns; a bucket's are spread evenly over it."""
    buckets, counts = np.array(histogram, np.int64).T
    lows, widths = bounds_of(buckets)
    reached = np.cumsum(counts)
    instants = np.stack([lows, lows + widths], axis=1).reshape(-1)
    grown = np.stack([reached - counts, reached], axis=1).reshape(-1)
    parts = np.diff(np.interp(np.linspace(low, high, count + 1), instants, grown))
    counts_by_part: list[float] = parts.round(6).tolist()  # rounding errors are not counts
    return counts_by_part
