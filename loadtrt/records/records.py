"""Records: one row for each finished request, and the metrics that derive from it.

A record is eleven int64: four instants of the engine's clock, three GPU phases, the generator's lateness, lane, status
and the number of its input set.
Every number that loadtrt shows about requests is one of METRICS over these rows; tables, JSON and exporters read the
name, unit and help from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Column: TypeAlias = npt.NDArray[np.int64]

COLUMNS = ("due", "submitted", "enqueued", "completed", "h2d", "compute", "d2h", "lateness", "lane", "status", "inputs")

ON_DEVICE = ("h2d", "compute", "d2h")  # columns that are 0 where device times are not measured
DEVICE_TIMES = (*ON_DEVICE, "device")  # metrics that no request has then

OK = 0
FAILED = 1  # the engine returned an error for it
UNSERVED = 2  # never finished before the drain deadline: `completed` is the instant when the run gave up

DROPPED = 3  # never sent, as too many waited when it came due: all four instants are its due one
STATUSES = 4


class Records:
    """A view of rows, int64 [n, len(COLUMNS)], and of each column, int64 [n].

    due: instant at which the request was due, ns.
    submitted: instant at which the request was given to the engine, ns.
    enqueued: instant at which the engine had accepted the request, ns.
    completed: instant at which the outputs were in host memory, ns.
    h2d: duration of copying the inputs to the device, ns.
    compute: duration of the computation, ns.
    d2h: duration of copying the outputs to host memory, ns.
    lateness: delay added by the load generator itself, ns.
    lane: index of the lane that served the request.
    status: OK, FAILED, UNSERVED or DROPPED.
    inputs: index of the input set.
    """

    def __init__(self, rows: Column) -> None:
        columns: tuple[Column, ...] = tuple(rows.T)
        self.rows = rows
        self.due, self.submitted, self.enqueued, self.completed, *_ = columns
        self.h2d, self.compute, self.d2h, self.lateness, self.lane, self.status, self.inputs = columns[4:]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def ok(self) -> Records:
        """Served requests."""
        return Records(self.rows[self.status == OK])

    def since(self, start_ns: int) -> Records:
        """A copy, with instants since `start_ns`."""
        rows = self.rows.copy()
        rows[:, :4] -= start_ns
        return Records(rows)

    @property
    def counted(self) -> Records:
        """Requests that have a latency: served ones, and unserved ones, whose age is a lower bound."""
        return Records(self.rows[(self.status == OK) | (self.status == UNSERVED)])


@dataclass(frozen=True, slots=True)
class Metric:
    """A number of every record.

    name: name of the metric.
    help: what the metric is.
    of: maps n records to int64 ns [n].
    of_unserved: whether unserved requests have the metric.
    """

    name: str
    help: str
    of: Callable[[Records], npt.NDArray[np.int64]]
    of_unserved: bool = False

    def values(self, records: Records) -> npt.NDArray[np.int64]:
        """Values of the records that have the metric."""
        return self.of(records.counted if self.of_unserved else records.ok)


METRICS = (
    Metric("latency", "from the instant a request was due to its completion", lambda r: r.completed - r.due, True),
    Metric("queue", "from due to submitted: waiting for a free buffer set", lambda r: r.submitted - r.due, True),
    Metric("service", "from submitted to completed", lambda r: r.completed - r.submitted),
    Metric("enqueue", "host time of submitting one request", lambda r: r.enqueued - r.submitted),
    Metric("h2d", "copying the inputs to the device", lambda r: r.h2d),
    Metric("compute", "the engine computing", lambda r: r.compute),
    Metric("d2h", "from the end of compute to the outputs in host memory", lambda r: r.d2h),
    Metric("device", "h2d + compute + d2h, which trtexec calls latency", lambda r: r.h2d + r.compute + r.d2h),
    Metric(
        "lateness", "added by the generator itself: submitted − max(due, a buffer set was free)", lambda r: r.lateness
    ),
)


def busy_union_ns(records: Records) -> tuple[int, int]:
    """(union, sum) of the compute spans of all lanes, ns: the time in which any lane computed, and all lanes' time.

    sum / union is the mean number of lanes computing while any does: 1 means that contexts never overlap. Requests of
    one batch share one span.
    """
    end = records.completed - records.d2h
    start = end - records.compute
    if not len(start):
        return 0, 0
    order = np.lexsort((records.lane, start))
    start, end, lane = start[order], end[order], records.lane[order]
    other = np.append(True, (np.diff(start) != 0) | (np.diff(end) != 0) | (np.diff(lane) != 0))
    start, end = start[other], end[other]
    reached = np.maximum.accumulate(end)
    fresh = np.maximum(start[1:], reached[:-1])  # a span counts from where the spans before it ended
    union = int(end[0] - start[0]) + int(np.clip(end[1:] - fresh, 0, None).sum())
    return union, int((end - start).sum())
