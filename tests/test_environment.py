"""Whether others use the cores: by /proc/stat against the processor time of this process and of what it started."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from loadtrt import environment
from loadtrt.environment import CoreTimes, busy_host, core_times, load_average

if TYPE_CHECKING:
    from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process may use the cores 1 and 3 of four."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 3})


def machine(root: Path, *, busy: float, idle: float, stolen: float = 0.0, own: float = 0.0, load: str = "7.20") -> Path:
    """A /proc in which each of the cores 1 and 3 had these times, in s, the others were busy, and `own` of this process
    was the work of a child."""
    core = f"{busy * TICKS:.0f} 0 0 {idle * TICKS:.0f} 0 0 0 {stolen * TICKS:.0f} 0 0"
    lines = [f"cpu{number} {core if number in (1, 3) else '900000 0 0 0 0 0 0 0 0 0'}" for number in range(4)]
    files = {
        "stat": "\n".join(["cpu  1 2 3 4 5 6 7 8 9 10", *lines, "intr 5", "ctxt 7"]),
        "loadavg": f"{load} 1.00 1.00 3/94 4835",
        "self/stat": f"12 (load ) trt) R {'0 ' * 10}0 0 0 0 20 0",
        "self/task/12/children": "17 ",
        "17/stat": f"17 (observer) S {'0 ' * 10}{own * TICKS:.0f} 0 0 0 20 0",
    }
    for name, text in files.items():
        file = root / "proc" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


START = CoreTimes(at=0.0, cores=2, busy=0.0, idle=0.0, stolen=0.0, own=0.0)


def test_times_are_of_the_cores_of_this_process_and_of_what_it_started(tmp_path: Path) -> None:
    found = core_times(machine(tmp_path, busy=6, idle=3, stolen=1, own=4))
    assert found is not None
    assert replace(found, at=0.0) == CoreTimes(at=0.0, cores=2, busy=12.0, idle=6.0, stolen=2.0, own=4.0)


def test_workers_of_one_fleet_are_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that started this worker has started counts as its own."""
    monkeypatch.setattr(environment, "_family", [lambda: ("self",)])
    root = machine(tmp_path, busy=10, idle=0, own=4)
    folder = root / "proc" / "9"
    (folder / "task" / "9").mkdir(parents=True)
    (folder / "stat").write_text(f"9 (loadtrt) S {'0 ' * 10}0 0 0 0 20 0")
    (folder / "task" / "9" / "children").write_text("17 18")
    (root / "proc" / "18").mkdir()
    (root / "proc" / "18" / "stat").write_text(f"18 (python) R {'0 ' * 10}{14 * TICKS:.0f} 0 0 0 20 0")
    assert (alone := core_times(root)) is not None
    environment.count_as_own(lambda: (9,))
    assert (together := core_times(root)) is not None
    assert (alone.own, together.own) == (4, 18)


def test_workers_that_several_processes_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the actors of a Ray node: what all of them started is the fleet's own."""
    monkeypatch.setattr(environment, "_family", [lambda: ("self",)])
    root = machine(tmp_path, busy=10, idle=0, own=4)
    for process, seconds in ((8, 2), (9, 3)):
        (root / "proc" / str(process)).mkdir()
        (root / "proc" / str(process) / "stat").write_text(
            f"{process} (ray) R {'0 ' * 10}{seconds * TICKS:.0f} 0 0 0 0"
        )
    environment.count_as_own(lambda: (8, 9))
    assert (together := core_times(root)) is not None
    assert together.own == 5


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023", "535.104.05"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (root@a)", "580.95.05"),
        ("something else", ""),
        (None, ""),
    ],
)
def test_the_driver_is_known_without_nvml(tmp_path: Path, text: str | None, version: str) -> None:
    folder = tmp_path / "proc/driver/nvidia"
    folder.mkdir(parents=True)
    if text is not None:
        (folder / "version").write_text(f"{text}\nGCC version: gcc version 12.2.0\n")
    assert environment.gpu_driver(tmp_path) == version


@pytest.mark.parametrize(
    ("times", "evidence"),
    [
        ({"busy": 0, "idle": 10}, None),
        ({"busy": 10, "idle": 0, "own": 20}, None),  # its own threads: the load average is its own, too
        ({"busy": 5, "idle": 5, "own": 10}, None),  # a loop that spins
        ({"busy": 8, "idle": 2, "own": 10}, None),  # others have cores, and some are idle all the same
        ({"busy": 10, "idle": 0, "own": 16}, None),  # others take a fifth
        (
            {"busy": 10, "idle": 0, "own": 4},
            "the cores are used by others: other processes took 1.6 of 2 cores, and 0.0 were idle "
            "(load average 7.2 on 2 cores)",
        ),
        (
            {"busy": 9.5, "idle": 0.5, "own": 10, "load": "unknown"},
            "the cores are used by others: other processes took 0.9 of 2 cores, and 0.1 were idle",
        ),
        ({"busy": 2, "idle": 7.6, "stolen": 0.4}, None),
        (
            {"busy": 2, "idle": 7, "stolen": 1},
            "the cores are used by others: other virtual machines had them for 10 % of the time",
        ),
    ],
)
def test_others_use_the_cores_if_they_leave_none_idle(
    tmp_path: Path, times: dict[str, float], evidence: str | None
) -> None:
    assert busy_host(START, machine(tmp_path, **times)) == evidence  # type: ignore[arg-type]


def test_less_than_a_second_tells_nothing(tmp_path: Path) -> None:
    root = machine(tmp_path, busy=10, idle=0)
    now = core_times(root)
    assert now is not None
    assert busy_host(replace(START, at=now.at - 0.5), root) is None
    assert busy_host(replace(START, at=now.at - 1.5), root) is not None


@pytest.mark.parametrize(
    ("load", "evidence"),
    [("7.20", "the cores are used by others: load average 7.2 on 2 cores"), ("2.99", None), ("none", None)],
)
def test_the_load_average_decides_without_proc_stat(tmp_path: Path, load: str, evidence: str | None) -> None:
    root = machine(tmp_path, busy=0, idle=0, load=load)
    assert core_times(root) is None
    assert busy_host(START, root) == evidence
    assert load_average(tmp_path / "nowhere") is None
    assert busy_host(START, tmp_path / "nowhere") is None
