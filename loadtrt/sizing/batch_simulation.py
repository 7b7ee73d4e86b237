"""The simulation of servers that form batches, or bound their queue (sizing/batching.py), event by event."""

from __future__ import annotations

from functools import cache
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

import numpy as np

from loadtrt.loop.compiled import machine_code
from loadtrt.sizing.routers import STEPS, Fleet, complete, in_lists, new_fleet, send
from loadtrt.sizing.station import DEPTH, compiling_pays, lowest
from loadtrt.units import NEVER, SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from loadtrt.sizing.batching import Server
    from loadtrt.sizing.routers import Router

    Instants = npt.NDArray[np.int64]


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

    Exact except for the rounding of instants to ns. By machine code where that pays, as station.completions.
    """
    stations, full = [server.stations[size] for size in server.sizes], server.sizes[-1]
    speeds = np.array([station.speeds for station in stations]).ravel() / SECOND_NS
    places = np.searchsorted(server.sizes, np.arange(full + 1))
    slots, room = server.contexts * server.buffers, len(due) if server.room is None else server.room
    delay, slots_are_room = (0, 1) if server.batching is None else (server.batching.delay_ns, 0)
    numbers = server.contexts, slots, delay, room, slots_are_room
    due, completed, fleet = np.array(due, np.int64), np.full(len(due), NEVER), new_fleet(router, gpus, len(due))
    simulate = _compiled() if compiling_pays(len(due)) else _simulate_in_lists
    batches = 2 * len(due) // full + 1
    while True:  # the work of a batch takes longer to find than its requests to simulate: seldom of as many as can be
        works = np.concatenate([station.work(ranks[:batches]) for station in stations])
        if simulate((due, works, speeds, places, *numbers, Fleet(*map(np.copy, fleet)), completed)):
            return completed
        batches *= 4


def _simulate_in_lists(arguments: tuple[Any, ...]) -> bool:
    """`_simulate` by Python."""
    *arrays, contexts, slots, delay, room, slots_are_room, fleet, completed = arguments
    due, works, speeds, places = (array.tolist() for array in arrays)
    numbers, instants = (contexts, slots, delay, room, slots_are_room), completed.tolist()
    whole = _simulate(due, works, speeds, places, *numbers, in_lists(fleet), instants)
    completed[:] = instants
    return whole


@cache
def _compiled() -> Callable[[tuple[Any, ...]], bool]:
    """`_simulate` as machine code; all of its calls have arguments of these types."""
    instants, numbers = np.zeros(1, np.int64), np.zeros(1)
    arguments = instants, numbers, numbers, instants, 1, 1, 1, 1, 1, new_fleet(None, 1, 0), instants
    return machine_code(_simulate, (*STEPS, lowest), arguments, "the simulation of batching GPUs")


def _simulate(
    due: Any,
    works: Any,
    speeds: Any,
    places: Any,
    contexts: int,
    slots: int,
    delay: int,
    room: int,
    slots_are_room: int,
    fleet: Fleet,
    completed: Any,
) -> bool:
    """Fill in `completed`. numba compiles this, too. Returns False where there are more batches than in `works`.

    works: of each size the work of each batch. speeds: of each size, as Station.speeds, per ns. places: of each number
    of requests, the place of the size that a batch of as many has. slots: batches in flight of a GPU at most. room: how
    many requests may wait at a GPU, and `slots_are_room` times the number of its free slots.

    Of each GPU: first, last and queued of the requests that wait; flying, its batches in flight; busy, the number of
    its lanes that compute, which `computing` begins with, in the order in which they began; completes, when the next
    batch does, and soonest, on which lane; event, the next instant at which something happens by itself: that, or a
    batch may go. Of each lane, those of a GPU in a row: depths, as in station.py; serving and newest, the batch that
    it computes and its last one; left, what is left of its work at `since`; speed, at which that falls. Of each batch:
    its first request, their number, the place of its size, and the next batch on its lane. following: of each request,
    the next one in its batch, or of those that wait.
    """
    total, gpus, full = len(due), len(fleet.outstanding), len(places) - 1
    known = len(works) // (places[full] + 1)
    first, last, queued, flying, busy = [0] * gpus, [0] * gpus, [0] * gpus, [0] * gpus, [0] * gpus
    since, soonest, completes, event = [0] * gpus, [0] * gpus, [NEVER] * gpus, [NEVER] * gpus
    computing, serving, newest = [0] * (gpus * contexts), [0] * (gpus * contexts), [0] * (gpus * contexts)
    depths, left, speed = list(range(contexts)) * gpus, [0.0] * (gpus * contexts), [0.0] * (gpus * contexts)
    begins, counts, sizes, then, following = [0] * total, [0] * total, [0] * total, [0] * total, [0] * total
    events = [(0, 0, 0)]  # an event, a number, the GPU; and such that no longer hold
    events.clear()
    number, arrived, batches, gpu = contexts, 0, 0, 0
    while True:
        while events and event[events[0][2]] != events[0][0]:
            heappop(events)
        if arrived < total and (not events or due[arrived] <= events[0][0]):  # before a slot becomes free then
            now = due[arrived]
            if gpus > 1:
                gpu = send(fleet)
            if queued[gpu] < room + slots_are_room * (slots - flying[gpu]):
                if queued[gpu]:
                    following[last[gpu]] = arrived
                else:
                    first[gpu] = arrived
                last[gpu] = arrived
                queued[gpu] += 1
            elif gpus > 1:
                complete(fleet, gpu)
            arrived += 1
        elif events:
            now, _, gpu = heappop(events)
            event[gpu] = NEVER
            lanes = gpu * contexts
            for place in range(lanes, lanes + busy[gpu]):
                lane = computing[place]
                left[lane] = max(left[lane] - (now - since[gpu]) * speed[lane], 0.0)
            since[gpu] = now
            if now == completes[gpu]:
                lane = soonest[gpu]
                batch = serving[lane]
                request = begins[batch]
                for _ in range(counts[batch]):
                    completed[request] = now
                    request = following[request]
                    if gpus > 1:
                        complete(fleet, gpu)
                flying[gpu] -= 1
                number += 1
                depth = depths[lane] // DEPTH - 1
                depths[lane] = depth * DEPTH + number
                if depth:
                    batch = then[batch]
                    serving[lane] = batch
                    left[lane] = works[sizes[batch] * known + batch]
                else:
                    busy[gpu] -= 1
                    place = lanes
                    while computing[place] != lane:
                        place += 1
                    while place < lanes + busy[gpu]:
                        computing[place] = computing[place + 1]
                        place += 1
            while queued[gpu] and flying[gpu] < slots:
                if queued[gpu] < full and arrived < total and due[first[gpu]] + delay > now:
                    break
                if batches == known:
                    return False
                count, request = min(queued[gpu], full), first[gpu]
                begins[batches], counts[batches], sizes[batches] = request, count, places[count]
                for _ in range(count):
                    request = following[request]
                first[gpu] = request
                queued[gpu] -= count
                flying[gpu] += 1
                number += 1
                lane = lowest(depths, lanes, contexts)
                depth = depths[lane] // DEPTH
                depths[lane] = (depth + 1) * DEPTH + number
                if depth:
                    then[newest[lane]] = batches
                else:
                    serving[lane] = batches
                    left[lane] = works[sizes[batches] * known + batches]
                    computing[lanes + busy[gpu]] = lane
                    busy[gpu] += 1
                newest[lane] = batches
                batches += 1
            completes[gpu] = NEVER
            for place in range(lanes, lanes + busy[gpu]):
                lane = computing[place]
                row = sizes[serving[lane]] * (contexts + 1) + busy[gpu]
                speed[lane] = speeds[row * (slots + 1) + flying[gpu]]
                ends = now + round(left[lane] / speed[lane])
                if ends < completes[gpu]:
                    completes[gpu], soonest[gpu] = ends, lane
        else:
            return True
        following_event = completes[gpu]
        if queued[gpu] and flying[gpu] < slots:
            goes = queued[gpu] >= full or arrived == total
            following_event = min(following_event, now if goes else due[first[gpu]] + delay)
        if following_event < event[gpu]:
            event[gpu] = following_event
            heappush(events, (following_event, arrived, gpu))


def bad_share(due: Instants, completed: Instants, limit_ns: int) -> float:
    """The share of requests that took longer, or were dropped."""
    return float(np.mean(completed - due > limit_ns))
