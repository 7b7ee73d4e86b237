"""Latencies of a fleet: simulated until the verdict on its objectives is sure, or up to a limit; estimated by closed
forms; and the simulation's predictions for one GPU against measurements of that GPU.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.asked.load import Rate
from loadtrt.asked.objective import Objective, overall
from loadtrt.capacity.demand import steady_demand
from loadtrt.capacity.station import allen_cunneen, completions
from loadtrt.load.arrivals import Gamma
from loadtrt.records.histogram import Histogram
from loadtrt.records.records import COLUMNS, Records
from loadtrt.results.breakdown import PERCENTILES
from loadtrt.results.fleet_result import Comparison, Prediction
from loadtrt.stats.margin import least_samples
from loadtrt.stats.verdict import judge, quantile_ranks
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt

    from loadtrt.capacity.demand import Demand
    from loadtrt.capacity.evidence import Evidence
    from loadtrt.capacity.station import Floats, Station
    from loadtrt.results.fleet_result import Routing
    from loadtrt.results.run_result import ObjectiveShare, RunResult

_ARRIVALS, _WORK, _ROUTES = 2000, 2001, 2002  # streams of random numbers, apart from all others of a seed
_COUNTED = 50_000  # requests of a replication whose latencies count
_LOOKS = (3, 6, 12, 20)  # numbers of replications after which the verdict is computed
_MOST = 1_000_000  # requests that count, over all replications; twice as many with their leads
_MOST_SETTLING = 500_000  # requests of a lead, in a replication
_RELAXATIONS = 10
_CHECKED = 0.03  # precision of quantiles that are compared with measured ones
_FULL = 0.99  # utilisation above which no run reaches a steady state


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
    """Records of the requests that count. Of a trace all requests are simulated, GPU by GPU; those before its own lead
    only fill the queues."""
    work, due = _stream(seed, _WORK, number), demand.instants
    if due is None:
        together = gpus if routing == "least-outstanding" else 1
        count = _simulated(lead)
        due = demand.due_at_gpu(routing, gpus, count, _stream(seed, _ARRIVALS, number))
        due *= count * gpus / (together * demand.summary.planned_per_s * due[-1])
        done = np.array(completions(due.tolist(), _work(station, count, work).tolist(), station, together))
        return _rows(due[lead : lead + _COUNTED], done[lead : lead + _COUNTED])
    done, works = np.empty(len(due)), _work(station, len(due), work)
    if routing == "least-outstanding":
        done[:] = completions(due.tolist(), works.tolist(), station, gpus)
    else:
        route = np.arange(len(due)) % gpus
        if routing == "random":
            route = _stream(seed, _ROUTES, number).integers(gpus, size=len(due))
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


def estimated_ns(demand: Demand, station: Station, routing: Routing, gpus: int, rank: float) -> float | None:
    """A quantile of latency with `gpus` GPUs, by Allen and Cunneen's formula; None without a steady state. Contexts are
    taken for servers, each as slow as when all contexts are busy; with least-outstanding routing the contexts of all
    GPUs share one queue."""
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


def compare(
    evidence: Evidence,
    objectives: Sequence[Objective],
    seed: int,
    say: Callable[[str], None],
    spend: Callable[[int], None],
) -> Iterator[Comparison]:
    """Compare each quantile that an objective bounds in each run that measured it: closed loops, then open ones.

    For a closed loop of n requests, one per lane, the prediction is exact: latency is W · n / X(n). An open loop is
    simulated.
    """
    ranks = sorted({objective.rank for objective in objectives})
    station = evidence.station
    for n, run in sorted(evidence.closed.items()):
        for rank in ranks if n > 1 else ():  # n = 1 defines W
            measured = _measured(run, rank)
            if measured is not None:
                place = min(int(rank * len(station.works)), len(station.works) - 1)
                exact_ns = float(station.works[place]) / station.speeds[n][n] * SECOND_NS
                yield _comparison(run, rank, measured, exact_ns, None, None, in_flight=n)
    for run in sorted(evidence.open, key=lambda run: run.model.throughput.offered_per_s or 0):
        model = run.config.model
        load = model.load
        # Stages, traces and bursts have no steady state; the model has no batcher and no bounded queue.
        if not isinstance(load, Rate) or load.bursts or model.batcher or model.max_queue is not None:
            continue
        say(f"predicting the measured run at {load.rate:g}/s on one GPU")
        for rank in ranks:
            measured = _measured(run, rank)
            if measured is None:
                continue
            demand = steady_demand(load.rate, burstiness=load.cv)
            if load.rate >= _FULL * station.most_per_s or not lead_of(demand, station, "random", 1)[1]:
                yield _comparison(run, rank, measured, None, None, None)
                continue
            bound = Objective(f"latency.p{100 * rank:g}", 0, rank, round(measured))
            predicted = predict(demand, station, "random", 1, [bound], seed, spend, _CHECKED).objectives[0]
            low_ns, high_ns = predicted.value_low_ns, predicted.value_high_ns
            yield _comparison(run, rank, measured, predicted.value_ns, low_ns, high_ns)


def other_arrivals(evidence: Evidence, demand: Demand) -> Iterator[str]:
    """A note if the capacity was measured with burstier arrivals than the plan assumes."""
    if evidence.capacity is None or demand.summary.arrivals != "poisson":
        return
    loads = {load for run in evidence.open if isinstance(load := run.config.model.load, Rate)}
    for bursts in sorted({load.bursts for load in loads if load.bursts}):
        yield f"the measured capacity is for bursts of {bursts}, this plan is for Poisson arrivals: give a --trace"
    for cv in sorted({load.cv for load in loads if not load.bursts and isinstance(load.process, Gamma)}):
        yield f"the measured capacity is for burstiness {cv:g}, this plan is for Poisson arrivals: give --burstiness"


def _measured(run: RunResult, rank: float) -> float | None:
    """The quantile of latency; None if the sample is too small."""
    if "latency" not in run.model.metrics or "latency" not in run.model.histograms:
        return None
    for name, known in PERCENTILES.items():
        if known == rank:
            return run.model.metrics["latency"].percentiles_ns[name]
    histogram = Histogram.from_dict(run.model.histograms["latency"])
    return histogram.quantiles((rank,))[0] if histogram.count >= least_samples(rank) else None


def _comparison(
    run: RunResult,
    rank: float,
    measured: float,
    predicted: float | None,
    low: float | None,
    high: float | None,
    in_flight: int | None = None,
) -> Comparison:
    interval = run.model.metrics["latency"].confidence.get(f"p{100 * rank:g}")
    measured_low, measured_high = (interval.low, interval.high) if interval else (None, None)
    within = None
    if measured_low is not None and predicted is not None:
        within = (low or predicted) <= (measured_high or math.inf) and measured_low <= (high or predicted)
    return Comparison(
        rate_per_s=run.model.throughput.offered_per_s if in_flight is None else None,
        in_flight=in_flight,
        arrivals=run.config.model.load.options()["arrivals"],
        rank=rank,
        measured_ns=measured,
        measured_low_ns=measured_low,
        measured_high_ns=measured_high,
        predicted_ns=predicted,
        predicted_low_ns=low,
        predicted_high_ns=high,
        error=None if predicted is None else predicted / measured - 1,
        within=within,
    )
