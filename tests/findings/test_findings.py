"""What is found in a run: with its evidence, and a remedy that is not in use; nothing where nothing is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from test_gpu_findings import second, telemetry

from loadtrt.cli.main import cli
from loadtrt.findings.findings import findings_of
from loadtrt.results.breakdown import Phases, Throughput
from loadtrt.results.gpu_telemetry import GpuClient, GpuSharing
from loadtrt.results.run_result import Finding, RunResult
from loadtrt.results.steadiness import SlowPart, Stall, Steadiness
from loadtrt.sizing.outcomes import host_bound
from loadtrt.units import SECOND_NS
from runs_by_hand import engine, run_of

if TYPE_CHECKING:
    from pathlib import Path

OPEN = {"rate": "500/s"}


def kinds(result: RunResult) -> list[str]:
    return [finding.kind for finding in findings_of(result)]


def only(result: RunResult) -> Finding:
    (found,) = findings_of(result)
    assert found.evidence
    assert found.cause
    assert found.remedy
    return found


def rates(served: float, offered: float | None = None) -> Throughput:
    return Throughput(requests_per_s=served, inferences_per_s=served * 16, offered_per_s=offered)


# --- runs with nothing to mend


def test_a_healthy_run() -> None:
    """A full GPU is good news, and the only one of a closed loop; an open loop with room to spare has none."""
    good = only(run_of())
    assert (good.kind, good.evidence) == ("compute-bound", "lanes computed 100 % of the time")
    assert findings_of(run_of(options=OPEN, busy=0.6)) == ()
    assert findings_of(run_of({"latency": 2_100}, OPEN, busy=0.6, steadiness=None)) == ()


@pytest.mark.parametrize("kind", ["simulated", "onnxruntime"])
def test_engines_without_copies_and_graphs(kind: str) -> None:
    """No phase that an engine does not have is found in it; nor is a simulated device said to be in need of FP16."""
    times = {"h2d": 0.0, "d2h": 0.0, "enqueue": 8.0}
    info = engine(kind, mode={}, name="it")
    assert kinds(run_of(times, {"buffers": 1}, engine=info)) == (["compute-bound"] if kind == "onnxruntime" else [])
    assert kinds(run_of(times, OPEN, busy=0.5, engine=info)) == []


def test_the_null_engine_has_no_findings() -> None:
    """All its time is the generator's own: that is what it is for."""
    times = {"h2d": 0.0, "d2h": 0.0, "compute": 0.0, "enqueue": 3.0, "latency": 20, "lateness": 19.0}
    assert findings_of(run_of(times, busy=None, engine=engine("simulated", mode={}), starved_fraction=1.0)) == ()


def test_nothing_served_nothing_found() -> None:
    """Its problem says it all."""
    assert findings_of(run_of(ok=0, count=0)) == ()


# --- whether it was one steady state


def test_overloaded() -> None:
    """Said once: nothing more of drifts and queues, and nothing at all where a problem says that requests were left."""
    state = Steadiness(transient_ns=SECOND_NS, transient_ratio=0.5, drift_ratio=7.0, overloaded=True)
    much: dict[str, Any] = {"steadiness": state, "throughput": rates(401.2, 450)}
    found = only(run_of({"latency": 600_000.0}, {"rate": "450/s"}, busy=0.99, **much))
    assert found.kind == "overloaded"
    assert found.evidence == "the offered load was 450/s and the throughput 401/s: the backlog grew until the end"
    assert found.remedy == "a --rate below 401/s"
    assert only(run_of(options={"rate": "450/s"}, busy=0.8, **much)).remedy.endswith("or more --contexts")
    assert kinds(run_of(options={"rate": "450/s"}, unserved=3, **much)) == []
    stages = only(run_of(options={"stages": "100/s:5s, 400/s:5s"}, busy=0.99, **much))
    assert stages.remedy == "lower rates in --stages"


def test_dropped() -> None:
    """Who is not served is in no latency; its reader should know."""
    found = only(run_of(options={**OPEN, "max_queue": 3}, busy=0.8, dropped=1_000, submitted=9_000))
    assert found.kind == "dropped"
    assert found.evidence == "1 000 requests (10 % of all) came due while 3 waited, and were dropped"
    assert "--rate" in found.remedy


