"""Requests of several sizes, batches formed of single ones, bounded queues: exactly, on the simulated engine."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtrt.asked.config import RunConfig
from loadtrt.asked.reading import keys_of, load_config
from loadtrt.engines.open import open_engine
from loadtrt.errors import UsageError
from loadtrt.lanes.input_sets import inputs_for
from loadtrt.lanes.outcome import result_of
from loadtrt.lanes.recorder import Recorder
from loadtrt.lanes.scheduler import Driven, Load, Stop, drive
from loadtrt.lanes.session import Session, run_session
from loadtrt.load.request_sizes import Batcher, Batching, draw, parse_batching, parse_mix
from loadtrt.records.records import DROPPED, OK, Records
from loadtrt.report.openmetrics import openmetrics_text
from loadtrt.report.plain import terminal_text
from loadtrt.units import MILLISECOND_NS, SECOND_NS
from onnx_files import save
from rigs import one_loop

if TYPE_CHECKING:
    from pathlib import Path

    from loadtrt.results.run_result import RunResult

MS = MILLISECOND_NS


async def run(options: dict[str, Any]) -> tuple[RunResult, Records]:
    """A whole run on a simulated engine in virtual time, and its records with instants from the start."""
    config = load_config(None, {"engine": "simulated:service=5ms,clock=virtual", "warmup": "0s", **options})
    engine, session = open_engine(config.model), Session()
    try:
        inputs = inputs_for(engine, config.model).sets
        bill = engine.memory(inputs)
        await run_session(engine, config, inputs, Stop(), session)
        result = result_of(session, engine, config, bill, run="r", load_ns=0, started="", command=(), environment={})
    finally:
        engine.close()
    assert session.recorder is not None
    rows = session.recorder.records.rows.copy()
    rows[:, :4] -= session.recorder.start_ns
    return result, Records(rows)


async def driven(due: list[int], contexts: int = 1, **load: Any) -> tuple[Records, Driven]:
    """What becomes of requests due at these instants, each served in 5 ms + 1 ms an item; records by due instant."""
    batcher: Batcher | None = load.get("batcher")
    sizes = batcher.batching.sizes if batcher else (1,)
    config = RunConfig.of(engine="simulated:service=5ms,item=1ms,clock=virtual", contexts=contexts, buffers=1)
    if batcher:
        config = config.with_model(batcher=f"max={sizes[-1]},sizes={'/'.join(map(str, sizes))}")
    engine = open_engine(config.model)
    engine.allocate(inputs_for(engine, config.with_model(input_sets=1).model).sets)
    recorder = Recorder(contexts, engine.now_ns())
    done = await drive(engine, recorder, Load(np.array(due, np.int64), **load), Stop())
    rows = recorder.records.rows.copy()
    rows[:, :4] -= recorder.start_ns
    return Records(rows[np.lexsort((rows[:, 3], rows[:, 0]))]), done


# --- mixes


@given(
    st.lists(
        st.tuples(st.integers(1, 10_000), st.floats(0.001, 1000)), min_size=1, max_size=8, unique_by=lambda it: it[0]
    )
)
def test_weights_become_shares(parts: list[tuple[int, float]]) -> None:
    """Shares are weights over their sum, and names are kept."""
    found = parse_mix(", ".join(f"{size}:{weight!r}" for size, weight in parts))
    total = math.fsum(weight for _, weight in parts)
    assert [part.batch for part in found] == [size for size, _ in parts]
    assert [part.weight for part in found] == pytest.approx([weight / total for _, weight in parts])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "1:",
        "1:0",
        "1:-1",
        "1:x",
        "0:1",
        "1:1,1:2",
        "a=1x:1",
        "=1x2:1",
        "1:inf",
        "1:1e308, 8:1e308",
        "1:1e-308, 8:1",
        ",".join(f"{n}:1" for n in range(1, 70)),
    ],
)
def test_what_is_no_mix_is_refused(text: str) -> None:
    """One sentence, whatever it is."""
    with pytest.raises(UsageError, match="mix"):
        parse_mix(text)


def test_shapes_of_several_inputs() -> None:
    """NAME=SHAPE+NAME=SHAPE is one part; names may hold colons and equals signs."""
    (part,) = parse_mix("ids:0=1x128+a=b=2x3:1")
    assert dict(part.shapes) == {"ids:0": (1, 128), "a=b": (2, 3)}


def test_draws_follow_weights_and_sets_take_turns() -> None:
    """Shares within four standard deviations; each part's sets come round and round; the same seed, the same order."""
    order = draw([0.7, 0.3], 4, seed=3)
    count = Counter(number // 4 for number in order)
    n = len(order)
    assert abs(count[1] / n - 0.3) < 4 * math.sqrt(0.21 / n)
    for part in (0, 1):
        turns = [number % 4 for number in order if number // 4 == part]
        assert turns == [place % 4 for place in range(len(turns))]
    assert draw([0.7, 0.3], 4, seed=3) == order != draw([0.7, 0.3], 4, seed=4)


@pytest.mark.anyio
async def test_each_part_takes_its_own_time_and_is_told_by_itself() -> None:
    """With 5 ms + 1 ms an item, requests of 1 take 6 ms and requests of 8 take 13 ms; inferences count items."""
    engine = "simulated:service=5ms,item=1ms,clock=virtual"
    result, records = await run({"engine": engine, "mix": "1:0.7, 8:0.3", "requests": 2000, "arrivals": "closed"})
    one, eight = result.model.mix
    assert (one.name, eight.name) == ("1", "8")
    assert one.requests + eight.requests == result.model.ok == 2000
    assert one.metrics["compute"].min_ns == one.metrics["compute"].max_ns == 6 * MS
    assert eight.metrics["compute"].min_ns == eight.metrics["compute"].max_ns == 13 * MS
    rates = result.model.throughput
    assert rates.inferences_per_s is not None
    assert rates.requests_per_s is not None
    items = (one.requests + 8 * eight.requests) / 2000
    assert rates.inferences_per_s == pytest.approx(rates.requests_per_s * items)
    assert set(records.inputs.tolist()) == set(range(8))


# --- batches


@pytest.mark.parametrize(
    "text",
    [
        "",
        "max",
        "max=0",
        "max=2000",
        "delay=2ms",
        "max=4,delay=x",
        "max=4,max=8",
        "max=4,sizes=1/2",
        "max=4,sizes=a/4",
        "most=4",
    ],
)
def test_what_is_no_batcher_is_refused(text: str) -> None:
    """One sentence, whatever it is."""
    with pytest.raises(UsageError):
        parse_batching(text)


def test_sizes_are_powers_of_two_and_the_most() -> None:
    """1, 2, 4, … below max, and max itself; those given instead, ascending."""
    assert parse_batching("max=12,delay=2ms") == Batching((1, 2, 4, 8, 12), 2 * MS)
    assert parse_batching("max=8").sizes == (1, 2, 4, 8)
    assert parse_batching("max=8,sizes=8/3/3") == Batching((3, 8), 0)
    assert parse_batching("max=1").sizes == (1,)


@pytest.mark.anyio
async def test_a_batch_leaves_when_full_or_when_its_first_has_waited() -> None:
    """max 4, delay 10 ms: four at 0…3 ms leave at 3 ms; one at 50 ms leaves at 60 ms; two at 100, 104 leave at 110."""
    due = [0, 1 * MS, 2 * MS, 3 * MS, 50 * MS, 100 * MS, 104 * MS, 300 * MS]
    records, _ = await driven(due, batcher=Batcher(Batching((1, 2, 4), 10 * MS), 1))
    sent = [3 * MS] * 4 + [60 * MS, 110 * MS, 110 * MS, 300 * MS]  # the last: no other comes
    assert records.submitted.tolist() == sent
    took = [9 * MS] * 4 + [6 * MS, 7 * MS, 7 * MS, 6 * MS]  # 5 ms + 1 ms for each item of the size it runs at
    assert (records.completed - records.submitted).tolist() == took
    assert records.lateness.tolist() == [0] * 8


@pytest.mark.anyio
async def test_what_waits_for_a_busy_lane_goes_together() -> None:
    """One lane, no delay: the first goes alone at once; the five that come meanwhile go as one batch, padded to 8."""
    due = [0, 1 * MS, 2 * MS, 3 * MS, 4 * MS, 5 * MS, 400 * MS]
    records, _ = await driven(due, batcher=Batcher(Batching((1, 8), 0), 1))
    assert records.submitted.tolist() == [0] + [6 * MS] * 5 + [400 * MS]
    assert records.completed.tolist() == [6 * MS] + [19 * MS] * 5 + [406 * MS]


@pytest.mark.anyio
async def test_batches_are_told() -> None:
    """Sizes formed, their mean, the padding, and requests = inferences; every request is served once."""
    options = {"engine": "simulated:service=4ms,item=100us,clock=virtual", "batcher": "max=16,delay=2ms,sizes=4/16"}
    result, records = await run({**options, "rate": "2000/s", "requests": 6000, "duration": "3s", "buffers": 1})
    assert result.model.batches is not None
    formed = result.model.batches.counts
    assert sum(size * times for size, times in formed.items()) == result.model.ok == len(records)
    assert max(formed) <= 16
    batches = sum(formed.values())
    assert result.model.batches.mean == pytest.approx(result.model.ok / batches)
    computed = sum((4 if size <= 4 else 16) * times for size, times in formed.items())
    assert result.model.batches.padded == pytest.approx(1 - result.model.ok / computed)
    assert result.model.throughput.inferences_per_s == pytest.approx(result.model.throughput.requests_per_s)
    assert result.model.overlap is not None
    assert result.model.overlap.lanes_computing == pytest.approx(1.0)  # one lane: its batches are computed once


@pytest.mark.anyio
async def test_requests_that_complete_at_one_instant_are_no_rate() -> None:
    """64 at once in two batches of 32, 10 ms each: 32 leave each 10 ms."""
    options = {"engine": "simulated:service=10ms,clock=virtual", "arrivals": "offline", "requests": 64, "buffers": 1}
    result, _ = await run({**options, "batcher": "max=32"})
    assert result.model.throughput.requests_per_s == pytest.approx(3200)


@pytest.mark.anyio
async def test_what_was_never_sent_belongs_to_no_part() -> None:
    """Each part's latencies are those of its own requests."""
    result, _ = await run({"mix": "1:0.5, 8:0.5", "rate": "300/s", "duration": "10s", "drain": "0s"})
    assert result.model.unserved > 500
    for part in result.model.mix:
        assert part.metrics["latency"].count <= part.requests + 4  # in flight at the end


@pytest.mark.anyio
async def test_batching_carries_more_than_single_requests() -> None:
    """2000/s of 5 ms requests overload one lane 10 times; in batches of up to 32 it keeps up."""
    engine = "simulated:service=5ms,item=50us,clock=virtual"
    load = {"engine": engine, "rate": "2000/s", "duration": "4s", "drain": "100ms", "buffers": 1}
    single, _ = await run(load)
    batched, _ = await run({**load, "batcher": "max=32,delay=1ms"})
    assert single.model.unserved > 4000
    assert batched.model.unserved == 0


# --- bounded queues


@pytest.mark.anyio
async def test_who_finds_the_queue_full_is_dropped() -> None:
    """One lane of 6 ms, one place to wait: of requests at 0, 1, 2 and 7 ms the third finds it taken."""
    records, done = await driven([0, 1 * MS, 2 * MS, 7 * MS], most_waiting=1)
    assert (records.status == DROPPED).tolist() == [False, False, True, False]
    assert records.completed[records.status == OK].tolist() == [6 * MS, 12 * MS, 18 * MS]
    assert (done.submitted, done.unserved) == (3, 0)


@pytest.mark.anyio
async def test_a_place_is_free_from_the_instant_on_when_one_completes() -> None:
    """With no place to wait, who is due at the very instant of a completion finds the lane busy, the next not."""
    records, _ = await driven([0, 6 * MS, 6 * MS + 1], most_waiting=0)
    assert (records.status == DROPPED).tolist() == [False, True, False]


@one_loop
@pytest.mark.anyio
@pytest.mark.parametrize(("servers", "places"), [(1, 0), (1, 3), (3, 0), (2, 5)])
async def test_blocking_is_that_of_theory(servers: int, places: int) -> None:
    """M/M/c/K: P(dropped) = p_K, with p_n ∝ aⁿ/n! up to c and p_c·(a/c)^(n−c) beyond (Erlang, 1917; for K = c his
    formula B), within four standard deviations, which correlation at most doubles here."""
    load, n = 0.8 * servers, 16_000
    result, _ = await run(
        {
            "engine": "simulated:service=1ms,distribution=exponential,clock=virtual",
            "contexts": servers,
            "buffers": 1,
            "rate": f"{1000 * load}/s",
            "requests": n,
            "max_queue": places,
        }
    )
    weights = [
        load**k / math.factorial(min(k, servers)) / servers ** max(k - servers, 0) for k in range(servers + places + 1)
    ]
    blocked = weights[-1] / sum(weights)
    assert result.model.dropped / n == pytest.approx(blocked, abs=8 * math.sqrt(blocked * (1 - blocked) / n))
    assert result.model.ok + result.model.dropped == n


@pytest.mark.anyio
async def test_a_dropped_request_is_no_latency_and_misses_every_objective() -> None:
    """Latency counts the served alone; a share of 20 % dropped misses a p99 that all served ones meet."""
    result, records = await run(
        {"rate": "250/s", "duration": "20s", "max_queue": 0, "buffers": 1, "objective": ("latency.p99 < 100ms",)}
    )
    assert result.model.dropped > 0.1 * len(records)
    assert result.model.metrics["latency"].count == result.model.ok
    assert result.model.metrics["latency"].max_ns == 5 * MS
    assert result.model.objectives[0].verdict == "missed"
    assert result.model.objectives[0].value_ns is None  # the 99th of a hundred was dropped: it has no latency
    assert result.valid


@pytest.mark.anyio
async def test_the_summary_tells_parts_batches_drops_and_early_ends() -> None:
    """Each in a line of its own, with the numbers of the result."""
    mixed, _ = await run({"mix": "1:0.7, 8:0.3", "requests": 500, "arrivals": "closed"})
    lines = terminal_text(mixed).splitlines()
    assert next(line for line in lines if line.startswith("part ")).split()[:3] == ["part", "offered", "requests"]
    assert any(line.split()[:4] == ["8", "30", "%", str(mixed.model.mix[1].requests)] for line in lines)
    batched, _ = await run({"batcher": "max=4", "rate": "300/s", "duration": "5s", "max_queue": 4, "buffers": 1})
    assert batched.model.batches is not None
    text = terminal_text(batched)
    assert f"batches of {batched.model.batches.mean:.2f} requests on average" in text
    assert "batcher max=4" in text
    assert f"{batched.model.dropped} dropped, as the queue was full" in text
    aborted, _ = await run(
        {"rate": "300/s", "duration": "60s", "objective": ("latency.p99 < 50ms",), "abort_on_fail": True}
    )
    assert f"ended early: {aborted.model.ended_early}" in " ".join(terminal_text(aborted).split())


# --- what goes together


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"mix": "1:1", "batcher": "max=4", "rate": 10}, "exclude each other"),
        ({"mix": "1:1", "batch": 4}, "leave --batch out"),
        ({"batcher": "max=4", "rate": 10, "batch": 4}, "leave --batch out"),
        ({"mix": "x=1x16:1", "shapes": {"x": (1, 16)}}, "shapes of its own"),
        ({"batcher": "max=4"}, "add --rate"),
        ({"max_queue": 4}, "add --rate"),
        ({"batcher": "max=8", "rate": 10, "max_queue": 4}, "no room for a batch of 8"),
        ({"mix": "1:1", "inputs": ("a.npz",)}, "from files"),
        ({"mix": "1:1", "profile": True}, "one size"),
        ({"abort_on_fail": True}, "needs an objective"),
        ({"abort_delay": "1s"}, "needs --abort-on-fail"),
        ({"precision": "0%"}, "above 0 and below 100%, such as 3%"),
        ({"precision": "x"}, "not a share"),
    ],
)
def test_what_does_not_go_together_is_said(options: dict[str, Any], match: str) -> None:
    """One sentence each, before an engine is loaded."""
    with pytest.raises(UsageError, match=match):
        load_config(None, {"engine": "simulated:null", **options})


