"""Prototxt texts: single layers, and small networks built as BVLC's and their successors' are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from caffe_files import arrays
from loadtrt.zoo import INCEPTION

if TYPE_CHECKING:
    from caffe_files import Blobs

SHAPE = (2, 6, 13, 11)


def net(layers: str, *shape: int) -> str:
    dims = " ".join(f"dim: {size}" for size in shape or SHAPE)
    return f'name: "test"\ninput: "data"\ninput_shape {{ {dims} }}\n{layers}'


def layer(kind: str, name: str = "out", bottoms: str = "data", tops: str = "", params: str = "") -> str:
    """Its tops are its name unless `tops` says otherwise: OpenCV asks for layers, not for blobs."""
    lines = [f'name: "{name}"', f'type: "{kind}"', *(f'bottom: "{bottom}"' for bottom in bottoms.split())]
    lines += [*(f'top: "{top}"' for top in (tops or name).split()), params]
    return f"layer {{ {' '.join(lines)} }}\n"


def conv(
    name: str, bottom: str, filters: int, kernel: int, more: str = "", kind: str = "Convolution", inplace: bool = True
) -> str:
    """A convolution and, `inplace`, its ReLU."""
    fill = 'weight_filler { type: "xavier" } bias_filler { type: "constant" value: 0.2 }'
    params = f"param {{ lr_mult: 1 }} convolution_param {{ num_output: {filters} kernel_size: {kernel} {more} {fill} }}"
    text = layer(kind, name, bottom, params=params)
    return text + (layer("ReLU", f"relu_{name}", name, name) if inplace else "")


def pool(name: str, bottom: str, window: str) -> str:
    return layer("Pooling", name, bottom, params=f"pooling_param {{ {window} }}")


def dense(name: str, bottom: str, outputs: int) -> str:
    return layer("InnerProduct", name, bottom, params=f"inner_product_param {{ num_output: {outputs} }}")


_TWO = layer("ReLU", "r") + layer("TanH", "t")
_HALF = pool("p", "data", "kernel_size: 2 stride: 2")
_SPREAD = [[0.1, -0.3, 0.2, 1.0, -1.0, 0.5], [0.5, 1.0, 2.0, 0.1, 0.7, 1.3], [2.5]]

# One layer each: text and its blobs.
LAYERS: dict[str, tuple[str, Blobs]] = {
    "convolution": (
        net(conv("out", "data", 8, 3, "stride: 2 pad: 1 group: 2", inplace=False)),
        {"out": arrays((8, 3, 3, 3), (8,))},
    ),
    "convolution, kernel 3x5, dilated, no bias": (
        net(
            layer(
                "Convolution",
                params="convolution_param { num_output: 8 kernel_h: 3 kernel_w: 5 stride_h: 2 stride_w: 1"
                " pad_h: 0 pad_w: 2 dilation: 2 bias_term: false }",
            )
        ),
        {"out": arrays((8, 6, 3, 5))},
    ),
    "deconvolution": (
        net(conv("out", "data", 4, 4, "stride: 2 pad: 1", "Deconvolution", inplace=False)),
        {"out": arrays((6, 4, 4, 4), (4,))},
    ),
    "deconvolution in groups": (
        net(conv("out", "data", 4, 3, "stride: 2 group: 2 bias_term: false", "Deconvolution", inplace=False)),
        {"out": arrays((6, 2, 3, 3))},
    ),
    "deconvolution by channel": (
        net(conv("out", "data", 6, 4, "stride: 2 pad: 1 group: 6 bias_term: false", "Deconvolution", inplace=False)),
        {"out": arrays((6, 1, 4, 4))},
    ),
    "inner product": (net(dense("out", "data", 5)), {"out": arrays((5, 6 * 13 * 11), (5,))}),
    "inner product of the last axis": (
        net(layer("InnerProduct", params="inner_product_param { num_output: 5 axis: -1 }")),
        {"out": arrays((5, 11), (5,))},
    ),
    "LRN": (net(layer("LRN", params="lrn_param { local_size: 3 alpha: 0.1 beta: 0.6 }")), {}),
    "LRN within": (
        net(layer("LRN", params="lrn_param { local_size: 5 alpha: 0.5 norm_region: WITHIN_CHANNEL }")),
        {},
    ),
    "ReLU": (net(layer("ReLU")), {}),
    "leaky ReLU": (net(layer("ReLU", params="relu_param { negative_slope: 0.1 }")), {}),
    "PReLU": (net(layer("PReLU")), {"out": arrays((6,))}),
    "PReLU, shared": (net(layer("PReLU", params="prelu_param { channel_shared: true }")), {"out": arrays((1,))}),
    "PReLU of rows": (net(layer("PReLU"), 2, 6), {"out": arrays((6,))}),
    "concat": (net(_TWO + layer("Concat", bottoms="data r t")), {}),
    "concat, last axis": (net(_TWO + layer("Concat", bottoms="r t", params="concat_param { axis: -1 }")), {}),
    "slice at points": (
        net(
            layer("Slice", "s", tops="a b c", params="slice_param { slice_point: 1 slice_point: 3 }")
            + "".join(layer("TanH", f"t{part}", part) for part in "abc")
        ),
        {},
    ),
    "slice in halves": (
        net(layer("Slice", "s", tops="a b") + "".join(layer("TanH", f"t{part}", part) for part in "ab")),
        {},
    ),
    "batch norm": (net(layer("BatchNorm", params="batch_norm_param { eps: 0.001 }")), {"out": _SPREAD}),
    "batch norm of rows": (net(layer("BatchNorm"), 2, 6), {"out": _SPREAD}),
    "batch norm, nothing learned": (net(layer("BatchNorm")), {"out": [*_SPREAD[:2], [0.0]]}),
    "scale": (net(layer("Scale", params="scale_param { bias_term: true }")), {"out": arrays((6,), (6,))}),
    "scale of two axes": (net(layer("Scale", params="scale_param { num_axes: 2 }")), {"out": arrays((6, 13))}),
    "scale by a blob": (
        net(
            pool("p", "data", "pool: AVE global_pooling: true")
            + layer("Flatten", "f", "p")
            + layer("Scale", bottoms="data f", params="scale_param { axis: 0 }")
        ),
        {},
    ),
    "softmax": (net(layer("Softmax")), {}),
    "softmax, last axis": (net(layer("Softmax", params="softmax_param { axis: -1 }")), {}),
    "dropout": (net(layer("Dropout", params="dropout_param { dropout_ratio: 0.4 }")), {}),
    "flatten": (net(layer("Flatten")), {}),
    "flatten the middle": (net(layer("Flatten", params="flatten_param { axis: 1 end_axis: 2 }")), {}),
    "reshape": (net(layer("Reshape", params="reshape_param { shape { dim: 0 dim: 3 dim: -1 dim: 11 } }")), {}),
    "reshape one axis": (
        net(layer("Reshape", params="reshape_param { shape { dim: 3 dim: 2 } axis: 1 num_axes: 1 }")),
        {},
    ),
    "crop": (net(_HALF + layer("Crop", bottoms="data p", params="crop_param { axis: 2 offset: 1 offset: 2 }")), {}),
    "crop, one offset": (net(_HALF + layer("Crop", bottoms="data p", params="crop_param { offset: 3 }")), {}),
    "power": (net(layer("Power", params="power_param { power: 2 scale: 0.5 shift: 3 }")), {}),
    "power of nothing": (net(layer("Power")), {}),
    "sigmoid": (net(layer("Sigmoid")), {}),
    "tanh": (net(layer("TanH")), {}),
    "split": (net(layer("Split", "s", tops="a b") + layer("ReLU", "ra", "a") + layer("TanH", "tb", "b")), {}),
}
for _operation in ("SUM", "SUM coeff: 0.5 coeff: -2 coeff: 1", "PROD", "MAX"):
    _params = f"eltwise_param {{ operation: {_operation} }}"
    LAYERS[f"eltwise {_operation}"] = (net(_TWO + layer("Eltwise", bottoms="data r t", params=_params)), {})
for _method in ("MAX", "AVE"):
    for _k, _s, _p in ((3, 2, 0), (3, 2, 1), (2, 2, 1), (3, 1, 1), (5, 3, 2), (5, 4, 1), (7, 5, 3), (4, 3, 2)):
        _window = f"pool: {_method} kernel_size: {_k} stride: {_s} pad: {_p}"
        LAYERS[f"pooling {_window}"] = (net(pool("out", "data", _window)), {})
    LAYERS[f"pooling {_method} global"] = (net(pool("out", "data", f"pool: {_method} global_pooling: true")), {})

_LRN = "lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }"
ALEXNET = net(
    conv("conv1", "data", 8, 11, "stride: 4")
    + layer("LRN", "norm1", "conv1", params=_LRN)
    + pool("pool1", "norm1", "pool: MAX kernel_size: 3 stride: 2")
    + conv("conv2", "pool1", 12, 5, "pad: 2 group: 2")
    + layer("LRN", "norm2", "conv2", params=_LRN)
    + pool("pool2", "norm2", "pool: MAX kernel_size: 3 stride: 2")
    + dense("fc6", "pool2", 32)
    + layer("ReLU", "relu6", "fc6", "fc6")
    + layer("Dropout", "drop6", "fc6", "fc6", "dropout_param { dropout_ratio: 0.5 }")
    + dense("fc7", "fc6", 10)
    + layer("Softmax", "prob", "fc7"),
    2, 3, 67, 67,
)  # fmt: skip


def _normed(name: str, bottom: str, filters: int, kernel: int, more: str = "") -> str:
    text = conv(name, bottom, filters, kernel, f"bias_term: false {more}", inplace=False)
    text += layer("BatchNorm", f"bn_{name}", name, name, "batch_norm_param { use_global_stats: true }")
    return text + layer("Scale", f"scale_{name}", name, name, "scale_param { bias_term: true }")


RESNET = net(
    _normed("conv1", "data", 8, 7, "stride: 2 pad: 3")
    + layer("ReLU", "conv1_relu", "conv1", "conv1")
    + pool("pool1", "conv1", "kernel_size: 3 stride: 2 pool: MAX")
    + _normed("branch1", "pool1", 16, 1)
    + _normed("branch2a", "pool1", 4, 1)
    + layer("ReLU", "branch2a_relu", "branch2a", "branch2a")
    + _normed("branch2b", "branch2a", 16, 3, "pad: 1")
    + layer("Eltwise", "res", "branch1 branch2b")
    + layer("ReLU", "res_relu", "res", "res")
    + pool("pool5", "res", "kernel_size: 7 stride: 1 pool: AVE")
    + dense("fc", "pool5", 10)
    + layer("Softmax", "prob", "fc"),
    2, 3, 30, 30,
)  # fmt: skip
SQUEEZENET = net(
    conv("conv1", "data", 8, 3, "stride: 2")
    + pool("pool1", "conv1", "pool: MAX kernel_size: 3 stride: 2")
    + conv("squeeze", "pool1", 4, 1)
    + conv("expand1", "squeeze", 8, 1)
    + conv("expand3", "squeeze", 8, 3, "pad: 1")
    + layer("Concat", "fire", "expand1 expand3")
    + layer("Dropout", "drop9", "fire", "fire")
    + conv("conv10", "fire", 10, 1)
    + pool("pool10", "conv10", "pool: AVE global_pooling: true")
    + layer("Softmax", "prob", "pool10"),
    2, 3, 33, 33,
)  # fmt: skip
FCN = net(
    conv("conv1", "data", 8, 3, "pad: 5")
    + pool("pool1", "conv1", "pool: MAX kernel_size: 2 stride: 2")
    + conv("conv2", "pool1", 8, 3, "pad: 1")
    + pool("pool2", "conv2", "pool: MAX kernel_size: 2 stride: 2")
    + conv("score", "pool2", 5, 1, inplace=False)
    + conv("up2", "score", 5, 4, "stride: 2 bias_term: false", "Deconvolution", inplace=False)
    + conv("skip", "pool1", 5, 1, inplace=False)
    + layer("Crop", "upped", "up2 skip", params="crop_param { axis: 2 offset: 1 }")
    + layer("Eltwise", "fuse", "upped skip", params="eltwise_param { operation: SUM }")
    + conv("up", "fuse", 5, 4, "stride: 2 bias_term: false", "Deconvolution", inplace=False)
    + layer("Crop", "upscore", "up data", params="crop_param { axis: 2 offset: 3 }"),
    1, 3, 21, 26,
)  # fmt: skip
V1 = """name: "old"
input: "data"
input_dim: 2 input_dim: 3 input_dim: 20 input_dim: 20
layers { name: "conv1" type: CONVOLUTION bottom: "data" top: "conv1" blobs_lr: 1 blobs_lr: 2 weight_decay: 1
  convolution_param { num_output: 8 kernel_size: 5 stride: 2 } }
