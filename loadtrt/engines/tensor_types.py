"""Types of tensors that TensorRT does not have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtrt.errors import EngineError

if TYPE_CHECKING:
    from loadtrt.engines.build_model import Source
    from loadtrt.engines.toolchain import Toolchain

_NOT_IN_TENSORRT = {"STRING", "UINT16", "INT16", "UINT32", "UINT64", "COMPLEX64", "COMPLEX128"}


def require_types(tool: Toolchain, source: Source) -> None:
    """Raise EngineError for types of tensors that TensorRT does not have: its parser would write to stderr itself, and
    say neither which tensor it is nor what to do."""
    from onnx import TensorProto

    graph = source.model.graph
    found = [
        *((f"input {item.name}", item.type.tensor_type.elem_type) for item in graph.input),
        *((f"output {item.name}", item.type.tensor_type.elem_type) for item in graph.output),
        *((f"weight {item.name}", item.data_type) for item in graph.initializer),
        *(
            (f"node '{node.name or node.output[0]}' (operator Cast)", int(item.i))
            for node in graph.node
            for item in node.attribute
            if node.op_type == "Cast" and item.name == "to"
        ),
    ]
    for where, number in found:
        if number in TensorProto.DataType.values() and TensorProto.DataType.Name(number) in _NOT_IN_TENSORRT:
            kind = TensorProto.DataType.Name(number)
            raise EngineError(
                f"{tool.flavour} cannot build {source.name}: {where} is of type {kind}, which TensorRT does "
                "not have: export the model with INT32 or FP32 there, or run it on ONNX Runtime (run --on onnxruntime)"
            )
