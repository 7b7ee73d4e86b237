"""Ratios and the verdicts on thresholds: exact by their laws, and wrong as seldom as they say."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from benchmarks.regressions import NUMBERS, differing, even, queueing, rows_of, wandering
from loadtrt.errors import UsageError
from loadtrt.records.histogram import QUANTILE_ERROR, Histogram
from loadtrt.results.breakdown import PERCENTILES, ConfidenceInterval, MetricSummary
from loadtrt.stats.measured import Measured
from loadtrt.stats.regression import (
    Ratio,
    compare,
    judged,
    parse_threshold,
    ratio_of,
    student,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.regressions import Times


def _run(
    p99_ns: float | None = 1e6,
    margin: float | None = 0.01,
    *,
    name: str = "run.json",
    count: int = 50_000,
    rate: float | None = 100.0,
    trtexec: bool = False,
    problem: str | None = None,
) -> Measured:
    """A run whose numbers are all the same and known equally well: within a factor of 1 + margin."""
    confidence = {}
    if p99_ns is not None and margin is not None:
        confidence = dict.fromkeys((*PERCENTILES, "mean"), _within(p99_ns, margin))
    summary = MetricSummary(
        count=count,
        mean_ns=p99_ns,
        min_ns=1,
        max_ns=2,
        percentiles_ns=dict.fromkeys(PERCENTILES, p99_ns),
        confidence=confidence,
    )
    metrics = {"device": summary} if trtexec else {"latency": summary, "queue": summary}
    histogram = Histogram()
    histogram.add(np.full(count, int(p99_ns or 0)))
    rates = {"throughput": rate, "inferences": None if trtexec else rate}
    interval = None if rate is None or margin is None else _within(rate, margin)
    return Measured(name, rates, interval, metrics, dict.fromkeys(metrics, histogram), trtexec, problem)


def _within(value: float, margin: float) -> ConfidenceInterval:
    return ConfidenceInterval(low=value / (1 + margin), high=value * (1 + margin), effective=1000.0)


def _known(low: float | None, high: float | None, value: float = 1e6, name: str = "run.json") -> Measured:
    """A run whose p99 has this interval."""
    run = _run(value, name=name)
    ends = ConfidenceInterval(low=low, high=high, effective=120.0)
    latency = run.metrics["latency"].model_copy(update={"confidence": {"p99": ends}})
    return replace(run, metrics={"latency": latency})


# --- thresholds


@pytest.mark.parametrize(
    ("text", "name", "allowed"),
    [
        ("latency.p99 +5%", "latency.p99", 0.05),
        (" latency.p99+5 % ", "latency.p99", 0.05),
        ("latency.p99.90 +0.5%", "latency.p99.9", 0.005),
        ("compute.mean +0%", "compute.mean", 0.0),
        ("device.p50 +150%", "device.p50", 1.5),
        ("throughput -3%", "throughput", -0.03),
        ("inferences −3%", "inferences", -0.03),
    ],
)
def test_thresholds(text: str, name: str, allowed: float) -> None:
    """By how much it may be worse; the text that is kept reads the same again."""
    threshold = parse_threshold(text)
    assert threshold.name == name
    assert threshold.allowed == pytest.approx(allowed)
    assert parse_threshold(threshold.text) == threshold


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "'' is not a threshold: write one such as 'latency.p99 +5%'"),
        ("latency.p99", "is not a threshold"),
        ("latency.p99 5%", "is not a threshold"),
        ("latency.p99 +5", "is not a threshold"),
        ("latency.p99 < 5ms", "is not a threshold"),
        ("latency.p99 +nan%", "is not a threshold"),
        ("speed.p99 +5%", "speed is not a metric: write throughput, inferences or one of latency, queue"),
        ("latency +5%", "does not say which latency: write latency.p99 or latency.mean"),
        ("latency.max +5%", "max has no confidence interval: write mean, or a percentile from p50 to p99.9"),
        ("latency.p10 +5%", "p10 has no confidence interval"),
        ("latency.p99.99 +5%", "p99.99 has no confidence interval"),
        ("latency.p99 -5%", "latency is worse when it rises: write 'latency.p99 +5%'"),
        ("throughput +3%", "throughput is worse when it falls: write 'throughput -3%'"),
        ("throughput.p99 -3%", "throughput is worse when it falls: write 'throughput -3%'"),
        ("throughput -100%", "a rate cannot fall by 100 % or more"),
    ],
)
def test_what_is_no_threshold(text: str, sentence: str) -> None:
    """One sentence that says what to write: a gate that is understood otherwise would never close."""
    with pytest.raises(UsageError) as error:
        parse_threshold(text)
    assert sentence in str(error.value)
    assert f"'{text}'" in str(error.value)


# --- ratios


def test_one_run_a_side() -> None:
    """ln(B/A) ± √(h_A² + h_B²)."""
    ratio = ratio_of("latency.p99", [_run(1e6, 0.03)], [_run(2e6, 0.04)])
    half = math.hypot(math.log(1.03), math.log(1.04))
    assert (ratio.name, ratio.unit, ratio.a, ratio.b, ratio.ratio) == ("latency.p99", "ns", 1e6, 2e6, 2.0)
    assert (ratio.low, ratio.high) == pytest.approx((2 * math.exp(-half), 2 * math.exp(half)))


def test_several_runs_a_side() -> None:
    """With three of each and the same variance s²: ± t₄ · s · √(2/3) on a log scale, t₄ = 2.776, without intervals
    of single runs."""
    logs = np.array([-0.01, 0.0, 0.01])
    a, b = ([_run(1e6 * worse * math.exp(x), None) for x in logs] for worse in (1.0, 1.1))
    ratio = ratio_of("latency.p99", a, b)
    half = 2.7764 * logs.std(ddof=1) * math.sqrt(2 / 3)
    assert ratio.ratio == pytest.approx(1.1)
    assert ratio.low == pytest.approx(1.1 * math.exp(-half), rel=1e-5)
    assert ratio.high == pytest.approx(1.1 * math.exp(half), rel=1e-5)
    assert ratio.reason is None


def test_sides_that_vary_by_different_amounts() -> None:
    """Welch and Satterthwaite: with s_A = 0, ν is that of B alone: ± t₂ · s_B / √3, t₂ = 4.303."""
    logs = np.array([-0.01, 0.0, 0.01])
    ratio = ratio_of("latency.p99", [_run(1e6)] * 3, [_run(1e6 * math.exp(x)) for x in logs])
    assert ratio.high == pytest.approx(math.exp(4.3027 * 0.01 / math.sqrt(3)), rel=1e-5)


@pytest.mark.parametrize("alone", ["a", "b"])
def test_a_run_alone_varies_as_the_others_do(alone: str) -> None:
    """± t₂ · s · √(1 + 1/3), whichever side it is on."""
    logs = np.array([-0.01, 0.0, 0.01])
    one, several = [_run()], [_run(1e6 * math.exp(x)) for x in logs]
    ratio = ratio_of("latency.p99", *((one, several) if alone == "a" else (several, one)))
    assert ratio.high == pytest.approx(math.exp(4.3027 * 0.01 * math.sqrt(4 / 3)), rel=1e-5)


@pytest.mark.parametrize(
    ("freedom", "table"), [(1, 12.706), (2, 4.3027), (3, 3.1824), (4, 2.7764), (7, 2.3646), (15, 2.1314), (30, 2.0423)]
)
def test_students_t(freedom: float, table: float) -> None:
    """Values of tables; between them it falls."""
    assert student(freedom) == pytest.approx(table, rel=1e-4)
    assert student(freedom) > student(freedom + 0.5)


def test_a_long_tail_makes_the_ratio_s_interval_long_on_one_side() -> None:
    """Below by B's lower and A's upper end, above by B's upper and A's lower one."""
    ratio = ratio_of("latency.p99", [_known(0.9e6, 1.6e6)], [_known(1.8e6, 3e6, 2e6)])
    below = math.hypot(math.log(2 / 1.8), math.log(1.6))
    above = math.hypot(math.log(3 / 2), math.log(1 / 0.9))
    assert (ratio.low, ratio.high) == pytest.approx((2 * math.exp(-below), 2 * math.exp(above)))


def test_a_ratio_may_be_known_on_one_side() -> None:
    """Without an upper end of A nothing is regressed, without one of B nothing is not: and the sentence says why."""
    alone = _known(0.9e6, None, name="short.json")
    known, worse = _known(0.9e6, 1.1e6), _known(1.8e6, None, 2e6, name="short.json")
    threshold = parse_threshold("latency.p99 +5%")
    better = ratio_of("latency.p99", [alone], [_known(0.5e6, 0.55e6, 0.52e6)])
    assert (better.low, better.high is None) == (None, False)
    assert judged(threshold, better).verdict == "not regressed"
    open_ended = judged(threshold, ratio_of("latency.p99", [alone], [known]))
    assert open_ended.verdict == "undecided"
    assert "contains 1.05" in (open_ended.reason or "")
    regressed = judged(threshold, ratio_of("latency.p99", [known], [worse]))
    assert (regressed.verdict, regressed.ratio.high) == ("regressed", None)
    unknown = judged(threshold, ratio_of("latency.p99", [known], [alone]))
    assert unknown.verdict == "undecided"
    assert unknown.reason == (
        "short.json does not bound p99 from above: its 50 000 requests are worth 120 independent ones (the effective "
        "sample size), and that takes 449"
    )


def test_a_percentile_that_is_not_kept() -> None:
    """From the histogram, with the longer of its neighbours' intervals and what a histogram may be off."""
    run = _run(1e6)
    confidence = {**run.metrics["latency"].confidence, "p95": _within(1e6, 0.02), "p99": _within(1e6, 0.05)}

    def with_(**found: ConfidenceInterval) -> Measured:
        latency = run.metrics["latency"].model_copy(update={"confidence": {**confidence, **found}})
        return replace(run, metrics={"latency": latency})

    ratio = ratio_of("latency.p97", [with_()], [with_()])
    assert ratio.a == pytest.approx(1e6, rel=QUANTILE_ERROR)
    half = math.sqrt(2) * math.log(1.05 * (1 + QUANTILE_ERROR))
    assert ratio.high == pytest.approx(math.exp(half))
    open_ended = with_(p99=ConfidenceInterval(low=0.9e6, high=None, effective=200.0))
    assert ratio_of("latency.p97", [with_()], [open_ended]).high is None
    del confidence["p99"]
    assert ratio_of("latency.p97", [with_()], [with_()]).high is None


