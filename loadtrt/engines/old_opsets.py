"""Models of operator sets that runtimes have given up (PyTorch 0.3, Caffe2), lifted by onnx' own converter."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

LEAST_OPSET = 7  # ONNX Runtime and TensorRT promise no less
_TARGETS = (LEAST_OPSET, 8, 9, 11, 13)  # the nearest first: it changes least


def opset_of(model: Any) -> int:
    """Version of the standard operators; 0 where the model names none."""
    return next((int(item.version) for item in model.opset_import if item.domain in ("", "ai.onnx")), 0)


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
            converted = onnx.version_converter.convert_version(_with_listed_weights(model), target)
            onnx.checker.check_model(converted)
            return converted, (f"{name} has opset {old}, and was lifted to {target} by onnx.version_converter",)
    return model, ()


def remedy(opset: int) -> str:
    """What to do about a model of this opset that a runtime refuses; "" where the opset is not the reason."""
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
