"""The lean runtime that runs a version-compatible plan which was built without its own (EXCLUDE_LEAN_RUNTIME): a shared
library of the TensorRT version that built the plan, which another version loads."""

from __future__ import annotations

import ctypes
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loadtrt.engines.shared_library import soname
from loadtrt.errors import EngineError, UsageError

if TYPE_CHECKING:
    from loadtrt.engines.flavour import Flavour
    from loadtrt.engines.plan import PlanHeader
    from loadtrt.engines.tensorrt_log import Journal

_PACKAGES = ("tensorrt_lean_libs", "tensorrt_lean")  # TensorRT 8.6 has the library beside its bindings
_ENTRY = "createLeanRuntime"  # what TensorRT calls in the library


@dataclass(frozen=True, slots=True)
class LeanLibrary:
    """A lean runtime's file, and its version, such as (8, 6, 0)."""

    path: Path
    version: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.path} (TensorRT {'.'.join(map(str, self.version))})"


def named_library(name: str, header: PlanHeader) -> LeanLibrary:
    """The library of --lean-library. Loads it. Raises UsageError for a file that is not there or no lean runtime, and
    for a plan of RTX, which has none."""
    if header.family == "rtx":
        raise UsageError(
            f"--lean-library is for plans of TensorRT, and {header.built_by} built {header.path}: leave it out"
        )
    remedy = f"name a file such as {_example(header)}"
    known = soname(name, "--lean-library", remedy)
    if known and not known.startswith("libnvinfer_lean."):  # the dispatch runtime has the entry, too
        raise UsageError(f"--lean-library {name} is {known}, which is not a lean runtime of TensorRT: {remedy}")
    try:
        return _loaded(Path(name).resolve())
    except OSError as error:
        raise UsageError(f"--lean-library {name} cannot be loaded: {error}") from None
    except AttributeError:
        raise UsageError(f"--lean-library {name} is not a lean runtime of TensorRT: {remedy}") from None


def installed_library(header: PlanHeader) -> LeanLibrary | None:
    """The library of the version that built the plan, where a package of Python holds it; None for none. Packages are
    not imported: their bindings may be for another Python."""
    for package in _PACKAGES:
        try:
            spec = importlib.util.find_spec(package)
        except ValueError:  # a module that was made by hand
            continue
        for folder in (spec and spec.submodule_search_locations) or ():
            for path in sorted(Path(folder).glob(f"libnvinfer_lean.so.{header.version[0]}*")):
                try:
                    library = _loaded(path)
                except (OSError, AttributeError):
                    continue
                if library.version[:2] == header.version[:2]:
                    return library
    return None


def load_library(library: LeanLibrary, flavour: Flavour, journal: Journal, runtime: Any) -> Any:
    """The runtime in the library. `runtime`, of the flavour, must outlive it. Raises EngineError."""
    mark = journal.mark()
    try:
        lean = runtime.load_runtime(str(library.path))
    except (RuntimeError, TypeError):
        lean = None
    if lean is None:
        raise EngineError(f"{flavour} cannot load the lean runtime {library}; TensorRT says {journal.reason(mark)}")
    return lean


def how_to_name(header: PlanHeader) -> str:
    """The remedy for a plan without its lean runtime."""
    version = ".".join(map(str, header.version[:3]))
    return f"name the lean runtime of TensorRT {version} with --lean-library, such as {_example(header)}"


def _example(header: PlanHeader) -> str:
    exact = ".".join(map(str, header.version[:3])) + ".*"
    package = "tensorrt-lean" if header.version[0] <= 8 else "tensorrt-lean-cu13-libs"
    return f"libnvinfer_lean.so.{header.version[0]} of pip's {package}=={exact}"


def _loaded(path: Path) -> LeanLibrary:
    """Raises OSError for what the system's loader refuses, AttributeError for another library."""
    library = ctypes.CDLL(str(path))
    getattr(library, _ENTRY)
    number = int(library.getInferLibVersion())
    thousand = 10_000 if number >= 100_000 else 1_000  # 8600 is 8.6.0, 101601 is 10.16.1
    return LeanLibrary(path, (number // thousand, number % thousand // 100, number % 100))
