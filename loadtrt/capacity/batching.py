"""A server that forms batches of single requests, or bounds its queue: its model of one GPU, and its simulation.

Requests wait in one queue, where a batcher forms batches of them, for the next free buffer set. Queue, batcher and
lanes are those of a run (lanes/queue.py, load/request_sizes.py). The GPU is that of capacity/station.py, with an X(n)
and a law of work of their own for each size b of a batch: with m busy lanes and n batches in flight a lane does
X_b(n)/m batches' worth of work a second, b the size of its own batch. X_b(n) and the work come of closed loops of
batches of that size. A closed loop of n batches of one size serves X_b(n) by construction; lanes that compute batches
of different sizes are assumed to slow each other as batches of their own size do.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from loadtrt.capacity.station import interpolated, station, work_of
from loadtrt.lanes.queue import Lanes, Queue
from loadtrt.load.request_sizes import Batcher, parse_batching
from loadtrt.records.histogram import Histogram
from loadtrt.units import NEVER, SECOND_NS, format_duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

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


def serve(due: Instants, ranks: npt.NDArray[np.float64], server: Server) -> Served:
    """Simulate the requests of one GPU that is idle at first.

    due: due instants in ns, int64 [n], ascending.
    ranks: in (0, 1), float64 [n]: the k-th batch has the work of that quantile of the law of its size.

    Exact except for the rounding of instants to ns.
    """
    any_station = next(iter(server.stations.values()))
    contexts, sizes = any_station.contexts, server.sizes
    works = [server.stations[size].work(ranks).tolist() for size in sizes]
    speeds = [_per_ns(server.stations[size]) for size in sizes]
    batcher = None if server.batching is None else Batcher(server.batching, 1)
    queue, lanes = Queue(due, 0, server.room), Lanes(contexts, any_station.buffers, 1, 0)
    waiting, in_flight, free_since = queue.waiting, lanes.in_flight, lanes.free_since
    places: list[int] = []  # of each batch: the place of its size
    left = [0.0] * contexts  # work that is left of the batch that a lane computes
    rows: list[tuple[int, int]] = []
    now = since = flying = 0
    busy: list[int] = []  # lanes with a batch
    while True:
        if queue.next_due <= now:
            queue.admit(now, 0 if batcher else len(free_since))
        soonest, ended, launched = NEVER, -1, False
        while free_since and waiting:
            count = 1
            if batcher is not None:
                count, ready = batcher.next_batch(waiting, all_came=queue.next_due == NEVER)
                if ready > now:
                    soonest = ready
                    break
            if not launched:
                launched = True
                _advance(left, busy, places, in_flight, speeds, flying, now - since)
                since = now
            lane, batch = lanes.take(), len(places)
            places.append(bisect_left(sizes, count))
            if not in_flight[lane]:
                busy.append(lane)
                left[lane] = works[places[batch]][batch]
            in_flight[lane].append((waiting[0], now, now, 0, batch, tuple(islice(waiting, 1, count))))
            flying += 1
            for _ in range(count):
                waiting.popleft()
        for lane in busy:
            speed = speeds[places[in_flight[lane][0][4]]][len(busy)][flying]
            at = since + round(left[lane] / speed)
            if at < soonest:
                soonest, ended = at, lane
        if free_since and queue.next_due < soonest:  # without a free buffer set, those that come only wait
            now = queue.next_due
            continue
        if soonest == NEVER:
            break
        now = max(soonest, now)
        if ended < 0:
            continue
        if queue.next_due <= now:  # before this buffer set became free
            queue.admit(now, 0 if batcher else len(free_since))
        _advance(left, busy, places, in_flight, speeds, flying, now - since)
        since = now
        first_due, _, _, _, _, others = lanes.finish(ended, now)
        rows.append((first_due, now))
        rows.extend((other, now) for other in others)
        flying -= 1
        if in_flight[ended]:
            following = in_flight[ended][0][4]
            left[ended] = works[places[following]][following]
        else:
            busy.remove(ended)
    table = np.array(rows, np.int64).reshape(-1, 2)
    return Served(table[:, 0], table[:, 1], queue.take_dropped())


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


def _advance(
    left: list[float],
    busy: Sequence[int],
    places: Sequence[int],
    in_flight: Sequence[Sequence[tuple[int, int, int, int, int, Sequence[int]]]],
    speeds: Sequence[Sequence[Sequence[float]]],
    flying: int,
    elapsed_ns: int,
) -> None:
    """Take what was computed within `elapsed_ns` from the work that is left."""
    for lane in busy:
        speed = speeds[places[in_flight[lane][0][4]]][len(busy)][flying]
        left[lane] = max(left[lane] - elapsed_ns * speed, 0.0)


def _per_ns(of_size: Station) -> list[list[float]]:
    return [[speed / SECOND_NS for speed in row] for row in of_size.speeds]


def bad_share(served: Served, limit_ns: int) -> float:
    """The share of requests that took longer, or were dropped."""
    total = len(served.due) + len(served.dropped)
    return (int(np.count_nonzero(served.completed - served.due > limit_ns)) + len(served.dropped)) / max(total, 1)
