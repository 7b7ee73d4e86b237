"""Numbers of a run's requests: of all, of typical and late ones, of lanes, of the parts of a mix and of batches.

Percentiles are exact (nearest rank) while all records are kept, and from histograms (within 0.4 %) beyond that. A
percentile that the sample size does not support is None.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.records.histogram import Histogram
from loadtrt.records.records import COLUMNS, METRICS, OK, Records, busy_union_ns
from loadtrt.results.breakdown import (
    PERCENTILES,
    Batches,
    Cohort,
    ConfidenceInterval,
    Lane,
    MetricSummary,
    MixPart,
    Overlap,
    Sample,
    Window,
)
from loadtrt.stats.intervals import mean_interval, quantile_interval
from loadtrt.stats.sample_size import least_samples

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt


SAMPLED = 1000
_FILLS = 10  # one of so many parts of a run, in which its queues fill
_RANKS = {"p50": (0.45, 0.55), "p99": (0.99, 1.0)}
_INSTANTS = ("due", "submitted", "enqueued", "completed")


def summarize(
    records: Records, histograms: Mapping[str, Histogram], complete: bool, steady: bool = True
) -> dict[str, MetricSummary]:
    """A summary of each metric, by name.

    records: all records or the first.
    histograms: values of all requests, by metric.
    complete: whether `records` has all records.
    steady: whether the load is steady; otherwise metrics from the due instant on have no confidence intervals
        (stats/intervals.py).
    """
    ordered = _by_due(records)
    summaries = {}
    for metric in METRICS:
        histogram = histograms[metric.name]
        count = histogram.count
        kept = metric.values(ordered)
        values = np.sort(kept) if complete else None
        percentiles: dict[str, float | None] = {}
        for name, rank in PERCENTILES.items():
            if count < least_samples(rank):
                percentiles[name] = None
            elif values is not None:
                percentiles[name] = float(values[math.ceil(rank * count) - 1])
            else:
                percentiles[name] = histogram.quantiles((rank,))[0]
        mean = histogram.sum / count if count else None
        confidence = {}
        if steady or not metric.of_unserved:
            confidence = _confidence(mean, percentiles, kept, histogram if values is None else values)
        summaries[metric.name] = MetricSummary(
            count=count,
            mean_ns=mean,
            min_ns=histogram.min,
            max_ns=histogram.max,
            percentiles_ns=percentiles,
            confidence=confidence,
        )
    return summaries


def _confidence(
    mean: float | None,
    percentiles: Mapping[str, float | None],
    kept: npt.NDArray[np.int64],
    values: npt.NDArray[np.int64] | Histogram,
) -> dict[str, ConfidenceInterval]:
    """The intervals of the percentiles and of the mean, as far as they are known. kept, values: as in
    `quantile_interval`."""
    found = {
        name: None if value is None else quantile_interval(PERCENTILES[name], value, kept, values)
        for name, value in percentiles.items()
    }
    found["mean"] = None if mean is None else mean_interval(mean, kept)
    return {name: interval for name, interval in found.items() if interval is not None}


def _by_due(records: Records) -> Records:
    """Records in the order of due instants, which differs from that of completions."""
    due = records.due
    return Records(records.rows[np.argsort(due, kind="stable")]) if (due[1:] < due[:-1]).any() else records


def lanes_of(records: Records, served: Sequence[int]) -> list[Lane]:
    """Each lane's served requests, and medians over its kept records, ns, None without any."""
    ok = records.ok
    service = ok.completed - ok.submitted
    rows = []
    for lane, requests in enumerate(served):
        chosen = ok.lane == lane
        service_ns, compute_ns = (_median(times[chosen]) for times in (service, ok.compute))
        rows.append(Lane(lane=lane, requests=requests, service_p50_ns=service_ns, compute_p50_ns=compute_ns))
    return rows


def _median(values: npt.NDArray[np.int64]) -> float | None:
    return float(np.median(values)) if len(values) else None


def fairness(requests: Sequence[float]) -> float | None:
    """Jain's index of the lanes' requests, or of the workers' rates, (Σx)² / (n Σx²): 1 is equal shares, 1/n one has
    all. None: no work."""
    squares = sum(count * count for count in requests)
    return sum(requests) ** 2 / (len(requests) * squares) if squares else None


def overlap_of(records: Records) -> Overlap | None:
    """How much lanes computed at the same time, from the kept records; None where compute times are not known."""
    ok = records.ok
    union, total = busy_union_ns(ok)
    if not union:
        return None
    span = int((ok.completed - ok.d2h).max() - (ok.completed - ok.d2h - ok.compute).min())
    return Overlap(busy_fraction=union / span, lanes_computing=total / union)


