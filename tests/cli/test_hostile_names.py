"""Names that steer a terminal or would fill it, from models, plans, results, configurations and other machines: each
command's text is printable, and of a bounded length."""

from __future__ import annotations

import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any

import onnx
import pytest
import yaml
from onnx import TensorProto, helper

from command_line import loadtrt
from loadtrt.engines.plan import sidecar_of

if TYPE_CHECKING:
    from pathlib import Path
    from subprocess import CompletedProcess

# Red, the window's title, C1's CSI, from right to left, an isolate, the start of the line, back.
VILE = "x\x1b[31m\x1b]0;pwn\x07\u009b2J\u202e\u2066\rab\x08\u2028y"
LONG = "n" * 100_000
NAMES = pytest.mark.parametrize(
    "name", [VILE, LONG, f"{VILE}{LONG}", "many words " * 10_000], ids=["vile", "long", "both", "words"]
)
ONNX = ("--on", "onnxruntime", "--warmup", "0", "--requests", "3")


def model(folder: Path, name: str) -> str:
    """name + "out" = relu(name), with the name everywhere."""
    values = [helper.make_tensor_value_info(part, TensorProto.FLOAT, [2]) for part in (name, f"{name}out")]
    node = helper.make_node("Relu", [name], [f"{name}out"], name=name)
    graph = helper.make_graph([node], name, values[:1], values[1:])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name=name)
    onnx.save(made, folder / "m.onnx")
    return str(folder / "m.onnx")


def clean(done: CompletedProcess[str], *codes: int, least: str = "") -> None:
    """Whether a command's text is fit for a terminal, and says what it has to say."""
    assert done.returncode in codes, done.stderr[-2000:]
    text = done.stdout + done.stderr
    assert text.replace("\n", "").isprintable()
    assert all(len(line) <= 3100 for line in text.splitlines())
    assert len(text) < 50_000
    assert least in text


@NAMES
def test_models(name: str, tmp_path: Path) -> None:
    """Run, profile, inspect: names of tensors, of nodes and of what made the model."""
    file = model(tmp_path, name)
    clean(loadtrt("run", "--engine", file, *ONNX), 0, 97, least="loaded ")
    clean(loadtrt("profile", "--engine", file, *ONNX[:4], "--requests", "2", "--nodes"), 0)
    clean(loadtrt("inspect", file), 0, least="Relu")
    clean(loadtrt("run", "--engine", file, "--shapes", "no:2", *ONNX), 2)


@NAMES
def test_json_on_a_terminal(name: str, tmp_path: Path) -> None:
    """Nothing is lost, and nothing steers."""
    done = loadtrt("inspect", "--json", model(tmp_path, name))
    assert done.stdout.replace("\n", "").isprintable()
    assert json.loads(done.stdout)["tensors"][0]["name"] == name
    done = loadtrt("run", "--engine", model(tmp_path, name), *ONNX, "--quiet", "--json", "-")
    assert done.stdout.replace("\n", "").isprintable()
    [ran] = json.loads(done.stdout)["models"].values()
    assert ran["engine"]["tensors"][0]["name"] == name


@NAMES
def test_builds(name: str, tmp_path: Path) -> None:
    """Build's own lines, and inspect's of the plan and of its description."""
    pytest.importorskip("tensorrt_rtx")
    name, plan = name[:3000], tmp_path / "m.plan"  # TensorRT's own limit is 4096 bytes
    options = ("-o", plan, "--flavour", "rtx", "--target", "sm86")
    clean(loadtrt("build", model(tmp_path, name), *options), 0, least="built by")
    sidecar = json.loads(sidecar_of(plan).read_text())
    sidecar |= {"model": name, "gpu": name, "precision": name, "options": {name: name}}
    sidecar_of(plan).write_text(json.dumps(sidecar))
    clean(loadtrt("inspect", plan), 0, least="built from")


@NAMES
@pytest.mark.parametrize(
    "content",
    [
        lambda name: {name: 1},
        lambda name: {f"{name}{number}": number for number in range(3000 if len(name) < 1000 else 2)},
        lambda name: {"engine": name},
        lambda name: {"engine": "simulated:null", "rate": name},
        lambda name: {"engine": "simulated:null", "contexts": [name]},
        lambda name: {"engine": f"simulated:{name}=1"},
        lambda name: {"engine": "simulated:null", "objectives": [name]},
        lambda name: {"models": {name: {"engine": "simulated:null", name: 1}}},
    ],
    ids=["key", "keys", "engine", "rate", "list", "simulated", "objective", "model"],
)
def test_configurations(name: str, content: Any, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(content(name), allow_unicode=True, width=1_000_000))
    clean(loadtrt("run", "--config", file), 2)


@NAMES
def test_results(name: str, tmp_path: Path) -> None:
    """Report, compare and plan-capacity of a run whose names are such; and files that are none."""
    file = tmp_path / "run.json"
    options = ("--warmup", "0", "--requests", "2000", "--objective", "latency.p99 < 1s", "--quiet", "--json", file)
    assert loadtrt("run", "--engine", "simulated:service=1ms,clock=virtual", *options).returncode == 0
    data = json.loads(file.read_text())
    [(model, measured)] = data["models"].items()
    measured["engine"] |= {"name": name, "device": name, "precision": name, "notes": [name], "mode": {name: name}}
    data |= {"models": {name: measured}, "environment": {**data["environment"], "cpu": name, "host": name}}
    data["config"]["models"] = {name: data["config"]["models"][model] | {"engine": name}}
    file.write_text(json.dumps(data))
    clean(loadtrt("report", file, "-o", "-", "--format", "txt"), 0, least="VALID")
    for kind in ("html", "md", "csv"):
        made = loadtrt("report", file, "-o", "-", "--format", kind)
        assert re.sub("[\n\xa0]", "", made.stdout).isprintable()
    clean(loadtrt("compare", file, file), 0, 98)
    clean(loadtrt("plan-capacity", file, "--demand", "1/s", "--objective", "latency.p99 < 1s"), 0, 2)
    clean(loadtrt("run", "--config", file), 2)
    file.write_text(json.dumps({"schema_version": name, "config": name}))
    for command in (("report",), ("compare", file), ("run", "--config")):
        clean(loadtrt(*command, file), 2)


@NAMES
def test_the_command_line(name: str) -> None:
    name = name.replace("\0", "")
    for arguments in ((name,), ("run", f"--{name}"), ("run", "--engine", name), ("report", name), ("inspect", name)):
        clean(loadtrt(*arguments), 2)
    clean(loadtrt("watch", name), 2)


@NAMES
def test_other_machines(name: str) -> None:
    """The reason of an answer, and its body."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.wfile.write(b"HTTP/1.1 500 " + name.replace("\r", "")[:60_000].encode() + b"\r\n\r\n")

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        clean(loadtrt("watch", f"127.0.0.1:{server.server_address[1]}"), 2)
        server.shutdown()
