"""From what each model suffers from stressors and does to them to what models do to each other: n measurements for n².

A stressor uses one resource of the device: memory bandwidth, copy engines, SM time, L2. Of model A and stressor r,

    S_Ar   p99 of A beside r over alone, r at its calibrated load u, a share of its closed loop's throughput
    s_Ar = (1 − 1/S_Ar) / u        the share of its speed that A loses for each share of r that is taken: sensitivity
    P_Br   the share of its closed loop's throughput that r loses beside B: how much of r B takes: pressure

and A beside B is predicted to have

    p99 beside / alone = 1 / (1 − Σ_r s_Ar · P_Br)        none where that is not above 0: A would be overloaded

A resource that is shared by turns without overhead (processor sharing) obeys this: with ρ_A and ρ_B the shares that A
and B take, A is slowed down by (1 − ρ_A) / (1 − ρ_A − ρ_B), so that 1 − 1/S = ρ_B / (1 − ρ_A), proportional to ρ_B;
and a closed loop of one lane is left 1 − ρ_B.

What it leaves out: resources that stressors do not use; losses of several resources at once, which are added though
one may hide another; and that B's requests come in bursts, where a stressor's are spread evenly. What is measured to be
a gain (S below 1, a stressor that is faster beside B) is noise, and counts as none.
"""

from __future__ import annotations

import math
from statistics import median
from typing import TYPE_CHECKING

from loadtrt.results.interference_result import Fingerprint, PairedRatio, Predicted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadtrt.results.interference_result import Cell


def fingerprints_of(cells: Sequence[Cell], stressors: Mapping[str, str]) -> dict[str, Fingerprint]:
    """By model, of those that were measured beside all stressors."""
    slowdowns: dict[str, dict[str, PairedRatio]] = {}
    pressures: dict[str, dict[str, dict[str, PairedRatio]]] = {}
    for cell in cells:
        if not cell.valid:
            continue
        if cell.neighbour in stressors and (ratio := cell.ratio()) is not None:
            slowdowns.setdefault(cell.model, {})[cell.neighbour] = ratio
        elif cell.model in stressors and cell.kept is not None and cell.kept.ratio is not None:
            of_level = pressures.setdefault(cell.neighbour, {}).setdefault(cell.neighbour_level, {})
            of_level[cell.model] = _lost(cell.kept)
    return {
        model: Fingerprint(
            slowdowns=ratios,
            pressures={level: lost for level, lost in pressures.get(model, {}).items() if len(lost) == len(stressors)},
        )
        for model, ratios in slowdowns.items()
        if len(ratios) == len(stressors)
    }


def _lost(kept: PairedRatio) -> PairedRatio:
    """1 − what was kept, with its interval."""
    low, ratio, high = (None if end is None else max(1 - end, 0.0) for end in (kept.high, kept.ratio, kept.low))
    return PairedRatio(name="lost", ratio=ratio, low=low, high=high, reason=kept.reason)


def predicted(a: Fingerprint, b: Fingerprint, level: str, stress: float) -> PairedRatio:
    """p99 of A beside B at that level over alone; not known where B leaves it nothing. stress: u above.

    Its interval is that of the speed 1 − Σ s·P, with half widths h: h² = Σ (P·h_s)² + (s·h_P)², as errors of
    measurements that are independent and small.
    """
    speed, square = 1.0, 0.0
    for stressor, slowdown in a.slowdowns.items():
        pressure = b.pressures[level][stressor]
        sensitivity, taken = _sensitivity(slowdown.ratio, stress), pressure.ratio or 0.0
        speed -= sensitivity * taken
        ends = (slowdown.low, slowdown.high, pressure.low, pressure.high)
        low, high, least, most = (math.nan if end is None else end for end in ends)
        of_sensitivity = (_sensitivity(high, stress) - _sensitivity(low, stress)) / 2
        square += (taken * of_sensitivity) ** 2 + (sensitivity * (most - least) / 2) ** 2
    slow, fast = speed - math.sqrt(square), speed + math.sqrt(square)
    ratio = 1 / speed if speed > 0 else None
    low_end, high_end = (1 / end if end > 0 and ratio is not None else None for end in (fast, slow))
    return PairedRatio(name="latency.p99", ratio=ratio, low=low_end, high=high_end)


def _sensitivity(slowdown: float | None, stress: float) -> float:
    """s above; nan of nan."""
    return (1 - 1 / (1.0 if slowdown is None or slowdown < 1 else slowdown)) / stress


def predictions_of(
    fingerprints: Mapping[str, Fingerprint], matrix: Sequence[Cell], stress: float
) -> tuple[Predicted, ...]:
    """Of the cells of plain streams, beside what was measured there."""
    return tuple(
        _compared(cell, predicted(fingerprints[cell.model], fingerprints[cell.neighbour], cell.neighbour_level, stress))
        for cell in matrix
        if cell.model in fingerprints and cell.neighbour_level in _levels(fingerprints, cell.neighbour)
    )


def _compared(cell: Cell, found: PairedRatio) -> Predicted:
    measured = cell.ratio() if cell.valid and not cell.overloaded else None
    return Predicted(
        model=cell.model,
        neighbour=cell.neighbour,
        neighbour_level=cell.neighbour_level,
        **found.model_dump(include={"ratio", "low", "high"}),
        measured=measured and measured.ratio,
        measured_low=measured and measured.low,
        measured_high=measured and measured.high,
    )


def _levels(fingerprints: Mapping[str, Fingerprint], model: str) -> Sequence[str]:
    return list(fingerprints[model].pressures) if model in fingerprints else []


def error_of(predictions: Sequence[Predicted]) -> float | None:
    """Median of |predicted ÷ measured − 1| over the cells that have both; None where none has."""
    errors = [abs(item.ratio / item.measured - 1) for item in predictions if item.ratio and item.measured]
    return median(errors) if errors else None
