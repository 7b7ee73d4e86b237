"""Whatever is wrong with a prototxt or a .caffemodel ends in one sentence: what, in which file and line, what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from caffe_files import arrays, write
from caffe_nets import SHAPE, conv, dense, layer, net, pool
from loadtrt.caffe import convert
from loadtrt.errors import UsageError
from loadtrt.zoo import googlenet

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def _refused(sentence: str, deploy: Path, weights: Path | None = None, outputs: Sequence[str] = ()) -> None:
    """`sentence` with {file} for the prototxt is all of the message that it begins."""
    with pytest.raises(UsageError) as caught:
        convert(deploy, weights, outputs)
    message = str(caught.value)
    assert message.startswith(sentence.replace("{file}", str(deploy)).replace("{weights}", str(weights)))
    assert "\n" not in message
    assert len(message.removeprefix(str(deploy))) < 300


# What stands on line 4 of a prototxt whose first three are sound; and how the sentence begins, behind
# `FILE:4: layer out` where it begins with a bracket.
WRONG = {
    "a type of its own": (layer("Warp"), "(Warp) is of a type that is not supported: build this network from ONNX"),
    "a type misspelled": (layer("Convolutoin"), "(Convolutoin) is of a type that is not supported: did"),
    "a type unset": ('layer { name: "out" bottom: "data" }', "(no type) has no type: give it one"),
    "a type for training": (layer("Data"), "(Data) is for training: give the network's deploy.proto"),
    "a loss": (layer("SoftmaxWithLoss"), "(SoftmaxWithLoss) is for training: give"),
    "a V1 type": ('layers { name: "out" type: IM2COL bottom: "data" top: "out" }', "(Im2Col) is of a type"),
    "a V1 loss": ('layers { name: "l" type: SOFTMAX_LOSS bottom: "data" }', "{file}:4: layer l (SoftmaxWithLoss) is f"),
    "two formats": (layer("ReLU") + "layers { type: RELU }", "{file} mixes 'layer' and 'layers': keep to one"),
    "an open brace": ('layer { name: "out" ', "{file}:4 is not a Caffe prototxt: "),
    "no number": (pool("out", "data", "kernel_size: three"), "{file}:4 is not a Caffe prototxt: "),
    "an unknown field": (
        layer("ReLU", params="relu_param { leak: 1 }"),
        "{file}:4: 'leak' is not a field of Caffe's ReLUParameter, and what a fork computes by it is not known here: ",
    ),
    "a slip": (pool("out", "data", "\n kernel_sise: 3"), "{file}:5: unknown field 'kernel_sise': did you mean 'kernel"),
    "a slip in a layer": (layer("ReLU", params="relu_parm { }"), "{file}:4: unknown field 'relu_parm': did you mean '"),
    "no blob": (layer("ReLU", bottoms="date"), "(ReLU) reads blob date, which nothing above it writes: d"),
    "a blob twice": (layer("ReLU") + layer("TanH", "t", tops="out"), "{file}:5: layer t (TanH) writes blob out, which"),
    "a name twice": (layer("ReLU") + layer("TanH", tops="t"), "{file}:5: layer out (TanH) has the name of the layer o"),
    "no bottom": (layer("ReLU", bottoms=""), "(ReLU) needs 1 bottom, not 0"),
    "bottoms too many": (layer("Sigmoid", bottoms="data data"), "(Sigmoid) needs 1 bottom, not 2"),
    "tops too many": (layer("ReLU", tops="a b"), "(ReLU) has 2 tops, where 1 can be made"),
    "no kernel": (layer("Convolution", params="convolution_param { num_output: 1 }"), "(Convolution) ne"),
    "no outputs": (layer("InnerProduct"), "(InnerProduct) needs num_output"),
    "a group": (conv("out", "data", 8, 3, "group: 4"), "(Convolution) cannot share 6 channels and 8"),
    "a kernel too large": (conv("out", "data", 8, 15), "(Convolution) leaves nothing of its input of 13"),
    "a pool too large": (pool("out", "data", "kernel_size: 99"), "(Pooling) has a kernel larger than"),
    "padding too large": (pool("out", "data", "kernel_size: 2 pad: 2"), "(Pooling) has padding as large"),
    "no stride": (pool("out", "data", "kernel_size: 2 stride: 0"), "(Pooling) needs a stride above 0"),
    "no dilation": (conv("out", "data", 8, 3, "dilation: 0"), "(Convolution) needs a dilation above 0"),
    "a norm of nothing": (layer("LRN", params="lrn_param { alpha: 0 }"), "(LRN) needs alpha and beta above 0"),
    "a top for nothing": (layer("Silence"), "(Silence) has a top, where it only consumes bottoms: remove it"),
    "windows outside": (pool("out", "data", "kernel_size: 1 stride: 7"), "(Pooling) has windows that are outside"),
    "a mask": (
        layer("Pooling", tops="out mask", params="pooling_param { kernel_size: 2 }") + layer("ReLU", "r", "mask"),
        "(Pooling) has a second top, for the places of the maxima, that is read: use --output before its reader",
    ),
    "stochastic": (pool("out", "data", "pool: STOCHASTIC kernel_size: 2"), "(Pooling) pools STOCHAS"),
    "global and a kernel": (pool("out", "data", "global_pooling: true kernel_h: 2"), "(Pooling) has glo"),
    "both kernels": (pool("out", "data", "kernel_size: 2 kernel_h: 2"), "(Pooling) has kernel_h or kern"),
    "an even norm": (layer("LRN", params="lrn_param { local_size: 4 }"), "(LRN) has local_size 4: it mus"),
    "an axis": (layer("Softmax", params="softmax_param { axis: 4 }"), "(Softmax) has axis 4, where its"),
    "a shape": (
        layer("Reshape", params="reshape_param { shape { dim: 0 dim: 5 dim: -1 } }"),
        "(Reshape) cannot make 2x5x171 of 2x6x13x11: their products differ",
    ),
    "a copied size": (
        layer("Reshape", params="reshape_param { shape { dim: 2 dim: -1 dim: 1 dim: 1 dim: 0 } }"),
        "(Reshape) copies (dim: 0) a dimension that its bottom of 4 lacks",
    ),
    "what is left of nothing": (
        layer("Reshape", params="reshape_param { shape { dim: -1 dim: -1 } }"),
        "(Reshape) has sizes below -1, or -1 twice",
    ),
    "sizes to join": (
        pool("p", "data", "kernel_size: 2") + layer("Concat", bottoms="data p"),
        "{file}:5: layer out (Concat) cannot join 2x6x13x11 and 2x6x12x10 along axis 1: the other sizes differ",
    ),
    "sizes to add": (
        pool("p", "data", "kernel_size: 2") + layer("Eltwise", bottoms="data p"),
        "{file}:5: layer out (Eltwise) needs two bottoms or more of one shape, not 2x6x13x11 and 2x6x12x10",
    ),
    "coefficients": (
        layer("Eltwise", bottoms="data data", params="eltwise_param { operation: MAX coeff: 1 coeff: 2 }"),
        "(Eltwise) has 2 coeff: only SUM takes them",
    ),
    "unequal parts": (layer("Slice", tops="a b c d"), "(Slice) cannot cut 6 into 4 equal parts: give"),
    "points too far": (
        layer("Slice", tops="a b", params="slice_param { slice_point: 6 }"),
        "(Slice) needs 1 rising slice_point below 6, not 6",
    ),
    "a crop too large": (
        pool("p", "data", "kernel_size: 2") + layer("Crop", bottoms="p data"),
        "{file}:5: layer out (Crop) cannot cut 2x6x13x11 out of 2x6x12x10 at 0x0",
    ),
    "the batch's own mean": (
        layer("BatchNorm", params="batch_norm_param { use_global_stats: false }"),
        "(BatchNorm) normalizes by its own batch",
    ),
    "a scale that does not fit": (
        pool("p", "data", "kernel_size: 2") + layer("Scale", bottoms="data p", params="scale_param { axis: 0 }"),
        "{file}:5: layer out (Scale) cannot lay 2x6x12x10 on 2x6x13x11 from axis 0",
    ),
    "no input shape": (
        'layer { name: "in" type: "Input" top: "x" }' + layer("ReLU", bottoms="x"),
        "{file}: input x needs sizes above 0, and fewer than 2^61 numbers, and has none: set them with --shapes x",
    ),
    "nothing to put out": ('layer { name: "s" type: "Silence" bottom: "data" }', "{file} has no output: nothing in it"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_prototxt_says_what_and_where(tmp_path: Path, name: str) -> None:
    """UsageError of one sentence, with the line on which the layer (or the field) stands."""
    line, sentence = WRONG[name]
    _refused("{file}:4: layer out " * sentence.startswith("(") + sentence, write(tmp_path, net(line), {})[0])


def test_lines_are_counted_through_comments_and_strings(tmp_path: Path) -> None:
    """Braces, colons and quotes in comments and strings open nothing: the line is the layer's own."""
    text = 'name: "a { b: \\" }" # layer { it\'s }\n\n# layer {\ninput: "x" input_shape < dim: 1 >\n'
    text += '\nlayer # {\n{ type: "Odd" }'
    _refused("{file}:7: layer Odd (Odd) is of a type", write(tmp_path, text, {})[0])


