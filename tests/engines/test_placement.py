"""Contexts on partitions: all that an engine enqueues is on its context's share of the SMs, and all is given back."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from command_line import loadtrt
from gpu_machine import GpuMachine
from loadtrt.engines.plan_profile import Profiled, ProfileLength, Watch
from loadtrt.errors import CudaError, EngineError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> GpuMachine:
    return GpuMachine(monkeypatch, tmp_path)


@pytest.mark.parametrize(
    "options", [{}, {"graph": False}, {"copies": False}, {"buffers": 3}, {"requests_per_launch": 4}]
)
def test_every_compute_of_a_lane_is_in_its_partition(machine: GpuMachine, options: dict[str, Any]) -> None:
    """Law: of whatever shape a lane is, context i computes on streams of partition i modulo N; streams that are plain
    copy alone. The mode has what was given."""
    engine = machine.allocate(contexts=6, partitions=4, **options)
    assert engine.info.mode["partitions"] == "4 of 32 SMs"
    for number, lane in enumerate(engine._lanes):
        owners = [machine.driver.owner.get(int(stream)) for stream in lane._streams]
        computing = {shape.streams_of(slot)[1] for shape in lane.shapes for slot in range(shape.buffers)}
        assert {owners[stream] for stream in computing} == {-1 - number % 4}
        assert {owner for stream, owner in enumerate(owners) if stream not in computing} <= {None}
    greens = machine.greens()
    assert {len(green) for green in greens} == {1}
    assert {green for enqueue in greens for green in enqueue} == {-1, -2, -3, -4}
    engine.close()
    assert (machine.driver.alive, machine.cuda.alive) == ({}, set())


def test_without_partitions_no_driver_is_asked(machine: GpuMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: a run that does not ask for them needs nothing of the driver, and its mode says nothing of them."""
    monkeypatch.setattr("loadtrt.cuda.partitions._call", lambda *_: pytest.fail("the driver was asked"))
    engine = machine.allocate(contexts=2)
    assert "partitions" not in engine.info.mode
    assert machine.driver.owner == {}
    engine.close()
    assert machine.cuda.alive == set()


@pytest.mark.parametrize("submit", ["auto", "graph"])
def test_work_that_tensorrt_says_no_graph_can_hold_is_told(
    machine: GpuMachine, monkeypatch: pytest.MonkeyPatch, submit: str
) -> None:
    """A note says why there is no graph, and none that the options asked for too many graphs."""
    monkeypatch.setattr("loadtrt.engines.context.PlanContext.capturable", lambda *_: False)
    engine = machine.allocate(submit=submit)
    assert engine.info.mode["graph"] == "no"
    assert [note for note in engine.info.notes if "CUDA graph" in note] == [
        "no CUDA graph: TensorRT says that its work cannot be captured"
    ]
    engine.close()


@pytest.mark.parametrize(("asked", "given", "notes"), [(16, 16, 0), (20, 24, 1)])
def test_what_was_given_is_told(machine: GpuMachine, asked: int, given: int, notes: int) -> None:
    """Law: the mode has the SMs that a context computes on, and a note says where they are not those asked for."""
    engine = machine.allocate(contexts=3, sms=asked)
    assert engine.info.mode["partitions"] == f"1 of {given} SMs"
    assert [note for note in engine.info.notes if "--sms" in note] == [
        f"--sms {asked} is {given} SMs here, as Fake H200 rounds partitions up"
    ] * notes
    engine.close()


def test_auxiliary_streams_are_of_the_partition_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Law: each context computes on as many auxiliary streams as the plan has, its own, all of its partition; they are
    destroyed after the context and before the partition."""
    machine = GpuMachine(monkeypatch, tmp_path, aux_streams=3)
    machine.bench.world.alive = machine.cuda.alive
    engine = machine.allocate(contexts=4, partitions=2)
    assert {len(streams) for streams in machine.bench.world.computed_on} == {4}
    assert all(len(green) == 1 and None not in green for green in machine.greens())
    auxiliary = {tuple(streams[1:]) for streams in machine.bench.world.computed_on}
    assert len(auxiliary) == 4
    assert len({stream for streams in auxiliary for stream in streams}) == 12
    engine.close()
    assert (machine.driver.alive, machine.cuda.alive) == ({}, set())


def test_auxiliary_streams_that_stay_outside_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Law: where TensorRT takes no streams, a note says so, once for all contexts; without partitions nothing does."""
    machine = GpuMachine(monkeypatch, tmp_path, aux_streams=1, takes_streams=False)
    engine = machine.allocate(contexts=4, partitions=2)
    assert [note for note in engine.info.notes if "auxiliary" in note] == [
        "this TensorRT makes 1 auxiliary stream of each context itself: that part of its work leaves the partition"
    ]
    engine.close()
    engine = machine.allocate(contexts=4)
    assert not [note for note in engine.info.notes if "auxiliary" in note]
    engine.close()


