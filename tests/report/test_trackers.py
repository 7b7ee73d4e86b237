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


@pytest.mark.parametrize("kind", ["sweep", "fleet", "profile"])
def test_what_is_not_one_experiment(kind: str) -> None:
    """One sentence, which says what to do: CSV is of points, and not of plans and profiles."""
    way_out = "write CSV of it" if kind == "sweep" else "give one of these"
    with pytest.raises(UsageError, match=f"is not of one run, starts of one, or a capacity: {way_out}"):
        metrics_json([loaded(every_kind()[kind])])
    with pytest.raises(UsageError, match="give one"):
        params_json([loaded(measured()), loaded(measured())])


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
