"""Replaying a trace: exact to the ns, scaled, looped; every fault of a file in one sentence."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from command_line import loadtrt
from loadtrt.asked.config import RunConfig
from loadtrt.errors import UsageError
from loadtrt.load import trace as trace_module
from loadtrt.load.trace import read_trace

if TYPE_CHECKING:
    from pathlib import Path

SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("traces")


def _write(folder: Path, text: str, name: str = "trace.csv") -> str:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    trace_module._instants.cache_clear()  # the same size within one tick of the file system's clock
    return str(file)


def _seconds(ns: int) -> str:
    return f"{Decimal(ns) / SECOND:f}"


@given(
    base=st.sampled_from([0, -5 * SECOND, 17, 999_999 * SECOND, 1_763_000_000_123_456_789]),
    offsets=st.lists(st.integers(0, 10**15), min_size=2, max_size=40),
    form=st.sampled_from(["csv", "header", "jsonl"]),
)
def test_a_trace_is_replayed_to_the_ns(folder: Path, base: int, offsets: list[int], form: str) -> None:
    """due_k = t_(k) − t_(0), exactly: of seconds since the epoch with nine decimals too, in any order."""
    assume(len(set(offsets)) > 1)
    texts = [_seconds(base + offset) for offset in offsets]
    match form:
        case "csv":
            text = "\n".join(texts)
        case "header":
            text = "id;time\n" + "".join(f"{k};{each}\n" for k, each in enumerate(texts))
        case _:
            text = "".join(f'{{"id": {k}, "time": {each}}}\n' for k, each in enumerate(texts))
    trace = read_trace(_write(folder, text), None if form == "csv" else "time")
    expected = [offset - min(offsets) for offset in sorted(offsets)]
    assert trace.instants.tolist() == expected
    assert trace.due(10**16, 0, loop=False).tolist() == expected
    assert trace.due(expected[-1], 0, loop=False).tolist() == [each for each in expected if each < expected[-1]]


def test_times_are_scaled(folder: Path) -> None:
    """due = round(t · scale): 0.5 is twice as fast, 0.001 reads ms."""
    file = _write(folder, "0\n0.000000003\n2.5\n7\n")
    assert read_trace(file, scale=0.5).instants.tolist() == [0, 2, 1_250_000_000, 3_500_000_000]
    assert read_trace(file, scale=0.001).instants.tolist() == [0, 0, 2_500_000, 7_000_000]
    assert read_trace(file, scale=3).duration_ns == 3 * 7 * SECOND + 7 * SECOND


@given(
    gaps=st.lists(st.integers(0, 1000), min_size=1, max_size=20),
    least_ns=st.integers(0, 50_000),
    least_requests=st.integers(0, 200),
)
def test_a_loop_goes_on_with_the_mean_gap(folder: Path, gaps: list[int], least_ns: int, least_requests: int) -> None:
    """t_k = ⌊k / n⌋ · D + t_{k mod n}, D = span · n / (n − 1), upwards: all before least_ns, and least_requests."""
    assume(sum(gaps))
    instants = np.cumsum([0, *gaps]).tolist()
    n, span = len(instants), instants[-1]
    trace = read_trace(_write(folder, "\n".join(map(_seconds, instants))))
    assert trace.duration_ns == span + -(-span // (n - 1))
    due = trace.due(least_ns, least_requests, loop=True).tolist()
    assert due == [k // n * trace.duration_ns + instants[k % n] for k in range(len(due))]
    assert len(due) >= least_requests
    beyond = len(due) // n * trace.duration_ns + instants[len(due) % n]
    assert beyond >= least_ns
    assert len(due) == least_requests or due[-1] < least_ns


@pytest.mark.parametrize(
    ("text", "column", "instants"),
    [
        ("1\n3\n2\n", None, [0, 1, 2]),
        ("\ufeff\n\ntime\n1\n\n2\n", None, [0, 1]),
        ("1,GET\n2.0,PUT\n", None, [0, 1]),
        ("kind\tat\nGET\t1\nPUT\t2e0\n", "at", [0, 1]),
        ('"at, s";n\n"1";5\n"4";6\n', "at, s", [0, 3]),
        ('{"t": 1}\n\n{"t": "2.5", "x": null}\n', None, [0, 1.5]),
    ],
)
def test_the_forms_a_trace_may_have(folder: Path, text: str, column: str | None, instants: list[float]) -> None:
    """With a header or not, comma, semicolon or tab, blank lines, a byte order mark, JSON with numbers or text."""
    assert read_trace(_write(folder, text), column).instants.tolist() == [int(each * SECOND) for each in instants]


@pytest.mark.parametrize("form", ['{{"t": {}, "prompt": "{}"}}\n', '{},"{}"\n', "{};{}\n"])
def test_a_request_may_be_logged_with_its_prompt(folder: Path, form: str) -> None:
    """JSON and CSV lines of megabytes, quoted or not."""
    text = "".join(form.format(second, "word " * 600_000) for second in (1, 3))
    column = "t" if form.startswith("{{") else None
    assert read_trace(_write(folder, text), column).instants.tolist() == [0, 2 * SECOND]


@pytest.mark.parametrize("more", [0, 1])
def test_a_line_that_is_too_long_is_refused(folder: Path, more: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of as many characters as there may be is read."""
    monkeypatch.setattr("loadtrt.load.trace_blocks.LONGEST_LINE", 1000)
    file = _write(folder, f'{{"t": 1}}\n{{"t": 2{" " * (991 + more)}}}\n')
    if more:
        with pytest.raises(UsageError, match=f"{file}:2 has more than 1000 bytes, the most of a line: write one"):
            read_trace(file)
    else:
        assert read_trace(file).instants.tolist() == [0, SECOND]


