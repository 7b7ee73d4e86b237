"""The requests of a load, as loop/requests.py keeps them: who waits, who is in flight, who was dropped."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Any

import numpy as np

from loadtrt.loop import requests
from loadtrt.loop.requests import ARRIVED, BEGAN, COMING, DROPPED, HEAD, NEXT_DUE, TAIL
from loadtrt.units import NEVER

if TYPE_CHECKING:
    import numpy.typing as npt

    from loadtrt.engines.engine import Engine
    from loadtrt.lanes.recorder import Recorder
    from loadtrt.lanes.scheduler import Load
    from loadtrt.loop.device import Device
    from loadtrt.loop.requests import State

    Instants = npt.NDArray[np.int64]


class Queue:
    """A load on the lanes of an engine. All instants are ns on the engine's clock.

    arrays: the state, as machine code drives it.
    state: the same for Python: over the same memory where `compiled`, else in lists.
    n: its cells.
    """

    def __init__(self, engine: Engine, recorder: Recorder, load: Load, *, compiled: bool = False) -> None:
        rows, cursor = recorder.board.rows, recorder.shared_cursor() if compiled else recorder.cursor
        lanes = engine.contexts, engine.buffers, engine.per_launch
        self.arrays = requests.new_state(*lanes, load.due, load.order, rows, cursor)
        if load.router is not None:
            self.arrays = load.router.share(self.arrays)
        self.state = requests.view_of(self.arrays) if compiled else requests.lists_of(self.arrays)
        if load.router is not None:
            self.state = self.state._replace(n=self.arrays.n.data, free=self.arrays.free.data)
        self.n = self.state.n
        if load.most_waiting is not None:
            # A free buffer set takes a request that waits before anything else happens, unless a batch forms first.
            self.n[requests.ROOM], self.n[requests.ROOM_FREE] = load.most_waiting, load.batcher is None
        self._told = 0  # number of dropped requests that were taken
        self._compiled = compiled

    def with_device(self, device: Device) -> tuple[State, Device]:
        """What `spin` drives: arrays where it is compiled."""
        return (self.arrays, device) if self._compiled else (self.state, requests.view_of(device))

    @property
    def waiting(self) -> int:
        """Number of requests that came due and were neither sent nor dropped."""
        return int(self.n[TAIL] - self.n[HEAD])

    @property
    def due_waiting(self) -> Any:
        """Their due instants, first come first: a memoryview."""
        return self.state.due[self.n[HEAD] : self.n[TAIL]]

    def take_dropped(self) -> Instants:
        """Due instants of the requests dropped since the last call."""
        told, self._told = self._told, self.n[DROPPED]
        dropped: Instants = self.arrays.dropped[told : self._told]  # np.array() of a memoryview takes 0.04 ms
        return dropped.copy()

    def close(self) -> None:
        """Admit no further request."""
        self.n[COMING], self.n[NEXT_DUE] = self.n[ARRIVED], NEVER

    def forget(self) -> None:
        """Forget the requests that wait, as if they had not come due."""
        self.n[HEAD] = self.n[TAIL]

    def unsent(self, until: int) -> Instants:
        """Due instants of the requests that wait, and of those due by `until` and not admitted yet."""
        due, arrived, start = self.arrays.due, self.n[ARRIVED], self.n[BEGAN]
        owed = due[arrived : bisect_right(self.state.due, until - start, arrived, self.n[COMING])] + start
        return np.concatenate((due[self.n[HEAD] : self.n[TAIL]], owed))

    def left_in_flight(self) -> list[tuple[int, list[int]]]:
        """(lane, cells of `sent`) of each request in flight, in the order of submission on each lane."""
        state, size = self.state, self.n[requests.PLACES]
        left = []
        for lane, (oldest, count) in enumerate(zip(state.oldest, state.unfinished, strict=True)):
            places = [lane * size + (oldest + number) % size for number in range(count)]
            left += [(lane, list(map(int, state.sent[place]))) for place in places]
        return left
