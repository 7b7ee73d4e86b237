"""The owner of the observer and of the GPU's clocks, for one run and for many: none of its faults ends a run."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from loadtrt.asked.config import RunConfig
from loadtrt.engines.plan_profile import Profiled
from loadtrt.errors import EngineError, LoadtrtError, UsageError
from loadtrt.live import watching as module
from loadtrt.live.clients import Own
from loadtrt.live.nvml import GpuProcess, SmUse
from loadtrt.live.observer import Wishes
from loadtrt.live.watching import Watch
from loadtrt.records.board import PHASES, Board
from loadtrt.results.gpu_telemetry import GpuFacts, GpuReading, SamplingCost, telemetry_of
from loadtrt.results.run_result import RunResult
from loadtrt.runs import layers
from loadtrt.runs.maker import Maker
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from pathlib import Path

READING = GpuReading(at_ns=0, sm_clock_hertz=1980_000_000, power_watts=500.0, throttle_reasons=("gpu_idle",))


class FakeGpu:
    """A GPU at a steady clock."""

    name, uuid, driver = "Fake H100", "GPU-0", "580.1"
    closed = False

    def read(self) -> GpuReading:
        return replace(READING)

    others: tuple[tuple[int, float], ...] = ()  # ids, and the part of the time in which their kernels run

    def processes(self) -> tuple[GpuProcess, ...]:
        return tuple(GpuProcess(pid, 2**30) for pid, _ in ((os.getpid(), 0.0), *self.others))

    def sm_use(self, since_us: int) -> tuple[SmUse, ...]:
        now_us = time.time_ns() // 1000
        return tuple(SmUse(pid, now_us, share) for pid, share in self.others if share and since_us < now_us)

    def process_name(self, pid: int) -> str:
        return f"program {pid}"

    def utilization(self) -> float:
        return 0.0

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> FakeGpu:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class FakeObserver:
    """An observer with a given answer."""

    made: ClassVar[list[FakeObserver]] = []
    ready_error: ClassVar[LoadtrtError | None] = None

    def __init__(self, wishes: Any, models: int) -> None:
        self.wishes, self.alive, self.closed, self.asked = wishes, True, False, list[tuple[int, int, int]]()
        self.answer: dict[str, Any] = {"telemetry": None, "why": ""}
        self.gpu, self.boards, self.url, self.described = "", [Board() for _ in range(models)], "", False
        self.finished: list[bool] = []
        FakeObserver.made.append(self)

    def ready(self) -> None:
        if FakeObserver.ready_error is not None:
            raise FakeObserver.ready_error

    def send(self, gpu: str, own: dict[str, list[int]]) -> None:
        assert own["pids"]
        self.gpu = gpu

    def telemetry(self, start_ns: int, end_ns: int, inferences: int, each_ns: int) -> dict[str, Any]:
        assert each_ns == SECOND_NS
        self.asked.append((start_ns, end_ns, inferences))
        return self.answer

    def forget(self) -> None:
        self.described = False

    def describe(self, *facts: Any) -> None:
        self.described = bool(facts)

    def finish(self, *, push: bool) -> list[str]:
        self.finished.append(push)
        return []

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    """The GPU that is found, and observers that are fakes."""
    one = FakeGpu()
    monkeypatch.setattr(module, "open_gpu", lambda _: (one, ""))
    monkeypatch.setattr(module, "Observer", FakeObserver)
    monkeypatch.setattr(FakeObserver, "made", [])
    monkeypatch.setattr(FakeObserver, "ready_error", None)
    return one


def test_one_observer_tells_of_every_run(gpu: FakeGpu) -> None:
    """Each run's telemetry is of its own span and inferences, its environment has the clocks around it, and both end
    with the watch."""
    said: list[str] = []
    watch = Watch(Wishes(), said.append)
    watch.open("0000:01:00.0")
    (observer,) = FakeObserver.made
    assert (observer.gpu, watch.boards) == ("0000:01:00.0", [])
    cost = SamplingCost(readings=1, lost=0, seconds=0.0, fraction=0.0)
    found = telemetry_of(GpuFacts(name="Fake H100"), [], 0, every_ns=SECOND_NS, missing=(), cost=cost)
    observer.answer["telemetry"] = found.model_dump(mode="json")
    for _ in range(2):
        watch.begin()
        assert watch.clocks.settled() is False  # one reading is not enough
        assert [watch.clocks.settled() for _ in range(5)][-1] is True
        told = watch.clocks.environment()
        assert told["gpu"]["before"]["power_watts"] == 500.0
        assert json.loads(json.dumps(told)) == told
        assert watch.end(SECOND_NS, 3 * SECOND_NS, 30) == found
    assert observer.asked == [(SECOND_NS, 3 * SECOND_NS, 30)] * 2
    watch.close()
    watch.close()
    assert (observer.closed, gpu.closed, said) == (True, True, [])


def test_a_single_runs_energy_is_shared_by_what_it_served(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """`loadtrt run` asks for the telemetry of the span and the inferences that it measured, and shows its rows."""
    monkeypatch.setattr("loadtrt.runs.watched.bus_id_of", lambda *_: "0000:01:00.0")
    config = RunConfig.of(engine="simulated:service=1ms,item=1ms,clock=virtual", mix="1:0.5, 3:0.5", requests=50,
                          warmup=0, live=False, metrics=":0")  # fmt: skip
    with Maker() as maker:
        maker.open(config)
        result = maker.run(config)
        (observer,) = FakeObserver.made
        recorder, driven = maker.session.recorder, maker.session.driven
        assert recorder is not None
        assert driven is not None
        assert observer.asked == [(recorder.start_ns, driven.end_ns, result.model.inferences)]
        assert recorder.board is observer.boards[0]
        assert observer.described
        assert result.environment["gpu"]["name"] == "Fake H100"
    assert (observer.closed, gpu.closed) == (True, True)


@pytest.mark.parametrize(
    ("others", "accepted", "valid"),
    [((), False, True), (((77, 0.0),), False, True), (((77, 0.4),), False, False), (((77, 0.4),), True, True)],
)
@pytest.mark.parametrize("telemetry", [True, False])
def test_a_run_beside_another_that_computes_is_invalid(
    others: tuple[tuple[int, float], ...],
    accepted: bool,
    valid: bool,
    telemetry: bool,
    gpu: FakeGpu,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With who it was, in the result; also where nothing samples the GPU meanwhile, or the observer gives no answer."""
    monkeypatch.setattr("loadtrt.runs.watched.bus_id_of", lambda *_: "0000:01:00.0")
    monkeypatch.setattr(gpu, "others", others, raising=False)
    config = RunConfig.of(engine="simulated:service=1ms", requests=50, warmup=0, live=False, shared_gpu=accepted,
                          metrics=":0" if telemetry else None, telemetry=telemetry, max_lateness="1m")  # fmt: skip
    with Maker() as maker:
        maker.open(config)
        result = maker.run(config)
    problems = [problem.kind for problem in result.model.problems if problem.kind != "starved"]
    assert problems == ([] if valid else ["gpu-shared"])
    found = [finding.evidence for finding in result.model.findings if finding.kind == "gpu-shared"]
    assert len(found) == (valid and bool(others))
    assert result.sharing is not None
    assert [(it.pid, it.name) for it in result.sharing.clients] == [(pid, f"program {pid}") for pid, _ in others]
    assert RunResult.model_validate_json(result.model_dump_json()) == result
    if not valid:
        assert "program 77 (process 77, 1.00 GiB, kernels for 40 % of the time)" in result.model.problems[0].evidence


