"""What engines tell of themselves and show under load, as results keep it: written to run.json, read by reports."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003  # pydantic reads these types when it makes the result's schema
from dataclasses import dataclass, field
from typing import Any

from loadtrt.errors import EngineError
from loadtrt.load.tensors import TensorSpec  # noqa: TC001
from loadtrt.units import format_bytes


@dataclass(frozen=True, slots=True)
class MemoryBill:
    """What an engine will take, in bytes, known before anything is allocated. None: this engine cannot tell.

    weights: the engine itself; context: scratch memory of one execution context; device_io and host_io: the buffers of
    one buffer set (host_io is pinned); inputs: all input sets in pinned host memory; free: what the device has free.
    """

    contexts: int
    buffers: int
    weights_bytes: int | None
    context_bytes: int | None
    device_io_bytes: int
    host_io_bytes: int
    inputs_bytes: int
    free_bytes: int | None

    @property
    def device_bytes(self) -> int:
        """Total on the device: weights + contexts × (scratch + buffers × device I/O); what is unknown counts as 0."""
        lane = (self.context_bytes or 0) + self.buffers * self.device_io_bytes
        return (self.weights_bytes or 0) + self.contexts * lane

    def require_room(self, remedy: str = "") -> None:
        """Raises EngineError when the lanes will not fit. Weights are loaded already: they are in no free memory."""
        needed = self.device_bytes - (self.weights_bytes or 0)
        if self.free_bytes is not None and needed > self.free_bytes:
            free = format_bytes(self.free_bytes)
            raise EngineError(f"the lanes need {format_bytes(needed)} and {free} is free{remedy}")

    @property
    def host_bytes(self) -> int:
        """Total in host memory: contexts × buffers × host I/O + inputs."""
        return self.contexts * self.buffers * self.host_io_bytes + self.inputs_bytes


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine is, for people and for run.json.

    kind: "tensorrt" | "onnxruntime" | "simulated"; name: what `--engine` said; flavour and version: of the runtime
    ("tensorrt_dispatch", "10.16.1.11"); device: GPU or CPU name; sha256: of the plan's or model's bytes, "" where there
    is no file; batch: inferences in one request; precision: "confirmed FP16", ..., in words, "" when nothing was asked.
    mode: effective settings worth a word each, such as {"graph": "yes", "copies": "yes", "wait": "spin"}.
    notes: sentences the user should read (why a graph could not be captured, what was not knowable).
    build: what the plan was made of, where its sidecar tells: model, model_sha256, options, precision, flavour,
    flavour_version, gpu, build_ns; None for other engines, and where nobody knows.
    """

    kind: str
    name: str
    flavour: str
    version: str
    device: str
    sha256: str
    batch: int
    tensors: tuple[TensorSpec, ...]
    precision: str = ""
    mode: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    build: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ClockMapping:
    """How GPU instants were put on the host's clock: the worst error of an anchor in ns, the worst that one was off its
    predecessor's prediction in ns, and how many were taken."""

    error_ns: int
    drift_ns: int
    anchors: int


@dataclass(frozen=True, slots=True)
class Verification:
    """Outputs under load against those of a quiet run. worst: the largest difference over the tolerance, None where
    values cannot be apart by degrees (integers, NaN). input_sets: with one, a mix-up of requests would not show."""

    outputs: int
    different: int
    worst: float | None
    input_sets: int
    first_difference: str | None
