"""One lane: an execution context, its buffer sets, and the streams they work on.

A request is copy in, compute and copy out with events around each. All of it is captured once as a CUDA graph and is
one launch then; where inputs are large only compute is, and copies are calls of their own. Each buffer set has a stream
of its own, so that copies of one overlap the compute of another; an event makes compute of one wait for that of the one
before, since they share the context. Two requests in flight never share a buffer set.
"""

from __future__ import annotations

from contextlib import suppress
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, NamedTuple

from loadtrt.cuda.buffer_set import BufferSet
from loadtrt.cuda.runtime import call, close_all, cudart, error_of
from loadtrt.cuda.stream import EXTERNAL, MS_NS, Graph, Stream
from loadtrt.errors import CudaError, EngineError
from loadtrt.load.tensors import numpy_dtype

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from loadtrt.cuda.buffer_set import LanePart
    from loadtrt.cuda.runtime import Closes
    from loadtrt.cuda.stream import GpuClock

# A call of the CUDA runtime and its arguments; calls return (status, ...).
_Step = tuple["Callable[..., tuple[Any, ...]]", tuple[Any, ...]]

# Inputs up to this size are copied within the graph, which saves five calls, some 10 µs. Larger ones have a stream of
# their own: with many lanes their copies would stand in the hardware's queues before other lanes' compute, and a graph
# of more than kernels computes 2 % slower there (GoogLeNet at batch 16; docs/performance.md).
COPIED_TOGETHER_BYTES = 64 << 10


class Finished(NamedTuple):
    """A finished request: its buffer set, its completion on the host's clock, and its phases, all ns."""

    buffer: int
    completed_ns: int
    h2d_ns: int
    compute_ns: int
    d2h_ns: int


class _Slot:
    """What one launch works with: a stream and the buffer sets of its requests. before: the last set of the slot whose
    compute must have ended first, None where the stream's own order sees to it. part: whose outputs lie in it."""

    def __init__(self, stream: Stream, sets: list[BufferSet], before: BufferSet | None) -> None:
        self.stream, self.sets, self.before = stream, sets, before
        self.graphs: list[Graph] = []
        self.programs: list[list[_Step]] = []  # one for each input set
        self.part = 0


