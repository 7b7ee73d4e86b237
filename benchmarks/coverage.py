"""How often the 95 % intervals that `loadtrt run` prints hold the truth, beside those of other load testers.

    python -m benchmarks.coverage [--seeds 200] [--duration 60s] [--processes 1] [--json FILE] [--plot FILE.svg]
        [--peers PYTHON] [--loadgen FOLDER]

Each run is made by `loadtrt.run`: the simulated engine in virtual time, Poisson arrivals, a mean service of 1 ms, the
default warm-up; intervals are those of its result. The truth is that of the queue at rest: of M/M/c in closed form
(benchmarks/queues.py); of M/G/1 by Pollaczek and Khinchine: the wait is a geometric number of residual services, drawn
independently, 4 million times.

open: intervals with one end only; "at least X" holds the truth if X is not above it. width: the upper over the lower
end, the median of those that have both.

**Others**, unchanged from PyPI, of the same latencies:

- guidellm: SampleUncertainty(confidence=0.95).estimate, the interval of p99 in its benchmark report.
- aiperf: ConfidenceAggregation(0.95).aggregate, of --num-profile-runs 5: five further runs of a fifth of the length,
  each with a seed and a warm-up of its own. Its interval is of the mean of the runs' p99.
- LoadGen: the early-stopping estimate of p99 in single-stream: with 99 % confidence p99 is at most that.

--peers PYTHON: an interpreter of an environment that has guidellm and aiperf. --loadgen FOLDER: the unpacked source
archive of mlcommons-loadgen, whose early_stopping.cc is compiled with c++ as it is.

    python -m venv peers && peers/bin/pip install guidellm aiperf
    pip download --no-deps --no-binary :all: mlcommons-loadgen && tar xzf mlcommons_loadgen-*.tar.gz
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import subprocess  # other testers run in an environment of their own
import tempfile
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import Pool
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np

import loadtrt
from benchmarks.queues import Waiting, erlang_c, markov_quantile
from loadtrt.environment import environment
from loadtrt.records.records import METRICS
from loadtrt.report.charts.plot import Key, Plot
from loadtrt.report.charts.svg import linear
from loadtrt.report.html import STYLE
from loadtrt.results.breakdown import PERCENTILES
from loadtrt.stats import summary
from loadtrt.units import MILLISECOND_NS, SECOND_NS, format_count, parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt

    from loadtrt.results.run_result import RunResult

    Times = npt.NDArray[np.float64]
    Ends = tuple[float | None, float | None]

LOADS = (0.3, 0.5, 0.7, 0.85, 0.9, 0.95)
COMPARED = (0.3, 0.5, 0.7, 0.85, 0.95)
AIPERF_RUNS = 5
_DRAWN = 4_000_000
_AT_ONCE = 100_000
_PEERS = """
import json, sys
from importlib.metadata import version
import numpy as np
from aiperf.common.models.export_models import JsonMetricResult
from aiperf.orchestrator.aggregation.confidence import ConfidenceAggregation
from aiperf.orchestrator.models import RunResult
from guidellm.schemas.base.statistics import SampleUncertainty

def guidellm(values):
    interval = SampleUncertainty(confidence=0.95).estimate(np.column_stack([values, np.ones(len(values))]))[1].p99
    return None if interval is None else (interval.lower, interval.upper)

def aiperf(p99s):
    runs = [
        RunResult(label=str(n), success=True, summary_metrics={"latency": JsonMetricResult(unit="ns", p99=p99)})
        for n, p99 in enumerate(p99s)
    ]
    interval = ConfidenceAggregation(0.95).aggregate(runs).metrics["latency_p99"]
    return interval.ci_low, interval.ci_high

