"""Outputs are never inputs, nor other files: each command refuses before it measures, and --force writes over."""

from __future__ import annotations

import io
import os
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from command_line import loadtrt
from loadtrt.cli.main import COMMANDS
from loadtrt.cli.outputs import Output, require_outputs
from loadtrt.errors import UsageError
from loadtrt.zoo import make
from onnx_files import doubling
from reported import every_kind, measured

if TYPE_CHECKING:
    from pathlib import Path

SIMULATED = "--engine simulated:service=1ms,clock=virtual"
SHORT = f"{SIMULATED} --warmup 0s --duration 100ms --quiet"
OBJECTIVE = "--objective latency.p99<1s"


@cache
def _files() -> dict[str, bytes]:
    """What other files hold, by name: each is written over by nothing but what writes the same. Not made when this file
    is imported, as each process that runs tests does."""
    return {f"{name}.json": result.model_dump_json(indent=1).encode() for name, result in every_kind().items()} | {
        "m.plan": b"ftrt\0\0\0\0" + bytes(100),
        "m.plan.log": b"2026-11-29 12:00:00,123 INFO building\n",
        "x.npz": b"PK\x03\x04" + bytes(100),
        "t.csv": b"arrived\n0.1\n0.2\n",
        "notes.txt": "µs of ours\n".encode(),
        "page.html": b"<!doctype html>\n<title>ours</title>\n",
        "notebook.ipynb": b'{"cells": []}',
        "list.json": b'[{"startEnqMs": 1}]\n',
        "junit.xml": b"<?xml version='1.0'?>\n<testsuites/>\n",
        "weights.caffemodel": b"\x0a\x04name\0\0\0" + bytes(100),
    }


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a file of each kind."""
    monkeypatch.chdir(tmp_path)
    for name, content in _files().items():
        (tmp_path / name).write_bytes(content)
    doubling(tmp_path, 1, 3)
    (tmp_path / "m.onnx").write_bytes((tmp_path / "double.onnx").read_bytes())
    (tmp_path / "c.yaml").write_text("engine: simulated:service=1ms,clock=virtual\nduration: 100ms\n")
    array = io.BytesIO()
    np.savez(array, x=np.zeros((1, 3), np.float32))
    (tmp_path / "in.npz").write_bytes(array.getvalue())
    (tmp_path / "run.json").write_text(measured("--duration", "100ms").model_dump_json(indent=1))
    (tmp_path / "sources").mkdir()
    for name in ("run.json", "m.onnx"):
        (tmp_path / "sources" / name).write_bytes((tmp_path / name).read_bytes())
    return tmp_path


# Commands with an output in the place of {}, and an input that it may not be.
INPUTS = [
    ("run --engine m.onnx --json {}", "m.onnx"),
    ("run --engine m.onnx --junit {}", "m.onnx"),
    ("run --engine m.onnx --export-times {}", "m.onnx"),
    ("run --engine m.onnx --export-output {}", "m.onnx"),
    ("run --engine m.onnx --inputs x:in.npz --json {}", "in.npz"),
    (f"run --config c.yaml {SHORT} --json {{}}", "c.yaml"),
    (f"run --config run.json {SHORT} --json {{}}", "run.json"),
    (f"run {SIMULATED} --trace t.csv --json {{}}", "t.csv"),
    (f"run {SHORT} --plugins ./p.so --json {{}}", "p.so"),
    ("sweep --engine m.onnx --contexts 1,2 --json {}", "m.onnx"),
    (f"capacity --engine m.onnx {OBJECTIVE} --json {{}}", "m.onnx"),
    ("interference m.onnx double.onnx --json {}", "m.onnx"),
    ("merge run.json sources/run.json --json {}", "run.json"),
    ("profile --engine m.onnx --json {}", "m.onnx"),
    ("profile --engine m.onnx --export-profile {}", "m.onnx"),
    ("profile --compare profile.json profile.json --json {}", "profile.json"),
    ("plan-capacity capacity.json --demand 10/s --json {}", "capacity.json"),
    ("plan-capacity capacity.json --trace t.csv --json {}", "t.csv"),
    ("compare run.json run.json --json {}", "run.json"),
    ("compare run.json run.json --fail-if throughput-5% --junit {}", "run.json"),
    ("report run.json -o {} --format html", "run.json"),
    ("report run.json capacity.json -o {} --format md", "capacity.json"),
    ("export openmetrics run.json -o {}", "run.json"),
    ("build m.onnx -o {}", "m.onnx"),
    ("inspect m.onnx --trt-log {}", "m.onnx"),
    ("profile --engine m.onnx --trt-log {}", "m.onnx"),
    ("build m.onnx -o new.plan --timing-cache {}", "m.onnx"),
    ("build m.onnx --int8 --calibration in.npz --calibration-cache {} -o new.plan", "in.npz"),
]


@pytest.mark.parametrize("by", ["name", "path", "symbolic link", "hard link"])
@pytest.mark.parametrize(("line", "name"), INPUTS)
def test_an_output_is_never_an_input(line: str, name: str, by: str, folder: Path) -> None:
    """By whatever name, and with --force too: exit 2, one sentence, and the file is as it was."""
    file = folder / name
    file.touch()
    if by.endswith("link"):
        (os.symlink if by.startswith("symbolic") else os.link)(file, folder / "link")
    target = {"name": name, "path": str(file)}.get(by, "link")
    before = file.read_bytes()
    for force in ((), ("--force",)):
        done = loadtrt(*line.format(target).split(), *force, folder=folder)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert f"{target} is read by this command and would be overwritten: name another file" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert file.read_bytes() == before


# Commands with an output, and the files that they write over without --force.
OUTPUTS = {
    f"run {SHORT} --json {{}}": {"run.json"},
    f"run {SHORT} --junit {{}}": {"junit.xml"},
    f"run {SHORT} --export-times {{}}": {"list.json"},
    f"run {SHORT} --repeat 2 --json {{}}": {"repeat.json"},
    f"profile {SIMULATED} --json {{}}": {"profile.json"},
    f"sweep {SHORT} --contexts 1 --json {{}}": set(),
    f"capacity {SIMULATED} {OBJECTIVE} --json {{}}": set(),
    "plan-capacity sources/run.json --demand 10/s --json {}": {"fleet.json"},
    "compare sources/run.json sources/run.json --json {}": {"comparison.json"},
    "report sources/run.json -o {} --format html": {"page.html"},
    "report sources/run.json -o {} --format md": {"t.csv", "notes.txt", "c.yaml"},
    "report sources/run.json -o {} --format csv": set(),
    "report sources/run.json -o {} --format trace": set(),
    "export openmetrics sources/run.json -o {}": set(),
    "zoo googlenet -o {}": {"m.onnx", "double.onnx"},
    "build sources/m.onnx -o {}": {"m.plan"},
    "build sources/m.onnx -o new.plan --trt-log {}": {"m.plan.log"},
    "inspect sources/m.onnx --trt-log {}": {"m.plan.log"},
    f"run {SHORT} --trt-log {{}}": {"m.plan.log"},
    "example simulated -o {}": set(),
}


@pytest.mark.parametrize("line", OUTPUTS)
def test_an_output_is_never_another_file(line: str, folder: Path) -> None:
    """Every file that holds something else stays as it is, and the sentence names --force."""
    for file in sorted(folder.iterdir()):
        if file.name in OUTPUTS[line] or file.is_dir():
            continue
        before = file.read_bytes()
        done = loadtrt(*line.format(file.name).split(), folder=folder)
        assert (done.returncode, done.stdout) == (2, ""), (file.name, done.stderr)
        assert f"{file.name} holds " in done.stderr
        assert done.stderr.endswith("add --force\n")
        assert file.read_bytes() == before


def test_the_same_kind_and_forced_files_are_written_over(folder: Path) -> None:
    """A second run replaces the first one's result; --force replaces anything."""
    for name, force in (("run.json", ()), ("empty.json", ()), ("notes.txt", ("--force",)), ("m.plan", ("--force",))):
        (folder / "empty.json").touch()
        assert loadtrt("run", *SHORT.split(), "--json", name, *force, folder=folder).returncode in (0, 97)
        assert b'"loadtrt.run/1"' in (folder / name).read_bytes()[:100]


