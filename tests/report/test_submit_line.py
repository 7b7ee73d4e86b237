"""What the report says of how requests were submitted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from loadtrt.report.document import Words
from loadtrt.report.settings import engine_facts
from runs_by_hand import engine, run_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadtrt.results.run_result import RunResult


@pytest.mark.parametrize(
    ("chosen", "rates", "line"),
    [
        ("graph", {"graph": 45_700.4, "apart": 39_000.0}, "submit: graph, 45 700/s against 39 000/s apart, in warm-up"),
        ("apart", {"graph": 980.0, "apart": 1_002.0}, "submit: apart, 1 002/s against 980/s graph, in warm-up"),
        ("apart", {"apart": None, "graph": None}, "submit: apart; graph was not tried"),
        ("apart", {}, None),
    ],
)
def test_one_line_says_which_way_was_chosen(chosen: str, rates: Mapping[str, float | None], line: str | None) -> None:
    """And by how much, or that no other was tried; nothing where there was no choice."""
    run = run_of(engine=engine(mode={"graph": "yes", "submit": chosen}, submit_rates=rates))
    assert _lines(run) == ([line] if line else [])


@pytest.mark.parametrize(
    ("mode", "rates"), [({}, {"graph": 100.0, "apart": 90.0}), ({"submit": "graph"}, {"graph": 100.0})]
)
def test_rates_without_a_choice_have_no_line(mode: Mapping[str, str], rates: Mapping[str, float]) -> None:
    """A result that someone has edited, or another program has written, is shown all the same."""
    assert _lines(run_of(engine=engine(mode={"graph": "yes", **mode}, submit_rates=rates))) == []


def _lines(run: RunResult) -> list[str]:
    texts = ("".join(map(str, block.pieces)) for block in engine_facts(run) if isinstance(block, Words))
    return [text for text in texts if text.startswith("submit")]
