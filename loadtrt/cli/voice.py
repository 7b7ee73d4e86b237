"""Progress on stderr while something is measured."""

from __future__ import annotations

import shutil
import sys
from contextlib import suppress
from time import perf_counter_ns
from typing import TYPE_CHECKING

from loadtrt.printing import one_line
from loadtrt.units import SECOND_NS, format_count, format_duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtrt.asked.config import RunConfig
    from loadtrt.lanes.session import Phase
    from loadtrt.live.observer import Observer


_SHOW_CURSOR = "\x1b[?25h"


class Voice:
    """Progress of a run on stderr: a rewritten line on a terminal, otherwise a line every ten seconds.

    One short line per second costs the measuring process 0.1 ms; a live table belongs in a process of its own.
    """

    _EVERY = 10  # ticks between two lines without a terminal

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._terminal = sys.stderr.isatty()
        self._width = 0
        self._ticks = 0
        self._next_ns = 0
        self._observer: Observer | None = None

    @property
    def on_terminal(self) -> bool:
        """Whether stderr is a terminal and --quiet is not given."""
        return self._terminal and not self._quiet

    def hand_over(self, observer: Observer) -> None:
        """From now on the observer process writes to stderr."""
        self.end_line()
        self._observer = observer

    def take_back(self) -> None:
        """The observer no longer writes. A killed one has left the cursor hidden."""
        if self._observer is not None and not self._observer.alive:
            self._write(_SHOW_CURSOR)
        self._observer = None

    def say(self, sentence: str) -> None:
        """Write a line."""
        sentence = one_line(sentence)
        if self._observer is not None and self._observer.alive:
            self._observer.say(sentence)
        elif not self._quiet:
            self.end_line()
            self._write(sentence + "\n")

    def progress(self, config: RunConfig) -> Callable[[Phase, int, int, int], None] | None:
        """A function for the session to call each second."""
        if self._quiet:
            return None
        least_ns, requests = config.least_ns(config.model), config.model.requests
        whole = f" of {format_duration(least_ns)}" if least_ns else ""
        least = f" {'and' if whole else 'of'} {format_count(requests)} requests" if requests else ""

        def show(phase: Phase, elapsed_ns: int, submitted: int, completed: int) -> None:
            measuring = phase == "measure"
            goal = f"{whole}{least}" if measuring else ""
            if not elapsed_ns:  # the phase begins
                self._ticks = 0
                self._show(f"{phase}{goal}")
                return
            self._show(
                f"{phase} {format_duration(elapsed_ns)}{goal} · {format_count(completed)} requests"
                f" · {format_count(completed * SECOND_NS / elapsed_ns)}/s · {submitted - completed} in flight"
            )

        return show

    def share(self, what: str, fraction: float) -> None:
        """Show a fraction in [0, 1], on a terminal alone and at most ten times a second."""
        now = perf_counter_ns()
        if self._terminal and not self._quiet and now >= self._next_ns:
            self._next_ns = now + SECOND_NS // 10
            self._show(f"{what} {fraction:.0%}")

    def status(self, line: str) -> None:
        """Show what is being done, on a terminal alone."""
        if self._terminal and not self._quiet:
            self._show(line)

    def _show(self, line: str) -> None:
        if self._observer is not None and self._observer.alive:
            return
        line = one_line(line)
        if self._terminal:
            line = line[: shutil.get_terminal_size().columns - 1]  # a line that wraps could not be drawn over
            self._write("\r" + line.ljust(self._width))
            self._width = len(line)
        else:
            if self._ticks % self._EVERY == 0:
                self._write(line + "\n")
            self._ticks += 1

    def end_line(self) -> None:
        """Clear the rewritten line."""
        if self._width:
            self._write("\r" + " " * self._width + "\r")
            self._width = 0

    def _write(self, text: str) -> None:
        """Write, and ignore a terminal that is gone: the measurement goes on."""
        with suppress(OSError, ValueError):
            sys.stderr.write(text)
            sys.stderr.flush()
