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

**The quantile's interval** holds every value that would be neither met nor missed as a bound: the quantiles at ranks
1 − f, f the shares at which the same law turns to missed and to met (from histograms: within 0.4 %; the quantile
itself is exact while all records are kept). Requests that failed or were dropped have no value and stand above all: a
rank among them has none.

**Beyond the kept records** `good` is still exact, but the order of requests, and so N, is known of the kept ones alone.
N is not scaled up then, and the interval is the hull of the intervals at the share of the kept ones and at that of all.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.records.records import METRICS
from loadtrt.results.run_result import ObjectiveShare
from loadtrt.stats.margin import least_samples
from loadtrt.units import format_count, format_duration, plural

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from loadtrt.asked.objective import Objective, Verdict
    from loadtrt.records.histogram import Histogram
    from loadtrt.records.records import Records

    Series = npt.NDArray[np.float64]

LEAST_MET = 150  # effective requests without which nothing is certified
TAIL = 0.025  # probability beyond each end of the interval
_BLOCKS = 16  # the fewest blocks that a variance of block means is taken from
_RESOLVED = 100  # independent requests: below it, blocks are too few and too short
_JITTER = 0.05  # of the bound
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
    low, high = min(lows), max(highs)
    verdict = _verdict(objective, good, requests, low, high, size)
    reason = _reason(objective, kept, share, size, requests, most_kept) if verdict == "undecided" else None
    count = histogram.count if objective.kind == "quantile" else 0
    supported = bool(count) and (objective.rank == 1 or count >= least_samples(objective.rank))
    ranks = quantile_ranks(objective.rank, size) if supported and objective.rank < 1 else (None, None)
    valued = count / requests if requests else 0.0  # the others failed or were dropped: above any value
    value, value_low, value_high = (
        histogram.quantiles((rank / valued,))[0] if supported and rank is not None and rank <= valued else None
        for rank in (objective.rank, *ranks)
    )
    if value is not None and len(kept) == requests:  # exact, as in the table of percentiles
        place = min(math.ceil(objective.rank * requests), count) - 1
        value = float(np.partition(METRICS[objective.metric].values(kept), place)[place])
        value_low = None if value_low is None else min(value_low, value)
        value_high = None if value_high is None else max(value_high, value)
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
        reason=reason,
    )


def effective_size(objective: Objective, records: Records) -> float:
    """Effective sample size N (see above): the number of independent requests that these are worth, in [0, n]."""
    n = len(records)
    if n < _BLOCKS:
        return discounted(float(min(n, 1)))
    order = np.argsort(records.due, kind="stable")
    bad = objective.bad(records)[order]
    values = METRICS[objective.metric].of(records)[order]
    bound_ns = int(values.max(initial=0)) + 1 if objective.kind == "drops" else objective.bound_ns
    moved = np.clip(values / bound_ns, 0.0, 1.0)
    moved[bad] = 1.0
    return discounted(n / max(_correlation(bad.astype(np.float64), 0.0), _correlation(moved, _JITTER)))


def share_interval(share: float, size: float) -> tuple[float, float]:
    """95 % confidence interval (low, high) of the true share, from the share among `size` independent requests."""
    if not size:
        return 0.0, 1.0
    low = _root(lambda p: at_least(share, size, p) - TAIL) if share > 0 else 0.0
    high = _root(lambda p: TAIL - _at_most(share, size, p)) if share < 1 else 1.0
    return low, high


def quantile_ranks(rank: float, size: float) -> tuple[float | None, float | None]:
    """Ranks of the sample between which the true quantile lies, 95 %; None on a side that `size` does not bound."""
    allowed = 1 - rank
    low = high = None
    if size and at_least(1.0, size, allowed) <= TAIL:
        low = 1 - _root(lambda f: TAIL - at_least(f, size, allowed))
    if size and _at_most(0.0, size, allowed) <= TAIL:
        high = 1 - _root(lambda f: _at_most(f, size, allowed) - TAIL)
    return low, high


def _verdict(objective: Objective, good: int, requests: int, low: float, high: float, size: float) -> Verdict:
    if not requests:
        return "undecided"
    if objective.rank == 1:
        return "met" if good == requests else "missed"
    if high <= 1 - objective.rank and size >= LEAST_MET:
        return "met"
    return "missed" if low > 1 - objective.rank else "undecided"


