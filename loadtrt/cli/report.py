"""`loadtrt report`: finished results in the formats of loadtrt.report."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from loadtrt.cli.options import FORCE_HELP
from loadtrt.cli.outputs import Output, require_outputs
from loadtrt.errors import UsageError
from loadtrt.report import FORMATS, chosen_format

_FORMATS = "\n".join(f"{known.suffixes[0]:<15}{known.name:<25}{known.summary}" for known in FORMATS)


@click.command(
    "report",
    short_help="Write results as a page, for a pull request, or as a table.",
    epilog=f"\b\nFormats by suffix and by name:\n{_FORMATS}",
)
@click.argument("files", metavar="FILE…", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "-o", "--output", "outputs", multiple=True, metavar="FILE|-", help="File to write; - is stdout (repeatable)."
)
@click.option(
    "-f",
    "--format",
    "format_",
    type=click.Choice([known.name for known in FORMATS]),
    help="Format of the outputs.  [default: by the suffix; md on stdout]",
)
@click.option("--force", is_flag=True, help=FORCE_HELP)
def command(files: tuple[Path, ...], outputs: tuple[str, ...], format_: str | None, force: bool) -> None:
    """Write results of all commands that measure, and fleet plans, as a page, Markdown, a table or a trace.

    \b
    loadtrt report run.json -o run.html
    loadtrt report before.json after.json -o both.html      (runs compared, side by side, then each of them)
    loadtrt report capacity.json -o report.html -o report.md -o trials.csv
    """
    from loadtrt.cli.delivery import Delivery
    from loadtrt.report.result_files import load

    outputs = outputs or ("-",)
    targets = {target: chosen_format(target, format_) for target in outputs}
    if len(targets) < len(outputs):
        raise UsageError("two outputs are the same: give each its own -o")
    require_outputs([Output("-o", name, wanted.content) for name, wanted in targets.items()], files, force=force)
    loaded = [load(file) for file in files]
    texts = {wanted.name: wanted.text(loaded) for wanted in targets.values()}
    delivery = Delivery(measured=False)
    for target, wanted in targets.items():
        delivery.make(target, partial(texts.__getitem__, wanted.name))
    delivery.finish()
