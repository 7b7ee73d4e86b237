"""The ladder of closed loops: its scalability law, and the rate at which the search starts."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.asked.load_options import at_rate
from loadtrt.capacity.batch_simulation import bad_share, serve
from loadtrt.capacity.batching import server_of
from loadtrt.results.capacity_result import Scaling
from loadtrt.runs.maker import Part
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadtrt.asked.config import RunConfig
    from loadtrt.asked.objective import Objective
    from loadtrt.load.request_sizes import Batching
    from loadtrt.results.capacity_result import Trial


_REQUESTS = 20_000
_MOST_REQUESTS = 500_000  # of a whole period of stages or a trace
_PARTS = 24
_STEPS = 7  # of bisection: within 1 % of the highest throughput


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


def predicted_per_s(ladder: Sequence[Trial], config: RunConfig, objectives: Sequence[Objective]) -> float | None:
    """The highest rate, in requests per second, at which a simulation of the queue that the ladder measured
    (capacity/station.py, capacity/batching.py) meets the objectives on latency: X(N) from the ladder's throughput, work
    from its rungs with one request in flight, lanes, queue and arrivals from `config`. None without such a ladder,
    without an objective on latency, for arrivals of too many requests, and where no rate meets them.

    At low rates a batcher makes requests wait for its delay, so that latency falls before it rises: rates are tried
    from the highest down until one meets them. Without a batcher it only rises."""
    bounds = [(bound.limit_ns, 1 - bound.rank) for bound in objectives if bound.metric_name == "latency"]
    runs = [trial.run for trial in ladder if trial.in_flight and trial.run is not None]
    server, model = server_of(runs, config.model) if bounds else None, config.model
    if server is None:
        return None
    period_ns = at_rate(model.load, server.most_per_s).period_ns or 0
    if server.most_per_s * period_ns > _MOST_REQUESTS * SECOND_NS:
        return None
    ranks = np.random.default_rng([model.seed, _REQUESTS]).random(_REQUESTS)

    def meets(rate: float) -> bool:
        load = at_rate(model.load, rate)
        due = load.due(load.period_ns or 0, _REQUESTS, model.seed)
        assert due is not None  # noqa: S101  # the trials of a search are open loops
        completed = serve(due, np.resize(ranks, len(due)), server)
        return all(bad_share(due, completed, limit_ns) <= allowed for limit_ns, allowed in bounds)

    low, high = 0.0, server.most_per_s
    if model.batching is not None:
        low, high = _highest(meets, server.most_per_s)
    if not high:
        return None
    for _ in range(_STEPS):
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
