"""How often `loadtrt compare --fail-if` is wrong, and how much it sees: on laws whose ratio is known.

    python -m benchmarks.regressions [--pairs 400] [--processes 1] [--json FILE]

A and B are of one law, B's times made longer, and its rate lower, by 0, 5 or 10 %; the threshold is 5 %. "regressed"
at 0 % is a false alarm; at 5 %, the threshold itself, either verdict is wrong by a hair; at 10 % it is what the gate is
for.

- even: independent times, lognormal, deviation 2 %; as of a plan on a GPU whose clock stands.
- wandering: half of that variance is a clock that wanders, an AR(1) with a relaxation of 1000 requests. Of 2 000 that
  is half: no such run can know it.
- lognormal CV 2, CV 3: independent times with a long tail. mix: 98 % of the requests take 1 ms, 2 % take 64 ms, both
  with a deviation of 2 %.
- M/M/1 at 50 to 95 % load, from empty (benchmarks/verdicts.py): what queues do to latencies.
- runs that differ: even, each run with a factor of its own, deviation 2 %, on 1, 3 or 5 runs a side.

95 %: the upper over the lower end of a single run's interval, in the median; – where more than half have no upper end.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import Pool
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.verdicts import run as queue
from loadtrt.environment import environment
from loadtrt.results.breakdown import PERCENTILES, ConfidenceInterval, MetricSummary
from loadtrt.stats.intervals import mean_interval, quantile_interval
from loadtrt.stats.measured import Measured
from loadtrt.stats.regression import judged, parse_threshold, ratio_of
from loadtrt.units import format_count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    Times = npt.NDArray[np.float64]

WORSE = (1.0, 1.05, 1.1)
NUMBERS = ("latency.p50", "latency.p99", "latency.mean", "throughput")
DEVIATION = 0.02
RELAXATION = 1000
MEAN_NS = 1e6


@dataclass(frozen=True)
class Row:
    """Verdicts as parts of all pairs, by how much B was worse.

    width: the upper over the lower end of a single run's interval, in the median; None where most have no upper end.
    """

    law: str
    requests: int
    runs: int
    number: str
    width: float | None
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


def long_tailed(cv: float, requests: int, runs: int, random: np.random.Generator) -> Times:
    """Independent times, lognormal with that CV."""
    sigma = math.sqrt(math.log1p(cv * cv))
    return MEAN_NS * np.exp(sigma * random.standard_normal((runs, requests)) - sigma * sigma / 2)


def mixed(requests: int, runs: int, random: np.random.Generator) -> Times:
    """One request in 50 takes 64 times as long."""
    return even(requests, runs, random) * np.where(random.random((runs, requests)) < 0.02, 64.0, 1.0)


def queueing(load: float, requests: int, runs: int, _random: np.random.Generator) -> Times:
    """Latencies of M/M/1; its seeds are those of benchmarks/verdicts.py."""
    records = (queue(load, requests, seed) for seed in range(runs))
    return np.stack([(each.completed - each.due).astype(np.float64) for each in records])


def measured(times: Times) -> Measured:
    """A run of these times, one after the other."""
    values = times.astype(np.int64)
    ordered, mean = np.sort(values), float(values.mean())
    percentiles = {name: float(ordered[math.ceil(rank * len(ordered)) - 1]) for name, rank in PERCENTILES.items()}
    intervals = {
        name: quantile_interval(rank, percentiles[name], values, ordered) for name, rank in PERCENTILES.items()
    }
    intervals["mean"] = mean_interval(mean, values)
    summary = MetricSummary(
        count=len(times),
        mean_ns=mean,
        min_ns=0,
        max_ns=0,
        percentiles_ns=dict(percentiles),
        confidence={name: interval for name, interval in intervals.items() if interval is not None},
    )
    gap = intervals["mean"]
    assert gap is not None  # noqa: S101  # of a thousand times and more
    rate = _scaled(ConfidenceInterval(low=gap.high and 1 / gap.high, high=1 / (gap.low or 1), effective=0.0), 1e9)
    return Measured("", {"throughput": 1e9 / mean, "inferences": None}, rate, {"latency": summary}, {}, trtexec=False)


def slower(run: Measured, worse: float) -> Measured:
    """The run, made so much worse."""
    latency = run.metrics["latency"]
    summary = latency.model_copy(
        update={
            "mean_ns": (latency.mean_ns or 0.0) * worse,
            "percentiles_ns": {name: value and value * worse for name, value in latency.percentiles_ns.items()},
            "confidence": {name: _scaled(interval, worse) for name, interval in latency.confidence.items()},
        }
    )
    rates = {name: rate and rate * (2 - worse) for name, rate in run.rates.items()}
    interval = None if run.rate_interval is None else _scaled(run.rate_interval, 2 - worse)
    return replace(run, metrics={"latency": summary}, rates=rates, rate_interval=interval)


def _scaled(interval: ConfidenceInterval, factor: float) -> ConfidenceInterval:
    ends = {name: end and end * factor for name, end in (("low", interval.low), ("high", interval.high))}
    return interval.model_copy(update=ends)


def rows_of(law: str, times: Times, runs: int, numbers: tuple[str, ...]) -> Iterator[Row]:
    """The verdicts on pairs of sides of so many runs each."""
    sides = [times[place : place + 2 * runs] for place in range(0, len(times) - 2 * runs + 1, 2 * runs)]
    verdicts = {number: {worse: Counter[str]() for worse in WORSE} for number in numbers}
    widths: dict[str, list[float]] = {number: [] for number in numbers}
    for side in sides:
        every = [measured(each) for each in side]
        a = every[:runs]
        for worse in WORSE:
            b = [slower(each, worse) for each in every[runs:]]
            for number in numbers:
                threshold = parse_threshold(f"{number} {'-' if number == 'throughput' else '+'}5%")
                verdicts[number][worse][judged(threshold, ratio_of(number, a, b)).verdict] += 1
        for number in numbers:
            which = number.partition(".")[2] or "mean"
            intervals = [each.metrics["latency"].confidence.get(which) for each in a]
            widths[number] += [
                each.high / each.low if each and each.high and each.low else math.inf for each in intervals
            ]
    for number in numbers:
        shares = {
            f"{worse:g}": {verdict: count / len(sides) for verdict, count in verdicts[number][worse].items()}
            for worse in WORSE
        }
        width = float(np.median(widths[number]))
        yield Row(law, times.shape[1], runs, number, width if math.isfinite(width) else None, shares)


@dataclass(frozen=True)
class Case:
    """One law and length. make: draws the times of so many runs."""

    law: str
    requests: int
    make: Callable[[int, int, np.random.Generator], Times]
    numbers: tuple[str, ...]
    runs: int = 1

    def rows(self, pairs: int) -> list[Row]:
        """The verdicts on so many pairs, drawn from a seed of this case's own."""
        random = np.random.default_rng([self.requests, self.runs, *self.law.encode()])
        return list(rows_of(self.law, self.make(self.requests, 2 * pairs * self.runs, random), self.runs, self.numbers))