@pytest.mark.parametrize(
    ("name", "a", "b", "ratio", "reason"),
    [
        (
            "latency.p99",
            _run(None, count=300, name="a.json"),
            _run(),
            None,
            "a.json has 300 requests, and p99 needs 459",
        ),
        ("latency.p97", _run(count=50, name="a.json"), _run(), None, "a.json has 50 requests, and p97 needs 152"),
        (
            "latency.p99",
            _run(),
            replace(_run(None, count=600, name="b.json"), metrics=_run(1e6, None, count=600).metrics),
            1.0,
            "b.json has no confidence interval of p99 (its 600 requests are too few",
        ),
        ("latency.p99", _run(margin=None, name="a.json"), _run(), 1.0, "a.json has no confidence interval of p99"),
        (
            "throughput",
            _run(margin=None, name="a.json"),
            _run(),
            1.0,
            "a.json has no confidence interval of throughput",
        ),
        ("queue.p50", _run(0.0, name="a.json"), _run(), None, "it is 0 in a.json"),
        ("queue.p50", _run(), _run(0.0, name="b.json"), 0.0, "it is 0 in b.json"),
        ("inferences", _run(), _run(trtexec=True, name="b.json"), None, "b.json does not have it"),
        ("device.p50", _run(), _run(trtexec=True, name="b.json"), None, "run.json does not have it"),
    ],
)
def test_why_a_ratio_is_not_known(name: str, a: Measured, b: Measured, ratio: float | None, reason: str) -> None:
    """Never a made-up interval; the sentence names the file and what would do."""
    found = ratio_of(name, [a], [b])
    assert found.ratio == ratio
    assert (found.low, found.high) == (None, None)
    assert found.reason is not None
    assert found.reason.startswith(reason)
    threshold = parse_threshold(f"{name} {'-' if name == 'inferences' or name == 'throughput' else '+'}5%")
    item = judged(threshold, found)
    assert (item.verdict, item.reason) == ("undecided", found.reason)


