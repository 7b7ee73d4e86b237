"""Stalls of the whole engine: times in which requests waited and none completed.

With c_i the instants of completions in order (served or failed, of all lanes), and w_i = c_i, or the next due instant
where no request waits at c_i, the silence before completion i + 1 is g_i = c_{i+1} − w_i. Silences of a healthy engine
are no longer than its service times, and follow their distribution. So a stall is a silence of at least

    max(LEAST_SERVICES · s, BEYOND · (q₅₀ + (q₉₀ − q₅₀) · ln(n/2) / ln 5))

s: the median service time; q₅₀, q₉₀: quantiles of the n silences above zero. The bracket is the longest expected of n
silences with an exponential tail; constant service times end at q₅₀, lognormal ones have a longer tail.

A stall **delays** the requests that waited during a part of it, or completed before its queue was gone: before no more
requests waited than when it began, than wait typically (the median), or than the engine holds.

Stalls are reported where they delayed LEAST_LATE of all requests, or took LEAST_TIME of the run.
`benchmarks/steadiness.py` measures how often that is wrong.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.records.records import FAILED, Records
from loadtrt.results.steadiness import Stall

if TYPE_CHECKING:
    import numpy.typing as npt

LEAST_SERVICES = 5
BEYOND = 4
LEAST_LATE = 0.001  # of the requests: what p99.9 shows
LEAST_TIME = 0.01  # of the run
_LEAST_SILENCES = 50
_FOLLOWED = 1000  # the most stalls whose delayed requests are counted: the longest ones
_BLOCK = 1 << 12


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
