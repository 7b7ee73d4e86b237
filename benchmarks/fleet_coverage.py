"""How often the intervals of a fleet hold the truth.

    python -m benchmarks.fleet_coverage [--seeds 100] [--workers 4] [--duration 30s]
    python -m benchmarks.fleet_coverage measured [--seeds 200] [--services 5000] [--only NAME,…]
    python -m benchmarks.fleet_coverage predicted [--searches 40] [--only NAME,…]
    python -m benchmarks.fleet_coverage sampled [--seeds 300] [--services 5000] [--only NAME,…]

The first: of the share of requests beyond a bound and of throughput, of a merged fleet. Each worker is an M/M/1 queue,
or G/M/1 where arrivals are not Poisson, of 200 requests/s that gets 120; or one of constant services, where arrivals
alone vary, that gets 140. The true numbers are the means over all seeds.

The next two: of percentiles of latency, under each routing, with Poisson arrivals and 2, 4 and 8 GPUs of one lane.

- measured: each fleet begins idle and has as many requests as keep its GPUs busy for `services` services each at full
  load. Workers route as one router does that sees all (tests/lanes/test_routing.py), so that a simulation of one deals
  the requests out. Each worker's intervals, and their union, are those of loadtrt.
- predicted: what `plan-capacity` predicts for that fleet, from a `capacity` of 90 s of one simulated GPU.

- sampled: what it predicts of one GPU, from `services` services that were measured one at a time: "at the truth" with
  the true p99 for a bound, near which a simulation takes most looks; otherwise with one that is far away. Of constant
  services nothing is left to measure, so that these rows, and those of `--services 0` (the law is known), tell of the
  simulation alone.

The truth is that of a queue at rest: in closed form for M/M/1 and E_N/M/1, else of the last four fifths of all fleets
that are measured, or of 10 million requests, and 20 million at a load of 0.95. The numbers are % of intervals (95 %)
that hold it. open: % without an upper end. width: the upper over the lower end, the median of those that have both.
below, above: % of intervals of p99 that lie below or above the truth. --only: rows whose names contain one of these.
"""

from __future__ import annotations

import argparse
import math
from functools import cache
from itertools import product
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import loadtrt
from benchmarks.fleet_simulation import constant, exponential
from benchmarks.fleet_simulation import gpu as gpu_of
from benchmarks.machine import machine_line
from benchmarks.queues import gamma_m_1
from loadtrt.asked.objective import parse_objective
from loadtrt.load.dealing import is_even
from loadtrt.loop.compiled import is_compiled, machine_code
from loadtrt.records.histogram import Histogram
from loadtrt.records.records import COLUMNS, Records
from loadtrt.results.breakdown import PERCENTILES
from loadtrt.results.fleet_result import ROUTINGS
from loadtrt.sizing.demand import steady_demand
from loadtrt.sizing.evidence import evidence_of
from loadtrt.sizing.fleet_prediction import predict
from loadtrt.sizing.measured_law import Known, pooled
from loadtrt.sizing.station import latencies
from loadtrt.stats import union
from loadtrt.stats.adding import Adding
from loadtrt.stats.flow_law import flow_of
from loadtrt.stats.merging import merge
from loadtrt.stats.verdict import effective_of
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from loadtrt.results.fleet_result import Prediction, Routing
    from loadtrt.sizing.evidence import Evidence
    from loadtrt.sizing.measured_law import Law
    from loadtrt.sizing.station import Floats, Work

    Instants = npt.NDArray[np.int64]
    Ends = tuple[float | None, float | None]

CONSTANT = {"engine": "simulated:service=5ms,clock=virtual", "per_worker": 140}
LOADS: dict[str, dict[str, Any]] = {
    "Poisson, random": {"routing": "random"},
    "Poisson, round-robin": {"routing": "round-robin"},
    "burstiness 4, random": {"routing": "random", "burstiness": 4},
    "burstiness 4, round-robin": {"routing": "round-robin", "burstiness": 4},
    "constant services, random": {"routing": "random", **CONSTANT, "objective": "latency.p99 < 37ms"},
    "constant services, round-robin": {"routing": "round-robin", **CONSTANT, "objective": "latency.p99 < 12ms"},
}


