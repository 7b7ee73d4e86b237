"""Numbers of a result's file are numbers: true and text in their place are one sentence, which names the place."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from command_line import loadtrt
from loadtrt.errors import UsageError
from reported import every_kind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Options have a rule of their own; the others hold what one shows and nothing computes with.
ELSEWHERE = {"config", "environment", "axes", "settings", "beside"}


def numbers(content: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The places of numbers, of each list in its first item."""
    if isinstance(content, dict):
        for key in content.keys() - ELSEWHERE:
            yield from numbers(content[key], (*place, key))
    elif isinstance(content, list):
        yield from (found for item in content[:1] for found in numbers(item, (*place, 0)))
    elif isinstance(content, int | float) and not isinstance(content, bool):
        yield place


@pytest.mark.parametrize("kind", every_kind())
@pytest.mark.parametrize("wrong", [True, "12"])
def test_true_and_text_are_no_numbers(kind: str, wrong: object) -> None:
    """Wherever they stand."""
    result = every_kind()[kind]
    content = json.loads(result.to_json())
    places = list(numbers(content))
    assert places
    read = []
    for *way, last in places:
        inside = content
        for key in way:
            inside = inside[key]
        right, inside[last] = inside[last], wrong
        try:
            type(result).model_validate_json(json.dumps(content))
            read.append((*way, last))
        except (ValidationError, UsageError):
            pass
        inside[last] = right
    assert read == []
    assert type(result).model_validate_json(json.dumps(content)) == result


@pytest.mark.parametrize(("wrong", "shown"), [("true", "True"), ('"12"', "'12'")])
@pytest.mark.parametrize("command", [("report",), ("compare",), ("plan-capacity", "--demand", "9/s"), ("merge",)])
def test_commands_name_the_place(command: tuple[str, ...], wrong: str, shown: str, tmp_path: Path) -> None:
    """In one sentence, with exit code 2."""
    file = tmp_path / "run.json"
    content = json.loads(every_kind()["run"].to_json())
    content["models"]["simulated"]["ok"] = json.loads(wrong)
    file.write_text(json.dumps(content))
    done = loadtrt(*command, file, *([file] if command[0] == "compare" else []))
    assert done.returncode == 2
    place = "does not fit its schema loadtrt.run/1: models.simulated.ok"
    assert done.stderr == f"loadtrt: {file} {place}: {shown} is not a whole number; write it again\n"
