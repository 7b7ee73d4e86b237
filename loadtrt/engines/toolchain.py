"""Which TensorRT builds here, and whether it has what is asked: told by the names that its module has."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from loadtrt.cuda.runtime import device_count, has_gpu
from loadtrt.engines.build_options import BuildOptions, option_of
from loadtrt.engines.flavour import Flavour, find_flavour
from loadtrt.engines.log import Journal, journal_of
from loadtrt.errors import EngineError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

_MODULES = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}
_BUILDERS = "TensorRT 8.6, 10, 11"


@dataclass(frozen=True, slots=True)
class Toolchain:
    """A flavour with a builder.

    weak_typing: the builder chooses types by flags (8.6, 10); else types are the model's. rtx: builds for GPUs that are
    not here. progress: it reports its steps, and can be stopped.
    """

    flavour: Flavour
    journal: Journal
    weak_typing: bool
    rtx: bool
    progress: bool

    @property
    def module(self) -> Any:
        """The Python module."""
        return self.flavour.module


def choose_toolchain(wanted: Literal["tensorrt", "rtx"] | None) -> Toolchain:
    """The toolchain of --flavour, or the first that is here: full TensorRT, then RTX.

    Raises EngineError where there is none, or it has no builder or no ONNX parser.
    """
    reasons = []
    for name in (wanted,) if wanted else tuple(_MODULES):
        found = find_flavour(_MODULES[name])
        if found.flavour is None:
            reasons.append(f"{found.name} {found.reason}")
        elif not (found.flavour.capabilities.build and hasattr(found.flavour.module, "OnnxParser")):
            reasons.append(f"{found.flavour} has no builder with an ONNX parser")
        else:
            return _toolchain(found.flavour)
    remedy = "pip install 'loadtrt[tensorrt]', or 'loadtrt[rtx]', which builds without a GPU too"
    if wanted:
        remedy = f"pip install 'loadtrt[{wanted}]'"
    raise EngineError(
        f"no TensorRT here builds plans ({'; '.join(reasons)}): {remedy} (lean and dispatch only run them)"
    )


def _toolchain(flavour: Flavour) -> Toolchain:
    module = flavour.module
    return Toolchain(
        flavour=flavour,
        journal=journal_of(module),
        weak_typing=has_flag(module, "FP16"),
        rtx=_for_other_gpus(module),
        progress=hasattr(module, "IProgressMonitor"),
    )


def preflight(tool: Toolchain, options: BuildOptions) -> None:
    """Raises UsageError or EngineError for what this flavour lacks, and where the GPU that it needs is not there.

    Comes before any `Builder()`: without a driver, several versions end the process in it.
    """
    default = BuildOptions()
    for item in fields(options):
        feature = _FEATURES.get(item.name)
        if feature and getattr(options, item.name) != getattr(default, item.name) and not feature[0](tool.module):
            more = "; or bring a model that is in it already (NVIDIA ModelOpt converts)" if item.name in _TYPES else ""
            raise UsageError(f"{tool.flavour} has no {option_of(item.name)}; {feature[1]} have it{more}")
    for name in options.tactic_sources:
        _member(tool, "TacticSource", name.lstrip("+-"), "--tactic-sources")
    for name in options.targets:
        _member(tool, "ComputeCapability", name, "--target")
    if tool.rtx and options.targets and "CURRENT" not in options.targets:
        for name in ("refit", "strip_weights"):  # seen: its compiler fails, with a message of its own on stderr
            if getattr(options, name) and not has_gpu():
                raise UsageError(f"{tool.flavour} needs a GPU for {option_of(name)}, and there is none: leave it out")
        return
    if tool.rtx and not has_gpu():
        known = ", ".join(name.lower() for name in tool.module.ComputeCapability.__members__ if name.startswith("SM"))
        raise UsageError(
            f"{tool.flavour} builds for the GPU that is here, and there is none: "
            f"name the GPUs that the plan is for with --target, such as --target sm86,sm89 (it knows {known})"
        )
    count = device_count()
    if options.device >= count:
        raise UsageError(f"--device {options.device} is not there: CUDA sees {count}, numbered from 0")


def has_flag(module: Any, name: str) -> bool:
    """Whether the builder has this flag. By name: the numbers differ from version to version."""
    return name in getattr(getattr(module, "BuilderFlag", None), "__members__", {})


def _member(tool: Toolchain, enumeration: str, name: str, option: str) -> None:
    members = [member for member in getattr(tool.module, enumeration).__members__ if member != "NONE"]
    if name not in members:
        raise UsageError(f"{option} {name.lower()} is unknown to {tool.flavour}: it has {', '.join(members).lower()}")


def _for_other_gpus(module: Any) -> bool:
    return hasattr(module, "ComputeCapability")


def _has_strong_typing(module: Any) -> bool:
    members = getattr(getattr(module, "NetworkDefinitionCreationFlag", None), "__members__", {})
    return "STRONGLY_TYPED" in members or not has_flag(module, "FP16")


def _flag(name: str) -> Callable[[Any], bool]:
    return lambda module: has_flag(module, name)


def _config(name: str) -> Callable[[Any], bool]:
    return lambda module: hasattr(getattr(module, "IBuilderConfig", None), name)


_TYPES = ("bf16", "fp8")
_EVERY = f"{_BUILDERS} and TensorRT-RTX"
# option: (whether the module has it, which flavours do). What RTX has by name only, without effect, it does not have.
_FEATURES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "bf16": (_flag("BF16"), "builders of TensorRT 10"),
    "fp8": (_flag("FP8"), "builders of TensorRT 8.6 and 10"),
    "no_tf32": (_flag("TF32"), _EVERY),
    "strongly_typed": (_has_strong_typing, "TensorRT 10, 11 and TensorRT-RTX"),
    "calibration_cache": (lambda module: hasattr(module, "IInt8EntropyCalibrator2"), "TensorRT 8.6 and 10"),
    "builder_optimization_level": (_config("builder_optimization_level"), _EVERY),
    "workspace": (lambda module: hasattr(module, "MemoryPoolType"), _EVERY),
    "timing_cache": (lambda m: _config("create_timing_cache")(m) and not _for_other_gpus(m), _BUILDERS),
    "tactic_sources": (lambda module: hasattr(module, "TacticSource"), _EVERY),
    "version_compatible": (_flag("VERSION_COMPATIBLE"), _EVERY),
    "exclude_lean_runtime": (_flag("EXCLUDE_LEAN_RUNTIME"), _EVERY),
    "hardware_compatible": (
        lambda module: hasattr(module, "HardwareCompatibilityLevel") and not _for_other_gpus(module),
        _BUILDERS,
    ),
    "strip_weights": (_flag("STRIP_PLAN"), "TensorRT 10, 11 and TensorRT-RTX"),
    "refit": (_flag("REFIT"), _EVERY),
    "sparsity": (_flag("SPARSE_WEIGHTS"), _EVERY),
    "max_aux_streams": (_config("max_aux_streams"), _EVERY),
    "dla": (lambda module: hasattr(module, "DeviceType") and not _for_other_gpus(module), "TensorRT 8.6, 10 and 11"),
    "targets": (_for_other_gpus, "builders of TensorRT-RTX"),
}
