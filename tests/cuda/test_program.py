"""What a lane enqueues, as data: the order that streams and events impose, for every shape of a lane."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product
from typing import Any

import pytest

from loadtrt.cuda.program import (
    MOST_GRAPHS,
    Compute,
    CopyIn,
    CopyOut,
    LaneShape,
    Launch,
    Mark,
    Record,
    Step,
    Streams,
    Wait,
    lane_shapes,
    program,
)

SHAPES = [
    LaneShape(buffers, per_launch, copies, streams, times)
    for buffers, per_launch, copies, streams, times in product(
        (1, 2, 3), (1, 2, 4), (True, False), Streams, (True, False)
    )
    if copies or streams is Streams.ONE
]
QUEUES = 8
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def flat(steps: tuple[Step, ...]) -> list[Step]:
    """Steps in the order of their enqueueing, those of a graph in its place."""
    return [inner for step in steps for inner in (step.steps if isinstance(step, Launch) else (step,))]


class Run:
    """As many launches as fill the lane three times, and what CUDA promises about their order.

    steps: (number of the launch, step), as they are enqueued.
    before: for each step, the steps that have ended when it begins: those before it on its stream; for a wait the
        event's latest record; and all of the launch before in its slot, whose completion the host has seen.
    """

    def __init__(self, shape: LaneShape) -> None:
        self.steps: list[tuple[int, Step]] = []
        self.before: list[set[int]] = []
        on_stream: dict[int, int] = {}
        recorded: dict[tuple[int, Mark], int] = {}
        last = Mark.D2H_END if shape.copies else Mark.END
        for launch in range(3 * shape.buffers + 1):
            slot = launch % shape.buffers
            seen = {recorded[buffer, last] for buffer in shape.sets_of(slot) if (buffer, last) in recorded}
            for step in flat(program(shape, slot, 0, range(shape.per_launch), graph=True)):
                direct = seen | ({on_stream[step.stream]} if step.stream in on_stream else set())
                if isinstance(step, Wait) and (step.buffer, step.mark) in recorded:
                    direct |= {recorded[step.buffer, step.mark]}
                number = len(self.steps)
                self.before.append(direct.union(*(self.before[other] for other in direct)))
                self.steps.append((launch, step))
                on_stream[step.stream] = number
                if isinstance(step, Record):
                    recorded[step.buffer, step.mark] = number

    def of(self, launch: int, buffer: int, kind: type[Step], mark: Mark | None = None) -> int:
        """The number of the one such step of a request."""
        (number,) = [
            number
            for number, (its_launch, step) in enumerate(self.steps)
            if its_launch == launch
            and isinstance(step, kind)
            and not isinstance(step, Launch)
            and step.buffer == buffer
            and (not isinstance(step, Record) or step.mark is mark)
        ]
        return number

    def in_order(self, *numbers: int) -> bool:
        return all(first in self.before[second] for first, second in pairwise(numbers))


@each_shape
def test_requests_in_flight_never_share_a_buffer_set(shape: LaneShape) -> None:
    """Slots partition the buffer sets; a launch works on its slot's alone, and waits at most for another's compute."""
    assert [buffer for slot in range(shape.buffers) for buffer in shape.sets_of(slot)] == list(
        range(shape.buffers * shape.per_launch)
    )
    for slot, graph in product(range(shape.buffers), (True, False)):
        for step in flat(program(shape, slot, 0, range(shape.per_launch), graph=graph)):
            assert not isinstance(step, Launch)
            assert step.buffer in shape.sets_of(slot) or (isinstance(step, Wait) and step.mark is Mark.END)


@each_shape
def test_a_request_is_copied_in_computed_and_copied_out_between_its_events(shape: LaneShape) -> None:
    """Each event is recorded once a request; each phase begins after the one before ended; the last event is last. A
    request that is not timed has the same order with fewer events."""
    run = Run(shape)
    marks = list(Mark) if shape.copies else [Mark.START, Mark.END]
    if not shape.times:
        marks = [Mark.D2H_END] if shape.copies else [Mark.END]
    for launch in range(3 * shape.buffers + 1):
        for buffer in shape.sets_of(launch % shape.buffers):
            events = {mark: run.of(launch, buffer, Record, mark) for mark in marks}
            copied_in, computed, copied_out = (
                [run.of(launch, buffer, kind)] if shape.copies or kind is Compute else []
                for kind in (CopyIn, Compute, CopyOut)
            )
            order: list[int | None] = [events.get(Mark.H2D_START), *copied_in, events.get(Mark.H2D_END)]
            order += [events.get(Mark.START), *computed, events.get(Mark.END), *copied_out, events.get(Mark.D2H_END)]
            assert run.in_order(*(number for number in order if number is not None))
        records = [step for number, step in run.steps if number == launch and isinstance(step, Record)]
        assert len(records) == len(marks) * shape.per_launch if shape.times else len(records) >= shape.per_launch


@each_shape
@pytest.mark.parametrize("graph", [True, False])
def test_without_times_only_events_are_left_out_and_only_those_that_nothing_waits_for(
    shape: LaneShape, graph: bool
) -> None:
    """The events that are left are those that streams of the lane wait for, and the one that completes a request."""
    timed, untimed = (
        [
            step
            for slot in range(shape.buffers)
            for step in flat(program(replace(shape, times=times), slot, 0, range(shape.per_launch), graph=graph))
        ]
        for times in (True, False)
    )
    kept = {(step.buffer, step.mark) for step in untimed if isinstance(step, Record)}
    assert untimed == [step for step in timed if not isinstance(step, Record) or (step.buffer, step.mark) in kept]
    waited = {(step.buffer, step.mark) for step in timed if isinstance(step, Wait)}
    completes = Mark.D2H_END if shape.copies else Mark.END
    assert kept == waited | {(buffer, completes) for buffer in range(shape.buffers * shape.per_launch)}


@each_shape
def test_computes_of_a_lane_never_overlap(shape: LaneShape) -> None:
    """They share the context's scratch memory: each starts its clock after the one before has ended."""
    run = Run(shape)
    starts = ends = [n for n, (_, step) in enumerate(run.steps) if isinstance(step, Compute)]
    if shape.times:
        starts = [n for n, (_, step) in enumerate(run.steps) if isinstance(step, Record) and step.mark is Mark.START]
        ends = [n for n, (_, step) in enumerate(run.steps) if isinstance(step, Record) and step.mark is Mark.END]
    assert all(run.in_order(end, start) for end, start in zip(ends, starts[1:], strict=False))


