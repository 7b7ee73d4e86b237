"""Models of operator sets that runtimes have given up (PyTorch 0.3, Caffe2), lifted by onnx' own converter, and what to
do about those that are too new."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

from loadtrt.engines.value_types import opsets_of

LEAST_OPSET = 7  # ONNX Runtime and TensorRT promise no less
# Operators that took a second input along `axis` of the first; PRelu took its slopes along axis 1.
_ALONG = {"Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Equal", "Greater", "Less", "PRelu"}
_INFERRED = 6  # before it shapes are not inferred through operators such as Relu; the converter needs them
_TARGETS = (LEAST_OPSET, 8, 9, 11, 13)  # the nearest first: it changes least


def opset_of(model: Any) -> int:
    """Version of the standard operators; 0 where the model names none."""
    return opsets_of(model).get("", 0)


def lifted(model: Any, name: str) -> tuple[Any, tuple[str, ...]]:
    """The model, lifted where its opset is too old, and notes; as it is where the converter fails, for the runtime to
    judge."""
    old = opset_of(model)
    if not 0 < old < LEAST_OPSET:
        return model, ()
    import onnx.checker
    import onnx.version_converter

    for target in _TARGETS:
        with suppress(Exception):  # the converter raises whatever it stumbles upon
            listed = _with_listed_weights(model)
            if old < _INFERRED:
                listed = onnx.version_converter.convert_version(listed, _INFERRED)
            converted = onnx.version_converter.convert_version(_aligned(listed), target)
            onnx.checker.check_model(converted)
            return converted, (f"{name} has opset {old}, and was lifted to {target} by onnx.version_converter",)
    return model, ()


def remedy(opset: int, said: str) -> str:
    """What to do about a model of this opset that ONNX Runtime refuses with these words; "" where no version is the
    reason."""
    newest = re.search(r"support for domain ai\.onnx is till opset (\d+)|max supported IR version: (\d+)", said)
    if newest:
        kind, most = ("opset", newest[1]) if newest[1] else ("IR version", newest[2])
        return f"; it is newer than this ONNX Runtime reads: update onnxruntime, or export with {kind} {most}"
    if not 0 < opset < LEAST_OPSET:
        return ""
    return (
        f"; its opset {opset} is older than runtimes read, and onnx.version_converter cannot lift it: export the model "
        "again, with opset 13 or newer"
    )


def _with_listed_weights(model: Any) -> Any:
    """A copy whose weights are inputs too, as they had to be then: the converter fails without."""
    import onnx
    from onnx import helper

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    listed = {value.name for value in copy.graph.input}
    copy.graph.input.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in copy.graph.initializer
        if tensor.name not in listed
    )
    return copy


def _aligned(model: Any) -> Any:
    """The model with second inputs that lie along an axis made as long as they lie, as numpy and newer operators align
    the last sizes: the converter refuses some of these, and leaves those of PRelu, which then are another network.

    Raises ValueError where the number of sizes is not known.
    """
    import onnx.shape_inference
    from onnx import helper

    inferred = onnx.shape_inference.infer_shapes(model).graph
    ranks = {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
        if value.type.tensor_type.HasField("shape")
    }
    ranks |= {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        axis = next((item for item in node.attribute if item.name == "axis"), None)
        if node.op_type in _ALONG and len(node.input) == 2 and (axis is not None or node.op_type == "PRelu"):
            first, second = (ranks.get(name) for name in node.input)
            if first is None or second is None:
                raise ValueError(f"the number of sizes of {node.input[0]} or {node.input[1]} is not known")
            at = 1 if axis is None else axis.i if axis.i >= 0 else first + axis.i
            missing = first - at - second
            if missing > 0 and second:
                longer = f"{node.output[0]}/aligned"
                axes = list(range(second, second + missing))
                model.graph.node.append(helper.make_node("Unsqueeze", [node.input[1]], [longer], axes=axes))
                node.input[1] = longer
            if axis is not None:
                node.attribute.remove(axis)
        model.graph.node.append(node)
    return model
