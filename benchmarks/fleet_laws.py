"""Fleets of simulated GPUs against queueing theory, and `plan-capacity --measure`'s prediction beside both.

    python -m benchmarks.fleet_laws [--duration 300s] [--seed 1]

Each GPU has one lane, and a load of 0.7. Under random routing Poisson arrivals stay Poisson: M/M/1 and M/D/1. Under
round-robin routing every N-th arrival comes to a GPU, after N exponential gaps: Erlang's distribution, E_N/M/1 and
E_N/D/1. Laws: M/M/1 in closed form; M/D/1 by Crommelin's sum (1932); E_N/M/1 by the root of Kendall (1953); E_N/D/1 by
Lindley's recursion on random numbers of its own. The plan knows runs of one GPU alone: a closed loop and an open one.
"""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import loadtrt
from benchmarks.fleet_simulation import m_d_1
from benchmarks.queues import gamma_m_1
from loadtrt.environment import environment
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadtrt.results.fleet_result import FleetResult

SERVICE_S = 0.005
LOAD = 0.7
RANK = 0.99
ENGINES = {
    "M": "simulated:service=5ms,distribution=exponential,clock=virtual",
    "D": "simulated:service=5ms,clock=virtual",
}
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


def plan(services: str, gpus: int, duration: str, seed: int) -> FleetResult:
    """A plan of so many GPUs, from runs of one, with the fleets measured."""
    alone: dict[str, Any] = {
        "engine": ENGINES[services], "contexts": 1, "buffers": 1, "warmup": "0s", "seed": seed, "duration": duration,
        "objective": "latency.p99 < 1s",
    }  # fmt: skip
    runs = [loadtrt.run(**alone), loadtrt.run(**alone, rate=LOAD / SERVICE_S)]
    return loadtrt.plan_capacity(
        *runs,
        demand=gpus * LOAD / SERVICE_S,
        max_utilisation="75%",  # which takes `gpus`
        routing="random,round-robin",
        measure=True,
        duration=duration,
        seed=seed,
    )


def rows(duration: str, seed: int) -> Iterator[Row]:
    """Fleets of 2 and 4 GPUs with exponential and with constant services, under both routings."""
    for services in ENGINES:
        for gpus in (2, 4):
            for fleet in plan(services, gpus, duration, seed).measured:
                check = next(check for check in fleet.checks if check.rank == RANK)
                arrivals = "M" if fleet.routing == "random" else f"E{gpus}"
                yield Row(
                    f"{arrivals}/{services}/1",
                    fleet.gpus,
                    theory_ns(services, fleet.routing, gpus),
                    (check.measured_ns, check.measured_low_ns, check.measured_high_ns),
                    (check.predicted_ns or math.nan, check.predicted_low_ns, check.predicted_high_ns),
                )


def main() -> None:
    """Print a row for each fleet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--duration", default="300s")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    machine = environment()
    print(f"{machine['cpu']}, {machine['cores']} cores, CPython {machine['python']}, numpy {np.__version__}")
    print(f"p99 of latency, ms; each GPU at a load of {LOAD}; {options.duration} of virtual time, seed {options.seed}")
    print(f"{'':8}{'GPUs':>5}{'theory':>9}{'measured':>10}{'95 %':>17}{'predicted':>11}{'95 %':>17}")
    holds = np.zeros(3, int)
    for row in rows(options.duration, options.seed):
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
