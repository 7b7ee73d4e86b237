"""Sweeps, searches and planned fleets of workers on a real GPU: one is enough.

Bounds are wide, as they are of any GPU; a failure names the numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import loadtrt
from loadtrt.report.plain import terminal_text

if TYPE_CHECKING:
    from pathlib import Path

    from loadtrt.results.run_result import RunResult

# Starting processes at once may be late on a busy host, which is of no matter here.
SECOND: dict[str, Any] = {"allow_host_code": True, "warmup": "300ms", "duration": "1s", "max_lateness": "1s"}


def _per_s(run: RunResult | None) -> float:
    assert run is not None
    assert run.failure is None, run.failure
    return run.model.throughput.requests_per_s or 0.0


def test_processes_against_contexts(tiny: Path) -> None:
    """Each point is of workers of its own, all on one GPU; the table says how they share it."""
    result = loadtrt.sweep(engine=str(tiny), processes=[1, 2], contexts=[1, 2], **SECOND)
    points = {(point.settings["processes"], point.settings["contexts"]): point.run for point in result.points}
    assert {len(run.workers) for (processes, _), run in points.items() if run and processes == 2} == {2}
    rates = {place: _per_s(run) for place, run in points.items()}
    assert min(rates.values()) > 0, rates
    uuids = {worker.environment["gpu"]["uuid"] for run in points.values() if run for worker in run.workers}
    assert len(uuids) == 1
    told = [worker.sharing for run in points.values() if run for worker in run.workers]
    if all(sharing is not None for sharing in told):
        assert "workers on one GPU " in " ".join(terminal_text(result).split())
    kinds = {problem.kind for run in points.values() if run for problem in run.model.problems}
    assert "gpu-shared" not in kinds, "a worker was taken for a stranger"


def test_a_device_is_one_of_those_that_are_seen(tiny: Path) -> None:
    """By its number, and as an axis of one value."""
    result = loadtrt.sweep(engine=str(tiny), devices="0", contexts=2, **SECOND)
    (point,) = result.points
    assert _per_s(point.run) > 0
    assert point.run is not None
    assert [worker.environment["device"] for worker in point.run.workers] == [0]


def test_workers_route_by_what_is_outstanding(tiny: Path) -> None:
    """Each request goes to one of them, whatever drives them."""
    common = {**SECOND, "engine": str(tiny), "contexts": 1}
    rate = 0.3 * _per_s(loadtrt.run(**common))
    result = loadtrt.run(**common, rate=rate, processes=2, routing="least-outstanding")
    whole, _ = result.config.due(result.config.model)
    assert whole is not None
    assert result.model.routing is not None
    assert result.model.ok == result.model.routing.chosen == len(whole), result.failure
    assert all(worker.model.ok for worker in result.workers)


def test_a_planned_fleet_of_one_gpu(googlenet: Path) -> None:
    """Is run, beside its prediction; one of more GPUs than there are is not, with a sentence. A plan that keeps the GPU
    busy for long: no host is too slow for its closed loop."""
    common = {
        **SECOND,
        "engine": str(googlenet),
        "batch": 16,
        "contexts": 1,
        "buffers": 1,
        "objective": "latency.p99 < 1s",
    }
    closed = loadtrt.run(**common)
    rate = 0.3 * _per_s(closed)
    options: dict[str, Any] = {"routing": "random", "measure": True, "duration": "3s", "allow_host_code": True}
    one = loadtrt.plan_capacity(closed, loadtrt.run(**common, rate=rate), demand=rate, **options)
    (fleet,) = one.measured
    assert fleet.gpus == 1
    assert fleet.run is not None, fleet.why_not
    assert _per_s(fleet.run) == pytest.approx(rate, rel=0.2)
    assert [check.rank for check in fleet.checks] == [0.5, 0.99]
    many = loadtrt.plan_capacity(closed, demand=1000 * rate, **options, objective="latency.p99 < 1s")
    assert "GPUs are planned under random routing, and there " in many.measured[0].why_not
