"""The machine and software that a run happened on, for run.json."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("anyio", "numpy", "onnx", "onnxruntime", "cuda-bindings", "nvidia-ml-py", "pydantic")


def environment() -> dict[str, Any]:
    """Operating system, CPU and packages; {} entries are left out where they are not known."""
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
    """Of a distribution, as pip knows it; None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def cpu_model(root: Path = Path("/")) -> str:
    """The processor's name, or its architecture where it has none there (ARM). root: where /proc lies."""
    try:
        with (root / "proc/cpuinfo").open(encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()
