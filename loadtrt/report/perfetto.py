"""A run's sample as a trace for ui.perfetto.dev: what each lane did, request by request.

Chrome's JSON trace format; ts and dur are µs from the start of measuring, with the digits of whole ns. A lane is a
process, and its rows are the requests that it had in flight at once: a request spans from submitted to completed on the
first free row, and h2d, compute and d2h are nested in it, where they were measured; the gaps between them are waiting.
So slices of one row are nested or apart and never overlap in part. Requests that are due and not yet submitted are
asynchronous slices of the process "queue", since any number may wait at once. Counters cover the intervals around the
sample only: those of the whole run would leave the sample too narrow to see.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from loadtrt.errors import UsageError
from loadtrt.records.records import COLUMNS, DROPPED, FAILED, OK, ON_DEVICE, UNSERVED, Records
from loadtrt.report.formatting import every
from loadtrt.report.trtexec import copied_in
from loadtrt.units import MILLISECOND_NS, SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy.typing as npt

    from loadtrt.results.run_result import RunResult

    Event = Mapping[str, Any]

_AROUND_NS = 5 * SECOND_NS
_QUEUE, _COUNTERS, _LANES = 1, 2, 3  # processes; lane n is _LANES + n
_ROWS = 10_000  # of a lane, at most: threads have numbers of their own, whatever their process
_STATUS = {OK: "served", FAILED: "failed", UNSERVED: "unserved", DROPPED: "dropped"}


def trace_json(run: RunResult) -> str:
    """The trace. A request's args: its place in the sample by due instants, from 1 on, and its times, ns. Raises
    UsageError for a run without a sample."""
    if run.model.sample is None or not run.model.sample.columns.get("due"):
        raise UsageError("the run has no sample of single requests, from which a trace is drawn: measure again")
    columns = run.model.sample.columns
    if not run.model.engine.device_times:  # phases of no length have no slice
        columns = {**columns, **dict.fromkeys(ON_DEVICE, (0,) * len(columns["due"]))}
    missing = [name for name in COLUMNS if name not in columns]
    if missing:
        raise UsageError(f"the run's sample has no {missing[0]}, from which a trace is drawn: measure again")
    try:
        rows = np.stack([np.array(columns[name], np.int64) for name in COLUMNS], axis=1)
    except OverflowError:
        raise UsageError("the run's sample has numbers that are not times in ns: measure again") from None
    records = Records(rows[np.lexsort((rows[:, COLUMNS.index("submitted")], rows[:, COLUMNS.index("due")]))])
    events = [*_names(records, run.model.interval_ns), *_requests(records), *_counters(records, run)]
    lines = ",\n".join(json.dumps(event, separators=(",", ":")) for event in events)
    about = {
        "engine": run.model.engine.name,
        "device": run.model.engine.device,
        "started": run.started,
        "loadtrt": run.loadtrt,
    }
    return f'{{"displayTimeUnit":"ns","otherData":{json.dumps(about)},"traceEvents":[\n{lines}\n]}}\n'


def _names(records: Records, each_ns: int) -> Iterator[Event]:
    """Of processes, in the order in which they are to be shown."""
    names = {_QUEUE: "queue: due, not yet submitted", _COUNTERS: every(each_ns)}
    names |= {_LANES + lane: f"lane {lane}" for lane in sorted(set(records.lane.tolist()))}
    for place, (process, name) in enumerate(names.items()):
        yield {"ph": "M", "pid": process, "name": "process_name", "args": {"name": name}}
        yield {"ph": "M", "pid": process, "name": "process_sort_index", "args": {"sort_index": place}}


def _requests(records: Records) -> Iterator[Event]:
    """Each request where it waited and where it was served."""
    columns = zip(*(column.tolist() for column in (_rows_of(records), _stamps(records), records.rows)), strict=True)
    known: set[int] = set()
    for number, (row, stamps, values) in enumerate(columns, 1):
        it = dict(zip(COLUMNS, values, strict=True))
        due, submitted, completed, lane = (it[name] for name in ("due", "submitted", "completed", "lane"))
        status = _STATUS.get(it["status"], str(it["status"]))
        args = {
            "request": number,
            "latency_ns": completed - due,
            "queue_ns": submitted - due,
            "service_ns": completed - submitted,
            "enqueue_ns": it["enqueued"] - submitted,
            "lateness_ns": it["lateness"],
            "status": status,
        }
        if submitted > due:
            waiting = {"cat": "queue", "name": "queue", "id2": {"local": hex(number)}, "pid": _QUEUE, "tid": _QUEUE}
            yield {"ph": "b", "ts": due / 1000, **waiting, "args": args}
            yield {"ph": "e", "ts": submitted / 1000, **waiting}
        if completed == submitted:
            continue  # it never got to a lane
        process, thread = _LANES + lane, _ROWS * (_LANES + lane) + row
        if thread not in known:
            known.add(thread)
            named = {"name": f"in flight {row + 1}"}
            yield {"ph": "M", "pid": process, "tid": thread, "name": "thread_name", "args": named}
        name = f"request {number}" if it["status"] == OK else f"request {number}, {status}"
        yield _slice(name, process, thread, submitted, completed, args)
        for place, phase in enumerate(("h2d", "compute", "d2h")):
            start, end = stamps[2 * place : 2 * place + 2]
            if end > start and it["status"] == OK:
                yield _slice(phase, process, thread, start, end, {"request": number})


def _slice(name: str, process: int, thread: int, start: int, end: int, args: Mapping[str, Any]) -> Event:
    where = {"pid": process, "tid": thread, "ts": start / 1000, "dur": (end - start) / 1000}
    return {"ph": "X", "name": name, **where, "args": args}


def _stamps(records: Records) -> npt.NDArray[np.int64]:
    """Starts and ends of h2d, compute and d2h, ns [n, 6]: as trtexec's times have them, but within the request and one
    after the other, where the mapping of the GPU's clock puts them some µs aside."""
    compute_end = records.completed - records.d2h
    compute_start = compute_end - records.compute
    h2d_end = copied_in(records, compute_start)
    stamps = np.stack(
        (h2d_end - records.h2d, h2d_end, compute_start, compute_end, compute_end, records.completed), axis=1
    )
    stamps = np.clip(stamps, records.submitted[:, None], records.completed[:, None])
    ordered: npt.NDArray[np.int64] = np.maximum.accumulate(stamps, axis=1)
    return ordered


