"""The search for capacity, without any engine: what it asks for and concludes, on laws that are known."""

from __future__ import annotations

import itertools
import math
from functools import cache
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capacity_worlds import ALLOWED, P99, THROUGHPUT, World, driven, judged, logistic, of_a_queue, runs, search, spent_s
from loadtrt.asked.objective import parse_objective
from loadtrt.sizing.outcomes import Outcome, Step, interval_of, verdict_of
from loadtrt.sizing.search import MOST_APART, MOST_CONFIRMS, MOST_REFUTES, Search

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtrt.sizing.outcomes import Share

SEEDS = range(5)
TRUE = 800.0
FLOOR = 0.0085
# (share of bad requests at a rate, independent requests a second, rate of the first run); 1 % is bad at TRUE
SMOOTH: dict[str, tuple[Callable[[float], float], float | Callable[[float], float], float]] = {
    "as expected": (logistic(TRUE, 20), 100.0, 780.0),
    "steep, expected far below": (logistic(TRUE, 30), 100.0, 400.0),
    "flat, expected far above": (logistic(TRUE, 15), 100.0, 1000.0),
    "a queue": (logistic(TRUE, 15), of_a_queue(8000.0), 700.0),
}
FLOORED = {"a floor near what is allowed": (logistic(TRUE, 20, FLOOR), 100.0, 700.0)}
POOR = {"few requests": (logistic(TRUE, 20), 3.0, 700.0)}
WORLDS = SMOOTH | FLOORED | POOR


@cache
def found(name: str) -> list[Search]:
    """Searches in one world, a seed each."""
    share, worth, start = WORLDS[name]
    return [driven(search(start), World(share, worth, seed).run) for seed in SEEDS]


@cache
def estimated(name: str) -> list[Search]:
    """Quick searches, in a twentieth of the time."""
    share, worth, start = WORLDS[name]
    return [driven(search(start, time_s=30.0, quick=True), World(share, worth, seed).run) for seed in SEEDS]


def holds(one: Search, true: float = TRUE) -> bool:
    return one.binding[1].low <= true <= one.binding[1].high


# --- what is found


@pytest.mark.parametrize("name", SMOOTH)
def test_a_smooth_threshold_is_found_and_confirmed(name: str) -> None:
    """However far off the first run is. Confirmed: at least 0.85 of the true rate in each search, 0.93 in most."""
    assert {each.answer for each in found(name)} == {"found"}
    shares = [(each.confirmed or 0) / TRUE for each in found(name)]
    assert min(shares) >= 0.85
    assert median(shares) >= 0.93
    assert median(abs(each.binding[1].rate / TRUE - 1) for each in found(name)) < 0.03
    assert "cliff" not in {each.boundary for each in found(name)}


@pytest.mark.parametrize("name", WORLDS)
def test_no_rate_above_the_capacity_is_confirmed(name: str) -> None:
    """In no search. What is below it is not said to be missed, beyond the one in forty of 95 % intervals."""
    assert all((each.confirmed or 0) <= TRUE for each in found(name))
    assert sum((each.infeasible_min or math.inf) < 0.99 * TRUE for each in found(name)) <= 1


def test_the_interval_holds_the_capacity() -> None:
    """95 % of all intervals, of whole searches and of quick ones: more than 80 % of so few."""
    for searches in (found, estimated):
        held = [holds(each) for name in WORLDS for each in searches(name)]
        assert np.mean(held) > 0.8
    assert all(each.binding[1].error < 0.1 for name in SMOOTH for each in found(name))


@pytest.mark.parametrize("name", WORLDS)
def test_all_runs_together_take_the_time_at_most(name: str) -> None:
    """Whether it was searched and confirmed, or estimated."""
    for one in (*found(name), *estimated(name)):
        assert spent_s(one) <= one.time_s * (1 + 1e-9)
        assert all(each.step.seconds >= min(one.trial_s, one.time_s) for each in one.outcomes)


