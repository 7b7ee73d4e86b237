"""Many runs in one process: ladders of closed loops, what their law is, and engines that stay open between runs."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

from loadtrt.asked.reading import load_config, varied
from loadtrt.lanes.outcome import result_of
from loadtrt.load.request_sizes import parse_batching
from loadtrt.results.capacity_result import Trial
from loadtrt.runs.narrowed import Part
from loadtrt.sizing.outcomes import host_bound
from loadtrt.sizing.rig import Rig
from loadtrt.sizing.scaling import contradiction, fit, rungs
from rigs import Heard
from runs_by_hand import changed

if TYPE_CHECKING:
    from loadtrt.results.run_result import RunResult

MS = 1_000_000
RANDOM = "simulated:service=1ms,distribution=exponential,clock=virtual"


# --- ladders


@pytest.mark.parametrize(
    ("contexts", "buffers", "in_flight"),
    [
        (1, 1, [1]),
        (1, 2, [1, 2]),
        (2, 2, [1, 2, 4]),
        (3, 2, [1, 2, 3, 6]),
        (4, 3, [1, 2, 4, 8, 12]),
        (8, 1, [1, 2, 4, 8]),
    ],
)
def test_rungs_double_up_to_all_buffer_sets(contexts: int, buffers: int, in_flight: list[int]) -> None:
    """Lanes first, one request each, then more on every lane."""
    assert [part.contexts * part.buffers for part in rungs(contexts, buffers)] == in_flight
    assert all(part.buffers == 1 or part.contexts == contexts for part in rungs(contexts, buffers))
    sizes = [part.batch for part in rungs(contexts, buffers, parse_batching("max=4,sizes=1/4"))]
    assert sizes == [1, 4] * len(in_flight)


@pytest.fixture(scope="module")
def a_run() -> RunResult:
    """Any closed loop, to make rungs of."""
    with Rig(Heard()) as one:
        config = load_config(None, {"engine": "simulated:service=1ms,clock=virtual", "warmup": 0, "requests": 10})
        one.open(config)
        return one.run(config, "")


def _rung(a_run: RunResult, in_flight: int, rate: float) -> Trial:
    throughput = a_run.model.throughput.model_copy(update={"requests_per_s": rate})
    run = changed(a_run, throughput=throughput)
    return Trial(kind="ladder", in_flight=in_flight, seed=1, run=run)


@pytest.mark.parametrize(("sigma", "kappa"), [(0.0, 0.0), (0.1, 0.0), (0.0, 0.01), (0.05, 0.02), (1.0, 0.0)])
def test_the_scalability_law_is_found_again(sigma: float, kappa: float, a_run: RunResult) -> None:
    """From its own values: α, σ and κ to nine digits, and √((1−σ)/κ) as the peak."""
    counts = (1, 2, 4, 8, 16)
    ladder = [_rung(a_run, n, 100 * n / (1 + sigma * (n - 1) + kappa * n * (n - 1))) for n in counts]
    found = fit(ladder)
    assert found is not None
    assert (found.alpha_per_s, found.sigma, found.kappa) == pytest.approx((100, sigma, kappa), abs=1e-9)
    assert found.error_ratio < 1e-9
    assert found.peak_in_flight == (pytest.approx(((1 - sigma) / kappa) ** 0.5) if kappa else None)


def test_a_law_has_no_negative_parts(a_run: RunResult) -> None:
    """Throughput that grows faster than N (caches, clocks) is no contention below zero; one rung is α alone; none is
    no law."""
    found = fit([_rung(a_run, n, rate) for n, rate in ((1, 100), (2, 230), (4, 500))])
    assert found is not None
    assert (found.sigma, found.kappa) == (0, 0)
    assert found.error_ratio > 0.05
    one = fit([_rung(a_run, 1, 80)])
    assert one is not None
    assert (one.alpha_per_s, one.most_per_s, one.knee_in_flight) == pytest.approx((80, 80, 1))
    assert fit([]) is None


@pytest.mark.parametrize(("rates", "unsteady"), [((100, 204, 440), None), ((100, 198, 800), 4), ((100, 400, 300), 2)])
def test_requests_side_by_side_are_not_faster_than_one_alone(
    rates: tuple[int, int, int], unsteady: int | None, a_run: RunResult
) -> None:
    """A ladder in which they are is not of one engine in one state, and names the loop that was; a little faster is
    within what ten requests tell. A ladder of nothing contradicts nothing."""
    sentence = contradiction([_rung(a_run, n, rate) for n, rate in zip((1, 2, 4), rates, strict=True)])
    if unsteady is None:
        assert sentence is None
    else:
        assert (sentence or "").startswith(f"unsteady: {unsteady} requests in flight took ")
        assert "and one alone 10.0 ms" in (sentence or "")
    assert contradiction([]) is None


# --- many runs on one engine


def test_an_engine_stays_open_while_the_load_changes(rig: Rig, opened: list[Any]) -> None:
    """Rate, seed, arrivals, duration and objectives open nothing; another number of contexts does, and closes the one
    before."""
    config = load_config(None, {"engine": RANDOM, "warmup": 0, "requests": 20})
    loads: list[dict[str, Any]] = [
        {},
        {"rate": "50/s", "arrivals": "poisson"},
        {"seed": 7},
        {"objective": ["latency.p99<1s"]},
    ]
    for load in loads:
        one = varied(config, **load)
        rig.open(one)
        assert rig.run(one, "").model.ok == 20
    assert len(opened) == 1
    rig.open(varied(config, contexts=2))
    assert len(opened) == 2
    with pytest.raises(Exception, match="no lane 0"):
        opened[0].submit(0, 0)


def test_a_narrow_loop_has_as_many_in_flight_as_it_says(rig: Rig) -> None:
    """X = N/S and R = S with N of 4 independent lanes, one request each; N/2 lanes' worth of queue with two."""
    options = {"engine": "simulated:service=1ms,clock=virtual", "contexts": 4, "warmup": 0}
    config = load_config(None, {**options, "duration": "1s"})
    rig.open(config)
    for part, rate, latency in (((1, 1), 1000, MS), ((3, 1), 3000, MS), ((4, 1), 4000, MS), ((4, 2), 4000, 2 * MS)):
        run = rig.run(config, "", part)
        assert run.model.throughput.requests_per_s == pytest.approx(rate, rel=0.01)
        assert run.model.metrics["latency"].percentiles_ns["p50"] == latency
        assert (run.config.options()["contexts"], run.config.options()["buffers"]) == part
        assert len(run.model.lanes) == part[0]


