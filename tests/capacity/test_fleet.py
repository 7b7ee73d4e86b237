"""`loadtrt plan-capacity`: measurements and a demand → GPUs. The measurements are of the simulated engine."""

from __future__ import annotations

import dataclasses
import itertools
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.queues import allen_cunneen, markov_quantile
from loadtrt.asked.config import RunConfig
from loadtrt.asked.objective import parse_objective
from loadtrt.asked.reading import varied
from loadtrt.cli.main import cli
from loadtrt.errors import EXIT_INTERRUPTED, EXIT_MISSED, EXIT_UNDECIDED, UsageError
from loadtrt.load.arrivals import parse_stages
from loadtrt.load.trace import Trace
from loadtrt.records.histogram import Histogram
from loadtrt.report.plain import terminal_text
from loadtrt.report.result_files import read_result
from loadtrt.results.breakdown import ConfidenceInterval
from loadtrt.results.capacity_result import Candidate, CapacityResult, SweepPoint, SweepResult, Trial, trimmed
from loadtrt.results.fleet_result import ROUTINGS, Comparison, FleetResult
from loadtrt.results.flow import Flow
from loadtrt.results.gpu_telemetry import GpuFacts, GpuTelemetry, SamplingCost
from loadtrt.results.repeat_result import RepeatResult
from loadtrt.results.run_result import RunResult
from loadtrt.sizing import fleet_prediction
from loadtrt.sizing.demand import fewest_for, staged_demand, steady_demand, traced_demand
from loadtrt.sizing.evidence import evidence_of
from loadtrt.sizing.fleet_check import doubt_of
from loadtrt.sizing.fleet_plan import plan_fleet
from loadtrt.sizing.fleet_prediction import predict
from loadtrt.sizing.measured_law import heavy_tail, pooled
from loadtrt.sizing.planning import read_sources
from loadtrt.sizing.station import Station
from loadtrt.units import SECOND_NS
from runs_by_hand import changed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from loadtrt.results.fleet_result import Choice, Routing
    from loadtrt.sizing.evidence import Evidence

