"""What pydantic found wrong, in words: of an option's value, of a key in a file."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from loadtrt.asked.fields import option_name
from loadtrt.errors import LoadtrtError, nearest
from loadtrt.printing import bounded_repr, shortened

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from loadtrt.asked.model import Model

MOST_FAULTS = 8  # in one sentence
_BEFORE_HOST = re.compile(r"(?<=//)[^\s'\"]*@")
# By the beginning of pydantic's type of error.
_KINDS = {
    "int": "is not a whole number",
    "float": "is not a number",
    "decimal": "is not a number",
    "finite_number": "is not a finite number",
    "bool": "is neither true nor false",
    "string": "is not text: write it in quotes",
    "dict": "is not a mapping: write names with their values",
    "mapping": "is not a mapping: write names with their values",
    "tuple": "is not a list",
    "list": "is not a list",
    "model": "is not a mapping: write names with their values",
    "dataclass": "is not a mapping: write names with their values",
}


def joined(faults: Sequence[str], count: int) -> str:
    """The first faults of `count`."""
    more = f"; and {count - MOST_FAULTS} more" if count > MOST_FAULTS else ""
    return "; ".join(faults[:MOST_FAULTS]) + more


def fault_words(item: Any) -> str:
    """What is wrong with a value, of the errors of a ValidationError, without its place: "2000 is above 1024, the
    most"."""
    kind, limits, value = item["type"], item.get("ctx", {}), _shown(item["input"])
    # A text, where the command line has it; a float that is whole is written as most people write it.
    number = value.strip("'").removesuffix(".0")
    match kind:
        case "greater_than_equal":
            return f"{number} is below {_number(limits['ge'])}, the least"
        case "less_than_equal":
            return f"{number} is above {_number(limits['le'])}, the most"
        case "greater_than":
            return f"{number} is not above {_number(limits['gt'])}"
        case "less_than":
            return f"{number} is not below {_number(limits['lt'])}"
        case "literal_error":
            known = str(limits["expected"])
            near = nearest(str(item["input"]), known.split("'")[1::2], "take one of them")
            return f"{value} is not {known}: {near}"
        case "missing":
            return "it is missing"
        case "extra_forbidden":
            return "it is not known here: leave it out"
        case "too_long":
            return f"it has {limits['actual_length']} values and takes {limits['max_length']} at most"
        case "value_error":
            return str(item["msg"]).removeprefix("Value error, ")
    told = next((words for begin, words in _KINDS.items() if kind.startswith(begin)), None)
    return f"{value} {told}" if told else f"{item['msg']} (it is {value})"


def fault_of(item: Any, given: dict[str, Any], source: str, several: bool) -> str:
    """The same with its place: the option, or the file and the key in it.

    given: the options of the command line by key.
    source: the file. several: whether its models have names. Those of --model are in `given` by the key "models".
    """
    message, path = fault_words(item), item["loc"]
    model, of_line = f"models.{path[1]}." if several and path[:1] == ("models",) else "", False
    if path[:1] == ("models",):
        of_line = path[2:3] and path[2] in given.get("models", {}).get(path[1], {})
        source = f"--model {path[1]}" if of_line else source
        path = path[2:]
    if of_line:
        model = ""
    if not path:
        own = given.get("models", {}).get(item["loc"][1], {}) if item["loc"][:1] == ("models",) else {}
        if any(option_name(key) in message for key in own):
            return f"--model {item['loc'][1]}: {message}"
        return f"{source}: {model.rstrip('.')}: {message}" if model else message
    where = f"{source}: {model}{path[0]}" if of_line or path[0] not in given else option_name(str(path[0]))
    inside = "".join(f".{shortened(str(part))}" for part in path[1:] if not isinstance(part, int))
    values = item["input"] if isinstance(item["input"], tuple) else (item["input"],)
    # What the message quotes may be a part of a value, and shortened.
    pieces = [piece.partition("…")[0] for piece in message.split("'")[1::2]]
    texts = [value if isinstance(value, str) else bounded_repr(value) for value in values]
    quoted = any(shortened(text) in message or any(piece in text for piece in pieces) for text in texts)
    wrong = "" if quoted else f" (it is {_shown(item['input'])})"
    return f"{where}{inside}: {message[0].lower()}{message[1:]}{wrong}"


@contextmanager
def naming_model(models: Mapping[str, Model], name: str) -> Iterator[None]:
    """Let errors begin with the name of the model that they are about, where a run has several, and say how to give one
    of them an option that all have."""
    try:
        yield
    except LoadtrtError as error:
        if len(models) > 1:
            error.args = (f"{name}: {error}{_of_one(models, str(error))}",)
        raise


def _of_one(models: Mapping[str, Model], message: str) -> str:
    first, *others = models.values()
    shown = first.model_dump(mode="json")
    for key in type(first).model_fields:
        value = getattr(first, key)
        of_all = value != type(first).model_fields[key].default and all(
            getattr(model, key) == value for model in others
        )
        if of_all and re.search(rf"{option_name(key)}(?![\w-])", message):
            return f"; all models have it: to give it to one, write --model NAME=ENGINE,{_written(key, shown[key])}"
    return ""


def _written(key: str, value: Any) -> str:
    """An option as --model takes it."""
    if isinstance(value, bool):
        return key if value else f"no-{key}"
    if isinstance(value, dict):
        part, value = next(iter(value.items()))
        sizes = (".." if key == "input_range" else "x").join(map(str, value)) if isinstance(value, list) else value
        value = f"{part}:{sizes}"
    return f"{key}={value[0] if isinstance(value, list) else value}"


def _shown(value: Any) -> str:
    """A value in a sentence, which may end in a log: without names and passwords in URLs."""
    return _BEFORE_HOST.sub("…@", bounded_repr(value))


def _number(limit: float) -> str:
    """A limit as people write it: pydantic has 100.0 for the 100 of a float."""
    return str(int(limit)) if limit == int(limit) else f"{limit:g}"