def test_dropped_offline() -> None:
    """All come at once: no rate is lower, and of more requests more would be dropped."""
    load = {"arrivals": "offline", "requests": 1000, "max_queue": 9}
    dropped, few = findings_of(run_of(options=load, count=10, busy=0.5, dropped=990))
    assert dropped.remedy == "more --contexts or a larger --max-queue"
    assert (few.kind, few.remedy) == ("few-samples", "a larger --max-queue")
    short = findings_of(run_of(options={**load, "requests": 99}, count=10, busy=0.5, dropped=89))[1]
    assert short.remedy == "a larger --max-queue with --requests 459"
    half = findings_of(run_of(options={**OPEN, "requests": 200, "max_queue": 9}, count=100, busy=0.5, dropped=100))[1]
    assert half.remedy == "--requests 918"


def test_a_cold_start() -> None:
    """Slower at first: a longer warm-up, by twice what it took. It tells the clocks' story, too."""
    state = Steadiness(transient_ns=1_300_000_000, transient_ratio=1.31, overloaded=False)
    phases = Phases(warmup_ns=SECOND_NS, clocks_settled=False, measure_ns=10 * SECOND_NS)
    found = findings_of(run_of(steadiness=state, phases=phases, options={"warmup": "500ms"}))
    assert [it.kind for it in found] == ["transient", "compute-bound"]
    assert found[0].evidence == "in the first 1.30 s latencies were 31 % longer than later"
    assert found[0].remedy == "--warmup 4s (it is 500 ms)"
    cold = run_of(options=OPEN, busy=0.5, phases=phases)
    assert only(cold).kind == "clocks-unsettled"
    assert only(cold).remedy.startswith("--warmup 2s")


def test_a_queue_that_fills() -> None:
    """Faster at first: no warm-up helps a queue, a longer run does; what is short beside the run is not told."""

    def state(seconds: float) -> Steadiness:
        return Steadiness(transient_ns=round(seconds * SECOND_NS), transient_ratio=0.4, overloaded=False)

    found = only(run_of(options=OPEN, busy=0.5, steadiness=state(1)))
    assert (found.kind, found.remedy) == ("transient", "--duration 20s")
    assert "60 % shorter than later" in found.evidence
    assert kinds(run_of(options=OPEN, busy=0.5, steadiness=state(0.4))) == []
    assert only(run_of(options={**OPEN, "requests": 5_000}, busy=0.5, steadiness=state(1))).remedy == "--requests 20000"
    closed = findings_of(run_of(steadiness=state(1)))[0]
    assert (closed.kind, closed.evidence) == ("drift", "in the first 1.00 s latencies were 60 % shorter than later")


def test_drift() -> None:
    """From 5 % on, either way; a GPU that was slowed down explains it, and is told instead."""
    found = findings_of(run_of(steadiness=Steadiness(transient_ns=0, drift_ratio=1.3, overloaded=False)))[0]
    assert found.kind == "drift"
    assert found.evidence == "in the last quarter of the run latencies were 30 % longer than in the first"
    assert found.remedy == "--duration 30s shows where latency settles"
    for ratio, told in ((1.049, False), (0.951, True), (0.96, False), (None, False)):
        state = Steadiness(transient_ns=0, drift_ratio=ratio, overloaded=False)
        assert ("drift" in kinds(run_of(steadiness=state))) is told
    blind = run_of(options={"telemetry": False}, steadiness=Steadiness(drift_ratio=2.5))
    assert "2.5 times as long as in the first" in findings_of(blind)[0].evidence
    assert "without --no-telemetry" in findings_of(blind)[0].remedy
    wanders = findings_of(run_of({"latency": 9_000.0}, OPEN, steadiness=Steadiness(drift_ratio=2.5)))
    assert [it.kind for it in wanders] == ["drift", "queue-bound"]
    assert "near capacity" in wanders[0].cause


def _stalled(**changes: Any) -> Steadiness:
    values = {"start_ns": 5 * SECOND_NS, "longest_ns": SECOND_NS, "times": 1, "total_ns": SECOND_NS, "late": 500}
    return Steadiness(transient_ns=0, overloaded=False, stall=Stall(**{**values, "host": False, **changes}))


