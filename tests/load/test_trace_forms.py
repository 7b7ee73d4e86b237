"""Traces as others write them: dates and zones, units, logs, JSON, gzip, the public sets; exact, and by blocks."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from command_line import loadtrt
from loadtrt.asked.config import RunConfig
from loadtrt.errors import UsageError
from loadtrt.load import trace as trace_module
from loadtrt.load import trace_blocks
from loadtrt.load.instants import NoInstantError, Texts, read_instants
from loadtrt.load.trace import read_trace, trace_remarks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("traces")


def _write(folder: Path, data: str | bytes, name: str = "trace.txt") -> str:
    file = folder / name
    file.write_bytes(data if isinstance(data, bytes) else data.encode())
    trace_module._instants.cache_clear()  # the same size within one tick of the file system's clock
    return str(file)


def _ns(folder: Path, data: str | bytes, column: str | None = None, scale: float = 1.0) -> list[int]:
    instants: list[int] = read_trace(_write(folder, data), column, scale).instants.tolist()
    return instants


def _refusal(folder: Path, data: str | bytes, column: str | None = None, scale: float = 1.0) -> str:
    with pytest.raises(UsageError) as caught:
        read_trace(_write(folder, data), column, scale)
    message = str(caught.value)
    assert "\n" not in message
    return message


_FORMATS = [
    "%Y-%m-%d %H:%M:%S{f}{z}",
    "%Y-%m-%dT%H:%M:%S{f}{z}",
    "%Y/%m/%d %H:%M:%S{f}{z}",
    "%Y%m%dT%H%M%S{f}{z}",
    "[%d/%b/%Y:%H:%M:%S{f} {z}]",
]


@given(
    instants=st.lists(
        st.tuples(
            st.datetimes(datetime(1971, 1, 1), datetime(2035, 1, 1)).map(lambda at: at.replace(microsecond=0)),
            st.integers(0, SECOND - 1),
        ),
        min_size=2,
        max_size=20,
    ),
    offsets=st.lists(st.integers(-14 * 4, 14 * 4).map(lambda quarters: 15 * quarters), min_size=1, max_size=3),
    form=st.sampled_from(_FORMATS),
    colon=st.booleans(),
    digits=st.integers(0, 12),
)
def test_dates_are_exact(
    folder: Path, instants: list[tuple[datetime, int]], offsets: list[int], form: str, colon: bool, digits: int
) -> None:
    """Any zone, any number of places, in UTC as Python's datetime has it; beyond ns rounded."""
    lines, expected = [], []
    for index, (at, ns) in enumerate(instants):
        zone = timezone(timedelta(minutes=offsets[index % len(offsets)]))
        written = str(ns).rjust(9, "0").ljust(12, "7")[:digits]
        fraction = Decimal(f"0.{written or 0}").quantize(Decimal("1e-9"), ROUND_HALF_UP)
        stamp = at.replace(tzinfo=zone).strftime("%z")
        lines.append(
            at.strftime(
                form.format(f=f".{written}" if digits else "", z=f"{stamp[:3]}:{stamp[3:]}" if colon else stamp)
            )
        )
        whole = round(at.replace(tzinfo=zone).astimezone(UTC).timestamp())
        expected.append(whole * SECOND + int(fraction * SECOND))
    assume(len(set(expected)) > 1)
    assert _ns(folder, "\n".join(lines)) == [each - min(expected) for each in sorted(expected)]


def test_the_example_of_azure_is_exact(folder: Path) -> None:
    """100 ns steps without a zone, CR LF, a header of three columns: 0, 52 ms, 52.0001 ms, 1.02004 s."""
    rows = ["18:17:03.9799600", "18:17:04.0319600", "18:17:04.0319601", "18:17:05.0000000"]
    text = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n" + "".join(f"2023-11-16 {row},100,10\r\n" for row in rows)
    assert _ns(folder, text) == [0, 52_000_000, 52_000_100, 1_020_040_000]
    assert _ns(folder, text, "TIMESTAMP") == [0, 52_000_000, 52_000_100, 1_020_040_000]
    remarks = trace_remarks(_write(folder, text))
    assert remarks == ("instants are in TIMESTAMP", "dates have no zone, and are taken as UTC")


