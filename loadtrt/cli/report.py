"""`loadtrt report`: finished results as a page, a comment, a table or another program's file."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from loadtrt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.report.page.report import Loaded

# Suffixes, each with its format; a longer one counts before a shorter.
_SUFFIXES = {
    ".trace.json": "trace",
    ".perfetto.json": "trace",
    ".html": "html",
    ".htm": "html",
    ".md": "md",
    ".markdown": "md",
    ".csv": "csv",
    ".hlog": "hlog",
}
_FORMATS = ("html", "md", "csv", "hlog", "trace")


@click.command("report", short_help="Write results as a page, for a pull request, or as a table.")
@click.argument("files", metavar="FILE…", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "-o", "--output", "outputs", multiple=True, metavar="FILE|-", help="Where to write (repeatable); - is stdout."
)
@click.option(
    "--format", "format_", type=click.Choice(_FORMATS), help="Where the suffix says none.  [default: md on stdout]"
)
def command(files: tuple[Path, ...], outputs: tuple[str, ...], format_: str | None) -> None:
    """Write results, of loadtrt run, sweep, capacity, plan-capacity and profile, in the format that the suffix says.

    \b
    loadtrt report run.json -o run.html               one page that needs no network: charts, findings, tables
    loadtrt report before.json after.json -o both.html             runs side by side, then each
    loadtrt report capacity.json -o report.html -o report.md -o trials.csv
    loadtrt report run.json -o run.hlog               HdrHistogram's log
    loadtrt report run.json -o run.trace.json         for ui.perfetto.dev
    """
    from loadtrt.cli.delivery import Delivery

    targets = {target: _format_of(target, format_) for target in outputs or ("-",)}
    _check(files, outputs or ("-",))
    loaded = [load(file) for file in files]
    texts = {format_: _text(loaded, format_) for format_ in dict.fromkeys(targets.values())}
    delivery = Delivery()
    for target, wanted in targets.items():
        delivery.make(target, partial(texts.__getitem__, wanted))
    delivery.finish()


def _format_of(target: str, wanted: str | None) -> str:
    """What to write there. Raises UsageError where neither the name nor the option says."""
    if wanted is not None:
        return wanted
    if target == "-":
        return "md"
    for suffix, format_ in _SUFFIXES.items():
        if target.lower().endswith(suffix):
            return format_
    suffixes = ", ".join(suffix for suffix in _SUFFIXES if suffix not in (".htm", ".markdown", ".perfetto.json"))
    raise UsageError(f"-o {target}: the suffix says no format: name it {suffixes}, or add --format")


def _check(files: Sequence[Path], outputs: Sequence[str]) -> None:
    """Say now what cannot be written, before anything is read."""
    from loadtrt.cli.options import require_targets

    if outputs.count("-") > 1 or len(set(outputs)) < len(outputs):
        raise UsageError("two outputs are the same: give each its own -o")
    for output in outputs:
        require_targets({"-o": None if output == "-" else output})
    written = {Path(output).resolve() for output in outputs if output != "-"}
    if len(written) < sum(output != "-" for output in outputs):
        raise UsageError("two outputs are the same file by different names: give each its own -o")
    for file in files:
        if file.resolve() in written:
            raise UsageError(f"-o {file} is one of the results: the report would take its place; name another file")


def load(file: Path) -> Loaded:
    """A result of any kind that a report is made of. Raises UsageError."""
    from loadtrt.report.documents import SCHEMAS, read_document, read_result
    from loadtrt.report.page.report import Loaded

    document = read_document(file)
    if document.kind not in SCHEMAS:
        kinds = "a run, a sweep, a search for capacity, a plan of a fleet or a profile"
        raise UsageError(f"{file} is {document.kind}, of which there is no report: give {kinds} of loadtrt")
    return Loaded(str(file), read_result(SCHEMAS[document.kind], document))


def _text(loaded: Sequence[Loaded], format_: str) -> str:
    """All results in one format. Raises UsageError for results that it has no place for."""
    from loadtrt.measure.result import RunResult

    match format_:
        case "html":
            from loadtrt.report.page.report import html_text

            return html_text(loaded)
        case "md":
            from loadtrt.report.page.report import markdown_text

            return markdown_text(loaded)
        case "csv":
            from loadtrt.report.csv_lines import csv_text

            return csv_text(loaded)
    run = loaded[0].result
    if len(loaded) > 1 or not isinstance(run, RunResult):
        given = f"here are {len(loaded)} files" if len(loaded) > 1 else f"{loaded[0].file} is none"
        raise UsageError(f"{format_} is of one run, and {given}: give one run.json")
    if format_ == "hlog":
        from loadtrt.report.hdr import hdr_log

        return hdr_log(run)
    from loadtrt.report.perfetto import trace_json

    return trace_json(run)
