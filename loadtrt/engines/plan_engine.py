"""The engine of a plan: lanes of TensorRT's contexts on a GPU."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from loadtrt.cuda.runtime import device_properties
from loadtrt.engines.cuda_engine import CudaEngine
from loadtrt.engines.plan import build_of
from loadtrt.results.engine_info import EngineInfo

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadtrt.asked.model import Model
    from loadtrt.engines.plan_profile import Profiled, ProfileLength, Watch
    from loadtrt.engines.tensorrt import Plan
    from loadtrt.load.tensors import Arrays, TensorSpec


def load_tensorrt(config: Model) -> TensorRTEngine:
    """The engine of a plan: deserialized, its shapes decided, no lanes yet. Raises UsageError and EngineError."""
    from loadtrt.engines.tensorrt import load_plan

    return TensorRTEngine(load_plan(config), config)


class TensorRTEngine(CudaEngine):
    """The engine of a plan."""

    def __init__(self, plan: Plan, config: Model) -> None:
        self._plan = plan
        digest = plan.header.sha256
        sidecar, wrong = build_of(plan.header.path, digest)
        build, rows = (sidecar.kept, sidecar.rows) if sidecar else (None, {})
        super().__init__(
            plan, config, [_indexing(part.tensors, rows) for part in plan.parts], [part.batch for part in plan.parts]
        )
        self._info = EngineInfo(
            kind="tensorrt",
            name=config.engine,
            flavour=plan.flavour.name,
            version=plan.flavour.version,
            device=device_properties(config.device).name,
            sha256=digest,
            batch=plan.batch,
            batch_from=plan.counted.reason,
            larger_batch=plan.larger_batch,
            tensors=_indexing(plan.tensors, rows),
            precision=_precision(plan.precision, build),
            mode=self._mode(),
            notes=(*plan.notes, *wrong),
            build=build,
            conversion=sidecar.conversion if sidecar else None,
        )

    @property
    def info(self) -> EngineInfo:
        """See Engine. With what TensorRT has logged until now."""
        return replace(self._info, log=self._plan.open.logged())

    @info.setter
    def info(self, info: EngineInfo) -> None:
        self._info = info

    def profile(self, inputs: Arrays, length: ProfileLength, profiled: Profiled, watch: Watch) -> None:
        """See ProfilesLayers."""
        from loadtrt.engines.plan_profile import profile_plan

        placement = self._placed()
        self.info = replace(self.info, mode=self._mode())
        profile_plan(self._plan, inputs, length, self.asked.graph, profiled, watch, placement)


def _indexing(tensors: Sequence[TensorSpec], rows: Mapping[str, int]) -> tuple[TensorSpec, ...]:
    """The tensors, with how many rows the values of inputs may index."""
    return tuple(replace(spec, rows=rows.get(spec.name)) for spec in tensors)


def _precision(verdict: str, build: dict[str, Any] | None) -> str:
    """The verdict on --fp16; where TensorRT cannot give one, with the precision that the build was asked for."""
    allowed = build["precision"] if build and verdict.startswith("not knowable") else ""
    return f"{verdict}; its build: {allowed}" if allowed else verdict
