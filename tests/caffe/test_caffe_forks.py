"""Layers that TensorRT's own parser read beyond the first ones, and those of common forks: against their rule in numpy,
and against OpenCV's Caffe reader where it reads them."""

from __future__ import annotations

from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest

from caffe_files import arrays, error, inputs_of, run_onnx, run_opencv, write
from caffe_nets import SHAPE, layer, net, pool
from loadtrt.caffe import convert

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from caffe_files import Blobs

TOLERANCE = 1e-5
N, C, H, W = SHAPE


class Case(NamedTuple):
    """`rule`: what the layers compute of the input. `opencv`: whether OpenCV's Caffe reader reads them rightly."""

    text: str
    rule: Callable[[Any], Any]
    blobs: Blobs = MappingProxyType({})
    opencv: bool = True


def _one(kind: str, rule: Callable[[Any], Any], params: str = "", *, opencv: bool = True) -> Case:
    return Case(net(layer(kind, params=params)), rule, {}, opencv)


def _softplus(x: Any) -> Any:
    return np.logaddexp(0, x)


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def _elu(alpha: float) -> Callable[[Any], Any]:
    return lambda x: np.where(x > 0, x, alpha * np.expm1(x))


def _selu(x: Any) -> Any:
    return 1.0507009873554805 * _elu(1.6732632423543772)(x)


def _leaky6(x: Any) -> Any:
    return np.minimum(np.where(x > 0, x, 0.1 * x), 6)


def _channels(values: Any) -> Any:
    return np.reshape(values, (-1, 1, 1))


