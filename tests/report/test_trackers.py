"""Files for trackers of experiments and for github-action-benchmark: one level, stated units, no INVALID history."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from loadtrt.errors import UsageError
from loadtrt.report.benchmark_action import bigger_json, smaller_json
from loadtrt.report.flat_json import metrics_json, params_json
from loadtrt.report.result_files import Loaded
from loadtrt.results.fleet_result import FleetResult
from loadtrt.results.interference_result import InterferenceResult
from loadtrt.results.placement_result import PlacementResult
from loadtrt.results.run_result import Problem, RunResult
from reported import altered, every_kind, loaded, measured, repeated, two_models

MLFLOW_NAME = re.compile(r"[\w. /-]{1,250}", re.ASCII)
_PROBLEM = Problem(kind="late", evidence="it was late", remedy="free a core")


def _json(text: str) -> Any:
    return json.loads(text, parse_constant=pytest.fail)  # NaN and Infinity are no JSON


def _closed() -> RunResult:
    """A run whose intervals have both ends."""
    return measured("--requests", "3000")


def test_numbers_of_a_run() -> None:
    """In ms, with their intervals; rates a second; all are numbers."""
    run = _closed()
    flat = _json(metrics_json([loaded(run)]))
    assert all(isinstance(value, int | float) and not isinstance(value, bool) for value in flat.values())
    assert all(MLFLOW_NAME.fullmatch(name) for name in flat)
    latency = run.model.metrics["latency"]
    assert flat["latency/p99_ms"] == pytest.approx((latency.percentiles_ns["p99"] or 0) / 1e6)
    assert flat["latency/p99_low_ms"] < flat["latency/p99_ms"] < flat["latency/p99_high_ms"]
    assert flat["latency/max_ms"] == pytest.approx((latency.max_ns or 0) / 1e6)
    assert flat["requests_per_s"] == run.model.throughput.requests_per_s
    assert flat["measure_ms"] == pytest.approx(run.phases.measure_ns / 1e6)
    assert (flat["valid"], flat["ok"]) == (1, run.model.ok)
    assert not [name for name in flat if name.endswith("_ns")]


def test_an_invalid_run_says_so_in_a_number() -> None:
    """A tracker keeps it; 0 tells it from the others."""
    flat = _json(metrics_json([loaded(altered(measured(), valid=False, problems=(_PROBLEM,)))]))
    assert flat["valid"] == 0


def test_what_a_run_was_measured_with() -> None:
    """Text by name: options and environment, nothing of where results went."""
    params = _json(params_json([loaded(measured())]))
    assert all(isinstance(value, str) and len(value) <= 500 for value in params.values())
    assert params["contexts"] == "2"
    assert params["rate"].startswith("200")
    assert params["engine"].startswith("simulated:service=5ms")
    assert not {"json", "quiet", "valid", "ok", "requests_per_s"} & set(params)
    assert not set(params) & set(_json(metrics_json([loaded(measured())])))


def test_several_models_and_several_starts() -> None:
    """A model's numbers are below its name; starts have their means."""
    flat = _json(metrics_json([loaded(two_models())]))
    assert flat["a/latency/p50_ms"] != flat["b/latency/p50_ms"]
    starts = repeated()
    flat = _json(metrics_json([loaded(starts)]))
    (mean,) = (spread for spread in starts.spreads if spread.name == "latency.p50")
    assert flat["latency/p50_ms"] == pytest.approx((mean.mean or 0) / 1e6)
    assert flat["starts"] == 3


def test_a_capacity() -> None:
    """Its estimate, with the interval."""
    result = every_kind()["capacity"]
    flat = _json(metrics_json([loaded(result)]))
    assert flat["capacity/requests_per_s_low"] <= flat["capacity/requests_per_s"]
    entries = _json(bigger_json([loaded(result)]))
    assert [(entry["name"], entry["unit"]) for entry in entries] == [("capacity", "requests/s")]
    assert "rate" not in _json(params_json([loaded(result)]))  # it is found, and not asked for


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("sweep", "is of many experiments: write CSV of it"),
        ("profile", "has no numbers that are tracked: give a run, another measurement or a plan"),
        ("comparison", "has no numbers that are tracked: give a run, another measurement or a plan"),
    ],
)
def test_what_is_not_one_experiment(kind: str, sentence: str) -> None:
    """One sentence, which says what to do."""
    for export in (metrics_json, params_json):
        with pytest.raises(UsageError, match=sentence):
            export([loaded(every_kind()[kind])])
    with pytest.raises(UsageError, match="give one"):
        params_json([loaded(measured()), loaded(measured())])


