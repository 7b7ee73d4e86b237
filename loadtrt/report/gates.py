"""What CI judges: a case for each objective of a run or threshold of a comparison, and one for validity.

Met passes, missed is a failure, undecided is an error: the test could not be carried out with so little data. Of an
INVALID run the case "valid" fails and the others are skipped: its numbers neither meet nor miss anything. A scenario
whose rules were not kept is skipped, too: it has no result, and the exit code ignores it. JUnit (junit.py) and GitHub's
annotations (annotations.py) are made of these cases.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from loadtrt.errors import EXIT_INTERRUPTED, EXIT_INVALID, EXIT_MISSED, EXIT_UNDECIDED
from loadtrt.report.comparison_verdicts import interval_text
from loadtrt.report.plain import verdict_line
from loadtrt.report.run_verdict import objective_text, scenario_lines, shortfalls
from loadtrt.results.capacity_result import CapacityResult, SweepResult
from loadtrt.results.fleet_result import FleetResult
from loadtrt.results.interference_result import InterferenceResult
from loadtrt.results.one_model import models_of
from loadtrt.results.placement_result import PlacementResult
from loadtrt.results.repeat_result import RepeatResult
from loadtrt.results.run_result import RunResult

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadtrt.report.result_files import Result
    from loadtrt.results.breakdown import ScenarioResult
    from loadtrt.stats.regression import Comparison, Judged

Wrong: TypeAlias = tuple[Literal["failure", "error", "skipped"], str, str]
_CODES: dict[int, tuple[Literal["failure", "error"], str]] = {
    EXIT_INVALID: ("failure", "invalid"),
    EXIT_MISSED: ("failure", "missed"),
    EXIT_UNDECIDED: ("error", "undecided"),
    EXIT_INTERRUPTED: ("error", "interrupted"),
}


@dataclass(frozen=True, slots=True)
class Case:
    """One test.

    output: text of a test that passed.
    wrong: kind, type and message of a test that did not pass.
    """

    name: str
    output: str = ""
    wrong: Wrong | None = None


def cases_of(result: Result, code: int) -> list[Case]:
    """The cases of a run; of a result of many runs one, by the exit code of the command."""
    if isinstance(result, RunResult):
        return run_cases(result)
    line = verdict_line(result) if code else ""
    return [Case("verdict", line, (*_CODES.get(code, ("failure", "failed")), line) if code else None)]


def subject_of(result: Result) -> str:
    """What is judged: the command and its engine, or the names of several models."""
    match result:
        case RunResult(models=models):
            return f"loadtrt run {', '.join(models) if len(models) > 1 else result.model.engine.name}"
        case RepeatResult(runs=(first, *_)):
            return f"loadtrt run {first.model.engine.name}"
        case CapacityResult():
            return f"loadtrt capacity {result.config.model.engine}"
        case SweepResult():
            return f"loadtrt sweep {result.config.model.engine}"
        case InterferenceResult(config=config):
            return f"loadtrt interference {', '.join(config.models)}"
        case FleetResult():
            return f"loadtrt plan-capacity {result.engine.name}"
        case PlacementResult(models=models):
            return f"loadtrt plan-capacity {', '.join(models)}"
        case _:
            return "loadtrt"


def run_cases(run: RunResult) -> list[Case]:
    """The cases of all models of a run."""
    models = models_of(run)
    before = {name: f"{name}: " if len(models) > 1 else "" for name in models}
    return [
        replace(case, name=f"{before[name]}{case.name}") for name, part in models.items() for case in model_cases(part)
    ]


def model_cases(run: RunResult) -> list[Case]:
    """Whether a run of one model is valid, its objectives, and its scenario."""
    problems = "; ".join(f"{problem.evidence} → {problem.remedy}" for problem in run.model.problems)
    wrong: Wrong | None = None
    if run.outcome == "failed":
        wrong = ("failure", "failed", run.failure or "the run failed")
    elif not run.valid:
        wrong = ("failure", "invalid", problems)
    elif run.outcome == "interrupted":
        wrong = ("error", "interrupted", "the run was interrupted, and is judged as far as it went")
    trusted = run.valid and run.outcome != "failed"
    cases = [Case("valid", " · ".join(shortfalls(run)), wrong)]
    for item in run.model.objectives:
        text = objective_text(item) + (f" → {item.reason}" if item.reason else "")
        cases.append(_judged(item.objective.text, text, item.verdict or "undecided", trusted))
    if run.model.scenario is not None:
        cases.append(_scenario(run.model.scenario))
    return cases


def comparison_cases(comparison: Comparison) -> Iterator[Case]:
    """Whether all runs of a comparison are valid, and its thresholds."""
    wrong: Wrong = ("failure", "invalid", "; ".join(comparison.problems))
    yield Case("valid", wrong=None if comparison.valid else wrong)
    for item in comparison.thresholds:
        yield _threshold(item, comparison.valid)


def _scenario(result: ScenarioResult) -> Case:
    """By the rules it passes; where they were not kept nothing was shown by them, and nothing failed either."""
    text = "; ".join(scenario_lines(result))
    wrong: Wrong | None = None if result.by_rules else ("skipped", "not by the rules", text)
    return Case(f"scenario {result.scenario}", text, wrong)


def _threshold(item: Judged, trusted: bool) -> Case:
    ratio, interval = item.ratio, interval_text(item.ratio)
    text = f"{item.verdict}, B/A " + ("unknown" if ratio.ratio is None else f"{ratio.ratio:.3f}")
    text += f" ({interval})" if interval else ""
    text += f": {item.reason}" if item.reason else ""
    return _judged(item.threshold, text, item.verdict, trusted)


def _judged(name: str, text: str, verdict: str, trusted: bool) -> Case:
    if not trusted:
        return Case(name, wrong=("skipped", "invalid", "not judged, as the numbers cannot be trusted: see valid"))
    match verdict:
        case "met" | "not regressed":
            return Case(name, text)
        case "undecided":
            return Case(name, wrong=("error", "undecided", text))
        case _:
            return Case(name, wrong=("failure", verdict, text))
