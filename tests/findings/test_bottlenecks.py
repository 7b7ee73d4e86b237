"""What bound a run: the part that was busy nearly all the time, and none that was not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from test_findings import OPEN, kinds, only, rates

from loadtrt.asked.config import RunConfig
from loadtrt.findings.findings import findings_of
from loadtrt.load.tensors import TensorSpec
from loadtrt.results.breakdown import Batches, Cohort, Lane
from loadtrt.results.engine_info import Layer
from loadtrt.results.profile_result import LayerTimes, ProfilePass, ProfileResult
from loadtrt.results.run_result import Problem
from loadtrt.results.steadiness import Stall, Steadiness
from loadtrt.units import SECOND_NS
from runs_by_hand import US, engine, run_of, summary

if TYPE_CHECKING:
    from loadtrt.results.run_result import RunResult

STARVED = Problem(kind="starved", evidence="lanes stood idle", remedy="use more --buffers")


# --- all rows that were measured on an H200


class Row(NamedTuple):
    """Medians of a closed loop with two buffer sets, µs.

    ROWS are of the loop in Python, and of trtexec's table at that time; COMPILED are those of docs/h200.md.

    Measured: throughput, compute and the sum of the phases of one context, which rows with more have in turn where they
    were measured too; otherwise compute is contexts / throughput. The division of the copies is not: results take 10 µs
    as there, and the tiny plan's phases are divided by the bytes. An enqueue takes 18 µs where the whole request is one
    graph and 38.5 µs where compute is, as measured with the tiny and the copy-bound plan. A run that was INVALID is
    taken as idle for 10 % because of the host.
    """

    name: str
    contexts: int
    per_s: float
    enqueue: float
    h2d: float
    compute: float
    d2h: float
    expected: str
    batch: int = 16
    larger_batch: bool = False
    starved: float = 0.0
    busy: float | None = None

    def result(self) -> RunResult:
        computing = self.per_s * self.compute / 1e6  # lanes
        busy = min(computing, 0.998) if self.busy is None else self.busy
        in_flight_us = 2 * self.contexts / self.per_s * 1e6
        times = {
            "enqueue": self.enqueue,
            "h2d": self.h2d,
            "compute": self.compute,
            "d2h": self.d2h,
            "latency": in_flight_us,
            "service": in_flight_us - 5,
            "lateness": 5.0,
        }
        return run_of(
            times,
            {"contexts": self.contexts},
            busy=busy,
            at_once=max(computing / busy, 1.0),
            engine=engine(batch=self.batch, larger_batch=self.larger_batch),
            throughput=rates(self.per_s),
            starved_fraction=self.starved,
            problems=(STARVED,) if self.starved > 0.05 else (),
            valid=self.starved <= 0.05,
        )


KIT = {"larger_batch": True}
ROWS = [
    Row("GoogLeNet FP16 b16", 1, 1_100, 38.5, 185, 907.3, 10, "compute-bound", **KIT),
    Row("GoogLeNet FP16 b16", 2, 1_305, 38.5, 185, 1_530, 10, "compute-bound", **KIT),
    Row("GoogLeNet FP16 b16", 4, 1_450, 38.5, 187, 2_744, 10, "compute-bound", **KIT),
    Row("GoogLeNet FP16 b16", 8, 1_468, 38.5, 220, 5_420, 10, "compute-bound", **KIT),
    Row("GoogLeNet FP16 b16", 16, 1_469, 38.5, 220, 10_880, 10, "compute-bound", **KIT),
    Row("GoogLeNet FP16 b16", 32, 1_471, 38.5, 220, 21_700, 10, "compute-bound", **KIT),
    Row("GoogLeNet FP16 b1", 1, 1_931, 38.5, 16, 517.1, 10, "compute-bound", 1, **KIT),
    Row("GoogLeNet FP16 b1", 8, 9_407, 38.5, 16, 850, 10, "compute-bound", 1, **KIT),
    Row("GoogLeNet static FP32 b16", 1, 710, 38.5, 187, 1_405, 10, "compute-bound"),
    Row("GoogLeNet static FP32 b16", 4, 799, 38.5, 187, 5_000, 10, "compute-bound"),
    Row("GoogLeNet static FP16 b1", 1, 2_186, 38.5, 14, 455.7, 10, "compute-bound", 1),
    Row("GoogLeNet static FP16 b1", 4, 5_260, 38.5, 14, 760, 10, "compute-bound", 1),
    Row("ResNet-50-like FP16 b8", 1, 1_339, 38.5, 97, 743.4, 10, "compute-bound", 8),
    Row("ResNet-50-like FP16 b8", 4, 1_487, 38.5, 97, 2_690, 10, "compute-bound", 8),
    Row("tiny", 1, 32_582, 18, 4, 17.3, 6.8, "enqueue-bound", 1, starved=0.1),
    Row("tiny", 4, 43_920, 18, 4, 17.3, 6.8, "enqueue-bound", 1, starved=0.1),
    Row("convnet 28x28", 1, 21_309, 18, 4, 41.1, 10, "idle", 1, starved=0.008, busy=0.867),
    Row("convnet 28x28", 4, 38_943, 18, 4, 60, 10, "enqueue-bound", 1, starved=0.1, busy=0.9),
    Row("3 in + 2 out of 4 MiB", 1, 3_830, 38.5, 250, 46.5, 187.5, "copy-bound", 1),
    Row("3 in + 2 out of 4 MiB", 4, 3_806, 38.5, 250, 46.5, 187.5, "copy-bound", 1),
    # Beside the table: the convnet's other way of submitting, and without copies; a compiled loop with the tiny plan.
    Row("convnet, apart", 1, 25_805, 38.5, 4, 36.5, 10, "enqueue-bound", 1),
    Row("convnet, no copies", 1, 26_518, 18, 0, 36.5, 0, "compute-bound", 1),
    Row("tiny, compiled, enqueue half as long", 1, 45_742, 9, 4, 17.3, 6.8, "idle", 1),
]


# Of docs/h200.md: throughput and compute as there; copies as above or by their bytes at 52 GB/s, and an enqueue of
# 10.3 µs, as of the tiny plan there.
COMPILED = [
    Row("tiny", 1, 45_966, 10.3, 4, 18.6, 6.8, "idle", 1),
    Row("tiny", 4, 74_433, 10.3, 4, 22.9, 6.8, "enqueue-bound", 1, starved=0.1),
    Row("convnet 28x28", 1, 23_137, 10.3, 4, 41.8, 10, "compute-bound", 1),
    Row("convnet 28x28", 4, 72_086, 10.3, 4, 48.1, 10, "compute-bound", 1),
    Row("MobileNet FP16 b4", 1, 8_268, 10.3, 16, 119, 10, "compute-bound", 4),
    Row("MobileNet FP16 b4", 4, 18_448, 10.3, 16, 210, 10, "compute-bound", 4),
    Row("GoogLeNet dyn FP16 b16", 1, 1_095, 10.3, 185, 909, 10, "compute-bound", **KIT),
    Row("GoogLeNet dyn FP16 b16", 4, 1_448, 10.3, 187, 2_750, 10, "compute-bound", **KIT),
    Row("GoogLeNet dyn FP16 b1", 8, 9_414, 10.3, 16, 846, 10, "compute-bound", 1, **KIT),
    Row("3 in + 2 out of 4 MiB", 1, 3_723, 10.3, 250, 48.7, 187.5, "copy-bound", 1),
    Row("3 in + 2 out of 4 MiB", 4, 3_705, 10.3, 250, 51.2, 187.5, "copy-bound", 1),
    Row("GoogLeNet FP32 b16", 1, 710, 10.3, 187, 1_400, 10, "compute-bound"),
    Row("GoogLeNet FP32 b16", 4, 810, 10.3, 187, 4_940, 10, "compute-bound"),
    Row("GoogLeNet FP16 b1", 1, 2_601, 10.3, 14, 379, 10, "compute-bound", 1),
    Row("GoogLeNet FP16 b1", 4, 6_364, 10.3, 14, 625, 10, "compute-bound", 1),
    Row("ResNet-50-like FP16 b8", 1, 1_579, 10.3, 97, 628, 10, "compute-bound", 8),
    Row("ResNet-50-like FP16 b8", 4, 1_806, 10.3, 97, 2_220, 10, "compute-bound", 8),
    Row("encoder block FP16 b8", 1, 7_508, 10.3, 31, 132, 31, "compute-bound", 8),
    Row("encoder block FP16 b8", 4, 9_878, 10.3, 31, 402, 31, "compute-bound", 8),
]


@pytest.mark.parametrize("row", ROWS + COMPILED, ids=lambda row: f"{row.name} c{row.contexts} {row.enqueue:g} µs")
def test_the_cause_named_of_a_measured_row(row: Row) -> None:
    """One, and the true one; where the host bound it, the verdict says so too."""
    assert kinds(row.result()) == [row.expected]


def test_a_host_that_is_nearly_full_is_not_acquitted() -> None:
    """Law: of an engine that is the limit, the host is named too where enqueues take half of its core: collecting comes
    on top, as the tiny plan showed (12 µs of calls a request, 10 of which enqueue)."""
    for row in ROWS + COMPILED:
        found = findings_of(row.result())[0]
        half = row.per_s * row.enqueue / 1e6 >= 0.5
        if found.kind == "compute-bound":
            assert ("next to it the thread that enqueues" in found.cause) == half, row
            assert ("neither the host" in found.cause) == (not half), row
    assert sum(row.per_s * row.enqueue >= 5e5 and row.expected == "compute-bound" for row in ROWS + COMPILED) == 1


@pytest.mark.parametrize("row", [row for row in COMPILED if row.batch == 16 and row.contexts == 4], ids=str)
def test_large_batches_on_queues_of_their_own_may_be_partitioned(row: Row) -> None:
    """With the 32 hardware queues that loadtrt sets: eight partitions served 5 % more of GoogLeNet at batch 16."""
    result = row.result()
    queues = replace(result.model.engine, mode={**result.model.engine.mode, "hardware queues": "32"})
    assert kinds(result.with_model(engine=queues)) == ["compute-bound", "unpartitioned"]


def test_no_row_of_a_static_plan_names_a_batch_that_it_refuses() -> None:
    """The option where the plan leaves it open; else what makes a plan that does."""
    for row in ROWS:
        found = findings_of(row.result())[0]
        batch = f"{found.remedy} ".replace("'loadtrt build --batch'", "")
        assert "--batch " not in batch or row.larger_batch


def test_the_copy_bound_row() -> None:
    """Measured: --buffers 3 gave 4 % more. Its enqueues took a seventh of a core."""
    row = next(row for row in ROWS if row.name.startswith("3 in"))
    tensors = tuple(TensorSpec(f"t{n}", n < 3, "fp32", (1, 1024, 1024), 4 << 20) for n in range(5))
    result = row.result()
    found = only(result.with_model(engine=replace(result.model.engine, tensors=tensors)))
    assert found.evidence == (
        "copying the inputs takes 250 µs of the link, which was busy 96 % of the time, and lanes computed 18 %"
    )
    assert found.remedy.startswith("--buffers 3 keeps the link busy")
    assert "inputs in a type smaller than FP32" in found.remedy
    three = run_of({"h2d": 250.0, "compute": 46.5, "d2h": 187.5}, {"buffers": 3}, busy=0.2, throughput=rates(3_982))
    assert "--buffers" not in only(three).remedy
    for way, told in (("graph", True), ("apart", False)):  # whose copies have streams of their own
        forced = run_of(
            {"h2d": 250.0, "compute": 46.5, "d2h": 187.5},
            {"buffers": 3, "submit": way},
            busy=0.2,
            throughput=rates(3_982),
            engine=engine(mode={"graph": "yes", "copies": "yes", "wait": "spin", "submit": way}),
        )
        assert ("--submit auto tries" in only(forced).remedy) is told


def test_the_idle_row() -> None:
    """Measured: four requests a launch gave 13 % more, and submitting the other way 21 %."""
    row = next(row for row in ROWS if row.expected == "idle")
    found = only(row.result())
    assert found.evidence == (
        "lanes computed 87 % of the time and waited for the host 1 %: for 12 % none computed though requests were "
        "in flight"
    )
    assert found.cause == "launching and copying leave gaps between the requests' computations"
    assert found.remedy == "--buffers 3, --contexts 2 or --requests-per-launch 4 may fill the gaps"
    result = row.result()
    model = result.config.model.model_copy(update={"submit": "graph"})
    forced = result.model_copy(update={"config": result.config.model_copy(update={"models": {"model": model}})})
    assert "--submit auto" in only(forced).remedy


# --- one part after the other
def test_enqueue_bound() -> None:
    """By the share of a core; the remedy is the graph, unless there is one."""
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
    on = only(run_of(times, throughput=busy, busy=0.7))
    assert "--batch" in on.remedy
    assert "--requests-per-launch 4" in on.remedy
    assert "graph" not in on.remedy
    assert kinds(run_of(times, {"graph": False}, engine=plain, throughput=rates(1_370))) == ["compute-bound"]  # 79 %


def test_compute_that_waits_for_launches_is_no_full_device() -> None:
    """Without graphs compute lasts as long as the thread enqueues. With them it is the device's own time: where both
    are full the busier one is named, and the other with it."""
    times = {"enqueue": 580.0, "compute": 1_900.0}
    full = run_of(times, throughput=rates(1_600))
    assert only(full).kind == "compute-bound"
    assert only(full).cause == (
        "the engine itself is the limit, and next to it the thread that enqueues, busy 93 % of the time"
    )
    plain = engine(mode={"graph": "no", "copies": "yes", "wait": "spin"})
    assert kinds(run_of(times, throughput=rates(1_600), engine=plain)) == ["enqueue-bound"]


def test_a_long_enqueue_that_is_seldom_binds_nothing() -> None:
    """It takes as long as computing, at 10 requests a second: 1 % of a core."""
    times = {"enqueue": 800.0, "compute": 1_000.0, "latency": 1_300}
    assert kinds(run_of(times, OPEN, busy=0.1, throughput=rates(10))) == []


def test_enqueues_are_why_lanes_were_idle_from_half_a_core_on() -> None:
    """The rest of the thread's time goes to collecting. Below, something else made it late, as the problem says."""
    for enqueue_us, told in ((501.0, ["enqueue-bound"]), (499.0, [])):
        late = run_of({"enqueue": enqueue_us}, busy=0.8, starved_fraction=0.2, problems=(STARVED,), valid=False)
        assert kinds(late) == told
        assert kinds(run_of({"enqueue": enqueue_us}, busy=0.97)) == ["compute-bound"]


