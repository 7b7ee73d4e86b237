"""`plan-capacity --measure`: the planned fleets, run, beside what theory and the plan say of them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import fleets
import loadtrt
from benchmarks.fleet_laws import ENGINES, RANK, plan, theory_ns
from command_line import loadtrt as command
from loadtrt.asked.config import RunConfig
from loadtrt.errors import EngineError, UsageError
from loadtrt.results.fleet_result import FleetResult
from loadtrt.results.run_result import Problem, RunResult
from loadtrt.signals import Signals
from loadtrt.sizing import measured_fleet

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MISSED = {"verdict": "missed"}
QUEUE: dict[str, Any] = {"engine": ENGINES["M"], "contexts": 1, "buffers": 1, "warmup": "0s"}


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Workers of this process; the configurations of the fleets that were run."""
    configs: list[Any] = []

    def run_fleet(config: Any, *args: Any) -> RunResult:
        configs.append(config)
        return fleets.run_fleet(config, *args)

    monkeypatch.setattr(measured_fleet, "run_fleet", run_fleet)
    return configs


@pytest.fixture(scope="module")
def runs() -> tuple[RunResult, ...]:
    """Of one GPU: a closed loop, and an open one at a load of 0.7."""
    options = {**QUEUE, "requests": 10_000, "objective": "latency.p99 < 1s"}
    return loadtrt.run(**options), loadtrt.run(**options, rate=140)


