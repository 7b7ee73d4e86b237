"""Workers on one host: what is of processes and devices alone (test_fleet_ways.py has what is of all fleets)."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING, Any

import pytest

import loadtrt
from command_line import loadtrt as command
from loadtrt.asked.config import RunConfig
from loadtrt.asked.launched import parse_devices
from loadtrt.errors import UsageError
from loadtrt.results.gpu_telemetry import GpuClient, GpuSharing
from loadtrt.results.run_result import Problem, RunResult
from loadtrt.runs import fleet, processes
from loadtrt.runs.fleet import run_fleet
from loadtrt.runs.started_worker import StartedWorker
from loadtrt.runs.watched import Silence
from loadtrt.runs.worker import cores_of, pin
from loadtrt.signals import Signals

if TYPE_CHECKING:
    from collections.abc import Iterator


VIRTUAL: dict[str, Any] = {
    "engine": "simulated:service=1ms,distribution=exponential,clock=virtual",
    "warmup": "0s",
    "rate": 1200,
    "duration": "3s",
}
REAL: dict[str, Any] = {"engine": "simulated:service=5ms", "warmup": "1s", "rate": 60, "duration": "4s"}


def measured(options: dict[str, Any], **more: Any) -> RunResult:
    return run_fleet(RunConfig.of(**options, **more), Silence(), Signals())


def test_workers_of_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sees its device alone, and its result says which that is."""
    seen: list[int] = []
    visible = processes._visible

    def look(device: int, environment: Any) -> dict[str, str]:
        seen.append(device)
        return visible(device, environment)

    monkeypatch.setattr(processes, "_visible", look)
    result = measured(VIRTUAL, devices="2,5", processes=2)
    assert seen == [2, 2, 5, 5]
    assert [run.environment["device"] for run in result.workers] == [2, 2, 5, 5]
    assert "2: simulated" in " ".join(str(result).split())


