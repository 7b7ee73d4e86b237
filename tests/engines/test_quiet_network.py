"""ONNX Runtime's telemetry is off in every command that imports it: no file is left, no socket is opened."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from onnx import TensorProto, helper

from loadtrt.environment import import_onnxruntime
from onnx_files import doubling, save

ROOT = Path(__file__).parents[2]
RUN = ("--on", "onnxruntime", "--warmup", "0", "--quiet")
COMMANDS = {
    "run": ("run", "--engine", "double.onnx", *RUN, "--requests", "20", "--json", "run.json"),
    "profile": ("profile", "--engine", "double.onnx", *RUN, "--requests", "5"),
    "sweep": ("sweep", "--engine", "double.onnx", *RUN, "--duration", "100ms", "--contexts", "1,2"),
    "doctor": ("doctor",),
    "inspect": ("inspect", "double.onnx"),
    "build": ("build", "product.onnx", "-o", "product.plan", "--flavour", "rtx", "--target", "sm86", "--int8"),
}


def _product(folder: Path) -> None:
    """y = x w, which INT8 quantizes."""
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    weights = {"w": [[float(row + column) for column in range(4)] for row in range(4)]}
    sides = {"x": (TensorProto.DOUBLE, (2, 4))}, {"y": (TensorProto.DOUBLE, (2, 4))}
    save(folder / "product.onnx", [node], *sides, weights)


def _traced(log: Path) -> list[str]:
    """The beginning of a command that writes the calls about sockets of a process and of its children to a file; empty
    where strace is missing or may not trace."""
    if not shutil.which("strace"):
        return []
    tracing = ["strace", "-f", "-qq", "-e", "trace=%network", "-o", str(log)]
    return tracing if subprocess.run([*tracing, "true"], capture_output=True, check=False).returncode == 0 else []


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_leaves_a_file_or_opens_a_socket(name: str, tmp_path: Path) -> None:
    """With an empty home and an empty folder of temporary files, both are empty afterwards; nothing is bound, connected
    or sent to an address of a network; and ONNX Runtime logs nothing."""
    if name == "build" and importlib.util.find_spec("tensorrt_rtx") is None:
        pytest.skip("TensorRT-RTX is not installed")
    folders = [tmp_path / part for part in ("home", "temporary", "work")]
    for folder in folders:
        folder.mkdir()
    home, temporary, work = folders
    doubling(work, 4, 4)
    _product(work)
    kept = {key: value for key, value in os.environ.items() if key in ("PATH", "LD_LIBRARY_PATH", "LANG")}
    environment = {**kept, "HOME": str(home), "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)}
    calls = tmp_path / "calls"
    tracing = _traced(calls)
    command = [*tracing, sys.executable, "-B", "-m", "loadtrt", *COMMANDS[name]]
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1 if name == "doctor" else 0, 97), done.stderr
    assert [str(path.relative_to(tmp_path)) for folder in (home, temporary) for path in folder.rglob("*")] == []
    assert "onnxruntime:" not in done.stderr
    if tracing:
        assert [
            line for line in calls.read_text().splitlines() if re.search(r"(bind|connect|send\w+)\(.*AF_(?!UNIX)", line)
        ] == []


def test_the_variable_is_set_before_the_import(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it was; and telemetry is turned off, too, where another package has imported ONNX Runtime before."""
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    seen: list[str | None] = []

    class Module:
        def disable_telemetry_events(self) -> None:
            seen.append("off")

        def set_default_logger_severity(self, _: int) -> None:
            pass

    def imported(name: str) -> Module:
        seen.append(os.environ.get("ORT_DISABLE_TELEMETRY"))
        return Module()

    monkeypatch.setattr("importlib.import_module", imported)
    import_onnxruntime()
    assert seen[:2] == ["1", "off"]
