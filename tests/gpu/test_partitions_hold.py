"""Partitions of a real GPU's SMs: they hold, outputs are right on them, and all of them is given back."""

from __future__ import annotations

import gc
import json
import re
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

import loadtrt
from command_line import loadtrt as command
from loadtrt.asked.config import RunConfig
from loadtrt.cuda.partitions import Share, _driver, split
from loadtrt.cuda.runtime import call, close_all, device_properties, memory_info
from loadtrt.cuda.stream import Graph
from loadtrt.cuda.stressors import Kernels
from loadtrt.engines.open import open_engine
from loadtrt.errors import EngineError
from loadtrt.load.inputs import make_inputs
from loadtrt.results.profile_result import ProfileResult

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from loadtrt.cuda.partitions import Partitions
    from loadtrt.results.run_result import RunResult

LONGER = 1.4  # compute on less than half of the SMs over compute on all: 1.5 and more on an H200


@pytest.fixture(autouse=True)
def device() -> None:
    """GPU 0 is the calling thread's device."""
    call("cudaSetDevice", 0)


def _half() -> int:
    """Less than half of the SMs, in steps that every GPU has: 64 of 132."""
    return device_properties(0).multiprocessors // 2 // 8 * 8


def _run(plan: Path, **options: Any) -> RunResult:
    return loadtrt.run(engine=str(plan), allow_host_code=True, max_lateness="1s", **options)


def _compute_ns(result: RunResult) -> float:
    median = result.model.metrics["compute"].percentiles_ns["p50"]
    assert median is not None
    return median


@pytest.mark.parametrize("graph", [True, False])
def test_compute_takes_longer_on_fewer_sms(googlenet: Path, graph: bool) -> None:
    """Batch 16 fills the GPU, so that compute on less than half of the SMs takes longer, in a graph and without one; on
    all of its SMs as --sms it takes as long as without the option."""
    alone = {"batch": 16, "copies": False, "graph": graph, "duration": "1s"}
    whole, total = _run(googlenet, **alone), device_properties(0).multiprocessors
    part, named = _run(googlenet, sms=_half(), **alone), _run(googlenet, sms=total, **alone)
    assert part.model.engine.mode["partitions"] == f"1 of {_half()} SMs"
    assert named.model.engine.mode["partitions"] == f"1 of {total} SMs"
    assert {one.model.engine.mode["graph"] for one in (whole, part, named)} == {"yes" if graph else "no"}
    assert _compute_ns(part) >= LONGER * _compute_ns(whole)
    assert _compute_ns(named) <= 1.1 * _compute_ns(whole)


def test_a_neighbour_leaves_a_partition_its_sms(googlenet: Path) -> None:
    """Compute of two contexts at once on half of the SMs each takes about as long as that of one alone there: they do
    not share what is apart. The bound leaves room for what they do share, memory and power."""
    alone = _run(googlenet, batch=16, copies=False, contexts=1, sms=_half(), duration="1s")
    both = _run(googlenet, batch=16, copies=False, contexts=2, partitions=2, duration="1s")
    assert both.model.engine.mode["partitions"] == f"2 of {_half()} SMs"
    assert _compute_ns(both) <= 1.5 * _compute_ns(alone)


@pytest.mark.parametrize(
    "mode",
    [
        {},
        {"graph": False},
        {"wait": "block"},
        {"buffers": 1},
        {"buffers": 3},
        {"requests_per_launch": 4},
        {"contexts": 12},
        {"sms": 8},
    ],
    ids=str,
)
def test_outputs_on_partitions_are_those_of_a_quiet_run(googlenet: Path, mode: dict[str, Any]) -> None:
    """Eight partitions, in every mode: no request reads or overwrites another's buffers."""
    result = _run(googlenet, **{"batch": 16, "contexts": 8, "partitions": 8, "requests": 400, "verify": True, **mode})
    checked = result.model.verification
    assert checked is not None
    assert checked.outputs >= 20
    assert checked.different == 0
    assert result.model.ok == result.model.submitted >= 400
    assert re.fullmatch(r"8 of \d+ SMs", result.model.engine.mode["partitions"])
    assert result.model.engine.mode["graph"] == ("no" if mode.get("graph") is False else "yes")


def test_small_requests_and_mixes_run_on_partitions(googlenet: Path, tiny: Path) -> None:
    """Copies within the graph, a stream for each slot; and several contexts of a lane, one for each size."""
    small = _run(tiny, contexts=4, partitions=4, buffers=2, requests=20_000, verify=True)
    mixed = _run(googlenet, mix="1:0.5, 16:0.5", contexts=2, partitions=2, requests=400, verify=True)
    for result in (small, mixed):
        assert result.model.verification is not None
        assert result.model.verification.different == 0
        assert result.model.ok == result.model.submitted


def test_streams_of_compute_belong_to_their_green_context(googlenet: Path) -> None:
    """As the driver says; those for copies alone are of the primary context. Contexts that share a partition share the
    green context."""
    config = RunConfig.of(engine=str(googlenet), allow_host_code=True, batch=16, contexts=6, partitions=4)
    engine: Any = open_engine(config.model)
    try:
        model = config.model
        engine.allocate(make_inputs(engine.info.tensors, model.inputs, model.input_sets, {}, model.seed))
        owners: list[int] = []
        for lane in engine._lanes:
            found = {int(_green_of(stream)) for stream in lane._streams} - {0}
            assert len(found) == 1
            owners += found
        assert 0 not in owners
        assert owners[:2] == owners[4:]
        assert len(set(owners)) == 4
    finally:
        engine.close()


