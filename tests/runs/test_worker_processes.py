"""Workers on one host: started together, merged as by files; what ends one of them leaves the others' results."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import loadtrt
from command_line import loadtrt as command
from loadtrt.asked.config import RunConfig
from loadtrt.asked.launched import parse_devices
from loadtrt.errors import EngineError, UsageError
from loadtrt.results.gpu_telemetry import GpuClient, GpuSharing
from loadtrt.results.run_result import Problem, RunResult
from loadtrt.runs import fleet
from loadtrt.runs.fleet import run_fleet
from loadtrt.runs.watched import Silence
from loadtrt.runs.worker import cores_of, pin
from loadtrt.signals import Signals
from loadtrt.stats.merging import merge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from loadtrt.lanes.model_run import OnTick

VIRTUAL: dict[str, Any] = {
    "engine": "simulated:service=1ms,distribution=exponential,clock=virtual",
    "warmup": "0s",
    "rate": 1200,
    "duration": "3s",
}
REAL: dict[str, Any] = {"engine": "simulated:service=5ms", "warmup": "1s", "rate": 60, "duration": "4s"}


class Ticks:
    """What workers say, in place of what draws it: calls `act` once, with the fleet's processes, when worker 1 has come
    to a phase; where that is "measure", when all three have begun it and have completed `least` requests."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, phase: str, act: Callable[[list[Any]], None], least: int = 0):
        self.processes: list[Any] = []
        self.counts: list[int] = []
        self._latest: dict[int, int] = {}
        self._phase, self._act, self._least, self._done = phase, act, least, False
        started = fleet._Fleet._start

        def start(this: Any, *args: Any) -> Any:
            worker = started(this, *args)
            self.processes.append(worker.process)
            if phase == "load" and len(self.processes) == 3:
                act(self.processes)
            return worker

        monkeypatch.setattr(fleet._Fleet, "_start", start)
        monkeypatch.setattr(fleet, "tickers", lambda _, models: [self._ticker(number) for number in range(models)])

    def _ticker(self, number: int) -> OnTick:
        def tick(phase: str, elapsed_ns: int, _submitted: int, completed: int) -> None:
            measures = phase == "measure"
            if phase == self._phase and completed >= self._least and (elapsed_ns or not measures):
                self._latest[number] = completed
            if not self._done and self._latest.keys() >= ({0, 1, 2} if measures else {1}):
                self._done = True
                self.counts.append(self._latest[1])
                self._act(self.processes)

        return tick


def measured(options: dict[str, Any], signals: Signals | None = None, **more: Any) -> RunResult:
    return run_fleet(RunConfig.of(**{"processes": 3, **options, **more}), Silence(), signals or Signals())


def test_processes_measure_what_files_do() -> None:
    """Of virtual time exactly the same; the order of workers, their part of the load, and the fleet's configuration."""
    result = loadtrt.run(**VIRTUAL, processes=3, routing="round-robin", seed=3)
    apart = [loadtrt.run(**VIRTUAL, worker=f"{number}/3", routing="round-robin", seed=3) for number in range(3)]
    by_files = merge({f"{number}.json": run for number, run in enumerate(apart)})
    assert result.model.histograms == by_files.model.histograms
    assert [run.config.worker for run in result.workers] == ["0/3", "1/3", "2/3"]
    assert (result.config.processes, result.config.worker) == (3, None)
    assert result.start_spread_ns is not None
    assert result.outcome == "completed"
    again = loadtrt.run(result.config)
    assert again.model.histograms == result.model.histograms


def test_workers_of_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sees its device alone, and its result says which that is."""
    seen: list[int | None] = []
    visible = fleet._visible

    def look(device: int | None, environment: Any) -> dict[str, str]:
        seen.append(device)
        return visible(device, environment)

    monkeypatch.setattr(fleet, "_visible", look)
    result = measured(VIRTUAL, devices="2,5", processes=2)
    assert seen == [2, 2, 5, 5]
    assert [run.environment["device"] for run in result.workers] == [2, 2, 5, 5]
    assert "2: simulated" in " ".join(str(result).split())


@pytest.mark.parametrize("phase", ["load", "warm-up", "measure"])
def test_a_worker_that_is_killed(phase: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In any phase: its last count, the others' results, no slower rate, and no verdict."""
    ticks = Ticks(monkeypatch, phase, lambda processes: processes[1].kill(), least=5 if phase == "measure" else 0)
    result = measured(REAL, objective="latency.p99 < 1s")
    assert result.outcome == "failed"
    (lost,) = result.lost
    assert (lost.worker, len(result.workers)) == (1, 2)
    assert "it was ended by SIGKILL" in lost.why
    assert (result.failure or "").startswith("only 2 of 3 workers")
    assert lost.completed == (ticks.counts[0] if phase == "measure" else 0)
    assert all(run.model.ok for run in result.workers)
    assert result.verdict == "undecided"


