"""Reports as CSV: read by pandas, the same columns whatever is in them."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from loadtrt.errors import UsageError
from loadtrt.report.csv_lines import COLUMNS, csv_text
from loadtrt.report.result_files import Loaded
from reported import HOSTILE, OBJECTIVE, altered, capacity, loaded, measured, profile, sweep, two_models, whole_run

if TYPE_CHECKING:
    from loadtrt.report.result_files import Result


def _read(*results: Result) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(csv_text([loaded(result) for result in results])))


def test_a_run_is_a_line() -> None:
    """Numbers are those of the result, in the base units that the names tell."""
    run = whole_run()
    (line,) = _read(run).to_dict("records")
    assert line["kind"] == "run"
    assert line["latency_p99_ns"] == run.model.metrics["latency"].percentiles_ns["p99"]
    assert line["requests_per_s"] == pytest.approx(run.model.throughput.requests_per_s)
    assert (line["contexts"], line["rate_per_s"], line["ok"]) == (2, 200.0, run.model.ok)
    assert (line["objective_1_text"], line["objective_1_verdict"]) == (OBJECTIVE, run.model.objectives[0].verdict)
    assert line["objective_1_bad_ratio"] == pytest.approx(
        1 - run.model.objectives[0].good / run.model.objectives[0].requests
    )
    assert (line["joules_per_inference"], line["throttled_ratio"]) == (2.5, 0.2)
    assert (line["findings"], line["overloaded"]) == ("throttled", True)


def test_each_model_of_a_run_is_a_line() -> None:
    """With its own numbers."""
    run = two_models()
    lines = _read(run).to_dict("records")
    assert [line["file"] for line in lines] == ["result.json: a", "result.json: b"]
    assert [line["number"] for line in lines] == [1, 2]
    assert [line["ok"] for line in lines] == [model.ok for model in run.models.values()]
    assert [line["verdict"] for line in lines] == [model.verdict for model in run.models.values()]


def test_what_is_not_known_is_empty() -> None:
    """Neither 0 nor a word."""
    (line,) = _read(measured("--requests", "50")).to_dict("records")
    assert pd.isna(line["latency_p99_ns"])
    assert pd.isna(line["offered_per_s"])
    assert pd.isna(line["joules_per_inference"])


def test_points_and_trials_are_lines() -> None:
    """Failed ones too, with what is known of them."""
    table = _read(sweep(), capacity())
    points, trials = table[table["kind"] == "point"], table[table["kind"] == "trial"]
    assert points["pareto"].tolist() == [True, False, True, False]
    assert points["knee"].tolist() == [False, False, True, False]
    failed = points.iloc[3]
    assert (failed["contexts"], failed["batch"], failed["outcome"], failed["failure"]) == (
        2,
        4,
        "failed",
        "out of memory",
    )
    assert trials["trial"].tolist() == ["ladder", "ladder", "search", "search", "confirm"]
    assert trials["rate_per_s"].tolist()[2:] == [260.0, 240.0, 200.0]
    assert trials["in_flight"].tolist()[:2] == [1, 4]


def test_columns_are_always_the_same() -> None:
    """So that files can be put one after the other."""
    kinds: list[list[Result]] = [[measured()], [sweep()], [capacity()], [measured(), sweep(), capacity()]]
    for results in kinds:
        header = csv_text([loaded(result) for result in results]).split("\n", maxsplit=1)[0]
        assert header == ",".join(COLUMNS)
    assert len(set(COLUMNS)) == len(COLUMNS)


@pytest.mark.parametrize("name", [HOSTILE, "=1+1", "+x", "-x", "@x", "a,b", 'a"b', "\r", ""])
def test_a_name_is_no_formula_and_breaks_no_line(name: str) -> None:
    """What a spreadsheet would compute stands behind an apostrophe; a table is read back line by line."""
    text = csv_text([Loaded(name, altered(measured(), engine_name=name, failure=name, outcome="failed"))])
    assert text.count("\n") == 2
    (line,) = pd.read_csv(io.StringIO(text), keep_default_na=False).to_dict("records")
    assert not line["engine"].startswith(("=", "+", "-", "@", "\t", "\r"))
    assert line["engine"].removeprefix("'") in (name, name.encode("unicode_escape").decode()) or name == HOSTILE


def test_what_has_no_lines() -> None:
    """A profile is of layers, not of runs."""
    with pytest.raises(UsageError, match="has no runs, points or trials"):
        csv_text([loaded(profile())])
