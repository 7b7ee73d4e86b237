"""The table of every metric that loadtrt exports: name, kind, meaning and labels. The exporter, the export of finished
runs, the dashboards, the docs and their tests read it.

Names follow Prometheus' conventions: prefix `loadtrt_`, base units, `_total` for counters. Every series also has the
labels `model` and `run`, those of a GPU its UUID and the host's name, as dcgm-exporter has them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from loadtrt.records.histogram import BUCKETS, bounds_of
from loadtrt.records.records import METRICS
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    import numpy.typing as npt

    from loadtrt.results.engine_info import EngineInfo

Kind: TypeAlias = Literal["counter", "gauge", "histogram", "summary", "info"]

RUN_LABELS = ("model", "run")
GPU_LABELS = ("UUID", "Hostname")  # spelled as dcgm-exporter does, so that series join
WORKER_LABELS = ("worker", "device")  # of a fleet's workers, and of its GPUs the latter
BASE_UNITS = ("seconds", "ratio", "hertz", "watts", "joules", "celsius", "bytes")
# Ten a decade from 1 µs to 10 s, one set for all: a median queueing delay is often below 2 µs, a small plan's latency
# 30 µs.
_STEPS = (100, 125, 160, 200, 250, 315, 400, 500, 630, 800)
BOUNDS_NS = (*(step * 10**decade for decade in range(1, 8) for step in _STEPS), 10 * SECOND_NS)


@dataclass(frozen=True, slots=True)
class Family:
    """A metric.

    name: as queries write it, without what histograms append (_bucket, _count, _sum).
    kind: Prometheus' type.
    help: one line.
    labels: besides RUN_LABELS, WORKER_LABELS of a fleet's, GPU_LABELS of a GPU's, and `le` and `quantile` of histograms
        and summaries. These are floats: "1.0", as in OpenMetrics and Prometheus 3, never "1".
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()

    @property
    def stem(self) -> str:
        """The name in OpenMetrics' declarations: without _total and _info."""
        return self.name.removesuffix("_total" if self.kind == "counter" else f"_{self.kind}")

    @property
    def unit(self) -> str:
        """The base unit in which the name ends; "" for plain numbers."""
        unit = self.stem.rpartition("_")[2]
        return unit if unit in BASE_UNITS else ""


# Requests. The histograms are in the order of METRICS.
HISTOGRAMS = tuple(Family(f"loadtrt_{m.name}_seconds", "histogram", f"{m.name}: {m.help}") for m in METRICS)
WINDOW = Family(
    "loadtrt_latency_window_seconds",
    "summary",
    "quantiles of the latencies of the last whole second, within 0.4 %; 1.0 is the maximum",
)
WORKER_WINDOW = Family(
    "loadtrt_worker_latency_window_seconds",
    "summary",
    "as loadtrt_latency_window_seconds, of each worker of a fleet",
)
LOAD_RATIO = Family(
    "loadtrt_load_ratio", "histogram", "latency over compute of served requests; 1 without queueing delay"
)
REQUESTS = Family(
    "loadtrt_requests_total",
    "counter",
    "finished requests by outcome: ok, failed, or unserved and dropped, which have no lane",
    ("lane", "outcome"),
)
INFERENCES = Family("loadtrt_inferences_total", "counter", "items of the batches of served requests")
SUBMITTED = Family("loadtrt_submitted_total", "counter", "requests sent to the engine")
COMPUTE = Family("loadtrt_lane_compute_seconds_total", "counter", "time that a lane computed", ("lane",))
SERVICE = Family(
    "loadtrt_lane_service_seconds_total", "counter", "service times of a lane's served requests", ("lane",)
)

# The run now.
IN_FLIGHT = Family("loadtrt_in_flight", "gauge", "requests sent and not completed: concurrency")
WAITING = Family("loadtrt_waiting", "gauge", "requests due and not sent: the backlog")
BUSY_LANES = Family("loadtrt_busy_lanes", "gauge", "lanes with a request in flight")
LANES = Family("loadtrt_lanes", "gauge", "execution contexts")
OFFERED = Family("loadtrt_offered_requests_per_second", "gauge", "arrival rate (offered load); none in a closed loop")
PHASE = Family("loadtrt_phase", "gauge", "1 for the phase of the run", ("phase",))
POINTS = Family(
    "loadtrt_points",
    "gauge",
    "points of a sweep, or candidates of a search for capacity: done, measured now, and left",
    ("state",),
)
START = Family("loadtrt_start_time_seconds", "gauge", "when measuring began, Unix time")
SNAPSHOT_AGE = Family("loadtrt_snapshot_age_seconds", "gauge", "time since the measuring process last wrote")
OBSERVER_CPU = Family(
    "loadtrt_observer_cpu_seconds_total", "counter", "processor time of the observer process, which serves this page"
)
MISSED = Family(
    "loadtrt_observer_missed_requests_total",
    "counter",
    "finished requests that no metric counts, because the observer process was stopped for too long",
)
LOST = Family("loadtrt_workers_lost", "gauge", "workers of a fleet whose processes have ended without a result")

