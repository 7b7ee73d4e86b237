"""Sizes that a model leaves open, told at once with an example that runs; scalars, branches, old operators, types."""

from __future__ import annotations

import json
import re
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from command_line import loadtrt
from loadtrt.environment import import_onnxruntime
from loadtrt.errors import EngineError, UsageError
from onnx_files import load, refused, save

if TYPE_CHECKING:
    from pathlib import Path

F, INT = TensorProto.FLOAT, TensorProto.INT64
RUN = ("run", "--on", "onnxruntime", "--duration", "0s", "--requests", "10", "--warmup", "0", "--engine")


def _window(folder: Path, sizes: Any, window: int, stride: int) -> str:
    """A convolution over time, which needs at least a window of samples."""
    weights = {"w": np.ones((1, sizes[1], window), np.float32)}
    node = helper.make_node("Conv", ["x", "w"], ["y"], strides=[stride])
    return save(folder / "window.onnx", [node], {"x": (F, sizes)}, {"y": (F, None)}, weights)


def _image(folder: Path, side: int) -> str:
    """What takes images whose height and width are `side`, as it reshapes them."""
    nodes = [helper.make_node("Reshape", ["x", "s"], ["r"]), helper.make_node("Relu", ["r"], ["y"])]
    weights = {"s": np.array([-1, 3 * side * side])}
    return save(
        folder / "image.onnx", nodes, {"x": (F, ["?", 3, "h", "w"])}, {"y": (F, ["?", 3 * side * side])}, weights
    )


def _state(folder: Path) -> str:
    """A recurrent model: its state's batch is that of its sequence, and no name says so."""
    node = helper.make_node("Add", ["x", "state"], ["y"])
    inputs = {"x": (F, ["n", "length", 4]), "state": (F, [1, "m", 4])}
    return save(folder / "state.onnx", [node], inputs, {"y": (F, None)}, {})


def _text(folder: Path) -> str:
    nodes = [
        helper.make_node("Gather", ["words", "ids"], ["a"]),
        helper.make_node("Gather", ["types", "type_ids"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    inputs = {"ids": (INT, ["batch", "sequence"]), "type_ids": (INT, ["batch", "sequence"])}
    weights = {"words": np.zeros((50, 8), np.float32), "types": np.zeros((2, 8), np.float32)}
    return save(folder / "text.onnx", nodes, inputs, {"y": (F, ["batch", "sequence", 8])}, weights)


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: _window(folder, [1, 1, "samples"], 400, 160),
        lambda folder: _window(folder, ["?", 2, "?"], 10, 1),
        lambda folder: _image(folder, 48),
        lambda folder: _image(folder, 640),
        _state,
        _text,
    ],
)
def test_the_example_runs(make: Any, tmp_path: Path) -> None:
    """The error's own option, copied, makes a run whose requests are all served."""
    file = make(tmp_path)
    told = loadtrt(*RUN, file)
    assert told.returncode == 2
    assert told.stderr.count("\n") == 1
    example = re.search(r"such as (--shapes \S+) \(the model runs with these\)", told.stderr)
    assert example, told.stderr
    loadtrt(*RUN, file, *example[1].split(), "--json", tmp_path / "r.json")
    (measured,) = json.loads((tmp_path / "r.json").read_text())["models"].values()
    assert (measured["ok"], measured["failed"]) == (10, 0)


@pytest.mark.parametrize(
    ("sizes", "example"),
    [
        (["N", "C", "H", "W"], "1x3x224x224"),
        (["N", "H", "W", "C"], "1x224x224x3"),
        (["batch", "height", "width", "channels"], "1x224x224x3"),
        (["?", "?", "?", "?"], "1x3x224x224"),
        (["?", "?", 64, 64], "1x3x64x64"),
        (["batch", 3, "h", "w"], "1x3x224x224"),
        (["batch", "h", "w", 3], "1x224x224x3"),
        (["?", "?", "?", 3], "1x224x224x3"),
        (["C", "H", "W"], "3x128x128"),
        (["batch", "num_channels", "length"], "1x3x128"),
    ],
)
def test_images_have_colours(sizes: Any, example: str, tmp_path: Path) -> None:
    """Where a model takes any: three, at the place that its names say, or in front."""
    file = save(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"])], {"x": (F, sizes)}, {"y": (F, sizes)}, {})
    refused(UsageError, f"--shapes x:{example} (the model runs with these)", file)


@pytest.mark.parametrize(("colours", "last"), [(1, False), (4, False), (3, True), (1, True)])
def test_colours_that_the_weights_have(colours: int, last: bool, tmp_path: Path) -> None:
    """None of the sizes is named: one or four, or behind height and width."""
    nodes = [helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2] if last else [0, 1, 2, 3])]
    nodes.append(helper.make_node("Conv", ["t", "w"], ["y"]))
    weights = {"w": np.ones((1, colours, 3, 3), np.float32)}
    file = save(tmp_path / "m.onnx", nodes, {"x": (F, ["?"] * 4)}, {"y": (F, None)}, weights)
    refused(UsageError, f"x:1x224x224x{colours}" if last else f"x:1x{colours}x224x224", file)


