"""Models that share a real GPU: priorities and splits are what the driver says, they protect, and outputs stay right.

Bounds are wide, as they are of any GPU; a failure names the numbers.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

import loadtrt
from command_line import loadtrt as command
from loadtrt.asked.config import RunConfig
from loadtrt.cuda.partitions import Share, _driver, split
from loadtrt.cuda.runtime import call, device_properties
from loadtrt.cuda.stream import Graph, captured_kernels
from loadtrt.engines.open import open_engine
from loadtrt.engines.placed_together import place_together
from loadtrt.load.inputs import make_inputs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from loadtrt.results.run_result import RunResult

SECOND = {"duration": "1s", "warmup": "300ms", "max_lateness": "1s", "shared_gpu": True}


@pytest.fixture(autouse=True)
def device() -> None:
    """GPU 0 is the calling thread's device."""
    call("cudaSetDevice", 0)


def _half() -> int:
    """Less than half of the SMs, in steps that every GPU has: 64 of 132."""
    return device_properties(0).multiprocessors // 2 // 8 * 8


def _run(plans: Mapping[str, tuple[Path | str, dict[str, Any]]], **options: Any) -> RunResult:
    models = {
        name: {"engine": str(engine), **own, **({} if isinstance(engine, str) else {"allow_host_code": True})}
        for name, (engine, own) in plans.items()
    }
    return loadtrt.run(models=models, **{**SECOND, **options})


def _ns(result: RunResult, model: str, metric: str, percentile: str = "p50") -> float:
    value = result.models[model].metrics[metric].percentiles_ns[percentile]
    assert value is not None, (model, metric, percentile)
    return value


def _plan(path: Path, **own: Any) -> tuple[Path | str, dict[str, Any]]:
    return path, {"copies": False, **own}


