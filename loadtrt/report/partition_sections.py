"""What shares of the GPU's SMs bring, in a sweep of closed loops: how many SMs a plan needs, and whether partitions of
them serve more than contexts that share all."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from loadtrt.report.comparison_sections import measured_of
from loadtrt.report.comparison_verdicts import ratio_cells
from loadtrt.report.document import Table, words
from loadtrt.report.formatting import time_or
from loadtrt.report.run_verdict import time_of
from loadtrt.report.settings import axes_text
from loadtrt.stats.regression import ratio_of
from loadtrt.units import format_count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadtrt.report.document import Block
    from loadtrt.results.capacity_result import SweepPoint, SweepResult
    from loadtrt.results.run_result import RunResult

KEPT = 0.95  # of the highest throughput: beyond the fewest SMs that keep it, more bring little
_LANES = ("contexts", "buffers", "partitions")  # of the points of one engine, the best is taken


def shares_of_sms(result: SweepResult) -> Iterator[Block]:
    """The SMs that a plan needs along --sms, and the best point along --partitions beside the best without."""
    if "sms" in result.axes:
        for others, runs in _groups(result, ("sms",)):
            yield from _needed(others, runs)
    if "partitions" in result.axes and "sms" not in result.axes and result.config.model.sms is None:
        yield from _beside(result)  # with --sms, more partitions are more SMs


def sms_of(run: RunResult) -> int | None:
    """The SMs that each context of a run computed on, as the GPU rounded them; None where it was not told."""
    given = re.fullmatch(r"\d+ of (\d+) SMs", run.model.engine.mode.get("partitions", ""))
    return int(given[1]) if given else None


def size_of(run: RunResult) -> tuple[float, str] | None:
    """What each context of a run computed on, and its unit: SMs, or of a simulated device a percentage of them."""
    if (sms := sms_of(run)) is not None:
        return sms, "SMs"
    part = run.model.engine.mode.get("part") if run.model.engine.kind == "simulated" else None
    return None if part is None else (100 * float(part), "% of the SMs")


def _needed(others: str, points: list[tuple[SweepPoint, RunResult]]) -> Iterator[Block]:
    given = [(size, _rate(run), run) for _, run in points if (size := size_of(run)) is not None]
    known = sorted(given, key=lambda item: item[0])
    if len({size for size, _, _ in known}) < 2:
        return
    most = max(rate for _, rate, _ in known)
    size, rate, run = next(item for item in known if item[1] >= KEPT * most)
    on, at_most_on = (f"{number:g} {unit}" for number, unit in (size, known[-1][0]))
    p99, at_most = (time_or(time_of(one.model.metrics, "p99")) for one in (run, known[-1][2]))
    beside = "" if size == known[-1][0] else f"; {at_most} on {at_most_on}"
    text = f"{on} are enough for {100 * KEPT:.0f} % of the throughput"
    if size == known[0][0]:
        text = f"{on}, the fewest that were measured, are enough for {100 * KEPT:.0f} % of the throughput"
    elif size == known[-1][0]:
        text = f"the throughput still grows at {on}, the most that were measured"
    yield words(
        f"{others}{': ' if others else ''}{text}: {format_count(rate)} of {format_count(most)} inferences/s, latency "
        f"p99 {p99}{beside}"
    )


def _beside(result: SweepResult) -> Iterator[Block]:
    rows = []
    for others, points in _groups(result, _LANES):
        plain = [item for item in points if item[0].settings.get("partitions") == 1]
        parted = [item for item in points if item[0].settings.get("partitions", 1) > 1]
        if not plain or not parted:
            continue
        best = [max(side, key=lambda item: _rate(item[1])) for side in (plain, parted)]
        before, after = (run for _, run in best)
        ratio = ratio_of("throughput", [measured_of("", before)], [measured_of("", after)])
        sides = [f"{format_count(_rate(run))} ({_lanes(point)})" for point, run in best]
        rows.append((others, *sides, *ratio_cells(ratio)))
    if rows:
        header = ("", "inferences/s without partitions", "with", "ratio", "95 %")
        note = "the best point of each, one run: the interval does not cover what differs from run to run"
        yield Table(header, tuple(rows), words=3, last=1, note=note)


def _lanes(point: SweepPoint) -> str:
    return axes_text({name: value for name, value in point.settings.items() if name in _LANES})


def _groups(result: SweepResult, apart: tuple[str, ...]) -> list[tuple[str, list[tuple[SweepPoint, RunResult]]]]:
    """The valid closed loops of the sweep with their points, by their settings other than `apart`, in words."""
    groups: dict[str, list[tuple[SweepPoint, RunResult]]] = {}
    for point in result.points:
        run = point.run
        if run is None or point.failure or not run.valid or not run.config.model.load.closed or not _rate(run):
            continue
        others = {name: value for name, value in point.settings.items() if name not in apart}
        groups.setdefault(axes_text(others), []).append((point, run))
    return list(groups.items())


def _rate(run: RunResult) -> float:
    return run.model.throughput.inferences_per_s or 0.0
