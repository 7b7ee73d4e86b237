"""How often runs are said to begin with a transient, to drift, to be overloaded, slow for a part or to stall: rightly
and wrongly.

    python -m benchmarks.steadiness [--seeds 200] [--json FILE]

M/M/1 queues (see benchmarks/verdicts.py), which begin in their steady state or, as a run does, empty; and one lane in a
closed loop, whose latencies are lognormal with a CV of 10 %, independent or with an autocorrelation of 0.9 from one to
the next, the first of them longer, or all of them ever longer. False alarms are what is told of a queue below capacity
that begins in its steady state, of one that stalls once (but for the stall), and of closed loops in which nothing
changes. One that begins empty has a transient indeed, though hardly one that can be told.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.environment import environment
from loadtrt.records.records import COLUMNS, Records
from loadtrt.stats.steady import steadiness_of
from loadtrt.units import MILLISECOND_NS, format_count

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Series = npt.NDArray[np.float64]

LENGTHS = (200, 1_000, 10_000, 100_000)
_BEFORE = 20_000  # requests that a queue has served before it is looked at


@dataclass(frozen=True)
class Row:
    """What was told of runs of one kind, as parts of all seeds. median_ratio: of the drifts told, None without any."""

    system: str
    requests: int
    transient: float
    drift: float
    overloaded: float
    slow: float
    stall: float
    median_ratio: float | None


def queue(
    load: float,
    requests: int,
    seed: int,
    before: int = 0,
    course: Callable[[Series], Series] = np.ones_like,
    lognormal: bool = False,
) -> Records:
    """M/M/1, a mean service of 1 ms times `course` of the part of the run that has passed, by due instants; `before`
    requests were served before them. lognormal: services with that distribution and a CV of 1."""
    random = np.random.default_rng([seed, requests])
    count, sigma = requests + before, math.sqrt(math.log(2))
    service, gaps = random.exponential(1.0, count), random.exponential(1 / load, count)
    if lognormal:
        service = random.lognormal(-(sigma**2) / 2, sigma, count)
    service[before:] *= course(np.arange(requests) / requests)
    return _records(np.cumsum(gaps)[before:], _queued(service, gaps)[before:], service[before:])


def _queued(service: Series, gaps: Series) -> Series:
    """Latencies of one lane, first come first served: Lindley's recursion, unrolled. gaps: before each request."""
    walk = np.concatenate(([0.0], np.cumsum(service[:-1] - gaps[1:])))
    latency: Series = walk - np.minimum.accumulate(walk) + service
    return latency


def stalled(requests: int, seed: int) -> Records:
    """One lane, arrivals at constant distance, load 50 %, latencies with a CV of 10 %: it stands still once, for 3 % of
    the run."""
    random = np.random.default_rng([seed, requests])
    service: Series = np.exp(0.1 * random.standard_normal(requests))
    service[random.integers(requests)] += 0.06 * requests
    gaps = np.full(requests, 2.0)
    return _records(np.cumsum(gaps), _queued(service, gaps), service)


def lane(requests: int, seed: int, lag: float = 0.0, course: Callable[[Series], Series] = np.ones_like) -> Records:
    """One lane in a closed loop, 1 ms a request times `course` of the part of the run that has passed."""
    random = np.random.default_rng([seed, requests])
    noise = random.standard_normal(requests)
    if lag:
        noise *= np.sqrt(1 - lag**2)
        for place in range(1, requests):
            noise[place] += lag * noise[place - 1]
    latency = np.exp(0.1 * noise) * course(np.arange(requests) / requests)
    return _records(np.concatenate(([0.0], np.cumsum(latency)[:-1])), latency, latency)


def _records(due_ms: Series, latency_ms: Series, service_ms: Series) -> Records:
    rows = np.zeros((len(due_ms), len(COLUMNS)), np.int64)
    due, completed = (due_ms - due_ms[0]) * MILLISECOND_NS, (due_ms - due_ms[0] + latency_ms) * MILLISECOND_NS
    rows[:, COLUMNS.index("due")] = due
    rows[:, COLUMNS.index("submitted")] = completed - service_ms * MILLISECOND_NS
    rows[:, COLUMNS.index("completed")] = completed
    return Records(rows)


def slow_start(part: float, factor: float) -> Callable[[Series], Series]:
    """The first `part` of the run takes `factor` times as long."""
    return lambda passed: np.where(passed < part, factor, 1.0)


def slow_middle(factor: float) -> Callable[[Series], Series]:
    """The middle third of the run takes `factor` times as long."""
    return lambda passed: np.where(abs(passed - 0.5) < 1 / 6, factor, 1.0)


