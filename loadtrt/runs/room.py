"""Whether the host has what a run needs: files, and memory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from loadtrt.environment import available_bytes
from loadtrt.errors import EngineError, shortage_of
from loadtrt.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.load.tensors import Arrays
    from loadtrt.results.engine_info import MemoryBill

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


def require_host_room(bill: MemoryBill, inputs: Sequence[Arrays]) -> None:
    """Raise EngineError where lanes need more host memory than is left beside the inputs."""
    needed = bill.host_bytes - sum(array.nbytes for arrays in inputs for array in arrays.values())
    free = available_bytes()
    if free is not None and needed > free:
        raise EngineError(
            f"the lanes need {format_bytes(needed)} of host memory and {format_bytes(free)} is free: use fewer "
            "--contexts, --buffers or --input-sets, or a smaller --batch"
        )
