"""What goes to a terminal: nothing in a name steers it, and no name fills it.

Names come from models, plans, results, configurations and other machines. All text for stdout and stderr passes one of
these functions; loadtrt's own escapes, of the live view and of rich's tables, are added after.
"""

from __future__ import annotations

import os
import re
import reprlib
import sys

NAME, SENTENCE = 300, 3000  # the most characters of one
_LONG_WORD = re.compile(rf"\S{{{NAME + 1},}}")


def say(sentence: str) -> None:
    """Write a sentence to stderr."""
    print(f"loadtrt: {one_line(sentence)}", file=sys.stderr)


def one_line(sentence: str) -> str:
    """A sentence on one line; its words, and all of it, are cut in the middle where they are long."""
    return printable(_cut_words(" ".join(sentence.split())), SENTENCE)


def lines(text: str) -> str:
    """Text of several lines, with long words cut in the middle."""
    return "\n".join(printable(_cut_words(line)) for line in text.split("\n"))


def printable(text: str, most: int | None = None) -> str:
    """The text with what would break a line or steer a terminal (line feeds, escapes, marks that turn the direction of
    writing, ...) written as in Python, cut in the middle where it is longer than `most`."""
    if most is not None:
        text = shortened(text, most)
    if not text.isprintable():
        text = "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
    return text if most is None else shortened(text, most)


def utf8_name(name: object) -> str:
    """The name of a file for a result, with a replacement character for bytes that are not UTF-8."""
    return os.fsencode(str(name)).decode("utf-8", "replace")


def command_line() -> tuple[str, ...]:
    """The command line of this process, for a result."""
    return tuple(map(utf8_name, sys.argv))


def printable_json(text: str) -> str:
    """The same JSON, with what `printable` escapes written as JSON does: only its strings hold any."""
    if all(map(str.isprintable, text.split("\n"))):
        return text
    return "".join(sign if sign.isprintable() or sign == "\n" else _json_escape(sign) for sign in text)


def shortened(text: str, most: int = 80) -> str:
    """The text cut in its middle to at most `most` characters. Lone surrogates, which neither UTF-8 nor pydantic takes,
    are escaped."""
    tail = (most - 1) // 2
    cut = text if len(text) <= most else f"{text[: most - 1 - tail]}…{text[len(text) - tail :]}"
    return cut.encode("utf-8", "backslashreplace").decode()


def _cut_words(text: str) -> str:
    return _LONG_WORD.sub(lambda word: shortened(word[0], NAME), text) if len(text) > NAME else text


def _json_escape(sign: str) -> str:
    units = sign.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))


class _Repr(reprlib.Repr):
    """Python refuses to write an int of thousands of digits."""

    def repr_int(self, x: int, level: int) -> str:  # noqa: ARG002  # reprlib's signature
        return f"a number of {x.bit_length()} bits" if x.bit_length() > 256 else repr(x)


_repr = _Repr()
_repr.maxstring = _repr.maxother = 80


def bounded_repr(value: object) -> str:
    """`repr(value)`, of at most a few hundred characters however large the value is."""
    return shortened(_repr.repr(value), 400)
