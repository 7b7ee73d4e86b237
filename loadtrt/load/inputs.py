"""What requests carry: input sets, drawn at random, all zeros, or read from files."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from loadtrt.errors import EngineError, UsageError, nearest
from loadtrt.load.tensors import DTYPES, STRING, bits_of, bytes_of, numpy_dtype
from loadtrt.printing import shortened
from loadtrt.units import format_bytes, plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from loadtrt.load.tensors import Arrays, TensorSpec

_ARRAY_BYTES = 400  # of an array's and a set's Python objects
_GENERATOR_BYTES = 1 << 13  # of what draws
_WORDS = ("a", "load", "tester", "sends", "short", "words", "of", "text", "to", "models", "that", "read", "them", "all")


@dataclass(frozen=True, slots=True)
class InputOrigin:
    """Where the values of an input come from.

    kind: drawn at random, zeros, or read from files.
    sets: number of different arrays; requests take them in turn, and one that there is alone goes with every request.
    seed: of random values.
    low, high: the range of random numbers; None for other kinds, for text and for packed types.
    rows: of the table that the values index, which bounds the range; None without.
    files: (file, number of arrays in it), in the order of the sets; items of a batch each count.
    """

    kind: Literal["random", "zeros", "files"]
    sets: int
    seed: int | None = None
    low: float | None = None
    high: float | None = None
    rows: int | None = None
    files: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class InputSets:
    """The input sets of requests.

    sets: each one array for each tensor.
    origins: by tensor.
    notes: what the user should read.
    """

    sets: Sequence[Arrays]
    origins: Mapping[str, InputOrigin] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def make_inputs(
    tensors: Sequence[TensorSpec],
    sources: Sequence[str],
    sets: int,
    ranges: Mapping[str, tuple[float, float]],
    seed: int,
    free_bytes: int | None = None,
) -> list[Arrays]:
    """The sets of `make_input_sets`."""
    return list(make_input_sets(tensors, sources, sets, ranges, seed, free_bytes).sets)


def make_input_sets(
    tensors: Sequence[TensorSpec],
    sources: Sequence[str],
    sets: int,
    ranges: Mapping[str, tuple[float, float]],
    seed: int,
    free_bytes: int | None = None,
    batch: int | None = None,
) -> InputSets:
    """Input sets for the inputs among `tensors` (those that carry shapes excepted): each set one array for each tensor.

    `sources` is one of
      - ("random",): `sets` different sets, the same for the same seed. Floats are uniform in [-1, 1] (e8m0, which has
        neither sign nor zero, in [0.5, 2]); int8 covers [-128, 127], uint8 [0, 255]; wider integers, mostly indices and
        token numbers, [0, 9]; what indexes a table no more than its rows, and what chooses a branch of the model the
        number that it is compared with; bool is 0 or 1; int4 and fp4 take every bit pattern; text is short words.
        `ranges[name]` is the lowest and highest value instead, both included (floats: before rounding to the type).
      - ("zeros",): one set; text is empty.
      - files and folders, which together must cover every input: see load/input_files.py.

    free_bytes: memory that the inputs and the drawing of them may take; None for no bound.
    batch: the first size of the inputs that have one for each inference; their arrays may come without it.

    Raises UsageError for every source, tensor name, type, shape, size or range that does not fit, and EngineError for
    inputs that need more memory, before any is taken.
    """
    inputs = {tensor.name: tensor for tensor in tensors if tensor.is_input and not tensor.shape_values}
    for tensor in inputs.values():
        if min(tensor.shape, default=0) < 0:
            raise UsageError(f"the shape of input {tensor} is open: add --batch or --shapes")
    for name in ranges:
        named_tensor(name, inputs, "--input-range")
    kinds = {"random", "zeros"}.intersection(sources)
    if kinds and len(sources) > 1:
        raise UsageError(f"--inputs {' '.join(sources)}: use '{min(kinds)}' alone, or files for every input")
    if ranges and "random" not in kinds:
        raise UsageError(f"--input-range {min(ranges)} has no effect here: use it with random inputs")
    one_set = sum(bytes_of(tensor.dtype, tensor.shape) for tensor in inputs.values())
    if "random" in kinds:
        drawing = max(map(_drawing_bytes, inputs.values()), default=0) + _GENERATOR_BYTES
        require_room(sets * (one_set + len(inputs) * _ARRAY_BYTES) + drawing, free_bytes)
        limits = {name: _limits(tensor, ranges.get(name)) for name, tensor in inputs.items()}
        # A stream of its own: the arrivals draw from the same seed.
        random = np.random.default_rng([seed, *b"inputs"])
        drawn: list[Arrays] = [
            {name: _random(tensor, *limits[name], random) for name, tensor in inputs.items()} for _ in range(sets)
        ]
        origins = {name: _drawn_from(tensor, sets, seed, *limits[name]) for name, tensor in inputs.items()}
        return InputSets(drawn, origins, tuple(_bounds(inputs.values(), ranges)))
    if "zeros" in kinds:
        require_room(one_set, free_bytes)
        zeros = {
            name: np.full(array_shape(tensor), "" if tensor.dtype == STRING else 0, numpy_dtype(tensor.dtype))
            for name, tensor in inputs.items()
        }
        return InputSets([zeros], {name: InputOrigin("zeros", 1) for name in inputs})
    from loadtrt.load.input_files import read_inputs

    return read_inputs(inputs, sources, free_bytes, batch)


def require_room(needed: int, free_bytes: int | None) -> None:
    """Raise EngineError where inputs of so many bytes do not fit into what is free."""
    if free_bytes is not None and needed > free_bytes:
        raise EngineError(
            f"the inputs need {format_bytes(needed)} of memory and {format_bytes(free_bytes)} is free: use a smaller "
            "--batch or --shapes, or fewer --input-sets"
        )


def named_tensor(name: str, inputs: Mapping[str, TensorSpec], where: str) -> TensorSpec:
    """The input of this name. Raises UsageError where there is none."""
    if name not in inputs:
        hint = nearest(name, inputs, f"the inputs are {', '.join(inputs) or 'none'}")
        raise UsageError(f"{where}: the engine has no input '{name}': {hint}")
    return inputs[name]


def array_shape(tensor: TensorSpec) -> tuple[int, ...]:
    """The shape of a tensor's array: packed bytes for types of less than one."""
    return tensor.shape if bits_of(tensor.dtype) >= 8 else (tensor.nbytes,)


