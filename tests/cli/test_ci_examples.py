"""The example pipelines of docs/ci: every line of loadtrt in them runs, in their order, on a simulated engine.

That the files fit the schemas of GitHub and GitLab was checked with check-jsonschema 0.39, which has both.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from junitparser import JUnitXml

from command_line import ROOT, loadtrt

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ENGINE = "simulated:service=10ms,cv=0.3,clock=virtual"


def _read(name: str) -> dict[Any, Any]:
    loaded: dict[Any, Any] = yaml.safe_load((ROOT / "docs" / "ci" / name).read_text())
    return loaded


def _scripts(name: str) -> list[str]:
    """The shell commands of a pipeline."""
    pipeline = _read(name)["performance" if name == "gitlab.yml" else "jobs"]
    if name == "gitlab.yml":
        return list(pipeline["script"])
    return [step["run"] for step in pipeline["performance"]["steps"] if "run" in step]


def _commands(name: str) -> Iterator[list[str]]:
    """Those of loadtrt, as words, with a simulated engine, the fewest starts and a baseline in this folder."""
    for script in _scripts(name):
        for line in script.splitlines():
            words = shlex.split(line)
            if words[:1] == ["loadtrt"]:
                known = {"model.plan": ENGINE, "5": "2", "baseline/new.json": "baseline.json"}
                yield [known.get(word, word) for word in words[1:]]


@pytest.mark.parametrize("name", ["github.yml", "gitlab.yml"])
def test_its_commands_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure, compare, and leave the files that the pipeline keeps."""
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    commands = list(_commands(name))
    assert [command[0] for command in commands] == ["run", "compare"]
    for command in commands:
        done = loadtrt(*command, folder=tmp_path)
        assert done.returncode in (0, 98, 99), done.stderr
        if command[0] == "run":
            (tmp_path / "baseline.json").write_bytes((tmp_path / "new.json").read_bytes())
    (suite,) = JUnitXml.fromstring((tmp_path / "gate.xml").read_bytes())
    assert suite.tests == 3
    assert (tmp_path / "compare.html").read_text().startswith("<!DOCTYPE html>")
    assert summary.exists() == (name == "github.yml")


def test_what_the_pipelines_keep() -> None:
    """The baseline is what `run` has written, and only the main branch's is kept as one."""
    steps = _read("github.yml")["jobs"]["performance"]["steps"]
    kept = {step["with"]["name"]: step for step in steps if step.get("uses", "").startswith("actions/upload-artifact")}
    assert kept["baseline"]["with"]["path"] == "new.json"
    assert kept["baseline"]["if"] == "github.ref == 'refs/heads/main'"
    artifacts = _read("gitlab.yml")["performance"]["artifacts"]
    assert "new.json" in artifacts["paths"]
    assert artifacts["reports"] == {"junit": "gate.xml"}
