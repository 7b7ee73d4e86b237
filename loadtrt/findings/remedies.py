"""What a run can still change: options that it does not use yet and that its engine and its load do not refuse, or, in
words, what has to become another. An empty text: there is nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtrt.asked.load import Offline, Stages
from loadtrt.asked.model import Model
from loadtrt.asked.trace_load import Trace
from loadtrt.findings.validity import typical_ns
from loadtrt.records.records import DEVICE_TIMES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadtrt.results.breakdown import MetricSummary
    from loadtrt.results.engine_info import EngineInfo

_SEVERAL = 4  # requests of a launch, where one has been in each
_SMALL = 2.0  # times as long as one enqueue for each lane: a net that computes for longer leaves the host time


def larger_batch(model: Model, engine: EngineInfo) -> str:
    """More work in each request: an option where the engine takes larger requests, else another engine."""
    if engine.larger_batch:
        if model.batcher:
            return "a larger max= in --batcher"
        if model.mix:
            return "larger parts in --mix"
        return "larger --shapes" if model.shapes else "a larger --batch"
    if engine.kind == "onnxruntime":
        return "a model that takes larger batches"
    return "a plan for larger batches ('loadtrt build --batch', if its model leaves the batch open)"


def more_per_launch(model: Model, engine: EngineInfo) -> str:
    """More requests in each launch, which are of one size and of a closed loop."""
    more = _SEVERAL if model.requests_per_launch == 1 else 2 * model.requests_per_launch
    several = model.mix or model.batcher or not model.load.closed
    captured = engine.kind == "tensorrt" and engine.mode.get("graph") == "yes"
    return f"--requests-per-launch {more}" if captured and not several and more <= _most("requests_per_launch") else ""


def more_contexts(model: Model) -> str:
    """More lanes, in words; the number is the user's."""
    return "more --contexts" if model.contexts < _most("contexts") else ""


def one_more_context(model: Model) -> str:
    """One lane more."""
    return f"--contexts {model.contexts + 1}" if model.contexts < _most("contexts") else ""


def measured_submit(model: Model) -> str:
    """The way of submitting that warm-up measures to be the faster, where the user has chosen one."""
    return "" if model.submit == "auto" else "--submit auto"


def lower_load(model: Model, than: str = "") -> str:
    """Fewer requests a second. than: the rate to stay below, as text."""
    load = model.load
    if load.closed or isinstance(load, Offline):
        return ""
    if isinstance(load, Stages) and load.rate is None:
        return "lower rates in --stages"
    if isinstance(load, Trace) and load.rate is None:
        return "a larger --time-scale"
    return f"a --rate below {than}" if than else "a lower --rate"


def less_load(model: Model) -> str:
    """What to do about requests that come too fast; of a closed loop, about too many at a time."""
    if isinstance(model.load, Offline):
        return "take fewer --requests"
    if model.load.closed:
        return "take fewer --contexts" if model.contexts > 1 else "run nothing else on the device"
    return f"take {lower_load(model)}"


def faster_host(model: Model, engine: EngineInfo, command: Sequence[str], metrics: Mapping[str, MetricSummary]) -> str:
    """What to do about lanes that stand idle as the host is late. command: that of the run, the program first."""
    if one_at_a_time(command):
        return f"use {larger_batch(model, engine)}, or leave --latency out, for more requests in flight"
    buffers = "more --buffers" if model.buffers < _most("buffers") else ""
    launch = "" if "sweep" in command[1:2] else more_per_launch(model, engine)  # which has no such option
    cheaper = compiled_loop(model, engine), fewer_events(model, engine, metrics)
    return f"use {either(*cheaper, buffers, larger_batch(model, engine), launch)}"


def fewer_events(model: Model, engine: EngineInfo, metrics: Mapping[str, MetricSummary]) -> str:
    """Requests that are not timed on the device, where a net is so small that their events are a large part of the
    host's work, and no objective is on these times."""
    if engine.kind != "tensorrt" or not engine.device_times:
        return ""
    compute_ns = model.requests_per_launch * typical_ns(metrics["compute"])
    small = 0 < compute_ns <= _SMALL * model.contexts * typical_ns(metrics["enqueue"])
    wanted = any(objective.metric_name in DEVICE_TIMES for objective in model.objectives)
    return "--device-times off" if small and not wanted else ""


def compiled_loop(model: Model, engine: EngineInfo) -> str:
    """What makes the loop machine code, where that is all it lacks."""
    drivable = engine.mode.get("graph") == "yes" and model.wait == "spin" and not model.batcher
    return "a compiled loop (pip install 'loadtrt[fast]')" if drivable and engine.mode.get("loop") == "python" else ""


def one_at_a_time(command: Sequence[str]) -> bool:
    """Whether the command asks for one request at a time: --latency excludes the options for more in flight."""
    return "--latency" in command


def either(*remedies: str) -> str:
    """Those that there are: "a, b or c"."""
    *most, last = [remedy for remedy in remedies if remedy] or [""]
    return f"{', '.join(most)} or {last}" if most else last


def _most(field: str) -> int:
    """The largest value of an option."""
    return int(next(bound.le for bound in Model.model_fields[field].metadata if hasattr(bound, "le")))
