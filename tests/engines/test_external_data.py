"""A model reads its own files and no others, wherever in it a weight lies and whatever version of ONNX Runtime runs."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from command_line import loadtrt
from loadtrt.engines.build_config import BuildOptions
from loadtrt.engines.build_model import read_source
from loadtrt.engines.external_data import find_external_data, load_external_data, tensors_of
from loadtrt.engines.plan_builder import build_plan
from loadtrt.errors import UsageError
from onnx_files import finish, load, refused

if TYPE_CHECKING:
    from collections.abc import Callable

WEIGHTS = np.arange(4, dtype=np.float32) + 1


def tensor(name: str, location: str | None = "w.bin", **entries: int) -> Any:
    """A tensor fp32[4] whose values are in a file; location None: named nowhere."""
    made = TensorProto(name=name, dims=[4], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **entries}.items():
        if value is not None:
            made.external_data.add(key=key, value=str(value))
    return made


def model_of(*weights: Any) -> Any:
    """y = x + the weights."""
    sums = ["x", *(f"s{place}" for place in range(1, len(weights))), "y"]
    nodes = [
        helper.make_node("Add", [before, weight.name], [after])
        for weight, before, after in zip(weights, sums, sums[1:], strict=False)
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y"))
    graph = helper.make_graph(nodes, "test", [x], [y], initializer=weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write(file: Path, *weights: Any) -> str:
    """A model, and its weights in w.bin beside it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(model_of(*weights or [tensor("w")]).SerializeToString())
    (file.parent / "w.bin").write_bytes(WEIGHTS.tobytes())
    return str(file)


async def answer(engine: str, **options: Any) -> Any:
    """What the model says to zeros."""
    with closing(load(engine, **options)) as opened:
        opened.allocate([{"x": np.zeros(4, np.float32)}])
        opened.submit(0, 0)
        assert (await finish(opened, 1))[0].error is None
        return opened.outputs(0, 0)["y"]


def hub(folder: Path, inside: str = "") -> str:
    """A model in the cache of Hugging Face's hub: links in a snapshot, to blobs named by their hash."""
    snapshot, blobs = folder / "models--a--b" / "snapshots" / "abc" / inside, folder / "models--a--b" / "blobs"
    file = write(snapshot / "model.onnx")
    blobs.mkdir()
    for name, digest in {"model.onnx": "H1", "w.bin": "H2"}.items():
        (snapshot / name).rename(blobs / digest)
        (snapshot / name).symlink_to(os.path.relpath(blobs / digest, snapshot))
    return file


def _below(folder: Path) -> str:
    file = write(folder / "m.onnx", tensor("w", "parts/./w.bin"))
    (folder / "parts").mkdir()
    (folder / "w.bin").rename(folder / "parts" / "w.bin")
    return file


def _linked_inside(folder: Path) -> str:
    file = write(folder / "m.onnx")
    (folder / "w.bin").rename(folder / "real.bin")
    (folder / "w.bin").symlink_to(folder / "real.bin")
    return file


def _linked_model(folder: Path) -> str:
    write(folder / "there" / "m.onnx")
    (folder / "again.onnx").symlink_to("there/m.onnx")
    (folder / "link.onnx").symlink_to(folder / "again.onnx")
    return str(folder / "link.onnx")


def _linked_folder(folder: Path) -> str:
    write(folder / "there" / "m.onnx")
    (folder / "here").symlink_to("there")
    return str(folder / "here" / "m.onnx")


def _link_to_hub(folder: Path) -> str:
    (folder / "m.onnx").symlink_to(hub(folder))
    return str(folder / "m.onnx")


def _linked_both(folder: Path) -> str:
    """As a cache that is not the hub's has them: both are links into one folder, where they have other names."""
    file = write(folder / "snapshot" / "m.onnx")
    (folder / "store").mkdir()
    for name, digest in {"m.onnx": "1111", "w.bin": "2222"}.items():
        (folder / "snapshot" / name).rename(folder / "store" / digest)
        (folder / "snapshot" / name).symlink_to(f"../store/{digest}")
    return file


