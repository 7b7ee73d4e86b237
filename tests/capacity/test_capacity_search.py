"""The search for capacity, without any engine: what it asks for and concludes, on laws that are known."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.queues import Waiting, erlang_c, markov_tail
from loadtrt.asked.objective import parse_objective
from loadtrt.capacity.search import CONFIRM_TIMES, MOST_CONFIRMS, MOST_REFUTES, Outcome, Search, Share, Step
from loadtrt.capacity.threshold import Seen, estimate, log_odds
from loadtrt.stats.verdict import LEAST_MET, share_interval

if TYPE_CHECKING:
    from collections.abc import Callable

TRIAL_S = 10.0
P99 = parse_objective("latency.p99 < 10ms")
ALLOWED = 0.01


def logistic(threshold: float, slope: float) -> Callable[[float], float]:
    """The share of bad requests at a rate: 1 % at the threshold, log-odds in a straight line."""

    def share(rate: float) -> float:
        odds = log_odds(ALLOWED) + slope * (rate / threshold - 1)
        return 1 / (1 + math.exp(-min(max(odds, -700.0), 700.0)))

    return share


def verdict(bad: float, size: float, allowed: float = ALLOWED) -> Share:
    low, high = share_interval(bad, size)
    if high <= allowed and size >= LEAST_MET:
        return Share(bad, size, "met")
    return Share(bad, size, "missed" if low > allowed else "undecided")


@dataclass
class World:
    """Runs whose requests are bad by a law, each worth `size` independent ones for a trial's length."""

    share: Callable[[float], float]
    size: float
    seed: int
    host_limit: float = math.inf

    def run(self, step: Step) -> Outcome:
        random = np.random.default_rng([self.seed, round(step.rate * 1e6), round(step.seconds)])
        size = self.size * step.seconds / TRIAL_S
        count = max(round(size), 1)
        bad = random.binomial(count, self.share(step.rate)) / count
        return Outcome(step, (verdict(bad, size),), step.rate > self.host_limit)


def search(start: float = 700.0, throughput: float = 1000.0, max_trials: int = 6, longest_s: float = TRIAL_S) -> Search:
    return Search([P99], start, throughput, 0.03, max_trials, TRIAL_S, longest_s)


def driven(one: Search, world: World) -> Search:
    """To the end, which must come."""
    for _ in range(30):
        step = one.next()
        if step is None:
            return one
        one.record(world.run(step))
    raise AssertionError(f"no end after {one.outcomes}")


def runs(one: Search, kind: str) -> list[Outcome]:
    return [each for each in one.outcomes if each.step.kind == kind]


@pytest.mark.parametrize("start", [500.0, 850.0, 1000.0])
@pytest.mark.parametrize("slope", [15.0, 30.0])
def test_a_smooth_threshold_is_found_and_confirmed(start: float, slope: float) -> None:
    """Over 20 seeds, half the interval at most 3 %: the estimate is within 3 % of the threshold in all but one, no rate
    above the threshold is confirmed, and there are six trials at most."""
    found = [driven(search(start), World(logistic(800, slope), 2000, seed)) for seed in range(20)]
    errors = sorted(abs(each.binding[1].rate / 800 - 1) for each in found)
    assert errors[-2] < 0.03
    assert all(each.answer == "found" for each in found)
    assert all(720 < (each.confirmed or 0) <= 800 for each in found)
    assert max(len(runs(each, "search")) for each in found) <= 6
    assert {each.boundary for each in found} == {"smooth"}


def test_a_confirming_run_is_longer() -> None:
    """Five times as long as a trial, as one that refutes may be."""
    one = driven(search(), World(logistic(800, 20), 2000, 1))
    assert {each.step.seconds for each in runs(one, "search")} == {TRIAL_S}
    assert {each.step.seconds for each in runs(one, "confirm")} == {CONFIRM_TIMES * TRIAL_S}
    assert {each.step.seconds for each in runs(one, "refute")} == {CONFIRM_TIMES * TRIAL_S}


@pytest.mark.parametrize("slope", [15.0, 30.0])
def test_a_failing_rate_is_published_beside_the_confirmed_one(slope: float) -> None:
    """Over 20 seeds: a run missed, at most 10 % above the threshold and never below it, in three runs more at most; the
    answer stays what it was."""
    found = [driven(search(), World(logistic(800, slope), 2000, seed)) for seed in range(20)]
    assert all(each.answer == "found" for each in found)
    assert all(800 < (each.infeasible_min or 0) <= 880 for each in found)
    assert max(len(runs(each, "refute")) for each in found) <= MOST_REFUTES


