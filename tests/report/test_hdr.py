"""HdrHistogram's interval log: its own reader (the package hdrhistogram) finds every request where it was."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
from hypothesis import example, given, settings
from hypothesis import strategies as st

from loadtrt.cli.main import cli
from loadtrt.errors import UsageError
from loadtrt.records.histogram import QUANTILE_ERROR, Histogram, bucket_of
from loadtrt.report.hdr import _parts, encoded, hdr_log
from loadtrt.results.run_result import RunResult
from loadtrt.results.steadiness import Interval
from runs_by_hand import changed

if TYPE_CHECKING:
    from pathlib import Path

HDR_ERROR = 1 / 1024  # of three significant digits


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """A run with every phase; in virtual time."""
    path = tmp_path_factory.mktemp("runs") / "run.json"
    engine = "simulated:service=1ms,cv=0.5,h2d=100us,d2h=50us,clock=virtual"
    arguments = ["run", "--engine", engine, "--rate", "600/s", "--requests", "3000", "--quiet", "--json", str(path)]
    CliRunner().invoke(cli, arguments, catch_exceptions=False, standalone_mode=False)
    return RunResult.model_validate_json(path.read_text())


def _read(path: Path) -> list[Any]:
    """The log's histograms by its own reader."""
    reader, found = HistogramLogReader(str(path), HdrHistogram(1, 1 << 44, 3)), []
    while (histogram := reader.get_next_interval_histogram()) is not None:
        found.append(histogram)
    reader.close()
    return found


def _histogram(values: list[int]) -> Histogram:
    histogram = Histogram()
    histogram.add(np.array(values, np.int64))
    return histogram


def _merged(histograms: list[Any]) -> Any:
    whole = HdrHistogram(1, 1 << 44, 3)
    for histogram in histograms:
        whole.add(histogram)
    return whole


def test_its_reader_finds_every_metric(result: RunResult, tmp_path: Path) -> None:
    """Latency without a tag, the others as one interval each; counts equal, percentiles, minimum and maximum within
    what buckets can tell."""
    log = tmp_path / "run.hlog"
    log.write_text(hdr_log(result))
    every = _read(log)
    read = {histogram.get_tag(): histogram for histogram in every if histogram.get_tag()}
    assert len(read) == sum(1 for histogram in every if histogram.get_tag())
    read["latency"] = _merged([histogram for histogram in every if not histogram.get_tag()])
    assert set(read) == set(result.model.histograms)
    for name, histogram in read.items():
        own = Histogram.from_dict(result.model.histograms[name])
        assert histogram.get_total_count() == own.count == 3000
        for percentile in (1, 10, 50, 90, 99, 99.9):
            low, high = own.quantiles((percentile / 100 - 1 / 3000, percentile / 100 + 1 / 3000))  # ranks are rounded
            assert low * (1 - HDR_ERROR) - 1 <= histogram.get_value_at_percentile(percentile)
            assert histogram.get_value_at_percentile(percentile) <= high * (1 + HDR_ERROR) + 1
        assert histogram.get_max_value() == pytest.approx(own.max, rel=HDR_ERROR)
        assert histogram.get_min_value() == pytest.approx(own.min, rel=HDR_ERROR)


def test_a_reader_that_knows_no_tags_has_latency_second_by_second(result: RunResult, tmp_path: Path) -> None:
    """Its lines are the ones that begin with a number: a line a second, with the requests and the greatest latency of
    that second; together they are the run's histogram."""
    log = tmp_path / "run.hlog"
    lines = hdr_log(result).splitlines(keepends=True)
    log.write_text("".join(line for line in lines if not line.startswith("Tag=")))
    seconds, intervals = _read(log), result.model.intervals
    assert [histogram.get_total_count() for histogram in seconds] == [interval.requests for interval in intervals]
    assert len(seconds) == 6
    for histogram, interval in zip(seconds, intervals, strict=True):
        assert histogram.get_max_value() == pytest.approx(interval.latency_max_ns, rel=HDR_ERROR)
        count = interval.requests
        ordered = np.sort(_values(histogram))
        for rank, value in ((0.5, interval.latency_p50_ns), (0.9, interval.latency_p90_ns)):
            low, high = ordered[[int(rank * (count - 1)), min(int(rank * (count - 1)) + 1, count - 1)]]
            assert value is not None
            assert low / 1.1 <= value <= high * 1.1  # a cell is 9 % wide
    whole = HdrHistogram.decode(encoded(Histogram.from_dict(result.model.histograms["latency"])))
    merged = _merged(seconds)
    for percentile in (0, 1, 25, 50, 75, 90, 99, 99.9, 100):
        both = (merged.get_value_at_percentile(percentile), whole.get_value_at_percentile(percentile))
        assert both[0] == pytest.approx(both[1], rel=2 * HDR_ERROR + 2 * QUANTILE_ERROR)