def fleet(seed: int, workers: int, duration: str, load: dict[str, Any]) -> list[float]:
    """(value, low, high) of the share beyond the objective's bound, and of the throughput in requests/s."""
    usual = {"engine": "simulated:service=5ms,distribution=exponential,clock=virtual", "per_worker": 120}
    options = {**usual, "objective": "latency.p99 < 25ms", **load}
    rate = options.pop("per_worker") * workers
    runs = {
        str(worker): loadtrt.run(
            contexts=1,
            buffers=1,
            warmup="0s",
            rate=rate,
            duration=duration,
            seed=seed,
            worker=f"{worker}/{workers}",
            **options,
        )
        for worker in range(workers)
    }
    model = merge(runs).model
    (share,), rate = model.objectives, model.throughput
    ends = (rate.confidence.low, rate.confidence.high) if rate.confidence else (None, None)
    known = 1 - share.good / share.requests, share.bad_low, share.bad_high, rate.requests_per_s, *ends
    return [np.nan if value is None else value for value in known]


def merged(options: argparse.Namespace) -> None:
    """Print a row for each load."""
    print(f"{options.workers} workers, {options.duration}: % of {options.seeds} intervals (95 %) that hold the truth")
    print(f"{'':31}share beyond  throughput")
    for name, load in LOADS.items():
        rows = np.array([fleet(seed, options.workers, options.duration, load) for seed in range(options.seeds)])
        holds = [
            100 * np.mean((rows[:, at + 1] <= rows[:, at].mean()) & (rows[:, at].mean() <= rows[:, at + 2]))
            for at in (0, 3)
        ]
        print(f"{name:31}{holds[0]:12.0f}{holds[1]:12.0f}", flush=True)


# --- fleets whose requests are routed

SERVICE_NS = 5_000_000
ENGINES = {
    "constant": "simulated:service=5ms,clock=virtual",
    "exponential": "simulated:service=5ms,distribution=exponential,clock=virtual",
    "lognormal": "simulated:service=5ms,cv=1,clock=virtual",
    "CV 0.2": "simulated:service=5ms,cv=0.2,clock=virtual",
    "CV 0.5": "simulated:service=5ms,cv=0.5,clock=virtual",
    "CV 2": "simulated:service=5ms,cv=2,clock=virtual",
}
CVS = {"lognormal": 1.0, "CV 0.2": 0.2, "CV 0.5": 0.5, "CV 2": 2.0}  # of log-normal services
GPUS = (2, 4, 8)
LOADS_OF_A_GPU = (0.6, 0.8, 0.9, 0.95)
NAMES = ("p50", "p95", "p99")
OBJECTIVE = "latency.p99 < 1s"
LONG, MANY = 10_000_000, 2_000_000  # requests of a truth, and of one of its simulations
HIGH, TIMES = 0.95, 2  # the load from which a truth takes so many times as many


class Cell(NamedTuple):
    """A fleet: services, number of GPUs, load of each, routing."""

    services: str
    gpus: int
    load: float
    routing: Routing

    @property
    def name(self) -> str:
        """As a row has it."""
        return f"{self.services:12}{self.gpus:>2}{self.load:>5}  {self.routing:18}"

    def requests(self, count: int, seed: Sequence[int]) -> tuple[Instants, Instants, Instants]:
        """Due instants, ns, of so many requests, their GPUs and their latencies, ns."""
        random = np.random.default_rng(seed)
        due = np.rint(np.cumsum(random.exponential(SERVICE_NS / (self.load * self.gpus), count))).astype(np.int64)
        if self.services == "exponential":
            work = random.exponential(1.0, count)
        elif self.services in CVS:
            variance = math.log1p(CVS[self.services] ** 2)
            work = random.lognormal(-variance / 2, math.sqrt(variance), count)
        else:
            work = np.ones(count)
        service = np.maximum(np.rint(work * SERVICE_NS).astype(np.int64), 1)
        draws = random.integers(self.gpus, size=2 * count if self.routing in ("random", "two-choices") else 0)
        owner, done = np.zeros(count, np.int64), np.zeros(count, np.int64)
        ends, cells = np.zeros((self.gpus, count), np.int64), np.zeros((3, self.gpus), np.int64)
        arguments = due, service, ROUTINGS.index(self.routing), draws, ends, cells, owner, done
        if is_compiled():
            machine_code(deal_out, (), arguments, "the dealing out")(arguments)
        else:
            deal_out(*arguments)
        return due, owner, done - due


