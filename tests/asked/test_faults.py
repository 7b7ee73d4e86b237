"""What pydantic found wrong, in words."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from loadtrt.asked.config import RunConfig
from loadtrt.asked.declaring import shown_as
from loadtrt.asked.faults import fault_words
from loadtrt.asked.load_declarations import LoadOptions
from loadtrt.asked.model import MOST_CONTEXTS, Model
from loadtrt.asked.reading import load_config
from loadtrt.errors import EngineError, UsageError
from loadtrt.results.engine_info import MemoryBill


class Values(BaseModel):
    """Values of each kind that a configuration has."""

    model_config = ConfigDict(extra="forbid")

    count: int = Field(1, ge=1, le=5)
    share: float = Field(0.5, gt=0, lt=1, allow_inf_nan=False)
    kind: Literal["spin", "block"] = "spin"
    on: bool = True
    name: str = ""
    counts: dict[str, int] = {}
    shape: tuple[int, ...] = ()
    span: tuple[float, float] = (0, 1)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"count": 0}, "0 is below 1, the least"),
        ({"count": "9"}, "9 is above 5, the most"),
        ({"count": "many"}, "'many' is not a whole number"),
        ({"count": 2.5}, "2.5 is not a whole number"),
        ({"count": None}, "None is not a whole number"),
        ({"share": 0}, "0 is not above 0"),
        ({"share": 1}, "1 is not below 1"),
        ({"share": "nan"}, "'nan' is not a finite number"),
        ({"share": "x"}, "'x' is not a number"),
        ({"kind": "spn"}, "'spn' is not 'spin' or 'block': did you mean 'spin'?"),
        ({"kind": "none"}, "'none' is not 'spin' or 'block': take one of them"),
        ({"on": "maybe"}, "'maybe' is neither true nor false"),
        ({"name": 3}, "3 is not text: write it in quotes"),
        ({"counts": 5}, "5 is not a mapping: write names with their values"),
        ({"shape": 5}, "5 is not a list"),
        ({"span": (1, 2, 3)}, "it has 3 values and takes 2 at most"),
        ({"span": (1,)}, "it is missing"),
        ({"other": 1}, "it is not known here: leave it out"),
        ("x", "'x' is not a mapping: write names with their values"),
        ({"count": 10**5000}, "a number of 16610 bits is above 5, the most"),
    ],
)
def test_each_kind_has_words(values: Any, words: str) -> None:
    """Without pydantic's "input should be"."""
    with pytest.raises(ValidationError) as error:
        Values.model_validate(values)
    (item,) = error.value.errors()
    assert fault_words(item) == words


OPTIONS = [
    (name, field)
    for part in (LoadOptions, Model, RunConfig)
    for name, field in part.model_fields.items()
    if shown_as(field) is not None
]


@pytest.mark.parametrize("name", [name for name, _ in OPTIONS])
@pytest.mark.parametrize("value", [-(10**30), 10**30, "no such thing", [[]], {"a": {"b": 1}}])
def test_no_option_is_refused_in_words_of_pydantic(name: str, value: Any) -> None:
    """Whatever an option is given, what is said of it names neither inputs nor Python's types."""
    said = ""
    try:
        load_config(None, {"engine": "simulated:null", name: value})
    except UsageError as error:
        said = str(error).lower()
    pydantics = ("input should", "valid ", "dictionary", "tuple", "extra inputs")
    assert not [word for word in pydantics if word in said], said


def test_memory_and_no_number_decides_how_many_contexts_there_are() -> None:
    """Up to what a lane's number has bits for."""
    assert RunConfig.of(engine="x.plan", contexts=2000).model.contexts == 2000
    assert np.iinfo(np.int16).max >= MOST_CONTEXTS - 1
    with pytest.raises(UsageError, match=r"^--contexts: 32768 is above 32767, the most$"):
        RunConfig.of(engine="x.plan", contexts=32_768)
    bill = MemoryBill(2000, 2, 20 << 20, 8 << 20, 10 << 20, 64_000, inputs_bytes=1, free_bytes=20 << 30)
    with pytest.raises(EngineError, match=r"the lanes need 54.7 GiB and 20.0 GiB is free: use fewer --contexts"):
        bill.require_room(": use fewer --contexts")
