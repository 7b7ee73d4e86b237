"""Takes one row a request on the hot path, and turns rows into numbers when nobody is kept waiting by it.

While a run measures nothing is counted: its rows lie on the board, whole, until it is over. A run that goes on beyond
the kept rows counts a block now and then, for the ring comes round.
"""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.measure.board import KEEP, STRIDE, Board
from loadtrt.measure.interval import Interval
from loadtrt.measure.tally import BLOCK, Second, Tally
from loadtrt.records.records import COLUMNS, DROPPED, UNSERVED, Records
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

_CELLS_UNTIL_NS = 2 * 3600 * SECOND_NS  # a day of them would be a third of a gigabyte
_LEAST_EARLY = BLOCK // 4  # rows: to count a few takes nearly as long, and a request may come due meanwhile
_ROW = struct.Struct(f"{len(COLUMNS)}q")
_PACK, _SIZE = _ROW.pack_into, _ROW.size


class Recorder(Tally):
    """Preallocated rows, and a tally of those that were drained. `record` is the only thing called per request.

    board: where rows lie and observers look; None: one that nobody looks at, of `keep` rows. intervals: seconds that
    are over, in order. first_error: an engine's sentence. submitted: requests sent, known at the end. counts_early:
    whether somebody asks for all counts while it goes on: then a block is drained at a `show`. cpu_ns: processor time
    of this process, all threads, from `begin` until all was recorded.
    """

    def __init__(
        self,
        lanes: int,
        start_ns: int,
        keep: int = KEEP,
        board: Board | None = None,
        bounds: Sequence[tuple[int, int]] = (),
        items: Sequence[int] = (1,),
    ) -> None:
        super().__init__(lanes, start_ns, bounds, items)
        self.board = board = board or Board(keep=keep)
        self._rows = board.rows
        self._bytes = board.rows.data.cast("B")
        self._row = 0  # where the next one will lie
        self._lap = 0  # its number, less that
        self._pause_at = board.keep or STRIDE
        self._drained = 0  # number of the first that is not drained
        self._asked = 0  # number of the first that `recent` has not given
        self.first_error: str | None = None
        self.submitted = 0
        self.counts_early = False
        self._cpu_began_ns = self.cpu_ns = 0
        self.intervals: list[Interval] = []

    def begin(self, start_ns: int) -> None:
        """Measure from this instant, before anything is recorded: making a recorder takes longer than a request."""
        super().begin(start_ns)
        self.board.begin(start_ns)
        self._cpu_began_ns = time.process_time_ns()

    def record(  # the hot path: eleven ints into a preallocated row
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
        """Append one row (times in ns). Rows of a lane come in its order of completion."""
        row = self._row
        at = row * _SIZE
        _PACK(self._bytes, at, due, submitted, enqueued, completed, h2d, compute, d2h, lateness, lane, status, inputs)
        self._row = row = row + 1
        if row == self._pause_at:
            self._go_on()

    def record_unsent(self, due: npt.NDArray[np.int64], end: int) -> None:
        """Requests that were due at these instants and not sent by `end`: no lane had them."""
        self._record_laneless(due, np.full(len(due), end), UNSERVED)

    def record_dropped(self, due: npt.NDArray[np.int64]) -> None:
        """Requests that found the queue full when they came due."""
        self._record_laneless(due, due, DROPPED)

    def _record_laneless(self, due: npt.NDArray[np.int64], end: npt.NDArray[np.int64], status: int) -> None:
        first = 0
        while first < len(due):
            part = slice(first, min(first + self._pause_at - self._row, len(due)))
            rows = self._rows[self._row : self._row + part.stop - first]
            rows[:] = 0
            rows[:, COLUMNS.index("due")] = due[part]
            for column in ("submitted", "enqueued", "completed"):
                rows[:, COLUMNS.index(column)] = end[part]
            rows[:, COLUMNS.index("status")] = status
            rows[:, COLUMNS.index("inputs")] = -1
            self._row += len(rows)
            first = part.stop
            if self._row == self._pause_at:
                self._go_on()

    def _go_on(self) -> None:
        """The kept rows are full, or STRIDE more of the ring: make room for the next STRIDE.

        Draining a block for each of them, where there is one, catches up with the kept rows long before the ring comes
        round, and no request waits for more than one.
        """
        board, number = self.board, self._number
        board.reach(number)
        if number - self._drained >= BLOCK:
            self._drain_block(number)
        oldest = board.oldest()
        while board.keep < oldest and self._drained < oldest:  # never, unless the ring is small
            self._drain_block(number)
        self._row = board.place(number)
        self._lap = number - self._row
        self._pause_at = self._row + STRIDE

    @property
    def _number(self) -> int:
        return self._row + self._lap

    def _drain_block(self, until: int) -> None:
        rows = self.board.view(self._drained, min(until, self._drained + BLOCK))
        self.absorb(rows)
        self._drained += len(rows)

    def drain(self) -> None:
        """Count what was recorded since the last drain: a millisecond for 5000 rows."""
        while self._drained < self._number:
            self._drain_block(self._number)

    def recent(self) -> Iterator[Records]:
        """The rows since it was last asked, in pieces; where the ring came round meanwhile, those that are left."""
        first, board = self._asked, self.board
        while first < self._number:
            if first >= board.keep:
                first = max(first, board.oldest())
            rows = board.view(first, self._number)
            first += len(rows)
            self._asked = first
            yield Records(rows)

    def show(self, submitted: int, completed: int, waiting: int, busy_lanes: int) -> None:
        """Tell observers how it stands, and of all rows so far."""
        self.board.show(self._number, submitted, completed, waiting, busy_lanes)
        if self.counts_early and self._number - self._drained >= _LEAST_EARLY:
            self._drain_block(self._number)

    def finish(self) -> None:
        """All is recorded: tell observers, then count it."""
        self.cpu_ns = time.process_time_ns() - self._cpu_began_ns
        self.board.end(self._number, self.submitted)
        self.drain()
        self.close()

    @property
    def records(self) -> Records:
        """The rows that were kept and drained: all of them unless `seen` exceeds their number, else the first."""
        return Records(self._rows[: min(self._drained, self.board.keep)])

    @property
    def complete(self) -> bool:
        """Whether every row was kept."""
        return self.seen == len(self.records)

    def _over(self, second: Second) -> None:
        served, histogram = second.requests, second.latency
        p50, p90, p99 = histogram.quantiles((0.5, 0.9, 0.99)) if served else (None, None, None)
        interval = Interval(
            start_ns=second.start_ns,
            requests=served,
            failed=second.failed,
            latency_mean_ns=histogram.sum / served if served else None,
            latency_p50_ns=p50,
            latency_p90_ns=p90,
            latency_p99_ns=p99,
            latency_max_ns=histogram.max,
            queue_mean_ns=second.queue_sum_ns / served if served else None,
            compute_mean_ns=second.compute_sum_ns / served if served else None,
            latency_counts=histogram.cells() if second.start_ns < _CELLS_UNTIL_NS else {},
        )
        self.intervals.append(interval)
