"""Models that share one GPU: each has its SMs and its priority, its result says so, and all is given back in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gpu_machine import GpuMachine
from loadtrt.asked.config import RunConfig
from loadtrt.engines.open import open_engine
from loadtrt.engines.placed_together import place_together
from loadtrt.errors import EngineError, UsageError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> GpuMachine:
    return GpuMachine(monkeypatch, tmp_path, aux_streams=1)


def _together(machine: GpuMachine, **options: dict[str, Any]) -> dict[str, Any]:
    """The engines of a run, with their lanes."""
    engines = {name: machine.open(**given) for name, given in options.items()}
    place_together(engines)
    for engine in engines.values():
        engine._pin = lambda *_: {"data": 256}
        engine.allocate([{}])
    return engines


def _shares(machine: GpuMachine, engine: Any) -> set[tuple[int | None, int]]:
    """Green context and priority of the streams on which the engine computes, auxiliary ones included."""
    lane, *_ = engine._lanes
    plain = {int(lane._streams[number]) for number in (1, 2)} if len(lane._streams) > 2 else set()
    streams = {int(stream) for stream in engine._streams} - plain
    return {(machine.driver.owner.get(stream), machine.cuda.priorities[stream]) for stream in streams}


def test_models_have_disjoint_sms(machine: GpuMachine) -> None:
    """Law: one split is made for all; every stream of compute of a model is in its part, auxiliary ones included; those
    without --sms have the rest, and their result says so."""
    engines = _together(machine, a={"sms": 32, "contexts": 2}, b={"sms": "25%"}, c={}, d={})
    assert machine.driver.made == [32, 32, 68, 68]
    assert len(machine.driver.used) == 1
    owners = {name: {owner for owner, _ in _shares(machine, engine)} for name, engine in engines.items()}
    assert owners == {"a": {-1}, "b": {-2}, "c": {-3}, "d": {-4}}
    assert [engine.info.mode["partitions"] for engine in engines.values()] == [
        *["1 of 32 SMs"] * 2,
        *["1 of 68 SMs"] * 2,
    ]
    assert [note for note in engines["b"].info.notes if "SMs" in note] == ["--sms 25% is 32 of 132 SMs here"]
    left = "no --sms: these are the 68 SMs that the partitions of others leave"
    assert [left in engine.info.notes for engine in engines.values()] == [False, False, True, True]
    for engine in engines.values():
        engine.close()
    assert (machine.driver.alive, machine.cuda.alive) == ({}, set())


@pytest.mark.parametrize("order", ["ab", "ba"])
@pytest.mark.parametrize("many", [False, True])
def test_engines_close_in_any_order(machine: GpuMachine, order: str, many: bool) -> None:
    """Law: each closes its own parts after its streams, whichever is first, and before lanes were made, too."""
    engines = {name: machine.open(sms=32 if name == "a" else None) for name in "ab"}
    place_together(engines)
    if many:
        for engine in engines.values():
            engine._pin = lambda *_: {"data": 256}
            engine.allocate([{}])
    for name in order:
        engines[name].close()
        engines[name].close()
    assert (machine.driver.alive, machine.cuda.alive) == ({}, set())


@pytest.mark.parametrize("stressor", [False, True])
def test_what_was_loaded_into_a_partition_is_unloaded_before_it_goes(
    machine: GpuMachine, monkeypatch: pytest.MonkeyPatch, stressor: bool
) -> None:
    """Law: the engine, with the kernels that it has loaded, is freed before the partitions on which they ran."""
    monkeypatch.setattr("loadtrt.engines.stressor_engine.use_device", lambda _: None)
    engine: Any = machine.open(partitions=2, contexts=2)
    if stressor:
        engine = open_engine(RunConfig.of(engine="stressor:sm", partitions=2, contexts=2).model)
    engine._pin = lambda *_: {"data": 256, "x": 256}
    engine.allocate([{}])
    destroy, destroyed = machine.driver.cuGreenCtxDestroy, []

    def watched(green: int) -> Any:
        destroyed.append(any(machine.driver.libraries) if stressor else engine._plan.open.engine is not None)
        return destroy(green)

    monkeypatch.setattr(machine.driver, "cuGreenCtxDestroy", watched)
    engine.close()
    assert destroyed == [False, False]


@pytest.mark.parametrize(
    ("asked", "number", "told"),
    [
        ("high", -5, "high, -5 of 0 to -5"),
        ("normal", -2, "normal, -2 of 0 to -5"),
        ("low", 0, "low, 0 of 0 to -5"),
        (-3, -3, "-3 of 0 to -5"),
        ("-1", -1, "-1 of 0 to -5"),
    ],
)
@pytest.mark.parametrize("sms", [None, 32])
def test_all_streams_that_compute_have_the_priority(
    machine: GpuMachine, asked: int | str, number: int, told: str, sms: int | None
) -> None:
    """Law: with a partition and without one, of each context, auxiliary streams included; the result has the number. A
    neighbour that asks for nothing keeps that of plain streams."""
    engines = _together(machine, a={"priority": asked, "sms": sms, "contexts": 2}, b={})
    assert {priority for _, priority in _shares(machine, engines["a"])} == {number}
    assert {priority for _, priority in _shares(machine, engines["b"])} == {0}
    assert engines["a"].info.mode["priority"] == told
    assert "priority" not in engines["b"].info.mode
    assert ("partitions" in engines["a"].info.mode) == (sms is not None)
    for engine in engines.values():
        engine.close()
    assert (machine.driver.alive, machine.cuda.alive) == ({}, set())


def test_a_priority_needs_no_other_model(machine: GpuMachine) -> None:
    """Law: one model alone has it, too, without asking the driver for partitions."""
    engine = machine.allocate(priority="high")
    assert _shares(machine, engine) == {(None, -5)}
    assert machine.driver.made == []
    engine.close()


@pytest.mark.parametrize(
    ("range_", "asked", "words"),
    [
        ((0, -5), -6, "--priority -6: Fake H200 has 0, the least, to -5, the greatest"),
        ((0, -5), 1, "--priority 1: Fake H200 has 0, the least, to -5, the greatest"),
        ((0, 0), "high", "Fake H200 has one priority for all streams: leave --priority out"),
    ],
)
def test_priorities_that_there_are_not(
    machine: GpuMachine, range_: tuple[int, int], asked: int | str, words: str
) -> None:
    """Law: CUDA would take the nearest one without a word; here it is one sentence."""
    machine.cuda.priority_range = range_
    with pytest.raises(EngineError, match=words):
        machine.allocate(priority=asked)


def test_equal_parts_are_of_one_model(machine: GpuMachine) -> None:
    """Law: as many parts as large as they can be would leave others none: the size is asked for."""
    with pytest.raises(UsageError, match=r"--partitions 2 of a: in a run of several models give --sms, too"):
        _together(machine, a={"partitions": 2, "contexts": 2}, b={})
    assert machine.driver.alive == {}


def test_models_that_ask_for_nothing_ask_no_driver(machine: GpuMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: plain streams, as for one model."""
    monkeypatch.setattr("loadtrt.cuda.partitions._call", lambda *_: pytest.fail("the driver was asked"))
    engines = _together(machine, a={}, b={})
    assert [set(engine.info.mode) & {"partitions", "priority"} for engine in engines.values()] == [set(), set()]
    assert {shares for engine in engines.values() for shares in _shares(machine, engine)} == {(None, 0)}
    for engine in engines.values():
        engine.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [({"sms": 32}, "leaves the partition"), ({"priority": "high"}, "has the priority of plain streams")],
)
def test_what_escapes_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    """Law: a TensorRT that takes no streams is named, with what its own lack."""
    machine = GpuMachine(monkeypatch, tmp_path, aux_streams=2, takes_streams=False)
    engine = machine.allocate(**options)
    assert engine.info.mode["auxiliary streams"] == "2 outside"
    assert [note.partition(": ")[2] for note in engine.info.notes if "auxiliary" in note] == [
        f"that part of its work {words}"
    ]
    engine.close()


