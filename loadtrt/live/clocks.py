"""The GPU's clocks around a run: right before, while it warms up, right after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loadtrt.environment import gpu_environment
from loadtrt.live.telemetry import clocks_settled

if TYPE_CHECKING:
    from loadtrt.live.telemetry import Gpu


class Clocks:
    """The run begins now. gpu: None where there is none, or nobody tells."""

    def __init__(self, gpu: Gpu | None) -> None:
        self._gpu = gpu
        self._readings = [] if gpu is None else [gpu.read()]

    def settled(self) -> bool | None:
        """Whether the clocks are steady; None where nobody tells."""
        if self._gpu is None:
            return None
        self._readings.append(self._gpu.read())
        return None if self._readings[-1].sm_clock_hertz is None else clocks_settled(self._readings[1:])

    def environment(self) -> dict[str, Any]:
        """The run has ended: the GPU before and after, for its environment."""
        return {} if self._gpu is None else {"gpu": gpu_environment(self._gpu, self._readings[-1], self._gpu.read())}
