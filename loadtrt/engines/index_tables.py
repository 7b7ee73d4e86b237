"""Inputs whose values index a table of the model, such as token numbers: the rows of the smallest such table.

A random number beyond its table fails the request in ONNX Runtime, and in TensorRT reads other memory without a word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loadtrt.engines.external_data import messages_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Operators whose first output has no other values than their first input.
_MOVERS = {
    "Cast", "CastLike", "Reshape", "Unsqueeze", "Squeeze", "Identity", "Flatten", "Transpose", "Expand", "Slice",
    "Tile", "Split", "Dropout", "Gather", "GatherElements", "GatherND", "Concat", "Max", "SpaceToDepth",
}  # fmt: skip
_MOVES_ALL = {"Concat", "Max"}  # of their inputs
# Operators that keep how many rows a table has, wherever the weights are stored otherwise.
_SAME_SHAPE = {"Identity", "Cast", "CastLike", "DequantizeLinear", "QuantizeLinear"}
# By operator and the place of its indices: the place of the table.
_TABLES = {
    ("Gather", 1): 0,
    ("GatherElements", 1): 0,
    ("GatherND", 1): 0,
    ("GatherBlockQuantized", 1): 0,  # of com.microsoft, as the next
    ("EmbedLayerNormalization", 0): 2,
    ("EmbedLayerNormalization", 1): 4,
    ("EmbedLayerNormalization", 8): 3,
    ("QEmbedLayerNormalization", 0): 2,
    ("QEmbedLayerNormalization", 1): 4,
    ("ATen", 1): 0,  # PyTorch's fallback for torch.embedding
}


def index_tables(model: Any) -> dict[str, int]:
    """By input, the rows of the smallest table that its values index; model: an onnx.ModelProto.

    Tables are weights, or tensors whose sizes the model declares. Values reach them as they are, through operators that
    move them alone. Names mean the same in a branch or a loop as around it, so that these are looked through, too.
    """
    nodes = [message for message in messages_of(model.graph) if message.DESCRIPTOR.name == "NodeProto"]
    shapes = _shapes(model, nodes)
    rows: dict[str, int] = {}  # by tensor
    for node in reversed(nodes):  # a tensor's readers come after it
        moved = min((rows[output] for output in node.output if output in rows), default=0)
        for place, name in enumerate(node.input):
            bound = _bound(node, place, shapes)
            if not bound and node.op_type in _MOVERS and (place == 0 or node.op_type in _MOVES_ALL):
                bound = moved
            if name and bound > 0:
                rows[name] = min(bound, rows.get(name, bound))
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value.name for value in model.graph.input]
    return {name: rows[name] for name in inputs if name in rows and name not in weights}


def _shapes(model: Any, nodes: Sequence[Any]) -> dict[str, tuple[int, ...]]:
    """Shapes of weights, of what has their shape, and of what the model declares; -1 for a size that is open."""
    graphs = [message for message in messages_of(model.graph) if message.DESCRIPTOR.name == "GraphProto"]
    shapes = {
        value.name: tuple(dim.dim_value or -1 for dim in value.type.tensor_type.shape.dim)
        for graph in graphs
        for value in (*graph.input, *graph.value_info)
    }
    shapes |= {tensor.name: tuple(tensor.dims) for graph in graphs for tensor in graph.initializer}
    for node in nodes:
        first = node.input[0] if node.input else ""
        if node.op_type == "Constant":
            shapes |= {output: tuple(node.attribute[0].t.dims) for output in node.output if node.attribute}
        elif node.op_type in _SAME_SHAPE and first in shapes:
            shapes[node.output[0]] = shapes[first]
        elif node.op_type == "Transpose" and first in shapes:
            whole = shapes[first]
            order = next((item.ints for item in node.attribute if item.name == "perm"), range(len(whole))[::-1])
            if sorted(order) == list(range(len(whole))):
                shapes[node.output[0]] = tuple(whole[axis] for axis in order)
    return shapes


def _bound(node: Any, place: int, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Rows of the table that the input at this place indexes; 0 where it indexes none, below 0 where they are open."""
    at = _TABLES.get((node.op_type, place))
    if at is None or at >= len(node.input):
        return 0
    table = shapes.get(node.input[at], ())
    numbers = {item.name: int(item.i) for item in node.attribute}
    axis = numbers.get("axis", 0)
    if node.op_type == "GatherND":
        return min(table[numbers.get("batch_dims", 0) :], default=0)
    return table[axis] if -len(table) <= axis < len(table) else 0