def test_one_enqueue_serves_a_whole_batch() -> None:
    """With a batcher there are as many enqueues as batches, not as requests."""
    options = {"rate": "8000/s", "batcher": "max=8,delay=1ms"}
    times = {"enqueue": 150.0, "h2d": 18.0}
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
    """From 80 % of the link's time on, and more than is computed. FP16 is no advice to who has it."""
    found = only(run_of({phase: 800.0}, busy=0.7))
    assert found.kind == "copy-bound"
    assert found.evidence == (
        f"copying the {what} takes 800 µs of the link, which was busy 80 % of the time, and lanes computed 70 %"
    )
    assert f"{what} in a type smaller than FP32" in found.remedy
    assert "--no-copies" in found.remedy
    assert "--buffers" not in found.remedy  # two lanes: one of them has a copy waiting
    assert only(run_of({phase: 800.0}, {"contexts": 1}, busy=0.7)).remedy.startswith("--buffers 3")
    halves = tuple(spec.__class__(spec.name, spec.is_input, "fp16", spec.shape, 2) for spec in engine().tensors)
    found = only(run_of({phase: 800.0}, {"buffers": 1}, busy=0.7, engine=engine(tensors=halves)))
    assert "FP" not in found.remedy
    assert "--buffers 2" in found.remedy
    assert kinds(run_of({phase: 799.0}, busy=0.7)) == ["idle"]
    assert kinds(run_of({phase: 900.0}, busy=0.95)) == ["compute-bound"]
    assert "next to it copies, busy 90 %" in only(run_of({phase: 900.0})).cause
    assert kinds(run_of({phase: 1_900.0}, OPEN, busy=0.1, throughput=rates(10))) == []  # 2 % of the link's time
    assert kinds(run_of({phase: 1_900.0}, OPEN, busy=0.5, throughput=rates(490))) == ["copy-bound"]


