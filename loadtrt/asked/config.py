"""The configuration of a run: its models, its phases, what watches it and what it writes. Options are declared here and
in asked/model.py, once; asked/reading.py makes a configuration of a file and a command line.

Times are int ns in here, text such as "10s" outside.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator

from loadtrt.asked.declaring import ENGINES, PLANS, SEARCHES, option
from loadtrt.asked.fields import Address, Duration, FileName, Precision, PushUrls, option_name
from loadtrt.asked.fleet_options import FleetOptions
from loadtrt.asked.labels import Labels  # noqa: TC001  # pydantic reads it
from loadtrt.asked.model import Model  # noqa: TC001  # pydantic reads it
from loadtrt.errors import UsageError
from loadtrt.load.dealing import Deal, parse_routing, parse_worker
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from loadtrt.load.arrivals import Course

DEFAULT_DURATION_NS = 10 * SECOND_NS
PRECISE_DURATION_NS = 60 * SECOND_NS  # at the most: reaching the precision ends the run earlier
MOST_MODELS = 64  # each has a board of 110 MiB, which fills as it is measured
# What a run of several models cannot have.
_OF_ONE_MODEL = ("profile", "export_times", "export_profile", "export_layer_info", "export_output")

# How an option under each heading of --help is declared, with the commands that most of them go with.
_ending = partial(option, group="Ending", commands=ENGINES)
_objectives = partial(option, group="Objectives")
_results = partial(option, group="Results")
_export = partial(_results, metavar="FILE", writes="JSON of trtexec")
_watching = partial(option, group="Watching")


class RunConfig(FleetOptions):
    """The configuration of a run: its models by name, its phases, what watches it and what it writes."""

    models: dict[str, Model] = Field(min_length=1)

    warmup: Duration = _ending(
        SECOND_NS, "Warm up at least this long, and until the GPU's clocks are steady.", metavar="TIME"
    )
    duration: Duration | None = _ending(
        None,
        "Measure this long.",
        commands=f"sweep profile interference {PLANS}",
        metavar="TIME",
        shown_default="10s, or as --requests takes",
    )
    max_duration: Duration | None = _ending(
        None, "End measuring after this, whatever else is asked for.", commands="sweep", metavar="TIME"
    )
    drain: Duration | None = _ending(
        None,
        "Wait this long for the last requests. An engine that completes nothing is not given up before this time.",
        commands=SEARCHES,
        metavar="TIME",
        shown_default="10s, and longer for requests in flight while the engine completes some",
    )
    precision: Precision | None = _ending(
        None,
        "End once the objectives' percentiles (or latency.p99) are known within this share, or after 60s.",
        commands="",
        metavar="3%",
    )
    abort_on_fail: bool = _objectives(False, "End the run once it shows that an objective is missed.")
    abort_delay: Duration = _objectives(
        5 * SECOND_NS, "Earliest end of a run by --abort-on-fail, at least 5s.", metavar="TIME"
    )

    profile: bool = _results(False, "After the run, time each layer in a separate pass.")
    json_file: FileName | None = _results(
        None,
        "Write the whole result as JSON; - is stdout.",
        commands=f"{ENGINES} {PLANS}",
        metavar="FILE|-",
        writes="result",
        alias="json",
    )
    export_times: FileName | None = _export(None, "Write the times of each request in trtexec's format.")
    export_profile: FileName | None = _export(
        None, "Write the times of the layers in trtexec's format.", commands="profile"
    )
    export_layer_info: FileName | None = _export(
        None, "Write the engine inspector's JSON, as trtexec does.", commands="profile"
    )
    export_output: FileName | None = _export(None, "Write the outputs of one further request in trtexec's format.")
    junit: FileName | None = _results(
        None, "Write validity and objectives as JUnit XML, one test each.", metavar="FILE", writes="XML"
    )
    labels: Labels = _results(
        {},
        "Label results and metrics (repeatable), such as build=17; in a file a mapping of names to values.",
        commands=SEARCHES,
        metavar="KEY=VALUE",
        alias="label",
    )
    quiet: bool = _results(False, "Print no progress and no summary.", commands=f"{ENGINES} {PLANS}")
    github: bool = _results(
        False, "Write annotations and the step's summary, in GitHub Actions.", commands=f"{SEARCHES} {PLANS}"
    )

    trt_log: FileName | None = _watching(
        None,
        "Write TensorRT's log without its verbose messages; - is stderr.",
        commands=ENGINES,
        metavar="FILE|-",
        writes="a log of TensorRT",
    )
    live: bool = _watching(True, "Draw a live view where stderr is a terminal.")
    telemetry: bool = _watching(True, "Sample the GPU's clocks, power and temperature.", commands=SEARCHES)
    shared_gpu: bool = _watching(
        False, "Accept other processes that compute on the GPU, and measure what they leave.", commands=SEARCHES
    )
    metrics: Address | None = _watching(
        None,
        "Serve Prometheus metrics; without a host, to this machine only.",
        commands=SEARCHES,
        metavar="[HOST]:PORT",
    )
    metrics_linger: Duration = _watching(
        3 * SECOND_NS,
        "Serve metrics this long after a run, so that two scrapes see its end.",
        commands=SEARCHES,
        metavar="TIME",
    )
    metrics_native: bool = _watching(
        False, "Offer native histograms to a Prometheus that asks for them.", commands=SEARCHES
    )
    push: PushUrls = _watching(
        (),
        "Push metrics (repeatable): to a Pushgateway (http://HOST:9091) at the end; by remote write (…/api/v1/write) "
        "and OTLP (…/v1/metrics) every 5 s, too.",
        commands=SEARCHES,
        metavar="URL",
    )
    nvtx: bool = _watching(
        False, "Mark phases, and requests that Python submits, for Nsight Systems.", commands=SEARCHES
    )

    @classmethod
    def of(cls, **options: Any) -> RunConfig:
        """The configuration that these options of `loadtrt run` make, by name and as the command line or YAML has them:
        RunConfig.of(engine="googlenet16.trt", contexts=4, rate="500/s"). Raises UsageError."""
        from loadtrt.asked.reading import load_config

        return load_config(None, options, several=True)

    @property
    def model(self) -> Model:
        """The model of a run of one model."""
        (model,) = self.models.values()
        return model

    def options(self) -> dict[str, Any]:
        """The options of a run of one model by key, as YAML has them."""
        written = self.model_dump(mode="json", by_alias=True)
        (model,) = written.pop("models").values()
        return {**model, **written}

    def alone(self, name: str) -> RunConfig:
        """The same run of this model alone."""
        changes: dict[str, Any] = {"models": {name: self.models[name]}}
        if not any(item.of_requests for item in self.models[name].objectives):  # the objectives are of the others
            changes |= {key: type(self).model_fields[key].default for key in ("abort_on_fail", "abort_delay")}
        if self.models[name].load.refuses("duration") is not None:  # so is the duration
            changes["duration"] = None
        return self.model_copy(update=changes)

    def with_model(self, **changes: Any) -> RunConfig:
        """The same run with attributes of its one model changed, which are not checked again."""
        ((name, model),) = self.models.items()
        return self.model_copy(update={"models": {name: model.model_copy(update=changes)}})

    def with_device(self, device: int) -> RunConfig:
        """The same run with all models on this GPU."""
        moved = {name: model.model_copy(update={"device": device}) for name, model in self.models.items()}
        return self.model_copy(update={"models": moved})

    @model_validator(mode="before")
    @classmethod
    def _options_are_for_of(cls, given: Any) -> Any:
        if isinstance(given, dict) and "models" not in given and "engine" in given:  # also in a damaged file
            raise UsageError("RunConfig takes models: write RunConfig.of(engine='g.plan', contexts=4) to name options")
        return given

    @model_validator(mode="after")
    def _run_is_whole(self) -> Self:
        if len(self.models) > 1:
            self._require_of_several()
        elif self.duration is not None and (wrong := self.model.load.refuses("duration")) is not None:
            raise ValueError(wrong)
        self._require_of_workers()
        shares = self.worker is not None or self.several_processes
        if shares and any(model.scenario is not None for model in self.models.values()):
            raise ValueError("MLPerf's scenarios are for one process: leave --scenario out")
        if self.model_processes:
            self._require_apart()
        if self.places_workers and any(model.device for model in self.models.values()):
            raise ValueError("--devices and --ray give each worker a GPU of its own: leave --device out")
        for model in self.models.values():
            if self.profile and (several := "mix" if model.mix else "batcher" if model.batcher else None):
                raise ValueError(f"a profile has requests of one size: leave --{several} out")
            if self.export_times is not None and model.device_times == "off":
                raise ValueError("--export-times writes times on the device: leave --device-times off out")
            if self.duration == 0 and model.requests is None:
                raise ValueError("a run of 0s measures nothing: give --duration a time above 0")
        if self.max_duration == 0:
            raise ValueError("a run of 0s measures nothing: give --max-duration a time above 0")
        for name in self.given("metrics_native", "metrics_linger") if self.metrics is None else ():
            raise ValueError(
                f"{option_name(name)} needs --metrics: add it, such as --metrics :18410, or leave this out"
            )
        for name in self.given("export_profile", "export_layer_info") if not self.profile else ():
            raise ValueError(f"{option_name(name)} is written from a profile: add --profile")
        if self.max_duration is not None and self.duration is not None and self.max_duration < self.duration:
            raise ValueError("--max-duration is shorter than --duration: raise one or lower the other")
        judged_early = (item.of_requests for model in self.models.values() for item in model.objectives)
        if self.abort_on_fail and not any(judged_early):
            raise ValueError(
                "--abort-on-fail needs an objective on a percentile, errors or drops, as others are judged at the end: "
                "add --objective, such as 'latency.p99 < 10ms'"
            )
        if self.given("abort_delay") and not self.abort_on_fail:
            raise ValueError("--abort-delay needs --abort-on-fail: add that, or leave this out")
        return self

    def _require_of_several(self) -> None:
        """Refuse options that are of a run of one model."""
        one = "leave it out, or make a run of one model"
        for name in self.given(*_OF_ONE_MODEL):
            raise ValueError(f"{option_name(name)} takes one model, and there are {', '.join(self.models)}: {one}")
        for name, model in self.models.items():
            if model.scenario is not None:
                raise ValueError(f"MLPerf's scenarios take one model: leave --scenario of {name} out")

    def _require_apart(self) -> None:
        """Refuse what models in processes of their own cannot have."""
        if len({model.device for model in self.models.values()}) > 1:
            raise ValueError("the models of a run use one GPU: give all the same --device, or make a run on each")
        for name, model in self.models.items():
            if model.priority is not None:
                raise ValueError(
                    f"--priority orders the streams of one process, and --model-processes gives '{name}' its own: "
                    "leave one of them out"
                )

    def least_ns(self, model: Model) -> int:
        """How long to measure this model at least, in ns; with `requests` too, measuring ends when both are met."""
        own_ns = model.load.own_ns
        if own_ns is not None:
            return own_ns if self.max_duration is None else min(self.max_duration, own_ns)
        if self.duration is not None:
            return self.duration
        usual = DEFAULT_DURATION_NS if self.precision is None else PRECISE_DURATION_NS
        most = usual if self.max_duration is None else min(self.max_duration, usual)
        return most if model.requests is None else 0

    def offered_per_s(self, model: Model) -> float | None:
        """Mean arrival rate of this model's load, in requests per second, as far as it comes to this worker; None
        where it has none."""
        rate, deal = model.load.mean_rate(self.least_ns(model)), self.deal
        return rate if rate is None or deal is None else rate * deal.share(self.keys(model))

    def course(self, model: Model) -> Course | None:
        """How this model's arrival rate changes with time, as far as it comes to this worker; None where there is none,
        or a trace decides."""
        course, deal = model.load.course(), self.deal
        return course if course is None or deal is None else course.scaled(deal.share(self.keys(model)))

    @property
    def deal(self) -> Deal | None:
        """What this process takes of a fleet's load; None where it takes all."""
        return None if self.worker is None else Deal(*parse_worker(self.worker), *parse_routing(self.routing))

    def due(self, model: Model) -> tuple[npt.NDArray[np.int64] | None, npt.NDArray[np.intp] | None]:
        """When this model's requests are due, in ns from the start, and their places among those of the fleet; None
        for a closed loop, and where all requests are this worker's, or may be. Raises UsageError."""
        due, deal = model.load.due(self.least_ns(model), model.requests or 0, model.seed), self.deal
        if due is None or deal is None or deal.pooled:
            return due, None
        places = deal.places(len(due), model.seed, self.keys(model))
        return due[places], places

    def drawing(self, model: Model) -> Model:
        """The model with the seed of what each worker draws by itself, such as a simulated engine's service times."""
        return model if self.deal is None else model.model_copy(update={"seed": self.deal.seed(model.seed)})

    def keys(self, model: Model) -> npt.NDArray[np.uint64] | None:
        """The keys by which this model's requests are dealt out; None for other routings."""
        routing, key = parse_routing(self.routing)
        return model.load.keys(key) if routing == "sticky" else None

    def own_requests(self, model: Model) -> int | None:
        """How many requests of this model to measure, as --requests says; of a worker its part."""
        deal = self.deal
        return model.requests if model.requests is None or deal is None else deal.requests(model.requests)


def model_name(engine: str) -> str:
    """What a model is called that has no name: the file or the zoo's model without its suffix."""
    kind, colon, rest = engine.partition(":")
    if kind == "simulated" and colon:
        return kind
    return re.sub(r"\.\w+$", "", PurePath(rest if kind == "zoo" and colon else engine).name) or engine
