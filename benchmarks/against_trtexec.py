"""loadtrt, an older loadtrt and trtexec on the same plans, in turns on one machine, and the ratio of what they serve.

    python -m benchmarks.against_trtexec --trtexec 'trtexec --versionCompatible' --loadtrt=--allow-host-code \\
        --tree old=../old --tree new=. \\
        --row 'GoogLeNet b16' googlenet.plan data:16x3x224x224 1,4 --row ResNet resnet.plan - 1,4 --json rows.json
    python -m benchmarks.against_trtexec --tree on=. --tree 'off=. --device-times off' --row tiny tiny.plan - 1,4
    python -m benchmarks.against_trtexec --shown rows.json more.json      # the table again

The same mode for all: copies included, CUDA graphs, spinning, as many streams as contexts. Hosts wander: a row's runs
follow one another directly, in each round all of them once, who goes first alternates, and a ratio is the median of the
rounds' ratios, with the least and most in brackets. Rows are written as they end.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from loadtrt.units import format_count, format_duration

TRTEXEC = "trtexec"
NUMBERS = {
    "requests_per_s": re.compile(r"Throughput: ([0-9.e+]+) qps"),
    "device_p50_ms": re.compile(r"\] Latency: .*?median = ([0-9.e+-]+) ms"),
    "compute_p50_ms": re.compile(r"\] GPU Compute Time: .*?median = ([0-9.e+-]+) ms"),
}
Run = dict[str, Any]


def run_trtexec(options: argparse.Namespace, plan: str, shapes: str, contexts: int) -> Run:
    """What it measured."""
    command = [
        *shlex.split(options.trtexec),
        *(f"--loadEngine={plan}", *([] if shapes == "-" else [f"--shapes={shapes}"]), f"--infStreams={contexts}"),
        *("--useCudaGraph", "--useSpinWait", f"--warmUp={options.warmup * 1e3:g}", f"--duration={options.seconds:g}"),
        "--avgRuns=100000000",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = {name: pattern.search(done.stdout) for name, pattern in NUMBERS.items()}
    if found["requests_per_s"] is None or "flag has been ignored" in done.stdout:
        return failed(command, done.stdout[-1500:] + done.stderr[-1000:])
    values = {name: float(match[1]) for name, match in found.items() if match}
    times = {name.removesuffix("_ms") + "_ns": value * 1e6 for name, value in values.items() if name.endswith("_ms")}
    return {"requests_per_s": values["requests_per_s"], **times}


def run_loadtrt(options: argparse.Namespace, tree: str, plan: str, shapes: str, contexts: int) -> Run:
    """What the package in the folder of `tree` measured with its options; its verdict, choices and first finding."""
    folder, *own = shlex.split(tree)
    command = [
        *(sys.executable, "-m", "loadtrt", "run", "--engine", plan, "--contexts", str(contexts)),
        *([] if shapes == "-" else ["--shapes", shapes]),
        *("--duration", f"{options.seconds:g}s", "--warmup", f"{options.warmup:g}s", "--quiet", "--json", "-"),
        *shlex.split(options.loadtrt),
        *own,
    ]
    paths = [str(Path(folder).resolve()), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    try:
        result = json.loads(done.stdout)
    except ValueError:
        return failed(command, done.stderr)
    (model,) = result["models"].values()
    times = {f"{name}_p50_ns": model["metrics"].get(name, {}).get("percentiles_ns", {}).get("p50") for name in METRICS}
    return {
        "requests_per_s": model["throughput"]["requests_per_s"],
        **times,
        "valid": result["valid"],
        "mode": model["engine"]["mode"],
        "problems": model["problems"],
        "findings": model["findings"],
        "host_cores": result["host_cores"],
        "phases": result["phases"],
        "starved_fraction": model["starved_fraction"],
    }


METRICS = ("latency", "device", "compute", "enqueue")


def failed(command: list[str], said: str) -> Run:
    """A run without a result; the table leaves its round out."""
    print(f"{shlex.join(command)} failed:\n{said}", file=sys.stderr, flush=True)
    return {"failed": said}


def measure(options: argparse.Namespace, name: str, plan: str, shapes: str, contexts: int) -> Run:
    """All rounds of one row."""
    trees = dict(tree.split("=", 1) for tree in options.tree)
    tools = [TRTEXEC, *trees]
    rounds = []
    for number in range(options.rounds):
        runs = {}
        for tool in tools if number % 2 == 0 else reversed(tools):
            if tool == TRTEXEC:
                runs[tool] = run_trtexec(options, plan, shapes, contexts)
            else:
                runs[tool] = run_loadtrt(options, trees[tool], plan, shapes, contexts)
        rounds.append(runs)
    return {"name": name, "plan": Path(plan).name, "shapes": shapes, "contexts": contexts, "rounds": rounds}


def header(trees: list[str]) -> list[str]:
    """The table's columns."""
    cells = ["net", "contexts", "trtexec/s", *(f"{tree}/s" for tree in trees)]
    cells += [f"{tree} : trtexec" for tree in trees]
    if len(trees) > 1:
        cells.append(f"{trees[-1]} : {trees[0]}")
    cells += [f"verdicts {tree}" for tree in trees]
    return [*cells, "submitted", "found first", "compute p50", "latency p50"]


