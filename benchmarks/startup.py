"""How long it takes from the command to measured requests, beside what the engine's own library takes to load.

    python -m benchmarks.startup --rounds 5 -- --engine googlenet16.plan --contexts 4

`loadtrt --help`, then `loadtrt run` of one request without warm-up: the whole process from its start to its end, what
of it was the engine loading (reading, deserializing, and importing its library) and making lanes, and the rest, which
is loadtrt's own: Python, imports, configuration, writing the result, and ending.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from statistics import median

from benchmarks.machine import machine_line


def timed(*arguments: str) -> tuple[float, str]:
    """Seconds that `loadtrt ARGUMENTS` took, and its output."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "loadtrt", *arguments], capture_output=True, text=True, check=False)
    took = time.perf_counter() - began
    if done.returncode not in (0, 97):  # one request is too few for a valid run
        sys.exit(f"loadtrt {shlex.join(arguments)} failed:\n{done.stderr}")
    return took, done.stdout


def main() -> None:
    """Print medians, with the least and most."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("run", nargs="+", help="options of `loadtrt run`, after --")
    given = parser.parse_args()
    print(machine_line())
    print("$ python -m benchmarks.startup " + shlex.join(sys.argv[1:]))
    kept: dict[str, list[float]] = {"--help": [], "run, whole": [], "loading": [], "lanes": [], "the rest": []}
    for _ in range(given.rounds):
        kept["--help"].append(timed("--help")[0])
        whole, text = timed("run", *given.run, "--warmup", "0", "--requests", "1", "--quiet", "--json", "-")
        phases = json.loads(text)["phases"]
        loading, lanes = phases["load_ns"] / 1e9, phases["allocate_ns"] / 1e9
        for name, value in (("run, whole", whole), ("loading", loading), ("lanes", lanes)):
            kept[name].append(value)
        kept["the rest"].append(whole - loading - lanes)
    for name, values in kept.items():
        print(f"  {name:12} {median(values):6.2f} s  [{min(values):.2f} .. {max(values):.2f}]")


if __name__ == "__main__":
    main()
