"""`loadtrt report`: formats by suffix, several outputs at once, and what cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from loadtrt.cli.main import cli
from loadtrt.cli.report import command
from loadtrt.errors import UsageError
from loadtrt.report.csv_lines import COLUMNS
from reported import OBJECTIVE, every_kind, measured, two_models

if TYPE_CHECKING:
    from collections.abc import Callable

    Save = Callable[[str, Any], str]


@pytest.fixture
def save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Save:
    """Writes a result, or text, into the working folder, and gives the file's name."""
    monkeypatch.chdir(tmp_path)

    def write(name: str, content: Any) -> str:
        Path(name).write_text(content if isinstance(content, str) else content.model_dump_json())
        return name

    return write


def _report(*arguments: str) -> str:
    return CliRunner().invoke(command, arguments, catch_exceptions=False).stdout


def test_the_suffix_says_the_format(save: Save) -> None:
    """Each output in its own, from one reading."""
    run = save("run.json", measured())
    assert _report(run, "-o", "a.html", "-o", "a.MD", "-o", "a.csv", "-o", "a.hlog", "-o", "a.trace.json") == ""
    assert Path("a.html").read_text().startswith("<!DOCTYPE html>")
    assert Path("a.MD").read_text().startswith("## ")
    assert Path("a.csv").read_text().startswith(",".join(COLUMNS))
    assert Path("a.hlog").read_text().startswith("#")
    assert json.loads(Path("a.trace.json").read_text())


@pytest.mark.parametrize(
    "arguments",
    [
        ("report", "-o", "a.hlog", "both.json"),
        ("report", "-o", "a.trace.json", "both.json"),
        ("export", "openmetrics", "both.json"),
        ("compare", "both.json", "run.json"),
        ("compare", "run.json", "both.json"),
        ("plan-capacity", "both.json", "--demand", "100/s", "--objective", OBJECTIVE),
    ],
)
def test_a_run_of_several_models_is_refused(arguments: tuple[str, ...], save: Save) -> None:
    """Where one model is needed, with the names of the models."""
    save("both.json", two_models())
    save("run.json", measured())
    done = CliRunner().invoke(cli, arguments, standalone_mode=False)
    assert isinstance(done.exception, UsageError)
    assert str(done.exception).startswith("both.json has several models (a, b): ")


def test_stdout(save: Save) -> None:
    """Markdown unless another format is asked for."""
    run = save("run.json", measured())
    assert _report(run) == _report(run, "-o", "-") == _report(run, "--format", "md")
    assert _report(run).startswith("## ")
    assert _report(run, "-o", "-", "--format", "csv").startswith("file,kind")
    assert _report(run, "-o", "x", "--format", "html") == ""
    assert Path("x").read_text().startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    "kind", ["run", "repeat", "sweep", "capacity", "interference", "fleet", "placement", "profile", "comparison"]
)
def test_every_kind_of_result(kind: str, save: Save) -> None:
    """Told by what is in the file."""
    name = save("x.json", every_kind()[kind])
    assert _report(name, "-o", "x.html") == ""
    assert "</html>" in Path("x.html").read_text()


def test_the_same_results_make_the_same_page(save: Save) -> None:
    """Nothing of today is in it."""
    names = [save("a.json", measured()), save("b.json", every_kind()["capacity"])]
    assert _report(*names, "--format", "html") == _report(*names, "--format", "html")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("run.json", "-o", "x.pdf"),
            "-o x.pdf has no suffix of a format: write .html, .md, .txt, .csv, .hlog, .trace.json",
        ),
        (("run.json", "-o", "x"), "has no suffix of a format"),
        (("nowhere.json", "-o", "x.html"), "cannot read nowhere.json: No such file"),
        (("text.json", "-o", "x.html"), "text.json is not JSON: give a result that --json wrote"),
        (("cut.json", "-o", "x.html"), "cut.json is not JSON .*: it may be cut off"),
        (("huge.json", "-o", "x.html"), "1e999 is too large"),
        (("other.json", "-o", "x.html"), "other.json is JSON, but neither a run of loadtrt"),
        (("old.json", "-o", "x.html"), "old.json does not fit its schema loadtrt.run/1"),
        (("times.json", "-o", "x.html"), "times.json is times in trtexec's format .*, which has no report"),
        (("run.json", "-o", "nowhere/x.html"), "-o nowhere/x.html: there is no folder nowhere"),
        (("run.json", "-o", "folder.html"), "-o folder.html is a folder"),
        (("run.json", "-o", "x.html", "-o", "x.html"), "two outputs are the same: give each its own -o"),
        (("run.json", "-o", "x.html", "-o", "./x.html"), "-o ./x.html and -o x.html name the same file"),
        (("run.json", "-o", "-", "-o", "-"), "two outputs are the same"),
        (
            ("run.json", "-o", "run.json", "--format", "html"),
            "-o run.json is read by this command",
        ),
        (("run.json", "run.json", "-o", "x.hlog"), "hlog holds one run, and here are 2 files: give one run.json"),
        (("profile.json", "-o", "x.trace.json"), "trace holds one run, and profile.json is not a run"),
        (("profile.json", "-o", "x.csv"), "profile.json has no runs, points or trials"),
    ],
)
def test_what_cannot_be_reported(arguments: tuple[str, ...], sentence: str, save: Save) -> None:
    """One sentence that says what is wrong, where and what to do; and nothing was written."""
    run = save("run.json", measured())
    save("text.json", "hello")
    save("cut.json", Path(run).read_text()[:-20])
    save("huge.json", Path(run).read_text().replace('"host_cores":', '"host_cores":1e999,"x":'))
    save("other.json", '{"a": 1}')
    save("old.json", '{"schema_version": "loadtrt.run/1"}')
    save("times.json", '[{"startEnqMs": 1}]')
    save("profile.json", every_kind()["profile"])
    Path("folder.html").mkdir()
    before = {path: path.stat().st_mtime_ns for path in Path().iterdir()}
    with pytest.raises(UsageError, match=sentence):
        _report(*arguments)
    assert {path: path.stat().st_mtime_ns for path in Path().iterdir()} == before
