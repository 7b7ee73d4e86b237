"""How well `loadtrt capacity` finds the capacity of queues whose true one is known, at its defaults.

    python -m benchmarks.capacity [--seeds 50] [--quick] [--processes N] [--only M/M/1,PS] [--json FILE]

Simulated engines in virtual time, and an objective on p99 of latency. The true capacity is the arrival rate at which
1 % of requests are later than the bound. Laws of latency T:

M/M/c, c contexts, first come, first served: P(T > t) by Erlang's formula (benchmarks/queues.py).
M/D/1, one context: P(T > t) = 1 − (1 − ρ) Σ_k (−λ(w − kS))^k / k! · e^{λ(w − kS)}, w = t − S, k = 0 … ⌊w/S⌋ (Erlang,
1909; Crommelin, 1932), summed in decimals, for its terms alternate.
Processor sharing, 64 contexts with contention 1, exponential work: a request that finds n others leaves at the rate
μ/(n + 1), another one at μn/(n + 1), and one comes at λ (Coffman, Muntz and Trotter, 1970): P(T > t) by uniformization
of that chain from n geometric with ρ (Jensen, 1953), n cut at 400.
Others, with one context or two: the recursion of Kiefer and Wolfowitz (1955) over six million requests, whose
standard error moves the capacity by less than 0.5 %.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
from collections import Counter
from dataclasses import asdict, dataclass
from decimal import Decimal, localcontext
from functools import cached_property, partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.queues import Waiting, erlang_c, markov_tail
from loadtrt.asked.reading import load_config
from loadtrt.environment import environment
from loadtrt.runs.watched import Silence
from loadtrt.sizing.find import Finder
from loadtrt.sizing.rig import Rig
from loadtrt.sizing.wanted import QUICK_NS, TIME_NS, Wanted
from loadtrt.units import SECOND_NS, format_count, format_duration

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Service = Callable[[np.random.Generator, int], Floats]

ALLOWED = 0.01
SHARERS, MOST_JOBS = 64, 400
REQUESTS, REPLICATIONS, STEPS = 1_000_000, 6, 13
UNSAFE = 3.0  # rate that missed over rate that met, above which an answer must not be "found"


def markovian(servers: int, service_s: float, rate: float, t: float) -> float:
    """P(T > t) of M/M/c."""
    offered = rate * service_s
    if offered >= servers:
        return 1.0
    return markov_tail(t, Waiting(erlang_c(servers, offered), service_s / (servers - offered)), service_s)


def deterministic(service_s: float, rate: float, t: float) -> float:
    """P(T > t) of M/D/1."""
    load, waited = rate * service_s, t / service_s - 1
    if waited < 0 or load >= 1:
        return 1.0
    with localcontext() as context:
        context.prec = 100
        total = Decimal(0)
        for k in range(math.floor(waited) + 1):
            left = Decimal(load) * (Decimal(waited) - k)
            total += ((-left) ** k if k else 1) / Decimal(math.factorial(k)) * left.exp()
        return float(1 - (1 - Decimal(load)) * total)


def sharing(service_s: float, rate: float, t: float) -> float:
    """P(T > t) of M/M/1 with processor sharing; time in units of the service time, uniformized at the rate λ + μ."""
    load = rate * service_s
    if load >= 1:
        return 1.0
    others = np.arange(MOST_JOBS)
    arrive, leave, done = np.full(MOST_JOBS, load), others / (others + 1), 1 / (others + 1)
    arrive[-1] = 0.0
    jump = load + 1
    present = (1 - load) * load**others
    mean = jump * t / service_s
    weight, tail = -mean, 0.0  # the logarithm of a Poisson probability
    for jumps in range(1, int(mean + 12 * math.sqrt(mean) + 30)):
        tail += math.exp(weight) * float(present.sum())
        following = present * (1 - (arrive + leave + done) / jump)
        following[1:] += present[:-1] * arrive[:-1] / jump
        following[:-1] += present[1:] * leave[1:] / jump
        present = following
        weight += math.log(mean / jumps)
    return tail


def recursion(servers: int, service: Service, cv: float, rate: float, t: float) -> float:
    """P(T > t) with any service times, gaps of that coefficient of variation, and one queue, by simulation."""
    late = 0.0
    for seed in range(REPLICATIONS):
        random = np.random.default_rng(seed)
        due = np.cumsum(random.gamma(cv**-2, cv**2, REQUESTS)) / rate
        works = service(random, REQUESTS)
        if servers == 1:
            done = np.cumsum(works)
            latency = np.maximum.accumulate(due - np.concatenate(([0.0], done[:-1]))) + done - due
        else:
            free = [0.0] * servers
            latency = np.empty(REQUESTS)
            for place, (at, work) in enumerate(zip(due.tolist(), works.tolist(), strict=True)):
                end = max(heapq.heappop(free), at) + work
                heapq.heappush(free, end)
                latency[place] = end - at
        late += float(np.mean(latency[REQUESTS // 50 :] > t)) / REPLICATIONS
    return late


def lognormal(mean_s: float, cv: float) -> Service:
    """Service times with that mean and coefficient of variation."""
    variance = math.log1p(cv * cv)
    return lambda random, n: mean_s * np.exp(math.sqrt(variance) * random.standard_normal(n) - variance / 2)


def mixed(random: np.random.Generator, n: int) -> Floats:
    """2 ms and 1 ms for each item, of 1 item or of 8."""
    return np.asarray(0.002 + 0.001 * random.choice([1, 8], p=[0.7, 0.3], size=n))


@dataclass(frozen=True)
class System:
    """A queue: its name, options of its engine and load, the most that it serves, P(T > t | rate) and the bound."""

    name: str
    options: dict[str, object]
    most_per_s: float
    tail: Callable[[float, float], float]
    bound_ms: float
    burstiness: float = 1.0

    @cached_property
    def capacity(self) -> float:
        """Requests a second."""
        low, high = 0.0, self.most_per_s
        for _ in range(STEPS):
            middle = (low + high) / 2
            low, high = (middle, high) if self.tail(middle, self.bound_ms / 1000) <= ALLOWED else (low, middle)
        return (low + high) / 2


def systems() -> list[System]:
    """Queues of all kinds, with loads at the capacity from 11 % to 86 %."""
    exponential = "distribution=exponential"

    def of(engine: str, contexts: int = 1, buffers: int = 2, **options: object) -> dict[str, object]:
        engine = f"simulated:{engine},clock=virtual"
        return {"engine": engine, "contexts": contexts, "buffers": buffers, **options}

    return [
        System("M/M/1", of(f"service=10ms,{exponential}"), 100, partial(markovian, 1, 0.01), 100),
        System("CV 0.2", of("service=10ms,cv=0.2"), 100, partial(recursion, 1, lognormal(0.01, 0.2), 1), 40),
        System("M/D/1", of("service=5ms"), 200, partial(deterministic, 0.005), 30),
        System("mix", of("service=2ms,item=1ms", mix="1:0.7, 8:0.3"), 196, partial(recursion, 1, mixed, 1), 50),
        System("CV 1", of("service=10ms,cv=1"), 100, partial(recursion, 1, lognormal(0.01, 1), 1), 100),
        System("CV 3", of("service=10ms,cv=3"), 100, partial(recursion, 1, lognormal(0.01, 3), 1), 200),
        System("M/M/2", of(f"service=5ms,{exponential}", 2, 1), 400, partial(markovian, 2, 0.005), 24),
        System("M/M/4", of(f"service=10ms,{exponential}", 4, 1), 400, partial(markovian, 4, 0.01), 80),
        System("PS", of(f"service=1ms,{exponential},contention=1", SHARERS, 1), 1000, partial(sharing, 0.001), 24),
        System("bursts", of("service=5ms,cv=0.2", 2, 1), 400, partial(recursion, 2, lognormal(0.005, 0.2), 4), 80, 4),
    ]


@dataclass(frozen=True)
class Searched:
    """One search. Rates are over the true capacity.

    estimate, low, high: the estimate and its interval; None for an end that is not known.
    confirmed, missed: the confirmed rate, and the lowest one that missed.
    seconds: duration of its runs.
    """

    answer: str
    estimate: float
    low: float | None
    high: float | None
    confirmed: float | None
    missed: float | None
    seconds: float
    runs: int

    @property
    def covers(self) -> bool:
        """Whether the interval holds the truth."""
        return (self.low or 0.0) <= 1 <= (self.high or math.inf)


def search(system: System, seed: int, *, quick: bool) -> Searched:
    """One search for the system's capacity."""
    objective = [f"latency.p99 < {system.bound_ms:g}ms"]
    options = {**system.options, "warmup": 0, "seed": seed, "objective": objective}
    arrivals = {"arrivals": "poisson"} if system.burstiness == 1 else {"arrivals": "gamma", "burstiness": 4.0}
    wanted = Wanted(
        config=load_config(None, options),
        load=arrivals,
        contexts=(int(str(system.options["contexts"])),),
        batches=(None,),
        time_ns=QUICK_NS if quick else TIME_NS,
        quick=quick,
    )
    talks = Silence()
    with Rig(talks) as rig:
        finder = Finder(wanted, rig, talks, lambda _: None)
        finder.make()
        if rig.stopped:
            raise KeyboardInterrupt
    only, true = finder.result.candidates[0], system.capacity
    ends = (only.low_per_s, only.high_per_s, only.confirmed_per_s, only.infeasible_min_per_s)
    low, high, confirmed, missed = (None if rate is None else rate / true for rate in ends)
    return Searched(
        answer=only.answer or "",
        estimate=(only.estimate_per_s or 0.0) / true,
        low=low,
        high=high,
        confirmed=confirmed,
        missed=missed,
        seconds=sum(trial.run.phases.measure_ns for trial in only.trials if trial.run) / SECOND_NS,
        runs=len(only.trials),
    )


