"""A command that fails before it has a result (exit code 3) says why in the files of --json and --junit."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import fromstring

import onnx
import pytest
from onnx import TensorProto, helper

import loadtrt as api
from command_line import loadtrt
from loadtrt.results.failure import Failure
from loadtrt.runs.fleet import _Fleet

if TYPE_CHECKING:
    from pathlib import Path
    from subprocess import CompletedProcess

FLEETS = {
    "processes": ("--processes", "2", "--engine", "simulated:service=5ms"),
    "models": ("--model-processes", "--model", "a=simulated:service=5ms", "--model", "b=simulated:service=5ms"),
}
WORKS = ("--engine", "simulated:service=1ms,clock=virtual", "--duration", "100ms", "--warmup", "0", "--quiet")


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model with an operator that ONNX Runtime does not have, in the working folder."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Nope", ["x"], ["y"])], "g", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "nope.onnx")
    monkeypatch.chdir(tmp_path)
    return "nope.onnx"


def told(done: CompletedProcess[str], folder: Path) -> Any:
    """What the files of --json and --junit hold, which is what stderr says at last."""
    assert done.returncode == 3
    sentence = done.stderr.splitlines()[-1].removeprefix("loadtrt: ")
    failure = Failure.model_validate_json((folder / "new.json").read_text())
    assert (failure.failure, failure.exit_code) == (sentence, 3)
    (suite,) = fromstring((folder / "new.xml").read_text())  # noqa: S314  # written by this test
    assert (suite.attrib["tests"], suite.attrib["errors"]) == ("1", "1")
    (error,) = suite.iter("error")
    assert error.text == sentence
    return failure


@pytest.mark.parametrize("how", [(), ("--processes", "2")], ids=["one process", "a fleet"])
def test_an_engine_that_is_refused(how: tuple[str, ...], refused: str, tmp_path: Path) -> None:
    """One process or several: no difference."""
    options = ("--json", tmp_path / "new.json", "--junit", tmp_path / "new.xml")
    done = loadtrt("run", "--engine", refused, *how, *options, folder=tmp_path)
    assert "refuses nope.onnx" in told(done, tmp_path).failure


@pytest.mark.parametrize("fleet", FLEETS)
@pytest.mark.parametrize("when", ["before they load", "while they measure"])
def test_workers_that_are_all_killed(fleet: str, when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no result of any, and one sentence says so."""
    hear = _Fleet._hear

    def heard(self: _Fleet, *line: Any) -> None:
        hear(self, *line)
        if when == "before they load" or all(worker.phase == "measure" for worker in self._workers):
            self.kill()

    monkeypatch.setattr(_Fleet, "_hear", heard)
    options = ("--duration", "600s", "--warmup", "0", "--quiet")
    files = ("--json", tmp_path / "new.json", "--junit", tmp_path / "new.xml")
    failure = told(loadtrt("run", *FLEETS[fleet], *options, *files), tmp_path)
    assert "it was ended by SIGKILL" in failure.failure


@pytest.mark.parametrize("command", ["run", "repeat", "profile", "sweep", "capacity", "interference"])
def test_each_command(command: str, refused: str, tmp_path: Path) -> None:
    """Its --json says why: of one that makes many runs the result does, which has the failure of each."""
    options = {
        "run": ("run", "--engine", refused),
        "repeat": ("run", "--repeat", "2", "--engine", refused),
        "profile": ("profile", "--engine", refused),
        "sweep": ("sweep", "--contexts", "1,2", "--engine", refused),
        "capacity": ("capacity", "--objective", "latency.p99 < 1s", "--engine", refused),
        "interference": ("interference", refused, refused),
    }[command]
    done = loadtrt(*options, "--json", "new.json", folder=tmp_path)
    assert done.returncode == 3
    content = (tmp_path / "new.json").read_text()
    assert "refuses nope.onnx" in content
    assert ("loadtrt.failure/1" in content) == (command in ("run", "repeat", "profile"))


def test_a_failure_takes_no_place(refused: str, tmp_path: Path) -> None:
    """It is no result to read, it is written over and resumed as no file is, and a result stays where it is."""
    file = tmp_path / "new.json"
    fails = ("run", "--engine", refused, "--json", file, "--force")
    loadtrt(*fails, folder=tmp_path)
    for command in (("report", file), ("compare", file, file), ("merge", file)):
        done = loadtrt(*command)
        assert done.returncode == 2
        assert "holds no result, as its command failed: ONNX Runtime" in done.stderr
    done = loadtrt("sweep", "--contexts", "1,2", *WORKS, "--json", file, "--resume")
    assert (done.returncode, json.loads(file.read_text())["schema_version"]) == (0, "loadtrt.sweep/1")
    file.unlink()
    loadtrt(*fails, folder=tmp_path)
    assert loadtrt("run", *WORKS, "--json", file).returncode == 0
    result = file.read_text()
    assert loadtrt(*fails, folder=tmp_path).returncode == 3
    assert file.read_text() == result


def test_stdout_and_pipes_get_it(refused: str, tmp_path: Path) -> None:
    """Once, in the place of the result."""
    done = loadtrt("run", "--engine", refused, "--json", "-", folder=tmp_path)
    assert Failure.model_validate_json(done.stdout).failure in done.stderr


def test_what_did_not_begin_writes_nothing(tmp_path: Path) -> None:
    """Exit code 2: an option is wrong, or a file is missing or damaged."""
    files = ("--json", tmp_path / "new.json", "--junit", tmp_path / "new.xml")
    assert loadtrt("run", "--engine", "missing.plan", *files).returncode == 2
    assert os.listdir(tmp_path) == []


def test_a_worker_that_failed_is_lost(refused: str, tmp_path: Path) -> None:
    """merge keeps what the others have measured, and says why there is nothing of this one."""
    hour = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")  # virtual time is there at once
    worker = ("--start-at", hour, "--rate", "100/s")
    assert loadtrt("run", *WORKS, *worker, "--worker", "0/2", "--json", tmp_path / "0.json").returncode in (0, 97)
    loadtrt("run", "--engine", refused, *worker, "--worker", "1/2", "--json", "1.json", folder=tmp_path)
    done = loadtrt("merge", "0.json", "1.json", "--json", "fleet.json", folder=tmp_path)
    assert done.returncode == 3
    assert "1.json holds no result, as its command failed: ONNX Runtime" in done.stderr
    fleet = json.loads((tmp_path / "fleet.json").read_text())
    assert [item["worker"] for item in fleet["lost"]] == [1]
    assert api.merge(tmp_path / "0.json", tmp_path / "1.json").fleet == "1 of 2 workers"
    assert loadtrt("merge", "1.json", folder=tmp_path).returncode == 2
