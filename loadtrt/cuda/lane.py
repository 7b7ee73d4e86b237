"""One lane: an execution context, its buffer sets, and the streams of their work.

What a launch enqueues is decided in cuda/program.py. A lane binds these programs to handles once, and captures their
graphs, so that a submit goes through a list of calls and does nothing else (cuda/completion_queue.py).
"""

from __future__ import annotations

import ctypes
import math
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from loadtrt.cuda import driver
from loadtrt.cuda.memory import BufferSet
from loadtrt.cuda.program import Compute, CopyIn, CopyOut, Launch, Mark, Record, Wait, lane_shapes, program
from loadtrt.cuda.runtime import call, close_all, closed_on_failure, cudart, hardware_queues
from loadtrt.cuda.stream import EXTERNAL, Graph, Stream
from loadtrt.errors import CudaError, EngineError
from loadtrt.load.tensors import numpy_dtype
from loadtrt.loop import device as loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from loadtrt.cuda.program import LaneShape, Step
    from loadtrt.cuda.runtime import Closes
    from loadtrt.load.tensors import TensorSpec

    # The kind of a call (loop.LAUNCH …) and its arguments, or loop.COMPUTE and a function that enqueues an inference.
    Call = tuple[Any, ...]


_SLOW_MS = 5.0  # where an inference takes longer, what another way saves of a request could not be seen


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


