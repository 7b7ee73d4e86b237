"""Streams, events and captured graphs, freed by their owners, and the GPU's clock."""

from __future__ import annotations

from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, ClassVar

from loadtrt.cuda.driver import call_driver
from loadtrt.cuda.runtime import call, close_all, closed_on_failure, cudart, error_of
from loadtrt.errors import CudaError, EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

EXTERNAL = 1  # cudaEventRecordExternal, cudaEventWaitExternal: a graph node whose event is visible outside the graph
MS_NS = 1e6  # CUDA gives elapsed times in milliseconds


class _Owned:
    """Owns a handle of the CUDA runtime.

    handle: None once it is destroyed.
    destroy: the function that destroys it.
    """

    destroy: ClassVar[str]

    def __init__(self, handle: Any) -> None:
        self.handle = handle

    def close(self) -> None:
        """Destroy the handle. Safe to call twice."""
        handle, self.handle = self.handle, None
        if handle is not None:
            call(self.destroy, handle)


class Stream(_Owned):
    """A stream that does not synchronise with the legacy default stream. priority: lower numbers run first."""

    destroy = "cudaStreamDestroy"

    def __init__(self, priority: int | None = None) -> None:
        flags = cudart().cudaStreamNonBlocking
        super().__init__(
            call("cudaStreamCreateWithFlags", flags)
            if priority is None
            else call("cudaStreamCreateWithPriority", flags, priority)
        )

    def require_priority(self, priority: int | None) -> None:
        """Raise EngineError, and destroy the stream, where it has another priority."""
        if priority is None:
            return
        with closed_on_failure(self):
            given = int(call("cudaStreamGetPriority", self.handle))
            if given != priority:
                made = f"CUDA made a stream of priority {given} where {priority} was asked for"
                raise EngineError(f"{made}: leave --priority out")

    def __int__(self) -> int:
        return int(self.handle)

    def synchronize(self) -> None:
        """Wait until all work on the stream is done. Raises CudaError, also for earlier asynchronous failures."""
        call("cudaStreamSynchronize", self.handle)


class Event(_Owned):
    """A timing event."""

    destroy = "cudaEventDestroy"

    def __init__(self) -> None:
        super().__init__(call("cudaEventCreateWithFlags", 0))


def elapsed_ns(start: Event, end: Event) -> int:
    """Time from one completed event to another, ns; negative where `end` came first. Raises CudaError.

    CUDA gives float32 milliseconds, which are exact to 60 ns at one second.
    """
    status, milliseconds = cudart().cudaEventElapsedTime(start.handle, end.handle)
    if status:
        raise error_of("cudaEventElapsedTime", status)
    return round(float(milliseconds) * MS_NS)


class Graph(_Owned):
    """Work of one stream, captured so that one call launches it."""

    destroy = "cudaGraphExecDestroy"

    @classmethod
    def capture(cls, stream: Stream, work: Callable[[], object], look: Callable[[Any], None] = lambda _: None) -> Graph:
        """Capture what `work()` enqueues on the stream. An inference must have run without capture before, and events
        must be recorded and waited for with EXTERNAL. Raises CudaError where the work cannot be captured.

        look: is shown what was captured, as `captured_kernels` takes it.
        """
        runtime = cudart()
        call("cudaStreamBeginCapture", stream.handle, runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)
        worked = False
        try:
            work()
            worked = True
        except EngineError:
            pass
        finally:
            # A stream whose capture does not end is unusable, so it ends where the enqueue was refused, too.
            status, graph = runtime.cudaStreamEndCapture(stream.handle)
            runtime.cudaGetLastError()  # an invalidated capture leaves its error behind
        if not worked or status != 0:
            if status == 0:
                runtime.cudaGraphDestroy(graph)
            raise CudaError("cudaStreamEndCapture", "capture refused", "the enqueue does work that a graph cannot hold")
        try:
            look(graph)
            executable = call("cudaGraphInstantiate", graph, 0)
        finally:
            runtime.cudaGraphDestroy(graph)
        call("cudaGraphUpload", executable, stream.handle)
        return cls(executable)


def captured_kernels(graph: Any) -> list[tuple[int, int]]:
    """Priority and context of each kernel that was captured: those of the stream on which it was enqueued, which may be
    one that TensorRT made. Raises CudaError, and RuntimeError where the driver does not know."""
    runtime, found = cudart(), []
    _, count = call("cudaGraphGetNodes", graph, 0)
    nodes, _ = call("cudaGraphGetNodes", graph, count)
    for node in nodes:
        if call("cudaGraphNodeGetType", node) == runtime.cudaGraphNodeType.cudaGraphNodeTypeKernel:
            attribute = runtime.cudaLaunchAttributeID.cudaLaunchAttributePriority
            priority = call("cudaGraphKernelNodeGetAttribute", node, attribute).priority
            found.append((int(priority), int(call_driver("cuGraphKernelNodeGetParams", node).ctx)))
    return found


