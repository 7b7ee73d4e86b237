"""Tensors by name, type and shape, and their bytes. Types have TensorRT's names in lower case."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from loadtrt.errors import EngineError, UsageError
from loadtrt.printing import shortened

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    # One array for each tensor of a request, by name: of the tensor's shape in numpy's or ml_dtypes' type; sub-byte
    # types as packed bytes, uint8 [nbytes].
    Arrays: TypeAlias = Mapping[str, npt.NDArray[Any]]

# name: (bits, name in numpy, or in ml_dtypes where numpy lacks the type). Sub-byte types are packed, two int4 a byte.
DTYPES: dict[str, tuple[int, str]] = {
    "fp32": (32, "float32"),
    "fp16": (16, "float16"),
    "bf16": (16, "bfloat16"),
    "fp8": (8, "float8_e4m3fn"),
    "e8m0": (8, "float8_e8m0fnu"),
    "fp64": (64, "float64"),
    "int64": (64, "int64"),
    "int32": (32, "int32"),
    "int16": (16, "int16"),
    "int8": (8, "int8"),
    "uint64": (64, "uint64"),
    "uint32": (32, "uint32"),
    "uint16": (16, "uint16"),
    "uint8": (8, "uint8"),
    "bool": (8, "bool"),
    "int4": (4, "int4"),
    "fp4": (4, "float4_e2m1fn"),
}
STRING = "string"  # of ONNX: numpy has Python objects, whose own bytes are counted as pointers alone
# Names in ONNX, TensorRT, its engine inspector and ONNX Runtime's profiler, in lower case.
DTYPE_NAMES = {name: name for name in DTYPES} | {
    "float": "fp32",
    "half": "fp16",
    "float16": "fp16",
    "bfloat16": "bf16",
    "double": "fp64",
    "e4m3": "fp8",
    "float8e4m3fn": "fp8",
    "float8e8m0": "e8m0",
    "float4e2m1": "fp4",
}
_MOST_BYTES = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output.

    name: name of the tensor.
    is_input: whether the tensor is an input.
    dtype: type, a key of DTYPES.
    shape: dimensions, -1 where the shape is open.
    nbytes: size of the buffer.
    shape_values: whether the tensor is in host memory and its values decide the shapes of other tensors.
    rows: of the table that the values of an input index; None where they index none.
    mode: a number with which the model compares an input to choose a branch; None for others.
    """

    name: str
    is_input: bool
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    shape_values: bool = False
    rows: int | None = None
    mode: int | None = None

    def __str__(self) -> str:
        sizes = ",".join("?" if size < 0 else str(size) for size in self.shape)
        return f"{shortened(self.name)} {self.dtype}[{shortened(sizes)}]"


def largest_of(parts: Sequence[Sequence[TensorSpec]]) -> int:
    """Index of the list of tensors with the most bytes of inputs, the last of equal ones."""
    sizes = [sum(spec.nbytes for spec in tensors if spec.is_input) for tensors in parts]
    return max(range(len(parts)), key=lambda part: (sizes[part], part))


def dtype_named(name: str) -> str:
    """loadtrt's name of a type by any of its names; an unknown name in lower case."""
    return DTYPE_NAMES.get(name.lower(), name.lower())


def bits_of(dtype: str) -> int:
    """Bits of one element. Raises UsageError for a type that loadtrt does not know."""
    if dtype == STRING:
        return 64
    if dtype not in DTYPES:
        raise UsageError(f"tensor type '{dtype}' is not supported: use one of {', '.join(DTYPES)}")
    return DTYPES[dtype][0]


def bytes_of(dtype: str, shape: tuple[int, ...]) -> int:
    """ceil(elements × bits / 8) for a shape without -1. Raises EngineError for what no machine can address."""
    nbytes = -(-math.prod(shape) * bits_of(dtype) // 8)
    if nbytes > _MOST_BYTES:
        sizes = shortened(",".join(map(str, shape)))
        raise EngineError(f"a tensor of {dtype}[{sizes}] has more bytes than any memory: make it smaller")
    return nbytes


def in_numpy(dtype: str) -> bool:
    """Whether numpy itself has the type, without ml_dtypes."""
    import numpy as np

    if dtype in (STRING, "bool"):  # numpy 1 warns of whoever asks for np.bool
        return True
    return dtype in DTYPES and hasattr(np, DTYPES[dtype][1])


def numpy_dtype(dtype: str) -> np.dtype:
    """numpy's (or ml_dtypes') type of one element; uint8 for sub-byte types, which are handled as packed bytes."""
    import numpy as np

    if dtype == STRING:
        return np.dtype("object")
    bits, name = bits_of(dtype), DTYPES[dtype][1]
    if bits < 8:
        return np.dtype("uint8")
    if in_numpy(dtype):
        return np.dtype(name)
    import ml_dtypes

    kind: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
    return kind
