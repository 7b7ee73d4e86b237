"""What the workers of a fleet measured of one model, as one: counts add up, and so do histograms, exactly.

Percentiles are those of the sum of the histograms, within 0.4 %. stats/adding.py has the laws of their intervals, which
hold the truth as often as they say, or more often (`benchmarks/fleet_coverage.py`), and stats/union_rates.py those of
rates.
"""

from __future__ import annotations

import math
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from loadtrt.records.board import KEEP
from loadtrt.records.histogram import CELL, QUANTILE_ERROR, Histogram
from loadtrt.records.records import METRICS
from loadtrt.results.breakdown import PERCENTILES, Batches, ConfidenceInterval, MetricSummary, RoutingCost
from loadtrt.results.steadiness import Interval
from loadtrt.stats.adding import Adding
from loadtrt.stats.binomial import share_interval
from loadtrt.stats.sample_size import least_samples
from loadtrt.stats.summary import fairness
from loadtrt.stats.union_rates import share_of_number, throughput_of
from loadtrt.stats.verdict import interval_ranks, reason_of, share_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from loadtrt.asked.model import Model
    from loadtrt.asked.objective import Objective
    from loadtrt.results.run_result import ModelResult, ObjectiveShare
    from loadtrt.stats.adding import Ends


def union_of(
    asked: Model, parts: Sequence[ModelResult], missing: str, per_gpu: Sequence[int], *, even: bool
) -> ModelResult:
    """The model as all workers measured it; problems and findings are those of the first one (stats/merging.py).

    asked: the model as it was asked for.
    parts: of each worker.
    missing: which workers are lost, in words, so that no objective can be decided; "" for none.
    per_gpu: places of the workers whose GPUs are different ones.
    even: whether the arrivals of the workers depend on each other (round-robin, least-outstanding, two-choices).
    """
    first, adding = parts[0], Adding(together=asked.load.clustered or even)
    histograms = {name: _merged(part.histograms[name] for part in parts) for name in first.histograms}
    slowest = max(parts, key=lambda part: part.metrics["latency"].max_ns or 0)
    throughput, judged = throughput_of(asked, parts, adding), []
    for place, objective in enumerate(asked.objectives):
        shares = [part.objectives[place] for part in parts]
        if objective.of_requests:
            share = _of_requests(objective, shares, histograms[METRICS[objective.metric].name], adding)
        else:
            share = share_of_number(asked, objective, shares, parts, per_gpu, throughput, adding)
        judged.append(share.model_copy(update={"verdict": "undecided", "reason": missing}) if missing else share)
    return first.model_copy(
        update={
            **{name: sum(getattr(part, name) for part in parts) for name in _SUMS},
            **dict.fromkeys(("overlap", "profile", "steadiness", "flow", "window")),
            "first_error": next((part.first_error for part in parts if part.first_error), None),
            "throughput": throughput,
            "percentiles_exact": len(parts) == 1 and first.percentiles_exact,
            "metrics": {
                name: _summary(histogram, [part.metrics[name] for part in parts], adding)
                for name, histogram in histograms.items()
            },
            "histograms": {name: histogram.to_dict() for name, histogram in histograms.items()},
            "lanes": (),
            "fairness": fairness(_paces(asked, parts)),
            "starved_fraction": max(part.starved_fraction for part in parts),
            "verification": next((part.verification for part in parts if part.verification is not None), None),
            "interval_ns": (each_ns := max(part.interval_ns for part in parts)),
            "intervals": tuple(_intervals(parts, each_ns)),
            "objectives": tuple(judged),
            "cohorts": {},
            "sample": slowest.sample,
            "mix": (),
            "batches": _batches([part.batches for part in parts if part.batches is not None]),
            "ended_early": next((part.ended_early for part in parts if part.ended_early), None),
            "routing": _routing([part.routing for part in parts if part.routing is not None]),
            "together_ns": min((part.together_ns for part in parts if part.together_ns is not None), default=None),
            "measure_ns": max((part.measure_ns for part in parts if part.measure_ns is not None), default=None),
        }
    )


def _paces(asked: Model, parts: Sequence[ModelResult]) -> list[float]:
    """How much each worker did in the time of all: where the rate changes, its requests."""
    steady = asked.load.steady_rate
    return [(part.throughput.requests_per_s or 0.0) if steady else float(part.ok) for part in parts]


_SUMS = ("submitted", "ok", "failed", "unserved", "dropped", "inferences")


def _merged(histograms: Iterable[Mapping[str, object]]) -> Histogram:
    merged = Histogram()
    for histogram in histograms:
        merged.merge(Histogram.from_dict(dict(histogram)))
    return merged


