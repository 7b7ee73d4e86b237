"""The declaration of every option of a model: its engine, lanes, load, requests and objectives.

Times are int ns in here, text such as "10s" outside.
"""

from __future__ import annotations

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

from loadtrt.asked.declaring import ENGINES, LOADS, PLANS, SEARCHES, Strict, option
from loadtrt.asked.fields import (
    TEXT_OR_LIST,
    ArrivalRate,
    Duration,
    FileName,
    Objectives,
    Precision,
    Range,
    Shapes,
    ShapeValues,
    Source,
    Sources,
    kept,
)
from loadtrt.asked.load import Load
from loadtrt.asked.load_options import ARRIVALS, OPTIONS, load_of
from loadtrt.asked.mlperf import ScenarioName  # noqa: TC001  # pydantic reads it
from loadtrt.asked.objective import MOST_OBJECTIVES, Objective
from loadtrt.asked.request_kinds import require_known_kinds
from loadtrt.errors import UsageError
from loadtrt.load.arrivals import MOST_REQUESTS, parse_bursts, parse_stages
from loadtrt.load.request_sizes import Batching, Part, parse_batching, parse_mix


class LoadOptions(Strict):
    """The options that make a load: see asked/load.py."""

    arrivals: Literal[ARRIVALS] | None = option(  # type: ignore[valid-type]  # a tuple of the processes' names
        None,
        "How requests arrive: in a closed loop; by a constant, Poisson or gamma process at --rate or in --stages; as "
        "in a trace; or offline, all --requests at once.",
        "Load",
        SEARCHES,
        shown_default="closed; with a rate poisson",
    )
    rate: ArrivalRate | None = option(
        None,
        "Requests due per second in an open loop; with --stages or --trace their mean, to which they are scaled.",
        "Load",
        "sweep",
        metavar="500/s",
    )
    burstiness: float | None = option(
        None,
        "Coefficient of variation of the gaps of gamma arrivals; 0 is constant, 1 is Poisson.",
        "Load",
        LOADS,
        metavar="CV",
        ge=0,
        le=100,
        allow_inf_nan=False,
    )
    bursts: Annotated[str, kept(parse_bursts)] | None = option(
        None,
        "Bursts and pauses: 1s/4s makes all requests of --rate due within 1 s of each 5 s.",
        "Load",
        SEARCHES,
        metavar="ON/OFF",
    )
    stages: Annotated[str, kept(parse_stages), TEXT_OR_LIST] | None = option(
        None, "Arrival rates one after the other.", "Load", LOADS, metavar="'100/s:10s, ramp 100/s-500/s:1m'"
    )
    stages_loop: bool | None = option(
        None, "Begin the stages again until --duration and --requests are met.", "Load", "sweep", shown_default="off"
    )
    trace: FileName | None = option(
        None,
        "Replay the instants of a file (CSV, JSONL, JSON or a log, also .gz); the first is due at once.",
        "Load",
        LOADS,
        metavar="FILE",
    )
    trace_column: str | None = option(
        None, "Column or key of the trace that holds instants, where there are several.", "Load", LOADS, metavar="NAME"
    )
    time_scale: float | None = option(
        None,
        "Factor on all times of the trace: 0.5 replays it twice as fast; 0.001, 1e-6 and 1e-9 read ms, µs and ns.",
        "Load",
        "sweep",
        metavar="X",
        shown_default="1",
        ge=1e-9,
        le=1e9,
        allow_inf_nan=False,
    )
    trace_loop: bool | None = option(
        None, "Begin the trace again until --duration and --requests are met.", "Load", "sweep", shown_default="off"
    )


