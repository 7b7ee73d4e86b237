"""Fleets of simulated GPUs against queueing theory, and `plan-capacity --measure`'s prediction beside both.

    python -m benchmarks.fleet_laws [--duration 300s] [--seed 1] [--pooled]

Each GPU has one lane, and a load of 0.7. Under random routing Poisson arrivals stay Poisson: M/M/1 and M/D/1. Under
round-robin routing every N-th arrival comes to a GPU, after N exponential gaps: Erlang's distribution, E_N/M/1 and
E_N/D/1. Laws: M/M/1 in closed form; M/D/1 by Crommelin's sum (1932); E_N/M/1 by the root of Kendall (1953); E_N/D/1 by
Lindley's recursion on random numbers of its own. The plan knows runs of one GPU alone: a closed loop and an open one.

--pooled: under least-outstanding routing (JSQ, join the shortest queue) and two-choices (SQ2). Workers route by what
happens at one time, so that these run in real time, with services ten times as long. There is no closed form: theory
is an event simulation of a million requests, written apart from loadtrt's (benchmarks/fleet.py).
"""

from __future__ import annotations

import argparse
import math
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import loadtrt
from benchmarks import fleet
from benchmarks.fleet_simulation import m_d_1
from benchmarks.queues import gamma_m_1
from loadtrt.environment import environment
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadtrt.results.fleet_result import FleetResult, Routing
    from loadtrt.results.run_result import RunResult

SERVICE_S = 0.005
REAL_SERVICE_S = 0.05
LOAD = 0.7
RANK = 0.99
ENGINES = {
    "M": "simulated:service=5ms,distribution=exponential,clock=virtual",
    "D": "simulated:service=5ms,clock=virtual",
}
POOLED = {"least-outstanding": "JSQ", "two-choices": "SQ2"}
REAL_ENGINE = "simulated:service=50ms,distribution=exponential"
_RECURSION = 4_000_000  # requests of the recursion


class Row(NamedTuple):
    """p99 of latency in ns: by theory, as measured with its 95 % interval, and as predicted with its."""

    queue: str
    gpus: int
    theory: float
    measured: tuple[float, float | None, float | None]
    predicted: tuple[float, float | None, float | None]


def theory_ns(services: str, routing: str, gpus: int) -> float:
    """p99 of latency at one GPU."""
    erlang = gpus if routing == "round-robin" else 1
    if services == "M":
        return gamma_m_1(LOAD / SERVICE_S, SERVICE_S, 1 / erlang).mean_s * -math.log(1 - RANK) * SECOND_NS
    if erlang == 1:
        return m_d_1(LOAD, RANK) * SERVICE_S * SECOND_NS
    random = np.random.default_rng(20261130)
    gaps = random.standard_gamma(erlang, _RECURSION) * SERVICE_S / (LOAD * erlang)
    walk = np.cumsum(SERVICE_S - gaps)
    waits = walk - np.minimum.accumulate(np.minimum(walk, 0.0))  # Lindley's recursion, solved
    return float(np.quantile(waits, RANK) + SERVICE_S) * SECOND_NS


def pooled_ns(routing: Routing, gpus: int) -> float:
    """p99 of latency in a fleet of REAL_SERVICE_S, by an event simulation."""
    device = fleet.Device("exponential", "exponential", 1, 0.0, LOAD)
    simulated = fleet.true_quantile(device, routing, gpus * LOAD / fleet.SERVICE_S, gpus)
    return simulated * REAL_SERVICE_S / fleet.SERVICE_S * SECOND_NS


@cache
def alone(engine: str, service_s: float, duration: str, seed: int) -> tuple[RunResult, RunResult]:
    """Runs of one GPU: a closed loop, and an open one."""
    given: dict[str, Any] = {
        "engine": engine, "contexts": 1, "buffers": 1, "warmup": "0s", "seed": seed, "duration": duration,
        "objective": "latency.p99 < 1s", "max_lateness": "1s",
    }  # fmt: skip
    return loadtrt.run(**given), loadtrt.run(**given, rate=LOAD / service_s)


def plan(services: str, gpus: int, duration: str, seed: int) -> FleetResult:
    """A plan of so many GPUs, from runs of one, with the fleets measured. services: "M" or "D"; "" for exponential ones
    in real time, under the routings of POOLED."""
    engine, service_s = (ENGINES[services], SERVICE_S) if services else (REAL_ENGINE, REAL_SERVICE_S)
    return loadtrt.plan_capacity(
        *alone(engine, service_s, duration, seed),
        demand=gpus * LOAD / service_s,
        max_utilisation="75%",  # which takes `gpus`
        objective=["latency.p99 < 1s"],
        routing="random,round-robin" if services else ",".join(POOLED),
        measure=True,
        duration=duration,
        seed=seed,
    )


def rows(duration: str, seed: int, *, pooled: bool) -> Iterator[Row]:
    """Fleets of 2 and 4 GPUs, under both routings: with exponential and with constant services, or in real time."""
    for services in ("",) if pooled else ENGINES:
        for gpus in (2, 4):
            for made in plan(services, gpus, duration, seed).measured:
                check = next(check for check in made.checks if check.rank == RANK)
                arrivals = "M" if made.routing == "random" else f"E{gpus}"
                theory = pooled_ns(made.routing, gpus) if pooled else theory_ns(services, made.routing, gpus)
                yield Row(
                    f"{POOLED[made.routing]}/M/1" if pooled else f"{arrivals}/{services}/1",
                    made.gpus,
                    theory,
                    (check.measured_ns, check.measured_low_ns, check.measured_high_ns),
                    (check.predicted_ns or math.nan, check.predicted_low_ns, check.predicted_high_ns),
                )


def main() -> None:
    """Print a row for each fleet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--duration", default="300s")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pooled", action="store_true")
    options = parser.parse_args()
    machine = environment()
    print(f"{machine['cpu']}, {machine['cores']} cores, CPython {machine['python']}, numpy {np.__version__}")
    time = "real" if options.pooled else "virtual"
    print(f"p99 of latency, ms; each GPU at a load of {LOAD}; {options.duration} of {time} time, seed {options.seed}")
    print(f"{'':8}{'GPUs':>5}{'theory':>9}{'measured':>10}{'95 %':>17}{'predicted':>11}{'95 %':>17}")
    holds = np.zeros(3, int)
    for row in rows(options.duration, options.seed, pooled=options.pooled):
        told = []
        within = [(low or 0) <= row.theory <= (high or math.inf) for _, low, high in (row.measured, row.predicted)]
        holds += (*within, True)
        for value, low, high in (row.measured, row.predicted):
            ends = " .. ".join("–" if end is None else f"{end / 1e6:.2f}" for end in (low, high))
            told.append(f"{value / 1e6:>10.2f}{ends:>17}")
        print(f"{row.queue:8}{row.gpus:>5}{row.theory / 1e6:>9.2f}{told[0]} {told[1]}", flush=True)
    print(f"theory is within the interval of {holds[0]} measured and {holds[1]} predicted of {holds[2]}")


if __name__ == "__main__":
    main()