def test_runs_without_intervals_are_judged_by_each_other() -> None:
    """Two runs on each side."""
    a, b = ([_run(1e6 * x, None) for x in side] for side in ((1.0, 1.001), (1.2, 1.201)))
    assert judged(parse_threshold("latency.p99 +5%"), ratio_of("latency.p99", a, b)).verdict == "regressed"


# --- verdicts


def _ratio(low: float, high: float) -> Ratio:
    return Ratio(name="latency.p99", unit="ns", a=1.0, b=1.0, ratio=math.sqrt(low * high), low=low, high=high)


@pytest.mark.parametrize(
    ("low", "high", "text", "verdict"),
    [
        (1.051, 1.2, "latency.p99 +5%", "regressed"),
        (1.05, 1.2, "latency.p99 +5%", "undecided"),
        (0.9, 1.05, "latency.p99 +5%", "not regressed"),
        (0.9, 1.051, "latency.p99 +5%", "undecided"),
        (0.9, 0.969, "throughput -3%", "regressed"),
        (0.9, 0.97, "throughput -3%", "undecided"),
        (0.97, 1.2, "throughput -3%", "not regressed"),
        (0.969, 1.2, "throughput -3%", "undecided"),
        (1.0, 1.0, "latency.p99 +0%", "not regressed"),
        (1.1, 1.2, "latency.p99 +0%", "regressed"),
        (1.1, 1.2, "throughput -0%", "not regressed"),
        (0.8, 0.9, "throughput -0%", "regressed"),
    ],
)
def test_verdicts(low: float, high: float, text: str, verdict: str) -> None:
    """Where the whole interval lies on one side of the threshold."""
    item = judged(parse_threshold(text), _ratio(low, high))
    assert item.verdict == verdict
    assert (item.reason is not None) == (verdict == "undecided")


