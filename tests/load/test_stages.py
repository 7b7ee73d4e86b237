"""Rates that change with time: Λ, its inverse, and the counts that come of them."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from loadtrt.asked.config import RunConfig
from loadtrt.errors import UsageError
from loadtrt.load.arrivals import (
    Constant,
    Course,
    Gamma,
    Poisson,
    Stage,
    bursts,
    due_instants,
    parse_bursts,
    parse_stages,
    steady,
)

SECOND = 1_000_000_000

rates = st.floats(0, 5000)
stages = st.builds(Stage, rates, rates, st.integers(1_000_000, 100 * SECOND))
courses = st.builds(Course, st.lists(stages, min_size=1, max_size=5).map(tuple), st.booleans())


def test_the_text_of_stages() -> None:
    """Rates with any unit, 0 too; a ramp's first rate may leave the unit to the second."""
    assert parse_stages("100/s:10s, ramp 500/s-2000/s:1m,0/s:500ms").stages == (
        Stage(100, 100, 10 * SECOND),
        Stage(500, 2000, 60 * SECOND),
        Stage(0, 0, SECOND // 2),
    )
    assert parse_stages("ramp 600-1200/m : 1s").stages == (Stage(10, 20, SECOND),)
    assert parse_stages("ramp 0-2k/s:1s").stages == (Stage(0, 2000, SECOND),)
    assert parse_bursts("1s/250ms") == (SECOND, SECOND // 4)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "'' is not a stage: write RATE:TIME or ramp RATE-RATE:TIME"),
        ("100/s:10s,", "'' is not a stage"),
        ("100/s", "'100/s' is not a stage"),
        ("100/s-200/s:1s", "is not a stage"),
        ("ramp 100/s:1s", "'ramp 100/s' is not a rate"),
        ("fast:1s", "'fast' is not a rate"),
        ("-5/s:1s", "is not a stage"),
        ("5/s:soon", "'soon' is not a duration"),
        ("5/s:0s", "'5/s:0s' takes no time"),
        ("0/s:1s, ramp 0-0/s:1s", "has no requests: write a stage with a rate above zero"),
        ("5/s:9999999999h", "'9999999999h' is longer than 10 years"),
        (", ".join(["5/s:80000h"] * 17), "takes longer than a century"),
    ],
)
def test_what_is_no_stage_is_told(text: str, sentence: str) -> None:
    """One sentence, with the part that is wrong."""
    with pytest.raises(UsageError) as caught:
        parse_stages(text)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("text", ["", "1s", "1s/", "/1s", "0s/1s", "1s/0s", "1s/2s/3s", "1s/9999999999h"])
def test_what_is_no_burst_is_told(text: str) -> None:
    """Both times, both above zero, both within what an int64 of ns holds."""
    with pytest.raises(UsageError):
        parse_bursts(text)


@given(course=courses, shares=st.lists(st.floats(0, 1 - 1e-9), min_size=1, max_size=50))  # at 1 the next round begins
def test_the_inverse_of_the_cumulative_rate_is_exact(course: Course, shares: list[float]) -> None:
    """Λ(Λ⁻¹(u)) = u, to the requests that come in 1 ns and the float's precision; Λ⁻¹ ascends and stays in the course.

    Λ is computed anew here, in fractions: Σ over stages of a·τ + (b − a)·τ² / 2T.
    """
    total = course.requests(course.duration_ns)
    assume(total > 1e-3)
    expected = np.sort(np.array(shares)) * total
    due = course.instants(expected)
    assert (np.diff(due) >= 0).all()
    assert due[0] >= 0
    assert due[-1] <= course.duration_ns
    for u, instant in zip(expected, due.tolist(), strict=True):
        cumulative, left = Fraction(0), Fraction(instant)
        for stage in course.stages:
            tau, length = min(left, Fraction(stage.duration_ns)), Fraction(stage.duration_ns)
            first, last = Fraction(stage.first), Fraction(stage.last)
            cumulative += (first * tau + (last - first) * tau**2 / (2 * length)) / SECOND
            left -= tau
        assert abs(float(cumulative) - u) <= 5000e-9 + 1e-9 * total


def test_a_ramp_has_its_closed_form() -> None:
    """From 0 to r in T, n requests are expected by t = T·√(2n / rT): the k-th constant arrival is there, to the ns."""
    due = due_instants(Constant(), parse_stages("ramp 0/s-1000/s:10s"), 10 * SECOND, 0, 1)
    assert due.tolist() == [round(10 * SECOND * (k / 5000) ** 0.5) for k in range(5000)]


def test_no_request_comes_in_a_pause() -> None:
    """A request that belongs to a boundary comes after the pause, also where rates are no round numbers."""
    course = parse_stages("100/m:60s, 0/s:5s, 100/m:60s, 0/s:5s")
    due = due_instants(Constant(), course, course.duration_ns, 0, 1)
    assert len(due) == 200
    assert due[100] == 65 * SECOND
    assert due[99] < 60 * SECOND
    assert due_instants(Constant(), parse_stages("0/s:5s, 2/s:1s"), 6 * SECOND, 0, 1).tolist() == [
        5 * SECOND,
        5 * SECOND + SECOND // 2,
    ]


