"""What an actor passes on of the worker that it has started (test_fleet_ways.py has the actors of a cluster)."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from exported import FACTS, READING
from loadtrt.runs import ray_host
from loadtrt.runs.ray_host import RayHost


class Gpu:
    """A GPU that is read."""

    closed = False

    def read(self) -> Any:
        return replace(READING, sharing=None)

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(("telemetry", "bus"), [(True, "0000:65:00.0"), (True, ""), (False, "0000:65:00.0")])
def test_a_gpu_is_read_each_second(telemetry: bool, bus: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From when the worker has told which one it uses, if telemetry is asked for; what it says itself comes first."""
    gpu, opened, now = Gpu(), list[str](), [100.0]

    def open_gpu(bus_id: str) -> tuple[Any, str]:
        opened.append(bus_id)
        return gpu, ""

    monkeypatch.setattr(ray_host, "open_gpu", open_gpu)
    monkeypatch.setattr("loadtrt.runs.ray_host.time.monotonic", lambda: now[0])
    host = RayHost()
    host._telemetry = telemetry
    told = json.dumps({"facts": {"facts": [replace(FACTS, bus=bus).to_json()], "pids": [1]}})
    host._lines.put(told)
    lines, pieces, ended = host.hear(0)
    assert (lines[0], pieces, ended) == (told, [], None)
    if not (telemetry and bus):
        assert (lines[1:], opened) == ([], [])
        return
    (reading,) = lines[1:]
    assert json.loads(reading)["gpu"]["power_watts"] == READING.power_watts
    assert opened == [bus]
    assert host.hear(0)[0] == []
    now[0] += 1
    assert host.hear(0)[0] == [reading]
    host.close()
    assert gpu.closed
