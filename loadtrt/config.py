"""The configuration of one run: every option of `loadtrt run`, checked all at once.

Layers: defaults < the file of `--config` < the command line. Times are int ns in here, text such as "10s" outside.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    field_serializer,
    field_validator,
    model_validator,
)

from loadtrt.errors import UsageError, nearest
from loadtrt.fields import Address, Duration, Names, Precision, Range, Rate, Shape, kept, option  # pydantic reads them
from loadtrt.load.arrivals import LOAD_OPTIONS, OF_ARRIVALS, contradiction, implied_arrivals, overruled
from loadtrt.load.batcher import parse_batching
from loadtrt.load.mix import overruled_sizes, parse_mix
from loadtrt.load.scenario import ScenarioName, overruled_by_scenario, with_scenario
from loadtrt.load.stages import parse_bursts, parse_stages
from loadtrt.load.trace import read_trace
from loadtrt.measure.board import MOST_OBJECTIVES
from loadtrt.measure.objective import parse_objective
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

DEFAULT_DURATION_NS = 10 * SECOND_NS
PRECISE_DURATION_NS = 60 * SECOND_NS  # at the most: a precision that is asked for ends it


class RunConfig(BaseModel):
    """One field for each option of `loadtrt run`; `loadtrt run --help` says what each does."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    # what serves
    engine: str
    on: Literal["auto", "tensorrt", "onnxruntime"] = "auto"
    module: str | None = None
    plugins: Names = ()
    allow_host_code: bool = False
    device: int = Field(0, ge=0)
    fp16: bool = False
    batch: int | None = Field(None, ge=1)
    shapes: dict[str, Shape] = {}
    shape_values: dict[str, tuple[int, ...]] = {}
    optimization_profile: int = Field(0, ge=0)

    # how it is driven
    contexts: int = Field(1, ge=1, le=1024)
    buffers: int = Field(2, ge=1, le=64)
    requests_per_launch: int = Field(1, ge=1, le=64)
    graph: bool = True
    copies: bool = True
    wait: Literal["spin", "block"] = "spin"
    threads_per_context: int | None = Field(None, ge=1)

    # the load
    scenario: ScenarioName | None = None  # what it asks for is written into the others
    arrivals: Literal["closed", "constant", "poisson", "gamma", "trace", "offline"] = "closed"
    rate: Rate | None = None  # the mean; that of stages and traces is not written, as it follows from them
    burstiness: float | None = Field(None, ge=0, le=100, allow_inf_nan=False)
    bursts: Annotated[str, kept(parse_bursts)] | None = None
    stages: Annotated[str, kept(parse_stages)] | None = None
    trace: str | None = None
    trace_column: str | None = None
    time_scale: float = Field(1.0, gt=0, allow_inf_nan=False)
    trace_loop: bool = False
    _own_ns: int | None = PrivateAttr(None)  # how long stages or a trace take
    max_queue: int | None = Field(None, ge=0)
    mix: Annotated[str, kept(parse_mix)] | None = None
    batcher: Annotated[str, kept(parse_batching)] | None = None
    seed: int = Field(1, ge=0)
    inputs: Names = ("random",)
    input_sets: int = Field(4, ge=1)
    input_range: dict[str, Range] = {}

    # the phases
    warmup: Duration = SECOND_NS
    duration: Duration | None = None
    requests: int | None = Field(None, ge=1)
    max_duration: Duration | None = None
    drain: Duration = 10 * SECOND_NS
    verify: bool = False
    objective: Names = ()
    max_lateness: Duration | None = None
    abort_on_fail: bool = False
    abort_delay: Duration = 5 * SECOND_NS
    precision: Precision | None = None
    profile: bool = False

    # what is shown and kept
    json_file: str | None = Field(None, alias="json")
    export_times: str | None = None
    export_profile: str | None = None
    export_layer_info: str | None = None
    export_output: str | None = None
    junit: str | None = None
    quiet: bool = False

    # who watches while it goes on
    live: bool = True
    telemetry: bool = True
    metrics: Address | None = None
    metrics_linger: Duration = 3 * SECOND_NS
    metrics_native: bool = False

    @field_validator("shape_values", mode="before")
    @classmethod
    def _values(cls, value: object) -> object:
        """{"size": (8, 8)} of {"size": "8,8"}."""
        if not isinstance(value, dict):
            return value
        return {name: item.split(",") if isinstance(item, str) else item for name, item in value.items()}

    @field_validator("objective")
    @classmethod
    def _objectives_are_whole(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Every one parses, and there are no more than observers have room for."""
        try:
            texts = tuple(dict.fromkeys(parse_objective(text).text for text in value))
        except UsageError as error:
            raise ValueError(str(error)) from None
        if len(texts) > MOST_OBJECTIVES:
            raise ValueError(f"no more than {MOST_OBJECTIVES} objectives: leave some out")
        return texts

    @field_serializer("rate")
    def _rate_as_given(self, rate: float | None) -> float | None:
        return None if self.stages or self.trace else rate

    @model_validator(mode="before")
    @classmethod
    def _arrivals_by_what_is_given(cls, data: object) -> object:
        if isinstance(data, dict) and data.get("arrivals") is None:
            implied = implied_arrivals({key for key, value in data.items() if value is not None})
            return {**data, "arrivals": implied} if implied else data
        return data

    @model_validator(mode="before")  # the last of these runs first
    @classmethod
    def _scenario_fills_in(cls, data: object) -> object:
        try:
            return with_scenario(data) if isinstance(data, dict) else data
        except UsageError as error:
            raise ValueError(str(error)) from None

    @model_validator(mode="after")
    def _load_is_one(self) -> Self:
        """One source of load; the mean rate and the length of stages and traces, as far as max_duration lets them."""
        fields = type(self).model_fields
        wrong = contradiction(self.arrivals, [it for it in LOAD_OPTIONS if getattr(self, it) != fields[it].default])
        if wrong is not None:
            raise ValueError(wrong)
        try:  # now, before an engine is loaded
            trace = None if self.trace is None else read_trace(self.trace, self.trace_column, self.time_scale)
        except UsageError as error:
            raise ValueError(str(error)) from None
        own = parse_stages(self.stages) if self.stages else trace
        if own is not None:
            self._own_ns = None if self.trace_loop else own.duration_ns
            length = own.duration_ns if self.trace_loop else self.least_duration_ns
            self.__dict__["rate"] = own.requests(length) * SECOND_NS / max(length, 1)  # frozen from here on
        return self

    @model_validator(mode="after")
    def _load_is_whole(self) -> Self:
        if self.inputs != ("random",) and self.input_sets != type(self).model_fields["input_sets"].default:
            raise ValueError(
                "--input-sets counts random input sets: leave it out with zeros, or with files of your own"
            )
        for name in ("metrics_native", "metrics_linger"):
            if self.metrics is None and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"{option(name)} is about metrics: add --metrics, such as --metrics :9400, or leave it out"
                )
        for name in ("export_profile", "export_layer_info"):
            if getattr(self, name) is not None and not self.profile:
                raise ValueError(f"{option(name)} is written from a profile: add --profile")
        if self.max_duration is not None and self.duration is not None and self.max_duration < self.duration:
            raise ValueError("--max-duration is shorter than --duration: raise one or lower the other")
        if self.max_duration == 0 or (self.duration == 0 and self.requests is None):
            raise ValueError("a run of 0s measures nothing: give --duration and --max-duration a time above 0")
        return self

    @model_validator(mode="after")
    def _requests_are_of_known_kinds(self) -> Self:
        """What mixes, batchers and bounded queues go together with."""
        several = "mix" if self.mix else "batcher" if self.batcher else None
        if self.mix and self.batcher:
            raise ValueError("--mix and --batcher exclude each other: the batcher decides how large batches are")
        if several and self.batch is not None:
            raise ValueError(f"--{several} says how large requests are: leave --batch out")
        if self.mix and self.shapes and any(part.shapes for part in parse_mix(self.mix)):
            raise ValueError("this mix has shapes of its own: leave --shapes out, or write its parts as SIZE:WEIGHT")
        if several and not {"random", "zeros"}.issuperset(self.inputs):
            raise ValueError(f"inputs from files have one size, and --{several} needs several: take random or zeros")
        if several and not self.copies:
            raise ValueError(
                f"--{several} needs copies, as what lies on the device has one size: leave --no-copies out"
            )
        if several and self.profile:
            raise ValueError(f"a profile is of requests of one size: leave --{several} out")
        if self.requests_per_launch > 1 and (self.arrivals != "closed" or several):
            raise ValueError(
                "--requests-per-launch is for closed loops of one size, where the next ones are always there: leave it "
                f"out, or {f'--{several}' if several else 'what makes requests come by themselves'}"
            )
        if self.arrivals == "closed":
            for name in OF_ARRIVALS:
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"{option(name)} is for requests that come by themselves: add --rate, such as 500/s"
                    )
        most = parse_batching(self.batcher).sizes[-1] if self.batcher else 1
        if self.batcher and self.max_queue is not None and self.max_queue < most:
            raise ValueError(f"--max-queue {self.max_queue} leaves no room for a batch of {most}: raise it")
        if self.abort_on_fail and not self.objective:
            raise ValueError("--abort-on-fail needs an objective: add --objective, such as 'latency.p99 < 10ms'")
        if self.abort_delay != type(self).model_fields["abort_delay"].default and not self.abort_on_fail:
            raise ValueError("--abort-delay is about --abort-on-fail: add that, or leave this out")
        return self

    @property
    def parts(self) -> tuple[RunConfig, ...]:
        """A configuration of one size for each kind of requests: of the mix, or of the batches that form; itself where
        all are alike. What they take of `shapes` has -1 for its first size: the batch, as far as the engine leaves it
        open (engines/shapes.py)."""
        if self.mix is None and self.batcher is None:
            return (self,)
        rest = {name: (-1, *shape[1:]) if shape else shape for name, shape in self.shapes.items()}
        if self.batcher is not None:
            sizes: list[dict[str, Any]] = [
                {"batch": size, "shapes": rest} for size in parse_batching(self.batcher).sizes
            ]
        else:
            parts = parse_mix(self.mix or "")
            sizes = [{"batch": part.batch, "shapes": dict(part.shapes) or rest} for part in parts]
        return tuple(self.model_copy(update={**size, "mix": None, "batcher": None}) for size in sizes)

    @property
    def least_duration_ns(self) -> int:
        """How long to measure at least; with `requests` too, the run ends when both are met."""
        if self._own_ns is not None:
            return self._own_ns if self.max_duration is None else min(self.max_duration, self._own_ns)
        if self.duration is not None:
            return self.duration
        usual = DEFAULT_DURATION_NS if self.precision is None else PRECISE_DURATION_NS
        most = usual if self.max_duration is None else min(self.max_duration, usual)
        return most if self.requests is None else 0


# What a run writes, and how loudly it speaks: no part of what is measured.
OUTPUT_KEYS = {
    *("json", "quiet", "live", "metrics", "metrics_linger", "metrics_native"),
    *("export_times", "export_profile", "export_layer_info", "export_output", "junit"),
}
# The keys of a configuration file, which are the options of `loadtrt run`.
KEYS = {field.alias or name for name, field in RunConfig.model_fields.items()}


def load_config(file: Path | None, options: dict[str, Any], without: Collection[str] = ()) -> RunConfig:
    """The configuration of `file`, but for its keys in `without`, with `options` (None: not given) laid over it.

    Raises UsageError that names every fault: a file that cannot be read, is not YAML or not a mapping, an unknown key
    (with the nearest), a value of the wrong kind.
    """
    data = _read_yaml(file) if file else {}
    source = str(file) if file else "the command line"
    keys = f"the keys are {', '.join(sorted(KEYS))}"
    unknown = [f"unknown key '{key}': {nearest(key, KEYS, keys)}" for key in data if key not in KEYS]
    if unknown:
        raise UsageError(f"{source}: " + "; ".join(unknown))
    given = {key: value for key, value in options.items() if value is not None}
    # Who takes no duration from the file takes no load: stages and traces have their own.
    left = overruled(data, given).union(
        without, (*LOAD_OPTIONS, "scenario", *OF_ARRIVALS) if "duration" in without else ()
    )
    left |= overruled_by_scenario(given.get("scenario")) | overruled_sizes(data, given)
    merged = {**{key: value for key, value in data.items() if key not in left}, **given}
    for key, value in merged.items():
        if isinstance(value, str) and not value.isprintable() and any("\ud800" <= sign <= "\udfff" for sign in value):
            raise UsageError(f"{option(key)}: the name is no UTF-8, as results are: rename it")
    if "engine" not in merged:
        raise UsageError("no engine: add --engine with a plan, an .onnx file, zoo:googlenet or simulated:null")
    try:
        return RunConfig.model_validate(merged)
    except ValidationError as error:
        raise UsageError("; ".join(_fault(item, given, source) for item in error.errors())) from None


def _read_yaml(file: Path) -> dict[str, Any]:
    import yaml

    class Loader(yaml.SafeLoader):
        """YAML 1.2's booleans and numbers: YAML 1.1 reads the key `on` as True, and the mix 8:1 as 8·60 + 1."""

    sixties = ("tag:yaml.org,2002:str", re.compile(r"^[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?$"))
    Loader.yaml_implicit_resolvers = {
        letter: [sixties, *((tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool")]
        for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:[tT]rue|[fF]alse)$"), list("tTfF"))

    try:
        data = yaml.load(file.read_text(encoding="utf-8"), Loader)  # noqa: S506  # a SafeLoader
    except OSError as error:
        raise UsageError(f"cannot read configuration {file}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        wrong = str(error)
        if isinstance(error, yaml.MarkedYAMLError) and (mark := error.problem_mark):
            wrong = f"{error.problem} in line {mark.line + 1}, column {mark.column + 1}"
        wrong = " ".join(wrong.replace("'<stream end>'", "the end").split())
        raise UsageError(f"{file} is not YAML: {wrong}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UsageError(f"{file} must hold option names with their values, such as 'contexts: 4'")
    if "schema_version" in data and isinstance(data.get("config"), dict):
        # A run.json: the same run again, without writing over it.
        data = {key: value for key, value in data["config"].items() if key not in OUTPUT_KEYS}
    return {str(key).replace("-", "_"): value for key, value in data.items()}


def _fault(item: Any, given: dict[str, Any], source: str) -> str:
    message = item["msg"].removeprefix("Value error, ").partition(", unable to ")[0]  # parse or interpret it
    path = item["loc"]
    if not path:
        return str(message)
    where = option(str(path[0])) if path[0] in given else f"{source}: {path[0]}"
    inside = "".join(f".{part}" for part in path[1:])
    values = item["input"] if isinstance(item["input"], tuple) else (item["input"],)
    pieces = message.split("'")[1::2]  # what the message quotes may be a part of a value
    told = any(str(value) in message or any(piece in str(value) for piece in pieces) for value in values)
    wrong = "" if told else f" (it is {item['input']!r})"
    return f"{where}{inside}: {message[0].lower()}{message[1:]}{wrong}"
