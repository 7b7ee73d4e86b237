"""The grid of a sweep.

Its axes, whose values are written as "1,2,4", "1..8", "on,off" and "100/s..1000/s:5"; its points in the order of
measuring; the points that gain too little to be measured; the Pareto front and the knee.
"""

from __future__ import annotations

import itertools
import math
import re
from typing import TYPE_CHECKING, Any, TypeAlias

from loadtrt.asked.fields import option_name, parse_sms
from loadtrt.asked.launched import parse_devices
from loadtrt.errors import UsageError
from loadtrt.printing import bounded_repr
from loadtrt.report.run_verdict import why_unrated
from loadtrt.units import format_count, parse_rate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from loadtrt.results.capacity_result import SweepPoint

# The options that a sweep may vary, the slowest to change first. The load comes last: it needs no other engine.
AXES = {  # option: placeholder of its values in --help
    "devices": "0-3",
    "processes": "1,2,4",
    "workers": "1,2,4",
    "fp16": "off,on",
    "batch": "1,4,16",
    "threads_per_context": "1,2,4",
    "graph": "on,off",
    "submit": "graph,apart",
    "copies": "on,off",
    "wait": "spin,block",
    "buffers": "1,2",
    "contexts": "1,2,4|1..8",
    "partitions": "1,2,4,8",
    "sms": "8,16,32",
    "batcher": "max=16,delay=2ms",
    "max_queue": "64,256",
    "burstiness": "1,4",
    "rate": "100/s..1000/s:5",
}
Axis: TypeAlias = "str | float | Sequence[str | float]"  # as it is written; bool and int are floats to type checkers
_MOST_VALUES = 1000
MOST_POINTS = 10_000
GAIN = 0.05
FURTHER = 2  # points without such a gain after which the axis ends
GAINING = ("contexts", "buffers")  # axes along which throughput saturates


def parse_axis(name: str, written: Axis) -> tuple[Any, ...]:
    """The distinct values of an axis in the order in which they are written: of a text of all of them; of a value; of
    several texts and values. Raises UsageError."""
    option, values = option_name(name), dict[Any, None]()
    for item in written if isinstance(written, list | tuple) else (written,):
        if not isinstance(item, str | int | float):
            raise UsageError(f"{option}: {bounded_repr(item)} is not a value: write for example {AXES[name]}")
        try:
            values |= dict.fromkeys(_values(name, item) if isinstance(item, str) else (item,))
        except UsageError as error:
            raise UsageError(f"{option} {item}: {error}") from None
    if not values:
        raise UsageError(f"{option} has no values: write for example {AXES[name]}")
    if len(values) > _MOST_VALUES:
        raise UsageError(f"{option}: {len(values)} values are too many: give {_MOST_VALUES} at most")
    return tuple(values)


def _values(name: str, text: str) -> Iterator[Any]:
    if name in ("batcher", "devices"):  # which have commas themselves
        if name == "devices":
            parse_devices(text)
        yield text
        return
    for part in text.split(","):
        yield from _READ.get(name, _counts)(part.strip())


def _counts(text: str) -> tuple[int, ...]:
    """(1, 2, 3) of "1..3"."""
    first, dots, last = text.partition("..")
    ends = (first, last) if dots else (first, first)
    if not all(re.fullmatch(r"[0-9]{1,18}", end) for end in ends):
        raise UsageError(f"'{text}' is not a count; write counts such as 1,2,4, or a range such as 1..8")
    low, high = map(int, ends)
    if low < 1 or high < low:
        raise UsageError(
            f"'{text}' is not a count or a range: counts begin at 1, and a range goes up; write for example 1..8"
        )
    if high - low >= _MOST_VALUES:
        raise UsageError(f"'{text}' has {high - low + 1} counts: give {_MOST_VALUES} at most")
    return tuple(range(low, high + 1))


def _sms(text: str) -> tuple[int | str, ...]:
    """Counts of SMs, or a share of them."""
    return (parse_sms(text),) if text.endswith("%") else _counts(text)


def _rates(text: str) -> tuple[float, ...]:
    """(100.0, 550.0, 1000.0) of "100/s..1000/s:3"."""
    first, dots, rest = text.partition("..")
    if not dots:
        return (parse_rate(text),)
    last, colon, count = rest.rpartition(":")
    if not (colon and re.fullmatch(r"[0-9]{1,4}", count) and 2 <= int(count) <= _MOST_VALUES):
        raise UsageError(f"'{text}' has no number of rates; write for example 100/s..1000/s:5")
    low, high, steps = parse_rate(first), parse_rate(last), int(count) - 1
    if high <= low:
        raise UsageError(f"'{text}' does not go up; write the lower rate first")
    return tuple(float(f"{low + (high - low) * step / steps:.6g}") for step in range(steps + 1))


