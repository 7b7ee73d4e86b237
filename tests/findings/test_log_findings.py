"""What TensorRT logged, as findings and in reports."""

from __future__ import annotations

from typing import Any

import pytest

from loadtrt.findings.findings import findings_of
from loadtrt.findings.log_findings import log_findings, log_summary, together
from loadtrt.report.plain import terminal_text
from loadtrt.report.settings import noted
from loadtrt.results.engine_info import EngineInfo, LogMessage
from loadtrt.results.run_result import RunResult
from runs_by_hand import engine, run_of

# TensorRT's own words, of 8.6 and of 10.16.
OTHER_MODEL = (
    "Using an engine plan file across different models of devices is not recommended and is likely to affect "
    "performance or even cause errors.",
    "Using an engine plan file across different models of devices is not supported and is likely to affect "
    "performance or even cause errors or deadlock.",
)
EAGER = "CUDA lazy loading is not enabled. Enabling it can significantly reduce device memory usage"


def warned(*texts: str, times: int = 1, severity: str = "warning", **of: Any) -> EngineInfo:
    return engine(log=tuple(LogMessage(severity, text, times) for text in texts), **of)


@pytest.mark.parametrize("text", OTHER_MODEL)
def test_a_plan_of_another_model_of_gpu(text: str) -> None:
    """Its own kind, with where the plan was built if that is known, and how it is built here."""
    (found,) = log_findings(warned(text, times=24))
    assert found.kind == "built-elsewhere"
    assert found.evidence.startswith('TensorRT warns (24 times): "Using an engine plan file across')
    assert "another model of GPU than this one (NVIDIA H100)" in found.cause
    assert found.remedy == "build it again on this GPU: loadtrt build MODEL -o googlenet.plan"
    build = {"gpu": "NVIDIA H200, compute capability 9.0", "model": "zoo:googlenet"}
    (found,) = log_findings(warned(text, build=build))
    assert "another model of GPU (NVIDIA H200) than this one (NVIDIA H100)" in found.cause
    assert found.remedy.endswith("loadtrt build zoo:googlenet -o googlenet.plan")
    (found,) = log_findings(warned(text, build={**build, "options": {"fp16": True}}))
    assert found.remedy.endswith("-o googlenet.plan, with the options in googlenet.plan.json")
    (found,) = log_findings(warned(text, build={**build, "gpu": "NVIDIA H100, compute capability 9.0"}))
    assert "MIG" in found.cause


def test_other_warnings_are_one_finding() -> None:
    """Errors first, then what was logged most often; three are told, cut where they are long."""
    few, often, error = (
        LogMessage("warning", f"w{'x' * 300}", 1), LogMessage("warning", "often", 9), LogMessage("error", "failed", 1)
    )  # fmt: skip
    (found,) = log_findings(engine(log=(few, often)))
    assert found.kind == "tensorrt-warning"
    assert found.evidence.startswith('TensorRT logged 10 warnings: "often" (9 times); "wxxx')
    assert len(found.evidence) < 250
    assert "--trt-log FILE" in found.remedy
    (found,) = log_findings(engine(log=(few, often, error)), "trt.log")
    assert found.kind == "tensorrt-error"
    assert found.evidence.startswith('TensorRT logged 1 error and 10 warnings: "failed"; "often" (9 times);')
    assert "--trt-log" not in found.remedy
    assert found.remedy.startswith("look in trt.log at what it logged")
    (found,) = log_findings(engine(log=(few,)), "-")
    assert found.remedy.startswith("look on stderr at what it logged")
    many = [LogMessage("warning", f"kind {name}", 1) for name in "abcde"]
    assert log_summary(many).endswith('"kind c"; and 2 other messages')


def test_a_known_warning_is_not_among_the_others() -> None:
    """Each has a finding, and a run without messages has none."""
    assert log_findings(engine()) == []
    kinds = [found.kind for found in log_findings(warned("odd", EAGER, OTHER_MODEL[0]))]
    assert kinds == ["eager-loading", "built-elsewhere", "tensorrt-warning"]


def test_a_run_shows_them_below_what_limits_it_and_keeps_them_whole() -> None:
    """After the bottleneck; run.json has the text that the terminal cuts."""
    long = "something of this plan " * 40
    run = run_of()
    log = (LogMessage("warning", OTHER_MODEL[0], 2), LogMessage("warning", long, 1))
    run = run.with_model(engine=engine(log=log))
    kinds = [finding.kind for finding in findings_of(run)]
    assert kinds == ["compute-bound", "built-elsewhere", "tensorrt-warning"]
    read = RunResult.model_validate_json(run.model_dump_json())
    assert read.model.engine.log == log
    assert "built-elsewhere" in terminal_text(run.with_model(findings=findings_of(run)))


def test_results_of_many_runs_show_each_once() -> None:
    """The same warning of each point of a sweep is one line, with all its times."""
    lines = list(noted([warned(OTHER_MODEL[0], times=2), None, warned(OTHER_MODEL[0], "odd")]))
    assert len(lines) == 2
    assert "(3 times)" in str(lines[0])
    assert together([warned("a"), warned("b", "a")]).log == (
        LogMessage("warning", "a", 2), LogMessage("warning", "b", 1)
    )  # fmt: skip
