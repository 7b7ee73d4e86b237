"""From a configuration file and a command line to a checked RunConfig: defaults < file < command line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from loadtrt.asked.config import MOST_MODELS, RunConfig, model_name
from loadtrt.asked.declaring import shown_as
from loadtrt.asked.faults import MOST_FAULTS, fault_of, joined, naming_model
from loadtrt.asked.fields import option_name
from loadtrt.asked.load_declarations import LoadOptions
from loadtrt.asked.load_options import OPTIONS as LOAD_OPTIONS
from loadtrt.asked.load_options import load_of, merged
from loadtrt.asked.mlperf import overruled_by_scenario, with_scenario
from loadtrt.asked.model import Model
from loadtrt.errors import UsageError, nearest
from loadtrt.load.request_sizes import overruled_sizes
from loadtrt.printing import bounded_repr, say, shortened

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from pydantic.fields import FieldInfo

    from loadtrt.asked.load import Load

_RESULT = re.compile(r"loadtrt\.[a-z]+/1")  # the versions of results/
_ENGINE = re.compile(r"^(zoo|simulated|stressor):|\.(plan|trt|engine|onnx)$")  # as engines are named
# Every option by its key: as YAML has it, and with dashes as the command line has it; in the order of --help.
FIELDS: dict[str, FieldInfo] = {
    field.alias or name: field
    for part in (LoadOptions, Model, RunConfig)
    for name, field in part.model_fields.items()
    if shown_as(field) is not None
}
SHOWN = {key: shown for key, field in FIELDS.items() if (shown := shown_as(field)) is not None}
MODEL_KEYS = frozenset(
    {field.alias or name for part in (Model, LoadOptions) for name, field in part.model_fields.items()} - {"load"}
)
RUN_KEYS = frozenset(FIELDS) - MODEL_KEYS


def keys_of(*groups: str) -> frozenset[str]:
    """The keys of the options in these groups of --help."""
    return frozenset(key for key, shown in SHOWN.items() if shown.group in groups)


def keys_for(command: str) -> frozenset[str]:
    """The keys of the options that a command takes."""
    return frozenset(key for key, shown in SHOWN.items() if command in {"run", *shown.commands})


def ending_otherwise(command: str) -> frozenset[str]:
    """The keys that end a run early, or make it a part of one, and that a command which makes many runs does not take:
    it leaves those of a file out."""
    return (keys_of("Ending") | {"abort_on_fail", "abort_delay", "profile", "worker", "model_processes"}) - keys_for(
        command
    )


def config_schema() -> dict[str, Any]:
    """JSON schema of a configuration file, for editors: the options of a run of one model, or of the run with those of
    each model under `models`."""
    schema = RunConfig.model_json_schema()
    schema["properties"] |= schema["$defs"]["Model"]["properties"]
    del schema["required"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


_ONE_MODEL = "{} takes one model, and there are {}: {}"
_OTHERS = "leave the others out, or run all with 'loadtrt run'"
# What makes a run load code that a configuration names.
CODE = ("plugins", "allow_host_code", "lean_library")
# What a run writes and how it is watched: no part of what is measured.
OUTPUT_KEYS = keys_of("Results", "Watching") - {"profile", "telemetry"}
_JUDGED = {"shared_gpu"}  # but it decides the verdict; a search may be resumed with it


def load_config(
    file: Path | RunConfig | None,
    options: dict[str, Any],
    without: Collection[str] = (),
    *,
    several: bool = False,
    base: bool = False,
) -> RunConfig:
    """The configuration of `file` with `options` laid over it.

    file: YAML, or a run.json for the same run again, without its plugins and other code; None for no file. It holds
        options, or options of the run and `models:` with the options of each by name. A configuration of one model
        stands for a file of its options.
    options: by key; None for one that is not given; `models` has those of single models by name. A model's own win,
        and those of any model are for all of them.
    without: keys of the file to leave out.
    several: whether there may be several models.
    base: whether it is that of many runs, which `varied` makes of it and checks.

    Raises UsageError that names every fault: a file that cannot be read, is not YAML or is not a mapping, an unknown
    key (with the nearest), a value of the wrong kind.
    """
    data, source = {}, "the command line"
    if isinstance(file, RunConfig):
        data = require_one_model(file).options()
    elif file is not None:
        data, source = _read_yaml(file, options), str(file)
    config = _config_of(data, options, without, source, several=several, base=base)
    return config if several else require_one_model(config)


def require_one_model(config: RunConfig, option: str = "") -> RunConfig:
    """The configuration. Raises UsageError where it has several models, and the option takes one; "": the command."""
    if len(config.models) > 1:
        remedy = "leave it out, or make a run of one model" if option else _OTHERS
        raise UsageError(_ONE_MODEL.format(option or "this command", ", ".join(config.models), remedy))
    return config


def varied(base: RunConfig, **changes: object) -> RunConfig:
    """The configuration of a run of one model with some options changed.

    changes: by key, as YAML has them; None takes an option away.

    Raises UsageError.
    """
    removed = {key for key, value in changes.items() if value is None}
    return _config_of(base.options(), changes, removed, "the command line")


def read_load(options: dict[str, Any]) -> Load:
    """The load that these options make, outside a run.

    options: those of LoadOptions by key, as the command line has them; None for one that is not given.

    Raises UsageError.
    """
    given = {key: value for key, value in options.items() if value is not None}
    try:
        values = dict(LoadOptions.model_validate(given))
    except ValidationError as error:
        faults = [fault_of(item, given, "the command line", False) for item in error.errors()]
        raise UsageError(joined(faults, len(faults))) from None
    return load_of({key: value for key, value in values.items() if value is not None})


def _config_of(
    data: dict[str, Any],
    options: dict[str, Any],
    without: Collection[str],
    source: str,
    *,
    several: bool = False,
    base: bool = False,
) -> RunConfig:
    given = {key: value for key, value in options.items() if value is not None}
    of_file, of_line = _models(data, source), _models(given, "the options")
    file = {key: value for key, value in data.items() if key != "models"}
    _require_known(file, FIELDS, source)
    given.pop("models", None)
    _require_known(given, FIELDS, "the options")
    _require_utf8(given)
    for name, model in of_line.items():
        _require_utf8({"model": name, **model})
    if given.get("label") and isinstance(file.get("label"), dict):  # a build's beside those that a team always has
        given["label"] = file["label"] | given["label"]
    names = list({**of_file, **of_line}) or [""]
    if len(names) > MOST_MODELS:
        raise UsageError(f"{source}: {len(names)} models are too many: a run has {MOST_MODELS} at most")
    if len(names) > 1 and not several:
        raise UsageError(_ONE_MODEL.format("this command", ", ".join(names), _OTHERS))
    others = (*of_line.values(), *(of_file.values() if names[1:] else ()))  # that of a file's one model is replaced
    if "engine" in given and any("engine" in model for model in others):
        raise UsageError(
            f"--engine {given['engine']} is for a run of one model: write it as --model NAME={given['engine']}"
        )
    models: dict[str, dict[str, Any]] = {}
    of_run: dict[str, Any] = {}  # a load of one model that has no duration leaves that of the others
    for place, name in enumerate(names):
        written = merged(file, of_file.get(name, {}))
        flat = _laid_over({key: value for key, value in written.items() if key not in without}, given)
        flat = _laid_over(flat, of_line[name]) if name in of_line else flat
        models[name] = {key: value for key, value in flat.items() if key in MODEL_KEYS}
        if place and "seed" not in {**of_file.get(name, {}), **of_line.get(name, {})}:
            models[name]["seed"] = _next_seed(flat.get("seed", 1), place)
        of_run |= {key: value for key, value in flat.items() if key not in MODEL_KEYS}
    for name, model in models.items():
        if not model.get("engine"):
            where, add = (f" of model {name}", f"write --model {name}=ENGINE,…") if name else ("", "add --engine")
            raise UsageError(f"no engine{where}: {add} with a plan, an .onnx file, zoo:googlenet or simulated:null")
    named = {name or model_name(str(model["engine"])): model for name, model in models.items()}
    given = {**given, "models": of_line} if of_line else given
    faults = [fault for name in named for fault in _load_faults(named, name, given, source, bool(data.get("models")))]
    try:
        config = RunConfig.model_validate({**of_run, "models": named})
    except ValidationError as error:
        faults += [fault_of(item, given, source, bool(data.get("models"))) for item in error.errors()]
    if faults := list(dict.fromkeys(faults)):  # an option of all models is wrong once
        raise UsageError(joined(faults, len(faults)))
    if not base and (config.worker is not None or config.ray is not None):
        config.require_one_host()
    for name, asked in config.models.items():  # not where a result is read, which may be elsewhere
        with naming_model(config.models, name):
            asked.load.require()
            config.keys(asked)
            if not base:
                asked.require_contexts()
    return config


def _load_faults(
    models: dict[str, dict[str, Any]], name: str, given: dict[str, Any], source: str, named: bool
) -> list[str]:
    """What is wrong with the values of a model's load options. Where anything is, the model is left without them and
    what depends on them, so that faults of its other options are named too."""
    model = models[name]
    try:
        LoadOptions.model_validate({key: model[key] for key in LOAD_OPTIONS if key in model})
    except ValidationError as error:
        depends = {*LOAD_OPTIONS, "requests", "batcher", "max_queue"}
        models[name] = {key: value for key, value in model.items() if key not in depends}
        items = [{**item, "loc": ("models", name, *item["loc"])} for item in error.errors()]
        return [fault_of(item, given, source, named) for item in items]
    return []


def _laid_over(file: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The options of a run of one model: those of the file that the command line leaves room for, and its own."""
    dropped = overruled_by_scenario(given.get("scenario")) | overruled_sizes(file, given)
    return with_scenario(merged({key: value for key, value in file.items() if key not in dropped}, given))


