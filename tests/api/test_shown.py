"""Results in a notebook, printed, written and as tables of pandas."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import html5lib
import numpy as np
import pandas as pd
import pytest

import loadtrt
from command_line import loadtrt as command
from loadtrt.records.records import METRICS
from loadtrt.report.plain import terminal_text
from reported import HOSTILE, altered, every_kind, whole_run
from runs_by_hand import engine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

VIRTUAL: dict[str, Any] = {"engine": "simulated:service=5ms,clock=virtual", "warmup": 0}
KINDS = (
    *("run", "repeat", "sweep", "capacity", "interference", "fleet", "placement", "profile", "comparison"),
    "runs compared",
)


def _result(kind: str) -> Any:
    if kind == "runs compared":
        run = loadtrt.run(**VIRTUAL, requests=500)
        return loadtrt.compare(run, loadtrt.run(**VIRTUAL, requests=500, seed=2), fail_if="latency.p99 +5%")
    return every_kind()[kind]


class _Tags(HTMLParser):
    """The tags of a fragment, with their attributes, and its words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_shows_itself_in_a_notebook(kind: str) -> None:
    """One faultless element without scripts, style sheets or addresses, whose styles are its own; and small."""
    text = _result(kind)._repr_html_()
    html5lib.HTMLParser(strict=True).parseFragment(text)
    tags = _Tags(text).tags
    assert tags[0] == ("div", {"class": "loadtrt", **{k: v for k, v in tags[0][1].items() if k == "style"}})
    assert {tag for tag, _ in tags} <= {
        "div",
        "b",
        "span",
        "code",
        "table",
        "tr",
        "th",
        "td",
        "br",
        "details",
        "summary",
    }
    assert {name for _, attributes in tags[1:] for name in attributes} <= {"style"}
    assert len(text.encode()) < 32_000


def test_a_notebook_shows_what_decides() -> None:
    """The verdict, the numbers of the headline, and what is wrong."""
    run = loadtrt.run(**VIRTUAL, requests=500, objective="latency.p99 < 1ms")
    words = _Tags(run._repr_html_()).words.replace("\xa0", " ").replace("\u202f", " ")
    assert run.verdict == "missed"
    for told in ("VALID", "latency p50", "5.00 ms", "latency.p99", "simulated device"):
        assert told in words, words


def test_names_of_others_are_text() -> None:
    """Whatever an engine is called."""
    run = altered(whole_run(), engine=engine(name=HOSTILE))
    tags = _Tags(run._repr_html_())
    assert "script" not in {tag for tag, _ in tags.tags}
    assert "<script>alert(1)</script>" in tags.words
    assert "\x1b" not in run._repr_html_() + str(run)


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_is_printed_as_its_command_shows_it(kind: str) -> None:
    """And what takes no HTML gets the same text; repr() is a line."""
    result = _result(kind)
    assert str(result) == terminal_text(result).strip("\n")
    assert result._repr_markdown_() == f"```text\n{result}\n```"
    assert repr(result).startswith(type(result).__name__ + "(")
    assert "\n" not in repr(result)
    assert len(repr(result)) < 300


# --- written


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_is_written_as_report_writes_it(kind: str, tmp_path: Path) -> None:
    """By the suffix of the file; of a comparison of runs too, which was read."""
    result = _result(kind)
    result.write(tmp_path / "x.json")
    for suffix in (".html", ".md", ".txt"):
        result.write(tmp_path / f"a{suffix}")
        done = command("report", "x.json", "-o", f"b{suffix}", folder=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        written, reported = ((tmp_path / f"{name}{suffix}").read_text() for name in "ab")
        assert written == reported.replace("x.json", type(result).__name__)


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (lambda result, folder: result.write(folder / "x.pdf"), "has no suffix of a format: write .json, .html"),
        (lambda result, folder: result.write(folder / "x"), "has no suffix of a format"),
        (lambda result, _: result.write("-"), "has no suffix of a format"),
        (lambda result, folder: result.write(folder / "gone" / "x.json"), "cannot write"),
        (lambda result, folder: result.write(folder / "g.json"), "holds a plan, which would be overwritten"),
        (lambda _, folder: every_kind()["fleet"].write(folder / "x.csv"), "no runs, points or trials"),
    ],
)
def test_what_cannot_be_written_is_one_sentence(
    write: Callable[[Any, Path], None], sentence: str, tmp_path: Path
) -> None:
    """And changes no file."""
    plan = tmp_path / "g.json"
    plan.write_bytes(b"ftrt\0\0")
    with pytest.raises(loadtrt.UsageError, match=sentence):
        write(whole_run(), tmp_path)
    assert plan.read_bytes() == b"ftrt\0\0"
    whole_run().write(plan, force=True)
    whole_run().write(plan)  # over what it wrote
    assert loadtrt.read(plan) == whole_run()


