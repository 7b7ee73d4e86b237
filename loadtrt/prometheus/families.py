"""Every metric that loadtrt exports, by name, kind, unit and meaning: one table, which the exporter, the export of
finished runs, the docs and the dashboards' tests read.

Names follow Prometheus: prefix `loadtrt_`, base units, `_total` for counters. Every series has the labels `model` and
`run` beside the family's own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from loadtrt.records.histogram import BUCKETS, bounds_of
from loadtrt.records.records import METRICS
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from loadtrt.results.engine_info import EngineInfo

Kind: TypeAlias = Literal["counter", "gauge", "histogram", "summary", "info"]

RUN_LABELS = ("model", "run")
# Ten a decade from 1 µs to 10 s, one set for all: a queue's median is often below 2 µs, a small plan's latency 30 µs.
_STEPS = (100, 125, 160, 200, 250, 315, 400, 500, 630, 800)
BOUNDS_NS = (*(step * 10**decade for decade in range(1, 8) for step in _STEPS), 10 * SECOND_NS)

_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


@dataclass(frozen=True, slots=True)
class Family:
    """name: as queries write it, but for what histograms append (_bucket, _count, _sum). unit: which the name ends in,
    "" for plain numbers. labels: beside RUN_LABELS and the `le` and `quantile` of histograms and summaries, which are
    floats: "1.0", as OpenMetrics has it and Prometheus 3 makes it, never "1".
    """

    name: str
    kind: Kind
    unit: str
    help: str
    labels: tuple[str, ...] = ()

    @property
    def stem(self) -> str:
        """The name as OpenMetrics declares it: without _total and _info."""
        return self.name.removesuffix("_total" if self.kind == "counter" else f"_{self.kind}")


# What requests met. The histograms' order is that of METRICS.
HISTOGRAMS = tuple(Family(f"loadtrt_{m.name}_seconds", "histogram", "seconds", f"{m.name}: {m.help}") for m in METRICS)
WINDOW = Family(
    "loadtrt_latency_window_seconds",
    "summary",
    "seconds",
    "quantiles of the latencies of the last whole second, within 0.4 %; 1.0 is the maximum",
)
LOAD_RATIO = Family("loadtrt_load_ratio", "histogram", "ratio", "latency over compute of served requests: 1 is no load")
REQUESTS = Family(
    "loadtrt_requests_total",
    "counter",
    "",
    "finished requests by outcome: ok, failed, or unserved and dropped, which have no lane",
    ("lane", "outcome"),
)
INFERENCES = Family("loadtrt_inferences_total", "counter", "", "items of the batches of requests that were served")
SUBMITTED = Family("loadtrt_submitted_total", "counter", "", "requests sent to the engine")
COMPUTE = Family("loadtrt_lane_compute_seconds_total", "counter", "seconds", "time that a lane computed", ("lane",))
SERVICE = Family(
    "loadtrt_lane_service_seconds_total", "counter", "seconds", "service times of a lane's served requests", ("lane",)
)

# How it stands at this moment.
IN_FLIGHT = Family("loadtrt_in_flight", "gauge", "", "requests sent and not completed")
WAITING = Family("loadtrt_waiting", "gauge", "", "requests due and not sent: the depth of the queue")
BUSY_LANES = Family("loadtrt_busy_lanes", "gauge", "", "lanes with a request in flight")
LANES = Family("loadtrt_lanes", "gauge", "", "execution contexts")
OFFERED = Family("loadtrt_offered_requests_per_second", "gauge", "", "rate of arrivals; none in a closed loop")
PHASE = Family("loadtrt_phase", "gauge", "", "1 for the phase that the run is in", ("phase",))
START = Family("loadtrt_start_time_seconds", "gauge", "seconds", "when measuring began, Unix time")
SNAPSHOT_AGE = Family("loadtrt_snapshot_age_seconds", "gauge", "seconds", "since the measuring process last wrote")
OBSERVER_CPU = Family(
    "loadtrt_observer_cpu_seconds_total",
    "counter",
    "seconds",
    "processor time of the observer process, which serves this",
)
MISSED = Family(
    "loadtrt_observer_missed_requests_total",
    "counter",
    "",
    "finished requests that are in no count here, as the observer process stood still for too long",
)

# What is promised.
GOOD = Family(
    "loadtrt_objective_good_total", "counter", "", "requests served within the objective's bound", ("objective",)
)
OBJECTIVE_REQUESTS = Family(
    "loadtrt_objective_requests_total",
    "counter",
    "",
    "requests that the objective is about: all finished",
    ("objective",),
)
BOUND = Family("loadtrt_objective_bound_seconds", "gauge", "seconds", "the objective's bound", ("objective",))
TARGET = Family(
    "loadtrt_objective_target_ratio", "gauge", "ratio", "the part of requests that must be good", ("objective",)
)

# What runs.
RUN_INFO = Family("loadtrt_run_info", "info", "", "what is measured, in labels; always 1")
BUILD_INFO = Family("loadtrt_build_info", "info", "", "the loadtrt that measures: label version; always 1")

# The GPU, by NVML.
GPU_UTILIZATION = Family(
    "loadtrt_gpu_utilization_ratio", "gauge", "ratio", "part of NVML's sample period in which any kernel ran"
)
GPU_MEMORY_UTILIZATION = Family(
    "loadtrt_gpu_memory_utilization_ratio",
    "gauge",
    "ratio",
    "part of NVML's sample period in which device memory was read or written",
)
GPU_CLOCK = Family("loadtrt_gpu_clock_hertz", "gauge", "hertz", "clock now", ("domain",))
GPU_CLOCK_MAX = Family("loadtrt_gpu_clock_max_hertz", "gauge", "hertz", "highest clock", ("domain",))
GPU_POWER = Family("loadtrt_gpu_power_watts", "gauge", "watts", "power drawn")
GPU_POWER_LIMIT = Family("loadtrt_gpu_power_limit_watts", "gauge", "watts", "power limit enforced")
GPU_ENERGY = Family("loadtrt_gpu_energy_joules_total", "counter", "joules", "energy used since the driver was loaded")
GPU_TEMPERATURE = Family("loadtrt_gpu_temperature_celsius", "gauge", "celsius", "temperature of the core")
GPU_MEMORY_USED = Family(
    "loadtrt_gpu_memory_used_bytes", "gauge", "bytes", "memory in use, with what the driver reserves"
)
GPU_MEMORY_TOTAL = Family("loadtrt_gpu_memory_total_bytes", "gauge", "bytes", "memory of the GPU")
GPU_THROTTLE = Family(
    "loadtrt_gpu_throttle_active", "gauge", "", "1 where this reason holds the clocks now", ("reason",)
)
GPU_PCIE = Family(
    "loadtrt_gpu_pcie_bytes_total",
    "counter",
    "bytes",
    "bytes over PCIe since it was first looked at: rx to the GPU, tx from it",
    ("direction",),
)

FAMILIES = (
    *HISTOGRAMS,
    *(WINDOW, LOAD_RATIO, REQUESTS, INFERENCES, SUBMITTED, COMPUTE, SERVICE),
    *(IN_FLIGHT, WAITING, BUSY_LANES, LANES, OFFERED, PHASE, START, SNAPSHOT_AGE, OBSERVER_CPU, MISSED),
    *(GOOD, OBJECTIVE_REQUESTS, BOUND, TARGET, RUN_INFO, BUILD_INFO),
    *(GPU_UTILIZATION, GPU_MEMORY_UTILIZATION, GPU_CLOCK, GPU_CLOCK_MAX, GPU_POWER, GPU_POWER_LIMIT, GPU_ENERGY),
    *(GPU_TEMPERATURE, GPU_MEMORY_USED, GPU_MEMORY_TOTAL, GPU_THROTTLE, GPU_PCIE),
)


def cumulated(counts: npt.NDArray[np.int64]) -> list[int]:
    """How many values are at most each of BOUNDS_NS, and at last how many there are.

    counts: int64 [BUCKETS] of a Histogram. A bucket counts by its middle, so a bound is off by 0.4 % at most.
    """
    reached = np.cumsum(counts)
    return [*reached[_last_within()].tolist(), int(reached[-1])]


@cache
def _last_within() -> npt.NDArray[np.int64]:
    """The last bucket whose middle is within each bound."""
    return np.searchsorted(middles_ns(), BOUNDS_NS, side="right") - 1


@cache
def middles_ns() -> npt.NDArray[np.float64]:
    """The middle of each bucket of a Histogram, float64 [BUCKETS]."""
    low, width = bounds_of(np.arange(BUCKETS))
    middles: npt.NDArray[np.float64] = low + (width - 1) / 2
    return middles


def model_name(engine: EngineInfo) -> str:
    """The label `model`: what `--engine` said, without a plan's folder."""
    return Path(engine.name).name if engine.sha256 else engine.name


def information(engine: EngineInfo, arrivals: str, buffers: int) -> dict[str, str]:
    """What `loadtrt_run_info` says beside model, run and what was asked of it; names go through `label_name`."""
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


def label_name(text: str) -> str:
    """What Prometheus takes for the name of a label: ASCII letters, digits and _, no digit and no _ first."""
    return re.sub(r"^(?=\d|$)|^_+", "x", re.sub(r"\W", "_", text, flags=re.ASCII))


def series(name: str, labels: Mapping[str, str]) -> str:
    """A series as both text formats write it."""
    inner = ",".join([f'{label}="{_escaped(value)}"' for label, value in labels.items()])
    return f"{name}{{{inner}}}"


def declaration(name: str, kind: str, help_: str, unit: str = "") -> str:
    """A family's lines before its series, as both text formats write them. help_: nothing in it needs escaping."""
    lines = f"# HELP {name} {help_}\n# TYPE {name} {kind}\n"
    return f"{lines}# UNIT {name} {unit}\n" if unit else lines


@lru_cache(1024)  # a run's labels have few values, and lines by the thousand
def _escaped(value: str) -> str:
    return value.translate(_ESCAPES)
