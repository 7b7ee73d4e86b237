"""Several GPUs of one host: what they do together, and whether `plan-capacity` predicts it.

    python -m benchmarks.many_gpus together ENGINE FOLDER [--batch 16] [--ray]
    python -m benchmarks.many_gpus routing ENGINE FOLDER [--batch 16]
    python -m benchmarks.many_gpus lost ENGINE FOLDER [--batch 16]

together: closed loops, in rounds of each GPU alone and of all at once, the other way round in every second round. The
efficiency of a round is the throughput of all over the sum of each alone; its interval is Student's over the rounds.
With --ray all at once as processes and as workers on a Ray cluster of this host, in turns, instead.

routing: `loadtrt capacity` on the first GPU, then plans for as many GPUs as there are at shares of their capacity, each
measured (`plan-capacity --measure`). The bound of a plan is twice the search's, which a fleet of all GPUs meets for
sure, and the limit of utilisation is between that of all GPUs and that of one less: no other number is planned. A queue
forgets the slower the fuller it is: a fleet is measured for --duration at the first share, and for as many times that
at another as (1 − ρ)² is smaller there, so that intervals of p99 have an upper end at all of them. A cell counts as
within where the intervals overlap, and strictly where p99 as measured is within the predicted interval and the other
way round. INVALID fleets and those that were not measured are within none. If a plan cannot be made or measured, its
reason is printed, and the other shares are. A search that no plan can use is made once more.

lost: `kill -9` of the last worker, --kill-after seconds after the run has begun to measure, and what the run says.

Each result is written to FOLDER. --devices 0 1 names the GPUs; simulated engines take any.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

import loadtrt
from benchmarks.machine import machine_line
from loadtrt.errors import LoadtrtError, UsageError
from loadtrt.results.fleet_result import ROUTINGS
from loadtrt.results.gpu_telemetry import weighted_mean
from loadtrt.sizing.evidence import evidence_of
from loadtrt.stats.regression import student
from loadtrt.units import SECOND_NS, parse_duration

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator, Sequence

    from loadtrt.results.capacity_result import CapacityResult
    from loadtrt.results.fleet_result import Comparison
    from loadtrt.results.run_result import RunResult

_SEED, _LEAST_IDLE = 1, 0.15  # so that no fleet is measured for ten times --duration
_SHARES = (0.6, 0.8, 0.9)  # of the capacity of one GPU, times their number


def _common(options: Namespace) -> dict[str, Any]:
    return {
        "engine": options.engine, "batch": options.batch, "contexts": options.contexts,
        "allow_host_code": not options.engine.startswith("simulated:"), "warmup": options.warmup,
    }  # fmt: skip


def _run(options: Namespace, name: str, **more: Any) -> RunResult:
    """A run, written to FOLDER as `name`.json. Raises KeyboardInterrupt after Ctrl-C, which ends the rounds, too."""
    run = loadtrt.run(**_common(options), duration=options.duration, **more)
    (options.folder / f"{name}.json").write_text(run.model_dump_json())
    if run.outcome == "interrupted":
        raise KeyboardInterrupt
    return run


def _told(run: RunResult) -> str:
    """A line of a run: throughput, what devices could take from each other, and whether it is VALID."""
    model = run.model
    times = [f"{model.metrics[name].percentiles_ns['p50'] or math.nan:.0f}" for name in ("h2d", "compute", "enqueue")]
    looks = [worker.telemetry for worker in run.workers if worker.telemetry]
    clocks = [weighted_mean(look.intervals, lambda interval: interval.sm_clock_mean_hertz) for look in looks]
    told = [
        "+".join(f"{(value or math.nan) / unit:.3g}" for value in values) or "–"
        for values, unit in (
            (clocks, 1e9),
            ([look.power_mean_watts for look in looks], 1),
            ([look.joules_per_inference for look in looks], 1e-3),
        )
    ]
    late = model.metrics["lateness"].percentiles_ns if "lateness" in model.metrics else {}
    kinds = [problem.kind for problem in model.problems] + [finding.kind for finding in model.findings]
    return (
        f"{model.throughput.requests_per_s or math.nan:10.1f}/s {' '.join(f'{one:>9}' for one in times)} "
        f"{(run.start_spread_ns or 0) / 1e6:8.2f} {(late.get('p99') or math.nan) / 1e3:8.1f}  "
        f"{told[0]:9} {told[1]:7} {told[2]:9} {'VALID' if run.valid else 'INVALID'} {' '.join(kinds)}"
    )


_HEADER = (
    f"{'':18}{'throughput':>16} {'h2d ns':>9} {'compute':>9} {'enqueue':>9} {'apart ms':>8} {'late µs':>8}  "
    f"{'SM GHz':9} {'watts':7} {'mJ/inf.':9}"
)


def _interval(rounds: Sequence[tuple[float, bool]]) -> str:
    """Mean of the ratios with its 95 % interval, Student's, and in how many rounds a run was INVALID."""
    values = [ratio for ratio, _ in rounds]
    if not values:
        return "no round was completed"
    half = student(len(values) - 1) * stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    invalid = sum(not valid for _, valid in rounds)
    doubt = f", {invalid} of {len(rounds)} rounds with an INVALID run" if invalid else ""
    return f"{mean(values):.4f} [{mean(values) - half:.4f} .. {mean(values) + half:.4f}]{doubt}"


