"""Exact log-linear counts as a native histogram of Prometheus: exponential buckets, 32 an octave, only the used ones.

A bucket i of schema s holds the values in (2^((i−1)/2^s), 2^(i/2^s)], in seconds. `histogram_quantile` is then within
1.1 % of the truth, where classic buckets are 10 to 20 % off on narrow latencies.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from prometheus_client.samples import BucketSpan, NativeHistogram

from loadtrt.prometheus.families import middles_ns
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    import numpy.typing as npt

SCHEMA = 5
ZERO_THRESHOLD_S = 2.0**-128  # Prometheus' own choice; only values of 0 ns are in the bucket of zero


def native_histogram(counts: npt.NDArray[np.int64], sum_s: float) -> NativeHistogram:
    """counts: int64 [BUCKETS] of a Histogram, of ns; each counts where its middle lies. sum_s: the values' sum."""
    number = _exponential()
    totals = np.bincount(number, weights=counts[1:], minlength=int(number[-1]) + 1).astype(np.int64)
    used = np.flatnonzero(totals)
    spans, end = [], 0
    for run in np.split(used, np.flatnonzero(np.diff(used) > 1) + 1) if len(used) else ():
        first = int(run[0]) + _lowest()
        spans.append(BucketSpan(first - end, len(run)))  # the first span's offset is from 0, the others' a gap
        end = first + len(run)
    return NativeHistogram(
        count_value=int(counts.sum()),
        sum_value=sum_s,
        schema=SCHEMA,
        zero_threshold=ZERO_THRESHOLD_S,
        zero_count=int(counts[0]),
        pos_spans=spans,
        pos_deltas=np.diff(totals[used], prepend=0).tolist(),
    )


@cache
def _exponential() -> npt.NDArray[np.int64]:
    """The exponential bucket of each bucket but that of 0 ns, counted from the lowest: int64 [BUCKETS − 1]."""
    return _index(middles_ns()[1:]) - _lowest()


@cache
def _lowest() -> int:
    return int(_index(middles_ns()[1:2])[0])


def _index(values_ns: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    numbers: npt.NDArray[np.int64] = np.ceil(np.log2(values_ns / SECOND_NS) * 2**SCHEMA).astype(np.int64)
    return numbers
