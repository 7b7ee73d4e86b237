"""The doctor: on a machine laid out for it each check warns or fails, with its remedy; and none crashes here."""

from __future__ import annotations

import importlib.metadata
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from loadtrt import doctor
from loadtrt.cli.doctor import command
from loadtrt.cuda import runtime
from loadtrt.doctor import gpu, host, software
from loadtrt.doctor.check import Check, Group, conclude, fail, info, ok, warn
from loadtrt.engines.flavour import FLAVOURS, Capabilities, Flavour, Found
from loadtrt.errors import CudaError, EngineError
from loadtrt.live.telemetry import Driver, GpuProcess, GpuReading, GpuSettings

GIB = 2**30
BUS_ID = "00000000:0f:00.0"


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def of(checks: list[Check], name: str) -> Check:
    return next(check for check in checks if check.name == name)


# --- the report


def test_a_remedy_goes_with_a_fault_and_only_with_it() -> None:
    """warn and fail without a remedy, ok and info with one, cannot be made."""
    for status, remedy in (("warn", ""), ("fail", ""), ("ok", "do"), ("info", "do")):
        with pytest.raises(ValueError, match="remedy"):
            Check("name", status, "found", remedy)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("opens", "module", "tensorrt", "words"),
    [
        (True, True, True, "can run TensorRT plans on the GPU, ONNX models on the CPU (ONNX Runtime) and simulated"),
        (False, True, False, "would need an NVIDIA GPU that works, with its driver and the CUDA bindings."),
        (True, False, False, "would need a TensorRT module, such as pip install 'loadtrt[tensorrt]'."),
        (False, False, False, "CUDA bindings, and a TensorRT module"),
    ],
)
def test_verdict(opens: bool, module: bool, tensorrt: bool, words: str) -> None:
    """TensorRT runs where a GPU opens and a module loads; the verdict names what is missing, and fails for neither."""
    groups = [
        Group("Python", [ok("ONNX Runtime", "1.31")]),
        Group("GPU 0", [ok("opens", "")] if opens else []),
        Group("TensorRT", [ok("tensorrt", "10")] if module else [info("tensorrt", "none")]),
    ]
    report = conclude(groups)
    assert report.runs == {"simulated": True, "onnxruntime": True, "tensorrt": tensorrt}
    assert words in report.verdict
    assert not report.failed


def test_a_broken_gpu_beside_a_good_one() -> None:
    """One GPU that opens is enough to run; one that does not is still a failure."""
    groups = [Group("GPU 0", [fail("opens", "lost", "reboot")]), Group("GPU 1", [ok("opens", "")])]
    report = conclude([*groups, Group("TensorRT", [ok("tensorrt", "10")])])
    assert (report.runs["tensorrt"], report.failed) == (True, True)


def test_a_crashing_check_is_a_failed_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a check did not expect is reported as a failure of that group; the other groups stand."""

    def crash(root: Path) -> list[Check]:
        raise RuntimeError("no such planet")

    monkeypatch.setattr(host, "host", crash)
    report = doctor.examine()
    [check] = next(group.checks for group in report.groups if group.title == "Host")
    assert (check.status, check.found) == ("fail", "could not be examined: RuntimeError: no such planet")
    assert len(report.groups) >= 5
    assert report.failed


# --- host


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


# --- driver and CUDA


def cuda(monkeypatch: pytest.MonkeyPatch, count: int | EngineError, speaks: str = "13.0") -> None:
    def device_count() -> int:
        if isinstance(count, EngineError):
            raise count
        return count

    monkeypatch.setattr(runtime, "device_count", device_count)
    monkeypatch.setattr(runtime, "versions", lambda: (speaks, "13.5"))
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_MODULE_LOADING", "CUDA_LAUNCH_BLOCKING", "CUDA_DEVICE_MAX_CONNECTIONS"):
        monkeypatch.delenv(name, raising=False)


def nvml(monkeypatch: pytest.MonkeyPatch, version: str | None, gpus: int = 0, why: str = "no driver") -> None:
    found = (None, why) if version is None else (Driver(version, "13.0", gpus), "")
    monkeypatch.setattr(gpu, "find_driver", lambda: found)


NO_DEVICE = CudaError("cudaGetDeviceCount", "cudaErrorNoDevice", "no device")
OLD_DRIVER = CudaError("cudaGetDeviceCount", "cudaErrorInsufficientDriver", "too old")


def test_no_gpu_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without driver, device file and GPU on the bus there is nothing to warn of."""
    nvml(monkeypatch, None)
    cuda(monkeypatch, OLD_DRIVER, speaks="none")
    assert {check.status for check in gpu.driver(tmp_path)} <= {"info", "ok"}