def _all(options: Namespace) -> str:
    return ",".join(map(str, options.devices))


def together(options: Namespace) -> None:
    """Print a line for each run, and the efficiency."""
    print(_HEADER)
    if options.ray:
        _on_ray(options)
        return
    everyone = _all(options)
    ratios = []
    with suppress(KeyboardInterrupt):
        for turn in range(options.rounds):
            served: dict[str, float] = {}
            valid = True
            for devices in (*map(str, options.devices), everyone)[:: -1 if turn % 2 else 1]:
                run = _run(options, f"together-{turn}-{devices}", devices=devices)
                served[devices], valid = run.model.throughput.requests_per_s or math.nan, valid and run.valid
                print(f"{turn + 1}: devices {devices:10} {_told(run)}", flush=True)
            ratios.append((served.pop(everyone) / sum(served.values()), valid))
    print(f"all ÷ sum of each alone: {_interval(ratios)}")


def _on_ray(options: Namespace) -> None:
    ways: dict[str, dict[str, Any]] = {
        "processes": {"devices": _all(options)}, "ray": {"ray": "auto", "workers": len(options.devices)}
    }  # fmt: skip
    for load in ({}, {"rate": options.rate}) if options.rate else ({},):
        ratios = []
        with suppress(KeyboardInterrupt):
            for turn in range(options.rounds):
                served, valid = dict[str, float](), True
                for way in list(ways)[:: -1 if turn % 2 else 1]:
                    began = time.monotonic()
                    run = _run(options, f"{way}-{turn}-{len(load)}", **ways[way], **load)
                    served[way], valid = run.model.throughput.requests_per_s or math.nan, valid and run.valid
                    print(f"{turn + 1}: {way:10} {time.monotonic() - began:5.1f} s  {_told(run)}", flush=True)
                ratios.append((served["ray"] / served["processes"], valid))
        print(f"ray ÷ processes {load or 'closed'}: {_interval(ratios)}")


def routing(options: Namespace) -> None:
    """Print predicted and measured p99 of each fleet, and how many are within each other's interval."""
    gpus = len(options.devices)
    found = _searched(options) or _searched(options)
    if found is None or found.outcome == "interrupted":
        sys.exit(3)
    (one,) = found.candidates
    capacity = one.confirmed_per_s or one.estimate_per_s
    if capacity is None:
        sys.exit(3)
    (bound,) = found.objectives
    loose = f"{bound.metric_name}.{bound.quantile} < {2 * bound.limit_ns}ns"
    seconds = parse_duration(options.duration) / SECOND_NS
    most_per_s, _ = evidence_of(found).law.most_per_s(_SEED)  # the lower end, by which a plan counts GPUs
    idle = [max(_LEAST_IDLE, 1 - share * capacity / most_per_s) for share in _SHARES]
    cells: list[Comparison] = []
    print(_CELLS)
    for share, left in zip(_SHARES, idle, strict=True):
        demand = share * gpus * capacity
        try:
            plan = loadtrt.plan_capacity(
                found,
                demand=demand,
                objective=loose,
                max_utilisation=min(0.99, demand / (most_per_s * math.sqrt(gpus * max(gpus - 1, 0.5)))),
                seed=_SEED,
                routing=",".join(options.routing),
                measure=True,
                duration=f"{seconds * (idle[0] / left) ** 2:.3g}s",
                allow_host_code=not options.engine.startswith("simulated:"),
            )
        except LoadtrtError as error:
            print(f"{share:.0%} {demand:8.1f}/s {error}", flush=True)
            continue
        (options.folder / f"routing-{share:g}.json").write_text(plan.model_dump_json())
        for choice in plan.choices:
            if choice.needed != gpus:
                print(f"{choice.routing}: {choice.needed or 'no number of'} GPUs, not {gpus}: {choice.reason}")
        for fleet in plan.measured:
            where = f"{share:.0%} {demand:8.1f}/s {fleet.gpus:4} {fleet.routing:18}"
            checks = [check for check in fleet.checks if check.rank == bound.rank]
            for check in checks:
                print(f"{where} {_cell(check)}", flush=True)
                cells += [check] if fleet.run is not None and fleet.run.valid else []
            if not checks:
                few = f"too few requests for {bound.quantile}: give a longer --duration"
                print(f"{where} {fleet.why_not or few}", flush=True)
            if fleet.run is not None:
                print(f"{'':24}{_told(fleet.run)}")
        for note in plan.notes:
            if note.startswith("not measured"):
                print(f"{share:.0%} {demand:8.1f}/s {note}", flush=True)
        if plan.outcome == "interrupted":
            break
    overlap, open_ended = sum(bool(check.within) for check in cells), sum(not check.measured_high_ns for check in cells)
    print(f"of {len(_SHARES) * len(options.routing)} cells {overlap} have intervals that overlap,", end=" ")
    print(f"{sum(map(_strictly, cells))} each p99 within the other's; {open_ended} were measured without an upper end")


