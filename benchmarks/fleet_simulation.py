"""How right `plan-capacity` is: its simulation against closed forms, and what better routing saves.

    python -m benchmarks.fleet_simulation [--speed] [--predictions capacity.json] [--json FILE]

**Accuracy.** p99 of latency by simulation, from a Station and a rate alone, beside the closed form of the same
queue: M/M/c, M/D/1, and E_G/M/1, which is round robin.

**Routing.** What most planners do is ⌈Λ / λ_slo⌉, λ_slo the highest Poisson rate at which one GPU meets the objective.
That is right where requests are sent to GPUs at random. The table says what round-robin and least-outstanding need.

**Speed.** --speed shows the processor time of a simulated request alone, in Python and as machine code: of GPUs that
serve each request by itself, that form batches of up to 16, and whose queue is bounded at 16. --predictions shows that
of whole predictions of a measured GPU, 75 % busy: drawing gaps and work, the simulation, and sorting latencies.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.queues import allen_cunneen, gamma_m_1, markov_quantile
from loadtrt.asked.objective import Objective, parse_objective
from loadtrt.environment import environment
from loadtrt.load.request_sizes import parse_batching
from loadtrt.report.result_files import read_result
from loadtrt.results.capacity_result import CapacityResult
from loadtrt.results.engine_info import EngineInfo
from loadtrt.results.fleet_result import ROUTINGS, TIES, Gpu
from loadtrt.sizing import fleet_plan
from loadtrt.sizing import station as of_station
from loadtrt.sizing.batch_simulation import serve
from loadtrt.sizing.batching import Server
from loadtrt.sizing.demand import fewest_for, steady_demand
from loadtrt.sizing.evidence import Evidence, evidence_of
from loadtrt.sizing.fleet_plan import plan_fleet
from loadtrt.sizing.fleet_prediction import predict
from loadtrt.sizing.measured_law import Known
from loadtrt.sizing.routers import router_of
from loadtrt.sizing.station import Station, completions, station
from loadtrt.units import SECOND_NS, plural

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadtrt.results.fleet_result import Routing
    from loadtrt.sizing.station import Floats, Work

SERVICE_S = 0.005
PRECISION = 0.01
FULL = 0.97  # the most a GPU may be busy in the second table: above, hardly anything is ever met


@dataclass(frozen=True)
class Accuracy:
    """p99 of latency over the mean service time, by law and by simulation, with the simulation's 95 % interval."""

    queue: str
    load: float
    law: float
    simulated: float
    low: float
    high: float


@dataclass(frozen=True)
class Saving:
    """GPUs that a demand of 20 times what one GPU can serve needs. one_gpu: λ_slo over the most that it serves."""

    gpu: str
    objective: str
    one_gpu: float
    by_capacity: int
    needed: dict[str, int | None]
    seconds: float


def exponential(ranks: Floats) -> Floats:
    """Work of mean 1 and CV 1."""
    return -np.log1p(-ranks)


def constant(ranks: Floats) -> Floats:
    """Work of mean 1 and CV 0."""
    return np.ones_like(ranks)


def lognormal(cv: float) -> Work:
    """Work of mean 1 with that CV."""
    variance = math.log1p(cv * cv)
    grid = np.linspace(1e-7, 1 - 1e-7, 20_001)
    normal = np.array([NormalDist().inv_cdf(rank) for rank in grid])
    values = np.exp(math.sqrt(variance) * normal - variance / 2)

    def work(ranks: Floats) -> Floats:
        return np.interp(ranks, grid, values)

    return work


def gpu(contexts: int, contention: float, work: Work, buffers: int = 1, service_s: float = SERVICE_S) -> Station:
    """As `simulated:contention=…`: n lanes finish n / (1 + contention·(n − 1)) times the work of one."""

    def throughput(n: int) -> float:
        lanes = min(n, contexts)
        return lanes / (1 + contention * (lanes - 1)) / service_s

    return station(contexts, buffers, throughput, work)


