"""Writes a result to a file, in the format that its suffix says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, cast

from loadtrt.errors import UsageError
from loadtrt.files import held_by, write_file
from loadtrt.printing import bounded_repr
from loadtrt.recognizing import HEAD_BYTES, content_of
from loadtrt.report import FORMATS, format_of
from loadtrt.report.result_files import Loaded

if TYPE_CHECKING:
    from loadtrt import results
    from loadtrt.report.result_files import Result


def save(result: results.Result, path: str | os.PathLike[str], *, force: bool) -> None:
    """See `results.Result.write`."""
    target = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not target or not isinstance(target, str):
        raise UsageError(f"{bounded_repr(path)} is not the name of a file: give one such as 'run.json'")
    wanted = format_of(target)
    if wanted is not None:
        text = wanted.text([Loaded(type(result).__name__, cast("Result", result))])
    elif target.lower().endswith(".json"):
        text = result.to_json()
    else:
        known = (".json", *(format_.suffixes[0] for format_ in FORMATS))
        raise UsageError(f"{target} has no suffix of a format: write {', '.join(known)}")
    held = held_by(Path(target))
    if not force and held not in (None, content_of(text[:HEAD_BYTES].encode())):
        raise UsageError(f"{target} holds {held}, which would be overwritten: name another file, or give force=True")
    write_file(target, text)
