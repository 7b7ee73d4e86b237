"""Random integers that index a table stay in it, and those that choose a branch choose a known one."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from command_line import loadtrt
from loadtrt.asked.config import RunConfig
from loadtrt.engines.index_tables import branch_values, index_tables, roles
from loadtrt.engines.onnxruntime import sentence_of
from loadtrt.environment import import_onnxruntime
from loadtrt.lanes.input_sets import inputs_for
from onnx_files import load, save

if TYPE_CHECKING:
    from pathlib import Path

F, INT = TensorProto.FLOAT, TensorProto.INT64
TABLE = {"t": np.zeros((2, 8), np.float32)}
AXIS = {"axis": np.array([0], np.int64)}


def _gather(*before: Any, last: str = "ids", **attributes: Any) -> list[Any]:
    return [*before, helper.make_node("Gather", ["t", last], ["y"], **attributes)]


def _branch(reads: str) -> Any:
    out = helper.make_tensor_value_info("o", F, None)
    return helper.make_graph([helper.make_node("Gather", ["t", reads], ["o"])], "b", [], [out])


# nodes that read ids int64[3], and further weights
FORMS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "plain": (_gather(), {}),
    "cast": (_gather(helper.make_node("Cast", ["ids"], ["c"], to=TensorProto.INT32), last="c"), {}),
    "reshape": (_gather(helper.make_node("Reshape", ["ids", "s"], ["r"]), last="r"), {"s": np.array([3, 1])}),
    "unsqueeze, squeeze, identity": (
        _gather(
            helper.make_node("Unsqueeze", ["ids", "axis"], ["u"]),
            helper.make_node("Squeeze", ["u", "axis"], ["q"]),
            helper.make_node("Identity", ["q"], ["i"]),
            last="i",
        ),
        AXIS,
    ),
    "concat": (_gather(helper.make_node("Concat", ["ids", "ids"], ["c"], axis=0), last="c"), {}),
    "taken from": (_gather(helper.make_node("Gather", ["ids", "first"], ["g"]), last="g"), {"first": np.array([0])}),
    "another axis": (_gather(axis=1), {"t": np.zeros((99, 2), np.float32)}),
    "from the end": (_gather(axis=-1), {"t": np.zeros((99, 2), np.float32)}),
    "a constant": (
        [
            helper.make_node("Constant", [], ["k"], value=onnx.numpy_helper.from_array(np.zeros((2, 8), np.float32))),
            helper.make_node("Gather", ["k", "ids"], ["y"]),
        ],
        {},
    ),
    "a table that is cast": (
        [
            helper.make_node("Cast", ["h"], ["k"], to=F),
            helper.make_node("Transpose", ["k"], ["tr"], perm=[1, 0]),
            helper.make_node("Gather", ["tr", "ids"], ["y"]),
        ],
        {"h": np.zeros((99, 2), np.float16)},
    ),
    "the smaller of two": (
        [
            helper.make_node("Gather", ["big", "ids"], ["a"]),
            helper.make_node("Gather", ["t", "ids"], ["b"]),
            helper.make_node("Add", ["a", "b"], ["y"]),
        ],
        {"big": np.zeros((9, 8), np.float32)},
    ),
    "elements": ([helper.make_node("GatherElements", ["t", "ids"], ["y"])], {"t": np.zeros(2, np.float32)}),
    "n dimensions": (
        [
            helper.make_node("Unsqueeze", ["ids", "last"], ["u"]),
            helper.make_node("GatherND", ["t", "u"], ["y"]),
        ],
        {"last": np.array([1])},
    ),
    "in a branch": (
        [helper.make_node("If", ["yes"], ["y"], then_branch=_branch("ids"), else_branch=_branch("ids"))],
        {"yes": np.array(True)},
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_indices_stay_in_their_table(form: str, tmp_path: Path) -> None:
    """However they get there: ONNX Runtime, which judges every index, serves all random requests, and fails with the
    number of rows itself."""
    nodes, weights = FORMS[form]
    used = {name: array for name, array in {**TABLE, **weights}.items() if any(name in n.input for n in nodes)}
    if form == "in a branch":
        used |= TABLE
    file = save(tmp_path / "m.onnx", nodes, {"ids": (INT, [3])}, {"y": (F, None)}, used)
    assert index_tables(onnx.load(file)) == {"ids": 2}
    session = import_onnxruntime().InferenceSession(file, providers=["CPUExecutionProvider"])
    config = RunConfig.of(engine=file, input_sets=20)
    with closing(load(file)) as engine:
        made = inputs_for(engine, config.model)
    assert {int(value) for arrays in made.sets for value in arrays["ids"]} == {0, 1}
    for arrays in made.sets:
        session.run(None, dict(arrays))
    with pytest.raises(Exception, match=r"out of|indices|invalid|range"):
        session.run(None, {"ids": np.full(3, 2)})
    assert made.origins["ids"].rows == 2
    assert "0..1, as they index a table of 2 rows" in made.notes[0]


@pytest.mark.parametrize(
    ("nodes", "weights"),
    [
        ([helper.make_node("Mod", ["ids", "n"], ["m"]), *_gather(last="m")], {"n": np.array(2)}),
        (
            [helper.make_node("Gather", ["t", "n"], ["g"]), helper.make_node("Expand", ["g", "ids"], ["y"])],
            {"n": np.array(0)},
        ),
    ],
)
def test_what_does_not_index_is_not_bounded(nodes: Any, weights: Any, tmp_path: Path) -> None:
    file = save(tmp_path / "m.onnx", nodes, {"ids": (INT, [3])}, {"y": (F, None)}, {**TABLE, **weights})
    assert index_tables(onnx.load(file)) == {}


def test_embeddings_of_one_operator(tmp_path: Path) -> None:
    """As ONNX Runtime's transformer optimiser fuses them: words, segments and positions have a table each."""
    names = ["ids", "segments", "words", "positions", "types", "gamma", "beta"]
    node = helper.make_node("EmbedLayerNormalization", names, ["y", "mask"], domain="com.microsoft")
    rows = (("words", 5), ("positions", 8), ("types", 2))
    weights: dict[str, Any] = {name: np.ones((count, 4), np.float32) for name, count in rows}
    weights |= {"gamma": np.ones(4, np.float32), "beta": np.zeros(4, np.float32)}
    inputs = {"ids": (TensorProto.INT32, [1, 3]), "segments": (TensorProto.INT32, [1, 3])}
    outputs = {"y": (F, [1, 3, 4]), "mask": (TensorProto.INT32, [1])}
    file = save(tmp_path / "m.onnx", [node], inputs, outputs, weights)
    assert index_tables(onnx.load(file)) == {"ids": 5, "segments": 2}


