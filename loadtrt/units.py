"""Durations, rates and sizes, parsed from and formatted as text.

Inside the program time is int nanoseconds and memory is int bytes; only these functions convert.
"""

from __future__ import annotations

import math
import re

from loadtrt.errors import UsageError
from loadtrt.printing import shortened

_LOCALHOST = "127.0.0.1"
_ADDRESS = re.compile(r"(?:(?P<host>[\w.-]*|\[[0-9A-Fa-f:.]+(?:%\w+)?\]):)?(?P<port>\d{1,5})")
SECOND_NS = 1_000_000_000
MILLISECOND_NS = 1_000_000
NEVER = 1 << 62  # ns: an instant after the end of every run
LONGEST_NS = 10 * 8766 * 3600 * SECOND_NS  # ten years: sums of a dozen fit into int64
_LEAST_RATE, _MOST_RATE = 1e-9, 1e12  # per second
_MOST_BYTES = (1 << 63) - 1
_DURATION_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": MILLISECOND_NS,
    "s": SECOND_NS,
    "m": 60 * SECOND_NS,
    "h": 3600 * SECOND_NS,
}
_RATE_S = {"s": 1, "m": 60, "h": 3600}
_NUMBER = r"(\d+(?:\.\d*)?|\.\d+)"


def parse_duration(text: str | float) -> int:
    """Nanoseconds of "10s", "250ms", "1.5m", "20us", "1h"; a bare number is seconds.

    Raises UsageError when the text is not a duration, or is longer than ten years.
    """
    match = re.fullmatch(rf"\s*{_NUMBER}\s*(ns|us|µs|ms|s|m|h)?\s*", str(text))
    if not match:
        raise UsageError(
            f"'{shortened(str(text))}' is not a duration: write a number with ns, us, ms, s, m or h, such as 10s or "
            "250ms"
        )
    ns = float(match[1]) * _DURATION_NS[match[2] or "s"]
    if ns > LONGEST_NS:
        raise UsageError(f"'{shortened(str(text))}' is longer than 10 years: write a shorter time")
    return round(ns)


def parse_rate(text: str | float) -> float:
    """Events per second of "500/s", "2k/s", "90/m", "1200/h"; a bare number is per second.

    Raises UsageError when the text is not a rate, or is below 1e-9 or above 1e12 per second.
    """
    match = re.fullmatch(rf"\s*{_NUMBER}\s*(k|M)?\s*(?:/\s*(s|m|h))?\s*", str(text))
    value = float(match[1]) * {"k": 1e3, "M": 1e6, None: 1.0}[match[2]] / _RATE_S[match[3] or "s"] if match else 0.0
    value = text if isinstance(text, float) else value  # Python writes 0.00001 as 1e-05
    if not 0 < value < math.inf:
        raise UsageError(
            f"'{shortened(str(text))}' is not a rate: write requests per second above zero, such as 500/s, 2k/s or 90/m"
        )
    if not _LEAST_RATE <= value <= _MOST_RATE:
        raise UsageError(f"'{shortened(str(text))}' is not between {_LEAST_RATE:g}/s and {_MOST_RATE:g}/s")
    return value


def parse_share(text: str | float) -> float:
    """0.03 of "3%"; a bare number, such as 1e-3, is the share itself. Raises UsageError for a text that is no share."""
    match = re.fullmatch(r"\s*((?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,2})?)\s*(%?)\s*", str(text))
    if not match:
        raise UsageError(f"'{shortened(str(text))}' is not a share: write one such as 3% or 0.03")
    return float(match[1]) / (100 if match[2] else 1)


