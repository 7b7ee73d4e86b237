"""Which engine serves what `--engine` names. A file is told by its bytes, never by its name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from loadtrt.cuda.runtime import has_gpu
from loadtrt.errors import UsageError

if TYPE_CHECKING:
    from loadtrt.config import RunConfig
    from loadtrt.engines.engine import Engine


# Options that only some kinds of engine know. Given to another they would be read and ignored, so they are refused.
_TENSORRT, _ONNXRUNTIME, _SIMULATED = "TensorRT plans", "ONNX models", "simulated engines"
OPTIONS = {
    "module": {_TENSORRT},
    "plugins": {_TENSORRT},
    "allow_host_code": {_TENSORRT},
    "device": {_TENSORRT},
    "optimization_profile": {_TENSORRT},
    "graph": {_TENSORRT},
    "copies": {_TENSORRT, _SIMULATED},
    "wait": {_TENSORRT},
    "shape_values": {_TENSORRT},
    "shapes": {_TENSORRT, _ONNXRUNTIME},
    "fp16": {_TENSORRT, _ONNXRUNTIME},
    "on": {_TENSORRT, _ONNXRUNTIME},
    "threads_per_context": {_ONNXRUNTIME},
}


def open_engine(config: RunConfig) -> Engine:
    """The engine for `config.engine`, read but with no lanes yet.

    simulated:… is the simulated device; a file that begins like a plan is TensorRT's; zoo:… and ONNX files are ONNX
    Runtime's where there is no GPU, or with `on="onnxruntime"`. Raises UsageError and EngineError.
    """
    name, path = config.engine, Path(config.engine)
    if name.startswith("simulated:"):
        _require_known(config, _SIMULATED)
        from loadtrt.engines.simulated import load_simulated

        return load_simulated(config)

    from loadtrt.engines.plan import looks_like_onnx, looks_like_plan, read_header

    in_zoo = name.startswith("zoo:")
    if not in_zoo and looks_like_plan(path):
        if config.on == "onnxruntime":
            raise UsageError(f"{name} is a TensorRT plan, which ONNX Runtime cannot run: leave out --on onnxruntime")
        _require_known(config, _TENSORRT)
        from loadtrt.engines.cuda_engine import load_tensorrt

        return load_tensorrt(config)
    if not in_zoo and path.suffix.lower() != ".onnx" and not looks_like_onnx(path):
        read_header(path)  # says what the file is instead
    if config.on == "tensorrt" or (config.on == "auto" and has_gpu()):
        raise UsageError(_needs_plan(config))
    _require_known(config, _ONNXRUNTIME)
    from loadtrt.engines.onnxruntime import load_onnxruntime

    return load_onnxruntime(config)


def _require_known(config: RunConfig, kind: str) -> None:
    for option, kinds in OPTIONS.items():
        if kind not in kinds and getattr(config, option) != type(config).model_fields[option].default:
            flag = f"--{option.replace('_', '-')}"
            raise UsageError(f"{flag} is for {' and '.join(sorted(kinds))}, and {config.engine} is none: leave it out")


def _needs_plan(config: RunConfig) -> str:
    name = config.engine
    stem = name.removeprefix("zoo:").removesuffix(".onnx")
    fp16 = " --fp16" if config.fp16 else ""
    return (
        f"{name} is a model and TensorRT runs plans: build one with `loadtrt build {name} -o {stem}.plan{fp16}`, "
        "and run that, or run the model on the CPU with --on onnxruntime"
    )
