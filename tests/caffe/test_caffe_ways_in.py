"""What Caffe leaves to its user, or forks say in other words: sizes, outputs, rounding, old formats, names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

import caffe_nets
from caffe_files import arrays, error, inputs_of, run_onnx, run_opencv, write
from caffe_nets import conv, dense, layer, net, pool
from loadtrt.caffe import convert, placeholder_notes
from loadtrt.caffe.caffe_proto import NetParameter
from loadtrt.caffe.supported import LAYERS
from loadtrt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

TOLERANCE = 1e-5


def _sizes(values: Any) -> dict[str, list[int]]:
    return {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values}


def _refusal(
    file: Path, outputs: Any = (), shapes: Mapping[str, Any] | None = None, weights: Path | None = None
) -> str:
    with pytest.raises(UsageError) as caught:
        convert(file, weights, outputs, 0, shapes)
    message = str(caught.value).replace(str(file), "FILE")
    assert "\n" not in message
    assert len(message) < 300
    return message


@pytest.mark.parametrize("method", ["MAX", "AVE"])
@pytest.mark.parametrize(
    "window", ["kernel_size: 3 stride: 2", "kernel_size: 3 stride: 2 pad: 1", "kernel_size: 2 stride: 2"]
)
def test_ceil_mode_false_rounds_down(tmp_path: Path, method: str, window: str) -> None:
    """The forks' ceil_mode: false is round_mode: FLOOR, number by number, which OpenCV computes; true, and neither, are
    CEIL."""
    answers = {}
    for word in ("ceil_mode: false", "round_mode: FLOOR", "ceil_mode: true", ""):
        text = net(pool("out", "data", f"pool: {method} {window} {word}"), 2, 3, 13, 16)
        deploy, _ = write(tmp_path, text, {})
        model = convert(deploy, None)
        feeds = inputs_of(model)
        answers[word] = run_onnx(model, feeds)[0]
        if word == "ceil_mode: false":
            assert error(answers[word], run_opencv(deploy, None, feeds, ["out"])[0]) < TOLERANCE
    assert (answers["ceil_mode: false"] == answers["round_mode: FLOOR"]).all()
    assert (answers["ceil_mode: true"] == answers[""]).all()
    assert answers[""].shape != answers["round_mode: FLOOR"].shape


def test_ceil_mode_and_round_mode_agree_or_are_refused(tmp_path: Path) -> None:
    """Both may be said; where they contradict each other, neither is taken."""
    window = "kernel_size: 2 stride: 2"
    agreed = write(tmp_path, net(pool("out", "data", f"{window} ceil_mode: false round_mode: FLOOR")), {})[0]
    assert _sizes(convert(agreed, None).graph.output) == {"out": [2, 6, 6, 5]}
    other = write(tmp_path, net(pool("out", "data", f"{window} ceil_mode: true round_mode: FLOOR")), {})[0]
    assert "a round_mode and a ceil_mode that contradict each other" in _refusal(other)


def test_docs_name_every_layer() -> None:
    """The table of docs/caffe.md has all types that are converted."""
    text = (Path(__file__).parents[2] / "docs" / "caffe.md").read_text()
    named = set(re.findall(r"\w+", text[text.index("## Layers") : text.index("## Outputs")]))
    assert set(LAYERS) <= named


def test_the_pool_of_yolov3_tiny_keeps_its_size(tmp_path: Path) -> None:
    """darknet2caffe's Caffe pools 2x2 with stride 1 to the input's size, the last windows cut by the image; so it is
    with --output too, and only in that converter's networks."""
    params = "pooling_param { stride: 1 pool: MAX kernel_size: 2 pad: 0 }"
    up = layer("Upsample", "layer9-upsample", "layer8-maxpool", params="upsample_param { scale: 2 }")
    pooled = layer("Pooling", "layer8-maxpool", params=params)
    model = convert(write(tmp_path, net(pooled + up), {})[0], None, ["layer8-maxpool"])
    x = inputs_of(model)["data"]
    edge = np.pad(x, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=-np.inf)
    expected = np.maximum.reduce([edge[:, :, i : i + 13, j : j + 11] for i in (0, 1) for j in (0, 1)])
    assert (run_onnx(model, {"data": x})[0] == expected).all()
    for other in (pooled, pooled.replace("layer8-maxpool", "p") + up.replace("layer8-maxpool", "p")):
        sizes = _sizes(convert(write(tmp_path, net(other), {})[0], None).graph.output)
        assert next(iter(sizes.values()))[2] in (12, 24)


