"""Takes one row a request on the hot path, and turns rows into histograms and intervals once a second.

A drain costs about half a millisecond a thousand rows on cold caches, and requests that complete meanwhile are sent
late: so it comes seldom, and p99 does not see it.
"""

from __future__ import annotations

import struct
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.measure.histogram import Histogram, Histograms
from loadtrt.measure.records import COLUMNS, DROPPED, FAILED, METRICS, OK, STATUSES, UNSERVED, Records
from loadtrt.measure.result import Interval
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from loadtrt.measure.board import Board

KEEP = 1 << 20  # rows kept whole (80 MiB); beyond them histograms alone go on, so that memory stays flat
_CHUNK = 1 << 12  # rows at which a drain cannot wait for the next second any longer
_BLOCK = 1 << 10  # rows taken at once: temporaries that stay in the cache cost a third
_CELLS_UNTIL_NS = 2 * 3600 * SECOND_NS  # a day of them would be a third of a gigabyte
_ROW = struct.Struct(f"{len(COLUMNS)}q")
_PACK, _SIZE = _ROW.pack_into, _ROW.size


@dataclass(slots=True)
class _Open:
    """An interval that still fills: sums and a histogram, ns."""

    start_ns: int
    requests: int = 0
    failed: int = 0
    latency: Histogram = field(default_factory=Histogram)
    queue_sum_ns: int = 0
    compute_sum_ns: int = 0


