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

from typing import TYPE_CHECKING, Any

import numpy as np

from loadtrt.engines.batch_normalization import fold_batch_normalizations
from loadtrt.engines.half_operators import (
    EXACT,
    MEASURES,
    NO_FP16,
    UNCOUNTED,
    constant_of,
    decide,
    fills_small,
    read_exactly,
    reads_exactly,
    unfit_from,
)
from loadtrt.engines.half_values import GREATEST, Conversion, Value, half
from loadtrt.engines.value_types import (
    FLOAT,
    FLOAT16,
    add_missing_types,
    all_names,
    bodies_of,
    fresh_name,
    infer_types,
    opsets_of,
    replace,
    schema_of,
    types_in,
)

if TYPE_CHECKING:
    from loadtrt.results.precisions import HalfPrecision


_CAST_OPSET = 13


def convert_to_fp16(model: Any, *, keep_io: bool = True) -> tuple[Any, HalfPrecision]:
    """`model`, with its weights inside, in FP16, and what became of it. keep_io: inputs and outputs stay FP32, else
    they become FP16 too. `model` is changed."""
    model, conversion = convert(model, keep_io=keep_io)
    return model, conversion.result()


def convert(model: Any, *, keep_io: bool = True) -> tuple[Any, Conversion]:
    """As `convert_to_fp16`, with all that is known of it."""
    import onnx.inliner

    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    infer_types(model)
    fold_batch_normalizations(model)
    if "" not in opsets_of(model):  # a model of trees, say: casts are ONNX's own
        model.opset_import.add(domain="", version=_CAST_OPSET)
    conversion = Conversion(opsets_of(model), all_names(model.graph), keep_io)
    ends = (*model.graph.input, *model.graph.output)
    conversion.has_io = any(value.type.tensor_type.elem_type == FLOAT for value in ends)
    Scope(conversion, model.graph, None).convert()
    model.ir_version = max(model.ir_version, 4)  # before it initializers had to be inputs too
    return model, conversion


