"""A GPU read through NVML (nvidia-ml-py): clocks, power, temperature, memory, and what holds the clocks.

A thin reader that keeps nothing. A number that the GPU, the driver or the user's permissions do not give is None, never
0. Units are Prometheus' base units (hertz, watts, joules, celsius, bytes, ratios): exporting scales nothing.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from loadtrt.results.gpu_telemetry import GpuReading

if TYPE_CHECKING:
    from collections.abc import Sequence

MEGAHERTZ = 1_000_000

# Bits of nvmlDeviceGetCurrentClocksEventReasons (nvml.h); later bits are named by their value.
THROTTLE_REASONS = {
    0x1: "gpu_idle",
    0x2: "applications_clocks_setting",
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
}
COMPUTE_MODES = {0: "default", 1: "exclusive_thread", 2: "prohibited", 3: "exclusive_process"}

_PCIE_RX_BYTES, _PCIE_TX_BYTES = 198, 197  # NVML_FI_DEV_PCIE_COUNT_*; older packages lack the names
_FIELD_VALUES = {1: "uiVal", 2: "ulVal", 3: "ullVal"}  # members of nvmlValue_t by nvmlValueType_t: unsigned ones

SETTLED_READINGS = 4
SETTLED_SPREAD = 0.01

# NVML answers "not available" with all bits set, in 32 or 64 of them, and an unknown performance state with 32.
_NOT_AVAILABLE = (2**32 - 1, 2**64 - 1)
_UNKNOWN_PERFORMANCE_STATE = 32
_NO_SAMPLES = (0, 6, 7)  # success (nvidia-ml-py takes it for an error there), not found, more than a moment before
_WHY = {
    4: "the NVIDIA driver gives this user no permission to read GPUs (NVML: insufficient permissions)",
    6: "NVML knows no such GPU",
    9: "the NVIDIA driver is installed but not loaded",
    12: "there is no NVIDIA driver here (libnvidia-ml.so.1 was not found)",
    15: "the GPU is lost: it has fallen off the PCI bus",
    18: "the NVIDIA driver's library and its kernel module are of different versions: reboot the host",
}


@dataclass(frozen=True, slots=True)
class GpuSettings:
    """How a GPU is set up. compute_mode is a value of COMPUTE_MODES; None: not known."""

    persistence: bool | None
    ecc: bool | None
    mig: bool | None
    compute_mode: str | None


@dataclass(frozen=True, slots=True)
class GpuLimits:
    """A GPU's limits; None: not known (data-centre GPUs give margins instead of temperatures).

    slowdown_celsius: the temperature at which the GPU slows down to protect itself.
    most_power_watts: the highest power limit that can be set.
    """

    slowdown_celsius: int | None
    most_power_watts: float | None


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process that has a CUDA context on a GPU.

    pid: as the driver gives it: in a container it may be the host's.
    memory_bytes: None where it is not known.
    instance: GPU instance, of a GPU that is split by MIG; None: of a whole one.
    mps: whether it computes through the MPS server.
    """

    pid: int
    memory_bytes: int | None
    instance: int | None = None
    mps: bool = False


@dataclass(frozen=True, slots=True)
class SmUse:
    """Part of the time in which kernels of a process ran. pid: as in GpuProcess, but in a container it may be the
    host's where that of GpuProcess is not. at_us: when the driver took its last sample, Unix time in µs."""

    pid: int
    at_us: int
    ratio: float


@dataclass(frozen=True, slots=True)
class Driver:
    """The NVIDIA driver.

    version: such as "580.159.03".
    cuda_version: the newest CUDA that the driver supports, such as "13.0".
    gpus: how many GPUs are visible here.
    """

    version: str | None
    cuda_version: str | None
    gpus: int


