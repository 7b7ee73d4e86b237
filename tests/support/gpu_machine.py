"""A GPU of 132 SMs and a plan, both fakes, and engines of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fake_cuda import FakeCuda
from fake_driver import H200, FakeDriver
from fake_tensorrt import World
from loadtrt.asked.config import RunConfig
from loadtrt.engines.plan_engine import load_tensorrt
from loadtrt.units import NEVER
from tensorrt_bench import Bench

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


class _Clock:
    """A GPU's clock that owns nothing."""

    anchor, anchor_ns, host_ns_per_ms, due_ns = 1, 0, 1e6, NEVER
    error_ns = drift_ns = anchors = 0

    def take_anchor(self) -> None:
        pass

    def close(self) -> None:
        pass


class GpuMachine:
    """A plan, a GPU of 132 SMs, and engines on it.

    engine: the last that was opened.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path, **world: Any) -> None:
        self.bench = Bench("10", monkeypatch, path, World(**world))
        self.cuda = FakeCuda()
        self.driver = FakeDriver(self.cuda, monkeypatch)
        self.cuda.install(monkeypatch, "engines.plan_profile", "engines.placement", "cuda.stressors")
        for name in ("plan_engine", "placement", "stressor_engine"):
            monkeypatch.setattr(f"loadtrt.engines.{name}.device_properties", lambda _: H200)
        monkeypatch.setattr("loadtrt.engines.cuda_engine.GpuClock", _Clock)
        self.engine: Any = None

    def open(self, **options: Any) -> Any:
        given = {"engine": self.bench.path, "allow_host_code": True, "batch": 16, **options}
        self.engine = load_tensorrt(RunConfig.of(**given).model)
        return self.engine

    def allocate(self, **options: Any) -> Any:
        """The engine with its lanes; memory that the fake has no bytes for is not written."""
        engine = self.open(**options)
        engine._pin = lambda *_: {"data": 256}
        engine.allocate([{}])
        return engine

    def greens(self) -> list[set[int | None]]:
        """The green contexts of the streams of each enqueue so far; None for a plain stream."""
        return [{self.driver.owner.get(stream) for stream in streams} for streams in self.bench.world.computed_on]
