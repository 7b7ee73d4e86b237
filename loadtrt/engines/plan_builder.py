"""Building a plan from a model, in the same steps on every TensorRT that has a builder (8.6, 10, 11, RTX).

options = BuildOptions(flavour="rtx", targets=("SM86",), fp16=True)
built = build_plan(read_source("googlenet.onnx", options), Path("googlenet.plan"), options)
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loadtrt import __version__
from loadtrt.cuda.memory import DeviceBuffer
from loadtrt.cuda.runtime import call, cudart, device_properties
from loadtrt.engines.build_config import (
    io_of,
    keep_timing_cache,
    make_config,
    make_network,
    parse_onnx,
    use_timing_cache,
)
from loadtrt.engines.build_model import calibration_sets, is_quantized, prepare, require_types
from loadtrt.engines.flavour import INSTEAD_OF_RTX, load_plugins, require_plugins, unsupported_gpu
from loadtrt.engines.index_tables import index_tables
from loadtrt.engines.plan import Sidecar, SidecarTensor, sidecar_of
from loadtrt.engines.tensorrt_log import logging_to
from loadtrt.engines.toolchain import attach, choose_toolchain, preflight, run_watched
from loadtrt.errors import EngineError, UsageError
from loadtrt.files import require_writable, write_file
from loadtrt.load.tensors import dtype_named
from loadtrt.reading_files import MOST_MODEL_BYTES, read_bytes
from loadtrt.signals import SIGNALS
from loadtrt.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from loadtrt.engines.build_config import BuildOptions
    from loadtrt.engines.build_model import Source
    from loadtrt.engines.toolchain import Progress, Toolchain, Watch
    from loadtrt.load.tensors import Arrays
    from loadtrt.results.engine_info import LogMessage


@dataclass(frozen=True, slots=True)
class BuiltPlan:
    """A plan that was built. messages: what the builder warned of."""

    path: Path
    log: Path
    sidecar: Sidecar
    notes: tuple[str, ...]
    messages: tuple[LogMessage, ...]


@dataclass(frozen=True, slots=True)
class _Serialized:
    """What the builder made, with its inputs and outputs; times as in the sidecar."""

    data: bytes
    tensors: tuple[SidecarTensor, ...]
    load_ns: int
    build_ns: int
    messages: tuple[LogMessage, ...]


def build_plan(
    source: Source,
    output: Path,
    options: BuildOptions,
    show: Callable[[Progress], None] | None = None,
    *,
    rescue: bool = True,
) -> BuiltPlan:
    """Build `source` into the file `output`, with `output`.json and `output`.log in the same folder.

    The file is whole or not there: it is replaced at the very end. `source.model` is changed.
    `show` is called with the builder's progress a few times a second. rescue: whether a plan that cannot be written to
    `output` is saved in the working folder or in $TMPDIR, which the error names. Raises UsageError (options, files,
    shapes), EngineError (no builder, no GPU, a model that TensorRT refuses), KeyboardInterrupt when it was stopped.
    """
    require_writable("-o", output)
    if output.exists() and not output.is_file():  # its description and log would lie beside a pipe or a device
        raise UsageError(f"-o {output} is not a regular file: name a plan file")
    began = time.perf_counter_ns()
    tool = choose_toolchain(options.flavour)
    import_ns = time.perf_counter_ns() - began
    preflight(tool, options)
    ready = prepare(source, options, weak_typing=tool.weak_typing)
    log = output.with_name(f"{output.name}.log")
    on_gpu = not options.targets or "CURRENT" in options.targets
    gpu = device_properties(options.device) if on_gpu else None  # asked first: a GPU that is lost costs no built plan

    def work(watch: Watch) -> _Serialized:
        if on_gpu:
            call("cudaSetDevice", options.device)  # a thread's device is its own
        return _build(tool, ready, options, watch)

    with logging_to(log, option="build log"):
        made = run_watched(tool, work, show)
    sidecar = Sidecar(
        loadtrt_version=__version__,
        model=source.name,
        model_sha256=source.sha256,
        options=options.given(),
        precision=ready.precision,
        conversion=ready.conversion,
        flavour=tool.flavour.name,
        flavour_version=tool.flavour.version,
        gpu=f"{gpu.name}, compute capability {'.'.join(map(str, gpu.compute_capability))}" if gpu else "",
        targets=options.targets,
        tensors=made.tensors,
        load_ns=import_ns + made.load_ns,
        build_ns=made.build_ns,
        plan_sha256=hashlib.sha256(made.data).hexdigest(),
        plan_bytes=len(made.data),
    )
    with SIGNALS.deferred():  # a plan and its sidecar belong together
        write_file(output, made.data, "plan", measured=rescue)
        write_file(sidecar_of(output), sidecar.model_dump_json(indent=2) + "\n", "sidecar")
    notes = ready.notes
    if gpu is not None and (refused := unsupported_gpu(tool.flavour, gpu.compute_capability)) is not None:
        notes += (f"WARNING: {refused}, so the plan does not run on this GPU ({gpu.name}): {INSTEAD_OF_RTX}",)
    return BuiltPlan(output, log, sidecar, notes, made.messages)


def progress_text(progress: Progress) -> str:
    """ "building, 12.0 s: 40%, about 18.0 s left; Building engine"."""
    text = f"building, {format_duration(progress.elapsed_ns)}"
    if progress.fraction is None:
        return text
    remaining = progress.remaining_ns
    estimate = "" if remaining is None else f", about {format_duration(remaining)} left"
    return f"{text}: {progress.fraction:.0%}{estimate}; {progress.phase}"


def _build(tool: Toolchain, source: Source, options: BuildOptions, watch: Watch) -> _Serialized:
    module, journal = tool.module, tool.journal
    before, began = journal.heard(), time.perf_counter_ns()
    require_plugins(options.plugins)
    load_plugins(tool.flavour, options.plugins)
    mark = journal.mark()
    try:
        builder = module.Builder(journal.logger)
    except TypeError:  # pybind11 raises it for a null pointer
        raise EngineError(f"{tool.flavour} cannot start its builder; TensorRT says {journal.reason(mark)}") from None
    load_ns = time.perf_counter_ns() - began
    network = make_network(tool, builder, options)
    require_types(tool.flavour, source)
    parse_onnx(tool, network, source)
    config = make_config(tool, builder, network, options)
    if options.timing_cache:
        use_timing_cache(config, options.timing_cache)
    calibrator = _calibrator(tool, source, config, options)
    monitor = attach(tool, config, watch)
    mark = journal.mark()
    began = time.perf_counter_ns()
    try:
        plan = builder.build_serialized_network(network, config)
    finally:
        if calibrator is not None:
            calibrator.close()
    build_ns = time.perf_counter_ns() - began
    del monitor
    if calibrator is not None and calibrator.failure is not None:
        raise calibrator.failure
    if plan is None:
        raise EngineError(
            f"{tool.flavour} cannot build {source.name}{_why(journal.errors_since(mark), journal.reason(mark))}"
        )
    if options.timing_cache:
        keep_timing_cache(config, options.timing_cache)
    rows = index_tables(source.model)
    tensors = tuple(
        SidecarTensor(
            name=tensor.name,
            input=place < network.num_inputs,
            dtype=dtype_named(tensor.dtype.name),
            shape=tuple(tensor.shape),
            rows=rows.get(tensor.name) if place < network.num_inputs else None,
        )
        for place, tensor in enumerate(io_of(network))
    )
    return _Serialized(bytes(plan), tensors, load_ns, build_ns, journal.messages(before))


def _why(errors: list[str], reason: str) -> str:
    """The remedy of a known failure, and what TensorRT says."""
    low = " ".join(errors).lower()
    if "out of memory" in low or "outofmemory" in low:
        known = ": GPU memory is short; lower --workspace or --batch, or free some"
    elif "libnvinfer_lean" in low:
        known = ": its lean runtime is not on the library path; set LD_LIBRARY_PATH, or add --exclude-lean-runtime"
    elif "cuda" in low and "driver" in low:
        known = ": one of the options needs a GPU for this flavour, and there is none"
    else:
        known = ""
    return f"{known} (TensorRT says {reason})" if known else f"; TensorRT says {reason}"


def _calibrator(tool: Toolchain, source: Source, config: Any, options: BuildOptions) -> Any:
    """Set where INT8 ranges come from calibration: the builder chooses types, and the model has no Q/DQ nodes."""
    if not options.int8 or not tool.weak_typing or options.strongly_typed or is_quantized(source.model):
        return None
    sets, _ = calibration_sets(source, options)
    first = next(iter(sets[0].values())).shape if sets and sets[0] else ()
    calibrator = make_calibrator(tool.module, sets, first[0] if first else 1, options.calibration_cache)
    config.int8_calibrator = calibrator
    return calibrator


def make_calibrator(module: Any, sets: Sequence[Arrays], batch: int, cache: Path | None) -> Any:
    """An instance of a subclass of the module's IInt8EntropyCalibrator2, which hands out `sets` once each.

    With `cache` there, its ranges are taken and no set is asked for; else the ranges that come out are written to it.
    TensorRT calls it in the building thread, whose device must be set. `close()` frees its device memory.
    """

    class Calibrator(module.IInt8EntropyCalibrator2):  # type: ignore[misc]  # a class only known at run time
        def __init__(self) -> None:
            module.IInt8EntropyCalibrator2.__init__(self)  # pybind11 needs its own constructor, not super()
            self.sets = iter(sets)
            self.buffers: dict[str, DeviceBuffer] = {}
            self.failure: Exception | None = None

        def get_batch_size(self) -> int:
            return batch

        def get_batch(self, names: Sequence[str]) -> list[int] | None:
            arrays = next(self.sets, None)
            if arrays is None:
                return None
            try:
                return [self._upload(name, arrays[name]) for name in names]
            except Exception as error:  # an exception here would end the process: C++ calls this
                self.failure = error
                return None

        def _upload(self, name: str, array: Any) -> int:
            if name not in self.buffers:
                self.buffers[name] = DeviceBuffer(array.nbytes)
            kind = cudart().cudaMemcpyKind.cudaMemcpyHostToDevice
            call("cudaMemcpy", self.buffers[name].address, array.ctypes.data, array.nbytes, kind)
            return self.buffers[name].address

        def read_calibration_cache(self) -> bytes | None:
            try:
                if cache is None or not cache.is_file():
                    return None
                return read_bytes(cache, "calibration cache", MOST_MODEL_BYTES)
            except UsageError as error:
                self.failure = error
                return None

        def write_calibration_cache(self, data: Any) -> None:
            if cache is None:
                return
            try:
                write_file(cache, bytes(data), "calibration cache")
            except UsageError as error:
                self.failure = error

        def close(self) -> None:
            for buffer in self.buffers.values():
                buffer.close()

    return Calibrator()
