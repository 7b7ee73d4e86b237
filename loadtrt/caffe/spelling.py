"""Words typed wrongly: the guess is never a name for something else, such as another layer of a fork of Caffe."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# Letters of a name, and of a part of one: of short names that differ by one, such as ELU and SELU, both may exist.
_SHORTEST_NAME, _SHORTEST_PART = 6, 4


def corrected(word: str, words: Iterable[str]) -> str:
    """The one of `words` that `word` is, with one letter typed wrongly, or with other capitals or underscores; "" where
    there is none."""
    return next((known for known in words if _is_misspelled(word, known)), "")


def _is_misspelled(word: str, known: str) -> bool:
    if _plain(word) == _plain(known):
        return True
    parts = list(zip(word.split("_"), known.split("_"), strict=False))
    differing = [pair for pair in parts if pair[0] != pair[1]]
    if word.count("_") != known.count("_") or len(differing) != 1:
        return False
    typed, right = differing[0]
    shortest = _SHORTEST_PART if "_" in known else _SHORTEST_NAME
    return len(right) >= shortest and typed[:1] == right[:1] and _is_one_slip(typed, right)


def _plain(word: str) -> str:
    return word.replace("_", "").lower()


def _is_one_slip(typed: str, right: str) -> bool:
    """Whether one letter is missing, doubled or added, another, or swapped with the next. Digits are not slips:
    Pooling3 may exist."""
    if sorted(filter(str.isdigit, typed)) != sorted(filter(str.isdigit, right)):
        return False
    start = next((at for at, (one, other) in enumerate(zip(typed, right, strict=False)) if one != other), None)
    if start is None:
        return abs(len(typed) - len(right)) == 1
    one, other = typed[start:], right[start:]
    swapped = one[1:2] + one[:1] + one[2:] == other
    return swapped or one[1:] == other[1:] or one[1:] == other or one == other[1:]
