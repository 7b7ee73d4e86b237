"""`loadtrt trtexec`: each option of trtexec 8, 10 and 11 is taken over or named, in lines that loadtrt takes."""

from __future__ import annotations

import importlib
import json
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
import pytest

from command_line import ROOT, loadtrt
from loadtrt.cli.main import COMMANDS
from loadtrt.cli.other_tools import TOOLS
from loadtrt.cli.trtexec_line import _run, parse
from loadtrt.cli.trtexec_meaning import translate
from loadtrt.cli.trtexec_options import TRTEXEC, VERSIONS
from loadtrt.errors import UsageError

if TYPE_CHECKING:
    from loadtrt.cli.trtexec_meaning import Meant

VIRTUAL = "simulated:service=1ms,clock=virtual"
# Values of options whose kind of value is not enough to make one.
VALUES = {
    "duration": "7", "iterations": "70", "infStreams": "3", "streams": "3", "avgRuns": "5", "useProfile": "1",
    "device": "1", "sparsity": "enable", "hardwareCompatibilityLevel": "ampere+", "useRuntime": "lean",
    "percentile": "99.99",
    "profilingVerbosity": "detailed", "nvtxMode": "verbose", "memPoolSize": "workspace:512", "warmUp": "70",
    "inputIOFormats": "int8:chw32", "outputIOFormats": "int8:chw32", "loadInputs": "x:x.bin", "profile": "0",
    "tacticSources": "-CUDNN,+CUBLAS", "onnx": "m.onnx", "loadEngine": "m.plan", "workspace": "512",
    "accuracyAlgorithm": "cos", "allocationStrategy": "static", "precisionConstraints": "obey", "tuningSearch": "fast",
    "tuningTimeOut": "60", "weightStreamingBudget": "50%", "loadRefOutputs": "y:y.bin",
}  # fmt: skip
# Where an option says what is so without it, in these versions: nothing changes.
DEFAULTS = {("noDataTransfers", 11), ("useSpinWait", 11), ("useCudaGraph", 11), ("separateProfileRun", 8)}
DEFAULTS |= {("separateProfileRun", 10), ("separateProfileRun", 11), ("profile", 10), ("profile", 11)}
MODELS = ("onnx", "loadEngine", "deploy", "model", "uff", "output", "batch", "maxBatch", "getPlanVersionOnly")
CASES = [(option.name, version) for option in TRTEXEC.values() for version in option.versions if option.name != "help"]


def _meant(*line: str, like: int | None = None) -> Meant:
    return translate(parse(line, like), Path("made"))


def _written(name: str) -> str:
    option = TRTEXEC[name]
    value = VALUES.get(name) or {"N": "4", "FILE": "file", "SPEC": "x:1x3", "MS": "5", "X": "0.5"}.get(
        option.value.rstrip("+"), "a"
    )
    return f"--{name}={value}" if option.value else f"--{name}"


def _base(name: str, version: int) -> list[str]:
    """A line to which the option can be added."""
    if name in ("deploy", "model", "output", "batch", "maxBatch", "uff"):
        return [] if name in ("deploy", "uff") else ["--deploy=d.prototxt"]
    if name in ("onnx", "loadEngine"):
        return []
    if name in ("getPlanVersionOnly", "refitFromOnnx", "useRuntime", "leanDLLPath"):
        return ["--loadEngine=e.plan"]
    return ["--onnx=m.onnx", "--saveEngine=m.plan"] if name != "saveEngine" else ["--onnx=m.onnx"]


def test_the_table_has_the_options_of_each_version() -> None:
    """As many as sampleOptions.cpp of 8.6.1, 10.16 and 11.1 has, each once. (trtexec_safe alone takes --int8 in 11.)"""
    counts = {version: sum(version in option.versions for option in TRTEXEC.values()) for version in VERSIONS}
    assert counts == {8: 104, 10: 128, 11: 131}
    assert all(option.here or option.note for option in TRTEXEC.values())


