"""A finished run as OpenMetrics with timestamps, for `promtool tsdb create-blocks-from openmetrics`. Names and labels
are those of the live exporter, so that its dashboards show old runs, too.

A run keeps a line an interval, a second or in a long run several: counts, quantiles of latency, and means. Histograms
are known at the end of the run only; until then those of latency, queue and compute have counts and sums, so that rates
and means can be drawn.
"""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime
from itertools import accumulate
from typing import TYPE_CHECKING, TypeAlias

from prometheus_client import Metric
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.samples import Sample, Timestamp

from loadtrt.findings.validity import PROBLEM_KINDS, lateness_limit_ns, typical_ns
from loadtrt.prometheus import families as table
from loadtrt.records.histogram import Histogram
from loadtrt.records.records import METRICS
from loadtrt.units import MILLISECOND_NS, SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadtrt.prometheus.families import Family
    from loadtrt.results.gpu_telemetry import GpuTelemetry
    from loadtrt.results.run_result import RunResult
    from loadtrt.results.steadiness import Interval

Series: TypeAlias = "Sequence[tuple[tuple[str, ...], Sequence[float | None]]]"  # by the values of the family's labels


def openmetrics_text(result: RunResult, run: str = "") -> str:
    """The text, ending in "# EOF". run: the label's value; by default the run's id."""
    # A file without an id is named by when the run began, such as 20261004-101112.
    name = run or result.run or f"{datetime.fromisoformat(result.started):%Y%m%d-%H%M%S}"
    text: bytes = generate_latest(_Export(result, name))  # type: ignore[no-untyped-call]
    return text.decode()


