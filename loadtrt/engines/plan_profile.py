"""Profiling an engine layer by layer: what every engine that can do it shares, and TensorRT's profiler.

TensorRT profiles one context of a plan with nothing else on the GPU: plainly enqueued, then as a CUDA graph.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from loadtrt.cuda.memory import DeviceBuffer
from loadtrt.cuda.runtime import call, close_all, closed_on_failure, cudart
from loadtrt.cuda.stream import Event, Graph, elapsed_ns
from loadtrt.engines import plan_facts
from loadtrt.errors import CudaError, EngineError
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from loadtrt.cuda.runtime import Closes
    from loadtrt.engines.context import PlanContext
    from loadtrt.engines.placement import Placement
    from loadtrt.engines.tensorrt import Plan
    from loadtrt.load.tensors import Arrays
    from loadtrt.results.engine_info import Layer
    from loadtrt.results.profile_result import Mode, ProfilePass
    from loadtrt.stats.profiles import Samples

_STEADY_NS = 10 * SECOND_NS  # clocks that are not steady by then will not be


@dataclass(frozen=True, slots=True)
class ProfileLength:
    """How long each pass is: until both `duration_ns` and `inferences` are met. warmup_ns: before anything is timed."""

    duration_ns: int
    inferences: int
    warmup_ns: int


@dataclass(slots=True)
class Profiled:
    """The results of a profile so far, valid at any moment.

    passes: those that are finished; the first is shown first.
    layer_info: the engine inspector's own JSON; None without an inspector.
    notes: why a pass is missing, and what its reader should know.
    """

    passes: list[ProfilePass] = field(default_factory=list)
    layer_info: str | None = None
    notes: list[str] = field(default_factory=list)
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class Watch:
    """Callbacks of a profile.

    stop: whether to end now; called between inferences.
    tell: takes the name of the pass and its progress, 0 to 1; called after each inference.
    steady: whether the clocks are steady; called during warm-up.
    """

    stop: Callable[[], bool]
    tell: Callable[[str, float], None]
    steady: Callable[[], bool] = lambda: True


@runtime_checkable
class ProfilesLayers(Protocol):
    """An engine that can time its layers: loaded, and no lanes allocated."""

    def profile(self, inputs: Arrays, length: ProfileLength, profiled: Profiled, watch: Watch) -> None:
        """Fill `profiled`, one inference with `inputs` at a time. Raises EngineError; earlier results are kept."""


def warm_up(infer: Callable[[], object], length: ProfileLength, watch: Watch) -> None:
    """Inferences until `warmup_ns` have passed and clocks are steady; not for ever, since some never are."""
    began = perf_counter_ns()
    for _ in turns(ProfileLength(length.warmup_ns, 1, 0), watch, "warm-up"):
        infer()
    while length.warmup_ns and not watch.stop() and not watch.steady() and perf_counter_ns() - began < _STEADY_NS:
        for _ in turns(ProfileLength(SECOND_NS // 5, 1, 0), watch, "warm-up until clocks are steady"):
            infer()


def turns(length: ProfileLength, watch: Watch, name: str, part: float = 1.0) -> Iterator[int]:
    """Count inferences until `part` of the length is through, or `watch.stop()` says so; at least one is made."""
    least, duration = max(1, round(length.inferences * part)), length.duration_ns * part
    began, done = perf_counter_ns(), 0
    while True:
        yield done
        done += 1
        elapsed = perf_counter_ns() - began
        if watch.stop() or (done >= least and elapsed >= duration):
            return
        watch.tell(name, min(done / least, elapsed / duration if duration else 1.0))


_MILLISECOND_NS = 1e6
_WHOLE = 0.25  # of a pass's length: inferences without the profiler
_MODES = {"plain": "plain inference", "graph": "CUDA graph"}


def profile_plan(
    plan: Plan,
    inputs: Arrays,
    length: ProfileLength,
    graph: bool,
    profiled: Profiled,
    watch: Watch,
    placement: Placement,
) -> None:
    """Fill `profiled` with a plain pass and, with `graph`, one of a captured graph, which then comes first.

    Inputs are copied to the device once: a profile is of compute alone. Whole inferences are timed before a profiler
    is attached, since it cannot be taken off without a trace. The context computes where the first of a run's would.
    Raises CudaError and EngineError.
    """
    bench = _Bench(plan, inputs, placement)
    profiled.notes += placement.notes
    try:
        profiled.layer_info, layers = _layers(plan, bench.context, profiled)
        warm_up(bench.infer, length, watch)
        modes: list[Mode] = ["plain", "graph"] if graph else ["plain"]
        whole: dict[Mode, list[int]] = {}
        for mode in list(modes):
            try:
                with bench.launcher(mode) as launch:
                    times = [bench.timed(launch) for _ in turns(length, watch, f"{mode}: whole", _WHOLE)]
            except CudaError as error:
                if mode == "plain":
                    raise
                profiled.notes.append(f"no profile of a CUDA graph: {error}")
                modes.remove(mode)
            else:
                whole[mode] = times
        bench.context.attach_profiler()
        for mode in modes:
            if watch.stop():
                break
            samples = _sample(bench, mode, length, watch)
            if samples.inferences:
                profiled.passes.insert(0, samples.to_pass(mode, layers, whole[mode]))
            else:
                profiled.notes.append(f"TensorRT's profiler reported no layers of a {_MODES[mode]}")
        profiled.stopped = watch.stop()
    finally:
        bench.close()


class _Bench:
    """One context with its stream and device buffers, inputs uploaded, bound and run once."""

    def __init__(self, plan: Plan, inputs: Arrays, placement: Placement) -> None:
        self._owned: list[Closes] = []
        make_stream = placement.stream_maker(0)
        with closed_on_failure(self):
            self.stream = self._own(make_stream())
            self.start, self.end = self._own(Event()), self._own(Event())
            self.context: PlanContext = self._own(plan.context(int(self.stream), profiled=True))
            self._owned[-1:-1] = placement.place(self.context, make_stream)  # closed after the context
            for spec in plan.tensors:
                if spec.shape_values:
                    continue
                buffer = self._own(DeviceBuffer(spec.nbytes))
                self.context.bind(spec.name, buffer.address)
                if spec.is_input and spec.nbytes:
                    data = np.ascontiguousarray(inputs[spec.name]).reshape(-1).view(np.uint8)
                    kind = cudart().cudaMemcpyKind.cudaMemcpyHostToDevice
                    call("cudaMemcpy", buffer.address, data.ctypes.data, data.nbytes, kind)
            self.infer()

    def infer(self) -> None:
        """One inference, waited for."""
        self.enqueue(int(self.stream))
        self.stream.synchronize()

    def enqueue(self, stream: int) -> bool:
        """Enqueue one inference; raises EngineError where TensorRT refuses."""
        if not self.context.enqueue(stream):
            raise EngineError(f"TensorRT refused an enqueue: {self.context.reason()}")
        return True

    @contextmanager
    def launcher(self, mode: Mode) -> Iterator[Callable[[], object]]:
        """What puts one inference on the stream: an enqueue, or a graph of it captured now. Raises CudaError."""
        if mode == "plain":
            yield lambda: self.enqueue(int(self.stream))
            return
        graph = Graph.capture(self.stream, lambda: self.enqueue(int(self.stream)))
        try:
            yield lambda: call("cudaGraphLaunch", graph.handle, self.stream.handle)
        finally:
            self.stream.synchronize()
            graph.close()

    def timed(self, launch: Callable[[], object]) -> int:
        """ns on the GPU from before to after what `launch` puts on the stream."""
        call("cudaEventRecord", self.start.handle, self.stream.handle)
        launch()
        call("cudaEventRecord", self.end.handle, self.stream.handle)
        self.stream.synchronize()
        return elapsed_ns(self.start, self.end)

    def close(self) -> None:
        """In the reverse order of making: the context before its buffers' stream."""
        owned, self._owned = list(reversed(self._owned)), []
        close_all(owned)

    def _own(self, handle: Any) -> Any:
        self._owned.append(handle)
        return handle


def _layers(plan: Plan, context: PlanContext, profiled: Profiled) -> tuple[str | None, tuple[Layer, ...]]:
    """The inspector's JSON and the layers in it, with a note where details are missing."""
    text = context.layer_info()
    if text is None:
        profiled.notes.append(f"{plan.flavour.name} has no engine inspector: layers have only names and times")
        return None, ()
    layers = plan_facts.layers_of(plan.open, text)
    if not plan_facts.is_detailed(layers):
        profiled.notes.append(
            "the plan was built without ProfilingVerbosity.DETAILED: layers have only names and times"
        )
    return text, layers


def _sample(bench: _Bench, mode: Mode, length: ProfileLength, watch: Watch) -> Samples:
    """Layer times of one inference after the other. A graph is captured with the profiler attached: it carries the
    profiler's events."""
    from loadtrt.stats.profiles import Samples

    samples = Samples()
    with bench.launcher(mode) as launch:
        for _ in turns(length, watch, f"{mode}: layers"):
            launch()
            bench.stream.synchronize()
            times = bench.context.layer_times()
            if times:
                samples.add((name, round(milliseconds * _MILLISECOND_NS)) for name, milliseconds in times)
    return samples
