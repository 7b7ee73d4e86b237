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

**A slow part**: how far the engine is behind, R(t), over SPANS equal spans of time: the backlog in an open loop; where
all waits (closed loop, offline), what it would have served by t at its mean pace, less what it has. R is a random walk
where nothing changes, or one that is pulled back. The largest rise of one without drift, max over s < t of R(t) − R(s),
is distributed as max |B| of a Brownian motion (Lévy, 1948): above x·σ·√SPANS with a probability of at most
4·(1 − Φ(x)). Reported above x = LEAST_RISE, beyond MOST_WAITING times what the engine holds. σ² is the variance of
a span's increment, from the median of the differences of neighbours, which a rise and its end do not enlarge, and at
least one.
Of stages, bursts and traces it is the load that rises. Of runs beyond the kept records the intervals tell it.

**A stall**: a time in which requests waited and none completed, of any lane. With c_i the instants of completions in
order (served or failed), and w_i = c_i, or the next due instant where no request waits at c_i, the silence before
completion i + 1 is g_i = c_{i+1} − w_i. Silences of a healthy engine are no longer than its service times, and follow
their distribution. So a stall is a silence of at least

    max(LEAST_SERVICES · s, BEYOND · (q₅₀ + (q₉₀ − q₅₀) · ln(n/2) / ln 5))

s: the median service time; q₅₀, q₉₀: quantiles of the n silences above zero. The bracket is the longest expected of n
silences with an exponential tail; constant service times end at q₅₀, lognormal ones have a longer tail.
A stall delays the requests that waited during a part of it, or completed before its queue was gone: before no more
requests waited than when it began, than wait typically (the median), or than the engine holds.
Stalls are reported where they delayed LEAST_LATE of all requests, or took LEAST_TIME of the run.

The thresholds were chosen by `benchmarks/steadiness.py`, which measures how often they are wrong (docs/findings.md).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from loadtrt.records.records import FAILED, Records
from loadtrt.results.steadiness import SlowPart, Stall, Steadiness
from loadtrt.stats.binomial import student_chance
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from loadtrt.results.steadiness import Interval

    Series = npt.NDArray[np.float64]

BLOCKS = 20
SPANS = 2 * BLOCKS
LEAST_REQUESTS = 5 * BLOCKS
LEAST_PART = 0.01  # of the requests: what is shorter moves no p90, and p99 little
LEAST_FIRST = 20
LEAST_STEP = 1.1
LEAST_LOOP = 50 * BLOCKS
MOST_WAITING = 3
LEAST_RISE = 4
_TRANSIENT, _LOOP_DRIFT, _OPEN_DRIFT, _OVERLOAD = 0.001, 0.005, 0.002, 0.02  # chances of a false alarm, two-sided
_BATCH = 5  # MSER-5
_LEAST_FREEDOM = 3
_NOISE = 1e-6  # of a latency: equal ones differ by rounding
_MEDIAN = 0.6745  # of |Z|, Z standard normal
_SIDE = 2  # σ above its lowest point a rise has hardly begun
LEAST_SERVICES = 5
BEYOND = 4
LEAST_LATE = 0.001  # of the requests: what p99.9 shows
LEAST_TIME = 0.01  # of the run
_LEAST_SILENCES = 50
_FOLLOWED = 1000  # the most stalls whose delayed requests are counted: the longest ones
_BLOCK = 1 << 12


