"""How fast a GPU serves by the requests in flight, and how much work requests are: from the records of any load.

Contexts share a GPU: with k requests in flight it does X(k) requests' worth of work a second, which the m busy lanes
share. A lane serves one request at a time, first in, first out: request i from b_i = max(its buffer set was free and it
was due, the lane's last completion) to its completion c_i. Its work, of mean 1, is

    W_i = Σ_k X(k)·τ_ik        τ_ik = ∫ 1/m(t) dt over the part of [b_i, c_i] with k(t) = k

k is the number of requests in flight where all lanes are busy, and that of busy lanes otherwise (sizing/station.py).

**X.** What a request is does not depend on how many were in flight when it began. So the mean of W_i − 1 is zero over
the requests that began at each level a, for every distribution of W and every load:

    Σ_j A_aj X_j = N_a        A_aj = Σ τ_ij over those requests,   N_a: their number

as many linear equations as unknowns (a method of moments with the level at the begin as instrument; Hansen, Large
sample properties of generalized method of moments estimators, 1982). A closed loop of n knows A_nn alone, and
X(n) = N_n/A_nn is its throughput. To count completions while k are in flight instead is biased unless W is exponential:
a request that completes there was not new. Equations of several runs add up.

Levels that few requests began at say little: second differences of X are assumed to be within 0.3·X₁/k (one standard
deviation), except where the last lane fills, where X may bend.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from loadtrt.records.histogram import Histogram
from loadtrt.records.records import OK, Records
from loadtrt.results.flow import WORK_UNIT, Flow
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]

_MOST = 1 << 18  # records: X and W are known well within a percent by then
_FINE = 16  # levels up to which each concurrency is one
_PARTS = 32  # of a run, for the dispersion
_LEAST = 2 * _PARTS
_BEND = 0.3
_LEAST_CV2 = 1e-3  # the equations are not taken for more exact than work of this variance leaves them


def flow_of(records: Records, contexts: int) -> Flow | None:
    """The flow of the first 2^18 records; None where too few were served, or none took any time.

    contexts: number of lanes.
    """
    rows = records.rows[:_MOST]
    sent = Records(rows[records.inputs[:_MOST] >= 0])
    sent = Records(sent.rows[np.lexsort((sent.completed, sent.lane))])
    entry, end = sent.submitted - sent.lateness, sent.completed
    begin = entry.copy()
    same = sent.lane[1:] == sent.lane[:-1]
    begin[1:][same] = np.maximum(entry[1:], end[:-1])[same]
    ok = sent.status == OK
    if np.count_nonzero(ok) < _LEAST or not (end > begin).any():
        return None
    times, level, share = _states(entry, begin, end, contexts)
    levels = np.array(_grid(int(level.max())))
    hats = _hats(levels)
    ended = np.searchsorted(times, end[ok])
    began = np.searchsorted(times, begin[ok], side="right") - 1  # where all that happened at this instant has
    at_begin = level[began]
    starts = np.bincount(at_begin, minlength=len(hats)) @ hats
    seconds = np.empty((len(levels), len(levels)))
    for place in range(len(levels)):
        spent = _spent(hats[level, place] * share, began, ended)
        seconds[:, place] = np.bincount(at_begin, spent, minlength=len(hats)) @ hats
    kept = (starts > 0) | seconds.any(axis=0)
    levels, starts, seconds, hats = levels[kept], starts[kept], seconds[np.ix_(kept, kept)], hats[:, kept]
    work, cv2 = np.ones(len(began)), 1.0
    for _ in range(2):  # how exact the equations are depends on the variance of work
        per_s = throughputs(levels, starts, seconds, contexts, cv2)
        work = _spent((hats @ per_s)[level] * share, began, ended)
        work /= work.mean()
        cv2 = float(work.var())
    histogram = Histogram()
    histogram.add(np.rint(work * WORK_UNIT).astype(np.int64))
    return Flow(
        levels=tuple(levels.tolist()),
        starts=tuple(starts.tolist()),
        seconds=tuple(tuple(row) for row in np.round(seconds, 9).tolist()),
        requests=len(began),
        work=histogram.to_dict(),
        dispersion=_dispersion(work[np.argsort(begin[ok], kind="stable")]),
    )


def throughputs(
    levels: Ints, starts: Floats, seconds: Floats, contexts: int, cv2: float, noise: Floats | float = 0.0
) -> Floats:
    """X at each level, requests per second.

    levels, starts, seconds: as of Flow.
    cv2: squared coefficient of variation of work.
    noise: error of each equation, in requests; for draws of what X may be.
    """
    scale = starts.sum() / seconds.sum()
    weight = 1 / np.sqrt(np.maximum(starts, 1) * max(cv2, _LEAST_CV2))
    left, right = [seconds * (scale * weight)[:, None]], [(starts + noise) * weight]
    for before, place, after in zip(range(len(levels)), range(1, len(levels)), range(2, len(levels)), strict=False):
        below, at, above = (int(levels[index]) for index in (before, place, after))
        if at == contexts or below < contexts < above:
            continue
        row = np.zeros(len(levels))
        row[before], row[after] = 1 / (at - below), 1 / (above - at)
        row[place] = -row[before] - row[after]
        left.append(row[None, :] * (at / _BEND))
        right.append(np.zeros(1))
    # The unit of the last rows is X at the lowest level, of which the scale is an estimate.
    found = np.linalg.lstsq(np.vstack(left), np.concatenate(right), rcond=None)[0]
    solved: Floats = np.maximum(found, 1e-3 * found.max()) * scale
    return solved


def _states(entry: Ints, begin: Ints, end: Ints, contexts: int) -> tuple[Ints, Ints, Floats]:
    """What happened, in order: (instants, level from each on, seconds until the next over busy lanes)."""
    times = np.concatenate((entry, begin, end))
    order = np.argsort(times, kind="stable")
    ones, none = np.ones(len(entry), np.int64), np.zeros(len(entry), np.int64)
    in_flight = np.cumsum(np.concatenate((ones, none, -ones))[order])
    busy = np.cumsum(np.concatenate((none, ones, -ones))[order])
    times = times[order]
    lasted = np.append(np.diff(times), 0) / SECOND_NS
    level = np.where(busy >= contexts, in_flight, busy)
    share: Floats = np.where(busy > 0, lasted / np.maximum(busy, 1), 0.0)
    return times, np.maximum(level, 0), share


def _spent(rates: Floats, began: Ints, ended: Ints) -> Floats:
    """The sum of `rates` over the states from one to another."""
    reached = np.concatenate(([0.0], np.cumsum(rates)))
    spent: Floats = reached[ended] - reached[began]
    return spent


def _grid(most: int) -> list[int]:
    """All levels up to one that is not below `most`."""
    levels = list(range(1, min(most, _FINE) + 1))
    step = _FINE // 8
    while levels[-1] < most:
        levels.append(levels[-1] + step)
        step *= 2 if levels[-1] >= 16 * step else 1
    return levels


def _hats(levels: Ints) -> Floats:
    """How much each concurrency from 0 up counts to each level: float64 [levels[-1] + 1, levels]; 0 to none."""
    every = np.arange(levels[-1] + 1)
    hats = np.column_stack([np.interp(every, levels, unit) for unit in np.eye(len(levels))])
    hats[0] = 0.0
    return hats


def _dispersion(work: Floats) -> float:
    """The variance of the means of parts over that of as many independent requests."""
    size = len(work) // _PARTS
    means = work[: size * _PARTS].reshape(_PARTS, size).mean(axis=1)
    variance = float(work.var())
    return max(size * float(means.var(ddof=1)) / variance, 1.0) if variance else 1.0
