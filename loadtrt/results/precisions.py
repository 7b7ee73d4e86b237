"""What a lower precision made of a model, and how far its answers are from those in FP32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

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

    keeps_io: whether inputs and outputs stayed FP32, where the model has such (has_io).
    nodes: nodes that compute on FP32 in the model.
    converted: those of them that compute in FP16 now.
    left: the others, the most frequent first.
    weights: numbers that FP16 holds now.
    zeroed: of these, numbers that were not zero and became zero.
    most_zeroed: the weight with the most of them; "" for none.
    most_zeroed_of: how many that are, and how many numbers the weight has.
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
    most_zeroed_of: tuple[int, int] = (0, 0)
    has_io: bool = True

    @property
    def text(self) -> str:
        """The conversion in a few words."""
        if not self.nodes:
            return "nothing to convert to FP16: no node computes in FP32"
        kept = "FP32 inputs and outputs kept" if self.keeps_io else "inputs and outputs too"
        ends = f" ({kept})" if self.has_io else ""
        return f"converted to FP16: {self.converted} of {plural(self.nodes, 'node')}{ends}"

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
        count, size = map(format_count, self.most_zeroed_of)
        most = f"{count} of {size} in {shortened(self.most_zeroed)}"
        became = f"{format_count(self.zeroed)} became 0 ({most})" if self.zeroed else ""
        fewer = f"{format_count(self.subnormal)} lost bits" if self.subnormal else ""
        lost = ", ".join(filter(None, (became, fewer))) or "none became 0"
        if self.weights:
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
    random: those left out, as two requests with the same inputs differ in them.
    missing: those left out, as the reference does not have them.
    output: the one that deviates most, by `relative`.
    kind: what it holds; "shape" where it has another shape than in the reference, which `shapes` tells.
    absolute: its largest difference.
    largest: its largest magnitude in the reference.
    relative: `absolute` over `largest`, or over 6.1e-5 where that is more, below which FP16 loses bits; of integers and
        texts the share that differ.
    cosine: between its numbers and the reference's; None where one has no length, and for integers.
    not_finite: its numbers that are NaN or infinite where the reference's are not, or the other way round; they count
        in none of the above.
    not_compared: its numbers that are the same NaN or infinity on both sides, which compare nothing.
    tolerance: the `relative` that is explained by the engine's precision, or that was asked for.
    demanded: whether a deviation beyond it makes the run INVALID.
    overflows: results in FP32 that FP16 cannot hold, of nodes that are converted to it.
    first_overflow, largest_overflow: the first of them, and its largest magnitude.
    unlooked: why that is not known; "" where it is, and where nothing was converted.
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
    not_compared: int = 0
    tolerance: float = 0.0
    demanded: bool = False
    kind: Literal["float", "integer", "text", "shape"] = "float"
    shapes: str = ""
    random: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    overflows: int = 0
    first_overflow: str = ""
    largest_overflow: float = 0.0
    unlooked: str = ""

    @property
    def differs(self) -> bool:
        """Whether outputs deviate by more than the tolerance."""
        exceeds = self.kind == "shape" or self.not_finite > 0 or self.relative > self.tolerance
        return not self.unknown and exceeds

    @property
    def beyond(self) -> bool:
        """Whether it is more than the precision explains, in the outputs or inside."""
        return self.differs or self.overflows > 0

    @property
    def fault(self) -> tuple[str, str] | None:
        """What makes the run INVALID, and what to do; None where nothing does."""
        if not (self.demanded and self.differs):
            return None
        return (
            f"outputs deviate from those of {self.reference}: {self.text}; the tolerance is {self.tolerance:.2g}",
            "another precision, or, if that much is acceptable, a larger --verify-tolerance",
        )

    @property
    def text(self) -> str:
        """What was found, in words."""
        parts = [f"not known: {self.unknown}" if self.unknown else self._of_output]
        if self.random:
            names = ", ".join(map(shortened, self.random))
            parts.append(f"not compared, as two requests with the same inputs differ: {names}")
        if self.missing:
            parts.append(
                f"not compared, as the reference does not have them: {', '.join(map(shortened, self.missing))}"
            )
        if self.overflows:
            parts.append(self.overflow)
        if self.unlooked:
            parts.append(f"whether FP16 holds all results is not known: {self.unlooked}")
        return "; ".join(parts)

    @property
    def overflow(self) -> str:
        """The results that FP16 cannot hold, in words."""
        return (
            f"{plural(self.overflows, 'result')} beyond FP16's 65 504, the first {shortened(self.first_overflow)} (up "
            f"to {self.largest_overflow:.3g})"
        )

    @property
    def _of_output(self) -> str:
        name = shortened(self.output)
        if self.kind == "shape":
            return f"output {name} is {self.shapes}"
        if self.kind in ("integer", "text"):
            by = f", by at most {self.absolute:g}" if self.absolute else ""
            return f"{100 * self.relative:.3g} % of the {self.kind}s in output {name} differ{by}"
        cosine = "" if self.cosine is None else f", cosine {self.cosine:.6f}"
        numbers = f"{plural(self.not_finite, 'number')} NaN or infinite on one side only"
        if self.not_finite and not self.largest:
            return f"{numbers}, in output {name}"
        numbers = f", {numbers}" if self.not_finite else ""
        if self.not_compared:
            numbers += f", {plural(self.not_compared, 'number')} NaN or infinite on both sides"
        return (
            f"{self.relative:.2g} of the largest {self.largest:.3g} (at most {self.absolute:.2g}), in output "
            f"{name}{cosine}{numbers}"
        )
