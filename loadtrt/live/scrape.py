"""A page of loadtrt's metrics read back: the snapshot, the facts and the GPU's reading that it was made of.

Exact but for the histograms, whose buckets are wide on the page: what lies in one is spread evenly over it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from loadtrt.asked.objective import parse_objective
from loadtrt.errors import UsageError
from loadtrt.live.run_facts import RunFacts
from loadtrt.live.telemetry import GpuReading
from loadtrt.prometheus import families as table
from loadtrt.records.board import OUTCOMES, PHASES, RATIOS, WINDOW_RANKS, Snapshot
from loadtrt.records.histogram import BUCKETS, bounds_of
from loadtrt.records.records import FAILED, METRICS
from loadtrt.units import SECOND_NS, parse_duration

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt
    from prometheus_client import Metric

    from loadtrt.prometheus.families import Family

    Series: TypeAlias = list[tuple[dict[str, str], float]]

_MOST_LANES = 4096  # a page asks for memory by this number
_WINDOW_LAG = 2  # seconds from the beginning of the window that is shown to the instant when it is


def snapshot_of(families: Iterable[Metric], now_ns: int) -> tuple[Snapshot, RunFacts, GpuReading | None] | None:
    """What a page of /metrics says, which was made at now_ns of its host's Unix clock; None where it says nothing yet.

    window_requests is 1 where there is a window, and window_start_ns a guess: the page tells neither. Raises UsageError
    where the page is of something else, or broken.
    """
    page = _Page(families)
    if not page.series:
        return None
    if not any(name.startswith("loadtrt_") for name in page.series):
        raise UsageError("these are metrics of something else: loadtrt's begin with loadtrt_")
    try:
        facts = _facts(page)
        return _snapshot(page, facts, now_ns), facts, _gpu(page)
    except (LookupError, ValueError, OverflowError, UsageError) as error:
        reason = str(error).strip("'\"")
        raise UsageError(f"these metrics are broken, or of another version of loadtrt: {reason}") from None


class _Page:
    """Series by name, as the table of families knows them."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self.series: dict[str, Series] = {}
        for family in families:
            for sample in family.samples:
                self.series.setdefault(sample.name, []).append((sample.labels, float(sample.value)))

    def each(self, family: Family) -> Series:
        """All series of a family; empty where it has none."""
        return self.series.get(family.name, [])

    def one(self, family: Family) -> float:
        """The value of a family without labels. Raises LookupError."""
        found = self.each(family)
        if not found:
            raise LookupError(f"there is no {family.name}")
        return found[0][1]

    def maybe(self, family: Family, **labels: str) -> float | None:
        """The value of the series with these labels; None where there is none."""
        return next((value for its, value in self.each(family) if labels.items() <= its.items()), None)

    def buckets(self, family: Family) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """(upper bounds in ns or plain numbers, counts reached) of a histogram. Raises LookupError, ValueError."""
        found = self.series.get(f"{family.name}_bucket")
        if not found:
            raise LookupError(f"there is no {family.name}")
        pairs = sorted((float(labels["le"]), int(value)) for labels, value in found)
        scale = SECOND_NS if family.unit == "seconds" else 1
        bounds = np.array([bound for bound, _ in pairs]) * scale
        reached = np.array([count for _, count in pairs], np.int64)
        if not math.isinf(bounds[-1]) or (np.diff(reached, prepend=0) < 0).any():
            raise ValueError(f"{family.name} is no histogram")
        return bounds, reached

    def total(self, family: Family) -> float:
        """The sum of a histogram. Raises LookupError."""
        found = self.series.get(f"{family.name}_sum")
        if not found:
            raise LookupError(f"there is no {family.name}_sum")
        return found[0][1]


def _facts(page: _Page) -> RunFacts:
    information = dict(page.each(table.RUN_INFO)[0][0]) if page.each(table.RUN_INFO) else {}
    run, model = information.pop("run", ""), information.pop("model", "")
    batch, duration = int(information.pop("batch", 1)), information.pop("duration", "")
    requests = information.pop("requests", "")
    lanes = int(page.one(table.LANES))
    if not 0 < lanes <= _MOST_LANES:
        raise ValueError(f"{lanes} lanes")
    objectives = [parse_objective(labels["objective"]) for labels, _ in page.each(table.GOOD)]
    return RunFacts(
        run=run,
        model=model,
        lanes=lanes,
        batch=batch,
        rate=page.maybe(table.OFFERED),
        duration_ns=parse_duration(duration) if duration else 0,
        requests=int(requests) if requests else None,
        objectives=tuple((it.text, METRICS[it.metric].name, it.rank, it.bound_ns) for it in objectives),
        information=information,
    )


