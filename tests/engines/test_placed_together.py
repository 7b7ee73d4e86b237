"""Which engines may serve the models of one run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from loadtrt.asked.config import RunConfig
from loadtrt.engines.placed_together import place_together, require_together
from loadtrt.engines.plan import PlanHeader
from loadtrt.errors import EngineError, UsageError
from runs_by_hand import engine as info_of

if TYPE_CHECKING:
    from pathlib import Path

    from loadtrt.results.engine_info import EngineInfo


@dataclass
class Open:
    info: EngineInfo


def on(flavour: str, version: str) -> Any:
    return Open(info_of(flavour=flavour, version=version))


@pytest.fixture
def newer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """A plan of TensorRT 10.16, which 8.6 cannot run."""
    plan = tmp_path / "cls.plan"
    plan.write_bytes(b"ftrt" + bytes(60))
    header = PlanHeader(plan, "tensorrt", (10, 16, 1, 11), 64, 0)
    monkeypatch.setattr("loadtrt.engines.plan.read_header", lambda _: header)

    def choose(header: PlanHeader, wanted: str, *, lean: bool) -> None:
        if wanted != "tensorrt_dispatch":
            raise EngineError(f"--module {wanted} cannot run {header.path}")

    monkeypatch.setattr("loadtrt.engines.flavour.choose_flavour", choose)
    return RunConfig.of(engine=str(plan))


def test_plans_of_two_versions_are_refused_before_the_second_is_loaded(newer: RunConfig) -> None:
    """One sentence names both."""
    asked = RunConfig.of(engine="det.plan").model
    with pytest.raises(UsageError) as caught:
        require_together("cls", newer.model, {"det": (asked, on("tensorrt", "8.6.1"))})
    assert str(caught.value) == (
        "a process loads one TensorRT: det runs on tensorrt 8.6.1, which cannot run cls, as TensorRT 10.16.1.11 built "
        f"{newer.model.engine}: rebuild one of them with the other's version, or make a run of each"
    )
    require_together("cls", newer.model, {"det": (asked, on("tensorrt_dispatch", "10.16.1.11"))})


def test_two_gpus_are_refused(newer: RunConfig) -> None:
    asked, other = RunConfig.of(engine="det.plan").model, newer.with_model(device=1).model
    with pytest.raises(UsageError, match="the models of a run use one GPU, and det has device 0 and cls 1"):
        require_together("cls", other, {"det": (asked, on("tensorrt", "10"))})
    simulated = RunConfig.of(engine="simulated:null").with_model(device=1).model
    require_together("cls", simulated, {"det": (asked, on("tensorrt", "10"))})


def test_models_that_were_built_by_two_modules_are_refused() -> None:
    engines = {"a": on("tensorrt", "10.16"), "c": on("onnxruntime", "1"), "b": on("tensorrt_rtx", "1.7")}
    engines["c"].info = info_of("onnxruntime")
    with pytest.raises(UsageError, match=r"a runs on tensorrt 10\.16 and b on tensorrt_rtx 1\.7: give one of them the"):
        place_together(engines)
    engines["b"] = engines["a"]
    place_together(engines)
