"""Whether B is worse than A by more than a threshold allows: the ratio B/A of a number, with its confidence interval.

**One run a side.** With [l_A, u_A] and [l_B, u_B] the intervals of a and b, logarithms of the numbers
(stats/intervals.py), that of ln(B/A) is

    b − a − √((b − l_B)² + (u_A − a)²)   ..   b − a + √((u_B − b)² + (a − l_A)²)

(Zou and Donner, Construction of confidence limits about effect measures, 2008): long tails make intervals longer above
than below, and either end of the ratio takes the sides that it is about. It has no lower end where A has no upper or B
no lower one, and the other way round. The interval does not cover what differs from run to run (clocks, memory
placement, other processes).

**Several runs of a side** (m of A, n of B; m or n may be one). With a_i, b_j the logarithms of the numbers and s_A²,
s_B² their variances,

    mean b − mean a ± t_ν · √(s_A²/m + s_B²/n)      ν = (s_A²/m + s_B²/n)² / ((s_A²/m)²/(m−1) + (s_B²/n)²/(n−1))

t: Student's quantile at 97.5 % (Welch, The generalization of "Student's" problem, 1947; ν after Satterthwaite). A side
of one run is taken to vary as the other one does: s², m − 1 degrees of freedom. Runs are independent, whatever the
autocorrelation within each, so that this interval is the more reliable one: wide with two runs a side, useful with
five.

Runs of one side that share a seed have the same drawn arrivals. They are not independent and have no interval.

**Lost requests**, dropped or failed, have no latency and no queue. In thresholds on these they count as later than all
others: with λ their share, percentile q of all requests is that of the served at q / (1 − λ), as far as p99.9. A mean
of all is not known then. B's percentile is worse, whatever else is known, where each run of B lost more than each of A
by more than 1 − q, the share that lies above it.

**Verdict** on "NAME +x %" with [low, high] the interval of B/A, 95 %: regressed if low > 1 + x, not regressed if
high ≤ 1 + x, else undecided; on "NAME −x %" mirrored, high < 1 − x and low ≥ 1 − x. So a threshold just reached is
called regressed in at most 2.5 % of comparisons.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean, variance
from typing import TYPE_CHECKING, Literal

from pydantic import Field

import loadtrt
from loadtrt.errors import UsageError
from loadtrt.records.records import METRICS
from loadtrt.results import Model, Result
from loadtrt.results.breakdown import PERCENTILES
from loadtrt.stats.binomial import student_chance
from loadtrt.stats.measured import OF_DUE, RATES, number_of
from loadtrt.units import rough_percent, rounded_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.stats.measured import Measured, Number

_FORM = re.compile(
    r"\s*(?P<name>\w+)(?:\.(?P<which>mean|max|p\d{1,2}(?:\.\d{1,6})?))?\s*(?P<sign>[+\-−])\s*(?P<percent>\d+(?:\.\d+)?)\s*%\s*",
    re.ASCII,
)
_MOST_TIMES = 1000
_MOST_HALF = 100.0  # of the logarithm of a ratio, which exp() still takes


class Ratio(Model):
    """A number of both sides, and the ratio B/A. None in a field: not known.

    name: "throughput" (requests/s), "inferences" (inferences/s), METRIC.pNN or METRIC.mean.
    unit: of a and b.
    a, b: geometric means over the runs of a side.
    ratio: b / a.
    low, high: 95 % confidence interval of the ratio; one of them may be known alone.
    reason: why the ratio, its interval or an end of that is not known.
    """

    name: str
    unit: Literal["ns", "1/s"]
    a: float | None
    b: float | None
    ratio: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None


class Judged(Model):
    """The verdict on a threshold. reason: why it is undecided, or regressed without an interval."""

    threshold: str
    ratio: Ratio
    verdict: Literal["regressed", "not regressed", "undecided"]
    reason: str | None = None


class Comparison(Result):
    """A comparison of runs.

    loadtrt: version that compared them.
    a, b: names of the runs of each side.
    titles: what each of them is, by name.
    offered: whether requests came at a rate, which throughput then is.
    notes: sentences on how the runs differ, and on what does not show in numbers.
    valid: whether no run is INVALID or failed; otherwise the verdicts mean nothing.
    problems: which runs are INVALID or failed, and why.
    ratios: all numbers that the runs have.
    thresholds: verdicts on the thresholds.
    """

    schema_version: Literal["loadtrt.comparison/1"] = "loadtrt.comparison/1"
    loadtrt: str
    a: tuple[str, ...]
    b: tuple[str, ...]
    titles: dict[str, str] = Field(default_factory=dict)
    offered: bool = False
    notes: tuple[str, ...] = ()
    valid: bool
    problems: tuple[str, ...]
    ratios: tuple[Ratio, ...]
    thresholds: tuple[Judged, ...]


@dataclass(frozen=True, slots=True)
class Threshold:
    """The change of a number that is allowed.

    text: the threshold in its normal form.
    name: name of a Ratio.
    allowed: how far B/A may be above 1; negative for rates, which are worse when they fall.
    """

    text: str
    name: str
    allowed: float


def parse_threshold(text: str) -> Threshold:
    """A threshold of "METRIC.pNN +5%", "METRIC.mean +5%" or "throughput -3%". Raises UsageError."""
    parsed = _FORM.fullmatch(text)
    if not parsed:
        raise UsageError(f"'{text}' is not a threshold: write one such as 'latency.p99 +5%' or 'throughput -3%'")
    name, which, percent, falls = parsed["name"], parsed["which"], parsed["percent"], parsed["sign"] != "+"
    known = [metric.name for metric in METRICS]
    if name not in (*RATES, *known):
        raise UsageError(f"'{text}': {name} is not a metric: write {', '.join(RATES)} or one of {', '.join(known)}")
    if name in RATES:
        if which or not falls:
            raise UsageError(f"'{text}': {name} is worse when it falls: write '{name} -{percent}%'")
    elif which is None:
        raise UsageError(f"'{text}' does not say which {name}: write {name}.p99 or {name}.mean")
    elif which == "max" or (which != "mean" and not 50 <= float(which[1:]) <= 99.9):
        raise UsageError(f"'{text}': {which} has no confidence interval: write mean, or a percentile from p50 to p99.9")
    elif falls:
        raise UsageError(f"'{text}': {name} is worse when it rises: write '{name}.{which} +{percent}%'")
    allowed = float(percent) / 100
    if falls and allowed >= 1:
        raise UsageError(f"'{text}': a rate cannot fall by 100 % or more: write less than 100 %")
    if which and which != "mean":
        which = f"p{float(which[1:])!r}".removesuffix(".0")
    full = f"{name}.{which}" if which else name
    return Threshold(f"{full} {'-' if falls else '+'}{percent}%", full, -allowed if falls else allowed)


def compare(a: Sequence[Measured], b: Sequence[Measured], thresholds: Sequence[Threshold] = ()) -> Comparison:
    """Compare the numbers of both sides and judge the thresholds. Raises UsageError for a threshold on a number that a
    file does not have."""
    names = [*RATES]
    for metric in METRICS:
        if any(metric.name in run.metrics for run in (*a, *b)):
            names += [f"{metric.name}.{which}" for which in (*PERCENTILES, "mean")]
    for threshold in thresholds:
        _require(threshold, [*a, *b])
    problems = [
        f"{side} ({run.name}): {run.problem}" for side, runs in (("A", a), ("B", b)) for run in runs if run.problem
    ]
    return Comparison(
        loadtrt=loadtrt.__version__,
        a=tuple(run.name for run in a),
        b=tuple(run.name for run in b),
        valid=not problems,
        problems=tuple(problems),
        ratios=tuple(ratio_of(name, a, b) for name in names),
        thresholds=tuple(
            _lost_more(threshold, a, b)
            or judged(threshold, ratio_of(threshold.name, a, b, of_all=True), several=len(a) + len(b) > 2)
            for threshold in thresholds
        ),
    )


def ratio_of(name: str, a: Sequence[Measured], b: Sequence[Measured], *, of_all: bool = False) -> Ratio:
    """B/A of one number (see above). of_all: include lost requests."""
    sides = [[number_of(run, name, of_all) for run in side] for side in (a, b)]
    mean_a, mean_b = (_geometric_mean([number.value for number in side]) for side in sides)
    ratio = mean_b / mean_a if mean_a and mean_b is not None else None
    single, numbers = len(a) == len(b) == 1, [*sides[0], *sides[1]]
    missing = [
        number.reason
        for number in numbers
        if not number.value or (single and number.interval is None)  # 0 has no logarithm
    ]
    missing += [reason for side in (a, b) if (reason := _shared_seed(side))]
    low = high = None
    if ratio is not None and not missing:
        if single:
            low, high = within_runs(ratio, *numbers)
            missing = [number.reason for number in numbers if number.reason]
        else:
            factor = math.exp(min(_between_runs(*sides), _MOST_HALF))
            low, high = ratio / factor, ratio * factor
    unit: Literal["ns", "1/s"] = "1/s" if name in RATES else "ns"
    reason = missing[0] if missing else None
    return Ratio(name=name, unit=unit, a=mean_a, b=mean_b, ratio=ratio, low=low, high=high, reason=reason)


def judged(threshold: Threshold, ratio: Ratio, several: bool = False) -> Judged:
    """The verdict on a threshold. several: whether a side has several runs."""
    edge, reason = 1 + threshold.allowed, ratio.reason
    verdict: Literal["regressed", "not regressed", "undecided"] = "undecided"
    if ratio.ratio is not None and (ratio.low is not None or ratio.high is not None):
        below = ratio.high is not None and (ratio.high < edge or (threshold.name not in RATES and ratio.high == edge))
        above = ratio.low is not None and (ratio.low > edge or (threshold.name in RATES and ratio.low == edge))
        if below or above:
            verdict = "regressed" if above != (threshold.name in RATES) else "not regressed"
            reason = None
        else:
            end = ratio.high if ratio.ratio < edge else ratio.low  # the one that is beyond the threshold
            if end is not None:
                reason = f"the interval of B/A contains {edge:g}{_more(ratio.ratio, end, edge, several)}"
    return Judged(threshold=threshold.text, ratio=ratio, verdict=verdict, reason=reason)


def _require(threshold: Threshold, runs: Sequence[Measured]) -> None:
    metric = threshold.name.partition(".")[0]
    for run in runs:
        never = ["inferences"] if run.trtexec else []
        if metric in never or metric not in (*RATES, *run.metrics):
            known = ", ".join(name for name in (*RATES, *run.metrics) if name not in never)
            held = "is a times file of trtexec and has" if run.trtexec else "has"
            raise UsageError(f"'{threshold.text}': {run.name} {held} no {metric}: write one of {known}")


def _lost_more(threshold: Threshold, a: Sequence[Measured], b: Sequence[Measured]) -> Judged | None:
    """Regressed, where B lost so many more requests than A that its percentile is worse in any case."""
    metric, _, which = threshold.name.partition(".")
    if metric not in OF_DUE or which == "mean" or _shared_seed(a) or _shared_seed(b):
        return None
    most, least = max(run.lost for run in a), min(run.lost for run in b)
    if least - most <= 1 - float(which[1:]) / 100:
        return None
    ratio = ratio_of(threshold.name, a, b, of_all=True)
    reason = f"B dropped or failed {rough_percent(least)} of its requests and A {rough_percent(most)}"
    return Judged(threshold=threshold.text, ratio=ratio, verdict="regressed", reason=reason)


def _shared_seed(side: Sequence[Measured]) -> str | None:
    """Why runs of one side are not independent; None where they are."""
    seen: dict[int, str] = {}
    for run in side:
        if run.seed is None:
            continue
        if run.seed in seen:
            return (
                f"{run.name} has the seed of {seen[run.seed]} and the same arrivals, so the runs are not independent: "
                "measure each run of a side with its own --seed"
            )
        seen[run.seed] = run.name
    return None


def _geometric_mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    if len(known) == 1:
        return known[0]
    return math.exp(fmean(map(math.log, known))) if all(known) else 0.0


def within_runs(ratio: float, a: Number, b: Number) -> tuple[float | None, float | None]:
    """The interval of B/A, from those of the two numbers."""
    (a_below, a_above), (b_below, b_above) = map(_apart, (a, b))
    below, above = math.hypot(b_below, a_above), math.hypot(b_above, a_below)
    return (
        ratio / math.exp(below) if below < _MOST_HALF else None,
        ratio * math.exp(above) if above < _MOST_HALF else None,
    )


def _apart(number: Number) -> tuple[float, float]:
    """How far the ends of the interval are from the number, below and above, on a log scale."""
    value, interval = number.value, number.interval
    if not value or interval is None:
        return math.inf, math.inf
    return (
        math.log(value / interval.low) if interval.low is not None and interval.low > 0 else math.inf,
        math.log(interval.high / value) if interval.high is not None and interval.high > 0 else math.inf,
    )


def _between_runs(a: Sequence[Number], b: Sequence[Number]) -> float:
    """t_ν · √(s_A²/m + s_B²/n)."""
    logs = [[math.log(number.value) for number in side if number.value] for side in (a, b)]
    squares = [variance(side) if len(side) > 1 else None for side in logs]
    known = [square for square in squares if square is not None]
    if len(known) == 1:  # a run alone varies as those of the other side do
        return student(max(map(len, logs)) - 1) * math.sqrt(known[0] * sum(1 / len(side) for side in logs))
    parts = [square / len(side) for square, side in zip(known, logs, strict=True)]
    if not sum(parts):
        return 0.0
    freedom = sum(parts) ** 2 / sum(part**2 / (len(side) - 1) for part, side in zip(parts, logs, strict=True))
    return student(freedom) * math.sqrt(sum(parts))


@lru_cache(maxsize=256)
def student(freedom: float) -> float:
    """Student's t at 97.5 % for any real degrees of freedom ν ≥ 1: where P(|T| > t) = 5 %."""
    low, high = 1.9, 12.8
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if student_chance(middle, freedom) > 0.05 else (low, middle)
    return (low + high) / 2


def _more(ratio: float, end: float, edge: float, several: bool) -> str:
    """How much more measuring would decide: an interval narrows with the square root of the runs' length or number."""
    half, apart = math.log(end / ratio), math.log(edge / ratio)
    times = (half / apart) ** 2 if apart else math.inf
    if times > _MOST_TIMES:
        return ""
    effort = f"{rounded_up(times):g} times as many runs" if several else f"runs {rounded_up(times):g} times as long"
    return f": {effort} would decide it at the same ratio"
