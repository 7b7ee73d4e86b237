"""A run's histograms as a HdrHistogram interval log (V2), for the tools of that family: latency second by second,
without a tag, so that a reader that knows no tags has latency alone; every other metric as one tagged line.

Three significant digits: a value v of [2^e, 2^(e+1)), e ≥ 11, is in one of 1024 equal buckets, of index
(s << 10) + (v >> s) with s = e − 10; below 2^11 each value has its own. loadtrt's buckets are eight times as wide
(records/histogram.py), so each is put at its middle, within 0.4 % of what was recorded; one request is at the exact
minimum and one at the exact maximum. Units are ns, and "Interval_Max" is in ms, as that of the Java writer.

Payload, big-endian: cookie, length, normalizing offset 0, significant digits, lowest and highest value, ratio 1.0; then
counts from index 0 on as zigzag LEB128, a run of zeros as minus its length. It is zlib's, behind a cookie and a length,
in base64 (HdrHistogram's V2 encoding, AbstractHistogram.java).
"""

from __future__ import annotations

import base64
import struct
import zlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.errors import UsageError
from loadtrt.records.histogram import BUCKETS, CELL, Histogram, bounds_of, bucket_of
from loadtrt.units import MILLISECOND_NS, SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from loadtrt.results.run_result import RunResult
    from loadtrt.results.steadiness import Interval

_COOKIE, _COMPRESSED_COOKIE = 0x1C849313, 0x1C849314  # V2, with the bits that say so
_DIGITS = 3
_HALF_BITS = 10
_HIGHEST = (1 << 44) - 1
_UNTAGGED = "latency"


def hdr_log(run: RunResult) -> str:
    """The log: header lines, then the intervals of latency, and the whole run as one interval of each other metric,
    `Tag=` its name. Lines are in the order of their start, as readers take it. Raises UsageError for a run without a
    request."""
    histograms = {name: Histogram.from_dict(kept) for name, kept in run.model.histograms.items()}
    known = {name: histogram for name, histogram in histograms.items() if histogram.count}
    if not known:
        raise UsageError("the run served no request: there are no histograms to write")
    if not run.started:
        raise UsageError("the run has no start time, which such a log needs")
    began = run.began_ns / SECOND_NS
    date = f"{datetime.fromtimestamp(began, UTC):%a %b %d %H:%M:%S UTC %Y}"
    lines = [
        f"#[loadtrt {run.loadtrt}, {' '.join(run.model.engine.name.split())}; values in ns]",
        "#[Histogram log format version 1.3]",
        f"#[StartTime: {began:.3f} (seconds since epoch), {date}]",
        f"#[BaseTime: {began:.3f} (seconds since epoch)]",
        '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"',
    ]
    latency = known.pop(_UNTAGGED, None)
    first, *later = list(_latency_lines(run, latency)) if latency is not None else [""]
    tagged = [f"Tag={name},{_line(0, run.phases.measure_ns, histogram)}" for name, histogram in known.items()]
    return "\n".join([*lines, *filter(None, [first]), *tagged, *later]) + "\n"


def _latency_lines(run: RunResult, latency: Histogram) -> Iterator[str]:
    """A line for each interval of the run; one for all of it where its file has no intervals that add up to it."""
    intervals, end_ns = run.model.intervals, run.phases.measure_ns
    parts = _parts(intervals, latency)
    if parts is None:
        yield _line(0, end_ns, latency)
        return
    for interval, part in zip(intervals, parts, strict=True):
        length_ns = min(run.model.interval_ns, max(end_ns - interval.start_ns, 0))
        yield _line(interval.start_ns, length_ns, part)


def _line(start_ns: int, length_ns: int, histogram: Histogram) -> str:
    most_ms = (histogram.max or 0) / MILLISECOND_NS
    return f"{start_ns / SECOND_NS:.3f},{length_ns / SECOND_NS:.3f},{most_ms:.3f},{encoded(histogram)}"


