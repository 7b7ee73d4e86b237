"""Partitions of a GPU: shares of its SMs, and the streams that compute on one of them alone (green contexts).

The primary context stays current: TensorRT's contexts, memory and events are made in it, and work on a partition's
streams. With the green context current, TensorRT 10.16 refused to enqueue on 32 SMs and fewer of an H200. A graph that
was captured on such a stream keeps its partition.

Several splits of a GPU overlap, and a part cannot be split again. So one call splits it for all models of a run, into
groups of the largest size of which all their partitions are multiples; what that leaves is the remainder.
"""

from __future__ import annotations

import math
import os
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from loadtrt.cuda.driver import bindings, call_driver
from loadtrt.cuda.runtime import close_all, closed_on_failure, cudart, versions
from loadtrt.cuda.stream import Stream
from loadtrt.errors import CudaError, EngineError
from loadtrt.units import parse_share

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from loadtrt.cuda.runtime import DeviceProperties

_SM = 1  # CU_DEV_RESOURCE_TYPE_SM
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING, the one kind of stream that a green context makes
_DEFAULT_STREAM = 1  # CU_GREEN_CTX_DEFAULT_STREAM, without which drivers before CUDA 13 make none
_NEEDED = (
    *("cuDeviceGet", "cuDeviceGetDevResource", "cuDevSmResourceSplitByCount", "cuDevResourceGenerateDesc"),
    *("cuGreenCtxCreate", "cuGreenCtxStreamCreate", "cuGreenCtxDestroy", "cuGreenCtxGetDevResource"),
)
_TOO_FEW = ("CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION", "CUDA_ERROR_INVALID_VALUE")  # said of a split
_REFUSED = ("CUDA_ERROR_NOT_SUPPORTED", "CUDA_ERROR_NOT_PERMITTED", "CUDA_ERROR_INVALID_RESOURCE_TYPE")
_MPS_SHARE = "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"


@dataclass(frozen=True, slots=True)
class Share:
    """What a model asks for: `count` partitions of `sms` SMs, or of such a share of all ("25%").

    sms: None for what others leave, or of a model alone for as many as there are.
    """

    count: int = 1
    sms: int | str | None = None

    @property
    def asks(self) -> bool:
        """Whether it asks for anything."""
        return self.count > 1 or self.sms is not None


class Partitions:
    """The partitions of one model, of one size: `count` of `sms` SMs each."""

    def __init__(self, sms: int, count: int = 1, green: Sequence[_GreenContext] = ()) -> None:
        """green: without them, the GPU itself."""
        self.sms, self.count = sms, count
        self._green = list(green)

    @property
    def text(self) -> str:
        """ "8 of 16 SMs"."""
        return f"{self.count} of {self.sms} SMs"

    def stream_maker(self, context: int, priority: int | None = None) -> Callable[[], Stream]:
        """What makes the streams of an execution context, by its number: partitions are taken in turn. The streams are
        what was asked for, or it raises EngineError."""
        green = self._green[context % len(self._green)].handle if self._green else None

        def made() -> Stream:
            stream = Stream(priority) if green is None else PartitionStream(green, priority)
            stream.require_priority(priority)
            return stream

        return made

    def close(self) -> None:
        """Destroy the green contexts, after the streams made on them. Safe to call twice."""
        green, self._green = self._green, []
        close_all(green)


class PartitionStream(Stream):
    """A stream whose kernels run on the SMs of a green context alone."""

    def __init__(self, green: Any, priority: int | None = None) -> None:
        handle = _call("cuGreenCtxStreamCreate", green, _NON_BLOCKING, priority or 0)
        self.handle = cudart().cudaStream_t(int(handle))  # the driver's handle, as the runtime's functions take it
        with closed_on_failure(self):
            if hasattr(_driver(), "cuStreamGetGreenCtx") and not int(_call("cuStreamGetGreenCtx", handle)):
                raise EngineError("the driver made a stream outside of its partition: leave --partitions and --sms out")


