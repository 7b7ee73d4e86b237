"""`loadtrt trtexec` with a model, and TensorRT's log, on a machine that builds and loads plans (fakes of both)."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from command_line import loadtrt
from loadtrt.engines import open as opening
from loadtrt.engines.tensorrt_log import journal_of
from loadtrt.errors import UsageError
from plan_rig import Rig

if TYPE_CHECKING:
    from loadtrt.asked.config import RunConfig


@pytest.mark.parametrize("version", ["8.6", "10", "11"])
def test_a_line_with_a_model_builds_and_then_runs(
    version: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The plan where --saveEngine says, or in a folder that is gone afterwards; the exit code is the run's."""
    rig, made = Rig(version, monkeypatch, tmp_path), []

    def run(config: RunConfig, *_: object) -> int:
        (tmp_path / "seen.plan").write_bytes(Path(config.model.engine).read_bytes())
        made.append(config)
        return 98

    monkeypatch.setattr("loadtrt.cli.running.run", run)
    like = version.partition(".")[0]
    options = ["--like", like, f"--onnx={rig.model}", "--shapes=x:2x3x8x8", "--refit", "--infStreams=3"]
    kept = loadtrt("trtexec", *options, "--saveEngine=m.plan", folder=tmp_path)
    assert (kept.returncode, rig.builds, made[-1].model.engine) == (98, 1, "m.plan")
    gone = loadtrt("trtexec", *options, folder=tmp_path)
    assert (gone.returncode, rig.builds) == (98, 2)
    assert (tmp_path / "seen.plan").read_bytes() == (tmp_path / "m.plan").read_bytes()
    engine = made[-1].model.engine
    assert not (tmp_path / engine).exists()
    assert f"loadtrt build {rig.model} -o {engine} --refit --shapes x:2x3x8x8" in gone.stdout
    model = made[-1].model
    assert (model.contexts, model.graph, model.wait == "spin", model.copies) == (3, *[like == "11"] * 2, like != "11")
    assert made[-1].warmup == 200_000_000


def _logs(module: Any) -> None:
    """A message of each severity."""
    logger = journal_of(module).logger
    for name in ("VERBOSE", "INFO", "WARNING"):
        logger.log(getattr(module.ILogger.Severity, name), f"of {name}")


def test_a_build_shows_the_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On stderr with severities, with --quiet too; in a file; without --trt-log its warnings in a line."""
    rig = Rig("10", monkeypatch, tmp_path)
    rig.during = lambda: _logs(rig.module)
    silent = loadtrt("build", rig.model, "--batch", "2", "-o", "a.plan", folder=tmp_path)
    assert '  TensorRT logged 1 warning: "of WARNING"\n' in silent.stdout
    assert "of WARNING" not in silent.stderr
    assert "of INFO" not in silent.stdout + silent.stderr
    shown = loadtrt("build", rig.model, "--batch", "2", "-o", "a.plan", "--trt-log", "-", "--quiet", folder=tmp_path)
    assert shown.stdout == ""
    assert [line for line in shown.stderr.splitlines() if " of " in line] == [
        "TensorRT INFO: of INFO",
        "TensorRT WARNING: of WARNING",
    ]
    assert (
        loadtrt("build", rig.model, "--batch", "2", "-o", "a.plan", "--trt-log", "t.log", folder=tmp_path).returncode
        == 0
    )
    for log in ("t.log", "a.plan.log"):
        found = re.findall(r"^[-0-9]+ [:0-9]+,[0-9]+ ([A-Z]+) (of .*)$", (tmp_path / log).read_text(), re.MULTILINE)
        assert found == [("INFO", "of INFO"), ("WARNING", "of WARNING")]


@pytest.mark.parametrize("command", ["run", "sweep"])
def test_a_run_shows_the_log(command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """While the engine is loaded, too; the summary and the exit code are as without it."""

    def load(options: Any, *_: Any) -> Any:
        logging.getLogger("loadtrt.tensorrt").warning("of loading")
        return opening.open_engine(options)

    monkeypatch.setattr("loadtrt.runs.opened.open_engine", load)
    options = [command, "simulated:service=1ms,clock=virtual", "--requests", "50", "--warmup", "0"]
    options += ["--contexts", "1,2"] if command == "sweep" else []
    silent = loadtrt(*options, folder=tmp_path)
    shown = loadtrt(*options, "--trt-log", "-", folder=tmp_path)
    filed = loadtrt(*options, "--trt-log", "t.log", folder=tmp_path)
    assert (silent.returncode, shown.returncode, filed.returncode) == (0, 0, 0)
    assert "TensorRT WARNING: of loading" in shown.stderr.splitlines()
    assert "of loading" not in silent.stderr + filed.stderr + shown.stdout
    assert (tmp_path / "t.log").read_text().endswith("WARNING of loading\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("run", "simulated:null", "--trt-log", "-"), "--trt-log is for TensorRT plans and models on TensorRT"),
        (("run", "simulated:null", "--trt-log", "none/t.log"), "none"),
        (("run", "simulated:null", "--trt-log", "kept"), "--trt-log kept holds text, which would be overwritten"),
        (("run", "simulated:null", "--trt-log", "-", "--repeat", "2"), "--trt-log is for a single start"),
        (("inspect", "kept", "--trt-log", "kept"), "--trt-log kept is read by this command"),
    ],
)
def test_a_log_that_cannot_be_is_refused(arguments: tuple[str, ...], sentence: str, tmp_path: Path) -> None:
    """Before anything is loaded."""
    (tmp_path / "kept").write_text("kept")
    done = loadtrt(*arguments, folder=tmp_path)
    assert (done.returncode, (tmp_path / "kept").read_text()) == (2, "kept")
    assert sentence in done.stderr


def test_python_writes_no_log() -> None:
    """loadtrt.run writes no file."""
    import loadtrt as package

    with pytest.raises(UsageError, match="does not write this file: leave trt_log out"):
        package.run(engine="simulated:null", trt_log="t.log")
