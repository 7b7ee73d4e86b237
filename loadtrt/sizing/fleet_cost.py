"""What a fleet costs, takes and could save."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from loadtrt.results.fleet_result import Autoscaling
from loadtrt.sizing.demand import fewest_for

if TYPE_CHECKING:
    from loadtrt.results.fleet_result import Gpu
    from loadtrt.sizing.demand import Demand


def cost_per_million(demand: Demand, batch: int, gpu_price: float | None, gpus: float) -> float | None:
    """Cost of a million inferences at the demand's mean rate. gpu_price: of one GPU for an hour; None gives None."""
    per_hour = demand.summary.mean_per_s * batch * 3600
    return None if gpu_price is None else gpus * gpu_price / per_hour * 1e6


def joules_per_inference(demand: Demand, gpu: Gpu, gpus: int) -> float | None:
    """G · P(λ/G) / (λ · batch), with P interpolated linearly between measured powers; None without any."""
    if not gpu.watts:
        return None
    rates, watts = zip(*gpu.watts, strict=True)
    mean = demand.summary.mean_per_s
    return float(gpus * np.interp(mean / gpus, rates, watts) / (mean * gpu.batch))


def autoscaling(demand: Demand, batch: int, gpu_price: float | None, needed: int, spares: int) -> Autoscaling | None:
    """If the number of GPUs followed the demand; None for a constant one."""
    if not demand.course:
        return None
    per_gpu = demand.summary.planned_per_s / needed
    mean = sum(share * min(fewest_for(rate, per_gpu), needed) for share, rate in demand.course) + spares
    cost = cost_per_million(demand, batch, gpu_price, mean)
    return Autoscaling(mean_gpus=mean, saved=max(1 - mean / (needed + spares), 0), cost_per_million=cost)
