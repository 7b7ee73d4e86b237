"""Caffe files made on the spot, and what ONNX Runtime and OpenCV's own Caffe reader make of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from loadtrt.caffe import convert
from loadtrt.caffe.caffe_proto import NetParameter
from loadtrt.environment import import_onnxruntime

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import TypeAlias

    import onnx

    Blobs: TypeAlias = Mapping[str, Sequence[Any]]


def write(folder: Path, text: str, blobs: Blobs, *, v1: bool = False) -> tuple[Path, Path]:
    """net.prototxt, and net.caffemodel with each layer's arrays; `v1` writes the old format with its four sizes."""
    deploy, model = folder / "net.prototxt", folder / "net.caffemodel"
    deploy.write_text(text)
    net = NetParameter()
    for name, arrays in blobs.items():
        layer = (net.layers if v1 else net.layer).add(name=name)
        for array in arrays:
            blob = layer.blobs.add()
            if v1:
                four = (1,) * (4 - np.ndim(array)) + np.shape(array)
                blob.num, blob.channels, blob.height, blob.width = four
            else:
                blob.shape.dim.extend(np.shape(array))
            blob.data.append(np.asarray(array, "<f4").tobytes())
    model.write_bytes(net.SerializeToString())
    return deploy, model


def arrays(*shapes: tuple[int, ...], seed: int = 0) -> list[Any]:
    """Normal numbers over the square root of what a filter sees, so that activations stay near 1."""
    random = np.random.default_rng(seed)
    return [random.standard_normal(shape) / math.prod(shape[1:]) ** 0.5 for shape in shapes]


def run_onnx(model: onnx.ModelProto, feeds: Mapping[str, Any]) -> list[Any]:
    """All outputs; their shapes must be those that the model declares."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    results: list[Any] = session.run(None, dict(feeds))
    declared = [tuple(d.dim_value for d in value.type.tensor_type.shape.dim) for value in model.graph.output]
    assert [result.shape for result in results] == declared
    return results


def run_opencv(deploy: Path, model: Path | None, feeds: Mapping[str, Any], outputs: Sequence[str]) -> list[Any]:
    net = cv2.dnn.readNetFromCaffe(str(deploy), *([str(model)] if model else []))
    net.enableFusion(False)  # with it, intermediate blobs hold what a later layer made of them
    for name, value in feeds.items():
        net.setInput(value, name)
    return list(net.forward(list(outputs)))


def inputs_of(model: onnx.ModelProto, seed: int = 1) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    return {
        value.name: random.standard_normal([d.dim_value for d in value.type.tensor_type.shape.dim], dtype=np.float32)
        for value in model.graph.input
    }


def error(ours: Any, theirs: Any) -> float:
    """Largest difference over the largest value. Shapes must be equal."""
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def compare(folder: Path, text: str, blobs: Blobs, *, v1: bool = False) -> float:
    """The largest relative error of any output against OpenCV's."""
    deploy, file = write(folder, text, blobs, v1=v1)
    weights = file if blobs else None
    model = convert(deploy, weights)
    feeds = inputs_of(model)
    outputs = [value.name for value in model.graph.output]
    ours, theirs = run_onnx(model, feeds), run_opencv(deploy, weights, feeds, outputs)
    return max(error(mine, other) for mine, other in zip(ours, theirs, strict=True))
