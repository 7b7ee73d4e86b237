"""Stressors on a fake GPU: what a launch enqueues, that it takes the time asked for, and that all is given back."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from gpu_machine import GpuMachine
from loadtrt.asked.config import RunConfig
from loadtrt.cuda import stressors
from loadtrt.cuda.stressors import OUTPUT_BYTES, PTX, RESOURCES, Stress
from loadtrt.engines.open import open_engine
from loadtrt.engines.placed_together import place_together
from loadtrt.engines.stressor_engine import parse_stress
from loadtrt.errors import CudaError, EngineError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

MS = 1_000_000
MIB = 1 << 20
SIZES = {"dram": 200 * MIB, "l2": (50 * MIB) // 8, "pcie": 4 * MIB}
WAYS = {"dram": {3}, "l2": {3}, "pcie": {1, 2}}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> GpuMachine:
    made = GpuMachine(monkeypatch, tmp_path)
    made.cuda.ns_per_byte = 1e-3  # 1 TB/s
    monkeypatch.setattr("loadtrt.engines.stressor_engine.use_device", lambda _: None)
    monkeypatch.setattr("loadtrt.engines.cuda_engine.memory_info", lambda: (1 << 40, 1 << 40))
    return made


def _opened(machine: GpuMachine, text: str, **options: Any) -> Any:
    engine: Any = open_engine(RunConfig.of(engine=f"stressor:{text}", **options).model)
    engine._pin = lambda *_: {"x": 256}
    machine.engine = engine
    return engine


def _allocated(machine: GpuMachine, text: str, **options: Any) -> Any:
    engine = _opened(machine, text, **options)
    engine.allocate([{}])
    return engine


def _told(engine: Any) -> str:
    """What the result says of a launch: a note, as it is measured and differs from run to run."""
    (note,) = [note for note in engine.info.notes if note.startswith("a launch is ")]
    return str(note).removeprefix("a launch is ")


def _launch(machine: GpuMachine, engine: Any) -> tuple[list[tuple[Any, ...]], list[tuple[int, ...]]]:
    """Copies and kernels that one launch enqueues, without that of the input to the output."""
    machine.cuda.copies.clear()
    machine.driver.launched.clear()
    assert engine._contexts[0].enqueue(7)
    *copies, answer = machine.cuda.copies
    assert answer[2:4] == (OUTPUT_BYTES, 3)
    return copies, machine.driver.launched


@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize("resource", ["l2", "dram"])
def test_copies_of_a_graph_follow_one_another_faster(machine: GpuMachine, resource: str, graph: bool) -> None:
    """Law: a launch takes what was asked for in the way in which it will be launched."""
    machine.cuda.enqueue_ns = 2_000  # about a third of a copy of l2
    copies, _ = _launch(machine, _allocated(machine, resource, graph=graph))
    unit_ns = SIZES[resource] * machine.cuda.ns_per_byte + (0 if graph else machine.cuda.enqueue_ns)
    assert abs(len(copies) * unit_ns - MS) <= max(unit_ns / 2, 1)


@pytest.mark.parametrize("resource", ["dram", "l2", "pcie"])
@pytest.mark.parametrize(("options", "part"), [("", 1), (",time=4ms", 4), (",intensity=25%", 0.25)])
def test_a_launch_copies_for_as_long_as_asked(machine: GpuMachine, resource: str, options: str, part: float) -> None:
    """Law: copies take intensity × time at the rate that was measured, to within one copy; a thread sleeps for the
    rest. The result has both."""
    engine = _allocated(machine, resource + options)
    copies, kernels = _launch(machine, engine)
    ways = {copy[3] for copy in copies}
    one_way = [copy for copy in copies if copy[3] == min(ways)]
    nbytes = SIZES[resource]
    assert ways == WAYS[resource]
    assert {copy[2] for copy in copies} == {nbytes}
    unit_ns = nbytes * machine.cuda.ns_per_byte * len(ways)  # the fake copies one after the other
    assert abs(len(one_way) * unit_ns - part * MS) <= max(unit_ns / 2, 1)
    assert kernels == ([(2, 1, 1, 0, 7, round(0.75 * MS))] if "intensity" in options else [])
    assert engine.info.mode["stress"] == resource
    told = _told(engine)
    assert re.match(rf"{len(one_way)} cop(y|ies) of [\d.]+ MiB at [\d.e+]+ GB/s", told)
    assert ("for 25 % of its time, and took" in told) == ("intensity" in options)
    engine.close()
    assert machine.cuda.alive == set()
    assert not any(machine.driver.libraries)


def test_a_launch_has_so_many_copies_at_most(machine: GpuMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: of tiny buffers there are no more than a graph is captured of in a moment; the result says what it took."""
    monkeypatch.setattr("loadtrt.cuda.stressors._MOST_COPIES", 20)
    engine = _allocated(machine, "l2,size=1B,time=100ms")
    copies, _ = _launch(machine, engine)
    assert len(copies) == 20
    assert "copies of 1 B" in _told(engine)
    engine.close()


