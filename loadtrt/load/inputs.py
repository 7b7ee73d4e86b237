"""What requests carry: input sets, drawn at random, all zeros, or read from files."""

from __future__ import annotations

import io
import math
import os
import warnings
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

from loadtrt.errors import EngineError, LoadtrtError, UsageError, nearest
from loadtrt.load.tensors import DTYPES, bits_of, bytes_of, numpy_dtype
from loadtrt.printing import shortened
from loadtrt.reading_files import open_file
from loadtrt.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from loadtrt.load.tensors import Arrays, TensorSpec

_ARRAY_BYTES = 400  # of an array's and a set's Python objects
_GENERATOR_BYTES = 1 << 13  # of what draws
_MOST_SETS = 100_000
_MOST_HEADER_BYTES = 1 << 16  # numpy takes headers of 10 000


def make_inputs(
    tensors: Sequence[TensorSpec],
    sources: Sequence[str],
    sets: int,
    ranges: Mapping[str, tuple[float, float]],
    seed: int,
    free_bytes: int | None = None,
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

    free_bytes: memory that the inputs and the drawing of them may take; None for no bound.

    Raises UsageError for every source, tensor name, type, shape, size or range that does not fit, and EngineError for
    inputs that need more memory, before any is taken.
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
    one_set = sum(bytes_of(tensor.dtype, tensor.shape) for tensor in inputs.values())
    if "random" in kinds:
        drawing = max(map(_drawing_bytes, inputs.values()), default=0) + _GENERATOR_BYTES
        _require_room(sets * (one_set + len(inputs) * _ARRAY_BYTES) + drawing, free_bytes)
        # A stream of its own: the arrivals draw from the same seed.
        random = np.random.default_rng([seed, *b"inputs"])
        return [
            {name: _random(tensor, ranges.get(name), random) for name, tensor in inputs.items()} for _ in range(sets)
        ]
    if "zeros" in kinds:
        _require_room(one_set, free_bytes)
        return [{name: np.zeros(_array_shape(tensor), numpy_dtype(tensor.dtype)) for name, tensor in inputs.items()}]
    return _from_files(inputs, sources, free_bytes)


def _require_room(needed: int, free_bytes: int | None) -> None:
    """Raise EngineError where inputs of so many bytes do not fit into what is free."""
    if free_bytes is not None and needed > free_bytes:
        raise EngineError(
            f"the inputs need {format_bytes(needed)} of memory and {format_bytes(free_bytes)} is free: use a smaller "
            "--batch or --shapes, or fewer --input-sets"
        )


def _array_shape(tensor: TensorSpec) -> tuple[int, ...]:
    return tensor.shape if bits_of(tensor.dtype) >= 8 else (tensor.nbytes,)


def _random(tensor: TensorSpec, limits: tuple[float, float] | None, random: np.random.Generator) -> npt.NDArray[Any]:
    kind, shape = numpy_dtype(tensor.dtype), _array_shape(tensor)
    low, high = _default_range(tensor.dtype) if limits is None else _checked(tensor, limits)
    if _is_float(tensor.dtype):
        draw = np.float64 if tensor.dtype == "fp64" else np.float32
        part = random.random(shape, draw)
        drawn = 1 - part
        drawn *= draw(low)  # high - low might overflow
        part *= draw(high)
        drawn += part
        return drawn.astype(kind, copy=False)
    whole = np.dtype("uint8") if tensor.dtype == "bool" else kind
    return random.integers(math.ceil(low), math.floor(high), shape, whole, endpoint=True).astype(kind, copy=False)


def _drawing_bytes(tensor: TensorSpec) -> int:
    """Memory that `_random` takes beside the array that it returns."""
    if not _is_float(tensor.dtype):
        per_element = 1 if tensor.dtype == "bool" else 0
    else:
        per_element = 4 if tensor.dtype == "fp32" else 8  # a float64, or two float32 that are cast
    return per_element * math.prod(tensor.shape)


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


def _from_files(inputs: Mapping[str, TensorSpec], sources: Sequence[str], free_bytes: int | None) -> list[Arrays]:
    arrays_of: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in inputs}
    held = 0
    for source in sources:
        # Tensor names may contain colons ("input:0"): the longest name that fits is meant.
        names = [name for name in inputs if source.startswith(f"{name}:")]
        room = None if free_bytes is None else free_bytes - held
        if names:
            name = max(names, key=len)
            arrays_of[name].append(_raw(inputs[name], source[len(name) + 1 :], room))
            held += inputs[name].nbytes
        elif source.endswith(".npz"):
            for name, arrays in _npz(inputs, source, room).items():
                arrays_of[name].extend(arrays)
                held += sum(array.nbytes for array in arrays)
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


