"""From a checked configuration to a profile: opens the engine on one context, times its layers, keeps what comes."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import loadtrt
from loadtrt.engines.open import open_engine
from loadtrt.engines.plan_profile import Profiled, ProfileLength, TellsLayers, Watch
from loadtrt.environment import environment
from loadtrt.errors import EngineError, UsageError
from loadtrt.live.nvml import Clocks, open_gpu
from loadtrt.load.inputs import make_inputs
from loadtrt.units import SECOND_NS, plural

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from loadtrt.asked.config import RunConfig
    from loadtrt.cli.delivery import Delivery, Stopper
    from loadtrt.cli.voice import Voice
    from loadtrt.live.nvml import Gpu
    from loadtrt.results.profile_result import ProfileResult

PASS_NS = 3 * SECOND_NS


def profile(config: RunConfig, voice: Voice, length: ProfileLength, stopper: Stopper) -> tuple[ProfileResult, Profiled]:
    """The layers' times, and what they were made of.

    The stopper is armed once the engine is loaded, and stays so: what was timed until it asks is kept, and wants to be
    written in peace. Raises UsageError, and EngineError or KeyboardInterrupt where there is nothing to keep.
    """
    started = datetime.now(UTC).isoformat(timespec="seconds")
    config = config.with_model(contexts=1, buffers=1)
    model = config.model
    if model.engine.startswith("simulated:"):
        raise UsageError(f"{model.engine} has no layers to time: profile a plan, an .onnx file, or zoo:googlenet")
    voice.status(f"loading {model.engine}")
    engine = open_engine(model, voice.say, voice.status, config.given("export_layer_info"))
    profiled, failure = Profiled(), None
    around: dict[str, object] = {}
    stopper.arm()
    try:
        assert isinstance(engine, TellsLayers)  # noqa: S101  # every engine of a model does
        inputs = make_inputs(engine.info.tensors, model.inputs, 1, model.input_range, model.seed)
        if len(inputs) > 1:
            profiled.notes.append(f"every inference had the first of {len(inputs)} input sets")
        with _gpu_around(engine.info.kind, model.device, around, profiled) as steady:
            try:
                engine.profile(inputs[0], length, profiled, Watch(stopper.requested, voice.share, steady))
            except EngineError as error:
                failure = str(error)
        # A profile copies nothing, waits after each inference, and names its modes itself.
        mode = {key: value for key, value in engine.info.mode.items() if key not in ("graph", "copies", "wait")}
        info = replace(engine.info, mode=mode)
    finally:
        engine.close()
        voice.end_line()
    if not profiled.passes:
        if stopper.requested():
            raise KeyboardInterrupt
        raise EngineError(failure or "; ".join(profiled.notes) or "the profiler reported nothing")
    from loadtrt.results.profile_result import ProfileResult

    return ProfileResult(
        loadtrt=loadtrt.__version__,
        started=started,
        command=tuple(sys.argv),
        config=config,
        environment={**environment(), **around},
        engine=info,
        outcome="failed" if failure else "interrupted" if profiled.stopped else "completed",
        failure=failure,
        passes=tuple(profiled.passes),
        notes=tuple(profiled.notes),
    ), profiled


def length_of(config: RunConfig) -> ProfileLength:
    """The length that --duration and --requests ask for, each pass alike."""
    duration = config.duration
    if duration is None:
        duration = 0 if config.model.requests else PASS_NS
    return ProfileLength(duration, config.model.requests or 1, config.warmup)


def deliver_exports(config: RunConfig, result: ProfileResult, profiled: Profiled, delivery: Delivery) -> None:
    """trtexec's files of a profile, as far as they are asked for."""
    from loadtrt.report.trtexec import layer_info_json, profile_json

    delivery.make(config.export_profile, lambda: profile_json(result.passes[0]))

    def layer_info() -> str:
        if profiled.layer_info is None:
            raise EngineError(
                f"there is no layer information to write to {config.export_layer_info}: {result.engine.flavour} has no "
                "engine inspector (full TensorRT and RTX have)"
            )
        return layer_info_json(profiled.layer_info)

    delivery.make(config.export_layer_info, layer_info)


@contextmanager
def _gpu_around(kind: str, device: int, around: dict[str, object], profiled: Profiled) -> Iterator[Callable[[], bool]]:
    """The GPU's facts before and after, and notes where it was not quiet or not at its speed. Gives a function that
    tells whether the clocks are steady."""
    gpu = open_device(kind, device)
    if gpu is None:
        yield lambda: True
        return
    with gpu:
        clocks = Clocks(gpu)
        yield lambda: clocks.settled() is not False
        around.update(clocks.environment())
        after = gpu.read()
        others = (gpu.processes() or ())[1:]  # the first is this process; ids may be those of another namespace
        if others:
            profiled.notes.append(
                f"{plural(len(others), 'more client')} computed on this GPU: layers may be slower than on a quiet one"
            )
        if after.slowdowns:
            profiled.notes.append(f"the GPU's clocks were held by {', '.join(after.slowdowns)}: layers are slower")


def open_device(kind: str, device: int) -> Gpu | None:
    """NVML's view of the GPU that a `kind` of engine uses; None where it uses none, or NVML does not tell."""
    if kind != "tensorrt":
        return None
    from loadtrt.cuda.runtime import device_properties

    return open_gpu(device_properties(device).pci_bus_id)[0]
