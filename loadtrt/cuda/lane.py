"""One lane: an execution context's three streams (copy in, compute, copy out) and its buffer sets.

While one buffer set computes, the next one's inputs come in and the previous one's outputs go out. Two requests in
flight never share a buffer set. A request is a short program of CUDA calls, made beforehand.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, NamedTuple

from loadtrt.cuda.memory import DeviceBuffer, PinnedBuffer
from loadtrt.cuda.runtime import call, close_all, cudart, error_of
from loadtrt.cuda.stream import Event, Graph, Stream, elapsed_ns
from loadtrt.errors import CudaError, EngineError
from loadtrt.load.tensors import numpy_dtype

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from loadtrt.cuda.runtime import Closes
    from loadtrt.cuda.stream import GpuClock
    from loadtrt.load.tensors import TensorSpec

# A call of the CUDA runtime and its arguments; calls return (status, ...).
_Step = tuple["Callable[..., tuple[Any, ...]]", tuple[Any, ...]]


class Finished(NamedTuple):
    """A finished request: its buffer set, its completion on the host's clock, and its phases, all ns."""

    buffer: int
    completed_ns: int
    h2d_ns: int
    compute_ns: int
    d2h_ns: int


class LanePart(NamedTuple):
    """Requests of one kind, and the context that serves them. bind(name, address), enqueue(stream) and reason() are the
    context's; addresses: the pinned input sets, by tensor name."""

    tensors: Sequence[TensorSpec]
    bind: Callable[[str, int], None]
    enqueue: Callable[[int], bool]
    reason: Callable[[], str]
    addresses: Sequence[Mapping[str, int]]


class _BufferSet:
    """Device memory of every tensor, pinned memory of every output, as large as any part needs, and the events of one
    request. part: whose outputs lie in it."""

    def __init__(self, parts: Sequence[LanePart], blocking: bool) -> None:
        self.device: dict[str, DeviceBuffer] = {}
        self.outputs: dict[str, PinnedBuffer] = {}
        self.events: list[Event] = []
        self.graphs: list[Graph] = []
        self.programs: list[list[_Step]] = []  # one for each input set
        self.part = 0
        try:
            for spec in parts[0].tensors:
                nbytes = max(it.nbytes for part in parts for it in part.tensors if it.name == spec.name)
                self.device[spec.name] = DeviceBuffer(nbytes)
                if not spec.is_input:
                    self.outputs[spec.name] = PinnedBuffer(nbytes)
            self.events.extend(Event(blocking) for _ in range(5))
        except EngineError:
            with suppress(CudaError):  # what went wrong first is what counts
                self.close()
            raise
        self.h2d_start, self.h2d_end, self.start, self.end, self.d2h_end = self.events

    def close(self) -> None:
        self.programs.clear()
        owned: list[Closes] = [*self.graphs, *self.events, *self.device.values(), *self.outputs.values()]
        self.graphs = []
        self.events = []
        self.device.clear()
        self.outputs.clear()
        close_all(owned)


