"""Latencies of a fleet: simulated until the verdict on its objectives is sure, or up to a limit; or estimated.

The estimate takes closed forms of queueing theory. c: servers, each of which serves μ requests a second; λ: arrival
rate; a = λ/μ: offered load; ρ = a/c: utilisation. Times are seconds. Latency is queueing delay plus service time. Allen
and Cunneen's formula takes contexts for servers, each as slow as when all contexts are busy; with least-outstanding
routing the contexts of all GPUs share one queue.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.asked.objective import overall
from loadtrt.capacity.station import completions
from loadtrt.records.histogram import Histogram
from loadtrt.records.records import COLUMNS, Records
from loadtrt.results.fleet_result import Prediction
from loadtrt.stats.verdict import judge, quantile_ranks
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from loadtrt.asked.objective import Objective
    from loadtrt.capacity.demand import Demand
    from loadtrt.capacity.station import Floats, Station
    from loadtrt.results.fleet_result import Routing
    from loadtrt.results.run_result import ObjectiveShare

_ARRIVALS, _WORK, _ROUTES = 2000, 2001, 2002  # streams of random numbers, apart from all others of a seed
_COUNTED = 50_000  # requests of a replication whose latencies count
_LOOKS = (3, 6, 12, 20)  # numbers of replications after which the verdict is computed
_MOST = 1_000_000  # requests that count, over all replications; twice as many with their leads
_MOST_SETTLING = 500_000  # requests of a lead, in a replication
_RELAXATIONS = 10


def predict(
    demand: Demand,
    station: Station,
    routing: Routing,
    gpus: int,
    objectives: Sequence[Objective],
    seed: int,
    spend: Callable[[int], None] = lambda _: None,
    precision: float | None = None,
) -> Prediction:
    """Simulate a fleet of `gpus` GPUs under the demand.

    station: the model of each GPU.
    routing: random and round-robin: all GPUs are alike, so that one is simulated, with its share of the requests;
        least-outstanding: all GPUs are simulated.
    seed: of the replications, each with random numbers of its own, the same for any number of GPUs.
    spend: called before each replication with the number of requests that it simulates; may raise.
    precision: continue until every objective's quantile is known within that share of itself; None: until the verdict
        is decided. Ending at a verdict favours quantiles that are far out by chance.

    A replication begins empty, and after ten relaxation times of the queue 50 000 requests count; of a trace all
    count. Gaps and work are scaled to their exact means, whose sampling error is half of the noise near saturation.
    There are three replications, and up to twenty while the verdict is undecided. Verdicts and intervals are those of
    measured runs (stats/verdict.py), over all replications one after the other.

    A queue that needs more than half a million requests to reach its steady state is not simulated further: it may
    miss an objective, but does not surely meet one, as it would still grow.
    """
    lead, enough = lead_of(demand, station, routing, gpus)
    simulated = len(demand.instants) if demand.instants is not None else _simulated(lead)
    parts: list[npt.NDArray[np.int64]] = []
    histogram, end = Histogram(), 0
    while True:
        spend(simulated)
        rows = _replication(demand, station, routing, gpus, seed, len(parts), lead)
        rows[:, COLUMNS.index("due") : COLUMNS.index("completed") + 1] += end
        parts.append(rows)
        end = int(rows[-1, COLUMNS.index("due")]) + 1
        histogram.add(Records(rows).completed - Records(rows).due)
        most = len(parts) == _LOOKS[-1] or len(parts) * max(len(rows), simulated / 2) >= _MOST
        if len(parts) in _LOOKS or most:
            records = Records(np.concatenate(parts))
            latency = records.completed - records.due
            shares = [
                judge(objective, records, histogram, int(np.count_nonzero(latency <= objective.limit_ns)), len(records))
                for objective in objectives
            ]
            if not enough:
                unsure = {"verdict": "undecided"}
                shares = [share.model_copy(update=unsure) if share.verdict == "met" else share for share in shares]
            verdict = overall(share.verdict or "undecided" for share in shares) or "met"
            if most or (verdict != "undecided" if precision is None else _spread(shares) <= precision):
                break
    low, high = quantile_ranks(0.5, min(share.effective or 0.0 for share in shares))
    p50, p50_low, p50_high = (None if rank is None else histogram.quantiles((rank,))[0] for rank in (0.5, low, high))
    return Prediction(
        gpus=gpus,
        utilisation=demand.summary.planned_per_s / (gpus * station.most_per_s),
        verdict=verdict,
        objectives=tuple(share.model_copy(update={"reason": None}) for share in shares),  # it advises a longer run
        p50_ns=p50,
        p50_low_ns=p50_low,
        p50_high_ns=p50_high,
    )


def _spread(shares: Sequence[ObjectiveShare]) -> float:
    """The largest half width of a quantile's interval, over the quantile."""
    return max(
        (share.value_high_ns - share.value_low_ns) / 2 / share.value_ns
        if share.value_ns and share.value_low_ns is not None and share.value_high_ns is not None
        else math.inf
        for share in shares
    )


