"""The doctor's look at the host: each thing that spoils a measurement is seen on a machine laid out for it."""

from __future__ import annotations

import os
import resource
from typing import TYPE_CHECKING

import pytest

from doctor_files import GIB, of, write
from loadtrt.doctor import host

if TYPE_CHECKING:
    from pathlib import Path


def test_a_good_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quiet machine with cores, memory and a fast clock has nothing to warn of."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(host, "_clock_cost_ns", lambda: 40.0)
    found = host.host(write(tmp_path, good_host()))
    assert {check.name: check.status for check in found if check.status not in ("ok", "info")} == {}
    assert "EPYC 9000; 8 of 8 cores available" in of(found, "CPU").found
    assert of(found, "memory").found == "60.0 GiB available of 64.0 GiB"
    assert of(found, "CPU quota").found == "none"


@pytest.mark.parametrize(
    ("name", "files", "words"),
    [
        ("CPU quota", {"sys/fs/cgroup/cpu.max": "250000 100000"}, "2.5 of 8 cores"),
        (
            "CPU quota",
            {"sys/fs/cgroup/pod/job/cpu.max": "max 100000", "sys/fs/cgroup/pod/cpu.max": "400000 100000"},
            "4 of",
        ),
        (
            "CPU quota",
            {
                "proc/self/cgroup": "5:cpu,cpuacct:/job",
                "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "150000",
                "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000",
            },
            "1.5 of 8 cores",
        ),
        ("memory", {"proc/meminfo": "MemTotal: 8388608 kB\nMemAvailable: 524288 kB"}, "512 MiB available"),
        ("memory", {"sys/fs/cgroup/memory.max": str(GIB)}, "limited to 1.00 GiB"),
        ("frequency governor", {"sys/devices/system/cpu/cpu3/cpufreq/scaling_governor": "powersave"}, "powersave"),
        ("load average", {"proc/loadavg": "4.50 1.00 1.00 3/94 4835"}, "4.5 over the last minute"),
        ("clock", {"sys/devices/system/clocksource/clocksource0/current_clocksource": "hpet"}, "hpet"),
        ("timer slack", {"proc/self/timerslack_ns": "4000000"}, "4.00 ms late"),
    ],
)
def test_a_host_that_disturbs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, files: dict[str, str], words: str
) -> None:
    """Each thing on a host that spoils a measurement is a warning of its own, says what it saw, and has a remedy."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(host, "_clock_cost_ns", lambda: 40.0)
    found = host.host(write(tmp_path, good_host() | files))
    assert [check.name for check in found if check.status == "warn"] == [name]
    assert words in of(found, name).found
    assert of(found, name).remedy


def test_one_core_and_a_slow_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One core for loop and observer is too few; a clock that costs microseconds is slow whatever its name."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(host, "_clock_cost_ns", lambda: 1500.0)
    found = host.host(write(tmp_path, good_host()))
    assert [check.name for check in found if check.status == "warn"] == ["CPU", "clock"]
    assert "1 of 64 cores" in of(found, "CPU").found


def test_an_unknown_host(tmp_path: Path) -> None:
    """Where /proc and /sys tell nothing, nothing is guessed and nothing crashes."""
    found = host.host(tmp_path)
    assert (
        of(found, "memory").status
        == of(found, "load average").status
        == of(found, "frequency governor").status
        == "info"
    )
    assert of(found, "container").found == "no"


def test_a_container_is_recognized(tmp_path: Path) -> None:
    """By Docker's and Podman's marks, or by the cgroup of process 1."""
    for number, files in enumerate(
        ({".dockerenv": ""}, {"run/.containerenv": ""}, {"proc/1/cgroup": "0::/kubepods/x"})
    ):
        root = write(tmp_path / str(number), files)
        assert of(host.host(root), "container").found.startswith("yes")


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few open files and a missing /dev/shm are warnings with a remedy; the memory lock limit is a fact only."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    found = host.limits(tmp_path)
    assert [check.name for check in found if check.status == "warn"] == ["open files", "shared memory"]
    assert "ulimit -n" in of(found, "open files").remedy
    assert of(found, "locked memory").status == of(found, "/dev/nvidia*").status == "info"


def test_device_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All there: ok. Without nvidia-uvm CUDA will not start: a warning. Closed to this user: a failure."""
    root = write(tmp_path, {"dev/nvidia0": "", "dev/nvidia1": "", "dev/nvidiactl": "", "dev/nvidia-uvm": ""})
    check = of(host.limits(root), "/dev/nvidia*")
    assert (check.status, check.found) == ("ok", "2 GPUs, readable and writable")
    monkeypatch.setattr(os, "access", lambda file, _: not str(file).endswith(("nvidia1", "nvidia-uvm")))
    check = of(host.limits(root), "/dev/nvidia*")
    assert (check.status, check.found) == ("fail", "not readable and writable: nvidia1, nvidia-uvm")
    assert "usermod" in check.remedy
    monkeypatch.undo()
    (root / "dev/nvidia-uvm").unlink()
    check = of(host.limits(root), "/dev/nvidia*")
    assert check.status == "warn"
    assert "nvidia-modprobe" in check.remedy


def good_host() -> dict[str, str]:
    return {
        "proc/cpuinfo": "processor : 0\nmodel name : EPYC 9000\n",
        "proc/meminfo": f"MemTotal: {64 * 2**20} kB\nMemFree: 1 kB\nMemAvailable: {60 * 2**20} kB\n",
        "proc/loadavg": "0.09 0.08 0.03 3/94 4835",
        "proc/self/cgroup": "0::/pod/job",
        "proc/self/timerslack_ns": "50000",
        "sys/fs/cgroup/cpu.max": "max 100000",
        "sys/fs/cgroup/memory.max": "max",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance",
        "sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc",
    }
