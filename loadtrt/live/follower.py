"""Follows the rows of a run from another process, and tells at any moment how it stands."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.records.board import PHASES, RATIOS, WINDOW_RANKS, Snapshot
from loadtrt.records.records import METRICS
from loadtrt.records.tally import BLOCK, Second, Tally

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from loadtrt.live.run_facts import RunFacts
    from loadtrt.records.board import Board, Standing
    from loadtrt.records.records import Records

_PLACES = [metric.name for metric in METRICS]
_LATENCY, _SERVICE, _COMPUTE = (_PLACES.index(name) for name in ("latency", "service", "compute"))


def follower_of(board: Board, facts: RunFacts) -> Follower:
    """Of the run that these facts are about."""
    bounds = [(_PLACES.index(metric), bound_ns) for _, metric, _, bound_ns in facts.objectives]
    return Follower(board, facts.lanes, bounds, facts.items)


class Follower(Tally):
    """A tally of the rows on a board, each of which is counted once: the same numbers as the run's own when it is over.

    Rows of the ring that were overwritten before they were read are `missed`, and in no count. Any thread may call.
    """

    def __init__(
        self, board: Board, lanes: int, bounds: Sequence[tuple[int, int]] = (), items: Sequence[int] = (1,)
    ) -> None:
        super().__init__(lanes, 0, bounds, items)
        self.missed = 0
        self._board = board
        self._next = 0  # number of the row that comes next
        self._lock = Lock()
        self._lane_service_ns = np.zeros(lanes, np.int64)
        self._lane_compute_ns = np.zeros(lanes, np.int64)
        self._ratios = np.zeros(len(RATIOS) + 1, np.int64)
        self._ratio_sum = 0.0
        self._window_start_ns = self._window_requests = 0
        self._window_ns = np.zeros(len(WINDOW_RANKS))

    def follow(self) -> None:
        """Count what is new."""
        with self._lock:
            self._follow()

    def snapshot(self) -> Snapshot:
        """All that the board tells at this moment."""
        with self._lock:
            standing = self._follow()
            return Snapshot(
                phase=PHASES[standing.phase],
                written_ns=standing.written_ns,
                started_ns=standing.started_ns,
                submitted=standing.submitted,
                in_flight=standing.in_flight,
                waiting=standing.waiting,
                busy_lanes=standing.busy_lanes,
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
            )

    def _follow(self) -> Standing:
        standing, board = self._board.standing(), self._board
        if standing.rows and not self._next:
            self.begin(standing.begun_ns)
        while self._next < standing.rows:
            rows = board.copy(self._next, min(self._next + BLOCK, standing.rows))
            lost = 0
            if self._next >= board.keep:  # overwritten before it was copied, or meanwhile
                lost = min(max(board.oldest() - self._next, 0), len(rows))
            if lost < len(rows):
                self.absorb(rows[lost:])
            self.missed += lost
            self._next += len(rows)
        if standing.ended:
            self.close()
        return standing

    def _count_served(self, ok: Records) -> npt.NDArray[np.int64]:
        values = super()._count_served(ok)
        self._lane_service_ns += self._by_lane(ok, values[_SERVICE])
        self._lane_compute_ns += self._by_lane(ok, values[_COMPUTE])
        compute, latency = values[_COMPUTE], values[_LATENCY]
        if not compute.all():  # a phase that some engines do not have
            compute, latency = compute[compute > 0], latency[compute > 0]
        ratio = latency / compute
        self._ratios += np.bincount(np.searchsorted(RATIOS, ratio), minlength=len(self._ratios))
        self._ratio_sum += float(ratio.sum())
        return values

    def _by_lane(self, ok: Records, spans_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.bincount(ok.lane, weights=spans_ns, minlength=len(self.outcomes)).astype(np.int64)

    def _over(self, second: Second) -> None:
        self._window_start_ns, self._window_requests = second.start_ns, second.requests
        if second.requests:
            self._window_ns[:] = second.latency.quantiles(WINDOW_RANKS)
