"""Inputs from files of every kind and from folders of them: what each request carries, by numpy."""

from __future__ import annotations

import io
import json
import pickle
import re
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from command_line import loadtrt
from loadtrt.errors import EngineError, UsageError
from loadtrt.load.inputs import make_input_sets
from loadtrt.load.tensors import TensorSpec, bytes_of
from onnx_files import save

if TYPE_CHECKING:
    from pathlib import Path

    from loadtrt.load.inputs import InputSets


def _spec(name: str, dtype: str, *shape: int) -> TensorSpec:
    return TensorSpec(name, True, dtype, shape, bytes_of(dtype, shape))


X, IDS = _spec("x", "fp32", 2, 3), _spec("ids:0", "int64", 2)
A = np.arange(6, dtype=np.float32).reshape(2, 3)
B = np.array([7, 8])


def _read(*sources: Any, tensors: tuple[TensorSpec, ...] = (X,), batch: int | None = None) -> InputSets:
    return make_input_sets(tensors, tuple(map(str, sources)), 1, {}, 1, None, batch)


def _refused(sentence: str, *sources: Any, **options: Any) -> None:
    with pytest.raises(UsageError, match=re.escape(sentence)) as caught:
        _read(*sources, **options)
    assert "\n" not in str(caught.value)


def _values(made: InputSets, name: str = "x") -> list[Any]:
    return [arrays[name].tolist() for arrays in made.sets]


def _proto(file: Path, array: Any, name: str = "") -> None:
    file.write_bytes(onnx.numpy_helper.from_array(array, name).SerializeToString())


def _write(file: Path, array: Any) -> str:
    """By what the name ends in."""
    match file.suffix:
        case ".npy":
            np.save(file, array)
        case ".npz":
            np.savez(file, x=array)
        case ".pb":
            _proto(file, array)
        case _:
            array.tofile(file)
    return str(file)


KINDS = ("a.npy", "a.npz", "a.pb", "a.bin", "a")


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file(name: str, tmp_path: Path) -> None:
    """With the input's name in front, and without for an only input; its bytes say what it is."""
    file = _write(tmp_path / name, A)
    for source in (f"x:{file}", file):
        made = _read(source)
        assert _values(made) == [A.tolist()]
        assert made.sets[0]["x"].dtype == np.float32
        assert (made.origins["x"].kind, made.origins["x"].files) == ("files", ((file, 1),))
        assert made.notes == ()


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.pb"])
def test_sets_in_one_file(name: str, tmp_path: Path) -> None:
    made = _read(f"x:{_write(tmp_path / name, np.stack([A, A + 1, A + 2]))}")
    assert _values(made) == [A.tolist(), (A + 1).tolist(), (A + 2).tolist()]
    assert made.origins["x"].files[0][1] == 3


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("a.npy", A.astype(np.float64), "a.npy holds x as float64; input x fp32[2,3] needs float32"),
        ("a.npy", A.astype(">f4"), "a.npy holds x as >f4; input x fp32[2,3] needs float32"),
        ("a.pb", A.astype(np.int32), "a.pb holds x as int32; input x fp32[2,3] needs float32"),
        ("a.npz", A.astype(np.float16), "a.npz holds x as float16; input x fp32[2,3] needs float32"),
        ("a.npy", A.T, "a.npy holds x with shape [3, 2]; input x fp32[2,3] needs [2, 3]"),
        ("a.pb", A[:1], "a.pb holds x with shape [1, 3]; input x fp32[2,3] needs [2, 3]"),
        ("a.bin", A.astype(np.float64), "a.bin has 48 bytes; input x fp32[2,3] takes 24"),
        ("a.npy", A[None][:0], "a.npy holds x with shape [0, 2, 3]"),
    ],
)
def test_nothing_is_cast(name: str, array: Any, words: str, tmp_path: Path) -> None:
    _refused(words, f"x:{_write(tmp_path / name, array)}")


def test_an_array_in_fortran_s_order_is_the_same(tmp_path: Path) -> None:
    assert _values(_read(_write(tmp_path / "a.npy", np.asfortranarray(A)))) == [A.tolist()]


