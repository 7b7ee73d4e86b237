"""Whether there is what a run needs: files, and memory of the host and of the device."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from loadtrt.environment import available_bytes
from loadtrt.errors import EngineError, shortage_of
from loadtrt.results.engine_info import GPU_KINDS
from loadtrt.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadtrt.runs.opened import Opened

_FILES = 12  # of an event loop, an engine and an observer


def require_files() -> None:
    """Raise EngineError where an event loop, an engine and an observer would soon find that no more files may be open.
    An event loop that is half made writes a traceback."""
    opened: list[int] = []
    try:
        while len(opened) < _FILES:
            opened.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        raise EngineError(shortage_of(error) or str(error)) from None
    finally:
        for file in opened:
            os.close(file)


def require_host_room(opened: Mapping[str, Opened]) -> None:
    """Raise EngineError where the lanes of these models need more host memory than is left beside their inputs."""
    inputs = {
        name: sum(array.nbytes for arrays in item.inputs.sets for array in arrays.values())
        for name, item in opened.items()
    }
    needs = {name: item.bill.host_bytes - inputs[name] for name, item in opened.items()}
    remedy = ": use fewer --contexts, --buffers or --input-sets, or a smaller --batch"
    _require(needs, available_bytes(), " of host memory", remedy)


def require_device_room(opened: Mapping[str, Opened], remedy: str = "") -> None:
    """Raise EngineError where the lanes of these models do not fit on their device together. The weights are loaded
    already, so free memory excludes them. remedy: what to do, after the sentence."""
    kinds = {name: "" if (kind := item.engine.info.kind) in GPU_KINDS else kind for name, item in opened.items()}
    for kind in set(kinds.values()):
        bills = {name: item.bill for name, item in opened.items() if kinds[name] == kind}
        free = [bill.free_bytes for bill in bills.values() if bill.free_bytes is not None]
        needs = {name: bill.device_bytes - (bill.weights_bytes or 0) for name, bill in bills.items()}
        _require(needs, min(free, default=None), "", remedy)


def _require(needs: Mapping[str, int], free: int | None, where: str, remedy: str) -> None:
    needed = sum(needs.values())
    if free is None or needed <= free:
        return
    *most, last = (f"{name} ({format_bytes(nbytes)})" for name, nbytes in needs.items())
    lanes = f"the lanes of {', '.join(most)} and {last}" if most else "the lanes"
    raise EngineError(f"{lanes} need {format_bytes(needed)}{where} and {format_bytes(free)} is free{remedy}")
