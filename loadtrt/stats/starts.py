"""How far several starts of one run are apart, and whether that is more than one run's own interval explains.

x_i: a number of start i of n, s² their variance. Starts are independent, whatever the autocorrelation within each, so
that the mean of what a start measures is, at 95 %,

    x̄ ± t_{n−1} · s / √n

t: Student's quantile at 97.5 %. It holds for starts as these were: on this machine, in this state of it.

A run's own interval says what varied within it, not what a start decides for as long as it lasts: where memory lies, on
which core a thread is, how a library has tuned itself (hysteresis: Zhang et al., Treadmill, ISCA 2016).

On a log scale, with e_i = ln(high ÷ low) ÷ (2 · 1.96) the standard error that the interval of run i says, and S² the
variance of ln x_i,

    times = S / √(mean of e_i²)

It exceeds 1 significantly where S² / mean e_i² is beyond the 99 % quantile of F with n − 1 and 10n degrees of freedom,
10 as an interval is an estimate itself, and 99 % as several numbers are judged. Where a run's interval has one end
alone, as where it is too short to bound p99 from above, nothing is known.
"""

from __future__ import annotations

import math
from statistics import fmean, stdev, variance
from typing import TYPE_CHECKING, Literal

from loadtrt.results.breakdown import PERCENTILES
from loadtrt.results.repeat_result import Spread
from loadtrt.stats.binomial import beta
from loadtrt.stats.measured import RATES, number_of
from loadtrt.stats.regression import student
from loadtrt.stats.verdict import NORMAL

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadtrt.results.breakdown import ConfidenceInterval
    from loadtrt.stats.measured import Measured, Number

_SIGNIFICANT = 0.01
_NUMBERS = (RATES[0], *(f"latency.{which}" for which in ("mean", *PERCENTILES)), "compute.p50")


def spreads(starts: Sequence[Measured]) -> tuple[Spread, ...]:
    """The numbers between starts; none where there are fewer than two. A number that no start has is left out."""
    return tuple(_spreads(starts)) if len(starts) > 1 else ()


def _spreads(starts: Sequence[Measured]) -> Iterator[Spread]:
    for name in _NUMBERS:
        numbers = [number_of(start, name, of_all=False) for start in starts]
        if any(number.value for number in numbers):
            yield _spread(name, numbers)


def _spread(name: str, numbers: Sequence[Number]) -> Spread:
    unit: Literal["ns", "1/s"] = "1/s" if name in RATES else "ns"
    values = tuple(number.value for number in numbers)
    known = [value for value in values if value]  # 0 has no logarithm
    reason = next((number.reason for number in numbers if number.reason), None)
    if len(known) < len(values):
        return Spread(name=name, unit=unit, values=values, reason=reason)
    mean, deviation = fmean(known), stdev(known)
    half = student(len(known) - 1) * deviation / math.sqrt(len(known))
    halves = [width for number in numbers if (width := _half(number.interval)) is not None]
    within = times = None
    exceeds = False
    if len(halves) == len(known):
        typical = math.sqrt(fmean(half_width**2 for half_width in halves))
        within, ratio = math.expm1(typical), variance(map(math.log, known))
        if typical:
            times = math.sqrt(ratio) / (typical / NORMAL)
            exceeds = _chance(times**2, len(known) - 1, 10 * len(known)) < _SIGNIFICANT
    return Spread(
        name=name, unit=unit, values=values, mean=mean, cv=deviation / mean, mean_low=max(mean - half, 0.0),
        mean_high=mean + half, within=within, times=times, exceeds=exceeds, reason=reason,
    )  # fmt: skip


def _half(interval: ConfidenceInterval | None) -> float | None:
    """Half the width of an interval, of logarithms; None without both ends."""
    if interval is None or not interval.low or not interval.high:
        return None
    return math.log(interval.high / interval.low) / 2


def _chance(ratio: float, over: int, under: int) -> float:
    """P(F > ratio), F of `over` and `under` degrees of freedom."""
    return beta(under / 2, over / 2, under / (under + over * ratio))