@given(low=st.floats(0.5, 2), wide=st.floats(1.0001, 2), percent=st.floats(0, 90))
def test_better_and_worse_mirror_each_other(low: float, wide: float, percent: float) -> None:
    """A time of B/A is a rate of A/B: the verdicts on x and on 1 − 1/(1 + x) agree but at the very edge."""
    rises = parse_threshold(f"latency.p99 +{percent:.3f}%")
    assume(all(abs(end / (1 + rises.allowed) - 1) > 1e-9 for end in (low, low * wide)))  # there rounding decides
    falls = replace(parse_threshold("throughput -1%"), allowed=1 / (1 + rises.allowed) - 1)
    times, rates = _ratio(low, low * wide), _ratio(1 / (low * wide), 1 / low)
    assert judged(rises, times).verdict == judged(falls, rates).verdict


def test_how_much_longer_it_would_take() -> None:
    """An interval narrows with the square root: twice as wide as it may be, four times as long."""
    half = math.log(1.05) * 2
    item = judged(parse_threshold("latency.p99 +5%"), _ratio(math.exp(-half), math.exp(half)))
    assert item.reason == "the interval of B/A contains 1.05: runs 4 times as long would decide it at the same ratio"
    item = judged(parse_threshold("latency.p99 +5%"), _ratio(math.exp(-half), math.exp(half)), several=True)
    assert item.reason == "the interval of B/A contains 1.05: 4 times as many runs would decide it at the same ratio"


