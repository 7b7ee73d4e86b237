"""`loadtrt sweep` without its command line: a run at each point of a grid, kept after each."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import loadtrt
from loadtrt.asked.launched import require_workers
from loadtrt.asked.reading import load_config, varied
from loadtrt.environment import environment
from loadtrt.errors import EngineError, UsageError
from loadtrt.findings.device_scaling import fewest_devices, scaling
from loadtrt.printing import command_line
from loadtrt.report.settings import axes_text
from loadtrt.results.capacity_result import SkippedPoint, SweepPoint, SweepResult
from loadtrt.runs.processes import require_one_clock, workers_of
from loadtrt.sizing.grid import AXES, knee_of, pareto_of, parse_axis, points_of, spent_axis, unusable
from loadtrt.sizing.keeping import to_the_end
from loadtrt.sizing.rig import MACHINE, changed
from loadtrt.units import format_count, format_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from loadtrt.asked.config import RunConfig
    from loadtrt.results.run_result import RunResult
    from loadtrt.runs.watched import Talks
    from loadtrt.sizing.rig import Rig

_ENDED = "the sweep ended before this point"


class Sweeper:
    """Sweeps over axes on a rig. `result` is complete at any moment; `keep` gets it after each point.

    all_points: measure also where an axis no longer gains.

    Raises UsageError for a point whose settings contradict each other."""

    def __init__(
        self,
        config: RunConfig,
        axes: Mapping[str, Sequence[Any]],
        rig: Rig,
        talks: Talks,
        keep: Callable[[SweepResult], None],
        *,
        all_points: bool,
    ) -> None:
        self._rig, self._talks, self._keep = rig, talks, keep
        self._grid = points_of(axes)
        reasons = map(unusable, self._grid)
        self._skipped = {place: why for place, why in enumerate(reasons) if why is not None}
        if len(self._skipped) == len(self._grid):
            raise UsageError(f"no point of the sweep can be measured: {self._skipped[0]}")
        self._configs = {
            place: varied(config, **settings) for place, settings in enumerate(self._grid) if place not in self._skipped
        }
        loaded = any(not config.model.load.closed for config in self._configs.values())
        self._gaining = {} if loaded or all_points else axes  # the throughput of an open loop is the offered load
        self._points: dict[int, SweepPoint] = {}
        rig.workers = max(map(workers_of, self._configs.values()))
        self.result = SweepResult(
            loadtrt=loadtrt.__version__,
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            command=command_line(),
            config=config,
            environment=environment(),
            axes={name: tuple(values) for name, values in axes.items()},
            outcome="interrupted",
        )

    def resume(self, before: SweepResult) -> int:
        """Take the points of an unfinished sweep without those that failed, and return their number. Axes may have
        further values. Raises UsageError if it was a sweep of something else."""
        if set(before.axes) != set(self.result.axes):
            raise UsageError(
                f"the sweep in the file is over {', '.join(before.axes)}: give these axes, or name another file"
            )
        difference = changed(_asked(before), _asked(self.result))
        if difference is not None:
            raise UsageError(f"the sweep in the file differs: {difference}; name another file")
        self.result = self.result.model_copy(update={"started": before.started, "environment": before.environment})
        for point in before.points:
            if point.run is not None and point.run.outcome == "completed":
                if point.settings not in self._grid:
                    where = axes_text(point.settings)
                    raise UsageError(f"the sweep in the file has {where}, which would be lost: give these values too")
                self._points[self._grid.index(point.settings)] = point
                self._rig.before.append(point.run.model.engine)
        return len(self._points)

    @property
    def measured(self) -> bool:
        """Whether the result has anything to keep."""
        return bool(self._points)

    def make(self) -> None:
        """Measure all points. An interruption ends the sweep quietly; a point that fails is kept with the reason."""
        with to_the_end(self._rig, self._update):
            for place, settings in enumerate(self._grid):
                if place not in self._points and not self._is_spent(place):
                    self._points[place] = self._measure(place, settings)
                    self._update()
                if self._rig.stopped:
                    return
            self._rig.require_sense()

    def _measure(self, place: int, settings: dict[str, Any]) -> SweepPoint:
        config, what = self._configs[place], f"{place + 1} of {len(self._grid)}, {axes_text(settings)}"
        failure = self._rig.try_open(config, (self._configs[min(self._configs)], self._configs[max(self._configs)]))
        if failure is not None:  # other settings may work
            self._talks.say(f"{what}: {failure}")
            return SweepPoint(settings=settings, run=None, failure=failure)
        try:
            self._rig.progress = len(self._points), len(self._grid) - len(self._points) - len(self._skipped) - 1
            run = self._rig.run(config, what, number=place, point=axes_text(settings))
        except UsageError as error:  # a load that cannot be drawn, or workers without an engine
            self._talks.say(f"{what}: {error}")
            return SweepPoint(settings=settings, run=None, failure=str(error))
        self._rig.require_before()
        rate, latency = run.model.throughput.inferences_per_s, run.model.metrics["latency"].percentiles_ns["p99"]
        words = [] if rate is None else [f"{format_count(rate)} inferences/s"]
        words += [] if latency is None else [f"latency p99 {format_duration(latency)}"]
        words += [f"failed: {run.failure}"] if run.failure else [] if run.valid else ["INVALID"]
        words += ["interrupted"] if run.outcome == "interrupted" else []
        point = self._scaled(SweepPoint(settings=settings, run=run, failure=run.failure))
        self._talks.say(f"{what}: {', '.join(words)}")
        return point

    def _scaled(self, point: SweepPoint) -> SweepPoint:
        """The point with what its devices lose to each other, where fewer were measured before."""
        points = [self._points[place] for place in sorted(self._points)]
        fewest = point.run and fewest_devices(points, point)
        if not point.run or not fewest:
            return point
        found = scaling(fewest, point.run, self.result.environment.get("cores"))
        findings = (*((found,) if found else ()), *point.run.model.findings)
        return point.model_copy(update={"run": point.run.with_model(findings=findings)})

    def _is_spent(self, place: int) -> bool:
        why = self._skipped.get(place) or spent_axis(self._grid[place], list(self._points.values()), self._gaining)
        if why is not None:
            self._skipped[place] = why
        return why is not None

    def _update(self, **changes: Any) -> None:
        points = tuple(self._points[place] for place in sorted(self._points))
        self.result = self.result.model_copy(
            update={
                "points": points,
                "skipped": tuple(
                    SkippedPoint(settings=settings, reason=self._skipped.get(place, _ENDED))
                    for place, settings in enumerate(self._grid)
                    if place not in self._points
                ),
                "pareto": pareto_of(points),
                "knee": knee_of(points),
                **changes,
            }
        )
        self._keep(self.result)


def require_measured(result: SweepResult) -> list[RunResult]:
    """The runs of a sweep that was not interrupted. Raises EngineError where no point was measured."""
    measured = [point.run for point in result.points if point.run is not None and point.failure is None]
    if not measured and result.outcome != "interrupted":
        raise EngineError(result.points[0].failure or "no point was measured")
    return measured


def base_and_axes(file: Path | RunConfig | None, given: dict[str, Any]) -> tuple[RunConfig, dict[str, tuple[Any, ...]]]:
    """The configuration that all points share, and the values of each axis.

    file: as for `load_config`.
    given: options by key, of axes with several values; None for one that is not given.

    Raises UsageError.
    """
    axes = {name: parse_axis(name, given[name]) for name in given if name in AXES and given[name] is not None}
    if not axes:
        raise UsageError("a sweep needs an axis: give several values, such as --contexts 1,2,4 or --batch 1,4,16")
    over_file = [name for name in ("rate", "burstiness", "batch", "batcher", "max_queue", "workers") if name in axes]
    common = {name: value for name, value in given.items() if name not in AXES}
    first = {name: axes[name][0] for name in over_file}
    base = load_config(file, common | first, without={"profile", "worker"}, base=True)
    several = base.several_processes or not {"devices", "processes"}.isdisjoint(axes)
    require_workers(given.get("routing"), several=several, closed=base.model.load.closed)
    if several:
        require_one_clock(base)
    return base, axes


def _asked(result: SweepResult) -> dict[str, Any]:
    """The settings that all points share."""
    return {
        **{name: value for name, value in result.config.options().items() if name not in result.axes},
        **{name: result.environment.get(name) for name in MACHINE},
        "loadtrt": result.loadtrt,
    }
