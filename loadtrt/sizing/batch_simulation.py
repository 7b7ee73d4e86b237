"""The simulation of servers that form batches, or bound their queue (sizing/batching.py), event by event."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from heapq import heappop, heappush
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.load.request_sizes import Batcher
from loadtrt.loop.requests import FREE, finish, new_lanes, sent, take
from loadtrt.sizing.routers import complete, in_lists, new_fleet, send
from loadtrt.units import NEVER, SECOND_NS

if TYPE_CHECKING:
    import numpy.typing as npt

    from loadtrt.sizing.batching import Server
    from loadtrt.sizing.routers import Router

    Instants = npt.NDArray[np.int64]


class Gpu:
    """State of one GPU. All instants are ns.

    number: its place in the fleet.
    waiting, numbers: due instants of the requests that no batch has taken, and their numbers.
    lanes: which of them are free, and who serves next.
    in_flight: of each lane, its batches in flight: the number of each, and those of its requests.
    flying: number of batches in flight.
    completes, lane: when the next batch completes, and where.
    event: the next instant at which something happens by itself: that, or the delay of the first in the queue is over.
    """

    __slots__ = (
        "busy", "completes", "event", "flying", "in_flight", "lane", "lanes", "left", "number", "numbers", "since",
        "waiting",
    )  # fmt: skip

    def __init__(self, number: int, contexts: int, buffers: int) -> None:
        self.number = number
        self.waiting: deque[int] = deque()
        self.numbers: deque[int] = deque()
        self.lanes = new_lanes(contexts, buffers)
        self.in_flight: list[deque[tuple[int, list[int]]]] = [deque() for _ in range(contexts)]
        self.busy: list[int] = []  # lanes that compute
        self.left = [0.0] * contexts  # work that is left of the batch that a lane computes, at `since`
        self.since = self.flying = 0
        self.event = self.completes = NEVER
        self.lane = -1


class _Simulation:
    """The requests of a fleet. completed: of each request; NEVER of one that was dropped."""

    def __init__(self, requests: int, ranks: npt.NDArray[np.float64], server: Server) -> None:
        self.sizes = server.sizes
        self.completed = [NEVER] * requests
        self._works = [server.stations[size].work(ranks).tolist() for size in self.sizes]
        self._speeds = [
            [[speed / SECOND_NS for speed in row] for row in server.stations[size].speeds] for size in self.sizes
        ]
        self._batcher = None if server.batching is None else Batcher(server.batching, 1)
        self._room = NEVER if server.room is None else server.room
        self._batches: list[int] = []  # the place of each one's size

    def admit(self, gpu: Gpu, number: int, due: int) -> bool:
        """A request comes. Whether it may wait, or is dropped."""
        free = 0 if self._batcher else gpu.lanes.n[FREE]
        if len(gpu.waiting) >= self._room + free:
            return False
        gpu.waiting.append(due)
        gpu.numbers.append(number)
        return True

    def settle(self, gpu: Gpu, now: int, *, all_came: bool) -> None:
        """Submit the batches that may go now, and find the next event."""
        waiting, numbers, lanes, batcher = gpu.waiting, gpu.numbers, gpu.lanes, self._batcher
        gpu.event, launched = NEVER, False
        while lanes.n[FREE] and waiting:
            count = 1
            if batcher is not None:
                count, ready = batcher.next_batch(waiting, all_came=all_came)
                if ready > now:
                    gpu.event = ready
                    break
            if not launched:
                launched = True
                self._advance(gpu, now)
            lane, batch = take(lanes), len(self._batches)
            self._batches.append(bisect_left(self.sizes, count))
            if not gpu.in_flight[lane]:
                gpu.busy.append(lane)
                gpu.left[lane] = self._works[self._batches[batch]][batch]
            sent(lanes, lane, now, now, 1)
            gpu.in_flight[lane].append((batch, [numbers.popleft() for _ in range(count)]))
            gpu.flying += 1
            for _ in range(count):
                waiting.popleft()
        if launched:
            self._foresee(gpu)
        gpu.event = min(gpu.event, gpu.completes)

    def finish(self, gpu: Gpu) -> int:
        """A batch has completed; the number of its requests."""
        now, lane = gpu.completes, gpu.lane
        self._advance(gpu, now)
        finish(gpu.lanes, lane, now)
        _, numbers = gpu.in_flight[lane].popleft()
        for number in numbers:
            self.completed[number] = now
        gpu.flying -= 1
        if following := gpu.in_flight[lane]:
            batch = following[0][0]
            gpu.left[lane] = self._works[self._batches[batch]][batch]
        else:
            gpu.busy.remove(lane)
        self._foresee(gpu)
        return len(numbers)

    def _foresee(self, gpu: Gpu) -> None:
        """Find the batch that completes next."""
        gpu.completes = NEVER
        for lane in gpu.busy:
            at = gpu.since + round(gpu.left[lane] / self._speed(gpu, lane))
            if at < gpu.completes:
                gpu.completes, gpu.lane = at, lane

    def _advance(self, gpu: Gpu, now: int) -> None:
        """Take what was computed until now from the work that is left."""
        for lane in gpu.busy:
            gpu.left[lane] = max(gpu.left[lane] - (now - gpu.since) * self._speed(gpu, lane), 0.0)
        gpu.since = now

    def _speed(self, gpu: Gpu, lane: int) -> float:
        return self._speeds[self._batches[gpu.in_flight[lane][0][0]]][len(gpu.busy)][gpu.flying]


def serve(
    due: Instants,
    ranks: npt.NDArray[np.float64],
    server: Server,
    gpus: int = 1,
    router: Router | None = None,
) -> Instants:
    """Completion instants of requests on `gpus` GPUs that are idle at first, int64 [n]; NEVER of those dropped.

    due: due instants in ns, int64 [n], ascending.
    ranks: in (0, 1), float64 [n]: the k-th batch has the work of that quantile of the law of its size.
    router: of the fleet; None for a single GPU.

    Exact except for the rounding of instants to ns.
    """
    simulation = _Simulation(len(due), ranks, server)
    fleet = [Gpu(number, server.contexts, server.buffers) for number in range(gpus)]
    routed = None if router is None else in_lists(new_fleet(router, gpus, len(due)))
    at = [*due.tolist(), NEVER]
    coming, total, gpu = 0, len(due), fleet[0]
    events: list[tuple[int, int, int]] = []  # (event, order, number of the GPU), and such that no longer hold
    while True:
        while events and fleet[events[0][2]].event != events[0][0]:
            heappop(events)
        soonest = events[0][0] if events else NEVER
        if coming < total and at[coming] <= soonest:  # before a buffer set becomes free at this instant
            now = at[coming]
            gpu = gpu if routed is None else fleet[send(routed)]
            waits = simulation.admit(gpu, coming, now)
            coming += 1
            if not waits and routed is not None:
                complete(routed, gpu.number)
            if not (waits and gpu.lanes.n[FREE]) or (routed is None and at[coming] == now):
                continue
        elif events:
            now, _, number = heappop(events)
            gpu = fleet[number]
            if now == gpu.completes:
                for _ in range(simulation.finish(gpu)):
                    if routed is not None:
                        complete(routed, gpu.number)
        else:
            return np.array(simulation.completed, np.int64)
        simulation.settle(gpu, now, all_came=coming == total)
        if gpu.event != NEVER:
            heappush(events, (gpu.event, coming, gpu.number))


def bad_share(due: Instants, completed: Instants, limit_ns: int) -> float:
    """The share of requests that took longer, or were dropped."""
    return float(np.mean(completed - due > limit_ns))
