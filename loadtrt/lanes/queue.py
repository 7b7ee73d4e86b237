"""Who is served next: requests that have come due and wait, and the lanes that take them."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.units import NEVER

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Instants = npt.NDArray[np.int64]
    # A request in flight: due, submitted, enqueued, lateness, input set, due instants of the rest of its batch.
    Sent = tuple[int, int, int, int, int, Sequence[int]]


class Queue:
    """The requests of an open loop, admitted as they come due. All instants are ns on the engine's clock.

    waiting: due instants of requests that came due and were not sent, first come first.
    next_due: when the next request comes due; NEVER after the last.
    dropped: number of those that found the queue full.
    """

    def __init__(self, due: Instants, start_ns: int, room: int | None) -> None:
        """due: ns from the start, int64, ascending. room: how many may wait; None: any number."""
        self._due = due
        self._at = due.data  # its items are Python ints, unlike an array's
        self._start = start_ns
        self._room = room
        self.waiting: deque[int] = deque()
        self.arrived = self.dropped = 0
        self._dropped_due: list[int] = []
        self.next_due = start_ns + self._at[0] if len(due) else NEVER

    def admit(self, until: int, free: int) -> None:
        """Requests due by `until` wait, or are dropped where the queue is full. free: number of free buffer sets, which
        are room too: they take the head of the queue before anything else happens."""
        at, start, count, waiting = self._at, self._start, len(self._due), self.waiting
        arrived, due = self.arrived, self.next_due
        room = NEVER if self._room is None else self._room + free
        while due <= until:
            if len(waiting) < room:
                waiting.append(due)
            else:
                self._dropped_due.append(due)
                self.dropped += 1
            arrived += 1
            due = start + at[arrived] if arrived < count else NEVER
        self.arrived, self.next_due = arrived, due

    def take_dropped(self) -> Instants:
        """Due instants of the requests dropped since the last call."""
        taken, self._dropped_due = np.array(self._dropped_due, np.int64), []
        return taken

    def close(self) -> None:
        """Admit no further request."""
        self.next_due = NEVER

    def unsent(self, until: int) -> Instants:
        """Due instants of the requests that wait, and of those due by `until` and not admitted yet."""
        owed: Instants = np.empty(0, np.int64)
        if self.next_due != NEVER:
            owed = self._due[self.arrived : bisect_right(self._at, until - self._start)] + self._start
        return np.concatenate((np.array(self.waiting, np.int64), owed))


class Lanes:
    """Chooses a lane for each launch: the one with the fewest launches in flight, of several the one idle longest.

    free_since: when each free buffer set became free, ns, oldest first. The n-th launch takes the n-th of all instants
        in here, which is when an ideal generator would have sent it.
    in_flight: for each lane, its requests that have not finished, in the order of submission.
    """

    def __init__(self, contexts: int, buffers: int, per_launch: int, start_ns: int) -> None:
        self.count = contexts
        self._per_launch = per_launch
        self.in_flight: list[deque[Sent]] = [deque() for _ in range(contexts)]
        self.free_since = deque([start_ns] * (contexts * buffers))
        # levels[k]: the lanes with k launches in flight, in the order in which they came to have k.
        levels: list[dict[int, None]] = [dict.fromkeys(range(contexts)), *({} for _ in range(buffers))]
        self._steps = list(pairwise(levels))  # each level and the one that a launch more leads to

    @property
    def busy(self) -> int:
        """Number of lanes with a request in flight."""
        return self.count - len(self._steps[0][0])

    def take(self) -> int:
        """The lane of the next launch. Raises IndexError without a free buffer set."""
        self.free_since.popleft()
        for level, above in self._steps:
            for lane in level:  # the first one
                del level[lane]
                above[lane] = None
                return lane
        raise AssertionError

    def finish(self, lane: int, completed_ns: int) -> Sent:
        """The oldest request in flight on `lane`, which has finished. The last one of a launch frees its buffer set."""
        in_flight = self.in_flight[lane]
        request = in_flight.popleft()
        unfinished, per_launch = len(in_flight), self._per_launch
        if not unfinished % per_launch:
            level, above = self._steps[unfinished // per_launch]
            del above[lane]
            level[lane] = None
            self.free_since.append(completed_ns)
        return request
