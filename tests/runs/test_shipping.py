"""Files that go with a run to the hosts of its workers."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from loadtrt.asked.config import RunConfig
from loadtrt.errors import UsageError
from loadtrt.runs.shipping import Shipment, Store

if TYPE_CHECKING:
    from collections.abc import Mapping


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder; files of a host are in a folder beside it."""
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "there"))
    return tmp_path


def arrived(shipment: Shipment, config: RunConfig, store: Store) -> dict[str, Any]:
    """The model's options on a host that has the files."""
    store.keep(shipment.groups, lambda group: read(shipment.groups[group]))
    (model,) = json.loads(store.here(shipment.configuration(config)))["models"].values()
    return dict(model)


def read(files: Mapping[str, Path | bytes]) -> dict[str, bytes]:
    return {name: data if isinstance(data, bytes) else data.read_bytes() for name, data in files.items()}


def test_files_of_all_options_arrive() -> None:
    """Each under its own name, with its content; words and names of tensors stay, and names may have commas."""
    for name in ("g.plan", "t.csv", "p,1.so", "a.npy", "b,c.npy"):
        Path(name).write_text(f"0\n{name}")
    Path("samples/deeper").mkdir(parents=True)
    Path("samples/deeper/x.npy").write_text("x")
    given = {"plugins": ["p,1.so"], "inputs": ["in:a.npy,other:b,c.npy", "samples"], "verify_against": "zoo:googlenet"}
    config = RunConfig.of(engine="g.plan", **given)
    shipment = Shipment(config)
    model = arrived(shipment, config, Store())
    assert Path(model["engine"]).name == "g.plan"
    assert Path(model["engine"]).read_text() == "0\ng.plan"
    assert [Path(file).read_text() for file in model["plugins"]] == ["0\np,1.so"]
    first, _, second = model["inputs"][0].partition(",other:")
    assert first.startswith("in:")
    assert (Path(first[3:]).read_text(), Path(second).read_text()) == ("0\na.npy", "0\nb,c.npy")
    assert (Path(model["inputs"][1]) / "deeper" / "x.npy").read_text() == "x"
    assert model["verify_against"] == "zoo:googlenet"


def test_weights_of_a_model_arrive_beside_it(folder: Path) -> None:
    weight = numpy_helper.from_array(np.arange(600, dtype=np.float32), "w")
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [600])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [600])]
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", inputs, outputs, [weight])
    model = helper.make_model(graph)
    onnx.save(model, "m.onnx", save_as_external_data=True, location="m.bin", size_threshold=0)
    config = RunConfig.of(engine="m.onnx")
    there = arrived(Shipment(config), config, Store())["engine"]
    assert Path(there).parent.parent.parent == folder / "there"
    read_there = numpy_helper.to_array(onnx.load(there).graph.initializer[0])
    assert read_there.tolist() == list(range(600))


def test_files_are_named_by_content() -> None:
    """The same ones once, whatever run they are of; others apart."""
    groups = []
    for content in ("a", "a", "b"):
        Path("g.plan").write_text(content)
        groups.append(set(Shipment(RunConfig.of(engine="g.plan")).groups))
    assert groups[0] == groups[1] != groups[2]


def test_a_host_keeps_files_once_while_they_are_used(folder: Path) -> None:
    """The second worker fetches nothing; the last one deletes."""
    Path("g.plan").write_text("plan")
    config = RunConfig.of(engine="g.plan")
    shipment, first, second = Shipment(config), Store(), Store()
    file = Path(arrived(shipment, config, first)["engine"])
    second.keep(shipment.groups, lambda _: pytest.fail("it is here"))
    first.close()
    assert file.read_text() == "plan"
    second.close()
    assert not file.exists()
    assert list((folder / "there").glob("*/*")) == []


def test_what_is_not_there_is_left_to_the_worker() -> None:
    config = RunConfig.of(engine="none.plan")
    shipment = Shipment(config)
    assert shipment.groups == {}
    assert '"none.plan"' in shipment.configuration(config)


def test_a_file_that_cannot_be_read_is_one_sentence() -> None:
    with pytest.raises(UsageError, match=r"cannot read /proc/self/mem: Input/output error"):
        Shipment(RunConfig.of(engine="/proc/self/mem"))
