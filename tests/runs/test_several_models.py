"""A run of several models: each with its load and its result, measured at once, and none ends with another."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import fromstring

import numpy as np
import pytest

import loadtrt
from command_line import loadtrt as command
from loadtrt.asked.config import RunConfig
from loadtrt.asked.reading import load_config
from loadtrt.errors import EngineError, UsageError
from loadtrt.lanes import session
from loadtrt.lanes.start_instant import WallClock, wall_clock
from loadtrt.lanes.together import Drive, drive_all
from loadtrt.report.plain import verdict_line
from loadtrt.report.result_files import read_run
from loadtrt.results.engine_info import MemoryBill
from loadtrt.results.one_model import one_of
from loadtrt.results.run_result import RunResult
from loadtrt.runs.maker import Maker
from onnx_files import doubling
from signalled import HANGS, SERVICE, Case, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

A: dict[str, Any] = {"engine": "simulated:service=2ms,cv=0.5,clock=virtual", "contexts": 2, "rate": "300/s"}
B: dict[str, Any] = {"engine": "simulated:service=5ms,clock=virtual", "contexts": 4}


def rows_of(**options: Any) -> tuple[RunResult, dict[str, npt.NDArray[np.int64]]]:
    """The result, and each model's rows, with instants from the start of measuring."""
    config = RunConfig.of(**{"warmup": "100ms", "duration": "2s", **options})
    with Maker() as maker:
        maker.open(config)
        result = maker.run(config)
        rows = {}
        for name, session in maker.sessions.items():
            assert session.recorder is not None
            rows[name] = session.recorder.records.rows.copy()
            rows[name][:, :4] -= session.recorder.start_ns
    return result, rows


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as one:
        yield one


# --- what each has


def test_rounds_of_all_are_made_before_the_load_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """To compile them takes seconds, and to look at the types of all arrays ms: requests would come due meanwhile."""
    happened: list[str] = []

    def made(drives: Sequence[Drive]) -> Callable[[int], int]:
        happened.append(f"made for {len(drives)}")
        return lambda until: until

    async def driven(drives: Sequence[Drive], began: int, spin: Callable[[int], int] | None = None) -> None:
        happened.append("begun without" if spin is None else "begun")
        await drive_all(drives, began)

    def clock(now_ns: Callable[[], int]) -> WallClock:
        happened.append("clock")
        return wall_clock(now_ns)

    monkeypatch.setattr(session, "rounds_of_all", made)
    monkeypatch.setattr(session, "drive_all", driven)
    monkeypatch.setattr(session, "wall_clock", clock)
    rows_of(models={"a": A, "b": B, "c": B})
    assert happened == ["made for 3", "made for 3", "clock", "begun"]


def test_each_model_has_its_own_load_and_result() -> None:
    """And the run is valid where all are."""
    slow = {**B, "objective": ["latency.p99 < 1ms"]}
    result, _ = rows_of(models={"a": {**A, "objective": ["latency.p99 < 1s"]}, "b": slow})
    a, b = result.models["a"], result.models["b"]
    assert a.throughput.offered_per_s == 300
    assert 500 < a.ok < 700
    assert b.throughput.offered_per_s is None
    assert b.throughput.requests_per_s == pytest.approx(800, rel=1e-9)
    assert (a.verdict, b.verdict, result.verdict) == ("met", "missed", "missed")
    assert (result.outcome, result.valid, result.failure) == ("completed", True, None)
    assert a.together_ns == b.together_ns == pytest.approx(2e9, rel=0.01)
    assert RunResult.model_validate_json(result.model_dump_json()) == result


def test_the_same_seed_gives_the_same_rows() -> None:
    """And a model's rows do not depend on one that is on another device: neither closed nor open."""
    _, one = rows_of(models={"a": A, "b": B})
    _, again = rows_of(models={"a": A, "b": B})
    _, alone = rows_of(**A)
    _, third = rows_of(models={"a": A, "c": {**A, "rate": "100/s"}, "d": B})
    (whole,) = alone.values()
    assert all(np.array_equal(one[name], again[name]) for name in one)
    assert np.array_equal(one["a"], whole)
    assert np.array_equal(one["a"], third["a"])