def test_a_generator_that_is_late_until_no_time_is_left_is_the_answer() -> None:
    """In a time that has room for one trial alone."""
    one = Search([P99], 700.0, 0.1, THROUGHPUT, 0.03, 10.0, 6.0)
    step = one.next()
    assert step is not None
    one.record(Outcome(step, (judged(0.009, 100.0),), host_bound=True))
    assert (one.next(), one.answer) == (None, "host-bound")


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("part", [0.85, 0.94, 0.99])
def test_no_run_is_longer_than_the_time_that_is_left(part: float, *, late: bool) -> None:
    """After trials and a confirming run that decided nothing, or was spoiled by a late generator, and took all but so
    much: whatever comes next."""
    world = World(logistic(TRUE, 3), 10.0, 1)
    one = search()
    while (step := one.next()) is not None and step.kind == "search" and spent_s(one) < 0.5 * one.time_s:
        one.record(world.run(step))
    left = part * one.time_s - spent_s(one)
    one.record(Outcome(Step("confirm", 500.0, left), (judged(0.009, 100.0),), host_bound=late))
    while (step := one.next()) is not None:
        assert step.seconds <= (one.time_s - spent_s(one)) * (1 + 1e-9)
        one.record(world.run(step))


@pytest.mark.parametrize("name", WORLDS)
def test_a_quick_search_estimates_and_confirms_nothing(name: str) -> None:
    """Trials alone, and no answer but that."""
    for one in estimated(name):
        assert {each.step.kind for each in one.outcomes} == {"search"}
        assert (one.answer, one.confirmed) == ("estimated", None)


@pytest.mark.parametrize("name", WORLDS)
def test_found_is_bracketed(name: str) -> None:
    """What missed is at most three times what met, wherever an answer is "found"."""
    for one in found(name):
        if one.answer == "found" and one.infeasible_min is not None:
            assert one.infeasible_min <= 3 * (one.confirmed or 0)


def test_a_floor_is_no_capacity_of_zero() -> None:
    """Where 0.85 % is bad at any rate and 1 % allowed, lower rates are hardly better: it is never infeasible, and the
    interval is as wide as what is not known."""
    (name,) = FLOORED
    assert "infeasible" not in {each.answer for each in found(name)}
    smooth = median(each.binding[1].error for each in found("as expected"))
    assert median(each.binding[1].error for each in found(name)) > smooth
    for one in found(name):
        low, estimate, high = one.binding[1].low, one.binding[1].rate, one.binding[1].high
        assert low <= estimate <= high
        assert 0.7 * TRUE < estimate < 1.2 * TRUE


def test_one_request_in_flight_shows_the_floor() -> None:
    """As many as a ladder gives: the estimate of the floor is no further from the truth, and no search less certain."""
    share, worth, start = FLOORED["a floor near what is allowed"]
    errors = []
    for alone in ((), (judged(FLOOR, 20_000.0),)):
        one = driven(search(start, alone=alone), World(share, worth, 1).run)
        errors.append(abs(one.binding[1].floor - FLOOR))
        assert one.answer != "infeasible"
    assert errors[1] <= errors[0]


def test_a_cliff_is_bracketed() -> None:
    """All good up to 800/s, all bad above: feasible_max and infeasible_min enclose it, and the estimate is between."""
    one = driven(search(), World(lambda rate: float(rate > TRUE), 100.0, 1).run)
    assert one.answer == "found"
    assert one.feasible_max is not None
    assert one.infeasible_min is not None
    assert one.feasible_max <= TRUE < one.infeasible_min <= 1.25 * one.feasible_max
    assert one.boundary != "smooth"
    assert one.feasible_max <= one.between(one.binding[1].rate) <= one.infeasible_min


