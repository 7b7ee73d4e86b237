"""The dashboard that lays up to three runs over one another.

PromQL shifts a series by a constant alone (`offset`), so each run that is laid over the first has a hidden variable
with the milliseconds between their starts, which Grafana computes by a query of its own. The runs then begin together,
wherever on the calendar they were.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana.panels import chart, lines, new_dashboard, query, query_variable, with_rows
from grafana.promql import Run, over

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from grafana_foundation_sdk.builders import dashboard as dashboard_builders
    from grafana_foundation_sdk.builders import table, timeseries

RUNS = {
    "a": Run('run="$a"'),
    "b": Run('run="$b"', " offset ${b_behind}ms"),
    "c": Run('run="$c"', " offset ${c_behind}ms"),
}
BY = "model, run"
MEASURING = 'phase="measure"'
P50, P99 = 'quantile="0.5"', 'quantile="0.99"'
EVER = "[60d] offset -30d"  # 30 days before and after the range's end: a run is found however far one has zoomed in


def compare_dashboard() -> dashboard_builders.Dashboard:
    """The whole runs in a table, then their courses."""
    known = "label_values(loadtrt_run_info{{{}}}, run)".format
    built = new_dashboard(
        "loadtrt-compare",
        "loadtrt: runs compared",
        "Up to three load tests, b and c shifted in time so that they begin with a. Choose the runs in a wide range, "
        "then zoom in on a. Made by grafana/build.py: edit that.",
        "now-6h",
        query_variable("model", "model", "label_values(loadtrt_run_info, model)", every=True),
        query_variable("a", "run a", known('model=~"$model"'), at_load=True),
        query_variable("b", "run b", known('model=~"$model",run!="$a"'), at_load=True),
        query_variable("c", "run c", known('model=~"$model",run!~"$a|$b"'), at_load=True),
        *(query_variable(f"{name}_behind", "", _behind(name), regex=r" (-?\d+) ") for name in ("b", "c")),
    )
    return with_rows(built, [("Whole runs", [_table()]), ("Their courses, from one start", list(_courses()))])


def _behind(name: str) -> str:
    """Milliseconds from the start of run `name` to that of a; 1 where one has not begun, or it is 0, which `offset`
    refuses."""
    of_a, of_other = (f'max(last_over_time(loadtrt_start_time_seconds{{run="${each}"}}{EVER}))' for each in ("a", name))
    return f"query_result((round(1000 * ({of_a} - {of_other})) != 0) or vector(1))"


def _table() -> table.Panel:
    runs = Run('run=~"$a|$b|$c"')

    def gained(name: str, *more: str, by: str = BY) -> str:
        """What a counter gained within the range; not by increase(), which extrapolates."""
        series = runs.now(name, *more)
        return f"sum by ({by}) (max_over_time({series}[$__range]) - min_over_time({series}[$__range]))"

    def quantile(rank: float) -> str:
        return f"histogram_quantile({rank:g}, {gained('latency_seconds_bucket', by=f'{BY}, le')})"

    inferences = gained("inferences_total")
    measured = f"sum by ({BY}) (sum_over_time({runs.now('phase', MEASURING)}[$__range:1s]))"
    return lines(
        "Each run in a line",
        "Of what lies within the range. Percentiles are from buckets, 10 to 20 % off; `loadtrt compare` of the runs' "
        "results has exact ones.",
        [
            ("served", "short", gained("requests_total", 'outcome="ok"')),
            ("not served", "short", gained("requests_total", 'outcome!="ok"')),
            ("inferences/s", "short", over(inferences, measured)),
            ("mean latency", "s", over(gained("latency_seconds_sum"), gained("latency_seconds_count"))),
            ("p50", "s", quantile(0.5)),
            ("p99", "s", quantile(0.99)),
            ("p99.9", "s", quantile(0.999)),
            ("joules/inference", "joule", over(gained("gpu_energy_joules_total"), inferences)),
        ],
    )


def _courses() -> Iterator[timeseries.Panel]:
    """What each run did at each second since its start."""

    def overlaid(
        title: str, description: str, unit: str, say: Callable[[Run], str], log: bool = False
    ) -> timeseries.Panel:
        """The same query of every run."""
        shown = [query(say(run), f"{name}: {{{{model}}}} {{{{run}}}}") for name, run in RUNS.items()]
        return chart(title, description, unit, *shown, log=log)

    yield overlaid(
        "Throughput",
        "Items of the batches that were served.",
        "suffix: inferences/s",
        lambda run: f"sum by ({BY}) ({run.rate('inferences_total')})",
    )
    yield overlaid(
        "Latency p99",
        "Of each whole second, within 0.4 %.",
        "s",
        lambda run: f"max by ({BY}) ({run.now('latency_window_seconds', P99)})",
        log=True,
    )
    yield overlaid(
        "Latency p50",
        "Of each whole second, within 0.4 %.",
        "s",
        lambda run: f"max by ({BY}) ({run.now('latency_window_seconds', P50)})",
        log=True,
    )
    yield overlaid("Compute", "Mean of the GPU's part.", "s", lambda run: run.mean("compute", BY))
    yield overlaid("Queue", "Mean wait for a free buffer set.", "s", lambda run: run.mean("queue", BY))
    yield overlaid(
        "Power",
        "Drawn by the GPU (empty without one).",
        "watt",
        lambda run: f"max by ({BY}) ({run.now('gpu_power_watts')})",
    )
