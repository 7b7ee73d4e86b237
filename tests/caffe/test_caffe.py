"""Caffe networks converted to ONNX compute what Caffe computes: against OpenCV's own Caffe reader, and, where that
deviates from Caffe, against Caffe's rule in numpy."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

import caffe_nets
from caffe_files import arrays, compare, error, inputs_of, run_onnx, run_opencv, write
from caffe_nets import LAYERS, SHAPE, conv, dense, layer, net, pool
from loadtrt.caffe import convert
from loadtrt.zoo import googlenet

if TYPE_CHECKING:
    from pathlib import Path

TOLERANCE = 1e-4


def _convert(folder: Path, text: str, outputs: Any = (), seed: int = 0) -> onnx.ModelProto:
    return convert(write(folder, text, {})[0], None, outputs, seed)


def _learned(model: onnx.ModelProto) -> dict[str, list[Any]]:
    """Blobs by layer, as Caffe keeps them; layers are called bn_ and scale_ where the constants do not tell."""
    blobs: dict[str, list[Any]] = {}
    for tensor in model.graph.initializer:
        name, _, word = tensor.name.rpartition(".")
        values = onnx.numpy_helper.to_array(tensor)
        if word in ("weight", "bias", "mean", "variance") or (word == "scale" and name.startswith("scale_")):
            blobs.setdefault(name, []).append(values.reshape(-1) if name.startswith("scale_") else values)
    for name, blob in blobs.items():
        if name.startswith("bn_"):
            blob.append(np.ones(1))
    return blobs


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_computes_what_opencv_computes(tmp_path: Path, name: str) -> None:
    """max |ours − OpenCV's| < 1e-4 max |OpenCV's|, for each layer type alone; the model passes onnx's full check."""
    text, blobs = LAYERS[name]
    assert compare(tmp_path, text, blobs) < TOLERANCE


@pytest.mark.parametrize("name", ["ALEXNET", "RESNET", "SQUEEZENET", "FCN"])
def test_a_network_computes_what_opencv_computes(tmp_path: Path, name: str) -> None:
    """As for single layers, with in-place ReLU, BatchNorm, Scale and Dropout, several branches, and crops."""
    text = getattr(caffe_nets, name)
    blobs = _learned(_convert(tmp_path, text, seed=3))
    assert compare(tmp_path, text, blobs) < TOLERANCE


def test_the_old_format_computes_what_opencv_computes(tmp_path: Path) -> None:
    """V1 `layers` with enum types, input_dim, and four-dimensional blobs."""
    blobs = _learned(_convert(tmp_path, caffe_nets.V1))
    assert compare(tmp_path, caffe_nets.V1, blobs, v1=True) < TOLERANCE


def test_only_the_layers_of_phase_test_run(tmp_path: Path) -> None:
    """Caffe's rule: any `include` that holds, or else no `exclude` that does, for phase TEST, level 0, no stages; in
    both formats. (OpenCV runs them all.)"""
    rules = {"plain": "", "test": "include { phase: TEST }", "low": "include { max_level: 3 }"}
    rules |= {"either": "include { phase: TRAIN } include { min_level: 0 }", "kept": "exclude { stage: 'deploy' }"}
    rules |= {"train": "include { phase: TRAIN }", "high": "include { min_level: 1 }"}
    rules |= {"stage": "include { stage: 'deploy' }", "no": "exclude { phase: TEST not_stage: 'deploy' }"}
    expected = ["plain", "test", "low", "either", "kept"]
    text = net("".join(layer("TanH", name, params=rule) for name, rule in rules.items()))
    for version in (text, text.replace("layer {", "layers {").replace('"TanH"', "TANH")):
        assert [node.name for node in _convert(tmp_path, version).graph.node] == expected


