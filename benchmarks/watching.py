"""What watching costs: the same run watched and not, in pairs, and the ratios of their throughputs and of their p99
lateness with intervals.

    python -m benchmarks.watching --pairs 20 -- --engine tiny.plan --contexts 4 --duration 2s

Watched: metrics scraped each second, telemetry, and the live view on a pseudo-terminal. Not: none of them. A host whose
speed wanders needs many pairs: the order within a pair alternates, and the interval is of the median of paired ratios.

    python -m benchmarks.watching --within --pairs 200 -- --engine tiny.plan --contexts 4

Where it wanders within seconds, no two runs are alike: here one watched run is long, and its observer is stopped
(SIGSTOP) and continued every 0.4 s. A pair is a stretch with and the one after it without, and the ratio that of their
completed requests. What a row costs the run, and whoever counts it: `--rows`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import pty
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from statistics import median

import numpy as np

from loadtrt.lanes.recorder import Recorder
from loadtrt.records.board import KEEP
from loadtrt.records.records import COLUMNS

STRETCH_S = 0.4
ALONE = ("--no-telemetry", "--no-live", "--quiet")
PORT = 18410


def main() -> None:
    """Print each pair, then the table's line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--within", action="store_true", help="pairs within one run")
    parser.add_argument("--rows", action="store_true", help="what writing and counting rows costs, without an engine")
    parser.add_argument("run", nargs="*", help="options of `loadtrt run`, after --")
    given = parser.parse_args()
    if given.rows:
        _print_rows()
        return
    if given.within:
        _print_within(given.run, given.pairs)
        return
    pairs = []
    for number in range(given.pairs):
        first = number % 2 == 0
        seen = {watched: _numbers(given.run, watched=watched) for watched in (first, not first)}
        pairs.append([watched / alone for watched, alone in zip(seen[True], seen[False], strict=True)])
        for word, (rate, late_ns) in (("alone", seen[False]), ("watched", seen[True])):
            print(f"{word} {rate:10.0f}/s, p99 lateness {late_ns / 1e3:7.0f} µs", end="   ")
        print("  ".join(f"{ratio:.3f}" for ratio in pairs[-1]), flush=True)
    for what, ratios in zip(("throughput", "p99 lateness"), zip(*pairs, strict=True), strict=True):
        low, high = _interval(sorted(ratios))
        print(f"{what}: median of {len(ratios)} paired ratios {median(ratios):.3f} (95 %: {low:.3f} .. {high:.3f})")


def _print_rows() -> None:
    """Nanoseconds a request of recording and of counting, the best of ten."""
    rows, recording, counting = 1 << 17, [], []
    rng = np.random.default_rng(1)
    values = np.zeros((rows, len(COLUMNS)), np.int64)
    spans = rng.integers(2_000, 30_000, (rows, 6))
    values[:, :4] = np.arange(rows)[:, None] * 20_000 + spans[:, :4].cumsum(axis=1)
    values[:, 4:8] = spans[:, 2:] // 4
    values[:, COLUMNS.index("lane")] = np.arange(rows) % 4
    requests = values.tolist()
    for _ in range(10):
        recorder = Recorder(4, 0, bounds=[(0, 50_000, ())])
        began = time.perf_counter_ns()
        for request in requests:
            recorder.record(*request)
        written = time.perf_counter_ns()
        recorder.drain()
        counting.append((time.perf_counter_ns() - written) / rows)
        recording.append((written - began) / rows)
    print(f"a row: {min(recording):.0f} ns to write, {min(counting):.0f} ns to count")