def test_a_failing_request_names_the_remedy(tmp_path: Path) -> None:
    """Where the user's range goes beyond the table: the option, and what ONNX Runtime says the range is."""
    file = save(tmp_path / "m.onnx", _gather(), {"ids": (INT, [3])}, {"y": (F, [3, 8])}, TABLE)
    line = ("run", "--on", "onnxruntime", "--engine", file, "--requests", "5", "--duration", "0s", "--warmup", "0")
    done = loadtrt(*line, "--input-range", "ids:7..7")
    assert "--input-range ids:0..1" in " ".join(done.stdout.split())
    told = loadtrt("profile", "--on", "onnxruntime", "--engine", file, "--input-range", "ids:7..7", "--requests", "5")
    assert "--input-range ids:0..1" in told.stderr


def _node(operator: str, *inputs: str, outputs: Any = ("y",), **attributes: Any) -> Any:
    return helper.make_node(operator, [*inputs], [*outputs], **attributes)


FOUR, TWELVE = np.array(4), {"t": np.zeros((12, 8), np.float32)}
X: Any = {"x": (F, [2, 4])}
# nodes, inputs, weights, and whether the failure knows the range: what one request fails of with n = 99
FAILING: dict[str, tuple[list[Any], dict[str, Any], dict[str, Any], str]] = {
    "index": (_gather(last="n"), {"n": (INT, [3])}, TWELVE, "0..11"),
    "sum": (_gather(_node("Add", "n", "f", outputs="s"), last="s"), {"n": (INT, [3])}, TWELVE | {"f": FOUR}, ""),
    "product": (_gather(_node("Mul", "n", "f", outputs="s"), last="s"), {"n": (INT, [3])}, TWELVE | {"f": FOUR}, ""),
    "both": (
        [*_gather(last="n"), _node("Sub", "n", "f", outputs="s"), _node("Gather", "t", "s", outputs="z")],
        {"n": (INT, [3])},
        TWELVE | {"f": FOUR},
        "",
    ),
    "a number of largest": ([_node("TopK", "x", "n", outputs="yi")], X | {"n": (INT, [1])}, {}, ""),
    "a computed number": (
        [_node("Add", "n", "f", outputs="s"), _node("TopK", "x", "s", outputs="yi")],
        X | {"n": (INT, [1])},
        {"f": np.array([1])},
        "",
    ),
    "a shape": ([_node("Reshape", "x", "n")], X | {"n": (INT, [2])}, {}, ""),
    "a wider shape": ([_node("Expand", "x", "n")], X | {"n": (INT, [2])}, {}, ""),
    "what does not fit then": (
        [_node("Tile", "x", "n", outputs="r"), _node("Add", "x", "r")],
        X | {"n": (INT, [2])},
        {},
        "",
    ),
    "an end": (
        [_node("Range", "f", "n", "f", outputs="r"), _node("Cast", "r", outputs="c", to=F), _node("Add", "c", "four")],
        {"n": (INT, [])},
        {"f": np.array(1), "four": np.zeros(4, np.float32)},
        "",
    ),
    "parts": ([_node("Split", "x", "n", outputs="yz", axis=1)], X | {"n": (INT, [2])}, {}, ""),
    "an axis": ([_node("Squeeze", "x", "n")], X | {"n": (INT, [1])}, {}, ""),
    "axes": ([_node("ReduceSum", "x", "n")], X | {"n": (INT, [1])}, {}, ""),
    "places": (
        [_node("ScatterElements", "x", "n", "u")],
        X | {"n": (INT, [1, 1])},
        {"u": np.zeros((1, 1), np.float32)},
        "",
    ),
}


