"""Loading a plan: the order of things, and every refusal as one sentence. TensorRT is a fake here."""

from __future__ import annotations

import _struct
import gc
import sys
from typing import TYPE_CHECKING, Any

import pytest

from loadtrt.cuda.runtime import DeviceProperties
from loadtrt.engines.tensorrt_log import journal_of
from loadtrt.errors import EngineError, UsageError
from tensorrt_bench import Bench, bench_of, install

if TYPE_CHECKING:
    from pathlib import Path


def test_preflight_comes_before_everything_of_tensorrt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Law: without a GPU nothing of TensorRT is touched (the real Runtime would end the process)."""
    bench = bench_of("10", monkeypatch, tmp_path)

    def no_gpu() -> int:
        raise EngineError("no CUDA GPU is visible")

    monkeypatch.setattr("loadtrt.cuda.runtime.device_count", no_gpu)
    with pytest.raises(EngineError, match="no CUDA GPU"):
        bench.load(batch=1)
    assert not bench.world.preflighted
    assert bench.world.calls == []


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({}, UsageError, "data fp32.*leaves its first dimension open: add --batch N"),
        ({"batch": 33}, UsageError, "size 33 of dimension 0.*optimization profile 0, 1..32"),
        ({"shapes": {"dat": "1x3x224x224"}}, UsageError, "did you mean 'data'"),
        ({"shapes": {"data": "4x3x112x112"}}, UsageError, "fixed at 224"),
        (
            {"batch": 1, "optimization_profile": 1},
            UsageError,
            "--optimization-profile 1 is not in plan.*profile 0 alone",
        ),
        ({"batch": 1, "device": 1}, UsageError, "--device 1 does not exist; CUDA sees 1 GPU, number 0"),
        ({"batch": 1, "shape_values": {"data": "1"}}, UsageError, "--shape-values names 'data'.*inputs are none"),
        ({"batch": 1, "plugins": "/none/x.so"}, UsageError, "--plugins /none/x.so: the file does not exist"),
        ({"batch": 1, "plugins": __file__}, UsageError, "--plugins .* is not a shared library"),
        ({"batch": 1, "plugins": _struct.__file__}, EngineError, "cannot load plugin library"),
        ({"batch": 1, "engine": "/none/x.plan"}, UsageError, "cannot read plan"),
        ({"batch": 1, "module": "torch"}, UsageError, "not a TensorRT module"),
    ],
)
def test_bad_options(bench: Bench, options: dict[str, Any], error: type[Exception], words: str) -> None:
    """Law: each bad option is one sentence of the right kind, in every flavour; what was opened is closed."""
    with pytest.raises(error, match=words):
        bench.load(**options)
    gc.collect()
    assert bench.world.streams == []
    assert bench.world.events.count("runtime") <= 1


def test_host_code_runs_only_on_request(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Law: a plan with a lean runtime is refused before any CUDA call unless --allow-host-code says otherwise."""
    bench = bench_of("dispatch", monkeypatch, tmp_path)
    with pytest.raises(EngineError, match=r"carries a lean runtime.*--allow-host-code if you trust"):
        bench.load(batch=1, allow_host_code=False)
    assert bench.world.calls == []
    plan = bench.load(batch=1)
    assert plan.open.runtime.engine_host_code_allowed
    plan.close()
    plan = bench_of("10", monkeypatch, tmp_path).load(batch=1, allow_host_code=False)
    assert not plan.open.runtime.engine_host_code_allowed
    plan.close()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            "Error Code 6: The engine plan file is generated on an incompatible device, expecting compute 8.9 got "
            "compute 9.0, please rebuild.",
            "built for another GPU than this one .Fake H100, compute capability 9.0.*expecting compute 8.9",
        ),
        (
            "not compatible with this version of TensorRT, expecting library version 10.16",
            "carries no lean runtime, and tensorrt 10.16.1.11 does not read it: install that TensorRT",
        ),
        ("old deserialization call on a newer plan file", "carries no lean runtime.*--lean-library, such as"),
        ("Could not find plugin: MyNms version 1", "--plugins"),
        ("OutOfMemory (no further information)", "does not fit into the memory"),
        ("Serialization assertion magicTagRead == kMAGIC_TAG failed. Magic tag does not match", "is damaged"),
        ("something new", "cannot be loaded.*says.*something new"),
    ],
)
def test_what_tensorrt_refuses(said: str, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Law: each known refusal has its cause and remedy, and TensorRT's own words are quoted."""
    bench = bench_of("10", monkeypatch, tmp_path, refuses=said)
    with pytest.raises(EngineError, match=words) as error:
        bench.load(batch=1)
    assert said[:20] in str(error.value)
    del error  # its traceback keeps the runtime alive
    gc.collect()
    assert bench.world.events == ["runtime"]


def test_rtx_adds_its_own_diagnosis(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Law: where RTX can judge a plan, the names of its diagnosis stand in the sentence."""
    gpu = DeviceProperties(0, "Fake 4090", (8, 9), 128, 24 << 30, "0")
    bench = bench_of("rtx", monkeypatch, tmp_path, refuses="no idea")
    monkeypatch.setattr("loadtrt.engines.deserialize.device_properties", lambda _: gpu)
    words = r"another GPU than this one.*build it again.*\(--target sm89\) .*says UNSUPPORTED_CC; no idea"
    with pytest.raises(EngineError, match=words):
        bench.load(batch=1)


# What RTX 1.7 said of an unrestricted plan on a GPU of compute capability 9.0: the list is the plan's.
RTX_ON_HOPPER = (
    "The engine cannot run on this GPU, which has compute capability 9.0. Supported compute capabilities: 8.0 8.6 8.9 "
    "12.0 12.1 >12.0. TensorRT-RTX does not support this compute capability, so the engine cannot be rebuilt for it."
)


def test_rtx_on_a_gpu_that_it_does_not_support(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Law: the sentence is about the GPU, with the list of the library, and does not advise to build the plan again."""
    bench = bench_of("rtx", monkeypatch, tmp_path, refuses=RTX_ON_HOPPER)
    words = r"TensorRT-RTX does not support compute capability 9.0 \(supported: 7.5 8.0 8.6 8.9 12.0 12.1\)"
    with pytest.raises(EngineError, match=f"^{words}.*--flavour tensorrt") as error:
        bench.load(batch=1)
    assert "built for another GPU" not in str(error.value)


def test_implicit_batch_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Law: an 8.6 engine with an implicit batch dimension is an error."""
    with pytest.raises(EngineError, match="implicit batch dimension"):
        bench_of("8.6", monkeypatch, tmp_path, implicit_batch=True).load(batch=1)


def test_the_log_goes_to_python_and_never_to_stdout(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Law: TensorRT's messages reach the logger "loadtrt.tensorrt" and nothing else; one logger a module; errors
    outrank internal notices; the first error after a mark is the cause."""
    install(monkeypatch, "10.16.1.11")
    module = sys.modules["tensorrt"]
    journal = journal_of(module)
    assert journal_of(module) is journal
    severity = module.ILogger.Severity
    with caplog.at_level("DEBUG", logger="loadtrt.tensorrt"):
        journal.logger.log(severity.ERROR, "before")
        mark = journal.mark()
        journal.logger.log(severity.INTERNAL_ERROR, "a notice")
        assert journal.reason(mark) == "a notice"
        journal.logger.log(severity.ERROR, "the\n cause")
        journal.logger.log(severity.ERROR, "an effect")
        journal.logger.log(severity.INFO, "chatter")
    assert journal.reason(mark) == "the cause; an effect"
    assert journal.latest(mark) == "an effect"
    assert journal.reason(journal.mark()) == "nothing: TensorRT gave no reason"
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR", "ERROR", "ERROR", "INFO"]
    assert capfd.readouterr() == ("", "")
    journal.logger.log(severity.ERROR, f"a{'x' * 500}b")
    assert journal.latest(mark) == f"a{'x' * 199}…{'x' * 198}b"
    assert journal.reason(journal.mark() - 1) == journal.latest(mark)
