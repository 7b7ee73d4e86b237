"""The time of each layer: the schema of a profile.

A profile is a pass of its own, one inference at a time on an idle engine: a profiler adds a synchronisation per
inference, so that its times stay apart from a measured run.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from loadtrt.asked.config import RunConfig  # noqa: TC001  # pydantic reads it
from loadtrt.results import Model, Result
from loadtrt.results.engine_info import EngineInfo, Layer, kind_of

Mode = Literal["graph", "plain"]


class LayerTimes(Model):
    """The times of one layer.

    count: number of inferences.
    total_ns, average_ns: sum and mean over the inferences.
    median_ns: median; None in files of trtexec before 8.4.
    p99_ns: None with too few inferences.
    share: of the sum over all layers, in [0, 1].
    """

    layer: Layer
    count: int
    total_ns: float
    average_ns: float
    median_ns: float | None
    p99_ns: float | None
    share: float


class ProfilePass(Model):
    """All layers in the order in which they ran.

    mode: "graph" (as a CUDA graph) or "plain" (enqueued plainly); None where a file of trtexec does not say.
    inferences: number of inferences.
    layers_ns: mean of the sum over layers.
    inference_ns: mean time of an inference in the same mode without the profiler; None if not timed. The excess of
        layers_ns is the profiler's overhead, or layers overlap.
    whole: number of inferences behind inference_ns.
    """

    mode: Mode | None
    inferences: int
    layers: tuple[LayerTimes, ...]
    layers_ns: float
    inference_ns: float | None
    whole: int = 0

    @property
    def hottest(self) -> list[tuple[int, LayerTimes]]:
        """(place from 1 on, times) of each layer that took time, longest first."""
        timed = [(place, times) for place, times in enumerate(self.layers, 1) if times.total_ns]
        return sorted(timed, key=lambda item: -item[1].total_ns)

    @property
    def kinds(self) -> list[tuple[str, int, float]]:
        """(kind, number of layers, share of the sum over all layers), greatest share first."""
        shares: dict[str, list[float]] = {}
        for times in self.layers:
            shares.setdefault(kind_of(times.layer) or "unknown", []).append(times.share)
        kinds = [(kind, len(parts), math.fsum(parts)) for kind, parts in shares.items()]
        return sorted(kinds, key=lambda item: -item[2])


class ProfileResult(Result):
    """The profile of one engine.

    outcome: completed; interrupted (Ctrl-C) or failed (see `failure`), with what was timed until then.
    failure: why it failed, in a sentence.
    passes: the passes; reports show the first one.
    """

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