data = np.load(sys.argv[1])
count = int(data["count"])
print(json.dumps({
    "versions": {name: version(name) for name in ("guidellm", "aiperf")},
    "guidellm": [guidellm(data[f"latencies{n}"]) for n in range(count)],
    "aiperf": [aiperf(p99s) for p99s in data["p99s"].tolist()],
}))
"""
_LOADGEN = """
#include "early_stopping.h"
// As PerformanceSummary::EarlyStopping of results.cc has it for single-stream.
extern "C" long long place(long long queries, double percentile) {
  static mlperf::loadgen::MinPassingQueriesFinder find;
  if (queries < find(1, percentile, 0.0, 0.99) + 1) return 0;
  for (long long i = 2; i < queries + 1; ++i)
    if (queries < find(i, percentile, 0.0, 0.99) + i) return i - 1;
  return 0;
}
"""


@dataclass(frozen=True)
class Queue:
    """A queue with Poisson arrivals. service: its distribution, as `simulated:` takes it. cv: of service."""

    name: str
    service: str
    cv: float
    contexts: int = 1

    def truth(self, load: float) -> dict[str, float]:
        """Percentiles and the mean of latency, ns, and the throughput, by name."""
        rate = load * self.contexts
        true = {"throughput": rate * SECOND_NS / MILLISECOND_NS}
        if "exponential" in self.service:
            share = erlang_c(self.contexts, rate)
            waiting = Waiting(share, 1 / (self.contexts - rate))
            quantiles = {name: markov_quantile(rank, waiting, 1.0) for name, rank in PERCENTILES.items()}
            times = {**quantiles, "mean": 1 + share * waiting.mean_s}
        else:
            drawn = np.sort(self._latencies(load))
            quantiles = {name: float(drawn[math.ceil(rank * len(drawn)) - 1]) for name, rank in PERCENTILES.items()}
            times = {**quantiles, "mean": 1 + load * (1 + self.cv**2) / (2 * (1 - load))}
        return true | {name: time * MILLISECOND_NS for name, time in times.items()}

    def _latencies(self, load: float) -> Times:
        """Independent latencies of M/G/1 at rest, in mean services."""
        random, parts = np.random.default_rng(1), []
        sigma2 = math.log1p(self.cv**2)
        for _ in range(_DRAWN // _AT_ONCE):
            arrived = random.geometric(1 - load, _AT_ONCE) - 1
            # A service that is met in progress has the length-biased distribution, and a uniform part of it is left.
            met = np.exp(math.sqrt(sigma2) * random.standard_normal(int(arrived.sum())) + sigma2 / 2)
            reached = np.concatenate(([0.0], np.cumsum(met * random.random(len(met)))))
            ends = np.cumsum(arrived)
            service = np.exp(math.sqrt(sigma2) * random.standard_normal(_AT_ONCE) - sigma2 / 2)
            parts.append(reached[ends] - reached[ends - arrived] + service)
        return np.concatenate(parts)

    def run(self, load: float, duration: str, seed: int) -> tuple[RunResult, npt.NDArray[np.int64]]:
        """A run, and its latencies, sorted, ns."""
        kept = []

        def summarize(records: Any, *rest: Any) -> Any:
            kept.append(METRICS[0].values(records))
            return summary.summarize(records, *rest)

        with mock.patch("loadtrt.lanes.outcome.summarize", summarize):
            result = loadtrt.run(
                engine=f"simulated:service=1ms,{self.service}clock=virtual",
                contexts=self.contexts,
                buffers=1,
                rate=f"{load * self.contexts * 1000:g}/s",
                duration=duration,
                seed=seed,
            )
        return result, np.sort(kept[0])


QUEUES = (
    Queue("M/M/1", "distribution=exponential,", 1.0),
    Queue("M/G/1", "cv=2,", 2.0),
    Queue("M/D/1", "", 0.0),
    Queue("M/M/4", "distribution=exponential,", 1.0, contexts=4),
)


@dataclass(frozen=True)
class Sample:
    """What one seed gave. ends: loadtrt's intervals by the number. p99s: of the shorter runs."""

    ends: dict[str, Ends]
    latencies: npt.NDArray[np.int64]
    p99s: tuple[float, ...]


@dataclass(frozen=True)
class Coverage:
    """Of one number of a queue, by one tester: parts of all seeds.

    holds: intervals that hold the truth.
    open: intervals with one end only, such as "at least X".
    width: the upper over the lower end, the median of those that have both above 0; None without any.
    """

    queue: str
    load: float
    number: str
    tester: str
    holds: float
    open: float
    width: float | None


def sample(queue: Queue, load: float, duration_ns: int, shorter: int, seed: int) -> Sample:
    """One run of the length, and `shorter` others of that part of it."""
    result, latencies = queue.run(load, f"{duration_ns}ns", seed)
    model = result.model
    known = {**model.metrics["latency"].confidence, "throughput": model.throughput.confidence}
    names = (*PERCENTILES, "mean", "throughput")
    ends = {name: (each.low, each.high) if (each := known.get(name)) else (None, None) for name in names}
    p99s = []
    for number in range(shorter):
        _, others = queue.run(load, f"{duration_ns // shorter}ns", 1_000_000 + seed * shorter + number)
        p99s.append(float(np.percentile(others, 99)))
    return Sample(ends, latencies, tuple(p99s))