class GpuClock:
    """Converts instants of events to the host's clock (perf_counter_ns) by anchors: events whose host instant is known.

    An anchor is an event recorded on an idle stream of high priority. It completed after the last query that found it
    pending had begun, and before the query that found it complete had returned. Its instant is the middle of the two,
    ± half their distance. The instant of another event is

        host(event) = host(anchor) + rate · elapsed(anchor, event)

    by the latest anchor, since elapsed times are float32. The rate is host time over GPU time from the first anchor to
    the latest, once they span half a second: oscillators differ, by 26 µs a second on one machine.

    anchor: handle of the latest anchor's event.
    anchor_ns: its instant on the host's clock.
    host_ns_per_ms: the rate, for CUDA's milliseconds.
    error_ns: the largest half distance of an anchor.
    drift_ns: the largest difference between an anchor and its prediction by the one before, once the rate was known.
    anchors: number of anchors.
    due_ns: when to take the next anchor.
    """

    PERIOD_NS = 1_000_000_000
    _TRIES = 5
    _SHARP_NS = 4_000
    _LEAST_SPAN_NS = 500_000_000
    _PATIENCE_NS = 200_000  # a busy GPU may take long over one record; then the old anchor stays

    def __init__(self) -> None:
        highest = call("cudaDeviceGetStreamPriorityRange")[1]
        self._stream = Stream(priority=highest)
        self._events = [Event(), Event(), Event()]
        self._anchor = self._events[0]
        self.anchor, self.anchor_ns, self.host_ns_per_ms = self._anchor.handle, 0, MS_NS
        self._host_ns = self._gpu_ns = 0  # from the first anchor to the latest, by each clock
        self.error_ns = 0
        self.drift_ns = 0
        self.anchors = 0
        self.due_ns = 0

    def take_anchor(self) -> None:
        """Take an anchor: the first of a few tries that is sharp enough, else the sharpest.

        Where the GPU is too busy for a new anchor the old one stays. Raises CudaError where there is none.
        """
        best: tuple[int, int, Event] | None = None  # (half width, instant, event)
        for _ in range(self._TRIES):
            spare = next(
                event for event in self._events if event is not self._anchor and (not best or event is not best[2])
            )
            bounds = self._record(spare, self._PATIENCE_NS if self.anchors else 1_000_000_000)
            if bounds is None:
                break
            half = (bounds[1] - bounds[0]) // 2
            if best is None or half < best[0]:
                best = half, bounds[0] + half, spare
            if half < self._SHARP_NS:
                break
        self.due_ns = perf_counter_ns() + self.PERIOD_NS
        if best is not None:
            self._adopt(*best)
        elif not self.anchors:
            raise CudaError("cudaEventQuery", "cudaErrorNotReady", "an event on an idle stream took over a second")

    def _adopt(self, half_ns: int, instant_ns: int, event: Event) -> None:
        if self.anchors:
            if self._gpu_ns > self._LEAST_SPAN_NS:
                self.drift_ns = max(self.drift_ns, abs(self.host_ns(event) - instant_ns))
            self._host_ns += instant_ns - self.anchor_ns
            self._gpu_ns += elapsed_ns(self._anchor, event)
            if self._gpu_ns > self._LEAST_SPAN_NS:
                self.host_ns_per_ms = MS_NS * self._host_ns / self._gpu_ns
        self.error_ns = max(self.error_ns, half_ns)
        self._anchor, self.anchor, self.anchor_ns = event, event.handle, instant_ns
        self.anchors += 1

    def _record(self, event: Event, patience_ns: int) -> tuple[int, int] | None:
        """Record the event now. Returns the host instants between which it completed; None when that takes too long."""
        query, not_ready, handle = cudart().cudaEventQuery, cudart().cudaError_t.cudaErrorNotReady, event.handle
        pending = perf_counter_ns()
        deadline = pending + patience_ns
        call("cudaEventRecord", handle, self._stream.handle)
        while True:
            asked = perf_counter_ns()
            status = query(handle)[0]
            if not status:
                return pending, perf_counter_ns()
            if status != not_ready:
                raise error_of("cudaEventQuery", status)
            if asked > deadline:
                return None
            pending = asked

    def host_ns(self, event: Event) -> int:
        """The instant of a completed event on the host's clock."""
        return self.anchor_ns + round(self.host_ns_per_ms * elapsed_ns(self._anchor, event) / MS_NS)

    def close(self) -> None:
        """Destroy the stream and events. Safe to call twice."""
        close_all([*self._events, self._stream])
