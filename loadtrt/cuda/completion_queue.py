"""Lanes of one device as a completion queue: their programs and events as numbers, which `hot_loop` goes through."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from loadtrt import hot_loop
from loadtrt.cuda import driver
from loadtrt.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.cuda.lane import Lane
    from loadtrt.cuda.stream import GpuClock


class Finished(NamedTuple):
    """A finished request: its lane and buffer set, its completion on the host's clock, and its phases, all ns."""

    lane: int
    buffer: int
    completed_ns: int
    h2d_ns: int
    compute_ns: int
    d2h_ns: int
    error: None = None


class CompletionQueue:
    """Submits requests to lanes that are alike, and finds those that have finished. Raises CudaError and EngineError.

    shapes: the ways of submitting that all lanes have, the usual one first.
    arrays: what `hot_loop.spin` drives where it is compiled; None where an enqueue calls TensorRT itself, which only
        Python does.
    view: the same memory, for Python.
    """

    def __init__(self, lanes: Sequence[Lane], clock: GpuClock) -> None:
        self._lanes, self._clock = lanes, clock
        self.shapes = min((lane.shapes for lane in lanes), key=len)
        shape, sets = self.shapes[0], lanes[0].sets
        self._computes: list[Any] = []
        calls: list[tuple[Any, ...]] = []
        programs: list[tuple[int, int]] = []
        for way in range(len(self.shapes)):
            for lane in lanes:
                for of_set in (of_set for of_slot in lane.programs[way] for of_set in of_slot):
                    programs.append((len(calls), len(calls) + len(of_set)))
                    calls += map(self._numbers, of_set)
        input_sets = len(lanes[0].programs[0][0])
        functions = driver.functions()
        n = np.zeros(hot_loop.DEVICE_CELLS, np.int64)
        n[: hot_loop.WAY] = len(lanes), shape.buffers, len(sets), input_sets
        n[hot_loop.COPIES], n[hot_loop.MONOTONIC] = shape.copies, time.CLOCK_MONOTONIC
        instant, spans = np.zeros(2, np.int64), np.zeros(4, np.float32)
        n[hot_loop.TIME_AT] = instant.ctypes.data
        n[hot_loop.SINCE_AT : hot_loop.SINCE_AT + 4] = spans.ctypes.data + spans.itemsize * np.arange(4)
        arrays = hot_loop.Device(
            n,
            *functions,
            self._compute if self._computes else functions[0],  # compiled code takes C functions alone
            calls=np.array(calls, np.int64).reshape(-1),
            programs=np.array(programs, np.int64).reshape(-1),
            events=np.array([memory.handles for lane in lanes for memory in lane.sets], np.int64).reshape(-1),
            place=np.zeros(len(lanes) * hot_loop.PLACE_CELLS, np.int64),
            anchor=np.zeros(2, np.int64),
            rate=np.zeros(1),
            time=instant,
            spans=spans,
            found=np.zeros(len(lanes) * len(sets) * hot_loop.FOUND_CELLS, np.int64),
        )
        self.arrays = None if self._computes else arrays
        self.view = hot_loop.view_of(arrays)
        self.take_anchor()

    def _numbers(self, call: tuple[Any, ...]) -> tuple[Any, ...]:
        """A call as numbers: what TensorRT is to do is the number of its function."""
        if call[0] == hot_loop.COMPUTE:
            self._computes.append(call[1])
            call = (hot_loop.COMPUTE, len(self._computes) - 1)
        return (*call, 0, 0, 0)[: hot_loop.CALL_CELLS] if len(call) < hot_loop.CALL_CELLS else call

    def _compute(self, number: int, *_: int) -> int:
        self._computes[number]()
        return 0

    def use(self, way: int) -> None:
        """Submit in this one of the lanes' ways from now on; nothing may be in flight."""
        self.view.n[hot_loop.WAY] = way

    def take_anchor(self) -> None:
        """Take the clock's anchor, and convert instants by it from now on."""
        self._clock.take_anchor()
        self.view.anchor[0], self.view.anchor[1] = int(self._clock.anchor), self._clock.anchor_ns
        self.view.rate[0] = self._clock.host_ns_per_ms

    def submit(self, lane: int, inputs: int) -> None:
        """Enqueue `per_launch` requests on a lane, with input set `inputs` and those after it in its part.

        The next slot must be free: at most `buffers` submits are in flight on a lane.
        """
        n, place, at = self.view.n, self.view.place, hot_loop.PLACE_CELLS * lane
        sets, in_flight = n[hot_loop.BUFFER_SETS], place[at + hot_loop.IN_FLIGHT]
        if in_flight + sets // n[hot_loop.SLOTS] > sets:
            raise EngineError(f"the lane has {in_flight} requests in flight in {sets} buffer sets: none is free")
        self._lanes[lane].note(place[at + hot_loop.SLOT], inputs)
        if fault := hot_loop.launch(self.view, lane, inputs):
            raise driver.error_of_fault(fault)

    def poll(self, *, several: bool = True) -> list[Finished]:
        """The requests that have finished since the last call, in the order of completion. several: more than one of a
        lane."""
        device = self.view
        if fault := hot_loop.poll(device, several):
            raise driver.error_of_fault(fault)
        cells, count = hot_loop.FOUND_CELLS, device.n[hot_loop.FOUND]
        if not count:
            return []
        device.n[hot_loop.FOUND] = 0
        found = device.found[: cells * count].tolist()
        return [_finished(Finished, (*found[at : at + cells], None)) for at in range(0, cells * count, cells)]


_finished = tuple.__new__  # a NamedTuple's own constructor takes several times as long
