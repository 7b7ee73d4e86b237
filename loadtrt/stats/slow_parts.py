"""Parts of a run that were slower than the rest: by how far the engine fell behind, and by its service times.

**Behind the load**: R(t), how far the engine is behind, over SPANS equal spans of time: the backlog in an open loop;
where all waits (closed loop, offline), what it would have served by t at its mean pace, less what it has. R is a random
walk where nothing changes, or one that is pulled back. The largest rise of one without drift, max over s < t of
R(t) − R(s), is distributed as max |B| of a Brownian motion (Lévy, 1948): above x·σ·√SPANS with a probability of at most
4·(1 − Φ(x)). Reported above x = LEAST_RISE, beyond MOST_WAITING times what the engine holds. σ² is the variance of a
span's increment, from the median of the differences of neighbours, which a rise and its end do not enlarge; at least
one; and at least n/SPANS·c² for n requests whose spans in their lanes have a coefficient of variation c, the variance
of a renewal process over long times (Cox, Renewal Theory, 1962): a few long services are no slow part. Of stages,
bursts and traces it is the load that rises. Of runs beyond the kept records the intervals tell it.

**By service times** (steady loads): below capacity a slower device shows in no backlog, and latencies fluctuate anyway,
but service times hardly depend on each other. y is the mean logarithm of service times (each over the median of its
kind: part of a mix, size of a formed batch) in each of PARTS equal parts of the requests, by submission. Of all
segments a … b of them, the one is taken that has the largest difference D of means within and without, over its
standard error (Sen and Srivastava, On tests for detecting change in mean, 1975; Olshen and Venkatraman's circular
segments, 2004). It is a slow part if Student's t of D is significant at SEGMENT over the number of segments
(Bonferroni: a false alarm at most that often), with s² and its degrees of freedom from the residuals within and without
it by their effective sample size (stats/steady.py), so that services that do depend on each other, as in a device that
lanes share, do not pass for a change; and if D is log LEAST_STEP and more. Where the segment is more than half of the
requests, the rest is the part that is told. Of runs beyond the kept records the intervals' mean compute times tell it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from loadtrt.results.steadiness import SlowPart
from loadtrt.stats.binomial import student_chance
from loadtrt.stats.blocks import NOISE, spans_of, spread
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from loadtrt.records.records import Records
    from loadtrt.results.steadiness import Interval
    from loadtrt.stats.blocks import Series

SPANS = 40
MOST_WAITING = 3
LEAST_RISE = 4
PARTS = 40
LEAST_SERVED = 5 * PARTS
LEAST_SEGMENT = PARTS // 10
LEAST_STEP = 1.1
SEGMENT = 0.01
_MEDIAN = 0.6745  # of |Z|, Z standard normal
_SIDE = 2  # σ above its lowest point a rise has hardly begun
_TAILS = (0.05, 0.95)  # single services beyond these count as these


def until(instants: npt.NDArray[np.int64], edges: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.int64]:
    """Number of the ascending instants up to each edge."""
    return np.searchsorted(instants, edges, side="right")


def fell_behind(
    records: Records, start_ns: int, closed: bool, places: int, intervals: Sequence[Interval], interval_ns: int
) -> SlowPart | None:
    """The part in which the engine fell behind.

    records: in order of due instants.
    intervals: used instead of records, of a steady load.
    """
    due, completed = records.due, np.sort(records.completed)
    paced = closed or due[0] == due[-1] or len(intervals) > SPANS
    if len(intervals) > SPANS:
        marks = np.linspace(0, len(intervals) - 1, SPANS + 1).round().astype(np.int64)  # the last one is not whole
        counts = np.concatenate(([0], np.cumsum([interval.requests for interval in intervals])))
        edges, served, dispersion = start_ns + marks * float(interval_ns), counts[marks], 0.0
    else:
        edges = np.linspace(due[0], due[-1] if due[-1] > due[0] else completed[-1], SPANS + 1)
        served, dispersion = until(completed, edges), _dispersion(records)
    if edges[-1] <= edges[0]:
        return None  # all due at once, and completed at once
    at_its_pace = served[-1] * (edges - edges[0]) / (edges[-1] - edges[0])
    behind = (at_its_pace if paced else until(due, edges)) - served
    deviation = max(float(np.median(np.abs(np.diff(behind, 2)))) / (math.sqrt(2) * _MEDIAN), dispersion, 1.0)
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


def _dispersion(records: Records) -> float:
    """Deviation of the requests served in one of SPANS spans, by the variation of the services."""
    spans = spans_of(records, 0)
    if not len(spans.end):
        return 0.0
    length = (spans.end - spans.start).astype(np.float64)
    return float(length.std() / length.mean()) * math.sqrt(len(length) / SPANS)


def served_slower(
    records: Records, start_ns: int, sets: int, intervals: Sequence[Interval] = (), interval_ns: int = SECOND_NS
) -> SlowPart | None:
    """The part in which services took longer, or shorter where that is the smaller part; None without one.

    sets: as for `spans_of`.
    intervals: used instead of records.
    """
    if len(intervals) > PARTS:
        known = [each for each in intervals[:-1] if each.compute_mean_ns]  # the last one is not whole
        if len(known) < PARTS:
            return None
        marks = np.linspace(0, len(known), PARTS + 1).round().astype(np.int64)
        logs = np.log([each.compute_mean_ns or 1.0 for each in known])
        bounds_ns = [each.start_ns for each in known] + [known[-1].start_ns + interval_ns]
        edges = np.array(bounds_ns)[marks] + start_ns
        counts = np.cumsum([0] + [each.requests for each in known])[marks]
        arrived = counts
    else:
        spans = spans_of(records, sets)
        if len(spans.end) < LEAST_SERVED:
            return None
        order = np.argsort(spans.start, kind="stable")
        marks = np.linspace(0, len(order), PARTS + 1).round().astype(np.int64)
        logs = np.log(np.maximum(spans.value[order], NOISE))
        logs = np.clip(logs, *np.quantile(logs, _TAILS))
        edges = np.append(spans.start[order], spans.end[-1])[marks]
        arrived, counts = (until(np.sort(instants), edges) for instants in (records.due, spans.end))
    means = np.array([part.mean() for part in np.split(logs, marks[1:-1])])
    found = _segment(means)
    if found is None:
        return None
    first, last, step = found
    lasted = float(edges[last] - edges[first]) / SECOND_NS
    return SlowPart(
        start_ns=int(edges[first]) - start_ns,
        end_ns=int(edges[last]) - start_ns,
        served_per_s=float(counts[last] - counts[first]) / lasted,
        expected_per_s=float(arrived[last] - arrived[first]) / lasted,
        service_ratio=math.exp(step),
    )


def _segment(means: Series) -> tuple[int, int, float] | None:
    """(first part, the one after the last, difference of its mean from that of the rest) of the segment that differs
    most, LEAST_SEGMENT parts long at least; None where it is not significant, or small."""
    parts = len(means)
    first, last = np.triu_indices(parts + 1, LEAST_SEGMENT)
    size = last - first
    some = size <= parts - LEAST_SEGMENT
    first, last, size = first[some], last[some], size[some]
    total = np.concatenate(([0.0], np.cumsum(means - means.mean())))
    steps = (total[last] - total[first]) * parts / (size * (parts - size))  # from the mean of the rest
    best = int(np.argmax(np.abs(steps) * np.sqrt(size * (parts - size))))
    start, end, step = int(first[best]), int(last[best]), float(steps[best])
    within = (np.arange(parts) >= start) & (np.arange(parts) < end)
    residuals = np.where(within, means - means[within].mean(), means - means[~within].mean())
    worth, variance = spread(residuals, 2)
    error = math.sqrt(variance * parts / worth * (1 / (end - start) + 1 / (parts - end + start)))
    if abs(step) < math.log(LEAST_STEP) or student_chance(step / error, worth - 2) > SEGMENT / len(first):
        return None
    if 2 * (end - start) > parts and start == 0:
        return end, parts, -step
    if 2 * (end - start) > parts and end == parts:
        return 0, start, -step
    return start, end, step
