"""The conversion to FP16: every kind of graph stays a model and the same network, by ONNX Runtime's answers in FP32."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from half_models import F, H, N, U, agree, answer, converted, in_fp16, model, node_of, types_of, value, weight
from loadtrt.engines.build_config import BuildOptions
from loadtrt.engines.build_model import read_source
from loadtrt.engines.half_precision import convert_to_fp16
from loadtrt.engines.plan_builder import build_plan
from versions import needs

if TYPE_CHECKING:
    from pathlib import Path

RNG = np.random.default_rng(1)
W = RNG.standard_normal((8, 8)).astype(np.float32)
X = RNG.standard_normal((2, 8)).astype(np.float32)
Node = helper.make_node
EVALUATOR = needs("onnx", "1.22", "its evaluator of references fails on this model")


def _graph(nodes: Any, inputs: Any, outputs: Any, weights: Any = ()) -> Any:
    return helper.make_graph(nodes, "body", inputs, outputs, weights)


def _left(became: Any) -> dict[str, int]:
    return {left.operator: left.count for left in became.left}


def _takes(half: Any, operator: str) -> list[str]:
    """The types that the one node of an operator takes."""
    kinds = types_of(half) | {item.name: "input" for item in half.graph.input}
    return [kinds[name] for name in node_of(half, operator).input]


def test_a_cast_of_integers_stays_and_what_meets_it() -> None:
    """A mask of integers made float, as transformers, OCR and audio models have it."""
    made = model(
        [Node("Cast", ["m"], ["f"], to=F), Node("MatMul", ["x", "w"], ["z"]), Node("Mul", ["z", "f"], ["y"])],
        [value("x", 2, 8), value("m", 2, 8, kind=N)],
        [value("y", 2, 8)],
        [weight("w", W)],
    )
    half, became = agree(made, {"x": X, "m": RNG.integers(0, 2, (2, 8))})
    assert (became.nodes, became.converted, _left(became)) == (2, 1, {"Mul": 1})
    assert _takes(half, "MatMul") == ["FLOAT16", "FLOAT16"]


def test_casts_between_float_types_keep_their_meaning() -> None:
    """FP32 to FP32 is no cast, to FP64 and integers takes what there is, from FP16 and FP64 says FP32 and stays so."""
    made = model(
        [
            Node("Cast", ["x"], ["same"], to=F),
            Node("MatMul", ["same", "w"], ["a"]),
            Node("Cast", ["a"], ["d"], to=TensorProto.DOUBLE),
            Node("Cast", ["d"], ["back"], to=F),
            Node("Cast", ["a"], ["h"], to=H),
            Node("Cast", ["h"], ["again"], to=F),
            Node("Add", ["back", "again"], ["y"]),
            Node("Round", ["a"], ["r"]),
            Node("Cast", ["r"], ["n"], to=N),
        ],
        [value("x", 2, 8)],
        [value("y", 2, 8), value("n", 2, 8, kind=N)],
        [weight("w", np.eye(8) * 4)],
    )
    agree(made, {"x": np.round(X)})


def test_sizes_and_indices_are_not_computed_in_fp16() -> None:
    """Shape, Cast, Mul, Cast: FP16's integers end at 2048, and 4097 would be 4096."""
    made = model(
        [
            Node("Shape", ["x"], ["s"]),
            Node("Cast", ["s"], ["f"], to=F),
            Node("Mul", ["f", "one"], ["g"]),
            Node("Cast", ["g"], ["size"], to=N),
            Node("Reshape", ["x", "size"], ["r"]),
            Node("Relu", ["r"], ["y"]),
        ],
        [value("x", "N")],
        [value("y", None), value("size", 1, kind=N)],
        [weight("one", 1.0)],
    )
    agree(made, {"x": RNG.standard_normal(4097).astype(np.float32)})


def _branches(then: Any, other: Any, *nodes: Any, outputs: Any = None, weights: Any = ()) -> Any:
    return model(
        [*nodes, Node("If", ["c"], ["y"], then_branch=then, else_branch=other)],
        [value("x", 2, 8), value("c", kind=TensorProto.BOOL)],
        outputs or [value("y", 2, 8)],
        [weight("w", W), *weights],
    )


@pytest.mark.parametrize("chosen", [True, False])
def test_branches_are_converted_inside(chosen: bool) -> None:
    """They read weights and tensors of the graph around them, in either type; a branch is a constant, or nested; names
    inside one branch are of other types in the other."""
    inner = _graph([Node("MatMul", ["a", "w"], ["t"])], [], [value("t", 2, 8)])
    plain = _graph([Node("Constant", [], ["e"], value=weight("e", X))], [], [value("e", 2, 8)])
    then = _graph(
        [
            Node("Shape", ["a"], ["same"]),
            Node("Greater", ["total", "zero"], ["more"]),
            Node("If", ["more"], ["u"], then_branch=inner, else_branch=plain),
            Node("Reshape", ["u", "same"], ["z"]),
        ],
        [],
        [value("z", 2, 8)],
        [weight("zero", -1.0)],
    )
    other = _graph([Node("MatMul", ["a", "w"], ["same"]), Node("Relu", ["same"], ["z"])], [], [value("z", 2, 8)])
    made = _branches(
        then,
        other,
        Node("MatMul", ["x", "w"], ["a"]),
        Node("Abs", ["a"], ["b"]),
        Node("ReduceSum", ["b"], ["total"], keepdims=0),
    )
    _, became = agree(made, {"x": X, "c": np.array(chosen)})
    assert became.converted == 5  # the matrix products, the Reshape and Relu and Abs around them