def cohorts_of(records: Records) -> dict[str, Cohort]:
    """Cohorts of a run's served requests: "p50", latencies from p45 to p55, and "p99", from p99 up (nearest rank).

    A cohort is missing where the requests are too few for its highest rank below the maximum (stats/sample_size.py).
    """
    ok = records.ok
    count = len(ok)
    latency = ok.completed - ok.due
    ordered = np.sort(latency)
    cohorts = {}
    for name, ranks in _RANKS.items():
        if count < least_samples(max(rank for rank in ranks if rank < 1)):
            continue
        low, high = (int(ordered[math.ceil(rank * count) - 1]) for rank in ranks)
        chosen = (low <= latency) & (latency <= high)
        parts = {
            "latency_ns": latency,
            "queue_ns": ok.submitted - ok.due,
            "h2d_ns": ok.h2d,
            "compute_ns": ok.compute,
            "d2h_ns": ok.d2h,
            "other_ns": ok.completed - ok.submitted - ok.h2d - ok.compute - ok.d2h,
        }
        means = {part: float(values[chosen].mean()) for part, values in parts.items()}
        cohorts[name] = Cohort(
            requests=int(np.count_nonzero(chosen)), latency_low_ns=low, latency_high_ns=high, **means
        )
    return cohorts


def sample_of(records: Records, start_ns: int) -> Sample | None:
    """At most SAMPLED requests around the slowest served one, in the order of submission, with instants counted from
    start_ns. None where none was served."""
    order = np.lexsort((records.due, records.submitted))
    rows = records.rows[order]
    places = np.flatnonzero(rows[:, COLUMNS.index("status")] == OK)
    if not len(places):
        return None
    latency = rows[:, COLUMNS.index("completed")] - rows[:, COLUMNS.index("due")]
    slowest = int(places[np.argmax(latency[places])])
    first = max(0, min(slowest - SAMPLED // 2, len(rows) - SAMPLED))
    part = rows[first : first + SAMPLED]
    origin = {name: start_ns if name in _INSTANTS else 0 for name in COLUMNS}
    return Sample(columns={name: tuple((part[:, place] - origin[name]).tolist()) for place, name in enumerate(COLUMNS)})


def mix_of(records: Records, parts: Sequence[tuple[str, float]], sets: int, steady: bool) -> list[MixPart]:
    """Metrics of each part of a mix, from the kept records.

    parts: (name, weight) of each part.
    sets: input sets of each part.
    """
    rows = []
    for number, (name, weight) in enumerate(parts):
        chosen = Records(records.rows[records.inputs // sets == number])
        histograms = {metric.name: Histogram() for metric in METRICS}
        for metric in METRICS:
            histograms[metric.name].add(metric.values(chosen))
        metrics = summarize(chosen, histograms, complete=True, steady=steady)
        rows.append(MixPart(name=name, offered_share=weight, requests=len(chosen.ok), metrics=metrics))
    return rows


def batches_of(records: Records, sizes: Sequence[int]) -> Batches | None:
    """The batches that were formed: requests of one lane that completed at one instant. None where none was served.

    records: those that were kept.
    sizes: batch size that the engine ran for each input set.
    """
    ok = records.ok
    if not len(ok):
        return None
    order = np.lexsort((ok.lane, ok.completed))
    completed, lane, inputs = ok.completed[order], ok.lane[order], ok.inputs[order]
    first = np.flatnonzero(np.append(True, (np.diff(completed) != 0) | (np.diff(lane) != 0)))
    counts = np.diff(np.append(first, len(completed)))
    formed, times = np.unique(counts, return_counts=True)
    return Batches(
        counts=dict(zip(formed.tolist(), times.tolist(), strict=True)),
        mean=float(counts.mean()),
        padded=1 - float(counts.sum() / np.asarray(sizes)[inputs[first]].sum()),
    )


def window_of(records: Records, start_ns: int, length_ns: int) -> Window:
    """What came due and was served while requests were sent. records: all of them. length_ns: how long that was."""
    first, last = start_ns + length_ns // _FILLS, start_ns + length_ns
    due, served = records.due, records.ok.completed
    return Window(
        due=int(((due >= first) & (due < last)).sum()),
        served=int(((served > first) & (served <= last)).sum()),
        span_ns=last - first,
    )
