"""Which engine serves what `--engine` names. A file is told by its bytes, never by its name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from loadtrt.errors import UsageError

if TYPE_CHECKING:
    from loadtrt.config import RunConfig
    from loadtrt.engines.engine import Engine


def open_engine(config: RunConfig) -> Engine:
    """The engine for `config.engine`, read but with no lanes yet.

    simulated:… is the simulated device; a file that begins like a plan is TensorRT's; zoo:… and ONNX files are ONNX
    Runtime's where there is no GPU, or with `on="onnxruntime"`. Raises UsageError and EngineError.
    """
    name = config.engine
    if name.startswith("simulated:"):
        from loadtrt.engines.simulated import load_simulated

        return load_simulated(config)

    from loadtrt.engines.plan import looks_like_onnx, looks_like_plan, read_header

    path = Path(name)
    if not name.startswith("zoo:") and looks_like_plan(path):
        if config.on == "onnxruntime":
            raise UsageError(f"{name} is a TensorRT plan, which ONNX Runtime cannot run: leave out --on onnxruntime")
        from loadtrt.engines.cuda_engine import load_tensorrt

        return load_tensorrt(config)
    if not name.startswith("zoo:") and path.suffix.lower() != ".onnx" and not looks_like_onnx(path):
        read_header(path)  # says what the file is instead

    if config.on == "tensorrt" or (config.on == "auto" and _has_gpu()):
        raise UsageError(_needs_plan(config))
    from loadtrt.engines.onnxruntime import load_onnxruntime

    return load_onnxruntime(config)


def _has_gpu() -> bool:
    from loadtrt.cuda.runtime import has_gpu

    return has_gpu()


def _needs_plan(config: RunConfig) -> str:
    name = config.engine
    stem = name.removeprefix("zoo:").removesuffix(".onnx")
    fp16 = " --fp16" if config.fp16 else ""
    return (
        f"{name} is a model and TensorRT runs plans: build one with `loadtrt build {name} -o {stem}.plan{fp16}` "
        f"(not in this version yet; trtexec --onnx={stem}.onnx --saveEngine={stem}.plan{fp16} makes one), "
        "or run the model on the CPU with --on onnxruntime"
    )
