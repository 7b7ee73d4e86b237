"""Devices of which nothing is known but how many requests are late at each rate, for searches without an engine."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.asked.objective import parse_objective
from loadtrt.sizing.outcomes import Outcome, Share, Step
from loadtrt.sizing.search import Search
from loadtrt.sizing.threshold import log_odds
from loadtrt.stats.verdict import verdict_by_size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

P99 = parse_objective("latency.p99 < 10ms")
ALLOWED = 0.01
THROUGHPUT = 1000.0
_MOST_RUNS = 60


def logistic(threshold: float, slope: float, floor: float = 0.0) -> Callable[[float], float]:
    """The share of bad requests at a rate: 1 % at the threshold, `floor` of all at any rate, and of the others as many
    that their log-odds are a straight line."""
    at_threshold = log_odds((ALLOWED - floor) / (1 - floor))

    def share(rate: float) -> float:
        odds = at_threshold + slope * (rate / threshold - 1)
        return floor + (1 - floor) / (1 + math.exp(-min(max(odds, -700.0), 700.0)))

    return share


def of_a_queue(per_s: float) -> Callable[[float], float]:
    """Independent requests a second of a queue, which forgets faster at lower rates."""
    return lambda rate: per_s * (rate / THROUGHPUT) * (1 - math.sqrt(min(rate / THROUGHPUT, 0.95))) ** 2


def judged(bad: float, size: float, allowed: float = ALLOWED) -> Share:
    """The result of a run of which the share `bad` of `size` independent requests was bad."""
    objective = parse_objective(f"latency.p{100 * (1 - allowed):g} < 10ms")
    return Share(bad, size, verdict_by_size(objective, bad, size))


@dataclass
class World:
    """Runs whose requests are bad by a law.

    share: share of bad requests at a rate.
    worth: independent requests a second, at a rate or at any.
    seed: of the random draws.
    host_limit: rate above which the generator is late.
    """

    share: Callable[[float], float]
    worth: float | Callable[[float], float]
    seed: int
    host_limit: float = math.inf

    def run(self, step: Step) -> Outcome:
        """The result of a step."""
        random = np.random.default_rng([self.seed, round(step.rate * 1e6), round(step.seconds)])
        size = (self.worth(step.rate) if callable(self.worth) else self.worth) * step.seconds
        count = max(round(size), 1)
        bad = random.binomial(count, self.share(step.rate)) / count
        return Outcome(step, (judged(bad, size),), step.rate > self.host_limit)


def search(
    start: float = 700.0,
    *,
    throughput: float = THROUGHPUT,
    time_s: float = 600.0,
    spread: float = 0.1,
    alone: Sequence[Share] = (),
    quick: bool = False,
) -> Search:
    """A search for the rate at which 1 % is bad, whose shortest run is a hundredth of the time."""
    return Search([P99], start, spread, throughput, 0.03, time_s, time_s / 100, alone, confirms=not quick)


def driven(one: Search, run: Callable[[Step], Outcome]) -> Search:
    """To the end, which must come."""
    for _ in range(_MOST_RUNS):
        step = one.next()
        if step is None:
            return one
        one.record(run(step))
    raise AssertionError(f"no end after {one.outcomes}")


def runs(one: Search, kind: str) -> list[Outcome]:
    """The runs of one kind, in their order."""
    return [each for each in one.outcomes if each.step.kind == kind]


def spent_s(one: Search) -> float:
    """Duration of all runs."""
    return sum(each.lasted for each in one.outcomes)
