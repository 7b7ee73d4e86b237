"""What a lane enqueues for a launch, as data: a pure function of the lane's shape, which cuda/lane.py binds to CUDA.

A request is copy in, compute and copy out, with events around each. The requests of a launch are copied in together,
then computed, then copied out together: one request after the other served 37 % less with one context, and as much
with four (the tiny plan, four requests a launch; docs/performance.md).

Events cost the host more than the work (docs/performance.md). Without device times only those are recorded that are
waited for: by a stream, or by the loop that asks whether a request has completed.

A lane has `buffers` slots, which launches take in turn, and `per_launch` buffer sets in each. A slot is free once its
launch has completed, so that two requests in flight never share a buffer set.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_GRAPHS = 64  # of a lane, one for each slot and input set; with more, copies are left out of the graph


class Streams(Enum):
    """How a lane's work is spread over streams."""

    ONE = "one for everything"
    SLOTS = "one for each slot"
    PHASES = "one for copies in, one for compute, one for copies out"


class Mark(IntEnum):
    """The events of a buffer set, in the order in which a request that is timed records them."""

    H2D_START = 0
    H2D_END = 1
    START = 2
    END = 3
    D2H_END = 4


@dataclass(frozen=True, slots=True)
class Record:
    """Record an event of a buffer set on a stream."""

    buffer: int
    mark: Mark
    stream: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Have a stream wait for an event of a buffer set."""

    buffer: int
    mark: Mark
    stream: int


@dataclass(frozen=True, slots=True)
class CopyIn:
    """Copy an input set into a buffer set."""

    buffer: int
    source: int
    stream: int


@dataclass(frozen=True, slots=True)
class Compute:
    """Enqueue an inference on a buffer set, by the context of a part."""

    buffer: int
    part: int
    stream: int


@dataclass(frozen=True, slots=True)
class CopyOut:
    """Copy the outputs of a part out of a buffer set."""

    buffer: int
    part: int
    stream: int


@dataclass(frozen=True, slots=True)
class Launch:
    """Launch a graph, captured once from these steps, all of which are on this stream."""

    steps: tuple[Step, ...]
    stream: int


Step: TypeAlias = "Record | Wait | CopyIn | Compute | CopyOut | Launch"


@dataclass(frozen=True, slots=True)
class LaneShape:
    """What decides on the programs of a lane.

    buffers: number of slots: launches in flight at most.
    per_launch: requests of a launch.
    copies: whether each request copies its inputs and outputs.
    streams: how the work is spread.
    times: whether requests record when they are copied and computed.
    """

    buffers: int
    per_launch: int
    copies: bool
    streams: Streams
    times: bool = True

    @property
    def way(self) -> str:
        """Its name, as --submit takes it: one graph holds the whole request, or compute alone, apart from copies."""
        return "apart" if self.streams is Streams.PHASES else "graph"

    @property
    def stream_count(self) -> int:
        """Number of streams; they are numbered from 0, which is that of the first slot's compute."""
        return {Streams.ONE: 1, Streams.SLOTS: self.buffers, Streams.PHASES: 3}[self.streams]

    def streams_of(self, slot: int) -> tuple[int, int, int]:
        """The streams on which a slot copies in, computes and copies out."""
        match self.streams:
            case Streams.ONE:
                return 0, 0, 0
            case Streams.SLOTS:
                return slot, slot, slot
            case Streams.PHASES:
                return 1, 0, 2

    def sets_of(self, slot: int) -> range:
        """The buffer sets of a slot, one for each request of a launch."""
        return range(slot * self.per_launch, (slot + 1) * self.per_launch)


