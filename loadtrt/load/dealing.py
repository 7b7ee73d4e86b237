"""One load for the workers of a fleet. Each worker draws the whole schedule, by the fleet's seed, and takes the
requests that are dealt to it: together they are the schedule, whatever the number of workers. Only workers of one host,
which know what each has outstanding, deal out as requests come due.

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
POOLED = ("least-outstanding", "two-choices")  # routings by what each worker has outstanding
TIES = ("longest-idle", "random", "lowest-index")  # which of several with the fewest gets the next request
FORMS = "random, round-robin, sticky:KEY, least-outstanding or two-choices"
_DEALING_STREAM = 7  # apart from the random numbers of arrivals (load/arrivals.py)
_SEED_STEP, _SEEDS = 1 << 32, 1 << 63


@dataclass(frozen=True, slots=True)
class Deal:
    """What one worker of a fleet takes of the fleet's load.

    worker: its number, from 0.
    workers: how many there are.
    routing: "random" (each request goes to a random worker), "round-robin" (to the next one), "sticky" (to that of
        its key) or one of POOLED, by which workers route requests as they come due (loop/routing.py).
    key: the column or key of the trace by which "sticky" deals; what "least-outstanding" does with ties; "" for the
        others.
    """

    worker: int
    workers: int
    routing: str = "random"
    key: str = ""

    @property
    def pooled(self) -> bool:
        """Whether nothing is dealt out beforehand."""
        return self.routing in POOLED

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

    def draws(self, count: int, seed: int) -> npt.NDArray[np.int64]:
        """The random numbers of each of `count` requests by which workers route them, int64: two workers for
        "two-choices", one number of DRAW_BITS bits for random ties; for others none."""
        from loadtrt.loop.routing import DRAW_BITS

        random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_DEALING_STREAM,)))
        if self.routing == "two-choices":
            return random.integers(self.workers, size=2 * count)
        return random.integers(1 << DRAW_BITS, size=count if self.key == "random" else 0)

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
    """(routing, key) of "random", "round-robin", "sticky:KEY", "least-outstanding", "least-outstanding:TIES" or
    "two-choices". Raises UsageError."""
    routing, _, key = text.partition(":")
    if routing == "sticky" and not key:
        raise UsageError("sticky routing goes by a column or key of the trace: name it, such as sticky:user")
    if routing == "least-outstanding" and ":" in text and key not in TIES:
        raise UsageError(
            f"'{shortened(text)}' does not say what to do with ties: write one of {', '.join(TIES)} behind the colon, "
            "or least-outstanding alone, for the first"
        )
    if text not in ("random", "round-robin", *POOLED) and routing not in ("sticky", "least-outstanding"):
        raise UsageError(f"'{shortened(text)}' is not a routing: write {FORMS}")
    return routing, key


def is_even(routing: str) -> bool:
    """Whether workers get the same arrivals, or arrivals that depend on those of all: their errors go together."""
    return parse_routing(routing)[0] in ("round-robin", *POOLED)


def of_one_host(routing: str) -> str:
    """Why workers that were not started together on one host cannot route so, in a sentence."""
    return (
        f"{routing} routing counts what each worker has outstanding, in memory that workers of one host share: start "
        "them by --devices or --processes, or take --routing random, round-robin or sticky:KEY"
    )