def _green_of(stream: Any) -> Any:
    status, green = _driver().cuStreamGetGreenCtx(int(stream))
    assert status == 0
    return green


def _alone(count: int) -> Partitions:
    return split(device_properties(0), {"": Share(count)})[""]


def test_shares_of_this_gpu_are_equal_and_there_are_as_many_as_is_said() -> None:
    """The most partitions that the refusal names can be made; one more cannot; each size is what was given."""
    properties = device_properties(0)
    with pytest.raises(EngineError, match=r"make (\d+) partitions of") as refusal:
        _alone(1000)
    most = int(re.findall(r"make (\d+) partitions", str(refusal.value))[0])
    for count in (2, 3, 4, 8, most):
        made = _alone(count)
        assert count * made.sms <= properties.multiprocessors
        for green in made._green:
            status, resource = _driver().cuGreenCtxGetDevResource(green.handle, _driver().CUdevResourceType(1))
            assert (status, int(resource.sm.smCount)) == (0, made.sms)
        made.close()
    with pytest.raises(EngineError, match="too many"):
        _alone(most + 1)


_KEPT_BY_DRIVER = 4 << 20


def _partitions() -> None:
    _alone(8).close()


def _streams() -> None:
    """As many as a run has, and more."""
    made = _alone(8)
    close_all([*(made.stream_maker(context)() for context in range(24)), made])


def _kernels() -> None:
    """One on each partition, so that CUDA loads it there; plain and from a graph."""
    made, kernels = _alone(8), Kernels(0)
    streams = [made.stream_maker(context)() for context in range(8)]
    graphs = []
    for stream in streams:
        kernels.rest(int(stream), 1000)
        stream.synchronize()
        graphs.append(Graph.capture(stream, partial(kernels.rest, int(stream), 1000)))
    close_all([*graphs, *streams, kernels, made])


def _runs(plan: Path, **options: Any) -> None:
    assert _run(plan, contexts=8, warmup=0, duration="100ms", **options).model.ok > 100


@pytest.mark.parametrize("what", ["partitions", "streams", "kernels", "plain runs", "runs"])
def test_closing_gives_back_memory_and_partitions(tiny: Path, what: str) -> None:
    """Whatever is made and closed ten times leaves as much free memory as it left half of the times before, to within
    the 2 MiB that CUDA takes at a time, and what the driver keeps of each green context that was destroyed: 4 MiB with
    580.159.04, by calls of the driver alone. Which of these is the first to fail says what keeps memory; the sequence,
    whether it goes on with each time."""
    works: dict[str, Callable[[], None]] = {
        "partitions": _partitions,
        "streams": _streams,
        "kernels": _kernels,
        "plain runs": partial(_runs, tiny),
        "runs": partial(_runs, tiny, partitions=8),
    }
    free = []
    for _ in range(12):
        works[what]()
        gc.collect()
        call("cudaDeviceSynchronize")
        free.append(memory_info()[0])
    settled = free[2:]  # the first times make what the process keeps: the context, loaded kernels
    lost = max(settled[:5]) - max(settled[5:])
    kib = [round((now - free[0]) / 1024) for now in free]
    driver = 0 if what == "plain runs" else 5 * 8 * _KEPT_BY_DRIVER
    assert lost <= driver + (2 << 20), f"{what}: KiB of free memory after each time, less the first: {kib}"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--sms", "7"), 3, r"--sms 7 is too few: partitions of .+ have 8 SMs at least"),
        (("--sms", "4000"), 3, r"--sms 4000 is too many: the largest partition of .+ has \d+ SMs, or all \d+ as --sms"),
        (("--partitions", "100", "--contexts", "100"), 3, r"--partitions 100 are too many: the \d+ SMs of .+ make \d+"),
        (("--partitions", "100"), 2, "--partitions 100 needs as many contexts"),
    ],
)
def test_what_the_gpu_cannot_give_is_one_sentence(
    tiny: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    """stderr holds one line, with what there is."""
    done = command("run", "--engine", tiny, "--allow-host-code", "--requests", "5", "--quiet", *arguments)
    assert done.returncode == code, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert re.search(words, done.stderr), done.stderr


def test_a_profile_is_of_the_partition(googlenet: Path) -> None:
    """Inferences of a profile take longer on fewer SMs, as those of a run do."""
    times = []
    for more in ((), ("--sms", str(_half()))):
        common = (
            "--batch",
            "16",
            "--allow-host-code",
            "--requests",
            "200",
            "--duration",
            "0s",
            "--quiet",
            "--json",
            "-",
        )
        done = command("profile", "--engine", googlenet, *common, *more)
        assert (done.returncode, done.stderr) == (0, "")
        result = ProfileResult.model_validate_json(done.stdout)
        assert result.engine.mode.get("partitions") == (f"1 of {_half()} SMs" if more else None)
        times.append(result.passes[0].inference_ns or 0)
    assert times[1] >= LONGER * times[0] > 0


def test_a_sweep_says_how_many_sms_the_plan_needs(googlenet: Path) -> None:
    """Throughput of batch 16 grows with the SMs; the line of the knee is there."""
    common = (
        "--batch",
        "16",
        "--allow-host-code",
        "--duration",
        "1s",
        "--copies",
        "off",
        "--json",
        "-",
        "--max-lateness",
        "1s",
    )
    done = command("sweep", "--engine", googlenet, *common, "--sms", f"8,{_half()}")
    result = json.loads(done.stdout)
    few, many = (next(iter(point["run"]["models"].values())) for point in result["points"])
    assert many["throughput"]["requests_per_s"] > 2 * few["throughput"]["requests_per_s"]
    assert f"the throughput still grows at {_half()} SMs" in " ".join(done.stderr.split())
