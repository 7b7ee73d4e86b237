"""The view on a terminal: each frame is drawn over the previous one, below earlier messages, and removed on close.

rich makes the characters. The drawing is not rich.live.Live, which assumes that a frame keeps its height: a window that
becomes narrower wraps the lines, and each resize would leave a part of the old frame behind.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from rich.cells import cell_len
from rich.console import Console

from loadtrt.live.frame import render, status_line
from loadtrt.printing import one_line
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtrt.live.view import View

_SIZE = (80, 24)  # where the terminal's size is not known
_HIDE, _SHOW = "\x1b[?25l", "\x1b[?25h"  # the cursor
_CUT, _WRAP = "\x1b[?7l", "\x1b[?7h"  # lines that turn out too long, by characters of unknown width
_ERASE_LINE, _ERASE_BELOW = "\x1b[K", "\x1b[J"


class Terminal:
    """Draws on a terminal; elsewhere (a file, a pipe, TERM=dumb) it writes a line now and then. For one thread.

    gone: the terminal was closed. Nothing is raised then: the measurement goes on.
    draws: whether the stream is a terminal that can be drawn on.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        line_every_ns: int = 10 * SECOND_NS,
        size: Callable[[], tuple[int, int]] | None = None,
    ) -> None:
        """stream: stderr by default. line_every_ns: time between two lines where nothing can be drawn. size: (columns,
        lines) of the terminal, read before each frame; by default the stream's."""
        self._stream = sys.stderr if stream is None else stream
        self._size = size or self._stream_size
        self._unicode = (self._stream.encoding or "utf-8").lower().startswith("utf")
        self.gone = False
        self.draws = self._stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
        # For the characters alone: rich ends the process when the file that it writes to has gone.
        self._console = Console(file=io.StringIO(), force_terminal=self.draws, highlight=False, markup=False)
        self._line_every_ns = line_every_ns
        self._next_line_ns = 0
        self._drawn: list[int] = []  # the width of each line of the current frame
        self._drawn_text = ""
        self._closed = False

    def show(self, view: View) -> None:
        """Draw the view over the previous one."""
        if self._closed:
            return
        if not self.draws:
            if view.now_ns >= self._next_line_ns:
                self._next_line_ns = view.now_ns + self._line_every_ns
                self._write(self._encodable(status_line(view)) + "\n")
            return
        width, height = self._size()
        # One column and one line less: terminals differ in where the cursor is after the last column.
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
        """Write a line above the view."""
        line = self._encodable(one_line(sentence)) + "\n"
        if not self._drawn:
            self._write(line)
            return
        width = self._size()[0]
        top = self._to_top(width)
        self._drawn = [min(length, width) for length in self._drawn]  # lines that are now too long are cut
        self._write(f"{top}{_ERASE_BELOW}{line}{_CUT}{self._drawn_text}{_WRAP}")

    def close(self) -> None:
        """Remove the view and show the cursor; `say` still works. Safe to call twice."""
        if self._drawn:
            self._write(f"{self._to_top(self._size()[0])}{_ERASE_BELOW}{_SHOW}")
            self._drawn = []
        self._closed = True

    def _to_top(self, width: int) -> str:
        """Move the cursor from the end of the frame to its start. The terminal has wrapped lines that no longer fit."""
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
