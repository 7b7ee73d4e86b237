"""Reading YAML, and JSON as the YAML that it is: as large, as deep and as often repeated as configurations are."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import yaml

from loadtrt.errors import UsageError
from loadtrt.printing import shortened
from loadtrt.reading_files import MOST_RESULT_BYTES, parse_json, read_text, utf8

if TYPE_CHECKING:
    from pathlib import Path

_MOST_CHARACTERS = 1 << 20
_MOST_VALUES = 50_000
_MOST_DEPTH = 32
_TEXTS = re.compile(r"^[-+]?(?:[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?|0[0-9_]+)$")


class _Loader(yaml.SafeLoader):
    """YAML 1.2's booleans and numbers: YAML 1.1 reads the key `on` as True, the mix 8:1 as 8·60 + 1, and 010 as 8. Here
    010 is text, as a label is (of a commit, or a build); whole numbers of options are read from it as decimal.

    An alias counts as all the values that it stands for, so that a few lines cannot become billions of values.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._values = 0
        self._values_of: dict[int, int] = {}  # values in a node, by its id

    def compose_node(self, parent: Any, index: Any) -> Any:
        """One node, counted."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        is_alias, before = isinstance(event, yaml.AliasEvent), self._values
        self._depth += 1
        if self._depth > _MOST_DEPTH:
            raise yaml.composer.ComposerError(None, None, f"more than {_MOST_DEPTH} levels", event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if is_alias and id(node) not in self._values_of:
            raise yaml.composer.ComposerError(None, None, "a value that contains itself", event.start_mark)
        self._values += self._values_of[id(node)] if is_alias else 1
        if self._values > _MOST_VALUES:
            why = f"more than {_MOST_VALUES} values, those that aliases repeat included,"
            raise yaml.composer.ComposerError(None, None, why, event.start_mark)
        self._values_of[id(node)] = self._values - before
        if isinstance(node, yaml.MappingNode) and not is_alias:
            _require_keys_once(node)
        return node

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        """The value of a node: PyYAML lets errors of int(), date() and others pass."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError):
            kind = node.tag.removeprefix("tag:yaml.org,2002:")
            text = shortened(str(node.value), 40) if isinstance(node, yaml.ScalarNode) else "what follows"
            why = f"'{text}' cannot be read as {kind}"
            raise yaml.constructor.ConstructorError(None, None, why, node.start_mark) from None


def _require_keys_once(node: yaml.MappingNode) -> None:
    """YAML forbids two equal keys, and PyYAML takes the last one."""
    seen = set()
    for key, _ in node.value:
        if (key.tag, str(key.value)) in seen:
            raise ValueError(f"{_twice(key.value)} (line {key.start_mark.line + 1})")
        seen.add((key.tag, str(key.value)))


def _once(pairs: list[tuple[str, Any]]) -> None:
    """The same for an object of JSON."""
    repeated = [key for key, times in Counter(key for key, _ in pairs).items() if times > 1]
    if repeated:
        raise ValueError(_twice(repeated[0]))


def _twice(key: object) -> str:
    return f"key '{shortened(str(key), 40)}' is given twice: leave one out"


_Loader.yaml_implicit_resolvers = {
    letter: [
        ("tag:yaml.org,2002:str", _TEXTS),
        *((tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"),
    ]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:[tT]rue|[fF]alse)$"), list("tTfF"))


def read_yaml(file: Path) -> Any:
    """What is in a YAML or JSON file. Raises UsageError for a file that cannot be read, is neither, or has more than a
    configuration needs."""
    try:
        text = read_text(file, "configuration", MOST_RESULT_BYTES)
        if text.lstrip().startswith("{"):  # a result, which may be long: it is read a hundred times as fast as JSON
            try:
                content = parse_json(text)
            except (ValueError, RecursionError):
                pass  # the YAML reader below says in which line
            else:
                if "schema_version" not in content:  # a configuration
                    json.loads(text, strict=False, object_pairs_hook=_once)
                return content
        if len(text) > _MOST_CHARACTERS:
            raise UsageError(f"{file} has more than {_MOST_CHARACTERS} characters, which no configuration needs")
        return utf8(yaml.load(text, _Loader))  # noqa: S506  # a SafeLoader
    except UnicodeDecodeError:
        raise UsageError(f"{file} is not YAML: it has bytes that are not text") from None
    except yaml.YAMLError as error:
        wrong = str(error)
        if isinstance(error, yaml.MarkedYAMLError) and (mark := error.problem_mark):
            wrong = f"{error.problem} in line {mark.line + 1}, column {mark.column + 1}"
        wrong = " ".join(wrong.replace("'<stream end>'", "the end").split())
        raise UsageError(f"{file} is not YAML: {wrong}") from None
    except ValueError as error:
        raise UsageError(f"{file}: {error}") from None