def test_a_loop_sums_in_fp32() -> None:
    """What a loop hands on stays FP32: 3000 ones summed in FP16 are 2048. Its scan outputs are right, too."""
    body = _graph(
        [
            Node("Add", ["sum", "step"], ["next"]),
            Node("MatMul", ["x", "w"], ["p"]),
            Node("ReduceMax", ["p"], ["top"], keepdims=0),
            Node("Identity", ["more"], ["go"]),
        ],
        [value("i", kind=N), value("more", kind=TensorProto.BOOL), value("sum")],
        [value("go", kind=TensorProto.BOOL), value("next"), value("top")],
        [weight("step", 1.0)],
    )
    made = model(
        [Node("Loop", ["n", "", "start"], ["total", "tops"], body=body)],
        [value("x", 2, 8)],
        [value("total"), value("tops", None)],
        [weight("n", 3000, np.int64), weight("start", 0.0), weight("w", W)],
    )
    half, became = agree(made, {"x": X}, evaluated=False)
    assert answer(half, {"x": X})[0] == 3000
    assert became.converted == 2


@EVALUATOR
def test_a_scan_is_converted_inside() -> None:
    body = _graph(
        [Node("MatMul", ["one", "w"], ["p"]), Node("Add", ["state", "p"], ["next"]), Node("Tanh", ["next"], ["out"])],
        [value("state", 1, 8), value("one", 1, 8)],
        [value("next", 1, 8), value("out", 1, 8)],
    )
    made = model(
        [Node("Scan", ["start", "x"], ["last", "all"], body=body, num_scan_inputs=1)],
        [value("x", 5, 1, 8)],
        [value("last", 1, 8), value("all", 5, 1, 8)],
        [weight("w", W), weight("start", np.zeros((1, 8)))],
    )
    agree(made, {"x": RNG.standard_normal((5, 1, 8)).astype(np.float32)})


def test_nodes_without_names_and_outputs_that_are_read_inside() -> None:
    """Two unnamed readers of an input; an output that other nodes read in both types; an input that is an output; names
    that the conversion would give."""
    made = model(
        [
            Node("MatMul", ["x", "w"], ["a;0"]),
            Node("Relu", ["x"], ["b"]),
            Node("Add", ["a;0", "b"], ["w/fp16"]),
            Node("ReduceMean", ["w/fp16"], ["mean"], keepdims=1),
            Node("Identity", ["x"], ["x/fp16"]),
        ],
        [value("x", 2, 8)],
        [value("a;0", 2, 8), value("w/fp16", 2, 8), value("mean", 1, 1), value("x/fp16", 2, 8)],
        [weight("w", W)],
    )
    agree(made, {"x": X})


def test_dynamic_quantization_stays() -> None:
    made = model(
        [
            Node("MatMul", ["x", "w"], ["a"]),
            Node("DynamicQuantizeLinear", ["a"], ["q", "scale", "zero"], name="quantize"),
            Node("MatMulInteger", ["q", "wq", "zero"], ["n"]),
            Node("Cast", ["n"], ["f"], to=F),
            Node("Mul", ["f", "scale"], ["y"]),
        ],
        [value("x", 2, 8)],
        [value("y", 2, 8)],
        [weight("w", W), weight("wq", RNG.integers(-5, 5, (8, 8)), np.int8)],
    )
    _, became = agree(made, {"x": X}, 0.02)  # a step of the quantization
    kept = next(left for left in became.left if left.operator == "DynamicQuantizeLinear")
    assert (kept.why, kept.names) == ("has no FP16 version", ("quantize",))


IMAGE = RNG.standard_normal((1, 3, 6, 6)).astype(np.float32)
NORM = ["scale", "shift", "mean", "variance"]
PARAMETERS = [
    weight("scale", [2e4, 1, 0.5, 3]),
    weight("shift", [0, 1e-3, -4, 100]),
    weight("mean", [3e4, 0, 1, -1]),
    weight("variance", [9.79e7, 1e-6, 4, 1e-9]),
]
KERNEL = RNG.standard_normal((4, 3, 3, 3)).astype(np.float32)


@pytest.mark.parametrize("opset", [9, 14, 15, 21])
@pytest.mark.parametrize("bias", [True, False])
def test_a_batch_normalization_behind_a_convolution_is_folded(opset: int, bias: bool) -> None:
    """Into its weights: a variance of 9.79e7, as PP-OCRv4's detector has it, is beyond FP16."""
    made = model(
        [
            Node("Conv", ["x", "k", "b"] if bias else ["x", "k"], ["c"]),
            Node("BatchNormalization", ["c", *NORM], ["n"]),
            Node("Relu", ["n"], ["y"]),
        ],
        [value("x", 1, 3, 6, 6)],
        [value("y", 1, 4, 4, 4)],
        [weight("k", KERNEL), weight("b", [1, -2, 300, 0]), *PARAMETERS],
        opset=opset,
    )
    half, became = agree(made, {"x": IMAGE})
    assert [node.op_type for node in half.graph.node if node.op_type != "Cast"] == ["Conv", "Relu"]
    assert (became.converted, became.left, became.beyond) == (2, (), 0)