class Gpu:
    """One GPU in NVML, made by `open_gpu`. Close it, or use it in a `with`."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml = nvml
        self._handle = handle
        self._open = True
        self.name: str | None = self._ask("nvmlDeviceGetName")
        self.uuid: str | None = self._ask("nvmlDeviceGetUUID")
        self.driver: str | None = _answer(nvml, "nvmlSystemGetDriverVersion")
        self._max_sm_clock = _hertz(self._ask("nvmlDeviceGetMaxClockInfo", nvml.NVML_CLOCK_SM))

    def read(self) -> GpuReading:
        """A reading now. Never raises: a number without an answer, even on a lost GPU, is None."""
        at_ns = time.perf_counter_ns()
        memory = self._ask("nvmlDeviceGetMemoryInfo")
        use = self._use()
        state = self._ask("nvmlDeviceGetPerformanceState")
        received, sent = self.pcie_bytes()
        return GpuReading(
            at_ns=at_ns,
            sm_clock_hertz=_hertz(self._ask("nvmlDeviceGetClockInfo", self._nvml.NVML_CLOCK_SM)),
            memory_clock_hertz=_hertz(self._ask("nvmlDeviceGetClockInfo", self._nvml.NVML_CLOCK_MEM)),
            max_sm_clock_hertz=self._max_sm_clock,
            power_watts=_thousandth(self._ask("nvmlDeviceGetPowerUsage")),
            power_limit_watts=_thousandth(self._ask("nvmlDeviceGetEnforcedPowerLimit")),
            energy_joules=_thousandth(self._ask("nvmlDeviceGetTotalEnergyConsumption")),
            temperature_celsius=self._temperature(),
            memory_used_bytes=None if memory is None else int(memory.used),
            memory_total_bytes=None if memory is None else int(memory.total),
            utilization_ratio=None if use is None else use.gpu / 100,
            throttle_reasons=self._throttle_reasons(),
            performance_state=None if state == _UNKNOWN_PERFORMANCE_STATE else state,
            memory_utilization_ratio=None if use is None else use.memory / 100,
            pcie_rx_bytes=received,
            pcie_tx_bytes=sent,
        )

    def pcie_bytes(self) -> tuple[int | None, int | None]:
        """(received, sent) as in GpuReading. A method of its own, because counters that wrap are read more often than
        the rest; nvmlDeviceGetPcieThroughput would measure for 20 ms. Never raises."""
        counters = self._ask("nvmlDeviceGetFieldValues", [_PCIE_RX_BYTES, _PCIE_TX_BYTES])
        return (None, None) if counters is None else (_field(counters[0]), _field(counters[1]))

    def limits(self) -> GpuLimits:
        """This GPU's limits. Never raises."""
        slowdown = self._ask("nvmlDeviceGetTemperatureThreshold", self._nvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN)
        powers = self._ask("nvmlDeviceGetPowerManagementLimitConstraints")  # (least, most)
        return GpuLimits(slowdown_celsius=_known(slowdown), most_power_watts=_thousandth(powers and powers[1]))

    def settings(self) -> GpuSettings:
        """This GPU's settings now. Never raises."""
        ecc, mig = self._ask("nvmlDeviceGetEccMode"), self._ask("nvmlDeviceGetMigMode")
        persistence, mode = self._ask("nvmlDeviceGetPersistenceMode"), self._ask("nvmlDeviceGetComputeMode")
        return GpuSettings(
            persistence=None if persistence is None else bool(persistence),
            ecc=None if ecc is None else bool(ecc[0]),  # (now, after the next reboot)
            mig=None if mig is None else bool(mig[0]),
            compute_mode=None if mode is None else COMPUTE_MODES.get(mode, f"mode_{mode}"),
        )

    def processes(self) -> tuple[GpuProcess, ...] | None:
        """The processes with a CUDA context on this GPU, this one included. None where the driver does not say."""
        plain = self._ask("nvmlDeviceGetComputeRunningProcesses")
        if plain is None:
            return None
        clients = self._ask("nvmlDeviceGetMPSComputeRunningProcesses") or ()
        listed = [(process, mps) for mps, some in ((False, plain), (True, clients)) for process in some if process.pid]
        processes = {}
        for process, mps in listed:
            instance = _known(getattr(process, "gpuInstanceId", None))
            processes[int(process.pid)] = GpuProcess(int(process.pid), _known(process.usedGpuMemory), instance, mps)
        return tuple(processes.values())

    def sm_use(self, since_us: int) -> tuple[SmUse, ...] | None:
        """Whose kernels ran since an instant (Unix time, µs); empty where nobody's did, or no newer sample was taken.
        None where the driver does not tell."""
        try:
            samples = self._nvml.nvmlDeviceGetProcessUtilization(self._handle, since_us)
        except self._nvml.NVMLError as error:
            return () if getattr(error, "value", None) in _NO_SAMPLES else None
        except AttributeError:
            return None
        return tuple(SmUse(int(it.pid), int(it.timeStamp), min(it.smUtil / 100, 1.0)) for it in samples if it.pid)

    def process_name(self, pid: int) -> str | None:
        """The name of a process' program; None where this user may not know it, and in a container."""
        name = _answer(self._nvml, "nvmlSystemGetProcessName", pid)
        return None if not name else os.path.basename(str(name).split(" ")[0])[:64] or None

    def utilization(self) -> float | None:
        """As in GpuReading. Never raises."""
        use = self._use()
        return None if use is None else float(use.gpu / 100)

    def close(self) -> None:
        """Shut NVML down. Safe to call twice."""
        if self._open:
            self._open = False
            _answer(self._nvml, "nvmlShutdown")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, function: str, *args: Any) -> Any:
        return _answer(self._nvml, function, self._handle, *args)

    def _use(self) -> Any:
        return self._ask("nvmlDeviceGetUtilizationRates")

    def _temperature(self) -> int | None:
        core = self._nvml.NVML_TEMPERATURE_GPU
        value = self._ask("nvmlDeviceGetTemperature", core)  # deprecated: later drivers may keep only its successor
        value = self._ask("nvmlDeviceGetTemperatureV", core) if value is None else value
        return None if value is None else int(value)

    def _throttle_reasons(self) -> tuple[str, ...] | None:
        mask = self._ask("nvmlDeviceGetCurrentClocksEventReasons")
        if mask is None:  # its name before driver R535
            mask = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons")
        if mask is None:
            return None
        bits = (1 << place for place in range(int(mask).bit_length()) if mask >> place & 1)
        return tuple(THROTTLE_REASONS.get(bit, f"reason_{bit:#x}") for bit in bits)


