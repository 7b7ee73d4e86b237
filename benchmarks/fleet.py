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
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from heapq import heappop, heappush
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from click.testing import CliRunner

from loadtrt.cli.main import cli
from loadtrt.environment import environment
from loadtrt.errors import UsageError
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


class Server:
    """One GPU: lanes, each with a request that computes and at most one that waits in it; the others wait in line."""

    def __init__(self, contexts: int) -> None:
        self.lanes: list[deque[int]] = [deque() for _ in range(contexts)]
        self.line: deque[int] = deque()
        self.since = [float(lane) for lane in range(-contexts, 0)]  # when each lane last gained or lost a request
        self.ends: list[tuple[float, int]] = []  # (progress at which its lane's request is done, lane)
        self.progress = self.at = 0.0
        self.load = self.stamp = 0


def latencies(device: Device, due: Floats, work: Floats, gpus: int, routing: Routing, seed: int) -> Floats:
    """Latencies in s of requests that come at `due` to a fleet; to a single GPU, they are its own."""
    random = np.random.default_rng([seed, 77])
    choices = random.integers(gpus, size=(len(due), 2)) if routing == "two-choices" else None
    slow = [SERVICE_S * (1 + device.contention * (busy - 1)) for busy in range(device.contexts + 1)]
    servers = [Server(device.contexts) for _ in range(gpus)]
    since = [float(place) for place in range(gpus)]  # when each GPU last gained or lost a request
    fewest = [(0, since[place], place) for place in range(gpus)]  # outstanding, since when, GPU
    clock, arrived, came, works = float(gpus), 0, due.tolist(), work.tolist()
    left = [0.0] * len(came)
    events: list[tuple[float, int, int]] = []  # (instant, stamp, GPU)

    def plan(place: int, server: Server, now: float) -> None:
        server.stamp += 1
        if server.ends:
            wait = (server.ends[0][0] - server.progress) * slow[len(server.ends)]
            heappush(events, (now + wait, server.stamp, place))

    def move(server: Server, now: float) -> None:
        if server.ends:
            server.progress += (now - server.at) / slow[len(server.ends)]
        server.at = now

    def enter(server: Server, request: int) -> None:
        nonlocal clock
        lane = min(range(device.contexts), key=lambda each: (len(server.lanes[each]), server.since[each]))
        clock += 1
        server.since[lane] = clock
        server.lanes[lane].append(request)
        if len(server.lanes[lane]) == 1:
            heappush(server.ends, (server.progress + works[request], lane))

    while arrived < len(came) or events:
        if events and (arrived == len(came) or events[0][0] < came[arrived]):
            now, stamp, place = heappop(events)
            server = servers[place]
            if stamp != server.stamp:
                continue
            move(server, now)
            _, lane = heappop(server.ends)
            request = server.lanes[lane].popleft()
            left[request] = now
            clock += 1
            server.since[lane] = clock
            server.load -= 1
            if server.lanes[lane]:
                heappush(server.ends, (server.progress + works[server.lanes[lane][0]], lane))
            if server.line:
                enter(server, server.line.popleft())
        else:
            now = came[arrived]
            if routing == "least-outstanding":
                while True:
                    _, then, place = heappop(fewest)
                    if then == since[place]:  # otherwise it has gained or lost requests since, and has another entry
                        break
            elif choices is not None:
                first, second = choices[arrived].tolist()
                place = second if servers[second].load < servers[first].load else first
            else:
                place = 0
            server = servers[place]
            move(server, now)
            server.load += 1
            if sum(map(len, server.lanes)) == device.contexts * BUFFERS:
                server.line.append(arrived)
            else:
                enter(server, arrived)
            arrived += 1
        if routing == "least-outstanding":
            clock += 1
            since[place] = clock
            heappush(fewest, (server.load, clock, place))
        plan(place, server, now)
    return np.array(left) - due


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