def _replication(
    demand: Demand, station: Station, routing: Routing, gpus: int, seed: int, number: int, lead: int
) -> npt.NDArray[np.int64]:
    work = _stream(seed, _WORK, number)
    if demand.instants is not None:
        return _replay(demand, station, routing, gpus, work, _stream(seed, _ROUTES, number))
    together = gpus if routing == "least-outstanding" else 1
    count = _simulated(lead)
    due = demand.due_at_gpu(routing, gpus, count, _stream(seed, _ARRIVALS, number))
    due *= count * gpus / (together * demand.summary.planned_per_s * due[-1])
    done = np.array(completions(due.tolist(), _work(station, count, work).tolist(), station, together))
    counted = slice(lead, lead + _COUNTED)
    return _rows(due[counted], done[counted])


def _replay(
    demand: Demand,
    station: Station,
    routing: Routing,
    gpus: int,
    work: np.random.Generator,
    routes: np.random.Generator,
) -> npt.NDArray[np.int64]:
    """Simulate all requests of a trace, GPU by GPU; those before `lead` only fill the queues."""
    due = demand.instants
    assert due is not None  # noqa: S101  # the caller looked
    done, works = np.empty(len(due)), _work(station, len(due), work)
    if routing == "least-outstanding":
        done[:] = completions(due.tolist(), works.tolist(), station, gpus)
    else:
        route = np.arange(len(due)) % gpus if routing == "round-robin" else routes.integers(gpus, size=len(due))
        order = np.argsort(route, kind="stable")
        for of_gpu in np.split(order, np.flatnonzero(np.diff(route[order])) + 1):
            done[of_gpu] = completions(due[of_gpu].tolist(), works[of_gpu].tolist(), station)
    return _rows(due[demand.lead :], done[demand.lead :])


def _work(station: Station, count: int, random: np.random.Generator) -> Floats:
    work = station.work(random.random(count))
    work /= work.mean()
    return work


def _simulated(lead: int) -> int:
    """Requests of a replication: its lead, those that count, and later ones, which slow these down."""
    return lead + _COUNTED + lead // _RELAXATIONS


def lead_of(demand: Demand, station: Station, routing: Routing, gpus: int) -> tuple[int, bool]:
    """(requests of the initial transient, whether these are enough to reach the steady state): ten relaxation times,
    S / (1 − √ρ)² of one server (M/M/1: Cohen, The single server queue, 1982), longer by (Ca² + Cs²)/2 and c times
    shorter for c servers, but half a million at most; and ten times the requests in flight. A trace has its own."""
    if demand.instants is not None:
        return 0, True
    together = gpus if routing == "least-outstanding" else 1
    load = demand.summary.planned_per_s / (gpus * station.most_per_s)
    spread = max((demand.cv2_at_gpu(routing, gpus) + station.cv2) / 2, 1)
    settling = _RELAXATIONS * load / (1 - math.sqrt(load)) ** 2 * spread
    filling = _RELAXATIONS * max(load * together, 1) * station.in_flight
    return math.ceil(min(settling, _MOST_SETTLING) + filling), settling <= _MOST_SETTLING


def _rows(due: Floats, done: Floats) -> npt.NDArray[np.int64]:
    """Records with due and completed instants alone; the first is due at 0."""
    rows = np.zeros((len(due), len(COLUMNS)), np.int64)
    rows[:, COLUMNS.index("due")] = np.rint((due - due[0]) * SECOND_NS)
    rows[:, COLUMNS.index("completed")] = np.rint((done - due[0]) * SECOND_NS)
    return rows


