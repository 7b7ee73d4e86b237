"""TensorRT's builders: the choice of one, the options that each supports, and the progress and end of a build."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from loadtrt.cuda.runtime import device_count, has_gpu
from loadtrt.engines.build_config import BuildOptions, option_of
from loadtrt.engines.flavour import Flavour, find_flavour
from loadtrt.engines.tensorrt_log import Journal, journal_of
from loadtrt.errors import EngineError, UsageError
from loadtrt.signals import SIGNALS

if TYPE_CHECKING:
    from collections.abc import Callable

_MODULES = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}
_BUILDERS = "TensorRT 8.6, 10, 11"


@dataclass(frozen=True, slots=True)
class Toolchain:
    """A flavour with a builder.

    weak_typing: the builder chooses types by flags (8.6, 10); without it the model decides.
    rtx: it builds for GPUs that are not in this machine.
    progress: it reports its steps and can be stopped.
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
    """The toolchain of --flavour, else the first that is installed: full TensorRT, then RTX.

    Raises EngineError where there is none, or it has no builder or no ONNX parser.
    """
    reasons = []
    for name in (wanted,) if wanted else tuple(_MODULES):
        candidate = find_flavour(_MODULES[name])
        if candidate.flavour is None:
            reasons.append(f"{candidate.name} {candidate.reason}")
        elif not (candidate.flavour.capabilities.build and hasattr(candidate.flavour.module, "OnnxParser")):
            reasons.append(f"{candidate.flavour} has no builder with an ONNX parser")
        else:
            return _toolchain(candidate.flavour)
    remedy = "pip install 'loadtrt[tensorrt]', or 'loadtrt[rtx]', which builds without a GPU too"
    if wanted:
        remedy = f"pip install 'loadtrt[{wanted}]'"
    raise EngineError(
        f"no TensorRT here builds plans ({'; '.join(reasons)}): {remedy} (lean and dispatch only run them)"
    )


def _toolchain(flavour: Flavour) -> Toolchain:
    module, progress = flavour.module, hasattr(flavour.module, "IProgressMonitor")
    return Toolchain(flavour, journal_of(module), has_flag(module, "FP16"), _for_other_gpus(module), progress)


def preflight(tool: Toolchain, options: BuildOptions) -> None:
    """Raises UsageError or EngineError for options that this flavour lacks, and where it needs a GPU and there is none.

    Must run before any `Builder()`: without a driver, several versions end the process in the constructor.
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
        for name in ("refit", "strip_weights"):  # observed: RTX's compiler fails with a message on stderr
            if getattr(options, name) and not has_gpu():
                raise UsageError(f"{tool.flavour} needs a GPU for {option_of(name)}, and there is none: leave it out")
        return
    if tool.rtx and not has_gpu():
        known = ", ".join(name.lower() for name in tool.module.ComputeCapability.__members__ if name.startswith("SM"))
        raise UsageError(
            f"{tool.flavour} builds for the GPU of this machine, which has none: "
            f"name the GPUs that the plan is for with --target, such as --target sm86,sm89 (it knows {known})"
        )
    count = device_count()
    if options.device >= count:
        raise UsageError(f"--device {options.device} does not exist; CUDA sees {count}, numbered from 0")


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
# option: (whether the module has it, which flavours do). Names without effect in RTX do not count.
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


T = TypeVar("T")

_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a build.

    fraction: of the outermost phase's steps, 0 to 1; steps differ in length. None where the builder does not report.
    """

    phase: str
    fraction: float | None
    elapsed_ns: int

    @property
    def remaining_ns(self) -> int | None:
        """Estimate of the time left, at the present pace; None in the first 5 %."""
        if self.fraction is None or self.fraction < 0.05:
            return None
        return round(self.elapsed_ns * (1 - self.fraction) / self.fraction)


@dataclass(slots=True)
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class Watch:
    """The phases that the builder reports, from any thread. stopped: whether the builder is asked to stop."""

    def __init__(self) -> None:
        self.stopped = False
        self._lock = threading.Lock()
        self._phases: dict[str, _Phase] = {}

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase begins, inside `parent`."""
        with self._lock:
            self._phases[name] = _Phase(parent, max(steps, 1))

    def step(self, name: str) -> bool:
        """A step is done; False asks the builder to stop."""
        with self._lock:
            if name in self._phases:
                self._phases[name].done += 1
        return not self.stopped

    def finish(self, name: str) -> None:
        """A phase ends."""
        with self._lock:
            self._phases.pop(name, None)

    def progress(self, elapsed_ns: int, *, reports: bool) -> Progress:
        """The progress at present."""
        with self._lock:
            phases = dict(self._phases)
            root = next((name for name, phase in phases.items() if phase.parent not in phases), None)
            fraction = _fraction(phases, root) if root else 0.0
            innermost = next(reversed(phases), "starting")
        return Progress(innermost, fraction if reports else None, elapsed_ns)


def _fraction(phases: dict[str, _Phase], name: str) -> float:
    """(steps done + the fraction of the step that is being done) / steps."""
    inner = max((_fraction(phases, child) for child, phase in phases.items() if phase.parent == name), default=0.0)
    phase = phases[name]
    return min((phase.done + inner) / phase.steps, 1.0)


def run_watched(tool: Toolchain, build: Callable[[Watch], T], show: Callable[[Progress], None] | None) -> T:
    """What `build` returns or raises, run in a thread; `show` is called a few times a second in the caller's.

    All of TensorRT belongs in `build`: Python raises KeyboardInterrupt in the main thread, and raised inside one of
    TensorRT's calls back it would go through C++. A signal: a builder that reports is asked to stop, and
    KeyboardInterrupt is raised when it has; at the second one, and where it cannot be stopped (8.6) at the first, the
    process ends at once, unless there are results to lose.
    """
    watch = Watch()
    outcome: list[T] = []
    errors: list[BaseException] = []
    done = threading.Event()

    def work() -> None:
        try:
            outcome.append(build(watch))
        except BaseException as error:
            errors.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=work, name="loadtrt-build")
    began = time.perf_counter_ns()
    failure: BaseException | None = None
    with SIGNALS.deferred():  # until the builder has ended: nothing may be freed under its thread
        thread.start()
        while True:
            try:
                if done.wait(_EVERY_S):
                    break
                if SIGNALS.requested():
                    watch.stopped = True
                    if (SIGNALS.hurried() or not tool.progress) and not SIGNALS.holds:
                        SIGNALS.die()
                elif show is not None and not watch.stopped:
                    show(watch.progress(time.perf_counter_ns() - began, reports=tool.progress))
            except BaseException as error:  # of `show`, or Ctrl-C where no command line has set SIGNALS' handlers
                watch.stopped, failure = True, error
        thread.join()
    for reason in (failure, *errors):
        if reason is not None:
            raise reason
    return outcome[0]


def attach(tool: Toolchain, config: Any, watch: Watch) -> Any:
    """Have the builder report to `watch`; the answer must live as long as `config`."""
    if not tool.progress:
        return None
    monitor = _monitor(tool.module, watch)
    config.progress_monitor = monitor
    return monitor


def _monitor(module: Any, watch: Watch) -> Any:
    """An instance of a subclass of the module's IProgressMonitor."""

    class Monitor(module.IProgressMonitor):  # type: ignore[misc]  # a class only known at run time
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)  # pybind11 needs its own constructor, not super()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            watch.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:  # noqa: ARG002  # TensorRT's signature
            return watch.step(phase_name)

        def phase_finish(self, phase_name: str) -> None:
            watch.finish(phase_name)

    return Monitor()
