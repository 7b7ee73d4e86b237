"""What a run, sweep, capacity search, interference, fleet plan and profile leave behind: the schemas of the files."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import BaseModel, ConfigDict, Field

from loadtrt.printing import printable_json

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    import pandas as pd
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

    from loadtrt.report.result_files import Result as AnyResult

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
_IN_SHORT = ("outcome", "failure", "valid", "verdict", "chosen")


def _take_numbers_only(part: Any, handler: GetCoreSchemaHandler, done: set[int]) -> None:
    """Make the numbers of a model's schema strict in JSON: pydantic reads true and "1" as 1. Keys of JSON are always
    text. Complete models in it have their own rule: parts of results this one, and options that of `loadtrt.asked`.

    done: the ids of parts of the schema that it has come to, which may contain themselves.
    """
    if isinstance(part, dict) and part.get("type") == "definition-ref":
        with suppress(LookupError):
            part = handler.resolve_ref_schema(cast("CoreSchema", part))
    if id(part) in done or not isinstance(part, dict | list | tuple):
        return
    done.add(id(part))
    if isinstance(part, list | tuple):
        for item in part:
            _take_numbers_only(item, handler, done)
    elif not getattr(part.get("cls"), "__pydantic_complete__", False):
        if part.get("type") in ("int", "float"):
            number = part.copy()
            part.clear()
            part |= {"type": "json-or-python", "json_schema": {**number, "strict": True}, "python_schema": number}
            return
        for key in part.keys() - {"keys_schema", "metadata"}:
            _take_numbers_only(part[key], handler, done)


class Model(BaseModel):
    """A part of a file of results: immutable. An unknown key is an error; so are true and "1" for a number in JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        _take_numbers_only(schema, handler, set())
        return schema


class Result(Model):
    """All that a file of results holds. It shows itself in a notebook, and as text where it is printed.

    To show, write and tabulate a result is the work of `loadtrt.report`, which is imported when it is asked for: that a
    run measures before it loads what tells of it holds for a result, too.
    """

    def to_json(self) -> str:
        """The content of the result's file, which `loadtrt.read` reads."""
        return printable_json(self.model_dump_json(indent=1)) + "\n"

    def write(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write the result to a file, whole or not at all.

        path: where to. Its suffix is the format: .json for the result itself, which `loadtrt.read` reads; .html, .md,
            .txt, .csv, .hlog, .trace.json and more, as `loadtrt report -o` writes them.
        force: write over a file that holds something else than what is written.

        Raises UsageError for a file that cannot be written, or holds something else, a suffix of no format, and a
        format that has no place for this kind of result.
        """
        from loadtrt.report.saving import save

        save(self, path, force=force)

    def to_pandas(self, table: str | None = None) -> pd.DataFrame:
        """A table of this result as a pandas DataFrame; needs pandas (pip install 'loadtrt[pandas]').

        table: the name of the table; None for the first one that this kind of result has:
            a run has "seconds" (how it went, a row for each second), "records" (every request, where the run was made
            by this process and had no more than are kept), "slowest" (the requests around the slowest one) and
            "summary" (one row); starts of a run have "summary" (a row for each start); a sweep has "points"; a search
            for capacity has "trials"; interference has "cells"; a plan of a fleet has "predictions" (a row for each
            routing policy and number of GPUs), of several models "placements"; a profile has "layers"; a comparison of
            runs has "ratios", of profiles "layers".

        Columns name their unit at their end: _ns, _per_s, _joules, _watts, _ratio (0 to 1). Counts are int64, or Int64
        where some are not known; other numbers are float64, with NaN for what is not known or not supported by the
        sample.

        Raises UsageError where pandas is not installed, or this result has no such table.
        """
        from loadtrt.report.frames import frame_of

        return frame_of(self, table)

    def __eq__(self, other: object) -> bool:
        """Whether their files would hold the same."""
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __str__(self) -> str:
        """The text that the command shows."""
        from loadtrt.report.plain import terminal_text

        return terminal_text(cast("AnyResult", self)).strip("\n")

    def __repr_args__(self) -> Iterator[tuple[str, Any]]:
        """What matters most: all of a result is pages long."""
        return ((name, getattr(self, name)) for name in _IN_SHORT if getattr(self, name, None) is not None)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from loadtrt.report.notebook import html_of

        return html_of(self)

    def _repr_markdown_(self) -> str:
        """What a notebook shows that takes no HTML."""
        return f"```text\n{self}\n```"
