"""The machine that a benchmark ran on, in one line."""

from __future__ import annotations

from contextlib import suppress

from loadtrt.cuda.runtime import device_properties, versions
from loadtrt.environment import environment
from loadtrt.errors import EngineError


def machine_line() -> str:
    """Processor, cores, Python, packages that matter, and the GPU where there is one."""
    facts = environment()
    packages = {name: version for name, version in facts["packages"].items() if name in _NAMED and version}
    parts = [f"{facts['cpu']}, {facts['cores']} cores", f"CPython {facts['python']}"]
    parts += [f"{name} {version}" for name, version in packages.items()]
    with suppress(EngineError):
        parts += [device_properties(0).name, "driver for CUDA {}, runtime {}".format(*versions())]
    return " · ".join(parts)


_NAMED = ("numpy", "anyio", "cuda-bindings", "tensorrt", "tensorrt-dispatch")
