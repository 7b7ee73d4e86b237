"""What a comparison may not conclude: from one load given twice, from requests that were lost, from a load that changes
while it is measured; and what it says of how runs differ."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner

import loadtrt
from loadtrt.asked.load import Closed, Load, Offline, Rate, Stages
from loadtrt.asked.reading import varied
from loadtrt.asked.trace_load import Trace
from loadtrt.cli.main import cli
from loadtrt.load.arrivals import Constant, Gamma, Poisson
from loadtrt.records.histogram import Histogram
from loadtrt.report.comparison_sections import compared, compared_runs, side_of
from loadtrt.report.plain import plain
from loadtrt.results.breakdown import PERCENTILES, ConfidenceInterval, MetricSummary
from loadtrt.results.run_result import RunResult
from loadtrt.stats.measured import Measured
from loadtrt.stats.regression import Judged, compare, parse_threshold, ratio_of
from runs_by_hand import changed, run_of

if TYPE_CHECKING:
    from pathlib import Path

LATENCIES = np.linspace(1e6, 2e6, 50_000).astype(np.int64)  # percentile q is (1 + q) ms


def _run(name: str = "run.json", worse: float = 1.0, **changes: Any) -> Measured:
    """Latencies and computing alike, each number known to 1 %."""
    values = (LATENCIES * worse).astype(np.int64)
    histogram = Histogram()
    histogram.add(values)
    percentiles = {which: float(np.quantile(values, rank)) for which, rank in PERCENTILES.items()}
    mean = float(values.mean())
    summary = MetricSummary(
        count=len(values),
        mean_ns=mean,
        min_ns=int(values.min()),
        max_ns=int(values.max()),
        percentiles_ns=dict(percentiles),
        confidence={which: _within(value) for which, value in {**percentiles, "mean": mean}.items()},
    )
    metrics = {"latency": summary, "compute": summary}
    rates = {"throughput": 100 / worse, "inferences": 100 / worse}
    rate = _within(100 / worse)
    return replace(Measured(name, rates, rate, metrics, dict.fromkeys(metrics, histogram), trtexec=False), **changes)


def _within(value: float) -> ConfidenceInterval:
    return ConfidenceInterval(low=value / 1.01, high=value * 1.01, effective=50_000.0)


def _judged(text: str, a: list[Measured], b: list[Measured]) -> Judged:
    return compare(a, b, [parse_threshold(text)]).thresholds[0]


def _measured(path: Path, *options: str) -> RunResult:
    """A run in virtual time."""
    arguments = ["run", "--engine", "simulated:service=1ms,cv=0.3,clock=virtual", "--warmup", "0", "--quiet"]
    CliRunner().invoke(cli, [*arguments, *options, "--json", str(path)], catch_exceptions=False, standalone_mode=False)
    return RunResult.model_validate_json(path.read_text())


# --- one load given twice


@pytest.mark.parametrize("side", ["A", "B"])
def test_runs_of_one_side_with_one_seed_decide_nothing(side: str) -> None:
    """They have the same arrivals, and look alike whatever chance did; seeds that both sides have do no harm."""
    own = [_run(f"{seed}.json", 1 + 1e-4 * seed, seed=seed) for seed in (1, 2, 3)]
    same = [_run(f"{seed}.json", 1 + 1e-4 * seed, seed=1) for seed in (1, 2, 3)]
    assert _judged("latency.p99 +5%", own, own).verdict == "not regressed"
    found = _judged("latency.p99 +5%", *((same, own) if side == "A" else (own, same)))
    assert (found.verdict, found.ratio.low) == ("undecided", None)
    assert found.reason is not None
    assert found.reason.startswith("2.json has the seed of 1.json and the same arrivals")
    assert "--seed" in found.reason


@pytest.mark.parametrize(
    ("options", "seed"),
    [
        ({}, None),
        ({"arrivals": "constant", "rate": 100}, None),
        ({"arrivals": "offline", "requests": 100}, None),
        ({"arrivals": "poisson", "rate": 100}, 1),
        ({"arrivals": "gamma", "rate": 100, "burstiness": 2}, 1),
        ({"stages": "100/s:10s"}, 1),
        ({"mix": "1:0.5, 2:0.5"}, 1),
    ],
)
def test_where_the_seed_says_what_the_load_is(options: dict[str, Any], seed: int | None) -> None:
    """Where arrivals, or the parts of a mix, are drawn."""
    run = run_of()
    config = varied(run.config, **options)
    assert side_of("a.json", run.model_copy(update={"config": config})).measured.seed == seed


# --- requests that were lost


def test_lost_requests_are_later_than_all_others() -> None:
    """With 0.5 % lost, p98 of all is the served's at 0.98 / 0.995; numbers of the served alone, and of what a lost
    request never had, stay what they are."""
    lost = _run("lost.json", lost=0.005)
    found = _judged("latency.p98 +5%", [_run()], [lost])
    assert found.ratio.b == pytest.approx(1e6 * (1 + 0.98 / 0.995), rel=0.005)
    assert found.ratio.b is not None
    assert found.ratio.b > 1e6 * 1.98 * 1.001
    assert ratio_of("latency.p99", [_run()], [lost]).ratio == 1
    assert _judged("compute.p99 +5%", [_run()], [lost]).ratio.ratio == 1


def test_losses_that_hide_a_regression_do_not_pass() -> None:
    """Those served look the same on both sides, while B lost what would have been its latest. One that lost more by
    the share above the percentile is worse, whatever the others took."""
    few, many = _run("few.json", lost=0.0095), _run("many.json", lost=0.02)
    assert _judged("latency.p99 +5%", [_run()], [_run()]).verdict == "not regressed"
    assert _judged("latency.p99 +5%", [_run()], [few]).verdict == "undecided"
    found = _judged("latency.p99 +5%", [_run()], [many])
    assert (found.verdict, found.reason) == ("regressed", "B dropped or failed 2 % of its requests and A 0 %")
    assert _judged("latency.p99 +5%", [_run()] * 2, [many, _run()]).verdict == "undecided"
    assert _judged("latency.p90 +5%", [_run()], [many]).verdict == "not regressed"


@pytest.mark.parametrize(
    ("text", "a", "b", "reason"),
    [
        ("latency.p99 +5%", 0.02, 0.0, "a.json dropped or failed 2 % of its requests, and p99 of all is not known"),
        ("latency.p99 +5%", 0.02, 0.025, "a.json dropped or failed 2 % of its requests, and p99 of all is not known"),
        ("latency.p99.9 +5%", 0.0, 0.0005, "b.json dropped or failed 0.05 % of its requests, and p99.9 of all is not"),
        ("latency.mean +5%", 0.0, 0.0005, "b.json dropped or failed 0.05 % of its requests, and mean of all is not"),
        ("latency.p99 +5%", 1.0, 1.0, "a.json dropped or failed 100 % of its requests, and p99 of all is not known"),
    ],
)
def test_where_losses_leave_nothing_to_know(text: str, a: float, b: float, reason: str) -> None:
    """Undecided, with the share that says why."""
    found = _judged(text, [_run("a.json", lost=a)], [_run("b.json", lost=b)])
    assert found.verdict == "undecided"
    assert found.reason is not None
    assert found.reason.startswith(reason)


def test_a_bounded_queue_does_not_pass_a_gate(tmp_path: Path) -> None:
    """--max-queue keeps latencies low by dropping: the comparison says so, and its gate stays shut."""
    load = ("--arrivals", "poisson", "--rate", "700/s", "--requests", "20000")
    a, b = _measured(tmp_path / "a.json", *load), _measured(tmp_path / "b.json", *load, "--max-queue", "2")
    sides = side_of("a.json", a), side_of("b.json", b)
    found = compared(sides[:1], sides[1:], [parse_threshold("latency.p99 +5%")])
    assert found.ratios[-1].name == "lateness.mean"
    assert next(ratio for ratio in found.ratios if ratio.name == "latency.p99").ratio < 1  # type: ignore[operator]
    assert found.thresholds[0].verdict == "regressed"
    text = " ".join(plain(list(compared_runs(found, sides))).split())
    assert f"B: dropped {b.model.dropped:,} of 20 000 requests: times are of the served".replace(",", " ") in text
    assert "latency.p99 +5%: REGRESSED" in text
    assert "max_queue – / 2" in text


# --- loads that change


@pytest.mark.parametrize(
    ("load", "steady"),
    [
        (Closed(), True),
        (Rate(Constant(), 100), True),
        (Rate(Poisson(), 100), True),
        (Rate(Gamma(4), 100), True),
        (Rate(Poisson(), 100, "1s/4s"), False),
        (Stages(Poisson(), "100/s:10s"), False),
        (Trace("t.csv"), False),
        (Offline(), False),
    ],
)
def test_what_is_a_steady_load(load: Load, steady: bool) -> None:
    """One rate at all times, however its gaps vary."""
    assert load.steady is steady


@pytest.mark.parametrize(
    "load",
    [
        ("--rate", "500/s", "--bursts", "2s/2s", "--duration", "20s"),
        ("--stages", "300/s:5s,600/s:5s"),
        ("--arrivals", "offline", "--requests", "5000"),
    ],
)
def test_a_load_that_changes_has_no_intervals_of_what_follows_it(load: tuple[str, ...], tmp_path: Path) -> None:
    """Latency, queue and (but for offline) throughput of parts tell of the schedule; what the engine takes has
    intervals still."""
    run = _measured(tmp_path / "run.json", *load)
    assert run.model.metrics["latency"].confidence == run.model.metrics["queue"].confidence == {}
    assert (run.model.throughput.confidence is None) == ("offline" not in load)
    assert "p50" in run.model.metrics["compute"].confidence


def test_an_offline_rate_is_known_from_one_run(tmp_path: Path) -> None:
    """All wait from the start, so that what leaves tells of the engine alone: its rate has an interval, which holds the
    mean of 40 runs in nearly all of these, and gates decide by it."""
    offline = ("--arrivals", "offline", "--requests", "2000")
    runs = [_measured(tmp_path / f"{seed}.json", *offline, "--seed", str(seed)) for seed in range(40)]
    rates = [run.model.throughput for run in runs]
    ends = [(rate.confidence.low or 0, rate.confidence.high or math.inf) for rate in rates if rate.confidence]
    true = float(np.mean([rate.requests_per_s for rate in rates]))
    assert sum(low <= true <= high for low, high in ends) >= 35
    assert max(high / low for low, high in ends) < 1.2
    a, b = (side_of(name, run).measured for name, run in zip(("a.json", "b.json"), runs, strict=False))
    assert _judged("throughput -10%", [a], [b]).verdict == "not regressed"
    latency = _judged("latency.p99 +10%", [a], [b])
    assert latency.reason is not None
    assert latency.reason.startswith("the load of a.json is not steady")
    old = replace(a, rate_interval=None)
    assert "has no confidence interval of throughput" in (_judged("throughput -10%", [old], [b]).reason or "")


def test_gates_on_a_load_that_changes_need_several_runs() -> None:
    """Undecided, and why; also of files from before that, which have such intervals."""
    bursts = [_run(f"{number}.json", 1 + 1e-4 * number, steady=False, steady_rate=False) for number in (1, 2, 3)]
    for text in ("latency.p99 +5%", "latency.mean +5%", "latency.p97 +5%", "throughput -3%"):
        found = _judged(text, bursts[:1], bursts[1:2])
        assert (found.verdict, found.ratio.low) == ("undecided", None)
        assert found.reason is not None
        assert found.reason.startswith("the load of 1.json is not steady")
        assert _judged(text, bursts, bursts).verdict == "not regressed"
    assert _judged("compute.p99 +5%", bursts[:1], bursts[1:2]).verdict == "not regressed"
    run = run_of()
    config = varied(run.config, rate="500/s", bursts="1s/4s")
    assert side_of("a", run).measured.steady
    assert not side_of("a", run.model_copy(update={"config": config})).measured.steady


# --- how runs differ


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("mix", "1:0.5, 2:0.5", "mix – / 1:0.5, 2:0.5"),
        ("batcher", "max=4,delay=5ms", "batcher – / max=4,delay=5ms"),
        ("max_queue", 3, "max_queue – / 3"),
        ("rate", 500.0, "rate – / 500"),
        ("bursts", "1s/4s", "bursts – / 1s/4s"),
    ],
)
def test_options_that_differ_are_named(option: str, value: object, said: str) -> None:
    """Whatever changes what is measured."""
    run = run_of()
    other = run.model_copy(update={"config": varied(run.config, **{"rate": "100/s", option: value})})
    assert said in _text(run, other)
    assert "different" not in _text(other, other)


def test_how_many_workers_had_the_load_is_named() -> None:
    """And how they shared it: a fleet is compared with one process, with what is left of it, and with a part of it."""
    load: dict[str, Any] = {"engine": "simulated:service=1ms,clock=virtual", "rate": 500, "duration": "1s", "warmup": 0}
    parts = [loadtrt.run(**load, worker=f"{number}/2", routing="round-robin") for number in range(2)]
    one, fleet, left = loadtrt.run(**load), loadtrt.merge(*parts), loadtrt.merge(parts[0])
    assert "different: workers 1 / 2 · routing – / round-robin" in _text(one, fleet)
    assert "different: workers 1 of 2 / 2" in _text(left, fleet)
    assert "different: workers 0/2 alone / 2" in _text(parts[0], fleet)
    assert "different" not in _text(fleet, fleet)


def test_a_trace_that_is_slower_is_named(tmp_path: Path) -> None:
    """time_scale, which is of traces alone."""
    run = run_of()
    trace = tmp_path / "t.csv"
    trace.write_text("0\n1\n")
    one, two = (
        run.model_copy(update={"config": varied(run.config, trace=str(trace), time_scale=scale)})
        for scale in (1.0, 0.5)
    )
    assert "different: time_scale 1 / 0.5" in _text(one, two)


def test_engines_that_differ_are_named() -> None:
    """By their bytes, and by the shape of each tensor."""
    run = run_of()
    data, prob = run.model.engine.tensors
    wide = replace(data, shape=(16, 3, 299, 299))
    a = changed(run, engine=replace(run.model.engine, sha256="a" * 64))
    b = changed(run, engine=replace(run.model.engine, sha256="b" * 64, tensors=(wide, prob)))
    text = _text(a, b)
    assert "engine sha256 aaaaaaaaaaaa / bbbbbbbbbbbb" in text
    assert "shape of data 16×3×224×224 / 16×3×299×299" in text
    assert "prob" not in text


def _text(a: RunResult, b: RunResult) -> str:
    sides = [side_of("a.json", a)], [side_of("b.json", b)]
    text = plain(list(compared_runs(compared(*sides))))
    assert all(len(line) <= 80 for line in text.splitlines())
    return " ".join(text.split())


def test_one_file_of_times_given_twice(tmp_path: Path) -> None:
    """A copy is the same run; one that took another time is not."""
    keys = ["startEnqMs", "endEnqMs", "startH2dMs", "endH2dMs", "startComputeMs", "endComputeMs", "startD2hMs"]
    keys += ["endD2hMs", "h2dMs", "computeMs", "d2hMs", "latencyMs"]

    def write(name: str, compute: float) -> str:
        rows = [
            [t, t + 1, t, t + 1, t + 1, t + 1 + compute, t + 4, t + 5, 1, compute, 1, 2 + compute] for t in (300, 310)
        ]
        (tmp_path / name).write_text(json.dumps([dict(zip(keys, row, strict=True)) for row in rows]))
        return str(tmp_path / name)

    a, copy, other = write("a.json", 2), write("copy.json", 2), write("other.json", 2.5)
    found = CliRunner().invoke(cli, ["compare", a, other, "--a", copy])
    assert "copy.json is the same run as " in str(found.exception)
    assert CliRunner().invoke(cli, ["compare", a, a, "--a", other], standalone_mode=False).return_value == 0
