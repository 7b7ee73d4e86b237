"""What several starts of one run leave behind: the schema of the file of `loadtrt run --repeat`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from loadtrt.asked.config import RunConfig  # noqa: TC001  # pydantic reads them
from loadtrt.asked.objective import Verdict, overall
from loadtrt.results import Model, Result
from loadtrt.results.run_result import RunResult  # noqa: TC001


class Spread(Model):
    """How far the starts of a run are apart in one number (stats/starts.py). None in a field: not known.

    name: "throughput" (requests/s), METRIC.pNN or METRIC.mean.
    unit: of the numbers.
    values: the number of each start.
    mean: of the starts.
    cv: coefficient of variation: standard deviation ÷ mean.
    mean_low, mean_high: 95 % confidence interval of the mean.
    within: relative half width of one run's 95 % confidence interval: the typical one of these starts.
    times: how many times as much the starts vary as `within` explains.
    exceeds: whether that is significant.
    reason: why the mean, or `within`, is not known.
    """

    name: str
    unit: Literal["ns", "1/s"]
    values: tuple[float | None, ...]
    mean: float | None = None
    cv: float | None = None
    mean_low: float | None = None
    mean_high: float | None = None
    within: float | None = None
    times: float | None = None
    exceeds: bool = False
    reason: str | None = None

    @model_validator(mode="after")
    def _mean_of_values(self) -> Self:
        if self.mean is not None and (not self.values or None in self.values):
            raise ValueError("it has a mean of values that are not known")
        return self


class RepeatResult(Result):
    """Several starts of one run.

    started: when the command began, ISO 8601, UTC.
    config: the configuration of the first start; each further one has the next seed.
    asked: how many starts were asked for.
    outcome: completed, interrupted (Ctrl-C), or failed (see `failure`).
    runs: what each start measured; the last one is not whole where the outcome is not completed.
    spreads: the numbers between the starts that completed.
    """

    schema_version: Literal["loadtrt.repeat/1"] = "loadtrt.repeat/1"
    loadtrt: str
    started: str
    command: tuple[str, ...]
    config: RunConfig
    asked: Annotated[int, Field(ge=2)]
    outcome: Literal["completed", "interrupted", "failed"]
    failure: str | None = None
    runs: Annotated[tuple[RunResult, ...], Field(min_length=1)]
    spreads: tuple[Spread, ...]

    @model_validator(mode="after")
    def _runs_of_one_model(self) -> Self:
        if any(len(run.models) != 1 for run in self.runs):
            raise ValueError("each of its runs must be of one model")
        return self

    @property
    def valid(self) -> bool:
        """Whether the numbers of all starts can be trusted."""
        return all(run.valid for run in self.runs)

    @property
    def verdict(self) -> Verdict | None:
        """On all objectives in all starts: the worst of them."""
        return overall(run.verdict for run in self.runs)
