"""The machine and software that a run happened on, for run.json."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loadtrt.live.telemetry import Gpu, GpuReading

PACKAGES = ("anyio", "numpy", "onnx", "onnxruntime", "cuda-bindings", "nvidia-ml-py", "pydantic")


def environment() -> dict[str, Any]:
    """Operating system, CPU and packages; {} entries are left out where they are not known."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "host": platform.node(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "packages": versions,
    }


def gpu_environment(gpu: Gpu, before: GpuReading, after: GpuReading) -> dict[str, Any]:
    """The GPU, and its clocks, power and temperature right before and right after measuring."""
    return {
        "name": gpu.name,
        "uuid": gpu.uuid,
        "driver": gpu.driver,
        "before": asdict(before),
        "after": asdict(after),
    }


def cpu_model() -> str:
    """The processor's name, or its architecture where it has none there (ARM)."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()
