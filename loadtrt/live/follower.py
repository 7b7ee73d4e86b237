"""The observer's side of the board: it counts a run's rows as they come, and gives snapshots of the counts."""

from __future__ import annotations

from collections import deque
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.records.board import PHASES, RATIOS, WINDOW_RANKS, Snapshot
from loadtrt.records.records import METRICS, OK, UNSERVED, Records
from loadtrt.records.tally import BLOCK, Second, Tally
from loadtrt.stats.steady import is_overloaded

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from loadtrt.live.observer import RunFacts
    from loadtrt.records.board import Board, RunState
    from loadtrt.records.tally import Bound

_PLACES = [metric.name for metric in METRICS]
_LATENCY, _SERVICE, _COMPUTE = (_PLACES.index(name) for name in ("latency", "service", "compute"))
_LAST_SECONDS = 3  # kept, so that those of several workers can be added
_MORE = 1.1  # times as many rows, after which the backlog is looked at again


def follower_of(board: Board, facts: RunFacts) -> Follower:
    """The follower of the run that these facts describe."""
    bounds = [objective.counted for objective in facts.objectives]
    return Follower(board, facts.lanes, bounds, facts.items, 0 if facts.closed else facts.places)


class Follower(Tally):
    """A tally of the rows on a board, each counted once: when the run is over, its numbers are the run's own.

    missed: rows that the ring overwrote before they were read; they are in no count. Safe to use from any thread.
    """

    def __init__(
        self, board: Board, lanes: int, bounds: Sequence[Bound] = (), items: Sequence[int] = (1,), places: int = 0
    ) -> None:
        """bounds, items: as for a Tally. places: requests that the lanes of an open loop hold; 0 for a closed loop,
        which is never overloaded."""
        super().__init__(lanes, 0, bounds, items)
        self.missed = 0
        self._board = board
        self._next = 0  # number of the next row
        self._lock = Lock()
        self._lane_service_ns = np.zeros(lanes, np.int64)
        self._lane_compute_ns = np.zeros(lanes, np.int64)
        self._ratios = np.zeros(len(RATIOS) + 1, np.int64)
        self._ratio_sum = 0.0
        self._window_start_ns = self._window_requests = 0
        self._window_ns = np.zeros(len(WINDOW_RANKS))
        self._seconds: deque[Second] = deque(maxlen=_LAST_SECONDS)
        self._places = places
        self._overloaded: bool | None = None if places else False
        self._judged = 0  # rows of which that is known

    def follow(self) -> None:
        """Count the new rows."""
        with self._lock:
            self._follow()

    def snapshot(self) -> Snapshot:
        """Count the new rows; what is known now."""
        with self._lock:
            state = self._follow()
            return Snapshot(
                phase=PHASES[state.phase],
                written_ns=state.written_ns,
                started_ns=state.started_ns,
                submitted=state.submitted,
                in_flight=state.in_flight,
                waiting=state.waiting,
                busy_lanes=state.busy_lanes,
                outcomes=self.outcomes.copy(),
                inferences=self.inferences,
                lane_service_ns=self._lane_service_ns.copy(),
                lane_compute_ns=self._lane_compute_ns.copy(),
                good=self.good.copy(),
                window_start_ns=self._window_start_ns,
                window_requests=self._window_requests,
                window_ns=self._window_ns.copy(),
                ratio_sum=self._ratio_sum,
                ratios=self._ratios.copy(),
                sums_ns=np.array([histogram.sum for histogram in self.histograms.values()], np.int64),
                counts=self._table.counts.copy(),
                missed=self.missed,
                starved_fraction=self.starved_fraction,
                overloaded=self._overloaded,
                served_per_s=self.throughput_per_s(closed=not self._places),
                seconds=tuple(self._seconds),
            )

    def _follow(self) -> RunState:
        state, board = self._board.state(), self._board
        if state.rows and not self._next:
            self.begin(state.begun_ns)
        while self._next < state.rows:
            rows = board.copy(self._next, min(self._next + BLOCK, state.rows))
            lost = 0
            if self._next >= board.keep:  # overwritten before or while it was copied
                lost = min(max(board.oldest() - self._next, 0), len(rows))
            if lost < len(rows):
                self.absorb(rows[lost:])
            self.missed += lost
            self._next += len(rows)
        if state.ended:
            self.close()
        self._judge_backlog(bool(state.ended))
        return state

    def _judge_backlog(self, ended: bool) -> None:
        """Apply the verdict's law of overload to the rows so far, as the run will to the same rows. Sorting them all at
        each look would cost n²; when a tenth more have come it costs n log n."""
        kept = min(self._next, self._board.keep)
        if not self._places or kept < (self._judged + 1 if ended else self._judged * _MORE + 1):
            return
        self._judged = kept
        records = Records(self._board.rows[:kept])
        status = records.status
        has_latency = (status == OK) | (status == UNSERVED)
        self._overloaded = is_overloaded(records.due[has_latency], records.completed[has_latency], self._places)

    def _count_served(self, ok: Records) -> npt.NDArray[np.int64]:
        values = super()._count_served(ok)
        self._lane_service_ns += self._by_lane(ok, values[_SERVICE])
        self._lane_compute_ns += self._by_lane(ok, values[_COMPUTE])
        compute, latency = values[_COMPUTE], values[_LATENCY]
        if not compute.all():  # some engines have no such phase
            compute, latency = compute[compute > 0], latency[compute > 0]
        ratio = latency / compute
        self._ratios += np.bincount(np.searchsorted(RATIOS, ratio), minlength=len(self._ratios))
        self._ratio_sum += float(ratio.sum())
        return values

    def _by_lane(self, ok: Records, spans_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.bincount(ok.lane, weights=spans_ns, minlength=len(self.outcomes)).astype(np.int64)

    def _over(self, second: Second) -> None:
        self._seconds.append(second)
        self._window_start_ns, self._window_requests = second.start_ns, second.requests
        if second.requests:
            self._window_ns[:] = second.latency.quantiles(WINDOW_RANKS)
