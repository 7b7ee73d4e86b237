"""Building with fakes of TensorRT 8.6, 10 and 11: what the builder is told. A plan comes out of a real one alone."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from test_build import SIZE, conv

from command_line import loadtrt
from fake_builder import Told, install
from fake_tensorrt import RtxTargets
from loadtrt.asked.config import RunConfig
from loadtrt.cuda.runtime import DeviceProperties
from loadtrt.engines.build_config import BuildOptions
from loadtrt.engines.build_model import read_source
from loadtrt.engines.open import open_engine
from loadtrt.engines.plan import read_sidecar
from loadtrt.engines.plan_builder import BuiltPlan, build_plan
from loadtrt.errors import CudaError, EngineError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

EVERY = pytest.mark.parametrize("version", ["8.6", "10", "11"])
WEAK = pytest.mark.parametrize("version", ["8.6", "10"])


def build(folder: Path, **options: Any) -> BuiltPlan:
    of = BuildOptions(**{"batch": 2, **options})
    return build_plan(read_source(conv(folder), of), folder / "a.plan", of)


@EVERY
def test_full_tensorrt_is_the_default_and_asks_for_a_gpu_first(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a driver no Builder() is made (8.6 dies in it); with one the sidecar names the GPU."""
    told = install(monkeypatch, version, Told(gpus=0))
    with pytest.raises(CudaError, match="cudaErrorInsufficientDriver"):
        build(tmp_path)
    assert told.config is None
    install(monkeypatch, version)
    made = build(tmp_path).sidecar
    assert (made.flavour, made.gpu) == ("tensorrt", "Fake H100, compute capability 9.0")
    with pytest.raises(UsageError, match="--device 3 does not exist; CUDA sees 1"):
        build(tmp_path, device=3)


