"""The machine that a benchmark ran on, in one line."""

from __future__ import annotations

from contextlib import suppress

from loadtrt.cuda.runtime import device_properties, versions
from loadtrt.environment import environment
from loadtrt.errors import EngineError


def machine_line() -> str:
    """Processor, cores, Python, packages that matter, and the GPU where there is one."""
    found = environment()
    packages = {name: version for name, version in found["packages"].items() if name in _NAMED and version}
    parts = [f"{found['cpu']}, {found['cores']} cores", f"CPython {found['python']}"]
    parts += [f"{name} {version}" for name, version in packages.items()]
    with suppress(EngineError):
        parts += [device_properties(0).name, "driver for CUDA {}, runtime {}".format(*versions())]
    return " · ".join(parts)


_NAMED = ("numpy", "anyio", "cuda-bindings", "tensorrt", "tensorrt-dispatch")