def _stream(seed: int, stream: int, number: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(stream, number)))


def erlang_c(servers: int, load: float) -> float:
    """The probability of waiting in M/M/c with offered load a < c (Erlang, 1917); 1 if a ≥ c.

    C = B / (1 − ρ(1 − B)), and Erlang's loss B by B₀ = 1, B_k = a·B_{k−1} / (k + a·B_{k−1}), which is stable for any c.
    """
    if load >= servers:
        return 1.0
    lost = 1.0
    for k in range(1, servers + 1):
        lost = load * lost / (k + load * lost)
    return lost / (1 - load / servers * (1 - lost))


@dataclass(frozen=True, slots=True)
class Waiting:
    """Distribution of the queueing delay: P(wait > t) = share · exp(−t / mean_s). Exact for M/M/c and GI/M/1, an
    approximation otherwise.

    share: probability of waiting at all.
    mean_s: mean delay of those that wait.
    """

    share: float
    mean_s: float

    def latency_tail(self, t: float, services: npt.NDArray[np.float64]) -> float:
        """P(wait + service > t) of service times S, float64 [n], equally likely: the mean of P(wait > t − S)."""
        left = np.maximum(t - services, 0.0)
        waits = self.share * np.exp(-left / self.mean_s) if self.mean_s else np.zeros(len(services))
        return float(np.mean(np.where(services > t, 1.0, waits)))

    def latency_quantile(self, rank: float, services: npt.NDArray[np.float64]) -> float:
        """A quantile of latency, by bisection."""
        high = float(services.max()) + self.mean_s * math.log(max(self.share / (1 - rank), 1.0))
        return falls_below(lambda t: self.latency_tail(t, services), 1 - rank, high)


def allen_cunneen(
    servers: int, rate: float, service_s: float, arrivals_cv2: float, service_cv2: float
) -> Waiting | None:
    """Waits of G/G/c, an approximation (Allen, Probability, statistics and queueing theory, 1978); None where ρ ≥ 1.

        E[W] = C(c, a) / (cμ − λ) · (Ca² + Cs²) / 2        P(W > t) ≈ C(c, a) · exp(−t · C(c, a) / E[W])

    Ca², Cs²: squared coefficients of variation (deviation / mean) of gaps and of service times; 1/μ: `service_s`. Exact
    for M/M/c, and for c = 1 its mean is that of M/G/1 (Pollaczek and Khinchine).
    """
    load = rate * service_s
    if load >= servers:
        return None
    share = erlang_c(servers, load)
    return Waiting(share, (arrivals_cv2 + service_cv2) / 2 * service_s / (servers - load))


def falls_below(falling: Callable[[float], float], level: float, high: float) -> float:
    """The argument in [0, high] at which a falling function reaches `level`, within a millionth of `high`."""
    low, width = 0.0, high
    while high - low > 1e-6 * width:
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > level else (low, middle)
    return high


def estimated_ns(demand: Demand, station: Station, routing: Routing, gpus: int, rank: float) -> float | None:
    """A quantile of latency with `gpus` GPUs; None without a steady state."""
    pooled = gpus if routing == "least-outstanding" else 1
    service_s = station.contexts / station.most_per_s
    rate, cv2 = demand.summary.planned_per_s * pooled / gpus, demand.cv2_at_gpu(routing, gpus)
    waiting = allen_cunneen(station.contexts * pooled, rate, service_s, cv2, station.cv2)
    return None if waiting is None else waiting.latency_quantile(rank, station.works * service_s) * SECOND_NS


def estimated_gpus(
    demand: Demand, station: Station, routing: Routing, objectives: Sequence[Objective], least: int, most: int
) -> int | None:
    """The fewest GPUs from `least` on that meet all objectives; None if `most` do not."""

    def meets(gpus: int) -> bool:
        values = [(estimated_ns(demand, station, routing, gpus, bound.rank), bound.bound_ns) for bound in objectives]
        return all(value is not None and value <= limit for value, limit in values)

    low, high = least - 1, least
    while not meets(high):
        if high >= most:
            return None
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if meets(middle) else (middle, high)
    return high
