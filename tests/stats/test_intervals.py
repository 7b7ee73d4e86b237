"""Confidence intervals: they hold the truth as often as they say, whatever correlates, and say what is not known."""

from __future__ import annotations

import math
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.verdicts import SERVICE_NS, run
from loadtrt.records.histogram import QUANTILE_ERROR, Histogram
from loadtrt.records.records import COLUMNS, FAILED, METRICS, Records
from loadtrt.report.formatting import percent_text
from loadtrt.report.plain import terminal_text
from loadtrt.results.breakdown import PERCENTILES, ConfidenceInterval, MetricSummary, Throughput
from loadtrt.results.run_result import ObjectiveShare
from loadtrt.stats.binomial import quantile_ranks
from loadtrt.stats.intervals import mean_interval, quantile_interval, rate_interval
from loadtrt.stats.summary import summarize
from loadtrt.stats.verdict import (
    effective_mean,
    effective_of,
    interval_ranks,
    least_bounded,
)
from runs_by_hand import run_of

if TYPE_CHECKING:
    import numpy.typing as npt

    Values = npt.NDArray[np.int64]


def _served(latency: npt.ArrayLike, gap_ns: int = 1_000_000) -> Records:
    """Requests due at equal distances."""
    latency = np.asarray(latency, np.int64)
    rows = np.zeros((len(latency), len(COLUMNS)), np.int64)
    rows[:, COLUMNS.index("due")] = np.arange(len(latency)) * gap_ns
    rows[:, COLUMNS.index("completed")] = rows[:, COLUMNS.index("due")] + latency
    return Records(rows)


def _summary(records: Records, complete: bool = True) -> MetricSummary:
    histograms = {metric.name: Histogram() for metric in METRICS}
    for metric in METRICS:
        histograms[metric.name].add(metric.of(records.ok))
    return summarize(records, histograms, complete)["latency"]


def _of(values: Values, rank: float) -> tuple[float, ConfidenceInterval | None]:
    """A percentile, and its interval."""
    ordered = np.sort(values)
    value = float(ordered[math.ceil(rank * len(values)) - 1])
    return value, quantile_interval(rank, value, values, ordered)


def _independent(count: int, seed: int = 1) -> Values:
    return np.random.default_rng(seed).integers(1_000_000, 2_000_000, count)


# --- the laws


def test_the_law_of_percentiles() -> None:
    """Order statistics at the ranks of the binomial law, for N²/(N + 100) requests; N counts those above the percentile
    and the metric clipped there, whose variance is far above that of jitter."""
    values = run(0.7, 20_000, 1).completed - run(0.7, 20_000, 1).due
    value, interval = _of(values, 0.9)
    assert interval is not None
    size = effective_of(values > value, np.minimum(values / value, 1.0))
    assert interval.effective == size
    ranks = quantile_ranks(0.9, size * size / (size + 100))
    assert interval_ranks(0.9, size) == ranks
    ends = [np.sort(values)[math.ceil(rank * len(values)) - 1] for rank in ranks if rank is not None]
    assert [interval.low, interval.high] == pytest.approx(ends, rel=1e-4)


def test_a_clock_that_wanders_by_less_than_jitter_is_in_the_interval() -> None:
    """A slow wave of 1.4 % makes it longer, though the effective size takes it for jitter; independent noise as large
    does not."""
    place, noise = np.arange(20_000), np.random.default_rng(1).normal(0, 0.02, 20_000)
    longer = []
    for times in (1 + noise, 1 + noise / 10 + 0.02 * np.sin(place / 200)):
        values = (1e6 * times).astype(np.int64)
        _, interval = _of(values, 0.99)
        assert interval is not None
        rank = interval_ranks(0.99, interval.effective)[1]
        assert rank is not None
        longer.append((interval.high or 0) / np.sort(values)[math.ceil(rank * len(values)) - 1])
    assert longer[0] < 1.0005
    assert longer[1] > 1.002