@needs("onnxruntime", "1.29", "1.24 to 1.28 refuse constants that it folds itself")
@pytest.mark.parametrize("rank", [2, 3, 4])
def test_a_batch_normalization_alone_becomes_a_product_and_a_sum(rank: int) -> None:
    """Also where others read the convolution, where the parameters are nodes, and where it is in a branch."""
    shape = (2, 4, 3, 5)[:rank]
    constants = [Node("Constant", [], [item.name], value=item) for item in PARAMETERS]
    made = model(
        [*constants, Node("BatchNormalization", ["x", *NORM], ["y"], epsilon=1e-3)],
        [value("x", *shape)],
        [value("y", *shape)],
    )
    half, became = agree(made, {"x": RNG.standard_normal(shape).astype(np.float32)})
    assert {"Mul", "Add"} <= {node.op_type for node in half.graph.node}
    assert became.converted == 2
    read_twice = model(
        [Node("Conv", ["x", "k"], ["c"]), Node("BatchNormalization", ["c", *NORM], ["y"])],
        [value("x", 1, 3, 6, 6)],
        [value("y", 1, 4, 4, 4), value("c", 1, 4, 4, 4)],
        [weight("k", KERNEL), *PARAMETERS],
    )
    agree(read_twice, {"x": IMAGE})
    inside = _graph(
        [Node("Conv", ["x", "k"], ["c2"]), Node("BatchNormalization", ["c2", *NORM], ["t"])],
        [],
        [value("t", 1, 4, 4, 4)],
    )
    outside = _graph([Node("Conv", ["x", "k"], ["e"])], [], [value("e", 1, 4, 4, 4)])
    branching = model(
        [Node("If", ["c"], ["y"], then_branch=inside, else_branch=outside)],
        [value("x", 1, 3, 6, 6), value("c", kind=TensorProto.BOOL)],
        [value("y", 1, 4, 4, 4)],
        [weight("k", KERNEL), *PARAMETERS],
    )
    for chosen in (True, False):
        agree(branching, {"x": IMAGE, "c": np.array(chosen)})


def test_other_normalizations_stay_fp32() -> None:
    """With parameters that are computed, or of a layer: squares of 300 are beyond FP16."""
    large = (300 * X).astype(np.float32)
    made = model(
        [
            Node("MatMul", ["x", "w"], ["a"]),
            Node("LayerNormalization", ["a", "g"], ["l"]),
            Node("Exp", ["small"], ["v"]),
            Node("BatchNormalization", ["a", "g", "g", "g", "v"], ["n"]),
            Node("Pow", ["a", "two"], ["p"]),
            Node("ReduceMean", ["p"], ["m"], axes=[1]),
            Node("Add", ["m", "epsilon"], ["e"]),
            Node("Sqrt", ["e"], ["r"]),
            Node("Div", ["a", "r"], ["d"]),
        ],
        [value("x", 2, 8)],
        [value("l", 2, 8), value("n", 2, 8), value("d", 2, 8)],
        [
            weight("w", W),
            weight("g", np.ones(8)),
            weight("small", np.ones(8)),
            weight("two", 2.0),
            weight("epsilon", 1e-12),
        ],
    )
    _, became = agree(made, {"x": large})
    assert became.converted == 1
    assert set(_left(became)) == {
        *("LayerNormalization", "Exp", "BatchNormalization", "Pow", "ReduceMean", "Add", "Sqrt", "Div")
    }


def test_what_fp16_holds_is_untouched() -> None:
    """Up to 65504 nothing is cut, and nothing small is lifted: the weights are numpy's own rounding."""
    numbers = np.array([65504, -65504, 1e4 + 8, 6.2e-5, 1e-6, 6e-8, 1e-8, -1e-9, 0], np.float32)
    made = model([Node("Mul", ["x", "w"], ["y"])], [value("x", 9)], [value("y", 9)], [weight("w", numbers)])
    half, became = agree(made, {"x": np.ones(9, np.float32)})
    (kept,) = half.graph.initializer
    assert np.array_equal(onnx.numpy_helper.to_array(kept), numbers.astype(np.float16))
    assert (became.weights, became.zeroed, became.most_zeroed, became.subnormal) == (9, 2, "w", 2)
    assert "2 became 0 (2 of 9 in w)" in " ".join(became.sentences())


def test_weights_beyond_fp16_keep_their_node_in_fp32() -> None:
    """Exactly, and the largest is told; those that FP16 would lose do the same. Infinities FP16 holds."""
    far = W.copy()
    far[3, 4] = 7e7
    made = model(
        [
            Node("MatMul", ["x", "far"], ["a"], name="far off"),
            Node("MatMul", ["x", "near"], ["b"]),
            Node("MatMul", ["x", "tiny"], ["c"]),
            Node("Add", ["x", "endless"], ["d"]),
        ],
        [value("x", 2, 8)],
        [value(name, 2, 8) for name in "abcd"],
        [
            weight("far", far),
            weight("near", W),
            weight("tiny", 1e-9 * W),
            weight("endless", [0, np.inf, 0, 0, -np.inf, 0, 0, 1]),
        ],
    )
    half, became = agree(made, {"x": X})
    assert np.array_equal(answer(half, {"x": X})[0], answer(made, {"x": X})[0])
    assert (became.converted, became.beyond, became.farthest_beyond) == (2, 1, "far")
    assert became.largest_beyond == np.float32(7e7)
    assert {left.names: left.why for left in became.left} == {
        ("far off",): "has weights beyond FP16's range",
        ("c",): "has weights that FP16 does not hold",
    }
    assert "the largest is 7e+07, in far" in " ".join(became.sentences())