@pytest.mark.parametrize(
    ("version", "strongly_typed", "flags"),
    [
        ("8.6", False, {"EXPLICIT_BATCH"}),
        ("10", False, {"EXPLICIT_BATCH"}),
        ("10", True, {"EXPLICIT_BATCH", "STRONGLY_TYPED"}),
        ("11", False, {"STRONGLY_TYPED"}),
    ],
)
def test_the_network_is_typed_as_asked(
    version: str, strongly_typed: bool, flags: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flags by name, since their numbers differ from version to version."""
    told = install(monkeypatch, version)
    build(tmp_path, strongly_typed=strongly_typed)
    assert told.network_flags == flags


@WEAK
def test_precision_by_flags_where_the_builder_chooses_types(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model stays FP32; --io fp16 sets inputs and outputs."""
    told = install(monkeypatch, version)
    built = build(tmp_path, fp16=True, fp8=True, io="fp16", no_tf32=True, sparsity=True, refit=True)
    assert told.flags == {"FP16", "FP8", "SPARSE_WEIGHTS", "REFIT"}
    assert told.cleared == {"TF32"}
    assert told.io_dtypes == ["HALF", "HALF"]
    assert built.sidecar.precision == "the builder may use FP16 and FP8"
    weight = onnx.load_model_from_string(told.model).graph.initializer[0]
    assert weight.data_type == onnx.TensorProto.FLOAT


@pytest.mark.parametrize(("version", "strongly_typed"), [("11", False), ("10", True)])
def test_precision_by_conversion_where_types_are_the_models(
    version: str, strongly_typed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No flag is set; the model that the parser gets is FP16."""
    told = install(monkeypatch, version)
    build(tmp_path, fp16=True, strongly_typed=strongly_typed)
    assert told.flags == set()
    weight = onnx.load_model_from_string(told.model).graph.initializer[0]
    assert weight.data_type == onnx.TensorProto.FLOAT16


@WEAK
def test_int8_calibrates_once_and_keeps_the_ranges(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every set of the file reaches the device once, byte for byte; the cache is written, then used instead."""
    data = np.random.default_rng(0).standard_normal((3, 2, *SIZE)).astype(np.float32)
    np.savez(tmp_path / "c.npz", x=data)
    cache = tmp_path / "ranges.cache"
    told = install(monkeypatch, version)
    built = build(tmp_path, int8=True, calibration=tmp_path / "c.npz", calibration_cache=cache)
    assert told.flags == {"INT8"}
    assert told.batches == [[item.tobytes()] for item in data]
    assert cache.read_bytes() == b"ranges"
    assert built.notes == ()
    told = install(monkeypatch, version)
    built = build(tmp_path, int8=True, calibration_cache=cache)
    assert (told.batches, built.notes) == ([], ())
    install(monkeypatch, version)
    assert "RANDOM" in build(tmp_path, int8=True).notes[0]


def test_a_failing_calibration_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes wrong inside the calibrator comes out as its own error: C++ would end the process."""
    install(monkeypatch, "8.6")
    with pytest.raises(UsageError, match="cannot write calibration cache"):
        build(tmp_path, int8=True, calibration_cache=tmp_path / "no" / "cache")


@pytest.mark.parametrize(
    ("version", "option", "value", "who"),
    [
        ("8.6", "bf16", True, "builders of TensorRT 10 have it"),
        ("8.6", "strip_weights", True, "TensorRT 10, 11 and TensorRT-RTX have it"),
        ("8.6", "strongly_typed", True, "TensorRT 10, 11 and TensorRT-RTX have it"),
        ("11", "bf16", True, "builders of TensorRT 10 have it; or bring a model that is in it already"),
        ("11", "fp8", True, "builders of TensorRT 8.6 and 10 have it"),
        ("10", "targets", ("SM86",), "builders of TensorRT-RTX have it"),
    ],
)
def test_a_missing_option_names_who_has_it(
    version: str, option: str, value: Any, who: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told by names that the module has, before the builder starts."""
    told = install(monkeypatch, version)
    with pytest.raises(UsageError, match=who):
        build(tmp_path, **{option: value})
    assert told.config is None


def test_calibration_cache_is_for_calibrators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """11 takes Q/DQ nodes, which have no cache."""
    install(monkeypatch, "11")
    with pytest.raises(UsageError, match=r"has no --calibration-cache; TensorRT 8\.6 and 10 have it"):
        build(tmp_path, int8=True, calibration_cache=tmp_path / "c")


@EVERY
def test_the_configuration_says_what_was_asked(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Level, streams, workspace, tactics (+ and - on the default, names alone instead of it), compatibility."""
    told = install(monkeypatch, version)
    build(
        tmp_path,
        builder_optimization_level=0,
        max_aux_streams=2,
        workspace=1 << 20,
        tactic_sources=("-EDGE_MASK_CONVOLUTIONS", "+JIT_CONVOLUTIONS"),
        version_compatible=True,
        exclude_lean_runtime=True,
        hardware_compatible=True,
    )
    config = told.config
    assert (config.builder_optimization_level, config.max_aux_streams, config.pool) == (0, 2, ("WORKSPACE", 1 << 20))
    assert config.profiling_verbosity.name == "DETAILED"
    assert config.hardware_compatibility_level.name == "AMPERE_PLUS"
    assert told.flags == {"VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME"}
    edge, jit = (0, 1) if version == "11" else (3, 4)
    assert config.tactics == (0b11 & ~(1 << edge)) | 1 << jit
    told = install(monkeypatch, version)
    build(tmp_path, tactic_sources=("EDGE_MASK_CONVOLUTIONS",))
    assert told.config.tactics == 1 << edge


def test_dla(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A core that is there, with the GPU for what it lacks; one that is not."""
    told = install(monkeypatch, "8.6", Told(dla_cores=2))
    build(tmp_path, dla=1)
    assert (told.config.DLA_core, told.config.default_device_type.name) == (1, "DLA")
    assert told.flags == {"GPU_FALLBACK"}
    install(monkeypatch, "8.6")
    with pytest.raises(UsageError, match="this GPU has 0 DLA cores"):
        build(tmp_path, dla=0)


def test_profiles_reach_the_builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In their order, with min, opt and max."""
    told = install(monkeypatch, "10")
    profiles = tuple({"x": ((least, *SIZE), (8, *SIZE), (16, *SIZE))} for least in (1, 4))
    build(tmp_path, batch=None, profiles=profiles)
    assert told.profiles == list(profiles)


def test_timing_cache_is_read_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing: begun; there: taken and written again; something else: an error before building."""
    install(monkeypatch, "10")
    file = tmp_path / "timings"
    build(tmp_path, timing_cache=file)
    assert file.read_bytes() == b"timings+++"
    build(tmp_path, timing_cache=file)
    file.write_bytes(b"other")
    with pytest.raises(UsageError, match="is not a timing cache of this TensorRT and GPU"):
        build(tmp_path, timing_cache=file)
    assert file.read_bytes() == b"other"


@EVERY
def test_a_refused_node_is_named_by_the_model_where_the_parser_does_not(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """8.6's parser gives a number alone."""
    install(monkeypatch, version, Told(parser_error=("No importer registered for op: Conv", 0)))
    with pytest.raises(EngineError, match=r"node 'conv1' \(operator Conv\) is refused: .* --plugins"):
        build(tmp_path)


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("Requested amount of GPU memory: out of memory", "lower --workspace or --batch"),
        ("Odd thing", "TensorRT says Odd"),
    ],
)
def test_a_failing_build_says_why(said: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT's words, and what to do where that is known; they are in the log too."""
    install(monkeypatch, "10", Told(fails=said))
    with pytest.raises(EngineError, match=sentence):
        build(tmp_path)
    assert not (tmp_path / "a.plan").exists()
    assert said in (tmp_path / "a.plan.log").read_text()


def test_a_gpu_that_is_lost_once_a_plan_is_built_costs_no_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the sidecar says of the GPU is known before minutes of building."""
    told = install(monkeypatch, "10")

    def until_built(index: int) -> DeviceProperties:
        if told.config is not None:
            raise CudaError("cudaGetDeviceProperties", "cudaErrorDevicesUnavailable", "the GPU is lost")
        return DeviceProperties(index, "Another", (8, 6), 84, 24 << 30, "0")

    monkeypatch.setattr("loadtrt.engines.plan_builder.device_properties", until_built)
    assert build(tmp_path).sidecar.gpu == "Another, compute capability 8.6"
    assert told.config is not None


def test_where_nothing_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No module at all: what to install, and that lean and dispatch do not build."""
    import sys

    install(monkeypatch, "10")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(
        EngineError, match=r"no TensorRT here builds plans \(tensorrt is not installed; .*lean and dispatch"
    ):
        build(tmp_path)


@EVERY
def test_loading_the_builder_and_its_warnings_are_told(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Apart from building, and in all; hundreds of warnings are one line, and the log has them."""
    told = install(monkeypatch, version)
    told.warns = [f"weights {number} are beyond FP16" for number in range(300)] + ["odd"]
    model, plan = conv(tmp_path), tmp_path / "a.plan"
    done = loadtrt("build", str(model), "-o", plan, "--batch", "2")
    assert done.returncode == 0, done.stderr
    assert re.search(
        r" in [\d.]+ .?s\n  [\d.]+ .?s in all, of which loading the builder took [\d.]+ .?s\n", done.stdout
    )
    assert '  TensorRT logged 301 warnings: "weights 0 are beyond FP16" (300 times); "odd"\n' in done.stdout
    assert (tmp_path / "a.plan.log").read_text().count("are beyond FP16") == 300
    sidecar = read_sidecar(plan)
    assert sidecar is not None
    assert sidecar.load_ns > 0
    assert "and loading the builder" in loadtrt("inspect", plan).stdout


def _rtx(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake of 11 as TensorRT-RTX, on a GPU of compute capability 9.0."""
    install(monkeypatch, "11")
    module: Any = sys.modules["tensorrt"]
    module.ComputeCapability = RtxTargets
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", module)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr("loadtrt.engines.toolchain.has_gpu", lambda: True)


def test_rtx_on_a_gpu_that_it_does_not_support_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan is built, as other GPUs run it; where it is for others alone there is nothing to warn of."""
    _rtx(monkeypatch)
    words = "WARNING: TensorRT-RTX does not support compute capability 9.0 (supported: 7.5 8.0 8.6 8.9 12.0 12.1)"
    (note,) = build(tmp_path, flavour="rtx").notes
    assert note.startswith(words)
    assert "(Fake H100): use full TensorRT" in note


def test_a_run_builds_no_plan_that_this_gpu_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model on TensorRT where RTX alone is installed: it is said before it is built."""
    _rtx(monkeypatch)
    gpu = DeviceProperties(0, "Fake H100", (9, 0), 132, 80 << 30, "0")
    monkeypatch.setattr("loadtrt.engines.plan_cache.device_count", lambda: 1)
    monkeypatch.setattr("loadtrt.engines.plan_cache.device_properties", lambda _: gpu)
    monkeypatch.setenv("LOADTRT_CACHE", str(tmp_path / "cache"))
    with pytest.raises(EngineError, match=r"does not support compute capability 9.0.*--on onnxruntime runs"):
        open_engine(RunConfig.of(engine=str(conv(tmp_path)), on="tensorrt", batch=2).model)
    assert not (tmp_path / "cache").exists()
