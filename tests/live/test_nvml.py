"""NVML as loadtrt reads it, against a fake pynvml: units, missing numbers, finding a GPU, when clocks have settled."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from loadtrt.live import nvml as reader
from loadtrt.live.nvml import THROTTLE_REASONS, GpuProcess, SmUse, clocks_settled, find_driver, open_gpu
from loadtrt.results.gpu_telemetry import GpuReading

NOT_SUPPORTED, NO_PERMISSION, NOT_FOUND, LIBRARY_NOT_FOUND = 3, 4, 6, 12
BUS_IDS = ("00000000:0f:00.0", "00000000:b3:00.0")


class NVMLError(Exception):
    """As pynvml's: `value` is the NVML status."""

    def __init__(self, value: int) -> None:
        super().__init__(f"status {value}")
        self.value = value


def field_value(kind: int, value: int, status: int = 0) -> SimpleNamespace:
    """A c_nvmlFieldValue_t; the members of its union that `kind` does not mean hold nonsense."""
    members = dict.fromkeys(("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal"), -99)
    member = {1: "uiVal", 2: "ulVal", 3: "ullVal"}.get(kind, "dVal")
    return SimpleNamespace(nvmlReturn=status, valueType=kind, value=SimpleNamespace(**{**members, member: value}))


class FakeNvml(ModuleType):
    """Two GPUs. `fails` maps a function's name to the NVML status it raises; `starts`: nvmlInit less nvmlShutdown."""

    NVMLError = NVMLError
    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU, NVML_TEMPERATURE_THRESHOLD_SLOWDOWN = 1, 2, 0, 1

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.fails: dict[str, int] = {}
        self.starts = 0
        self.answers: dict[str, Any] = {
            "nvmlSystemGetDriverVersion": "580.159.03",
            "nvmlSystemGetCudaDriverVersion_v2": 13000,
            "nvmlDeviceGetCount": 2,
            "nvmlDeviceGetMaxClockInfo": 1980,
            "nvmlDeviceGetUUID": "GPU-1",
            "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=3 * 2**30, total=80 * 2**30),
            "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=37, memory=5),
            "nvmlDeviceGetPerformanceState": 0,
            "nvmlDeviceGetPowerUsage": 345_678,
            "nvmlDeviceGetEnforcedPowerLimit": 700_000,
            "nvmlDeviceGetTotalEnergyConsumption": 9_876_543,
            "nvmlDeviceGetTemperature": 41,
            "nvmlDeviceGetCurrentClocksEventReasons": 0x4 | 0x40,
            "nvmlDeviceGetEccMode": [1, 1],
            "nvmlDeviceGetMigMode": [0, 1],
            "nvmlDeviceGetPersistenceMode": 1,
            "nvmlDeviceGetComputeMode": 3,
            "nvmlDeviceGetTemperatureThreshold": 89,
            "nvmlDeviceGetPowerManagementLimitConstraints": [200_000, 700_000],
            "nvmlDeviceGetFieldValues": [field_value(3, 2**40 + 7), field_value(1, 12)],
            "nvmlDeviceGetComputeRunningProcesses": [SimpleNamespace(pid=77, usedGpuMemory=2**30)],
            "nvmlDeviceGetMPSComputeRunningProcesses": [],
            "nvmlDeviceGetProcessUtilization": [SimpleNamespace(pid=77, timeStamp=10**15, smUtil=48)],
            "nvmlSystemGetProcessName": "/usr/bin/python3 -m loadtrt",
        }

    def __getattr__(self, name: str) -> Any:
        if name not in self.__dict__["answers"] and not hasattr(type(self), f"_{name}"):
            raise AttributeError(name)

        def function(*args: Any) -> Any:
            if name in self.fails:
                raise NVMLError(self.fails[name])
            special = getattr(self, f"_{name}", None)
            return special(*args) if special else self.answers[name]

        return function

    def _nvmlInit(self) -> None:  # noqa: N802 (NVML's own names)
        self.starts += 1

    def _nvmlShutdown(self) -> None:  # noqa: N802
        self.starts -= 1

    def _nvmlDeviceGetHandleByPciBusId(self, bus_id: bytes) -> str:  # noqa: N802
        if bus_id.decode() not in BUS_IDS:
            raise NVMLError(NOT_FOUND)
        return bus_id.decode()

    def _nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        return BUS_IDS[index]

    def _nvmlDeviceGetName(self, handle: str) -> str:  # noqa: N802
        return f"Fake GPU at {handle}"

    def _nvmlDeviceGetClockInfo(self, handle: str, kind: int) -> int:  # noqa: N802
        return {1: 1755, 2: 2619}[kind]


