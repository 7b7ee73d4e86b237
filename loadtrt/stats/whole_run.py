"""The verdict on an objective that bounds a number of the whole run: a rate, power, or energy.

With [low, high] the 95 % confidence interval of the true number x, an objective x > b is met if low > b, missed if
high ≤ b, else undecided; and the other way round for x < b.

**Throughput**: the interval of requests a second that the report shows (stats/intervals.py). **Inferences** a second
are requests a second × inferences of a request: where requests differ in size (a mix), the mean size has an interval
too, m ± 1.96·s/√n, as sizes are drawn independently. **Goodput** is requests a second × the share of the served
requests within the bound, whose interval is that of the verdict on it (stats/verdict.py). Of a product of two numbers

    low = low₁·low₂        high = high₁·high₂

which is at least as wide as the 95 % interval of the product, however the two errors go together: relative errors add
up to no more than the sum of their standard deviations.

**Power and energy** are of the GPU's telemetry, second by second (or longer intervals). p_i: the energy of second i of
n as a share of that of all; q_i: likewise its time, or for the energy of an inference its requests; and the relative
residuals of the ratio estimate r_i = n·(p_i − q_i):

    x·(1 ± h)        h² = t² · max( s²_8(r) / 8,  s²(r)/n · (1 + φ)/(1 − φ) )        t = 2.365

s²_8: the variance of the means of 8 blocks of seconds (batch means; t has 7 degrees of freedom). In a run of a minute
these are too short, as power wanders with the temperature: hence the variance of the mean of an autoregressive process,
with φ = r₁ + (1 + 4r₁)/n, r₁ the autocorrelation at lag 1, which is too low by as much (Marriott and Pope, Bias in the
estimation of autocorrelations, 1954), from 0 to 0.99. `benchmarks/objectives.py` measures how often they hold the
truth.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.records.records import OK
from loadtrt.results.run_result import ObjectiveShare
from loadtrt.stats.binomial import share_interval
from loadtrt.stats.verdict import effective_size
from loadtrt.units import plural, rounded_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from loadtrt.asked.objective import Objective, Verdict
    from loadtrt.records.records import Records
    from loadtrt.results.breakdown import Throughput
    from loadtrt.results.gpu_telemetry import GpuTelemetry
    from loadtrt.results.steadiness import Interval

    # A number, its interval, and why it or the interval is not known.
    Known = tuple[float | None, tuple[float | None, float | None], str | None]

_BLOCKS = 8
_STUDENT = 2.365  # t at 97.5 % with 7 degrees of freedom
_MOST_LAG = 0.99
_NORMAL = 1.96
RATE_CHANGES = "the arrival rate changes, and the parts of the run differ by its schedule: use a constant --rate"
_MOST_TIMES = 1000  # times as long: nobody makes a longer run


def judge_number(
    objective: Objective,
    rates: Throughput,
    kept: Records,
    good: int,
    by_status: Sequence[int],
    *,
    steady: bool,
    sizes: Sequence[int],
    intervals: Sequence[Interval],
    telemetry: GpuTelemetry | None,
) -> ObjectiveShare:
    """The verdict on a run.

    kept: the run's records, all of them or the first.
    good: served requests, within the bound where there is one.
    by_status: finished requests by status [STATUSES].
    steady: whether the load's rate is.
    sizes: inferences of a request with each input set, or one number where all have the same.
    intervals: what completed in each interval of the run.
    """
    if objective.kind in ("power", "energy"):
        value, (low, high), reason = _of_gpu(objective, intervals, telemetry)
    else:
        value, (low, high), reason = _of_rate(objective, rates, kept.ok, good, int(by_status[OK]), steady, sizes)
    verdict = verdict_on_number(objective, low, high)
    if verdict == "undecided" and reason is None:
        reason = more_needed(objective, value, low, high)
    return ObjectiveShare(
        objective=objective,
        good=good,
        requests=int(sum(by_status)),
        value_ns=None,
        verdict=verdict,
        reason=reason if verdict == "undecided" else None,
        value=value,
        value_low=low,
        value_high=high,
    )


def verdict_on_number(objective: Objective, low: float | None, high: float | None) -> Verdict:
    """The verdict on a number with its interval (low, high)."""
    worst, best = (low, high) if objective.least else (high, low)
    if worst is not None and objective.holds(worst):
        return "met"
    return "missed" if best is not None and not objective.holds(best) else "undecided"


def _of_rate(
    objective: Objective, rates: Throughput, ok: Records, good: int, served: int, steady: bool, sizes: Sequence[int]
) -> Known:
    rate, (low, high) = rates.requests_per_s, _interval(rates)
    if rate is None:
        return None, (None, None), "too few requests were served for a rate"
    factor, sides = 1.0, (1.0, 1.0)
    if objective.kind == "goodput":
        factor = good / served
        size = effective_size(objective, ok)
        intervals = [share_interval(share, size) for share in {factor, 1 - float(np.mean(objective.bad(ok)))}]
        sides = min(intervals)[0], max(end for _, end in intervals)
    elif objective.kind == "inferences":
        factor = (rates.inferences_per_s or 0.0) / rate
        carried = np.array(sizes)[ok.inputs if len(sizes) > 1 else 0]
        half = _NORMAL * float(carried.std()) / math.sqrt(len(ok))
        sides = max(factor - half, 0.0), factor + half
    reason = None
    if not steady:
        reason = RATE_CHANGES
    elif low is None and high is None:
        reason = f"{plural(served, 'request')} are too few for a confidence interval of a rate: make a longer run"
    return rate * factor, (low and low * sides[0], high and high * sides[1]), reason


def _interval(rates: Throughput) -> tuple[float | None, float | None]:
    """The interval of requests a second."""
    return (None, None) if rates.confidence is None else (rates.confidence.low, rates.confidence.high)


def _of_gpu(objective: Objective, intervals: Sequence[Interval], telemetry: GpuTelemetry | None) -> Known:
    """Power, or energy of an inference."""
    if telemetry is None:
        return None, (None, None), "there is no telemetry of a GPU: measure an engine on an NVIDIA GPU"
    seconds = [part for part in telemetry.intervals if part.duration_ns]
    if objective.kind == "power":
        value, shared = telemetry.power_mean_watts, [float(part.duration_ns) for part in seconds]
        drawn = [
            part.power_mean_watts * part.duration_ns / 1e9
            if part.energy_joules is None and part.power_mean_watts
            else part.energy_joules
            for part in seconds
        ]
    else:
        served = {part.start_ns: float(part.requests) for part in intervals}
        value, shared = telemetry.joules_per_inference, [served.get(part.start_ns, 0.0) for part in seconds]
        drawn = [part.energy_joules for part in seconds]
    known = [joules for joules in drawn if joules is not None]
    if value is None or len(known) < len(drawn):
        return value, (None, None), f"the GPU did not report its {objective.kind} during the whole run"
    if len(known) < _BLOCKS:
        return value, (None, None), f"a confidence interval of {objective.kind} takes a run of {_BLOCKS} s or more"
    p, q = (np.array(part) / (sum(part) or 1.0) for part in (known, shared))
    half = _STUDENT * math.sqrt(_variance_of_mean(len(known) * (p - q)))
    return value, (value * max(1 - half, 0.0), value * (1 + half)), None


def _variance_of_mean(series: npt.NDArray[np.float64]) -> float:
    """Of a series that may wander slowly (see above). series: [n], n ≥ 8."""
    n, around = len(series), series - series.mean()
    square = float(around @ around)
    if not square:
        return 0.0
    blocks = series[n % _BLOCKS :].reshape(_BLOCKS, -1).mean(axis=1)
    lag = float(around[1:] @ around[:-1]) / square
    lag = min(max(lag + (1 + 4 * lag) / n, 0.0), _MOST_LAG)
    return max(float(blocks.var(ddof=1)) / _BLOCKS, square / (n - 1) / n * (1 + lag) / (1 - lag))


def more_needed(objective: Objective, value: float | None, low: float | None, high: float | None) -> str:
    """How much longer the run must be for a verdict, if the number stays what it is: intervals shrink by its root."""
    end, value = (low if value is not None and value > objective.limit else high), value or 0.0
    apart = abs(value - objective.limit)
    if end is None:
        return f"too little was measured to say how far it may be from {objective.written(value)}: make a longer run"
    if apart * math.sqrt(_MOST_TIMES) < abs(value - end):
        return f"{objective.written(value)} is too close to the bound for a verdict: use another bound"
    times = rounded_up(((value - end) / apart) ** 2)
    return f"the confidence interval holds the bound: a run about {times:g} times as long would decide it"
