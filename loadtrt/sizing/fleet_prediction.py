"""Latencies of a fleet, simulated until the verdict on its objectives is sure, or up to a limit.

Two things are uncertain: the simulation is finite, and the law of the GPU is measured (sizing/measured_law.py). Each
stream of random numbers s is simulated twice, with two draws of the law whose errors have opposite signs. With q the
quantile of one replication, u_s the mean and d_s half the difference of both ln q, over S streams

    var ln q = Σ d_s² / S + var(u_s) / S

the law's part, which no longer simulation makes smaller, and the simulation's. The ends of the interval are t times the
deviation away from ln q, q the quantile of all replications together, t Student's for S − 1. The upper end also has the
variance of services that were too rare to be measured (`Law.unseen`): they can only make latencies longer.

A high quantile of a replication is skewed: busy spells are rare and long, so that most replications have less than
their share of them, and both their mean and their deviation are too small. Near saturation ln q has a skewness of about
six times its deviation (M/M/1 and M/D/1 at loads of 0.5 to 0.95), and (1 − q^−2) / 2 has hardly any: it stands for ln q
in the simulation's part, whose upper end is farther away than the lower one. Each end adds up the squares of both parts
(Zou and Donner, Construction of confidence limits about effect measures, 2008).

Whether the objectives are met is looked at after 4, 8, 16 and 24 streams. Each look is a chance to be wrong, most where
the quantile is near its bound. So an interval of 99.5 % must decide to end the simulation at one of the first three,
and the last one has 96.5 %: all looks together are wrong in 5 %.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from loadtrt.asked.objective import overall
from loadtrt.results.fleet_result import Prediction
from loadtrt.results.run_result import ObjectiveShare
from loadtrt.sizing.batch_simulation import serve
from loadtrt.sizing.demand import POOLED
from loadtrt.sizing.routers import router_of
from loadtrt.sizing.station import Station, completions
from loadtrt.stats.binomial import share_interval
from loadtrt.units import NEVER, SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from loadtrt.asked.objective import Objective, Verdict
    from loadtrt.results.fleet_result import Routing, Ties
    from loadtrt.sizing.batching import Server
    from loadtrt.sizing.demand import Demand
    from loadtrt.sizing.measured_law import Law
    from loadtrt.sizing.routers import Router
    from loadtrt.sizing.station import Floats

_ARRIVALS, _WORK, _ROUTES = 2000, 2001, 2002  # streams of random numbers, apart from all others of a seed
_COUNTED = 20_000  # requests of a replication whose latencies count
_BEYOND = 100  # requests of a replication above the highest quantile, at least
_LEADS = 30  # requests of a replication that count, over those of ten relaxation times, at least
_MOST_COUNTED = 200_000
_STUDENT = {4: 3.182, 8: 2.365, 16: 2.131, 24: 2.241}  # t of 95 % by the streams after which to look; at last 96.5 %
_EARLY = {4: 7.453, 8: 4.029, 16: 3.286, 24: 2.241}  # t of 99.5 %, to end at a verdict; after the last as above
_NORMAL = 1.96
_ENOUGH = 0.1  # of the variance is the simulation's: no longer one decides more
_MANY = 16  # streams before which t is too large to end at that
_LONG = 50_000  # requests of a trace from which each stream is simulated once
_MOST_SETTLING = 500_000  # requests of a lead, in a replication
_RELAXATIONS = 10
_FAR = 100.0  # from a logarithm to the end of its interval, at most
_DROPPED_NS = NEVER / 2  # latencies above are of requests that were dropped


class Spread(NamedTuple):
    """Variances: of the law, of the simulation, and of the law by services that were too rare to be measured."""

    law: float
    simulation: float
    unseen: float = 0.0

    def ends(self, value: float, times: float) -> tuple[float, float]:
        """The interval of a quantile, of whose logarithm these are the variances, of so many standard deviations."""
        law, longer = times * math.sqrt(self.law), times * math.sqrt(self.law + self.unseen)
        simulation = times * math.sqrt(self.simulation)
        below, above = math.hypot(law, simulation / (1 + simulation)), math.hypot(longer, simulation * (1 + simulation))
        return value * math.exp(-min(below, _FAR)), value * math.exp(min(above, _FAR))


def predict(
    demand: Demand,
    law: Law,
    routing: Routing,
    gpus: int,
    objectives: Sequence[Objective],
    seed: int,
    spend: Callable[[int], None] = lambda _: None,
    *,
    ties: Ties = "longest-idle",
    precision: float | None = None,
    looks: Sequence[int] = (),
) -> Prediction:
    """Simulate a fleet of `gpus` GPUs under the demand.

    law: the model of each GPU.
    routing: random and round-robin: all GPUs are alike, so that one is simulated, with its share of the requests;
        otherwise all GPUs are simulated.
    seed: of the replications, each with random numbers of its own, the same for any number of GPUs.
    spend: called before each replication with the number of requests that it simulates; may raise.
    ties: of least-outstanding.
    precision: continue until the simulation's part of every interval is within that share of the quantile; None: until
        the verdict is decided. Ending at a verdict favours quantiles that are far out by chance.
    looks: numbers of streams after which to look, 4, 8, 16 or 24; all of these by default.

    A replication begins empty, and after ten relaxation times of the queue 20 000 requests count, those of 300
    relaxation times, and a hundred above each quantile, but 200 000 at most; of a trace all count. Gaps and work are
    not scaled to their exact means: that halves the noise of the median, but not that of p99, of which it makes too
    little.

    A queue that needs more than half a million requests to reach its steady state is not simulated further: it may
    miss an objective, but does not surely meet one, as it would still grow.
    """
    station = law.station
    lead, enough = lead_of(demand, station, routing, gpus)
    counted = _counted(objectives, _settling(demand, station, routing, gpus))
    length = lead + counted + lead // _RELAXATIONS if demand.instants is None else len(demand.instants)
    paired = law.pair(seed, 0) is not None and (demand.instants is None or length < _LONG)
    parts: list[npt.NDArray[np.int64]] = []
    for streams in looks or _STUDENT:
        for number in range(len(parts) // (1 + paired), streams):
            drawn = law.pair(seed, number) or (station,)
            for each in drawn[: 1 + paired]:
                spend(length)
                parts.append(_replication(demand, each, routing, ties, gpus, seed, number, (lead, counted)))
        together = np.sort(np.concatenate(parts))
        spread_of = partial(_spread, paired=paired, drawn=not paired and law.pair(seed, 0) is not None)
        spreads = [spread_of(_logs(parts, bound.rank), unseen=law.unseen) for bound in objectives]
        shares = [
            _share(bound, parts, together, (spread, spread_of), _STUDENT[streams], enough=enough)
            for bound, spread in zip(objectives, spreads, strict=True)
        ]
        verdict = overall(share.verdict or "undecided" for share in shares) or "met"
        surely = overall(
            _verdict(bound, spread.ends(_value(together, bound.rank), _EARLY[streams]), enough=enough)
            for bound, spread in zip(objectives, spreads, strict=True)
        )
        if precision is not None:
            done = all(_STUDENT[streams] * math.sqrt(spread.simulation) <= precision for spread in spreads)
        else:
            done = streams >= _MANY and all(spread.simulation < _ENOUGH * spread.law for spread in spreads)
        if done or (precision is None and surely != "undecided"):
            break
    p50 = _value(together, 0.5)
    p50_low, p50_high = spread_of(_logs(parts, 0.5), unseen=law.unseen).ends(p50, _STUDENT[streams])
    return Prediction(
        gpus=gpus,
        utilisation=demand.summary.planned_per_s / (gpus * station.most_per_s),
        verdict=verdict,
        objectives=tuple(shares),
        p50_ns=p50,
        p50_low_ns=p50_low,
        p50_high_ns=p50_high,
    )


def _counted(objectives: Sequence[Objective], settling: float) -> int:
    """Requests of a replication that count: enough above the highest quantile, and of many relaxation times, without
    which the quantile of a replication is too low."""
    beyond = max(_BEYOND / (1 - objective.rank) for objective in objectives)
    return max(_COUNTED, min(math.ceil(max(beyond, _LEADS * settling)), _MOST_COUNTED))


def _logs(parts: Sequence[npt.NDArray[np.int64]], rank: float) -> Floats:
    """Logarithms of a quantile of each replication."""
    return np.log([max(_quantile(part, rank), 1.0) for part in parts])


def _quantile(latency: npt.NDArray[np.int64], rank: float) -> float:
    place = math.ceil(rank * len(latency)) - 1
    return float(np.partition(latency, place)[place])


def _spread(values: Floats, *, paired: bool, drawn: bool, unseen: float | None = None) -> Spread:
    """Of the values of replications.

    paired: two in a row differ in the law alone.
    drawn: each has another law, and other random numbers, so that all of their variance counts as the law's.
    unseen: of the law, where they are logarithms of a quantile; None otherwise.
    """
    both = values.reshape(-1, 1 + paired)
    halves, means = (both[:, 0] - both[:, -1]) / 2, both.mean(axis=1)
    if unseen is not None:
        means = -np.expm1(-2 * (means - means.mean())) / 2
    simulation = float(means.var(ddof=1)) / len(means)
    return Spread(float(values.var(ddof=1) if drawn else np.mean(halves**2)), simulation, unseen or 0.0)


def _share(
    bound: Objective,
    parts: Sequence[npt.NDArray[np.int64]],
    together: npt.NDArray[np.int64],
    spreads: tuple[Spread, Callable[..., Spread]],
    times: float,
    *,
    enough: bool,
) -> ObjectiveShare:
    """How an objective fares.

    together: all latencies, sorted.
    spreads: of the quantile's logarithm, and what makes one of other values of replications.
    times: how many deviations the interval's ends are away.
    enough: the queue reaches a steady state.
    """
    count = len(together)
    value = _value(together, bound.rank)
    ends = spreads[0].ends(value, times)
    good = int(np.searchsorted(together, bound.limit_ns, side="right"))
    bad = 1 - good / count
    of_share = spreads[1](np.array([np.mean(part > bound.limit_ns) for part in parts]))
    unseen = spreads[0].unseen * (bad * math.log(bad)) ** 2 if bad else 0.0  # of a tail that falls exponentially
    known = of_share.law + of_share.simulation
    least, effective = (
        min(bad * (1 - bad) / variance * (_NORMAL / times) ** 2, float(count)) if variance and bad else float(count)
        for variance in (known, known + unseen)
    )
    low, high = share_interval(bad, least)[0], share_interval(bad, effective)[1]
    dropped = value > _DROPPED_NS
    bounded = not any(_quantile(part, bound.rank) > _DROPPED_NS for part in parts)
    return ObjectiveShare(
        objective=bound,
        good=good,
        requests=count,
        value_ns=None if dropped else value,
        verdict=_verdict(bound, ends, enough=enough),
        bad_low=low,
        bad_high=high,
        value_low_ns=ends[0] if bounded else None,
        value_high_ns=ends[1] if bounded else None,
        effective=effective,
    )


def _value(together: npt.NDArray[np.int64], rank: float) -> float:
    """The quantile of sorted latencies."""
    return float(together[math.ceil(rank * len(together)) - 1])


def _verdict(bound: Objective, ends: tuple[float, float], *, enough: bool) -> Verdict:
    """Met where the whole interval of the quantile is within the bound, missed where none of it is."""
    if ends[0] > bound.limit_ns:
        return "missed"
    return "met" if enough and ends[1] <= bound.limit_ns else "undecided"


def _replication(
    demand: Demand,
    station: Station | Server,
    routing: Routing,
    ties: Ties,
    gpus: int,
    seed: int,
    number: int,
    size: tuple[int, int],
) -> npt.NDArray[np.int64]:
    """Latencies of the requests that count, ns. size: (the lead, the number of requests that count). Of a trace all
    requests are simulated, GPU by GPU; those before its own lead only fill the queues."""
    work, routes, due = _stream(seed, _WORK, number), _stream(seed, _ROUTES, number), demand.instants
    router, (lead, counted) = router_of(routing, ties, routes), size
    if due is None:
        together = gpus if routing in POOLED else 1
        count = lead + counted + lead // _RELAXATIONS  # later ones slow down those that count
        due = demand.due_at_gpu(routing, gpus, count, _stream(seed, _ARRIVALS, number))
        done = _completed(due, _drawn(station, count, work), station, together, router)
        return _latency(due[lead : lead + counted], done[lead : lead + counted])
    done, works = np.empty(len(due)), _drawn(station, len(due), work)
    if router is not None:
        done[:] = _completed(due, works, station, gpus, router)
    else:
        route = np.arange(len(due)) % gpus
        if routing == "random":
            route = routes.integers(gpus, size=len(due))
        order = np.argsort(route, kind="stable")
        for of_gpu in np.split(order, np.flatnonzero(np.diff(route[order])) + 1):
            done[of_gpu] = _completed(due[of_gpu], works[of_gpu], station)
    return _latency(due[demand.lead :], done[demand.lead :])


def _completed(
    due: Floats,
    drawn: Floats,
    station: Station | Server,
    gpus: int = 1,
    router: Router | None = None,
) -> Floats:
    """Completion instants in s; of requests that are dropped an instant that no run reaches. drawn: as of `_drawn`."""
    if isinstance(station, Station):
        return completions(due, drawn, station, gpus, router)
    completed: Floats = serve(np.rint(due * SECOND_NS).astype(np.int64), drawn, station, gpus, router) / SECOND_NS
    return completed


def _latency(due: Floats, done: Floats) -> npt.NDArray[np.int64]:
    return np.rint((done - due) * SECOND_NS).astype(np.int64)


def _drawn(station: Station | Server, count: int, random: np.random.Generator) -> Floats:
    """The work of each request; of a server that forms batches the ranks of the work of each batch."""
    ranks = random.random(count)
    return station.work(ranks) if isinstance(station, Station) else ranks


def lead_of(demand: Demand, station: Station | Server, routing: Routing, gpus: int) -> tuple[int, bool]:
    """(requests of the initial transient, whether these are enough to reach the steady state): ten relaxation times,
    but half a million at most; and ten times the requests in flight. A trace has its own."""
    if demand.instants is not None:
        return 0, True
    together = gpus if routing in POOLED else 1
    settling = _settling(demand, station, routing, gpus)
    filling = _RELAXATIONS * max(_load(demand, station, gpus) * together, 1) * station.in_flight
    return math.ceil(min(settling, _MOST_SETTLING) + filling), settling <= _MOST_SETTLING


def _settling(demand: Demand, station: Station | Server, routing: Routing, gpus: int) -> float:
    """Requests of ten relaxation times, S / (1 − √ρ)² of one server (M/M/1: Cohen, The single server queue, 1982),
    longer by (Ca² + Cs²)/2 and c times shorter for c servers. A trace has no steady state."""
    if demand.instants is not None:
        return 0.0
    load = _load(demand, station, gpus)
    spread = max((demand.cv2_at_gpu(routing, gpus) + station.cv2) / 2, 1)
    return _RELAXATIONS * load / (1 - math.sqrt(load)) ** 2 * spread


def _load(demand: Demand, station: Station | Server, gpus: int) -> float:
    return demand.summary.planned_per_s / (gpus * station.most_per_s)


def _stream(seed: int, stream: int, number: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(stream, number)))
