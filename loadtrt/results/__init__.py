"""What a run, sweep, capacity search, fleet plan and profile leave behind: the schemas of the files. Types alone."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Model(BaseModel):
    """A part of a file of results: immutable; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)
