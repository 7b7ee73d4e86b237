"""How soon after its start instant a run begins to measure: python -m benchmarks.start_at [ROUNDS]

The goal is 2 ms on a quiet machine.
"""

from __future__ import annotations

import statistics
import sys
import time
from datetime import datetime

import loadtrt
from benchmarks.machine import machine_line

_SECOND_NS = 1_000_000_000


def main(rounds: int) -> None:
    """Print the delays of runs of the null engine that begin half a second ahead."""
    loadtrt.run(engine="simulated:null", requests=1000, warmup="100ms")  # imports what runs need
    delays_us = []
    for _ in range(rounds):
        start_at = time.time_ns() + _SECOND_NS // 2
        result = loadtrt.run(engine="simulated:null", requests=1000, warmup="100ms", start_at=start_at)
        whole, _, fraction = result.began.partition(".")
        began = int(datetime.fromisoformat(f"{whole}+00:00").timestamp()) * _SECOND_NS + int(fraction[:9])
        delays_us.append((began - start_at) / 1000)
    print(machine_line())
    print(f"$ python -m benchmarks.start_at {rounds}")
    print(f"delay, µs: median {statistics.median(delays_us):.1f}, greatest {max(delays_us):.1f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