def test_googlenet_is_the_zoo_s(tmp_path: Path) -> None:
    """BVLC's GoogLeNet with the zoo's weights: the zoo's answer and OpenCV's, the zoo's nodes by name (but pool5 is
    flattened under another), and Caffe's sizes 56, 28, 14, 7."""
    zoo = googlenet(1)
    deploy, weights = write(tmp_path, caffe_nets.googlenet(), _learned(zoo))
    model = convert(deploy, weights)
    feeds = inputs_of(model)
    ours = run_onnx(model, feeds)[0]
    assert error(ours, run_onnx(zoo, feeds)[0]) < TOLERANCE
    assert error(ours, run_opencv(deploy, weights, feeds, ["prob"])[0]) < TOLERANCE
    flattened = {"pool5/flatten", "loss3/classifier:flatten"}
    assert {node.name for node in model.graph.node} ^ {node.name for node in zoo.graph.node} == flattened
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph.value_info
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in inferred}
    pools = ["pool1/3x3_s2", "pool2/3x3_s2", "pool3/3x3_s2", "pool4/3x3_s2", "pool5/7x7_s1"]
    assert [shapes[name][2:] for name in pools] == [[size] * 2 for size in (56, 28, 14, 7, 1)]


def _caffe_pool(x: Any, method: str, kernel: Any, stride: Any, pad: Any) -> Any:
    """Caffe's pooling, as its loops have it: windows first clipped to the padded image (which is what AVE divides by),
    then to the image."""
    counts = []
    for size, k, s, p in zip(x.shape[2:], kernel, stride, pad, strict=True):
        count = int(np.ceil((size + 2 * p - k) / s)) + 1
        counts.append(count - 1 if any(pad) and (count - 1) * s >= size + p else count)
    y = np.zeros((*x.shape[:2], *counts), np.float32)
    for place in np.ndindex(*counts):
        cut, divisor = [], 1
        for at, size, k, s, p in zip(place, x.shape[2:], kernel, stride, pad, strict=True):
            start, end = at * s - p, min(at * s - p + k, size + p)
            divisor *= end - start
            cut.append(slice(max(start, 0), min(end, size)))
        window = x[:, :, cut[0], cut[1]]
        y[:, :, *place] = window.max((2, 3)) if method == "MAX" else window.sum((2, 3)) / divisor
    return y


@pytest.mark.parametrize("method", ["MAX", "AVE"])
def test_pooling_follows_caffe_s_rule(tmp_path: Path, method: str) -> None:
    """Every kernel to 4, stride to the kernel, padding below the kernel, on 7 by 8 pixels; height and width apart too,
    where OpenCV reads pad_h without pad_w as no padding at all."""
    windows = [((k, k), (s, s), (p, p)) for k in range(1, 5) for s in range(1, k + 1) for p in range(k)]
    windows += [((3, 2), (2, 2), (1, 0)), ((2, 3), (2, 3), (0, 2)), ((4, 1), (3, 1), (2, 0)), ((3, 4), (1, 3), (0, 1))]
    words = ("kernel_h: {} kernel_w: {}", "stride_h: {} stride_w: {}", "pad_h: {} pad_w: {}")
    layers = [
        pool(f"p{index}", "data", f"pool: {method} " + " ".join(map(str.format, words, *zip(*window, strict=True))))
        for index, window in enumerate(windows)
    ]
    model = _convert(tmp_path, net("".join(layers), 1, 2, 7, 8))
    feeds = inputs_of(model)
    for window, ours in zip(windows, run_onnx(model, feeds), strict=True):
        assert error(ours, _caffe_pool(feeds["data"], method, *window)) < TOLERANCE, window


def test_round_mode_floor(tmp_path: Path) -> None:
    """round_mode: FLOOR (BVLC, 2018) drops the last window where it hangs over: 13, 11 → 6, 5, not 7, 6."""
    window = "kernel_size: 2 stride: 2"
    sizes = []
    for mode in ("CEIL", "FLOOR"):
        model = _convert(tmp_path, net(pool("out", "data", f"{window} round_mode: {mode}")))
        sizes.append(run_onnx(model, inputs_of(model))[0].shape[2:])
    assert sizes == [(7, 6), (6, 5)]