def test_what_a_run_left_behind_is_not_the_next_ones(rig: Rig) -> None:
    """Above capacity and without a drain, requests are given up in flight; the next run counts its own alone."""
    config = load_config(None, {"engine": "simulated:service=10ms,clock=virtual", "contexts": 2, "warmup": 0})
    rig.open(config)
    over = rig.run(varied(config, arrivals="poisson", rate="1000/s", duration="1s", drain=0), "")
    assert over.model.unserved > 0
    after = rig.run(varied(config, rate="1/s", arrivals="constant", requests=5), "")
    assert (after.model.ok, after.model.unserved, after.model.submitted) == (5, 0, 5)
    assert after.model.metrics["latency"].max_ns == 10 * MS


def test_only_the_first_run_warms_up_for_long(rig: Rig) -> None:
    """An engine that ran a moment ago is warm: 200 ms instead of all of --warmup."""
    config = load_config(None, {"engine": "simulated:service=1ms,clock=virtual", "warmup": "3s", "requests": 5})
    rig.open(config)
    warmups = [rig.run(config, "").phases.warmup_ns for _ in range(2)]
    assert warmups[0] >= 3000 * MS
    assert 200 * MS <= warmups[1] < 300 * MS


def test_outputs_are_verified_once_an_engine(rig: Rig) -> None:
    """On all lanes, before its first whole run."""
    options = {"engine": "simulated:service=1ms,clock=virtual", "contexts": 2, "warmup": 0, "requests": 5}
    config = load_config(None, {**options, "verify": True})
    rig.open(config)
    runs = [rig.run(config, "", part) for part in ((1, 1), None, None)]
    assert [run.model.verification is None for run in runs] == [True, False, True]


