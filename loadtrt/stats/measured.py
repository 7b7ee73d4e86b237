"""One run's numbers, as they are compared: each with its 95 % confidence interval, or why it has none."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from loadtrt.records.histogram import QUANTILE_ERROR
from loadtrt.records.records import METRICS
from loadtrt.results.breakdown import PERCENTILES, ConfidenceInterval
from loadtrt.stats.sample_size import least_samples
from loadtrt.stats.verdict import least_bounded
from loadtrt.units import format_count, plural, rough_percent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadtrt.records.histogram import Histogram
    from loadtrt.results.breakdown import MetricSummary

RATES = ("throughput", "inferences")
OF_DUE = tuple(metric.name for metric in METRICS if metric.of_unserved)  # from the instant a request was due


@dataclass(frozen=True, slots=True)
class Measured:
    """One run's numbers.

    name: file of the run.
    rates: values by the names of RATES, per second.
    rate_interval: interval of the throughput.
    metrics, histograms: summaries and histograms by metric.
    trtexec: whether the file holds times in trtexec's format.
    problem: why the numbers cannot be trusted; None where they can.
    lost: share of requests that were dropped or failed.
    steady_rate: whether the throughput is steady, as it is offline, where the load is not.
    seed: seed of the load's random draws; None without any.
    """

    name: str
    rates: Mapping[str, float | None]
    rate_interval: ConfidenceInterval | None
    metrics: Mapping[str, MetricSummary]
    histograms: Mapping[str, Histogram]
    trtexec: bool
    problem: str | None = None
    lost: float = 0.0
    steady: bool = True
    steady_rate: bool = True
    seed: int | None = None


class Number(NamedTuple):
    """A number of one run.

    reason: why the value, its interval or an end of that is None, or the value 0.
    """

    value: float | None
    interval: ConfidenceInterval | None
    reason: str | None


def number_of(run: Measured, name: str, of_all: bool) -> Number:
    """A number by the name of a Ratio (stats/regression.py). of_all: include lost requests, as described there."""
    metric, _, which = name.partition(".")
    if metric not in (*RATES, *run.metrics):
        return Number(None, None, f"{run.name} does not have it")
    number = _of_all(run, metric, which) if of_all and run.lost and metric in OF_DUE else _of_served(run, metric, which)
    steady = run.steady_rate if metric in RATES else run.steady or metric not in OF_DUE
    if steady or not number.value:
        return number
    reason = f"the load of {run.name} is not steady, and its parts differ by its schedule: give several runs a side"
    return number._replace(interval=None, reason=reason)


def _of_all(run: Measured, metric: str, which: str) -> Number:
    most = max(PERCENTILES.values())
    if which == "mean" or float(which[1:]) / 100 > most * (1 - run.lost):
        reason = (
            f"{run.name} dropped or failed {rough_percent(run.lost)} of its requests, and {which} of all is not known"
        )
        return Number(None, None, reason)
    return _between_kept(run, metric, which, float(which[1:]) / 100 / (1 - run.lost))


def _of_served(run: Measured, metric: str, which: str) -> Number:
    if metric in RATES:
        count = max((summary.count for summary in run.metrics.values()), default=0)
        return _checked(run, metric, count, run.rates[metric], _of_rate(run, metric))
    summary = run.metrics[metric]
    if which == "mean":
        return _checked(run, which, summary.count, summary.mean_ns, summary.confidence.get(which))
    if which in PERCENTILES:
        return _checked(run, which, summary.count, summary.percentiles_ns[which], summary.confidence.get(which))
    return _between_kept(run, metric, which, float(which[1:]) / 100)


def _of_rate(run: Measured, name: str) -> ConfidenceInterval | None:
    """Inferences are as well known as requests."""
    interval, throughput, rate = run.rate_interval, run.rates["throughput"], run.rates[name]
    if interval is None or not throughput or not rate:
        return None
    ends = {"low": interval.low, "high": interval.high}
    scaled = {name: None if end is None else end * rate / throughput for name, end in ends.items()}
    return interval.model_copy(update=scaled)


def _between_kept(run: Measured, metric: str, which: str, rank: float) -> Number:
    """A percentile that is not in the summary, from the histogram. Each end of its interval is as far from it as the
    farther one of its neighbours', and by the histogram's error."""
    summary, names = run.metrics[metric], list(PERCENTILES)
    if summary.count < least_samples(rank) or metric not in run.histograms:
        return _checked(run, which, summary.count, None, None, rank)
    value = run.histograms[metric].quantiles((rank,))[0]
    above = next(place for place, name in enumerate(names) if PERCENTILES[name] >= rank)
    known = []
    for name in names[above - 1 : above + 1]:
        number, found = summary.percentiles_ns[name], summary.confidence.get(name)
        if number and found is not None:
            known.append((found.low and found.low / number, found.high and found.high / number, found.effective))
    interval = None
    if len(known) == 2:
        lows, highs, sizes = zip(*known, strict=True)
        interval = ConfidenceInterval(
            low=None if None in lows else value * min(lows) / (1 + QUANTILE_ERROR),
            high=None if None in highs else value * max(highs) * (1 + QUANTILE_ERROR),
            effective=min(sizes),
        )
    return _checked(run, which, summary.count, value, interval, rank)


def _checked(
    run: Measured,
    which: str,
    count: int,
    value: float | None,
    interval: ConfidenceInterval | None,
    rank: float | None = None,
) -> Number:
    """The number, with the reason where the value, its interval or an end of that is not known.

    which: percentile, "mean", or the name of a rate.
    count: requests that have the metric.
    rank: rank among the served, where it is not that of `which`.
    """
    if which.startswith("p"):
        rank = rank or float(which[1:]) / 100
    requests, reason = plural(count, "request"), None
    if value is not None and value <= 0:
        value, reason = 0.0, f"it is 0 in {run.name}"  # a negative value is in a damaged file
    elif value is None:
        needed = least_samples(rank) if rank else 1
        few = f"{run.name} has {requests}, and {which} needs {format_count(needed)}"
        reason = few if count < needed else f"{run.name} does not have it"
    elif interval is None:
        why = f"its {requests} are too few, or an earlier version of loadtrt wrote it"
        reason = f"{run.name} has no confidence interval of {which} ({why}): give several runs a side"
    elif interval.low is None or interval.low <= 0 or interval.high is None:
        side = "above" if interval.high is None else "below"
        takes = f", and that takes {format_count(math.ceil(least_bounded(rank)))}" if rank and side == "above" else ""
        worth = f"its {requests} are worth {format_count(math.floor(interval.effective))} independent ones"
        reason = f"{run.name} does not bound {which} from {side}: {worth} (the effective sample size){takes}"
    return Number(value, interval, reason)