def lane_shapes(
    *,
    buffers: int,
    per_launch: int,
    copies: bool,
    graph: bool,
    lanes: int,
    input_sets: int,
    queues: int,
    submit: str = "auto",
    times: bool = True,
) -> list[LaneShape]:
    """The shapes that may serve best, the one that usually does first; as far as possible those of the way `submit`.

    Copies apart are usual: in a graph with them GoogLeNet computes 1 to 2 % slower at batch 16 (docs/performance.md).
    Lanes capture them in this order: kernels of graphs that were captured second took 3 % longer (docs/h200.md).

    graph: whether launches are to be captured.
    lanes: number of lanes of this kind on the device.
    input_sets: number of input sets, of all parts.
    queues: hardware queues. Whole requests that share one wait for each other: GoogLeNet at batch 1 served 5 354/s from
        sixteen streams on 8 queues, where trtexec's eight contexts served 8 880/s.
    """
    slots = copies and buffers > 1 and lanes * buffers <= queues
    whole = LaneShape(buffers, per_launch, copies, Streams.SLOTS if slots else Streams.ONE, times)
    apart = LaneShape(buffers, per_launch, copies, Streams.PHASES, times)
    if not copies:
        return [whole]
    if not graph or buffers * input_sets > MOST_GRAPHS:
        return [apart]
    return [shape for shape in (apart, whole) if submit in ("auto", shape.way)]


def program(shape: LaneShape, slot: int, part: int, sources: Sequence[int], *, graph: bool) -> tuple[Step, ...]:
    """The steps of a launch in `slot` of requests of `part` with these input sets, as one graph, as a graph between
    copies, or without any."""
    into, computes, out = _phases(shape, slot, part, sources)
    if not shape.times:
        into, computes, out = (_needed(steps, shape) for steps in (into, computes, out))
    if not graph:
        return (*into, *computes, *out)
    compute = shape.streams_of(slot)[1]
    if shape.streams is Streams.PHASES:
        return (*into, Launch(tuple(computes), compute), *out)
    return (Launch((*into, *computes, *out), compute),)


def _needed(steps: Sequence[Step], shape: LaneShape) -> list[Step]:
    """The steps without events that nothing waits for."""
    completes, awaited = Mark.D2H_END if shape.copies else Mark.END, _awaited(shape)
    return [
        step
        for step in steps
        if not isinstance(step, Record) or step.mark is completes or (step.buffer, step.mark) in awaited
    ]


@cache
def _awaited(shape: LaneShape) -> frozenset[tuple[int, Mark]]:
    """The events of buffer sets that streams of the lane wait for."""
    slots = (_phases(shape, slot, 0, [0] * shape.per_launch) for slot in range(shape.buffers))
    steps = (step for phases in slots for phase in phases for step in phase)
    return frozenset((step.buffer, step.mark) for step in steps if isinstance(step, Wait))


def _phases(
    shape: LaneShape, slot: int, part: int, sources: Sequence[int]
) -> tuple[list[Step], list[Step], list[Step]]:
    """The steps that copy in, compute and copy out, with all events."""
    copy_in, compute, copy_out = shape.streams_of(slot)
    sets = shape.sets_of(slot)
    into: list[Step] = []
    computes: list[Step] = []
    out: list[Step] = []
    if shape.streams is Streams.SLOTS:  # slots share the context: the compute of the launch before must have ended
        computes.append(Wait((sets.start or shape.buffers * shape.per_launch) - 1, Mark.END, compute))
    for buffer, source in zip(sets, sources, strict=True):
        if shape.copies:
            into += (
                Record(buffer, Mark.H2D_START, copy_in),
                CopyIn(buffer, source, copy_in),
                Record(buffer, Mark.H2D_END, copy_in),
            )
        if copy_in != compute:
            computes.append(Wait(buffer, Mark.H2D_END, compute))
        computes += (
            Record(buffer, Mark.START, compute),
            Compute(buffer, part, compute),
            Record(buffer, Mark.END, compute),
        )
        if copy_out != compute:
            out.append(Wait(buffer, Mark.END, copy_out))
        if shape.copies:
            out += CopyOut(buffer, part, copy_out), Record(buffer, Mark.D2H_END, copy_out)
    return into, computes, out
