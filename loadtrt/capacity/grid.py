"""The points of a sweep: in which order, which of them cannot pay any more, and what the measured ones show."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

from loadtrt.capacity.axes import AXES
from loadtrt.errors import UsageError
from loadtrt.units import format_count

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadtrt.measure.sweep_result import SweepPoint

MOST_POINTS = 10_000
GAIN = 0.05
FURTHER = 2  # points without such a gain, after which none is expected
GAINING = ("contexts", "buffers")  # axes along which throughput grows until it does not


def points_of(axes: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """All settings, those that need another engine the slowest to change; along GAINING axes upwards, so that it is
    seen where a gain ends. Raises UsageError for more than MOST_POINTS."""
    count = math.prod(map(len, axes.values()))
    if count > MOST_POINTS:
        raise UsageError(f"the grid has {format_count(count)} points: {format_count(MOST_POINTS)} at most")
    names = sorted(axes, key=list(AXES).index)
    values = [sorted(axes[name]) if name in GAINING else axes[name] for name in names]
    return [dict(zip(names, chosen, strict=True)) for chosen in itertools.product(*values)]


def spent_axis(
    settings: Mapping[str, Any], measured: Sequence[SweepPoint], axes: Mapping[str, Sequence[Any]]
) -> str | None:
    """Why a point is not worth measuring, None where it is: along an axis the last FURTHER points, all other settings
    alike, together gained less than GAIN of the inferences a second that the best of those before them had."""
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
    """What it served; None where nothing is known, or is not to be trusted."""
    return point.run.model.throughput.inferences_per_s if point.run is not None and point.run.valid else None


def latency_p99_ns(point: SweepPoint) -> float | None:
    """None where nothing is known, or is not to be trusted."""
    return (
        point.run.model.metrics["latency"].percentiles_ns["p99"] if point.run is not None and point.run.valid else None
    )


def pareto_of(points: Sequence[SweepPoint]) -> tuple[int, ...]:
    """Places of the points that no other beats in both inferences a second and p99 of latency, from the least latency
    up. Of equal ones the first."""
    rated = sorted(
        (latency, -rate, place)
        for place, point in enumerate(points)
        if (latency := latency_p99_ns(point)) is not None and (rate := inferences_per_s(point)) is not None
    )
    front, best = [], 0.0
    for _, negative, place in rated:
        if -negative > best:
            front.append(place)
            best = -negative
    return tuple(front)


def knee_of(points: Sequence[SweepPoint]) -> int | None:
    """The place with the greatest power X/R: inferences a second over mean latency (Kleinrock, 1979)."""
    powers = [
        (rate / mean, -place)
        for place, point in enumerate(points)
        if point.run is not None
        and (rate := inferences_per_s(point)) is not None
        and (mean := point.run.model.metrics["latency"].mean_ns)
    ]
    return -max(powers)[1] if powers else None
