"""Lanes of one device as a completion queue: programs and events as numbers, which loop/device.py goes through."""

from __future__ import annotations

import time
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import numpy as np

from loadtrt.cuda import driver
from loadtrt.errors import EngineError
from loadtrt.loop import device as loop
from loadtrt.loop.compiled import is_compiled
from loadtrt.loop.requests import view_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.cuda.lane import Lane
    from loadtrt.cuda.stream import GpuClock


class CompletionQueue:
    """Submits requests to lanes that are alike, and finds those that have finished. Raises CudaError and EngineError.

    shapes: the ways of submitting that all lanes have, the usual one first.
    arrays: what `loop.device.spin` drives where it is compiled; None where an enqueue calls TensorRT itself, which only
        Python does.
    view: the same memory, for Python. Where nothing is compiled, both have lists, which Python reads and writes faster.
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
        n = np.zeros(loop.DEVICE_CELLS, np.int64)
        n[: loop.WAY] = len(lanes), shape.buffers, len(sets), input_sets
        n[loop.TIMES], n[loop.MONOTONIC] = shape.times * (1 + shape.copies), time.CLOCK_MONOTONIC
        instant, spans = np.zeros(2, np.int64), np.zeros(4, np.float32)
        n[loop.TIME_AT] = instant.ctypes.data
        n[loop.SINCE_AT : loop.SINCE_AT + 4] = spans.ctypes.data + spans.itemsize * np.arange(4)
        compute = self._compute if self._computes else functions.launch  # compiled code takes C functions alone
        arrays = loop.Device(
            **functions._asdict(),
            compute=compute,
            n=n,
            calls=np.array(calls, np.int64).reshape(-1),
            programs=np.array(programs, np.int64).reshape(-1),
            events=np.array([memory.handles for lane in lanes for memory in lane.sets], np.int64).reshape(-1),
            place=np.zeros(len(lanes) * loop.PLACE_CELLS, np.int64),
            anchor=np.zeros(2, np.int64),
            rate=np.zeros(1),
            time=instant,
            spans=spans,
            found=np.zeros(len(lanes) * len(sets) * loop.FOUND_CELLS, np.int64),
        )
        if self._computes or not is_compiled():
            arrays = _lists_of(arrays)
        self.arrays = None if self._computes else arrays
        self.view = view_of(arrays)
        self.take_anchor()

    def _numbers(self, call: tuple[Any, ...]) -> tuple[Any, ...]:
        """A call as numbers: what TensorRT is to do is the number of its function."""
        if call[0] == loop.COMPUTE:
            self._computes.append(call[1])
            call = (loop.COMPUTE, len(self._computes) - 1)
        return (*call, 0, 0, 0)[: loop.CALL_CELLS] if len(call) < loop.CALL_CELLS else call

    def _compute(self, number: int, *_: int) -> int:
        self._computes[number]()
        return 0

    def close(self) -> None:
        """Let go of TensorRT's contexts, which must be freed before their engine. Safe to call twice."""
        self._computes.clear()

    def use(self, way: int) -> None:
        """Submit in this one of the lanes' ways from now on; nothing may be in flight."""
        self.view.n[loop.WAY] = way

    def take_anchor(self) -> None:
        """Take the clock's anchor, and convert instants by it from now on."""
        self._clock.take_anchor()
        self.view.anchor[0], self.view.anchor[1] = int(self._clock.anchor), self._clock.anchor_ns
        self.view.rate[0] = self._clock.host_ns_per_ms

    def require_idle(self) -> None:
        """Raises EngineError where requests are in flight: `loop.device.spin` would take them for its own."""
        if in_flight := sum(self.view.place[loop.IN_FLIGHT :: loop.PLACE_CELLS]):
            raise EngineError(f"requests of an earlier load are in flight: {in_flight}")

    def submit(self, lane: int, inputs: int) -> None:
        """Enqueue `per_launch` requests on a lane, with input set `inputs` and those after it in its part.

        The next slot must be free: at most `buffers` submits are in flight on a lane.
        """
        n, place, at = self.view.n, self.view.place, loop.PLACE_CELLS * lane
        sets, in_flight = n[loop.BUFFER_SETS], place[at + loop.IN_FLIGHT]
        if in_flight + sets // n[loop.SLOTS] > sets:
            raise EngineError(f"the lane has {in_flight} requests in flight in {sets} buffer sets: none is free")
        self._lanes[lane].note(place[at + loop.SLOT], inputs)
        if fault := loop.launch(self.view, lane, inputs):
            raise driver.error_of_fault(fault)

    def poll(self, *, several: bool = True) -> list[loop.Completion]:
        """The requests that have finished since the last call, in the order of completion. several: more than one of a
        lane."""
        device = self.view
        if fault := loop.poll(device, several):
            raise driver.error_of_fault(fault)
        cells, count = loop.FOUND_CELLS, device.n[loop.FOUND]
        if not count:
            return []
        device.n[loop.FOUND] = 0
        found = list(device.found[: cells * count])
        return [_completion(loop.Completion, (*found[at : at + cells], None)) for at in range(0, cells * count, cells)]


def _lists_of(arrays: loop.Device) -> loop.Device:
    """A Device for Python alone: lists, besides what C functions write, and Python's own clock, which ctypes calls in
    three times the time."""
    small = {name: getattr(arrays, name).tolist() for name in ("n", "calls", "programs", "events", "place", "found")}
    instant = [0, 0]

    def clock(*_: int) -> int:
        instant[1] = perf_counter_ns()
        return 0

    return arrays._replace(clock=clock, time=instant, **small)


_completion = tuple.__new__  # a NamedTuple's own constructor takes several times as long
