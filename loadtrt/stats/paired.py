"""The ratio of a number beside a neighbour to the number alone, of pairs of runs that are close in time.

Each pair has the same requests due at the same instants, alone and beside, one right after the other: what drifts
(clocks, temperature) and what is drawn is in both and cancels. With d_i the logarithm of the ratio of pair i of n,

    exp(d̄ − t_{n−1} · s / √n − b(N alone)) .. exp(d̄ + t_{n−1} · s / √n + b(N beside))

t: Student's quantile at 97.5 %, s²: variance of the d_i. Pairs are independent: each has a seed of its own.

**Short runs.** A percentile of a run is too low on average where the run's requests are worth few independent ones,
since most such runs miss the rare long queues. More pairs do not change that. Latencies behind queues have exponential
tails. The k-th smallest of N exponential values with k = ⌈pN⌉ has, to the first order, the mean q − p / (2 (1 − p) N),
where q = ln(1 / (1 − p)) is their quantile. The ends include that with 1 for p, as a share of q:

    b(N) = 1 / (2 (1 − p) q N)        5.4 % of p99 with N = 200

N: effective requests of a run (stats/verdict.py). The mean of the logarithm is lower by slightly more, 6.0 % in this
example: benchmarks/interference_coverage.py shows that the intervals hold what they say. The interval has no upper end
where the runs beside have less than LEAST effective requests on average, and no lower end where those alone have. Where
all pairs have one ratio, as in a partition that nobody enters, nothing is missed.

**Enough.** Rounds end early once the interval is narrow. A rule that ends at the first narrow interval picks pairs that
happen to agree, and the interval then holds the truth less often than it says (92 % instead of 95 %). So one more pair
is made after the interval was narrow, and counts.

`benchmarks/interference_coverage.py` measures how often the interval holds the truth: LEAST was chosen by that.
"""

from __future__ import annotations

import math
from statistics import fmean, stdev
from typing import TYPE_CHECKING, NamedTuple

from loadtrt.results.breakdown import PERCENTILES
from loadtrt.results.interference_result import PairedRatio
from loadtrt.stats.regression import student
from loadtrt.units import format_count

if TYPE_CHECKING:
    from collections.abc import Sequence

LEAST_PAIRS = 3
LEAST = {"latency.p50": 4.0, "latency.p99": 200.0, "latency.mean": 40.0}  # effective requests of a run
# Of a longer run: if queues change slowly, short runs overestimate their effective size. At a load of 0.75 intervals of
# p99 held the ratio in 3 % more of the cells with 2.5 than with 1.5.
MARGIN = 2.5
ENOUGH = 1.25  # times as long, with that margin: runs that are worth twice what they must be
_MOST = 100.0  # of the logarithm of a ratio, which exp() still takes


class Pair(NamedTuple):
    """A number alone and beside, and the effective sizes of both runs."""

    alone: float | None
    beside: float | None
    sizes: tuple[float, float] = (math.inf, math.inf)


def paired_ratio(name: str, pairs: Sequence[Pair]) -> PairedRatio:
    """The ratio over pairs of a number alone and beside. name: as PairedRatio has it."""
    logs = [math.log(pair.beside / pair.alone) for pair in pairs if pair.alone and pair.beside]
    if not pairs or len(logs) < len(pairs):
        unknown = next((place for place, pair in enumerate(pairs, 1) if not (pair.alone and pair.beside)), 1)
        return PairedRatio(name=name, ratio=None, reason=f"it is not known, or 0, in round {unknown}")
    mean, least = fmean(logs), LEAST.get(name, 0.0)
    alone, beside = (fmean(pair.sizes[side] for pair in pairs) for side in (0, 1))
    longer = MARGIN * least / size if (size := min(alone, beside)) else None
    if len(logs) == 1:
        return PairedRatio(
            name=name, ratio=math.exp(mean), reason="an interval takes two rounds or more", longer=longer
        )
    half = student(len(logs) - 1) * stdev(logs) / math.sqrt(len(logs))
    ends = (-half - _missed(name, alone), half + _missed(name, beside)) if half else (0.0, 0.0)
    low, high = (math.exp(max(min(mean + end, _MOST), -_MOST)) for end in ends)
    reason = None
    least = least if half else 0.0
    if min(alone, beside) < least:
        end, size = ("upper", beside) if beside < least else ("lower", alone)
        worth = f"a round's requests are worth {format_count(math.floor(size))} independent ones"
        reason = f"{worth}, and the {end} end takes {least:.0f}"
    return PairedRatio(
        name=name,
        ratio=math.exp(mean),
        low=low if alone >= least else None,
        high=high if beside >= least else None,
        reason=reason,
        longer=longer,
    )


def _missed(name: str, size: float) -> float:
    """b(N), about what the logarithm of a percentile of so many effective requests is too low by; 0 for a mean."""
    above = 1 - PERCENTILES.get(name.partition(".")[2], 0.0)
    return 1 / (2 * above * -math.log(above) * size) if size and above < 1 else 0.0


def enough(name: str, pairs: Sequence[Pair], precision: float) -> bool:
    """Whether no further pair is needed: the interval without the last one has its upper end no further from the ratio
    than that share of it."""
    if len(pairs) < LEAST_PAIRS:
        return False
    before = paired_ratio(name, pairs[:-1])
    return before.ratio is not None and before.high is not None and before.high <= before.ratio * (1 + precision)
