"""The result of a sweep: the schema of sweep.json. Each point is a trimmed run (results/run_result.py).

Times are ns (`_ns`), memory is bytes (`_bytes`). None means that a number is not known or not supported by the sample.
"""

from __future__ import annotations

from typing import Any, Literal

from loadtrt.asked.config import RunConfig  # noqa: TC001  # pydantic reads it
from loadtrt.results import Model
from loadtrt.results.run_result import RunResult  # noqa: TC001  # pydantic reads it


class SweepPoint(Model):
    """One point of the grid.

    settings: the value of each axis, by option name.
    run: the run as `trimmed` leaves it; None if none was made.
    failure: why no run was made, or why it ended early; None otherwise.
    """

    settings: dict[str, Any]
    run: RunResult | None
    failure: str | None = None


class SkippedPoint(Model):
    """A point that was not measured: throughput no longer gained along its axis, or the sweep ended before."""

    settings: dict[str, Any]
    reason: str


class SweepResult(Model):
    """All of one sweep.

    config: the configuration that all points share.
    environment: as in a run.
    axes: the values of each axis, by option name, in the order of the command line.
    outcome: completed (failed points included), interrupted (Ctrl-C; it can be resumed), or failed (see `failure`).
    failure: why the sweep failed, in a sentence.
    points: the measured points, in the order of the grid.
    skipped: the points that were not measured, in the order of the grid.
    pareto: places in `points` that no other point beats in both inferences per second and p99 latency, by latency.
    knee: place in `points` with the greatest power X/R, inferences per second over mean latency (Kleinrock, Power and
        deterministic rules of thumb, 1979); None without points.
    """

    schema_version: Literal["loadtrt.sweep/1"] = "loadtrt.sweep/1"
    loadtrt: str
    started: str
    command: tuple[str, ...]
    config: RunConfig
    environment: dict[str, Any]
    axes: dict[str, tuple[Any, ...]]
    outcome: Literal["completed", "interrupted", "failed"]
    failure: str | None = None
    points: tuple[SweepPoint, ...] = ()
    skipped: tuple[SkippedPoint, ...] = ()
    pareto: tuple[int, ...] = ()
    knee: int | None = None


def trimmed(run: RunResult) -> RunResult:
    """A run without its seconds, its sample of records and all histograms but latency's. Of its environment the GPU is
    kept, whose clocks differ between runs of one machine."""
    telemetry, histograms = run.telemetry, run.model.histograms
    kept = {name: histograms[name] for name in ("latency",) if name in histograms}
    return run.with_model(intervals=(), sample=None, histograms=kept).model_copy(
        update={
            "environment": {name: run.environment[name] for name in ("gpu",) if name in run.environment},
            "telemetry": None if telemetry is None else telemetry.model_copy(update={"intervals": ()}),
        }
    )
