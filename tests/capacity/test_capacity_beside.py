"""`loadtrt capacity --of`: the capacity of one model while others hold their loads beside it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from command_line import loadtrt
from loadtrt.report.plain import terminal_text
from loadtrt.report.result_files import read_result
from loadtrt.results.capacity_result import CapacityResult
from loadtrt.results.run_result import RunResult

if TYPE_CHECKING:
    from pathlib import Path

QUEUE = "simulated:service=1ms,distribution=exponential,device=g,sharing=priority,clock=virtual"
OBJECTIVE = ("--objective", "latency.p99 < 20ms")


def _found(file: Path, *arguments: str) -> CapacityResult:
    options = ("--warmup", "0", "--precision", "10%", "--quiet", "--json", file)
    length = () if "--quick" in arguments else ("--time", "60s")
    done = loadtrt("capacity", *options, *length, *arguments)
    assert done.returncode in (0, 98), done.stderr
    return read_result(CapacityResult, file)


@pytest.mark.parametrize("beside", [0, 300])
def test_what_the_neighbour_takes_is_missing(tmp_path: Path, beside: int) -> None:
    """Both behind one queue, M/M/1: p99 is ln 100 / (μ − λ), and so λ_a = μ − λ_b − ln 100 / 20 ms."""
    models = ("--model", f"a='{QUEUE}'", "--model", f"b='{QUEUE}',rate={beside}/s,seed=77")
    alone = ("--engine", QUEUE)
    result = _found(tmp_path / "c.json", *((*models, "--of", "a") if beside else alone), *OBJECTIVE)
    assert list(result.beside) == (["b"] if beside else [])
    best = result.candidates[0]
    assert best.estimate_per_s == pytest.approx(1000 - beside - math.log(100) / 0.02, rel=0.1)
    assert ("beside b (poisson at 300/s)" in " ".join(terminal_text(result).split())) == bool(beside)
    assert all(trial.run is not None and len(trial.run.models) == 1 for trial in best.trials)


def test_each_worker_of_a_fleet_serves_the_neighbour_too(tmp_path: Path) -> None:
    """On two devices, each behind its own queue with half of both loads, there is twice what is left on one."""
    models = ("--model", f"a='{QUEUE}'", "--model", f"b='{QUEUE}',rate=600/s,seed=77", "--devices", "0-1")
    best = _found(tmp_path / "c.json", *models, "--of", "a", *OBJECTIVE, "--quick").candidates[0]
    assert best.estimate_per_s == pytest.approx(2 * (1000 - 300 - math.log(100) / 0.02), rel=0.15)
    runs = [trial.run for trial in best.trials if trial.run is not None]
    assert {len(part.models) for run in runs for part in (run, *run.workers)} == {1}


@pytest.mark.parametrize("beside", [100, 300])
def test_a_neighbour_that_does_not_have_its_load_is_told(tmp_path: Path, beside: int) -> None:
    """Processor sharing: each of two that always have work has half of the device, so that b serves up to 100/s and a
    250/s. Beside 300/s b finds its 100/s, and a is overloaded; beside 100/s it is not."""
    device = "device=g,clock=virtual"
    models = (
        "--model",
        f"a='simulated:service=2ms,{device}',rate={beside}/s",
        "--model",
        f"b='simulated:service=5ms,{device}'",
    )
    result = _found(tmp_path / "c.json", *models, "--of", "b", "--objective", "latency.p99 < 500ms", "--quick")
    told = " ".join(terminal_text(result).split())
    assert ("beside its load (poisson at 300/s) there is less capacity" in told) == (beside == 300)
    assert ("a was overloaded in" in told) == (beside == 300)


@pytest.mark.parametrize("beside", [100, 300])
def test_a_plan_needs_a_gpu_that_serves_the_neighbours_loads(tmp_path: Path, beside: int) -> None:
    """As above. At 300/s what a GPU does beside an endless queue of a is no evidence of a plan."""
    file, device = tmp_path / "c.json", "device=g,clock=virtual"
    models = (f"a='simulated:service=2ms,{device}',rate={beside}/s", f"b='simulated:service=5ms,{device}'")
    given = [word for model in models for word in ("--model", model)]
    result = _found(file, *given, "--of", "b", "--objective", "latency.p99 < 500ms")
    assert any(trial.overloaded for trial in result.candidates[0].ladder) == (beside == 300)
    done = loadtrt("plan-capacity", file, "--demand", "400/s", "--routing", "random")
    text = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == (98 if beside == 300 else 0), text
    assert ("the plan is not supported by the measurement" in text) == (beside == 300)
    assert ("a beside it had more load than was served" in text) == (beside == 300)


def test_a_neighbour_that_fails_fails_the_trial(tmp_path: Path) -> None:
    """On a device of its own, which is lost after a while."""
    lost = "simulated:service=1ms,device=other,lost=30s,clock=virtual"
    file = tmp_path / "c.json"
    models = ("--model", f"a='{QUEUE}'", "--model", f"b='{lost}',rate=100/s", "--of", "a")
    loadtrt("capacity", "--warmup", "0", "--time", "60s", "--quiet", "--json", file, *models, *OBJECTIVE)
    trials = read_result(CapacityResult, file).candidates[0].trials
    assert any("lost=30s" in str(trial.failure) for trial in trials)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--of", "c"], "--of c is not a model: "),
        ([], "say whose capacity to find, such as --of detector"),
        (["--of", "b"], "'capacity' needs an objective"),
        (["--of", "a", "--model", "d=simulated:null,requests=100"], "d holds its load as long as each trial"),
    ],
)
def test_bad_arguments(arguments: list[str], message: str) -> None:
    models = ("--model", f"a='{QUEUE}',objective='latency.p99 < 20ms'", "--model", f"b='{QUEUE}',rate=100/s")
    done = loadtrt("capacity", *models, *arguments)
    assert done.returncode == 2
    assert message.replace("'capacity' needs", "a capacity needs") in done.stderr


def test_what_differs_beside_is_not_continued(tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    models = ["--model", f"a='{QUEUE}'", "--of", "a", "--time", "10s", "--quick", "--json", str(file), "--quiet"]
    loadtrt("capacity", "--warmup", "0", *models, "--model", f"b='{QUEUE}',rate=300/s", *OBJECTIVE)
    result = read_result(CapacityResult, file)
    file.write_text(result.model_copy(update={"outcome": "interrupted"}).model_dump_json())
    other = ("--model", f"b='{QUEUE}',rate=200/s", "--resume")
    done = loadtrt("capacity", "--warmup", "0", *models, *other, *OBJECTIVE)
    assert done.returncode == 2
    assert "the search in the file differs: beside was" in done.stderr


def test_one_of_several_models_may_end_the_run(tmp_path: Path) -> None:
    """--abort-on-fail is of the models that have objectives; the others have none to be judged by."""
    file = tmp_path / "run.json"
    models = ("--model", f"a='{QUEUE}',rate=900/s,objective='latency.p99 < 5ms'", "--model", f"b='{QUEUE}',rate=50/s")
    done = loadtrt("run", *models, "--abort-on-fail", "--duration", "60s", "--warmup", "0", "--quiet", "--json", file)
    assert done.returncode == 99, done.stderr
    result = read_result(RunResult, file)
    assert result.config.abort_on_fail
    assert all(model.ended_early for model in result.models.values())


def test_of_needs_models() -> None:
    """An engine is given, so that the sentence is not about a missing engine."""
    done = loadtrt("capacity", "--of", "x", "--engine", QUEUE, *OBJECTIVE)
    assert done.returncode == 2
    assert "--of x chooses one of several models: name them all by --model or in --config, too" in done.stderr