def _reason(objective: Objective, kept: Records, share: float, size: float, requests: int, most_kept: int) -> str:
    """Why the verdict is undecided, and how many requests would decide it at the same share of bad ones."""
    if not requests:
        return "no request was measured"
    worth = f"{plural(requests, 'request')} (effective sample size {format_count(round(size))}) do not decide it"
    times = _times_as_long(1 - objective.rank, share, size)
    if requests > len(kept) or times is None or times * requests > most_kept:
        limit = f"at most {format_count(most_kept)} records are kept"
        return f"{worth}, and a longer run would not, as {limit}: use a looser or a tighter bound"
    length_ns = float(np.ptp(kept.due)) * times
    length = f", {format_duration(length_ns)}" if length_ns else ""
    return f"{worth}: about {times:.1f} times as many would (some {format_count(_rounded(times * requests))}{length})"


def _times_as_long(allowed: float, share: float, size: float) -> float | None:
    """The least factor, within 5 %, by which a run must be longer for a verdict at the same share."""
    single = size if size >= _RESOLVED else math.sqrt(size * _RESOLVED)  # N₁
    times = 1.05
    while times <= _MOST_TIMES:
        larger = discounted(single * times)
        met = larger >= LEAST_MET and share < allowed and _at_most(share, larger, allowed) <= TAIL
        if met or (share > allowed and at_least(share, larger, allowed) <= TAIL):
            return times
        times *= 1.05
    return None


def _rounded(count: float) -> int:
    """Two significant digits: it is an estimate."""
    unit: int = 10 ** max(math.floor(math.log10(count)) - 1, 0)
    return round(count / unit) * unit


def discounted(single: float) -> float:
    """N from N₁ (see above)."""
    return single * min(1.0, single / _RESOLVED)


def _correlation(series: Series, jitter: float) -> float:
    """τ: requests in a row that are worth one independent request; at least 1."""
    variance = float(series.var()) + jitter**2
    if not variance:
        return 1.0
    sums = np.concatenate(([0.0], np.cumsum(series)))
    longest, block = 1.0, 1
    while len(series) // block >= _BLOCKS:
        means = np.diff(sums[::block]) / block
        longest = max(longest, block * float(means.var(ddof=1)) / variance)
        block *= 2
    return longest


def at_least(share: float, size: float, p: float) -> float:
    """P(X ≥ size·share), X binomial(size, p)."""
    return beta(size * share, size * (1 - share) + 1, p) if size * share else 1.0


def _at_most(share: float, size: float, p: float) -> float:
    """P(X ≤ size·share), X binomial(size, p)."""
    return beta(size * (1 - share), size * share + 1, 1 - p) if size * (1 - share) else 1.0


def _root(rising: Callable[[float], float]) -> float:
    """Where in [0, 1] a rising function passes 0, by bisection."""
    low, high = 0.0, 1.0
    while high - low > 1e-12 + 1e-6 * low:
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2


def beta(a: float, b: float, x: float) -> float:
    """The regularized incomplete beta function I_x(a, b), a and b > 0, by its continued fraction (Lentz's method).

    I_x(a, b) = x^a (1 − x)^b / (a B(a, b)) · 1/(1 + d₁/(1 + d₂/(1 + …))), DLMF 8.17.22; converges fast for
    x < (a + 1)/(a + b + 2), else I_x(a, b) = 1 − I_{1−x}(b, a).
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - beta(b, a, 1 - x)
    scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    c, d = 1.0, 1.0 / (1 - (a + b) * x / (a + 1))
    value, m, change = d, 0, 0.0
    while abs(change - 1) > 1e-10:
        m += 1
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / (1 + term * d)
            c = 1 + term / c
            change = c * d
            value *= change
    return math.exp(scale) * value / a


def student_chance(t: float, freedom: float) -> float:
    """P(|T| > t) for Student's T with ν real degrees of freedom: I_x(ν/2, 1/2), x = ν/(ν + t²)."""
    return beta(freedom / 2, 0.5, freedom / (freedom + t * t))
