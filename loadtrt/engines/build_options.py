"""What `loadtrt build` is asked for: options in trtexec's words, checked against each other."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from loadtrt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Shape = tuple[int, ...]
Ranges = dict[str, tuple[Shape, Shape, Shape]]  # input: (min, opt, max), one optimization profile


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """The options of a build; None and () leave TensorRT's default.

    batch, shapes: sizes written into the model, for a plan of just these. profiles: ranges for a plan that takes many.
    io: type of floating inputs and outputs of an FP16 plan. workspace: bytes. targets: compute capabilities that an RTX
    plan is for, as TensorRT-RTX names them (SM86). seed: of random calibration data. plugins: libraries with operators.
    """

    flavour: Literal["tensorrt", "rtx"] | None = None
    device: int = 0
    batch: int | None = None
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    profiles: tuple[Ranges, ...] = ()
    fp16: bool = False
    bf16: bool = False
    int8: bool = False
    fp8: bool = False
    no_tf32: bool = False
    strongly_typed: bool = False
    io: Literal["fp32", "fp16"] = "fp32"
    calibration: Path | None = None
    calibration_cache: Path | None = None
    seed: int = 1
    builder_optimization_level: int | None = None
    workspace: int | None = None
    timing_cache: Path | None = None
    tactic_sources: tuple[str, ...] = ()
    version_compatible: bool = False
    exclude_lean_runtime: bool = False
    hardware_compatible: bool = False
    strip_weights: bool = False
    refit: bool = False
    sparsity: bool = False
    max_aux_streams: int | None = None
    profiling_verbosity: str = "detailed"
    plugins: tuple[str, ...] = ()
    dla: int | None = None
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises UsageError for options that contradict each other."""
        if self.profiles and (self.batch is not None or self.shapes):
            given = "--batch" if self.batch is not None else "--shapes"
            raise UsageError(
                f"{given} fixes sizes, and --min-shapes, --opt-shapes and --max-shapes leave them open: choose one"
            )
        if self.exclude_lean_runtime and not self.version_compatible:
            raise UsageError("--exclude-lean-runtime is for version-compatible plans: add --version-compatible")
        if self.io == "fp16" and not self.fp16:
            raise UsageError("--io fp16 is for plans that compute in FP16: add --fp16")
        if self.strongly_typed:
            for name in ("bf16", "fp8"):
                if getattr(self, name):
                    raise UsageError(
                        f"--{name} lets the builder choose types, and --strongly-typed forbids it: leave one out, "
                        f"or convert the model to {name.upper()} beforehand (NVIDIA ModelOpt does)"
                    )
        for name in ("calibration", "calibration_cache"):
            if getattr(self, name) is not None and not self.int8:
                raise UsageError(f"{option_of(name)} is for INT8 plans: add --int8")

    def given(self) -> dict[str, Any]:
        """What differs from the defaults, as JSON can hold it."""
        default = BuildOptions()
        return {
            item.name: _plain(getattr(self, item.name))
            for item in fields(self)
            if getattr(self, item.name) != getattr(default, item.name)
        }


def option_of(name: str) -> str:
    """ "--max-aux-streams" of "max_aux_streams"."""
    return "--target" if name == "targets" else f"--{name.replace('_', '-')}"


def shape_profiles(
    least: Sequence[Mapping[str, Shape]], best: Sequence[Mapping[str, Shape]], most: Sequence[Mapping[str, Shape]]
) -> tuple[Ranges, ...]:
    """Optimization profiles: the n-th --min-shapes, --opt-shapes and --max-shapes make the n-th.

    Of an input, what is not given is, as in trtexec, taken from what is: opt from max, then min; min and max from opt.
    Raises UsageError where they are not equally many, differ in rank, or are not min ≤ opt ≤ max.
    """
    count = max(map(len, (least, best, most)))
    for option, items in (("--min-shapes", least), ("--opt-shapes", best), ("--max-shapes", most)):
        if items and len(items) != count:
            raise UsageError(
                f"{option} is given {len(items)} times and another of the three {count} times: "
                "give each once for every profile, with all inputs of the profile in it, separated by commas"
            )
    return tuple(
        _profile(*(items[number] if items else {} for items in (least, best, most))) for number in range(count)
    )


def _profile(least: Mapping[str, Shape], best: Mapping[str, Shape], most: Mapping[str, Shape]) -> Ranges:
    found: Ranges = {}
    for name in dict.fromkeys((*least, *best, *most)):
        opt = best.get(name, most.get(name, least.get(name, ())))
        low, high = least.get(name, opt), most.get(name, opt)
        if not len(low) == len(opt) == len(high) or not all(
            a <= b <= c for a, b, c in zip(low, opt, high, strict=True)
        ):
            spelt = ", ".join("x".join(map(str, shape)) or "scalar" for shape in (low, opt, high))
            raise UsageError(f"the shapes of {name} ({spelt}) are not min ≤ opt ≤ max of one length: correct them")
        found[name] = (low, opt, high)
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
