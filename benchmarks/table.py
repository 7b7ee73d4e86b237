"""A Markdown table of finished runs, from their run.json files: how the tables in docs/ are made.

python -m benchmarks.table RUN.json …
"""

from __future__ import annotations

import argparse
from pathlib import Path

from loadtrt.results.run_result import RunResult
from loadtrt.units import format_count, format_duration

HEADER = (
    "contexts", "arrivals", "requests/s", "inferences/s", "latency p50", "p99", "p99.9", "compute p50",
    "lateness p99", "lanes at once", "host cores", "verify", "verdict",
)  # fmt: skip


def row_of(result: RunResult) -> list[str]:
    """One row of the table."""

    def time(metric: str, percentile: str) -> str:
        value = result.model.metrics[metric].percentiles_ns[percentile]
        return "–" if value is None else format_duration(value)

    model, rates, checked = result.config.model, result.model.throughput, result.model.verification
    return [
        str(model.contexts),
        model.load.text,
        format_count(rates.requests_per_s or 0),
        format_count(rates.inferences_per_s or 0),
        *(time("latency", percentile) for percentile in ("p50", "p99", "p99.9")),
        time("compute", "p50"),
        time("lateness", "p99"),
        "–" if result.model.overlap is None else f"{result.model.overlap.lanes_computing:.2f}",
        f"{result.host_cores:.2f}",
        "–" if checked is None else f"{checked.outputs} outputs, {checked.different} differ",
        "valid" if result.valid else "INVALID",
    ]


def main() -> None:
    """Print the table of the files named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="RUN.json")
    files = parser.parse_args().files
    rows = [row_of(RunResult.model_validate_json(file.read_text(encoding="utf-8"))) for file in files]
    for row in (HEADER, ["---"] * len(HEADER), *rows):
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
