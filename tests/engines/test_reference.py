"""What an engine's answers are compared with: chosen by what the engine is and what was asked, by numpy's oracle."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import helper

from half_models import H, model, value, weight
from loadtrt.asked.config import RunConfig
from loadtrt.engines.reference import reference_of
from loadtrt.errors import UsageError
from loadtrt.load.tensors import TensorSpec
from loadtrt.results.precisions import HalfPrecision
from runs_by_hand import engine

if TYPE_CHECKING:
    from loadtrt.engines.reference import Reference
    from loadtrt.results.engine_info import EngineInfo

W = np.random.default_rng(1).standard_normal((8, 8)).astype(np.float32)
X = np.random.default_rng(2).standard_normal((2, 8)).astype(np.float32)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """y = x w, with an open batch."""
    made = model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], [value("x", "N", 8)], [value("y", "N", 8)], [weight("w", W)]
    )
    onnx.save(made, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    """What begins as a plan of TensorRT does."""
    (tmp_path / "model.plan").write_bytes(b"ftrt" + bytes(100))
    return tmp_path / "model.plan"


def _info(kind: str = "tensorrt", **changes: Any) -> EngineInfo:
    tensors = (TensorSpec("x", True, "fp32", (2, 8), 64), TensorSpec("y", False, "fp32", (2, 8), 64))
    return engine(kind, **{"tensors": tensors, **changes})


def _reference(info: EngineInfo, x: Any = X, **options: Any) -> Reference | None:
    options = {key: str(item) if isinstance(item, Path) else item for key, item in options.items()}
    return reference_of(RunConfig.of(**options).model, info, {"x": x})


def _build(file: Path, **options: bool) -> dict[str, Any]:
    return {"model": str(file), "model_sha256": sha256(file.read_bytes()).hexdigest(), "options": options}


def test_an_engine_of_its_models_own_precision_has_none(file: Path, plan: Path) -> None:
    assert _reference(_info("onnxruntime"), engine=file) is None
    assert _reference(_info(), engine=plan) is None
    assert _reference(_info(build=_build(file)), engine=plan) is None
    assert _reference(_info("simulated"), engine="simulated:null") is None


@pytest.mark.parametrize("kind", ["onnxruntime", "tensorrt"])
def test_with_fp16_a_model_is_its_own(kind: str, file: Path) -> None:
    """In FP32 and in the size of the inputs; the tolerance goes by the nodes that are in FP16."""
    became = HalfPrecision(True, 5, 4, (), 64, 0, "", 0, 0, "", 0.0)
    found = _reference(_info(kind, conversion=became), engine=file, fp16=True, batch=2)
    assert found is not None
    assert found.outputs is not None
    assert found.outputs["y"] == pytest.approx(X @ W, rel=1e-5, abs=1e-6)
    assert (found.unknown, found.demanded) == ("", False)
    assert found.name.startswith(f"{file} in FP32 on ONNX Runtime ")
    assert found.tolerance == pytest.approx(8 * 2**-11 * 4**0.5)


@pytest.mark.parametrize(("option", "step"), [("fp16", 2**-11), ("int8", 2**-8)])
def test_a_plan_of_a_lower_precision_is_compared_with_what_it_was_built_from(
    option: str, step: float, file: Path, plan: Path
) -> None:
    """Where that is there, and the same. The plan's inputs may be FP16."""
    found = _reference(_info(build=_build(file, **{option: True})), X.astype(np.float16), engine=plan)
    assert found is not None
    assert found.outputs is not None
    assert found.outputs["y"] == pytest.approx(X @ W, rel=1e-2, abs=1e-2)
    assert found.tolerance == pytest.approx(8 * step)


def test_why_there_is_nothing_to_compare_with_is_said(file: Path, plan: Path) -> None:
    """A plan of unknown origin with --fp16, a model that is gone or changed, a Caffe network, a model that fails."""

    def why(info: EngineInfo, **options: Any) -> str:
        found = _reference(info, **options)
        assert found is not None
        assert found.outputs is None
        return found.unknown

    assert "name its model with --verify-against" in why(_info(), engine=plan, fp16=True)
    build = _build(file, fp16=True)
    caffe = file.with_name("net.prototxt")
    caffe.write_bytes(file.read_bytes())
    assert "a Caffe network" in why(_info(build={**build, "model": str(caffe)}), engine=plan)
    assert "model.onnx" in why(_info(build={**build, "model_sha256": "0"}), engine=plan)
    file.unlink()
    assert "is not there, or has changed" in why(_info(build=build), engine=plan)


