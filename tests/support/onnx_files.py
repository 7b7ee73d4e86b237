"""Tiny ONNX files, and engines over them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from loadtrt.asked.config import RunConfig
from loadtrt.engines.onnxruntime import load_onnxruntime

if TYPE_CHECKING:
    from pathlib import Path

    from loadtrt.engines.engine import Completion, Engine
    from loadtrt.engines.onnxruntime import OnnxRuntimeEngine

FAR_NS = 3600 * 10**9


def save(
    file: Path, nodes: Any, inputs: dict[str, Any], outputs: dict[str, Any], weights: dict[str, Any], **save: Any
) -> str:
    """An ONNX file; inputs and outputs by name as (type, shape)."""
    values = [[helper.make_tensor_value_info(name, *of) for name, of in side.items()] for side in (inputs, outputs)]
    constants = [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "test", values[0], values[1], constants)
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("acme", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=7), file, **save)
    return str(file)


def doubling(folder: Path, *shape: Any, kind: int = TensorProto.FLOAT) -> str:
    """y = 2 x."""
    two = helper.make_tensor("two", kind, [], [2]) if kind != TensorProto.STRING else None
    node = helper.make_node("Mul", ["x", "two"], ["y"])
    weights = {"two": onnx.numpy_helper.to_array(two)} if two else {}
    return save(folder / "double.onnx", [node], {"x": (kind, shape)}, {"y": (kind, shape)}, weights)


def load(engine: str, **options: Any) -> OnnxRuntimeEngine:
    return load_onnxruntime(RunConfig.of(engine=engine, **options).model)


def refused(kind: type[Exception], sentence: str, engine: str, **options: Any) -> None:
    with pytest.raises(kind, match=re.escape(sentence)) as caught:
        load(engine, **options)
    assert "\n" not in str(caught.value)


async def finish(engine: Engine, count: int) -> list[Completion]:
    done: list[Completion] = []
    while len(done) < count:
        done += await engine.wait(engine.now_ns() + FAR_NS)
    assert len(done) == count
    return done