class Scope:
    """A graph, or the body of a branch or loop, while it is converted. Names of tensors are looked up outwards."""

    def __init__(self, conversion: Conversion, graph: Any, outer: Scope | None) -> None:
        self.all, self.graph, self.outer = conversion, graph, outer
        self.types = types_in(graph)
        self.values: dict[str, Value] = {}
        self.nodes: list[Any] = []
        self.initializers = [tensor for tensor in graph.initializer if tensor.data_type != FLOAT]
        # Inputs and outputs that become FP16; of a body they stay, as the node around it stays.
        self.becoming = outer is None and not conversion.keep_io
        weights = {tensor.name for tensor in graph.initializer if tensor.data_type == FLOAT}
        self.inputs = [value for value in graph.input if value.name not in weights]
        self.ends = {value.name for value in (*self.inputs, *graph.output)} if self.becoming else set[str]()
        self.exact = read_exactly(graph)

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
        computed = (value for value in self.values.values() if value.kind != "weight" and True in value.names)
        self.all.halves |= {value.name for value in computed}
        replace(graph.input, self.inputs)
        replace(graph.initializer, self.initializers)
        replace(graph.node, self.nodes)
        del graph.value_info[:]  # of inference: some are of what is gone

    def named(self, value: Value, *, fp16: bool) -> str:
        """The name of a value as FP16 or FP32, which is made where it is not there."""
        if fp16 not in value.names:
            name = value.names[fp16] = self._name_for(value, fp16=fp16)
            weight = value.weight
            if weight is None:
                value.scope.cast(value.names[not fp16], name, fp16=fp16)
            else:
                value.scope.keep(weight.half if fp16 else weight.numbers, name, is_node=value.is_node)
                if fp16:
                    self.all.count_weight(value.name, weight)
        return value.names[fp16]

    def cast(self, name: str, to: str, *, fp16: bool) -> None:
        """A Cast behind the nodes that were converted so far."""
        from onnx import helper

        kind = FLOAT16 if fp16 else FLOAT
        self.nodes.append(
            helper.make_node("Cast", [name], [to], name=fresh_name(f"{to}/Cast", self.all.names), to=kind)
        )

    def keep(self, numbers: Any, name: str, *, is_node: bool) -> None:
        """A weight, as an initializer or as a node behind those that were converted so far."""
        from onnx import helper, numpy_helper

        tensor = numpy_helper.from_array(numbers, name)
        if is_node:
            self.nodes.append(helper.make_node("Constant", [], [name], name=name, value=tensor))
        else:
            self.initializers.append(tensor)

    def _name_for(self, value: Value, *, fp16: bool) -> str:
        if fp16 == value.fp16_keeps:
            return value.name
        return fresh_name(f"{value.name}/{'fp16' if fp16 else 'fp32'}", self.all.names)

    def _add(self, name: str, kind: str) -> Value:
        value = self.values[name] = Value(name, self, kind, fp16_keeps=name in self.ends)
        return value

    def _find(self, name: str) -> tuple[Value | None, int]:
        """The value of that name, None where it is not FP32, and the type it had, 0 where that is not known."""
        scope: Scope | None = self
        while name and scope is not None:
            if name in scope.values:
                return scope.values[name], FLOAT
            if name in scope.types:
                return None, scope.types[name]
            scope = scope.outer
        return None, 0

    def _convert_node(self, node: Any) -> None:
        if (tensor := constant_of(node)) is not None:
            weight = self._add(node.output[0], "weight")
            weight.tensor, weight.is_node = tensor, True
            return
        bodies = bodies_of(node)
        for body in bodies:  # before the node: what a body takes from here in another type is cast in front of the node
            Scope(self.all, body, self).convert()
        found = [self._find(name) for name in node.input]
        inputs, kinds = [value for value, _ in found], [kind for _, kind in found]
        schema = schema_of(node, self.all.opsets)
        if schema is not None:
            add_missing_types(node, schema, self.types, kinds)
        makes = [name for name in node.output if self.types.get(name) == FLOAT]
        if not any(inputs) and not makes:
            self.nodes.append(node)
            return
        if node.op_type == "Cast" and schema is not None and inputs[0] is not None and makes:  # from FP32 to FP32
            node.op_type = "Identity"
            del node.attribute[:]
            schema = schema_of(node, self.all.opsets)
        places, why = (set[int](), NO_FP16) if bodies else decide(node, schema, inputs, kinds, self.types, makes)
        in_fp32 = all(value is None or value.kind == "weight" or False in value.names for value in inputs)
        if places and in_fp32 and reads_exactly(node, makes, self.exact):  # no cast, and no number is rounded
            places, why = set[int](), EXACT
        for place, value in enumerate(inputs):
            if value is not None:
                node.input[place] = self._taken(node, value, fp16=place in places)
        self.nodes.append(node)
        if not bodies and node.op_type not in UNCOUNTED:
            self.all.count(node, why, inputs)
        for place, name in enumerate(node.output):
            if name in makes:
                made = self._add(name, "fp32" if why else "fp16")
                made.unfit = unfit_from(node, why, inputs)
                if node.op_type == "ConstantOfShape" and fills_small(node):
                    made.kind = "weight"
                node.output[place] = made.names[not why] = self._name_for(made, fp16=not why)

    def _taken(self, node: Any, value: Value, *, fp16: bool) -> str:
        """The name under which a node takes a value."""
        if node.op_type in MEASURES and node.domain in ("", "ai.onnx"):
            return self.named(value, fp16=True in value.names and False not in value.names)
        if fp16 and value.weight is not None and value.weight.beyond:  # of a bound, or the node would be FP32
            name = fresh_name(f"{value.name}/fp16", self.all.names)
            value.scope.keep(half(np.clip(value.weight.numbers, -GREATEST, GREATEST)), name, is_node=value.is_node)
            return name
        return self.named(value, fp16=fp16)