def row_of(system: System, searches: list[Searched]) -> str:
    """Medians and worst cases over the seeds."""
    confirmed = [each.confirmed for each in searches if each.confirmed is not None]
    estimates = [each.estimate for each in searches]
    answers = Counter(each.answer for each in searches)
    unsafe = sum(
        each.answer == "found" and (each.missed or 0.0) > UNSAFE * (each.confirmed or math.inf) for each in searches
    )
    decided = answers["found"] + answers["estimated"], answers["undecided"], answers["infeasible"]
    held = 100 * sum(each.covers for each in searches) / len(searches)
    of_confirmed = f"{median(confirmed):>9.2f}{min(confirmed):>7.2f}" if confirmed else f"{'–':>9}{'–':>7}"
    return (
        f"{system.name:<8}{system.bound_ms:>5.0f} ms{format_count(system.capacity):>8}/s"
        f"{decided[0]:>8}{decided[1]:>11}{decided[2]:>12}{of_confirmed}{sum(rate > 1 for rate in confirmed):>7}"
        f"{median(estimates):>11.2f}{min(estimates):>7.2f}{max(estimates):>6.2f}{held:>8.0f} %{unsafe:>8}"
        f"{format_duration(median(each.seconds for each in searches) * SECOND_NS):>9}"
        f"{format_duration(max(each.seconds for each in searches) * SECOND_NS):>8}"
    )


