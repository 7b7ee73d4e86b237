"""How often runs that may end early are wrong: on queues whose quantiles are known (benchmarks/verdicts.py).

    python -m benchmarks.early [--seeds 100]

Each second of a run of 300 s (M/M/1, 1 ms of service) is looked at as the scheduler's tick does. Aborted: the objective
allows 1 % above a bound that fewer truly are, so that an abort is wrong. Ended: by a precision that was said to be
reached; wrong where the true p99 is farther away than that, which should be 5 % of them.
"""

from __future__ import annotations

import argparse
import math
from functools import partial

import numpy as np

from benchmarks.verdicts import SERVICE_NS, objective_of, run
from loadtrt.environment import environment
from loadtrt.records.histogram import Histogram, PackedHistogram
from loadtrt.records.records import Records
from loadtrt.records.spans import Span
from loadtrt.stats.early import Misses, Widths
from loadtrt.units import SECOND_NS

SECONDS = 300
LOADS = (0.5, 0.85)
MISSES = (0.002, 0.008, 0.009)
PRECISIONS = (0.05, 0.1, 0.2)


def seconds_of(records: Records) -> list[int]:
    """How many requests have completed by the end of each second."""
    reached: list[int] = np.searchsorted(np.sort(records.completed), np.arange(1, SECONDS + 1) * SECOND_NS).tolist()
    return reached


def aborted(records: Records, load: float, true_miss: float) -> bool:
    """Whether it would have been."""
    objective = objective_of(load, true_miss)
    misses, before = Misses([objective]), 0
    for count in seconds_of(records):
        if count:
            misses.add([Records(records.rows[before:count])])
            before = count
            if misses.missed(partial(Records, records.rows[:count]), [Histogram()]) is not None:
                return True
    return False


def ended(records: Records, load: float, precision: float) -> float | None:
    """By how much p99 is wrong, over its true value, where the run would have ended; None where it would not."""
    widths, total, before = Widths([0.99], precision), Histogram(), 0
    spans: list[Span[PackedHistogram]] = []
    for second, count in enumerate(seconds_of(records)):
        latencies, one = (records.completed - records.due)[before:count], Histogram()
        one.add(latencies)
        total.merge(one)
        before = count
        spans.append(Span(second * SECOND_NS, len(latencies), 0, one.packed(), 0, 0))
        if widths.narrow_enough(spans, Records(records.rows[:count]), total) is not None:
            true = -math.log(0.01) / (1 - load) * SERVICE_NS
            return abs(total.quantiles((0.99,))[0] / true - 1)
    return None


def main() -> None:
    """Print both tables, and the machine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=100, help="runs a row")
    seeds = parser.parse_args().seeds
    machine = environment()
    print(f"M/M/1, {SECONDS} s, {seeds} seeds; {machine['cpu']}, CPython {machine['python']}, numpy {np.__version__}")
    print("load  truly bad  aborted wrongly")
    for load in LOADS:
        runs = [run(load, round(load * SECONDS * 1000), seed) for seed in range(seeds)]
        for true_miss in MISSES:
            wrong = sum(aborted(records, load, true_miss) for records in runs) / seeds
            print(f"{100 * load:>3.0f} %{100 * true_miss:>9.1f} %{100 * wrong:>14.1f} %", flush=True)
    print("load  precision  ended   of these wrong  farthest")
    for load in LOADS:
        runs = [run(load, round(load * SECONDS * 1000), seed) for seed in range(seeds)]
        for precision in PRECISIONS:
            errors = [error for records in runs if (error := ended(records, load, precision)) is not None]
            wrong = sum(error > precision for error in errors) / len(errors) if errors else math.nan
            worst = f"{100 * max(errors):.0f} %" if errors else "–"
            share = f"{100 * wrong:.1f} %" if errors else "–"
            row = f"{100 * precision:>8.0f} %{100 * len(errors) / seeds:>6.0f} %"
            print(f"{100 * load:>3.0f} %{row}{share:>16}{worst:>10}", flush=True)


if __name__ == "__main__":
    main()