def _next_seed(seed: object, place: int) -> object:
    """The seed of a later model of a run: with that of the first, requests of both would come at the same instants."""
    try:
        return int(str(seed)) + place
    except ValueError:
        return seed  # which is refused


def _require_utf8(given: dict[str, Any]) -> None:
    for key, value in given.items():
        if isinstance(value, str) and any("\ud800" <= sign <= "\udfff" for sign in value):
            raise UsageError(f"{option_name(key)}: the name is not UTF-8, as results are: rename the file")


def _models(data: dict[str, Any], source: str) -> dict[str, dict[str, Any]]:
    models = data.get("models", {})
    if not isinstance(models, dict) or not all(isinstance(model, dict) for model in models.values()):
        raise UsageError(f"{source}: models must hold names, each with the options of a model, such as engine: g.plan")
    read = {str(name): _with_underscores(model, f"{source}: models.{name}") for name, model in models.items()}
    for name, model in read.items():
        if not name.strip() or not name.isprintable():  # it stands in tables, in labels and behind FILE:
            raise UsageError(
                f"{source}: {name!r} is not a name of a model: write one line of letters, such as detector"
            )
        for key in RUN_KEYS.intersection(model):
            raise UsageError(f"{source}: models.{name}: '{key}' is an option of the run: write it beside models")
        _require_known(model, MODEL_KEYS, f"{source}: models.{name}")
    return read