def _random(tensor: TensorSpec, low: float, high: float, random: np.random.Generator) -> npt.NDArray[Any]:
    kind, shape = numpy_dtype(tensor.dtype), array_shape(tensor)
    if tensor.dtype == STRING:
        return np.asarray(random.choice(np.array(_WORDS, kind), shape), kind)
    if is_float(tensor.dtype):
        draw = np.float64 if tensor.dtype == "fp64" else np.float32
        part: npt.NDArray[Any] = np.asarray(random.random(shape, draw))  # a number where the tensor has no dimensions
        drawn: npt.NDArray[Any] = np.asarray(1 - part)
        drawn *= draw(low)  # high - low might overflow
        part *= draw(high)
        drawn += part
        return drawn.astype(kind, copy=False)
    whole = np.dtype("uint8") if tensor.dtype == "bool" else kind
    numbers = random.integers(math.ceil(low), math.floor(high), shape, whole, endpoint=True)
    return np.asarray(numbers).astype(kind, copy=False)


def _drawing_bytes(tensor: TensorSpec) -> int:
    """Memory that `_random` takes beside the array that it returns."""
    if tensor.dtype == STRING:
        per_element = 16  # places in the words, and their sum
    elif not is_float(tensor.dtype):
        per_element = 1 if tensor.dtype == "bool" else 0
    else:
        per_element = 4 if tensor.dtype == "fp32" else 8  # a float64, or two float32 that are cast
    return per_element * math.prod(tensor.shape)


