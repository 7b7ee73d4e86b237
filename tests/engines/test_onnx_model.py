"""ONNX models made ready: sizes never assumed, FP16 where asked, every fault one sentence."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from loadtrt import zoo
from loadtrt.errors import EngineError, UsageError
from onnx_files import doubling, finish, load, refused, save


def _two_inputs(folder: Path, a: Any, b: Any) -> str:
    """y = a + b, whose output sizes are declared by symbol."""
    node = helper.make_node("Add", ["a", "b"], ["y"])
    kind = TensorProto.FLOAT
    return save(folder / "add.onnx", [node], {"a": (kind, a), "b": (kind, b)}, {"y": (kind, ["M", "L"])}, {})


@pytest.mark.parametrize(
    ("options", "shapes"),
    [
        ({"batch": 4, "shapes": {"a": "4x8"}}, ((4, 8), (4, 8))),
        ({"shapes": {"a": "4x8"}}, ((4, 8), (4, 8))),
        ({"shapes": {"a": "4x8", "b": "4x8"}}, ((4, 8), (4, 8))),
    ],
)
def test_symbols_are_decided_once_for_all_inputs(tmp_path: Path, options: Any, shapes: Any) -> None:
    """A size that the model names is the same wherever the name stands, in outputs too."""
    with closing(load(_two_inputs(tmp_path, ["N", "L"], ["N", "L"]), **options)) as engine:
        assert tuple(tensor.shape for tensor in engine.info.tensors) == (*shapes, (4, 8))


def test_a_scalar_and_a_fixed_input_need_no_option(tmp_path: Path) -> None:
    """What the model decides stays decided; batch fills open first sizes only."""
    with closing(load(_two_inputs(tmp_path, [None, 3], []), batch=5)) as engine:
        assert [tensor.shape for tensor in engine.info.tensors] == [(5, 3), (), (5, 3)]
    with closing(load(_two_inputs(tmp_path, [], []))) as engine:
        assert engine.info.batch == 1
    with closing(load(_two_inputs(tmp_path, [2, 3], [-1, 3]), batch=2)) as engine:
        assert [tensor.shape for tensor in engine.info.tensors] == [(2, 3), (2, 3), (2, 3)]


def test_sizes_are_never_assumed(tmp_path: Path) -> None:
    """The rules of test_shapes.py hold, with the model's own names for sizes; an input may lack a shape at all."""
    one = doubling(tmp_path, "N", 3)
    refused(UsageError, "x fp32[N,3] leaves its first dimension open: add --batch N", one)
    refused(UsageError, "shape 4x5 does not fit x fp32[N,3]: dimension 1 is fixed at 3", one, shapes={"x": "4x5"})
    refused(UsageError, "--shapes names 'X', which is not an input", one, shapes={"X": "4x3"})
    refused(UsageError, "batch 16 contradicts the inputs' first sizes (x [1,3],", doubling(tmp_path, 1, 3), batch=16)
    wide = doubling(tmp_path, "N", 3, None, "W")
    refused(UsageError, "x fp32[N,3,?,W] leaves dimensions open: add --shapes, such as", wide, batch=16)
    rankless = save(
        tmp_path / "rankless.onnx",
        [helper.make_node("Abs", ["x"], ["y"])],
        {"x": (TensorProto.FLOAT, None)},
        {"y": (TensorProto.FLOAT, None)},
        {},
    )
    refused(UsageError, "has no declared shape: add --shapes x:", rankless, batch=16)
    with closing(load(rankless, shapes={"x": "2x2"})) as engine:
        assert engine.info.tensors[1].shape == (2, 2)


def test_an_output_has_the_sizes_that_it_is_declared_with(tmp_path: Path) -> None:
    """Where nothing else tells an output's size (a reshape to what a tensor says), the model's own symbol does."""
    value = (TensorProto.FLOAT, ["N", 6])
    inputs = {"x": value, "size": (TensorProto.INT64, [2])}
    node = helper.make_node("Reshape", ["x", "size"], ["y"])
    file = save(tmp_path / "reshape.onnx", [node], inputs, {"y": value}, {})
    with closing(load(file, batch=4)) as engine:
        assert engine.info.tensors[2].shape == (4, 6)


