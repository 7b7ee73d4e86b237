"""What type checkers see of `import loadtrt`: this file is checked by mypy --strict with all others (make check)."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import assert_type

import loadtrt


async def _seen(run: loadtrt.RunResult, profile: loadtrt.ProfileResult, file: Path) -> None:
    """Never called: the types are what is checked."""
    assert_type(loadtrt.run(engine="g.plan", contexts=4), loadtrt.RunResult)
    assert_type(loadtrt.run("run.yaml"), loadtrt.RunResult)
    assert_type(await loadtrt.run_async(engine="g.plan"), loadtrt.RunResult)
    assert_type(loadtrt.sweep(engine="g.plan", contexts=[1, 2]), loadtrt.SweepResult)
    assert_type(loadtrt.capacity(engine="g.plan", objective="latency.p99 < 5ms"), loadtrt.CapacityResult)
    assert_type(loadtrt.merge(run, "1.json"), loadtrt.RunResult)
    assert_type(loadtrt.interference(engines=["a.plan", "b.plan"]), loadtrt.InterferenceResult)
    assert_type(loadtrt.plan_capacity("c.json", demand="5/s"), loadtrt.FleetResult)
    assert_type(loadtrt.plan_capacity({"a": file, "b": "b.json"}, demand={"a": 5, "b": 6}), loadtrt.PlacementResult)
    assert_type(await loadtrt.plan_capacity_async({"a": file}, demand={"a": 5}), loadtrt.PlacementResult)
    assert_type(loadtrt.profile(engine="g.plan"), loadtrt.ProfileResult)
    assert_type(loadtrt.compare(run, [run, run]), loadtrt.Comparison)
    assert_type(loadtrt.compare(profile, profile), loadtrt.LayerComparison)
    assert_type(loadtrt.compare(file, "b.json"), loadtrt.Comparison | loadtrt.LayerComparison)
    if isinstance(read := loadtrt.read(file), loadtrt.RunResult):
        assert_type(read, loadtrt.RunResult)
    assert_type(loadtrt.RunConfig.of(engine="g.plan"), loadtrt.RunConfig)
    loadtrt.rum()  # type: ignore[attr-defined]
    loadtrt.run(3)  # type: ignore[arg-type]
    _: int = loadtrt.run(engine="g.plan")  # type: ignore[assignment]


def test_the_package_says_that_it_is_typed() -> None:
    """py.typed lies beside the module whose types are checked above."""
    assert Path(inspect.getfile(loadtrt)).with_name("py.typed").exists()
    assert inspect.iscoroutinefunction(_seen)