class Recorder:
    """Preallocated rows. `record` is the only thing called per request; the scheduler drains once a second.

    histograms: one for each metric. intervals: closed seconds, in order. first_error: an engine's sentence. submitted:
    requests sent, known at the end. completed_first: how many were served at first_completed_ns.
    first_completed_ns, last_completed_ns (by lane): of what was answered, `start_ns`
    for a lane without. starved_ns: time in which a lane had nothing in flight although work was due, summed over lanes.
    outcomes: int64 [lanes, STATUSES], requests by lane and status. bounds: (number in METRICS, ns) of each objective,
    and good the served requests within each. items: inferences of a request with each input set, one number where all
    have the same, and inferences their sum over served requests. board: where observers look; the histograms' counts
    lie on it then.
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
        self._buffer = np.empty((max(keep, 0) + _CHUNK, len(COLUMNS)), np.int64)  # pages are touched as they fill
        self._bytes = self._buffer.data.cast("B")
        self._keep = keep
        self._row = 0
        self._drained = 0
        self._full_at = _CHUNK
        self.start_ns = start_ns
        self.seen = 0
        self.board = board
        self._table = Histograms(len(METRICS), None if board is None else board.counts)
        self.histograms = dict(zip((metric.name for metric in METRICS), self._table.each, strict=True))
        self.outcomes = np.zeros((lanes, STATUSES), np.int64)
        self._items = np.array(items, np.int64)
        self.inferences = 0
        self._bounds = tuple(bounds)
        self.good = np.zeros(len(self._bounds), np.int64)
        self.starved_ns = 0
        self.first_error: str | None = None
        self.submitted = 0
        self.first_completed_ns: int | None = None
        self.completed_first = 0
        self.last_completed_ns = np.full(lanes, start_ns, np.int64)
        self._open: dict[int, _Open] = {}
        self.intervals: list[Interval] = []

    def begin(self, start_ns: int) -> None:
        """Measure from this instant, before anything is recorded: making a recorder takes longer than a request."""
        self.start_ns = start_ns
        self.last_completed_ns[:] = start_ns

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
        if row == self._full_at:
            self.drain()

    def record_unsent(self, due: npt.NDArray[np.int64], end: int) -> None:
        """Requests that were due at these instants and not sent by `end`: no lane had them."""
        self._record_laneless(due, np.full(len(due), end), UNSERVED)

    def record_dropped(self, due: npt.NDArray[np.int64]) -> None:
        """Requests that found the queue full when they came due."""
        self._record_laneless(due, due, DROPPED)

    def _record_laneless(self, due: npt.NDArray[np.int64], end: npt.NDArray[np.int64], status: int) -> None:
        for first in range(0, len(due), _CHUNK):
            self.drain()
            part = slice(first, first + _CHUNK)
            rows = self._buffer[self._row : self._row + len(due[part])]
            rows[:] = 0
            rows[:, COLUMNS.index("due")] = due[part]
            for column in ("submitted", "enqueued", "completed"):
                rows[:, COLUMNS.index(column)] = end[part]
            rows[:, COLUMNS.index("status")] = status
            rows[:, COLUMNS.index("inputs")] = -1
            self._row += len(rows)
            self.drain()

    def drain(self) -> None:
        """Move what was recorded since the last drain into histograms, intervals and counts."""
        with self._writing():
            self._drain()
            if self.board is not None:
                self.board.show_counts(
                    self.outcomes, self.inferences, self.good, [histogram.sum for histogram in self._table.each]
                )

    def _writing(self) -> AbstractContextManager[None]:
        return nullcontext() if self.board is None else self.board.writing()

    def _drain(self) -> None:
        for first in range(self._drained, self._row, _BLOCK):
            rows = self._buffer[first : min(first + _BLOCK, self._row)]
            self._absorb(Records(np.asfortranarray(rows)))  # columns in one piece: each is read several times
            self.seen += len(rows)
        if self._row >= self._keep:
            self._row = self._keep  # the area after the kept rows is used again and again
        self._drained = self._row
        self._full_at = self._row + _CHUNK

    @property
    def by_status(self) -> npt.NDArray[np.int64]:
        """Requests by status, int64 [STATUSES]."""
        found: npt.NDArray[np.int64] = self.outcomes.sum(axis=0)
        return found

    @property
    def by_lane(self) -> npt.NDArray[np.int64]:
        """Served requests by lane, int64 [lanes]."""
        found: npt.NDArray[np.int64] = self.outcomes[:, OK]
        return found

    @property
    def records(self) -> Records:
        """The rows that were kept: all of them unless `seen` exceeds their number, else the first."""
        return Records(self._buffer[: min(self._drained, self._keep)])

    @property
    def complete(self) -> bool:
        """Whether every row was kept."""
        return self.seen == len(self.records)

    def finish(self) -> None:
        """Drain, and close all intervals."""
        self.drain()
        with self._writing():
            self._close_before(None)

    def _absorb(self, records: Records) -> None:
        cells = np.bincount(records.lane * STATUSES + records.status, minlength=self.outcomes.size)
        self.outcomes += cells.reshape(self.outcomes.shape)
        ok = records.ok if records.status.any() else records
        values = np.stack([metric.of(ok) for metric in METRICS])
        self._table.add(values)
        one = len(self._items) == 1
        self.inferences += int(self._items[0]) * len(ok) if one else int(self._items[ok.inputs].sum())
        for place, (metric_number, bound_ns) in enumerate(self._bounds):
            self.good[place] += np.count_nonzero(values[metric_number] <= bound_ns)
        if self.board is not None:
            self.board.add(ok)
        served = records
        if len(ok) != len(records):
            unserved = Records(records.rows[records.status == UNSERVED])
            served = Records(records.rows[records.status <= FAILED])
            for metric in METRICS:
                if metric.of_unserved:
                    self.histograms[metric.name].add(metric.of(unserved))
        if len(ok):
            first = int(ok.completed.min())
            if self.first_completed_ns is None or first < self.first_completed_ns:
                self.first_completed_ns, self.completed_first = first, 0
            self.completed_first += int(np.count_nonzero(ok.completed == self.first_completed_ns))
        if len(served):
            self._count_starvation(served)
            self._fill_intervals(served)

    def _count_starvation(self, records: Records) -> None:
        """A lane is starved while it is idle and a request that it could have had has not begun.

        starved = Σ max(0, begun − max(the lane's previous completion, when the request could have been sent)), where
        it could have been sent at submitted − lateness, and has begun at the latest when it is enqueued or its copy in
        starts: begun = min(enqueued, completed − d2h − compute − h2d).
        """
        order = np.argsort(records.lane.astype(np.int16), kind="stable")  # a radix sort for so small a type
        ordered = Records(records.rows[order])
        lane, completed = ordered.lane, ordered.completed
        begun = np.minimum(ordered.enqueued, completed - ordered.d2h - ordered.compute - ordered.h2d)
        possible = ordered.submitted - ordered.lateness
        before = np.empty_like(completed)
        before[1:] = completed[:-1]
        first = np.flatnonzero(np.diff(lane, prepend=-1))
        before[first] = self.last_completed_ns[lane[first]]
        self.starved_ns += int(np.clip(begun - np.maximum(before, possible), 0, None).sum())
        last = np.append(first[1:], len(lane)) - 1
        self.last_completed_ns[lane[last]] = completed[last]

    def _fill_intervals(self, records: Records) -> None:
        # What completed longer ago than a closed interval counts in the oldest that is open.
        seconds = np.maximum((records.completed - self.start_ns) // SECOND_NS, len(self.intervals))
        for number in np.unique(seconds):
            self._fill(int(number), Records(records.rows[seconds == number]))
        self._close_before(int(seconds.max()) - 1)  # lanes may complete out of order by less than a second

    def _fill(self, number: int, records: Records) -> None:
        served = records.ok if records.status.any() else records
        interval = self._open.setdefault(number, _Open(number * SECOND_NS))
        interval.requests += len(served)
        interval.failed += int(np.count_nonzero(records.status == FAILED))
        interval.latency.add(served.completed - served.due)
        interval.queue_sum_ns += int((served.submitted - served.due).sum())
        interval.compute_sum_ns += int(served.compute.sum())

    def _close_before(self, second: int | None) -> None:
        """Close the open intervals before that second (None: all), and the empty ones between them."""
        end = max(self._open, default=-1) + 1 if second is None else second
        while len(self.intervals) < end:
            number = len(self.intervals)
            over = self._open.pop(number, _Open(number * SECOND_NS))
            self.intervals.append(_closed(over))
            if self.board is not None:
                self.board.show_window(over.start_ns, over.latency, over.requests)


def _closed(interval: _Open) -> Interval:
    served, histogram = interval.requests, interval.latency
    p50, p90, p99 = histogram.quantiles((0.5, 0.9, 0.99)) if served else (None, None, None)
    return Interval(
        start_ns=interval.start_ns,
        requests=served,
        failed=interval.failed,
        latency_mean_ns=histogram.sum / served if served else None,
        latency_p50_ns=p50,
        latency_p90_ns=p90,
        latency_p99_ns=p99,
        latency_max_ns=histogram.max,
        queue_mean_ns=interval.queue_sum_ns / served if served else None,
        compute_mean_ns=interval.compute_sum_ns / served if served else None,
        latency_counts=histogram.cells() if interval.start_ns < _CELLS_UNTIL_NS else {},
    )