def test_an_output_without_a_size_is_said_to_have_none(tmp_path: Path) -> None:
    """Where the data decides an output's size it stays -1 with no bytes, and a note says that the bill lacks it."""
    file = save(
        tmp_path / "nonzero.onnx",
        [helper.make_node("NonZero", ["x"], ["y"])],
        {"x": (TensorProto.FLOAT, [4])},
        {"y": (TensorProto.INT64, [1, "count"])},
        {},
    )
    with closing(load(file)) as engine:
        output = engine.info.tensors[1]
        assert (output.shape, output.nbytes) == ((1, -1), 0)
        unknown = "the model does not say how large output y int64[1,?] is: the memory bill leaves it out"
        assert engine.info.notes[1:] == (unknown,)  # after what the batch is


@pytest.mark.anyio
async def test_fp16_computes_in_half_with_float_at_the_borders(tmp_path: Path, capfd: Any) -> None:
    """--fp16: weights halve, inputs and outputs stay fp32, answers agree to FP16's 11 bits but not exactly, and nothing
    is printed."""
    random = np.random.default_rng(1)
    weight, x = random.standard_normal((64, 64), np.float32), random.standard_normal((8, 64), np.float32)
    weight[0, 0] = 1e-9  # becomes 0
    file = save(
        tmp_path / "mm.onnx",
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        {"x": (TensorProto.FLOAT, ["N", 64])},
        {"y": (TensorProto.FLOAT, ["N", 64])},
        {"w": weight},
        save_as_external_data=True,
        location="mm.bin",
        size_threshold=0,
    )
    results, weights = [], list[int]()
    for fp16 in (False, True):
        with closing(load(file, batch=8, fp16=fp16)) as engine:
            assert [tensor.dtype for tensor in engine.info.tensors] == ["fp32", "fp32"]
            assert engine.info.precision == (
                "converted to FP16: 1 of 1 node (FP32 inputs and outputs kept)" if fp16 else ""
            )
            weights.append(engine.memory([]).weights_bytes or 0)
            engine.allocate([{"x": x}])
            engine.submit(0, 0)
            await finish(engine, 1)
            results.append(engine.outputs(0, 0)["y"])
    assert results[0] == pytest.approx(x @ weight, abs=1e-4)
    assert results[1] == pytest.approx(results[0], abs=0.05)
    assert (results[1] != results[0]).any()
    assert weights[0] > 64 * 64 * 4
    assert 64 * 64 * 2 < weights[1] < 64 * 64 * 3
    assert capfd.readouterr() == ("", "")


def test_fp16_of_a_model_whose_sizes_are_left_open_again(tmp_path: Path) -> None:
    """A branch that is never taken refuses the sizes, and a weight is listed as an input, as old models have it: the
    conversion makes it a weight alone."""
    then = helper.make_graph(
        [helper.make_node("ReduceSum", ["a", "axis"], ["t"], keepdims=0)],
        "then",
        [],
        [helper.make_tensor_value_info("t", TensorProto.FLOAT, ["k"])],
    )
    other = helper.make_graph(
        [helper.make_node("Squeeze", ["a", "axis"], ["e"])],
        "else",
        [],
        [helper.make_tensor_value_info("e", TensorProto.FLOAT, ["k"])],
    )
    nodes = [
        helper.make_node("Mul", ["x", "w"], ["a"]),
        helper.make_node("Less", ["zero", "one"], ["c"]),
        helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other),
    ]
    weights = {
        "w": np.ones(1, np.float32),
        "axis": np.array([1], np.int64),
        "zero": np.array(0, np.int64),
        "one": np.array(1, np.int64),
    }
    inputs = {"x": (TensorProto.FLOAT, ["N", "n"]), "w": (TensorProto.FLOAT, [1])}
    file = save(tmp_path / "pinned.onnx", nodes, inputs, {"y": (TensorProto.FLOAT, ["k"])}, weights)
    for fp16 in (False, True):
        with closing(load(file, shapes={"x": "2x4"}, fp16=fp16)) as engine:
            assert "the model's sizes are left open" in " ".join(engine.info.notes)
            assert [tensor.shape for tensor in engine.info.tensors if tensor.is_input] == [(2, 4)]