def steadiness_of(
    records: Records,
    start_ns: int,
    *,
    closed: bool,
    steady: bool,
    places: int,
    intervals: Sequence[Interval] = (),
    interval_ns: int = SECOND_NS,
) -> Steadiness:
    """The steadiness of a run.

    records: the run's records, all of them or the first.
    start_ns: when measuring began.
    closed: whether the loop is closed, which is never overloaded.
    steady: whether the load is steady; otherwise a transient or a drift may be the load's.
    places: requests that the engine holds, lanes × buffers.
    intervals: the run's, where `records` are only the first: the drift and the pace are taken from them.
    interval_ns: length of an interval.
    """
    stall = stall_of(records, start_ns, places)
    records = records.counted
    overloaded = False if closed else is_overloaded(records.due, records.completed, places)
    if len(records) < LEAST_REQUESTS:
        return Steadiness(stall=stall)
    records = Records(records.rows[np.argsort(records.due, kind="stable")])
    latency = np.maximum(records.completed - records.due, 1).astype(np.float64)
    slow = None
    if not overloaded:
        slow = _slow_part(records, start_ns, closed, places, intervals if steady else (), interval_ns)
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
    worth, variance = _spread(after - after.mean(), 1)
    if abs(step) < math.log(LEAST_STEP) or from_the_start / step < 0.5:
        return 0, None
    first = max(1.0, len(before) * worth / len(after))
    t = step / math.sqrt(variance * (1 / first + 1 / worth))
    return (cut, math.exp(step)) if student_chance(t, worth - 1) < _TRANSIENT else (0, None)


def _drift(logarithms: Series, independent: bool) -> float | None:
    quarter = BLOCKS // 4
    change = float(logarithms[-quarter:].mean() - logarithms[:quarter].mean())
    if independent:
        variance = max(float(np.mean(np.diff(logarithms) ** 2)) / 2, _NOISE**2)
        significant = student_chance(change / math.sqrt(variance * 2 / quarter), 2 * BLOCKS / 3) < _LOOP_DRIFT
    else:
        x = np.arange(BLOCKS) - (BLOCKS - 1) / 2
        slope = float(x @ logarithms) / float(x @ x)
        worth, variance = _spread(logarithms - logarithms.mean() - slope * x, 2)
        significant = student_chance(slope / math.sqrt(variance / float(x @ x)), worth - 2) < _OPEN_DRIFT
    return math.exp(change) if significant else None


def is_overloaded(due: npt.NDArray[np.int64], completed: npt.NDArray[np.int64], places: int) -> bool | None:
    """Whether the backlog of an open loop grows (Overload, above); None where the requests are too few, or due at once.

    due, completed: instants of requests that have a latency, int64 ns [n], in any order. places: lanes × buffers."""
    due = np.sort(due, kind="stable")
    if len(due) < LEAST_REQUESTS or due[0] == due[-1]:
        return None
    edges = np.linspace(due[0], due[-1], BLOCKS + 1)
    backlog = _until(due, edges) - _until(np.sort(completed), edges)
    steps = np.diff(backlog).astype(np.float64)
    growth, error = float(steps.mean()), max(float(steps.std(ddof=1)), _NOISE) / math.sqrt(BLOCKS)
    if backlog[-1] <= MOST_WAITING * places or growth <= 0:
        return False
    return student_chance(growth / error, BLOCKS - 1) < _OVERLOAD


def _slow_part(
    records: Records, start_ns: int, closed: bool, places: int, intervals: Sequence[Interval], interval_ns: int
) -> SlowPart | None:
    """The part in which the engine fell behind. records: in order of due instants. intervals: used instead of records,
    of a steady load."""
    due, completed = records.due, np.sort(records.completed)
    paced = closed or due[0] == due[-1] or len(intervals) > SPANS
    if len(intervals) > SPANS:
        marks = np.linspace(0, len(intervals) - 1, SPANS + 1).round().astype(np.int64)  # the last one is not whole
        counts = np.concatenate(([0], np.cumsum([interval.requests for interval in intervals])))
        edges, served = start_ns + marks * float(interval_ns), counts[marks]
    else:
        edges = np.linspace(due[0], due[-1] if due[-1] > due[0] else completed[-1], SPANS + 1)
        served = _until(completed, edges)
    if edges[-1] <= edges[0]:
        return None  # all due at once, and completed at once
    at_its_pace = served[-1] * (edges - edges[0]) / (edges[-1] - edges[0])
    behind = (at_its_pace if paced else _until(due, edges)) - served
    deviation = max(float(np.median(np.abs(np.diff(behind, 2)))) / (math.sqrt(2) * _MEDIAN), 1.0)
    rise = behind - np.minimum.accumulate(behind)
    end = int(np.argmax(rise))
    if rise[end] <= max(MOST_WAITING * places, LEAST_RISE * deviation * math.sqrt(SPANS)):
        return None
    start = int(np.flatnonzero(behind[: end + 1] <= (behind - rise)[end] + _SIDE * deviation)[-1])
    lasted, requests = float(edges[end] - edges[start]) / SECOND_NS, float(served[end] - served[start])
    back = np.flatnonzero(behind[end:] <= behind[start] + places)
    return SlowPart(
        start_ns=int(edges[start]) - start_ns,
        end_ns=int(edges[end]) - start_ns,
        served_per_s=requests / lasted,
        expected_per_s=(requests + float(behind[end] - behind[start])) / lasted,
        over_ns=int(edges[end + back[0]]) - start_ns if len(back) and not paced else None,
    )


