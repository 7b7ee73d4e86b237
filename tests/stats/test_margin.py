"""Margins: they hold the truth as often as they say, whatever correlates, and none is told without a reason."""

from __future__ import annotations

import math
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
from loadtrt.results.breakdown import PERCENTILES, MetricSummary
from loadtrt.results.run_result import ObjectiveShare
from loadtrt.stats.margin import least_for_margin, margins, rate_margin
from loadtrt.stats.summary import summarize
from runs_by_hand import run_of

if TYPE_CHECKING:
    import numpy.typing as npt

# Values of tables: Student's t at 97.5 % with 15, 7 and 3 degrees of freedom.
T15, T7, T3 = 2.131, 2.365, 3.182


def _sections(numbers: npt.ArrayLike, length: int = 100) -> npt.NDArray[np.int64]:
    """Values that are the same within each section: any percentile and the mean of it is that."""
    return np.repeat(np.asarray(numbers, np.int64), length)


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


def test_the_law_on_sections_that_look_independent() -> None:
    """margin = exp(t₁₅ · √(Σ (ln s_j − ln s)² / (16 · 15))) − 1, as s_j go up and down."""
    numbers = [10_000 + (-1) ** place * 10 * (place + 1) for place in range(16)]
    whole = float(np.mean(numbers))
    half = T15 * math.sqrt(sum(math.log(number / whole) ** 2 for number in numbers) / (16 * 15))
    assert margins(_sections(numbers), {})["mean"] == pytest.approx(math.expm1(half), rel=1e-9)


def test_the_law_on_sections_with_a_trend() -> None:
    """Neighbours alike: four sections are taken, whose t is larger, and whose means are farther apart."""
    numbers = [10_000 + 100 * place for place in range(16)]
    quarters, whole = np.reshape(numbers, (4, 4)).mean(axis=1), np.mean(numbers)
    half = T3 * math.sqrt(float(np.sum(np.log(quarters / whole) ** 2)) / (4 * 3))
    assert margins(_sections(numbers), {})["mean"] == pytest.approx(math.expm1(half), rel=1e-9)


def test_the_autocorrelation_of_few_sections_is_taken_for_a_sixteenth_more_than_it_seems() -> None:
    """r of 16 independent numbers is −1/16 in the mean. So r = 0.08 is not below 1/(2√16) − 1/16, although it is below
    1/(2√16), and eight sections are taken."""
    numbers = np.round(1e6 * np.exp(0.01 * np.random.default_rng(32).normal(0, 1, 16)))
    around = np.log(numbers / numbers.mean())
    around -= around.mean()
    assert 1 / 8 - 1 / 16 < float(around[1:] @ around[:-1]) / float(around @ around) < 1 / 8
    eighths = numbers.reshape(8, 2).mean(axis=1)
    half = T7 * math.sqrt(float(np.sum(np.log(eighths / numbers.mean()) ** 2)) / (8 * 7))
    assert margins(_sections(numbers), {})["mean"] == pytest.approx(math.expm1(half), rel=1e-9)


def test_what_never_changes_has_no_margin_to_speak_of() -> None:
    """0, not unknown."""
    assert margins(np.full(4000, 7_000), PERCENTILES) == dict.fromkeys(("p50", "p90", "p95", "p99", "mean"), 0.0)


@given(st.lists(st.integers(1_000, 2_000), min_size=64, max_size=300), st.integers(2, 1000))
def test_margins_have_no_unit(values: list[int], factor: int) -> None:
    """Times in ns or in µs: a ratio is one all the same."""
    found = margins(np.array(values), {"p50": 0.5})
    assert margins(np.array(values) * factor, {"p50": 0.5}) == pytest.approx(found, rel=1e-9)


@pytest.mark.parametrize(("rank", "least"), [(0.5, 40), (0.9, 200), (0.95, 400), (0.99, 2000), (0.999, 20_000)])
def test_as_many_requests_as_it_says(rank: float, least: int) -> None:
    """Five beyond the percentile in each of four sections: one request less, and nothing is told."""
    assert least_for_margin(rank) == least
    values = np.random.default_rng(1).integers(1000, 2000, least)
    assert "it" in margins(values, {"it": rank})
    assert "it" not in margins(values[1:], {"it": rank})


@pytest.mark.parametrize("count", [0, 1, 15, 16, 39])
def test_too_few_for_anything(count: int) -> None:
    """No margin, and no fault."""
    assert margins(np.arange(1, count + 1), PERCENTILES) == {}


def test_nothing_of_what_is_0_somewhere() -> None:
    """0 has no logarithm: a queue that is empty for a sixteenth of the run has no margin there, though its mean has."""
    values = np.arange(1, 1601)
    values[:60] = 0
    assert set(margins(values, {"p50": 0.5, "p90": 0.9})) == {"p90", "mean"}
    values[:100] = 0
    assert margins(values, {"p50": 0.5}) == {}