@pytest.mark.parametrize(("name", "version"), CASES)
def test_each_option_is_taken_over_or_named(name: str, version: int) -> None:
    """It changes a line of loadtrt, or a sentence names it, and says whether the measurement is another one."""
    base = _base(name, version)
    meant = _meant(*base, _written(name), like=version)
    notes = [note for note in meant.notes if f"--{name}" in note]
    option = TRTEXEC[name]
    if base and (name, version) not in DEFAULTS:
        before = _meant(*base, like=version)
        assert meant.commands != before.commands or notes
    if not option.here:
        (note,) = notes
        assert ("what is measured may differ" in note) == option.matters
        assert option.note in note
    elif not notes and meant.commands and (name, version) not in DEFAULTS:
        words = [word for line in meant.commands for word in line]
        wanted = [word for word in option.here.split() if word.startswith("--")]
        taken = [word.partition("=")[0] in option.here or word in words for word in wanted]
        on = {"--graph": "--no-graph", "--wait": "--wait", "--copies": "--no-copies"}  # loadtrt's own defaults
        assert all(taken) or all(on[word] not in words for word in wanted if word in on)


@pytest.mark.parametrize(("name", "version"), CASES)
def test_each_line_is_one_that_loadtrt_takes(name: str, version: int) -> None:
    """All its options exist, and have their values."""
    for command, *words in _meant(*_base(name, version), _written(name), like=version).commands:
        parser = importlib.import_module(COMMANDS[command][0]).command
        with click.Context(parser, resilient_parsing=True) as context:
            parser.make_parser(context).parse_args(args=list(words))


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        (
            "--loadEngine=g.plan --infStreams=2 --duration=2 --warmUp=500 --useCudaGraph --useSpinWait --shapes=x:1x3",
            ["run --engine g.plan --contexts 2 --warmup 500ms --duration 2s --requests 20 --shapes x:1x3"],
        ),
        (
            "--like 8 --deploy=g.prototxt --model=g.caffemodel --output=prob,loss --batch=16 --int8 --workspace=4096",
            [
                "build -o made/g.plan --int8 --deploy g.prototxt --model g.caffemodel --output prob --output loss "
                "--workspace 4096MiB --batch 16",
                "run --engine made/g.plan --no-graph --wait block --warmup 200ms --duration 3s --requests 10",
            ],
        ),
        (
            "--onnx=m.onnx --saveEngine=m.plan --fp16 --minShapes=x:1 --optShapes=x:8 --maxShapes=x:9 "
            "--noDataTransfers",
            [
                "build m.onnx -o m.plan --fp16 --min-shapes x:1 --opt-shapes x:8 --max-shapes x:9",
                "run --engine m.plan --shapes x:8 --no-graph --wait block --no-copies --warmup 200ms --duration 3s "
                "--requests 10",
            ],
        ),
        (
            "--like 11 --onnx=m.onnx --shapes='in:0':1x3 --exportProfile=p.json --percentile=99,99.9",
            [
                "run --engine m.onnx --no-copies --warmup 200ms --duration 3s --requests 10 --shapes in:0:1x3 "
                "--profile --export-profile p.json"
            ],
        ),
        (
            "--like 11 --loadEngine=m.plan --includeDataTransfers --noSpinWait --noCudaGraph --duration=-1 "
            "--iterations=0",
            ["run --engine m.plan --no-graph --wait block --warmup 200ms --duration 87600h"],
        ),
        ("--onnx=m.onnx --skipInference --saveEngine=m.plan --best", ["build m.onnx -o m.plan --fp16 --int8 --bf16"]),
        ("--like 8 --onnx=m.onnx --buildOnly --saveEngine=m.plan --best", ["build m.onnx -o m.plan --fp16 --int8"]),
        (
            "--onnx=m.onnx --profile=0 --optShapes=x:1 --profile=1 --optShapes=x:8 --useProfile=1 "
            "--inputIOFormats=fp16:chw --outputIOFormats=fp16:chw",
            [
                "build m.onnx -o made/m.plan --io fp16 --opt-shapes x:1 --opt-shapes x:8",
                "run --engine made/m.plan --shapes x:8 --no-graph --wait block --warmup 200ms --duration 3s "
                "--requests 10 --optimization-profile 1",
            ],
        ),
        ("--loadEngine=m.plan --getPlanVersionOnly", ["inspect m.plan"]),
        ("--loadEngine=m.plan --skipInference", ["inspect m.plan"]),
        (
            "--loadEngine=m.plan --onnx=m.onnx --dumpLayerInfo --useSpinWait --useCudaGraph",
            ["run --engine m.plan --warmup 200ms --duration 3s --requests 10", "inspect m.plan"],
        ),
    ],
)  # fmt: skip
def test_a_line_means_these(line: str, meant: list[str]) -> None:
    """Defaults are those of the version: what 11 has turned round is copies, waiting and CUDA graphs."""
    words = line.split()
    like = int(words[1]) if words[0] == "--like" else None
    found = _meant(*(words[2:] if like else words), like=like)
    assert [shlex.join(command) for command in found.commands] == meant


