"""The doctor's look at driver, CUDA and GPUs: no GPU is no fault, a broken one is, and each fault has its remedy."""

from __future__ import annotations

import importlib.metadata
import os
from typing import TYPE_CHECKING, Any

import pytest

from doctor_files import GIB, of, write
from loadtrt.cuda import runtime
from loadtrt.doctor import nvidia
from loadtrt.errors import CudaError, EngineError
from loadtrt.live.clients import Own
from loadtrt.live.nvml import Driver, GpuProcess, GpuSettings, SmUse
from loadtrt.results.gpu_telemetry import GpuReading

if TYPE_CHECKING:
    from pathlib import Path

    from loadtrt.doctor import Check

BUS_ID = "00000000:0f:00.0"


# --- driver and CUDA


def cuda(monkeypatch: pytest.MonkeyPatch, count: int | EngineError, speaks: str = "13.0") -> None:
    def device_count() -> int:
        if isinstance(count, EngineError):
            raise count
        return count

    monkeypatch.setattr(runtime, "device_count", device_count)
    monkeypatch.setattr(runtime, "versions", lambda: (runtime.hardware_queues() and speaks, "13.5"))
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_MODULE_LOADING", "CUDA_LAUNCH_BLOCKING", "CUDA_DEVICE_MAX_CONNECTIONS"):
        monkeypatch.setenv(name, "")  # so that the test's end brings it back
        monkeypatch.delenv(name)


def nvml(monkeypatch: pytest.MonkeyPatch, version: str | None, gpus: int = 0, why: str = "no driver") -> None:
    found = (None, why) if version is None else (Driver(version, "13.0", gpus), "")
    monkeypatch.setattr(nvidia, "find_driver", lambda: found)


NO_DEVICE = CudaError("cudaGetDeviceCount", "cudaErrorNoDevice", "no device")
OLD_DRIVER = CudaError("cudaGetDeviceCount", "cudaErrorInsufficientDriver", "too old")


def test_no_gpu_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without driver, device file and GPU on the bus there is nothing to warn of."""
    nvml(monkeypatch, None)
    cuda(monkeypatch, OLD_DRIVER, speaks="none")
    assert {check.status for check in nvidia.driver(tmp_path)} <= {"info", "ok"}


def test_a_good_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that speaks the bindings' CUDA and shows a GPU is ok, and says the versions."""
    nvml(monkeypatch, "580.159.03", gpus=1)
    cuda(monkeypatch, 1)
    found = nvidia.driver(tmp_path)
    assert {check.status for check in found} == {"ok"}
    assert of(found, "NVIDIA driver").found == "580.159.03, supports CUDA 13.0, 1 GPU"
    assert "needs driver R580 or newer; driver 580.159.03 supports CUDA 13.0" in of(found, "CUDA bindings").found
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
    check = of(nvidia.driver(root), "NVIDIA driver")
    assert (check.status, check.found) == (
        "warn",
        "the PCI bus has 1 NVIDIA GPU(s), but no driver for them is loaded",
    )
    assert "install the NVIDIA driver" in check.remedy
    write(root, {".dockerenv": ""})
    assert "the host of this container" in of(nvidia.driver(root), "NVIDIA driver").found


def test_a_broken_driver_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device file is a driver's claim of a GPU: NVML that fails or shows none, and CUDA that fails, are failures."""
    root = write(tmp_path, {"dev/nvidia0": ""})
    cuda(monkeypatch, CudaError("cudaGetDeviceCount", "cudaErrorUnknown", "unknown error"))
    nvml(monkeypatch, None, why="library and kernel module differ")
    found = nvidia.driver(root)
    assert of(found, "NVIDIA driver").status == "fail"
    assert "library and kernel module differ" in of(found, "NVIDIA driver").found
    assert of(found, "GPUs for CUDA").status == "fail"
    assert "cudaErrorUnknown" in of(found, "GPUs for CUDA").found
    nvml(monkeypatch, "580.159.03", gpus=0)
    assert of(nvidia.driver(root), "NVIDIA driver").status == "fail"
    assert "dmesg" in of(nvidia.driver(root), "NVIDIA driver").remedy


