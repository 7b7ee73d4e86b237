"""`import loadtrt`: each command as a function, with the options of the command by name."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import loadtrt
from command_line import loadtrt as command
from loadtrt.runs.watched import Silence
from loadtrt.sizing.rig import Rig
from onnx_files import doubling

if TYPE_CHECKING:
    from collections.abc import Callable

VIRTUAL: dict[str, Any] = {"engine": "simulated:service=5ms,clock=virtual", "warmup": 0}
OBJECTIVE = "latency.p99 < 50ms"
PAIR: dict[str, Any] = {
    "models": {name: {"engine": f"simulated:service={time},device=g,clock=virtual"} for name, time in
               (("a", "1ms"), ("b", "3ms"))},
    "warmup": 0, "duration": "1s", "rounds": 2, "neighbour": ["50%"], "load": 0.3,
}  # fmt: skip
SEARCH: dict[str, Any] = {**VIRTUAL, "objective": OBJECTIVE, "quick": True, "time": "20s"}


@pytest.fixture(scope="module")
def made() -> dict[str, loadtrt.Result]:
    """A result of each function."""
    run = loadtrt.run(**VIRTUAL, requests=500)
    capacity = loadtrt.capacity(**SEARCH)
    layers = loadtrt.profile(engine="zoo:googlenet", on="onnxruntime", requests=2, warmup=0)
    return {
        "run": run,
        "sweep": loadtrt.sweep(**VIRTUAL, requests=100, contexts=[1, 2]),
        "capacity": capacity,
        "interference": loadtrt.interference(**PAIR),
        "plan": loadtrt.plan_capacity(capacity, demand="500/s", routing="random"),
        "placement": loadtrt.plan_capacity({"a": capacity, "b": capacity}, demand={"a": 500, "b": "60/m"}),
        "profile": layers,
        "comparison": loadtrt.compare(run, loadtrt.run(**VIRTUAL, requests=500, contexts=2), fail_if="throughput -3%"),
        "profiles": loadtrt.compare(layers, layers),
    }


KINDS = ("run", "sweep", "capacity", "interference", "plan", "placement", "profile", "comparison", "profiles")


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_that_is_written_is_read_back_equal(
    kind: str, made: dict[str, loadtrt.Result], tmp_path: Path
) -> None:
    """And of its own type; nothing but its file is made."""
    file = tmp_path / "result.json"
    made[kind].write(file)
    back = loadtrt.read(file)
    assert type(back) is type(made[kind])
    assert back == made[kind]
    assert back.to_json() == made[kind].to_json()
    assert list(tmp_path.iterdir()) == [file]


def test_results_differ_where_their_files_do(made: dict[str, loadtrt.Result]) -> None:
    """Records, which files do not hold, do not count."""
    run = made["run"]
    assert isinstance(run, loadtrt.RunResult)
    assert run.records is not None
    assert run.with_records(None) == run
    assert run.model_copy(update={"valid": not run.valid}) != run
    assert run != made["sweep"]


def test_a_started_run_is_read_too(tmp_path: Path) -> None:
    """What `run --repeat` writes."""
    file = tmp_path / "starts.json"
    done = command("run", VIRTUAL["engine"], "--requests", "20", "--warmup", "0", "--repeat", "2", "--json", file)
    assert done.returncode in (0, 97), done.stderr
    back = loadtrt.read(str(file))
    assert isinstance(back, loadtrt.RepeatResult)
    assert back.to_json() == file.read_text()


def test_runs_of_one_process_have_ids_of_their_own() -> None:
    """Metrics tell runs apart by them, and `compare` would take two for one."""
    runs = [loadtrt.run(**VIRTUAL, requests=20) for _ in range(3)]
    assert len({run.run for run in runs}) == 3
    assert loadtrt.compare(runs[:2], runs[2:]).a == ("A1", "A2")


@pytest.mark.parametrize("instant", [1.5, True, "now", 1_800_000_000, 2**63, 10**30, np.float64(2e18)])
def test_a_start_in_other_units_is_refused(instant: Any) -> None:
    """Seconds are long over, and what int64 does not hold never comes."""
    with pytest.raises(loadtrt.UsageError, match=r"^start_at .* is not Unix time in ns"):
        loadtrt.run(**VIRTUAL, requests=20, start_at=instant)


def test_a_start_may_be_a_number_of_numpy() -> None:
    assert loadtrt.run(**VIRTUAL, requests=20, start_at=np.int64(time.time_ns())).model.ok == 20  # type: ignore[arg-type]


@pytest.mark.filterwarnings("error")
def test_a_warning_loses_no_result(capsys: pytest.CaptureFixture[str]) -> None:
    """Where warnings are errors, it is told as a command does."""
    Silence().insist("metrics were not pushed")
    assert capsys.readouterr().err == "loadtrt: metrics were not pushed\n"


def test_each_run_warns_of_what_was_not_done() -> None:
    """Python shows a warning once a place in the code, and shows that place: the second run would say nothing."""
    code = (
        "import loadtrt\n"
        "for _ in range(2):\n"
        "    loadtrt.run(engine='simulated:null', requests=5, warmup=0, push='http://127.0.0.1:1')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    begin = "loadtrt:1: RuntimeWarning: metrics were not pushed to http://127.0.0.1:1: "
    assert [line[: len(begin)] for line in done.stderr.splitlines()] == [begin, begin]


# --- what is given


def test_options_are_taken_as_python_has_them(tmp_path: Path) -> None:
    """Numbers and arrays of numpy, paths, lists; None is an option that is not given."""
    plan = Path(doubling(tmp_path, 2))
    made = loadtrt.run(
        engine=plan, on="onnxruntime", contexts=np.int64(2), requests=np.int32(8), warmup=np.float64(0), rate=None
    )
    assert (made.model.ok, made.config.model.contexts, made.config.model.engine) == (8, 2, str(plan))
    swept = loadtrt.sweep(**VIRTUAL, requests=10, contexts=np.arange(1, 3), buffers=1)
    assert [point.settings for point in swept.points] == [
        {"contexts": 1, "buffers": 1},
        {"contexts": 2, "buffers": 1},
    ]


def test_options_are_laid_over_a_configuration(tmp_path: Path) -> None:
    """A RunConfig, a YAML file or the file of a run, as --config takes them; no file that these name is written."""
    file = tmp_path / "run.yaml"
    file.write_text(
        "engine: simulated:service=5ms,clock=virtual\nwarmup: 0\nrequests: 20\njson: out.json\njunit: x.xml\n"
    )
    by_file = loadtrt.run(file, contexts=2)
    by_name = loadtrt.run(config=str(file), contexts=2)
    by_config = loadtrt.run(loadtrt.RunConfig.of(**VIRTUAL, requests=20, json="out.json"), contexts=2)
    by_file.write(tmp_path / "before.json")
    again = loadtrt.run(tmp_path / "before.json")
    assert {made.config.model.contexts for made in (by_file, by_name, by_config, again)} == {2}
    assert {made.model.ok for made in (by_file, by_name, by_config, again)} == {20}
    swept = loadtrt.sweep(file, contexts="1,2")
    assert [point.settings["contexts"] for point in swept.points] == [1, 2]
    assert {path.name for path in tmp_path.iterdir()} == {"run.yaml", "before.json"}


@pytest.mark.parametrize("contexts", ["1,2,4", [1, 2, 4], (1, "2", 4), ["1..2", 4], range(1, 5, 1)])
def test_an_axis_is_a_list_or_a_text(contexts: Any) -> None:
    """Points are the same, whatever it is written as."""
    swept = loadtrt.sweep(**VIRTUAL, requests=5, contexts=contexts, all=True)
    wanted = [1, 2, 3, 4] if isinstance(contexts, range) else [1, 2, 4]
    assert [point.settings["contexts"] for point in swept.points] == wanted


def test_axes_of_switches_and_of_texts_with_commas() -> None:
    """A batcher has commas itself."""
    batchers = ["max=2,delay=1ms", "max=4,delay=2ms"]
    swept = loadtrt.sweep(
        engine="simulated:service=1ms,clock=virtual", warmup=0, duration="1s", rate=[100, "200/s"],
        batcher=batchers,
    )  # fmt: skip
    assert {point.settings["batcher"] for point in swept.points} == set(batchers)
    assert {point.settings["rate"] for point in swept.points} == {100, 200}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"neighbour": "50%", "share": ["streams"], "precision": 0.1, "load": np.float64(0.3)},
        {"models": {}, "engines": [model["engine"] for model in PAIR["models"].values()]},
    ],
)
def test_interference_takes_lists_numbers_and_texts(options: dict[str, Any], made: dict[str, loadtrt.Result]) -> None:
    """Rates, rounds and ratios are the same, whatever they are written as; so are those of engines without names."""
    before, after = made["interference"], loadtrt.interference(**(PAIR | options))
    assert isinstance(before, loadtrt.InterferenceResult)
    assert [(cell.neighbour_level, cell.rate_per_s, cell.ratios) for cell in after.cells] == [
        (cell.neighbour_level, cell.rate_per_s, cell.ratios) for cell in before.cells
    ]
    assert list(after.config.models) == (["simulated", "simulated-2"] if "engines" in options else ["a", "b"])


def test_interference_keeps_its_result_and_continues(tmp_path: Path) -> None:
    file = tmp_path / "i.json"
    first = loadtrt.interference(**PAIR, json=file)
    assert loadtrt.read(file) == first
    with pytest.raises(loadtrt.UsageError, match="would be overwritten"):
        loadtrt.interference(**PAIR, json=file)
    more = loadtrt.interference(**(PAIR | {"rounds": 3, "precision": "0.1%"}), json=file, resume=True)
    assert [cell.rounds[:2] for cell in more.cells] == [cell.rounds for cell in first.cells]


def test_interference_in_a_running_loop(made: dict[str, loadtrt.Result]) -> None:
    """Called or awaited, as in a notebook: the same cells."""
    before = made["interference"]
    assert isinstance(before, loadtrt.InterferenceResult)

    async def cell() -> list[loadtrt.InterferenceResult]:
        return [loadtrt.interference(**PAIR), await loadtrt.interference_async(**PAIR)]

    for after in asyncio.run(cell()):
        assert [one.rounds for one in after.cells] == [one.rounds for one in before.cells]


def test_interrupted_interference_has_its_cells(
    monkeypatch: pytest.MonkeyPatch, made: dict[str, loadtrt.Result]
) -> None:
    """A cancellation in the last run: the round before it is whole."""
    before = made["interference"]
    assert isinstance(before, loadtrt.InterferenceResult)
    runs, run = 0, Rig.run

    async def cell() -> loadtrt.InterferenceResult:
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(loadtrt.interference_async(**PAIR))

        def cancelling(rig: Rig, *given: Any, **more: Any) -> Any:
            nonlocal runs
            runs += 1
            if runs == 2 + 2 * 2 * 2:  # two alone, and of two cells two rounds of two runs
                loop.call_soon_threadsafe(task.cancel)
                while not rig.stopped:
                    time.sleep(0.001)
            return run(rig, *given, **more)

        monkeypatch.setattr(Rig, "run", cancelling)
        return await task

    result = asyncio.run(cell())
    assert result.outcome == "interrupted"
    assert [len(one.rounds) for one in result.cells] == [2, 1]
    assert result.cells[0].rounds == before.cells[0].rounds


def test_a_plan_of_several_models_is_awaited(made: dict[str, loadtrt.Result]) -> None:
    capacity = made["capacity"]
    assert isinstance(capacity, loadtrt.CapacityResult)
    both, demand = MappingProxyType({"a": capacity, "b": capacity}), MappingProxyType({"a": 5, "b": 6})
    plan = asyncio.run(loadtrt.plan_capacity_async(both, demand=demand))
    assert isinstance(plan, loadtrt.PlacementResult)


def test_a_stressor_has_a_name() -> None:
    stressor = {"sm": {"engine": "simulated:service=1ms,device=g,clock=virtual"}}
    result = loadtrt.interference(**(PAIR | {"stressor": stressor, "duration": "6s"}))
    assert list(result.fingerprints) == ["a", "b"]


def test_several_models_are_planned_by_name(made: dict[str, loadtrt.Result], tmp_path: Path) -> None:
    """From results and files; what was measured beside each other is one or a list."""
    capacity, pair = made["capacity"], made["interference"]
    assert isinstance(capacity, loadtrt.CapacityResult)
    capacity.write(tmp_path / "b.json")
    demand = {"a": 500, "b": np.float64(1.0)}
    plan = loadtrt.plan_capacity({"a": capacity, "b": tmp_path / "b.json"}, demand=demand, spares=1)
    assert isinstance(plan, loadtrt.PlacementResult)
    assert list(plan.models) == ["a", "b"]
    assert plan.sources == ("CapacityResult", str(tmp_path / "b.json"))
    for together in (pair, [pair]):
        with pytest.raises(loadtrt.UsageError, match="measured a with another engine"):
            loadtrt.plan_capacity({"a": capacity, "b": capacity}, demand=demand, together=together)


FAULTS: dict[str, tuple[Callable[[], object], str]] = {
    "run, name": (lambda: loadtrt.run(**VIRTUAL, contxts=2), "unknown option 'contxts': did you mean 'contexts'?"),
    "run, value": (lambda: loadtrt.run(**VIRTUAL, contexts="many"), "'many' is not a whole number"),
    "run, engine": (lambda: loadtrt.run(contexts=2), "no engine"),
    "run, config": (lambda: loadtrt.run(3), "3 is neither a RunConfig nor the name of a file"),  # type: ignore[arg-type]
    "run, an engine": (
        lambda: loadtrt.run("g.plan"),
        "g.plan is an engine, not a configuration: write --engine g.plan, or in Python engine='g.plan'",
    ),
    "run, a model": (lambda: loadtrt.run(Path("zoo:googlenet")), "or in Python engine='zoo:googlenet'"),
    "sweep, an engine": (lambda: loadtrt.sweep("simulated:null", contexts=[1]), "not a configuration: write --engine"),
    "RunConfig, options": (lambda: loadtrt.RunConfig(**VIRTUAL), "write RunConfig.of(engine='g.plan', contexts=4)"),
    "run, file": (lambda: loadtrt.run("gone.yaml"), "gone.yaml"),
    "run, writes": (lambda: loadtrt.run(**VIRTUAL, junit="a.xml"), "leave junit out"),
    "run, prints": (lambda: loadtrt.run(**VIRTUAL, github=True), "prints nothing: leave github out"),
    "run, sweep's": (lambda: loadtrt.run(**VIRTUAL, resume=True), "unknown option 'resume'"),
    "sweep, name": (lambda: loadtrt.sweep(**VIRTUAL, context=[1]), "did you mean 'contexts'?"),
    "sweep, no axis": (lambda: loadtrt.sweep(**VIRTUAL), "a sweep needs an axis"),
    "sweep, run's": (lambda: loadtrt.sweep(**VIRTUAL, contexts=[1], profile=True), "unknown option 'profile'"),
    "sweep, value": (lambda: loadtrt.sweep(**VIRTUAL, contexts=[1, "x"]), "'x' is not a count"),
    "sweep, nested": (lambda: loadtrt.sweep(**VIRTUAL, contexts=[[1]]), "[1] is not a value"),
    "sweep, float": (lambda: loadtrt.sweep(**VIRTUAL, contexts=[1.5]), "1.5 is not a whole number"),
    "sweep, empty": (lambda: loadtrt.sweep(**VIRTUAL, contexts=[]), "--contexts has no values"),
    "sweep, nan": (lambda: loadtrt.sweep(**VIRTUAL, contexts=[float("nan")]), "contexts"),
    "sweep, flag": (lambda: loadtrt.sweep(**VIRTUAL, contexts=[1], all="yes"), "'yes' is neither True nor False"),
    "sweep, stdout": (lambda: loadtrt.sweep(**VIRTUAL, contexts=[1], json="-"), "name a file"),
    "sweep, resume": (lambda: loadtrt.sweep(**VIRTUAL, contexts=[1], resume=True), "--resume continues"),
    "capacity, name": (lambda: loadtrt.capacity(**SEARCH, precisoin="3%"), "did you mean 'precision'?"),
    "capacity, no objective": (lambda: loadtrt.capacity(**VIRTUAL), "a capacity needs an objective"),
    "capacity, time": (lambda: loadtrt.capacity(**VIRTUAL, objective=OBJECTIVE, time="soon"), "--time: 'soon' is not"),
    "capacity, precision": (lambda: loadtrt.capacity(**SEARCH, precision="3 parts"), "--precision 3 parts is not from"),
    "capacity, rate": (lambda: loadtrt.capacity(**SEARCH, rate=5), "unknown option 'rate'"),
    "profile, name": (lambda: loadtrt.profile(engine="zoo:googlenet", bach=1), "did you mean 'batch'?"),
    "profile, simulated": (lambda: loadtrt.profile(engine="simulated:null"), "has no layers to time"),
    "merge, none": (loadtrt.merge, "there is nothing to merge"),
    "merge, a list": (lambda: loadtrt.merge(["0.json"]), "give a result, or a file such as 'run.json', one by one"),  # type: ignore[arg-type]
    "merge, no file": (lambda: loadtrt.merge("0.json"), "cannot read 0.json"),
    "plan, none": (lambda: loadtrt.plan_capacity(demand=5), "a plan needs measurements"),
    "plan, source": (lambda: loadtrt.plan_capacity(3, demand=5), "3 is neither a result nor"),  # type: ignore[call-overload]
    "plan, no demand": (lambda: loadtrt.plan_capacity("capacity.json"), "a plan needs a demand"),
    "plan, name": (lambda: loadtrt.plan_capacity("c.json", demnd=5), "did you mean 'demand'?"),
    "plan, growth": (lambda: loadtrt.plan_capacity("c.json", demand=5, growth=30), "--growth 30 is not a percentage"),
    "plan, spares": (lambda: loadtrt.plan_capacity("c.json", demand=5, spares=-1), "--spares -1 is not from 0 to 1000"),
    "plan, count": (lambda: loadtrt.plan_capacity("c.json", demand=5, batch="two"), "'two' is not a whole number"),
    "plan, truth": (lambda: loadtrt.plan_capacity("c.json", demand=5, gpu_price=True), "is not a price above zero"),
    "plan, price": (lambda: loadtrt.plan_capacity("c.json", demand=5, gpu_price="a lot"), "is not a price above zero"),
    "plan, ties": (lambda: loadtrt.plan_capacity("c.json", demand=5, ties="randm"), "did you mean 'random'?"),
    "plan, routing": (lambda: loadtrt.plan_capacity("c.json", demand=5, routing=[3]), "'3' is not a routing policy"),
    "plan, rate": (lambda: loadtrt.plan_capacity("c.json", demand="lots"), "--demand: 'lots' is not a rate"),
    "compare, source": (lambda: loadtrt.compare(1, 2), "1 is neither a result nor"),  # type: ignore[call-overload]
    "plan, no names": (lambda: loadtrt.plan_capacity("c.json", demand={"a": 5}), "needs the capacity of each by name"),
    "plan, together": (lambda: loadtrt.plan_capacity("c.json", demand=5, together="i.json"), "by name"),
    "placement, demand": (lambda: loadtrt.plan_capacity({"a": "c.json"}, demand=5), "demand 5 has no names"),
    "placement, other": (lambda: loadtrt.plan_capacity({"a": "c.json"}, demand={"b": 5}), "the demands are for b, and"),
    "placement, one": (lambda: loadtrt.plan_capacity({"a": "c.json"}, demand={"a": 5}), "needs the demand of each"),
    "placement, source": (lambda: loadtrt.plan_capacity({"a": 3}, demand={"a": 5}), "3 is neither a result nor"),  # type: ignore[dict-item]
    "interference, one": (lambda: loadtrt.interference(engines=["a.plan"]), "there is one: give another engine"),
    "interference, engine": (lambda: loadtrt.interference(engine="a.plan"), "is between engines: give engines="),
    "interference, text": (lambda: loadtrt.interference(engines="a.plan"), "is not a list of engines"),
    "interference, names": (lambda: loadtrt.interference(models=["a.plan"]), "models ['a.plan'] has no names"),
    "interference, stressor": (lambda: loadtrt.interference(**PAIR, stressor="dram"), "stressor 'dram' has no names"),
    "interference, name": (lambda: loadtrt.interference(**PAIR, shares="x"), "did you mean 'share'?"),
    "interference, share": (lambda: loadtrt.interference(**PAIR, share=["x"]), "--share: 'x' is not a way to share"),
    "interference, level": (lambda: loadtrt.interference(**(PAIR | {"neighbour": ["x"]})), "--neighbour: 'x' is not"),
    "interference, load": (lambda: loadtrt.interference(**(PAIR | {"load": 3})), "--load: '3' is not above 0"),
    "interference, rounds": (lambda: loadtrt.interference(**(PAIR | {"rounds": 0})), "rounds 0 is not a whole number"),
    "interference, arrivals": (lambda: loadtrt.interference(**PAIR, arrivals="trace"), "are poisson or constant"),
    "interference, flag": (lambda: loadtrt.interference(**PAIR, stressors="yes"), "'yes' is neither True nor False"),
    "compare, empty": (lambda: loadtrt.compare([], "b.json"), "side A is empty"),
    "compare, threshold": (lambda: loadtrt.compare("a.json", "b.json", fail_if="p99"), "'p99' is not a threshold"),
    "read, gone": (lambda: loadtrt.read("gone.json"), "gone.json"),
    "read, kind": (lambda: loadtrt.read(b"x"), "is not the name of a file"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_call_is_one_sentence(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before an engine is opened, and whatever the function."""
    monkeypatch.chdir(tmp_path)
    call, sentence = FAULTS[fault]
    with pytest.raises(loadtrt.UsageError) as caught:
        call()
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_engine_that_fails_is_an_engine_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In every function that opens one."""
    file = Path(doubling(tmp_path, 2))

    def failing(*_: object) -> None:
        raise loadtrt.EngineError("the device is gone")

    monkeypatch.setattr("loadtrt.runs.opened.open_engine", failing)
    monkeypatch.setattr("loadtrt.runs.layers.open_engine", failing)
    for measure in (
        lambda: loadtrt.run(engine=file, on="onnxruntime", requests=1),
        lambda: loadtrt.sweep(engine=file, on="onnxruntime", contexts=[1], requests=1),
        lambda: loadtrt.capacity(engine=file, on="onnxruntime", objective=OBJECTIVE, quick=True),
        lambda: loadtrt.interference(engines=[str(file), str(file)], on="onnxruntime"),
        lambda: loadtrt.profile(engine=file, on="onnxruntime", requests=1),
    ):
        with pytest.raises(loadtrt.EngineError, match="the device is gone"):
            measure()
    assert issubclass(loadtrt.CudaError, loadtrt.EngineError)


def test_what_is_merged_must_be_of_one_fleet(made: dict[str, Any], tmp_path: Path) -> None:
    """Each with its sentence; files count as results."""
    worker = loadtrt.run(**VIRTUAL, requests=500, worker="0/2")
    worker.write(tmp_path / "a.json")
    file = str(tmp_path / "a.json")
    for given, sentence in (
        ([made["run"]], "result 1 is not of a worker"),
        ([worker, made["sweep"]], "result 2 is a SweepResult"),
        ([worker, worker], "result 1 and result 2 are both of worker 0"),
        ([file, worker], "are both of worker 0"),
        ([file, file], "is given twice"),
    ):
        with pytest.raises(loadtrt.UsageError, match=sentence):
            loadtrt.merge(*given)
    other = loadtrt.run(**VIRTUAL, requests=500, worker="1/2")
    whole = loadtrt.merge(other, file)
    assert whole == loadtrt.merge(worker, other).model_copy(update={"command": whole.command})
    assert whole.model.ok == worker.model.ok + other.model.ok == 500
    with pytest.raises(loadtrt.UsageError, match="no records: it was made by several processes"):
        whole.to_pandas("records")


def test_what_is_compared_must_be_comparable(made: dict[str, Any], tmp_path: Path) -> None:
    """Each with its sentence."""
    for a, b, sentence in (
        (made["run"], made["profile"], "give two runs, or two profiles"),
        (made["sweep"], made["run"], "A is a SweepResult: give a RunResult"),
        ([made["run"], made["run"]], made["run"], "is the same run as"),
        (made["profile"], [made["run"], made["run"]], "is the same run"),
    ):
        with pytest.raises(loadtrt.UsageError, match=sentence):
            loadtrt.compare(a, b)
    made["run"].write(tmp_path / "a.json")
    of_files = loadtrt.compare(tmp_path / "a.json", made["run"])
    assert isinstance(of_files, loadtrt.Comparison)
    assert of_files.b == ("B",)
    assert {ratio.ratio for ratio in of_files.ratios if ratio.ratio is not None} == {1.0}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"fail_if": 3}, "fail_if 3 is not a threshold"),
        ({"fail_if": ["throughput -3%", 3]}, "is not a threshold"),
        ({"fail_if": {"throughput -3%": 1}}, "is not a threshold"),
        ({"fail_if": "x"}, "'x' is not a threshold"),
        ({"layer_info_a": 3}, "3 is not the name of a file"),
        ({"layer_info_a": "x.json"}, "layer_info_a is for .*, and A is a ProfileResult: leave it out"),
    ],
)
def test_options_of_a_comparison_that_cannot_be(options: dict[str, Any], sentence: str, made: dict[str, Any]) -> None:
    """One sentence; none is left out in silence."""
    with pytest.raises(loadtrt.UsageError, match=sentence):
        loadtrt.compare(made["profile"], made["profile"], **options)


@pytest.mark.parametrize("path", [3, None, b"x.json", ""])
def test_names_of_files_that_are_none(path: Any, made: dict[str, Any]) -> None:
    """One sentence."""
    with pytest.raises(loadtrt.UsageError, match="is not the name of a file"):
        made["run"].write(path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([{"startEnqMs": 0, "latencyMs": 1}], "loadtrt.compare takes such files"),
        ({"schema_version": 1, "plan_sha256": ""}, "it is not a result of loadtrt"),
        ({"schema_version": "loadtrt.run/99"}, "which this loadtrt does not know"),
        ({"schema_version": "loadtrt.run/1"}, "does not fit its schema"),
        ({"x": 1}, "is JSON, but neither"),
    ],
)
def test_reading_what_is_no_result(content: object, sentence: str, tmp_path: Path) -> None:
    """One sentence, which says what it is."""
    file = tmp_path / "x.json"
    file.write_text(json.dumps(content))
    with pytest.raises(loadtrt.UsageError, match=sentence):
        loadtrt.read(file)


# --- what is kept on the way


def test_a_sweep_keeps_its_result_and_continues(tmp_path: Path) -> None:
    """json is written after each point; resume=True makes the points that are missing; force=True begins anew."""
    file = tmp_path / "sweep.json"
    options: dict[str, Any] = {**VIRTUAL, "requests": 20, "json": file}
    whole = loadtrt.sweep(**options, contexts=[1, 2])
    assert loadtrt.read(file) == whole
    with pytest.raises(loadtrt.UsageError, match="would be overwritten"):
        loadtrt.sweep(**options, contexts=[1, 2])
    more = loadtrt.sweep(**options, contexts=[1, 2, 3], resume=True, all=True)
    assert more.points[:2] == whole.points
    assert len(more.points) == 3
    assert loadtrt.read(file) == more
    assert len(loadtrt.sweep(**options, contexts=[1], force=True).points) == 1
    loadtrt.sweep(**{**options, "json": bytes(tmp_path / "bytes.json")}, contexts=[1])
    assert (tmp_path / "bytes.json").exists()


def test_no_file_that_is_read_is_written_over(tmp_path: Path) -> None:
    """With force=True neither."""
    model = Path(doubling(tmp_path, 2))
    before = model.read_bytes()
    with pytest.raises(loadtrt.UsageError, match="would be overwritten"):
        loadtrt.sweep(engine=model, contexts=[1], json=model, force=True)
    assert model.read_bytes() == before


# --- the module itself


def test_each_name_is_there_and_imported_when_it_is_used() -> None:
    """`import loadtrt` alone imports nothing heavy; dir() and `from loadtrt import *` know all names."""
    code = (
        "import sys, loadtrt\n"
        "heavy = ('numpy', 'pydantic', 'anyio', 'asyncio', 'click', 'pandas')\n"
        "print([name for name in heavy if name in sys.modules])\n"
        "print(loadtrt.UsageError.__name__, [name for name in heavy if name in sys.modules])\n"
        "print(sorted(set(loadtrt.__all__) - set(dir(loadtrt))))\n"
        "from loadtrt import *\n"
        "print(callable(capacity), callable(run))\n"
        "import loadtrt.sizing.find, loadtrt.runs.maker\n"
        "print(loadtrt.capacity is capacity, 'pandas' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "UsageError []", "[]", "True True", "True False"]
    with pytest.raises(AttributeError, match="no attribute 'rum'"):
        loadtrt.rum  # type: ignore[attr-defined]  # noqa: B018


def test_every_public_name_is_documented() -> None:
    """And says what it raises, if it is a function that can."""
    for name in loadtrt.__all__:
        thing = getattr(loadtrt, name)
        if name != "__version__":
            assert thing.__doc__, name
