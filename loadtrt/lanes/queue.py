"""Requests of an open loop that have come due and were not sent yet."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.units import NEVER

if TYPE_CHECKING:
    import numpy.typing as npt

    Instants = npt.NDArray[np.int64]


class Queue:
    """Takes requests in as they come due.

    due: instants in ns from the start, int64 ascending; start_ns: of the run, on the engine's clock, as all instants in
    here. room: how many may wait; None: as many as come. waiting: due instants, first come first. next_due: of the next
    that comes, NEVER after the last. arrived: how many came, dropped: how many of them found no room.
    """

    def __init__(self, due: Instants, start_ns: int, room: int | None) -> None:
        self._due = due
        self._at = due.data  # items are Python ints, unlike an array's
        self._start = start_ns
        self._room = room
        self.waiting: deque[int] = deque()
        self.arrived = self.dropped = 0
        self._dropped_due: list[int] = []
        self.next_due = start_ns + self._at[0] if len(due) else NEVER

    def admit(self, until: int, free: int) -> None:
        """What has come due by then waits, or is dropped where it finds no room. free: buffer sets that stand free are
        room too, as they take the head of the queue before anything else happens."""
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
        """Due instants of what was dropped since the last time."""
        taken, self._dropped_due = np.array(self._dropped_due, np.int64), []
        return taken

    def close(self) -> None:
        """Nothing more comes."""
        self.next_due = NEVER

    def unsent(self, until: int) -> Instants:
        """Due instants of what waits, and of what came due by then and was never taken in."""
        owed: Instants = np.empty(0, np.int64)
        if self.next_due != NEVER:
            owed = self._due[self.arrived : bisect_right(self._at, until - self._start)] + self._start
        return np.concatenate((np.array(self.waiting, np.int64), owed))
