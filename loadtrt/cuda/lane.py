"""One lane: an execution context, its buffer sets, and the streams they work on.

A request is copy in, compute and copy out with events around each. Where inputs are small all of it is captured once as
a CUDA graph, and is one launch then. Each buffer set has a stream of its own, as far as there are hardware queues: so
copies of one overlap the compute of another, and an event makes compute of one wait for that of the one before, since
they share the context. Where inputs are large only compute is a graph, and the lane has a stream for copies in, one for
compute and one for copies out. Two requests in flight never share a buffer set. Several requests of one launch are
copied in together, computed, and copied out together.
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

# Inputs up to this size are copied within the graph, which saves six calls. Larger ones are better off with
# streams of their own: a graph of more than kernels computes 1 to 2 % slower (GoogLeNet at batch 16;
# docs/performance.md).
COPIED_TOGETHER_BYTES = 64 << 10
MOST_GRAPHS = 64  # of a lane, one for each buffer set and input set: with more, as if inputs were large
# Streams share so many hardware queues (CUDA_DEVICE_MAX_CONNECTIONS), and whole requests that share one wait for each
# other: GoogLeNet at batch 1 served 5 354/s so from sixteen streams, where trtexec's eight contexts served 8 880/s.
HARDWARE_QUEUES = 8


class Finished(NamedTuple):
    """A finished request: its buffer set, its completion on the host's clock, and its phases, all ns."""

    buffer: int
    completed_ns: int
    h2d_ns: int
    compute_ns: int
    d2h_ns: int


class _Slot:
    """What one submit works with: the streams of its copies in, compute and copies out, which may be one, and the
    buffer sets of its requests. before: the set whose compute must have ended first, None where the stream's own order
    sees to it. part: whose outputs lie in it."""

    def __init__(
        self, copy_in: Stream, compute: Stream, copy_out: Stream, sets: list[BufferSet], before: BufferSet | None
    ) -> None:
        self.copy_in, self.compute, self.copy_out = copy_in, compute, copy_out
        self.sets, self.before = sets, before
        self.graphs: list[Graph] = []
        self.programs: list[list[_Step]] = []  # one for each input set
        self.part = 0


