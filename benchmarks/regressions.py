"""How often `loadtrt compare --fail-if` is wrong, and how much it sees: on laws whose ratio is known.

    python -m benchmarks.regressions [--pairs 400] [--json FILE]

A and B are of one law, B's times made longer, and its rate lower, by 0, 5 or 10 %; the threshold is 5 %. "regressed"
at 0 % is a false alarm; at 5 %, the threshold itself, either verdict is wrong by a hair; at 10 % it is what the gate is
for.

- even: independent times, lognormal, deviation 2 %; as of a plan on a GPU whose clock stands.
- wandering: half of that variance is a clock that wanders, an AR(1) with a relaxation of 1000 requests. Of 2 000 that
  is half: no such run can know it.
- M/M/1 at 50, 85, 95 % load, from empty (benchmarks/verdicts.py): what queues do to latencies.
- runs that differ: even, each run with a factor of its own, deviation 2 %, on 1, 3 or 5 runs a side.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.verdicts import run as queue
from loadtrt.environment import environment
from loadtrt.results.breakdown import PERCENTILES, MetricSummary
from loadtrt.stats.margin import Measured, margins
from loadtrt.stats.regression import judged, parse_threshold, ratio_of
from loadtrt.units import format_count

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    Times = npt.NDArray[np.float64]

WORSE = (1.0, 1.05, 1.1)
NUMBERS = ("latency.p50", "latency.p99", "latency.mean", "throughput")
DEVIATION = 0.02
RELAXATION = 1000
MEAN_NS = 1e6


@dataclass(frozen=True)
class Row:
    """Verdicts as parts of all pairs, by how much B was worse. margin: the median of single runs, 95 %."""

    law: str
    requests: int
    runs: int
    number: str
    margin: float | None
    verdicts: dict[str, dict[str, float]]


def even(requests: int, runs: int, random: np.random.Generator) -> Times:
    """Times of `runs` runs, ns [runs, requests]."""
    return MEAN_NS * np.exp(DEVIATION * random.standard_normal((runs, requests)))


def wandering(requests: int, runs: int, random: np.random.Generator) -> Times:
    """With a clock x_{i+1} = φ·x_i + √(1 − φ²)·e_i, φ = e^(−1/RELAXATION), that begins anywhere."""
    kept = math.exp(-1 / RELAXATION)
    steps = math.sqrt(1 - kept * kept) * random.standard_normal((requests, runs))
    clock = np.empty((requests, runs))
    clock[0] = random.standard_normal(runs)
    for place in range(1, requests):
        clock[place] = kept * clock[place - 1] + steps[place]
    noise = random.standard_normal((runs, requests))
    return MEAN_NS * np.exp(DEVIATION * math.sqrt(0.5) * (clock.T + noise))


def differing(requests: int, runs: int, random: np.random.Generator) -> Times:
    """Each run with a factor of its own."""
    return even(requests, runs, random) * np.exp(DEVIATION * random.standard_normal((runs, 1)))


def queueing(load: float, requests: int, runs: int) -> Times:
    """Latencies of M/M/1."""
    records = (queue(load, requests, seed) for seed in range(runs))
    return np.stack([(each.completed - each.due).astype(np.float64) for each in records])


def measured(times: Times, worse: float = 1.0) -> Measured:
    """A run of these times, one after the other, made so much worse."""
    ordered = np.sort(times) * worse
    percentiles = {name: float(ordered[math.ceil(rank * len(ordered)) - 1]) for name, rank in PERCENTILES.items()}
    found = margins(times.astype(np.int64), PERCENTILES)
    mean = float(times.mean()) * worse
    summary = MetricSummary(
        count=len(times), mean_ns=mean, min_ns=0, max_ns=0, percentiles_ns=dict(percentiles), margins=found
    )
    rates = {"throughput": (2 - worse) * 1e9 / float(times.mean()), "inferences": None}
    return Measured("", rates, found.get("mean"), {"latency": summary}, {}, trtexec=False)


def rows_of(law: str, times: Times, runs: int, numbers: tuple[str, ...]) -> Iterator[Row]:
    """The verdicts on pairs of sides of so many runs each."""
    sides = [times[place : place + 2 * runs] for place in range(0, len(times) - 2 * runs + 1, 2 * runs)]
    verdicts = {number: {worse: Counter[str]() for worse in WORSE} for number in numbers}
    found: dict[str, list[float]] = {number: [] for number in numbers}
    for side in sides:
        a = [measured(each) for each in side[:runs]]
        for worse in WORSE:
            b = [measured(each, worse) for each in side[runs:]]
            for number in numbers:
                threshold = parse_threshold(f"{number} {'-' if number == 'throughput' else '+'}5%")
                verdicts[number][worse][judged(threshold, ratio_of(number, a, b)).verdict] += 1
        for number in numbers:
            which = number.partition(".")[2] or "mean"
            found[number] += [each.metrics["latency"].margins.get(which, math.inf) for each in a]
    for number in numbers:
        shares = {
            f"{worse:g}": {verdict: count / len(sides) for verdict, count in verdicts[number][worse].items()}
            for worse in WORSE
        }
        margin = float(np.median(found[number]))
        yield Row(law, times.shape[1], runs, number, margin if math.isfinite(margin) else None, shares)


def all_rows(pairs: int) -> Iterator[Row]:
    """Everything that is printed."""
    random = np.random.default_rng(1)
    for requests in (2_000, 10_000):
        yield from rows_of("even", even(requests, 2 * pairs, random), 1, NUMBERS)
    for requests in (2_000, 10_000, 50_000):
        yield from rows_of("wandering", wandering(requests, 2 * pairs, random), 1, NUMBERS)
    for load in (0.5, 0.85, 0.95):
        for requests in (10_000, 50_000, 200_000):
            yield from rows_of(f"M/M/1 at {100 * load:g} %", queueing(load, requests, 2 * pairs), 1, NUMBERS[:3])
    for runs in (1, 3, 5):
        yield from rows_of("runs that differ", differing(5_000, 2 * pairs * runs, random), runs, NUMBERS[:2])


def main() -> None:
    """Print the table, and the machine it was made on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=400, help="comparisons a row")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    options = parser.parse_args()
    machine = environment()
    print(f"B worse than A by 0, 5 and 10 %; the threshold is 5 %; {options.pairs} pairs a row, % of them")
    print(f"{machine['cpu']}, {machine['cores']} cores, CPython {machine['python']}, numpy {np.__version__}")
    print(f"{'':58}" + "".join(f"{f'{100 * (worse - 1):.0f} % worse':^20}" for worse in WORSE))
    print(f"{'law':18}{'requests':>9}{'runs':>5}{'number':>15}{'±':>9}  " + f"{'worse':>7}{'not':>6}{'?':>6} " * 3)
    rows = []
    for row in all_rows(options.pairs):
        rows.append(row)
        cells = "".join(
            f"{100 * found.get('regressed', 0):>7.1f}{100 * found.get('not regressed', 0):>6.1f}"
            f"{100 * found.get('undecided', 0):>6.1f} "
            for found in row.verdicts.values()
        )
        margin = "–" if row.margin is None else f"{100 * row.margin:.2f} %"
        print(
            f"{row.law:18}{format_count(row.requests):>9}{row.runs:>5}{row.number:>15}{margin:>9}  {cells}", flush=True
        )
    for runs, text in (((1,), "one run a side, runs alike"), ((3, 5), "several runs a side")):
        chosen = [row for row in rows if row.runs in runs and (row.law != "runs that differ" or row.runs > 1)]
        alarms = max(row.verdicts["1"].get("regressed", 0) for row in chosen)
        edge = max(max(row.verdicts["1.05"].get(word, 0) for word in ("regressed", "not regressed")) for row in chosen)
        print(f"{text}, at worst: false alarms {100 * alarms:.1f} %, wrong at the threshold {100 * edge:.1f} %")
    if options.json:
        options.json.write_text(
            json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
