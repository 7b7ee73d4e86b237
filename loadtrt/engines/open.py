"""The engine that serves what `--engine` names. The bytes of a file, never its name, decide."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from loadtrt.cuda.runtime import device_count
from loadtrt.errors import CudaError, EngineError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from loadtrt.asked.model import Model
    from loadtrt.engines.engine import Engine


_DEVICES = Path("/dev")
# Options that only some kinds of engine know. Given to another they would be read and ignored, so they are refused.
_PLAN, _BUILT = "TensorRT plans", "models on TensorRT"
_ONNXRUNTIME, _SIMULATED, _STRESSOR = "models on ONNX Runtime", "simulated engines", "stressors"
OPTIONS = {
    "module": {_PLAN, _BUILT},
    "plugins": {_PLAN, _BUILT},
    "allow_host_code": {_PLAN},
    "lean_library": {_PLAN},
    "device": {_PLAN, _BUILT, _STRESSOR},
    "optimization_profile": {_PLAN},
    "partitions": {_PLAN, _BUILT, _STRESSOR},
    "sms": {_PLAN, _BUILT, _SIMULATED, _STRESSOR},
    "priority": {_PLAN, _BUILT, _SIMULATED, _STRESSOR},
    "requests_per_launch": {_PLAN, _BUILT, _STRESSOR},
    "graph": {_PLAN, _BUILT, _STRESSOR},
    "submit": {_PLAN, _BUILT},
    "copies": {_PLAN, _BUILT, _SIMULATED},
    "device_times": {_PLAN, _BUILT, _SIMULATED},
    "wait": {_PLAN, _BUILT, _STRESSOR},
    "shape_values": {_PLAN},
    "shapes": {_PLAN, _BUILT, _ONNXRUNTIME},
    "fp16": {_PLAN, _BUILT, _ONNXRUNTIME},
    "on": {_PLAN, _BUILT, _ONNXRUNTIME},
    "threads_per_context": {_ONNXRUNTIME},
    "profile": {_PLAN, _BUILT, _ONNXRUNTIME},
    "export_layer_info": {_PLAN, _BUILT},
    "trt_log": {_PLAN, _BUILT},
}


def kind_of(engine: str, on: str = "auto") -> str:
    """The kind of engine, of those in OPTIONS, that serves this. Raises UsageError for a file that cannot be read."""
    from loadtrt.engines.plan import looks_like_plan

    if engine.startswith("simulated:"):
        return _SIMULATED
    if engine.startswith("stressor:"):
        return _STRESSOR
    if not engine.startswith("zoo:") and looks_like_plan(Path(engine)):
        return _PLAN
    return _BUILT if on == "tensorrt" or (on == "auto" and _has_nvidia_gpu()) else _ONNXRUNTIME


def needs_gpu(engine: str, on: str) -> bool:
    """Whether a host needs a GPU to serve this, as far as the options tell."""
    return not engine.startswith("simulated:") and on != "onnxruntime"


def in_virtual_time(engine: str) -> bool:
    """Whether this is simulated in virtual time. Raises UsageError for a simulation that is none."""
    from loadtrt.engines.simulation import parse_simulation

    kind, _, text = engine.partition(":")
    return kind == "simulated" and text != "null" and parse_simulation(text, 0).clock == "virtual"


def open_engine(
    options: Model,
    say: Callable[[str], None] | None = None,
    status: Callable[[str], None] | None = None,
    also: Collection[str] = (),
) -> Engine:
    """The engine for `options.engine`, read but with no lanes yet.

    simulated:… is the simulated device, stressor:… loads one resource of a GPU; a file that begins like a plan is
    TensorRT's. zoo:… and ONNX files are built into a plan, once, where there is a GPU (or with `on="tensorrt"`), and
    else are ONNX Runtime's: the CPU never replaces a GPU unasked. While building, `say` is given sentences to keep and
    `status` ones that the next replaces.
    also: options of the run that are given, belong to only some kinds of engine, and are not fields of `options`.
    Raises UsageError, EngineError, and KeyboardInterrupt from a build that was stopped.
    """
    from loadtrt.engines.plan import looks_like_onnx, read_header

    name, path = options.engine, Path(options.engine)
    kind = kind_of(name, options.on)
    if kind == _PLAN and options.on == "onnxruntime":
        raise UsageError(f"{name} is a TensorRT plan, which ONNX Runtime cannot run: leave out --on onnxruntime")
    is_file = kind in (_BUILT, _ONNXRUNTIME) and not name.startswith("zoo:")
    if is_file and path.suffix.lower() != ".onnx" and not looks_like_onnx(path):
        read_header(path)  # says what the file is instead
    _require_known(options, kind, also)
    if kind == _SIMULATED:
        from loadtrt.engines.simulated import load_simulated

        return load_simulated(options)
    if kind == _STRESSOR:
        from loadtrt.engines.stressor_engine import load_stressor

        return load_stressor(options)
    if kind == _PLAN:
        from loadtrt.engines.plan_engine import load_tensorrt

        return load_tensorrt(options)
    if kind == _BUILT:
        return _load_built(options, say, status)
    from loadtrt.engines.onnxruntime import load_onnxruntime

    return load_onnxruntime(options)


def _load_built(options: Model, say: Callable[[str], None] | None, status: Callable[[str], None] | None) -> Engine:
    """TensorRT's engine of a model, by way of a plan that is kept."""
    from loadtrt.engines.plan_cache import cached_plan
    from loadtrt.engines.plan_engine import TensorRTEngine
    from loadtrt.engines.tensorrt import load_plan

    try:
        cached = cached_plan(options, say, status)
        engine = TensorRTEngine(load_plan(options, cached), options)
    except EngineError as error:
        raise EngineError(f"{error} (--on onnxruntime runs the model on the CPU instead)") from None
    notes = (*cached.notes, *engine.info.notes)
    engine.info = replace(engine.info, notes=notes, larger_batch=cached.larger_batch)
    return engine


def _has_nvidia_gpu() -> bool:
    """Whether there is a GPU, usable or not: one that is not usable is an error to report, not to ignore."""
    try:
        return device_count() > 0
    except EngineError as error:
        hidden = isinstance(error, CudaError) and error.status == "cudaErrorNoDevice"  # by CUDA_VISIBLE_DEVICES
        return not hidden and any(_DEVICES.glob("nvidia[0-9]*"))


def _require_known(options: Model, kind: str, also: Collection[str]) -> None:
    """Raises UsageError for an option that is given and unknown to this kind of engine."""
    fields = type(options).model_fields
    for option, kinds in OPTIONS.items():
        given = getattr(options, option) != fields[option].default if option in fields else option in also
        if given and kind not in kinds:
            flag = f"--{option.replace('_', '-')}"
            *most, last = sorted(kinds)
            takers = f"{', '.join(most)} and {last}" if most else last
            raise UsageError(f"{flag} is for {takers}, not for {kind} such as {options.engine}: leave it out")
