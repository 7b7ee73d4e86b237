"""One GPU as a queue whose speed depends on the requests in flight: its model, and its simulation event by event.

Contexts share a GPU: two busy lanes are not two servers. A lane computes one request at a time, first in, first out;
its other buffer sets hold the next ones. With m busy lanes and n requests in flight, each lane does r(m, n) units of
work per second. A request is W units of mean 1, so that a closed loop with n in flight serves X(n) = m·r(m, n) requests
per second for any distribution of W. X(n) is measured, and W is the latency of a request alone over its mean. Beyond
contexts × buffers in flight, requests wait in one queue for the next free buffer set, as in lanes/scheduler.py.
With one buffer set per lane this is limited processor sharing (Zhang, Dai and Zwart, Diffusion limits of limited
processor sharing queues, 2011): M/M/c for X(n) = min(n, c)·μ and an exponential W; M/G/1-PS for X(n) = μ and infinitely
many contexts. It is a flow-equivalent server (Chandy, Herzog and Woo, Parametric analysis of queuing networks, 1975)
that keeps the tails.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

import numpy as np

from loadtrt.loop.compiled import is_compiled, machine_code
from loadtrt.records.histogram import bounds_of
from loadtrt.sizing.routers import STEPS, complete, in_lists, new_fleet, send

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt

    from loadtrt.records.histogram import Histogram
    from loadtrt.sizing.routers import Fleet, Router

    Floats = npt.NDArray[np.float64]
    Work = Callable[[Floats], Floats]  # quantiles of a request's work, of mean 1, of ranks in (0, 1): float64 [n]

DEPTH = 1 << 52
_NO_END = math.inf
_PAYS = 300_000  # requests: Python simulates them in half a second, in which machine code is loaded, if it was kept
_simulated = [0]  # requests, in this process so far
_GRID = 2000  # quantiles that represent the distribution of work in closed forms


@dataclass(frozen=True, slots=True, eq=False)
class Station:
    """The model of one GPU.

    buffers: buffer sets per context.
    speeds: speeds[m][n] is r(m, n) for 1 ≤ m ≤ contexts and m ≤ n ≤ contexts × buffers; other places are unused.
    work: distribution of a request's work.
    """

    contexts: int
    buffers: int
    speeds: tuple[tuple[float, ...], ...]
    work: Work

    @property
    def in_flight(self) -> int:
        """The highest number of requests in flight."""
        return self.contexts * self.buffers

    @property
    def most_per_s(self) -> float:
        """Throughput with an endless backlog, requests per second; utilisation is relative to it."""
        return self.contexts * self.speeds[self.contexts][self.in_flight]

    @property
    def alone_s(self) -> float:
        """Mean latency of a request that has the GPU to itself."""
        return 1 / self.speeds[1][1]

    @property
    def works(self) -> Floats:
        """The distribution of work as float64 [n] equally likely quantiles."""
        return self.work((np.arange(_GRID) + 0.5) / _GRID)

    @property
    def cv2(self) -> float:
        """Squared coefficient of variation of work."""
        works = self.works
        return float(works.var() / works.mean() ** 2)


def station(
    contexts: int, buffers: int, throughput: Callable[[int], float], work: Work, alone_s: float | None = None
) -> Station:
    """The Station with throughput X(n).

    throughput: X(n), requests per second with n in flight.
    work: distribution of a request's work.
    alone_s: latency of a request alone, if X was measured with full lanes: r(m, n) ≤ n / (m · alone_s).

    r(m, n) = X(n) / m if all lanes are busy or each has one request, m = min(n, contexts). While some lanes hold two
    requests and others none, it is X(m) / m: requests that wait in a lane do not count.
    """
    table = [[0.0] * (contexts * buffers + 1) for _ in range(contexts + 1)]
    for m in range(1, contexts + 1):
        for n in range(m, m * buffers + 1):
            total = throughput(n if m == contexts else m)
            table[m][n] = min(total, n / alone_s if alone_s else total) / m
    return Station(contexts, buffers, tuple(map(tuple, table)), work)


def interpolated(measured: Mapping[int, float]) -> Callable[[int], float]:
    """X(n) for every n ≥ 1 from measured ones, requests per second by requests in flight: linear interpolation of
    n / X(n), the mean latency of a closed loop. This is exact under contention alone (1 + σ(n − 1) in the universal
    scalability law); coherency bends n / X(n) upwards, so that the interpolation asks for more GPUs, not fewer. Beyond
    the highest measured n, X is constant."""
    places = sorted(measured)
    latencies = [place / measured[place] for place in places]

    def throughput(n: int) -> float:
        within = min(max(n, places[0]), places[-1])
        return within / float(np.interp(within, places, latencies))

    return throughput


def work_of(histogram: Histogram, counts: npt.NDArray[np.float64] | None = None) -> tuple[Work, float, float]:
    """(distribution of W, mean, coefficient of variation), of the work of requests, or of latencies of a request alone.

    Within a bucket (0.8 % wide) values are spread evenly, between the smallest and the largest measured one.
    counts: of the buckets that have a count, in their place.
    """
    used = np.flatnonzero(histogram.counts)
    low, width = bounds_of(used)
    counts = histogram.counts[used].astype(np.float64) if counts is None else counts
    edges = np.clip(np.column_stack((low, low + width)).ravel().astype(np.float64), histogram.min, histogram.max)
    weights = counts / counts.sum()
    reached = np.minimum(np.cumsum(weights), 1.0)
    ranks = np.column_stack((np.concatenate(([0.0], reached[:-1])), reached)).ravel()
    middles, widths = (edges[::2] + edges[1::2]) / 2, edges[1::2] - edges[::2]
    mean = float(weights @ middles)
    variance = float(weights @ ((middles - mean) ** 2 + widths**2 / 12))

    def work(drawn: Floats) -> Floats:
        return np.interp(drawn, ranks, edges) / mean

    return work, mean, variance**0.5 / mean


def completions(due: Floats, work: Floats, station: Station, gpus: int = 1, router: Router | None = None) -> Floats:
    """Completion instants of requests in s, on GPUs that are idle at first, float64 [n].

    due: due instants in s, ascending.
    work: units of work of each request.
    station: the model of each GPU.
    gpus, router: a fleet; None for a single GPU.

    On a GPU a request goes to the lane with the fewest requests, among equals to the one that has had so few for the
    longest time. Exact except for rounding. A request takes 0.1 µs of machine code (0.4 to 0.7 µs with a router), and 1
    to 2 µs of Python (2 to 6 µs with a router). Python is used where numba is missing, and for the first requests of a
    process, in which less time passes than it takes to load machine code.
    """
    due, work, speeds, done = np.array(due), np.array(work), np.array(station.speeds), np.zeros(len(due))
    fleet = new_fleet(router, gpus, len(due))
    arguments = due, work, speeds, station.contexts, station.in_flight, fleet, done
    if compiling_pays(len(due)):
        _compiled()(arguments)
        return done
    instants = done.tolist()
    _simulate(due.tolist(), work.tolist(), station.speeds, *arguments[3:5], in_lists(fleet), instants)
    return np.array(instants)


def compiling_pays(requests: int) -> bool:
    """Whether machine code is to simulate so many requests more."""
    _simulated[0] += requests
    return _simulated[0] > _PAYS and is_compiled()


@cache
def _compiled() -> Callable[[tuple[Any, ...]], None]:
    """`_simulate` as machine code; all of its calls have arguments of these types."""
    some = np.zeros(1)
    arguments = some, some, np.zeros((1, 1)), 1, 1, new_fleet(None, 1, 0), some
    return machine_code(_simulate, (*STEPS, lowest), arguments, "the simulation of GPUs")


def _simulate(due: Any, work: Any, speeds: Any, contexts: int, most: int, fleet: Fleet, done: Any) -> None:
    """Fill in `done`. numba compiles this, too.

    Of each lane, those of a GPU in a row: ends, the value of `worked` at which its request completes; serving, that
    request; newest, its last one; depths, its requests × DEPTH + a number that orders lanes of one depth by how long
    they have had it. Of each GPU: first, last and queued of the requests that wait for a lane; busy lanes; worked, the
    work that a lane has done if it was always busy, up to `since`, so that a request of W units that begins at worked =
    v completes at v + W; soonest, the lane that completes next, and turn, the number of that event. following: of each
    request, the next one in its lane, or of those that wait.
    """
    total, gpus = len(due), len(fleet.outstanding)
    ends, serving, newest = [_NO_END] * (gpus * contexts), [0] * (gpus * contexts), [0] * (gpus * contexts)
    depths = list(range(contexts)) * gpus
    first, last, queued, following = [0] * gpus, [0] * gpus, [0] * gpus, [0] * total
    in_flight, busy, turn, soonest = [0] * gpus, [0] * gpus, [0] * gpus, list(range(0, gpus * contexts, contexts))
    since, worked, speed = [0.0] * gpus, [0.0] * gpus, [0.0] * gpus
    events = [(0.0, 0, 0)]  # when a lane of a GPU completes next, a number, the GPU; and such that no longer hold
    events.clear()
    number, arrived, gpu = contexts, 0, 0
    while True:
        while events and turn[events[0][2]] != events[0][1]:
            heappop(events)
        placed = -1
        if arrived < total and (not events or due[arrived] <= events[0][0]):
            now, placed = due[arrived], arrived
            arrived += 1
            if gpus > 1:
                gpu = send(fleet)
            if in_flight[gpu] == most:
                if queued[gpu]:
                    following[last[gpu]] = placed
                else:
                    first[gpu] = placed
                last[gpu] = placed
                queued[gpu] += 1
                continue
            worked[gpu] += (now - since[gpu]) * speed[gpu]
            in_flight[gpu] += 1
            lane = lowest(depths, gpu * contexts, contexts)
        elif events:
            now, _, gpu = heappop(events)
            lane = soonest[gpu]
            worked[gpu] = ends[lane]
            request = serving[lane]
            done[request] = now
            depth = depths[lane] // DEPTH - 1
            depths[lane] = depth * DEPTH + number
            if gpus > 1:
                complete(fleet, gpu)
            if depth:
                request = following[request]
                serving[lane] = request
                ends[lane] = worked[gpu] + work[request]
            else:
                ends[lane] = _NO_END
                busy[gpu] -= 1
            if queued[gpu]:  # all other lanes are full
                placed = first[gpu]
                first[gpu] = following[placed]
                queued[gpu] -= 1
            else:
                in_flight[gpu] -= 1
        else:
            return
        if placed >= 0:
            depth = depths[lane] // DEPTH
            if depth:
                following[newest[lane]] = placed
            else:
                serving[lane] = placed
                ends[lane] = worked[gpu] + work[placed]
                busy[gpu] += 1
            newest[lane] = placed
            depths[lane] = (depth + 1) * DEPTH + number
        since[gpu] = now
        if busy[gpu]:
            number += 1
            turn[gpu] = number
            if lane == soonest[gpu]:
                lane = lowest(ends, gpu * contexts, contexts)
            elif ends[soonest[gpu]] <= ends[lane]:
                lane = soonest[gpu]
            soonest[gpu] = lane
            speed[gpu] = speeds[busy[gpu]][in_flight[gpu]]
            heappush(events, (now + (ends[lane] - worked[gpu]) / speed[gpu], number, gpu))
        else:
            speed[gpu] = worked[gpu] = 0.0


def lowest(values: Any, first: int, count: int) -> int:
    """The place of the lowest of `count` values, of equal ones the first."""
    place, least = first, values[first]
    for other in range(first + 1, first + count):
        if values[other] < least:
            place, least = other, values[other]
    return place


def latencies(due: Floats, work: Floats, station: Station) -> Floats:
    """Latencies of requests on one GPU, s; as `completions`. With one context they follow the recursion of Lindley
    (1952), a hundred times as fast, at the speed with all buffer sets in use: where queues matter these are."""
    if station.contexts > 1:
        return completions(due, work, station) - due
    done = np.cumsum(work) / station.most_per_s
    latency: Floats = np.maximum.accumulate(due - np.concatenate(([0.0], done[:-1]))) + done - due
    return latency
