"""What requests carry: input sets, drawn at random, all zeros, or read from files."""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from loadtrt.errors import UsageError, nearest
from loadtrt.load.tensors import DTYPES, bits_of, numpy_dtype

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from loadtrt.load.tensors import Arrays, TensorSpec


def make_inputs(
    tensors: Sequence[TensorSpec],
    sources: Sequence[str],
    sets: int,
    ranges: Mapping[str, tuple[float, float]],
    seed: int,
) -> list[Arrays]:
    """Input sets for the inputs among `tensors` (those that carry shapes excepted): each set one array for each tensor.

    `sources` is one of
      - ("random",): `sets` different sets, the same for the same seed. Floats are uniform in [-1, 1] (e8m0, which has
        neither sign nor zero, in [0.5, 2]); int8 covers [-128, 127], uint8 [0, 255]; wider integers, mostly indices and
        token numbers, [0, 9], which few tables are too short for; bool is 0 or 1; int4 and fp4 take every bit pattern.
        `ranges[name]` is the lowest and highest value instead, both included (floats: before rounding to the type).
      - ("zeros",): one set.
      - files, which together must cover every input: `x.npz` with one array for each tensor name, whose shape is the
        tensor's, or the tensor's with one more axis in front for as many sets; `name:file` with the tensor's raw bytes
        (as trtexec's --loadInputs). Several files for one tensor are several sets; a tensor with one array serves all
        sets. Types must match exactly: a silent cast would measure other data than the file's. What numpy cannot name
        (bf16, fp8) it loads from an .npz as raw bytes of that width, which is taken as it is; sub-byte types are packed
        bytes, uint8 [nbytes].

    Raises UsageError for every source, tensor name, type, shape, size or range that does not fit.
    """
    inputs = {tensor.name: tensor for tensor in tensors if tensor.is_input and not tensor.shape_values}
    for tensor in inputs.values():
        if min(tensor.shape, default=0) < 0:
            raise UsageError(f"the shape of input {tensor} is open: add --batch or --shapes")
    for name in ranges:
        _tensor(name, inputs, "--input-range")
    kinds = {"random", "zeros"}.intersection(sources)
    if kinds and len(sources) > 1:
        raise UsageError(f"--inputs {' '.join(sources)}: use '{min(kinds)}' alone, or files for every input")
    if ranges and "random" not in kinds:
        raise UsageError(f"--input-range {min(ranges)} has no effect here: use it with random inputs")
    if "random" in kinds:
        # A stream of its own: the arrivals draw from the same seed.
        random = np.random.default_rng([seed, *b"inputs"])
        return [
            {name: _random(tensor, ranges.get(name), random) for name, tensor in inputs.items()} for _ in range(sets)
        ]
    if "zeros" in kinds:
        return [{name: np.zeros(_array_shape(tensor), numpy_dtype(tensor.dtype)) for name, tensor in inputs.items()}]
    return _from_files(inputs, sources)


def _array_shape(tensor: TensorSpec) -> tuple[int, ...]:
    return tensor.shape if bits_of(tensor.dtype) >= 8 else (tensor.nbytes,)


def _random(tensor: TensorSpec, limits: tuple[float, float] | None, random: np.random.Generator) -> npt.NDArray[Any]:
    kind, shape = numpy_dtype(tensor.dtype), _array_shape(tensor)
    low, high = _default_range(tensor.dtype) if limits is None else _checked(tensor, limits)
    if _is_float(tensor.dtype):
        draw = np.float64 if tensor.dtype == "fp64" else np.float32
        part = random.random(shape, draw)
        return (draw(low) * (1 - part) + draw(high) * part).astype(kind)  # high - low might overflow
    drawn = np.dtype("uint8") if tensor.dtype == "bool" else kind
    return random.integers(math.ceil(low), math.floor(high), shape, drawn, endpoint=True).astype(kind)


def _default_range(dtype: str) -> tuple[float, float]:
    match dtype:
        case "int8":
            return -128, 127
        case "uint8" | "int4" | "fp4":  # the last two as packed bytes
            return 0, 255
        case "bool":
            return 0, 1
        case "e8m0":
            return 0.5, 2.0
        case _:
            return (-1.0, 1.0) if _is_float(dtype) else (0, 9)


def _checked(tensor: TensorSpec, limits: tuple[float, float]) -> tuple[float, float]:
    """`limits`. Raises UsageError where the tensor's type has no value between them."""
    low, high = limits
    where = f"--input-range {tensor.name}:{low:g}..{high:g}"
    if bits_of(tensor.dtype) < 8:
        raise UsageError(f"{where}: {tensor.dtype} takes no range, as its random bytes take every bit pattern")
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise UsageError(f"{where}: write the lower limit first, both finite")
    least, most = _limits_of(tensor.dtype)
    if low < least or high > most:
        raise UsageError(f"{where}: {tensor.dtype} holds {least:g} to {most:g}")
    if not _is_float(tensor.dtype) and math.ceil(low) > math.floor(high):
        raise UsageError(f"{where}: the range contains no whole number, and the tensor is {tensor.dtype}")
    return low, high


