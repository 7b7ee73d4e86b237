"""Percentiles and means of a run's metrics, and comparisons of its lanes.

Percentiles are exact (nearest rank) while all records are kept, and from histograms (within 0.4 %) beyond that. A
percentile that the sample size does not support is None.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.records.histogram import QUANTILE_ERROR
from loadtrt.records.records import METRICS, Records, busy_union_ns
from loadtrt.results.breakdown import PERCENTILES, MetricSummary
from loadtrt.results.run_result import Lane, Overlap
from loadtrt.stats.margin import least_samples, margins

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from loadtrt.records.histogram import Histogram


def summarize(
    records: Records, histograms: Mapping[str, Histogram], complete: bool, steady: bool = True
) -> dict[str, MetricSummary]:
    """A summary of each metric, by name.

    records: all records or the first.
    histograms: values of all requests, by metric.
    complete: whether `records` has all records.
    steady: whether the load is steady; otherwise metrics from the due instant on have no margins (stats/margin.py).
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
        summaries[metric.name] = MetricSummary(
            count=count,
            mean_ns=histogram.sum / count if count else None,
            min_ns=histogram.min,
            max_ns=histogram.max,
            percentiles_ns=percentiles,
            margins=_margins(kept, complete) if steady or not metric.of_unserved else {},
        )
    return summaries


def _margins(kept: npt.NDArray[np.int64], exact: bool) -> dict[str, float]:
    """Margins (stats/margin.py), wider by QUANTILE_ERROR for percentiles from histograms."""
    coarse = {} if exact else dict.fromkeys(PERCENTILES, QUANTILE_ERROR)
    return {name: (1 + margin) * (1 + coarse.get(name, 0.0)) - 1 for name, margin in margins(kept, PERCENTILES).items()}


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
        known = bool(chosen.any())
        rows.append(
            Lane(
                lane=lane,
                requests=requests,
                service_p50_ns=float(np.median(service[chosen])) if known else None,
                compute_p50_ns=float(np.median(ok.compute[chosen])) if known else None,
            )
        )
    return rows


def fairness(requests: list[int]) -> float | None:
    """Jain's index of the lanes' requests, (Σx)² / (n Σx²): 1 is equal shares, 1/n one lane has all. None: no work."""
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