def test_lines_are_those_of_the_layers_in_lists_and_behind_strange_fields(tmp_path: Path) -> None:
    """Text format's other ways to write layers: with a colon, in angle brackets, as a list; unknown fields between."""
    text = (
        'input: "x" input_shape: { dim: 1 }\nlayer: < name: "a" type: "TanH" bottom: "x" top: "a" >\n3 { layer { } }\n'
    )
    text += 'layer [\n{ name: "b" type: "TanH" bottom: "a" top: "b" },\n{ name: "c" type: "Odd" }]'
    _refused("{file}:6: layer c (Odd) is of a type", write(tmp_path, text, {})[0])


def test_fields_that_only_training_or_forks_read_are_tolerated(tmp_path: Path) -> None:
    """Unknown fields of the network and of layers change no answer: they are skipped, with all that is in them."""
    more = "loss_weight: 1 param { lr_mult: 1 decay_mult: 0 } transform_param { crop_size: 3 mirror: [true] }"
    text = net(layer("ReLU", params=more)) + "default_forward_type: FLOAT16\nstate { phase: TEST } force_backward: true"
    assert [node.name for node in convert(write(tmp_path, text, {})[0], None).graph.node] == ["out"]


def test_inputs_need_shapes(tmp_path: Path) -> None:
    """One input_shape, or four input_dim, for each input, all above 0."""
    sentences = {
        "": "{file}: input data needs sizes above 0, and fewer than 2^61 numbers, and has none: set them with ",
        "input_shape { dim: 1 } input_shape { dim: 2 }": "{file} has 1 'input' and 2 shapes: give one input_sh",
        "input_shape { dim: 1 dim: 0 }": "{file}: input data needs sizes above 0, and fewer than 2^61 numbers, not 1x0",
        "input_dim: 1 input_dim: 3 input_dim: 8": "{file} has 3 input_dim: give 4 for each 'input'",
    }
    for dims, sentence in sentences.items():
        _refused(sentence, write(tmp_path, f'input: "data"\n{dims}\n' + layer("ReLU"), {})[0])


