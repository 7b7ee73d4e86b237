"""Looks of a wait that sleeps: seldom, and in time."""

from __future__ import annotations

import pytest

from loadtrt.engines.engine import Completion
from loadtrt.engines.looks import LEAST_NS, NEVER, Looks


def _served(service_ns: int, gap_ns: int, requests: int, lanes: int = 1) -> tuple[float, float, Looks]:
    """Requests `gap_ns` apart on lanes in turn: looks a request, and how long after completion each was seen, ns."""
    looks, seen, delays = Looks(lanes), 0, []
    in_flight: list[tuple[int, int]] = []  # (completed, lane), in order
    due = now = 0
    sent = 0
    while sent < requests or in_flight:
        if sent < requests and due <= looks.next_ns:
            now = max(now, due)
            looks.sent(sent % lanes, now, 1)
            in_flight.append((now + service_ns, sent % lanes))
            due, sent = due + gap_ns, sent + 1
            continue
        now = max(now, looks.next_ns)
        found = [Completion(lane, 0, done, 0, 0, 0) for done, lane in in_flight if done <= now]
        in_flight = in_flight[len(found) :]
        delays += [now - completion.completed_ns for completion in found]
        looks.looked(now, found)
        seen += 1
    return seen / requests, sum(delays) / len(delays), looks


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("service_ns", [40_000, 600_000, 5_000_000])
def test_a_request_takes_two_looks_or_less(service_ns: int, lanes: int) -> None:
    """Steady service: hardly more than one look a request, each seen within an eighth of its service or 50 µs."""
    looks, delay, _ = _served(service_ns, 2 * service_ns + 100_000, 400, lanes)
    assert looks <= 2
    assert 0 <= delay <= max(service_ns / 8, LEAST_NS)


def test_requests_that_overlap_are_seen_too() -> None:
    """With several in flight on each lane nothing is forgotten, and a look finds one or more of them."""
    looks, delay, after = _served(1_000_000, 250_000, 400, lanes=2)
    assert looks <= 2.5
    assert delay <= 250_000
    assert after.next_ns == NEVER


def test_the_usual_time_follows_what_changes() -> None:
    """u ← u + (t − u) / 8: after 40 requests of another length it is within a percent of that."""
    looks = Looks(1)
    for service in (100_000, 800_000):
        for number in range(40):
            looks.sent(0, number, 1)
            looks.looked(number + service, [Completion(0, 0, number + service, 0, 0, 0)])
        assert looks.usual_ns == pytest.approx(service, rel=0.01)


def test_nothing_in_flight_asks_for_no_look() -> None:
    """NEVER at first, and again after the last of a launch of several was found."""
    looks = Looks(2)
    assert looks.next_ns == NEVER
    looks.sent(1, 1_000, 2)
    assert looks.next_ns == 1_000
    looks.looked(1_000, [])
    assert looks.next_ns == 1_000 + LEAST_NS
    looks.looked(60_000, [Completion(1, 0, 50_000, 0, 0, 0), Completion(1, 1, 55_000, 0, 0, 0)])
    assert looks.next_ns == NEVER
