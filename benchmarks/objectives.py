"""How often intervals of objectives on numbers of the whole run hold the truth, and how often few drops are certified.

    python -m benchmarks.objectives [--seeds 300]

Throughput, goodput and inferences: M/M/1 (benchmarks/verdicts.py), whose requests leave as they come, at rate λ, and
exceed b = −ln(p)·S/(1 − ρ) with probability p; a tenth of the requests, drawn at random, carry 32 inferences, the
others one. Power: second by second around 300 W, independent or as an autoregressive process; requests are Poisson.
Drops: M/M/1 with K places to wait, simulated request by request; of all a share (1 − ρ)ρ^N/(1 − ρ^(N+1)) is dropped,
N = K + 1. "met" is a false certificate where the bound is below that.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter, deque
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.verdicts import SERVICE_NS, run
from loadtrt.asked.objective import parse_objective
from loadtrt.environment import environment
from loadtrt.records.histogram import Histogram
from loadtrt.records.records import COLUMNS, DROPPED, Records
from loadtrt.results.breakdown import Throughput
from loadtrt.results.gpu_telemetry import GpuFacts, GpuInterval, GpuTelemetry, SamplingCost, telemetry_of
from loadtrt.results.steadiness import Interval
from loadtrt.stats.intervals import rate_interval
from loadtrt.stats.verdict import judge
from loadtrt.stats.whole_run import judge_number
from loadtrt.units import SECOND_NS, format_count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.results.run_result import ObjectiveShare

LOADS = (0.5, 0.7, 0.85, 0.95)
REQUESTS = 20_000
LATE, LARGE, ITEMS = 0.2, 0.1, 32
WATTS, PER_S = 300.0, 100
SYSTEMS = ((0.5, 8), (0.7, 17), (0.85, 14), (0.85, 30), (0.95, 40))


def judged(
    text: str,
    records: Records,
    *,
    sizes: Sequence[int] = (1,),
    steady: bool = True,
    intervals: Sequence[Interval] = (),
    telemetry: GpuTelemetry | None = None,
) -> ObjectiveShare:
    """The verdict on an open loop of these records; the arguments are those of `judge_number`."""
    objective, completed = parse_objective(text), np.sort(records.ok.completed)
    rate = (len(completed) - 1) * SECOND_NS / float(completed[-1] - completed[0]) if len(completed) > 1 else None
    items = np.array(sizes)[records.ok.inputs if len(sizes) > 1 else np.zeros(len(completed), int)]
    rates = Throughput(
        requests_per_s=rate,
        inferences_per_s=None if rate is None else rate * float(items.mean()),
        offered_per_s=None,
        confidence=rate_interval(rate, records) if rate is not None and steady else None,
    )
    good = int(np.count_nonzero(~objective.bad(records.ok)))
    by_status = np.bincount(records.status, minlength=4).tolist()
    counted = {"steady": steady, "sizes": sizes, "intervals": intervals, "telemetry": telemetry}
    return judge_number(objective, rates, records, good, by_status, **counted)  # type: ignore[arg-type]


def holds(item: ObjectiveShare, true: float) -> bool:
    """Whether the interval holds the truth; an end that is not known does."""
    return (item.value_low or 0.0) <= true <= (math.inf if item.value_high is None else item.value_high)


def rates_hold(load: float, seed: int) -> dict[str, bool]:
    """Throughput, goodput and inferences of one run."""
    records, per_s = run(load, REQUESTS, seed), load * SECOND_NS / SERVICE_NS
    records.rows[:, COLUMNS.index("inputs")] = np.random.default_rng(seed).random(REQUESTS) < LARGE
    bound_ns = round(-math.log(LATE) / (1 - load) * SERVICE_NS)
    true = {
        "throughput > 1/s": per_s,
        f"goodput(latency < {bound_ns}ns) > 1/s": per_s * (1 - LATE),
        "inferences > 1/s": per_s * (1 + LARGE * (ITEMS - 1)),
    }
    return {
        text.partition(" ")[0].partition("(")[0]: holds(judged(text, records, sizes=(1, ITEMS)), truth)
        for text, truth in true.items()
    }


def telemetry(watts: Sequence[float | None], requests: Sequence[int]) -> tuple[GpuTelemetry, list[Interval]]:
    """A second for each power; a request is one inference."""
    seconds = [
        GpuInterval(
            start_ns=at * SECOND_NS, duration_ns=SECOND_NS, readings=5, power_mean_watts=power, energy_joules=power
        )
        for at, power in enumerate(watts)
    ]
    unknown = (
        "latency_mean_ns",
        "latency_p50_ns",
        "latency_p90_ns",
        "latency_p99_ns",
        "latency_max_ns",
        "queue_mean_ns",
    )
    intervals = [
        Interval(start_ns=at * SECOND_NS, requests=count, failed=0, compute_mean_ns=None, **dict.fromkeys(unknown))
        for at, count in enumerate(requests)
    ]
    cost = SamplingCost(readings=5, lost=0, seconds=0.0, fraction=0.0)
    gpu = GpuFacts(name="Fake H100")
    return telemetry_of(gpu, seconds, sum(requests), every_ns=SECOND_NS // 5, missing=(), cost=cost), intervals


def of_gpu(text: str, watts: Sequence[float | None], requests: Sequence[int]) -> ObjectiveShare:
    """The verdict on a run with this telemetry."""
    known, intervals = telemetry(watts, requests)
    return judged(text, run(0.5, 1_000, 1), intervals=intervals, telemetry=known)


def gpu_holds(correlated: float, seconds: int, seed: int) -> dict[str, bool]:
    """Power, and energy of an inference, of one run. correlated: of a second's power with that of the one before."""
    random, wandered = np.random.default_rng(seed), 0.0
    watts = [WATTS + (wandered := correlated * wandered + step) for step in random.normal(0, 10, 100 + seconds)][100:]
    requests = random.poisson(PER_S, seconds).tolist()
    return {
        "power": holds(of_gpu("power < 1kW", watts, requests), WATTS),
        "energy": holds(of_gpu("energy < 9J/inference", watts, requests), WATTS / PER_S),
    }


