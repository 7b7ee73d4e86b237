"""When simulated lanes finish computing: each as if alone, or slowing each other down on one device.

All instants are int ns of the device's own time, which starts at 0. Both classes are told requests in the order of time
and keep `ends`, a heap of (end, lane, start), from which their user takes what it has seen.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush

from loadtrt.units import NEVER


class IndependentLanes:
    """Lanes that do not touch each other.

    end_j = max(ready_j, end_{j−1}) + S_j for the j-th request of a lane, all in ns (Lindley, The theory of queues with
    a single server, 1952). So each end is known as soon as its request is: `ends` reaches into the future.
    """

    def __init__(self, lanes: int) -> None:
        self.ends: list[tuple[int, int, int]] = []
        self._free_at = [0] * lanes

    def add(self, lane: int, at: int, ready: int, work: int) -> None:  # noqa: ARG002  (`at` matters where lanes share)
        """A request that comes `at` an instant, can begin when `ready` and takes `work` ns."""
        start = max(ready, self._free_at[lane])
        self._free_at[lane] = end = start + work
        heappush(self.ends, (end, lane, start))

    def advance(self, until: int) -> None:
        """Nothing is left to happen."""

    def next_at(self) -> int:
        """An instant before which no request that has not ended ends."""
        return self.ends[0][0] if self.ends else NEVER


class SharedDevice:
    """Lanes that slow each other down, simulated from event to event.

    With n lanes computing each progresses at the rate 1 / (1 + contention·(n − 1)): at contention 1 the work of the
    device is conserved and shared equally (processor sharing: Kleinrock, Time-shared systems, 1967), towards 0 lanes
    are independent. A lane computes its requests one after the other. Each event is rounded to the nearest ns.

    All that compute progress at one rate, so one number tells how far: `progress` is the work in ns that a request
    would have done, had it computed since the device was last idle. One that begins at progress p ends at p + its work.
    """

    def __init__(self, lanes: int, contention: float) -> None:
        self.ends: list[tuple[int, int, int]] = []
        self._contention = contention
        self._queues: list[deque[tuple[int, int]]] = [deque() for _ in range(lanes)]  # (ready, work), computing first
        self._began = [0] * lanes
        self._at = 0  # the last event, to which `progress` belongs
        self._progress = 0.0
        self._pace = 1.0  # ns for 1 ns of work, until the next event
        self._computing: list[tuple[float, int]] = []  # heap of (progress at the end, lane)
        self._waiting: list[tuple[int, int]] = []  # heap of (ready, lane): lanes that do not compute and have a request
        self._end_at = NEVER  # when the first of the computing ends, if none begins before
        self._event_at = NEVER  # the next event: that, or the first of the waiting

    def add(self, lane: int, at: int, ready: int, work: int) -> None:
        """A request that comes `at` an instant, can begin when `ready` and takes `work` ns of the device alone."""
        self.advance(at)
        self._queues[lane].append((ready, work))
        if len(self._queues[lane]) == 1:
            heappush(self._waiting, (ready, lane))
            self._event_at = min(self._event_at, ready)
            self.advance(at)

    def advance(self, until: int) -> None:
        """Let happen all that happens up to `until`, in the order of time: ends before beginnings."""
        while self._event_at <= until:
            if self._end_at == self._event_at:
                self._end()
            else:
                ready, lane = heappop(self._waiting)
                self._begin(lane, ready)
            self._pace = 1 + self._contention * (len(self._computing) - 1)
            self._end_at = NEVER
            if self._computing:
                self._end_at = self._at + max(0, round((self._computing[0][0] - self._progress) * self._pace))
            self._event_at = min(self._end_at, self._waiting[0][0]) if self._waiting else self._end_at

    def next_at(self) -> int:
        """An instant before which no request that has not ended ends."""
        return self.ends[0][0] if self.ends else self._event_at

    def _begin(self, lane: int, at: int) -> None:
        if self._computing:
            self._progress += (at - self._at) / self._pace
        else:
            self._progress = 0.0  # small again, so that a float holds sums of whole ns exactly
        self._at = self._began[lane] = at
        heappush(self._computing, (self._progress + self._queues[lane][0][1], lane))

    def _end(self) -> None:
        self._at = self._end_at
        self._progress, lane = heappop(self._computing)
        heappush(self.ends, (self._at, lane, self._began[lane]))
        queue = self._queues[lane]
        queue.popleft()
        if queue and queue[0][0] <= self._at:
            self._begin(lane, self._at)
        elif queue:
            heappush(self._waiting, (queue[0][0], lane))