@pytest.mark.parametrize("load", [{"mix": "1:0.5, 4:0.5"}, {"batcher": "max=4,sizes=1/4", "rate": 10}])
def test_shapes_say_the_other_open_sizes(load: dict[str, Any], tmp_path: Path) -> None:
    """x[N, S] and a table[1, S] of --shapes x:1x64, table:1x64: the first size is each part's where it is open, and
    the model's where it is not; that of --shapes counts for nothing."""
    model = two_inputs(tmp_path)
    for first in (1, 7):
        shapes = {"x": (first, 64), "table": (1, 64)}
        engine = open_engine(load_config(None, {"engine": model, "on": "onnxruntime", "shapes": shapes, **load}).model)
        sizes = [{spec.name: spec.shape for spec in part if spec.is_input} for part in engine.parts]
        assert sizes == [{"x": (batch, 64), "table": (1, 64)} for batch in (1, 4)]
        assert engine.info.batch == 4
        engine.close()
    with pytest.raises(UsageError, match=r"shape Nx64x2 does not fit x .* has 2 dimensions, not 3"):
        open_engine(
            load_config(None, {"engine": model, "on": "onnxruntime", "shapes": {"x": (1, 64, 2)}, **load}).model
        )


def two_inputs(folder: Path) -> str:
    """y = x + table, of x[N, S] and table[1, S]."""
    one = onnx.TensorProto.FLOAT
    node = onnx.helper.make_node("Add", ["x", "table"], ["y"])
    inputs = {"x": (one, ("N", "S")), "table": (one, (1, "S"))}
    return save(folder / "sum.onnx", [node], inputs, {"y": (one, ("N", "S"))}, {})


