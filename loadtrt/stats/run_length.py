"""How long a run must be: whether it had too few requests, and the options that make it longer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from loadtrt.asked.load import Offline, Stages
from loadtrt.asked.trace_load import Trace
from loadtrt.results.breakdown import PERCENTILES
from loadtrt.results.run_result import Finding
from loadtrt.stats.sample_size import least_samples
from loadtrt.units import SECOND_NS, exact_duration, plural

if TYPE_CHECKING:
    from loadtrt.results.run_result import RunResult

_MORE = 1.2  # times the requests that are needed, as Poisson arrivals vary


def few_samples(result: RunResult) -> Finding | None:
    """Too few requests for p99. Few readers ask for p99.9, so that a dash in the table suffices there."""
    latency = result.model.metrics["latency"]
    supported = [name for name in PERCENTILES if latency.percentiles_ns[name] is not None]
    if "p99" in supported or result.outcome != "completed" or result.model.ended_early:
        return None
    needed = least_samples(PERCENTILES["p99"])
    seconds = _MORE * needed / latency.count * result.phases.measure_ns / SECOND_NS if latency.count else 0.0
    support, above = "supports" if latency.count == 1 else "support", f" above {supported[-1]}" if supported else ""
    return Finding(
        kind="few-samples",
        evidence=f"{plural(latency.count, 'request')} {support} no percentile{above}; p99 needs {needed}",
        cause="with fewer requests even the slowest may be faster than the true p99",
        remedy=_as_many(result, needed) if _counted(result) else longer(result, seconds),
    )


def _as_many(result: RunResult, needed: int) -> str:
    """The options that get `needed` requests served where the run is as long as its number of requests. Offline all
    are due at once, so that a bounded queue drops the same ones however many there are."""
    if is_offline(result) and result.model.dropped:
        more = "" if (result.config.model.requests or 0) >= needed else f" with --requests {needed}"
        return f"a larger --max-queue{more}"
    return f"--requests {math.ceil(needed * (result.model.ok + result.model.dropped) / result.model.ok)}"


def longer(result: RunResult, seconds: float) -> str:
    """The option that makes the run last `seconds`: the one that decides its length now. A run that ended before its
    time was to be as long already, and twice that is longer."""
    config, load = result.config, result.config.model.load
    asked = config.least_ns(config.model) / SECOND_NS
    seconds = seconds if seconds > asked else 2 * asked
    if config.max_duration is not None and config.duration is None:
        return f"--max-duration {whole_seconds(seconds * SECOND_NS)}"
    if type(load) is Stages:
        return f"--stages that last {whole_seconds(seconds * SECOND_NS)}"
    if type(load) is Trace:
        return f"--trace-loop --duration {whole_seconds(seconds * SECOND_NS)}"
    if _counted(result):
        rate = result.model.throughput.requests_per_s or 0.0
        return f"--requests {max(round(rate * seconds), 2 * (config.model.requests or 0))}"
    return f"--duration {whole_seconds(seconds * SECOND_NS)}"


def _counted(result: RunResult) -> bool:
    """Whether the number of requests decided the length of the run."""
    config = result.config
    return config.model.requests is not None and config.duration is None and config.max_duration is None


def is_offline(result: RunResult) -> bool:
    return isinstance(result.config.model.load, Offline)


def whole_seconds(ns: float) -> str:
    """Text of a duration, rounded up to whole seconds, as an option takes it."""
    return exact_duration(max(math.ceil(ns / SECOND_NS), 1) * SECOND_NS)
