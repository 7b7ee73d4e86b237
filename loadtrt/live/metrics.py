"""What is known of a run now, as families of prometheus_client: computed from a snapshot when asked for.

A number that is not known has no series; it is never 0. Native histograms are exponential buckets, 32 an octave, of the
exact log-linear counts: `histogram_quantile` of them is within 1.1 % of the truth, where classic buckets are 10 to 20 %
off on narrow latencies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from prometheus_client import Metric
from prometheus_client.samples import BucketSpan, NativeHistogram, Sample

import loadtrt
from loadtrt.findings.validity import limit_of
from loadtrt.live.alerts import LAW_KINDS, counts_now, law_alerts, terms_of
from loadtrt.live.nvml import THROTTLE_REASONS
from loadtrt.live.view import number_now
from loadtrt.prometheus import families as table
from loadtrt.prometheus.families import middles_ns
from loadtrt.records.board import OUTCOMES, PHASES, RATIOS, WINDOW_RANKS, Snapshot
from loadtrt.records.records import DEVICE_TIMES, DROPPED, FAILED, METRICS, UNSERVED
from loadtrt.units import SECOND_NS, exact_duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy.typing as npt

    from loadtrt.live.observer import RunFacts
    from loadtrt.prometheus.families import Family
    from loadtrt.results.gpu_telemetry import GpuReading

    # (values of the family's labels, value or None where it is not known)
    Points: TypeAlias = Iterable[tuple[tuple[str, ...], float | None]]

SCHEMA = 5  # of native histograms: bucket i holds values in (2^((i−1)/2^SCHEMA), 2^(i/2^SCHEMA)] seconds
ZERO_THRESHOLD_S = 2.0**-128  # as Prometheus chooses it; only values of 0 ns are in the bucket of zero
WINDOW_LIFE_NS = 5 * SECOND_NS  # a second is shown at most 3 s after its start; older quantiles mislead
_INF = "+Inf"
_BOUNDS = [*(repr(bound / SECOND_NS) for bound in table.BOUNDS_NS), _INF]
_ORDER = {family.stem: place for place, family in enumerate(table.FAMILIES)}
_RATIO_BOUNDS = [*map(repr, RATIOS), _INF]


@dataclass(frozen=True, slots=True)
class Observation:
    """What an observer has at one instant.

    snapshot: the run's counts.
    facts: what does not change during the run.
    gpu: the newest reading; None without a GPU.
    now_ns: time.time_ns().
    observer_cpu_s: processor time that the observer has used; None where it is not known.
    others: of the other models of the run.
    workers: those of a fleet, whose sum the snapshot is.
    lost: whether this is of a worker whose process has ended without a result.
    """

    snapshot: Snapshot
    facts: RunFacts
    gpu: GpuReading | None
    now_ns: int
    observer_cpu_s: float | None = None
    others: tuple[Observation, ...] = ()
    workers: tuple[Observation, ...] = ()
    lost: bool = False


def together(observations: Iterable[Observation], native: bool = False) -> list[Metric]:
    """The families of several runs, of all their models and workers, each family once, in the order of FAMILIES.
    native: the histograms of METRICS have native buckets besides the classic ones."""
    whole: dict[str, Metric] = {}
    for seen in (of_model for run in observations for of_model in (run, *run.others)):
        for metric in _parts(seen, native):
            if metric.name in whole:
                whole[metric.name].samples += metric.samples
            else:
                whole[metric.name] = metric
    return sorted(whole.values(), key=lambda metric: _ORDER[metric.name])


def families(seen: Observation) -> list[Metric]:
    """The families of FAMILIES, without those that have no value now, of one model."""
    return together([replace(seen, others=())])


def _parts(seen: Observation, native: bool) -> Iterator[Metric]:
    """The families of one model; of a fleet some come several times.

    What a fleet's workers do has the labels of each. Objectives and the last second are of all together, as neither
    shares of objectives nor percentiles add up; a GPU's numbers come once, however many workers it has.
    """
    run = {"model": seen.facts.model, "run": seen.facts.run}
    workers = seen.workers or (seen,)
    for worker in workers:
        yield from _of_worker(worker, {**run, **table.worker_labels(worker.facts.worker, worker.facts.device)}, native)
    yield from _window(table.WINDOW, seen, run)
    for family, points in (*_objectives(seen), *_whole(seen)):
        yield from _plain(family, run, points)
    facts = seen.facts
    labels = {table.label_name(name): value for name, value in {**facts.labels, **facts.information}.items()}
    duration = exact_duration(facts.duration_ns) if facts.duration_ns else ""
    size = {
        "batch": str(facts.batch),
        "duration": duration,
        "requests": "" if facts.requests is None else str(facts.requests),
        **({"point": facts.point.text} if facts.point else {}),
    }
    by_gpu = {worker.facts.uuid: worker for worker in reversed(workers) if worker.facts.uuid or not worker.lost}
    for worker in (by_gpu or {"": workers[0]}).values():
        gpu = table.gpu_labels(worker.facts.uuid, worker.facts.host)
        yield _info(table.RUN_INFO, {**labels, **size, **run, **gpu})
        if worker.gpu is not None:
            device = table.worker_labels("", worker.facts.device)
            for family, points in _gpu(worker.gpu):
                yield from _plain(family, {**run, **device, **gpu}, points)
    yield _info(table.BUILD_INFO, {**run, "version": loadtrt.__version__})


def _of_worker(seen: Observation, run: dict[str, str], native: bool) -> Iterator[Metric]:
    """What one process measures."""
    snapshot, timed = seen.snapshot, seen.facts.device_times
    of_metrics = zip(METRICS, table.HISTOGRAMS, snapshot.counts, snapshot.sums_ns, strict=True)
    for measured, family, counts, total_ns in of_metrics:
        if measured.name in DEVICE_TIMES and not timed:
            continue
        metric = _histogram(family, run, _BOUNDS, table.cumulated(counts), int(total_ns) / SECOND_NS)
        if native:
            exact = native_histogram(counts, int(total_ns) / SECOND_NS)
            metric.samples.append(Sample(family.name, run, 0.0, native_histogram=exact))
        yield metric
    if seen.facts.worker:
        yield from _window(table.WORKER_WINDOW, seen, run)
    if timed:
        ratios = snapshot.ratios.cumsum().tolist()
        yield _histogram(table.LOAD_RATIO, run, _RATIO_BOUNDS, ratios, snapshot.ratio_sum)
    for family, points in (*_requests(seen), *_state(seen), *_laws(seen)):
        yield from _plain(family, run, points)


def _requests(seen: Observation) -> Iterator[tuple[Family, Points]]:
    snapshot = seen.snapshot
    lanes = [str(lane) for lane in range(len(snapshot.outcomes))]
    yield (
        table.REQUESTS,
        [
            *(
                ((lane, OUTCOMES[s]), int(n))
                for lane, row in zip(lanes, snapshot.outcomes, strict=True)
                for s, n in enumerate(row)
                if s <= FAILED
            ),
            # Requests that were never sent have no lane; their records say 0.
            *((("", OUTCOMES[s]), int(snapshot.outcomes[:, s].sum())) for s in (UNSERVED, DROPPED)),
        ],
    )
    yield table.INFERENCES, [((), snapshot.inferences)]
    yield table.SUBMITTED, [((), snapshot.submitted)]
    of_lanes = [(table.COMPUTE, snapshot.lane_compute_ns)] if seen.facts.device_times else []
    for family, spans_ns in (*of_lanes, (table.SERVICE, snapshot.lane_service_ns)):
        yield family, [((lane,), int(ns) / SECOND_NS) for lane, ns in zip(lanes, spans_ns, strict=True)]


def _state(seen: Observation) -> Iterator[tuple[Family, Points]]:
    snapshot, facts = seen.snapshot, seen.facts
    for family, value in (
        (table.IN_FLIGHT, snapshot.in_flight),
        (table.WAITING, snapshot.waiting),
        (table.BUSY_LANES, snapshot.busy_lanes),
        (table.LANES, facts.lanes),
        (table.OFFERED, facts.rate),
    ):
        yield family, [((), value)]
    yield table.PHASE, [((phase,), float(phase == snapshot.phase)) for phase in PHASES]
    yield table.START, [((), snapshot.started_ns / SECOND_NS if snapshot.started_ns else None)]
    ended = bool(facts.worker) and snapshot.phase == "done"  # of a fleet that may go on: it has not stalled
    age_ns = seen.now_ns - snapshot.written_ns if snapshot.written_ns and not ended else None
    yield table.SNAPSHOT_AGE, [((), None if age_ns is None else max(age_ns, 0) / SECOND_NS)]
    yield table.MISSED, [((), snapshot.missed)]


def _whole(seen: Observation) -> Iterator[tuple[Family, Points]]:
    """What is of the run, however many workers it has."""
    if seen.facts.point is not None:
        states = {"done": seen.facts.point.done, "now": 1, "left": seen.facts.point.left}
        yield table.POINTS, [((state,), count) for state, count in states.items()]
    yield table.OBSERVER_CPU, [((), seen.observer_cpu_s)]
    yield table.LOST, [((), sum(worker.lost for worker in seen.workers) if seen.workers else None)]


def _laws(seen: Observation) -> Iterator[tuple[Family, Points]]:
    limit_ns = limit_of(counts_now(seen.snapshot, seen.facts), terms_of(seen.facts))
    yield table.LATENESS_LIMIT, [((), limit_ns / SECOND_NS if math.isfinite(limit_ns) else None)]
    active = set() if seen.lost else {alert.kind for alert in law_alerts(seen.snapshot, seen.facts, seen.gpu)}
    yield table.PROBLEM, [((kind,), float(kind in active)) for kind in LAW_KINDS]


def _objectives(seen: Observation) -> Iterator[tuple[Family, Points]]:
    finished, good = int(seen.snapshot.outcomes.sum()), zip(seen.facts.objectives, seen.snapshot.good, strict=False)
    counted = [(objective, int(count)) for objective, count in good]
    shares = [item for item in counted if item[0].of_requests]
    yield table.GOOD, [((objective.text,), count) for objective, count in shares]
    yield table.OBJECTIVE_REQUESTS, [((objective.text,), finished) for objective, _ in shares]
    bounds = [objective for objective, _ in shares if objective.kind == "quantile"]
    yield table.BOUND, [((objective.text,), objective.bound_ns / SECOND_NS) for objective in bounds]
    yield table.TARGET, [((objective.text,), objective.rank) for objective, _ in shares]
    numbers = [(item, number_now(item, seen.snapshot, count, seen.gpu)) for item, count in counted]
    yield table.ATTAINED, [((item.text,), item.attained(value)) for item, value in numbers if value is not None]


def _gpu(gpu: GpuReading) -> Iterator[tuple[Family, Points]]:
    yield table.GPU_UTILIZATION, [((), gpu.utilization_ratio)]
    yield table.GPU_MEMORY_UTILIZATION, [((), gpu.memory_utilization_ratio)]
    yield table.GPU_CLOCK, [(("sm",), gpu.sm_clock_hertz), (("memory",), gpu.memory_clock_hertz)]
    yield table.GPU_CLOCK_MAX, [(("sm",), gpu.max_sm_clock_hertz)]
    yield table.GPU_POWER, [((), gpu.power_watts)]
    yield table.GPU_POWER_LIMIT, [((), gpu.power_limit_watts)]
    yield table.GPU_ENERGY, [((), gpu.energy_joules)]
    yield table.GPU_TEMPERATURE, [((), gpu.temperature_celsius)]
    yield table.GPU_MEMORY_USED, [((), gpu.memory_used_bytes)]
    yield table.GPU_MEMORY_TOTAL, [((), gpu.memory_total_bytes)]
    if gpu.throttle_reasons is not None:
        named = dict.fromkeys([*THROTTLE_REASONS.values(), *gpu.throttle_reasons])
        yield table.GPU_THROTTLE, [((reason,), float(reason in gpu.throttle_reasons)) for reason in named]
    if gpu.sharing is not None:
        yield table.GPU_OTHERS, [((), len(gpu.sharing.clients))]
        yield table.GPU_OTHERS_MEMORY, [((), gpu.sharing.memory_bytes)]
        yield table.GPU_OTHERS_SM, [((), gpu.sharing.sm_ratio)]
    yield table.GPU_PCIE, [(("rx",), gpu.pcie_rx_bytes), (("tx",), gpu.pcie_tx_bytes)]


def _window(family: Family, seen: Observation, run: dict[str, str]) -> Iterator[Metric]:
    """The last second's quantiles; nothing where no request was served in it, or it is long over."""
    snapshot = seen.snapshot
    age_ns = seen.now_ns - snapshot.started_ns - snapshot.window_start_ns
    if snapshot.window_requests and age_ns < WINDOW_LIFE_NS:
        metric = _metric(family)
        for rank, ns in zip(WINDOW_RANKS, snapshot.window_ns, strict=True):
            metric.samples.append(Sample(family.name, {**run, "quantile": repr(rank)}, float(ns) / SECOND_NS))
        yield metric