def ever_slower(factor: float) -> Callable[[Series], Series]:
    """From 1 at the beginning in a straight line to `factor` at the end."""
    return lambda passed: 1 + (factor - 1) * passed


# (what it is, whether it is a closed loop, records of n requests and a seed)
SYSTEMS: tuple[tuple[str, bool, Callable[[int, int], Records]], ...] = (
    *(
        (f"queue, load {100 * load:.0f} %", False, lambda n, seed, load=load: queue(load, n, seed, _BEFORE))
        for load in (0.5, 0.85, 0.95)
    ),
    ("arrivals at constant distance, a stall", False, stalled),
    ("queue, load 50 %, lognormal services", False, lambda n, seed: queue(0.5, n, seed, _BEFORE, lognormal=True)),
    ("closed loop", True, lane),
    ("closed loop, correlated", True, lambda n, seed: lane(n, seed, 0.9)),
    *(
        (f"queue, load {100 * load:.0f} %, begins empty", False, lambda n, seed, load=load: queue(load, n, seed))
        for load in (0.5, 0.85, 0.95, 1.0, 1.05, 1.1, 1.2)
    ),
    *(
        (
            f"first {100 * part:.0f} % take {100 * factor - 100:.0f} % longer",
            True,
            lambda n, seed, part=part, factor=factor: lane(n, seed, course=slow_start(part, factor)),
        )
        for part in (0.02, 0.1, 0.3)
        for factor in (1.15, 1.5)
    ),
    *(
        (
            f"{100 * factor - 100:.0f} % longer at the end",
            True,
            lambda n, seed, factor=factor: lane(n, seed, course=ever_slower(factor)),
        )
        for factor in (1.03, 1.1, 1.3)
    ),
    ("10 % longer from the middle on", True, lambda n, seed: lane(n, seed, course=slow_start(0.5, 1 / 1.1))),
    *(
        (
            f"middle third takes {100 * factor - 100:.0f} % longer",
            True,
            lambda n, seed, factor=factor: lane(n, seed, course=slow_middle(factor)),
        )
        for factor in (1.1, 1.3)
    ),
    *(
        (
            f"queue, load {100 * load:.0f} %, middle third {100 * factor * load:.0f} %",
            False,
            lambda n, seed, load=load, factor=factor: queue(load, n, seed, _BEFORE, slow_middle(factor)),
        )
        for load, factor in ((0.7, 1.5), (0.7, 2.0), (0.5, 3.0))
    ),
)


def measure(system: int, requests: int, seeds: int) -> Row:
    """That many runs of SYSTEMS[system]."""
    name, closed, make = SYSTEMS[system]
    found = [steadiness_of(make(requests, seed), 0, closed=closed, steady=True, places=1) for seed in range(seeds)]
    drifts = [each.drift_ratio for each in found if each.drift_ratio is not None]
    return Row(
        name,
        requests,
        sum(bool(each.transient_ns) for each in found) / seeds,
        len(drifts) / seeds,
        sum(bool(each.overloaded) for each in found) / seeds,
        sum(each.slow is not None for each in found) / seeds,
        sum(each.stall is not None for each in found) / seeds,
        float(np.median(drifts)) if drifts else None,
    )


def _table(rows: list[list[Row]], what: str, seeds: int, told: Callable[[Row], tuple[float, ...]]) -> None:
    print(f"{seeds} seeds a cell; % of runs with {what}")
    print(f"{'':40}" + "".join(f"{format_count(n):>19}" for n in LENGTHS))
    for line in rows:
        cells = (" / ".join(f"{100 * share:.1f}" for share in told(row)) for row in line)
        print(f"{line[0].system:<40}" + "".join(f"{cell:>19}" for cell in cells))


def main() -> None:
    """Print the table, and the machine it was made on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=200, help="runs a row")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    options = parser.parse_args()
    machine = environment()
    print(f"{machine['cpu']}, {machine['cores']} cores, CPython {machine['python']}, numpy {np.__version__}")
    rows = [[measure(number, requests, options.seeds) for requests in LENGTHS] for number in range(len(SYSTEMS))]
    _table(
        rows, "a transient / a drift / overload", options.seeds, lambda row: (row.transient, row.drift, row.overloaded)
    )
    _table(rows, "a slow part / a stall", options.seeds, lambda row: (row.slow, row.stall))
    if options.json:
        options.json.write_text(
            json.dumps({"machine": machine, "rows": [asdict(row) for line in rows for row in line]}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