@pytest.mark.parametrize(
    ("text", "column", "sentence"),
    [
        ("", None, "has no instants: write one a line, in seconds"),
        ("time\n", None, "has no instants"),
        ("1\n", None, "needs two instants that differ: use --arrivals offline for all at once"),
        ("1\n1\n", None, "needs two instants that differ"),
        ("1\nsoon\n", None, "trace.csv:2: 'soon' is not an instant: write seconds, such as 1.25"),
        ("\n1\nnan\n", None, "trace.csv:3: 'nan' is not an instant"),
        ("1\ninf\n", None, "'inf' is not an instant"),
        ("1\n1e30\n", None, "1e30 s is centuries away"),
        ("1\n1e400\n", None, "1e400 s is centuries away"),
        ("-9e9\n9e9\n", None, "takes longer than 73 years"),
        ("a,b\n1,2\n", None, "has the columns a, b: choose one with --trace-column"),
        ("a,b\n1,2\n", "c", "has no column 'c': use one of a, b"),
        ("a,b\n1,2\n5\n", "b", "trace.csv:3: '' is not an instant"),
        ("1\n2\n", "c", "has no header, and so no column 'c'"),
        ('{"a": 1, "b": 2}\n', None, "has the columns a, b: choose one"),
        ('{"a": 1}\n{"b": 1}\n', None, "trace.csv:2 has no 'a': write it on every line"),
        ('{"a": 1}\n{"a": true}\n', None, "trace.csv:2: 'true' is not an instant"),
        ('{"a": 1}\n{"a": [1]}\n', None, "has an object or a list under 'a'"),
        ('{"a": 1}\n{"a": 1\n', None, "trace.csv:2 is not JSON: write one object a line"),
        ('{"a": 1}\n5\n', None, "trace.csv:2 is not a JSON object"),
        ("[1, 2, 3\n", None, "trace.csv:2 is not JSON"),
        ('[{"a": 1}, 2]\n', None, "item 2 of"),
    ],
)
def test_every_fault_is_one_sentence(folder: Path, text: str, column: str | None, sentence: str) -> None:
    """The file, the line and what stands there."""
    with pytest.raises(UsageError) as caught:
        read_trace(_write(folder, text), column)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_trace(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file, a folder, bytes that are no text, more requests than memory, a scale beyond all time."""
    (folder / "binary").write_bytes(b"\xff\xfe\x00\x01")
    for file, sentence in (
        ("none", "No such file or directory"),
        (".", "Is a directory"),
        ("binary", "is neither CSV nor JSONL"),
        ("nul\0", "cannot read trace"),
    ):
        with pytest.raises(UsageError, match=sentence):
            read_trace(str(folder / file))
    with pytest.raises(UsageError, match=r"× 1e\+10 takes longer than 73 years"):
        read_trace(_write(folder, "0\n1\n"), scale=1e10)
    with pytest.raises(UsageError, match="needs two instants that differ"):
        read_trace(_write(folder, "0\n1\n"), scale=1e-10)
    with pytest.raises(UsageError, match="too many to draw"):
        read_trace(_write(folder, "0\n1\n")).due(0, 10**9, loop=True)
    monkeypatch.setattr("loadtrt.load.arrivals.MOST_REQUESTS", 2)
    monkeypatch.setattr(trace_module, "MOST_REQUESTS", 2)
    with pytest.raises(UsageError, match="too many to draw"):
        read_trace(_write(folder, "0\n1\n2\n"))


def test_a_changed_file_is_read_again(folder: Path) -> None:
    """The reading that the configuration made serves the run, unless the file has changed since."""
    file = _write(folder, "0\n1\n")
    assert read_trace(file).instants is read_trace(file).instants
    (folder / "trace.csv").write_text("0\n1\n10\n")
    assert read_trace(file).instants[-1] == 10 * SECOND


def test_a_run_with_a_trace_knows_its_length_and_mean_rate(folder: Path) -> None:
    """rate = (n − 1) / span and T = n / rate; cut by max_duration, what comes within it; looped, the trace's own."""
    file = _write(folder, json.dumps({"t": 5}) + "\n" + "".join(f'{{"t": {t}}}\n' for t in (6, 8, 13)))
    config = RunConfig.of(engine="x", trace=file, time_scale=0.5)
    assert config.model.load.options()["arrivals"] == "trace"
    assert config.offered_per_s(config.model) == pytest.approx(3 / 4)
    assert config.least_ns(config.model) == pytest.approx(16 * SECOND / 3, abs=1)
    cut = RunConfig.of(engine="x", trace=file, max_duration="2s")
    assert (cut.least_ns(cut.model), cut.offered_per_s(cut.model)) == (2 * SECOND, 1.0)
    looped = RunConfig.of(engine="x", trace=file, trace_loop=True, requests=100)
    assert looped.least_ns(looped.model) == 0
    assert looped.offered_per_s(looped.model) == pytest.approx(3 / 8)


def test_a_trace_is_scaled_to_a_mean_rate(tmp_path: Path) -> None:
    """All gaps by one factor, with the gap to the next round: n requests in n / rate, whatever the mean was."""
    file = tmp_path / "trace.csv"
    file.write_text("0\n1\n1.5\n6\n")  # 4 requests in 8 s
    load = RunConfig.of(engine="x", trace=str(file), rate="50/s", trace_loop=True, duration="160ms").model.load
    due = load.due(160_000_000, 0, 1)
    assert due is not None
    ms = [0, 10, 15, 60]
    assert due.tolist() == [(80 * turn + at) * 1_000_000 for turn in (0, 1) for at in ms]
    assert (load.period_ns, load.mean_rate(160_000_000), load.peak_ratio) == (80_000_000, 50, 1)
    once = RunConfig.of(engine="x", trace=str(file), rate="50/s").model.load
    assert (once.own_ns, once.period_ns) == (80_000_000, None)


def test_the_peak_of_a_trace_is_its_busiest_minute(tmp_path: Path) -> None:
    """Of ten minutes with a request a second, and one with three."""
    file = tmp_path / "trace.csv"
    instants = [*range(660), *(300 + third / 3 for third in range(180) if third % 3)]
    file.write_text("".join(f"{at:.6f}\n" for at in sorted(instants)))
    for options in ({}, {"rate": "500/s"}, {"time_scale": 0.1}):
        load = RunConfig.of(engine="x", trace=str(file), **options).model.load
        assert load.peak_ratio == pytest.approx(3 / (780 / 660), rel=0.01)


def test_a_result_of_a_trace_is_read_without_it(tmp_path: Path) -> None:
    """On another machine, or once the trace is gone; to run it again needs it, which is told."""
    trace, file = tmp_path / "trace.csv", tmp_path / "run.json"
    trace.write_text("0\n0.1\n0.3\n")
    options = ("--engine", "simulated:null", "--warmup", "0", "--trace", trace)
    assert loadtrt("run", *options, "--json", file).returncode in (0, 97)
    trace.unlink()
    shown = loadtrt("report", file)
    assert (shown.returncode, f"trace {trace}" in shown.stdout.replace("\\", "")) == (0, True), shown.stderr
    again = loadtrt("run", "--config", file)
    assert (again.returncode, f"cannot read trace {trace}" in again.stderr) == (2, True)