def deal_out(due: Any, service: Any, routing: int, draws: Any, ends: Any, cells: Any, owner: Any, done: Any) -> None:
    """Fill in the GPU of each request, and when it is done. numba compiles this.

    routing: its place in ROUTINGS.
    ends: of each GPU, when its requests are done.
    cells: of each GPU, how many it was given, how many of them are done, and when it last was given one or completed
        one.
    """
    given, gone, since = cells
    gpus = len(given)
    for request in range(len(due)):
        now = due[request]
        if routing == 0:
            gpu = draws[2 * request]
        elif routing == 1:
            gpu = request % gpus
        else:
            for each in range(gpus):
                while gone[each] < given[each] and ends[each, gone[each]] <= now:
                    since[each] = max(since[each], ends[each, gone[each]])
                    gone[each] += 1
            if routing == 2:
                gpu, other = draws[2 * request], draws[2 * request + 1]
                if given[other] - gone[other] < given[gpu] - gone[gpu]:
                    gpu = other
            else:
                gpu = 0
                for each in range(1, gpus):
                    more = (given[each] - gone[each]) - (given[gpu] - gone[gpu])
                    if more < 0 or (more == 0 and since[each] < since[gpu]):
                        gpu = each
            since[gpu] = now
        free = ends[gpu, given[gpu] - 1] if given[gpu] else 0
        ends[gpu, given[gpu]] = done[request] = max(now, free) + service[request]
        owner[request] = gpu
        given[gpu] += 1