def test_a_reference_is_asked_twice(file: Path) -> None:
    """So that a model that draws random numbers shows; a file cannot be asked again."""
    nodes = [helper.make_node("RandomNormalLike", ["x"], ["r"]), helper.make_node("Add", ["x", "r"], ["y"])]
    onnx.save(model(nodes, [value("x", 2, 8)], [value("y", 2, 8)]), file)
    found = _reference(_info("onnxruntime"), engine=file, fp16=True)
    assert found is not None
    assert found.outputs is not None
    assert found.again is not None
    assert not np.array_equal(found.outputs["y"], found.again["y"])


def test_another_model_or_outputs_may_be_named(file: Path, plan: Path, tmp_path: Path) -> None:
    """An ONNX model that a plan was built from elsewhere, or outputs that another tool computed."""
    found = _reference(_info(), engine=plan, verify_against=file, verify_tolerance="1%")
    assert found is not None
    assert found.outputs is not None
    assert found.outputs["y"] == pytest.approx(X @ W, rel=1e-5, abs=1e-6)
    assert (found.demanded, found.tolerance) == (True, 0.01)
    np.savez(tmp_path / "x.npz", x=X)
    np.savez(tmp_path / "y.npz", y=X @ W, other=X)
    named = _reference(_info(), engine=plan, verify_against=tmp_path / "y.npz", inputs=(str(tmp_path / "x.npz"),))
    assert named is not None
    assert named.outputs is not None
    assert list(named.outputs) == ["y"]
    assert np.array_equal(named.outputs["y"], X @ W)


def test_what_cannot_be_compared_on_request_is_an_error(file: Path, plan: Path, tmp_path: Path) -> None:
    """One sentence each: outputs of other inputs, a file of something else, a model of another size."""

    def refused(sentence: str, **options: Any) -> None:
        with pytest.raises(UsageError, match=re.escape(sentence)) as caught:
            _reference(_info(), **options)
        assert "\n" not in str(caught.value)

    outputs = tmp_path / "y.npz"
    np.savez(outputs, z=X)
    given = {"engine": plan, "inputs": ("zeros",)}
    refused("these are random: add --inputs", engine=plan, verify_against=outputs)
    refused("has none of the outputs y: it has z", verify_against=outputs, **given)
    outputs.write_bytes(b"no npz")
    refused("is damaged or not an .npz or .npy", verify_against=outputs, **given)
    refused("cannot read outputs", verify_against=tmp_path / "nowhere.npz", **given)
    refused("is not an ONNX model", verify_against=plan, **given)
    np.save(tmp_path / "one.npy", X[:1])
    refused("has the shape [1, 8] there, and [2, 8]", verify_against=tmp_path / "one.npy", **given)
    np.savez(outputs, y=X[:1])
    refused("has the shape [1, 8] there, and [2, 8]", verify_against=outputs, **given)
    np.savez(outputs, y=np.full((2, 8), "a"))
    refused("output y is text there, and y fp32[2,8]", verify_against=outputs, **given)
    np.savez(outputs, y=np.zeros((2, 8), np.int32))
    refused("output y is int32 there, and y fp32[2,8]", verify_against=outputs, **given)
    np.savez(outputs, y=np.full((2, 8), 1, object))
    refused("holds Python objects (a pickle)", verify_against=outputs, **given)
    outputs.write_text("version https://git-lfs.github.com/spec/v1\nsize 1234\n")
    refused("is a Git LFS pointer", verify_against=outputs, **given)
    outputs.write_text("<!DOCTYPE html><html></html>")
    refused("is a web page", verify_against=outputs, **given)
    refused("--verify-tolerance has nothing to compare", verify_tolerance=0.1, **given)
    refused("--verify-tolerance has nothing to compare", verify_tolerance=0.1, fp16=True, **given)
    wide = model([helper.make_node("Abs", ["x"], ["y"])], [value("x", 2, 9)], [value("y", 2, 9)])
    onnx.save(wide, file)
    refused("x", verify_against=file, **given)
    for names, sentence in (
        (("a", "y"), "takes the inputs a, and {plan} x: name the model"),
        (("x", "b"), "has the outputs b, and the engine y: name the model"),
    ):
        node = helper.make_node("Abs", [names[0]], [names[1]])
        onnx.save(model([node], [value(names[0], 2, 8)], [value(names[1], 2, 8)]), file)
        refused(f"--verify-against {file}: it {sentence.format(plan=plan)}", verify_against=file, **given)


