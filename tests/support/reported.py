"""Results of every kind to make reports of: runs of the simulated engine in virtual time, and what is made of them."""

from __future__ import annotations

from functools import cache
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner

from layer_sides import each, holding
from layer_sides import result as profile_result
from loadtrt.cli.main import cli
from loadtrt.report import chosen_format
from loadtrt.report.comparison_sections import side_of
from loadtrt.report.result_files import Loaded
from loadtrt.results.breakdown import Cohort, ScenarioResult
from loadtrt.results.capacity_result import (
    Candidate,
    CapacityResult,
    ObjectiveCapacity,
    Scaling,
    SkippedPoint,
    SweepPoint,
    SweepResult,
    Trial,
    trimmed,
)
from loadtrt.results.fleet_result import Choice, Comparison, FleetDemand, FleetResult, Gpu, Prediction, Speed
from loadtrt.results.gpu_telemetry import GpuFacts, GpuInterval, GpuTelemetry, SamplingCost
from loadtrt.results.interference_result import InterferenceResult
from loadtrt.results.placement_result import Limit, Placed, Placement, PlacementResult, PlannedModel
from loadtrt.results.repeat_result import RepeatResult
from loadtrt.results.run_result import Finding, ModelResult, Problem, RunResult
from loadtrt.results.steadiness import Steadiness
from loadtrt.stats.profiles import LayerComparison, compare_profiles
from loadtrt.stats.starts import spreads

if TYPE_CHECKING:
    from loadtrt.report.result_files import Result
    from loadtrt.results.profile_result import ProfileResult

HOSTILE = "<script>alert(1)</script>\"'&`|*_[x](http://e.org)\x1b[31m\n# =1+1"
OBJECTIVE = "latency.p99 < 20ms"
LAYERS = (holding("conv1", "relu1"), holding("pool1", kind="Pooling"), holding("fc", kind="MatrixMultiply"))


html_text, markdown_text = (chosen_format(f"-.{suffix}").text for suffix in ("html", "md"))


@cache
def measured(*options: str) -> RunResult:
    """A run of the simulated engine, 200 requests/s for 20 s unless the options say otherwise."""
    with TemporaryDirectory() as folder:
        defaults = {
            "--engine": "simulated:service=5ms,cv=0.4,h2d=300us,d2h=100us,contention=0.5,clock=virtual",
            "--contexts": "2",
        }
        arguments = ["run", "--warmup", "0", "--quiet", "--json", f"{folder}/run.json"]
        arguments += [word for name in defaults.keys() - set(options) for word in (name, defaults[name])]
        arguments += options or ("--rate", "200/s", "--duration", "20s", "--objective", OBJECTIVE)
        CliRunner().invoke(cli, arguments, catch_exceptions=False, standalone_mode=False)
        with open(f"{folder}/run.json", encoding="utf-8") as file:
            return RunResult.model_validate_json(file.read())


def altered(result: RunResult, **changes: Any) -> RunResult:
    """The run with other fields, those of its engine among them as engine_*."""
    fields = {name.removeprefix("engine_"): value for name, value in changes.items() if name.startswith("engine_")}
    data = result.model_dump(mode="json")
    (model,) = data["models"].values()
    model["engine"] |= fields
    others = {name: value for name, value in changes.items() if not name.startswith("engine_")}
    data |= {name: value for name, value in others.items() if name in RunResult.model_fields}
    model |= {name: value for name, value in others.items() if name in ModelResult.model_fields}
    return RunResult.model_validate(data)