def _require_known(data: dict[str, Any], known: Collection[str], source: str) -> None:
    keys = f"the keys are {', '.join(sorted(known))}"
    unknown = [str(key) for key in data if key not in known]
    if unknown:
        faults = [f"unknown key '{shortened(key)}': {nearest(key, known, keys)}" for key in unknown[:MOST_FAULTS]]
        raise UsageError(f"{source}: " + joined(faults, len(unknown)))


def _with_underscores(data: dict[Any, Any], source: object) -> dict[str, Any]:
    written = {str(key).replace("-", "_"): value for key, value in data.items()}
    if len(written) < len(data):
        twice = next(key for key in written if sum(str(other).replace("-", "_") == key for other in data) > 1)
        raise UsageError(f"{source}: '{shortened(twice)}' is there twice, with a dash and with an underscore")
    return written


def _read_yaml(file: Path, options: dict[str, Any] | None = None) -> dict[str, Any]:
    from loadtrt.asked.yaml_files import read_yaml

    if _ENGINE.search(name := str(file)):
        raise UsageError(
            f"{name} is an engine, not a configuration: write --engine {name}, or in Python engine={bounded_repr(name)}"
        )
    data = read_yaml(file)
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UsageError(f"{file} must hold option names with their values, such as 'contexts: 4'")
    if "schema_version" not in data:
        return _with_underscores(data, file)
    if not _RESULT.fullmatch(version := str(data["schema_version"])):
        raise UsageError(
            f"{file} has the schema '{shortened(version)}', which this loadtrt does not know: give a YAML file, or the "
            "options that the run had"
        )
    if not isinstance(data.get("config"), dict):
        raise UsageError(f"{file} is a result without the configuration of a run: give a YAML file or a run.json")
    # A run.json: the same run again, without writing over it.
    left_out = OUTPUT_KEYS - _JUDGED
    kept = {key: value for key, value in data["config"].items() if key not in left_out}
    return _without_code(kept, file, options or {})


def _without_code(config: dict[Any, Any], file: Path, options: dict[str, Any]) -> dict[str, Any]:
    """The configuration in a result without what makes a run load code, since results are data that people send each
    other; says so where the options do not decide it."""
    left_out: set[str] = set()

    def rest(part: dict[Any, Any]) -> dict[str, Any]:
        part = _with_underscores(part, file)
        left_out.update(key for key in CODE if part.get(key))
        return {key: value for key, value in part.items() if key not in CODE}

    data = rest(config)
    if isinstance(models := data.get("models"), dict):
        data["models"] = {name: rest(model) if isinstance(model, dict) else model for name, model in models.items()}
    undecided = [option_name(key) for key in CODE if key in left_out and options.get(key) is None]
    if undecided:
        say(
            f"{file} is a result, and no result makes a run load libraries or run host code: "
            f"if you trust their origin, add {' and '.join(undecided)}"
        )
    return data
