"""Caffe's layers that compute each number from one number: activations, and powers, exponentials and logarithms."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtrt.caffe.graph import Pen, Tensor


def plain(operator: str) -> Callable[[Pen], list[Tensor]]:
    """A layer that is an operator of ONNX without parameters."""

    def layer(pen: Pen) -> list[Tensor]:
        return pen.last(operator, [pen.bottom().name], pen.bottom().shape)

    return layer


def relu(pen: Pen) -> list[Tensor]:
    slope, x = pen.layer.message.relu_param.negative_slope, pen.bottom()
    if slope:
        return pen.last("LeakyRelu", [x.name], x.shape, alpha=slope)
    return pen.last("Relu", [x.name], x.shape)


def relu6(pen: Pen) -> list[Tensor]:
    """min(max(x, 0) + slope min(x, 0), 6); forks keep the slope in either message."""
    message, x = pen.layer.message, pen.bottom()
    slope = message.relu6_param.negative_slope or message.relu_param.negative_slope
    if slope:
        leaky = pen.step("leaky", "LeakyRelu", [x.name], x.shape, alpha=slope)
        return pen.last("Min", [leaky.name, pen.constant("six", 6.0)], x.shape)
    return _clipped(pen, 0.0, 6.0)


def clip(pen: Pen) -> list[Tensor]:
    param = pen.layer.message.clip_param
    if not (param.HasField("min") and param.HasField("max") and param.min <= param.max):
        raise pen.wrong("needs clip_param with min, and a max that is not below it")
    return _clipped(pen, param.min, param.max)


def _clipped(pen: Pen, least: float, most: float) -> list[Tensor]:
    return pen.last(
        "Clip", [pen.bottom().name, pen.constant("min", least), pen.constant("max", most)], pen.bottom().shape
    )


def prelu(pen: Pen) -> list[Tensor]:
    """max(x, 0) + slope min(x, 0), a slope for each channel or (channel_shared) one."""
    x, channels = pen.bottom(), pen.channels()
    slope = pen.learned(0, (1 if pen.layer.message.prelu_param.channel_shared else channels,), 0.25, 0.0)
    if not pen.layer.message.prelu_param.channel_shared:
        slope = slope.reshape(-1, *[1] * (len(x.shape) - 2))
    return pen.last("PRelu", [x.name, pen.constant("slope", slope)], x.shape)


def elu(pen: Pen) -> list[Tensor]:
    """x above 0, alpha (exp(x) - 1) elsewhere."""
    return pen.last("Elu", [pen.bottom().name], pen.bottom().shape, alpha=pen.layer.message.elu_param.alpha)


def mish(pen: Pen) -> list[Tensor]:
    """x tanh(log(1 + exp(x)))."""
    x = pen.bottom()
    softplus = pen.step("softplus", "Softplus", [x.name], x.shape)
    gate = pen.step("gate", "Tanh", [softplus.name], x.shape)
    return pen.last("Mul", [x.name, gate.name], x.shape)


def swish(pen: Pen) -> list[Tensor]:
    """x sigmoid(beta x)."""
    x, beta = pen.bottom(), pen.layer.message.swish_param.beta
    scaled = x if beta == 1 else pen.step("scaled", "Mul", [x.name, pen.constant("beta", beta)], x.shape)
    gate = pen.step("gate", "Sigmoid", [scaled.name], x.shape)
    return pen.last("Mul", [x.name, gate.name], x.shape)


def hard_swish(pen: Pen) -> list[Tensor]:
    """x min(max(x + 3, 0), 6) / 6."""
    x = pen.bottom()
    gate = pen.step("gate", "HardSigmoid", [x.name], x.shape, alpha=1 / 6, beta=0.5)
    return pen.last("Mul", [x.name, gate.name], x.shape)


def power(pen: Pen) -> list[Tensor]:
    """(shift + scale x)^power."""
    param = pen.layer.message.power_param
    return _affine(pen, param.scale, param.shift, [("Pow", "power", param.power)] if param.power != 1 else [])


def exp(pen: Pen) -> list[Tensor]:
    """base^(shift + scale x), base e by default."""
    param = pen.layer.message.exp_param
    factor = 1.0 if param.base == -1 else math.log(_base(pen, param.base))
    return _affine(pen, param.scale * factor, param.shift * factor, [("Exp", "", 0.0)])


def log(pen: Pen) -> list[Tensor]:
    """The logarithm of shift + scale x to the base, e by default."""
    param = pen.layer.message.log_param
    natural = [("Log", "", 0.0)]
    if param.base == -1:
        return _affine(pen, param.scale, param.shift, natural)
    if _base(pen, param.base) == 1:
        raise pen.wrong("has base 1, which has no logarithms")
    return _affine(pen, param.scale, param.shift, [*natural, ("Mul", "per_base", 1 / math.log(param.base))])


def _base(pen: Pen, base: float) -> float:
    if base <= 0:
        raise pen.wrong(f"has base {base:g}: it must be above 0, or -1 for e")
    return base


def _affine(pen: Pen, scale: float, shift: float, then: list[tuple[str, str, float]]) -> list[Tensor]:
    """shift + scale x, and `then` operators with a constant each, or with none where the word is ""; what does nothing
    is left out."""
    x = pen.bottom()
    steps = [("Mul", "scale", scale)] if scale != 1 else []
    steps += [("Add", "shift", shift)] if shift else []
    steps = [*steps, *then] or [("Identity", "", 0.0)]
    for operator, word, value in steps[:-1]:
        inputs = [x.name, pen.constant(word, value)] if word else [x.name]
        x = pen.step(word or operator.lower(), operator, inputs, x.shape)
    operator, word, value = steps[-1]
    return pen.last(operator, [x.name, pen.constant(word, value)] if word else [x.name], x.shape)
