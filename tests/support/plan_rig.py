"""A machine that builds and runs plans: a fake GPU, and a fake TensorRT with a builder and a runtime."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, cast

from test_build import SIZE, conv

import fake_builder
import tensorrt_bench
from fake_tensorrt import Tensor, World
from loadtrt.asked.config import RunConfig
from loadtrt.cuda.runtime import DeviceProperties
from loadtrt.engines.plan_cache import cached_plan
from loadtrt.errors import CudaError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest


class Rig:
    """y = conv(x) with a batch of 2, built and run. `during`: what happens while it builds, in the builder's thread.
    `model`: the file; `folder`: the cache, not made yet."""

    def __init__(self, version: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.builds = 0
        self.during: Callable[[], object] = lambda: None
        self.gpu = DeviceProperties(0, "Fake H100", (9, 0), 132, 80 << 30, "0")
        self.folder = tmp_path / "cache"
        self.model = conv(tmp_path)
        self.told = fake_builder.install(monkeypatch, version, fake_builder.Told(gpus=2))
        builder: Any = sys.modules["tensorrt"]
        tensors = [Tensor("x", (2, *SIZE)), Tensor("y", (2, 4, 8, 8), is_input=False)]
        self.world = World(tensors, gpus=2)
        tensorrt_bench.install(monkeypatch, fake_builder.VERSIONS[version], world=self.world)
        self.module = cast("Any", sys.modules["tensorrt"])
        for name in set(vars(builder)) - set(vars(self.module)):
            setattr(self.module, name, getattr(builder, name))
        rig = self

        class Builder(builder.Builder):  # type: ignore[misc]  # a class only known at run time
            def build_serialized_network(self, network: Any, config: Any) -> Any:
                rig.builds += 1
                rig.during()
                return super().build_serialized_network(network, config)

        self.module.Builder = Builder
        for name in ("open", "plan_cache"):
            monkeypatch.setattr(f"loadtrt.engines.{name}.device_count", self._device_count)
        for name in ("plan_cache", "plan_engine"):
            monkeypatch.setattr(f"loadtrt.engines.{name}.device_properties", lambda _: self.gpu)
        monkeypatch.setenv("LOADTRT_CACHE", str(self.folder))

    def _device_count(self) -> int:
        if not self.told.gpus:
            raise CudaError("cudaGetDeviceCount", "cudaErrorNoDevice", "no CUDA-capable device is detected")
        return self.told.gpus

    def plan(self, **options: Any) -> Path:
        """The plan for these options."""
        return cached_plan(self.config(**options).model).path

    def config(self, **options: Any) -> RunConfig:
        return RunConfig.of(**{"engine": self.model, "batch": 2, **options})

    def names(self) -> set[str]:
        """What is in the cache."""
        return {path.name for path in self.folder.iterdir()} if self.folder.is_dir() else set()