class Model(Strict):
    """A model of a run: an engine with its options, its lanes, its load, its requests and its objectives."""

    engine: Source = option(
        ...,
        "What serves: a plan, an .onnx file, zoo:googlenet, or simulated:KEY=VALUE,… (simulated:null).",
        "Engine",
        ENGINES,
    )
    on: Literal["auto", "tensorrt", "onnxruntime"] = option(
        "auto", "Runtime that executes the engine.", "Engine", ENGINES
    )
    module: str | None = option(
        None,
        "TensorRT module to import, such as tensorrt_lean.",
        "Engine",
        ENGINES,
        metavar="NAME",
        shown_default="by the plan",
    )
    plugins: Sources = option((), "Plugin library to load first (repeatable).", "Engine", ENGINES, metavar="FILE")
    allow_host_code: bool = option(
        False, "Let TensorRT run the host code that a version-compatible plan carries.", "Engine", ENGINES
    )
    device: int = option(0, "Number of the GPU.", "Engine", ENGINES, ge=0, le=1023)
    fp16: bool = option(
        False, "Plan: check that it computes in FP16. ONNX model: build or convert it to FP16.", "Engine", ENGINES
    )
    batch: int | None = option(
        None,
        "Batch size, where the model leaves the first dimension of its inputs open.",
        "Engine",
        ENGINES,
        ge=1,
        le=(1 << 31) - 1,  # TensorRT's dimensions are 32 bits wide up to 8.6
    )
    inferences_per_request: int | None = option(
        None, "Inferences that a request counts as.", "Engine", ENGINES, shown_default="the batch", ge=1, le=1 << 31
    )
    shapes: Shapes = option({}, "Shape of an input (repeatable).", "Engine", ENGINES, metavar="NAME:16x3x224x224")
    shape_values: ShapeValues = option(
        {}, "Values of a shape tensor (repeatable).", "Engine", ENGINES, metavar="NAME:1,2"
    )
    optimization_profile: int = option(
        0, "Number of the plan's optimization profile.", "Engine", ENGINES, ge=0, le=1023
    )
    threads_per_context: int | None = option(
        None,
        "CPU threads of each context of ONNX Runtime.",
        "Engine",
        ENGINES,
        shown_default="cores / contexts",
        ge=1,
        le=4096,
    )

    contexts: int = option(1, "Execution contexts, each on streams of its own.", "Lanes", SEARCHES, ge=1, le=1024)
    buffers: int = option(
        2, "Buffer sets of each context, so that copies overlap compute.", "Lanes", SEARCHES, ge=1, le=64
    )
    requests_per_launch: int = option(
        1, "Requests of a closed loop that one CUDA graph launches together.", "Lanes", ge=1, le=64
    )
    graph: bool = option(True, "Launch CUDA graphs instead of single calls.", "Lanes", ENGINES)
    copies: bool = option(True, "Copy inputs and outputs with every request.", "Lanes", SEARCHES)
    wait: Literal["spin", "block"] = option(
        "spin", "Poll for completions, or sleep until they come.", "Lanes", SEARCHES
    )

    scenario: ScenarioName | None = option(
        None, "Load of an MLPerf scenario, with a result by its rules; options that are given win.", "Load"
    )
    load: SkipJsonSchema[Load] = Field(exclude=True)
    max_queue: int | None = option(
        None,
        "Drop a request that comes due while N wait in the queue; it counts as a miss.",
        "Load",
        SEARCHES,
        metavar="N",
        ge=0,
        le=MOST_REQUESTS,
    )

    mix: Annotated[str, kept(parse_mix), TEXT_OR_LIST] | None = option(
        None,
        "Batch sizes (or NAME=SHAPE) of requests and their weights, drawn at random.",
        "Requests",
        "capacity",
        metavar="'1:0.7, 8:0.3'",
    )
    batcher: Annotated[str, kept(parse_batching), TEXT_OR_LIST] | None = option(
        None,
        "Form batches of single requests in front of the lanes, as a server's dynamic batcher does.",
        "Requests",
        SEARCHES,
        metavar="max=16,delay=2ms",
    )
    inputs: Sources = option(
        ("random",),
        "Inputs of requests (repeatable).",
        "Requests",
        ENGINES,
        metavar="random|zeros|FILE.npz|NAME:FILE",
        shown_default="random",
    )
    input_sets: int = option(
        4, "Number of different random inputs, used in turn.", "Requests", SEARCHES, ge=1, le=100_000
    )
    input_range: dict[str, Range] = option(
        {}, "Range of random values of an input (repeatable).", "Requests", ENGINES, metavar="NAME:LOW..HIGH"
    )
    seed: int = option(1, "Seed for all random draws.", "Requests", f"{ENGINES} {PLANS}", ge=0, le=(1 << 63) - 1)
    verify: bool = option(False, "First compare outputs under load with those of a quiet run.", "Requests", SEARCHES)
    verify_against: FileName | None = option(
        None,
        "First compare a quiet request's outputs with those of an ONNX model in FP32 on ONNX Runtime, or of a file; "
        "with --fp16 the engine's own model is taken where it is known.",
        "Requests",
        SEARCHES,
        metavar="MODEL.onnx|OUTPUTS.npz",
    )
    verify_tolerance: Precision | None = option(
        None,
        "Largest deviation from that reference, as a share of the output's largest magnitude; beyond it a run is "
        "INVALID.",
        "Requests",
        SEARCHES,
        metavar="SHARE",
        shown_default="by the precision and the number of nodes",
    )

    requests: int | None = option(
        None,
        "Number of requests to measure; with --duration, whichever takes longer.",
        "Ending",
        "sweep profile",
        ge=1,
        le=10**12,
    )
    objectives: Objectives = option(
        (),
        "Bound on a percentile, errors, drops, throughput, goodput, power or energy, an SLO (repeatable).",
        "Objectives",
        f"{SEARCHES} {PLANS}",
        metavar="'latency.p99 < 10ms'",
        alias="objective",
    )
    max_lateness: Duration | None = option(
        None,
        "p99 of the generator's own lateness above which a measurement is INVALID.",
        "Objectives",
        SEARCHES,
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
        unset = {
            "trace_loop": False,
            "stages_loop": False,
            "time_scale": 1,
        }  # values that change nothing, wherever they are written
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
        require_known_kinds(self)
        return self

    @property
    def in_flight(self) -> int:
        """The most requests in flight; in a closed loop so many always are."""
        return self.contexts * self.buffers * self.requests_per_launch

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
