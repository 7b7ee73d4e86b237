"""How often the interval of `loadtrt interference` holds the true ratio, by its own rule for when rounds are enough.

    python -m benchmarks.interference_coverage [--cells 2000] [--rounds 5] [--precision 10%] [--default-lengths]

A cell is a model and its neighbour behind one queue, first come first served, both with Poisson arrivals and
exponential service of one mean: M/M/1. Alone, latency is exponential with the mean 1 / (μ − λ_a), beside the neighbour
with 1 / (μ − λ_a − λ_b), so that the ratio of every percentile, and of the mean, is (1 − ρ_a) / (1 − ρ_a − ρ_b). Each
round has draws of its own; alone and beside it has the same requests, at the same instants and with the same service.
Each run begins empty, as after the warm-up was drained, with a tenth of its requests before that are not counted.

open: intervals without an upper end, as runs are too short for one; "at least" holds the truth if it is not above it.

--default-lengths: runs have the lengths that the command gives them without --duration, at arrival rates of the model
from RATES: at first 5 s, and up to 60 s by the first round, whose longer runs begin with the requests of the shorter.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.report.interference_words import least_length, whole_seconds
from loadtrt.results.interference_result import Cell, Measured, Round
from loadtrt.sizing.cells import takes_ns
from loadtrt.sizing.interference_options import LENGTH_NS, LONGEST_NS
from loadtrt.stats.intervals import mean_interval, quantile_interval
from loadtrt.stats.paired import Pair, enough, paired_ratio
from loadtrt.units import SECOND_NS, parse_share

if TYPE_CHECKING:
    import numpy.typing as npt

    Times = npt.NDArray[np.float64]

RANKS = {"latency.p50": 0.5, "latency.p99": 0.99, "latency.mean": None}
DECIDES = "latency.p99"
LOADS = ((0.3, 0.3), (0.3, 0.5), (0.5, 0.25), (0.5, 0.4))
REQUESTS = (500, 2_000, 10_000)
RATES = (50, 200, 1_000)  # requests/s of the model, with the default lengths


@dataclass(frozen=True)
class Coverage:
    """Of many cells. holds: share of intervals with the truth; open: share without an upper end; rounds: mean; width:
    median of high / low of the others."""

    number: str
    holds: float
    open: float
    rounds: float
    width: float


def latencies(due: Times, service: Times) -> Times:
    """Of a queue of one server, first come first served: Lindley's recursion."""
    done = np.cumsum(service)
    starts = np.maximum.accumulate(due - np.concatenate(([0.0], done[:-1])))
    found: Times = starts + done - due
    return found


def pair(random: np.random.Generator, rho_a: float, rho_b: float, count: int) -> tuple[Times, Times]:
    """Latencies of the same `count` requests alone and beside the neighbour, without those of the first tenth. Of equal
    generators those of a smaller count are the first ones of a larger."""
    count = round(count / 0.9)
    gaps, services, other_gaps, other_services = random.spawn(4)
    due = np.cumsum(gaps.exponential(1 / rho_a, count))
    service = services.exponential(1.0, count)
    more = np.cumsum(other_gaps.exponential(1 / rho_b, round(1.2 * due[-1] * rho_b) + 20))
    more = more[more < due[-1]]
    both, all_services = (
        np.concatenate((due, more)),
        np.concatenate((service, other_services.exponential(1, len(more)))),
    )
    order = np.argsort(both, kind="stable")
    beside = np.empty(len(both))
    beside[order] = latencies(both[order], all_services[order])
    first = count // 10
    return latencies(due, service)[first:], beside[:count][first:]


def value(times: Times, rank: float | None) -> tuple[float, float]:
    """A percentile as a run has it, and its effective size; rank: None for the mean."""
    values = np.rint(1e6 * times).astype(np.int64)
    if rank is None:
        mean = float(values.mean())
        interval = mean_interval(mean, values)
        return mean, interval.effective if interval else 0.0
    ordered = np.sort(values)
    found = float(ordered[math.ceil(rank * len(values)) - 1])
    interval = quantile_interval(rank, found, values, ordered)
    return found, interval.effective if interval else 0.0


