"""What this machine can run, what is wrong with it, and what to do about it. Works, and says so, without a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from loadtrt.doctor.check import Check, Group, Report, conclude, fail

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Check", "Group", "Report", "examine"]


def examine(root: Path = Path("/")) -> Report:
    """Examine this machine; `root` is where /proc, /sys and /dev lie. Takes about a second a GPU; never raises.

    Opens a CUDA context on every visible GPU, the only proof that it can be used; it lives until this process ends.
    """
    from loadtrt.doctor import gpu, host, software

    groups = [
        *_examined("Python and packages", lambda: [Group("Python and packages", software.packages())]),
        *_examined("Host", lambda: [Group("Host", host.host(root))]),
        *_examined("Limits and permissions", lambda: [Group("Limits and permissions", host.limits(root))]),
        *_examined("Driver and CUDA", lambda: [Group("Driver and CUDA", gpu.driver(root))]),
        *_examined("GPU", gpu.gpus),
        *_examined("TensorRT", lambda: [Group("TensorRT", software.tensorrt())]),
    ]
    return conclude(groups)


def _examined(title: str, look: Callable[[], list[Group]]) -> list[Group]:
    """A doctor that dies of the illness helps nobody: what a look did not expect becomes a failed check."""
    try:
        return look()
    except Exception as error:
        found = f"could not be examined: {type(error).__name__}: {error}"
        remedy = "please report this with the output of 'loadtrt doctor --json'"
        return [Group(title, [fail("examination", found, remedy)])]