def parse_address(text: str) -> tuple[str, int]:
    """(host, port) of ":18410", "18410", "0.0.0.0:18410", "[::1]:18410", "name:0". The default host is 127.0.0.1; port
    0 chooses a free port. Raises UsageError."""
    match = _ADDRESS.fullmatch(text.strip())
    if not match or int(match["port"]) > 65535:
        raise UsageError(
            f"'{shortened(text)}' is not an address to serve metrics at: write :PORT or HOST:PORT with a port up to "
            "65535, such as :18410, 0.0.0.0:18410 or [::1]:18410"
        )
    return (match["host"] or "").strip("[]") or _LOCALHOST, int(match["port"])


def parse_bytes(text: str) -> int:
    """Bytes of "1GiB", "512MiB", "64K"; K, M and G count in powers of 1024, as trtexec's do.

    Raises UsageError when the text is not a size, is zero, or is 2^63 bytes or more.
    """
    match = re.fullmatch(rf"\s*{_NUMBER}\s*(?:([KMGT])(?:iB|B)?|B)\s*", text)
    size = float(match[1]) * 1024 ** " KMGT".index(match[2] or " ") if match else 0
    if size < 1:
        raise UsageError(
            f"'{shortened(text)}' is not a size: write a number with B, KiB, MiB, GiB or TiB, such as 1GiB"
        )
    if size > _MOST_BYTES:
        raise UsageError(f"'{shortened(text)}' is 2^63 bytes or more: write a smaller size")
    return int(size)


def exact_duration(ns: int) -> str:
    """The shortest text that `parse_duration` reads back as exactly `ns`: "10s", "250ms"."""
    for unit in ("h", "m", "s", "ms", "us"):
        if ns and ns % _DURATION_NS[unit] == 0:
            return f"{ns // _DURATION_NS[unit]}{unit}"
    return f"{ns}ns"


def format_duration(ns: float) -> str:
    """Three significant digits in the unit that fits: "7.21 ms", "312 µs", "1.50 s"."""
    magnitude = abs(ns)
    for unit, size in (("s", SECOND_NS), ("ms", MILLISECOND_NS), ("µs", 1_000)):
        if magnitude >= size * 0.9995:
            return f"{_three_digits(ns / size)} {unit}"
    return f"{ns:.0f} ns"


def format_bytes(count: float) -> str:
    """Binary units: "26.4 MiB"."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{_three_digits(value)} {unit}"
        value /= 1024
    return f"{_three_digits(value)} TiB"


def format_count(value: float) -> str:
    """A count or rate with thousands apart: "1 234", "98.7", "0.52"; an int has no decimals."""
    if isinstance(value, int):
        return f"{value:,}".replace(",", " ")
    return f"{value:,.0f}".replace(",", " ") if abs(value) >= 1000 else _three_digits(value)


def format_percent(share: float) -> str:
    """A share in whole percent: "42 %"."""
    return f"{100 * share:.0f} %"


def rough_percent(share: float) -> str:
    """A share in two digits: "1.6 %", "98 %", "100 %", "230 %"."""
    percent = 100 * share
    return f"{percent:.2g} %" if percent < 99.5 else f"{format_count(round(percent))} %"


def rounded_up(value: float) -> float:
    """The value, or a little more, in two significant digits: what is needed must not be told as less."""
    if not value:
        return 0.0
    digits = 1 - math.floor(math.log10(value))
    shifted = math.ceil(round(value * 10.0**digits, 6))
    return shifted / 10**digits if digits > 0 else float(shifted * 10**-digits)


def plural(count: int, noun: str) -> str:
    """ "1 request", "1 234 requests", "2 processes"."""
    return f"{format_count(count)} {noun if count == 1 else plural_of(noun)}"


def plural_of(noun: str) -> str:
    """A regular noun in the plural: "requests", "processes", "copies"."""
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return f"{noun}es"
    return f"{noun[:-1]}ies" if re.search("[^aeiou]y$", noun) else f"{noun}s"


def _three_digits(value: float) -> str:
    magnitude = abs(value)
    return f"{value:.0f}" if magnitude >= 99.95 else f"{value:.1f}" if magnitude >= 9.995 else f"{value:.2f}"