def test_several_inputs_by_the_names_of_files(tmp_path: Path) -> None:
    """A file that is named for an input, or that names it inside; trtexec's form with commas; quotes around names."""
    both = (X, IDS)
    files = [_write(tmp_path / "x.npy", A), _write(tmp_path / "ids_0.npy", B)]
    assert _values(_read(*files, tensors=both), "ids:0") == [B.tolist()]
    _proto(tmp_path / "whatever.pb", B, "ids:0")
    assert _values(_read(files[0], tmp_path / "whatever.pb", tensors=both), "ids:0") == [B.tolist()]
    raw = _write(tmp_path / "with,comma", B)
    for source in (f"x:{files[0]},ids:0:{raw}", f"'x':{files[0]},'ids:0':{raw}"):
        made = _read(source, tensors=both)
        assert (_values(made), _values(made, "ids:0")) == ([A.tolist()], [B.tolist()])
    for name, of in (("a_b.npy", None), ("input_1.npy", "input"), ("input_1.pb", "other"), ("0.input.npy", "input")):
        tensors = (_spec("input", "fp32", 2, 3), _spec("other", "fp32", 2, 3))
        file = _write(tmp_path / name, A)
        if of is None:
            _refused(
                "does not say for which input it is (a, b)", file, tensors=(_spec("a", "fp32"), _spec("b", "fp32"))
            )
        else:
            _refused(f"no file holds input {'other' if of == 'input' else 'input'}", file, tensors=tensors)
    _refused("other.npy does not say for which input it is (x, ids:0)", _write(tmp_path / "other.npy", A), tensors=both)


def test_a_folder_of_samples(tmp_path: Path) -> None:
    """Each file is a request's, "10" after "9"; of one input, or of several by their names; folders, too."""
    for number in (10, 9, 1):
        _write(tmp_path / f"{number}.npy", A + number)
    (tmp_path / "README.md").write_text("samples")
    (tmp_path / ".hidden.npy").write_bytes(b"")
    expected = [(A + number).tolist() for number in (1, 9, 10)]
    for source in (tmp_path, f"x:{tmp_path}"):
        made = _read(source)
        assert _values(made) == expected
        assert [file.rpartition("/")[2] for file, _ in made.origins["x"].files] == ["1.npy", "9.npy", "10.npy"]
    for number in range(3):
        folder = tmp_path / "pairs" / f"sample{number}"
        folder.mkdir(parents=True)
        np.save(folder / "x.npy", A + number)
        (B + number).tofile(folder / "ids_0.bin")
        np.save(tmp_path / "pairs" / f"x_{number}.npy", A - number)
        (B - number).tofile(tmp_path / "pairs" / f"ids_0_{number}.bin")
    made = _read(tmp_path / "pairs", tensors=(X, IDS))
    numbers = [0, -1, -2, 0, 1, 2]
    assert _values(made) == [(A + number).tolist() for number in numbers]
    assert _values(made, "ids:0") == [(B + number).tolist() for number in numbers]
    (tmp_path / "empty").mkdir()
    for source in (tmp_path / "empty", f"x:{tmp_path}/empty"):
        _refused("is a folder without inputs: put files there that end in .npy, .npz", source)


@pytest.mark.parametrize("named", [True, False])
def test_the_layout_of_onnx_test_data(named: bool, tmp_path: Path) -> None:
    """test_data_set_0/input_0.pb, input_1.pb, output_0.pb; inputs by their order where the file has no name of one."""
    for number in range(2):
        folder = tmp_path / f"test_data_set_{number}"
        folder.mkdir()
        _proto(folder / "input_0.pb", A + number, "x" if named else "")
        _proto(folder / "input_1.pb", B + number, "ids:0" if named else "gpu_0/ids")
        _proto(folder / "output_0.pb", A, "y")
    made = _read(tmp_path, tensors=(X, IDS))
    assert (_values(made), _values(made, "ids:0")) == ([A.tolist(), (A + 1).tolist()], [B.tolist(), (B + 1).tolist()])
    (one,) = _read(tmp_path / "test_data_set_1", tensors=(X, IDS)).sets
    assert one["x"].tolist() == (A + 1).tolist()


@pytest.mark.parametrize("name", KINDS)
def test_arrays_without_the_batch(name: str, tmp_path: Path) -> None:
    """One array for each item makes batches, in order, the last filled from the beginning; the run says so."""
    items = [A[0] + number for number in range(5)]
    stem, _, suffix = name.partition(".")
    files = [_write(tmp_path / f"{stem}{number}.{suffix}".rstrip("."), item) for number, item in enumerate(items)]
    made = _read(*(f"x:{file}" for file in files), batch=2)
    assert _values(made) == [np.stack([items[a], items[b]]).tolist() for a, b in ((0, 1), (2, 3), (4, 0))]
    assert made.notes == ("x: 5 arrays of [3] in 3 requests of batch 2, the last filled from the beginning",)
    assert made.origins["x"].sets == 3
    _refused(f"{stem}0", f"x:{files[0]}")


