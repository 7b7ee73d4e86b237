"""A run of a plan beside a stressor on one GPU, which is a fake: from options to results, with each model's share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import loadtrt
from gpu_machine import GpuMachine
from loadtrt.errors import EngineError, UsageError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> GpuMachine:
    made = GpuMachine(monkeypatch, tmp_path)
    made.cuda.ns_per_byte = 1e-3
    monkeypatch.setattr("loadtrt.engines.stressor_engine.use_device", lambda _: None)
    monkeypatch.setattr("loadtrt.engines.cuda_engine.memory_info", lambda: (1 << 40, 1 << 40))
    monkeypatch.setattr("loadtrt.engines.cuda_engine.CudaEngine._pin", lambda *_: {"x": 256, "data": 256})
    monkeypatch.setattr("loadtrt.runs.watched.bus_id_of", lambda *_: None)
    return made


def _run(machine: GpuMachine, plan: dict[str, Any], stressor: dict[str, Any]) -> Any:
    models = {
        "plan": {"engine": str(machine.bench.path), "allow_host_code": True, "batch": 16, **plan},
        "stressor": {"engine": "stressor:sm", **stressor},
    }
    return loadtrt.run(models=models, requests=50, warmup=0, telemetry=False, input_sets=1)


def test_each_result_has_its_share(machine: GpuMachine) -> None:
    """Law: what one model asks for is its own, the other has the rest, and all is given back."""
    result = _run(machine, {"sms": 32}, {"priority": "high"})
    modes = {name: model.engine.mode for name, model in result.models.items()}
    assert modes["plan"]["partitions"] == "1 of 32 SMs"
    assert "priority" not in modes["plan"]
    assert modes["stressor"]["partitions"] == "1 of 100 SMs"
    assert modes["stressor"]["priority"] == "high, -5 of 0 to -5"
    assert any(
        note.startswith("a launch is a kernel on 100 of 100 SMs") for note in result.models["stressor"].engine.notes
    )
    assert {name: model.ok for name, model in result.models.items()} == {"plan": 50, "stressor": 50}
    assert {blocks for kernel, blocks, *_ in machine.driver.launched if kernel == 1} == {100}
    assert (machine.driver.alive, machine.cuda.alive) == ({}, set())
    assert not any(machine.driver.libraries)


@pytest.mark.parametrize(
    ("plan", "stressor", "error", "words"),
    [
        ({"sms": 96}, {"sms": 64}, EngineError, "plan 96 \\+ stressor 64 of 132 SMs"),
        ({"priority": 3}, {}, EngineError, "--priority 3: Fake H200 has 0, the least, to -5, the greatest"),
        ({"partitions": 2, "contexts": 2}, {}, UsageError, "in a run of several models give --sms, too"),
        ({}, {"device": 1}, UsageError, "the models of a run use one GPU"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_leaves_nothing(
    machine: GpuMachine, plan: dict[str, Any], stressor: dict[str, Any], error: type[Exception], words: str
) -> None:
    """Law: before any lane is made; the engines that were open are closed."""
    with pytest.raises(error, match=words):
        _run(machine, plan, stressor)
    assert (machine.driver.alive, machine.cuda.alive) == ({}, set())
    assert not any(machine.driver.libraries)


def test_a_plan_and_a_stressor_need_memory_together(machine: GpuMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: both are on one GPU, so that what they need is added up, before any lane is made."""
    monkeypatch.setattr("loadtrt.engines.cuda_engine.memory_info", lambda: (419 << 20, 1 << 40))
    assert _run(machine, {}, {"engine": "stressor:dram"}).models["plan"].ok == 50
    monkeypatch.setattr("loadtrt.engines.cuda_engine.memory_info", lambda: (410 << 20, 1 << 40))
    made = len(machine.cuda.calls)
    with pytest.raises(EngineError, match=r"the lanes of plan \(.+\) and stressor \(400 MiB\) need .+ is free"):
        _run(machine, {}, {"engine": "stressor:dram"})
    assert "cudaMalloc" not in machine.cuda.calls[made:]
