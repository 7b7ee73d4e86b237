"""Models made on the spot, without a download. Import it where it is used: it needs numpy and onnx.

GoogLeNet (Szegedy et al., "Going Deeper with Convolutions", 2014) follows BVLC's deploy.prototxt layer by layer. Its
weights are random, so its answers mean nothing; its arithmetic, memory and layer names are those of the real one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper

from loadtrt.errors import UsageError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import onnx

    Named = tuple[str, Sequence[int | str]]  # a tensor's name and shape

# Channels of inception_x/: 1x1, 3x3_reduce, 3x3, 5x5_reduce, 5x5, pool_proj.
INCEPTION = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
# Old enough for TensorRT 8.6 (opset 17, IR version 8 at most), new enough for everything else.
OPSET, IR_VERSION = 13, 7


def googlenet(batch: int | None = None, seed: int = 0) -> onnx.ModelProto:
    """`data` fp32 [batch, 3, 224, 224] -> `prob` fp32 [batch, 1000]; batch None leaves the first dimension dynamic.

    Nodes carry the prototxt's layer names, and each names its output after itself. Dropout (pool5/drop_7x7_s1) is left
    out: at inference it passes its input through, and the parsers agree less on the operator than on its absence. Same
    seed, same bytes.
    """
    graph = _Graph(seed)
    x = graph.conv("data", "conv1", "7x7_s2", 3, 64, 7, stride=2)
    x = graph.max_pool(x, "pool1/3x3_s2", stride=2)
    x = graph.norm(x, "pool1/norm1")
    x = graph.conv(x, "conv2", "3x3_reduce", 64, 64, 1)
    x = graph.conv(x, "conv2", "3x3", 64, 192, 3)
    x = graph.norm(x, "conv2/norm2")
    x = graph.max_pool(x, "pool2/3x3_s2", stride=2)
    channels = 192
    for block, widths in INCEPTION.items():
        x, channels = graph.inception(x, block, channels, widths)
        if block in ("3b", "4e"):
            x = graph.max_pool(x, f"pool{int(block[0])}/3x3_s2", stride=2)
    x = graph.node("AveragePool", [x], "pool5/7x7_s1", kernel_shape=[7, 7], strides=[1, 1])
    x = graph.node("Flatten", [x], "pool5/flatten", axis=1)
    # Logits of about unit spread (LeCun), so that softmax neither saturates nor goes flat.
    weight = graph.weights("loss3/classifier.weight", (1000, channels), math.sqrt(1 / channels))
    bias = graph.weights("loss3/classifier.bias", (1000,), 0.0)
    x = graph.node("Gemm", [x, weight, bias], "loss3/classifier", transB=1)
    graph.node("Softmax", [x], "prob", axis=1)

    first = "batch" if batch is None else batch
    inputs, outputs = [("data", (first, 3, 224, 224))], [("prob", (first, 1000))]
    return model_of("GoogleNet", graph.nodes, inputs, outputs, graph.initializers)


def model_of(
    name: str,
    nodes: Sequence[onnx.NodeProto],
    inputs: Iterable[Named],
    outputs: Iterable[Named],
    constants: Sequence[onnx.TensorProto],
) -> onnx.ModelProto:
    """An fp32 model of these nodes."""

    def infos(tensors: Iterable[Named]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(tensor, TensorProto.FLOAT, shape) for tensor, shape in tensors]

    graph = helper.make_graph(nodes, name, infos(inputs), infos(outputs), constants)
    opset = helper.make_opsetid("", OPSET)
    model: onnx.ModelProto = helper.make_model(
        graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="loadtrt"
    )
    return model


class _Graph:
    """Collects nodes and weights; each layer method takes an input's name and returns its output's."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def node(self, operator: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def weights(self, name: str, shape: tuple[int, ...], deviation: float) -> str:
        """Normal with mean 0."""
        values = self._random.standard_normal(shape, dtype=np.float32) * np.float32(deviation)
        raw = values.astype("<f4").tobytes()
        self.initializers.append(helper.make_tensor(name, TensorProto.FLOAT, shape, raw, raw=True))
        return name

    def conv(self, x: str, block: str, layer: str, channels: int, filters: int, kernel: int, stride: int = 1) -> str:
        """Convolution, `kernel // 2` of padding, and its ReLU. He et al. 2015: weights of variance 2 / fan-in keep the
        second moment of the activations from layer to layer."""
        name = f"{block}/{layer}"
        deviation = math.sqrt(2 / (channels * kernel**2))
        weight = self.weights(f"{name}.weight", (filters, channels, kernel, kernel), deviation)
        bias = self.weights(f"{name}.bias", (filters,), 0.01)
        window = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4}
        self.node("Conv", [x, weight, bias], name, **window)
        return self.node("Relu", [name], f"{block}/relu_{layer.removesuffix('_s2')}")

    def max_pool(self, x: str, name: str, stride: int) -> str:
        """3x3. Caffe rounds the output size up (ceil mode), which with stride 2 and no padding gives 56, 28, 14, 7."""
        window: dict[str, Any] = {"kernel_shape": [3, 3], "strides": [stride] * 2, "pads": [1] * 4}
        if stride == 2:
            window |= {"pads": [0] * 4, "ceil_mode": 1}
        return self.node("MaxPool", [x], name, **window)

    def norm(self, x: str, name: str) -> str:
        return self.node("LRN", [x], name, size=5, alpha=1e-4, beta=0.75, bias=1.0)

    def inception(self, x: str, block: str, channels: int, widths: tuple[int, ...]) -> tuple[str, int]:
        """Four branches side by side, concatenated. Returns the output's name and its channels."""
        narrow, reduce3, wide3, reduce5, wide5, projected = widths
        block = f"inception_{block}"
        one = self.conv(x, block, "1x1", channels, narrow, 1)
        three = self.conv(x, block, "3x3_reduce", channels, reduce3, 1)
        three = self.conv(three, block, "3x3", reduce3, wide3, 3)
        five = self.conv(x, block, "5x5_reduce", channels, reduce5, 1)
        five = self.conv(five, block, "5x5", reduce5, wide5, 5)
        pooled = self.max_pool(x, f"{block}/pool", stride=1)
        pooled = self.conv(pooled, block, "pool_proj", channels, projected, 1)
        output = self.node("Concat", [one, three, five, pooled], f"{block}/output", axis=1)
        return output, narrow + wide3 + wide5 + projected


MODELS: dict[str, Callable[[int | None, int], onnx.ModelProto]] = {"googlenet": googlenet}


def make(name: str, batch: int | None, seed: int) -> onnx.ModelProto:
    """The model called `name`; batch None leaves the first dimension dynamic. Same seed, same bytes.

    Raises UsageError, naming the nearest model, for a name that is not in the zoo.
    """
    if name not in MODELS:
        hint = nearest(name.lower(), MODELS, f"it has {', '.join(MODELS)}")
        raise UsageError(f"the zoo has no model '{name}': {hint}")
    return MODELS[name](batch, seed)