def test_models_of_one_load_have_requests_at_other_instants() -> None:
    """Each has a seed of its own, unless it is given."""
    _, rows = rows_of(models={"a": A, "b": A, "c": {**A, "seed": 1}})
    assert np.array_equal(rows["a"][:, 0], rows["c"][:, 0])
    assert not np.array_equal(rows["a"][:100, 0], rows["b"][:100, 0])


def test_a_model_that_ends_earlier_leaves_the_others_running() -> None:
    """How long all sent requests is kept, and the others are told that they were alone for the rest."""
    result, rows = rows_of(models={"a": {**A, "requests": 150}, "b": {**B, "requests": 1600}}, duration=None)
    assert (len(rows["a"]), result.models["b"].ok) == (150, 1600)
    together_ns = result.models["a"].together_ns
    assert together_ns == result.models["b"].together_ns == rows["a"][-1, 0]
    (ended,) = (item for item in result.models["b"].findings if item.kind == "neighbour-ended")
    assert ended.evidence.startswith("all models sent requests for 5")
    assert (ended.evidence.endswith(": a ended first"), ended.cause) == (True, "its own schedule ends then")
    assert "neighbour-ended" not in {item.kind for item in result.models["a"].findings}


def test_a_schedule_lasts_as_long_as_it_was_to_last() -> None:
    """Where the last of few requests comes long before the end, nobody was without a neighbour for the rest."""
    result, rows = rows_of(models={"a": {**A, "rate": "0.9/s", "arrivals": "constant"}, "b": B}, duration="4s")
    assert rows["a"][-1, 0] < 3.6e9  # b is alone in the last tenth
    assert result.models["a"].together_ns == result.models["b"].together_ns == 4_000_000_000
    assert "neighbour-ended" not in {item.kind for item in result.models["b"].findings}


@pytest.mark.parametrize("processes", [None, 2])
def test_each_model_was_measured_for_its_own_time(processes: int | None) -> None:
    """A model that is taken out has the time in which it was measured, and so have its workers."""
    models = {"a": {"engine": A["engine"], "stages": "300/s:1s"}, "b": B}
    result = loadtrt.run(models=models, duration="2s", warmup="0s", processes=processes)
    for name, second in (("a", 1), ("b", 2)):
        for run in (one := one_of(result, name), *one.workers):
            assert run.phases.measure_ns == pytest.approx(second * 1e9, rel=0.1)
            assert {*run.models} == {name}


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_a_load_without_a_duration_leaves_the_others_that_of_the_file(order: str, tmp_path: Path) -> None:
    """Whichever model comes last, the options of the run are those beside `models`."""
    models = {"a": {"engine": A["engine"], "stages": "50/s:1s"}, "b": B}
    file = tmp_path / "two.yaml"
    file.write_text(json.dumps({"duration": "3s", "models": {name: models[name] for name in order}}))
    config = load_config(file, {}, several=True)
    assert config.duration == 3_000_000_000
    assert {name: config.least_ns(model) for name, model in config.models.items()} == {
        "a": 1_000_000_000,
        "b": 3_000_000_000,
    }


@pytest.mark.parametrize("load", ["stages", "offline", "trace"])
def test_a_load_without_a_duration_beside_one_that_has_it(load: str, tmp_path: Path) -> None:
    """The result, that of each model, and that of a fleet are those of a run; each can be made again."""
    (tmp_path / "t.csv").write_text("0\n0.1\n0.2\n")
    of_load: dict[str, dict[str, Any]] = {
        "stages": {"stages": "50/s:1s"},
        "offline": {"arrivals": "offline", "requests": 40},
        "trace": {"trace": str(tmp_path / "t.csv")},
    }
    models = {"a": {"engine": A["engine"], **of_load[load]}, "b": B}
    result, _ = rows_of(models=models)
    sent = {"stages": result.models["a"].submitted, "offline": 40, "trace": 3}
    assert (result.valid, result.models["a"].ok, result.models["b"].ok >= 1600) == (True, sent[load], True)
    result.write(tmp_path / "two.json")
    for name in result.models:
        alone = read_run(tmp_path / f"two.json:{name}")
        assert (alone.model, RunConfig.of(**alone.config.options()).model) == (result.models[name], alone.config.model)
    fleet = loadtrt.run(models=models, duration="2s", warmup="0s", processes=2)
    assert (fleet.outcome, fleet.models["a"].ok, len(fleet.workers)) == ("completed", sent[load], 2)