def test_weights_that_are_moved_before_they_are_used() -> None:
    """Transposed, sliced or joined, weights that FP16 does not hold are no more held."""
    far = W.copy()
    far[3, 4] = 7e7
    made = model(
        [
            Node("Transpose", ["far"], ["f"]),
            Node("Identity", ["f"], ["g"]),
            Node("MatMul", ["x", "g"], ["a"]),
            Node("Unsqueeze", ["tiny", "axis"], ["t"]),
            Node("MatMul", ["x", "t"], ["b"]),
            Node("Transpose", ["w"], ["v"]),
            Node("MatMul", ["x", "v"], ["c"]),
        ],
        [value("x", 2, 8)],
        [value("a", 2, 8), value("b", 1, 2, 8), value("c", 2, 8)],
        [weight("far", far), weight("tiny", 1e-9 * W), weight("axis", [0], np.int64), weight("w", W)],
    )
    half, became = agree(made, {"x": X})
    assert np.array_equal(answer(half, {"x": X})[0], answer(made, {"x": X})[0])
    assert became.converted == 2


def test_tensors_of_one_number() -> None:
    """A state of zeros goes with either type, where FP16 holds its number."""
    fills = {"zeros": 0.0, "large": 1e9}
    nodes = [Node("MatMul", ["x", "w"], ["a"])]
    for name, number in fills.items():
        nodes += [
            Node("ConstantOfShape", ["sizes"], [name], value=weight("", [number])),
            Node("Add", ["a", name], [f"y{name}"]),
        ]
    made = model(
        nodes,
        [value("x", 2, 8)],
        [value(f"y{name}", 2, 8) for name in fills],
        [weight("w", W), weight("sizes", [2, 8], np.int64)],
    )
    _, became = agree(made, {"x": X})
    assert (became.converted, _left(became)) == (2, {"Add": 1})


def test_weights_and_inputs_that_are_outputs() -> None:
    """As they are, in both types."""
    made = model(
        [Node("MatMul", ["x", "w"], ["y"]), Node("Constant", [], ["k"], value_floats=[1.0, 2.0])],
        [value("x", 2, 8)],
        [value("y", 2, 8), value("w", 8, 8), value("k", 2)],
        [weight("w", W)],
    )
    half, _ = agree(made, {"x": X})
    assert np.array_equal(answer(half, {"x": X})[1], W)
    both, _ = converted(made, keep_io=False)
    found = answer(both, {"x": X.astype(np.float16)})
    assert np.array_equal(found[1], W.astype(np.float16))
    assert np.array_equal(found[2], np.array([1, 2], np.float16))


@needs("onnx", "1.22", "it does not know opset 23")
@needs("onnxruntime", "1.31", "it does not run Attention with FP16")
def test_attention_and_operators_of_other_domains() -> None:
    """ONNX's attention takes queries, keys and values in one type, and its mask in FP32; what has a known operator's
    name in another domain is another operator."""
    shape = (1, 2, 4, 8)
    parts = {name: RNG.standard_normal(shape).astype(np.float32) for name in "qkv"}
    mask = np.zeros((4, 4), np.float32)
    mask[0, 1:] = np.finfo(np.float32).min
    made = model(
        [Node("Attention", ["q", "k", "v", "mask"], ["y"])],
        [value(name, *shape) for name in "qkv"],
        [value("y", *shape)],
        [weight("mask", mask)],
        opset=23,
        ir_version=10,
    )
    half, became = agree(made, parts, evaluated=False)
    assert became.converted == 1
    assert _takes(half, "Attention") == ["FLOAT16", "FLOAT16", "FLOAT16", "FLOAT"]
    other = model(
        [Node("MatMul", ["x", "w"], ["a"]), Node("Shape", ["a"], ["y"], domain="acme")],
        [value("x", 2, 8)],
        [value("y", 2, kind=N)],
        [weight("w", W)],
        domains=("acme",),
    )
    (shaped,) = [node for node in converted(other)[0].graph.node if node.op_type == "Shape"]
    assert list(shaped.input) == ["a"]


def test_bounds_beyond_fp16_are_its_greatest_number() -> None:
    """A Clip at 3.4e38 clips nothing in FP16, and need not be FP32."""
    most = float(np.finfo(np.float32).max)
    made = model(
        [
            Node("MatMul", ["x", "w"], ["a"]),
            Node("Clip", ["a", "zero", "most"], ["b"]),
            Node("Max", ["b", "least"], ["c"]),
            Node("Min", ["c", "most"], ["y"]),
        ],
        [value("x", 2, 8)],
        [value("y", 2, 8)],
        [weight("w", W), weight("zero", 0.0), weight("most", most), weight("least", -most)],
    )
    _, became = agree(made, {"x": X})
    assert (became.converted, became.left) == (4, ())


def test_a_row_that_is_masked_whole_is_what_it_is_in_fp32() -> None:
    """(1 - mask) · -3.4e38 is -∞ in FP16, and the softmax of a row of these NaN; in FP32 it is uniform."""
    least = float(np.finfo(np.float32).min)
    made = model(
        [
            Node("Cast", ["m"], ["f"], to=F),
            Node("Sub", ["one", "f"], ["n"]),
            Node("Mul", ["n", "least"], ["bias"]),
            Node("MatMul", ["x", "w"], ["scores"]),
            Node("Add", ["scores", "bias"], ["s"]),
            Node("Softmax", ["s"], ["p"]),
            Node("Where", ["b", "scores", "least"], ["t"]),
            Node("Softmax", ["t"], ["q"]),
            Node("MatMul", ["p", "w"], ["y"]),
        ],
        [value("x", 2, 8), value("m", 2, 8, kind=N), value("b", 2, 8, kind=TensorProto.BOOL)],
        [value("y", 2, 8), value("q", 2, 8)],
        [weight("w", W), weight("one", 1.0), weight("least", least)],
    )
    mask = np.ones((2, 8), np.int64)
    mask[1] = 0
    agree(made, {"x": X, "m": mask, "b": mask.astype(bool)})