@pytest.mark.parametrize("file", ["m.plan.json", "m.plan.log"])
def test_a_build_writes_over_no_file_that_nobody_named(file: str, folder: Path) -> None:
    """The description and the log lie beside the plan: files of others with these names stay."""
    (folder / "m.plan").unlink()
    for name in ("m.plan.json", "m.plan.log"):
        (folder / name).unlink(missing_ok=True)
    (folder / file).write_text("mine\n")
    done = loadtrt("build", "m.onnx", "-o", "m.plan", folder=folder)
    assert done.returncode == 2
    assert f"{file} holds text, which would be overwritten" in done.stderr
    assert (folder / file).read_text() == "mine\n"


def test_models_of_the_zoo_are_known(folder: Path) -> None:
    """By their first bytes, so that one replaces another."""
    (folder / "g.onnx").write_bytes(make("googlenet", 1, 0).SerializeToString()[:5000])
    require_outputs([Output("-o", folder / "g.onnx", "an ONNX model")], (), force=False)


@pytest.mark.parametrize("name", ["pipe", "/dev/null", "/dev/stdout"])
def test_pipes_and_devices_take_several_outputs(name: str, folder: Path) -> None:
    """Neither is a file that could be lost; what is not a file is not an input."""
    os.mkfifo(folder / "pipe")
    outputs = [Output("--json", name, "a run"), Output("--junit", name, "XML")]
    require_outputs(outputs, [name, "zoo:googlenet", "simulated:null"], force=False)


