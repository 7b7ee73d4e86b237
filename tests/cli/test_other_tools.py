"""Options of other tools, long and short, are answered with what they are here."""

from __future__ import annotations

import importlib
import re

import pytest

from command_line import loadtrt
from loadtrt.cli.main import COMMANDS
from loadtrt.cli.options import shape_texts
from loadtrt.cli.other_tools import SHORT, TOOLS, command_of

VIRTUAL = "simulated:service=1ms,clock=virtual"


def test_each_letter_is_of_an_option_that_is_known() -> None:
    """Of the same tool."""
    for tool, letters in SHORT.items():
        assert all(len(letter) == 1 for letter in letters)
        assert set(letters.values()) <= set(TOOLS[tool])


@pytest.mark.parametrize("tool", TOOLS)
def test_what_options_of_other_tools_are_here_exists(tool: str) -> None:
    """In the command that is named, or in any."""
    for name, (here, note) in TOOLS[tool].items():
        assert here or note, name
        if here == "--help":
            continue
        command, *_ = [*here.split(), ""]
        for word in re.findall(r"--[a-z0-9][a-z0-9-]*", f"{here} {note}"):
            assert command_of(word)
        if here and not command.startswith("--"):
            known = [
                option for item in importlib.import_module(COMMANDS[command][0]).command.params for option in item.opts
            ]
            assert set(re.findall(r"--[a-z0-9-]+", here)) <= set(known), name


@pytest.mark.parametrize(
    ("command", "option", "told"),
    [
        ("run", "--loadEngine=net.onnx", "--loadEngine is trtexec's: that is --engine here"),
        ("run", "--streams=2", "--streams is trtexec's: that is --contexts here"),
        ("run", "--infStreams=2", "--infStreams is trtexec's: that is --contexts here"),
        ("run", "--loadInputs=x:x.bin", "--loadInputs is trtexec's: that is --inputs here"),
        ("run", "--noDataTransfers", "--noDataTransfers is trtexec's: that is --no-copies here"),
        ("run", "--iterations=100", "--iterations is trtexec's: that is --requests here"),
        ("run", "--useCudaGraph", "--useCudaGraph is trtexec's: that is --graph here (on by default)"),
        ("run", "--useSpinWait", "--useSpinWait is trtexec's: that is --wait spin here"),
        ("run", "--warmUp=200", "--warmUp is trtexec's: that is --warmup here (with a unit: --warmup 200ms)"),
        ("run", "--dumpProfile", "--dumpProfile is trtexec's: that is --profile here"),
        ("run", "--int8", "--int8 is trtexec's: that is 'loadtrt build --int8' here"),
        ("run", "--idleTime=5", "--idleTime is trtexec's and has no counterpart here: no idle time"),
        ("run", "--INFSTREAMS=2", "--INFSTREAMS is trtexec's: that is --contexts here"),
        ("run", "--concurrency-range=1:8", "perf_analyzer's: that is 'loadtrt sweep --contexts' here"),
        ("run", "--request-rate-range=1:8", "perf_analyzer's: that is 'loadtrt sweep --rate' here"),
        ("run", "--vus=8", "--vus is k6's: that is --contexts here"),
        ("run", "--runs=8", "--runs is hyperfine's: that is --repeat here"),
        ("sweep", "--infStreams=2", "--infStreams is trtexec's: that is --contexts here"),
        ("inspect", "--infStreams=2", "--infStreams is trtexec's: that is 'loadtrt run --contexts' here"),
        ("build", "--memPoolSize=workspace:512", "--memPoolSize is trtexec's: that is --workspace here"),
        ("profile", "--loadEngine=x", "--loadEngine is trtexec's: that is --engine here"),
        ("build", "--buildOnly", "--buildOnly is trtexec's and is not needed here, as it is what 'loadtrt build' does"),
        ("build", "--skipInference", "is not needed here, as it is what 'loadtrt build' does"),
        ("inspect", "--dumpLayerInfo", "is not needed here, as it is what 'loadtrt inspect' does"),
        ("run", "--buildOnly", "--buildOnly is trtexec's: that is 'loadtrt build' here"),
        ("run", "--loadRefOutputs=y:y.bin", "that is --verify-against here (an .npz of outputs by name"),
        ("run", "--accuracyThreshold=1", "that is --verify-tolerance here"),
        ("run", "-b8", "-b is perf_analyzer's (batch size): that is --batch here\n"),
        ("run", "-w", "-w is hyperfine's (warmup): that is --warmup here (a time, not a number of runs)\n"),
        ("run", "-m", "-m is perf_analyzer's (model name): that is --engine here; or hyperfine's (min runs): that is "
         "--repeat here\n"),
        ("run", "-i", "or k6's (iterations): that is --requests here; or hyperfine's (ignore failure) and has no"),
        ("run", "-u", "or k6's (vus): that is --contexts here (or --buffers: requests in flight); or hyperfine's"),
        ("run", "-p", "-p is perf_analyzer's (measurement interval): that is --duration here (with a unit); or k6"),
        ("run", "-r", "or hyperfine's (runs): that is --repeat here\n"),
        ("run", "-d", "or k6's (duration): that is --duration here\n"),
        ("run", "-n", "-n is hyperfine's (command name) and has no counterpart here: results have the names of their"),
        ("run", "-P", "-P is hyperfine's (parameter scan): that is 'loadtrt sweep --contexts' here"),
        ("capacity", "-l", "-l is perf_analyzer's (latency threshold): that is 'loadtrt capacity --objective' here"),
        ("run", "--batchSize=8", "--batchSize is perf_analyzer's: that is --batch here\n"),
        ("run", "--batch_size=8", "--batch_size is perf_analyzer's: that is --batch here\n"),
        ("inspect", "--engine=x", "--engine is not an option of inspect: name the file by itself"),
        ("build", "--loadEngine=x", "name the file by itself, as 'loadtrt build FILE'"),
        ("report", "--input=x", "name the file by itself, as 'loadtrt report FILE'"),
        ("run", "-Z", "-Z is not an option: --help lists the options"),
    ],
)  # fmt: skip
def test_the_words_of_other_tools_are_known(command: str, option: str, told: str) -> None:
    """In one sentence, which says what they are here."""
    done = loadtrt(command, option)
    assert done.returncode == 2
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_build_takes_the_options_of_trtexec_by_their_names() -> None:
    """--saveEngine, --minShapes and the like, and the model by --onnx: what is wrong here is the model alone."""
    done = loadtrt(
        "build", "--onnx=none.onnx", "--saveEngine=x.plan", "--minShapes=x:1", "--builderOptimizationLevel=3"
    )
    assert (done.returncode, done.stderr) == (2, "loadtrt: cannot read model none.onnx: No such file or directory\n")


