"""The tensors of a model that is converted to FP16, and the count of what became of it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from loadtrt.results.precisions import HalfPrecision, LeftInFp32

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.engines.half_precision import Scope

BEYOND = "has weights beyond FP16's range"
LOST = "has weights that FP16 does not hold"
GREATEST = float(np.finfo(np.float16).max)
SMALLEST = float(np.finfo(np.float16).smallest_normal)
_HELD = 2.0**-8  # of the norm of a node's weights: FP16's own rounding is below 2**-11
_CHUNK = 1 << 18  # numbers that fit into a processor's cache
_NAMES = 3  # of nodes that are named for each reason


class Weight:
    """The numbers of a weight, and what FP16 takes from them.

    numbers, half: in FP32 and FP16.
    beyond: whether a finite one is beyond FP16's range.
    largest: the largest finite one, without its sign.
    lost: whether rounding takes more from those within the range than it does where FP16 holds all their bits.
    subnormal: how many are so small that they lose bits; zeroed: how many become 0.
    """

    def __init__(self, tensor: Any) -> None:
        from onnx import numpy_helper

        self.numbers = numpy_helper.to_array(tensor)
        flat, halves = self.numbers.reshape(-1), np.empty(self.numbers.size, np.float16)
        self.half = halves.reshape(self.numbers.shape)
        self.beyond, self.largest, self.subnormal, self.zeroed = False, 0.0, 0, 0
        squares = errors = 0.0
        for start in range(0, flat.size, _CHUNK):
            part = flat[start : start + _CHUNK]
            near = half(part)
            halves[start : start + _CHUNK] = near
            sizes, finite, held = np.abs(part), np.isfinite(part), np.isfinite(near)
            self.beyond |= bool((finite & ~held).any())
            self.largest = max(self.largest, float(sizes.max(where=finite, initial=0)))
            small = sizes < SMALLEST
            if small.any():
                nothing = near == 0
                self.zeroed += int(np.count_nonzero(nothing & (part != 0)))
                self.subnormal += int(np.count_nonzero(small & ~nothing))
            exact = np.where(held, part, 0).astype(np.float64)
            error = np.where(held, near, 0) - exact
            squares += float(exact @ exact)
            errors += float(error @ error)
        self.lost = errors > _HELD**2 * squares


def half(numbers: Any) -> Any:
    """In FP16, as numpy rounds; infinite beyond its range."""
    with np.errstate(over="ignore"):
        return np.asarray(numbers).astype(np.float16)


@dataclass(slots=True, eq=False)
class Value:
    """A tensor that was FP32 and now is FP32, FP16 or both.

    scope: the graph that it belongs to.
    kind: what it counts as where inputs decide: "fp16", "fp32", or "weight", which goes with either.
    names: by whether it is the FP16 one; what is not there has none.
    tensor: of a weight.
    is_node: whether the weight is a node, a Constant.
    unfit: why FP16 does not hold it, where it comes from weights that FP16 does not hold.
    fp16_keeps: whether it is the FP16 one that keeps the model's name.
    """

    name: str
    scope: Scope
    kind: str
    names: dict[bool, str] = field(default_factory=dict)
    tensor: Any = None
    is_node: bool = False
    unfit: str = ""
    fp16_keeps: bool = False
    _weight: Weight | None = None

    @property
    def weight(self) -> Weight | None:
        """None where it is not a weight, or a sparse one."""
        if self._weight is None and self.tensor is not None:
            self._weight = Weight(self.tensor)
        return self._weight

    @property
    def beyond(self) -> bool:
        """Whether a finite weight is beyond FP16's range."""
        return self.weight is not None and self.weight.beyond


@dataclass(slots=True)
class Conversion:
    """What the graphs of a model share.

    halves: the tensors, other than weights, that the converted model has in FP16, by the names that they had.
    has_io: whether the model has inputs or outputs in FP32.
    """

    opsets: dict[str, int]
    names: set[str]
    keep_io: bool
    has_io: bool = True
    halves: set[str] = field(default_factory=set)
    converted: int = 0
    left: dict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))
    weights: int = 0
    subnormal: int = 0
    zeroed: dict[str, tuple[int, int]] = field(default_factory=dict)
    beyond: dict[str, float] = field(default_factory=dict)

    def count(self, node: Any, why: str, inputs: Sequence[Value | None]) -> None:
        if not why:
            self.converted += 1
            return
        self.left[node.op_type, why].append(node.name or next(filter(None, node.output), ""))
        for value in inputs:
            if why == BEYOND and value is not None and value.weight is not None and value.weight.beyond:
                self.beyond[value.name] = value.weight.largest

    def count_weight(self, name: str, weight: Weight) -> None:
        self.weights += int(weight.half.size)
        self.subnormal += weight.subnormal
        if weight.zeroed:
            self.zeroed[name] = weight.zeroed, int(weight.half.size)

    def result(self) -> HalfPrecision:
        farthest = max(self.beyond, key=lambda name: self.beyond[name], default="")
        most = max(self.zeroed, key=lambda name: self.zeroed[name], default="")
        ranked = sorted(self.left.items(), key=lambda item: -len(item[1]))
        return HalfPrecision(
            keeps_io=self.keep_io,
            has_io=self.has_io,
            nodes=self.converted + sum(map(len, self.left.values())),
            converted=self.converted,
            left=tuple(LeftInFp32(kind, why, len(names), tuple(names[:_NAMES])) for (kind, why), names in ranked),
            weights=self.weights,
            zeroed=sum(count for count, _ in self.zeroed.values()),
            most_zeroed=most,
            most_zeroed_of=self.zeroed.get(most, (0, 0)),
            subnormal=self.subnormal,
            beyond=len(self.beyond),
            farthest_beyond=farthest,
            largest_beyond=self.beyond.get(farthest, 0.0),
        )