def accuracy(
    queue: str, load: float, law_s: float, each: Station, routing: Routing = "random", gpus: int = 1
) -> Accuracy:
    """The queue simulated beside its law."""
    bound = Objective("latency.p99", 0, 0.99, round(law_s * SECOND_NS))
    demand = steady_demand(load * gpus * each.most_per_s)
    predicted = predict(demand, Known(each), routing, gpus, [bound], 1, precision=PRECISION).objectives[0]
    values = [
        math.nan if value is None else value / SECOND_NS / SERVICE_S
        for value in (predicted.value_ns, predicted.value_low_ns, predicted.value_high_ns)
    ]
    return Accuracy(queue, load, law_s / SERVICE_S, *values)


def against_laws() -> Iterator[Accuracy]:
    """Queues that have a closed form."""
    for contexts in (1, 4, 8):
        for load in (0.5, 0.8, 0.9):
            waiting = allen_cunneen(contexts, load * contexts / SERVICE_S, SERVICE_S, 1.0, 1.0)
            if waiting is not None:
                law = markov_quantile(0.99, waiting, SERVICE_S)
                yield accuracy(f"M/M/{contexts}", load, law, gpu(contexts, 0.0, exponential))
    for load in (0.5, 0.8, 0.9):
        yield accuracy("M/D/1", load, m_d_1(load, 0.99) * SERVICE_S, gpu(1, 0.0, constant))
    for gpus in (4, 16):
        for load in (0.5, 0.8, 0.9):
            law = gamma_m_1(load / SERVICE_S, SERVICE_S, 1 / gpus).mean_s * math.log(100)
            yield accuracy(f"E{gpus}/M/1", load, law, gpu(1, 0.0, exponential), "round-robin", gpus)


def m_d_1(load: float, rank: float) -> float:
    """Quantile of latency over the service time: P(W ≤ t) = (1 − ρ) Σ_{k ≤ t} (ρ(k − t))^k / k! · e^{−ρ(k − t)}."""

    def waits_less(t: float) -> float:
        terms = [(load * (k - t)) ** k / math.factorial(k) * math.exp(-load * (k - t)) for k in range(int(t) + 1)]
        return (1 - load) * math.fsum(terms)

    low, high = 0.0, 20.0  # beyond, the sum's terms cancel to nothing
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if waits_less(middle) < rank else (low, middle)
    return high + 1


def savings() -> Iterator[Saving]:
    """For several GPUs and bounds."""
    kinds = {
        "1 context, constant": gpu(1, 0.0, constant),
        "1 context, CV 0.2": gpu(1, 0.0, lognormal(0.2)),
        "4 contexts, contention 0.5, CV 0.2": gpu(4, 0.5, lognormal(0.2)),
        "4 contexts, contention 0.5, CV 1": gpu(4, 0.5, lognormal(1.0)),
    }
    for name, each in kinds.items():
        alone_ns = float(np.quantile(each.works, 0.99)) * SERVICE_S * SECOND_NS
        for times in (1.5, 2, 4):
            objective = parse_objective(f"latency.p99 < {round(times * alone_ns)}ns")
            yield saving(name, each, objective, f"p99 < {times:g} × alone")


def saving(name: str, each: Station, objective: Objective, words: str) -> Saving:
    """One row of the table."""
    gpu = Gpu(
        contexts=each.contexts,
        buffers=1,
        batch=1,
        speeds=(),
        most_per_s=each.most_per_s,
        alone_mean_ns=SERVICE_S * SECOND_NS,
        alone_cv=math.sqrt(each.cv2),
    )
    engine = EngineInfo("simulated", name, "", "", "", "", 1, ())
    evidence = Evidence(engine, Known(each), gpu, {}, (), None, (), ())
    demand, began = steady_demand(20 * each.most_per_s), time.process_time()
    plan = plan_fleet(evidence, demand, [objective], max_utilisation=FULL)
    seconds = time.process_time() - began
    highest = highest_rate(each, objective)
    return Saving(
        name,
        words,
        highest / each.most_per_s,
        fewest_for(20 * each.most_per_s, highest),
        {choice.routing: choice.needed for choice in plan.choices},
        seconds,
    )


