"""Looks of a wait that sleeps: seldom, and in time."""

from __future__ import annotations

import pytest

from loadtrt.engines.engine import Completion
from loadtrt.engines.looks import LEAST_NS, Looks
from loadtrt.units import NEVER


def test_the_usual_time_rises_slowly_and_falls_at_once() -> None:
    """u ← min(t, u + (t − u) / 8): after 40 requests of eight times the time within a percent of that, after one again
    as short as before there."""
    looks = Looks(1)
    for number in range(40):
        looks.sent(0, number * 10**9, 1)
        looks.looked(number * 10**9 + 800_000, [Completion(0, 0, number * 10**9 + 800_000, 0, 0, 0)])
    assert looks.usual_ns == 800_000
    looks.sent(0, 10**12, 1)
    looks.looked(10**12 + 100_000, [Completion(0, 0, 10**12 + 100_000, 0, 0, 0)])
    assert looks.usual_ns == 100_000
    for number in range(40):
        begun = 2 * 10**12 + number * 10**9
        looks.sent(0, begun, 1)
        looks.looked(begun + 800_000, [Completion(0, 0, begun + 800_000, 0, 0, 0)])
    assert looks.usual_ns == pytest.approx(800_000, rel=0.01)


def test_what_waited_behind_another_counts_from_that_ones_end() -> None:
    """Two sent at once on a lane, 1 ms each: u stays 1 ms, and the second is looked for 1 ms after the first ended."""
    looks = Looks(1)
    looks.sent(0, 0, 2)
    looks.looked(1_000_000, [Completion(0, 0, 1_000_000, 0, 0, 0)])
    assert (looks.usual_ns, looks.next_ns) == (1_000_000, 2_000_000)
    looks.looked(2_000_000, [Completion(0, 1, 2_000_000, 0, 0, 0)])
    assert (looks.usual_ns, looks.next_ns) == (1_000_000, NEVER)


def test_nothing_in_flight_asks_for_no_look() -> None:
    """NEVER at first, and again after the last of a launch of several was found; the first of all is looked for at
    once, and then every LEAST_NS."""
    looks = Looks(2)
    assert looks.next_ns == NEVER
    looks.sent(1, 1_000, 2)
    assert looks.next_ns == 1_000
    looks.looked(1_000, [])
    assert looks.next_ns == 1_000 + LEAST_NS
    looks.looked(60_000, [Completion(1, 0, 50_000, 0, 0, 0), Completion(1, 1, 55_000, 0, 0, 0)])
    assert looks.next_ns == NEVER
