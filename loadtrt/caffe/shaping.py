"""Layers that only move numbers: Concat, Slice, Flatten, Reshape, Crop."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.caffe.prototxt import format_shape

if TYPE_CHECKING:
    from loadtrt.caffe.graph import Pen, Tensor


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
