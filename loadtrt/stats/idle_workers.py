"""Workers of a fleet that got none of its requests: what they measured is true, and there is nothing of it to show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtrt.results.run_result import Finding
from loadtrt.units import plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.asked.config import RunConfig
    from loadtrt.results.run_result import ModelResult

KIND = "idle-worker"


def got_none(model: ModelResult) -> bool:
    """Whether this is of a worker for which no request was due. Where some were, and none was served, it is INVALID."""
    return model.valid and not (model.submitted or model.ok or model.failed or model.unserved or model.dropped)


def idle_workers(config: RunConfig, idle: Sequence[str], workers: int) -> Finding:
    """That these workers of a run of one model got no request.

    idle: their numbers, one at least.
    workers: how many the fleet has.
    """
    model = config.model
    more, cause = "more requests (--duration, --requests)", f"{config.routing} routing gave all of them to others"
    if model.load.closed:
        more, cause = f"--requests {workers} or more", "there are fewer requests than workers"
    elif config.routing.startswith("sticky:"):
        more = "a key with more values"
    which = f"worker {idle[0]} of {workers} got no request"
    if len(idle) > 1:
        which = f"{len(idle)} of {plural(workers, 'worker')} got no request: {', '.join(idle)}"
    return Finding(
        kind=KIND,
        evidence=which,
        cause=cause,
        remedy=f"if all workers are to be measured, fewer of them, or {more}",
    )
