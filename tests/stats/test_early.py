"""When a run has shown enough: misses that are more than a clump, quantiles whose neighbours do not go together."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt
import pytest

from loadtrt.asked.objective import parse_objective
from loadtrt.records.histogram import Histogram, PackedHistogram
from loadtrt.records.records import COLUMNS, DROPPED, FAILED, METRICS, UNSERVED, Records
from loadtrt.records.spans import Span
from loadtrt.stats.early import LEAST_SECONDS, Misses, Widths, effective_requests, ranks_of
from loadtrt.units import MILLISECOND_NS, SECOND_NS

RATE = 1000  # requests a second
BOUND = parse_objective("latency.p99 < 10ms")


def records_of(latencies: npt.NDArray[np.int64]) -> Records:
    """Requests due one after the other, RATE a second."""
    rows = np.zeros((len(latencies), len(COLUMNS)), np.int64)
    rows[:, COLUMNS.index("due")] = np.arange(len(latencies)) * (SECOND_NS // RATE)
    rows[:, COLUMNS.index("completed")] = rows[:, COLUMNS.index("due")] + latencies
    return Records(rows)


def first_miss(bad: npt.NDArray[np.bool_]) -> int | None:
    """The second at which a run would be aborted whose requests are bad or not as given."""
    records, misses = records_of(np.where(bad, 20, 1) * MILLISECOND_NS), Misses([BOUND])
    for second in range(1, len(bad) // RATE + 1):
        count = second * RATE
        misses.add([Records(records.rows[count - RATE : count])])
        if misses.missed(partial(Records, records.rows[:count]), [Histogram() for _ in METRICS]) is not None:
            return second
    return None


def test_independent_misses_above_the_allowed_share_are_seen() -> None:
    """3 % of all, anywhere: within seconds, but not before LEAST_SECONDS."""
    found = first_miss(np.random.default_rng(1).random(60 * RATE) < 0.03)
    assert found is not None
    assert LEAST_SECONDS <= found <= 20


@pytest.mark.parametrize("share", [0.0, 0.005, 0.01])
def test_a_share_that_is_allowed_is_never_missed(share: float) -> None:
    """The first 1 % of a minute's requests being bad, evenly spread, ends no run."""
    bad = np.zeros(60 * RATE, bool)
    if share:
        bad[:: round(1 / share)] = True
    assert first_miss(bad) is None


