"""How well `loadtrt capacity` finds the capacity of queues whose true one is known in closed form.

    nice python -m benchmarks.capacity [--seeds 50] [--requests 60000] [--json FILE]

Simulated engines in virtual time, mean service S = 1 ms, Poisson arrivals, an objective on p99 of latency whose bound
is the true p99 at a load ρ: so the capacity is ρ·c/S, exactly. A trial has about --requests requests. Laws of T:

M/M/c, c contexts, first come, first served: P(T > t) by Erlang's formula (benchmarks/queues.py).
M/D/1, one context: P(T > t) = 1 − (1 − ρ) Σ_k (−λ(w − kS))^k / k! · e^{λ(w − kS)}, w = t − S, k = 0 … ⌊w/S⌋ (Erlang,
1909; Crommelin, 1932), summed in decimals, for its terms alternate.
Processor sharing, 64 contexts with contention 1, exponential work: a request that finds n others leaves at the rate
μ/(n + 1), another one at μn/(n + 1), and one comes at λ (Coffman, Muntz and Trotter, 1970): P(T > t) by uniformization
of that chain from n geometric with ρ (Jensen, 1953), n cut at 400.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from dataclasses import asdict, dataclass
from decimal import Decimal, localcontext
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.queues import Waiting, erlang_c, markov_tail
from loadtrt.asked.reading import load_config
from loadtrt.capacity.find import Finder, Wanted
from loadtrt.capacity.rig import Rig
from loadtrt.environment import environment
from loadtrt.runs.watched import Silence
from loadtrt.units import MILLISECOND_NS, SECOND_NS, format_count

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtrt.results.capacity_result import CapacityResult

SERVICE_S = 0.001
ALLOWED = 0.01
SHARERS = 64
MOST_JOBS = 400
NEAR = 0.03


def markovian(servers: int, load: float, t: float) -> float:
    """P(T > t) of M/M/c."""
    offered = load * servers
    return markov_tail(t, Waiting(erlang_c(servers, offered), SERVICE_S / (servers - offered)), SERVICE_S)


def deterministic(load: float, t: float) -> float:
    """P(T > t) of M/D/1."""
    waited = t / SERVICE_S - 1
    if waited < 0:
        return 1.0
    with localcontext() as context:
        context.prec = 100
        total = Decimal(0)
        for k in range(math.floor(waited) + 1):
            left = Decimal(load) * (Decimal(waited) - k)
            total += ((-left) ** k if k else 1) / Decimal(math.factorial(k)) * left.exp()
        return float(1 - (1 - Decimal(load)) * total)


def sharing(load: float, t: float) -> float:
    """P(T > t) of M/M/1 with processor sharing; time in units of S, uniformized at the rate λ + μ = load + 1."""
    others = np.arange(MOST_JOBS)
    arrive, leave, done = np.full(MOST_JOBS, load), others / (others + 1), 1 / (others + 1)
    arrive[-1] = 0.0
    rate = load + 1
    present = (1 - load) * load**others
    mean = rate * t / SERVICE_S
    weight, tail = -mean, 0.0  # the logarithm of a Poisson probability
    for jumps in range(1, int(mean + 12 * math.sqrt(mean) + 30)):
        tail += math.exp(weight) * float(present.sum())
        following = present * (1 - (arrive + leave + done) / rate)
        following[1:] += present[:-1] * arrive[:-1] / rate
        following[:-1] += present[1:] * leave[1:] / rate
        present = following
        weight += math.log(mean / jumps)
    return tail


@dataclass(frozen=True)
class System:
    """A queue: its name, its engine, how many contexts, the greatest throughput over that of one, its law, its load."""

    name: str
    engine: str
    contexts: int
    servers: int
    tail: Callable[[float, float], float]
    load: float

    @property
    def capacity(self) -> float:
        """Requests a second."""
        return self.load * self.servers / SERVICE_S

    def bound_ns(self) -> int:
        """p99 of latency at the capacity."""
        low, high = 0.0, SERVICE_S
        while self.tail(self.load, high) > ALLOWED:
            low, high = high, 2 * high
        while high - low > 1e-9:
            middle = (low + high) / 2
            low, high = (middle, high) if self.tail(self.load, middle) > ALLOWED else (low, middle)
        return round(high * SECOND_NS)


def systems() -> list[System]:
    """Each law at a load where its queue is felt."""
    random = "simulated:service=1ms,distribution=exponential,clock=virtual"
    return [
        System("M/M/2", random, 2, 2, lambda load, t: markovian(2, load, t), 0.7),
        System("M/M/4", random, 4, 4, lambda load, t: markovian(4, load, t), 0.85),
        System("M/D/1", "simulated:service=1ms,clock=virtual", 1, 1, deterministic, 0.85),
        System("PS", f"{random},contention=1", SHARERS, 1, sharing, 0.8),
    ]


@dataclass(frozen=True)
class Found:
    """One search. error: of the estimate, as a part of the truth; confirmed: the confirmed rate over it, missed: the
    lowest one that was missed; covers: whether the interval holds it; trials, confirms, refutes: how many runs."""

    answer: str
    error: float
    confirmed: float | None
    missed: float | None
    covers: bool
    trials: int
    confirms: int
    refutes: int


def search(system: System, requests: int, seed: int) -> Found:
    """One search for the system's capacity."""
    options = {
        "engine": system.engine,
        "buffers": 1,
        "warmup": 0,
        "seed": seed,
        "objective": [f"latency.p99 < {system.bound_ns()}ns"],
    }
    wanted = Wanted(
        config=load_config(None, options),
        load={"arrivals": "poisson"},
        contexts=(system.contexts,),
        batches=(None,),
        precision=NEAR,
        trial_ns=round(requests / system.capacity * 1000) * MILLISECOND_NS,
        max_trials=6,
    )
    kept: list[CapacityResult] = []
    talks = Silence()
    with Rig(talks) as rig:
        finder = Finder(wanted, rig, talks, kept.append)
        finder.make()
        if rig.stopped:
            raise KeyboardInterrupt
    only = finder.result.candidates[0]
    rate, kinds = only.estimate_per_s or 0.0, Counter(trial.kind for trial in only.trials)
    return Found(
        answer=only.answer or "",
        error=rate / system.capacity - 1,
        confirmed=None if only.confirmed_per_s is None else only.confirmed_per_s / system.capacity,
        missed=None if only.infeasible_min_per_s is None else only.infeasible_min_per_s / system.capacity,
        covers=(only.low_per_s or 0.0) <= system.capacity <= (only.high_per_s or math.inf),
        trials=kinds["search"],
        confirms=kinds["confirm"],
        refutes=kinds["refute"],
    )


