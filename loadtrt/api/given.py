"""What Python programs give to a function, as the command line and YAML would have it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from loadtrt.asked.config import RunConfig
from loadtrt.asked.faults import joined
from loadtrt.asked.reading import SHOWN, keys_for
from loadtrt.errors import UsageError, nearest
from loadtrt.printing import bounded_repr, shortened

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from loadtrt.results import Result

    FileName: TypeAlias = str | os.PathLike[str]
    Configuration: TypeAlias = RunConfig | FileName

# What a command writes or prints beside its result, which Python has in hand.
_WRITTEN = [key for key, shown in SHOWN.items() if shown.writes]
_PRINTED = ("github",)


def options_of(
    command: str, given: Mapping[str, Any], also: Collection[str] = (), *, writes: Collection[str] = ()
) -> dict[str, Any]:
    """The options of a command by name, in types of Python's own. Raises UsageError for a name that it does not have.

    also: names of options beside the declared ones.
    writes: names of files that are written all the same.
    """
    known, function = [*keys_for(command), *also], f"loadtrt.{command.replace('-', '_')}"
    unknown = [name for name in given if name not in known]
    if unknown:
        names = f"the options are {', '.join(sorted({*known} - ({*_WRITTEN, *_PRINTED} - {*writes})))}"
        faults = [f"unknown option '{shortened(name)}': {nearest(name, known, names)}" for name in unknown]
        raise UsageError(f"{function}: {joined(faults, len(faults))}")
    for name in (*_WRITTEN, *_PRINTED):
        if name not in writes and given.get(name):
            what = "prints nothing" if name in _PRINTED else "does not write this file"
            raise UsageError(f"{function} {what}: leave {name} out, and write the result itself")
    return {name: plain(value) for name, value in given.items() if value is not None}


def file_of(config: Configuration | None) -> Path | RunConfig | None:
    """A configuration, or the file of one. Raises UsageError."""
    if config is None or isinstance(config, RunConfig):
        return config
    if isinstance(config, str | os.PathLike):
        return Path(config)
    raise UsageError(
        f"{bounded_repr(config)} is neither a RunConfig nor the name of a file: write options by name, such as "
        "engine='g.plan'"
    )


def without_files(config: RunConfig) -> RunConfig:
    """The configuration without files to write, which a file of options may name."""
    fields = type(config).model_fields.items()
    return config.model_copy(update={name: None for name, field in fields if (field.alias or name) in _WRITTEN})


def sources_of(given: Sequence[Any], example: str) -> list[Path | Result]:
    """Files and results. Raises UsageError for anything else."""
    from loadtrt.results import Result

    sources: list[Path | Result] = []
    for item in given:
        if isinstance(item, Result):
            sources.append(item)
        elif isinstance(item, str | os.PathLike):
            sources.append(Path(item))
        else:
            raise UsageError(f"{bounded_repr(item)} is neither a result nor the name of a file: give {example}")
    return sources


def path_of(given: Any) -> Path:
    """The name of a file. Raises UsageError."""
    if not isinstance(given, str | os.PathLike):
        raise UsageError(f"{bounded_repr(given)} is not the name of a file: give one such as 'run.json'")
    return Path(given)


def plain(value: Any) -> Any:
    """The value as YAML would have it: numpy's numbers, arrays and paths as Python's own numbers, lists and texts."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, dict):
        return {plain(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | range | set | frozenset):
        return [plain(inner) for inner in value]
    return value
