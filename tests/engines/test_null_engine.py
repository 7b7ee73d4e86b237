"""The null engine adds nothing of its own: what is measured on it is the load generator."""

from __future__ import annotations

import itertools
import time
import types

import anyio
import numpy as np
import pytest

from loadtrt.engines import simulated
from loadtrt.engines.simulated import NullEngine
from loadtrt.units import NEVER

pytestmark = pytest.mark.anyio

INPUTS = [{"x": np.full((1, 16), number, np.float32)} for number in range(3)]


async def test_the_null_engine_completes_at_the_instant_of_submission() -> None:
    """submitted ≤ completed ≤ the end of submit on perf_counter_ns, all phases 0, buffer sets in turn, no waiting."""
    engine = NullEngine(contexts=2, buffers=2)
    engine.allocate(INPUTS)
    before = time.perf_counter_ns()
    for lane, inputs in ((1, 0), (0, 2), (1, 1)):
        engine.submit(lane, inputs)
    after = engine.now_ns()
    completions = await engine.wait(NEVER)
    assert [(c.lane, c.buffer, c.h2d_ns, c.compute_ns, c.d2h_ns, c.error) for c in completions] == [
        (1, 0, 0, 0, 0, None),
        (0, 0, 0, 0, 0, None),
        (1, 1, 0, 0, 0, None),
    ]
    assert all(before <= completion.completed_ns <= after for completion in completions)
    assert [engine.outputs(c.lane, c.buffer)["y"][0, 0] for c in completions] == [0.0, 4.0, 2.0]
    assert not await engine.wait(0)
    engine.close()


async def test_the_null_engine_gives_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that submits and waits for ever lets other tasks run each millisecond, so it can be cancelled."""
    ticks = itertools.count(0, 100_000)
    monkeypatch.setattr(simulated, "time", types.SimpleNamespace(perf_counter_ns=lambda: next(ticks)))
    engine = NullEngine()
    engine.allocate(INPUTS)
    with anyio.CancelScope() as scope:
        scope.cancel()
        for _ in range(13):
            engine.submit(0, 0)
            assert await engine.wait(0)
    assert scope.cancelled_caught
