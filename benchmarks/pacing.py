"""How late requests are sent, and what waiting for them costs, while the run is drawn and scraped each second.

    python -m benchmarks.pacing [--rates 5000,20000] [--wait spin,block] [--rounds 5] -- --engine tiny.plan --contexts 4

Poisson arrivals. Lateness is submitted − max(due, a buffer set was free); cores are those of the measuring process.
Shown are medians of the rounds, with the least and most in brackets: rounds take turns, since hosts wander. *Asked* is
a loop that asks the kernel for nothing (select with no time) and *not asked* an empty one, right before each run: what
of their time was in gaps above 50 µs, which nobody who paces on this host can avoid.
"""

from __future__ import annotations

import argparse
import select
import shlex
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median
from time import perf_counter_ns
from typing import TYPE_CHECKING

from benchmarks.machine import machine_line
from benchmarks.watching import PORT, run_watched
from loadtrt.records.histogram import Histogram
from loadtrt.results.run_result import RunResult
from loadtrt.units import format_count

if TYPE_CHECKING:
    from collections.abc import Callable

LOOK_S = 0.5
GAP_NS = 50_000


def in_gaps(step: Callable[[], object]) -> float:
    """The share of half a second that passes in steps of more than GAP_NS, percent."""
    began = last = perf_counter_ns()
    lost = 0
    while last - began < LOOK_S * 1e9:
        step()
        now = perf_counter_ns()
        lost += now - last if now - last > GAP_NS else 0
        last = now
    return 100 * lost / (last - began)


def one_run(rate: int, wait: str, seconds: float, options: list[str]) -> dict[str, float]:
    """Percentiles, µs, and cores."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "run.json"
        command = [sys.executable, "-m", "loadtrt", "run", *options, "--rate", str(rate), "--duration", f"{seconds}s"]
        command += ["--wait", wait] if wait == "block" else []
        run_watched([*command, "--metrics", f":{PORT}", "--metrics-linger", "0s", "--json", str(file)])
        if not file.exists():
            sys.exit(f"{shlex.join(command)} failed")
        result = RunResult.model_validate_json(file.read_text())
    numbers = {"cores": result.host_cores or 0.0}
    for metric, ranks in (("lateness", (0.5, 0.99, 0.999)), ("latency", (0.5, 0.99))):
        values = Histogram.from_dict(result.model.histograms[metric]).quantiles(ranks)
        numbers |= {f"{metric} p{100 * rank:g}": value / 1e3 for rank, value in zip(ranks, values, strict=True)}
    return numbers


def main() -> None:
    """Print the table, and the machine it was made on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", type=lambda text: [int(it) for it in text.split(",")], default=[5_000, 20_000])
    parser.add_argument("--wait", type=lambda text: text.split(","), default=["spin"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each run")
    parser.add_argument("run", nargs="+", help="options of `loadtrt run`, after --")
    given = parser.parse_args()
    print(machine_line())
    print("$ python -m benchmarks.pacing " + shlex.join(sys.argv[1:]), flush=True)
    kept: dict[tuple[int, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for _ in range(given.rounds):
        for wait in given.wait:
            for rate in given.rates:
                host = {
                    "not asked, %": in_gaps(lambda: None),
                    "asked, %": in_gaps(lambda: select.select([], [], [], 0)),
                }
                for name, value in (one_run(rate, wait, given.seconds, given.run) | host).items():
                    kept[rate, wait][name].append(value)
    for (rate, wait), values in kept.items():
        print(f"{format_count(rate)}/s, {wait}")
        for name, numbers in values.items():
            digits = 1 if name.startswith("lat") else 3
            low, high = min(numbers), max(numbers)
            print(f"  {name:16} {median(numbers):10,.{digits}f}  [{low:,.{digits}f} .. {high:,.{digits}f}]")
    print("latency and lateness in µs")


if __name__ == "__main__":
    main()
