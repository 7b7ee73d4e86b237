"""What a run, sweep, capacity search, fleet plan and profile leave behind: the schemas of the files. Types alone."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """A part of a file of results: immutable; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)
