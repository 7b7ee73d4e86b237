"""Progress on stderr while something is measured."""

from __future__ import annotations

import os
import select
import shutil
import sys
from contextlib import suppress
from functools import partial
from threading import RLock, Timer, current_thread
from time import perf_counter_ns
from typing import TYPE_CHECKING, TextIO

from loadtrt.lanes.ending import FIRST_NS
from loadtrt.loop.compiled import tell_of_compiling
from loadtrt.printing import one_line
from loadtrt.signals import SIGNALS
from loadtrt.units import SECOND_NS, format_count, format_duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtrt.asked.config import RunConfig
    from loadtrt.lanes.model_run import Phase
    from loadtrt.live.observer import Observer

_RESTORE = b"\x1b[0m\x1b[?7h\x1b[?25h"  # the default colours, lines that wrap, and the cursor
_REWRITE_NS = SECOND_NS // 10  # between two rewritten lines, at least
_LINE_NS = 10 * SECOND_NS  # between two lines without a terminal
_SLOW_S = 2.0  # after which a status is a line there


class Voice:
    """Progress of a run on stderr: a rewritten line on a terminal, otherwise a line every ten seconds, by the reader's
    clock: a simulated engine may have a virtual one, of which hours pass in a second.

    One short line per second costs the measuring process 0.1 ms; a live table belongs in a process of its own.
    """

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._terminal = sys.stderr.isatty()
        self._width = 0
        self._next_ns, self._written_ns = 0, perf_counter_ns()
        self._observer: Observer | None = None
        self._slow: Timer | None = None
        self._slow_line = ""
        self._deciding = RLock()  # whether a status is slow, or over
        tell_of_compiling(self.say)

    @property
    def on_terminal(self) -> bool:
        """Whether stderr is a terminal and --quiet is not given."""
        return self._terminal and not self._quiet

    def hand_over(self, observer: Observer) -> None:
        """From now on the observer process writes to stderr."""
        self.end_line()
        self._observer = observer
        SIGNALS.last_acts.append(partial(restore, sys.stderr))

    def take_back(self) -> None:
        """The observer no longer writes. A killed one has left the cursor hidden."""
        if self._observer is not None and not self._observer.alive:
            restore(sys.stderr)
        self._observer = None

    def say(self, sentence: str) -> None:
        sentence = one_line(sentence)
        self._replace_status()
        if self._observer is not None and self._observer.alive:
            self._observer.say(sentence)
        elif not self._quiet:
            self.end_line()
            self._write(sentence + "\n")

    def insist(self, sentence: str) -> None:
        """Write a line, with --quiet too."""
        quiet, self._quiet = self._quiet, False
        self.say(sentence)
        self._quiet = quiet

    def progress(self, config: RunConfig) -> Callable[[Phase, int, int, int], None] | None:
        """A function for the session to call each second."""
        if self._quiet:
            return None
        models = list(config.models.values())
        least_ns = max(config.least_ns(model) for model in models)
        requests = models[0].requests if len(models) == 1 else None
        whole = f" of {format_duration(least_ns)}" if least_ns else ""
        least = f" {'and' if whole else 'of'} {format_count(requests)} requests" if requests else ""
        first = f"no completion yet, for which there are {format_duration(max(FIRST_NS, config.drain or 0))} (--drain)"

        def show(phase: Phase, elapsed_ns: int, submitted: int, completed: int) -> None:
            measuring = phase == "measure"
            goal = f"{whole}{least}" if measuring else ""
            if not elapsed_ns:  # the phase begins
                self._next_ns = 0
                line = f"{phase}{goal}"
            elif self._is_early():
                return
            elif not completed and submitted and not (measuring and config.warmup):
                line = f"{phase} {format_duration(elapsed_ns)}{goal} · {submitted} in flight · {first}"
            else:
                line = (
                    f"{phase} {format_duration(elapsed_ns)}{goal} · {format_count(completed)} requests"
                    f" · {format_count(completed * SECOND_NS / elapsed_ns)}/s · {submitted - completed} in flight"
                )
            self._next_ns = perf_counter_ns() + (_REWRITE_NS if self._terminal else _LINE_NS)
            self._show(line)

        return show

    def _is_early(self) -> bool:
        """Whether the last line of progress was shown a moment ago."""
        return perf_counter_ns() < self._next_ns

    def share(self, what: str, fraction: float) -> None:
        """Show a fraction in [0, 1], on a terminal alone and at most ten times a second."""
        if self._terminal and not self._quiet and not self._is_early():
            self._next_ns = perf_counter_ns() + _REWRITE_NS
            self._show(f"{what} {fraction:.0%}")

    def status(self, line: str, *, slow: bool = False) -> None:
        """Show what is being done: on a terminal, and elsewhere once nothing was written for ten seconds. slow: there
        once it has taken two."""
        if slow and self._slow is not None and line == self._slow_line:
            return  # it goes on
        self._replace_status()
        if self._terminal and not self._quiet:
            self._show(line)
        elif slow and not self._quiet:
            self._slow_line, self._slow = line, Timer(_SLOW_S, self._tell_slow, (one_line(line) + "\n",))
            self._slow.daemon = True
            self._slow.start()
        elif not self._quiet and perf_counter_ns() >= self._written_ns + _LINE_NS:
            self._write(one_line(line) + "\n")

    def _tell_slow(self, text: str) -> None:
        with self._deciding:
            if current_thread() is self._slow:
                self._write(text)

    def _replace_status(self) -> None:
        with self._deciding:
            if self._slow is not None:
                self._slow.cancel()
                self._slow = None

    def _show(self, line: str) -> None:
        self._replace_status()
        if self._observer is not None and self._observer.alive:
            return
        line = one_line(line)
        if self._terminal:
            line = line[: shutil.get_terminal_size().columns - 1]  # a line that wraps could not be drawn over
            self._write("\r" + line.ljust(self._width))
            self._width = len(line)
        else:
            self._write(line + "\n")

    def end_line(self) -> None:
        """Clear the rewritten line, and be done with the status."""
        self._replace_status()
        if self._width:
            self._write("\r" + " " * self._width + "\r")
            self._width = 0

    def _write(self, text: str) -> None:
        """Write, and ignore a terminal that is gone: the measurement goes on."""
        self._written_ns = perf_counter_ns()
        with suppress(OSError, ValueError):
            sys.stderr.write(text)
            sys.stderr.flush()


def restore(stream: TextIO) -> None:
    """Undo what drawing does to the stream's terminal, unless that hangs (Ctrl-S).

    It must be done when a command ends, too: with each Ctrl-C a terminal throws away what it has not shown yet.
    """
    with suppress(OSError, ValueError):
        descriptor = stream.fileno()
        if select.select([], [descriptor], [], 0)[1]:
            os.write(descriptor, _RESTORE)  # not by the stream, inside which a signal may have come
