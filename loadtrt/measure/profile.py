"""How long each layer takes: the schema of a profile, and the way from samples to it.

A profile is a pass of its own, one inference at a time on an engine that does nothing else: profilers add a
synchronisation an inference, so nothing of it belongs into a measured run.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from loadtrt.asked.config import RunConfig  # noqa: TC001  # pydantic reads it
from loadtrt.measure.facts import EngineInfo  # noqa: TC001  # pydantic reads them
from loadtrt.measure.layer_kinds import kind_of
from loadtrt.measure.layers import Layer, nodes_in_name
from loadtrt.measure.model import Model
from loadtrt.measure.sampling import least_samples

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

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


class Samples:
    """Layer times as a profiler reports them, an inference at a time. A name that comes twice is two layers."""

    def __init__(self) -> None:
        self.inferences = 0
        self._times: dict[tuple[str, int], list[float]] = {}

    def add(self, inference: Iterable[tuple[str, float]]) -> None:
        """One inference: names and ns in the order they ran in."""
        seen: dict[str, int] = {}
        for name, time_ns in inference:
            place = seen[name] = seen.get(name, -1) + 1
            self._times.setdefault((name, place), []).append(time_ns)
        self.inferences += 1

    def to_pass(self, mode: Mode, layers: Sequence[Layer], whole_ns: Sequence[float] = ()) -> ProfilePass:
        """The times joined by name with what is known of the `layers`; where nothing is, names tell their nodes.
        whole_ns: inferences without the profiler."""
        known: dict[tuple[str, int], Layer] = {}
        seen: dict[str, int] = {}
        for layer in layers:
            place = seen[layer.name] = seen.get(layer.name, -1) + 1
            known[layer.name, place] = layer
        whole = math.fsum(time for times in self._times.values() for time in times)
        return ProfilePass(
            mode=mode,
            inferences=self.inferences,
            layers=tuple(
                _times(
                    known.get(key) or Layer(key[0], nodes=() if layers else nodes_in_name(key[0])),
                    np.array(times),
                    whole,
                )
                for key, times in self._times.items()
            ),
            layers_ns=whole / self.inferences if self.inferences else 0.0,
            inference_ns=math.fsum(whole_ns) / len(whole_ns) if whole_ns else None,
            whole=len(whole_ns),
        )


def _times(layer: Layer, times: npt.NDArray[np.float64], whole: float) -> LayerTimes:
    total = float(times.sum())
    enough = len(times) >= least_samples(0.99)
    return LayerTimes(
        layer=layer,
        count=len(times),
        total_ns=total,
        average_ns=total / len(times),
        median_ns=float(np.median(times)),
        p99_ns=float(np.quantile(times, 0.99, method="inverted_cdf")) if enough else None,
        share=total / whole if whole else 0.0,
    )
