"""How fast a run was served by requests in flight: a field of run.json, from which plans of fleets are made."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from loadtrt.records.histogram import require_histogram
from loadtrt.results import Model, Positive

WORK_UNIT = 1_000_000  # of `Flow.work`: a request of mean work


class Flow(Model):
    """Speed and work of requests, of their records (stats/flow_law.py): a flow-equivalent server by concurrency.

    levels: concurrencies that occurred, ascending: requests in flight where all lanes are busy, otherwise busy lanes.
        Above 16 they are 18, 20, …, 32, 36, …, eight an octave; a concurrency between two counts to both.
    starts: requests that a lane began to serve at each level.
    seconds: seconds[i][j] is the time at level j, over the number of busy lanes, in the service of those requests of
        starts[i].
    requests: number of served requests.
    work: histogram of the requests' work, in millionths of the mean.
    dispersion: variance of the mean work of parts of the run over that of as many independent requests; at least 1.
    """

    levels: tuple[Annotated[int, Field(ge=1)], ...]
    starts: tuple[Positive, ...]
    seconds: tuple[tuple[Positive, ...], ...]
    requests: Annotated[int, Field(ge=1)]
    work: dict[str, Any]
    dispersion: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.0

    @field_validator("work")
    @classmethod
    def _a_histogram(cls, given: dict[str, Any]) -> dict[str, Any]:
        require_histogram("work", given)
        return given

    @model_validator(mode="after")
    def _square(self) -> Self:
        sides = {len(self.starts), len(self.seconds), *map(len, self.seconds)}
        if sides != {len(self.levels)} or list(self.levels) != sorted(set(self.levels)):
            raise ValueError("levels, starts and seconds of the flow do not fit together")
        return self
