"""Margins of a run's percentiles, means and rates: relative half widths of 95 % confidence intervals; and one run's
numbers, as they are compared: each with its margin, or why it has none.

Requests in order of their due instants are divided into k sections of the same length; s_j: the number in section j,
s: in all. On a log scale, as numbers are compared by their ratio,

    margin = e^h − 1      h = t_{k−1} · √( Σ_j (ln s_j − ln s)² / (k (k−1)) )

so that the true number lies between s/(1 + margin) and s·(1 + margin). t: Student's quantile at 97.5 %. Requests are
autocorrelated (one long queue makes many late, a clock drifts), but sections much longer than that are nearly
independent (sectioning: Asmussen and Glynn, Stochastic Simulation, 2007, chapter III; of means it is the method of
batch means). k = 16 if the sections look independent, else 8 if these do, else 4: if r + 1/k < 1/(2√k), r the
autocorrelation of s_j at lag 1, which is −1/k on average for independent ones. A section must have five requests above
the percentile, five above the median for means and rates: below 2 000 requests p99 has no margin.

Sections are alike only under a steady load. Where the arrival rate changes, sections of latency, queue and throughput
differ by the schedule, and these have no margins.

`benchmarks/regressions.py` measures how often margins are wrong. The margin of one run does not cover what varies from
run to run, or more slowly than a run lasts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from loadtrt.records.histogram import QUANTILE_ERROR
from loadtrt.records.records import METRICS
from loadtrt.results.breakdown import PERCENTILES
from loadtrt.units import format_count, plural

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from loadtrt.records.histogram import Histogram
    from loadtrt.records.records import Records
    from loadtrt.results.breakdown import MetricSummary

    Numbers = npt.NDArray[np.float64]

RATES = ("throughput", "inferences")
OF_DUE = tuple(metric.name for metric in METRICS if metric.of_unserved)  # from the instant a request was due
_STUDENT = {16: 2.131, 8: 2.365, 4: 3.182}  # t at 97.5 % by the number of sections
_BEYOND = 5
_MEAN = "mean"
_CONFIDENCE = 0.99


def least_samples(rank: float) -> int:
    """The fewest samples whose maximum bounds the quantile from above with 99 % confidence.

    n ≥ ln(1 − c) / ln q, since P(all n samples lie below the q-quantile) = q^n. c: confidence, q: rank in (0, 1).
    44 for p90, 459 for p99, 4603 for p99.9. Source: MLPerf LoadGen's early stopping with no sample above.
    """
    return math.ceil(math.log(1 - _CONFIDENCE) / math.log(rank))


def least_for_margin(rank: float) -> int:
    """How many requests a percentile's margin needs; 0.5 for means and rates."""
    return math.ceil(round(4 * _BEYOND / (1 - rank), 6))


def margins(values: npt.NDArray[np.int64], ranks: Mapping[str, float]) -> dict[str, float]:
    """Margins of percentiles, by the names of `ranks`, and of the "mean", as far as the sample supports them.

    values: int [n], in order of due instants. A number that is 0 in a section has no margin.
    """
    whole = values[: len(values) // 16 * 16]
    if not len(whole):
        return {}
    numbers: dict[str, dict[int, Numbers]] = {name: {} for name in (*ranks, _MEAN)}
    parts = whole
    for k in (*_STUDENT, 1):  # merging sorted sections is cheaper than sorting again
        numbers[_MEAN][k] = whole.reshape(k, -1).mean(axis=1)
        parts = np.sort(parts.reshape(k, -1), axis=1, kind="stable")
        for name, rank in ranks.items():
            numbers[name][k] = parts[:, math.ceil(rank * parts.shape[1]) - 1].astype(np.float64)
    halves = {name: _half({**ranks, _MEAN: 0.5}[name], len(values), sections) for name, sections in numbers.items()}
    return {name: math.expm1(half) for name, half in halves.items() if half is not None}


def rate_margin(records: Records) -> float | None:
    """The margin of served requests a second: that of the mean gap from one completion to the next."""
    completed = np.sort(records.ok.completed)
    return margins(completed[1:] - completed[:-1], {}).get(_MEAN)


def _half(rank: float, count: int, sections: Mapping[int, Numbers]) -> float | None:
    """h of a number, from its values in k sections; in one section it is the number of all."""
    supported = [k for k in _STUDENT if round(count * (1 - rank), 6) >= k * _BEYOND]
    if not supported or min(map(np.min, sections.values())) <= 0:
        return None
    apart = {k: np.log(sections[k] / sections[1]) for k in supported}
    k = next((k for k in supported if _independent(apart[k])), supported[-1])
    return _STUDENT[k] * math.sqrt(float(apart[k] @ apart[k]) / (k * (k - 1)))


def _independent(numbers: Numbers) -> bool:
    """Whether neighbouring sections have no significant autocorrelation."""
    k, around = len(numbers), numbers - numbers.mean()
    square = float(around @ around)
    return not square or float(around[1:] @ around[:-1]) / square + 1 / k < 0.5 / math.sqrt(k)


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
