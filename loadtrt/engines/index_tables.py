"""Integer inputs of which the model says what they are: those that index a table, and those that choose a branch.

A random number beyond its table fails the request in ONNX Runtime, and in TensorRT reads other memory without a word; a
random mode, such as a rate of samples, takes the branch for none of the known ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from loadtrt.engines.value_types import given_inputs, graphs_of

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
_WHOLES = (2, 3, 4, 5, 6, 7, 12, 13)  # onnx.TensorProto's UINT8, INT8, UINT16, INT16, INT32, INT64, UINT32, UINT64
_COMPARES = {"Equal": 0, "GreaterOrEqual": 0, "LessOrEqual": 0, "Greater": 1, "Less": -1}  # what to add to be true
_LOGIC = {"Not", "And", "Or", *_MOVERS}
# By operator, the place of the first input whose values are sizes, axes, places or a choice of what runs.
_DECIDES = {
    "If": 0, "Loop": 0, "Range": 0, "ConstantOfShape": 0, "NonZero": 0, "Unique": 0,
    "OneHot": 1, "TopK": 1, "Reshape": 1, "Expand": 1, "Tile": 1, "Slice": 1, "Pad": 1, "Split": 1,
    "SplitToSequence": 1, "SequenceAt": 1, "Squeeze": 1, "Unsqueeze": 1, "CumSum": 1, "Trilu": 1, "Compress": 1,
    "ReverseSequence": 1, "Upsample": 1, "Resize": 2, "NonMaxSuppression": 2, "CenterCropPad": 1, "AffineGrid": 1,
    "DFT": 1, "STFT": 1, "ScatterElements": 1, "ScatterND": 1, "Scatter": 1,
}  # fmt: skip
_SHAPE_ALONE = {"Shape", "Size"}  # what these tell does not depend on values
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
    inputs = _integer_inputs(model)
    if not inputs:
        return {}
    nodes = _nodes(model)
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
    return {value.name: rows[value.name] for value in inputs if value.name in rows}


Role = Literal["size", "computed index", "index", ""]


def roles(model: Any) -> dict[str, Role]:
    """By integer input, what its values decide that a request may fail of: a size, axis or branch; an index into a
    table after arithmetic; or that index as it is. "" where they are only numbers. model: an onnx.ModelProto."""
    found: dict[str, Role] = {value.name: "" for value in _integer_inputs(model)}
    if not found:
        return {}
    plain = {name: {name} for name in found}  # by tensor: the inputs whose values it has
    made: dict[str, set[str]] = {}  # by tensor: those of which its values are computed
    for node in _nodes(model):
        kept, computed = set[str](), set[str]()
        for place, name in enumerate(node.input):
            has, of = plain.get(name, set()), made.get(name, set())
            if (node.op_type, place) in _TABLES:
                found |= {source: found[source] or "index" for source in has}
                found |= {source: "computed index" for source in of if found[source] != "size"}
            elif place >= _DECIDES.get(node.op_type, len(node.input)) or (place and node.op_type.startswith("Reduce")):
                found |= dict.fromkeys(has | of, "size")
            elif node.op_type in _MOVERS and (place == 0 or node.op_type in _MOVES_ALL):
                kept, computed = kept | has, computed | of
            elif node.op_type not in _SHAPE_ALONE:
                computed |= has | of
        for output in node.output:
            plain[output], made[output] = kept, computed
    return found


def branch_values(model: Any) -> dict[str, int]:
    """By input of one integer, the first number with which the model compares it to choose a branch."""
    from onnx import numpy_helper

    inputs = _integer_inputs(model)
    nodes = _nodes(model) if inputs else []
    conditions = {node.input[0] for node in nodes if node.op_type == "If" and node.input}
    if not conditions:
        return {}
    single = [value for value in inputs if all(dim.dim_value == 1 for dim in value.type.tensor_type.shape.dim)]
    constants = {tensor.name: tensor for tensor in model.graph.initializer if tensor.data_location != tensor.EXTERNAL}
    for node in nodes:
        if node.op_type == "Constant" and node.attribute:
            constants |= dict.fromkeys(node.output, node.attribute[0].t)
    source = {value.name: value.name for value in single}
    for node in nodes:
        if node.op_type in _MOVERS and node.input and node.input[0] in source:
            source |= dict.fromkeys(node.output, source[node.input[0]])
    for node in reversed(nodes):
        if node.op_type in _LOGIC and conditions.intersection(node.output):
            conditions.update(node.input)
    found: dict[str, int] = {}
    for node in nodes:
        if node.op_type in _COMPARES and conditions.intersection(node.output) and len(node.input) == 2:
            name, number = node.input[0], constants.get(node.input[1])
            if name in source and number is not None and number.data_type in _WHOLES and not list(number.dims)[1:]:
                values = numpy_helper.to_array(number).reshape(-1)
                if values.size == 1:
                    found.setdefault(source[name], int(values[0]) + _COMPARES[node.op_type])
    return found


def _integer_inputs(model: Any) -> list[Any]:
    return [value for value in given_inputs(model.graph) if value.type.tensor_type.elem_type in _WHOLES]


def _nodes(model: Any) -> list[Any]:
    """All nodes, those of branches and loops after the node that has them."""
    return [node for graph in graphs_of(model.graph) for node in graph.node]


def _shapes(model: Any, nodes: Sequence[Any]) -> dict[str, tuple[int, ...]]:
    """Shapes of weights, of what has their shape, and of what the model declares; -1 for a size that is open."""
    graphs = list(graphs_of(model.graph))
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
