"""Where a search begins: the capacity that a ladder of closed loops lets expect, by simulation."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.asked.load import Rate
from loadtrt.capacity.station import completions, interpolated, station, work_of
from loadtrt.records.histogram import Histogram
from loadtrt.records.records import METRICS
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.asked.config import RunConfig
    from loadtrt.asked.objective import Objective
    from loadtrt.capacity.station import Station
    from loadtrt.results.capacity_result import Trial

_REQUESTS = 20_000
_STEPS = 7  # of bisection: within 1 % of the greatest throughput


def predicted_per_s(ladder: Sequence[Trial], config: RunConfig, objectives: Sequence[Objective]) -> float | None:
    """Requests a second at which the first of the objectives is just met, by simulation of the queue that the ladder
    measured (capacity/station.py): X(N) from its throughput, work from its first rung, lanes and arrivals as in
    `config`. None where there is no such ladder, or no objective on latency, which is all that the simulation knows."""
    bounds = [
        (each.bound_ns / SECOND_NS, 1 - each.rank) for each in objectives if METRICS[each.metric].name == "latency"
    ]
    measured = {
        trial.in_flight: rate
        for trial in ladder
        if trial.in_flight and trial.run is not None and (rate := trial.run.model.throughput.requests_per_s)
    }
    first = ladder[0].run if ladder else None
    if not bounds or not measured or first is None or not first.model.histograms["latency"]["buckets"]:
        return None
    law, _, _ = work_of(Histogram.from_dict(first.model.histograms["latency"]))
    queue = station(config.model.contexts, config.model.buffers, interpolated(measured), law)
    works = law(np.random.default_rng([config.model.seed, _REQUESTS]).random(_REQUESTS)).tolist()
    low, high = 0.0, queue.most_per_s
    for _ in range(_STEPS):
        middle = (low + high) / 2
        met = _meets(queue, works, _due(config, middle), bounds)
        low, high = (middle, high) if met else (low, middle)
    return low or None


def _due(config: RunConfig, rate: float) -> list[float]:
    """Seconds, the same draw for every rate."""
    load = config.model.load
    assert isinstance(load, Rate)  # noqa: S101  # the trials of a search have a rate
    due = replace(load, rate=rate).due(0, _REQUESTS, config.model.seed)
    return list(map(float, due / SECOND_NS))


def _meets(queue: Station, works: Sequence[float], due: Sequence[float], bounds: Sequence[tuple[float, float]]) -> bool:
    latency = np.array(completions(due, works, queue)) - np.array(due)
    return all(np.mean(latency > bound) <= allowed for bound, allowed in bounds)
