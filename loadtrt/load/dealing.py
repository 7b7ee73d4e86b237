"""One load for the workers of a fleet. Each worker draws the whole schedule, by the fleet's seed, and takes the
requests that are dealt to it: together they are the schedule, whatever the number of workers.

Requests that are dealt at random come to a worker as a thinned process: of gaps with the coefficient of variation c,
those at one of N workers have √(1 + (c² − 1)/N), so that Poisson arrivals stay Poisson. Dealt out in turn they have
c/√N: Poisson arrivals become Erlang's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.errors import UsageError
from loadtrt.printing import shortened

if TYPE_CHECKING:
    import numpy.typing as npt

MOST_WORKERS = 4096
_DEALING_STREAM = 7  # apart from the random numbers of arrivals (load/arrivals.py)
_SEED_STEP, _SEEDS = 1 << 32, 1 << 63


@dataclass(frozen=True, slots=True)
class Deal:
    """What one worker of a fleet takes of the fleet's load.

    worker: its number, from 0.
    workers: how many there are.
    routing: "random" (each request goes to a random worker), "round-robin" (to the next one) or "sticky" (to that of
        its key).
    key: the column or key of the trace by which "sticky" deals; "" for the others.
    """

    worker: int
    workers: int
    routing: str = "random"
    key: str = ""

    def places(self, count: int, seed: int, keys: npt.NDArray[np.uint64] | None = None) -> npt.NDArray[np.intp]:
        """Places of this worker's requests among the first `count` of the schedule, ascending.

        seed: the fleet's.
        keys: of the requests, for "sticky", uint64; of a trace that begins again, those of one round.
        """
        if self.routing == "round-robin":
            return np.arange(self.worker, count, self.workers)
        if keys is not None:
            return np.flatnonzero(np.resize(keys % np.uint64(self.workers) == self.worker, count))
        random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_DEALING_STREAM,)))
        return np.flatnonzero(random.integers(self.workers, size=count, dtype=np.uint16) == self.worker)

    def requests(self, count: int) -> int:
        """How many of the fleet's requests a worker sends in a closed loop, which no schedule deals out."""
        return count // self.workers + (self.worker < count % self.workers)

    def share(self, keys: npt.NDArray[np.uint64] | None = None) -> float:
        """The part of the load that comes to this worker, in the mean. keys: as for `places`."""
        return len(self.places(len(keys), 0, keys)) / len(keys) if keys is not None else 1 / self.workers

    def seed(self, seed: int) -> int:
        """The seed of what this worker draws by itself: service times of a simulated engine, and mixes of closed
        loops. Worker 0 has the fleet's."""
        return (seed + self.worker * _SEED_STEP) % _SEEDS


def parse_worker(text: str) -> tuple[int, int]:
    """(number, workers) of "2/8", the third of eight. Raises UsageError."""
    match = re.fullmatch(r"\s*(\d{1,9})\s*/\s*(\d{1,9})\s*", text)
    if not match:
        raise UsageError(
            f"'{shortened(text)}' is not a worker: write NUMBER/WORKERS, such as 0/4 for the first of four"
        )
    number, workers = map(int, match.groups())
    if not 1 <= workers <= MOST_WORKERS:
        raise UsageError(f"{workers} workers are too {'many' if workers else 'few'}: a fleet has 1 to {MOST_WORKERS}")
    if number >= workers:
        raise UsageError(f"there is no worker {number} of {workers}: they are numbered from 0 to {workers - 1}")
    return number, workers


def parse_routing(text: str) -> tuple[str, str]:
    """(routing, key) of "random", "round-robin" or "sticky:KEY". Raises UsageError."""
    routing, _, key = text.partition(":")
    if text not in ("random", "round-robin") and (routing != "sticky" or not key):
        if text == "sticky":
            raise UsageError("sticky routing goes by a column or key of the trace: name it, such as sticky:user")
        if text in ("least-outstanding", "two-choices"):
            raise UsageError(
                f"{text} routing needs a dispatcher that knows each worker's queue, and workers deal the load out "
                "beforehand: take random, round-robin or sticky:KEY"
            )
        raise UsageError(f"'{shortened(text)}' is not a routing: write random, round-robin or sticky:KEY")
    return routing, key
