"""How the names of layers are made to fit a table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtrt.report.formatting import short_names


@given(st.lists(st.text("ab/ +", min_size=1, max_size=40), max_size=20, unique=True), st.integers(5, 30))
def test_short_names_are_told_apart(names: list[str], width: int) -> None:
    """Different names have different texts, each with the name's beginning and end, and no longer than the width unless
    another name would look the same."""
    short = short_names(names, width)
    assert len(set(short.values())) == len(names)
    for name, text in short.items():
        if "…" in text:
            head, tail = text.split("…")
            assert name.startswith(head)
            assert name.endswith(tail)
            assert len(text) < len(name)
        else:
            assert text == name
        if len(text) > width:
            assert short_names([name], width)[name] in {
                short_names([other], width)[other] for other in names if other != name
            }


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Reformatting CopyNode for Output Tensor 1 to conv", "output 1 of conv"),
        ("Reformatting CopyNode for Network Input data", "network input data"),
        ("Reformatting CopyNode for a party", "Reformatting CopyNode for a party"),
        ("/model/layers.11/self_attn/q_proj/MatMul", "/model/layers.1…/q_proj/MatMul"),
    ],
)
def test_how_names_are_shortened(name: str, text: str) -> None:
    """Reformats by whom they serve; long names in the middle."""
    assert short_names([name], max(30, len(text))) == {name: text}


def test_names_that_differ_in_the_middle_keep_what_differs() -> None:
    """Ten layers of a transformer, cut to 30 columns, would all be "/model/layers.1…/q_proj/MatMul": they get as many
    columns more as it takes, and the others none."""
    names = [f"/model/layers.{number}/self_attn/long_names/of/modules/q_proj/MatMul" for number in range(8, 20)]
    short = short_names(names, 30)
    assert len(set(short.values())) == 12
    assert [len(short[name]) for name in names] == [30] * 2 + [36] * 10


def test_control_characters_count_for_the_width() -> None:
    """A name is cut as it is shown."""
    assert short_names(["\x1b" * 9], 30) == {"\x1b" * 9: r"\x1b\x1b\x1b\x1…1b\x1b\x1b\x1b"}
