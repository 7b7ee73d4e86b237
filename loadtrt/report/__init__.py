"""Results as text, and the formats of `loadtrt report`.

*_sections.py make a result's document (document.py: sections of blocks); plain.py, markdown.py and html.py write any
document; the other modules export results in formats of other programs. A new format is a file with its function, and a
line in FORMATS. A function takes the results and returns the text; it raises UsageError for results that it has no
place for. A renderer writes `sections(loaded)` (sections.py) in its own way; an export takes the results themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from loadtrt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadtrt.report.result_files import Loaded
    from loadtrt.results.run_result import RunResult


@dataclass(frozen=True, slots=True)
class Format:
    """A format of reports.

    name: what --format calls it.
    suffixes: of the names of its files; the first is the usual one.
    function: "module:function", which is imported when used.
    one_run: the function takes a run's result rather than any results with their files' names.
    content: what a file of this format holds, as cli/outputs.py calls it.
    """

    name: str
    suffixes: tuple[str, ...]
    function: str
    summary: str
    one_run: bool = False
    content: str = "text"

    def text(self, loaded: Sequence[Loaded]) -> str:
        """The results in this format. Raises UsageError."""
        module, _, name = self.function.partition(":")
        function: Callable[[Any], str] = getattr(import_module(f"loadtrt.report.{module}"), name)
        return function(_only_run(loaded, self.name) if self.one_run else loaded)


FORMATS = (
    Format(
        "html",
        (".html", ".htm"),
        "html:html_text",
        "One page that needs no network: charts, findings, tables.",
        content="HTML",
    ),
    Format("md", (".md", ".markdown"), "markdown:markdown_text", "Markdown, for a pull request."),
    Format("txt", (".txt",), "plain:plain_text", "Plain text, as commands show it."),
    Format(
        "csv", (".csv",), "csv_lines:csv_text", "A line for each run, point and trial.", content="a table of results"
    ),
    Format(
        "hlog",
        (".hlog",),
        "hdr:hdr_log",
        "HdrHistogram's interval log, of one run.",
        one_run=True,
        content="a histogram log",
    ),
    Format(
        "trace",
        (".trace.json", ".perfetto.json"),
        "perfetto:trace_json",
        "A trace for ui.perfetto.dev, of one run.",
        one_run=True,
        content="a trace for Perfetto",
    ),
)


def format_of(file: str) -> Format | None:
    """The format that a file's suffix says; of suffixes that fit the longest one counts."""
    fitting = [(len(suffix), known) for known in FORMATS for suffix in known.suffixes if file.lower().endswith(suffix)]
    return max(fitting, key=lambda pair: pair[0])[1] if fitting else None


def _only_run(loaded: Sequence[Loaded], format_: str) -> RunResult:
    from loadtrt.report.result_files import one_model
    from loadtrt.results.run_result import RunResult

    run = loaded[0].result
    if len(loaded) > 1 or not isinstance(run, RunResult):
        given = f"here are {len(loaded)} files" if len(loaded) > 1 else f"{loaded[0].file} is not a run"
        raise UsageError(f"{format_} is of one run, and {given}: give one run.json")
    return one_model(run, loaded[0].file, "this format is of one model")