_OTHERS = [
    *("ROIPooling", "PSROIPooling", "Pooling3D", "Convolution3D", "CReLU", "HSigmoid", "CELU", "BatchReNorm"),
    *("ScaleInvariant", "DeformableConvolution", "SpatialDropout", "Softmin", "NormalizeBBox", "Splice"),
]


@pytest.mark.parametrize("kind", _OTHERS)
def test_no_hint_names_another_layer(tmp_path: Path, kind: str) -> None:
    """A name that Caffe or a fork may have is not supported, and no guess."""
    message = _refusal(write(tmp_path, net(layer(kind)), {})[0])
    assert f"({kind}) is of a type that is not supported: build this network from ONNX" in message
    assert "did you mean" not in message


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        ("Pooling", "pooling_param { kernel_size: 2 kernel_d: 2 }"),
        ("Pooling", "pooling_param { kernel_size: 2 pad_t: 1 }"),
        ("Reduction", "reduction_param { axes: 1 axes: 2 }"),
        ("Convolution", "convolution_param { num_output: 1 kernel_size: 1 relu: true }"),
        ("Scale", "scale_param { bias: true }"),
        ("Interp", "interp_param { use_blob_size: true }"),
    ],
)
def test_a_field_that_may_change_the_answer_is_never_removed_on_our_word(tmp_path: Path, kind: str, field: str) -> None:
    """No field is guessed, and to remove it is left to whoever knows that the answer does not depend on it."""
    message = _refusal(write(tmp_path, net(layer(kind, params=field)), {})[0])
    assert "is not a field of Caffe's" in message
    assert "build this network from ONNX, or remove the field if the answer does not depend on it" in message


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("Convolutoin", "Convolution"), ("convolution", "Convolution"), ("Relu", "ReLU"), ("Poling", "Pooling")],
)
def test_a_name_typed_wrongly_is_guessed(tmp_path: Path, typed: str, meant: str) -> None:
    """One letter wrong, or other capitals."""
    assert f"did you mean '{meant}'?" in _refusal(write(tmp_path, net(layer(typed)), {})[0])


def test_fields_of_elu_and_permute_are_caffe_s_own(tmp_path: Path) -> None:
    """elu_param is not relu_param; a fork's field of a layer is skipped, as its layer would be refused."""
    params = "elu_param { alpha: 1 } prior_box_param { min_size: 1 } crelu_param { }"
    assert convert(write(tmp_path, net(layer("ELU", params=params)), {})[0], None)


def test_harmless_fields_are_skipped(tmp_path: Path) -> None:
    """Those that choose an implementation, or that training reads."""
    more = "engine: CUDNN cudnn_convolution_algo_seeker: FINDEX weight_filler { type: 'msra' variance_norm: FAN_OUT }"
    assert convert(write(tmp_path, net(conv("c", "data", 4, 3, more)), {})[0], None)


def test_another_depthwise_group_is_refused(tmp_path: Path) -> None:
    """group: 2 of 6 channels is not depthwise."""
    params = "convolution_param { num_output: 6 kernel_size: 3 group: 2 }"
    message = _refusal(write(tmp_path, net(layer("DepthwiseConvolution", params=params)), {})[0])
    assert "has group: 2, where it is for each of 6 channels alone" in message


TAIL = (
    conv("features", "data", 4, 3, "pad: 1")
    + conv("boxes", "features", 4, 1, inplace=False)
    + conv("scores", "features", 2, 1, inplace=False)
    + layer("PriorBox", "prior", "features data", params="prior_box_param { min_size: 60 }")
    + layer("DetectionOutput", "found", "boxes scores prior", params="detection_output_param { num_classes: 2 }")
    + layer("Relu", "typo", "found", params="relu_param { leak: 1 }")
    + layer("ReLU", "typo", "found", "y")
)  # fmt: skip