def loss_system(load: float, waiting: int, requests: int, seed: int) -> Records:
    """M/M/1 with so many places to wait, begun empty."""
    random = np.random.default_rng(seed)
    due = np.cumsum(random.exponential(SERVICE_NS / load, requests)).astype(np.int64)
    service = random.exponential(SERVICE_NS, requests).astype(np.int64)
    rows, ends, end = np.zeros((requests, len(COLUMNS)), np.int64), deque[int](), 0
    for row, at, time in zip(rows, due.tolist(), service.tolist(), strict=True):
        while ends and ends[0] <= at:
            ends.popleft()
        if len(ends) > waiting:
            row[:4], row[COLUMNS.index("status")] = at, DROPPED
            continue
        begun = max(end, at)
        end = begun + time
        ends.append(end)
        row[:4] = at, begun, begun, end
    return Records(rows)


def dropped(load: float, waiting: int) -> float:
    """The share that an M/M/1 queue with so many places to wait drops."""
    places = waiting + 1
    return (1 - load) * load**places / (1 - load ** (places + 1))


def drops_verdicts(load: float, waiting: int, times: float, seeds: int, requests: int = 10_000) -> Counter[str]:
    """Verdicts on a bound that is so many times the true share."""
    objective, verdicts = parse_objective(f"drops < {100 * dropped(load, waiting) * times:.6f}%"), Counter[str]()
    for seed in range(seeds):
        records = loss_system(load, waiting, requests, seed)
        good = int(np.count_nonzero(~objective.bad(records)))
        verdicts[str(judge(objective, records, Histogram(), good, requests).verdict)] += 1
    return verdicts


def main() -> None:
    """Print the tables, and the machine they were made on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=300, help="runs a row")
    seeds, machine = range(parser.parse_args().seeds), environment()
    print(f"{machine['cpu']}, {machine['cores']} cores, CPython {machine['python']}, numpy {np.__version__}")
    print(f"M/M/1, {format_count(REQUESTS)} requests, {len(seeds)} seeds; % of 95 % intervals that hold the truth")
    print(f"{'load':>6}{'throughput':>12}{'goodput':>10}{'inferences':>12}")
    for load in LOADS:
        rows = [rates_hold(load, seed) for seed in seeds]
        cells = [f"{100 * np.mean([each[name] for each in rows]):.1f}" for name in rows[0]]
        print(f"{100 * load:>4.0f} %{cells[0]:>12}{cells[1]:>10}{cells[2]:>12}", flush=True)
    print("a GPU, second by second; likewise")
    print(f"{'autocorrelation':>15}{'seconds':>9}{'power':>8}{'energy':>8}")
    for correlated, seconds in ((0.0, 10), (0.0, 60), (0.7, 60), (0.9, 60), (0.9, 600)):
        rows = [gpu_holds(correlated, seconds, seed) for seed in seeds]
        cells = [f"{100 * np.mean([each[name] for each in rows]):.1f}" for name in rows[0]]
        print(f"{correlated:>15}{seconds:>9}{cells[0]:>8}{cells[1]:>8}", flush=True)
    print("M/M/1 with K places to wait, 10 000 requests; % of verdicts on drops")
    print(f"{'load':>6}{'K':>4}{'dropped':>9}{'bound':>9}{'met':>7}{'missed':>8}{'undecided':>11}")
    for load, waiting in SYSTEMS:
        for times in (1 / 1.2, 1.2, 5):
            verdicts, true = drops_verdicts(load, waiting, times, len(seeds)), dropped(load, waiting)
            met, missed, open_ = (f"{100 * verdicts[name] / len(seeds):.1f}" for name in ("met", "missed", "undecided"))
            shares = f"{100 * true:>7.3f} %{100 * times * true:>7.3f} %"
            print(f"{100 * load:>4.0f} %{waiting:>4}{shares}{met:>7}{missed:>8}{open_:>11}", flush=True)


if __name__ == "__main__":
    main()