@EVALUATOR
@pytest.mark.parametrize("opset", range(7, 22))
def test_networks_of_all_opsets(opset: int) -> None:
    """A small image network in the operators of its time: attributes that became inputs, sizes that moved."""
    clip = [Node("Clip", ["n"], ["r"], min=0.0, max=6.0)] if opset < 11 else [Node("Clip", ["n", "zero", "six"], ["r"])]
    if opset < 9:
        larger = [Node("Upsample", ["r"], ["u"], scales=[1.0, 1.0, 2.0, 2.0])]
    elif opset == 9:
        larger = [Node("Upsample", ["r", "scales"], ["u"])]
    elif opset == 10:
        larger = [Node("Resize", ["r", "scales"], ["u"])]
    else:
        larger = [Node("Resize", ["r", "" if opset > 12 else "roi", "scales"], ["u"])]
    squeeze = [Node("Squeeze", ["p"], ["s"], axes=[2, 3])] if opset < 13 else [Node("Squeeze", ["p", "axes"], ["s"])]
    weights = [weight("k", KERNEL), *PARAMETERS, weight("g", RNG.standard_normal((4, 5))), weight("h", np.ones(5))]
    named = {
        "zero": weight("zero", 0.0),
        "six": weight("six", 6.0),
        "scales": weight("scales", [1, 1, 2, 2]),
        "roi": weight("roi", []),
        "axes": weight("axes", [2, 3], np.int64),
    }
    nodes = [
        Node("Conv", ["x", "k"], ["c"], pads=[1, 1, 1, 1]),
        Node("BatchNormalization", ["c", *NORM], ["n"]),
        *clip,
        *larger,
        Node("MaxPool", ["u"], ["m"], kernel_shape=[2, 2]),
        Node("GlobalAveragePool", ["m"], ["p"]),
        *squeeze,
        Node("Gemm", ["s", "g", "h"], ["z"]),
        Node("Softmax", ["z"], ["y"], axis=1),
    ]
    read = {name for node in nodes for name in node.input}
    weights += [item for name, item in named.items() if name in read]
    made = model(nodes, [value("x", 1, 3, 6, 6)], [value("y", 1, 5)], weights, opset=opset)
    _, became = agree(made, {"x": IMAGE}, evaluated=opset not in (7, 8, 10))
    assert (became.converted, became.nodes) == (8, 8)


@pytest.mark.parametrize("opset", [11, 13, 18])
def test_a_resize_keeps_its_region_and_scales(opset: int) -> None:
    """They are FP32 by ONNX's schema, or by choice; the image is FP16."""
    made = model(
        [
            Node("Conv", ["x", "k"], ["c"]),
            Node(
                "Resize",
                ["c", "roi", "scales"],
                ["y"],
                mode="linear",
                coordinate_transformation_mode="tf_crop_and_resize",
            ),
        ],
        [value("x", 1, 3, 6, 6)],
        [value("y", 1, 4, 8, 8)],
        [weight("k", KERNEL), weight("roi", [0, 0, 0.1, 0.1, 1, 1, 0.9, 0.8]), weight("scales", [1, 1, 2, 2])],
        opset=opset,
    )
    half, _ = agree(made, {"x": IMAGE})
    assert _takes(half, "Resize") == ["FLOAT16", "FLOAT", "FLOAT"]


@pytest.mark.parametrize("kind", [np.float16, np.float64, np.int64])
def test_models_of_other_types_stay_as_they_are(kind: Any) -> None:
    """FP16 and FP64 models, and models without any float."""
    number = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    made = model(
        [Node("MatMul", ["x", "w"], ["a"]), Node("Add", ["a", "a"], ["y"])],
        [value("x", 2, 8, kind=number)],
        [value("y", 2, 8, kind=number)],
        [weight("w", 3 * W, kind)],
    )
    half, became = converted(made)
    assert [node.op_type for node in half.graph.node] == ["MatMul", "Add"]
    assert (became.nodes, became.converted, became.weights) == (0, 0, 0)
    feeds = {"x": X.astype(kind)}
    assert np.array_equal(answer(half, feeds)[0], answer(made, feeds)[0])


def test_an_fp32_island_of_an_fp16_model_stays() -> None:
    """Its author cast what needs FP32, and back."""
    made = model(
        [
            Node("Cast", ["x"], ["f"], to=F),
            Node("Mul", ["f", "f"], ["s"]),
            Node("ReduceSum", ["s"], ["r"]),
            Node("Cast", ["r"], ["y"], to=H),
        ],
        [value("x", 2, 8, kind=H)],
        [value("y", 1, 1, kind=H)],
    )
    half, became = converted(made)
    feeds = {"x": (40 * np.abs(X)).astype(np.float16)}
    assert np.array_equal(answer(half, feeds)[0], answer(made, feeds)[0])
    assert became.converted == 0


def test_functions_are_converted_inside() -> None:
    function = helper.make_function(
        "acme",
        "Twice",
        ["a", "b"],
        ["c"],
        [Node("MatMul", ["a", "b"], ["t"]), Node("MatMul", ["t", "b"], ["c"])],
        [helper.make_opsetid("", 17)],
    )
    made = model(
        [Node("Twice", ["x", "w"], ["y"], domain="acme")],
        [value("x", 2, 8)],
        [value("y", 2, 8)],
        [weight("w", W)],
        domains=("acme",),
        functions=[function],
    )
    _, became = agree(made, {"x": X})
    assert became.converted == 2


