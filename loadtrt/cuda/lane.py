"""One lane: an execution context, its buffer sets, and the streams of their work.

What a launch enqueues is decided in cuda/program.py. A lane binds these programs to CUDA's functions and handles once,
and captures their graphs, so that a submit calls functions and nothing else: one launch where inputs are small.
"""

from __future__ import annotations

import math
from contextlib import suppress
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, NamedTuple

from loadtrt.cuda.memory import BufferSet
from loadtrt.cuda.program import Compute, CopyIn, CopyOut, Launch, Record, Streams, Wait, lane_shape, program
from loadtrt.cuda.runtime import call, close_all, cudart, error_of
from loadtrt.cuda.stream import EXTERNAL, MS_NS, Graph, Stream
from loadtrt.errors import CudaError, EngineError
from loadtrt.load.tensors import numpy_dtype

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from loadtrt.cuda.program import Step
    from loadtrt.cuda.runtime import Closes
    from loadtrt.cuda.stream import GpuClock
    from loadtrt.load.tensors import TensorSpec

# A function of the CUDA runtime and its arguments; it returns (status, ...).
_Call = tuple["Callable[..., tuple[Any, ...]]", tuple[Any, ...]]


class LanePart(NamedTuple):
    """Requests of one size, and the context that serves them.

    tensors: of a request.
    bind: gives the context a tensor's address.
    enqueue: enqueues an inference on a stream; False where TensorRT refuses.
    reason: why it refused.
    addresses: the pinned input sets, by tensor name.
    """

    tensors: Sequence[TensorSpec]
    bind: Callable[[str, int], None]
    enqueue: Callable[[int], bool]
    reason: Callable[[], str]
    addresses: Sequence[Mapping[str, int]]


class Finished(NamedTuple):
    """A finished request: its buffer set, its completion on the host's clock, and its phases, all ns."""

    buffer: int
    completed_ns: int
    h2d_ns: int
    compute_ns: int
    d2h_ns: int


