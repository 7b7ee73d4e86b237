"""What is found in a run: with its evidence, and a remedy that is not in use; nothing where nothing is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from test_gpu_findings import second, telemetry

from loadtrt.asked.config import RunConfig
from loadtrt.capacity.outcomes import host_bound
from loadtrt.cli.main import cli
from loadtrt.findings.findings import findings_of
from loadtrt.results.breakdown import Batches, Cohort
from loadtrt.results.engine_info import Layer
from loadtrt.results.gpu_telemetry import GpuClient, GpuSharing
from loadtrt.results.profile_result import LayerTimes, ProfilePass, ProfileResult
from loadtrt.results.run_result import Finding, Lane, Phases, Problem, RunResult, Throughput
from loadtrt.results.steadiness import SlowPart, Stall, Steadiness
from loadtrt.units import SECOND_NS
from runs_by_hand import US, engine, run_of, summary

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


# --- what bound it


def test_enqueue_bound() -> None:
    """By the share of a core, or beside the compute time; the remedy is the graph, unless there is one."""
    times = {"enqueue": 580.0, "compute": 2_900.0}
    plain = engine(mode={"graph": "no", "copies": "yes", "wait": "spin"})
    busy = rates(1_385)
    off = only(run_of(times, {"graph": False}, engine=plain, throughput=busy))
    assert off.kind == "enqueue-bound"
    assert (
        off.evidence == "one enqueue takes 580 µs of host time and compute takes 2.90 ms; enqueues use 80 % of a core"
    )
    assert off.remedy.startswith("remove --no-graph")
    refused = only(run_of(times, engine=plain, throughput=busy))
    assert "--batch" in refused.remedy
    assert "--no-graph" not in refused.remedy
    on = only(run_of(times, throughput=busy))
    assert "--batch" in on.remedy
    assert "graph" not in on.remedy
    assert kinds(run_of(times, throughput=rates(1_370))) == ["compute-bound"]  # 79 %

    alone = run_of({"enqueue": 800.0, "compute": 1_000.0, "latency": 1_300}, OPEN, busy=0.1, throughput=rates(10))
    assert kinds(alone) == ["enqueue-bound"]


def test_one_enqueue_serves_a_whole_batch() -> None:
    """With a batcher there are as many enqueues as batches, not as requests."""
    options = {"rate": "8000/s", "batcher": "max=8,delay=1ms"}
    times = {"enqueue": 150.0}
    single: dict[str, Any] = {"throughput": rates(8_000), "engine": engine(batch=1), "busy": 0.5}
    assert kinds(run_of(times, options, **single)) == ["enqueue-bound"]
    assert kinds(run_of(times, options, batches=Batches(counts={8: 1}, mean=8.0, padded=0), **single)) == []


def test_a_graph_that_was_refused() -> None:
    """The note's reason is the cause; where the enqueue binds the run that is the finding instead."""
    info = engine(mode={"graph": "no"}, notes=("no CUDA graph: a layer waits for the host",))
    found = only(run_of({"enqueue": 100.0}, OPEN, busy=0.5, engine=info))
    assert (found.kind, found.cause) == ("no-graph", "a layer waits for the host")
    assert "100 µs" in found.evidence
    assert kinds(run_of({"enqueue": 900.0}, engine=info)) == ["enqueue-bound"]
    assert kinds(run_of(options={"graph": False}, engine=engine(mode={"graph": "no"}))) == ["compute-bound"]


@pytest.mark.parametrize(("phase", "what"), [("h2d", "inputs"), ("d2h", "outputs")])
def test_copy_bound(phase: str, what: str) -> None:
    """trtexec's rule: a copy that takes as long as computing. FP16 is no advice to who has it."""
    found = only(run_of({phase: 1_900.0}))
    assert found.kind == "copy-bound"
    assert found.evidence == f"copying the {what} takes 1.90 ms, computing 1.90 ms"
    assert f"{what} in a type smaller than FP32" in found.remedy
    assert "--no-copies" in found.remedy
    assert "--buffers" not in found.remedy
    halves = tuple(spec.__class__(spec.name, spec.is_input, "fp16", spec.shape, 2) for spec in engine().tensors)
    found = only(run_of({phase: 1_900.0}, {"buffers": 1}, engine=engine(tensors=halves)))
    assert "FP" not in found.remedy
    assert "--buffers 2" in found.remedy
    assert kinds(run_of({phase: 1_899.0})) == ["compute-bound"]


