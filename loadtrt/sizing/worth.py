"""How many independent requests a run is worth, and how long one must be for a verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist, fmean
from typing import TYPE_CHECKING

from loadtrt.stats.binomial import surely_above
from loadtrt.stats.verdict import LEAST_MET, discounted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from loadtrt.sizing.outcomes import Share
    from loadtrt.sizing.threshold import Estimate

_SURE = 0.9  # share of the expected effective sample size that a run is counted on to have
_LUCK = 0.6  # standard deviations of good luck that a refuting run must stand for a decision
_QUANTILE = 1.96  # standard deviations on each side that hold 95 %
_DEVIATIONS = [NormalDist().inv_cdf((part + 0.5) / 7) for part in range(7)]  # of the threshold, equally likely
_MOST_SPREAD = 0.5  # standard deviation of the threshold's logarithm
_LEAST_GAIN = 0.002  # expected gain of a confirming run, over the estimate
_NEARLY = 0.95  # probability to meet that a shorter run must keep
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

    def meets(self, rate: float, seconds: float, before: Share) -> float:
        """The probability that a confirming run at `rate` meets, together with the evidence `before` of confirming runs
        at that rate and above. A share met is p₀ − z·√(p₀(1−p₀)/N) at most (Wilson's score); the estimated threshold is
        as uncertain as its interval says."""
        size, allowed = discounted(self.single(rate, seconds)), self.threshold.allowed
        total = size + before.size
        if size <= 0 or total < LEAST_MET:
            return 0.0
        most = allowed - _QUANTILE * math.sqrt(allowed * (1 - allowed) / total)
        most = (most * total - before.bad * before.size) / size
        if most < 0:
            return 0.0
        spread = min(self.threshold.error, _MOST_SPREAD) / _QUANTILE
        shares = [self.threshold.share_at(rate * math.exp(spread * deviation)) for deviation in _DEVIATIONS]
        normal = NormalDist()
        return fmean(normal.cdf((most - p) / math.sqrt(max(p * (1 - p), 1e-12) / size)) for p in shares)

    def most_gaining(
        self, before: Mapping[float, Share], base: float, shortest: float, longest: float
    ) -> tuple[float, float] | None:
        """(rate, duration in s) of the confirming run with the largest expected gain over the rate `base`, which is the
        probability to meet times the difference; None where the gain is too small. It lasts as long as it needs to be
        nearly as likely to meet as the longest one.

        before: the evidence at each rate and above.
        """

        def likely(rate: float, seconds: float) -> float:
            together, alone = before[rate], before[rate]._replace(bad=0.0, size=0.0)
            return max(self.meets(rate, seconds, together), self.meets(rate, seconds, alone))

        gains = {rate: likely(rate, longest) * (rate - base) for rate in before}
        rate = max(gains, key=gains.__getitem__, default=base)
        if gains.get(rate, 0.0) <= _LEAST_GAIN * self.threshold.rate:
            return None
        wanted = _NEARLY * likely(rate, longest)
        return rate, next((each for each in _lengths(shortest, longest) if likely(rate, each) >= wanted), longest)

    def missable(self, seconds: float, ceiling: float) -> float:
        """The lowest rate at which a refuting run is likely to miss; at most the ceiling, where the queue grows."""
        for part in range(1, _FARTHEST):
            rate = self.threshold.rate * (1 + part / _FARTHEST)
            share, size = self.threshold.share_at(rate), discounted(self.single(rate, seconds))
            lucky = max(share - _LUCK * math.sqrt(share * (1 - share) / max(size, 1.0)), 0.0)
            if rate >= ceiling or surely_above(lucky, size, self.threshold.allowed):
                return min(rate, ceiling)
        return ceiling


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