def _raw(tensor: TensorSpec, file: str, free_bytes: int | None) -> npt.NDArray[Any]:
    with open_file(file, f"input {tensor.name}", pipes=True, takes=None) as opened:
        _require_room(tensor.nbytes, free_bytes)
        try:
            data = opened.read(tensor.nbytes + 1)
            held = max(len(data), os.fstat(opened.fileno()).st_size)
        except OSError as error:
            raise UsageError(f"cannot read input {tensor.name} {file}: {error.strerror}") from None
    if held != tensor.nbytes:
        raise UsageError(f"{file} has {held} bytes; input {tensor} takes {tensor.nbytes}")
    return np.frombuffer(data, numpy_dtype(tensor.dtype)).reshape(_array_shape(tensor))


def _npz(inputs: Mapping[str, TensorSpec], file: str, free_bytes: int | None) -> dict[str, list[npt.NDArray[Any]]]:
    """The arrays of an .npz by tensor, the same number for each. Each array's header is read and judged before its
    data, which may be made to grow a thousandfold."""
    sets: dict[str, list[npt.NDArray[Any]]] = {}
    with open_file(file, "inputs", takes=("zip", "npy")) as opened, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numpy, about files that Python 2 wrote
        try:
            if not zipfile.is_zipfile(opened):
                raise UsageError(  # noqa: TRY301  # what follows raises others
                    f"{file} is not an .npz: write one with numpy.savez(file, NAME=array)"
                )
            with zipfile.ZipFile(opened) as archive:
                for member in archive.infolist():
                    tensor = _tensor(member.filename.removesuffix(".npy"), inputs, file)
                    with archive.open(member) as data:
                        shape, dtype = _header(data.read(_MOST_HEADER_BYTES))
                    count = _require_fits(tensor, shape, dtype, file)
                    _require_room(bytes_of(tensor.dtype, tensor.shape) * count, free_bytes)
                    with archive.open(member) as data:
                        array = np.lib.format.read_array(data, allow_pickle=False)
                    array = np.asarray(array, order="C").view(numpy_dtype(tensor.dtype))
                    whole = array.shape == _array_shape(tensor)
                    sets[tensor.name] = [array] if whole else [np.asarray(item) for item in array]
                    if free_bytes is not None:
                        free_bytes -= array.nbytes
        except (LoadtrtError, MemoryError):
            raise
        except Exception as error:  # zipfile and numpy let a dozen types pass for what is damaged or encrypted
            raise UsageError(f"{file} is damaged or not an .npz: {' '.join(str(error).split())}") from None
    count = max((len(items) for items in sets.values()), default=0)
    for name, items in sets.items():
        if len(items) not in (1, count):
            raise UsageError(
                f"{file} holds {len(items)} sets of {name} but {count} of another input: give as many, or 1"
            )
    return {name: items * (count if len(items) == 1 else 1) for name, items in sets.items()}


def _header(data: bytes) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """(shape, type) of an .npy by its first bytes. Raises ValueError, and what numpy lets pass."""
    head = io.BytesIO(data)
    version = np.lib.format.read_magic(head)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(head)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(head)
    else:
        raise ValueError(f"version {version[0]}.{version[1]} of the .npy format is not supported")
    return shape, dtype


def _require_fits(tensor: TensorSpec, shape: tuple[int, ...], dtype: np.dtype[Any], file: str) -> int:
    """The number of sets in an array of this shape and type. Raises UsageError where it holds none of the tensor."""
    kind, wanted = numpy_dtype(tensor.dtype), _array_shape(tensor)
    if dtype != kind and not (dtype.kind == kind.kind == "V" and dtype.itemsize == kind.itemsize):
        raise UsageError(
            f"{file} holds {tensor.name} as {shortened(str(dtype))}; input {tensor} needs {kind}: convert it before "
            f"saving, with array.astype({str(kind)!r})"
        )
    if shape != wanted and (shape[1:] != wanted or shape[0] < 1):
        raise UsageError(
            f"{file} holds {tensor.name} with shape {shortened(str(list(shape)))}; input {tensor} needs "
            f"{shortened(str(list(wanted)))}, or that with the number of sets in front"
        )
    count = 1 if shape == wanted else shape[0]
    if count > _MOST_SETS:
        raise UsageError(f"{file} holds {count} sets of {tensor.name}: give at most {_MOST_SETS}")
    return count
