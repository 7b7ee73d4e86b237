"""Python, the packages loadtrt stands on, and the TensorRT modules that can be imported."""

from __future__ import annotations

import platform
import sys
from dataclasses import fields
from typing import TYPE_CHECKING

from loadtrt import __version__
from loadtrt.cuda import runtime
from loadtrt.doctor.check import ONNX_RUNTIME, Check, fail, info, ok, warn
from loadtrt.engines.flavour import find_flavours
from loadtrt.environment import version_of
from loadtrt.errors import EngineError

if TYPE_CHECKING:
    from loadtrt.engines.flavour import Flavour, Found

# Distribution names, as pip knows them. cuda-bindings and TensorRT are optional and have checks of their own.
PACKAGES = (
    "anyio",
    "click",
    "ml_dtypes",
    "numpy",
    "nvidia-ml-py",
    "onnx",
    "onnxconverter-common",
    "pydantic",
    "PyYAML",
    "rich",
)


def packages() -> list[Check]:
    """The interpreter, what is installed beside loadtrt, and whether ONNX Runtime loads."""
    python = f"{platform.python_implementation()} {platform.python_version()} ({sys.executable}), {platform.platform()}"
    versions = {"loadtrt": __version__, **{name: version_of(name) for name in PACKAGES}}  # may run uninstalled
    missing = [name for name, version in versions.items() if version is None]
    found = ", ".join(f"{name} {version}" for name, version in versions.items() if version is not None)
    checks = [info("Python", python), ok("packages", found)]
    if missing:
        checks.append(fail("missing packages", ", ".join(missing), f"pip install {' '.join(missing)}"))
    return [*checks, _onnxruntime()]


def tensorrt() -> list[Check]:
    """Each TensorRT module with its version, library and abilities. Imports them, but starts no runtime: without a
    driver that would end the process."""
    found = find_flavours()
    gpus = _compute_capabilities()
    here = [_module(item.flavour, gpus) for item in found if item.flavour is not None]
    absent = [item.name for item in found if item.flavour is None and _absent(item)]
    broken = [_broken(item, bool(gpus)) for item in found if item.flavour is None and not _absent(item)]
    if here:
        return [*here, *broken, *([info("not installed", ", ".join(absent))] if absent else [])]
    nothing = f"none that loads (looked for {', '.join(item.name for item in found)})"
    remedy = "pip install 'loadtrt[tensorrt]' (or lean, dispatch, rtx), in the version that built your plans"
    return [*broken, warn("modules", nothing, remedy) if gpus else info("modules", nothing)]


def _module(flavour: Flavour, gpus: list[tuple[int, int]]) -> Check:
    able = [field.name for field in fields(flavour.capabilities) if getattr(flavour.capabilities, field.name)]
    found = f"{flavour.version}; library {flavour.libs or 'not told'}; can {', '.join(able) or 'run plans only'}"
    if flavour.name == "tensorrt_rtx" and gpus and not any(map(_suits_rtx, gpus)):
        refused = ", ".join(f"{major}.{minor}" for major, minor in gpus)
        remedy = "use TensorRT itself on this GPU: pip install 'loadtrt[tensorrt]'"
        return warn(flavour.name, f"{found}; but it refuses compute capability {refused}", remedy)
    return ok(flavour.name, found)


def _suits_rtx(compute_capability: tuple[int, int]) -> bool:
    """What TensorRT-RTX 1.7 says when it refuses another GPU, and 7.5 from its support matrix."""
    return compute_capability in ((7, 5), (8, 0), (8, 6), (8, 9)) or compute_capability >= (12, 0)


def _absent(item: Found) -> bool:
    return item.reason.endswith("not installed")


def _broken(item: Found, gpu: bool) -> Check:
    """Beside a GPU a module that does not load is broken; without a driver it may merely lack that."""
    remedy = f"install {item.name} again, in one version with its libraries: pip install --force-reinstall"
    return fail(item.name, item.reason, remedy) if gpu else warn(item.name, item.reason, remedy)


def _compute_capabilities() -> list[tuple[int, int]]:
    """Of every GPU that CUDA sees; none where CUDA cannot tell (the driver's checks say why)."""
    try:
        return [runtime.device_properties(index).compute_capability for index in range(runtime.device_count())]
    except EngineError:
        return []


def _onnxruntime() -> Check:
    """Imported, since an installed ONNX Runtime may still lack a library."""
    try:
        import onnxruntime

        providers = [name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()]
    except Exception as error:  # a broken extension module raises whatever it likes
        found = f"{version_of('onnxruntime') or 'not installed'}: {type(error).__name__}: {error}"
        return fail(ONNX_RUNTIME, found, "pip install --force-reinstall onnxruntime")
    return ok(ONNX_RUNTIME, f"{onnxruntime.__version__}, providers {', '.join(providers)}")
