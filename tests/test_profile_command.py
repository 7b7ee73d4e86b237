"""`loadtrt profile` and `run --profile` as their users meet them, on ONNX Runtime."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx_files import save

from loadtrt.measure.layer_comparison import LayerComparison
from loadtrt.measure.profile import ProfileResult
from loadtrt.measure.result import RunResult

if TYPE_CHECKING:
    from pathlib import Path

QUICK = ("--on", "onnxruntime", "--warmup", "0", "--requests", "5")


def _loadtrt(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loadtrt", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


@pytest.fixture
def model(tmp_path: Path) -> str:
    """Two matrix products with a ReLU between them; one node has no name."""
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "a"], ["y"], name="second"),
    ]
    shape = (TensorProto.FLOAT, (4, 64))
    save(tmp_path / "mlp.onnx", nodes, {"x": shape}, {"y": shape}, {"a": np.eye(64, dtype=np.float32)})
    return "mlp.onnx"


def test_a_profile_is_shown_written_and_exported(model: str, tmp_path: Path) -> None:
    """Text on stdout, the schema in --json, trtexec's file in --export-profile; all of one and the same pass."""
    done = _loadtrt(
        "profile", "--engine", model, *QUICK, "--nodes", "--json", "p.json", "--export-profile", "t.json",
        folder=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    result = ProfileResult.model_validate_json((tmp_path / "p.json").read_text())
    (found,) = result.passes
    assert (found.mode, found.inferences) == ("plain", 5)
    assert sorted(node for layer in found.layers for node in layer.layer.nodes) == ["first", "r", "second"]
    assert result.config["contexts"] == result.config["buffers"] == 1
    for layer in found.layers:
        assert layer.layer.name in done.stdout
    exported = json.loads((tmp_path / "t.json").read_text())
    assert exported[0] == {"count": 5}
    assert [item["name"] for item in exported[1:]] == [layer.layer.name for layer in found.layers]


def test_json_goes_to_stdout_and_the_table_to_stderr(model: str, tmp_path: Path) -> None:
    """--json -: stdout is the result alone."""
    done = _loadtrt("profile", "--engine", model, *QUICK, "--json", "-", folder=tmp_path)
    assert len(ProfileResult.model_validate_json(done.stdout).passes) == 1
    assert "matmul" in done.stderr


def test_a_run_keeps_its_profile(model: str, tmp_path: Path) -> None:
    """run --profile: the summary, then the layers; both in run.json, once; trtexec's four files beside it."""
    exports = {name: f"{name}.json" for name in ("times", "profile", "output")}
    done = _loadtrt(
        "run", "--engine", model, *QUICK, "--profile", "--json", "-",
        *(part for name, file in exports.items() for part in (f"--export-{name}", file)),
        folder=tmp_path,
    )  # fmt: skip
    result = RunResult.model_validate_json(done.stdout)
    assert result.profile is not None
    assert result.profile.passes[0].layers
    assert done.stderr.index("throughput") < done.stderr.index("layers")
    files: dict[str, Any] = {name: json.loads((tmp_path / file).read_text()) for name, file in exports.items()}
    assert len(files["times"]) == result.ok == 5
    assert files["profile"][0]["count"] == result.profile.passes[0].inferences
    (output,) = files["output"]
    assert (output["name"], output["dimensions"], len(output["values"])) == ("y", "4x64", 256)


def test_two_engines_are_laid_side_by_side(model: str, tmp_path: Path) -> None:
    """--compare profiles what is an engine and reads what is a file of results."""
    _loadtrt("profile", "--engine", model, *QUICK, "--json", "a.json", "--quiet", folder=tmp_path)
    done = _loadtrt("profile", "--compare", "a.json", model, *QUICK, "--json", "c.json", folder=tmp_path)
    assert done.returncode == 0
    comparison = LayerComparison.model_validate_json((tmp_path / "c.json").read_text())
    assert comparison.b.inferences == 5
    assert all(row.matched_by == "nodes" for row in comparison.rows)
    assert "a.json" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("profile", "no engine"),
        ("profile --engine simulated:null", "has no layers to time"),
        ("profile --engine nowhere.onnx", "nowhere.onnx"),
        ("profile --engine MODEL --json /nowhere/p.json", "/nowhere"),
        ("profile --engine MODEL --export-profile .", "is a folder"),
        ("profile --engine MODEL --contexts 4", "--contexts"),
        ("profile --engine MODEL --compare a b", "leave one out"),
        ("profile --compare MODEL nowhere.json", "nowhere.json"),
        ("profile --compare MODEL", "--compare"),
        ("profile --engine MODEL --top 0", "--top"),
        ("run --engine MODEL --export-profile p.json", "add --profile"),
        ("run --engine simulated:null --requests 5 --warmup 0 --profile", "has no layers to time"),
    ],
)
def test_what_cannot_be_profiled_is_one_sentence(arguments: str, sentence: str, model: str, tmp_path: Path) -> None:
    """Exit code 2, one line on stderr that says what and where, nothing on stdout but a run's own summary."""
    done = _loadtrt(*arguments.replace("MODEL", model).split(), folder=tmp_path)
    assert done.returncode == 2
    assert sentence in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_layer_information_needs_an_inspector(model: str, tmp_path: Path) -> None:
    """ONNX Runtime has none: table and JSON are there all the same, and the exit code says that a file is not."""
    done = _loadtrt(
        "profile", "--engine", model, *QUICK, "--export-layer-info", "l.json", "--json", "p.json", folder=tmp_path
    )
    assert done.returncode == 3
    assert "no engine inspector" in done.stderr
    assert (tmp_path / "p.json").exists()
    assert "matmul" in done.stdout


def test_ctrl_c_keeps_what_was_timed(tmp_path: Path) -> None:
    """Stopped in the layers' pass: exit code 130, and the file is whole, with as many inferences as there were."""
    command = [sys.executable, "-u", "-c", _INTERRUPTED, "profile", "--engine", "zoo:googlenet", "--on", "onnxruntime"]
    command += ["--warmup", "0", "--requests", "100000", "--json", "p.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (128 + signal.SIGINT, "")
    assert ProfileResult.model_validate_json((tmp_path / "p.json").read_text()).passes[0].inferences == 3


# Ctrl-C as soon as the third run of the layers' pass is through; hardly any runs without the profiler.
_INTERRUPTED = """
import os, signal
from loadtrt.__main__ import main
from loadtrt.cli.voice import Voice
from loadtrt.engines import onnx_profile
onnx_profile._WHOLE = 0
told = []
def share(voice, what, fraction):
    told.append(what)
    if told.count("plain: layers") == 2:
        os.kill(os.getpid(), signal.SIGINT)
Voice.share = share
main()
"""