def test_interference() -> None:
    """p99 beside over alone falls, and what is kept of the throughput rises, where all is better; each cell has both,
    but for the p99 of an overloaded model, which is that of the length of the run."""
    result = every_kind()["interference"]
    assert isinstance(result, InterferenceResult)
    first, *others = (cell.model_copy(update={"problems": (), "failure": None}) for cell in result.cells)
    sound = result.model_copy(update={"cells": (first.model_copy(update={"overloaded": True}), *others)})
    smaller, bigger = _json(smaller_json([loaded(sound)])), _json(bigger_json([loaded(sound)]))
    ratios = {entry["name"]: entry["value"] for entry in smaller}
    known = [cell for cell in others if cell.ratio() is not None]
    assert len(ratios) == len(smaller) == len(known)
    words = {"0": "idle", "closed": "in a closed loop"}
    assert set(ratios) == {
        f"{cell.model} beside {cell.neighbour} "
        f"{words.get(cell.neighbour_level, f'at {cell.neighbour_level[:-1]} %')}, {cell.share}: latency p99"
        for cell in known
    }
    kept = [entry["name"] for entry in bigger if "kept" in entry["name"]]
    wanted = [one for cell in sound.cells for one in (cell.kept, cell.neighbour_kept) if one is not None and one.ratio]
    assert len(set(kept)) == len(kept) == len(wanted)
    assert {entry["name"] for entry in bigger} >= {f"{name} alone: throughput" for name in result.alone}
    flat = _json(metrics_json([loaded(sound)]))
    assert sum(name.endswith("latency/p99_ratio") for name in flat) == len(known)
    params = _json(params_json([loaded(sound)]))
    assert {f"{name}/engine" for name in result.config.models} < set(params)


def test_an_invalid_cell_does_not_enter_a_history() -> None:
    result = every_kind()["interference"]
    assert isinstance(result, InterferenceResult)
    first, *others = result.cells
    bad = result.model_copy(update={"cells": (first.model_copy(update={"problems": ("it was late",)}), *others)})
    with pytest.raises(UsageError, match="does not belong in a history, as it cannot be trusted: INVALID: it was late"):
        smaller_json([loaded(bad)])
    assert 0 in [value for name, value in _json(metrics_json([loaded(bad)])).items() if name.endswith("/valid")]


def test_plans() -> None:
    """GPUs, which are better when they are fewer: together, apart and of each model; of one model by routing."""
    plan = every_kind()["placement"]
    assert isinstance(plan, PlacementResult)
    plan = plan.model_copy(update={"spares": 2})
    entries = {entry["name"]: entry["value"] for entry in _json(smaller_json([loaded(plan)]))}
    apart = {f"{name}: GPUs": model.gpus for name, model in plan.models.items()}
    assert entries == {"GPUs": plan.gpus + 2, "GPUs apart": plan.apart + 2, **apart}
    assert {entry["name"] for entry in _json(bigger_json([loaded(plan)]))} == {
        f"{name}: capacity" for name in plan.models
    }
    assert _json(metrics_json([loaded(plan)]))["gpus"] == plan.gpus + 2
    fleet = every_kind()["fleet"]
    assert isinstance(fleet, FleetResult)
    flat = _json(metrics_json([loaded(fleet)]))
    for choice in fleet.choices:
        assert flat[f"{choice.routing}/valid"] == (choice.gpus is not None)
        assert flat.get(f"{choice.routing}/gpus") == choice.gpus
    doubted = fleet.model_copy(update={"doubt": "undecided: predictions are off"})
    with pytest.raises(UsageError, match="undecided: predictions are off"):
        smaller_json([loaded(doubted)])
    assert _json(params_json([loaded(fleet)]))["demand/planned_per_s"] == str(fleet.demand.planned_per_s)


def test_each_direction_has_a_file() -> None:
    """Times are better when they fall, rates when they rise; each entry is as the action takes it."""
    smaller, bigger = _json(smaller_json([loaded(_closed())])), _json(bigger_json([loaded(_closed())]))
    assert {entry["unit"] for entry in smaller} == {"ms"}
    assert {"latency p50", "latency p99", "compute p50"} <= {entry["name"] for entry in smaller}
    assert [(entry["name"], entry["unit"]) for entry in bigger] == [("throughput", "requests/s")]
    for entry in (*smaller, *bigger):
        assert set(entry) <= {"name", "unit", "value", "range", "extra"}
        assert isinstance(entry["value"], float)
        assert re.fullmatch(r"95 %: [\d.]+ \.\. [\d.]+", entry["range"])
        assert entry["extra"].startswith("simulated:service=5ms")
    names = [entry["name"] for entry in (*smaller, *bigger)]
    assert len(names) == len(set(names))


def test_names_tell_points_models_and_files_apart() -> None:
    """And stay the same from one commit to the next."""
    points = [entry["name"] for entry in _json(bigger_json([loaded(every_kind()["sweep"])]))]
    assert len(points) == len(set(points)) > 1
    models = [entry["name"] for entry in _json(bigger_json([loaded(two_models())]))]
    assert models == ["a: throughput", "b: throughput"]
    files = [Loaded("x/a.json", measured()), Loaded("x/b.json", measured())]
    assert [entry["name"] for entry in _json(bigger_json(files))] == ["a.json: throughput", "b.json: throughput"]
    files = [Loaded("x/a.json", measured()), Loaded("y/a.json", measured())]
    assert [entry["name"] for entry in _json(bigger_json(files))] == ["x/a.json: throughput", "y/a.json: throughput"]


def test_a_history_takes_no_invalid_run() -> None:
    """It would stay there."""
    invalid = altered(measured(), valid=False, problems=(_PROBLEM,))
    for write in (smaller_json, bigger_json):
        with pytest.raises(UsageError, match="cannot be trusted: INVALID: it was late"):
            write([loaded(invalid)])


def test_a_direction_without_a_number() -> None:
    """One sentence, which says so."""
    with pytest.raises(UsageError, match="no times are known: measure more requests, or leave this output out"):
        smaller_json([Loaded("few.json", altered(measured("--requests", "20"), metrics={}))])