def test_copies_of_the_bus_go_both_ways_at_once(machine: GpuMachine) -> None:
    """Law: copies to the host have a stream of their own, which begins after the enqueue's stream and ends before it
    goes on, so that a graph holds both."""
    engine = _allocated(machine, "pcie")
    machine.cuda.calls.clear()
    copies, _ = _launch(machine, engine)
    streams = {copy[3]: copy[4] for copy in copies}
    assert streams[1] == 7
    assert streams[2] not in (7, *(int(stream) for stream in engine._streams))
    order = [name for name in machine.cuda.calls if name != "cudaMemcpyAsync"]
    assert order == ["cudaEventRecord", "cudaStreamWaitEvent"] * 2
    engine.close()


@pytest.mark.parametrize(
    ("text", "options", "blocks", "sms"),
    [("", {}, 132, 132), (",share=50%", {}, 66, 132), (",share=1%", {}, 1, 132), (",share=0.5", {"sms": 32}, 16, 32)],
)
def test_the_kernel_has_its_share_of_the_sms(
    machine: GpuMachine, text: str, options: dict[str, Any], blocks: int, sms: int
) -> None:
    """Law: one block for each SM of the share, of those of the model's partition; each takes all shared memory of its
    SM, for the time of the launch."""
    engine = _allocated(machine, f"sm,time=2ms{text}", **options)
    copies, kernels = _launch(machine, engine)
    assert copies == []
    assert kernels == [(1, blocks, 128, 232_448, 7, 2 * MS)]
    assert _told(engine).startswith(f"a kernel on {blocks} of {sms} SMs, and took ")
    engine.close()
    assert (machine.driver.alive, machine.cuda.alive) == ({}, set())
    assert not any(machine.driver.libraries)


def test_a_stressor_has_its_share_beside_a_plan(machine: GpuMachine) -> None:
    """Law: it is a model as others are: its lanes have a partition and a priority."""
    plan = machine.open(sms=96)
    stressor = _opened(machine, "sm", sms=32, priority="high", contexts=2)
    place_together({"plan": plan, "stressor": stressor})
    stressor.allocate([{}])
    owners = {(machine.driver.owner[int(stream)], machine.cuda.priorities[int(stream)]) for stream in stressor._streams}
    assert owners == {(-2, -5)}
    assert _told(stressor).startswith("a kernel on 32 of 32 SMs")
    stressor.close()
    plan.close()
    assert (machine.driver.alive, machine.cuda.alive) == ({}, set())


@pytest.mark.parametrize("resource", RESOURCES)
@pytest.mark.parametrize("options", [{}, {"contexts": 3, "buffers": 3}, {"graph": False}, {"sms": 16}])
def test_everything_is_given_back(machine: GpuMachine, resource: str, options: dict[str, Any]) -> None:
    """Law: in every shape; the memory bill has the buffers of each context."""
    engine = _opened(machine, resource, **options)
    bill = engine.memory([{}])
    assert bill.context_bytes == 2 * SIZES.get(resource, 0)
    engine.allocate([{}])
    assert engine.info.mode["graph"] == ("no" if options.get("graph") is False else "yes")
    assert "copies" not in engine.info.mode
    engine.close()
    engine.close()
    assert (machine.driver.alive, machine.cuda.alive) == ({}, set())
    assert not any(machine.driver.libraries)


