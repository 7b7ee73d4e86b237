"""The machine and software that a run happened on, for run.json."""

from __future__ import annotations

import importlib
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

_FATAL = 4  # ONNX Runtime's log severity: what it has to say comes back as exceptions
PACKAGES = ("anyio", "numpy", "onnx", "onnxruntime", "cuda-bindings", "nvidia-ml-py", "pydantic")


def environment() -> dict[str, Any]:
    """Operating system, CPU and packages. A package that is not installed is left out."""
    versions = {package: version_of(package) for package in PACKAGES}
    return {
        "host": platform.node(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "packages": {package: version for package, version in versions.items() if version is not None},
    }


def version_of(package: str) -> str | None:
    """The version of an installed distribution; None where it is not installed. package: its name on PyPI."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def import_onnxruntime(module: str = "onnxruntime") -> Any:
    """ONNX Runtime, or a module of it, with its telemetry off and its log silent; nothing else imports it.

    ONNX Runtime 1.32 keeps an identifier in the home folder, starts a thread and asks for a host of Microsoft's, unless
    the variable is set before it is imported. `disable_telemetry_events` is for a process that has imported it already.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    onnxruntime = importlib.import_module("onnxruntime")
    onnxruntime.disable_telemetry_events()
    onnxruntime.set_default_logger_severity(_FATAL)  # sessions and runs take it over
    return importlib.import_module(module)


def memory_bytes(root: Path = Path("/")) -> dict[str, int]:
    """The lines of /proc/meminfo by name (MemTotal, MemAvailable, …), in bytes. root: folder of /proc."""
    try:
        lines = (root / "proc/meminfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return {}
    sizes = (line.replace(":", " ").split() for line in lines)
    return {words[0]: int(words[1]) * 1024 for words in sizes if words[2:] == ["kB"]}


def cpu_model(root: Path = Path("/")) -> str:
    """The processor's name; its architecture where /proc/cpuinfo has no name (ARM). root: folder of /proc."""
    try:
        with (root / "proc/cpuinfo").open(encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()
