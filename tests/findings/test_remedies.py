"""No remedy names an option that its command lacks, that this run's engine or load refuses, or that is in use."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtrt.asked.config import RunConfig
from loadtrt.cli.main import cli
from loadtrt.engines.open import OPTIONS
from loadtrt.engines.shapes import InputShape, takes_larger
from loadtrt.errors import UsageError
from loadtrt.findings.findings import findings_of
from loadtrt.findings.remedies import faster_host, larger_batch, less_load
from loadtrt.findings.validity import Counts, Terms, problems_of
from loadtrt.results.breakdown import Batches, Throughput
from loadtrt.results.steadiness import SlowPart, Stall, Steadiness
from loadtrt.units import SECOND_NS
from runs_by_hand import engine, run_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadtrt.results.run_result import RunResult

KINDS = {
    "tensorrt": {"TensorRT plans", "models on TensorRT"},
    "onnxruntime": {"models on ONNX Runtime"},
    "simulated": {"simulated engines"},
}
# What words before or after an option ask for, of options that hold a number, and of those whose text holds one.
LARGER, SMALLER, BELOW = ("more ", "a larger ", "larger ", "raise "), ("fewer ", "a lower "), " below "
TEXTS = {
    "a larger max= in --batcher": ("batcher", "max=64,delay=1ms"),
    "a shorter delay= in --batcher": ("batcher", "max=8,delay=1us"),
    "larger parts in --mix": ("mix", "1:1, 64:1"),
    "lower rates in --stages": ("stages", "1/s:10s"),
    "larger --shapes": ("shapes", {"data": "32x3x224x224"}),
}


def params(command: str) -> dict[str, click.Parameter]:
    """The options of a command by their names on the command line."""
    found = cli.get_command(click.Context(cli), command)
    assert found is not None, command
    return {name: param for param in found.params for name in (*param.opts, *param.secondary_opts)}


RUN = params("run")


def changes_of(result: RunResult, remedy: str) -> Iterator[tuple[str, Any]]:
    """(key, value) of all that a remedy proposes to set; what it says of other commands is looked up at once."""
    for quoted in re.findall(r"'loadtrt [^']*'|\(loadtrt [^)]*\)", remedy):
        _, command, *words = quoted.strip("'()").split()
        known = params(command)
        assert all(word in known for word in words if word.startswith("-")), quoted
        remedy = remedy.replace(quoted, "")
    remedy = remedy.replace("more --contexts add more latency than throughput", "")  # a warning, no proposal
    options = result.config.options()
    for text, (key, value) in TEXTS.items():
        if text in remedy:
            assert options[key], f"{text}: there is none"
            yield key, value
            remedy = remedy.replace(text, "")
    for flag, key in (("remove --no-graph", "graph"), ("without --no-telemetry", "telemetry")):
        if flag in remedy:
            yield key, True
            remedy = remedy.replace(flag, "")
    if "leave --latency out" in remedy:
        assert "--latency" in result.command
        remedy = remedy.replace("leave --latency out", "")
    if re.search(r"--stages that last \w+", remedy):
        yield "stages", "1/s:1h"
        remedy = re.sub(r"--stages that last \w+", "", remedy)
    for found in re.finditer(r"(--[a-z][a-z0-9-]*)( below)?(?: ('[^']+'|[\d.]+[a-z/]*|spin|auto|off))?", remedy):
        flag, below, value = found.groups()
        assert flag in RUN, f"{flag} is no option of run: {remedy}"
        name = RUN[flag].name or ""
        before = remedy[: found.start()]
        present = result.model.engine.batch if name == "batch" else options.get(name)
        if flag in RUN[flag].secondary_opts:
            yield name, False
        elif value is not None and not below:
            yield name, value.strip("'")
        elif getattr(RUN[flag], "is_flag", False):
            yield name, True
        elif name == "drain":
            yield name, "1h"
        elif below or before.endswith(SMALLER):
            yield name, {"requests": 1}.get(name, (present or 2) / 2 if name == "rate" else (present or 2) - 1)
        else:
            assert before.endswith(LARGER), f"what of {flag}? {remedy}"
            yield name, 2 * (present or 1)


def require_possible(result: RunResult, remedy: str, where: str) -> None:
    """Every change is accepted by the configuration and by this kind of engine, and is one."""
    now = result.config.options()
    given_now = {key: value for key, value in now.items() if value is not None}
    for key, value in changes_of(result, remedy):
        if key == "objective":
            assert "latency" not in str(now["objective"]), where
            continue
        assert key not in OPTIONS or KINDS[result.model.engine.kind] & OPTIONS[key], f"{where}: {key} is not for it"
        if key in ("batch", "shapes"):
            assert result.model.engine.larger_batch, where
        try:
            then = RunConfig.of(**{**given_now, key: value}).options()
        except UsageError as error:
            pytest.fail(f"{where}: {remedy}: {error}")
        assert then[key] != now.get(key), f"{where}: {key} is {value} already: {remedy}"


STALL = Stall(start_ns=5 * SECOND_NS, longest_ns=SECOND_NS, times=1, total_ns=SECOND_NS, late=500, host=False)
SLOW = SlowPart(start_ns=2 * SECOND_NS, end_ns=6 * SECOND_NS, served_per_s=300, expected_per_s=500, over_ns=None)
LOADS = [
    {},
    {"requests": 1000},
    {"duration": "20s"},
    {"rate": 500.0},
    {"rate": 500.0, "requests": 1000, "max_queue": 64},
    {"rate": 500.0, "bursts": "1s/4s"},
    {"rate": 500.0, "burstiness": 4.0, "max_duration": "10s"},
    {"rate": 500.0, "batcher": "max=8,delay=2ms"},
    {"rate": 500.0, "batcher": "max=8"},
    {"rate": 500.0, "mix": "1:1, 8:1"},
    {"mix": "1:1, 8:1"},
    {"stages": "100/s:10s, 400/s:10s"},
    {"stages": "100/s:10s, 400/s:10s", "stages_loop": True, "duration": "30s"},
    {"arrivals": "offline", "requests": 1000, "max_queue": 64},
    {"arrivals": "offline", "requests": 100},
]
FIELDS = {
    "contexts": st.sampled_from([1, 2, 3, 1024]),
    "buffers": st.sampled_from([1, 2, 3, 64]),
}
TIMES = {name: st.floats(0, 2_000) for name in ("enqueue", "h2d", "compute", "d2h", "lateness")}


@settings(max_examples=400)
@given(
    st.sampled_from(LOADS),
    st.fixed_dictionaries(FIELDS),
    st.fixed_dictionaries({**TIMES, "latency": st.floats(0, 10**5)}),
    st.sampled_from(["tensorrt", "onnxruntime", "simulated"]),
    st.fixed_dictionaries({"graph": st.booleans(), "wait": st.sampled_from(["spin", "block"])}),
    st.sampled_from([1, 4, 64]),
    st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()),
    st.tuples(st.floats(0, 0.2), st.floats(0.3, 1), st.floats(1, 4), st.floats(0, 1.2), st.floats(1, 3_000)),
    st.sampled_from([100, 10_000]),
    st.builds(
        Steadiness,
        transient_ns=st.sampled_from([0, SECOND_NS]),
        transient_ratio=st.sampled_from([0.4, 2.0]),
        drift_ratio=st.sampled_from([None, 1.5]),
        overloaded=st.booleans(),
        slow=st.sampled_from([None, SLOW]),
        stall=st.sampled_from([None, STALL]),
    ),
)
def test_every_remedy_is_possible(
    load: dict[str, Any],
    lanes: dict[str, Any],
    times: dict[str, float],
    kind: str,
    mode: dict[str, Any],
    per_launch: int,
    yes: tuple[bool, bool, bool, bool],
    shares: tuple[float, float, float, float, float],
    count: int,
    state: Steadiness,
) -> None:
    """Of findings, each of which is whole and alone of its kind, and of problems, whatever a run is like."""
    refused, larger, telemetry, alone = yes
    starved, busy, at_once, cores, per_s = shares
    options: dict[str, Any] = {"engine": "simulated:null", **lanes, **load, "telemetry": telemetry}
    if kind == "tensorrt":
        options |= {"engine": "net.plan", **mode}
        options |= (
            {} if {"rate", "mix", "stages"} & load.keys() or "arrivals" in load else {"requests_per_launch": per_launch}
        )
        info = engine(
            mode={"graph": "yes" if mode["graph"] and not refused else "no", "copies": "yes", "wait": mode["wait"]},
            notes=("no CUDA graph: a layer waits",) if mode["graph"] and refused else (),
            larger_batch=larger,
        )
    else:
        times = times | ({"h2d": 0.0, "d2h": 0.0} if kind == "onnxruntime" else {})
        info = engine(kind, mode={"threads per context": "2"}, larger_batch=larger)
        options |= {"engine": "net.onnx", "on": "onnxruntime"} if kind == "onnxruntime" else {}
    closed = not {"rate", "stages"} & load.keys() and "arrivals" not in load
    if closed or "arrivals" in load:  # whose backlog does not grow
        state = state.model_copy(update={"overloaded": False})
    result = run_of(
        times,
        options,
        count,
        busy,
        at_once,
        engine=info,
        starved_fraction=starved,
        steadiness=state,
        host_cores=cores,
        throughput=Throughput(requests_per_s=per_s, inferences_per_s=per_s, offered_per_s=None if closed else 500.0),
        batches=Batches(counts={8: 1}, mean=8.0, padded=0) if "batcher" in load else None,
        dropped=5 if "max_queue" in load else 0,
        command=("loadtrt", "run", "--latency") if alone and closed and lanes == {"contexts": 1, "buffers": 1} else (),
    )
    findings = findings_of(result)
    assert len({found.kind for found in findings}) == len(findings)
    for found in findings:
        assert all((found.kind, found.evidence, found.cause, found.remedy))
        assert not re.search(r"\bnan\b|\binf\b", f"{found}")
        require_possible(result, found.remedy, found.kind)
    model = result.config.model
    terms = Terms(
        model.load.closed,
        None,
        (),
        info.mode,
        result.model.throughput.offered_per_s,
        faster_host=faster_host(model, info, result.command, result.model.metrics),
        less_load=less_load(model),
    )
    for ok, failed, unserved in ((1, 1, 1), (0, 0, 0), (9, 0, 0)):
        counts = Counts(
            lateness_ns=times["lateness"] * 1e3,
            lateness_rank="p99",
            latency_ns=times["latency"] * 1e3,
            starved_fraction=starved,
            ok=ok,
            failed=failed,
            unserved=unserved,
            overloaded=bool(state.overloaded),
            served_per_s=per_s,
        )
        for problem in problems_of(counts, terms):
            require_possible(result, problem.remedy, problem.kind)


def test_what_the_law_would_find() -> None:
    """It sees an option that is in use, one of another engine, one of another load, and one that there is not."""
    gpu, cpu = run_of(), run_of(engine=engine("onnxruntime", larger_batch=False))
    for result, remedy in (
        (gpu, "--buffers 2"),
        (gpu, "use --wait spin"),
        (gpu, "remove --no-graph"),
        (gpu, "a lower --max-queue"),
        (gpu, "--fast"),
        (gpu, "'loadtrt build --rate'"),
        (cpu, "--requests-per-launch 4"),
        (cpu, "a larger --batch"),
        (run_of(options={"mix": "1:1, 8:1"}), "a larger --batch"),
        (run_of(options={"rate": 500.0}), "--requests-per-launch 4"),
    ):
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            require_possible(result, remedy, "this")


def test_a_sweep_has_no_requests_per_launch() -> None:
    """Whose points show problems: their remedies are of its own options."""
    result, info = run_of(), engine()
    model = result.config.model
    known = params("sweep")
    for command in (("loadtrt", "sweep"), ("loadtrt", "run")):
        remedy = faster_host(model, info, command, result.model.metrics)
        assert ("--requests-per-launch" in remedy) == ("run" in command)
        if "sweep" in command:
            assert all(flag in known for flag in re.findall(r"--[a-z-]+", remedy))


@pytest.mark.parametrize(
    ("shape", "most", "decided", "symbols", "expected"),
    [
        ((-1, 3, 224, 224), (32, 3, 224, 224), (16, 3, 224, 224), (), True),
        ((-1, 3, 224, 224), (32, 3, 224, 224), (32, 3, 224, 224), (), False),
        ((16, 3, 224, 224), None, (16, 3, 224, 224), (), False),
        ((-1, 3, 224, 224), None, (16, 3, 224, 224), (), True),
        ((1, 3, -1, -1), None, (1, 3, 64, 64), ("", "", "height", "width"), False),
    ],
)
def test_where_a_larger_batch_is_possible(
    shape: tuple[int, ...],
    most: tuple[int, ...] | None,
    decided: tuple[int, ...],
    symbols: tuple[str, ...],
    expected: bool,
) -> None:
    """The engine leaves the batch open, and its profile goes further."""
    least = None if most is None else (1, *most[1:])
    item = InputShape("data", "fp32", shape, least, least, most, symbols=symbols)
    assert takes_larger([item], {"data": decided}) is expected


def test_a_larger_batch_in_words() -> None:
    """The option of what decides the batch; where the engine is at its largest, what makes another one."""
    info = engine()
    for options, words in (
        ({}, "a larger --batch"),
        ({"shapes": {"data": "16x3x224x224"}}, "larger --shapes"),
        ({"mix": "1:1, 8:1"}, "larger parts in --mix"),
        ({"rate": 5, "batcher": "max=8"}, "a larger max= in --batcher"),
    ):
        model = run_of(options=options).config.model
        assert larger_batch(model, info) == words
        static = larger_batch(model, replace(info, larger_batch=False))
        assert static == "a plan for larger batches ('loadtrt build --batch', if its model leaves the batch open)"
        model_of_cpu = engine("onnxruntime", larger_batch=False)
        assert larger_batch(model, model_of_cpu) == "a model that takes larger batches"


@pytest.mark.parametrize(
    ("mode", "options", "told"),
    [
        ({"loop": "python"}, {}, True),
        ({"loop": "compiled"}, {}, False),
        ({}, {}, False),  # another engine
        ({"loop": "python", "graph": "no"}, {}, False),  # only Python calls TensorRT
        ({"loop": "python"}, {"wait": "block"}, False),
        ({"loop": "python"}, {"batcher": "max=4,delay=1ms", "rate": "9/s"}, False),
    ],
)
def test_a_compiled_loop_is_proposed_where_it_is_all_that_lacks(
    mode: dict[str, str], options: dict[str, Any], told: bool
) -> None:
    """Not where numba would change nothing."""
    model = RunConfig.of(engine="simulated:null", **options).model
    info = engine(mode={"graph": "yes", "copies": "yes", "wait": "spin", **mode})
    assert ("loadtrt[fast]" in faster_host(model, info, ("loadtrt", "run"), run_of().model.metrics)) is told


@pytest.mark.parametrize(
    ("compute", "options", "mode", "told"),
    [
        (30, {}, {}, True),
        (110, {}, {}, True),  # two contexts wait for each other's enqueues
        (130, {}, {}, False),
        (130, {"contexts": 3}, {}, True),
        (60, {"requests_per_launch": 4}, {}, False),
        (30, {}, {"device times": "off"}, False),
        (30, {"objective": ["device.p99 < 1ms"]}, {}, False),
    ],
)
def test_leaving_device_times_out_is_proposed_for_small_nets(
    compute: float, options: dict[str, Any], mode: dict[str, str], told: bool
) -> None:
    """An enqueue takes 30 µs: of lanes that starve, and where enqueues are the limit; of TensorRT alone."""
    info = engine(mode={"graph": "yes", "copies": "yes", "wait": "spin", **mode})
    times = {"enqueue": 30.0, "compute": compute, "h2d": 0.0, "d2h": 0.0}
    rate = 30_000.0 * options.get("requests_per_launch", 1)
    result = run_of(times, options, busy=0.5, engine=info, starved_fraction=0.04, host_cores=1.0)
    result = result.with_model(throughput=Throughput(requests_per_s=rate, inferences_per_s=0, offered_per_s=None))
    model = result.config.model
    (limit,) = [found for found in findings_of(result) if found.kind == "enqueue-bound"]
    for remedy in (limit.remedy, faster_host(model, info, ("loadtrt", "run"), result.model.metrics)):
        assert ("--device-times off" in remedy) is told
    assert "device-times" not in faster_host(model, replace(info, kind="simulated"), (), result.model.metrics)
