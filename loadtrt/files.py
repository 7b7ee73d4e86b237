"""Writing the files of results: whole or not at all."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from loadtrt.errors import UsageError
from loadtrt.signals import SIGNALS

if TYPE_CHECKING:
    from collections.abc import Iterator

_STDOUT = ("-", "/dev/stdout")


def write_file(target: str | Path, data: str | bytes, what: str = "result") -> None:
    """Write bytes, or text as UTF-8, to the file `target`, whole or not at all.

    A regular file is replaced by a rename, a symbolic link keeps its place, and a pipe or device is written to as it
    is. Raises UsageError, and BrokenPipeError where the reader of a pipe has gone.

    target: the file; "-" is stdout.
    data: the bytes, or text.
    what: what the file is, for errors.
    """
    if isinstance(data, str):
        data = data.encode("utf-8", "replace")  # the name of a file may hold bytes that are not text
    try:
        if str(target) in _STDOUT:
            sys.stdout.flush()
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            return
        file = Path(target)
        if file.exists() and not file.is_file():
            file.write_bytes(data)
            return
        file = Path(os.path.realpath(file))
        part = part_of(file)
        with SIGNALS.deferred():
            try:
                part.write_bytes(data)
                part.replace(file)
            finally:
                with suppress(OSError):
                    part.unlink()
    except BrokenPipeError:
        raise
    except OSError as error:
        named = "stdout" if str(target) == "-" else str(target)
        raise UsageError(f"cannot write {what} {named}: {error.strerror}") from error


def require_writable(option: str, file: Path) -> None:
    """Raise UsageError where `file`, which `option` names, cannot be written. Makes no file."""
    if not file.parent.is_dir():
        raise UsageError(f"{option} {file}: there is no folder {file.parent}")
    if file.is_dir():
        raise UsageError(f"{option} {file} is a folder: name a file in it")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise UsageError(f"{option} {file} cannot be written: permission denied")


def part_of(file: Path) -> Path:
    """The file in the same folder that holds the bytes of `file` until all of them are written."""
    return file.with_name(f".{file.name}.{os.getpid()}.part")


@contextmanager
def temporary_folder(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """A folder that is deleted at the end of the block, whatever ends it: SIGKILL alone leaves it behind. parent: None
    for that of temporary files."""
    from tempfile import mkdtemp

    with SIGNALS.deferred():
        folder = Path(mkdtemp(prefix=prefix, dir=parent))
        remove = partial(shutil.rmtree, folder, ignore_errors=True)
        SIGNALS.last_acts.append(remove)
    try:
        yield folder
    finally:
        with SIGNALS.deferred():
            remove()
            with suppress(ValueError):  # all of them are made
                SIGNALS.last_acts.remove(remove)