def test_the_law_of_means() -> None:
    """1/m ± h/m, h = 1.96·s/(m·√M), M = N²/(N + 200), farther above by Edgeworth's term of the skewness."""
    values = (1e6 * np.random.default_rng(1).exponential(1.0, 5000)).astype(np.int64)
    mean, deviation, size = float(values.mean()), float(values.std()), effective_mean(values.astype(np.float64))
    half = 1.96 * deviation / mean / math.sqrt(size * size / (size + 200))
    skewness = fmean(((values - mean) / deviation) ** 3)
    term = skewness * (2 * 1.96**2 + 1) / (6 * 1.96 * math.sqrt(size * size / (size + 200)))
    interval = mean_interval(mean, values)
    assert interval is not None
    assert interval.low == pytest.approx(mean / (1 + half))
    assert interval.high == pytest.approx(mean / (1 - half * (1 + term)))
    assert interval.effective == size


def test_what_never_changes_is_known_exactly() -> None:
    """Both ends are the number."""
    values = np.full(8000, 7_000)
    for interval in (*(_of(values, rank)[1] for rank in (0.5, 0.9, 0.99)), mean_interval(7000.0, values)):
        assert interval is not None
        assert (interval.low, interval.high) == (7000, 7000)


@given(st.lists(st.integers(1_000, 2_000), min_size=64, max_size=300), st.integers(2, 1000))
def test_intervals_have_no_unit(values: list[int], factor: int) -> None:
    """Times in ns or in µs."""
    for rank in (0.5, 0.9):
        one, other = _of(np.array(values), rank)[1], _of(np.array(values) * factor, rank)[1]
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            ends = [(one.low, other.low), (one.high, other.high)]
            assert all((a is None and b is None) or b == pytest.approx((a or 0) * factor) for a, b in ends)


@pytest.mark.parametrize(("rank", "least"), [(0.5, 26), (0.9, 80), (0.99, 449), (0.999, 3785)])
def test_a_sample_that_is_worth_too_little_has_no_upper_end(rank: float, least: int) -> None:
    """ "At least": one effective request less, and there is none."""
    assert math.ceil(least_bounded(rank)) == least
    assert interval_ranks(rank, float(least))[1] is not None
    assert interval_ranks(rank, float(least - 1))[1] is None


@pytest.mark.parametrize("count", [0, 1, 15])
def test_too_few_for_anything(count: int) -> None:
    """No interval, and no fault."""
    values = np.arange(1, count + 1)
    assert mean_interval(5.0, values) is None
    assert count == 0 or _of(values, 0.5)[1] is None
    assert _summary(_served(values)).confidence == {}


def test_queues_that_are_empty_at_times() -> None:
    """0 is an end like any other number; the mean of nothing but zeros has no interval."""
    queues = np.where(np.random.default_rng(1).random(5000) < 0.5, 0, 1000)
    value, interval = _of(queues, 0.25)
    assert value == 0
    assert interval is not None
    assert (interval.low, interval.high) == (0, 0)
    assert mean_interval(0.0, np.zeros(5000, np.int64)) is None


def test_times_below_0_have_intervals() -> None:
    """A device's clock may be off by more than a short time lasts; such a number has no ratio, and no fault."""
    values = np.random.default_rng(1).normal(100, 200, 5000).astype(np.int64)
    for rank in (0.1, 0.25, 0.5):
        value, interval = _of(values, rank)
        assert interval is not None
        assert (interval.low or -math.inf) <= value <= (interval.high or math.inf)
    assert _summary(_served(values)).confidence["p50"].effective > 100
    assert _summary(_served(-values), complete=False).count == 5000