def test_all_open_inputs_are_told_at_once(tmp_path: Path) -> None:
    """By name with the model's own words; what --batch alone decides asks for it; what is given is not told again."""
    nodes = [helper.make_node("Relu", [name], [f"{name}_out"]) for name in ("audio", "state", "mask")]
    inputs = {"audio": (F, ["B", "samples"]), "state": (F, [2, "B2", 128]), "mask": (F, ["B3", 4])}
    outputs = {f"{name}_out": of for name, of in inputs.items()}
    file = save(tmp_path / "three.onnx", nodes, inputs, outputs, {})
    three = "audio fp32[B,samples], state fp32[2,B2,128] and mask fp32[B3,4] leave dimensions open: add --shapes"
    refused(UsageError, three, file)
    refused(UsageError, "such as --shapes audio:1x128,state:2x1x128,mask:1x4 (the", file)
    refused(UsageError, "state fp32[2,B2,128] and mask fp32[B3,4] leave", file, shapes={"audio": (1, 512)})
    rest = {"audio": (1, 512), "state": (2, 1, 128)}
    refused(UsageError, "mask fp32[B3,4] leaves its first dimension open: add --batch N", file, shapes=rest)
    nodes = [helper.make_node("Add", ["a", "b"], ["y"])]
    rankless = save(tmp_path / "r.onnx", nodes, {"a": (F, None), "b": (F, None)}, {"y": (F, None)}, {})
    refused(UsageError, "inputs a, b of", rankless)
    refused(UsageError, "no declared shape: add --shapes a:...,b:...", rankless)


def test_an_example_that_nothing_tried_says_so(tmp_path: Path) -> None:
    """A model that ONNX Runtime cannot open gets a form with the model's names."""
    node = helper.make_node("Frobnicate", ["x"], ["y"], domain="acme")
    file = save(tmp_path / "m.onnx", [node], {"x": (F, ["n", "length", "?"])}, {"y": (F, None)}, {})
    refused(UsageError, "such as --shapes x:nxlengthxN, with numbers for the names", file)


