"""The ONNX graph of a Caffe network: weights from a .caffemodel or random ones, and the nodes that each layer adds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError
from onnx import helper, numpy_helper

from loadtrt.caffe.caffe_proto import NetParameter
from loadtrt.caffe.prototxt import MOST_NUMBERS, format_shape
from loadtrt.errors import UsageError
from loadtrt.reading_files import MOST_MODEL_BYTES, read_bytes
from loadtrt.units import plural

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import onnx

    from loadtrt.caffe.prototxt import Layer

_MOST_BYTES = (1 << 31) - 1
_MOST_SETTINGS = 16  # numbers of a constant that is no weight, such as a shape

Array = np.ndarray[Any, np.dtype[np.float32]]
Sizes = dict[tuple[str, int], tuple[int, ...]]  # shapes of weights by layer and number of the blob


class Weights:
    """The blobs of a .caffemodel by layer name; or, without a file, normal numbers as the layers ask for them."""

    def __init__(self, file: Path | None, layers: Sequence[str], seed: int, written: Sizes) -> None:
        """The same seed and the same layers give the same random weights.

        layers: names of the network's layers.
        written: shapes that weights have with the prototxt's own input shapes.
        Raises UsageError for a file that cannot be read, is not a .caffemodel, or has none of those layers.
        """
        self._file, self._layers, self._written = file, layers, written
        self._bytes = 0  # of the blobs that were asked for
        self._random = np.random.default_rng(seed)
        self._blobs = {} if file is None else _read(file)

    def blob(self, layer: Layer, index: int, shape: Sequence[int], mean: float, deviation: float) -> Array:
        """The layer's blob of this number, fp32 of this shape.

        mean, deviation: of random ones.
        Raises UsageError where the file lacks it or has it in another shape, and for more weights than a model holds.
        Leading ones do not count: the old format has four dimensions always.
        """
        written = self._written.get((layer.name, index), tuple(shape))
        if written != tuple(shape):
            raise layer.wrong(
                f"has weights of {format_shape(written)}, and would need {format_shape(shape)} with the sizes given: "
                "it fixes the size of the input, so leave that as it is, or --output what comes before"
            )
        self._bytes += 4 * math.prod(shape)
        if self._bytes > _MOST_BYTES:
            raise layer.wrong(f"brings the weights to {self._bytes / 2**30:.3g} GiB, and an ONNX model holds 2 GiB")
        if self._file is None:
            drawn = self._random.standard_normal(tuple(shape), dtype=np.float32)
            return drawn * np.float32(deviation) + np.float32(mean)
        if self._blobs and not set(self._layers) & set(self._blobs):
            theirs = f"{next(iter(self._blobs))} there, {layer.name} in the prototxt"
            raise UsageError(f"{self._file} has the weights of another network: {theirs}")
        blobs = self._blobs.get(layer.name, [])
        if index >= len(blobs):
            present = f"{self._file} has {len(blobs)}"
            raise layer.wrong(f"needs {index + 1} blobs of weights, {present}: give the weights of this network")
        blob = blobs[index]
        dims = tuple(blob.shape.dim) if blob.HasField("shape") else (blob.num, blob.channels, blob.height, blob.width)
        if _without_leading_ones(dims) != _without_leading_ones(shape):
            present = f"{self._file} has {format_shape(dims)}"
            raise layer.wrong(
                f"needs blob {index} of {format_shape(shape)}, {present}: give the weights of this network"
            )
        values = _values(blob)
        if values is None or values.size != math.prod(shape):
            raise layer.wrong(f"has blob {index} without all of its numbers in {self._file}: the file is damaged")
        return values.reshape(tuple(shape))


def _read(file: Path) -> dict[str, list[Any]]:
    """caffe.BlobProto lists by layer name."""
    net = NetParameter()
    try:
        net.ParseFromString(read_bytes(file, "weights", MOST_MODEL_BYTES))
    except DecodeError:
        raise UsageError(
            f"{file} is not a .caffemodel, or is damaged: name the network's weights, which are binary"
        ) from None
    layers = [*(old.layer if old.HasField("layer") else old for old in net.layers), *net.layer]
    blobs = {layer.name: list(layer.blobs) for layer in layers if layer.blobs}
    if not blobs:
        raise UsageError(f"{file} is not a .caffemodel: it has no layers with weights")
    return blobs


def _values(blob: Any) -> Array | None:
    """None where the bytes are not a whole number of floats."""
    data, dtype = (blob.double_data, "<f8") if blob.double_data else (blob.data, "<f4")
    raw = b"".join(data)
    return None if len(raw) % np.dtype(dtype).itemsize else np.frombuffer(raw, dtype).astype(np.float32)


def he(fan_in: int) -> float:
    """Standard deviation sqrt(2 / fan-in): keeps the second moment of activations through ReLUs (He et al. 2015)."""
    return math.sqrt(2 / fan_in)


def _without_leading_ones(shape: Sequence[int]) -> tuple[int, ...]:
    first = next((axis for axis, size in enumerate(shape) if size != 1), len(shape))
    return tuple(shape[first:])


class Tensor(NamedTuple):
    """An fp32 tensor in the ONNX graph; Caffe's sizes are always known."""

    name: str
    shape: tuple[int, ...]


