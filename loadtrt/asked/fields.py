"""Types of option values: text as people write it outside, numbers inside. What cannot be read is a ValueError."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema

from loadtrt.asked.objective import Objective, parse_objective, with_bounds
from loadtrt.asked.push_urls import each_once
from loadtrt.errors import UsageError
from loadtrt.printing import bounded_repr, shortened
from loadtrt.units import exact_duration, parse_address, parse_duration, parse_rate, parse_share

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def option_name(key: str) -> str:
    """ "--max-queue" of "max_queue"."""
    return f"--{key.replace('_', '-')}"


def read_option(option: str, text: Any, parse: Callable[[Any], T]) -> T:
    """What `parse` makes of the text of an option. Raises UsageError, which names it."""
    try:
        return parse(text)
    except UsageError as error:
        raise UsageError(f"{option}: {error}") from None


def _shape(value: object) -> object:
    """(16, 3, 224, 224) of "16x3x224x224"; "" and "scalar" are (). A first size of N is the batch, -1."""
    if isinstance(value, int) and not isinstance(value, bool):
        return (value,)
    if not isinstance(value, str):
        return value
    if value in ("", "scalar"):
        return ()
    if not re.fullmatch(r"(N|[0-9]{1,19})(x[0-9]{1,19})*", value):
        raise ValueError(
            f"'{shortened(value)}' is not a shape: write its sizes with x between them, such as 16x3x224x224"
        )
    return tuple(-1 if size == "N" else int(size) for size in value.split("x"))


def _range(value: object) -> object:
    """(-1.0, 1.0) of "-1..1"."""
    if not isinstance(value, str):
        return value
    low, dots, high = value.partition("..")
    try:
        if not dots:
            raise ValueError  # noqa: TRY301  # worded below
        return (float(low), float(high))
    except ValueError:
        raise ValueError(f"'{shortened(value)}' is not a range: write low..high, such as -1..1") from None


def _told(read: Any) -> Any:
    """`read`, a UsageError of which becomes pydantic's message; values that are no text of an option are kept."""

    def validate(value: object) -> object:
        if value is None or isinstance(value, bool):
            return value
        try:
            return read(value)
        except UsageError as error:
            raise ValueError(str(error)) from None

    return validate


def _telling(read: Any) -> BeforeValidator:
    return BeforeValidator(_told(read))


def _from_text(parse: Any) -> BeforeValidator:
    return _telling(lambda value: parse(value if isinstance(value, str | int | float | Objective) else _text(value)))


def kept(parse: Any) -> BeforeValidator:
    """Text that parses, kept as it was written; a list is its items with commas between."""

    def read(value: object) -> str:
        text = ", ".join(map(_text, value)) if isinstance(value, list | tuple) else _text(value)
        parse(text)
        return text

    return _telling(read)


def _text(value: object) -> str:
    return value if isinstance(value, str) else bounded_repr(value)


def _address(value: object) -> object:
    """ ":18410" of 18410, as YAML has it; where the text is no address, it is told."""
    text = f":{value}" if isinstance(value, int) and not isinstance(value, bool) else value
    if isinstance(text, str):
        parse_address(text)
    return text


def _precision(text: str | float) -> float:
    share = parse_share(text)
    if not 0 < share < 1:
        raise UsageError(f"'{text}' is not a precision: write a share above 0 and below 100%, such as 3%")
    return share


def parse_sms(text: str | int) -> int | str:
    """32 of "32", and "25%" of "25%"; shares keep their text. Raises UsageError."""
    word = str(text).strip()
    if re.fullmatch(r"[0-9]{1,9}", word) and 1 <= int(word) <= _MOST_SMS:
        return int(word)
    if word.endswith("%") and 0 < parse_share(word) <= 1:
        return word
    raise UsageError(
        f"'{shortened(word)}' is not a part of a GPU: write a number of SMs from 1 to {_MOST_SMS}, such as 32, or a "
        "share up to 100%, such as 25%"
    )


def _priority(value: object) -> int | str:
    word = str(value).strip()
    if word in PRIORITIES or re.fullmatch(r"-?[0-9]{1,9}", word):
        return word if word in PRIORITIES else int(word)
    raise UsageError(
        f"'{shortened(word)}' is not a priority: write {', '.join(PRIORITIES)}, or a number as CUDA has it, such as -5"
    )


