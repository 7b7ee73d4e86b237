"""TensorRT modules: which are installed, what each can do, and which of them runs a plan.

A flavour is one TensorRT-like module: tensorrt, tensorrt_lean, tensorrt_dispatch, tensorrt_rtx. The names in a module
decide what it can do; version numbers serve only the messages and the rules of version compatibility.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loadtrt.engines.installing import to_install
from loadtrt.engines.shared_library import soname
from loadtrt.engines.tensorrt_log import journal_of
from loadtrt.errors import EngineError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.engines.plan import PlanHeader

# In the order of preference for a TensorRT plan; each with the name of its library's file.
_LIBRARIES = {
    "tensorrt": "libnvinfer.so",
    "tensorrt_lean": "libnvinfer_lean.so",
    "tensorrt_dispatch": "libnvinfer_dispatch.so",
    "tensorrt_rtx": "libtensorrt_rtx.so",
}
FLAVOURS = tuple(_LIBRARIES)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a module can do, by the names it has.

    inspector: the class exists (lean and dispatch have the method without the class).
    shared_profiles: contexts may share a profile; without it only plans built with PROFILE_SHARING_0806 may.
    rtx_config: kernel specialisation can be chosen.
    capture_query: a context knows whether it can be captured.
    validity: a plan can be judged before it is loaded.
    bindings_api: the old API with implicit batch still exists.
    """

    build: bool
    plugins: bool
    inspector: bool
    engine_stat: bool
    profile_values: bool
    shared_profiles: bool
    rtx_config: bool
    capture_query: bool
    validity: bool
    bindings_api: bool


@dataclass(frozen=True, slots=True)
class Flavour:
    """One TensorRT module that imports.

    libs: the file of the library; None where that is unknown.
    """

    name: str
    module: Any
    version: str
    capabilities: Capabilities
    libs: Path | None

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True, slots=True)
class FoundFlavour:
    """One name of FLAVOURS: its flavour, or why it is not usable ("is not installed", what failed in its import)."""

    name: str
    flavour: Flavour | None
    reason: str


def find_flavours() -> list[FoundFlavour]:
    """All of FLAVOURS, importable or not. Imports them; starts no runtime; never raises for a broken installation."""
    return [find_flavour(name) for name in FLAVOURS]


def choose_flavour(header: PlanHeader, wanted: str | None = None, *, lean: bool = False) -> Flavour:
    """The flavour that runs the plan: `wanted` (--module), or the first that is here and can.

    lean: whether it will have the lean runtime that the plan was built without, from a library.

    Of a plan without its lean runtime no header tells whether it is version-compatible: where no flavour is sure to run
    it, the first that is here is to be asked. Raises UsageError for a `wanted` that is not a flavour or of the wrong
    family, EngineError where none runs the plan.
    """
    names = [name for name in FLAVOURS if (name == "tensorrt_rtx") == (header.family == "rtx")]
    names = names[::-1] if lean else names  # the smallest suffices
    if wanted is not None:
        name = wanted.removesuffix("_bindings")
        if name not in FLAVOURS:
            raise UsageError(f"--module {wanted} is not a TensorRT module: choose one of {', '.join(FLAVOURS)}")
        if name not in names:
            raise UsageError(
                f"--module {wanted} cannot run {header.path}, which {header.built_by} built: "
                f"leave --module out, or choose {' or '.join(names)}"
            )
        names = [name]
    reasons, doubtful = {}, None
    for name in names:
        candidate = find_flavour(name)
        refusal = candidate.reason if candidate.flavour is None else refusal_of(header, candidate.flavour, lean=lean)
        if candidate.flavour is not None and refusal is None:
            return candidate.flavour
        doubtful = doubtful or candidate.flavour
        if candidate.reason != _MISSING:
            reasons[str(candidate.flavour or name)] = refusal
    if doubtful is not None and not (header.carries_host_code or lean):
        return doubtful
    if reasons:
        why = "; ".join(f"{name} {reason}" for name, reason in reasons.items())
    else:
        why = f"{' or '.join(names)} {_MISSING}"
    subject = f"--module {wanted} cannot" if wanted else "no TensorRT here can"
    raise EngineError(f"{subject} run {header.path}, which {header.built_by} built ({why}): {to_install(header)}")


def capabilities_of(module: Any) -> Capabilities:
    """What this module can do."""
    engine, context = module.ICudaEngine, module.IExecutionContext
    return Capabilities(
        build=hasattr(module, "Builder"),
        plugins=hasattr(module, "init_libnvinfer_plugins"),
        inspector=hasattr(module, "EngineInspector"),
        engine_stat=hasattr(engine, "get_engine_stat") and hasattr(module, "EngineStat"),
        profile_values=hasattr(engine, "get_tensor_profile_values"),
        shared_profiles=hasattr(module, "ExecutionContextAllocationStrategy"),
        rtx_config=hasattr(module, "DynamicShapesKernelSpecializationStrategy"),
        capture_query=hasattr(context, "is_stream_capturable"),
        validity=hasattr(module.Runtime, "get_engine_validity"),
        bindings_api=hasattr(engine, "num_bindings"),
    )


