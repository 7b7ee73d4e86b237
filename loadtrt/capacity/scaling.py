"""The ladder of closed loops: its scalability law, and the rate at which the search starts."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.asked.load import Rate
from loadtrt.capacity.station import interpolated, latencies, station, work_of
from loadtrt.records.histogram import Histogram
from loadtrt.results.capacity_result import Scaling
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.asked.config import RunConfig
    from loadtrt.asked.objective import Objective
    from loadtrt.capacity.station import Station
    from loadtrt.results.capacity_result import Trial
    from loadtrt.results.run_result import RunResult


_REQUESTS, _REQUESTS_FIFO = 80_000, 800_000  # requests of the simulation: of several contexts, of one
_SAMPLES = 6  # bootstrap samples
_STEPS = 9  # of bisection: within 0.2 % of the highest throughput


def rungs(contexts: int, buffers: int) -> list[tuple[int, int]]:
    """(contexts, buffers per lane) of each closed loop: 1, 2, 4, … and all lanes with one request each, then all lanes
    with 2, 4, … and all of their buffer sets."""
    lanes = [*itertools.takewhile(lambda n: n < contexts, (2**k for k in range(11))), contexts]
    depths = [*itertools.takewhile(lambda n: n < buffers, (2**k for k in range(1, 7))), buffers]
    return [(n, 1) for n in lanes] + [(contexts, k) for k in depths if k > 1]


def fit(ladder: Sequence[Trial]) -> Scaling | None:
    """The law's parameters for these closed loops; None if none served a request.

    X(N) = αN / (1 + σ(N−1) + κN(N−1)) (Gunther, Guerrilla capacity planning, 2007) is linear in 1/α, σ/α and κ/α:

        N/X(N) = 1/α + (σ/α)(N−1) + (κ/α)N(N−1)

    Least squares of relative errors with non-negative parameters: the best of the fits with σ, κ, both or neither at
    zero.
    """
    measured = [
        (trial.in_flight, rate, trial.run.model.metrics["latency"].mean_ns)
        for trial in ladder
        if trial.in_flight is not None and trial.run is not None and (rate := trial.run.model.throughput.requests_per_s)
    ]
    if not measured:
        return None
    counts, rates = (np.array([run[column] for run in measured], np.float64) for column in (0, 1))
    terms = np.column_stack((np.ones_like(counts), counts - 1, counts * (counts - 1))) * (rates / counts)[:, None]
    best: tuple[float, tuple[float, float, float]] = (math.inf, (0.0, 0.0, 0.0))
    for kept in ((0,), (0, 1), (0, 2), (0, 1, 2)):
        if len(kept) > len(measured):
            continue
        coefficients = np.zeros(3)
        coefficients[list(kept)] = np.linalg.lstsq(terms[:, list(kept)], np.ones(len(measured)), rcond=None)[0]
        error = float(np.square(terms @ coefficients - 1).sum())
        if coefficients.min() >= 0 < coefficients[0] and error < best[0] * (1 - 1e-9) - 1e-15:
            best = (error, (float(coefficients[0]), float(coefficients[1]), float(coefficients[2])))
    inverse, sigma, kappa = best[1][0], best[1][1] / best[1][0], best[1][2] / best[1][0]
    fitted = counts / (1 + sigma * (counts - 1) + kappa * counts * (counts - 1)) / inverse
    powers = [rate / latency if latency else 0.0 for _, rate, latency in measured]
    return Scaling(
        alpha_per_s=1 / inverse,
        sigma=sigma,
        kappa=kappa,
        peak_in_flight=max(math.sqrt(max(1 - sigma, 0.0) / kappa), 1.0) if kappa else None,
        most_per_s=float(rates.max()),
        knee_in_flight=measured[max(range(len(powers)), key=powers.__getitem__)][0],
        error_ratio=float(np.max(np.abs(fitted / rates - 1))),
    )


def half_width(run: RunResult | None) -> float:
    """Half width of the 95 % confidence interval of a closed loop's throughput, over the throughput: 1.96·CV/√n, CV the
    coefficient of variation of latency."""
    if run is None or not run.model.histograms["latency"]["buckets"]:
        return math.inf
    histogram = Histogram.from_dict(run.model.histograms["latency"])
    return 1.96 * work_of(histogram)[2] / math.sqrt(histogram.count)


def model_of(ladder: Sequence[Trial], config: RunConfig) -> Station | None:
    """The queue that the ladder measured (capacity/station.py): X(N) from its throughput, work from its first rung,
    lanes from `config`. None where nothing was served with one request in flight."""
    measured = {
        trial.in_flight: rate
        for trial in ladder
        if trial.in_flight and trial.run is not None and (rate := trial.run.model.throughput.requests_per_s)
    }
    first = ladder[0].run if ladder else None
    if not measured or first is None or not first.model.histograms["latency"]["buckets"]:
        return None
    law, _, _ = work_of(Histogram.from_dict(first.model.histograms["latency"]))
    return station(config.model.contexts, config.model.buffers, interpolated(measured), law)


def predicted_per_s(
    ladder: Sequence[Trial], config: RunConfig, objectives: Sequence[Objective]
) -> tuple[float | None, float]:
    """(rate, spread): the highest rate, in requests per second, at which a simulation of the queue that the ladder
    measured meets the objectives on latency, with the arrivals of `config`; and the standard deviation of its logarithm
    by the sampling error of the service times, from bootstrap samples of them. (None, 0) without such a queue or without
    an objective on latency."""
    bounds = [(bound.bound_ns / SECOND_NS, 1 - bound.rank) for bound in objectives if bound.metric_name == "latency"]
    queue, load = model_of(ladder, config), config.model.load
    if not bounds or queue is None or not isinstance(load, Rate):
        return None, 0.0
    random, several = np.random.default_rng([config.model.seed, _SAMPLES]), queue.contexts > 1
    rate = _highest(queue, load, bounds, _REQUESTS if several else _REQUESTS_FIFO, config.model.seed)
    first = ladder[0].run
    if rate is None or first is None:
        return None, 0.0
    histogram = Histogram.from_dict(first.model.histograms["latency"])
    rates = []
    for _ in range(_SAMPLES):
        sample = Histogram.from_dict(first.model.histograms["latency"])
        sample.counts = random.multinomial(histogram.count, histogram.counts / histogram.count)
        law, mean_ns, _ = work_of(sample)
        slower = mean_ns / histogram.sum * histogram.count
        resampled = replace(queue, work=law, speeds=tuple(tuple(r / slower for r in row) for row in queue.speeds))
        requests = (_REQUESTS if several else _REQUESTS_FIFO) // 4
        rates.append(_highest(resampled, load, bounds, requests, config.model.seed) or rate)
    return rate, float(np.std(np.log(rates), ddof=1))


def _highest(
    queue: Station, load: Rate, bounds: Sequence[tuple[float, float]], requests: int, seed: int
) -> float | None:
    """The highest rate at which a simulated queue meets all (bound in s, allowed share of bad requests)."""
    works = queue.work(np.random.default_rng([seed, requests]).random(requests))
    low, high = 0.0, queue.most_per_s
    for _ in range(_STEPS):
        middle = (low + high) / 2
        due = replace(load, rate=middle).due(0, requests, seed)  # the same draw for each rate
        latency = latencies(due[:requests] / SECOND_NS, works, queue)
        met = all(np.mean(latency > bound) <= allowed for bound, allowed in bounds)
        low, high = (middle, high) if met else (low, middle)
    return low or None
