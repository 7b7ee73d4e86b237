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
from loadtrt.records.histogram import QUANTILE_ERROR, Histogram
from loadtrt.report.hdr import encoded, hdr_log
from loadtrt.results.run_result import RunResult
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


def test_its_reader_finds_every_metric(result: RunResult, tmp_path: Path) -> None:
    """One interval each, tagged; counts equal, percentiles, minimum and maximum within what buckets can tell."""
    log = tmp_path / "run.hlog"
    log.write_text(hdr_log(result))
    read = {histogram.get_tag(): histogram for histogram in _read(log)}
    assert list(read) == list(result.model.histograms)
    for name, histogram in read.items():
        own = Histogram.from_dict(result.model.histograms[name])
        assert histogram.get_total_count() == own.count == 3000
        for percentile in (1, 10, 50, 90, 99, 99.9):
            low, high = own.quantiles((percentile / 100 - 1 / 3000, percentile / 100 + 1 / 3000))  # ranks are rounded
            assert low * (1 - HDR_ERROR) - 1 <= histogram.get_value_at_percentile(percentile)
            assert histogram.get_value_at_percentile(percentile) <= high * (1 + HDR_ERROR) + 1
        assert histogram.get_max_value() == pytest.approx(own.max, rel=HDR_ERROR)
        assert histogram.get_min_value() == pytest.approx(own.min, rel=HDR_ERROR)


def test_its_instants_are_those_of_measuring(result: RunResult, tmp_path: Path) -> None:
    """From after the warm-up to the last completion, as seconds and as a date; the maximum is in ms."""
    log = tmp_path / "run.hlog"
    log.write_text(hdr_log(result))
    start, end = (read() / 1000 for read in (_read(log)[0].get_start_time_stamp, _read(log)[0].get_end_time_stamp))
    began = datetime.fromisoformat(result.started).timestamp()
    assert began + result.phases.warmup_ns / 1e9 <= start <= began + 60
    assert end - start == pytest.approx(result.phases.measure_ns / 1e9, abs=0.0015)
    lines = log.read_text().splitlines()
    assert lines[1] == "#[Histogram log format version 1.3]"
    assert lines[2].startswith(f"#[StartTime: {start:.3f} (seconds since epoch), ")
    assert str(datetime.fromtimestamp(began).year) in lines[2]
    assert lines[4] == '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"'
    tag, zero, _, most, payload = lines[5].split(",")
    assert (tag, zero) == ("Tag=latency", "0.000")
    assert float(most) == pytest.approx((result.model.metrics["latency"].max_ns or 0) / 1e6, abs=0.0005)
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
    first, second = _read(log)[0], _read(log)[0]
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