@pytest.fixture
def allocated(googlenet: Path, tiny: Path) -> Iterator[Any]:
    """Makes the engines of two models with their lanes; closes them at last."""
    engines: dict[str, Any] = {}

    def make(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
        for name, plan, own in (("a", googlenet, {"batch": 16, **a}), ("b", tiny, b)):
            model = RunConfig.of(engine=str(plan), allow_host_code=True, **own).model
            engines[name] = open_engine(model)
        place_together(engines)
        for engine in engines.values():
            asked = engine.asked
            engine.allocate(make_inputs(engine.info.tensors, asked.inputs, asked.input_sets, {}, asked.seed))
        return engines

    yield make
    for engine in engines.values():
        engine.close()


def _computing(engine: Any) -> set[int]:
    """Streams on which an engine computes, auxiliary ones included."""
    streams = {int(stream) for stream in engine._streams}
    for lane in engine._lanes:
        numbers = {shape.streams_of(slot)[1] for shape in lane.shapes for slot in range(shape.buffers)}
        streams |= {int(lane._streams[number]) for number in numbers}
    return streams


@pytest.mark.parametrize("sms", [None, 32])
@pytest.mark.parametrize(("word", "end"), [("high", 1), ("low", 0)])
def test_streams_have_the_priority(allocated: Any, sms: int | None, word: str, end: int) -> None:
    """As CUDA says, with and without a partition; the neighbour has that of plain streams."""
    wanted = call("cudaDeviceGetStreamPriorityRange")[end]
    engines = allocated({"priority": word, "sms": sms, "contexts": 2}, {})
    assert {call("cudaStreamGetPriority", stream) for stream in _computing(engines["a"])} == {wanted}
    assert {call("cudaStreamGetPriority", stream) for stream in _computing(engines["b"])} == {0}
    assert engines["a"].info.mode["priority"].startswith(f"{word}, {wanted} of ")


@pytest.mark.parametrize("sms", [None, 32])
def test_captured_kernels_have_the_priority_and_one_context(allocated: Any, sms: int | None) -> None:
    """As CUDA tells of the nodes of a graph that is captured here: this plan has no streams inside."""
    engine = allocated({"priority": "high", "sms": sms}, {})["a"]
    context, stream, found = engine._contexts[0], engine._streams[0], []
    work = partial(context.enqueue, int(stream))
    Graph.capture(stream, work, lambda graph: found.extend(captured_kernels(graph))).close()
    greatest = call("cudaDeviceGetStreamPriorityRange")[1]
    assert len(found) > 10
    assert {priority for priority, _ in found} == {greatest}, found
    assert len({context for _, context in found}) == 1, found
    assert "kernels outside" not in engine.info.mode


def test_streams_of_two_models_belong_to_their_green_contexts(allocated: Any) -> None:
    """As the driver says: all of a model are of its own, and none is of the other's."""
    engines = allocated({"sms": 32, "contexts": 2}, {"contexts": 2})
    owners = {}
    for name, engine in engines.items():
        found = {int(_checked("cuStreamGetGreenCtx", stream)) for stream in _computing(engine)}
        assert found == {int(green.handle) for green in engine._placement._partitions._green}
        owners[name] = found
    assert not owners["a"] & owners["b"]
    assert 0 not in owners["a"] | owners["b"]


def _checked(name: str, *arguments: Any) -> Any:
    status, value = getattr(_driver(), name)(*arguments)
    assert status == 0, (name, status)
    return value


@pytest.mark.parametrize(
    "shares",
    [
        {"a": Share(1, 32), "b": Share()},
        {"a": Share(1, "25%"), "b": Share(1, "25%"), "c": Share(1, "50%")},
        {"a": Share(1, 16), "b": Share(1, 40), "c": Share()},
        {"a": Share(2, 16), "b": Share(1, 32), "c": Share(), "d": Share()},
    ],
    ids=str,
)
def test_a_split_is_what_it_says(shares: dict[str, Share]) -> None:
    """Sizes are those that the driver has for its green contexts; what is apart and what is left are no more than there
    is, and all that is left is given."""
    total = device_properties(0).multiprocessors
    made = split(device_properties(0), shares)
    try:
        sizes = {}
        for name, partitions in made.items():
            for green in partitions._green:
                resource = _checked("cuGreenCtxGetDevResource", green.handle, _driver().CUdevResourceType(1))
                assert int(resource.sm.smCount) == partitions.sms
            sizes[name] = partitions.count * partitions.sms
        apart = sum(size for name, size in sizes.items() if shares[name].sms is not None)
        left = {size for name, size in sizes.items() if shares[name].sms is None}
        assert apart + max(left, default=0) <= total, sizes
        assert left <= {total - apart}, sizes
        asked = sum(share.count * share.sms for share in shares.values() if isinstance(share.sms, int))
        assert apart >= asked or "c" in shares, sizes
    finally:
        for partitions in made.values():
            partitions.close()


def test_a_split_keeps_models_apart(googlenet: Path) -> None:
    """Batch 16 of one model fills what it has. Beside a neighbour that fills the GPU its compute takes about twice as
    long on shared SMs, and about as long as alone where both have SMs of their own."""
    half = _half()
    own = {"batch": 16, "contexts": 1}
    alone = _run({"a": _plan(googlenet, **own, sms=half)})
    shared = _run({name: _plan(googlenet, **own) for name in "ab"})
    apart = _run({"a": _plan(googlenet, **own, sms=half), "b": _plan(googlenet, **own)})
    assert apart.models["a"].engine.mode["partitions"] == f"1 of {half} SMs"
    times = {name: _ns(run, "a", "compute") for name, run in (("alone", alone), ("shared", shared), ("apart", apart))}
    assert times["apart"] <= 1.5 * times["alone"], times
    rest = device_properties(0).multiprocessors - half
    assert apart.models["b"].engine.mode["partitions"] == f"1 of {rest} SMs"


SHARES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "priority": ({"priority": "high"}, {"priority": "low"}),
    "sms and the rest": ({"sms": 32}, {}),
    "two parts": ({"sms": "25%"}, {"sms": "50%"}),
    "both": ({"sms": 32, "priority": "high"}, {"priority": "low"}),
}


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("graph", [True, False])
def test_outputs_beside_a_neighbour_are_those_of_a_quiet_run(
    googlenet: Path, tiny: Path, share: str, graph: bool
) -> None:
    """Of both models, in each way to share."""
    small, large = SHARES[share]
    result = _run(
        {
            "tiny": (tiny, {**small, "verify": True, "graph": graph, "rate": "1000/s"}),
            "googlenet": (googlenet, {**large, "verify": True, "graph": graph, "batch": 16, "contexts": 4}),
        }
    )
    for name, model in result.models.items():
        checked = model.verification
        assert checked is not None, name
        assert checked.outputs >= 20, name
        assert checked.different == 0, (name, checked)
        assert model.ok == model.submitted > 100, name
        assert model.failure is None, name


def test_shares_protect(googlenet: Path, tiny: Path) -> None:
    """The p99 of a small plan at a rate beside a large one in a closed loop is lower with a priority, and with SMs of
    its own, than on plain streams."""
    times = {}
    for share in ("plain", "priority", "sms and the rest", "both"):
        small, large = SHARES[share]
        result = _run(
            {
                "tiny": (tiny, {**small, "rate": "500/s", "arrivals": "constant"}),
                "googlenet": (googlenet, {**large, "batch": 16, "contexts": 2, "copies": False}),
            },
            duration="3s",
        )
        times[share] = _ns(result, "tiny", "compute", "p99")
    assert times["priority"] < times["plain"], times
    assert times["sms and the rest"] < times["plain"], times
    assert times["both"] < times["plain"], times


STRESSORS = ("dram", "l2", "pcie", "sm")


