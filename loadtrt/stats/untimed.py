"""A result of requests that were not timed on the device (--device-times off): what would be 0 there is not known."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from loadtrt.records.records import DEVICE_TIMES, ON_DEVICE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadtrt.results.run_result import ModelResult

T = TypeVar("T")


def untimed(model: ModelResult) -> ModelResult:
    """What was measured of the model, without the numbers of times on the device."""
    unknown = {f"{column}_ns": None for column in ON_DEVICE}
    sample = model.sample and model.sample.model_copy(update={"columns": _without(model.sample.columns)})
    return model.model_copy(
        update={
            "metrics": _without(model.metrics),
            "histograms": _without(model.histograms),
            "lanes": tuple(lane.model_copy(update={"compute_p50_ns": None}) for lane in model.lanes),
            "intervals": tuple(each.model_copy(update={"compute_mean_ns": None}) for each in model.intervals),
            "cohorts": {name: cohort.model_copy(update=unknown) for name, cohort in model.cohorts.items()},
            "mix": tuple(part.model_copy(update={"metrics": _without(part.metrics)}) for part in model.mix),
            "sample": sample,
        }
    )


def _without(values: Mapping[str, T]) -> dict[str, T]:
    return {name: value for name, value in values.items() if name not in DEVICE_TIMES}
