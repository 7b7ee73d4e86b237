"""How often runs are said to begin with a transient, to drift, to be overloaded, slow for a part or to stall: rightly
and wrongly.

    python -m benchmarks.steadiness [--seeds 200] [--processes 1] [--json FILE]

M/M/1 queues (see benchmarks/verdicts.py), which begin in their steady state or, as a run does, empty; and one lane in a
closed loop, whose latencies are lognormal with a CV of 10 %, independent or with an autocorrelation of 0.9 from one to
the next, the first of them longer, or all of them ever longer. False alarms are what is told of a queue below capacity
that begins in its steady state, of one that stalls once (but for the stall), and of closed loops in which nothing
changes. One that begins empty has a transient indeed, though hardly one that can be told.

Then lanes whose services have other laws (benchmarks/served.py), in closed loops and queues: how often a stall or a
slow part is told of them though nothing happens; how often stalls are told that are there, and their distance; and how
often a part of the run is found in which services take twice as long.
"""

from __future__ import annotations

import argparse
import json
import math
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.served import LAWS, Stops, served
from loadtrt.environment import environment
from loadtrt.records.records import COLUMNS, Records
from loadtrt.stats.steady import steadiness_of
from loadtrt.units import MILLISECOND_NS, format_count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy.typing as npt

    from loadtrt.results.steadiness import Steadiness

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
    results = [steadiness_of(make(requests, seed), 0, closed=closed, steady=True, places=1) for seed in range(seeds)]
    drifts = [each.drift_ratio for each in results if each.drift_ratio is not None]
    return Row(
        name,
        requests,
        sum(bool(each.transient_ns) for each in results) / seeds,
        len(drifts) / seeds,
        sum(bool(each.overloaded) for each in results) / seeds,
        sum(each.slow is not None for each in results) / seeds,
        sum(each.stall is not None for each in results) / seeds,
        float(np.median(drifts)) if drifts else None,
    )


def _table(rows: list[list[Row]], what: str, seeds: int, shares_of: Callable[[Row], tuple[float, ...]]) -> None:
    print(f"{seeds} seeds a cell; % of runs with {what}")
    print(f"{'':40}" + "".join(f"{format_count(n):>19}" for n in LENGTHS))
    for line in rows:
        cells = (" / ".join(f"{100 * share:.1f}" for share in shares_of(row)) for row in line)
        print(f"{line[0].system:<40}" + "".join(f"{cell:>19}" for cell in cells))


SERVED = 10_000
STOPPED = 30_000
LOADS: tuple[tuple[str, float | None, float], ...] = (  # load, None: closed loop; cv of the gaps between arrivals
    ("closed", None, 1.0), ("30 %", 0.3, 1.0), ("60 %", 0.6, 1.0), ("90 %", 0.9, 1.0), ("60 %, CV 4", 0.6, 4.0),
)  # fmt: skip
STOPS = (
    *(Stops(length, every) for length, every in ((20, 1_000), (50, 2_000), (200, 1_000), (200, 5_000), (200, 0))),
    *(Stops(length, every, 0) for length, every in ((20, 1_000), (200, 2_000), (200, 0))),
)
PARTS = {"first third": (0, 1 / 3), "middle third": (1 / 3, 2 / 3), "last third": (2 / 3, 1), "a fifth": (0.4, 0.6)}


def law_steadiness(
    law: int, seed: int, *, lanes: int, load: float | None, requests: int = SERVED, **how: Any
) -> Steadiness:
    """Of one run of LAWS[law]; how: as for `served`."""
    records = served(LAWS[law], requests, seed, lanes=lanes, load=load, **how)
    sets = 1 if LAWS[law].part else 0
    return steadiness_of(records, 0, closed=load is None, steady=True, places=lanes, sets=sets)


def quiet(law: int, seeds: int) -> list[tuple[float, float]]:
    """(stalls, slow parts) told falsely, parts of all seeds: by lanes (1, 4) and LOADS."""
    cells = []
    for lanes in (1, 4):
        for _, load, cv in LOADS:
            results = [law_steadiness(law, seed, lanes=lanes, load=load, cv=cv) for seed in range(seeds)]
            cells.append((_share(each.stall for each in results), _share(each.slow for each in results)))
    return cells


def stopped(law: int, place: int, seeds: int) -> list[tuple[float, float]]:
    """(stalls told, with their distance) of STOPS[place], parts of all seeds: by lanes (1, 4) and closed loop, 60 %
    load; where one lane stops, with four only."""
    stops, cells = STOPS[place], []
    for lanes in (1, 4) if stops.lane is None else (4,):
        for load in (None, 0.6):
            made = partial(law_steadiness, law, lanes=lanes, load=load, requests=STOPPED, stops=stops)
            results = [each.stall for each in map(made, range(seeds))]
            wanted = stops.every_ms * MILLISECOND_NS
            near = [each and abs((each.period_ns or 0) - wanted) <= wanted / 20 for each in results]
            cells.append((_share(results), _share(it or None for it in near)))
    return cells