def test_items_in_one_array(tmp_path: Path) -> None:
    """Another first size than the batch; sets of the whole shape are no items; nor is what is no batch."""
    items = np.arange(12, dtype=np.float32).reshape(4, 3)
    assert _values(_read(_write(tmp_path / "a.npy", items), batch=2)) == [items[:2].tolist(), items[2:].tolist()]
    single = _spec("x", "fp32", 1, 2, 3)
    made = _read(_write(tmp_path / "b.npy", np.stack([A, A + 1])), tensors=(single,), batch=1)
    assert _values(made) == [[A.tolist()], [(A + 1).tolist()]]
    assert _values(_read(_write(tmp_path / "c.npy", A), tensors=(single,), batch=1)) == [[A.tolist()]]
    photo = _spec("x", "fp32", 4, 3)
    _refused(
        "needs [8, 3], or that with the number of sets in front",
        tmp_path / "a.npy",
        tensors=(_spec("x", "fp32", 8, 3),),
        batch=1,
    )
    assert _values(_read(tmp_path / "a.npy", tensors=(photo,), batch=1)) == [items.tolist()]


def test_items_of_several_inputs(tmp_path: Path) -> None:
    """Those that have the batch are put together; an array that there is once serves all."""
    tensors = (X, IDS, _spec("scale", "fp32"))
    _write(tmp_path / "x.npy", np.stack([A[0]] * 4))
    _write(tmp_path / "ids_0.npy", np.arange(4))
    _write(tmp_path / "scale.npy", np.array(2, np.float32))
    made = _read(tmp_path, tensors=tensors, batch=2)
    assert _values(made, "ids:0") == [[0, 1], [2, 3]]
    assert _values(made, "scale") == [2.0, 2.0]


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.pb"])
def test_text(name: str, tmp_path: Path) -> None:
    """Strings for ONNX Runtime, in one array; of bytes in UTF-8, too; random words, and empty ones."""
    words = np.array(["a", "bc", "é"])
    text = (_spec("x", "string", 3),)
    file = _write(tmp_path / name, words.astype(object) if name == "a.pb" else words)
    (arrays,) = _read(f"x:{file}", tensors=text).sets
    assert arrays["x"].dtype == object
    assert arrays["x"].tolist() == ["a", "bc", "é"]
    _write(tmp_path / "b.npy", np.array(["a", "é", "x"]).astype(object).astype("U").astype("U1"))
    np.save(tmp_path / "bytes.npy", np.char.encode(words, "utf-8"))
    assert _values(_read(f"x:{tmp_path}/bytes.npy", tensors=text)) == [["a", "bc", "é"]]
    (random,) = make_input_sets(text, ("random",), 1, {}, 1).sets
    assert all(isinstance(word, str) and word for word in random["x"])
    (zeros,) = make_input_sets(text, ("zeros",), 1, {}, 1).sets
    assert zeros["x"].tolist() == ["", "", ""]
    (tmp_path / "raw").write_bytes(b"abc")
    _refused("raw is not text for input x string[3]: it is raw bytes; give an .npy", f"x:{tmp_path}/raw", tensors=text)
    _refused("holds x as float32; input x string[3] needs text", f"x:{_write(tmp_path / 'f.npy', A[0])}", tensors=text)
    with pytest.raises(UsageError, match="takes text, which has no range"):
        make_input_sets(text, ("random",), 1, {"x": (0, 1)}, 1)


def _zipped(name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, "x")
    return file.getvalue()


