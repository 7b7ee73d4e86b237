"""Options from the command line and from YAML: checked strictly, all at once."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click
import pytest

from loadtrt.asked.config import RunConfig
from loadtrt.asked.load import Closed
from loadtrt.asked.reading import FIELDS, load_config
from loadtrt.cli.run import command
from loadtrt.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


def test_every_option_of_run_is_a_key_and_every_key_an_option() -> None:
    """The command line and the file know the same words, so that neither can be read and ignored. Apart from them the
    command line has --latency, which stands for other options, --model, --repeat, which makes several runs, and
    --start-at, as an instant comes once."""
    options = {parameter.name for parameter in command.params if isinstance(parameter, click.Option)}
    assert {"json" if name == "json_file" else name for name in options} - {
        "config",
        "force",
        "latency",
        "models",
        "repeat",
        "start_at",
    } == set(FIELDS)


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    """defaults < file < command line; keys may be written with dashes."""
    file = tmp_path / "run.yaml"
    file.write_text(
        "engine: simulated:null\ncontexts: 4\nmax-lateness: 2ms\nshapes: {data: 16x3x8x8}\non: onnxruntime\n"
    )
    config = load_config(file, {"contexts": 8, "buffers": None})
    assert (config.model.contexts, config.model.buffers, config.model.max_lateness) == (8, 2, 2_000_000)
    assert config.model.shapes == {"data": (16, 3, 8, 8)}
    assert config.model.on == "onnxruntime"  # not YAML 1.1's True


def test_a_rate_makes_an_open_loop(tmp_path: Path) -> None:
    """A rate without a kind of arrivals is Poisson, and on the command line it wins over the file's closed loop."""
    assert load_config(None, {"engine": "x", "rate": "500/s"}).model.load.options()["arrivals"] == "poisson"
    file = tmp_path / "run.yaml"
    file.write_text("engine: x\narrivals: closed\n")
    assert load_config(file, {"rate": "5/s"}).model.load.options()["arrivals"] == "poisson"
    file.write_text("engine: x\nrate: 5/s\n")
    assert load_config(file, {"arrivals": "closed"}).model.load == Closed()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "no engine: add --engine"),
        ({"engine": "x", "contexts": 0}, "--contexts: 0 is below 1, the least"),
        ({"engine": "x", "rate": "fast"}, "--rate: 'fast' is not a rate"),
        ({"engine": "x", "duration": "soon"}, "--duration: 'soon' is not a duration"),
        ({"engine": "x", "arrivals": "poisson"}, "poisson arrivals need a rate: add --rate"),
        ({"engine": "x", "arrivals": "closed", "rate": "5"}, "a closed loop has no rate"),
        ({"engine": "x", "shapes": {"d": "1xq"}}, "--shapes.d: '1xq' is not a shape"),
        ({"engine": "x", "input_range": {"d": "1..q"}}, "--input-range.d: '1..q' is not a range"),
        ({"engine": "x", "duration": "5s", "max_duration": "1s"}, "--max-duration is shorter than --duration"),
        ({"engine": "x", "duration": "0s"}, "a run of 0s measures nothing: give --duration"),
        ({"engine": "x", "max_duration": "0s", "requests": 5}, "a run of 0s measures nothing"),
        (
            {"engine": "x", "precision": "3"},
            "--precision: '3' is not a precision: write a share above 0 and below 100%",
        ),
        ({"engine": "x", "max_queue": 4}, "--max-queue is for an open loop"),
        ({"engine": "x", "inputs": "zeros", "input_sets": 9}, "--input-sets counts random input sets"),
        ({"engine": "x", "contexts": 0, "buffers": 0}, "--buffers: 0 is below 1, the least"),
    ],
)
def test_a_wrong_value_is_named_with_its_option(options: dict[str, object], sentence: str) -> None:
    """Each fault says which option, what is wrong, and what it is; several faults are told together."""
    with pytest.raises(UsageError) as caught:
        load_config(None, options)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("engine: x\ncontxts: 4\n", "unknown key 'contxts': did you mean 'contexts'?"),
        ("engine: x\nzzz: 4\n", "unknown key 'zzz': the keys are"),
        ("engine: [x\n", "is not YAML: expected ',' or ']', but got the end in line 2, column 1"),
        ("- engine\n", "must hold option names with their values"),
        ("engine: x\ncontexts: many\n", "contexts: 'many' is not a whole number"),
    ],
)
def test_a_wrong_file_is_named_with_its_fault(tmp_path: Path, text: str, sentence: str) -> None:
    """The file's name stands in the sentence, with the nearest key for a misspelt one."""
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_config(file, {})
    assert sentence in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_colon_makes_no_number_of_base_60(tmp_path: Path) -> None:
    """YAML 1.1 reads 8:1 as 481, and 010 as 8; other numbers are numbers still."""
    file = tmp_path / "run.yaml"
    file.write_text("engine: x\nmix: 8:1\nseed: 481\ncontexts: 0100\nrate: 9.5\n")
    config = load_config(file, {})
    assert (config.model.mix, config.model.seed, config.options().get("rate")) == ("8:1", 481, 9.5)
    assert config.model.contexts == 100


