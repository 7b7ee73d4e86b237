"""Caffe's layers that move numbers without arithmetic: joined, cut, reshaped, permuted, repeated."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.caffe.prototxt import format_shape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.caffe.graph import Pen, Tensor


def concat(pen: Pen) -> list[Tensor]:
    param = pen.layer.message.concat_param
    if not pen.bottoms:
        raise pen.wrong("needs a bottom")
    first = pen.bottoms[0].shape
    axis = pen.axis(param.concat_dim if param.HasField("concat_dim") else param.axis, len(first))
    others = {(*x.shape[:axis], 0, *x.shape[axis + 1 :]) for x in pen.bottoms}
    if len(others) != 1:
        raise pen.wrong(f"cannot join {pen.shapes()} along axis {axis}: the other sizes differ")
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
        raise pen.wrong("has sizes below -1, or -1 twice: only one size can be the rest")
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
    # The ends follow from the second bottom's sizes as it runs, so that a range of them can be left open.
    sizes = pen.step("sizes", "Shape", [like.name], [len(x.shape)]).name
    parts = [pen.constant(word, [at], np.int64) for word, at in (("first", axis), ("behind", len(x.shape)))]
    spans = pen.step("spans", "Slice", [sizes, *parts], [len(axes)]).name
    begins, along = (pen.constant(word, values, np.int64) for word, values in (("starts", starts), ("axes", axes)))
    stops = pen.step("stops", "Add", [begins, spans], [len(axes)]).name
    return pen.last("Slice", [x.name, begins, stops, along], (*x.shape[:axis], *like.shape[axis:]))


def permute(pen: Pen) -> list[Tensor]:
    """The dimensions in `order`; those that it does not name follow."""
    x = pen.bottom()
    order = list(pen.layer.message.permute_param.order)
    if len(set(order)) != len(order) or max(order, default=0) >= len(x.shape):
        raise pen.wrong(f"needs an order of different dimensions below {len(x.shape)}, not {format_shape(order)}")
    order += [axis for axis in range(len(x.shape)) if axis not in order]
    return pen.last("Transpose", [x.name], [x.shape[axis] for axis in order], perm=order)


def shuffle_channel(pen: Pen) -> list[Tensor]:
    """Channel i of group g becomes channel i groups + g."""
    x, group = pen.bottom(), pen.layer.message.shuffle_channel_param.group
    if len(x.shape) < 2 or not group or x.shape[1] % group:
        raise pen.wrong(f"cannot share the channels of {format_shape(x.shape)} among group: {group}")
    count, channels, *sizes = x.shape
    return _moved(pen, x, (count, group, channels // group, *sizes), [0, 2, 1, *range(3, len(x.shape) + 1)], x.shape)


def reorg(pen: Pen) -> list[Tensor]:
    """Darknet's: [C, H, W] is read as [C / s^2, s H, s W], and each of the s x s places becomes a block of channels;
    `reverse` undoes it."""
    param, x = pen.layer.message.reorg_param, pen.bottom()
    stride = param.stride
    if len(x.shape) != 4 or not stride or x.shape[1] % stride**2 or x.shape[2] % stride or x.shape[3] % stride:
        raise pen.wrong(f"needs a stride that divides {format_shape(x.shape[2:])}, and whose square divides channels")
    count, channels, height, width = x.shape
    inner = channels // stride**2
    if param.reverse:
        shape, order = (count, stride, stride, inner, height, width), [0, 3, 4, 1, 5, 2]
        return _moved(pen, x, shape, order, (count, inner, height * stride, width * stride))
    shape, order = (count, inner, height, stride, width, stride), [0, 3, 5, 1, 2, 4]
    return _moved(pen, x, shape, order, (count, channels * stride**2, height // stride, width // stride))


def tile(pen: Pen) -> list[Tensor]:
    """The dimension `axis`, `tiles` times."""
    param, x = pen.layer.message.tile_param, pen.bottom()
    axis = pen.axis(param.axis, len(x.shape))
    if param.tiles < 1:
        raise pen.wrong("needs tiles above 0")
    repeats = [param.tiles if at == axis else 1 for at in range(len(x.shape))]
    shape = [size * times for size, times in zip(x.shape, repeats, strict=True)]
    return pen.last("Tile", [x.name, pen.constant("repeats", repeats, np.int64)], shape)


def _moved(pen: Pen, x: Tensor, split: Sequence[int], order: Sequence[int], shape: Sequence[int]) -> list[Tensor]:
    """x reshaped to `split`, its dimensions put in `order`, reshaped to `shape`; the first stays."""
    parts = pen.step("parts", "Reshape", [x.name, pen.constant("split", (0, *split[1:]), np.int64)], split)
    moved = pen.step("moved", "Transpose", [parts.name], [split[axis] for axis in order], perm=list(order))
    return pen.reshape(moved, shape)