def test_the_fake_has_only_real_names() -> None:
    """Every function and constant that the fake offers is in the nvidia-ml-py that is installed, as `value` is in its
    errors: what passes here asks for names that exist."""
    real, fake = importlib.import_module("pynvml"), FakeNvml()
    names = {*fake.answers, *(name[1:] for name in dir(FakeNvml) if name.startswith("_nvml"))}
    assert [name for name in names if not hasattr(real, name)] == []
    for constant in vars(FakeNvml):
        if constant.startswith("NVML_"):
            assert getattr(fake, constant) == getattr(real, constant)
    assert real.NVMLError(real.NVML_ERROR_LIBRARY_NOT_FOUND).value == LIBRARY_NOT_FOUND
    bits = {
        value for name, value in vars(real).items() if name.startswith("nvmlClocksEventReason") and "All" not in name
    }
    assert bits - {0} <= set(THROTTLE_REASONS)


def test_numbers_of_nvml() -> None:
    """Field identifiers and value types that the reader writes as numbers are those of the nvidia-ml-py installed."""
    real = importlib.import_module("pynvml")
    assert reader._PCIE_RX_BYTES == real.NVML_FI_DEV_PCIE_COUNT_RX_BYTES
    assert reader._PCIE_TX_BYTES == real.NVML_FI_DEV_PCIE_COUNT_TX_BYTES
    kinds = ("UNSIGNED_INT", "UNSIGNED_LONG", "UNSIGNED_LONG_LONG")
    assert list(reader._FIELD_VALUES) == [getattr(real, f"NVML_VALUE_TYPE_{kind}") for kind in kinds]
    assert set(reader._FIELD_VALUES.values()) <= {name for name, _ in real.c_nvmlValue_t._fields_}


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return fake


def read(which: str | int = 0) -> GpuReading:
    gpu, why = open_gpu(which)
    assert gpu is not None, why
    with gpu:
        return gpu.read()


def test_units_are_base_units(nvml: FakeNvml) -> None:
    """MHz become hertz, mW watts, mJ joules, percent a ratio; memory stays bytes."""
    now = read()
    assert (now.sm_clock_hertz, now.memory_clock_hertz) == (1_755_000_000, 2_619_000_000)
    assert now.max_sm_clock_hertz == 1_980_000_000
    assert (now.power_watts, now.power_limit_watts, now.energy_joules) == (345.678, 700.0, 9876.543)
    assert (now.temperature_celsius, now.utilization_ratio, now.performance_state) == (41, 0.37, 0)
    assert (now.memory_used_bytes, now.memory_total_bytes) == (3 * 2**30, 80 * 2**30)
    assert now.memory_utilization_ratio == 0.05


def test_pcie_counters(nvml: FakeNvml) -> None:
    """Bytes as they come, 32 or 64 bits by their own type; each has its own status; a strange type is no number."""
    assert (read().pcie_rx_bytes, read().pcie_tx_bytes) == (2**40 + 7, 12)
    nvml.answers["nvmlDeviceGetFieldValues"] = [field_value(1, 5), field_value(3, 6, NOT_SUPPORTED)]
    assert (read().pcie_rx_bytes, read().pcie_tx_bytes) == (5, None)
    nvml.answers["nvmlDeviceGetFieldValues"] = [field_value(0, 5), field_value(77, 6)]
    assert (read().pcie_rx_bytes, read().pcie_tx_bytes) == (None, None)


def test_limits(nvml: FakeNvml) -> None:
    """Where the GPU slows down in °C, and the most that its power limit can be set to, in watts."""
    gpu, _ = open_gpu(0)
    assert gpu is not None
    assert (gpu.limits().slowdown_celsius, gpu.limits().most_power_watts) == (89, 700.0)
    nvml.fails = dict.fromkeys(
        ("nvmlDeviceGetTemperatureThreshold", "nvmlDeviceGetPowerManagementLimitConstraints"), NOT_SUPPORTED
    )
    assert (gpu.limits().slowdown_celsius, gpu.limits().most_power_watts) == (None, None)


def test_a_lost_gpu_tells_nothing(nvml: FakeNvml) -> None:
    """A reading with any number is an answer; the highest clock is remembered and is none."""
    gpu, _ = open_gpu(0)
    assert gpu is not None
    assert gpu.read().answered
    nvml.fails = dict.fromkeys([*nvml.answers, "nvmlDeviceGetClockInfo"], 15)
    lost = gpu.read()
    assert not lost.answered
    assert lost.max_sm_clock_hertz == 1_980_000_000
    del nvml.fails["nvmlDeviceGetPowerUsage"]
    assert gpu.read().answered