def test_models_share_a_simulated_device() -> None:
    """Two closed loops of one lane: each has half of the processor, or all of its part."""
    text = "simulated:service=1ms,device=g,clock=virtual"
    models = {name: {"engine": text, "buffers": 1} for name in "ab"}
    result, _ = rows_of(models=models)
    assert [model.throughput.requests_per_s for model in result.models.values()] == [pytest.approx(500, rel=0.01)] * 2
    parts = {"a": {"engine": f"{text},part=0.8"}, "b": {"engine": f"{text},part=0.2"}}
    result, _ = rows_of(models=parts)
    rates = [model.throughput.requests_per_s for model in result.models.values()]
    assert rates == [pytest.approx(800, rel=0.01), pytest.approx(200, rel=0.01)]


def test_two_models_on_onnx_runtime(tmp_path: Path) -> None:
    """Outputs are compared while the neighbour runs; each request is answered by its own model."""
    file = doubling(tmp_path, "N", 3)
    models = {"a": {"engine": file, "batch": 2, "verify": True}, "b": {"engine": file, "batch": 4, "rate": "200/s"}}
    result = loadtrt.run(models=models, warmup="50ms", requests=60, on="onnxruntime", contexts=1)
    a, b = result.models["a"], result.models["b"]
    assert result.outcome == "completed"
    assert (a.submitted, b.submitted, a.failed + b.failed) == (a.ok, b.ok, 0)
    assert min(a.ok, b.ok) >= 60
    assert (a.engine.batch, b.engine.batch) == (2, 4)
    assert a.verification is not None
    assert (a.verification.different, b.verification) == (0, None)
    assert a.verification.outputs >= 40


def test_outputs_are_compared_until_each_verifier_has_seen_enough() -> None:
    """A race of one model is found, and is no fault of the other."""
    racing = {**B, "engine": "simulated:service=5ms,race=0.2,clock=virtual", "verify": True}
    result, _ = rows_of(models={"a": {**A, "verify": True}, "b": racing})
    a, b = result.models["a"].verification, result.models["b"].verification
    assert a is not None
    assert b is not None
    assert (a.different, a.outputs >= 80, b.different > 0, b.outputs >= 160) == (0, True, True, True)
    assert (result.models["a"].valid, result.models["b"].valid, result.valid) == (True, False, False)


def test_a_model_that_goes_first_leaves_a_verifier_its_turn() -> None:
    """In a closed loop it leaves the other nothing; it goes on for ten seconds, and then lets it compare."""
    shared = "device=g,sharing=priority,clock=virtual"
    first = {"engine": f"simulated:service=50ms,priority=-5,{shared}", "rate": "5/s"}
    last = {"engine": f"simulated:service=50ms,{shared}", "contexts": 2, "rate": "5/s"}
    result, _ = rows_of(models={"first": first, "last": last}, verify=True)
    compared = {name: model.verification and model.verification.outputs for name, model in result.models.items()}
    assert compared == {"first": 10 * 20 + 1, "last": 2 * 2 * 20}


def test_a_verifier_that_fails_does_not_hold_the_others_up() -> None:
    """Its neighbour compares as many outputs as it is to, and is measured."""
    lost = {**B, "engine": "simulated:service=5ms,lost=100ms,clock=virtual", "verify": True}
    slow = {"engine": "simulated:service=10ms,clock=virtual", "verify": True}
    result = loadtrt.run(models={"a": slow, "b": lost}, warmup="100ms", duration="2s")
    a = result.models["a"]
    assert a.verification is not None
    assert 40 <= a.verification.outputs < 60
    assert (a.failure, a.ok > 0) == (None, True)
    assert "cudaErrorLaunchFailure" in str(result.models["b"].failure)


