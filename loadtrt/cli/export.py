"""`loadtrt export`: a finished run in the formats of other programs."""

from __future__ import annotations

from pathlib import Path

import click

from loadtrt.cli.options import FORCE_HELP
from loadtrt.cli.outputs import Output, require_outputs


@click.group("export", short_help="Write a finished run in the format of another program.")
def command() -> None:
    """Write a finished run in the format of another program."""


@command.command("openmetrics", short_help="OpenMetrics, for Prometheus and Grafana.")
@click.argument("run_json", metavar="RUN.JSON", type=click.Path(path_type=Path))
@click.option("-o", "--output", default="-", metavar="FILE", help="File to write.  [default: stdout]")
@click.option(
    "--run",
    default="",
    metavar="NAME",
    help="Value of the label `run`, by which dashboards select a run.  [default: the run's id]",
)
@click.option("--force", is_flag=True, help=FORCE_HELP)
def openmetrics(run_json: Path, output: str, run: str, force: bool) -> None:
    """Write RUN.JSON, of `loadtrt run --json`, as OpenMetrics with timestamps, for Prometheus and Grafana.

    \b
    loadtrt export openmetrics run.json -o run.om
    promtool tsdb create-blocks-from openmetrics run.om DATA      (Prometheus' --storage.tsdb.path)

    Metrics have the names and labels of the live exporter, so that the same dashboards show the run.
    """
    from loadtrt.files import write_file
    from loadtrt.report.openmetrics import openmetrics_text
    from loadtrt.report.result_files import read_run

    require_outputs([Output("-o", output, "OpenMetrics")], [run_json], force=force)
    write_file(output, openmetrics_text(read_run(run_json, "this format holds one model"), run))
