"""Instants as text: numbers, dates and times of day, exact to the ns, a whole block at once.

Texts of one layout (the same marks at the same places, digits elsewhere) are read by columns of digits, with numpy.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    import numpy.typing as npt

    Kind = Literal["number", "date", "zoned date", "time of day"]

LONGEST = 64  # characters of an instant that is read by columns
_MOST_DIGITS = 18  # of a whole number: int64 holds them
_DAY_S = 86_400
_ZONE = r"(?P<zone>Z|z|UTC|GMT|(?P<sign>[+-])(?P<zh>\d\d)(?::?(?P<zm>\d\d))?(?: [A-Z]{3,4})?)"
_TIME = r"(?P<h>\d\d):(?P<m>\d\d)(?::(?P<s>\d\d)(?:[.,](?P<f>\d+))?)?"
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# ISO 8601 and its relatives in logs, with or without separators; and the common log format of web servers.
DATE_AND_TIME = rf"(?P<Y>\d{{4}})(?P<dash>[-/])(?P<M>\d\d)(?P=dash)(?P<D>\d\d)[T ]+{_TIME}(?:\s*{_ZONE})?"
_FORMS: list[tuple[Kind, re.Pattern[str]]] = [
    (kind, re.compile(rf"\s*{form}\s*"))
    for kind, form in (
        ("number", r"(?P<minus>-)?(?P<i>\d+)(?:\.(?P<f>\d*))?"),
        ("number", r"(?P<minus>-)?(?P<i>)\.(?P<f>\d+)"),
        ("date", rf"\[?{DATE_AND_TIME}\]?"),
        ("date", rf"(?P<Y>\d{{4}})(?P<M>\d\d)(?P<D>\d\d)T(?P<h>\d\d)(?P<m>\d\d)(?P<s>\d\d)(?:[.,](?P<f>\d+))?{_ZONE}?"),
        ("date", r"(?P<Y>\d{4})-(?P<M>\d\d)-(?P<D>\d\d)"),
        ("date", rf"\[?(?P<D>\d\d)/(?P<Mon>{'|'.join(_MONTHS)})/(?P<Y>\d{{4}}):{_TIME}(?: {_ZONE})?\]?"),
        ("time of day", r"(?P<h>\d{1,4}):(?P<m>\d\d):(?P<s>\d\d)(?:[.,](?P<f>\d+))?"),
    )
]


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts in one buffer.

    data: bytes, uint8.
    starts, ends: of each text, int64 [n].
    """

    data: npt.NDArray[np.uint8]
    starts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]

    @classmethod
    def of(cls, texts: list[str] | list[bytes]) -> Texts:
        pieces = [text if isinstance(text, bytes) else text.encode("utf-8", "backslashreplace") for text in texts]
        ends = np.cumsum(np.fromiter(map(len, pieces), np.int64, len(pieces)))
        return cls(np.frombuffer(b"".join(pieces), np.uint8), np.concatenate([[0], ends[:-1]]), ends)

    def text(self, index: int) -> str:
        return bytes(self.data[self.starts[index] : self.ends[index]]).decode("utf-8", "backslashreplace")


class Instants(NamedTuple):
    """Instants of one kind.

    kind: what they are written as; a zoned date counts in UTC.
    whole: int64 [n], in seconds, or in the file's own unit where they are numbers.
    billionths: int32 [n], what is beyond the whole, upwards.
    """

    kind: Kind | None
    whole: npt.NDArray[np.int64]
    billionths: npt.NDArray[np.int32]


class NoInstantError(ValueError):
    """A text that is not an instant, or is of another kind than those before, or too large.

    index: of the text.
    what: what is wrong with it, in the words that follow it.
    """

    def __init__(self, index: int, what: str) -> None:
        super().__init__(what)
        self.index, self.what = index, what


def read_instants(texts: Texts, kind: Kind | None = None) -> Instants:
    """The instants that `texts` write.

    kind: of those before; None for the first.

    Raises NoInstantError for the first text that is not one of this kind.
    """
    lengths = texts.ends - texts.starts
    found = Instants(kind, np.zeros(len(lengths), np.int64), np.zeros(len(lengths), np.int32))
    padded = np.concatenate([texts.data, np.zeros(LONGEST, np.uint8)])
    faults = []
    if kind is None and len(lengths):
        found = found._replace(kind=_scalar(texts, 0, found, None))
    for length in np.flatnonzero(np.bincount(np.minimum(lengths, LONGEST + 1))):
        rows = np.flatnonzero(np.minimum(lengths, LONGEST + 1) == length)
        try:
            _read_rows(texts, padded, rows, int(length), found)
        except NoInstantError as fault:
            faults.append(fault)
    if faults:
        raise min(faults, key=lambda fault: fault.index)
    return found


def _read_rows(
    texts: Texts, padded: npt.NDArray[np.uint8], rows: npt.NDArray[np.int64], length: int, found: Instants
) -> None:
    """Read these rows, all of this length, into `found`, one layout after the other. Raises NoInstantError."""
    while len(rows):
        layout = None if length in (0, LONGEST + 1) else _layout(texts.text(int(rows[0])))
        if layout is None:  # an exponent, or no instant at all
            _scalar(texts, int(rows[0]), found, found.kind)
            rows = rows[1:]
            continue
        kind, spans, marks, base = layout
        _require_kind(kind, found.kind, int(rows[0]))
        columns = [padded[texts.starts[rows] + place] for place in range(length)]
        fits = np.ones(len(rows), bool)
        for place, column in enumerate(columns):
            fits &= (column == marks[place]) if place in marks else (column - 48 < 10)
        if not fits.all():
            columns = [column[fits] for column in columns]
        whole, billionths, wrong = _computed(columns, spans, base)
        if wrong.any():
            raise NoInstantError(int(rows[fits][np.argmax(wrong)]), "")
        found.whole[rows[fits]], found.billionths[rows[fits]] = whole, billionths
        rows = rows[~fits]


