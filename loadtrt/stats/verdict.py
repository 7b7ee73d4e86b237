"""The verdict on an objective (SLO), from a confidence interval that allows for autocorrelation.

Of n requests a share p̂ is bad: the metric is above its bound, the request failed, or it was never served. If requests
were independent, the binomial law would bound the true share p. They are not: one long queue makes many late, so that
near saturation n requests are worth n/τ independent ones, and the binomial law certifies what is not true
(docs/measuring.md, Objectives).

**Effective size.** Requests in order of their due instants, in blocks of B = 1, 2, 4, … while there are 16 blocks:

    τ(x) = max over B of B·s²_B(x) / (s²(x) + d²)        N₁ = n / max(1, τ(bad), τ(v))        N = N₁·min(1, N₁/100)

s²_B: the variance of block means; B·s²_B/s² grows with B until blocks are longer than the autocorrelation (the method
of batch means; Flyvbjerg and Petersen, Error estimates on averages of correlated data, 1989). Its maximum errs to the
safe side. bad: 0 or 1, d = 0. v = min(metric, bound)/bound, 1 for a failed request: a queue length that fluctuates
shows there before any request is bad. d = 0.05: variations of less than a twentieth of the bound are jitter, however
slow. For drops, v is the queueing delay over the longest one; errors are not announced by any metric. Below a hundred
independent requests, blocks are too few and too short, and N₁ is too large: hence the last factor.

**Interval** of p, 95 %, by the binomial law for N requests with N·p̂ bad (Clopper and Pearson, 1934; their beta form
takes any real N): P(X ≥ N·p̂ | low) = P(X ≤ N·p̂ | high) = 2.5 %. With none bad, high = 1 − 0.025^(1/N) ≈ 3.7/N.

**Verdict**, with p₀ = 1 − rank the share that may be bad: met if high ≤ p₀ and N ≥ 150, missed if low > p₀, else
undecided. The least N for "met", the 16 blocks and d were chosen by `benchmarks/verdicts.py` and similar simulations:
with fewer, slow queues that start empty pass for fast ones. "max" (p₀ = 0) is about these requests alone: met without a
bad one and missed with one, as no sample can show that a request is never late.

**The quantile's interval** holds the values that would be neither met nor missed as a bound: the quantiles at ranks
1 − f, f the shares at which the same law turns to missed and to met, for the effective size at the quantile itself: x
in place of the bound. A run that saw few long queues takes its requests for worth more than they are, and its quantile
is too low as well; hence N²/(N + 100) requests in place of N (`benchmarks/coverage.py`). What jitter hides, such as a
clock that wanders by 1 %, makes the interval longer: to ln(end/x) comes, as the root of the sum of squares,
1.96·s·√((1 − 1/τ)/N)·d²/(s² + d²), s² the variance of v, and τ and N those of v with d = 0. The bound of an objective
lies within the interval where the shares leave it open, and outside where it is met or missed. Quantiles are exact
while all records are kept, and from histograms beyond (within 0.4 %). Requests that failed or were dropped have no
value and stand above all: a rank among them has none.

**Beyond the kept records** `good` is still exact, but the order of requests, and so N, is known of the kept ones alone.
N is not scaled up then, and the interval is the hull of the intervals at the share of the kept ones and at that of all.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.records.histogram import QUANTILE_ERROR
from loadtrt.records.records import METRICS, OK
from loadtrt.results.run_result import ObjectiveShare
from loadtrt.stats.binomial import TAIL, at_least, at_most, quantile_ranks, share_interval, surely_above
from loadtrt.stats.sample_size import least_samples
from loadtrt.units import format_count, format_duration, plural, rounded_up

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from loadtrt.asked.objective import Objective, Verdict
    from loadtrt.records.histogram import Histogram
    from loadtrt.records.records import Records

    Series = npt.NDArray[np.float64]

LEAST_MET = 150  # effective requests without which nothing is certified
_SURELY = 1e-4
NORMAL = 1.96  # the normal quantile at 1 − TAIL
BLOCKS = 16  # the fewest blocks that a variance of block means is taken from
_RESOLVED = 100  # independent requests: below it, blocks are too few and too short
_JITTER = 0.05  # of the bound
_UNSEEN = 100  # effective requests: see the quantile's interval, above
_MOST_TIMES = 1000  # times as long: nobody makes a longer run


def judge(
    objective: Objective, kept: Records, histogram: Histogram, good: int, requests: int, most_kept: int = 1 << 20
) -> ObjectiveShare:
    """The verdict on a run.

    kept: the run's records, all of them or the first.
    histogram: the metric's values, of all requests that have one.
    good: requests within the bound, of all requests.
    requests: all finished requests.
    most_kept: the most records that a run keeps.
    """
    size, share = effective_size(objective, kept), 1 - good / requests if requests else 0.0
    kept_share = float(np.mean(objective.bad(kept))) if len(kept) else share
    lows, highs = zip(*(share_interval(bad, size) for bad in {share, kept_share}), strict=True)

    def reason() -> str:
        span_ns = float(np.ptp(kept.due)) if len(kept) else 0.0
        return reason_of(objective, share, size, requests, most_kept, span_ns, beyond=requests > len(kept))

    quantile = _quantile(objective, kept, histogram, requests)
    return share_of(objective, good, requests, size, (min(lows), max(highs)), quantile, reason)


def share_of(
    objective: Objective,
    good: int,
    requests: int,
    size: float,
    interval: tuple[float, float],
    quantile: tuple[float | None, float | None, float | None],
    reason: Callable[[], str],
) -> ObjectiveShare:
    """An objective with its verdict, by the confidence interval of the share of bad requests.

    size: effective sample size.
    interval: the share's 95 % confidence interval (low, high).
    quantile: (value, low, high) of the quantile and its own interval, ns; None for what is not known.
    reason: why there is no verdict, asked for where there is none.
    """
    low, high = interval
    bad = 1 - good / requests if requests else 0.0
    verdict: Verdict = verdict_on(objective, bad, size, low, high) if requests else "undecided"
    value, value_low, value_high = quantile
    if value is not None and objective.rank < 1:
        value_low, value_high = agreeing(objective, value, value_low, value_high, low, high)
    return ObjectiveShare(
        objective=objective,
        good=good,
        requests=requests,
        value_ns=value,
        verdict=verdict,
        bad_low=low if requests else None,
        bad_high=high if requests else None,
        value_low_ns=value_low,
        value_high_ns=value_high,
        effective=size,
        reason=reason() if verdict == "undecided" else None,
    )


def effective_size(objective: Objective, records: Records) -> float:
    """Effective sample size N (see above): the number of independent requests that these are worth, in [0, n]."""
    order = np.argsort(records.due, kind="stable")
    bad = objective.bad(records)[order]
    values = METRICS[objective.metric].of(records)[order]
    bound_ns = int(values.max(initial=0)) + 1 if objective.kind == "drops" else objective.bound_ns
    moved = np.clip(values / bound_ns, 0.0, 1.0)
    moved[bad] = 1.0
    return effective_of(bad, moved)


def effective_of(above: npt.NDArray[np.bool_], moved: Series) -> float:
    """Effective sample size N of requests in the order of their due instants.

    above: whether each is above the bound, bool [n].
    moved: its metric over the bound, clipped to [0, 1]; float64 [n].
    """
    return _effective(above, correlation(moved, _JITTER)[0]) if len(above) else 0.0


def _effective(above: npt.NDArray[np.bool_], of_moved: float) -> float:
    """`effective_of`. of_moved: τ of `moved`."""
    n = len(above)
    return discounted(n / max(*correlation(above.astype(np.float64), 0.0), of_moved) if n >= BLOCKS else 1.0)


def effective_mean(values: Series) -> float:
    """Effective sample size N of a mean: that of the values themselves, in the order of due instants."""
    n = len(values)
    return discounted(float(min(n, 1)) if n < BLOCKS else n / correlation(values, 0.0)[0])


def quantile_ends(
    rank: float, value: float, above: npt.NDArray[np.bool_], moved: Series, at: Callable[[float], float | None]
) -> tuple[float | None, float | None, float]:
    """The ends of a quantile's 95 % interval, None for one that is not known; and the effective size at it.

    above, moved: as in `effective_of`, with the value for a bound.
    at: the quantile at a rank; None where it has no value.
    """
    jittered, times = correlation(moved, _JITTER, 0.0)
    size = _effective(above, jittered)
    low, high = (None if end is None else at(end) for end in interval_ranks(rank, size))
    variance = float(moved.var())
    if variance and size >= 1 and value > 0:
        slow = math.sqrt(variance * (1 - 1 / times) / discounted(len(moved) / times))
        half = NORMAL * slow * _JITTER**2 / (variance + _JITTER**2)
        if low is not None and low > 0:
            low = min(low, value * math.exp(-math.hypot(math.log(value / low), half)))
        if high is not None:
            high = max(high, value * math.exp(math.hypot(math.log(high / value), half)))
    return low, high, size


def interval_ranks(rank: float, size: float) -> tuple[float | None, float | None]:
    """Ranks of the ends of a quantile's 95 % interval, from its effective size; None for an end that is not known."""
    return quantile_ranks(rank, trusted(size))