def test_outputs_of_a_launch_wait_for_its_other_computes() -> None:
    """That is no copying; inputs are copied as ever."""
    several = {"requests_per_launch": 4}
    assert kinds(run_of({"d2h": 5_000.0}, several)) == ["compute-bound"]
    assert kinds(run_of({"d2h": 5_000.0}, several | {"buffers": 1})) == ["compute-bound"]
    assert kinds(run_of({"h2d": 5_000.0}, several)) == ["copy-bound"]


def test_copies_that_nothing_hides() -> None:
    """One buffer set: a lane does not compute while it copies. With two there is nothing to say."""
    found = only(run_of(options={"buffers": 1}))
    assert found.kind == "copies-exposed"
    assert found.evidence.startswith("copies are 9 % of a request's time")
    assert found.remedy.startswith("--buffers 2")
    assert kinds(run_of(options={"buffers": 2})) == ["compute-bound"]
    assert kinds(run_of({"h2d": 80.0}, {"buffers": 1})) == ["compute-bound"]


def test_host_bound() -> None:
    """Idle lanes, lateness in the latency, or a full core where nobody spins; at their limits they are problems."""
    idle = only(run_of(starved_fraction=0.03, busy=0.97))
    assert (idle.kind, idle.remedy) == ("host-bound", "free a core for loadtrt, or use a larger --batch")
    assert "3.0 % of the time" in idle.evidence
    problem = Problem(kind="starved", evidence="lanes stood idle", remedy="use more --buffers")
    assert kinds(run_of(starved_fraction=0.06, busy=0.94, valid=False, problems=(problem,))) == []

    late = {"latency": 300.0, "lateness": 40.0, "compute": 200.0}
    found = only(run_of(late, OPEN, busy=0.5))
    assert found.evidence == "the load generator added 40.0 µs to a mean latency of 300 µs"
    metrics = run_of(late).model.metrics
    bad = {**metrics, "lateness": summary(40, p99_us=251)}
    problem = Problem(kind="late", evidence="the generator was 251 µs late", remedy="free a core")
    assert kinds(run_of(options=OPEN, busy=0.5, metrics=bad, valid=False, problems=(problem,))) == []
    assert kinds(run_of(options={**OPEN, "max_lateness": "300us"}, busy=0.5, metrics=bad)) == ["host-bound"]

    blocks = engine(mode={"graph": "yes", "copies": "yes", "wait": "block"})
    waits = {"wait": "block"}
    assert (
        only(run_of(options=waits, engine=blocks, host_cores=0.95)).remedy == "--wait spin notices completions sooner"
    )
    assert kinds(run_of(options=waits, engine=blocks, host_cores=0.5)) == ["compute-bound"]
    threads = run_of(late, OPEN, busy=0.5, engine=engine("onnxruntime"))
    assert "--threads-per-context" in only(threads).remedy


def test_queue_bound() -> None:
    """Typical requests of an open loop wait for most of their latency; one stall, which makes a mean, is none."""
    waits = {"latency": 6_000.0}
    found = only(run_of(waits, OPEN, busy=0.9))
    assert found.kind == "queue-bound"
    assert found.evidence == "of a typical latency of 6.00 ms, 3.88 ms is queueing delay"
    assert "loadtrt capacity" in found.remedy
    assert "--contexts" in found.remedy
    assert "--contexts" not in only(run_of(waits, OPEN, busy=0.99)).remedy
    assert kinds(run_of(waits)) == ["compute-bound"]  # a closed loop
    typical = Cohort(
        requests=1000, latency_low_ns=0, latency_high_ns=0, latency_ns=2_000 * US, queue_ns=0, h2d_ns=180 * US,
        compute_ns=1_800 * US, d2h_ns=15 * US, other_ns=5 * US,
    )  # fmt: skip
    assert kinds(run_of(waits, OPEN, busy=0.9, cohorts={"p50": typical})) == []
    bursts = only(run_of(waits, {**OPEN, "bursts": "1s/4s"}, busy=0.5))
    assert "unevenly" in bursts.cause
    busy = only(run_of(waits, {**OPEN, "batcher": "max=4,delay=5ms"}, busy=0.9))
    assert busy.remedy.startswith("a shorter delay= in --batcher, a lower rate")
    full = only(run_of(waits, {**OPEN, "batcher": "max=4"}, busy=0.9))
    assert "delay" not in full.remedy  # there is none


@pytest.mark.parametrize("options", [OPEN, {**OPEN, "bursts": "1s/4s"}])
def test_a_batchers_delay_is_no_lack_of_lanes(options: dict[str, Any]) -> None:
    """Lanes that mostly stand idle keep nobody waiting: the delay does, and no context nor lower rate shortens it."""
    slow = {**options, "batcher": "max=4,delay=5ms"}
    found = only(run_of({"latency": 6_000.0}, slow, busy=0.5, at_once=1.5))
    assert found.evidence.endswith("3.88 ms is queueing delay, while lanes are mostly idle")
    assert "5.00 ms" in found.cause
    assert found.remedy == "a shorter delay= in --batcher"