def _limits(tensor: TensorSpec, asked: tuple[float, float] | None) -> tuple[float, float]:
    """The range of random numbers; without --input-range no more than the rows of the table that they index."""
    if asked is not None:
        return _checked(tensor, asked)
    low, high = _default_range(tensor.dtype)
    if tensor.mode is not None and _limits_of(tensor.dtype)[0] <= tensor.mode <= _limits_of(tensor.dtype)[1]:
        return tensor.mode, tensor.mode
    if tensor.rows is None or is_float(tensor.dtype):
        return low, high
    return max(low, 0), min(high, tensor.rows - 1)


def _bounds(inputs: Iterable[TensorSpec], ranges: Mapping[str, object]) -> Iterator[str]:
    """Which random numbers the model bounds."""
    for tensor in inputs:
        if tensor.name not in ranges and _limits(tensor, None) != _default_range(tensor.dtype):
            low, high = _limits(tensor, None)
            why = f"they index a table of {plural(tensor.rows or 0, 'row')}"
            if tensor.mode is not None:
                why = "the model compares it with that to choose a branch"
            values = f"{low:.0f}" if low == high else f"{low:.0f}..{high:.0f}"
            name = shortened(tensor.name)
            yield f"random values of {name} are {values}, as {why} (--input-range {name}:LOW..HIGH overrides this)"


def _drawn_from(tensor: TensorSpec, sets: int, seed: int, low: float, high: float) -> InputOrigin:
    if tensor.dtype == STRING or bits_of(tensor.dtype) < 8:
        return InputOrigin("random", sets, seed)
    return InputOrigin("random", sets, seed, low, high, tensor.rows)


def _default_range(dtype: str) -> tuple[float, float]:
    match dtype:
        case "int8":
            return -128, 127
        case "uint8" | "int4" | "fp4":  # the last two as packed bytes
            return 0, 255
        case "bool" | "string":
            return 0, 1
        case "e8m0":
            return 0.5, 2.0
        case _:
            return (-1.0, 1.0) if is_float(dtype) else (0, 9)


def _checked(tensor: TensorSpec, limits: tuple[float, float]) -> tuple[float, float]:
    """`limits`. Raises UsageError where the tensor's type has no value between them."""
    low, high = limits
    where = f"--input-range {tensor.name}:{low:g}..{high:g}"
    if bits_of(tensor.dtype) < 8:
        raise UsageError(f"{where}: {tensor.dtype} takes no range, as its random bytes take every bit pattern")
    if tensor.dtype == STRING:
        raise UsageError(f"{where}: {tensor.name} takes text, which has no range: give a file of it to --inputs")
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise UsageError(f"{where}: write the lower limit first, both finite")
    least, most = _limits_of(tensor.dtype)
    if low < least or high > most:
        raise UsageError(f"{where}: {tensor.dtype} holds {least:g} to {most:g}")
    if not is_float(tensor.dtype) and math.ceil(low) > math.floor(high):
        raise UsageError(f"{where}: the range contains no whole number, and the tensor is {tensor.dtype}")
    return low, high


def _limits_of(dtype: str) -> tuple[float, float]:
    if dtype == "bool":
        return 0, 1
    if not is_float(dtype):
        whole = np.iinfo(numpy_dtype(dtype))
        return int(whole.min), int(whole.max)
    import ml_dtypes

    real = ml_dtypes.finfo(numpy_dtype(dtype))  # type: ignore[no-untyped-call]
    return float(real.min), float(real.max)


def is_float(dtype: str) -> bool:
    """Whether it is a type of real numbers of a byte or more."""
    return dtype != STRING and DTYPES[dtype][1].startswith(("float", "bfloat")) and bits_of(dtype) >= 8
