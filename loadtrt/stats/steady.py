"""Whether the measured time was a steady state: no initial transient, drift, overload, slow part or stall.

Latencies of a queue are autocorrelated, which must not pass for a change. So means of blocks are compared, with degrees
of freedom by their effective sample size: k blocks whose residuals have the autocorrelation ρ at lag 1 are worth
N = k·(1 − ρ)/(1 + ρ) independent ones, s² = Σ residuals²/(N − parameters) (Santer et al.,
Statistical significance of trends in atmospheric temperature time series, 2000). ρ is the estimate r and its bias,
(1 + 4r)/k, and not below zero.

**Transient**, in latencies by due instant: MSER-5 (White, An effective truncation heuristic for bias reduction in
simulation output, 1997). With z_j the means of 5 requests each, j = 1 … m,

    d* = argmin over d of Σ_{j>d} (z_j − z̄_d)² / (m − d)²,    z̄_d = mean of z_j, j > d

accepted in the first half only. MSER-5 also cuts where latencies are merely autocorrelated, so a cut counts only if it
is long enough to matter (LEAST_PART of the requests, LEAST_FIRST of them, and twice as many as the engine holds, as
these fill it) and differs. Of medians of blocks of one length, in logarithms, the median before the cut
lies at least log LEAST_STEP from the mean after it, the first quarter's at least half as far, and Student's t of that
distance is beyond 99.9 %. So neither one slow request nor one stall makes a transient.

**Drift**: of the logarithms y of BLOCKS mean latencies, D is the mean of the last quarter less that of the first; the
ratio is exp(D). A queue's latencies fluctuate, so in an open loop y must have a trend: Student's t of the slope of
their line beyond 99.8 %, N as above. A closed loop has no queue, and blocks of LEAST_LOOP/BLOCKS requests and more are
nearly independent: D itself is compared, beyond 99.5 %, with s² = Σ (y_{i+1} − y_i)²/2(k − 1), which drifts and steps
hardly enlarge (von Neumann et al., The mean square successive difference, 1941; about 2k/3 degrees of freedom).

**Overload**, in an open loop: the backlog, requests that are due and not completed, over BLOCKS equal spans of time. At
capacity it is a random walk above zero, below capacity it is pulled back; what is (nearly) independent is its
increments. It grows if the lower bound of their mean, one-sided 99 %, lies above zero, and if it has become
MOST_WAITING times what the engine holds. So 2 % of queues at exactly capacity raise an alarm, and fewer below it.

A slow part: stats/slow_parts.py. Stalls: stats/stalls.py.

The thresholds were chosen by `benchmarks/steadiness.py`, which measures how often they are wrong (docs/findings.md).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.records.records import Records
from loadtrt.results.steadiness import Steadiness
from loadtrt.stats.binomial import student_chance
from loadtrt.stats.blocks import NOISE, spread
from loadtrt.stats.slow_parts import MOST_WAITING, fell_behind, served_slower, until
from loadtrt.stats.stalls import stall_of
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from loadtrt.results.steadiness import Interval
    from loadtrt.stats.blocks import Series

BLOCKS = 20
LEAST_REQUESTS = 5 * BLOCKS
LEAST_PART = 0.01  # of the requests: what is shorter moves no p90, and p99 little
LEAST_FIRST = 20
LEAST_STEP = 1.1
LEAST_LOOP = 50 * BLOCKS
_TRANSIENT, _LOOP_DRIFT, _OPEN_DRIFT, _OVERLOAD = 0.001, 0.005, 0.002, 0.02  # chances of a false alarm, two-sided
_BATCH = 5  # MSER-5


def steadiness_of(
    records: Records,
    start_ns: int,
    *,
    closed: bool,
    steady: bool,
    places: int,
    intervals: Sequence[Interval] = (),
    interval_ns: int = SECOND_NS,
    sets: int = 0,
) -> Steadiness:
    """The steadiness of a run.

    records: the run's records, all of them or the first.
    start_ns: when measuring began.
    closed: whether the loop is closed, which is never overloaded.
    steady: whether the load is steady; otherwise a transient or a drift may be the load's.
    places: requests that the engine holds, lanes × buffers.
    intervals: the run's, where `records` are only the first: the drift and the pace are taken from them.
    interval_ns: length of an interval.
    sets: input sets of a part of the mix, or of a size of formed batches; 0: requests are of one kind.
    """
    stall = stall_of(records, start_ns, places, sets, steady)
    answered, records = records, records.counted
    overloaded = False if closed else is_overloaded(records.due, records.completed, places)
    if len(records) < LEAST_REQUESTS:
        return Steadiness(stall=stall)
    records = Records(records.rows[np.argsort(records.due, kind="stable")])
    latency = np.maximum(records.completed - records.due, 1).astype(np.float64)
    slow = None
    if not overloaded:
        slow = fell_behind(records, start_ns, closed, places, intervals if steady else (), interval_ns)
        if slow is None and steady:
            slow = served_slower(answered, start_ns, sets, intervals, interval_ns)
    if not steady:
        return Steadiness(overloaded=overloaded, slow=slow, stall=stall)
    cut, ratio = _transient(latency, places)
    begun_ns = int(records.due[cut]) - start_ns if cut else 0
    left = latency[cut:]
    means = _means_over(intervals, begun_ns) if intervals else [part.mean() for part in np.array_split(left, BLOCKS)]
    return Steadiness(
        transient_ns=begun_ns,
        transient_ratio=ratio,
        drift_ratio=None if means is None else _drift(np.log(means), closed and len(left) >= LEAST_LOOP),
        overloaded=overloaded,
        slow=slow,
        stall=stall,
    )


def mser5(values: Series) -> int | None:
    """Number of values at the beginning to leave out by MSER-5; None where that is more than half."""
    batches = len(values) // _BATCH
    if batches < 2 * _BATCH:
        return None
    means = values[: batches * _BATCH].reshape(batches, _BATCH).mean(axis=1)
    means -= means.mean()  # else the sums of squares cancel
    left = batches - np.arange(batches)
    sums, squares = np.cumsum(means[::-1])[::-1], np.cumsum(means[::-1] ** 2)[::-1]
    errors = (squares - sums**2 / left) / left**2
    cut = int(np.argmin(errors[: batches - _BATCH]))  # the last few are always near each other
    return cut * _BATCH if cut <= batches // 2 else None


def _transient(latency: Series, places: int) -> tuple[int, float | None]:
    """(requests of the transient, their latency over that of the others); (0, None) without a transient."""
    count = len(latency)
    cut = mser5(latency) or 0
    if cut < max(LEAST_FIRST, LEAST_PART * count, 2 * places):
        return 0, None
    size = min(cut, (count - cut) // BLOCKS)
    before, after = (_log_medians(part, size) for part in (latency[:cut], latency[cut:]))
    step, from_the_start = (float(np.median(part) - after.mean()) for part in (before, before[: len(before) // 4 + 1]))
    worth, variance = spread(after - after.mean(), 1)
    if abs(step) < math.log(LEAST_STEP) or from_the_start / step < 0.5:
        return 0, None
    first = max(1.0, len(before) * worth / len(after))
    t = step / math.sqrt(variance * (1 / first + 1 / worth))
    return (cut, math.exp(step)) if student_chance(t, worth - 1) < _TRANSIENT else (0, None)


def _drift(logarithms: Series, independent: bool) -> float | None:
    quarter = BLOCKS // 4
    change = float(logarithms[-quarter:].mean() - logarithms[:quarter].mean())
    if independent:
        variance = max(float(np.mean(np.diff(logarithms) ** 2)) / 2, NOISE**2)
        significant = student_chance(change / math.sqrt(variance * 2 / quarter), 2 * BLOCKS / 3) < _LOOP_DRIFT
    else:
        x = np.arange(BLOCKS) - (BLOCKS - 1) / 2
        slope = float(x @ logarithms) / float(x @ x)
        worth, variance = spread(logarithms - logarithms.mean() - slope * x, 2)
        significant = student_chance(slope / math.sqrt(variance / float(x @ x)), worth - 2) < _OPEN_DRIFT
    return math.exp(change) if significant else None


def is_overloaded(due: npt.NDArray[np.int64], completed: npt.NDArray[np.int64], places: int) -> bool | None:
    """Whether the backlog of an open loop grows (Overload, above); None where the requests are too few, or due at once.

    due, completed: instants of requests that have a latency, int64 ns [n], in any order.
    places: lanes × buffers.
    """
    due = np.sort(due, kind="stable")
    if len(due) < LEAST_REQUESTS or due[0] == due[-1]:
        return None
    edges = np.linspace(due[0], due[-1], BLOCKS + 1)
    backlog = until(due, edges) - until(np.sort(completed), edges)
    steps = np.diff(backlog).astype(np.float64)
    growth, error = float(steps.mean()), max(float(steps.std(ddof=1)), NOISE) / math.sqrt(BLOCKS)
    if backlog[-1] <= MOST_WAITING * places or growth <= 0:
        return False
    return student_chance(growth / error, BLOCKS - 1) < _OVERLOAD


def _log_medians(values: Series, size: int) -> Series:
    """Logarithms of the medians of blocks of `size` values, without an incomplete block at the end."""
    medians: Series = np.log(np.median(values[: len(values) // size * size].reshape(-1, size), axis=1))
    return medians


def _means_over(intervals: Sequence[Interval], after_ns: int) -> Series | None:
    """Mean latencies of BLOCKS spans of the run, each of as many whole intervals; None where there are too few."""
    known = [(i.latency_mean_ns, i.requests) for i in intervals if i.latency_mean_ns and i.start_ns >= after_ns]
    size = len(known) // BLOCKS
    if not size:
        return None
    mean, weight = np.array(known[: size * BLOCKS]).reshape(BLOCKS, size, 2).transpose(2, 0, 1)
    means: Series = (mean * weight).sum(axis=1) / weight.sum(axis=1)
    return means
