"""Layers that compute element by element or by a matrix: their outputs' shapes follow at once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.caffe.prototxt import format_shape
from loadtrt.caffe.weights import he

if TYPE_CHECKING:
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


def relu(pen: Pen) -> list[Tensor]:
    slope, x = pen.layer.message.relu_param.negative_slope, pen.bottom()
    if slope:
        return pen.last("LeakyRelu", [x.name], x.shape, alpha=slope)
    return pen.last("Relu", [x.name], x.shape)


def prelu(pen: Pen) -> list[Tensor]:
    """max(x, 0) + slope min(x, 0), a slope for each channel or (channel_shared) one."""
    x = pen.bottom()
    if len(x.shape) < 2:
        raise pen.wrong("needs a bottom with channels")
    if pen.layer.message.prelu_param.channel_shared:
        slope = pen.learned(0, (1,), 0.25, 0.0)
    else:
        slope = pen.learned(0, (x.shape[1],), 0.25, 0.0).reshape(-1, *[1] * (len(x.shape) - 2))
    return pen.last("PRelu", [x.name, pen.constant("slope", slope)], x.shape)


def sigmoid(pen: Pen) -> list[Tensor]:
    return pen.last("Sigmoid", [pen.bottom().name], pen.bottom().shape)


def tanh(pen: Pen) -> list[Tensor]:
    return pen.last("Tanh", [pen.bottom().name], pen.bottom().shape)


def softmax(pen: Pen) -> list[Tensor]:
    x = pen.bottom()
    axis = pen.axis(pen.layer.message.softmax_param.axis, len(x.shape))
    return pen.last("Softmax", [x.name], x.shape, axis=axis)


def power(pen: Pen) -> list[Tensor]:
    """(shift + scale x)^power; what does nothing is left out."""
    param, x = pen.layer.message.power_param, pen.bottom()
    steps = [("Mul", "scale", param.scale, 1.0), ("Add", "shift", param.shift, 0.0), ("Pow", "power", param.power, 1.0)]
    steps = [step for step in steps if step[2] != step[3]] or [("Identity", "", 0.0, 0.0)]
    for operator, word, value, _ in steps[:-1]:
        x = pen.step(word, operator, [x.name, pen.constant(word, value)], x.shape)
    operator, word, value, _ = steps[-1]
    return pen.last(operator, [x.name, pen.constant(word, value)] if word else [x.name], x.shape)


def eltwise(pen: Pen) -> list[Tensor]:
    """SUM of coeff x, PROD or MAX, over bottoms of one shape."""
    param, bottoms = pen.layer.message.eltwise_param, pen.bottoms
    shape = bottoms[0].shape if bottoms else ()
    if len(bottoms) < 2 or any(x.shape != shape for x in bottoms):
        shapes = " and ".join(format_shape(x.shape) for x in bottoms)
        raise pen.wrong(f"needs two bottoms or more of one shape, not {shapes or 'none'}")
    names = [x.name for x in bottoms]
    if param.coeff and (param.operation != 1 or len(param.coeff) != len(bottoms)):
        raise pen.wrong(
            f"has {len(param.coeff)} coeff: SUM alone takes them, one for each of its {len(bottoms)} bottoms"
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


def batch_norm(pen: Pen) -> list[Tensor]:
    """(x - mean) / sqrt(variance + eps). The file keeps sums: blob 2 is what mean and variance are to be divided by."""
    param, x = pen.layer.message.batch_norm_param, pen.bottom()
    if len(x.shape) < 2:
        raise pen.wrong("needs a bottom with channels")
    if param.HasField("use_global_stats") and not param.use_global_stats:
        raise pen.wrong("normalizes by its own batch (use_global_stats: false), which is for training: remove that")
    channels = (x.shape[1],)
    total = float(pen.learned(2, (1,), 1.0, 0.0)[0])
    factor = np.float32(1 / total if total else 0)  # Caffe: nothing learned yet
    mean = pen.constant("mean", pen.learned(0, channels, 0.0, 0.0) * factor)
    variance = pen.constant("variance", pen.learned(1, channels, 1.0, 0.0) * factor)
    ones, zeros = pen.constant("scale", np.ones(channels)), pen.constant("shift", np.zeros(channels))
    return pen.last("BatchNormalization", [x.name, ones, zeros, mean, variance], x.shape, epsilon=param.eps)


def scale(pen: Pen) -> list[Tensor]:
    """x scale + bias; both span `num_axes` dimensions from `axis`. With a second bottom, that is the scale."""
    param, bottoms = pen.layer.message.scale_param, pen.bottoms
    x = pen.expect(2)[0] if len(bottoms) == 2 else pen.bottom()
    rank = len(x.shape)
    axis = pen.axis(param.axis, rank)
    if len(bottoms) == 2:
        spanned = bottoms[1].shape
    else:
        spanned = x.shape[axis:] if param.num_axes < 0 else x.shape[axis : axis + param.num_axes]
    if x.shape[axis : axis + len(spanned)] != spanned:
        raise pen.wrong(f"cannot lay {format_shape(spanned)} on {format_shape(x.shape)} from axis {axis}")
    after = rank - axis - len(spanned)  # sizes of one that broadcasting needs
    if len(bottoms) == 1:
        factor = pen.constant("scale", pen.learned(0, spanned, 1.0, 0.0).reshape(*spanned, *[1] * after))
    elif after and spanned:
        axes = pen.constant("axes", range(len(spanned), len(spanned) + after), np.int64)
        factor = pen.step("unsqueeze", "Unsqueeze", [bottoms[1].name, axes], (*spanned, *[1] * after)).name
    else:
        factor = bottoms[1].name
    if not param.bias_term:
        return pen.last("Mul", [x.name, factor], x.shape)
    product = pen.step("product", "Mul", [x.name, factor], x.shape)
    learned = pen.learned(len(bottoms) % 2, spanned, 0.0, 0.0)  # blob 0 where the scale is a bottom
    return pen.last("Add", [product.name, pen.constant("bias", learned.reshape(*spanned, *[1] * after))], x.shape)
