"""How right the GPUs are that `plan-capacity` finds from a default `capacity`, against devices whose law is known.

    nice python -m benchmarks.fleet [--seeds 10] [--processes 32] [--only NAME,…] [--json FILE]

For each device and seed: `loadtrt capacity --engine simulated:…` with all defaults, in virtual time; three demands from
2 to 40 times what one GPU serves within the objective; a plan for each, with all defaults but the seed. The truth is of
another simulation, which knows the device's law: the fewest GPUs that meet the objective at 80 % utilisation or less,
and the p99 with as many GPUs as were planned. For M/M/1 under random routing it is the closed form.

The columns: plans, with all routings; the same number of GPUs as the truth; the same or one more; fewer; fewer by more
than one; the plan's 95 % interval holds the true p99; exit codes 98 and 99, of which no number of plans should have the
latter; the median time of a plan on one core.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from click.testing import CliRunner

from loadtrt.cli.main import cli
from loadtrt.environment import environment
from loadtrt.errors import UsageError
from loadtrt.loop.compiled import is_compiled, machine_code
from loadtrt.report.result_files import read_result
from loadtrt.results.capacity_result import CapacityResult
from loadtrt.results.fleet_result import ROUTINGS
from loadtrt.sizing.demand import steady_demand
from loadtrt.sizing.evidence import evidence_of
from loadtrt.sizing.fleet_plan import plan_fleet

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from loadtrt.results.fleet_result import Choice, FleetResult, Routing

    Floats = npt.NDArray[np.float64]

SERVICE_S = 0.01
BUFFERS = 2  # of each context, by default
UTILISATION = 0.8
DEMANDS = 3  # for each search
LEAST_TIMES, MOST_TIMES = 2.0, 40.0
RANK = 0.99
NEAR = 0.02  # a true p99 so near its bound is simulated longer
LONG, LONGEST = 1_000_000, 4_000_000  # requests
ONE_LANE = 8_000_000  # requests of one GPU of one context, as a million leave an error of 0.7 %
NS = 1e-9  # to which latencies are rounded
NONE = -1  # a request, or a lane


@dataclass(frozen=True)
class Device:
    """A GPU whose law is known.

    work: distribution of a request's work: exponential, constant, mix, or the CV of a lognormal one.
    contention: with m contexts busy each is 1 + contention·(m − 1) times slower.
    load: rate at which one GPU just meets the objective, over its throughput.
    counts: whether its rows are in the total.
    """

    name: str
    work: str
    contexts: int
    contention: float
    load: float
    counts: bool = True

    @property
    def most_per_s(self) -> float:
        """Throughput of one GPU."""
        return self.contexts / (1 + self.contention * (self.contexts - 1)) / SERVICE_S

    @property
    def engine(self) -> str:
        """As --engine names it."""
        law = {"exponential": "distribution=exponential", "constant": "", "mix": ""}.get(self.work, f"cv={self.work}")
        times = f"service={MIX[2] * 1000:g}ms,item={MIX[3] * 1000:g}ms" if self.work == "mix" else "service=10ms"
        contention = f"contention={self.contention:g}" if self.contention else ""
        return "simulated:" + ",".join(part for part in (times, law, contention, "clock=virtual") if part)

    def works(self, count: int, random: np.random.Generator) -> Floats:
        """Work of mean 1."""
        match self.work:
            case "exponential":
                return random.exponential(1.0, count)
            case "constant":
                return np.ones(count)
            case "mix":
                share, items, base, item = MIX
                return np.where(random.random(count) < share, base + item, base + items * item) / SERVICE_S
            case cv:
                variance = math.log1p(float(cv) ** 2)
                return random.lognormal(-variance / 2, math.sqrt(variance), count)


MIX = (0.7, 8, 0.01 / 4.1, 0.01 / 4.1)  # share of one item, else so many; s of a request, and of each item


def devices() -> list[Device]:
    """Service CV from 0 to 1, contention from 0 to 1, one to four contexts; one with CV 3, which is not counted."""
    return [
        Device("M/M/1 · 54 %", "exponential", 1, 0.0, 1 - math.log(100) / 10),
        Device("M/M/1 · 30 %", "exponential", 1, 0.0, 0.3),
        Device("M/M/1 · 80 %", "exponential", 1, 0.0, 0.8),
        Device("CV 0.2 · 1 context · 50 %", "0.2", 1, 0.0, 0.5),
        Device("CV 0.2 · 1 context · 90 %", "0.2", 1, 0.0, 0.9),
        Device("constant · 1 context · 70 %", "constant", 1, 0.0, 0.7),
        Device("constant · 2 contexts · 60 %", "constant", 2, 0.5, 0.6),
        Device("CV 0.5 · 4 contexts · 60 %", "0.5", 4, 0.5, 0.6),
        Device("CV 0.5 · 4 contexts · 85 %", "0.5", 4, 0.0, 0.85),
        Device("exponential · 4 contexts · 70 %", "exponential", 4, 0.2, 0.7),
        Device("CV 1 · 2 contexts · 50 %", "1", 2, 1.0, 0.5),
        Device("CV 1 · 1 context · 40 %", "1", 1, 0.0, 0.4),
        Device("mix · 1 context · 60 %", "mix", 1, 0.0, 0.6),
        Device("mix · 4 contexts · 75 %", "mix", 4, 0.5, 0.75),
        Device("CV 3 · 2 contexts · 60 %", "3", 2, 0.5, 0.6, counts=False),
    ]


# --- the truth: an event simulation that knows the law, written apart from loadtrt/sizing/station.py


def latencies(device: Device, due: Floats, work: Floats, gpus: int, routing: Routing, seed: int) -> Floats:
    """Latencies in s of requests that come at `due` to a fleet; to a single GPU, they are its own."""
    random, count, lanes = np.random.default_rng([seed, 77]), len(due), gpus * device.contexts
    choices = random.integers(gpus, size=2 * count if routing == "two-choices" else 0)
    slow = np.array([SERVICE_S * (1 + device.contention * (busy - 1)) for busy in range(device.contexts + 1)])
    of_gpus, of_lanes = np.full((5, gpus), NONE), np.full((3, lanes), NONE)
    of_gpus[:2], of_gpus[4], of_lanes[2] = 0, range(gpus), np.tile(range(-device.contexts, 0), gpus)
    times, ends, follows, left = np.zeros((3, gpus)), np.zeros(lanes), np.full(count, NONE), np.zeros(count)
    times[2] = np.inf
    arrays = slow, due, work, choices, of_gpus, times, of_lanes, ends, follows, left
    place = {"two-choices": 1, "least-outstanding": 2}.get(routing, 0)
    if is_compiled():
        machine_code(serve, (), (place, *arrays), "the fleet")((place, *arrays))
        return left - due
    lists = [array.tolist() for array in arrays]
    serve(place, *lists)
    return np.array(lists[-1]) - due


def serve(
    routing: int,
    slow: Any,
    due: Any,
    works: Any,
    choices: Any,
    of_gpus: Any,
    times: Any,
    of_lanes: Any,
    ends: Any,
    follows: Any,
    left: Any,
) -> None:
    """Fill in when each request leaves, s. numba compiles this.

    A lane has a request that computes and at most one that waits in it; the others wait in line, one line for each GPU.

    routing: 0: all requests go to the first GPU; 1: to one of two choices; 2: to one with the fewest.
    slow: s that a lane takes for work of 1, by the number of busy lanes.
    choices: of each request the two GPUs, one after the other.
    of_gpus: of each GPU: requests; busy lanes; first and last request in line; when it last gained or lost a request.
    times: of each GPU: work that a busy lane would have done so far; the instant of that, s; its next completion, s.
    of_lanes: of each lane: the request that computes; the one that waits; when it last gained or lost a request.
    ends: of each lane, what its GPU has done when its request is done.
    follows: of each request the next one in line.
    """
    loads, busy, first, last, since = of_gpus
    progress, at, next_s = times
    computes, waits, moved = of_lanes
    gpus, contexts, arrived, clock = len(loads), len(ends) // len(loads), 0, len(loads)
    for _ in range(2 * len(due)):
        gpu = 0
        for each in range(1, gpus):
            if next_s[each] < next_s[gpu]:
                gpu = each
        completes = arrived == len(due) or next_s[gpu] < due[arrived]
        if completes:
            now, request = next_s[gpu], first[gpu]
        else:
            now, request = due[arrived], arrived
            arrived += 1
            if routing == 0:
                gpu = 0
            elif routing == 1:
                gpu = choices[2 * request]
                if loads[choices[2 * request + 1]] < loads[gpu]:
                    gpu = choices[2 * request + 1]
            else:
                gpu = 0
                for each in range(1, gpus):
                    more = loads[each] - loads[gpu]
                    if more < 0 or (more == 0 and since[each] < since[gpu]):
                        gpu = each
        if busy[gpu]:
            progress[gpu] += (now - at[gpu]) / slow[busy[gpu]]
        at[gpu], lanes = now, range(gpu * contexts, (gpu + 1) * contexts)
        if completes:
            lane = NONE
            for each in lanes:
                if computes[each] != NONE and (lane == NONE or ends[each] < ends[lane]):
                    lane = each
            left[computes[lane]], computes[lane], waits[lane] = now, waits[lane], NONE
            clock += 1
            moved[lane] = clock
            loads[gpu] -= 1
            if computes[lane] == NONE:
                busy[gpu] -= 1
            else:
                ends[lane] = progress[gpu] + works[computes[lane]]
            if request != NONE:
                first[gpu] = follows[request]
        else:
            loads[gpu] += 1
            if loads[gpu] > contexts * BUFFERS:  # all lanes are full
                if first[gpu] == NONE:
                    first[gpu] = request
                else:
                    follows[last[gpu]] = request
                last[gpu], request = request, NONE
        if request != NONE:  # it enters the lane with the fewest
            lane, fewest = NONE, BUFFERS
            for each in lanes:
                has = (computes[each] != NONE) + (waits[each] != NONE)
                if has < fewest or (has == fewest < BUFFERS and moved[each] < moved[lane]):
                    lane, fewest = each, has
            clock += 1
            moved[lane] = clock
            if computes[lane] == NONE:
                computes[lane], ends[lane] = request, progress[gpu] + works[request]
                busy[gpu] += 1
            else:
                waits[lane] = request
        clock += 1
        since[gpu], next_s[gpu] = clock, np.inf
        for each in lanes:
            if computes[each] != NONE:
                next_s[gpu] = min(next_s[gpu], now + (ends[each] - progress[gpu]) * slow[busy[gpu]])


@cache
def true_quantile(device: Device, routing: Routing, rate: float, gpus: int, requests: int = LONG) -> float:
    """p99 of latency in s, of so many requests after a tenth that fills the queues."""
    if device.work == "exponential" and device.contexts == 1 and (routing == "random" or gpus == 1):
        return math.log(100) / (1 / SERVICE_S - rate / gpus)
    pooled = routing in ("least-outstanding", "two-choices")
    one_lane = device.contexts == 1 and not pooled
    requests = ONE_LANE if one_lane else requests
    random = np.random.default_rng([len(device.name), gpus, requests])
    count = requests + requests // 10
    if routing == "round-robin" and gpus > 1:
        gaps = random.standard_gamma(gpus, count) / rate
    else:
        gaps = random.exponential(1 / rate if pooled else gpus / rate, count)
    works = device.works(count, random)
    due = np.cumsum(gaps) * (count / rate * (1 if pooled else gpus) / gaps.sum())
    works /= works.mean()
    if one_lane:  # Lindley, The theory of queues with a single server, 1952
        done = np.cumsum(works) * SERVICE_S
        sojourns = np.maximum.accumulate(due - np.concatenate(([0.0], done[:-1]))) + done - due
    else:
        sojourns = latencies(device, due, works, gpus if pooled else 1, routing, gpus)
    return float(np.quantile(sojourns[requests // 10 :], RANK))


@cache
def bound_s(device: Device) -> float:
    """The objective: p99 of one GPU at the device's load."""
    return true_quantile(device, "random", device.load * device.most_per_s, 1, LONGEST)


