"""Result files: the kind of a JSON file, and loadtrt's own results read from it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from pydantic import BaseModel, ValidationError

from loadtrt.asked.faults import fault_words
from loadtrt.errors import UsageError, nearest
from loadtrt.printing import shortened
from loadtrt.reading_files import MOST_RESULT_BYTES, parse_json, read_text
from loadtrt.results.capacity_result import CapacityResult, SweepResult
from loadtrt.results.fleet_result import FleetResult
from loadtrt.results.interference_checks import faults_of
from loadtrt.results.interference_result import InterferenceResult
from loadtrt.results.one_model import models_of
from loadtrt.results.placement_result import PlacementResult
from loadtrt.results.profile_result import ProfileResult
from loadtrt.results.repeat_result import RepeatResult
from loadtrt.results.run_result import RunResult
from loadtrt.stats.profiles import LayerComparison
from loadtrt.stats.regression import Comparison

_TRTEXEC_LOG = r"&&&& \w+ TensorRT|\[I\] === "
_Schema = TypeVar("_Schema", bound=BaseModel)


class NoResultError(UsageError):
    """A file holds why its command failed before it had a result."""


class Kind(StrEnum):
    """The kind of a file, as words of a sentence."""

    RUN = "a run of loadtrt"
    REPEAT = "several starts of a run of loadtrt"
    SWEEP = "a sweep of loadtrt"
    CAPACITY = "a search for capacity by loadtrt"
    INTERFERENCE = "a measurement of interference by loadtrt"
    FLEET = "a plan of a fleet by loadtrt"
    PLACEMENT = "a plan of several models by loadtrt"
    PROFILE = "a profile of loadtrt"
    TIMES = "times in trtexec's format (--exportTimes)"
    LAYER_TIMES = "a profile in trtexec's format (--exportProfile)"
    LAYERS = "layer information (--exportLayerInfo)"
    COMPARISON = "a comparison of two profiles by loadtrt"
    RUN_COMPARISON = "a comparison of runs by loadtrt"
    SIDECAR = "what loadtrt keeps beside a plan that it built"


Result: TypeAlias = (
    RunResult
    | RepeatResult
    | SweepResult
    | CapacityResult
    | InterferenceResult
    | FleetResult
    | PlacementResult
    | ProfileResult
    | LayerComparison
    | Comparison
)
SCHEMAS: dict[Kind, type[Result]] = {
    Kind.RUN: RunResult,
    Kind.REPEAT: RepeatResult,
    Kind.SWEEP: SweepResult,
    Kind.CAPACITY: CapacityResult,
    Kind.INTERFERENCE: InterferenceResult,
    Kind.FLEET: FleetResult,
    Kind.PLACEMENT: PlacementResult,
    Kind.PROFILE: ProfileResult,
    Kind.COMPARISON: LayerComparison,
    Kind.RUN_COMPARISON: Comparison,
}
_VERSIONS = {schema.model_fields["schema_version"].default: kind for kind, schema in SCHEMAS.items()}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A result with what to call it: the file from which it was read."""

    file: str
    result: Result


@dataclass(frozen=True, slots=True)
class ResultFile:
    """A file that was read.

    path: the file, with the model where one was named.
    text, content: its JSON, of which only what makes its kind was looked at.
    model: the one of a run of several that is meant; None for all.
    """

    path: Path
    kind: Kind
    text: str
    content: Any
    model: str | None = None


def read_file(path: Path) -> ResultFile:
    """A file with its kind; FILE:MODEL is one model of a run of several. Raises UsageError for a file that is missing,
    is not JSON, or has no known kind."""
    file, model = _with_model(path)
    if model is not None:
        named = replace(read_file(file), path=path, model=model)
        if named.kind is not Kind.RUN:
            raise UsageError(f"{file} is {named.kind}, which has no models: leave :{model} out")
        return named
    try:
        text = read_text(path, "", MOST_RESULT_BYTES)
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not JSON: it has bytes that are not text; give the exported file itself") from None
    try:
        content = parse_json(text)
    except (ValueError, RecursionError) as error:
        what = f"not JSON ({error}): it may be cut off, or have a name that was not escaped; export it again"
        if re.search(_TRTEXEC_LOG, text):
            what = "a log of trtexec: give a file that its --exportTimes wrote"
        elif not text.lstrip().startswith(("{", "[")):
            what = "not JSON: give a result that --json wrote" if text.strip() else "empty; export it again"
        raise UsageError(f"{path} is {what}") from None
    return ResultFile(path, _kind_of(path, content), text, content)


