"""What GitHub shows: annotations as its runner reads them, and a summary that it takes."""

from __future__ import annotations

import re

import pytest

from loadtrt.report.annotations import MOST_SUMMARY_BYTES, annotation_lines, summary
from loadtrt.report.document import Table, section, words
from loadtrt.report.gates import Case, cases_of, subject_of
from reported import altered, every_kind, measured

_COMMAND = re.compile(r"::(error|warning) title=([^:,]*)::(.*)")


def _read(line: str) -> tuple[str, str, str]:
    """(level, title, message) as GitHub's runner reads a line: properties end at : and ,."""
    found = _COMMAND.fullmatch(line)
    assert found, line
    level, title, message = found.groups()
    for text, sign in (("%3A", ":"), ("%2C", ","), ("%0D", "\r"), ("%0A", "\n"), ("%25", "%")):
        title = title.replace(text, sign)
        message = message if text in ("%3A", "%2C") else message.replace(text, sign)
    return level, title, message


@pytest.mark.parametrize("text", ["a, b: c", "100 %", "%0A", "%25", "a\r\nb::error::c", "::stop-commands::x", "", "ü✗"])
def test_any_text_is_one_annotation(text: str) -> None:
    """Of one line, which is read back as it was."""
    (line,) = annotation_lines("loadtrt run x", [Case(text, wrong=("failure", "missed", text))])
    assert "\n" not in line
    assert "\r" not in line
    assert _read(line) == ("error", f"loadtrt run x: {text}: missed", text)


def test_levels() -> None:
    """What failed is an error, what is undecided a warning; what passed or was skipped is not told."""
    cases = [
        Case("a", "fine"),
        Case("b", wrong=("failure", "missed", "too late")),
        Case("c", wrong=("error", "undecided", "too few")),
        Case("d", wrong=("skipped", "invalid", "see valid")),
    ]
    assert [_read(line) for line in annotation_lines("run", cases)] == [
        ("error", "run: b: missed", "too late"),
        ("warning", "run: c: undecided", "too few"),
    ]


@pytest.mark.parametrize("count", [9, 10, 11, 25])
def test_the_tenth_annotation_stands_for_all_further_ones(count: int) -> None:
    """GitHub shows ten of a level in a step."""
    lines = list(
        annotation_lines("run", [Case(f"p{number}", wrong=("failure", "missed", "x")) for number in range(count)])
    )
    assert len(lines) == min(count, 10)
    told = " ".join(lines)
    assert all(f"p{number}%3A" in told or f"p{number}:" in told for number in range(count))


def test_a_summary_is_as_long_as_there_is_room() -> None:
    """Sections without room are left out and named; the rest is whole Markdown."""
    rows = tuple((f"row {number}", "x" * 100) for number in range(9000))
    long = section("Long", Table(("a", "b"), rows))
    document = [section("First", words("one")), long, section("Last", words("two"))]
    whole = summary(document[:1], MOST_SUMMARY_BYTES)
    assert whole == "### First\n\none\n\n"
    assert len(summary([long], 10 << 20)) > MOST_SUMMARY_BYTES * 0.9
    text = summary([*document, long, long], MOST_SUMMARY_BYTES)
    assert len(text.encode()) <= MOST_SUMMARY_BYTES
    assert text.count("row 8999") == 1
    assert "no room for more: Long" in text
    assert "two" in text
    assert summary(document, 500).count("no room") == 1
    assert summary(document, 10) == summary(document, 0) == summary(document, -5) == ""


@pytest.mark.parametrize("room", [*range(380, 900, 40), 5000, 9000, 20_000])
def test_no_room_is_overrun(room: int) -> None:
    """In bytes, of which a character may have several."""
    document = [section(f"größe {number}", words("✗" * 20 * number)) for number in range(40)]
    text = summary(document, room)
    assert len(text.encode()) <= room
    assert "größe 3" in text or room < 1000


@pytest.mark.parametrize("kind", ["run", "repeat", "sweep", "capacity", "fleet"])
def test_results_of_every_kind(kind: str) -> None:
    """Have a subject, nothing to tell where all is well, and an error where an objective is missed."""
    result = every_kind()[kind]
    assert subject_of(result).startswith("loadtrt ")
    if kind != "run":
        assert list(annotation_lines("x", cases_of(result, 0))) == []
        (line,) = annotation_lines("x", cases_of(result, 99))
        assert _read(line)[:2] == ("error", "x: verdict: missed")
        (line,) = annotation_lines("x", cases_of(result, 98))
        assert _read(line)[0] == "warning"


def test_a_run_that_failed() -> None:
    """Is an error, whatever its objectives were."""
    run = altered(measured(), outcome="failed", valid=False, failure="the device hangs")
    assert [_read(line)[2] for line in annotation_lines("x", cases_of(run, 3))] == ["the device hangs"]


def test_a_title_has_the_names_of_several_models() -> None:
    """Not all of their engines: a title is short."""
    one = measured()
    (model,) = one.models.values()
    assert subject_of(one) == f"loadtrt run {model.engine.name}"
    several = one.model_copy(update={"models": {"detector": model, "classifier": model}})
    assert subject_of(several) == "loadtrt run detector, classifier"