def test_only_what_the_outputs_need_is_judged(tmp_path: Path) -> None:
    """Types, fields and names behind the outputs are not looked at; the numbers are OpenCV's of the network without."""
    blobs = {name: arrays((outputs, inputs, size, size), (outputs,)) for name, outputs, inputs, size in
             (("features", 4, 6, 3), ("boxes", 4, 4, 1), ("scores", 2, 4, 1))}  # fmt: skip
    deploy, weights = write(tmp_path, net(TAIL), blobs)
    model = convert(deploy, weights, ["boxes", "scores"])
    assert list(_sizes(model.graph.output)) == ["boxes", "scores"]
    feeds = inputs_of(model)
    (tmp_path / "cut").mkdir()
    cut, weights = write(tmp_path / "cut", net(TAIL[: TAIL.index('layer { name: "prior"')]), blobs)
    theirs = run_opencv(cut, weights, feeds, ["boxes", "scores"])
    assert max(error(one, other) for one, other in zip(run_onnx(model, feeds), theirs, strict=True)) < TOLERANCE


def test_inputs_that_the_outputs_do_not_need_need_no_sizes(tmp_path: Path) -> None:
    """im_info of Faster R-CNN is read behind the outputs alone."""
    tail = dense("a", "data", 2) + layer("Python", "proposal", "a im_info")
    deploy = write(tmp_path, f'input: "data" input: "im_info"\n{tail}', {})[0]
    model = convert(deploy, None, ["a"], 0, {"data": (1, 3, 4, 4)})
    assert _sizes([*model.graph.input, *model.graph.output]) == {"data": [1, 3, 4, 4], "a": [1, 2]}
    assert "input im_info needs sizes" in _refusal(deploy, (), {"data": (1, 3, 4, 4)})


def test_a_tail_that_is_not_supported_is_told_with_the_outputs_before_it(tmp_path: Path) -> None:
    """The cut is proposed at the blobs that the supported part ends with; no cut where nothing comes before."""
    message = _refusal(write(tmp_path, net(TAIL), {})[0])
    assert message == (
        "FILE:8: layer prior (PriorBox) is of a type that is not supported: build this network from ONNX, or leave it "
        "and what follows out with --output boxes --output scores"
    )
    assert _refusal(write(tmp_path, net(layer("Python")), {})[0]).endswith("supported: build this network from ONNX")
    loss = net(dense("fc", "data", 2) + layer("SoftmaxWithLoss", "loss", "fc"))
    assert _refusal(write(tmp_path, loss, {})[0]).endswith("or leave it and what follows out with --output fc")


def test_places_of_maxima_that_nothing_reads_are_left_out(tmp_path: Path) -> None:
    """SegNet up to its first Upsample, whose reader is refused, and DeepLab's masks that nobody takes."""
    pooled = layer("Pooling", "p", tops="p mask", params="pooling_param { kernel_size: 2 stride: 2 }")
    unpooled = layer("Upsample", "up", "p mask", params="upsample_param { scale: 2 upsample_h: 13 pad_out_w: true }")
    deploy = write(tmp_path, net(pooled + unpooled), {})[0]
    assert "has a second top, for the places of the maxima, that is read" in _refusal(deploy)
    assert _sizes(convert(deploy, None, ["p"]).graph.output) == {"p": [2, 6, 7, 6]}
    assert "holds the places of maxima, which are not made" in _refusal(deploy, ["mask"])
    assert _sizes(convert(write(tmp_path, net(pooled), {})[0], None).graph.output) == {"p": [2, 6, 7, 6]}
    alone = write(tmp_path, net(layer("Upsample", params="upsample_param { scale: 2 upsample_h: 26 }")), {})[0]
    assert "puts numbers at the places of maxima" in _refusal(alone)
    half = write(tmp_path, net(layer("Upsample", params="upsample_param { scale: 1.5 }")), {})[0]
    assert "needs a whole scale above 0, not 1.5" in _refusal(half)


def test_a_layer_s_name_is_no_blob(tmp_path: Path) -> None:
    """Which blob it writes is told."""
    text = net(layer("TanH", "squash", tops="y") + layer("ReLU", "last", "y", "z"))
    assert "has no blob squash to put out: layer squash writes y" in _refusal(write(tmp_path, text, {})[0], ["squash"])