def test_a_line_is_printed_and_run(tmp_path: Path) -> None:
    """The printed line is the one that was run; the version is said."""
    line = (
        "--loadEngine=" + VIRTUAL,
        "--infStreams=2",
        "--duration=1",
        f"--exportTimes={tmp_path / 't.json'}",
        "--avgRuns=3",
    )
    done = loadtrt("trtexec", *line)
    assert done.returncode == 0
    first, *_ = done.stdout.splitlines()
    assert first.startswith(f"loadtrt run --engine {VIRTUAL} --contexts 2 --warmup 200ms --duration 1s --requests 20")
    assert "VALID" in done.stdout
    assert done.stderr.startswith("loadtrt: read as a line of trtexec 10 (--like 8 or 11 for others)\n")
    assert "--avgRuns has no counterpart here" in done.stderr
    assert "--no-graph is left out: it is not for simulated engines" in done.stderr
    assert len(json.loads((tmp_path / "t.json").read_text())) == pytest.approx(2000, abs=5)
    again = loadtrt(*shlex.split(first)[1:], "--force")
    assert again.returncode == 0


def test_a_real_model_is_run(tmp_path: Path) -> None:
    """On ONNX Runtime, where there is no GPU, with inputs of a file; --print runs nothing."""
    from onnx import TensorProto, helper, save

    node = helper.make_node("Relu", ["x"], ["y"])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in "xy"]
    model = helper.make_model(
        helper.make_graph([node], "g", values[:1], values[1:]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    save(model, tmp_path / "m.onnx")
    np.array([[1, -2, 3], [-4, 5, -6]], np.float32).tofile(tmp_path / "x.bin")
    line = ["--onnx=m.onnx", "--shapes=x:2x3", "--loadInputs=x:x.bin", "--duration=0", "--exportOutput=y.json"]
    shown = loadtrt("trtexec", *line, "--print", folder=tmp_path)
    assert (shown.returncode, shown.stdout.count("\n")) == (0, 1)
    assert not (tmp_path / "y.json").exists()
    done = loadtrt("trtexec", *line, folder=tmp_path)
    assert done.returncode in (0, 97)  # a model so small may be INVALID, as the host is the limit
    (output,) = json.loads((tmp_path / "y.json").read_text())
    assert output == {"name": "y", "dimensions": "2x3", "values": [1, 0, 3, 0, 5, 0]}


def test_lines_run_one_after_the_other(tmp_path: Path) -> None:
    """A build, and then a run of it; the first that fails is the last."""
    model = str(tmp_path / "g.onnx")
    assert _run([["zoo", "googlenet", "-o", model], ["inspect", model]]) == 0
    assert Path(model).exists()
    with pytest.raises(UsageError, match="nothing"):
        _run([["inspect", str(tmp_path / "nothing")], ["zoo", "googlenet", "-o", str(tmp_path / "never.onnx")]])
    assert not (tmp_path / "never.onnx").exists()


def test_the_documentation_says_the_same() -> None:
    """Each row of its tables is a row of ours, and each line that it shows is printed so."""
    text = (ROOT / "docs" / "from-trtexec.md").read_text(encoding="utf-8")
    ours, _, others = text.partition("## Options of other tools")
    rows = re.findall(r"^\| `--(\w+)(?:=\w+)?` \| `([^`]+)` \|", ours, re.MULTILINE)
    assert len(rows) >= 25
    for name, here in rows:
        assert TRTEXEC[name].here == here
    for names, here in re.findall(r"^\| ((?:`--[a-z-]+`(?:, )?)+) \| `([^`]+)` \|$", others, re.MULTILINE):
        for name in re.findall(r"--([a-z-]+)", names):
            assert [tool[name][0] for tool in list(TOOLS.values())[1:] if name in tool] == [here]
    for line, output in re.findall(r"^    \$ loadtrt (.*)\n((?:    (?!\$).*\n)+)", text, re.MULTILINE):
        done = loadtrt(*shlex.split(line))
        assert done.stderr + done.stdout == re.sub(r"^    ", "", output, flags=re.MULTILINE)
