"""The types of all tensors inside an ONNX model and of what its operators take, by onnx's inference and schemas."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FLOAT, FLOAT16, BFLOAT16 = 1, 10, 16  # of TensorProto
NO_TENSOR = -1  # a sequence, a map, an optional
_MOST_BYTES = 4096  # of weights whose numbers inference looks at: shapes, axes, paddings


def infer_types(model: Any) -> None:
    """Write the type of every tensor, where onnx infers it, into `value_info` of its graph, in place of what is there.

    What the model says itself stays for the outputs of operators that onnx does not know.
    """
    import onnx.shape_inference

    opsets = opsets_of(model)
    for graph in graphs_of(model.graph):
        foreign = {name for node in graph.node if schema_of(node, opsets) is None for name in node.output}
        kept = [value for value in graph.value_info if value.name in foreign]
        replace(graph.value_info, kept)
    # Weights do not decide types, and more than 2 GiB of them is more than inference takes.
    large = [
        (tensor, tensor.raw_data)
        for graph in graphs_of(model.graph)
        for tensor in graph.initializer
        if len(tensor.raw_data) > _MOST_BYTES
    ]
    try:
        for tensor, _ in large:
            tensor.ClearField("raw_data")
        inferred = onnx.shape_inference.infer_shapes(model)
    finally:
        for tensor, data in large:
            tensor.raw_data = data
    for graph, known in zip(graphs_of(model.graph), graphs_of(inferred.graph), strict=True):
        replace(graph.value_info, list(known.value_info))
        for mine, found in zip((*graph.input, *graph.output), (*known.input, *known.output), strict=True):
            if not mine.type.WhichOneof("value"):
                mine.type.CopyFrom(found.type)


def types_in(graph: Any) -> dict[str, int]:
    """The element type of every tensor of a graph whose type is known; NO_TENSOR for what is none."""
    types = {value.name: _type_of(value) for value in (*graph.value_info, *graph.output, *graph.input)}
    types |= {sparse.values.name: sparse.values.data_type for sparse in graph.sparse_initializer}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    return {name: kind for name, kind in types.items() if kind}


def _type_of(value: Any) -> int:
    kind = value.type.WhichOneof("value")
    return int(value.type.tensor_type.elem_type) if kind == "tensor_type" else NO_TENSOR if kind else 0


def opsets_of(model: Any) -> dict[str, int]:
    """The version of each domain's operators, ONNX's own under ""."""
    return {"" if item.domain == "ai.onnx" else item.domain: item.version for item in model.opset_import}


def schema_of(node: Any, opsets: Mapping[str, int]) -> Any:
    """ONNX's description of a node's operator; None for one that onnx does not know."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    return _schema(node.op_type, opsets.get(domain, 0), domain)


@cache
def _schema(operator: str, version: int, domain: str) -> Any:
    import onnx.defs

    try:
        return onnx.defs.get_schema(operator, version, domain)
    except onnx.defs.SchemaError:
        return None


def variable_of(formals: Any, place: int) -> str:
    """The type variable, or the type, of the input or output at that place: the last one may stand for many."""
    return str(formals[min(place, len(formals) - 1)].type_str) if formals else ""


def admits_fp16(schema: Any, variable: str) -> bool:
    """Whether a type variable of an operator may be FP16."""
    return any(
        constraint.type_param_str == variable and "tensor(float16)" in constraint.allowed_type_strs
        for constraint in schema.type_constraints
    )


def add_missing_types(node: Any, schema: Any, known: dict[str, int], inputs: list[int]) -> None:
    """Add to `known` the types of outputs that inference left out, as it does behind a failure: by the schema, that of
    an input with the same type variable.

    inputs: the types of the node's inputs, 0 where unknown.
    """
    for place, name in enumerate(node.output):
        if not name or name in known:
            continue
        variable = variable_of(schema.outputs, place)
        same = [kind for at, kind in enumerate(inputs) if variable_of(schema.inputs, at) == variable and kind]
        to = [attribute.i for attribute in node.attribute if attribute.name == "to"]
        if node.op_type == "Cast" and to:
            known[name] = to[0]
        elif same:
            known[name] = same[0]
        elif variable == "tensor(float)":
            known[name] = FLOAT


def given_inputs(graph: Any) -> list[Any]:
    """The inputs of a graph without weights, which old models list among them."""
    weights = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in weights]


def bodies_of(node: Any) -> list[Any]:
    """The graphs that a node holds: branches of an If, bodies of a Loop or Scan."""
    return [
        graph
        for attribute in node.attribute
        for graph in ([attribute.g] if attribute.HasField("g") else [*attribute.graphs])
    ]


def graphs_of(graph: Any) -> Iterator[Any]:
    """A graph, and those of branches and loops inside it."""
    yield graph
    for node in graph.node:
        for body in bodies_of(node):
            yield from graphs_of(body)


def all_names(graph: Any) -> set[str]:
    """Every name of a tensor or node in a graph and the graphs inside it."""
    names: set[str] = set()
    for inner in graphs_of(graph):
        names |= {value.name for value in (*inner.input, *inner.output, *inner.initializer)}
        names |= {sparse.values.name for sparse in inner.sparse_initializer}
        for node in inner.node:
            names |= {node.name, *node.input, *node.output}
    return names


def fresh_name(name: str, names: set[str], numbered: str = "{}_{}") -> str:
    """`name`, with a number where it is taken, as `numbered` has it; `names` has it afterwards."""
    candidate, number = name, 1
    while candidate in names:
        number += 1
        candidate = numbered.format(name, number)
    names.add(candidate)
    return candidate


def replace(field: Any, items: list[Any]) -> None:
    """Put `items` in the place of what a repeated field of protobuf holds; they may be of it."""
    copies = list(items)
    del field[:]
    field.extend(copies)
