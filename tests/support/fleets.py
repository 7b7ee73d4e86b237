"""Fleets without processes: the workers one after the other in this process, which virtual time makes no different."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from loadtrt.asked.launched import parse_devices
from loadtrt.runs.maker import Maker
from loadtrt.stats.merging import merge
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from loadtrt.asked.config import RunConfig
    from loadtrt.results.run_result import RunResult


def run_fleet(config: RunConfig, _talks: Any, signals: Any, *_: Any, **__: Any) -> RunResult:
    """As `loadtrt.runs.fleet.run_fleet`, for engines in virtual time."""
    devices = [None] if config.devices is None else parse_devices(config.devices)
    places = [device for device in devices for _ in range(config.processes)]
    start_at, runs = time.time_ns() + 3600 * SECOND_NS, {}  # virtual time is there at once
    for number, device in enumerate(places):
        changes = {"devices": None, "processes": 1, "json_file": None, "worker": f"{number}/{len(places)}"}
        with Maker(signals=signals) as maker:
            part = config.model_copy(update=changes)
            maker.open(part)
            run = maker.run(part, start_at=start_at)
        runs[str(number)] = run.model_copy(update={"environment": {**run.environment, "device": device}})
    return merge(runs).model_copy(update={"config": config})
