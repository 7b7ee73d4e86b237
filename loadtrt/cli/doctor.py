"""`loadtrt doctor`: what this machine can run, what is broken, and how to repair it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from loadtrt.errors import EngineError
from loadtrt.files import write_file
from loadtrt.printing import NAME, SENTENCE, printable, printable_json

if TYPE_CHECKING:
    from loadtrt.doctor import Report

_COLOURS = {"ok": "green", "info": "dim", "warn": "yellow", "fail": "bold red"}
_NAME_WIDTH = 18


@click.command("doctor", short_help="Check what this machine can run.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole report as JSON.")
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """Examine this machine: packages, host, driver, GPUs, TensorRT, permissions.

    A machine without a GPU is not a failure: ONNX models and simulated engines run there. Exits with 3 when something
    that is installed is broken, else with 0. Opens a CUDA context on each visible GPU for a moment.
    """
    from loadtrt.doctor import examine

    report = examine()
    if as_json:
        write_file("-", printable_json(json.dumps(report.as_dict(), indent=2, ensure_ascii=False)) + "\n")
    else:
        _show(report)
    if report.failed:
        context.exit(EngineError.exit_code)


def _show(report: Report) -> None:
    """One line a check, its remedy below it. Statuses are words, so that nothing is lost without colour."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, emoji=False, soft_wrap=False)
    for group in report.groups:
        console.print(Text(printable(group.title, NAME), style="bold"))
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(width=4)
        table.add_column(width=_NAME_WIDTH, overflow="fold")
        table.add_column(overflow="fold")
        for check in group.checks:
            found, remedy = (Text(printable(text, SENTENCE)) for text in (check.found, check.remedy))
            status = check.status.upper() if check.status == "fail" else check.status
            table.add_row(Text(status, style=_COLOURS[check.status]), Text(check.name), found)
            if check.remedy:
                table.add_row("", Text("remedy", justify="right", style=_COLOURS[check.status]), remedy)
        console.print(table)
        console.print()
    console.print(Text(report.verdict, style="bold"))
