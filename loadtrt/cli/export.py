"""`loadtrt export`: a finished run in the formats of other programs."""

from __future__ import annotations

from pathlib import Path

import click


@click.group("export", short_help="Write a finished run in the format of another program.")
def command() -> None:
    """Write a finished run in the format of another program."""


@command.command("openmetrics", short_help="OpenMetrics, for Prometheus and Grafana.")
@click.argument("run_json", metavar="RUN.JSON", type=click.Path(path_type=Path))
@click.option("-o", "--output", default="-", metavar="FILE", help="Where to write it; stdout if left out.")
@click.option("--run", default="", metavar="NAME", help="The label run, by which runs are told apart; when it began.")
def openmetrics(run_json: Path, output: str, run: str) -> None:
    """RUN.JSON, of `loadtrt run --json`, as OpenMetrics with timestamps: an old run in Prometheus and Grafana.

    \b
    loadtrt export openmetrics run.json -o run.om
    promtool tsdb create-blocks-from openmetrics run.om DATA      (Prometheus' --storage.tsdb.path)

    Metrics have the names and labels that the run had live, so that the same dashboards show it.
    """
    from loadtrt.files import write_file
    from loadtrt.measure.result import RunResult
    from loadtrt.report.openmetrics import openmetrics_text
    from loadtrt.report.result_files import read_result

    write_file(output, openmetrics_text(read_result(RunResult, run_json), run))
