"""Objectives that bound no percentile, in every output: with their units, and never as times."""

from __future__ import annotations

import csv
import io
import json
import re
from html import unescape
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from loadtrt.asked.objective import UNITS
from loadtrt.cli.main import cli
from loadtrt.errors import UsageError
from loadtrt.report.csv_lines import csv_text
from loadtrt.report.junit import run_junit
from loadtrt.report.openmetrics import openmetrics_text
from loadtrt.report.plain import terminal_text
from loadtrt.units import format_count
from reported import html_text, loaded, markdown_text, measured

if TYPE_CHECKING:
    from pathlib import Path

    from loadtrt.results.run_result import RunResult

LOAD = ("--rate", "150/s", "--duration", "20s")
FIRST = ("throughput > 90/s", "inferences > 1000/s", "goodput(latency < 1s) > 80/s")
SECOND = ("errors < 1%", "latency.p99.5 < 1s", "energy < 30mJ/inference")


def _run(*texts: str) -> RunResult:
    return measured(*LOAD, *(part for text in texts for part in ("--objective", text)))


def test_every_document_has_the_number_with_its_unit() -> None:
    """The verdict, the value and its interval; the terminal, Markdown and the page say the same."""
    run = _run(*FIRST)
    rate = f"{format_count(run.model.objectives[0].value or 0)}/s"
    for text in (terminal_text(run), markdown_text([loaded(run)]), html_text([loaded(run)])):
        bare = re.sub(r"<(script|style)\b.*?</\1>|</?[a-z][^<>]*>|\\", "", text, flags=re.DOTALL)
        shown = " ".join(unescape(bare).split())
        assert "throughput > 90/s" in shown
        assert rate in shown
    lines = [line for line in terminal_text(run).splitlines() if line.startswith(("✓", "✗", "?"))]
    assert [line[0] for line in lines] == ["✓", "✗", "✓"]
    assert not any(re.search(r"\d [nµm]?s\b", line.partition(": ")[2]) for line in lines), lines


def test_a_percentile_keeps_its_name() -> None:
    """p99.5 is exact and called so; errors are in words; a device without energy says why."""
    text = " ".join(terminal_text(_run(*SECOND)).split())
    assert re.search(r"latency\.p99\.5 < 1s: MET, p99\.5 \d", text)
    assert "errors < 1%: MET, 0 % failed or not served" in text
    assert "energy < 30mJ/inference: UNDECIDED → there is no telemetry of a GPU" in text


def test_csv_has_the_value_and_its_unit() -> None:
    """Cells of times are empty for a rate, and those of numbers for a share of the requests."""
    run = _run(*FIRST[:2], SECOND[0])
    (line,) = csv.DictReader(io.StringIO(csv_text([loaded(run)])))
    item = run.model.objectives[0]
    assert float(line["objective_1_value"]) == pytest.approx(item.value)
    assert float(line["objective_1_value_low"]) == pytest.approx(item.value_low)
    assert float(line["objective_1_value_high"]) == pytest.approx(item.value_high)
    units = [line[f"objective_{number}_unit"] for number in (1, 2, 3)]
    assert units == [UNITS["throughput"], UNITS["inferences"], ""]
    assert {line[f"objective_1_{name}"] for name in ("value_ns", "bad_ratio", "bad_low_ratio", "effective")} == {""}
    assert {line["objective_3_value"], line["objective_3_value_ns"]} == {""}
    assert float(line["objective_3_bad_ratio"]) == 0


def test_junit_has_a_testcase_for_each_kind() -> None:
    """Met passes with the number, missed fails, undecided is an error."""
    run = _run(*FIRST[:2], SECOND[2])
    cases = {case.get("name"): case for case in ElementTree.fromstring(run_junit(run)).iter("testcase")}  # noqa: S314
    output = cases["throughput > 90/s"].findtext("system-out") or ""
    assert f"{format_count(run.model.objectives[0].value or 0)}/s" in output
    assert cases["inferences > 1000/s"].find("failure") is not None
    assert cases["energy < 30mJ/inference"].find("error") is not None


def test_openmetrics_has_no_bound_in_seconds_of_a_rate() -> None:
    """Numbers have the ratio that they attain; shares of requests have their counts."""
    run = _run(FIRST[0], SECOND[0], SECOND[1])
    text = openmetrics_text(run)
    found = dict(re.findall(r'^(loadtrt_objective_\w+)\{[^}]*objective="([^"]*)"', text, re.MULTILINE))
    assert found["loadtrt_objective_attained_ratio"] == FIRST[0]
    assert found["loadtrt_objective_bound_seconds"] == SECOND[1]
    for name in ("good_total", "requests_total", "target_ratio"):
        named = set(re.findall(rf'loadtrt_objective_{name}\{{[^}}]*objective="([^"]*)"', text))
        assert named == {SECOND[0], SECOND[1]}, name
    (value,) = re.findall(r"^loadtrt_objective_attained_ratio\{.*?\} (\S+)", text, re.MULTILINE)
    assert float(value) == pytest.approx((run.model.objectives[0].value or 0) / 90)


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ((), 0, "VALID · objectives met"),
        (("--max-queue", "4"), 0, "% dropped"),
        (("--requests", "400"), 97, "INVALID"),
        (("--requests", "400", "--objective", "throughput > 50/s"), 0, "of the offered load served · objectives met"),
        (("--requests", "400", "--objective", "throughput > 150/s"), 99, "served · objectives missed"),
    ],
)
def test_half_of_what_was_offered_is_not_silently_valid(
    options: tuple[str, ...], code: int, words: str, tmp_path: Path
) -> None:
    """A run that dropped says so beside VALID; one whose backlog grew is INVALID, unless an objective judges it."""
    rate = "200/s" if options else "50/s"
    options = options or ("--requests", "2000", "--objective", "errors < 1%")
    length = () if "--requests" in options else ("--requests", "2000")
    engine, file = "simulated:service=10ms,clock=virtual", tmp_path / "run.json"
    arguments = ["run", "--engine", engine, "--rate", rate, "--warmup", "0", "--no-live", "--json", str(file)]
    done = CliRunner().invoke(cli, [*arguments, *length, *options], standalone_mode=False)
    assert done.exception is None, done.exception
    shown = " ".join(done.stdout.split())
    assert (int(done.return_value or 0), words in shown) == (code, True), shown
    (model,) = json.loads(file.read_text())["models"].values()
    problems = [problem["kind"] for problem in model["problems"]]
    assert problems == (["overloaded"] if code == 97 else [])
    if code == 97:
        assert "the backlog grew until the end" in shown
        assert shown.count("the backlog grew") == 1


@pytest.mark.parametrize("text", [*FIRST, "power < 1W", "energy < 1J/inference"])
def test_a_capacity_takes_no_number_of_the_whole_run(text: str) -> None:
    """One sentence, and exit code 2."""
    done = CliRunner().invoke(cli, ["capacity", "--engine", "simulated:null", "--objective", text])
    assert isinstance(done.exception, UsageError)
    assert f"'{text}' is not about single requests" in str(done.exception)


@pytest.mark.parametrize(("text", "words"), [("errors < 1%", "sets no limit"), ("errors <= 0%", "the greatest of all")])
def test_a_capacity_needs_a_limit_to_the_rate(text: str, words: str) -> None:
    """Errors alone leave it open, and none at all can be shown by no sample."""
    done = CliRunner().invoke(cli, ["capacity", "--engine", "simulated:null", "--objective", text])
    assert isinstance(done.exception, UsageError)
    assert words in str(done.exception)
