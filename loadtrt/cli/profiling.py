"""From a checked configuration to a profile: opens the engine on one context, times its layers, keeps what comes."""

from __future__ import annotations

import signal
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import loadtrt
from loadtrt.engines.open import open_engine
from loadtrt.engines.profiling import Profiled, ProfileLength, TellsLayers, Watch
from loadtrt.environment import environment, gpu_environment
from loadtrt.errors import EngineError, UsageError
from loadtrt.live.telemetry import open_gpu
from loadtrt.load.inputs import make_inputs
from loadtrt.measure.profile import ProfileResult
from loadtrt.report.trtexec import layer_info_json, profile_json
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from loadtrt.cli.voice import Voice
    from loadtrt.config import RunConfig
    from loadtrt.live.telemetry import Gpu

PASS_NS = 3 * SECOND_NS


def profile(config: RunConfig, voice: Voice, length: ProfileLength) -> tuple[ProfileResult, Profiled, str | None]:
    """The layers' times; what they were made of; and the sentence of what ended it early, None where nothing did.

    Ctrl-C ends the profile after the inference that runs; what was timed until then is kept. Raises UsageError, and
    EngineError where there is nothing to keep.
    """
    started = datetime.now(UTC).isoformat(timespec="seconds")
    config = config.model_copy(update={"contexts": 1, "buffers": 1})
    voice.status(f"loading {config.engine}")
    engine = open_engine(config, voice.say, voice.status)
    profiled, failure = Profiled(), None
    around: dict[str, object] = {}
    try:
        if not isinstance(engine, TellsLayers):
            raise UsageError(f"{config.engine} has no layers to time: profile a plan, an .onnx file, or zoo:googlenet")
        (inputs,) = make_inputs(engine.info.tensors, config.inputs, 1, config.input_range, config.seed)
        with _gpu_around(engine.info.kind, config.device, around, profiled), _stoppable() as stop:
            try:
                engine.profile(inputs, length, profiled, Watch(stop, voice.share))
            except EngineError as error:
                failure = str(error)
        info = engine.info
    finally:
        engine.close()
        voice.end_line()
    if not profiled.passes:
        if profiled.stopped:
            raise KeyboardInterrupt
        raise EngineError(failure or "; ".join(profiled.notes) or "the profiler reported nothing")
    result = ProfileResult(
        loadtrt=loadtrt.__version__,
        started=started,
        command=tuple(sys.argv),
        config=config.model_dump(mode="json", by_alias=True),
        environment={**environment(), **around},
        engine=info,
        passes=tuple(profiled.passes),
        notes=tuple(profiled.notes),
    )
    return result, profiled, failure


def length_of(config: RunConfig) -> ProfileLength:
    """The length that --duration and --requests ask for, each pass alike."""
    duration = config.duration
    if duration is None:
        duration = 0 if config.requests else PASS_NS
    return ProfileLength(duration, config.requests or 1, config.warmup)


def write_exports(config: RunConfig, result: ProfileResult, profiled: Profiled) -> None:
    """trtexec's files of a profile, as far as they are asked for. Raises EngineError."""
    if config.export_profile:
        write_text(config.export_profile, profile_json(result.passes[0]))
    if config.export_layer_info:
        if profiled.layer_info is None:
            raise EngineError(
                f"there is no layer information to write to {config.export_layer_info}: {result.engine.flavour} has no "
                "engine inspector (full TensorRT and RTX have)"
            )
        write_text(config.export_layer_info, layer_info_json(profiled.layer_info))


def write_text(target: str, text: str) -> None:
    """Write a result's file, or to stdout where it is "-". Raises EngineError."""
    if target == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    try:
        Path(target).write_text(text, encoding="utf-8")
    except OSError as error:
        raise EngineError(f"the result could not be written to {target}: {error.strerror}") from None


@contextmanager
def _stoppable() -> Iterator[Callable[[], bool]]:
    """Ctrl-C asks to stop, and a second one interrupts. An exception in TensorRT's callbacks would be lost in C++."""
    asked = False

    def ask(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _gpu_around(kind: str, device: int, around: dict[str, object], profiled: Profiled) -> Iterator[None]:
    """The GPU's facts before and after, and a note where it was not quiet."""
    gpu = open_device(kind, device)
    if gpu is None:
        yield
        return
    with gpu:
        others = (gpu.processes() or ())[1:]  # the first is this process; ids may be those of another namespace
        if others:
            profiled.notes.append(
                f"{len(others)} more process{'es' if len(others) > 1 else ''} computed on this GPU: layers may be "
                "slower than on a quiet one"
            )
        before = gpu.read()
        yield
        around["gpu"] = gpu_environment(gpu, before, gpu.read())


def open_device(kind: str, device: int) -> Gpu | None:
    """NVML's view of the GPU that a `kind` of engine uses; None where it uses none, or NVML does not tell."""
    if kind != "tensorrt":
        return None
    from loadtrt.cuda.runtime import device_properties

    return open_gpu(device_properties(device).pci_bus_id)[0]
