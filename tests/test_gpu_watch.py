"""A GPU watched over many runs: by one observer, which nothing that goes wrong with it lets down the runs."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from loadtrt.asked.config import RunConfig
from loadtrt.capacity import gpu_watch
from loadtrt.capacity.gpu_watch import GpuWatch
from loadtrt.cli.voice import Voice
from loadtrt.cli.watching import Watchers
from loadtrt.errors import EngineError
from loadtrt.live.telemetry import GpuReading
from loadtrt.results.gpu_telemetry import GpuFacts, SamplingCost, telemetry_of
from loadtrt.units import SECOND_NS

READING = GpuReading(at_ns=0, sm_clock_hertz=1980_000_000, power_watts=500.0)


class FakeGpu:
    """A GPU at a steady clock."""

    name, uuid, driver = "Fake H100", "GPU-0", "580.1"
    closed = False

    def read(self) -> GpuReading:
        return replace(READING)

    def close(self) -> None:
        self.closed = True


class FakeObserver:
    """An observer that answers what it is told to."""

    made: ClassVar[list[FakeObserver]] = []
    ready_error: ClassVar[EngineError | None] = None

    def __init__(self, wishes: Any) -> None:
        self.wishes, self.alive, self.closed, self.asked = wishes, True, False, list[tuple[int, int, int]]()
        self.answer: dict[str, Any] = {"telemetry": None, "why": ""}
        FakeObserver.made.append(self)

    def ready(self) -> None:
        if FakeObserver.ready_error is not None:
            raise FakeObserver.ready_error

    def telemetry(self, start_ns: int, end_ns: int, inferences: int) -> dict[str, Any]:
        self.asked.append((start_ns, end_ns, inferences))
        return self.answer

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    """The GPU that is found, and observers that are fakes."""
    one = FakeGpu()
    monkeypatch.setattr(gpu_watch, "open_gpu", lambda _: (one, ""))
    monkeypatch.setattr(gpu_watch, "Observer", FakeObserver)
    monkeypatch.setattr(FakeObserver, "made", [])
    monkeypatch.setattr(FakeObserver, "ready_error", None)
    return one


def session() -> Any:
    """What a run on two lanes measured from 1 s to 3 s: seven requests of several sizes."""
    recorder = SimpleNamespace(start_ns=SECOND_NS, by_lane=np.array([3, 4]), inferences=30)
    return SimpleNamespace(recorder=recorder, driven=SimpleNamespace(end_ns=3 * SECOND_NS))


def test_one_observer_tells_of_every_run(gpu: FakeGpu) -> None:
    """Each run's telemetry is of its own span and inferences, its environment has the clocks around it, and both end
    with the watch."""
    said: list[str] = []
    watch = GpuWatch("0000:01:00.0", said.append, samples=True)
    (observer,) = FakeObserver.made
    assert observer.wishes.gpu == "0000:01:00.0"
    cost = SamplingCost(readings=1, lost=0, seconds=0.0, fraction=0.0)
    found = telemetry_of(GpuFacts(name="Fake H100"), [], 0, every_ns=SECOND_NS, missing=(), cost=cost)
    observer.answer["telemetry"] = found.model_dump(mode="json")
    for _ in range(2):
        watch.begin()
        assert watch.clocks.settled() is False  # one look tells nothing
        assert [watch.clocks.settled() for _ in range(5)][-1] is True
        assert watch.clocks.environment()["gpu"]["before"]["power_watts"] == 500.0
        assert watch.telemetry(session()) == found
    assert observer.asked == [(SECOND_NS, 3 * SECOND_NS, 30)] * 2
    watch.close()
    watch.close()
    assert (observer.closed, gpu.closed, said) == (True, True, [])


def test_a_single_runs_energy_is_shared_by_what_it_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """`loadtrt run` asks for the telemetry of its span and of the inferences counted, whatever sizes requests had."""
    watchers = Watchers(RunConfig.of(engine="simulated:null", live=False), Voice(quiet=True), "r")
    observer = FakeObserver(None)
    monkeypatch.setattr(watchers, "_observer", observer)
    monkeypatch.setattr(watchers, "_samples", True)
    assert watchers.end(session()) is None
    assert observer.asked == [(SECOND_NS, 3 * SECOND_NS, 30)]


@pytest.mark.parametrize("way", ["it does not start", "it dies", "it has nothing to tell", "half a message"])
def test_an_observer_that_fails_costs_its_telemetry_alone(way: str, gpu: FakeGpu) -> None:
    """There is no telemetry then, it is said once why, and runs go on."""
    said: list[str] = []
    if way == "it does not start":
        FakeObserver.ready_error = EngineError("the observer process did not start")
    watch = GpuWatch("0000:01:00.0", said.append, samples=True)
    observer = FakeObserver.made[0]
    observer.alive = way != "it dies"
    observer.answer = {"telemetry": {"gpu": {}} if way == "half a message" else None,
                       "why": "NVML is gone" if way == "it has nothing to tell" else ""}  # fmt: skip
    for _ in range(2):
        watch.begin()
        assert watch.telemetry(session()) is None
        assert watch.clocks.environment()["gpu"]["name"] == "Fake H100"
    assert len(said) == (0 if way == "half a message" else 1)
    watch.close()
    assert observer.closed


def test_without_nvml_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """No clocks, no telemetry, no observer; the reason is said."""
    monkeypatch.setattr(gpu_watch, "open_gpu", lambda _: (None, "there is no NVIDIA driver here"))
    said: list[str] = []
    watch = GpuWatch("0000:01:00.0", said.append, samples=True)
    watch.begin()
    assert (watch.clocks.settled(), watch.clocks.environment(), watch.telemetry(session())) == (None, {}, None)
    assert said == ["no GPU telemetry: there is no NVIDIA driver here"]
    watch.close()