@pytest.mark.parametrize("name", ["cuLibraryLoadData", "cuLibraryGetKernel", "cuKernelSetAttribute", "cuLaunchKernel"])
def test_a_failure_leaves_nothing(machine: GpuMachine, name: str) -> None:
    """Law: whichever call fails, the kernels are unloaded."""
    machine.driver.failing = name
    with pytest.raises(CudaError, match=f"{name} failed with CUDA_ERROR_OUT_OF_MEMORY"):
        _allocated(machine, "sm")
    if name == "cuLaunchKernel":
        machine.engine.close()
    assert machine.cuda.alive == set()
    assert not any(machine.driver.libraries[:1]) or name == "cuLibraryLoadData"


def test_an_old_driver_is_told(machine: GpuMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: a function that the installed driver lacks is one sentence."""

    def missing(*_: Any) -> None:
        raise RuntimeError('Function "cuLibraryLoadData" not found')

    monkeypatch.setattr(machine.driver, "cuLibraryLoadData", missing)
    monkeypatch.setattr(stressors, "versions", lambda: ("11.8", "13.0"))
    with pytest.raises(EngineError, match=r"stressors need a driver of CUDA 12.0 or newer, .* CUDA 11.8: update it"):
        _opened(machine, "sm")


def test_the_kernels_read_the_clock_in_their_loop() -> None:
    """Law: text for compute capability 7.0 and newer, with both kernels; with a clock read once, no loop would end."""
    assert PTX.startswith(".version 6.3\n.target sm_70\n")
    for kernel in PTX.split(".visible .entry ")[1:]:
        loop = kernel.partition("again:")[2].partition("bra again")[0]
        assert "%globaltimer" in loop
        assert ("nanosleep" in loop) == kernel.startswith("rest(")
    assert PTX.count("{") == PTX.count("}") == 2


@pytest.mark.parametrize(
    ("text", "stress"),
    [
        ("dram", Stress(resource="dram")),
        ("pcie,time=2ms,intensity=0.5,size=1MiB", Stress(resource="pcie", time_ns=2 * MS, intensity=0.5, nbytes=MIB)),
        ("sm,share=25%", Stress(resource="sm", share=0.25)),
    ],
)
def test_text_is_read(text: str, stress: Stress) -> None:
    """Law: keys in any order, each with its unit."""
    assert parse_stress(text) == stress


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("", {}, "stressor: unknown resource '': choose from dram, l2, pcie, sm"),
        ("drum", {}, "stressor: unknown resource 'drum': did you mean 'dram'?"),
        ("dram,tme=1ms", {}, "stressor: unknown key 'tme': did you mean 'time'?"),
        ("dram,time", {}, "stressor: 'time' needs a value"),
        ("dram,time=1ms,time=2ms", {}, "stressor: 'time' is given twice"),
        ("dram,time=1s", {}, "stressor: time is 1.00 s: write 10us to 100ms"),
        ("dram,time=1us", {}, "stressor: time is 1.00 µs: write 10us to 100ms"),
        ("dram,intensity=0", {}, "stressor: intensity is 0: write a share above 0, up to 100%"),
        ("sm,share=1.5", {}, "stressor: share is 1.5: write a share above 0, up to 100%"),
        ("dram,share=50%", {}, "stressor: share is for stressor:sm: leave it out"),
        ("sm,size=1MiB", {}, "stressor: size is for stressors that copy: leave it out"),
        ("dram,size=many", {}, "stressor: size: 'many' is not a size"),
        ("dram", {"batch": 4}, "a stressor has no batch: leave --batch out"),
        ("dram", {"mix": "1:1, 2:1"}, "a stressor has no batch: leave --mix out"),
        ("dram", {"batcher": "max=4,delay=1ms", "rate": "10/s"}, "a stressor has no batch: leave --batcher out"),
        ("dram", {"inferences_per_request": 4}, "a stressor has no batch: leave --inferences-per-request out"),
        ("dram", {"copies": False}, "--copies is for .* not for stressors such as stressor:dram: leave it out"),
        ("dram", {"fp16": True}, "--fp16 is for .* not for stressors"),
        ("dram", {"shapes": {"x": "1x16"}}, "--shapes is for .* not for stressors"),
    ],
)
def test_what_no_stressor_is_is_one_sentence(
    machine: GpuMachine, text: str, options: dict[str, Any], words: str
) -> None:
    """Law: the nearest key, the range or who takes the option."""
    with pytest.raises(UsageError, match=words.replace("?", r"\?")) as refusal:
        _opened(machine, text, **options)
    assert "\n" not in str(refusal.value)
