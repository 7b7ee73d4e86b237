"""When requests are due: drawn before the run, in int nanoseconds from its start. Closed loops have no schedule."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np

from loadtrt.errors import UsageError
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    import numpy.typing as npt

# Streams of random numbers have a number each, so that one can change without the others.
_ARRIVALS_STREAM = 0
_MOST = 200_000_000  # 1.6 GB of due instants


def due_instants(
    kind: Literal["constant", "poisson"], rate: float, least_ns: int, least_requests: int, seed: int
) -> npt.NDArray[np.int64]:
    """Due instants in ns from the start, int64 [n], ascending: all within `least_ns`, and at least `least_requests`.

    constant: t_k = k / rate. Poisson: gaps are independent exponentials of mean 1 / rate; rate in requests a second.
    The same seed gives the same instants, and a longer schedule begins with the shorter one.
    Raises UsageError where the schedule would not fit in memory.
    """
    expected = max(rate * least_ns / SECOND_NS, least_requests)
    if expected > _MOST:
        raise UsageError(f"{expected:.2g} requests are too many to draw: lower --rate, --duration or --requests")
    if kind == "constant":
        count = max(math.ceil(rate * least_ns / SECOND_NS), least_requests)
        return np.round(np.arange(count) * (SECOND_NS / rate)).astype(np.int64)
    random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_ARRIVALS_STREAM,)))
    block = max(1024, int(expected + 5 * math.sqrt(expected)))
    due = np.empty(0, np.float64)
    while len(due) < least_requests or len(due) == 0 or due[-1] < least_ns:
        start = due[-1] if len(due) else 0.0
        due = np.concatenate([due, start + np.cumsum(random.exponential(SECOND_NS / rate, block))])
    count = max(int(np.searchsorted(due, least_ns)), least_requests)
    return np.round(due[:count]).astype(np.int64)