def test_copies_of_several_lanes_wait_for_each_other() -> None:
    """What they take of the link is what the one takes that waits least."""
    metrics = run_of({"h2d": 900.0}).model.metrics
    waits = {**metrics, "h2d": metrics["h2d"].model_copy(update={"min_ns": 200_000})}
    assert kinds(run_of(busy=0.7, metrics=waits)) == ["idle"]
    assert kinds(run_of({"h2d": 900.0}, {"contexts": 1}, busy=0.7, at_once=1.0, metrics=waits)) == ["copy-bound"]


def test_outputs_of_a_launch_wait_for_its_other_computes() -> None:
    """That is no copying; inputs are copied as ever."""
    several = {"requests_per_launch": 4}
    assert kinds(run_of({"d2h": 5_000.0}, several)) == ["compute-bound"]
    assert kinds(run_of({"d2h": 5_000.0}, several | {"buffers": 1})) == ["compute-bound"]
    assert kinds(run_of({"h2d": 5_000.0}, several, busy=0.5)) == ["copy-bound"]


def test_copies_that_nothing_hides() -> None:
    """One buffer set: a lane does not compute while it copies. Not where other lanes fill the device meanwhile, nor
    where one request at a time is asked for."""
    alone = {"contexts": 1, "buffers": 1}
    seen: dict[str, Any] = {"busy": 0.9, "at_once": 1.0, "throughput": rates(480)}
    found = only(run_of(options=alone, **seen))
    assert found.kind == "copies-exposed"
    assert found.evidence.startswith("copies are 9 % of a request's time")
    assert found.remedy.startswith("--buffers 2")
    assert kinds(run_of(options={**alone, "buffers": 2}, **seen)) == ["idle"]
    assert kinds(run_of({"h2d": 80.0}, alone, **seen | {"busy": 0.95})) == ["compute-bound"]
    full = only(run_of(options={"buffers": 1}))
    assert full.kind == "compute-bound"
    assert full.remedy.startswith("--buffers 2, ")
    one: dict[str, Any] = {"options": alone, **seen, "command": ("loadtrt", "run", "--latency")}
    assert kinds(run_of(**one)) == []
    refused = engine(mode={"graph": "no"}, notes=("no CUDA graph: a layer waits for the host",))
    assert kinds(run_of(**one, engine=refused)) == ["no-graph"]