def trusted(size: float) -> float:
    """N²/(N + 100): what is counted on of an effective size (see above)."""
    return size * size / (size + _UNSEEN)


def size_trusted_as(size: float) -> float:
    """The effective size of which that is counted on: the inverse of `trusted`."""
    return (size + math.sqrt(size * (size + 4 * _UNSEEN))) / 2


def least_bounded(rank: float) -> float:
    """The effective size from which on a quantile's interval has an upper end."""
    return size_trusted_as(math.log(TAIL) / math.log(rank))


def surely_missed(share: float, size: float, allowed: float) -> bool:
    """Whether the true share is above the allowed one at a confidence of 99.99 %, for conclusions that are final."""
    return bool(size) and share > allowed and at_least(share, size, allowed) <= _SURELY


def _quantile(
    objective: Objective, kept: Records, histogram: Histogram, requests: int
) -> tuple[float | None, float | None, float | None]:
    """The quantile of all requests and the ends of its interval, ns; None where one is not known."""
    count = histogram.count if objective.kind == "quantile" else 0
    if not count or (objective.rank < 1 and count < least_samples(objective.rank)):
        return None, None, None
    values = np.sort(METRICS[objective.metric].values(kept)) if len(kept) == requests else None

    def at(rank: float | None) -> float | None:
        if rank is None or rank > count / requests:  # the others failed or were dropped: above any value
            return None
        if values is None:
            return histogram.quantiles((rank * requests / count,))[0]
        return float(values[min(max(math.ceil(rank * requests), 1), count) - 1])

    value = at(objective.rank)
    if value is None or objective.rank == 1:
        return value, None, None
    order = np.argsort(kept.due, kind="stable")
    metric = METRICS[objective.metric].of(kept)[order]
    above = (kept.status[order] != OK) | (metric > value)
    moved = np.clip(metric / max(value, 1.0), 0.0, 1.0)
    moved[above] = 1.0
    low, high, _ = quantile_ends(objective.rank, value, above, moved, at)
    wider = 1.0 if values is not None else 1 + QUANTILE_ERROR
    return value, low and low / wider, high and high * wider


