"""The law of a server that forms batches, or bounds its queue, and how wrong it may be."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from loadtrt.errors import UsageError
from loadtrt.records.histogram import Histogram
from loadtrt.sizing.batching import Server
from loadtrt.sizing.measured_law import closed_flow, pooled
from loadtrt.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from loadtrt.asked.model import Model
    from loadtrt.asked.objective import Objective
    from loadtrt.load.request_sizes import Batching
    from loadtrt.results.flow import Flow
    from loadtrt.results.run_result import RunResult
    from loadtrt.sizing.measured_law import MeasuredLaw

_APART = 1000  # draws of one size from those of the next


@dataclass(frozen=True, eq=False)
class ServerLaw:
    """laws: that of batches of each size, by size, in batches a second; they were measured in runs of their own.

    batching, room: as of Server.
    """

    laws: Mapping[int, MeasuredLaw]
    batching: Batching | None
    room: int | None

    @cached_property
    def station(self) -> Server:
        """By the point estimates."""
        return Server({size: law.station for size, law in self.laws.items()}, self.batching, self.room)

    def pair(self, seed: int, number: int) -> tuple[Server, Server]:
        """Two draws with errors of opposite sign, the same for the same numbers."""
        pairs = {size: law.pair(seed, number + _APART * place) for place, (size, law) in enumerate(self.laws.items())}
        up, down = ({size: pair[sign] for size, pair in pairs.items()} for sign in (0, 1))
        return Server(up, self.batching, self.room), Server(down, self.batching, self.room)

    def most_per_s(self, seed: int) -> tuple[float, float]:
        """95 % interval of the throughput with an endless backlog."""
        full = max(self.laws)
        low, high = self.laws[full].most_per_s(seed)
        return full * low, full * high

    @property
    def unseen(self) -> float:
        """The largest of all sizes'."""
        return max(law.unseen for law in self.laws.values())

    @property
    def requests(self) -> int:
        """Number of batches that the laws are made of."""
        return sum(law.requests for law in self.laws.values())


def server_law(closed: Iterable[RunResult], model: Model) -> ServerLaw | None:
    """The law of closed loops, one for each number in flight and, with a batcher, each size of a batch; None where a
    size has none with a single one in flight.

    model: the lanes, batcher and queue.
    """
    sizes = model.batching.sizes if model.batching else (1,)
    flows: dict[int, list[Flow]] = {size: [] for size in sizes}
    alone = set()
    for run in closed:
        size, of_run = run.model.engine.batch if model.batching else 1, run.config.model
        in_flight, rate = of_run.contexts * of_run.buffers, run.model.throughput.requests_per_s
        histogram = Histogram.from_dict(run.model.histograms["latency"])
        if size in flows and rate and histogram.count:
            flows[size].append(run.model.flow or closed_flow(in_flight, run.model.ok, rate, histogram))
            alone |= {size} if in_flight == 1 else set()
    if alone != set(sizes):
        return None
    laws = {size: pooled(model.contexts, model.buffers, flows[size], flows[size]) for size in sizes}
    return ServerLaw(laws, model.batching, model.max_queue)


def require_time_to_batch(server: object, objectives: Sequence[Objective]) -> None:
    """Raises UsageError where the delay of a batcher misses an objective by itself: more GPUs have fewer requests each,
    which wait longer for others, so that the fewest are not found by trying more."""
    if not isinstance(server, Server) or server.batching is None:
        return
    works = server.works
    for objective in objectives:
        alone_ns = server.alone_s * 1e9 * sorted(works)[min(int(objective.rank * len(works)), len(works) - 1)]
        if server.batching.delay_ns + alone_ns > objective.limit_ns:
            delay, alone = format_duration(server.batching.delay_ns), format_duration(alone_ns)
            waits = f"requests wait the batcher's delay of {delay} for others, then take {alone}"
            raise UsageError(
                f"'{objective.text}' is missed at low rates: {waits} ({objective.quantile}), so that more GPUs would "
                "not help: lower the delay and search again"
            )
