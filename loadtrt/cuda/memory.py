"""Device memory and pinned host memory, freed by their owners."""

from __future__ import annotations

import ctypes
import math
from typing import TYPE_CHECKING, Any

from loadtrt.cuda.runtime import call

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class DeviceBuffer:
    """`nbytes` of the current device's memory, at least one, so that every tensor has an address. Raises CudaError."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = max(nbytes, 1)
        self.address = int(call("cudaMalloc", self.nbytes))

    def close(self) -> None:
        """Free it. Safe to call twice."""
        address, self.address = self.address, 0
        if address:
            call("cudaFree", address)


class PinnedBuffer:
    """`nbytes` of page-locked host memory, which the device copies from and to without a stop. Raises CudaError."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = max(nbytes, 1)
        self.address = int(call("cudaHostAlloc", self.nbytes, 0))

    def array(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """A view as `shape` of `dtype` (at most `nbytes`); dead after `close`."""
        import numpy as np

        memory = (ctypes.c_uint8 * self.nbytes).from_address(self.address)
        raw = np.ctypeslib.as_array(memory)
        array: npt.NDArray[Any] = raw[: math.prod(shape) * dtype.itemsize].view(dtype).reshape(shape)
        return array

    def close(self) -> None:
        """Free it. Safe to call twice."""
        address, self.address = self.address, 0
        if address:
            call("cudaFreeHost", address)
