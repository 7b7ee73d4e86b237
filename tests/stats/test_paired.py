"""Ratios of pairs: by hand, and how often the interval holds the truth, by the rule that ends rounds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.interference_coverage import latencies, measure, pair
from loadtrt.stats.paired import Pair, enough, paired_ratio


def test_the_interval_is_that_of_students_t_of_logarithms() -> None:
    """By hand: logarithms of 2, 2, 4 over 1 have the mean (4/3) ln 2 and the deviation ln 2 / √3; t of 2 is 4.303."""
    found = paired_ratio("latency.p99", [Pair(1.0, 2.0), Pair(10.0, 20.0), Pair(5.0, 20.0)])
    half = 4.3027 * math.log(2) / math.sqrt(3) / math.sqrt(3)
    assert found.ratio == pytest.approx(2 ** (4 / 3))
    assert found.low == pytest.approx(2 ** (4 / 3) * math.exp(-half), rel=1e-4)
    assert found.high == pytest.approx(2 ** (4 / 3) * math.exp(half), rel=1e-4)


def test_what_both_sides_of_a_pair_share_cancels() -> None:
    """A clock that drifts by half during the rounds."""
    pairs = [Pair(drift, 3 * drift) for drift in (1.0, 1.1, 1.3, 1.5)]
    found = paired_ratio("latency.p99", pairs)
    assert found.low == pytest.approx(3)
    assert found.ratio == pytest.approx(3)
    assert found.high == pytest.approx(3)


@pytest.mark.parametrize(
    ("pairs", "reason"),
    [
        ([Pair(1.0, 2.0)], "an interval takes two rounds or more"),
        ([Pair(1.0, 2.0), Pair(None, 2.0)], "it is not known, or 0, in round 2"),
        ([Pair(1.0, 0.0), Pair(1.0, 2.0)], "it is not known, or 0, in round 1"),
        ([], "it is not known, or 0, in round 1"),
    ],
)
def test_what_is_not_known(pairs: list[Pair], reason: str) -> None:
    found = paired_ratio("latency.p99", pairs)
    assert (found.low, found.high, found.reason) == (None, None, reason)


def test_pairs_that_are_far_apart_have_an_interval_without_overflow() -> None:
    found = paired_ratio("latency.p99", [Pair(1.0, 1e-9), Pair(1.0, 1e9)])
    assert found.high == pytest.approx(math.exp(100))


def test_one_pair_more_than_makes_the_interval_narrow() -> None:
    same, other, name = Pair(1.0, 2.0), Pair(1.0, 5.0), "latency.p99"
    assert not enough(name, [same, same], 0.1)
    assert enough(name, [same, same, other], 0.1)
    assert not enough(name, [same, other, same], 0.1)
    assert not enough(name, [], 0.1)


@pytest.mark.parametrize(
    ("sizes", "known", "end"),
    [
        ((200.0, 199.0), (True, False), "upper"),
        ((199.0, 200.0), (False, True), "lower"),
        ((200.0, 200.0), (True, True), ""),
    ],
)
def test_short_runs_leave_an_end_open(sizes: tuple[float, float], known: tuple[bool, bool], end: str) -> None:
    """And are never enough, where that is the upper one."""
    pairs = [Pair(1.0, ratio, sizes) for ratio in (2.0, 2.01, 2.02)]
    found = paired_ratio("latency.p99", pairs)
    assert (found.low is not None, found.high is not None) == known
    assert end in (found.reason or "")
    assert enough("latency.p99", pairs, 0.1) == known[1]
    assert paired_ratio("kept", pairs).high is not None
    same = paired_ratio("latency.p99", [pairs[0]] * 3)
    assert same.low == pytest.approx(2)
    assert same.high == pytest.approx(2)


@pytest.mark.parametrize(("name", "rank"), [("latency.p50", 0.5), ("latency.p99", 0.99)])
@pytest.mark.parametrize("size", [200, 1000])
def test_ends_have_what_percentiles_of_few_values_are_too_low_by(name: str, rank: float, size: int) -> None:
    """Of exponential values: as much as their mean at least, and 0.8 to 1 of what the mean of their logarithm is."""
    alike = [Pair(1.0, ratio, (math.inf, math.inf)) for ratio in (2.0, 2.2)]
    few = [pair._replace(sizes=(math.inf, size)) for pair in alike]
    known, wider = paired_ratio(name, alike), paired_ratio(name, few)
    assert known.high is not None
    assert wider.high is not None
    assert wider.low == known.low
    place, quantile, higher = math.ceil(rank * size), -math.log(1 - rank), math.log(wider.high / known.high)
    assert higher >= 1 - sum(1 / left for left in range(size - place + 1, size + 1)) / quantile
    smallest = -np.log1p(-np.random.default_rng(1).beta(place, size - place + 1, 1_000_000))
    assert 0.8 <= higher / (math.log(quantile) - np.log(smallest).mean()) <= 1


def test_a_queue_is_that_of_lindley() -> None:
    """And a request beside a neighbour is never earlier than alone."""
    random = np.random.default_rng(1)
    due, service = np.cumsum(random.exponential(1.5, 200)), random.exponential(1.0, 200)
    end, expected = 0.0, []
    for at, long in zip(due, service, strict=True):
        end = max(at, end) + long
        expected.append(end - at)
    assert latencies(due, service) == pytest.approx(np.array(expected))
    alone, beside = pair(random, 0.4, 0.3, 500)
    assert len(alone) == len(beside)
    assert (beside - alone).min() > -1e-9
    assert beside.mean() > alone.mean()


@pytest.mark.parametrize(("rho_b", "requests", "most_open"), [(0.3, 3_000, 0.1), (0.5, 1_000, 1.0)])
def test_intervals_hold_the_truth_as_often_as_they_say(rho_b: float, requests: int, most_open: float) -> None:
    """95 % of 150 cells, with rounds that end early, and open ends: 90 % or more (three standard errors are 5 %). Of
    p99 with 1000 requests at 80 % load all are open: with an upper end, 80 % would hold it."""
    _, (median, p99, mean) = measure(0.3, rho_b, requests, 150, 5, 0.1)
    for found in (median, p99, mean):
        assert found.holds >= 0.9, found
        assert 3 <= found.rounds <= 5
    assert median.holds <= 0.98
    assert p99.open <= most_open
    assert p99.open == 1 or most_open < 1
