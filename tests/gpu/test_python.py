"""`import loadtrt` on a real GPU: with an event loop that runs, interrupted in machine code, and as tables."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import loadtrt
from interrupting import interrupting, measuring

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

OPTIONS: dict[str, Any] = {"allow_host_code": True, "batch": 16, "max_lateness": "1s"}


def test_a_run_beside_an_event_loop(googlenet: Path) -> None:
    """Every request has a row, whose times are those that the result sums up."""

    async def cell() -> tuple[loadtrt.RunResult, int]:
        running = asyncio.create_task(loadtrt.run_async(engine=googlenet, contexts=2, requests=400, **OPTIONS))
        turns = 0
        while not running.done():
            await asyncio.sleep(0.01)
            turns += 1
        return running.result(), turns

    run, turns = asyncio.run(cell())
    records = run.to_pandas("records")
    assert turns > 1
    assert len(records) == run.model.ok == run.model.submitted >= 400
    assert records["compute_ns"].max() == run.model.metrics["compute"].max_ns
    assert (records["latency_ns"] > 0).all()
    assert "latency p50" in str(run)
    assert run._repr_html_().startswith('<div class="loadtrt"')


def test_ctrl_c_ends_a_run(googlenet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While machine code submits and polls, too: what is in flight is served."""
    thread = interrupting(measuring(monkeypatch))
    run = loadtrt.run(engine=googlenet, contexts=2, duration="10h", **OPTIONS)
    thread.join()
    assert run.outcome == "interrupted"
    assert run.model.ok == run.model.submitted > 0


def test_a_sweep_and_a_profile(googlenet: Path, tmp_path: Path) -> None:
    """Read back equal."""
    swept = loadtrt.sweep(engine=googlenet, contexts=[1, 2], requests=100, json=tmp_path / "sweep.json", **OPTIONS)
    assert loadtrt.read(tmp_path / "sweep.json") == swept
    assert (swept.to_pandas()["requests_per_s"] > 0).all()
    layers = loadtrt.profile(engine=googlenet, requests=20, allow_host_code=True, batch=16)
    assert layers.to_pandas()["share_ratio"].sum() > 0.99
