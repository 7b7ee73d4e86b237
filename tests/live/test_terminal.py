"""The drawn view: at every size it fits, in every terminal it can be read, and it is gone when it closes."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from live_snapshots import FACTS, GPU, snapshot
from loadtrt.asked.objective import parse_objective
from loadtrt.live.alerts import Alert
from loadtrt.live.drawing import ascii_of, bar, binned, columns, span_of
from loadtrt.live.frame import render, status_line
from loadtrt.live.terminal import Terminal
from loadtrt.live.view import ObjectiveView, View, Viewer
from loadtrt.printing import one_line
from loadtrt.records.histogram import BUCKETS, bucket_of
from loadtrt.units import SECOND_NS

ALERTS = (
    Alert("failed", "12 requests failed, and have no latency", "mend the first error before trusting the numbers"),
    Alert("late", "the generator is 3.1 ms late at p99", "free a core for loadtrt, or lower rate or contexts"),
)


def _view(seconds: int = 5, lanes: int = 2, gpu: Any = GPU, **facts: Any) -> View:
    """So many seconds into a run of some lanes, each of which serves 500 requests a second."""
    viewer, known = Viewer(), replace(FACTS, lanes=lanes, **facts)
    for at_s in range(seconds + 1):
        found = snapshot(at_s, (500 * at_s,) * lanes)
        view = viewer.take(found, known, gpu, found.written_ns)
    return view


def _lines(view: View, width: int, height: int, *, unicode: bool = True) -> list[str]:
    return [line.plain for line in render(view, width, height, unicode=unicode).lines]


VIEWS = st.builds(
    lambda view, model, alerts, phase, window: replace(
        view,
        facts=replace(view.facts, model=model, information=dict.fromkeys([*view.facts.information, "device"], model)),
        alerts=alerts,
        phase=phase,
        window=view.window if window else None,
    ),
    st.builds(
        _view,
        seconds=st.integers(0, 3),
        lanes=st.sampled_from([1, 2, 7, 16, 100]),
        gpu=st.sampled_from([None, GPU, replace(GPU, power_watts=None, utilization_ratio=None)]),
        rate=st.sampled_from([None, 1250.0]),
        requests=st.sampled_from([None, 10**9]),
        duration_ns=st.sampled_from([0, 90 * SECOND_NS, 4000 * SECOND_NS]),
    ),
    st.text(max_size=120),
    st.lists(st.builds(Alert, st.just("late"), st.text(max_size=150), st.text(max_size=150)), max_size=4).map(tuple),
    st.sampled_from(["load", "verify", "warm-up", "measure", "drain", "done"]) | st.text(max_size=9),  # of another host
    st.booleans(),
)


@given(VIEWS, st.integers(1, 200), st.integers(1, 60), st.booleans())
def test_it_fits_every_terminal(view: View, width: int, height: int, unicode: bool) -> None:
    """At every size from 1×1 to 200×60: no line is wider than the terminal, there are no more of them than it has, and
    nothing in them moves the cursor, whatever a model, a device or an alert is called."""
    lines = _lines(view, width, height, unicode=unicode)
    assert 0 < len(lines) <= height
    for line in lines:
        assert cell_len(line) <= width
        assert line.isprintable()
        assert unicode or line.isascii()
    assert status_line(view).isprintable()


def test_what_matters_most_stays() -> None:
    """As the terminal shrinks: chart of lanes, histogram, GPU, objectives and title go; phase and alerts stay."""
    view = replace(_view(), alerts=ALERTS)
    whole, half, least = ("\n".join(_lines(view, *size)) for size in ((80, 24), (60, 12), (20, 5)))
    for text in (whole, half, least):
        assert "measure" in text
        assert "requests/s" in text
        assert "12 requests" in text
    for word in ("googlenet16.trt", "lane 1", "GPU 98 %", "p99.9", "latency.p99 < 8ms", "mend the first error", "▴p50"):
        assert word in whole
    assert "lanes" in half or "lane 1" not in half
    assert "p99" in half
    assert "▴" not in half
    assert _lines(view, 30, 1) == ["measure 55 s left"]


def test_the_view_says_what_was_measured() -> None:
    """5 s of 1000 requests a second of batch 16: rates, counts and percentiles, in the project's words."""
    text = "\n".join(_lines(_view(), 120, 40))
    for words in (
        "googlenet16.trt · poisson 1 250/s · FP16 · 2 contexts · batch 16 · tensorrt 10.16",
        "5 s of 1:00 min · 55 s left",
        r"requests/s +1 000 ",
        r"inferences/s +16 000 ",
        r"offered/s +1 250 ",
        "5 000 served · 3 in flight · 1 waiting · 2 of 2 lanes busy",
        r"last second +4.00 ms +4.80 ms +4.90 ms +4.95 ms +5.00 ms +5.00 ms",
        r"run +[34].\d\d ms +4.[78]\d ms +4.[89]\d ms +4.9\d ms +[45]",
        "lane 1 ━+─+ 75 % computing +500/s",
        "GPU 98 % · 1980 of 1980 MHz · 400 of 700 W · 61 °C · 25.0 mJ/inference · 12.0 GiB used",
        "✓ latency.p99 < 8ms · met so far · 100.00 % within it, 99 % needed",
    ):
        assert re.search(words, text), words


