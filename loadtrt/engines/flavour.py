"""TensorRT modules: which are installed, what each can do, which of them runs a plan, and what each of them logs.

A flavour is one TensorRT-like module: tensorrt, tensorrt_lean, tensorrt_dispatch, tensorrt_rtx. The names in a module
decide what it can do; version numbers serve only the messages and the rules of version compatibility.

TensorRT's own Logger writes to stdout, which is for results, and a failing call returns None or False with its reason
only in the log. So each module has one Journal, which keeps recent errors for loadtrt's own sentences and passes every
message to Python's logger "loadtrt.tensorrt". TensorRT keeps the first logger that it gets: one for each process.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import re
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loadtrt.errors import EngineError, UsageError
from loadtrt.printing import shortened
from loadtrt.reading_files import open_file

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
    """One TensorRT module that imports. `libs`: the file of the library; None where that is unknown."""

    name: str
    module: Any
    version: str
    capabilities: Capabilities
    libs: Path | None

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True, slots=True)
class Found:
    """One name of FLAVOURS: its flavour, or why it is not usable ("is not installed", what failed in its import)."""

    name: str
    flavour: Flavour | None
    reason: str


def find_flavours() -> list[Found]:
    """All of FLAVOURS, importable or not. Imports them; starts no runtime; never raises for a broken installation."""
    return [find_flavour(name) for name in FLAVOURS]


def choose_flavour(header: PlanHeader, wanted: str | None = None) -> Flavour:
    """The flavour that runs the plan: `wanted` (--module), or the first that is here and can.

    Raises UsageError for a `wanted` that is not a flavour or of the wrong family, EngineError where none runs the plan.
    """
    names = [name for name in FLAVOURS if (name == "tensorrt_rtx") == (header.family == "rtx")]
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
    reasons = {}
    for name in names:
        candidate = find_flavour(name)
        refusal = candidate.reason if candidate.flavour is None else _refusal(header, candidate.flavour)
        if candidate.flavour is not None and refusal is None:
            return candidate.flavour
        if candidate.reason != _MISSING:
            reasons[str(candidate.flavour or name)] = refusal
    if reasons:
        why = "; ".join(f"{name} {reason}" for name, reason in reasons.items())
    else:
        why = f"{' or '.join(names)} {_MISSING}"
    subject = f"--module {wanted} cannot" if wanted else "no TensorRT here can"
    raise EngineError(f"{subject} run {header.path}, which {header.built_by} built ({why}): {_install(header)}")


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


def find_flavour(name: str) -> Found:
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
                return Found(name, Flavour(name, module, module.__version__, capabilities_of(module), _libs(name)), "")
            reason = f"is not TensorRT: the module at {getattr(module, '__file__', None) or candidate} has no Runtime"
    return Found(name, None, reason)


def _libs(name: str) -> Path | None:
    """The library's file, as the process has mapped it."""
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(rf"(/\S*{re.escape(_LIBRARIES[name])}\S*)$", maps, re.MULTILINE)
    return Path(found[1]) if found else None


def _refusal(header: PlanHeader, flavour: Flavour) -> str | None:
    """Why this flavour is certain to fail on the plan, as the end of a sentence; None where it may work.

    Plans need the version that built them, unless they carry a lean runtime: then a newer one runs them too, but not
    across two major versions (8 to 10 and 10 to 11 are supported, 8 to 11 is not). Builds and patches are left to the
    library to judge: the bindings' number is not always the library's (8.6.1 bindings run on 8.6.0 libraries).
    RTX judges its own plans.
    """
    if header.family == "rtx":
        return None
    plan, here = header.version[:2], _numbers(flavour.version)[:2]
    if header.carries_host_code:
        if plan > here:
            return "is older than the plan"
        if plan[0] <= 8 and here[0] >= 11:
            return "does not read plans of TensorRT 8 any more, 10 does"
        return None
    if flavour.name == "tensorrt_dispatch":
        return "runs only version-compatible plans with their lean runtime inside"
    if plan != here:
        return "is another version, and the plan is not a version-compatible one with its lean runtime inside"
    return None


