"""Plans of a lower precision beside their model in FP32 on ONNX Runtime, on a real GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from benchmarks import nets
from loadtrt.engines.toolchain import choose_toolchain
from loadtrt.errors import EngineError

if TYPE_CHECKING:
    from pathlib import Path


def _loadtrt(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loadtrt", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _run(engine: str | Path, *arguments: str | Path) -> tuple[int, dict[str, Any]]:
    done = _loadtrt("run", "--engine", engine, "--requests", "20", "--quiet", "--json", "-", *arguments)
    assert done.stderr == "" or done.stderr.startswith("loadtrt: INVALID: "), done.stderr
    (model,) = json.loads(done.stdout)["models"].values()
    return done.returncode, model


@pytest.fixture
def convnet(tmp_path: Path) -> Path:
    """A small model: the plans of a large one take minutes on a GPU that its TensorRT does not know."""
    path = tmp_path / "convnet.onnx"
    onnx.save(nets.convnet(), path)
    return path


@pytest.fixture
def builds() -> None:
    """Only where a TensorRT here builds plans."""
    try:
        choose_toolchain(None)
    except EngineError as error:
        pytest.skip(str(error))


def test_a_plan_of_unknown_origin_says_that_nothing_is_known(googlenet: Path) -> None:
    _, model = _run(googlenet, "--allow-host-code", "--batch", "16", "--fp16")
    assert "name its model with --verify-against" in model["deviation"]["unknown"]


@pytest.mark.usefixtures("builds")
def test_a_model_built_to_fp16_answers_as_in_fp32(
    convnet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within what rounding explains, and the answer is not that of FP32 itself."""
    monkeypatch.setenv("LOADTRT_CACHE", str(tmp_path))
    _, model = _run(convnet, "--fp16")
    deviation = model["deviation"]
    assert deviation["unknown"] == ""
    assert 0 < deviation["relative"] <= deviation["tolerance"] < 0.1
    assert deviation["cosine"] > 0.999


@pytest.mark.usefixtures("builds")
def test_a_built_int8_plan_is_compared_with_its_model(convnet: Path, tmp_path: Path) -> None:
    """Without any option, as its description says where it comes from; with a tolerance that it misses it is
    INVALID."""
    np.savez(tmp_path / "data.npz", image=np.random.default_rng(1).uniform(-1, 1, (4, 1, 28, 28)).astype(np.float32))
    plan = tmp_path / "int8.plan"
    options = ("--int8", "--calibration", tmp_path / "data.npz")
    built = _loadtrt("build", convnet, "-o", plan, "--quiet", *options)
    assert built.returncode == 0, built.stderr
    _, model = _run(plan)
    deviation = model["deviation"]
    assert deviation["reference"].startswith(f"{convnet} in FP32")
    assert 0 < deviation["relative"] <= deviation["tolerance"]
    code, model = _run(plan, "--verify-tolerance", "0.0001%")
    assert code == 97
    assert "outputs-differ" in [problem["kind"] for problem in model["problems"]]


@pytest.mark.usefixtures("builds")
def test_a_sweep_shows_fp32_beside_fp16(convnet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOADTRT_CACHE", str(tmp_path))
    done = _loadtrt("sweep", "--engine", convnet, "--fp16", "off,on", "--duration", "1s")
    assert done.returncode == 0, done.stderr
    assert "FP16 / FP32" in done.stdout
    assert "cosine" in done.stdout
