"""The declaration of every option of a model: its engine, lanes, load, requests and objectives.

Times are int ns in here, text such as "10s" outside.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue, SkipJsonSchema  # noqa: TC002  # pydantic reads them
from pydantic_core import CoreSchema  # noqa: TC002

from loadtrt.asked.declaring import ENGINES, FLEETS, LOADS, PLANS, SEARCHES, Strict, option
from loadtrt.asked.fields import (
    TEXT_OR_LIST,
    Duration,
    FileName,
    Objectives,
    Precision,
    Priority,
    Range,
    Shapes,
    ShapeValues,
    Sms,
    Source,
    Sources,
    kept,
    option_name,
)
from loadtrt.asked.load import Load
from loadtrt.asked.load_declarations import LoadOptions, load_option
from loadtrt.asked.load_options import OPTIONS, load_of
from loadtrt.asked.mlperf import ScenarioName  # noqa: TC001  # pydantic reads it
from loadtrt.asked.objective import MOST_OBJECTIVES, Objective
from loadtrt.errors import UsageError
from loadtrt.load.arrivals import MOST_REQUESTS
from loadtrt.load.request_sizes import Batching, Part, parse_batching, parse_mix
from loadtrt.records.records import DEVICE_TIMES

MOST_CONTEXTS = 32_767  # rows are sorted by a lane's number in 16 bits (records/tally.py); memory ends sooner
# How an option under each heading of --help is declared, with the commands that most of them go with.
_engine = partial(option, group="Engine", commands=ENGINES)
_lanes = partial(option, group="Lanes", commands=SEARCHES)
_requests = partial(option, group="Requests", commands=SEARCHES)
_ending = partial(option, group="Ending", commands="sweep profile")
_objectives = partial(option, group="Objectives", commands=LOADS)


class Model(Strict):
    """A model of a run: an engine with its options, its lanes, its load, its requests and its objectives."""

    engine: Source = _engine(
        ...,
        "What serves requests: a plan, an .onnx file, zoo:googlenet, simulated:KEY=VALUE,… (simulated:null), or "
        "stressor:RESOURCE (dram, l2, pcie, sm), which loads a GPU beside a model.",
    )
    on: Literal["auto", "tensorrt", "onnxruntime"] = _engine("auto", "Runtime that executes the engine.")
    module: str | None = _engine(
        None, "TensorRT module to import, such as tensorrt_lean.", metavar="NAME", shown_default="by the plan"
    )
    plugins: Sources = _engine(
        (), "Plugin library to load first (repeatable).", commands=f"{ENGINES} {PLANS}", metavar="FILE"
    )
    allow_host_code: bool = _engine(
        False, "Let TensorRT run the host code that a version-compatible plan carries.", commands=f"{ENGINES} {PLANS}"
    )
    lean_library: Source | None = _engine(
        None,
        "Lean runtime (libnvinfer_lean.so) for a version-compatible plan that was built without its own.",
        commands=f"{ENGINES} {PLANS}",
        metavar="FILE",
        shown_default="that of an installed package",
    )
    device: int = _engine(0, "Number of the GPU.", ge=0, le=1023)
    fp16: bool = _engine(False, "Plan: check that it computes in FP16. ONNX model: build or convert it to FP16.")
    batch: int | None = _engine(  # TensorRT's dimensions are 32 bits wide up to 8.6
        None, "Batch size, where the model leaves the first dimension of its inputs open.", ge=1, le=(1 << 31) - 1
    )
    inferences_per_request: int | None = _engine(
        None, "Number of inferences that a request counts as.", shown_default="the batch", ge=1, le=1 << 31
    )
    shapes: Shapes = _engine(
        {}, "Shape of an input (repeatable); N in front is the batch.", metavar="NAME:16x3x224x224"
    )
    shape_values: ShapeValues = _engine({}, "Values of a shape tensor (repeatable).", metavar="NAME:1,2")
    optimization_profile: int = _engine(0, "Number of the plan's optimization profile.", ge=0, le=1023)
    threads_per_context: int | None = _engine(
        None, "CPU threads of each context of ONNX Runtime.", shown_default="cores / contexts", ge=1, le=4096
    )

    contexts: int = _lanes(1, "Execution contexts, each on its own streams.", ge=1, le=MOST_CONTEXTS)
    buffers: int = _lanes(2, "Buffer sets of each context, so that copies overlap compute.", ge=1, le=64)
    partitions: int = _lanes(
        1,
        "Equal parts of the GPU's SMs: context i computes on partition i modulo N.",
        commands=FLEETS,
        ge=1,
        le=1024,
    )
    sms: Sms | None = _lanes(
        None,
        "SMs of each partition: a number, which the GPU rounds up, or a share of all, which is rounded down. In a run "
        "of several models, those without --sms share the SMs that are left.",
        commands=f"{FLEETS} profile",
        metavar="N|SHARE",
        shown_default="equal parts of all SMs",
    )
    priority: Priority | None = _lanes(
        None,
        "Priority of the contexts on the GPU: high, normal, low, or CUDA's number, of which lower ones go first.",
        commands=FLEETS,
        metavar="high|normal|low|N",
        shown_default="that of a plain stream",
    )
    requests_per_launch: int = _lanes(
        1, "Requests of a closed loop that one CUDA graph launches together.", commands="", ge=1, le=64
    )
    graph: bool = _lanes(True, "Launch CUDA graphs instead of single calls.", commands=ENGINES)
    submit: Literal["auto", "graph", "apart"] = _lanes("auto", "Copy within the CUDA graph or apart; auto tries both.")
    copies: bool = _lanes(True, "Copy inputs and outputs with every request.")
    device_times: Literal["on", "off"] = _lanes(
        "on",
        "Measure when each request is copied and computed. off saves the host most CUDA events: throughput and latency "
        "stay exact, but h2d, compute, d2h and device are not measured.",
    )
    wait: Literal["spin", "block"] = _lanes("spin", "Poll for completions, or sleep until they come.")

    scenario: ScenarioName | None = load_option(
        None,
        "Load of an MLPerf scenario, with a result by its rules; options that are given take precedence.",
        commands="",
    )
    load: SkipJsonSchema[Load] = Field(exclude=True)
    max_queue: int | None = load_option(
        None,
        "Drop a request that comes due while N wait in the queue; it counts as a miss.",
        commands="sweep capacity",
        metavar="N",
        ge=0,
        le=MOST_REQUESTS,
    )

    mix: Annotated[str, kept(parse_mix), TEXT_OR_LIST] | None = _requests(
        None,
        "Batch sizes (or NAME=SHAPE) of requests and their weights, drawn at random.",
        commands="capacity",
        metavar="'1:0.7, 8:0.3'",
    )
    batcher: Annotated[str, kept(parse_batching), TEXT_OR_LIST] | None = _requests(
        None,
        "Form batches of single requests in front of the lanes, as a server's dynamic batcher does.",
        commands="sweep capacity",
        metavar="max=16,delay=2ms",
    )
    inputs: Sources = _requests(
        ("random",),
        "Inputs of requests (repeatable).",
        commands=ENGINES,
        metavar="random|zeros|FILE.npz|NAME:FILE",
        shown_default="random",
    )
    input_sets: int = _requests(4, "Number of different random inputs, used in turn.", ge=1, le=100_000)
    input_range: dict[str, Range] = _requests(
        {}, "Range of random values of an input (repeatable).", commands=ENGINES, metavar="NAME:LOW..HIGH"
    )
    seed: int = _requests(1, "Seed for all random draws.", commands=f"{ENGINES} {PLANS}", ge=0, le=(1 << 63) - 1)
    verify: bool = _requests(False, "First compare outputs under load with those of a quiet run.")
    verify_against: FileName | None = _requests(
        None,
        "First compare a quiet request's outputs with those of an ONNX model in FP32 on ONNX Runtime, or of a file "
        "(.npz, or .npy of one output); with --fp16 the engine's own model is taken where it is known.",
        metavar="MODEL.onnx|OUTPUTS.npz",
    )
    verify_tolerance: Precision | None = _requests(
        None,
        "Largest deviation from that reference, as a share of the output's largest magnitude; beyond it a run is "
        "INVALID.",
        metavar="SHARE",
        shown_default="by the precision and the number of nodes",
    )

    requests: int | None = _ending(
        None, "Number of requests to measure; with --duration, whichever takes longer.", ge=1, le=10**12
    )
    objectives: Objectives = _objectives(
        (),
        "Objective (SLO): a bound on a percentile, errors, drops, throughput, goodput, power or energy (repeatable).",
        metavar="'latency.p99 < 10ms'",
        alias="objective",
    )
    max_lateness: Duration | None = _objectives(
        None,
        "p99 of the generator's own lateness above which a measurement is INVALID (of few requests p95, p90 or the "
        "maximum).",
        commands=SEARCHES,
        metavar="TIME",
        shown_default="by the latency and the objectives",
    )

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The fields, and the options that make the load in place of the load."""
        schema = handler(core_schema)
        handler.resolve_ref_schema(schema)["properties"].update(LoadOptions.model_json_schema()["properties"])
        return schema

    @model_validator(mode="before")
    @classmethod
    def _load_of_options(cls, data: Any) -> Any:
        """`load`, made of the options in LoadOptions; an option without a value is one that was not given."""
        if not isinstance(data, dict) or isinstance(data.get("load"), Load):
            return data
        given = {key: value for key, value in data.items() if value is not None}
        options = LoadOptions.model_validate({key: given[key] for key in OPTIONS if key in given})
        # Values that change nothing, wherever they are written.
        unset = {"trace_loop": False, "stages_loop": False, "time_scale": 1}
        values = {key: value for key, value in options if value is not None and unset.get(key) != value}
        others = {key: given[key] for key in ("requests", "batcher", "max_queue") if key in given}
        rest = {key: value for key, value in data.items() if key not in OPTIONS}
        try:
            return {**rest, "load": load_of({**values, **others})}
        except UsageError as error:
            raise ValueError(str(error)) from None

    @model_serializer(mode="wrap")
    def _load_as_options(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = serialize(self)
        return {**written, **self.load.options()}

    @field_validator("objectives")
    @classmethod
    def _objectives_are_few(cls, objectives: tuple[Objective, ...]) -> tuple[Objective, ...]:
        """Each once, and no more than observers have room for."""
        if len(objectives) > MOST_OBJECTIVES:
            raise ValueError(f"no more than {MOST_OBJECTIVES} objectives: leave some out")
        return objectives

    @model_validator(mode="after")
    def _requests_are_of_known_kinds(self) -> Self:
        """Refuse options that mixes, batchers and bounded queues do not go together with."""
        if self.inputs != ("random",) and self.input_sets != type(self).model_fields["input_sets"].default:
            others = "zeros, or with files of your own"
            raise ValueError(f"--input-sets counts random input sets: leave it out with {others}")
        parts, batching = self.mix_parts, self.batching
        several = "mix" if self.mix else "batcher" if self.batcher else None
        if self.mix and self.batcher:
            raise ValueError("--mix and --batcher exclude each other: the batcher decides how large batches are")
        for key in ("batch", "inferences_per_request") if several else ():
            if getattr(self, key) is not None:
                raise ValueError(f"--{several} decides how large requests are: leave {option_name(key)} out")
        if self.shapes and any(part.shapes for part in parts):
            raise ValueError("this mix has shapes of its own: leave --shapes out, or write its parts as SIZE:WEIGHT")
        if several and not {"random", "zeros"}.issuperset(self.inputs):
            raise ValueError(f"inputs from files have one size, and --{several} needs several: take random or zeros")
        if several and not self.copies:
            raise ValueError(f"--{several} needs copies, as what the device holds has one size: leave --no-copies out")
        unlike = "--no-graph" if not self.graph else "--no-copies" if not self.copies else None
        if self.submit != "auto" and unlike is not None:
            raise ValueError(f"--submit says whether a CUDA graph holds the copies: leave it out with {unlike}")
        if self.requests_per_launch > 1 and (not self.load.closed or several):
            raise ValueError(
                "--requests-per-launch is for closed loops of one size, where the next requests always wait: leave it "
                f"out, or {f'--{several}' if several else 'the options of an open loop'}"
            )
        timed = next((item for item in self.objectives if item.metric_name in DEVICE_TIMES), None)
        if timed is not None and self.device_times == "off":
            raise ValueError(f"an objective on {timed.metric_name} needs device times: leave --device-times off out")
        if batching and self.max_queue is not None and self.max_queue < batching.sizes[-1]:
            full = f"a batch of {batching.sizes[-1]}"
            raise ValueError(f"--max-queue {self.max_queue} leaves no room for {full}: raise it")
        if self.max_queue is None and not self.load.closed and any(item.kind == "drops" for item in self.objectives):
            raise ValueError("an objective on drops needs --max-queue, such as --max-queue 8: else nothing is dropped")
        return self

    @property
    def in_flight(self) -> int:
        """The most requests in flight; in a closed loop so many always are."""
        return self.contexts * self.buffers * self.requests_per_launch

    def require_contexts(self) -> None:
        """Raise UsageError where a partition has no context."""
        if self.contexts < self.partitions:
            raise UsageError(
                f"--partitions {self.partitions} needs as many contexts: give --contexts {self.partitions} or more, or "
                "take --sms for a part of the GPU"
            )

    @property
    def mix_parts(self) -> tuple[Part, ...]:
        """The parts of the mix; empty without one."""
        return () if self.mix is None else parse_mix(self.mix)

    @property
    def batching(self) -> Batching | None:
        """What the batcher is to do; None without one."""
        return None if self.batcher is None else parse_batching(self.batcher)

    @property
    def parts(self) -> tuple[Model, ...]:
        """A model of one size for each kind of request: of the mix, or of the batches that form; itself without either.

        What they take of `shapes` has -1 for its first size: the batch, as far as the engine leaves it open
        (engines/shapes.py)."""
        rest = {name: (-1, *shape[1:]) if shape else shape for name, shape in self.shapes.items()}
        if self.batching is not None:
            sizes: list[dict[str, Any]] = [{"batch": size, "shapes": rest} for size in self.batching.sizes]
        elif self.mix is not None:
            sizes = [{"batch": part.batch, "shapes": dict(part.shapes) or rest} for part in self.mix_parts]
        else:
            return (self,)
        return tuple(self.model_copy(update={**size, "mix": None, "batcher": None}) for size in sizes)
