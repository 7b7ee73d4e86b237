"""What it takes a worker to choose where a request goes, beside others that are idle.

    python -m benchmarks.routing

Least-outstanding routing, as the loop runs it: the lock, a look at each worker, the choice, the lock again, and a row
of the schedule. As machine code where numba is installed, and as Python. Two readings of the clock are in it.
"""

from __future__ import annotations

import numpy as np

from loadtrt.environment import environment
from loadtrt.lanes.shared_router import RoutingMemory, SharedRouter
from loadtrt.load.dealing import Deal
from loadtrt.loop import compiled
from loadtrt.loop.requests import begin, new_state, view_of
from loadtrt.loop.routing import route

WORKERS = (2, 8, 64)
_REQUESTS = {"machine code": 200_000, "Python": 20_000}


def took_ns(workers: int, way: str) -> tuple[float, float]:
    """Median and p99 of what a choice took, ns."""
    count = _REQUESTS[way]
    due, memory = np.arange(count) * 100, RoutingMemory(workers)
    router = SharedRouter.join(memory.descriptor, Deal(0, workers, "least-outstanding"), due, 8, 1)
    nothing = np.zeros(1, np.int64)
    state = router.share(new_state(4, 2, 1, due, (0,), nothing, nothing))
    begin(view_of(state), 0)
    if way == "Python":
        route(view_of(state), router.view, count * 100)
    else:
        arrays = compiled._callable_arrays(router.arrays)
        call = compiled.machine_code(route, compiled._ROUTING[:-1], (state, arrays, 0), "routing")
        call((state, arrays, count * 100))
    took = router.took_ns
    memory.close()
    return float(np.median(took)), float(np.quantile(took, 0.99))


def main() -> None:
    """Print a row for each number of workers."""
    machine = environment()
    print(f"{machine['cpu']}, {machine['cores']} cores, CPython {machine['python']}, numpy {np.__version__}")
    ways = list(_REQUESTS) if compiled.is_compiled() else ["Python"]
    print("µs to choose the worker of a request: median, p99")
    print(f"{'workers':>8}" + "".join(f"{way:>20}" for way in ways))
    for workers in WORKERS:
        rows = (took_ns(workers, way) for way in ways)
        print(f"{workers:>8}" + "".join(f"{median / 1e3:>12.2f}{p99 / 1e3:>8.2f}" for median, p99 in rows), flush=True)


if __name__ == "__main__":
    main()
