"""Verdicts on numbers of the whole run, on drops and on errors: right as often as they say, and in their units."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.objectives import drops_verdicts, gpu_holds, judged, of_gpu, rates_hold, telemetry
from benchmarks.verdicts import run
from loadtrt.asked.config import RunConfig
from loadtrt.cli.main import cli
from loadtrt.engines.open import open_engine
from loadtrt.lanes.input_sets import inputs_for
from loadtrt.lanes.outcome import result_of
from loadtrt.lanes.scheduler import Stop
from loadtrt.lanes.session import Session, run_session
from loadtrt.records.records import COLUMNS, Records
from loadtrt.report.plain import terminal_text
from loadtrt.results.run_result import RunResult
from loadtrt.units import format_count

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("load", [0.5, 0.85])
def test_intervals_of_rates_hold_the_truth(load: float) -> None:
    """In 95 % of 100 runs or more, but for what chance allows: also where a fifth is late, and of a mix whose mean size
    has an error that the rate of requests does not show."""
    found = [rates_hold(load, seed) for seed in range(100)]
    assert {name: sum(each[name] for each in found) >= 93 for name in found[0]} == dict.fromkeys(found[0], True)


def test_a_rate_is_met_missed_or_undecided() -> None:
    """By the interval alone, on either side of a bound."""
    records = run(0.5, 10_000, 1)
    truth = judged("throughput > 1/s", records)
    assert truth.value_low is not None
    assert truth.value_high is not None
    for limit, verdict in (
        (truth.value_low * 0.999, "met"),
        (truth.value_low * 1.001, "undecided"),
        (truth.value_high * 0.999, "undecided"),
        (truth.value_high * 1.001, "missed"),
    ):
        item = judged(f"throughput > {limit:.9f}/s", records)
        assert item.verdict == verdict
        assert (item.reason is not None) == (verdict == "undecided")
    close = judged(f"throughput > {truth.value:.9f}/s", records)
    assert "too close to the bound" in (close.reason or "")
    longer = judged(f"throughput > {(truth.value_low + 9 * truth.value_high) / 10:.9f}/s", records)
    assert "times as long would decide it" in (longer.reason or "")
    assert longer.bad is longer.value_ns is longer.effective is None


def test_exactly_the_bound() -> None:
    """Requests at equal gaps have a rate without an error: >= is met by it, and > is not."""
    rows = np.zeros((1_000, len(COLUMNS)), np.int64)
    rows[:, 0] = np.arange(1_000) * 10_000_000
    rows[:, 3] = rows[:, 0] + 1_000_000
    assert judged("throughput >= 100/s", Records(rows)).verdict == "met"
    assert judged("throughput > 100/s", Records(rows)).verdict == "missed"


def test_why_a_rate_has_no_interval() -> None:
    """Too few requests, none, and a schedule that changes the rate."""
    assert "3 requests are too few" in (judged("throughput > 1/s", run(0.5, 3, 1)).reason or "")
    nothing = judged("throughput > 1/s", Records(np.zeros((0, len(COLUMNS)), np.int64)))
    assert (nothing.verdict, nothing.value) == ("undecided", None)
    assert "too few requests" in (nothing.reason or "")
    varied = judged("throughput > 1/s", run(0.5, 5_000, 1), steady=False)
    assert (varied.verdict, varied.value_low) == ("undecided", None)
    assert "the arrival rate changes" in (varied.reason or "")


def test_goodput_of_nothing_good_is_missed() -> None:
    """No request within the bound is no goodput, and that is decided."""
    item = judged("goodput(latency < 1ns) > 80/s", run(0.5, 10_000, 1))
    assert (item.verdict, item.value, item.value_low) == ("missed", 0.0, 0.0)
    assert 0 < (item.value_high or 0) < 80


# --- the GPU


@pytest.mark.parametrize("correlated", [0.0, 0.7])
def test_the_intervals_of_power_and_energy_hold_the_truth(correlated: float) -> None:
    """Power that wanders from second to second; 200 runs of a minute."""
    found = [gpu_holds(correlated, 60, seed) for seed in range(200)]
    held = {name: sum(each[name] for each in found) for name in found[0]}
    assert min(held.values()) >= 200 * 0.92, held


def test_energy_follows_the_requests() -> None:
    """Where a second's energy is its requests' energy, that of an inference is known exactly, however they vary."""
    requests = [50, 150, 100, 75, 125, 90, 110, 60, 140, 100]
    item = of_gpu("energy < 30mJ/inference", [0.02 * count for count in requests], requests)
    assert (item.value, item.value_low, item.value_high) == pytest.approx((0.02, 0.02, 0.02))
    assert item.verdict == "met"
    assert of_gpu("energy < 19mJ/inference", [0.02 * count for count in requests], requests).verdict == "missed"
    assert of_gpu("power < 2.1W", [0.02 * count for count in requests], requests).verdict == "undecided"


@pytest.mark.parametrize(
    ("watts", "reason"),
    [([300.0] * 7, "a run of 8 s or more"), ([300.0] * 9 + [None], "did not report its energy during the whole run")],
)
def test_why_energy_has_no_interval(watts: list[float | None], reason: str) -> None:
    """Too short a run; a second without a number."""
    item = of_gpu("energy < 30mJ/inference", watts, [100] * len(watts))
    assert item.verdict == "undecided"
    assert reason in (item.reason or "")


def test_without_telemetry_power_is_undecided() -> None:
    """No number is made up."""
    item = judged("power < 300W", run(0.5, 5_000, 1))
    assert (item.verdict, item.value) == ("undecided", None)
    assert "no telemetry of a GPU" in (item.reason or "")


def test_a_run_is_judged_by_itstelemetry() -> None:
    """From options to run.json: batches of 4 at 100 requests a second on a GPU that draws 300 W take 0.75 J each."""
    wanted = ["power < 310W", "power < 290W", "energy < 0.8J/inference", "energy < 700mJ/inference"]
    options = {"rate": "100/s", "arrivals": "constant", "duration": "20s", "warmup": "0s", "batch": 4}
    config = RunConfig.of(engine="simulated:service=1ms,clock=virtual", objective=wanted, **options)
    engine, session = open_engine(config.model), Session()
    inputs = inputs_for(engine, config.model).sets
    bill = engine.memory(inputs)
    anyio.run(run_session, engine, config, inputs, Stop(), session)
    assert session.recorder is not None
    seen, _ = telemetry([300.0] * 20, [400] * 20)
    about: dict[str, Any] = {"run": "", "load_ns": 0, "started": "", "command": (), "environment": {}}
    result = result_of(session, engine, config, bill, telemetry=seen, **about)
    assert [item.verdict for item in result.model.objectives] == ["met", "missed", "met", "missed"]
    text = " ".join(terminal_text(result).split())
    assert "✓ power < 310W: MET, 300 W (95 %: 300 .. 300 W)" in text
    assert "✗ energy < 700mJ/inference: MISSED, 750 mJ/inference (95 %: " in text


# --- drops and errors


@pytest.mark.parametrize(("load", "waiting"), [(0.7, 17), (0.85, 14), (0.95, 40)])
def test_few_drops_are_not_certified(load: float, waiting: int) -> None:
    """A run in which hardly any request was dropped may have been lucky: the queue tells. A bound that is truly broken
    is "met" in 2.5 % of runs at most; the share among independent requests would be met in a quarter."""
    verdicts = drops_verdicts(load, waiting, 1 / 1.2, seeds=40)
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
