"""Instants as text: numbers, dates and times of day, exact to the ns, a whole block at once.

Texts of one layout (the same marks at the same places, digits elsewhere) are read by columns of digits, with numpy.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Kind = Literal["number", "date", "zoned date", "time of day"]

LONGEST = 64  # characters of an instant that is read by columns
_MOST_DIGITS = 19  # of a whole number: those of ns since 1970; beyond int64 they become negative
_MOST = 9.2e18
_DAY_S = 86_400
_ZONE = r"(?P<zone>Z|z|UTC|GMT|(?P<sign>[+-])(?P<zh>\d\d)(?::?(?P<zm>\d\d))?(?: [A-Z]{3,4})?)"
_TIME = r"(?P<h>\d\d):(?P<m>\d\d)(?::(?P<s>\d\d)(?:[.,](?P<f>\d+))?)?"
_DIGITS = frozenset("ifYMDhms")  # parts of an instant
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# ISO 8601 and its relatives in logs, with or without separators; and the common log format of web servers.
DATE_AND_TIME = rf"(?P<Y>\d{{4}})(?P<dash>[-/])(?P<M>\d\d)(?P=dash)(?P<D>\d\d)[T ]+{_TIME}(?:\s*{_ZONE})?"
_FORMS: tuple[tuple[Kind, str], ...] = (
    ("number", r"(?P<minus>-)?(?P<i>\d+)(?:\.(?P<f>\d*))?(?:[eE](?P<exponent>[+-]?\d{1,2}))?"),
    ("number", r"(?P<minus>-)?(?P<i>)\.(?P<f>\d+)"),
    ("date", rf"\[?{DATE_AND_TIME}\]?"),
    ("date", rf"(?P<Y>\d{{4}})(?P<M>\d\d)(?P<D>\d\d)T(?P<h>\d\d)(?P<m>\d\d)(?P<s>\d\d)(?:[.,](?P<f>\d+))?{_ZONE}?"),
    ("date", r"(?P<Y>\d{4})-(?P<M>\d\d)-(?P<D>\d\d)"),
    ("date", rf"\[?(?P<D>\d\d)/(?P<Mon>{'|'.join(_MONTHS)})/(?P<Y>\d{{4}}):{_TIME}(?: {_ZONE})?\]?"),
    ("time of day", r"(?P<h>\d{1,4}):(?P<m>\d\d):(?P<s>\d\d)(?:[.,](?P<f>\d+))?"),
)
_PATTERNS = [(kind, re.compile(rf"\s*{form}\s*")) for kind, form in _FORMS]


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
        if layout is None:  # more digits than these, or no instant at all
            _scalar(texts, int(rows[0]), found, found.kind)
            rows = rows[1:]
            continue
        _require_kind(layout.kind, found.kind, int(rows[0]))
        columns = [padded[texts.starts[rows] + place] for place in range(length)]
        fits = np.ones(len(rows), bool)
        for place, column in enumerate(columns):
            mark = layout.marks.get(place)
            fits &= (column - 48 < 10) if mark is None else (column == mark)
        if not fits.all():
            columns = [column[fits] for column in columns]
        whole, billionths, wrong = _computed(columns, layout)
        if wrong.any():
            what = "centuries" if layout.kind == "number" else ""
            raise NoInstantError(int(rows[fits][np.argmax(wrong)]), what)
        found.whole[rows[fits]], found.billionths[rows[fits]] = whole, billionths
        rows = rows[~fits]


class _Layout(NamedTuple):
    """How a text is written.

    kind: what it writes.
    parts: places of the digits of each part; None in the place of a zero that is not written.
    marks: the other characters by place. Digits of zones and exponents are marks, as a file has few of these.
    negative: of numbers.
    month: where it is a word; 0 without.
    zone_s: seconds to add for UTC.
    """

    kind: Kind
    parts: dict[str, list[int | None]]
    marks: dict[int, int]
    negative: bool
    month: int
    zone_s: int


def _layout(text: str) -> _Layout | None:
    """The layout of a text; None where it has none that is known, or too many digits."""
    match = next(filter(None, (form.fullmatch(text) for _, form in _PATTERNS)), None) if text.isascii() else None
    if match is None:
        return None
    kind = next(kind for kind, form in _PATTERNS if form is match.re)
    groups = match.groupdict()
    parts: dict[str, list[int | None]] = {
        name: list(range(*match.span(name))) for name, value in groups.items() if name in _DIGITS and value
    }
    digits = {place for places in parts.values() for place in places}
    marks = {place: ord(mark) for place, mark in enumerate(text) if place not in digits}
    if groups.get("exponent"):
        _move_point(parts, int(groups["exponent"]))
    if len(parts.get("i", ())) > _MOST_DIGITS:
        return None
    zone_s = 0
    if groups.get("sign"):
        ahead = int(groups["zh"]) * 3600 + int(groups["zm"] or 0) * 60
        zone_s = ahead if groups["sign"] == "-" else -ahead
    month = _MONTHS.index(groups["Mon"]) + 1 if groups.get("Mon") else 0
    zoned: Kind = "zoned date" if groups.get("zone") else kind
    return _Layout(zoned, parts, marks, bool(groups.get("minus")), month, zone_s)


def _move_point(parts: dict[str, list[int | None]], exponent: int) -> None:
    whole, fraction = parts.get("i", []), parts.get("f", [])
    point, digits = len(whole) + exponent, [*whole, *fraction]
    digits = [*[None] * -point, *digits, *[None] * (point - len(digits))]
    parts["i"], parts["f"] = digits[: max(point, 0)], digits[max(point, 0) :]


def _computed(
    columns: list[npt.NDArray[np.uint8]], layout: _Layout
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
    """(whole, billionths, whether a part is beyond its range) of rows of one layout."""
    count = len(columns[0])
    zeros = np.full(count, ord("0"), np.uint8)

    def part(places: Sequence[int | None]) -> Any:
        return _number([zeros if place is None else columns[place] for place in places], count)

    parts = defaultdict(list, layout.parts)
    fraction = parts["f"][:10]
    billionths = part(fraction[:9]) * 10 ** max(9 - len(fraction), 0)
    if len(fraction) > 9:  # rounded to the ns
        billionths = billionths + (part(fraction[9:]) > 4)
    if layout.kind == "number":
        whole = part(parts["i"])
        wrong = whole < 0
    else:
        hours, minutes, seconds = part(parts["h"]), part(parts["m"]), part(parts["s"])
        whole = hours * 3600 + minutes * 60 + seconds + layout.zone_s
        wrong = (minutes > 59) | (seconds > 60)  # a leap second
        if "Y" in layout.parts:
            month = np.full(count, layout.month, np.int64) if layout.month else part(parts["M"])
            days, no_day = _days(part(parts["Y"]), month, part(parts["D"]))
            whole, wrong = whole + days * _DAY_S, wrong | no_day | (hours > 24)
    if layout.negative:
        whole, billionths = -whole, -billionths
    carry = billionths // SECOND_NS
    return whole + carry, (billionths - carry * SECOND_NS).astype(np.int32), wrong


def _number(columns: list[npt.NDArray[np.uint8]], count: int) -> npt.NDArray[np.int64]:
    """The numbers of these columns of digits; 0 without."""
    total = np.zeros(count, np.int64)
    for column in columns:
        total *= 10
        total += column - 48
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
        _require_kind(layout.kind, kind, index)
        return layout.kind
    try:
        exact = Decimal(text.strip())
        if not exact.is_finite():
            raise NoInstantError(index, "")
    except (InvalidOperation, ValueError):
        raise NoInstantError(index, "") from None
    _require_kind("number", kind, index)
    if not -_MOST < exact < _MOST:
        raise NoInstantError(index, "centuries")
    whole, billionths = divmod(int((exact * SECOND_NS).to_integral_value()), SECOND_NS)
    found.whole[index], found.billionths[index] = whole, billionths
    return "number"


def _require_kind(kind: Kind, before: Kind | None, index: int) -> None:
    if before is not None and kind != before:
        raise NoInstantError(
            index, f"is a {kind}, where those before are {before}s".replace("time of days", "times of day")
        )
