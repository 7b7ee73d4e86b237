"""A run of several models, each in a process of its own: what each has, that none ends with another, one result."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import loadtrt
from command_line import loadtrt as command
from exported import page, values
from loadtrt.asked.config import RunConfig
from loadtrt.cli.running import exit_code
from loadtrt.errors import EngineError, UsageError
from loadtrt.results.gpu_telemetry import GpuClient, GpuReading, GpuSharing
from loadtrt.results.one_model import one_of
from loadtrt.results.run_result import RunResult
from loadtrt.runs import fleet
from loadtrt.runs.apart import result_apart
from loadtrt.runs.fleet import run_fleet
from loadtrt.runs.started_worker import StartedWorker
from loadtrt.runs.watched import Silence
from loadtrt.signals import Signals
from onnx_files import doubling
from prometheus import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable

# In virtual time, alone on its device: rows do not depend on the host.
A: dict[str, Any] = {"engine": "simulated:service=2ms,cv=0.5,clock=virtual", "contexts": 2, "rate": "300/s"}
B: dict[str, Any] = {"engine": "simulated:service=5ms,clock=virtual", "contexts": 4}
VIRTUAL: dict[str, Any] = {"models": {"a": A, "b": B}, "warmup": "0s", "duration": "3s"}
REAL: dict[str, Any] = {
    "models": {
        "a": {"engine": "simulated:service=5ms", "rate": "50/s", "max_lateness": "60s"},
        "b": {"engine": "simulated:service=5ms", "rate": "80/s", "max_lateness": "60s"},
    },
    "warmup": "0s",
    "duration": "3s",
}
READING = asdict(GpuReading(at_ns=0, sm_clock_hertz=1_980_000_000))
GPU = {"gpu": {"name": "H200", "uuid": "GPU-1", "driver": "580", "before": READING, "after": READING}}


class Listens(Silence):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, sentence: str) -> None:
        self.said.append(sentence)


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> list[StartedWorker]:
    """Those that are started."""
    start_one, started = fleet._Fleet._start, list[StartedWorker]()

    def start(this: Any, *args: Any) -> StartedWorker:
        started.append(start_one(this, *args))
        return started[-1]

    monkeypatch.setattr(fleet._Fleet, "_start", start)
    return started


def measured(
    options: dict[str, Any],
    act: Callable[[str, int], None] = lambda *_: None,
    talks: Silence | None = None,
    **more: Any,
) -> RunResult:
    """act: called with the phase, and the requests of all models that have completed in it."""
    config = RunConfig.of(**{**options, "model_processes": True, **more})
    return run_fleet(config, talks or Silence(), Signals(), lambda phase, _, __, done: act(phase, done))


def due(result: RunResult, name: str) -> int:
    """How many requests the schedule of a model has."""
    instants, _ = result.config.due(result.config.models[name])
    assert instants is not None
    return len(instants)


def process_of(worker: StartedWorker) -> int:
    return int(worker.link._process.pid)  # type: ignore[attr-defined]


def all_ended(workers: list[StartedWorker]) -> bool:
    return all(worker.link._process.poll() is not None for worker in workers)  # type: ignore[attr-defined]


# --- what each has


def test_each_model_measures_what_it_does_alone() -> None:
    """Row for row, as histograms and intervals show: an engine of its own, all of its load, its own seed."""
    result = measured(VIRTUAL)
    for seed, (name, options) in enumerate(VIRTUAL["models"].items(), 1):
        alone = loadtrt.run(**options, seed=seed, warmup="0s", duration="3s")
        model = result.models[name]
        for what in (
            "submitted",
            "ok",
            "metrics",
            "histograms",
            "intervals",
            "lanes",
            "throughput",
            "sample",
            "window",
        ):
            assert getattr(model, what) == getattr(alone.model, what), what
        assert model.steadiness == alone.model.steadiness
        assert model.engine.mode == {**alone.model.engine.mode, "processes": "1 of 2"}
        assert model.together_ns == pytest.approx(3e9, rel=0.01)
        assert one_of(result, name).beside.keys() == VIRTUAL["models"].keys() - {name}


def test_one_result_as_of_one_process() -> None:
    """But for what differs between processes; it is read back whole, and says how it was made."""
    result, together = measured(VIRTUAL), loadtrt.run(**VIRTUAL)
    assert (result.workers, result.lost, result.fleet) == ((), (), "")
    assert (result.outcome, result.failure) == ("completed", None)
    assert result.run
    assert list(result.models) == ["a", "b"]
    for name, model in together.models.items():
        assert result.models[name].metrics == model.metrics
        assert result.models[name].together_ns == model.together_ns
        assert result.models[name].measure_ns == model.measure_ns
        assert [found.kind for found in result.models[name].findings] == [found.kind for found in model.findings]
    assert RunResult.model_validate_json(result.to_json()) == result
    text = " ".join(str(result).split())
    assert "each model in a process of its own · began within" in text
    assert "processes 1 of 2" in text


def test_models_on_onnx_runtime_are_verified(tmp_path: Path) -> None:
    """Each serves its whole schedule, and its outputs are compared."""
    engine = str(doubling(tmp_path))
    model = {"threads_per_context": 1, "rate": "40/s", "verify": True, "max_lateness": "60s"}
    models = {name: {"engine": engine, **model} for name in ("a", "b")}
    result = measured({"models": models, "warmup": "0s", "duration": "1s"})
    for name, found in result.models.items():
        assert (found.ok, found.failure) == (due(result, name), None)
        assert found.verification is not None
        assert (found.verification.different, found.verification.outputs > 0) == (0, True)
    assert result.start_spread_ns is not None


def test_a_model_that_ends_earlier_leaves_the_other_running() -> None:
    short = {**A, "rate": None, "stages": "100/s:1s"}
    result = measured({**VIRTUAL, "models": {"short": short, "long": B}, "duration": "4s"})
    assert result.models["long"].together_ns == pytest.approx(1e9, rel=0.05)
    (found,) = [one for one in result.models["long"].findings if one.kind == "neighbour-ended"]
    assert "short ended first" in found.evidence


# --- none ends with another


def test_a_process_that_is_killed_leaves_the_other_whole(workers: list[StartedWorker], tmp_path: Path) -> None:
    """Its model has a failure with the last count, and the exit code is 3; all of it is read back and shown."""

    def kill(phase: str, completed: int) -> None:
        if phase == "measure" and completed and workers[1].completed:
            workers[1].link.kill()

    talks = Listens()
    result = measured(REAL, kill, talks, duration="8s")
    a, b = result.models["a"], result.models["b"]
    assert (a.ok, a.submitted, a.failure) == (due(result, "a"), due(result, "a"), None)
    assert b.failure is not None
    assert b.failure.startswith("its process is lost: it was ended by SIGKILL while it measured, after ")
    assert (b.ok, b.valid, b.engine.name) == (0, False, "simulated:service=5ms")
    assert (result.outcome, result.valid, exit_code(result)) == ("failed", False, 3)
    assert any("b is lost: it was ended by SIGKILL while it measured" in sentence for sentence in talks.said)
    assert a.together_ns == workers[1].elapsed_ns > 0
    assert "b ended first" in " ".join(found.evidence for found in a.findings if found.kind == "neighbour-ended")
    file = tmp_path / "run.json"
    file.write_text(result.to_json())
    assert loadtrt.read(file) == result
    shown = command("report", file)
    assert shown.returncode == 0
    assert "its process is lost" in " ".join(shown.stdout.split())
    assert all_ended(workers)


def test_a_model_that_fails_leaves_the_other_whole() -> None:
    """An engine that is lost is that model's failure, in its own words."""
    lost = {"engine": "simulated:service=1ms,lost=1s,clock=virtual"}
    result = measured({**VIRTUAL, "models": {"a": A, "lost": lost}})
    assert result.models["a"].ok == due(result, "a")
    assert "cudaErrorLaunchFailure" in (result.models["lost"].failure or "")
    assert 0 < result.models["lost"].ok < 1001
    assert exit_code(result) == 3