def whole_run() -> RunResult:
    """A run that has everything that a run may have."""
    run = measured()
    intervals = tuple(
        interval.model_copy(update={"throttled": 5 <= place < 9}) for place, interval in enumerate(run.model.intervals)
    )
    cohort = Cohort(
        requests=300,
        latency_low_ns=7_000_000,
        latency_high_ns=8_000_000,
        latency_ns=7.5e6,
        queue_ns=1e6,
        h2d_ns=3e5,
        compute_ns=5e6,
        d2h_ns=1e5,
        other_ns=1.1e6,
    )
    return altered(
        run,
        valid=False,
        problems=(Problem(kind="late", evidence="the generator was 3 ms late", remedy="free a core"),),
        findings=(Finding(kind="throttled", evidence="the clock fell", cause="power cap", remedy="lock the clocks"),),
        steadiness=Steadiness(transient_ns=1_500_000_000, drift_ratio=1.1, overloaded=True),
        intervals=intervals,
        cohorts={"p50": cohort, "p99": cohort.model_copy(update={"queue_ns": 9e6, "latency_ns": 1.55e7})},
        profile=profile(),
        telemetry=telemetry(),
        scenario=ScenarioResult(
            scenario="server",
            metric="scheduled inferences a second",
            requests=9,
            by_rules=False,
            reasons=("too short",),
        ),
    )


def two_models() -> RunResult:
    """A run of the models "a", under an open loop, and "b", under a closed one."""
    first, second = measured(), measured("--requests", "2000", "--objective", "latency.p50 < 1ms")
    config = first.config.model_copy(update={"models": {"a": first.config.model, "b": second.config.model}})
    return first.model_copy(update={"models": {"a": first.model, "b": second.model}, "config": config})


def repeated() -> RepeatResult:
    """Three starts of a run, of which the last was INVALID and missed its objective."""
    load = ("--rate", "200/s", "--duration", "20s", "--objective", OBJECTIVE)
    first, second = measured(*load, "--seed", "1"), measured(*load, "--seed", "2")
    third = altered(whole_run(), objectives=first.model.objectives)
    starts = [first, second, third.model_copy(update={"config": first.config.with_model(seed=3)})]
    return RepeatResult(
        loadtrt=first.loadtrt,
        started=first.started,
        command=("loadtrt", "run", "--repeat", "3"),
        config=first.config,
        asked=3,
        outcome="completed",
        runs=tuple(starts),
        spreads=spreads([side_of(f"start {number}", run).measured for number, run in enumerate(starts, 1)]),
    )


def telemetry() -> GpuTelemetry:
    """Twenty seconds of a GPU that told everything but its memory."""
    seconds = tuple(
        GpuInterval(
            start_ns=second * 1_000_000_000,
            duration_ns=1_000_000_000,
            readings=10,
            sm_clock_mean_hertz=1.9e9 - 3e8 * (5 <= second < 9),
            sm_clock_min_hertz=1.5e9,
            sm_clock_max_hertz=1.98e9,
            power_mean_watts=500.0 + second,
            power_max_watts=600.0,
            temperature_max_celsius=60.0,
            utilization_mean_ratio=0.9,
            memory_utilization_mean_ratio=0.3,
            pcie_rx_bytes=10**10,
            pcie_tx_bytes=10**9,
        )
        for second in range(20)
    )
    return GpuTelemetry(
        gpu=GpuFacts(name="NVIDIA H100", max_sm_clock_hertz=1_980_000_000, power_limit_watts=700, slowdown_celsius=89),
        every_ns=100_000_000,
        intervals=seconds,
        power_mean_watts=510.0,
        energy_joules=10_200.0,
        joules_per_inference=2.5,
        throttled_fraction=0.2,
        missing=("memory",),
        cost=SamplingCost(readings=200, lost=0, seconds=0.1, fraction=0.005),
    )


def profile(time_ns: float = 1000.0) -> ProfileResult:
    """A profile of three layers in one pass."""
    return profile_result(each(LAYERS, "plain", time_ns))


def comparison() -> LayerComparison:
    """Two profiles side by side."""
    a, b = profile(), profile(500.0)
    return compare_profiles(a, b)


def sweep() -> SweepResult:
    """Two contexts by two batches, of which one point failed, and one was skipped."""
    run, other = trimmed(measured()), trimmed(measured("--requests", "4000", "--objective", OBJECTIVE))
    points = (
        SweepPoint(settings={"contexts": 1, "batch": 1}, run=run),
        SweepPoint(settings={"contexts": 2, "batch": 1}, run=other),
        SweepPoint(settings={"contexts": 1, "batch": 4}, run=other),
        SweepPoint(settings={"contexts": 2, "batch": 4}, run=None, failure="out of memory"),
    )
    return SweepResult(
        loadtrt="0.1.0",
        started="2026-11-22T15:00:00+00:00",
        command=("loadtrt", "sweep", "--contexts", "1,2,4"),
        config=run.config,
        environment={"host": "vm"},
        axes={"contexts": (1, 2, 4), "batch": (1, 4)},
        outcome="completed",
        points=points,
        skipped=(SkippedPoint(settings={"contexts": 4, "batch": 1}, reason="no gain was left"),),
        pareto=(0, 2),
        knee=2,
    )