class _Export:
    """A collector of prometheus_client. Samples are at the instants for which a run has numbers: the start of measuring
    and the end of each interval."""

    def __init__(self, result: RunResult, run: str) -> None:
        self._result = result
        (name,) = result.models
        self._labels = {"model": name if result.beside else table.model_name(result.model.engine), "run": run}
        gpu = result.environment.get("gpu")
        uuid = gpu.get("uuid") if isinstance(gpu, dict) else None
        self._of_gpu = table.gpu_labels(uuid and str(uuid), str(result.environment.get("host", "")))
        instants = range(max(len(result.model.intervals), 1) + 2)  # one more, at which gauges end
        interval_ns = result.model.interval_ns
        *self._times, self._over = [_timestamp(result.began_ns + number * interval_ns) for number in instants]
        if interval_ns == SECOND_NS:
            self._window = "last whole second"
        else:
            self._window = f"last {interval_ns // SECOND_NS} s"

    def collect(self) -> Iterator[Metric]:
        """All families for which the run has numbers, in the order of the table."""
        for place, family in enumerate(table.HISTOGRAMS):
            yield from self._histogram(family, METRICS[place].name)
        intervals = self._result.model.intervals
        quantiles = {"0.5": "p50", "0.9": "p90", "0.99": "p99", "1.0": "max"}
        latencies = []
        for rank, name in quantiles.items():
            values_ns = (getattr(interval, f"latency_{name}_ns") for interval in intervals)
            latencies.append(((rank,), [None if ns is None else ns / SECOND_NS for ns in values_ns]))
        text = table.WINDOW.help.replace("last whole second", self._window)
        yield from self._gauge(replace(table.WINDOW, labels=("quantile",), help=text), latencies)
        yield from self._counts()
        yield from self._constants()
        yield from self._objectives()
        if (sharing := self._result.sharing) is not None:  # of the whole run, at its end
            yield self._metric(table.GPU_OTHERS, [((), [len(sharing.clients)])], self._times[-1:])
            yield self._metric(table.GPU_OTHERS_MEMORY, [((), [sharing.memory_bytes])], self._times[-1:])
            if sharing.sm_ratio is not None:
                yield self._metric(table.GPU_OTHERS_SM, [((), [sharing.sm_ratio])], self._times[-1:])
        if self._result.telemetry is not None:
            yield from self._gpu(self._result.telemetry)

    def _counts(self) -> Iterator[Metric]:
        """Requests by outcome, inferences and compute. Intervals do not distinguish lanes."""
        model = self._result.model
        intervals = model.intervals
        ok = self._cumulated([interval.requests for interval in intervals], model.ok)
        failed = self._cumulated([interval.failed for interval in intervals], model.failed)
        without_lane = {name: self._cumulated([], getattr(model, name)) for name in ("unserved", "dropped")}
        outcomes = {"ok": ok, "failed": failed, **without_lane}
        yield self._metric(table.REQUESTS, [(("", outcome), reached) for outcome, reached in outcomes.items()])
        yield self._metric(table.INFERENCES, [((), [count * model.inferences / max(model.ok, 1) for count in ok])])
        if "compute" in model.histograms:
            computed = self._cumulated(_sums_ns(intervals, "compute"), int(model.histograms["compute"]["sum_ns"]))
            yield self._metric(table.COMPUTE, [(("",), [ns / SECOND_NS for ns in computed])])

    def _constants(self) -> Iterator[Metric]:
        """Numbers that do not change: at each interval all the same, as Prometheus looks back five minutes only."""
        model, asked, count = self._result.model, self._result.config.model, len(self._times)
        yield self._metric(table.LANES, [((), [len(model.lanes)] * count)])
        yield from self._gauge(table.OFFERED, [((), [model.throughput.offered_per_s] * (count - 1))])
        yield self._metric(table.START, [((), [float(self._times[0])] * count)])
        typical = typical_ns(model.metrics["latency"])
        limit_ns = lateness_limit_ns(typical, asked.load.closed, asked.max_lateness, asked.objectives)
        if math.isfinite(limit_ns):
            yield from self._gauge(table.LATENESS_LIMIT, [((), [limit_ns / SECOND_NS] * (count - 1))])
        information = table.information(model.engine, asked.load.options()["arrivals"], asked.buffers)
        labels = {
            table.label_name(name): value for name, value in {**self._result.config.labels, **information}.items()
        }
        yield self._info(table.RUN_INFO, {**labels, "batch": str(model.engine.batch), **self._of_gpu})
        yield self._info(table.BUILD_INFO, {"version": self._result.loadtrt})

    def _objectives(self) -> Iterator[Metric]:
        """Objectives, and the problems of the verdict. Totals are at the start and the end only: intervals do not have
        them, and 0 in each interval would be wrong."""
        model, count = self._result.model, len(self._times) - 1
        finished = model.ok + model.failed + model.unserved + model.dropped
        ends = [self._times[0], self._times[-1]]
        shares = [item for item in model.objectives if item.objective.of_requests]
        if shares:
            yield self._metric(table.GOOD, [((share.objective.text,), [0, share.good]) for share in shares], ends)
            every = [((share.objective.text,), [0, finished]) for share in shares]
            yield self._metric(table.OBJECTIVE_REQUESTS, every, ends)
        goals = [share.objective for share in shares]
        timed = [goal for goal in goals if goal.kind == "quantile"]
        yield from self._gauge(table.BOUND, [((goal.text,), [goal.bound_ns / SECOND_NS] * count) for goal in timed])
        yield from self._gauge(table.TARGET, [((goal.text,), [goal.rank] * count) for goal in goals])
        numbers = [(item.objective, item.value) for item in model.objectives if item.value is not None]
        attained = [((objective.text,), [objective.attained(value)]) for objective, value in numbers]
        if attained:
            yield self._metric(table.ATTAINED, attained, ends[1:])
        overloaded = model.steadiness is not None and model.steadiness.overloaded and not model.unserved
        active = {problem.kind for problem in model.problems} | ({"overloaded"} if overloaded else set())
        yield self._metric(table.PROBLEM, [((kind,), [float(kind in active)]) for kind in PROBLEM_KINDS], ends[1:])

    def _gpu(self, telemetry: GpuTelemetry) -> Iterator[Metric]:
        """Means of each interval; a reason's share of the interval's readings instead of 0 or 1."""
        intervals, gpu = telemetry.intervals[: len(self._times) - 1], telemetry.gpu
        for family, labels, values in (
            (table.GPU_UTILIZATION, (), [interval.utilization_mean_ratio for interval in intervals]),
            (table.GPU_MEMORY_UTILIZATION, (), [interval.memory_utilization_mean_ratio for interval in intervals]),
            (table.GPU_CLOCK, ("sm",), [interval.sm_clock_mean_hertz for interval in intervals]),
            (table.GPU_CLOCK_MAX, ("sm",), [gpu.max_sm_clock_hertz for _ in intervals]),
            (table.GPU_POWER, (), [interval.power_mean_watts for interval in intervals]),
            (table.GPU_POWER_LIMIT, (), [gpu.power_limit_watts for _ in intervals]),
            (table.GPU_TEMPERATURE, (), [interval.temperature_max_celsius for interval in intervals]),
            (table.GPU_MEMORY_USED, (), [interval.memory_used_max_bytes for interval in intervals]),
            (table.GPU_MEMORY_TOTAL, (), [gpu.memory_total_bytes for _ in intervals]),
        ):
            yield from self._gauge(family, [(labels, values)])
        shares = [interval.throttle_shares for interval in intervals]
        reasons = dict.fromkeys(reason for share in shares for reason in share or ())
        held = [((name,), [None if share is None else share.get(name, 0.0) for share in shares]) for name in reasons]
        yield from self._gauge(table.GPU_THROTTLE, held)
        yield from self._added(table.GPU_ENERGY, [((), [interval.energy_joules for interval in intervals])])
        moved = [((way,), [getattr(interval, f"pcie_{way}_bytes") for interval in intervals]) for way in ("rx", "tx")]
        yield from self._added(table.GPU_PCIE, moved)

    def _histogram(self, family: Family, name: str) -> Iterator[Metric]:
        """Zeros at the start; each interval's count and sum, in the bucket that every histogram has; all at the end."""
        packed = self._result.model.histograms.get(name)
        if packed is None:
            return
        whole, metric = Histogram.from_dict(packed), _declared(family)
        self._add_buckets(metric, self._times[0], [0] * (len(table.BOUNDS_NS) + 1), 0)
        intervals = self._result.model.intervals[:-1]
        if name in ("latency", "queue", "compute"):
            counts = accumulate(interval.requests for interval in intervals)
            sums = accumulate(_sums_ns(intervals, name))
            for time, count, sum_ns in zip(self._times[1:], counts, sums, strict=False):
                self._add_buckets(metric, time, [count], sum_ns)
        self._add_buckets(metric, self._times[-1], table.cumulated(whole.counts), whole.sum)
        yield metric

    def _add_buckets(self, metric: Metric, time: Timestamp, reached: Sequence[int], sum_ns: int) -> None:
        bounds = [*(repr(bound / SECOND_NS) for bound in table.BOUNDS_NS), "+Inf"][-len(reached) :]
        for bound, count in zip(bounds, reached, strict=True):
            metric.samples.append(Sample(f"{metric.name}_bucket", {**self._labels, "le": bound}, count, time))
        metric.samples.append(Sample(f"{metric.name}_count", self._labels, reached[-1], time))
        metric.samples.append(Sample(f"{metric.name}_sum", self._labels, sum_ns / SECOND_NS, time))

    def _gauge(self, family: Family, series: Series) -> Iterator[Metric]:
        """Numbers of each interval, by the values of the family's labels; nothing where none is known. An interval
        without one is not a number, and so is the end: Prometheus would show the last number for five minutes more."""
        known = [
            (labels, [math.nan if number is None else number for number in [*numbers, None]])
            for labels, numbers in series
            if any(number is not None for number in numbers)
        ]
        if known:
            intervals = len(known[0][1]) - 1
            yield self._metric(family, known, [*self._times[1 : intervals + 1], self._over])

    def _added(self, family: Family, series: Series) -> Iterator[Metric]:
        """A counter by what each interval added; none unless all are known: a part would look like the whole."""
        whole = []
        for labels, gains in series:
            known = [gain for gain in gains if gain is not None]
            if known and len(known) == len(gains):
                whole.append((labels, self._cumulated(known, sum(known))))
        if whole:
            yield self._metric(family, whole)

    def _info(self, family: Family, labels: dict[str, str]) -> Metric:
        metric = _declared(family)
        metric.samples = [Sample(family.name, {**self._labels, **labels}, 1, time) for time in self._times]
        return metric

    def _metric(
        self, family: Family, series: Sequence[tuple[tuple[str, ...], Sequence[float]]], times: Sequence[Timestamp] = ()
    ) -> Metric:
        """A family, with the values of each series at these instants, by default all of the run's."""
        metric = _declared(family)
        own = {**self._labels, **(self._of_gpu if family.name.startswith("loadtrt_gpu_") else {})}
        for values_of_labels, values in series:
            labels = {**own, **dict(zip(family.labels, values_of_labels, strict=True))}
            metric.samples += [
                Sample(family.name, labels, value, time)
                for time, value in zip(times or self._times, values, strict=True)
            ]
        return metric

    def _cumulated(self, gains: Sequence[float], total: float) -> list[float]:
        """0 at the start, the sum so far after each interval, and `total` at the end: intervals may not have it all."""
        reached = [0, *accumulate(gains)]
        reached += [reached[-1]] * (len(self._times) - len(reached))
        return [*reached[: len(self._times) - 1], total]


def _sums_ns(intervals: Sequence[Interval], metric: str) -> list[int]:
    """Each interval's sum: mean times requests, an integer number of ns."""
    means = ((interval.requests, getattr(interval, f"{metric}_mean_ns")) for interval in intervals)
    return [round(requests * mean_ns) if requests else 0 for requests, mean_ns in means]


def _declared(family: Family) -> Metric:
    return Metric(family.stem, family.help, family.kind, family.unit)


def _timestamp(ns: int) -> Timestamp:
    """Unix time with milliseconds, which is what Prometheus keeps."""
    seconds, rest_ns = divmod(ns, SECOND_NS)
    return Timestamp(seconds, rest_ns // MILLISECOND_NS * MILLISECOND_NS)
