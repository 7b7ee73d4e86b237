"""The text form of engines that are no files: "key=value,key=value"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loadtrt.errors import UsageError, nearest
from loadtrt.printing import shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


def read_keys(
    text: str, keys: Mapping[str, tuple[str, Callable[[str], Any]]], engine: str, words: Sequence[str] = ()
) -> dict[str, Any]:
    """The values by the names of their fields.

    keys: of each key its field and how its value is read, which raises UsageError or ValueError.
    engine: what errors begin with.
    words: what else may stand in the place of the text.

    Raises UsageError for a key that is unknown or given twice, a value that is missing or cannot be read.
    """
    values: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, _, value = part.partition("=")
        if key not in keys:
            known = (*words, *keys)
            raise UsageError(f"{engine}: unknown key '{key}': {nearest(key, known, choose_from(known))}")
        field, read = keys[key]
        if not value:
            raise UsageError(f"{engine}: '{key}' needs a value: write {key}=...")
        if field in values:
            raise UsageError(f"{engine}: '{key}' is given twice")
        try:
            values[field] = read(value)
        except UsageError as error:
            raise UsageError(f"{engine}: {key}: {error}") from None
        except ValueError:
            raise UsageError(f"{engine}: {key}: '{shortened(value)}' is not a number") from None
    return values


def choose_from(words: Sequence[str]) -> str:
    """What to do where a word is unknown."""
    return f"choose from {', '.join(words)}"
