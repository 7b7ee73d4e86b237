"""What takes one value and is given twice is refused, in every command and in every file: none is left out."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import click
import pytest

from command_line import loadtrt
from loadtrt.cli.main import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def _commands() -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, (module, _) in COMMANDS.items():
        command = importlib.import_module(module).command
        if isinstance(command, click.Group):
            yield from (((name, nested), item) for nested, item in command.commands.items())
        else:
            yield (name,), command


OPTIONS = [
    (words, option) for words, command in _commands() for option in command.params if isinstance(option, click.Option)
]
SINGLE = [(words, option) for words, option in OPTIONS if not (option.is_flag or option.multiple)]
FLAGS = [(words, option) for words, option in OPTIONS if option.is_flag]


def _written(option: click.Option, name: str) -> list[str]:
    value = {"integer": "3", "integer range": "3", "float": "3", "float range": "3"}.get(option.type.name, "a")
    if isinstance(option.type, click.Choice):
        value = str(option.type.choices[0])
    return [name, *[value] * option.nargs]


@pytest.mark.parametrize(
    ("words", "option"), SINGLE, ids=lambda value: " ".join(value) if isinstance(value, tuple) else value.name
)
def test_an_option_of_one_value_is_given_once(words: tuple[str, ...], option: click.Option) -> None:
    """By any of its names, as two words or as one."""
    long = max(option.opts, key=len)
    for first in option.opts:
        done = loadtrt(*words, *_written(option, first), *_written(option, long))
        assert done.returncode == 2
        assert done.stderr.startswith(f"loadtrt: {long} is given twice: ")
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "option"), FLAGS, ids=lambda value: " ".join(value) if isinstance(value, tuple) else value.name
)
def test_a_flag_twice_is_harmless_and_its_opposite_is_not(words: tuple[str, ...], option: click.Option) -> None:
    """--graph --graph says the same twice; --graph --no-graph says two things."""
    (name,) = option.opts
    assert "twice" not in loadtrt(*words, name, name, "--no-such-option").stderr
    for opposite in option.secondary_opts:
        done = loadtrt(*words, opposite, name)
        assert done.returncode == 2
        assert done.stderr == f"loadtrt: {name} and {opposite} exclude each other: leave one out\n"


@pytest.mark.parametrize(
    ("command", "remedy"),
    [
        (("run", "--engine", "a", "--engine", "b"), "or each by itself with --json, for 'loadtrt compare"),
        (("run", "--engine=a", "--engine=b"), "run both at once with --model a=A --model b=B"),
        (("profile", "--engine", "a", "--engine", "b"), "--compare A B profiles two engines"),
        (("run", "a", "b"), "a and b are two engines: run both at once with --model a=A --model b=B, or each"),
        (("run", "a", "--engine", "b"), "a is an argument too many beside --engine b: leave one out"),
        (("profile", "a", "b"), "--compare A B profiles two engines"),
        (("build", "a.onnx", "--onnx", "b.onnx"), "a.onnx and --onnx b.onnx are two models; leave one out"),
        (("run", "plan.yaml"), "plan.yaml is not an engine: write --config plan.yaml for a configuration"),
        (("run", "--contexts", "1", "--contexts", "2"), "'loadtrt sweep --contexts …' measures several"),
        (("sweep", "--contexts", "1", "--contexts", "2"), "write all its values in one, as --contexts 1,2,4"),
        (("capacity", "--batch", "1", "--batch", "2"), "write all its values in one, as --batch 1,4,16"),
        (("sweep", "--engine", "a", "--engine", "b"), "make a sweep of each"),
        (("run", "--shapes", "a:1x2", "--shapes", "a:1x3"), "--shapes is given twice for a: leave one out"),
        (("run", "--shapes", "a:1x2,a:1x3"), "--shapes is given twice for a: leave one out"),
        (("run", "--input-range", "a:0..1", "--input-range", "a:0..2"), "--input-range is given twice for a"),
        (("build", "m.onnx", "--shapes", "a:1x2", "--shapes", "b:1,a:1x3"), "--shapes is given twice for a: leave one"),
        (("build", "m.onnx", "--opt-shapes", "a:1x2,a:1x3"), "--opt-shapes has a twice: leave one out"),
    ],
)
def test_the_sentence_says_what_to_do_instead(command: tuple[str, ...], remedy: str) -> None:
    """Two engines, several values, two shapes of one input."""
    done = loadtrt(*command)
    assert done.returncode == 2
    assert remedy in done.stderr


def test_options_that_repeat_still_do() -> None:
    """Objectives, shapes of different inputs, plugins."""
    options = ("--objective", "latency.p99 < 1s", "--objective", "throughput > 1/s", "--requests", "3000")
    done = loadtrt("run", "--engine", "simulated:service=1ms,clock=virtual", *options)
    assert done.returncode == 0
    assert "throughput > 1/s: MET" in done.stdout


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("engine: a\nengine: b\n", "key 'engine' is given twice: leave one out (line 2)"),
        ("engine: a\nmax-queue: 1\nmax_queue: 2\n", "'max_queue' is there twice, with a dash and with an underscore"),
        ("models:\n  a: {engine: x}\n  a: {engine: y}\n", "key 'a' is given twice: leave one out (line 3)"),
        ("models:\n  a: {engine: x, batch: 1, batch: 2}\n", "key 'batch' is given twice: leave one out (line 2)"),
        ("engine: a\nshapes: {x: 1x2, x: 1x3}\n", "key 'x' is given twice: leave one out (line 2)"),
        ('{"engine": "a", "engine": "b"}', "key 'engine' is given twice: leave one out"),
        ('{"engine": "a", "shapes": {"x": "1", "x": "2"}}', "key 'x' is given twice: leave one out"),
    ],
)
def test_a_key_is_written_once(text: str, sentence: str, tmp_path: Path) -> None:
    """In YAML and in JSON, at any depth."""
    file = tmp_path / "plan.yaml"
    file.write_text(text)
    done = loadtrt("run", "--config", file)
    assert done.returncode == 2
    assert sentence in done.stderr


def test_a_key_may_be_merged_and_repeated_elsewhere(tmp_path: Path) -> None:
    """YAML's <<: gives defaults, which the mapping's own keys overrule, also where it is used twice; names of inputs
    that differ by a dash are two inputs."""
    file = tmp_path / "plan.yaml"
    file.write_text(
        "engine: simulated:service=1ms,clock=virtual\nrequests: 20\nwarmup: 0\n"
        "input_range: &ranges {x-1: 0..1, x_1: 0..2}\n"
    )
    assert "twice" not in loadtrt("run", "--config", file).stderr
    file.write_text("models:\n  a: &a {engine: x}\n  b: {<<: *a, engine: y}\n  c: {<<: *a, batch: 2}\n  d: *a\n")
    assert "there already" not in loadtrt("run", "--config", file).stderr