class Lane:
    """Buffer sets, streams and graphs, and the calls of a submit. Raises CudaError and EngineError.

    shapes: the ways in which its work may be spread; one, where launches are not captured, or inferences take long.
    programs: the calls of a submit [shape][slot][input set].
    sets: buffer sets, `per_launch` of each slot.
    graph_refusal: why launches are not captured; empty where they are.
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
        submit: str = "auto",
        times: bool = True,
        make_stream: Callable[[], Stream] = Stream,
        look: Callable[[Any], None] = lambda _: None,
    ) -> None:
        """Allocate buffer sets and streams, run each of them once, and capture graphs.

        parts: the sizes of requests; input sets are numbered through all of them.
        buffers: number of submits in flight at most.
        stream: of compute; not owned.
        graph: whether to try to capture launches.
        copies: whether each request moves its inputs and outputs; otherwise input set 0 stays on the device.
        per_launch: requests of one submit.
        lanes: number of lanes of this kind on the device.
        submit: the way in which its work is to be spread, as far as possible.
        times: whether requests record when they are copied and computed.
        make_stream: makes the streams of compute beside `stream`.
        look: is shown each graph, as `Graph.capture` does.
        """
        self._parts = [
            part._replace(tensors=[spec for spec in part.tensors if not spec.shape_values]) for part in parts
        ]
        self._part_of = [number for number, part in enumerate(self._parts) for _ in part.addresses]
        self._addresses = [addresses for part in self._parts for addresses in part.addresses]
        self.shapes = lane_shapes(
            buffers=buffers,
            per_launch=per_launch,
            copies=copies,
            graph=graph,
            lanes=lanes,
            input_sets=len(self._addresses),
            queues=hardware_queues(),
            submit=submit,
            times=times,
        )
        self.graph_refusal = "" if graph else "not asked for"
        self._copies, self._look = copies, look
        self._per_launch = per_launch
        self.sets: list[BufferSet] = []
        self.programs: list[list[list[list[Call]]]] = []
        self._streams = [stream]
        self._graphs: dict[Launch, Graph] = {}
        self._part_in = [0] * buffers  # the part whose outputs are in a slot
        with closed_on_failure(self):
            for _ in range(buffers * per_launch):
                self.sets.append(BufferSet([part.tensors for part in self._parts], copies=copies))
            computing = {shape.streams_of(slot)[1] for shape in self.shapes for slot in range(buffers)}
            for number in range(1, max(shape.stream_count for shape in self.shapes)):
                self._streams.append(make_stream() if number in computing else Stream())
            if max([self._warm(number) for number in range(len(self._parts))]) > _SLOW_MS:
                del self.shapes[1:]
            self._bind_programs()

    def note(self, slot: int, inputs: int) -> None:
        """A slot is about to serve an input set: `outputs` needs to know its part."""
        self._part_in[slot] = self._part_of[inputs]

    def outputs(self, buffer: int) -> dict[str, npt.NDArray[Any]]:
        """The outputs in a buffer set that is not in flight, without those of data-dependent shapes, as only a part of
        their buffer was written."""
        memory, part = self.sets[buffer], self._parts[self._part_in[buffer // self._per_launch]]
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
        handles: list[Closes] = [*self._graphs.values(), *self.sets, *self._streams[1:]]
        self.programs, self.sets, self._streams, self._graphs = [], [], [], {}
        self._parts = []  # their bound methods keep TensorRT's contexts alive
        close_all(handles)

    def _warm(self, part: int) -> float:
        """Copy the part's first input set into each buffer set, and run an inference on each; how many ms the fastest
        took."""
        shape, fastest, took = self.shapes[0], math.inf, ctypes.c_float()
        alone = len(self.sets) == 1 < len(self.shapes)  # the first inference loads kernels, and tells nothing
        for slot in (0, 0) if alone else range(shape.buffers):
            copy_in, compute, _ = shape.streams_of(slot)
            for buffer in shape.sets_of(slot):
                _run(self._calls([CopyIn(buffer, self._part_of.index(part), copy_in)]))
                self._streams[copy_in].synchronize()
                marks = [Record(buffer, mark, compute) for mark in (Mark.START, Mark.END)]
                _run(self._calls([marks[0], Compute(buffer, part, compute), marks[1]]))
                self._streams[compute].synchronize()
                handles = self.sets[buffer].handles
                _run([(loop.ELAPSED, ctypes.addressof(took), handles[Mark.START], handles[Mark.END])])
                fastest = min(fastest, took.value)
        return fastest

    def _bind_programs(self) -> None:
        """The calls of a submit for each shape, slot and input set: with graphs, or with none at all."""
        slots, parts = range(self.shapes[0].buffers), range(len(self._parts))
        shape, slot, part = self.shapes[0], 0, 0
        if not self.graph_refusal:
            try:
                for shape in self.shapes:
                    self.programs.append([])
                    for slot in slots:
                        self.programs[-1].append([])
                        for part in parts:
                            self.programs[-1][-1] += self._submits(shape, slot, part, graph=True)
            except CudaError as error:
                self._streams[shape.streams_of(slot)[1]].synchronize()
                if shape is not self.shapes[0]:  # the usual way is captured: for another, memory may be short
                    del self.shapes[1:], self.programs[1:]
                    return
                self.graph_refusal = f"{error}; {self._parts[part].reason()}"
            else:
                return
        graphs, self._graphs = self._graphs, {}
        close_all(graphs.values())
        del self.shapes[1:]
        shape = self.shapes[0]
        self.programs = [
            [[calls for part in parts for calls in self._submits(shape, slot, part, graph=False)] for slot in slots]
        ]

    def _submits(self, shape: LaneShape, slot: int, part: int, *, graph: bool) -> Iterator[list[Call]]:
        """The calls of a submit for each of the part's input sets, which the requests of a launch take in turn."""
        first, count = self._part_of.index(part), len(self._parts[part].addresses)
        for number in range(count):
            sources = [first + (number + place) % count for place in range(self._per_launch)]
            yield self._calls(program(shape, slot, part, sources, graph=graph))

    def _calls(self, steps: Iterable[Step], flags: int = 0) -> list[Call]:
        """These steps as calls, with this lane's handles. flags: of the events."""
        calls: list[Call] = []
        for step in steps:
            stream = self._streams[step.stream]
            if isinstance(step, Launch):
                calls.append((loop.LAUNCH, int(self._graph(step).handle), int(stream)))
                continue
            memory = self.sets[step.buffer]
            match step:
                case Record(_, mark):
                    calls.append((loop.RECORD, memory.handles[mark], int(stream), flags))
                case Wait(_, mark):
                    calls.append((loop.WAIT, int(stream), memory.handles[mark], flags))
                case Compute(_, part):
                    calls.append((loop.COMPUTE, partial(self._enqueue, memory, self._parts[part], stream)))
                case CopyIn(_, source):
                    pinned = self._addresses[source]
                    for spec in self._parts[self._part_of[source]].tensors:
                        if spec.is_input and spec.nbytes:
                            copied = memory.device[spec.name].address, pinned[spec.name], spec.nbytes
                            calls.append((loop.COPY_IN, *copied, int(stream)))
                case CopyOut(_, part):
                    for spec in self._parts[part].tensors:
                        if not spec.is_input:
                            copied = memory.outputs[spec.name].address, memory.device[spec.name].address, spec.nbytes
                            calls.append((loop.COPY_OUT, *copied, int(stream)))
        return calls

    def _graph(self, launch: Launch) -> Graph:
        """The captured graph of a launch, which input sets share where their copies are not in it."""
        if launch not in self._graphs:
            calls = self._calls(launch.steps, EXTERNAL)
            self._graphs[launch] = Graph.capture(self._streams[launch.stream], lambda: _run(calls), self._look)
        return self._graphs[launch]

    def _enqueue(self, memory: BufferSet, part: LanePart, stream: Stream) -> None:
        for name, buffer in memory.device.items():
            part.bind(name, buffer.address)
        if not part.enqueue(int(stream)):
            raise EngineError(f"TensorRT refused an enqueue: {part.reason()}")


def _run(calls: Iterable[Call]) -> None:
    functions = driver.functions()
    for kind, *arguments in calls:
        if kind == loop.COMPUTE:
            arguments[0]()
        elif status := functions[kind](*(*arguments, 0, 0)[:4]):
            raise driver.error_of_fault(status + loop.FAULT_KIND * kind)
