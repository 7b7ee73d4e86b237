"""The requests of a load, as loop/requests.py keeps them: who waits, who is in flight, who was dropped."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Any

import numpy as np

from loadtrt.loop import requests
from loadtrt.loop.requests import ARRIVED, BEGAN, COMING, DROPPED, HEAD, NEXT_DUE, TAIL
from loadtrt.units import NEVER

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from loadtrt.engines.engine import Engine
    from loadtrt.lanes.recorder import Recorder

    Instants = npt.NDArray[np.int64]


class Queue:
    """A load on the lanes of an engine. All instants are ns on the engine's clock.

    arrays: the state that `loop.device.spin` drives.
    state: the same for Python: over the same memory where the engine spins, else in lists, which Python reads in a
        third of the time.
    n: its cells.
    """

    def __init__(
        self,
        engine: Engine,
        recorder: Recorder,
        due: Instants | None,
        order: Sequence[int],
        room: int | None = None,
        *,
        room_free: int = 1,
        spins: bool = False,
    ) -> None:
        """due: ns from the start, int64, ascending; None: a closed loop. order: input sets in the order of requests.
        room: how many requests may wait, besides `room_free` for each free buffer set; None: any number."""
        rows, cursor = recorder.board.rows, recorder.cursor
        self.arrays = requests.new_state(engine.contexts, engine.buffers, engine.per_launch, due, order, rows, cursor)
        self.state = requests.view_of(self.arrays) if spins else requests.lists_of(self.arrays)
        self.n = self.state.n
        self.n[requests.ROOM] = NEVER if room is None else room
        self.n[requests.ROOM_FREE] = 0 if room is None else room_free
        self._told = 0  # number of dropped requests that were taken

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
        return np.array(self.state.dropped[told : self._told], np.int64)

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

    def left_in_flight(self) -> list[tuple[int, int]]:
        """(lane, place in `state.sent`) of each request in flight, in the order of submission on each lane."""
        lanes, size = self.state.lanes, self.n[requests.BUFFERS] * self.n[requests.PER_LAUNCH]
        left = []
        for lane in range(len(lanes) // requests.LANE_CELLS):
            at = requests.LANE_CELLS * lane
            oldest, unfinished = lanes[at + requests.OLDEST], lanes[at + requests.UNFINISHED]
            places = [lane * size + (oldest + number) % size for number in range(unfinished)]
            left += [(lane, requests.SENT_CELLS * place) for place in places]
        return left