def cases() -> Iterator[Case]:
    """Everything that is printed."""
    for requests in (2_000, 10_000):
        yield Case("even", requests, even, NUMBERS)
    for requests in (2_000, 10_000, 50_000):
        yield Case("wandering", requests, wandering, NUMBERS)
    for cv in (2.0, 3.0):
        for requests in (2_000, 10_000, 50_000):
            yield Case(f"lognormal CV {cv:g}", requests, partial(long_tailed, cv), NUMBERS[:3])
    for requests in (2_000, 10_000, 50_000):
        yield Case("mix", requests, mixed, NUMBERS[:3])
    for load in (0.5, 0.7, 0.85, 0.95):
        for requests in (10_000, 50_000, 200_000):
            yield Case(f"M/M/1 at {100 * load:g} %", requests, partial(queueing, load), NUMBERS[:3])
    for runs in (1, 3, 5):
        yield Case("runs that differ", 5_000, differing, NUMBERS[:2], runs)


def _rows(case: Case, pairs: int) -> list[Row]:
    return case.rows(pairs)


def line_of(row: Row) -> str:
    """A line of the table."""
    cells = "".join(
        f"{100 * shares.get('regressed', 0):>7.1f}{100 * shares.get('not regressed', 0):>6.1f}"
        f"{100 * shares.get('undecided', 0):>6.1f} "
        for shares in row.verdicts.values()
    )
    width = "–" if row.width is None else f"×{row.width:.3f}"
    return f"{row.law:18}{format_count(row.requests):>9}{row.runs:>5}{row.number:>15}{width:>9}  {cells}"


def main() -> None:
    """Print the table, and the machine it was made on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=400, help="comparisons a row")
    parser.add_argument("--processes", type=int, default=1, help="processes that share the work")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    options = parser.parse_args()
    machine = environment()
    print(f"B worse than A by 0, 5 and 10 %; the threshold is 5 %; {options.pairs} pairs a row, % of them")
    print(f"{machine['cpu']}, {machine['cores']} cores, CPython {machine['python']}, numpy {np.__version__}")
    print(f"{'':58}" + "".join(f"{f'{100 * (worse - 1):.0f} % worse':^20}" for worse in WORSE))
    print(f"{'law':18}{'requests':>9}{'runs':>5}{'number':>15}{'95 %':>9}  " + f"{'worse':>7}{'not':>6}{'?':>6} " * 3)
    rows = []
    with Pool(options.processes) as pool:
        for rows in pool.imap(partial(_rows, pairs=options.pairs), cases()):
            for row in rows:
                rows.append(row)
                print(line_of(row), flush=True)
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