def test_host_bound() -> None:
    """Idle lanes, lateness in an open loop's latency, or a full core where nobody spins; at their limits they are
    problems. A closed loop hides lateness, or its lanes are idle."""
    idle = only(run_of(starved_fraction=0.03, busy=0.97))
    assert (idle.kind, idle.remedy) == ("host-bound", "free a core for loadtrt, or use a larger --batch")
    assert "3.0 % of the time" in idle.evidence
    python = engine(mode={"graph": "yes", "copies": "yes", "wait": "spin", "loop": "python"})
    assert "use a compiled loop" in only(run_of(starved_fraction=0.03, busy=0.97, engine=python)).remedy
    assert kinds(run_of(starved_fraction=0.06, busy=0.94, valid=False, problems=(STARVED,))) == []

    late = {"latency": 300.0, "lateness": 40.0, "compute": 200.0}
    found = only(run_of(late, OPEN, busy=0.5))
    assert found.evidence == "the load generator added 40.0 µs to a mean latency of 300 µs"
    assert kinds(run_of(late)) == ["compute-bound"]
    metrics = run_of(late).model.metrics
    bad = {**metrics, "lateness": summary(40, p99_us=251)}
    problem = Problem(kind="late", evidence="the generator was 251 µs late", remedy="free a core")
    assert kinds(run_of(options=OPEN, busy=0.5, metrics=bad, valid=False, problems=(problem,))) == []
    assert kinds(run_of(options={**OPEN, "max_lateness": "300us"}, busy=0.5, metrics=bad)) == ["host-bound"]

    blocks = engine(mode={"graph": "yes", "copies": "yes", "wait": "block"})
    waits: dict[str, Any] = {"options": {"wait": "block"}, "engine": blocks}
    assert only(run_of(**waits, host_cores=0.95, busy=0.9)).remedy == "--wait spin notices completions sooner"
    assert kinds(run_of(**waits, host_cores=0.95)) == ["compute-bound"]
    assert kinds(run_of(**waits, host_cores=0.5)) == ["compute-bound"]