def _values(histogram: Any) -> list[int]:
    return [
        item.value_iterated_to
        for item in histogram.get_recorded_iterator()
        for _ in range(item.count_at_value_iterated_to)
    ]


def test_lines_are_in_the_order_of_their_start(result: RunResult) -> None:
    """Readers that look for a range of time stop at the first line beyond it."""
    lines = [line for line in hdr_log(result).splitlines() if not line.startswith(("#", '"'))]
    starts = [float(line.split(",")[1 if line.startswith("Tag=") else 0]) for line in lines]
    assert starts == sorted(starts)
    assert starts[-1] == 5
    assert not lines[0].startswith("Tag=")


def test_a_second_in_which_nothing_completed(tmp_path: Path) -> None:
    """Has a line of its own, with no request."""
    path, log = tmp_path / "run.json", tmp_path / "run.hlog"
    engine = "simulated:service=10ms,cv=0.2,stall=3s@2s,clock=virtual"
    arguments = ["run", "--engine", engine, "--duration", "7s", "--warmup", "0", "--quiet", "--json", str(path)]
    CliRunner().invoke(cli, arguments, catch_exceptions=False, standalone_mode=False)
    stalled = RunResult.model_validate_json(path.read_text())
    log.write_text(hdr_log(stalled))
    counts = [histogram.get_total_count() for histogram in _read(log) if not histogram.get_tag()]
    assert counts == [interval.requests for interval in stalled.model.intervals]
    assert 0 in counts


@pytest.mark.parametrize("damage", ["no counts", "another count", "another maximum", "a cell that is none"])
def test_seconds_that_do_not_add_up_to_the_run(result: RunResult, damage: str) -> None:
    """As in files of earlier versions: the whole run is one interval then."""
    first, *others = result.model.intervals
    cells = dict(first.latency_counts)
    some = next(iter(cells))
    updates: dict[str, dict[str, Any]] = {
        "no counts": {"latency_counts": {}},
        "another count": {"latency_counts": cells | {some: cells[some] + 1}},
        "another maximum": {"latency_max_ns": 1},
        "a cell that is none": {"latency_counts": cells | {99_999: 1}},
    }
    broken = changed(result, intervals=(first.model_copy(update=updates[damage]), *others))
    lines = [line for line in hdr_log(broken).splitlines() if not line.startswith(("#", '"', "Tag="))]
    assert len(lines) == 1
    assert lines[0].startswith(f"0.000,{result.phases.measure_ns / 1e9:.3f},")
    assert HdrHistogram.decode(lines[0].split(",")[3]).get_total_count() == 3000


@settings(max_examples=20)
@given(st.lists(st.lists(st.integers(0, 50_000), max_size=40), min_size=1, max_size=6))
@example([[1000], [], [1001, 1001, 1000]])
@example([[1000] * 10, [1020] * 10])  # of one cell
@example([[0], [0, 0, 1], [1]])
def test_any_seconds_are_shared_exactly(seconds: list[list[int]]) -> None:
    """Every second has its count in each cell and its greatest value, and all together are the run's histogram."""
    whole, parts = _histogram([value for second in seconds for value in second]), [_histogram(one) for one in seconds]
    rest = dict.fromkeys(
        name for name in Interval.model_fields if name.endswith(("mean_ns", "p50_ns", "p90_ns", "p99_ns"))
    )
    intervals = [
        Interval.model_validate(
            {"start_ns": 0, "failed": 0, "requests": part.count, "latency_max_ns": part.max, **rest}
            | {"latency_counts": part.cells()}
        )
        for part in parts
    ]
    shared = _parts(intervals, whole)
    if not whole.count:
        assert shared is None
        return
    assert shared is not None
    found = list(shared)
    assert [one.cells() for one in found] == [part.cells() for part in parts]
    assert [one.max for one in found] == [part.max for part in parts]
    assert (np.sum([one.counts for one in found], axis=0) == whole.counts).all()
    assert min(one.min for one in found if one.min is not None) == whole.min
    for one in found:
        if one.max is not None:
            assert np.flatnonzero(one.counts)[-1] == bucket_of(np.array([one.max]))[0]


