"""What NVML (nvidia-ml-py) says of a GPU: clocks, power, heat, memory, and why it runs slower than it could.

A thin reader: it samples when asked and keeps nothing. What a GPU, driver or permission does not tell is None, never 0.
Units are Prometheus base units (hertz, watts, joules, celsius, bytes, ratios), so that exporting never scales.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

MEGAHERTZ = 1_000_000

# Bits of nvmlDeviceGetCurrentClocksEventReasons (nvml.h); bits that came later are named by their value.
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
# The reasons that take speed from a loaded GPU; the others are its normal life or somebody's choice.
SLOWDOWNS = frozenset(
    {"sw_power_cap", "hw_slowdown", "sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown"}
)
COMPUTE_MODES = {0: "default", 1: "exclusive_thread", 2: "prohibited", 3: "exclusive_process"}

_PCIE_RX_BYTES, _PCIE_TX_BYTES = 198, 197  # NVML_FI_DEV_PCIE_COUNT_*; older packages lack the names
_FIELD_VALUES = {1: "uiVal", 2: "ulVal", 3: "ullVal"}  # members of nvmlValue_t by nvmlValueType_t: unsigned ones
_REMEMBERED = ("at_ns", "max_sm_clock_hertz")

SETTLED_READINGS = 4
SETTLED_SPREAD = 0.01

# NVML answers "not available" with all bits set, in 32 or 64 of them, and an unknown performance state with 32.
_NOT_AVAILABLE = (2**32 - 1, 2**64 - 1)
_UNKNOWN_PERFORMANCE_STATE = 32
_WHY = {
    4: "the NVIDIA driver gives this user no permission to read GPUs (NVML: insufficient permissions)",
    6: "NVML knows no such GPU",
    9: "the NVIDIA driver is installed but not loaded",
    12: "there is no NVIDIA driver here (libnvidia-ml.so.1 was not found)",
    15: "the GPU is lost: it has fallen off the PCI bus",
    18: "the NVIDIA driver's library and its kernel module are of different versions: reboot the host",
}


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One look at a GPU. None: not supported, not permitted or not answered.

    at_ns: perf_counter_ns when the look began. energy_joules: since the driver was loaded; only differences count.
    memory_used_bytes: with what the driver reserves. utilization_ratio: share of NVML's sample period (1/6 to 1 s) in
    which any kernel ran, memory_utilization_ratio: in which device memory was read or written, 0 to 1: time, not
    bandwidth. throttle_reasons: names of THROTTLE_REASONS, empty when nothing holds the clocks. performance_state: 0
    (P0, fastest) to 15. pcie_rx_bytes, pcie_tx_bytes: counters of what the GPU received (inputs) and sent (outputs),
    which wrap: by nvml.h's own words, and at 2³² where numbers were seen; only differences count.
    """

    at_ns: int
    sm_clock_hertz: int | None = None
    memory_clock_hertz: int | None = None
    max_sm_clock_hertz: int | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    energy_joules: float | None = None
    temperature_celsius: int | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    utilization_ratio: float | None = None
    throttle_reasons: tuple[str, ...] | None = None
    performance_state: int | None = None
    memory_utilization_ratio: float | None = None
    pcie_rx_bytes: int | None = None
    pcie_tx_bytes: int | None = None

    @property
    def told(self) -> bool:
        """Whether the GPU answered anything at all. max_sm_clock_hertz is remembered: it is no sign of life."""
        return any(getattr(self, name) is not None for name in self.__slots__ if name not in _REMEMBERED)

    @property
    def slowdowns(self) -> tuple[str, ...]:
        """The throttle reasons that take speed from a loaded GPU; empty where nothing is known."""
        return tuple(reason for reason in self.throttle_reasons or () if reason in SLOWDOWNS)


@dataclass(frozen=True, slots=True)
class GpuSettings:
    """How a GPU is set up. compute_mode: a value of COMPUTE_MODES. None: not told."""

    persistence: bool | None
    ecc: bool | None
    mig: bool | None
    compute_mode: str | None