@each_shape
def test_copies_overlap_the_compute_of_another_launch_where_streams_allow(shape: LaneShape) -> None:
    """A copy in waits for the compute of the launch before on one stream only, not with streams of slots or phases."""
    if not shape.copies or shape.buffers == 1:
        return
    run = Run(shape)
    copy_in = run.of(1, shape.sets_of(1)[0], CopyIn)
    compute = run.of(0, shape.sets_of(0)[-1], Compute)
    assert run.in_order(compute, copy_in) == (shape.streams is Streams.ONE)


@each_shape
@pytest.mark.parametrize("graph", [True, False])
def test_a_launch_copies_all_in_computes_all_and_copies_all_out(shape: LaneShape, graph: bool) -> None:
    """In the order of requests, with the input sets that were asked for and the context of the part."""
    sources = [7 - place for place in range(shape.per_launch)]
    steps = flat(program(shape, shape.buffers - 1, 1, sources, graph=graph))
    moved = [step for step in steps if isinstance(step, CopyIn | Compute | CopyOut)]
    copy_in, compute, copy_out = shape.streams_of(shape.buffers - 1)
    sets = shape.sets_of(shape.buffers - 1)
    into = [CopyIn(buffer, source, copy_in) for buffer, source in zip(sets, sources, strict=True)]
    computes = [Compute(buffer, 1, compute) for buffer in sets]
    out = [CopyOut(buffer, 1, copy_out) for buffer in sets]
    assert moved == ([*into, *computes, *out] if shape.copies else computes)


