"""loadtrt and trtexec on the same plan, in turns on one machine, and the ratio of what they serve.

    python -m benchmarks.against_trtexec --trtexec 'sh go.sh --useRuntime=lean' \\
        --row 'GoogLeNet b16' googlenet.plan data:16x3x224x224 1,2,4,8 --row tiny tiny.plan x:1x256 1,4

The same mode for both: copies included, CUDA graphs, spinning, as many streams as contexts. Hosts wander: in each round
both run every row one after the other, who goes first alternates, and the ratio is the median of the rounds' ratios,
with the least and most in brackets. Where a row has several numbers of contexts, its last line is of the most that each
served with any of them. --loadtrt '--partitions 8' gives our contexts shares of the SMs, which trtexec does not know.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
from collections import Counter, defaultdict
from statistics import median

from benchmarks.machine import machine_line

INVALID: Counter[tuple[str, int]] = Counter()  # our runs by our own verdict: the host was the bottleneck
QPS = re.compile(r"Throughput: ([0-9.e+]+) qps")


def trtexec(options: argparse.Namespace, plan: str, shapes: str, contexts: int) -> float:
    """Its queries a second."""
    command = [
        *shlex.split(options.trtexec),
        *(f"--loadEngine={plan}", f"--shapes={shapes}", f"--infStreams={contexts}"),
        *("--useCudaGraph", "--useSpinWait", "--warmUp=1000", f"--duration={options.seconds:g}", "--avgRuns=100000000"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    match = QPS.search(done.stdout)
    if match is None or "flag has been ignored" in done.stdout:
        sys.exit(f"{shlex.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-1000:]}")
    return float(match.group(1))


def loadtrt(options: argparse.Namespace, plan: str, shapes: str, contexts: int) -> float:
    """Our requests a second."""
    command = [
        *(sys.executable, "-m", "loadtrt", "run", "--engine", plan, "--allow-host-code", "--contexts", str(contexts)),
        *("--shapes", shapes, "--duration", f"{options.seconds:g}s", "--quiet", "--json", "-"),
        *shlex.split(options.loadtrt),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 97):  # 97: INVALID, as generators that are the bottleneck are, by our own verdict
        sys.exit(f"{shlex.join(command)} failed:\n{done.stderr}")
    result = json.loads(done.stdout)
    if not result["valid"]:
        INVALID[plan, contexts] += 1
    return float(next(iter(result["models"].values()))["throughput"]["requests_per_s"])


def shown(values: list[float], form: str) -> str:
    """Median, least and most."""
    low, high = min(values), max(values)
    return f"{median(values):{form}} [{low:{form}} .. {high:{form}}]"


def line(name: str, contexts: str, theirs: list[float], ours: list[float]) -> str:
    """A line of the table. theirs, ours: what was served, a second, round by round."""
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return f"{name:16} {contexts:>8} {shown(theirs, ',.0f'):>30} {shown(ours, ',.0f'):>30} {shown(ratios, '.3f'):>26}"


def main() -> None:
    """Print the table, and the machine it was made on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trtexec", required=True, help="its command, with what it needs beside plan and load")
    parser.add_argument("--row", nargs=4, action="append", required=True, metavar=("NAME", "PLAN", "SHAPES", "1,4"))
    parser.add_argument("--loadtrt", default="", help="more options for `loadtrt run`")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3, help="of each run")
    options = parser.parse_args()
    print(machine_line())
    print("$ python -m benchmarks.against_trtexec " + shlex.join(sys.argv[1:]), flush=True)
    rows = [(name, plan, shapes, int(n)) for name, plan, shapes, counts in options.row for n in counts.split(",")]
    ours: dict[tuple[str, str, str, int], list[float]] = defaultdict(list)
    theirs: dict[tuple[str, str, str, int], list[float]] = defaultdict(list)
    for number in range(options.rounds):
        for row in rows:
            _, plan, shapes, contexts = row
            tools = [(trtexec, theirs), (loadtrt, ours)]
            for tool, kept in tools if number % 2 == 0 else reversed(tools):
                kept[row].append(tool(options, plan, shapes, contexts))
    print(f"{'':16} {'contexts':>8} {'trtexec, requests/s':>30} {'loadtrt, requests/s':>30} {'ratio':>26}")
    for row in rows:
        invalid = f"  INVALID in {INVALID[row[1], row[3]]} rounds" if INVALID[row[1], row[3]] else ""
        print(line(row[0], str(row[3]), theirs[row], ours[row]) + invalid)
    for name, plan, shapes, counts in options.row:
        if "," in counts:
            keys = [(name, plan, shapes, int(n)) for n in counts.split(",")]
            most = [list(map(max, *(kept[key] for key in keys))) for kept in (theirs, ours)]  # of each round
            print(line(name, "best", *most))


if __name__ == "__main__":
    main()