def stall_of(records: Records, start_ns: int, places: int) -> Stall | None:
    """The stalls of a run, None without any. records: all or the first, in any order; places: lanes × buffers."""
    records = Records(records.rows[records.status <= FAILED])
    if len(records) < _LEAST_SILENCES:
        return None
    order = np.argsort(records.completed, kind="stable")
    due, answered = np.sort(records.due), records.completed[order]
    waiting = np.searchsorted(due, answered, side="right") - np.arange(1, len(due) + 1)
    since = np.concatenate((answered[:1], np.where(waiting[:-1] > 0, answered[:-1], due[1:])))
    silent = answered - since
    stalls = np.flatnonzero(silent >= _longest_expected(silent, records.completed - records.submitted))
    if not len(stalls):
        return None
    usual = max(places, int(np.median(waiting)))
    late = np.zeros(len(due), np.bool_)
    for stall in stalls[np.argsort(silent[stalls])[-_FOLLOWED:]]:
        gone = _first_at_most(waiting, int(stall), max(int(waiting[stall - 1]), usual))
        late[stall : max(gone + 1, int(np.searchsorted(due, answered[stall])))] = True
    total_ns, count = int(silent[stalls].sum()), int(late.sum())
    if count < LEAST_LATE * len(due) and total_ns < LEAST_TIME * (answered[-1] - due[0]):
        return None
    longest = int(stalls[np.argmax(silent[stalls])])
    held_ns = records.lateness[order][longest : longest + places + 1].max()
    return Stall(
        start_ns=int(since[longest]) - start_ns,
        longest_ns=int(silent[longest]),
        times=len(stalls),
        total_ns=total_ns,
        late=count,
        host=bool(held_ns >= silent[longest] / 2),
    )


def _longest_expected(silent: npt.NDArray[np.int64], service: npt.NDArray[np.int64]) -> float:
    """The shortest silence that is a stall, ns."""
    some = silent[silent > 0]
    if len(some) < _LEAST_SILENCES:
        return math.inf
    half, most = np.quantile(some, (0.5, 0.9))
    tail = half + (most - half) * math.log(len(some) / 2) / math.log(5)
    return float(max(LEAST_SERVICES * np.median(service), BEYOND * tail))


def _first_at_most(values: npt.NDArray[np.int64], start: int, most: int) -> int:
    """The first index from `start` on whose value is at most `most`; the last index where there is none."""
    for block in range(start, len(values), _BLOCK):
        places = np.flatnonzero(values[block : block + _BLOCK] <= most)
        if len(places):
            return block + int(places[0])
    return len(values) - 1


def _until(instants: npt.NDArray[np.int64], edges: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.int64]:
    """Number of the ascending instants up to each edge."""
    return np.searchsorted(instants, edges, side="right")


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


def _spread(residuals: Series, parameters: int) -> tuple[float, float]:
    """(N, s²): effective sample size of the blocks, at least _LEAST_FREEDOM above the parameters, and the variance."""
    blocks, squares = len(residuals), float(residuals @ residuals)
    squares = max(squares, blocks * _NOISE**2)
    lag = float(residuals[1:] @ residuals[:-1]) / squares
    lag = min(max(lag + (1 + 4 * max(lag, 0.0)) / blocks, 0.0), 0.99)
    worth = max(blocks * (1 - lag) / (1 + lag), float(parameters + _LEAST_FREEDOM))
    return worth, squares / (worth - parameters)