def test_a_stall() -> None:
    """When, how long, how often, who was late by it; whose it was; and how to see whether it comes again."""
    found = only(run_of(options=OPEN, busy=0.5, steadiness=_stalled()))
    assert found.kind == "stall"
    assert found.evidence == (
        "no request completed for 1.00 s from 5.00 s on, while requests waited: 500 requests (5 %) were delayed"
    )
    assert found.cause.startswith("the device did other work")
    assert "run.trace.json" in found.remedy
    assert "--duration 30s" in found.remedy
    several = only(run_of(options=OPEN, busy=0.5, steadiness=_stalled(times=4, total_ns=2 * SECOND_NS)))
    assert "from 5.00 s on, and 3 shorter times, for 2.00 s in all, while" in several.evidence
    own = only(run_of(options=OPEN, busy=0.5, steadiness=_stalled(host=True)))
    assert own.cause.startswith("loadtrt itself did not run")
    assert own.remedy.startswith("free a core for loadtrt; ")
    cpu = run_of(
        {"h2d": 0, "d2h": 0, "enqueue": 8}, OPEN, busy=0.5, engine=engine("onnxruntime"), steadiness=_stalled()
    )
    assert only(cpu).cause.startswith("the engine's threads did not run")
    nothing = {"compute": 0.0, "h2d": 0.0, "d2h": 0.0}
    assert kinds(run_of(nothing, OPEN, busy=None, steadiness=_stalled())) == []


def test_stalls_at_equal_distances_and_of_one_lane() -> None:
    """Each says what it knows; a single one of one lane may be a request that took so long."""
    often = only(run_of(options=OPEN, busy=0.5, steadiness=_stalled(times=5, period_ns=2 * SECOND_NS, lane=1)))
    assert often.evidence.startswith("lane 1 completed no request for 1.00 s from 5.00 s on, and 4 shorter times, for")
    assert "in all, every 2.00 s, while" in often.evidence
    assert "single requests" not in often.cause
    assert only(run_of(options=OPEN, busy=0.5, steadiness=_stalled(lane=1))).cause.endswith(
        "single requests took that long"
    )


def test_the_remedy_of_a_host_that_others_use() -> None:
    """No option gives the cores back: the remedy begins with who has them."""
    busy = {"busy_host": "the cores are used by others: load average 7.2 on 2 cores"}
    for result, kind in (
        (run_of(starved_fraction=0.03, busy=0.97), "host-bound"),
        (run_of(options=OPEN, busy=0.5, steadiness=_stalled(host=True)), "stall"),
    ):
        quiet = next(it for it in findings_of(result) if it.kind == kind)
        assert "others" not in quiet.remedy
        (told,) = (it for it in findings_of(result.model_copy(update={"environment": busy})) if it.kind == kind)
        assert told.remedy.startswith("the cores are used by others: load average 7.2 on 2 cores: stop what else runs")
        assert "buffers" not in told.remedy


def test_a_search_says_that_others_use_the_cores() -> None:
    """Why the load generator was the bottleneck of its run."""
    run = run_of(starved_fraction=0.1, busy=0.9)
    assert host_bound(run, None) == "lanes were idle for 10 % of the time because the host was late"
    busy = "the cores are used by others: load average 7.2 on 2 cores"
    others = run.model_copy(update={"environment": {"busy_host": busy}})
    assert host_bound(others, None) == f"{host_bound(run, None)}; {busy}"


def test_a_part_with_longer_services() -> None:
    """Below capacity: no backlog, but services."""
    part = SlowPart(
        start_ns=2 * SECOND_NS, end_ns=6 * SECOND_NS, served_per_s=100, expected_per_s=100, service_ratio=2.0
    )
    found = only(run_of(options=OPEN, busy=0.5, steadiness=Steadiness(transient_ns=0, overloaded=False, slow=part)))
    assert found.kind == "slow-part"
    assert found.evidence == ("from 2.00 s to 6.00 s service times were 2.0 times as long as in the rest of the run")
    assert found.cause.startswith("the device was slower (clocks, heat)")
    less = part.model_copy(update={"service_ratio": 0.5})
    found = only(run_of(options=OPEN, busy=0.5, steadiness=Steadiness(transient_ns=0, overloaded=False, slow=less)))
    assert "50 % shorter than" in found.evidence
    assert found.cause.startswith("the device was slower in the rest (clocks")


def _slow(expected: float, served: float, over_s: float | None = None, **more: Any) -> Steadiness:
    over_ns = None if over_s is None else round(over_s * SECOND_NS)
    part = SlowPart(
        start_ns=2 * SECOND_NS,
        end_ns=6 * SECOND_NS,
        served_per_s=served,
        expected_per_s=expected,
        over_ns=over_ns,
    )
    return Steadiness(**{"transient_ns": 0, "overloaded": False, "slow": part, **more})