def _number(text: str) -> tuple[float, ...]:
    try:
        return (float(text),)
    except ValueError:
        raise UsageError(f"'{text}' is not a number; write for example 4") from None


def _places(text: str) -> tuple[int, ...]:
    """A count, or 0: no request may wait."""
    return (0,) if re.fullmatch("0+", text) else _counts(text)


def _choice(**choices: object) -> Callable[[str], tuple[Any, ...]]:
    def read(text: str) -> tuple[Any, ...]:
        if text not in choices:
            raise UsageError(f"'{text}' is neither {' nor '.join(choices)}")
        return (choices[text],)

    return read


_SWITCH = _choice(on=True, off=False)
_READ = {
    "fp16": _SWITCH,
    "graph": _SWITCH,
    "submit": _choice(auto="auto", graph="graph", apart="apart"),
    "copies": _SWITCH,
    "wait": _choice(spin="spin", block="block"),
    "rate": _rates,
    "burstiness": _number,
    "max_queue": _places,
    "sms": _sms,
}


def points_of(axes: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """The settings of all points in the order of measuring: those that need another engine change slowest, and values
    along GAINING axes go up, as the number of devices does. Raises UsageError for more than MOST_POINTS."""
    count = math.prod(map(len, axes.values()))
    if count > MOST_POINTS:
        raise UsageError(f"the grid has {format_count(count)} points: {format_count(MOST_POINTS)} at most")
    names = sorted(axes, key=list(AXES).index)
    values = [_in_order(name, axes[name]) for name in names]
    return [dict(zip(names, chosen, strict=True)) for chosen in itertools.product(*values)]


def _in_order(name: str, values: Sequence[Any]) -> Sequence[Any]:
    """The values of an axis as they are measured: the fewest devices first, with which others are compared."""
    if name == "devices":
        return sorted(values, key=lambda text: len(parse_devices(text)) or math.inf)
    return sorted(values) if name in (*GAINING, "workers") else values


def unusable(settings: Mapping[str, Any]) -> str | None:
    """Why a point of two axes is not measured, in a sentence: its partitions have no context each; None if it is."""
    contexts, partitions = settings.get("contexts"), settings.get("partitions")
    if contexts is None or partitions is None or contexts >= partitions:
        return None
    return f"{partitions} partitions need as many contexts"


def spent_axis(
    settings: Mapping[str, Any], measured: Sequence[SweepPoint], axes: Mapping[str, Sequence[Any]]
) -> str | None:
    """Why a point is not measured, in a sentence; None if it is: along an axis, all other settings equal, the last
    FURTHER points gained less than GAIN over the highest throughput before them."""
    for axis in GAINING:
        if axis not in axes:
            continue
        before = sorted(
            (point.settings[axis], rate)
            for point in measured
            if point.settings[axis] < settings[axis]
            and all(point.settings[name] == value for name, value in settings.items() if name != axis)
            and (rate := inferences_per_s(point)) is not None
        )
        if len(before) <= FURTHER:
            continue
        best = max(rate for _, rate in before[:-FURTHER])
        last = max(rate for _, rate in before[-FURTHER:])
        if last < best * (1 + GAIN):
            values = " and ".join(str(value) for value, _ in before[-FURTHER:])
            return (
                f"{values} {axis} gained less than {100 * GAIN:.0f} % ({format_count(best)} to {format_count(last)} "
                "inferences/s)"
            )
    return None


def inferences_per_s(point: SweepPoint) -> float | None:
    """Throughput of a point, inferences per second; None if not known or INVALID."""
    return point.run.model.throughput.inferences_per_s if point.run is not None and point.run.valid else None


def pareto_of(points: Sequence[SweepPoint]) -> tuple[int, ...]:
    """Places of the points that no other point beats in both inferences per second and p99 latency, by latency. Of
    equal points the first."""
    rated = sorted(
        (latency, -rate, place)
        for place, point in enumerate(points)
        if point.run is not None
        and why_unrated(point.run) is None
        and (latency := point.run.model.metrics["latency"].percentiles_ns["p99"]) is not None
        and (rate := inferences_per_s(point)) is not None
    )
    front, best = [], 0.0
    for _, negative, place in rated:
        if -negative > best:
            front.append(place)
            best = -negative
    return tuple(front)


def knee_of(points: Sequence[SweepPoint]) -> int | None:
    """Place of the point with the greatest power X/R, inferences per second over mean latency (Kleinrock, 1979)."""
    powers = [
        (rate / mean, -place)
        for place, point in enumerate(points)
        if point.run is not None
        and why_unrated(point.run) is None
        and (rate := inferences_per_s(point)) is not None
        and (mean := point.run.model.metrics["latency"].mean_ns)
    ]
    return -max(powers)[1] if powers else None
