"""Layers that slide a window: Convolution, Deconvolution, Pooling, LRN. Sizes by Caffe's rules, not by ONNX's."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from loadtrt.caffe.graph import NOWHERE, he
from loadtrt.caffe.prototxt import format_shape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.caffe.graph import Pen, Tensor


def _convolved(pen: Pen, *, transposed: bool) -> list[Tensor]:
    """size = floor((size + 2 pad - (dilation (kernel - 1) + 1)) / stride) + 1, as ONNX's Conv; transposed, size =
    stride (size - 1) + dilation (kernel - 1) + 1 - 2 pad, as its ConvTranspose. Weight [outputs, channels / group,
    kernel...], or, transposed, [channels, outputs / group, kernel...]."""
    param, x = pen.layer.message.convolution_param, pen.bottom()
    pads, kernel, strides, dilation = _convolution_window(pen, param, x)
    channels, outputs, group = x.shape[1], param.num_output, param.group
    sizes = []
    for size, pad, k, stride, apart in zip(x.shape[2:], pads, kernel, strides, dilation, strict=True):
        extent = apart * (k - 1) + 1
        sizes.append(stride * (size - 1) + extent - 2 * pad if transposed else (size + 2 * pad - extent) // stride + 1)
    if min(sizes) < 1:
        raise pen.wrong(f"leaves nothing of its input of {format_shape(x.shape[2:])}: check kernel, pad and stride")
    shape = (channels, outputs // group, *kernel) if transposed else (outputs, channels // group, *kernel)
    weight = pen.learned(0, shape, 0.0, he(channels // group * math.prod(kernel)))
    inputs = [x.name, pen.constant("weight", weight)]
    if param.bias_term:
        inputs.append(pen.constant("bias", pen.learned(1, (outputs,), 0.0, 0.01)))
    window = {"kernel_shape": kernel, "strides": strides, "pads": pads * 2, "dilations": dilation}
    operator = "ConvTranspose" if transposed else "Conv"
    return pen.last(operator, inputs, (x.shape[0], outputs, *sizes), group=group, **window)


convolution = partial(_convolved, transposed=False)
deconvolution = partial(_convolved, transposed=True)


def depthwise(pen: Pen) -> list[Tensor]:
    """The forks' convolution of each channel by itself: group is the number of channels, whether it is said or not."""
    param, x = pen.layer.message.convolution_param, pen.bottom()
    channels = x.shape[1] if len(x.shape) > 1 else 0
    if param.HasField("group") and param.group not in (1, channels):
        raise pen.wrong(f"has group: {param.group}, where it is for each of {channels} channels alone: leave group out")
    param.group = channels
    return convolution(pen)


def _convolution_window(pen: Pen, param: Any, x: Tensor) -> tuple[list[int], ...]:
    """Pads, kernel, strides, dilations, one for each spatial dimension."""
    if len(x.shape) < 3 or pen.axis(param.axis, len(x.shape)) != 1:
        raise pen.wrong(f"needs a bottom of batch, channels and sizes (axis 1), not of {len(x.shape)} dimensions")
    if not param.num_output:
        raise pen.wrong("needs num_output")
    if not param.group or x.shape[1] % param.group or param.num_output % param.group:
        raise pen.wrong(f"cannot share {x.shape[1]} channels and {param.num_output} outputs among group: {param.group}")
    return tuple(_sizes(pen, param, word, len(x.shape) - 2) for word in _WINDOW)


# Each size of a window: the field for all dimensions, the default, and what must be above 0, in words.
_WINDOW = {
    "pad": ("pad", 0, ""),
    "kernel": ("kernel_size", 0, "kernel_size, or kernel_h and kernel_w,"),
    "stride": ("stride", 1, "a stride"),
    "dilation": ("dilation", 1, "a dilation"),
}


def _sizes(pen: Pen, param: Any, word: str, count: int) -> list[int]:
    """One number for each of `count` dimensions: word_h and word_w, or the field once for all or once each."""
    field, default, above_0 = _WINDOW[word]
    values, sides = list(getattr(param, field)), (f"{word}_h", f"{word}_w")
    if word != "dilation" and any(map(param.HasField, sides)):
        if values or count != 2:
            raise pen.wrong(f"has {sides[0]} or {sides[1]} as well as {field}: give one or the other, for 2 dimensions")
        values = [getattr(param, side) if param.HasField(side) else default for side in sides]
    if len(values) not in (0, 1, count):
        raise pen.wrong(f"has {len(values)} of {field}, where its bottom has {count} spatial dimensions")
    sizes = values if len(values) == count else (values or [default]) * count
    if above_0 and min(sizes) < 1:
        raise pen.wrong(f"needs {above_0} above 0")
    return sizes