@pytest.mark.parametrize("what", FAILING)
def test_a_failure_of_integers_says_how_to_bound_them(what: str, tmp_path: Path) -> None:
    """By number only where the values are the index itself; no source of ONNX Runtime's is named."""
    nodes, inputs, weights, limits = FAILING[what]
    file = save(tmp_path / "m.onnx", nodes, inputs, {"y": (F, None)}, weights)
    session = import_onnxruntime().InferenceSession(file, providers=["CPUExecutionProvider"])
    feeds = {name: np.full(sizes, 99 if kind == INT else 1, np.int64 if kind == INT else np.float32)
             for name, (kind, sizes) in inputs.items()}  # fmt: skip
    with pytest.raises(Exception, match="Status Message") as failure:
        session.run(None, feeds)
    said = sentence_of(failure.value, roles(onnx.load(file)))
    assert said.endswith(f": bound random integers with --input-range n:{limits or 'LOW..HIGH'}")
    assert not any(text in said for text in ("::", ".h:", ".cc:", "/", "was false", ".:"))


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("/a/b.cc:83 virtual V* o::K::Out(int, const o::S&) status.IsOK() was false. No value", "No value"),
        ("/a/b.h:42 const T* o::K::Input(int) const [with T = o::S] Missing Input: x", "Missing Input: x"),
        ("/a/b.cc:376 void* o::K::Raw(size_t, bool, o::S*) Failed to allocate memory", "Failed to allocate memory"),
        ("/a/b.cc:3 o::F::<lambda(int)>::operator()(int) const No value", "No value"),
        ("base.h:548 ScalesValidation Scale value (of 3) is too large", "Scale value (of 3) is too large"),
        ("Load model from /a.h5/x.onnx failed: no file", "Load model from /a.h5/x.onnx failed: no file"),
    ],
)
def test_the_source_of_onnx_runtime_is_left_out(said: str, kept: str) -> None:
    """What went wrong stays, whatever stands before it."""
    assert sentence_of(RuntimeError(f"Node. Status Message: {said}.")) == f"Node. Status Message: {kept}"


def test_a_failure_of_sizes_names_no_integers(tmp_path: Path) -> None:
    """Indices that are in their table are not why two sizes differ."""
    nodes = [_node("Gather", "t", "n", outputs="g"), _node("Add", "g", "x")]
    inputs = {"n": (INT, ["length"]), "x": (F, ["frames", 8])}
    file = save(tmp_path / "m.onnx", nodes, inputs, {"y": (F, None)}, TWELVE)
    line = ("run", "--on", "onnxruntime", "--engine", file, "--requests", "5", "--duration", "0s", "--warmup", "0")
    done = " ".join(loadtrt(*line, "--shapes", "n:3,x:2x8").stdout.split())
    assert "Attempting to broadcast an axis by a dimension other than 1. 2 by 3" in done or "3 by 2" in done
    assert "bound random integers" not in done


def _rates(folder: Path, operator: str, known: int, turn: bool = False) -> str:
    """y = x + 1 where the rate is the known one; else a branch that takes no x at all."""
    out = helper.make_tensor_value_info("o", F, [4])
    good = helper.make_graph([helper.make_node("Add", ["x", "one"], ["o"])], "good", [], [out])
    bad = helper.make_graph([helper.make_node("Reshape", ["x", "wrong"], ["o"])], "bad", [], [out])
    nodes = [helper.make_node(operator, ["rate", "known"], ["c"])]
    nodes += [helper.make_node("Not", ["c"], ["n"])] if turn else []
    branches: Any = {"then_branch": bad, "else_branch": good} if turn else {"then_branch": good, "else_branch": bad}
    nodes.append(helper.make_node("If", ["n" if turn else "c"], ["y"], **branches))
    weights = {"one": np.array(1, np.float32), "wrong": np.array([5]), "known": np.array(known)}
    return save(folder / "m.onnx", nodes, {"x": (F, [4]), "rate": (INT, [])}, {"y": (F, None)}, weights)


@pytest.mark.parametrize(
    ("operator", "value", "turn"),
    [("Equal", 16000, False), ("Greater", 16001, False), ("Less", 15999, False), ("Equal", 16000, True)],
)
def test_a_mode_is_one_that_the_model_knows(operator: str, value: int, turn: bool, tmp_path: Path) -> None:
    """A rate of samples that the model compares to choose a branch: the request is served."""
    file = _rates(tmp_path, operator, 16000, turn)
    assert branch_values(onnx.load(file)) == {"rate": value}
    with closing(load(file)) as engine:
        made = inputs_for(engine, RunConfig.of(engine=file).model)
    session = import_onnxruntime().InferenceSession(file, providers=["CPUExecutionProvider"])
    for arrays in made.sets:
        (answer,) = session.run(None, dict(arrays))
        assert (answer == arrays["x"] + 1).all()
    assert f"random values of rate are {value}" in made.notes[0]
