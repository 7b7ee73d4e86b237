"""What is known of a run at this moment, as families of prometheus_client: computed from a snapshot when asked for.

A number that is not known has no series: never 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from prometheus_client import Metric
from prometheus_client.samples import Sample

import loadtrt
from loadtrt.live.native import native_histogram
from loadtrt.live.telemetry import THROTTLE_REASONS
from loadtrt.prometheus import families as table
from loadtrt.records.board import OUTCOMES, PHASES, RATIOS, WINDOW_RANKS, Snapshot
from loadtrt.records.records import DROPPED, FAILED, UNSERVED
from loadtrt.units import SECOND_NS, exact_duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from loadtrt.live.run_facts import RunFacts
    from loadtrt.live.telemetry import GpuReading
    from loadtrt.prometheus.families import Family

    # (values of the family's labels, value or None where it is not known)
    Points: TypeAlias = Iterable[tuple[tuple[str, ...], float | None]]

WINDOW_LIFE_NS = 5 * SECOND_NS  # a second is shown at most 3 s after its beginning; older, its quantiles mislead
_INF = "+Inf"
_BOUNDS = [*(repr(bound / SECOND_NS) for bound in table.BOUNDS_NS), _INF]
_RATIO_BOUNDS = [*map(repr, RATIOS), _INF]


@dataclass(frozen=True, slots=True)
class View:
    """What an observer has at one instant. gpu: the newest reading, None without a GPU. now_ns: of time.time_ns().
    observer_cpu_s: processor time that the observer has used, None where that is not told."""

    snapshot: Snapshot
    facts: RunFacts
    gpu: GpuReading | None
    now_ns: int
    observer_cpu_s: float | None = None


def families(view: View, native: bool = False) -> Iterator[Metric]:
    """The families of FAMILIES, in that order, without those that have no value now. native: histograms of METRICS have
    a native one beside the classic."""
    facts = view.facts
    run = {"model": facts.model, "run": facts.run}
    snapshot = view.snapshot
    for family, counts, total_ns in zip(table.HISTOGRAMS, snapshot.counts, snapshot.sums_ns, strict=True):
        metric = _histogram(family, run, _BOUNDS, table.cumulated(counts), int(total_ns) / SECOND_NS)
        if native:
            exact = native_histogram(counts, int(total_ns) / SECOND_NS)
            metric.samples.append(Sample(family.name, run, 0.0, native_histogram=exact))
        yield metric
    yield from _window(view, run)
    ratios = snapshot.ratios.cumsum().tolist()
    yield _histogram(table.LOAD_RATIO, run, _RATIO_BOUNDS, ratios, snapshot.ratio_sum)
    for family, points in (*_requests(view), *_state(view), *_objectives(view)):
        yield from _plain(family, run, points)
    told = {table.label_name(name): value for name, value in facts.information.items()}
    yield _info(table.RUN_INFO, {**told, **_size(facts), **run})
    yield _info(table.BUILD_INFO, {**run, "version": loadtrt.__version__})
    if view.gpu is not None:
        for family, points in _gpu(view.gpu):
            yield from _plain(family, run, points)


def _size(facts: RunFacts) -> dict[str, str]:
    """What was asked of the run, as labels; "" for what was not."""
    return {
        "batch": str(facts.batch),
        "duration": exact_duration(facts.duration_ns) if facts.duration_ns else "",
        "requests": "" if facts.requests is None else str(facts.requests),
    }


def _requests(view: View) -> Iterator[tuple[Family, Points]]:
    snapshot = view.snapshot
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
            # Those that were never sent stand under lane 0 in the records, and had none.
            *((("", OUTCOMES[s]), int(snapshot.outcomes[:, s].sum())) for s in (UNSERVED, DROPPED)),
        ],
    )
    yield table.INFERENCES, [((), snapshot.inferences)]
    yield table.SUBMITTED, [((), snapshot.submitted)]
    for family, spans_ns in ((table.COMPUTE, snapshot.lane_compute_ns), (table.SERVICE, snapshot.lane_service_ns)):
        yield family, [((lane,), int(ns) / SECOND_NS) for lane, ns in zip(lanes, spans_ns, strict=True)]


def _state(view: View) -> Iterator[tuple[Family, Points]]:
    snapshot, facts = view.snapshot, view.facts
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
    age_ns = view.now_ns - snapshot.written_ns if snapshot.written_ns else None
    yield table.SNAPSHOT_AGE, [((), None if age_ns is None else max(age_ns, 0) / SECOND_NS)]
    yield table.OBSERVER_CPU, [((), view.observer_cpu_s)]
    yield table.MISSED, [((), snapshot.missed)]


def _objectives(view: View) -> Iterator[tuple[Family, Points]]:
    facts, finished = view.facts, int(view.snapshot.outcomes.sum())
    texts = [(text,) for text, *_ in facts.objectives]
    yield table.GOOD, [(text, int(good)) for text, good in zip(texts, view.snapshot.good, strict=False)]
    yield table.OBJECTIVE_REQUESTS, [(text, finished) for text in texts]
    yield table.BOUND, [((text,), bound_ns / SECOND_NS) for text, _, _, bound_ns in facts.objectives]
    yield table.TARGET, [((text,), rank) for text, _, rank, _ in facts.objectives]


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
    yield table.GPU_PCIE, [(("rx",), gpu.pcie_rx_bytes), (("tx",), gpu.pcie_tx_bytes)]


def _window(view: View, run: dict[str, str]) -> Iterator[Metric]:
    """The last second's quantiles; nothing where it served nothing, or is long over."""
    snapshot = view.snapshot
    age_ns = view.now_ns - snapshot.started_ns - snapshot.window_start_ns
    if snapshot.window_requests and age_ns < WINDOW_LIFE_NS:
        metric = _metric(table.WINDOW)
        for rank, ns in zip(WINDOW_RANKS, snapshot.window_ns, strict=True):
            metric.samples.append(Sample(table.WINDOW.name, {**run, "quantile": repr(rank)}, float(ns) / SECOND_NS))
        yield metric


def _histogram(
    family: Family, run: dict[str, str], bounds: Sequence[str], reached: Sequence[int], total: float
) -> Metric:
    """`_count` is the last bucket's: a count that was kept apart could differ from it."""
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