def doubled(law: int, seeds: int) -> list[float]:
    """A slow part told where services take twice as long in a part of the run, parts of all seeds: by PARTS and closed
    loop, 30 % and 45 % load. In a closed loop a transient or a drift says the same."""
    cells = []
    for first, last in PARTS.values():
        for load in (None, 0.3, 0.45):
            course = partial(_twice, first, last)
            results = [law_steadiness(law, seed, lanes=1, load=load, course=course) for seed in range(seeds)]
            cells.append(_share(each.slow or each.transient_ns or each.drift_ratio or None for each in results))
    return cells


def _twice(first: float, last: float, passed: Series) -> Series:
    return np.where((passed >= first) & (passed < last), 2.0, 1.0)


def _share(each: Iterable[object]) -> float:
    known = [one is not None for one in each]
    return sum(known) / len(known)


def _print_served(seeds: int, falsely: Any, stops: Any, parts: Any) -> None:
    names = [law.name for law in LAWS]
    for half, lanes in enumerate((1, 4)):
        how = f"{seeds} seeds a cell, {format_count(SERVED)} requests, contexts: {lanes}"
        print(f"{how}; % of runs with a stall / a slow part, falsely")
        print(f"{'':28}" + "".join(f"{name:>16}" for name, _, _ in LOADS))
        for name, cells in zip(names, falsely, strict=True):
            some = cells[half * len(LOADS) : (half + 1) * len(LOADS)]
            print(f"{name:28}" + "".join(f"{f'{100 * stall:.1f} / {100 * slow:.1f}':>16}" for stall, slow in some))
    few = max(seeds // 4, 1)
    print(f"{few} seeds a cell, {format_count(STOPPED)} requests of 1 ms; % with a stall / with the distance of stalls")
    for place, stop in enumerate(STOPS):
        how = f"{stop.length_ms:g} ms " + (f"every {stop.every_ms / 1000:g} s" if stop.every_ms else "once")
        served_by = ("1", "4") if stop.lane is None else ("1 of 4",)
        print(f"{how:28}" + "".join(f"{f'{which}, {load}':>16}" for which in served_by for load in ("closed", "60 %")))
        for law, name in enumerate(names):
            cells = [
                f"{100 * stalled:.0f}" + (f" / {100 * apart:.0f}" if stop.every_ms else "")
                for stalled, apart in stops[str((law, place))]
            ]
            print(f"  {name:26}" + "".join(f"{cell:>16}" for cell in cells))
    print(
        f"{few} seeds a cell; % of runs in which a part that takes twice as long is told: closed loop, 30 %, 45 % load"
    )
    print(f"{'':28}" + "".join(f"{part:>18}" for part in PARTS))
    for name, cells in zip(names, parts, strict=True):
        texts = (" / ".join(f"{100 * cell:.0f}" for cell in cells[at : at + 3]) for at in range(0, len(cells), 3))
        print(f"{name:28}" + "".join(f"{text:>18}" for text in texts))


def main() -> None:
    """Print the tables, and the machine they were made on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=200, help="runs a cell; a quarter of them where something happens")
    parser.add_argument("--processes", type=int, default=1, help="how many measure at the same time")
    parser.add_argument("--only", choices=("queues", "services"), help="the first two tables alone, or the others")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    options = parser.parse_args()
    machine, seeds, few = environment(), options.seeds, max(options.seeds // 4, 1)
    print(
        f"{machine['cpu']}, {machine['cores']} cores, CPython {machine['python']}, numpy {np.__version__}", flush=True
    )
    kept: dict[str, Any] = {"machine": machine}
    with ProcessPoolExecutor(options.processes) as pool:
        if options.only != "services":
            cells = [(number, requests) for number in range(len(SYSTEMS)) for requests in LENGTHS]
            made = list(pool.map(measure, *zip(*cells, strict=True), [seeds] * len(cells)))
            rows = [made[at : at + len(LENGTHS)] for at in range(0, len(made), len(LENGTHS))]
            _table(
                rows, "a transient / a drift / overload", seeds, lambda row: (row.transient, row.drift, row.overloaded)
            )
            _table(rows, "a slow part / a stall", seeds, lambda row: (row.slow, row.stall))
            kept["rows"] = [asdict(row) for row in made]
        if options.only != "queues":
            laws = range(len(LAWS))
            each = [(law, place) for law in laws for place in range(len(STOPS))]
            stops = pool.map(stopped, *zip(*each, strict=True), [few] * len(each))
            falsely = pool.map(quiet, laws, [seeds] * len(LAWS))
            parts = pool.map(doubled, laws, [few] * len(LAWS))
            kept["falsely"], kept["parts"] = list(falsely), list(parts)
            kept["stops"] = dict(zip(map(str, each), stops, strict=True))
            _print_served(seeds, kept["falsely"], kept["stops"], kept["parts"])
    if options.json:
        options.json.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
