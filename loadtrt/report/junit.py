"""Objectives of a run, or thresholds of a comparison, as JUnit XML, which CI services show test by test.

There is a testcase for each objective or threshold, and one for validity. Met passes, missed is a failure, undecided is
an error: the test could not be carried out with so little data, and CI services let a build with skipped tests pass.
Of an INVALID run the testcase "valid" fails and the others are skipped: its numbers neither meet nor miss anything. A
scenario whose rules were not kept is skipped, too: it has no result, and the exit code ignores it.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from loadtrt.report.run_verdict import objective_text, scenario_lines, shortfalls
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadtrt.results.run_result import RunResult, ScenarioResult
    from loadtrt.stats.regression import Comparison, Judged

_NO_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, 2.2


_Wrong: TypeAlias = tuple[Literal["failure", "error", "skipped"], str, str]


@dataclass(frozen=True, slots=True)
class _Case:
    """One testcase.

    output: text of a testcase that passed.
    wrong: kind, type and message of a testcase that did not pass.
    """

    name: str
    output: str = ""
    wrong: _Wrong | None = None


def run_junit(run: RunResult) -> str:
    """A run's objectives, and whether it is valid."""
    problems = "; ".join(f"{problem.evidence} → {problem.remedy}" for problem in run.model.problems)
    wrong: _Wrong | None = None
    if run.outcome == "failed":
        wrong = ("failure", "failed", run.failure or "the run failed")
    elif not run.valid:
        wrong = ("failure", "invalid", problems)
    elif run.outcome == "interrupted":
        wrong = ("error", "interrupted", "the run was interrupted, and is judged as far as it went")
    trusted = run.valid and run.outcome != "failed"
    cases = [_Case("valid", " · ".join(shortfalls(run)), wrong)]
    for item in run.model.objectives:
        text = objective_text(item) + (f" → {item.reason}" if item.reason else "")
        cases.append(_judged(item.objective.text, text, item.verdict or "undecided", trusted))
    if run.model.scenario is not None:
        cases.append(_scenario(run.model.scenario))
    facts = {
        "run": run.run,
        "engine": run.model.engine.name,
        "device": run.model.engine.device,
        "batch": str(run.model.engine.batch),
        "contexts": str(run.config.model.contexts),
        "requests": str(run.model.ok),
        **({"revision": str(run.environment["revision"])} if "revision" in run.environment else {}),
        **run.config.labels,
    }
    suite = {
        "name": f"loadtrt run {run.model.engine.name}",
        "timestamp": run.started.partition("+")[0],
        "time": f"{run.phases.measure_ns / SECOND_NS:.3f}",
    }
    return _document(suite, f"loadtrt.run.{_undotted(run.model.engine.name)}", cases, facts)


def comparison_junit(comparison: Comparison) -> str:
    """A comparison's thresholds, and whether all runs are valid."""
    problems = "; ".join(comparison.problems)
    valid = _Case("valid", wrong=None if comparison.valid else ("failure", "invalid", problems))
    cases = [valid, *(_threshold(item, comparison.valid) for item in comparison.thresholds)]
    facts = {"A": ", ".join(comparison.a), "B": ", ".join(comparison.b)}
    suite = {"name": f"loadtrt compare {facts['A']} / {facts['B']}"}
    return _document(suite, f"loadtrt.compare.{_undotted(facts['B'])}", cases, facts)


def _scenario(result: ScenarioResult) -> _Case:
    """By the rules it passes; where they were not kept nothing was shown by them, and nothing failed either."""
    text = "; ".join(scenario_lines(result))
    wrong: _Wrong | None = None if result.by_rules else ("skipped", "not by the rules", text)
    return _Case(f"scenario {result.scenario}", text, wrong)


def _threshold(item: Judged, trusted: bool) -> _Case:
    ratio = item.ratio
    text = f"{item.verdict}, B/A " + ("unknown" if ratio.ratio is None else f"{ratio.ratio:.3f}")
    text += "" if ratio.low is None else f" ({ratio.low:.3f} .. {ratio.high:.3f})"
    text += f": {item.reason}" if item.reason else ""
    return _judged(item.threshold, text, item.verdict, trusted)


def _judged(name: str, text: str, verdict: str, trusted: bool) -> _Case:
    if not trusted:
        return _Case(name, wrong=("skipped", "invalid", "not judged, as the numbers cannot be trusted: see valid"))
    match verdict:
        case "met" | "not regressed":
            return _Case(name, text)
        case "undecided":
            return _Case(name, wrong=("error", "undecided", text))
        case _:
            return _Case(name, wrong=("failure", verdict, text))


def _document(suite: Mapping[str, str], classname: str, cases: Sequence[_Case], facts: Mapping[str, str]) -> str:
    kinds = Counter(case.wrong[0] for case in cases if case.wrong)
    counts = {"tests": len(cases), "failures": kinds["failure"], "errors": kinds["error"], "skipped": kinds["skipped"]}
    whole = Element("testsuites")
    element = SubElement(whole, "testsuite", _clean({**suite, **{key: str(count) for key, count in counts.items()}}))
    properties = SubElement(element, "properties")
    for key, value in facts.items():
        SubElement(properties, "property", _clean({"name": key, "value": value}))
    for case in cases:
        inside = SubElement(element, "testcase", _clean({"classname": classname, "name": case.name}))
        if case.wrong:
            kind, type_, message = case.wrong
            SubElement(inside, kind, _clean({"type": type_, "message": message})).text = _printable(message)
        elif case.output:
            SubElement(inside, "system-out").text = _printable(case.output)
    indent(whole)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{tostring(whole, encoding="unicode")}\n'


def _undotted(name: str) -> str:
    """For a class's name, in which CI takes dots for packages."""
    return name.replace(".", "_")


def _printable(text: str) -> str:
    return _NO_XML.sub("?", text)


def _clean(attributes: Mapping[str, str]) -> dict[str, str]:
    return {key: _printable(value) for key, value in attributes.items()}