@pytest.mark.parametrize("resource", STRESSORS)
@pytest.mark.parametrize("text", ["", ",time=4ms", ",intensity=50%"])
def test_a_launch_of_a_stressor_takes_its_time(resource: str, text: str) -> None:
    """Alone, within a quarter of what it is asked to take, outputs verified."""
    result = _run({"s": (f"stressor:{resource}{text}", {"verify": True})})
    took, asked = _ns(result, "s", "compute"), 4e6 if "4ms" in text else 1e6
    engine = result.models["s"].engine
    assert asked / 1.25 <= took <= 1.25 * asked, (took, engine.notes)
    assert engine.mode["graph"] == "yes"
    checked = result.models["s"].verification
    assert checked is not None
    assert checked.different == 0


@pytest.mark.parametrize(("resource", "least"), [("dram", 200), ("l2", 200), ("pcie", 5)])
def test_copies_are_as_fast_as_the_resource(resource: str, least: float) -> None:
    """In GB/s, of any data center GPU: over 1 000 of DRAM on an H200, of which the half is reading."""
    notes = _run({"s": (f"stressor:{resource}", {})}).models["s"].engine.notes
    rate = float(re.findall(r"at ([\d.e+]+) GB/s", " ".join(notes))[0])
    assert rate >= least, notes
    if resource == "dram" and "H200" in device_properties(0).name:
        assert rate >= 1000, notes


def test_the_spin_kernel_takes_sms_of_a_neighbour_and_leaves_a_partition_alone(googlenet: Path) -> None:
    """Beside it compute takes longer; on SMs of its own it takes about as long as there without a neighbour."""
    half, own = _half(), {"batch": 16, "contexts": 1}
    spin: tuple[str, dict[str, Any]] = ("stressor:sm,time=4ms", {})
    alone, stressed = _run({"a": _plan(googlenet, **own)}), _run({"a": _plan(googlenet, **own), "s": spin})
    there = _run({"a": _plan(googlenet, **own, sms=half)})
    apart = _run({"a": _plan(googlenet, **own, sms=half), "s": spin})
    runs = {"alone": alone, "stressed": stressed, "on half": there, "apart": apart}
    times = {name: _ns(run, "a", "compute") for name, run in runs.items()}
    means = {name: run.models["a"].metrics["service"].mean_ns or 0 for name, run in runs.items()}
    assert means["stressed"] >= 1.3 * means["alone"], (times, means)
    assert times["apart"] <= 1.2 * times["on half"], (times, means)


def test_the_bus_is_loaded_by_copies(googlenet: Path) -> None:
    """Beside host copies it takes longer until compute begins: inputs wait for the link, and have it to themselves
    then (h2d was 182 and 188 µs)."""
    own = {"batch": 16, "contexts": 1, "buffers": 1}
    alone = _run({"a": (googlenet, own)})
    beside = _run({"a": (googlenet, own), "s": ("stressor:pcie", {})})
    means = [run.models["a"].metrics for run in (alone, beside)]
    times = [(one["service"].mean_ns or 0) - (one["device"].mean_ns or 0) + (one["h2d"].mean_ns or 0) for one in means]
    assert times[1] >= 1.3 * times[0], times


@pytest.mark.parametrize("resource", ["dram", "l2"])
def test_copies_of_two_stressors_slow_each_other_down(resource: str) -> None:
    """A resource that one fills is not there twice."""
    alone = _run({"s": (f"stressor:{resource}", {})})
    both = _run({name: (f"stressor:{resource}", {}) for name in "st"})
    times = [_ns(run, "s", "compute") for run in (alone, both)]
    assert times[1] >= 1.2 * times[0], (times, alone.models["s"].engine.notes)


def test_a_rate_is_a_part_of_the_stress() -> None:
    """500 launches a second of 1 ms each keep the resource busy half of the time."""
    result = _run({"s": ("stressor:dram", {"rate": "500/s", "arrivals": "constant"})})
    overlap = result.models["s"].overlap
    assert overlap is not None
    assert 0.35 <= overlap.busy_fraction <= 0.65, overlap


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        ("sms=4000", "", r"--sms 4000 is too many: the largest partition of .+ for a has \d+ SMs$"),
        ("sms=80%", "sms=80%", r"the models ask for more SMs than .+ gives: a \d+ \+ b \d+ of \d+ SMs"),
        ("priority=-99", "", r"--priority -99: .+ has 0, the least, to -\d+, the greatest"),
    ],
)
def test_what_the_gpu_cannot_give_is_one_sentence(tiny: Path, a: str, b: str, words: str) -> None:
    """stderr holds one line, with what there is."""
    models = [f"{name}={tiny}{f',{own}' if own else ''}" for name, own in (("a", a), ("b", b))]
    given = [argument for model in models for argument in ("--model", model)]
    done = command("run", *given, "--allow-host-code", "--requests", "5", "--quiet")
    assert done.returncode == 3, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert re.search(words, done.stderr.strip()), done.stderr
