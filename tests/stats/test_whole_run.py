"""Verdicts on numbers of the whole run, on drops and on errors: right as often as they say, and in their units."""

from __future__ import annotations

import math
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

import anyio
import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.verdicts import SERVICE_NS, run
from loadtrt.asked.config import RunConfig
from loadtrt.asked.objective import parse_objective
from loadtrt.cli.main import cli
from loadtrt.engines.open import open_engine
from loadtrt.lanes.outcome import result_of
from loadtrt.lanes.scheduler import Stop
from loadtrt.lanes.session import Session, inputs_for, run_session
from loadtrt.records.histogram import Histogram
from loadtrt.records.records import COLUMNS, DROPPED, Records
from loadtrt.report.plain import terminal_text
from loadtrt.results.gpu_telemetry import GpuFacts, GpuInterval, GpuTelemetry, SamplingCost, telemetry_of
from loadtrt.results.run_result import ObjectiveShare, RunResult, Throughput
from loadtrt.results.steadiness import Interval
from loadtrt.stats.margin import rate_margin
from loadtrt.stats.verdict import judge
from loadtrt.stats.whole_run import judge_number
from loadtrt.units import SECOND_NS, format_count

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def _judged(
    text: str,
    records: Records,
    *,
    sizes: Sequence[int] = (1,),
    steady: bool = True,
    intervals: Sequence[Interval] = (),
    telemetry: GpuTelemetry | None = None,
) -> ObjectiveShare:
    """The verdict on an open loop of these records."""
    objective, completed = parse_objective(text), np.sort(records.ok.completed)
    rate = (len(completed) - 1) * SECOND_NS / float(completed[-1] - completed[0]) if len(completed) > 1 else None
    items = np.array(sizes)[records.ok.inputs if len(sizes) > 1 else np.zeros(len(completed), int)]
    rates = Throughput(
        requests_per_s=rate,
        inferences_per_s=None if rate is None else rate * float(items.mean()),
        offered_per_s=None,
        margin=rate_margin(records) if rate is not None and steady else None,
    )
    good = int(np.count_nonzero(~objective.bad(records.ok)))
    by_status = np.bincount(records.status, minlength=4).tolist()
    return judge_number(
        objective,
        rates,
        records,
        good,
        by_status,
        steady=steady,
        sizes=sizes,
        intervals=intervals,
        telemetry=telemetry,
    )


def _holds(item: ObjectiveShare, true: float) -> bool:
    assert item.value_low is not None
    assert item.value_high is not None
    return item.value_low <= true <= item.value_high


@pytest.mark.parametrize("load", [0.5, 0.85])
def test_the_interval_of_goodput_holds_the_truth(load: float) -> None:
    """M/M/1: served within b is λ·(1 − exp(−(μ − λ)·b)); in 95 % of 100 runs or more, but for what chance allows."""
    bound_ns = round(-math.log(0.2) / (1 - load) * SERVICE_NS)  # a fifth is late
    true = load * SECOND_NS / SERVICE_NS * 0.8
    found = [_judged(f"goodput(latency < {bound_ns}ns) > 1/s", run(load, 20_000, seed)) for seed in range(100)]
    assert sum(_holds(item, true) for item in found) >= 93
    assert all(item.verdict == "met" for item in found)


def test_the_interval_of_inferences_holds_the_truth_of_a_mix() -> None:
    """Requests of 1 and of 32 inferences: their mean has an error, too, which the rate of requests does not show."""
    held = 0
    for seed in range(100):
        records = run(0.5, 5_000, seed)
        records.rows[:, COLUMNS.index("inputs")] = np.random.default_rng(seed).random(5_000) < 0.1
        item = _judged("inferences > 1/s", records, sizes=[1, 32])
        held += _holds(item, 0.5 * SECOND_NS / SERVICE_NS * (0.9 + 3.2))
    assert held >= 93


