"""Replaying a trace: instants of real requests, from a CSV or JSONL file, as due instants."""

from __future__ import annotations

import csv
import json
import os
import re
from array import array
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from io import TextIOWrapper
from itertools import chain
from typing import TYPE_CHECKING, TextIO

import numpy as np

from loadtrt.errors import UsageError
from loadtrt.load.arrivals import MOST_REQUESTS, require_room
from loadtrt.printing import shortened
from loadtrt.reading_files import open_file
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy.typing as npt

MINUTE_NS = 60 * SECOND_NS
_LONGEST_LINE = 1 << 26  # characters: a request may be logged with its prompt
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


def read_trace(file: str, column: str | None = None, scale: float = 1.0) -> Trace:
    """The trace in `file`, its times multiplied by `scale`: instants in seconds, to the ns, in any order.

    CSV (comma, semicolon or tab): with a header where the first cell is not a number, else the first column. JSONL,
    which begins with {: one object a line. column: name of the column or key, needed where there are several. Raises
    UsageError for a file that cannot be read, a line without an instant, and fewer than two different instants.
    """
    with open_file(file, "trace") as opened:  # no pipe, as it is read twice
        status = os.fstat(opened.fileno())
    return _scaled(file, _instants(file, column, status.st_mtime_ns, status.st_size), scale)


def _scaled(file: str, instants: npt.NDArray[np.int64], scale: float) -> Trace:
    if scale != 1:
        if float(instants[-1]) * scale > _LONGEST_NS:
            raise UsageError(f"trace {file} × {scale:g} takes longer than 73 years: use a smaller --time-scale")
        instants = np.rint(instants * scale).astype(np.int64)
    span = int(instants[-1])
    if not span:
        raise UsageError(f"trace {file} needs two instants that differ: use --arrivals offline for all at once")
    return Trace(instants, span - -span // (len(instants) - 1))


@lru_cache(1)  # the check of a configuration and the run both read the trace
def _instants(file: str, column: str | None, mtime_ns: int, size: int) -> npt.NDArray[np.int64]:  # noqa: ARG001  # keys
    times = array("q")
    try:
        with TextIOWrapper(open_file(file, "trace"), encoding="utf-8-sig", newline="") as opened:
            for line, text in _cells(file, _lines(file, opened), column):
                try:
                    times.append(_ns(text))
                except OverflowError:
                    raise UsageError(
                        f"{file}:{line}: {shortened(text)} s is centuries away: write seconds, such as 1.25"
                    ) from None
                except (InvalidOperation, ValueError):
                    raise UsageError(
                        f"{file}:{line}: '{shortened(text)}' is not an instant: write seconds, such as 1.25"
                    ) from None
                if len(times) > MOST_REQUESTS:
                    require_room(len(times))
    except OSError as error:
        raise UsageError(f"cannot read trace {file}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"trace {file} is neither CSV nor JSONL: {error}") from None
    if not times:
        raise UsageError(f"trace {file} has no instants: write one a line, in seconds")
    instants = np.array(times, np.int64)
    instants.sort()
    if int(instants[-1]) - int(instants[0]) > _LONGEST_NS:
        raise UsageError(f"trace {file} takes longer than 73 years: write instants in seconds")
    instants -= instants[0]
    instants.flags.writeable = False  # the cache hands out the same array again
    return instants


def _ns(text: str) -> int:
    """Exact ns: floats of seconds since 1970 are 120 ns apart."""
    whole, _, fraction = text.partition(".")
    if whole.isdecimal() and len(whole) <= 18 and len(fraction) <= 9 and (not fraction or fraction.isdecimal()):
        return int(whole) * SECOND_NS + int(fraction.ljust(9, "0"))  # four times as fast as Decimal
    exact = Decimal(text.strip())
    if not exact.is_finite():
        raise ValueError(text)
    if exact.adjusted() > 18:  # its ns have more digits than Decimal keeps and int64 holds
        raise OverflowError
    return int((exact * SECOND_NS).to_integral_value())


def _lines(file: str, opened: TextIO) -> Iterator[str]:
    """The lines of a file, none of them so long that it fills the memory."""
    number = 0
    while line := opened.readline(_LONGEST_LINE + 1):
        number += 1
        if len(line) > _LONGEST_LINE:
            raise UsageError(
                f"{file}:{number} has more than {_LONGEST_LINE} characters, the most of a line: write one request a "
                "line, with little more than its instant"
            )
        yield line


def _cells(file: str, lines: Iterator[str], column: str | None) -> Iterator[tuple[int, str]]:
    """(line number, text) of each instant."""
    skipped = 0
    for first in lines:
        if first.strip():
            break
        skipped += 1
    else:
        return
    rest = chain([first], lines)
    if first.lstrip().startswith(("{", "[")):
        yield from _of_json(file, rest, column, skipped)
    else:
        yield from _of_csv(file, first, rest, column, skipped)


def _of_csv(file: str, first: str, lines: Iterable[str], column: str | None, skipped: int) -> Iterator[tuple[int, str]]:
    csv.field_size_limit(_LONGEST_LINE)
    unquoted = re.sub(r'"[^"]*"', "", first)
    rows = csv.reader(lines, delimiter=max(",;\t", key=unquoted.count))
    header = next(rows)
    index = 0
    if _is_number(header[0]):
        if column is not None:
            raise UsageError(f"trace {file} has no header, and so no column '{column}': remove --trace-column")
        yield skipped + rows.line_num, header[0]
    else:
        names = [name.strip() for name in header]
        index = names.index(_chosen(file, names, column))
    for row in rows:
        if row:
            yield skipped + rows.line_num, row[index] if index < len(row) else ""


def _of_json(file: str, lines: Iterable[str], column: str | None, skipped: int) -> Iterator[tuple[int, str]]:
    name = None
    for number, line in enumerate(lines, skipped + 1):
        if not line.strip():
            continue
        try:
            item = json.loads(line, parse_float=str, parse_int=str)  # keeps the digits, as floats are inexact
        except (ValueError, RecursionError):
            raise UsageError(f"{file}:{number} is not JSON: write one object a line") from None
        if not isinstance(item, dict):
            raise UsageError(f'{file}:{number} is not a JSON object: write one a line, such as {{"time": 1.25}}')
        if name is None:
            name = _chosen(file, list(item), column)
        if name not in item:
            raise UsageError(f"{file}:{number} has no '{shortened(name)}': write it on every line")
        yield number, item[name] if isinstance(item[name], str) else json.dumps(item[name])


def _chosen(file: str, names: list[str], column: str | None) -> str:
    listed = shortened(", ".join(names), 400)
    if column is None:
        if len(names) != 1:
            raise UsageError(f"trace {file} has the columns {listed}: choose one with --trace-column")
        return names[0]
    if column not in names:
        raise UsageError(f"trace {file} has no column '{shortened(column)}': use one of {listed}")
    return column


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