def test_a_generator_that_fails_above_the_capacity_changes_no_answer() -> None:
    """The refuting run is host-bound: nothing is missed, and what was confirmed stays confirmed."""
    one, world = search(), World(logistic(800, 20), 2000, 1)
    while (step := one.next()) is not None:
        one.record(world.run(step)._replace(host_bound=step.kind == "refute"))
    assert (one.answer, one.infeasible_min, one.host_bound) == ("found", None, None)
    assert len(runs(one, "refute")) == 1


@pytest.mark.parametrize(("objective", "most"), [("compute.p99 < 10ms", 1000.4), ("latency.p99 < 10ms", 1050.42)])
def test_no_rate_is_above_what_the_engine_serves(objective: str, most: float) -> None:
    """Where nothing is ever bad: 5 % above, as a closed loop may be short of it and a queue would tell; no more than
    it where no queue makes the metric longer. What is written in four digits is not tried again for the fifth."""
    one = Search([parse_objective(objective)], 900.0, 1000.4, 0.03, 6, TRIAL_S, TRIAL_S)
    driven(one, World(lambda _: 0.0, 2000, 1))
    assert one.answer == "found"
    assert max(each.step.rate for each in one.outcomes) <= most
    assert one.binding[1].rate <= most
    assert len({each.step.rate for each in runs(one, "refute")}) == len(runs(one, "refute"))


def test_trials_last_until_they_are_worth_something() -> None:
    """Runs of 10 s worth 20 (N₁ of 45): the next last until 150 can be expected, 10 s to 60 s; where all are worth
    thousands, all last 10 s, and the first of few requests lasts until 3 000 are due."""
    few = driven(search(longest_s=60.0), World(logistic(800, 20), 20, 1))
    assert runs(few, "search")[0].step.seconds == TRIAL_S
    assert all(20 < each.step.seconds <= 60 for each in runs(few, "search")[1:])
    many = driven(search(longest_s=60.0), World(logistic(800, 20), 5000, 1))
    assert {each.step.seconds for each in runs(many, "search")} == {TRIAL_S}
    for rate, seconds in ((100.0, 30.0), (10.0, 60.0)):
        step = search(start=rate, longest_s=60.0).next()
        assert step is not None
        assert step.seconds == seconds


def test_a_cliff_is_bracketed_within_the_precision() -> None:
    """All good up to 800/s, all bad above: feasible_max and infeasible_min enclose it, and it is told for a cliff."""
    one = driven(search(max_trials=12), World(lambda rate: float(rate > 800), 2000, 1))
    assert one.answer == "found"
    assert one.feasible_max is not None
    assert one.infeasible_min is not None
    assert one.feasible_max <= 800 < one.infeasible_min <= one.feasible_max * 1.06
    assert one.boundary == "cliff"
    assert one.feasible_max <= one.between(one.binding[1].rate) <= one.infeasible_min


def test_what_no_rate_meets_is_infeasible() -> None:
    """Half of all requests bad at any rate: rates fall to a hundredth of the throughput, and then it is said."""
    one = driven(search(), World(lambda _: 0.5, 2000, 1))
    assert one.answer == "infeasible"
    assert min(each.step.rate for each in one.outcomes) <= 15
    assert one.confirmed is None
    assert one.feasible_max is None


def test_what_every_rate_meets_is_met_at_the_greatest_throughput() -> None:
    """Nothing bounds the estimate from above, and it does not claim so; no run is asked for above what is served."""
    one = driven(search(), World(lambda _: 0.0, 5000, 1))
    assert one.answer == "found"
    assert (one.confirmed or 0) > 950
    assert not one.binding[1].bounded_above
    assert one.infeasible_min is None
    assert max(each.step.rate for each in one.outcomes) <= 1050


def test_too_few_requests_decide_nothing_and_it_says_so() -> None:
    """Runs worth 20 requests at any rate: no verdict is possible. It looks at lower rates, where queues forget faster
    and requests are worth more, sees that they are not, and ends; the interval is wide."""
    one = driven(search(), World(logistic(800, 20), 20, 1))
    rates = [each.step.rate for each in runs(one, "confirm")]
    assert one.answer == "undecided"
    assert one.confirmed is None
    assert rates == sorted(rates, reverse=True)
    assert len(rates) < MOST_CONFIRMS
    assert one.binding[1].error > 0.03