def _print_within(options: list[str], pairs: int) -> None:
    """The ratios of one run, as far as its kept records reach."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "completed.npy"
        length = f"{2 * pairs * STRETCH_S + 2:.0f}s"
        command = [sys.executable, "-c", _KEEPING, str(file), "run", *options, "--duration", length]
        stretches: list[tuple[int, int, bool]] = []
        run_watched([*command, "--metrics", f":{PORT}", "--metrics-linger", "0s"], stretches)
        completed = np.sort(np.load(file))
    counts = [
        (np.searchsorted(completed, [began, ended]), ended - began, watched)
        for began, ended, watched in stretches
        if completed[0] <= began and ended <= completed[-1]
    ]
    rates = [(float(np.diff(places)[0]) / lasted * 1e9, watched) for places, lasted, watched in counts]
    ratios = sorted(a / b for (a, first), (b, _) in itertools.pairwise(rates) if first)
    low, high = _interval(ratios)
    for word, chosen in (("watched", True), ("alone", False)):
        measured = [rate for rate, watched in rates if watched is chosen]
        print(f"{word:>8}: requests/s {np.percentile(measured, (10, 50, 90)).round().tolist()} (p10, p50, p90)")
    print(f"median of {len(ratios)} ratios within the run: {median(ratios):.3f} (95 %: {low:.3f} .. {high:.3f})")
    if len(completed) == KEEP:
        print(f"the run's first {KEEP} requests are kept one by one: fewer --pairs, or a slower engine, use all")


# `loadtrt run`, which leaves the completion instants of its measured requests in a file.
_KEEPING = """
import sys
import numpy as np
from loadtrt.lanes.recorder import Recorder
finish, file = Recorder.finish, sys.argv.pop(1)
def keep(self, end_ns):
    finish(self, end_ns)
    np.save(file, self.records.completed)
Recorder.finish = keep
from loadtrt.__main__ import main
main()
"""


def _numbers(options: list[str], *, watched: bool) -> tuple[float, float]:
    """(requests a second, p99 lateness in ns) of one run."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "run.json"
        command = [sys.executable, "-m", "loadtrt", "run", *options, "--json", str(file)]
        if watched:
            run_watched([*command, "--metrics", f":{PORT}", "--metrics-linger", "0s"])
        else:
            subprocess.run([*command, *ALONE], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        model = next(iter(json.loads(file.read_text())["models"].values()))
    return model["throughput"]["requests_per_s"], model["metrics"]["lateness"]["percentiles_ns"]["p99"]


def run_watched(command: list[str], stretches: list[tuple[int, int, bool]] | None = None) -> None:
    """On a terminal that is read, with its metrics, at PORT, scraped each second. stretches: where to note from when to
    when its observer worked, and where not."""
    leader, follower = pty.openpty()
    over = threading.Event()
    threads = [threading.Thread(target=_scrape, args=(over,)), threading.Thread(target=_read, args=(leader,))]
    for thread in threads:
        thread.start()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=follower)
    os.close(follower)
    if stretches is not None:
        _stop_and_go(process, stretches)
    process.wait()
    over.set()
    for thread in threads:
        thread.join()
    os.close(leader)


def _stop_and_go(process: subprocess.Popen[bytes], stretches: list[tuple[int, int, bool]]) -> None:
    """Until the process ends. Ends with its observer continued."""
    observer = None
    while observer is None and process.poll() is None:
        time.sleep(STRETCH_S)
        observer = child_of(process.pid)
    watched, began = True, time.perf_counter_ns()
    while observer is not None and process.poll() is None:
        time.sleep(STRETCH_S)
        stretches.append((began, time.perf_counter_ns(), watched))
        watched, began = not watched, time.perf_counter_ns()
        try:
            os.kill(observer, signal.SIGCONT if watched else signal.SIGSTOP)
        except ProcessLookupError:
            break


def child_of(pid: int) -> int | None:
    """The child of that process, if it has one."""
    with suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
    return None


def _scrape(over: threading.Event) -> None:
    while not over.wait(1):
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{PORT}/metrics", timeout=1) as page:
            page.read()


def _read(leader: int) -> None:
    with suppress(OSError):
        while os.read(leader, 65536):
            pass


def _interval(ratios: list[float]) -> tuple[float, float]:
    """Of the median, 95 % or more, by order statistics: ranks k and n + 1 − k, k the largest with P(Bin(n, ½) < k) at
    most 2.5 %; all of the range where there are fewer than six."""
    n, below, k, ways = len(ratios), 0.0, 0, 1.0
    while below + ways / 2**n <= 0.025:
        below += ways / 2**n
        k += 1
        ways *= (n - k + 1) / k
    return ratios[max(k - 1, 0)], ratios[min(n - k, n - 1)] if k else ratios[-1]


if __name__ == "__main__":
    main()