def test_a_rate_is_met_missed_or_undecided() -> None:
    """By the interval alone, on either side of a bound."""
    records = run(0.5, 10_000, 1)
    truth = _judged("throughput > 1/s", records)
    assert truth.value_low is not None
    assert truth.value_high is not None
    for limit, verdict in (
        (truth.value_low * 0.999, "met"),
        (truth.value_low * 1.001, "undecided"),
        (truth.value_high * 0.999, "undecided"),
        (truth.value_high * 1.001, "missed"),
    ):
        item = _judged(f"throughput > {limit:.9f}/s", records)
        assert item.verdict == verdict
        assert (item.reason is not None) == (verdict == "undecided")
    close = _judged(f"throughput > {truth.value:.9f}/s", records)
    assert "too close to the bound" in (close.reason or "")
    longer = _judged(f"throughput > {(truth.value_low + 9 * truth.value_high) / 10:.9f}/s", records)
    assert "times as long would decide it" in (longer.reason or "")
    assert longer.bad is longer.value_ns is longer.effective is None


def test_exactly_the_bound() -> None:
    """Requests at equal gaps have a rate without an error: >= is met by it, and > is not."""
    rows = np.zeros((1_000, len(COLUMNS)), np.int64)
    rows[:, 0] = np.arange(1_000) * 10_000_000
    rows[:, 3] = rows[:, 0] + 1_000_000
    assert _judged("throughput >= 100/s", Records(rows)).verdict == "met"
    assert _judged("throughput > 100/s", Records(rows)).verdict == "missed"


def test_why_a_rate_has_no_interval() -> None:
    """Too few requests, none, and a schedule that changes the rate."""
    assert "3 requests are too few" in (_judged("throughput > 1/s", run(0.5, 3, 1)).reason or "")
    nothing = _judged("throughput > 1/s", Records(np.zeros((0, len(COLUMNS)), np.int64)))
    assert (nothing.verdict, nothing.value) == ("undecided", None)
    assert "too few requests" in (nothing.reason or "")
    varied = _judged("throughput > 1/s", run(0.5, 5_000, 1), steady=False)
    assert (varied.verdict, varied.value_low) == ("undecided", None)
    assert "the arrival rate changes" in (varied.reason or "")


def test_goodput_of_nothing_good_is_missed() -> None:
    """No request within the bound is no goodput, and that is decided."""
    item = _judged("goodput(latency < 1ns) > 80/s", run(0.5, 10_000, 1))
    assert (item.verdict, item.value, item.value_low) == ("missed", 0.0, 0.0)
    assert 0 < (item.value_high or 0) < 80


# --- the GPU


