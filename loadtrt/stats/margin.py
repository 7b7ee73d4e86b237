"""Margins of a run's percentiles, means and rates: relative half widths of 95 % confidence intervals.

Requests in order of their due instants are divided into k sections of the same length; s_j: the number in section j,
s: in all. On a log scale, as numbers are compared by their ratio,

    margin = e^h − 1      h = t_{k−1} · √( Σ_j (ln s_j − ln s)² / (k (k−1)) )

so that the true number lies between s/(1 + margin) and s·(1 + margin). t: Student's quantile at 97.5 %. Requests are
autocorrelated (one long queue makes many late, a clock drifts), but sections much longer than that are nearly
independent (sectioning: Asmussen and Glynn, Stochastic Simulation, 2007, chapter III; of means it is the method of
batch means). k = 16 if the sections look independent, else 8 if these do, else 4: if r + 1/k < 1/(2√k), r the
autocorrelation of s_j at lag 1, which is −1/k on average for independent ones. A section must have five requests above
the percentile, five above the median for means and rates: below 2 000 requests p99 has no margin.

Sections are alike only under a steady load. Where the arrival rate changes, sections of latency, queue and throughput
differ by the schedule, and these have no margins.

`benchmarks/regressions.py` measures how often margins are wrong. The margin of one run does not cover what varies from
run to run, or more slowly than a run lasts.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from loadtrt.records.records import Records

    Numbers = npt.NDArray[np.float64]

_STUDENT = {16: 2.131, 8: 2.365, 4: 3.182}  # t at 97.5 % by the number of sections
_BEYOND = 5
_MEAN = "mean"
_CONFIDENCE = 0.99


def least_samples(rank: float) -> int:
    """The fewest samples whose maximum bounds the quantile from above with 99 % confidence.

    n ≥ ln(1 − c) / ln q, since P(all n samples lie below the q-quantile) = q^n. c: confidence, q: rank in (0, 1).
    44 for p90, 459 for p99, 4603 for p99.9. Source: MLPerf LoadGen's early stopping with no sample above.
    """
    return math.ceil(math.log(1 - _CONFIDENCE) / math.log(rank))


def least_for_margin(rank: float) -> int:
    """How many requests a percentile's margin needs; 0.5 for means and rates."""
    return math.ceil(round(4 * _BEYOND / (1 - rank), 6))


def margins(values: npt.NDArray[np.int64], ranks: Mapping[str, float]) -> dict[str, float]:
    """Margins of percentiles, by the names of `ranks`, and of the "mean", as far as the sample supports them.

    values: int [n], in order of due instants. A number that is 0 in a section has no margin.
    """
    whole = values[: len(values) // 16 * 16]
    if not len(whole):
        return {}
    numbers: dict[str, dict[int, Numbers]] = {name: {} for name in (*ranks, _MEAN)}
    parts = whole
    for k in (*_STUDENT, 1):  # merging sorted sections is cheaper than sorting again
        numbers[_MEAN][k] = whole.reshape(k, -1).mean(axis=1)
        parts = np.sort(parts.reshape(k, -1), axis=1, kind="stable")
        for name, rank in ranks.items():
            numbers[name][k] = parts[:, math.ceil(rank * parts.shape[1]) - 1].astype(np.float64)
    halves = {name: _half({**ranks, _MEAN: 0.5}[name], len(values), sections) for name, sections in numbers.items()}
    return {name: math.expm1(half) for name, half in halves.items() if half is not None}


def rate_margin(records: Records) -> float | None:
    """The margin of served requests a second: that of the mean gap from one completion to the next."""
    completed = np.sort(records.ok.completed)
    return margins(completed[1:] - completed[:-1], {}).get(_MEAN)


def _half(rank: float, count: int, sections: Mapping[int, Numbers]) -> float | None:
    """h of a number, from its values in k sections; in one section it is the number of all."""
    supported = [k for k in _STUDENT if round(count * (1 - rank), 6) >= k * _BEYOND]
    if not supported or min(map(np.min, sections.values())) <= 0:
        return None
    apart = {k: np.log(sections[k] / sections[1]) for k in supported}
    k = next((k for k in supported if _independent(apart[k])), supported[-1])
    return _STUDENT[k] * math.sqrt(float(apart[k] @ apart[k]) / (k * (k - 1)))


def _independent(numbers: Numbers) -> bool:
    """Whether neighbouring sections have no significant autocorrelation."""
    k, around = len(numbers), numbers - numbers.mean()
    square = float(around @ around)
    return not square or float(around[1:] @ around[:-1]) / square + 1 / k < 0.5 / math.sqrt(k)
