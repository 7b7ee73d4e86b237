"""Turns rows into histograms, outcomes and seconds.

A row costs a fifth of a microsecond. The measuring process spends that after measuring; an observer, with its own
tally, while the run goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from loadtrt.records.histogram import Histogram, Histograms
from loadtrt.records.records import FAILED, METRICS, OK, STATUSES, UNSERVED, Records
from loadtrt.records.spans import Span
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Bound = tuple[int, int, tuple[int, ...]]

BLOCK = 1 << 11  # rows counted at a time: temporary arrays that stay in the cache cost a third
_PLACE = {metric.name: place for place, metric in enumerate(METRICS)}
_LATENCY, _QUEUE, _COMPUTE = _PLACE["latency"], _PLACE["queue"], _PLACE["compute"]


class Second(Span[Histogram]):
    """What completed in one second of the run."""

    __slots__ = ()

    def __init__(self, number: int) -> None:
        super().__init__(number * SECOND_NS, 0, 0, Histogram(), 0, 0)

    def add(self, values: npt.NDArray[np.int64], buckets: npt.NDArray[np.int64], failed: int) -> None:
        """Count served requests, int64 ns [metrics, n] with the buckets of their latencies [n], and failed ones."""
        self.requests += len(buckets)
        self.failed += failed
        self.latency.add(values[_LATENCY], buckets)
        self.queue_sum_ns += int(values[_QUEUE].sum())
        self.compute_sum_ns += int(values[_COMPUTE].sum())


class Tally:
    """The counts of a run. Rows of a lane come in the order of completion.

    lanes: number of lanes.
    start_ns: when measuring began.
    bounds: (index in METRICS, greatest good value in ns, statuses besides OK that are good) of each objective.
    items: inferences of a request by input set; one number where all have the same.

    seen: rows so far.
    histograms: one for each metric.
    outcomes: int64 [lanes, STATUSES], requests by lane and status.
    inferences: inferences of served requests.
    good: requests that are good for each objective: served within its bound, or forgiven by it.
    first_completed_ns: first completion of a served request.
    completed_first: requests served at first_completed_ns.
    last_completed_ns: last completion by lane, of served and failed requests; `start_ns` without any.
    starved_ns: time in which a lane had no request in flight although one was due, summed over lanes.
    """

    def __init__(self, lanes: int, start_ns: int, bounds: Sequence[Bound] = (), items: Sequence[int] = (1,)) -> None:
        self.start_ns = start_ns
        self.seen = 0
        self._table = Histograms(len(METRICS))
        self.histograms = dict(zip((metric.name for metric in METRICS), self._table.histograms, strict=True))
        self.outcomes = np.zeros((lanes, STATUSES), np.int64)
        self.items = np.array(items, np.int64)
        self.inferences = 0
        self._bounds = tuple(bounds)
        self.good = np.zeros(len(self._bounds), np.int64)
        self.starved_ns = 0
        self.first_completed_ns: int | None = None
        self.completed_first = 0
        self.last_completed_ns = np.full(lanes, start_ns, np.int64)
        self._open: dict[int, Second] = {}
        self._closed = 0  # seconds that are over

    def begin(self, start_ns: int) -> None:
        """Set the start of measuring, before the first row."""
        self.start_ns = start_ns
        self.last_completed_ns[:] = start_ns

    @property
    def by_status(self) -> npt.NDArray[np.int64]:
        """Requests by status, int64 [STATUSES]."""
        requests: npt.NDArray[np.int64] = self.outcomes.sum(axis=0)
        return requests

    @property
    def by_lane(self) -> npt.NDArray[np.int64]:
        """Served requests by lane, int64 [lanes]."""
        served: npt.NDArray[np.int64] = self.outcomes[:, OK]
        return served

    @property
    def measured_ns(self) -> int:
        """From the start to the last completion."""
        return max(int(self.last_completed_ns.max()) - self.start_ns, 0)

    @property
    def starved_fraction(self) -> float:
        """Part of the lanes' measured time in which they were starved."""
        measured_ns = self.measured_ns
        return self.starved_ns / (len(self.outcomes) * measured_ns) if measured_ns else 0.0

    @property
    def span_ns(self) -> tuple[int, int] | None:
        """The first completion of a served request and the last completion, from the start; None where none was
        served."""
        first = self.first_completed_ns
        return None if first is None else (max(first - self.start_ns, 0), self.measured_ns)

    def throughput_per_s(self, closed: bool) -> float | None:
        """Served requests a second; None where the completions span no time.

        Closed loop: Σ over lanes of n_l / (t_l − start): n_l served by lane l, the last at t_l. A lane works without a
        pause until then, so neither the lanes' different ends nor the drain bias it. Open loop: (n − n_1) / (t_n −
        t_1), n_1 served at t_1, over the completions, the rate at which requests leave: unbiased by how long they
        stay, and at overload the capacity.
        """
        first, last = self.first_completed_ns, int(self.last_completed_ns.max())
        if closed:
            span = self.last_completed_ns - self.start_ns
            worked = (span > 0) & (self.by_lane > 0)
            return float(np.sum(self.by_lane[worked] / span[worked])) * SECOND_NS if worked.any() else None
        if first is None or last <= first:
            return None
        return (int(self.by_lane.sum()) - self.completed_first) * SECOND_NS / (last - first)

    def absorb(self, rows: npt.NDArray[np.int64]) -> None:
        """Count rows, int64 [n, len(COLUMNS)]; n = BLOCK is the cheapest."""
        records = Records(np.asfortranarray(rows))  # contiguous columns, as each is read several times
        self.seen += len(rows)
        cells = np.bincount(records.lane * STATUSES + records.status, minlength=self.outcomes.size)
        self.outcomes += cells.reshape(self.outcomes.shape)
        served = ok = records
        if records.status.any():
            for place, (_, _, forgiven) in enumerate(self._bounds):
                self.good[place] += sum(np.count_nonzero(records.status == status) for status in forgiven)
            ok = records.ok
            served = Records(records.rows[records.status <= FAILED])
            unserved = Records(records.rows[records.status == UNSERVED])
            for metric in METRICS:
                if metric.of_unserved:
                    self.histograms[metric.name].add(metric.of(unserved))
        values = self._count_served(ok) if len(ok) else np.empty((len(METRICS), 0), np.int64)
        buckets = self._table.add(values)[_LATENCY]
        if len(served):
            self._count_starvation(served)
            self._fill_seconds(served, ok, values, buckets)

    def close(self) -> None:
        """Close all seconds: no more rows come."""
        self._close_before(max(self._open, default=-1) + 1)

    def _count_served(self, ok: Records) -> npt.NDArray[np.int64]:
        """Count served requests; returns their metrics, int64 ns [metrics, n]."""
        values = np.empty((len(METRICS), len(ok)), np.int64)
        for place, metric in enumerate(METRICS):
            values[place] = metric.of(ok)
        one = len(self.items) == 1
        self.inferences += int(self.items[0]) * len(ok) if one else int(self.items[ok.inputs].sum())
        for place, (metric_number, bound_ns, _) in enumerate(self._bounds):
            self.good[place] += np.count_nonzero(values[metric_number] <= bound_ns)
        first = int(ok.completed.min())
        if self.first_completed_ns is None or first < self.first_completed_ns:
            self.first_completed_ns, self.completed_first = first, 0
        if first == self.first_completed_ns:
            self.completed_first += int(np.count_nonzero(ok.completed == first))
        return values

    def _count_starvation(self, records: Records) -> None:
        """A lane is starved while it is idle and a request that it could serve has not begun.

        starved = Σ max(0, begun − max(the lane's previous completion, when the request could have been sent)), where
        it could have been sent at submitted − lateness, and has begun at the latest when it is enqueued or its copy in
        starts: begun = min(enqueued, completed − d2h − compute − h2d). Without device times that is the instant of the
        enqueue.
        """
        order = np.argsort(records.lane.astype(np.int16), kind="stable")  # a radix sort for so small a type
        lane, completed = records.lane[order], records.completed[order]
        begun = np.minimum(records.enqueued, records.completed - records.d2h - records.compute - records.h2d)
        possible = records.submitted - records.lateness
        first = np.flatnonzero(lane[1:] != lane[:-1]) + 1  # of each lane, but for that of the lowest number
        before = np.empty_like(completed)
        before[1:] = completed[:-1]
        before[0] = self.last_completed_ns[lane[0]]
        before[first] = self.last_completed_ns[lane[first]]
        idle = begun[order] - np.maximum(before, possible[order])
        self.starved_ns += int(np.maximum(idle, 0).sum())
        last = np.append(first, len(lane)) - 1
        self.last_completed_ns[lane[last]] = completed[last]

    def _fill_seconds(
        self, served: Records, ok: Records, values: npt.NDArray[np.int64], buckets: npt.NDArray[np.int64]
    ) -> None:
        # A request that completed in a second already closed counts in the oldest open one.
        completed = served.completed
        first, last = (
            max((int(at) - self.start_ns) // SECOND_NS, self._closed) for at in (completed.min(), completed.max())
        )
        if first == last:
            self._second(first).add(values, buckets, len(served) - len(ok))
        else:
            of_all, of_ok = (
                np.maximum((records.completed - self.start_ns) // SECOND_NS, self._closed) for records in (served, ok)
            )
            for number, count in zip(*(part.tolist() for part in np.unique(of_all, return_counts=True)), strict=True):
                here = of_ok == number
                self._second(number).add(values[:, here], buckets[here], count - int(np.count_nonzero(here)))
        self._close_before(last - 1)  # lanes may complete out of order by less than a second

    def _second(self, number: int) -> Second:
        second = self._open.get(number)
        if second is None:
            second = self._open[number] = Second(number)
        return second

    def _close_before(self, number: int) -> None:
        """Close all seconds before `number`, empty ones included."""
        while self._closed < number:
            over = self._open.pop(self._closed, None) or Second(self._closed)
            self._closed += 1
            self._over(over)

    def _over(self, second: Second) -> None:
        """Called with each closed second, in order; subclasses keep or show the seconds."""