SCALING = Scaling(
    alpha_per_s=200.0,
    sigma=0.1,
    kappa=0.01,
    peak_in_flight=9.5,
    most_per_s=420.0,
    knee_in_flight=4,
    error_ratio=0.02,
)


def capacity() -> CapacityResult:
    """A ladder of two, three trials of which one failed, a confirming run; and a candidate that was dropped."""
    run = trimmed(measured())
    missed = trimmed(measured("--rate", "260/s", "--duration", "20s", "--objective", OBJECTIVE))
    closed = trimmed(measured("--requests", "2000", "--objective", OBJECTIVE))
    trials = (
        Trial(kind="ladder", in_flight=1, seed=1, run=closed),
        Trial(kind="ladder", in_flight=4, seed=1, run=closed),
        Trial(kind="search", rate_per_s=260.0, seed=2, run=missed),
        Trial(kind="search", rate_per_s=240.0, seed=3, run=None, failure="the engine hung"),
        Trial(kind="confirm", rate_per_s=200.0, seed=4, run=run),
    )
    found = Candidate(
        contexts=2,
        batch=1,
        buffers=2,
        engine=run.model.engine,
        memory=run.model.memory,
        trials=trials,
        scaling=SCALING,
        predicted_per_s=230.0,
        answer="found",
        estimate_per_s=215.0,
        low_per_s=205.0,
        high_per_s=225.0,
        confirmed_per_s=200.0,
        objectives=(ObjectiveCapacity(objective=OBJECTIVE, rate_per_s=215.0, low_per_s=205.0, high_per_s=225.0),),
        binding=OBJECTIVE,
        feasible_max_per_s=200.0,
        infeasible_min_per_s=260.0,
        boundary="smooth",
        joules_per_inference=0.026,
        conclusion="200 requests/s meet the objective",
    )
    return CapacityResult(
        loadtrt="0.1.0",
        started="2026-11-22T15:00:00+00:00",
        command=("loadtrt", "capacity", "--objective", OBJECTIVE),
        config=run.config,
        environment={"host": "vm"},
        load={"arrivals": "poisson"},
        objectives=(OBJECTIVE,),
        contexts=(1, 2),
        batches=(1,),
        precision=0.03,
        time_ns=300_000_000_000,
        outcome="completed",
        candidates=(found, Candidate(contexts=1, batch=1, buffers=2, dropped="its ladder ends at less")),
        chosen=0,
        reason="2 contexts carry the most",
    )


def fleet() -> FleetResult:
    """Two ways to route, one of which found no answer."""
    item = measured().model.objectives[0]
    seen = Prediction(
        gpus=3,
        utilisation=0.7,
        verdict="met",
        objectives=(item,),
        p50_ns=6e6,
        p50_low_ns=5.9e6,
        p50_high_ns=6.1e6,
    )
    tried = tuple(seen.model_copy(update={"gpus": gpus}) for gpus in (2, 3, 4))
    reason = "3 meet the objective"
    speeds = tuple(Speed(in_flight=n, requests_per_s=180.0 * n**0.6, measured=n != 3) for n in (1, 2, 3, 4))
    return FleetResult(
        loadtrt="0.1.0",
        started="2026-11-22T15:00:00+00:00",
        command=("loadtrt", "plan-capacity", "capacity.json", "--demand", "500/s"),
        sources=("capacity.json",),
        engine=measured().model.engine,
        gpu=Gpu(
            contexts=2,
            buffers=2,
            batch=1,
            speeds=speeds,
            most_per_s=420.0,
            alone_mean_ns=5.5e6,
            alone_cv=0.3,
            scaling=SCALING,
        ),
        demand=FleetDemand(
            now_per_s=500.0,
            growth=0.3,
            headroom=0.0,
            planned_per_s=650.0,
            mean_per_s=650.0,
            arrivals="poisson",
            burstiness=1.0,
        ),
        objectives=(OBJECTIVE,),
        max_utilisation=0.8,
        spares=1,
        gpu_price=2.5,
        seed=1,
        outcome="completed",
        choices=(
            Choice(
                routing="random", gpus=4, needed=3, reason=reason, degraded=seen, tried=tried, cost_per_million=0.27
            ),
            Choice(routing="round-robin", gpus=None, at_least=3, reason="not found in reasonable time"),
        ),
        direct=None,
        checks=(
            Comparison(
                rate_per_s=200.0,
                in_flight=None,
                arrivals="poisson",
                rank=0.99,
                measured_ns=1.5e7,
                measured_low_ns=1.4e7,
                measured_high_ns=1.6e7,
                predicted_ns=1.55e7,
                predicted_low_ns=1.5e7,
                predicted_high_ns=1.6e7,
                error=0.033,
                within=True,
            ),
        ),
        notes=("one rate was above what the engine serves",),
    )


