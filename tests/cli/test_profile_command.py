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

from command_line import loadtrt
from loadtrt.results.profile_result import ProfileResult
from loadtrt.results.run_result import RunResult
from loadtrt.stats.profiles import LayerComparison
from onnx_files import save

if TYPE_CHECKING:
    from pathlib import Path

QUICK = ("--on", "onnxruntime", "--warmup", "0", "--requests", "5")


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
    done = loadtrt(
        "profile", "--engine", model, *QUICK, "--nodes", "--json", "p.json", "--export-profile", "t.json",
        folder=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    result = ProfileResult.model_validate_json((tmp_path / "p.json").read_text())
    (found,) = result.passes
    assert (found.mode, found.inferences) == ("plain", 5)
    assert sorted(node for layer in found.layers for node in layer.layer.nodes) == ["first", "r", "second"]
    assert result.config.options()["contexts"] == result.config.options()["buffers"] == 1
    for layer in found.layers:
        assert layer.layer.name in done.stdout
    exported = json.loads((tmp_path / "t.json").read_text())
    assert exported[0] == {"count": 5}
    assert [item["name"] for item in exported[1:]] == [layer.layer.name for layer in found.layers]


def test_json_goes_to_stdout_and_the_table_to_stderr(model: str, tmp_path: Path) -> None:
    """--json -: stdout is the result alone."""
    done = loadtrt("profile", "--engine", model, *QUICK, "--json", "-", folder=tmp_path)
    assert len(ProfileResult.model_validate_json(done.stdout).passes) == 1
    assert "matmul" in done.stderr


def test_a_run_keeps_its_profile(model: str, tmp_path: Path) -> None:
    """run --profile: the summary, then the layers; both in run.json, once; trtexec's four files beside it."""
    exports = {name: f"{name}.json" for name in ("times", "profile", "output")}
    done = loadtrt(
        "run", "--engine", model, *QUICK, "--profile", "--json", "-",
        *(part for name, file in exports.items() for part in (f"--export-{name}", file)),
        folder=tmp_path,
    )  # fmt: skip
    result = RunResult.model_validate_json(done.stdout)
    assert result.model.profile is not None
    assert result.model.profile.passes[0].layers
    assert done.stderr.index("throughput") < done.stderr.index(": layers")
    files: dict[str, Any] = {name: json.loads((tmp_path / file).read_text()) for name, file in exports.items()}
    assert len(files["times"]) == result.model.ok == 5
    assert files["profile"][0]["count"] == result.model.profile.passes[0].inferences
    (output,) = files["output"]
    assert (output["name"], output["dimensions"], len(output["values"])) == ("y", "4x64", 256)


def test_two_engines_are_laid_side_by_side(model: str, tmp_path: Path) -> None:
    """--compare profiles what is an engine and reads what is a file of results."""
    loadtrt("profile", "--engine", model, *QUICK, "--json", "a.json", "--quiet", folder=tmp_path)
    done = loadtrt("profile", "--compare", "a.json", model, *QUICK, "--json", "c.json", folder=tmp_path)
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
        ("run --engine simulated:null --requests 5 --warmup 0 --profile", "--profile is for"),
        ("profile --engine MODEL --export-layer-info l.json", "--export-layer-info is for TensorRT"),
        ("profile --engine MODEL --json x.json --export-profile x.json", "name the same file"),
        ("profile --engine MODEL --export-profile -", "only --json goes to stdout"),
        ("profile --compare MODEL MODEL --nodes", "--nodes"),
    ],
)
def test_what_cannot_be_profiled_is_one_sentence(arguments: str, sentence: str, model: str, tmp_path: Path) -> None:
    """Exit code 2 before anything is measured; one line on stderr that says what and where, nothing on stdout."""
    done = loadtrt(*arguments.replace("MODEL", model).split(), folder=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert sentence in line


def test_options_of_engines_are_refused_for_two_files(model: str, tmp_path: Path) -> None:
    """Nothing is profiled, so --requests would be read and ignored."""
    loadtrt("profile", "--engine", model, *QUICK, "--json", "a.json", "--quiet", folder=tmp_path)
    done = loadtrt("profile", "--compare", "a.json", "a.json", "--requests", "5", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--requests is for engines" in done.stderr


def test_an_export_that_fails_costs_no_result(model: str, tmp_path: Path) -> None:
    """The JSON with the profile in it is on stdout, the text on stderr, and the exit code tells of the file."""
    done = loadtrt(
        "run", "--engine", model, *QUICK, "--profile", "--json", "-", "--export-times", "/dev/full", folder=tmp_path
    )
    assert done.returncode == 2
    assert RunResult.model_validate_json(done.stdout).model.profile is not None
    assert "cannot write result /dev/full" in done.stderr.splitlines()[-1]


def test_several_input_sets_are_no_obstacle(model: str, tmp_path: Path) -> None:
    """Of an .npz with a leading axis the first set is taken, and a note says so."""
    np.savez(tmp_path / "two.npz", x=np.zeros((2, 4, 64), np.float32))
    done = loadtrt("profile", "--engine", model, *QUICK, "--inputs", "two.npz", "--json", "-", folder=tmp_path)
    assert "the first of 2 input sets" in " ".join(ProfileResult.model_validate_json(done.stdout).notes)


def test_a_runs_file_serves(model: str, tmp_path: Path) -> None:
    """Engine and inputs are taken; lanes, durations and files of the run are not: its run.json stays what it is."""
    (tmp_path / "run.json").write_text("mine")
    (tmp_path / "run.yaml").write_text(
        f"engine: {model}\non: onnxruntime\ncontexts: 4\nduration: 10h\njson: run.json\nwarmup: 0\n"
    )
    done = loadtrt("profile", "--config", "run.yaml", "--requests", "5", "--json", "p.json", folder=tmp_path)
    assert done.returncode == 0
    assert ProfileResult.model_validate_json((tmp_path / "p.json").read_text()).passes[0].inferences == 5
    assert (tmp_path / "run.json").read_text() == "mine"


def test_ctrl_c_keeps_what_was_timed(tmp_path: Path) -> None:
    """Stopped in the layers' pass: exit code 130, and the file is whole, with as many inferences as there were."""
    command = [sys.executable, "-u", "-c", _INTERRUPTED, "profile", "--engine", "zoo:googlenet", "--on", "onnxruntime"]
    command += ["--warmup", "0", "--requests", "100000", "--json", "p.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (128 + signal.SIGINT, "")
    result = ProfileResult.model_validate_json((tmp_path / "p.json").read_text())
    assert (result.outcome, result.passes[0].inferences) == ("interrupted", 3)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_a_runs_profile_keeps_both(number: signal.Signals, model: str, tmp_path: Path) -> None:
    """The run is whole, its profile says that it was interrupted, and the exit code says so too."""
    command = [sys.executable, "-c", _INTERRUPTED.replace("SIGINT", number.name), "run", "--engine", model, *QUICK]
    done = subprocess.run(
        [*command, "--profile", "--json", "-"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 128 + signal.SIGINT
    result = RunResult.model_validate_json(done.stdout)
    assert (result.model.ok, result.outcome) == (5, "completed")
    assert result.model.profile is not None
    assert result.model.profile.outcome == "interrupted"


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