@given(per_cycle=st.integers(1, 50), on=st.integers(1, 3 * SECOND), off=st.integers(1, 3 * SECOND))
def test_bursts_keep_the_mean_rate(per_cycle: int, on: int, off: int) -> None:
    """Every cycle of on + off has rate · (on + off) requests, each within its first `on`, in any cycle."""
    rate = per_cycle * SECOND / (on + off)
    cycles = 300
    due = due_instants(Constant(), bursts(rate, on, off), cycles * (on + off), 0, 1)
    assert len(due) == cycles * per_cycle
    assert (due % (on + off) <= on).all()
    assert np.bincount(due // (on + off)).tolist() == [per_cycle] * cycles


def test_counts_of_each_stage_are_poisson() -> None:
    """Over 400 seeds a stage's count has mean Λ within 4 standard errors, and variance = mean.

    Dispersion test: (m − 1)·s² / x̄ is χ² with m − 1 degrees: mean m − 1, deviation √(2(m − 1)) (Fisher, 1950).
    """
    course = parse_stages("100/s:1s, ramp 0/s-400/s:1s, 0/s:1s, 300/s:500ms, ramp 200/s-20/s:1s")
    edges = np.cumsum([0, *(stage.duration_ns for stage in course.stages)])
    draws = [due_instants(Poisson(), course, course.duration_ns, 0, seed) for seed in range(400)]
    counts = np.array([np.histogram(due, edges)[0] for due in draws])
    expected = np.array([100, 200, 0, 150, 110])
    assert (np.abs(counts.mean(axis=0) - expected) <= 4 * np.sqrt(expected / 400)).all()
    busy = expected > 0
    dispersion = 399 * counts[:, busy].var(axis=0, ddof=1) / counts[:, busy].mean(axis=0)
    assert (np.abs(dispersion - 399) < 4 * np.sqrt(2 * 399)).all()
    assert np.abs(np.corrcoef(counts[:, busy].T) - np.eye(4)).max() < 4 / np.sqrt(400)  # independent of each other


def test_within_a_ramp_instants_follow_the_rate() -> None:
    """Given their number, instants of a Poisson ramp are independent with density λ(t) / Λ (Kolmogorov's distance)."""
    due = due_instants(Poisson(), parse_stages("ramp 100/s-900/s:200s"), 200 * SECOND, 0, 3)
    t = np.sort(due) / SECOND
    law = (100 * t + 2 * t**2) / 100_000
    distance = np.abs(law - np.arange(1, len(t) + 1) / len(t)).max()
    assert distance < 1.95 / np.sqrt(len(t))  # 99.9 %


def test_gamma_bursts_of_bursts() -> None:
    """Burstiness within stages: counts of a stage vary by CV² times their mean, or nearly, and have its mean."""
    course = parse_stages("500/s:2s, 1000/s:2s")
    draws = [due_instants(Gamma(3.0), course, 4 * SECOND, 0, seed) for seed in range(400)]
    counts = np.array([np.histogram(due, [0, 2 * SECOND, 4 * SECOND])[0] for due in draws])
    assert (np.abs(counts.mean(axis=0) - [1000, 2000]) < 4 * counts.std(axis=0) / 20).all()
    assert counts.var(axis=0) / counts.mean(axis=0) == pytest.approx([9, 9], rel=0.25)


def test_a_steady_course_is_the_rate() -> None:
    """One formula for all: a rate and a course of it draw the same."""
    for course in (steady(300.0), Course((Stage(300, 300, 10 * SECOND),))):
        assert np.array_equal(
            due_instants(Poisson(), course, 10 * SECOND, 0, 4), due_instants(Poisson(), 300.0, 10 * SECOND, 0, 4)
        )


def test_a_run_with_stages_knows_its_length_and_mean_rate() -> None:
    """rate = Λ(T) / T, T: the stages' time, or max_duration if that is shorter."""
    stages = {"engine": "x", "stages": "100/s:10s, ramp 100/s-300/s:10s"}
    config = RunConfig.of(**stages)
    assert (config.least_ns(config.model), config.offered_per_s(config.model)) == (20 * SECOND, 150)
    config = RunConfig.of(**{**stages, "max_duration": "15s"})
    assert config.least_ns(config.model) == 15 * SECOND
    assert config.offered_per_s(config.model) == pytest.approx((1000 + 750) / 15)


@given(course=courses, rate=st.floats(0.001, 1e6), share=st.floats(0, 1))
def test_a_course_is_scaled_to_a_mean_rate(course: Course, rate: float, share: float) -> None:
    """By one factor: its mean is the rate, and the share of requests that come in a part of it stays."""
    assume(course.mean_per_s > 1e-3)
    scaled = course.scaled(rate / course.mean_per_s)
    assert scaled.mean_per_s == pytest.approx(rate)
    assert scaled.repeats == course.repeats
    until_ns = int(share * course.duration_ns)
    before, whole = course.requests(until_ns), course.mean_per_s * course.duration_ns / SECOND
    assert scaled.requests(until_ns) * whole == pytest.approx(before * rate * course.duration_ns / SECOND)


def test_stages_begin_again_until_the_run_is_long_enough() -> None:
    """100/s and 300/s, scaled to a mean of 20/s: 10/s and 30/s, round after round, to the duration and the requests;
    a time of the day is the same in each round."""
    options = {"engine": "x", "arrivals": "constant", "stages": "100/s:1s, 300/s:1s", "rate": "20/s"}
    once = RunConfig.of(**options).model.load
    assert (once.own_ns, once.mean_rate(2 * SECOND), once.peak_ratio) == (2 * SECOND, 20, 1.5)
    config = RunConfig.of(**options, stages_loop=True, duration="5s")
    load = config.model.load
    due = load.due(config.least_ns(config.model), 0, 1)
    assert due is not None
    assert np.bincount(due // SECOND).tolist() == [10, 30, 10, 30, 10]
    more = load.due(5 * SECOND, 200, 1)
    assert more is not None
    assert (len(more), config.offered_per_s(config.model), load.own_ns, load.period_ns) == (200, 20, None, 2 * SECOND)
    assert more[: len(due)].tolist() == due.tolist()
    assert (more[40:80] - more[:40]).tolist() == [2 * SECOND] * 40
