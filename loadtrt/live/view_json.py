"""A View as JSON, for `loadtrt watch` on another machine."""

from __future__ import annotations

import json
from dataclasses import asdict

import loadtrt
from loadtrt.asked.faults import fault_words
from loadtrt.errors import UsageError
from loadtrt.live.view import View
from loadtrt.reading_files import parse_json

SCHEMA_VERSION = 5  # raised whenever a field of a View changes


def to_json(view: View | None) -> bytes:
    """A View for another machine; None while nothing is known of the run."""
    content = {
        "loadtrt": loadtrt.__version__,
        "schema_version": SCHEMA_VERSION,
        "view": None if view is None else asdict(view),
    }
    return json.dumps(content).encode()


def from_json(text: bytes) -> View | None:
    """The inverse of `to_json`. Raises UsageError for the view of another version, and for anything else."""
    from pydantic import TypeAdapter, ValidationError

    try:
        content = parse_json(text)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or not {"loadtrt", "schema_version", "view"} <= content.keys():
        raise UsageError("this is not the live view of a run")
    if content["schema_version"] != SCHEMA_VERSION:
        raise UsageError(
            f"the run has loadtrt {content['loadtrt']} (view {content['schema_version']}), and this is loadtrt "
            f"{loadtrt.__version__} (view {SCHEMA_VERSION}): use the same version on both machines"
        )
    try:
        view: View | None = TypeAdapter(View | None).validate_python(content["view"])
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise UsageError(f"the live view is broken: {where}: {fault_words(fault)}") from None
    return view
