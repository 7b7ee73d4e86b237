"""One GPU as a queue whose speed depends on how much is in it: what it is, and its simulation, event by event.

Contexts share a GPU: two lanes at work are not two servers. A lane computes one request at a time, first in, first out;
its other buffer sets hold those that come next. With m lanes at work and n requests in flight, each of the m does
r(m, n) units of work a second, a request being W units, of mean 1, so that a closed loop which keeps n in flight serves
X(n) = m·r(m, n) requests a second, whatever W's law is. X(n) is measured, and so is the law of W: that of the time a
request takes alone, over its mean. Beyond contexts × buffers in flight, requests wait in one queue for the next free
buffer set, as in lanes/scheduler.py. With one buffer set a lane this is limited processor sharing (Zhang, Dai and
Zwart, Diffusion limits of limited processor sharing queues, 2011): M/M/c for X(n) = min(n, c)·μ and an exponential W;
M/G/1-PS for X(n) = μ and contexts without end. A flow-equivalent server (Chandy, Herzog and Woo, Parametric analysis of
queuing networks, 1975) that keeps the tails.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Protocol

import numpy as np

from loadtrt.records.histogram import Histogram, bounds_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

_NEVER = float("inf")
_DEPTH = 1 << 52
_GRID = 2000  # quantiles of work that stand for its law in closed forms


class Work(Protocol):
    """The law of a request's work, of mean 1, by its inverse: float64 [n] of ranks in (0, 1)."""

    def __call__(self, ranks: Floats, /) -> Floats: ...


@dataclass(frozen=True, slots=True, eq=False)
class Station:
    """speeds[m][n]: r(m, n), 1 ≤ m ≤ contexts, m ≤ n ≤ contexts × buffers; the other places are never looked at."""

    contexts: int
    buffers: int
    speeds: tuple[tuple[float, ...], ...]
    work: Work

    @property
    def in_flight(self) -> int:
        """The most requests that can be in flight."""
        return self.contexts * self.buffers

    @property
    def most_per_s(self) -> float:
        """Requests a second with a queue that never ends: what utilisation is a part of."""
        return self.contexts * self.speeds[self.contexts][self.in_flight]

    @property
    def alone_s(self) -> float:
        """Mean latency of a request that has the GPU alone."""
        return 1 / self.speeds[1][1]

    @property
    def works(self) -> Floats:
        """The law of work as float64 [n] quantiles that are equally likely."""
        return self.work((np.arange(_GRID) + 0.5) / _GRID)

    @property
    def cv2(self) -> float:
        """(deviation / mean)² of work."""
        works = self.works
        return float(works.var() / works.mean() ** 2)


def station(
    contexts: int, buffers: int, throughput: Callable[[int], float], work: Work, alone_s: float | None = None
) -> Station:
    """The Station of X(n), `throughput` requests a second with n in flight.

    r(m, n) = X(n) / m where all lanes are at work or each has one request (m = min(n, contexts)). Where some lanes hold
    two and others none, as happens for a moment, it is X(m) / m: as if those that wait in lanes were not there.
    alone_s: no request goes faster than one alone, r(m, n) ≤ n / (m · alone_s), where X was measured in full lanes.
    """
    table = [[0.0] * (contexts * buffers + 1) for _ in range(contexts + 1)]
    for m in range(1, contexts + 1):
        for n in range(m, m * buffers + 1):
            total = throughput(n if m == contexts else m)
            table[m][n] = min(total, n / alone_s if alone_s else total) / m
    return Station(contexts, buffers, tuple(map(tuple, table)), work)


def interpolated(measured: Mapping[int, float]) -> Callable[[int], float]:
    """X(n) for every n ≥ 1 from some, requests a second by requests in flight: straight lines in n / X(n), the mean
    latency of a closed loop. That is exact where contention alone slows requests down (1 + σ(n − 1) in the universal
    scalability law); where coherency bends n / X(n) upwards a line lies above it: more GPUs, not fewer. Beyond the most
    that was measured X stays what it was there."""
    places = sorted(measured)
    latencies = [place / measured[place] for place in places]

    def throughput(n: int) -> float:
        within = min(max(n, places[0]), places[-1])
        return within / float(np.interp(within, places, latencies))

    return throughput


def work_of(histogram: Histogram) -> tuple[Work, float, float]:
    """(the law of W, its mean in ns, its coefficient of variation), from times of a request that was alone.

    Times are taken as spread evenly within a bucket (of 0.8 %), between the least and the greatest measured.
    """
    used = np.flatnonzero(histogram.counts)
    low, width = bounds_of(used)
    edges = np.clip(np.column_stack((low, low + width)).ravel().astype(np.float64), histogram.min, histogram.max)
    weights = histogram.counts[used] / histogram.count
    reached = np.minimum(np.cumsum(weights), 1.0)
    ranks = np.column_stack((np.concatenate(([0.0], reached[:-1])), reached)).ravel()
    middles, widths = (edges[::2] + edges[1::2]) / 2, edges[1::2] - edges[::2]
    mean = float(weights @ middles)
    variance = float(weights @ ((middles - mean) ** 2 + widths**2 / 12))

    def work(drawn: Floats) -> Floats:
        return np.interp(drawn, ranks, edges) / mean

    return work, mean, variance**0.5 / mean