def split(device: DeviceProperties, shares: Mapping[str, Share]) -> dict[str, Partitions]:
    """The partitions of each model, by its name, all of them disjoint; models without `sms` share what is left.

    Partitions of a number of SMs are as large or larger, those of a share as large or smaller, as the GPU rounds them.
    One partition of all SMs of one model alone is the GPU itself, without a green context. Raises EngineError where the
    GPU, its driver or the bindings cannot make them, with the most that there are.
    """
    if len(shares) == 1:
        ((name, alone),) = shares.items()
        if alone.count == 1 and alone.sms in (None, device.multiprocessors, "100%"):
            return {name: Partitions(device.multiprocessors)}
    percentage = os.environ.get(_MPS_SHARE, "100")
    if percentage != "100":
        raise EngineError(
            f"{_MPS_SHARE}={percentage} overrides the SMs of partitions: unset it, or leave --partitions and --sms out"
        )
    made: dict[str, Partitions] = {}
    try:
        gpu = _call("cuDeviceGet", device.index)
        whole = _call("cuDeviceGetDevResource", gpu, _resource_type())
        for name, parts in _resources(device.name, whole, shares).items():
            made[name] = Partitions(0, len(parts))
            for resources in parts:
                made[name]._green.append(
                    _GreenContext(_call("cuDevResourceGenerateDesc", resources, len(resources)), gpu)
                )
            made[name].sms = min(one.sms for one in made[name]._green)
    except EngineError as error:
        with suppress(CudaError):  # the first failure is the one to report
            close_all(made.values())
        if not isinstance(error, CudaError) or error.status not in _REFUSED:
            raise
        raise EngineError(
            f"{device.name} makes no partitions here ({error}): MPS or MIG may be why; leave out --partitions and --sms"
        ) from None
    return made


class _GreenContext:
    """sms: those that the driver says it has."""

    def __init__(self, description: Any, gpu: Any) -> None:
        self.handle = _call("cuGreenCtxCreate", description, gpu, _DEFAULT_STREAM)
        with closed_on_failure(self):
            self.sms = int(_call("cuGreenCtxGetDevResource", self.handle, _resource_type()).sm.smCount)

    def close(self) -> None:
        handle, self.handle = self.handle, None
        if handle is not None:
            _call("cuGreenCtxDestroy", handle)


