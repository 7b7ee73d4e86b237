"""loadtrt: an async, multi-context load tester for TensorRT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loadtrt.asked.config import RunConfig
    from loadtrt.results.run_result import RunResult

__version__ = "0.1.0"


def run(config: RunConfig | None = None, /, *, start_at: int | None = None, **options: Any) -> RunResult:
    """Make one run and return its result: see `loadtrt.runs.api.run`, which this imports when it is called."""
    from loadtrt.runs.api import run as make_run

    return make_run(config, start_at=start_at, **options)
