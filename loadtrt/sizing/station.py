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

from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Protocol

import numpy as np

from loadtrt.records.histogram import bounds_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from loadtrt.records.histogram import Histogram

    Floats = npt.NDArray[np.float64]
    Work = Callable[[Floats], Floats]  # quantiles of a request's work, of mean 1, of ranks in (0, 1): float64 [n]

_DEPTH = 1 << 52
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


class Gpu:
    """State of one Station.

    number: its place in the fleet.
    outstanding: requests that were sent to it and have not completed; `place` is for its router.
    busy: heap of (value of `worked` at which the request completes, lane, request).
    depths: requests in flight by lane, × _DEPTH + a number that orders lanes of one depth by how long they have had it.
    worked: work that a lane has done if it was always busy, up to `now`: a request of W units that begins at
        worked = v completes at v + W.
    """

    __slots__ = (
        "busy", "depths", "event", "in_flight", "lanes", "now", "number", "outstanding", "place", "speed", "waiting",
        "worked",
    )  # fmt: skip

    def __init__(self, number: int, contexts: int) -> None:
        self.number = number
        self.busy: list[tuple[float, int, int]] = []
        self.lanes: list[deque[int]] = [deque() for _ in range(contexts)]  # waiting in a lane
        self.depths = list(range(contexts))
        self.waiting: deque[int] = deque()
        self.in_flight = self.outstanding = self.place = 0
        self.now = self.worked = self.speed = 0.0
        self.event: tuple[float, int, Gpu] | None = None


class Router(Protocol):
    """Sends requests to the GPUs of a fleet (sizing/routers.py)."""

    def send(self) -> Gpu:
        """The GPU that the next request goes to, whose `outstanding` grows."""

    def done(self, gpu: Gpu) -> None:
        """A request of this GPU has completed: its `outstanding` falls."""


def completions(
    due: Sequence[float],
    work: Sequence[float],
    station: Station,
    gpus: int = 1,
    router: Callable[[Sequence[Gpu]], Router] | None = None,
) -> list[float]:
    """Completion instants of requests in s, on `gpus` GPUs that are idle at first.

    due: due instants in s, ascending.
    work: units of work of each request.
    station: the model of each GPU.
    router: makes the router of the fleet; None for a single GPU.

    On a GPU a request goes to the lane with the fewest requests, among equals to the one that has had so few for the
    longest time. Exact except for rounding, in 1 µs per request, 2 to 3 µs with a router.
    """
    contexts, most, speeds = station.contexts, station.in_flight, station.speeds
    total = len(due)
    done = [0.0] * total
    fleet = [Gpu(number, contexts) for number in range(gpus)]
    route = None if router is None else router(fleet)
    number, arrived = contexts, 0
    events: list[tuple[float, int, Gpu]] = []  # the next completion of each GPU, and such that no longer hold
    while True:
        while events and events[0][2].event is not events[0]:
            heappop(events)
        placed = None
        if arrived < total and (not events or due[arrived] <= events[0][0]):
            now, placed = due[arrived], arrived
            arrived += 1
            gpu = fleet[0] if route is None else route.send()
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
            if route is not None:
                route.done(gpu)
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


def latencies(due: Floats, work: Floats, station: Station) -> Floats:
    """Latencies of requests on one GPU, s; as `completions`. With one context they follow the recursion of Lindley
    (1952), a hundred times as fast, at the speed with all buffer sets in use: where queues matter these are."""
    if station.contexts > 1:
        return np.array(completions(due.tolist(), work.tolist(), station)) - due
    done = np.cumsum(work) / station.most_per_s
    latency: Floats = np.maximum.accumulate(due - np.concatenate(([0.0], done[:-1]))) + done - due
    return latency