def test_a_missed_objective_is_not_rounded_into_a_met_one() -> None:
    """A share is rounded down: 98.9999 % is never shown as 99 %."""
    (item,) = _view().objectives
    for rank, share, words in (
        (0.99, 0.989999, "98.99 % within"),
        (0.999, 0.99899999, "99.8999 % within"),
        (0.999999, 0.9999985, "99.9998 % within"),
        (0.99999999, 0.999999985, "99.999998 % within"),
    ):
        view = replace(
            _view(), objectives=(replace(item, objective=replace(item.objective, rank=rank), good_share=share),)
        )
        line = next(line for line in _lines(view, 100, 24) if "needed" in line)
        assert words in line
        assert "✗" in line
    undecided = replace(_view(), objectives=(replace(item, good_share=None),))
    assert any("undecided" in line for line in _lines(undecided, 80, 24))


@pytest.mark.parametrize(
    ("text", "share", "value", "words"),
    [
        ("throughput > 90/s", None, 98.2, "✓ throughput > 90/s · met so far · 98.2/s"),
        ("throughput > 90/s", None, 90.0, "✗ throughput > 90/s · missed so far · 90.0/s"),
        ("throughput > 90/s", None, None, "· throughput > 90/s · undecided"),
        ("power < 300W", None, 251.0, "✓ power < 300W · met so far · 251 W"),
        ("energy < 30mJ/inference", None, 0.031, "✗ energy < 30mJ/inference · missed so far · 31.0 mJ/inference"),
        ("drops < 0.1%", 0.998512, None, "✗ drops < 0.1% · missed so far · 99.8512 % not dropped, 99.9 % needed"),
        ("latency.p99.95 < 1s", 0.9996, None, "✓ latency.p99.95 < 1s · met so far · 99.9600 % within it, 99.95 % need"),
    ],
)
def test_an_objective_of_each_kind_so_far(text: str, share: float | None, value: float | None, words: str) -> None:
    """In its own unit."""
    view = replace(_view(), objectives=(ObjectiveView(parse_objective(text), share, value),))
    assert any(words in line for line in _lines(view, 100, 40)), _lines(view, 100, 40)


def test_many_lanes_become_one_row() -> None:
    """A hundred lanes do not fit: a column each, and what they compute on average."""
    (line,) = [line for line in _lines(_view(lanes=100), 140, 24) if line.startswith(" lanes")]
    assert re.search("lanes ▆{100} computing 75 % of the time", line)
    beside = [line for line in _lines(_view(lanes=16), 120, 40) if "lane 15" in line]
    assert len(beside) == 1


def test_before_measuring_only_the_phase_is_shown() -> None:
    """While it warms up there are no numbers yet: title, phase and GPU."""
    view = replace(_view(), phase="warm-up", done_share=None, left_ns=None, elapsed_ns=2 * SECOND_NS)
    lines = _lines(view, 80, 24)
    assert lines[1] == " warm-up 2 s"
    assert not any("requests/s" in line or "latency" in line for line in lines)


def test_the_plain_line() -> None:
    """All of it in one line: for files, pipes and dumb terminals."""
    assert status_line(replace(_view(), alerts=ALERTS[:1])) == (
        "measure 5 s of 1:00 min · 1 000 requests/s · 5 000 served · 3 in flight · 1 waiting · 2 of 2 lanes busy · "
        "last second p50 4.00 ms, p99 4.95 ms · 12 requests failed, and have no latency: "
        "mend the first error before trusting the numbers"
    )


# ---- numbers as characters