@pytest.mark.parametrize("fault", ["lost=3s", "hang=3s"])
def test_a_run_that_fails_keeps_its_telemetry(fault: str, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it failed: it may show why. gpu: its fakes."""
    monkeypatch.setattr("loadtrt.runs.watched.bus_id_of", lambda *_: "0000:01:00.0")
    config = RunConfig.of(engine=f"simulated:service=1ms,{fault},clock=virtual", duration="1m", warmup=0, metrics=":0")
    with Maker() as maker:
        maker.open(config)
        result = maker.run(config)
        (observer,) = FakeObserver.made
        assert result.outcome == "failed"
        ((start_ns, end_ns, inferences),) = observer.asked
        assert end_ns - start_ns >= 3 * SECOND_NS
        assert inferences == result.model.ok > 2_000


@pytest.mark.parametrize("many", [False, True])
def test_many_runs_have_one_observer(many: bool, gpu: FakeGpu) -> None:
    """It is told of each run's end: of those of a sweep at once, of a single one before metrics linger. The second run
    begins on an empty board."""
    config = RunConfig.of(engine="simulated:service=1ms,clock=virtual", requests=5, warmup=0, metrics=":0")
    with Maker(many=many) as maker:
        for number in (1, 2) if many else (1,):
            maker.open(config)
            assert maker.run(config).model.ok == 5
            (observer,) = FakeObserver.made
            assert observer.boards[0].state().rows == 5
            assert observer.finished == ([True] * number if many else [])
            assert observer.boards[0].state().phase == PHASES.index("done" if many else "drain")


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_a_profile_notes_who_else_computed(share: float, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing of one that holds memory alone, nor of the profile itself."""
    monkeypatch.setattr(layers, "bus_id_of", lambda *_: "0000:01:00.0")
    monkeypatch.setattr(layers, "open_gpu", lambda _: (gpu, ""))
    gpu.others = ((77, share),)
    profiled = Profiled()
    with layers._gpu_around("tensorrt", 0, Own((os.getpid(),)), {}, profiled):
        time.sleep(0.002)
    assert len(profiled.notes) == bool(share)
    assert all("program 77 (process 77, 1.00 GiB, kernels for 40 %" in note for note in profiled.notes)


def test_a_profile_notes_that_nobody_can_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is a GPU and no NVML; without a GPU there is nothing to say."""
    monkeypatch.setattr(layers, "open_gpu", lambda _: (None, "there is no NVIDIA driver here"))
    for bus_id, notes in (
        ("0000:01:00.0", ["who else uses the GPU is not known: there is no NVIDIA driver here"]),
        (None, []),
    ):
        monkeypatch.setattr(layers, "bus_id_of", lambda *_, bus_id=bus_id: bus_id)
        profiled = Profiled()
        with layers._gpu_around("tensorrt", 0, Own((os.getpid(),)), {}, profiled):
            pass
        assert profiled.notes == notes


def test_metrics_that_cannot_be_served_are_an_error(gpu: FakeGpu) -> None:  # its fakes
    """At once, before an engine is loaded; the process is ended."""
    FakeObserver.ready_error = UsageError("the port is in use")
    with pytest.raises(UsageError, match="in use"):
        Watch(Wishes(metrics=":1"), print)
    assert FakeObserver.made[0].closed


def test_an_observer_with_nothing_to_do_is_ended(gpu: FakeGpu) -> None:
    """It was started before the engine was known: no GPU, no metrics, no drawing. Clocks are read without one."""
    for watch in (Watch(Wishes(), print), Watch(Wishes(), print)):
        watch.open(None)
        assert watch.observer is None
    assert [observer.closed for observer in FakeObserver.made] == [True, True]
    clocks_alone = Watch(None, print)
    clocks_alone.open("0000:01:00.0", telemetry=False)
    clocks_alone.begin()
    assert clocks_alone.clocks.settled() is False
    clocks_alone.close()
    assert gpu.closed


@pytest.mark.parametrize("way", ["it does not start", "it dies", "it has no GPU", "half a message"])
def test_an_observer_that_fails_costs_its_telemetry_alone(way: str, gpu: FakeGpu) -> None:
    """There is no telemetry then, it is said once why, and runs go on."""
    said: list[str] = []
    if way == "it does not start":
        FakeObserver.ready_error = EngineError("the observer process did not start")
    watch = Watch(Wishes(), said.append)
    watch.open("0000:01:00.0")
    observer = FakeObserver.made[0]
    observer.alive = way != "it dies"
    observer.answer = {"telemetry": {"gpu": {}} if way == "half a message" else None,
                       "why": "NVML is gone" if way == "it has no GPU" else ""}  # fmt: skip
    for _ in range(2):
        watch.begin()
        assert watch.end(SECOND_NS, 3 * SECOND_NS, 30) is None
        assert watch.clocks.environment()["gpu"]["name"] == "Fake H100"
    assert len(said) == (0 if way == "half a message" else 1)
    watch.close()
    assert observer.closed


@pytest.mark.parametrize("telemetry", [True, False])
def test_without_nvml_nothing_is_known(telemetry: bool, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """No clocks, no telemetry, no observer, and no word on others on the GPU; the reason is said once."""
    assert gpu  # its fakes
    monkeypatch.setattr(module, "open_gpu", lambda _: (None, "there is no NVIDIA driver here"))
    said: list[str] = []
    watch = Watch(Wishes(), said.append)
    watch.open("0000:01:00.0", telemetry=telemetry)
    watch.begin()
    assert (watch.clocks.settled(), watch.clocks.environment(), watch.end(0, 1, 1)) == (None, {}, None)
    sentence = "who else uses the GPU is not known: there is no NVIDIA driver here"
    assert said == [f"no GPU telemetry, and {sentence}" if telemetry else sentence]
    watch.close()


_PYNVML = """
import time
from types import SimpleNamespace as Values

NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU, NVML_TEMPERATURE_THRESHOLD_SLOWDOWN = 1, 2, 0, 1
NVMLError = type("NVMLError", (Exception,), {})
nvmlDeviceGetComputeRunningProcesses = lambda gpu: [Values(pid=pid, usedGpuMemory=1 << 30) for pid in (RUN, 77)]
nvmlDeviceGetProcessUtilization = lambda gpu, since: [
    Values(pid=pid, timeStamp=time.time_ns() // 1000, smUtil=45) for pid in (RUN, 77)
]
nvmlSystemGetProcessName = lambda pid: f"/opt/program {pid}"
nvmlInit = nvmlShutdown = lambda: None
nvmlDeviceGetHandleByPciBusId = lambda bus_id: bus_id
nvmlDeviceGetName = lambda gpu: "Fake H100"
nvmlDeviceGetMaxClockInfo = lambda gpu, domain: 1980
nvmlDeviceGetClockInfo = lambda gpu, domain: 1410
nvmlDeviceGetPowerUsage = lambda gpu: 500_000
nvmlDeviceGetTotalEnergyConsumption = lambda gpu: int(time.monotonic() * 500_000)
nvmlDeviceGetMemoryInfo = lambda gpu: Values(used=1 << 30, total=80 << 30)
nvmlDeviceGetUtilizationRates = lambda gpu: Values(gpu=90, memory=40)
nvmlDeviceGetCurrentClocksEventReasons = lambda gpu: 0x4
"""


def test_a_real_observer_samples_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both processes open NVML by the bus id: clocks around the run here, power, slow-downs and who else computes
    during it there, where the id of this process is not the asking one's."""
    (tmp_path / "pynvml.py").write_text(f"{_PYNVML}\nRUN = {os.getpid()}\n")
    monkeypatch.syspath_prepend(tmp_path)  # the observer gets this process' path
    monkeypatch.setitem(sys.modules, "pynvml", None)  # what was there comes back after the test
    del sys.modules["pynvml"]
    said: list[str] = []
    watch = Watch(Wishes(), said.append)
    watch.open("0000:01:00.0")
    watch.begin()
    observer, start_ns = watch.observer, time.perf_counter_ns()
    assert observer is not None
    end = time.monotonic() + 60
    while True:
        telemetry = watch.end(start_ns, time.perf_counter_ns(), 100)
        if telemetry is not None and telemetry.throttled_fraction:
            break
        assert time.monotonic() < end, said
        time.sleep(0.05)
    assert (telemetry.gpu.name, telemetry.throttled_fraction, said) == ("Fake H100", 1.0, [])
    assert telemetry.intervals[0].power_mean_watts == 500
    assert watch.sharing is not None
    assert [(it.pid, it.name, it.memory_bytes) for it in watch.sharing.clients] == [(77, "program", 1 << 30)]
    assert (watch.sharing.clients[0].sm_ratio, watch.sharing.own_sm_ratio) == pytest.approx((0.45, 0.45))
    assert watch.clocks.environment()["gpu"]["after"]["sm_clock_hertz"] == 1_410_000_000
    watch.close()
    assert not observer.alive