def test_two_outputs_are_two_files(folder: Path) -> None:
    """Also by different names, and where the file is not there yet."""
    (folder / "link").symlink_to("new.json")
    for other in ("new.json", "./new.json", str(folder / "new.json"), "link"):
        with pytest.raises(UsageError, match=r"--junit .* and --json new.json name the same file: give each its own"):
            require_outputs([Output("--json", "new.json", "a run"), Output("--junit", other, "XML")], (), force=False)


def test_every_command_that_writes_is_tried() -> None:
    """A new command with an output has its rows above, or is named here as one that writes no file, or files
    without an option, which test_provided.py tries."""
    tried = {line.split()[0] for line, _ in INPUTS} | {line.split()[0] for line in OUTPUTS}
    assert set(COMMANDS) - tried == {"watch", "doctor", "schema", "trtexec", "completion", "dashboards"}


# Lines that write a file, and write it again.
AGAIN = [
    f"run {SHORT} --json out --junit junit --export-times times --export-output outputs",
    "run --engine double.onnx --duration 100ms --warmup 0s --quiet --profile --json out --export-profile profile",
    "profile --engine double.onnx --warmup 0s --requests 5 --json out --export-profile profile --quiet",
    "build double.onnx -o new.plan --flavour rtx --target sm86 --quiet",
    "plan-capacity capacity.json --demand 10/s --routing random --json out --quiet",
    "compare run.json sources/run.json --json out",
    *(f"report run.json -o out --format {format_}" for format_ in ("html", "md", "txt", "csv", "hlog", "trace")),
    "export openmetrics run.json -o out",
    "zoo googlenet -o out",
]


@pytest.mark.parametrize("line", AGAIN)
def test_an_output_replaces_an_earlier_one_of_its_own(line: str, folder: Path) -> None:
    """What a command wrote it writes again, without --force."""
    (folder / "sources" / "run.json").write_text(measured("--duration", "200ms").model_dump_json(indent=1))
    first = loadtrt(*line.split(), folder=folder)
    assert first.returncode in (0, 97, 98, 99), first.stderr
    assert loadtrt(*line.split(), folder=folder).returncode == first.returncode


@pytest.mark.parametrize("by", ["w.bin", "link"])
@pytest.mark.parametrize(
    "line", ["run --engine e.onnx --json {}", "profile --engine e.onnx --json {}", "build e.onnx -o {}"]
)
def test_weights_beside_a_model_are_inputs(line: str, by: str, folder: Path) -> None:
    """--force does not write over them either, by whatever name."""
    model = onnx.load(folder / "double.onnx")
    weights = onnx.numpy_helper.from_array(np.ones((1, 300), np.float32), "w")
    model.graph.initializer.append(weights)
    onnx.save(model, folder / "e.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    (folder / "link").symlink_to("w.bin")
    before = (folder / "w.bin").read_bytes()
    for force, sentence in (("", "add --force"), (" --force", f"{by} holds weights of the model: name another file")):
        done = loadtrt(*f"{line.format(by)}{force}".split(), folder=folder)
        assert done.returncode == 2
        assert sentence in done.stderr
    assert (folder / "w.bin").read_bytes() == before