def test_a_failing_conversion_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the converter stumbles upon: EngineError with its reason and the way out."""

    def convert(model: Any, *, keep_io: bool) -> Any:
        raise KeyError("some\nnode")

    monkeypatch.setattr("loadtrt.engines.half_precision.convert_to_fp16", convert)
    file = doubling(tmp_path, 4)
    refused(EngineError, f"the conversion of {file} to FP16 failed: ", file, fp16=True)
    refused(EngineError, "convert it beforehand, or leave --fp16 out", file, fp16=True)


def test_a_model_that_is_refused_in_fp32_too_is_not_the_conversion_s_fault(tmp_path: Path) -> None:
    """Then leaving --fp16 out is no remedy, and is not proposed."""
    file = save(tmp_path / "m.onnx", [helper.make_node("Foo", ["x"], ["y"])], {"x": (1, [2])}, {"y": (1, [2])}, {})
    with pytest.raises(EngineError, match=r"refuses \S*m\.onnx: .* No Op registered for Foo"):
        load(file, fp16=True)


def test_files_that_are_no_model_are_refused(tmp_path: Path) -> None:
    """Missing, a folder, text, empty, cut off, without its external data: UsageError, naming the file."""
    refused(UsageError, "nowhere.onnx: No such file or directory", str(tmp_path / "nowhere.onnx"))
    refused(UsageError, f"cannot read model {tmp_path}: Is a directory", str(tmp_path))
    whole = zoo.make("googlenet", 1, 0).SerializeToString()
    for content, reason in (
        (b"hello", "bad.onnx is not an ONNX model, or it is cut short"),
        (b"", "bad.onnx is empty"),
        (onnx.ModelProto(ir_version=8).SerializeToString(), "bad.onnx is not an ONNX model: it has no nodes"),
        (whole[:9999], "it is cut short"),
    ):
        (tmp_path / "bad.onnx").write_bytes(content)
        refused(UsageError, reason, str(tmp_path / "bad.onnx"))
    node = [helper.make_node("Add", ["x", "w"], ["y"])]
    value, weights = (TensorProto.FLOAT, [512]), {"w": np.ones(512, np.float32)}
    options = {"save_as_external_data": True, "location": "w.bin", "size_threshold": 0}
    file = save(tmp_path / "external.onnx", node, {"x": value}, {"y": value}, weights, **options)
    (tmp_path / "w.bin").unlink()
    refused(UsageError, f"{file} keeps weights in {tmp_path / 'w.bin'}, which is missing", file)


@pytest.mark.parametrize("name", ["two", "Mul", "test", "acme"])
def test_names_that_are_not_text_are_refused(name: str, tmp_path: Path) -> None:
    """Of inputs, weights, operators, the graph and an opset: protobuf lets any bytes through."""
    file = Path(doubling(tmp_path, 4))
    file.write_bytes(file.read_bytes().replace(name.encode(), b"\xff" * len(name)))
    refused(UsageError, f"{file} has names that are not text (UTF-8)", str(file))


def test_models_that_onnx_runtime_cannot_serve_are_refused(tmp_path: Path, capfd: Any) -> None:
    """Unknown operators and domains, types and kinds of value that cannot be moved: EngineError."""
    value = (TensorProto.FLOAT, [2])
    for domain in ("", "acme"):
        node = helper.make_node("Frobnicate", ["x"], ["y"], domain=domain)
        file = save(tmp_path / "odd.onnx", [node], {"x": value}, {"y": value}, {})
        refused(EngineError, f"refuses {file}: ", file)
        refused(EngineError, "Frobnicate", file)
    for kind, shown in (("FLOAT8E4M3FN", "FP8"), ("BFLOAT16", "BF16")):
        number = TensorProto.DataType.Value(kind)
        node = helper.make_node("Identity", ["x"], ["y"])
        file = save(tmp_path / "odd.onnx", [node], {"x": (number, [2])}, {"y": (number, [2])}, {})
        refused(EngineError, f"input x of {file} is of type {shown}", file)
    sequence = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, [2])
    graph = helper.make_graph(
        [helper.make_node("SequenceConstruct", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", *value)],
        [sequence],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7), file)
    refused(EngineError, f"output y of {file} is a sequence_type, not a tensor", file)
    assert capfd.readouterr() == ("", "")