@pytest.mark.parametrize(
    ("cliff", "start", "before"),
    [(633, 540, 0.0), (503, 470, 0.0), (838, 700, 0.0), (460, 380, 0.002), (341, 300, 0.002)],
)
def test_the_interval_of_a_cliff_holds_it(cliff: float, start: float, before: float) -> None:
    """No straight line of log-odds passes a cliff, so that the law's own interval may be anywhere beside it. Runs that
    contradict the law widen it to what met and missed. On a law that holds it stays as it is."""

    def share(rate: float) -> float:
        return 1.0 if rate > cliff else before * math.exp((rate - cliff) / 200)

    one = driven(search(start), World(share, 100.0, 1).run)
    low, high = bounds_of(one)
    assert low is not None
    assert high is not None
    assert low <= cliff <= high <= 1.5 * low
    smooth = driven(search(start), World(logistic(cliff, 4.6 * cliff / (1000 - cliff)), 100.0, 1).run)
    law = smooth.binding[1]
    assert bounds_of(smooth) == (law.low, law.high)


def bounds_of(one: Search) -> tuple[float | None, float | None]:
    """The interval of the estimate, as a candidate has it."""
    shares = [(run.step.rate, run.shares[0]) for run in one.outcomes]
    law = one.binding[1]
    return interval_of(law, one.between(law.rate), shares, one.feasible_max, one.infeasible_min)


@pytest.mark.parametrize("share", [0.5, 0.05, 1.0])
def test_what_no_rate_meets_is_infeasible(share: float) -> None:
    """So many bad at any rate: rates fall to a hundredth of the throughput, and then it is said."""
    one = driven(search(), World(lambda _: share, 100.0, 1).run)
    assert one.answer == "infeasible"
    assert min(each.step.rate for each in one.outcomes) <= 0.015 * THROUGHPUT
    assert one.confirmed is None
    assert one.feasible_max is None


def test_infeasible_is_said_only_when_it_is_sure() -> None:
    """Twelve of 500 at the lowest rate are too many for 1 % with a confidence of 95 %, and not with 99.99 %: the search
    goes on. A hundred are."""
    for bad, answer in ((12, None), (100, "infeasible")):
        one = search(10.0)
        step = one.next()
        assert step is not None
        assert step.rate == 10.0
        one.record(Outcome(step, (judged(bad / 500, 500.0),)))
        assert verdict_of(one.outcomes[-1]) == "missed"
        assert one.answer == answer
        assert (one.next() is None) == (answer is not None)


def test_what_every_rate_meets_is_met_at_the_greatest_throughput() -> None:
    """Nothing bounds the estimate from above, and it does not claim so; no run is far above what is served."""
    one = driven(search(), World(lambda _: 0.0, 500.0, 1).run)
    assert one.answer == "found"
    assert (one.confirmed or 0) > 0.9 * THROUGHPUT
    assert not one.binding[1].bounded_above
    assert one.infeasible_min is None


@pytest.mark.parametrize(("objective", "most"), [("compute.p99 < 10ms", 1000.4), ("latency.p99 < 10ms", 1050.42)])
def test_no_rate_is_above_what_the_engine_serves(objective: str, most: float) -> None:
    """Where nothing is ever bad: 5 % above, as a closed loop may be short of it and a queue would tell; no more than
    it where no queue makes the metric longer. What is written in four digits is not tried again for the fifth."""
    one = Search([parse_objective(objective)], 900.0, 0.1, 1000.4, 0.03, 600.0, 6.0)
    driven(one, World(lambda _: 0.0, 200.0, 1).run)
    assert one.answer == "found"
    assert max(each.step.rate for each in one.outcomes) <= most
    assert one.binding[1].rate <= most
    assert len({each.step.rate for each in runs(one, "refute")}) == len(runs(one, "refute"))


def test_latencies_that_are_worse_when_idle_do_not_mislead_it() -> None:
    """A device that slows down below 100/s (clocks that sleep) misses there, too: the capacity is the upper end."""
    smooth = logistic(TRUE, 20)
    one = driven(search(600.0), World(lambda rate: 0.05 if rate < 100 else smooth(rate), 100.0, 1).run)
    assert one.answer == "found"
    assert one.binding[1].rate == pytest.approx(TRUE, rel=0.03)