FULLY = conv("c", "image", 4, 3, "stride: 2") + pool("p", "c", "pool: MAX kernel_size: 2 stride: 2")
INPUTS = {
    "input_shape": 'input: "image" input_shape { dim: 1 dim: 3 dim: 16 dim: 16 }',
    "input_dim": 'input: "image" input_dim: 1 input_dim: 3 input_dim: 16 input_dim: 16',
    "Input": 'layer { name: "in" type: "Input" top: "image" input_param { shape { dim: 1 dim: 3 dim: 16 dim: 16 } } }',
    "nothing": 'input: "image"',
    "placeholders": 'input: "image" input_shape { dim: 1 dim: 3 dim: -1 dim: 0 }',
}


@pytest.mark.parametrize("form", INPUTS)
def test_sizes_of_inputs_are_the_user_s(tmp_path: Path, form: str) -> None:
    """Whatever the file says, all sizes follow from those given, with the numbers that OpenCV computes for such an
    image."""
    shapes = {"image": (2, 3, 65, 48)}
    deploy, weights = write(tmp_path, f"{INPUTS[form]}\n{FULLY}", {"c": arrays((4, 3, 3, 3), (4,))})
    model = convert(deploy, weights, (), 0, shapes)
    assert _sizes([*model.graph.input, *model.graph.output]) == {"image": [2, 3, 65, 48], "p": [2, 4, 16, 12]}
    feeds = inputs_of(model)
    same, _ = write(tmp_path, f"{INPUTS['input_shape'].replace('16', '65', 1).replace('16', '48')}\n{FULLY}", {})
    (tmp_path / "net.caffemodel").unlink()
    _, weights = write(tmp_path, same.read_text(), {"c": arrays((4, 3, 3, 3), (4,))})
    assert error(run_onnx(model, feeds)[0], run_opencv(same, weights, feeds, ["p"])[0]) < TOLERANCE


@pytest.mark.parametrize("sizes", ["", "input_shape { dim: 1 dim: 0 dim: 0 dim: 0 }", "input_shape { dim: -1 dim: 3 }"])
def test_placeholders_fix_no_weights(tmp_path: Path, sizes: str) -> None:
    """An InnerProduct of an image whose size the file leaves open takes the one that is given."""
    deploy = write(tmp_path, f'input: "data" {sizes}\n' + dense("fc", "data", 5), {})[0]
    given = (1, 3) if sizes.endswith("dim: 3 }") else (1, 3, 8, 8)
    assert _sizes(convert(deploy, None, (), 0, {"data": given}).graph.output) == {"fc": [1, 5]}


def test_weights_beyond_all_memory_are_refused_at_any_size(tmp_path: Path) -> None:
    """Before any are made, with sizes of the file and with others."""
    wide = conv("out", "data", 4, 4294967295, "stride: 2 pad: 1", "Deconvolution", inplace=False)
    deploy = write(tmp_path, net(wide), {})[0]
    for shapes in ({}, {"data": (1, 6, 9, 9)}):
        assert "(Deconvolution) brings the weights to" in _refusal(deploy, (), shapes)


def test_crop_and_flatten_follow_the_sizes(tmp_path: Path) -> None:
    """FCN's crops at another size, against OpenCV; Flatten and Reshape take what comes."""
    small, large = caffe_nets.FCN, caffe_nets.FCN.replace("dim: 21 dim: 26", "dim: 45 dim: 38")
    tail = layer("Flatten", "flat", "upscore") + layer(
        "Reshape", "shaped", "flat", params="reshape_param { shape { dim: 0 dim: 5 dim: -1 } }"
    )
    given = convert(write(tmp_path, small + tail, {})[0], None, (), 3, {"data": (1, 3, 45, 38)})
    written = convert(write(tmp_path, large + tail, {})[0], None, (), 3)
    assert given.SerializeToString() == written.SerializeToString()
    assert _sizes(given.graph.output) == {"shaped": [1, 5, 45 * 38]}


