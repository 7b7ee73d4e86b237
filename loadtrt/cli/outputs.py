"""Files that commands write, checked before anything is measured: no input, and no other file, is written over."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from loadtrt.asked.fields import option_name
from loadtrt.asked.reading import SHOWN
from loadtrt.errors import LoadtrtError, UsageError
from loadtrt.files import descriptor_of, held_by, require_writable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Output(NamedTuple):
    """A file to write.

    option: the option that names it, for errors.
    name: the file; "-" is stdout; None where the option is not given.
    content: what is written to it, as recognizing.CONTENTS has it: such files are written over without --force; None
        for any file.
    """

    option: str
    name: str | Path | None
    content: str | None


def outputs_of(values: Mapping[str, Any], result: str) -> list[Output]:
    """The files that options name to be written.

    values: the options by key.
    result: what the command writes to the file of --json.
    """
    return [
        Output(option_name(key), values[key], result if shown.writes == "result" else shown.writes)
        for key, shown in SHOWN.items()
        if shown.writes and key in values
    ]


def inputs_of(values: Mapping[str, Any]) -> list[str | Path]:
    """What options name to be read: files, and words such as zoo:googlenet. values: the options by key."""
    inputs = values.get("inputs") or {}
    if isinstance(inputs, dict):
        named = list(inputs.values())
    else:  # FILE, NAME:FILE, or NAME:FILE,NAME2:FILE2; either may have commas
        named = [part.rpartition(":")[2] for text in inputs for part in (text, *text.split(","))]
    single = [values[key] for key in ("engine", "trace", "verify_against", "lean_library") if values.get(key)]
    return [*single, *named, *(values.get("plugins") or ())]


def require_outputs(outputs: Iterable[Output], inputs: Iterable[str | Path | None], *, force: bool) -> None:
    """Raise UsageError, before anything is measured, where an output cannot be written, is an input or another output,
    or would be written over a file that holds something else. Makes no file: there may be no result.

    outputs: --json and -o may be "-", stdout, and --trt-log, stderr.
    inputs: the files that the command reads; names of what is not a file are left out.
    force: whether outputs may be written over other files than inputs.
    """
    read = {identity: name for name in inputs if name is not None and (identity := _identity(name)) is not None}
    taken: dict[object, str] = {}
    for option, name, content in outputs:
        if name is None:
            continue
        if str(name) == "-":
            if option not in ("--json", "-o", "--trt-log"):
                raise UsageError(f"{option} -: only --json goes to stdout: name a file")
            continue
        require_writable(option, name)
        identity = _identity(name)
        if identity is None:  # a pipe or a device takes several
            continue
        if identity in read:
            raise UsageError(f"{option} {name} is read by this command and would be overwritten: name another file")
        if identity in taken:
            raise UsageError(f"{option} {name} and {taken[identity]} name the same file: give each its own")
        taken[identity] = f"{option} {name}"
        held = held_by(Path(name))
        if held is None or content in (None, held):
            continue
        if not force:
            raise UsageError(
                f"{option} {name} holds {held}, which would be overwritten: name another file, or add --force"
            )
        if identity in _weights_of(read.values()):
            raise UsageError(f"{option} {name} holds weights of the model: name another file")


def _weights_of(inputs: Iterable[str | Path]) -> set[object]:
    """The identities of the files in which ONNX models among these files keep their weights. A model that cannot be
    read has none: the command says so when it reads it."""
    from loadtrt.engines.external_data import find_external_data
    from loadtrt.engines.onnx_model import parse_model

    files: list[Path] = []
    for file in (Path(name) for name in inputs if str(name).endswith(".onnx")):
        with suppress(LoadtrtError):
            external = find_external_data(parse_model(file)[0], file)
            files += external.files if external is not None else ()
    return {_identity(file) for file in files}


def _identity(name: str | Path) -> object | None:
    """What two names of one file have in common; None for what is not a regular file and not a place for one."""
    with suppress(OSError, ValueError):  # a working folder that is gone, a name that is no path
        if descriptor_of(str(name)) is not None:
            return None
        if not os.path.exists(name):
            return os.path.realpath(name)
        status = os.stat(name)
        if stat.S_ISREG(status.st_mode):
            return status.st_dev, status.st_ino
    return None