def _resources(gpu: str, whole: Any, shares: Mapping[str, Share]) -> dict[str, list[list[Any]]]:
    """The groups of SMs of each partition of each model. The driver alone knows how it rounds, so it is asked."""
    total = int(whole.sm.smCount)
    smallest = next(filter(None, (_split(whole, 1, size)[0] for size in range(1, total + 1))), None)
    if smallest is None:
        raise EngineError(f"{gpu} makes no partitions of its {total} SMs: leave --partitions and --sms out")
    least = int(smallest[0].sm.smCount)
    alone = len(shares) == 1
    sizes = {
        name: _size(gpu if alone else f"{gpu} for {name}", whole, share, least, alone=alone)
        for name, share in shares.items()
        if share.sms is not None
    }
    if not sizes:
        (share,) = shares.values()
        return {name: [[group] for group in _equal(gpu, whole, share, least)] for name in shares}
    if (rest_of := _exactly_the_rest(shares, sizes, total)) is not None:
        del sizes[rest_of]
    unit = math.gcd(*sizes.values())
    if _rounded(whole, unit) != unit:  # groups of 4 SMs or more in steps of 2, say: 4 and 6 are not of one split
        sizes = {name: -(-size // least) * least for name, size in sizes.items()}
        unit = math.gcd(*sizes.values())
    wanted = sum(shares[name].count * size // unit for name, size in sizes.items())
    groups, rest = _split(whole, wanted, unit)
    if len(groups) < wanted:
        most, _ = _split(whole, total // unit, unit)
        if alone:
            raise EngineError(_too_many(gpu, total, next(iter(shares.values())).count, most))
        asked = " + ".join(f"{name} {_times(shares[name].count)}{size}" for name, size in sizes.items())
        raise EngineError(
            f"the models ask for more SMs than {gpu} gives: {asked} of {total} SMs, which one split makes {len(most)} "
            f"parts of {unit} at most: lower --sms of one"
        )
    parts: dict[str, list[list[Any]]] = {}
    taken = iter(groups)
    for name, share in shares.items():
        if name in sizes:
            each = sizes[name] // unit
            parts[name] = [[next(taken) for _ in range(each)] for _ in range(share.count)]
        elif rest is None or int(rest.type) != _SM or not int(rest.sm.smCount):
            given = ", ".join(f"{other} has {_times(shares[other].count)}{size}" for other, size in sizes.items())
            raise EngineError(f"no SMs of {gpu} are left for {name}: of {total} {given}; lower --sms of one")
        else:
            parts[name] = [[rest]]
    return parts


def _exactly_the_rest(shares: Mapping[str, Share], sizes: Mapping[str, int], total: int) -> str | None:
    """The model that asks for just what others leave, which may be of no size that groups have: 32 + 100 of 132."""
    for name, share in shares.items() if len(sizes) == len(shares) > 1 else ():
        others = sum(shares[other].count * size for other, size in sizes.items() if other != name)
        if share.count == 1 and share.sms == total - others != sizes[name]:
            return name
    return None


def _times(count: int) -> str:
    return f"{count} × " if count > 1 else ""


def _size(gpu: str, whole: Any, share: Share, least: int, *, alone: bool) -> int:
    """The SMs of each partition of a share, as the GPU rounds them."""
    total, sms = int(whole.sm.smCount), share.sms
    assert sms is not None  # noqa: S101  # the caller looked
    wanted = sms if isinstance(sms, int) else int(parse_share(sms) * total)
    if wanted < least:
        was = "" if isinstance(sms, int) else f", which is {wanted} of {total} SMs,"
        raise EngineError(f"--sms {sms}{was} is too few: partitions of {gpu} have {least} SMs at least")
    if not isinstance(sms, int):
        sizes = (_rounded(whole, size) for size in range(wanted, 0, -1))
        return next(size for size in sizes if size and size <= wanted)
    if size := _rounded(whole, sms):
        return size
    most = next(filter(None, (_rounded(whole, size) for size in range(total, 0, -1))))
    itself = f", or all {total} as --sms {total}" if share.count == 1 and alone else ""
    raise EngineError(f"--sms {sms} is too many: the largest partition of {gpu} has {most} SMs{itself}")


def _rounded(whole: Any, sms: int) -> int:
    """How large a partition of so many SMs is; 0 where there is none."""
    groups, _ = _split(whole, 1, sms)
    return int(groups[0].sm.smCount) if groups else 0


def _equal(gpu: str, whole: Any, share: Share, least: int) -> list[Any]:
    """So many groups of all SMs, as large as they can be."""
    total = int(whole.sm.smCount)
    for size in range(total // share.count, least - 1, -1):
        groups, _ = _split(whole, share.count, size)
        if len(groups) == share.count:
            return groups
    raise EngineError(_too_many(gpu, total, share.count, _split(whole, total // least, least)[0]))


def _too_many(gpu: str, total: int, count: int, most: Sequence[Any]) -> str:
    return (
        f"--partitions {count} are too many: the {total} SMs of {gpu} make {len(most)} partitions of "
        f"{most[0].sm.smCount} SMs at most"
    )


def _split(whole: Any, count: int, sms: int) -> tuple[list[Any], Any]:
    """At most `count` groups of `sms` SMs, rounded up as the GPU wants it, and the rest. All are made by one call, as
    the results of several overlap; groups that could not be made are of another type."""
    try:
        groups, made, rest = _call("cuDevSmResourceSplitByCount", count, whole, 0, sms)
    except CudaError as error:
        if error.status in _TOO_FEW:
            return [], None
        raise
    return [group for group in groups[: int(made)] if int(group.type) == _SM], rest


@cache
def _driver() -> Any:
    """The driver's bindings. Raises EngineError where they cannot make partitions."""
    driver = bindings()
    if not all(hasattr(driver, name) for name in _NEEDED):
        raise EngineError(
            "partitions need cuda-bindings 12.9 or newer: pip install -U 'loadtrt[cu13]' (for drivers before R580 "
            "'loadtrt[cu12]')"
        )
    return driver


def _resource_type() -> Any:
    return _driver().CUdevResourceType(_SM)


def _call(name: str, *args: Any) -> Any:
    """As `call_driver`. Raises EngineError where the installed driver has no such function."""
    _driver()
    try:
        return call_driver(name, *args)
    except RuntimeError:  # how the bindings say so
        raise EngineError(
            f"partitions need a driver of CUDA 12.5 or newer, and this one is of CUDA {versions()[0]}: update it, or "
            "leave --partitions and --sms out"
        ) from None