@pytest.mark.parametrize(
    ("file", "given_", "kept"),
    [
        ({"batcher": "max=4", "rate": "9/s", "max_queue": 8}, {"arrivals": "closed"}, {}),
        ({"mix": "1:1,4:1"}, {"batcher": "max=4", "rate": 9.0}, {"batcher": "max=4"}),
        ({"mix": "1:1,4:1"}, {"batch": 4}, {"batch": 4}),
        ({"batcher": "max=4", "rate": "9/s", "max_queue": 8}, {"batch": 4}, {"batch": 4, "max_queue": 8}),
        ({"batch": 4}, {"mix": "1:1"}, {"mix": "1:1"}),
        ({"batch": 4, "rate": "9/s"}, {"batcher": "max=4"}, {"batcher": "max=4"}),
        ({"batcher": "max=4", "rate": "9/s"}, {"mix": "1:1"}, {"mix": "1:1"}),
        ({"shapes": {"x": "1x16"}}, {"mix": "x=2x16:1"}, {"mix": "x=2x16:1"}),
        ({"shapes": {"x": "1x16"}}, {"mix": "2:1"}, {"mix": "2:1", "shapes": {"x": (1, 16)}}),
        ({"mix": "x=2x16:1"}, {"shapes": {"x": "1x16"}}, {"shapes": {"x": (1, 16)}}),
        ({"mix": "1:1"}, {"rate": 9.0}, {"mix": "1:1"}),
    ],
)
def test_the_command_lines_sizes_win_over_the_files(
    file: dict[str, Any], given_: dict[str, Any], kept: dict[str, Any], tmp_path: Path
) -> None:
    """What is said later replaces what excludes it, and nothing else."""
    path = tmp_path / "file.yaml"
    path.write_text(json.dumps({"engine": "x", **file}))
    config = load_config(path, given_)
    names = ("mix", "batcher", "batch", "max_queue", "shapes")
    assert {name: value for name in names if (value := getattr(config.model, name))} == kept


