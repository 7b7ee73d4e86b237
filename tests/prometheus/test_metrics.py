"""Metrics: what is exported is what was recorded, under names that Prometheus' practice asks for."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exported import BOUND_NS, FACTS, READING, buckets, page, recorded, some_requests, values, view
from loadtrt.live.alerts import LAW_KINDS
from loadtrt.live.exporter import Collected
from loadtrt.live.metrics import SCHEMA, WINDOW_LIFE_NS, families, native_histogram
from loadtrt.prometheus import families as table
from loadtrt.prometheus.families import BOUNDS_NS, FAMILIES, label_name
from loadtrt.records.board import OUTCOMES, PHASES, RATIOS, WINDOW_RANKS
from loadtrt.records.histogram import Histogram
from loadtrt.records.records import FAILED, METRICS, OK, UNSERVED
from loadtrt.results.gpu_telemetry import GpuReading
from loadtrt.units import SECOND_NS
from prometheus import promtool

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import Metric

REQUESTS = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from([OK, OK, OK, FAILED, UNSERVED]), st.integers(1, 20 * SECOND_NS)),
    max_size=60,
)


@given(REQUESTS)
def test_counts_are_the_recorders(requests: list[tuple[int, int, int]]) -> None:
    """requests_total, inferences_total, good and lane seconds equal what was recorded; unserved have no lane."""
    board, recorder = recorded(requests)
    found = page(families(view(board)))
    by_lane = values(found, "loadtrt_requests_total", "lane", "outcome")
    for lane in (0, 1):
        for status in (OK, FAILED):
            wanted = sum(request[:2] == (lane, status) for request in requests)
            assert by_lane.pop((str(lane), OUTCOMES[status])) == wanted
    assert by_lane == {("", "unserved"): recorder.by_status[UNSERVED], ("", "dropped"): 0}
    assert values(found, "loadtrt_inferences_total") == {(): 8 * recorder.by_status[OK]}
    good = sum(status == OK and time <= BOUND_NS for _, status, time in requests)
    assert values(found, "loadtrt_objective_good_total") == {(): good}
    assert values(found, "loadtrt_objective_requests_total") == {(): len(requests)}
    for (number,), spent in values(found, "loadtrt_lane_service_seconds_total", "lane").items():
        assert spent == sum(time for *its, time in requests if its == [int(number), OK]) / SECOND_NS


@given(REQUESTS)
def test_histograms_are_whole(requests: list[tuple[int, int, int]]) -> None:
    """Buckets never fall, the last is `_count` and all that was recorded, and `_sum` is exact."""
    board, recorder = recorded(requests)
    found = page(families(view(board)))
    for family, metric in zip(table.HISTOGRAMS, METRICS, strict=True):
        bounds, reached = buckets(found, family.name)
        histogram = recorder.histograms[metric.name]
        assert bounds == [*(bound / SECOND_NS for bound in BOUNDS_NS), float("inf")]
        assert sorted(reached) == reached
        assert values(found, f"{family.name}_count") == {(): reached[-1]} == {(): histogram.count}
        assert values(found, f"{family.name}_sum") == {(): histogram.sum / SECOND_NS}
    bounds, reached = buckets(found, "loadtrt_load_ratio")
    assert (bounds[:-1], sorted(reached)) == (list(RATIOS), reached)
    assert values(found, "loadtrt_load_ratio_count") == {(): reached[-1]}


@given(st.lists(st.integers(0, 20 * SECOND_NS), max_size=100))
def test_a_bound_is_right_within_the_histograms_error(times: list[int]) -> None:
    """The count below a bound b is between the numbers of values ≤ 0.996 b and those ≤ 1.004 b."""
    histogram = Histogram()
    recorded_times = np.array(times, np.int64)
    histogram.add(recorded_times)
    reached = table.cumulated(histogram.counts)
    for bound, count in zip(BOUNDS_NS, reached, strict=False):
        assert (
            (recorded_times <= bound * (1 - 1 / 250)).sum() <= count <= (recorded_times <= bound * (1 + 1 / 250)).sum()
        )
    assert reached[-1] == len(times)


def test_every_family_is_exported_when_all_is_known() -> None:
    """FAMILIES is the whole page, in its order, by name, kind, unit, help and labels."""
    found = list(families(view(recorded(some_requests())[0])))
    alone = [family for family in FAMILIES if family not in table.OF_FLEETS]
    assert [metric.name for metric in found] == [family.stem for family in alone]
    for metric, family in zip(found, alone, strict=True):
        assert (metric.type, metric.unit, metric.documentation) == (family.kind, family.unit, family.help)
        own = {"histogram": {"le"}, "summary": {"quantile"}}.get(family.kind, set())
        for sample in metric.samples:
            assert sample.name.startswith(family.name)
            places = set(table.GPU_LABELS) if family.name.startswith("loadtrt_gpu_") else set()
            assert sample.labels.keys() >= {*table.RUN_LABELS, *family.labels, *places}
            if family.kind != "info":
                assert sample.labels.keys() <= {*table.RUN_LABELS, *family.labels, *own, *places}


def test_what_is_not_known_has_no_series() -> None:
    """Before measuring, in a closed loop, without objectives and GPU: these families are missing, and no other."""
    board, _ = recorded([])
    closed = replace(FACTS, rate=None, objectives=(), closed=True, point=None)
    unknown = replace(view(board, gpu=None, facts=closed), observer_cpu_s=None)
    unknown = replace(unknown, snapshot=replace(unknown.snapshot, started_ns=0, written_ns=0))
    missing = {family.stem for family in FAMILIES} - {metric.name for metric in families(unknown)}
    gpu = {family for family in FAMILIES if family.name.startswith("loadtrt_gpu_")}
    lateness = {table.LATENESS_LIMIT}
    objectives = {table.GOOD, table.OBJECTIVE_REQUESTS, table.BOUND, table.TARGET, table.ATTAINED}
    unsure = {table.POINTS, table.WINDOW, table.OFFERED, table.START, table.SNAPSHOT_AGE, table.OBSERVER_CPU}
    assert missing == {family.stem for family in gpu | objectives | unsure | lateness | set(table.OF_FLEETS)}


def test_a_gpu_that_tells_little_is_never_zero() -> None:
    """Of a reading with one number, one series is exported."""
    board, _ = recorded([])
    metrics = [metric for metric in families(view(board, GpuReading(0, power_watts=0.0))) if "_gpu_" in metric.name]
    assert list(page(metrics).values()) == [0.0]


def test_throttle_reasons_are_0_or_1() -> None:
    """Every known reason has a series, and so has one that this loadtrt does not know."""
    found = values(page(families(view(recorded([])[0]))), "loadtrt_gpu_throttle_active", "reason")
    assert {reason for (reason,), value in found.items() if value} == set(READING.throttle_reasons or ())
    assert found[("gpu_idle",)] == 0


def test_problems_are_the_verdicts() -> None:
    """Each kind has a series, 1 while the run would have that problem; the limit of lateness is the verdict's."""
    board, _ = recorded([*some_requests(), (0, FAILED, 1)])
    found = page(families(view(board, gpu=None)))
    active = values(found, "loadtrt_problem_active", "kind")
    assert {kind: value for (kind,), value in active.items()} == {kind: float(kind == "failed") for kind in LAW_KINDS}
    ((_, limit),) = values(found, "loadtrt_lateness_limit_seconds").items()
    assert limit == 0.0005  # a twentieth of 10 ms: the median is 3 ms
    asked = page(families(view(board, facts=replace(FACTS, closed=True, max_lateness_ns=7_000))))
    assert list(values(asked, "loadtrt_lateness_limit_seconds").values()) == [7e-6]