def _snapshot(page: _Page, facts: RunFacts, now_ns: int) -> Snapshot:
    phase = next((labels["phase"] for labels, value in page.each(table.PHASE) if value), None)
    if phase not in PHASES:
        raise LookupError(f"there is no phase called {phase}")
    start_s, age_s = page.maybe(table.START), page.maybe(table.SNAPSHOT_AGE)
    started_ns = 0 if start_s is None else _ns(start_s)
    written_ns = 0 if age_s is None else now_ns - _ns(age_s)
    histograms = [page.buckets(family) for family in table.HISTOGRAMS]
    _, ratios = page.buckets(table.LOAD_RATIO)
    if len(ratios) != len(RATIOS) + 1:
        raise ValueError(f"{table.LOAD_RATIO.name} has {len(ratios)} buckets")
    window = {float(labels["quantile"]): value for labels, value in page.each(table.WINDOW) if "quantile" in labels}
    known = [window[rank] for rank in WINDOW_RANKS] if window else []
    second = max((written_ns - started_ns) // SECOND_NS - _WINDOW_LAG, 0)
    return Snapshot(
        phase=phase,
        written_ns=written_ns,
        started_ns=started_ns,
        submitted=int(page.one(table.SUBMITTED)),
        in_flight=int(page.one(table.IN_FLIGHT)),
        waiting=int(page.one(table.WAITING)),
        busy_lanes=int(page.one(table.BUSY_LANES)),
        outcomes=_outcomes(page, facts.lanes),
        inferences=int(page.one(table.INFERENCES)),
        lane_service_ns=_by_lane(page, table.SERVICE, facts.lanes),
        lane_compute_ns=_by_lane(page, table.COMPUTE, facts.lanes),
        good=np.array([int(value) for _, value in page.each(table.GOOD)], np.int64),
        window_start_ns=second * SECOND_NS,
        window_requests=int(bool(known)),
        window_ns=np.array(known, np.float64) * SECOND_NS,
        ratio_sum=page.total(table.LOAD_RATIO),
        ratios=np.diff(ratios, prepend=0),
        sums_ns=np.array([_ns(page.total(family)) for family in table.HISTOGRAMS], np.int64),
        counts=np.array([spread(bounds, reached) for bounds, reached in histograms]),
        missed=int(page.maybe(table.MISSED) or 0),
    )


def spread(bounds_ns: npt.NDArray[np.float64], reached: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Counts of a Histogram, int64 [BUCKETS], that reach `reached` at these bounds, of which the last is infinite.

    Between two bounds they grow evenly, as histogram_quantile assumes; what is above the last bound is taken to be
    within twice of it. Law: `cumulated` of them gives `reached` back.
    """
    low, width = bounds_of(np.arange(BUCKETS))
    ends = low + width
    finite = np.append(bounds_ns[:-1], 2 * bounds_ns[-2] if len(bounds_ns) > 1 else ends[-1])
    last = np.searchsorted(low + (width - 1) / 2, finite, side="right") - 1  # a bucket counts by its middle
    reached_at = np.floor(np.interp(ends, np.append(0, ends[last]), np.append(0, reached)))
    counts: npt.NDArray[np.int64] = np.diff(reached_at, prepend=0).astype(np.int64)
    return counts


def _outcomes(page: _Page, lanes: int) -> npt.NDArray[np.int64]:
    counts = np.zeros((lanes, len(OUTCOMES)), np.int64)
    for labels, value in page.each(table.REQUESTS):
        if labels["outcome"] not in OUTCOMES:
            raise LookupError(f"there is no outcome called {labels['outcome']}")
        outcome = OUTCOMES.index(labels["outcome"])
        counts[_lane(labels, lanes) if outcome <= FAILED else 0, outcome] += int(value)
    if not page.each(table.REQUESTS):
        raise LookupError(f"there is no {table.REQUESTS.name}")
    return counts


def _by_lane(page: _Page, family: Family, lanes: int) -> npt.NDArray[np.int64]:
    sums = np.zeros(lanes, np.int64)
    for labels, value in page.each(family):
        sums[_lane(labels, lanes)] = _ns(value)
    return sums


def _lane(labels: dict[str, str], lanes: int) -> int:
    lane = int(labels["lane"])
    if not 0 <= lane < lanes:
        raise ValueError(f"lane {lane} of {lanes}")
    return lane


def _gpu(page: _Page) -> GpuReading | None:
    def whole(family: Family, **labels: str) -> int | None:
        value = page.maybe(family, **labels)
        return None if value is None else int(value)

    if not any(name.startswith("loadtrt_gpu_") for name in page.series):
        return None
    reasons = page.each(table.GPU_THROTTLE)
    return GpuReading(
        at_ns=0,
        sm_clock_hertz=whole(table.GPU_CLOCK, domain="sm"),
        memory_clock_hertz=whole(table.GPU_CLOCK, domain="memory"),
        max_sm_clock_hertz=whole(table.GPU_CLOCK_MAX, domain="sm"),
        power_watts=page.maybe(table.GPU_POWER),
        power_limit_watts=page.maybe(table.GPU_POWER_LIMIT),
        energy_joules=page.maybe(table.GPU_ENERGY),
        temperature_celsius=whole(table.GPU_TEMPERATURE),
        memory_used_bytes=whole(table.GPU_MEMORY_USED),
        memory_total_bytes=whole(table.GPU_MEMORY_TOTAL),
        utilization_ratio=page.maybe(table.GPU_UTILIZATION),
        memory_utilization_ratio=page.maybe(table.GPU_MEMORY_UTILIZATION),
        pcie_rx_bytes=whole(table.GPU_PCIE, direction="rx"),
        pcie_tx_bytes=whole(table.GPU_PCIE, direction="tx"),
        throttle_reasons=tuple(labels["reason"] for labels, value in reasons if value) if reasons else None,
    )


def _ns(seconds: float) -> int:
    return round(seconds * SECOND_NS)