def test_a_profile_takes_neither_batcher_nor_bound_from_a_file(tmp_path: Path) -> None:
    """Both are of arrivals, and it takes none."""
    path = tmp_path / "file.yaml"
    path.write_text(json.dumps({"engine": "x", "rate": "9/s", "batcher": "max=4", "max_queue": 8}))
    config = load_config(path, {}, without=keys_of("Load", "Ending") | {"batcher"})
    assert (config.model.load.options()["arrivals"], config.model.batcher, config.model.max_queue) == (
        "closed",
        None,
        None,
    )


def test_the_simulated_engine_says_what_helps() -> None:
    """Its input has one shape but for the batch; who gave a mix of shapes has no --shapes to leave out."""
    with pytest.raises(UsageError, match="write the parts of --mix as sizes") as caught:
        open_engine(load_config(None, {"engine": "simulated:null", "mix": "x=1x16:1"}).model)
    assert "--shapes" not in str(caught.value)


# --- what is counted


@pytest.mark.anyio
@pytest.mark.parametrize(
    "load", [{"mix": "1:0.7, 8:0.3", "arrivals": "closed"}, {"batcher": "max=8,delay=9ms", "rate": "400/s"}]
)
async def test_inferences_are_those_that_were_served(load: dict[str, Any]) -> None:
    """A mix's are what its parts carried, and a batcher's the requests; so the export has them, second by second."""
    result, _ = await run({**load, "requests": 900})
    carried = sum(int(part.name) * part.requests for part in result.model.mix) or result.model.ok
    assert result.model.inferences == carried < result.model.ok * result.model.engine.batch
    started = result.model_copy(update={"started": "2026-01-01T00:00:00+00:00"})
    lines = [line.split() for line in openmetrics_text(started).splitlines() if line.startswith("loadtrt_inferences_")]
    reached = [float(line[-2]) for line in lines]
    assert reached[0] == 0
    assert reached[-1] == carried
    assert reached[1] == pytest.approx(result.model.intervals[0].requests * carried / result.model.ok)


