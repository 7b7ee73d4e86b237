"""How the TensorRT of a plan is installed: pip's line for its version, and which index its libraries come from.

The versions are those that PyPI had on 2026-11-30. It has all of lean, dispatch and RTX; of full TensorRT it has the
bindings, whose installation fetches the libraries from NVIDIA's own index.
"""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from loadtrt.engines.plan import PlanHeader

_VERSIONS = (
    "10.0.1 10.1.0 10.2.0 10.3.0 10.4.0 10.5.0 10.6.0 10.7.0 10.8.0 10.9.0 10.10.0 10.11.0 10.12.0 10.13.0 10.13.2 "
    "10.13.3 10.14.1 10.15.1 10.16.0 10.16.1 11.0.0 11.1.0 11.2.1 11.3.0 11.4.0"
)
_RTX_VERSIONS = "1.4.0 1.5.0 1.6.1 1.7.1"
_FIRST_CUDA_13 = (10, 13, 2)
_FIRST_DISPATCH = (10, 15, 1)  # before, its wheel has no library
_NVIDIA_S_INDEX = "NVIDIA's own index"


class PipLine(NamedTuple):
    """pip's line for a plan.

    line: "" where PyPI does not have the version.
    note: what else there is to know, as the end of a sentence; "" for nothing.
    """

    line: str
    note: str = ""

    def __str__(self) -> str:
        return f"{self.line} ({self.note})" if self.line and self.note else self.line or self.note


def pip_line(header: PlanHeader) -> PipLine:
    """What installs a TensorRT that runs the plan: the version that built it, or for a plan with a lean runtime inside
    that one or any newer one of the dispatch runtime, which is the smallest."""
    version = header.version[:3]
    text = ".".join(map(str, version))
    if header.family == "rtx":
        absent = _absent(version, _RTX_VERSIONS, "TensorRT-RTX")
        return absent or PipLine(f"pip install 'loadtrt[rtx]' 'tensorrt-rtx-cu13=={text}.*'")
    if header.carries_host_code:
        if version[0] <= 8:  # the newest dispatch runtime reads one major version back
            return PipLine("pip install 'loadtrt[dispatch]' 'tensorrt-dispatch-cu13<11'")
        newer = "" if version <= _FIRST_DISPATCH else f" 'tensorrt-dispatch-cu13>={text}'"
        return PipLine(f"pip install 'loadtrt[dispatch]'{newer}")
    source = f"its libraries come from {_NVIDIA_S_INDEX}"
    if version[:2] == (8, 6):  # 8.6.1 runs plans of 8.6.0, too
        return PipLine("pip install 'loadtrt[cu12]' 'tensorrt==8.6.1.*'", f"with CPython 3.11, its last; {source}")
    absent = _absent(version, _VERSIONS, "TensorRT")
    if absent:
        return absent
    if version < _FIRST_CUDA_13:
        return PipLine(f"pip install 'loadtrt[tensorrt-cu12]' 'tensorrt-cu12=={text}.*'", source)
    older = f"{source}; with a driver before R580 take 'loadtrt[tensorrt-cu12]' and tensorrt-cu12"
    return PipLine(f"pip install 'loadtrt[tensorrt]' 'tensorrt-cu13=={text}.*'", older)


def _absent(version: tuple[int, ...], versions: str, name: str) -> PipLine | None:
    """That PyPI does not have a version; None for one that it has, or that is newer than what is known of it."""
    listed = [tuple(map(int, each.split("."))) for each in versions.split()]
    if version in listed or version > listed[-1]:
        return None
    text = ".".join(map(str, version))
    return PipLine("", f"{name} {text} was not on PyPI on 2026-11-30: take it from NVIDIA's downloads or containers")


def to_install(header: PlanHeader) -> str:
    """What to install for this plan."""
    found = pip_line(header)
    if header.family == "rtx" or header.carries_host_code:
        return str(found)
    return f"install that TensorRT, {found}, or build the plan again with the installed one"


def origin_of(library: Path | None) -> str:
    """ "tensorrt_rtx_cu13_libs 1.7.1.116, which is on PyPI": the package that a library lies in, and the index that has
    it; where none has it, whose it may be."""
    if library is None:
        return "of unknown origin"
    for distribution in metadata.distributions():
        name = re.sub(r"[-_.]+", "_", distribution.metadata["Name"] or "").lower()
        if not name.startswith("tensorrt"):
            continue
        places = (Path(str(file.locate())) for file in distribution.files or () if file.name == library.name)
        if any(place.resolve() == library.resolve() for place in places):
            # Full TensorRT's packages of libraries are, on PyPI, programs that fetch them.
            full = re.fullmatch(r"tensorrt(_cu\d+)?(_libs)?", name) is not None
            index = f"which comes from {_NVIDIA_S_INDEX}" if full else "which is on PyPI"
            return f"of {name} {distribution.version}, {index}"
    return "of no pip package: of the system, a container or an archive of NVIDIA's"
