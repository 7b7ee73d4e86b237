"""The rate at which the share of bad requests reaches the allowed one, estimated from many short runs together.

Near saturation a run alone decides little. All runs together show more: run i at rate λ_i has a share q_i bad and
effective sample size N_i.

**Law.** A share f is bad at any rate, as the service alone takes too long. Of the others, the log-odds of a bad request
are nearly a straight line in the rate around the threshold λ*, at which the allowed share p₀ is bad:

    p(λ) = f + (1 − f)·e(λ)        logit e(λ) = logit e(λ*) + s·(λ − λ*)/λ*        f + (1 − f)·e(λ*) = p₀

    s = c·ln(1/p₀)·ρ/(1 − ρ),  ρ = λ*/X

X: the highest throughput. For M/M/1 ln p = −(μ − λ)b is straight in λ, with c = 1 and f near 0; c is 0.5 to 1.7 for
M/M/2 to M/M/8, M/D/1 and processor sharing, p₀ = 1 %, at loads of 0.5 to 0.95. A line in −ln(1 − λ/X) instead is up to
five times further from these (benchmarks/capacity.py has the queues). Away from λ* the line bends: a run at distance
δ = (λ_i − λ*)/λ* is off it with an assumed standard deviation of 2sδ², at most half of sδ.

**Estimate.** The posterior of λ* over a grid, with the binomial likelihood Π p_i^(N_i q_i) (1 − p_i)^(N_i (1 − q_i)),
p_i = p(λ_i). A closed loop with one request in flight is a run at the rate 0, which knows f. The prior of ln λ* is
Laplace around the expected rate, mixed with a uniform one over the whole range, so that an expectation that is far off
is overruled by the first runs. That of ln c is Laplace around 0 with scale 0.5, f is 0 or any part of
p₀. Results are the median and the 95 % interval of λ*. Psychologists find a threshold of perception in few trials in
this way, the next trial at the median (Watson and Pelli, QUEST: a Bayesian adaptive psychometric method, 1983). Nothing
diverges if all runs are good, or all bad.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Grid = npt.NDArray[np.float64]

_RATES = 400
_FLOORS = np.array([0.0, 0.15, 0.3, 0.45, 0.6, 0.7, 0.8, 0.88, 0.94, 0.98])  # f/p₀
_NO_FLOOR = 0.5  # prior probability of f = 0
_BENDS = np.linspace(-2.4, 2.4, 25)  # ln c
_SLOPE_SCALE = 0.5
_UNIFORM = 0.2  # share of the uniform prior
_BEND, _MOST_BEND = 2.0, 0.5
_MOST_LOAD = 0.98  # ρ in s, beyond which the law has no meaning
_TAIL = 0.025
_TRUST = 0.75  # part of the effective sample sizes that counts, as they are estimated themselves
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
    floor: share f that is bad at any rate.
    allowed: share p₀ that may be bad.
    bounded_below, bounded_above: the runs bound that end, not the prior or the range of rates: with the threshold at
        the end of the range they are less likely by e^1.92 for every slope and floor (likelihood ratio, 95 %).
    """

    rate: float
    low: float
    high: float
    slope: float
    floor: float
    allowed: float
    bounded_below: bool
    bounded_above: bool

    @property
    def error(self) -> float:
        """Half the interval's width over the rate."""
        return (self.high - self.low) / (2 * self.rate)

    def share_at(self, rate: float) -> float:
        """The expected share of bad requests."""
        line = log_odds((self.allowed - self.floor) / (1 - self.floor)) + self.slope * (rate / self.rate - 1)
        return self.floor + (1 - self.floor) / (1 + math.exp(-max(min(line, 30.0), -30.0)))