def test_all_workers_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no result, and a sentence."""

    def kill(processes: list[Any]) -> None:
        for process in processes:
            process.kill()

    Ticks(monkeypatch, "measure", kill)
    with pytest.raises(EngineError, match=r"worker 0: it was ended by SIGKILL .*and so did 2 other workers"):
        measured(REAL)


def test_an_interrupted_fleet_keeps_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """One signal ends all workers, with what is in flight."""
    signals = Signals()
    Ticks(monkeypatch, "measure", lambda _: signals.ask(), least=5)
    result = measured(REAL, signals, duration="300s")
    assert result.outcome == "interrupted"
    assert len(result.workers) == 3
    assert result.model.ok
    assert not result.model.unserved


def test_a_second_signal_ends_a_fleet_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in flight is given up."""
    signals = Signals()

    def twice(_: list[Any]) -> None:
        signals.ask()
        signals.ask()

    Ticks(monkeypatch, "measure", twice)
    began = time.monotonic()
    result = measured({**REAL, "engine": "simulated:service=3000s", "warmup": "0s"}, signals, duration="3000s")
    assert time.monotonic() - began < 600
    assert result.outcome == "interrupted"
    assert not result.model.ok


def test_an_interrupt_before_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to keep."""
    signals = Signals()
    Ticks(monkeypatch, "load", lambda _: signals.ask())
    with pytest.raises(KeyboardInterrupt):
        measured({**REAL, "engine": "simulated:service=3000s"}, signals)


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"engine": "none.plan"}, UsageError, "none.plan"),
        ({"engine": "simulated:bogus=1"}, UsageError, "unknown key 'bogus'"),
        ({"devices": "all", "processes": 1}, UsageError, "there is no NVIDIA GPU here"),
    ],
)
def test_workers_that_cannot_begin(
    options: dict[str, Any], error: type[Exception], sentence: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The sentence is the one of a single run."""
    monkeypatch.setattr(fleet, "_DEVICES", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(error, match=sentence):
        measured(REAL, **options)


@contextmanager
def running(folder: Path, said: str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command with two workers, once it has said something that fits `said`."""
    command = [sys.executable, "-m", "loadtrt", "run", "simulated:service=5ms", "--processes", "2"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with (folder / "stderr").open("w") as stderr:
        process = subprocess.Popen(
            [*command, "--rate", "50/s", "--duration", "3000s", *options],
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env=environment,
        )
    try:
        while not re.search(said, (folder / "stderr").read_text()):
            assert process.poll() is None
            time.sleep(0.1)
        yield process
    finally:
        process.kill()
        process.wait()


def test_ctrl_c_ends_the_command_and_its_workers(tmp_path: Path) -> None:
    """With a result of both, and no worker left."""
    result = tmp_path / "fleet.json"
    with running(tmp_path, r"measure .* [1-9]\d* requests", "--json", str(result)) as process:  # so all have begun
        workers = _workers(process.pid)
        process.send_signal(signal.SIGINT)
        assert process.wait(300) == 130
    written = loadtrt.read(result)
    assert isinstance(written, RunResult)
    assert (written.outcome, len(written.workers)) == ("interrupted", 2)
    assert not any("loadtrt.runs.worker" in _command(worker) for worker in workers)


def test_workers_end_with_what_started_them(tmp_path: Path) -> None:
    """Even where that is killed: none goes on measuring what nobody takes."""
    with running(tmp_path, "measure") as process:
        workers = _workers(process.pid)
        assert len(workers) == 2
    while any("loadtrt.runs.worker" in _command(worker) for worker in workers):
        time.sleep(0.1)


def _workers(process: int) -> list[int]:
    return [child for child in _children(process) if "loadtrt.runs.worker" in _command(child)]


def _children(process: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == process:
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def _command(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


@pytest.mark.parametrize(("text", "numbers"), [("0-3", (0, 1, 2, 3)), ("0,2-3", (0, 2, 3)), ("5", (5,)), ("all", ())])
def test_devices(text: str, numbers: tuple[int, ...]) -> None:
    assert parse_devices(text) == numbers


@pytest.mark.parametrize("text", ["", "3-1", "0,", "a", "0,0-1", "0-9999", "-1"])
def test_what_is_no_list_of_devices(text: str) -> None:
    with pytest.raises(UsageError, match=r"is not a list of devices|names a device twice"):
        parse_devices(text)


def test_devices_are_those_that_this_process_sees() -> None:
    """As with CUDA, numbers count what CUDA_VISIBLE_DEVICES leaves, which may be names."""
    assert fleet._visible(1, {}) == {"CUDA_VISIBLE_DEVICES": "1"}
    assert fleet._visible(1, {"CUDA_VISIBLE_DEVICES": "4, GPU-abc"}) == {"CUDA_VISIBLE_DEVICES": "GPU-abc"}
    assert fleet._visible(None, {}) == {}
    with pytest.raises(UsageError, match="leaves 1 GPU"):
        fleet._visible(1, {"CUDA_VISIBLE_DEVICES": "4"})


def test_a_worker_stays_near_its_gpu(tmp_path: Path) -> None:
    """On the cores of the GPU's NUMA node that it may use, where the system tells them."""
    before = os.sched_getaffinity(0)
    device = tmp_path / "sys/bus/pci/devices/0000:65:00.0"
    device.mkdir(parents=True)
    one = min(before)
    try:
        assert pin("0000:65:00.0", tmp_path) is None
        (device / "numa_node").write_text("1\n")
        (device / "local_cpulist").write_text(f"{one},4000-4003\n")
        assert cores_of(device) == {one, 4000, 4001, 4002, 4003}
        assert pin("0000:65:00.0".upper(), tmp_path) == 1
        assert os.sched_getaffinity(0) == {one}
        (device / "numa_node").write_text("-1\n")
        assert pin("0000:65:00.0", tmp_path) is None
    finally:
        os.sched_setaffinity(0, before)


def test_workers_on_one_gpu_are_no_strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that another one computed beside is VALID; with anybody else on the GPU it is not."""
    shared = Problem(kind="gpu-shared", evidence="others computed", remedy="end them")
    single = loadtrt.run(**VIRTUAL, worker="0/1").with_model(problems=(shared,), valid=False)
    for pids, valid in (((11,), True), ((11, 12), True), ((11, 99), False)):
        sharing = GpuSharing(clients=tuple(GpuClient(pid, "python", sm_ratio=0.5) for pid in pids))
        result = single.model_copy(update={"sharing": sharing, "valid": False})
        workers = [type("Worker", (), {"device": None, "pids": (number,)}) for number in (11, 12)]
        this = type("Fleet", (), {"_workers": workers})
        assert fleet._Fleet._placed(this, result).valid is valid  # type: ignore[arg-type]


def test_what_is_of_one_process(tmp_path: Path) -> None:
    """Devices of a file are not ignored, and what a fleet measured is no evidence on one GPU."""
    file = tmp_path / "run.yaml"
    file.write_text("engine: simulated:service=1ms,clock=virtual\nprocesses: 2\nwarmup: 0s\nduration: 1s\n")
    pair = tmp_path / "pair.yaml"
    pair.write_text("processes: 2\nwarmup: 0s\n")
    engine = "simulated:service=1ms,clock=virtual"
    other = command("interference", "--config", pair, engine, f"{engine},cv=1")
    assert (other.returncode, "--devices and --processes are of 'loadtrt run'" in other.stderr) == (2, True)
    result = tmp_path / "fleet.json"
    assert command("run", "--config", file, "--json", result).returncode == 0
    planned = command("plan-capacity", result, "--demand", "100/s", "--objective", "latency.p99 < 1s")
    assert (planned.returncode, "is of workers that share a load" in planned.stderr) == (2, True)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"worker": "0/2"}, "start workers of their own: leave --worker out"),
        ({"metrics": ":0"}, "--metrics is of one process"),
        ({"precision": "3%"}, "would end each worker by numbers of its own"),
    ],
)
def test_what_a_fleet_refuses(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        RunConfig.of(**REAL, processes=2, **options)