def cells_of(row: Run, trees: list[str]) -> list[str]:
    """A row of the table."""
    rounds = row["rounds"]

    def of(tool: str, key: str) -> list[Any]:
        return [runs[tool][key] for runs in rounds if runs[tool].get(key) is not None]

    def ratio(tool: str, other: str) -> str:
        pairs = [(runs[tool].get("requests_per_s"), runs[other].get("requests_per_s")) for runs in rounds]
        ratios = [one / two for one, two in pairs if one and two]
        return f"{median(ratios):.3f} [{min(ratios):.3f} .. {max(ratios):.3f}]" if ratios else "–"

    def typical(tools: list[str], key: str) -> str:
        return " · ".join(format_duration(median(of(tool, key))) if of(tool, key) else "–" for tool in tools)

    def served(tool: str) -> str:
        rates = of(tool, "requests_per_s")
        return format_count(median(rates)) if rates else "–"

    def verdicts(tree: str) -> str:
        return "".join("–" if runs[tree].get("valid") is None else "IV"[runs[tree]["valid"]] for runs in rounds)

    new = trees[-1]
    modes = dict.fromkeys(", ".join(f"{k} {v}" for k, v in mode.items() if k not in PLAIN) for mode in of(new, "mode"))
    first = dict.fromkeys(found[0]["kind"] if found else "–" for found in of(new, "findings"))
    return [
        *(row["name"], str(row["contexts"]), *(served(tool) for tool in (TRTEXEC, *trees))),
        *(ratio(tree, TRTEXEC) for tree in trees),
        *([ratio(new, trees[0])] if len(trees) > 1 else []),
        *(verdicts(tree) for tree in trees),
        *(" / ".join(modes), " / ".join(first)),
        *(typical([TRTEXEC, *trees], "compute_p50_ns"), typical(trees, "latency_p50_ns")),
    ]


PLAIN = ("graph", "copies", "wait")  # the same in all rows


def show(rows: list[Run], trees: list[str]) -> None:
    """Print the table in Markdown."""
    lines = [header(trees), ["---"] * len(header(trees)), *(cells_of(row, trees) for row in rows)]
    print("\n".join(f"| {' | '.join(line)} |" for line in lines), flush=True)


def machine() -> str:
    """Its line, asked by a process that ends: this one must not hold memory of the GPU while others are measured."""
    asked = [sys.executable, "-c", "from benchmarks.machine import machine_line; print(machine_line())"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()


def main() -> None:
    """Print the table, and the machine it was made on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trtexec", default=TRTEXEC, help="its command, with what it needs beside plan and load")
    parser.add_argument("--tree", action="append", metavar="NAME=FOLDER [OPTION…]", help="a loadtrt, the newest last")
    parser.add_argument("--row", nargs=4, action="append", default=[], metavar=("NAME", "PLAN", "SHAPES|-", "1,4"))
    parser.add_argument("--loadtrt", default="", help="more options for `loadtrt run`")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2, help="of each run")
    parser.add_argument("--warmup", type=float, default=1, help="seconds, of each run")
    parser.add_argument("--within", type=float, default=float("inf"), help="begin no row that ends later, seconds")
    parser.add_argument("--json", type=Path, help="all runs")
    parser.add_argument("--shown", nargs="+", type=Path, metavar="JSON", help="run nothing, print the table of these")
    options = parser.parse_args()
    if options.shown:
        files = [json.loads(file.read_text(encoding="utf-8")) for file in options.shown]
        show([row for file in files for row in file["rows"]], files[0]["trees"])
        return
    options.tree = options.tree or ["loadtrt=."]
    trees = [tree.partition("=")[0] for tree in options.tree]
    about = {"machine": machine(), "command": shlex.join(sys.argv[1:]), "trees": trees}
    print(f"{about['machine']}\n$ python -m benchmarks.against_trtexec {about['command']}\n", flush=True)
    began, longest = time.monotonic(), 0.0
    rows: list[Run] = []
    for name, plan, shapes, counts in options.row:
        for contexts in map(int, counts.split(",")):
            start = time.monotonic()
            if start - began + longest > options.within:
                print(f"no time is left for {name} with {contexts} contexts", file=sys.stderr, flush=True)
                continue
            rows.append(measure(options, name, plan, shapes, contexts))
            longest = max(longest, time.monotonic() - start)
            print(f"{time.monotonic() - began:5.0f} s: {' | '.join(cells_of(rows[-1], trees))}", file=sys.stderr)
            if options.json:
                options.json.write_text(json.dumps({**about, "rows": rows}), encoding="utf-8")
    show(rows, trees)


if __name__ == "__main__":
    main()
