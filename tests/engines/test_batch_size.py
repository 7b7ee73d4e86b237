"""How many inferences are in a request: by what the user says, by what the model says, else one."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from command_line import loadtrt
from fake_tensorrt import Tensor, batch_in_out
from loadtrt.engines.batch_size import batch_size, is_batch, is_name, is_other
from loadtrt.engines.build_config import BuildOptions
from loadtrt.engines.build_model import read_source
from loadtrt.engines.open import open_engine
from loadtrt.engines.plan import build_of
from loadtrt.engines.plan_builder import build_plan
from loadtrt.engines.shapes import InputShape, resolve_shapes
from loadtrt.errors import UsageError
from onnx_files import load, save
from plan_rig import Rig
from tensorrt_bench import bench_of

if TYPE_CHECKING:
    from pathlib import Path

F = TensorProto.FLOAT


def _tensor(name: str, *sizes: Any) -> InputShape:
    """With -1 for a size that is open, or its name."""
    shape = tuple(size if isinstance(size, int) else -1 for size in sizes)
    return InputShape(name, "fp32", shape, symbols=tuple("" if isinstance(size, int) else size for size in sizes))


def _counted(inputs: list[InputShape], outputs: list[InputShape], shapes: Any = None, **options: Any) -> Any:
    batch = options.get("batch")
    resolved = resolve_shapes(inputs, batch=batch, shapes=shapes or {})
    return batch_size(inputs, resolved.shapes, outputs, batch=batch, inferences=options.get("inferences"))


LABELS = _tensor("y", -1, 10)
PHOTO, PRODUCT = _tensor("photo", 480, 640, 3), [_tensor("a", 64, 32), _tensor("b", 32, 16)]


@pytest.mark.parametrize(
    ("inputs", "outputs", "shapes", "expected", "words"),
    [
        # names
        ([_tensor("x", "batch", 3)], [LABELS], {"x": (4, 3)}, 4, "'batch' of x"),
        ([_tensor("x", "N", 3)], [LABELS], {"x": (4, 3)}, 4, "'N' of x"),
        ([_tensor("x", "t", "batch_size", 80)], [LABELS], {"x": (50, 4, 80)}, 4, "'batch_size' of x"),
        ([_tensor("x", 1, 3, "N")], [LABELS], {"x": (1, 3, 1024)}, 1, "no input"),
        ([_tensor("x", "batch", 3), _tensor("m", "rows", 4)], [], {"x": (4, 3), "m": (9, 4)}, 4, "'batch' of x"),
        (
            [_tensor("x", "B1", 3), _tensor("m", "B2", 4)],
            [],
            {"x": (4, 3), "m": (9, 4)},
            1,
            "B1' of x is 4 and 'B2' of",
        ),
        ([_tensor("audio", "samples")], [_tensor("y", -1)], {"audio": (16000,)}, 1, "its 'samples'"),
        ([_tensor("x", "height", "width", 3)], [LABELS], {"x": (480, 640, 3)}, 1, "its 'height'"),
        ([_tensor("x", "seq_len", 80)], [_tensor("y", -1, 80)], {"x": (500, 80)}, 1, "its 'seq_len'"),
        ([_tensor("x", "num_nodes", 80)], [_tensor("y", "num_nodes", 80)], {"x": (300, 80)}, 1, "its 'num_nodes'"),
        ([_tensor("x", "T", 80)], [_tensor("y", "T", 80)], {"x": (300, 80)}, 1, "its 'T'"),
        ([_tensor("x", "edges", 2)], [LABELS], {"x": (300, 2)}, 1, "its 'edges'"),
        ([_tensor("x", "N")], [_tensor("y", "N")], {"x": (8,)}, 1, "no size but the first"),
        ([_tensor("x", "batch")], [_tensor("y", "batch")], {"x": (8,)}, 8, "'batch' of x"),
        ([_tensor("x", "N"), _tensor("z", "N", 4)], [LABELS], {"x": (8,), "z": (8, 4)}, 8, "'N' of z"),
        # what looks like one image, and is a batch by its output or by another input
        ([_tensor("x", 32, 100, 1)], [_tensor("y", 32, 1)], None, 32, "x and y share"),
        ([_tensor("x", 32, 1024, 3)], [_tensor("y", 32, 40)], None, 32, "x and y share"),
        ([_tensor("x", 4, 128, 768)], [_tensor("y", 4, 2)], None, 4, "x and y share"),
        (
            [_tensor("x", 4, 4, 64, 64), _tensor("c", 4, 77, 768)],
            [_tensor("y", 4, 4, 64, 64)],
            None,
            4,
            "x and c and y share",
        ),
        ([_tensor("x", -1, 100, 1)], [_tensor("y", -1, 1)], {"x": (32, 100, 1)}, 32, "leaves open"),
        ([_tensor("x", 480, 640, 3)], [_tensor("y", 480, 640)], None, 1, "looks like one image"),
        ([_tensor("x", 3, 480, 640)], [_tensor("y", 1, 10)], None, 1, "looks like one image"),
        # further outputs: a number, and a count that the values decide
        ([_tensor("x", 16, 3, 32, 32)], [_tensor("loss"), _tensor("y", 16, 4)], None, 16, "x and y share"),
        ([_tensor("x", 8, 3, 64, 64)], [_tensor("s", -1, 3), _tensor("y", 8, 16, 4)], None, 8, "x and y share"),
        ([_tensor("i", 2, 128), _tensor("m", 2, 128)], [_tensor("y", 2, 2)], None, 2, "i and m and y share"),
        # open first sizes
        ([_tensor("x", "unk__7", 3)], [_tensor("y", -1, 3)], {"x": (4, 3)}, 4, "leaves open"),
        ([_tensor("x", "dynamic_axes_1", 3)], [_tensor("y", -1, 3)], {"x": (4, 3)}, 4, "leaves open"),
        ([_tensor("x", "s0", 3)], [_tensor("y", -1, 3)], {"x": (4, 3)}, 4, "leaves open"),
        ([_tensor("x", "?", 3)], [_tensor("y", -1, 3)], {"x": (4, 3)}, 4, "leaves open"),
        ([_tensor("x", "?", 3)], [], {"x": (4, 3)}, 4, "leaves open"),
        ([_tensor("x", "?", 3), _tensor("w", 7, 3)], [_tensor("y", 4, 7)], {"x": (4, 3)}, 4, "leaves open"),
        ([_tensor("x", "?", 3)], [_tensor("y", 100, 3)], {"x": (4, 3)}, 1, "y [100,3] has another"),
        ([_tensor("x", "?", "?", 3)], [_tensor("y", 1, 1000)], {"x": (48, 64, 3)}, 1, "looks like one image"),
        # fixed first sizes
        ([_tensor("x", 16, 3, 8, 8)], [_tensor("y", 16, 10)], None, 16, "x and y share"),
        ([_tensor("x", 16, 3, 8, 8), _tensor("scale", 1)], [_tensor("y", 16, 10)], None, 16, "x and y share"),
        ([_tensor("x", 16, 3, 8, 8)], [_tensor("y", 10)], None, 1, "y [10] has another"),
        ([_tensor("x", 16, 3, 8, 8)], [_tensor("y", -1, 10)], None, 1, "no output is known"),
        ([_tensor("x", 16, 3, 8, 8)], [_tensor("y")], None, 1, "no output is known"),
        ([PHOTO], [_tensor("y", 1, 1, 1)], None, 1, "photo [480,640,3] looks like one image"),
        ([PHOTO], [_tensor("mask", 480, 640, 1)], None, 1, "looks like one image"),
        ([_tensor("x", 3, 480, 640)], [_tensor("y", 3, 480, 640)], None, 1, "looks like one image"),
        ([InputShape("x", "uint8", (480, 640))], [_tensor("y", 480, 640)], None, 1, "looks like one image"),
        ([_tensor("audio", 16000)], [_tensor("y", 16000)], None, 1, "no size but the first"),
        ([_tensor("x", 32, 100)], [_tensor("y", 32, 10)], None, 32, "x and y share"),
        (
            [_tensor("x", 8, 128), _tensor("mask", 8, 128)],
            [_tensor("y", 8, 128, 768)],
            None,
            8,
            "x and mask and y share",
        ),
        ([_tensor("x", 600, 3, 8, 8)], [_tensor("y", 600)], None, 600, "x and y share"),
        ([_tensor("x", 3, 9, 9, 3)], [_tensor("y", 3, 9, 9, 3)], None, 3, "x and y share"),
        ([_tensor("x", 224, 224, 3, 1)], [_tensor("y", 224, 2)], None, 1, "x [224,224,3,1] has the size 224 twice"),
        ([_tensor("x", 480, 640)], [_tensor("y", 480, 640)], None, 1, "first size, 480, which is large"),
        ([_tensor("flow", 480, 640, 2)], [_tensor("y", 480, 640, 2)], None, 1, "first size, 480, which is large"),
        (
            [_tensor("a", 64, 64), _tensor("b", 64, 64)],
            [_tensor("y", 64, 64)],
            None,
            1,
            "a [64,64] has the size 64 twice",
        ),
        ([_tensor("volume", 64, 64, 64)], [_tensor("y", 64, 2)], None, 1, "has the size 64 twice"),
        ([_tensor("x", 100, 16)], [_tensor("y", 100, 100)], None, 1, "y [100,100] has the size 100 twice"),
        ([_tensor("tokens", 77, 768)], [_tensor("y", 77, 768)], None, 1, "y [77,768] is as large as an input"),
        ([_tensor("x", 32, 9), _tensor("w", 1, 9)], [_tensor("y", 32, 2)], None, 1, "w [1,9] has another first size"),
        ([_tensor("x", 32, 9)], [_tensor("y", 32, 2), _tensor("z", 9, 2)], None, 1, "z [9,2] has another first size"),
        ([_tensor("x", 32, 9)], [_tensor("y", 32)], None, 1, "y [32] has no size but the first"),
        (PRODUCT, [_tensor("y", 64, 16)], None, 1, "differ in their first size (a [64,32], b [32,16])"),
        ([_tensor("x", 1, 3)], [_tensor("y", 1, 3)], None, 1, "no input has a first size above 1"),
        ([_tensor("x")], [_tensor("y")], None, 1, "no input has"),
        ([], [], None, 1, "no input has"),
        ([_tensor("x", "?", 3)], [], {"x": (0, 3)}, 1, ""),
    ],
)
def test_what_the_model_says(inputs: Any, outputs: Any, shapes: Any, expected: int, words: str) -> None:
    """By its names, its open and its shared first sizes; one where nothing says so; with the reason."""
    counted = _counted(inputs, outputs, shapes)
    assert counted.size == expected
    assert words in counted.reason
    assert all("--inferences-per-request N" in note for note in counted.notes)


def test_what_the_user_says_counts() -> None:
    """--batch 1 is right for every model, another is a size of an input; --inferences-per-request is never wrong."""
    outputs = [_tensor("y", 64, 16)]
    assert _counted([PHOTO], outputs, batch=1).size == 1
    assert _counted(PRODUCT, outputs, batch=1).size == 1
    assert _counted(PRODUCT, outputs, batch=64).size == 64
    assert _counted(PRODUCT, outputs, inferences=7).size == 7
    assert _counted([_tensor("x", "N", 3)], [], batch=8, inferences=2).size == 2
    assert _counted([_tensor("x", "N", 3)], [], batch=8).notes == ()
    with pytest.raises(UsageError, match=r"batch 4 contradicts .*; to change only how inferences are counted, use"):
        _counted([PHOTO], outputs, batch=4)


def test_a_batch_is_filled_in_where_the_model_names_one() -> None:
    """At any place of a shape; another name that comes first is left for --shapes, as it is something else."""
    state = _tensor("state", 2, "batch", 128)
    found = resolve_shapes([_tensor("x", "batch", 3), state], batch=4, shapes={})
    assert found.shapes == {"x": (4, 3), "state": (2, 4, 128)}
    with pytest.raises(UsageError, match=r"x fp32\[time,batch,80\] leaves .*--shapes x:timex4x80"):
        resolve_shapes([_tensor("x", "time", "batch", 80), state], batch=4, shapes={})
    assert resolve_shapes([_tensor("x", "time", 80)], batch=4, shapes={}).shapes == {"x": (4, 80)}


@pytest.mark.parametrize("text", ["", "?", "None", "-1", "*", "unk", "unknown", "7", " ? "])
def test_what_is_no_name(text: str) -> None:
    """Each is a size of its own."""
    assert not is_name(text)
    found = resolve_shapes([_tensor("x", text, 3, text)], batch=None, shapes={"x": (1, 3, 48)})
    assert (found.shapes, found.symbols, found.notes) == ({"x": (1, 3, 48)}, {}, ())


@pytest.mark.parametrize("text", ["unk__12", "N", "sequence_length", "s0", "长度"])
def test_names_are_one_size(text: str) -> None:
    """In several inputs; within one the user's shape counts, with a note, as runtimes take names for labels."""
    assert is_name(text)
    two = [_tensor("x", 1, text), _tensor("y", 1, text)]
    assert resolve_shapes(two, batch=None, shapes={"x": (1, 48)}).shapes["y"] == (1, 48)
    found = resolve_shapes([_tensor("x", text, text)], batch=None, shapes={"x": (3, 48)})
    assert found.shapes == {"x": (3, 48)}
    assert text in found.notes[0]


