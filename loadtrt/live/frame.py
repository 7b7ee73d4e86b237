"""A View as lines of text for a terminal of any size: a pure function.

A part that does not fit is left out whole, the least important first. No line is wider than the terminal, and there are
no more lines than it has: a frame is drawn over the previous one, and a wrapped line could not be drawn over.
"""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rich.segment import Segment
from rich.text import Text

from loadtrt.asked.objective import quantile_name
from loadtrt.live.drawing import BAD, FAINT, GOOD, P50, P99, STRONG, Charts, ascii_of, bar
from loadtrt.printing import one_line
from loadtrt.units import SECOND_NS, format_bytes, format_count, format_duration, plural

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import Console, ConsoleOptions

    from loadtrt.live.view import View

WARNING = "bold yellow"
_WIDEST = 160  # beyond it lines are hard to read
_URGENT = 1
_MEASURED = ("measure", "drain", "done")  # phases that have numbers


@dataclass(frozen=True, slots=True)
class Frame:
    """Lines for rich to print one below the other, without a line break after the last."""

    lines: tuple[Text, ...]

    def __rich_console__(self, console: Console, _: ConsoleOptions) -> Iterator[Segment]:
        for number, line in enumerate(self.lines):
            if number:
                yield Segment.line()
            yield from line.render(console)


@dataclass(frozen=True, slots=True)
class _Part:
    """Lines that belong together.

    worth: the smaller, the longer the part stays when room runs out.
    draw: makes as many lines as it is given, or fewer.
    least, most: the lines it may be given; least 0 is a part that is not there.
    gap: whether an empty line comes before the part, if there is room.
    """

    worth: int
    draw: Callable[[int], list[Text]]
    least: int = 1
    most: int = 1
    gap: bool = False


def render(view: View, width: int, height: int, *, unicode: bool = True) -> Frame:
    """The View in at most `width` columns and `height` lines, in ASCII where `unicode` is False; the models of a run
    have equal parts of them, and the GPU, which is the same for all, stands once."""
    models = [replace(view, others=()), *(replace(other, gpu=None) for other in view.others)]
    rows, shown = height // len(models), models[:height]
    heights = [rows or 1] * len(shown)
    heights[0] += height - sum(heights)
    frames = [_lines(model, width, lines, unicode=unicode) for model, lines in zip(shown, heights, strict=True)]
    return Frame(tuple(line for frame in frames for line in frame))


def _lines(view: View, width: int, height: int, *, unicode: bool) -> list[Text]:
    """One model's View."""
    margin = 1 if width >= 40 else 0
    artist = _Artist(view, min(width, _WIDEST) - 2 * margin, unicode)
    lines = []
    for line in _laid_out(artist.parts(height), height):
        line.plain = "".join(sign if sign.isprintable() else "?" for sign in line.plain)  # of another host's view
        if not unicode:
            line.plain = ascii_of(line.plain)
        line.truncate(artist.width, overflow="ellipsis" if unicode else "crop")
        line.pad_left(margin)
        line.end = ""
        lines.append(line)
    return lines


def status_line(view: View) -> str:
    """The View in one line, for where nothing can be drawn."""
    if view.others:
        models = (replace(view, others=()), *view.others)
        return one_line(" | ".join(f"{model.facts.model}: {status_line(model)}" for model in models))
    words = _progress_words(view)[:1]
    if view.requests_per_s is not None and view.phase != "done":
        words.append(f"{format_count(view.requests_per_s)} requests/s")
    words += _counts(view)
    if view.window is not None and view.phase != "done":
        words.append(f"last second p50 {format_duration(view.window[P50])}, p99 {format_duration(view.window[P99])}")
    words += [f"{alert.evidence}: {alert.remedy}" for alert in view.alerts]
    return one_line(f"{view.phase} " + " · ".join(words))


