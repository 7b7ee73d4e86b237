"""Which nodes of a model compute in FP16: by their operators, by what ONNX says that these take, by their weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from loadtrt.engines.half_values import BEYOND, LOST, half
from loadtrt.engines.value_types import BFLOAT16, FLOAT, FLOAT16, NO_TENSOR, admits_fp16, variable_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from loadtrt.engines.half_values import Value

# In FP16 whatever reaches them: this is where FP16 gains.
_FP16 = {
    *("Conv", "ConvTranspose", "DeformConv", "Gemm", "MatMul", "Einsum", "LSTM", "GRU", "RNN", "Attention"),
    "DequantizeLinear",
}
# In FP32 always: sums of many, squares, exponentials, and coordinates, which FP16 would round to whole pixels.
_FP32 = {
    *("Pow", "Exp", "Log", "Sqrt", "Reciprocal", "Softplus", "LogSoftmax", "CumSum", "CumProd", "Det"),
    *("ReduceMean", "ReduceSum", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum"),
    *("ReduceLogSumExp", "BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization"),
    *("LpNormalization", "RMSNormalization", "MeanVarianceNormalization", "LpPool", "GlobalLpPool"),
    *("GridSample", "AffineGrid", "RoiAlign", "MaxRoiPool", "DFT", "STFT", "NegativeLogLikelihoodLoss"),
    *("SoftmaxCrossEntropyLoss", "CastLike", "BitCast"),
}
_HALVES = {FLOAT, FLOAT16, BFLOAT16}
_QUANTIZERS = {"QuantizeLinear", "DequantizeLinear"}
_MOVES = {
    *("Identity", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Split", "Concat", "Expand"),
    *("Gather", "GatherND", "GatherElements", "Tile", "Pad", "DepthToSpace", "SpaceToDepth"),
}
_INDEXES = {  # what moves indices or computes them, whose whole numbers FP16 does not have beyond 2048
    *_MOVES,
    *("Floor", "Ceil", "Round", "Mod", "Add", "Sub", "Mul", "Div", "Neg", "Abs", "Min", "Max", "Clip", "Where"),
}
MEASURES = {"Shape", "Size"}  # which ask nothing of the numbers
UNCOUNTED = {*MEASURES, "Cast", "ConstantOfShape"}
BOUNDS = {"Clip", "Min", "Max"}  # where the greatest number of FP16 bounds as well as one beyond it

_RANGE = "needs FP32's range"
EXACT = "makes integers or booleans, or values for these"
_FOLLOWS = "takes what FP32 nodes make"
NO_FP16 = "has no FP16 version"
_UNKNOWN = "is not ONNX's own, or takes what such a node makes"


def decide(
    node: Any,
    schema: Any,
    inputs: Sequence[Value | None],
    kinds: Sequence[int],
    types: Mapping[str, int],
    makes: Sequence[str],
) -> tuple[set[int], str]:
    """The places of the inputs that a node takes as FP16, and why it computes in FP32, "" where it does not.

    inputs, kinds: the values of its inputs, None for what was not FP32, and their types, 0 where unknown.
    types: of the tensors that it makes, by name.
    makes: those of them that were FP32.
    """
    unknown = 0 in [kind for name, kind in zip(node.input, kinds, strict=True) if name]
    if schema is None or schema.domain or unknown or not all(name in types for name in node.output if name):
        return set(), _UNKNOWN
    if NO_TENSOR in (*kinds, *(types[name] for name in node.output if name)):
        return set(), NO_FP16
    if node.op_type in _FP32 or _sums(node):
        return set(), _RANGE
    takes = {place: variable_of(schema.inputs, place) for place, value in enumerate(inputs) if value is not None}
    made = {variable_of(schema.outputs, place) for place, name in enumerate(node.output) if name in makes}
    if node.op_type == "Attention":  # which takes values and masks of other types, and no runtime mixes values
        made |= {"T1", "T2"}
    if node.op_type == "DequantizeLinear" and not any(item.name == "output_dtype" for item in node.attribute):
        made |= set(takes.values())  # its output is of the scale's type
    elif not makes:
        made = set(takes.values())
    if not (made & set(takes.values()) and all(admits_fp16(schema, variable) for variable in made)):
        return set(), NO_FP16
    places = {place for place, variable in takes.items() if variable in made}
    values = [value for place, value in enumerate(inputs) if value is not None and place in places]
    if node.op_type not in BOUNDS and any(value.beyond for value in values):
        return set(), BEYOND
    weights = [value.weight for value in values if value.weight is not None]
    if any(weight.lost for weight in weights) or (node.op_type in _QUANTIZERS and not _holds_scale(inputs[1])):
        return set(), LOST
    unfit = next((value.unfit for value in values if value.unfit), "")
    if node.op_type in _FP16 and unfit:
        return set(), unfit
    if node.op_type not in _FP16 and any(value.kind == "fp32" for value in values):
        return set(), _FOLLOWS
    return places, ""


def read_exactly(graph: Any) -> set[str]:
    """The tensors of a graph that become integers, truths or FP64, at once or by what moves and computes indices:
    their last digits count."""
    names = set[str]()
    for node in reversed(graph.node):
        to = {item.i for item in node.attribute if node.op_type == "Cast" and item.name == "to"}
        if to - _HALVES or (node.op_type in _INDEXES and names.intersection(node.output)):
            names |= set(node.input)
    return names


def reads_exactly(node: Any, makes: Sequence[str], exact: Collection[str]) -> bool:
    """Whether a node makes no floats, or leads to what `read_exactly` found (`exact`)."""
    if not makes:
        return node.op_type not in _QUANTIZERS
    return node.op_type in _INDEXES and not set(makes).isdisjoint(exact)


def _holds_scale(scale: Value | None) -> bool:
    """Whether FP16 holds every scale, each of which matters, with all its bits."""
    return scale is not None and scale.weight is not None and scale.weight.subnormal == scale.weight.zeroed == 0


def _sums(node: Any) -> bool:
    """Whether a node that usually moves numbers combines them here, or hands out the scores that it masks."""
    reduces = any(item.name == "reduction" and item.s not in (b"", b"none") for item in node.attribute)
    return (reduces and node.op_type.startswith("Scatter")) or (node.op_type == "Attention" and any(node.output[3:]))


def unfit_from(node: Any, why: str, inputs: Sequence[Value | None]) -> str:
    """Why FP16 does not hold what a node makes: of weights that it does not hold, with or without moving them."""
    if why in (BEYOND, LOST):
        return why
    moved = (value.unfit for value in inputs if value is not None and value.unfit)
    return next(moved, "") if node.op_type in _MOVES else ""


def constant_of(node: Any) -> Any:
    """The tensor of a Constant of FP32; None for another node, and for a sparse one."""
    from onnx import helper

    if node.op_type != "Constant" or node.domain not in ("", "ai.onnx"):
        return None
    for item in node.attribute:
        if item.name == "value" and item.t.data_type == FLOAT:
            return item.t
        if item.name == "value_float":
            return helper.make_tensor("", FLOAT, [], [item.f])
        if item.name == "value_floats":
            return helper.make_tensor("", FLOAT, [len(item.floats)], item.floats)
    return None


def fills_small(node: Any) -> bool:
    """Whether a ConstantOfShape is of a number that FP16 holds."""
    from onnx import numpy_helper

    return all(np.isfinite(half(numpy_helper.to_array(item.t))).all() for item in node.attribute)
