"""Files that commands write, checked before anything is measured: no input, and no other file, is written over. A
command that fails before it has a result says so in them."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from loadtrt.asked.fields import option_name
from loadtrt.asked.reading import SHOWN
from loadtrt.errors import LoadtrtError, UsageError
from loadtrt.files import WRITTEN, descriptor_of, held_by, locked, require_writable, takes_once, write_file
from loadtrt.recognizing import FAILURE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_awaited: dict[str, str] = {}  # files that get a result or a failure, by option


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
    outputs = list(outputs)
    _awaited.clear()
    WRITTEN.clear()
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
        if held in (None, FAILURE) or content in (None, held):
            continue
        if not force:
            raise UsageError(
                f"{option} {name} holds {held}, which would be overwritten: name another file, or add --force"
            )
        if identity in _weights_of(read.values()):
            raise UsageError(f"{option} {name} holds weights of the model: name another file")
    _awaited.update((each.option, str(each.name)) for each in outputs if each.name and each.option in _FAILED)


def tell_failure(sentence: str, code: int) -> None:
    """Tell GitHub, and write to the files of --json and --junit, why the command has no result, unless it has written
    them. A result that a file holds stays there. With exit code 2 the command did not begin, and no file is written.

    sentence: what stderr says.
    code: the exit code.
    """
    if (github := sys.modules.get("loadtrt.cli.github")) is not None:
        github.tell_failure(sentence)
    awaited = {option: name for option, name in _awaited.items() if name not in WRITTEN}
    _awaited.clear()
    for option, name in awaited.items() if code != UsageError.exit_code else ():
        with suppress(LoadtrtError), locked(option, name):
            if option == "--junit" or takes_once(name) or held_by(Path(name)) in (None, FAILURE):
                write_file(name, _FAILED[option](sentence, code))


def _json(sentence: str, code: int) -> str:
    import loadtrt
    from loadtrt.printing import command_line, printable_json
    from loadtrt.results.failure import Failure

    failure = Failure(
        loadtrt=loadtrt.__version__,
        command=command_line(),
        failed=datetime.now(UTC).isoformat(timespec="seconds"),
        exit_code=code,
        failure=sentence,
    )
    return printable_json(failure.model_dump_json(indent=1)) + "\n"


def _junit(sentence: str, _: int) -> str:
    from loadtrt.report.junit import failure_junit

    return failure_junit(next((word for word in sys.argv[1:] if not word.startswith("-")), ""), sentence)


_FAILED: dict[str, Callable[[str, int], str]] = {"--json": _json, "--junit": _junit}


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