def round_of(random: np.random.Generator, rho_a: float, rho_b: float, count: int) -> dict[str, Pair]:
    """A round, by number."""
    sides = pair(random, rho_a, rho_b, count)
    pairs = {}
    for name, rank in RANKS.items():
        (alone, size), (beside, other) = (value(side, rank) for side in sides)
        pairs[name] = Pair(alone, beside, (size, other))
    return pairs


def default_count(seed: tuple[int, ...], rho_a: float, rho_b: float, rate: float) -> int:
    """How many requests the command gives the runs of a cell at this rate, by the first round (`Neighbours`)."""
    cell = Cell(share="streams", model="a", neighbour="b", level="50%", neighbour_level="50%", rate_per_s=rate)
    some = Measured(due=1, served=1, per_s=rate, latency_ns={})
    measured = Round(alone=some, beside=some)
    length, wanted = LENGTH_NS, whole_seconds(least_length(rate))
    while True:
        if length < wanted <= LONGEST_NS:
            length = wanted
        first = round_of(np.random.default_rng(seed), rho_a, rho_b, round(rate * length / SECOND_NS))[DECIDES]
        made = cell.model_copy(update={"rounds": (measured,), "ratios": (paired_ratio(DECIDES, [first]),)})
        wanted = whole_seconds(takes_ns(made, length, LONGEST_NS))
        if not length < wanted <= LONGEST_NS:
            return round(rate * length / SECOND_NS)


def measure(
    rho_a: float, rho_b: float, count: int, cells: int, most: int, precision: float, *, default: bool = False
) -> tuple[float, list[Coverage]]:
    """Of so many cells, each with `most` rounds at most; p99 decides when they are enough, as in a cell.

    count: requests of a run; with `default` the requests/s, and a cell has runs as long as the command makes them.

    Returns the requests of a run on average, and the coverage of each number.
    """
    truth = (1 - rho_a) / (1 - rho_a - rho_b)
    held: dict[str, list[bool]] = {name: [] for name in RANKS}
    widths: dict[str, list[float]] = {name: [] for name in RANKS}
    rounds, counts = [], []
    for place in range(cells):
        seed = round(100 * rho_a), round(100 * rho_b), count, most, place
        counts.append(default_count((*seed, 0), rho_a, rho_b, count) if default else count)
        pairs: dict[str, list[Pair]] = {name: [] for name in RANKS}
        while len(pairs[DECIDES]) < most and not enough(DECIDES, pairs[DECIDES], precision):
            random = np.random.default_rng((*seed, len(pairs[DECIDES])))
            for name, made in round_of(random, rho_a, rho_b, counts[-1]).items():
                pairs[name].append(made)
        rounds.append(len(pairs[DECIDES]))
        for name in RANKS:
            found = paired_ratio(name, pairs[name])
            held[name].append((found.low or 0.0) <= truth <= (found.high or math.inf))
            if found.low and found.high:
                widths[name].append(found.high / found.low)
    return float(np.mean(counts)), [
        Coverage(
            name,
            float(np.mean(held[name])),
            1 - len(widths[name]) / cells,
            float(np.mean(rounds)),
            float(np.median(widths[name])) if widths[name] else math.nan,
        )
        for name in RANKS
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", type=parse_share, default=0.1)
    parser.add_argument("--default-lengths", action="store_true")
    given = parser.parse_args()
    default = given.default_lengths
    rates = "    rate  " if default else ""
    print(f"load of a, b  {rates}requests  ratio        number   holds    open  rounds  high/low")
    for rho_a, rho_b in LOADS:
        for count in RATES if default else REQUESTS:
            options = given.cells, given.rounds, given.precision
            requests, coverages = measure(rho_a, rho_b, count, *options, default=default)
            for found in coverages:
                ratio = (1 - rho_a) / (1 - rho_a - rho_b)
                rate = f"{count:6}/s  " if default else ""
                cell = f"{rho_a:.2f}, {rho_b:.2f}    {rate}{requests:8.0f}  {ratio:5.2f}  {found.number:>12}"
                shares = f"{100 * found.holds:4.1f} %  {100 * found.open:4.0f} %"
                print(f"{cell}  {shares}  {found.rounds:6.2f}  {found.width:8.2f}", flush=True)


if __name__ == "__main__":
    main()
