"""Which way of submitting is chosen as warm-up begins, by engines whose ways differ in speed, in virtual time."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import pytest

from loadtrt.asked.config import RunConfig
from loadtrt.engines.engine import Submits
from loadtrt.lanes.session import Session, run_session
from loadtrt.load.inputs import make_inputs
from loadtrt.runs.watched import facts_of
from loadtrt.units import MILLISECOND_NS as MS
from loadtrt.units import SECOND_NS
from ways_of_submitting import Ways

pytestmark = pytest.mark.anyio


async def _run(engine: Ways, config: RunConfig, *, allocated: bool = False) -> Session:
    inputs = make_inputs(engine.info.tensors, ("random",), config.model.input_sets, {}, config.model.seed)
    session = Session()
    await run_session(engine, config, inputs, engine.stop, session, allocated=allocated)
    return session


def _config(**options: Any) -> RunConfig:
    return RunConfig.of(**{"engine": "simulated:null", "warmup": "100ms", "requests": 50, "input_sets": 2, **options})


@pytest.mark.parametrize("contexts", [1, 3])
@pytest.mark.parametrize(
    ("micros", "chosen"),
    [
        ({"graph": 200, "apart": 100}, "apart"),
        ({"apart": 200, "graph": 100}, "graph"),
        ({"graph": 100, "apart": 200}, "graph"),
        ({"graph": 1000, "apart": 990}, "graph"),  # 1 % faster is not enough
        ({"graph": 1000, "apart": 960}, "apart"),
        ({"graph": 1000, "apart": 1000}, "graph"),
        ({"graph": 1000, "apart": 900, "third": 800}, "third"),
    ],
)
async def test_the_faster_way_is_used(micros: dict[str, int], chosen: str, contexts: int) -> None:
    """The usual way unless another serves 2 % more; the result has the rates of all, which are those of the law, and
    nothing of the trials is among the requests that are measured."""
    config = _config(contexts=contexts)
    engine = Ways(config.model, micros)
    assert isinstance(engine, Submits)
    session = await _run(engine, config)
    assert session.failure is None
    assert engine.info.mode["submit"] == chosen
    assert engine.info.submit_rates == pytest.approx({way: contexts * 1e6 / took for way, took in micros.items()})
    assert session.recorder is not None
    assert session.recorder.seen == 50
    assert {int(ns) for ns in session.recorder.records.compute} == {1000 * micros[chosen]}


async def test_ways_take_turns_and_half_a_second_is_enough() -> None:
    """Each is tried four times, in an order that a device that gets faster or slower all the time does not deceive."""
    config = _config()
    engine = Ways(config.model, {"graph": 100, "apart": 110})
    await _run(engine, config)
    assert [way for way, _ in engine.used] == [0, 1, 1, 0, 0, 1, 1, 0, 0]
    assert engine.used[-1][1] - engine.used[0][1] < SECOND_NS // 2


@pytest.mark.parametrize("micros", [11_000, 500_000, 5_000_000])
async def test_a_slow_engine_keeps_its_usual_way(micros: int) -> None:
    """It has a single trial, in which a buffer set serves no more requests than in 80 ms, or one."""
    config = _config(requests=2)
    engine = Ways(config.model, {"graph": micros, "apart": micros // 2})
    await _run(engine, config)
    assert [way for way, _ in engine.used] == [0, 0]
    assert engine.used[1][1] - engine.used[0][1] <= max(100 * MS, 2 * 1000 * micros)
    assert engine.info.submit_rates == {"graph": None, "apart": None}


async def test_a_run_that_is_stopped_in_a_trial_measures_nothing() -> None:
    """It ends at once, in the usual way, and nothing is left in flight."""
    config = _config()
    engine = Ways(config.model, {"graph": 200, "apart": 100})
    engine.stop_at = 50 * MS
    session = await _run(engine, config)
    assert session.interrupted
    assert session.recorder is None
    assert engine.info.mode["submit"] == "graph"
    assert engine.info.submit_rates == {"graph": None, "apart": None}
    assert engine.now_ns() < 51 * MS
    assert not any(engine._in_flight)


async def test_an_engine_that_hangs_in_a_trial_is_given_up() -> None:
    """As in any other phase: the run fails with the sentence that says so."""
    config = _config()
    session = await _run(Ways(config.model, {"graph": 200, "apart": 100}, ",hang=30ms"), config)
    assert "warm-up: the engine completed nothing for" in (session.failure or "")


@pytest.mark.parametrize(("micros", "options"), [({"apart": 100}, {}), ({"graph": 200, "apart": 100}, {"warmup": 0})])
async def test_nothing_is_tried_without_a_choice_or_warm_up(micros: dict[str, int], options: dict[str, Any]) -> None:
    """One way, as where the user forces it; or no phase to try in: the result says that they were not tried."""
    config = _config(**options)
    engine = Ways(config.model, micros)
    session = await _run(engine, config)
    assert session.failure is None
    assert not engine.used
    assert engine.info.mode["submit"] == next(iter(micros))
    assert engine.info.submit_rates == dict.fromkeys(micros)


async def test_lanes_that_are_used_again_keep_their_way() -> None:
    """The second run on the same lanes tries nothing, and has the way and the rates of the first."""
    config = _config()
    engine = Ways(config.model, {"graph": 200, "apart": 100})
    await _run(engine, config)
    tried, info = len(engine.used), engine.info
    await _run(engine, config, allocated=True)
    assert (len(engine.used), engine.info) == (tried, info)


async def test_outputs_are_verified_as_they_are_measured() -> None:
    """The way is chosen before: no request of verification is submitted in another than those of the measurement."""
    config = _config(verify=True)
    engine = Ways(config.model, {"graph": 200, "apart": 100})
    phases: list[tuple[str, str]] = []
    inputs = make_inputs(engine.info.tensors, ("random",), config.model.input_sets, {}, config.model.seed)
    session = Session()

    def tick(phase: str, *_: int) -> None:
        phases.append((phase, engine.info.mode["submit"]))

    await run_session(engine, config, inputs, engine.stop, session, tick)
    told = [each for each, _ in groupby(phases)]
    assert told == [("warm-up", "graph"), ("verify", "apart"), ("warm-up", "apart"), ("measure", "apart")]
    assert session.verification is not None
    assert session.verification.outputs >= 20


async def test_observers_are_told_no_way_that_may_change() -> None:
    """Labels of metrics stay as they are when a run begins: a way is among them once it was chosen."""
    config = _config()
    engine = Ways(config.model, {"graph": 200, "apart": 100})
    engine.allocate([])
    assert "submit" not in facts_of("run", config, engine, 2).information
    await _run(engine, config)
    assert facts_of("run", config, engine, 2).information["submit"] == "apart"