def _install(header: PlanHeader) -> str:
    """What to install for this plan."""
    exact = ".".join(map(str, header.version[:3])) + ".*"
    if header.family == "rtx":
        return f"pip install 'loadtrt[rtx]' 'tensorrt-rtx-cu13=={exact}'"
    if not header.carries_host_code:
        return f"install that TensorRT, pip install 'tensorrt=={exact}', or build the plan again with the installed one"
    # The newest dispatch runtime reads one major version back; the extra alone would fetch it for a plan of 8 too.
    return "pip install 'loadtrt[dispatch]'" + (" 'tensorrt-dispatch-cu13<11'" if header.version[0] <= 8 else "")


def require_plugins(plugins: Sequence[str]) -> None:
    """Raises UsageError where a file of --plugins is missing, or is no library at all. Needs no TensorRT."""
    for plugin in plugins:
        if not Path(plugin).is_file():
            raise UsageError(f"--plugins {plugin}: the file does not exist")
        open_file(plugin, "--plugins").close()


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


_LEVELS = {"WARNING": logging.WARNING, "INFO": logging.INFO, "VERBOSE": logging.DEBUG}
_KEPT = 64
_QUOTED = 400  # characters of a reason

PYTHON_LOGGER = logging.getLogger("loadtrt.tensorrt")
PYTHON_LOGGER.addHandler(logging.NullHandler())  # silent unless the caller configures logging

_journals: dict[str, Journal] = {}
_lock = threading.Lock()


class Journal:
    """The recent errors of one TensorRT module, and the logger object that fills it. Any thread may log."""

    def __init__(self, module: Any) -> None:
        self._errors: deque[tuple[int, str, str]] = deque(maxlen=_KEPT)
        self._count = 0
        self.logger = _logger(module, self)

    def add(self, severity: str, message: str) -> None:
        """`severity`: TensorRT's name for it. INTERNAL_ERROR alone is not a failure: RTX uses it for notices."""
        text = " ".join(message.split())
        if severity in ("ERROR", "INTERNAL_ERROR"):
            with _lock:
                self._count += 1
                self._errors.append((self._count, severity, text))
        PYTHON_LOGGER.log(_LEVELS.get(severity, logging.ERROR), "%s", text)

    def mark(self) -> int:
        """A point in the log, for `reason`."""
        return self._count

    def errors_since(self, mark: int) -> list[str]:
        """Errors logged after `mark`, oldest first; internal ones only where there is no other."""
        with _lock:
            recent = [(severity, text) for count, severity, text in self._errors if count > mark]
        plain = [text for severity, text in recent if severity == "ERROR"]
        return list(dict.fromkeys(plain or [text for _, text in recent]))

    def reason(self, mark: int) -> str:
        """Why an operation begun at `mark` failed: the first two errors, as TensorRT logs causes before effects."""
        errors = self.errors_since(mark)
        text = "; ".join(error.rstrip(".") for error in errors[:2]) or "nothing: TensorRT gave no reason"
        return shortened(text, _QUOTED)

    def latest(self, mark: int) -> str:
        """The last error after `mark`."""
        errors = self.errors_since(mark)
        return shortened(errors[-1], _QUOTED) if errors else "TensorRT gave no reason"


def journal_of(module: Any) -> Journal:
    """The one journal of this TensorRT module in this process."""
    with _lock:
        if module.__name__ not in _journals:
            _journals[module.__name__] = Journal(module)
        return _journals[module.__name__]


def _logger(module: Any, journal: Journal) -> Any:
    """An instance of a subclass of the module's ILogger."""

    class Log(module.ILogger):  # type: ignore[misc]  # a class that is only known at run time
        def __init__(self) -> None:
            module.ILogger.__init__(self)  # pybind11 needs its own constructor, not super()

        def log(self, severity: Any, message: str) -> None:
            with contextlib.suppress(Exception):  # an exception here would end the process: C++ calls this
                journal.add(severity.name, message)

    return Log()