def pooled_size(size: int, kernel: int, stride: int, pad: int, padded: bool, floor: bool = False) -> int:
    """Caffe's pooled size: ceil((size + 2 pad - kernel) / stride) + 1.

    padded: whether either dimension is: the last window must start inside the image or its front padding, or it is
        dropped.
    floor: rounded down instead.
    """
    span = size + 2 * pad - kernel
    pooled = (span // stride if floor else -(-span // stride)) + 1
    if padded and (pooled - 1) * stride >= size + pad:
        pooled -= 1
    return pooled


def _rounds_down(pen: Pen, param: Any) -> bool:
    """round_mode: FLOOR is BVLC's word (2018), ceil_mode: false that of forks (BVLC/caffe #3057)."""
    floor = param.HasField("ceil_mode") and not param.ceil_mode
    if param.HasField("ceil_mode") and param.HasField("round_mode") and floor != (param.round_mode == 1):
        raise pen.wrong("has a round_mode and a ceil_mode that contradict each other: leave one out")
    return floor or param.round_mode == 1


def _is_darknet(pen: Pen, window: Sequence[tuple[int, int, int, int]]) -> bool:
    """Whether the pool is the one of YOLOv3-tiny that darknet2caffe's own Caffe leaves at its size: of 2, stride 1. The
    file does not say so, but its layers have that converter's names, and its Upsample is in few forks."""
    named = re.fullmatch(r"layer\d+-maxpool", pen.layer.name) and "Upsample" in pen.graph.types
    return bool(named) and all(of[1:] == (2, 1, 0) for of in window)


def pooling(pen: Pen) -> list[Tensor]:
    """MAX ignores padding. AVE divides by the part of the window inside the padded image: padding counts, what hangs
    over its end does not.

    Rounding up is written as padding at the end, which all readers of ONNX take alike; of ceil_mode they do not.
    """
    param, x = pen.layer.message.pooling_param, pen.image()
    if pen.layer.tops[1:] and pen.layer.tops[1] in pen.graph.read:
        raise pen.wrong("has a second top, for the places of the maxima, that is read: use --output before its reader")
    method = {0: "MaxPool", 1: "AveragePool"}.get(param.pool)
    if method is None:
        raise pen.wrong("pools STOCHASTIC, which is for training: use MAX or AVE")
    pads, strides = _sizes(pen, param, "pad", 2), _sizes(pen, param, "stride", 2)
    if param.global_pooling:
        if param.kernel_size or param.HasField("kernel_h") or param.HasField("kernel_w"):
            raise pen.wrong("has global_pooling and a kernel: give one or the other")
        if pads != [0, 0] or strides != [1, 1]:
            raise pen.wrong("has global_pooling, which takes neither pad nor stride")
        return _pooled(pen, f"Global{method}", x, [1, 1])
    kernel, sizes = _sizes(pen, param, "kernel", 2), x.shape[2:]
    window = list(zip(sizes, kernel, strides, pads, strict=True))
    if any(pad >= k for _, k, _, pad in window):
        raise pen.wrong("has padding as large as its kernel: it must be smaller")
    pooled = [pooled_size(*of, padded=any(pads), floor=_rounds_down(pen, param)) for of in window]
    if _is_darknet(pen, window):
        pooled = list(sizes)
    if min(pooled) < 1:
        raise pen.wrong(f"has a kernel larger than its input of {sizes[0]}x{sizes[1]}")
    if any((count - 1) * s - pad >= size for count, (size, _, s, pad) in zip(pooled, window, strict=True)):
        raise pen.wrong("has windows that are outside the image: its stride is larger than its kernel")
    # How far the last windows reach beyond the image, its padding at the end included.
    ends = [max(0, (n - 1) * s + k - pad - size) for n, (size, k, s, pad) in zip(pooled, window, strict=True)]
    overhang = [max(0, end - pad) for end, pad in zip(ends, pads, strict=True)]
    attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": strides, "pads": [*pads, *ends]}
    if method == "AveragePool":
        if any(pads) and any(overhang):
            around = pen.constant("pads", [0, 0, *pads, 0, 0, *pads], np.int64)
            grown = [size + 2 * pad for size, pad in zip(sizes, pads, strict=True)]
            x = pen.step("pad", "Pad", [x.name, around], (*x.shape[:2], *grown))
            attributes |= {"pads": [0, 0, *overhang], "count_include_pad": 0}
        elif any(pads):
            attributes["count_include_pad"] = 1
    return _pooled(pen, method, x, pooled, **attributes)


def _pooled(pen: Pen, operator: str, x: Tensor, sizes: list[int], **attributes: Any) -> list[Tensor]:
    """The layer's last node. A second top, which nothing reads, is none of its outputs."""
    only = replace(pen, names=pen.names[:1])
    return [*only.last(operator, [x.name], (*x.shape[:2], *sizes), **attributes), *[NOWHERE] * len(pen.names[1:])]


def lrn(pen: Pen) -> list[Tensor]:
    """ACROSS_CHANNELS: x / (k + alpha / n sum)^beta, the sum of squares over n channels, as ONNX's LRN.
    WITHIN_CHANNEL: x / (1 + alpha mean)^beta, the mean of squares over n x n pixels, zeros around; without k in Caffe.
    """
    param, x = pen.layer.message.lrn_param, pen.bottom()
    size = param.local_size
    if size % 2 == 0:
        raise pen.wrong(f"has local_size {size}: it must be odd")
    if len(x.shape) != 4:
        raise pen.wrong(f"needs a bottom of 4 dimensions, not {len(x.shape)}")
    if param.norm_region == 0:
        if min(param.alpha, param.beta) <= 0:
            raise pen.wrong("needs alpha and beta above 0: ONNX's LRN takes no others")
        return pen.last("LRN", [x.name], x.shape, size=size, alpha=param.alpha, beta=param.beta, bias=param.k)
    window = {"kernel_shape": [size] * 2, "strides": [1, 1], "pads": [size // 2] * 4, "count_include_pad": 1}
    square = pen.step("square", "Mul", [x.name, x.name], x.shape)
    mean = pen.step("mean", "AveragePool", [square.name], x.shape, **window)
    scaled = pen.step("scaled", "Mul", [mean.name, pen.constant("alpha", param.alpha)], x.shape)
    shifted = pen.step("shifted", "Add", [scaled.name, pen.constant("one", 1.0)], x.shape)
    divisor = pen.step("divisor", "Pow", [shifted.name, pen.constant("beta", param.beta)], x.shape)
    return pen.last("Div", [x.name, divisor.name], x.shape)
