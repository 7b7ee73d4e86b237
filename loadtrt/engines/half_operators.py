"""Which nodes of a model compute in FP16: by their operators, by what ONNX says that these take, by their weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from loadtrt.engines.half_values import BEYOND, LOST, half
from loadtrt.engines.value_types import FLOAT, NO_TENSOR, admits_fp16, variable_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
_QUANTIZERS = {"QuantizeLinear", "DequantizeLinear"}
_MOVES = {
    *("Identity", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Split", "Concat", "Expand"),
    *("Gather", "GatherND", "GatherElements", "Tile", "Pad", "DepthToSpace", "SpaceToDepth"),
}
MEASURES = {"Shape", "Size"}  # which ask nothing of the numbers
UNCOUNTED = {*MEASURES, "Cast", "ConstantOfShape"}
BOUNDS = {"Clip", "Min", "Max"}  # where the greatest number of FP16 bounds as well as one beyond it

_RANGE = "needs FP32's range"
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
