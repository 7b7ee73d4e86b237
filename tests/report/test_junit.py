"""JUnit XML: an independent reader (junitparser) sees each objective as what it was, and nothing undecided as passed.

That it fits the schema of Jenkins' xUnit plugin (junit-10.xsd) was checked once, with lxml.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from junitparser import JUnitXml

from loadtrt.cli.main import cli
from loadtrt.errors import UsageError
from loadtrt.report.gates import run_cases
from loadtrt.report.junit import comparison_junit, run_junit
from loadtrt.results.breakdown import ScenarioResult
from loadtrt.results.run_result import Problem, RunResult
from loadtrt.stats.regression import Comparison, Judged, Ratio
from reported import two_models
from runs_by_hand import changed

if TYPE_CHECKING:
    from pathlib import Path

ENGINE = "simulated:service=1ms,distribution=exponential,clock=virtual"
MET, UNDECIDED, MISSED = "latency.p99 < 30ms", "latency.p99 < 10ms", "latency.p99 < 2ms"


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path, RunResult]:
    """(exit code, JUnit's file, result) of M/M/1 at half load."""
    folder = tmp_path_factory.mktemp("run")
    arguments = ["run", "--engine", ENGINE, "--rate", "500/s", "--requests", "5000", "--warmup", "0", "--quiet"]
    for objective in (MET, UNDECIDED, MISSED):
        arguments += ["--objective", objective]
    arguments += ["--junit", str(folder / "run.xml"), "--json", str(folder / "run.json")]
    done = CliRunner().invoke(cli, arguments, standalone_mode=False)
    return done.return_value, folder / "run.xml", RunResult.model_validate_json((folder / "run.json").read_text())


def _read(text: str) -> dict[str, list[tuple[str, str, str]]]:
    """(kind, type, message) of each testcase by its name; the suite's own counts are right."""
    (suite,) = JUnitXml.fromstring(text.encode())
    cases = {case.name: [(type(it).__name__, it.type, it.message) for it in case.result] for case in suite}
    kinds = [kind for results in cases.values() for kind, _, _ in results]
    counts = (kinds.count("Failure"), kinds.count("Error"), kinds.count("Skipped"))
    assert (suite.failures, suite.errors, suite.skipped, suite.tests) == (*counts, len(cases))
    return cases


def _kinds(text: str) -> dict[str, list[str]]:
    return {name: [kind for kind, _, _ in results] for name, results in _read(text).items()}


def test_objectives_of_a_run(ended: tuple[int, Path, RunResult]) -> None:
    """Met passes, missed fails with the numbers, undecided is an error with its reason; `run --junit` writes it."""
    code, file, result = ended
    assert code == 99
    assert file.read_text() == run_junit(result)
    cases = _read(run_junit(result))
    assert {name: [kind for kind, _, _ in results] for name, results in cases.items()} == {
        "valid": [],
        MET: [],
        UNDECIDED: ["Error"],
        MISSED: ["Failure"],
    }
    ((_, kind, message),) = cases[MISSED]
    assert (kind, message.startswith("MISSED, p99 "), " % bad (95 %: " in message) == ("missed", True, True)
    ((_, kind, message),) = cases[UNDECIDED]
    assert (kind, message.startswith("UNDECIDED, p99 "), "→ 5 000 requests (effective " in message) == (
        "undecided",
        True,
        True,
    )


def test_what_a_suite_says_of_its_run(ended: tuple[int, Path, RunResult]) -> None:
    """Which engine, when, and how long; no dots in a class's name but those of its packages."""
    _, _, result = ended
    result = changed(result, engine=replace(result.model.engine, name="net.fp16.plan"))
    (suite,) = JUnitXml.fromstring(run_junit(result).encode())
    assert suite.name == "loadtrt run net.fp16.plan"
    assert suite.time == pytest.approx(result.phases.measure_ns / 1e9, abs=0.0006)
    assert suite.timestamp == result.started.removesuffix("+00:00")
    assert {case.classname for case in suite} == {"loadtrt.run.net_fp16_plan"}
    times = [case.time for case in suite]
    assert min(times) > 0
    assert sum(times) == pytest.approx(suite.time, abs=1e-6)
    facts = suite.properties()  # type: ignore[no-untyped-call]  # junitparser is typed in part
    assert {each.name: each.value for each in facts}["run"] == result.run


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("simulated:service=1ms,cv=0.3", "simulated_service_1ms_cv_0_3"),
        ("models/net.plan", "models_net_plan"),
        ("C:\\net (1).plan", "C_net_1_plan"),
        ("netz#2;größe", "netz_2_gr_e"),
        ("\x00", "_"),
    ],
)
def test_a_classname_is_packages_and_one_word(name: str, word: str, ended: tuple[int, Path, RunResult]) -> None:
    """CI splits it at dots, and makes links and files of it."""
    _, _, result = ended
    (suite,) = JUnitXml.fromstring(run_junit(changed(result, engine=replace(result.model.engine, name=name))).encode())
    assert {case.classname for case in suite} == {f"loadtrt.run.{word}"}