@pytest.mark.parametrize(
    ("contexts", "threads", "remedy"),
    [
        (2, "2", "free a core for loadtrt: use fewer --contexts or fewer --threads-per-context"),
        (2, "1", "free a core for loadtrt: use fewer --contexts"),
        (1, "1", "free a core for loadtrt"),
    ],
)
def test_a_late_host_that_onnx_runtime_computes_on(contexts: int, threads: str, remedy: str) -> None:
    """Fewer of what there is more than one of."""
    late = {"latency": 300.0, "lateness": 40.0, "compute": 200.0, "h2d": 0.0, "d2h": 0.0}
    info = engine("onnxruntime", mode={"threads per context": threads})
    assert only(run_of(late, {**OPEN, "contexts": contexts}, busy=0.5, engine=info)).remedy == remedy


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
    assert busy.remedy.startswith("a shorter delay= in --batcher, a lower --rate")
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


def test_lanes_whose_copies_wait_for_those_of_another() -> None:
    """Measured: a lane with three buffer sets always has a copy waiting, and another completed 3 requests in a second.
    What is so all the time is no stall."""
    options: dict[str, Any] = {"contexts": 2, "buffers": 3}
    lanes = tuple(
        Lane(lane=lane, requests=requests, service_p50_ns=time * US, compute_p50_ns=None)
        for lane, requests, time in ((0, 3_900, 750), (1, 3, 1_000_000))
    )
    stall = Stall(start_ns=0, longest_ns=SECOND_NS, total_ns=SECOND_NS, times=1, late=1, host=False, lane=1)
    stalled = Steadiness(transient_ns=0, overloaded=False, stall=stall)
    run = run_of({"h2d": 245.0}, options, busy=0.22, throughput=rates(3_960), lanes=lanes, fairness=0.5)
    copies, unfair = findings_of(run.with_model(steadiness=stalled))
    assert (copies.kind, unfair.kind) == ("copy-bound", "unfair")
    assert "--buffers" not in copies.remedy
    assert unfair.remedy.startswith("--buffers 2: ")
    assert kinds(run.with_model(steadiness=stalled, fairness=1.0))[0] == "stall"


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
    """Nothing else bound it, and requests were in flight all the time: too few, or there are gaps between them."""
    assert only(run_of(options={"contexts": 1}, at_once=1.0)).remedy.startswith("--contexts 2")
    found = only(run_of(busy=0.7, at_once=1.5))
    assert (found.kind, found.remedy) == (
        "idle",
        "--buffers 3, --contexts 3 or --requests-per-launch 4 may fill the gaps",
    )
    assert kinds(run_of(busy=0.94)) == ["idle"]
    assert kinds(run_of(busy=0.94, starved_fraction=0.02)) == []  # 4 % are left
    one = only(run_of({"h2d": 20.0}, {"buffers": 1}, busy=0.7))
    assert one.remedy.startswith("--buffers 2, ")
    assert one.cause.startswith("too few requests are in flight")
    assert only(run_of(busy=0.7, at_once=1.5)).cause.startswith("launching and copying leave gaps")
    cpu = only(run_of({"h2d": 0.0, "d2h": 0.0}, busy=0.7, engine=engine("onnxruntime")))
    assert cpu.remedy == "--contexts 3 may fill the gaps"
    assert "copying" not in cpu.cause
    busy = run_of({"h2d": 0.0, "d2h": 0.0}, busy=0.7, engine=engine("onnxruntime"), environment={"busy_host": "others"})
    assert only(busy).remedy.startswith("others: stop what else runs there")
    full = run_of({"h2d": 0.0, "d2h": 0.0}, busy=1.0, engine=engine("onnxruntime"))
    assert only(full).cause == "the limit is the model's computation on the CPU, not loadtrt"
    told = only(full.model_copy(update={"environment": {"busy_host": "others"}}))
    assert told.cause == "the model had only a part of the cores: on a quiet host it is faster"
    assert told.remedy.startswith("others: stop what else runs there")
    assert kinds(run_of({"latency": 2_100.0}, OPEN, busy=0.7)) == []