@each_shape
def test_a_graph_holds_one_stream_and_the_same_steps(shape: LaneShape) -> None:
    """One graph a launch, of compute alone where phases have streams, else of everything; a refused capture enqueues
    the same steps in the same order."""
    for slot in range(shape.buffers):
        steps = program(shape, slot, 0, range(shape.per_launch), graph=True)
        (launch,) = [step for step in steps if isinstance(step, Launch)]
        assert {step.stream for step in launch.steps} == {launch.stream}
        assert any(isinstance(step, CopyIn) for step in launch.steps) == (shape.copies and len(steps) == 1)
        assert (len(steps) == 1) == (shape.streams is not Streams.PHASES)
        assert flat(steps) == list(program(shape, slot, 0, range(shape.per_launch), graph=False))


@each_shape
def test_input_sets_share_a_graph_that_copies_nothing(shape: LaneShape) -> None:
    """Programs of two input sets have equal launches exactly where copies are not in them; of two slots never."""
    several = range(shape.per_launch)
    first, other = (program(shape, 0, 0, [start + k for k in several], graph=True) for start in (0, 5))
    launches = [next(step for step in steps if isinstance(step, Launch)) for steps in (first, other)]
    assert (launches[0] == launches[1]) == (not shape.copies or shape.streams is Streams.PHASES)
    if shape.buffers > 1:
        assert program(shape, 1, 0, several, graph=True) != first


@each_shape
def test_streams_are_numbered_from_the_first_slots_compute(shape: LaneShape) -> None:
    """All of 0 to stream_count − 1 are used; compute of slot 0 is on stream 0."""
    used = {
        step.stream
        for slot in range(shape.buffers)
        for step in flat(program(shape, slot, 0, range(shape.per_launch), graph=False))
    }
    assert used == set(range(shape.stream_count))
    assert shape.streams_of(0)[1] == 0


@pytest.mark.parametrize(
    ("options", "streams"),
    [
        ({}, [Streams.PHASES, Streams.SLOTS]),
        ({"lanes": QUEUES // 2}, [Streams.PHASES, Streams.SLOTS]),
        ({"lanes": QUEUES // 2 + 1}, [Streams.PHASES, Streams.ONE]),
        ({"buffers": 1}, [Streams.PHASES, Streams.ONE]),
        ({"input_sets": MOST_GRAPHS // 2}, [Streams.PHASES, Streams.SLOTS]),
        ({"input_sets": MOST_GRAPHS // 2 + 1}, [Streams.PHASES]),
        ({"graph": False}, [Streams.PHASES]),
        ({"copies": False}, [Streams.ONE]),
        ({"copies": False, "graph": False}, [Streams.ONE]),
        ({"submit": "graph"}, [Streams.SLOTS]),
        ({"submit": "apart"}, [Streams.PHASES]),
        ({"submit": "graph", "input_sets": MOST_GRAPHS // 2 + 1}, [Streams.PHASES]),
        ({"submit": "apart", "copies": False}, [Streams.ONE]),
    ],
)
def test_the_shapes_follow_the_numbers_and_the_choice(options: dict[str, Any], streams: list[Streams]) -> None:
    """Copies apart first, whole requests second; one way alone without copies, without a graph, with many input sets,
    and where the user chose. Two slots have a stream each, as far as hardware queues go."""
    usual = {"buffers": 2, "per_launch": 1, "copies": True, "graph": True, "lanes": 1, "input_sets": 3}
    shapes = lane_shapes(**{**usual, "queues": QUEUES, **options})
    assert [shape.streams for shape in shapes] == streams
    assert [shape.way for shape in shapes] == ["apart" if each is Streams.PHASES else "graph" for each in streams]