def highest_rate(each: Station, objective: Objective) -> float:
    """λ_slo: the highest Poisson rate at which one GPU meets the objective for sure, within half a percent."""
    low, high = 0.0, FULL * each.most_per_s
    while high - low > 0.005 * each.most_per_s:
        middle = (low + high) / 2
        met = predict(steady_demand(middle), Known(each), "random", 1, [objective], 1).verdict == "met"
        low, high = (middle, high) if met else (low, middle)
    return low or high


def ties_table() -> Iterator[str]:
    """p99 over the mean service time with 20 GPUs of one context, by what least-outstanding does with ties."""
    for name, work in (("constant", constant), ("exponential", exponential)):
        for load in (0.8, 0.95):
            cells = []
            for ties in TIES:
                random = np.random.default_rng(3)
                due = np.cumsum(random.exponential(SERVICE_S / (20 * load), 100_000))
                works = work(random.random(len(due)))
                router = router_of("least-outstanding", ties, random)
                done = completions(due, works, gpu(1, 0.0, work), 20, router)
                cells.append(f"{float(np.quantile((done - due)[10_000:], 0.99)) / SERVICE_S:>15.2f}")
            yield f"{name:<24}{100 * load:>4.0f} %{''.join(cells)}"


def speed_table() -> Iterator[str]:
    """Of 90 % busy GPUs with exponential work."""
    fleets: list[tuple[int, Routing]] = [(1, "random"), (20, "two-choices")]
    fleets += [(20, "least-outstanding"), (500, "least-outstanding")]
    for gpus, routing in fleets:
        for contexts, buffers in ((1, 1), (4, 2)):
            model = gpu(contexts, 0.0, exponential, buffers)
            yield speed_row("", model, gpus, routing)
    for queue, batcher, room in (("batches", parse_batching("max=16,delay=2ms"), None), ("bounded", None, 16)):
        for gpus, routing in (fleets[0], fleets[2]):
            for contexts, buffers in ((1, 1), (4, 2)):
                sizes = batcher.sizes if batcher else (1,)
                # A batch of b takes (10 + b) / 11 of the time of a single request.
                slower = {size: (10 + size) / 11 for size in sizes}
                models = {size: gpu(contexts, 0.0, exponential, buffers, SERVICE_S * slower[size]) for size in sizes}
                yield speed_row(queue, Server(models, batcher, room), gpus, routing)


def speed_row(queue: str, model: Station | Server, gpus: int, routing: Routing) -> str:
    """Processor time of a request, µs, in Python and as machine code."""
    random = np.random.default_rng(5)
    due = np.cumsum(random.exponential(1 / (0.9 * gpus * model.most_per_s), 200_000))
    ranks = random.random(len(due))
    router = router_of(routing, "longest-idle", random)

    def simulate(requests: int) -> None:
        if isinstance(model, Station):
            completions(due[:requests], exponential(ranks[:requests]), model, gpus, router)
        else:
            serve(np.rint(due[:requests] * SECOND_NS).astype(np.int64), ranks[:requests], model, gpus, router)

    cells = []
    for pays in (math.inf, -1):
        of_station._PAYS = pays  # type: ignore[assignment]
        simulate(10)  # numba is imported
        began = time.process_time()
        simulate(len(due))
        cells.append((time.process_time() - began) / len(due) * 1e6)
    name = f"{plural(gpus, 'GPU')}, {routing}"
    return f"{name:<28}{queue:<8}{model.contexts:>9}{model.buffers:>8}{cells[0]:>9.2f}{cells[1]:>14.2f}"