def meets(device: Device, routing: Routing, rate: float, gpus: int) -> bool:
    """Whether so many GPUs truly meet the objective."""
    if routing == "random":
        return rate / gpus <= device.load * device.most_per_s
    over = true_quantile(device, routing, rate, gpus) / bound_s(device)
    if abs(over - 1) < NEAR:
        over = true_quantile(device, routing, rate, gpus, LONGEST) / bound_s(device)
    return over <= 1


@cache
def truly_needed(device: Device, routing: Routing, rate: float) -> int:
    """The fewest GPUs that meet the objective and the utilisation; those of random routing are enough for any other."""
    low = math.ceil(rate / (UTILISATION * device.most_per_s) * (1 - 1e-12))
    high = max(math.ceil(rate / (device.load * device.most_per_s) * (1 - 1e-12)), low)
    if routing == "random" or low == high:
        return high
    if meets(device, routing, rate, low):
        return low
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if meets(device, routing, rate, middle) else (middle, high)
    return high


# --- the plans


@dataclass(frozen=True)
class Planned:
    """One routing of one plan. truth: GPUs truly needed; needed: planned; true_s: p99 with as many, s."""

    device: str
    seed: int
    routing: str
    rate: float
    truth: int
    needed: int | None
    at_least: int | None
    true_s: float | None
    low_s: float | None
    high_s: float | None
    infeasible: bool
    doubt: bool
    seconds: float
    requests: int

    @property
    def holds(self) -> bool | None:
        """Whether the interval holds the true p99; None without an answer."""
        if self.true_s is None or self.low_s is None or self.high_s is None:
            return None
        return self.low_s - NS <= self.true_s <= self.high_s + NS


