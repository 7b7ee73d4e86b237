"""A run.json that something damaged: one sentence and exit code 2, never a fault of loadtrt's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from command_line import loadtrt
from loadtrt.cli.main import cli
from loadtrt.errors import UsageError
from reported import measured
from runs_by_hand import model_in

if TYPE_CHECKING:
    from pathlib import Path

LATENCY = ("histograms", "latency")


@pytest.mark.parametrize(
    ("place", "value", "sentence"),
    [
        (
            (*LATENCY, "buckets"),
            [[999_999, 1]],
            "histograms: the histogram of latency has the bucket [999999, 1]",
        ),
        (
            (*LATENCY, "buckets"),
            [[-1, 1]],
            "the histogram of latency has the bucket [-1, 1], which is not an index and a count",
        ),
        ((*LATENCY, "buckets"), [[1, -1]], "the histogram of latency has the bucket [1, -1]"),
        ((*LATENCY, "buckets"), [[1, 1, 1]], "the histogram of latency has the bucket [1, 1, 1]"),
        ((*LATENCY, "buckets"), ["12"], "the histogram of latency has the bucket 12"),
        ((*LATENCY, "buckets"), [[1, 1 << 70]], "the histogram of latency has the bucket"),
        (
            (*LATENCY, "buckets"),
            ["1" * 100 + "2"],
            f"the histogram of latency has the bucket {'1' * 20}…{'1' * 18}2, which",
        ),
        ((*LATENCY, "buckets"), None, "the histogram of latency lacks buckets, sum_ns, min_ns or max_ns"),
        ((*LATENCY, "sum_ns"), ..., "the histogram of latency lacks buckets, sum_ns, min_ns or max_ns"),
        ((*LATENCY, "max_ns"), "1", "the histogram of latency lacks buckets, sum_ns, min_ns or max_ns"),
        ((*LATENCY, "min_ns"), None, "the histogram of latency has buckets, but no min_ns or max_ns"),
        ((*LATENCY, "max_ns"), -1, "the histogram of latency has a min_ns above its max_ns"),
        (("metrics", "latency", "percentiles_ns"), {}, "metrics.latency.percentiles_ns: p50 is missing"),
        (
            ("metrics", "latency", "confidence", "p90", "effective"),
            -2,
            "metrics.latency.confidence.p90.effective: -2 is below 0, the least",
        ),
        (
            ("throughput", "confidence", "effective"),
            -2,
            "throughput.confidence.effective: -2 is below 0, the least",
        ),
        (("metrics", "latency", "count"), -1, "metrics.latency.count: -1 is below 0, the least"),
        (("dropped",), -1, "dropped: -1 is below 0, the least"),
        (("sample", "columns", "due"), [1], "sample.columns: its columns are of different lengths"),
        (("started",), "x", "started: Invalid isoformat string: 'x'"),
        (("config",), {}, "config.models: it is missing"),
        (("config",), {"engine": "x"}, "loadtrt.run/1: RunConfig takes models"),
        (("began",), "x", "began: Invalid isoformat string: 'x'"),
        (("started",), "9999-12-31T23:59:59+00:00", "started: it is not an instant of a run"),
    ],
)
@pytest.mark.parametrize("reader", ["compare", "trace.json", "hlog"])
def test_what_was_damaged_is_named(
    place: tuple[str, ...], value: Any, sentence: str, reader: str, tmp_path: Path
) -> None:
    """The file, where in it, and what is wrong, by whoever reads it. ...: left out."""
    content = json.loads(measured().model_dump_json())
    *way, last = place
    part = content if place[0] in content else model_in(content)
    for key in way:
        part = part[key]
    part[last] = value
    if value is ...:
        del part[last]
    file = str(tmp_path / "run.json")
    (tmp_path / "run.json").write_text(json.dumps(content))
    arguments = ["compare", file, file] if reader == "compare" else ["report", file, "-o", f"{tmp_path}/x.{reader}"]
    found = CliRunner().invoke(cli, arguments, standalone_mode=False)
    assert isinstance(found.exception, UsageError), found.exception
    assert found.exception.exit_code == 2
    assert f"{file} does not fit its schema loadtrt.run/1: " in str(found.exception)
    assert sentence in str(found.exception)
    assert len(str(found.exception).splitlines()) == 1


@pytest.mark.parametrize("number", ["mean_ns", "percentiles_ns"])
def test_times_below_zero_have_no_ratio(number: str, tmp_path: Path) -> None:
    """They have no logarithm either."""
    content = json.loads(measured().model_dump_json())
    kept = model_in(content)["metrics"]["latency"]
    kept[number] = -5.0 if number == "mean_ns" else dict.fromkeys(kept[number], -5.0)
    file = str(tmp_path / "run.json")
    (tmp_path / "run.json").write_text(json.dumps(content))
    gate = f"latency.{'mean' if number == 'mean_ns' else 'p99'} +5%"
    found = CliRunner().invoke(cli, ["compare", file, file, "--fail-if", gate], standalone_mode=False)
    assert found.return_value == 98, found.exception
    assert "it is 0 in" in found.stdout


def test_a_log_needs_an_instant_to_begin_at(tmp_path: Path) -> None:
    """A run by hand may have none."""
    file = tmp_path / "run.json"
    file.write_text(measured().model_copy(update={"started": ""}).model_dump_json())
    found = CliRunner().invoke(cli, ["report", str(file), "-o", f"{tmp_path}/x.hlog"], standalone_mode=False)
    assert isinstance(found.exception, UsageError)
    assert "has no start time" in str(found.exception)


@pytest.mark.parametrize("number", [1e29, 1e308, 10**29])
@pytest.mark.parametrize("place", ["queue_mean_ns", "p50"])
def test_numbers_that_nothing_measures_are_one_sentence(place: str, number: float, tmp_path: Path) -> None:
    """Sums, squares and powers of them are no floats."""
    run = json.loads(measured().model_dump_json())
    (model,) = run["models"].values()
    ends = {"low": 1.0, "high": number, "effective": 1.0}
    if place == "queue_mean_ns":
        model["intervals"][1][place] = number
    else:
        model["metrics"]["service"]["confidence"][place] = ends
    file = tmp_path / "run.json"
    file.write_text(json.dumps(run))
    for line in (("export", "openmetrics", file), ("compare", file, file), ("report", file)):
        done = loadtrt(*line)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert "too large" in done.stderr