def test_words_for_sizes() -> None:
    batches = [
        "batch",
        "batch_size",
        "N",
        "B",
        "Batch",
        "decoder_batch_size",
        "batchsize",
        "n_batch",
        "batch_0",
        "bs",
        "B2",
    ]
    others = [
        "nodes",
        "num_edges",
        "M",
        "batch_size*num_heads",
        "frames_2",
        "点",
        "samples",
        "sequence_length",
        "num_samples",
        "height",
        "W",
        "seq",
        "past_sequence_length + 1",
        "time",
    ]
    assert [name for name in batches if not is_batch(name, 0)] == []
    assert [name for name in others if is_batch(name, 0) or not is_other(name)] == []
    assert not is_batch("N", 1)
    assert not is_batch("batch_size*num_heads", 0)


def _photo(folder: Path) -> str:
    node = helper.make_node("ReduceMean", ["photo"], ["y"], keepdims=1)
    return save(folder / "photo.onnx", [node], {"photo": (F, [48, 64, 3])}, {"y": (F, [1, 1, 1])}, {})


def _product(folder: Path) -> str:
    node = helper.make_node("MatMul", ["a", "b"], ["y"])
    return save(folder / "p.onnx", [node], {"a": (F, [8, 4]), "b": (F, [4, 2])}, {"y": (F, [8, 2])}, {})