def searched(device: Device, seed: int) -> CapacityResult:
    """What `loadtrt capacity` finds with all defaults."""
    with TemporaryDirectory() as folder:
        file = f"{folder}/capacity.json"
        options = ["--engine", device.engine, "--contexts", str(device.contexts), "--seed", str(seed), "--quiet"]
        options += ["--objective", f"latency.p99 < {round(bound_s(device) * 1e9)}ns", "--json", file]
        if device.work == "mix":
            options += ["--mix", f"1:{MIX[0]}, {MIX[1]}:{1 - MIX[0]:.1f}"]
        done = CliRunner().invoke(cli, ["capacity", *options], standalone_mode=False)
        if done.exception is not None:
            raise done.exception
        return read_result(CapacityResult, Path(file))


def planned(device: Device, seed: int) -> list[Planned]:
    """All plans from one search."""
    result = searched(device, seed)
    random = np.random.default_rng([seed, len(device.name)])
    places = (np.arange(DEMANDS) + random.random(DEMANDS)) / DEMANDS
    rows = []
    for place in places.tolist():
        times = LEAST_TIMES * (MOST_TIMES / LEAST_TIMES) ** place
        rate = float(f"{times * device.load * device.most_per_s:.4g}")
        began = time.process_time()
        try:
            plan = plan_fleet(evidence_of(result), steady_demand(rate), list(result.objectives), seed=seed)
        except UsageError as error:
            print(f"{device.name}, seed {seed}: {error}", flush=True)
            continue
        seconds = time.process_time() - began
        rows += [row_of(device, seed, rate, plan, choice, seconds) for choice in plan.choices]
    return rows


