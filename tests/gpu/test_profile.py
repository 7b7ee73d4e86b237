"""`loadtrt profile` on a real GPU: what TensorRT's profiler says, plainly and of a captured graph."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from loadtrt.results.profile_result import ProfileResult
from loadtrt.results.run_result import RunResult

if TYPE_CHECKING:
    from pathlib import Path


def _loadtrt(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loadtrt", *arguments, "--allow-host-code", "--quiet", "--json", "-"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def profile(googlenet: Path) -> ProfileResult:
    done = _loadtrt("profile", "--engine", str(googlenet), "--batch", "16", "--requests", "500", "--duration", "0s")
    assert (done.returncode, done.stderr) == (0, "")
    return ProfileResult.model_validate_json(done.stdout)


def test_both_modes_time_the_same_layers(profile: ProfileResult) -> None:
    """A graph's replay and a plain enqueue report the same layers in the same order, each as often as it ran; nothing
    is said of copies and waiting, which a profile does not do."""
    assert profile.engine.mode == {}
    graph, plain = profile.passes
    assert (graph.mode, plain.mode) == ("graph", "plain")
    assert [item.layer.name for item in graph.layers] == [item.layer.name for item in plain.layers]
    assert all(item.count == 500 for found in profile.passes for item in found.layers)


def test_layers_add_up_to_an_inference(profile: ProfileResult) -> None:
    """The sum over layers is of the size of an inference: above it by what the profiler adds, never far below."""
    for found in profile.passes:
        assert found.inference_ns is not None
        assert 0.8 * found.inference_ns < found.layers_ns < 2 * found.inference_ns


def test_a_run_is_followed_by_its_profile(googlenet: Path) -> None:
    """run --profile: after four lanes have gone, one context is profiled; the GPU has room for both, one after the
    other."""
    done = _loadtrt(
        "run", "--engine", str(googlenet), "--batch", "16", "--contexts", "4", "--requests", "100", "--profile"
    )
    result = RunResult.model_validate(json.loads(done.stdout))
    assert result.model.profile is not None
    assert [found.mode for found in result.model.profile.passes] == ["graph", "plain"]
