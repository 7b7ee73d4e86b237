"""What the laws of steadiness share: spans of lanes, and how much blocks of autocorrelated values are worth."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from loadtrt.records.records import Records

if TYPE_CHECKING:
    import numpy.typing as npt

    Times = npt.NDArray[np.int64]
    Places = npt.NDArray[np.int64]
    Series = npt.NDArray[np.float64]

LEAST_FREEDOM = 3
NOISE = 1e-6  # of a latency: equal ones differ by rounding


class Spans(NamedTuple):
    """The times in which lanes served requests, in the order of their ends.

    start, end: instants, ns [n]: the request's submission or the completion before it on its lane, and its own.
    lane: index of the lane [n].
    value: length in medians of its kind [n].
    outside: part of it that was not device time, in the same unit [n]; 0 where that is not known.
    """

    start: Times
    end: Times
    lane: Places
    value: Series
    outside: Series


def spans_of(records: Records, sets: int) -> Spans:
    """The spans of answered requests. sets: input sets of a kind of request, such as a part of a mix or a size of a
    formed batch; 0: all are of one kind."""
    order = np.lexsort((records.completed, records.lane))
    one = Records(records.rows[order])
    before = np.where(np.diff(one.lane, prepend=-1) == 0, np.roll(one.completed, 1), one.submitted)
    start = np.maximum(one.submitted, before)
    some = one.completed > start  # those of one batch share a span
    one, start = Records(one.rows[some]), start[some]
    length = (one.completed - start).astype(np.float64)
    kind = one.inputs // sets if sets else np.zeros(len(one), np.int64)
    median = np.ones(len(one))
    for each in np.unique(kind):
        median[kind == each] = np.median(length[kind == each])
    outside = np.where(one.compute > 0, np.maximum(length - one.h2d - one.compute - one.d2h, 0.0), 0.0)
    by_end = np.argsort(one.completed, kind="stable")
    return Spans(
        start[by_end], one.completed[by_end], one.lane[by_end], (length / median)[by_end], (outside / median)[by_end]
    )


def spread(residuals: Series, parameters: int) -> tuple[float, float]:
    """(N, s²): effective sample size of the blocks, at least LEAST_FREEDOM above the parameters, and the variance."""
    blocks, squares = len(residuals), float(residuals @ residuals)
    squares = max(squares, blocks * NOISE**2)
    lag = float(residuals[1:] @ residuals[:-1]) / squares
    lag = min(max(lag + (1 + 4 * max(lag, 0.0)) / blocks, 0.0), 0.99)
    worth = max(blocks * (1 - lag) / (1 + lag), float(parameters + LEAST_FREEDOM))
    return worth, squares / (worth - parameters)
