"""`loadtrt merge`: one result of the results of a fleet's workers."""

from __future__ import annotations

from pathlib import Path

import click

from loadtrt.cli.options import FORCE_HELP
from loadtrt.cli.outputs import Output, require_outputs
from loadtrt.errors import UsageError


@click.command("merge", short_help="Merge the results of a fleet's workers into one.")
@click.argument("files", metavar="FILE…", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--json", "json_file", metavar="FILE|-", help="Write the whole result as JSON; - is stdout.")
@click.option("--junit", metavar="FILE", help="Write validity and objectives as JUnit XML, one test each.")
@click.option("--quiet", is_flag=True, help="Print no summary.")
@click.option("--force", is_flag=True, help=FORCE_HELP)
def command(files: tuple[Path, ...], json_file: str | None, junit: str | None, quiet: bool, force: bool) -> int:
    """Merge the results of a fleet's workers, which `loadtrt run --worker` wrote, into one.

    \b
    loadtrt run --engine g.plan --rate 4000/s --worker 0/2 --start-at 2026-11-29T16:00:00Z --json 0.json   (one host)
    loadtrt run --engine g.plan --rate 4000/s --worker 1/2 --start-at 2026-11-29T16:00:00Z --json 1.json   (another)
    loadtrt merge 0.json 1.json --json fleet.json

    Workers without a result are lost: the measurements of the others are kept, and the exit code is 3.
    """
    from loadtrt.cli.delivery import Delivery, json_of, say_verdict, show_beside
    from loadtrt.cli.running import exit_code
    from loadtrt.printing import say
    from loadtrt.report.junit import run_junit
    from loadtrt.report.plain import terminal_text
    from loadtrt.report.result_files import NoResultError, read_result
    from loadtrt.results.run_result import RunResult
    from loadtrt.stats.merging import merge

    if len(set(files)) < len(files):
        raise UsageError("a file is given twice: give each worker's once")
    require_outputs([Output("--json", json_file, "a run"), Output("--junit", junit, "XML")], files, force=force)
    results, failed = {}, []
    for file in files:
        try:
            results[str(file)] = read_result(RunResult, file)
        except NoResultError as error:  # of a worker that is lost
            failed.append(error)
    if not results:
        raise failed[0]
    for why in failed:
        say(str(why))
    result = merge(results)
    delivery = Delivery(measured=False)
    delivery.make(json_file, lambda: json_of(result))
    delivery.make(junit, lambda: run_junit(result))
    if not quiet:
        show_beside(json_file, terminal_text(result))
    if result.failure is not None:
        say(result.failure)
    delivery.finish()
    return say_verdict(result, exit_code(result), quiet=quiet)
