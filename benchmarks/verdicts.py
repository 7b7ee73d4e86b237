"""How often verdicts on objectives are wrong: on queues whose true share of bad requests is known.

    python -m benchmarks.verdicts [--seeds 300] [--json FILE]

M/M/1, first come, first served: latency is exponential with mean S/(1 − ρ) (S: mean service time, ρ: load), so that
b = −ln(p)·S/(1 − ρ) is what a share p of all requests exceeds. Latencies by Lindley's recursion (1952),
wait_{k+1} = max(0, wait_k + S_k − A_k), A_k: the time to the next arrival, from an empty queue, as a run begins. The
objective allows 1 % above b. Where 1.2 % are, "met" is a false certificate; where 0.8 % or 0.2 % are, "missed" is a
false alarm.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from loadtrt.asked.objective import Objective
from loadtrt.environment import environment
from loadtrt.records.histogram import Histogram
from loadtrt.records.records import COLUMNS, Records
from loadtrt.stats.binomial import share_interval
from loadtrt.stats.verdict import judge
from loadtrt.units import MILLISECOND_NS, format_count

LOADS = (0.5, 0.85, 0.95)
LENGTHS = (10_000, 50_000, 200_000, 500_000)
MISSES = (0.012, 0.008, 0.002)
ALLOWED = 0.01
SERVICE_NS = MILLISECOND_NS


@dataclass(frozen=True)
class Row:
    """Verdicts on runs of one kind, as parts of all seeds: binomial: by taking requests for independent. effective:
    the median effective size."""

    load: float
    requests: int
    true_miss: float
    binomial: dict[str, float]
    loadtrt: dict[str, float]
    effective: float


def run(load: float, requests: int, seed: int) -> Records:
    """Records of an M/M/1 queue that begins empty; service takes SERVICE_NS on average."""
    random = np.random.default_rng([seed, requests])
    service, gaps = random.exponential(1.0, requests), random.exponential(1 / load, requests)
    walk = np.concatenate(([0.0], np.cumsum(service[:-1] - gaps[1:])))
    latency = walk - np.minimum.accumulate(walk) + service  # the recursion, unrolled: the walk above its lowest point
    rows = np.zeros((requests, len(COLUMNS)), np.int64)
    rows[:, COLUMNS.index("due")] = np.cumsum(gaps) * SERVICE_NS
    rows[:, COLUMNS.index("completed")] = rows[:, COLUMNS.index("due")] + (latency * SERVICE_NS).astype(np.int64)
    return Records(rows)


def objective_of(load: float, true_miss: float) -> Objective:
    """p99 below the bound that a share `true_miss` of all requests exceeds."""
    bound_ns = round(-math.log(true_miss) / (1 - load) * SERVICE_NS)
    return Objective(f"latency.p99 < {bound_ns}ns", 0, 1 - ALLOWED, bound_ns)


def measure(load: float, requests: int, seeds: int) -> list[Row]:
    """All systems, over seeds 0, 1, …; each sees the same latencies against a bound of its own."""
    counts: dict[float, tuple[Counter[str], Counter[str], list[float]]]
    counts = {true_miss: (Counter(), Counter(), []) for true_miss in MISSES}
    for seed in range(seeds):
        records = run(load, requests, seed)
        latency = records.completed - records.due
        for true_miss, (binomial, ours, sizes) in counts.items():
            objective = objective_of(load, true_miss)
            good = int(np.count_nonzero(latency <= objective.bound_ns))
            low, high = share_interval(1 - good / requests, requests)
            binomial["met" if high <= ALLOWED else "missed" if low > ALLOWED else "undecided"] += 1
            share = judge(objective, records, Histogram(), good, requests)
            ours[str(share.verdict)] += 1
            sizes.append(share.effective or 0.0)
    return [
        Row(
            load,
            requests,
            true_miss,
            {verdict: count / seeds for verdict, count in binomial.items()},
            {verdict: count / seeds for verdict, count in ours.items()},
            float(np.median(sizes)),
        )
        for true_miss, (binomial, ours, sizes) in counts.items()
    ]


def main() -> None:
    """Print the table, and the machine it was made on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=300, help="runs a row")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    options = parser.parse_args()
    machine = environment()
    print(f"M/M/1 against an objective that allows {100 * ALLOWED:g} %, {options.seeds} seeds a row; % of runs")
    print(f"{machine['cpu']}, {machine['cores']} cores, CPython {machine['python']}, numpy {np.__version__}")
    print(f"{'':41}{'as independent':^26} {'loadtrt':^26}")
    names = ("met", "missed", "undecided")
    print(
        f"{'load':>5}{'requests':>11}{'truly bad':>11}{'effective':>11}   "
        + f"{'met':>6}{'missed':>9}{'undecided':>11} " * 2
    )
    rows = []
    for load in LOADS:
        for requests in LENGTHS:
            for row in measure(load, requests, options.seeds):
                rows.append(row)
                cells = [[f"{100 * law.get(name, 0):.1f}" for name in names] for law in (row.binomial, row.loadtrt)]
                text = " ".join(f"{met:>6}{missed:>9}{undecided:>11}" for met, missed, undecided in cells)
                print(
                    f"{100 * load:>3.0f} %{format_count(requests):>11}{100 * row.true_miss:>9.1f} %"
                    f"{format_count(round(row.effective)):>11}   {text}",
                    flush=True,
                )
    worst = max(row.loadtrt.get("met", 0) for row in rows if row.true_miss > ALLOWED)
    naive = max(row.binomial.get("met", 0) for row in rows if row.true_miss > ALLOWED)
    print(f"false certificates, at worst: as independent {100 * naive:.1f} %, loadtrt {100 * worst:.1f} %")
    if options.json:
        options.json.write_text(
            json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