def test_a_good_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that speaks the bindings' CUDA and shows a GPU is ok, and says the versions."""
    nvml(monkeypatch, "580.159.03", gpus=1)
    cuda(monkeypatch, 1)
    found = gpu.driver(tmp_path)
    assert {check.status for check in found} == {"ok"}
    assert of(found, "NVIDIA driver").found == "580.159.03, speaks CUDA 13.0, 1 GPU"
    assert "wants driver R580 or newer; driver 580.159.03 speaks CUDA 13.0" in of(found, "CUDA bindings").found
    assert of(found, "GPUs for CUDA").found == "1"


def test_a_gpu_without_a_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU on the PCI bus that no driver serves is a warning (in a container it is the host's), not a failure."""
    nvml(monkeypatch, None)
    cuda(monkeypatch, OLD_DRIVER, speaks="none")
    root = write(
        tmp_path,
        {
            "sys/bus/pci/devices/0000:0f:00.0/vendor": "0x10de",
            "sys/bus/pci/devices/0000:0f:00.0/class": "0x030200",
            "sys/bus/pci/devices/0000:0f:00.1/vendor": "0x10de",
            "sys/bus/pci/devices/0000:0f:00.1/class": "0x040300",  # its sound device
            "sys/bus/pci/devices/0000:01:00.0/vendor": "0x8086",
            "sys/bus/pci/devices/0000:01:00.0/class": "0x030000",
        },
    )
    check = of(gpu.driver(root), "NVIDIA driver")
    assert (check.status, check.found) == (
        "warn",
        "there is on the PCI bus 1 NVIDIA GPU(s), but no driver here serves them",
    )
    assert "install the NVIDIA driver" in check.remedy
    write(root, {".dockerenv": ""})
    assert "the host of this container" in of(gpu.driver(root), "NVIDIA driver").found


def test_a_broken_driver_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device file is a driver's claim of a GPU: NVML that fails or shows none, and CUDA that fails, are failures."""
    root = write(tmp_path, {"dev/nvidia0": ""})
    cuda(monkeypatch, CudaError("cudaGetDeviceCount", "cudaErrorUnknown", "unknown error"))
    nvml(monkeypatch, None, why="library and kernel module differ")
    found = gpu.driver(root)
    assert of(found, "NVIDIA driver").status == "fail"
    assert "library and kernel module differ" in of(found, "NVIDIA driver").found
    assert of(found, "GPUs for CUDA").status == "fail"
    assert "cudaErrorUnknown" in of(found, "GPUs for CUDA").found
    nvml(monkeypatch, "580.159.03", gpus=0)
    assert of(gpu.driver(root), "NVIDIA driver").status == "fail"
    assert "dmesg" in of(gpu.driver(root), "NVIDIA driver").remedy


def test_a_driver_too_old_for_the_bindings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bindings of CUDA 13 on a driver that speaks 12.8 fail, and the remedy names both ways out."""
    nvml(monkeypatch, "570.86.15", gpus=1)
    cuda(monkeypatch, OLD_DRIVER, speaks="12.8")
    check = of(gpu.driver(tmp_path), "CUDA bindings")
    assert check.status == "fail"
    assert "R580" in check.remedy
    assert "loadtrt[cu12]" in check.remedy


def test_missing_and_broken_bindings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing bindings are a warning beside a GPU and a fact without one; bindings that do not load are a failure."""
    cuda(monkeypatch, 1)

    def broken() -> tuple[str, str]:
        raise EngineError("no symbol")

    monkeypatch.setattr(runtime, "versions", broken)
    nvml(monkeypatch, "580.159.03", gpus=1)
    assert of(gpu.driver(tmp_path), "CUDA bindings").status == "fail"

    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    check = of(gpu.driver(tmp_path), "CUDA bindings")
    assert (check.status, "loadtrt[cu13]" in check.remedy) == ("warn", True)
    nvml(monkeypatch, None)
    assert of(gpu.driver(tmp_path), "CUDA bindings").status == "info"


def test_hidden_gpus_are_a_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GPUs that CUDA_VISIBLE_DEVICES hides are a warning that says so, not a broken GPU."""
    nvml(monkeypatch, "580.159.03", gpus=1)
    cuda(monkeypatch, NO_DEVICE)
    assert of(gpu.driver(tmp_path), "GPUs for CUDA").status == "fail"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    check = of(gpu.driver(tmp_path), "GPUs for CUDA")
    assert (check.status, "CUDA_VISIBLE_DEVICES" in check.remedy) == ("warn", True)
    assert "'-1'" in check.found


@pytest.mark.parametrize(
    ("name", "harmful", "harmless"),
    [
        ("CUDA_MODULE_LOADING", "eager", "LAZY"),
        ("CUDA_LAUNCH_BLOCKING", "1", "0"),
        ("CUDA_DEVICE_MAX_CONNECTIONS", "1", "32"),
    ],
)
def test_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, harmful: str, harmless: str) -> None:
    """A CUDA variable that spoils a measurement is a warning to unset it; other values and its absence are ok."""
    nvml(monkeypatch, "580.159.03", gpus=1)
    cuda(monkeypatch, 1)
    assert of(gpu.driver(tmp_path), "variables").status == "ok"
    monkeypatch.setenv(name, harmful)
    check = of(gpu.driver(tmp_path), "variables")
    assert (check.status, f"unset {name}" in check.remedy) == ("warn", True)
    monkeypatch.setenv(name, harmless)
    check = of(gpu.driver(tmp_path), "variables")
    assert (check.status, f"{name} is '{harmless}'" in check.found) == ("ok", True)


# --- each GPU


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ((6, 1), "FP32 INT8"),
        ((7, 0), "FP32 INT8 FP16"),
        ((7, 5), "FP32 INT8 FP16"),
        ((8, 0), "FP32 INT8 FP16 TF32 BF16 INT4"),
        ((8, 6), "FP32 INT8 FP16 TF32 BF16 INT4"),
        ((8, 9), "FP32 INT8 FP16 TF32 BF16 INT4 FP8"),
        ((9, 0), "FP32 INT8 FP16 TF32 BF16 INT4 FP8"),
        ((10, 0), "FP32 INT8 FP16 TF32 BF16 INT4 FP8 FP4"),
        ((12, 0), "FP32 INT8 FP16 TF32 BF16 INT4 FP8 FP4"),
    ],
)
def test_precisions(capability: tuple[int, int], expected: str) -> None:
    """The rows of TensorRT's support matrix: Pascal to Blackwell."""
    assert " ".join(gpu.precisions(capability)) == expected


GOOD = GpuReading(
    at_ns=0,
    sm_clock_hertz=1_980_000_000,
    memory_clock_hertz=2_619_000_000,
    max_sm_clock_hertz=1_980_000_000,
    power_watts=70.4,
    power_limit_watts=700.0,
    temperature_celsius=31,
    utilization_ratio=0.0,
    throttle_reasons=("gpu_idle",),
    performance_state=0,
)
SETTINGS = GpuSettings(persistence=True, ecc=True, mig=False, compute_mode="default")


class FakeGpu:
    """What open_gpu gives, with chosen answers."""

    def __init__(
        self,
        reading: GpuReading = GOOD,
        settings: GpuSettings = SETTINGS,
        processes: tuple[GpuProcess, ...] | None = (),
    ) -> None:
        self.read, self.settings, self.processes = lambda: reading, lambda: settings, lambda: processes

    def __enter__(self) -> FakeGpu:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def one_gpu(
    monkeypatch: pytest.MonkeyPatch,
    fake: FakeGpu | None,
    memory: tuple[int, int] | CudaError = (78 * GIB, 80 * GIB),
) -> list[Check]:
    """The checks of one H100 with this NVML side and this answer of cudaMemGetInfo."""
    properties = runtime.DeviceProperties(0, "NVIDIA H100", (9, 0), 132, 80 * GIB, BUS_ID)
    opened: list[Any] = []

    def memory_info() -> tuple[int, int]:
        if isinstance(memory, CudaError):
            raise memory
        return memory

    def open_gpu(which: str) -> tuple[FakeGpu | None, str]:
        opened.append(which)
        return fake, "" if fake else "no permission"

    monkeypatch.setattr(runtime, "device_count", lambda: 1)
    monkeypatch.setattr(runtime, "device_properties", lambda _: properties)
    monkeypatch.setattr(runtime, "call", lambda *_: 0)
    monkeypatch.setattr(runtime, "memory_info", memory_info)
    monkeypatch.setattr(gpu, "open_gpu", open_gpu)
    [group] = gpu.gpus()
    assert group.title == "GPU 0: NVIDIA H100"
    assert opened == [BUS_ID]
    return list(group.checks)


def test_a_good_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle GPU in default mode has nothing to warn of; its facts are printed in people's units."""
    found = one_gpu(monkeypatch, FakeGpu())
    assert {check.status for check in found} == {"ok", "info"}
    assert of(found, "precisions").found == "FP32 INT8 FP16 TF32 BF16 INT4 (weights) FP8; not FP4"
    assert of(found, "clocks").found == "SM 1980 MHz now, 1980 MHz at most; memory 2619 MHz; P0"
    assert of(found, "power").found == "70 W of 700 W; 31 °C; 0% busy"
    assert of(found, "modes").found == "persistence on, ECC on, MIG off; compute mode default"
    assert of(found, "memory").found == "78.0 GiB free of 80.0 GiB"


def test_a_gpu_that_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unknown is printed as unknown, never as 0, and is no fault."""
    found = one_gpu(monkeypatch, FakeGpu(GpuReading(at_ns=0), GpuSettings(None, None, None, None), None))
    assert {check.status for check in found} == {"ok", "info"}
    assert of(found, "clocks").found == "SM unknown now, unknown at most; memory unknown"
    assert of(found, "power").found == "? W of ? W; ? °C; ? busy"
    assert of(found, "modes").found == "persistence not told, ECC not told, MIG not told; compute mode not told"


@pytest.mark.parametrize(
    ("fake", "name", "status", "words"),
    [
        (FakeGpu(GpuReading(at_ns=0, throttle_reasons=("sw_power_cap",))), "throttling", "warn", "nvidia-smi -pl"),
        (FakeGpu(GpuReading(at_ns=0, throttle_reasons=("hw_thermal_slowdown",))), "throttling", "warn", "cool it"),
        (FakeGpu(settings=GpuSettings(True, True, False, "exclusive_process")), "compute mode", "warn", "-c DEFAULT"),
        (FakeGpu(settings=GpuSettings(True, True, False, "prohibited")), "compute mode", "fail", "-c DEFAULT"),
        (FakeGpu(processes=(GpuProcess(77, GIB), GpuProcess(78, None))), "other processes", "warn", "another GPU"),
        (None, "telemetry", "warn", "nvidia-smi must work"),
    ],
)
def test_a_gpu_with_a_fault(
    monkeypatch: pytest.MonkeyPatch, fake: FakeGpu | None, name: str, status: str, words: str
) -> None:
    """Each thing on a GPU that spoils or prevents a run is a check of its own, with its remedy."""
    found = one_gpu(monkeypatch, fake)
    assert [(check.name, check.status) for check in found if check.status in ("warn", "fail")] == [(name, status)]
    assert words in of(found, name).remedy


def test_this_process_is_not_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU used by this very process alone is free."""
    found = one_gpu(monkeypatch, FakeGpu(processes=(GpuProcess(os.getpid(), GIB),)))
    assert of(found, "other processes").status == "ok"


def test_full_and_broken_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less than half of the memory free is a warning; a context that does not open is a failure that CUDA explains."""
    found = one_gpu(monkeypatch, FakeGpu(), memory=(30 * GIB, 80 * GIB))
    assert (of(found, "opens").status, of(found, "memory").status) == ("ok", "warn")
    found = one_gpu(monkeypatch, FakeGpu(), CudaError("cudaMemGetInfo", "cudaErrorDevicesUnavailable", "busy"))
    assert of(found, "opens").status == "fail"
    assert "cudaErrorDevicesUnavailable" in of(found, "opens").found
    assert "nvidia-smi" in of(found, "opens").remedy


# --- software


def test_missing_packages_and_a_broken_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing package fails with the pip command; an ONNX Runtime that does not load fails and says why."""
    monkeypatch.setattr(software, "PACKAGES", ("click", "no-such-package"))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    found = software.packages()
    assert of(found, "missing packages").remedy == "pip install no-such-package"
    assert of(found, "ONNX Runtime").status == "fail"
    assert "onnxruntime" in of(found, "ONNX Runtime").remedy


def flavours(monkeypatch: pytest.MonkeyPatch, **reasons: str) -> None:
    """find_flavours gives these: a reason why not, or "" for a module of version 10.16.1."""
    can = Capabilities(**{name: name in ("build", "plugins") for name in Capabilities.__slots__})
    found = [
        Found(name, None if why else Flavour(name, None, "10.16.1", can, Path("/opt/libnvinfer.so.10")), why)
        for name, why in reasons.items()
    ]
    monkeypatch.setattr(software, "find_flavours", lambda: found)


def capability(monkeypatch: pytest.MonkeyPatch, *gpus: tuple[int, int]) -> None:
    monkeypatch.setattr(software, "_compute_capabilities", lambda: list(gpus))


def test_tensorrt_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that loads is shown with version, library and abilities; absent ones are named and no fault."""
    flavours(monkeypatch, tensorrt="", tensorrt_lean="not installed", tensorrt_rtx="not installed")
    capability(monkeypatch, (9, 0))
    found = software.tensorrt()
    assert [(check.name, check.status) for check in found] == [("tensorrt", "ok"), ("not installed", "info")]
    assert found[0].found == "10.16.1; library /opt/libnvinfer.so.10; can build, plugins"
    assert found[1].found == "tensorrt_lean, tensorrt_rtx"


def test_no_tensorrt_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """None at all is a warning with the pip command beside a GPU, and a fact without one."""
    for name in FLAVOURS:  # what an import of an absent module does
        monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.setitem(sys.modules, f"{name}_bindings", None)
    capability(monkeypatch, (9, 0))
    [check] = software.tensorrt()
    assert (check.status, "loadtrt[tensorrt]" in check.remedy) == ("warn", True)
    capability(monkeypatch)
    assert [check.status for check in software.tensorrt()] == ["info"]


def test_a_broken_tensorrt_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that is here and does not load fails beside a GPU; without one it may only lack the driver."""
    flavours(monkeypatch, tensorrt="cannot be imported: libnvinfer.so.10", tensorrt_lean="")
    capability(monkeypatch, (9, 0))
    check = of(software.tensorrt(), "tensorrt")
    assert (check.status, "reinstall" in check.remedy) == ("fail", True)
    capability(monkeypatch)
    assert of(software.tensorrt(), "tensorrt").status == "warn"


@pytest.mark.parametrize(
    ("gpus", "status"),
    [
        ([(9, 0)], "warn"),
        ([(10, 0)], "warn"),
        ([(8, 9)], "ok"),
        ([(12, 0)], "ok"),
        ([(9, 0), (8, 6)], "ok"),
        ([], "ok"),
    ],
)
def test_rtx_refuses_data_centre_gpus(
    monkeypatch: pytest.MonkeyPatch, gpus: list[tuple[int, int]], status: str
) -> None:
    """TensorRT-RTX on GPUs that it refuses is a warning, and does not count as a TensorRT that can run here."""
    flavours(monkeypatch, tensorrt_rtx="")
    capability(monkeypatch, *gpus)
    check = of(software.tensorrt(), "tensorrt_rtx")
    assert check.status == status
    report = conclude([Group("GPU 0", [ok("opens", "")]), Group("TensorRT", [check])])
    assert report.runs["tensorrt"] is (status == "ok")


# --- the command


def examined(monkeypatch: pytest.MonkeyPatch, *checks: Check) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: conclude([Group("Here", checks)]))