def row_of(system: System, found: list[Found]) -> str:
    """Medians and worst cases over the seeds."""
    errors = [abs(each.error) for each in found]
    confirmed = [each.confirmed for each in found if each.confirmed is not None]
    missed = [each.missed for each in found if each.missed is not None]
    answers = Counter(each.answer for each in found)
    part = 100 / len(found)
    return (
        f"{system.name:<6}{100 * system.load:>4.0f} %{format_count(system.capacity):>10}/s"
        f"{100 * median(each.error for each in found):>+8.1f} %{100 * max(errors):>7.1f} %"
        f"{part * sum(error <= NEAR for error in errors):>8.0f} %{part * sum(each.covers for each in found):>8.0f} %"
        f"{median(each.trials for each in found):>8.0f}{max(each.trials for each in found):>5}"
        f"{part * answers['found']:>9.0f} %{part * sum(rate > 1 for rate in confirmed):>8.0f} %"
        f"{100 * (median(confirmed) - 1 if confirmed else math.nan):>+9.1f} %"
        f"{median(each.confirms for each in found):>6.0f}{max(each.confirms for each in found):>4}"
        f"{part * len(missed):>9.0f} %{part * sum(rate < 1 for rate in missed):>8.0f} %"
        f"{100 * (median(missed) - 1 if missed else math.nan):>+9.1f} %{max(each.refutes for each in found):>6}"
    )


def main() -> None:
    """Print the table, and the machine it was made on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=50, help="searches a row")
    parser.add_argument("--requests", type=int, default=60_000, help="of a trial, about")
    parser.add_argument("--only", help="these systems alone, such as M/M/4,PS")
    parser.add_argument("--json", type=Path, help="write every search there too")
    options = parser.parse_args()
    machine = environment()
    print(f"{options.seeds} searches a row, trials of {format_count(options.requests)} requests, precision 3 %")
    print(f"{machine['cpu']}, {machine['cores']} cores, CPython {machine['python']}, numpy {np.__version__}")
    print(f"{'':22}{'estimate':^35}{'trials':^13}{'confirmed':^42}{'missed':^38}")
    print(
        f"{'queue':<6}{'load':>6}{'capacity':>12}{'median':>9}{'worst':>9}{'in 3 %':>10}{'in 95 %':>9}"
        f"{'median':>8}{'most':>5}{'found':>10}{'above':>9}{'median':>11}{'runs':>6}{'':>4}"
        f"{'found':>11}{'below':>10}{'median':>11}{'most':>6}"
    )
    rows = []
    for system in systems():
        if options.only and system.name not in options.only.split(","):
            continue
        found = [search(system, options.requests, 1 + seed) for seed in range(options.seeds)]
        rows.append({"name": system.name, "load": system.load, "searches": [asdict(each) for each in found]})
        print(row_of(system, found), flush=True)
        if options.json:
            options.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
