"""What a command leaves behind that failed before it had a result: the schema of the file that --json names then."""

from __future__ import annotations

from typing import Literal

from loadtrt.results import Model


class Failure(Model):
    """Why there is no result.

    command: the command line.
    failed: when, ISO 8601, UTC.
    exit_code: of the command.
    failure: the sentence that the command wrote to stderr.
    """

    schema_version: Literal["loadtrt.failure/1"] = "loadtrt.failure/1"
    loadtrt: str
    command: tuple[str, ...]
    failed: str
    exit_code: int
    failure: str
