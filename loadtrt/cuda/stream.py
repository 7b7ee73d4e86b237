"""Streams, events and captured graphs as owned handles, and the GPU's clock on the host's."""

from __future__ import annotations

from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from loadtrt.cuda.runtime import call, close_all, cudart, error_of
from loadtrt.errors import CudaError, EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

EXTERNAL = 1  # cudaEventRecordExternal, cudaEventWaitExternal: a node of its own in a graph, seen from outside
MS_NS = 1e6  # events measure in milliseconds


class Stream:
    """A stream that does not synchronise with the legacy default stream. priority: lower numbers run first."""

    def __init__(self, priority: int | None = None) -> None:
        flags = cudart().cudaStreamNonBlocking
        self.handle = (
            call("cudaStreamCreateWithFlags", flags)
            if priority is None
            else call("cudaStreamCreateWithPriority", flags, priority)
        )

    def __int__(self) -> int:
        return int(self.handle)

    def synchronize(self) -> None:
        """Wait until all its work is done. Raises CudaError, also for earlier asynchronous failures."""
        call("cudaStreamSynchronize", self.handle)

    def close(self) -> None:
        """Destroy it. Safe to call twice."""
        handle, self.handle = self.handle, None
        if handle is not None:
            call("cudaStreamDestroy", handle)


class Event:
    """A timing event."""

    def __init__(self) -> None:
        self.handle = call("cudaEventCreateWithFlags", 0)

    def close(self) -> None:
        """Destroy it. Safe to call twice."""
        handle, self.handle = self.handle, None
        if handle is not None:
            call("cudaEventDestroy", handle)


def elapsed_ns(start: Event, end: Event) -> int:
    """From one completed event to another, ns; negative where `end` came first. Raises CudaError.

    CUDA answers in float32 milliseconds: 60 ns steps at one second, so keep the two near each other.
    """
    status, milliseconds = cudart().cudaEventElapsedTime(start.handle, end.handle)
    if status:
        raise error_of("cudaEventElapsedTime", status)
    return round(float(milliseconds) * MS_NS)


class Graph:
    """What was put on one stream, captured to be launched in one call."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle

    @classmethod
    def capture(cls, stream: Stream, work: Callable[[], object]) -> Graph:
        """Capture what `work()` puts on the stream; an inference must have run plainly before. Its events are recorded
        and waited for with EXTERNAL. Raises CudaError when it cannot be captured."""
        runtime = cudart()
        call("cudaStreamBeginCapture", stream.handle, runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)
        worked = False
        try:
            work()
            worked = True
        except EngineError:
            pass
        finally:
            # The capture must end even where the enqueue was refused, or the stream stays unusable.
            status, graph = runtime.cudaStreamEndCapture(stream.handle)
            runtime.cudaGetLastError()  # an invalidated capture leaves its error behind
        if not worked or status != 0:
            if status == 0:
                runtime.cudaGraphDestroy(graph)
            raise CudaError("cudaStreamEndCapture", "capture refused", "the enqueue does work that a graph cannot hold")
        try:
            made = call("cudaGraphInstantiate", graph, 0)
        finally:
            runtime.cudaGraphDestroy(graph)
        call("cudaGraphUpload", made, stream.handle)
        return cls(made)

    def close(self) -> None:
        """Destroy it. Safe to call twice."""
        handle, self.handle = self.handle, None
        if handle is not None:
            call("cudaGraphExecDestroy", handle)


class GpuClock:
    """Puts instants of events on the host's clock (perf_counter_ns), by anchors: an event whose host instant is known.

    An anchor is an event recorded on an idle stream of high priority. It completed after the last query that found it
    pending had begun, and before the query that found it complete had returned: its instant is the middle of the two,
    ± half their distance. An instant is

        host(event) = host(anchor) + rate · elapsed(anchor, event)

    by the latest anchor, since elapsed times are float32. rate: host time over GPU time from the first anchor to the
    latest (crystals differ: 26 millionths, 26 µs in a second, were seen), once they span half a second. For the hot
    path: `anchor`, the event's handle, `anchor_ns`, and `host_ns_per_ms`, the rate as CUDA's milliseconds want it.
    error_ns: the worst half distance; drift_ns: the worst that an anchor was off its predecessor's prediction, once the
    rate was known.
    """

    PERIOD_NS = 1_000_000_000
    _TRIES = 5
    _SHARP_NS = 4_000
    _LEAST_SPAN_NS = 500_000_000
    _PATIENCE_NS = 200_000  # a busy GPU may take long over one record; then the old anchor serves on

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
        """A new anchor: the sharpest of a few tries, the first that is sharp enough. The very first must succeed; a
        later one may find the GPU too busy, and then the old one goes on. Raises CudaError."""
        best: tuple[int, int, Event] | None = None  # (half width, instant, event)
        for _ in range(self._TRIES):
            spare = next(
                event for event in self._events if event is not self._anchor and (not best or event is not best[2])
            )
            between = self._record(spare, self._PATIENCE_NS if self.anchors else 1_000_000_000)
            if between is None:
                break
            half = (between[1] - between[0]) // 2
            if best is None or half < best[0]:
                best = half, between[0] + half, spare
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
        """Record the event now; the host instants between which it completed, or None when that takes too long."""
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
        """The host's instant of a completed event."""
        return self.anchor_ns + round(self.host_ns_per_ms * elapsed_ns(self._anchor, event) / MS_NS)

    def close(self) -> None:
        """Destroy its stream and events. Safe to call twice."""
        close_all([*self._events, self._stream])