def agreeing(
    objective: Objective, value: float, low_ns: float | None, high_ns: float | None, low: float, high: float
) -> tuple[float | None, float | None]:
    """The ends of the quantile's interval, on the side of the bound that the interval [low, high] of the share says."""
    bound, allowed = float(objective.bound_ns), 1 - objective.rank
    if high <= allowed:
        return low_ns, max(bound if high_ns is None else min(high_ns, bound), value)
    if low > allowed:
        return min(bound if low_ns is None else max(low_ns, bound), value), high_ns
    return None if low_ns is None else min(low_ns, bound), None if high_ns is None else max(high_ns, bound)


def verdict_on(objective: Objective, bad: float, size: float, low: float, high: float) -> Verdict:
    """The verdict on a share of bad requests with its interval (low, high) and effective sample size."""
    if objective.rank == 1:
        return "missed" if bad else "met"
    if high <= 1 - objective.rank and size >= LEAST_MET:
        return "met"
    return "missed" if low > 1 - objective.rank else "undecided"


def verdict_by_size(objective: Objective, bad: float, size: float) -> Verdict:
    """The verdict by `share_interval`, without its ends: those are the shares at which one of these chances is TAIL."""
    allowed = 1 - objective.rank
    if objective.rank == 1 or not size:
        return verdict_on(objective, bad, size, 0.0, 1.0)
    if size >= LEAST_MET and at_most(bad, size, allowed) <= TAIL:
        return "met"
    return "missed" if surely_above(bad, size, allowed) else "undecided"