def coverage(queue: Queue, load: float, number: str, tester: str, ends: Sequence[Ends], true: float) -> Coverage:
    """How these intervals fared."""
    held = sum((low or 0.0) <= true <= (math.inf if high is None else high) for low, high in ends)
    single = sum(low is None or high is None for low, high in ends)
    widths = [high / low for low, high in ends if low is not None and high is not None and low > 0]
    width = float(np.median(widths)) if widths else None
    return Coverage(queue.name, load, number, tester, held / len(ends), single / len(ends), width)


def of_peers(python: str, samples: Sequence[Sample]) -> tuple[dict[str, str], dict[str, list[Ends]]]:
    """Versions, and the intervals of p99, of guidellm and aiperf; (None, None) for one that is not told."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "latencies.npz")
        arrays: dict[str, Any] = {f"latencies{number}": each.latencies for number, each in enumerate(samples)}
        np.savez(file, count=len(samples), p99s=np.array([each.p99s for each in samples]), **arrays)
        done = subprocess.run(  # the interpreter that the command line names
            [python, "-c", _PEERS, str(file)], check=True, capture_output=True, text=True
        )
    answer = json.loads(done.stdout.splitlines()[-1])
    ends = {name: [tuple(each) if each else (None, None) for each in answer[name]] for name in ("guidellm", "aiperf")}
    return answer["versions"], ends


def loadgen(folder: Path) -> Callable[[Sample], Ends]:
    """LoadGen's estimate of p99, from its sources."""
    with tempfile.TemporaryDirectory() as built:
        wrapper, library = Path(built, "place.cc"), Path(built, "place.so")
        wrapper.write_text(_LOADGEN, encoding="utf-8")
        command = ["c++", "-O2", "-shared", "-fPIC", f"-I{folder}", str(wrapper), str(folder / "early_stopping.cc")]
        subprocess.run([*command, "-o", str(library)], check=True)  # the folder that the command line names
        place = ctypes.CDLL(str(library)).place
    place.argtypes, place.restype = [ctypes.c_longlong, ctypes.c_double], ctypes.c_longlong

    def estimate(each: Sample) -> Ends:
        largest = place(len(each.latencies), 0.99)
        return None, float(each.latencies[len(each.latencies) - largest]) if largest else None

    return estimate


def cells(processes: int, seeds: int, duration_ns: int, shorter: int) -> Iterator[tuple[Queue, float, list[Sample]]]:
    """The samples of each queue and load."""
    with Pool(processes) as pool:
        for queue in QUEUES:
            for load in LOADS:
                make = partial(sample, queue, load, duration_ns, shorter if load in COMPARED else 0)
                yield queue, load, pool.map(make, range(1, seeds + 1), chunksize=1)


def text_of(cell: Coverage | None) -> str:
    """A cell: how many hold, how many have one end only, and how wide they are."""
    if cell is None:
        return f"{'–':>22}"
    wide = "–" if cell.width is None else f"×{cell.width:.2f}"
    return f"{100 * cell.holds:>8.1f}{100 * cell.open:>6.0f}{wide:>8}"


def plot(rows: Sequence[Coverage], testers: Sequence[str], queue: str) -> str:
    """A drawing of how often intervals of p99 hold, by load."""
    keys = [Key(name, f"s{number}") for number, name in enumerate(testers, 1)]
    drawn = Plot(linear("load, %", 28, 97, most=8), linear("intervals that hold the truth, %", 0, 100), keys=keys)
    drawn.level(95, "rule", "95 %")
    for number, name in enumerate(testers, 1):
        points = [
            (100 * row.load, 100 * row.holds)
            for row in rows
            if (row.queue, row.number, row.tester) == (queue, "p99", name) and row.load in COMPARED
        ]
        drawn.line(points, f"s{number}", dots=False)
        for x, y in points:
            drawn.dot(x, y, f"f{number}", text=f"{name}, {x:.0f} % load: {y:.1f} %")
    title = f"{queue}: how often the 95 % interval of p99 holds the truth"
    chart = drawn.svg(title, f"By load, of {', '.join(testers)}.")
    attributes, _, inside = chart.removeprefix("<svg").partition(">")
    ground = '<rect width="100%" height="100%" style="fill:var(--ground)"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg"{attributes}><style>{STYLE}</style>{ground}{inside}\n'