def _depthwise(weight: Any, bias: Any, stride: int = 1) -> Callable[[Any], Any]:
    """A kernel [outputs, 1, 3, 3] with padding 1: outputs / channels for each channel."""

    def rule(x: Any) -> Any:
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))).repeat(len(weight) // x.shape[1], axis=1)
        y = np.zeros_like(padded[:, :, 1:-1, 1:-1])
        for row in range(3):
            for column in range(3):
                taps = padded[:, :, row : row + x.shape[2], column : column + x.shape[3]]
                y += _channels(weight[:, 0, row, column]) * taps
        return (y + _channels(bias))[:, :, ::stride, ::stride]

    return rule


def _interpolated(height: int, width: int, crop: tuple[int, int] = (0, 0)) -> Callable[[Any], Any]:
    """Bilinear, corners on corners, as Interp's loops have it; one row or column lies at the beginning."""

    def rule(x: Any) -> Any:
        x = x[:, :, crop[0] : x.shape[2] - crop[1], crop[0] : x.shape[3] - crop[1]]
        for axis, size in ((2, height), (3, width)):
            last = x.shape[axis] - 1
            at = np.arange(size) * (last / (size - 1) if size > 1 else 0)
            low = np.minimum(np.floor(at + 1e-9).astype(int), last)
            share = (at - low).reshape([-1 if axis == other else 1 for other in range(4)])
            x = x.take(low, axis) * (1 - share) + x.take(np.minimum(low + 1, last), axis) * share
        return x

    return rule


def _reorg(x: Any, stride: int = 2) -> Any:
    """Darknet's loops: each number of the output by its place."""
    n, c, h, w = x.shape
    inner = c // stride**2
    view, y = x.reshape(n, inner, h * stride, w * stride), np.zeros((n, c, h, w), x.dtype)
    for k in range(c):
        row, column = divmod(k // inner, stride)
        y[:, k] = view[:, k % inner, row::stride, column::stride]
    return y.reshape(n, c * stride**2, h // stride, w // stride)


def _normalized(axes: tuple[int, ...], scale: Any) -> Callable[[Any], Any]:
    return lambda x: _channels(scale) * x / np.sqrt((x**2).sum(axes, keepdims=True) + 1e-10)


def _centred(x: Any, axes: tuple[int, ...] = (2, 3)) -> Any:
    return x - x.mean(axes, keepdims=True)


def _over_deviation(axes: tuple[int, ...]) -> Callable[[Any], Any]:
    return lambda x: _centred(x, axes) / (x.std(axes, keepdims=True) + 1e-9)


_WEIGHT, _BIAS = arrays((C, 1, 3, 3), (C,))
_WEIGHT2, _BIAS2 = arrays((2 * C, 1, 3, 3), (2 * C,))
_SPREAD = [np.linspace(-1, 1, C), np.linspace(0.5, 2, C)]
_CONV = "convolution_param {{ num_output: {} kernel_size: 3 pad: 1 {} }}"
_MEAN = pool("m", "data", "pool: AVE global_pooling: true")

CASES: dict[str, Case] = {
    "AbsVal": _one("AbsVal", np.abs),
    "BNLL": _one("BNLL", _softplus),
    "Clip": _one("Clip", lambda x: np.clip(x, -0.5, 0.8), "clip_param { min: -0.5 max: 0.8 }", opencv=False),
    "ELU": _one("ELU", _elu(1)),
    "ELU, alpha": _one("ELU", _elu(0.5), "elu_param { alpha: 0.5 }"),
    "Exp": _one("Exp", lambda x: 2 ** (0.5 * x + 1), "exp_param { base: 2 scale: 0.5 shift: 1 }"),
    "Exp of e": _one("Exp", np.exp),
    "Log": _one("Log", lambda x: np.log2(0.1 * x + 2), "log_param { base: 2 scale: 0.1 shift: 2 }", opencv=False),
    "Log of e": _one("Log", lambda x: np.log(0.1 * x + 2), "log_param { scale: 0.1 shift: 2 }", opencv=False),
    "Permute": _one(
        "Permute", lambda x: x.transpose(0, 2, 3, 1), "permute_param { order: 0 order: 2 order: 3 order: 1 }"
    ),
    "Permute, the rest": _one(
        "Permute", lambda x: x.transpose(0, 3, 1, 2), "permute_param { order: 0 order: 3 }", opencv=False
    ),
    "ReLU6": _one("ReLU6", lambda x: np.clip(x, 0, 6)),
    "ReLU6, leaky": _one("ReLU6", _leaky6, "relu_param { negative_slope: 0.1 }", opencv=False),
    "ReLU6, leaky by its own": _one("ReLU6", _leaky6, "relu6_param { negative_slope: 0.1 }", opencv=False),
    "Mish": _one("Mish", lambda x: x * np.tanh(_softplus(x))),
    "Swish": _one("Swish", lambda x: x * _sigmoid(x)),
    "Swish, beta": _one("Swish", lambda x: x * _sigmoid(2 * x), "swish_param { beta: 2 }", opencv=False),
    "HardSwish": _one("HardSwish", lambda x: x * np.clip(x + 3, 0, 6) / 6),
    "SELU": _one("SELU", _selu, opencv=False),
    "SeLu": _one("SeLu", _selu, opencv=False),
    "ShuffleChannel": _one(
        "ShuffleChannel",
        lambda x: x.reshape(N, 3, 2, H, W).transpose(0, 2, 1, 3, 4).reshape(SHAPE),
        "shuffle_channel_param { group: 3 }",
    ),
    "Tile": _one("Tile", lambda x: np.tile(x, (1, 1, 3, 1)), "tile_param { axis: -2 tiles: 3 }", opencv=False),
    "Reorg": Case(net(layer("Reorg", params="reorg_param { stride: 2 }"), 2, 8, 6, 4), _reorg),
    "Upsample": _one("Upsample", lambda x: x.repeat(3, 2).repeat(3, 3), "upsample_param { scale: 3 }", opencv=False),
    "Interp to a size": _one("Interp", _interpolated(20, 7), "interp_param { height: 20 width: 7 }"),
    "Interp to one pixel": _one("Interp", _interpolated(1, 1), "interp_param { height: 1 width: 1 }"),
    "Interp, zoomed": _one("Interp", _interpolated(37, 31), "interp_param { zoom_factor: 3 }"),
    "Interp, shrunk": _one("Interp", _interpolated(7, 6), "interp_param { shrink_factor: 2 }", opencv=False),
    "Interp, both": _one(
        "Interp", _interpolated(13, 10), "interp_param { shrink_factor: 3 zoom_factor: 3 }", opencv=False
    ),
    "Interp, cropped": _one(
        "Interp", _interpolated(19, 15, (1, 2)), "interp_param { zoom_factor: 2 pad_beg: -1 pad_end: -2 }", opencv=False
    ),
    "MVN": _one("MVN", _over_deviation((2, 3))),
    "MVN across channels": _one("MVN", _over_deviation((1, 2, 3)), "mvn_param { across_channels: true }"),
    "MVN, the mean alone": _one("MVN", _centred, "mvn_param { normalize_variance: false }"),
    "ArgMax": _one(
        "ArgMax", lambda x: x.argmax(1)[:, None].astype(np.float32), "argmax_param { axis: 1 }", opencv=False
    ),
    "ArgMax, the number": _one(
        "ArgMax", lambda x: x.max(2, keepdims=True), "argmax_param { axis: 2 out_max_val: true }", opencv=False
    ),
    "Normalize": Case(
        net(layer("Normalize", params="norm_param { across_spatial: false channel_shared: false }")),
        _normalized((1,), _SPREAD[1]),
        {"out": [_SPREAD[1]]},
    ),
    "Normalize, one scale": Case(net(layer("Normalize")), _normalized((1, 2, 3), [20.0]), {"out": [[20.0]]}),
    "Bias": Case(net(layer("Bias")), lambda x: x + _channels(_SPREAD[0]), {"out": [_SPREAD[0]]}, False),
    "Bias by a blob": Case(
        net(_MEAN + layer("Flatten", "f", "m") + layer("Bias", bottoms="data f", params="bias_param { axis: 0 }")),
        lambda x: x + x.mean((2, 3), keepdims=True),
        {},
        False,
    ),
    "BN": Case(
        net(layer("BN", params="bn_param { eps: 0.001 momentum: 0.9 frozen: true }")),
        lambda x: _channels(_SPREAD[1]) * (x - 0.4) / np.sqrt(0.8 + 0.001) + _channels(_SPREAD[0]),
        {"out": [_SPREAD[1], _SPREAD[0], np.full(C, 0.4), np.full(C, 0.8)]},
        False,
    ),
    "BN for inference": Case(
        net(layer("BN", params="bn_param { bn_mode: INFERENCE }")),
        lambda x: _channels(_SPREAD[1]) * x + _channels(_SPREAD[0]),
        {"out": [_SPREAD[1], _SPREAD[0]]},
        False,
    ),
    "Dropout that scales at inference": _one(
        "Dropout", lambda x: 0.6 * x, "dropout_param { dropout_ratio: 0.4 scale_train: false }"
    ),
    "Axpy": Case(
        net(_MEAN + layer("TanH", "t") + layer("Axpy", bottoms="m data t")),
        lambda x: x.mean((2, 3), keepdims=True) * x + np.tanh(x),
        {},
        False,
    ),
    "Axpy by rows": Case(
        net(_MEAN + layer("Flatten", "f", "m") + layer("TanH", "t") + layer("Axpy", bottoms="f data t")),
        lambda x: x.mean((2, 3), keepdims=True) * x + np.tanh(x),
        {},
        False,
    ),
    "depthwise, two outputs a channel": Case(
        net(layer("DepthwiseConvolution", params=_CONV.format(2 * C, "stride: 2"))),
        _depthwise(_WEIGHT2, _BIAS2, 2),
        {"out": [_WEIGHT2, _BIAS2]},
        False,
    ),
    "depthwise with its group": Case(
        net(layer("DepthwiseConvolution", params=_CONV.format(C, f"group: {C}"))),
        _depthwise(_WEIGHT, _BIAS),
        {"out": [_WEIGHT, _BIAS]},
        False,
    ),
}
for _params in ("scale_bias: true", "bias_filler { type: 'constant' value: 0.1 }", "scale_filler { value: 1 }"):
    CASES[f"BatchNorm with {_params}"] = Case(
        net(layer("BatchNorm", params=f"batch_norm_param {{ {_params} eps: 0.001 }}")),
        lambda x: _channels(_SPREAD[1]) * (x - 0.2) / np.sqrt(0.4 + 0.001) + _channels(_SPREAD[0]),
        {"out": [np.full(C, 0.4), np.full(C, 0.8), [2.0], _SPREAD[1], _SPREAD[0]]},
        False,
    )
for _kind in ("DepthwiseConvolution", "ConvolutionDepthwise", "DepthWiseConvolution", "ConvolutionDW", "ConvDepthwise"):
    CASES[_kind] = Case(
        net(layer(_kind, params=_CONV.format(C, ""))),
        _depthwise(_WEIGHT, _BIAS),
        {"out": [_WEIGHT, _BIAS]},
        _kind == "ConvolutionDepthwise",
    )
for _axis in (1, -1):
    _axes = tuple(range(_axis % 4, 4))
    for _word, _reduced in (("SUM", partial(np.sum, axis=_axes)), ("MEAN", partial(np.mean, axis=_axes))):
        _params = f"reduction_param {{ operation: {_word} axis: {_axis} }}"
        CASES[f"Reduction {_word} from {_axis}"] = _one("Reduction", _reduced, _params, opencv=False)
CASES["Reduction ASUM"] = _one(
    "Reduction",
    lambda x: 0.5 * np.abs(x).sum((2, 3)),
    "reduction_param { operation: ASUM axis: 2 coeff: 0.5 }",
    opencv=False,
)
CASES["Reduction SUMSQ of all"] = _one(
    "Reduction", lambda x: (x**2).sum(), "reduction_param { operation: SUMSQ }", opencv=False
)


@pytest.mark.parametrize("name", CASES)
def test_a_layer_computes_its_rule(tmp_path: Path, name: str) -> None:
    """max |ours − the rule| < 1e-5 max |the rule|, from weights in a file; so does OpenCV where it reads the layer."""
    case = CASES[name]
    deploy, file = write(tmp_path, case.text, case.blobs)
    weights = file if case.blobs else None
    model = convert(deploy, weights)
    feeds = {name: 4 * value for name, value in inputs_of(model).items()}  # beyond the knees of ReLU6 and HardSwish
    expected = case.rule(feeds["data"].astype(np.float64))
    ours = run_onnx(model, feeds)[0]
    assert error(ours, np.asarray(expected)) < TOLERANCE
    if case.opencv:
        theirs = run_opencv(deploy, weights, feeds, ["out"])[0]
        assert error(theirs.reshape(ours.shape), np.asarray(expected)) < 1e-4


def test_tensorrt_reads_every_layer(tmp_path: Path) -> None:
    """The parser of TensorRT for RTX takes them all, with the shapes that the model declares."""
    trt = pytest.importorskip("tensorrt_rtx")
    logger = trt.Logger(trt.Logger.ERROR)
    for name, case in CASES.items():
        deploy, file = write(tmp_path, case.text, case.blobs)
        model = convert(deploy, file if case.blobs else None)
        builder = trt.Builder(logger)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, logger)
        assert parser.parse(model.SerializeToString()), name
        shapes = [tuple(network.get_output(index).shape) for index in range(network.num_outputs)]
        declared = [tuple(dim.dim_value for dim in out.type.tensor_type.shape.dim) for out in model.graph.output]
        assert shapes == declared, name