@pytest.mark.parametrize("weights", [True, False])
def test_weights_keep_their_sizes(tmp_path: Path, weights: bool) -> None:
    """An InnerProduct fixes the size of the image, with weights or random ones, as with Caffe's net.reshape; the batch
    is free; an output before it is."""
    text = net(conv("c", "data", 4, 3) + dense("fc", "c", 5), 1, 6, 9, 9)
    deploy, file = write(tmp_path, text, {"c": arrays((4, 6, 3, 3), (4,)), "fc": arrays((5, 196), (5,))})
    given = file if weights else None
    message = _refusal(deploy, (), {"data": (1, 6, 11, 9)}, given)
    assert message.startswith(
        "FILE:6: layer fc (InnerProduct) has weights of 5x196, and would need 5x252 with the sizes"
    )
    assert _sizes(convert(deploy, given, (), 0, {"data": (4, 6, 9, 9)}).graph.output) == {"fc": [4, 5]}
    assert _sizes(convert(deploy, given, ["c"], 0, {"data": (4, 6, 11, 9)}).graph.output) == {"c": [4, 4, 9, 7]}
    assert "layer c (Convolution) has weights of 4x6x3x3" in _refusal(deploy, (), {"data": (1, 3, 9, 9)}, given)


def test_sizes_that_do_not_fit_are_told(tmp_path: Path) -> None:
    """Another input, another number of sizes, zero, sizes that leave nothing; and none at all, with the way out."""
    deploy = write(tmp_path, f"{INPUTS['input_shape']}\n{FULLY}", {})[0]
    assert _refusal(deploy, (), {"data": (1, 3, 8, 8)}).startswith(
        "shape of data: FILE has no such input: its inputs are image"
    )
    assert "has 3 sizes, and input image of FILE has 4: 1x3x16x16" in _refusal(deploy, (), {"image": (3, 8, 8)})
    assert "needs sizes above 0" in _refusal(deploy, (), {"image": (1, 3, 0, 8)})
    assert "layer c (Convolution) leaves nothing of its input of 2x2" in _refusal(deploy, (), {"image": (1, 3, 2, 2)})
    bare = write(tmp_path, f"{INPUTS['nothing']}\n{FULLY}", {})[0]
    assert (
        "input image needs sizes above 0, and fewer than 2^61 numbers, and has none: set them with --shapes"
        in _refusal(bare)
    )


def test_a_likely_placeholder_is_told(tmp_path: Path) -> None:
    """16x16 pixels as the file says; not where --shapes has said it, nor for 28x28."""
    deploy = write(tmp_path, f"{INPUTS['input_shape']}\n{FULLY}", {})[0]
    (note,) = placeholder_notes(deploy, convert(deploy, None), {})
    assert note.startswith("WARNING: input image is 1x3x16x16, as ")
    (of_four,) = placeholder_notes(deploy, convert(deploy, None), {}, 4)
    assert "--shapes image:4x3x224x224" in of_four  # which --batch 4 agrees with
    shapes = {"image": (1, 3, 16, 16)}
    assert placeholder_notes(deploy, convert(deploy, None, (), 0, shapes), shapes) == ()
    larger = write(tmp_path, net(dense("fc", "data", 3), 1, 1, 28, 28), {})[0]
    assert placeholder_notes(larger, convert(larger, None), {}) == ()


V0 = """name: "oldest"
input: "data" input_dim: 2 input_dim: 4 input_dim: 15 input_dim: 15
layers { layer { name: "pad1" type: "padding" pad: 2 } bottom: "data" top: "pad1" }
layers { layer { name: "conv1" type: "conv" num_output: 8 kernelsize: 5 stride: 2 group: 2 blobs_lr: 1. blobs_lr: 2.
  weight_filler { type: "gaussian" std: 0.01 } weight_decay: 1. } bottom: "pad1" top: "conv1" }
layers { layer { name: "relu1" type: "relu" } bottom: "conv1" top: "conv1" }
layers { layer { name: "pool1" type: "pool" pool: MAX kernelsize: 3 stride: 2 } bottom: "conv1" top: "pool1" }
layers { layer { name: "norm1" type: "lrn" local_size: 3 alpha: 0.5 beta: 0.75 } bottom: "pool1" top: "norm1" }
layers { layer { name: "join" type: "concat" concat_dim: 1 } bottom: "norm1" bottom: "pool1" top: "join" }
layers { layer { name: "drop" type: "dropout" dropout_ratio: 0.5 } bottom: "join" top: "join" }
layers { layer { name: "fc" type: "innerproduct" num_output: 6 biasterm: false } bottom: "join" top: "fc" }
layers { layer { name: "prob" type: "softmax" } bottom: "fc" top: "prob" }
"""
TODAY = net(
    conv("conv1", "data", 8, 5, "stride: 2 group: 2 pad: 2")
    + pool("pool1", "conv1", "pool: MAX kernel_size: 3 stride: 2")
    + layer("LRN", "norm1", "pool1", params="lrn_param { local_size: 3 alpha: 0.5 beta: 0.75 }")
    + layer("Concat", "join", "norm1 pool1")
    + layer("InnerProduct", "fc", "join", params="inner_product_param { num_output: 6 bias_term: false }")
    + layer("Softmax", "prob", "fc"),
    2, 4, 15, 15,
)  # fmt: skip


