"""A server that forms batches of single requests, or bounds its queue: the model of one GPU, from closed loops.

Requests wait in one queue, where a batcher forms batches of them, for the next free buffer set. Batcher and
lanes are those of a run (load/request_sizes.py, lanes/queue.py). The GPU is that of sizing/station.py, with an X(n)
and a law of work of their own for each size b of a batch: with m busy lanes and n batches in flight a lane does
X_b(n)/m batches' worth of work a second, b the size of its own batch. X_b(n) and the work come of closed loops of
batches of that size. A closed loop of n batches of one size serves X_b(n) by construction; lanes that compute batches
of different sizes are assumed to slow each other as batches of their own size do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadtrt.load.request_sizes import parse_batching
from loadtrt.records.histogram import Histogram
from loadtrt.sizing.station import interpolated, station, work_of
from loadtrt.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from loadtrt.asked.model import Model
    from loadtrt.load.request_sizes import Batching
    from loadtrt.results.capacity_result import Candidate
    from loadtrt.results.run_result import RunResult
    from loadtrt.sizing.station import Floats, Station


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
        return tuple(sorted(self.stations))

    @property
    def contexts(self) -> int:
        return self.stations[self.sizes[0]].contexts

    @property
    def buffers(self) -> int:
        return self.stations[self.sizes[0]].buffers

    @property
    def in_flight(self) -> int:
        """The highest number of requests in flight."""
        return self.sizes[-1] * self.contexts * self.buffers

    @property
    def alone_s(self) -> float:
        """Mean latency of the smallest batch that has the GPU to itself, without the time in which it forms."""
        return self.stations[self.sizes[0]].alone_s

    @property
    def works(self) -> Floats:
        """The distribution of its work, as that of a Station."""
        return self.stations[self.sizes[0]].works

    @property
    def cv2(self) -> float:
        """Of the service of single requests, as a queue near saturation feels it: the variance of the number served
        over its mean, which is b times that of the batches."""
        full = self.sizes[-1]
        return full * self.stations[full].cv2

    @property
    def most_per_s(self) -> float:
        """Requests per second with an endless backlog: of full batches on all lanes."""
        return self.sizes[-1] * self.stations[self.sizes[-1]].most_per_s


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
