"""A run's phases, and that nothing that ends it early loses what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from loadtrt.asked.config import RunConfig
from loadtrt.engines.open import open_engine
from loadtrt.errors import EngineError, UsageError
from loadtrt.lanes.outcome import result_of
from loadtrt.lanes.scheduler import Stop
from loadtrt.lanes.session import Session, run_session
from loadtrt.load.inputs import make_inputs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadtrt.engines.engine import Completion, Engine
    from loadtrt.results.run_result import RunResult

pytestmark = pytest.mark.anyio
MS = 1_000_000


def _config(engine: str, **options: object) -> RunConfig:
    virtual = engine if engine == "simulated:null" else f"simulated:{engine},clock=virtual"
    return RunConfig.of(**{"engine": virtual, "warmup": "100ms", **options})


async def _run(
    config: RunConfig,
    stop: Stop | None = None,
    meddle: Callable[[Engine], None] | None = None,
    on_tick: Callable[..., None] | None = None,
) -> RunResult:
    engine = open_engine(config.model)
    if meddle is not None:
        meddle(engine)
    inputs = make_inputs(
        engine.info.tensors, config.model.inputs, config.model.input_sets, config.model.input_range, config.model.seed
    )
    session = Session()
    bill = engine.memory(inputs)
    try:
        await run_session(engine, config, inputs, stop or Stop(), session, on_tick)
    finally:
        result = result_of(session, engine, config, bill, run="", load_ns=0, started="", command=(), environment={})
        engine.close()
    return result


async def test_a_closed_loop_keeps_every_buffer_set_busy() -> None:
    """X = contexts / S for independent lanes, whatever the buffers; latency = buffers · S (Little's law)."""
    result = await _run(_config("service=5ms", contexts=3, buffers=2, duration="2s"))
    assert result.outcome == "completed"
    assert result.valid
    assert result.model.throughput.requests_per_s == pytest.approx(600, rel=1e-9)
    assert result.model.metrics["latency"].percentiles_ns["p50"] == 10 * MS
    assert result.model.fairness == pytest.approx(1.0)
    assert result.model.overlap is not None
    assert result.model.overlap.lanes_computing == pytest.approx(3.0)
    assert result.model.starved_fraction == 0.0


async def test_requests_and_duration_are_both_met() -> None:
    """Whichever is later ends a run; --max-duration ends it first."""
    assert (await _run(_config("service=5ms", requests=50))).model.ok == 50
    assert (await _run(_config("service=5ms", requests=50, duration="1s"))).model.ok >= 200
    assert (await _run(_config("service=5ms", requests=500, duration="1s"))).model.ok == 500
    capped = await _run(_config("service=5ms", requests=10_000, max_duration="1s"))
    assert 200 <= capped.model.ok <= 202
    assert (
        await _run(_config("service=5ms", rate="100/s", arrivals="constant", requests=50, duration="2s"))
    ).model.ok == 200


async def test_an_open_loop_offers_its_rate_and_serves_it() -> None:
    """Below capacity, throughput is the offered rate, and every request that was due is counted."""
    result = await _run(_config("service=5ms", contexts=2, rate="200/s", arrivals="constant", duration="5s"))
    assert (result.model.ok, result.model.submitted, result.model.unserved) == (1000, 1000, 0)
    assert result.model.throughput.requests_per_s == pytest.approx(200, rel=0.01)
    assert result.model.metrics["queue"].max_ns == 0


async def test_overload_is_not_hidden() -> None:
    """Offered 400/s to a lane of 200/s for 5 s: those left at the drain deadline count, with their age as latency."""
    result = await _run(_config("service=5ms", buffers=1, rate="400/s", arrivals="constant", duration="5s", drain="1s"))
    assert result.model.ok == pytest.approx(1200, abs=3)
    assert result.model.ok + result.model.unserved == 2000
    assert result.model.metrics["latency"].count == 2000
    assert result.model.metrics["latency"].max_ns == pytest.approx(3_000 * MS, rel=0.01)
    assert result.model.throughput.requests_per_s == pytest.approx(200, rel=0.01)
    assert not result.valid
    assert "had not been served when the run ended" in result.model.problems[0].evidence


async def test_stopping_keeps_what_was_measured_and_waits_for_what_is_in_flight() -> None:
    """The first Ctrl-C: nothing more is sent, nothing sent is lost, the result says interrupted."""
    stop = Stop()

    def tick(phase: str, elapsed_ns: int, submitted: int, completed: int) -> None:
        stop.requested = phase == "measure" and elapsed_ns > 1_900 * MS

    result = await _run(_config("service=5ms", contexts=2, duration="60s"), stop, on_tick=tick)
    assert result.outcome == "interrupted"
    assert 700 < result.model.ok < 900
    assert result.model.ok == result.model.submitted
    assert result.model.throughput.requests_per_s == pytest.approx(400, rel=0.01)


async def test_cancelling_keeps_what_was_measured() -> None:
    """The second Ctrl-C: what is in flight is given up and counted as such."""
    config = _config("service=50ms,stall=1000s@1s", contexts=2, duration="60s", drain="2000s")
    engine = open_engine(config.model)
    inputs = make_inputs(engine.info.tensors, config.model.inputs, config.model.input_sets, {}, config.model.seed)
    session = Session()

    with anyio.CancelScope() as scope:

        def tick(phase: str, *_: int) -> None:
            if phase == "measure":
                scope.cancel()

        await run_session(engine, config, inputs, Stop(), session, tick)
    bill = engine.memory(inputs)
    result = result_of(session, engine, config, bill, run="", load_ns=0, started="", command=(), environment={})
    engine.close()
    assert scope.cancelled_caught
    assert result.model.ok > 10
    assert result.model.unserved == 4  # two lanes with two buffer sets each
    assert result.model.metrics["latency"].count == result.model.ok + 4


@pytest.mark.parametrize("method", ["submit", "wait"])
async def test_an_engine_that_breaks_in_the_middle_loses_nothing(method: str) -> None:
    """An EngineError becomes the result's failure; the records until then are in it."""

    def meddle(engine: Engine) -> None:
        whole, calls = getattr(engine, method), 0

        def count() -> None:
            nonlocal calls
            calls += 1
            if calls > 500:
                raise EngineError("the device fell off the bus")

        if method == "submit":

            def submit(lane: int, inputs: int) -> None:
                count()
                whole(lane, inputs)

            engine.submit = submit  # type: ignore[method-assign]
        else:

            async def wait(until_ns: int, *, soon: bool = True) -> Sequence[Completion]:
                count()
                found: Sequence[Completion] = await whole(until_ns, soon=soon)
                return found

            engine.wait = wait  # type: ignore[method-assign]

    result = await _run(_config("service=5ms", contexts=2, duration="60s"), meddle=meddle)
    assert result.outcome == "failed"
    assert result.failure == "the device fell off the bus"
    assert result.model.ok > 100
    assert not result.valid


async def test_failed_requests_are_counted_and_in_no_latency() -> None:
    """ok + failed = submitted; the first error's sentence is kept; such a run is not valid."""
    result = await _run(_config("service=5ms,error=0.1", duration="5s"))
    assert result.model.ok + result.model.failed == result.model.submitted
    assert 60 < result.model.failed < 150
    assert result.model.metrics["latency"].count == result.model.ok
    assert result.model.first_error is not None
    assert "error" in result.model.first_error
    assert not result.valid


async def test_verify_finds_a_race_and_only_a_race() -> None:
    """Outputs of another input set are found; without the fault none differs."""
    clean = await _run(_config("service=5ms", contexts=2, duration="1s", verify=True))
    assert clean.model.verification is not None
    assert clean.model.verification.outputs >= 80
    assert clean.model.verification.different == 0
    assert clean.valid
    raced = await _run(_config("service=5ms,race=0.2", contexts=2, duration="1s", verify=True))
    assert raced.model.verification is not None
    assert 0 < raced.model.verification.different < raced.model.verification.outputs
    assert not raced.valid
    assert "differ from those of a quiet run" in raced.model.problems[-1].evidence


async def test_a_late_generator_makes_a_run_invalid() -> None:
    """Host time of 8 ms a submit at 100/s for two lanes makes lateness: p99 above --max-lateness is INVALID."""
    options = {"contexts": 2, "rate": "100/s", "duration": "20s", "max_lateness": "1ms"}
    assert (await _run(_config("service=5ms", **options))).valid
    late = await _run(_config("service=5ms,enqueue=8ms", **options))
    assert not late.valid
    assert "the generator was" in late.model.problems[0].evidence


async def test_a_host_that_cannot_keep_up_starves_its_lanes() -> None:
    """Enqueue of 4 ms for requests of 1 ms on two lanes: lanes stand idle, and the run says so."""
    starved = await _run(_config("service=1ms,enqueue=4ms", contexts=2, duration="2s", max_lateness="1s"))
    assert starved.model.starved_fraction > 0.5
    assert not starved.valid
    assert "were idle" in starved.model.problems[0].evidence


async def test_same_seed_same_run() -> None:
    """Everything random has a seed: two runs of the simulated device on its own clock agree to the nanosecond."""
    config = _config("service=5ms,cv=0.5", contexts=2, rate="150/s", duration="5s", seed=9)
    first, second = await _run(config), await _run(config)
    other = await _run(config.with_model(seed=10))
    assert first.model.histograms == second.model.histograms
    assert first.model.histograms != other.model.histograms


async def test_warm_up_gives_every_buffer_set_its_work_and_is_not_measured() -> None:
    """At least five requests a buffer set, even where the time is up before; --warmup 0 skips it."""
    slow = await _run(_config("service=200ms", contexts=2, buffers=2, requests=4))
    assert slow.phases.warmup_requests >= 20
    assert slow.model.ok == 4
    none = await _run(_config("service=5ms", requests=4, warmup=0))
    assert none.phases.warmup_requests == 0


async def test_warm_up_waits_for_steady_clocks_but_not_for_ever() -> None:
    """It goes on while the clocks move, ten seconds at most."""
    config = _config("service=5ms", requests=4)
    engine = open_engine(config.model)
    inputs = make_inputs(engine.info.tensors, config.model.inputs, config.model.input_sets, {}, config.model.seed)
    answers = iter([False, False, True])
    session, never = Session(), Session()
    await run_session(engine, config, inputs, Stop(), session, None, lambda: next(answers))
    assert session.clocks_settled
    assert 500 * MS < session.warmup_ns < 2_000 * MS
    await run_session(engine, config, inputs, Stop(), never, None, lambda: False)
    assert never.clocks_settled is False
    assert 10_000 * MS < never.warmup_ns < 11_000 * MS


async def test_impossible_schedules_are_refused() -> None:
    """A schedule that does not fit in memory is the user's to mend."""
    with pytest.raises(UsageError, match="too many to draw"):
        await _run(_config("service=5ms", rate="1M", duration="1h"))


@pytest.mark.parametrize("load", [{}, {"rate": "10/s"}, {"requests": 500}])
async def test_an_engine_that_never_answers_is_given_up(load: dict[str, object]) -> None:
    """After two minutes without any answer, ten seconds without a further one, or --drain if longer."""
    silent = await _run(_config("service=5ms,stall=20h@0s", duration="2s", drain="1s", **load))
    assert silent.outcome == "failed"
    assert "warm-up: the engine completed nothing for 120 s" in str(silent.failure)
    config = _config("service=5ms,stall=20h@1s", duration="1h", drain="1s", warmup=0, **load)
    stalled = await _run(config)
    oldest = stalled.model.metrics["latency"].max_ns
    assert oldest is not None
    assert 9_900 * MS < oldest < 10_400 * MS  # its age when the run gave up
    assert stalled.model.unserved > 0
    assert not stalled.valid
    assert stalled.phases.measure_ns < 2_000 * MS


@pytest.mark.parametrize("load", [{}, {"rate": "150/s"}, {"rate": "150/s", "max_queue": 3}])
async def test_a_run_ends_when_its_device_is_lost(load: dict[str, object]) -> None:
    """At that instant, as failed, with what was measured until then."""
    lost = await _run(_config("service=5ms,lost=30s", duration="1h", warmup=0, **load))
    assert (lost.outcome, lost.valid) == ("failed", False)
    assert lost.failure == "wait failed with cudaErrorLaunchFailure: simulated fault: lost=30s"
    assert lost.phases.measure_ns == pytest.approx(30_000 * MS, rel=0.01)
    assert lost.model.ok == pytest.approx(30 * (150 if load else 200), rel=0.1)
    assert sum(interval.requests for interval in lost.model.intervals) == lost.model.ok
    assert lost.model.metrics["service"].percentiles_ns["p50"] is not None
    problems = [problem for problem in lost.model.problems if problem.kind == "unserved"]
    assert ["when the engine failed" in problem.evidence for problem in problems] == [True]
    assert problems[0].remedy == "fix the engine's error, which the run's failure names"


@pytest.mark.parametrize("load", [{}, {"rate": "150/s"}, {"requests": 10_000}])
async def test_a_run_ends_by_itself_when_its_device_hangs(load: dict[str, object]) -> None:
    """Ten seconds later, or --drain if longer, as failed, with a sentence that says so."""
    hung = await _run(_config("service=5ms,hang=30s", duration="1h", warmup=0, **load))
    assert hung.outcome == "failed"
    assert "the engine completed nothing for 10.0 s, and " in str(hung.failure)
    assert "it hangs; if a request may take so long, raise --drain" in str(hung.failure)
    assert hung.model.unserved > 0
    assert hung.model.metrics["latency"].max_ns == pytest.approx(10_000 * MS, rel=0.02)
    patient = await _run(_config("service=5ms,hang=30s", duration="1h", warmup=0, drain="60s", **load))
    assert "completed nothing for 60.0 s" in str(patient.failure)


async def test_a_slow_request_is_no_hang() -> None:
    """Requests that wait while the engine completes others, and those that the drain leaves behind."""
    overloaded = await _run(
        _config("service=9s", rate="1/s", arrivals="constant", duration="60s", warmup=0, drain="20s")
    )
    assert overloaded.outcome == "completed"
    assert overloaded.model.unserved > 0


async def test_a_completion_stamped_a_little_late_does_not_stop_a_closed_loop() -> None:
    """A GPU instant is off by microseconds: 5 µs in the future must cost 5 µs, not a look-up of 100 ms."""

    def meddle(engine: Engine) -> None:
        whole = engine.wait

        async def wait(until_ns: int, *, soon: bool = True) -> Sequence[Completion]:
            found = await whole(until_ns, soon=soon)
            return [item._replace(completed_ns=item.completed_ns + 5_000) for item in found]

        engine.wait = wait  # type: ignore[method-assign]

    result = await _run(_config("service=5ms", buffers=1, duration="2s"), meddle=meddle)
    assert result.model.throughput.requests_per_s == pytest.approx(200, rel=0.01)


async def test_open_loop_throughput_is_of_the_served_alone_and_unbiased_by_their_stay() -> None:
    """(n − 1) / (t_n − t_1) over the served: failures are none, and a long stay does not lower it."""
    failing = await _run(_config("service=5ms,error=0.5", rate="100/s", arrivals="constant", duration="50s"))
    assert failing.model.throughput.requests_per_s == pytest.approx(50, rel=0.1)
    staying = await _run(_config("service=1s", contexts=200, rate="100/s", arrivals="constant", duration="5s"))
    assert staying.model.ok == 500
    assert staying.model.throughput.requests_per_s == pytest.approx(100, rel=1e-6)


async def test_a_run_that_served_nothing_is_not_valid() -> None:
    """No requests, no verdict in their favour."""
    nothing = await _run(_config("service=5ms", rate="1/h", duration="5s", seed=2))
    assert nothing.model.ok == 0
    assert not nothing.valid
    assert nothing.model.throughput.requests_per_s is None


async def test_what_was_never_sent_leaves_throughput_and_lanes_alone() -> None:
    """A hang after nine seconds of 200/s: measured time ends with the last answer."""
    result = await _run(_config("service=5ms,stall=20h@9s", warmup=0, duration="20s", drain="5s"))
    assert result.model.throughput.requests_per_s == pytest.approx(200, rel=0.01)
    assert result.phases.measure_ns == pytest.approx(9_000 * MS, rel=0.01)


async def test_intervals_cover_every_second() -> None:
    """A stall of three seconds is three empty intervals, not a gap."""
    result = await _run(_config("service=5ms,stall=3s@2s", warmup=0, duration="8s"))
    assert [interval.start_ns for interval in result.model.intervals] == [
        s * 1_000 * MS for s in range(len(result.model.intervals))
    ]
    assert [interval.requests for interval in result.model.intervals][2:5] == [0, 0, 0]


async def test_submitted_counts_what_was_sent_however_the_run_ends() -> None:
    """Not what was due and never sent."""

    def meddle(engine: Engine) -> None:
        whole, calls = engine.submit, 0

        def submit(lane: int, inputs: int) -> None:
            nonlocal calls
            calls += 1
            if calls > 300:
                raise EngineError("the device fell off the bus")
            whole(lane, inputs)

        engine.submit = submit  # type: ignore[method-assign]

    result = await _run(_config("service=50ms", rate="100/s", duration="60s", warmup=0), meddle=meddle)
    assert result.model.submitted == 300
    assert result.model.ok + result.model.unserved > 300


async def test_verify_says_when_it_cannot_see() -> None:
    """With one input set all outputs are alike; differences of integers have no degree, and survive JSON."""
    one = await _run(_config("service=5ms,race=0.5", duration="1s", verify=True, inputs=["zeros"]))
    assert one.model.verification is not None
    assert (one.model.verification.input_sets, one.model.verification.different) == (1, 0)
    again = type(one).model_validate_json(one.model_dump_json())
    assert again == one