def test_a_dilated_deconvolution_spreads_its_kernel(tmp_path: Path) -> None:
    """Each input adds its kernel, taps `dilation` apart, to the output. (OpenCV's Deconvolution ignores dilation.)"""
    weights = arrays((6, 4, 3, 3))
    text = net(conv("out", "data", 4, 3, "stride: 2 dilation: 2 bias_term: false", "Deconvolution", inplace=False))
    model = convert(*write(tmp_path, text, {"out": weights}))
    feeds = inputs_of(model)
    expected = np.zeros((2, 4, 2 * 12 + 5, 2 * 10 + 5))
    for i, j in product(range(3), range(3)):
        taps = np.einsum("nchw,co->nohw", feeds["data"], weights[0][:, :, i, j])
        expected[:, :, 2 * i : 2 * i + 25 : 2, 2 * j : 2 * j + 21 : 2] += taps
    assert error(run_onnx(model, feeds)[0], expected) < TOLERANCE


def test_a_transposed_inner_product(tmp_path: Path) -> None:
    """transpose: the weight is [K, outputs] and y = x W + b. (OpenCV reads it as [outputs, K] all the same.)"""
    weight, bias = arrays((6 * 13 * 11, 5), (5,))
    text = net(layer("InnerProduct", params="inner_product_param { num_output: 5 transpose: true }"))
    model = convert(*write(tmp_path, text, {"out": [weight, bias]}))
    feeds = inputs_of(model)
    assert error(run_onnx(model, feeds)[0], feeds["data"].reshape(2, -1) @ weight + bias) < TOLERANCE


def test_lrn_s_own_numbers(tmp_path: Path) -> None:
    """x / (k + alpha / n sum of squares)^beta, by default with k 1, alpha 1, beta 0.75. (OpenCV ignores k, and its
    answer without alpha is not that with alpha 1.)"""
    for params, k, alpha, beta in (("alpha: 0.3 beta: 0.5 k: 2", 2, 0.3, 0.5), ("", 1, 1, 0.75)):
        model = _convert(tmp_path, net(layer("LRN", params=f"lrn_param {{ local_size: 3 {params} }}")))
        x = inputs_of(model)["data"]
        padded = np.pad(x**2, ((0, 0), (1, 1), (0, 0), (0, 0)))
        sums = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
        assert error(run_onnx(model, {"data": x})[0], x / (k + alpha / 3 * sums) ** beta) < TOLERANCE


def test_reshape_inserts_dimensions(tmp_path: Path) -> None:
    """num_axes: 0 inserts the shape before `axis`, −1 being behind the last. (OpenCV refuses axis −1.)"""
    for axis, shape in ((1, (2, 1, 6, 13, 11)), (-1, (2, 6, 13, 11, 1)), (-3, (2, 6, 1, 13, 11))):
        params = f"reshape_param {{ shape {{ dim: 1 }} axis: {axis} num_axes: 0 }}"
        model = _convert(tmp_path, net(layer("Reshape", params=params)))
        assert run_onnx(model, inputs_of(model))[0].shape == shape


def test_the_axis_by_its_old_name(tmp_path: Path) -> None:
    """concat_dim and slice_dim, which axis replaced."""
    parts = layer("Slice", "s", tops="a b", params="slice_param { slice_dim: 2 slice_point: 4 }")
    model = _convert(tmp_path, net(parts + layer("Concat", bottoms="b a", params="concat_param { concat_dim: 2 }")))
    x = inputs_of(model)["data"]
    assert (run_onnx(model, {"data": x})[0] == np.roll(x, -4, axis=2)).all()


def test_a_scale_by_a_blob_learns_its_bias_alone(tmp_path: Path) -> None:
    """y = x s + b, s a second bottom laid on axes 0 and 1, b the layer's only blob. (BVLC's blob numbers move so.)"""
    pooled = pool("p", "data", "pool: AVE global_pooling: true") + layer("Flatten", "s", "p")
    text = net(pooled + layer("Scale", bottoms="data s", params="scale_param { axis: 0 bias_term: true }"))
    bias = arrays((2, 6))[0]
    model = convert(*write(tmp_path, text, {"out": [bias]}))
    x = inputs_of(model)["data"]
    expected = x * x.mean((2, 3), keepdims=True) + bias[:, :, None, None]
    assert error(run_onnx(model, {"data": x})[0], expected) < TOLERANCE