@pytest.mark.parametrize("load", [0.5, 0.85])
def test_intervals_of_queues_cover(load: float) -> None:
    """M/M/1: at least 90 % of intervals of the mean and of percentiles hold the true one (of 200 runs; 95 % less three
    deviations), where taking requests for independent holds the mean in less than half."""
    mean, naive = SERVICE_NS / (1 - load), 0
    ranks = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
    held = dict.fromkeys(("mean", *ranks), 0)
    for seed in range(200):
        records = run(load, 60_000, seed)
        latency = (records.completed - records.due)[20_000:]
        intervals = {name: (_of(latency, rank)[1], -mean * math.log(1 - rank)) for name, rank in ranks.items()}
        intervals["mean"] = mean_interval(float(latency.mean()), latency), mean
        for name, (interval, true) in intervals.items():
            assert interval is not None
            held[name] += (interval.low or 0) <= true <= (interval.high or math.inf)
        naive += abs(latency.mean() - mean) <= 1.96 * latency.std() / math.sqrt(len(latency))
    assert min(held.values()) >= 180, held
    assert naive < 100


def test_means_of_long_tails_cover() -> None:
    """Lognormal with CV 3, 300 independent values: at least 93 % of 300 intervals hold the mean, where those of the
    normal law do in less than 90 %."""
    sigma = math.sqrt(math.log(10))
    held = naive = 0
    for seed in range(300):
        values = (1e6 * np.random.default_rng(seed).lognormal(-(sigma**2) / 2, sigma, 300)).astype(np.int64)
        interval = mean_interval(float(values.mean()), values)
        assert interval is not None
        held += (interval.low or 0) <= 1e6 <= (interval.high or math.inf)
        naive += abs(values.mean() - 1e6) <= 1.96 * values.std() / math.sqrt(300)
    assert held >= 279
    assert naive < 270


def test_order_matters() -> None:
    """The same latencies shuffled look far better known."""
    records = run(0.85, 50_000, 1)
    latency = records.completed - records.due
    shuffled = np.random.default_rng(1).permutation(latency)
    for rank in (0.5, 0.99):
        ordered, mixed = _of(latency, rank)[1], _of(shuffled, rank)[1]
        assert ordered is not None
        assert mixed is not None
        assert ordered.effective < mixed.effective / 10


# --- where they are kept


def test_a_summary_has_them_in_the_order_of_due_instants() -> None:
    """However the rows lie; failed requests are in none."""
    records = run(0.85, 5000, 1)
    mixed = Records(np.random.default_rng(1).permutation(records.rows))
    found, latency = _summary(records), records.completed - records.due
    for name, rank in PERCENTILES.items():
        assert found.confidence.get(name) == _of(latency, rank)[1]
    assert found.confidence["mean"] == mean_interval(found.mean_ns or 0, latency)
    assert _summary(mixed).confidence == found.confidence
    failed = records.rows.copy()
    failed[::2, COLUMNS.index("status")] = FAILED
    half = Records(failed[1::2])
    assert _summary(Records(failed)).confidence == _summary(half).confidence


def test_a_summary_from_histograms_knows_less() -> None:
    """Its percentiles may be off by QUANTILE_ERROR besides, its mean is exact."""
    records = run(0.5, 5000, 1)
    exact, rough = _summary(records).confidence, _summary(records, complete=False).confidence
    assert rough["mean"] == exact["mean"]
    for name in ("p50", "p90"):
        assert (rough[name].low or 0) <= (exact[name].low or 0)
        assert (rough[name].high or 0) >= (exact[name].high or 0)
        assert rough[name].high == pytest.approx(exact[name].high, rel=3 * QUANTILE_ERROR)