def test_a_late_generator_is_told_by_a_percentile(a_run: RunResult) -> None:
    """Beyond the bound of VALID at the highest percentile that the run supports, p90 to p99; of fewer requests the
    maximum counts, as for the verdict."""
    late = a_run.model.metrics["lateness"]
    bounds = {"p50": 0.0, "p90": 1e9, "p95": None, "p99": None, "p99.9": None}
    metrics = {**a_run.model.metrics, "lateness": late.model_copy(update={"percentiles_ns": bounds, "max_ns": 10**9})}
    assert "late at p90" in (host_bound(changed(a_run, metrics=metrics), MS) or "")
    early = late.model_copy(update={"percentiles_ns": {**bounds, "p90": 0.0}, "max_ns": 10**9})
    assert host_bound(changed(a_run, metrics={**metrics, "lateness": early}), MS) is None
    few = late.model_copy(update={"percentiles_ns": {**bounds, "p90": None}, "max_ns": 10**9})
    assert "late at most" in (host_bound(changed(a_run, metrics={**metrics, "lateness": few}), MS) or "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_run_is_summed_up_stops_after_it(
    number: signal.Signals, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is kept whole, no other is begun, and afterwards signals are what they were."""
    before = signal.getsignal(number)
    config = load_config(None, {"engine": RANDOM, "warmup": 0, "requests": 20})

    def summed_up(*arguments: Any, **keywords: Any) -> RunResult:
        signal.raise_signal(number)
        return result_of(*arguments, **keywords)

    monkeypatch.setattr("loadtrt.lanes.joined.result_of", summed_up)
    with Rig(Heard()) as one:
        one.open(config)
        run = one.run(config, "")
        assert (run.outcome, run.model.ok, one.stopped) == ("completed", 20, True)
        with pytest.raises(KeyboardInterrupt):
            one.open(varied(config, contexts=2))
    assert signal.getsignal(number) == before


def test_a_signal_while_an_engine_is_opened_interrupts_that(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading or building may take minutes."""

    def opening(*_: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("loadtrt.runs.opened.open_engine", opening)
    with pytest.raises(KeyboardInterrupt):
        rig.open(load_config(None, {"engine": RANDOM}))
    assert rig.stopped


def test_batches_of_one_size_run_on_an_engine_of_several(rig: Rig, opened: list[Any]) -> None:
    """A closed loop of batches of 4 on the open engine of a batcher: their service, their inputs, and their inferences;
    the next run has all sizes again."""
    engine = "simulated:service=1ms,item=1ms,clock=virtual"
    options = {"engine": engine, "contexts": 2, "batcher": "max=8,delay=2ms", "warmup": 0, "rate": "100/s"}
    config = load_config(None, {**options, "duration": "2s"})
    rig.open(config)
    run = rig.run(varied(config, arrivals="closed", batch=4), "", Part(2, 1, 4))
    assert run.model.throughput.requests_per_s == pytest.approx(2 * 200, rel=0.01)
    assert run.model.metrics["latency"].percentiles_ns["p50"] == 5 * MS
    assert run.model.inferences == 4 * run.model.ok
    assert (run.model.engine.batch, run.config.model.batch, run.config.model.batcher) == (4, 4, None)
    assert [tensor.shape for tensor in run.model.engine.tensors] == [(4, 16), (4, 16)]
    whole = rig.run(config, "")
    assert whole.model.batches is not None
    assert whole.model.inferences == whole.model.ok
    assert len(opened) == 1


def test_parts_of_a_mix_run_on_a_part_of_the_lanes(rig: Rig) -> None:
    """Closed loops and open ones: inferences are those of the sizes that were drawn."""
    engine = "simulated:service=1ms,item=1ms,clock=virtual"
    config = load_config(None, {"engine": engine, "contexts": 2, "mix": "1:0.5, 3:0.5", "warmup": 0, "duration": "4s"})
    rig.open(config)
    for part in ((1, 1), (2, 2)):
        run = rig.run(config, "", part)
        assert run.model.inferences is not None
        assert run.model.inferences / run.model.ok == pytest.approx(2, rel=0.05)
        assert [share.name for share in run.model.mix] == ["1", "3"]
