"""One model of a run of several, as a run of that model alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loadtrt.results.run_result import RunResult


def models_of(result: RunResult) -> dict[str, RunResult]:
    """Each model's part of a run, and of its workers' runs, by the model's name, as the result of a run of that model
    alone."""
    return {name: one_of(result, name) for name in result.models}


def one_of(result: RunResult, name: str) -> RunResult:
    """The part of one model."""
    if len(result.models) == 1:
        return result
    measured = result.models[name]
    ended = "completed" if result.outcome == "failed" else result.outcome
    longest = result.phases.measure_ns
    measure_ns = longest if measured.measure_ns is None else measured.measure_ns
    return result.model_copy(
        update={
            "models": {name: measured},
            "config": result.config.alone(name),
            "beside": {other: model for other, model in result.config.models.items() if other != name},
            "valid": measured.valid and measured.failure is None,
            "outcome": ended if measured.failure is None else "failed",
            "failure": measured.failure,
            "phases": result.phases.model_copy(update={"measure_ns": measure_ns}),
            "workers": tuple(one_of(worker, name) for worker in result.workers),
        }
    )