def main() -> None:
    """Print the table, and the machine it was made on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=50, help="searches a row")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--quick", action="store_true", help="estimate alone, with --quick")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--only", help="these systems alone, such as M/M/4,PS")
    parser.add_argument("--json", type=Path, help="write every search there too")
    options = parser.parse_args()
    machine = environment()
    print(f"{options.seeds} searches a row at the defaults{' with --quick' if options.quick else ''}")
    print(f"{machine['cpu']}, {machine['cores']} cores, CPython {machine['python']}, numpy {np.__version__}")
    print(f"{'':61}{'confirmed ÷ true':^23}{'estimate ÷ true':^35}{'':7}{'under load':>14}")
    print(
        f"{'queue':<8}{'p99 <':>8}{'capacity':>10}{'found':>8}{'undecided':>11}{'infeasible':>12}"
        f"{'median':>9}{'worst':>7}{'above':>7}{'median':>11}{'least':>7}{'most':>6}{'in 95 %':>10}{'unsafe':>8}"
        f"{'median':>9}{'most':>8}"
    )
    rows = []
    with get_context("spawn").Pool(options.processes) as pool:
        chosen = [one for one in systems() if not options.only or one.name in options.only.split(",")]
        capacities = pool.map(_capacity, [one.name for one in chosen], chunksize=1)
        for system, capacity in zip(chosen, capacities, strict=True):
            system.__dict__["capacity"] = capacity
            make = partial(_search, system.name, capacity, quick=options.quick)
            results = pool.map(make, range(options.first, options.first + options.seeds), chunksize=1)
            searches = [asdict(each) for each in results]
            rows.append({"name": system.name, "capacity": system.capacity, "searches": searches})
            print(row_of(system, results), flush=True)
            if options.json:
                options.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")


def _capacity(name: str) -> float:
    return next(each for each in systems() if each.name == name).capacity


def _search(name: str, capacity: float, seed: int, *, quick: bool) -> Searched:
    system = next(each for each in systems() if each.name == name)
    system.__dict__["capacity"] = capacity
    return search(system, seed, quick=quick)


if __name__ == "__main__":
    main()
