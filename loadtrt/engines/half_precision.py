"""An ONNX model converted to FP16 so that it stays the same network.

Each node computes in one type, by the three lists of PyTorch's autocast: convolutions, matrix products and recurrent
layers in FP16; what sums, squares or exponentiates in FP32; all others in the widest type of what reaches them, for
which weights and the model's inputs count as FP16. Casts stand where types meet, so that a part without FP16 (an
operator that ONNX has in FP32 only, a branch, a loop, an operator of another domain) stays as it is.

Nothing is cut and nothing is lifted: a node whose weights FP16 does not hold stays FP32. Batch normalizations, whose
variances often are beyond FP16, are folded first.

Why not a converter that exists: onnxconverter-common 1.16 makes models that no runtime loads of those with a float
Cast, an If, unnamed nodes or outputs that are read inside, and cuts weights at 1e4; ONNX Runtime's own
(onnxruntime.transformers.float16) loads most of them, but cuts at 65504, lifts what is below 6e-8, computes sizes and
indices in FP16, whose integers end at 2048, and gives DynamicQuantizeLinear what it does not take. Both decide by the
names of nodes and a list of operators; here the types that onnx infers decide, and the types that its schemas allow.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from loadtrt.engines.batch_normalization import fold_batch_normalizations
from loadtrt.engines.value_types import (
    FLOAT,
    FLOAT16,
    NO_TENSOR,
    add_missing_types,
    admits_fp16,
    all_names,
    bodies_of,
    fresh_name,
    infer_types,
    opsets_of,
    replace,
    schema_of,
    types_in,
    variable_of,
)
from loadtrt.results.engine_info import HalfPrecision, LeftInFp32

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    *("LpNormalization", "RMSNormalization", "MeanVarianceNormalization", "LRN", "LpPool", "GlobalLpPool"),
    *("GridSample", "AffineGrid", "RoiAlign", "MaxRoiPool", "DFT", "STFT", "NegativeLogLikelihoodLoss"),
    *("SoftmaxCrossEntropyLoss", "CastLike"),
}
_QUANTIZERS = {"QuantizeLinear", "DequantizeLinear"}
_MEASURES = {"Shape", "Size"}  # which ask nothing of the numbers
_UNCOUNTED = {*_MEASURES, "Cast", "ConstantOfShape"}
_BOUNDS = {"Clip", "Min", "Max"}  # where the greatest number of FP16 bounds as well as one beyond it
_GREATEST = float(np.finfo(np.float16).max)
_SMALLEST = float(np.finfo(np.float16).smallest_normal)
_HELD = 2.0**-8  # of the norm of a node's weights: FP16's own rounding is below 2**-11
_NAMES = 3  # of nodes that are named for each reason

_RANGE = "needs FP32's range"
_FOLLOWS = "takes what FP32 nodes make"
_NO_FP16 = "has no FP16 version"
_UNKNOWN = "is not known to ONNX, or takes what such a node makes"
_BEYOND = "has weights beyond FP16's range"
_LOST = "has weights that FP16 does not hold"


def convert_to_fp16(model: Any, *, keep_io: bool = True) -> tuple[Any, HalfPrecision]:
    """`model`, with its weights inside, in FP16, and what became of it. keep_io: inputs and outputs stay FP32, else
    they become FP16 too. `model` is changed."""
    import onnx.inliner

    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    infer_types(model)
    fold_batch_normalizations(model)
    conversion = _Conversion(opsets_of(model), all_names(model.graph), keep_io)
    _Scope(conversion, model.graph, None).convert()
    model.ir_version = max(model.ir_version, 4)  # before it initializers had to be inputs too
    return model, conversion.result()


@dataclass(slots=True, eq=False)
class _Value:
    """A tensor that was FP32 and now is FP32, FP16 or both.

    scope: the graph that it belongs to.
    kind: what it counts as where inputs decide: "fp16", "fp32", or "weight", which goes with either.
    names: by whether it is the FP16 one; what is not there has none.
    tensor: of a weight.
    is_node: whether the weight is a node, a Constant.
    fp16_keeps: whether it is the FP16 one that keeps the model's name.
    """

    name: str
    scope: _Scope
    kind: str
    names: dict[bool, str] = field(default_factory=dict)
    tensor: Any = None
    is_node: bool = False
    fp16_keeps: bool = False
    _numbers: Any = None

    @property
    def numbers(self) -> Any:
        """Of a weight."""
        if self._numbers is None:
            from onnx import numpy_helper

            self._numbers = numpy_helper.to_array(self.tensor)
        return self._numbers

    @property
    def beyond(self) -> bool:
        """Whether a finite weight is beyond FP16's range."""
        return self.tensor is not None and bool((np.isfinite(self.numbers) & np.isinf(_half(self.numbers))).any())

    @property
    def lost(self) -> bool:
        """Whether rounding to FP16 takes more from the weights than FP16 does where it holds numbers."""
        if self.tensor is None:
            return False
        finite = np.where(np.isfinite(self.numbers), self.numbers, 0).astype(np.float64)
        numbers = np.clip(finite, -_GREATEST, _GREATEST)
        return bool(np.linalg.norm(_half(numbers) - numbers) > _HELD * np.linalg.norm(numbers))

    @property
    def exact(self) -> bool:
        """Whether FP16 holds every one of the weights as well as the others: none is so small that it loses bits."""
        return self.tensor is not None and bool((np.abs(self.numbers) >= _SMALLEST).all())