_MISSING = "is not installed"


def find_flavour(name: str) -> FoundFlavour:
    """Import `name`, or `name`_bindings: the frontend only re-exports those, and some hosts have them alone."""
    reason = _MISSING
    for candidate in (name, f"{name}_bindings"):
        try:
            module = importlib.import_module(candidate)
        except ModuleNotFoundError as error:
            if error.name != candidate and reason == _MISSING:
                reason = f"cannot be imported: it needs the module {error.name}"
        except Exception as error:  # missing shared libraries, a wrong Python, a half-finished installation: all kinds
            reason = f"cannot be imported: {' '.join(str(error).split())}"
        else:
            if all(hasattr(module, part) for part in ("Runtime", "ICudaEngine", "ILogger", "__version__")):
                flavour = Flavour(name, module, module.__version__, capabilities_of(module), _libs(name))
                return FoundFlavour(name, flavour, "")
            reason = f"is not TensorRT: the module at {getattr(module, '__file__', None) or candidate} has no Runtime"
    return FoundFlavour(name, None, reason)


def _libs(name: str) -> Path | None:
    """The library's file, as the process has mapped it."""
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(rf"(/\S*{re.escape(_LIBRARIES[name])}\S*)$", maps, re.MULTILINE)
    return Path(found[1]) if found else None


def refusal_of(header: PlanHeader, flavour: Flavour, *, lean: bool = False) -> str | None:
    """Why this flavour fails on the plan, as the end of a sentence; None where it may work.

    Plans need the version that built them, unless they carry a lean runtime, or have one from a library: then a newer
    one runs them too, but not across two major versions (8 to 10 and 10 to 11 are supported, 8 to 11 is not). Builds
    and patches are left to the library to judge: the bindings' number is not always the library's (8.6.1 bindings run
    on 8.6.0 libraries). RTX judges its own plans.

    lean: as for `choose_flavour`.
    """
    if header.family == "rtx":
        return None
    plan, here = header.version[:2], _numbers(flavour.version)[:2]
    if header.carries_host_code or lean:
        if plan > here:
            return "is older than the plan"
        if plan[0] <= 8 and here[0] >= 11:
            return "does not read plans of TensorRT 8 any more, 10 does"
        return None
    if flavour.name == "tensorrt_dispatch":
        return "runs only version-compatible plans, with a lean runtime"
    if plan != here:
        return "is another version"
    return None


def unsupported_gpu(flavour: Flavour, capability: tuple[int, int]) -> str | None:
    """ "TensorRT-RTX does not support compute capability 9.0 (supported: 8.0 8.6)"; None where it is not known that the
    flavour runs nothing on such a GPU. RTX names the GPUs that it builds for, and takes all later ones."""
    if flavour.name != "tensorrt_rtx":
        return None
    names = getattr(getattr(flavour.module, "ComputeCapability", None), "__members__", ())
    known = [(int(name[2:-1]), int(name[-1])) for name in names if re.fullmatch(r"SM\d{2,}", name)]
    if not known or capability in known or capability > max(known):
        return None
    listed = " ".join(f"{major}.{minor}" for major, minor in known)
    return f"TensorRT-RTX does not support compute capability {capability[0]}.{capability[1]} (supported: {listed})"


INSTEAD_OF_RTX = "use full TensorRT, pip install 'loadtrt[tensorrt]', and 'loadtrt build --flavour tensorrt'"


def require_plugins(plugins: Sequence[str]) -> None:
    """Raises UsageError where a file of --plugins is missing, is not a shared library, or is a runtime without
    plugins. Needs no TensorRT."""
    remedy = "name the library that has the operators"
    for plugin in plugins:
        if not Path(plugin).is_file():
            raise UsageError(f"--plugins {plugin}: the file does not exist")
        known = soname(plugin, "--plugins", remedy)
        if known.startswith(("libnvinfer_lean.", "libnvinfer_dispatch.")):
            lean = "; --lean-library is for the lean runtime" if "_lean." in known else ""
            raise UsageError(f"--plugins {plugin} is {known}, which has no plugins: {remedy}{lean}")


def load_plugins(flavour: Flavour, plugins: Sequence[str]) -> None:
    """Register TensorRT's own plugins, where the flavour has any, and the libraries `plugins`. Raises EngineError."""
    journal = journal_of(flavour.module)
    if flavour.capabilities.plugins:
        flavour.module.init_libnvinfer_plugins(journal.logger, "")
    for plugin in plugins:
        mark = journal.mark()
        try:
            handle = flavour.module.get_plugin_registry().load_library(str(Path(plugin).resolve()))
        except (RuntimeError, TypeError):
            handle = None
        if handle is None:
            raise EngineError(f"{flavour} cannot load plugin library {plugin}: {journal.reason(mark)}")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:4])
