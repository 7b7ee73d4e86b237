"""From what an engine leaves open and what the user says to shapes without a -1. Pure; the same rules for all engines.

Sizes come from --batch and --shapes, from parts of --mix, from --batcher, or from a file that says the same: so what is
wrong is said of the size, and not of an option.

1. An input named in --shapes has exactly that shape; sizes that the engine fixes must agree.
2. --batch N is every size that the model calls a batch, and the first size of every other input that leaves its first
   size open; so it is of a shape of --shapes whose first size is -1, as the parts of mixes and batchers have it, and
   elsewhere the engine's own stands there.
3. A size that the model calls by a symbol is the same wherever the symbol stands: deciding it once decides it. What is
   no name ("?", "None", "-1") is a size of its own each time.
4. What is still open is an error, which names all of it: never a silent 1.
5. Where the engine has a range (an optimization profile), every size is within it.

How many inferences a request has, engines/batch_size.py decides.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from itertools import repeat
from typing import TYPE_CHECKING, TypeAlias

from loadtrt.engines.batch_size import is_filled, is_name, is_other, named_batches, require_agreement
from loadtrt.errors import UsageError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from loadtrt.asked.model import Model

    Shape = tuple[int, ...]
    Sizes: TypeAlias = "Model | FixedSizes"  # what decides the shapes of one kind of request


@dataclass(frozen=True, slots=True)
class FixedSizes:
    """Sizes of one kind of request, decided.

    batch: first size of the inputs that leave theirs open; None where there are none.
    inferences_per_request: None where the engine tells.
    shape_values: values of inputs that carry shapes.
    """

    batch: int | None = None
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    shape_values: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    optimization_profile: int = 0
    inferences_per_request: int | None = None


@dataclass(frozen=True, slots=True)
class InputShape:
    """One input, or output, as the engine has it.

    shape: -1 where a size is open.
    least, best, most: minimum, optimum and maximum of the profile, of `shape`'s length; None without a profile.
    batched: whether its first size can be the batch; False for a tensor whose values are a shape.
    symbols: the model's texts for its sizes, of `shape`'s length with "" for none; () without names.
    """

    name: str
    dtype: str
    shape: Shape
    least: Shape | None = None
    best: Shape | None = None
    most: Shape | None = None
    batched: bool = True
    symbols: tuple[str, ...] = ()

    def __str__(self) -> str:
        named = zip(self.shape, self.symbols or repeat(""), strict=False)
        sizes = ",".join(str(size) if size >= 0 else symbol or "?" for size, symbol in named)
        return f"{self.name} {self.dtype}[{sizes}]"


@dataclass(frozen=True, slots=True)
class Resolved:
    """Decided shapes.

    shapes: by input, without -1.
    """

    shapes: dict[str, Shape]
    symbols: dict[str, int]
    notes: tuple[str, ...] = ()


class OpenSizesError(UsageError):
    """Sizes that nothing decides.

    inputs: all of them.
    shapes: what is decided, by input, with -1 for what is not.
    by_batch: whether --batch would decide them all.
    """

    def __init__(
        self, inputs: Sequence[InputShape], shapes: Mapping[str, Shape], example: Mapping[str, Shape] | None = None
    ) -> None:
        """example: shapes with which the model runs."""
        left = [item for item in inputs if -1 in shapes[item.name]]
        names = named_batches(inputs)
        self.inputs, self.shapes = inputs, shapes
        self.by_batch = all(
            size >= 0 or (is_filled(item, axis, names) and not is_other("".join(item.symbols[axis : axis + 1])))
            for item in left
            for axis, size in enumerate(shapes[item.name])
        )
        super().__init__(f"{_still_open(left, shapes)}: {self._remedy(left, example)}")

    def _remedy(self, left: Sequence[InputShape], example: Mapping[str, Shape] | None) -> str:
        ranges = [
            f"dimension {axis}{f' of {item.name}' if len(left) > 1 else ''} takes {_range(item, axis)}"
            for item in left
            for axis, size in enumerate(self.shapes[item.name])
            if size < 0 and item.least
        ]
        hint = f" ({', '.join(ranges)})" if ranges else ""
        if self.by_batch:
            return f"add --batch N{hint}"
        if example is not None:
            shown, of = {item.name: _x(example[item.name]) for item in left}, " (the model runs with these)"
        else:
            shown = {item.name: _x(item.best or self.shapes[item.name], item.symbols) for item in left}
            of = hint or ", with numbers for the names"
        value = shlex.quote(",".join(f"{name}:{shape}" for name, shape in shown.items()))
        return f"add --shapes, such as --shapes {value}{of}"


def resolve_shapes(
    inputs: Sequence[InputShape], *, batch: int | None, shapes: Mapping[str, Shape], profile: int | None = None
) -> Resolved:
    """The shape of every input. Raises UsageError, of which OpenSizesError names all sizes that are still open.

    profile: the number that range errors name; None where ranges are not a profile's.
    """
    require_known("a shape that was given", shapes, [item.name for item in inputs])
    names = named_batches(inputs)
    said = {item.name: _said(item, batch, shapes.get(item.name), names) for item in inputs}
    symbols, notes = _symbols(inputs, said)
    decided = {
        item.name: tuple(symbols.get(symbol, size) if size < 0 else size for size, symbol in _named_sizes(item, said))
        for item in inputs
    }
    if any(-1 in shape for shape in decided.values()):
        raise OpenSizesError(inputs, decided)
    for item in inputs:
        _require_in_range(item, decided[item.name], profile)
    if batch is not None:
        require_agreement(inputs, decided, batch)
    return Resolved(decided, symbols, notes)


def takes_larger(inputs: Sequence[InputShape], shapes: Mapping[str, Shape]) -> bool:
    """Whether --batch may be larger than these shapes have it: it is left open, and its range does not end there."""
    names = named_batches(inputs)
    sizes = [
        (shapes[item.name][axis], item.most[axis] if item.most else None)
        for item in inputs
        for axis, size in enumerate(item.shape)
        if size < 0 and is_filled(item, axis, names)
    ]
    return bool(sizes) and all(most is None or size < most for size, most in sizes)


def check_values(
    name: str, values: Sequence[int] | None, count: int, least: Sequence[int], best: Sequence[int], most: Sequence[int]
) -> tuple[int, ...]:
    """The values of an input that carries a shape. Raises UsageError.

    count: how many there must be.
    least, best, most: range and optimum of the first of them (TensorRT 8.6 tells only the first); empty where unknown.
    """
    spans = ",".join(f"{low}..{high}" for low, high in zip(least, most, strict=True))
    hint = f"; the profile takes {spans}{f' (optimised for {_csv(best)})' if best else ''}" if least else ""
    if values is None:
        example = _csv(best) if len(best) == count else ",".join(["N"] * count)
        raise UsageError(
            f"input {name} carries a shape, so its values must be given: add --shape-values {name}:{example}{hint}"
        )
    if len(values) != count:
        raise UsageError(f"--shape-values {name}:{_csv(values)}: {name} has {count} values, not {len(values)}{hint}")
    for value, low, high in zip(values, least, most, strict=False):
        if not low <= value <= high:
            raise UsageError(f"--shape-values {name}:{_csv(values)} is outside the plan's profile{hint}")
    return tuple(values)


def require_known(option: str, given: Mapping[str, object], names: Sequence[str]) -> None:
    """Raises UsageError when `option` names an input that the engine does not have."""
    for name in given:
        if name not in names:
            hint = nearest(name, names, f"its inputs are {', '.join(names) or 'none'}")
            raise UsageError(f"{option} names '{name}', which is not an input of this engine: {hint}")


def _said(item: InputShape, batch: int | None, given: Shape | None, names: set[str]) -> Shape:
    """The shape by --shapes, else with --batch where that decides a size, else as the engine has it."""
    if given is not None:
        return _given(item, batch, given)
    if batch is None:
        return item.shape
    return tuple(batch if size < 0 and is_filled(item, axis, names) else size for axis, size in enumerate(item.shape))


def _named_sizes(item: InputShape, said: Mapping[str, Shape]) -> Iterator[tuple[int, str]]:
    """The sizes of an input with their names, "" for what is no name."""
    symbols = item.symbols or ("",) * len(said[item.name])
    for size, symbol in zip(said[item.name], symbols, strict=True):
        yield size, symbol if is_name(symbol) else ""


def _symbols(inputs: Sequence[InputShape], said: Mapping[str, Shape]) -> tuple[dict[str, int], tuple[str, ...]]:
    """The size of every symbol that an input decides, the same in all of them; notes on those that are not the same
    within one input, where the user's shape counts: ONNX Runtime and TensorRT take symbols for labels."""
    sizes: dict[str, tuple[int, str]] = {}
    loose: dict[str, str] = {}
    for item in inputs:
        of_item: dict[str, set[int]] = {}
        for size, symbol in _named_sizes(item, said):
            if symbol and size >= 0:
                of_item.setdefault(symbol, set()).add(size)
        for symbol, found in of_item.items():
            if len(found) > 1:
                seen = " and ".join(map(str, sorted(found)))
                loose[symbol] = (
                    f"the model calls several sizes of {item.name} '{symbol}', and they are {seen}, as given"
                )
                continue
            (size,) = found
            known, where = sizes.setdefault(symbol, (size, item.name))
            if known != size and symbol not in loose:
                conflict = f"{known} in {where} but {size} in {item.name}"
                raise UsageError(f"size '{symbol}' would be {conflict}: make them equal")
    return {symbol: size for symbol, (size, _) in sizes.items() if symbol not in loose}, tuple(loose.values())