@pytest.mark.parametrize("text", ["?", "None", "-1", "unknown"])
def test_what_is_no_name_binds_nothing(text: str, tmp_path: Path) -> None:
    """As Paddle's exporter has it; runs and builds take the user's sizes, each for itself."""
    value = (F, [text, 3, text, text])
    file = save(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"])], {"x": value}, {"y": value}, {})
    with closing(load(file, shapes={"x": (1, 3, 48, 192)})) as engine:
        assert [tensor.shape for tensor in engine.info.tensors] == [(1, 3, 48, 192)] * 2
    pytest.importorskip("tensorrt_rtx")
    line = ("build", file, "--shapes", "x:1x3x48x192", "-o", "m.plan", "--flavour", "rtx", "--target", "sm86")
    assert loadtrt(*line, folder=tmp_path).returncode == 0


@pytest.mark.parametrize("size", [0, -1, -2])
def test_a_size_of_no_number_is_open(size: int, tmp_path: Path) -> None:
    """As older exporters have it; a weight that is an input, too, and has no numbers stays as it is."""
    nodes = [helper.make_node("Concat", ["x", "none"], ["c"], axis=1), helper.make_node("Relu", ["c"], ["y"])]
    value, none = (F, [size, 4]), np.zeros((2, 0), np.float32)
    inputs = {"x": value, "none": (F, [2, 0])}
    file = save(tmp_path / "m.onnx", nodes, inputs, {"y": value}, {"none": none})
    refused(UsageError, "x fp32[?,4] leaves its first dimension open: add --batch N", file)
    for given in ({"batch": 2}, {"shapes": {"x": (2, 4)}}):
        with closing(load(file, **given)) as engine:
            assert [tensor.shape for tensor in engine.info.tensors] == [(2, 4)] * 2
    assert "x" in loadtrt("inspect", file).stdout
    pytest.importorskip("tensorrt_rtx")
    line = ("build", file, "--batch", "2", "-o", "m.plan", "--flavour", "rtx", "--target", "sm86")
    assert loadtrt(*line, folder=tmp_path).returncode == 0


def _branches(folder: Path) -> str:
    """The branch that is not taken squeezes a size that is not 1."""
    out = [helper.make_tensor_value_info(name, F, ["k"]) for name in ("t", "e")]
    then = helper.make_graph([helper.make_node("ReduceSum", ["x", "axis"], ["t"], keepdims=0)], "then", [], out[:1])
    other = helper.make_graph([helper.make_node("Squeeze", ["x", "axis"], ["e"])], "else", [], out[1:])
    nodes = [
        helper.make_node("Greater", ["sr", "zero"], ["c"]),
        helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other),
    ]
    inputs = {"x": (F, ["batch", "n"]), "sr": (INT, [])}
    return save(folder / "vad.onnx", nodes, inputs, {"y": (F, ["k"])}, {"axis": np.array([1]), "zero": np.array(0)})


@pytest.mark.parametrize("options", [(), ("--verify",), ("--contexts", "2", "--threads-per-context", "2")])
def test_sizes_that_a_branch_cannot_have(options: Any, tmp_path: Path) -> None:
    """The model runs as it is, with a note; its answers are those of plain ONNX Runtime."""
    file = _branches(tmp_path)
    np.savez(tmp_path / "x.npz", x=np.arange(4, dtype=np.float32)[None], sr=np.array(16000))
    inputs = ("--inputs", tmp_path / "x.npz", "--export-output", tmp_path / "y.json", "--json", tmp_path / "r.json")
    done = loadtrt(*RUN, file, "--shapes", "x:1x4", *inputs, *options)
    (measured,) = json.loads((tmp_path / "r.json").read_text())["models"].values()
    assert measured["failed"] == 0
    assert "sizes are left open" in " ".join(done.stdout.split())
    session = import_onnxruntime().InferenceSession(file, providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, dict(np.load(tmp_path / "x.npz")))
    assert json.loads((tmp_path / "y.json").read_text())[0]["values"] == expected.tolist()
    assert (
        loadtrt(
            "profile", "--on", "onnxruntime", "--engine", file, "--shapes", "x:1x4", "--requests", "5", "--warmup", "0"
        ).returncode
        == 0
    )


def test_what_is_refused_without_sizes_too_is_an_error(tmp_path: Path) -> None:
    node = helper.make_node("Frobnicate", ["x"], ["y"], domain="acme")
    file = save(tmp_path / "m.onnx", [node], {"x": (F, [2])}, {"y": (F, [2])}, {})
    refused(EngineError, "Frobnicate", file)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        *((kind, ("--verify",)) for kind in ("FLOAT16", "FLOAT", "DOUBLE", "INT64", "INT32", "INT8", "UINT8", "BOOL")),
        *((kind, ("--input-range", "s:0..1")) for kind in ("FLOAT16", "DOUBLE", "INT8", "BOOL")),
        *((kind, ("--inputs", "zeros")) for kind in ("FLOAT16", "INT8", "BOOL")),
    ],
)
def test_scalars_of_every_type(kind: str, options: Any, tmp_path: Path) -> None:
    """An input without dimensions is served with random values, which are verified and profiled; and, of each sort of
    number, with a range of them and with zeros."""
    number = TensorProto.DataType.Value(kind)
    node = helper.make_node("Identity", ["s"], ["y"])
    file = save(tmp_path / "m.onnx", [node], {"s": (number, [])}, {"y": (number, [])}, {})
    loadtrt(*RUN, file, *options, "--json", tmp_path / "r.json", "--export-output", tmp_path / "y.json")
    (measured,) = json.loads((tmp_path / "r.json").read_text())["models"].values()
    assert (measured["ok"], measured["failed"]) == (10, 0)
    if "--verify" in options:
        assert measured["verification"]["different"] == 0
        assert (
            loadtrt("profile", "--on", "onnxruntime", "--engine", file, "--requests", "5", "--warmup", "0").returncode
            == 0
        )
    (value,) = json.loads((tmp_path / "y.json").read_text())[0]["values"]
    assert -128 <= value <= 255