def main() -> None:
    """Print the tables, and the machine that they were made on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=200, help="runs a row")
    parser.add_argument("--duration", type=parse_duration, default="60s", help="length of a run")
    parser.add_argument("--processes", type=int, default=1, help="processes that share the work")
    parser.add_argument("--peers", metavar="PYTHON", help="interpreter that has guidellm and aiperf")
    parser.add_argument("--loadgen", type=Path, metavar="FOLDER", help="sources of mlcommons-loadgen")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw p99 of M/M/1 there")
    options = parser.parse_args()
    machine, rows = environment(), list[Coverage]()
    estimate = loadgen(options.loadgen) if options.loadgen else None
    versions: dict[str, str] = {}
    for queue, load, samples in cells(
        options.processes, options.seeds, options.duration, AIPERF_RUNS if options.peers else 0
    ):
        true = queue.truth(load)
        for number in samples[0].ends:
            ends = [each.ends[number] for each in samples]
            rows.append(coverage(queue, load, number, "loadtrt", ends, true[number]))
        if load in COMPARED and queue.contexts == 1:
            others: dict[str, list[Ends]] = {}
            if options.peers:
                versions, others = of_peers(options.peers, samples)
            if estimate is not None:
                versions["LoadGen"] = options.loadgen.name.rpartition("-")[2]
                others["LoadGen"] = [estimate(each) for each in samples]
            rows += [coverage(queue, load, "p99", name, ends, true["p99"]) for name, ends in others.items()]
    show(rows, versions, options.seeds, options.duration)
    print(f"{machine['cpu']}, {machine['cores']} cores, CPython {machine['python']}, numpy {np.__version__}")
    if options.json:
        kept = {"machine": machine, "versions": versions, "rows": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    if options.plot:
        options.plot.write_text(plot(rows, ["loadtrt", *versions], "M/M/1"), encoding="utf-8")


def show(rows: Sequence[Coverage], versions: dict[str, str], seeds: int, duration_ns: int) -> None:
    """Print both tables."""
    by_cell = {(row.queue, row.load, row.number, row.tester): row for row in rows}
    testers = ("loadtrt", "guidellm", "aiperf", "LoadGen")
    known = {"loadtrt": loadtrt.__version__, **versions}
    length = f"{format_count(duration_ns / SECOND_NS)} s"
    print(
        f"p99 in runs of {length}: % of {seeds} intervals that hold the truth, % with one end only, upper ÷ lower end"
    )
    print(f"{'':12}" + "".join(f"{name + ' ' + known.get(name, 'not installed'):>22}" for name in testers))
    print(f"{'queue':6}{'load':>6}" + f"{'holds':>8}{'open':>6}{'width':>8}" * len(testers))
    for queue in QUEUES:
        for load in COMPARED if queue.contexts == 1 else ():
            cells = (text_of(by_cell.get((queue.name, load, "p99", name))) for name in testers)
            print(f"{queue.name:6}{100 * load:>4.0f} %" + "".join(cells))
    print("LoadGen: at most, with 99 % confidence, in single-stream; aiperf: of 5 runs of a fifth of the length")
    names = (*PERCENTILES, "mean", "throughput")
    print(f"loadtrt, every number: % of {seeds} intervals that hold the truth, % with one end only, upper ÷ lower end")
    print(f"{'':12}" + "".join(f"{name:>22}" for name in names))
    for queue in QUEUES:
        for load in LOADS:
            cells = (text_of(by_cell.get((queue.name, load, name, "loadtrt"))) for name in names)
            print(f"{queue.name:6}{100 * load:>4.0f} %" + "".join(cells))
    for number in names:
        worst = min(
            (row for row in rows if row.number == number and row.tester == "loadtrt" and row.load <= 0.9),
            key=lambda row: row.holds,
        )
        print(
            f"{number}: at worst {100 * worst.holds:.1f} % up to 90 % load ({worst.queue} at {100 * worst.load:.0f} %)"
        )


if __name__ == "__main__":
    main()