def _require_in_range(item: InputShape, shape: Shape, profile: int | None) -> None:
    if item.least is None or item.most is None:
        return
    for axis, (size, low, high) in enumerate(zip(shape, item.least, item.most, strict=True)):
        if not low <= size <= high:
            where = "the engine's range" if profile is None else f"the range of optimization profile {profile}"
            raise UsageError(
                f"size {size} of dimension {axis} of {item} is outside {where}, {_range(item, axis)}: "
                "ask for one within it, or use an engine built for it"
            )


def _given(item: InputShape, batch: int | None, given: Shape) -> Shape:
    """The shape of --shapes, which must have the engine's rank and fixed sizes."""
    misfit = f"shape {_x(given)} does not fit {item}"
    if len(given) != len(item.shape):
        raise UsageError(f"{misfit}, which has {len(item.shape)} dimensions, not {len(given)}")
    if given[:1] == (-1,):
        first = item.shape[0] if item.shape[0] >= 0 or batch is None else batch
        given = (first, *given[1:])
    for axis, (size, fixed) in enumerate(zip(given, item.shape, strict=True)):
        if fixed >= 0 and size != fixed:
            raise UsageError(f"{misfit}: dimension {axis} is fixed at {fixed}, so it cannot be {size}")
    return given


def _still_open(items: Sequence[InputShape], shapes: Mapping[str, Shape]) -> str:
    *most, last = map(str, items)
    axes = {axis for item in items for axis, size in enumerate(shapes[item.name]) if size < 0}
    what = f"{'their' if most else 'its'} first dimension" if axes == {0} else "dimensions"
    return f"{', '.join(most)} and {last} leave {what} open" if most else f"{last} leaves {what} open"


def _range(item: InputShape, axis: int) -> str:
    if item.least is None or item.most is None:
        return "any size"
    low, high = item.least[axis], item.most[axis]
    best = f" (optimised for {item.best[axis]})" if item.best and low != high else ""
    return f"{low}{best}" if low == high else f"{low}..{high}{best}"


def _csv(values: Sequence[int]) -> str:
    return ",".join(map(str, values))


def _x(shape: Shape, symbols: Sequence[str] = ()) -> str:
    """A shape as --shapes takes it, with the model's names, or N, for sizes that are open."""
    named = zip(shape, symbols or repeat(""), strict=False)
    return "x".join(str(size) if size >= 0 else name if is_name(name) else "N" for size, name in named) or "scalar"
