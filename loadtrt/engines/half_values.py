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
_NAMES = 3  # of nodes that are named for each reason


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
    _numbers: Any = None

    @property
    def numbers(self) -> Any:
        """Of a weight."""
        if self._numbers is None:
            from onnx import numpy_helper

            self._numbers = numpy_helper.to_array(self.tensor)
        return self._numbers

    @property
    def beyond(self) -> bool:
        """Whether a finite weight is beyond FP16's range."""
        return self.tensor is not None and bool((np.isfinite(self.numbers) & np.isinf(half(self.numbers))).any())

    @property
    def lost(self) -> bool:
        """Whether rounding to FP16 takes more from the weights than FP16 does where it holds numbers."""
        if self.tensor is None:
            return False
        finite = np.where(np.isfinite(self.numbers), self.numbers, 0).astype(np.float64)
        numbers = np.clip(finite, -GREATEST, GREATEST)
        return bool(np.linalg.norm(half(numbers) - numbers) > _HELD * np.linalg.norm(numbers))

    @property
    def exact(self) -> bool:
        """Whether FP16 holds every one of the weights as well as the others: none is so small that it loses bits."""
        return self.tensor is not None and bool(((self.numbers == 0) | (np.abs(self.numbers) >= SMALLEST)).all())


def half(numbers: Any) -> Any:
    with np.errstate(over="ignore"):
        return np.asarray(numbers).astype(np.float16)


@dataclass(slots=True)
class Conversion:
    """What the graphs of a model share."""

    opsets: dict[str, int]
    names: set[str]
    keep_io: bool
    converted: int = 0
    left: dict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))
    weights: int = 0
    subnormal: int = 0
    zeroed: dict[str, int] = field(default_factory=dict)
    beyond: dict[str, float] = field(default_factory=dict)

    def count(self, node: Any, why: str, inputs: Sequence[Value | None]) -> None:
        if not why:
            self.converted += 1
            return
        self.left[node.op_type, why].append(node.name or next(filter(None, node.output), ""))
        for value in inputs:
            if why == BEYOND and value is not None and value.beyond:
                finite = np.abs(value.numbers[np.isfinite(value.numbers)])
                self.beyond[value.name] = float(finite.max())

    def count_weights(self, name: str, numbers: Any, half: Any) -> None:
        self.weights += int(half.size)
        self.subnormal += int(np.count_nonzero((half != 0) & (np.abs(half) < SMALLEST)))
        if zeroed := int(np.count_nonzero(numbers) - np.count_nonzero(half)):
            self.zeroed[name] = zeroed

    def result(self) -> HalfPrecision:
        farthest = max(self.beyond, key=lambda name: self.beyond[name], default="")
        ranked = sorted(self.left.items(), key=lambda item: -len(item[1]))
        return HalfPrecision(
            keeps_io=self.keep_io,
            nodes=self.converted + sum(map(len, self.left.values())),
            converted=self.converted,
            left=tuple(LeftInFp32(kind, why, len(names), tuple(names[:_NAMES])) for (kind, why), names in ranked),
            weights=self.weights,
            zeroed=sum(self.zeroed.values()),
            most_zeroed=max(self.zeroed, key=lambda name: self.zeroed[name], default=""),
            subnormal=self.subnormal,
            beyond=len(self.beyond),
            farthest_beyond=farthest,
            largest_beyond=self.beyond.get(farthest, 0.0),
        )
