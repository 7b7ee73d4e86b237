"""A run's rows while it goes on, and how it stands, in a block of memory that one process writes and others read.

The measuring process writes a row a request, as it would for itself, and ten times a second how many there are.
Whoever looks makes his own numbers of them: turned into histograms in the measuring process, a second's rows would make
requests late by milliseconds. The first rows are kept; those after them go round in a ring, so that memory stays flat.

Two words guard what is read. `sequence` is odd while the words beside it are written, and a reader copies them again
where it was odd, or has changed meanwhile. `reached` says how far the ring is overwritten, but for STRIDE rows: what a
reader copied counts where it still lay whole after that. That stores are seen in their order is x86-64's doing; on
other processors a row may, very rarely, be read before it is whole.
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

    Rows = npt.NDArray[np.int64]

PHASES = ("load", "verify", "warm-up", "measure", "drain", "done")
OUTCOMES = ("ok", "failed", "unserved", "dropped")  # by the status of a record
RATIOS = (1.05, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0)  # upper bounds of latency over compute; +Inf follows
WINDOW_RANKS = (0.5, 0.9, 0.95, 0.99, 0.999, 1.0)
KEEP = 1 << 20  # rows kept (88 MiB)
RING = 1 << 18  # rows that go round after them (22 MiB): a second and more of the fastest engine there is
STRIDE = 128  # rows that are written in the ring before `reached` says so
_PAGE_BYTES = 4096
_TRIES = 1_000
_PAUSE_S = 0.0002  # a writer needs a hundredth of that


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is known of a run at one moment. Instants are time.time_ns(), 0 for none yet; counts are of the measuring
    phase alone.

    phase: of PHASES. submitted: requests sent; in_flight: sent and not completed; waiting: due and not sent. outcomes
    [lanes, len(OUTCOMES)]: finished requests. inferences: served. lane_service_ns, lane_compute_ns [lanes]: sums over
    served requests. good [objectives]: requests within each objective's bound. window_ns: latencies at WINDOW_RANKS
    over the last whole second, which began at window_start_ns after the start and served window_requests. ratios
    [len(RATIOS) + 1]: served requests by latency over compute, not cumulated, ratio_sum their sum. counts [metrics,
    BUCKETS], sums_ns [metrics]: the histograms of METRICS. missed: finished requests that are in no count, as whoever
    counts stood still for too long. starved_fraction: part of the lanes' time in which the host was late with requests.
    overloaded: whether the backlog grows (stats/steady.py), None where too few requests have finished to tell.
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


class Standing(NamedTuple):
    """How a run stands. phase: its place in PHASES. written_ns, started_ns: of time.time_ns(). begun_ns: when measuring
    began on the engine's clock, as rows have it. ended: whether all rows are there. rows: how many are."""

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


_SEQUENCE, _REACHED, _STANDING = 0, 1, 2
_WORDS = _STANDING + len(Standing._fields)
_AT = {name: _STANDING + place for place, name in enumerate(Standing._fields)}


def board_bytes(keep: int = KEEP, ring: int = RING) -> int:
    """Size of the memory that a Board of so many rows needs."""
    return 8 * (_WORDS + (keep + ring) * len(COLUMNS))


class Board:
    """The block of memory, for its one writer or for a reader.

    memory: `board_bytes(keep, ring)` bytes, zeros at first; None: a block of this process' own. Pages are taken as it
    fills, small ones: the 2 MiB of a huge one, which numpy would ask for, are zeroed in milliseconds. ring: a multiple
    of STRIDE. rows: int64 [keep + ring, len(COLUMNS)], where row n lies at n, or in the ring: see `place`.
    """

    def __init__(self, memory: mmap.mmap | bytearray | None = None, keep: int = KEEP, ring: int = RING) -> None:
        size = board_bytes(keep, ring)
        block = np.frombuffer(mmap.mmap(-1, size) if memory is None else memory, np.int64, size // 8)
        self._words = block.data[:_WORDS]
        self.keep, self.ring = keep, ring
        self.rows: Rows = block[_WORDS:].reshape(keep + ring, len(COLUMNS))

    def place(self, number: int) -> int:
        """Where the row of this number lies, or has lain."""
        return number if number < self.keep else self.keep + (number - self.keep) % self.ring

    def touch(self, rows: int) -> None:
        """Take the pages of the first so many rows now: later it costs a request microseconds."""
        self.rows[: rows : _PAGE_BYTES // self.rows.strides[0], 0] = 0

    def enter(self, phase: str) -> None:
        """The run is in this phase now."""
        started = {"started_ns": time.time_ns()} if phase == "measure" else {}
        self._write(phase=PHASES.index(phase), **started)

    def begin(self, begun_ns: int) -> None:
        """Measuring begins at this instant of the engine's clock. Before the first row."""
        self._write(begun_ns=begun_ns)

    def show(self, rows: int, submitted: int, completed: int, waiting: int, busy_lanes: int) -> None:
        """How it stands at this moment, with all rows below this number."""
        self._write(
            rows=rows, submitted=submitted, in_flight=submitted - completed, waiting=waiting, busy_lanes=busy_lanes
        )

    def end(self, rows: int, submitted: int) -> None:
        """All rows are there, and nothing is in flight any longer."""
        self._write(ended=1, rows=rows, submitted=submitted, in_flight=0, waiting=0, busy_lanes=0)

    def reach(self, number: int) -> None:
        """All rows below this number are written, and STRIDE more may be before this is called again."""
        self._words[_REACHED] = number

    def standing(self) -> Standing:
        """A copy in one piece; of a writer that died writing, the latest copy."""
        words = self._words
        for _ in range(_TRIES):
            before = words[_SEQUENCE]
            copy = words[_STANDING:].tolist()
            if before % 2 == 0 and words[_SEQUENCE] == before:
                break
            time.sleep(_PAUSE_S)
        return Standing(*copy)

    def view(self, first: int, end: int) -> Rows:
        """The rows of these numbers, or the first of them: as far as they lie in one piece."""
        at = self.place(first)
        piece = self.keep if first < self.keep else self.keep + self.ring
        return self.rows[at : min(at + end - first, piece)]

    def copy(self, first: int, end: int) -> Rows:
        """Likewise, for a reader. Whether they were overwritten meanwhile, `oldest` tells afterwards."""
        return self.view(first, end).copy()

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
