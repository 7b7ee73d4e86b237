"""Replaying a trace: instants of real requests, from a file, as due instants."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.errors import UsageError
from loadtrt.load.arrivals import MOST_REQUESTS, require_room
from loadtrt.load.instants import NoInstantError, Texts, read_instants
from loadtrt.load.trace_rows import Rows
from loadtrt.printing import shortened
from loadtrt.reading_files import open_file
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from loadtrt.load.instants import Instants, Kind

MINUTE_NS = 60 * SECOND_NS
_LONGEST_NS = 1 << 61  # so that sums of two fit into int64


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """Instants of real requests.

    instants: ns since the first instant, int64 [n], ascending, n ≥ 2.
    duration_ns: duration with a mean gap after the last instant, so that n / duration is the mean rate
        (n − 1) / (t_n − t_1), also of a loop.
    """

    instants: npt.NDArray[np.int64]
    duration_ns: int

    @property
    def mean_per_s(self) -> float:
        """Mean rate, requests a second."""
        return len(self.instants) * SECOND_NS / self.duration_ns

    @property
    def peak_ratio(self) -> float:
        """The rate in the busiest minute over the mean rate; 1 for a trace of less than two minutes."""
        _, most = self.busiest(MINUTE_NS)
        return max(most * SECOND_NS / MINUTE_NS / self.mean_per_s, 1.0) if self.duration_ns >= 2 * MINUTE_NS else 1.0

    def busiest(self, span_ns: int) -> tuple[int, int]:
        """(place of the first request, number of requests) of the span with the most requests."""
        counts = np.searchsorted(self.instants, self.instants + span_ns) - np.arange(len(self.instants))
        first = int(np.argmax(counts))
        return first, int(counts[first])

    def requests(self, until_ns: int) -> int:
        """Number of requests before `until_ns`."""
        return int(np.searchsorted(self.instants, until_ns))

    def due(self, least_ns: int, least_requests: int, *, loop: bool) -> npt.NDArray[np.int64]:
        """Due instants in ns from the start, int64, ascending: those before `least_ns`.

        loop: t_k = ⌊k / n⌋ · duration + instants[k mod n], at least `least_requests` of them.
        Raises UsageError where they would not fit in memory.
        """
        if not loop:
            return self.instants[: self.requests(least_ns)].copy()
        n = len(self.instants)
        require_room(max(least_ns / self.duration_ns * n, least_requests))
        rounds = max(-(-least_ns // self.duration_ns), -(-least_requests // n), 1)
        due = (np.arange(rounds)[:, None] * self.duration_ns + self.instants).ravel()
        return due[: max(int(np.searchsorted(due, least_ns)), least_requests)]


_UNITS = {"s": SECOND_NS, "ms": 1_000_000, "µs": 1000, "ns": 1}  # in ns
UNIT_SCALES = {1e-3: "ms", 1e-6: "µs", 1e-9: "ns"}  # of --time-scale, that say the unit of numbers and scale nothing
# From these numbers on instants are no seconds since 1970 (they would be after the year 5138), but of a smaller unit.
_LEAST_SINCE_1970 = {"ns": 10**17, "µs": 10**14, "ms": 10**11}
# How the names of columns say their unit: `timestamp_ms`, `Time (us)`, `startTimeMillis`.
_NAMED_UNITS = {
    "ms": r"(?:[_ (.[-](?:ms|msec|millis|milliseconds)|[a-z](?:Ms|MS|Msec|Millis|Milliseconds))[)\]]?$",
    "µs": r"(?:[_ (.[-](?:us|µs|usec|micros|microseconds)|[a-z](?:Us|US|Usec|Micros|Microseconds))[)\]]?$",
    "ns": r"(?:[_ (.[-](?:ns|nsec|nanos|nanoseconds)|[a-z](?:Ns|NS|Nsec|Nanos|Nanoseconds))[)\]]?$",
}


@dataclass(frozen=True, slots=True, eq=False)
class _Recorded:
    """The instants of a file.

    ticks: since the first, int64 [n], ascending.
    order: places of the file's rows in that order; None where it is theirs.
    digits: of the decimal places that a tick is in its unit.
    unit: of the numbers, or of the dates' seconds.
    why: how the unit is known; "" where nothing says it, and instants are in seconds.
    numbers: whether they are; dates and times of day have a unit of their own.
    remarks: what else was decided here, in words.
    """

    ticks: npt.NDArray[np.int64]
    digits: int
    unit: str
    why: str
    numbers: bool
    remarks: tuple[str, ...]
    order: npt.NDArray[np.intp] | None = None


def read_trace(file: str, column: str | None = None, scale: float = 1.0) -> Trace:
    """The trace in a file: exact to the ns, in any order.

    Instants are numbers (seconds; ms, µs or ns since 1970 by their size, or by their column's name), dates (of UTC,
    where no zone is written), or times of day. CSV (comma, semicolon, tab, or blanks): with a header where the first
    cell is not an instant, else the first column. Logs: the date that begins a line, or that brackets hold. JSONL,
    which begins with {: one object a line. JSON: a list of objects or of instants. Any of them packed by gzip; lines
    that begin with # are left out.

    column: name of the column or key; needed where there are several without a known name.
    scale: times are multiplied by it; exactly 1e-3, 1e-6 or 1e-9 says instead that numbers are ms, µs or ns.

    Raises UsageError for a file that cannot be read, a line without an instant, and fewer than two different instants.
    """
    recorded = _recorded_in(file, column)
    unit, scale = _unit_and_factor(recorded, scale)
    unit_ns = _UNITS[unit]
    span = float(recorded.ticks[-1]) * unit_ns / 10.0**recorded.digits * scale
    if span > _LONGEST_NS:
        if scale != 1:
            raise UsageError(f"trace {file} × {scale:g} takes longer than 73 years: use a smaller --time-scale")
        raise UsageError(
            f"trace {file} takes longer than 73 years in {unit}: add --time-scale 0.001 where it is in ms, "
            "1e-6 in µs, or 1e-9 in ns"
        )
    return _trace(file, _in_ns(recorded.ticks, unit_ns, 10**recorded.digits, scale))


def read_trace_at(rate: float, file: str, column: str | None = None) -> Trace:
    """The trace in `file`, all its gaps scaled by one factor so that its mean rate is `rate` per second, whatever its
    unit is. Raises UsageError as `read_trace` does."""
    ticks = _recorded_in(file, column).ticks
    span = (len(ticks) - 1) * SECOND_NS / rate
    if span > _LONGEST_NS:
        raise UsageError(f"trace {file} takes longer than 73 years at {rate:g}/s: use a higher rate")
    return _trace(file, np.rint(np.multiply(ticks, span / max(int(ticks[-1]), 1))).astype(np.int64))


def _trace(file: str, instants: npt.NDArray[np.int64]) -> Trace:
    last = int(instants[-1])
    if not last:
        raise UsageError(f"trace {file} needs two instants that differ: use --arrivals offline for all at once")
    return Trace(instants, last - -last // (len(instants) - 1))


def trace_remarks(file: str, column: str | None = None, scale: float = 1.0) -> tuple[str, ...]:
    """What was decided in reading a trace, as its file does not say it, in words: column, unit, factor, zone."""
    recorded = _recorded_in(file, column)
    unit, factor = _unit_and_factor(recorded, scale)
    remarks = list(recorded.remarks)
    they = "they" if remarks else "instants"
    if recorded.numbers and factor != scale:
        remarks.append(f"{they} are in {unit}, as --time-scale {scale:g} says")
    elif recorded.why:
        remarks.append(f"{they} are in {unit}, {recorded.why} (--time-scale overrides this)")
    elif recorded.numbers and (remarks or factor != 1):
        remarks.append(f"{they} are in seconds")
    if factor != 1:
        remarks.append(f"--time-scale multiplies all times by {factor:g}")
    return tuple(remarks)


def trace_keys(file: str, key: str, column: str | None = None) -> npt.NDArray[np.uint64]:
    """Numbers that stand for what the column or key `key` holds, uint64 [n], in the order of the trace's instants: the
    same for the same text, in every process. column: of the instants. Raises UsageError."""
    order, numbers = _recorded_in(file, column).order, []
    known: dict[str, int] = {}
    try:
        for batch in Rows(file, key).batches():
            for index in range(len(batch.texts.starts)):
                text = batch.texts.text(index)
                if text not in known:
                    known[text] = int.from_bytes(blake2b(text.encode(), digest_size=8).digest())
                numbers.append(known[text])
    except UsageError as error:
        raise UsageError(
            str(error).replace("remove --trace-column", f"it has no {shortened(key)}, which sticky routing needs")
        ) from None
    keys = np.array(numbers, np.uint64)
    return keys if order is None else keys[order]


def _unit_and_factor(recorded: _Recorded, scale: float) -> tuple[str, float]:
    """(unit, factor on times in it) that a --time-scale means: the scales of units say the unit of numbers, in place of
    what their size or name says, and all others are factors."""
    if recorded.numbers and scale in UNIT_SCALES:
        return UNIT_SCALES[scale], 1.0
    return recorded.unit, scale


def _in_ns(ticks: npt.NDArray[np.int64], unit_ns: int, per_unit: int, scale: float) -> npt.NDArray[np.int64]:
    if abs(scale - 1) > 1e-12:
        return np.rint(np.multiply(ticks, unit_ns / per_unit * scale)).astype(np.int64)
    if unit_ns == per_unit:
        return ticks
    if unit_ns > per_unit:
        return ticks * (unit_ns // per_unit)
    per_ns = per_unit // unit_ns
    rounded: npt.NDArray[np.int64] = (ticks + per_ns // 2) // per_ns
    return rounded


def _recorded_in(file: str, column: str | None) -> _Recorded:
    with open_file(file, "trace", takes=("gzip",)) as opened:  # no pipe, as it is read twice
        status = os.fstat(opened.fileno())
    return _instants(file, column, status.st_mtime_ns, status.st_size)


@lru_cache(1)  # the check of a configuration and the run both read the trace
def _instants(file: str, column: str | None, mtime_ns: int, size: int) -> _Recorded:  # noqa: ARG001  # keys
    rows, kind, count = Rows(file, column), None, 0
    wholes, fractions = [], []
    for batch in rows.batches():
        found = _read(batch.texts, kind, batch.place_of)
        kind, whole, billionths = found
        if batch.before is not None:
            earlier = _read(batch.before, "number", batch.place_of)
            borrowed = billionths < earlier.billionths
            billionths = billionths - earlier.billionths + borrowed * np.int32(SECOND_NS)
            whole = whole - earlier.whole - borrowed
        wholes.append(whole)
        fractions.append(billionths)
        count += len(whole)
        if count > MOST_REQUESTS:
            require_room(count)
    if not count:
        raise UsageError(f"trace {file} has no instants: write one a line, in seconds")
    whole, billionths = np.concatenate(wholes), np.concatenate(fractions)
    if kind == "time of day" and (np.diff(whole) < -43_200).any():
        raise UsageError(f"trace {file} has times of day that pass midnight: write dates before them")
    if float(whole.max()) - float(whole.min()) > _LONGEST_NS:
        raise UsageError(f"trace {file} takes longer than 73 years: write instants in seconds")
    unit, why = _unit(rows, kind, int(whole.min()))
    ticks, digits = _ticks(whole, billionths)
    order = np.argsort(ticks, kind="stable") if (np.diff(ticks) < 0).any() else None
    ticks = ticks if order is None else ticks[order]
    ticks.flags.writeable = False  # the cache hands out the same array again
    remarks = []
    if rows.several:
        remarks.append(f"instants are in {shortened(rows.chosen)}")
    if rows.several and rows.chosen == "end_timestamp":
        remarks[-1] += ", less the duration"
    if rows.commas:
        remarks.append("digits after a comma are fractions of a second")
    if kind == "date":
        remarks.append("dates have no zone, and are taken as UTC")
    return _Recorded(ticks, digits, unit, why, kind == "number", tuple(remarks), order)


def _read(texts: Texts, kind: Kind | None, place_of: Callable[[int], str]) -> Instants:
    try:
        return read_instants(texts, kind)
    except NoInstantError as fault:
        where, text = place_of(fault.index), shortened(" ".join(texts.text(fault.index).split()))
        if fault.what == "centuries":
            raise UsageError(f"{where}: {text} s is centuries away: write seconds, such as 1.25") from None
        what = fault.what or "is not an instant: write seconds, such as 1.25, or a date, such as 2023-11-16 18:17:03.98"
        raise UsageError(f"{where}: '{text}' {what}") from None


def _unit(rows: Rows, kind: Kind | None, first: int) -> tuple[str, str]:
    """(unit, how it is known): "" where it is what instants have, seconds."""
    if kind != "number":
        return "s", ""
    for unit, least in _LEAST_SINCE_1970.items():
        if first >= least:
            return unit, "since 1970 by their size"
    if rows.in_ms:
        return "ms", "as in Mooncake's traces"
    for unit, named in _NAMED_UNITS.items():
        if re.search(named, rows.chosen):
            return unit, "by the name of their column"
    return "s", ""


def _ticks(whole: npt.NDArray[np.int64], billionths: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.int64], int]:
    """(ticks since the first instant, decimal places of a tick): nine, or as many as int64 holds."""
    whole = whole - whole.min()
    span = float(whole.max()) + 1
    digits = next((fewer for fewer in range(9, 0, -1) if span * 10**fewer < 2**62), 0)
    ticks = whole * 10**digits + billionths // 10 ** (9 - digits)
    return ticks - ticks.min(), digits