def test_a_part_in_which_more_came_than_was_served() -> None:
    """A steady load tells of the device, one that changes of itself; the queue of that time is no other finding."""
    waits = {"latency": 600_000.0}
    found = only(run_of(waits, OPEN, busy=0.9, steadiness=_slow(500, 300, 8.5)))
    assert found.kind == "slow-part"
    assert found.evidence == (
        "from 2.00 s to 6.00 s 500/s arrived and 300/s were served: the backlog grew by 800, and was gone after 8.50 s"
    )
    assert found.cause.startswith("the device was slower")
    assert "--duration 30s" in found.remedy
    assert "until" not in only(run_of(waits, OPEN, busy=0.9, steadiness=_slow(500, 300))).evidence
    stages = only(run_of(waits, {"stages": "1/s:9s, 9/s:1s"}, busy=0.9, steadiness=_slow(500, 300)))
    assert stages.cause.startswith("requests arrived faster than the lanes serve")
    assert stages.remedy == "lower rates in --stages or more --contexts"
    filling = _slow(500, 300, transient_ns=SECOND_NS, transient_ratio=0.5, drift_ratio=1.5)
    assert kinds(run_of(waits, OPEN, busy=0.9, steadiness=filling)) == ["slow-part"]
    cold = _slow(500, 300, transient_ns=SECOND_NS, transient_ratio=2.0)
    assert kinds(run_of(options=OPEN, busy=0.9, steadiness=cold)) == ["transient"]
    assert kinds(run_of(options=OPEN, busy=0.9, steadiness=_slow(500, 300, overloaded=True))) == ["overloaded"]


def test_a_slow_part_where_all_waits() -> None:
    """By its pace, from 5 % on; a beginning or an end that is different says it already."""
    found = findings_of(run_of(steadiness=_slow(1_000, 800)))[0]
    assert (found.kind, found.evidence) == (
        "slow-part",
        "from 2.00 s to 6.00 s 800/s were served, 20 % less than in the whole run",
    )
    slow = _slow(1_000, 800).slow
    assert slow is not None
    first = findings_of(run_of(steadiness=_slow(1_000, 800, slow=slow.model_copy(update={"start_ns": 5}))))[0]
    assert first.evidence == "in the first 6.00 s 800/s were served, 20 % less than in the whole run"
    assert kinds(run_of(steadiness=_slow(1_000, 953))) == ["compute-bound"]
    assert kinds(run_of(steadiness=_slow(1_000, 800, drift_ratio=1.3))) == ["drift", "compute-bound"]
    load = {"arrivals": "offline", "requests": 10_000}
    offline = only(run_of(options=load, busy=0.9, steadiness=_slow(1_000, 800)))
    assert offline.cause.startswith("the device was slower")
    assert "--requests 30000" in offline.remedy


def test_a_stall_that_is_the_slow_part_is_told_once() -> None:
    """Where at least half of what gathered came while nothing was answered."""
    for longest_s, told in ((1.0, ["stall"]), (0.7, ["stall", "slow-part"])):
        stall = _stalled(total_ns=round(longest_s * SECOND_NS)).stall
        state = _slow(500, 300, stall=stall)
        assert kinds(run_of(options=OPEN, busy=0.5, steadiness=state)) == told


def test_a_gpu_that_was_slowed_down() -> None:
    """What telemetry tells is in the same list, before what it explains."""
    state = Steadiness(transient_ns=SECOND_NS, transient_ratio=0.7, drift_ratio=1.4, overloaded=False)
    seen = telemetry(*[second()] * 9, second(1980, 1410, 1.0))
    found = findings_of(run_of(steadiness=state, telemetry=seen))
    assert [it.kind for it in found] == ["throttled", "compute-bound"]
    assert found[0].cause == "power cap"
    shared = run_of(options=OPEN, busy=0.05, telemetry=telemetry(*[second()] * 10))
    beside = run_of(sharing=GpuSharing((GpuClient(77, sm_ratio=0.5),)))
    assert "compute-bound" not in [it.kind for it in findings_of(beside)]  # the engine alone is not the limit
    sharing = GpuSharing(told=False, unknown=("whose kernels run",))
    assert only(shared.model_copy(update={"sharing": sharing})).kind == "gpu-shared"


# --- how far the sample reaches


