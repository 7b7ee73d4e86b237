"""Writes the dashboards that Grafana is provisioned with: `python -m grafana.build`.

Queries ask for what loadtrt exports, never for recorded series, so that the dashboards work on any Prometheus.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from grafana.compare import compare_dashboard
from grafana.dashboard import render
from grafana.run import run_dashboard

if TYPE_CHECKING:
    from collections.abc import Iterator

DASHBOARDS = Path(__file__).parent / "dashboards"


def dashboards() -> Iterator[tuple[Path, str]]:
    """(file, text) of each dashboard."""
    yield DASHBOARDS / "run.json", render(run_dashboard())
    yield DASHBOARDS / "compare.json", render(compare_dashboard())


if __name__ == "__main__":
    for path, text in dashboards():
        path.write_text(text)