def test_throttle_reasons_are_named(nvml: FakeNvml) -> None:
    """Each bit of NVML's mask is one name; an unknown bit keeps its value; an idle GPU is not slowed down."""
    assert read().throttle_reasons == ("sw_power_cap", "hw_thermal_slowdown")
    nvml.answers["nvmlDeviceGetCurrentClocksEventReasons"] = 0x1 | 0x800
    assert read().throttle_reasons == ("gpu_idle", "reason_0x800")
    assert read().slowdowns == ()
    nvml.answers["nvmlDeviceGetCurrentClocksEventReasons"] = 0
    assert read().throttle_reasons == ()


@pytest.mark.parametrize("status", [NOT_SUPPORTED, NO_PERMISSION])
def test_what_is_not_told_is_none(nvml: FakeNvml, status: int) -> None:
    """Where every question is refused, every field but the instant is None, none is 0, and nothing raises."""
    starting = {"nvmlInit", "nvmlShutdown", "nvmlDeviceGetHandleByIndex"}
    own = {name[1:] for name in dir(FakeNvml) if name.startswith("_nvml")}
    nvml.fails = dict.fromkeys((set(nvml.answers) | own) - starting, status)
    gpu, _ = open_gpu(0)
    assert gpu is not None
    now = gpu.read()
    numbers = {name: getattr(now, name) for name in GpuReading.__slots__ if name != "at_ns"}
    assert numbers == dict.fromkeys(numbers)
    assert now.slowdowns == ()
    assert not now.answered
    assert (gpu.name, gpu.uuid, gpu.driver) == (None, None, None)
    assert (gpu.processes(), gpu.sm_use(1), gpu.process_name(77), gpu.utilization()) == (None, None, None, None)
    settings = gpu.settings()
    assert (settings.ecc, settings.mig, settings.persistence, settings.compute_mode) == (None, None, None, None)


def test_all_bits_set_is_not_a_number(nvml: FakeNvml) -> None:
    """NVML's "not available" (all bits set) and performance state 32 are None, not 18 exajoules and P32."""
    nvml.answers["nvmlDeviceGetTotalEnergyConsumption"] = 2**64 - 1
    nvml.answers["nvmlDeviceGetPowerUsage"] = 2**32 - 1
    nvml.answers["nvmlDeviceGetPerformanceState"] = 32
    now = read()
    assert (now.energy_joules, now.power_watts, now.performance_state) == (None, None, None)


def test_older_drivers_answer_by_older_names(nvml: FakeNvml) -> None:
    """A function that this driver or this nvidia-ml-py lacks is asked for by its other name."""
    del nvml.answers["nvmlDeviceGetCurrentClocksEventReasons"]
    nvml.answers["nvmlDeviceGetCurrentClocksThrottleReasons"] = 0x8
    del nvml.answers["nvmlDeviceGetTemperature"]
    nvml.answers["nvmlDeviceGetTemperatureV"] = 55
    assert (read().throttle_reasons, read().temperature_celsius) == (("hw_slowdown",), 55)


def test_a_gpu_is_found_by_its_bus_id(nvml: FakeNvml) -> None:
    """CUDA's GPU 0 may be NVML's GPU 1: by bus id it is the same GPU, whatever its index."""
    gpu, _ = open_gpu(BUS_IDS[1])
    assert gpu is not None
    assert gpu.name == f"Fake GPU at {BUS_IDS[1]}"
    gpu.close()
    none, why = open_gpu("00000000:ff:00.0")
    assert none is None
    assert why == "NVML knows no such GPU (GPU 00000000:ff:00.0)"


def test_settings_and_processes(nvml: FakeNvml) -> None:
    """Modes are those of now, not of after the next reboot; a process without a memory figure has None."""
    gpu, _ = open_gpu(0)
    assert gpu is not None
    settings = gpu.settings()
    assert (settings.ecc, settings.mig, settings.persistence) == (True, False, True)
    assert settings.compute_mode == "exclusive_process"
    nvml.answers["nvmlDeviceGetComputeRunningProcesses"].append(SimpleNamespace(pid=78, usedGpuMemory=None))
    assert [(p.pid, p.memory_bytes) for p in gpu.processes() or ()] == [(77, 2**30), (78, None)]


