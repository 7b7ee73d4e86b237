"""What is known of a run while it goes on, in a block of memory that one process writes and others read.

The measuring process fills it when it drains its records, once a second or every 4096 requests. Observers (exporter,
terminal) copy it whole: in the measuring process itself a scrape or a drawn table alone would make requests late by
milliseconds. A sequence lock keeps a copy in one piece: the writer makes `sequence` odd while it writes, and a reader
copies again where it was odd, or has changed meanwhile. That the writer's stores are seen in their order is x86-64's
doing; on other processors a copy may, very rarely, mix two seconds.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from loadtrt.measure.histogram import BUCKETS
from loadtrt.measure.records import METRICS

if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from loadtrt.measure.histogram import Histogram
    from loadtrt.measure.records import Records

PHASES = ("load", "verify", "warm-up", "measure", "drain", "done")
OUTCOMES = ("ok", "failed", "unserved", "dropped")  # by the status of a record
RATIOS = (1.05, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0)  # upper bounds of latency over compute; +Inf follows
WINDOW_RANKS = (0.5, 0.9, 0.95, 0.99, 0.999, 1.0)
MOST_OBJECTIVES = 8
_TRIES = 1_000
_PAUSE_S = 0.0002  # a drain takes some of these


def _layout(lanes: int) -> np.dtype[Any]:
    """Everything int64 or float64, so that every field is aligned."""
    return np.dtype(
        [
            ("sequence", np.int64),
            ("phase", np.int64),
            ("written_ns", np.int64),
            ("started_ns", np.int64),
            ("submitted", np.int64),
            ("in_flight", np.int64),
            ("waiting", np.int64),
            ("busy_lanes", np.int64),
            ("outcomes", np.int64, (lanes, len(OUTCOMES))),
            ("inferences", np.int64),
            ("lane_service_ns", np.int64, (lanes,)),
            ("lane_compute_ns", np.int64, (lanes,)),
            ("good", np.int64, (MOST_OBJECTIVES,)),
            ("window_start_ns", np.int64),
            ("window_requests", np.int64),
            ("window_ns", np.float64, (len(WINDOW_RANKS),)),
            ("ratio_sum", np.float64),
            ("ratios", np.int64, (len(RATIOS) + 1,)),
            ("sums_ns", np.int64, (len(METRICS),)),
            ("counts", np.int64, (len(METRICS), BUCKETS)),
        ]
    )


def board_bytes(lanes: int) -> int:
    """Size of the memory that a Board of so many lanes needs."""
    return _layout(lanes).itemsize


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One consistent copy. Instants are time.time_ns(), 0 for none yet; counts are of the measuring phase alone.

    phase: of PHASES. submitted: requests sent; in_flight: sent and not completed; waiting: due and not sent. outcomes
    [lanes, len(OUTCOMES)]: finished requests. inferences: served. lane_service_ns, lane_compute_ns [lanes]: sums over
    served requests. good [objectives]: requests within each objective's bound. window_ns: latencies at WINDOW_RANKS
    over the last whole second, which began at window_start_ns after the start and served window_requests. ratios
    [len(RATIOS) + 1]: served requests by latency over compute, not cumulated, ratio_sum their sum. counts [metrics,
    BUCKETS], sums_ns [metrics]: the histograms of METRICS.
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


class Board:
    """The block of memory, for its one writer or for a reader. memory: `board_bytes(lanes)` bytes or more, zeros at
    first."""

    def __init__(self, memory: mmap.mmap | bytearray, lanes: int) -> None:
        self._fields = np.frombuffer(memory, _layout(lanes), 1)
        self._row: Any = self._fields[0]
        self.counts: npt.NDArray[np.int64] = self._row["counts"]

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Around everything that is written."""
        self._row["sequence"] += 1
        try:
            yield
        finally:
            self._row["written_ns"] = time.time_ns()
            self._row["sequence"] += 1

    def enter(self, phase: str) -> None:
        """The run is in this phase now."""
        with self.writing():
            self._row["phase"] = PHASES.index(phase)
            if phase == "measure":
                self._row["started_ns"] = time.time_ns()

    def show_load(self, submitted: int, completed: int, waiting: int, busy_lanes: int) -> None:
        """How it stands at this moment."""
        with self.writing():
            row = self._row
            row["submitted"], row["in_flight"] = submitted, submitted - completed
            row["waiting"], row["busy_lanes"] = waiting, busy_lanes

    def show_window(self, start_ns: int, latency: Histogram, requests: int) -> None:
        """A second that is over, with its latencies; within `writing()`."""
        row = self._row
        row["window_start_ns"], row["window_requests"] = start_ns, requests
        if requests:
            row["window_ns"][:] = latency.quantiles(WINDOW_RANKS)

    def add(self, served: Records) -> None:
        """Count served requests; within `writing()`. The histograms' `counts` are filled by their owner."""
        row = self._row
        for name, spans in (
            ("lane_service_ns", served.completed - served.submitted),
            ("lane_compute_ns", served.compute),
        ):
            row[name] += np.bincount(served.lane, weights=spans, minlength=len(row[name])).astype(np.int64)
        compute, latency = served.compute, served.completed - served.due
        if not compute.all():  # a phase that some engines do not have
            compute, latency = compute[compute > 0], latency[compute > 0]
        ratio = latency / compute
        row["ratios"] += np.bincount(np.searchsorted(RATIOS, ratio), minlength=len(RATIOS) + 1)
        row["ratio_sum"] += ratio.sum()

    def show_counts(
        self,
        outcomes: npt.NDArray[np.int64],
        inferences: int,
        good: npt.NDArray[np.int64],
        sums_ns: Sequence[int],
    ) -> None:
        """All that was counted so far: by lane and outcome, served inferences, within each objective's bound, and the
        sums of METRICS, ns; within `writing()`."""
        self._row["outcomes"][:] = outcomes
        self._row["inferences"] = inferences
        self._row["good"][: len(good)] = good
        self._row["sums_ns"][:] = sums_ns

    def snapshot(self) -> Snapshot:
        """A copy in one piece; in the rarest case, of a writer that never rests or died writing, the latest copy."""
        for _ in range(_TRIES):
            before = int(self._row["sequence"])
            copy = self._fields.copy()[0]
            if before % 2 == 0 and int(self._row["sequence"]) == before:
                break
            time.sleep(_PAUSE_S)
        whole: dict[str, Any] = {}
        for field in fields(Snapshot):
            value = copy[field.name]
            whole[field.name] = value if isinstance(value, np.ndarray) else value.item()
        whole["phase"] = PHASES[whole["phase"]]
        return Snapshot(**whole)
