"""A plan's file, a fake TensorRT of some flavour and a fake CUDA, put in the place of the real ones."""

from __future__ import annotations

import struct
import sys
from typing import TYPE_CHECKING, Any

from fake_tensorrt import World, make
from loadtrt.asked.config import RunConfig
from loadtrt.cuda.runtime import DeviceProperties
from loadtrt.engines.tensorrt import Plan, load_plan

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

Shape = tuple[int, ...]
# name of the module, its version, what of the plan's header makes it that flavour's
FLAVOURS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "8.6": ("tensorrt", "8.6.1", {"version": (8, 6, 1, 6)}),
    "10": ("tensorrt", "10.16.1.11", {"version": (10, 16, 1, 11)}),
    "11": ("tensorrt", "11.4.0.106", {"version": (11, 4, 0, 106)}),
    "lean": ("tensorrt_lean", "10.16.1.11", {"version": (8, 6, 0, 12), "host_code": True}),
    "dispatch": ("tensorrt_dispatch_bindings", "10.16.1.11", {"version": (8, 6, 0, 12), "host_code": True}),
    "rtx": ("tensorrt_rtx", "1.7.1.116", {"version": (1, 7, 1, 116), "magic": b"vtrt"}),
}
ADDRESS = 256 * 1024


class Bench:
    """A world of one flavour and a plan's file in it."""

    def __init__(self, flavour: str, monkeypatch: pytest.MonkeyPatch, path: Path, world: World) -> None:
        name, version, of = FLAVOURS[flavour]
        self.world = install(monkeypatch, version, name, world)
        self.path = write_plan(path / "model.plan", **of)

    def load(self, **options: Any) -> Plan:
        given = {"engine": self.path, "allow_host_code": True, **options}
        return load_plan(RunConfig.of(**given).model)


def plan_bytes(
    version: Shape = (10, 16, 1, 11),
    magic: bytes = b"ftrt",
    *,
    host_code: bool = False,
    targets: int = 0x7E,
    serialization: int = 0,
    size_off_by: int = 0,
) -> bytes:
    """A plan's file as TensorRT lays it out, with nothing of an engine in it."""
    table = 64 if magic == b"vtrt" else 32
    sections = [(b"NAEL", 100)] if host_code else []
    sections.append((b"NGNE", 50))
    at = table + 24 * len(sections)
    entries = b""
    for tag, size in sections:
        entries += struct.pack("<4sIQQ", tag, 0, at, size)
        at += size
    head = struct.pack("<4sIIIQ4BI", magic, serialization, len(sections), 0, at + size_off_by, *version, 0)
    if table == 64:
        head = head[:28] + b"vtrt" + struct.pack("<I", targets) + bytes(28)
    return (head + entries).ljust(at, b"x")


class _Stream:
    """One of the streams that are open."""

    def __init__(self, streams: list[int]) -> None:
        self.handle = 7000 + len(streams)
        self._streams = streams
        streams.append(self.handle)

    def __int__(self) -> int:
        return self.handle

    def close(self) -> None:
        self._streams.remove(self.handle)


def install(monkeypatch: pytest.MonkeyPatch, version: str, name: str = "tensorrt", world: World | None = None) -> World:
    """A fake module `name` of `version`, a fake CUDA with `world.gpus` GPUs; all other flavours absent."""
    world = world or World()
    for flavour in ("tensorrt", "tensorrt_lean", "tensorrt_dispatch", "tensorrt_rtx"):
        for module in (flavour, f"{flavour}_bindings"):
            monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, name, make(version, name, world))
    monkeypatch.setattr("loadtrt.engines.tensorrt_log._journals", {})

    def device_count() -> int:
        world.preflighted = True
        return world.gpus

    def device_properties(index: int) -> DeviceProperties:
        return DeviceProperties(index, "Fake H100", (9, 0), 132, 80 << 30, "0")

    monkeypatch.setattr("loadtrt.cuda.runtime.device_count", device_count)
    monkeypatch.setattr("loadtrt.engines.deserialize.device_properties", device_properties)
    monkeypatch.setattr("loadtrt.engines.tensorrt.Stream", lambda: _Stream(world.streams))
    for module in ("cuda.runtime", "engines.context"):
        monkeypatch.setattr(f"loadtrt.{module}.call", lambda function, *_: world.calls.append(function))
    return world


def write_plan(path: Path, **of: Any) -> str:
    """A plan file; returns its name."""
    path.write_bytes(plan_bytes(**of))
    return str(path)


def bench_of(flavour: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **world: Any) -> Bench:
    """A bench whose world is unlike the default."""
    return Bench(flavour, monkeypatch, tmp_path, World(**world))
