"""Durations, rates and sizes as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtrt.errors import UsageError
from loadtrt.units import (
    exact_duration,
    format_bytes,
    format_duration,
    parse_bytes,
    parse_duration,
    parse_rate,
    parse_share,
    plural,
    rough_percent,
)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("10s", 10**10),
        ("250ms", 25 * 10**7),
        ("1.5m", 9 * 10**10),
        ("20us", 20_000),
        ("20µs", 20_000),
        ("7ns", 7),
        (2, 2 * 10**9),
    ],
)
def test_a_duration_is_nanoseconds(text: str | float, ns: int) -> None:
    """Every unit has its factor, and a bare number is seconds."""
    assert parse_duration(text) == ns


@pytest.mark.parametrize("rate", [0.00001, 0.5, 1e12])
def test_a_number_is_a_rate_as_it_is(rate: float) -> None:
    """Also where Python writes it with an exponent, which the text of a rate has not."""
    assert parse_rate(rate) == rate


@pytest.mark.parametrize("rate", [0.0, -1.0, float("inf"), float("nan")])
def test_numbers_that_are_not_rates(rate: float) -> None:
    """Zero, below it, and without bound."""
    with pytest.raises(UsageError, match="is not a rate"):
        parse_rate(rate)


@pytest.mark.parametrize("text", ["", "s", "10 parsecs", "-1s", "1e9", "nan"])
def test_what_is_no_duration_says_so(text: str) -> None:
    """The sentence quotes the text and shows how to write one."""
    with pytest.raises(UsageError, match="is not a duration: write"):
        parse_duration(text)


@pytest.mark.parametrize(("text", "rate"), [("500/s", 500), ("2k/s", 2000), ("90/m", 1.5), ("1M", 1e6), (7, 7)])
def test_a_rate_is_per_second(text: str | float, rate: float) -> None:
    """k and M multiply, m and h divide, a bare number is per second."""
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["0", "0/s", "-3/s", "fast", "5/d"])
def test_what_is_no_rate_says_so(text: str) -> None:
    """Zero is no rate either: nothing would ever be due."""
    with pytest.raises(UsageError, match="is not a rate: write"):
        parse_rate(text)


@pytest.mark.parametrize(
    ("text", "share"), [("3%", 0.03), ("0.5", 0.5), (".5 %", 0.005), ("1e-3", 0.001), ("1E-2%", 1e-4), (1e-05, 1e-05)]
)
def test_a_share_is_of_one(text: str | float, share: float) -> None:
    """Also as Python writes small floats, as of a run.json that is run again."""
    assert parse_share(text) == pytest.approx(share, rel=1e-12)


@pytest.mark.parametrize("text", ["", "%", "-1%", "3 percent", "1e", "nan", "e-3"])
def test_what_is_no_share_says_so(text: str) -> None:
    with pytest.raises(UsageError, match="is not a share: write one such as 3%"):
        parse_share(text)


@given(st.integers(0, 10**15))
def test_exact_duration_is_read_back_exactly(ns: int) -> None:
    """parse(exact(ns)) = ns, so that a configuration written to run.json can be run again."""
    assert parse_duration(exact_duration(ns)) == ns


def test_durations_and_sizes_have_three_digits() -> None:
    """Three significant digits in the unit that fits."""
    assert [format_duration(ns) for ns in (0, 999, 1_000, 312_400, 7_214_000, 1_503_000_000)] == [
        "0 ns", "999 ns", "1.00 µs", "312 µs", "7.21 ms", "1.50 s",
    ]  # fmt: skip
    assert [format_bytes(count) for count in (7, 1500, 26_429_416)] == ["7 B", "1.46 KiB", "25.2 MiB"]


@pytest.mark.parametrize(("text", "count"), [("1GiB", 1 << 30), ("1.5K", 1536), ("512MB", 1 << 29), ("7 B", 7)])
def test_a_size_is_bytes(text: str, count: int) -> None:
    """Prefixes are powers of 1024, as trtexec reads them."""
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "1", "1foo", "0GiB", "-1GiB", "GiB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    """A bare number too: nobody knows whether bytes or MiB are meant."""
    with pytest.raises(UsageError, match="is not a size"):
        parse_bytes(text)


def test_a_share_in_two_digits_has_no_exponent() -> None:
    """100 % is not 1e+02 %."""
    shares = {0.0: "0 %", 0.016: "1.6 %", 0.98: "98 %", 0.994: "99 %", 0.996: "100 %", 1: "100 %", 2.3: "230 %"}
    assert {share: rough_percent(share) for share in shares} == shares
    assert rough_percent(12.345) == "1 234 %"


def test_a_count_agrees_with_its_noun() -> None:
    """One of it, or the plural that English makes of the noun's last letters."""
    nouns = ["request", "GPU", "process", "batch", "push", "index", "copy", "array", "inference", "auxiliary stream"]
    assert [plural(1, noun) for noun in nouns] == [f"1 {noun}" for noun in nouns]
    assert [plural(1200, noun).removeprefix("1 200 ") for noun in nouns] == [
        "requests", "GPUs", "processes", "batches", "pushes", "indexes", "copies", "arrays", "inferences",
        "auxiliary streams",
    ]  # fmt: skip
    assert plural(0, "process") == "0 processes"
