"""What a sweep leaves behind: the schema of sweep.json. Each point is a trimmed run (results/run_result.py).

Times are ns (`_ns`), memory is bytes (`_bytes`). None means that a number is not known or not supported by the sample.
"""

from __future__ import annotations

from typing import Any, Literal

from loadtrt.asked.config import RunConfig  # noqa: TC001  # pydantic reads it
from loadtrt.results.frozen import Model
from loadtrt.results.run_result import RunResult  # noqa: TC001  # pydantic reads it


class SweepPoint(Model):
    """One point of the grid. settings: the value of each axis, by option name.

    run: as `trimmed` leaves it, None where there is none; failure: why not, or why it ended early."""

    settings: dict[str, Any]
    run: RunResult | None
    failure: str | None = None


class SkippedPoint(Model):
    """A point that was not measured, and why: no gain was left along its axis, or the sweep ended before it."""

    settings: dict[str, Any]
    reason: str


class SweepResult(Model):
    """All of one sweep. axes: the values asked for, by option name, in the order of the command line. config: what all
    points have in common, a configuration of `loadtrt run`. environment: as in a run.

    outcome: completed (failed points included), interrupted (Ctrl-C; it can be resumed), or failed (see `failure`).
    points, skipped: in the order of the grid. pareto: places in `points` that no other point beats in both inferences
    a second and p99 of latency, from the least latency up. knee: the place in `points` with the greatest power, X/R:
    inferences a second over mean latency (Kleinrock, Power and deterministic rules of thumb, 1979); None where there
    are no points.
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
    """A run without its bulk: no seconds, no sample of records, no histogram but latency's; of its environment what
    differs between runs of one machine, the GPU's clocks."""
    telemetry, histograms = run.telemetry, run.model.histograms
    kept = {name: histograms[name] for name in ("latency",) if name in histograms}
    return run.with_model(intervals=(), sample=None, histograms=kept).model_copy(
        update={
            "environment": {name: run.environment[name] for name in ("gpu",) if name in run.environment},
            "telemetry": None if telemetry is None else telemetry.model_copy(update={"intervals": ()}),
        }
    )
