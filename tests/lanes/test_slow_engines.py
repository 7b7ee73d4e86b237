"""Engines whose requests take longer than the usual limits are waited for at their own pace, and hangs are told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from loadtrt.asked.config import RunConfig
from loadtrt.engines.open import open_engine
from loadtrt.lanes.outcome import result_of
from loadtrt.lanes.scheduler import Stop
from loadtrt.lanes.session import Session, run_session
from loadtrt.load.inputs import make_inputs
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtrt.results.run_result import RunResult

pytestmark = pytest.mark.anyio


async def _run(
    simulated: str, on_tick: Callable[..., None] | None = None, **options: object
) -> tuple[RunResult, Session]:
    config = RunConfig.of(engine=f"simulated:{simulated},clock=virtual", **options)
    engine = open_engine(config.model)
    model, session = config.model, Session()
    inputs = [
        arrays
        for tensors in engine.parts
        for arrays in make_inputs(tensors, model.inputs, model.input_sets, model.input_range, model.seed)
    ]
    bill = engine.memory(inputs)
    await run_session(engine, config, inputs, Stop(), session, on_tick)
    result = result_of(session, engine, config, bill, run="", load_ns=0, started="", command=(), environment={})
    engine.close()
    return result, session


@pytest.mark.parametrize("warmup", ["0", "1s", "15s"])
@pytest.mark.parametrize(
    ("simulated", "options"),
    [
        ("service=12s", {"requests": 3}),
        ("service=30s", {"requests": 3}),
        ("service=100s", {"contexts": 2, "buffers": 1, "requests": 8}),
        ("service=12s", {"duration": "1s", "contexts": 4}),
        ("service=2s,contention=1", {"contexts": 4, "buffers": 2, "duration": "10s"}),
        ("service=12s,contention=1", {"contexts": 4, "buffers": 2, "duration": "10s"}),
        ("service=12s,cv=0.5", {"contexts": 3, "duration": "10s", "verify": True}),
        ("service=40s", {"rate": "0.01/s", "arrivals": "constant", "requests": 4, "duration": "1s", "verify": True}),
        ("service=12s", {"contexts": 2, "mix": "1:0.5, 8:0.5", "requests": 9}),
    ],
)
async def test_what_makes_progress_is_waited_for(simulated: str, options: dict[str, Any], warmup: str) -> None:
    """A run completes, and serves all that it sent, however long a request takes."""
    result, session = await _run(simulated, warmup=warmup, **options)
    assert (result.failure, result.outcome) == (None, "completed")
    assert result.model.ok == result.model.submitted > 0
    assert [problem.kind for problem in result.model.problems] == []
    if "verify" in options:
        assert session.verification is not None
        assert session.verification.outputs >= 2


async def test_a_slow_engine_is_not_warmed_up_for_minutes() -> None:
    """Every buffer set works once; five requests each only where they end within ten seconds."""
    result, _ = await _run("service=12s,contention=1", contexts=4, buffers=2, duration="1s")
    assert result.phases.warmup_requests == 8
    swift, _ = await _run("service=200ms", contexts=4, buffers=2, duration="1s")
    assert swift.phases.warmup_requests >= 40


@pytest.mark.parametrize("warmup", ["0", "1s"])
@pytest.mark.parametrize("load", [{}, {"requests": 5}, {"rate": "0.1/s"}])
async def test_an_engine_that_completes_nothing_at_all_is_given_up(load: dict[str, Any], warmup: str) -> None:
    """After two minutes, or --drain where that is longer; the sentence says which option gives it more time."""
    for drain, limit in ((None, "120 s"), ("1s", "120 s"), ("10m", "600 s")):
        hung, _ = await _run(
            "service=1s,hang=0s", duration="1h" if "requests" not in load else None, warmup=warmup, drain=drain, **load
        )
        assert hung.outcome == "failed"
        assert f"the engine completed nothing for {limit}" in str(hung.failure)
        assert "if a request may take so long, raise --drain" in str(hung.failure)
        assert str(hung.failure).startswith("warm-up: ") == (warmup == "1s")


@pytest.mark.parametrize(
    ("service", "hang_s", "limit_s"),
    [("5ms", 50, 10), ("3s", 1000, 10), ("5s", 1000, 15), ("12s", 1000, 36), ("100s", 1000, 300)],
)
async def test_a_hang_is_told_by_the_engines_own_pace(service: str, hang_s: int, limit_s: int) -> None:
    """Ten seconds without a completion, or three times as long as the engine ever took to complete one."""
    hung, _ = await _run(f"service={service},hang={hang_s}s", duration="1h")
    assert hung.outcome == "failed"
    told_s = float(str(hung.failure).partition("nothing for ")[2].split(" s")[0])
    assert told_s == pytest.approx(limit_s, abs=1)


@pytest.mark.parametrize(("service", "hang_s", "served"), [("5ms", 1, 199), ("5ms", 0, 0), ("3s", 8, 2)])
async def test_a_hang_in_warm_up_says_what_was_warmed_up(service: str, hang_s: int, served: int) -> None:
    """Its time and the requests that were served; the remedy is the failure's, and no longer run."""
    hung, _ = await _run(f"service={service},hang={hang_s}s", warmup="10s", requests=50)
    assert str(hung.failure).startswith("warm-up: ")
    assert hung.phases.warmup_requests == served
    assert hung.phases.warmup_ns > 10 * SECOND_NS
    (problem,) = hung.model.problems
    assert (problem.kind, problem.remedy) == ("no-requests", "fix the engine's error, which the run's failure names")


async def test_the_pace_of_warm_up_is_kept() -> None:
    """An engine of 12 s that hangs as measuring begins is given up after 36 s, not after the two minutes of the
    first completion."""
    hung, session = await _run("service=12s,hang=25s", duration="1h")
    assert session.pace_ns == pytest.approx(12 * SECOND_NS, rel=0.02)
    assert "completed nothing for 36" in str(hung.failure)


async def test_a_drain_that_is_asked_for_ends_the_wait_for_the_last_requests() -> None:
    """--drain 1s is kept to, where it is given: what is in flight then is unserved."""
    cut, _ = await _run("service=5s", requests=4, warmup="1s", drain="1s")
    assert (cut.outcome, cut.model.ok, cut.model.unserved) == ("completed", 2, 2)
    whole, _ = await _run("service=5s", requests=4, warmup="1s")
    assert (whole.model.ok, whole.model.unserved) == (4, 0)


async def test_an_overload_is_still_cut_after_ten_seconds() -> None:
    """Requests that were never sent are not waited for: above capacity that would take for ever."""
    over, _ = await _run("service=12s", rate="10/s", arrivals="constant", duration="20s", warmup=0)
    assert over.outcome == "completed"
    assert over.model.unserved > 190
    assert over.phases.drain_ns == pytest.approx(10 * SECOND_NS, rel=0.02)


async def test_progress_counts_all_requests_of_warm_up() -> None:
    """It tells of every second, and its counts never fall."""
    told: list[tuple[str, int, int, int]] = []
    await _run("service=3s", on_tick=lambda *tick: told.append(tick), contexts=2, requests=4)
    warming = [tick for tick in told if tick[0] == "warm-up"]
    assert len(warming) >= 10
    assert [tick[3] for tick in warming] == sorted(tick[3] for tick in warming)
    assert warming[-1][3] > 4
