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
    (_same, "alone/a", ..., "a was not measured alone, which fixes its rates"),
    (_same, "alone/a/closed/per_s", 0, "a closed loop that served nothing fixes no rate"),
    (_same, "alone/a/rate_per_s", 3.0, "alone.a.rate_per_s: 3 is not "),
    (_same, "alone/m/closed/per_s", 1.0, "the rate at 30% of the closed loop"),
    (_same, "stress", 0, "stress: 0 is not above 0 and up to 1"),
    (_same, "precision", -1, "precision: -1 is not above 0"),
    (_same, "most_rounds", 0, "most_rounds: 0 is below 1, the least"),
    (_same, "shares", ["x"], "shares.0: 'x' is not a way to share"),
    (_same, "levels", ["x"], "levels: 'x' is not a level, such as 50%"),
    (_same, "load", "x", "load: 'x' is not a level, such as 50%"),
    (_same, "arrivals", "x", "arrivals: 'x' is not 'poisson' or 'constant'"),
    (_same, "stressors", {}, "alone.m: there is no such model"),
    (_same, "stressors", {"a": "x"}, "stressors: a is a model, too"),
    (_same, "fingerprints/a/slowdowns", {}, "fingerprints.a.slowdowns: it is of nothing, and stressors are m"),
    (_same, "fingerprints/a/slowdowns/m/low", 1e9, "fingerprints.a.slowdowns.m.low: 1e+09 is on the wrong side"),
    (_same, "predictions/0/model", "z", "predictions.0: there is no such cell on plain streams"),
    (_cell("50%"), "model", "z", "model: there is no model z"),
    (_cell("50%"), "neighbour", "a", "neighbour: a is not its own neighbour"),
    (_cell("50%"), "share", "priority", "share: 'priority' is not in shares"),
    (_cell("50%"), "level", "x", "level: 'x' is not a level: 50%, closed or own"),
    (_cell("50%"), "neighbour_level", "-3%", "neighbour_level: '-3%' is not a level: 50%, closed or 0"),
    (_cell("50%"), "neighbour_level", "closed", "is there twice"),
    (_cell("50%"), "neighbour_level", "60%", "the rate at 60% of the closed loop"),
    (_cell("50%"), "rate_per_s", None, "rate_per_s: nothing is not "),
    (_cell("50%"), "neighbour_rate_per_s", 1e20, "neighbour_rate_per_s: 1e+20 is not "),
    (_cell("closed"), "neighbour_rate_per_s", 5, "neighbour_rate_per_s: a level of closed has no rate"),
    (_cell("50%"), "rounds", [], "rounds: they are missing"),
    (_cell("50%"), "rounds/0/neighbour", None, "rounds.0.neighbour: it is missing"),
    (_cell("0"), "rounds/0/neighbour", {"due": 1, "served": 1, "per_s": 1, "latency_ns": {}}, "not of this level"),
    (_cell("closed"), "rounds/0/neighbour_alone", None, "rounds.0.neighbour_alone: it is missing"),
    (_cell("50%"), "rounds/0/beside/latency_ns/p99", ..., "rounds.0.beside.latency_ns: p99 is missing"),
    (_cell("50%"), "ratios", [], "ratios: they are missing, and not those of p50, p99, mean"),
    (_cell("50%"), "ratios/1/low", 1e9, "ratios.1.low: 1e+09 is on the wrong side of the ratio"),
    (_cell("closed"), "jain/high", 0.0, "jain.high: 0 is on the wrong side of the ratio"),
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
