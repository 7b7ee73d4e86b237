"""A log-linear histogram of int nanoseconds: 128 buckets an octave, exact count, sum, minimum and maximum beside them.

Values below 128 ns have a bucket each. Above, a value v in [2^e, 2^(e+1)) falls in one of 128 equal buckets, so the
bucket's middle is within 1/256 = 0.4 % of v. Merging is addition: associative, and equal to recording everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from loadtrt.printing import shortened

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

SUBBUCKETS = 128
_SUB_BITS = 7
_TOP = (1 << 44) - 1  # 4.9 hours: longer values count here, and the maximum stays exact
BUCKETS = (44 - _SUB_BITS + 1) * SUBBUCKETS
_BEFORE = (1023 + _SUB_BITS - 1) * SUBBUCKETS  # the shifted bits of 128.0 less its bucket; 1023 is the exponent's bias
CELL = 16  # buckets of a heat map's cell
QUANTILE_ERROR = 1 / (2 * SUBBUCKETS)


def bucket_of(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The bucket of each value, int64 of the same shape. Values are clipped to [0, 2^44).

    From 128 on, the bits of a float64 are the bucket: the exponent is the octave, the next 7 bits the bucket within it.
    Below 128 these bits give less than the value, which is its own bucket.
    """
    clipped = np.minimum(np.maximum(values, 0), _TOP)
    bits = clipped.astype(np.float64).view(np.int64)  # exact below 2^53
    bits >>= 52 - _SUB_BITS
    bits -= _BEFORE
    return np.maximum(bits, np.minimum(clipped, SUBBUCKETS - 1), out=bits)