layers { name: "relu1" type: RELU bottom: "conv1" top: "conv1" }
layers { name: "pool1" type: POOLING bottom: "conv1" top: "pool1" pooling_param { kernel_size: 3 stride: 2 } }
layers { name: "norm1" type: LRN bottom: "pool1" top: "norm1" lrn_param { local_size: 3 alpha: 1 } }
layers { name: "drop1" type: DROPOUT bottom: "norm1" top: "norm1" include { phase: TEST } }
layers { name: "fc2" type: INNER_PRODUCT bottom: "norm1" top: "fc2" inner_product_param { num_output: 7 } }
layers { name: "prob" type: SOFTMAX bottom: "fc2" top: "prob" }
"""


def googlenet() -> str:
    """BVLC's bvlc_googlenet/deploy.prototxt with batch 1, layer for layer, from the same widths as the zoo's."""
    text = _relued("conv1", "7x7_s2", "data", 64, 7, "stride: 2")
    text += pool("pool1/3x3_s2", "conv1/7x7_s2", "pool: MAX kernel_size: 3 stride: 2")
    text += layer("LRN", "pool1/norm1", "pool1/3x3_s2", params=_LRN)
    text += _relued("conv2", "3x3_reduce", "pool1/norm1", 64, 1)
    text += _relued("conv2", "3x3", "conv2/3x3_reduce", 192, 3)
    text += layer("LRN", "conv2/norm2", "conv2/3x3", params=_LRN)
    text += pool("pool2/3x3_s2", "conv2/norm2", "pool: MAX kernel_size: 3 stride: 2")
    x = "pool2/3x3_s2"
    for block, (one, reduce3, three, reduce5, five, projected) in INCEPTION.items():
        name = f"inception_{block}"
        text += _relued(name, "1x1", x, one, 1)
        text += _relued(name, "3x3_reduce", x, reduce3, 1) + _relued(name, "3x3", f"{name}/3x3_reduce", three, 3)
        text += _relued(name, "5x5_reduce", x, reduce5, 1) + _relued(name, "5x5", f"{name}/5x5_reduce", five, 5)
        text += pool(f"{name}/pool", x, "pool: MAX kernel_size: 3 stride: 1 pad: 1")
        text += _relued(name, "pool_proj", f"{name}/pool", projected, 1)
        branches = ("1x1", "3x3", "5x5", "pool_proj")
        text += layer("Concat", x := f"{name}/output", " ".join(f"{name}/{branch}" for branch in branches))
        if block in ("3b", "4e"):
            text += pool(new := f"pool{int(block[0])}/3x3_s2", x, "pool: MAX kernel_size: 3 stride: 2")
            x = new
    text += pool("pool5/7x7_s1", x, "pool: AVE kernel_size: 7 stride: 1")
    text += layer("Dropout", "pool5/drop_7x7_s1", "pool5/7x7_s1", "pool5/7x7_s1")
    text += dense("loss3/classifier", "pool5/7x7_s1", 1000)
    return net(text + layer("Softmax", "prob", "loss3/classifier"), 1, 3, 224, 224)


def _relued(block: str, name: str, bottom: str, filters: int, kernel: int, more: str = "") -> str:
    blob = f"{block}/{name}"
    relu = f"{block}/relu_{name.removesuffix('_s2')}"
    text = conv(blob, bottom, filters, kernel, f"pad: {kernel // 2} {more}", inplace=False)
    return text + layer("ReLU", relu, blob, blob)