OBJECTIVE = "latency.p99 < 30ms"
MM2 = "simulated:service=5ms,distribution=exponential,clock=virtual"  # two contexts: M/M/2, 400/s at most


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer requests: verdicts are the same, but for sizes near the boundary, which stay undecided."""
    monkeypatch.setattr(fleet_prediction, "_COUNTED", 2000)
    monkeypatch.setattr(fleet_prediction, "_BEYOND", 10)
    monkeypatch.setattr(fleet_prediction, "_LEADS", 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """run.json of closed loops of one and two contexts, each with one buffer set, and of an open one at 280/s."""
    made = tmp_path_factory.mktemp("runs")
    for name, options in (
        ("one", ["--contexts", "1", "--requests", "20000"]),
        ("two", ["--contexts", "2", "--requests", "20000"]),
        ("open", ["--contexts", "2", "--rate", "280/s", "--requests", "40000", "--objective", OBJECTIVE]),
    ):
        arguments = ["run", "--engine", MM2, "--buffers", "1", "--warmup", "0", "--quiet", *options]
        CliRunner().invoke(cli, [*arguments, "--json", str(made / f"{name}.json")], standalone_mode=False)
    return made


@pytest.fixture(scope="module")
def runs(folder: Path) -> dict[str, RunResult]:
    return {name: read_result(RunResult, folder / f"{name}.json") for name in ("one", "two", "open")}


@pytest.fixture(scope="module")
def evidence(runs: dict[str, RunResult]) -> Evidence:
    return evidence_of(tuple(runs.values()))


@pytest.fixture
def plan(evidence: Evidence) -> Callable[..., FleetResult]:
    """A plan for 3000/s under random routing alone, but for what the test says."""

    def made(objective: str = OBJECTIVE, **options: Any) -> FleetResult:
        grown = {key: options.pop(key) for key in ("growth", "headroom", "burstiness") if key in options}
        demand = options.pop("demand", None) or steady_demand(options.pop("rate", 3000.0), **grown)
        options = {"routings": ("random",), "max_utilisation": 0.85, "evidence": evidence, **options}
        return plan_fleet(demand=demand, objectives=[parse_objective(objective)], **options)

    return made


def only(result: FleetResult) -> Choice:
    assert len(result.choices) == 1
    return result.choices[0]


def with_power(run: RunResult, watts: float) -> RunResult:
    cost = SamplingCost(readings=1, lost=0, seconds=0.0, fraction=0.0)
    telemetry = GpuTelemetry(
        gpu=GpuFacts(name="GPU"),
        every_ns=SECOND_NS,
        intervals=(),
        power_mean_watts=watts,
        energy_joules=None,
        joules_per_inference=None,
        throttled_fraction=None,
        missing=(),
        cost=cost,
    )
    return run.model_copy(update={"telemetry": telemetry})


def capacity_of(runs: dict[str, RunResult], **answer: Any) -> CapacityResult:
    """A capacity.json of these runs: the ladder, and the open one as a confirming run."""
    trials = (
        Trial(kind="ladder", in_flight=1, seed=1, run=trimmed(runs["one"])),
        Trial(kind="ladder", in_flight=2, seed=1, run=trimmed(runs["two"])),
        Trial(kind="confirm", rate_per_s=280.0, seed=2, run=trimmed(runs["open"])),
    )
    engine, bill = runs["two"].model.engine, runs["two"].model.memory
    candidate = Candidate(contexts=2, batch=1, buffers=1, engine=engine, memory=bill, trials=trials, **answer)
    return CapacityResult(
        loadtrt="0",
        started="",
        command=(),
        config=RunConfig.of(engine="x"),
        environment={},
        load={},
        objectives=(OBJECTIVE,),
        contexts=(2,),
        batches=(1,),
        precision=0.03,
        time_ns=600 * SECOND_NS,
        outcome="completed",
        candidates=(candidate,),
        chosen=0,
    )


def without_flow(runs: dict[str, RunResult]) -> dict[str, RunResult]:
    """As files of earlier versions are."""
    return {name: changed(run, flow=None) for name, run in runs.items()}


# --- how many


def test_random_routing_needs_what_m_m_2_says(plan: Callable[..., FleetResult]) -> None:
    """Each GPU is M/M/2 with Poisson arrivals of its own: the fewest whose p99 is within the bound lies between what
    was shown to be too few and what was shown to be enough."""

    def p99_ms(gpus: int) -> float:
        waiting = allen_cunneen(2, 3000 / gpus, 0.005, 1.0, 1.0)
        return float("inf") if waiting is None else 1000 * markov_quantile(0.99, waiting, 0.005)

    law = next(gpus for gpus in range(1, 100) if p99_ms(gpus) < 30)
    found = only(plan())
    assert found.needed is not None
    assert found.at_least is not None
    assert found.at_least <= law <= found.needed <= law + 3
    assert found.binding == OBJECTIVE
    assert found.degraded is not None
    assert found.degraded.verdict == "met"
    assert [item.verdict for item in found.tried if item.gpus < found.needed].count("met") == 0


def test_better_routing_needs_fewer(plan: Callable[..., FleetResult]) -> None:
    """least-outstanding ≤ others ≤ random, and here each is strictly better than random. The first line says so."""
    result = plan(routings=ROUTINGS, spares=1, gpu_price=2.0)
    assert [choice.routing for choice in result.choices] == list(ROUTINGS)
    needed = [choice.needed or 0 for choice in result.choices]
    assert needed[0] > max(needed[1:3])
    assert min(needed[1:3]) >= needed[3] > 0
    text = " ".join(terminal_text(result).split())
    assert f"{needed[0]} GPUs + 1 spare under random routing (a Kubernetes service by iptables), " in text
    assert f", {needed[1]} + 1 under " in text
    assert f"{(needed[0] + 1) * 1460:,} to ".replace(",", " ") in text
    assert " a month at 2 a GPU hour demand: " in text


@pytest.mark.parametrize("routing", ["random", "round-robin", "least-outstanding"])
def test_more_gpus_never_hurt(evidence: Evidence, routing: Routing) -> None:
    """The share of requests above the bound falls from one size to the next, but for chance."""
    objective = [parse_objective("latency.p99 < 20ms")]
    found = [predict(steady_demand(3000.0), evidence.law, routing, gpus, objective, 1) for gpus in range(8, 16)]
    bad = [item.objectives[0].requests - item.objectives[0].good for item in found]
    share = [each / item.objectives[0].requests for each, item in zip(bad, found, strict=True)]
    assert all(more <= fewer + 0.002 for fewer, more in itertools.pairwise(share))
    assert share[-1] < share[0] / 2
    assert [item.utilisation for item in found] == pytest.approx([3000 / gpus / 400 for gpus in range(8, 16)], rel=0.02)


def test_growth_and_headroom_compose(plan: Callable[..., FleetResult]) -> None:
    """planned = now · (1 + growth) · (1 + headroom), and what is needed follows from planned alone."""
    grown, plain = plan(growth=0.3, headroom=0.2), plan(rate=3000 * 1.3 * 1.2)
    assert grown.demand.planned_per_s == pytest.approx(3000 * 1.56)
    assert grown.demand.mean_per_s == pytest.approx(3000 * 1.3)
    assert only(grown).needed == only(plain).needed


def test_spares_come_on_top(plan: Callable[..., FleetResult]) -> None:
    """N + k: with k away the rest is what is needed without spares; with all there it is faster and less busy."""
    bare, spared = only(plan()), only(plan(spares=2))
    assert bare.needed is not None
    assert (spared.needed, spared.gpus) == (bare.needed, bare.needed + 2)
    assert spared.degraded == bare.degraded
    assert spared.degraded is not None
    assert spared.whole is not None
    assert spared.whole.gpus == spared.gpus
    assert spared.whole.utilisation < spared.degraded.utilisation
    assert bare.whole == bare.degraded


def test_utilisation_binds_where_the_objective_does_not(plan: Callable[..., FleetResult]) -> None:
    """The fewest with Λ / (G · X) within the limit, X the lower end of its interval; by the upper end fewer may do."""
    result = plan("latency.p99 < 10s", max_utilisation=0.5)
    found = only(result)
    low, high = result.gpu.most_low_per_s or 0.0, result.gpu.most_high_per_s or 0.0
    assert found.binding == "utilisation"
    assert 0 < low < result.gpu.most_per_s < high < 1.05 * low
    assert found.needed == fewest_for(3000, 0.5 * low)
    assert found.at_least == fewest_for(3000, 0.5 * high)


def test_one_gpu_may_be_enough(plan: Callable[..., FleetResult]) -> None:
    """And is never less than one."""
    assert only(plan("latency.p99 < 10s", rate=0.1)).gpus == 1


def test_no_number_is_enough_for_what_one_request_alone_misses(plan: Callable[..., FleetResult]) -> None:
    """p99 of an exponential service of 5 ms is 23 ms: no bound below that can be met."""
    found = only(plan("latency.p99 < 15ms"))
    assert found.infeasible
    assert (found.gpus, found.needed, found.degraded) == (None, None, None)
    assert "4.9 to 5.3 % of requests take longer than 15.0 ms even alone" in found.reason


def test_a_bound_just_above_what_one_request_takes_alone_is_given_up_in_time(
    plan: Callable[..., FleetResult],
) -> None:
    """Where the measurements do not tell whether even an idle GPU meets it, nothing is simulated."""
    found = only(plan("latency.p99 < 23.2ms", rate=30.0))
    assert (found.gpus, found.infeasible, found.tried) == (None, False, ())
    assert "0.9 to 1.1 % of requests take longer than 23.2 ms even alone on a GPU" in found.reason


def test_bursts_need_more(plan: Callable[..., FleetResult]) -> None:
    """CV 4 asks for more GPUs than Poisson, Poisson for no fewer than constant gaps."""
    needed = [only(plan(routings=("least-outstanding",), burstiness=cv)).needed or 0 for cv in (0.0, 1.0, 4.0)]
    assert 0 < needed[0] <= needed[1] < needed[2]


def test_several_objectives_must_all_hold(plan: Callable[..., FleetResult], evidence: Evidence) -> None:
    """The stricter one binds, in either order."""
    both = [parse_objective("latency.p50 < 1s"), parse_objective(OBJECTIVE)]
    for objectives in (both, both[::-1]):
        result = plan_fleet(evidence, steady_demand(3000.0), objectives, routings=("random",), max_utilisation=0.85)
        assert only(result).binding == OBJECTIVE
        assert only(result).needed == only(plan()).needed


def test_the_same_seed_gives_the_same_plan(plan: Callable[..., FleetResult]) -> None:
    """And another seed other numbers."""
    first, again, other = (only(plan(routings=("least-outstanding",), seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert first.degraded != other.degraded


def test_a_stop_keeps_what_there_is(plan: Callable[..., FleetResult]) -> None:
    """Asked to stop once random routing is done, the plan holds that, and says that it was interrupted."""
    said: list[str] = []
    result = plan(
        routings=("random", "least-outstanding"), say=said.append, stopped=lambda: "outstanding" in "".join(said)
    )
    assert result.outcome == "interrupted"
    assert [choice.routing for choice in result.choices] == ["random"]
    assert "INTERRUPTED" in terminal_text(result)


def test_a_plan_ends_in_time(plan: Callable[..., FleetResult], monkeypatch: pytest.MonkeyPatch) -> None:
    """After so many requests the answer is the fewest that were shown to do until then, if any; TensorRT says so."""

    def simulated(choice: Choice) -> int:
        return sum(item.objectives[0].requests for item in choice.tried)

    assert simulated(only(plan())) > 150_000
    reasons = []
    for most in (30_000, 150_000):
        monkeypatch.setattr("loadtrt.sizing.fleet_plan._MOST_SIMULATED", most)
        found = only(plan())
        assert 0 < simulated(found) <= most
        assert not found.infeasible
        assert found.needed == min((item.gpus for item in found.tried if item.verdict == "met"), default=None)
        reasons.append(found.reason)
    assert all("the simulation ended at its limit" in reason for reason in reasons)


def test_a_queue_that_never_settles_is_not_sure_to_meet_anything(
    evidence: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is followed for a while, from when it was empty: too short to be sure, and long enough to miss."""
    monkeypatch.setattr(fleet_prediction, "_MOST_SETTLING", 1000)
    near, far = steady_demand(395.0, burstiness=10.0), steady_demand(40.0)
    verdicts = {
        text: predict(near, evidence.law, "random", 1, [parse_objective(text)], 1).verdict
        for text in ("latency.p99 < 1000s", "latency.p99 < 1ms")
    }
    assert verdicts == {"latency.p99 < 1000s": "undecided", "latency.p99 < 1ms": "missed"}
    assert predict(far, evidence.law, "random", 1, [parse_objective("latency.p99 < 1000s")], 1).verdict == "met"


