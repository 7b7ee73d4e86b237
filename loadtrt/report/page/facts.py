"""What a run was made with, and how to make it again."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

from loadtrt.report.page.section import Code, Data, Name, Table, section, words
from loadtrt.report.text import memory_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from loadtrt.measure.capacity_result import CapacityResult
    from loadtrt.measure.fleet_result import FleetResult
    from loadtrt.measure.result import RunResult
    from loadtrt.measure.sweep_result import SweepResult
    from loadtrt.report.page.section import Block, Section

MOST_JSON = 48 * 1024  # characters of a result within the page
# Left out in this order until the rest fits, which leaves what a run without them has.
_BULK: dict[str, Any] = {"sample": None, "profile": None, "intervals": [], "histograms": {}, "telemetry": None}


def facts(result: RunResult, file: str, key: str) -> Section:
    """Configuration, environment, the command, and the result itself."""
    return section("Configuration", *_blocks(result, file, key))


def _blocks(result: RunResult, file: str, key: str) -> Iterator[Block]:
    engine = result.engine
    yield words(memory_text(result.memory))
    for text in (engine.precision and f"precision: {engine.precision}", *engine.notes):
        if text:
            yield words(text)
    if result.verification is not None:
        checked = result.verification
        yield words(
            f"verify: {checked.outputs} outputs under load compared with a quiet run, {checked.different} differ"
        )
    yield mapping_table(result.config.options(), "configuration")
    yield mapping_table(_environment(result), "environment")
    yield words("To run it again, or ", Name(f"loadtrt run --config {shlex.quote(file)}"), ":")
    yield Code(command_text(result.command))
    text, left = _json(result)
    less = f", without its {', '.join(left)}, which the file has" if left else ""
    yield Data(key, text, f"The result is in this page as JSON (id {key}){less}.")


def closing(
    result: SweepResult | CapacityResult | FleetResult, file: str, key: str, **settings: Mapping[str, Any]
) -> Iterator[Block]:
    """What a result of many runs was made with. settings: by their titles."""
    for title, values in settings.items():
        yield mapping_table(values, title)
    yield words("To make it again:")
    begun = result.outcome != "completed"  # what is finished, --resume would make nothing of
    yield Code(command_text(tuple(word for word in result.command if begun or word != "--resume")))
    text = _compact(result.model_dump(mode="json"))
    if len(text) <= MOST_JSON:
        yield Data(key, text, f"The whole result is in this page as JSON (id {key}).")
    else:
        yield words("The whole result, too large for this page, is in ", Name(file), ".")


def command_text(command: tuple[str, ...]) -> str:
    """The command as a shell takes it, by the name of the program."""
    return shlex.join(["loadtrt", *command[1:]])


def mapping_table(values: Mapping[str, Any], title: str) -> Table:
    """What is set, by name."""
    rows = tuple((Name(name), Name(text)) for name, value in values.items() if (text := told(value)))
    return Table(("", ""), rows, words=2, folded=title)


def told(value: Any) -> str:
    """A setting in words; "" for one that is not set."""
    match value:
        case None | "" | [] | {} | ():
            return ""
        case bool():
            return "yes" if value else "no"
        case str() | int() | float():
            return str(value)
        case list() | tuple():
            return ", ".join(map(told, value))
        case dict():
            return ", ".join(f"{name} {text}" for name, item in value.items() if (text := told(item)))
        case _:
            return str(value)


def _environment(result: RunResult) -> dict[str, Any]:
    engine = result.engine
    build = dict(engine.build) if engine.build else None
    tensors = [str(spec) for spec in engine.tensors]
    return {**result.environment, "sha256": engine.sha256, "tensors": tensors, "built": build}


def _json(result: RunResult) -> tuple[str, list[str]]:
    """(JSON of a RunResult, what was left out of it)."""
    data = result.model_dump(mode="json")
    left: list[str] = []
    text = _compact(data)
    for name, empty in _BULK.items():
        if len(text) <= MOST_JSON:
            break
        if data[name]:
            data[name] = empty
            left.append(name)
            text = _compact(data)
    return text, left


def _compact(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))