@pytest.mark.parametrize("batches", [(1, 4), (3,)])
def test_n_in_a_shape_is_the_batch(batches: tuple[int, ...], tmp_path: Path) -> None:
    """A sweep of batches over a model with another open size, and a run; run.json is read again as it was written."""
    file = save(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"])], {"x": (F, ["n", "length"])},
                {"y": (F, ["n", "length"])}, {})  # fmt: skip
    options = ("--shapes", "x:Nx7", "--requests", "5", "--duration", "0", "--warmup", "0", "--on", "onnxruntime")
    if len(batches) > 1:
        batch = ",".join(map(str, batches))
        loadtrt("sweep", "--engine", file, "--batch", batch, *options, "--json", tmp_path / "s.json")
        points = json.loads((tmp_path / "s.json").read_text())["points"]
        runs = [next(iter(point["run"]["models"].values())) for point in points]
    else:
        runs = []
        loadtrt("run", "--engine", file, "--batch", str(batches[0]), *options, "--json", tmp_path / "r.json")
        loadtrt("run", "--config", tmp_path / "r.json", "--json", tmp_path / "again.json")
        for name in ("r.json", "again.json"):
            runs.append(next(iter(json.loads((tmp_path / name).read_text())["models"].values())))
        batches *= 2
    shapes = [[tensor["shape"] for tensor in run["engine"]["tensors"]] for run in runs]
    assert shapes == [[[batch, 7]] * 2 for batch in batches]


def _old(file: Path, opset: int, operator: str, sizes: list[int], w: list[float], **attributes: Any) -> str:
    """y = x (operator) w of an old opset; w is no input, as newer exporters have it."""
    node = helper.make_node(operator, ["x", "w"], ["y"], **attributes)
    values = [helper.make_tensor_value_info(name, F, sizes) for name in "xy"]
    weight = onnx.numpy_helper.from_array(np.array(w, np.float32), "w")
    graph = helper.make_graph([node], "g", values[:1], values[1:], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), file)
    return str(file)


@pytest.mark.parametrize("opset", [1, 5, 6])
@pytest.mark.parametrize(("operator", "expected"), [("Add", np.add), ("Mul", np.multiply), ("Pow", np.power)])
def test_old_operators_are_lifted(opset: int, operator: str, expected: Any, tmp_path: Path) -> None:
    """Caffe2's and PyTorch 0.3's models: the answer is what numpy says; the note names the tool."""
    file = _old(tmp_path / "old.onnx", opset, operator, [2, 3], [1, 2, 3], broadcast=1, axis=1)
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.savez(tmp_path / "x.npz", x=x)
    done = loadtrt(*RUN, file, "--inputs", tmp_path / "x.npz", "--export-output", tmp_path / "y.json")
    assert f"has opset {opset}, and was lifted to 7 by onnx.version_converter" in " ".join(done.stdout.split())
    answer = json.loads((tmp_path / "y.json").read_text())[0]["values"]
    assert answer == expected(x, np.array([1, 2, 3], np.float32)).reshape(-1).tolist()


