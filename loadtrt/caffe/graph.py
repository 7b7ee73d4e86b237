"""The ONNX graph as it grows, and the pen with which one Caffe layer writes its nodes into it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from onnx import helper, numpy_helper

from loadtrt.caffe.prototxt import format_shape

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx

    from loadtrt.caffe.prototxt import Layer
    from loadtrt.caffe.weights import Weights
    from loadtrt.errors import UsageError


class Tensor(NamedTuple):
    """An fp32 tensor in the ONNX graph; Caffe's sizes are always known."""

    name: str
    shape: tuple[int, ...]


@dataclass(slots=True)
class Graph:
    """`blobs`: the tensor that each of Caffe's blob names means at this point of the network."""

    weights: Weights
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    blobs: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pen:
    """`names`: of the tensors for the layer's tops. The layer's last node has the layer's name; nodes before it, and
    its constants, add a word to it."""

    graph: Graph
    layer: Layer
    bottoms: list[Tensor]
    names: list[str]

    def step(self, word: str, operator: str, inputs: Sequence[str], shape: Sequence[int], **attributes: Any) -> Tensor:
        """A node on the way; `shape` is its output's."""
        name = f"{self.layer.name}:{word}"
        self.graph.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return Tensor(name, tuple(shape))

    def last(self, operator: str, inputs: Sequence[str], *shapes: Sequence[int], **attributes: Any) -> list[Tensor]:
        """The node whose outputs are the layer's tops, with a shape each."""
        if len(shapes) != len(self.names):
            raise self.wrong(f"has {len(self.names)} tops, where {len(shapes)} can be made")
        node = helper.make_node(operator, inputs, self.names, name=self.layer.name, **attributes)
        self.graph.nodes.append(node)
        return [Tensor(name, tuple(shape)) for name, shape in zip(self.names, shapes, strict=True)]

    def constant(self, word: str, values: Any, dtype: type = np.float32) -> str:
        """A weight or a setting; returns its name."""
        name = f"{self.layer.name}.{word}"
        self.graph.initializers.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def learned(self, index: int, shape: Sequence[int], mean: float, deviation: float) -> Any:
        """The layer's blob number `index`, fp32 of `shape`; mean and deviation are for random weights."""
        return self.graph.weights.blob(self.layer, index, shape, mean, deviation)

    def wrong(self, what: str) -> UsageError:
        return self.layer.wrong(what)

    def bottom(self) -> Tensor:
        """The only one. Raises UsageError where there are others or none."""
        return self.expect(1)[0]

    def expect(self, count: int) -> list[Tensor]:
        if len(self.bottoms) != count:
            raise self.wrong(f"needs {count} bottom{'s'[: count > 1]}, not {len(self.bottoms)}")
        return self.bottoms

    def axis(self, axis: int, rank: int) -> int:
        """`axis` counted from the front. Raises UsageError outside [-rank, rank)."""
        if not -rank <= axis < rank:
            raise self.wrong(f"has axis {axis}, where its bottom has {rank} dimensions")
        return axis % rank

    def reshape(self, x: Tensor, shape: Sequence[int]) -> list[Tensor]:
        """The layer's last node: x with `shape`. A first size that stays is copied, so that the batch can change."""
        if math.prod(shape) != math.prod(x.shape):
            raise self.wrong(f"cannot make {format_shape(shape)} of {format_shape(x.shape)}: their products differ")
        kept = 0 if shape and x.shape and shape[0] == x.shape[0] else None
        sizes = shape if kept is None else (0, *shape[1:])
        return self.last("Reshape", [x.name, self.constant("shape", sizes, np.int64)], shape)