def test_a_window_lives_for_seconds() -> None:
    """The last second's quantiles are those of its records, within 0.4 %; some seconds on they are gone, as they are
    where a second served nothing."""
    board, recorder = recorded(some_requests())
    shown = values(page(families(view(board))), "loadtrt_latency_window_seconds", "quantile")
    latencies = recorder.records.completed - recorder.records.due
    for rank in WINDOW_RANKS:
        exact = float(np.quantile(latencies, rank, method="inverted_cdf")) / SECOND_NS
        assert shown[repr(rank),] == pytest.approx(exact, rel=1 / 256)
    for board_, after_ns in ((board, WINDOW_LIFE_NS), (recorded([])[0], SECOND_NS)):
        assert not values(page(families(view(board_, after_ns=after_ns))), "loadtrt_latency_window_seconds", "quantile")


@pytest.mark.parametrize("phase", PHASES)
def test_one_phase_is_on(phase: str) -> None:
    """It is 1, all others 0."""
    board, _ = recorded([])
    board.enter(phase)
    assert values(page(families(view(board))), "loadtrt_phase", "phase") == {
        (other,): float(other == phase) for other in PHASES
    }


def test_names_follow_practice() -> None:
    """Prefix, base units, _total for counters alone; help is one line that needs no escaping; no name twice."""
    assert len({family.stem for family in FAMILIES}) == len(FAMILIES)
    for family in FAMILIES:
        assert re.fullmatch(r"loadtrt(_[a-z0-9]+)+", family.name)
        assert family.name.endswith("_total") == (family.kind == "counter")
        assert family.name.endswith("_info") == (family.kind == "info")
        assert not re.search(r'[\n"\\]', family.help)
        assert not {"le", "quantile", *table.RUN_LABELS} & set(family.labels)


