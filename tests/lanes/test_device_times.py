"""--device-times off: what is not measured is nowhere a number, and what is measured is the same."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from loadtrt.errors import UsageError
from loadtrt.live.alerts import law_alerts
from loadtrt.live.metrics import Observation, families
from loadtrt.live.view import Viewer
from loadtrt.records.records import DEVICE_TIMES, METRICS, ON_DEVICE
from loadtrt.report.csv_lines import lines_of
from loadtrt.report.flat_json import metrics_json
from loadtrt.report.hdr import hdr_log
from loadtrt.report.openmetrics import openmetrics_text
from loadtrt.report.perfetto import trace_json
from loadtrt.report.plain import terminal_text
from loadtrt.report.result_files import Loaded
from loadtrt.results.run_result import RunResult
from loadtrt.sizing.evidence import evidence_of
from loadtrt.sizing.outcomes import host_bound
from observed_runs import observed_run

if TYPE_CHECKING:
    from loadtrt.live.observer import RunFacts
    from loadtrt.records.board import Snapshot

QUIET = "simulated:service=2ms,cv=0.3,h2d=100us,d2h=50us,enqueue=20us,clock=virtual"
SLOW_HOST = "simulated:service=100us,enqueue=200us,clock=virtual"  # the thread cannot keep two lanes busy
LOADS: list[dict[str, Any]] = [
    {"engine": QUIET, "contexts": 2, "duration": "2s"},
    {"engine": QUIET, "contexts": 2, "rate": "700/s", "duration": "2s"},
    {"engine": QUIET, "contexts": 2, "mix": "1:3, 4:1", "duration": "2s"},
    {"engine": SLOW_HOST, "contexts": 2, "duration": "500ms"},
    {"engine": SLOW_HOST, "contexts": 2, "rate": "3000/s", "duration": "500ms"},
]
KEPT = [metric.name for metric in METRICS if metric.name not in DEVICE_TIMES]
each_load = pytest.mark.parametrize("load", LOADS, ids=str)


def _both(load: dict[str, Any]) -> list[tuple[RunResult, Snapshot, RunFacts]]:
    return [observed_run({**load, "device_times": times}) for times in ("on", "off")]


@each_load
def test_throughput_and_latency_are_the_same(load: dict[str, Any]) -> None:
    """Request by request, as the load and the engine's draws are."""
    timed, untimed = (result.model for result, _, _ in _both(load))
    assert untimed.throughput == timed.throughput
    assert untimed.metrics == {name: timed.metrics[name] for name in KEPT}
    assert untimed.histograms == {name: timed.histograms[name] for name in KEPT}
    assert untimed.flow == timed.flow
    assert (timed.overlap is None, untimed.overlap) == (False, None)
    assert {**timed.engine.mode, "device times": "off"} == untimed.engine.mode


@each_load
def test_a_host_that_is_late_is_seen(load: dict[str, Any]) -> None:
    """At least as much as with times: when an enqueue ended is known, and not when the device began."""
    timed, untimed = _both(load)
    assert untimed[0].model.starved_fraction >= timed[0].model.starved_fraction
    kinds = {problem.kind for problem in timed[0].model.problems}
    assert {problem.kind for problem in untimed[0].model.problems} == kinds
    assert {alert.kind for alert in law_alerts(untimed[1], untimed[2])} == {
        alert.kind for alert in law_alerts(timed[1], timed[2])
    }
    assert (host_bound(timed[0], None) is None) == (host_bound(untimed[0], None) is None)
    if load["engine"] == SLOW_HOST and "rate" not in load:
        assert "starved" in kinds


@each_load
def test_no_part_of_a_result_has_a_time_on_the_device(load: dict[str, Any]) -> None:
    """Neither the file, nor what it is exported to, nor words; the file is read back as it was."""
    result, snapshot, facts = _both(load)[1]
    written = json.loads(result.model_dump_json())
    assert RunResult.model_validate(written) == result

    def numbers(value: Any, where: str = "") -> Any:
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in items:
            yield from numbers(inner, f"{where}.{key}")
        if not isinstance(value, dict | list | None | str):
            yield where

    words = "|".join((*ON_DEVICE, r"device_p?\d*", "lanes_computing"))
    found = [where for where in numbers(written["models"]) if re.search(rf"\.({words})(_|\.|$)", where)]
    assert found == []
    loaded = Loaded("run.json", result)
    (line,) = lines_of(loaded)
    assert not [name for name, value in line.items() if name.startswith(tuple(ON_DEVICE)) and value is not None]
    assert not {key.split("_")[0] for key in json.loads(metrics_json([loaded]))} & {*DEVICE_TIMES}
    dated = result.model_copy(update={"started": "2026-11-30T00:00:00+00:00"})
    assert not re.search("loadtrt_(h2d|d2h|compute|device|lane_compute)", openmetrics_text(dated))
    assert not re.search("Tag=(h2d|d2h|compute|device)", hdr_log(dated))
    assert {event["name"] for event in json.loads(trace_json(result))["traceEvents"]}.isdisjoint(ON_DEVICE)
    names = {family.name for family in families(Observation(snapshot, facts, None, 0))}
    assert not [name for name in names if re.search("h2d|d2h|compute|device|load_ratio", name)]
    view = Viewer().take(snapshot, facts, None, snapshot.written_ns)
    assert {lane.compute_share for lane in view.lanes} == {None}
    text = terminal_text(result)
    assert "device times off" in " ".join(text.split())
    assert not re.search(r"^(h2d|compute|d2h|device) ", text, re.MULTILINE)
    for finding in result.model.findings:
        assert not re.search("comput|cop(y|ies)", finding.evidence), finding


def test_tables_leave_these_columns_out() -> None:
    pytest.importorskip("pandas")
    timed, untimed = (result for result, _, _ in _both(LOADS[0]))
    columns = [{*result.to_pandas("slowest").columns} for result in (timed, untimed)]
    assert columns[0] - columns[1] == {f"{name}_ns" for name in ON_DEVICE}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"objective": ["compute.p99 < 9ms"]}, "an objective on compute needs device times: leave --device-times off"),
        ({"objective": ["device.max < 9ms"]}, "an objective on device needs device times"),
        ({"export_times": "t.json"}, "--export-times writes times on the device"),
        ({"engine": "simulated:null"}, "simulated:null has no device whose times are measured"),
        (
            {"engine": "zoo:lenet", "on": "onnxruntime"},
            "--device-times is for TensorRT plans, .*not for models on ONNX",
        ),
    ],
)
def test_what_needs_these_times_refuses(more: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        observed_run({"engine": QUIET, "duration": "1s", "device_times": "off", **more})


def test_a_plan_takes_the_latency_of_one_request_for_its_time() -> None:
    """With several buffer sets no request is alone, and how long one takes alone is not known."""
    runs = [
        observed_run(
            {"engine": QUIET, "contexts": contexts, "buffers": buffers, "duration": "2s", "device_times": "off"}
        )[0]
        for buffers in (1, 2)
        for contexts in (1, 2)
    ]
    evidence = evidence_of(tuple(runs[:2]))
    assert evidence.gpu.alone_mean_ns == pytest.approx(runs[0].model.metrics["latency"].mean_ns)
    with pytest.raises(UsageError, match="has no histogram of its device: measure it with --buffers 1, or without"):
        evidence_of(tuple(runs[2:]))