# --- enough


@pytest.mark.anyio
async def test_a_run_ends_when_its_objective_is_missed() -> None:
    """Overloaded, it ends after the delay and not after the minute that it was given; what waited is not waited for."""
    load = {"rate": "300/s", "duration": "60s", "objective": ("latency.p99 < 50ms",), "abort_on_fail": True}
    result, records = await run({**load, "abort_delay": "7s"})
    assert result.model.ended_early is not None
    assert "latency.p99 < 50ms is missed" in result.model.ended_early
    assert 7 * SECOND_NS <= result.phases.measure_ns < 9 * SECOND_NS
    assert result.model.objectives[0].verdict == "missed"
    assert result.outcome == "completed"
    assert result.valid
    assert len(records) == result.model.ok  # what waited is forgotten, and spoils no other objective


@pytest.mark.anyio
async def test_an_abort_spoils_no_other_objective() -> None:
    """Also when it comes while the rest is drained: nothing waits for what is forgotten."""
    load = {"rate": "300/s", "duration": "10s", "abort_on_fail": True, "abort_delay": "11s", "drain": "60s"}
    result, _ = await run({**load, "objective": ("latency.p99 < 50ms", "latency.max < 60s")})
    assert [share.verdict for share in result.model.objectives] == ["missed", "met"]
    assert result.phases.drain_ns < 3 * SECOND_NS
    assert result.model.unserved == 0


