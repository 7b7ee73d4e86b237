"""Takes one row for each request on the hot path, and counts rows when no request waits for it.

While a run measures, rows are not counted: the board keeps them until the run is over. A run with more rows than the
board keeps counts a block now and then, before the ring overwrites it.
"""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from loadtrt.loop.requests import PAUSE_AT, ROW
from loadtrt.records.board import KEEP, STRIDE, Board
from loadtrt.records.records import COLUMNS, DROPPED, UNSERVED, Records
from loadtrt.records.spans import Spans
from loadtrt.records.tally import BLOCK, Second, Tally
from loadtrt.results.steadiness import Interval

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from loadtrt.records.histogram import PackedHistogram
    from loadtrt.records.spans import Span
    from loadtrt.records.tally import Bound

_LEAST_EARLY = BLOCK // 4  # rows: to count fewer takes nearly as long, and a request may come due meanwhile
_ROW = struct.Struct(f"{len(COLUMNS)}q")
_PACK, _SIZE = _ROW.pack_into, _ROW.size


class Recorder(Tally):
    """Preallocated rows, and a tally of the rows that were drained. `record` is called for each request, where
    `loop` does not write its row.

    board: the rows, where observers read them.
    cursor: the place of the next row (ROW), and the one before which `go_on` is to be called (PAUSE_AT).
    spans: what completed in each interval that is over.
    end_ns: when the run ended; None before.
    first_error: the engine's message for the first failed request.
    submitted: number of requests submitted, known at the end.
    counts_early: whether counts are needed during the run; then `show` drains a block.
    cpu_ns: processor time of this process, all threads, from `begin` until all was recorded.
    """

    def __init__(
        self,
        lanes: int,
        start_ns: int,
        keep: int = KEEP,
        board: Board | None = None,
        bounds: Sequence[Bound] = (),
        items: Sequence[int] = (1,),
    ) -> None:
        """keep: rows of the board, where none is given. bounds and items: as for Tally."""
        super().__init__(lanes, start_ns, bounds, items)
        self.board = board = board or Board(keep=keep)
        self._rows = board.rows
        self._bytes = board.rows.data.cast("B")
        self._lap = 0  # the next row's number, less its place
        self.cursor: Any = [0, board.keep or STRIDE]
        self._drained = 0  # number of the first row that is not drained
        self._asked = 0  # number of the first row that `recent` has not returned
        self.first_error: str | None = None
        self.submitted = 0
        self.counts_early = False
        self._cpu_began_ns = self.cpu_ns = 0
        self.spans = Spans()
        self.end_ns: int | None = None

    def begin(self, start_ns: int) -> None:
        """Measure from this instant. Called before the first row: making a recorder takes longer than a request."""
        super().begin(start_ns)
        self.board.begin(start_ns)
        self._cpu_began_ns = time.process_time_ns()

    def shared_cursor(self) -> npt.NDArray[np.int64]:
        """The cursor, int64 [2], as machine code moves it; from now on it is in this array."""
        shared = np.array(self.cursor, np.int64)
        self.cursor = shared.data  # its items are Python's integers
        return shared

    def record(
        self,
        due: int,
        submitted: int,
        enqueued: int,
        completed: int,
        h2d: int,
        compute: int,
        d2h: int,
        lateness: int,
        lane: int,
        status: int,
        inputs: int = 0,
    ) -> None:
        """Append one row, times in ns; the hot path. Rows of a lane come in its order of completion."""
        cursor = self.cursor
        row = cursor[ROW]
        at = row * _SIZE
        _PACK(self._bytes, at, due, submitted, enqueued, completed, h2d, compute, d2h, lateness, lane, status, inputs)
        cursor[ROW] = row = row + 1
        if row == cursor[PAUSE_AT]:
            self.go_on()

    def record_unsent(self, due: npt.NDArray[np.int64], end: int) -> None:
        """Append requests that were due at these instants and not sent by `end`."""
        self._record_laneless(due, np.full(len(due), end), UNSERVED)

    def record_dropped(self, due: npt.NDArray[np.int64]) -> None:
        """Append requests that found the queue full when they came due."""
        self._record_laneless(due, due, DROPPED)

    def _record_laneless(self, due: npt.NDArray[np.int64], end: npt.NDArray[np.int64], status: int) -> None:
        first, cursor = 0, self.cursor
        while first < len(due):
            part = slice(first, min(first + cursor[PAUSE_AT] - cursor[ROW], len(due)))
            rows = self._rows[cursor[ROW] : cursor[ROW] + part.stop - first]
            rows[:] = 0
            rows[:, COLUMNS.index("due")] = due[part]
            for column in ("submitted", "enqueued", "completed"):
                rows[:, COLUMNS.index(column)] = end[part]
            rows[:, COLUMNS.index("status")] = status
            rows[:, COLUMNS.index("inputs")] = -1
            cursor[ROW] += len(rows)
            first = part.stop
            if cursor[ROW] == cursor[PAUSE_AT]:
                self.go_on()

    def go_on(self) -> None:
        """Make room for the next STRIDE rows, once the cursor is where it pauses: the kept rows are full, or STRIDE
        more of the ring.

        One block drained each time catches up with the kept rows long before the ring overwrites them, and no request
        waits for more than one block.
        """
        board, number = self.board, self._number
        board.reach(number)
        if number - self._drained >= BLOCK:
            self._drain_block(number)
        oldest = board.oldest()
        while board.keep < oldest and self._drained < oldest:  # only where the ring is small
            self._drain_block(number)
        row = board.place(number)
        self._lap = number - row
        self.cursor[ROW], self.cursor[PAUSE_AT] = row, row + STRIDE

    @property
    def _number(self) -> int:
        return int(self.cursor[ROW]) + self._lap

    def _drain_block(self, until: int) -> None:
        rows = self.board.view(self._drained, min(until, self._drained + BLOCK))
        self.absorb(rows)
        self._drained += len(rows)

    def drain(self) -> None:
        """Count the rows since the last drain; takes 1 ms for 5000 rows."""
        while self._drained < self._number:
            self._drain_block(self._number)

    def recent(self) -> Iterator[Records]:
        """The rows since the last call, in pieces; without those that the ring has overwritten."""
        first, board = self._asked, self.board
        while first < self._number:
            if first >= board.keep:
                first = max(first, board.oldest())
            rows = board.view(first, self._number)
            first += len(rows)
            self._asked = first
            yield Records(rows)

    def show(self, submitted: int, completed: int, waiting: int, busy_lanes: int) -> None:
        """Show observers the state of the run, and all rows so far."""
        self.board.show(self._number, submitted, completed, waiting, busy_lanes)
        if self.counts_early and self._number - self._drained >= _LEAST_EARLY:
            self._drain_block(self._number)

    def end(self, end_ns: int = 0) -> None:
        """Show observers the end. end_ns: when the run ended, if after the last completion."""
        self.end_ns = end_ns
        self.cpu_ns = time.process_time_ns() - self._cpu_began_ns
        self.board.end(self._number, self.submitted)

    def count(self) -> None:
        """Count all rows, once it has ended."""
        self.drain()
        self.close()
        self.spans.finish((self.end_ns or 0) - self.start_ns)

    def finish(self, end_ns: int = 0) -> None:
        """`end`, then `count`."""
        self.end(end_ns)
        self.count()

    @property
    def records(self) -> Records:
        """The rows that were kept and drained: all of them, or the first where there are more."""
        return Records(self._rows[: min(self._drained, self.board.keep)])

    @property
    def complete(self) -> bool:
        """Whether all rows were kept."""
        return self.seen == len(self.records)

    def _over(self, second: Second) -> None:
        self.spans.add(second)

    @property
    def intervals(self) -> tuple[Interval, ...]:
        """The intervals that are over, as results keep them: to make one takes as long as tens of requests."""
        return tuple(map(_interval, self.spans.intervals))


def _interval(span: Span[PackedHistogram]) -> Interval:
    served, histogram = span.requests, span.latency.unpacked()
    p50, p90, p99 = histogram.quantiles((0.5, 0.9, 0.99)) if served else (None, None, None)
    return Interval(
        start_ns=span.start_ns,
        requests=served,
        failed=span.failed,
        latency_mean_ns=histogram.sum / served if served else None,
        latency_p50_ns=p50,
        latency_p90_ns=p90,
        latency_p99_ns=p99,
        latency_max_ns=histogram.max,
        queue_mean_ns=span.queue_sum_ns / served if served else None,
        compute_mean_ns=span.compute_sum_ns / served if served else None,
        latency_counts=histogram.cells(),
    )
