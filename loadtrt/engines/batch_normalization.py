"""Batch normalizations of an ONNX model folded into the convolutions before them, or made a product and a sum."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from loadtrt.engines.value_types import FLOAT, all_names, bodies_of, fresh_name, replace

if TYPE_CHECKING:
    import numpy.typing as npt

    Numbers = npt.NDArray[np.float64]


def fold_batch_normalizations(model: Any) -> None:
    """Fold what FP16 could not hold, such as a variance of 1e8: y = (x - mean) / sqrt(variance + epsilon) · scale + b
    is y = factor · x + term, with two vectors of the size that x and y have.

    Where x is what a convolution makes for this node alone, they go into its weights; else they become a Mul and an
    Add. Computed in FP64. Nodes that train, or whose parameters are computed, stay as they are. The types must have
    been inferred (`infer_types`).
    """
    _fold(model.graph, {}, all_names(model.graph))


def _fold(graph: Any, outer: dict[str, Any], names: set[str]) -> None:
    weights = outer | {tensor.name: tensor for tensor in graph.initializer}
    weights |= {
        node.output[0]: node.attribute[0].t
        for node in graph.node
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value"
    }
    for node in graph.node:
        for body in bodies_of(node):
            _fold(body, weights, names)
    if any(_foldable(node, weights) for node in graph.node):
        _fold_in(graph, weights, names)


def _fold_in(graph: Any, weights: dict[str, Any], names: set[str]) -> None:
    from onnx import helper, numpy_helper

    reads = Counter(name for node in graph.node for name in _reads(node)) + Counter(item.name for item in graph.output)
    ranks = {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.input)
        if value.type.tensor_type.elem_type == FLOAT and value.type.tensor_type.HasField("shape")
    }

    def number(name: str) -> Numbers:
        return numpy_helper.to_array(weights[name]).astype(np.float64)

    def keep(values: Numbers, like: str, suffix: str) -> str:
        name = fresh_name(f"{like}/{suffix}", names)
        graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    convolutions = {node.output[0]: node for node in graph.node if _takes_factor(node, weights)}
    nodes = []
    for node in graph.node:
        nodes.append(node)
        if not _foldable(node, weights):
            continue
        epsilon = next((item.f for item in node.attribute if item.name == "epsilon"), 1e-5)
        scale, bias, mean, variance = map(number, node.input[1:5])
        with np.errstate(all="ignore"):
            factor = scale / np.sqrt(variance + epsilon)
            term = bias - mean * factor
        if not (np.isfinite(factor).all() and np.isfinite(term).all()):
            continue
        x, y = node.input[0], node.output[0]
        if x in convolutions and reads[x] == 1:
            conv = convolutions[x]
            weight = number(conv.input[1])
            before = number(conv.input[2]) if len(conv.input) > 2 and conv.input[2] else 0.0
            folded = keep(weight * factor.reshape(-1, *[1] * (weight.ndim - 1)), conv.input[1], "folded")
            conv.input[1:] = [folded, keep(factor * before + term, y, "bias")]
            conv.output[0] = y
            nodes.pop()
        elif x in ranks:
            shape, name = (-1, *[1] * max(ranks[x] - 2, 0)), node.name or y
            product = fresh_name(f"{y}/product", names)
            factors, terms = keep(factor.reshape(shape), y, "factor"), keep(term.reshape(shape), y, "term")
            nodes[-1:] = [
                helper.make_node("Mul", [x, factors], [product], name=f"{name}/Mul"),
                helper.make_node("Add", [product, terms], [y], name=f"{name}/Add"),
            ]
            graph.value_info.add(name=product).type.tensor_type.elem_type = FLOAT
    replace(graph.node, nodes)


def _foldable(node: Any, weights: dict[str, Any]) -> bool:
    """Whether a node is a batch normalization for inference, by channel, whose parameters are weights."""
    settings = {item.name: item.i for item in node.attribute}
    return (
        node.op_type == "BatchNormalization"
        and node.domain in ("", "ai.onnx")
        and not settings.get("training_mode")
        and settings.get("spatial", 1) == 1
        and not any(node.output[1:])
        and all(name in weights and weights[name].data_type == FLOAT for name in node.input[1:5])
    )


def _takes_factor(node: Any, weights: dict[str, Any]) -> bool:
    """Whether a node is a convolution whose weights and bias are known."""
    return (
        node.op_type == "Conv"
        and node.domain in ("", "ai.onnx")
        and all(name in weights and weights[name].data_type == FLOAT for name in node.input[1:] if name)
    )


def _reads(node: Any) -> list[str]:
    """The names that a node and the graphs inside it read."""
    names = list(node.input)
    for body in bodies_of(node):
        for inner in body.node:
            names += _reads(inner)
        names += [value.name for value in body.output]
    return names
