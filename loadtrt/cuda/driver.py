"""C functions as loop/device.py calls them: each takes four integers, may ignore the last, and returns a status.

They are the CUDA driver's, because the CUDA runtime is linked into its Python bindings, without names. Streams, events
and graphs of the runtime have the same handles in the driver, and statuses the same numbers.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from loadtrt.cuda.runtime import cudart, error_of
from loadtrt.errors import CudaError, EngineError
from loadtrt.loop.device import FAULT_KIND

if TYPE_CHECKING:
    from collections.abc import Callable

    Function = Callable[[int, int, int, int], int]

# The driver's function, and the runtime's, by which errors are named. The first name that the driver has is taken: the
# second version of cuEventElapsedTime, of CUDA 12.8, takes 0.2 µs where the first one takes 1.6 to 2.9 µs for an event
# that was not read before (H200, driver 580.159.04).
_NAMES = {
    "launch": ("cuGraphLaunch", "cudaGraphLaunch"),  # graph, stream
    "record": ("cuEventRecordWithFlags", "cudaEventRecordWithFlags"),  # event, stream, flags
    "wait": ("cuStreamWaitEvent", "cudaStreamWaitEvent"),  # stream, event, flags
    "copy_in": ("cuMemcpyHtoDAsync_v2", "cudaMemcpyAsync"),  # to, from, bytes, stream
    "copy_out": ("cuMemcpyDtoHAsync_v2", "cudaMemcpyAsync"),  # to, from, bytes, stream
    "query": ("cuEventQuery", "cudaEventQuery"),  # event
    "elapsed": (
        "cuEventElapsedTime_v2",
        "cuEventElapsedTime",
        "cudaEventElapsedTime",
    ),  # address of float32, two events
}


class Functions(NamedTuple):
    """One function for each kind of call, in the order of their numbers (loop/device.py)."""

    launch: Function
    record: Function
    wait: Function
    copy_in: Function
    copy_out: Function
    query: Function
    elapsed: Function
    clock: Function


@cache
def functions() -> Functions:
    """Raises EngineError without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise EngineError(f"the NVIDIA driver cannot be used: {error}") from None
    found = {
        name: next(getattr(driver, one) for one in names if hasattr(driver, one)) for name, names in _NAMES.items()
    }
    found["clock"] = ctypes.CDLL(None).clock_gettime  # number of the clock, address of two int64
    for function in found.values():
        # Of 64 bits. ctypes takes 0.2 µs a call to convert integers to four of them, and 0.4 µs to c_int64.
        function.argtypes, function.restype = [ctypes.c_void_p] * 4, ctypes.c_int
    return Functions(**found)


def bindings() -> Any:
    """The module `cuda.bindings.driver`. Raises EngineError where cuda-python is not installed."""
    cudart()
    from cuda.bindings import driver

    return driver


def call_driver(name: str, *args: Any) -> Any:
    """The value of a call by the bindings: None, one value, or a tuple of several. Raises CudaError for a bad status,
    RuntimeError where the installed driver has no such function."""
    driver = bindings()
    status, *values = getattr(driver, name)(*args)
    if status != 0:
        explanation = driver.cuGetErrorString(status)[1]
        text = explanation.decode() if isinstance(explanation, bytes) else str(explanation)
        raise CudaError(name, getattr(status, "name", str(status)), text)
    return values[0] if len(values) == 1 else tuple(values) or None


def error_of_fault(fault: int) -> CudaError:
    """The error of what loop/device.py returned for a call that failed."""
    kind, number = divmod(fault, FAULT_KIND)
    try:
        status = cudart().cudaError_t(number)
    except ValueError:  # one that these bindings do not know
        status = number
    return error_of(_NAMES[Functions._fields[kind]][-1], status)
