"""Layers and passes for tests of comparisons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loadtrt.asked.config import RunConfig
from loadtrt.results.engine_info import EngineInfo
from loadtrt.results.layer import Layer, LayerTensor
from loadtrt.results.profile_result import ProfilePass, ProfileResult
from loadtrt.stats.profiles import LayerComparison, LayerRow, Samples, compare_profiles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.results.profile_result import Mode

NODES = [f"n{number}" for number in range(12)]


def profile(*layers: tuple[Layer, float]) -> ProfilePass:
    """One inference of layers with their times in ns."""
    samples = Samples()
    samples.add((layer.name, time_ns) for layer, time_ns in layers)
    return samples.to_pass("graph", [layer for layer, _ in layers])


def holding(*nodes: str, kind: str = "CaskConvolution", name: str | None = None) -> Layer:
    return Layer(" + ".join(nodes) if name is None else name, kind, nodes=nodes)


def shaped(name: str, kind: str, *shape: int) -> Layer:
    tensor = LayerTensor("t", "fp32", "", shape)
    return Layer(name, kind, inputs=(tensor,), outputs=(tensor,))


def reformat(target: str, way: str = "Input") -> Layer:
    return Layer(f"Reformatting CopyNode for {way} Tensor 0 to {target}", "Reformat")


def names(row: LayerRow) -> tuple[list[str], list[str]]:
    return [layer.name for layer in row.a.layers], [layer.name for layer in row.b.layers]


def compare(a: list[Layer], b: list[Layer]) -> LayerComparison:
    return compare_profiles(profile(*((layer, 1.0) for layer in a)), profile(*((layer, 1.0) for layer in b)))


def each(layers: Sequence[Layer], mode: Mode, time_ns: float) -> ProfilePass:
    """One inference, in which every layer takes as long."""
    samples = Samples()
    samples.add((layer.name, time_ns) for layer in layers)
    return samples.to_pass(mode, layers)


def result(*passes: ProfilePass, **more: Any) -> ProfileResult:
    """A profile of a.plan on an H100. more: other fields."""
    engine = EngineInfo("tensorrt", "a.plan", "tensorrt", "10.16", "NVIDIA H100", "", 16, (), mode={"graph": "yes"})
    found = {
        "loadtrt": "0",
        "started": "",
        "command": (),
        "config": RunConfig.of(engine="x"),
        "environment": {},
        "notes": (),
    }
    return ProfileResult.model_validate({**found, "engine": engine, "passes": passes, **more})


def profile_file(*passes: ProfilePass) -> str:
    """As `loadtrt profile --json` writes it."""
    return result(*passes).model_dump_json()