def reason_of(
    objective: Objective,
    share: float,
    size: float,
    requests: int,
    most_kept: int,
    span_ns: float = 0.0,
    *,
    beyond: bool = False,
) -> str:
    """Why the verdict is undecided, and how many requests would decide it at the same share of bad ones.

    most_kept: the most records that a run keeps.
    span_ns: from the first due instant to the last one; 0 where it is not known.
    beyond: whether this run had more than are kept.
    """
    if not requests:
        return "no request was measured"
    allowed = 1 - objective.rank
    worth = f"{plural(requests, 'request')} (effective sample size {format_count(round(size))}) do not decide it"
    if not share:
        least = max(LEAST_MET, math.ceil(math.log(TAIL) / math.log(1 - allowed)))
        worth = (
            f"none was bad, but {plural(requests, 'request')} are worth only {format_count(math.floor(size))} "
            f"independent ones (the effective sample size), and a verdict takes {format_count(least)}"
        )
    times = _times_as_long(allowed, share, size)
    if beyond or times is None or times * requests > most_kept:
        limit = f"at most {format_count(most_kept)} records are kept"
        return f"{worth}; a longer run would not help, as {limit}: use a looser or a tighter bound"
    times = rounded_up(times)
    length_ns = rounded_up(span_ns * times)
    length = f", {format_duration(length_ns)}" if length_ns else ""
    count = format_count(rounded_up(times * requests))
    return f"{worth}: about {times:g} times as many would (some {count}{length})"


def _times_as_long(allowed: float, share: float, size: float) -> float | None:
    """The least factor, within 5 %, by which a run must be longer for a verdict at the same share."""
    single = size if size >= _RESOLVED else math.sqrt(size * _RESOLVED)  # N₁
    times = 1.05
    while times <= _MOST_TIMES:
        larger = discounted(single * times)
        met = larger >= LEAST_MET and share < allowed and at_most(share, larger, allowed) <= TAIL
        if met or (share > allowed and at_least(share, larger, allowed) <= TAIL):
            return times
        times *= 1.05
    return None


def discounted(single: float) -> float:
    """N from N₁ (see above)."""
    return single * min(1.0, single / _RESOLVED)


def correlation(series: Series, *jitters: float) -> list[float]:
    """τ for each jitter: requests in a row that are worth one independent request; at least 1."""
    sums = np.concatenate(([0.0], np.cumsum(series)))
    largest, block = 0.0, 1
    while len(series) // block >= BLOCKS:
        ends = sums[::block]
        means = (ends[1:] - ends[:-1]) / block
        means -= means.mean()
        largest = max(largest, block * float(means @ means) / (len(means) - 1))
        block *= 2
    variances = [float(series.var()) + jitter**2 for jitter in jitters]
    return [max(1.0, largest / variance) if variance else 1.0 for variance in variances]