def test_processes_of_split_and_shared_gpus(nvml: FakeNvml) -> None:
    """MIG's instance of each, and whether it computes through the MPS server; one that is listed twice is one."""
    gpu, _ = open_gpu(0)
    assert gpu is not None
    nvml.answers["nvmlDeviceGetComputeRunningProcesses"] = [
        SimpleNamespace(pid=77, usedGpuMemory=2**30, gpuInstanceId=2**32 - 1),
        SimpleNamespace(pid=78, usedGpuMemory=2**64 - 1, gpuInstanceId=3),
        SimpleNamespace(pid=0, usedGpuMemory=None, gpuInstanceId=3),
    ]
    nvml.answers["nvmlDeviceGetMPSComputeRunningProcesses"] = [SimpleNamespace(pid=77, usedGpuMemory=5)]
    assert gpu.processes() == (GpuProcess(77, 5, None, True), GpuProcess(78, None, 3))
    del nvml.answers["nvmlDeviceGetMPSComputeRunningProcesses"]  # of an older driver
    assert gpu.processes() == (GpuProcess(77, 2**30), GpuProcess(78, None, 3))


@pytest.mark.parametrize(
    ("status", "told"), [(0, ()), (6, ()), (7, ()), (NOT_SUPPORTED, None), (NO_PERMISSION, None), (15, None)]
)
def test_whose_kernels_ran(nvml: FakeNvml, status: int, told: tuple[()] | None) -> None:
    """Parts of the time, by process. Without a newer sample nobody's ran, which is not the same as not told;
    nvidia-ml-py raises success where there is none."""
    gpu, _ = open_gpu(0)
    assert gpu is not None
    assert gpu.sm_use(1) == (SmUse(77, 10**15, 0.48),)
    nvml.fails["nvmlDeviceGetProcessUtilization"] = status
    assert gpu.sm_use(1) == told
    del nvml.answers["nvmlDeviceGetProcessUtilization"], nvml.fails["nvmlDeviceGetProcessUtilization"]
    assert gpu.sm_use(1) is None


def test_programs_are_named_without_their_arguments(nvml: FakeNvml) -> None:
    """These may hold what is nobody's business."""
    gpu, _ = open_gpu(0)
    assert gpu is not None
    assert gpu.process_name(77) == "python3"
    nvml.answers["nvmlSystemGetProcessName"] = ""
    assert gpu.process_name(77) is None


def test_every_start_of_nvml_is_ended(nvml: FakeNvml) -> None:
    """NVML counts its starts: closing twice ends one of them once, a GPU that is not there ends its own, and so on."""
    gpu, _ = open_gpu(0)
    assert gpu is not None
    assert nvml.starts == 1
    gpu.close()
    gpu.close()
    assert nvml.starts == 0
    open_gpu("00000000:ff:00.0")
    find_driver()
    assert nvml.starts == 0


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (LIBRARY_NOT_FOUND, "there is no NVIDIA driver here"),
        (NO_PERMISSION, "no permission"),
        (18, "reboot the host"),
        (999, "NVML failed: status 999"),
    ],
)
def test_no_driver_is_a_reason_not_a_crash(nvml: FakeNvml, status: int, words: str) -> None:
    """Where NVML does not start there is no GPU and no driver, and one sentence that says why."""
    nvml.fails["nvmlInit"] = status
    for found, why in (open_gpu(0), find_driver()):
        assert found is None
        assert words in why


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing nvidia-ml-py is a reason as well."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert open_gpu(0) == (None, "the package nvidia-ml-py is not installed: pip install nvidia-ml-py")


def test_driver(nvml: FakeNvml) -> None:
    """13000 is CUDA 13.0; a number that the driver does not give is None."""
    driver, why = find_driver()
    assert driver is not None
    assert (driver.version, driver.cuda_version, driver.gpus, why) == ("580.159.03", "13.0", 2, "")
    nvml.fails["nvmlSystemGetCudaDriverVersion_v2"] = NOT_SUPPORTED
    driver, _ = find_driver()
    assert driver is not None
    assert driver.cuda_version is None


@pytest.mark.parametrize(
    ("megahertz", "settled"),
    [
        ([1980, 1980, 1980, 1980], True),
        ([345, 900, 1980, 1980, 1965, 1980], True),  # only the last four count; one step of 15 MHz is within 1 %
        ([1980, 1980, 1965, 1965], True),  # falling within 1 %
        ([1965, 1965, 1965, 1980], False),  # still rising
        ([1980, 1980, 1980, 1950], False),  # more than 1 % apart
        ([345, 1980, 1980, 1980], False),  # the step is among the last four
        ([1980, 1980, 1980], False),  # too few
        ([1980, 1980, None, 1980, 1980], True),  # an unanswered reading is left out
        ([None, None, None, None], False),
        ([], False),
    ],
)
def test_clocks_settled(megahertz: list[int | None], settled: bool) -> None:
    """Settled: the last four known clocks lie within 1 % of their largest, and the last is not above the first."""
    hertz = [None if clock is None else clock * 1_000_000 for clock in megahertz]
    readings = [GpuReading(at_ns=place, sm_clock_hertz=clock) for place, clock in enumerate(hertz)]
    assert clocks_settled(readings) is settled