def test_few_requests_confirm_a_rate_that_they_can_tell() -> None:
    """Runs worth 2 000·(1 − √ρ)², as of queues: at the threshold of 800/s one is worth 22, and five times as much tells
    nothing. So a rate far below is confirmed, where it is worth enough, and the estimate stands beside it."""
    one = search()
    for _ in range(20):
        if (step := one.next()) is None:
            break
        world = World(logistic(800, 20), 2000 * (1 - math.sqrt(min(step.rate / 1000, 0.98))) ** 2, 1)
        one.record(world.run(step))
    assert one.answer == "found"
    assert 400 < (one.confirmed or 0) < 700
    assert one.binding[1].rate == pytest.approx(800, rel=0.15)


def test_bad_luck_steps_down_and_then_gives_up() -> None:
    """Confirming runs that stay undecided go down, by 2 % each at least, and there are MOST_CONFIRMS of them."""
    one = search()
    world = World(logistic(800, 20), 2000, 1)
    while (step := one.next()) is not None:
        told = world.run(step)
        one.record(told if step.kind == "search" else Outcome(step, (Share(0.0095, 5000.0, "undecided"),)))
    rates = [each.step.rate for each in runs(one, "confirm")]
    assert one.answer == "undecided"
    assert len(rates) == MOST_CONFIRMS
    assert all(after <= 0.981 * before for before, after in itertools.pairwise(rates))


def test_a_missed_confirmation_is_tried_lower() -> None:
    """One run that misses although it should not have: the next is lower, meets, and is the one that counts."""
    one, world, missed = search(), World(logistic(800, 20), 2000, 1), False
    while (step := one.next()) is not None:
        told = world.run(step)
        if step.kind == "confirm" and not missed:
            missed, told = True, Outcome(step, (Share(0.02, 5000.0, "missed"),))
        one.record(told)
    first, last = runs(one, "confirm")[0], runs(one, "confirm")[-1]
    assert one.answer == "found"
    assert one.confirmed == last.step.rate <= 0.981 * first.step.rate


def test_latencies_that_are_worse_when_idle_do_not_mislead_it() -> None:
    """A device that slows down below 100/s (clocks that sleep) misses there, too: the capacity is the upper end."""
    smooth = logistic(800, 20)
    one = driven(search(600), World(lambda rate: 0.05 if rate < 100 else smooth(rate), 2000, 1))
    assert one.answer == "found"
    assert one.binding[1].rate == pytest.approx(800, rel=0.03)


def test_a_resumed_search_gives_the_same_answer() -> None:
    """The next step depends on what was told and on nothing else: at every place a fresh search that is told the same
    asks for the same."""
    whole = driven(search(), World(logistic(800, 20), 2000, 3))
    again = search()
    for told in whole.outcomes:
        assert again.next() == told.step
        again.record(told)
    assert (again.next(), again.answer, again.binding) == (None, whole.answer, whole.binding)


def test_a_generator_that_gives_up_is_no_capacity() -> None:
    """Above 500/s the generator is late: those runs say nothing, the answer says host-bound, and what was met below is
    kept."""
    one = driven(search(), World(logistic(800, 20), 2000, 1, host_limit=500))
    assert one.answer == "host-bound"
    assert one.host_bound is not None
    assert 500 < one.host_bound <= 700
    assert 300 < (one.confirmed or 0) <= 500
    assert one.feasible_max is not None
    assert one.feasible_max <= 500


def test_a_late_generator_does_not_lower_the_estimate() -> None:
    """A host that became slower after the search spoils every confirming run, at rates far below what was met: the
    answer is host-bound, and the estimate remains that of the runs that it did not spoil."""
    one, world = search(), World(logistic(800, 20), 2000, 1)
    while (step := one.next()) is not None:
        one.record(world.run(step)._replace(host_bound=step.kind == "confirm"))
    assert (one.answer, one.confirmed) == ("host-bound", None)
    assert one.host_bound is not None
    assert one.host_bound < 500
    assert one.feasible_max is not None
    assert one.feasible_max <= one.between(one.binding[1].rate) == pytest.approx(800, rel=0.03)


