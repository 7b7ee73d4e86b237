"""--verify on a model whose outputs change from one quiet request to the next: told, and no fault of the load."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx
import pytest
from onnx import TensorProto, helper

from command_line import loadtrt

if TYPE_CHECKING:
    from pathlib import Path

# Nodes that draw from x or from nothing, and the shape and type of what they draw.
RANDOM: dict[str, tuple[list[str], list[int], int, dict[str, Any]]] = {
    "RandomNormal": ([], [2, 4], TensorProto.FLOAT, {"shape": [2, 4]}),
    "RandomUniform": ([], [2, 4], TensorProto.FLOAT, {"shape": [2, 4]}),
    "RandomNormalLike": (["x"], [2, 4], TensorProto.FLOAT, {}),
    "RandomUniformLike": (["x"], [2, 4], TensorProto.FLOAT, {}),
    "Bernoulli": (["probability"], [2, 4], TensorProto.FLOAT, {}),
    "Multinomial": (["x"], [2, 64], TensorProto.INT32, {"sample_size": 64}),
}


def _model(folder: Path, operator: str) -> Path:
    inputs, shape, kind, attributes = RANDOM[operator]
    nodes = [
        helper.make_node("Sigmoid", ["x"], ["probability"]),
        helper.make_node(operator, inputs, ["drawn"], **attributes),
    ]
    graph = helper.make_graph(
        nodes,
        "random",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4])],
        [helper.make_tensor_value_info("drawn", kind, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    file = folder / "random.onnx"
    onnx.save(model, file)
    return file


@pytest.mark.parametrize("operator", RANDOM)
def test_a_model_that_draws_random_numbers_is_told_by_its_quiet_requests(operator: str, tmp_path: Path) -> None:
    """Nothing is said of requests that overwrite each other, and no outputs under load are counted."""
    done = loadtrt("run", "--engine", _model(tmp_path, operator), "--requests", "20", "--warmup", "0", "--verify")
    said = " ".join(done.stdout.split())
    assert done.returncode == 97
    assert "outputs cannot be verified: 'drawn' differs between two quiet requests with the same inputs" in said
    assert "the model draws random numbers" in said
    assert "overwrite" not in said
    assert "verify: two quiet requests differ" in said


def test_the_search_for_capacity_says_so_too() -> None:
    """As `capacity --verify` ends where outputs are wrong under load."""
    from loadtrt.results.engine_info import Verification

    agreeing = Verification(80, 0, 0.0, 4, None)
    assert agreeing.fault_of(4) is None
    random = Verification(0, 0, 0.0, 4, None, unrepeatable="drawn")
    fault = random.fault_of(4)
    assert fault is not None
    assert "two quiet requests" in fault[0]
    racing = Verification(80, 3, None, 4, "lane 1")
    fault = racing.fault_of(4)
    assert fault is not None
    assert "requests overwrite each other" in fault[1]
    fault = racing.fault_of(1)
    assert fault is not None
    assert "--" not in fault[1]
