"""A file of interference that someone edited: whoever reads it says in one sentence what does not fit together."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from loadtrt.cli.main import cli
from loadtrt.errors import UsageError
from loadtrt.report.result_files import read_result
from loadtrt.results.interference_result import InterferenceResult

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_ENGINE = "simulated:service={}us,cv=0.3,device=g,clock=virtual,scales=0"
OPTIONS = [
    *("--model", f"a='{_ENGINE.format(200)}'", "--model", f"b='{_ENGINE.format(300)}'"),
    *("--stressor", f"m='{_ENGINE.format(100)}'", "--neighbour", "0,50%,closed", "--duration", "400ms"),
    *("--rounds", "2", "--warmup", "0", "--no-verify", "--quiet"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a measurement leaves behind, to be continued."""
    file = tmp_path_factory.mktemp("whole") / "i.json"
    done = CliRunner().invoke(cli, ["interference", *OPTIONS, "--json", str(file)], standalone_mode=False)
    assert done.exception is None, done.exception
    content: dict[str, Any] = {**json.loads(file.read_text()), "outcome": "interrupted"}
    assert content["predictions"]
    return content


def _cell(level: str, model: str = "a", neighbour: str = "b") -> Callable[[dict[str, Any]], Any]:
    def find(content: dict[str, Any]) -> Any:
        wanted = {"model": model, "neighbour": neighbour, "neighbour_level": level}
        return next(cell for cell in content["cells"] if wanted.items() <= cell.items())

    return find


def _same(content: dict[str, Any]) -> Any:
    return content


DAMAGED: list[tuple[Callable[[dict[str, Any]], Any], str, Any, str]] = [
    (_same, "alone/a", ..., "a was not measured alone"),
    (_same, "arrivals", "x", "arrivals: 'x' is not 'poisson' or 'constant'"),
    (_same, "stressors", {}, "alone.m: there is no such model"),
    (_same, "fingerprints/a/slowdowns", {}, "fingerprints.a: its stressors are not those of the file"),
    (_same, "predictions/0/model", "z", "predictions.0: there is no such cell on plain streams"),
    (_cell("50%"), "model", "z", "model: there is no model z"),
    (_cell("50%"), "neighbour", "a", "neighbour: a is not its own neighbour"),
    (_cell("50%"), "neighbour_level", "closed", "is there twice"),
    (_cell("50%"), "rounds", [], "rounds: they are missing"),
    (_cell("50%"), "rounds/0/neighbour", None, "rounds.0.neighbour: it is missing"),
    (_cell("0"), "rounds/0/neighbour", {"due": 1, "served": 1, "per_s": 1, "latency_ns": {}}, "not of this level"),
    (_cell("closed"), "rounds/0/neighbour_alone", None, "rounds.0.neighbour_alone: it is missing"),
    (_cell("50%"), "rounds/0/beside/latency_ns/p99", ..., "rounds.0.beside.latency_ns: p99 is missing"),
    (_cell("50%"), "ratios", [], "ratios: they are not those of p50, p99, mean"),
]


@pytest.mark.parametrize(("part", "place", "value", "sentence"), DAMAGED)
def test_what_does_not_fit_is_named(
    part: Callable[[dict[str, Any]], Any],
    place: str,
    value: Any,
    sentence: str,
    whole: dict[str, Any],
    tmp_path: Path,
) -> None:
    """By all that read the file, before they use any of it. ...: left out."""
    content = json.loads(json.dumps(whole))
    *way, last = place.split("/")
    inside = part(content)
    for key in way:
        inside = inside[int(key) if isinstance(inside, list) else key]
    if value is ...:
        del inside[last]
    else:
        inside[last] = value
    file = tmp_path / "i.json"
    file.write_text(json.dumps(content))
    for line in (["report", file], ["interference", *OPTIONS, "--json", file, "--resume"]):
        found = CliRunner().invoke(cli, list(map(str, line)), standalone_mode=False)
        assert isinstance(found.exception, UsageError), found.exception
        assert found.exception.exit_code == 2
        (told,) = str(found.exception).splitlines()
        assert told.startswith(f"{file} does not fit its schema loadtrt.interference/1: ")
        assert sentence in told
        assert ": :" not in told


def test_what_a_measurement_writes_fits_together(whole: dict[str, Any], tmp_path: Path) -> None:
    """After each round: whatever was measured until then can be continued."""
    for count in range(len(whole["cells"]) + 1):
        cells = whole["cells"][:count]
        content = {**whole, "cells": cells, "predictions": [], "fingerprints": {}}
        file = tmp_path / "i.json"
        file.write_text(json.dumps(content))
        assert len(read_result(InterferenceResult, file).cells) == count