# --- comparisons


def test_a_comparison_holds_every_number_and_every_problem() -> None:
    """Its JSON is read back the same."""
    a, b = _run(name="a.json"), _run(2e6, name="b.json", problem="INVALID: it was late")
    thresholds = [parse_threshold("latency.p99 +5%"), parse_threshold("throughput -3%")]
    found = compare([a], [b], thresholds)
    assert [ratio.name for ratio in found.ratios][:4] == ["throughput", "inferences", "latency.p50", "latency.p90"]
    assert len(found.ratios) == 2 + 2 * (len(PERCENTILES) + 1)
    assert [item.verdict for item in found.thresholds] == ["regressed", "not regressed"]
    assert (found.valid, found.problems) == (False, ("B (b.json): INVALID: it was late",))
    assert type(found).model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("latency.p99 +5%", "b.json is a times file of trtexec and has no latency: write one of throughput, "),
        ("inferences -3%", "b.json is a times file of trtexec and has no inferences"),
        ("device.p99 +5%", "a.json has no device"),
    ],
)
def test_numbers_that_a_file_never_has(text: str, sentence: str) -> None:
    """A threshold on them is a mistake, and no verdict."""
    sides = [_run(name="a.json")], [_run(name="b.json", trtexec=True)]
    with pytest.raises(UsageError, match=sentence):
        compare(*sides, [parse_threshold(text)])


# --- how often they are wrong (benchmarks/regressions.py does it at length)


def _wrong_seldom(times: Times, runs: int = 1, numbers: Sequence[str] = NUMBERS[:3]) -> None:
    """False alarms below 5 %. Elsewhere wrong as often as intervals that miss on one side may be among 100 pairs."""
    for row in rows_of("law", times, runs, tuple(numbers)):
        same, edge, worse = (row.verdicts[key] for key in ("1", "1.05", "1.1"))
        assert same.get("regressed", 0) < 0.05, row
        assert max(edge.get("regressed", 0), edge.get("not regressed", 0)) <= 0.1, row
        assert worse.get("not regressed", 0) <= 0.1, row


def test_false_alarms_are_rare_and_regressions_found() -> None:
    """Runs of steady times: never an alarm, and 10 % more is always seen."""
    times = even(2_000, 200, np.random.default_rng(1))
    _wrong_seldom(times, numbers=NUMBERS)
    for row in rows_of("even", times, 1, NUMBERS):
        assert row.verdicts["1"] == {"not regressed": 1.0}
        assert row.verdicts["1.1"] == {"regressed": 1.0}


def test_false_alarms_are_rare_where_a_clock_wanders() -> None:
    """For a tenth of a run at a time."""
    _wrong_seldom(wandering(10_000, 200, np.random.default_rng(2)))


@pytest.mark.parametrize("load", [0.5, 0.85])
def test_false_alarms_are_rare_in_queues(load: float) -> None:
    """Where one long queue makes many late."""
    _wrong_seldom(queueing(load, 10_000, 200, np.random.default_rng(1)))


def test_runs_that_differ_need_several() -> None:
    """With a factor of 2 % for each run, one run a side is nearly always wrong at the threshold; several are not."""
    random = np.random.default_rng(3)
    (alone,) = rows_of("one", differing(2_000, 200, random), 1, ("latency.p50",))
    edge = alone.verdicts["1.05"]
    assert edge.get("regressed", 0) + edge.get("not regressed", 0) > 0.8
    times = differing(1_000, 300, random)
    _wrong_seldom(times, 5, ("latency.p50",))
    (several,) = rows_of("several", times, 5, ("latency.p50",))
    assert several.verdicts["1.1"]["regressed"] > 0.7