def _limits_of(dtype: str) -> tuple[float, float]:
    if dtype == "bool":
        return 0, 1
    if not _is_float(dtype):
        whole = np.iinfo(numpy_dtype(dtype))
        return int(whole.min), int(whole.max)
    import ml_dtypes

    real = ml_dtypes.finfo(numpy_dtype(dtype))  # type: ignore[no-untyped-call]
    return float(real.min), float(real.max)


def _is_float(dtype: str) -> bool:
    return DTYPES[dtype][1].startswith(("float", "bfloat")) and bits_of(dtype) >= 8


def _from_files(inputs: Mapping[str, TensorSpec], sources: Sequence[str]) -> list[Arrays]:
    arrays_of: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in inputs}
    for source in sources:
        # Tensor names may contain colons ("input:0"): the longest name that fits is meant.
        names = [name for name in inputs if source.startswith(f"{name}:")]
        if names:
            name = max(names, key=len)
            arrays_of[name].append(_raw(inputs[name], Path(source[len(name) + 1 :])))
        elif source.endswith(".npz"):
            for name, arrays in _npz(inputs, Path(source)).items():
                arrays_of[name].extend(arrays)
        elif ":" in source:
            _tensor(source.partition(":")[0], inputs, f"--inputs {source}")
        else:
            raise UsageError(
                f"--inputs {source}: write random, zeros, a file that ends in .npz, or NAME:FILE with raw bytes"
            )
    counts = {name: len(arrays) for name, arrays in arrays_of.items()}
    sets = max(counts.values(), default=1)
    for name, count in counts.items():
        if count == 0:
            raise UsageError(
                f"--inputs {' '.join(sources)}: no file holds input {inputs[name]}: give files for every input"
            )
        if count not in (1, sets):
            most = max(counts, key=lambda item: counts[item])
            raise UsageError(
                f"--inputs {' '.join(sources)}: {count} arrays for {name} but {sets} for {most}: give as many, or 1"
            )
    return [{name: arrays[k % len(arrays)] for name, arrays in arrays_of.items()} for k in range(sets)]


def _tensor(name: str, inputs: Mapping[str, TensorSpec], where: str) -> TensorSpec:
    if name not in inputs:
        hint = nearest(name, inputs, f"the inputs are {', '.join(inputs) or 'none'}")
        raise UsageError(f"{where}: the engine has no input '{name}': {hint}")
    return inputs[name]


def _raw(tensor: TensorSpec, file: Path) -> npt.NDArray[Any]:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {file} for input {tensor.name}: {error.strerror}") from None
    if len(data) != tensor.nbytes:
        raise UsageError(f"{file} has {len(data)} bytes; input {tensor} takes {tensor.nbytes}")
    return np.frombuffer(data, numpy_dtype(tensor.dtype)).reshape(_array_shape(tensor))


def _npz(inputs: Mapping[str, TensorSpec], file: Path) -> dict[str, list[npt.NDArray[Any]]]:
    """The arrays of an .npz by tensor, the same number for each."""
    try:
        with file.open("rb") as opened:
            if not zipfile.is_zipfile(opened):
                raise UsageError(f"{file} is not an .npz: write one with numpy.savez(file, NAME=array)")
            opened.seek(0)
            with np.load(opened, allow_pickle=False) as content:
                arrays = {name: content[name] for name in content.files}
    except OSError as error:
        raise UsageError(f"cannot read inputs {file}: {error.strerror or error}") from None
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise UsageError(f"{file} is damaged or not an .npz: {' '.join(str(error).split())}") from None
    sets = {name: _sets_of(_tensor(name, inputs, str(file)), array, file) for name, array in arrays.items()}
    count = max((len(items) for items in sets.values()), default=0)
    for name, items in sets.items():
        if len(items) not in (1, count):
            raise UsageError(
                f"{file} holds {len(items)} sets of {name} but {count} of another input: give as many, or 1"
            )
    return {name: items * (count if len(items) == 1 else 1) for name, items in sets.items()}


def _sets_of(tensor: TensorSpec, array: npt.NDArray[Any], file: Path) -> list[npt.NDArray[Any]]:
    """One array of the tensor's shape for each set."""
    kind, shape = numpy_dtype(tensor.dtype), _array_shape(tensor)
    if array.dtype.kind == "V" and kind.kind == "V" and array.dtype.itemsize == kind.itemsize:
        array = array.view(kind)
    if array.dtype != kind:
        raise UsageError(
            f"{file} holds {tensor.name} as {array.dtype}; input {tensor} needs {kind}: convert it before saving, "
            f"with array.astype({str(kind)!r})"
        )
    if array.shape == shape:
        return [np.ascontiguousarray(array)]
    if array.shape[1:] == shape and len(array):
        return [np.ascontiguousarray(item) for item in array]
    raise UsageError(
        f"{file} holds {tensor.name} with shape {list(array.shape)}; input {tensor} needs {list(shape)}, "
        f"or that with the number of sets in front"
    )
