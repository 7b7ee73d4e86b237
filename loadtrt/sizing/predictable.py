"""Which objectives a simulation of a fleet predicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtrt.errors import UsageError
from loadtrt.stats.sample_size import least_samples

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.asked.objective import Objective


def why_unpredictable(objective: Objective) -> str | None:
    """Why a simulation cannot predict an objective, in a sentence; None if it can."""
    if objective.metric_name != "latency":
        return f"'{objective.text}' is not on latency, which is all that a plan predicts; write latency.p99 < 10ms"
    if objective.rank == 1:
        return f"'{objective.text}': a simulation cannot bound a maximum; write p99.9 or a lower quantile"
    return None


def require_predictable(objectives: Sequence[Objective], replayed: int | None) -> None:
    """Raises UsageError for objectives that no simulation predicts. replayed: requests of a trace; None without one."""
    if not objectives:
        raise UsageError("a plan needs an objective: add --objective, such as --objective 'latency.p99 < 10ms'")
    for objective in objectives:
        why = why_unpredictable(objective)
        if why is not None:
            raise UsageError(why)
        if replayed is not None and replayed < least_samples(objective.rank):
            raise UsageError(
                f"'{objective.text}' needs {least_samples(objective.rank)} requests, and the trace has {replayed} in "
                "its busiest hour: give a longer trace, or a rate"
            )