def prediction_rows(file: Path) -> Iterator[str]:
    """Processor time of predictions, in Python and as machine code: µs a request, and s of the most that a plan
    simulates for one routing policy."""
    law, objectives = evidence_of(read_result(CapacityResult, file)).law, [parse_objective("latency.p99 < 1s")]
    fleets: list[tuple[int, Routing]] = [(1, "random"), (20, "round-robin"), (20, "two-choices")]
    for gpus, routing in (*fleets, (20, "least-outstanding"), (300, "least-outstanding")):
        demand, cells = steady_demand(0.75 * gpus * law.station.most_per_s), []
        for pays in (math.inf, -1):
            of_station._PAYS = pays  # type: ignore[assignment]
            requests: list[int] = []
            predict(demand, law, routing, gpus, objectives, 1, looks=(4,))  # numba is imported
            began = time.process_time()
            predict(demand, law, routing, gpus, objectives, 1, requests.append, looks=(4,))
            cells.append((time.process_time() - began) / sum(requests))
        name, most = f"{plural(gpus, 'GPU')}, {routing}", fleet_plan._MOST_SIMULATED
        each = f"{cells[0] * 1e6:>9.2f}{cells[1] * 1e6:>14.2f}"
        yield f"{name:<28}{each}{cells[0] * most:>11.0f}{cells[1] * most:>14.0f}"


def show(title: str, law: str, rows: Iterator[Accuracy]) -> list[Accuracy]:
    """Print a table as it is made."""
    print(f"\n{title}\n{'':24}{'load':>6}{law:>10}{'simulated':>11}{'95 %':>18}{'simulation off by':>20}")
    shown = []
    for row in rows:
        shown.append(row)
        interval = f"{row.low:.2f} .. {row.high:.2f}"
        print(
            f"{row.queue:<24}{100 * row.load:>4.0f} %{row.law:>10.2f}{row.simulated:>11.2f}{interval:>18}"
            f"{100 * (row.simulated / row.law - 1):>+18.1f} %",
            flush=True,
        )
    print(f"law within the interval: {sum(row.low <= row.law <= row.high for row in shown)} of {len(shown)}")
    return shown


def main() -> None:
    """Print the tables, and the machine they were made on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rows there too")
    parser.add_argument("--speed", action="store_true", help="show the processor time of a request alone")
    parser.add_argument("--predictions", type=Path, metavar="FILE", help="show that of predictions for this GPU")
    options = parser.parse_args()
    machine = environment()
    print(f"{machine['cpu']}, {machine['cores']} cores, CPython {machine['python']}, numpy {np.__version__}")
    if options.speed:
        print(f"\nprocessor time of a request, µs\n{'':<28}queue    contexts buffers   Python  machine code")
        for line in speed_table():
            print(line, flush=True)
        return
    if options.predictions:
        most = f"s of {fleet_plan._MOST_SIMULATED // 10**6} million"
        print(f"\nprocessor time of predictions{'µs of a request':>23}{most:>25}")
        print(f"{'':<28}{'Python':>9}{'machine code':>14}{'Python':>11}{'machine code':>14}")
        for line in prediction_rows(options.predictions):
            print(line, flush=True)
        return
    laws = show("p99 of latency ÷ mean service time: closed forms", "law", against_laws())
    print(
        f"\np99 ÷ mean service time, 20 GPUs of one context, by --ties\n{'':24}{'load':>6}"
        + "".join(f"{ties:>15}" for ties in TIES)
    )
    for line in ties_table():
        print(line, flush=True)
    print("\nGPUs for 20 times what one GPU can serve, Poisson arrivals, at most 97 % busy")
    header = f"{'one GPU':<36}{'objective':<19}{'λ_slo':>6}{'⌈Λ/λ_slo⌉':>11}"
    print(header + "".join(f"{name:>19}" for name in ROUTINGS))
    plans = []
    for row in savings():
        plans.append(row)
        cells = "".join(f"{row.needed[name] or '–':>19}" for name in ROUTINGS)
        print(f"{row.gpu:<36}{row.objective:<19}{100 * row.one_gpu:>4.0f} %{row.by_capacity:>11}{cells}", flush=True)
    print(f"processor time of a plan of three routings: {np.median([row.seconds for row in plans]):.0f} s (median)")
    if options.json:
        rows: dict[str, Sequence[Accuracy] | Sequence[Saving]] = {"laws": laws, "savings": plans}
        text = json.dumps(
            {"machine": machine, **{key: list(map(asdict, each)) for key, each in rows.items()}}, indent=1
        )
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
