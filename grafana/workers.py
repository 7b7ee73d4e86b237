"""The row about the workers of a fleet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana.panels import chart, number, query

if TYPE_CHECKING:
    from grafana.panels import Row
    from grafana.promql import Run


def workers_row(run: Run) -> Row:
    """What each worker serves, how long it takes, and whether any is lost."""
    served = f"""sum by (worker, device) ({run.rate("requests_total", 'outcome="ok"')})"""
    window = run.now("worker_latency_window_seconds", 'quantile="0.99"')
    return "Workers of a fleet: one process each (a run of one process has one, without a number)", [
        chart(
            "Requests by worker",
            "Workers that differ for long are not treated alike, or one of them is slower.",
            "reqps",
            query(served, "{{worker}}"),
            span=10,
        ),
        chart(
            "p99 by worker",
            "Of the last whole second, within 0.4 %.",
            "s",
            query(f"max by (worker, device) ({window})", "{{worker}}"),
            span=10,
            log=True,
        ),
        number(
            "Lost",
            "Workers whose processes have ended without a result: the run is FAILED, and has what the others measured.",
            "short",
            query(f"max({run.now('workers_lost')})", "lost"),
            above=1,
        ),
    ]