@pytest.mark.parametrize("name", ["cuGreenCtxCreate", "cuGreenCtxStreamCreate"])
@pytest.mark.parametrize("after", [0, 1, 7])
def test_a_failure_while_lanes_are_made_leaves_nothing(
    name: str, after: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Law: whichever partition or stream cannot be made, closing the engine gives all back, in order."""
    machine = GpuMachine(monkeypatch, tmp_path, aux_streams=1)
    machine.driver.failing, machine.driver.after = name, after
    with pytest.raises(EngineError, match=name):
        machine.allocate(contexts=8, partitions=8)
    machine.engine.close()
    assert (machine.driver.alive, machine.cuda.alive) == ({}, set())


def test_auxiliary_streams_of_a_context_are_all_or_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Law: where the second of a context's auxiliary streams cannot be made, the first is destroyed."""
    machine = GpuMachine(monkeypatch, tmp_path, aux_streams=2)
    machine.driver.failing, machine.driver.after = "cuGreenCtxStreamCreate", 2
    with pytest.raises(CudaError, match="cuGreenCtxStreamCreate"):
        machine.allocate(sms=16)
    machine.engine.close()
    assert (machine.driver.alive, machine.cuda.alive) == ({}, set())


def test_a_profile_computes_on_the_partition(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Law: layers are timed where a run's context computes, auxiliary streams included, and the profile says where."""
    machine = GpuMachine(monkeypatch, tmp_path, aux_streams=1, times=[("conv", 0.5)], layers={"Layers": []})
    engine, profiled = machine.open(sms=16), Profiled()
    machine.bench.world.alive = machine.cuda.alive
    engine.profile(
        {"data": np.zeros((16, 3, 224, 224), np.float32)},
        ProfileLength(0, 3, 0),
        profiled,
        Watch(lambda: False, lambda _, __: None),
    )
    assert engine.info.mode["partitions"] == "1 of 16 SMs"
    assert all(green == {-1} for green in machine.greens())
    engine.close()
    gc.collect()
    assert (machine.driver.alive, machine.cuda.alive) == ({}, set())


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--engine", "simulated:null", "--sms", "8"), 2, "simulated:null has no device to share: leave --sms out"),
        (("--engine", "simulated:null", "--priority", "high"), 2, "no device to share: leave --priority out"),
        (("--engine", "simulated:device=g", "--sms", "8"), 2, "no SMs to count: write --sms as a share, such as 25%"),
        (("--engine", "simulated:device=g", "--priority", "-6"), 2, "priorities 0, the least, to -5, the greatest"),
        (("--engine", "simulated:", "--sms", "25%"), 2, "a device that models share: add device=gpu0"),
        (("--engine", "simulated:device=g,part=0.5", "--sms", "25%"), 2, "part is given, and --sms says it again"),
        (("--engine", "simulated:null", "--partitions", "2", "--contexts", "2"), 2, "--partitions is for TensorRT"),
        (("--engine", "zoo:googlenet", "--on", "onnxruntime", "--sms", "8"), 2, "not for models on ONNX Runtime"),
        (("--engine", "simulated:null", "--partitions", "8"), 2, "--partitions 8 needs as many contexts: give --cont"),
        (("--engine", "simulated:null", "--partitions", "0"), 2, "--partitions"),
        (("--engine", "simulated:null", "--sms", "0"), 2, "--sms"),
        (("--engine", "simulated:null", "--sms", "half"), 2, "'half' is not a part of a GPU: write a number of SMs"),
        (("--engine", "simulated:null", "--sms", "101%"), 2, "up to 100%, such as 25%"),
        (("--engine", "simulated:null", "--priority", "up"), 2, "'up' is not a priority: write high, normal, low, or"),
        (("--engine", "zoo:googlenet", "--on", "onnxruntime", "--priority", "high"), 2, "not for models on ONNX Run"),
    ],
)
def test_what_no_partition_is_for_is_one_sentence(arguments: tuple[str, ...], code: int, words: str) -> None:
    """Law: other engines than TensorRT's are told apart before anything is measured."""
    done = loadtrt("run", *arguments)
    assert done.returncode == code, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert words in done.stderr