def test_all_devices_where_there_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(processes, "_DEVICES", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(UsageError, match="there is no NVIDIA GPU here"):
        measured(REAL, devices="all")


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
    """Even where that is killed: none goes on measuring what nobody takes, nor says anything of it."""
    with running(tmp_path, "measure") as process:
        workers = _workers(process.pid)
        assert len(workers) == 2
    while any("loadtrt.runs.worker" in _command(worker) for worker in workers):
        time.sleep(0.1)
    assert "Error" not in (tmp_path / "stderr").read_text()


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


@pytest.mark.parametrize("routing", ["least-outstanding", "two-choices"])
def test_workers_route_the_whole_schedule(routing: str) -> None:
    """Whatever their timing: each request is served by one of them, its worker is chosen once, and all have some."""
    result = measured({**REAL, "rate": 300, "warmup": "0s"}, processes=3, routing=routing)
    whole, _ = result.config.due(result.config.model)
    assert whole is not None
    model, parts = result.model, [run.model for run in result.workers]
    assert (model.submitted, model.ok, model.unserved) == (len(whole), len(whole), 0)
    assert model.routing is not None
    assert model.routing.chosen == len(whole) == sum(part.routing.chosen for part in parts if part.routing)
    assert all(part.ok for part in parts)
    text = " ".join(str(result).split())
    assert re.search(rf"{routing} routing · .*routing a request took [\d.]+ .s, p99 [\d.]+ .s", text)
    assert RunResult.model_validate_json(result.to_json()) == result


@pytest.fixture
def links(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Those of the workers that are started."""
    started, found = fleet._Fleet._start, list[Any]()

    def start(this: Any, *args: Any) -> Any:
        worker = started(this, *args)
        found.append(worker.link)
        return worker

    monkeypatch.setattr(fleet._Fleet, "_start", start)
    return found


def test_a_worker_that_stands_still_keeps_nobody_waiting(links: list[Any]) -> None:
    """The others route and serve meanwhile, and it serves what it was given once it goes on: no request is lost."""
    stopped: list[float] = []

    def tick(phase: str, elapsed_ns: int, *_: int) -> None:
        process = links[1]._process
        if phase == "measure" and elapsed_ns and not stopped:
            stopped.append(time.monotonic())
            process.send_signal(signal.SIGSTOP)
            Timer(1.5, process.send_signal, [signal.SIGCONT]).start()

    config = RunConfig.of(**REAL, processes=3, routing="least-outstanding")
    result = run_fleet(config, Silence(), Signals(), tick)
    whole, _ = config.due(config.model)
    assert whole is not None
    assert (result.model.submitted, result.model.ok) == (len(whole), len(whole))
    slowest = [run.model.metrics["latency"].max_ns or 0 for run in result.workers]
    assert slowest[1] > 10**9
    served = [run.model.ok for run in result.workers]
    assert served[1] < min(served[0], served[2])


def test_a_worker_that_is_killed_is_given_nothing_more(links: list[Any]) -> None:
    """The others serve what comes, and the sum is of those that are left; what it was given before is lost."""

    def tick(phase: str, elapsed_ns: int, *_: int) -> None:
        if phase == "measure" and elapsed_ns:
            links[1].kill()

    config = RunConfig.of(**REAL, processes=3, routing="least-outstanding")
    result = run_fleet(config, Silence(), Signals(), tick)
    whole, _ = config.due(config.model)
    assert whole is not None
    assert (result.fleet, [item.worker for item in result.lost]) == ("2 of 3 workers", [1])
    assert len(whole) / 3 < result.model.ok < len(whole)
    assert result.model.submitted == result.model.ok
    late = max(max(interval.start_ns for interval in run.model.intervals) for run in result.workers)
    assert late >= 2 * 10**9  # they went on to the end


def test_a_clock_of_ones_own_cannot_be_routed_by() -> None:
    """In one sentence, of a simulated engine's virtual time."""
    with pytest.raises(UsageError, match="least-outstanding routing needs workers with one clock, and the virtual one"):
        measured(VIRTUAL, processes=2, routing="least-outstanding")


@pytest.mark.parametrize(("text", "numbers"), [("0-3", (0, 1, 2, 3)), ("0,2-3", (0, 2, 3)), ("5", (5,)), ("all", ())])
def test_devices(text: str, numbers: tuple[int, ...]) -> None:
    assert parse_devices(text) == numbers


@pytest.mark.parametrize("text", ["", "3-1", "0,", "a", "0,0-1", "0-9999", "-1"])
def test_what_is_no_list_of_devices(text: str) -> None:
    with pytest.raises(UsageError, match=r"is not a list of devices|names a device twice"):
        parse_devices(text)


def test_devices_are_those_that_this_process_sees() -> None:
    """As with CUDA, numbers count what CUDA_VISIBLE_DEVICES leaves, which may be names."""
    assert processes._visible(1, {}) == {"CUDA_VISIBLE_DEVICES": "1"}
    assert processes._visible(1, {"CUDA_VISIBLE_DEVICES": "4, GPU-abc"}) == {"CUDA_VISIBLE_DEVICES": "GPU-abc"}
    with pytest.raises(UsageError, match="leaves 1 GPU"):
        processes._visible(1, {"CUDA_VISIBLE_DEVICES": "4"})


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
        link: Any = type("Link", (), {"host": "", "where": {}})
        workers = [StartedWorker(place, link, None, pids=(pid,)) for place, pid in enumerate((11, 12))]
        this = type("Fleet", (), {"_workers": workers, "_config": single.config})
        assert fleet._Fleet._placed(this, result).valid is valid  # type: ignore[arg-type]


def test_what_is_of_one_process(tmp_path: Path) -> None:
    """Devices of a file are not ignored, and what a fleet measured is no evidence on one GPU."""
    file = tmp_path / "run.yaml"
    file.write_text("engine: simulated:service=1ms,clock=virtual\nprocesses: 2\nwarmup: 0s\nduration: 1s\n")
    pair = tmp_path / "pair.yaml"
    pair.write_text("processes: 2\nwarmup: 0s\n")
    engine = "simulated:service=1ms,clock=virtual"
    other = command("interference", "--config", pair, engine, f"{engine},cv=1")
    assert (other.returncode, "--devices and --processes are options of 'loadtrt run'" in other.stderr) == (2, True)
    result = tmp_path / "fleet.json"
    assert command("run", "--config", file, "--json", result).returncode == 0
    planned = command("plan-capacity", result, "--demand", "100/s", "--objective", "latency.p99 < 1s")
    assert (planned.returncode, "was measured by workers that share a load" in planned.stderr) == (2, True)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"worker": "0/2"}, "start workers of their own: leave --worker out"),
        ({"nvtx": True}, "--nvtx is for one process"),
        ({"precision": "3%"}, "would end each worker by its own numbers"),
    ],
)
def test_what_a_fleet_refuses(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        RunConfig.of(**REAL, processes=2, **options)
