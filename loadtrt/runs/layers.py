"""Profiles an engine: loads it on one context, and times its layers."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import loadtrt
from loadtrt.asked.reading import OUTPUT_KEYS, keys_of, load_config
from loadtrt.engines.open import open_engine
from loadtrt.engines.plan_profile import Profiled, ProfileLength, ProfilesLayers, Watch
from loadtrt.environment import available_bytes, environment
from loadtrt.errors import EngineError, UsageError
from loadtrt.live.clients import Clients, own_process
from loadtrt.live.nvml import open_gpu
from loadtrt.live.watching import Clocks
from loadtrt.load.inputs import make_input_sets
from loadtrt.printing import command_line
from loadtrt.results.gpu_telemetry import clients_text
from loadtrt.runs.watched import bus_id_of
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from loadtrt.asked.config import RunConfig
    from loadtrt.live.clients import Own
    from loadtrt.results.profile_result import ProfileResult
    from loadtrt.results.run_result import RunResult
    from loadtrt.runs.maker import Maker
    from loadtrt.runs.watched import Talks
    from loadtrt.signals import Signals

PASS_NS = 3 * SECOND_NS


def profile_config(file: Path | RunConfig | None, given: dict[str, Any]) -> RunConfig:
    """Engine and inputs from the configuration of a run; its load, its end and its files are left out.

    file, given: as for `load_config`.

    Raises UsageError.
    """
    without = (
        OUTPUT_KEYS | keys_of("Load", "Objectives") | {"batcher", "requests", "duration", "max_duration", "precision"}
    )
    return load_config(file, {**given, "profile": True}, without)


def profile(config: RunConfig, talks: Talks, length: ProfileLength, signals: Signals) -> tuple[ProfileResult, Profiled]:
    """Time the layers of the engine; returns the result, and what was timed.

    A signal interrupts loading; later ones end the profile, and what was timed until then is kept. Raises UsageError,
    and EngineError or KeyboardInterrupt where there is nothing to keep.
    """
    started = datetime.now(UTC).isoformat(timespec="seconds")
    config = config.with_model(contexts=1, buffers=1)
    model = config.model
    if model.engine.startswith(("simulated:", "stressor:")):
        raise UsageError(f"{model.engine} has no layers to time: profile a plan, an .onnx file, or zoo:googlenet")
    talks.status(f"loading {model.engine}", slow=True)
    own = own_process()
    try:
        with signals.interruptible():
            engine = open_engine(model, talks.say, talks.status, config.given("export_layer_info", "trt_log"))
    finally:
        talks.end_line()
    signals.hold()
    profiled, failure = Profiled(), None
    around: dict[str, object] = {}
    try:
        assert isinstance(engine, ProfilesLayers)  # noqa: S101  # every engine of a model does
        info, room = engine.info, available_bytes()
        made = make_input_sets(
            info.tensors, model.inputs, 1, model.input_range, model.seed, room, model.batch or info.batch
        )
        inputs = made.sets
        profiled.notes += made.notes
        if len(inputs) > 1:
            profiled.notes.append(f"every inference had the first of {len(inputs)} input sets")
        if model.fp16:
            profiled.notes.append("a profile does not compare outputs in FP16 with FP32: 'loadtrt run --fp16' does")
        with _gpu_around(engine.info.kind, model.device, own, around, profiled) as steady:
            try:
                engine.profile(inputs[0], length, profiled, Watch(signals.requested, talks.share, steady))
            except EngineError as error:
                failure = str(error)
        # A profile copies nothing, waits after each inference, and names its modes itself.
        mode = {key: value for key, value in engine.info.mode.items() if key not in ("graph", "copies", "wait")}
        info = replace(engine.info, mode=mode)
    finally:
        engine.close()
        talks.end_line()
    if not profiled.passes:
        if signals.requested():
            raise KeyboardInterrupt
        raise EngineError(failure or "; ".join(profiled.notes) or "the profiler reported nothing")
    from loadtrt.results.profile_result import ProfileResult

    return ProfileResult(
        loadtrt=loadtrt.__version__,
        started=started,
        command=command_line(),
        config=config,
        environment={**environment(), **around},
        engine=info,
        outcome="failed" if failure else "interrupted" if profiled.stopped else "completed",
        failure=failure,
        passes=tuple(profiled.passes),
        notes=tuple(profiled.notes),
    ), profiled


def profile_after(result: RunResult, config: RunConfig, maker: Maker) -> tuple[ProfileResult, Profiled]:
    """The profile of the engine of a run that `maker` made, after it closed the engine. Raises as `profile` does."""
    threads = result.model.engine.mode.get("threads per context")
    if threads is not None:
        config = config.with_model(threads_per_context=int(threads))
    return profile(config, maker.talks, ProfileLength(PASS_NS, 1, config.warmup), maker.signals)


def length_of(config: RunConfig) -> ProfileLength:
    """The length that --duration and --requests ask for, each pass alike."""
    duration = config.duration
    if duration is None:
        duration = 0 if config.model.requests else PASS_NS
    return ProfileLength(duration, config.model.requests or 1, config.warmup)


@contextmanager
def _gpu_around(
    kind: str, device: int, own: Own, around: dict[str, object], profiled: Profiled
) -> Iterator[Callable[[], bool]]:
    """The GPU's facts before and after, and notes where it was not quiet or not at its speed. Gives a function that
    tells whether the clocks are steady."""
    bus_id = bus_id_of(kind, device)
    gpu, why = (None, "") if bus_id is None else open_gpu(bus_id)
    if gpu is None:
        profiled.notes += [f"who else uses the GPU is not known: {why}"] if why else []
        yield lambda: True
        return
    with gpu:
        clocks, clients, start_ns = Clocks(gpu), Clients(gpu, own), time.time_ns()
        yield lambda: clocks.settled() is not False
        around.update(clocks.environment())
        after = gpu.read()
        clients.look()
        sharing = clients.between(start_ns, time.time_ns())
        if sharing.computing:
            profiled.notes.append(
                f"others computed on this GPU meanwhile: {clients_text(sharing.computing)}; "
                "layers may be slower than on a quiet one"
            )
        if after.slowdowns:
            profiled.notes.append(f"the GPU's clocks were held by {', '.join(after.slowdowns)}: layers are slower")
