"""Several plans in one run on a real GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import loadtrt

if TYPE_CHECKING:
    from pathlib import Path

    from loadtrt.results.run_result import RunResult


def run(googlenet: Path, tiny: Path, big: dict[str, Any], small: dict[str, Any], **options: Any) -> RunResult:
    models = {
        "big": {"engine": str(googlenet), "batch": 16, **big},
        "small": {"engine": str(tiny), **small},
    }
    return loadtrt.run(models=models, allow_host_code=True, warmup="500ms", duration="2s", max_lateness="1s", **options)


@pytest.mark.parametrize("wait", ["spin", "block"])
@pytest.mark.parametrize("other", ["spin", "block"])
@pytest.mark.parametrize("graph", [True, False])
def test_outputs_are_right_beside_a_neighbour(googlenet: Path, tiny: Path, wait: str, other: str, graph: bool) -> None:
    """Whatever the ways of waiting: no request reads or overwrites a buffer of the other model."""
    big = {"contexts": 2, "wait": wait, "verify": True}
    result = run(googlenet, tiny, big, {"rate": "500/s", "wait": other, "graph": graph, "verify": True})
    assert result.failure is None
    for model in result.models.values():
        assert model.verification is not None
        assert model.verification.different == 0
        assert model.verification.outputs >= 20
        assert model.ok == model.submitted > 0
    assert result.models["small"].throughput.requests_per_s == pytest.approx(500, rel=0.2)
    assert result.telemetry is not None


def test_a_neighbour_slows_a_model_down(googlenet: Path, tiny: Path) -> None:
    """Beside a closed loop of GoogLeNet at batch 16 a tiny plan takes longer than beside one request a second."""
    small = {"rate": "500/s"}
    quiet = run(googlenet, tiny, {"rate": "1/s"}, small).models["small"].metrics["latency"]
    loud = run(googlenet, tiny, {"contexts": 2}, small).models["small"].metrics["latency"]
    assert loud.mean_ns is not None
    assert quiet.mean_ns is not None
    assert loud.mean_ns > quiet.mean_ns


def test_a_plan_beside_onnx_runtime_and_a_simulated_model(tiny: Path) -> None:
    """Polled, notified and slept for, in one loop."""
    pytest.importorskip("onnxruntime")
    models = {
        "plan": {"engine": str(tiny), "allow_host_code": True, "rate": "500/s"},
        "cpu": {"engine": "zoo:googlenet", "on": "onnxruntime", "threads_per_context": 1},
        "simulated": {"engine": "simulated:service=2ms", "rate": "100/s"},
    }
    result = loadtrt.run(models=models, warmup="200ms", duration="2s", max_lateness="1s")
    assert result.failure is None
    assert all(model.ok for model in result.models.values())