def _parts(intervals: Sequence[Interval], whole: Histogram) -> Iterator[Histogram] | None:
    """The histogram of each interval; together they are that of the run, count by count. None where the run's file does
    not have what that takes.

    A run keeps of an interval its greatest value, and counts of cells, which are 9 % wide. So a value is in the right
    cell, and within it the run's buckets are shared among the intervals in proportion, none above its greatest value.
    """
    rows = [(row, *item) for row, interval in enumerate(intervals) for item in interval.latency_counts.items()]
    if not rows or not all(0 <= cell < BUCKETS // CELL and count > 0 for _, cell, count in rows):
        return None
    left = np.zeros((len(intervals), BUCKETS // CELL), np.int64)
    for row, cell, count in rows:
        left[row, cell] = count
    totals = whole.counts.reshape(-1, CELL).sum(1)
    greatest = np.array([-1 if item.latency_max_ns is None else item.latency_max_ns for item in intervals], np.int64)
    tops = np.where(greatest < 0, -1, bucket_of(greatest))
    served, last_cells = left.any(1), left.shape[1] - 1 - np.argmax(left[:, ::-1] > 0, 1)
    if (left.sum(0) != totals).any() or (tops[served] // CELL != last_cells[served]).any():
        return None
    if int(left.max()) * int(whole.counts.max()) >= 1 << 62:
        return None
    used = np.flatnonzero(whole.counts)
    shared = np.zeros((len(intervals), len(used)), np.int64)
    left[served, last_cells[served]] -= 1  # the greatest of each, which has its bucket
    ties = np.random.default_rng(0)
    for place in range(len(used) - 1, -1, -1):
        bucket, own = used[place], served & (tops == used[place])
        count, cell = int(whole.counts[bucket]) - int(own.sum()), bucket // CELL
        weights = np.where(tops >= bucket, left[:, cell], 0)
        total = int(weights.sum())
        if not 0 <= count <= total:
            return None
        if count:
            share, rest = np.divmod(weights * count, total)
            more = np.lexsort((ties.permutation(len(rest)), -rest))[: count - int(share.sum())]
            share[more] += 1
            left[:, cell] -= share
            shared[:, place] = share
        shared[:, place] += own
    return _histograms(intervals, whole, used, shared)


def _histograms(
    intervals: Sequence[Interval], whole: Histogram, used: npt.NDArray[np.int64], shared: npt.NDArray[np.int64]
) -> Iterator[Histogram]:
    """Histograms of the counts [intervals, used buckets], with the greatest of each, and the least of the run once."""
    shortest = int(np.argmax(shared[:, 0] > 0))
    for row, interval in enumerate(intervals):
        part = Histogram()
        part.counts[used] = shared[row]
        first = used[shared[row] > 0][:1]
        if len(first):
            low, width = bounds_of(first)
            part.max = interval.latency_max_ns
            part.min = whole.min if row == shortest else min(int(low[0] + (width[0] - 1) // 2), part.max or 0)
        yield part


def encoded(histogram: Histogram) -> str:
    """A histogram as a compressed V2 HdrHistogram, in base64."""
    payload = b"".join(map(_varint, _runs(_hdr_counts(histogram))))
    head = struct.pack(">iiiiqqd", _COOKIE, len(payload), 0, _DIGITS, 1, _HIGHEST, 1.0)
    packed = zlib.compress(head + payload, 9)
    return base64.b64encode(struct.pack(">ii", _COMPRESSED_COOKIE, len(packed)) + packed).decode("ascii")


def _hdr_counts(histogram: Histogram) -> npt.NDArray[np.int64]:
    """Counts by HdrHistogram's index, up to the last that is not 0."""
    used = np.flatnonzero(histogram.counts)
    if not len(used):
        return np.zeros(1, np.int64)
    low, width = bounds_of(used)
    ends = np.array([min(max(edge or 0, 0), _HIGHEST) for edge in (histogram.min, histogram.max)], np.int64)
    places = _index_of(np.clip(low + (width - 1) // 2, *ends))
    first, last = _index_of(ends)
    counts = np.zeros(last + 1, np.int64)
    np.add.at(counts, places, histogram.counts[used])
    counts[places[-1]] -= 1
    counts[last] += 1
    if histogram.count > 1:
        counts[places[0]] -= 1
        counts[first] += 1
    return counts


def _index_of(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    octave = np.frexp(values.astype(np.float64))[1] - 1  # exact below 2^53
    shift = np.maximum(octave - _HALF_BITS, 0).astype(np.int64)
    index: npt.NDArray[np.int64] = (shift << _HALF_BITS) + (values >> shift)
    return index


def _runs(counts: npt.NDArray[np.int64]) -> Iterator[int]:
    """Counts, with a run of zeros as minus its length; one alone is 0."""
    used = np.flatnonzero(counts)
    if not len(used):
        yield 0
    gaps = np.diff(used, prepend=-1) - 1
    for gap, count in zip(gaps.tolist(), counts[used].tolist(), strict=True):
        if gap:
            yield -gap if gap > 1 else 0
        yield count


def _varint(value: int) -> bytes:
    """Zigzag LEB128, of values below 2^55 (HdrHistogram's ninth byte would hold eight bits)."""
    rest = 2 * value if value >= 0 else -2 * value - 1
    encoded_bytes = bytearray()
    while rest >= 0x80:
        encoded_bytes.append(rest & 0x7F | 0x80)
        rest >>= 7
    encoded_bytes.append(rest)
    return bytes(encoded_bytes)