@given(st.lists(st.one_of(st.none(), st.floats(0, 1e6)), max_size=40), st.integers(1, 8), st.floats(0.5, 2e6))
def test_columns_are_as_high_as_their_values(values: list[float | None], height: int, top: float) -> None:
    """Eighths of a column = round(8 · height · value / top), at least one for a value above 0, at most all of them."""
    rows = columns(values, height, top)
    assert [len(row) for row in rows] == [len(values)] * height
    for place, value in enumerate(values):
        eighths = sum(" ▁▂▃▄▅▆▇█".index(row[place]) for row in rows)
        wanted = round(8 * height * (value or 0.0) / top)
        assert eighths == (min(max(wanted, 1), 8 * height) if value else 0)


@given(
    st.lists(
        st.tuples(st.integers(0, BUCKETS - 1), st.integers(1, 1000)), min_size=1, max_size=30, unique_by=lambda t: t[0]
    ),
    st.integers(1, 200),
)
def test_a_histogram_keeps_its_counts(pairs: list[tuple[int, int]], parts: int) -> None:
    """Σ parts = Σ counts over the whole span, and all but the tails over the span that leaves them out."""
    pairs = sorted(pairs)
    total = sum(count for _, count in pairs)
    low, high = span_of(pairs, 0.0)
    assert sum(binned(pairs, low, high, parts)) == pytest.approx(total, abs=1e-3)
    low, high = span_of(pairs, 0.1)
    assert high - low >= 0.0999 * (low + high) / 2
    assert sum(binned(pairs, low, high, parts)) >= 0.8 * total - 1e-3


def test_a_narrow_histogram_is_a_peak() -> None:
    """Latencies that are all alike do not fill the picture."""
    pairs = [(int(bucket_of(np.array([5_000_000]))[0]), 1000)]
    heights = binned(pairs, *span_of(pairs, 0.001), 70)
    assert sum(height > 0 for height in heights) < 10
    assert heights.index(max(heights)) in range(30, 40)


def test_bars_and_ascii() -> None:
    """A bar's parts are as long as the bar; in ASCII every character has a place of its own, so that styles stay."""
    assert [sum(map(len, bar(share, 10))) for share in (-1, 0, 0.5, 1, 9)] == [10] * 5
    assert bar(0.5, 10) == ("━" * 5, "─" * 5)
    text = "p99 ≈ 7.9 µs · 61 °C → 4 × 2 – ✓✗▴ ▁█ 猫"
    assert len(ascii_of(text)) == len(text)
    assert ascii_of(text).isascii()
    assert one_line("a\x1b[2Jb\r\n c\u202e") == r"a\x1b[2Jb c\u202e"


# ---- a terminal that draws


class Screen(io.StringIO):
    """A terminal of its own: what is written moves a cursor over rows of text, and lines that are wider than a window
    that got narrower are wrapped, as real terminals do. It knows what Terminal writes, and nothing else."""

    def __init__(self, width: int, height: int, encoding: str = "utf-8") -> None:
        super().__init__()
        self.width, self.height, self._encoding = width, height, encoding
        self.rows, self.row, self.column = [""], 0, 0
        self.cursor = True
        self.raw = ""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def isatty(self) -> bool:
        return True

    def size(self) -> tuple[int, int]:
        return self.width, self.height

    def write(self, text: str) -> int:
        text.encode(self._encoding)
        self.raw += text
        for control, char in re.findall(r"(\x1b\[[?\d;]*[A-Za-z])|(.|\n)", text):
            if control:
                self._control(control[2:-1], control[-1])
            elif char == "\n":
                self.row, self.column = self.row + 1, 0
                self.rows += [""] * (self.row + 1 - len(self.rows))
            elif char == "\r":
                self.column = 0
            elif self.column < self.width:  # what is longer is cut: lines do not wrap while a frame is drawn
                self.rows[self.row] = self.rows[self.row][: self.column].ljust(self.column) + char + self._rest()
                self.column += 1
        return len(text)

    def _rest(self) -> str:
        return self.rows[self.row][self.column + 1 :]

    def _control(self, number: str, letter: str) -> None:
        match letter:
            case "A":
                self.row = max(self.row - int(number), 0)
            case "K":
                self.rows[self.row] = self.rows[self.row][: self.column]
            case "J":
                self.rows[self.row :] = [self.rows[self.row][: self.column]]
            case "h" | "l":
                self.cursor = letter == "h" if number == "?25" else self.cursor
            case _:
                assert letter == "m", (number, letter)

    def resize(self, width: int, height: int) -> None:
        """A line that no longer fits is wrapped; the cursor stays behind its character."""
        rows: list[str] = []
        for number, text in enumerate(self.rows):
            parts = [text[start : start + width] for start in range(0, len(text), width)] or [""]
            if number == self.row:
                self.row, self.column = len(rows) + len(parts) - 1, len(parts[-1])
                rows += parts
                continue
            rows += parts
        self.rows, self.width, self.height = rows, width, height

    @property
    def text(self) -> list[str]:
        return [row.rstrip() for row in self.rows]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TTY_COMPATIBLE", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)