def _telemetry(watts: Sequence[float | None], requests: Sequence[int]) -> tuple[GpuTelemetry, list[Interval]]:
    """A second for each power; a request is one inference."""
    seconds = [
        GpuInterval(
            start_ns=number * SECOND_NS, duration_ns=SECOND_NS, readings=5, power_mean_watts=power, energy_joules=power
        )
        for number, power in enumerate(watts)
    ]
    nothing = dict.fromkeys(
        ("latency_mean_ns", "latency_p50_ns", "latency_p90_ns", "latency_p99_ns", "latency_max_ns", "queue_mean_ns")
    )
    intervals = [
        Interval(start_ns=number * SECOND_NS, requests=count, failed=0, compute_mean_ns=None, **nothing)
        for number, count in enumerate(requests)
    ]
    cost = SamplingCost(readings=5, lost=0, seconds=0.0, fraction=0.0)
    facts = GpuFacts(name="Fake H100")
    return telemetry_of(facts, seconds, sum(requests), every_ns=SECOND_NS // 5, missing=(), cost=cost), intervals


def _of_gpu(text: str, watts: Sequence[float | None], requests: Sequence[int]) -> ObjectiveShare:
    telemetry, intervals = _telemetry(watts, requests)
    return _judged(text, run(0.5, 5_000, 1), intervals=intervals, telemetry=telemetry)


@pytest.mark.parametrize("correlated", [0.0, 0.7])
def test_the_intervals_of_power_and_energy_hold_the_truth(correlated: float) -> None:
    """Power that wanders from second to second around 300 W, and 100 requests a second on average; 200 runs of 60 s."""
    held = {"power < 1kW": 0, "energy < 9J/inference": 0}
    true = {"power < 1kW": 300.0, "energy < 9J/inference": 3.0}
    for seed in range(200):
        random = np.random.default_rng(seed)
        noise, power = random.normal(0, 10, 160), 0.0
        watts = [300 + (power := correlated * power + step) for step in noise][100:]
        requests = random.poisson(100, 60).tolist()
        for text in held:
            held[text] += _holds(_of_gpu(text, watts, requests), true[text])
    assert min(held.values()) >= 200 * 0.92, held


def test_energy_follows_the_requests() -> None:
    """Where a second's energy is its requests' energy, that of an inference is known exactly, however they vary."""
    requests = [50, 150, 100, 75, 125, 90, 110, 60, 140, 100]
    item = _of_gpu("energy < 30mJ/inference", [0.02 * count for count in requests], requests)
    assert (item.value, item.value_low, item.value_high) == pytest.approx((0.02, 0.02, 0.02))
    assert item.verdict == "met"
    assert _of_gpu("energy < 19mJ/inference", [0.02 * count for count in requests], requests).verdict == "missed"
    assert _of_gpu("power < 2.1W", [0.02 * count for count in requests], requests).verdict == "undecided"


@pytest.mark.parametrize(
    ("watts", "reason"),
    [([300.0] * 7, "a run of 8 s or more"), ([300.0] * 9 + [None], "does not tell its energy in all of the run")],
)
def test_why_energy_has_no_interval(watts: list[float | None], reason: str) -> None:
    """Too short a run; a second without a number."""
    item = _of_gpu("energy < 30mJ/inference", watts, [100] * len(watts))
    assert item.verdict == "undecided"
    assert reason in (item.reason or "")


def test_without_telemetry_power_is_undecided() -> None:
    """No number is made up."""
    item = _judged("power < 300W", run(0.5, 5_000, 1))
    assert (item.verdict, item.value) == ("undecided", None)
    assert "no telemetry of a GPU" in (item.reason or "")


def test_a_run_is_judged_by_its_telemetry() -> None:
    """From options to run.json: batches of 4 at 100 requests a second on a GPU that draws 300 W take 0.75 J each."""
    wanted = ["power < 310W", "power < 290W", "energy < 0.8J/inference", "energy < 700mJ/inference"]
    options = {"rate": "100/s", "arrivals": "constant", "duration": "20s", "warmup": "0s", "batch": 4}
    config = RunConfig.of(engine="simulated:service=1ms,clock=virtual", objective=wanted, **options)
    engine, session = open_engine(config.model), Session()
    inputs = inputs_for(engine, config.model)
    bill = engine.memory(inputs)
    anyio.run(run_session, engine, config, inputs, Stop(), session)
    assert session.recorder is not None
    telemetry, _ = _telemetry([300.0] * 20, [400] * 20)
    about: dict[str, Any] = {"run": "", "load_ns": 0, "started": "", "command": (), "environment": {}}
    result = result_of(session, engine, config, bill, telemetry=telemetry, **about)
    assert [item.verdict for item in result.model.objectives] == ["met", "missed", "met", "missed"]
    text = " ".join(terminal_text(result).split())
    assert "✓ power < 310W: MET, 300 W (95 %: 300 .. 300 W)" in text
    assert "✗ energy < 700mJ/inference: MISSED, 750 mJ/inference (95 %: " in text


# --- drops and errors


def _loss_system(load: float, waiting: int, requests: int, seed: int) -> Records:
    """M/M/1 with so many places to wait, begun empty, simulated request by request."""
    random = np.random.default_rng(seed)
    due = np.cumsum(random.exponential(SERVICE_NS / load, requests)).astype(np.int64)
    service = random.exponential(SERVICE_NS, requests).astype(np.int64)
    rows, ends, end = np.zeros((requests, len(COLUMNS)), np.int64), deque[int](), 0
    for row, at, time in zip(rows, due.tolist(), service.tolist(), strict=True):
        while ends and ends[0] <= at:
            ends.popleft()
        if len(ends) > waiting:
            row[:4], row[COLUMNS.index("status")] = at, DROPPED
            continue
        begun = max(end, at)
        end = begun + time
        ends.append(end)
        row[:4] = at, begun, begun, end
    return Records(rows)


def _dropped(load: float, waiting: int) -> float:
    """The share that an M/M/1 queue with so many places to wait drops (Erlang)."""
    places = waiting + 1
    return (1 - load) * load**places / (1 - load ** (places + 1))


@pytest.mark.parametrize(("load", "waiting"), [(0.7, 17), (0.85, 14), (0.95, 40)])
def test_few_drops_are_not_certified(load: float, waiting: int) -> None:
    """A run in which hardly any request was dropped may have been lucky: the queue tells. A bound that is truly broken
    is "met" in 2.5 % of runs at most; the share among independent requests would be met in a quarter."""
    objective, verdicts = parse_objective(f"drops < {100 * _dropped(load, waiting) / 1.2:.6f}%"), Counter[str]()
    for seed in range(40):
        records = _loss_system(load, waiting, 10_000, seed)
        good = int(np.count_nonzero(~objective.bad(records)))
        verdicts[judge(objective, records, Histogram(), good, len(records)).verdict or ""] += 1
    assert verdicts["met"] <= 1, verdicts


def _run(path: Path, engine: str, *arguments: str) -> tuple[int, str, RunResult]:
    file = path / "run.json"
    options = ("--warmup", "0", "--json", str(file), "--no-live")
    engine = f"simulated:{engine},clock=virtual"
    done = CliRunner().invoke(cli, ["run", "--engine", engine, *options, *arguments], standalone_mode=False)
    assert done.exception is None, done.exception
    return int(done.return_value or 0), " ".join(done.stdout.split()), RunResult.model_validate_json(file.read_text())


def test_drops_as_a_closed_form_has_them(tmp_path: Path) -> None:
    """M/D/1 at twice its capacity drops about half, which is missed; and less than 70 % surely is."""
    load = ("--rate", "200/s", "--requests", "20000", "--max-queue", "4")
    wanted = ("--objective", "drops < 40%", "--objective", "drops < 70%", "--objective", "errors < 1%")
    code, text, result = _run(tmp_path, "service=10ms", *load, *wanted)
    assert code == 99
    assert [item.verdict for item in result.model.objectives] == ["missed", "met", "met"]
    share = result.model.objectives[0]
    assert share.bad == pytest.approx(result.model.dropped / 20_000)
    assert f"{100 * (share.bad or 0):.3g} % dropped" in text
    assert "0 % failed or not served" in text
    assert result.model.objectives[2].good == 20_000


def test_an_objective_on_errors_judges_them(tmp_path: Path) -> None:
    """Without one, a failed request is a problem; with one, it is a part of what may happen, in words."""
    load = ("--rate", "200/s", "--requests", "20000")
    code, text, _ = _run(tmp_path, "service=1ms,error=0.01", *load)
    assert code == 97
    assert "--objective 'errors < 1%'" in text
    code, text, result = _run(tmp_path, "service=1ms,error=0.01", *load, "--objective", "errors < 5%")
    assert (code, result.valid) == (0, True)
    assert f"VALID · {100 * result.model.failed / 20_000:.3g} % failed · objectives met" in text
    code, _, _ = _run(tmp_path, "service=1ms,error=0.01", *load, "--objective", "errors < 0.5%")
    assert code == 99


def test_the_units_are_never_times(tmp_path: Path) -> None:
    """A rate is shown per second, with its interval."""
    wanted = ("--objective", "throughput > 90/s", "--objective", "goodput(latency < 1s) > 80/s")
    code, text, result = _run(tmp_path, "service=1ms", "--rate", "100/s", "--requests", "5000", *wanted)
    assert code == 0
    rate = result.model.objectives[0]
    assert rate.value == result.model.throughput.requests_per_s
    assert rate.value_low is not None
    assert f"✓ throughput > 90/s: MET, {format_count(rate.value or 0)}/s (95 %: {rate.value_low:.1f} .." in text
    assert "goodput(latency < 1s) > 80/s: MET, " in text
