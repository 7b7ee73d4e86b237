"""Values of trtexec's options: of their kind or refused, and what lines without them mean."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from command_line import loadtrt
from loadtrt.cli.trtexec_line import parse
from loadtrt.cli.trtexec_meaning import translate

if TYPE_CHECKING:
    from loadtrt.cli.trtexec_meaning import Meant


def _meant(*line: str, like: int | None = None) -> Meant:
    return translate(parse(line, like), Path("made"))


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("--like 11 --onnx=m.onnx --fp16", "--fp16 is not an option of trtexec 11: leave it out, or take --like 8"),
        ("--like 8 --onnx=m.onnx --bf16", "--bf16 is not an option of trtexec 8"),
        ("--like 10 --deploy=d --output=x", "--deploy is not an option of trtexec 10"),
        ("--onnx=m.onnx --batch=4", "trtexec refuses --batch and --maxBatch with ONNX models"),
        ("--onnx=m.onnx --like 8 --output=prob", "trtexec refuses it with --onnx"),
        ("--loadEngine=a --saveEngine=b", "exclude each other, in trtexec too"),
        ("--fp16", "trtexec needs a model"),
        ("", "trtexec needs a model"),
        ("--onnx=a --onnx=b", "--onnx is given twice, which trtexec refuses"),
        ("--onnx=a --infStreams 4", "--infStreams has no value: write --infStreams=N"),
        ("--onnx=a 4", "4 is not an option of trtexec"),
        ("--onnx=a --warmup=4", "did you mean '--warmUp'?"),
        ("--deploy=d --includeDataTransfers", "no version of trtexec has all of these options: --deploy (of 8)"),
        ("--onnx=a --infStreams=two", "--infStreams=two is not a whole number of at least 1, such as 4"),
        ("--onnx=a --infStreams=0", "--infStreams=0 is not a whole number of at least 1"),
        ("--onnx=a --iterations=1.5", "--iterations=1.5 is not a whole number"),
        ("--onnx=a --duration=10s", "--duration=10s is not a number of seconds, such as 10, or -1 for no end"),
        ("--onnx=a --duration=abc", "--duration=abc is not a number of seconds"),
        ("--onnx=a --duration=-2", "--duration=-2 is not a number of seconds"),
        ("--onnx=a --duration=nan", "--duration=nan is not a number of seconds"),
        ("--onnx=a --warmUp=-1", "--warmUp=-1 is not a number of milliseconds, such as 200"),
        ("--onnx=a --idleTime=5ms", "--idleTime=5ms is not a number of milliseconds"),
        ("--onnx=a --device=gpu0", "--device=gpu0 is not a whole number"),
        ("--onnx=a --useProfile=-1", "--useProfile=-1 is not a whole number"),
        ("--onnx=a --avgRuns=many", "--avgRuns=many is not a whole number"),
        ("--onnx=a --percentile=101", "--percentile=101 is not percentages from 0 to 100"),
        ("--onnx=a --shapes=x", "--shapes=x is not inputs with their sizes, such as data:1x3x224x224"),
        ("--onnx=a --optShapes=x:1,3", "--optShapes=x:1,3 is not inputs with their sizes"),
        ("--onnx=a --loadInputs=x.bin", "--loadInputs=x.bin is not names with their files"),
        ("--onnx=a --memPoolSize=512", "--memPoolSize=512 is not pools with their sizes"),
        ("--onnx=a --memPoolSize=heap:512", "--memPoolSize=heap:512 is not pools with their sizes"),
        ("--onnx=a --like 8 --workspace=4G", "--workspace=4G is not a number of MiB"),
        ("--onnx=a --sparsity=on", "--sparsity=on is not one of disable, enable, force"),
        ("--onnx=a --profilingVerbosity=most", "--profilingVerbosity=most is not one of layer_names_only, detailed"),
        ("--onnx=a --fp16=false", "--fp16=false: --fp16 takes no value: write --fp16, or leave it out"),
        ("--loadEngine=a --accuracyThreshold=-1", "--accuracyThreshold=-1 is not a number of 0 or more"),
        ("--onnx=a --streams=2 --infStreams=4", "--streams=2 and --infStreams=4 are two names of one option"),
        ("--like 8 --onnx=a --workspace=512 --memPoolSize=workspace:256", "are two names of one option"),
        ("--like 8 --onnx=a --nvtxMode=none --profilingVerbosity=detailed", "are two names of one option"),
        ("--like 11 --onnx=a --useCudaGraph --noCudaGraph", "--useCudaGraph and --noCudaGraph exclude each other"),
        ("--like 8 --onnx=a --deploy=b", "--onnx and --deploy both name a model: leave one out"),
        ("--onnx=a --minShapes=x:1 --minShapes=x:2", "several profiles need --profile=0"),
        ("--onnx=a --profile=1 --minShapes=x:1 --profile=0 --minShapes=x:2", "write the profiles in their order"),
        ("--onnx=a --shapes=x*:1", "names with * are not taken here"),
        ("--onnx=a --like 8 --like 10", "--like is given twice"),
        ("--uff=m.uff --like 8", "UFF"),
    ],
)  # fmt: skip
def test_what_trtexec_refuses_is_refused(line: str, sentence: str) -> None:
    """In one sentence, exit code 2, and nothing is run."""
    done = loadtrt("trtexec", *line.split())
    assert done.returncode == 2
    assert sentence in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--streams=2 --infStreams=2", "--contexts 2"),
        ("--like 8 --onnx=m.onnx --workspace=512 --memPoolSize=workspace:512M", "--workspace 512MiB -"),
        ("--like 8 --onnx=m.onnx --nvtxMode=verbose --profilingVerbosity=detailed", "--profiling-verbosity detailed"),
        ("--like 8 --onnx=m.onnx --profilingVerbosity=default", "--profiling-verbosity layer_names_only"),
        ("--duration=.5 --warmUp=0.5", "--warmup 0.5ms --duration .5s"),
        ("--fp16=1 --onnx=m.onnx --saveEngine=m.plan", "build m.onnx -o m.plan --fp16"),
        ("--refPair=0 --loadInputs=x:0.bin --loadRefOutputs=y:r.npz --refPair=1 --loadInputs=x:1.bin "
         "--loadRefOutputs=y:s.npz", "--inputs x:0.bin --verify-against r.npz"),
    ],
)  # fmt: skip
def test_two_words_that_agree_are_one(line: str, words: str) -> None:
    """And values of their kind are taken over."""
    given = line.split()
    like = int(given[1]) if given[0] == "--like" else None
    base = [] if "--onnx" in line else ["--loadEngine=e.plan"]
    meant = _meant(*base, *(given[2:] if like else given), like=like)
    assert words in " - ".join([*map(shlex.join, meant.commands), ""])
    for command in meant.commands:
        assert len(set(command)) == len(command) or "--workspace" not in command


def test_references_are_named(tmp_path: Path) -> None:
    """trtexec 11 compares outputs, too, in forms of its own: what is near each here is said, and it exists."""
    done = loadtrt(
        "trtexec", "--loadEngine=e.plan", "--loadInputs=x:x.bin", "--loadRefOutputs=y:y.bin", "--accuracyThreshold=0.1",
        "--accuracyAlgorithm=lInf", "--atol=0.1", "--rtol=1e-3", "--print",
    )  # fmt: skip
    assert done.returncode == 0
    assert "--loadRefOutputs is not taken over; --verify-against is near it: an .npz of outputs by name" in done.stderr
    for name in ("accuracyThreshold", "accuracyAlgorithm", "atol", "rtol"):
        assert f"--{name} is not taken over; --verify-tolerance is near it: " in done.stderr


def _save_open(file: Path) -> None:
    from onnx import TensorProto, helper, save

    shapes: dict[str, list[int | str | None] | None] = {"a": ["n", 3, "h"], "b": [None, 3, 1], "c": [2], "y": None}
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes) for name, sizes in shapes.items()]
    nodes = [helper.make_node("Add", ["a", "b"], ["s"]), helper.make_node("Sum", ["s"], ["y"])]
    nodes.append(helper.make_node("Neg", ["c"], ["z"]))
    graph = helper.make_graph(nodes, "g", values[:3], values[3:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    save(model, file)


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        ("", ["run --engine m.onnx --shapes a:1x3x1,b:1x3x1"]),
        ("--shapes=a:4x3x5", ["run --engine m.onnx --shapes a:4x3x5,b:1x3x1"]),
        ("--saveEngine=m.plan", ["build m.onnx -o m.plan --shapes a:1x3x1,b:1x3x1",
                                 "run --engine m.plan --shapes a:1x3x1,b:1x3x1"]),
        ("--saveEngine=m.plan --minShapes=a:1x3x1 --optShapes=a:4x3x5 --maxShapes=a:8x3x9", [
            "build m.onnx -o m.plan --min-shapes a:1x3x1,b:1x3x1 --opt-shapes a:4x3x5,b:1x3x1 "
            "--max-shapes a:8x3x9,b:1x3x1",
            "run --engine m.plan --shapes a:4x3x5,b:1x3x1",
        ]),
        ("--shapes=a:4x3x5,b:2x3x1", ["run --engine m.onnx --shapes a:4x3x5,b:2x3x1"]),
    ],
)  # fmt: skip
def test_open_sizes_are_one_as_in_trtexec(tmp_path: Path, options: str, lines: list[str]) -> None:
    """Of inputs without a shape, and it is said."""
    _save_open(tmp_path / "m.onnx")
    done = loadtrt(
        "trtexec", "--onnx=m.onnx", "--like", "11", "--includeDataTransfers", "--iterations=0", "--warmUp=1",
        "--duration=1", *options.split(), "--print", folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0
    printed = [re.sub(r" --(warmup|duration) \w+", "", line) for line in done.stdout.splitlines()]
    assert [_sorted(line) for line in printed] == [_sorted(f"loadtrt {line}") for line in lines]
    assert ("open sizes without a shape are 1, as in trtexec" in done.stderr) == ("b:2x3x1" not in options)


def _sorted(line: str) -> list[str]:
    return sorted(line.split())


def test_a_line_that_is_printed_keeps_its_plan_and_says_so() -> None:
    """A plan that is not kept is one that `loadtrt trtexec` itself runs."""
    line = ("--onnx=m.onnx", "--like", "8", "--buildOnly", "--noTF32")
    done = loadtrt("trtexec", *line, "--print")
    assert done.stdout == "loadtrt build m.onnx -o m.plan --no-tf32\n"
    assert "the plan stays in m.plan, where trtexec keeps none without --saveEngine" in done.stderr
    assert "latency" not in done.stderr
    assert "measured" not in done.stderr
    (note,) = _meant(*line[:1], "--buildOnly", "--noTF32", like=8).notes
    assert note == "the plan is not kept, as trtexec keeps none without --saveEngine"
    assert "latency here begins when a request is due" in loadtrt("trtexec", "--loadEngine=e.plan", "--print").stderr