def test_of_several_objectives_the_least_binds() -> None:
    """p50 allows a half of the requests, and its threshold is higher: p99 binds; both are estimated."""
    median_one = parse_objective("latency.p50 < 2ms")
    one = Search([median_one, P99], 700.0, 0.1, THROUGHPUT, 0.03, 600.0, 6.0)
    tail, middle = World(logistic(TRUE, 20), 100.0, 1), logistic(900, 20)

    def both(step: Step) -> Outcome:
        odds = 1 / (1 + (1 - middle(step.rate)) / middle(step.rate) * ALLOWED / (1 - ALLOWED))
        return Outcome(step, (judged(odds, 100 * step.seconds, 0.5), tail.run(step).shares[0]))

    driven(one, both)
    assert one.answer == "found"
    assert one.binding[0] == 1
    assert one.estimates[0].rate > one.estimates[1].rate == pytest.approx(TRUE, rel=0.03)


# --- which run comes next


def kept_within(one: Search) -> None:
    """Trials are above the rates at which nothing was bad, and below those at which half of all was."""
    for place, each in enumerate(one.outcomes):
        before = one.outcomes[:place]
        low = max((run.step.rate for run in before if run.shares[0].bad == 0), default=0.0)
        high = min((run.step.rate for run in before if run.shares[0].bad >= 0.5), default=math.inf)
        if each.step.kind == "search" and low < high:
            assert each.step.rate < high
            assert each.step.rate > low or each.step.rate >= 0.99 * THROUGHPUT


@given(
    cliff=st.floats(0.03, 0.98),
    start=st.floats(0.03, 1.0),
    spread=st.floats(0.02, 0.5),
    size=st.floats(2.0, 200.0),
)
@settings(max_examples=10)
def test_a_trial_with_nothing_bad_goes_up_and_one_with_too_much_down(
    cliff: float, start: float, spread: float, size: float
) -> None:
    """However sure the ladder was of another rate, and however little each run is worth: no rate is tried twice, and
    so the bracket closes."""
    world = World(lambda rate: float(rate > cliff * THROUGHPUT), max(size, 160 / 6), 1)
    one = driven(search(start * THROUGHPUT, spread=spread, quick=True), world.run)
    kept_within(one)
    rates = [each.step.rate for each in one.outcomes]
    assert len(set(rates)) == len(rates) or max(rates) >= 0.99 * THROUGHPUT


@pytest.mark.parametrize("name", SMOOTH)
def test_trials_stay_in_their_bracket(name: str) -> None:
    """On laws without a cliff, too."""
    for one in found(name):
        kept_within(one)


@pytest.mark.parametrize("name", SMOOTH)
def test_a_met_rate_is_followed_by_a_higher_one_while_time_is_left(name: str) -> None:
    """Confirming runs are above what was met, and below what was missed. Where the time is not used up, what is
    confirmed is near the estimate: it is not left at the first that was met."""
    for one in found(name):
        best, missed = 0.0, math.inf
        for run in runs(one, "confirm"):
            assert best < run.step.rate < missed
            if verdict_of(run) == "met":
                best = run.step.rate
            elif verdict_of(run) == "missed":
                missed = run.step.rate
        if spent_s(one) < 0.9 * one.time_s and len(runs(one, "confirm")) < MOST_CONFIRMS:
            assert (one.confirmed or 0) >= 0.9 * one.binding[1].rate


def test_bad_luck_gives_up_at_the_end() -> None:
    """Confirming runs that stay undecided, alone and together, go on or go down, as long as there is time."""
    world = World(logistic(TRUE, 20), 100.0, 1)

    def unlucky(step: Step) -> Outcome:
        return world.run(step) if step.kind == "search" else Outcome(step, (judged(0.0095, 300.0),), seconds=6.0)

    one = driven(search(), unlucky)
    rates = [each.step.rate for each in runs(one, "confirm")]
    assert (one.answer, one.confirmed) == ("undecided", None)
    assert 1 < len(rates) <= MOST_CONFIRMS
    assert all(after <= before for before, after in itertools.pairwise(rates))


