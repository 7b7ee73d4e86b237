"""How many independent requests a run is worth, and how long one must be for a verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadtrt.stats.verdict import LEAST_MET, discounted, share_interval

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadtrt.capacity.outcomes import Share
    from loadtrt.capacity.threshold import Estimate

_SURE = 0.9  # share of the expected effective sample size that a run is counted on to have
_LUCK = 0.6  # standard deviations of bad luck that a run must stand for a decision
_RESOLVED = 100
_MOST_LOAD = 0.95  # utilisation above which the relaxation time of a queue is assumed constant: X is not known better
_FARTHEST = 100  # parts of a hundred above the threshold


@dataclass(frozen=True, slots=True)
class Worth:
    """The effective sample size to expect of a run, by that of the runs so far.

    threshold: the estimated threshold.
    throughput: highest measured throughput, requests per second.
    seen: (arrival rate, duration in s, effective sample size) of each run.
    """

    threshold: Estimate
    throughput: float
    seen: Sequence[tuple[float, float, float]]

    def single(self, rate: float, seconds: float) -> float:
        """The N₁ that a run is counted on to have."""
        return _SURE * expected_size(self.seen, self.throughput, rate, seconds)

    def decided_s(self, rate: float, shortest: float, longest: float, before: Share) -> float | None:
        """The shortest confirming run at `rate` that is likely to meet, s: even if p + _LUCK·√(p(1−p)/N) is observed, p
        the expected share and N the expected effective sample size. None where it is longer than `longest`.

        before: the evidence of confirming runs at that rate and above.
        """
        lengths = _lengths(shortest, longest)
        return next((seconds for seconds in lengths if self._likely_met(rate, seconds, before)), None)

    def missable(self, seconds: float, ceiling: float) -> float:
        """The lowest rate at which a refuting run is likely to miss; at most the ceiling, where the queue grows."""
        for part in range(1, _FARTHEST):
            rate = self.threshold.rate * (1 + part / _FARTHEST)
            share, size = self.threshold.share_at(rate), discounted(self.single(rate, seconds))
            lucky = max(share - _LUCK * math.sqrt(share * (1 - share) / max(size, 1.0)), 0.0)
            if rate >= ceiling or share_interval(lucky, size)[0] > self.threshold.allowed:
                return min(rate, ceiling)
        return ceiling

    def _likely_met(self, rate: float, seconds: float, before: Share) -> bool:
        share, size = self.threshold.share_at(rate), discounted(self.single(rate, seconds))
        unlucky = share + _LUCK * math.sqrt(share * (1 - share) / max(size, 1.0))
        size_of_all = size + before.size
        bad = (unlucky * size + before.bad * before.size) / max(size_of_all, 1e-9)
        return size_of_all >= LEAST_MET and share_interval(min(bad, 1.0), size_of_all)[1] <= self.threshold.allowed


def expected_size(seen: Sequence[tuple[float, float, float]], throughput: float, rate: float, seconds: float) -> float:
    """The expected N₁ of a run (stats/verdict.py), by the median of all runs, weighted by their length: it grows with
    length and, at lower rates, with the faster relaxation of queues, λ(1 − √ρ)² (M/M/1: Cohen, The single server queue,
    1982). The arguments are as in Worth."""

    def pace(rate: float) -> float:
        return rate * (1 - math.sqrt(min(rate / throughput, _MOST_LOAD))) ** 2

    lengths = [max(pace(then) * duration, 1e-9) for then, duration, _ in seen]
    singles = [size if size >= _RESOLVED else math.sqrt(size * _RESOLVED) for _, _, size in seen]
    ratios = sorted((single / length, length) for single, length in zip(singles, lengths, strict=True))
    half, reached = sum(lengths) / 2, 0.0
    for ratio, length in ratios:
        reached += length
        if reached >= half:
            return ratio * pace(rate) * seconds
    return 0.0


def _lengths(shortest: float, longest: float) -> Iterator[float]:
    seconds = min(shortest, longest)
    while seconds < longest:
        yield seconds
        seconds *= 1.1
    yield longest