def test_an_npy_is_the_only_output(file: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", X @ W)
    inputs = (f"x:{tmp_path / 'x.npy'}",)
    found = _reference(_info(), engine=file, verify_against=tmp_path / "y.npy", inputs=inputs)
    assert found is not None
    assert found.outputs is not None
    assert np.array_equal(found.outputs["y"], X @ W)
    two = (*_info().tensors, TensorSpec("z", False, "fp32", (2, 8), 64))
    with pytest.raises(UsageError, match=r"has one array, and .* the outputs y, z"):
        _reference(_info(tensors=two), engine=file, verify_against=tmp_path / "y.npy", inputs=inputs)


def test_the_tolerance_goes_by_what_the_engine_computes_in(file: Path, plan: Path, tmp_path: Path) -> None:
    """FP32 on ONNX Runtime has no TF32; a model may have FP16 inside, and a file may be FP16."""
    np.savez(tmp_path / "x.npz", x=X)
    np.savez(tmp_path / "y.npz", y=X @ W)

    def tolerance(kind: str, engine: Path) -> float:
        inputs = (str(tmp_path / "x.npz"),)
        found = _reference(_info(kind), engine=engine, verify_against=tmp_path / "y.npz", inputs=inputs)
        assert found is not None
        return found.tolerance

    assert tolerance("onnxruntime", file) == pytest.approx(8 * 2**-20)
    assert tolerance("tensorrt", plan) == pytest.approx(8 * 2**-11 * 10)
    nodes = [
        helper.make_node("Cast", ["x"], ["a"], to=H),
        helper.make_node("MatMul", ["a", "w"], ["b"]),
        helper.make_node("Cast", ["b"], ["y"], to=1),
    ]
    half = model(nodes, [value("x", 2, 8)], [value("y", 2, 8)], [weight("w", W, np.float16)])
    onnx.save(half, tmp_path / "half.onnx")
    assert tolerance("onnxruntime", tmp_path / "half.onnx") == pytest.approx(8 * 2**-11 * 3**0.5)
    np.savez(tmp_path / "y.npz", y=(X @ W).astype(np.float16))
    assert tolerance("onnxruntime", file) == pytest.approx(8 * 2**-11)


def _overflows(made: Any, file: Path) -> dict[str, float]:
    """Of a model that is saved first; None: of that in the file."""
    if made is not None:
        onnx.save(made, file)
    became = HalfPrecision(True, 5, 4, (), 64, 0, "", 0, 0, "", 0.0)
    found = _reference(_info("onnxruntime", conversion=became), engine=file, fp16=True)
    assert found is not None
    assert found.unlooked == ""
    return dict(found.overflows)


def test_results_that_fp16_cannot_hold_are_found_by_their_magnitude(file: Path) -> None:
    """In outputs and inside, in the order of the model; not what stays FP32, and not what is infinite in FP32 too."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("MatMul", ["a", "far"], ["b"]),
        helper.make_node("Mul", ["b", "tiny"], ["c"]),
        helper.make_node("Exp", ["big"], ["d"]),
        helper.make_node("Sub", ["c", "d"], ["e"]),
        helper.make_node("MatMul", ["c", "far"], ["y"]),
    ]
    weights = [weight("w", W), weight("far", 6e4 * np.eye(8)), weight("tiny", 1e-4), weight("big", 100.0)]
    ends = [value("y", 2, 8), value("e", 2, 8)]
    a = X @ W
    found = _overflows(model(nodes, [value("x", 2, 8)], ends, weights), file)
    assert found == pytest.approx({"b": 6e4 * np.abs(a).max(), "y": 36e4 * np.abs(a).max()}, rel=1e-4)
    held = model(nodes[:1], [value("x", 2, 8)], [value("a", 2, 8)], weights[:1])
    assert _overflows(held, file) == {}


def test_a_model_with_its_weights_beside_it_is_looked_into(file: Path) -> None:
    node = helper.make_node("MatMul", ["x", "far"], ["y"])
    made = model([node], [value("x", 2, 8)], [value("y", 2, 8)], [weight("far", 6e4 * np.eye(8))])
    beside: dict[str, Any] = {"save_as_external_data": True, "location": "far.data", "size_threshold": 0}
    onnx.save(made, file, **beside)
    assert list(_overflows(None, file)) == ["y"]


def test_outputs_of_fp32_nodes_overflow_where_they_are_fp16(file: Path, plan: Path) -> None:
    """As --io fp16 makes them."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Mul", ["a", "far"], ["y"])]
    made = model(nodes, [value("x", 2, 8)], [value("y", 2, 8)], [weight("w", W), weight("far", 1e6)])
    onnx.save(made, file)
    for keeps_io, names in ((True, []), (False, ["y"])):
        became = HalfPrecision(keeps_io, 2, 1, (), 64, 0, "", 0, 0, "", 0.0)
        found = _reference(_info(build=_build(file, fp16=True), conversion=became), engine=plan)
        assert found is not None
        assert list(found.overflows) == names