def placement() -> PlacementResult:
    """Two models, of which some share a GPU."""
    demand, objective = fleet().demand, measured().model.objectives[0].objective
    limit = Limit(rate_per_s=250.0, basis="a confirming run (a.json)")
    alone = Placement(limits={"a": limit}, utilisation=0.7)
    shared = "plain streams: a 1 context; b 2 contexts"
    pair = Placement(limits={"a": limit, "b": limit}, shared=shared, utilisation=0.8)
    model = PlannedModel(
        engine=measured().model.engine,
        source="a.json",
        objectives=(objective,),
        demand=demand,
        limit=limit,
        capacity_per_s=260.0,
        low_per_s=250.0,
        high_per_s=270.0,
        most_per_s=350.0,
        gpus=3,
        gpus_least=2,
    )
    return PlacementResult(
        loadtrt="0.1.0",
        started="2026-11-30T12:00:00+00:00",
        command=("loadtrt", "plan-capacity", "a.json", "b.json", "--demand", "a=500/s"),
        sources=("a.json", "b.json"),
        models={"a": model, "b": model},
        measured=(pair,),
        apart=6,
        apart_least=4,
        together=(
            Placed(**dict(alone), gpus=1, rates_per_s={"a": 200.0}),
            Placed(**dict(pair), gpus=3, rates_per_s={"a": 150.0, "b": 210.0}),
        ),
        gpus=4,
        gpus_least=3,
        proven_least=4,
        unmeasured=(("a", "b"),),
        reason="together saves 2 of 6 GPUs",
        max_utilisation=0.8,
        spares=1,
        gpu_price=2.5,
        notes=("one rate was above what the engine serves",),
    )


@cache
def interference() -> InterferenceResult:
    """Two models on one simulated device, with a stressor."""
    device = "device=g,clock=virtual"
    with TemporaryDirectory() as folder:
        arguments = ["interference", "--warmup", "0", "--quiet", "--json", f"{folder}/i.json", "--duration", "2s"]
        arguments += [
            "--model",
            f"a='simulated:service=2ms,{device}'",
            "--model",
            f"b='simulated:service=5ms,{device}'",
        ]
        arguments += [
            "--stressor",
            f"sm='simulated:service=1ms,{device}'",
            "--share",
            "streams,priority",
            "--neighbour",
            "50%",
        ]
        CliRunner().invoke(cli, [*arguments, "--rounds", "2"], catch_exceptions=False, standalone_mode=False)
        with open(f"{folder}/i.json", encoding="utf-8") as file:
            return InterferenceResult.model_validate_json(file.read())


@cache
def every_kind() -> dict[str, Result]:
    """One result of each kind, by the kind's name."""
    return {
        "run": whole_run(),
        "repeat": repeated(),
        "sweep": sweep(),
        "capacity": capacity(),
        "interference": interference(),
        "fleet": fleet(),
        "placement": placement(),
        "profile": profile(),
        "comparison": comparison(),
    }


def loaded(result: Result, file: str = "result.json") -> Loaded:
    return Loaded(file, result)