def test_files_that_are_damaged(tmp_path: Path) -> None:
    """The file, and why; no array is taken that has no room."""
    whole = tmp_path / "a.npy"
    _write(whole, A)
    for name, content, why in (
        ("cut.npy", whole.read_bytes()[:-4], "is damaged or not an .npy"),
        ("cut.pb", b"\x08\x02\x10", "is not a TensorProto, or it is cut short"),
        ("empty.pb", b"", "is not a TensorProto"),
        ("page.bin", b"<!DOCTYPE html><html></html>", "page.bin: it is a web page"),
        ("raw.bin", b"<!DOCTYPE html><html></h", "raw.bin: it is a web page"),  # as long as the tensor
        ("raw.npy", A.tobytes(), "raw.npy: it is not numpy's; write it with numpy.save"),
        ("data.csv", b"0,1,2\n3,4,5\n", "data.csv has 12 bytes; input x fp32[2,3] takes 24 of its own, or an .npy"),
        ("list.pkl", pickle.dumps([1]), "a Python pickle, such as a PyTorch checkpoint; save its arrays with numpy."),
        ("x.pt", _zipped("x/data.pkl"), "a zip archive of PyTorch's, such as a checkpoint or TorchScript; save its"),
    ):
        (tmp_path / name).write_bytes(content)
        _refused(why, f"x:{tmp_path}/{name}")
    _write(tmp_path / "bits.npy", A.astype(np.uint16))
    _refused("with array.astype(ml_dtypes.bfloat16)", f"x:{tmp_path}/bits.npy", tensors=(_spec("x", "bf16", 2, 3),))
    proto = onnx.TensorProto(dims=[2, 3], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    proto.external_data.add(key="location", value="/etc/passwd")
    (tmp_path / "out.pb").write_bytes(proto.SerializeToString())
    _refused("keeps its data in another file", f"x:{tmp_path}/out.pb")
    np.savez(tmp_path / "two.npz", a=A, b=A)
    _refused("two.npz has no array 'x': it has a, b", f"x:{tmp_path}/two.npz")
    with pytest.raises(EngineError, match="the inputs need"):
        make_input_sets((X,), (f"x:{whole}",), 1, {}, 1, free_bytes=20)
    _refused(f"cannot read inputs {tmp_path}/none.npy: No such file", f"{tmp_path}/none.npy")


def test_requests_carry_them(tmp_path: Path) -> None:
    """A run's outputs are those of the file, and its result says what each request took, and from where."""
    kind, inputs = TensorProto.FLOAT, {"x": (TensorProto.FLOAT, ["N", 3]), "gain": (TensorProto.FLOAT, [])}
    node = helper.make_node("Mul", ["x", "gain"], ["y"])
    file = save(tmp_path / "m.onnx", [node], inputs, {"y": (kind, ["N", 3])}, {})
    samples = tmp_path / "samples"
    samples.mkdir()
    for number in range(3):
        np.save(samples / f"x_{number}.npy", A[0] + number)
    np.save(tmp_path / "gain.npy", np.array(3, np.float32))
    run = ["run", "--on", "onnxruntime", "--engine", file, "--batch", "2", "--requests", "10", "--duration", "0s"]
    run += ["--warmup", "0", "--json", str(tmp_path / "r.json"), "--export-output", str(tmp_path / "y.json")]
    done = loadtrt(*run, "--inputs", samples, "--inputs", tmp_path / "gain.npy")
    (measured,) = json.loads((tmp_path / "r.json").read_text())["models"].values()
    assert measured["ok"] == 10
    assert (
        json.loads((tmp_path / "y.json").read_text())[0]["values"] == (3 * np.stack([A[0], A[0] + 1])).ravel().tolist()
    )
    assert measured["inputs"]["x"]["sets"] == 2
    assert measured["inputs"]["x"]["files"] == [[str(samples / f"x_{number}.npy"), 1] for number in range(3)]
    assert "x: 3 arrays of [3] in 2 requests of batch 2, the last filled" in " ".join(done.stdout.split())
    loadtrt(*run, "--force", "--input-range", "gain:2..3", "--seed", "5", "--input-sets", "3")
    (measured,) = json.loads((tmp_path / "r.json").read_text())["models"].values()
    assert measured["inputs"]["gain"] == {
        "kind": "random", "sets": 3, "seed": 5, "low": 2.0, "high": 3.0, "rows": None, "files": [],
    }  # fmt: skip


def test_an_input_is_not_written_over(tmp_path: Path) -> None:
    """Of trtexec's form each file counts as one that is read."""
    kind, inputs = TensorProto.FLOAT, {name: (TensorProto.FLOAT, [2, 3]) for name in "ab"}
    node = helper.make_node("Add", ["a", "b"], ["y"])
    file = save(tmp_path / "m.onnx", [node], inputs, {"y": (kind, [2, 3])}, {})
    for name in "ab":
        A.tofile(tmp_path / name)
    line = ["run", "--on", "onnxruntime", "--engine", file, "--inputs", f"a:{tmp_path}/a,b:{tmp_path}/b"]
    for name in "ab":
        refused = loadtrt(*line, "--json", tmp_path / name, "--force")
        assert refused.returncode == 2
        assert (tmp_path / name).stat().st_size == A.nbytes
