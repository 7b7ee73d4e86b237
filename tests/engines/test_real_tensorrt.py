"""Real TensorRT wheels, where they are installed, on a machine without a GPU."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from loadtrt.engines.deserialize import open_plan
from loadtrt.engines.tensorrt_log import journal_of
from loadtrt.errors import EngineError
from tensorrt_bench import write_plan

if TYPE_CHECKING:
    from pathlib import Path


def _rtx_plan(path: Path) -> Path:
    """A small RTX plan, really built: on the CPU, ahead of time."""
    from onnx import TensorProto, helper

    rtx = pytest.importorskip("tensorrt_rtx")
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "relu",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 8])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    logger = journal_of(rtx).logger
    builder = rtx.Builder(logger)
    network = builder.create_network(0)
    assert rtx.OnnxParser(network, logger).parse(model.SerializeToString())
    built = builder.build_serialized_network(network, builder.create_builder_config())
    path.write_bytes(bytes(built))
    return path


def test_real_rtx_without_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Law: a really built RTX plan has the header that is read, and the real library's failure to load it without
    a driver is an EngineError with its reason, not a crash."""
    from loadtrt.cuda.runtime import has_gpu
    from loadtrt.engines.plan import read_header

    path = _rtx_plan(tmp_path / "relu.plan")
    rtx = sys.modules["tensorrt_rtx"]
    header = read_header(path)
    assert header.built_by == f"TensorRT-RTX {rtx.__version__}"
    if has_gpu():
        pytest.skip("there is a GPU: this is about its absence")
    with pytest.raises(EngineError, match=r"cudaGetDeviceCount|CUDA bindings"):
        open_plan(path, module=None, plugins=(), allow_host_code=False, device=0)
    monkeypatch.setattr("loadtrt.cuda.runtime.device_count", lambda: 1)
    monkeypatch.setattr("loadtrt.cuda.runtime.call", lambda *_: None)
    properties = type("P", (), {"name": "none", "compute_capability": (0, 0)})
    monkeypatch.setattr("loadtrt.engines.deserialize.device_properties", lambda _: properties)
    with pytest.raises(EngineError, match=r"tensorrt_rtx 1\..* says "):
        open_plan(path, module=None, plugins=(), allow_host_code=False, device=0)


@pytest.mark.parametrize("name", ["tensorrt_lean", "tensorrt_dispatch"])
def test_preflight_saves_the_process(name: str, tmp_path: Path) -> None:
    """Law: without a driver, loading a plan with a real lean or dispatch runtime is an EngineError; the same
    runtime without the preflight ends the process with a signal."""
    from loadtrt.cuda.runtime import has_gpu

    module = name if importlib.util.find_spec(name) else f"{name}_bindings"
    if importlib.util.find_spec(module) is None or has_gpu():
        pytest.skip(f"{name} is not installed, or there is a GPU")
    path = write_plan(tmp_path / "model.plan", version=(10, 16, 1, 11), host_code=True)
    safe = (
        "from loadtrt.engines.tensorrt import load_plan; from loadtrt.asked.config import RunConfig\n"
        f"load_plan(RunConfig.of(engine={path!r}, module={name!r}, allow_host_code=True).model)"
    )
    done = subprocess.run([sys.executable, "-c", safe], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "EngineError" in done.stderr or "CudaError" in done.stderr
    unsafe = f"import {module} as t\nr = t.Runtime(t.Logger())\nr.engine_host_code_allowed = True\ndel r"
    done = subprocess.run([sys.executable, "-c", unsafe], capture_output=True, text=True, check=False)
    assert done.returncode < 0