@pytest.mark.parametrize(
    ("texts", "instants"),
    [
        (["2024-03-31T01:59:59+01:00", "2024-03-31T03:00:00+02:00"], [0, 1]),  # the clocks go forward
        (["2024-10-27 02:30:00+0200", "2024-10-27 02:30:00+0100"], [0, 3600]),  # and back
        (["2024-05-10 00:00:00+00:00", "2024-05-10 00:00:00.009930+00:00"], [0, 0.00993]),  # as pandas writes
        (["2023-11-16T18:17:03Z", "2023-11-16T18:17:04 UTC", "2023-11-16 18:17:05.5 +0000 UTC"], [0, 1, 2.5]),
        (["2023-11-16 18:17:06 GMT", "2023-11-16 18:17:07 +00"], [0, 1]),
        (["2016-12-31T23:59:59Z", "2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"], [0, 1, 1]),  # a leap second
        (["2023-02-28", "2023-03-01"], [0, 86400]),
        (["2024-02-28 12:00", "2024-03-01 12:00"], [0, 2 * 86400]),
        (["09:59:59.75", "10:00:00", "10:00:01.25"], [0, 0.25, 1.5]),
        (["0:00:00", "36:00:00"], [0, 36 * 3600]),
        (["1.5e3", "1.700000000000000000e+03", "2E3"], [0, 200, 500]),
        (["-0.5", ".25", "1."], [0, 0.75, 1.5]),
    ],
)  # fmt: skip
def test_instants_of_many_kinds(folder: Path, texts: list[str], instants: list[float]) -> None:
    """Zones that change, places that come and go, times of day, exponents."""
    assert _ns(folder, "\n".join(texts)) == [round(each * SECOND) for each in instants]