def test_operators_that_onnx_does_not_know_stay_and_what_follows_them() -> None:
    """ONNX Runtime's own, whose types onnx cannot tell."""
    made = model(
        [
            Node("MatMul", ["x", "w"], ["a"]),
            Node("QuickGelu", ["a"], ["b"], domain="com.microsoft", name="gelu"),
            Node("Relu", ["b"], ["c"]),
            Node("MatMul", ["a", "w"], ["y"]),
        ],
        [value("x", 2, 8)],
        [value("c", 2, 8), value("y", 2, 8)],
        [weight("w", W)],
        domains=("com.microsoft",),
    )
    _, became = agree(made, {"x": X}, evaluated=False)
    assert became.converted == 2
    assert _left(became) == {"QuickGelu": 1, "Relu": 1}


def test_weights_shared_by_both_types_are_there_in_both() -> None:
    """One FP32 and one FP16 copy, however many read them; what nobody reads any more is gone."""
    made = model(
        [
            Node("MatMul", ["x", "w"], ["a"]),
            Node("ReduceL2", ["w"], ["n"], axes=[0], keepdims=0),
            Node("MatMul", ["a", "w"], ["b"]),
            Node("Add", ["b", "v"], ["y"]),
        ],
        [value("x", 2, 8)],
        [value("y", 2, 8), value("n", 8)],
        [weight("w", W), weight("v", np.ones(8)), weight("idle", W)],
    )
    half, became = agree(made, {"x": X})
    kinds = sorted((item.data_type, item.name) for item in half.graph.initializer)
    assert kinds == [(F, "w"), (H, "v/fp16"), (H, "w/fp16")]
    assert became.weights == W.size + 8


def test_sparse_weights_and_weights_that_are_inputs() -> None:
    """Sparse ones are cast; those that an old model lists as inputs are weights all the same."""
    sparse = helper.make_sparse_tensor(weight("s", [2, -3, 0.5]), weight("", [0, 9, 63], np.int64), [8, 8])
    made = model(
        [Node("MatMul", ["x", "s"], ["a"]), Node("MatMul", ["a", "w"], ["y"])],
        [value("x", 2, 8), value("w", 8, 8)],
        [value("y", 2, 8)],
        [weight("w", W)],
        ir_version=4,
    )
    made.graph.sparse_initializer.append(sparse)
    half, became = agree(made, {"x": X}, evaluated=False)
    assert became.converted == 2
    assert [item.name for item in half.graph.input] == ["x"]
    old = model(
        [Node("MatMul", ["x", "w"], ["y"])],
        [value("x", 2, 8), value("w", 8, 8)],
        [value("y", 2, 8)],
        [weight("w", W)],
        opset=9,
        ir_version=3,
    )
    agree(old, {"x": X})


def test_sequences_stay() -> None:
    made = model(
        [
            Node("MatMul", ["x", "w"], ["a"]),
            Node("SplitToSequence", ["a", "one"], ["s"], axis=0),
            Node("SequenceAt", ["s", "place"], ["b"]),
            Node("MatMul", ["b", "w"], ["y"]),
        ],
        [value("x", 2, 8)],
        [value("y", 1, 8)],
        [weight("w", W), weight("one", 1, np.int64), weight("place", 1, np.int64)],
    )
    _, became = agree(made, {"x": X})
    assert became.converted == 2


@pytest.mark.parametrize("opset", [13, 19, 21])
def test_quantized_models(opset: int) -> None:
    """From opset 19 on Q/DQ nodes take FP16, unless a scale is so small that it would lose bits, be it of one channel
    alone."""
    scales = {"fine": 0.05, "tiny": 1e-6, "mixed": [1e-6, *[0.05] * 7]}
    nodes = []
    for name in scales:
        zero = f"zero {name}" if name == "mixed" else ""
        nodes += [
            Node("QuantizeLinear", ["x", name, zero], [f"q{name}"], axis=1),
            Node("DequantizeLinear", [f"q{name}", name, zero], [f"d{name}"], axis=1),
            Node("MatMul", [f"d{name}", "w"], [f"y{name}"]),
        ]
    made = model(
        nodes,
        [value("x", 2, 8)],
        [value(f"y{name}", 2, 8) for name in scales],
        [
            weight("w", W),
            weight("zero mixed", [0] * 8, np.uint8),
            *(weight(name, number) for name, number in scales.items()),
        ],
        opset=opset,
        ir_version=10,
    )
    _, became = agree(made, {"x": np.round(X, 1)}, evaluated=opset >= 19)
    assert became.converted == 3  # of opset 13 the products alone


@pytest.mark.parametrize("to", [N, TensorProto.INT32, TensorProto.DOUBLE, TensorProto.BOOL])
def test_numbers_that_become_integers_are_not_rounded(to: int) -> None:
    """Those of FP32, at once or behind what moves or computes them; what an FP16 node makes is as it is."""
    made = model(
        [
            Node("Cast", ["x"], ["a"], to=to),
            Node("Reshape", ["x", "flat"], ["b"]),
            Node("Floor", ["b"], ["c"]),
            Node("Sub", ["c", "one"], ["d"]),
            Node("Cast", ["d"], ["e"], to=to),
            Node("Exp", ["zero"], ["f"]),
            Node("Mul", ["x", "f"], ["g"]),
            Node("Cast", ["g"], ["h"], to=to),
            Node("MatMul", ["x", "w"], ["y"]),
            Node("Cast", ["y"], ["z"], to=to),
        ],
        [value("x", 1, 4)],
        [value("y", 1, 4), *(value(name, *shape, kind=to) for name, shape in _ENDS.items())],
        [weight("flat", [4], np.int64), weight("one", 1.0), weight("zero", 0.0), weight("w", np.eye(4))],
    )
    x = np.array([[2049, 4097.5, 12345, 1e-9]], np.float32)
    half, became = converted(made)
    for wanted, found in zip(answer(made, {"x": x})[1:4], answer(half, {"x": x})[1:4], strict=True):
        assert np.array_equal(wanted, found)
    assert became.converted == 1
    assert types_of(half)[node_of(half, "MatMul").output[0]] == "FLOAT16"