OWN: dict[str, Callable[[Path], str]] = {
    "beside": lambda folder: write(folder / "m.onnx"),
    "below": _below,
    "a link inside": _linked_inside,
    "a linked model": _linked_model,
    "a linked folder": _linked_folder,
    "the hub's cache": hub,
    "a folder in the hub's cache": lambda folder: hub(folder, "onnx/fp32"),
    "a link to the hub's cache": _link_to_hub,
    "links into one folder": _linked_both,
}


@pytest.mark.anyio
@pytest.mark.parametrize("layout", OWN)
async def test_a_model_reads_its_own_files(layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On ONNX Runtime and converted, by an absolute and a relative name, it adds its weights."""
    file = OWN[layout](tmp_path)
    assert (await answer(file) == WEIGHTS).all()
    monkeypatch.chdir(Path(file).parent)
    assert (await answer(Path(file).name) == WEIGHTS).all()
    assert (await answer(file, fp16=True) == WEIGHTS).all()


@pytest.mark.parametrize("layout", OWN)
@pytest.mark.parametrize("fp16", [False, True])
def test_a_plan_is_built_of_a_models_own_files(layout: str, fp16: bool, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    options = BuildOptions(flavour="rtx", targets=("SM86",), fp16=fp16)
    build_plan(read_source(OWN[layout](tmp_path), options), tmp_path / "out.plan", options)


@pytest.mark.anyio
async def test_files_of_several_folders(tmp_path: Path) -> None:
    """Blobs and a file beside the links to them; parts of one file."""
    file = hub(tmp_path)
    weights = tensor("w"), tensor("v", "v.bin", offset=4, length=16)
    Path(file).resolve().write_bytes(model_of(*weights).SerializeToString())
    Path(file).with_name("v.bin").write_bytes(b"1234" + WEIGHTS.tobytes() + b"5678")
    for fp16 in (False, True):
        assert (await answer(file, fp16=fp16) == 2 * WEIGHTS).all()


def _link(folder: Path, target: Path | str) -> str:
    (folder / "w.bin").unlink()
    (folder / "w.bin").symlink_to(target)
    return "w.bin"


def _outside(folder: Path) -> Path:
    outside = folder.parent / "secret.bin"
    outside.write_bytes(WEIGHTS.tobytes())
    return outside


def _linked_out(folder: Path) -> str:
    (folder / "parts").symlink_to(_outside(folder).parent)
    return "parts/secret.bin"


def _fifo(folder: Path) -> str:
    os.mkfifo(folder / "pipe")
    return "pipe"


def _memory(folder: Path) -> str:
    """ONNX Runtime's name for an address in memory, as a file."""
    place = folder / "*" / "_ORT_MEM_ADDR_"
    place.mkdir(parents=True)
    (place / "*").write_bytes(WEIGHTS.tobytes())
    return "*/_ORT_MEM_ADDR_/*"


def _loop(folder: Path) -> str:
    return _link(folder, "w.bin")


def _pointer(folder: Path) -> str:
    (folder / "w.bin").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:77\nsize 9999999\n")
    return "w.bin"


def _short(folder: Path) -> str:
    (folder / "w.bin").write_bytes(b"1234567")
    return "w.bin"


NOT_A_PATH, A_LINK = "which is not a path inside the folder of the model", "outside the folder of the model"
OTHERS: dict[str, tuple[Callable[[Path], str | None], str]] = {
    "absolute": (lambda folder: str(_outside(folder)), NOT_A_PATH),
    "absolute, its own": (lambda folder: str(folder / "w.bin"), NOT_A_PATH),
    "a device": (lambda _: "/dev/zero", NOT_A_PATH),
    "above": (lambda folder: f"../{_outside(folder).name}", NOT_A_PATH),
    "above, later": (lambda folder: f"parts/.././../{_outside(folder).name}", NOT_A_PATH),
    "a link out": (lambda folder: _link(folder, _outside(folder)), A_LINK),
    "a relative link out": (lambda folder: _link(folder, f"../{_outside(folder).name}"), A_LINK),
    "a linked folder": (_linked_out, A_LINK),
    "a link to a device": (lambda folder: _link(folder, "/dev/zero"), A_LINK),
    "a pipe": (_fifo, "which is not a regular file: copy the weights' file to "),
    "a folder": (lambda folder: (folder / "parts").mkdir() or "parts", "which is not a regular file"),  # type: ignore[func-returns-value]
    "memory": (_memory, NOT_A_PATH),
    "itself": (lambda _: ".", NOT_A_PATH),
    "empty": (lambda _: "", NOT_A_PATH),
    "none": (lambda _: None, NOT_A_PATH),
    "missing": (lambda _: "v.bin", "which is missing: copy the weights' file to "),
    "under a file": (lambda _: "w.bin/v", "which cannot be read: Not a directory"),
    "a loop": (_loop, "which cannot be read: Too many levels of symbolic links"),
    "too long": (lambda _: "v" * 300, "which cannot be read: File name too long"),
    "NUL": (lambda _: "w\0.bin", "which cannot be read: "),
    "a pointer": (_pointer, "it is a Git LFS pointer to 9.54 MiB, not the file; fetch it with `git lfs pull`"),
    "cut short": (_short, "which has 7 bytes, and the model reads 16: copy it again"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_another_file_is_refused(kind: str, tmp_path: Path) -> None:
    """In one sentence, of runs, profiles and builds."""
    folder, (location, sentence) = tmp_path / "model", OTHERS[kind]
    file = write(folder / "m.onnx")
    named = location(folder)
    length = 9_999_999 if kind == "a pointer" else 16
    Path(file).write_bytes(model_of(tensor("w", named, length=length)).SerializeToString())
    refused(UsageError, sentence, file)
    with pytest.raises(UsageError, match=f"^{file} keeps weights in ") as caught:
        read_source(file, BuildOptions())
    assert sentence in str(caught.value)


@pytest.mark.parametrize("entries", [{"offset": -4}, {"length": -1}, {"offset": "x"}, {"offset": "9" * 5000}])
def test_places_that_are_no_numbers_are_refused(entries: dict[str, Any], tmp_path: Path) -> None:
    refused(
        UsageError,
        "m.onnx has no valid offset or length in its external data",
        write(tmp_path / "m.onnx", tensor("w", **entries)),
    )


def test_a_weight_with_two_files_is_refused(tmp_path: Path) -> None:
    """Readers differ in which of the two counts."""
    twice = tensor("w")
    twice.external_data.add(key="location", value="/etc/passwd")
    refused(UsageError, "or an entry twice", write(tmp_path / "m.onnx", twice))


def test_what_only_looks_like_the_hubs_cache_is_refused(tmp_path: Path) -> None:
    """A blob that is a link, and a folder of blobs that is one, both lead out of the cache."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "H2").write_bytes(WEIGHTS.tobytes())
    file = hub(tmp_path / "one")
    blob = tmp_path / "one" / "models--a--b" / "blobs" / "H2"
    blob.unlink()
    blob.symlink_to(outside / "H2")
    refused(UsageError, "outside the folder of the model", file)
    file = hub(tmp_path / "two")
    blobs = tmp_path / "two" / "models--a--b" / "blobs"
    Path(file).unlink()
    (blobs / "H1").rename(file)  # else its own folder would be the one outside
    (blobs / "H2").unlink()
    blobs.rmdir()
    blobs.symlink_to(outside)
    refused(UsageError, "outside the folder of the model", file)


def _in_attribute(kind: str, value: Any) -> Any:
    model = model_of(tensor("w", None))
    del model.graph.initializer[:]
    attribute = onnx.AttributeProto(name="value")
    getattr(attribute, kind).extend([value]) if kind.endswith("s") else getattr(attribute, kind).CopyFrom(value)
    model.graph.node.add(op_type="Constant", output=["w"]).attribute.append(attribute)
    return model


def _sparse(part: str, value: Any) -> Any:
    sparse = onnx.SparseTensorProto(dims=[4])
    getattr(sparse, part).CopyFrom(value)
    return sparse


def _graph(value: Any) -> Any:
    return helper.make_graph([helper.make_node("Identity", ["w"], ["z"])], "branch", [], [], initializer=[value])


def _with(**fields: Any) -> Any:
    """A model with no external data but in these fields of its graph, or of its own."""
    model = model_of(tensor("w", None))
    del model.graph.initializer[:]
    for name, value in fields.items():
        getattr(model.graph if hasattr(model.graph, name) else model, name).append(value)
    return model


def _function(value: Any) -> Any:
    node = _in_attribute("t", value).graph.node[-1]
    return helper.make_function("acme", "weight", [], ["w"], [node], [helper.make_opsetid("", 17)])


PLACES: dict[str, Callable[[Any], Any]] = {
    "initializer": model_of,
    "sparse values": lambda value: _with(sparse_initializer=_sparse("values", value)),
    "sparse indices": lambda value: _with(sparse_initializer=_sparse("indices", value)),
    "attribute": lambda value: _in_attribute("t", value),
    "attributes": lambda value: _in_attribute("tensors", value),
    "sparse attribute": lambda value: _in_attribute("sparse_tensor", _sparse("values", value)),
    "sparse attributes": lambda value: _in_attribute("sparse_tensors", _sparse("indices", value)),
    "sub-graph": lambda value: _in_attribute("g", _graph(value)),
    "sub-graphs": lambda value: _in_attribute("graphs", _graph(value)),
    "sub-graph of a sub-graph": lambda value: _in_attribute("g", _in_attribute("g", _graph(value)).graph),
    "function": lambda value: _with(functions=_function(value)),
    "training": lambda value: _with(training_info=onnx.TrainingInfoProto(algorithm=_graph(value))),
}


@pytest.mark.parametrize("place", PLACES)
def test_every_place_of_a_model_is_looked_at(place: str, tmp_path: Path) -> None:
    """Its weights are found there and taken in; another file is refused there."""
    file = tmp_path / "m.onnx"
    (tmp_path / "w.bin").write_bytes(WEIGHTS.tobytes())
    model = PLACES[place](tensor("w"))
    data = find_external_data(model, file)
    assert data is not None
    assert data.files == (tmp_path / "w.bin",)
    load_external_data(model, data)
    [taken] = [each for each in tensors_of(model) if each.name == "w"]
    assert (onnx.numpy_helper.to_array(taken) == WEIGHTS).all()
    with pytest.raises(UsageError, match="a model may read no other files"):
        find_external_data(PLACES[place](tensor("w", "../w.bin")), tmp_path / "below" / "m.onnx")


@pytest.mark.parametrize(
    "command",
    [
        ("run", "--on", "onnxruntime", "--engine"),
        ("profile", "--on", "onnxruntime", "--engine"),
        ("sweep", "--on", "onnxruntime", "--contexts", "1", "--engine"),
        ("capacity", "--on", "onnxruntime", "--objective", "latency.p99 < 1s", "--engine"),
        ("build", "-o", "out.plan"),
    ],
)
def test_every_command_refuses_another_file(command: tuple[str, ...], tmp_path: Path) -> None:
    file = write(tmp_path / "model" / "m.onnx", tensor("w", f"../{_outside(tmp_path / 'model').name}"))
    done = loadtrt(*command, file, folder=tmp_path)
    assert done.returncode == 2
    assert f"{file} keeps weights in '../secret.bin', which is not a path inside" in done.stderr


@pytest.mark.anyio
async def test_weights_of_a_branch_are_read(tmp_path: Path) -> None:
    """As those of the graph around it, also through links, as it runs."""
    then = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["t"])],
        "then",
        [],
        [helper.make_tensor_value_info("t", TensorProto.FLOAT, [4])],
        initializer=[tensor("w", length=16)],
    )
    other = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["e"])],
        "else",
        [],
        [helper.make_tensor_value_info("e", TensorProto.FLOAT, [4])],
    )
    file = Path(hub(tmp_path))
    node = helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy"]
    always = onnx.numpy_helper.from_array(np.array(True), "c")
    graph = helper.make_graph([node], "test", values[:1], values[1:], initializer=[always])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    file.resolve().write_bytes(made.SerializeToString())
    assert (await answer(str(file)) == WEIGHTS).all()