def _summary(histogram: Histogram, parts: Sequence[MetricSummary], adding: Adding) -> MetricSummary:
    count = histogram.count
    percentiles: dict[str, float | None] = {}
    confidence = {}
    for name, rank in PERCENTILES.items():
        value = percentiles[name] = histogram.quantiles((rank,))[0] if count >= least_samples(rank) else None
        size = adding.size((part.count, _effective(part, name)) for part in parts)
        if value is not None and size:
            low, high = _quantile_ends(histogram, rank, size, count)
            if low is not None or high is not None:
                confidence[name] = ConfidenceInterval(low=low, high=high, effective=size)
    means = [(part.count, part.mean_ns, part.confidence.get("mean")) for part in parts if part.count]
    known = [(number, mean, ends) for number, mean, ends in means if mean is not None and ends is not None]
    if known and len(known) == len(means):
        weighted = [(part / count, mean, ends) for part, mean, ends in known]
        low, high = adding.ends([(w * mean, _times(ends.low, w), _times(ends.high, w)) for w, mean, ends in weighted])
        if low is not None or high is not None:
            size = adding.size((number, ends.effective) for number, _, ends in known)
            confidence["mean"] = ConfidenceInterval(low=low, high=high, effective=size)
    return MetricSummary(
        count=count,
        mean_ns=histogram.sum / count if count else None,
        min_ns=histogram.min,
        max_ns=histogram.max,
        percentiles_ns=percentiles,
        confidence=confidence,
    )


def _effective(part: MetricSummary, name: str) -> float:
    """Effective sample size of a worker's requests at a percentile; the least known one, where none is known there."""
    known = {rank: ends.effective for rank, ends in part.confidence.items() if rank in PERCENTILES}
    return known.get(name, min(known.values(), default=0.0))


def _quantile_ends(histogram: Histogram, rank: float, size: float, requests: int) -> Ends:
    low, high = (_quantile(histogram, end, requests) for end in interval_ranks(rank, size))
    wider = 1 + QUANTILE_ERROR
    return low and low / wider, high and high * wider


def _quantile(histogram: Histogram, rank: float | None, requests: int) -> float | None:
    """The quantile over `requests`, of which those without a value were slower than any that has one."""
    count = histogram.count
    if rank is None or not count or rank > count / requests:
        return None
    return histogram.quantiles((rank * requests / count,))[0]


def _times(end: float | None, weight: float) -> float | None:
    return None if end is None else end * weight


def _intervals(parts: Sequence[ModelResult], each_ns: int) -> Iterator[Interval]:
    """The intervals of all workers, by their distance from the start."""
    together: dict[int, list[Interval]] = {}
    for part in parts:
        for interval in part.intervals:
            together.setdefault(interval.start_ns // each_ns, []).append(interval)
    for number in range(max(together, default=-1) + 1):
        yield _interval(number * each_ns, together.get(number, []))


def _interval(start_ns: int, parts: Sequence[Interval]) -> Interval:
    counts: Counter[int] = Counter()
    for part in parts:
        counts.update(part.latency_counts)
    served, slowest = sum(part.requests for part in parts), max((part.latency_max_ns or 0 for part in parts), default=0)
    throttled = [part.throttled for part in parts if part.throttled is not None]
    histogram = Histogram()  # of cells, each at its middle
    for cell, count in counts.items():
        histogram.counts[cell * CELL + CELL // 2] = count
    histogram.min, histogram.max = 0, slowest
    p50, p90, p99 = histogram.quantiles((0.5, 0.9, 0.99)) if counts else (None, None, None)

    def mean(of: str) -> float | None:
        known = [(part.requests, getattr(part, of)) for part in parts if getattr(part, of) is not None]
        return math.fsum(number * value for number, value in known) / served if known else None

    return Interval(
        start_ns=start_ns,
        requests=served,
        failed=sum(part.failed for part in parts),
        latency_mean_ns=mean("latency_mean_ns"),
        latency_p50_ns=p50,
        latency_p90_ns=p90,
        latency_p99_ns=p99,
        latency_max_ns=slowest if served else None,
        queue_mean_ns=mean("queue_mean_ns"),
        compute_mean_ns=mean("compute_mean_ns"),
        throttled=any(throttled) if throttled else None,
        latency_counts=dict(sorted(counts.items())),
    )


def _routing(parts: Sequence[RoutingCost]) -> RoutingCost | None:
    if not parts:
        return None
    histogram = _merged(part.histogram for part in parts)
    return RoutingCost(chosen=sum(part.chosen for part in parts), histogram=histogram.to_dict())


def _batches(parts: Sequence[Batches]) -> Batches | None:
    if not parts:
        return None
    counts: Counter[int] = Counter()
    for part in parts:
        counts.update(part.counts)
    requests = [part.mean * sum(part.counts.values()) for part in parts]
    computed = [number / (1 - part.padded) for number, part in zip(requests, parts, strict=True)]
    total = math.fsum(requests)
    return Batches(
        counts=dict(sorted(counts.items())),
        mean=total / sum(counts.values()),
        padded=1 - total / math.fsum(computed) if total else 0.0,
    )


def _of_requests(
    objective: Objective, shares: Sequence[ObjectiveShare], histogram: Histogram, adding: Adding
) -> ObjectiveShare:
    good, requests = sum(share.good for share in shares), sum(share.requests for share in shares)
    size = adding.size((share.requests, share.effective) for share in shares)
    bad = 1 - good / requests if requests else 0.0
    value: float | None = None
    ends: Ends = (None, None)
    known = histogram.count if objective.kind == "quantile" else 0
    if known and (objective.rank == 1 or known >= least_samples(objective.rank)):
        value = _quantile(histogram, objective.rank, requests)
        if value is not None and objective.rank < 1:
            ends = _quantile_ends(histogram, objective.rank, size, requests)
    reason = partial(reason_of, objective, bad, size, requests, len(shares) * KEEP)
    return share_of(objective, good, requests, size, share_interval(bad, size), (value, *ends), reason)
