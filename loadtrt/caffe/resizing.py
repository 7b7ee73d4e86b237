"""Layers of Caffe's forks that resize images: Interp (DeepLab, PSPNet) and Upsample (Darknet's YOLO)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from loadtrt.caffe.prototxt import format_shape

if TYPE_CHECKING:
    from loadtrt.caffe.graph import Pen, Tensor


def interp(pen: Pen) -> list[Tensor]:
    """Bilinear, corners on corners, of the image without -pad_beg pixels at its beginnings and -pad_end at its ends."""
    param, x = pen.layer.message.interp_param, pen.image()
    if max(param.pad_beg, param.pad_end) > 0:
        raise pen.wrong("has padding above 0, which no fork computes: it crops, by numbers below 0")
    sizes = [size + param.pad_beg + param.pad_end for size in x.shape[2:]]
    if min(sizes) < 1:
        raise pen.wrong(f"crops all of its input of {format_shape(x.shape[2:])}")
    resized = _interpolated_sizes(pen, param, sizes)
    if param.pad_beg or param.pad_end:
        bounds = {"starts": [-param.pad_beg] * 2, "ends": [size - param.pad_beg for size in sizes], "axes": [2, 3]}
        names = [pen.constant(word, values, np.int64) for word, values in bounds.items()]
        x = pen.step("crop", "Slice", [x.name, *names], (*x.shape[:2], *sizes))
    return _resized(pen, x, resized, coordinate_transformation_mode="align_corners", mode="linear")


def _interpolated_sizes(pen: Pen, param: Any, sizes: list[int]) -> list[int]:
    """Shrunk, zoomed, or both; or height and width, which count only where both factors are not the one given."""
    shrinks, zooms = param.HasField("shrink_factor"), param.HasField("zoom_factor")
    if min(param.shrink_factor, param.zoom_factor) < 1:
        raise pen.wrong("needs a shrink_factor and a zoom_factor above 0")
    if shrinks == zooms and param.HasField("height") and param.HasField("width"):
        if min(param.height, param.width) < 1:
            raise pen.wrong("needs a height and a width above 0")
        return [param.height, param.width]
    if not (shrinks or zooms):
        raise pen.wrong("needs shrink_factor, zoom_factor, or height and width")
    shrunk = [(size - 1) // param.shrink_factor + 1 for size in sizes]
    return [size + (size - 1) * (param.zoom_factor - 1) for size in shrunk]


def upsample(pen: Pen) -> list[Tensor]:
    """Each pixel `scale` times in both directions."""
    param = pen.layer.message.upsample_param
    if len(pen.bottoms) == 2 or any(field.name != "scale" for field, _ in param.ListFields()):
        raise pen.wrong(
            "puts numbers at the places of maxima (SegNet's), which is not supported: use --output before it"
        )
    x, scale = pen.image(), int(param.scale)
    if scale < 1 or scale != param.scale:
        raise pen.wrong(f"needs a whole scale above 0, not {param.scale:g}")
    sizes = [size * scale for size in x.shape[2:]]
    how = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor", "mode": "nearest"}
    return _resized(pen, x, sizes, **how)


def _resized(pen: Pen, x: Tensor, sizes: list[int], **attributes: Any) -> list[Tensor]:
    """Sizes are given as scales, so that the batch can change."""
    scales = [1.0, 1.0, *(_scale(new, old) for new, old in zip(sizes, x.shape[2:], strict=True))]
    return pen.last("Resize", [x.name, "", pen.constant("scales", scales)], (*x.shape[:2], *sizes), **attributes)


def _scale(new: int, old: int) -> np.float32:
    """fp32 whose product with `old`, rounded down, is `new`: a reader computes the size by it."""
    scale = np.float32(new / old)
    exact = int(float(scale) * old) == new and int(scale * np.float32(old)) == new
    return scale if exact else np.nextafter(scale, np.float32(np.inf))
