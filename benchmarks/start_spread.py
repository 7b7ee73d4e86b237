"""How far apart workers of one host begin to measure: python -m benchmarks.start_spread [WORKERS [ROUNDS]]

The goal is 2 ms on a quiet machine with a core for each worker. Where Ray is installed, also on a Ray cluster whose
nodes, as many, are all on this host.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import loadtrt
from benchmarks.machine import machine_line
from loadtrt.report.result_files import read_result
from loadtrt.results.run_result import RunResult
from loadtrt.stats.merging import merge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_OPTIONS: dict[str, Any] = {"engine": "simulated:service=5ms", "rate": 40, "duration": "1s", "warmup": "500ms"}
_LEAD_S = 8


def by_processes(workers: int) -> RunResult:
    """`loadtrt run --processes`."""
    return loadtrt.run(**_OPTIONS, processes=workers)


def by_files(workers: int) -> RunResult:
    """`loadtrt run --worker … --start-at` by themselves, and `loadtrt merge`."""
    words = [word for key, value in _OPTIONS.items() for word in (f"--{key}", str(value))]
    start = str(int(time.time()) + _LEAD_S)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{worker}.json" for worker in range(workers)]
        started = []
        for worker, file in enumerate(files):
            placed = ["--worker", f"{worker}/{workers}", "--start-at", start, "--json", str(file), "--quiet"]
            command = [sys.executable, "-m", "loadtrt", "run", *words, *placed]
            started.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        for process in started:
            process.wait()
        return merge({str(file): read_result(RunResult, file) for file in files})


@contextmanager
def ray_nodes(count: int) -> Iterator[str]:
    """The address of a Ray cluster with so many nodes, with a CPU each."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        for _ in range(count - 1):
            cluster.add_node(**node)
        yield cluster.address
    finally:
        cluster.shutdown()


def by_ray(address: str, workers: int) -> RunResult:
    """`loadtrt run --ray`."""
    result = loadtrt.run(**_OPTIONS, ray=address, workers=workers)
    clocks = [run.environment for run in result.workers]
    offset, error = (
        max(abs(clock[f"clock_{name}_ns"]) for clock in clocks) / 1e6 for name in ("offset", "offset_error")
    )
    print(f"{'':<18} clock offsets measured: at most {offset:.3f} ms, ± {error:.3f} ms; the true offset is 0")
    return result


def main(workers: int, rounds: int) -> None:
    """Print the spread of each."""
    print(machine_line())
    print(f"$ python -m benchmarks.start_spread {workers} {rounds}")
    ways: dict[str, Callable[[int], RunResult]] = {"--processes": by_processes, "--start-at, merge": by_files}
    with ExitStack() as stack:
        if find_spec("ray") is not None:
            ways["--ray"] = partial(by_ray, stack.enter_context(ray_nodes(workers)))
        _show(ways, workers, rounds)


def _show(ways: dict[str, Callable[[int], RunResult]], workers: int, rounds: int) -> None:
    for name, measure in ways.items():
        spreads = [(measure(workers).start_spread_ns or 0) / 1e6 for _ in range(rounds)]
        print(f"{name:<18} {workers} workers, ms: median {statistics.median(spreads):.2f}, greatest {max(spreads):.2f}")


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    main(*(given + [4, 5][len(given) :]))