def test_an_invalid_run_has_nothing_green(ended: tuple[int, Path, RunResult]) -> None:
    """ "valid" fails with evidence and remedy; objectives, also one that was met, are skipped."""
    _, _, result = ended
    problem = Problem(kind="late", evidence="it was late", remedy="free a core")
    cases = _read(run_junit(changed(result, valid=False, problems=(problem,))))
    assert cases.pop("valid") == [("Failure", "invalid", "it was late → free a core")]
    assert {kind for results in cases.values() for kind, _, _ in results} == {"Skipped"}
    assert all(cases.values())


def test_runs_that_did_not_end_well(ended: tuple[int, Path, RunResult]) -> None:
    """Interrupted: an error, and objectives as far as it went. Failed: a failure, and no objective is judged."""
    _, _, result = ended
    interrupted = _kinds(run_junit(result.model_copy(update={"outcome": "interrupted"})))
    assert interrupted == {"valid": ["Error"], MET: [], UNDECIDED: ["Error"], MISSED: ["Failure"]}
    update = {"outcome": "failed", "valid": False, "failure": "the device hangs"}
    failed = _read(run_junit(result.model_copy(update=update)))
    assert failed["valid"] == [("Failure", "failed", "the device hangs")]
    assert [kind for kind, _, _ in failed[MET]] == ["Skipped"]


def test_a_scenario_is_a_testcase(ended: tuple[int, Path, RunResult]) -> None:
    """By the rules it passes. Else it is skipped, as the exit code does not know of it, with each rule not kept."""
    _, _, result = ended
    found = ScenarioResult(
        scenario="offline", metric="inferences a second", inferences_per_s=9.0, requests=1, by_rules=True, reasons=()
    )
    assert _kinds(run_junit(changed(result, scenario=found)))["scenario offline"] == []
    broken = found.model_copy(update={"by_rules": False, "reasons": ("too few", "too short")})
    ((kind, _, message),) = _read(run_junit(changed(result, scenario=broken)))["scenario offline"]
    assert (kind, message.endswith("9.00 inferences a second; too few; too short")) == ("Skipped", True)


def test_files_from_before_verdicts(ended: tuple[int, Path, RunResult]) -> None:
    """An objective without a verdict is undecided, not green."""
    _, _, result = ended
    shares = tuple(share.model_copy(update={"verdict": None, "reason": None}) for share in result.model.objectives)
    kinds = _kinds(run_junit(changed(result, objectives=shares)))
    assert kinds == {"valid": [], MET: ["Error"], UNDECIDED: ["Error"], MISSED: ["Error"]}


def test_models_of_a_run_are_suites() -> None:
    """Each with its own validity and objectives, and an equal share of the time."""
    result = two_models()
    first, second = JUnitXml.fromstring(run_junit(result).encode())
    assert [suite.name[:14] for suite in (first, second)] == ["loadtrt run a ", "loadtrt run b "]
    assert [case.name for case in second] == ["valid", "latency.p50 < 1ms"]
    assert {case.classname for case in first} == {"loadtrt.run.a"}
    assert first.time + second.time == pytest.approx(result.phases.measure_ns / 1e9, abs=0.002)
    assert [case.name for case in run_cases(result)][2:] == ["b: valid", "b: latency.p50 < 1ms"]


