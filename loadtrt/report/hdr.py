"""A run's histograms as a HdrHistogram interval log (V2), for the tools of that family: one line a metric, tagged.

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
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.errors import UsageError
from loadtrt.records.histogram import Histogram, bounds_of
from loadtrt.units import MILLISECOND_NS, SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from loadtrt.results.run_result import RunResult

_COOKIE, _COMPRESSED_COOKIE = 0x1C849313, 0x1C849314  # V2, with the bits that say so
_DIGITS = 3
_HALF_BITS = 10
_HIGHEST = (1 << 44) - 1


def hdr_log(run: RunResult) -> str:
    """The log: header lines, then the whole run as one interval of each metric, `Tag=` its name. Raises UsageError for
    a run without a request."""
    histograms = {name: Histogram.from_dict(kept) for name, kept in run.model.histograms.items()}
    known = {name: histogram for name, histogram in histograms.items() if histogram.count}
    if not known:
        raise UsageError("the run served no request: there are no histograms to write")
    if not run.started:
        raise UsageError("the run has no start time, which such a log needs")
    phases = run.phases
    before_ns = phases.load_ns + phases.allocate_ns + phases.verify_ns + phases.warmup_ns
    began = datetime.fromisoformat(run.started).timestamp() + before_ns / SECOND_NS
    date = f"{datetime.fromtimestamp(began, UTC):%a %b %d %H:%M:%S UTC %Y}"
    lines = [
        f"#[loadtrt {run.loadtrt}, {' '.join(run.model.engine.name.split())}; values in ns]",
        "#[Histogram log format version 1.3]",
        f"#[StartTime: {began:.3f} (seconds since epoch), {date}]",
        f"#[BaseTime: {began:.3f} (seconds since epoch)]",
        '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"',
    ]
    for name, histogram in known.items():
        most_ms = (histogram.max or 0) / MILLISECOND_NS
        lines.append(f"Tag={name},0.000,{phases.measure_ns / SECOND_NS:.3f},{most_ms:.3f},{encoded(histogram)}")
    return "\n".join(lines) + "\n"


def encoded(histogram: Histogram) -> str:
    """A histogram that is not empty as a compressed V2 HdrHistogram, in base64."""
    payload = b"".join(map(_varint, _runs(_hdr_counts(histogram))))
    head = struct.pack(">iiiiqqd", _COOKIE, len(payload), 0, _DIGITS, 1, _HIGHEST, 1.0)
    packed = zlib.compress(head + payload, 9)
    return base64.b64encode(struct.pack(">ii", _COMPRESSED_COOKIE, len(packed)) + packed).decode("ascii")


def _hdr_counts(histogram: Histogram) -> npt.NDArray[np.int64]:
    """Counts by HdrHistogram's index, up to the last that is not 0."""
    used = np.flatnonzero(histogram.counts)
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
    for empty, group in groupby(counts.tolist(), lambda count: not count):
        if not empty:
            yield from group
            continue
        length = sum(1 for _ in group)
        yield -length if length > 1 else 0


def _varint(value: int) -> bytes:
    """Zigzag LEB128, of values below 2^55 (HdrHistogram's ninth byte would hold eight bits)."""
    rest = 2 * value if value >= 0 else -2 * value - 1
    encoded_bytes = bytearray()
    while rest >= 0x80:
        encoded_bytes.append(rest & 0x7F | 0x80)
        rest >>= 7
    encoded_bytes.append(rest)
    return bytes(encoded_bytes)