@given(
    texts=st.lists(
        st.one_of(
            st.decimals(-(10**6), 10**6, places=4).map(str),
            st.floats(-1e6, 1e6).map(repr),
            st.integers(-(10**15), 10**15).map(str),
            st.tuples(st.floats(-1e6, 1e6), st.integers(0, 18)).map(lambda pair: f"{pair[0]:.{pair[1]}e}"),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_numbers_are_those_of_decimal(texts: list[str]) -> None:
    """Whole and fraction together are the decimal number, rounded to 1e-9."""
    found = read_instants(Texts.of(texts))
    for text, whole, billionths in zip(texts, found.whole.tolist(), found.billionths.tolist(), strict=True):
        exact = (Decimal(text) * SECOND).quantize(Decimal(1), ROUND_HALF_UP)
        assert (whole * SECOND + billionths, 0 <= billionths < SECOND) == (int(exact), True)


UNITS = {"s": 1, "ms": 1000, "µs": 10**6, "ns": 10**9}


@pytest.mark.parametrize("unit", UNITS)
def test_the_unit_of_instants_since_1970_is_told_by_their_size(folder: Path, unit: str) -> None:
    """0, 100 ms, 300 ms, with or without a --time-scale that says the same; it is remarked."""
    per_s = UNITS[unit]
    stamps = [1_700_000_000_123, 1_700_000_000_223, 1_700_000_000_423]  # ms
    text = "t\n" + "".join(f"{Decimal(stamp) * per_s / 1000:f}\n" for stamp in stamps)
    expected = [0, 100_000_000, 300_000_000]
    assert _ns(folder, text) == expected
    assert _ns(folder, text, scale=1 / per_s) == expected
    said = trace_remarks(_write(folder, text))
    assert said == (
        () if unit == "s" else (f"instants are in {unit}, since 1970 by their size (--time-scale overrides this)",)
    )


@given(
    unit=st.sampled_from(list(UNITS)),
    scale=st.one_of(
        st.sampled_from([1.0, 1e-3, 1e-6, 1e-9]), st.floats(1e-7, 1e3), st.sampled_from([0.01, 0.002, 5e-4])
    ),
)
def test_a_scale_is_a_unit_exactly_or_a_factor(folder: Path, unit: str, scale: float) -> None:
    """0.01 of ms is a hundred times faster, as 0.1 is ten times; 0.001 says ms in place of what the size says. Both the
    unit and the factor are said."""
    per_s = UNITS[unit]
    text = "t\n" + "".join(f"{stamp * per_s}\n" for stamp in (1_700_000_000, 1_700_000_100))
    units = {1e-3: "ms", 1e-6: "µs", 1e-9: "ns"}
    factor = 1.0 if scale in units else scale
    meant = units.get(scale, unit)
    expected = 100 * per_s / UNITS[meant] * factor
    assume(1e-6 < expected < 73 * 365 * 86_400)
    assert _ns(folder, text, scale=scale)[1] == pytest.approx(expected * SECOND, rel=1e-9, abs=1)
    said = "; ".join(trace_remarks(_write(folder, text), None, scale))
    assert (f"are in {'seconds' if meant == 's' else meant}" in said) == ((meant, factor) != ("s", 1))
    assert (f"--time-scale multiplies all times by {factor:g}" in said) == (factor != 1)


def test_a_scale_of_dates_is_a_factor(folder: Path) -> None:
    """Their unit is not in question: 0.001 is a thousand times as fast, and is said so."""
    text = "2023-11-16 00:00:00Z\n2023-11-16 00:01:40Z\n"
    assert _ns(folder, text, scale=1e-3) == [0, SECOND // 10]
    assert trace_remarks(_write(folder, text), None, 1e-3) == ("--time-scale multiplies all times by 0.001",)


def test_a_run_says_what_a_scale_means(folder: Path) -> None:
    """On stderr, of the command."""
    file = _write(folder, "".join(f"{1_700_000_000_000 + 100 * place}\n" for place in range(20)))
    options = ("--engine", "simulated:service=1ms,clock=virtual", "--warmup", "0", "--trace", file, "--time-scale")
    assert "--time-scale multiplies all times by 0.01" in loadtrt("run", *options, "0.01").stderr
    assert "instants are in ms, as --time-scale 0.001 says" in loadtrt("run", *options, "0.001").stderr


@pytest.mark.parametrize("header", ["", "time\n", "Arrival Time\n", '"time"\n', "# made by hand\ntime\n"])
@pytest.mark.parametrize(
    ("texts", "seconds"),
    [
        (["2024-03-31 01:59:59,250", "2024-03-31 02:00:00,750"], [0, 1.5]),
        (["2024-03-31T01:59:59,250000Z", "2024-03-31T02:00:00,750001Z"], [0, 1.500001]),
        (["2024-03-31 01:59:59,250+02:00", "2024-03-31 02:00:00,750+02:00"], [0, 1.5]),
        (["20240331T015959,250", "20240331T020000,750"], [0, 1.5]),
        (["[2024/03/31 01:59:59,250]", "[2024/03/31 02:00:00]", "[2024/03/31 02:00:00,750]"], [0, 0.75, 1.5]),
        (["01:59:59,250", "02:00:00,750"], [0, 1.5]),
    ],
)
def test_a_comma_in_the_only_column_is_of_the_seconds(
    folder: Path, header: str, texts: list[str], seconds: list[float]
) -> None:
    """ms, µs or none of them, with a header or without; and it is said, as it may have been a column."""
    text = header + "\n".join(texts)
    assert _ns(folder, text) == [round(each * SECOND) for each in seconds]
    assert "digits after a comma are fractions of a second" in trace_remarks(_write(folder, text))


@pytest.mark.parametrize(
    ("text", "line", "cells"),
    [
        ("time,id\n2024-03-31 01:59:59,250,1\n2024-03-31 02:00:00,750,2\n", 2, (3, 2)),
        ("time,id\n2024-03-31 01:59:59.250,1\n# more\n\n2024-03-31 02:00:00,750,2\n", 5, (3, 2)),
        ('id,time\n"a",1\n"b",2\nc,d,3\n', 4, (3, 2)),
        ("id;time\r\na;1\r\nb;c;3\r\n", 3, (3, 2)),
        ("1,a\n2,b,c\n", 2, (3, 2)),
        ("name time\na 1\nb c 3\n", 3, (3, 2)),
        ("name time\na 2023-11-16 00:00:00\nb 5 2023-11-16 00:00:01\n", 3, (3, 2)),
    ],
)
def test_more_cells_than_the_header_are_an_error(folder: Path, text: str, line: int, cells: tuple[int, int]) -> None:
    """No cell is cut without a word: the line is named."""
    message = _refusal(folder, text)
    assert f"trace.txt:{line} has {cells[0]} cells, where the first line has {cells[1]}: write as many" in message


@pytest.mark.parametrize("rest", [",1", ",1,x", " 5", ",1.5"])
@pytest.mark.parametrize("date", ["2024-03-31 ", "2024/03/31T", ""])
def test_a_comma_of_either_is_an_error(folder: Path, date: str, rest: str) -> None:
    """Without a header, where something follows: ms, or a column of three digits? A header or quotes say it."""
    rows = [f"{date}01:59:59,250{rest}", f"{date}02:00:00,750{rest}"]
    if rest != " 5" or not date:
        assert "has a comma after its seconds, of a fraction or a column" in _refusal(folder, "\n".join(rows))
    else:  # a log
        assert _ns(folder, "\n".join(rows)) == [0, 1_500_000_000]
    if rest != " 5":
        header = "time,size" + ",x" * (rest.count(",")) + "\n"
        assert _ns(folder, header + "\n".join(rows)) == [0, SECOND]
        quoted = [f'"{row[: -len(rest)]}"{rest}' for row in rows]
        assert _ns(folder, "\n".join(quoted)) == [0, 1_500_000_000]


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_other_delimiters_leave_the_comma_to_the_seconds(folder: Path, delimiter: str) -> None:
    """Also where the first line has one of each."""
    rows = [f"2024-03-31 01:59:59,250{delimiter}1", f"2024-03-31 02:00:00,750{delimiter}2"]
    assert _ns(folder, "\n".join(rows)) == [0, 1_500_000_000]


def test_numbers_have_no_comma(folder: Path) -> None:
    """A number of six digits is no time of day, and what follows is a column."""
    assert _ns(folder, "123456,250\n123457,750\n") == [0, SECOND]


def test_one_delimiter_may_end_a_line(folder: Path) -> None:
    """As spreadsheets write it: nothing stands behind it. Fewer cells are fine where the instant is among them."""
    assert _ns(folder, "time,id\n1,a,\n2,b,\n3\n") == [0, SECOND, 2 * SECOND]
    assert _ns(folder, 'time,id\n"1",a,\n2,b,\n') == [0, SECOND]


def test_places_below_the_unit_are_kept(folder: Path) -> None:
    """ms with µs behind the point, over a year; ns that differ by one."""
    year = 365 * 86_400_000
    text = f"1700000000123.250\n{1_700_000_000_123 + year}.251\n"
    assert _ns(folder, text) == [0, year * 1_000_000 + 1000]
    assert _ns(folder, "1700000000123456789\n1700000000123456788\n") == [0, 1]


def test_a_scale_reads_any_unit_from_zero_on(folder: Path) -> None:
    """Instants that begin with 0 do not tell their unit: --time-scale does, before anything is too far away."""
    day = 86_400
    for unit, per_s in UNITS.items():
        assert _ns(folder, f"0\n{day * per_s}\n", scale=1 / per_s) == [0, day * SECOND], unit
    message = _refusal(folder, f"0\n{day * 10**9}\n")
    assert (
        "takes longer than 73 years in s: add --time-scale 0.001 where it is in ms, 1e-6 in µs, or 1e-9 in ns"
        in message
    )


@pytest.mark.parametrize(
    ("name", "per_s"),
    [("time_ms", 1000), ("Time (us)", 10**6), ("start.ns", 10**9), ("startTimeMillis", 1000), ("at_nanos", 10**9),
     ("seconds", 1), ("items", 1), ("atoms", 1), ("bus", 1), ("time_s", 1)],
)  # fmt: skip
def test_the_name_of_a_column_says_its_unit(folder: Path, name: str, per_s: int) -> None:
    """time_ms is ms, `items` is not; --time-scale 0.001 on ms reads it once, not twice."""
    text = f"{name}\n0\n{2 * per_s}\n"
    assert _ns(folder, text) == [0, 2 * SECOND]
    if per_s != 1:
        assert _ns(folder, text, scale=1 / per_s) == [0, 2 * SECOND]
        assert "by the name of their column" in trace_remarks(_write(folder, text))[0]


@pytest.mark.parametrize(("name", "scale"), [("t_ns", 1e-3), ("t_us", 1e-3), ("t_ms", 1e-6), ("t", 1e-3)])
def test_a_unit_that_a_scale_says_has_its_places(folder: Path, name: str, scale: float) -> None:
    """What is behind the point is not cut at the places of the unit that the column's name says."""
    assert _ns(folder, f"{name}\n0\n0.25\n1.5\n", scale=scale) == [0, round(0.25e9 * scale), round(1.5e9 * scale)]


@pytest.mark.parametrize("rate", [0.1, 2, 500, 123_456])
def test_a_rate_scales_a_trace_of_any_unit(tmp_path: Path, rate: float) -> None:
    """The same gaps in s, ms, µs and ns since 1970, dates, and relative ns: (n − 1) / span is the rate."""
    file = tmp_path / "trace.csv"
    at = [0, 1, 1.5, 6]
    written = {
        unit: [f"{Decimal(1_700_000_000 + each) * per_s:f}" for each in map(Decimal, at)]
        for unit, per_s in UNITS.items()
    }
    written["date"] = [f"2023-11-16 00:00:{each:04.1f}" for each in at]
    written["from 0"] = [str(int(each * SECOND)) for each in at]
    for form, texts in written.items():
        file.write_text("\n".join(texts))
        trace_module._instants.cache_clear()
        load = RunConfig.of(engine="x", trace=str(file), rate=f"{rate}/s", trace_loop=True, duration="1s").model.load
        due = load.due(0, 4, 1)
        assert due is not None
        assert due.tolist() == pytest.approx([each / 6 * 3 / rate * SECOND for each in at], abs=1), form
        assert load.mean_rate(0) == pytest.approx(rate, rel=1e-4)  # due instants are whole ns


MOONCAKE = '{"timestamp": %d, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47]}\n'


@pytest.mark.parametrize(
    ("text", "column", "instants"),
    [
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00.009930+00:00,2162,5\n"
         "2024-05-10 00:00:00.017335+00:00,2399,6\n", "TIMESTAMP", [0, 7_405_000]),
        ("Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,472,18,490,Conversation log\n"
         "45,ChatGPT,1087,230,1317,Conversation log\n", "Timestamp", [0, 40 * SECOND]),
        (MOONCAKE % 0 + MOONCAKE % 3052, "timestamp", [0, 3_052_000_000]),
        ("app,func,end_timestamp,duration\na,f,0.079,0.078\nb,g,0.1,0.1\nc,h,2,0.5\n", "end_timestamp",
         [0, 1_000_000, 1_500_000_000]),
        ("id,arrival_time,size\n1,0,5\n2,1.5,6\n", "arrival_time", [0, 1_500_000_000]),
        ("".join(
            f'{{"chat_id": 1, "timestamp": {at}, "input_length": 5, "output_length": 6, "type": "text", "turn": 1, '
            '"hash_ids": [1]}\n' for at in (61.114, 62.614)
        ), "timestamp", [0, 1_500_000_000]),
        ("id,Arrival Time (ms)\n1,100\n2,250\n", "Arrival Time (ms)", [0, 150_000_000]),
        ('{"name": "x", "startTimeUnixNano": "1700000000000000000"}\n'
         '{"name": "y", "startTimeUnixNano": "1700000000000000500"}\n', "startTimeUnixNano", [0, 500]),
        ('{"@timestamp": "2023-11-16T18:17:03.1Z", "m": 1}\n{"@timestamp": "2023-11-16T18:17:03.2Z", "m": 2}\n',
         "@timestamp", [0, 100_000_000]),
    ],
)  # fmt: skip
def test_public_traces_need_no_option(folder: Path, text: str, column: str, instants: list[int]) -> None:
    """Azure's of language models (2024) and functions (2021, which logs ends), BurstGPT's, Mooncake's, Qwen's (whose
    keys are Mooncake's and others, in seconds), and those of OpenTelemetry and Elastic; the choice is remarked."""
    assert _ns(folder, text) == instants
    assert f"instants are in {column}" in trace_remarks(_write(folder, text))[0]


def test_a_named_column_is_read_as_it_stands(folder: Path) -> None:
    """--trace-column end_timestamp of Azure's functions is the end."""
    assert _ns(folder, "app,func,end_timestamp,duration\na,f,1,0.5\nb,g,3,2.5\n", "end_timestamp") == [0, 2 * SECOND]


@pytest.mark.parametrize(
    ("text", "column", "instants"),
    [
        ("# made by hand\n# t size\n\n1 10\n# pause\n3 20\n", None, [0, 2]),
        ("time size\n 1   10\n\t3 20\n", "time", [0, 2]),
        ("size time\n10 1\n20 3\n", "time", [0, 2]),
        ("time size\n2023-11-16 18:17:03.5 10\n2023-11-16 18:17:04 20\n", "time", [0, 0.5]),
        ("date time size\n2023-11-16 18:17:03.5 10\n2023-11-17 18:17:03.5 20\n", None, [0, 86400]),
        ("request time\n2023-11-16 18:17:03.5\n2023-11-17 18:17:03.5\n", None, [0, 86400]),
        ("[2023-11-16 18:17:03.5]\n[2023-11-16 18:17:04]\n", None, [0, 0.5]),
        ('"t","prompt"\n"1","a\u2028b\n#c"\n"2","d"\n', "t", [0, 1]),
        ("2023-11-16 18:17:03.5 GET /v1\n2023-11-16 18:17:04 PUT /v1, again\n", None, [0, 0.5]),
        ("2023-11-16 18:17:03,500 INFO request\n2023-11-16 18:17:04,000 INFO request\n", None, [0, 0.5]),
        ("2023-11-16 18:17:03,500\n2023-11-16 18:17:04,001\n", None, [0, 0.501]),
        ("2023-11-16 18:17:03,500\n2023-11-16 18:17:04,1\n", None, [0, 1]),  # a column of sizes
        ("2023/11/16 18:17:03 [error] 31#31: x\n2023/11/16 18:17:05 [error] 31#31: y\n", None, [0, 2]),
        ('10.0.0.1 - - [16/Nov/2023:18:17:03 +0100] "GET / HTTP/1.1" 200 5\n'
         '10.0.0.2 - - [16/Nov/2023:18:17:05 +0100] "GET /?a,b HTTP/1.1" 200 5\n', None, [0, 2]),
        ("2023-11-16T18:17:03Z;5\n2023-11-16T18:17:04Z;6\n", None, [0, 1]),
        ("2023-11-16 18:17:03.25,5\n2023-11-16 18:17:04.5,6\n", None, [0, 1.25]),
        ("<34>1 2023-11-16T18:17:03.5Z host app - x\n<34>1 2023-11-16T18:17:04Z host app - y\n", None, [0, 0.5]),
        ("INFO:  2023-11-16 18:17:03,500 - GET\nWARN:  2023-11-16 18:17:04,000 - GET\n", None, [0, 0.5]),
        ("5 2023-11-16 18:17:03 x\n7 2023-11-16 18:17:09 x\n", None, [0, 2]),
        ("time|size\n1|5\n2.5|6\n", None, [0, 1.5]),
        ("[0, 0.5, 2]", None, [0, 0.5, 2]),
        ('["2023-11-16T18:17:03Z",\n "2023-11-16T18:17:04.5Z"]\n', None, [0, 1.5]),
        ('[\n  {"t": 1, "size": 5},\n  {"t": 2.5, "size": 6}\n]\n', "t", [0, 1.5]),
        ('[{"timestamp": 1700000000123, "x": {"timestamp": 5}}, {"timestamp": 1700000000223}]', None, [0, 0.1]),
        ('# comment\n{"t": 1}\n# another\n{"t": 2}\n', None, [0, 1]),
        ('id,time\n"1,5",2\n"a\nb",3.5\n', "time", [0, 1.5]),
        ("time,size\n1, 5\n 2 ,6\n", "time", [0, 1]),
        ("\ufefftime\r\n1\r\n\r\n4\r\n", None, [0, 3]),
    ],
)  # fmt: skip
def test_files_of_many_forms(folder: Path, text: str, column: str | None, instants: list[float]) -> None:
    """Comments, blanks, logs of Python, nginx and Apache, JSON lists, quotes over lines; packed or not."""
    expected = [round(each * SECOND) for each in instants]
    assert _ns(folder, text, column) == expected
    assert _ns(folder, gzip.compress(text.encode()), column) == expected


@pytest.mark.parametrize("size", [64, 100, 1000])
@pytest.mark.parametrize("form", ["csv", "quoted", "jsonl", "dates", "nested", "blanks", "log"])
def test_blocks_change_nothing(folder: Path, form: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """500 rows out of order, in blocks that cut rows anywhere, are those of one; the line of a fault is right."""
    instants = [(index * 7919) % 500 for index in range(500)]
    writers: dict[str, Callable[[int], str]] = {
        "csv": lambda at: f"{at}.25,a;b",
        "quoted": lambda at: f'{at}.25,"a, ""{at}"""' if at > 250 else f"{at}.25,b",
        "jsonl": lambda at: json.dumps({"size": at, "t": at + 0.25}),
        "dates": lambda at: json.dumps({"t": f"2023-11-16 18:{at // 60:02}:{at % 60:02},25", "size": at}),
        "nested": lambda at: json.dumps({"t": at + 0.25, "more": {"t": 1}, "text": '{"t": 5}'}),
        "blanks": lambda at: f"{at}.25   x  y",
        "log": lambda at: f"2023-11-16 18:{at // 60:02}:{at % 60:02}.25 INFO x",
    }
    lines = [writers[form](at) for at in instants]
    column = "t" if form in ("jsonl", "dates", "nested") else None
    monkeypatch.setattr(trace_blocks, "_BLOCK_BYTES", size)
    assert _ns(folder, "\n".join(lines), column) == [at * SECOND for at in range(500)]
    for place in (1, 250, 499):
        wrong = [*lines[:place], lines[place].replace("25", "2x5"), *lines[place + 1 :]]
        assert f"trace.txt:{place + 1}" in _refusal(folder, "\n".join(wrong), column)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("2023-11-16 18:17:03\n2023-11-16 18:17:04Z\n", "trace.txt:2: '2023-11-16 18:17:04Z' is a zoned date, where"),
        ("1\n2023-11-16 18:17:04\n", "trace.txt:2: '2023-11-16 18:17:04' is a date, where those before are numbers"),
        ("10:00:00\n5\n", "trace.txt:2: '5' is a number, where those before are times of day"),
        ("23:59:59\n00:00:01\n", "has times of day that pass midnight: write dates before them"),
        ("2023-02-28\n2023-02-29\n", "trace.txt:2: '2023-02-29' is not an instant"),
        ("2023-02-28 23:00:00\n2023-13-01 00:00:00\n", "trace.txt:2: '2023-13-01 00:00:00' is not an instant"),
        ("2023-02-28 23:00:00\n2023-02-28 23:61:00\n", "trace.txt:2: '2023-02-28 23:61:00' is not an instant"),
        ("2023-02-28 23:00:00 EST\n2023-02-28 23:00:01 EST\n", "needs two"),  # see below
        ("t\n1\n2\nsoon\n4\nlater\n", "trace.txt:4: 'soon' is not an instant: write seconds, such as 1.25, or a date"),
        ('[{"a": 1}, {"b": 2}]', "item 2 of "),
        ('[1,\n 2,\n x]', "trace.txt:3 is not JSON"),
        ('{"a": 1}\n{"a": 2,}\n', "trace.txt:2 is not JSON"),
        ("date,time\n2023-11-16,18:17:03\n2023-11-17,18:17:03\n", "has a column of dates and one of times: write both"),
        ("[1, 2, true]", "item 3 of"),
        ('{"requests": [{"time": 1}, {"time": 2}]}\n', "has an object or a list under 'requests' in the place of"),
        ("[[1, 5], [2, 6]]", "item 1 of"),
        ("Nov 16 18:17:03 host x\nNov 16 18:17:04 host x\n", "has no instants in its first column, and no names of"),
        ("PAR1\x15\x04\0", "it is a Parquet file; write it as CSV"),
        ("x\0y", "is neither CSV nor JSONL: it is binary data"),
        ("2023-11-16 18:17:03 INFO x\nno date\n", "trace.txt:2: 'no date' is not an instant"),
    ],
)  # fmt: skip
def test_faults_name_the_line(folder: Path, text: str, sentence: str) -> None:
    """What stands there, and what stood before."""
    if "EST" in text:  # a zone by a name is no part of the date: a log's line
        assert _ns(folder, text) == [0, SECOND]
    else:
        assert sentence in _refusal(folder, text)


def test_columns_of_a_log_or_a_list_are_refused(folder: Path) -> None:
    """They have no names; an instant is none, as the first request would be lost with it."""
    assert "has no instants in its first column" in _refusal(folder, "x,18:17:03\ny,18:17:04\n", "18:17:03")
    assert "is a log without columns" in _refusal(folder, "2023-11-16 18:17:03 INFO x\n2023-11-16 18:17:04 y\n", "time")
    assert "has no keys, and so no 'time'" in _refusal(folder, "[1, 2]", "time")
    assert "has the columns a, b: choose one" in _refusal(folder, '[{"a": 1, "b": 2}]')


PACKED = gzip.compress("".join(f"{at}\n" for at in range(10_000)).encode(), mtime=0)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (PACKED[:-4000], "is a damaged gzip file: "),
        (PACKED[:-8] + bytes(8), "is a damaged gzip file: "),
        (PACKED[:200] + bytes(100) + PACKED[300:], "is a damaged gzip file: "),
        (b"\x1f\x8b" + bytes(20), "is a damaged gzip file: "),
        (gzip.compress(PACKED, mtime=0), "compressed (gzip)"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n", "Git LFS pointer"),
        (gzip.compress(b"version https://git-lfs.github.com/spec/v1\n", mtime=0), "Git LFS pointer"),
        (b"<!DOCTYPE html>\n<html><body>Sign in</body></html>\n", "web page"),
        (b"PK\x03\x04" + bytes(40), "zip archive"),
    ],
)  # fmt: skip
def test_files_that_lie(folder: Path, data: bytes, sentence: str) -> None:
    """Cut, damaged, packed twice, a pointer, a page: one sentence."""
    assert sentence in _refusal(folder, data)


def test_gzip_of_several_members_is_read(folder: Path) -> None:
    """As `cat a.gz b.gz` makes it."""
    assert _ns(folder, gzip.compress(b"1\n2\n") + gzip.compress(b"4\n")) == [0, SECOND, 3 * SECOND]


def test_the_first_fault_is_named() -> None:
    """Of faults of several lengths and layouts the one that stands first."""
    for texts, index in (
        (["1", "22", "x", "yyy", "3.5"], 2),
        (["1", "yyy", "x"], 1),
        (["", "x"], 0),
        (["1.5", "z" * 90], 1),
    ):
        with pytest.raises(NoInstantError) as caught:
            read_instants(Texts.of(texts))
        assert caught.value.index == index


def test_what_was_decided_is_said(tmp_path: Path) -> None:
    """On stderr, before a run or a plan; not with --quiet, nor where nothing was."""
    file = tmp_path / "ms.csv"
    file.write_text("t\n1700000000123\n1700000000223\n1700000000423\n")
    run: tuple[Any, ...] = ("run", "--engine", "simulated:service=1ms,clock=virtual", "--warmup", "0", "--trace", file)
    said = f"trace {file}: instants are in ms, since 1970 by their size (--time-scale overrides this)"
    assert said in loadtrt(*run).stderr
    assert said not in loadtrt(*run, "--quiet").stderr
    done = loadtrt(*run, "--json", tmp_path / "run.json")
    assert done.returncode in (0, 97, 98)
    (model,) = json.loads((tmp_path / "run.json").read_text())["models"].values()
    assert model["throughput"]["offered_per_s"] == pytest.approx(2 / 0.3)
    file.write_text("t\n0\n0.1\n0.3\n")
    assert "trace " not in loadtrt(*run).stderr.replace(f"trace {file} ·", "")
