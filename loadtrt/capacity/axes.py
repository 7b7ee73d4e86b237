"""What people write for several values of one option: "1,2,4", "1..8", "on,off", "100/s..1000/s:5"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loadtrt.errors import UsageError
from loadtrt.units import parse_rate

if TYPE_CHECKING:
    from collections.abc import Callable

# The options that a sweep may vary, the slowest to change first: load comes last, for which no engine is opened anew.
AXES = {  # with what stands for their values in --help
    "batch": "1,4,16",
    "threads_per_context": "1,2,4",
    "graph": "on,off",
    "copies": "on,off",
    "wait": "spin,block",
    "buffers": "1,2",
    "contexts": "1,2,4|1..8",
    "burstiness": "1,4",
    "rate": "100/s..1000/s:5",
}
_MOST = 1000


def parse_axis(name: str, text: str) -> tuple[Any, ...]:
    """The values of an axis in the order in which they are written, each once. Raises UsageError."""
    option, read = f"--{name.replace('_', '-')}", _READ.get(name, _counts)
    values: dict[Any, None] = {}
    for part in text.split(","):
        try:
            values |= dict.fromkeys(read(part.strip()))
        except UsageError as error:
            raise UsageError(f"{option} {text}: {error}") from None
    if len(values) > _MOST:
        raise UsageError(f"{option} {text}: {len(values)} values are too many: give {_MOST} at most")
    return tuple(values)


def _counts(text: str) -> tuple[int, ...]:
    """(1, 2, 3) of "1..3"."""
    first, dots, last = text.partition("..")
    ends = (first, last) if dots else (first, first)
    if not all(end.isascii() and end.isdigit() for end in ends):
        raise UsageError(f"'{text}' is no count: write counts with commas between, or a range such as 1..8")
    low, high = map(int, ends)
    if low < 1 or high < low:
        raise UsageError(f"'{text}' holds no count: counts begin at 1, and a range goes up")
    if high - low >= _MOST:
        raise UsageError(f"'{text}' holds {high - low + 1} counts: give {_MOST} at most")
    return tuple(range(low, high + 1))


def _rates(text: str) -> tuple[float, ...]:
    """(100.0, 550.0, 1000.0) of "100/s..1000/s:3"."""
    first, dots, rest = text.partition("..")
    if not dots:
        return (parse_rate(text),)
    last, colon, count = rest.rpartition(":")
    if not (colon and count.isascii() and count.isdigit() and 2 <= int(count) <= _MOST):
        raise UsageError(f"'{text}' does not say how many rates: write such as 100/s..1000/s:5")
    low, high, steps = parse_rate(first), parse_rate(last), int(count) - 1
    if high <= low:
        raise UsageError(f"'{text}' does not go up: write the lower rate first")
    return tuple(float(f"{low + (high - low) * step / steps:.6g}") for step in range(steps + 1))


def _number(text: str) -> tuple[float, ...]:
    try:
        return (float(text),)
    except ValueError:
        raise UsageError(f"'{text}' is no number") from None


def _choice(**choices: object) -> Callable[[str], tuple[Any, ...]]:
    def read(text: str) -> tuple[Any, ...]:
        if text not in choices:
            raise UsageError(f"'{text}' is neither {' nor '.join(choices)}")
        return (choices[text],)

    return read


_READ = {
    "graph": _choice(on=True, off=False),
    "copies": _choice(on=True, off=False),
    "wait": _choice(spin="spin", block="block"),
    "rate": _rates,
    "burstiness": _number,
}
