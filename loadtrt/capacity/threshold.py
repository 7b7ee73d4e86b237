"""The rate at which the share of bad requests reaches the allowed one, estimated from many short runs together.

Near saturation the effective sample size of a run is a handful (stats/verdict.py), so that its own verdict is mostly
"undecided". All runs together show more: run i at rate λ_i has a share q_i bad and effective sample size N_i.

**Law.** ln(p/(1−p)), the log-odds of a bad request, is nearly a straight line in the rate around the threshold λ*:

    logit p(λ) = logit p₀ + s·(λ − λ*)/λ*        s = c·ln(1/p₀)·ρ/(1 − ρ),  ρ = λ*/X

p₀: the allowed share, X: the highest throughput. For M/M/1 ln p = −(μ − λ)b is straight in λ, with c = 1; c is 0.5 to
1.7 for M/M/2 to M/M/8, M/D/1 and processor sharing, p₀ = 1 %, at loads of 0.5 to 0.95 (where the bound is not that of
the service time itself). A line in −ln(1 − λ/X) instead is up to five times further from these (benchmarks/capacity.py
has the queues). Away from λ* the line bends: a run at distance δ = (λ_i − λ*)/λ* is off it with an assumed standard
deviation of 2sδ², at most half of sδ.

**Estimate.** The posterior of λ* over a grid, with the binomial likelihood Π p_i^(N_i q_i) (1 − p_i)^(N_i (1 − q_i)),
p_i = p(λ_i). The prior of ln λ* is Laplace around the expected rate, with scale 0.2 (which moves an estimate that is
known within 3 % by 0.1 % at most), and that of ln c around 0 with scale 0.5. Results are the median and the 95 %
interval of λ*. Psychologists find a threshold of perception in few trials in this way, the next trial at the median
(Watson and Pelli, QUEST: a Bayesian adaptive psychometric method, 1983). Nothing diverges if all runs are good, or all
bad.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Grid = npt.NDArray[np.float64]

_RATES, _SLOPES = 400, 41
_SLOPE_RANGE = 3.0  # range of ln c: ±
_SLOPE_SCALE, _RATE_SCALE = 0.5, 0.2
_BEND, _MOST_BEND = 2.0, 0.5
_MOST_LOAD = 0.98  # ρ in s, beyond which the law has no meaning
_TAIL = 0.025
_EXCLUDED = 1.92  # half of χ² with one degree of freedom at 95 %


class Seen(NamedTuple):
    """A run. rate: arrivals, requests per second; bad: share of bad requests; size: effective sample size."""

    rate: float
    bad: float
    size: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """The estimated threshold, requests per second.

    rate: median.
    low, high: 95 % interval.
    slope: slope s of the log-odds at the threshold.
    bounded_below, bounded_above: the runs bound that end, not the prior or the range of rates: with the threshold at
        the end of the range they are less likely by e^1.92 for every slope (likelihood ratio, 95 %).
    """

    rate: float
    low: float
    high: float
    slope: float
    bounded_below: bool
    bounded_above: bool

    @property
    def error(self) -> float:
        """Half the interval's width over the rate."""
        return (self.high - self.low) / (2 * self.rate)


def estimate(
    seen: Sequence[Seen], allowed: float, expected: float, least: float, most: float, throughput: float
) -> Estimate:
    """The threshold of an objective.

    expected: rate around which the prior is centred.
    least, most: range of rates.
    throughput: highest measured throughput (X).
    """
    rates = np.geomspace(least, most, _RATES)
    bends = np.linspace(-_SLOPE_RANGE, _SLOPE_RANGE, _SLOPES)
    load = np.minimum(rates / throughput, _MOST_LOAD)
    slopes = (-math.log(allowed) * load / (1 - load))[:, None] * np.exp(bends)[None, :]
    of_slopes = -np.abs(bends)[None, :] / _SLOPE_SCALE
    of_rates = -np.abs(np.log(rates / expected))[:, None] / _RATE_SCALE
    weights = [run.size for run in seen]
    for _ in range(3):  # the weight of a run depends on its distance from the threshold
        likelihood = _likelihood(seen, weights, allowed, rates, slopes) + of_slopes
        posterior = np.exp(likelihood + of_rates - (likelihood + of_rates).max())
        posterior /= posterior.sum()
        reached = np.cumsum(posterior.sum(axis=1))
        low, median, high = (float(np.interp(q, reached, rates)) for q in (_TAIL, 0.5, 1 - _TAIL))
        slope = float((posterior * slopes).sum())
        weights = [_discounted(run, allowed, median, slope) for run in seen]
    profile = likelihood.max(axis=1)
    excluded = profile < profile.max() - _EXCLUDED
    return Estimate(median, low, high, slope, bounded_below=bool(excluded[0]), bounded_above=bool(excluded[-1]))


def log_odds(share: float) -> float:
    """ln(p/(1−p))."""
    return math.log(share / (1 - share))


def _likelihood(seen: Sequence[Seen], weights: Sequence[float], allowed: float, rates: Grid, slopes: Grid) -> Grid:
    """The log-likelihood of each (rate, slope) of the grid."""
    total = np.zeros_like(slopes)
    for run, weight in zip(seen, weights, strict=True):
        line = log_odds(allowed) + slopes * (run.rate / rates - 1)[:, None]
        # ln p = −ln(1 + e^−line), ln(1 − p) = −ln(1 + e^line), without overflow
        total -= weight * (run.bad * np.logaddexp(0, -line) + (1 - run.bad) * np.logaddexp(0, line))
    return total


def _discounted(run: Seen, allowed: float, rate: float, slope: float) -> float:
    """The weight of a run with regard to the bend of the line: its log-odds have the variance 1/(N p(1−p)) of the
    sample plus that of the bend."""
    distance = (run.rate - rate) / rate
    expected = log_odds(allowed) + slope * distance
    share = min(max(run.bad, 1 / (1 + math.exp(-min(max(expected, -30.0), 30.0))), 1e-12), 0.5)
    bend = slope * min(_BEND * distance**2, _MOST_BEND * abs(distance))
    return run.size / (1 + run.size * share * (1 - share) * bend**2)