def _laid_out(parts: Sequence[_Part], height: int) -> Iterator[Text]:
    """As many parts as fit, by worth; then the remaining lines go to alerts, gaps, and parts that can grow."""
    rows: dict[int, int] = {}
    gaps: set[int] = set()
    left = height
    by_worth = sorted(range(len(parts)), key=lambda number: parts[number].worth)
    for number in by_worth:
        if 0 < parts[number].least <= left:
            rows[number] = parts[number].least
            left -= rows[number]

    def grow(number: int) -> None:
        nonlocal left
        more = min(parts[number].most - rows[number], left)
        rows[number] += more
        left -= more

    here = [number for number in by_worth if number in rows]
    for number in here:
        if parts[number].worth == _URGENT:
            grow(number)
    for number in here:
        if left and parts[number].gap:
            gaps.add(number)
            left -= 1
    for number in reversed(here):
        grow(number)
    for number, part in enumerate(parts):
        if number in rows:
            if number in gaps:
                yield Text()
            yield from part.draw(rows[number])


class _Artist:
    """Draws the parts of one View, `width` columns wide."""

    def __init__(self, view: View, width: int, unicode: bool) -> None:
        self.view = view
        self.width = width
        self._charts = Charts(view, width, unicode)

    def parts(self, height: int) -> list[_Part]:
        """From top to bottom."""
        view = self.view
        alerts = self._alerts()
        short = [Text.styled("! ", WARNING).append(one_line(alert.evidence), "yellow") for alert in view.alerts]
        objectives = len(view.objectives)
        begun = int(view.phase in _MEASURED)
        workers = len(view.workers) + 1 if view.workers else 0
        return [
            _Part(5, self._title),
            _Part(0, self._progress),
            _Part(2, self._charts.rates, least=2 * begun, most=6, gap=True),
            _Part(4, self._counts, least=begun),
            _Part(3, self._charts.latency, least=3 * begun, most=3, gap=True),
            _Part(9, self._charts.histogram, least=3 if view.histogram else 0, most=7),
            _Part(3, self._charts.workers, least=min(workers, max(height // 3, 3)), most=workers, gap=True),
            _Part(10, self._charts.lanes, least=begun, most=1 if workers else len(view.lanes), gap=True),
            _Part(7, self._gpu, least=int(view.gpu is not None), gap=True),
            _Part(6, self._objectives, least=begun * objectives, most=objectives, gap=view.gpu is None),
            _Part(
                _URGENT,
                lambda rows: alerts if rows >= len(alerts) else short[:rows],
                least=min(len(view.alerts), max(height // 4, 1)),
                most=len(alerts),
                gap=True,
            ),
        ]

    def _title(self, _: int) -> list[Text]:
        facts = self.view.facts
        labels = facts.information
        load = f"{format_count(facts.places)} in flight, closed loop"
        if labels.get("arrivals", "closed") != "closed" or facts.rate is not None:
            load = labels.get("arrivals", "offered")
            load += f" {format_count(facts.rate)}/s" if facts.rate is not None else ""
        words = [load, labels.get("precision", ""), plural(facts.lanes, "context"), f"batch {facts.batch}"]
        words += [plural(len(self.view.workers), "worker")] if self.view.workers else []
        words += [f"{labels.get('flavour', '')} {labels.get('version', '')}".strip(), labels.get("device", "")]
        words = [one_line(word) for word in words if word]
        model = Text.styled(one_line(facts.model), STRONG)
        model.truncate(max(self.width // 2, self.width - 60), overflow="ellipsis")
        return [model.append_text(self._fit(words, self.width - model.cell_len, FAINT))]

    def _progress(self, _: int) -> list[Text]:
        view = self.view
        line = Text.styled(f"{view.phase} ", f"{STRONG} {GOOD}")
        words, share = _progress_words(view), view.done_share
        if share is None:
            return [line.append(" · ".join(words))]
        text = " · ".join(words)
        room = self.width - line.cell_len - (len(text) + 1 if text else 0)
        if room < 8:
            return [line.append(text if room >= 0 or not words else words[-1])]
        done, rest = bar(share, room)
        return [line.append(done, GOOD).append(rest, FAINT).append(f" {text}" if text else "")]

    def _counts(self, _: int) -> list[Text]:
        return [self._fit(_counts(self.view), self.width, "", first=True)]

    def _gpu(self, _: int) -> list[Text]:
        gpu = self.view.gpu
        if gpu is None:
            return []
        use, clock, watts, joules = gpu.utilization_ratio, gpu.sm_clock_hertz, gpu.power_watts, self.view.joules
        words = [] if use is None else [f"{100 * use:.0f} %"]
        words += [] if clock is None else [f"{clock / 1e6:.0f}{_of(gpu.max_sm_clock_hertz, 1e6)} MHz"]
        words += [] if watts is None else [f"{watts:.0f}{_of(gpu.power_limit_watts)} W"]
        words += [] if gpu.temperature_celsius is None else [f"{gpu.temperature_celsius} °C"]
        words += [] if joules is None else [f"{format_count(1000 * joules)} mJ/inference"]
        words += [] if gpu.memory_used_bytes is None else [f"{format_bytes(gpu.memory_used_bytes)} used"]
        line = Text.styled("GPU ", FAINT)
        return [line.append_text(self._fit(words or ["gives no numbers"], self.width - 4, "", first=True))]

    def _objectives(self, _: int) -> list[Text]:
        lines = []
        for item in self.view.objectives:
            share, value, objective = item.good_share, item.value, item.objective
            if share is not None:
                good = "within it" if objective.kind == "quantile" else f"not {objective.bad_word}"
                needed = f"{100 * objective.rank:.10g} % needed"
                met, now = share >= objective.rank, f"{_percent(share, objective.rank)} % {good}, {needed}"
            elif value is not None:
                met, now = objective.holds(value), objective.written(value)
            else:
                met, now = None, ""
            mark, style = ("·", FAINT) if met is None else ("✓", GOOD) if met else ("✗", BAD)
            words = ["undecided"] if met is None else ["met so far" if met else "missed so far", now]
            line = Text.styled(f"{mark} ", style).append(one_line(item.objective.text), STRONG)
            lines.append(line.append_text(self._fit(words, self.width - line.cell_len, style)))
        return lines

    def _alerts(self) -> list[Text]:
        """Every alert, evidence and remedy, in as many lines as they need."""
        lines = []
        for alert in self.view.alerts:
            text = one_line(f"{alert.evidence} → {alert.remedy}")
            for number, part in enumerate(textwrap.wrap(text, max(self.width - 2, 1))):
                lines.append(Text.styled("! " if not number else "  ", WARNING).append(part, "yellow"))
        return lines

    def _fit(self, words: Sequence[str], room: int, style: str, first: bool = False) -> Text:
        """As many words as there is room for, a dot between two, and one before them unless they come first."""
        line = Text()
        for word in words:
            dot = "" if first and not line else " · "
            if line.cell_len + len(dot) + len(word) > room:
                break
            line.append(dot, FAINT).append(word, style)
        return line


def _progress_words(view: View) -> list[str]:
    """How far measuring is and what is left; nothing for a run that is over."""
    if view.phase == "done":
        return []
    facts = view.facts
    measuring = view.done_share is not None or view.phase == "measure"
    goal = f" of {_clock(facts.duration_ns)}" if facts.duration_ns and measuring else ""
    words = [f"{_clock(view.elapsed_ns)}{goal}"]
    if facts.requests and measuring:
        finished = view.ok + view.failed + view.unserved + view.dropped
        words.append(f"{format_count(finished)} of {plural(facts.requests, 'request')}")
    if view.left_ns:
        words.append(f"{_clock(view.left_ns)} left")
    return words


def _counts(view: View) -> list[str]:
    words = [f"{format_count(view.ok)} served"]
    words += [f"{format_count(view.failed)} failed"] if view.failed else []
    words += [f"{format_count(view.unserved)} not served"] if view.unserved else []
    words += [f"{format_count(view.dropped)} dropped"] if view.dropped else []
    if view.phase == "done":
        return words
    words.append(f"{format_count(view.in_flight)} in flight")
    words += [f"{format_count(view.waiting)} waiting"] if view.facts.rate is not None else []
    words.append(f"{view.busy_lanes} of {plural(view.facts.lanes, 'lane')} busy")
    return words


def _clock(ns: int) -> str:
    """Whole seconds: "12 s", "2:05 min", "1:02:05 h"."""
    seconds = ns // SECOND_NS
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02} h" if hours else f"{minutes}:{seconds:02} min"


def _percent(share: float, rank: float) -> str:
    """A share in percent, rounded down, with enough digits that a share below `rank` never looks equal to it."""
    digits = max(2 if rank <= 0.99 else 4, len(quantile_name(rank).partition(".")[2]))
    return f"{math.floor(share * 10 ** (digits + 2)) / 10**digits:.{digits}f}"


def _of(limit: float | None, scale: float = 1.0) -> str:
    return "" if limit is None else f" of {limit / scale:.0f}"