@pytest.mark.parametrize(
    ("model", "options", "expected", "reason"),
    [
        (_photo, [], 1, "looks like one image"),
        (_photo, ["--batch", "1"], 1, "the size asked for"),
        (_photo, ["--inferences-per-request", "5"], 5, "--inferences-per-request"),
        (_product, [], 1, "differ in their first size"),
        (_product, ["--batch", "1"], 1, "the size asked for"),
    ],
)
def test_runs_count_so(tmp_path: Path, model: Any, options: list[str], expected: int, reason: str) -> None:
    """In the result, with the reason, and in the summary where it is a guess; inferences are counted by it."""
    line = ["run", "--on", "onnxruntime", "--engine", model(tmp_path), "--requests", "20", "--duration", "0s", *options]
    done = loadtrt(*line, "--warmup", "0", "--json", tmp_path / "r.json")
    (measured,) = json.loads((tmp_path / "r.json").read_text())["models"].values()
    assert (measured["engine"]["batch"], measured["inferences"]) == (expected, 20 * expected)
    assert reason in measured["engine"]["batch_from"]
    assert not measured["engine"]["larger_batch"]
    assert (reason in " ".join(done.stdout.split())) == (not options)


def test_outputs_that_only_the_runtime_knows(tmp_path: Path) -> None:
    """A fixed batch is seen by the sizes that ONNX Runtime infers, where the model declares none for its outputs."""
    weights = {"w": np.ones((4, 2), np.float32)}
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    file = save(tmp_path / "m.onnx", [node], {"x": (F, [16, 4])}, {"y": (F, None)}, weights)
    with closing(load(file)) as engine:
        assert engine.info.batch == 16
        assert not engine.info.larger_batch
    open_batch = save(tmp_path / "n.onnx", [node], {"x": (F, ["batch", 4])}, {"y": (F, None)}, weights)
    with closing(load(open_batch, batch=16)) as engine:
        assert engine.info.larger_batch