class Lane:
    """Submits requests and finds out when they finished. parts: the kinds of requests; input sets are numbered through
    all of them.

    graph: try to capture the enqueue; `graph_refusal` says why it could not be. copies: move inputs and outputs with
    every request; otherwise input set 0 lies on the device from the start. Raises CudaError and EngineError.
    """

    def __init__(
        self,
        parts: Sequence[LanePart],
        buffers: int,
        *,
        stream: Stream,
        graph: bool,
        copies: bool,
        blocking: bool,
    ) -> None:
        self._parts = [
            part._replace(tensors=[spec for spec in part.tensors if not spec.shape_values]) for part in parts
        ]
        self._part_of = [number for number, part in enumerate(self._parts) for _ in part.addresses]
        self._compute = stream
        self._copies = copies
        self._sets: list[_BufferSet] = []
        self._streams: list[Stream] = []
        self._in_flight: deque[int] = deque()
        self._next = 0
        # Asked in every round of a spinning wait: looked up once.
        self._query, self._not_ready = cudart().cudaEventQuery, cudart().cudaError_t.cudaErrorNotReady
        self.graph_refusal = "" if graph else "not asked for"
        try:
            self._in, self._out = Stream(), Stream()
            self._streams += [self._in, self._out]
            for _ in range(buffers):
                self._sets.append(_BufferSet(self._parts, blocking))
            for made in self._sets:
                for part in self._parts:
                    self._prepare(made, part)
        except EngineError:
            with suppress(CudaError):  # what went wrong first is what counts
                self.close()
            raise

    @property
    def last_events(self) -> list[Event]:
        """The event of each buffer set that completes its requests."""
        return [made.d2h_end if self._copies else made.end for made in self._sets]

    def submit(self, inputs: int) -> int:
        """Enqueue one request with input set `inputs` into the next buffer set, which must be free: at most `buffers`
        requests are in flight. Returns that buffer set's number. Raises CudaError or EngineError."""
        if len(self._in_flight) == len(self._sets):
            raise EngineError(
                f"a lane has {len(self._sets)} requests in flight, one a buffer set: there is no free one"
            )
        made = self._sets[self._next]
        for function, arguments in made.programs[inputs]:
            status = function(*arguments)[0]
            if status:
                raise error_of(function.__name__, status)
        made.part = self._part_of[inputs]
        buffer = self._next
        self._in_flight.append(buffer)
        self._next = buffer + 1 if buffer + 1 < len(self._sets) else 0
        return buffer

    def poll(self, clock: GpuClock) -> Finished | None:
        """The oldest request in flight, if it has finished. Raises CudaError when the device has failed."""
        if not self._in_flight:
            return None
        buffer = self._in_flight[0]
        made = self._sets[buffer]
        last = made.d2h_end if self._copies else made.end
        status = self._query(last.handle)[0]
        if status:
            if status == self._not_ready:
                return None
            raise error_of("cudaEventQuery", status)
        self._in_flight.popleft()
        # What has been seen has completed, whatever the clocks' last few microseconds say.
        completed = min(clock.host_ns(last), perf_counter_ns())
        compute = elapsed_ns(made.start, made.end)
        if not self._copies:
            return Finished(buffer, completed, 0, compute, 0)
        return Finished(
            buffer, completed, elapsed_ns(made.h2d_start, made.h2d_end), compute, elapsed_ns(made.end, last)
        )

    def outputs(self, buffer: int) -> dict[str, npt.NDArray[Any]]:
        """Arrays of the outputs in a buffer set that is not in flight; data-dependent shapes are left out, since only a
        part of their buffer was written."""
        made = self._sets[buffer]
        arrays = {}
        for spec in self._parts[made.part].tensors:
            if spec.is_input or -1 in spec.shape:
                continue
            pinned = made.outputs[spec.name]
            if not self._copies:
                kind = cudart().cudaMemcpyKind.cudaMemcpyDeviceToHost
                call("cudaMemcpy", pinned.address, made.device[spec.name].address, spec.nbytes, kind)
            dtype = numpy_dtype(spec.dtype)
            volume = 1
            for size in spec.shape:
                volume *= size
            plain = volume * dtype.itemsize == spec.nbytes  # else packed or padded: compared as bytes
            arrays[spec.name] = (
                pinned.array(dtype, spec.shape) if plain else pinned.array(numpy_dtype("uint8"), (spec.nbytes,))
            )
        return arrays

    def close(self) -> None:
        """Free everything but the compute stream. Freeing waits for what the device still does. Safe to call twice."""
        handles: list[Closes] = [*self._sets, *self._streams]
        self._sets = []
        self._streams = []
        self._in_flight.clear()
        close_all(handles)

    def _prepare(self, made: _BufferSet, part: LanePart) -> None:
        """Upload the part's first input set, run once, capture, and write the programs."""
        for function, arguments in self._copy_in(made, part, part.addresses[0]):
            status = function(*arguments)[0]
            if status:
                raise error_of(function.__name__, status)
        self._in.synchronize()
        self._rebind(made, part)
        if not part.enqueue(int(self._compute)):
            raise EngineError(f"TensorRT refused the first enqueue: {part.reason()}")
        self._compute.synchronize()
        graph = None
        if not self.graph_refusal:
            try:
                after = made.h2d_end if self._copies else None
                graph = Graph.capture(self._compute, part.enqueue, after, made.start, made.end)
                made.graphs.append(graph)
            except CudaError as error:
                self.graph_refusal = f"{error}; {part.reason()}"
            self._compute.synchronize()
        made.programs += [self._program(made, part, graph, sources) for sources in part.addresses]

    def _program(
        self, made: _BufferSet, part: LanePart, graph: Graph | None, sources: Mapping[str, int]
    ) -> list[_Step]:
        runtime = cudart()
        record, wait = runtime.cudaEventRecord, runtime.cudaStreamWaitEvent
        compute, out = self._compute.handle, self._out.handle
        steps: list[_Step] = []
        if self._copies:
            steps.append((record, (made.h2d_start.handle, self._in.handle)))
            steps.extend(self._copy_in(made, part, sources))
            steps.append((record, (made.h2d_end.handle, self._in.handle)))
        if graph is not None:
            steps.append((runtime.cudaGraphLaunch, (graph.handle, compute)))
        else:
            if self._copies:
                steps.append((wait, (compute, made.h2d_end.handle, 0)))
            steps.append((record, (made.start.handle, compute)))
            steps.append((self._enqueue_plainly, (made, part, int(self._compute))))
            steps.append((record, (made.end.handle, compute)))
        if self._copies:
            kind = runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
            steps.append((wait, (out, made.end.handle, 0)))
            steps.extend(
                (
                    runtime.cudaMemcpyAsync,
                    (made.outputs[spec.name].address, made.device[spec.name].address, spec.nbytes, kind, out),
                )
                for spec in part.tensors
                if not spec.is_input
            )
            steps.append((record, (made.d2h_end.handle, out)))
        return steps

    def _copy_in(self, made: _BufferSet, part: LanePart, sources: Mapping[str, int]) -> list[_Step]:
        runtime = cudart()
        kind = runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        return [
            (
                runtime.cudaMemcpyAsync,
                (made.device[spec.name].address, sources[spec.name], spec.nbytes, kind, self._in.handle),
            )
            for spec in part.tensors
            if spec.is_input and spec.nbytes
        ]

    def _rebind(self, made: _BufferSet, part: LanePart) -> None:
        for name, buffer in made.device.items():
            part.bind(name, buffer.address)

    def _enqueue_plainly(self, made: _BufferSet, part: LanePart, stream: int) -> tuple[int]:
        if len(self._sets) > 1:
            self._rebind(made, part)
        if not part.enqueue(stream):
            raise EngineError(f"TensorRT refused an enqueue: {part.reason()}")
        return (0,)