def test_a_model_that_cannot_be_opened_ends_the_run(workers: list[StartedWorker]) -> None:
    """The error names it, and no process is left."""
    models = {"a": {"engine": "simulated:service=5ms"}, "gone": {"engine": "/nowhere/gone.plan"}}
    with pytest.raises(UsageError, match=r"^gone: .*/nowhere/gone\.plan"):
        measured({**REAL, "models": models, "duration": "600s"})
    assert all_ended(workers)


def test_a_process_that_is_killed_while_it_loads_ends_the_run(
    workers: list[StartedWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    started = fleet._Fleet.wait

    def wait(this: Any, start_at: int | None) -> None:
        os.kill(process_of(workers[0]), signal.SIGKILL)
        started(this, start_at)

    monkeypatch.setattr(fleet._Fleet, "wait", wait)
    with pytest.raises(EngineError, match=r"^a: it was ended by SIGKILL before it measured"):
        measured(REAL, duration="600s")
    assert all_ended(workers)


@pytest.mark.parametrize(("engine", "signals"), [("service=5ms", 1), ("service=5ms,hang=10ms", 2)])
def test_ctrl_c_writes_both(tmp_path: Path, engine: str, signals: int) -> None:
    """The first waits for what is in flight, the second does not; no process is left."""
    file, errors = tmp_path / "run.json", tmp_path / "stderr"
    models = ("--model", f'a="simulated:{engine}"', "--model", "b=simulated:service=5ms,rate=50/s")
    arguments = ("--model-processes", "--duration", "10h", "--drain", "1h", "--warmup", "0", "--json", file)
    with errors.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "loadtrt", "run", *models, *map(str, arguments)],
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
    try:
        while not re.search(r"measure .* [1-9]\d* requests", errors.read_text()):  # so both have begun
            assert process.poll() is None, errors.read_text()
            time.sleep(0.1)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.send_signal(signal.SIGINT)
        if signals > 1:
            while "stopping" not in errors.read_text():
                time.sleep(0.1)
            process.send_signal(signal.SIGINT)
        assert process.wait(300) == 130
    finally:
        process.kill()
        process.wait()
    result = loadtrt.read(file)
    assert isinstance(result, RunResult)
    assert result.outcome == "interrupted"
    assert all(model.submitted for model in result.models.values())
    assert len(children) >= 2
    assert not any(Path(f"/proc/{child}").exists() for child in children)


# --- who sees them


def test_metrics_are_those_of_a_run_of_several_models() -> None:
    """By one exporter, with a label for the model and none for a worker; counts are the result's."""
    pages: list[Any] = []
    talks = Listens()

    def scrape(_: RunResult) -> None:
        (url,) = (line.removeprefix("metrics at ") for line in talks.said if line.startswith("metrics at "))
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:  # noqa: S310  # http, as the exporter says
            pages.append(page(text_string_to_metric_families(answer.read().decode())))

    watching = {"metrics": "127.0.0.1:0", "metrics_linger": "0s", "model_processes": True}
    result = run_fleet(RunConfig.of(**REAL, **watching), talks, Signals(), deliver=scrape)
    (found,) = pages
    counts = values(found, "loadtrt_latency_seconds_count", "model", "worker")
    assert counts == {(name, ""): model.ok for name, model in result.models.items()}
    assert {dict(labels)["run"] for _, labels in found} == {result.run}


# --- one result of all


def started(name: str, result: RunResult, number: int = 0) -> StartedWorker:
    return StartedWorker(number, None, None, name, result=result)  # type: ignore[arg-type]


def pair(**of_b: Any) -> tuple[RunConfig, list[StartedWorker]]:
    """Two models in results of their own. of_b: changes of the second's."""
    config = RunConfig.of(**VIRTUAL, model_processes=True)
    runs = {}
    for name in config.models:
        part = fleet._part_of(config, list(config.models).index(name), 2)
        (run,) = [loadtrt.run(part)]
        runs[name] = run.model_copy(update={"began": "2026-11-30T12:00:00.000000000+00:00"})
    runs["b"] = runs["b"].model_copy(update=of_b)
    return config, [started(name, run, number) for number, (name, run) in enumerate(runs.items())]


@pytest.mark.parametrize(("ms", "late"), [(9, False), (11, True)])
def test_models_that_do_not_begin_together_are_told(ms: int, late: bool) -> None:
    """All are INVALID then, as each was without the other for a while."""
    config, both = pair(began=f"2026-11-30T12:00:00.{ms:03d}000000+00:00")
    for worker in both:
        assert worker.result is not None
        engine = worker.result.model.engine
        worker.result = worker.result.with_model(engine=replace(engine, mode={**engine.mode, "clock": "loop"}))
    result = result_apart(config, both, ())
    assert result.start_spread_ns == ms * 10**6
    assert result.valid is not late
    for model in result.models.values():
        told = [problem.evidence for problem in model.problems]
        assert bool(told) is late
        assert not told or told[0].startswith("b began to be measured 11.0 ms after the first model")


def test_models_of_virtual_clocks_begin_together() -> None:
    """Whenever their processes did."""
    config, both = pair(began="2026-11-30T13:00:00.000000000+00:00")
    result = result_apart(config, both, ())
    assert result.start_spread_ns == 0
    assert result.valid


@pytest.mark.parametrize(
    ("mps", "mode", "text"), [(False, "by turns", "take turns on it"), (True, "MPS", "through MPS")]
)
def test_how_processes_share_a_gpu_is_told(mps: bool, mode: str, text: str) -> None:
    """And that the others' processes are no strangers there."""
    config, both = pair()
    clients = (GpuClient(11, "loadtrt", sm_ratio=0.4), GpuClient(12, "python3", sm_ratio=0.01))
    for worker in both:
        assert worker.result is not None
        engine = replace(worker.result.model.engine, kind="tensorrt")
        changes = {"sharing": GpuSharing(clients, mps=mps), "environment": GPU}
        worker.result = worker.result.with_model(engine=engine).model_copy(update=changes)
    result = result_apart(config, both, {10, 11})
    assert {model.engine.mode["processes"] for model in result.models.values()} == {f"1 of 2, {mode}"}
    assert result.sharing is not None
    assert [client.pid for client in result.sharing.clients] == [12]
    assert f"processes on one GPU {'compute ' if mps else ''}{text}" in " ".join(str(result).split())


# --- what cannot be

REFUSED = [
    (["a=simulated:null,priority=-1", "b=simulated:null"], [], "--priority orders the streams of one process"),
    (
        ["a=simulated:null", "b=simulated:null,device=1"],
        [],
        "the models of a run use one GPU: give all the same --device",
    ),
    (
        ['a="simulated:service=1ms,device=g"', "b=simulated:null"],
        [],
        "a is on the simulated device g, which one process has",
    ),
    (['a="simulated:clock=virtual"', "b=simulated:null"], [], "a is simulated in virtual time and b is not"),
    (["a=simulated:null", "b=simulated:null"], ["--processes", "2"], "leave it or --processes out"),
    (["a=simulated:null", "b=simulated:null"], ["--worker", "0/2"], "leave it or --worker out"),
    (["a=simulated:null", "b=simulated:null"], ["--precision", "3%"], "--precision would end each worker by its own"),
    (["a=simulated:null", "b=simulated:null"], ["--nvtx"], "--nvtx is for one process: leave it out, or --model-proc"),
    (["a=simulated:null,rate=9/s"], ["--routing", "random"], "--routing says how workers share a load"),
]


@pytest.mark.parametrize(("models", "more", "sentence"), REFUSED)
def test_what_cannot_be_is_one_sentence(models: list[str], more: list[str], sentence: str) -> None:
    given = [text for model in models for text in ("--model", model)]
    done = command("run", *given, "--model-processes", *more)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert sentence in line


def test_a_search_beside_other_models_is_of_one_process(tmp_path: Path) -> None:
    file = tmp_path / "two.yaml"
    file.write_text(
        "model_processes: true\nmodels:\n  a: {engine: 'simulated:null'}\n  b: {engine: 'simulated:null'}\n"
    )
    done = command("capacity", "--of", "a", "--config", file, "--objective", "latency.p99 < 1ms")
    assert done.returncode == 2
    assert "--model-processes is an option of 'loadtrt run'" in done.stderr


@pytest.mark.parametrize("clock", ["virtual", "loop"])
@pytest.mark.parametrize("processes", [False, True])
def test_processor_time_over_virtual_time_is_no_number_of_cores(clock: str, processes: bool) -> None:
    """In one process and in several; the text leaves it out, too."""
    model = {"engine": f"simulated:service=1ms,clock={clock}", "rate": "100/s"}
    models = {"a": model, "b": model}
    result = loadtrt.run(models=models, warmup="0s", duration="100ms", model_processes=processes, telemetry=False)
    assert (result.host_cores is None) == (clock == "virtual")
    assert (" cores\n" in str(result)) == (clock == "loop")