@pytest.mark.parametrize("load", [0.5, 0.85])
def test_margins_of_queues_cover(load: float) -> None:
    """M/M/1 after its beginning: at least 90 % of margins of the mean and the median hold the true one (of 200 runs;
    95 % less three deviations), where taking requests for independent holds it in less than half."""
    mean, held, naive = SERVICE_NS / (1 - load), {"mean": 0, "p50": 0}, 0
    true = {"mean": mean, "p50": mean * math.log(2)}
    for seed in range(200):
        records = run(load, 60_000, seed)
        latency = (records.completed - records.due)[20_000:]
        found, seen = margins(latency, {"p50": 0.5}), {"mean": latency.mean(), "p50": np.median(latency)}
        for name in held:
            held[name] += abs(math.log(seen[name] / true[name])) <= math.log1p(found[name])
        naive += abs(seen["mean"] - mean) <= 1.96 * latency.std() / math.sqrt(len(latency))
    assert min(held.values()) >= 180
    assert naive < 100


def test_order_matters() -> None:
    """The same latencies shuffled look far better known."""
    records = run(0.85, 50_000, 1)
    latency = records.completed - records.due
    shuffled = np.random.default_rng(1).permutation(latency)
    ordered, mixed = margins(latency, PERCENTILES), margins(shuffled, PERCENTILES)
    assert all(ordered[name] > 3 * mixed[name] for name in ("p50", "p99", "mean"))


# --- where they are kept


def test_a_summary_has_them_in_the_order_of_due_instants() -> None:
    """However the rows lie; failed requests are in none."""
    records = run(0.85, 5000, 1)
    mixed = Records(np.random.default_rng(1).permutation(records.rows))
    found = _summary(records)
    assert found.margins == pytest.approx(margins(records.completed - records.due, PERCENTILES))
    assert _summary(mixed).margins == found.margins
    failed = records.rows.copy()
    failed[::2, COLUMNS.index("status")] = FAILED
    half = Records(failed[1::2])
    assert _summary(Records(failed)).margins == pytest.approx(margins(half.completed - half.due, PERCENTILES))


def test_a_summary_from_histograms_knows_less() -> None:
    """Its percentiles may be off by QUANTILE_ERROR besides, its mean is exact."""
    records = run(0.5, 5000, 1)
    exact, rough = _summary(records).margins, _summary(records, complete=False).margins
    assert rough["mean"] == pytest.approx(exact["mean"])
    assert rough["p50"] == pytest.approx((1 + exact["p50"]) * (1 + QUANTILE_ERROR) - 1)


def test_a_rate_is_known_as_well_as_its_gaps() -> None:
    """Steady completions: exactly. Poisson ones: 1.96/√n and a little more. Too few: not at all."""
    assert rate_margin(_served(np.full(1000, 5))) == 0
    due = np.cumsum(np.random.default_rng(3).exponential(1e6, 40_000)).astype(np.int64)
    poisson = _served(np.zeros(40_000))
    poisson.rows[:, COLUMNS.index("completed")] = due
    margin = rate_margin(poisson)
    assert margin is not None
    assert 0.5 < margin / (1.96 / math.sqrt(40_000)) < 2.5
    assert rate_margin(_served(np.full(20, 5))) is None
    assert rate_margin(_served([])) is None


def test_files_from_before_margins_still_load() -> None:
    """They have none."""
    old = {"count": 1, "mean_ns": 1.0, "min_ns": 1, "max_ns": 1, "percentiles_ns": dict.fromkeys(PERCENTILES)}
    assert MetricSummary.model_validate(old).margins == {}


def test_margins_are_told_in_digits() -> None:
    """Three of them, and beyond a thousand all: no margin is 1.45e+03 %."""
    shares = (0.0316, 0.9996, 9.99, 14.51, 4e5)
    assert [percent_text(share) for share in shares] == ["3.16 %", "100 %", "999 %", "1 451 %", "40 000 000 %"]


@pytest.mark.parametrize(
    ("objectives", "reached", "words"),
    [
        ((), 0.176, "latency's p99 within ±17.6 % (by the law of verdicts,"),
        (("latency.p50 < 1s", "latency.p90 < 1s", "latency.max < 1s"), 0.04, "latency's p50, p90 within ±4 % ("),
        ((), None, "too few requests bound latency's p99"),
    ],
)
def test_a_precision_that_was_not_reached(objectives: tuple[str, ...], reached: float | None, words: str) -> None:
    """Which percentiles are known how well, and why that is wider than the table's margin."""
    shares = [{"objective": text, "good": 1, "requests": 1, "value_ns": None} for text in objectives]
    run = run_of(
        options={"precision": "3%"},
        precision_reached=reached,
        objectives=tuple(ObjectiveShare.model_validate(share) for share in shares),
    )
    assert f"precision of ±3 % not reached: {words}" in " ".join(terminal_text(run).split())