class Lane:
    """Submits requests and finds out when they finished. parts: the kinds of requests; input sets are numbered through
    all of them.

    per_launch: requests of one submit; `buffers` times as many are in flight at most. graph: try to capture; then
    `graph_refusal` says why it could not be. copies: move inputs and outputs with every request; otherwise input set 0
    lies on the device from the start. stream: of compute, and not owned. lanes: how many there are of this kind.
    together: whether copies are within the graph, or would be. Raises CudaError and EngineError.
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
        largest = max(sum(spec.nbytes for spec in part.tensors if spec.is_input) for part in self._parts)
        graphs = buffers * len(self._part_of)
        self.together = copies and graph and largest <= COPIED_TOGETHER_BYTES and graphs <= MOST_GRAPHS
        try:
            for _ in range(buffers * per_launch):
                self._sets.append(BufferSet(self._parts, copies))
            one = self.together or not copies  # stream for all that a slot does
            overlaps = self.together and buffers > 1 and lanes * buffers <= HARDWARE_QUEUES
            copy_in, copy_out = (stream, stream) if one else (self._own(Stream()), self._own(Stream()))
            for number in range(buffers):
                first = number * per_launch
                sets, before = self._sets[first : first + per_launch], None
                if overlaps:
                    stream = stream if number == 0 else self._own(Stream())
                    copy_in = copy_out = stream
                    before = self._sets[first - 1]  # of the first slot, that of the last one
                self._slots.append(_Slot(copy_in, stream, copy_out, sets, before))
            for part in self._parts:
                self._warm(part)
            self._write_programs()
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

    def _warm(self, part: LanePart) -> None:
        """Upload the part's first input set into each buffer set, and run it once."""
        for slot in self._slots:
            for made in slot.sets:
                _run(self._moves_in(slot, made, part, part.addresses[0]))
                slot.copy_in.synchronize()
                _run([(self._enqueue, (made, part, slot.compute))])
                slot.compute.synchronize()

    def _write_programs(self) -> None:
        """What a submit of each input set does, for each slot: with graphs, or with none at all."""
        if not self.graph_refusal:
            try:
                for slot in self._slots:
                    for part in self._parts:
                        slot.programs += self._programs(slot, part, graph=True)
            except CudaError as error:
                self.graph_refusal = f"{error}; {part.reason()}"
                slot.compute.synchronize()
            else:
                return
        for slot in self._slots:
            graphs, slot.graphs = slot.graphs, []
            close_all(graphs)
            slot.programs = [program for part in self._parts for program in self._programs(slot, part, graph=False)]

    def _programs(self, slot: _Slot, part: LanePart, *, graph: bool) -> list[list[_Step]]:
        """One for each of the part's input sets, which a launch of several takes in turn."""
        count = len(part.addresses)
        launches = [[part.addresses[(first + k) % count] for k in range(self._per_launch)] for first in range(count)]
        if not graph:
            return [self._requests(slot, part, sources, 0) for sources in launches]
        if self.together:
            return [[self._capture(slot, self._requests(slot, part, sources, EXTERNAL))] for sources in launches]
        compute = self._capture(slot, [it for made in slot.sets for it in self._compute(slot, made, part, EXTERNAL)])
        out = [step for made in slot.sets for step in self._copy_out(slot, made, part, 0)]
        return [
            [
                *(it for made, source in zip(slot.sets, sources, strict=True)
                  for it in self._copy_in(slot, made, part, source, 0)),
                compute,
                *out,
            ]
            for sources in launches
        ]  # fmt: skip

    def _requests(self, slot: _Slot, part: LanePart, sources: Sequence[Mapping[str, int]], flags: int) -> list[_Step]:
        """All inputs, all computes, all outputs: one request after the other served 37 % less with one context, and as
        much with four (the tiny plan, four a launch; docs/performance.md)."""
        steps: list[_Step] = []
        for made, source in zip(slot.sets, sources, strict=True):
            steps += self._copy_in(slot, made, part, source, flags)
        for made in slot.sets:
            steps += self._compute(slot, made, part, flags)
        for made in slot.sets:
            steps += self._copy_out(slot, made, part, flags)
        return steps

    def _capture(self, slot: _Slot, steps: list[_Step]) -> _Step:
        graph = Graph.capture(slot.compute, lambda: _run(steps))
        slot.graphs.append(graph)
        return cudart().cudaGraphLaunch, (graph.handle, slot.compute.handle)

    def _copy_in(
        self, slot: _Slot, made: BufferSet, part: LanePart, source: Mapping[str, int], flags: int
    ) -> list[_Step]:
        """A request's inputs, between their events."""
        if not self._copies:
            return []
        record, stream = cudart().cudaEventRecordWithFlags, slot.copy_in.handle
        moves = self._moves_in(slot, made, part, source)
        return [(record, (made.h2d_start, stream, flags)), *moves, (record, (made.h2d_end, stream, flags))]

    def _compute(self, slot: _Slot, made: BufferSet, part: LanePart, flags: int) -> list[_Step]:
        """A request's compute, between its events, once its copy in and the compute before have ended."""
        runtime = cudart()
        record, wait, stream = runtime.cudaEventRecordWithFlags, runtime.cudaStreamWaitEvent, slot.compute.handle
        steps: list[_Step] = []
        if slot.before is not None and made is slot.sets[0]:
            steps.append((wait, (stream, slot.before.end, flags)))
        if slot.copy_in is not slot.compute:
            steps.append((wait, (stream, made.h2d_end, flags)))
        steps.append((record, (made.start, stream, flags)))
        steps.append((self._enqueue, (made, part, slot.compute)))
        steps.append((record, (made.end, stream, flags)))
        return steps

    def _copy_out(self, slot: _Slot, made: BufferSet, part: LanePart, flags: int) -> list[_Step]:
        """A request's outputs, and the event that completes it."""
        if not self._copies:
            return []
        runtime, stream = cudart(), slot.copy_out.handle
        kind = runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        steps: list[_Step] = []
        if slot.copy_out is not slot.compute:
            steps.append((runtime.cudaStreamWaitEvent, (stream, made.end, flags)))
        for spec in part.tensors:
            if not spec.is_input:
                target, source = made.outputs[spec.name].address, made.device[spec.name].address
                steps.append((runtime.cudaMemcpyAsync, (target, source, spec.nbytes, kind, stream)))
        steps.append((runtime.cudaEventRecordWithFlags, (made.d2h_end, stream, flags)))
        return steps

    def _moves_in(self, slot: _Slot, made: BufferSet, part: LanePart, source: Mapping[str, int]) -> list[_Step]:
        runtime, stream = cudart(), slot.copy_in.handle
        kind = runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        return [
            (runtime.cudaMemcpyAsync, (made.device[it.name].address, source[it.name], it.nbytes, kind, stream))
            for it in part.tensors
            if it.is_input and it.nbytes
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