@dataclass(frozen=True, slots=True)
class GpuLimits:
    """What a GPU will not pass. slowdown_celsius: where it protects itself by slowing down; most_power_watts: the
    highest power limit that can be set. None: not told (data-centre GPUs tell margins instead of temperatures)."""

    slowdown_celsius: int | None
    most_power_watts: float | None


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process computing on a GPU, by its id on the host (a container may not know that id). memory None: not told."""

    pid: int
    memory_bytes: int | None


@dataclass(frozen=True, slots=True)
class Driver:
    """The NVIDIA driver: its version ("580.159.03"), the CUDA it speaks ("13.0"), how many GPUs it shows here."""

    version: str | None
    cuda_version: str | None
    gpus: int


class Gpu:
    """One GPU as NVML knows it. Made by `open_gpu`; where a Gpu exists, NVML works. Close it, or use it in a `with`."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml = nvml
        self._handle = handle
        self._open = True
        self.name: str | None = self._ask("nvmlDeviceGetName")
        self.uuid: str | None = self._ask("nvmlDeviceGetUUID")
        self.driver: str | None = _answer(nvml, "nvmlSystemGetDriverVersion")
        self._max_sm_clock = _scaled(self._ask("nvmlDeviceGetMaxClockInfo", nvml.NVML_CLOCK_SM), MEGAHERTZ)

    def read(self) -> GpuReading:
        """A reading of this instant. Never raises: what does not answer, even on a lost GPU, is None."""
        at_ns = time.perf_counter_ns()
        memory = self._ask("nvmlDeviceGetMemoryInfo")
        use = self._ask("nvmlDeviceGetUtilizationRates")
        state = self._ask("nvmlDeviceGetPerformanceState")
        received, sent = self.pcie_bytes()
        return GpuReading(
            at_ns=at_ns,
            sm_clock_hertz=_scaled(self._ask("nvmlDeviceGetClockInfo", self._nvml.NVML_CLOCK_SM), MEGAHERTZ),
            memory_clock_hertz=_scaled(self._ask("nvmlDeviceGetClockInfo", self._nvml.NVML_CLOCK_MEM), MEGAHERTZ),
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
        """(received, sent) as GpuReading has them. Alone, because counters that wrap must be read more often than all
        the rest; from counters, because nvmlDeviceGetPcieThroughput measures for 20 ms. Never raises."""
        found = self._ask("nvmlDeviceGetFieldValues", [_PCIE_RX_BYTES, _PCIE_TX_BYTES])
        return (None, None) if found is None else (_field(found[0]), _field(found[1]))

    def limits(self) -> GpuLimits:
        """What this GPU will not pass. Never raises."""
        slowdown = self._ask("nvmlDeviceGetTemperatureThreshold", self._nvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN)
        powers = self._ask("nvmlDeviceGetPowerManagementLimitConstraints")  # (least, most)
        return GpuLimits(slowdown_celsius=_known(slowdown), most_power_watts=_thousandth(powers and powers[1]))

    def settings(self) -> GpuSettings:
        """How this GPU is set up now. Never raises."""
        ecc, mig = self._ask("nvmlDeviceGetEccMode"), self._ask("nvmlDeviceGetMigMode")
        persistence, mode = self._ask("nvmlDeviceGetPersistenceMode"), self._ask("nvmlDeviceGetComputeMode")
        return GpuSettings(
            persistence=None if persistence is None else bool(persistence),
            ecc=None if ecc is None else bool(ecc[0]),  # (now, after the next reboot)
            mig=None if mig is None else bool(mig[0]),
            compute_mode=None if mode is None else COMPUTE_MODES.get(mode, f"mode_{mode}"),
        )

    def processes(self) -> tuple[GpuProcess, ...] | None:
        """Who computes on this GPU, this process too if it does. None where the driver does not tell."""
        found = self._ask("nvmlDeviceGetComputeRunningProcesses")
        return None if found is None else tuple(GpuProcess(int(p.pid), _known(p.usedGpuMemory)) for p in found)

    def close(self) -> None:
        """Let NVML go. Safe to call twice."""
        if self._open:
            self._open = False
            _answer(self._nvml, "nvmlShutdown")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, function: str, *args: Any) -> Any:
        return _answer(self._nvml, function, self._handle, *args)

    def _temperature(self) -> int | None:
        core = self._nvml.NVML_TEMPERATURE_GPU
        value = self._ask("nvmlDeviceGetTemperature", core)  # deprecated: drivers to come keep only its successor
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
    """(gpu, "") of a PCI bus id or of an NVML index; (None, why) where NVML or that GPU cannot be used. Never raises.

    CUDA's index is not NVML's: CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER renumber the one and not the other. Come from
    CUDA by `loadtrt.cuda.runtime.device_properties(index).pci_bus_id`.
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
    """(driver, "") or (None, why there is none to talk to). Never raises."""
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
    """Whether warm-up has brought the SM clock to where it stays.

    Law: of the last n = SETTLED_READINGS known clocks f, (max f − min f) ≤ SETTLED_SPREAD · max f, and the last is not
    above the first (a clock still creeping up is not settled, however slowly). Readings without a clock are left out;
    with fewer than n known clocks the answer is False, so whoever waits for True needs a time limit as well.
    """
    clocks = [reading.sm_clock_hertz for reading in readings if reading.sm_clock_hertz is not None][-SETTLED_READINGS:]
    if len(clocks) < SETTLED_READINGS:
        return False
    return max(clocks) - min(clocks) <= SETTLED_SPREAD * max(clocks) and clocks[-1] <= clocks[0]


def _start() -> tuple[Any | None, str]:
    """NVML, initialized (it counts: each start wants one nvmlShutdown), or why not."""
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
    """What an NVML function says, or None: not supported, not permitted, not in this driver or in this nvidia-ml-py."""
    try:
        value = getattr(nvml, function)(*args)
    except (nvml.NVMLError, AttributeError):
        return None
    return None if isinstance(value, int) and value in _NOT_AVAILABLE else value


def _field(value: Any) -> int | None:
    """One answer of nvmlDeviceGetFieldValues: each has a status and a type of its own."""
    member = _FIELD_VALUES.get(value.valueType) if value.nvmlReturn == 0 else None
    return None if member is None else int(getattr(value.value, member))


def _known(value: int | None) -> int | None:
    return None if value is None or value in _NOT_AVAILABLE else int(value)


def _scaled(value: int | None, factor: int) -> int | None:
    return None if value is None else value * factor


def _thousandth(value: int | None) -> float | None:
    return None if value is None else value / 1000
