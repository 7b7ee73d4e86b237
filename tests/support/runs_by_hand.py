"""Results of runs made by hand: what findings and reports are tested with."""

from __future__ import annotations

import json
from typing import Any

from loadtrt.asked.config import RunConfig
from loadtrt.load.tensors import TensorSpec
from loadtrt.records.records import METRICS
from loadtrt.results.breakdown import Lane, MetricSummary, Overlap, Phases, Throughput
from loadtrt.results.engine_info import EngineInfo, MemoryBill
from loadtrt.results.run_result import ModelResult, RunResult
from loadtrt.results.steadiness import Steadiness
from loadtrt.units import SECOND_NS

US = 1_000
IMAGES = (
    TensorSpec("data", True, "fp32", (16, 3, 224, 224), 9_633_792),
    TensorSpec("prob", False, "fp32", (16, 1000), 64_000),
)


def summary(typical_us: float, count: int = 10_000, mean_us: float | None = None, p99_us: float | None = None) -> Any:
    """A metric whose median is typical_us; every percentile of it as far as `count` supports one."""
    typical, p99 = typical_us * US, (typical_us if p99_us is None else p99_us) * US
    least = {"p50": 7, "p90": 44, "p95": 90, "p99": 459, "p99.9": 4603}
    values = {"p50": typical, "p90": typical, "p95": typical, "p99": p99, "p99.9": p99}
    return MetricSummary(
        count=count,
        mean_ns=typical if mean_us is None else mean_us * US,
        min_ns=round(typical),
        max_ns=round(p99),
        percentiles_ns={name: value if count >= least[name] else None for name, value in values.items()},
    )


def engine(kind: str = "tensorrt", **changes: Any) -> EngineInfo:
    """GoogLeNet at batch 16 on an H100, or on a CPU."""
    gpu = kind == "tensorrt"
    values: dict[str, Any] = {
        "kind": kind,
        "name": "googlenet.plan" if gpu else "googlenet.onnx",
        "flavour": kind,
        "version": "10",
        "device": "NVIDIA H100" if gpu else "a CPU",
        "sha256": "",
        "batch": 16,
        "larger_batch": True,
        "tensors": IMAGES,
        "mode": {"graph": "yes", "copies": "yes", "wait": "spin"} if gpu else {"threads per context": "1"},
        **changes,
    }
    return EngineInfo(**values)


def run_of(
    times_us: dict[str, float] | None = None,
    options: dict[str, Any] | None = None,
    count: int = 10_000,
    busy: float | None = 0.999,
    at_once: float = 2.0,
    **changes: Any,
) -> RunResult:
    """A healthy closed loop of two contexts on a GPU, 10 s at 1 000 requests/s, that computes nearly all the time.

    times_us: medians (and means) of metrics; options: of `loadtrt run`; changes: of the result.
    """
    config = RunConfig.of(**{"engine": "googlenet.plan", "contexts": 2, **(options or {})})
    times = dict.fromkeys((metric.name for metric in METRICS), 0.0) | {
        "latency": 4_000,
        "service": 3_900,
        "enqueue": 30,
        "h2d": 180,
        "compute": 1_900,
        "d2h": 15,
        "lateness": 20,
        **(times_us or {}),
    }
    times["device"] = times["h2d"] + times["compute"] + times["d2h"]
    lanes = tuple(
        Lane(lane=lane, requests=count // config.model.contexts, service_p50_ns=3_900 * US, compute_p50_ns=1_900 * US)
        for lane in range(config.model.contexts)
    )
    values: dict[str, Any] = {
        "engine": engine(),
        "memory": MemoryBill(config.model.contexts, config.model.buffers, None, None, 0, 0, 0, None),
        "valid": True,
        "problems": (),
        "submitted": count,
        "ok": count,
        "failed": 0,
        "unserved": 0,
        "first_error": None,
        "throughput": Throughput(
            requests_per_s=count / 10, inferences_per_s=count * 1.6, offered_per_s=config.options().get("rate")
        ),
        "percentiles_exact": True,
        "metrics": {name: summary(time, count) for name, time in times.items()},
        "lanes": lanes,
        "fairness": 1.0,
        "overlap": None if busy is None else Overlap(busy_fraction=busy, lanes_computing=at_once),
        "starved_fraction": 0.0,
        "verification": None,
        "intervals": (),
        "histograms": {},
        "steadiness": Steadiness(transient_ns=0, overloaded=False),
        **{name: value for name, value in changes.items() if name in ModelResult.model_fields},
    }
    run: dict[str, Any] = {
        "loadtrt": "1",
        "started": "",
        "command": (),
        "config": config,
        "environment": {},
        "outcome": "completed",
        "failure": None,
        "valid": True,
        "phases": Phases(warmup_ns=SECOND_NS, clocks_settled=True, measure_ns=10 * SECOND_NS),
        "host_cores": 1.0,
        "clock": None,
        **{name: value for name, value in changes.items() if name in RunResult.model_fields},
    }
    return RunResult(**run, models=dict.fromkeys(config.models, ModelResult(**values)))


def model_in(run: dict[str, Any]) -> dict[str, Any]:
    """What a run.json holds of its one model."""
    model: dict[str, Any]
    (model,) = run["models"].values()
    return model


def with_changes(run: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A copy of a run.json with other values, of the run or of its one model."""
    copy: dict[str, Any] = json.loads(json.dumps(run))
    for key, value in changes.items():
        (model_in(copy) if key in ModelResult.model_fields and key != "valid" else copy)[key] = value
    return copy


def changed(result: RunResult, **changes: Any) -> RunResult:
    """The result with other attributes, of the run or of its one model."""
    of_model = {name: value for name, value in changes.items() if name in ModelResult.model_fields}
    of_run = {name: value for name, value in changes.items() if name in RunResult.model_fields}
    return result.with_model(**of_model).model_copy(update=of_run)
