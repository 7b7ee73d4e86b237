"""Labels that a user gives to results and metrics: --label KEY=VALUE, or a mapping in a file."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

from loadtrt.errors import UsageError
from loadtrt.printing import bounded_repr

MOST_LABELS = 32
MOST_VALUE = 256  # characters
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,127}")  # as Prometheus has them, without those that begin with _
# What metrics, their stores and JUnit's properties have of their own (tests/asked/test_labels.py compares).
RESERVED = frozenset({
    "model", "run", "lane", "outcome", "phase", "kind", "objective", "domain", "reason", "direction", "state", "le",
    "quantile", "job", "instance", "name", "value", "UUID", "Hostname", "point", "engine", "contexts", "revision",
    "flavour", "version", "device", "precision", "sha256", "arrivals", "buffers", "batch", "duration", "requests",
    "graph", "copies", "wait", "submit", "loop", "partitions", "requests_per_launch", "threads_per_context", "sessions",
    "spinning", "service", "concurrency", "cv", "contention", "seed", "clock", "worker",
})  # fmt: skip


def require_label(name: object, value: object) -> str:
    """The value of a label as text. Raises UsageError for a name that metrics cannot have, and for a value that is not
    one line of text."""
    shown = bounded_repr(name)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UsageError(
            f"{shown} is not the name of a label: write letters, digits and _, a letter first, such as team=search"
        )
    if name in RESERVED:
        raise UsageError(f"{shown} is a name that loadtrt's own metrics use: take another, such as my_{name}")
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)  # of a file, where a build's number needs no quotes
    if not isinstance(value, str):
        raise UsageError(f"the value of {shown} is {bounded_repr(value)}, not text: write it in quotes")
    if not value or len(value) > MOST_VALUE or not value.isprintable():
        raise UsageError(
            f"the value of {shown} is {bounded_repr(value)}: write one line of 1 to {MOST_VALUE} characters"
        )
    return value


def _labels(given: object) -> object:
    """What is not a mapping is left to pydantic."""
    if not isinstance(given, dict):
        return given
    if len(given) > MOST_LABELS:
        raise ValueError(f"{len(given)} labels are more than {MOST_LABELS}, the most: leave some out")
    try:
        return {name: require_label(name, value) for name, value in given.items()}
    except UsageError as error:
        raise ValueError(str(error)) from None


_IN_FILES = {"type": "object", "additionalProperties": {"type": ["string", "integer"]}}
Labels = Annotated[dict[str, str], BeforeValidator(_labels), WithJsonSchema(_IN_FILES)]