@pytest.mark.parametrize("kind", ["If", "Loop", "Scan", "function"])
def test_results_inside_branches_loops_and_functions_are_looked_at(kind: str, file: Path) -> None:
    """Also where what leaves them is small."""
    inner = [
        helper.make_node("MatMul", ["s", "far"], ["b"]),
        helper.make_node("MatMul", ["b", "near"], ["c"]),
    ]
    weights = [weight("far", 6e4 * np.eye(8)), weight("near", 1e-3 * np.eye(8)), weight("yes", True, bool)]
    flag = value("on", kind=onnx.TensorProto.BOOL)
    more: dict[str, Any] = {}
    if kind == "If":
        inner[0].input[0] = "x"
        other = helper.make_graph([helper.make_node("Identity", ["x"], ["d"])], "no", [], [value("d", 2, 8)])
        then = helper.make_graph(inner, "then", [], [value("c", 2, 8)])
        node = helper.make_node("If", ["yes"], ["y"], name="it", then_branch=then, else_branch=other)
    elif kind == "Loop":
        inner.append(helper.make_node("Identity", ["on"], ["still"]))
        ends = [value("still", kind=onnx.TensorProto.BOOL), value("c", 2, 8)]
        starts = [value("i", kind=onnx.TensorProto.INT64), flag, value("s", 2, 8)]
        body = helper.make_graph(inner, "body", starts, ends)
        node = helper.make_node("Loop", ["turns", "yes", "x"], ["y"], name="it", body=body)
        weights.append(weight("turns", 2, np.int64))
    elif kind == "Scan":
        body = helper.make_graph(inner, "body", [value("s", 8)], [value("c", 8)])
        node = helper.make_node("Scan", ["x"], ["y"], name="it", body=body, num_scan_inputs=1, scan_output_axes=[0])
    else:
        opsets = [helper.make_opsetid("", 17)]
        more["functions"] = [helper.make_function("own", "Twice", ["s", "far", "near"], ["c"], inner, opsets)]
        more["domains"] = ["own"]
        node = helper.make_node("Twice", ["x", "far", "near"], ["y"], domain="own", name="it")
    made = model([node], [value("x", 2, 8)], [value("y", 2, 8)], weights, **more)
    (found,) = _overflows(made, file).items()
    turns = 60.0 if kind == "Loop" else 1.0
    assert ("inside" in found[0]) == (kind != "function")
    assert found[1] == pytest.approx(turns * 6e4 * np.abs(X).max(), rel=1e-4)


def test_overflow_is_looked_for_beside_another_reference(file: Path, tmp_path: Path) -> None:
    """--verify-against says what outputs are compared with; what is inside is the engine's own."""
    nodes = [helper.make_node("MatMul", ["x", "far"], ["a"]), helper.make_node("Mul", ["a", "tiny"], ["y"])]
    weights = [weight("far", 6e4 * np.eye(8)), weight("tiny", 1e-4)]
    onnx.save(model(nodes, [value("x", 2, 8)], [value("y", 2, 8)], weights), file)
    np.savez(tmp_path / "x.npz", x=X)
    np.savez(tmp_path / "y.npz", y=6 * X)
    became = HalfPrecision(True, 2, 2, (), 64, 0, "", 0, 0, "", 0.0)
    info = _info("onnxruntime", conversion=became)
    inputs = (str(tmp_path / "x.npz"),)
    found = _reference(info, engine=file, fp16=True, verify_against=tmp_path / "y.npz", inputs=inputs)
    assert found is not None
    assert list(found.overflows) == ["a"]


def test_plans_that_were_converted_are_looked_into(file: Path, plan: Path) -> None:
    """By the model that they were built from, or else by the one that is named."""
    nodes = [helper.make_node("MatMul", ["x", "far"], ["a"]), helper.make_node("Mul", ["a", "tiny"], ["y"])]
    weights = [weight("far", 6e4 * np.eye(8)), weight("tiny", 1e-4)]
    onnx.save(model(nodes, [value("x", 2, 8)], [value("y", 2, 8)], weights), file)
    became = HalfPrecision(True, 2, 2, (), 64, 0, "", 0, 0, "", 0.0)
    build = _build(file, fp16=True)
    found = _reference(_info(build=build, conversion=became), engine=plan)
    moved = {**build, "model": "elsewhere.onnx"}
    named = _reference(_info(build=moved, conversion=became), engine=plan, verify_against=file)
    for each in (found, named):
        assert each is not None
        assert (list(each.overflows), each.unlooked) == (["a"], "")


def test_an_fp16_model_takes_its_inputs_in_fp16(file: Path, plan: Path) -> None:
    """A plan with FP32 inputs, of a model that has FP16 ones."""
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    half = model([node], [value("x", 2, 8, kind=H)], [value("y", 2, 8, kind=H)], [weight("w", W, np.float16)])
    onnx.save(half, file)
    found = _reference(_info(), engine=plan, verify_against=file)
    assert found is not None
    assert found.outputs is not None
    assert found.outputs["y"].dtype == np.float16
