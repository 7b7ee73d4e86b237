"""From a plan's file to an engine in GPU memory, or to one sentence that says why not."""

from __future__ import annotations

import contextlib
import mmap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loadtrt.cuda.runtime import device_properties, use_device
from loadtrt.engines.flavour import (
    INSTEAD_OF_RTX,
    Flavour,
    choose_flavour,
    load_plugins,
    refusal_of,
    require_plugins,
    unsupported_gpu,
)
from loadtrt.engines.installing import to_install
from loadtrt.engines.lean_library import LeanLibrary, how_to_name, installed_library, load_library, named_library
from loadtrt.engines.plan import PlanHeader, read_header, read_sidecar
from loadtrt.engines.tensorrt_log import Journal, journal_of
from loadtrt.errors import EngineError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from loadtrt.results.engine_info import LogMessage


@dataclass(slots=True)
class OpenPlan:
    """A plan that TensorRT has taken: its engine, and what must live as long.

    device: name of the GPU.
    owner: of the messages that calls for this plan make TensorRT log.
    before: what TensorRT had logged before.
    lean: the library of the lean runtime, where it is not in the plan or in the flavour.
    loader: the flavour's own runtime, where `runtime` is that of the library.
    """

    header: PlanHeader
    device: str
    flavour: Flavour
    journal: Journal
    owner: object
    before: Mapping[tuple[object, str, str], LogMessage]
    lean: LeanLibrary | None
    loader: Any
    runtime: Any
    engine: Any

    def logged(self) -> tuple[LogMessage, ...]:
        """TensorRT's warnings and errors about this plan, and those since it was loaded that no call explains."""
        return self.journal.messages(self.before, self.owner)

    def close(self) -> None:
        """Let go of the engine, then of the runtimes. Contexts must be gone. Safe to call twice."""
        self.engine = None
        self.runtime = None
        self.loader = None


def open_plan(
    path: str | Path,
    *,
    module: str | None,
    plugins: Sequence[str],
    allow_host_code: bool,
    device: int,
    lean_library: str | None = None,
) -> OpenPlan:
    """Load the plan onto GPU `device`, which becomes the calling thread's device.

    Raises UsageError (file, options, device number) and EngineError (no GPU, no TensorRT for it, TensorRT refuses).
    """
    header = read_header(path)
    require_plugins(plugins)
    library = None if lean_library is None else named_library(lean_library, header)
    if header.carries_host_code and not allow_host_code:
        raise EngineError(
            f"plan {path} carries a lean runtime, and loading it runs that code in this process: "
            "add --allow-host-code if you trust the plan's origin"
        )
    # Before anything of TensorRT: without a driver, most flavours end the process when their Runtime is used or freed.
    use_device(device)
    flavour = choose_flavour(header, module, lean=library is not None)
    if library is None and refusal_of(header, flavour) is not None:
        library = installed_library(header)
        flavour = flavour if library is None else choose_flavour(header, module, lean=True)
    name, journal = device_properties(device).name, journal_of(flavour.module)
    before, owner = journal.heard(), object()
    with journal.calls_of(owner):
        load_plugins(flavour, plugins)
        try:
            runtime = flavour.module.Runtime(journal.logger)
        except TypeError:  # pybind11 raises it for a null pointer
            raise EngineError(f"{flavour} cannot start its runtime; TensorRT says {journal.reason(0)}") from None
        loader = None
        if library is not None:
            loader, runtime = runtime, load_library(library, flavour, journal, runtime)
        if allow_host_code:
            runtime.engine_host_code_allowed = True
        opened = OpenPlan(header, name, flavour, journal, owner, before, library, loader, runtime, None)
        opened.engine = _deserialize(opened, device)
    return opened


def _deserialize(opened: OpenPlan, device: int) -> Any:
    """The engine. TensorRT copies what it needs, so the mapping of the file ends here."""
    header, flavour, journal, runtime = opened.header, opened.flavour, opened.journal, opened.runtime
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
        raise EngineError(f"{_why_refused(opened, errors, device)} ({flavour} says {said})")
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


def _why_refused(opened: OpenPlan, errors: Sequence[str], device: int) -> str:
    """What is wrong and what to do, by what TensorRT said; its own words follow in the caller's sentence."""
    header, flavour = opened.header, opened.flavour
    gpu = device_properties(device)
    here = f"{gpu.name}, compute capability {'.'.join(map(str, gpu.compute_capability))}"
    if (unsupported := unsupported_gpu(flavour, gpu.compute_capability)) is not None:
        return f"{unsupported}, so no plan of it runs on this GPU ({gpu.name}): {INSTEAD_OF_RTX}"
    for error in errors:  # the cause comes before its effects
        known = _known(opened, error.lower(), here)
        if known:
            return known
    if refusal_of(header, flavour, lean=opened.lean is not None) is not None:
        return _other_version(opened)
    return (
        f"plan {header.path} was built by {header.built_by} and cannot be loaded: "
        "build it again here, with the TensorRT that is to run it"
    )


def _other_version(opened: OpenPlan) -> str:
    """The sentence for a plan of a version that the flavour, or the lean runtime, does not read."""
    header, flavour = opened.header, opened.flavour
    plan = f"plan {header.path} was built by {header.built_by}"
    if opened.lean is not None and opened.lean.version[:2] != header.version[:2]:
        return f"{plan}, and the lean runtime is another version, {opened.lean}: {how_to_name(header)}"
    if opened.lean is not None:
        return (
            f"{plan}, and its lean runtime, {opened.lean}, runs only version-compatible plans: build it again with "
            "--version-compatible, or install the TensorRT that built it"
        )
    refusal = refusal_of(header, flavour) or "does not read it"
    if header.carries_host_code:
        return f"{plan}, and {flavour} {refusal}: {to_install(header)}"
    try:
        sidecar = read_sidecar(header.path)
    except UsageError:
        sidecar = None
    built = {} if sidecar is None else sidecar.options
    would_help = refusal_of(header, flavour, lean=True) is None
    if built.get("exclude_lean_runtime") and would_help:
        return (
            f"{plan} without its lean runtime (--exclude-lean-runtime), and {flavour} {refusal}: {how_to_name(header)}"
        )
    if sidecar is not None and not built.get("version_compatible"):
        return f"{plan} without --version-compatible, and {flavour} {refusal}: {to_install(header)}"
    more = f"; if the plan is version-compatible, {how_to_name(header)}" if would_help else ""
    return f"{plan} and carries no lean runtime, and {flavour} {refusal}: {to_install(header)}{more}"


def _known(opened: OpenPlan, said: str, here: str) -> str | None:
    """The sentence for an error that is known, None for another. `here`: this GPU."""
    header = opened.header
    plan = f"plan {header.path}"

    def has(*words: str) -> bool:
        return any(word in said for word in words)

    if has("incompatible device", "unsupported_cc", "compute capability"):
        target = f" (--target sm{here.rpartition(' ')[2].replace('.', '')})" if header.family == "rtx" else ""
        return f"{plan} was built for another GPU than this one ({here}): build it again for this kind of GPU{target}"
    if has("old deserialization call", "not compatible with this version", "version tag", "library version"):
        return _other_version(opened)
    if has("host code", "hostcode", "host executable"):
        return f"{plan} holds code that runs on the host: add --allow-host-code if you trust the plan's origin"
    if has("version_mismatch"):
        return (
            f"{plan} was built by {header.built_by}, which {opened.flavour} does not read: "
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
