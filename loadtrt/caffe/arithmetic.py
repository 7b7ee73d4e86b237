"""Caffe's layers that compute a number from several: by a matrix, by statistics, or of several bottoms."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from loadtrt.caffe.graph import he
from loadtrt.caffe.prototxt import format_shape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.caffe.graph import Pen, Tensor


def inner_product(pen: Pen) -> list[Tensor]:
    """[leading..., num_output]: the dimensions from `axis` on are one vector of K numbers. Weight [num_output, K], or
    [K, num_output] with `transpose`."""
    param, x = pen.layer.message.inner_product_param, pen.bottom()
    axis = pen.axis(param.axis, len(x.shape))
    if not param.num_output:
        raise pen.wrong("needs num_output")
    rows, inner, outer = math.prod(x.shape[:axis]), math.prod(x.shape[axis:]), param.num_output
    shape = (inner, outer) if param.transpose else (outer, inner)
    matrix = x if x.shape == (rows, inner) else pen.step("flatten", "Flatten", [x.name], (rows, inner), axis=axis)
    inputs = [matrix.name, pen.constant("weight", pen.learned(0, shape, 0.0, he(inner)))]
    if param.bias_term:
        inputs.append(pen.constant("bias", pen.learned(1, (outer,), 0.0, 0.01)))
    trans = 0 if param.transpose else 1
    if axis == 1:
        return pen.last("Gemm", inputs, (rows, outer), transB=trans)
    return pen.reshape(pen.step("gemm", "Gemm", inputs, (rows, outer), transB=trans), (*x.shape[:axis], outer))


def dropout(pen: Pen) -> list[Tensor]:
    """Nothing at inference; without scale_train (Faster R-CNN's fork), times the share that training kept."""
    param, x = pen.layer.message.dropout_param, pen.bottom()
    if param.scale_train:
        return [x] * len(pen.names)
    return pen.last("Mul", [x.name, pen.constant("kept", 1 - param.dropout_ratio)], x.shape)


def softmax(pen: Pen) -> list[Tensor]:
    x = pen.bottom()
    axis = pen.axis(pen.layer.message.softmax_param.axis, len(x.shape))
    return pen.last("Softmax", [x.name], x.shape, axis=axis)


def eltwise(pen: Pen) -> list[Tensor]:
    """SUM of coeff x, PROD or MAX, over bottoms of one shape."""
    param, bottoms = pen.layer.message.eltwise_param, pen.bottoms
    shape = bottoms[0].shape if bottoms else ()
    if len(bottoms) < 2 or any(x.shape != shape for x in bottoms):
        raise pen.wrong(f"needs two bottoms or more of one shape, not {pen.shapes() or 'none'}")
    names = [x.name for x in bottoms]
    if param.coeff and (param.operation != 1 or len(param.coeff) != len(bottoms)):
        raise pen.wrong(
            f"has {len(param.coeff)} coeff: only SUM takes them, one for each of its {len(bottoms)} bottoms"
        )
    if param.operation == 2:
        return pen.last("Max", names, shape)
    if param.operation == 0:
        product = names[0]
        for index, name in enumerate(names[1:-1]):
            product = pen.step(f"product{index}", "Mul", [product, name], shape).name
        return pen.last("Mul", [product, names[-1]], shape)
    for index, coeff in enumerate(param.coeff):
        if coeff != 1:
            scale = pen.constant(f"coeff{index}", coeff)
            names[index] = pen.step(f"term{index}", "Mul", [names[index], scale], shape).name
    return pen.last("Sum", names, shape)


def axpy(pen: Pen) -> list[Tensor]:
    """a x + y, with a number of a for each channel of each x."""
    a, x, y = pen.expect(3)
    if a.shape[:2] != x.shape[:2] or math.prod(a.shape[2:]) != 1 or x.shape != y.shape or len(x.shape) < 2:
        raise pen.wrong(f"needs a number for each channel, and two bottoms of one shape, not {pen.shapes()}")
    factor = a.name
    if len(a.shape) != len(x.shape):
        sizes = pen.constant("sizes", (0, x.shape[1], *[1] * (len(x.shape) - 2)), np.int64)
        factor = pen.step("factor", "Reshape", [a.name, sizes], (*x.shape[:2], *[1] * (len(x.shape) - 2))).name
    product = pen.step("product", "Mul", [factor, x.name], x.shape)
    return pen.last("Add", [product.name, y.name], x.shape)


def batch_norm(pen: Pen) -> list[Tensor]:
    """(x - mean) / sqrt(variance + eps). The file keeps sums: blob 2 is what mean and variance are to be divided by.
    With NVCaffe's `scale_bias`, which a filler of either implies, times blob 3 plus blob 4."""
    param, x = pen.layer.message.batch_norm_param, pen.bottom()
    if param.HasField("use_global_stats") and not param.use_global_stats:
        raise pen.wrong("normalizes by its own batch (use_global_stats: false), which is for training: remove that")
    channels = (pen.channels(),)
    total = float(pen.learned(2, (1,), 1.0, 0.0)[0])
    factor = np.float32(1 / total if total else 0)  # Caffe: nothing learned yet
    mean, variance = pen.learned(0, channels, 0.0, 0.0) * factor, pen.learned(1, channels, 1.0, 0.0) * factor
    scale, shift = np.ones(channels), np.zeros(channels)
    if param.scale_bias or param.HasField("scale_filler") or param.HasField("bias_filler"):
        scale, shift = pen.learned(3, channels, 1.0, 0.0), pen.learned(4, channels, 0.0, 0.0)
    return _normalized(pen, x, (scale, shift, mean, variance), param.eps)


def bn(pen: Pen) -> list[Tensor]:
    """The forks' BN: scale (x - mean) / sqrt(variance + eps) + shift; in SegNet's INFERENCE mode scale x + shift."""
    param, x = pen.layer.message.bn_param, pen.bottom()
    channels = (pen.channels(),)
    scale, shift = pen.learned(0, channels, 1.0, 0.0), pen.learned(1, channels, 0.0, 0.0)
    if not param.HasField("bn_mode"):
        mean, variance = pen.learned(2, channels, 0.0, 0.0), pen.learned(3, channels, 1.0, 0.0)
        return _normalized(pen, x, (scale, shift, mean, variance), param.eps)
    if param.bn_mode == 0:
        raise pen.wrong("normalizes by its own batch (bn_mode: LEARN), which is for training: take the INFERENCE model")
    sizes = (*channels, *[1] * (len(x.shape) - 2))
    product = pen.step("product", "Mul", [x.name, pen.constant("scale", scale.reshape(sizes))], x.shape)
    return pen.last("Add", [product.name, pen.constant("shift", shift.reshape(sizes))], x.shape)


def _normalized(pen: Pen, x: Tensor, statistics: Sequence[Any], eps: float) -> list[Tensor]:
    """ONNX's BatchNormalization; statistics: scale, shift, mean and variance of each channel."""
    words = ("scale", "shift", "mean", "variance")
    names = [pen.constant(word, values) for word, values in zip(words, statistics, strict=True)]
    return pen.last("BatchNormalization", [x.name, *names], x.shape, epsilon=eps)


def scale(pen: Pen) -> list[Tensor]:
    """x scale + bias; both span `num_axes` dimensions from `axis`. With a second bottom, that is the scale."""
    param = pen.layer.message.scale_param
    x, factor, spanned, after = _operand(pen, param, "scale", 1.0)
    if not param.bias_term:
        return pen.last("Mul", [x.name, factor], x.shape)
    product = pen.step("product", "Mul", [x.name, factor], x.shape)
    learned = pen.learned(len(pen.bottoms) % 2, spanned, 0.0, 0.0)  # blob 0 where the scale is a bottom
    return pen.last("Add", [product.name, pen.constant("bias", learned.reshape(*spanned, *after))], x.shape)


def bias(pen: Pen) -> list[Tensor]:
    """x + bias, which spans dimensions as Scale's does."""
    x, shift, _, _ = _operand(pen, pen.layer.message.bias_param, "bias", 0.0)
    return pen.last("Add", [x.name, shift], x.shape)


def _operand(pen: Pen, param: Any, word: str, mean: float) -> tuple[Tensor, str, tuple[int, ...], list[int]]:
    """The first bottom; the name of what is laid on it, blob 0 or the second bottom; the sizes that this spans, and the
    sizes of one behind them that broadcasting needs. mean: of random blobs."""
    x = pen.expect(2)[0] if len(pen.bottoms) == 2 else pen.bottom()
    rank = len(x.shape)
    axis = pen.axis(param.axis, rank)
    if len(pen.bottoms) == 2:
        spanned = pen.bottoms[1].shape
    else:
        spanned = x.shape[axis:] if param.num_axes < 0 else x.shape[axis : axis + param.num_axes]
    if x.shape[axis : axis + len(spanned)] != spanned:
        raise pen.wrong(f"cannot lay {format_shape(spanned)} on {format_shape(x.shape)} from axis {axis}")
    after = [1] * (rank - axis - len(spanned))
    if len(pen.bottoms) == 1:
        return x, pen.constant(word, pen.learned(0, spanned, mean, 0.0).reshape(*spanned, *after)), spanned, after
    name = pen.bottoms[1].name
    if after and spanned:
        axes = pen.constant("axes", range(len(spanned), len(spanned) + len(after)), np.int64)
        name = pen.step("unsqueeze", "Unsqueeze", [name, axes], (*spanned, *after)).name
    return x, name, spanned, after


def mvn(pen: Pen) -> list[Tensor]:
    """x minus its mean, over its deviation plus eps: of each channel, or of each item (across_channels)."""
    param, x = pen.layer.message.mvn_param, pen.image()
    axes = [1, 2, 3] if param.across_channels else [2, 3]
    one = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
    mean = pen.step("mean", "ReduceMean", [x.name], one, axes=axes)
    if not param.normalize_variance:
        return pen.last("Sub", [x.name, mean.name], x.shape)
    centred = pen.step("centred", "Sub", [x.name, mean.name], x.shape)
    square = pen.step("square", "Mul", [centred.name, centred.name], x.shape)
    variance = pen.step("variance", "ReduceMean", [square.name], one, axes=axes)
    deviation = pen.step("deviation", "Sqrt", [variance.name], one)
    divisor = pen.step("divisor", "Add", [deviation.name, pen.constant("eps", param.eps)], one)
    return pen.last("Div", [centred.name, divisor.name], x.shape)


def normalize(pen: Pen) -> list[Tensor]:
    """SSD's: scale x / sqrt(sum of squares + eps), the sum over channels, or over all of an item (across_spatial)."""
    param, x = pen.layer.message.norm_param, pen.image()
    axes = [1, 2, 3] if param.across_spatial else [1]
    one = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
    axes_name = pen.constant("axes", axes, np.int64)
    square = pen.step("square", "Mul", [x.name, x.name], x.shape)
    total = pen.step("sum", "ReduceSum", [square.name, axes_name], one)
    kept = pen.step("kept", "Add", [total.name, pen.constant("eps", param.eps)], one)
    norm = pen.step("norm", "Sqrt", [kept.name], one)
    unit = pen.step("unit", "Div", [x.name, norm.name], x.shape)
    channels = (1,) if param.channel_shared else (x.shape[1],)
    factor = pen.constant("scale", pen.learned(0, channels, 1.0, 0.0).reshape(1, -1, 1, 1))
    return pen.last("Mul", [unit.name, factor], x.shape)


def reduction(pen: Pen) -> list[Tensor]:
    """coeff times the SUM, ASUM (of absolute values), SUMSQ (of squares) or MEAN over all dimensions from `axis` on."""
    param, x = pen.layer.message.reduction_param, pen.bottom()
    axis = pen.axis(param.axis, len(x.shape))
    operator = {1: "ReduceSum", 2: "ReduceL1", 3: "ReduceSumSquare", 4: "ReduceMean"}[param.operation]
    axes, shape = list(range(axis, len(x.shape))), x.shape[:axis]
    inputs = [x.name]
    attributes: dict[str, Any] = {"keepdims": 0, "axes": axes}
    if operator == "ReduceSum":  # in opset 13 it alone takes axes as an input
        inputs.append(pen.constant("axes", attributes.pop("axes"), np.int64))
    if param.coeff == 1:
        return pen.last(operator, inputs, shape, **attributes)
    total = pen.step("reduced", operator, inputs, shape, **attributes)
    return pen.last("Mul", [total.name, pen.constant("coeff", param.coeff)], shape)


def arg_max(pen: Pen) -> list[Tensor]:
    """The place of the largest number along `axis`, as fp32; or, with out_max_val, that number."""
    param, x = pen.layer.message.argmax_param, pen.bottom()
    if param.top_k != 1 or not param.HasField("axis"):
        raise pen.wrong("is supported only with an axis and top_k: 1: take what it reads as output, with --output")
    axis = pen.axis(param.axis, len(x.shape))
    shape = (*x.shape[:axis], 1, *x.shape[axis + 1 :])
    if param.out_max_val:
        return pen.last("ReduceMax", [x.name], shape, axes=[axis])
    place = pen.step("place", "ArgMax", [x.name], shape, axis=axis)
    return pen.last("Cast", [place.name], shape, to=1)  # onnx.TensorProto.FLOAT