# The verdict's laws.
LATENESS_LIMIT = Family(
    "loadtrt_lateness_limit_seconds",
    "gauge",
    "p99 lateness (of few requests p95, p90 or the maximum) above which the run is INVALID; none in a closed loop "
    "without --max-lateness",
)
PROBLEM = Family("loadtrt_problem_active", "gauge", "1 if the run would have this problem if it ended now", ("kind",))
GOOD = Family("loadtrt_objective_good_total", "counter", "requests that are good for the objective", ("objective",))
OBJECTIVE_REQUESTS = Family(
    "loadtrt_objective_requests_total",
    "counter",
    "finished requests, to which the objective applies",
    ("objective",),
)
BOUND = Family("loadtrt_objective_bound_seconds", "gauge", "the objective's bound", ("objective",))
TARGET = Family("loadtrt_objective_target_ratio", "gauge", "the share of requests that must be good", ("objective",))
ATTAINED = Family(
    "loadtrt_objective_attained_ratio",
    "gauge",
    "the rate so far over the objective's bound, or the bound over the power or energy now: below 1 it is missed",
    ("objective",),
)

# What runs.
RUN_INFO = Family("loadtrt_run_info", "info", "the run, in labels; always 1")
BUILD_INFO = Family("loadtrt_build_info", "info", "version of loadtrt, in the label version; always 1")

# The GPU, from NVML.
GPU_UTILIZATION = Family(
    "loadtrt_gpu_utilization_ratio", "gauge", "share of NVML's sample period in which any kernel ran"
)
GPU_MEMORY_UTILIZATION = Family(
    "loadtrt_gpu_memory_utilization_ratio",
    "gauge",
    "share of NVML's sample period in which device memory was read or written",
)
GPU_CLOCK = Family("loadtrt_gpu_clock_hertz", "gauge", "clock now", ("domain",))
GPU_CLOCK_MAX = Family("loadtrt_gpu_clock_max_hertz", "gauge", "highest clock", ("domain",))
GPU_POWER = Family("loadtrt_gpu_power_watts", "gauge", "power drawn")
GPU_POWER_LIMIT = Family("loadtrt_gpu_power_limit_watts", "gauge", "enforced power limit")
GPU_ENERGY = Family("loadtrt_gpu_energy_joules_total", "counter", "energy since the driver was loaded")
GPU_TEMPERATURE = Family("loadtrt_gpu_temperature_celsius", "gauge", "temperature of the core")
GPU_MEMORY_USED = Family("loadtrt_gpu_memory_used_bytes", "gauge", "memory in use, the driver's reserve included")
GPU_MEMORY_TOTAL = Family("loadtrt_gpu_memory_total_bytes", "gauge", "memory of the GPU")
GPU_THROTTLE = Family("loadtrt_gpu_throttle_active", "gauge", "1 if this reason throttles the clocks now", ("reason",))
GPU_OTHERS = Family("loadtrt_gpu_other_processes", "gauge", "other processes on the GPU since measuring began")
GPU_OTHERS_MEMORY = Family("loadtrt_gpu_other_memory_bytes", "gauge", "GPU memory of other processes, at most")
GPU_OTHERS_SM = Family(
    "loadtrt_gpu_other_kernels_ratio",
    "gauge",
    "share of the time since measuring began in which kernels of other processes ran; none where NVML does not tell",
)
GPU_PCIE = Family(
    "loadtrt_gpu_pcie_bytes_total",
    "counter",
    "bytes over PCIe since sampling began: rx to the GPU, tx from it",
    ("direction",),
)

OF_FLEETS = (WORKER_WINDOW, LOST)  # which runs of one process have not
FAMILIES = (*HISTOGRAMS, *(family for family in list(globals().values()) if isinstance(family, Family)))


def cumulated(counts: npt.NDArray[np.int64]) -> list[int]:
    """The number of values up to each of BOUNDS_NS, and the number of all values.

    counts: int64 [BUCKETS] of a Histogram. A bucket counts at its middle, so that bounds are exact within 0.4 %.
    """
    reached = np.cumsum(counts)
    return [*reached[_last_within()].tolist(), int(reached[-1])]


@cache
def _last_within() -> npt.NDArray[np.int64]:
    """For each bound the last bucket whose middle is within it."""
    return np.searchsorted(middles_ns(), BOUNDS_NS, side="right") - 1


@cache
def middles_ns() -> npt.NDArray[np.float64]:
    """The middle of each bucket of a Histogram, float64 [BUCKETS]."""
    low, width = bounds_of(np.arange(BUCKETS))
    middles: npt.NDArray[np.float64] = low + (width - 1) / 2
    return middles


def model_name(engine: EngineInfo) -> str:
    """The label `model`: the engine's name, without a plan's folder."""
    return Path(engine.name).name if engine.sha256 else engine.name


def information(engine: EngineInfo, arrivals: str, buffers: int) -> dict[str, str]:
    """The labels of `loadtrt_run_info`, besides model, run and size; names go through `label_name`."""
    return {
        "flavour": engine.flavour,
        "version": engine.version,
        "device": engine.device,
        "precision": engine.precision,
        "sha256": engine.sha256[:12],
        "arrivals": arrivals,
        "buffers": str(buffers),
        **engine.mode,
    }


def gpu_labels(uuid: str | None, host: str) -> dict[str, str]:
    """GPU_LABELS, as far as they are known."""
    return {label: value for label, value in zip(GPU_LABELS, (uuid, host), strict=True) if value}


def worker_labels(worker: str, device: str) -> dict[str, str]:
    """WORKER_LABELS, as far as there are any."""
    return {label: value for label, value in zip(WORKER_LABELS, (worker, device), strict=True) if value}


def label_name(text: str) -> str:
    """A text as the name of a label: ASCII letters, digits and _, beginning with a letter."""
    return re.sub(r"^(?=\d|$)|^_+", "x", re.sub(r"\W", "_", text, flags=re.ASCII))