class _Base(NamedTuple):
    """What the marks of a layout say. negative: of numbers. days: of the date where its month is a word, -1 without;
    zone_s: seconds to add for UTC."""

    negative: bool
    month: int
    zone_s: int


_Layout = tuple["Kind", dict[str, tuple[int, int]], dict[int, int], _Base]


def _layout(text: str) -> _Layout | None:
    """(kind, places of the digits by part, characters of the marks by place, what the marks say) of a text; None where
    it has none, or has too many digits. Digits of the zone are marks, as few zones are in one file."""
    if not text.isascii():
        return None
    for kind, form in _FORMS:
        match = form.fullmatch(text)
        if match is None:
            continue
        parts = {name: match.span(name) for name, value in match.groupdict().items() if value}
        if parts.get("i", (0, 0))[1] - parts.get("i", (0, 0))[0] > _MOST_DIGITS:
            return None
        spans = {name: parts[name] for name in ("i", "f", "Y", "M", "D", "h", "m", "s") if name in parts}
        digits = {place for start, end in spans.values() for place in range(start, end)}
        marks = {place: ord(mark) for place, mark in enumerate(text) if place not in digits}
        groups = match.groupdict()
        zone_s = 0
        if groups.get("sign"):
            ahead = int(groups["zh"]) * 3600 + int(groups["zm"] or 0) * 60
            zone_s = ahead if groups["sign"] == "-" else -ahead
        month = _MONTHS.index(groups["Mon"]) + 1 if groups.get("Mon") else 0
        zoned: Kind = "zoned date" if groups.get("zone") else kind
        return zoned, spans, marks, _Base(bool(groups.get("minus")), month, zone_s)
    return None


def _computed(
    columns: list[npt.NDArray[np.uint8]], spans: dict[str, tuple[int, int]], base: _Base
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
    """(whole, billionths, whether a part is beyond its range) of rows of one layout."""
    count = len(columns[0])

    def part(name: str, default: int = 0) -> Any:
        if name not in spans:
            return np.full(count, default, np.int64)
        return _number(columns[slice(*spans[name])])

    start, end = spans.get("f", (0, 0))
    billionths = _number(columns[start : min(end, start + 9)]) * 10 ** max(9 - (end - start), 0)
    if end - start > 9:  # rounded to the ns
        billionths = billionths + (columns[start + 9] >= ord("5"))
    if "Y" not in spans and "h" not in spans:
        whole, wrong = part("i"), np.zeros(count, bool)
    else:
        hours, minutes, seconds = part("h"), part("m"), part("s")
        whole = hours * 3600 + minutes * 60 + seconds + base.zone_s
        wrong = (minutes > 59) | (seconds > 60)  # a leap second
        if "Y" in spans:
            month = np.full(count, base.month, np.int64) if base.month else part("M")
            days, no_day = _days(part("Y"), month, part("D"))
            whole, wrong = whole + days * _DAY_S, wrong | no_day | (hours > 24)
    if base.negative:
        whole, billionths = -whole, -billionths
    carry = billionths // SECOND_NS
    return whole + carry, (billionths - carry * SECOND_NS).astype(np.int32), wrong


def _number(columns: list[npt.NDArray[np.uint8]]) -> Any:
    """The numbers of these columns of digits; 0 without."""
    total: Any = np.int64(0)
    for column in columns:
        total = total * 10 + (column - 48).astype(np.int64)
    return total


def _days(year: Any, month: Any, day: Any) -> tuple[Any, Any]:
    """(days since 1970, whether there is no such day)."""
    lengths = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    valid_month = np.where((month >= 1) & (month <= 12), month, 0)
    wrong = (year < 1) | (day < 1) | (day > lengths[valid_month] + (leap & (month == 2)))
    # Days from 0000-03-01, so that the day that leap years add is a year's last.
    years = year - (month <= 2)
    since_march = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    days = 365 * years + years // 4 - years // 100 + years // 400 + since_march
    return days - (date(1970, 1, 1).toordinal() + 305), wrong


def _scalar(texts: Texts, index: int, found: Instants, kind: Kind | None) -> Kind:
    """Read one text into `found`, as Decimal reads it or by its layout; returns its kind."""
    text = texts.text(index)
    layout = _layout(text) if len(text) <= LONGEST else None
    if layout is not None:
        _require_kind(layout[0], kind, index)
        return layout[0]
    try:
        exact = Decimal(text.strip())
        if not exact.is_finite():
            raise NoInstantError(index, "")
    except (InvalidOperation, ValueError):
        raise NoInstantError(index, "") from None
    _require_kind("number", kind, index)
    if exact.adjusted() >= _MOST_DIGITS:
        raise NoInstantError(index, "centuries")
    whole, billionths = divmod(int((exact * SECOND_NS).to_integral_value()), SECOND_NS)
    found.whole[index], found.billionths[index] = whole, billionths
    return "number"


def _require_kind(kind: Kind, before: Kind | None, index: int) -> None:
    if before is not None and kind != before:
        raise NoInstantError(
            index, f"is a {kind}, where those before are {before}s".replace("time of days", "times of day")
        )