@pytest.mark.parametrize(
    ("load", "remedy"),
    [({"mix": "1:1, 8:1"}, "larger parts in --mix"), ({**OPEN, "batcher": "max=8"}, "a larger max= in --batcher")],
)
def test_no_remedy_is_refused(load: dict[str, Any], remedy: str) -> None:
    """A mix and a batcher exclude --batch: what they have themselves is named instead, and no batch is invented."""
    info = engine(mode={"graph": "no"})
    for times, kind, changes in (
        ({"enqueue": 580.0, "compute": 600.0}, "enqueue-bound", {"busy": 0.7}),
        ({"enqueue": 580.0, "compute": 600.0}, "enqueue-bound", {"busy": 0.7, "engine": info}),
        (
            {"enqueue": 15.0, "compute": 40.0, "h2d": 6.0, "d2h": 7.0, "latency": 100, "lateness": 1.0},
            "small-batch",
            {},
        ),
        ({}, "host-bound", {"starved_fraction": 0.03}),
    ):
        found = next(it for it in findings_of(run_of(times, load, **changes)) if it.kind == kind)
        assert remedy in found.remedy
        assert "--batch " not in f"{found.remedy} "
        assert "16" not in found.evidence
    if "mix" in load:
        for contexts in (1, 2):
            found = only(run_of(options={**load, "contexts": contexts}, at_once=float(contexts)))
            assert found.kind == "compute-bound"
            assert remedy in found.remedy
            assert "--batch " not in f"{found.remedy} "


def test_contexts_that_take_turns() -> None:
    """Two contexts of which one computes at a time are one; a busy GPU with two at once is as it should be."""
    found = findings_of(run_of(at_once=1.02))[0]
    assert (found.kind, found.evidence) == (
        "contexts-in-turn",
        "of 2 contexts, 1.02 compute at the same time on average",
    )
    assert found.remedy.startswith("--contexts 1")
    assert "contexts-in-turn" not in kinds(run_of(at_once=1.02, busy=0.5))
    assert "contexts-in-turn" not in kinds(run_of(options={"contexts": 1}, at_once=1.0))


def _profile(alone_us: float, mode: Any = "graph") -> ProfileResult:
    times = LayerTimes(layer=Layer("all"), count=9, total_ns=1, average_ns=1, median_ns=1, p99_ns=None, share=1)
    one = ProfilePass(mode=mode, inferences=9, layers=(times,), layers_ns=1, inference_ns=alone_us * US, whole=9)
    return ProfileResult(
        loadtrt="1",
        started="",
        command=(),
        config=RunConfig.of(engine="x"),
        environment={},
        engine=engine(),
        passes=(one,),
        notes=(),
    )


def test_interference_needs_a_profile_of_the_same_run() -> None:
    """work = contexts · alone / here. With four contexts at 3.15 ms and 948 µs alone: 1.2 of them."""
    crowd = {"compute": 3_150.0}
    found = findings_of(run_of(crowd, {"contexts": 4}, at_once=4.0, profile=_profile(948)))[0]
    assert found.kind == "interference"
    assert found.evidence.endswith("4 contexts do the work of 1.2")
    assert found.remedy.startswith("--contexts 2 ")
    pair = findings_of(run_of({"compute": 1_580.0}, profile=_profile(948)))[0]
    assert pair.remedy == "--contexts 1 has 83 % of the throughput at a lower latency"
    for other in (_profile(2_500), _profile(948, "plain"), None):
        assert kinds(run_of(crowd, {"contexts": 4}, at_once=4.0, profile=other)) == ["compute-bound"]


def test_unfair_lanes() -> None:
    """Unequal shares and unequal speed; by chance alone lanes differ in one of them only."""

    def lanes(slow_us: float) -> tuple[Lane, ...]:
        return tuple(
            Lane(lane=lane, requests=requests, service_p50_ns=time * US, compute_p50_ns=None)
            for lane, requests, time in ((0, 7_500, 4_000), (1, 2_500, slow_us))
        )

    found = findings_of(run_of(lanes=lanes(12_000), fairness=0.8))[0]
    assert found.kind == "unfair"
    assert found.evidence == "lane 1 served 2 500 requests at a median of 12.0 ms, lane 0 7 500 at 4.00 ms"
    assert kinds(run_of(lanes=lanes(4_500), fairness=0.8)) == ["compute-bound"]
    assert kinds(run_of(lanes=lanes(12_000), fairness=0.96)) == ["compute-bound"]


