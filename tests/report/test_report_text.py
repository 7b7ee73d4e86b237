"""Text for a terminal: lines end between words, and numbers keep their units."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from loadtrt.report.formatting import unbroken, wrapped

WHOLE = ("91 000 182 requests", "10.2 s", "3.14 %", "latency.p99 < 10ms", "± 1.4 %", "26.4 MiB", "9 512/s", "1 980 MHz")


@given(st.lists(st.sampled_from([*WHOLE, "a", "word", "measured,"]), min_size=1), st.integers(24, 100))
def test_no_line_ends_within_a_number(pieces: list[str], width: int) -> None:
    """Nor between a number and its unit, nor at the < of an objective; nothing is lost, and no line is too long."""
    lines = wrapped(" ".join(pieces), width=width)
    assert " ".join(line.strip() for line in lines) == " ".join(pieces)
    assert max(map(len, lines)) <= width
    for before, after in pairwise(lines):
        assert "\u00a0" not in unbroken(f"{before.split()[-1]} {after.split()[0]}")


def test_no_line_ends_there() -> None:
    """The very ones."""
    assert wrapped("the run was measured 10.2 s long", width=24) == ["the run was measured", "  10.2 s long"]
    assert wrapped("to hold latency.p99 < 10ms", width=24) == ["to hold", "  latency.p99 < 10ms"]
