"""Networks that nobody tuned for, as ONNX files with seeded random weights: python -m benchmarks.nets FOLDER

googlenet    zoo:googlenet, `data` [batch, 3, 224, 224]
resnet       ResNet-50 (He et al. 2015), batch normalisation folded, `image` [8, 3, 224, 224]
mobilenet    MobileNet v1 of half width (Howard et al. 2017), depthwise convolutions, `image` [4, 3, 128, 128]
encoder      one block of a transformer, six heads of 64, `tokens` [8, 128, 384] in and out
convnet      a digit classifier, `image` [1, 1, 28, 28]
multi        three inputs and two outputs of 4 MiB: bound by copies

ResNet's weights are multiples of a step (15 levels), so that its plan packs to a third of its size.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper

from loadtrt.zoo import googlenet, model_of

if TYPE_CHECKING:
    from collections.abc import Sequence


class Net:
    """Collects nodes and weights; each method takes an input's name and returns its output's."""

    def __init__(self, *, levels: bool = False) -> None:
        self._random = np.random.default_rng(18)
        self._levels = levels
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def node(self, operator: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        name = name or f"{operator.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def constant(self, values: Any, kind: type = np.float32) -> str:
        name = f"weight{len(self.weights)}"
        self.weights.append(onnx.numpy_helper.from_array(np.asarray(values, kind), name))
        return name

    def normal(self, shape: Sequence[int], deviation: float) -> str:
        values: Any = self._random.standard_normal(shape, np.float32)
        if self._levels:
            values = np.clip(np.rint(values * 3), -7, 7) / 3
        return self.constant(values * deviation)

    def conv(
        self, x: str, channels: int, filters: int, kernel: int, stride: int = 1, groups: int = 1, gain: float = 1
    ) -> str:
        deviation = gain * (2 * groups / (channels * kernel**2)) ** 0.5
        weight = self.normal((filters, channels // groups, kernel, kernel), deviation)
        window: dict[str, Any] = {
            "kernel_shape": [kernel] * 2,
            "strides": [stride] * 2,
            "pads": [kernel // 2] * 4,
            "group": groups,
        }
        return self.node("Conv", x, weight, self.normal((filters,), 0.01), **window)

    def dense(self, x: str, inputs: int, outputs: int, name: str = "") -> str:
        product = self.node("MatMul", x, self.normal((inputs, outputs), inputs**-0.5))
        return self.node("Add", product, self.normal((outputs,), 0.01), name=name)

    def classified(self, x: str, channels: int) -> str:
        pooled = self.node("Flatten", self.node("GlobalAveragePool", x), axis=1)
        return self.node("Softmax", self.dense(pooled, channels, 1000), name="prob", axis=1)

    def normed(self, x: str, size: int) -> str:
        """LayerNorm, in the operators of opset 13."""
        centered = self.node("Sub", x, self.node("ReduceMean", x, axes=[-1], keepdims=1))
        variance = self.node("ReduceMean", self.node("Mul", centered, centered), axes=[-1], keepdims=1)
        spread = self.node("Sqrt", self.node("Add", variance, self.constant(1e-5)))
        scaled = self.node("Mul", self.node("Div", centered, spread), self.constant(np.ones(size)))
        return self.node("Add", scaled, self.constant(np.zeros(size)))

    def model(self, inputs: dict[str, Sequence[int]], outputs: dict[str, Sequence[int]]) -> onnx.ModelProto:
        return model_of("net", self.nodes, inputs.items(), outputs.items(), self.weights)


def resnet() -> onnx.ModelProto:
    net = Net(levels=True)
    x = net.node("Relu", net.conv("image", 3, 64, 7, stride=2))
    x = net.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    channels = 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        width = 64 << stage
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            y = net.node("Relu", net.conv(x, channels, width, 1))
            y = net.node("Relu", net.conv(y, width, width, 3, stride))
            y = net.conv(y, width, 4 * width, 1, gain=0.2)  # so that sums of blocks stay in FP16's range
            x = x if block else net.conv(x, channels, 4 * width, 1, stride)
            x, channels = net.node("Relu", net.node("Add", x, y)), 4 * width
    net.classified(x, channels)
    return net.model({"image": (8, 3, 224, 224)}, {"prob": (8, 1000)})


def mobilenet() -> onnx.ModelProto:
    net = Net()
    x, channels = net.node("Relu", net.conv("image", 3, 16, 3, stride=2)), 16
    for filters, stride in (
        (32, 1),
        (64, 2),
        (64, 1),
        (128, 2),
        (128, 1),
        (256, 2),
        *[(256, 1)] * 5,
        (512, 2),
        (512, 1),
    ):
        x = net.node("Relu", net.conv(x, channels, channels, 3, stride, groups=channels))
        x, channels = net.node("Relu", net.conv(x, channels, filters, 1)), filters
    net.classified(x, channels)
    return net.model({"image": (4, 3, 128, 128)}, {"prob": (4, 1000)})


def encoder(batch: int = 8, tokens: int = 128, heads: int = 6) -> onnx.ModelProto:
    net, size = Net(), 64 * heads

    def heads_of(x: str, order: Sequence[int]) -> str:
        split = net.node("Reshape", x, net.constant((batch, tokens, heads, 64), np.int64))
        return net.node("Transpose", split, perm=order)

    queries, values = (heads_of(net.dense("tokens", size, size), (0, 2, 1, 3)) for _ in range(2))
    keys = heads_of(net.dense("tokens", size, size), (0, 2, 3, 1))
    scores = net.node("Mul", net.node("MatMul", queries, keys), net.constant(0.125))
    mixed = net.node("MatMul", net.node("Softmax", scores, axis=-1), values)
    joined = net.node("Transpose", mixed, perm=(0, 2, 1, 3))
    joined = net.node("Reshape", joined, net.constant((batch, tokens, size), np.int64))
    x = net.normed(net.node("Add", "tokens", net.dense(joined, size, size)), size)
    wide = net.dense(x, size, 4 * size)
    erf = net.node("Erf", net.node("Mul", wide, net.constant(0.5**0.5)))
    gelu = net.node("Mul", net.node("Mul", wide, net.constant(0.5)), net.node("Add", erf, net.constant(1)))
    x = net.normed(net.node("Add", x, net.dense(gelu, 4 * size, size)), size)
    net.node("Identity", x, name="encoded")
    return net.model({"tokens": (batch, tokens, size)}, {"encoded": (batch, tokens, size)})


def convnet() -> onnx.ModelProto:
    net = Net()
    x, channels = "image", 1
    for filters in (16, 32):
        x = net.node("Relu", net.conv(x, channels, filters, 5))
        x, channels = net.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), filters
    x = net.node("Relu", net.dense(net.node("Flatten", x), 1568, 128))
    net.dense(x, 128, 10, name="digit")
    return net.model({"image": (1, 1, 28, 28)}, {"digit": (1, 10)})


def multi() -> onnx.ModelProto:
    net, shape = Net(), (1, 16, 256, 256)
    total = net.node("Add", "a", "b")
    net.node("Relu", net.node("Mul", total, "c"), name="y1")
    net.node("Sub", total, "c", name="y2")
    return net.model(dict.fromkeys("abc", shape), dict.fromkeys(("y1", "y2"), shape))


NETS = (googlenet, resnet, mobilenet, encoder, convnet, multi)


def main() -> None:
    """Write them all."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for make in NETS:
        model = make()
        onnx.checker.check_model(model)
        onnx.save(model, folder / f"{make.__name__}.onnx")


if __name__ == "__main__":
    main()