def test_inputs_are_caffe_s(tmp_path: Path) -> None:
    """Input layers, with one shape for all tops or one each, give inputs by their tops' names with the file's batch."""
    shapes = "input_param { shape { dim: 4 dim: 3 } shape { dim: 4 dim: 5 } }"
    text = 'layer { name: "in" type: "Input" top: "a" top: "b" ' + shapes + " }\n"
    model = _convert(tmp_path, text + layer("Concat", bottoms="a b"))
    values = [*model.graph.input, *model.graph.output]
    sizes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values}
    assert sizes == {"a": [4, 3], "b": [4, 5], "out": [4, 8]}
    assert (model.opset_import[0].version, model.ir_version) == (13, 7)


def test_tensors_have_the_names_of_their_blobs(tmp_path: Path) -> None:
    """The last layer that writes a blob gives the tensor its name; nodes have their layers' names."""
    text = net(conv("conv1", "data", 4, 3) + layer("Dropout", "drop", "conv1", "conv1") + layer("TanH", "t", "conv1"))
    model = _convert(tmp_path, text)
    wired = [(node.name, node.input[0], node.output[0]) for node in model.graph.node]
    assert wired == [("conv1", "data", "conv1:top0"), ("relu_conv1", "conv1:top0", "conv1"), ("t", "conv1", "t")]


def test_an_input_written_in_place_stays_an_input(tmp_path: Path) -> None:
    """The input keeps the blob's name; whoever reads the blob further down reads what was written."""
    model = _convert(tmp_path, net(layer("Power", "p", "data", "data", "power_param { shift: 1 }") + layer("ReLU")))
    x = inputs_of(model)["data"]
    assert (run_onnx(model, {"data": x})[0] == np.maximum(x + 1, 0)).all()


def test_outputs_are_what_is_asked_for_or_what_nothing_reads(tmp_path: Path) -> None:
    """Without a choice every blob that no layer reads; with one exactly that, and nothing it does not need."""
    text = net(dense("a", "data", 3) + layer("TanH", "b", "a") + dense("c", "data", 2) + layer("Dropout", "d", "c"))
    assert [value.name for value in _convert(tmp_path, text).graph.output] == ["b", "d"]
    model = _convert(tmp_path, text, ["a"])
    assert [value.name for value in model.graph.output] == ["a"]
    assert [node.name for node in model.graph.node] == ["a:flatten", "a"]
    assert {tensor.name for tensor in model.graph.initializer} == {"a.weight", "a.bias"}


def test_random_weights_keep_the_activations(tmp_path: Path) -> None:
    """Same seed, same bytes; other seed, others. He's law: through ReLUs the mean square stays between 1/4 and 4."""
    layers = "".join(conv(f"c{n}", f"c{n - 1}" if n else "data", 32, 3, "pad: 1") for n in range(6))
    text = net(layers, 1, 32, 16, 16)
    model = _convert(tmp_path, text)
    assert model.SerializeToString() == _convert(tmp_path, text).SerializeToString()
    assert model.SerializeToString() != _convert(tmp_path, text, seed=1).SerializeToString()
    assert 0.125 < (run_onnx(model, inputs_of(model))[0] ** 2).mean() < 2


def test_the_batch_can_change_after_conversion(tmp_path: Path) -> None:
    """No node holds the batch: with the input's first size rewritten the same model runs 5 rows as it ran 2."""
    params = "reshape_param { shape { dim: 2 dim: -1 } }"
    text = net(pool("p", "data", "kernel_size: 2") + dense("f", "p", 6) + layer("Reshape", bottoms="f", params=params))
    model = _convert(tmp_path, text)
    before = run_onnx(model, {"data": np.ones(SHAPE, np.float32)})[0]
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 5
    after = run_onnx(model, {"data": np.ones((5, *SHAPE[1:]), np.float32)})[0]
    assert after.shape == (5, 6)
    assert error(after[:2], before) < TOLERANCE