def priority_number(asked: int | str, least: int, greatest: int) -> int | None:
    """A priority as a device has them, of which the greatest is the lowest number; None where it is not one of them.
    Low is that of plain streams; normal is between it and high."""
    if isinstance(asked, str):
        return {"high": greatest, "normal": int((least + greatest) / 2), "low": least}[asked]
    return asked if greatest <= asked <= least else None


def _one_or_many(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _values(value: object) -> object:
    """{"size": (8, 8)} of {"size": "8,8"}."""
    if not isinstance(value, dict):
        return value
    return {name: item.split(",") if isinstance(item, str) else item for name, item in value.items()}


def _without_nul(name: str) -> str:
    """Refuse a byte that no system takes in a name."""
    if "\0" in name:
        raise ValueError("the name has a NUL byte, which no file name can have: leave it out")
    return name


def _file_name(name: str) -> str:
    """Refuse a name that no file has, before anything is measured."""
    if any(len(os.fsencode(part)) > _MOST_NAME for part in _without_nul(name).split("/")):
        most = f"{_MOST_NAME} bytes, the most that a file name may have"
        raise ValueError(f"'{shortened(name)}' is longer than {most}: shorten it")
    return name


PRIORITIES = ("high", "normal", "low")
_MOST_SMS = 4096
_MOST_NAME = 255  # bytes: Linux's NAME_MAX
_MOST_INT = (1 << 63) - 1
_TEXT_OR_NUMBER = {"anyOf": [{"type": "string"}, {"type": "number"}]}

# Written as text, so that the configuration in a run.json can be run again.
Duration = Annotated[
    int,
    _from_text(parse_duration),
    Field(ge=0),
    PlainSerializer(exact_duration, when_used="json"),
    WithJsonSchema({**_TEXT_OR_NUMBER, "examples": ["10s", "250ms"]}),
]
ArrivalRate = Annotated[
    float, _from_text(parse_rate), Field(gt=0), WithJsonSchema({**_TEXT_OR_NUMBER, "examples": ["500/s", "2k/s"]})
]
Precision = Annotated[
    float, _from_text(_precision), Field(gt=0, lt=1), WithJsonSchema({**_TEXT_OR_NUMBER, "examples": ["3%"]})
]
_TEXT_OR_WHOLE = {"anyOf": [{"type": "string"}, {"type": "integer"}]}
Sms = Annotated[int | str, _telling(parse_sms), WithJsonSchema({**_TEXT_OR_WHOLE, "examples": ["25%", 32]})]
Priority = Annotated[int | str, _telling(_priority), WithJsonSchema({**_TEXT_OR_WHOLE, "examples": ["high", -5]})]
Shape = Annotated[
    tuple[Annotated[int, Field(ge=-1, le=_MOST_INT)], ...],
    BeforeValidator(_shape),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "integer"}}]}),
]
Shapes = dict[str, Shape]
ShapeValues = Annotated[
    dict[str, tuple[Annotated[int, Field(ge=-_MOST_INT, le=_MOST_INT)], ...]], BeforeValidator(_values)
]
Range = Annotated[
    tuple[float, float],
    BeforeValidator(_range),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "number"}}]}),
]
Address = Annotated[str, _telling(_address), WithJsonSchema(_TEXT_OR_WHOLE)]
_ONE_OR_MANY = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
TEXT_OR_LIST = WithJsonSchema(_ONE_OR_MANY)
FileName = Annotated[str, AfterValidator(_file_name)]
Source = Annotated[str, AfterValidator(_without_nul)]  # a file, or what is written in its place
Sources = Annotated[tuple[Source, ...], BeforeValidator(_one_or_many), WithJsonSchema(_ONE_OR_MANY)]
PushUrls = Annotated[
    tuple[str, ...], BeforeValidator(_one_or_many), AfterValidator(_told(each_once)), WithJsonSchema(_ONE_OR_MANY)
]
ObjectiveText = Annotated[
    Objective,
    _from_text(lambda value: parse_objective(value) if isinstance(value, str) else value),
    PlainSerializer(str),
    WithJsonSchema({"type": "string", "examples": ["latency.p99 < 10ms", "throughput > 90/s"]}),
]
Objectives = Annotated[
    tuple[ObjectiveText, ...],
    BeforeValidator(_one_or_many),
    AfterValidator(_told(with_bounds)),
    WithJsonSchema({**_ONE_OR_MANY, "examples": ["latency.p99 < 10ms", "throughput > 90/s"]}),
]
