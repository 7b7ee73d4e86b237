"""The rows and the state of a run that goes on, in a block of memory that one process writes and others read.

The measuring process writes a row for each request, and ten times a second the number of rows. Readers compute their
own numbers: histograms of a second's rows in the measuring process would make requests late by milliseconds. The first
rows are kept; later rows go into a ring, so that memory does not grow.

Two words guard what is read. `sequence` is odd while the state is written; a reader copies the state again where
`sequence` was odd or has changed. `reached` says up to which row the ring may be overwritten, within STRIDE rows: rows
that a reader copied are valid where they were not overwritten after that. x86-64 keeps the order of stores; on other
processors a row may, very rarely, be read before it is complete.
"""

from __future__ import annotations

import mmap
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from loadtrt.records.records import COLUMNS

if TYPE_CHECKING:
    import numpy.typing as npt

    from loadtrt.records.tally import Second

    Rows = npt.NDArray[np.int64]

PHASES = ("load", "verify", "warm-up", "measure", "drain", "done")
OUTCOMES = ("ok", "failed", "unserved", "dropped")  # by the status of a record
RATIOS = (1.05, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0)  # upper bounds of latency over compute; +Inf follows
WINDOW_RANKS = (0.5, 0.9, 0.95, 0.99, 0.999, 1.0)
KEEP = 1 << 20  # rows kept (88 MiB)
RING = 1 << 18  # rows that go round after them (22 MiB): a second and more of the fastest engine there is
PIECE = 1 << 17  # rows that are sent to another host at once, at most (11 MiB)
STRIDE = 128  # rows that are written in the ring between two updates of `reached`
_PAGE_BYTES = 4096
_TRIES = 1_000
_PAUSE_S = 0.0002  # a hundred times as long as a write takes


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is known of a run at one moment. Counts are of the measuring phase alone.

    phase: one of PHASES.
    written_ns: when the state was written, time.time_ns().
    started_ns: when measuring began, time.time_ns(); 0 before.
    submitted: requests sent.
    in_flight: requests sent and not completed.
    waiting: requests due and not sent.
    busy_lanes: lanes with requests in flight.
    outcomes: finished requests [lanes, len(OUTCOMES)].
    inferences: inferences of served requests.
    lane_service_ns, lane_compute_ns: sums over served requests [lanes].
    good: requests that are good for each objective [objectives].
    window_start_ns: start of the last whole second, from the start of measuring.
    window_requests: requests served in that second.
    window_ns: latencies at WINDOW_RANKS in that second.
    ratio_sum: sum of latency over compute of served requests.
    ratios: served requests by latency over compute, not cumulative [len(RATIOS) + 1].
    sums_ns: sums of METRICS [metrics].
    counts: histograms of METRICS [metrics, BUCKETS].
    missed: finished requests that are not counted, as the reader was stopped for too long.
    starved_fraction: part of the lanes' time in which the host was late with requests.
    overloaded: whether the backlog grows (stats/steady.py); None where too few requests have finished to decide.
    served_per_s: throughput so far, requests a second; None where it is not known yet.
    seconds: the last whole ones, the newest last.
    """

    phase: str
    written_ns: int
    started_ns: int
    submitted: int
    in_flight: int
    waiting: int
    busy_lanes: int
    outcomes: npt.NDArray[np.int64]
    inferences: int
    lane_service_ns: npt.NDArray[np.int64]
    lane_compute_ns: npt.NDArray[np.int64]
    good: npt.NDArray[np.int64]
    window_start_ns: int
    window_requests: int
    window_ns: npt.NDArray[np.float64]
    ratio_sum: float
    ratios: npt.NDArray[np.int64]
    sums_ns: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    missed: int = 0
    starved_fraction: float = 0.0
    overloaded: bool | None = None
    served_per_s: float | None = None
    seconds: tuple[Second, ...] = ()


class RunState(NamedTuple):
    """The state of a run.

    phase: index in PHASES.
    written_ns: when the state was written, time.time_ns().
    started_ns: when measuring began, time.time_ns(); 0 before.
    begun_ns: when measuring began, on the engine's clock, which rows use.
    ended: whether all rows are written.
    rows: number of rows.
    submitted: requests sent.
    in_flight: requests sent and not completed.
    waiting: requests due and not sent.
    busy_lanes: lanes with requests in flight.
    """

    phase: int = 0
    written_ns: int = 0
    started_ns: int = 0
    begun_ns: int = 0
    ended: int = 0
    rows: int = 0
    submitted: int = 0
    in_flight: int = 0
    waiting: int = 0
    busy_lanes: int = 0


class Piece(NamedTuple):
    """What was written on a board since an earlier piece was taken, for a board on another host.

    state: with the rows until the last one here.
    reached: as on the board once the rows were copied, so that those overwritten meanwhile are known there, too.
    first: number of the first row.
    rows: int64 [n, len(COLUMNS)].
    """

    state: RunState
    reached: int
    first: int
    rows: Rows


_SEQUENCE, _REACHED, _STATE = 0, 1, 2
_WORDS = _STATE + len(RunState._fields)
_AT = {name: _STATE + place for place, name in enumerate(RunState._fields)}


def board_bytes(keep: int = KEEP, ring: int = RING) -> int:
    """Size of the memory that a Board of so many rows needs."""
    return 8 * (_WORDS + (keep + ring) * len(COLUMNS))


def boards_in(memory: mmap.mmap, count: int) -> list[Board]:
    """So many boards, one after the other in a block of memory."""
    size, whole = board_bytes(), memoryview(memory)
    return [Board(whole[place * size : (place + 1) * size]) for place in range(count)]


class Board:
    """The block of memory, for its one writer or for a reader.

    memory: `board_bytes(keep, ring)` bytes, zeros at first; None for memory of this process alone. mmap gives small
        pages as the block fills: zeroing the huge pages that numpy asks for takes milliseconds each.
    keep: rows kept.
    ring: rows of the ring, a multiple of STRIDE.
    rows: int64 [keep + ring, len(COLUMNS)]; row n is at `place(n)`.
    """

    def __init__(
        self, memory: mmap.mmap | bytearray | memoryview | None = None, keep: int = KEEP, ring: int = RING
    ) -> None:
        size = board_bytes(keep, ring)
        block = np.frombuffer(mmap.mmap(-1, size) if memory is None else memory, np.int64, size // 8)
        self._words = block.data[:_WORDS]
        self.keep, self.ring = keep, ring
        self.rows: Rows = block[_WORDS:].reshape(keep + ring, len(COLUMNS))

    def place(self, number: int) -> int:
        """Index in `rows` of the row with this number."""
        return number if number < self.keep else self.keep + (number - self.keep) % self.ring

    def touch(self, rows: int) -> None:
        """Take the pages of the first `rows` rows now, as a page fault later costs a request microseconds."""
        self.rows[: rows : _PAGE_BYTES // self.rows.strides[0], 0] = 0

    def reset(self) -> None:
        """Forget the run, for another one. The writer of rows has gone, and readers of the run read no more."""
        self._words[_REACHED] = 0
        self._write(**dict.fromkeys(RunState._fields, 0))

    def enter(self, phase: str) -> None:
        """Enter a phase."""
        started = {"started_ns": time.time_ns()} if phase == "measure" else {}
        self._write(phase=PHASES.index(phase), **started)

    def begin(self, begun_ns: int) -> None:
        """Set the instant on the engine's clock at which measuring begins. Called before the first row."""
        self._write(begun_ns=begun_ns)

    def show(self, rows: int, submitted: int, completed: int, waiting: int, busy_lanes: int) -> None:
        """Write the state, with all rows below the number `rows` complete."""
        self._write(
            rows=rows, submitted=submitted, in_flight=submitted - completed, waiting=waiting, busy_lanes=busy_lanes
        )

    def end(self, rows: int, submitted: int) -> None:
        """End the run: all rows are written, and nothing is in flight."""
        self._write(ended=1, rows=rows, submitted=submitted, in_flight=0, waiting=0, busy_lanes=0)

    def reach(self, number: int) -> None:
        """Declare all rows below this number written; up to STRIDE more may be written before the next call."""
        self._words[_REACHED] = number

    def state(self) -> RunState:
        """A consistent copy of the state; the latest copy where the writer died while writing."""
        words = self._words
        for _ in range(_TRIES):
            before = words[_SEQUENCE]
            copy = words[_STATE:].tolist()
            if before % 2 == 0 and words[_SEQUENCE] == before:
                break
            time.sleep(_PAUSE_S)
        return RunState(*copy)

    def view(self, first: int, end: int) -> Rows:
        """The rows from `first` to `end`, as far as they are contiguous."""
        at = self.place(first)
        piece = self.keep if first < self.keep else self.keep + self.ring
        return self.rows[at : min(at + end - first, piece)]

    def copy(self, first: int, end: int) -> Rows:
        """A copy of `view`, for a reader. `oldest` says afterwards which rows were overwritten meanwhile."""
        return self.view(first, end).copy()

    def take(self, before: RunState) -> Piece | None:
        """What was written since the piece with the state `before`; None for nothing. Many rows make several pieces."""
        state, first = self.state(), before.rows
        if state == before:
            return None
        rows = self.copy(first, min(state.rows, first + PIECE))
        if first + len(rows) < state.rows:
            state = state._replace(rows=first + len(rows), ended=0)
        return Piece(state, self._words[_REACHED], first, rows)

    def put(self, piece: Piece) -> None:
        """Write a piece of another host's board, all earlier pieces of which are here. Wall clocks may differ: instants
        are as long ago by the clock of this host."""
        state = piece.state
        self.reach(piece.reached)
        self.view(piece.first, piece.first + len(piece.rows))[:] = piece.rows
        began = self.state().started_ns
        if state.started_ns and not began:
            began = time.time_ns() - (state.written_ns - state.started_ns)
        self._write(**{**state._asdict(), "started_ns": began})

    def oldest(self) -> int:
        """Rows of the ring below this number may be overwritten by now."""
        return self._words[_REACHED] + STRIDE - self.ring

    def _write(self, **words: int) -> None:
        memory = self._words
        memory[_SEQUENCE] += 1
        try:
            for name, value in words.items():
                memory[_AT[name]] = value
            memory[_AT["written_ns"]] = time.time_ns()
        finally:
            memory[_SEQUENCE] += 1