def open_gpu(which: str | int) -> tuple[Gpu | None, str]:
    """(gpu, "") for a PCI bus id or an NVML index; (None, reason) where NVML or that GPU cannot be used. Never raises.

    CUDA's index is not NVML's: CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER renumber CUDA's only. The bus id of a CUDA
    device is `loadtrt.cuda.runtime.device_properties(index).pci_bus_id`.
    """
    nvml, why = _start()
    if nvml is None:
        return None, why
    try:
        if isinstance(which, str):
            handle = nvml.nvmlDeviceGetHandleByPciBusId(which.encode())
        else:
            handle = nvml.nvmlDeviceGetHandleByIndex(which)
        return Gpu(nvml, handle), ""
    except nvml.NVMLError as error:
        _answer(nvml, "nvmlShutdown")
        return None, f"{_why(error)} (GPU {which})"


def find_driver() -> tuple[Driver | None, str]:
    """(driver, ""), or (None, reason) where NVML cannot be used. Never raises."""
    nvml, why = _start()
    if nvml is None:
        return None, why
    cuda = _known(_answer(nvml, "nvmlSystemGetCudaDriverVersion_v2"))
    driver = Driver(
        version=_answer(nvml, "nvmlSystemGetDriverVersion"),
        cuda_version=None if cuda is None else f"{cuda // 1000}.{cuda % 1000 // 10}",
        gpus=_answer(nvml, "nvmlDeviceGetCount") or 0,
    )
    _answer(nvml, "nvmlShutdown")
    return driver, ""


def clocks_settled(readings: Sequence[GpuReading]) -> bool:
    """Whether the SM clock has settled during warm-up.

    Law: of the last n = SETTLED_READINGS known clocks f, (max f − min f) ≤ SETTLED_SPREAD · max f, and the last is not
    above the first: a clock that still rises has not settled. Readings without a clock are left out; with fewer than n
    known clocks the answer is False, so that waiting for True needs a time limit.
    """
    clocks = [reading.sm_clock_hertz for reading in readings if reading.sm_clock_hertz is not None][-SETTLED_READINGS:]
    if len(clocks) < SETTLED_READINGS:
        return False
    return max(clocks) - min(clocks) <= SETTLED_SPREAD * max(clocks) and clocks[-1] <= clocks[0]


def _start() -> tuple[Any | None, str]:
    """NVML, initialized (each call needs one nvmlShutdown), or the reason why not."""
    try:
        import pynvml
    except ImportError:
        return None, "the package nvidia-ml-py is not installed: pip install nvidia-ml-py"
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return None, _why(error)
    return pynvml, ""


def _why(error: Exception) -> str:
    return _WHY.get(getattr(error, "value", -1), f"NVML failed: {error}")


def _answer(nvml: Any, function: str, *args: Any) -> Any:
    """The answer of an NVML function; None: not supported, not permitted, not in this driver or this nvidia-ml-py."""
    try:
        value = getattr(nvml, function)(*args)
    except (nvml.NVMLError, AttributeError):
        return None
    return None if isinstance(value, int) and value in _NOT_AVAILABLE else value


def _field(value: Any) -> int | None:
    """One value of nvmlDeviceGetFieldValues: each has its own status and type."""
    member = _FIELD_VALUES.get(value.valueType) if value.nvmlReturn == 0 else None
    return None if member is None else int(getattr(value.value, member))


def _known(value: int | None) -> int | None:
    return None if value is None or value in _NOT_AVAILABLE else int(value)


def _hertz(megahertz: int | None) -> int | None:
    return None if megahertz is None else megahertz * MEGAHERTZ


def _thousandth(value: int | None) -> float | None:
    return None if value is None else value / 1000
