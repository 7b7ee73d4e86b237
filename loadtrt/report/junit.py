"""The cases of a run or a comparison (gates.py) as JUnit XML, which CI services show test by test.

What is undecided is an error, and counts as red: CI services let a build with skipped tests pass.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from loadtrt.report.gates import Case, comparison_cases, model_cases
from loadtrt.results.one_model import models_of
from loadtrt.units import MILLISECOND_NS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadtrt.results.run_result import RunResult
    from loadtrt.stats.regression import Comparison

_NO_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, 2.2
_MOST_WORD = 100


def run_junit(run: RunResult) -> str:
    """A run's objectives, and whether it is valid: a suite for each of its models."""
    models = models_of(run)
    return _document([_run_suite(name, part, len(models)) for name, part in models.items()])


def _run_suite(name: str, run: RunResult, models: int) -> Element:
    """The suite of a model, by its name. models: how many the run has, which have equal shares of its time."""
    engine = run.model.engine.name
    facts = {
        "run": run.run,
        "engine": engine,
        "device": run.model.engine.device,
        "batch": str(run.model.engine.batch),
        "contexts": str(run.config.model.contexts),
        **({"workers": run.fleet} if run.workers else {}),
        "requests": str(run.model.ok),
        **({"revision": str(run.environment["revision"])} if "revision" in run.environment else {}),
        **run.config.labels,
    }
    several = models > 1
    suite = {
        "name": f"loadtrt run {name} {engine}" if several else f"loadtrt run {engine}",
        "timestamp": run.started.partition("+")[0],
    }
    classname = f"loadtrt.run.{_one_word(name if several else engine)}"
    return _suite(suite, classname, model_cases(run), facts, run.phases.measure_ns // models)


def comparison_junit(comparison: Comparison, measured_ns: int = 0) -> str:
    """A comparison's thresholds, and whether all runs are valid. measured_ns: how long these measured, all together."""
    facts = {"A": ", ".join(comparison.a), "B": ", ".join(comparison.b)}
    suite = {"name": f"loadtrt compare {facts['A']} / {facts['B']}"}
    classname = f"loadtrt.compare.{_one_word(facts['B'])}"
    return _document([_suite(suite, classname, list(comparison_cases(comparison)), facts, measured_ns)])


def failure_junit(command: str, failure: str) -> str:
    """That a command, such as "run", failed before it had a result."""
    case = Case("valid", wrong=("error", "failed", failure))
    return _document([_suite({"name": f"loadtrt {command}"}, f"loadtrt.{_one_word(command)}", [case], {}, 0)])


def _document(suites: Sequence[Element]) -> str:
    whole = Element("testsuites")
    whole.extend(suites)
    indent(whole)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{tostring(whole, encoding="unicode")}\n'


def _suite(
    suite: Mapping[str, str], classname: str, cases: Sequence[Case], facts: Mapping[str, str], measured_ns: int
) -> Element:
    """measured_ns: time of the suite. All cases are judged from what was measured in it, so each has an equal share: CI
    adds them up."""
    kinds = Counter(case.wrong[0] for case in cases if case.wrong)
    measured_ms = round(measured_ns / MILLISECOND_NS)
    times = [place * measured_ms // len(cases) for place in range(len(cases) + 1)]
    counts = {"tests": len(cases), "failures": kinds["failure"], "errors": kinds["error"], "skipped": kinds["skipped"]}
    numbers = {"time": _seconds(measured_ms), **{key: str(count) for key, count in counts.items()}}
    element = Element("testsuite", _clean({**suite, **numbers}))
    properties = SubElement(element, "properties")
    for key, value in facts.items():
        SubElement(properties, "property", _clean({"name": key, "value": value}))
    for case, begins, ends in zip(cases, times, times[1:], strict=False):
        named = {"classname": classname, "name": case.name, "time": _seconds(ends - begins)}
        inside = SubElement(element, "testcase", _clean(named))
        if case.wrong:
            kind, type_, message = case.wrong
            SubElement(inside, kind, _clean({"type": type_, "message": message})).text = _printable(message)
        elif case.output:
            SubElement(inside, "system-out").text = _printable(case.output)
    return element


def _seconds(ms: int) -> str:
    return f"{ms // 1000}.{ms % 1000:03}"


def _one_word(name: str) -> str:
    """For a class's name. CI takes dots for packages and makes links and files of the rest: letters, digits and hyphens
    are left of it, with _ for what else there is."""
    return re.sub(r"[^\w-]+", "_", _printable(name), flags=re.ASCII).strip("_")[:_MOST_WORD] or "_"


def _printable(text: str) -> str:
    return _NO_XML.sub("?", text)


def _clean(attributes: Mapping[str, str]) -> dict[str, str]:
    return {key: _printable(value) for key, value in attributes.items()}
