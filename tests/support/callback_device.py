"""A device behind C callbacks on a virtual clock, for `loop.device.spin` as numba compiles it and as Python runs it."""

from __future__ import annotations

import ctypes
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.loop import device as loop
from loadtrt.units import MILLISECOND_NS, NEVER, SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FUNCTIONS = (
    "launch",
    "record",
    "wait",
    "copy_in",
    "copy_out",
    "query",
    "elapsed",
    "clock",
)  # in the order of the kinds of calls
FAULT = 700
_FUNCTION = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_int64] * 4)
_IDLE_CALLS = 8  # of the clock, one after another: nobody does anything but wait
_LONGEST_NS = MILLISECOND_NS  # that time goes on at once


@dataclass
class CallbackDevice:
    """Lanes that each serve one request after the other. Time goes on with each call that costs some, and where nothing
    can happen before: there it goes on to the next completion or to the next due instant.

    lanes, slots, per_launch, sets: shape; `sets` input sets.
    service_ns: of the n-th request of all, the n-th (and from the start again).
    copies: whether requests have h2d and d2h, of H2D_NS and D2H_NS.
    times: whether they are timed.
    due_ns: instants at which requests come due.
    cost_ns: of a call, by its kind.
    fault_at: a kind, and which of its calls is the first that fails; all later calls but the clock's fail, too.
    unready: every so many queries of a request that has finished say that it has not.
    anchor_ns: instant of the event with the handle 0. Spans are float32, and exact to 16 ms.
    calls: what was called: kind, arguments, instant. launches: handles of graphs, in order.
    in_flight: requests that were launched and not seen finished; most_in_flight: of a lane, at most.
    """

    lanes: int = 1
    slots: int = 1
    per_launch: int = 1
    sets: int = 1
    service_ns: Sequence[int] = (1000,)
    copies: bool = True
    times: bool = True
    due_ns: Sequence[int] = ()
    cost_ns: Mapping[str, int] = field(default_factory=dict)
    fault_at: tuple[str, int] | None = None
    unready: int = 0
    now: int = 0
    anchor_ns: int = 0
    calls: list[tuple[int | str, ...]] = field(default_factory=list)
    launches: list[int] = field(default_factory=list)

    H2D_NS, D2H_NS = 100, 50

    def __post_init__(self) -> None:
        self.buffer_sets = self.slots * self.per_launch
        self._at: dict[int, int] = {}  # instant of each event
        self._ends = [0] * self.lanes  # when a lane has done all its work
        self.waiting: list[list[int]] = [[] for _ in range(self.lanes)]  # completions that were not seen
        self.most_in_flight = self._clocks = self._served = self._ready = 0
        self._asked = Counter[int]()
        self._counts = dict.fromkeys(FUNCTIONS, 0)
        self._lost = False

    def device(self, *, compiled: bool) -> loop.Device:
        """Its arrays, with C functions where they are for compiled code."""
        n = np.zeros(loop.DEVICE_CELLS, np.int64)
        n[: loop.WAY] = self.lanes, self.slots, self.buffer_sets, self.sets
        n[loop.TIMES], n[loop.MONOTONIC] = self.times * (1 + self.copies), 1
        instant, spans = np.zeros(2, np.int64), np.zeros(4, np.float32)
        n[loop.TIME_AT] = instant.ctypes.data
        n[loop.SINCE_AT : loop.SINCE_AT + 4] = spans.ctypes.data + 4 * np.arange(4)
        calls: list[tuple[int, ...]] = []
        programs: list[tuple[int, int]] = []
        for graph in range(self.lanes * self.slots * self.sets):
            lane = graph // (self.slots * self.sets)
            first = len(calls)
            calls.append((loop.RECORD, graph, lane, 0, 0))
            calls.append((loop.COPY_IN, graph, 1, 2, lane))
            calls += [(loop.WAIT, lane, graph, 0, 0)] * (graph % 2)  # programs differ in length
            calls.append((loop.LAUNCH, graph, lane, 0, 0))
            calls.append((loop.COPY_OUT, graph, 1, 2, lane))
            programs.append((first, len(calls)))
        functions = {kind: getattr(self, f"_{kind}") for kind in FUNCTIONS}
        if compiled:
            functions = {kind: _FUNCTION(function) for kind, function in functions.items()}
        count = self.lanes * self.buffer_sets
        return loop.Device(
            **functions,
            compute=functions["launch"],
            n=n,
            calls=np.array(calls, np.int64).reshape(-1),
            programs=np.array(programs, np.int64).reshape(-1),
            events=np.arange(1, 1 + count * loop.EVENT_CELLS),
            place=np.zeros(self.lanes * loop.PLACE_CELLS, np.int64),
            anchor=np.zeros(2, np.int64),
            rate=np.full(1, 1e6),
            time=instant,
            spans=spans,
            found=np.zeros(count * loop.FOUND_CELLS, np.int64),
        )

    def _call(self, kind: str, *arguments: int) -> int:
        """The status of a call."""
        self._clocks = 0
        self.now += self.cost_ns.get(kind, 0)
        self.calls.append((kind, *arguments, self.now))
        self._counts[kind] += 1
        self._lost |= self.fault_at == (kind, self._counts[kind])
        return FAULT if self._lost else 0

    def _launch(self, graph: int, stream: int, *_: int) -> int:
        if status := self._call("launch", graph, stream):
            return status
        self.launches.append(graph)
        self._asked.clear()
        lane, slot = graph // (self.slots * self.sets), graph // self.sets % self.slots
        for place in range(self.per_launch):
            buffer = lane * self.buffer_sets + slot * self.per_launch + place
            service = self.service_ns[self._served % len(self.service_ns)]
            self._served += 1
            instant = max(self._ends[lane], self.now)
            for number, took in enumerate(
                (0, self.H2D_NS, 0, service, self.D2H_NS) if self.copies else (0, 0, 0, service, 0)
            ):
                instant += took
                self._at[1 + loop.EVENT_CELLS * buffer + number] = instant
            self._ends[lane] = instant
            self.waiting[lane].append(instant)
        self.most_in_flight = max(self.most_in_flight, len(self.waiting[lane]))
        return 0

    def _record(self, *arguments: int) -> int:
        return self._call("record", *arguments)

    def _wait(self, *arguments: int) -> int:
        return self._call("wait", *arguments)

    def _copy_in(self, *arguments: int) -> int:
        return self._call("copy_in", *arguments)

    def _copy_out(self, *arguments: int) -> int:
        return self._call("copy_out", *arguments)

    def _query(self, event: int, *_: int) -> int:
        if status := self._call("query", event):
            return status
        lane = (event - 1) // loop.EVENT_CELLS // self.buffer_sets
        if self._at[event] <= self.now:
            self._ready += 1
            if not self.unready or self._ready % self.unready:
                return 0
            return loop.NOT_READY
        self._asked[lane] += 1
        # Twice: a poll that has found a request asks about other lanes before that request is received.
        if all(not waiting or self._asked[number] > 1 for number, waiting in enumerate(self.waiting)):
            self._asked.clear()
            self._go_on(min(waiting[0] for waiting in self.waiting if waiting))
        return loop.NOT_READY

    def _go_on(self, until: int) -> None:
        due = bisect_right(self.due_ns, self.now)
        coming = self.due_ns[due] if due < len(self.due_ns) else until
        self.now = max(self.now, min(until, coming, self.now + _LONGEST_NS))

    def _elapsed(self, address: int, first: int, second: int, _: int) -> int:
        if status := self._call("elapsed", first, second):
            return status
        if first == 0:  # of the anchor to a completion: it is seen, once
            lane = (second - 1) // loop.EVENT_CELLS // self.buffer_sets
            self._asked.clear()
            self.waiting[lane].pop(0)
        ctypes.c_float.from_address(address).value = (self._at[second] - self._at.get(first, self.anchor_ns)) / 1e6
        return 0

    def _clock(self, _: int, address: int, *__: int) -> int:
        self.now += self.cost_ns.get("clock", 0)
        self._clocks += 1
        if self._clocks > _IDLE_CALLS and not any(self.waiting):
            self._clocks = 0
            self._go_on(NEVER)
        instant = (ctypes.c_int64 * 2).from_address(address)
        instant[0], instant[1] = divmod(self.now, SECOND_NS)
        return 0
