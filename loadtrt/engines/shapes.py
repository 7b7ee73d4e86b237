"""From what an engine leaves open and what the user says to shapes without a -1. Pure; the same rules for all engines.

Sizes come from --batch and --shapes, from parts of --mix, from --batcher, or from a file that says the same: so what is
wrong is said of the size, and not of an option.

1. An input named in --shapes has exactly that shape; sizes that the engine fixes must agree.
2. --batch N is the first size of every other input that leaves its first size open; so it is of a shape of --shapes
   whose first size is -1, as the parts of mixes and batchers have it, and elsewhere the engine's own stands there.
3. A size that the model calls by a symbol is the same wherever the symbol stands: deciding it once decides it.
4. What is still open is an error: never a silent 1.
5. Where the engine has a range (an optimization profile), every size is within it.
6. The batch (inferences in a request) is --batch, or the first size that the inputs share.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import repeat
from typing import TYPE_CHECKING, Literal, Protocol

from loadtrt.errors import UsageError, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Shape = tuple[int, ...]


class Sizes(Protocol):
    """What decides the shapes of one kind of request."""

    @property
    def batch(self) -> int | None: ...
    @property
    def shapes(self) -> Mapping[str, Shape]: ...
    @property
    def shape_values(self) -> Mapping[str, tuple[int, ...]]: ...
    @property
    def optimization_profile(self) -> int: ...


@dataclass(frozen=True, slots=True)
class FixedSizes:
    """Sizes of one kind of request, decided.

    batch: first size of the inputs that leave theirs open; None where there are none.
    shapes: by input.
    shape_values: values of inputs that carry shapes.
    optimization_profile: its number in the plan.
    """

    batch: int | None = None
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    shape_values: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    optimization_profile: int = 0


class EngineOptions(Sizes, Protocol):
    """The options of `loadtrt run` that decide what an engine is and how it is driven."""

    @property
    def engine(self) -> str: ...
    @property
    def on(self) -> Literal["auto", "tensorrt", "onnxruntime"]: ...
    @property
    def module(self) -> str | None: ...
    @property
    def plugins(self) -> tuple[str, ...]: ...
    @property
    def allow_host_code(self) -> bool: ...
    @property
    def device(self) -> int: ...
    @property
    def fp16(self) -> bool: ...
    @property
    def contexts(self) -> int: ...
    @property
    def buffers(self) -> int: ...
    @property
    def requests_per_launch(self) -> int: ...
    @property
    def graph(self) -> bool: ...
    @property
    def copies(self) -> bool: ...
    @property
    def wait(self) -> Literal["spin", "block"]: ...
    @property
    def threads_per_context(self) -> int | None: ...
    @property
    def seed(self) -> int: ...
    @property
    def parts(self) -> Sequence[Sizes]:
        """One for each kind of request: of a mix, or of the batches that form."""
        ...


@dataclass(frozen=True, slots=True)
class InputShape:
    """One input as the engine has it. `shape`: -1 where a size is open.

    least, best, most: minimum, optimum and maximum of the profile, of `shape`'s length; None without a profile.
    batched: whether its first size can be the batch; False for a tensor whose values are a shape.
    symbols: the model's names of its sizes, of `shape`'s length with "" for no name; () without names.
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
    batch: inferences in one request.
    symbols: decided sizes, by symbol.
    """

    shapes: dict[str, Shape]
    batch: int
    symbols: dict[str, int]


def resolve_shapes(
    inputs: Sequence[InputShape], *, batch: int | None, shapes: Mapping[str, Shape], profile: int | None = None
) -> Resolved:
    """The shape of every input, and the batch.

    `profile`: the number that range errors name; None where ranges are not a profile's. Raises UsageError.
    """
    require_known("a shape that was given", shapes, [item.name for item in inputs])
    said = {item.name: _said(item, batch, shapes.get(item.name)) for item in inputs}
    symbols = _symbols(inputs, said)
    resolved = {item.name: _resolve(item, said[item.name], symbols, profile) for item in inputs}
    return Resolved(resolved, _batch_of(inputs, resolved, batch), symbols)


def check_values(
    name: str, values: Sequence[int] | None, count: int, least: Sequence[int], best: Sequence[int], most: Sequence[int]
) -> tuple[int, ...]:
    """The values of an input that carries a shape.

    `count`: how many there must be. least, best, most: range and optimum of the first of them (TensorRT 8.6 tells only
    the first); empty where unknown. Raises UsageError.
    """
    hint = f"; the profile takes {_spans(least, most)}{_optimum(best)}" if least else ""
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


def _said(item: InputShape, batch: int | None, given: Shape | None) -> Shape:
    """The shape by --shapes, else by --batch for an open first size, else as the engine has it."""
    if given is not None:
        return _given(item, batch, given)
    if batch is not None and item.batched and item.shape[:1] == (-1,):
        return (batch, *item.shape[1:])
    return item.shape


def _symbols(inputs: Sequence[InputShape], said: Mapping[str, Shape]) -> dict[str, int]:
    """The size of every symbol that an input decides, the same in all of them."""
    sizes: dict[str, tuple[int, str]] = {}
    for item in inputs:
        for symbol, size in zip(item.symbols, said[item.name], strict=False):
            if symbol and size >= 0:
                known, where = sizes.setdefault(symbol, (size, item.name))
                if known != size:
                    conflict = f"{known} in {where} but {size} in {item.name}"
                    raise UsageError(f"size '{symbol}' would be {conflict}: make them equal")
    return {symbol: size for symbol, (size, _) in sizes.items()}


def _resolve(item: InputShape, said: Shape, symbols: Mapping[str, int], profile: int | None) -> Shape:
    shape = tuple(symbols.get(symbol, size) for size, symbol in zip(said, item.symbols or repeat(""), strict=False))
    if -1 in shape:
        raise UsageError(_still_open(item, shape))
    if item.least is not None and item.most is not None:
        for axis, (size, low, high) in enumerate(zip(shape, item.least, item.most, strict=True)):
            if not low <= size <= high:
                where = "the engine's range" if profile is None else f"the range of optimization profile {profile}"
                raise UsageError(
                    f"size {size} of dimension {axis} of {item} is outside {where}, {_range(item, axis)}: "
                    "ask for one within it, or use an engine built for it"
                )
    return shape


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


def _still_open(item: InputShape, shape: Shape) -> str:
    """What to add for an input that is still open."""
    axes = [axis for axis, size in enumerate(shape) if size == -1]
    ranges = ", ".join(f"dimension {axis} takes {_range(item, axis)}" for axis in axes) if item.least else ""
    hint = f" ({ranges})" if ranges else ""
    if axes == [0] and item.batched:
        return f"{item} leaves its first dimension open: add --batch N{hint}"
    example = item.best or tuple(1 if size < 0 else size for size in shape)
    return f"{item} leaves dimensions open: add --shapes, such as --shapes {item.name}:{_x(example)}{hint}"


def _batch_of(inputs: Sequence[InputShape], resolved: Mapping[str, Shape], batch: int | None) -> int:
    """Inferences in one request: the first size, of the inputs that left it open if any did."""
    batched = [item for item in inputs if item.batched and resolved[item.name]]
    left_open = [item for item in batched if item.shape[0] == -1]
    firsts = sorted({resolved[item.name][0] for item in left_open or batched})
    seen = ", ".join(f"{item.name} [{','.join(map(str, resolved[item.name]))}]" for item in batched)
    if batch is not None:
        if batch not in firsts:
            fixed = "" if left_open else ", fixed when the engine was made"
            remedy = "make them agree" if left_open else "ask for none, or make an engine that leaves one open"
            raise UsageError(f"batch {batch} contradicts the inputs' first sizes ({seen or 'none'}{fixed}): {remedy}")
        return batch
    if len(firsts) > 1:
        raise UsageError(
            f"the inputs differ in their first size ({seen}), so the batch is not clear: add --batch with one of "
            f"{' or '.join(map(str, firsts))}"
        )
    return firsts[0] if firsts else 1  # an engine without any sized input: one request is one inference


def _range(item: InputShape, axis: int) -> str:
    if item.least is None or item.most is None:
        return "any size"
    low, high = item.least[axis], item.most[axis]
    best = f" (optimised for {item.best[axis]})" if item.best and low != high else ""
    return f"{low}{best}" if low == high else f"{low}..{high}{best}"


def _spans(least: Sequence[int], most: Sequence[int]) -> str:
    return ",".join(f"{low}..{high}" for low, high in zip(least, most, strict=True))


def _optimum(best: Sequence[int]) -> str:
    return f" (optimised for {_csv(best)})" if best else ""


def _csv(values: Sequence[int]) -> str:
    return ",".join(map(str, values))


def _x(shape: Shape) -> str:
    return "x".join("N" if size < 0 else str(size) for size in shape) or "scalar"
