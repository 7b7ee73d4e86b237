"""How long it takes from the command to the first measured request, beside what the engine's own library takes to load.

    python -m benchmarks.startup --rounds 5 -- --engine googlenet16.plan --contexts 4

Python with nothing to do, and with the libraries that no run can do without; `loadtrt --help`; then `loadtrt run` of
one request without warm-up, from the start of the process. *Loading* is reading and deserializing the engine, with its
library; *lanes* their making. The rest until measuring begins is loadtrt's own: Python, imports, configuration, the
observer. *After*: from there to the end of the process.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections import defaultdict
from statistics import median

from benchmarks.machine import machine_line

# CLOCK_MONOTONIC is the same in both processes. The last recorder that begins is the measuring one's.
_TELLING = """
import sys, time
import loadtrt.cli.main as command
from loadtrt.__main__ import main
run = command.main
def telling():
    from loadtrt.lanes.recorder import Recorder
    begin = Recorder.begin
    def tell(self, start_ns):
        print("measuring at", time.clock_gettime(time.CLOCK_MONOTONIC), file=sys.stderr)
        begin(self, start_ns)
    Recorder.begin = tell
    run()
command.main = telling
main()
"""
_BEFORE = {
    "Python": ("-c", "pass"),
    "with libraries": ("-c", "import anyio, click, numpy, pydantic"),
    "--help": ("-m", "loadtrt", "--help"),
}


def main() -> None:
    """Print medians, with the least and most."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("run", nargs="+", help="options of `loadtrt run`, after --")
    given = parser.parse_args()
    print(machine_line())
    print("$ python -m benchmarks.startup " + shlex.join(sys.argv[1:]))
    kept: dict[str, list[float]] = defaultdict(list)
    for _ in range(given.rounds):
        for name, arguments in _BEFORE.items():
            began = time.clock_gettime(time.CLOCK_MONOTONIC)
            subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
            kept[name].append(time.clock_gettime(time.CLOCK_MONOTONIC) - began)
        for name, seconds in one_run(given.run).items():
            kept[name].append(seconds)
    for name, values in kept.items():
        print(f"  {name:14} {median(values):6.2f} s  [{min(values):.2f} .. {max(values):.2f}]")


def one_run(options: list[str]) -> dict[str, float]:
    """Seconds of each part of a run."""
    arguments = ["run", *options, "--warmup", "0", "--requests", "1", "--quiet", "--json", "-"]
    began = time.clock_gettime(time.CLOCK_MONOTONIC)
    done = subprocess.run([sys.executable, "-c", _TELLING, *arguments], capture_output=True, text=True, check=False)
    ended = time.clock_gettime(time.CLOCK_MONOTONIC)
    if done.returncode not in (0, 97):  # one request is too few for a valid run
        sys.exit(f"loadtrt {shlex.join(arguments)} failed:\n{done.stderr}")
    measuring = float(done.stderr.split("measuring at ")[-1].split()[0])
    phases = json.loads(done.stdout)["phases"]
    loading, lanes = phases["load_ns"] / 1e9, phases["allocate_ns"] / 1e9
    own = measuring - began - loading - lanes
    return {"loading": loading, "lanes": lanes, "loadtrt's own": own, "after": ended - measuring}


if __name__ == "__main__":
    main()