def test_a_driver_too_old_for_the_bindings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bindings of CUDA 13 on a driver that speaks 12.8 fail, and the remedy names both ways out."""
    nvml(monkeypatch, "570.86.15", gpus=1)
    cuda(monkeypatch, OLD_DRIVER, speaks="12.8")
    check = of(nvidia.driver(tmp_path), "CUDA bindings")
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
    assert of(nvidia.driver(tmp_path), "CUDA bindings").status == "fail"

    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    check = of(nvidia.driver(tmp_path), "CUDA bindings")
    assert (check.status, "loadtrt[cu13]" in check.remedy) == ("warn", True)
    nvml(monkeypatch, None)
    assert of(nvidia.driver(tmp_path), "CUDA bindings").status == "info"


def test_hidden_gpus_are_a_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GPUs that CUDA_VISIBLE_DEVICES hides are a warning that says so, not a broken GPU."""
    nvml(monkeypatch, "580.159.03", gpus=1)
    cuda(monkeypatch, NO_DEVICE)
    assert of(nvidia.driver(tmp_path), "GPUs for CUDA").status == "fail"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    check = of(nvidia.driver(tmp_path), "GPUs for CUDA")
    assert (check.status, "CUDA_VISIBLE_DEVICES" in check.remedy) == ("warn", True)
    assert "'-1'" in check.found


@pytest.mark.parametrize(
    ("name", "harmful", "harmless"),
    [
        ("CUDA_MODULE_LOADING", "eager", "LAZY"),
        ("CUDA_LAUNCH_BLOCKING", "1", "0"),
        ("CUDA_DEVICE_MAX_CONNECTIONS", "1", "32"),
        ("CUDA_DEVICE_MAX_CONNECTIONS", "8", "32"),
    ],
)
def test_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, harmful: str, harmless: str) -> None:
    """A CUDA variable that spoils a measurement is a warning to unset it; other values and its absence are ok. What
    loadtrt sets for itself is not told as the user's."""
    nvml(monkeypatch, "580.159.03", gpus=1)
    cuda(monkeypatch, 1)
    check = of(nvidia.driver(tmp_path), "variables")
    assert (check.status, check.found.startswith("not set: "), name in check.found) == ("ok", True, True)
    monkeypatch.delenv("CUDA_DEVICE_MAX_CONNECTIONS", raising=False)
    monkeypatch.setenv(name, harmful)
    check = of(nvidia.driver(tmp_path), "variables")
    assert (check.status, f"unset {name}" in check.remedy) == ("warn", True)
    monkeypatch.setenv(name, harmless)
    check = of(nvidia.driver(tmp_path), "variables")
    assert (check.status, f"{name} is '{harmless}'" in check.found) == ("ok", True)


# --- each GPU


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ((6, 0), "FP32 FP16"),
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
    assert " ".join(nvidia.precisions(capability)) == expected


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
        self.sm_use, self.process_name, self.utilization = lambda _: (), lambda _: "python3", lambda: 0.0

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
    monkeypatch.setattr(nvidia, "open_gpu", open_gpu)
    # As where CUDA has been started, which counting the GPUs does: who was there before is not known.
    monkeypatch.setattr(nvidia, "own_process", lambda: Own((os.getpid(),)))
    [group] = nvidia.gpus()
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
    assert of(found, "modes").found == "persistence unknown, ECC unknown, MIG unknown; compute mode unknown"


@pytest.mark.parametrize(
    ("fake", "name", "status", "words"),
    [
        (FakeGpu(GpuReading(at_ns=0, throttle_reasons=("sw_power_cap",))), "throttling", "warn", "nvidia-smi -pl"),
        (FakeGpu(GpuReading(at_ns=0, throttle_reasons=("hw_thermal_slowdown",))), "throttling", "warn", "cool the GPU"),
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


def test_who_computes_is_told_with_how_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the last second; the id alone where the name is not known."""
    fake = FakeGpu(processes=(GpuProcess(77, GIB), GpuProcess(78, None)))
    monkeypatch.setattr(fake, "sm_use", lambda since_us: (SmUse(78, since_us + 500_000, 0.25),))
    found = of(one_gpu(monkeypatch, fake), "other processes").found
    assert found == "process 78 (kernels for 25 % of the time), process 77 (1.00 GiB)"


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
