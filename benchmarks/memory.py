"""Whether memory stays flat over a long run: the null engine in a closed loop at full speed, drawn and scraped.

    python -m benchmarks.memory [--minutes 10] [-- --engine tiny.plan --contexts 4]

A line a minute: the resident size of the run and of its observer, and how many requests the observer has counted. The
kept rows fill first (88 MiB in each of the two, of one and the same memory), then the ring (22 MiB). At the end: how
far the sizes since then lie apart, whether the observer's counts are those of run.json, and the percentiles of a
histogram of the kept rows beside exact ones.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import numpy as np

from benchmarks.watching import PORT, child_of, run_watched
from loadtrt.environment import environment
from loadtrt.records.board import KEEP, RING
from loadtrt.records.histogram import QUANTILE_ERROR, Histogram
from loadtrt.results.run_result import RunResult
from loadtrt.units import format_count

RANKS = (0.5, 0.9, 0.99, 0.999, 0.9999)
NULL = ["--engine", "simulated:null", "--contexts", "4", "--warmup", "0"]


def main() -> None:
    """Print the table, and what it is worth. Exits with 1 where memory grew or counts differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--parts", type=int, default=1, help="lines a minute")
    parser.add_argument("run", nargs="*", help="options of `loadtrt run`, after --")
    given = parser.parse_args()
    machine = environment()
    print(f"{' '.join(given.run or NULL)}, {given.minutes:g} min, drawn and scraped each second")
    print(f"{machine['cpu']}, {machine['cores']} cores, CPython {machine['python']}")
    print(f"{'minute':>8} {'run MiB':>10} {'observer MiB':>14} {'requests':>16}")
    sizes: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        file, rows = Path(folder) / "run.json", Path(folder) / "latencies.npy"
        command = [sys.executable, "-c", _KEEPING, str(rows), "run", *(given.run or NULL)]
        command += ["--duration", f"{60 * given.minutes}s", "--json", str(file), "--metrics", f":{PORT}"]
        over, last = threading.Event(), {"counted": 0, "missed": 0, "measures": 0}
        looking = threading.Thread(target=_look, args=(over, sizes, 60 / given.parts, last))
        looking.start()
        run_watched(command)
        over.set()
        looking.join()
        result = RunResult.model_validate_json(file.read_text())
        latencies = np.load(rows)
    good = _print_sizes(sizes)
    good &= _print_counts(result, last)
    good &= _print_percentiles(result, latencies)
    sys.exit(not good)


def _look(over: threading.Event, sizes: list[tuple[float, float]], every_s: float, last: dict[str, int]) -> None:
    """Until it is over: sizes of the run and its observer, MiB, once in every_s, and what was scraped last. Sizes are
    noted once the rows go round, and while it measures."""
    began = next_s = time.monotonic()
    while not over.wait(0.5):
        with suppress(OSError):
            last.update(_scraped())
        run = child_of(os.getpid())
        observer = None if run is None else child_of(run)
        if run is None or observer is None or not last["measures"] or time.monotonic() < next_s + every_s:
            continue
        next_s += every_s
        with suppress(OSError):
            size = _rss_mib(run), _rss_mib(observer)
            minute, requests = (next_s - began) / 60, format_count(last["counted"])
            print(f"{minute:8.1f} {size[0]:10.1f} {size[1]:14.1f} {requests:>16}", flush=True)
            if last["counted"] > KEEP + RING:
                sizes.append(size)


def _scraped() -> dict[str, int]:
    """Requests that the observer has counted, and those that it knows to have missed; 1 while the run measures."""
    names = {
        "counted": "loadtrt_requests_total{",
        "missed": "loadtrt_observer_missed_requests_total{",
        "measures": "loadtrt_phase{",
    }
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/metrics", timeout=5) as page:
        lines = [line for line in page.read().decode().splitlines() if 'phase="' not in line or "measure" in line]
    return {
        key: int(sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)))
        for key, name in names.items()
    }


def _print_sizes(sizes: list[tuple[float, float]]) -> bool:
    """Whether both stayed within ±5 % of their middle."""
    flat = True
    for mib, name in zip(zip(*sizes, strict=True), ("run", "observer"), strict=False):
        spread = (max(mib) - min(mib)) / (max(mib) + min(mib))
        flat &= spread <= 0.05
        print(f"{name}: {min(mib):.1f} .. {max(mib):.1f} MiB, ±{100 * spread:.1f} % of their middle")
    if not sizes:
        print(f"not known: memory grows until {KEEP + RING} requests were measured, and fewer were")
    return flat and bool(sizes)


def _print_counts(result: RunResult, scraped: dict[str, int]) -> bool:
    counted, missed = scraped["counted"], scraped["missed"]
    print(f"{result.model.submitted} requests in run.json; the observer counted {counted} and missed {missed}")
    return result.model.submitted == counted + missed


def _print_percentiles(result: RunResult, latencies: np.ndarray[tuple[int], np.dtype[np.int64]]) -> bool:
    """A histogram of the kept rows against their exact percentiles; those of the whole run beside them."""
    kept, whole = Histogram(), Histogram.from_dict(result.model.histograms["latency"])
    kept.add(latencies)
    exact = np.quantile(latencies, RANKS, method="inverted_cdf")
    worst = 0.0
    print(f"{'':>8} {'exact':>14} {'histogram':>14} {'error':>8}   of {len(latencies)} kept rows; whole run")
    for rank, value, estimate, all_of_it in zip(
        RANKS, exact, kept.quantiles(RANKS), whole.quantiles(RANKS), strict=True
    ):
        error = abs(estimate - value) / value if value else 0.0
        worst = max(worst, error)
        print(f"p{100 * rank:<7g} {value:11.0f} ns {estimate:11.0f} ns {100 * error:6.2f} % {all_of_it:11.0f} ns")
    return worst <= QUANTILE_ERROR


def _rss_mib(process: int) -> float:
    text = Path(f"/proc/{process}/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith("VmRSS:"))


# `loadtrt run`, which leaves the latencies of its kept requests in a file.
_KEEPING = """
import sys
import numpy as np
from loadtrt.lanes.recorder import Recorder
finish, file = Recorder.finish, sys.argv.pop(1)
def keep(self, end_ns):
    finish(self, end_ns)
    np.save(file, self.records.ok.completed - self.records.ok.due)
Recorder.finish = keep
from loadtrt.__main__ import main
main()
"""


if __name__ == "__main__":
    main()
