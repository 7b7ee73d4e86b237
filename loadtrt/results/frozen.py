"""What all results are made of."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """A part of a file of results: it never changes, and a key that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)