class _Gpu:
    """State of one Station. worked: the work done so far by each lane that has always been at work, as of `now`: a lane
    whose request began at worked = v is done with its W units at v + W. busy: (that, lane, request), a heap. depths:
    in flight, by lane, × _DEPTH + a number that tells which lane has had so many for longest."""

    __slots__ = ("busy", "depths", "event", "in_flight", "lanes", "now", "outstanding", "speed", "waiting", "worked")

    def __init__(self, contexts: int) -> None:
        self.busy: list[tuple[float, int, int]] = []
        self.lanes: list[deque[int]] = [deque() for _ in range(contexts)]  # waiting in a lane
        self.depths = list(range(contexts))
        self.waiting: deque[int] = deque()
        self.in_flight = self.outstanding = 0
        self.now = self.worked = self.speed = 0.0
        self.event: tuple[float, int, _Gpu] | None = None


def completions(due: Sequence[float], work: Sequence[float], each: Station, gpus: int = 1) -> list[float]:
    """When each request completes, s: `due` ascending, each `work` units, on `gpus` Stations without anything to do.

    Each request goes to the GPU with the fewest outstanding requests, of several the one that has had so few for
    longest (as round robin among equals); there to a lane by the same rule. Exact but for rounding; takes about 2 µs a
    request.
    """
    contexts, most, speeds = each.contexts, each.in_flight, each.speeds
    total = len(due)
    done = [0.0] * total
    levels: list[OrderedDict[_Gpu, None]] = [OrderedDict.fromkeys(_Gpu(contexts) for _ in range(gpus))]
    single = next(iter(levels[0])) if gpus == 1 else None
    lowest, number, arrived = 0, contexts, 0
    events: list[tuple[float, int, _Gpu]] = []  # the next completion of each GPU, and such that no longer hold
    while True:
        while events and events[0][2].event is not events[0]:
            heappop(events)
        placed = None
        if arrived < total and (not events or due[arrived] <= events[0][0]):
            now, placed = due[arrived], arrived
            arrived += 1
            gpu = single or _least(levels, lowest)
            if single is None:
                gpu.outstanding += 1
                levels[gpu.outstanding][gpu] = None
                lowest = gpu.outstanding - 1
            if gpu.in_flight == most:
                gpu.waiting.append(placed)
                continue
            gpu.worked += (now - gpu.now) * gpu.speed
            gpu.in_flight += 1
        elif events:
            now, _, gpu = heappop(events)
            gpu.worked, lane, request = heappop(gpu.busy)
            done[request] = now
            gpu.depths[lane] = (gpu.depths[lane] // _DEPTH - 1) * _DEPTH + number
            if single is None:
                del levels[gpu.outstanding][gpu]
                gpu.outstanding -= 1
                levels[gpu.outstanding][gpu] = None
                lowest = min(lowest, gpu.outstanding)
            if gpu.lanes[lane]:
                request = gpu.lanes[lane].popleft()
                heappush(gpu.busy, (gpu.worked + work[request], lane, request))
            if gpu.waiting:
                placed = gpu.waiting.popleft()
            else:
                gpu.in_flight -= 1
        else:
            return done
        busy = gpu.busy
        if placed is not None:
            lane = gpu.depths.index(min(gpu.depths))
            if gpu.depths[lane] >= _DEPTH:
                gpu.lanes[lane].append(placed)
            else:
                heappush(busy, (gpu.worked + work[placed], lane, placed))
            gpu.depths[lane] = (gpu.depths[lane] // _DEPTH + 1) * _DEPTH + number
        gpu.now = now
        if busy:
            gpu.speed = speeds[len(busy)][gpu.in_flight]
            number += 1
            gpu.event = (now + (busy[0][0] - gpu.worked) / gpu.speed, number, gpu)
            heappush(events, gpu.event)
        else:
            gpu.speed = gpu.worked = 0.0
            gpu.event = None


def _least(levels: list[OrderedDict[_Gpu, None]], lowest: int) -> _Gpu:
    """Take the GPU that the next request goes to out of its level; none is below `lowest`. A level above is there."""
    while not levels[lowest]:
        lowest += 1
    if lowest + 1 == len(levels):
        levels.append(OrderedDict())
    return levels[lowest].popitem(last=False)[0]