# --- what ends one


@pytest.mark.parametrize(
    ("fault", "failure"),
    [
        ("lost=1s", "submit failed with cudaErrorLaunchFailure|wait failed with cudaErrorLaunchFailure"),
        ("hang=1s", "the engine completed nothing for .*: it hangs"),
    ],
)
@pytest.mark.parametrize("order", ["ab", "ba"])
def test_a_model_that_fails_leaves_the_others_whole(fault: str, failure: str, order: str) -> None:
    """Its part of the run has failed; the other's rows are those that it has beside no fault."""
    _, whole = rows_of(models={"a": {**A, "seed": 1}})
    broken = {**B, "engine": f"simulated:service=5ms,{fault},clock=virtual"}
    models = {"a": {**A, "seed": 1}, "b": broken}
    result, rows = rows_of(models={name: models[name] for name in order})
    a, b = result.models["a"], result.models["b"]
    assert np.array_equal(rows["a"], whole["a"])
    assert (result.outcome, a.failure, a.valid) == ("failed", None, True)
    assert re.match(failure, str(b.failure))
    assert result.failure == f"b: {b.failure}"
    assert 0 < b.ok < 1600
    (ended,) = (item for item in a.findings if item.kind == "neighbour-ended")
    assert (ended.cause, ended.remedy) == ("it failed", "see why b failed")


def test_requests_that_fail_are_their_models() -> None:
    failing = {**B, "engine": "simulated:service=5ms,error=1,clock=virtual"}
    result, _ = rows_of(models={"a": A, "b": failing})
    a, b = result.models["a"], result.models["b"]
    assert (a.failed, b.ok, a.valid, b.valid, result.valid) == (0, 0, True, False, False)


def test_one_line_names_the_worst_model() -> None:
    """With --quiet a line on stderr is all that there is: it has the model, as the exit code is that of the worst."""
    device = "simulated:service=2ms,clock=virtual"
    models = {
        "missed": {"engine": device, "rate": "100/s", "objective": "latency.p99 < 1ms"},
        "wrong": {"engine": f"{device},error=0.1", "rate": "100/s"},
        "fine": {"engine": device},
    }
    assert verdict_line(rows_of(models=models)[0]).startswith("wrong: INVALID: ")
    del models["wrong"]
    assert verdict_line(rows_of(models=models)[0]).startswith("missed: objectives missed: ")


def test_a_stall_of_one_model_is_not_the_others() -> None:
    """On another device; on the same one it is."""
    stalls = {**B, "engine": "simulated:service=5ms,stall=500ms@1s,clock=virtual"}
    result, rows = rows_of(models={"a": A, "b": stalls})
    _, whole = rows_of(models={"a": A, "b": B})
    assert np.array_equal(rows["a"], whole["a"])
    longest = result.models["b"].metrics["latency"].max_ns
    assert longest is not None
    assert longest > 500_000_000


def test_a_model_that_cannot_be_opened_ends_the_run() -> None:
    """Before anything is measured, and every engine that is open is closed."""
    with pytest.raises(UsageError, match=r"cannot read|no such|does not exist|is missing|there is no"):
        loadtrt.run(models={"a": A, "b": {"engine": "nowhere.onnx"}})