def test_its_instants_are_those_of_measuring(result: RunResult, tmp_path: Path) -> None:
    """From after the warm-up to the last completion, as seconds and as a date; the maximum is in ms."""
    log = tmp_path / "run.hlog"
    log.write_text(hdr_log(result))
    tagged = next(histogram for histogram in _read(log) if histogram.get_tag())
    start, end = (read() / 1000 for read in (tagged.get_start_time_stamp, tagged.get_end_time_stamp))
    began = datetime.fromisoformat(result.began).timestamp()
    assert start == pytest.approx(began, abs=0.0015)
    assert end - start == pytest.approx(result.phases.measure_ns / 1e9, abs=0.0015)
    lines = log.read_text().splitlines()
    assert lines[1] == "#[Histogram log format version 1.3]"
    assert lines[2].startswith(f"#[StartTime: {start:.3f} (seconds since epoch), ")
    assert str(datetime.fromtimestamp(began).year) in lines[2]
    assert lines[4] == '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"'
    zero, second, most, payload = lines[5].split(",")
    assert (zero, second) == ("0.000", "1.000")
    assert float(most) == pytest.approx((result.model.intervals[0].latency_max_ns or 0) / 1e6, abs=0.0005)
    assert payload.startswith("HISTF")  # what every log of V2 has there


@settings(max_examples=15)
@given(st.lists(st.integers(0, (1 << 44) - 1), min_size=1, max_size=200))
@example([0])
@example([0, 0, 2047, 2048, 2049])
@example([(1 << 44) - 1])
@example([1, 1, 1, 5_000_000_000_000])
def test_values_of_every_size(values: list[int]) -> None:
    """From 0 to 4.9 hours, with gaps of any length: total, ends, and each value within both buckets' error."""
    read = HdrHistogram.decode(encoded(_histogram(values)))
    assert read.get_total_count() == len(values)
    found = [
        item.value_iterated_to for item in read.get_recorded_iterator() for _ in range(item.count_at_value_iterated_to)
    ]
    error = QUANTILE_ERROR + HDR_ERROR
    assert np.allclose(found, sorted(values), rtol=error, atol=1)
    assert read.get_max_value() == pytest.approx(max(values), rel=HDR_ERROR)


@pytest.mark.parametrize("count", [1, 63, 64, 127, 128, 8191, 8192, 1 << 20, 1 << 31, 1 << 40, 1 << 54])
def test_counts_of_every_length(count: int) -> None:
    """Numbers of one to eight bytes."""
    histogram = _histogram([1000, 2000, 50_000])
    histogram.counts[np.flatnonzero(histogram.counts)[1]] = count
    read = HdrHistogram.decode(encoded(histogram))
    assert read.get_total_count() == count + 2
    assert [item.count_at_value_iterated_to for item in read.get_recorded_iterator()] == [1, count, 1]


def test_a_value_beyond_the_last_bucket() -> None:
    """It counts in the last one."""
    read = HdrHistogram.decode(encoded(_histogram([1000, 1 << 50])))
    assert read.get_total_count() == 2
    assert read.get_max_value() == pytest.approx((1 << 44) - 1, rel=HDR_ERROR)


def test_logs_of_two_runs_merge(result: RunResult, tmp_path: Path) -> None:
    """What such logs are for: adding them up gives twice the counts and the same percentiles."""
    log = tmp_path / "run.hlog"
    log.write_text(hdr_log(result))
    first, second = (_merged([part for part in _read(log) if not part.get_tag()]) for _ in range(2))
    before = first.get_value_at_percentile(99)
    first.add(second)
    assert first.get_total_count() == 6000
    assert first.get_value_at_percentile(99) == before


def test_a_run_without_requests(result: RunResult) -> None:
    """There is nothing to write, and it says so."""
    empty = changed(result, histograms={"latency": Histogram().to_dict()})
    with pytest.raises(UsageError, match="the run served no request"):
        hdr_log(empty)


def test_a_name_cannot_break_a_line(result: RunResult) -> None:
    """Whatever the file of the engine is called."""
    named = changed(result, engine=replace(result.model.engine, name="a\nb.plan"))
    assert hdr_log(named).splitlines()[0].endswith("a b.plan; values in ns]")
    assert json.dumps(hdr_log(named)).isascii()