def test_too_few_requests() -> None:
    """p99 needs 459: as many more, or as many seconds; p99.9 is asked of nobody, nor anything of an interrupted run."""
    few = only(run_of(options=OPEN, busy=0.5, count=100))
    assert few.kind == "few-samples"
    assert few.evidence == "100 requests support no percentile above p95; p99 needs 459"
    assert few.remedy == "--duration 56s"
    assert only(run_of(options={**OPEN, "requests": 100}, busy=0.5, count=100)).remedy == "--requests 459"
    assert "1 request supports no percentile;" in only(run_of(options=OPEN, busy=0.5, count=1)).evidence
    assert "3 requests support no percentile;" in only(run_of(options=OPEN, busy=0.5, count=3)).evidence
    assert only(run_of(options={"stages": "10/s:10s"}, busy=0.5, count=100)).remedy == "--stages that last 56s"
    capped = run_of(options={**OPEN, "requests": 100, "max_duration": "1s"}, busy=0.5, count=100)
    assert only(capped).remedy == "--max-duration 56s"
    for silent in ({"count": 459}, {"count": 100, "outcome": "interrupted"}, {"count": 100, "ended_early": "enough"}):
        assert kinds(run_of(options=OPEN, busy=0.5, **silent)) == []


def test_more_than_are_kept() -> None:
    """Said last, and as no fault."""
    found = findings_of(run_of(percentiles_exact=False))
    assert [it.kind for it in found] == ["compute-bound", "not-exact"]


# --- from records to what the user sees


def _measured(tmp_path: Path, *options: str) -> tuple[RunResult, str]:
    file = tmp_path / "run.json"
    ended = CliRunner().invoke(cli, ["run", "--no-live", "--json", str(file), *options])
    return RunResult.model_validate_json(file.read_text()), ended.output


@pytest.mark.parametrize(
    ("engine_text", "options", "expected"),
    [
        ("service=5ms,cv=0.2", ("--contexts", "2"), []),
        ("service=5ms,cv=0.2", ("--contexts", "2", "--rate", "200/s"), []),
        ("service=5ms,cv=0.2,contention=1", ("--contexts", "4"), []),
        ("service=5ms,cv=0.2", ("--rate", "220/s", "--drain", "60s"), []),
        ("service=5ms,cv=0.2", ("--rate", "220/s", "--drain", "60s", "--objective", "queue.p9 < 1s"), ["overloaded"]),
        ("service=5ms,cv=1", ("--rate", "170/s"), ["queue-bound"]),
        ("service=5ms,slow_lane=1:3", ("--contexts", "2"), ["unfair"]),
        ("service=5ms,h2d=1ms", ("--buffers", "1"), ["copies-exposed"]),
        ("service=1ms,h2d=4ms", (), ["copy-bound"]),
        ("service=5ms,stall=1s@3s", ("--rate", "100/s"), ["stall"]),
        ("service=5ms,cv=1", ("--stages", "100/s:4s, 300/s:4s, 50/s:4s"), ["slow-part"]),
        ("service=5ms", ("--duration", "1s"), ["few-samples"]),
        ("service=5ms", ("--arrivals", "offline", "--requests", "1000"), []),
    ],
)
def test_simulated_runs(engine_text: str, options: tuple[str, ...], expected: list[str], tmp_path: Path) -> None:
    """A run's own result has what is found in it, and its summary shows every line of it."""
    length = () if {"--requests", "--duration", "--stages"}.intersection(options) else ("--duration", "10s")
    result, shown = _measured(tmp_path, "--engine", f"simulated:{engine_text},clock=virtual", *options, *length)
    assert [finding.kind for finding in result.model.findings] == expected
    assert result.model.findings == findings_of(result)
    words = " ".join(shown.split())
    for finding in result.model.findings:
        assert f"! {finding.kind}: {finding.evidence} {finding.cause} → {finding.remedy}" in words
    assert shown.count("\n! ") == len(expected)


def test_a_run_keeps_its_steadiness_cohorts_and_sample(tmp_path: Path) -> None:
    """With the start of measuring as 0, and in a file that is read back as it was."""
    result, _ = _measured(
        tmp_path, "--engine", "simulated:service=5ms,cv=0.5,clock=virtual", "--rate", "120/s", "--duration", "10s"
    )
    assert result.model.steadiness == Steadiness(transient_ns=0, overloaded=False)
    assert set(result.model.cohorts) == {"p50", "p99"}
    assert result.model.cohorts["p99"].latency_high_ns == result.model.metrics["latency"].max_ns
    assert result.model.sample is not None
    columns = result.model.sample.columns
    assert 0 <= min(columns["due"]) < max(columns["completed"]) <= result.phases.measure_ns
    latencies = [done - due for due, done in zip(columns["due"], columns["completed"], strict=True)]
    assert max(latencies) == result.model.metrics["latency"].max_ns
    assert RunResult.model_validate_json(result.model_dump_json()) == result