@pytest.mark.parametrize("opset", [1, 3, 5])
def test_old_operators_behind_others_are_lifted(opset: int, tmp_path: Path) -> None:
    """Before opset 6 onnx infers no shapes through Relu, which the converter needs of Add's inputs."""
    x = np.array([[-1, 2, 3], [4, -5, 6]], np.float32)
    w = np.array([1, 2, 3], np.float32)
    values = [helper.make_tensor_value_info(name, F, [2, 3]) for name in "xy"]
    nodes = [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Add", ["r", "w"], ["y"], broadcast=1, axis=1)]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [onnx.numpy_helper.from_array(w, "w")])
    file = tmp_path / "old.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=3), file)
    np.savez(tmp_path / "x.npz", x=x)
    done = loadtrt(*RUN, file, "--inputs", tmp_path / "x.npz", "--export-output", tmp_path / "y.json")
    assert f"has opset {opset}, and was lifted to 7" in " ".join(done.stdout.split())
    answer = json.loads((tmp_path / "y.json").read_text())[0]["values"]
    assert answer == (np.maximum(x, 0) + w).reshape(-1).tolist()


@pytest.mark.parametrize("sizes", [[2, 3, 4], [2, 3, 3, 3], [1, 3, 2, 4]])
@pytest.mark.parametrize("operator", ["Add", "Sub", "PRelu"])
def test_old_operators_along_an_axis(operator: str, sizes: list[int], tmp_path: Path) -> None:
    """A bias or slope for each channel stays one for each channel, also where another alignment would fit."""
    attributes = {} if operator == "PRelu" else {"broadcast": 1, "axis": 1}
    file = _old(tmp_path / "old.onnx", 6, operator, sizes, [1, 2, 3], **attributes)
    x = np.random.default_rng(1).standard_normal(sizes, np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    loadtrt(*RUN, file, "--inputs", tmp_path / "x.npz", "--export-output", tmp_path / "y.json")
    w = np.array([1, 2, 3], np.float32).reshape(3, *[1] * (len(sizes) - 2))
    expected = {"Add": x + w, "Sub": x - w, "PRelu": np.where(x < 0, x * w, x)}[operator]
    assert json.loads((tmp_path / "y.json").read_text())[0]["values"] == pytest.approx(expected.ravel().tolist())


@pytest.mark.parametrize("operator", ["Frobnicate", "PRelu"])
def test_old_operators_that_cannot_be_lifted(operator: str, tmp_path: Path) -> None:
    """The sentence says that the opset is too old, and what to do."""
    attributes = {"axis": 1} if operator == "Frobnicate" else {"slopes": 1}  # none of either that an opset knows
    file = _old(tmp_path / "old.onnx", 5, operator, [2, 3, 4], [1, 2, 3], **attributes)
    refused(EngineError, "its opset 5 is older than runtimes read, and onnx.version_converter cannot lift it", file)


@pytest.mark.parametrize(("opset", "ir", "words"), [(99, 10, "export with opset"), (17, 99, "export with IR version")])
def test_a_model_that_is_too_new(opset: int, ir: int, words: str, tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, F, [2]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", values[:1], values[1:])
    file = tmp_path / "new.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir), file)
    refused(EngineError, f"newer than this ONNX Runtime reads: update onnxruntime, or {words}", str(file))


@pytest.mark.parametrize("kind", ["UINT16", "STRING", "INT16", "UINT64"])
@pytest.mark.parametrize("place", ["input", "node", "weight"])
def test_types_that_tensorrt_lacks(kind: str, place: str, tmp_path: Path, capfd: Any) -> None:
    """One sentence with the tensor's name, and none of the parser's own before it."""
    pytest.importorskip("tensorrt_rtx")
    number = TensorProto.DataType.Value(kind)
    if place == "weight" and kind == "STRING":
        pytest.skip("a weight of text is read by nothing here")
    inputs = {"x": (number if place == "input" else F, [2])}
    nodes, weights, name = [helper.make_node("Cast", ["x"], ["y"], to=F)], {}, "input x"
    if place == "node":
        nodes = [helper.make_node("Cast", ["x"], ["c"], to=number), helper.make_node("Cast", ["c"], ["y"], to=F)]
        name = "node 'c' (operator Cast)"
    if place == "weight":
        nodes = [helper.make_node("Cast", ["w"], ["c"], to=F), helper.make_node("Add", ["x", "c"], ["y"])]
        weights, name = {"w": np.zeros(2, kind.lower())}, "weight w"
    file = save(tmp_path / "m.onnx", nodes, inputs, {"y": (F, [2])}, weights)
    done = loadtrt("build", file, "-o", "m.plan", "--flavour", "rtx", "--target", "sm86", folder=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert f"{name} is of type {kind}, which TensorRT does not have" in done.stderr
    assert capfd.readouterr().err == ""