@pytest.mark.parametrize("command", ["run", "sweep", "capacity"])
def test_the_engine_may_stand_without_its_option(command: str) -> None:
    """loadtrt run g.plan, as hyperfine and k6 take what they run."""
    options = {
        "run": ("--requests", "20"),
        "sweep": ("--requests", "20", "--contexts", "1,2"),
        "capacity": ("--time", "4s", "--objective", "latency.p99 < 5ms"),
    }
    assert loadtrt(command, VIRTUAL, *options[command], "--warmup", "0").returncode in (0, 97)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("x:4x3", ["x:4x3"]),
        ("x:4,3", ["x:4x3"]),  # perf_analyzer's --shape
        ("x:[4, 3],y:(2,5)", ["x:4x3", "y:2x5"]),
        ("'x':4x3,\"in:0\":[1x2]", ["x:4x3", "in:0:1x2"]),  # trtexec's quotes
        ("x:4,y:5,6,", ["x:4", "y:5x6"]),
        ("x:scalar,y:", ["x:scalar", "y:"]),
        ("x:-1,3", ["x:-1x3"]),
        ("3,x:4", ["3", "x:4"]),
        ("x=4x3", ["x=4x3"]),
    ],
)
def test_shapes_may_be_written_as_elsewhere(written: str, read: list[str]) -> None:
    """What is no shape stays as it is, for the error."""
    assert shape_texts(written) == read


def test_a_note_names_only_options_of_the_command() -> None:
    """k6's --out is --json here; --push beside it is of commands that generate load."""
    assert "(or --push)" in loadtrt("run", "--out", "x").stderr
    assert "--push" not in loadtrt("profile", "--out", "x").stderr
