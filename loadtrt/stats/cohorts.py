"""Groups of requests: typical and late ones, parts of a mix, batches, and the records around the slowest."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.records.histogram import Histograms
from loadtrt.records.records import COLUMNS, METRICS, OK, Records
from loadtrt.results.breakdown import Batches, Cohort, MixPart, Sample
from loadtrt.stats.margin import least_samples
from loadtrt.stats.summary import summarize

if TYPE_CHECKING:
    from collections.abc import Sequence


SAMPLED = 1000
_RANKS = {"p50": (0.45, 0.55), "p99": (0.99, 1.0)}
_INSTANTS = ("due", "submitted", "enqueued", "completed")


def cohorts_of(records: Records) -> dict[str, Cohort]:
    """Cohorts of a run's served requests: "p50", latencies from p45 to p55, and "p99", from p99 up (nearest rank).

    A cohort is missing where the requests are too few for its highest rank below the maximum (stats/margin.py).
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


def mix_of(records: Records, parts: Sequence[tuple[str, float]], sets: int, steady: bool = True) -> list[MixPart]:
    """Metrics of each part of a mix, from the kept records.

    parts: (name, weight) of each part.
    sets: input sets of each part.
    steady: whether the load is steady.
    """
    rows = []
    for number, (name, weight) in enumerate(parts):
        chosen = Records(records.rows[records.inputs // sets == number])
        table = Histograms(len(METRICS))
        for metric, histogram in zip(METRICS, table.each, strict=True):
            histogram.add(metric.values(chosen))
        histograms = dict(zip((metric.name for metric in METRICS), table.each, strict=True))
        metrics = summarize(chosen, histograms, complete=True, steady=steady)
        rows.append(MixPart(name=name, offered_share=weight, requests=len(chosen.ok), metrics=metrics))
    return rows


def batches_of(records: Records, sizes: Sequence[int]) -> Batches | None:
    """The batches that were formed, from the kept records: requests of one lane that completed at one instant. None
    where none was served. sizes: batch size that the engine ran for each input set."""
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