def _half(numbers: Any) -> Any:
    with np.errstate(over="ignore"):
        return np.asarray(numbers).astype(np.float16)


@dataclass(slots=True)
class _Conversion:
    """What the graphs of a model share."""

    opsets: dict[str, int]
    names: set[str]
    keep_io: bool
    converted: int = 0
    left: dict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))
    weights: int = 0
    subnormal: int = 0
    zeroed: dict[str, int] = field(default_factory=dict)
    beyond: dict[str, float] = field(default_factory=dict)

    def count(self, node: Any, why: str, inputs: Sequence[_Value | None]) -> None:
        if not why:
            self.converted += 1
            return
        self.left[node.op_type, why].append(node.name or next(filter(None, node.output), ""))
        for value in inputs:
            if why == _BEYOND and value is not None and value.beyond:
                finite = np.abs(value.numbers[np.isfinite(value.numbers)])
                self.beyond[value.name] = float(finite.max())

    def count_weights(self, name: str, numbers: Any, half: Any) -> None:
        self.weights += int(half.size)
        self.subnormal += int(np.count_nonzero((half != 0) & (np.abs(half) < _SMALLEST)))
        if zeroed := int(np.count_nonzero(numbers) - np.count_nonzero(half)):
            self.zeroed[name] = zeroed

    def result(self) -> HalfPrecision:
        farthest = max(self.beyond, key=lambda name: self.beyond[name], default="")
        ranked = sorted(self.left.items(), key=lambda item: -len(item[1]))
        return HalfPrecision(
            keeps_io=self.keep_io,
            nodes=self.converted + sum(map(len, self.left.values())),
            converted=self.converted,
            left=tuple(LeftInFp32(kind, why, len(names), tuple(names[:_NAMES])) for (kind, why), names in ranked),
            weights=self.weights,
            zeroed=sum(self.zeroed.values()),
            most_zeroed=max(self.zeroed, key=lambda name: self.zeroed[name], default=""),
            subnormal=self.subnormal,
            beyond=len(self.beyond),
            farthest_beyond=farthest,
            largest_beyond=self.beyond.get(farthest, 0.0),
        )