def row_of(device: Device, seed: int, rate: float, plan: FleetResult, choice: Choice, seconds: float) -> Planned:
    """One routing of a plan beside the truth."""
    share = choice.degraded.objectives[0] if choice.degraded is not None else None
    return Planned(
        device=device.name,
        seed=seed,
        routing=choice.routing,
        rate=rate,
        truth=truly_needed(device, choice.routing, rate),
        needed=choice.needed,
        at_least=choice.at_least,
        true_s=None if choice.needed is None else true_quantile(device, choice.routing, rate, choice.needed),
        low_s=None if share is None else (share.value_low_ns or 0.0) / 1e9,
        high_s=None if share is None else (share.value_high_ns or math.inf) / 1e9,
        infeasible=choice.infeasible,
        doubt=plan.doubt is not None,
        seconds=seconds,
        requests=plan.gpu.requests,
    )


HEADER = (
    f"{'':32}{'plans':>6}{'same':>7}{'or +1':>8}{'too few':>9}{'by > 1':>8}{'95 % holds':>12}{'98':>6}{'99':>5}"
    f"{'requests':>10}{'time':>8}"
)


def line_of(name: str, rows: Sequence[Planned]) -> str:
    """A line of the table."""
    known = [row for row in rows if row.needed is not None and not row.doubt]
    more = [(row.needed or 0) - row.truth for row in known]
    held = [row.holds for row in known if row.holds is not None]
    part = 100 / max(len(known), 1)
    return (
        f"{name:<32}{len(rows):>6}{part * sum(each == 0 for each in more):>5.0f} %"
        f"{part * sum(each in (0, 1) for each in more):>6.0f} %{part * sum(each < 0 for each in more):>7.1f} %"
        f"{sum(each < -1 for each in more):>8}{100 * sum(held) / max(len(held), 1):>10.1f} %"
        f"{sum((row.needed is None and not row.infeasible) or row.doubt for row in rows):>6}"
        f"{sum(row.infeasible for row in rows):>5}{median(row.requests for row in rows):>10.0f}"
        f"{median(row.seconds for row in rows):>6.1f} s"
    )


