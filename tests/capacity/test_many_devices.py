"""Sweeps and searches whose runs are made by workers: one for each device and process."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

import pytest

import fleets
from command_line import loadtrt as command
from loadtrt.errors import EngineError
from loadtrt.report.result_files import read_result
from loadtrt.results.capacity_result import CapacityResult, SweepResult
from loadtrt.sizing import rig

if TYPE_CHECKING:
    from pathlib import Path

ENGINE = "simulated:service=5ms,distribution=exponential,clock=virtual"
COMMON = ["--engine", ENGINE, "--warmup", "0", "--buffers", "1", "--quiet"]


@pytest.fixture
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of this process."""
    monkeypatch.setattr(rig, "run_fleet", fleets.run_fleet)


def _swept(file: Path, *arguments: str) -> SweepResult:
    done = command("sweep", *COMMON, "--contexts", "1", "--duration", "5s", "--json", file, *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return read_result(SweepResult, file)


@pytest.mark.usefixtures("_here")
def test_devices_are_an_axis(tmp_path: Path) -> None:
    """Each value is a set of devices; every point is made by workers, also that of one device."""
    result = _swept(tmp_path / "s.json", "--devices", "0", "--devices", "0,2-3", "--processes", "1,2")
    settings = [(point.settings["devices"], point.settings["processes"]) for point in result.points]
    assert settings == [("0", 1), ("0", 2), ("0,2-3", 1), ("0,2-3", 2)]
    runs = [point.run for point in result.points if point.run is not None]
    assert [[worker.environment["device"] for worker in run.workers] for run in runs] == [
        [0], [0, 0], [0, 2, 3], [0, 0, 2, 2, 3, 3]
    ]  # fmt: skip
    rates = [run.model.throughput.requests_per_s or 0.0 for run in runs]
    assert [rate / rates[0] for rate in rates] == pytest.approx([1, 2, 3, 6], rel=0.1)
    assert all(not worker.model.intervals for run in runs for worker in run.workers)
    text = command("report", tmp_path / "s.json").stdout
    assert "devices 0, 0,2-3 × processes 1, 2" in " ".join(text.split())


@pytest.mark.usefixtures("_here")
def test_a_sweep_of_workers_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With further values, on the same engine alone; a point that fails is one beside others then."""
    file = tmp_path / "s.json"
    first = _swept(file, "--processes", "1")
    again = _swept(file, "--processes", "1,2", "--resume")
    assert again.points[0] == first.points[0]
    assert len(again.points) == 2
    other = command("sweep", *COMMON, "--contexts", "1", "--processes", "1,2", "--json", file, "--resume")
    assert (other.returncode, "differs: duration was" in other.stderr) == (2, True)

    def fail(*_: Any, **__: Any) -> Any:
        raise EngineError("out of memory")

    monkeypatch.setattr(rig, "run_fleet", fail)
    assert _swept(file, "--processes", "1,2,4", "--resume").points[2].failure == "out of memory"


def test_workers_without_an_engine() -> None:
    """What no point could open is the error of the sweep, by its kind. With processes."""
    done = command("sweep", "none.plan", "--devices", "0", "--devices", "0-1", "--quiet", "--warmup", "0")
    assert (done.returncode, done.stderr.count("cannot read plan none.plan")) == (2, 1)


@pytest.mark.usefixtures("_here")
@pytest.mark.parametrize("routing", ["random", "round-robin"])
def test_the_capacity_of_a_fleet(routing: str, tmp_path: Path) -> None:
    """Of M/M/1 workers, and of E4/M/1: the law's rate is within the interval, and the prediction near it."""
    file = tmp_path / "c.json"
    options = ["--contexts", "1", "--objective", "latency.p99 < 60ms", "--quick", "--routing", routing]
    done = command("capacity", *COMMON, *options, "--processes", "4", "--json", file)
    assert done.returncode == 0, done.stderr
    (candidate,) = read_result(CapacityResult, file).candidates
    truth = 4 * (200 - math.log(100) / 0.06)  # ln 100 / (μ − λ) is p99 of M/M/1
    if routing == "round-robin":  # latency is exponential with the mean 1 / (μ(1 − σ)), σ = (4λ / (4λ + μ(1 − σ)))⁴
        rest = math.log(100) / 0.06
        root = (1 - rest / 200) ** 0.25
        truth = root / (1 - root) * rest
    assert candidate.low_per_s is not None
    assert candidate.high_per_s is not None
    assert candidate.low_per_s <= truth <= candidate.high_per_s
    assert candidate.predicted_per_s == pytest.approx(truth, rel=0.1)
    assert candidate.ladder[0].in_flight == 1
    text = " ".join(command("report", file).stdout.split())
    assert f"4 processes · {routing} routing; requests in flight are per worker" in text
    planned = command("plan-capacity", file, "--demand", "5000/s")
    assert (planned.returncode, "was measured by workers that share a load" in planned.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--devices", "0-"), "is not a list of devices"),
        (("--devices", "0", "--devices", "0,0"), "names a device twice"),
        (("--processes", "0"), "begin at 1"),
        (("--processes", "257"), "processes"),
        (("--workers", "1,2"), "--workers is for workers on a Ray cluster"),
        (("--devices", "0-63", "--processes", "1,5"), "ask for 320 workers, and one host starts 256 at most"),
        (("--contexts", "1", "--routing", "random"), "--routing says how workers share a load"),
        (("--processes", "1,2", "--routing", "random"), "--routing is for arrivals, and each worker has a closed loop"),
    ],
)
def test_what_no_axis_of_devices_is(arguments: tuple[Any, ...], sentence: str) -> None:
    done = command("sweep", *COMMON, *arguments)
    assert (done.returncode, sentence in done.stderr) == (2, True)


@pytest.mark.parametrize(
    "arguments", [("sweep", "--rate", "100/s", "--processes", "1,2"), ("capacity", "--processes", "2")]
)
def test_clocks_of_ones_own_cannot_be_routed_by(arguments: tuple[str, ...]) -> None:
    """That is said before anything is measured."""
    bound = ("--objective", "latency.p99 < 60ms") if arguments[0] == "capacity" else ()
    done = command(*arguments, *COMMON, *bound, "--routing", "two-choices")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("loadtrt: two-choices routing needs workers with one clock")


def test_workers_on_a_cluster_are_an_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Ray is not installed, no point is measured and the sentence says what to install."""
    monkeypatch.setitem(sys.modules, "ray", None)
    done = command("sweep", *COMMON, "--ray", "auto", "--workers", "2,1")
    assert (done.returncode, "--ray needs Ray" in done.stderr) == (2, True)
