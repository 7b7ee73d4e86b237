"""A server that forms batches of single requests, or bounds its queue: its model of one GPU, and its simulation.

Requests wait in one queue, where a batcher forms batches of them, for the next free buffer set. Batcher and
lanes are those of a run (load/request_sizes.py, lanes/queue.py). The GPU is that of capacity/station.py, with an X(n)
and a law of work of their own for each size b of a batch: with m busy lanes and n batches in flight a lane does
X_b(n)/m batches' worth of work a second, b the size of its own batch. X_b(n) and the work come of closed loops of
batches of that size. A closed loop of n batches of one size serves X_b(n) by construction; lanes that compute batches
of different sizes are assumed to slow each other as batches of their own size do.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from loadtrt.capacity.station import interpolated, station, work_of
from loadtrt.lanes.queue import Lanes
from loadtrt.load.request_sizes import Batcher, parse_batching
from loadtrt.records.histogram import Histogram
from loadtrt.units import NEVER, SECOND_NS, format_duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy.typing as npt

    from loadtrt.asked.model import Model
    from loadtrt.capacity.station import Station
    from loadtrt.load.request_sizes import Batching
    from loadtrt.results.capacity_result import Candidate
    from loadtrt.results.run_result import RunResult

    Instants = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Server:
    """The model of one GPU behind a queue of single requests.

    stations: the GPU with batches of each size alone, by size, in batches a second.
    batching: how batches form; None: each request goes alone.
    room: how many requests may wait; one that finds so many is dropped. None: any number.
    """

    stations: Mapping[int, Station]
    batching: Batching | None
    room: int | None

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes of batches, ascending."""
        return tuple(sorted(self.stations))

    @property
    def most_per_s(self) -> float:
        """Requests per second with an endless backlog: of full batches on all lanes."""
        return self.sizes[-1] * self.stations[self.sizes[-1]].most_per_s


class Served(NamedTuple):
    """The requests of a simulation, ns. due, completed: of those that were served, int64 [n], in the order of
    completion; dropped: due instants of the others, int64."""

    due: Instants
    completed: Instants
    dropped: Instants


def server_of(runs: Iterable[RunResult], model: Model) -> Server | None:
    """The server that closed loops measured, one for each number of batches in flight and each size; None where a size
    has none with a single batch in flight.

    model: its lanes, batcher and queue.
    """
    throughputs: dict[int, dict[int, float]] = {}
    alone: dict[int, Histogram] = {}
    for run in runs:
        of_run, size = run.config.model, run.model.engine.batch if model.batching else 1
        in_flight, rate = of_run.contexts * of_run.buffers, run.model.throughput.requests_per_s
        if rate:
            throughputs.setdefault(size, {})[in_flight] = rate
        if in_flight == 1:
            alone[size] = Histogram.from_dict(run.model.histograms["latency"])
    sizes = model.batching.sizes if model.batching else (1,)
    if not all(size in alone and alone[size].count and 1 in throughputs.get(size, {}) for size in sizes):
        return None
    stations = {
        size: station(model.contexts, model.buffers, interpolated(throughputs[size]), work_of(alone[size])[0])
        for size in sizes
    }
    return Server(stations, model.batching, model.max_queue)


class _Gpu:
    """State of one GPU. All instants are ns.

    waiting: due instants of requests that no batch has taken.
    outstanding: requests that wait or are in flight.
    completes, lane: when the next batch completes, and where.
    event: the next instant at which something happens by itself: that, or the delay of the first in the queue is over.
    """

    __slots__ = ("busy", "completes", "event", "flying", "lane", "lanes", "left", "outstanding", "since", "waiting")

    def __init__(self, contexts: int, buffers: int) -> None:
        self.waiting: deque[int] = deque()
        self.lanes = Lanes(contexts, buffers, 1, 0)
        self.busy: list[int] = []  # lanes that compute
        self.left = [0.0] * contexts  # work that is left of the batch that a lane computes, at `since`
        self.since = self.flying = self.outstanding = 0
        self.event = self.completes = NEVER
        self.lane = -1