def _with_model(path: Path) -> tuple[Path, str | None]:
    """The file and the model of FILE:MODEL; None where the whole is a name of a file."""
    text = str(path)
    colons = [place for place, sign in enumerate(text) if sign == ":"] if not path.exists() else []
    return next(((Path(text[:at]), text[at + 1 :]) for at in colons if Path(text[:at]).is_file()), (path, None))


def content_of(source: Path | ResultFile, kind: Kind) -> tuple[Path, Any]:
    """Path and content of a file that must have this kind. Raises UsageError."""
    given = source if isinstance(source, ResultFile) else read_file(source)
    if given.kind is not kind:
        raise UsageError(f"{given.path} is {given.kind}: give {kind}")
    return given.path, given.content


def read_result(schema: type[_Schema], source: Path | ResultFile) -> _Schema:
    """A result of loadtrt. Raises UsageError for a file that does not fit the schema."""
    source = source if isinstance(source, ResultFile) else read_file(source)
    path, content = content_of(source, kind_of(schema))
    try:
        result = schema.model_validate_json(source.text)
        wrong = next(faults_of(result), None) if isinstance(result, InterferenceResult) else None
    except UsageError as error:
        wrong = str(error)
    except ValidationError as error:
        first = error.errors()[0]
        wrong = f"{'.'.join(map(str, first['loc']))}: {fault_words(first)}"
    if wrong is not None:
        raise UsageError(f"{path} does not fit its schema {content['schema_version']}: {wrong}; write it again")
    found: _Schema = _of_model(result, path, source.model)
    return found


def _of_model(result: Any, path: Path, model: str | None) -> Any:
    """A run of several models as that of one of them; another result as it is. Raises UsageError."""
    if model is None:
        return result
    models = models_of(result)
    if model not in models:
        known = f"it has {', '.join(models)}"
        raise UsageError(f"{path} has no model {model}: {nearest(model, models, known)}")
    return models[model]


def read_run(source: Path | ResultFile, wanted: str = "give a run of one model") -> RunResult:
    """A run of one model. Raises UsageError, which ends with `wanted` for a run of several."""
    file = source.path if isinstance(source, ResultFile) else source
    return one_model(read_result(RunResult, source), str(file), wanted)


def one_model(result: RunResult, file: str, wanted: str) -> RunResult:
    """The result, where it is of one model. Raises UsageError, which names the file and ends with `wanted`."""
    if len(result.models) > 1:
        names = ", ".join(result.models)
        raise UsageError(f"{file} has several models ({names}): {wanted}, such as {file}:{next(iter(result.models))}")
    return result


def load(path: Path) -> Loaded:
    """A result of any kind that a report is made of. Raises UsageError."""
    file = read_file(path)
    if file.kind not in SCHEMAS:
        kinds = "a run, starts of a run, a sweep, a search for capacity, interference, a plan of a fleet or a profile"
        raise UsageError(f"{path} is {file.kind}, which has no report: give {kinds} of loadtrt")
    return Loaded(str(path), read_result(SCHEMAS[file.kind], file))


def kind_of(schema: type[BaseModel]) -> Kind:
    """The kind of file of such results."""
    return next(kind for kind, known in SCHEMAS.items() if known is schema)


def _kind_of(path: Path, content: Any) -> Kind:
    match content:
        case {"schema_version": str(schema)} if schema in _VERSIONS:
            return _VERSIONS[schema]
        case {"schema_version": 1, "plan_sha256": _}:
            return Kind.SIDECAR
        case {"schema_version": "loadtrt.failure/1", "failure": str(failure)}:
            raise NoResultError(f"{path} holds no result, as its command failed: {failure}; run it again")
        case {"schema_version": str(schema)} if schema.startswith("loadtrt."):
            raise UsageError(
                f"{path} has the schema {shortened(json.dumps(schema), 40)}, which this loadtrt does not know: read "
                "it with the loadtrt that wrote it"
            )
        case {"Layers": _}:
            return Kind.LAYERS
        case [{"startEnqMs": _} | {"latencyMs": _}, *_]:
            return Kind.TIMES
        case [{"count": _} | {"averageMs": _}, *_]:
            return Kind.LAYER_TIMES
        case []:
            raise UsageError(f"{path} is an empty list: nothing was measured; run longer and export it again")
        case _:
            *kinds, last = Kind
            raise UsageError(f"{path} is JSON, but neither {', '.join(kinds)} nor {last}")