class Lane:
    """Submits requests and finds out when they finished. parts: the kinds of requests; input sets are numbered through
    all of them.

    per_launch: requests of one submit; `buffers` times as many are in flight at most. graph: try to capture; then
    `graph_refusal` says why it could not be. copies: move inputs and outputs with every request; otherwise input set 0
    lies on the device from the start. stream: of the first slot, and not owned. Raises CudaError and EngineError.
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
    ) -> None:
        self._parts = [
            part._replace(tensors=[spec for spec in part.tensors if not spec.shape_values]) for part in parts
        ]
        self._part_of = [number for number, part in enumerate(self._parts) for _ in part.addresses]
        self._copies = copies
        self._per_launch = per_launch
        self._sets: list[BufferSet] = []
        self._slots: list[_Slot] = []
        self._streams: list[Stream] = []
        self._next = self._oldest = self._in_flight = 0  # a slot, a buffer set, and how many of these
        # Asked in every round of a spinning wait: looked up once.
        runtime = cudart()
        self._query, self._elapsed = runtime.cudaEventQuery, runtime.cudaEventElapsedTime
        self._not_ready = runtime.cudaError_t.cudaErrorNotReady
        self.graph_refusal = "" if graph else "not asked for"
        try:
            for _ in range(buffers * per_launch):
                self._sets.append(BufferSet(self._parts, copies))
            # Streams share a GPU's few hardware queues in the order in which they are made, so none is made idly.
            apart = copies and buffers > 1
            for number in range(buffers):
                first = number * per_launch
                of_slot = stream if number == 0 or not apart else self._own(Stream())
                before = self._sets[first - 1] if apart else None  # of the first slot, that of the last one
                self._slots.append(_Slot(of_slot, self._sets[first : first + per_launch], before))
            self._in = self._own(Stream()) if copies else stream
            for part in self._parts:
                self._prepare(part)
        except EngineError:
            with suppress(CudaError):  # what went wrong first is what counts
                self.close()
            raise

    def submit(self, inputs: int) -> None:
        """Enqueue `per_launch` requests, with input set `inputs` and those after it in its part, into the next slot,
        which must be free: at most `buffers` submits are in flight. Raises CudaError or EngineError."""
        number = self._next
        if self._in_flight + self._per_launch > len(self._sets):
            raise EngineError(
                f"a lane has {self._in_flight} requests in flight in {len(self._sets)} buffer sets: no free one"
            )
        slot = self._slots[number]
        for function, arguments in slot.programs[inputs]:
            status = function(*arguments)[0]
            if status:
                raise error_of(function.__name__, status)
        slot.part = self._part_of[inputs]
        self._in_flight += self._per_launch
        self._next = number + 1 if number + 1 < len(self._slots) else 0

    def poll(self, clock: GpuClock) -> Finished | None:
        """The oldest request in flight, if it has finished. Raises CudaError when the device has failed."""
        if not self._in_flight:
            return None
        buffer = self._oldest
        made = self._sets[buffer]
        status = self._query(made.last)[0]
        if status:
            if status == self._not_ready:
                return None
            raise error_of("cudaEventQuery", status)
        elapsed = self._elapsed
        bad_since, since_ms = elapsed(clock.anchor, made.last)
        bad_compute, compute_ms = elapsed(made.start, made.end)
        bad_h2d, h2d_ms = elapsed(made.h2d_start, made.h2d_end) if self._copies else _NOTHING
        bad_d2h, d2h_ms = elapsed(made.end, made.last) if self._copies else _NOTHING
        if bad := bad_since or bad_compute or bad_h2d or bad_d2h:
            raise error_of("cudaEventElapsedTime", bad)
        self._in_flight -= 1
        self._oldest = buffer + 1 if buffer + 1 < len(self._sets) else 0
        # What has been seen has completed, whatever the clocks' last few microseconds say.
        completed, seen = clock.anchor_ns + round(clock.host_ns_per_ms * since_ms), perf_counter_ns()
        return _finished(
            Finished,
            (
                buffer,
                min(completed, seen),
                round(h2d_ms * MS_NS),
                round(compute_ms * MS_NS),
                round(d2h_ms * MS_NS),
            ),
        )

    def outputs(self, buffer: int) -> dict[str, npt.NDArray[Any]]:
        """Arrays of the outputs in a buffer set that is not in flight; data-dependent shapes are left out, since only a
        part of their buffer was written."""
        made, slot = self._sets[buffer], self._slots[buffer // self._per_launch]
        arrays = {}
        for spec in self._parts[slot.part].tensors:
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
        """Free everything but the first slot's stream. Freeing waits for what the device still does. Safe to call
        twice."""
        handles: list[Closes] = [*(graph for slot in self._slots for graph in slot.graphs), *self._sets, *self._streams]
        self._slots, self._sets, self._streams = [], [], []
        self._in_flight = 0
        close_all(handles)

    def _own(self, stream: Stream) -> Stream:
        self._streams.append(stream)
        return stream

    def _prepare(self, part: LanePart) -> None:
        """For each slot: upload the part's first input set, run once, capture, and write the programs."""
        stream = self._slots[0].stream
        for made in self._sets:
            _run(self._copy_in(made, part, part.addresses[0], self._in))
            self._in.synchronize()
            _run([(self._enqueue, (made, part, stream))])
            stream.synchronize()
        for slot in self._slots:
            slot.programs += self._programs(slot, part)

    def _programs(self, slot: _Slot, part: LanePart) -> list[list[_Step]]:
        """What a submit of each of the part's input sets does."""
        inputs = [
            [part.addresses[(first + number) % len(part.addresses)] for number in range(self._per_launch)]
            for first in range(len(part.addresses))
        ]
        together = self._copies and sum(it.nbytes for it in part.tensors if it.is_input) <= COPIED_TOGETHER_BYTES
        compute = self._computes(slot, part, 0)
        if not self.graph_refusal:
            try:
                if together:
                    return [[self._capture(slot, self._request(slot, part, sources))] for sources in inputs]
                compute = [self._capture(slot, self._computes(slot, part, EXTERNAL))]
            except CudaError as error:
                self.graph_refusal = f"{error}; {part.reason()}"
                slot.stream.synchronize()
        out = self._copies_out(slot, part, 0)
        return [[*self._copies_in(slot, part, sources, self._in, 0), *compute, *out] for sources in inputs]

    def _request(self, slot: _Slot, part: LanePart, sources: Sequence[Mapping[str, int]]) -> list[_Step]:
        """All of it, on one stream, for a graph."""
        return [
            *self._copies_in(slot, part, sources, slot.stream, EXTERNAL),
            *self._computes(slot, part, EXTERNAL, copied=True),
            *self._copies_out(slot, part, EXTERNAL),
        ]

    def _capture(self, slot: _Slot, steps: list[_Step]) -> _Step:
        graph = Graph.capture(slot.stream, lambda: _run(steps))
        slot.graphs.append(graph)
        return cudart().cudaGraphLaunch, (graph.handle, slot.stream.handle)

    def _copies_in(
        self, slot: _Slot, part: LanePart, sources: Sequence[Mapping[str, int]], stream: Stream, flags: int
    ) -> list[_Step]:
        """Each request's copy in, between its events."""
        if not self._copies:
            return []
        record = cudart().cudaEventRecordWithFlags
        steps: list[_Step] = []
        for made, source in zip(slot.sets, sources, strict=True):
            steps.append((record, (made.h2d_start, stream.handle, flags)))
            steps += self._copy_in(made, part, source, stream)
            steps.append((record, (made.h2d_end, stream.handle, flags)))
        return steps

    def _computes(self, slot: _Slot, part: LanePart, flags: int, *, copied: bool = False) -> list[_Step]:
        """Each request's compute between its events. copied: the inputs came in on this stream."""
        runtime = cudart()
        record, wait, stream = runtime.cudaEventRecordWithFlags, runtime.cudaStreamWaitEvent, slot.stream.handle
        steps: list[_Step] = []
        if slot.before is not None:
            steps.append((wait, (stream, slot.before.end, flags)))
        for made in slot.sets:
            if self._copies and not copied:
                steps.append((wait, (stream, made.h2d_end, flags)))
            steps.append((record, (made.start, stream, flags)))
            steps.append((self._enqueue, (made, part, slot.stream)))
            steps.append((record, (made.end, stream, flags)))
        return steps

    def _copies_out(self, slot: _Slot, part: LanePart, flags: int) -> list[_Step]:
        """Each request's copy out, and the event that completes it."""
        if not self._copies:
            return []
        runtime, stream = cudart(), slot.stream.handle
        kind = runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        steps: list[_Step] = []
        for made in slot.sets:
            steps += [
                (
                    runtime.cudaMemcpyAsync,
                    (made.outputs[spec.name].address, made.device[spec.name].address, spec.nbytes, kind, stream),
                )
                for spec in part.tensors
                if not spec.is_input
            ]
            steps.append((runtime.cudaEventRecordWithFlags, (made.d2h_end, stream, flags)))
        return steps

    def _copy_in(self, made: BufferSet, part: LanePart, source: Mapping[str, int], stream: Stream) -> list[_Step]:
        runtime = cudart()
        kind = runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        return [
            (
                runtime.cudaMemcpyAsync,
                (made.device[spec.name].address, source[spec.name], spec.nbytes, kind, stream.handle),
            )
            for spec in part.tensors
            if spec.is_input and spec.nbytes
        ]

    def _enqueue(self, made: BufferSet, part: LanePart, stream: Stream) -> tuple[int]:
        for name, buffer in made.device.items():
            part.bind(name, buffer.address)
        if not part.enqueue(int(stream)):
            raise EngineError(f"TensorRT refused an enqueue: {part.reason()}")
        return (0,)


_NOTHING = (0, 0.0)  # status and milliseconds of a phase that is not there
_finished = tuple.__new__  # a NamedTuple's own constructor takes several times as long


def _run(steps: list[_Step]) -> None:
    for function, arguments in steps:
        status = function(*arguments)[0]
        if status:
            raise error_of(function.__name__, status)
