"""Device memory and pinned host memory, and the buffer set of a request: freed by their owners."""

from __future__ import annotations

import ctypes
import math
from typing import TYPE_CHECKING, Any

from loadtrt.cuda.program import Mark
from loadtrt.cuda.runtime import call, close_all, closed_on_failure
from loadtrt.cuda.stream import Event

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    from loadtrt.cuda.runtime import Closes
    from loadtrt.load.tensors import TensorSpec


class DeviceBuffer:
    """`nbytes` of the current device's memory, at least one, so that every tensor has an address. Raises CudaError."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = max(nbytes, 1)
        self.address = int(call("cudaMalloc", self.nbytes))

    def close(self) -> None:
        """Free the memory. Safe to call twice."""
        address, self.address = self.address, 0
        if address:
            call("cudaFree", address)


class PinnedBuffer:
    """`nbytes` of page-locked host memory, which the device copies from and to asynchronously. Raises CudaError."""

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
        """Free the memory. Safe to call twice."""
        address, self.address = self.address, 0
        if address:
            call("cudaFreeHost", address)


class BufferSet:
    """The memory and the events of one request in flight.

    device: device memory of each tensor, as large as any part needs.
    outputs: pinned memory of each output, as large as any part needs.
    events: one for each `program.Mark`.
    handles: those of the events, and at the place of D2H_END that of the event that completes the request.
    """

    def __init__(self, parts: Sequence[Sequence[TensorSpec]], *, copies: bool) -> None:
        self.device: dict[str, DeviceBuffer] = {}
        self.outputs: dict[str, PinnedBuffer] = {}
        self.events: list[Event] = []
        with closed_on_failure(self):
            for specs in zip(*parts, strict=True):
                nbytes = max(spec.nbytes for spec in specs)
                self.device[specs[0].name] = DeviceBuffer(nbytes)
                if not specs[0].is_input:
                    self.outputs[specs[0].name] = PinnedBuffer(nbytes)
            self.events.extend(Event() for _ in range(5))
        self.handles = [int(event.handle) for event in self.events]
        if not copies:
            self.handles[Mark.D2H_END] = self.handles[Mark.END]

    def close(self) -> None:
        """Free everything. Safe to call twice."""
        owned: list[Closes] = [*self.events, *self.device.values(), *self.outputs.values()]
        self.events = []
        self.device.clear()
        self.outputs.clear()
        close_all(owned)
