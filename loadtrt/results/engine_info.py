"""Engines as results keep them: what they are, their memory and layers, their clock, and the check of their outputs."""

from __future__ import annotations

import re
from collections.abc import Mapping  # noqa: TC003  # pydantic reads these types when it makes the result's schema
from dataclasses import dataclass, field
from typing import Any

from loadtrt.errors import EngineError
from loadtrt.load.tensors import TensorSpec  # noqa: TC001
from loadtrt.results.precisions import HalfPrecision  # noqa: TC001
from loadtrt.units import format_bytes

# The first match in a type wins, so the special comes before the general: CaskGemmConvolution is a convolution,
# ConvertToHalf is not, and LRN is not a normalization like LayerNorm.
_KINDS = tuple(
    (kind, re.compile(pattern, re.IGNORECASE))
    for kind, pattern in (
        ("reformat", r"reformat|^reorder(in|out)put$|^memcpy"),
        ("no-op", r"^(noop|identity)$"),
        ("quantize", r"quantizelinear|^(de)?quantize$"),
        ("deconvolution", r"deconv|convtranspose"),
        ("convolution", r"conv(?!ert)|^correlation$"),
        ("attention", r"attention|fmha"),
        ("matmul", r"gemm|matmul|matrixmult|fullyconnected"),
        ("pooling", r"pool"),
        ("softmax", r"softmax"),
        ("LRN", r"^(cask)?lrn$"),
        ("normalization", r"normalization|^(layer|rms|group|instance|batch)norm"),
        ("elementwise", r"^(pointwise|elementwise)|^(add|sub|mul|div|sum|pow|sqrt|exp|neg|abs|erf)$"),
        ("activation", r"^activation$|(relu|gelu|elu|sigmoid|tanh|swish|silu|softplus)$|^clip$"),
        ("reduction", r"^reduce"),
        ("concat", r"^concat"),
        ("slice", r"^(slice|split)$"),
        ("shuffle", r"^(shuffle|reshape|transpose|flatten|squeeze|unsqueeze|expand)$"),
        ("gather", r"^gather"),
        ("resize", r"^(resize|upsample)$"),
        ("cast", r"^cast$|^convert"),
        ("plugin", r"^plugin"),
    )
)

GPU_KINDS = ("tensorrt", "stressor")  # of engines that use a GPU
_ADDED = ("Reformatting CopyNode",)  # layers that TensorRT puts in by itself