@pytest.fixture(scope="module")
def file(runs: tuple[RunResult, ...], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("runs")
    for place, run in enumerate(runs):
        run.write(folder / f"{place}.json")
    return folder / "0.json", folder / "1.json"


@pytest.mark.parametrize("services", ["M", "D"])
@pytest.mark.parametrize("gpus", [2, 4])
def test_fleets_obey_their_laws(services: str, gpus: int) -> None:
    """Theory's p99 lies within what is measured and within what the plan predicted from one GPU: M/M/1 and M/D/1 under
    random routing, E_N/M/1 and E_N/D/1 under round-robin. Of six intervals of 95 % four hold it, but for 0.2 %."""
    held = []
    for seed in (2, 3, 4):
        result = plan(services, gpus, "20s", seed=seed)
        assert [(fleet.routing, fleet.gpus) for fleet in result.measured] == [("random", gpus), ("round-robin", gpus)]
        for fleet in result.measured:
            assert fleet.run is not None
            assert fleet.run.model.ok == pytest.approx(20 * 140 * gpus, rel=0.05)
            check = next(check for check in fleet.checks if check.rank == RANK)
            theory = theory_ns(services, fleet.routing, gpus)
            assert check.measured_low_ns is not None
            assert check.predicted_low_ns is not None
            measured = check.measured_low_ns <= theory <= (check.measured_high_ns or 1e12)
            held.append(
                (measured, check.predicted_low_ns <= theory <= (check.predicted_high_ns or 0), check.within is True)
            )
    assert min(map(sum, zip(*held, strict=True))) >= 4, held


def test_what_is_run_is_what_was_planned(runs: tuple[RunResult, ...], asked: list[Any]) -> None:
    """The planned rate, arrivals, objectives and GPUs without spares; what else the files' runs had is left out."""
    others = [run.model_copy(update={"config": run.config.with_device(1)}) for run in runs]
    result = loadtrt.plan_capacity(
        *others, demand=300, growth="10%", headroom="20%", spares=1, burstiness=2, measure=True, duration="2s",
        objective=["latency.p99 < 800ms"], routing="random,least-outstanding", seed=7,
    )  # fmt: skip
    (config,) = asked
    assert (config.model.load.rate, config.model.load.cv) == (pytest.approx(396), 2)
    assert config.model.device == 0  # of GPUs that --devices numbers
    assert config.processes == result.choices[0].needed == result.measured[0].gpus
    assert [item.text for item in config.model.objectives] == ["latency.p99 < 800ms"]
    assert (config.duration, config.model.requests, config.model.seed, config.routing) == (2 * 10**9, None, 7, "random")
    assert "not measured: least-outstanding routing" in " ".join(result.notes)
    assert FleetResult.model_validate_json(result.to_json()) == result


def test_routings_that_workers_do_themselves(runs: tuple[RunResult, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """With the ties that the plan has; not where the clock of each worker is its own."""
    configs: list[RunConfig] = []

    def start(config: RunConfig, *_: Any) -> RunResult:
        configs.append(config)
        raise EngineError("enough")

    monkeypatch.setattr(measured_fleet, "run_fleet", start)
    options: dict[str, Any] = {"routing": "two-choices,least-outstanding", "ties": "lowest-index", "measure": True}
    loadtrt.plan_capacity(*runs, demand=280, **options)
    assert configs == []
    made = [run.with_model(engine=replace(run.model.engine, mode={"clock": "loop"})) for run in runs]
    result = loadtrt.plan_capacity(*made, demand=280, **options)
    assert [config.routing for config in configs] == ["two-choices", "least-outstanding:lowest-index"]
    assert [fleet.why_not for fleet in result.measured] == ["enough"] * 2
    assert not any("not measured" in note for note in result.notes)


def test_the_command_shows_both(file: tuple[Path, ...], tmp_path: Path) -> None:
    """In the terminal, in the file and on the page."""
    target = tmp_path / "plan.json"
    options = ["--demand", "280/s", "--measure", "--duration", "5s", "--routing", "random", "--json", str(target)]
    done = command("plan-capacity", *file, *options)
    assert done.returncode == 0, done.stderr
    assert "measuring 2 GPUs, random, for 5s" in done.stderr
    text = " ".join(done.stdout.split())
    for quantile in ("p50", "p99"):
        assert re.search(rf"random, {quantile}: GPUs 2, \w+, measured .* ms, 95 % .*, predicted .* ms, 95 % ", text)
    assert "fleets, predicted against measured: within each other's interval in 2 of 2" in text
    result = loadtrt.read(target)
    assert isinstance(result, FleetResult)
    assert [check.rank for check in result.measured[0].checks] == [0.5, 0.99]
    assert command("report", target, "-o", tmp_path / "plan.html").returncode == 0
    assert "The planned fleets, measured" in (tmp_path / "plan.html").read_text()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda run: run.model_copy(update={"valid": False}), 98),
        (lambda run: run.with_model(objectives=(run.model.objectives[0].model_copy(update=MISSED),)), 98),
        (lambda run: run.with_model(problems=(Problem(kind="late", evidence="it was late", remedy="wait"),)), 0),
    ],
)
def test_what_a_measured_fleet_says_of_the_plan(
    change: Callable[[RunResult], RunResult], code: int, file: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is INVALID or missed an objective leaves it undecided."""
    monkeypatch.setattr(measured_fleet, "run_fleet", lambda *args: change(fleets.run_fleet(*args)))
    options = ["--demand", "280/s", "--measure", "--duration", "2s", "--routing", "random"]
    done = command("plan-capacity", *file, *options)
    assert done.returncode == code
    assert ("it was late" in done.stdout) is (code == 0)


def _other(run: RunResult) -> RunResult:
    return run.with_model(engine=replace(run.model.engine, sha256="ab", version="9"))


def test_fleets_that_cannot_be_run(
    file: tuple[Path, ...], runs: tuple[RunResult, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One sentence, and the plan itself all the same."""
    options = ["--measure", "--routing", "random", "--objective", "latency.p99 < 1s"]
    many = command("plan-capacity", *file, "--demand", "50000/s", *options)
    assert many.returncode == 2
    assert "GPUs are planned under random routing, and 256 simulated ones are started at most: plan" in many.stderr
    assert "random not measured: " in many.stdout

    monkeypatch.setattr(measured_fleet, "run_fleet", lambda *args: _other(fleets.run_fleet(*args)))
    other = command("plan-capacity", *file, "--demand", "280/s", "--duration", "1s", *options)
    assert (other.returncode, "the engine is another one than in the files: its version" in other.stderr) == (
        2,
        True,
    )

    def lost(*_: Any) -> RunResult:
        raise EngineError("no worker measured anything")

    monkeypatch.setattr(measured_fleet, "run_fleet", lost)
    assert "no worker measured anything" in command("plan-capacity", *file, "--demand", "280/s", *options).stderr

    failed = {"outcome": "failed", "failure": "only 1 of 2 workers", "valid": False}
    one = fleets.run_fleet(RunConfig.of(**QUEUE, requests=100, processes=2), None, Signals())
    monkeypatch.setattr(measured_fleet, "run_fleet", lambda *_: one.model_copy(update=failed))
    partly = command("plan-capacity", *file, "--demand", "280/s", *options)
    assert (partly.returncode, "only 1 of 2 workers" in partly.stderr) == (3, True)

    trace = tmp_path / "trace.csv"
    trace.write_text("timestamp\n" + "".join(f"{place / 280:.6f}\n" for place in range(2000)))
    replayed = command("plan-capacity", *file, "--trace", trace, *options)
    assert (replayed.returncode, "is not a steady load: 'loadtrt run' replays it" in replayed.stderr) == (2, True)


@pytest.mark.parametrize(("gpus", "sentence"), [(1, "and there is 1 here: plan for"), (0, "and there are 0 here")])
def test_real_gpus_are_those_of_this_host(
    gpus: int, sentence: str, runs: tuple[RunResult, ...], monkeypatch: pytest.MonkeyPatch, asked: list[Any]
) -> None:
    """As many as the plan takes, by --devices; else one sentence."""
    made = tuple(run.with_model(engine=replace(run.model.engine, kind="tensorrt")) for run in runs)
    monkeypatch.setattr(measured_fleet, "visible_gpus", lambda: gpus)
    options: dict[str, Any] = {"demand": 280, "routing": "random", "measure": True, "duration": "1s"}
    result = loadtrt.plan_capacity(*made, **options)
    assert sentence in result.measured[0].why_not
    assert asked == []
    monkeypatch.setattr(measured_fleet, "visible_gpus", lambda: 2)
    loadtrt.plan_capacity(*made, **options)
    assert (asked[0].devices, asked[0].processes) == ("0-1", 1)


def test_no_result_makes_a_fleet_load_code(runs: tuple[RunResult, ...], asked: list[Any]) -> None:
    """Libraries and host code that the files' runs had are loaded where they are given again."""
    made = tuple(run.model_copy(update={"config": run.config.with_model(allow_host_code=True)}) for run in runs)
    options: dict[str, Any] = {"demand": 280, "routing": "random", "measure": True, "duration": "1s"}
    result = loadtrt.plan_capacity(*made, **options)
    assert "the runs of the files had --allow-host-code, and no result makes a run load" in result.measured[0].why_not
    assert asked == []
    loadtrt.plan_capacity(*made, **options, allow_host_code=True)
    assert asked[0].model.allow_host_code


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"duration": "5s"}, "--duration is for fleets that are run: add --measure"),
        ({"allow_host_code": True}, "--allow-host-code is for fleets that are run"),
        ({"measure": True, "duration": "0s"}, "a run of 0s measures nothing"),
        ({"measure": "yes"}, "neither True nor False"),
    ],
)
def test_options_of_measuring(options: dict[str, Any], sentence: str, runs: tuple[RunResult, ...]) -> None:
    with pytest.raises(UsageError, match=sentence):
        loadtrt.plan_capacity(*runs, demand=100, **options)
