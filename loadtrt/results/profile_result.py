"""How long each layer takes: the schema of a profile.

A profile is a pass of its own, one inference at a time on an engine that does nothing else: profilers add a
synchronisation an inference, so nothing of it belongs into a measured run.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from loadtrt.asked.config import RunConfig  # noqa: TC001  # pydantic reads it
from loadtrt.results.engine_info import EngineInfo  # noqa: TC001  # pydantic reads them
from loadtrt.results.frozen import Model
from loadtrt.results.layer import Layer, kind_of

Mode = Literal["graph", "plain"]


class LayerTimes(Model):
    """One layer's times over `count` inferences, ns. p99_ns: None where there are too few. share: of the sum over all
    layers, 0 to 1. median_ns is None in files of trtexec before 8.4."""

    layer: Layer
    count: int
    total_ns: float
    average_ns: float
    median_ns: float | None
    p99_ns: float | None
    share: float


class ProfilePass(Model):
    """All layers in the order they ran in.

    mode: as a CUDA graph, or enqueued plainly; None where a file of trtexec does not say. layers_ns: mean of the sum
    over layers. inference_ns: mean of `whole` inferences in the same mode without the profiler, None where none was
    timed: what layers_ns exceeds it by, the profiler added (or the layers overlap).
    """

    mode: Mode | None
    inferences: int
    layers: tuple[LayerTimes, ...]
    layers_ns: float
    inference_ns: float | None
    whole: int = 0

    @property
    def hottest(self) -> list[tuple[int, LayerTimes]]:
        """Layers that took time, with their places from 1 on, longest first."""
        timed = [(place, times) for place, times in enumerate(self.layers, 1) if times.total_ns]
        return sorted(timed, key=lambda item: -item[1].total_ns)

    @property
    def kinds(self) -> list[tuple[str, int, float]]:
        """(kind, layers, share of the sum over all layers), greatest first."""
        shares: dict[str, list[float]] = {}
        for times in self.layers:
            shares.setdefault(kind_of(times.layer) or "not told", []).append(times.share)
        kinds = [(kind, len(found), math.fsum(found)) for kind, found in shares.items()]
        return sorted(kinds, key=lambda item: -item[2])


class ProfileResult(Model):
    """The profile of one engine. passes: the one that is shown first. outcome: interrupted (Ctrl-C) and failed (see
    `failure`) ones hold what was timed until then. notes: what its reader should know."""

    schema_version: Literal["loadtrt.profile/1"] = "loadtrt.profile/1"
    loadtrt: str
    started: str
    command: tuple[str, ...]
    config: RunConfig
    environment: dict[str, Any]
    engine: EngineInfo
    outcome: Literal["completed", "interrupted", "failed"] = "completed"
    failure: str | None = None
    passes: tuple[ProfilePass, ...]
    notes: tuple[str, ...]