def test_a_missed_confirmation_is_tried_lower() -> None:
    """One run that misses although it should not have: the next is lower, meets, and one below counts."""
    world = World(logistic(TRUE, 20), 100.0, 1)
    one = search()

    def unlucky(step: Step) -> Outcome:
        first = step.kind == "confirm" and not runs(one, "confirm")
        return Outcome(step, (judged(0.02, 5000.0),)) if first else world.run(step)

    driven(one, unlucky)
    first, second = runs(one, "confirm")[:2]
    assert second.step.rate < first.step.rate
    assert one.answer == "found"
    assert (one.confirmed or 0) < first.step.rate


@pytest.mark.parametrize("name", SMOOTH)
def test_a_failing_rate_is_published_beside_the_confirmed_one(name: str) -> None:
    """Not far above the capacity, in MOST_REFUTES runs more at most; the answer stays what it was."""
    for one in found(name):
        assert len(runs(one, "refute")) <= MOST_REFUTES
        assert all(each.step.rate > (one.confirmed or 0) for each in runs(one, "refute"))
        assert 0.99 * TRUE < (one.infeasible_min or 0) < 1.3 * TRUE


def test_too_few_requests_decide_nothing_and_it_says_so() -> None:
    """Runs worth one request each: no verdict is possible. It ends, in its time, and claims no end of the interval."""
    one = driven(search(), World(logistic(TRUE, 20), 0.01, 1).run)
    assert (one.answer, one.confirmed, one.infeasible_min) == ("undecided", None, None)
    assert not one.binding[1].bounded_below
    assert one.binding[1].error > 0.1
    assert spent_s(one) <= one.time_s * (1 + 1e-9)


# --- several runs together


def recorded(*told: tuple[str, float, Share]) -> Search:
    """A search in which these runs were made."""
    one = search()
    for kind, rate, share in told:
        one.record(Outcome(Step(kind, rate, 6.0), (share,)))  # type: ignore[arg-type]
    return one


def test_confirming_runs_count_together() -> None:
    """Two that decide nothing alone decide together, for the lower rate: at it no more are bad than at the higher one.
    A lower run that met says nothing about the higher rate, and one that did not meet takes nothing from it."""
    open_one = judged(0.005, 400.0)
    assert open_one.verdict == "undecided"
    assert judged(0.005, 800.0 * 2).verdict == "met"
    trial = ("search", 800.0, judged(0.01, 2000.0))
    assert recorded(trial, ("confirm", 700.0, open_one)).confirmed is None
    four = [("confirm", rate, open_one) for rate in (740.0, 700.0, 730.0, 710.0)]
    assert recorded(trial, *four).confirmed == 700.0
    met = judged(0.001, 2000.0)
    assert recorded(trial, ("confirm", 700.0, met), ("confirm", 740.0, open_one)).confirmed == 700.0
    assert recorded(trial, ("confirm", 700.0, judged(0.02, 2000.0)), ("confirm", 740.0, met)).confirmed == 740.0


def test_found_is_never_said_of_a_capacity_that_is_hardly_bounded() -> None:
    """A rate that met and one three times as high that missed leave the capacity open."""
    assert MOST_APART <= 3
    met, missed = judged(0.001, 3000.0), judged(0.1, 3000.0)
    trial = ("search", 400.0, judged(0.01, 2000.0))
    for rate, is_found in ((880.0, True), (950.0, False)):
        one = recorded(trial, ("confirm", 300.0, met), ("refute", rate, missed))
        assert one.confirmed == 300.0
        assert (one.answer == "found") == is_found
        assert driven(one, lambda step: Outcome(step, (judged(0.01, 10.0),))).answer == (
            "found" if is_found else "undecided"
        )


