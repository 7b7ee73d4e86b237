"""GoogLeNet is GoogLeNet: against the paper's table, the prototxt's names and a second implementation."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx.checker
import onnx.shape_inference
import pytest
from click.testing import CliRunner
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from loadtrt import zoo
from loadtrt.cli.zoo import command
from loadtrt.environment import import_onnxruntime
from loadtrt.errors import UsageError
from loadtrt.zoo import googlenet

# Szegedy et al. 2014, table 1: input channels, #1x1, #3x3 reduce, #3x3, #5x5 reduce, #5x5, pool proj.
PAPER = {
    "3a": (192, 64, 96, 128, 16, 32, 32),
    "3b": (256, 128, 128, 192, 32, 96, 64),
    "4a": (480, 192, 96, 208, 16, 48, 64),
    "4b": (512, 160, 112, 224, 24, 64, 64),
    "4c": (512, 128, 128, 256, 24, 64, 64),
    "4d": (512, 112, 144, 288, 32, 64, 64),
    "4e": (528, 256, 160, 320, 32, 128, 128),
    "5a": (832, 256, 160, 320, 32, 128, 128),
    "5b": (832, 384, 192, 384, 48, 128, 128),
}
BRANCHES = ("1x1", "3x3_reduce", "3x3", "5x5_reduce", "5x5", "pool_proj")


@cache
def _model(batch: int | None = 1) -> onnx.ModelProto:
    return googlenet(batch)


@cache
def _shapes() -> dict[str, tuple[int, ...]]:
    inferred = onnx.shape_inference.infer_shapes(_model(), strict_mode=True).graph
    values = [*inferred.value_info, *inferred.output]
    return {value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim) for value in values}


def _run(model: onnx.ModelProto, data: Any) -> Any:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"data": data})[0]


def _images(count: int) -> Any:
    return np.random.default_rng(5).uniform(-1, 1, (count, 3, 224, 224)).astype(np.float32)


@pytest.mark.parametrize("batch", [None, 1, 16])
def test_the_model_is_valid(batch: int | None) -> None:
    """onnx's full check (types, shapes) accepts it, and TensorRT 8.6's limits hold: opset <= 17, IR version <= 8."""
    model = googlenet(batch)
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version <= 17
    assert model.ir_version <= 8


@pytest.mark.parametrize(("batch", "first"), [(None, ("batch", 0)), (1, ("", 1)), (16, ("", 16))])
def test_batch_is_the_first_dimension(batch: int | None, first: tuple[str, int]) -> None:
    """data [batch, 3, 224, 224] -> prob [batch, 1000], by name where it is dynamic."""
    graph = _model(batch).graph
    for value, name, rest in ((graph.input[0], "data", [3, 224, 224]), (graph.output[0], "prob", [1000])):
        dims = value.type.tensor_type.shape.dim
        assert value.name == name
        assert (dims[0].dim_param, dims[0].dim_value) == first
        assert [dim.dim_value for dim in dims[1:]] == rest
    assert len(graph.input) == len(graph.output) == 1


def test_parameters_are_the_paper_s() -> None:
    """6.99 M parameters: the paper's widths multiplied out, filter by filter, with one bias each."""

    def conv(channels: int, filters: int, kernel: int) -> int:
        return channels * filters * kernel**2 + filters

    expected = conv(3, 64, 7) + conv(64, 64, 1) + conv(64, 192, 3) + conv(1024, 1000, 1)
    for channels, one, reduce3, three, reduce5, five, projected in PAPER.values():
        expected += conv(channels, one, 1) + conv(channels, reduce3, 1) + conv(reduce3, three, 3)
        expected += conv(channels, reduce5, 1) + conv(reduce5, five, 5) + conv(channels, projected, 1)
    counted = sum(int(np.prod(weight.dims)) for weight in _model().graph.initializer)
    assert counted == expected == 6_998_552


def test_layers_are_named_as_in_the_prototxt() -> None:
    """Every layer of deploy.prototxt but data and dropout is a node of that name; the only other one flattens."""
    ends = ["conv1/7x7_s2", "conv1/relu_7x7", "pool1/3x3_s2", "pool1/norm1"]
    ends += ["conv2/3x3_reduce", "conv2/relu_3x3_reduce", "conv2/3x3", "conv2/relu_3x3", "conv2/norm2", "pool2/3x3_s2"]
    ends += ["pool3/3x3_s2", "pool4/3x3_s2", "pool5/7x7_s1", "loss3/classifier", "prob"]
    blocks = [
        f"inception_{block}/{name}" for block in PAPER for branch in BRANCHES for name in (branch, f"relu_{branch}")
    ]
    blocks += [f"inception_{block}/{name}" for block in PAPER for name in ("pool", "output")]
    assert {node.name for node in _model().graph.node} == {*ends, *blocks, "pool5/flatten"}
    assert all(list(node.output) == [node.name] for node in _model().graph.node)


