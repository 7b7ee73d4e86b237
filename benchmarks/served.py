"""Records of requests that lanes serve, first come, first served: services by a law, and times in which lanes stand."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.records.records import COLUMNS, Records
from loadtrt.units import MILLISECOND_NS

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Series = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Law:
    """A law of service times, of which each has a mean of 1 ms.

    name: name of the law.
    draw: times of n requests, ms.
    part: the part of a mix of each request, an index, by its time; None: requests are of one kind.
    """

    name: str
    draw: Callable[[np.random.Generator, int], Series]
    part: Callable[[Series], npt.NDArray[np.bool_]] | None = None


def lognormal(cv: float) -> Law:
    """Times with a coefficient of variation."""
    sigma = math.sqrt(math.log1p(cv * cv))
    return Law(f"lognormal, CV {cv:g}", lambda random, n: random.lognormal(-(sigma**2) / 2, sigma, n))


def two(short: float, share: float, long: float, mixed: bool) -> Law:
    """A share of requests takes short/long of the time of the others. mixed: they are parts of a mix, which records
    tell; otherwise the law is bimodal, and they do not."""
    mean = short * share + long * (1 - share)

    def draw(random: np.random.Generator, n: int) -> Series:
        times: Series = np.where(random.random(n) < share, short, long) / mean
        return times

    name = f"{short:g}:{share:g}, {long:g}:{1 - share:g}"
    middle = (short + long) / 2 / mean
    return Law(f"mix {name}" if mixed else f"bimodal {name}", draw, (lambda times: times > middle) if mixed else None)


LAWS = (
    *(lognormal(cv) for cv in (0.2, 1.0, 2.0, 3.0)),
    Law("exponential", lambda random, n: random.exponential(1.0, n)),
    Law("constant", lambda _, n: np.ones(n)),
    *(two(*mix, mixed) for mix in ((1, 0.98, 64), (1, 0.7, 8), (1, 0.5, 32)) for mixed in (True, False)),
)


@dataclass(frozen=True)
class Stops:
    """When lanes stand still.

    length_ms: how long each time.
    every_ms: distance from one to the next; 0: once, at a random time.
    lane: the only one that does; None: all.
    """

    length_ms: float
    every_ms: float = 0.0
    lane: int | None = None

    def instants(self, random: np.random.Generator, lasted_ms: float) -> Series:
        """The beginning of each, ms."""
        if not self.every_ms:
            return np.array([random.uniform(0.1, 0.9) * lasted_ms])
        return np.arange(random.random(), lasted_ms / self.every_ms) * self.every_ms


def served(
    law: Law,
    requests: int,
    seed: int,
    *,
    lanes: int = 1,
    load: float | None = None,
    cv: float = 1.0,
    stops: Stops | None = None,
    course: Callable[[Series], Series] = np.ones_like,
) -> Records:
    """Requests of a run.

    load: rate times 1 ms over the lanes; None: a closed loop.
    cv: of the gaps between arrivals (gamma; 1: Poisson, 0: constant).
    course: factor of services, by the part of the requests that came before.
    """
    random = np.random.default_rng([seed, requests, lanes])
    drawn = law.draw(random, requests)
    service = drawn * course(np.arange(requests) / requests)
    due = None
    if load is not None:
        shape = 1 / cv**2 if cv else math.inf
        mean = 1 / load / lanes
        due = np.cumsum(random.gamma(shape, mean / shape, requests) if cv else np.full(requests, mean))
    lasted = float(due[-1]) if due is not None else requests / lanes
    begins = stops.instants(random, lasted) if stops else np.empty(0)
    free = [(0.0, lane) for lane in range(lanes)]
    rows = np.zeros((requests, len(COLUMNS)), np.int64)
    times = np.empty((requests, 3))
    for place, length in enumerate(service.tolist()):
        ready, lane = heapq.heappop(free)
        came = ready if due is None else float(due[place])
        start = max(ready, came)
        end = start + length
        if stops and stops.lane in (None, lane):
            at = int(np.searchsorted(begins, start, side="right")) - 1
            at = max(at, 0)
            while at < len(begins) and begins[at] < end:  # what is left of one that began before, and all within
                end += max(begins[at] + stops.length_ms - max(start, begins[at]), 0.0)
                at += 1
        heapq.heappush(free, (end, lane))
        times[place] = came, start, end
        rows[place, COLUMNS.index("lane")] = lane
    whole = np.rint(times * MILLISECOND_NS).astype(np.int64)
    for column, name in enumerate(("due", "submitted", "completed")):
        rows[:, COLUMNS.index(name)] = whole[:, column]
    if law.part is not None:
        rows[:, COLUMNS.index("inputs")] = law.part(drawn)
    return Records(rows)
