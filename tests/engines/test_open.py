"""Which engine serves what --engine names, and that no option is read and ignored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx
import pytest

from fake_builder import install
from loadtrt import zoo
from loadtrt.asked.config import RunConfig
from loadtrt.engines.open import OPTIONS, open_engine
from loadtrt.errors import CudaError, EngineError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

OTHER_VALUES: dict[str, Any] = {
    "module": "tensorrt",
    "plugins": ("a.so",),
    "allow_host_code": True,
    "lean_library": "libnvinfer_lean.so.8",
    "device": 1,
    "optimization_profile": 1,
    "graph": False,
    "submit": "apart",
    "copies": False,
    "device_times": "off",
    "requests_per_launch": 4,
    "partitions": 2,
    "sms": 8,
    "priority": "high",
    "wait": "block",
    "shape_values": {"x": (1,)},
    "shapes": {"x": (1, 16)},
    "fp16": True,
    "on": "tensorrt",
    "threads_per_context": 2,
    "profile": True,
    "export_layer_info": "layers.json",
    "trt_log": "trt.log",
}
# Of an option: others, for a configuration to be whole.
NEEDED: dict[str, dict[str, Any]] = {"export_layer_info": {"profile": True}, "partitions": {"contexts": 2}}


def test_every_option_of_some_engines_has_a_case_here() -> None:
    """The table of options and these cases do not part."""
    assert set(OPTIONS) == set(OTHER_VALUES)


def test_what_a_model_on_tensorrt_has_no_use_for() -> None:
    """The plan is built here, of just these shapes: it has one profile, and no host code and no shapes to be told."""
    useless = {name for name, kinds in OPTIONS.items() if "models on TensorRT" not in kinds}
    assert useless == {"allow_host_code", "lean_library", "optimization_profile", "shape_values", "threads_per_context"}


@pytest.mark.parametrize("option", [name for name, kinds in OPTIONS.items() if "simulated engines" not in kinds])
def test_an_option_that_the_simulated_engine_would_ignore_is_refused(option: str) -> None:
    """One sentence names the option and the engines that know it."""
    config = RunConfig.of(**{"engine": "simulated:null", option: OTHER_VALUES[option], **NEEDED.get(option, {})})
    flag = (
        "--profile" if "profile" in NEEDED.get(option, {}) else f"--{option.replace('_', '-')}"
    )  # the first that is met
    also = config.given("profile", "export_layer_info", "trt_log")
    with pytest.raises(UsageError, match=f"{flag} is for .*leave it out"):
        open_engine(config.model, also=also)


@pytest.mark.parametrize(
    ("on", "option"),
    [
        (on, name)
        for on, kind in {"onnxruntime": "models on ONNX Runtime", "tensorrt": "models on TensorRT"}.items()
        for name, kinds in OPTIONS.items()
        if kind not in kinds
    ],
)
def test_an_option_that_a_model_would_ignore_is_refused(on: str, option: str) -> None:
    """The same for models, by what runs them; before anything is looked for, such as a GPU."""
    config = RunConfig.of(
        **{"engine": "zoo:googlenet", "on": on, option: OTHER_VALUES[option], **NEEDED.get(option, {})}
    )
    flag, also = f"--{option.replace('_', '-')}", config.given("profile", "export_layer_info", "trt_log")
    with pytest.raises(UsageError, match=f"{flag} is for .*, not for models on .* such as zoo:googlenet: leave it out"):
        open_engine(config.model, also=also)


def test_a_default_that_is_spelt_out_is_no_foreign_option() -> None:
    """The configuration in a run.json names every option, and can be run again."""
    whole = RunConfig.of(engine="simulated:null").options()
    open_engine(RunConfig.of(**whole).model).close()


def test_a_model_is_told_by_its_bytes(tmp_path: Path) -> None:
    """An ONNX model under any name runs on ONNX Runtime where it is asked for."""
    file = tmp_path / "model.bin"
    onnx.save(zoo.make("googlenet", 1, 0), file)
    engine = open_engine(RunConfig.of(engine=str(file), on="onnxruntime").model)
    assert engine.info.kind == "onnxruntime"
    engine.close()


@pytest.mark.parametrize(
    ("error", "device", "kind"),
    [
        (CudaError("cudaGetDeviceCount", "cudaErrorNoDevice", "hidden"), "nvidia0", "onnxruntime"),
        (CudaError("cudaGetDeviceCount", "cudaErrorInsufficientDriver", "old driver"), "nvidia0", "old driver"),
        (EngineError("the CUDA bindings are not installed"), "nvidia0", "bindings are not installed"),
        (CudaError("cudaGetDeviceCount", "cudaErrorInsufficientDriver", "no driver"), "nvidiactl", "onnxruntime"),
        (EngineError("the CUDA bindings are not installed"), "null", "onnxruntime"),
    ],
)
def test_a_gpu_that_cannot_be_used_is_not_passed_over(
    error: EngineError, device: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--on auto takes the CPU where there is no GPU or it is hidden on purpose; where the driver has made its device
    file, what is wrong with CUDA is told, and how to take the CPU."""
    (tmp_path / device).touch()
    monkeypatch.setattr("loadtrt.engines.open._DEVICES", tmp_path)
    install(monkeypatch, "10")

    def device_count() -> int:
        raise error

    for module in ("open", "plan_cache"):
        monkeypatch.setattr(f"loadtrt.engines.{module}.device_count", device_count)
    config = RunConfig.of(engine="zoo:googlenet")
    if kind != "onnxruntime":
        with pytest.raises(EngineError, match=f"{kind}.*--on onnxruntime runs the model on the CPU"):
            open_engine(config.model)
        return
    engine = open_engine(config.model)
    assert engine.info.kind == kind
    engine.close()