def truth(cell: Cell, fleets: Sequence[tuple[Instants, Instants, Instants]]) -> dict[str, float]:
    """Percentiles of latency at rest, ns."""
    if cell.services == "exponential" and cell.routing in ("random", "round-robin"):
        shape = cell.gpus if cell.routing == "round-robin" else 1
        mean_s = gamma_m_1(cell.load / SERVICE_NS * SECOND_NS, SERVICE_NS / SECOND_NS, 1 / shape).mean_s
        return {name: -math.log(1 - PERCENTILES[name]) * mean_s * SECOND_NS for name in NAMES}
    latency = np.concatenate([each[len(each) // 5 :] for _, _, each in fleets])
    places = [math.ceil(PERCENTILES[name] * len(latency)) - 1 for name in NAMES]
    latency.partition(places)
    return {name: float(latency[place]) for name, place in zip(NAMES, places, strict=True)}


def measured(cell: Cell, owner: Instants, latency: Instants) -> dict[str, Ends]:
    """The intervals of the percentiles, of the union of all GPUs."""
    whole, adding, ends = Histogram(), Adding(together=is_even(cell.routing)), {}
    whole.add(latency)
    for name in NAMES:
        sizes = []
        for gpu in range(cell.gpus):
            own = latency[owner == gpu]
            place = math.ceil(PERCENTILES[name] * len(own)) - 1
            value = np.partition(own, place)[place]
            sizes.append((len(own), effective_of(own > value, np.minimum(own / value, 1.0))))
        ends[name] = union._quantile_ends(whole, PERCENTILES[name], adding.size(sizes), len(latency))
    return ends


@cache
def searched(services: str, seed: int) -> Evidence:
    """What `loadtrt capacity` finds of one GPU."""
    options: dict[str, Any] = {"contexts": 1, "buffers": 1, "time": "90s", "seed": seed}
    return evidence_of(loadtrt.capacity(engine=ENGINES[services], objective="latency.p99 < 100ms", **options))


@cache
def _predicted(services: str, gpus: int, load: float, routing: Routing, seed: int) -> Prediction:
    demand = steady_demand(load * gpus / SERVICE_NS * SECOND_NS)
    return predict(demand, searched(services, seed).law, routing, gpus, [parse_objective(OBJECTIVE)], seed)


def predicted(cell: Cell, seed: int) -> dict[str, Ends]:
    """The predicted intervals of p50 and p99. Under random routing one GPU stands for all."""
    gpus = 1 if cell.routing == "random" else cell.gpus
    made = _predicted(cell.services, gpus, cell.load, cell.routing, seed)
    (share,) = made.objectives
    return {"p50": (made.p50_low_ns, made.p50_high_ns), "p99": (share.value_low_ns, share.value_high_ns)}


def told_of(ends: Sequence[Ends], true: float) -> tuple[str, str, str]:
    """holds, open, width."""
    held = np.mean([(low or 0.0) <= true <= (high or math.inf) for low, high in ends])
    widths = [high / low for low, high in ends if low and high]
    width = f"×{np.median(widths):.2f}" if widths else "–"
    return f"{100 * held:.0f}", f"{100 * np.mean([high is None for _, high in ends]):.0f}", width


def routed(options: argparse.Namespace) -> None:
    """Print a row for each fleet."""
    names = NAMES if options.what == "measured" else ("p50", "p99")
    of = f"fleets, {options.services} services" if options.what == "measured" else "searches"
    intervals = options.seeds if options.what == "measured" else options.searches
    print(f"{options.what}: % of {intervals} intervals (95 %) that hold the truth; {of}")
    print(f"{'services    GPUs load  routing':37}" + "".join(f"{name:>6}" for name in names) + "  p99: open   width")
    words = options.only.split(",")
    for cell in (Cell(*each) for each in product(ENGINES, GPUS, LOADS_OF_A_GPU, ROUTINGS)):
        if not any(word in cell.name for word in words):
            continue
        if options.what == "measured":
            count = round(options.services * cell.load * cell.gpus)
            fleets = [cell.requests(count, (seed, 5)) for seed in range(options.seeds)]
            true = truth(cell, fleets)
            made = [measured(cell, owner, latency) for _, owner, latency in fleets]
        else:
            simulations = LONG // MANY * (TIMES if cell.load >= HIGH else 1)
            true = truth(cell, [cell.requests(MANY, (seed, 5)) for seed in range(simulations)])
            made = [predicted(cell, 1 + seed) for seed in range(options.searches)]
        rows = [told_of([each[name] for each in made], true[name]) for name in names]
        print(f"{cell.name}{''.join(f'{held:>6}' for held, _, _ in rows)}{rows[-1][1]:>11}{rows[-1][2]:>8}", flush=True)
    print(machine_line())


# --- one GPU, from requests that were measured one at a time


@cache
def normal_grid() -> tuple[Floats, Floats]:
    """Ranks, close together at both ends, and their quantiles of a normal distribution."""
    ends = np.logspace(-9, -2, 700)
    ranks = np.concatenate((ends, np.linspace(0.01, 0.99, 1000)[1:-1], 1 - ends[::-1]))
    return ranks, np.array([NormalDist().inv_cdf(rank) for rank in ranks])


def lognormal(cv: float) -> Work:
    """Work of mean 1 with that CV."""
    variance = math.log1p(cv * cv)
    return lambda ranks: np.exp(math.sqrt(variance) * np.interp(ranks, *normal_grid()) - variance / 2)


WORKS: dict[str, Work] = {
    "constant": constant,
    "CV 0.2": lognormal(0.2),
    "CV 0.5": lognormal(0.5),
    "exponential": exponential,
    "CV 1": lognormal(1.0),
    "CV 2": lognormal(2.0),
}
LOADS_OF_ONE = (0.5, 0.6, 0.8, 0.9, 0.95)


def law_of(services: str, count: int, seed: int) -> Law:
    """The law of one GPU from so many requests, one in flight; the true one of none, or of constant services."""
    work = WORKS[services]
    if not count or services == "constant":
        return Known(gpu_of(1, 0.0, work))
    took = np.rint(work(np.random.default_rng((seed, 7)).random(count)) * SERVICE_NS).astype(np.int64)
    rows = np.zeros((count, len(COLUMNS)), np.int64)
    rows[:, 3] = np.cumsum(np.maximum(took, 1))
    rows[1:, :3] = rows[:-1, 3][:, None]
    flow = flow_of(Records(rows), 1)
    if flow is None:
        raise SystemExit(f"--services {count} are too few: give 64 or more")
    return pooled(1, 1, [flow], [flow])


def truth_of_one(services: str, load: float) -> tuple[float, float]:
    """p50 and p99 at rest, ns."""
    if services == "exponential":
        return math.log(2) * SERVICE_NS / (1 - load), math.log(100) * SERVICE_NS / (1 - load)
    random, work, found = np.random.default_rng(1), WORKS[services], []
    for _ in range(TIMES if load >= HIGH else 1):
        due = np.cumsum(random.exponential(SERVICE_NS / load / SECOND_NS, LONG))
        latency = latencies(due, work(random.random(LONG)), gpu_of(1, 0.0, work))[LONG // 20 :]
        found.append(np.quantile(latency, (0.5, 0.99)) * SECOND_NS)
    p50, p99 = np.mean(found, axis=0).tolist()
    return p50, p99


def sampled(options: argparse.Namespace) -> None:
    """Print two rows for each queue."""
    print(f"sampled: % of {options.seeds} intervals (95 %) that hold the truth; {options.services} services measured")
    print(f"{'services     load  bound':31}{'p50':>6}{'p99':>6}  below  above   width")
    for services, load in product(WORKS, LOADS_OF_ONE):
        name = f"{services:12}{load:>5}"
        if not any(word in f"{services} {load}" for word in options.only.split(",")):
            continue
        p50, p99 = truth_of_one(services, load)
        for where, bound in (("far away", OBJECTIVE), ("at the truth", f"latency.p99 < {p99:.0f}ns")):
            rows = []
            for seed in range(1, options.seeds + 1):
                law = law_of(services, options.services, seed)
                made = predict(
                    steady_demand(load / SERVICE_NS * SECOND_NS), law, "random", 1, [parse_objective(bound)], seed
                )
                low, high = made.objectives[0].value_low_ns or 0.0, made.objectives[0].value_high_ns or math.inf
                median = (made.p50_low_ns or 0.0) <= p50 <= (made.p50_high_ns or math.inf)
                rows.append((median, low <= p99 <= high, high < p99, low > p99, high / low))
            of = np.array(rows)
            shares = 100 * of[:, :4].mean(axis=0)
            held = f"{shares[0]:>6.1f}{shares[1]:>6.1f}{shares[2]:>7.1f}{shares[3]:>7.1f}"
            print(f"{name}  {where:12}{held}  ×{np.median(of[:, 4]):.2f}", flush=True)
    print(machine_line())


def main() -> None:
    """Print a row for each load."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("merged", "measured", "predicted", "sampled"), default="merged")
    parser.add_argument("--seeds", type=int, help="fleets: 100 by default, or 200 of routed ones; 300 samples")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--duration", default="30s")
    parser.add_argument("--services", type=int, default=5000)
    parser.add_argument("--searches", type=int, default=40)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    options.seeds = options.seeds or {"merged": 100, "sampled": 300}.get(options.what, 200)
    {"merged": merged, "sampled": sampled}.get(options.what, routed)(options)


if __name__ == "__main__":
    main()
