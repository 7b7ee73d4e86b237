"""Axes of charts: round ticks within their ends, and values where they belong."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtrt.report.charts.svg import Axis, count_text, counts, durations, elapsed, linear_ticks, log_ticks, ranks

VALUES = st.floats(1.0, 1e13)


@given(low=st.floats(-1e5, 1e5), span=st.floats(1.0, 1e12), most=st.integers(2, 12))
def test_linear_ticks_are_round(low: float, span: float, most: int) -> None:
    """Neighbours differ by 1, 2 or 5 × 10^k; all lie within the ends; there are no more than asked for."""
    ticks = linear_ticks(low, low + span, most)
    assert len(ticks) <= most
    assert all(low - 1e-6 * span <= tick <= low + span * (1 + 1e-6) for tick in ticks)
    for step in {after - before for before, after in pairwise(ticks)}:
        mantissa = step / 10.0 ** math.floor(math.log10(step * 1.00001))
        assert min(abs(mantissa - round_) for round_ in (1, 2, 5)) < 1e-3


@given(low=VALUES, ratio=st.floats(1.05, 1e9), most=st.integers(4, 9))
def test_log_ticks_lie_within_the_ends(low: float, ratio: float, most: int) -> None:
    """At least one, at most as many as asked for, rising, none outside."""
    ticks = log_ticks(low, low * ratio, most)
    assert 1 <= len(ticks) <= most
    assert ticks == sorted(set(ticks))
    assert all(low * 0.999 <= tick <= low * ratio * 1.001 for tick in ticks)


@given(values=st.lists(VALUES, min_size=1, max_size=30))
def test_times_lie_on_their_axis_in_order(values: list[float]) -> None:
    """A longer time lies further; the largest is not at the very end."""
    axis = durations("latency", values)
    places = [axis.at(value) for value in sorted(values)]
    assert places == sorted(places)
    assert all(0 <= place < 1 for place in places)
    assert all(0 <= axis.at(tick) <= 1 for tick, _ in axis.ticks)


def test_an_axis_of_times_is_logarithmic_where_they_differ_much() -> None:
    """Equal ratios are equally far; ticks bear their units where these differ; 0 is at the lower end."""
    axis = durations("latency", [1e4, 1e9])
    assert axis.at(1e6) - axis.at(1e5) == pytest.approx(axis.at(1e8) - axis.at(1e7))
    assert tuple(text for tick, text in axis.ticks if tick in (1e5, 1e6)) == ("100 µs", "1 ms")
    assert axis.title == "latency"
    assert axis.at(0.0) == 0.0


def test_an_axis_of_times_begins_at_zero_where_they_differ_little() -> None:
    """One unit, in the title."""
    axis = durations("latency", [4e6, 7e6])
    assert axis.title == "latency, ms"
    assert [text for _, text in axis.ticks] == ["0", "2", "4", "6"]
    assert axis.at(3.71e6) == pytest.approx(0.5)


def test_ranks_are_equally_far_for_each_nine() -> None:
    """log₁₀ 1/(1 − p): 90 % is as far from 0 as 99 % is from 90 %; 1 is at the end."""
    axis = ranks(5000)
    assert axis.at(0.99) - axis.at(0.9) == pytest.approx(axis.at(0.9) - axis.at(0.0))
    assert axis.at(1.0) == 1.0
    assert [text for _, text in axis.ticks] == ["0", "50 %", "90 %", "99 %", "99.9 %", "99.99 %"]
    assert [text for _, text in ranks(1).ticks] == ["0", "50 %"]


@pytest.mark.parametrize(
    ("end_ns", "title", "last"), [(6e9, "time, s", "6"), (6e11, "time, min", "10"), (3.6e13, "time, h", "10")]
)
def test_time_is_told_in_a_unit_that_fits(end_ns: float, title: str, last: str) -> None:
    """Seconds, minutes, hours; what is before 0 has no ticks."""
    axis = elapsed(-1e9, end_ns)
    assert (axis.title, axis.ticks[-1][1]) == (title, last)
    assert axis.ticks[0][0] == 0


@pytest.mark.parametrize(
    ("value", "step", "text"),
    [(0.0, 1.0, "0"), (0.25, 0.05, "0.25"), (1500.0, 500.0, "1.5k"), (1500.0, 1.0, "1500"), (2e6, 1e6, "2M")],
)
def test_numbers_are_short_and_differ_from_their_neighbours(value: float, step: float, text: str) -> None:
    """With k, M and G where the step allows it."""
    assert count_text(value, step) == text


@pytest.mark.parametrize("axis", [counts("requests/s", 0.0), durations("latency", []), elapsed(0, 0), ranks(0)])
def test_an_axis_of_nothing_is_an_axis(axis: Axis) -> None:
    """Without values there is still something to draw on."""
    assert 0 <= axis.at(0.0) <= 1