def test_only_spoiled_runs_end_it() -> None:
    """Where the generator is late at any rate there is no estimate at all."""
    one = driven(search(), World(logistic(800, 20), 2000, 1, host_limit=0))
    assert (one.answer, one.known, one.confirmed) == ("host-bound", False, None)


def test_of_several_objectives_the_least_binds() -> None:
    """p50 allows a half of the requests, and its threshold is higher: p99 binds; both are estimated."""
    median = parse_objective("latency.p50 < 2ms")
    one = Search([median, P99], 700, 1000, 0.03, 6, TRIAL_S, TRIAL_S)
    tail, middle = World(logistic(800, 20), 2000, 1), logistic(900, 20)
    while (step := one.next()) is not None:
        told = tail.run(step)
        odds = 1 / (1 + (1 - middle(step.rate)) / middle(step.rate) * ALLOWED / (1 - ALLOWED))
        one.record(Outcome(step, (verdict(odds, 2000 * step.seconds / TRIAL_S, 0.5), told.shares[0])))
    assert one.answer == "found"
    assert one.binding[0] == 1
    assert one.estimates[0].rate > one.estimates[1].rate == pytest.approx(800, rel=0.03)


@given(
    threshold=st.floats(0.02, 1.2),
    slope=st.floats(0.1, 200),
    size=st.floats(1, 20_000),
    start=st.floats(0.001, 2),
    scale=st.floats(1e-3, 1e6),
    host=st.floats(0.01, 10),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60)
def test_it_ends_whatever_comes(
    threshold: float, slope: float, size: float, start: float, scale: float, host: float, seed: int
) -> None:
    """On any law, of any scale: it ends, asks for rates within [1 %, 105 %] of the throughput and below those that the
    generator failed at, and all its numbers are finite."""
    one = Search([P99], start * scale, scale, 0.03, 6, TRIAL_S, TRIAL_S)
    world = World(logistic(threshold * scale, slope), max(size, 1), seed, host_limit=host * scale)
    driven(one, world)
    assert one.answer is not None
    for place, each in enumerate(one.outcomes):
        failed = [before.step.rate for before in one.outcomes[:place] if before.host_bound]
        assert failed or each.step.rate >= 0.0099 * scale
        assert each.step.rate <= 1.051 * scale
        assert not failed or each.step.rate < min(failed)
    if one.known:
        found = one.binding[1]
        assert all(math.isfinite(value) for value in (found.rate, found.low, found.high, found.slope))
        assert found.low <= found.rate <= found.high


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


def test_the_interval_holds_the_threshold() -> None:
    """Runs at rates spread by 5 % around it, 100 seeds: the 95 % interval holds it in 90 or more."""
    held = 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        seen = [
            Seen(float(rate), random.binomial(500, logistic(800, 20)(rate)) / 500, 500.0)
            for rate in 800 * random.normal(1, 0.05, 5)
        ]
        found = estimate(seen, ALLOWED, 700.0, 10.0, 1050.0, 1000.0)
        held += found.low <= 800 <= found.high
    assert held >= 90


def test_what_was_expected_is_no_interval() -> None:
    """Runs worth next to nothing bound the threshold from neither side, however narrow the prior; runs that do, do."""
    nothing = estimate([Seen(700.0, 0.0, 1.0), Seen(800.0, 0.0, 1.0)], ALLOWED, 700.0, 10.0, 1050.0, 1000.0)
    assert (nothing.bounded_below, nothing.bounded_above) == (False, False)
    good = estimate([Seen(700.0, 0.0, 2000.0)], ALLOWED, 700.0, 10.0, 1050.0, 1000.0)
    assert (good.bounded_below, good.bounded_above) == (True, False)
    bad = estimate([Seen(700.0, 0.2, 2000.0)], ALLOWED, 700.0, 10.0, 1050.0, 1000.0)
    assert (bad.bounded_below, bad.bounded_above) == (False, True)


def test_what_was_expected_moves_no_estimate_that_is_known_well() -> None:
    """The prior pulls by σ²/0.2: from 30 % below to 30 % above, what is known within 3 % moves by less than 1 %."""
    share = logistic(800, 20)
    seen = [Seen(rate, share(rate), 3000.0) for rate in (760.0, 790.0, 810.0, 830.0)]
    low, high = (estimate(seen, ALLOWED, expected, 10.0, 1050.0, 1000.0) for expected in (560.0, 1040.0))
    assert low.error < 0.03
    assert low.rate < high.rate < 1.01 * low.rate