def estimate(
    seen: Sequence[Seen],
    allowed: float,
    expected: float,
    spread: float,
    least: float,
    most: float,
    throughput: float,
) -> Estimate:
    """The threshold of an objective.

    expected: rate around which the prior is centred.
    spread: scale of the prior of ln λ*.
    least, most: range of rates.
    throughput: highest measured throughput (X).
    """
    around = allowed, least, most, throughput
    rates, slopes, floors = _grid(*around)
    of_floors = np.log(np.where(_FLOORS == 0, _NO_FLOOR, (1 - _NO_FLOOR) / (len(_FLOORS) - 1)))
    of_shapes = -np.abs(_BENDS)[None, :, None] / _SLOPE_SCALE + of_floors[None, None, :]
    of_runs = [_likelihood(run.rate, run.bad, *around) for run in seen]
    weights = [_TRUST * run.size for run in seen]
    for _ in range(3):  # the weight of a run depends on its distance from the threshold
        likelihood = of_shapes + sum(weight * of_run for weight, of_run in zip(weights, of_runs, strict=True))
        posterior = likelihood + _prior(rates, expected, spread)[:, None, None]
        posterior = np.exp(posterior - posterior.max())
        posterior /= posterior.sum()
        reached = np.cumsum(posterior.sum(axis=(1, 2)))
        low, median, high = (float(np.interp(q, reached, rates)) for q in (_TAIL, 0.5, 1 - _TAIL))
        slope = float((posterior.sum(axis=2) * slopes).sum())
        floor = float(posterior.sum(axis=(0, 1)) @ floors)
        weights = [_discounted(run, allowed, median, slope, floor) for run in seen]
    profile = likelihood.max(axis=(1, 2))
    excluded = profile < profile.max() - _EXCLUDED
    return Estimate(
        median,
        low,
        high,
        slope,
        floor,
        allowed,
        bounded_below=bool(excluded[0]),
        bounded_above=bool(excluded[-1]),
    )


def log_odds(share: float) -> float:
    """ln(p/(1−p))."""
    return math.log(share / (1 - share))


def _prior(rates: Grid, expected: float, spread: float) -> Grid:
    """The logarithm of the prior of each rate of the grid, which is even in ln λ."""
    laplace = np.exp(-np.abs(np.log(rates / expected)) / spread)
    prior: Grid = np.log((1 - _UNIFORM) * laplace / max(float(laplace.sum()), 1e-300) + _UNIFORM / len(rates))
    return prior


def _grid(allowed: float, least: float, most: float, throughput: float) -> tuple[Grid, Grid, Grid]:
    """(rates [rate], slopes [rate, slope], floors [floor]); the arguments are as in `estimate`."""
    rates = np.geomspace(least, most, _RATES)
    load = np.minimum(rates / throughput, _MOST_LOAD)
    return rates, (-math.log(allowed) * load / (1 - load))[:, None] * np.exp(_BENDS)[None, :], _FLOORS * allowed


@lru_cache(maxsize=32)  # 0.8 MB each: a search estimates again after each run, by all runs
def _likelihood(rate: float, bad: float, allowed: float, least: float, most: float, throughput: float) -> Grid:
    """The log-likelihood of each (rate, slope, floor) of the grid, by a request of a run at `rate`, of whose requests
    the share `bad` was."""
    rates, slopes, floors = _grid(allowed, least, most, throughput)
    at_threshold = (allowed - floors) / (1 - floors)
    odds = np.log(at_threshold / (1 - at_threshold))
    line = odds[None, None, :] + (slopes * (rate / rates - 1)[:, None])[:, :, None]
    np.maximum(line, -500.0, out=line)
    # p = f + (1 − f)e and 1 − p = (1 − f)(1 − e), with 1/e = 1 + e^−line, ln(1 − e) = −line − ln(1 + e^−line)
    whole = 1 + np.exp(-line)
    of_bad = np.log(floors + (1 - floors) / whole)
    likelihood: Grid = bad * of_bad + (1 - bad) * (np.log(1 - floors) - line - np.log(whole))
    return likelihood


def _discounted(run: Seen, allowed: float, rate: float, slope: float, floor: float) -> float:
    """The weight of a run with regard to the bend of the line: its log-odds have the variance 1/(N p(1−p)) of the
    sample plus that of the bend. A closed loop, at the rate 0, knows the floor alone, and has no bend."""
    if not run.rate:
        return _TRUST * run.size
    distance = (run.rate - rate) / rate
    expected = log_odds((allowed - floor) / (1 - floor)) + slope * distance
    share = min(max(run.bad - floor, 1 / (1 + math.exp(-min(max(expected, -30.0), 30.0))), 1e-12), 0.5)
    bend = slope * min(_BEND * distance**2, _MOST_BEND * abs(distance))
    return _TRUST * run.size / (1 + run.size * share * (1 - share) * bend**2)
