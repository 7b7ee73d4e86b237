"""Models made for the conversion to FP16, and ONNX Runtime's FP32 answers as the oracle."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from loadtrt.engines.half_precision import convert_to_fp16
from loadtrt.environment import import_onnxruntime

if TYPE_CHECKING:
    from loadtrt.load.tensors import Arrays
    from loadtrt.results.precisions import HalfPrecision

F, H, N = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64
U = 2.0**-11  # half a step of FP16 at 1


def value(name: str, *shape: Any, kind: int = F) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def weight(name: str, numbers: Any, kind: Any = np.float32) -> Any:
    return numpy_helper.from_array(np.asarray(numbers, kind), name)


def model(
    nodes: Any, inputs: Any, outputs: Any, weights: Any = (), *, opset: int = 17, domains: Any = (), **more: Any
) -> Any:
    graph = helper.make_graph(list(nodes), "g", list(inputs), list(outputs), list(weights))
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(name, 1) for name in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=more.pop("ir_version", 8), **more)


def answer(made: Any, feeds: Arrays) -> list[Any]:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def converted(made: Any, *, keep_io: bool = True) -> tuple[Any, HalfPrecision]:
    """A copy of a model in FP16, which onnx's checker and its strict inference take, and what became of it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(made)
    half, became = convert_to_fp16(copy, keep_io=keep_io)
    onnx.checker.check_model(half)
    assert [item.name for item in half.graph.output] == [item.name for item in made.graph.output]
    return half, became


def in_fp16(made: Any, feeds: Arrays) -> list[Any]:
    """The answer of onnx's own evaluator, whose every FP16 node rounds to FP16 and overflows as a GPU's does; ONNX
    Runtime's CPU computes these nodes in FP32."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an overflow shows in the answer
        return list(ReferenceEvaluator(made).run(None, dict(feeds)))


def agree(made: Any, feeds: Arrays, bound: float = 8 * U, *, evaluated: bool = True) -> tuple[Any, HalfPrecision]:
    """`converted`, whose answers are within `bound` of FP32's, relative to an output's largest magnitude; integers are
    equal, and NaN and infinities are where FP32 has them. Twice: on ONNX Runtime, and with every node in FP16.

    evaluated: whether onnx's evaluator knows all operators.
    """
    half, became = converted(made)
    wanted = answer(made, feeds)
    _require_near(wanted, answer(half, feeds), bound)
    if evaluated:
        _require_near(wanted, in_fp16(half, feeds), bound)
    return half, became


def _require_near(all_wanted: list[Any], all_found: list[Any], bound: float) -> None:
    for wanted, found in zip(all_wanted, all_found, strict=True):
        assert wanted.dtype == found.dtype
        assert wanted.shape == found.shape
        if wanted.dtype.kind != "f":
            assert np.array_equal(wanted, found)
            continue
        finite = np.isfinite(wanted)
        assert np.array_equal(np.nan_to_num(wanted[~finite]), np.nan_to_num(found[~finite]))
        largest = np.abs(wanted[finite]).max(initial=0)
        assert np.abs(wanted[finite] - found[finite]).max(initial=0) <= bound * largest


def types_of(made: Any) -> dict[str, str]:
    """Element type of every tensor of the main graph, as onnx's strict inference says."""
    inferred = onnx.shape_inference.infer_shapes(made, strict_mode=True).graph
    named = {item.name: item.type.tensor_type.elem_type for item in (*inferred.value_info, *inferred.output)}
    named |= {item.name: item.data_type for item in inferred.initializer}
    return {name: TensorProto.DataType.Name(kind) for name, kind in named.items()}


def node_of(made: Any, operator: str) -> Any:
    (found,) = [node for node in made.graph.node if node.op_type == operator]
    return found