class _Simulation:
    """The requests of GPUs with one router."""

    def __init__(self, ranks: npt.NDArray[np.float64], server: Server) -> None:
        first = next(iter(server.stations.values()))
        self.contexts, self.buffers, self.sizes = first.contexts, first.buffers, server.sizes
        self.works = [server.stations[size].work(ranks).tolist() for size in self.sizes]
        self.speeds = [_per_ns(server.stations[size]) for size in self.sizes]
        self.batcher = None if server.batching is None else Batcher(server.batching, 1)
        self.room = NEVER if server.room is None else server.room
        self.batches: list[int] = []  # the place of each one's size
        self.due: list[int] = []
        self.completed: list[int] = []
        self.dropped: list[int] = []

    def admit(self, gpu: _Gpu, due: int) -> bool:
        """A request comes. Whether it may wait, or is dropped."""
        free = 0 if self.batcher else len(gpu.lanes.free_since)
        if len(gpu.waiting) >= self.room + free:
            self.dropped.append(due)
            return False
        gpu.waiting.append(due)
        gpu.outstanding += 1
        return True

    def settle(self, gpu: _Gpu, now: int, *, all_came: bool) -> None:
        """Submit the batches that may go now, and find the next event."""
        waiting, lanes, batcher = gpu.waiting, gpu.lanes, self.batcher
        gpu.event, launched = NEVER, False
        while lanes.free_since and waiting:
            count = 1
            if batcher is not None:
                count, ready = batcher.next_batch(waiting, all_came=all_came)
                if ready > now:
                    gpu.event = ready
                    break
            if not launched:
                launched = True
                self._advance(gpu, now)
            lane, batch = lanes.take(), len(self.batches)
            self.batches.append(bisect_left(self.sizes, count))
            if not lanes.in_flight[lane]:
                gpu.busy.append(lane)
                gpu.left[lane] = self.works[self.batches[batch]][batch]
            lanes.in_flight[lane].append((waiting[0], now, now, 0, batch, tuple(islice(waiting, 1, count))))
            gpu.flying += 1
            for _ in range(count):
                waiting.popleft()
        if launched:
            self._foresee(gpu)
        gpu.event = min(gpu.event, gpu.completes)

    def _foresee(self, gpu: _Gpu) -> None:
        """Find the batch that completes next."""
        gpu.completes, busy = NEVER, len(gpu.busy)
        for lane in gpu.busy:
            speed = self.speeds[self.batches[gpu.lanes.in_flight[lane][0][4]]][busy][gpu.flying]
            at = gpu.since + round(gpu.left[lane] / speed)
            if at < gpu.completes:
                gpu.completes, gpu.lane = at, lane

    def finish(self, gpu: _Gpu) -> int:
        """A batch has completed; the number of its requests."""
        now, lane = gpu.completes, gpu.lane
        self._advance(gpu, now)
        due, _, _, _, _, others = gpu.lanes.finish(lane, now)
        count = 1 + len(others)
        self.due += (due, *others)
        self.completed += [now] * count
        gpu.flying -= 1
        gpu.outstanding -= count
        following = gpu.lanes.in_flight[lane]
        if following:
            gpu.left[lane] = self.works[self.batches[following[0][4]]][following[0][4]]
        else:
            gpu.busy.remove(lane)
        self._foresee(gpu)
        return count

    def _advance(self, gpu: _Gpu, now: int) -> None:
        """Take what was computed until now from the work that is left."""
        busy, elapsed, in_flight = len(gpu.busy), now - gpu.since, gpu.lanes.in_flight
        for lane in gpu.busy:
            speed = self.speeds[self.batches[in_flight[lane][0][4]]][busy][gpu.flying]
            gpu.left[lane] = max(gpu.left[lane] - elapsed * speed, 0.0)
        gpu.since = now


def serve(due: Instants, ranks: npt.NDArray[np.float64], server: Server) -> Served:
    """Simulate the requests of one GPU that is idle at first.

    due: due instants in ns, int64 [n], ascending.
    ranks: in (0, 1), float64 [n]: the k-th batch has the work of that quantile of the law of its size.

    Exact except for the rounding of instants to ns.
    """
    simulation = _Simulation(ranks, server)
    gpu = _Gpu(simulation.contexts, simulation.buffers)
    at = [*due.tolist(), NEVER]
    coming, total = 0, len(due)
    while coming < total or gpu.event != NEVER:
        if at[coming] <= gpu.event:  # before a buffer set becomes free at this instant
            now = at[coming]
            while at[coming] <= now:
                simulation.admit(gpu, at[coming])
                coming += 1
            if not gpu.lanes.free_since:
                continue
        else:
            now = gpu.event
            if now == gpu.completes:
                simulation.finish(gpu)
        simulation.settle(gpu, now, all_came=coming == total)
    return Served(
        *(np.array(instants, np.int64) for instants in (simulation.due, simulation.completed, simulation.dropped))
    )


def of_delay(candidate: Candidate) -> str:
    """A clause for a batcher whose delay misses a bound on latency by itself at low rates; "" for others."""
    batching = parse_batching(candidate.batcher) if candidate.batcher else None
    alone = candidate.trials[0].run if candidate.trials else None
    if batching is None or alone is None:
        return ""
    single_ns = alone.model.metrics["latency"].percentiles_ns["p50"] or 0
    for item in alone.model.objectives:
        limit_ns, of_latency = item.objective.limit_ns, item.objective.metric_name == "latency"
        if of_latency and single_ns <= limit_ns < batching.delay_ns + single_ns:
            delay = format_duration(batching.delay_ns)
            return (
                f"; at low rates {item.objective} is missed, as requests wait the batcher's delay of {delay} for others"
            )
    return ""


def _per_ns(of_size: Station) -> list[list[float]]:
    return [[speed / SECOND_NS for speed in row] for row in of_size.speeds]


def bad_share(served: Served, limit_ns: int) -> float:
    """The share of requests that took longer, or were dropped."""
    total = len(served.due) + len(served.dropped)
    return (int(np.count_nonzero(served.completed - served.due > limit_ns)) + len(served.dropped)) / max(total, 1)