def test_no_more_gpus_are_simulated_than_are_said(
    plan: Callable[..., FleetResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where these are not enough, nothing is called impossible."""
    monkeypatch.setattr("loadtrt.sizing.fleet_plan._MOST_GPUS", 10)
    found = only(plan("latency.p99 < 23.6ms"))
    assert (found.gpus, found.infeasible) == (None, False)
    assert max(item.gpus for item in found.tried) == 10
    assert "larger fleets than 2 000 GPUs are not simulated" in found.reason


# --- what the measurements do not tell


def test_few_requests_leave_more_sizes_open(runs: dict[str, RunResult]) -> None:
    """The same law from a thirtieth of the requests: the interval is wider, more GPUs are needed to be sure, and
    smaller sizes may be enough, which the table says once for all routing policies."""
    plans = []
    for part in (1, 30):
        fewer = {name: changed(run, flow=thinned(run, part)) for name, run in runs.items()}
        evidence = evidence_of(capacity_of(fewer))
        objectives = [parse_objective(OBJECTIVE)]
        plans.append(
            plan_fleet(evidence, steady_demand(6000.0), objectives, routings=("random",), max_utilisation=0.95)
        )
    many, few = map(only, plans)
    assert many.needed is not None
    assert few.needed is not None
    assert few.at_least is not None
    assert many.needed < few.needed
    assert few.at_least <= (many.at_least or 0)
    widths = []
    for choice in (many, few):
        assert choice.degraded is not None
        (share,) = choice.degraded.objectives
        widths.append((share.value_high_ns or 0.0) / (share.value_low_ns or 1.0))
    assert np.log(widths[1]) > 2 * np.log(widths[0]) > 0
    text = " ".join(terminal_text(plans[1]).split())
    assert f"{few.at_least}–{few.needed - 1}" in text
    assert text.count("a longer search (capacity --time) or longer runs would tell") == 1
    assert [plan.gpu.requests for plan in plans] == [80_000, 2665]


def test_requests_too_few_to_tell_whether_one_alone_is_fast_enough(runs: dict[str, RunResult]) -> None:
    """No number of GPUs is sure then, and none impossible: the reason says so, and no fleet is simulated."""
    few = evidence_of(capacity_of({name: changed(run, flow=thinned(run, 200)) for name, run in runs.items()}))
    found = only(plan_fleet(few, steady_demand(6000.0), [parse_objective("latency.p99 < 24ms")], routings=("random",)))
    assert (found.gpus, found.infeasible, found.tried) == (None, False, ())
    assert "so far as 400 requests tell: measure for longer" in found.reason


@pytest.mark.parametrize(("cv", "heavy"), [(0.5, False), (1.0, False), (2.0, True), (3.0, True)])
def test_service_times_with_a_heavy_tail_are_told(cv: float, heavy: bool) -> None:
    """Of a lognormal law with CV 2 or more no sample of usual size knows the tail, on which queues depend."""
    work = Histogram()
    variance = np.log1p(cv**2)
    drawn = np.random.default_rng(1).lognormal(-variance / 2, variance**0.5, 50_000)
    work.add(np.rint(drawn * 1e6).astype(np.int64))
    flow = Flow(levels=(1,), starts=(5e4,), seconds=((500.0,),), requests=50_000, work=work.to_dict())
    assert (heavy_tail(pooled(1, 1, [flow], [flow])) is not None) is heavy


def thinned(run: RunResult, part: int) -> Flow:
    """The flow of as few requests as that part of them."""
    flow = run.model.flow
    assert flow is not None
    work = Histogram.from_dict(flow.work)
    work.counts[:] = np.random.default_rng(part).multinomial(flow.requests // part, work.counts / work.count)
    return Flow(
        levels=flow.levels,
        starts=tuple(number / part for number in flow.starts),
        seconds=tuple(tuple(time / part for time in row) for row in flow.seconds),
        requests=flow.requests // part,
        work=work.to_dict(),
    )


def test_files_of_earlier_versions_are_closed_loops(runs: dict[str, RunResult], evidence: Evidence) -> None:
    """Without a flow, X is the loops' throughput, and the latencies of a request alone are its work."""
    found = evidence_of(capacity_of(without_flow(runs)))
    for speed, run in zip(found.gpu.speeds, (runs["one"], runs["two"]), strict=True):
        assert speed.requests_per_s == pytest.approx(run.model.throughput.requests_per_s)
    assert found.gpu.alone_cv == pytest.approx(evidence.gpu.alone_cv, rel=0.03)
    assert found.gpu.requests == 40_000


def test_what_was_met_is_not_impossible(runs: dict[str, RunResult]) -> None:
    """A short first rung may have more slow requests than the objective allows, and a confirming run have met it."""
    slow = Histogram()
    slow.add(np.array([5_000_000] * 180 + [40_000_000] * 20))
    flow = Flow(levels=(1,), starts=(200.0,), seconds=((1.7,),), requests=200, work=slow.to_dict())
    alone = changed(runs["one"], flow=flow)
    met = runs["open"].model.objectives[0].model_copy(update={"verdict": "met"})
    for share, infeasible in ((met, False), (met.model_copy(update={"verdict": "missed"}), True)):
        confirmed = changed(runs["open"], objectives=(share,), flow=None)
        two = changed(runs["two"], flow=None)
        evidence = evidence_of(capacity_of({"one": alone, "two": two, "open": confirmed}))
        found = plan_fleet(evidence, steady_demand(100.0), [parse_objective(OBJECTIVE)], routings=("random",))
        assert only(found).infeasible is infeasible


def test_a_model_that_differs_from_measurements_leaves_the_plan_undecided(
    runs: dict[str, RunResult], tmp_path: Path
) -> None:
    """Predictions a third below what all runs measured are no chance: exit code 98, and what to do."""
    latency = runs["open"].model.metrics["latency"]
    p99 = latency.percentiles_ns["p99"]
    assert p99 is not None
    for factor, doubtful in ((1.0, False), (1.5, True), (0.6, True)):
        metrics = {
            "latency": latency.model_copy(
                update={"percentiles_ns": {**latency.percentiles_ns, "p99": factor * p99}, "margins": {"p99": 0.05}}
            )
        }
        other = changed(runs["open"], metrics={**runs["open"].model.metrics, **metrics})
        file = tmp_path / f"{factor}.json"
        file.write_text(capacity_of({**runs, "open": other}).model_dump_json())
        found = invoke(file, "--demand", 3000, "--routing", "random")
        assert (found.return_value == EXIT_UNDECIDED) is doubtful
        assert ("Repeat loadtrt capacity" in " ".join(found.stdout.split())) is doubtful


@pytest.mark.parametrize(
    ("error", "ends", "doubt"),
    [
        (0.1, (None, None), None),  # as good as a plan is
        (1.6, (None, None), "the plan is not supported by the measurement"),
        (1.6, (0.9, None), "the plan is not supported by the measurement"),  # "at least" contradicts nothing
        (1.6, (0.3, 4.0), None),  # by chance
        (1.6, (0.9, 1.1), "more than chance"),
        (-0.6, (0.9, 1.1), "more than chance"),
    ],
)
def test_a_prediction_that_is_far_off_is_excused_by_chance_alone(
    error: float, ends: tuple[float | None, float | None], doubt: str | None
) -> None:
    """Of a measured quantile of 1 s."""
    low, high = (None if end is None else end * SECOND_NS for end in ends)
    predicted = (1 + error) * SECOND_NS
    check = Comparison(
        rate_per_s=100.0,
        in_flight=None,
        arrivals="poisson",
        rank=0.99,
        measured_ns=SECOND_NS,
        measured_low_ns=low,
        measured_high_ns=high,
        predicted_ns=predicted,
        predicted_low_ns=predicted,
        predicted_high_ns=predicted,
        error=error,
        within=None,
    )
    found = doubt_of([check], None)
    assert (found is None) == (doubt is None)
    assert doubt is None or doubt in str(found)


def test_the_median_is_compared_where_an_interval_has_no_upper_end(runs: dict[str, RunResult]) -> None:
    """A p99 of "at least 20 ms" agrees with any prediction above, and the median of the same run does not."""
    latency = runs["open"].model.metrics["latency"]
    p50, p99 = (latency.percentiles_ns[name] for name in ("p50", "p99"))
    assert p50 is not None
    assert p99 is not None
    known = {
        "p50": ConfidenceInterval(low=0.49 * p50, high=0.51 * p50, effective=1000),
        "p99": ConfidenceInterval(low=0.5 * p99, high=None, effective=100),
    }
    halved = latency.model_copy(
        update={"percentiles_ns": {**latency.percentiles_ns, "p50": 0.5 * p50}, "confidence": known}
    )
    doubts, ranks = [], []
    for metrics in (latency, halved):
        other = changed(runs["open"], metrics={**runs["open"].model.metrics, "latency": metrics})
        evidence = evidence_of(capacity_of({**runs, "open": other}))
        plan = plan_fleet(evidence, steady_demand(3000.0), [parse_objective(OBJECTIVE)], routings=())
        ranks.append([check.rank for check in plan.checks if check.rate_per_s])
        doubts.append(plan.doubt)
    assert ranks == [[0.99], [0.99, 0.5]]
    assert doubts[0] is None
    assert "more than chance" in str(doubts[1])


def test_a_run_that_ended_as_it_missed_is_no_evidence_of_its_quantile(runs: dict[str, RunResult]) -> None:
    """Such runs are those that were slow by chance."""
    ended = changed(runs["open"], ended_early="latency.p99 < 30ms is missed")
    evidence = evidence_of(capacity_of({**runs, "open": ended}))
    plan = plan_fleet(evidence, steady_demand(3000.0), [parse_objective(OBJECTIVE)], routings=())
    assert plan.checks[-1].rate_per_s is not None
    assert plan.checks[-1].measured_low_ns is None


# --- cost and energy


def test_cost_is_of_the_demand_without_headroom(plan: Callable[..., FleetResult]) -> None:
    """GPUs · price / inferences an hour, per million: growth is served, headroom is not."""
    found = only(plan(growth=0.5, headroom=0.2, spares=1, gpu_price=2.5))
    assert found.gpus is not None
    assert found.cost_per_million == pytest.approx(found.gpus * 2.5 / (3000 * 1.5 * 3600) * 1e6)
    assert found.cost_per_month == pytest.approx(found.gpus * 2.5 * 730)
    assert only(plan()).cost_per_million is None


def test_energy_is_what_all_gpus_take(runs: dict[str, RunResult]) -> None:
    """G · P / λ. Power that was measured at one rate alone is taken for all; one context is another engine."""
    powered = evidence_of((with_power(runs["one"], 100.0), with_power(runs["two"], 300.0)))
    assert np.array(powered.gpu.watts) == pytest.approx(np.array([[powered.gpu.most_per_s, 300.0]]))
    result = plan_fleet(powered, steady_demand(3000.0), [parse_objective(OBJECTIVE)], routings=("random",), spares=1)
    found = only(result)
    assert found.gpus is not None
    assert found.joules_per_inference == pytest.approx(found.gpus * 300 / 3000)


def test_a_ladder_tells_power_by_rate(runs: dict[str, RunResult]) -> None:
    """One in flight and two are the same engine: power between their rates is on the line between them."""
    powered = {"one": with_power(runs["one"], 100.0), "two": with_power(runs["two"], 300.0), "open": runs["open"]}
    evidence = evidence_of(capacity_of(powered))
    (low, low_watts), (high, high_watts) = evidence.gpu.watts
    assert (low_watts, high_watts) == (100.0, 300.0)
    bound = parse_objective("latency.p99 < 60ms")
    found = only(plan_fleet(evidence, steady_demand(3000.0), [bound], routings=("random",)))
    assert found.gpus is not None
    assert low < 3000 / found.gpus < high
    watts = 100 + 200 * (3000 / found.gpus - low) / (high - low)
    assert found.joules_per_inference == pytest.approx(found.gpus * watts / 3000)


def test_without_telemetry_there_is_no_energy(plan: Callable[..., FleetResult]) -> None:
    """Not 0."""
    assert only(plan()).joules_per_inference is None
    assert "J/inference" not in terminal_text(plan())


# --- other demands


def test_stages_are_carried_at_their_highest_rate(plan: Callable[..., FleetResult]) -> None:
    """As many GPUs as for the highest rate all day; scaled with the demand, Σ share · ⌈rate / rate a GPU⌉."""
    course = parse_stages("1000/s:8h, 3000/s:8h, 0/s:8h")
    result = plan(demand=staged_demand(course, "stages"), gpu_price=1.0)
    found, flat = only(result), only(plan())
    assert found.needed == flat.needed
    assert found.needed is not None
    assert result.demand.mean_per_s == pytest.approx(4000 / 3)
    assert found.autoscaling is not None
    third = fewest_for(1000, 3000 / found.needed)
    assert found.autoscaling.mean_gpus == pytest.approx((third + found.needed + 1) / 3)
    assert found.autoscaling.saved == pytest.approx(1 - found.autoscaling.mean_gpus / found.needed)
    assert found.cost_per_million == pytest.approx(found.needed / (4000 / 3 * 3600) * 1e6)
    assert flat.autoscaling is None


def test_a_ramp_is_scaled_along() -> None:
    """Its slices have the ramp's mean rate, and shares that sum to 1."""
    demand = staged_demand(parse_stages("ramp 0/s-600/s:1h"), "")
    assert sum(share for share, _ in demand.course) == pytest.approx(1)
    assert sum(share * rate for share, rate in demand.course) == pytest.approx(300)
    assert demand.summary.now_per_s == 600


def poisson_trace(rate: float, seconds: float) -> Trace:
    random = np.random.default_rng(7)
    instants = np.sort(random.uniform(0, seconds, int(rate * seconds)) * SECOND_NS).astype(np.int64)
    instants -= instants[0]
    return Trace(instants, int(seconds * SECOND_NS))


def test_a_poisson_trace_needs_what_poisson_arrivals_need(plan: Callable[..., FleetResult]) -> None:
    """Replaying is another way to the same answer, but for chance: a trace is one sample."""
    traced = only(plan(demand=traced_demand(poisson_trace(3000, 5), "trace")))
    steady = only(plan())
    assert traced.needed is not None
    assert steady.needed is not None
    assert abs(traced.needed - steady.needed) <= 2


def test_growth_of_a_trace_is_a_faster_trace() -> None:
    """All gaps shrink by (1 + growth) · (1 + headroom); the rate to carry is that of its busiest minute, grown."""
    quiet, busy = np.arange(0, 3600, 1.0), np.arange(1000, 1060, 0.1)
    instants = (np.sort(np.concatenate([quiet, busy])) * SECOND_NS).astype(np.int64)
    trace = Trace(instants, 3600 * SECOND_NS)
    plain, grown = traced_demand(trace, ""), traced_demand(trace, "", growth=0.5, headroom=0.2)
    assert plain.summary.now_per_s == pytest.approx(11, rel=0.02)
    assert plain.summary.mean_per_s == pytest.approx(4200 / 3600)
    assert grown.summary.planned_per_s == pytest.approx(1.8 * plain.summary.now_per_s)
    assert plain.instants is not None
    assert grown.instants is not None
    assert grown.instants * 1.8 == pytest.approx(plain.instants)
    assert sum(share for share, _ in plain.course) == pytest.approx(1)
    assert max(rate for _, rate in plain.course) <= plain.summary.now_per_s * 1.001


def test_of_a_long_trace_the_busiest_part_is_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an hour has too many requests, the busiest half, quarter, …; what comes before it only fills the queues."""
    monkeypatch.setattr("loadtrt.sizing.demand._MOST_REPLAYED", 1000)
    quiet, busy = np.arange(0, 7200, 1.0), np.arange(5000, 5060, 0.1)
    instants = (np.sort(np.concatenate([quiet, busy])) * SECOND_NS).astype(np.int64)
    demand = traced_demand(Trace(instants, 7200 * SECOND_NS), "")
    assert demand.summary.replayed is not None
    assert demand.instants is not None
    assert 600 < demand.summary.replayed <= 1000
    assert demand.summary.replayed_ns == 3600 * SECOND_NS / 16
    assert len(demand.instants) == demand.lead + demand.summary.replayed
    assert 0 < demand.lead <= demand.summary.replayed / 10


# --- what was measured


def test_one_gpu_as_it_was_measured(evidence: Evidence) -> None:
    """X(1), X(2) of the closed loops; the time alone, its CV and its law of the one with one context."""
    gpu = evidence.gpu
    assert (gpu.contexts, gpu.buffers, gpu.batch) == (2, 1, 1)
    assert [speed.in_flight for speed in gpu.speeds] == [1, 2]
    assert [speed.requests_per_s for speed in gpu.speeds] == pytest.approx([200, 400], rel=0.03)
    assert gpu.most_per_s == pytest.approx(gpu.speeds[1].requests_per_s)
    assert gpu.alone_mean_ns == pytest.approx(5e6, rel=0.03)
    assert gpu.alone_cv == pytest.approx(1, rel=0.05)
    assert evidence.objectives == (parse_objective(OBJECTIVE),)


def test_a_search_for_capacity_tells_the_same(runs: dict[str, RunResult], evidence: Evidence) -> None:
    """Of its ladder: the same GPU as from runs with one buffer set."""
    found = evidence_of(capacity_of(runs))
    assert found.gpu.speeds == evidence.gpu.speeds
    assert found.gpu.alone_mean_ns == evidence.gpu.alone_mean_ns
    one, other = found.law.station, evidence.law.station
    assert isinstance(one, Station)
    assert isinstance(other, Station)
    assert one.speeds == other.speeds
    assert len(found.open) == len(evidence.open) == 1


def test_a_sweep_tells_the_same(runs: dict[str, RunResult], evidence: Evidence) -> None:
    """Its points are runs."""
    points = tuple(SweepPoint(settings={}, run=trimmed(run)) for run in runs.values())
    common: dict[str, Any] = {
        "loadtrt": "0",
        "started": "",
        "command": (),
        "config": RunConfig.of(engine="x"),
        "environment": {},
        "axes": {},
    }
    sweep = SweepResult(**common, outcome="completed", points=points)
    assert evidence_of(sweep).gpu == evidence.gpu


def test_full_lanes_need_the_device_time_of_one_request(tmp_path: Path) -> None:
    """With two buffer sets no closed loop shows a request alone: that it takes 5 ms is its device time."""
    common = ["run", "--engine", "simulated:service=5ms,h2d=2ms,clock=virtual", "--warmup", "0", "--requests", "400"]
    made = []
    for contexts in ("1", "2"):
        target = tmp_path / f"{contexts}.json"
        CliRunner().invoke(cli, [*common, "--contexts", contexts, "--quiet", "--json", str(target)])
        made.append(read_result(RunResult, target))
    found = evidence_of(tuple(made))
    assert found.gpu.alone_mean_ns == pytest.approx(7e6, rel=0.01)
    assert found.law.station.alone_s == pytest.approx(0.007, rel=0.01)
    assert found.law.station.most_per_s == pytest.approx(400, rel=0.02)  # copies overlap
    assert any("--buffers 1" in note for note in found.notes)


def test_predictions_stand_beside_measurements(plan: Callable[..., FleetResult]) -> None:
    """The closed loop of two and the run at 280/s: within 10 % of what was measured."""
    closed, opened = plan().checks
    assert (closed.in_flight, closed.rate_per_s) == (2, None)
    assert (opened.in_flight, opened.rate_per_s, opened.arrivals) == (None, 280.0, "poisson")
    for check in (closed, opened):
        assert check.error is not None
        assert check.predicted_ns == pytest.approx(check.measured_ns * (1 + check.error))
        assert abs(check.error) < 0.1


def test_a_rate_beyond_the_model_has_no_prediction(runs: dict[str, RunResult]) -> None:
    """Measured at a rate that the model cannot carry: shown as such, and never as a number."""
    config = varied(runs["open"].config, rate=1000.0)
    rates = runs["open"].model.throughput.model_copy(update={"offered_per_s": 1000.0})
    overloaded = changed(runs["open"], config=config, throughput=rates)
    evidence = evidence_of((runs["one"], runs["two"], overloaded))
    result = plan_fleet(evidence, steady_demand(1000.0), [parse_objective(OBJECTIVE)], routings=("random",))
    check = result.checks[-1]
    assert (check.predicted_ns, check.error) == (None, None)
    assert "overload" in terminal_text(result)


def test_what_was_not_valid_is_left_out(runs: dict[str, RunResult]) -> None:
    """And a note says why."""
    broken = runs["open"].model_copy(update={"valid": False, "failure": "the device was lost"})
    evidence = evidence_of((runs["one"], runs["two"], broken))
    assert evidence.open == ()
    assert evidence.notes == ("the run at 280/s was left out: the device was lost",)


@pytest.mark.parametrize(
    ("measured", "asked", "note"),
    [
        ({"arrivals": "gamma", "burstiness": 4.0}, 1.0, "burstiness 4, this plan is for Poisson"),
        ({"arrivals": "gamma", "burstiness": 4.0}, 4.0, None),
        ({"bursts": "1s/2s"}, 1.0, "bursts of 1s/2s, this plan is for Poisson arrivals: give a --trace"),
    ],
)
def test_a_plan_for_calmer_arrivals_than_were_measured_says_so(
    runs: dict[str, RunResult], measured: dict[str, Any], asked: float, note: str | None
) -> None:
    """Whose capacity was searched under bursts has bursts."""
    config = varied(runs["open"].config, **measured)
    bursty = runs["open"].model_copy(update={"config": config})
    evidence = evidence_of(capacity_of({**runs, "open": bursty}))
    demand = steady_demand(3000.0, burstiness=asked)
    plan = plan_fleet(evidence, demand, [parse_objective(OBJECTIVE)], routings=())
    found = [text for text in plan.notes if "this plan is for Poisson" in text]
    assert len(found) == (note is not None)
    assert (note or "") in "".join(found)
    assert plan.direct is None


def test_measured_capacity_needs_no_model(runs: dict[str, RunResult]) -> None:
    """⌈Λ / rate at which one GPU met the objectives⌉, with Poisson arrivals and the same objectives alone."""
    evidence = evidence_of(capacity_of(runs, low_per_s=250.0, confirmed_per_s=280.0))
    options: dict[str, Any] = {"routings": (), "spares": 1, "max_utilisation": 0.95}
    direct = plan_fleet(evidence, steady_demand(3000.0), [parse_objective(OBJECTIVE)], **options).direct
    assert direct is not None
    assert (direct.per_gpu_per_s, direct.gpus) == (280.0, 12)
    unconfirmed = evidence_of(capacity_of(runs, low_per_s=250.0))
    direct = plan_fleet(unconfirmed, steady_demand(3000.0), [parse_objective(OBJECTIVE)], **options).direct
    assert direct is not None
    assert (direct.per_gpu_per_s, direct.gpus) == (250.0, 13)
    host = evidence_of(capacity_of(runs, low_per_s=250.0, feasible_max_per_s=200.0, answer="host-bound"))
    direct = plan_fleet(host, steady_demand(3000.0), [parse_objective(OBJECTIVE)], **options).direct
    assert direct is not None  # of the engine no more is known than that
    assert direct.per_gpu_per_s == 200.0
    for demand, objective in (
        (steady_demand(3000.0, burstiness=2.0), OBJECTIVE),
        (steady_demand(3000.0), "latency.p50 < 1s"),
    ):
        assert plan_fleet(evidence, demand, [parse_objective(objective)], **options).direct is None


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        (("two", "open"), "the latency of a single request in flight was not measured"),
        (("open",), "the set of runs has no closed loop: a plan needs"),
    ],
)
def test_runs_that_say_too_little(runs: dict[str, RunResult], chosen: Sequence[str], sentence: str) -> None:
    """What is missing is named."""
    with pytest.raises(UsageError, match=sentence):
        evidence_of(tuple(runs[name] for name in chosen))


def test_a_search_without_its_first_rung_says_why(runs: dict[str, RunResult]) -> None:
    """To search again would give the same."""
    found = capacity_of(runs)
    (candidate,) = found.candidates
    late = candidate.trials[0].model_copy(update={"host_bound": "the generator was late"})
    spoiled = candidate.model_copy(update={"trials": (late, *candidate.trials[1:])})
    with pytest.raises(UsageError, match="ladder with 1 in flight was left out: the generator was late"):
        evidence_of(found.model_copy(update={"candidates": (spoiled,)}))


def test_what_was_chosen_among_settings_is_told_where_there_was_a_choice(runs: dict[str, RunResult]) -> None:
    """--batch is named where it would choose another, and was not given."""
    wide = changed(runs["two"], engine=dataclasses.replace(runs["two"].model.engine, batch=4))
    throughput = runs["two"].model.throughput.model_copy(update={"inferences_per_s": 1e6})
    several = (runs["one"], changed(runs["two"], throughput=throughput), wide)
    (note,) = evidence_of(several).notes
    assert note.endswith("; --batch chooses another")
    assert evidence_of(several, batch=1).notes == ()


def test_a_plan_without_comparison_says_what_would_make_one(runs: dict[str, RunResult]) -> None:
    """A run at a rate is compared if it has requests enough for the quantile."""
    evidence = evidence_of((runs["one"],))
    result = plan_fleet(evidence, steady_demand(10.0), [parse_objective(OBJECTIVE)], routings=("random",))
    assert result.checks == ()
    assert "measure a run at a steady rate, of 459 requests at least for its p99" in " ".join(
        terminal_text(result).split()
    )


def test_one_context_with_other_settings_is_no_measure(runs: dict[str, RunResult]) -> None:
    """ONNX Runtime gives one context all cores unless told otherwise: what differs is named, but for the way of
    submitting, which may differ."""
    engine = dataclasses.replace(runs["one"].model.engine, mode={"threads per context": "2", "submit": "graph"})
    two = dataclasses.replace(runs["two"].model.engine, mode={"threads per context": "1", "submit": "apart"})
    pair = (changed(runs["one"], engine=engine), changed(runs["two"], engine=two))
    with pytest.raises(UsageError, match=r"has other settings \(threads per context 2, not 1\)"):
        evidence_of(pair)
    engine = dataclasses.replace(two, mode={**two.mode, "hardware queues": "32"})
    pair = (changed(runs["one"], engine=two), changed(runs["two"], engine=engine))
    with pytest.raises(UsageError, match=r"has other settings \(hardware queues 8, not 32\)"):  # CUDA's default
        evidence_of(pair)


def test_too_many_in_flight_is_noted(runs: dict[str, RunResult]) -> None:
    """Where the longest queue is slower than a shorter one, the reader should know: that is where a queue leads."""
    throughput = runs["two"].model.throughput.model_copy(update={"requests_per_s": 150.0, "inferences_per_s": 150.0})
    slow = changed(runs["two"], throughput=throughput)
    found = evidence_of(capacity_of(without_flow({**runs, "two": slow})))
    assert found.gpu.most_per_s == pytest.approx(150)
    assert any("with 1 in flight is 3" in note for note in found.notes)


def test_a_short_trace_tells_no_high_quantile(plan: Callable[..., FleetResult]) -> None:
    """459 requests are the least for p99; a trace that falls silent after two requests is no trouble."""
    with pytest.raises(UsageError, match="needs 459 requests, and the trace has 300"):
        plan(demand=traced_demand(poisson_trace(100, 3), "trace"))
    same = Trace(np.zeros(200_001, np.int64), SECOND_NS)
    with pytest.raises(UsageError, match="more than 200 000 requests have the same instant"):
        traced_demand(same, "trace")
    silent = Trace(np.array([0, 3 * 3600 * SECOND_NS]), 6 * 3600 * SECOND_NS)
    assert traced_demand(silent, "").summary.replayed == 1


# --- the command


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(cli, ["plan-capacity", *map(str, arguments)], standalone_mode=False)


def test_the_command_shows_a_table_and_writes_its_result(folder: Path, tmp_path: Path) -> None:
    """Within 100 columns; the file reads back as what was shown."""
    files = [folder / f"{name}.json" for name in ("one", "two", "open")]
    target = tmp_path / "fleet.json"
    found = invoke(*files, "--demand", "3k/s", "--spares", 1, "--gpu-price", 2, "--json", target)
    assert found.return_value == 0, found.exception
    assert max(map(len, found.stdout.splitlines())) <= 100
    result = read_result(FleetResult, target)
    assert terminal_text(result) == found.stdout
    assert result.sources == tuple(map(str, files))
    assert len(result.choices) == 4
    assert result.choices[0].curve
    for choice in result.choices:
        assert f"{choice.needed} + 1" in found.stdout
    assert "predicted against measured" in found.stdout


def test_inferences_are_requests_times_the_batch(tmp_path: Path) -> None:
    """--demand-inferences 8000/s of a file with batch 8 is --demand 1000/s."""
    common = ["run", "--engine", "simulated:service=5ms,cv=0.5,clock=virtual", "--buffers", "1", "--warmup", "0"]
    made = tmp_path / "run.json"
    CliRunner().invoke(cli, [*common, "--batch", "8", "--requests", "2000", "--quiet", "--json", str(made)])
    texts = [
        invoke(made, option, rate, "--routing", "random", "--objective", "latency.p90 < 30ms", "--json", "-", "--quiet")
        for option, rate in (("--demand", "1000/s"), ("--demand-inferences", "8000/s"))
    ]
    results = [json.loads(found.stdout) for found in texts]
    assert results[0]["demand"] == results[1]["demand"]
    assert results[0]["demand"]["planned_per_s"] == 1000
    assert results[0]["choices"] == results[1]["choices"]


def test_objectives_of_the_files_that_cannot_be_predicted_are_left_out(
    runs: dict[str, RunResult], tmp_path: Path
) -> None:
    """A search may have bound compute too: the plan goes on with latency, and says so."""
    capacity = capacity_of(runs).model_copy(update={"objectives": ("compute.p99 < 1s", OBJECTIVE)})
    file = tmp_path / "capacity.json"
    file.write_text(capacity.model_dump_json())
    found = invoke(file, "--demand", 3000, "--routing", "random")
    assert found.return_value == 0
    assert "objective left out: 'compute.p99 < 1s' is not on latency" in found.stderr
    assert f"to hold: {OBJECTIVE};" in found.stdout


def test_what_cannot_be_met_has_its_exit_code(folder: Path) -> None:
    """99, with the reason in the table."""
    files = [folder / f"{name}.json" for name in ("one", "two")]
    found = invoke(*files, "--demand", 3000, "--objective", "latency.p99 < 1ms")
    assert found.return_value == EXIT_MISSED
    assert "none" in found.stdout


def test_a_trace_and_stages_are_demands(folder: Path, tmp_path: Path) -> None:
    """Each is told in the table."""
    files = [folder / f"{name}.json" for name in ("one", "two")]
    trace = tmp_path / "trace.csv"
    instants = poisson_trace(500, 4).instants / SECOND_NS
    trace.write_text("\n".join(f"{instant:.6f}" for instant in instants))
    common = ["--objective", OBJECTIVE, "--routing", "random"]
    assert "its busiest minute" in " ".join(invoke(*files, "--trace", trace, *common).stdout.split())
    assert "on average" in " ".join(invoke(*files, "--stages", "100/s:1h, 900/s:1h", *common).stdout.split())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "a plan needs a demand: add --demand 5000/s"),
        (["--demand", "5"], "a plan needs an objective: add --objective"),
        (["--demand", "5", "--trace", "x.csv"], "--demand and --trace are each a demand: give one"),
        (["--demand", "fast"], "'fast' is not a rate"),
        (["--demand", "999999M/s", "--objective", OBJECTIVE], "more than 2 000 GPUs: plan for a part of the demand"),
        (["--demand", "0.001/m", "--objective", OBJECTIVE], "the demand is below one request per hour"),
        (["--demand", "banana", "--objective", OBJECTIVE], "--demand: 'banana' is not a rate"),
        (["--demand-inferences", "0/s"], "--demand-inferences: '0/s' is not a rate"),
        (["--demand", "5", "--growth", "30"], "--growth 30 is not a percentage; write for example 30%"),
        (["--demand", "5", "--headroom", "-3%"], "--headroom -3% is not a percentage"),
        (["--demand", "5", "--max-utilisation", "100%"], "--max-utilisation 100% is not from 1% to 99%"),
        (["--demand", "5", "--spares", "-1"], "-1 is not in the range"),
        (["--demand", "5", "--routing", "fair"], "'fair' is not a routing policy: choose from random, round-robin"),
        (["--demand", "5", "--ties", "fair"], "'fair' is not one of 'longest-idle', 'random', 'lowest-index'"),
        (["--demand", "5", "--gpu-price", "0"], "--gpu-price 0 is not a price"),
        (["--demand", "5", "--gpu-price", "nan"], "--gpu-price nan is not a price"),
        (["--demand", "5", "--arrivals", "poisson", "--burstiness", "2"], "poisson arrivals have no burstiness"),
        (["--demand", "5", "--arrivals", "gamma"], "gamma arrivals need a burstiness"),
        (["--demand", "5", "--burstiness", "-1"], "--burstiness: -1 is below 0, the least"),
        (["--trace", "nowhere.csv"], "cannot read trace nowhere.csv"),
        (["--trace", "nowhere.csv", "--burstiness", "2"], "a trace has instants of its own, and no burstiness"),
        (["--demand", "5", "--trace-column", "t"], "--trace-column needs a trace"),
        (["--demand", "5", "--objective", "compute.p99 < 1s"], "is not on latency"),
        (["--demand", "5", "--objective", "latency.max < 1s"], "a simulation cannot bound a maximum"),
        (["--demand", "5", "--objective", "soon"], "--objective: 'soon' is not an objective"),
        (["--demand", "5", "--contexts", "7"], "no closed loop of --contexts 7: a plan"),
        (["--demand", "5", "--batch", "7"], "no closed loop of --batch 7: a plan"),
        (["--demand", "5", "--json", "nowhere/x.json"], "there is no folder nowhere"),
    ],
)
def test_bad_input_is_told_in_one_sentence(
    folder: Path,
    arguments: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Exit code 2, no traceback."""
    from loadtrt.cli.main import main

    files = [str(folder / f"{name}.json") for name in ("one", "two")]
    monkeypatch.setattr("sys.argv", ["loadtrt", "plan-capacity", *files, *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.startswith("loadtrt: ")
    assert said.count("\n") == 1


def test_each_start_of_a_repeated_run_counts(folder: Path, tmp_path: Path, runs: dict[str, RunResult]) -> None:
    """As a run of its own; a start that was interrupted does not. Closed loops of as many contexts are pooled."""
    options = ["run", "--engine", MM2, "--buffers", "1", "--warmup", "0", "--quiet", "--requests", "4000"]
    starts = []
    for seed in (5, 6):
        file = tmp_path / f"{seed}.json"
        CliRunner().invoke(cli, [*options, "--seed", str(seed), "--json", str(file)], standalone_mode=False)
        starts.append(read_result(RunResult, file))
    broken = starts[0].model_copy(update={"outcome": "interrupted"})
    repeat = RepeatResult(
        loadtrt="0.1.0", started="now", command=("loadtrt",), config=starts[0].config, asked=3, outcome="interrupted",
        runs=(*starts, broken), spreads=(),
    )  # fmt: skip
    file = tmp_path / "repeat.json"
    file.write_text(repeat.model_dump_json())
    pooled = evidence_of(read_sources([file, folder / "two.json"]))
    assert pooled.gpu == evidence_of((*starts, runs["two"])).gpu
    single = evidence_of((starts[0], runs["two"])).gpu
    assert pooled.gpu.requests == single.requests + 4000
    found = invoke(file, folder / "two.json", "--demand", 3000, "--routing", "random", "--objective", OBJECTIVE)
    assert found.return_value == 0, found.exception


def test_files_of_other_kinds_are_refused(folder: Path, tmp_path: Path, runs: dict[str, RunResult]) -> None:
    """A plan is no measurement, and a search for capacity stands alone."""
    capacity = tmp_path / "capacity.json"
    capacity.write_text(capacity_of(runs).model_dump_json())
    with pytest.raises(UsageError, match=r"is a search for capacity by loadtrt: give this file alone"):
        CliRunner().invoke(
            cli,
            ["plan-capacity", str(capacity), str(folder / "one.json"), "--demand", "5"],
            standalone_mode=False,
            catch_exceptions=False,
        )
    damaged = capacity_of(runs).model_dump(mode="json")
    damaged["candidates"][0]["trials"][-1]["rate_per_s"] = None
    without = tmp_path / "without.json"
    without.write_text(json.dumps(damaged))
    with pytest.raises(UsageError, match=r"without.json does not fit its schema .* needs rate_per_s above 0"):
        CliRunner().invoke(
            cli, ["plan-capacity", str(without), "--demand", "5"], standalone_mode=False, catch_exceptions=False
        )
    assert invoke(capacity, "--demand", 3000, "--routing", "random", "--json", tmp_path / "plan.json").return_value == 0
    with pytest.raises(UsageError, match=r"plan.json is a plan, the result of this command: give the measurements"):
        CliRunner().invoke(
            cli,
            ["plan-capacity", str(tmp_path / "plan.json"), "--demand", "5"],
            standalone_mode=False,
            catch_exceptions=False,
        )


def test_ctrl_c_shows_what_there_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 130, and the table of what was found until then."""
    monkeypatch.setattr("loadtrt.signals.Signals.requested", lambda _: True)
    files = [folder / f"{name}.json" for name in ("one", "two")]
    found = invoke(*files, "--demand", 3000, "--objective", OBJECTIVE)
    assert found.return_value == EXIT_INTERRUPTED
    assert "INTERRUPTED" in found.stdout
