"""Checked calls of the CUDA runtime (`cuda.bindings.runtime`), and facts about devices.

Every function of the runtime returns a status. `call` turns a bad one into a CudaError with CUDA's explanation.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from loadtrt.errors import CudaError, EngineError, UsageError
from loadtrt.units import plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_HINTS = {
    "cudaErrorInsufficientDriver": "install the NVIDIA driver, or for drivers before R580 pip install 'loadtrt[cu12]'",
    "cudaErrorNoDevice": "no CUDA GPU is visible: look at nvidia-smi and CUDA_VISIBLE_DEVICES",
    "cudaErrorMemoryAllocation": "the GPU is out of memory: use fewer --contexts, --buffers or a smaller --batch",
}


class Closes(Protocol):
    """The owner of a resource."""

    def close(self) -> None:
        """Free the resource. Safe to call twice."""
        ...


# Streams share the GPU's hardware queues, 8 unless this variable says otherwise, and what shares one waits for all that
# is before it there. On an H200 a small model on SMs of its own had a p99 of 88 ms with 8 queues, and of 80 µs with 32,
# the most that CUDA allows (docs/sharing.md). CUDA reads the variable when a process first uses CUDA.
_QUEUES, _MOST_QUEUES, _DEFAULT_QUEUES = "CUDA_DEVICE_MAX_CONNECTIONS", 32, 8


def hardware_queues() -> int:
    """How many hardware queues the streams of this process share: what the environment says, or the most there are,
    unless another library has used CUDA before, with its default."""
    if _QUEUES not in os.environ and is_in_use():
        return _DEFAULT_QUEUES
    told = os.environ.setdefault(_QUEUES, str(_MOST_QUEUES))
    return min(int(told), _MOST_QUEUES) if told.isdecimal() and int(told) else _DEFAULT_QUEUES


def is_in_use(proc: Path = Path("/proc")) -> bool:
    """Whether this process has opened a GPU for CUDA, as NVML alone does not."""
    with suppress(OSError):
        for file in os.listdir(proc / "self" / "fd"):
            with suppress(OSError):  # it was closed since, as the one is that the list was read from
                if "nvidia-uvm" in os.readlink(proc / "self" / "fd" / file):
                    return True
    return False


@cache
def cudart() -> Any:
    """The module `cuda.bindings.runtime`. Raises EngineError where cuda-python is not installed."""
    hardware_queues()
    try:
        from cuda.bindings import runtime
    except ImportError:
        raise EngineError(
            "the CUDA bindings are not installed: pip install 'loadtrt[cu13]' (for drivers before R580 'loadtrt[cu12]')"
        ) from None
    return runtime


def call(name: str, *args: Any) -> Any:
    """The value of a runtime call: None, one value, or a tuple of several. Raises CudaError for a bad status."""
    runtime = cudart()
    status, *values = getattr(runtime, name)(*args)
    if status != 0:
        raise error_of(name, status)
    return values[0] if len(values) == 1 else tuple(values) or None


def error_of(name: str, status: Any) -> CudaError:
    """The CudaError for a bad status of a call of the function `name`."""
    runtime = cudart()
    label = getattr(status, "name", str(status))
    try:
        explanation = runtime.cudaGetErrorString(status)[1]
        explanation = explanation.decode() if isinstance(explanation, bytes) else str(explanation)
    except Exception:  # without a driver there is no explanation
        explanation = "no explanation"
    hint = _HINTS.get(label)
    return CudaError(name, label, f"{explanation}; {hint}" if hint else explanation)


def close_all(handles: Iterable[Closes]) -> None:
    """Close every handle, also after a failure; then raise the first CudaError."""
    failures = []
    for handle in handles:
        try:
            handle.close()
        except CudaError as error:
            failures.append(error)
    if failures:
        raise failures[0]


@contextmanager
def closed_on_failure(*handles: Closes) -> Iterator[None]:
    """Close the handles where the block fails, whose failure is the one to report."""
    try:
        yield
    except BaseException:
        with suppress(CudaError):
            close_all(handles)
        raise


def device_count() -> int:
    """Number of GPUs that CUDA sees. Call it before TensorRT, whose `Runtime()` kills the process without a driver.

    Raises CudaError without a driver or GPU, EngineError without the bindings.
    """
    return int(call("cudaGetDeviceCount"))


def use_device(index: int) -> None:
    """Make this GPU the calling thread's. Raises UsageError where there is none of this number, and as device_count."""
    count = device_count()
    if index >= count:
        raise UsageError(
            f"--device {index} does not exist; CUDA sees {plural(count, 'GPU')}, "
            + (f"numbered 0 to {count - 1}" if count > 1 else "number 0")
        )
    call("cudaSetDevice", index)


def has_gpu() -> bool:
    """Whether a GPU can be used."""
    try:
        return device_count() > 0
    except EngineError:
        return False


@dataclass(frozen=True, slots=True)
class DeviceProperties:
    """Properties of one GPU. compute_capability: such as (9, 0)."""

    index: int
    name: str
    compute_capability: tuple[int, int]
    multiprocessors: int
    memory_bytes: int
    pci_bus_id: str


def device_properties(index: int) -> DeviceProperties:
    """Properties of GPU `index`. Raises CudaError."""
    properties = call("cudaGetDeviceProperties", index)
    name = properties.name.decode() if isinstance(properties.name, bytes) else str(properties.name)
    return DeviceProperties(
        index=index,
        name=name.strip("\0"),
        compute_capability=(int(properties.major), int(properties.minor)),
        multiprocessors=int(properties.multiProcessorCount),
        memory_bytes=int(properties.totalGlobalMem),
        pci_bus_id=f"{properties.pciDomainID:08x}:{properties.pciBusID:02x}:{properties.pciDeviceID:02x}.0",
    )


def memory_info() -> tuple[int, int]:
    """(free, total) bytes of the current device. Raises CudaError."""
    free, total = call("cudaMemGetInfo")
    return int(free), int(total)


def versions() -> tuple[str, str]:
    """CUDA versions of driver and runtime, such as ("13.0", "13.0"); "none" without a driver."""
    driver, runtime = (int(call(name)) for name in ("cudaDriverGetVersion", "cudaRuntimeGetVersion"))
    return tuple(f"{v // 1000}.{v % 1000 // 10}" if v else "none" for v in (driver, runtime))  # type: ignore[return-value]
