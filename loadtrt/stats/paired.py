"""The ratio of a number beside a neighbour to the number alone, of pairs of runs that are close in time.

Each pair has the same requests due at the same instants, alone and beside, one right after the other: what drifts
(clocks, temperature) and what is drawn is in both and cancels. With d_i the logarithm of the ratio of pair i of n,

    exp(d̄ ± t_{n−1} · s / √n)        t: Student's quantile at 97.5 %, s²: variance of the d_i

Pairs are independent: each has a seed of its own.

**Enough.** Rounds end early once the interval is narrow. A rule that ends at the first narrow interval picks pairs that
happen to agree, and the interval then holds the truth less often than it says (92 % instead of 95 %). So one more pair
is made after the interval was narrow, and counts. `benchmarks/interference_coverage.py` measures how often the interval
holds the truth.
"""

from __future__ import annotations

import math
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from loadtrt.results.interference_result import PairedRatio
from loadtrt.stats.regression import student

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST = 100.0  # of the logarithm of a ratio, which exp() still takes


def paired_ratio(name: str, pairs: Sequence[tuple[float | None, float | None]]) -> PairedRatio:
    """The ratio over pairs of a number alone and beside."""
    logs = [math.log(beside / alone) for alone, beside in pairs if alone and beside]
    if not pairs or len(logs) < len(pairs):
        unknown = next((place for place, pair in enumerate(pairs, 1) if not all(pair)), 1)
        return PairedRatio(name=name, ratio=None, reason=f"it is not known, or 0, in round {unknown}")
    mean = fmean(logs)
    if len(logs) == 1:
        return PairedRatio(name=name, ratio=math.exp(mean), reason="an interval takes two rounds or more")
    half = student(len(logs) - 1) * stdev(logs) / math.sqrt(len(logs))
    low, high = (math.exp(max(min(mean + sign * half, _MOST), -_MOST)) for sign in (-1, 1))
    return PairedRatio(name=name, ratio=math.exp(mean), low=low, high=high)


def narrow(ratio: PairedRatio, precision: float) -> bool:
    """Whether the upper end is no further from the ratio than that share of it."""
    return ratio.ratio is not None and ratio.high is not None and ratio.high <= ratio.ratio * (1 + precision)