@dataclass(frozen=True, slots=True)
class MemoryBill:
    """Memory that an engine and its lanes need, known before anything is allocated. None: not known for this engine.

    buffers: buffer sets per context.
    weights_bytes: the engine itself.
    context_bytes: scratch memory of one execution context.
    device_io_bytes: device buffers of one buffer set.
    host_io_bytes: pinned host buffers of one buffer set.
    inputs_bytes: all input sets, in pinned host memory.
    free_bytes: free memory of the device.
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
        """Total on the device: weights + contexts × (scratch + buffers × device I/O); an unknown part counts as 0."""
        lane = (self.context_bytes or 0) + self.buffers * self.device_io_bytes
        return (self.weights_bytes or 0) + self.contexts * lane

    def require_room(self, remedy: str = "") -> None:
        """Raise EngineError if the lanes do not fit. The weights are loaded already, so free memory excludes them."""
        needed = self.device_bytes - (self.weights_bytes or 0)
        if self.free_bytes is not None and needed > self.free_bytes:
            free = format_bytes(self.free_bytes)
            raise EngineError(f"the lanes need {format_bytes(needed)} and {free} is free{remedy}")

    @property
    def host_bytes(self) -> int:
        """Total in host memory: contexts × buffers × host I/O + inputs."""
        return self.contexts * self.buffers * self.host_io_bytes + self.inputs_bytes


@dataclass(frozen=True, slots=True)
class LogMessage:
    """A message in the log of an engine's library.

    severity: "warning" or "error"; an error is what a call reported that loadtrt could do without.
    text: the whole message, on one line.
    times: how often it was logged; messages that differ in numbers alone count as one.
    """

    severity: str
    text: str
    times: int


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine is, for people and for run.json.

    kind: "tensorrt" | "onnxruntime" | "simulated" | "stressor".
    name: value of `--engine`.
    flavour: module of the runtime, such as "tensorrt_dispatch".
    version: version of the runtime, such as "10.16.1.11".
    device: name of the GPU or CPU.
    sha256: of the plan's or model's bytes; "" without a file.
    batch: inferences in one request.
    batch_from: what says so: an option, or the model by its names or sizes; "" where the engine has no other.
    tensors: inputs and outputs.
    precision: in words, such as "confirmed FP16"; "" if none was asked for.
    mode: effective settings, such as {"graph": "yes", "copies": "yes", "wait": "spin", "submit": "apart", "loop":
        "compiled"}.
    notes: sentences for the user, such as why a graph could not be captured.
    larger_batch: whether --batch may be larger than these requests: the engine leaves it open, and its range goes on.
    conversion: what became of a model that loadtrt converted to FP16; None for others.
    submit_rates: requests/s of each way of submitting that was possible, in warm-up; None for one that was not
        tried; empty where there was one way only.
    build: how the plan was built, from its sidecar: model, model_sha256, options, precision, flavour, flavour_version,
        gpu, build_ns; None for other engines and if not known.
    log: what TensorRT has warned of since it began to load the plan; empty for other engines.
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
    batch_from: str = ""
    conversion: HalfPrecision | None = None
    submit_rates: Mapping[str, float | None] = field(default_factory=dict)
    larger_batch: bool = False
    log: tuple[LogMessage, ...] = ()

    @property
    def settings(self) -> dict[str, str]:
        """`mode`, with what it leaves out: CUDA's default of hardware queues, which older results had, and that device
        times were measured."""
        return {"hardware queues": "8", "device times": "on", **self.mode}

    @property
    def device_times(self) -> bool:
        """Whether requests are timed on the device (--device-times)."""
        return self.settings["device times"] == "on"

    @property
    def virtual_time(self) -> bool:
        """Whether its clock is virtual: it passes with what is simulated, however fast or busy the host is."""
        return self.mode.get("clock") == "virtual"


@dataclass(frozen=True, slots=True)
class ClockMapping:
    """How instants of the GPU's clock were converted to the host's.

    error_ns: largest uncertainty of an anchor, a pair of instants read together on both clocks.
    drift_ns: largest difference between an anchor and the prediction from the anchor before it.
    """

    error_ns: int
    drift_ns: int
    anchors: int


@dataclass(frozen=True, slots=True)
class Verification:
    """Outputs under load against those of a quiet run.

    outputs: number of outputs compared.
    different: number of outputs that differ by more than the tolerance.
    worst: largest difference over the tolerance; None for values without a distance (integers, NaN).
    input_sets: number of different inputs; with one, outputs of mixed-up requests would look alike.
    first_difference: the first output that differs, in words; None for none.
    unrepeatable: the output in which two quiet requests with the same inputs differ, so that nothing was compared under
        load; None where they agree.
    """

    outputs: int
    different: int
    worst: float | None
    input_sets: int
    first_difference: str | None
    unrepeatable: str | None = None

    def fault_of(self, in_flight: int) -> tuple[str, str] | None:
        """What is wrong with the outputs, and what to do; None where nothing is. in_flight: most requests at a time."""
        if self.unrepeatable is not None:
            return (
                f"outputs cannot be verified: '{self.unrepeatable}' differs between two quiet requests with the same "
                "inputs",
                "the model draws random numbers, or keeps a state: leave --verify out, or make the model deterministic",
            )
        if self.different:
            first = f" (first: {self.first_difference})" if self.first_difference else ""
            several = "requests overwrite each other: see whether one at a time differs, too (--latency)"
            return (
                f"{self.different} of {self.outputs} outputs under load differ from those of a quiet run{first}",
                several if in_flight > 1 else "one request at a time overwrites no other: look for a faulty device",
            )
        return None


@dataclass(frozen=True, slots=True)
class LayerTensor:
    """One input or output of a layer. dtype "" and shape () where the engine does not say."""

    name: str
    dtype: str
    format: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of an engine. If only its name is known, all fields but `name` and `nodes` are empty.

    name: as the engine gives it.
    type: the engine's type, such as "CaskConvolution".
    tactic: the kernel that the builder chose.
    precision: the type in which it computes: that of its weights, or else of its floating-point outputs or inputs, or
        INT8 if all of them are; "" for layers that only move data, and if not known.
    nodes: names of the model's nodes fused into it; none for layers that the engine added, such as reformats.
    """

    name: str
    type: str = ""
    tactic: str = ""
    inputs: tuple[LayerTensor, ...] = ()
    outputs: tuple[LayerTensor, ...] = ()
    precision: str = ""
    nodes: tuple[str, ...] = ()


def nodes_in_name(name: str) -> tuple[str, ...]:
    """The model's nodes that TensorRT names a layer by: " + " joins those in a row, " || " those side by side."""
    if name.startswith(_ADDED):
        return ()
    return tuple(part for part in re.split(r" \+ | \|\| ", name) if part)


def kind_of(layer: Layer) -> str:
    """ "convolution" for CaskConvolution, FusedConv and the like; types without such a word stay as they are.

    "" if the engine gives only names; reformats are known by their names even then.
    """
    if not layer.type:
        return "reformat" if re.search(r"^Reformatting CopyNode |(in|out)put reformatter \d+$", layer.name) else ""
    return next((kind for kind, pattern in _KINDS if pattern.search(layer.type)), layer.type)
