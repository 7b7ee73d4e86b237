"""`loadtrt dashboards`: Grafana's dashboards and Prometheus' rules, as files."""

from __future__ import annotations

from pathlib import Path

import click

from loadtrt.cli.delivery import show_line
from loadtrt.cli.options import FORCE_HELP
from loadtrt.cli.provided import provided, write_provided


@click.command("dashboards", short_help="Write dashboards and rules for Grafana and Prometheus.")
@click.argument("folder", metavar="[DIR]", required=False, type=click.Path(path_type=Path, file_okay=False))
@click.option("--force", is_flag=True, help=FORCE_HELP)
def command(folder: Path | None, force: bool) -> None:
    """Write Grafana's dashboards, Prometheus' configuration and alert rules, and a compose file into the folder DIR,
    which is created if it does not exist. Without DIR, list them.

    \b
    loadtrt dashboards watching
    docker compose -f watching/compose.yaml up -d
    """
    files = provided("grafana")
    if folder is not None:
        write_provided({folder / name: file.read_text(encoding="utf-8") for name, file in files.items()}, force=force)
    for name in files:
        show_line(name if folder is None else str(folder / name))