def test_a_rate_is_known_as_well_as_its_gaps() -> None:
    """Steady completions: exactly. Poisson ones: 1.96/√n and a little more. Too few: not at all."""
    steady = rate_interval(200.0, _served(np.full(1000, 5)))
    assert steady is not None
    assert (steady.low, steady.high) == (200, 200)
    due = np.cumsum(np.random.default_rng(3).exponential(1e6, 40_000)).astype(np.int64)
    poisson = _served(np.zeros(40_000))
    poisson.rows[:, COLUMNS.index("completed")] = due
    interval = rate_interval(1000.0, poisson)
    assert interval is not None
    assert interval.low is not None
    assert interval.high is not None
    for ratio in (1000 / interval.low, interval.high / 1000):
        assert 0.8 < (ratio - 1) / (1.96 / math.sqrt(40_000)) < 2
    assert rate_interval(1.0, _served(np.full(12, 5))) is None
    assert rate_interval(1.0, _served([])) is None


def test_a_busy_server_does_not_know_its_rate_better_than_its_arrivals() -> None:
    """Even completions of arrivals that are Poisson: by those; with even arrivals too: exactly."""
    due = np.cumsum(np.random.default_rng(3).exponential(1e6, 4000)).astype(np.int64)
    busy = _served(np.zeros(4000))
    assert rate_interval(1000.0, busy) == ConfidenceInterval(low=1000, high=1000, effective=3999)
    busy.rows[:, COLUMNS.index("due")] = due
    interval = rate_interval(1000.0, busy)
    assert interval is not None
    assert 1.02 < (interval.high or 0) / 1000 < 1.06


def test_files_from_before_these_intervals_still_load() -> None:
    """Without their margins, which were of another law."""
    old = {"count": 1, "mean_ns": 1.0, "min_ns": 1, "max_ns": 1, "percentiles_ns": dict.fromkeys(PERCENTILES)}
    assert MetricSummary.model_validate(old | {"margins": {"p50": 0.1}}).confidence == {}
    rates = {"requests_per_s": 1.0, "inferences_per_s": 1.0, "offered_per_s": None, "margin": 0.1}
    assert Throughput.model_validate(rates).confidence is None


# --- where they are shown


def test_a_number_without_an_upper_end_is_at_least_its_lower_one() -> None:
    """In the table and beside it."""
    result = run_of()
    latency = result.model.metrics["latency"]
    value = latency.percentiles_ns["p50"]
    assert value is not None
    ends = ConfidenceInterval(low=value / 2, high=None, effective=5.0)
    metrics = {**result.model.metrics, "latency": latency.model_copy(update={"confidence": {"p50": ends}})}
    text = terminal_text(run_of(metrics=metrics, objectives=()))
    rows = {line.split("  ")[0].strip() or line.split()[0]: line for line in text.splitlines() if "at " in line}
    assert "at least, at most: 95 % confidence intervals; at most –: the run is too short" in " ".join(text.split())
    lines = [line.split() for line in text.splitlines()]
    assert ["at", "most", "–"] in lines
    assert any(line[:2] == ["at", "least"] and len(line) == 4 for line in lines), rows


def test_shares_are_told_in_digits() -> None:
    """Three of them, and beyond a thousand all: none is 1.45e+03 %."""
    shares = (0.0316, 0.9996, 9.99, 14.51, 4e5)
    assert [percent_text(share) for share in shares] == ["3.16 %", "100 %", "999 %", "1 451 %", "40 000 000 %"]


@pytest.mark.parametrize(
    ("objectives", "reached", "words"),
    [
        ((), 0.176, "latency's p99 within ±17.6 %"),
        (("latency.p50 < 1s", "latency.p90 < 1s", "latency.max < 1s"), 0.04, "latency's p50, p90 within ±4 %"),
        ((), None, "the run is too short to bound latency's p99 from above"),
    ],
)
def test_a_precision_that_was_not_reached(objectives: tuple[str, ...], reached: float | None, words: str) -> None:
    """Which percentiles are known how well."""
    shares = [{"objective": text, "good": 1, "requests": 1, "value_ns": None} for text in objectives]
    run = run_of(
        options={"precision": "3%"},
        precision_reached=reached,
        objectives=tuple(ObjectiveShare.model_validate(share) for share in shares),
    )
    assert f"precision of ±3 % not reached: {words}" in " ".join(terminal_text(run).split())
