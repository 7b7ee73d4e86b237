"""How many inferences are in one request: by what the user says, else by what the model says, else one. Pure.

1. --inferences-per-request N, else --batch N.
2. A size that the model calls a batch: "batch" and the like wherever it stands, N and B in front of other sizes.
3. The first size that inputs leave open, where they agree and no output contradicts. Sizes that have another name
   (samples, num_nodes), the only size of an input, and images without a batch (height, width, colours) are none.
4. The first size that the engine fixes, where all inputs and outputs have it, and it looks like one: in front of
   images, or small, found nowhere else, and with outputs of other sizes than the inputs.
5. One: other fixed sizes say nothing of a batch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadtrt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadtrt.engines.shapes import InputShape, Shape

# Exporters write these for a size without a name: each is a size of its own.
_NO_NAMES = {"", "?", "*", "_", "none", "null", "nan", "any", "dynamic", "dyn", "unk", "unknown", "undefined", "dim"}
_BATCH = re.compile(r"((\w+[_./ ])?n?|mini_?|micro_?)batch([_ ]?(size|dim|axis|num|no|n))?(_?\d+)?", re.IGNORECASE)
_LETTER = re.compile(r"[NB]_?\d*|bsz?|b|n", re.ASCII)
# Names that exporters make up: unk__12, s0, dynamic_axes_1, Addy_dim_0, y__d0.
_MADE_UP = re.compile(r"unk_*\d+|[su]\d+|DynamicDimension\W?\d+|(\w+[_.])?(dim|axis|axes|d)[_.]?\d+", re.IGNORECASE)
_COLOURS = (1, 3, 4)
_LEAST_SIDE = 16  # of an image: smaller ones may be anything
_MOST_FIXED = 256  # a larger first size that an engine fixes is hardly its batch


@dataclass(frozen=True, slots=True)
class BatchSize:
    """Inferences in one request.

    reason: why, in words that follow "batch N: ".
    guessed: whether the user should read the reason, as neither an option nor a size of 1 everywhere says so.
    known: whether anything says so.
    """

    size: int
    reason: str
    guessed: bool = False
    known: bool = True

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should read."""
        said = f"batch {self.size}: {self.reason} (--inferences-per-request N overrides this)"
        return (said,) if self.guessed else ()


ONE = BatchSize(1, "no input has a first size above 1", known=False)


def is_name(symbol: str) -> bool:
    """Whether a model's text for a size names it, so that the same text elsewhere is the same size."""
    return symbol.strip().lower() not in _NO_NAMES and any(sign.isalpha() for sign in symbol)


def is_batch(symbol: str, axis: int, rank: int = 2) -> bool:
    """Whether a size of this name, at this place of a shape of so many sizes, is a batch."""
    return bool(_BATCH.fullmatch(symbol)) or (axis == 0 and rank > 1 and bool(_LETTER.fullmatch(symbol)))


def is_other(symbol: str) -> bool:
    """Whether the name is one of a size that is no batch, such as samples or num_nodes."""
    return is_name(symbol) and not any(form.fullmatch(symbol) for form in (_BATCH, _LETTER, _MADE_UP))


def named_batches(inputs: Sequence[InputShape]) -> set[str]:
    """The model's own names of a batch that say so wherever they stand."""
    return {symbol for item in inputs for symbol in item.symbols if _BATCH.fullmatch(symbol)}


def is_filled(item: InputShape, axis: int, names: set[str]) -> bool:
    """Whether --batch decides an open size. names: see `named_batches`."""
    symbol = item.symbols[axis] if item.symbols else ""
    if not item.batched:
        return False
    return symbol in names or (axis == 0 and not (names and is_other(symbol)))


def batch_size(
    inputs: Sequence[InputShape],
    shapes: Mapping[str, Shape],
    outputs: Sequence[InputShape],
    *,
    batch: int | None,
    inferences: int | None,
) -> BatchSize:
    """The inferences in one request.

    inputs, outputs: as the engine has them; an output's size is -1 where it is not known.
    shapes: the decided shape of each input.
    """
    if inferences is not None:
        return BatchSize(inferences, "--inferences-per-request")
    if batch is not None:
        return BatchSize(batch, "the size asked for")
    sized = [item for item in inputs if item.batched and shapes[item.name]]
    return _by_name(sized, shapes) or _by_first_sizes(sized, shapes, outputs)


def require_agreement(inputs: Sequence[InputShape], shapes: Mapping[str, Shape], batch: int) -> None:
    """--batch is a size that an input has. 1 is always right: then one request is one inference. Raises UsageError."""
    sized = [item for item in inputs if item.batched and shapes[item.name]]
    names = named_batches(sized)
    filled = {
        shapes[item.name][axis]
        for item in sized
        for axis, size in enumerate(item.shape)
        if size < 0 and is_filled(item, axis, names)
    }
    sizes = filled or {shapes[item.name][0] for item in sized}
    if batch == 1 or batch in sizes:
        return
    seen = ", ".join(_shown(item.name, shapes[item.name]) for item in sized)
    fixed = "" if filled else ", fixed when the engine was made"
    remedy = "make them agree" if filled else "ask for none, or make an engine that leaves one open"
    first = next((item.name for item in sized if item.shape[0] < 0 and is_filled(item, 0, names)), None)
    if first is not None:
        remedy += (
            f", or in a run write N for the batch: --shapes {first}:{'x'.join(map(str, ('N', *shapes[first][1:])))}"
        )
    raise UsageError(
        f"batch {batch} contradicts the inputs' first sizes ({seen or 'none'}{fixed}): {remedy}; "
        "to change only how inferences are counted, use loadtrt run --inferences-per-request N"
    )