_ENDS = {"a": (1, 4), "e": (4,), "h": (1, 4), "z": (1, 4)}


def test_rows_of_a_table_are_the_same() -> None:
    """ids, Cast, Gather: beyond 2048 half of them would be others, and beyond 65504 none would be there."""
    rows = 70000
    made = model(
        [Node("Cast", ["ids"], ["i"], to=N), Node("Gather", ["table", "i"], ["y"])],
        [value("ids", 4)],
        [value("y", 4, 1)],
        [weight("table", np.arange(rows).reshape(-1, 1) % 7)],
    )
    agree(made, {"ids": np.array([2049, 4099, 12345, rows - 1], np.float32)})


def test_comparisons_take_what_is_there_in_fp32() -> None:
    """5001 is not 5000; a comparison of what FP16 nodes make takes that as it is."""
    made = model(
        [
            Node("Equal", ["x", "wanted"], ["a"]),
            Node("MatMul", ["x", "w"], ["b"]),
            Node("Greater", ["b", "least"], ["c"]),
        ],
        [value("x", 1, 4)],
        [value(name, 1, 4, kind=TensorProto.BOOL) for name in "ac"],
        [weight("wanted", 5001.0), weight("least", 3.0), weight("w", np.eye(4))],
    )
    half, became = agree(made, {"x": np.array([[5000, 5001, 5002, 1]], np.float32)})
    assert (became.converted, _left(became)) == (2, {"Equal": 1})
    assert types_of(half)[node_of(half, "Greater").input[0]] == "FLOAT16"


def test_what_was_converted_is_said_of_what_is_there() -> None:
    """No inputs and outputs in FP32, no nodes and no weights are not told of."""
    nodes = [Node("Cast", ["x"], ["a"], to=F), Node("Abs", ["a"], ["b"]), Node("Cast", ["b"], ["y"], to=N)]
    _, became = converted(model(nodes, [value("x", 2, kind=N)], [value("y", 2, kind=N)]))
    assert became.text == "converted to FP16: 0 of 1 node"
    _, none = converted(model([Node("Abs", ["x"], ["y"])], [value("x", 2, kind=N)], [value("y", 2, kind=N)]))
    assert none.text == "nothing to convert to FP16: no node computes in FP32"
    assert list(none.sentences()) == []


def test_inputs_and_outputs_become_fp16_on_request() -> None:
    """Also those that nodes in FP32 make or take, and an input that is an output; integers stay."""
    made = model(
        [
            Node("MatMul", ["x", "w"], ["a"]),
            Node("ReduceSum", ["a"], ["r"], keepdims=0),
            Node("Exp", ["x"], ["e"]),
            Node("Gather", ["a", "i"], ["g"]),
            Node("Identity", ["c"], ["k"]),
        ],
        [value("x", 2, 8), value("i", 1, kind=N)],
        [value("a", 2, 8), value("r"), value("e", 2, 8), value("g", 1, 8), value("k", 8)],
        [weight("w", W), weight("c", np.arange(8))],
    )
    half, _ = converted(made, keep_io=False)
    assert [item.type.tensor_type.elem_type for item in (*half.graph.input, *half.graph.output)] == [H, N, *[H] * 5]
    place = np.array([1])
    wanted = answer(made, {"x": X, "i": place})
    found = answer(half, {"x": X.astype(np.float16), "i": place})
    for a, b in zip(wanted, found, strict=True):
        assert b.dtype == np.float16
        assert np.abs(a - b).max() <= 8 * U * np.abs(a).max()


def test_types_that_the_model_says_wrongly_are_not_believed() -> None:
    """Tools leave `value_info` of what was there before."""
    made = model(
        [Node("MatMul", ["x", "w"], ["a"]), Node("Relu", ["a"], ["y"])],
        [value("x", 2, 8)],
        [value("y", 2, 8)],
        [weight("w", W)],
    )
    wanted = answer(made, {"x": X})[0]
    made.graph.value_info.append(value("a", 5, kind=TensorProto.INT32))
    half, became = converted(made)
    assert became.converted == 2
    assert np.abs(answer(half, {"x": X})[0] - wanted).max() <= 8 * U * np.abs(wanted).max()


_ONE = ("Relu", "Tanh", "Sigmoid", "Neg", "Abs", "Identity", "Softmax", "Exp", "Sqrt", "Round", "Transpose")
_TWO = ("Add", "Sub", "Mul", "Max", "MatMul", "Div", "Where", "Concat")


