"""What the workers of a fleet measured of one model, as one: counts add up, and so do histograms, exactly.

Percentiles are those of the sum of the histograms, within 0.4 %. Where workers are independent of each other,

    t(N) = Σ t(N_i)  (low, high) = Σ x_i ∓ √(Σ (x_i − end_i)²)        t(N) = N²/(N + 100)

Arrivals that come in clusters meet all workers at the same time (`Load.clustered`), and their errors go together. So do
those under round-robin, where all get every N-th of the same arrivals, a moment apart: they have the same number of
requests, and are busy at the same times. Then

    N = min N_i      (low, high) = Σ x_i ∓ Σ |x_i − end_i|

N: the effective sample size of all requests, from those of the workers (stats/verdict.py), for the verdict and the
intervals of quantiles; a worker that saw too few requests for an N_i adds none. Short runs estimate N_i too large: t
corrects that for each worker. The second is the interval of a sum, such as the throughput. Both hold the truth as often
as they say, or more often (`benchmarks/fleet_coverage.py`).
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.records.board import KEEP
from loadtrt.records.histogram import CELL, QUANTILE_ERROR, Histogram
from loadtrt.records.records import METRICS
from loadtrt.results.breakdown import PERCENTILES, Batches, ConfidenceInterval, MetricSummary, RoutingCost
from loadtrt.results.run_result import ModelResult, ObjectiveShare, Throughput
from loadtrt.results.steadiness import Interval
from loadtrt.stats.binomial import share_interval
from loadtrt.stats.sample_size import least_samples
from loadtrt.stats.summary import fairness
from loadtrt.stats.verdict import interval_ranks, reason_of, share_of, size_trusted_as, trusted
from loadtrt.stats.whole_run import more_needed, verdict_on_number

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from loadtrt.asked.model import Model
    from loadtrt.asked.objective import Objective

    Ends = tuple[float | None, float | None]


@dataclass(frozen=True, slots=True)
class _Adding:
    """How sizes and ends of workers add up, see above. together: whether their errors go together."""

    together: bool

    def size(self, sizes: Iterable[float | None]) -> float:
        """Effective sample size of all; a worker of which none is known adds none."""
        known = [size for size in sizes if size]
        return min(known, default=0.0) if self.together else size_trusted_as(math.fsum(map(trusted, known)))

    def ends(self, parts: Sequence[tuple[float, float | None, float | None]]) -> Ends:
        """The ends of the interval of a sum of numbers (value, low, high); None for one that is not known."""
        total, ends = math.fsum(value for value, _, _ in parts), []
        for side, sign in ((1, -1), (2, 1)):
            known = [abs(part[0] - end) for part in parts if (end := part[side]) is not None]
            width = math.fsum(known) if self.together else math.hypot(*known)
            ends.append(total + sign * width if len(known) == len(parts) else None)
        return ends[0], ends[1]


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
    first, adding = parts[0], _Adding(together=asked.load.clustered or even)
    histograms = {name: _merged(part.histograms[name] for part in parts) for name in first.histograms}
    slowest = max(parts, key=lambda part: part.metrics["latency"].max_ns or 0)
    shares = [[part.objectives[place] for part in parts] for place in range(len(asked.objectives))]
    judged = [
        _share(objective, share, parts, histograms, missing, per_gpu, adding)
        for objective, share in zip(asked.objectives, shares, strict=True)
    ]
    return first.model_copy(
        update={
            **{name: sum(getattr(part, name) for part in parts) for name in _SUMS},
            **dict.fromkeys(("overlap", "profile", "steadiness", "flow", "window")),
            "first_error": next((part.first_error for part in parts if part.first_error), None),
            "throughput": _throughput([part.throughput for part in parts], adding),
            "percentiles_exact": len(parts) == 1 and first.percentiles_exact,
            "metrics": {
                name: _summary(histogram, [part.metrics[name] for part in parts], adding)
                for name, histogram in histograms.items()
            },
            "histograms": {name: histogram.to_dict() for name, histogram in histograms.items()},
            "lanes": (),
            "fairness": fairness([part.throughput.requests_per_s or 0.0 for part in parts]),
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


_SUMS = ("submitted", "ok", "failed", "unserved", "dropped", "inferences")


def _merged(histograms: Iterable[Mapping[str, object]]) -> Histogram:
    merged = Histogram()
    for histogram in histograms:
        merged.merge(Histogram.from_dict(dict(histogram)))
    return merged


def _summary(histogram: Histogram, parts: Sequence[MetricSummary], adding: _Adding) -> MetricSummary:
    count = histogram.count
    percentiles: dict[str, float | None] = {}
    confidence = {}
    for name, rank in PERCENTILES.items():
        value = percentiles[name] = histogram.quantiles((rank,))[0] if count >= least_samples(rank) else None
        size = adding.size(_effective(part, name) for part in parts)
        if value is not None and size:
            low, high = _quantile_ends(histogram, rank, size, count)
            if low is not None or high is not None:
                confidence[name] = ConfidenceInterval(low=low, high=high, effective=size)
    means = [(part.count / count, part.mean_ns, part.confidence.get("mean")) for part in parts if part.count]
    known = [(weight, mean, ends) for weight, mean, ends in means if mean is not None and ends is not None]
    if known and len(known) == len(means):
        low, high = adding.ends([(w * mean, _times(ends.low, w), _times(ends.high, w)) for w, mean, ends in known])
        if low is not None or high is not None:
            size = adding.size(ends.effective for _, _, ends in known)
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


def _throughput(parts: Sequence[Throughput], adding: _Adding) -> Throughput:
    """Rates add up, as far as each is known: a worker that served nothing adds none."""
    confidence, rates = None, [part.requests_per_s or 0.0 for part in parts]
    known = [(part.requests_per_s or 0.0, part.confidence) for part in parts if part.requests_per_s is not None]
    intervals = [(rate, ends.low, ends.high) for rate, ends in known if ends is not None]
    if known and len(intervals) == len(known):
        low, high = adding.ends(intervals)
        size = adding.size(ends.effective for _, ends in known if ends is not None)
        confidence = ConfidenceInterval(low=low, high=high, effective=size)
    inferences = [part.inferences_per_s or 0.0 for part in parts]
    offered = [part.offered_per_s for part in parts if part.offered_per_s is not None]
    return Throughput(
        requests_per_s=math.fsum(rates) if known else None,
        inferences_per_s=math.fsum(inferences) if known else None,
        offered_per_s=math.fsum(offered) if offered else None,
        confidence=confidence,
    )


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


def _share(
    objective: Objective,
    shares: Sequence[ObjectiveShare],
    parts: Sequence[ModelResult],
    histograms: Mapping[str, Histogram],
    missing: str,
    per_gpu: Sequence[int],
    adding: _Adding,
) -> ObjectiveShare:
    good, requests = sum(share.good for share in shares), sum(share.requests for share in shares)
    if objective.of_requests:
        judged = _of_requests(objective, shares, good, requests, histograms[METRICS[objective.metric].name], adding)
    else:
        judged = _of_number(objective, shares, good, requests, parts, per_gpu, adding)
    return judged.model_copy(update={"verdict": "undecided", "reason": missing}) if missing else judged


def _of_requests(
    objective: Objective,
    shares: Sequence[ObjectiveShare],
    good: int,
    requests: int,
    histogram: Histogram,
    adding: _Adding,
) -> ObjectiveShare:
    size, bad = adding.size(share.effective for share in shares), 1 - good / requests if requests else 0.0
    value: float | None = None
    ends: Ends = (None, None)
    known = histogram.count if objective.kind == "quantile" else 0
    if known and (objective.rank == 1 or known >= least_samples(objective.rank)):
        value = _quantile(histogram, objective.rank, requests)
        if value is not None and objective.rank < 1:
            ends = _quantile_ends(histogram, objective.rank, size, requests)
    reason = partial(reason_of, objective, bad, size, requests, len(shares) * KEEP)
    return share_of(objective, good, requests, size, share_interval(bad, size), (value, *ends), reason)


def _of_number(
    objective: Objective,
    shares: Sequence[ObjectiveShare],
    good: int,
    requests: int,
    parts: Sequence[ModelResult],
    per_gpu: Sequence[int],
    adding: _Adding,
) -> ObjectiveShare:
    """A rate, or power, adds up; two workers on one GPU share its power and its energy, which each has measured."""
    weights = np.ones(len(shares))
    if objective.kind in ("power", "energy"):
        weights = np.array([float(place in per_gpu) for place in range(len(shares))])
    if objective.kind == "energy":  # each worker's is over inferences of its own
        weights *= np.array([part.inferences for part in parts]) / max(sum(part.inferences for part in parts), 1)
    rows = [(share.value, share.value_low, share.value_high) for share in shares]
    known = [
        (value * weight, _times(low, weight), _times(high, weight))
        for (value, low, high), weight in zip(rows, weights.tolist(), strict=True)
        if value is not None and weight
    ]
    whole = len(known) == int(np.count_nonzero(weights))
    value = math.fsum(part[0] for part in known) if whole and known else None
    low, high = adding.ends(known) if value is not None else (None, None)
    verdict, reason = verdict_on_number(objective, low, high), None
    if verdict == "undecided":
        reason = next((share.reason for share in shares if share.value is None), None)
        reason = reason or more_needed(objective, value, low, high)
    return ObjectiveShare(
        objective=objective,
        good=good,
        requests=requests,
        value_ns=None,
        verdict=verdict,
        reason=reason,
        value=value,
        value_low=low,
        value_high=high,
    )