def _by_name(sized: Sequence[InputShape], shapes: Mapping[str, Shape]) -> BatchSize | None:
    """The size that the model calls a batch; None where it calls none so."""
    names = named_batches(sized)
    found: dict[int, str] = {}
    for item in sized:
        for axis, symbol in enumerate(item.symbols):
            if symbol in names if names else is_batch(symbol, axis, len(item.symbols)):
                found.setdefault(shapes[item.name][axis], f"'{symbol}' of {item.name}")
    if len(found) > 1:
        sizes = " and ".join(f"{where} is {size}" for size, where in found.items())
        return BatchSize(1, f"the model has several sizes that are named as a batch, {sizes}", guessed=True)
    for size, where in found.items():
        return BatchSize(max(size, 1), f"size {where}", guessed=size > 1 and not names)
    return None


def _by_first_sizes(
    sized: Sequence[InputShape], shapes: Mapping[str, Shape], outputs: Sequence[InputShape]
) -> BatchSize:
    """The first size that inputs and outputs share, or 1 and why. Where inputs leave theirs open, these alone count."""
    left_open = [item for item in sized if item.shape[0] < 0]
    having = [item for item in left_open or sized if shapes[item.name][0] != 1]
    firsts = {shapes[item.name][0] for item in having}
    names = " and ".join(item.name for item in having)
    if not firsts:
        return ONE
    if len(firsts) > 1:
        seen = ", ".join(_shown(item.name, shapes[item.name]) for item in having)
        return _one(f"the inputs differ in their first size ({seen})")
    (first,) = firsts
    for item in having:
        shape = shapes[item.name]
        if item.symbols and is_other(item.symbols[0]):
            return _one(f"the first size of {item.name} is its '{item.symbols[0]}'")
        no_open_batch = item.shape[0] >= 0 or item.shape[1:2] == (-1,)
        if no_open_batch and _is_image(shape, item.dtype, outputs):
            return _one(f"{_shown(item.name, shape)} looks like one image")
    if all(len(shapes[item.name]) == 1 for item in having):
        return _one(f"{names} has no size but the first")
    if left_open:
        others = [item for item in outputs if item.shape and item.shape[0] not in (-1, 1, first)]
        if not others and not any(item.shape[:1] in ((-1,), (first,)) for item in outputs):
            others = [item for item in outputs if item.shape]
        if others:
            return _one(f"output {_shown(others[0].name, others[0].shape)} has another first size than {names}")
        return BatchSize(max(first, 1), f"the first size of {names}, which the engine leaves open", guessed=True)
    # A single number, such as a scale, says nothing.
    counted = {item.name: shapes[item.name] for item in sized if set(shapes[item.name]) != {1}}
    if doubt := _doubt(first, counted, outputs):
        return _one(doubt)
    return BatchSize(max(first, 1), f"the first size that {names} and {_sharing(first, outputs)} share", guessed=True)


def _doubt(first: int, inputs: Mapping[str, Shape], outputs: Sequence[InputShape]) -> str:
    """Why a first size that the engine fixes is no batch; "" where it looks like one."""
    known = [item for item in outputs if item.shape and item.shape[0] >= 0]
    shapes = [*inputs.items(), *((item.name, item.shape) for item in known)]
    other = next((_shown(name, shape) for name, shape in shapes if shape[0] != first), None)
    if other:
        return f"{other} has another first size than {first}"
    if not known:
        return f"no output is known to have the first size of {' and '.join(inputs)}, {first}"
    if any(map(_are_images, inputs.values())):
        return ""
    if first > _MOST_FIXED:
        return f"the engine fixes the first size, {first}, which is large for a batch"
    for name, shape in shapes:
        if len(shape) == 1:
            return f"{_shown(name, shape)} has no size but the first"
        if first in shape[1:] and (name in inputs or len(inputs) == 1):  # an output may have as many classes
            return f"{_shown(name, shape)} has the size {first} twice"
    same = next((item for item in outputs if item.shape in inputs.values()), None)
    return f"output {_shown(same.name, same.shape)} is as large as an input" if same else ""


def _are_images(shape: Shape) -> bool:
    """Whether a shape is that of a batch of images: colours first or last, in front of them the batch."""
    if len(shape) != 4:
        return False
    return any(shape[at] in _COLOURS and min(sides) > max(_COLOURS) for at, sides in ((1, shape[2:]), (3, shape[1:3])))


def _sharing(first: int, outputs: Sequence[InputShape]) -> str:
    return next(item.name for item in outputs if item.shape[:1] == (first,))


def _one(why: str) -> BatchSize:
    return BatchSize(1, f"one request is one inference, as {why}", guessed=True, known=False)


def _is_image(shape: Shape, dtype: str, outputs: Sequence[InputShape]) -> bool:
    """Whether a shape is that of one image: height, width and colours, or colours first, or bytes without colours. Not
    where an output has the first of these sizes without the second: it is no map of that image."""
    if any(item.shape[:1] == shape[:1] and item.shape[:2] != shape[:2] for item in outputs):
        return False
    sides: Shape = ()
    if len(shape) == 3:
        sides = shape[:2] if shape[2] in _COLOURS else shape[1:] if shape[0] in _COLOURS else ()
    elif dtype == "uint8" and len(shape) == 2:
        sides = shape
    return min(sides, default=0) >= _LEAST_SIDE


def _shown(name: str, shape: Sequence[int]) -> str:
    return f"{name} [{','.join('?' if size < 0 else str(size) for size in shape)}]"
