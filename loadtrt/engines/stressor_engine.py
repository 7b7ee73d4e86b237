"""Stressors as engines: `stressor:dram` and others load one resource of a GPU, beside models that use it.

See cuda/stressors.py for what they do, and docs/sharing.md for their options.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loadtrt import __version__
from loadtrt.asked.fields import option_name
from loadtrt.cuda.runtime import close_all, closed_on_failure, device_properties, use_device
from loadtrt.cuda.stressors import OUTPUT_BYTES, RESOURCES, Stress, Stressor
from loadtrt.engines.cuda_engine import CudaEngine
from loadtrt.engines.key_values import choose_from, read_keys
from loadtrt.errors import UsageError, nearest
from loadtrt.load.tensors import TensorSpec
from loadtrt.printing import shortened
from loadtrt.results.engine_info import EngineInfo
from loadtrt.units import (
    MILLISECOND_NS,
    format_bytes,
    format_duration,
    parse_bytes,
    parse_duration,
    parse_share,
    plural,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadtrt.asked.model import Model
    from loadtrt.load.tensors import Arrays

_PREFIX = "stressor:"
_ENGINE = "stressor"
_LEAST_NS, _MOST_NS = 10_000, 100 * MILLISECOND_NS  # shorter is not the copies' time; longer has too many copies
_KEYS: dict[str, tuple[str, Any]] = {
    "time": ("time_ns", parse_duration),
    "intensity": ("intensity", parse_share),
    "share": ("share", parse_share),
    "size": ("nbytes", parse_bytes),
}


def load_stressor(config: Model) -> StressorEngine:
    """The engine of "stressor:RESOURCE,key=value,...". Raises UsageError, and EngineError without a GPU."""
    stress = parse_stress(config.engine.removeprefix(_PREFIX))
    for key in ("mix", "batcher", "batch", "inferences_per_request"):
        if getattr(config, key) is not None:
            out = f"leave {option_name(key)} out"
            raise UsageError(f"a stressor has no batch: {out}; time says how long a request takes")
    use_device(config.device)
    return StressorEngine(stress, config)


def parse_stress(text: str) -> Stress:
    """The Stress of "dram,time=2ms". Raises UsageError."""
    resource, _, rest = text.partition(",")
    if resource not in RESOURCES:
        known = nearest(resource, RESOURCES, choose_from(RESOURCES))
        raise UsageError(f"{_ENGINE}: unknown resource '{shortened(resource)}': {known}")
    values = read_keys(rest, _KEYS, _ENGINE)
    unused = "share" if resource != "sm" else "nbytes"
    if unused in values:
        whose = "stressor:sm" if unused == "share" else "stressors that copy"
        raise UsageError(f"{_ENGINE}: {'size' if unused == 'nbytes' else unused} is for {whose}: leave it out")
    stress = Stress(resource=resource, **values)
    for key in ("intensity", "share"):
        if not 0 < getattr(stress, key) <= 1:
            raise UsageError(f"{_ENGINE}: {key} is {getattr(stress, key):g}: write a share above 0, up to 100%")
    if not _LEAST_NS <= stress.time_ns <= _MOST_NS:
        raise UsageError(f"{_ENGINE}: time is {format_duration(stress.time_ns)}: write 10us to 100ms")
    return stress


class StressorEngine(CudaEngine):
    """Lanes that load a resource. A request has 64 bytes of input, which become its output; nothing else is copied."""

    def __init__(self, stress: Stress, config: Model) -> None:
        shape = (1, OUTPUT_BYTES // 4)
        tensors = tuple(TensorSpec(name, name == "x", "fp32", shape, OUTPUT_BYTES) for name in ("x", "y"))
        device = device_properties(config.device)
        self._stressor = Stressor(stress, device)
        super().__init__(self._stressor, config.model_copy(update={"copies": False}), [tensors], [1])
        self.info = EngineInfo(
            kind="stressor",
            name=config.engine,
            flavour="stressor",
            version=__version__,
            device=device.name,
            sha256="",
            batch=1,
            tensors=tensors,
            mode=self._mode(),
            notes=("a stressor is not a model: it loads a resource of the GPU",),
        )

    def allocate(self, inputs: Sequence[Arrays]) -> None:
        """See Engine. How much a launch does is measured before."""
        placement = self._placed()
        self._stressor.sms = placement.sms or self._stressor.sms
        stream = placement.stream_maker(0)()
        with closed_on_failure(stream):
            self._stressor.calibrate(stream, graph=self.asked.graph)
        close_all([stream])
        super().allocate(inputs)

    def _mode(self) -> dict[str, str]:
        mode = {key: value for key, value in super()._mode().items() if key != "copies"}
        return mode | {"stress": self._stressor.stress.resource}

    def _notes(self) -> Iterator[str]:
        yield from super()._notes()
        stressor, intensity = self._stressor, self._stressor.stress.intensity
        if stressor.nbytes:
            gigabytes = f"{stressor.bytes_per_s / 1e9:.4g} GB/s"
            work = f"{plural(stressor.units, 'copy')} of {format_bytes(stressor.nbytes)} at {gigabytes}"
        else:
            work = f"a kernel on {stressor.blocks} of {stressor.sms} SMs"
        rest = f" for {100 * intensity:.4g} % of its time" if intensity < 1 else ""
        yield f"a launch is {work}{rest}, and took {format_duration(stressor.took_ns)} when nothing else ran here"