NOWHERE = Tensor("", ())  # in the place of one that is not made


@dataclass(slots=True)
class Graph:
    """The ONNX graph so far.

    weights: where they come from; or, where the graph is made for the sizes of weights alone, where these go.
    read: blobs that a layer reads.
    types: of all layers of the file.
    blobs: the tensor that each of Caffe's blob names means at this point of the network.
    """

    weights: Weights | Sizes
    read: frozenset[str]
    types: frozenset[str]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    blobs: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pen:
    """Adds a layer's nodes to the graph: the last has the layer's name; those before it, and constants, add a word.

    names: of the tensors for the layer's tops.
    """

    graph: Graph
    layer: Layer
    bottoms: list[Tensor]
    names: list[str]

    def step(self, word: str, operator: str, inputs: Sequence[str], shape: Sequence[int], **attributes: Any) -> Tensor:
        """A node on the way; `shape` is its output's."""
        name = f"{self.layer.name}:{word}"
        self.graph.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return self._sized(name, shape)

    def last(self, operator: str, inputs: Sequence[str], *shapes: Sequence[int], **attributes: Any) -> list[Tensor]:
        """The node whose outputs are the layer's tops, with a shape each."""
        if len(shapes) != len(self.names):
            raise self.wrong(f"has {len(self.names)} tops, where {len(shapes)} can be made")
        node = helper.make_node(operator, inputs, self.names, name=self.layer.name, **attributes)
        self.graph.nodes.append(node)
        return [self._sized(name, shape) for name, shape in zip(self.names, shapes, strict=True)]

    def _sized(self, name: str, shape: Sequence[int]) -> Tensor:
        if math.prod(shape) > MOST_NUMBERS:
            raise self.wrong("puts out more numbers than any memory holds: check the sizes of the network")
        return Tensor(name, tuple(shape))

    def constant(self, word: str, values: Any, dtype: type = np.float32) -> str:
        """A weight or a setting; returns its name."""
        name = f"{self.layer.name}.{word}"
        if isinstance(self.graph.weights, dict) and np.size(values) > _MOST_SETTINGS:
            return name
        self.graph.initializers.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def learned(self, index: int, shape: Sequence[int], mean: float, deviation: float) -> Any:
        """The layer's blob number `index`, fp32 of `shape`; mean and deviation are for random weights."""
        if isinstance(self.graph.weights, dict):
            if 4 * math.prod(shape) > _MOST_BYTES:
                raise self.wrong("has more weights than an ONNX model holds")
            self.graph.weights[self.layer.name, index] = tuple(shape)
            return np.broadcast_to(np.float32(0), tuple(shape))
        return self.graph.weights.blob(self.layer, index, shape, mean, deviation)

    def wrong(self, what: str) -> UsageError:
        return self.layer.wrong(what)

    def bottom(self) -> Tensor:
        """The only one. Raises UsageError where there are others or none."""
        return self.expect(1)[0]

    def image(self) -> Tensor:
        """The only bottom, of batch, channels, height and width."""
        x = self.bottom()
        if len(x.shape) != 4:
            raise self.wrong(f"needs a bottom of 4 dimensions, not {len(x.shape)}")
        return x

    def channels(self) -> int:
        """Of the only bottom."""
        if len(self.bottom().shape) < 2:
            raise self.wrong("needs a bottom with channels")
        return self.bottom().shape[1]

    def shapes(self) -> str:
        """Of all bottoms, for errors."""
        return " and ".join(format_shape(x.shape) for x in self.bottoms)

    def expect(self, count: int) -> list[Tensor]:
        if len(self.bottoms) != count:
            raise self.wrong(f"needs {plural(count, 'bottom')}, not {len(self.bottoms)}")
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
