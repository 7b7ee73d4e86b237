"""`--model NAME=ENGINE,KEY=VALUE,…`: a model of a run, with options of its own, on the command line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, get_origin

from loadtrt.asked.declaring import value_type
from loadtrt.asked.reading import FIELDS, MODEL_KEYS, RUN_KEYS
from loadtrt.errors import UsageError, nearest
from loadtrt.printing import shortened

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_EXAMPLE = "such as --model detector=det.plan,contexts=2,rate=300/s"
# What stands between commas; in quotes, commas are part of it.
_PIECE = re.compile(r"""(?:"[^"]*"|'[^']*'|[^,"'])+""")
_QUOTED = re.compile(r""""([^"]*)"|'([^']*)'""")


def parse_models(texts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The options of each model by its name, as YAML has them under `models`. Raises UsageError."""
    models: dict[str, dict[str, Any]] = {}
    for text in texts:
        name, equals, rest = text.partition("=")
        if not equals or not name.strip() or "," in name:
            raise UsageError(f"--model {shortened(text)} has no name: write NAME=ENGINE,KEY=VALUE,…, {_EXAMPLE}")
        if name in models:
            raise UsageError(f"--model {shortened(name)} is given twice: write all of its options in one")
        models[name] = _options(name, rest)
    return models


def _options(name: str, text: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for number, piece in enumerate(_pieces(name, text)):
        key, equals, value = piece.partition("=")
        key = key.strip().removeprefix("--").replace("-", "_")
        if number == 0 and key not in MODEL_KEYS:
            options["engine"] = _unquoted(piece)
            continue
        if not equals and key.removeprefix("no_") in MODEL_KEYS:
            key, value = key.removeprefix("no_"), "off" if key.startswith("no_") else "on"
        if key not in MODEL_KEYS:
            raise UsageError(f"--model {shortened(name)}: {_unknown(key, piece)}")
        _add(options, name, key, _unquoted(value))
    return options


def _pieces(name: str, text: str) -> Iterator[str]:
    place = 0
    while place <= len(text):
        found = _PIECE.match(text, place)
        end = place if found is None else found.end()
        if end < len(text) and text[end] != ",":
            raise UsageError(f"--model {shortened(name)}: a quote is open at {shortened(text[end:], 40)}: close it")
        if found is not None:
            yield found[0].strip()
        place = end + 1


def _unquoted(text: str) -> str:
    return _QUOTED.sub(lambda found: found[1] or found[2] or "", text)


def _unknown(key: str, piece: str) -> str:
    if key in RUN_KEYS:
        return f"'{key}' is an option of the run: give --{key.replace('_', '-')} beside --model"
    quoted = f'write {shortened(piece, 40)} in quotes, if it is part of the value before it (KEY="A,B")'
    return f"'{shortened(piece, 40)}' is not an option of a model: {nearest(key, MODEL_KEYS, quoted)}"


def _add(options: dict[str, Any], name: str, key: str, value: str) -> None:
    """Add a value of an option, one of several where it takes several."""
    kind = get_origin(value_type(FIELDS[key]))
    if kind is dict:
        part, colon, rest = value.rpartition(":")
        if not colon or not part:
            raise UsageError(f"--model {shortened(name)}: {key} wants NAME:VALUE, not '{shortened(value)}'")
        options.setdefault(key, {})[part] = rest
    elif kind is tuple:
        options[key] = (*options.get(key, ()), value)
    elif key in options:
        raise UsageError(f"--model {shortened(name)}: {key} is given twice: leave one out")
    else:
        options[key] = value
