"""C functions as the hot loop calls them: each takes four integers, of which it may ignore the last, and returns a status.

They are the CUDA driver's, because the CUDA runtime is linked into its Python bindings, without names. Streams, events
and graphs of the runtime have the same handles in the driver, and statuses the same numbers.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import TYPE_CHECKING

from loadtrt.cuda.runtime import cudart, error_of
from loadtrt.errors import CudaError, EngineError
from loadtrt.hot_loop import CLOCK, COPY_IN, COPY_OUT, ELAPSED, FAULT_KIND, LAUNCH, QUERY, RECORD, WAIT

if TYPE_CHECKING:
    from collections.abc import Callable

    Function = Callable[[int, int, int, int], int]

# Of each kind of call: the driver's function, and the runtime's, by which errors are named.
_NAMES = {
    LAUNCH: ("cuGraphLaunch", "cudaGraphLaunch"),  # graph, stream
    RECORD: ("cuEventRecordWithFlags", "cudaEventRecordWithFlags"),  # event, stream, flags
    WAIT: ("cuStreamWaitEvent", "cudaStreamWaitEvent"),  # stream, event, flags
    COPY_IN: ("cuMemcpyHtoDAsync_v2", "cudaMemcpyAsync"),  # to, from, bytes, stream
    COPY_OUT: ("cuMemcpyDtoHAsync_v2", "cudaMemcpyAsync"),  # to, from, bytes, stream
    QUERY: ("cuEventQuery", "cudaEventQuery"),  # event
    ELAPSED: ("cuEventElapsedTime", "cudaEventElapsedTime"),  # address of a float32, first event, second event
}


@cache
def functions() -> tuple[Function, ...]:
    """The function of each kind of call, in the order of their numbers. Raises EngineError without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        found = [getattr(driver, _NAMES[kind][0]) for kind in range(CLOCK)]
    except (OSError, AttributeError) as error:
        raise EngineError(f"the NVIDIA driver cannot be used: {error}") from None
    found.append(ctypes.CDLL(None).clock_gettime)  # number of the clock, address of two int64
    for function in found:
        function.argtypes, function.restype = [ctypes.c_int64] * 4, ctypes.c_int
    return tuple(found)


def error_of_fault(fault: int) -> CudaError:
    """The error of what `hot_loop` returned for a call that failed."""
    kind, number = divmod(fault, FAULT_KIND)
    try:
        status = cudart().cudaError_t(number)
    except ValueError:  # one that these bindings do not know
        status = number
    return error_of(_NAMES[kind][1], status)
