"""The ladder of closed loops: its scalability law, and the rate at which the search starts."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from loadtrt.asked.load import Rate
from loadtrt.asked.load_options import at_rate
from loadtrt.load.arrivals import Gamma
from loadtrt.load.dealing import is_even
from loadtrt.records.histogram import Histogram, bounds_of
from loadtrt.results.capacity_result import Scaling, rung_of
from loadtrt.runs.narrowed import Part
from loadtrt.sizing.batch_simulation import bad_share, serve
from loadtrt.sizing.batching import server_of
from loadtrt.sizing.station import latencies, work_of
from loadtrt.stats.sample_size import kish_size
from loadtrt.units import SECOND_NS, format_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadtrt.asked.config import RunConfig
    from loadtrt.asked.model import Model
    from loadtrt.asked.objective import Objective
    from loadtrt.load.request_sizes import Batching
    from loadtrt.results.capacity_result import Trial
    from loadtrt.results.run_result import RunResult
    from loadtrt.sizing.batching import Server
    from loadtrt.sizing.station import Station

_REQUESTS, _REQUESTS_FIFO = 40_000, 800_000  # requests of a simulation: of several contexts, of one
_REQUESTS_BATCHED = 20_000
_MOST_REQUESTS = 500_000  # of a whole period of stages or a trace
_UNSTEADY = 0.05  # share by which requests may be faster side by side than alone
_SAMPLES = 6  # bootstrap samples
_HEAVY = 1.5  # spread by the long services that did not come, times the root of how many make up the second moment
_UNSAMPLED = 0.1  # spread where no samples are drawn
_PARTS = 24
_STEPS = 9  # of bisection: within 0.2 % of the highest throughput
_NEARBY = 0.05  # share by which rates differ of which the slope of latency is taken
_LEAST_SLOPE = 0.1  # of ln latency over ln rate, which is about ρ / (1 − ρ): where the GPU is nearly idle it is noise


class Rung(NamedTuple):
    """A closed loop on a part of the engine, for `seconds` at least and until `requests` are served, `longest` s at
    most."""

    part: Part
    seconds: float
    requests: int
    longest: float


def rungs(contexts: int, buffers: int, batching: Batching | None = None) -> list[Part]:
    """The part of the engine that each closed loop runs on: 1, 2, 4, … and all lanes with one request each, then all
    lanes with 2, 4, … and all of their buffer sets; with a batcher, each with batches of each size."""
    lanes = [*itertools.takewhile(lambda n: n < contexts, (2**k for k in range(11))), contexts]
    depths = [*itertools.takewhile(lambda n: n < buffers, (2**k for k in range(1, 7))), buffers]
    loops = [(n, 1) for n in lanes] + [(contexts, k) for k in depths if k > 1]
    sizes = batching.sizes if batching else (None,)
    return [Part(n, k, size) for n, k in loops for size in sizes]


def fit(ladder: Sequence[Trial], batching: Batching | None = None) -> Scaling | None:
    """The law's parameters for these closed loops; None if none served a request. With a batcher the loops of full
    batches count alone, and rates are of single requests.

    X(N) = αN / (1 + σ(N−1) + κN(N−1)) (Gunther, Guerrilla capacity planning, 2007) is linear in 1/α, σ/α and κ/α:

        N/X(N) = 1/α + (σ/α)(N−1) + (κ/α)N(N−1)

    Least squares of relative errors with non-negative parameters: the best of the fits with σ, κ, both or neither at
    zero.
    """
    full = batching.sizes[-1] if batching else 1
    measured = [
        (trial.in_flight, full * rate, trial.run.model.metrics["latency"].mean_ns)
        for trial in ladder
        if trial.in_flight is not None and trial.run is not None and (rate := trial.run.model.throughput.requests_per_s)
        if batching is None or trial.run.model.engine.batch == full
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


def contradiction(ladder: Sequence[Trial]) -> str | None:
    """Why the closed loops cannot be of one engine in one state; None where they can. Requests side by side are not
    faster than one alone, beyond what chance explains."""
    runs = {rung_of(trial): trial.run for trial in ladder if trial.run is not None}
    for (in_flight, batch), run in runs.items():
        first, count = runs.get((1, batch)), in_flight or 1
        rate, alone = run.model.throughput.requests_per_s, first and first.model.throughput.requests_per_s
        if not rate or not alone:
            continue
        if rate / (count * alone) - 1 > _UNSTEADY + 2 * (half_width(run) + half_width(first)):
            each_ns = SECOND_NS * max(len(run.workers), 1)
            return (
                f"unsteady: {count} requests in flight took {format_duration(each_ns * count / rate)} each, and one "
                f"alone {format_duration(each_ns / alone)}, so that the engine became faster meanwhile; lock the "
                "GPU's clocks, or warm up longer (--warmup 10s)"
            )
    return None


def predicted_per_s(
    ladder: Sequence[Trial], config: RunConfig, objectives: Sequence[Objective]
) -> tuple[float | None, float]:
    """(rate, spread): the highest rate, in requests per second, at which a simulation of the queue that the ladder
    measured (sizing/station.py, sizing/batching.py) meets the objectives on latency; and the standard deviation of
    its logarithm by the sampling error of the work, from bootstrap samples of it, which lack what did not come.

    X(N) is the ladder's throughput, work is that of its rungs with one request in flight, and lanes, queue and arrivals
    are those of `config`. The rate is None without such a ladder, without an objective on latency, for arrivals of too
    many requests, and where no rate meets them."""
    bounds = [(bound.limit_ns, 1 - bound.rank) for bound in objectives if bound.metric_name == "latency"]
    runs = [trial.run for trial in ladder if trial.in_flight and trial.run is not None]
    server, model = server_of(runs, config.model) if bounds else None, config.model
    if server is None:
        return None, 0.0
    if server.batching is not None or server.room is not None or not isinstance(model.load, Rate):
        return _batched(server, model, bounds), _UNSAMPLED
    queue = server.stations[1]
    requests = _REQUESTS if queue.contexts > 1 else _REQUESTS_FIFO
    rate = _steady(queue, model.load, bounds, requests, model.seed)
    if rate is None:
        return None, 0.0
    alone = Histogram.from_dict(runs[0].model.histograms["latency"])
    return rate, sampling_error(queue, alone, model.load, bounds, rate, requests // 4, model.seed)


def sampling_error(
    queue: Station,
    alone: Histogram,
    load: Rate,
    bounds: Sequence[tuple[int, float]],
    rate: float,
    requests: int,
    seed: int,
) -> float:
    """The standard deviation of the logarithm of the highest rate: that of a quantile at the rate, over the slope of
    the quantile, both of logarithms.

    alone: latencies of requests alone, of which the queue's work is made.
    """
    random = np.random.default_rng([seed, _SAMPLES])
    excesses = []
    for _ in range(_SAMPLES):
        sample = Histogram.from_dict(alone.to_dict())
        sample.counts = random.multinomial(alone.count, alone.counts / alone.count)
        law, mean_ns, _ = work_of(sample)
        slower = mean_ns * alone.count / alone.sum
        sampled = replace(queue, work=law, speeds=tuple(tuple(speed / slower for speed in row) for row in queue.speeds))
        excesses.append(_excess_of(sampled, load, bounds, requests, seed)(rate))
    ends = [rate * (1 - _NEARBY), rate * (1 + _NEARBY)]
    below, above = map(_excess_of(queue, load, bounds, requests, seed), ends)
    slope = max((above - below) / math.log(ends[1] / ends[0]), _LEAST_SLOPE)
    used = np.flatnonzero(alone.counts)
    long = kish_size(bounds_of(used)[0].astype(np.float64) ** 2, alone.counts[used])
    return math.hypot(np.std(excesses, ddof=1) / slope, _HEAVY / math.sqrt(max(long, 1.0)))


def of_one_worker(ladder: Sequence[Trial], config: RunConfig) -> tuple[list[Trial], RunConfig, int]:
    """(the closed loops of the first worker, the configuration of what comes to it, the number of workers), where
    workers made the runs; what is given, and 1, where none did. Workers are alike, so that a fleet's capacity is as
    many times that of one: gaps at a worker are as load/dealing.py has them."""
    workers = max((len(trial.run.workers) for trial in ladder if trial.run is not None), default=0)
    if not workers:
        return list(ladder), config, 1
    first = [
        trial.model_copy(update={"run": trial.run.workers[0]})
        for trial in ladder
        if trial.run is not None and trial.run.workers
    ]
    load = config.model.load
    if isinstance(load, Rate) and not load.bursts:
        cv2 = load.cv**2 / workers if is_even(config.routing) else 1 + (load.cv**2 - 1) / workers
        config = config.with_model(load=replace(load, process=Gamma(math.sqrt(cv2))))
    return first, config, workers


def _steady(queue: Station, load: Rate, bounds: Sequence[tuple[int, float]], requests: int, seed: int) -> float | None:
    """The highest rate at which a queue meets all (bound in ns, allowed share of bad requests)."""
    excess = _excess_of(queue, load, bounds, requests, seed)
    low, high = 0.0, queue.most_per_s
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) <= 0 else (low, middle)
    return low or None


def _excess_of(
    queue: Station, load: Rate, bounds: Sequence[tuple[int, float]], requests: int, seed: int
) -> Callable[[float], float]:
    """The logarithm of a quantile over its bound, the largest of all, at a rate: not above 0 where all are met. All
    rates have the same draws."""
    works = queue.work(np.random.default_rng([seed, requests]).random(requests))
    places = [requests - 1 - int(allowed * requests) for _, allowed in bounds]

    def excess(rate: float) -> float:
        due = replace(load, rate=rate).due(0, requests, seed)[:requests] / SECOND_NS
        latency = np.partition(latencies(due, works, queue), places)[places] * SECOND_NS
        return math.log(max(value / limit_ns for value, (limit_ns, _) in zip(latency, bounds, strict=True)))

    return excess


def _batched(server: Server, model: Model, bounds: Sequence[tuple[int, float]]) -> float | None:
    """The highest rate at which a server with a batcher, a bounded queue or another load meets all.

    At low rates a batcher makes requests wait for its delay, so that latency falls before it rises: rates are tried
    from the highest down until one meets them. Without a batcher it only rises."""
    period_ns = at_rate(model.load, server.most_per_s).period_ns or 0
    if server.most_per_s * period_ns > _MOST_REQUESTS * SECOND_NS:
        return None
    ranks = np.random.default_rng([model.seed, _REQUESTS_BATCHED]).random(_REQUESTS_BATCHED)

    def meets(rate: float) -> bool:
        load = at_rate(model.load, rate)
        due = load.due(load.period_ns or 0, _REQUESTS_BATCHED, model.seed)
        assert due is not None  # noqa: S101  # the trials of a search are open loops
        completed = serve(due, np.resize(ranks, len(due)), server)
        return all(bad_share(due, completed, limit_ns) <= allowed for limit_ns, allowed in bounds)

    low, high = 0.0, server.most_per_s
    if model.batching is not None:
        low, high = _highest(meets, server.most_per_s)
    if not high:
        return None
    for _ in range(_STEPS - 2):
        middle = (low + high) / 2
        low, high = (middle, high) if meets(middle) else (low, middle)
    return low or None


def _highest(meets: Callable[[float], bool], most: float) -> tuple[float, float]:
    """(a rate that meets, the next higher one, which does not), of rates from the highest down; (0, 0) without any."""
    shares = [part / _PARTS for part in range(_PARTS, 0, -1)] + [2**-k / _PARTS for k in range(1, 5)]
    for above, share in itertools.pairwise(shares):
        if meets(share * most):
            return share * most, above * most
    return 0.0, 0.0
