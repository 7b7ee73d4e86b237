"""Where a layer's weights come from: a .caffemodel, or chance."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from google.protobuf.message import DecodeError

from loadtrt.caffe.prototxt import format_shape
from loadtrt.caffe.schema import NetParameter
from loadtrt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from loadtrt.caffe.prototxt import Layer

Array = np.ndarray[Any, np.dtype[np.float32]]


class Weights:
    """The blobs of a .caffemodel by layer name; or, without a file, normal numbers as the layers ask for them."""

    def __init__(self, file: Path | None, learned: Sequence[str], seed: int) -> None:
        """`learned`: names of the layers that need weights. Same seed and same layers, same random weights.

        Raises UsageError for a file that cannot be read, is no .caffemodel, or knows none of those layers.
        """
        self._file = file
        self._random = np.random.default_rng(seed)
        self._blobs = {} if file is None else _read(file)
        if file is not None and learned and not set(learned) & set(self._blobs):
            theirs = next(iter(self._blobs))
            raise UsageError(f"{file} has the weights of another network: {theirs} there, {learned[0]} in the prototxt")

    def blob(self, layer: Layer, index: int, shape: Sequence[int], mean: float, deviation: float) -> Array:
        """fp32 of `shape`: the layer's blob number `index`; mean and deviation are for random ones.

        Raises UsageError where the file lacks it or has it in another shape. Leading ones do not count: the old format
        has four dimensions always.
        """
        if self._file is None:
            drawn = self._random.standard_normal(tuple(shape), dtype=np.float32)
            return drawn * np.float32(deviation) + np.float32(mean)
        blobs = self._blobs.get(layer.name, [])
        if index >= len(blobs):
            found = f"{self._file} has {len(blobs)}"
            raise layer.wrong(f"needs {index + 1} blobs of weights, {found}: give the weights of this network")
        blob = blobs[index]
        dims = tuple(blob.shape.dim) if blob.HasField("shape") else (blob.num, blob.channels, blob.height, blob.width)
        if _without_leading_ones(dims) != _without_leading_ones(shape):
            found = f"{self._file} has {format_shape(dims)}"
            raise layer.wrong(f"needs blob {index} of {format_shape(shape)}, {found}: give the weights of this network")
        values = _values(blob)
        if values is None or values.size != math.prod(shape):
            raise layer.wrong(f"has blob {index} without all of its numbers in {self._file}: the file is damaged")
        return values.reshape(tuple(shape))


def _read(file: Path) -> dict[str, list[Any]]:
    """caffe.BlobProto lists by layer name."""
    net = NetParameter()
    try:
        net.ParseFromString(file.read_bytes())
    except OSError as error:
        raise UsageError(f"cannot read weights {file}: {error.strerror}") from None
    except DecodeError:
        raise UsageError(f"{file} is not a .caffemodel, or is damaged") from None
    blobs = {layer.name: list(layer.blobs) for layer in (*net.layers, *net.layer) if layer.blobs}
    if not blobs:
        raise UsageError(f"{file} is not a .caffemodel: there are no layers with weights in it")
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
