"""Results as text, and the formats of `loadtrt report`.

*_sections.py make a result's document (document.py: sections of blocks); plain.py, markdown.py and html.py write any
document; the other modules export results in formats of other programs. A new format is a file with its function, and a
line in FORMATS. A renderer takes a document's title and sections; an export takes the results themselves, and raises
UsageError for those that it has no place for.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from loadtrt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadtrt.report.document import Section
    from loadtrt.report.result_files import Loaded
    from loadtrt.results.run_result import RunResult


@dataclass(frozen=True, slots=True)
class Format:
    """A format of reports.

    name: what --format calls it.
    suffixes: of the names of its files; the first is the usual one.
    function: "module:function", which is imported when used.
    renders: the function takes a document's title and sections rather than results.
    one_run: the function takes a run's result rather than any results with their files' names.
    content: what a file of this format holds, as cli/outputs.py calls it.
    """

    name: str
    suffixes: tuple[str, ...]
    function: str
    summary: str
    one_run: bool = False
    content: str = "text"
    renders: bool = False

    def text(self, loaded: Sequence[Loaded]) -> str:
        """The results in this format. Raises UsageError."""
        if self.renders:
            from loadtrt.report.sections import sections, title_of

            return self.document(title_of(loaded), list(sections(loaded)))
        return _imported(self.function)(_only_run(loaded, self.name) if self.one_run else loaded)

    def document(self, title: str, sections: Sequence[Section]) -> str:
        """A document in this format, which renders."""
        return _imported(self.function)(title, sections)


FORMATS = (
    Format(
        "html",
        (".html", ".htm"),
        "html:html_page",
        "One page that needs no network: charts, findings, tables.",
        content="HTML",
        renders=True,
    ),
    Format("md", (".md", ".markdown"), "markdown:markdown_page", "Markdown, for a pull request.", renders=True),
    Format("txt", (".txt",), "plain:plain_page", "Plain text, as commands show it.", renders=True),
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
    Format(
        "flat",
        (".metrics.json",),
        "flat_json:metrics_json",
        "Numbers by name, for MLflow's log_metrics and W&B's log.",
        content="JSON",
    ),
    Format(
        "flat-params",
        (".params.json",),
        "flat_json:params_json",
        "What was measured, for MLflow's log_params and W&B's config.",
        content="JSON",
    ),
    Format(
        "benchmark-action",
        (".smaller.json",),
        "benchmark_action:smaller_json",
        "Times for github-action-benchmark's customSmallerIsBetter.",
        content="JSON",
    ),
    Format(
        "benchmark-action-bigger",
        (".bigger.json",),
        "benchmark_action:bigger_json",
        "Rates for its customBiggerIsBetter.",
        content="JSON",
    ),
)


def format_of(file: str) -> Format | None:
    """The format that a file's suffix says; of suffixes that fit the longest one counts."""
    fitting = [(len(suffix), known) for known in FORMATS for suffix in known.suffixes if file.lower().endswith(suffix)]
    return max(fitting, key=lambda pair: pair[0])[1] if fitting else None


def chosen_format(target: str, name: str | None = None, among: Sequence[Format] = FORMATS) -> Format:
    """The format of an output, by its name or the output's suffix; Markdown on stdout. Raises UsageError where neither
    names one of these."""
    if name is None and target == "-":
        name = "md"
    wanted = next((known for known in among if known.name == name), None) if name is not None else format_of(target)
    if wanted is None or wanted not in among:
        suffixes = ", ".join(known.suffixes[0] for known in among)
        more = ", or add --format" if among is FORMATS else ""
        raise UsageError(f"-o {target} has no suffix of a format: write {suffixes}{more}")
    return wanted


def _imported(name: str) -> Callable[..., str]:
    module, _, function = name.partition(":")
    imported: Callable[..., str] = getattr(import_module(f"loadtrt.report.{module}"), function)
    return imported


def _only_run(loaded: Sequence[Loaded], format_: str) -> RunResult:
    from loadtrt.report.result_files import one_model
    from loadtrt.results.run_result import RunResult

    run = loaded[0].result
    if len(loaded) > 1 or not isinstance(run, RunResult):
        given = f"here are {len(loaded)} files" if len(loaded) > 1 else f"{loaded[0].file} is not a run"
        raise UsageError(f"{format_} holds one run, and {given}: give one run.json")
    return one_model(run, loaded[0].file, "this format holds one model")