@pytest.mark.parametrize(
    ("nodes", "told"),
    [
        ([(0, -5, 7)] * 3 + [(2, 0, 1)], None),  # other nodes than kernels are copies and events
        ([(0, -5, 7)] * 3 + [(0, 0, 7)], "1 of 4"),
        ([(0, -5, 7)] * 3 + [(0, -5, 1), (0, 0, 1)], "2 of 5"),
        ([(0, 0, 7)] * 3, None),  # CUDA does not tell
        ([], None),
    ],
)
def test_kernels_on_streams_of_tensorrt_are_counted(
    machine: GpuMachine, nodes: list[tuple[int, int, int]], told: str | None
) -> None:
    """Law: of the kernels that were captured, those that differ from most in priority or context; where all are alike
    nothing is said."""
    machine.cuda.nodes = nodes
    engine = machine.allocate(priority="high", sms=32, input_sets=1, buffers=1, copies=False)
    assert engine.info.mode.get("kernels outside") == told
    engine.close()


def test_kernels_that_cuda_does_not_tell_of_are_no_error(machine: GpuMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: an old driver, and a call that fails, leave the lane as it is, with its graph."""
    machine.cuda.nodes = [(0, -5, 7)]
    for failure in ("cuGraphKernelNodeGetParams", ""):
        machine.driver.failing = failure
        if not failure:
            monkeypatch.delattr(type(machine.driver), "cuGraphKernelNodeGetParams")
            monkeypatch.setattr(machine.driver, "cuGraphKernelNodeGetParams", _missing, raising=False)
        engine = machine.allocate(priority="high")
        assert engine.info.mode["graph"] == "yes"
        assert "kernels outside" not in engine.info.mode
        engine.close()


def _missing(*_: Any) -> None:
    raise RuntimeError("function not found")


def test_without_a_share_no_graph_is_looked_into(machine: GpuMachine) -> None:
    """Law: a run without these options makes no call more."""
    machine.cuda.nodes = [(0, 0, 1), (0, -5, 1)]
    engine = machine.allocate()
    assert not [name for name in machine.cuda.calls if name.startswith("cudaGraphGetNodes")]
    assert "kernels outside" not in engine.info.mode
    engine.close()
