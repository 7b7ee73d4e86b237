"""How often the intervals of a merged fleet hold the truth: of the share of requests beyond a bound, and of throughput.

    python -m benchmarks.fleet_coverage [--seeds 100] [--workers 4] [--duration 30s]

Each worker is an M/M/1 queue, or G/M/1 where arrivals are not Poisson, of 200 requests/s that gets 120; or one of
constant services, where arrivals alone vary, that gets 140. The true numbers are the means over all seeds.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import loadtrt
from loadtrt.stats.merging import merge

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


def main() -> None:
    """Print a row for each load."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--duration", default="30s")
    options = parser.parse_args()
    print(f"{options.workers} workers, {options.duration}: % of {options.seeds} intervals (95 %) that hold the truth")
    print(f"{'':31}share beyond  throughput")
    for name, load in LOADS.items():
        rows = np.array([fleet(seed, options.workers, options.duration, load) for seed in range(options.seeds)])
        holds = [
            100 * np.mean((rows[:, at + 1] <= rows[:, at].mean()) & (rows[:, at].mean() <= rows[:, at + 2]))
            for at in (0, 3)
        ]
        print(f"{name:31}{holds[0]:12.0f}{holds[1]:12.0f}", flush=True)


if __name__ == "__main__":
    main()
