"""The base class of all results."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """A part of a file of results: immutable; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)