class _Scope:
    """A graph, or the body of a branch or loop, while it is converted. Names of tensors are looked up outwards."""

    def __init__(self, conversion: _Conversion, graph: Any, outer: _Scope | None) -> None:
        self.all, self.graph, self.outer = conversion, graph, outer
        self.types = types_in(graph)
        self.values: dict[str, _Value] = {}
        self.nodes: list[Any] = []
        self.initializers = [tensor for tensor in graph.initializer if tensor.data_type != FLOAT]
        # Inputs and outputs that become FP16; of a body they stay, as the node around it stays.
        self.becoming = outer is None and not conversion.keep_io
        weights = {tensor.name for tensor in graph.initializer if tensor.data_type == FLOAT}
        self.inputs = [value for value in graph.input if value.name not in weights]
        self.ends = {value.name for value in (*self.inputs, *graph.output)} if self.becoming else set[str]()

    def convert(self) -> None:
        """Convert the graph in place."""
        graph = self.graph
        for tensor in graph.initializer:
            if tensor.data_type == FLOAT:
                self._add(tensor.name, "weight").tensor = tensor
        for sparse in graph.sparse_initializer:
            if sparse.values.data_type == FLOAT:
                self._add(sparse.values.name, "weight").names[False] = sparse.values.name
        for item in self.inputs:
            if self.types.get(item.name) == FLOAT:
                kind = "fp16" if self.outer is None else "fp32"  # a loop may sum in what it hands on
                self._add(item.name, kind).names[self.becoming] = item.name
        for node in list(graph.node):
            self._convert_node(node)
        for output in graph.output:
            if (value := self.values.get(output.name)) is not None:
                output.name = self.named(value, fp16=self.becoming)
        if self.becoming:
            for item in (*self.inputs, *graph.output):
                if item.type.tensor_type.elem_type == FLOAT:
                    item.type.tensor_type.elem_type = FLOAT16
        replace(graph.input, self.inputs)
        replace(graph.initializer, self.initializers)
        replace(graph.node, self.nodes)
        del graph.value_info[:]  # they say the old types

    def named(self, value: _Value, *, fp16: bool) -> str:
        """The name of a value as FP16 or FP32, which is made where it is not there."""
        if fp16 not in value.names:
            name = value.names[fp16] = self._name_for(value, fp16=fp16)
            if value.tensor is None:
                value.scope.cast(value.names[not fp16], name, fp16=fp16)
            else:
                numbers = _half(value.numbers) if fp16 else value.numbers
                value.scope.keep(numbers, name, is_node=value.is_node)
                if fp16:
                    self.all.count_weights(value.name, value.numbers, numbers)
        return value.names[fp16]

    def cast(self, name: str, to: str, *, fp16: bool) -> None:
        """A Cast behind the nodes that were converted so far."""
        from onnx import helper

        kind = FLOAT16 if fp16 else FLOAT
        self.nodes.append(helper.make_node("Cast", [name], [to], name=fresh_name(f"{to}/Cast", self.all.names), to=kind))

    def keep(self, numbers: Any, name: str, *, is_node: bool) -> None:
        """A weight, as an initializer or as a node behind those that were converted so far."""
        from onnx import helper, numpy_helper

        tensor = numpy_helper.from_array(numbers, name)
        if is_node:
            self.nodes.append(helper.make_node("Constant", [], [name], name=name, value=tensor))
        else:
            self.initializers.append(tensor)

    def _name_for(self, value: _Value, *, fp16: bool) -> str:
        if fp16 == value.fp16_keeps:
            return value.name
        return fresh_name(f"{value.name}/{'fp16' if fp16 else 'fp32'}", self.all.names)

    def _add(self, name: str, kind: str) -> _Value:
        value = self.values[name] = _Value(name, self, kind, fp16_keeps=name in self.ends)
        return value

    def _find(self, name: str) -> tuple[_Value | None, int]:
        """The value of that name, None where it is not FP32, and the type it had, 0 where that is not known."""
        scope: _Scope | None = self
        while name and scope is not None:
            if name in scope.values:
                return scope.values[name], FLOAT
            if name in scope.types:
                return None, scope.types[name]
            scope = scope.outer
        return None, 0

    def _convert_node(self, node: Any) -> None:
        if (tensor := _constant(node)) is not None:
            value = self._add(node.output[0], "weight")
            value.tensor, value.is_node = tensor, True
            return
        bodies = bodies_of(node)
        for body in bodies:  # before the node: what a body takes from here in another type is cast in front of the node
            _Scope(self.all, body, self).convert()
        found = [self._find(name) for name in node.input]
        inputs, kinds = [value for value, _ in found], [kind for _, kind in found]
        schema = schema_of(node, self.all.opsets)
        if schema is not None:
            add_missing_types(node, schema, self.types, kinds)
        makes = [name for name in node.output if self.types.get(name) == FLOAT]
        if not any(inputs) and not makes:
            self.nodes.append(node)
            return
        if node.op_type == "Cast" and inputs[0] is not None and makes:  # from FP32 to FP32
            node.op_type = "Identity"
            del node.attribute[:]
            schema = schema_of(node, self.all.opsets)
        places, why = (set[int](), _NO_FP16) if bodies else self._decide(node, schema, inputs, kinds, makes)
        for place, value in enumerate(inputs):
            if value is not None:
                node.input[place] = self._taken(node, value, fp16=place in places)
        self.nodes.append(node)
        if not bodies and node.op_type not in _UNCOUNTED:
            self.all.count(node, why, inputs)
        for place, name in enumerate(node.output):
            if name in makes:
                value = self._add(name, "fp32" if why else "fp16")
                if node.op_type == "ConstantOfShape" and _fills_small(node):
                    value.kind = "weight"
                node.output[place] = value.names[not why] = self._name_for(value, fp16=not why)

    def _taken(self, node: Any, value: _Value, *, fp16: bool) -> str:
        """The name under which a node takes a value."""
        if node.op_type in _MEASURES:
            return self.named(value, fp16=True in value.names and False not in value.names)
        if fp16 and value.beyond:  # of a bound, or the node would be FP32
            name = fresh_name(f"{value.name}/fp16", self.all.names)
            value.scope.keep(_half(np.clip(value.numbers, -_GREATEST, _GREATEST)), name, is_node=value.is_node)
            return name
        return self.named(value, fp16=fp16)

    def _decide(
        self, node: Any, schema: Any, inputs: Sequence[_Value | None], kinds: Sequence[int], makes: Sequence[str]
    ) -> tuple[set[int], str]:
        """The places of the inputs that a node takes as FP16, and why it computes in FP32, "" where it does not."""
        unknown = 0 in [kind for name, kind in zip(node.input, kinds, strict=True) if name]
        if schema is None or unknown or not all(name in self.types for name in node.output if name):
            return set(), _UNKNOWN
        if NO_TENSOR in (*kinds, *(self.types[name] for name in node.output if name)):
            return set(), _NO_FP16
        if node.op_type in _FP32:
            return set(), _RANGE
        takes = {place: variable_of(schema.inputs, place) for place, value in enumerate(inputs) if value is not None}
        made = {variable_of(schema.outputs, place) for place, name in enumerate(node.output) if name in makes}
        if node.op_type == "DequantizeLinear" and not any(item.name == "output_dtype" for item in node.attribute):
            made |= set(takes.values())  # its output is of the scale's type
        elif not makes:
            made = set(takes.values())
        if not (made & set(takes.values()) and all(admits_fp16(schema, variable) for variable in made)):
            return set(), _NO_FP16
        places = {place for place, variable in takes.items() if variable in made}
        values = [value for place, value in enumerate(inputs) if value is not None and place in places]
        if node.op_type not in _BOUNDS and any(value.beyond for value in values):
            return set(), _BEYOND
        scale = inputs[1] if node.op_type in _QUANTIZERS else None
        if any(value.lost for value in values) or (node.op_type in _QUANTIZERS and not (scale and scale.exact)):
            return set(), _LOST
        if node.op_type not in _FP16 and any(value.kind == "fp32" for value in values):
            return set(), _FOLLOWS
        return places, ""


def _constant(node: Any) -> Any:
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


def _fills_small(node: Any) -> bool:
    """Whether a ConstantOfShape is of a number that FP16 holds."""
    from onnx import numpy_helper

    return all(np.isfinite(_half(numpy_helper.to_array(item.t))).all() for item in node.attribute)