_CELLS = (
    f"{'of N × capacity':14} GPUs {'p99, ms':18} measured   95 %:    to    predicted  95 %:    to    overlap  strictly"
)


def _cell(check: Comparison) -> str:
    ends = [check.measured_ns, check.measured_low_ns, check.measured_high_ns]
    ends += [check.predicted_ns, check.predicted_low_ns, check.predicted_high_ns]
    times = " ".join("–".rjust(8) if end is None else f"{end / 1e6:8.2f}" for end in ends)
    return f"{times}  {'yes' if check.within else 'no':8} {'yes' if _strictly(check) else 'no'}"


def _searched(options: Namespace) -> CapacityResult | None:
    """The capacity of one GPU, written to FOLDER; None where no plan can be made from the search."""
    found = loadtrt.capacity(**_common(options), objective=options.objective, device=options.device, time=options.time)
    (options.folder / "capacity.json").write_text(found.model_dump_json())
    print(found.candidates[0].conclusion)
    try:
        evidence_of(found)
    except UsageError as error:
        print(error, flush=True)
        return None
    return found


def _strictly(check: Comparison) -> bool:
    """Whether each p99 is within the other's interval."""
    measured = (check.measured_low_ns or 0.0) <= (check.predicted_ns or 0.0) <= (check.measured_high_ns or math.inf)
    return measured and (check.predicted_low_ns or 0.0) <= check.measured_ns <= (check.predicted_high_ns or math.inf)


def lost(options: Namespace) -> None:
    """Start a run as users do, kill a worker of it, and print what the run printed."""
    words = [
        "run", "--engine", options.engine, "--contexts", str(options.contexts),
        "--devices", _all(options), "--duration", options.duration, "--json", str(options.folder / "lost.json"),
    ]  # fmt: skip
    words += ["--batch", str(options.batch)] if options.batch else []
    words += [] if options.engine.startswith("simulated:") else ["--allow-host-code"]
    run = subprocess.Popen(
        [sys.executable, "-m", "loadtrt", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    print(f"$ loadtrt {' '.join(words)}   # kill -9 of the last worker {options.kill_after:g} s after 'measure'")
    for line in run.stdout or ():
        print(line, end="", flush=True)
        if line.startswith("measure"):
            time.sleep(options.kill_after)
            for victim in list(_workers(run.pid))[-1:]:
                os.kill(victim, signal.SIGKILL)
    print(f"exit code {run.wait()}")


def _workers(process: int) -> Iterator[int]:
    """The workers that it started, in the order in which they began."""
    for folder in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        with suppress(OSError):  # a process that has ended
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == process and b"loadtrt.runs.worker" in (folder / "cmdline").read_bytes():
                yield int(folder.name)


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("together", "routing", "lost"))
    parser.add_argument("engine")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--contexts", type=int, default=4)
    parser.add_argument("--devices", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--device", type=int, help="the GPU whose capacity is searched; simulated engines have none")
    parser.add_argument("--warmup", default="500ms")
    parser.add_argument("--duration", default="3s")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--rate", help="an open loop beside the closed one, with --ray")
    parser.add_argument("--objective", default="latency.p99 < 10ms")
    parser.add_argument("--time", default="60s", help="of the search for the capacity")
    parser.add_argument("--routing", nargs="+", choices=ROUTINGS, default=list(ROUTINGS))
    parser.add_argument("--kill-after", type=float, default=5.0)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    print(machine_line(), flush=True)
    try:
        {"together": together, "routing": routing, "lost": lost}[options.what](options)
    except LoadtrtError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
