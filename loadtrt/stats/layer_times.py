"""Sums of a profiler's times by layer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.results.engine_info import Layer, nodes_in_name
from loadtrt.results.profile_result import LayerTimes, ProfilePass
from loadtrt.stats.margin import least_samples

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from loadtrt.results.profile_result import Mode


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
        """The times joined with `layers` by name; without layers, names give the nodes.

        mode: how inferences were launched.
        layers: layers of the engine, if known.
        whole_ns: durations of inferences without the profiler.
        """
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
