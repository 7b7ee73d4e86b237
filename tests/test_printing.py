"""What goes to a terminal neither steers nor fills it."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from loadtrt.printing import NAME, SENTENCE, lines, one_line, printable, printable_json

# What acts on a terminal: C0 and C1 controls, DEL, marks of direction, separators of lines, halves of a character.
CONTROLS = "\x00\x07\x08\t\r\x1b\x7f\x85\x9b\u200e\u202e\u2066\u2069\u2028\u2029\ufeff\U000e0041\ud800"
VILE = st.text(st.one_of(st.characters(), st.sampled_from(CONTROLS)))


def test_no_control_is_printable() -> None:
    assert not any(map(str.isprintable, CONTROLS))


@given(VILE)
def test_a_sentence_is_one_printable_line(text: str) -> None:
    assert one_line(text).isprintable()
    assert all(line.isprintable() for line in lines(text).split("\n"))
    assert lines(text).count("\n") == text.count("\n")


@given(VILE)
def test_what_is_printed_is_printable(text: str) -> None:
    """Printable text is left alone, and no escape is one more time escaped."""
    shown = printable(text)
    assert shown.isprintable()
    assert printable(shown) == shown
    assert shown == text or not text.isprintable()


@given(st.recursive(VILE, lambda inner: st.lists(inner) | st.dictionaries(VILE, inner)))
def test_json_is_the_same_and_printable(data: object) -> None:
    text = json.dumps(data, indent=2, ensure_ascii=False)
    shown = printable_json(text)
    assert json.loads(shown) == data
    assert all(line.isprintable() for line in shown.split("\n"))


def test_lengths_are_bounded() -> None:
    """A name keeps its ends; many words, and escapes of a few, fill no terminal."""
    name = f"begin{'n' * 10_000_000}end"
    assert len(one_line(name)) == NAME
    assert one_line(f"{name} is not a file: name another").endswith("end is not a file: name another")
    assert len(printable(name, NAME)) == len(lines(name)) == NAME
    assert len(one_line("word " * 1_000_000)) == len(one_line("\x1b\u202e " * 5000)) == SENTENCE
    path = "/some/" + "folder/" * 40
    assert one_line(path) == path
