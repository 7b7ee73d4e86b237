"""Looks of a wait that sleeps: seldom, and in time."""

from __future__ import annotations

import pytest

from loadtrt.engines.engine import Completion
from loadtrt.engines.looks import IDLE_NS, LEAST_NS, MOST_NS, NEVER, Looks


def _served(service_ns: int, gap_ns: int, requests: int, lanes: int, places: int) -> tuple[float, float, Looks]:
    """Requests `gap_ns` apart on lanes in turn, and a look after each is sent: further looks a request, and how long
    after completion each was seen, ns, in the mean."""
    looks, timed = Looks(lanes, places), 0
    in_flight: list[tuple[int, int]] = []  # (completed, lane), in order
    delays: list[int] = []
    due = now = sent = 0
    while sent < requests or in_flight:
        if sent < requests and len(in_flight) < places and max(due, now) <= looks.next_ns:
            now = max(now, due)
            looks.sent(sent % lanes, now, 1)
            in_flight.append((now + service_ns, sent % lanes))
            due, sent = due + gap_ns, sent + 1
        else:
            assert looks.next_ns > now or not timed
            now = max(now, looks.next_ns)
            timed += 1
        found = [Completion(lane, 0, done, 0, 0, 0) for done, lane in in_flight if done <= now]
        in_flight = in_flight[len(found) :]
        delays += [now - completion.completed_ns for completion in found]
        looks.looked(now, found)
    return timed / requests, sum(delays) / len(delays), looks


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("service_ns", [40_000, 600_000, 5_000_000])
def test_with_all_places_taken_a_request_is_seen_soon(service_ns: int, lanes: int) -> None:
    """A closed loop: hardly more than a look a request, each seen within a sixteenth of its service or 200 µs."""
    looks, delay, _ = _served(service_ns, 0, 400, lanes, lanes)
    assert looks <= 1.5
    assert 0 <= delay <= max(service_ns / 16, LEAST_NS) + MOST_NS


def test_with_room_left_nobody_looks_but_who_sends() -> None:
    """Half a millisecond of service every 2 ms, in four places: the next request's sending finds the one before."""
    looks, delay, after = _served(500_000, 2_000_000, 400, lanes=2, places=4)
    assert looks <= 0.01
    assert delay == pytest.approx(1_500_000, rel=0.01)
    assert after.next_ns == NEVER


def test_the_last_request_is_seen_though_nothing_follows() -> None:
    """At the latest IDLE_NS after it usually has finished."""
    looks = Looks(1, 2)
    for number in range(40):
        looks.sent(0, number * 10**9, 1)
        looks.looked(number * 10**9 + 300_000, [Completion(0, 0, number * 10**9 + 300_000, 0, 0, 0)])
    looks.sent(0, 10**12, 1)
    assert 10**12 + 290_000 + IDLE_NS < looks.next_ns <= 10**12 + 300_000 + IDLE_NS


def test_the_usual_time_follows_what_changes() -> None:
    """u ← u + (t − u) / 8: after 40 requests of another length it is within a percent of that."""
    looks = Looks(1, 1)
    for service in (100_000, 800_000):
        for number in range(40):
            looks.sent(0, number, 1)
            looks.looked(number + service, [Completion(0, 0, number + service, 0, 0, 0)])
        assert looks.usual_ns == pytest.approx(service, rel=0.01)


def test_nothing_in_flight_asks_for_no_look() -> None:
    """NEVER at first, and again after the last of a launch of several was found."""
    looks = Looks(2, 2)
    assert looks.next_ns == NEVER
    looks.sent(1, 1_000, 2)
    assert looks.next_ns == 1_000
    looks.looked(1_000, [])
    assert looks.next_ns == 1_000 + LEAST_NS
    looks.looked(60_000, [Completion(1, 0, 50_000, 0, 0, 0), Completion(1, 1, 55_000, 0, 0, 0)])
    assert looks.next_ns == NEVER