def test_a_missing_file_says_why(tmp_path: Path) -> None:
    """The operating system's reason is quoted."""
    with pytest.raises(UsageError, match=r"cannot read configuration .*: No such file"):
        load_config(tmp_path / "none.yaml", {})


def test_a_written_configuration_can_be_run_again(tmp_path: Path) -> None:
    """load(dump(config)) = config: times keep their units in JSON."""
    config = load_config(
        None,
        {
            "engine": "x",
            "rate": "500/s",
            "warmup": "250ms",
            "shapes": {"a": "2x3"},
            "input_range": {"a": "-1..1"},
            "json": "r",
        },
    )
    file = tmp_path / "again.yaml"
    file.write_text(json.dumps(config.model_dump(mode="json", by_alias=True)))
    assert load_config(file, {}) == config


def test_the_default_is_ten_seconds_or_the_requests_asked_for() -> None:
    """--requests alone sets no duration; with both, both must be met."""
    assert RunConfig.of(engine="x").least_ns(RunConfig.of(engine="x").model) == 10_000_000_000
    assert RunConfig.of(engine="x", requests=5).least_ns(RunConfig.of(engine="x", requests=5).model) == 0
    assert (
        RunConfig.of(engine="x", requests=5, duration=0).least_ns(
            RunConfig.of(engine="x", requests=5, duration=0).model
        )
        == 0
    )
    assert (
        RunConfig.of(engine="x", requests=5, duration=7).least_ns(
            RunConfig.of(engine="x", requests=5, duration=7).model
        )
        == 7_000_000_000
    )


@pytest.mark.parametrize("other", [{"rate": "100/s"}, {"mix": "1:0.5, 2:0.5"}])
def test_several_requests_a_launch_are_for_closed_loops_of_one_size(other: dict[str, Any]) -> None:
    """Where requests come by themselves, or differ in size, the next ones of a launch are not there."""
    with pytest.raises(UsageError, match=r"--requests-per-launch is for closed loops of one size.*leave it out, or"):
        RunConfig.of(**{"engine": "x.plan", "requests_per_launch": 4, **other})


def test_a_result_brings_what_its_verdict_was_judged_by(tmp_path: Path) -> None:
    """The same run again: others on the GPU stay accepted, while what it wrote and showed is left out."""
    config = RunConfig.of(engine="x.plan", shared_gpu=True, quiet=True)
    file = tmp_path / "run.json"
    file.write_text(json.dumps({"schema_version": "loadtrt.run/1", "config": config.options()}, default=str))
    again = load_config(file, {})
    assert (again.shared_gpu, again.quiet) == (True, False)


@pytest.mark.parametrize("dashes", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_a_result_brings_no_code(
    nested: bool, dashes: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Libraries and permission to run host code are the command line's alone where the file is a result, and a sentence
    says so; a configuration that someone wrote may have them."""
    allowed = "allow-host-code" if dashes else "allow_host_code"
    engine = {"engine": "a.plan", "plugins": ["x.so"], allowed: True, "contexts": 3, "lean_library": "lean.so"}
    written = {"models": {"a": engine}} if nested else engine
    result, file = tmp_path / "run.json", tmp_path / "run.yaml"
    result.write_text(json.dumps({"schema_version": "loadtrt.run/1", "config": written}))
    file.write_text(json.dumps(written))

    def code(file: Path, **options: Any) -> tuple[tuple[str, ...], bool, str | None]:
        model = load_config(file, options).model
        assert model.contexts == 3
        return model.plugins, model.allow_host_code, model.lean_library

    assert code(file) == (("x.so",), True, "lean.so")
    assert capsys.readouterr().err == ""
    assert code(result, plugins=None, allow_host_code=None) == ((), False, None)
    assert capsys.readouterr().err == (
        f"loadtrt: {result} is a result, and no result makes a run load libraries or run host code: if you trust "
        "their origin, add --plugins and --allow-host-code and --lean-library\n"
    )
    assert code(result, plugins=("y.so",), lean_library="l.so") == (("y.so",), False, "l.so")
    assert capsys.readouterr().err.endswith("add --allow-host-code\n")
    given = {"plugins": ("x.so",), "lean_library": "l.so"}
    assert code(result, allow_host_code=True, **given) == (("x.so",), True, "l.so")
    assert code(result, allow_host_code=False, **given) == (("x.so",), False, "l.so")
    assert capsys.readouterr().err == ""


def test_true_and_false_are_no_numbers(tmp_path: Path) -> None:
    """Nor in a list of numbers: only switches take them."""
    file, taken = tmp_path / "run.yaml", set()
    for key in FIELDS.keys() - {"engine"}:
        for value in ("true", "[false, 8]", "{x: [true]}"):
            file.write_text(f"engine: simulated:null\n{key}: {value}\n")
            with suppress(UsageError):
                taken.add((load_config(file, {"rate": "5/s"} if key == "max_queue" else {}).options()[key], value))
    assert taken == {(True, "true")}


def test_a_truth_value_is_refused_in_one_sentence(tmp_path: Path) -> None:
    """With its place."""
    file = tmp_path / "run.yaml"
    file.write_text("engine: simulated:null\ncontexts: true\n")
    with pytest.raises(UsageError, match=r"run.yaml: contexts: true and false are not numbers: write a number, or .*"):
        load_config(file, {})