def _rows_of(records: Records) -> npt.NDArray[np.int64]:
    """The first row of its lane that is free, for each request; int64 [n]."""
    rows = np.zeros(len(records), np.int64)
    free: dict[int, list[int]] = {}  # by lane: when each row is free again
    for place in np.argsort(records.submitted, kind="stable").tolist():
        submitted, completed = int(records.submitted[place]), int(records.completed[place])
        if completed == submitted:
            continue
        ends = free.setdefault(int(records.lane[place]), [])
        row = next((number for number, end in enumerate(ends) if end <= submitted), len(ends))
        ends[row : row + 1] = [completed]
        rows[place] = row
    return rows


def _counters(records: Records, run: RunResult) -> Iterator[Event]:
    """Of each interval that the sample touches, and of some around; what is not known is left out."""
    each_ns = run.model.interval_ns
    first, last = int(records.due.min()) - _AROUND_NS, int(records.completed.max()) + _AROUND_NS
    values: list[tuple[int, Mapping[str, float | None]]] = [
        (
            second.start_ns,
            {
                "requests/s": second.requests * SECOND_NS / each_ns,
                "latency p50, ms": _scaled(second.latency_p50_ns, 1 / MILLISECOND_NS),
                "latency p99, ms": _scaled(second.latency_p99_ns, 1 / MILLISECOND_NS),
            },
        )
        for second in run.model.intervals
    ]
    values += [
        (
            look.start_ns,
            {
                "SM clock, MHz": _scaled(look.sm_clock_mean_hertz, 1e-6),
                "power, W": look.power_mean_watts,
                "temperature, °C": look.temperature_max_celsius,
                "utilization, %": _scaled(look.utilization_mean_ratio, 100),
                "slowed down, %": _scaled(look.throttled_fraction, 100),
            },
        )
        for look in (run.telemetry.intervals if run.telemetry is not None else ())
    ]
    for start_ns, each in values:
        if first < start_ns + each_ns and start_ns <= last:
            for name, value in each.items():
                if value is not None:
                    yield {"ph": "C", "pid": _COUNTERS, "name": name, "ts": start_ns / 1000, "args": {"": value}}


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
