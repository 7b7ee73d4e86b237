"""Laws of the document: what one renderer shows all show; plain text fits a terminal and ends with the conclusion."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import html5lib
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from loadtrt.report import FORMATS, format_of
from loadtrt.report.document import Badge, Name, Named, Notice, Section, Table, Tile, Tiles, Words, section, words
from loadtrt.report.html import html_page
from loadtrt.report.markdown import markdown
from loadtrt.report.plain import TABLE_WIDTH, WIDTH, plain, terminal_text
from loadtrt.report.sections import sections
from loadtrt.report.settings import noted
from loadtrt.results.capacity_result import Candidate, CapacityResult, SweepResult
from reported import HOSTILE, OBJECTIVE, altered, every_kind, loaded, measured, two_models, whole_run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadtrt.asked.objective import Verdict
    from loadtrt.report.document import Block, Cell

KINDS = ("run", "repeat", "sweep", "capacity", "interference", "fleet", "placement", "profile", "comparison")
CELLS = st.text("ab1 –%", min_size=1, max_size=12).map(str.strip).filter(bool)


def _document(kind: str) -> list[Section]:
    return list(sections([loaded(every_kind()[kind])]))


def _shown(text: str) -> str:
    return " ".join(text.split())


def _renderings(document: Sequence[Section]) -> dict[str, str]:
    """What a reader sees of each rendering, with single blanks."""
    root = html5lib.HTMLParser(namespaceHTMLElements=False).parse(html_page("title", document))
    rendered = str(MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(markdown(document)))
    return {
        "plain": _shown(plain(document)),
        "html": _shown(" ".join("".join(part.itertext()) for part in root.iter() if part.tag in _PARTS)),
        "markdown": _shown(html.unescape(re.sub(r"<[^>]*>", "", rendered.replace("</td>", " ")))),
    }


_PARTS = {"p", "td", "th", "div", "dd", "dt", "h1", "h2", "small", "b", "span"}


def _text(cell: Cell) -> str:
    return cell.text if isinstance(cell, Badge) else cell.name if isinstance(cell, Named) else str(cell)


def _texts(block: Block) -> Iterator[str]:
    """The texts that no medium leaves out; names that plain text may cut are not among them."""
    match block:
        case Words(pieces, ""):
            yield "".join(map(_text, pieces))
        case Tiles(tiles):
            for tile in tiles:
                yield from () if tile.detail else (tile.name, tile.value, tile.note)
        case Notice(only=""):
            yield block.head
            yield from (text for _, text in block.lines)
        case Table(only="", folded=""):
            for row in (block.header, *block.rows):
                kept = (cell for place, cell in enumerate(row) if place not in block.detail)
                yield from (_text(cell) for cell in kept if not isinstance(cell, Named))
            yield block.note


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_for_all_media_is_in_all_of_them(kind: str) -> None:
    """Every sentence, number, unit, interval, finding and remedy."""
    document = _document(kind)
    renderings = _renderings(document)
    texts = {_shown(text) for item in document if not item.only for block in item.blocks for text in _texts(block)}
    assert len(texts) > 2
    for medium, rendering in renderings.items():
        assert [text for text in texts if text not in rendering] == [], medium


@pytest.mark.parametrize("kind", KINDS)
def test_every_row_has_as_many_cells_as_its_header(kind: str) -> None:
    tables = [block for item in _document(kind) for block in item.blocks if isinstance(block, Table)]
    assert tables
    for table in tables:
        assert {len(row) for row in table.rows} <= {len(table.header)}
        assert all(0 <= place < len(table.header) for place in table.detail)


@pytest.mark.parametrize("kind", KINDS)
def test_plain_text_fits_a_terminal(kind: str) -> None:
    """80 columns, 100 in tables; no line ends with blanks, no two are empty, nothing steers the terminal."""
    text = terminal_text(every_kind()[kind])
    lines = text.splitlines()
    assert lines[0] == ""
    assert text.endswith("\n")
    assert "\n\n\n" not in text
    assert all(line == line.rstrip() and (line.isprintable()) for line in lines)
    assert all(len(line) <= (TABLE_WIDTH if "  " in line.strip() else WIDTH) for line in lines)


def test_the_conclusion_comes_last() -> None:
    """After every number of the run: whether it counts, the verdicts, then why not and what to do."""
    text = terminal_text(whole_run())
    order = ["throughput", "latency ", "conv1", "INVALID · objectives missed", "✗ the generator was", "→ free a core"]
    places = [text.index(piece) for piece in order]
    assert places == sorted(places)
    assert text.endswith("! throttled: the clock fell\n    power cap\n    → lock the clocks\n")


@pytest.mark.parametrize(
    ("options", "shown"), [((), False), (("--mix", "1:0.5, 4:0.5"), True), (("--batcher", "max=4,delay=2ms"), True)]
)
def test_inferences_have_a_line_where_they_are_not_requests(options: tuple[str, ...], shown: bool) -> None:
    """By batch, mix and batcher, not by a comparison of rates, which may differ in their last digit."""
    run = measured(*options, "--rate", "100/s", "--duration", "2s")
    rates = run.model.throughput
    for inferences in (rates.requests_per_s or 0.0, (rates.requests_per_s or 0.0) * (1 + 1e-15)):
        altered_rates = rates.model_copy(update={"inferences_per_s": inferences})
        lines = terminal_text(run.with_model(throughput=altered_rates)).splitlines()
        assert any(line.startswith("inferences/s") for line in lines) == shown


def test_a_closed_loop_begins_with_what_is_in_flight() -> None:
    """Then throughput, then the median with its part on the device beside it; and how one request is measured."""
    engine = ("--contexts", "3", "--buffers", "4")
    text = terminal_text(measured(*engine, "--duration", "5s"))
    order = ["12 in flight: 3 contexts × 4 buffers · closed loop", "throughput, requests/s", "latency p50",
             "device p50", "compute p50", "latency p99", "requests served", "latency is that of 12 requests in flight",
             "--latency measures one request", "              p50"]  # fmt: skip
    places = [text.index(piece) for piece in order]
    assert places == sorted(places)
    assert "offered" not in text
    alone = terminal_text(measured("--contexts", "1", "--buffers", "1", "--duration", "5s"))
    assert "1 in flight: 1 context × 1 buffer" in alone
    assert "latency is that of one request at a time" in alone
    assert "--latency" not in alone
    bare = terminal_text(measured("--engine", "simulated:service=5ms,clock=virtual", "--requests", "500"))
    assert "compute p50" in bare
    assert "device p50" not in bare  # without copies it is the same


@pytest.mark.parametrize(
    ("options", "first"),
    [
        (("--rate", "150/s", "--duration", "5s"), "poisson at 150/s · 2 contexts × 2 buffers"),
        (("--stages", "50/s:3s, 150/s:3s"), "poisson in stages 50/s:3s, 150/s:3s · 2 contexts"),
    ],
)
def test_an_open_loop_begins_with_what_is_offered(options: tuple[str, ...], first: str) -> None:
    """Then with what is served; nothing is said of requests that are always in flight."""
    text = terminal_text(measured(*options))
    order = [first, "offered, requests/s", "throughput, requests/s", "latency p50", "latency p99", "requests served"]
    places = [text.index(piece) for piece in order]
    assert places == sorted(places)
    assert "in flight" not in text
    assert "device p50" not in text
    assert ("on average" in text) == (options[0] == "--stages")


@pytest.mark.parametrize("kind", ["run", "fleet", "profile"])
def test_an_interruption_is_told_once(kind: str) -> None:
    """By the badge, where nothing can be added."""
    ended = every_kind()[kind].model_copy(update={"outcome": "interrupted"})
    shown = _renderings(list(sections([loaded(ended)])))
    assert [shown[medium].lower().count("interrupted") for medium in ("plain", "markdown")] == [1, 1]
    assert "INTERRUPTED" in shown["html"]
    assert "interrupted" not in shown["html"]


def test_the_batch_of_what_was_not_reached_is_not_known() -> None:
    """Without --batch the engine has it, and nobody has opened that yet; a size that was asked for is known."""
    capacity = every_kind()["capacity"]
    assert isinstance(capacity, CapacityResult)
    found = capacity.candidates[0]
    unreached = [Candidate(contexts=6, batch=None, buffers=2), Candidate(contexts=7, batch=8, buffers=2)]
    candidates = (found.model_copy(update={"batch": None}), *unreached)
    cut = capacity.model_copy(update={"candidates": candidates, "outcome": "interrupted"})
    rows = re.findall(r"^(\d contexts.*?)  +(\d+|–) ", terminal_text(cut), re.MULTILINE)
    assert rows == [("2 contexts", "1"), ("6 contexts", "–"), ("7 contexts, batch 8", "8")]


def test_points_of_a_sweep_are_lines() -> None:
    """The axis that changes slowest comes first, though it was given last; what is said of a point ends its line."""
    sweep = every_kind()["sweep"]
    assert isinstance(sweep, SweepResult)
    run = measured("--requests", "2000")
    points = tuple(
        point.model_copy(update={"settings": {"batch": point.settings["batch"], **point.settings}, "run": run})
        for point in sweep.points[:3]
    )
    lines = terminal_text(sweep.model_copy(update={"points": points, "skipped": ()})).splitlines()
    place = next(place for place, line in enumerate(lines) if line.startswith("batch  contexts "))
    shown = [line.split() for line in lines[place + 1 : place + 4]]
    assert [line[:2] for line in shown] == [["1", "1"], ["1", "2"], ["4", "1"]]
    assert shown[0][-1] == "front"
    assert shown[2][-2:] == ["knee,", "front"]


def test_an_objective_is_a_line_in_a_terminal() -> None:
    """With its sign, its verdict and its intervals, why it is undecided below; pages have a table instead."""
    run = measured()
    share = run.model.objectives[0].model_copy(
        update={
            "value_ns": 9.63e6,
            "value_low_ns": 8.55e6,
            "value_high_ns": 11.8e6,
            "requests": 10_000,
            "good": 9_877,
            "bad_low": 0.00774,
            "bad_high": 0.0185,
            "effective": 1802.4,
            "reason": None,
        }
    )
    verdicts: dict[Verdict, str] = {"met": "✓", "missed": "✗", "undecided": "?"}
    shares = tuple(share.model_copy(update={"verdict": verdict}) for verdict in verdicts)
    shares = (*shares[:2], shares[2].model_copy(update={"reason": "too few"}))
    document = list(sections([loaded(run.with_model(objectives=shares))]))
    shown = _renderings(document)
    numbers = "p99 9.63 ms (95 %: 8.55 .. 11.8 ms), 1.23 % bad (95 %: 0.774 .. 1.85 %), effective sample size 1 802"
    for verdict, sign in verdicts.items():
        line = f"{sign} {OBJECTIVE}: {verdict.upper()}, {numbers}"
        assert [medium for medium, rendering in shown.items() if line in rendering] == ["plain"]
    assert "\n    → too few\n" in plain(document)
    assert "worth" not in shown["plain"]
    assert max(map(len, plain(document).partition("objectives ")[2].splitlines())) <= WIDTH


def test_each_medium_leaves_out_what_is_for_the_other() -> None:
    table = Table(("here", "there"), (("x1", "x2"),), detail=(1,))
    document = [
        Section(("Title",), (words("for all"),), level=1),
        section("A", words("of pages", only="page"), words("of terminals", only="terminal"), table),
        section("B", words("whole"), only="page"),
        section("C", Table(("only",), (("t3",),), only="terminal")),
    ]
    shown = _renderings(document)
    for medium in ("html", "markdown"):
        assert all(piece in shown[medium] for piece in ("for all", "of pages", "x1", "x2", "whole")), medium
        assert not any(piece in shown[medium] for piece in ("of terminals", "t3", "only")), medium
    assert shown["plain"] == "Title for all A of terminals here x1 C only t3"


@given(st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=6))
def test_columns_are_aligned(rows: list[tuple[str, str, str]]) -> None:
    """Words to the left and numbers to the right: every cell of a column begins, or ends, where its header does."""
    lines = plain([section("T", Table(("name", "number one", "number two"), tuple(rows)))]).splitlines()[2:]
    assert len(lines) == 1 + len(rows)
    ends = [lines[0].index("number one") + 10, len(lines[0])]
    widths = [max(len(row[place]) for row in rows) for place in range(3)]
    assert ends == [max(widths[0], 4) + 2 + max(widths[1], 10), ends[0] + 2 + max(widths[2], 10)]
    for line, row in zip(lines[1:], rows, strict=True):
        assert line.startswith(row[0])
        assert line[: ends[0]].endswith(row[1])
        assert line.endswith(row[2])


def test_a_table_that_is_too_wide() -> None:
    """A few rows become sentences with their headers; a long last cell stands below its row."""
    header = tuple(f"column {number}" for number in range(12))
    row = ("name", *(f"{number} ms" for number in range(11)))
    text = plain([section("T", Table(header, (row,)))])
    assert _shown(text) == "T name: " + ", ".join(
        f"{title} {cell}" for title, cell in zip(header[1:], row[1:], strict=True)
    )
    assert max(map(len, text.splitlines())) <= WIDTH
    remark = "a remark " * 12
    lines = plain([section("T", Table(("name", "why"), (("x", remark), ("y", "short")), last=1))]).splitlines()
    assert lines[2:4] == ["name  why", "x"]
    assert _shown(" ".join(lines[4:-1])) == remark.strip()
    assert lines[-1] == "y     short"


def test_lines_below_a_layer() -> None:
    """Nodes and tactics, in every medium."""
    rows = (("1", Named("conv", "for ", " (1 → 2)", ("nodes: a, b", "tactic: t"))),)
    shown = _renderings([section("T", Table(("#", "layer"), rows, last=1))])
    assert all(f"for conv (1 → 2){' ' if medium == 'plain' else ''}" in text for medium, text in shown.items())
    assert all("nodes: a, b" in text and "tactic: t" in text for text in shown.values())


def test_names_do_not_steer_a_terminal() -> None:
    run = altered(measured(), engine_name=HOSTILE, engine_device=HOSTILE, failure=HOSTILE, outcome="failed")
    text = terminal_text(run)
    assert all(line.isprintable() for line in text.split("\n"))
    assert text.count(r"\x1b[31m\n") >= 3


def test_an_empty_tile_is_no_line() -> None:
    """A headline whose numbers all stand in tables has no lines of its own."""
    assert plain([Section((Name("x"),), (Tiles((Tile("a", "1", detail=True),)),), level=1)]) == "\nx\n"


def test_every_format_has_its_function() -> None:
    """The table of formats: names and suffixes are unique, and each function makes text of a run."""
    suffixes = [suffix for known in FORMATS for suffix in known.suffixes]
    assert len(set(suffixes)) == len(suffixes)
    assert len({known.name for known in FORMATS}) == len(FORMATS)
    for known in FORMATS:
        assert known.text([loaded(measured())])
        assert all(format_of(f"REPORT{suffix.upper()}") is known for suffix in known.suffixes)
    assert format_of("run.pdf") is None


def test_a_run_of_several_models() -> None:
    """All models side by side first, then each with its load, its verdict and its findings; in every medium."""
    document = list(sections([loaded(two_models())]))
    assert ["".join(map(_text, item.title)).partition(":")[0] for item in document if item.level == 1] == [
        "Run of 2 models",
        "a",
        "b",
    ]
    for medium, rendering in _renderings(document).items():
        assert all(load in rendering for load in ("poisson at 200/s", "closed loop · batch 1")), medium
        assert "latency.p50 < 1ms" in rendering, medium
    assert [line for line in plain(document).splitlines() if line.startswith(("VALID", "INVALID"))] == [
        "VALID · objectives missed",
        f"VALID · objectives {measured().verdict}",
        "VALID · objectives missed",
        "VALID · objectives missed",
    ]
    assert plain(document).endswith("\n\nAll models\nVALID · objectives missed\n")
    assert [medium for medium, text in _renderings(document).items() if "All models" in text] == ["plain"]


def test_sweeps_and_searches_say_how_the_batch_was_decided() -> None:
    """Each note once, and none of what else an engine says."""
    engine, why = measured().model.engine, "the first size of x"
    one, two = (replace(engine, batch_from=why, notes=(f"batch {n}: {why}", "lifted")) for n in (2, 4))
    lines = [line for block in noted([one, None, two, one, engine]) for line in block.pieces]
    assert lines == [f"batch 2: {why}", f"batch 4: {why}"]