@pytest.mark.parametrize("name", ['<a> & "b"', "a\x00b\x1b\x0bc", "a\ud800b", "größe\U0001f600"])
def test_names_that_are_no_xml(name: str, ended: tuple[int, Path, RunResult]) -> None:
    """Are escaped, or, where XML has no way to hold them, written as ?."""
    _, _, result = ended
    text = run_junit(changed(result, engine=replace(result.model.engine, name=name)))
    (suite,) = JUnitXml.fromstring(text.encode())
    clean = "".join("?" if sign < " " or "\ud800" <= sign < "\ue000" else sign for sign in name)
    assert suite.name == f"loadtrt run {clean}"


def _comparison(valid: bool = True) -> Comparison:
    ratio = Ratio(name="latency.p99", unit="ns", a=1e6, b=1.2e6, ratio=1.2, low=1.15, high=1.25)
    unknown = Ratio(name="latency.p50", unit="ns", a=1e6, b=None, ratio=None, reason="b.json has 3 requests")
    return Comparison(
        loadtrt="1",
        a=("a.json",),
        b=("b1.json", "b2.json"),
        valid=valid,
        problems=() if valid else ("B (b2.json): INVALID: it was late",),
        ratios=(ratio,),
        thresholds=(
            Judged(threshold="latency.p99 +5%", ratio=ratio, verdict="regressed"),
            Judged(threshold="latency.p99 +50%", ratio=ratio, verdict="not regressed"),
            Judged(threshold="latency.p50 +5%", ratio=unknown, verdict="undecided", reason=unknown.reason),
        ),
    )


def test_thresholds_of_a_comparison() -> None:
    """Regressed fails with the ratio and its interval, not regressed passes, undecided is an error with its reason."""
    assert _read(comparison_junit(_comparison())) == {
        "valid": [],
        "latency.p99 +5%": [("Failure", "regressed", "regressed, B/A 1.200 (1.150 .. 1.250)")],
        "latency.p99 +50%": [],
        "latency.p50 +5%": [("Error", "undecided", "undecided, B/A unknown: b.json has 3 requests")],
    }


@pytest.mark.parametrize(
    ("low", "high", "interval"), [(1.1, None, " (at least 1.100)"), (None, 1.3, " (at most 1.300)"), (None, None, "")]
)
def test_an_interval_with_one_end(low: float | None, high: float | None, interval: str) -> None:
    """As of a queue, whose p99 has no upper end."""
    ratio = Ratio(name="latency.p99", unit="ns", a=1e6, b=1.2e6, ratio=1.2, low=low, high=high)
    judged = Judged(threshold="latency.p99 +5%", ratio=ratio, verdict="regressed")
    cases = _read(comparison_junit(_comparison().model_copy(update={"thresholds": (judged,)})))
    assert cases["latency.p99 +5%"] == [("Failure", "regressed", f"regressed, B/A 1.200{interval}")]


def test_time_of_a_comparison() -> None:
    """The time of measuring, an equal share for each test."""
    (suite,) = JUnitXml.fromstring(comparison_junit(_comparison(), 21_000_000_000).encode())
    assert suite.time == 21
    assert [case.time for case in suite] == [5.25] * 4
    assert {case.classname for case in suite} == {"loadtrt.compare.b1_json_b2_json"}


def test_a_comparison_with_an_invalid_run_has_nothing_green() -> None:
    """Whatever the ratios were."""
    cases = _read(comparison_junit(_comparison(valid=False)))
    assert cases.pop("valid") == [("Failure", "invalid", "B (b2.json): INVALID: it was late")]
    assert {kind for results in cases.values() for kind, _, _ in results} == {"Skipped"}


@pytest.mark.parametrize(("file", "sentence"), [("-", "only --json goes to stdout"), ("no/run.xml", "no folder no")])
def test_a_file_that_cannot_be_written(file: str, sentence: str) -> None:
    """Is told before anything is measured."""
    done = CliRunner().invoke(cli, ["run", "--engine", ENGINE, "--junit", file], standalone_mode=False)
    assert isinstance(done.exception, UsageError)
    assert sentence in str(done.exception)
    assert "--junit" in str(done.exception)
