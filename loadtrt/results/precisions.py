"""What a lower precision made of a model, and how far its answers are from those in FP32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadtrt.printing import shortened
from loadtrt.units import format_count, plural

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOST_OPERATORS = 4  # of one reason that a sentence names


@dataclass(frozen=True, slots=True)
class LeftInFp32:
    """Nodes of a model that a conversion to FP16 left in FP32, for one reason.

    operator: their operator.
    why: the reason, said of a node.
    count: how many they are.
    names: of the first of them.
    """

    operator: str
    why: str
    count: int
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HalfPrecision:
    """What became of a model that loadtrt converted to FP16.

    keeps_io: whether inputs and outputs stayed FP32.
    nodes: nodes that compute on FP32 in the model.
    converted: those of them that compute in FP16 now.
    left: the others, the most frequent first.
    weights: numbers that FP16 holds now.
    zeroed: of these, numbers that were not zero and became zero.
    most_zeroed: the weight with the most of them; "" for none.
    subnormal: of these, numbers so small that they lost bits (below 6.1e-5).
    beyond: weights with numbers beyond FP16's 65504, whose nodes were left in FP32: no number is cut.
    farthest_beyond, largest_beyond: the weight with the largest of them, and that number; "" and 0 for none.
    """

    keeps_io: bool
    nodes: int
    converted: int
    left: tuple[LeftInFp32, ...]
    weights: int
    zeroed: int
    most_zeroed: str
    subnormal: int
    beyond: int
    farthest_beyond: str
    largest_beyond: float

    @property
    def text(self) -> str:
        """The conversion in a few words."""
        kept = "FP32 inputs and outputs kept" if self.keeps_io else "inputs and outputs too"
        return f"converted to FP16: {self.converted} of {plural(self.nodes, 'node')} ({kept})"

    def sentences(self) -> Iterator[str]:
        """What was left in FP32 and why, and what became of the weights."""
        reasons: dict[str, list[LeftInFp32]] = {}
        for left in self.left:
            reasons.setdefault(left.why, []).append(left)
        for why, lefts in reasons.items():
            operators = ", ".join(f"{left.count} {left.operator}" for left in lefts[:_MOST_OPERATORS])
            more = f", {sum(left.count for left in lefts[_MOST_OPERATORS:])} others" if lefts[_MOST_OPERATORS:] else ""
            names = " ".join(shortened(name) for left in lefts for name in left.names[:1])
            yield f"left in FP32, as each {why}: {operators}{more} ({shortened(names, 80)})"
        became = f"{format_count(self.zeroed)} became 0, most of {shortened(self.most_zeroed)}" if self.zeroed else ""
        fewer = f"{format_count(self.subnormal)} lost bits" if self.subnormal else ""
        lost = ", ".join(filter(None, (became, fewer))) or "none became 0"
        yield f"weights in FP16: {format_count(self.weights)}; none was cut, {lost}"
        if self.beyond:
            yield (
                f"{plural(self.beyond, 'weight')} beyond FP16's 65 504 stayed FP32: the largest is "
                f"{self.largest_beyond:g}, in {shortened(self.farthest_beyond)}"
            )


@dataclass(frozen=True, slots=True)
class Deviation:
    """Outputs of one quiet request against those of a reference for the same inputs.

    reference: what they were compared with, in words.
    unknown: why they were not compared, one sentence; "" where they were. The numbers are 0 then.
    outputs: number of outputs compared.
    output: the one that deviates most, by `relative`.
    absolute: its largest difference.
    largest: its largest magnitude in the reference.
    relative: `absolute` over `largest`, or over 6.1e-5 where that is more, below which FP16 loses bits; of integers the
        share that differ.
    cosine: between its numbers and the reference's; None where one has no length, and for integers.
    not_finite: its numbers that are NaN or infinite where the reference's are not; they count in none of the above.
    tolerance: the `relative` that is explained by the engine's precision, or that was asked for.
    demanded: whether a deviation beyond it makes the run INVALID.
    """

    reference: str
    unknown: str = ""
    outputs: int = 0
    output: str = ""
    absolute: float = 0.0
    largest: float = 0.0
    relative: float = 0.0
    cosine: float | None = None
    not_finite: int = 0
    tolerance: float = 0.0
    demanded: bool = False

    @property
    def beyond(self) -> bool:
        """Whether it is more than the tolerance."""
        return not self.unknown and (self.not_finite > 0 or self.relative > self.tolerance)

    @property
    def fault(self) -> tuple[str, str] | None:
        """What makes the run INVALID, and what to do; None where nothing does."""
        if not (self.demanded and self.beyond):
            return None
        return (
            f"outputs deviate from those of {self.reference} by {self.text}; the tolerance is {self.tolerance:.2g}",
            "another precision, or, if that much is right, a larger --verify-tolerance",
        )

    @property
    def text(self) -> str:
        """What was found, in words."""
        if self.unknown:
            return f"not known: {self.unknown}"
        cosine = "" if self.cosine is None else f", cosine {self.cosine:.6f}"
        numbers = f", {plural(self.not_finite, 'number')} NaN or infinite" if self.not_finite else ""
        return (
            f"{self.relative:.2g} of the largest {self.largest:.3g} (at most {self.absolute:.2g}), in output "
            f"{shortened(self.output)}{cosine}{numbers}"
        )
