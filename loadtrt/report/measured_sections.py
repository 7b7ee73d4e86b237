"""The planned fleets that were run: what was measured beside what was predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtrt.report.document import Notice, Table, words
from loadtrt.report.formatting import UNKNOWN, between, time_or
from loadtrt.report.run_verdict import state_badge
from loadtrt.units import plural

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadtrt.report.document import Block, Cell
    from loadtrt.results.fleet_result import FleetResult

_HEADER = ("", "GPUs", "", "measured", "95 %", "predicted", "95 %", "error")


def measured_fleets(result: FleetResult) -> Iterator[Block]:
    """A row for the median and each quantile that an objective bounds, by routing; then why a fleet has none."""
    rows: list[tuple[Cell, ...]] = []
    for fleet in result.measured:
        rows += [
            (
                f"{fleet.routing}, p{100 * check.rank:g}",
                str(fleet.gpus),
                state_badge(fleet.run),
                time_or(check.measured_ns),
                between(check.measured_low_ns, check.measured_high_ns),
                time_or(check.predicted_ns),
                between(check.predicted_low_ns, check.predicted_high_ns),
                UNKNOWN if check.error is None else f"{100 * check.error:+.1f} %",
            )
            for check in fleet.checks
        ]
    if rows:
        away = f", without {plural(result.spares, 'spare')}" if result.spares else ""
        yield Table(_HEADER, tuple(rows), words=1, note=f"the planned fleets, run on this host{away}")
    inside = [check.within for fleet in result.measured for check in fleet.checks if check.within is not None]
    if inside:
        yield words(
            f"fleets, predicted against measured: within each other's interval in {sum(inside)} of {len(inside)}"
        )
    for fleet in result.measured:
        problems = fleet.run.model.problems if fleet.run is not None else ()
        for item in problems:
            yield Notice("bad", f"{fleet.routing}: INVALID, {item.evidence}", (("remedy", item.remedy),))
        if fleet.run is not None and fleet.run.failure:
            yield Notice("bad", f"{fleet.routing}: {fleet.run.failure}")
        if fleet.why_not:
            yield words(f"{fleet.routing} not measured: {fleet.why_not}")
