"""The law of late requests around the threshold, and the threshold's estimate from many runs together."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.queues import Waiting, erlang_c, markov_tail
from capacity_worlds import ALLOWED, THROUGHPUT, logistic
from loadtrt.sizing.threshold import Estimate, Seen, estimate, log_odds


def of(seen: list[Seen], expected: float = 700.0, spread: float = 0.3) -> Estimate:
    return estimate(seen, ALLOWED, expected, spread, 10.0, 1050.0, THROUGHPUT)


@pytest.mark.parametrize("load", [0.7, 0.85, 0.95])
@pytest.mark.parametrize("servers", [1, 2, 4])
def test_log_odds_are_nearly_straight_around_the_threshold(servers: int, load: float) -> None:
    """M/M/c: within 5 % of the threshold the log-odds of a late request are off their tangent by 3sδ² at most, and
    their slope is ln(1/p₀)·ρ/(1 − ρ) within a factor of three (threshold.py says what this is for)."""

    def odds(rate: float, t: float) -> float:
        return log_odds(markov_tail(t, Waiting(erlang_c(servers, rate), 1 / (servers - rate)), 1.0))

    capacity, low, high = load * servers, 0.1, 1000.0
    while high - low > 1e-9:
        bound = (low + high) / 2
        low, high = (bound, high) if odds(capacity, bound) > log_odds(ALLOWED) else (low, bound)
    step = 1e-4
    slope = (odds(capacity * (1 + step), low) - odds(capacity * (1 - step), low)) / (2 * step)
    assert 1 / 3 < slope / (-math.log(ALLOWED) * load / (1 - load)) < 3
    for distance in (-0.05, -0.02, 0.02, 0.04):
        off = odds(capacity * (1 + distance), low) - log_odds(ALLOWED) - slope * distance
        assert abs(off) <= 3 * slope * distance**2


@pytest.mark.parametrize("floor", [0.0, 0.008])
def test_the_interval_holds_the_threshold(floor: float) -> None:
    """Runs at rates spread by 5 % around it, 60 seeds: the 95 % interval holds it in nine of ten or more, whether or
    not a share of requests is bad at any rate."""
    held, law = 0, logistic(800, 20, floor)
    for seed in range(60):
        random = np.random.default_rng(seed)
        seen = [
            Seen(float(rate), random.binomial(500, law(rate)) / 500, 500.0) for rate in 800 * random.normal(1, 0.05, 5)
        ]
        found = of(seen)
        held += found.low <= 800 <= found.high
    assert held >= 54


def test_a_floor_that_is_known_is_found() -> None:
    """A closed loop with one request in flight knows which share is bad at any rate: the floor is within a tenth of the
    allowed share; and it bounds the threshold from below, as far as the law is one."""
    law = logistic(800, 20, 0.006)
    seen = [Seen(rate, law(rate), 5000.0) for rate in (740.0, 780.0, 820.0)]
    found = of([*seen, Seen(0.0, 0.006, 50_000.0)])
    assert found.floor == pytest.approx(0.006, abs=0.1 * ALLOWED)
    assert found.rate == pytest.approx(800, rel=0.02)
    assert found.share_at(found.rate) == pytest.approx(ALLOWED, rel=1e-6)
    assert found.share_at(1.0) == pytest.approx(found.floor, abs=0.01 * ALLOWED)


def test_what_was_expected_is_no_interval() -> None:
    """Runs worth next to nothing bound the threshold from neither side, however narrow the prior; runs that do, do."""
    for spread in (0.02, 0.3):
        nothing = of([Seen(700.0, 0.0, 1.0), Seen(800.0, 0.0, 1.0)], spread=spread)
        assert (nothing.bounded_below, nothing.bounded_above) == (False, False)
        good = of([Seen(700.0, 0.0, 2000.0)], spread=spread)
        assert (good.bounded_below, good.bounded_above) == (True, False)
        bad = of([Seen(700.0, 0.2, 2000.0)], spread=spread)
        assert (bad.bounded_below, bad.bounded_above) == (False, True)


def test_what_was_expected_moves_no_estimate_that_is_known_well() -> None:
    """From 30 % below to 30 % above, what is known within 3 % moves by less than 1 %."""
    share = logistic(800, 20)
    seen = [Seen(rate, share(rate), 3000.0) for rate in (760.0, 790.0, 810.0, 830.0)]
    low, high = (of(seen, expected) for expected in (560.0, 1040.0))
    assert low.error < 0.03
    assert low.rate <= high.rate < 1.01 * low.rate


def test_an_expectation_that_is_far_off_is_overruled() -> None:
    """However narrow the prior around it: two runs that say otherwise move the estimate to where they are."""
    share = logistic(800, 20)
    seen = [Seen(rate, share(rate), 3000.0) for rate in (760.0, 830.0)]
    for expected in (30.0, 300.0, 1040.0):
        assert of(seen, expected, spread=0.02).rate == pytest.approx(800, rel=0.05)
