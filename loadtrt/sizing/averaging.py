"""The share of bad requests in a run, averaged over arrivals: what the run would show under any other draw of them.

A request is late because of when requests arrived and of how long each of them took. The second is the engine's. The
first is loadtrt's own random draw, so that its part of the noise can be computed and taken out. The requests of the run
are served again in simulation (sizing/station.py), each with the work that it took and in the same order, under K
other draws of the same arrivals:

    z_i = b_i − b_i^(0) + (Σ_k b_i^(k))/K        p̄ = mean of z

b_i: whether request i was bad; b_i^(k) and b_i^(0): whether it is in simulation, under draw k and under the arrivals of
the run. The last two terms have the same expectation, as a run's arrivals are one of the draws, so that p̄ has the
expectation of the run's own share, whether the simulation is true to the engine or not; the truer it is, the less noise
is left (control variates, and averaging over a part of the randomness: Asmussen and Glynn, Stochastic Simulation, 2007,
chapter V). The correction has no coefficient from regression, which would be 0 where nothing was bad, so that good luck
stayed and bad luck went. It must hold that the work of a request does not depend on the arrivals. So the speed of an
engine that slows down with more requests in flight is in the simulation, and work is divided by its mean for the number
that was in flight when it began.

What is left is the noise of the service times, with their autocorrelation: z is in the order of the run. Its effective
sample size is N₁ = q(1 − q)/Var(p̄), q the larger of p̄ and the standard deviation of p̄, by batch means as in
stats/verdict.py, the largest variance over all lengths of a batch. The less services vary, the more
it gains. Queues grow with the second moment of services: where few long ones make up most of it,
(Σ w²)²/Σ w⁴ < _LONG of the works w, no run shows the variance, and N₁ is less by that factor.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from loadtrt.asked.load import Rate
from loadtrt.records.records import METRICS, OK
from loadtrt.sizing.station import latencies
from loadtrt.stats.sample_size import kish_size
from loadtrt.stats.verdict import BLOCKS, discounted
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt

    from loadtrt.asked.load import Load
    from loadtrt.asked.objective import Objective
    from loadtrt.records.records import Records
    from loadtrt.sizing.station import Floats, Station

_DRAWS = range(4, 65)  # draws of the arrivals: as many as _SIMULATED allows
_SIMULATED, _SIMULATED_FIFO = 600_000, 6_000_000  # requests, over all draws: of several contexts, of one
_MODEL, _MODEL_FIFO, _MODEL_DRAWS = 30_000, 200_000, 8  # of the model: requests, and draws of their arrivals
_CLUSTERS = 3  # independent bad requests below which the correlation is that of the model, if that is larger
_LONG = 40.0  # services that make up the second moment, below which those that did not come are missed
_LEAST = 100  # requests of a run that is averaged
_SAFE = 0.7  # on N₁: the variance is estimated from few batches
_NONE = 1e-30  # a variance of nothing
_LEVELS = (1, 2, 3, 5, 9, 17, 33, 65)  # first of each group of numbers in flight
_LEAST_OF_LEVEL = 200  # requests that began at a group of numbers in flight


class Averaged(NamedTuple):
    """bad: share of bad requests, averaged over arrivals. size: effective sample size."""

    bad: float
    size: float


def averaged(
    records: Records, load: Load, station: Station, objectives: Sequence[Objective], seed: int
) -> list[Averaged | None]:
    """The averaged share for each objective, in their order; None where the share of the run itself is to be used: for
    other metrics than latency. All are None unless all requests were served, and came at random at one rate.

    records: all requests of the run.
    station: the model of the engine.
    seed: of the draws.
    """
    none: list[Averaged | None] = [None] * len(objectives)
    n = len(records)
    draws = min((_SIMULATED if station.contexts > 1 else _SIMULATED_FIFO) // max(n, 1), _DRAWS[-1])
    if not (isinstance(load, Rate) and load.drawn) or n < _LEAST or draws < _DRAWS[0] or (records.status != OK).any():
        return none
    ordered = type(records)(records.rows[np.argsort(records.due, kind="stable")])
    work = works_of(ordered, station)
    arrivals = [(ordered.due - ordered.due[0]) / SECOND_NS]
    arrivals += [load.due(0, n, number)[:n] / SECOND_NS for number in _seeds(seed, draws)]
    served = [latencies(due, work, station) for due in arrivals]

    @cache
    def modelled() -> list[Floats]:
        """Latencies of requests whose work the model draws."""
        length = _MODEL if station.contexts > 1 else _MODEL_FIFO
        drawn = station.work(np.random.default_rng([seed, length]).random(length))
        dues = [load.due(0, length, number)[:length] / SECOND_NS for number in _seeds(seed + 1, _MODEL_DRAWS)]
        return [latencies(due, drawn, station) for due in dues]

    trusted = min(1.0, kish_size(work**2) / _LONG)
    return [_averaged(ordered, objective, served, modelled, trusted) for objective in objectives]


def works_of(records: Records, station: Station) -> Floats:
    """The work of each request: what its lane did at the speeds of the model from its start to its completion, over its
    mean for the number in flight at the start. records: served requests, in order of due instants."""
    n, begun = len(records), _begun(records)
    at = np.concatenate((records.completed, records.submitted, begun))
    order = np.argsort(at, kind="stable")
    lanes = np.cumsum(np.repeat((-1, 0, 1), n)[order])
    flying = np.cumsum(np.repeat((-1, 1, 0), n)[order])
    speeds = np.array(station.speeds)
    lanes, flying = (np.clip(count, 0, most - 1) for count, most in zip((lanes, flying), speeds.shape, strict=True))
    passed = np.diff(at[order], append=at[order[-1]]) / SECOND_NS
    done = np.concatenate(([0.0], np.cumsum(passed * speeds[lanes, np.maximum(flying, lanes)])[:-1]))
    reached, level = np.empty(3 * n), np.empty(3 * n, np.int64)
    reached[order], level[order] = done, flying
    work = reached[:n] - reached[2 * n :]
    for group in _groups(level[2 * n :]):
        work[group] /= max(work[group].mean(), 1e-12)
    clipped: Floats = np.maximum(work / max(work.mean(), 1e-12), 0.0)
    return clipped


def _begun(records: Records) -> npt.NDArray[np.int64]:
    """The instant at which a lane began each request: it was submitted, and the one before it was completed."""
    begun = records.submitted.copy()
    for lane in np.unique(records.lane):
        places = np.flatnonzero(records.lane == lane)
        places = places[np.argsort(records.submitted[places], kind="stable")]
        begun[places[1:]] = np.maximum(begun[places[1:]], records.completed[places[:-1]])
    return np.minimum(begun, records.completed)


def _groups(level: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.bool_]]:
    """Requests in groups of similar numbers in flight, each of enough requests."""
    group = np.zeros(len(level), np.bool_)
    for first, end in zip(_LEVELS, (*_LEVELS[1:], 1 << 30), strict=True):
        group |= (level >= first) & (level < end)
        if np.count_nonzero(group) >= _LEAST_OF_LEVEL:
            yield group
            group = np.zeros(len(level), np.bool_)


def _seeds(seed: int, draws: int) -> list[int]:
    return [int(number) for number in np.random.SeedSequence([seed, len(_LEVELS)]).generate_state(draws)]


def _averaged(
    records: Records,
    objective: Objective,
    served: Sequence[Floats],
    modelled: Callable[[], Sequence[Floats]],
    trusted: float,
) -> Averaged | None:
    if METRICS[objective.metric].name != "latency":
        return None
    n, limit_s = len(records), objective.limit_ns / SECOND_NS
    bad = METRICS[objective.metric].of(records) > objective.limit_ns
    own, *others = (latency > limit_s for latency in served)
    series = bad - (own - np.mean(others, axis=0))
    share = min(max(float(series.mean()), 0.0), 1.0)
    size = min(_single(series), n * len(others))
    if size * share < _CLUSTERS:
        of_model = np.mean([latency > limit_s for latency in modelled()], axis=0)
        size = min(size, n * _single(of_model) / len(of_model))
    return Averaged(share, trusted * discounted(size))


def _single(series: Floats) -> float:
    """N₁ of the mean of a series; its length where nothing varies."""
    variance = _variance(series)
    share = min(max(float(series.mean()), math.sqrt(variance)), 0.5)
    return _SAFE * share * (1 - share) / variance if variance > _NONE else float(len(series))


def _variance(series: Floats) -> float:
    """The variance of the mean, by batch means."""
    sums = np.concatenate(([0.0], np.cumsum(series)))
    most, batch = _NONE, 1
    while len(series) // batch >= BLOCKS:
        most = max(most, batch * float((np.diff(sums[::batch]) / batch).var(ddof=1)) / len(series))
        batch *= 2
    return most
