"""Caffe's layers without a window: element by element, by a matrix, or moving numbers without arithmetic."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.caffe.graph import he
from loadtrt.caffe.prototxt import format_shape

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


def concat(pen: Pen) -> list[Tensor]:
    param = pen.layer.message.concat_param
    if not pen.bottoms:
        raise pen.wrong("needs a bottom")
    first = pen.bottoms[0].shape
    axis = pen.axis(param.concat_dim if param.HasField("concat_dim") else param.axis, len(first))
    others = {(*x.shape[:axis], 0, *x.shape[axis + 1 :]) for x in pen.bottoms}
    if len(others) != 1:
        shapes = " and ".join(format_shape(x.shape) for x in pen.bottoms)
        raise pen.wrong(f"cannot join {shapes} along axis {axis}: the other sizes differ")
    shape = (*first[:axis], sum(x.shape[axis] for x in pen.bottoms), *first[axis + 1 :])
    return pen.last("Concat", [x.name for x in pen.bottoms], shape, axis=axis)


def slice_(pen: Pen) -> list[Tensor]:
    """Cut along `axis` at the slice points, or in equal parts, one for each top."""
    param, x = pen.layer.message.slice_param, pen.bottom()
    axis = pen.axis(param.slice_dim if param.HasField("slice_dim") else param.axis, len(x.shape))
    size, count = x.shape[axis], len(pen.names)
    if not count:
        raise pen.wrong("needs a top")
    points = list(param.slice_point)
    if not points:
        if size % count:
            raise pen.wrong(f"cannot cut {size} into {count} equal parts: give slice_point")
        points = [size // count * index for index in range(1, count)]
    parts = [end - start for start, end in pairwise([0, *points, size])]
    if len(parts) != count or min(parts) < 1:
        raise pen.wrong(f"needs {count - 1} rising slice_point below {size}, not {format_shape(points)}")
    shapes = [(*x.shape[:axis], part, *x.shape[axis + 1 :]) for part in parts]
    return pen.last("Split", [x.name, pen.constant("parts", parts, np.int64)], *shapes, axis=axis)


def flatten(pen: Pen) -> list[Tensor]:
    """The dimensions from `axis` to `end_axis` become one."""
    param, x = pen.layer.message.flatten_param, pen.bottom()
    rank = len(x.shape)
    axis, end = pen.axis(param.axis, rank), pen.axis(param.end_axis, rank)
    if axis > end:
        raise pen.wrong(f"has axis {axis} behind end_axis {end}")
    shape = (*x.shape[:axis], math.prod(x.shape[axis : end + 1]), *x.shape[end + 1 :])
    if axis == 1 and end == rank - 1:
        return pen.last("Flatten", [x.name], shape, axis=1)
    return pen.reshape(x, shape)


def reshape(pen: Pen) -> list[Tensor]:
    """The `num_axes` dimensions from `axis` on become `shape`, where 0 copies a size and -1 takes what is left."""
    param, x = pen.layer.message.reshape_param, pen.bottom()
    rank = len(x.shape)
    # Negative axes count from behind the last: -1 inserts dimensions there.
    start = param.axis if param.axis >= 0 else rank + param.axis + 1
    end = rank if param.num_axes == -1 else start + param.num_axes
    if not 0 <= start <= end <= rank:
        raise pen.wrong(f"reshapes dimensions {start} to {end}, where its bottom has {rank}")
    sizes = list(param.shape.dim)
    if any(size == 0 and start + index >= rank for index, size in enumerate(sizes)):
        raise pen.wrong(f"copies (dim: 0) a dimension that its bottom of {rank} lacks")
    if sizes.count(-1) > 1 or min(sizes, default=0) < -1:
        raise pen.wrong("has sizes below -1, or -1 twice: one alone can be what is left")
    sizes = [size or x.shape[start + index] for index, size in enumerate(sizes)]
    shape = [*x.shape[:start], *sizes, *x.shape[end:]]
    if -1 in shape:
        known = -math.prod(shape)
        shape[shape.index(-1)] = math.prod(x.shape) // known
    return pen.reshape(x, shape)


def crop(pen: Pen) -> list[Tensor]:
    """The first bottom cut to the second's sizes, from `axis` on, beginning at `offset`."""
    param = pen.layer.message.crop_param
    x, like = pen.expect(2)
    axis = pen.axis(param.axis, len(x.shape))
    axes = list(range(axis, len(x.shape)))
    if len(param.offset) not in (0, 1, len(axes)) or len(like.shape) != len(x.shape):
        raise pen.wrong(f"needs no offset, one, or {len(axes)}, and two bottoms of the same number of dimensions")
    starts = list(param.offset) if len(param.offset) == len(axes) else (list(param.offset) or [0]) * len(axes)
    ends = [start + like.shape[at] for start, at in zip(starts, axes, strict=True)]
    if any(end > x.shape[at] for end, at in zip(ends, axes, strict=True)):
        raise pen.wrong(
            f"cannot cut {format_shape(like.shape)} out of {format_shape(x.shape)} at {format_shape(starts)}"
        )
    bounds = {"starts": starts, "ends": ends, "axes": axes}
    names = [pen.constant(word, values, np.int64) for word, values in bounds.items()]
    return pen.last("Slice", [x.name, *names], (*x.shape[:axis], *like.shape[axis:]))
