"""What watching costs: the same run watched and not, in pairs, and the ratio of their throughputs with its interval.

    python -m benchmarks.watching --pairs 20 -- --engine tiny.plan --contexts 4 --duration 2s

Watched: metrics scraped each second, telemetry, and the live view on a pseudo-terminal. Not: none of them. A host whose
speed wanders needs many pairs: the order within a pair alternates, and the interval is of the median of paired ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import subprocess
import sys
import tempfile
import threading
import urllib.request
from contextlib import suppress
from pathlib import Path
from statistics import median

ALONE = ("--no-telemetry", "--no-live", "--quiet")
PORT = 9400


def main() -> None:
    """Print each pair, then the table's line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("run", nargs="+", help="options of `loadtrt run`, after --")
    given = parser.parse_args()
    ratios = []
    for number in range(given.pairs):
        first = number % 2 == 0
        rates = {watched: _rate(given.run, watched=watched) for watched in (first, not first)}
        ratios.append(rates[True] / rates[False])
        print(f"{rates[False]:10.0f} alone {rates[True]:10.0f} watched  {ratios[-1]:.3f}", flush=True)
    low, high = _interval(sorted(ratios))
    print(f"median of {len(ratios)} paired ratios: {median(ratios):.3f} (95 %: {low:.3f} .. {high:.3f})")


def _rate(options: list[str], *, watched: bool) -> float:
    """Requests a second of one run."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "run.json"
        command = [sys.executable, "-m", "loadtrt", "run", *options, "--json", str(file)]
        if watched:
            _run_watched([*command, "--metrics", f":{PORT}", "--metrics-linger", "0s"])
        else:
            subprocess.run([*command, *ALONE], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        rate: float = json.loads(file.read_text())["throughput"]["requests_per_s"]
    return rate


def _run_watched(command: list[str]) -> None:
    """On a terminal that is read, with its metrics scraped."""
    leader, follower = pty.openpty()
    over = threading.Event()
    threads = [threading.Thread(target=_scrape, args=(over,)), threading.Thread(target=_read, args=(leader,))]
    for thread in threads:
        thread.start()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=follower)
    os.close(follower)
    process.wait()
    over.set()
    for thread in threads:
        thread.join()
    os.close(leader)


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