# --- tables


TABLES = {
    "run": ("seconds", "slowest", "summary"),
    "repeat": ("summary",),
    "sweep": ("points",),
    "capacity": ("trials",),
    "interference": ("cells",),
    "fleet": ("predictions",),
    "placement": ("placements",),
    "profile": ("layers",),
    "comparison": ("layers",),
    "runs compared": ("ratios",),
}


@pytest.mark.parametrize("kind", KINDS)
def test_tables_have_types_that_compute(kind: str) -> None:
    """Every table of a result; numbers are numbers, whatever is unknown, and the first one is the usual one."""
    result = _result(kind)
    for name in TABLES[kind]:
        frame = result.to_pandas(name)
        assert len(frame) > 0
        assert len(set(frame.columns)) == len(frame.columns)
        for column in frame.columns:
            if column.endswith(("_ns", "_per_s", "_ratio", "_joules", "_watts")):
                assert pd.api.types.is_numeric_dtype(frame[column]), column
                frame[column].mean()
    pd.testing.assert_frame_equal(result.to_pandas(), result.to_pandas(TABLES[kind][0]))


def test_records_are_the_requests() -> None:
    """All of them, in ns from the start of measuring, with the metrics that a result sums up."""
    run = loadtrt.run(engine="simulated:service=5ms,clock=virtual,error=0.1", warmup=0, requests=300, contexts=2)
    frame = run.to_pandas("records")
    assert len(frame) == run.model.submitted == 300
    assert frame["status"].value_counts().to_dict() == {
        "ok": run.model.ok, "failed": run.model.failed, "unserved": 0, "dropped": 0,
    }  # fmt: skip
    served = frame[frame["status"] == "ok"]
    for name in ("latency", "queue", "service"):
        summary = run.model.metrics[name]
        assert served[f"{name}_ns"].max() == summary.max_ns
        assert served[f"{name}_ns"].mean() == pytest.approx(summary.mean_ns)
        assert frame.loc[frame["status"] == "failed", f"{name}_ns"].isna().all()
    assert (served["completed_ns"] - served["due_ns"] == served["latency_ns"]).all()
    assert frame["due_ns"].min() == 0
    assert {str(frame[column].dtype) for column in ("due_ns", "lane", "inputs")} == {"int64"}
    assert {metric.name for metric in METRICS} > {"latency", "queue", "service"}


def test_slowest_are_the_records_that_a_file_keeps(tmp_path: Path) -> None:
    """Of a result that was read, and the same as of the one that was made."""
    run = loadtrt.run(**VIRTUAL, requests=300)
    run.write(tmp_path / "x.json")
    back = loadtrt.read(tmp_path / "x.json")
    pd.testing.assert_frame_equal(back.to_pandas("slowest"), run.to_pandas("slowest"))
    pd.testing.assert_frame_equal(back.to_pandas("slowest"), run.to_pandas("records"))  # few enough
    with pytest.raises(loadtrt.UsageError, match="this result has no records: it was read from a file"):
        back.to_pandas("records")


def test_seconds_sum_up_to_the_run() -> None:
    """A row for each second, none left out."""
    run = loadtrt.run(**VIRTUAL, duration="4s", contexts=2)
    frame = run.to_pandas("seconds")
    assert frame["requests"].sum() == run.model.ok
    assert frame["start_ns"].tolist() == [second * 10**9 for second in range(len(frame))]
    assert frame["latency_max_ns"].max() == run.model.metrics["latency"].max_ns
    assert str(frame["throttled"].dtype) == "boolean"