@given(st.text())
def test_any_text_becomes_a_label(text: str) -> None:
    """A name that Prometheus takes and does not keep for itself."""
    assert re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_]*", label_name(text))


@settings(max_examples=10, deadline=None)  # the parsers take half a second for a page
@given(st.text(max_size=20))
def test_a_page_reads_back(awkward: str) -> None:
    """Both text formats, read by prometheus_client's parsers, have every sample, whatever a label holds."""
    facts = replace(FACTS, model=awkward, information={"note": awkward[::-1]})
    metrics = list(families(view(recorded([(0, OK, 5_000_000)])[0], facts=facts)))
    for accept, parse in (("", parse_text), ("application/openmetrics-text", parse_openmetrics)):
        assert page(parse(_text(metrics, accept))) == page(metrics)


def _text(metrics: Iterable[Metric], accept: str = "") -> str:
    encode, _ = choose_encoder(accept)
    return encode(Collected(metrics)).decode()


@given(st.lists(st.integers(0, 2**44 - 1), max_size=80))
def test_native_buckets_hold_every_value(times: list[int]) -> None:
    """Spans and deltas give back all counts, each value v within 0.4 % of its bucket (2^((i−1)/32), 2^(i/32)] s."""
    histogram = Histogram()
    histogram.add(np.array(times, np.int64))
    native = native_histogram(histogram.counts, histogram.sum / SECOND_NS)
    numbers: list[int] = []
    at = 0
    for span in native.pos_spans or ():
        at += span.offset
        numbers += range(at, at + span.length)
        at += span.length
    counts = np.cumsum(np.array(native.pos_deltas, np.int64)).tolist()
    assert len(numbers) == len(counts)
    assert all(count > 0 for count in counts)
    assert native.count_value == len(times) == sum(counts) + native.zero_count
    assert native.zero_count == times.count(0)
    expected = sorted(time / SECOND_NS for time in times if time)
    for number, count in zip(numbers, counts, strict=True):
        for value in expected[:count]:
            assert 2 ** ((number - 1) / 2**SCHEMA) / 1.004 < value <= 2 ** (number / 2**SCHEMA) * 1.004
        del expected[:count]


def test_promtool_finds_no_fault() -> None:
    """Its lint of names, types and help, on a whole page."""
    promtool("check", "metrics", stdin=_text(families(view(recorded(some_requests())[0]))).encode())