def test_command_shows_each_remedy_and_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every check, every remedy under it, one closing line; at most 80 columns and no colour codes off a terminal."""
    long = "a finding that is long enough to need more than one line of eighty columns " * 2
    examined(monkeypatch, ok("good", long), warn("so-so", "[bold]slow[/bold]", "hurry"), fail("bad", "gone", "find it"))
    result = CliRunner().invoke(command, env={"COLUMNS": "80"})
    assert result.exit_code == 3
    assert max(len(line) for line in result.output.splitlines()) <= 80
    assert "\x1b" not in result.output
    for words in ("good", "[bold]slow[/bold]", "hurry", "FAIL", "find it", "This machine can run simulated engines."):
        assert words in result.output


def test_command_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """0 with warnings, 3 with a failure, in both forms."""
    examined(monkeypatch, warn("so-so", "slow", "hurry"))
    assert CliRunner().invoke(command).exit_code == 0
    examined(monkeypatch, fail("bad", "gone", "find it"))
    assert CliRunner().invoke(command, ["--json"]).exit_code == 3


def test_here() -> None:
    """On this very machine the doctor does not crash, agrees with CUDA about the GPU, and its JSON is whole."""
    result = CliRunner().invoke(command, ["--json"])
    assert result.exit_code in (0, 3), result.output
    report = json.loads(result.stdout)
    assert report["failed"] == (result.exit_code == 3)
    assert report["runs"]["simulated"] is True
    assert report["runs"]["onnxruntime"] is True
    titles = [group["title"] for group in report["groups"]]
    assert any(title.startswith("GPU 0") for title in titles) == runtime.has_gpu()
    if not runtime.has_gpu():
        assert report["runs"]["tensorrt"] is False
        assert "TensorRT plans would need" in report["verdict"]
    checks = [check for group in report["groups"] for check in group["checks"]]
    assert all(check["found"] and check["name"] != "examination" for check in checks)