@pytest.mark.parametrize("status", [FAILED, UNSERVED, DROPPED])
def test_what_is_not_served_is_bad(status: int) -> None:
    """However early it ended; and each objective has its own metric."""
    records = records_of(np.full(20 * RATE, MILLISECOND_NS))
    records.rows[::30, COLUMNS.index("status")] = status
    slow = parse_objective("queue.p99 < 10ms")
    misses = Misses([slow, BOUND])
    for second in range(20):
        rows = records.rows[second * RATE : (second + 1) * RATE]
        misses.add([Records(rows[: RATE // 3]), Records(rows[RATE // 3 :])])
    missed = misses.missed(lambda: records, [Histogram() for _ in METRICS])
    assert missed is not None
    assert missed.objective == slow
    assert missed.bad == pytest.approx(1 / 30, rel=0.01)


@pytest.mark.parametrize(
    ("text", "status"), [("errors < 1%", FAILED), ("errors < 1%", UNSERVED), ("drops < 1%", DROPPED)]
)
def test_a_share_that_is_lost_ends_the_run_of_its_objective(text: str, status: int) -> None:
    """Failed requests are errors and dropped ones drops; the others leave each of them met."""
    records = records_of(np.full(20 * RATE, MILLISECOND_NS))
    records.rows[::30, COLUMNS.index("status")] = status
    objectives = [parse_objective(other) for other in ("errors < 1%", "drops < 1%")]
    misses = Misses(objectives)
    for second in range(20):
        misses.add([Records(records.rows[second * RATE : (second + 1) * RATE])])
    missed = misses.missed(lambda: records, [Histogram() for _ in METRICS])
    assert missed is not None
    assert missed.objective == parse_objective(text)


def test_a_bound_that_is_allowed_is_no_miss() -> None:
    """Latencies of exactly 10 ms do not look like a miss of "<= 10ms": no record is read for a verdict. They miss
    "< 10ms"."""
    records = records_of(np.full(10 * RATE, BOUND.bound_ns))
    misses = {text: Misses([parse_objective(text)]) for text in ("latency.p99 <= 10ms", "latency.p99 < 10ms")}
    for second in range(10):
        for each in misses.values():
            each.add([Records(records.rows[second * RATE : (second + 1) * RATE])])

    def count() -> Records:
        pytest.fail("looks like a miss")

    histograms = [Histogram() for _ in METRICS]
    assert misses["latency.p99 <= 10ms"].missed(count, histograms) is None
    assert misses["latency.p99 < 10ms"].missed(lambda: records, histograms) is not None


def test_one_clump_is_no_miss() -> None:
    """A stall of half a second makes 5 % of ten seconds bad, of which an independent law would be certain: it is one
    event, and later seconds have none."""
    bad = np.zeros(30 * RATE, bool)
    bad[4000:4500] = True
    assert first_miss(bad) is None


def test_clumps_again_and_again_are_a_miss() -> None:
    """The same stall in every third second is no accident."""
    bad = np.zeros(120 * RATE, bool)
    for second in range(0, 120, 3):
        bad[second * RATE : second * RATE + 300] = True
    assert first_miss(bad) is not None


def test_effective_requests() -> None:
    """Independent misses are worth about all requests; misses that come 200 at once, a
    200th of them."""
    random, n = np.random.default_rng(2), np.full(200, 1000.0)
    assert effective_requests(n, random.binomial(1000, 0.01, 200).astype(float)) > 0.7 * n.sum()
    clumped = np.where(np.arange(200) % 20 == 0, 200.0, 0.0)
    assert effective_requests(n, clumped) == pytest.approx(n.sum() / 200, rel=0.05)
    assert effective_requests(n, np.zeros(200)) == n.sum()


def second_of(number: int, latency: Histogram) -> Span[PackedHistogram]:
    """A second with these latencies."""
    return Span(number * SECOND_NS, latency.count, 0, latency.packed(), 0, 0)


def known_after(latencies: npt.NDArray[np.int64], precision: float) -> int | None:
    """The second at which p99 is said to be known so well."""
    widths, total = Widths([0.99], precision), Histogram()
    spans: list[Span[PackedHistogram]] = []
    records = records_of(latencies)
    for second in range(len(latencies) // RATE):
        one = Histogram()
        one.add(latencies[second * RATE : (second + 1) * RATE])
        total.merge(one)
        spans.append(second_of(second, one))
        if widths.narrow_enough(spans, Records(records.rows[: (second + 1) * RATE]), total) is not None:
            return second + 1
    return None


def test_precision_takes_longer_where_seconds_differ() -> None:
    """Independent latencies reach ±5 % soon; the same ones with a speed that wanders for seconds do not, and a wish
    that a minute cannot fulfil is not said to be."""
    random = np.random.default_rng(3)
    steady = (5e6 * random.lognormal(0, 0.3, 60 * RATE)).astype(np.int64)
    wandering = (steady * np.repeat(1 + 0.3 * np.sin(np.arange(60) / 6), RATE)).astype(np.int64)
    soon = known_after(steady, 0.05)
    assert soon is not None
    assert soon <= 20
    later = known_after(wandering, 0.05)
    assert later is None or later > 2 * soon
    assert known_after(steady, 0.001) is None


def test_seconds_without_requests_are_not_looked_at() -> None:
    """A pause is not a part of the run without misses: what is known is what the other seconds tell."""
    random, one = np.random.default_rng(4), Histogram()
    latencies = (5e6 * random.lognormal(0, 0.3, 60 * RATE)).astype(np.int64)
    one.add(latencies[:RATE])
    busy = [second_of(number, one) for number in range(60)]
    idle = [second_of(number, Histogram()) for number in range(60, 600)]
    total = Histogram()
    total.add(latencies)
    records = records_of(latencies)
    alone = Widths([0.99], 0.05).narrow_enough(busy, records, total)
    assert alone is not None
    assert Widths([0.99], 0.05).narrow_enough([*busy, *idle], records, total) == alone
    assert Widths([0.99], 0.05).narrow_enough(idle, records, total) is None


def test_a_day_of_misses_is_kept_in_few_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond MOST_SPANS seconds batches are merged in pairs, and sums are what they were."""
    monkeypatch.setattr("loadtrt.stats.early.MOST_SPANS", 16)
    misses = Misses([BOUND])
    records = records_of(np.full(4, 2 * BOUND.bound_ns))
    for second in range(1, 101):
        misses.add([Records(records.rows[: 1 + second % 4])])
        assert len(misses._requests) <= 16
        assert misses._requests == misses._bad[0]
        assert misses._requests[-1] == sum(1 + each % 4 for each in range(1, second + 1))
    batches = np.diff(misses._requests, prepend=0)
    assert batches.tolist() == [20] * 12 + [10]  # of eight seconds each, and the last of four
    every = records_of(np.full(250, 2 * BOUND.bound_ns))
    assert misses.missed(lambda: every, [Histogram() for _ in METRICS]) is not None


def test_quantiles_are_those_of_objectives_on_latency() -> None:
    """Else p99; max is no quantile that an interval has."""
    texts = ("latency.p50 < 1s", "latency.p99.9 < 2s", "latency.max < 3s", "compute.p90 < 1s")
    assert ranks_of([parse_objective(text) for text in texts]) == pytest.approx([0.5, 0.999])
    assert ranks_of([]) == [0.99]
