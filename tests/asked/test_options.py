"""Options are declared once: the command line, the keys of a file, their schema and the documentation follow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from loadtrt.asked.config import RunConfig
from loadtrt.asked.declaring import GROUPS, shown_as
from loadtrt.asked.reading import FIELDS, MODEL_KEYS, RUN_KEYS, _read_yaml, config_schema, load_config
from loadtrt.cli.main import cli
from loadtrt.cli.options import table
from loadtrt.errors import UsageError
from loadtrt.report.result_files import SCHEMAS

ROOT = Path(__file__).parents[2]
COMMANDS = ("run", "sweep", "capacity", "interference", "profile", "plan-capacity")
OWN = {  # options of one command alone, apart from --config
    "run": {"latency", "models", "repeat", "start_at"},
    "sweep": {"all_points", "resume"},
    "capacity": {"time", "quick", "precision", "shared_host", "resume", "models", "of"},
    "interference": {
        *("load", "neighbour", "share", "rounds", "precision", "stressors", "own_stressors", "models", "resume")
    },
    "profile": {"compare", "nodes", "top"},
    "plan-capacity": {
        "arrivals",
        "batch",
        "contexts",
        "demand",
        "together",
        "demand_inferences",
        "growth",
        "headroom",
        "spares",
        "max_utilisation",
        "routing",
        "ties",
        "gpu_price",
        "measure",
    },
}


def _options(name: str) -> set[str]:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return {str(option.name) for option in command.params if isinstance(option, click.Option)} - {"config", "force"}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_takes_the_options_that_are_declared_for_it(name: str) -> None:
    """And its own, and no others."""
    declared = {key for key, field in FIELDS.items() if (shown := shown_as(field)) and name in {"run", *shown.commands}}
    assert _options(name) == declared | OWN[name]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_groups_in_the_order_of_use(name: str) -> None:
    """Engine before Lanes before Load, each text a sentence that ends."""
    text = CliRunner().invoke(cli, [name, "--help"]).output
    shown = [line.rstrip(":") for line in text.splitlines() if line.rstrip(":") in GROUPS and line.endswith(":")]
    assert shown == [group for group in GROUPS if group in shown]
    assert {"Engine", "Requests", "Results"} <= set(shown)


def test_every_option_is_a_sentence() -> None:
    """It begins with a capital letter and ends with a full stop: it is read without what stands around it."""
    for key, field in FIELDS.items():
        text = field.description or ""
        assert text[:1].isupper() or text.startswith("p99 "), key
        assert text.endswith("."), key


def test_every_key_belongs_to_a_model_or_to_the_run() -> None:
    """To one of both."""
    assert set(FIELDS) == MODEL_KEYS | RUN_KEYS
    assert not MODEL_KEYS & RUN_KEYS


def test_the_documentation_has_the_table() -> None:
    """`make docs` writes it."""
    assert (ROOT / "docs" / "options.md").read_text(encoding="utf-8") == table()


@pytest.mark.parametrize("file", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda file: file.name)
def test_examples_fit_the_schema(file: Path) -> None:
    """The schema that editors get, and the reader, say the same."""
    Draft202012Validator(config_schema()).validate(_read_yaml(file))


@pytest.mark.parametrize(
    ("options", "fits"),
    [
        ({"engine": "x", "rate": "500/s", "duration": "10s"}, True),
        ({"engine": "x", "rate": 500, "objective": "latency.p99 < 10ms"}, True),
        ({"models": {"a": {"engine": "x", "rate": 5}}, "warmup": "1s"}, True),
        ({"engine": "x", "contexts": "many"}, False),
        ({"engine": "x", "contxts": 4}, False),
        ({"models": {"a": {"contexts": 4}}}, False),
    ],
)
def test_the_schema_takes_what_the_reader_takes(options: dict[str, Any], fits: bool, tmp_path: Path) -> None:
    """Texts such as 10s and 500/s, and numbers; no unknown key."""
    assert Draft202012Validator(config_schema()).is_valid(options) is fits
    file = tmp_path / "run.yaml"
    file.write_text(json.dumps(options))
    if fits:
        load_config(file, {})
    else:
        with pytest.raises(UsageError):
            load_config(file, {})


@pytest.mark.parametrize(
    "kind", ["config", "run", "repeat", "sweep", "capacity", "interference", "fleet", "placement", "profile"]
)
def test_schemas_are_schemas(kind: str) -> None:
    """As JSON Schema has it."""
    done = CliRunner().invoke(cli, ["schema", kind])
    assert done.exit_code == 0
    Draft202012Validator.check_schema(json.loads(done.output))


def test_every_kind_of_result_has_a_schema() -> None:
    """`loadtrt schema` knows all that has a version."""
    versions = {str(schema.model_fields["schema_version"].default) for schema in SCHEMAS.values()}
    assert {
        "loadtrt.run/1",
        "loadtrt.sweep/1",
        "loadtrt.capacity/1",
        "loadtrt.fleet/1",
        "loadtrt.profile/1",
    } <= versions


# --- several models


TWO = {"models": {"detector": {"engine": "a.plan", "rate": "300/s"}, "classifier": {"engine": "b.plan", "contexts": 4}}}


def test_a_file_may_hold_several_models(tmp_path: Path) -> None:
    """Each with its options; an option beside them, or on the command line, is of all of them."""
    file = tmp_path / "two.yaml"
    file.write_text(json.dumps({**TWO, "warmup": "2s"}))
    config = load_config(file, {"duration": "5s"}, several=True)
    assert {name: model.engine for name, model in config.models.items()} == {
        "detector": "a.plan",
        "classifier": "b.plan",
    }
    assert config.models["detector"].load.mean_rate(1) == 300
    assert (config.warmup, config.duration) == (2 * 10**9, 5 * 10**9)
    assert RunConfig.model_validate(config.model_dump(mode="json")) == config
    config = load_config(file, {"contexts": 2, "models": {"classifier": {"rate": "5/s"}}}, several=True)
    assert [model.contexts for model in config.models.values()] == [2, 2]
    assert config.models["classifier"].load.mean_rate(1) == 5
    with pytest.raises(UsageError, match=r"--engine c\.plan is for a run of one model: write it as --model"):
        load_config(file, {"engine": "c.plan"}, several=True)


@pytest.mark.parametrize(
    "command",
    [
        ["run", "--latency"],
        ["run", "--repeat", "2"],
        ["sweep", "--contexts", "1,2"],
        ["capacity", "--objective", "latency.p99 < 1s"],
        ["profile"],
    ],
    ids=lambda command: "-".join(command[:2]),
)
def test_several_models_are_refused_in_one_sentence(command: list[str], tmp_path: Path) -> None:
    """By what is of one model."""
    file = tmp_path / "two.yaml"
    file.write_text(json.dumps(TWO))
    done = CliRunner().invoke(cli, [*command, "--config", str(file)])
    assert isinstance(done.exception, UsageError)
    what, remedy = ("this command", "leave the others out") if command[0] != "run" else (command[1], "leave it out")
    assert str(done.exception).startswith(f"{what} takes one model, and there are detector, classifier: {remedy}, or ")


def test_faults_name_the_model(tmp_path: Path) -> None:
    """Where several are there."""
    file = tmp_path / "two.yaml"
    models = {**TWO["models"], "third": {"engine": "c.plan", "contexts": 0}}
    file.write_text(json.dumps({"models": models}))
    with pytest.raises(UsageError, match=r"two.yaml: models.third.contexts: 0 is below 1"):
        load_config(file, {}, several=True)


# --- faults


def test_every_fault_is_named(tmp_path: Path) -> None:
    """Those of the load, of other options and of objectives, all at once."""
    file = tmp_path / "run.yaml"
    file.write_text(json.dumps({"engine": "x", "contexts": 0, "buffers": 99, "rate": "fast", "objective": ["foo"]}))
    with pytest.raises(UsageError) as caught:
        load_config(file, {})
    for part in (
        "contexts: 0 is below 1",
        "buffers: 99 is above 64",
        "rate: 'fast' is not a rate",
        "objective: 'foo' is not an objective",
    ):
        assert part in str(caught.value)


def test_an_option_of_the_run_under_a_model_says_where_it_belongs(tmp_path: Path) -> None:
    """And what is not the configuration of a run is refused as that."""
    file = tmp_path / "run.yaml"
    file.write_text(json.dumps({"models": {"a": {"engine": "x", "duration": "1s"}}}))
    with pytest.raises(UsageError, match=r"models\.a: 'duration' is an option of the run: write it beside models"):
        load_config(file, {})
    file.write_text(json.dumps({"schema_version": "loadtrt.fleet/1", "choices": []}))
    with pytest.raises(UsageError, match="is a result without the configuration of a run"):
        load_config(file, {})


@pytest.mark.parametrize("version", ["loadtrt.run/2", "loadtrt.run/9", "run/1", "1", 1, None, ["loadtrt.run/1"]])
def test_the_configuration_of_another_version_is_not_guessed_at(tmp_path: Path, version: object) -> None:
    """A key may mean something else there; those of all kinds of results that have one are read."""
    file = tmp_path / "run.json"
    for known in (str(schema.model_fields["schema_version"].default) for schema in SCHEMAS.values()):
        file.write_text(json.dumps({"schema_version": known, "config": {"engine": "x", "contexts": 3}}))
        assert load_config(file, {}).model.contexts == 3
    file.write_text(json.dumps({"schema_version": version, "config": {"engine": "x"}}))
    with pytest.raises(UsageError, match=r"has the schema '.*', which this loadtrt does not know: give a YAML file"):
        load_config(file, {})


def test_values_that_change_nothing_are_no_load() -> None:
    """A time scale of 1, and a trace that does not loop, where there is no trace."""
    assert RunConfig.of(engine="x", time_scale=1, trace_loop=False).model.load.closed