def test_a_simulated_request_counts_as_the_user_says(tmp_path: Path) -> None:
    line = ["run", "--engine", "simulated:null", "--batch", "8", "--inferences-per-request", "3", "--requests", "10"]
    loadtrt(*line, "--duration", "0s", "--warmup", "0", "--json", tmp_path / "r.json")
    (measured,) = json.loads((tmp_path / "r.json").read_text())["models"].values()
    assert (measured["engine"]["batch"], measured["inferences"]) == (3, 30)
    assert "3 inferences a request" in loadtrt("report", tmp_path / "r.json").stdout
    refused = loadtrt("run", "--engine", "simulated:null", "--mix", "1:1", "--inferences-per-request", "3")
    assert refused.returncode == 2
    assert "leave --inferences-per-request out" in refused.stderr


@pytest.mark.parametrize("flavour", ["8.6", "10", "rtx"])
@pytest.mark.parametrize(
    ("tensors", "options", "expected"),
    [
        ([Tensor("x", (16, 3, 8, 8)), Tensor("y", (16, 10), is_input=False)], {}, 16),
        ([Tensor("x", (16, 3, 8, 8)), Tensor("y", (16, 10), is_input=False)], {"batch": 1}, 1),
        ([Tensor("photo", (480, 640, 3)), Tensor("y", (1, 1, 1), is_input=False)], {}, 1),
        ([Tensor("a", (64, 32)), Tensor("b", (32, 16)), Tensor("y", (64, 16), is_input=False)], {}, 1),
        ([Tensor("x", (16, 3)), Tensor("y", (16, 3), is_input=False)], {"inferences_per_request": 5}, 5),
        (batch_in_out(), {"shapes": {"data": "4x3x224x224"}}, 4),
        (batch_in_out(), {"batch": 16}, 16),
        (batch_in_out(), {"batch": 16, "inferences_per_request": 32}, 32),
    ],
)
def test_plans_count_by_the_same_law(
    flavour: str, tensors: Any, options: Any, expected: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By the sizes that TensorRT tells, of outputs too."""
    plan = bench_of(flavour, monkeypatch, tmp_path, tensors=tensors).load(**options)
    assert plan.batch == plan.parts[0].batch == expected
    assert plan.larger_batch == any(-1 in tensor.shape for tensor in tensors)
    plan.close()


def test_a_built_plan_keeps_what_the_model_says(tmp_path: Path) -> None:
    """The rows of a table that an input indexes, which TensorRT does not know, are in the plan's sidecar."""
    pytest.importorskip("tensorrt_rtx")
    inputs = {"ids": (TensorProto.INT64, ["batch", 4])}
    node = helper.make_node("Gather", ["t", "ids"], ["y"])
    table = {"t": np.zeros((2, 8), np.float32)}
    file = save(tmp_path / "m.onnx", [node], inputs, {"y": (F, ["batch", 4, 8])}, table)
    options = BuildOptions(flavour="rtx", targets=("SM86",), batch=3)
    built = build_plan(read_source(file, options), tmp_path / "m.plan", options)
    assert [(tensor.name, tensor.rows) for tensor in built.sidecar.tensors] == [("ids", 2), ("y", None)]
    known, _ = build_of(tmp_path / "m.plan", built.sidecar.plan_sha256)
    assert known is not None
    assert known.rows == {"ids": 2}
    assert build_of(tmp_path / "m.plan", "another")[0] is None


@pytest.mark.parametrize(
    ("sizes", "options", "expected", "reason"),
    [
        (["batch", 3, 8, 8], {"batch": 2}, 2, "the size asked for"),
        (["batch", 3, 8, 8], {"shapes": {"x": "2x3x8x8"}, "batch": None}, 2, "size 'batch' of x"),
        (["batch", 3, 8, 8], {"batch": 2, "inferences_per_request": 9}, 9, "--inferences-per-request"),
    ],
)
def test_a_model_on_a_gpu_counts_by_its_own_names(
    sizes: Any, options: Any, expected: int, reason: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Though the plan that is built of it has none."""
    rig = Rig("10", monkeypatch, tmp_path)
    model = onnx.load(rig.model)
    for size, dim in zip(sizes, model.graph.input[0].type.tensor_type.shape.dim, strict=True):
        if isinstance(size, str):
            dim.dim_param = size
    onnx.save(model, rig.model)
    engine = open_engine(rig.config(**options).model)
    assert (engine.info.batch, engine.info.batch_from) == (expected, reason)
    assert engine.info.larger_batch  # another plan would be built of the model
    engine.close()


def test_a_plan_s_inputs_have_the_rows_of_its_sidecar(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """So that random values stay in them on a GPU, too, where TensorRT would read beyond a table without a word."""
    rig = Rig("10", monkeypatch, tmp_path)
    sidecar = rig.plan().with_name("model.plan.json")
    facts = json.loads(sidecar.read_text())
    facts["tensors"][0]["rows"] = 2
    sidecar.write_text(json.dumps(facts))
    engine = open_engine(rig.config().model)
    assert [tensor.rows for tensor in engine.info.tensors] == [2, None]
    assert engine.parts[0][0].rows == 2
    engine.close()