def bounds_of(buckets: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(lowest value, width) of each bucket, ns."""
    shift = np.maximum(buckets // SUBBUCKETS - 1, 0)
    return np.left_shift(buckets - shift * SUBBUCKETS, shift), np.left_shift(1, shift)


class Histogram:
    """Counts of one metric. counts: int64 [BUCKETS], which may be a row of a larger table."""

    def __init__(self, counts: npt.NDArray[np.int64] | None = None) -> None:
        self.counts = np.zeros(BUCKETS, np.int64) if counts is None else counts
        self.sum = 0
        self.min: int | None = None
        self.max: int | None = None

    def add(self, values: npt.NDArray[np.int64], buckets: npt.NDArray[np.int64] | None = None) -> None:
        """Record int64 ns [n]. buckets: buckets of the values, where they are known."""
        if not len(values):
            return
        np.add.at(self.counts, bucket_of(values) if buckets is None else buckets, 1)
        self._note(int(values.sum()), int(values.min()), int(values.max()))

    def _note(self, total: int, low: int, high: int) -> None:
        self.sum += total
        self.min = low if self.min is None else min(self.min, low)
        self.max = high if self.max is None else max(self.max, high)

    def merge(self, other: Histogram) -> None:
        """Add what `other` recorded."""
        if other.min is not None and other.max is not None:
            self.counts += other.counts
            self._note(other.sum, other.min, other.max)

    @property
    def count(self) -> int:
        """Number of recorded values."""
        return int(self.counts.sum())

    def quantiles(self, ranks: Sequence[float]) -> list[float]:
        """Values at ranks q in [0, 1], ns: the ⌈q·n⌉-th smallest, within QUANTILE_ERROR of it. Needs count > 0."""
        reached = np.cumsum(self.counts)
        targets = np.clip(np.ceil(np.asarray(ranks) * reached[-1]), 1, None)
        buckets = np.searchsorted(reached, targets)
        low, width = bounds_of(buckets)
        middle = low + (width - 1) / 2
        return [float(value) for value in np.clip(middle, self.min, self.max)]

    def cells(self) -> dict[int, int]:
        """Counts of the cells, CELL neighbouring buckets each, without empty cells."""
        sums = self.counts.reshape(-1, CELL).sum(axis=1)
        return {int(cell): int(sums[cell]) for cell in np.flatnonzero(sums)}

    def packed(self) -> PackedHistogram:
        """A copy in little memory."""
        used = np.flatnonzero(self.counts)
        return PackedHistogram(used.astype(np.int16), self.counts[used], self.sum, self.min, self.max)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: buckets with a count, as [index, count] pairs, and the sum, min and max."""
        used = np.flatnonzero(self.counts)
        return {
            "buckets": [[int(index), int(self.counts[index])] for index in used],
            "sum_ns": self.sum,
            "min_ns": self.min,
            "max_ns": self.max,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Histogram:
        """The inverse of `to_dict`."""
        histogram = cls()
        for index, count in data["buckets"]:
            histogram.counts[index] = count
        histogram.sum, histogram.min, histogram.max = data["sum_ns"], data["min_ns"], data["max_ns"]
        return histogram


@dataclass(frozen=True, slots=True)
class PackedHistogram:
    """A histogram that is not added to.

    buckets: the buckets that have a count, int16 [n].
    counts: their counts, int64 [n].
    sum: of the values, ns.
    min: smallest value, ns; None without any.
    max: largest value, ns; None without any.
    """

    buckets: npt.NDArray[np.int16]
    counts: npt.NDArray[np.int64]
    sum: int
    min: int | None
    max: int | None

    def unpacked(self) -> Histogram:
        """The inverse of `Histogram.packed`."""
        histogram = Histogram()
        histogram.counts[self.buckets] = self.counts
        histogram.sum, histogram.min, histogram.max = self.sum, self.min, self.max
        return histogram

    def merged(self, other: PackedHistogram) -> PackedHistogram:
        """What both recorded."""
        histogram = self.unpacked()
        histogram.merge(other.unpacked())
        return histogram.packed()


def require_histogram(name: str, data: Mapping[str, Any]) -> None:
    """Raises ValueError unless `data`, from a file, is valid for `from_dict`."""
    match data:
        case {"buckets": list(pairs), "sum_ns": int(), "min_ns": int() | None, "max_ns": int() | None}:
            pass
        case _:
            raise ValueError(f"the histogram of {name} lacks buckets, sum_ns, min_ns or max_ns")
    if wrong := [key for key in ("sum_ns", "min_ns", "max_ns") if isinstance(data[key], bool)]:
        raise ValueError(f"the histogram of {name} has a {wrong[0]} that is not a number")
    for pair in pairs:
        if not _is_bucket(pair):
            bucket = shortened(str(pair), 40)
            raise ValueError(f"the histogram of {name} has the bucket {bucket}, which is not an index and a count")
    if pairs and (data["min_ns"] is None or data["max_ns"] is None):
        raise ValueError(f"the histogram of {name} has buckets, but no min_ns or max_ns")
    if pairs and data["min_ns"] > data["max_ns"]:
        raise ValueError(f"the histogram of {name} has a min_ns above its max_ns")


def _is_bucket(pair: Any) -> bool:
    """Whether it is an index and a count. A result has thousands: `match` takes ten times as long."""
    if not (isinstance(pair, list | tuple) and len(pair) == 2 and type(pair[0]) is int and type(pair[1]) is int):
        return False
    return 0 <= pair[0] < BUCKETS and 0 < pair[1] < 1 << 62


class Histograms:
    """Several histograms that are filled together, as one pass of numpy over all metrics costs far less than one each.

    counts: int64 [metrics, BUCKETS].
    histograms: the histograms; each one's counts are a row of `counts`.
    """

    def __init__(self, metrics: int) -> None:
        self.counts = np.zeros((metrics, BUCKETS), np.int64)
        self.histograms = [Histogram(row) for row in self.counts]
        self._offsets = (np.arange(metrics) * BUCKETS)[:, None]

    def add(self, values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Record int64 ns [metrics, n], row by row. Returns the buckets, of the same shape."""
        buckets = bucket_of(values)
        if values.shape[1]:
            np.add.at(self.counts.reshape(-1), (buckets + self._offsets).reshape(-1), 1)
            totals, lows, highs = (column.tolist() for column in (values.sum(1), values.min(1), values.max(1)))
            for histogram, total, low, high in zip(self.histograms, totals, lows, highs, strict=True):
                histogram._note(total, low, high)
        return buckets