@pytest.mark.anyio
async def test_a_run_that_meets_its_objective_is_not_aborted() -> None:
    """At half load nothing is missed: it takes its time."""
    load = {"rate": "100/s", "duration": "30s", "objective": ("latency.p99 < 200ms",), "abort_on_fail": True}
    result, _ = await run(load)
    assert result.model.ended_early is None
    assert result.phases.measure_ns > 29 * SECOND_NS


@one_loop
@pytest.mark.anyio
async def test_a_run_ends_when_its_quantile_is_known() -> None:
    """Before its time, with an interval as narrow as asked for; a wish that is not met takes all the time."""
    engine = "simulated:service=1ms,distribution=exponential,clock=virtual"
    load = {"engine": engine, "rate": "500/s", "duration": "600s", "objective": ("latency.p99 < 1s",)}
    result, _ = await run({**load, "precision": "10%"})
    assert result.model.ended_early is not None
    assert result.model.ended_early.startswith("latency's p99 is known within ±")
    assert result.phases.measure_ns < 300 * SECOND_NS
    share = result.model.objectives[0]
    assert share.value_ns is not None
    assert share.value_low_ns is not None
    assert share.value_high_ns is not None
    assert (share.value_high_ns - share.value_low_ns) / 2 / share.value_ns < 0.15  # the verdict looks more carefully
    late, _ = await run({**load, "duration": "20s", "precision": "0.1%"})
    assert late.model.ended_early is None