def _frame(view: View, screen: Screen) -> list[str]:
    unicode = screen.encoding.startswith("utf")
    return [line.rstrip() for line in _lines(view, screen.width - 1, screen.height - 1, unicode=unicode)]


@given(
    st.lists(st.tuples(st.integers(20, 130), st.integers(5, 45), st.booleans(), st.booleans()), min_size=1, max_size=8)
)
@settings(max_examples=40)
def test_a_frame_replaces_the_one_before(steps: list[tuple[int, int, bool, bool]]) -> None:
    """Whatever is said, and however the window is resized: the screen holds all sentences and below them one frame."""
    screen = Screen(80, 24)
    terminal = Terminal(screen, size=screen.size)
    said = ["started"]
    terminal.say("started")
    for number, (width, height, before, after) in enumerate(steps):
        screen.resize(width, height)
        if before:
            said.append(f"{number} first")
            terminal.say(said[-1])
        view = _view(seconds=number % 3 + 1)
        terminal.show(view)
        if after:
            said.append(f"{number} then")
            terminal.say(said[-1])
        assert screen.text == [*said, *_frame(view, screen)]
        assert not screen.cursor
    terminal.close()
    assert screen.text == [*said, ""]
    assert screen.cursor


def test_closing_is_for_good() -> None:
    """Closed twice is closed; nothing is drawn after that, and what is said still is."""
    screen = Screen(80, 24)
    terminal = Terminal(screen, size=screen.size)
    terminal.show(_view())
    terminal.close()
    terminal.close()
    terminal.show(_view())
    terminal.say("done")
    assert screen.text == ["done", ""]
    assert screen.raw.count("\x1b[?25h") == 1


def test_colours_are_left_out_where_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR (no-color.org): no colour in any sequence, and the same text."""
    coloured, plain = Screen(80, 24), Screen(80, 24)
    Terminal(coloured, size=coloured.size).show(_view())
    monkeypatch.setenv("NO_COLOR", "1")
    Terminal(plain, size=plain.size).show(_view())
    assert re.search(r"\x1b\[[\d;]*38;", coloured.raw)
    assert not re.search(r"\x1b\[[\d;]*(3[0-8]|9\d)[;m]", plain.raw)
    assert coloured.text == plain.text


def test_a_terminal_of_ascii() -> None:
    """Where the encoding has no blocks, there are others: nothing is written that it cannot hold."""
    screen = Screen(80, 24, encoding="ascii")
    terminal = Terminal(screen, size=screen.size)
    terminal.show(_view())
    terminal.say("7 µs → too late")
    assert all(row.isascii() for row in screen.text)
    assert any("#" in row for row in screen.text)


@pytest.mark.parametrize("term", ["dumb", "xterm"])
def test_where_nothing_can_be_drawn_lines_come_now_and_then(term: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe, or TERM=dumb: a line each 10 s and what is said, and no control sequence."""
    monkeypatch.setenv("TERM", term)
    stream = Screen(80, 24) if term == "dumb" else io.StringIO()
    terminal = Terminal(stream)
    for quarter in range(100):
        view = _view(seconds=1)
        terminal.show(replace(view, now_ns=view.now_ns + quarter * SECOND_NS // 4))
    terminal.say("over")
    terminal.close()
    text = stream.raw if isinstance(stream, Screen) else stream.getvalue()
    assert text.count("measure") == 3
    assert text.endswith("over\n")
    assert "\x1b" not in text


def test_a_terminal_that_has_gone_ends_nothing() -> None:
    """Writing fails (the window was closed): nothing is raised, `gone` says so."""

    class Gone(Screen):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    screen = Gone(80, 24)
    terminal = Terminal(screen, size=screen.size)
    assert not terminal.gone
    terminal.say("anybody?")
    terminal.show(_view())
    terminal.close()
    assert terminal.gone


def test_a_size_that_nobody_tells_is_80_by_24() -> None:
    """A stream without a file descriptor has no size."""
    screen = Screen(80, 24)
    Terminal(screen).show(_view())
    assert screen.text == _frame(_view(), screen)