def test_sizes_are_caffe_s() -> None:
    """Caffe rounds pooled sizes up: 112, 56, 28, 14, 7, where rounding down would give 55, 27, 13, 6."""
    sizes = {"conv1/7x7_s2": (64, 112), "pool1/3x3_s2": (64, 56), "pool2/3x3_s2": (192, 28), "pool3/3x3_s2": (480, 14)}
    sizes |= {"pool4/3x3_s2": (832, 7), "inception_5b/output": (1024, 7), "pool5/7x7_s1": (1024, 1)}
    for name, (channels, size) in sizes.items():
        assert _shapes()[name] == (1, channels, size, size), name
    for block, (channels, *_) in PAPER.items():
        assert _shapes()[f"inception_{block}/pool"][1] == channels


def test_norms_are_as_in_the_prototxt() -> None:
    """LRN over 5 channels with alpha 1e-4, beta 0.75 and Caffe's k = 1, after pool1 and conv2."""
    norms = [node for node in _model().graph.node if node.op_type == "LRN"]
    assert [node.name for node in norms] == ["pool1/norm1", "conv2/norm2"]
    for node in norms:
        settings = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        assert settings == pytest.approx({"size": 5, "alpha": 1e-4, "beta": 0.75, "bias": 1.0})


def test_same_seed_same_bytes() -> None:
    """The model is a function of batch and seed."""
    assert googlenet(1, 3).SerializeToString() == googlenet(1, 3).SerializeToString()
    assert googlenet(1, 3).SerializeToString() != googlenet(1, 4).SerializeToString()


def test_outputs_are_distributions_that_depend_on_the_input() -> None:
    """Rows are probabilities; activations neither vanish (all 1/1000) nor explode (one class takes all), and different
    images give different answers."""
    rows = _run(_model(None), _images(3))
    assert rows.shape == (3, 1000)
    assert (rows >= 0).all()
    assert rows.sum(axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    assert rows.max() < 0.5
    assert rows.std() > 1e-4
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(rows[one] / rows[other] - 1).max() > 0.01


class LRN(OpRun):
    """onnx 1.23's own loops over the batch where it should over the channels, and leaves most of them as they are."""

    op_domain = ""

    def _run(self, x: Any, alpha: float, beta: float, bias: float, size: int) -> tuple[Any]:
        before, after = (size - 1) // 2, size // 2
        padded = np.pad(x**2, ((0, 0), (before, after), (0, 0), (0, 0)))
        sums = sum(padded[:, k : k + x.shape[1]] for k in range(size))
        return ((x / (bias + alpha / size * sums) ** beta).astype(x.dtype),)


def test_two_implementations_agree() -> None:
    """ONNX Runtime and onnx's reference (numpy) compute the same, up to rounding, as far as the first inception."""
    model = onnx.ModelProto()
    model.CopyFrom(_model())
    last = [node.name for node in model.graph.node].index("inception_3a/output")
    del model.graph.node[last + 1 :], model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info("inception_3a/output", onnx.TensorProto.FLOAT, None))
    data = _images(1)
    results: Any = ReferenceEvaluator(model, new_ops=[LRN]).run(None, {"data": data})
    reference = results[0]
    assert np.abs(_run(model, data) - reference).max() < 1e-5 * np.abs(reference).max()


def test_an_unknown_model_names_the_nearest() -> None:
    """UsageError with what was meant, or with what there is."""
    with pytest.raises(UsageError, match="no model 'GoogleNet': did you mean 'googlenet'"):
        zoo.make("GoogleNet", 1, 0)
    with pytest.raises(UsageError, match="no model 'bert': it has googlenet"):
        zoo.make("bert", 1, 0)


def test_the_command_writes_the_model_and_says_what(tmp_path: Any) -> None:
    """`loadtrt zoo NAME -o FILE` writes exactly the model's bytes and prints file, size, parameters, tensors."""
    file = tmp_path / "g.onnx"
    result = CliRunner().invoke(command, ["googlenet", "-o", str(file), "--batch", "16"], catch_exceptions=False)
    assert result.exit_code == 0
    assert file.read_bytes() == googlenet(16).SerializeToString()
    for part in (str(file), "26.7 MiB", "6 998 552 parameters", "data fp32[16,3,224,224]", "prob fp32[16,1000]"):
        assert part in result.output


@pytest.mark.parametrize("where", ["nowhere/g.onnx", "."])
def test_the_command_refuses_what_it_cannot_write(tmp_path: Any, where: str) -> None:
    """A missing folder, a folder in place of a file: UsageError with the reason, before anything is written."""
    with pytest.raises(UsageError, match=r"there is no folder|is a folder"):
        CliRunner().invoke(command, ["googlenet", "-o", str(tmp_path / where)], catch_exceptions=False)
    with pytest.raises(UsageError, match="did you mean 'googlenet'"):
        CliRunner().invoke(command, ["googlnet"], catch_exceptions=False)