def test_a_batch_that_is_too_small() -> None:
    """On a GPU alone: what an enqueue costs beside a short computation, short of binding the run already."""
    times = {"enqueue": 15.0, "compute": 40.0, "h2d": 6.0, "d2h": 7.0, "latency": 100, "lateness": 1.0}
    found = only(run_of(times, OPEN, busy=0.5, engine=engine(batch=1)))
    assert found.kind == "small-batch"
    assert found.evidence == "batch 1 computes in 40.0 µs, and one enqueue takes 15.0 µs"
    assert "2.7 lanes" in found.cause
    assert "--batch" in found.remedy
    assert kinds(run_of(times, OPEN, busy=0.5, engine=engine("onnxruntime"))) == []


@pytest.mark.parametrize(
    ("precision", "build", "advice"),
    [
        ("", None, "a lower precision"),
        ("", {"precision": ""}, "FP16"),
        ("confirmed: 57 of 57 layers compute in FP16", None, "INT8"),
        ("", {"precision": "the builder may use INT8"}, "a larger --batch"),
    ],
)
def test_the_next_lower_precision(precision: str, build: Any, advice: str) -> None:
    """What is in use already, as far as anybody knows, is no advice."""
    assert only(run_of(engine=engine(precision=precision, build=build))).remedy.startswith(advice)


def test_a_device_that_is_not_full() -> None:
    """Nothing else bound it: too few in flight. With one lane a second may fill the GPU; with one buffer set, that."""
    assert only(run_of(options={"contexts": 1}, at_once=1.0)).remedy.startswith("--contexts 2")
    found = only(run_of(busy=0.7, at_once=1.5))
    assert (found.kind, found.remedy) == ("idle", "--contexts 3")
    assert kinds(run_of(busy=0.9)) == []
    assert only(run_of({"h2d": 20.0}, {"buffers": 1}, busy=0.7)).remedy == "--buffers 2"


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
    assert dropped.remedy == "more --contexts, or a larger --max-queue"
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
    assert stages.remedy == "lower rates in --stages, or more --contexts"
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


# --- of all of them


@given(
    st.fixed_dictionaries({name: st.floats(0, 10**5) for name in ("latency", "enqueue", "h2d", "compute", "d2h")}),
    st.fixed_dictionaries(
        {
            "contexts": st.integers(1, 9),
            "buffers": st.integers(1, 3),
            "graph": st.booleans(),
            "wait": st.sampled_from(["spin", "block"]),
            "rate": st.sampled_from([None, "500/s"]),
            "telemetry": st.booleans(),
        }
    ),
    st.integers(1, 10_000),
    st.sampled_from(["tensorrt", "onnxruntime", "simulated"]),
    st.booleans(),
    st.tuples(st.floats(0, 0.1), st.floats(0.3, 1), st.floats(1, 4)),
    st.one_of(st.none(), st.builds(Steadiness, transient_ns=st.integers(0, 10**10), transient_ratio=st.floats(0.1, 9),
        drift_ratio=st.one_of(st.none(), st.floats(0.1, 9)), overloaded=st.booleans(),
        slow=st.sampled_from([None, _slow(500, 300).slow]), stall=st.sampled_from([None, _stalled().stall]))),
)  # fmt: skip
def test_no_remedy_is_in_use_and_none_comes_twice(
    times: dict[str, float],
    options: dict[str, Any],
    count: int,
    kind: str,
    refused: bool,
    shares: tuple[float, float, float],
    state: Steadiness | None,
) -> None:
    """Whatever a run is like: every finding is whole, its kind is alone, and its remedy changes something."""
    graph = "yes" if options["graph"] and not refused else "no"
    info = engine(kind, **({"mode": {"graph": graph, "wait": options["wait"]}} if kind == "tensorrt" else {}))
    starved, busy, at_once = shares
    result = run_of(times, options, count, busy, at_once, engine=info, starved_fraction=starved, steadiness=state)
    found = findings_of(result)
    assert len({it.kind for it in found}) == len(found)
    for it in found:
        assert it.kind
        assert it.evidence
        assert it.cause
        assert it.remedy
        assert "nan" not in f"{it}"
        assert "inf" not in f"{it}".replace("inference", "")
        assert "--buffers 2" not in it.remedy or options["buffers"] == 1
        assert "remove --no-graph" not in it.remedy or not options["graph"]
        assert "without --no-telemetry" not in it.remedy or not options["telemetry"]
        assert "--wait spin" not in it.remedy or options["wait"] == "block"
        assert f"--contexts {options['contexts']} " not in f"{it.remedy} "


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