def _random_graph(seed: int) -> tuple[Any, Any]:
    """A random model over 8×8 tensors, whose every tensor may be read again, and its inputs. Values stay within ±1."""
    random = np.random.default_rng(seed)
    nodes: list[Any] = []
    known = ["x", "z"]
    weights = [weight(f"w{place}", random.uniform(-1, 1, (8, 8)) / 8) for place in range(3)]
    for place in range(int(random.integers(3, 16))):
        name, operator = f"t{place}", str(random.choice([*_ONE, *_TWO, "Cast", "Bound", "If"]))
        a, b = (str(random.choice([*known, *(item.name for item in weights)])) for _ in range(2))
        made = f"{name}_"
        if operator in _ONE:
            source = a
            if operator == "Sqrt":
                nodes.append(Node("Abs", [a], [f"{name}a"]))
                source = f"{name}a"
            nodes.append(Node(operator, [source], [made]))
        elif operator == "Div":
            nodes += [Node("Exp", [b], [f"{name}e"]), Node("Div", [a, f"{name}e"], [made])]
        elif operator == "Where":
            nodes += [Node("Greater", [a, "level"], [f"{name}g"]), Node("Where", [f"{name}g", a, b], [made])]
        elif operator == "Concat":
            nodes += [Node("Concat", [a, b], [f"{name}c"], axis=0), Node("Slice", [f"{name}c", "from", "to"], [made])]
        elif operator in _TWO:
            nodes.append(Node(operator, [a, b], [made]))
        elif operator == "Cast":
            nodes += [Node("Cast", ["n"], [f"{name}f"], to=F), Node("Mul", [a, f"{name}f"], [made])]
        elif operator == "Bound":
            nodes.append(Node("Clip", [a, "", "huge"], [made]))
        else:
            then = _graph([Node("MatMul", [a, "w0"], [f"{name}t"])], [], [value(f"{name}t", 8, 8)])
            other = _graph([Node("Add", [a, b], [f"{name}o"])], [], [value(f"{name}o", 8, 8)])
            nodes.append(Node("If", ["c"], [made], then_branch=then, else_branch=other))
        nodes.append(Node("Clip", [made, "low", "high"], [name]))
        known.append(name)
    ends = {known[-1], str(random.choice(known[2:]))}
    extra = [weight("level", 0.1), weight("huge", 3e38), weight("low", -1.0), weight("high", 1.0)]
    extra += [weight("from", [0], np.int64), weight("to", [8], np.int64)]
    made_model = model(
        nodes,
        [value("x", 8, 8), value("z", 8, 8), value("n", 8, 8, kind=N), value("c", kind=TensorProto.BOOL)],
        [value(name, 8, 8) for name in sorted(ends)],
        [*weights, *extra],
    )
    # Steps of 1/8 and a level between them: rounding decides no comparison of an input.
    feeds = {
        "x": np.round(8 * random.uniform(-1, 1, (8, 8))).astype(np.float32) / 8,
        "z": np.round(8 * random.uniform(-1, 1, (8, 8))).astype(np.float32) / 8,
        "n": random.integers(-1, 2, (8, 8)),
        "c": np.array(bool(random.integers(2))),
    }
    return made_model, feeds


@pytest.mark.parametrize("seed", range(60))
def test_random_networks_compute_the_same(seed: int) -> None:
    """They load, and all but a few numbers, which a comparison or Round may have thrown to the other side, agree."""
    made, feeds = _random_graph(seed)
    half, _ = converted(made)
    wanted = answer(made, feeds)
    for answered in (answer(half, feeds), in_fp16(half, feeds)):
        for full, found in zip(wanted, answered, strict=True):
            apart = ~(np.abs(full - found) <= 64 * U * max(float(np.abs(full).max()), 0.1))
            assert np.mean(apart) < 0.05


@pytest.mark.parametrize("io", ["fp32", "fp16"])
def test_tensorrt_builds_what_it_could_not(tmp_path: Path, io: Any) -> None:
    """RTX, whose networks say every type: a mask of integers, unnamed nodes, a branch, a batch normalization."""
    pytest.importorskip("tensorrt_rtx")
    then = _graph([Node("MatMul", ["a", "w"], ["t"])], [], [value("t", 2, 8)])
    other = _graph([Node("Identity", ["a"], ["e"])], [], [value("e", 2, 8)])
    made = model(
        [
            Node("Cast", ["m"], ["f"], to=F),
            Node("MatMul", ["x", "w"], ["z"]),
            Node("Relu", ["x"], ["r"]),
            Node("Mul", ["z", "f"], ["masked"]),
            Node("Add", ["masked", "r"], ["s"]),
            Node("BatchNormalization", ["s", *NORM], ["a"]),
            Node("If", ["c"], ["y"], then_branch=then, else_branch=other),
        ],
        [value("x", 2, 8), value("m", 2, 8, kind=N), value("c", kind=TensorProto.BOOL)],
        [value("y", 2, 8), value("a", 2, 8)],
        [weight("w", W), *(weight(item.name, np.resize(numpy_helper.to_array(item), 8)) for item in PARAMETERS)],
    )
    onnx.save(made, tmp_path / "model.onnx")
    options = BuildOptions(flavour="rtx", targets=("SM86",), fp16=True, io=io)
    built = build_plan(read_source(str(tmp_path / "model.onnx"), options), tmp_path / "model.plan", options)
    became = built.sidecar.conversion
    assert became is not None
    assert became.converted == 3  # the products and Relu: the mask, of integers, makes FP32 of what it meets
    assert [item.dtype for item in built.sidecar.tensors] == [io, "int64", "bool", io, io]


def test_the_model_itself_is_what_is_changed() -> None:
    """Large models need no copy."""
    made = model([Node("MatMul", ["x", "w"], ["y"])], [value("x", 2, 8)], [value("y", 2, 8)], [weight("w", W)])
    half, _ = convert_to_fp16(made)
    assert half is made
