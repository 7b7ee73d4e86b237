"""From a plan's file to an engine in GPU memory, or to one sentence that says why not."""

from __future__ import annotations

import contextlib
import mmap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loadtrt.cuda.runtime import call, device_count, device_properties
from loadtrt.engines.flavour import Flavour, Journal, choose_flavour, journal_of, load_plugins, require_plugins
from loadtrt.engines.plan import PlanHeader, read_header
from loadtrt.errors import EngineError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(slots=True)
class OpenPlan:
    """A plan that TensorRT has taken: its engine, and what must live as long."""

    header: PlanHeader
    flavour: Flavour
    journal: Journal
    runtime: Any
    engine: Any

    def close(self) -> None:
        """Let go of the engine, then of the runtime. Contexts must be gone. Safe to call twice."""
        self.engine = None
        self.runtime = None


def open_plan(
    path: str | Path, *, module: str | None, plugins: Sequence[str], allow_host_code: bool, device: int
) -> OpenPlan:
    """Load the plan onto GPU `device`, which becomes the calling thread's device.

    Raises UsageError (file, options, device number) and EngineError (no GPU, no TensorRT for it, TensorRT refuses).
    """
    header = read_header(path)
    require_plugins(plugins)
    if header.carries_host_code and not allow_host_code:
        raise EngineError(
            f"plan {path} carries a lean runtime, and loading it runs that code in this process: "
            "add --allow-host-code if you trust the plan's origin"
        )
    # Before anything of TensorRT: without a driver, most flavours end the process when their Runtime is used or freed.
    count = device_count()
    if device >= count:
        raise UsageError(
            f"--device {device} does not exist; CUDA sees {count} GPU{'' if count == 1 else 's'}, "
            + (f"numbered 0 to {count - 1}" if count > 1 else "number 0")
        )
    call("cudaSetDevice", device)
    flavour = choose_flavour(header, module)
    journal = journal_of(flavour.module)
    load_plugins(flavour, plugins)
    try:
        runtime = flavour.module.Runtime(journal.logger)
    except TypeError:  # pybind11 raises it for a null pointer
        raise EngineError(f"{flavour} cannot start its runtime; TensorRT says {journal.reason(0)}") from None
    if allow_host_code:
        runtime.engine_host_code_allowed = True
    return OpenPlan(header, flavour, journal, runtime, _deserialize(header, flavour, journal, runtime, device))


def _deserialize(header: PlanHeader, flavour: Flavour, journal: Journal, runtime: Any, device: int) -> Any:
    """The engine. TensorRT copies what it needs, so the mapping of the file ends here."""
    mark = journal.mark()
    validity = ""
    try:
        with header.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                engine = runtime.deserialize_cuda_engine(data)
            except (RuntimeError, TypeError):
                engine = None
            if engine is None and flavour.capabilities.validity:
                validity = _validity(runtime, data)
    except OSError as error:
        raise UsageError(f"cannot read plan {header.path}: {error.strerror}") from None
    if engine is None:
        errors = [part for part in (validity, *journal.errors_since(mark)) if part]
        said = "; ".join(part for part in (validity, journal.reason(mark)) if part)
        raise EngineError(f"{_why_refused(header, flavour, errors, device)} ({flavour} says {said})")
    if flavour.capabilities.bindings_api and engine.has_implicit_batch_dimension:
        raise EngineError(
            f"plan {header.path} has an implicit batch dimension, which TensorRT no longer supports: "
            "build it again from a network with explicit batch, as every ONNX model has"
        )
    return engine


def _validity(runtime: Any, data: Any) -> str:
    """RTX's own diagnosis, as the names of its bits; "" where it has none."""
    bits = (
        "VERSION_MISMATCH",
        "UNSUPPORTED_CC",
        "OLD_CUDA_DRIVER",
        "OLD_CUDA_RUNTIME",
        "INSUFFICIENT_GPU_MEMORY",
        "MALFORMED_ENGINE",
        "CUDA_ERROR",
    )
    with contextlib.suppress(Exception):  # the diagnosis only adds to a message
        _, validity = runtime.get_engine_validity(data)
        return " ".join(name for place, name in enumerate(bits) if int(validity) >> place & 1)
    return ""


def _why_refused(header: PlanHeader, flavour: Flavour, errors: Sequence[str], device: int) -> str:
    """What is wrong and what to do, by what TensorRT said; its own words follow in the caller's sentence."""
    gpu = device_properties(device)
    here = f"{gpu.name}, compute capability {'.'.join(map(str, gpu.compute_capability))}"
    for error in errors:  # the cause comes before its effects
        known = _known(header, flavour, error.lower(), here)
        if known:
            return known
    return (
        f"plan {header.path} was built by {header.built_by} and cannot be loaded: "
        "build it again here, with the TensorRT that is to run it"
    )


def _known(header: PlanHeader, flavour: Flavour, said: str, here: str) -> str | None:
    """The sentence for an error that is known, None for another. `here`: this GPU."""
    plan = f"plan {header.path}"

    def has(*words: str) -> bool:
        return any(word in said for word in words)

    if has("supported compute capabilit"):
        return f"{flavour} does not support this GPU ({here}): use a GPU that it supports, or a plan of full TensorRT"
    if has("incompatible device", "unsupported_cc", "compute capability"):
        return f"{plan} was built for another GPU than this one ({here}): build it again for this kind of GPU"
    if has("old deserialization call"):
        return (
            f"{plan} was built by {header.built_by} without its lean runtime (EXCLUDE_LEAN_RUNTIME): "
            "build it again without that flag"
        )
    if has("host code", "hostcode", "host executable"):
        return f"{plan} holds code that runs on the host: add --allow-host-code if you trust the plan's origin"
    if has("not compatible with this version", "version tag", "library version", "version_mismatch"):
        return (
            f"{plan} was built by {header.built_by}, which {flavour} does not read: "
            "install the version that built it, or build it again"
        )
    if has("plugin"):
        return f"{plan} needs a plugin that is not registered: name its library with --plugins"
    if has("out of memory", "outofmemory", "cudaerrormemoryallocation", "insufficient_gpu_memory"):
        return f"{plan} does not fit into the memory of this GPU ({here}): free some, or use a GPU with more"
    if has("old_cuda_driver", "old_cuda_runtime", "driver version is insufficient"):
        return f"{plan} needs a newer NVIDIA driver than the one here: update it"
    if has("malformed", "checksum", "magic tag", "end_of_plan", "corrupt"):
        return f"{plan} is damaged: copy or build it again"
    return None
