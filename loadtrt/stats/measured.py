"""One run's numbers, as they are compared: each with its margin, or why it has none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from loadtrt.records.histogram import QUANTILE_ERROR
from loadtrt.records.records import METRICS
from loadtrt.results.breakdown import PERCENTILES
from loadtrt.stats.margin import least_for_margin, least_samples
from loadtrt.units import format_count, plural

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
    rate_margin: relative margin of the rates.
    metrics, histograms: summaries and histograms by metric.
    trtexec: whether the file holds times in trtexec's format.
    problem: why the numbers cannot be trusted; None where they can.
    lost: share of requests that were dropped or failed.
    steady_rate: whether the throughput is steady, as it is offline, where the load is not.
    seed: seed of the load's random draws; None without any.
    """

    name: str
    rates: Mapping[str, float | None]
    rate_margin: float | None
    metrics: Mapping[str, MetricSummary]
    histograms: Mapping[str, Histogram]
    trtexec: bool
    problem: str | None = None
    lost: float = 0.0
    steady: bool = True
    steady_rate: bool = True
    seed: int | None = None


class Number(NamedTuple):
    """A number of one run. reason: why the value or the margin is None, or the value 0."""

    value: float | None
    margin: float | None
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
    return number._replace(margin=None, reason=reason)


def _of_all(run: Measured, metric: str, which: str) -> Number:
    most = max(PERCENTILES.values())
    if which == "mean" or float(which[1:]) / 100 > most * (1 - run.lost):
        reason = f"{run.name} dropped or failed {100 * run.lost:.2g} % of its requests, and {which} of all is not known"
        return Number(None, None, reason)
    return _between_kept(run, metric, which, float(which[1:]) / 100 / (1 - run.lost))


def _of_served(run: Measured, metric: str, which: str) -> Number:
    if metric in RATES:
        count = max((summary.count for summary in run.metrics.values()), default=0)
        return _checked(run, metric, 0.5, count, run.rates[metric], run.rate_margin)
    summary = run.metrics[metric]
    if which == "mean":
        return _checked(run, which, 0.5, summary.count, summary.mean_ns, summary.margins.get(which))
    rank = float(which[1:]) / 100
    if which in PERCENTILES:
        return _checked(run, which, rank, summary.count, summary.percentiles_ns[which], summary.margins.get(which))
    return _between_kept(run, metric, which, rank)


def _between_kept(run: Measured, metric: str, which: str, rank: float) -> Number:
    """A percentile that is not in the summary, from the histogram. Its margin is the larger of its neighbours' margins,
    and the histogram's error."""
    summary, names = run.metrics[metric], list(PERCENTILES)
    supported = summary.count >= least_samples(rank) and metric in run.histograms
    value = run.histograms[metric].quantiles((rank,))[0] if supported else None
    above = next(place for place, name in enumerate(names) if PERCENTILES[name] >= rank)
    known = [summary.margins[name] for name in names[above - 1 : above + 1] if name in summary.margins]
    margin = (1 + max(known)) * (1 + QUANTILE_ERROR) - 1 if len(known) == 2 else None
    return _checked(run, which, rank, summary.count, value, margin, known_by=PERCENTILES[names[above]])


def _checked(
    run: Measured,
    which: str,
    rank: float,
    count: int,
    value: float | None,
    margin: float | None,
    known_by: float | None = None,
) -> Number:
    """The number, with the reason where the value or the margin is not known.

    which: percentile, "mean", or the name of a rate.
    rank: rank of the percentile; 0.5 for means and rates.
    count: requests that have the metric.
    known_by: rank whose sample size the margin needs, where it differs from `rank`.
    """
    needed = 1 if which in (*RATES, "mean") else least_samples(rank)
    few = f"{run.name} has {plural(count, 'request')}, and "
    reason = None
    if value is not None and value <= 0:
        value, reason = 0.0, f"it is 0 in {run.name}"  # a negative value is in a damaged file
    elif value is None:
        reason = f"{few}{which} needs {format_count(needed)}" if count < needed else f"{run.name} does not have it"
    elif margin is None:
        needed = least_for_margin(known_by or rank)
        if count < needed:
            reason = f"{few}a confidence interval of {which} needs {format_count(needed)}"
        else:
            reason = f"{run.name} has no margin of {which}, as it is 0 in a part of the run: give several runs"
    return Number(value, margin, reason)