def test_a_resumed_search_gives_the_same_answer() -> None:
    """The next step depends on what was told and on nothing else: at every place a fresh search that is told the same
    asks for the same."""
    name = "a queue"
    whole, again = found(name)[3], search(WORLDS[name][2])
    for told in whole.outcomes:
        assert again.next() == told.step
        again.record(told)
    assert (again.next(), again.answer, again.binding) == (None, whole.answer, whole.binding)


# --- a generator that is late


def test_a_generator_that_fails_above_the_capacity_changes_no_answer() -> None:
    """The refuting run is host-bound: nothing above is missed, and what was confirmed stays confirmed."""
    world = World(logistic(TRUE, 20), 100.0, 1)
    one = driven(search(), lambda step: world.run(step)._replace(host_bound=step.kind == "refute"))
    assert (one.answer, one.host_bound) == ("found", None)
    assert len(runs(one, "refute")) == 1


def test_a_generator_that_gives_up_is_no_capacity() -> None:
    """Above 500/s the generator is late: those runs say nothing, the answer says host-bound, and what was met below is
    kept."""
    one = driven(search(), World(logistic(TRUE, 20), 100.0, 1, host_limit=500).run)
    assert one.answer == "host-bound"
    assert one.host_bound is not None
    assert 500 < one.host_bound <= 700
    assert 300 < (one.confirmed or 0) <= 500
    assert one.feasible_max is not None
    assert one.feasible_max <= 500


def test_a_late_generator_does_not_lower_the_estimate() -> None:
    """A host that became slower after the search spoils every confirming run, at rates far below what was met: the
    answer is host-bound, and the estimate remains that of the runs that it did not spoil."""
    world = World(logistic(TRUE, 20), 100.0, 1)
    one = driven(search(), lambda step: world.run(step)._replace(host_bound=step.kind == "confirm"))
    assert (one.answer, one.confirmed) == ("host-bound", None)
    assert one.host_bound is not None
    assert one.host_bound < TRUE
    assert one.between(one.binding[1].rate) == pytest.approx(TRUE, rel=0.03)


def test_only_spoiled_runs_end_it() -> None:
    """Where the generator is late at any rate there is no estimate at all."""
    one = driven(search(), World(logistic(TRUE, 20), 100.0, 1, host_limit=0).run)
    assert (one.answer, one.known, one.confirmed) == ("host-bound", False, None)


# --- whatever comes


@given(
    threshold=st.floats(0.02, 1.2),
    slope=st.floats(0.1, 200),
    floor=st.floats(0, 0.0099),
    worth=st.floats(0.001, 200),
    start=st.floats(0.001, 2),
    scale=st.floats(1e-3, 1e6),
    host=st.floats(0.01, 10),
    seed=st.integers(0, 1000),
    quick=st.booleans(),
)
@settings(max_examples=20)
def test_it_ends_whatever_comes(
    threshold: float,
    slope: float,
    floor: float,
    worth: float,
    start: float,
    scale: float,
    host: float,
    seed: int,
    quick: bool,
) -> None:
    """On any law, of any scale: it ends in its time, asks for rates within [1 %, 105 %] of the throughput and below
    those that the generator failed at, and all its numbers are finite."""
    one = search(start * scale, throughput=scale, quick=quick)
    driven(one, World(logistic(threshold * scale, slope, floor), worth, seed, host_limit=host * scale).run)
    assert one.answer is not None
    assert spent_s(one) <= one.time_s * (1 + 1e-9)
    for place, each in enumerate(one.outcomes):
        failed = [before.step.rate for before in one.outcomes[:place] if before.host_bound]
        assert failed or each.step.rate >= 0.0099 * scale
        assert each.step.rate <= 1.051 * scale
        assert not failed or each.step.rate < min(failed)
    if one.known:
        found = one.binding[1]
        assert all(math.isfinite(value) for value in (found.rate, found.low, found.high, found.slope, found.floor))
        assert found.low <= found.rate <= found.high
    if one.answer == "found":
        assert not quick
        assert (one.infeasible_min or 0) <= 3 * (one.confirmed or 0)
