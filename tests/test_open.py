"""Which engine serves what --engine names, and that no option is read and ignored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx
import pytest

from loadtrt import zoo
from loadtrt.config import RunConfig
from loadtrt.engines.open import OPTIONS, open_engine
from loadtrt.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

OTHER_VALUES: dict[str, Any] = {
    "module": "tensorrt",
    "plugins": ("a.so",),
    "allow_host_code": True,
    "device": 1,
    "optimization_profile": 1,
    "graph": False,
    "copies": False,
    "wait": "block",
    "shape_values": {"x": (1,)},
    "shapes": {"x": (1, 16)},
    "fp16": True,
    "on": "tensorrt",
    "threads_per_context": 2,
}


def test_every_option_of_some_engines_has_a_case_here() -> None:
    """The table of options and these cases do not part."""
    assert set(OPTIONS) == set(OTHER_VALUES)


@pytest.mark.parametrize("option", [name for name, kinds in OPTIONS.items() if "simulated engines" not in kinds])
def test_an_option_that_the_simulated_engine_would_ignore_is_refused(option: str) -> None:
    """One sentence names the option and the engines that know it."""
    config = RunConfig.model_validate({"engine": "simulated:null", option: OTHER_VALUES[option]})
    with pytest.raises(UsageError, match=f"--{option.replace('_', '-')} is for .*leave it out"):
        open_engine(config)


@pytest.mark.parametrize("option", [name for name, kinds in OPTIONS.items() if "ONNX models" not in kinds])
def test_an_option_that_onnx_runtime_would_ignore_is_refused(option: str) -> None:
    """The same for models on the CPU."""
    config = RunConfig.model_validate({"engine": "zoo:googlenet", "on": "onnxruntime", option: OTHER_VALUES[option]})
    with pytest.raises(UsageError, match=f"--{option.replace('_', '-')} is for .*leave it out"):
        open_engine(config)


def test_a_default_that_is_spelt_out_is_no_foreign_option() -> None:
    """The configuration in a run.json names every option, and can be run again."""
    whole = RunConfig(engine="simulated:null").model_dump()
    open_engine(RunConfig.model_validate(whole)).close()


def test_a_model_is_told_by_its_bytes(tmp_path: Path) -> None:
    """An ONNX model under any name runs on ONNX Runtime where it is asked for."""
    file = tmp_path / "model.bin"
    onnx.save(zoo.make("googlenet", 1, 0), file)
    engine = open_engine(RunConfig(engine=str(file), on="onnxruntime"))
    assert engine.info.kind == "onnxruntime"
    engine.close()


def test_a_model_where_plans_are_wanted_names_the_build_command() -> None:
    """--on tensorrt with a model: how to make a plan of it, and what runs it as it is."""
    with pytest.raises(UsageError, match=r"loadtrt build zoo:googlenet -o googlenet\.plan --fp16.*--on onnxruntime"):
        open_engine(RunConfig(engine="zoo:googlenet", on="tensorrt", fp16=True))