def test_points_name_their_axes() -> None:
    """Those that the table of `report` has no column for, too."""
    swept = loadtrt.sweep(**VIRTUAL, duration="1s", rate=[50, 100], max_queue=[1, 2])
    frame = swept.to_pandas()
    assert frame["max_queue"].tolist() == [1, 1, 2, 2]
    assert frame["rate_per_s"].tolist() == [50, 100, 50, 100]
    assert frame["contexts"].tolist() == [1] * 4


def test_trials_are_all_runs_of_a_search() -> None:
    """In the order in which they were made."""
    found = _result("capacity")
    frame = found.to_pandas("trials")
    trials = [trial for candidate in found.candidates for trial in candidate.trials]
    assert frame["trial"].tolist() == [trial.kind for trial in trials]
    assert frame["in_flight"].isna().tolist() == [trial.in_flight is None for trial in trials]


@pytest.mark.parametrize("table", ["secnds", 3, "trials"])
def test_a_table_that_is_not_there_is_one_sentence(table: Any) -> None:
    """With the nearest one, or all."""
    with pytest.raises(loadtrt.UsageError, match="has no table") as caught:
        whole_run().to_pandas(table)
    assert "'seconds'" in str(caught.value) or "it has seconds, records" in str(caught.value)


def test_without_pandas_there_is_one_sentence() -> None:
    """And all else works."""
    code = (
        "import sys; sys.modules['pandas'] = None\n"
        "import loadtrt\n"
        "run = loadtrt.run(engine='simulated:service=5ms,clock=virtual', warmup=0, requests=10)\n"
        "assert run._repr_html_() and str(run)\n"
        "try: run.to_pandas()\n"
        "except loadtrt.UsageError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "to_pandas needs pandas, which is not installed: pip install 'loadtrt[pandas]'\n"


def test_a_comparison_says_what_the_command_says(tmp_path: Path) -> None:
    """All of it, as do the comparison that is read and its report: what differs, labels too, and that throughput is the
    load."""
    for name, rate in (("a", 100), ("b", 150)):
        loadtrt.run(**VIRTUAL, duration="2s", rate=rate, label={"build": name}).write(tmp_path / f"{name}.json")
    files = tmp_path / "a.json", tmp_path / "b.json"
    done = command("compare", *files, "--fail-if", "latency.p50 +5%", "--json", "c.json", folder=tmp_path)
    compared, back = loadtrt.compare(*files, fail_if="latency.p50 +5%"), loadtrt.read(tmp_path / "c.json")
    assert back == compared
    assert str(back) == str(compared) == done.stdout.strip("\n")
    said = " ".join(str(back).split())
    assert "rate 100 / 150 · label build a / b" in said
    assert "A: offered 100 requests/s: throughput is the load, not the capacity" in said
    back.write(tmp_path / "c.md")
    (row,) = (line for line in (tmp_path / "c.md").read_text().splitlines() if line.startswith("| requests/s |"))
    assert row.endswith("| **the load** |")


def test_results_that_are_compared_are_told_by_what_they_are() -> None:
    """Without files there are no names."""
    runs = [loadtrt.run(**VIRTUAL, requests=500, seed=seed) for seed in (1, 2)]
    first = str(loadtrt.compare(*runs)).splitlines()[1]
    assert first == f"  A  {VIRTUAL['engine']}, 500 requests, batch 1"


def test_runs_compared_are_a_report_of_their_own(tmp_path: Path) -> None:
    """What `compare --json` wrote, with the names of the files that it compared."""
    for name in "ab":
        loadtrt.run(**VIRTUAL, requests=500).write(tmp_path / f"{name}.json")
    done = command("compare", "a.json", "b.json", "--json", "c.json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    shown = str(loadtrt.read(tmp_path / "c.json"))
    assert "A  a.json" in shown
    assert "B  b.json" in shown
    assert np.isfinite(loadtrt.read(tmp_path / "c.json").to_pandas()["ratio"]).any()