def test_files_that_are_not_there_or_not_caffe_s(tmp_path: Path) -> None:
    """Missing, a folder, binary, empty, or prose."""
    _refused("cannot read prototxt {file}: No such file", tmp_path / "none.prototxt")
    _refused("cannot read prototxt {file}: Is a directory", tmp_path)
    deploy, weights = write(tmp_path, net(dense("out", "data", 3)), {"out": arrays((3, 858), (3,))})
    _refused("{file} is a binary file, not a prototxt: ", weights)
    _refused("cannot read weights {weights}: No such file", deploy, tmp_path / "none.caffemodel")
    _refused("{weights} is not a .caffemodel, or is damaged", deploy, deploy)
    for content, sentence in (
        ("", "{file} is not a Caffe network"),
        ("Dear reader", "{file}:1 is not a Caffe prototxt: "),
    ):
        (tmp_path / "other.prototxt").write_text(content)
        _refused(sentence, tmp_path / "other.prototxt")
    (tmp_path / "empty.caffemodel").write_bytes(b"")
    _refused("{weights} is not a .caffemodel: it has no layers", deploy, tmp_path / "empty.caffemodel")
    onnx.save(googlenet(1), tmp_path / "g.onnx")
    _refused("{weights} is not a .caffemodel", deploy, tmp_path / "g.onnx")
    weights.write_bytes(weights.read_bytes()[:-9])
    _refused("{weights} is not a .caffemodel, or is damaged", deploy, weights)


@pytest.mark.parametrize(
    ("blobs", "sentence"),
    [
        ({"other": arrays((3, 858))}, "{weights} has the weights of another network: other there, out in the prototxt"),
        ({"out": arrays((3, 858))}, "{file}:4: layer out (InnerProduct) needs 2 blobs of weights, {weights} has"),
        ({"out": arrays((4, 858), (3,))}, "{file}:4: layer out (InnerProduct) needs blob 0 of 3x858, {weights} has 4x"),
        ({"out": arrays((3, 858), (1, 858))}, "{file}:4: layer out (InnerProduct) needs blob 1 of 3, {weights} has 1x"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit(tmp_path: Path, blobs: Any, sentence: str) -> None:
    """Another network's, a blob too few, another shape: the layer, what it needs, what the file has."""
    _refused(sentence, *write(tmp_path, net(dense("out", "data", 3)), blobs))


def test_weights_cut_short(tmp_path: Path) -> None:
    """A blob with fewer numbers than its shape says; one whose bytes are no whole number of floats."""
    from loadtrt.caffe.caffe_proto import NetParameter

    deploy, weights = write(tmp_path, net(dense("out", "data", 3)), {"out": arrays((3, 858), (3,))})
    for data in (b"", np.zeros(2, "<f4").tobytes(), b"12345"):
        file = NetParameter.FromString(weights.read_bytes())
        file.layer[0].blobs[1].data[:] = [data]
        weights.write_bytes(file.SerializeToString())
        _refused("{file}:4: layer out (InnerProduct) has blob 1 without all of its numbers in", deploy, weights)


def test_outputs_that_are_no_blobs(tmp_path: Path) -> None:
    """A name that no layer writes, with the nearest; an input."""
    deploy = write(tmp_path, net(dense("prob", "data", 3)), {})[0]
    _refused("{file} has no blob proc to put out: did you mean 'prob'?", deploy, None, ["proc"])
    _refused("data is an input of {file}, not an output: name a blob that a layer writes", deploy, None, ["data"])
    assert SHAPE == (2, 6, 13, 11)  # what the sentences above speak of