def test_the_oldest_format_computes_what_today_s_does(tmp_path: Path) -> None:
    """V0, `layers { layer { … } }`, with its padding layer and its weights in the file, against OpenCV's answer to the
    same network in today's format."""
    blobs = {"conv1": arrays((8, 2, 5, 5), (8,)), "fc": arrays((6, 256))}
    deploy, weights = write(tmp_path, TODAY, blobs)
    oldest, old_weights = tmp_path / "v0.prototxt", tmp_path / "v0.caffemodel"
    oldest.write_text(V0)
    file = NetParameter()
    for name, values in blobs.items():
        inner = file.layers.add().layer
        inner.name = name
        for array in values:
            blob = inner.blobs.add(**dict(zip(("num", "channels", "height", "width"), (1, 1, 1, 1), strict=True)))
            sizes = (1,) * (4 - np.ndim(array)) + np.shape(array)
            blob.num, blob.channels, blob.height, blob.width = sizes
            blob.data.append(np.asarray(array, "<f4").tobytes())
    old_weights.write_bytes(file.SerializeToString())
    model = convert(oldest, old_weights)
    feeds = inputs_of(model)
    ours = run_onnx(model, feeds)[0]
    assert error(ours, run_onnx(convert(deploy, weights), feeds)[0]) < TOLERANCE
    assert error(ours, run_opencv(deploy, weights, feeds, ["prob"])[0]) < TOLERANCE


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('layers { layer { name: "x" type: "tanh2" } bottom: "data" top: "x" }', "FILE:1: layer x (tanh2) is of a t"),
        ('layers { layer { name: "x" type: "data" } top: "x" }', "FILE:1: layer x (Data) is for training"),
        (
            'layers { layer { name: "p" type: "padding" pad: 1 } bottom: "data" top: "p" }\n'
            'layers { layer { name: "x" type: "relu" } bottom: "p" top: "x" }',
            "FILE:2: layer x (relu) reads p, which a padding layer writes: only convolutions and pools can",
        ),
        (
            'layers { layer { name: "p" type: "padding" pad: 1 } top: "p" }',
            "FILE:1: layer p (padding) pads, and needs one bottom and one top",
        ),
        ('layers { layer { name: "x" type: "conv" kernelsise: 3 } }', "FILE:1: unknown field 'kernelsise': did"),
    ],
)  # fmt: skip
def test_faults_of_the_oldest_format(tmp_path: Path, line: str, sentence: str) -> None:
    """Types, padding before what has none, slips, each with its line."""
    text = f'{line}\ninput: "data" input_dim: 1 input_dim: 1 input_dim: 8 input_dim: 8'
    assert _refusal(write(tmp_path, text, {})[0]).startswith(sentence)


def test_what_a_fork_keeps_under_a_number_of_ours_is_skipped(tmp_path: Path) -> None:
    """A .caffemodel of a fork has its own fields in its layers: weights are read all the same."""
    deploy, weights = write(tmp_path, net(dense("fc", "data", 2)), {"fc": arrays((2, 858), (2,))})
    data = weights.read_bytes()
    file = NetParameter.FromString(data)
    alien = b"".join(
        bytes([(number << 3 | 2) & 127 | 128, (number << 3 | 2) >> 7, 3]) + b"\xff\xff\xff"
        for number in range(104, 210)
    )
    content = file.layer[0].SerializeToString() + alien
    tag = bytes([(100 << 3 | 2) & 127 | 128, (100 << 3 | 2) >> 7])
    size = bytes([len(content) & 127 | 128, len(content) >> 7 & 127 | 128, len(content) >> 14])
    weights.write_bytes(tag + size + content)
    learned = {t.name: onnx.numpy_helper.to_array(t) for t in convert(deploy, weights).graph.initializer}
    assert (learned["fc.weight"] == arrays((2, 858))[0].astype(np.float32)).all()
