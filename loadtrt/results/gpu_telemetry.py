"""A GPU by NVML: single readings, and the GPU over a run as run.json keeps it.

Units are Prometheus' base units (hertz, watts, joules, celsius, bytes, ratios 0 to 1); instants are ns. None means that
the GPU, the driver or the user's permissions do not give the number; it is never 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadtrt.results import Model
from loadtrt.units import format_bytes, rough_percent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from loadtrt.results.steadiness import Interval

_REMEMBERED = ("at_ns", "max_sm_clock_hertz", "sharing")
# Of the time. On an H200 kernels of 1 ms that took 0.5 % of it raised p99 of requests of 5.5 ms by 16 %: each of them
# makes all requests late that are in flight (docs/h200.md).
SHARED_LIMIT = 0.005
MOST_NAMED = 4
LOADTRT = "loadtrt"  # the name of another one


@dataclass(frozen=True, slots=True)
class Slowdown:
    """A reason for which a loaded GPU runs slower than it could."""

    cause: str
    remedy: str


_COOL = "cool the GPU (airflow, fans, its neighbours), or lock lower clocks (nvidia-smi -lgc)"
# The one table of slow-downs, for the verdict's findings, live alerts, the doctor and Grafana's rules. NVML's other
# reasons (gpu_idle, applications_clocks_setting, ...) are normal or chosen. hw_slowdown comes last: NVML sets it
# together with every other hardware reason.
SLOWDOWNS: Mapping[str, Slowdown] = {
    "sw_power_cap": Slowdown(
        "power cap", "raise the power limit (nvidia-smi -pl), or lock lower clocks (nvidia-smi -lgc)"
    ),
    "sw_thermal_slowdown": Slowdown("heat", _COOL),
    "hw_thermal_slowdown": Slowdown("heat (hardware protection)", _COOL),
    "hw_power_brake_slowdown": Slowdown(
        "the power supply's brake",
        "the server holds its GPUs back: look at its power supplies and its management controller",
    ),
    "hw_slowdown": Slowdown(
        "hardware protection",
        "look at 'nvidia-smi -q -d PERFORMANCE,TEMPERATURE' for what the hardware protects itself from",
    ),
}


def slowdowns_of(reasons: Iterable[str]) -> tuple[str, ...]:
    """Those of NVML's reasons that slow a loaded GPU, in the order of SLOWDOWNS; without hw_slowdown where another one
    explains it."""
    active = set(reasons)
    known = tuple(reason for reason in SLOWDOWNS if reason in active)
    return known[:-1] if len(known) > 1 and known[-1] == "hw_slowdown" else known


@dataclass(frozen=True, slots=True)
class GpuClient:
    """Another process on the GPU, while a run measured.

    pid: as the driver gives it: in a container it may be the host's.
    name: of its program; None where it is not known.
    memory_bytes: the most that it held; None where it is not known.
    grew: whether it came, or took more memory, meanwhile.
    sm_ratio: part of the time in which its kernels ran; None where the driver does not tell.
    """

    pid: int
    name: str | None = None
    memory_bytes: int | None = None
    grew: bool = False
    sm_ratio: float | None = None

    @property
    def computed(self) -> bool:
        """Whether it spoils a measurement: its kernels ran for SHARED_LIMIT of the time. Where that is not told, a
        process that came or grew, or is another loadtrt, is taken for one that computed; one that held memory is
        not."""
        return self.grew or self.name == LOADTRT if self.sm_ratio is None else self.sm_ratio >= SHARED_LIMIT

    @property
    def text(self) -> str:
        """Such as "python3 (process 4242, 2.1 GiB, kernels for 48 % of the time)"."""
        words = [f"process {self.pid}"] if self.name else []
        words += [format_bytes(self.memory_bytes)] if self.memory_bytes else []
        words += [f"kernels for {rough_percent(self.sm_ratio)} of the time"] if self.sm_ratio else []
        name = self.name or f"process {self.pid}"
        return f"{name} ({', '.join(words)})" if words else name


@dataclass(frozen=True, slots=True)
class GpuSharing:
    """Who else used the GPU.

    clients: other processes on it, those that computed most first.
    own_sm_ratio: part of the time in which kernels of this run ran, as the driver counts it; None: not known.
    told: whether the driver tells whose kernels ran.
    mps: whether this run computed through the MPS server.
    unknown: what NVML does not tell, in words.
    """

    clients: tuple[GpuClient, ...] = ()
    own_sm_ratio: float | None = None
    told: bool = True
    unknown: tuple[str, ...] = ()
    mps: bool = False

    @property
    def computing(self) -> tuple[GpuClient, ...]:
        """Those that spoil a measurement."""
        return tuple(client for client in self.clients if client.computed)

    @property
    def memory_bytes(self) -> int:
        """What all of them held, as far as it is known."""
        return sum(client.memory_bytes or 0 for client in self.clients)

    @property
    def sm_ratio(self) -> float | None:
        """Part of the time in which their kernels ran; None where the driver does not tell of each."""
        shares = [client.sm_ratio for client in self.clients if client.sm_ratio is not None]
        return min(sum(shares), 1.0) if self.told and len(shares) == len(self.clients) else None


def clients_text(clients: Sequence[GpuClient]) -> str:
    """The processes in words, at most four of them by name."""
    more = f" and {len(clients) - MOST_NAMED} more" if len(clients) > MOST_NAMED else ""
    return ", ".join(client.text for client in clients[:MOST_NAMED]) + more


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One reading of a GPU.

    at_ns: perf_counter_ns when the reading began.
    sm_clock_hertz, memory_clock_hertz: clocks now.
    max_sm_clock_hertz: the highest SM clock.
    power_watts, power_limit_watts: power drawn, and the enforced limit.
    energy_joules: energy since the driver was loaded; only differences count.
    temperature_celsius: of the core.
    memory_used_bytes, memory_total_bytes: device memory, the driver's reserve included.
    utilization_ratio: part of NVML's sample period (1/6 to 1 s) in which any kernel ran.
    throttle_reasons: names of THROTTLE_REASONS (live/nvml.py), empty when nothing holds the clocks.
    performance_state: 0 (P0, fastest) to 15.
    memory_utilization_ratio: part of the sample period in which device memory was read or written: time, not bandwidth.
    pcie_rx_bytes, pcie_tx_bytes: counters of bytes that the GPU received (inputs) and sent (outputs); they wrap at 2³²
        on some GPUs, and only differences count.
    sharing: who else has used the GPU since measuring began; an observer's alone.
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
    sharing: GpuSharing | None = None

    @property
    def answered(self) -> bool:
        """Whether the GPU answered anything. max_sm_clock_hertz is remembered, which is not an answer."""
        return any(getattr(self, name) is not None for name in self.__slots__ if name not in _REMEMBERED)

    @property
    def slowdowns(self) -> tuple[str, ...]:
        """The reasons that slow this GPU down now; empty where nothing is known."""
        return slowdowns_of(self.throttle_reasons or ())


class GpuInterval(Model):
    """An interval of the run, the last one shorter: the same one as the `Interval` with its `start_ns`.

    start_ns, duration_ns: since measuring began.
    readings: how many readings fell into the interval. Clocks, power, temperature, memory and utilization are of these.
    sm_clock_throttled_hertz: mean over the readings with a slow-down.
    energy_joules, pcie_rx_bytes, pcie_tx_bytes: differences of counters, interpolated linearly at the interval's
        edges, so that adjoining intervals add up exactly. rx: received by the GPU.
    throttle_shares: for each reason, the share of the readings that named it. Several may be active at once, so that
        the sum may exceed 1.
    throttled_fraction: share of the readings with any slow-down (a reason in SLOWDOWNS).
    """

    start_ns: int
    duration_ns: int
    readings: int
    sm_clock_mean_hertz: float | None = None
    sm_clock_min_hertz: float | None = None
    sm_clock_max_hertz: float | None = None
    sm_clock_throttled_hertz: float | None = None
    power_mean_watts: float | None = None
    power_max_watts: float | None = None
    temperature_max_celsius: float | None = None
    memory_used_max_bytes: int | None = None
    utilization_mean_ratio: float | None = None
    memory_utilization_mean_ratio: float | None = None
    energy_joules: float | None = None
    pcie_rx_bytes: int | None = None
    pcie_tx_bytes: int | None = None
    throttle_shares: dict[str, float] | None = None
    throttled_fraction: float | None = None


class GpuFacts(Model):
    """Facts of a GPU that do not change during a run.

    most_power_watts: the highest power limit that can be set.
    slowdown_celsius: the temperature at which the GPU slows down to protect itself.
    """

    name: str | None
    max_sm_clock_hertz: int | None = None
    power_limit_watts: float | None = None
    most_power_watts: float | None = None
    slowdown_celsius: int | None = None
    memory_total_bytes: int | None = None


class SamplingCost(Model):
    """The cost of sampling, since the sampler started.

    readings: readings kept.
    lost: deadlines that passed without a reading.
    seconds: time spent in NVML.
    fraction: `seconds` as a part of the time sampled.
    """

    readings: int
    lost: int
    seconds: float
    fraction: float


class GpuTelemetry(Model):
    """A GPU over the measured time.

    every_ns: time between readings.
    power_mean_watts: energy / duration where the energy is known, else the mean of the readings.
    energy_joules: sum over the intervals; None unless every one is known, as a part would look like the whole.
    joules_per_inference: energy_joules / inferences served: the whole GPU's energy, with idle time and other users.
    throttled_fraction: share of all readings with a slow-down.
    missing: values that are not known, in words.
    """

    gpu: GpuFacts
    every_ns: int
    intervals: tuple[GpuInterval, ...]
    power_mean_watts: float | None
    energy_joules: float | None
    joules_per_inference: float | None
    throttled_fraction: float | None
    missing: tuple[str, ...]
    cost: SamplingCost


def telemetry_of(
    gpu: GpuFacts,
    intervals: Sequence[GpuInterval],
    inferences: int,
    *,
    every_ns: int,
    missing: Sequence[str],
    cost: SamplingCost,
) -> GpuTelemetry:
    """Sum intervals up. inferences: inferences served in the time of the intervals."""
    energies = [interval.energy_joules for interval in intervals if interval.energy_joules is not None]
    energy = sum(energies) if intervals and len(energies) == len(intervals) else None
    seconds = sum(interval.duration_ns for interval in intervals) / 1e9
    power = weighted_mean(intervals, lambda interval: interval.power_mean_watts)
    return GpuTelemetry(
        gpu=gpu,
        every_ns=every_ns,
        intervals=tuple(intervals),
        power_mean_watts=power if energy is None or not seconds else energy / seconds,
        energy_joules=energy,
        joules_per_inference=energy / inferences if energy is not None and inferences else None,
        throttled_fraction=weighted_mean(intervals, lambda interval: interval.throttled_fraction),
        missing=tuple(missing),
        cost=cost,
    )


def weighted_mean(intervals: Sequence[GpuInterval], of: Callable[[GpuInterval], float | None]) -> float | None:
    """Σ n·x / Σ n over the intervals with a known x, n their readings: the mean over all readings. None without any."""
    known = [(interval.readings, value) for interval in intervals if (value := of(interval)) is not None]
    weight = sum(readings for readings, _ in known)
    return sum(readings * value for readings, value in known) / weight if weight else None


def mark_throttled(intervals: Sequence[Interval], telemetry: GpuTelemetry | None) -> tuple[Interval, ...]:
    """The run's intervals, each marked as throttled if any reading in it shows a slow-down; None without readings."""
    fractions = {look.start_ns: look.throttled_fraction for look in telemetry.intervals} if telemetry else {}
    return tuple(
        interval.model_copy(update={"throttled": None if fraction is None else fraction > 0})
        for interval in intervals
        for fraction in (fractions.get(interval.start_ns),)
    )
