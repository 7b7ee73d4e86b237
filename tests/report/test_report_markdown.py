"""Reports in Markdown: read by markdown-it, which knows GitHub's tables."""

from __future__ import annotations

import html
import re

import pytest
from markdown_it import MarkdownIt

from loadtrt.report.result_files import Loaded
from reported import HOSTILE, OBJECTIVE, altered, every_kind, loaded, markdown_text, measured, whole_run

KINDS = ("run", "repeat", "sweep", "capacity", "interference", "fleet", "placement", "profile", "comparison")


def _rendered(text: str) -> str:
    return str(MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(text))


def _told(text: str) -> str:
    """What a reader sees."""
    return html.unescape(re.sub(r"<[^>]*>", " ", _rendered(text)))


@pytest.mark.parametrize("kind", KINDS)
def test_all_tables_are_tables(kind: str) -> None:
    """No line of one is left as text, and every row has as many cells as its header."""
    text = markdown_text([loaded(every_kind()[kind])])
    rendered = _rendered(text)
    assert rendered.count("<table>") == len(re.findall(r"^\|(?: :-- \|| --: \|)+$", text, re.MULTILINE)) > 0
    for table in re.findall(r"<table>.*?</table>", rendered, re.DOTALL):
        rows = [len(re.findall(r"<t[hd]\b", row)) for row in re.findall(r"<tr>.*?</tr>", table, re.DOTALL)]
        assert len(set(rows)) == 1
    assert not re.search(r"^\s*\|", re.sub(r"<[^>]*>", "", rendered), re.MULTILINE)


def test_a_run_in_a_pull_request() -> None:
    """Headline, objectives, findings and tables; no chart, no JSON."""
    told = _told(markdown_text([loaded(whole_run())]))
    assert "❌ INVALID" in " ".join(told.split())
    assert OBJECTIVE in told
    assert "the clock fell" in told
    assert "remedy: lock the clocks" in told
    assert "conv1 + relu1" in told
    assert "svg" not in told
    assert '{"' not in told


def test_the_law_of_a_ladder_is_given_with_its_parameters() -> None:
    """What α, σ and κ are of."""
    lines = _told(markdown_text([loaded(every_kind()["capacity"])])).splitlines()
    place = next(place for place, line in enumerate(lines) if "σ 0.1, coherency κ 0.01" in line)
    assert "X(N) = αN / (1 + σ(N − 1) + κN(N − 1))" in " ".join(lines[place : place + 3])


def test_names_are_text() -> None:
    """Markup, links and line feeds of a name end as they are, in paragraphs and in tables."""
    run = altered(measured(), engine_name=HOSTILE, engine_device=HOSTILE, failure=HOSTILE, outcome="failed")
    text = markdown_text([Loaded(HOSTILE, run), Loaded("b.json", measured())])
    rendered = _rendered(text)
    assert "<script" not in rendered
    assert "<a " not in rendered
    assert "\x1b" not in text
    shown = " ".join(_told(text).split())
    assert shown.count("""<script>alert(1)</script>"'&`|*_[x](http://e.org)""") >= 4


@pytest.mark.parametrize("name", ["`", "``a`b", " ", "a|b", "-", "1. x", "# x", "\\|"])
def test_any_name_survives(name: str) -> None:
    """Backticks, bars, blanks, what begins a list: the name is shown as it is."""
    run = altered(measured(), engine_name=name, engine_device=name)
    text = markdown_text([Loaded("a.json", run), Loaded("b.json", measured())])
    assert name.strip() in _told(text).replace("\n", " ")
    assert _rendered(text).count("<h2") == 4
