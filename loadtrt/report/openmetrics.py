"""A finished run as OpenMetrics with timestamps, for `promtool tsdb create-blocks-from openmetrics`. Names and labels
are those of the live exporter, so that its dashboards show old runs, too.

A run keeps a line a second: counts, quantiles of latency, and means. Histograms are known at the run's end alone; until
then those of latency, queue and compute have their counts and sums, so that rates and means can be drawn.
"""

from __future__ import annotations

from datetime import datetime
from itertools import accumulate
from typing import TYPE_CHECKING

from loadtrt.prometheus import families as table
from loadtrt.records.histogram import Histogram
from loadtrt.records.records import METRICS
from loadtrt.units import MILLISECOND_NS, SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from loadtrt.prometheus.families import Family
    from loadtrt.results.gpu_telemetry import GpuTelemetry
    from loadtrt.results.interval import Interval
    from loadtrt.results.run_result import RunResult


def openmetrics_text(result: RunResult, run: str = "") -> str:
    """The text, ending in "# EOF". run: the label's value; when the run began, such as 20261004-101112, if empty."""
    return "".join([*_Export(result, run or run_name(result)).lines(), "# EOF\n"])


def run_name(result: RunResult) -> str:
    """Its id; of a file that has none, when it began."""
    return result.run or f"{datetime.fromisoformat(result.started):%Y%m%d-%H%M%S}"


