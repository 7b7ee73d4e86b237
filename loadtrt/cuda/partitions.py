"""Partitions of a GPU: equal shares of its SMs, and the streams that compute on one of them alone (green contexts).

The primary context stays current: TensorRT's contexts, memory and events are made in it, and work on a partition's
streams. With the green context current, TensorRT 10.16 refused to enqueue on 32 SMs and fewer of an H200. A graph that
was captured on such a stream keeps its partition.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from loadtrt.cuda.runtime import close_all, cudart, versions
from loadtrt.cuda.stream import Stream
from loadtrt.errors import CudaError, EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtrt.cuda.runtime import DeviceProperties

_SM = 1  # CU_DEV_RESOURCE_TYPE_SM
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING, the one kind of stream that a green context makes
_DEFAULT_STREAM = 1  # CU_GREEN_CTX_DEFAULT_STREAM, without which drivers before CUDA 13 make none
_NEEDED = (
    *("cuDeviceGet", "cuDeviceGetDevResource", "cuDevSmResourceSplitByCount", "cuDevResourceGenerateDesc"),
    *("cuGreenCtxCreate", "cuGreenCtxStreamCreate", "cuGreenCtxDestroy"),
)
_TOO_FEW = ("CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION", "CUDA_ERROR_INVALID_VALUE")  # said of a split
_REFUSED = ("CUDA_ERROR_NOT_SUPPORTED", "CUDA_ERROR_NOT_PERMITTED", "CUDA_ERROR_INVALID_RESOURCE_TYPE")
_MPS_SHARE = "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"


class Partitions:
    """Shares of a GPU's SMs, of one size and disjoint. `sms`: of each."""

    def __init__(self, device: DeviceProperties, count: int, sms: int | None) -> None:
        """Make `count` partitions of `sms` SMs, which the GPU rounds up, or as large as they can be.

        One of all SMs is the GPU itself, without a green context. Raises EngineError where the GPU, its driver or the
        bindings cannot make them, with the most that there are.
        """
        self._green: list[_GreenContext] = []
        self.count, self.sms = count, device.multiprocessors
        if count == 1 and sms in (None, device.multiprocessors):
            return
        share = os.environ.get(_MPS_SHARE, "100")
        if share != "100":
            raise EngineError(
                f"{_MPS_SHARE}={share} overrides the SMs of partitions: unset it, or leave --partitions and --sms out"
            )
        try:
            gpu = _call("cuDeviceGet", device.index)
            groups = _groups(device.name, _call("cuDeviceGetDevResource", gpu, _resource_type()), count, sms)
            self.sms = min(int(group.sm.smCount) for group in groups)
            for group in groups:
                self._green.append(_GreenContext(_call("cuDevResourceGenerateDesc", [group], 1), gpu))
        except CudaError as error:
            with suppress(CudaError):  # the first failure is the one to report
                self.close()
            if error.status not in _REFUSED:
                raise
            raise EngineError(
                f"{device.name} makes no partitions here ({error}): MPS or MIG may be why; leave out --partitions and "
                "--sms"
            ) from None

    @property
    def text(self) -> str:
        """ "8 of 16 SMs"."""
        return f"{self.count} of {self.sms} SMs"

    def stream_maker(self, context: int) -> Callable[[], Stream]:
        """What makes the streams of an execution context, by its number: partitions are taken in turn."""
        if not self._green:
            return Stream
        green = self._green[context % len(self._green)]
        return lambda: PartitionStream(green.handle)

    def close(self) -> None:
        """Destroy the green contexts, after the streams made on them. Safe to call twice."""
        green, self._green = self._green, []
        close_all(green)


class PartitionStream(Stream):
    """A stream whose kernels run on the SMs of a green context alone."""

    def __init__(self, green: Any) -> None:
        handle = _call("cuGreenCtxStreamCreate", green, _NON_BLOCKING, 0)
        self.handle = cudart().cudaStream_t(int(handle))  # the driver's handle, as the runtime's functions take it


class _GreenContext:
    def __init__(self, description: Any, gpu: Any) -> None:
        self.handle = _call("cuGreenCtxCreate", description, gpu, _DEFAULT_STREAM)

    def close(self) -> None:
        handle, self.handle = self.handle, None
        if handle is not None:
            _call("cuGreenCtxDestroy", handle)


def _groups(name: str, whole: Any, count: int, sms: int | None) -> list[Any]:
    """`count` disjoint groups of SMs of the GPU `name`. The driver alone knows how it rounds, so it is asked."""
    total = int(whole.sm.smCount)
    smallest = next(filter(None, (_split(whole, 1, size) for size in range(1, total + 1))), None)
    if smallest is None:
        raise EngineError(f"{name} makes no partitions of its {total} SMs: leave --partitions and --sms out")
    least = int(smallest[0].sm.smCount)
    if sms is not None and sms < least:
        raise EngineError(f"--sms {sms} is too few: partitions of {name} have {least} SMs at least")
    for size in (sms,) if sms is not None else range(total // count, least - 1, -1):
        groups = _split(whole, count, size)
        if len(groups) == count:
            return groups
    possible = _split(whole, total // least, sms or least)
    if not possible:
        most = next(size for size in range(total, 0, -1) if _split(whole, 1, size))
        alone = f", or all {total} as --sms {total}" if count == 1 else ""
        raise EngineError(f"--sms {sms} is too many: the largest partition of {name} has {most} SMs{alone}")
    raise EngineError(
        f"--partitions {count} are too many: the {total} SMs of {name} make {len(possible)} partitions of "
        f"{possible[0].sm.smCount} SMs at most"
    )


def _split(whole: Any, count: int, sms: int) -> list[Any]:
    """At most `count` groups of `sms` SMs, rounded up as the GPU wants it. All are made by one call, as the results of
    several overlap; groups that could not be made are of another type."""
    try:
        groups, made, _ = _call("cuDevSmResourceSplitByCount", count, whole, 0, sms)
    except CudaError as error:
        if error.status in _TOO_FEW:
            return []
        raise
    return [group for group in groups[: int(made)] if int(group.type) == _SM]


@cache
def _driver() -> Any:
    """The module `cuda.bindings.driver`. Raises EngineError where it cannot make partitions."""
    cudart()  # says how to install the bindings
    from cuda.bindings import driver

    if not all(hasattr(driver, name) for name in _NEEDED):
        raise EngineError(
            "partitions need cuda-bindings 12.9 or newer: pip install -U 'loadtrt[cu13]' (for drivers before R580 "
            "'loadtrt[cu12]')"
        )
    return driver


def _resource_type() -> Any:
    return _driver().CUdevResourceType(_SM)


def _call(name: str, *args: Any) -> Any:
    """The value of a call of the driver; a tuple of several. Raises CudaError for a bad status, EngineError where the
    installed driver has no such function."""
    driver = _driver()
    try:
        status, *values = getattr(driver, name)(*args)
    except RuntimeError:  # how the bindings say so
        raise EngineError(
            f"partitions need a driver of CUDA 12.5 or newer, and this one is of CUDA {versions()[0]}: update it, or "
            "leave --partitions and --sms out"
        ) from None
    if status != 0:
        explanation = driver.cuGetErrorString(status)[1]
        text = explanation.decode() if isinstance(explanation, bytes) else str(explanation)
        raise CudaError(name, getattr(status, "name", str(status)), text)
    return values[0] if len(values) == 1 else tuple(values) or None