class Lane:
    """Submits requests and finds those that have finished. Raises CudaError and EngineError.

    shape: how its work is spread.
    graph_refusal: why launches are not captured; empty where they are.
    together: whether copies are in the graph, or would be.
    """

    def __init__(
        self,
        parts: Sequence[LanePart],
        buffers: int,
        *,
        stream: Stream,
        graph: bool,
        copies: bool,
        per_launch: int = 1,
        lanes: int = 1,
        make_stream: Callable[[], Stream] = Stream,
    ) -> None:
        """Allocate buffer sets and streams, run each of them once, and capture graphs.

        parts: the sizes of requests; input sets are numbered through all of them.
        buffers: number of submits in flight at most.
        stream: of compute; not owned.
        graph: whether to try to capture launches.
        copies: whether each request moves its inputs and outputs; otherwise input set 0 stays on the device.
        per_launch: requests of one submit.
        lanes: number of lanes of this kind on the device.
        make_stream: makes the streams beside `stream`.
        """
        self._parts = [
            part._replace(tensors=[spec for spec in part.tensors if not spec.shape_values]) for part in parts
        ]
        self._part_of = [number for number, part in enumerate(self._parts) for _ in part.addresses]
        self._addresses = [addresses for part in self._parts for addresses in part.addresses]
        self.shape = lane_shape(
            buffers=buffers,
            per_launch=per_launch,
            copies=copies,
            graph=graph,
            lanes=lanes,
            input_bytes=max(sum(spec.nbytes for spec in part.tensors if spec.is_input) for part in self._parts),
            input_sets=len(self._addresses),
        )
        self.together = copies and self.shape.streams is not Streams.PHASES
        self.graph_refusal = "" if graph else "not asked for"
        self._copies = copies
        self._per_launch = per_launch
        self._sets: list[BufferSet] = []
        self._streams = [stream]
        self._graphs: dict[Launch, Graph] = {}
        self._programs: list[list[list[_Call]]] = []  # [slot][input set]
        self._part_in = [0] * buffers  # the part whose outputs are in a slot
        self._next = self._oldest = self._in_flight = 0  # a slot, a buffer set, and the number of these in flight
        # Used in every round of a spinning wait, so looked up once.
        runtime = cudart()
        self._query, self._elapsed = runtime.cudaEventQuery, runtime.cudaEventElapsedTime
        self._not_ready = runtime.cudaError_t.cudaErrorNotReady
        try:
            for _ in range(buffers * per_launch):
                self._sets.append(BufferSet([part.tensors for part in self._parts], copies=copies))
            for _ in range(1, self.shape.stream_count):
                self._streams.append(make_stream())
            for number in range(len(self._parts)):
                self._warm(number)
            self._bind_programs()
        except EngineError:
            with suppress(CudaError):  # the first failure is the one to report
                self.close()
            raise

    def submit(self, inputs: int) -> None:
        """Enqueue `per_launch` requests, with input set `inputs` and those after it in its part.

        The next slot must be free: at most `buffers` submits are in flight. Raises CudaError and EngineError.
        """
        slot = self._next
        if self._in_flight + self._per_launch > len(self._sets):
            raise EngineError(
                f"the lane has {self._in_flight} requests in flight in {len(self._sets)} buffer sets: none is free"
            )
        programs = self._programs[slot]
        for function, arguments in programs[inputs]:
            status = function(*arguments)[0]
            if status:
                raise error_of(function.__name__, status)
        self._part_in[slot] = self._part_of[inputs]
        self._in_flight += self._per_launch
        self._next = slot + 1 if slot + 1 < len(self._programs) else 0

    def poll(self, clock: GpuClock) -> Finished | None:
        """The oldest request in flight if it has finished, else None. Raises CudaError when the device has failed."""
        if not self._in_flight:
            return None
        buffer = self._oldest
        events = self._sets[buffer]
        status = self._query(events.last)[0]
        if status:
            if status == self._not_ready:
                return None
            raise error_of("cudaEventQuery", status)
        elapsed = self._elapsed
        bad_since, since_ms = elapsed(clock.anchor, events.last)
        bad_compute, compute_ms = elapsed(events.start, events.end)
        bad_h2d, h2d_ms = elapsed(events.h2d_start, events.h2d_end) if self._copies else _NOTHING
        bad_d2h, d2h_ms = elapsed(events.end, events.last) if self._copies else _NOTHING
        if bad := bad_since or bad_compute or bad_h2d or bad_d2h:
            raise error_of("cudaEventElapsedTime", bad)
        self._in_flight -= 1
        self._oldest = buffer + 1 if buffer + 1 < len(self._sets) else 0
        # A request that was seen finished has completed, whatever the clocks' last few microseconds say.
        completed = min(clock.anchor_ns + round(clock.host_ns_per_ms * since_ms), perf_counter_ns())
        phases = round(h2d_ms * MS_NS), round(compute_ms * MS_NS), round(d2h_ms * MS_NS)
        return _finished(Finished, (buffer, completed, *phases))

    def outputs(self, buffer: int) -> dict[str, npt.NDArray[Any]]:
        """The outputs in a buffer set that is not in flight, without those of data-dependent shapes, as only a part of
        their buffer was written."""
        memory, part = self._sets[buffer], self._parts[self._part_in[buffer // self._per_launch]]
        arrays = {}
        for spec in part.tensors:
            if spec.is_input or -1 in spec.shape:
                continue
            pinned = memory.outputs[spec.name]
            if not self._copies:
                kind = cudart().cudaMemcpyKind.cudaMemcpyDeviceToHost
                call("cudaMemcpy", pinned.address, memory.device[spec.name].address, spec.nbytes, kind)
            dtype, shape = numpy_dtype(spec.dtype), spec.shape
            if math.prod(shape) * dtype.itemsize != spec.nbytes:  # packed or padded: compared as bytes
                dtype, shape = numpy_dtype("uint8"), (spec.nbytes,)
            arrays[spec.name] = pinned.array(dtype, shape)
        return arrays

    def close(self) -> None:
        """Free everything but the first slot's stream. Waits for the device's work. Safe to call twice."""
        handles: list[Closes] = [*self._graphs.values(), *self._sets, *self._streams[1:]]
        self._programs, self._sets, self._streams, self._graphs = [], [], [], {}
        self._parts = []  # their bound methods keep TensorRT's contexts alive
        self._in_flight = 0
        close_all(handles)

    def _warm(self, part: int) -> None:
        """Copy the part's first input set into each buffer set, and run an inference on each."""
        for slot in range(self.shape.buffers):
            copy_in, compute, _ = self.shape.streams_of(slot)
            for buffer in self.shape.sets_of(slot):
                _run(self._calls([CopyIn(buffer, self._part_of.index(part), copy_in)]))
                self._streams[copy_in].synchronize()
                _run(self._calls([Compute(buffer, part, compute)]))
                self._streams[compute].synchronize()

    def _bind_programs(self) -> None:
        """The calls of a submit for each slot and input set: with graphs, or with none at all."""
        slots, parts = range(self.shape.buffers), range(len(self._parts))
        slot = part = 0
        if not self.graph_refusal:
            try:
                for slot in slots:
                    self._programs.append([])
                    for part in parts:
                        self._programs[slot] += self._submits(slot, part, graph=True)
            except CudaError as error:
                self.graph_refusal = f"{error}; {self._parts[part].reason()}"
                self._streams[self.shape.streams_of(slot)[1]].synchronize()
            else:
                return
        graphs, self._graphs = self._graphs, {}
        close_all(graphs.values())
        self._programs = [
            [calls for part in parts for calls in self._submits(slot, part, graph=False)] for slot in slots
        ]

    def _submits(self, slot: int, part: int, *, graph: bool) -> Iterator[list[_Call]]:
        """The calls of a submit for each of the part's input sets, which the requests of a launch take in turn."""
        first, count = self._part_of.index(part), len(self._parts[part].addresses)
        for number in range(count):
            sources = [first + (number + place) % count for place in range(self._per_launch)]
            yield self._calls(program(self.shape, slot, part, sources, graph=graph))

    def _calls(self, steps: Iterable[Step], flags: int = 0) -> list[_Call]:
        """These steps as calls, with this lane's handles. flags: of the events."""
        runtime, calls = cudart(), list[_Call]()
        for step in steps:
            stream = self._streams[step.stream]
            if isinstance(step, Launch):
                calls.append((runtime.cudaGraphLaunch, (self._graph(step).handle, stream.handle)))
                continue
            memory = self._sets[step.buffer]
            match step:
                case Record(_, mark):
                    handle = memory.events[mark].handle
                    calls.append((runtime.cudaEventRecordWithFlags, (handle, stream.handle, flags)))
                case Wait(_, mark):
                    handle = memory.events[mark].handle
                    calls.append((runtime.cudaStreamWaitEvent, (stream.handle, handle, flags)))
                case Compute(_, part):
                    calls.append((self._enqueue, (memory, self._parts[part], stream)))
                case CopyIn(_, source):
                    kind, pinned = runtime.cudaMemcpyKind.cudaMemcpyHostToDevice, self._addresses[source]
                    for spec in self._parts[self._part_of[source]].tensors:
                        if spec.is_input and spec.nbytes:
                            copied = memory.device[spec.name].address, pinned[spec.name], spec.nbytes
                            calls.append((runtime.cudaMemcpyAsync, (*copied, kind, stream.handle)))
                case CopyOut(_, part):
                    kind = runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
                    for spec in self._parts[part].tensors:
                        if not spec.is_input:
                            copied = memory.outputs[spec.name].address, memory.device[spec.name].address, spec.nbytes
                            calls.append((runtime.cudaMemcpyAsync, (*copied, kind, stream.handle)))
        return calls

    def _graph(self, launch: Launch) -> Graph:
        """The captured graph of a launch, which input sets share where their copies are not in it."""
        if launch not in self._graphs:
            calls = self._calls(launch.steps, EXTERNAL)
            self._graphs[launch] = Graph.capture(self._streams[launch.stream], lambda: _run(calls))
        return self._graphs[launch]

    def _enqueue(self, memory: BufferSet, part: LanePart, stream: Stream) -> tuple[int]:
        for name, buffer in memory.device.items():
            part.bind(name, buffer.address)
        if not part.enqueue(int(stream)):
            raise EngineError(f"TensorRT refused an enqueue: {part.reason()}")
        return (0,)


_NOTHING = (0, 0.0)  # status and milliseconds of a phase that does not exist
_finished = tuple.__new__  # a NamedTuple's own constructor takes several times as long


def _run(calls: list[_Call]) -> None:
    for function, arguments in calls:
        status = function(*arguments)[0]
        if status:
            raise error_of(function.__name__, status)