class _Export:
    """Lines at the instants that a run has numbers for: its beginning, and the end of each second. They are right to
    the second: measuring began after all other phases, and these when the run was `started`."""

    def __init__(self, result: RunResult, run: str) -> None:
        self._result = result
        self._labels = {"model": table.model_name(result.model.engine), "run": run}
        phases = result.phases
        before = phases.load_ns + phases.allocate_ns + phases.verify_ns + phases.warmup_ns
        start = round(datetime.fromisoformat(result.started).timestamp()) * SECOND_NS + before
        instants = range(max(len(result.model.intervals), 1) + 2)  # one more, to say that it is over
        *self._times, self._over = [_timestamp(start + number * SECOND_NS) for number in instants]

    def lines(self) -> Iterator[str]:
        """All families that a run has numbers for, in the order of the table."""
        for place, family in enumerate(table.HISTOGRAMS):
            yield from self._histogram(family, METRICS[place].name)
        seconds = self._result.model.intervals
        quantiles = {"0.5": "p50", "0.9": "p90", "0.99": "p99", "1.0": "max"}
        latencies = {q: [getattr(second, f"latency_{name}_ns") for second in seconds] for q, name in quantiles.items()}
        yield from self._gauge(table.WINDOW, "quantile", {q: _scaled(ns) for q, ns in latencies.items()})
        yield from self._counts()
        yield from self._constants()
        if self._result.telemetry is not None:
            yield from self._gpu(self._result.telemetry)

    def _counts(self) -> Iterator[str]:
        """What happened to requests. A second does not tell the lanes apart."""
        result, seconds = self._result, self._result.model.intervals
        ok = self._cumulated([second.requests for second in seconds], result.model.ok)
        failed = self._cumulated([second.failed for second in seconds], result.model.failed)
        laneless = {name: self._cumulated([], getattr(result.model, name)) for name in ("unserved", "dropped")}
        yield _declared(table.REQUESTS)
        for outcome, reached in {"ok": ok, "failed": failed, **laneless}.items():
            yield from self._series(table.REQUESTS, {"lane": "", "outcome": outcome}, reached)
        known = result.model.inferences
        inferences = (
            result.model.ok * result.model.engine.batch if known is None else known
        )  # a second does not tell its own
        yield from self._single(table.INFERENCES, {}, [count * inferences / max(result.model.ok, 1) for count in ok])
        computed = self._cumulated(_sums_ns(seconds, "compute"), _sum_ns(result, "compute"))
        yield from self._single(table.COMPUTE, {"lane": ""}, [ns / SECOND_NS for ns in computed])

    def _constants(self) -> Iterator[str]:
        """What does not change: once a second all the same, as Prometheus looks back five minutes only."""
        result, count = self._result, len(self._times)
        yield from self._single(table.LANES, {}, [len(result.model.lanes)] * count)
        if result.model.throughput.offered_per_s is not None:
            yield from self._gauge(table.OFFERED, "", {"": [result.model.throughput.offered_per_s] * (count - 1)})
        yield from self._single(table.START, {}, [float(self._times[0])] * count)
        objectives = [(share, share.objective) for share in result.model.objectives]
        finished = result.model.ok + result.model.failed + result.model.unserved + result.model.dropped
        for family, totals in (
            (table.GOOD, {it.text: share.good for share, it in objectives}),
            (table.OBJECTIVE_REQUESTS, {it.text: finished for _, it in objectives}),
        ):
            yield _declared(family) if totals else ""
            for text, total in totals.items():  # seconds do not tell: 0 in each of them would be a lie
                yield from self._series(family, {"objective": text}, [0, total], [self._times[0], self._times[-1]])
        bounds = {it.text: [it.bound_ns / SECOND_NS] * (count - 1) for _, it in objectives}
        yield from self._gauge(table.BOUND, "objective", bounds)
        yield from self._gauge(table.TARGET, "objective", {it.text: [it.rank] * (count - 1) for _, it in objectives})
        told = table.information(
            result.model.engine, result.config.model.load.options()["arrivals"], result.config.model.buffers
        )
        labels = {table.label_name(name): value for name, value in told.items()}
        yield from self._single(table.RUN_INFO, {**labels, "batch": str(result.model.engine.batch)}, [1] * count)
        yield from self._single(table.BUILD_INFO, {"version": result.loadtrt}, [1] * count)

    def _gpu(self, telemetry: GpuTelemetry) -> Iterator[str]:
        """Each second's means; where several looks fell in it, a reason's share of them instead of 0 or 1."""
        seconds, gpu = telemetry.intervals[: len(self._times) - 1], telemetry.gpu
        for family, label, values in (
            (table.GPU_UTILIZATION, "", {"": [second.utilization_mean_ratio for second in seconds]}),
            (table.GPU_MEMORY_UTILIZATION, "", {"": [second.memory_utilization_mean_ratio for second in seconds]}),
            (table.GPU_CLOCK, "domain", {"sm": [second.sm_clock_mean_hertz for second in seconds]}),
            (table.GPU_CLOCK_MAX, "domain", {"sm": [gpu.max_sm_clock_hertz for _ in seconds]}),
            (table.GPU_POWER, "", {"": [second.power_mean_watts for second in seconds]}),
            (table.GPU_POWER_LIMIT, "", {"": [gpu.power_limit_watts for _ in seconds]}),
            (table.GPU_TEMPERATURE, "", {"": [second.temperature_max_celsius for second in seconds]}),
            (table.GPU_MEMORY_USED, "", {"": [second.memory_used_max_bytes for second in seconds]}),
            (table.GPU_MEMORY_TOTAL, "", {"": [gpu.memory_total_bytes for _ in seconds]}),
        ):
            yield from self._gauge(family, label, values)
        shares = [second.throttle_shares for second in seconds]
        reasons = dict.fromkeys(reason for share in shares for reason in share or ())
        held = {name: [None if share is None else share.get(name, 0.0) for share in shares] for name in reasons}
        yield from self._gauge(table.GPU_THROTTLE, "reason", held)
        yield from self._added(table.GPU_ENERGY, "", {"": [second.energy_joules for second in seconds]})
        moved = {way: [getattr(second, f"pcie_{way}_bytes") for second in seconds] for way in ("rx", "tx")}
        yield from self._added(table.GPU_PCIE, "direction", moved)

    def _histogram(self, family: Family, metric: str) -> Iterator[str]:
        """Zeros at first; what the seconds tell, under the bucket that every histogram has; all of it at the end."""
        kept = self._result.model.histograms.get(metric)
        if kept is None:
            return
        last = Histogram.from_dict(kept)
        yield _declared(family)
        yield from self._point(family, self._times[0], [0] * (len(table.BOUNDS_NS) + 1), 0)
        seconds = self._result.model.intervals[:-1]
        if metric in ("latency", "queue", "compute"):
            counts, sums = accumulate(interval.requests for interval in seconds), accumulate(_sums_ns(seconds, metric))
            for time, count, sum_ns in zip(self._times[1:], counts, sums, strict=False):
                yield from self._point(family, time, [count], sum_ns)
        yield from self._point(family, self._times[-1], table.cumulated(last.counts), last.sum)

    def _point(self, family: Family, time: str, reached: Sequence[int], sum_ns: int) -> Iterator[str]:
        bounds = [*(repr(bound / SECOND_NS) for bound in table.BOUNDS_NS), "+Inf"][-len(reached) :]
        for bound, count in zip(bounds, reached, strict=True):
            yield f"{table.series(f'{family.name}_bucket', {**self._labels, 'le': bound})} {count} {time}\n"
        yield f"{table.series(f'{family.name}_count', self._labels)} {reached[-1]} {time}\n"
        yield f"{table.series(f'{family.name}_sum', self._labels)} {sum_ns / SECOND_NS!r} {time}\n"

    def _gauge(self, family: Family, label: str, values: Mapping[str, Sequence[float | None]]) -> Iterator[str]:
        """Numbers of each second, for each value of `label`. It ends with not a number, or Prometheus would draw the
        last for five minutes more; so does a second that has none. Nothing where none has any."""
        known = {value: each for value, each in values.items() if any(number is not None for number in each)}
        yield _declared(family) if known else ""
        for value, each in known.items():
            name = table.series(family.name, {**self._labels, label: value} if label else self._labels)
            for time, number in zip([*self._times[1 : len(each) + 1], self._over], [*each, None], strict=True):
                yield f"{name} {'NaN' if number is None else repr(number)} {time}\n"

    def _single(self, family: Family, labels: dict[str, str], values: Sequence[float]) -> Iterator[str]:
        """A family of one series with a value at each instant."""
        yield _declared(family)
        yield from self._series(family, labels, values)

    def _added(self, family: Family, label: str, values: Mapping[str, Sequence[float | None]]) -> Iterator[str]:
        """A counter by what each second added, for each value of `label`; none unless all are known: a part would pass
        for the whole."""
        known = {value: [number for number in each if number is not None] for value, each in values.items()}
        whole = {value: each for value, each in known.items() if each and len(each) == len(values[value])}
        yield _declared(family) if whole else ""
        for value, each in whole.items():
            yield from self._series(family, {label: value} if label else {}, self._cumulated(each, sum(each)))

    def _series(
        self, family: Family, labels: dict[str, str], values: Sequence[float], times: Sequence[str] = ()
    ) -> Iterator[str]:
        """Values at these instants, at all if none are given."""
        name = table.series(family.name, {**self._labels, **labels})
        for time, value in zip(times or self._times, values, strict=True):
            yield f"{name} {value!r} {time}\n"

    def _cumulated(self, each: Sequence[float], total: float) -> list[float]:
        """0 at first, then what was reached after each second, and `total` at the end: seconds may not know it all."""
        reached = [0, *accumulate(each)]
        reached += [reached[-1]] * (len(self._times) - len(reached))
        return [*reached[: len(self._times) - 1], total]


def _scaled(values_ns: Sequence[float | None]) -> list[float | None]:
    return [None if ns is None else ns / SECOND_NS for ns in values_ns]


def _sums_ns(seconds: Sequence[Interval], metric: str) -> list[int]:
    """Each second's sum: its mean times its requests, which is an int of ns again."""
    means = ((interval.requests, getattr(interval, f"{metric}_mean_ns")) for interval in seconds)
    return [round(requests * mean_ns) if requests else 0 for requests, mean_ns in means]


def _sum_ns(result: RunResult, metric: str) -> int:
    return int(result.model.histograms[metric]["sum_ns"]) if metric in result.model.histograms else 0


def _declared(family: Family) -> str:
    return table.declaration(family.stem, family.kind, family.help, family.unit)


def _timestamp(ns: int) -> str:
    """Unix time with milliseconds, which is what Prometheus keeps."""
    ms = ns // MILLISECOND_NS
    return f"{ms // 1000}.{ms % 1000:03d}"
