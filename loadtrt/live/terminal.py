"""The view on a terminal: drawn over itself below whatever was said, and gone when it closes.

rich makes the characters; the drawing is our own, because rich.live.Live takes a frame to be as tall as it was drawn. A
window that gets narrower wraps the lines on it, and every resize would leave a part of the old frame behind.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from rich.cells import cell_len
from rich.console import Console

from loadtrt.live.frame import printable, render, status_line
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtrt.live.view import View

_SIZE = (80, 24)  # where the terminal does not tell
_HIDE, _SHOW = "\x1b[?25l", "\x1b[?25h"  # the cursor
_CUT, _WRAP = "\x1b[?7l", "\x1b[?7h"  # lines that are too long, by characters that are wider here than anybody knows
_ERASE_LINE, _ERASE_BELOW = "\x1b[K", "\x1b[J"


class Terminal:
    """Draws on a terminal, and writes a line now and then where there is none (a file, a pipe, TERM=dumb).

    A terminal that has gone is no reason to lose a measurement: `gone` says so, and nothing is raised. For one thread.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        line_every_ns: int = 10 * SECOND_NS,
        size: Callable[[], tuple[int, int]] | None = None,
    ) -> None:
        """stream: stderr, unless given. line_every_ns: between two lines where nothing can be drawn. size: (columns,
        lines) of the terminal, asked before each frame; by default the stream's own."""
        self._stream = sys.stderr if stream is None else stream
        self._size = size or self._stream_size
        self._unicode = (self._stream.encoding or "utf-8").lower().startswith("utf")
        self.gone = False
        self.draws = self._stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
        # Makes the characters and writes them nowhere: rich ends the process when its file has gone.
        self._console = Console(file=io.StringIO(), force_terminal=self.draws, highlight=False, markup=False)
        self._line_every_ns = line_every_ns
        self._next_line_ns = 0
        self._drawn: list[int] = []  # the width of each line of the frame that stands there
        self._drawn_text = ""
        self._closed = False

    def show(self, view: View) -> None:
        """Draw the view over the one before."""
        if self._closed:
            return
        if not self.draws:
            if view.now_ns >= self._next_line_ns:
                self._next_line_ns = view.now_ns + self._line_every_ns
                self._write(self._encodable(status_line(view)) + "\n")
            return
        width, height = self._size()
        # One column and one line less: a cursor behind the last column is where terminals differ.
        frame = render(view, max(width - 1, 1), max(height - 1, 1), unicode=self._unicode)
        self._console.size = (max(width, 1), max(height, 1))
        with self._console.capture() as text:
            self._console.print(frame, end="")
        before = self._to_top(width)
        drawn = text.get().replace("\n", _ERASE_LINE + "\n") + _ERASE_LINE
        self._drawn = [cell_len(line.plain) for line in frame.lines]
        self._drawn_text = drawn
        self._write(f"{_HIDE}{_CUT}{before}{drawn}{_ERASE_BELOW}{_WRAP}")

    def say(self, sentence: str) -> None:
        """A line of its own, above the view."""
        line = self._encodable(printable(sentence)) + "\n"
        if not self._drawn:
            self._write(line)
            return
        width = self._size()[0]
        top = self._to_top(width)
        self._drawn = [min(length, width) for length in self._drawn]  # what is too long by now is cut
        self._write(f"{top}{_ERASE_BELOW}{line}{_CUT}{self._drawn_text}{_WRAP}")

    def close(self) -> None:
        """Take the view away and show the cursor; what is said from now on is still written. Safe to call twice."""
        if self._drawn:
            self._write(f"{self._to_top(self._size()[0])}{_ERASE_BELOW}{_SHOW}")
            self._drawn = []
        self._closed = True

    def _to_top(self, width: int) -> str:
        """Moves the cursor from the end of the frame to its beginning. Lines that no longer fit have been wrapped."""
        if not self._drawn:
            return ""
        rows = sum(max(-(-length // width), 1) for length in self._drawn) - 1
        wrapped = any(length > width for length in self._drawn)
        return "\r" + (f"\x1b[{rows}A" if rows else "") + (_ERASE_BELOW if wrapped else "")

    def _stream_size(self) -> tuple[int, int]:
        with suppress(OSError, ValueError):
            size = os.get_terminal_size(self._stream.fileno())
            if size.columns and size.lines:
                return size.columns, size.lines
        return _SIZE

    def _encodable(self, text: str) -> str:
        encoding = self._stream.encoding or "utf-8"
        return text.encode(encoding, "replace").decode(encoding)

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            self.gone = True