def _histogram(
    family: Family, run: dict[str, str], bounds: Sequence[str], reached: Sequence[int], total: float
) -> Metric:
    """`_count` is the last bucket's: a separate count could differ from it."""
    metric = _metric(family)
    bucket = f"{family.name}_bucket"
    metric.samples += [Sample(bucket, {**run, "le": bound}, n) for bound, n in zip(bounds, reached, strict=True)]
    metric.samples.append(Sample(f"{family.name}_count", run, reached[-1]))
    metric.samples.append(Sample(f"{family.name}_sum", run, total))
    return metric


def _plain(family: Family, run: dict[str, str], points: Points) -> Iterator[Metric]:
    metric = _metric(family)
    for values, value in points:
        if value is not None:
            labels = {**run, **dict(zip(family.labels, values, strict=True))}
            metric.samples.append(Sample(family.name, labels, value))
    if metric.samples:
        yield metric


def _info(family: Family, labels: dict[str, str]) -> Metric:
    metric = _metric(family)
    metric.samples.append(Sample(family.name, labels, 1.0))
    return metric


def _metric(family: Family) -> Metric:
    return Metric(family.stem, family.help, family.kind, family.unit)


def native_histogram(counts: npt.NDArray[np.int64], sum_s: float) -> NativeHistogram:
    """counts: int64 [BUCKETS] of a Histogram, of ns; a bucket counts where its middle is. sum_s: sum of the values."""
    number = _exponential()
    totals = np.bincount(number, weights=counts[1:], minlength=int(number[-1]) + 1).astype(np.int64)
    used = np.flatnonzero(totals)
    spans, end = [], 0
    for run in np.split(used, np.flatnonzero(np.diff(used) > 1) + 1) if len(used) else ():
        first = int(run[0]) + _lowest()
        spans.append(BucketSpan(first - end, len(run)))  # the first span's offset is from 0, later ones are gaps
        end = first + len(run)
    return NativeHistogram(
        count_value=int(counts.sum()),
        sum_value=sum_s,
        schema=SCHEMA,
        zero_threshold=ZERO_THRESHOLD_S,
        zero_count=int(counts[0]),
        pos_spans=spans,
        pos_deltas=np.diff(totals[used], prepend=0).tolist(),
    )


@cache
def _exponential() -> npt.NDArray[np.int64]:
    """The exponential bucket of each Histogram bucket above 0 ns, counted from the lowest: int64 [BUCKETS − 1]."""
    return _index(middles_ns()[1:]) - _lowest()


@cache
def _lowest() -> int:
    return int(_index(middles_ns()[1:2])[0])


def _index(values_ns: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    numbers: npt.NDArray[np.int64] = np.ceil(np.log2(values_ns / SECOND_NS) * 2**SCHEMA).astype(np.int64)
    return numbers