def all_planned(wanted: Sequence[Device], seeds: int, processes: int) -> Iterator[tuple[Device, list[Planned]]]:
    """The rows of each device, in order."""
    with ProcessPoolExecutor(processes) as pool:
        futures = [(device, [pool.submit(planned, device, 1 + seed) for seed in range(seeds)]) for device in wanted]
        for device, parts in futures:
            yield device, [row for part in parts for row in part.result()]


def main() -> None:
    """Print the table, and the machine it was made on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="searches of each device")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="searches at a time")
    parser.add_argument("--only", help="devices whose names contain one of these, such as M/M/1,mix")
    parser.add_argument("--json", type=Path, help="write every plan there too")
    options = parser.parse_args()
    machine = environment()
    print(f"{machine['cpu']}, {machine['cores']} cores, CPython {machine['python']}, numpy {np.__version__}")
    words = options.only.split(",") if options.only else [""]
    wanted = [device for device in devices() if any(word in device.name for word in words)]
    print(f"{options.seeds} default searches a device, {DEMANDS} demands each, {len(ROUTINGS)} routings\n{HEADER}")
    counted: list[Planned] = []
    every: list[Planned] = []
    for device, rows in all_planned(wanted, options.seeds, options.processes):
        every += rows
        counted += rows if device.counts else []
        if rows:
            print(line_of(device.name, rows), flush=True)
        if options.json:
            options.json.write_text(json.dumps([asdict(row) for row in every], indent=1) + "\n")
    for routing in ROUTINGS:
        print(line_of(f"all with CV ≤ 1, {routing}", [row for row in counted if row.routing == routing]))
    print(line_of("all with CV ≤ 1", counted))


if __name__ == "__main__":
    main()
