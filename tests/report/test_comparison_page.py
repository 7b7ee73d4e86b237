"""Comparisons as pages and in reports: ratio, interval and verdict of each number."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

import pytest

from command_line import loadtrt
from loadtrt.report.comparison_verdicts import verdict_on
from loadtrt.report.result_files import Loaded
from loadtrt.stats.regression import Comparison, Judged, Ratio
from reported import altered, html_text, markdown_text, measured, repeated, two_models

if TYPE_CHECKING:
    from pathlib import Path

    from loadtrt.report.result_files import Result


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a.json, and b.json of an engine that is 10 % slower."""
    folder = tmp_path_factory.mktemp("runs")
    for name, service in (("a", "1ms"), ("b", "1.1ms")):
        engine = f"simulated:service={service},cv=0.3,clock=virtual"
        run = ("run", "--engine", engine, "--contexts", "2", "--warmup", "0", "--requests", "9000", "--quiet")
        loadtrt(*run, "--json", folder / f"{name}.json")
    return folder


def test_a_page_and_markdown(runs: Path, tmp_path: Path) -> None:
    """By their suffixes, both with the verdict on each number and on each threshold."""
    page, text = tmp_path / "c.html", tmp_path / "c.md"
    gates = ("--fail-if", "latency.p99 +5%", "--fail-if", "throughput -50%")
    done = loadtrt("compare", runs / "a.json", runs / "b.json", *gates, "-o", page, "-o", text)
    assert done.returncode == 99
    assert "latency.p99 +5%: REGRESSED" in done.stdout
    said = " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page.read_text())).split())
    assert "regressed (+5%)" in said
    assert "not regressed (-50%)" in said
    assert page.read_text().count("<figure>") == 2  # ratios, latencies
    assert "| latency p50 |" in text.read_text()
    (row,) = (line for line in text.read_text().splitlines() if line.startswith("| compute p50 |"))
    assert row.endswith("| ❌ **worse** |")


def test_a_format_by_its_short_option(runs: Path) -> None:
    """As -f flat."""
    done = loadtrt("report", runs / "a.json", "-f", "flat", "-o", "-")
    assert done.stdout.startswith('{\n "valid": 1,')


def test_markdown_on_stdout(runs: Path) -> None:
    """The text for the terminal is on stderr then."""
    done = loadtrt("compare", runs / "a.json", runs / "b.json", "-o", "-")
    assert done.stdout.startswith("## Comparison of runs\n")
    assert "requests/s" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("-o", "c.csv"), "-o c.csv has no suffix of a format: write .html, .md, .txt"),
        (("-o", "c"), "-o c has no suffix of a format: write .html, .md, .txt"),
        (("-o", "c.md", "-o", "c.md"), "two outputs are the same"),
        (("-o", "-", "--json", "-"), "two outputs are the same"),
        (("-o", "no/c.md"), "there is no folder no"),
    ],
)
def test_outputs_that_cannot_be(runs: Path, arguments: tuple[str, ...], sentence: str) -> None:
    """One sentence, and nothing is written."""
    done = loadtrt("compare", "a.json", "b.json", *arguments, folder=runs)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert sorted(file.name for file in runs.iterdir()) == ["a.json", "b.json"]


def _comparison(*thresholds: Judged, valid: bool = True) -> Comparison:
    return Comparison(loadtrt="1", a=("a",), b=("b",), valid=valid, problems=(), ratios=(), thresholds=thresholds)


@pytest.mark.parametrize(
    ("name", "low", "high", "verdict"),
    [
        ("latency.p99", 1.01, 1.2, "worse"),
        ("latency.p99", 0.8, 0.9, "better"),
        ("latency.p99", 0.9, 1.1, "no difference shown"),
        ("latency.p99", 1.0, 1.1, "no difference shown"),
        ("latency.p99", 1.01, None, "worse"),
        ("latency.p99", None, 0.9, "better"),
        ("latency.p99", None, 1.1, "no difference shown"),
        ("latency.p99", None, None, "–"),
        ("throughput", 1.01, 1.2, "better"),
        ("inferences", 0.8, 0.9, "worse"),
    ],
)
def test_a_verdict_without_a_threshold(name: str, low: float | None, high: float | None, verdict: str) -> None:
    """Is by which side of 1 the interval lies, and which is the better one."""
    ratio = Ratio(name=name, unit="ns", a=1.0, b=1.0, ratio=1.0, low=low, high=high)
    assert verdict_on(_comparison(), ratio).text == verdict


def test_a_threshold_decides_first_and_no_invalid_run_is_judged() -> None:
    """10 % more may be allowed."""
    ratio = Ratio(name="latency.p99", unit="ns", a=1.0, b=1.1, ratio=1.1, low=1.05, high=1.15)
    allowed = Judged(threshold="latency.p99 +20%", ratio=ratio, verdict="not regressed")
    assert verdict_on(_comparison(allowed), ratio).text == "not regressed (+20%)"
    assert verdict_on(_comparison(allowed, valid=False), ratio).text == "not judged"


def test_a_report_of_two_runs_compares_them() -> None:
    """Beside the results."""
    text = markdown_text([Loaded("a.json", measured()), Loaded("b.json", measured("--requests", "3000"))])
    assert "## Comparison of runs" in text
    assert "| latency p50 |" in text
    assert "<h1" in html_text([Loaded("a.json", measured()), Loaded("b.json", measured("--requests", "3000"))])


def test_a_report_of_more_compares_each_with_the_first() -> None:
    """In one table, with interval and verdict."""
    slow = ("--engine", "simulated:service=9ms,cv=0.1,clock=virtual", "--requests", "3000")
    names: dict[str, Result] = {
        "a.json": measured("--requests", "3000"),
        "b.json": measured(*slow),
        "c.json": repeated(),
    }
    text = markdown_text([Loaded(name, result) for name, result in names.items()])
    assert text.count("## Compared with a.json") == 1
    assert "## Comparison of runs" not in text
    (row,) = (line for line in text.splitlines() if line.startswith("| `b.json` |") and ", worse" in line)
    assert row.count(", worse") == 2
    assert "| `c.json` |" in text


def test_throughput_at_a_rate_is_the_load() -> None:
    """More or fewer requests that came say nothing of the engine."""
    rates = [measured("--rate", rate, "--duration", "20s") for rate in ("100/s", "200/s")]
    text = markdown_text([Loaded("a.json", rates[0]), Loaded("b.json", rates[1])])
    (row,) = (line for line in text.splitlines() if line.startswith("| requests/s |"))
    assert row.endswith("| **the load** |")
    text = markdown_text([Loaded(f"{name}.json", run) for name, run in zip("abc", (*rates, rates[1]), strict=True)])
    assert text.count(", the load |") == 2


def test_what_cannot_be_compared_is_not() -> None:
    """Runs of several models; and a run alone."""
    assert "Compar" not in markdown_text([Loaded("a.json", measured()), Loaded("b.json", two_models())])
    assert "Compar" not in markdown_text([Loaded("a.json", measured())])


def test_an_invalid_run_is_shown_and_not_judged() -> None:
    """Its numbers show neither."""
    invalid = altered(measured(), valid=False)
    text = markdown_text([Loaded("a.json", measured("--requests", "3000")), Loaded("b.json", invalid)])
    assert "| **not judged** |" in text
    assert "worse" not in text.replace("a number is worse or better", "")