def test_a_device_that_is_full_is_told_with_the_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any lane is made."""
    made: list[object] = []
    monkeypatch.setattr("loadtrt.engines.simulated.SimulatedEngine.allocate", lambda *given: made.append(given))
    monkeypatch.setattr("loadtrt.runs.room.available_bytes", lambda: 0)
    monkeypatch.setattr(
        "loadtrt.engines.simulated.SimulatedEngine.memory",
        lambda self, _: MemoryBill(self.contexts, 1, 0, 0, 0, 1 << 20, 0, None),
    )
    sentence = r"the lanes of a \(2\.00 MiB\) and b \(4\.00 MiB\) need 6\.00 MiB of host memory and 0 B is free"
    with pytest.raises(EngineError, match=sentence):
        loadtrt.run(models={"a": A, "b": B})
    assert not made


# --- the command line


TWO = ["--model", f'a="{A["engine"]}",contexts=2,rate=300/s', "--model", f'b="{B["engine"]}",contexts=4']


def test_the_command_writes_and_shows_both(tmp_path: Path) -> None:
    files = "--json", tmp_path / "run.json", "--junit", tmp_path / "run.xml"
    done = command("run", *TWO, "--duration", "2s", "--warmup", "100ms", *files)
    assert done.returncode == 0
    assert re.search(r"(?s)Run of 2 models.*\na +VALID.*\nb +VALID.*\na: simulated.*\nb: simulated", done.stdout)
    assert [line.split(":")[0] for line in done.stderr.splitlines()[:4]] == ["a", "a", "b", "b"]
    content = json.loads((tmp_path / "run.json").read_text())
    assert set(content["models"]) == set(content["config"]["models"]) == {"a", "b"}
    suites = fromstring((tmp_path / "run.xml").read_text())  # noqa: S314
    assert [suite.attrib["name"].split()[2] for suite in suites] == ["a", "b"]
    again = command("run", "--config", tmp_path / "run.json", "--json", tmp_path / "again.json")
    assert again.returncode == 0
    other = json.loads((tmp_path / "again.json").read_text())
    assert [model["ok"] for model in other["models"].values()] == [model["ok"] for model in content["models"].values()]


def test_a_failed_model_is_exit_code_3_and_both_are_written(tmp_path: Path) -> None:
    models = ["--model", 'a="simulated:service=1ms,clock=virtual"']
    models += ["--model", 'b="simulated:service=1ms,lost=1s,clock=virtual"']
    done = command("run", *models, "--duration", "2s", "--warmup", "0", "--json", tmp_path / "run.json")
    assert done.returncode == 3
    assert "b: " in done.stderr.splitlines()[-1]
    content = json.loads((tmp_path / "run.json").read_text())
    assert [model["failure"] is None for model in content["models"].values()] == [True, False]
    assert content["models"]["a"]["ok"] == 2001
    assert re.search(r"\na +VALID .*\nb +FAILED ", done.stdout)


@pytest.mark.parametrize(("engine", "signals"), [(SERVICE, ("SIGINT",)), (HANGS, ("SIGINT", "SIGINT"))])
def test_ctrl_c_writes_both(server: Server, tmp_path: Path, engine: str, signals: tuple[str, ...]) -> None:
    """The first waits for what is in flight, the second does not."""
    models = ("--model", f'a="{engine}"', "--model", f'b="{engine}",rate=100/s')
    arguments = ("run", *models, "--duration", "10h", "--drain", "1h", "--warmup", "0", "--json", "run.json")
    assert server.exit_code(Case(arguments, "measuring several", signals, str(tmp_path))) == 130
    content = json.loads((tmp_path / "run.json").read_text())
    assert content["outcome"] == "interrupted"
    a, b = content["models"].values()
    assert a["ok"] + a["unserved"] > 0
    assert b["ok"] + b["unserved"] > 0


TWO_SIMULATED = ("--model", "a=simulated:null", "--model", "b=simulated:null")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model", "det.plan"], "--model det.plan has no name: write NAME=ENGINE,KEY=VALUE"),
        (["--model", "a=x,contxts=2"], "--model a: 'contxts=2' is not an option of a model: did you mean 'contexts'"),
        (
            ["--model", "a=simulated:service=1ms,h2d=1ms"],
            "--model a: 'h2d=1ms' is not an option of a model: write h2d=1ms in",
        ),
        (["--model", "a=x,duration=2s"], "--model a: 'duration' is an option of the run: give --duration beside"),
        (["--model", "a\nb=simulated:null"], r"the options: 'a\nb' is not a name of a model: write one line of"),
        (["--model", "a=x", "--model", "a=y"], "--model a is given twice: write all of its options in one"),
        (["--model", "a=x,contexts=2,contexts=3"], "--model a: contexts is given twice: leave one out"),
        (["--model", 'a=x,mix="1:0.7'], "--model a: a quote is open at"),
        (["--model", "a=x,contexts=0"], "--model a: contexts: 0 is below 1, the least"),
        (["--model", "a=x,shapes=3x4"], "--model a: shapes wants NAME:VALUE, not '3x4'"),
        (["--model", "a=contexts=2"], "no engine of model a: write --model a=ENGINE,…"),
        ([*TWO, "--export-times", "t.json"], "--export-times takes one model, and there are a, b"),
        ([*TWO, "--profile"], "--profile takes one model, and there are a, b"),
        ([*TWO, "--latency"], "--latency takes one model, and there are a, b: leave it out"),
        ([*TWO, "--repeat", "2"], "--repeat takes one model, and there are a, b: leave it out"),
        (["--model", "a=x,scenario=offline", "--model", "b=y"], "MLPerf's scenarios take one model"),
        (["g.plan", "--model", "a=b.plan"], "--engine g.plan is for a run of one model: write it as --model NAME="),
        (["g.plan", *TWO], "--engine g.plan is for a run of one model: write it as --model NAME=g.plan"),
        (
            ["--model", 'a="simulated:clock=virtual"', "--model", "b=simulated:null"],
            "a is simulated in virtual time and b is not",
        ),
        # Which of the models it is, wherever the fault is found.
        (["--model", "a=simulated:null", "--model", "b=simulated:servce=1ms"], "loadtrt: b: simulated engine: unknown"),
        ([*TWO_SIMULATED, "--model-processes", "--model", "c=simulated:nul"], "loadtrt: c: simulated engine: unknown"),
        (
            ["--model", "a=simulated:null", "--model", "b=simulated:null,max-queue=4"],
            "--model b: --max-queue is for an",
        ),
        ([*TWO_SIMULATED, "--max-queue", "4"], "loadtrt: --max-queue is for an open loop"),
    ],
)
def test_what_is_wrong_is_one_sentence(arguments: list[str], sentence: str) -> None:
    done = command("run", *arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()[-1:]
    assert sentence in line


def test_values_of_the_option() -> None:
    """Quotes keep commas, an option may be given several times where it takes several values, a flag alone is on."""
    from loadtrt.asked.model_option import parse_models

    text = "a=x,objective='latency.p99 < 5ms',objective=errors < 1%,verify,no-graph,shapes=d:1x2"
    text += ',batcher="max=4,delay=1ms"'
    assert parse_models([text]) == {
        "a": {
            "engine": "x",
            "objective": ("latency.p99 < 5ms", "errors < 1%"),
            "verify": "on",
            "graph": "off",
            "batcher": "max=4,delay=1ms",
            "shapes": {"d": "1x2"},
        }
    }


def test_a_model_of_a_file_by_its_name(tmp_path: Path) -> None:
    """FILE:MODEL, wherever a run of one model is read."""
    result, _ = rows_of(models={"a": A, "b": B})
    file = tmp_path / "two.json"
    file.write_text(result.model_dump_json())
    assert read_run(file.with_name("two.json:b")).model == result.models["b"]
    with pytest.raises(UsageError, match=r"two.json has several models \(a, b\): .* such as .*two.json:a"):
        read_run(file)
    with pytest.raises(UsageError, match=r"two\.json:c has no model c: it has a, b"):
        read_run(file.with_name("two.json:c"))
    assert command("compare", f"{file}:a", f"{file}:b").returncode == 0
    assert command("report", f"{file}:a", "-o", tmp_path / "a.hlog").returncode == 0
    done = command("compare", f"{file}:a", file)
    assert done.returncode == 2


def test_a_model_taken_out_says_beside_what_it_was_measured(tmp_path: Path) -> None:
    """On its page and where it is compared with itself alone. Metrics have its name; what is run again is all."""
    result, _ = rows_of(models={"a": A, "b": B})
    file, alone = tmp_path / "two.json", tmp_path / "a.json"
    file.write_text(result.model_dump_json())
    alone.write_text(rows_of(**A)[0].model_dump_json())
    neighbour = "b (simulated:service=5ms,clock=virtual, closed loop, 4 contexts)"
    assert f"different: beside – / {neighbour}" in " ".join(command("compare", alone, f"{file}:a").stdout.split())
    page = command("report", f"{file}:a").stdout
    assert f"beside {neighbour}" in page
    assert f"`loadtrt run --config {file}`" in page
    assert '_count{model="a",run=' in command("export", "openmetrics", f"{file}:a").stdout
    assert read_run(file.with_name("two.json:a")).beside == {"b": result.config.models["b"]}
    assert result.beside == read_run(alone).beside == {}


def test_any_name_is_one(tmp_path: Path) -> None:
    """With signs that formats of results give a meaning to."""
    names = ["a:b", 'qu"ote<&>', "two words", "ü"]
    result, _ = rows_of(models={name: {**B, "requests": 100} for name in names}, duration=None)
    file = tmp_path / "x:y.json"
    file.write_text(result.model_dump_json())
    for name in names:
        assert read_run(file.with_name(f"x:y.json:{name}")).model == result.models[name]
    for target in ("r.html", "r.md", "r.txt", "r.csv"):
        assert command("report", file, "-o", tmp_path / target).returncode == 0


def test_too_many_models_are_refused() -> None:
    with pytest.raises(UsageError, match="65 models are too many: a run has 64 at most"):
        RunConfig.of(models={str(number): B for number in range(65)})


OF_ALL = [
    ("--on onnxruntime", "a: --on is for", "on=onnxruntime"),
    ("--fp16", "a: --fp16 is for", "fp16"),
    ("--no-graph", "a: --graph is for", "no-graph"),
    ("--threads-per-context 2", "a: --threads-per-context is for", "threads_per_context=2"),
    ("--shapes x:1x3", "a: --shapes is for", "shapes=x:1x3"),
    ("--inputs data:a.npy", "a: --inputs data:a.npy: the engine has no input", "inputs=data:a.npy"),
    ("--input-range data:0..1", "a: --input-range: the engine has no input", "input_range=data:0.0..1.0"),
    ("--priority high", "a: simulated engine: --priority is for a device", "priority=high"),
    ("--sms 25%", "a: simulated engine: --sms is for a device", "sms=25%"),
    ("--lean-library x.so", "a: --lean-library is for TensorRT plans", "lean_library=x.so"),
    ("--device-times off", None, None),
]


@pytest.mark.parametrize(("option", "begins", "written"), OF_ALL)
def test_an_option_of_all_models_that_one_does_not_take(option: str, begins: str | None, written: str | None) -> None:
    """The error names the model, and says how to give the option to another: --model takes what it says."""
    models = [f"{name}=simulated:service=1ms" for name in "ab"]
    run = ("run", *(word for model in models for word in ("--model", model)), "--duration", "100ms", "--warmup", "0")
    done = command(*run, "--quiet", *option.split())
    if begins is None or written is None:  # all take it
        assert done.returncode in (0, 97), done.stderr
        return
    assert done.returncode == 2
    assert done.stderr.startswith(f"loadtrt: {begins}")
    assert done.stderr.endswith(f"; all models have it: to give it to one, write --model NAME=ENGINE,{written}\n")
    done = command("run", "--model", f"a=simulated:service=1ms,{written}", "--model", models[1])
    assert done.returncode == 2
    assert done.stderr.startswith(f"loadtrt: {begins}")
    assert "all models have it" not in done.stderr


def test_a_log_of_tensorrt_without_tensorrt(tmp_path: Path) -> None:
    """It is refused where no model is on TensorRT."""
    models = ("--model", "a=simulated:null", "--model", "b=simulated:null")
    done = command("run", *models, "--trt-log", tmp_path / "trt.log")
    assert done.returncode == 2
    assert done.stderr == "loadtrt: --trt-log is for TensorRT, and none of these models is on it: leave it out\n"
